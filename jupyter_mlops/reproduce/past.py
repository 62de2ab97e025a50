"""What the record says of something that was run: the cells in the order they ran, and what they stood in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.records import Artifact, CellRun, CodeState, Digest, Environment, Gap, ModelVersion, Run, short

if TYPE_CHECKING:
    from jupyter_mlops.store import Store


class NothingOnRecord(MlopsError, LookupError):
    """The record does not hold what is needed to bring something back."""


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was run.

    Attributes
    ----------
    text
        The reference as it was given.
    subject
        The line it is about: of a run, a cell run or a model version.
    run
        The run its cells belong to.
    cells
        The cell runs in the order they began, those inside others left out.
    line, value
        What the reference means: where it stands, and what stands there.
    """

    text: str
    subject: Digest
    run: Run
    cells: tuple[CellRun, ...]
    line: Digest | None = None
    value: Any = None

    @property
    def headless(self) -> bool:
        """Whether it was a notebook run from top to bottom by a machine."""
        return self.run.started.trigger == "papermill"

    @property
    def notebook(self) -> str:
        """The notebook's path as recorded; empty where nobody told."""
        return self.run.started.notebook or next((one.started.notebook for one in self.cells), "")

    @property
    def imported(self) -> list[str]:
        """The modules of packages that it had in memory; none where that was not recorded."""
        return sorted({name for one in self.cells if one.ended for name in one.ended.imported})

    @property
    def modules(self) -> list[Artifact]:
        """The project's own modules, each in the version that was loaded last."""
        found = {one.name: one for cell in self.cells if cell.ended for one in cell.ended.modules}
        return [found[name] for name in sorted(found)]

    def environment(self, store: Store) -> Environment:
        """The environment it ended in.

        Raises
        ------
        NothingOnRecord
            None is on record.
        """
        found = environment_of(store, self.cells)
        if found is None:
            raise NothingOnRecord(f"no environment is on record for {self.text}")
        return found

    def code(self, store: Store) -> CodeState | None:
        """The state of the code it ended in, where one is on record."""
        for cell in reversed(self.cells):
            if cell.code is not None:
                record = store.line(cell.code).record
                if isinstance(record, CodeState):
                    return record
        return None

    def local_modules(self, store: Store) -> list[str]:
        """Names of modules that are the project's own."""
        state = self.code(store)
        return sorted({one.type for one in (*self.modules, *(state.modules if state else ()))})


def past(store: Store, text: str, line: Digest | None, value: Any) -> Past:
    """Gather what is on record of a run, a cell run, a model version, or what a cell run made.

    Of a cell run or what it made, the run up to that cell; of a model, the run up to where it was registered.

    Raises
    ------
    NothingOnRecord
        No run is on record for it.
    WrongUse
        It is nothing that was run.
    """
    return msgspec.structs.replace(_found(store, text, line, value), line=line, value=value)


def _found(store: Store, text: str, line: Digest | None, value: Any) -> Past:
    record = getattr(value, "record", None)
    if isinstance(record, ModelVersion):
        if record.run is None:
            raise NothingOnRecord(f"no run is on record that made {text}", next="register it in a recorded notebook")
        run = store.run(record.run)
        ends = None if run.started.trigger == "papermill" else _registered(store, run.id, getattr(value, "time", ""))
        return _past(store, text, value.digest, run, ends)
    if isinstance(value, Run):
        return _past(store, text, value.id, value, None)
    if isinstance(value, CellRun):
        return _past(store, text, value.id, store.run(value.started.run), value.id)
    if isinstance(value, Artifact) and line is not None:
        cell = store.cell_run(line)
        return _past(store, text, cell.id, store.run(cell.started.run), cell.id)
    raise WrongUse(f"{text} is nothing that was run", next="give a run (mlops runs), a cell run (mlops log) or a model")


def latest(store: Store) -> Past:
    """The latest run that has a cell.

    Raises
    ------
    NothingOnRecord
        There is none.
    """
    for run in store.runs():
        if store.cell_runs(run=run.id, limit=1):
            return _past(store, run.id, run.id, run, None)
    raise NothingOnRecord("nothing was run here", next="mlops run NOTEBOOK, or %load_ext jupyter_mlops in one")


def _registered(store: Store, run: Digest, time: str) -> Digest | None:
    """The last cell run of a session that had begun when something was registered."""
    before = [cell.id for cell in store.cell_runs(run=run, newest_first=False) if not time or cell.time <= time]
    return before[-1] if before else None


def _past(store: Store, text: str, subject: Digest, run: Run, ends: Digest | None) -> Past:
    cells = _top(store.cell_runs(run=run.id, newest_first=False))
    if ends is not None:
        last = next((at for at, one in enumerate(cells) if one.id == ends), len(cells) - 1)
        cells = cells[: last + 1]
    if not cells:
        raise NothingOnRecord(f"no cell is on record for {text} (run {short(run.id)})")
    return Past(text=text, subject=subject, run=run, cells=tuple(cells))


def _top(cells: Iterable[CellRun]) -> list[CellRun]:
    """Cells that somebody ran; not those that ran inside another, which come again with it."""
    return [one for one in cells if one.started.parent is None]


def environment_of(store: Store, cells: Sequence[CellRun]) -> Environment | None:
    """The environment that the last of some cell runs ended in; None where none is on record."""
    for cell in reversed(cells):
        if cell.environment is not None:
            record = store.line(cell.environment).record
            if isinstance(record, Environment):
                return record
    return None


def blocking(cells: Iterable[CellRun]) -> list[tuple[CellRun, Gap]]:
    """The gaps through which lineage cannot be trusted, each with its cell run."""
    return [(one, gap) for one in cells for gap in one.gaps if gap.blocks]
