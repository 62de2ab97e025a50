"""A run that failed or was killed, gone on with: a run of its own, in which cells are recalled."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.runs import RunResult, run_notebook
from jupyter_mlops.pipelines.words import read_parameters
from jupyter_mlops.records import Digest, short
from jupyter_mlops.targets.protocol import OnEvent

if TYPE_CHECKING:
    from jupyter_mlops.project import Project


class NotResumed(MlopsError, RuntimeError):
    """A run can not be gone on with."""

    exit_code = 2


def resume_run(
    project: Project, run: Digest, *, output: Path | str | None = None, pairs: Iterable[tuple[str, str]] = (),
    progress: bool = False, on_event: OnEvent | None = None,
) -> RunResult:  # fmt: skip
    """Go on with a run that failed or was killed. Its output notebook and its record stay as they are.

    Parameters
    ----------
    project
        Where it is recorded.
    run
        The run.
    output
        Where the executed notebook goes; beside the notebook, as ``NAME.resumed.ipynb``, unless given.
    pairs
        Names and words of parameters that take the place of those on record.
    progress, on_event
        As for `run_notebook`.

    Raises
    ------
    NotResumed
        It still goes on, or what it ran is not on record.
    """
    found = project.store.run(run)
    started = found.started
    if found.status == "running":
        raise NotResumed(f"run {short(run)} still goes on", next="wait for its end, or stop it")
    path = resumed_notebook(project, run)
    parameters = dict(started.parameters)
    parameters.update(read_parameters(path, pairs, environ=project.environ))
    hidden = [name for name, value in parameters.items() if type(value) is str and value.startswith("<redacted")]
    if hidden:
        name = hidden[0]
        raise NotResumed(
            f"the parameter {name} was secret, and is not on record", next=f"give it again: -p {name} @env:VARIABLE"
        )
    folder = _inside(project, started.folder) if started.folder else None
    return run_notebook(
        path, output=output or path.with_name(f"{path.stem}.resumed.ipynb"), parameters=parameters, project=project,
        cwd=folder, cache="cells", resumes=run, progress=progress, on_event=on_event,
    )  # fmt: skip


def resumed_notebook(project: Project, run: Digest) -> Path:
    """The notebook that a run is gone on with.

    Raises
    ------
    NotResumed
        What it ran is not on record, or gone.
    """
    started = project.store.run(run).started
    if started.trigger == "session" or not started.notebook:
        raise NotResumed(f"run {short(run)} is no headless run of a notebook", next="mlops runs")
    path = _inside(project, started.notebook)
    if not path.is_file():
        raise NotResumed(f"the notebook of run {short(run)} is gone", cause=started.notebook)
    return path


def _inside(project: Project, name: str) -> Path:
    """The path that a record's spelling means."""
    return Path(os.path.expanduser(name)) if name.startswith("~/") else project.root / name
