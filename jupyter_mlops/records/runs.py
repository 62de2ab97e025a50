"""Cell runs and runs: facts put together from their lines."""

from __future__ import annotations

from typing import Any

import msgspec

from jupyter_mlops.records.facts import (
    Artifact,
    CellEnded,
    CellLogged,
    CellSettled,
    CellStarted,
    Checkpoint,
    Gap,
    RunEnded,
    RunStarted,
)
from jupyter_mlops.records.spelling import Digest


class CellRun(msgspec.Struct, frozen=True, kw_only=True):
    """A cell run, put together from its lines: started, logged, ended, settled.

    `status` is ``interrupted`` where the end is missing and its run is over, ``running`` where the run may go on.
    """

    id: Digest
    time: str
    writer: str
    seq: int
    started: CellStarted
    logged: tuple[CellLogged, ...] = ()
    ended: CellEnded | None = None
    settled: tuple[CellSettled, ...] = ()
    open_ended: bool = False

    @property
    def status(self) -> str:
        if self.ended is not None:
            return self.ended.status
        return "running" if self.open_ended else "interrupted"

    @property
    def source(self) -> str:
        return self.started.source

    @property
    def environment(self) -> Digest | None:
        """The line of the environment it ran in."""
        return self.started.environment or next((late.environment for late in self.settled if late.environment), None)

    @property
    def code(self) -> Digest | None:
        """The line of the code's state it ran in."""
        return self.started.code or next((late.code for late in self.settled if late.code), None)

    @property
    def after(self) -> list[Digest]:
        late = (digest for one in self.settled for digest in one.after)
        return list(dict.fromkeys((*(self.ended.after if self.ended else ()), *late)))

    @property
    def inputs(self) -> list[Artifact]:
        return self._merged("inputs")

    @property
    def outputs(self) -> list[Artifact]:
        return self._merged("outputs")

    @property
    def files_read(self) -> list[Artifact]:
        return self._merged("files_read")

    @property
    def files_written(self) -> list[Artifact]:
        return self._merged("files_written")

    @property
    def gaps(self) -> list[Gap]:
        return [*(self.ended.gaps if self.ended else ()), *(gap for late in self.settled for gap in late.gaps)]

    @property
    def metrics(self) -> dict[str, Any]:
        """The last value of each metric."""
        return {line.key: line.value for line in self.logged if line.what == "metric"}

    @property
    def parameters(self) -> dict[str, Any]:
        return {line.key: line.value for line in self.logged if line.what == "param"}

    @property
    def recalled(self) -> Digest | None:
        """The cell run whose doing was put back, where this one was not run."""
        return self.ended.recalled if self.ended is not None else None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The variables as it left them, where they were kept."""
        return next((late.checkpoint for late in reversed(self.settled) if late.checkpoint is not None), None)

    def _merged(self, field: str) -> list[Artifact]:
        """What the end says, with what settled later in its place."""
        ended: list[Artifact] = getattr(self.ended, field) if self.ended else []
        if not ended and not self.settled:
            return []
        found = {one.name: one for one in ended}
        for late in self.settled:
            found.update((one.name, one) for one in getattr(late, field))
        return list(found.values())


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run, put together from its lines."""

    id: Digest
    time: str
    started: RunStarted
    ended: RunEnded | None = None
    open_ended: bool = False

    @property
    def status(self) -> str:
        if self.ended is not None:
            return self.ended.status
        return "running" if self.open_ended else "interrupted"
