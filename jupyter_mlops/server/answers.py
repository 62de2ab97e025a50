"""What the pages of JupyterLab can ask of a store, and what they are answered.

Every answer is a struct, from which the pages' own types are made. Long lists come in pieces. A list of cell runs is
numbered from the oldest, so that a number stays with its cell run while new ones come.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops import __version__
from jupyter_mlops.capture.live import PROTOCOL, Row, row_of
from jupyter_mlops.lineage.staleness import Finding
from jupyter_mlops.project import Project
from jupyter_mlops.records import (
    Artifact,
    CellLogged,
    CellRun,
    CodeState,
    Digest,
    Environment,
    Gap,
    RecordInvalid,
    Run,
    Ticket,
)  # fmt: skip
from jupyter_mlops.standing import stand
from jupyter_mlops.store import NotFound

PAGE: Final = 200
"""The most items of one answer."""
RUNS: Final = 1000
"""The most runs of one answer."""
_SAID: Final = 3  # damaged files that are named
_CHUNK: Final = 400
_CELLS: Final = 2000  # cells of one notebook whose last run is told
_LOOK: Final = 0.5  # seconds that one answer may search; it then says where to go on
_KNOWN: Final = 50_000  # cell runs whose searched text is kept in memory


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What there is for a notebook.

    Attributes
    ----------
    store
        The store's own name; a kernel says the same of its store if both see the same one.
    root
        The project's folder, from the server's; ``.`` where they are the same.
    notebook
        The notebook's path as records spell it.
    cell_runs
        How many of it are on record; `others` are those of the project's other notebooks.
    mark
        Another text as soon as something more is on record.
    problems
        What is wrong with the store, in words.
    """

    version: str
    protocol: int
    store: str
    root: str
    notebook: str
    cell_runs: int
    others: int
    mark: str
    problems: list[str]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a list of cell runs, newest first.

    Attributes
    ----------
    total
        How many there are in all, whatever was searched for.
    next
        What to give as `before` for the piece that follows; None at the end.
    mark
        As in `Overview`.
    """

    rows: list[Row]
    total: int
    next: int | None
    mark: str


class Cells(msgspec.Struct, frozen=True, kw_only=True):
    """The last cell run of each cell of a notebook; `mark` as in `Overview`."""

    rows: list[Row]
    mark: str


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A metric, parameter, tag or artifact that a cell logged, its values in their order."""

    what: str
    key: str
    values: list[Any]


class CellDetail(msgspec.Struct, frozen=True, kw_only=True):
    """All that is on record of a cell run."""

    row: Row
    source: str
    redacted: int
    overhead: float
    error: str
    failed_line: int
    tickets: list[Ticket]
    after: list[Digest]
    inputs: list[Artifact]
    outputs: list[Artifact]
    removed: list[str]
    files_read: list[Artifact]
    files_written: list[Artifact]
    sources: list[Artifact]
    modules: list[Artifact]
    imported: list[str]
    displays: list[Artifact]
    randomness: dict[str, str]
    logged: list[Logged]
    gaps: list[Gap]
    checkpoint: bool
    run: RunRow | None
    environment: Environment | None
    code: CodeState | None


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run: a person's session, or a headless one.

    Attributes
    ----------
    user
        Who it ran as.
    on_behalf_of
        The named user of a Jupyter server who had it started; else empty.
    parent
        The sweep or pipeline that it is a part of.
    result
        The notebook it left, as records spell its path.
    """

    id: Digest
    time: str
    trigger: str
    notebook: str
    status: str
    seconds: float
    user: str
    on_behalf_of: str
    parameters: dict[str, Any]
    tickets: list[Ticket]
    error: str
    outputs: list[Artifact]
    parent: Digest | None
    result: str


class MeasuredRun(RunRow, frozen=True, kw_only=True):
    """A run with what its cells logged: the last value of each metric, and of each parameter.

    Attributes
    ----------
    unread
        How many values it logged before those that were looked at, where there are very many.
    """

    metrics: dict[str, Any]
    logged: dict[str, Any]
    unread: int


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the list of runs, newest first; `total` in all, `mark` as in `Overview`."""

    runs: list[MeasuredRun]
    next: int | None
    total: int
    mark: str


class StandingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a notebook as it stands on disk would make what is in memory, and what keeps each cell from it."""

    notebook: str
    run: Digest | None
    reproduces: str
    why: str
    cells: int
    ran: int
    findings: list[Finding]
    mark: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer: the thing, the cause, what to do next. `kind` is for programs."""

    kind: str
    message: str
    cause: str = ""
    next: str = ""


ANSWERS: Final = (
    Overview, Rows, Cells, CellDetail, Runs, RunRow, MeasuredRun, StandingAnswer, Refusal, Row,
)  # fmt: skip
"""What the pages' types are made of, beside those of the modules next to this one."""


class _Known(msgspec.Struct, frozen=True):
    """What is kept of a cell run that was searched once."""

    lines: int
    status: str
    text: str


