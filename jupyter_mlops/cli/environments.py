"""Environments: shown, compared, locked, made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jupyter_mlops.cli.tree import FILE, Place, Verb, here, mlops

if TYPE_CHECKING:
    from jupyter_mlops.widgets import View


@mlops.group(name="env")
def env() -> None:
    """Environments: interpreter, packages, machine."""


@env.command(name="show", cls=Verb)
@click.argument("what", required=False)
@here
def env_show(place: Place, what: str | None) -> View:
    """The environment of WHAT (a cell run, run, model version); the one this command runs in unless given."""
    from jupyter_mlops import views

    return views.environment(place.project if what else None, place.subject(what) if what else None)


@env.command(name="diff", cls=Verb)
@click.argument("old")
@click.argument("new", required=False)
@here
def env_diff(place: Place, old: str, new: str | None) -> View:
    """What changed from the environment of OLD to that of NEW (the one here unless given). Ends with 1 if anything."""
    from jupyter_mlops import views

    return views.environment_diff(place.project, place.subject(old), place.subject(new) if new else None)


@env.command(name="lock", cls=Verb)
@click.argument("what", required=False)
@click.option("-o", "--output", type=FILE, default=Path("pylock.toml"), show_default=True)
@click.option("--requirements", type=FILE, help="Write a requirements.txt with hashes too.")
@click.option("--all", "everything", is_flag=True, help="Lock all that was installed, not only what was used.")
@click.option("--offline", is_flag=True, help="Ask no index: only what uv has in its cache.")
@here
def env_lock(
    place: Place, what: str | None, output: Path, requirements: Path | None, everything: bool, offline: bool
) -> View:  # fmt: skip
    """Lock exactly what WHAT (a run, cell run or model; the latest run unless given) used, every file by its hash."""
    from jupyter_mlops import views
    from jupyter_mlops.reproduce import create

    past = place.past(what)
    made, environment = create.lock_of(
        past, place.project.store, folder=output.absolute().parent, everything=everything, offline=offline
    )
    create.write(made, output, requirements)
    return views.locked(made, environment, output, requirements)


@env.command(name="create", cls=Verb)
@click.argument("what")
@click.argument("folder", type=FILE)
@click.option("--kernel", default="", help="Put its kernel among yours, under this name.")
@click.option("--offline", is_flag=True, help="Only from uv's cache.")
@click.option("--download", is_flag=True, help="Let uv download the Python if none here fits.")
@here
def env_create(place: Place, what: str, folder: Path, kernel: str, offline: bool, download: bool) -> View:
    """Make a virtual environment with a kernel in FOLDER from WHAT: a pylock.toml, or a run, cell run or model."""
    from jupyter_mlops import views
    from jupyter_mlops.project import Project
    from jupyter_mlops.reproduce import create

    if Path(what).suffix == ".toml":
        project = place.project if place.session else Project.find()
        lock, wheels = create.read_lock(Path(what)), Path(what).absolute().parent
        store = project.store if project else None
        made = create.create(
            lock, folder, store=store, wheels=wheels, kernel=kernel, offline=offline, download=download
        )
    else:
        made = create.create_for(
            place.past(what), folder, store=place.project.store, kernel=kernel, offline=offline, download=download
        )
    return views.created(made)
