"""One run as a step: put together for a target, had done there, and performed in whatever process that is."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.parameters import Secret
from jupyter_mlops.pipelines.runs import RunResult, checked, run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import Digest
from jupyter_mlops.targets.protocol import Event, OnEvent, Outcome, Step, Target, tell

PERFORM: Final = "jupyter_mlops.pipelines.steps:perform"
"""The name of `perform`, for `targets.Target.submit`."""
_PIECE: Final = 1 << 14
"""Characters of what a cell prints that are told of at a time: whoever listens reads line by line."""


def perform(step: Step, project: Project, on_event: OnEvent) -> Outcome:
    """Run a step's notebook here; whatever comes of it is an outcome.

    Parameters
    ----------
    step
        What to run.
    project
        Where it is recorded, and the folder that its paths are relative to.
    on_event
        Told when the run is on record, and of each cell.
    """
    run: Digest | None = None
    aloud = _Aloud(on_event) if step.live else None

    def heard(event: Event) -> None:
        nonlocal run
        run = event.run or run
        if aloud is not None:
            aloud.heard(event)
        on_event(msgspec.structs.replace(event, step=step.name))

    began = time.monotonic()
    secrets = {name: Secret(value) for name, value in step.secrets.items()}
    try:
        result = run_notebook(
            project.root / step.notebook, output=project.root / step.output, parameters={**step.parameters, **secrets},
            project=project.within(step.parent) if step.parent else project, kernel=step.kernel or None,
            timeout=step.timeout, cell_timeout=step.cell_timeout, on_event=heard, cache=step.cache, watch=aloud,
            tickets=step.tickets,
        )  # fmt: skip
    except KeyboardInterrupt:
        seconds = round(time.monotonic() - began, 6)
        return Outcome(status="interrupted", run=run, output=step.output, seconds=seconds)
    except MlopsError as error:
        status = "refused" if run is None else "failed"
        return Outcome(status=status, run=run, cause=str(error), seconds=round(time.monotonic() - began, 6))
    return outcome_of(project, step, result)


class _Aloud:
    """Tells of what cells print."""

    def __init__(self, on_event: OnEvent) -> None:
        self._tell, self._cell, self._open = on_event, Event(kind="cell began"), False

    def heard(self, event: Event) -> None:
        """Note which cell it is that prints."""
        if event.kind == "cell began":
            self._cell, self._open = event, False

    def moment(self) -> None:
        """Time has passed, which is told elsewhere."""

    def output(self, output: Mapping[str, Any]) -> None:
        """Something was printed, shown or raised."""
        text, own = printed(output)
        if own and self._open:
            text = f"\n{text}"
        self._open = not text.endswith("\n") if text else self._open
        for start in range(0, len(text), _PIECE):
            self._tell(msgspec.structs.replace(self._cell, kind="output", text=text[start : start + _PIECE]))


def printed(output: Mapping[str, Any]) -> tuple[str, bool]:
    """An output as text, and whether it begins on a line of its own."""
    kind = output.get("output_type")
    if kind == "stream":
        return str(output.get("text", "")), False
    if kind == "error":
        return f"{output.get('ename')}: {output.get('evalue')}\n", True
    return f"{(output.get('data') or {}).get('text/plain', '')}\n", True


def outcome_of(project: Project, step: Step, result: RunResult) -> Outcome:
    """What came of a run, as an outcome."""
    metrics, values = logged(project, result.run)
    return Outcome(
        status=result.status, run=result.run, output=step.output, seconds=result.seconds, cells=result.cells,
        error=str(result.error) if result.error else "", metrics=metrics, values={**values, **metrics},
        gaps=result.gaps, because=result.because, put_back=result.put_back, notes=result.notes,
        recalled=len(result.recalled), again=result.again,
        kernel=result.kernel,
    )  # fmt: skip


def logged(project: Project, run: Digest | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics and the parameters that a run logged, the last of each name."""
    metrics: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for one in project.store.cell_runs(run=run, newest_first=False) if run else ():
        metrics.update(one.metrics)
        parameters.update(one.parameters)
    return metrics, parameters


def step_of(
    project: Project, notebook: Path, *, output: Path | str | None = None, parameters: Mapping[str, Any], **rest: Any
) -> Step:
    """A run as a step, after everything that can be checked before it runs has been.

    Parameters
    ----------
    project
        The project.
    notebook, output, parameters
        As for `run_notebook`.
    rest
        Further fields of the step.

    Raises
    ------
    NotebookUnreadable, ParametersInvalid, OutputRefused
        It can not be run.
    """
    asked = checked(notebook, output, parameters, project)
    rest.setdefault("name", notebook.stem)
    return Step(
        notebook=inside(project, notebook), output=inside(project, asked.place), parameters=asked.parameters,
        secrets=asked.secrets, **rest,
    )  # fmt: skip


def inside(project: Project, path: Path) -> str:
    """A path as steps spell it: relative to the project's root where it is inside, else absolute."""
    full = path.absolute()
    for root in (project.root, project.root.resolve()):
        if full.is_relative_to(root):
            return full.relative_to(root).as_posix()
    return full.as_posix()


def run_on(
    target: Target, step: Step, project: Project, *, progress: bool = False, on_event: OnEvent | None = None
) -> Outcome:
    """Have a target run one step, and wait for what comes of it; an interrupt ends the step first.

    Parameters
    ----------
    target
        Where.
    step
        What.
    project
        Where it is recorded.
    progress
        Show a bar on standard error, if that is a terminal.
    on_event
        Told of each event, and then also to show notes.
    """
    from tqdm import tqdm

    with tqdm(desc=step.name, unit="cell", leave=False, file=sys.stderr, disable=not progress) as bar:

        def heard(event: Event) -> None:
            if event.kind == "cell began":
                bar.total = event.cells
                bar.n = event.cell - 1
                bar.refresh()
            elif event.kind == "note" and on_event is None:
                bar.write(event.text, file=sys.stderr)
            tell(on_event, event)

        handle = target.submit(step, project, PERFORM, heard)
        try:
            return handle.result()
        except KeyboardInterrupt:
            handle.kill()
            raise