class Reading:
    """Answers about one project. Threads may share it.

    Parameters
    ----------
    project
        The project; its store is open.
    root
        Its folder, from the server's.
    """

    def __init__(self, project: Project, root: str) -> None:
        self.project = project
        self.store = project.store
        self.root = root
        self._known: OrderedDict[Digest, _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._triggers: dict[Digest, str] = {}
        self._lost: set[Digest] = set()  # cell runs that were to be shown and could not be read
        self._standing = threading.Lock()

    # -- cell runs ---------------------------------------------------------------------------------------------------

    def overview(self, notebook: str) -> Overview:
        """What there is for a notebook."""
        mark = self.store.mark()
        own = self.store.cell_run_count(notebook=notebook) if notebook else 0
        unread = self.store.unread()
        said = [*unread[:_SAID], *([f"{len(unread) - _SAID} more files are damaged"] if len(unread) > _SAID else [])]
        if lost := len(self._lost):
            said.append(f"{lost} cell run{'s are' if lost > 1 else ' is'} damaged and not shown")
        return Overview(
            version=__version__, protocol=PROTOCOL, store=self.store.id, root=self.root, notebook=notebook,
            cell_runs=own, others=self.store.counts().get("cell.started", 0) - own, mark=mark,
            problems=[*self.store.problems, *said, *(["mlops fsck says more of it"] if said else [])],
        )  # fmt: skip

    def rows(
        self, *, notebook: str | None = None, run: Digest | None = None, cell: str | None = None,
        before: int | None = None, limit: int = PAGE, status: Sequence[str] = (), search: str = "",
    ) -> Rows:  # fmt: skip
        """Cell runs, newest first: those that have one of these states, and all words of a search in what is known.

        Parameters
        ----------
        before
            Only those with a smaller number.
        limit
            How many at most. A search that takes long gives fewer, and says where to go on.
        """
        mark = self.store.mark()
        words = search.casefold().split()
        if not words and not status:
            total = self.store.cell_run_count(notebook=notebook, run=run, cell=cell)
            top = total if before is None else max(0, min(before, total))
            low = max(0, top - limit)
            some = self.store.cell_run_names(
                notebook=notebook, run=run, cell=cell, newest_first=False, skip=low, limit=top - low
            )
            rows = self._rows({name: low + place for place, name in enumerate(some)})
            return Rows(rows=rows, total=total, next=low or None, mark=mark)
        names = self.store.cell_run_names(notebook=notebook, run=run, cell=cell, newest_first=False)
        top = len(names) if before is None else max(0, min(before, len(names)))
        deadline = time.monotonic() + _LOOK
        hits: list[int] = []
        at = top
        while at > 0 and len(hits) < limit and (at == top or time.monotonic() < deadline):
            low = max(0, at - _CHUNK)
            known = self._search_texts(names[low:at])
            while at > low and len(hits) < limit:
                at -= 1
                one = known.get(names[at])
                if one is None or (status and one.status not in status):
                    continue
                if all(word in one.text for word in words):
                    hits.append(at)
        found = self._rows({names[position]: position for position in reversed(hits)})
        return Rows(rows=found, total=len(names), next=at or None, mark=mark)

    def cells(self, notebook: str) -> Cells:
        """The last cell run of each cell of a notebook."""
        mark = self.store.mark()
        runs = self._readable(self.store.last_of_cells(notebook)[-_CELLS:])
        return Cells(rows=[row_of(one, trigger=self._trigger(one.started.run)) for one in runs], mark=mark)

    def _rows(self, places: Mapping[Digest, int]) -> list[Row]:
        """Rows with their numbers, newest first; the oldest is given first."""
        runs = self._readable(places)
        return [row_of(one, trigger=self._trigger(one.started.run), position=places[one.id]) for one in runs][::-1]

    def _readable(self, names: Collection[Digest]) -> list[CellRun]:
        """Cell runs by their names; of what can not be read it is known then."""
        runs = self.store.cell_runs_named(names)
        read = {run.id for run in runs}
        with self._lock:
            self._lost = (self._lost - read) | {name for name in names if name not in read}
        return runs

    def _search_texts(self, names: Sequence[Digest]) -> dict[Digest, _Known]:
        """What can be searched of cell runs; read anew where lines have come since."""
        counts = self.store.line_counts(names)
        with self._lock:
            found = {
                name: one for name in names
                if (one := self._known.get(name)) is not None and one.lines == counts.get(name, 0)
            }  # fmt: skip
        for run in self.store.cell_runs_named([name for name in names if name not in found]):
            found[run.id] = one = _Known(counts.get(run.id, 0), run.status, _searched(run))
            if one.status == "running":
                continue  # that it is over may be known without a line more
            with self._lock:
                self._known[run.id] = one
                while len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
        return found

    def _trigger(self, run: Digest) -> str:
        known = self._triggers.get(run)
        if known is None:
            try:
                known = self.store.run(run).started.trigger
            except (NotFound, RecordInvalid):  # its line is lost: `fsck` names it
                return ""
            self._triggers[run] = known
        return known

    def cell_run(self, digest: Digest) -> CellDetail:
        """All that is on record of a cell run.

        Raises
        ------
        NotFound
            There is no such cell run.
        """
        run = self.store.cell_run(digest)
        started, ended = run.started, run.ended
        environment, code = self._record(run.environment), self._record(run.code)
        try:
            of: RunRow | None = _run_row(self.store.run(started.run))
        except (NotFound, RecordInvalid):  # its line is lost: `fsck` names it
            of = None
        return CellDetail(
            row=row_of(run, trigger=of.trigger if of else ""),
            source=run.source, redacted=started.redacted, overhead=ended.overhead if ended else 0.0,
            error=ended.error if ended else "", failed_line=ended.failed_line if ended else 0,
            tickets=started.tickets, after=run.after, inputs=run.inputs, outputs=run.outputs,
            removed=list(ended.removed) if ended else [], files_read=run.files_read, files_written=run.files_written,
            sources=list(ended.sources) if ended else [], modules=list(ended.modules) if ended else [],
            imported=list(ended.imported) if ended else [], displays=list(ended.displays) if ended else [],
            randomness=dict(ended.randomness) if ended else {}, logged=_logged(run.logged), gaps=run.gaps,
            checkpoint=run.checkpoint is not None and run.checkpoint.variables is not None, run=of,
            environment=environment if isinstance(environment, Environment) else None,
            code=code if isinstance(code, CodeState) else None,
        )  # fmt: skip

    def _record(self, digest: Digest | None) -> Any:
        if digest is None:
            return None
        try:
            return self.store.line(digest).record
        except (NotFound, RecordInvalid):  # lost or damaged: `fsck` names it
            return None

    # -- runs --------------------------------------------------------------------------------------------------------

    def runs(self, *, skip: int = 0, limit: int = PAGE, notebook: str | None = None) -> Runs:
        """Runs, newest first: all, or those of a notebook."""
        mark = self.store.mark()
        total = self.store.run_count(notebook=notebook)
        found = self.store.runs(limit=limit, skip=skip, notebook=notebook)
        return Runs(
            runs=self.measured(found), next=skip + limit if total > skip + limit else None, total=total, mark=mark
        )  # fmt: skip

    def run(self, digest: Digest) -> MeasuredRun:
        """A run.

        Raises
        ------
        NotFound
            There is no such run.
        """
        return self.measured([self.store.run(digest)])[0]

    def measured(self, runs: Sequence[Run]) -> list[MeasuredRun]:
        """Runs with what they logged."""
        found = self.store.logged_in([run.id for run in runs])
        rows = []
        for run in runs:
            logged = found[run.id]
            rows.append(
                MeasuredRun(
                    **msgspec.structs.asdict(_run_row(run)), metrics=logged.metrics, logged=logged.parameters,
                    unread=logged.unread,
                )
            )  # fmt: skip
        return rows

    # -- the notebook as it stands -----------------------------------------------------------------------------------

    def standing(self, notebook: Path, run: Digest | None) -> StandingAnswer:
        """Hold a notebook on disk against a session; one at a time, since it reads files."""
        with self._standing:
            mark = self.store.mark()
            one = stand(self.project, notebook, run=run)
        found = one.standing
        return StandingAnswer(
            notebook=one.notebook, run=one.run.id if one.run else None,
            reproduces=found.verdict if found is not None else "cannot tell", why=one.why,
            cells=found.cells if found is not None else len(one.cells), ran=found.ran if found is not None else 0,
            findings=list(found.findings) if found is not None else [], mark=mark,
        )  # fmt: skip


def _searched(run: CellRun) -> str:
    """What a search looks through, folded: code, names, what was logged, how it failed, who it is."""
    ended = run.ended
    parts: list[str] = [run.source, run.started.label, run.started.notebook, run.id.partition(":")[2]]
    parts += [ticket.id for ticket in run.started.tickets]
    groups: tuple[Iterable[Artifact], ...] = (run.inputs, run.outputs, run.files_read, run.files_written)
    parts += [one.name for group in groups for one in group]
    parts += [line.key for line in run.logged]
    if ended is not None:
        parts += [one.name for one in ended.sources]
        parts.append(ended.error)
    return "\n".join(parts).casefold()


def _logged(lines: Iterable[CellLogged]) -> list[Logged]:
    groups: dict[tuple[str, str], list[Any]] = {}
    for line in lines:
        groups.setdefault((line.what, line.key), []).append(line.artifact.name if line.artifact else line.value)
    # a metric of a long training has many values: the last ones say how it ended
    return [Logged(what=what, key=key, values=values[-PAGE:]) for (what, key), values in groups.items()]


def _run_row(run: Run) -> RunRow:
    started, ended = run.started, run.ended
    return RunRow(
        id=run.id, time=run.time, trigger=started.trigger, notebook=started.notebook, status=run.status,
        seconds=ended.seconds if ended else 0.0, user=started.user,
        on_behalf_of=started.on_behalf_of, parameters=started.parameters,
        tickets=started.tickets, error=ended.error if ended else "", outputs=ended.outputs if ended else [],
        parent=started.parent,
        result=next((one.name for one in (ended.outputs if ended else ()) if one.name.endswith(".ipynb")), ""),
    )  # fmt: skip
