"""Where am I, a project here, the whole story, what is installed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jupyter_mlops.cli.tree import FILE, Place, here, mlops

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.project import Project
    from jupyter_mlops.standing import Stand
    from jupyter_mlops.widgets import View


@mlops.command()
@click.argument("notebook", required=False, type=FILE)
@here
def status(place: Place, notebook: Path | None) -> View:
    """Where am I, and whether the NOTEBOOK as it stands on disk would make what is in memory."""
    from jupyter_mlops import views
    from jupyter_mlops.project import Project

    session = place.session
    start = notebook.parent if notebook is not None and notebook.parent.is_dir() else None
    project = place.project if session else Project.find(start)
    if project is None:
        return views.status(None, None)
    if session is None:
        return views.status(project, None, _stand(project, notebook) if notebook is not None else None)
    session.settle()
    own = project.root / session.notebook() if session.notebook() else None
    asked = notebook.resolve() if notebook is not None else own
    found = None
    if asked is not None and (notebook is not None or asked.is_file()):
        found = _stand(project, asked, session if own is None or asked == own.resolve() else None)
    return views.status(project, session.status(), found)


def _stand(project: Project, notebook: Path, session: Session | None = None) -> Stand:
    from jupyter_mlops.standing import stand

    if session is None:
        return stand(project, notebook)
    return stand(project, notebook, run=session.run, versions=session.access.versions)


@mlops.command()
@click.option("--notebook", "example", is_flag=True, help="Put a small first notebook beside it, unless it is there.")
@here
def init(place: Place, example: bool) -> View:  # noqa: ARG001 - every verb is given its place
    """Make .mlops/ here, so that what notebooks of this folder do is recorded in it."""
    from jupyter_mlops import views
    from jupyter_mlops.project import FOLDER, Project

    root = Path.cwd().resolve()
    fresh = not (root / FOLDER / "format").is_file()
    project = Project(root)
    _ = project.store
    if not example:
        return views.made(project, fresh=fresh)
    from jupyter_mlops.demo import FIRST
    from jupyter_mlops.demo import example as notebook

    with contextlib.suppress(FileExistsError), (root / FIRST).open("xb") as file:  # nothing of anybody's is replaced
        file.write(notebook(FIRST).read_bytes())
    return views.made(project, fresh=fresh, notebook=FIRST)


@mlops.command()
@click.argument("folder", type=FILE, default=Path("mlops-demo"))
@here
def demo(place: Place, folder: Path) -> View:  # noqa: ARG001
    """The whole story on real data in a fresh FOLDER, in about a minute."""
    from jupyter_mlops.demo import tell

    return tell(folder, say=click.echo)


@mlops.command()
@here
def doctor(place: Place) -> View:
    """What is installed, reachable, misconfigured, and what to do about it."""
    from jupyter_mlops import views
    from jupyter_mlops.project import Project

    return views.doctor(place.project if place.session else Project.find())
