"""The questions that can be put to a store: lines, records, cell runs, runs, and who made or used what.

They are answered through the index, which says where a line stands; each line is then read from its file and verified.
What the index says wrongly makes it be built anew, once.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.index import CUT, Index, key, unkey
from jupyter_mlops.journal import PASSING, alive
from jupyter_mlops.objects import OBJECT, names
from jupyter_mlops.records import (
    CellEnded,
    CellLogged,
    CellRun,
    CellSettled,
    CellStarted,
    Digest,
    Line,
    Record,
    RecordInvalid,
    Run,
    RunEnded,
    RunStarted,
    read_line,
    short,
)  # fmt: skip
from jupyter_mlops.store.refs import PART

_SHORT: Final = re.compile(r"(?:blake3:)?([0-9a-f]{4,64})")
_PLACES: Final = "select digest, file, offset, length from lines"
"""The columns that `Questions._lines` asks for."""

R = TypeVar("R", bound=Record)


class NotFound(MlopsError, KeyError):
    """Nothing in the store has that name."""

    __str__ = MlopsError.__str__


class AmbiguousName(MlopsError, LookupError):
    """Several things in the store have a name that begins so."""


class Logged(msgspec.Struct):
    """What a run logged: the last value of each metric and parameter, and how many earlier values were not read."""

    metrics: dict[str, Any]
    parameters: dict[str, Any]
    unread: int = 0

    def take(self, line: CellLogged) -> None:
        if line.what in ("metric", "param"):
            (self.metrics if line.what == "metric" else self.parameters)[line.key] = line.value


class Questions:
    """What can be asked of a store, by who only reads it.

    Attributes
    ----------
    path
        The store's folder.
    """

    def __init__(self, path: Path, index: Index) -> None:
        self.path, self._index = path, index

    def line(self, digest: Digest) -> Line:
        """Read a line by its name, verified.

        Raises
        ------
        NotFound
            The store has no such line.
        RecordInvalid
            It is damaged.
        """
        for line in self._lines(
            "select digest, file, offset, length from lines where digest = ? limit 1", (key(digest),)
        ):
            return line
        raise NotFound(f"there is no record {short(digest) or digest[:80]!r} in this store", next="mlops log")

    def lines_about(self, digest: Digest) -> list[Line]:
        """A line, and those that go on about the same cell run or run."""
        return list(self._lines(f"{_PLACES} where digest = ?1 or about = ?1 order by id", (key(digest),)))

    def resolve(self, short: str) -> Digest:
        """Find the one line or object whose digest begins so.

        Parameters
        ----------
        short
            At least four hex digits, with or without ``blake3:``.

        Raises
        ------
        NotFound
            There is none.
        AmbiguousName
            There are several; the message names them.
        """
        found = _SHORT.fullmatch(short)
        if found is None:
            raise NotFound(f"{short[:80]!r} is no digest", cause="give at least four of its hex digits")
        text = found[1]
        low, high = bytes.fromhex(text.ljust(64, "0")), bytes.fromhex(text.ljust(64, "f"))
        rows = self._index.ask(
            "select distinct digest, kind from lines where digest between ? and ? and length(digest) = 32 limit 9",
            (low, high),
        )
        hits = {str(unkey(raw)): kind for raw, kind in rows}
        for name in names(self.path / "objects" / text[:2]):
            if name.startswith(text[2:]) and OBJECT.fullmatch(found_ := f"blake3:{text[:2]}{name}"):
                hits.setdefault(found_, "object")
        if not hits:
            raise NotFound(f"nothing in this store has a name that begins with {text[:64]}", next="mlops log")
        if len(hits) > 1:
            several = ", ".join(f"{digest[7:23]} ({kind})" for digest, kind in list(hits.items())[:8])
            raise AmbiguousName(f"{text} is the beginning of several names", cause=several, next="give more digits")
        return Digest(next(iter(hits)))

    def records(
        self, kind: type[R], *, newest_first: bool = True, limit: int | None = None
    ) -> Iterator[tuple[Digest, str, R]]:
        """All records of a kind, by time: digest, time, record. A line that is damaged is left out."""
        order = "desc" if newest_first else "asc"
        for line in self._lines(
            f"select digest, file, offset, length from lines where kind = ? order by time {order}, id {order} limit ?",  # noqa: S608
            (kind.KIND, -1 if limit is None else limit),
        ):
            if isinstance(line.record, kind):
                yield line.digest, line.envelope.time, line.record

    def names(self, *kinds: type[Record]) -> list[Digest]:
        """The names alone of all records of these kinds, oldest first: no line is read."""
        marks = ",".join("?" * len(kinds))
        rows = self._index.ask(
            f"select digest from lines where kind in ({marks}) order by time, id",  # noqa: S608 - marks
            [kind.KIND for kind in kinds],
        )
        return [unkey(row[0]) for row in rows]

    def cell_run(self, digest: Digest) -> CellRun:
        """A cell run, put together from its lines.

        Raises
        ------
        NotFound
            The store has no cell run of that name.
        """
        for found in self._merge([key(digest)]):
            return found
        raise NotFound(f"there is no cell run {short(digest) or digest[:80]!r} in this store", next="mlops log")

    def cell_runs(
        self, *, run: Digest | None = None, notebook: str | None = None, cell: str | None = None,
        newest_first: bool = True, limit: int | None = None,
    ) -> list[CellRun]:  # fmt: skip
        """Cell runs by the time they began: of a run, a notebook, a cell, or all."""
        return self.cell_runs_named(
            self.cell_run_names(run=run, notebook=notebook, cell=cell, newest_first=newest_first, limit=limit)
        )

    def cell_run_names(
        self, *, run: Digest | None = None, notebook: str | None = None, cell: str | None = None,
        newest_first: bool = True, limit: int | None = None, skip: int = 0,
    ) -> list[Digest]:  # fmt: skip
        """The names alone of what `cell_runs` gives, but for the first `skip`: no line is read."""
        where, values = _cells_where(run, notebook, cell)
        order = "desc" if newest_first else "asc"
        rows = self._index.ask(
            f"select digest from lines where {where} order by time {order}, id {order} limit ? offset ?",  # noqa: S608 - fixed words
            (*values, -1 if limit is None else limit, skip),
        )
        return [unkey(row[0]) for row in rows]

    def cell_run_count(
        self, *, run: Digest | None = None, notebook: str | None = None, cell: str | None = None
    ) -> int:  # fmt: skip
        """How many `cell_runs` gives."""
        where, values = _cells_where(run, notebook, cell)
        return int(self._index.ask(f"select count(*) from lines where {where}", values)[0][0])  # noqa: S608 - fixed words

    def last_of_cells(self, notebook: str) -> list[Digest]:
        """The last cell run of each cell of a notebook, oldest first; cells without an id are left out."""
        rows = self._index.ask(
            "select digest, max(time) as began from lines"
            " where kind = 'cell.started' and notebook = ? and cell > '' group by cell order by began, id",
            (notebook,),
        )
        return [unkey(row[0]) for row in rows]

    def cell_runs_named(self, digests: Iterable[Digest]) -> list[CellRun]:
        """Cell runs by their names, in that order; one that can not be read is left out."""
        return self._merge([key(digest) for digest in digests])

    def line_counts(self, digests: Sequence[Digest]) -> dict[Digest, int]:
        """How many lines go on about each cell run or run; where there are none, it is not among them."""
        found: dict[Digest, int] = {}
        for start in range(0, len(digests), 400):
            some = [key(digest) for digest in digests[start : start + 400]]
            marks = ",".join("?" * len(some))
            rows = self._index.ask(
                f"select about, count(*) from lines where about in ({marks}) group by about",  # noqa: S608
                some,
            )
            found.update((unkey(about), count) for about, count in rows)
        return found

    def mark(self) -> str:
        """A text that is another one as soon as there is a line more, or less."""
        (facts,) = self._index.ask("select count(*), total(size), max(changed) from files")
        return "-".join(str(int(fact or 0)) for fact in facts)

    def unread(self) -> list[str]:
        """What can not be read of the files, in words: where each is damaged, and that what follows there is lost."""
        return [
            f"{name} is damaged after byte {at:,}, and what follows there is not read ({note[:200]})"
            for name, at, note in self._index.notes() if note != CUT
        ]  # fmt: skip

    def run(self, digest: Digest) -> Run:
        """A run, put together from its lines.

        Raises
        ------
        NotFound
            The store has no run of that name.
        """
        line = self.line(digest)
        if isinstance(line.record, RunStarted):
            return self._runs([line])[0]
        raise NotFound(f"{short(digest)} is not a run", next="mlops runs")

    def runs(
        self, *, newest_first: bool = True, limit: int | None = None, skip: int = 0, notebook: str | None = None
    ) -> list[Run]:  # fmt: skip
        """Runs by the time they began, but for the first `skip`: all, or those of a notebook."""
        order = "desc" if newest_first else "asc"
        where, values = _runs_where(notebook)
        query = f"{_PLACES} where {where} order by time {order}, id {order} limit ? offset ?"
        return self._runs(list(self._lines(query, (*values, -1 if limit is None else limit, skip))))

    def run_count(self, *, notebook: str | None = None) -> int:
        """How many `runs` gives."""
        where, values = _runs_where(notebook)
        return int(self._index.ask(f"select count(*) from lines where {where}", values)[0][0])  # noqa: S608 - fixed words

    def logged_in(self, runs: Sequence[Digest], *, most: int = 20_000) -> dict[Digest, Logged]:
        """What runs logged, the last value of each name.

        Parameters
        ----------
        most
            Values that are read of one run, the latest; a training may log millions.
        """
        found = {run: Logged({}, {}) for run in runs}
        names = [key(run) for run in found]
        for start in range(0, len(names), 400):
            some = names[start : start + 400]
            marks = ",".join("?" * len(some))
            counts = self._index.ask(
                f"select run, count(*) from lines where kind = 'cell.logged' and run in ({marks}) group by run",  # noqa: S608
                some,
            )
            few = [run for run, count in counts if count <= most]
            lines = self._lines(
                f"{_PLACES} where kind = 'cell.logged' and run in ({','.join('?' * len(few))}) order by time, id", few
            )  # fmt: skip
            for line in lines:
                if isinstance(line.record, CellLogged) and line.record.run in found:
                    found[line.record.run].take(line.record)
            for run, count in counts:
                if count > most:
                    last = self._lines(
                        f"{_PLACES} where kind = 'cell.logged' and run = ? order by time desc, id desc limit ?",
                        (run, most),
                    )
                    found[unkey(run)] = one = Logged({}, {}, unread=count - most)
                    for line in reversed(list(last)):
                        if isinstance(line.record, CellLogged):
                            one.take(line.record)
        return found

    def made_by(self, digest: Digest, *, name: str | None = None) -> list[Digest]:
        """The cell runs that made a value or wrote a file of that content, newest first."""
        return self._in_role("made", digest, name)

    def used_by(self, digest: Digest, *, name: str | None = None) -> list[Digest]:
        """The cell runs that read a value, file or source of that content, newest first."""
        return self._in_role("used", digest, name)

    def registered(self, content: Digest, *, name: str | None = None) -> list[Digest]:
        """The versions of models, or of one model, that hold that content, newest first."""
        return self._in_role("registered", content, name)

    def recalls(self, key_: Digest) -> list[Digest]:
        """The cell runs that are found under a key by who wants to recall them, newest first."""
        return self._in_role("recalls", key_, None)

    def built_on(self, digest: Digest) -> list[Digest]:
        """The cell runs that read what a cell run made, newest first."""
        rows = self._index.ask(
            "select distinct child, time from edges join lines on lines.digest = child"
            " where parent = ? order by time desc",
            (key(digest),),
        )
        return [unkey(row[0]) for row in rows]

    def named(self, name: str, *, limit: int | None = None) -> list[Digest]:
        """The cell runs that made something of that name, or failing that used it, newest first."""
        for role in ("made", "used"):
            rows = self._index.ask(
                "select distinct line, time from artifacts join lines on lines.digest = line"
                " where artifacts.name = ? and role = ? order by time desc limit ?",
                (name, role, -1 if limit is None else limit),
            )
            if rows:
                return [unkey(row[0]) for row in rows]
        return []

    def logged(self, key_: str, *, limit: int | None = None) -> list[Digest]:
        """The cell runs (or runs, where no cell did) that logged something under that key, newest first."""
        rows = self._index.ask(
            "select distinct line, time from artifacts join lines on lines.digest = line"
            " where artifacts.name = ? and role = 'logged' order by time desc limit ?",
            (key_, -1 if limit is None else limit),
        )
        return [unkey(row[0]) for row in rows]

    def bases(self, names: Collection[str]) -> dict[str, list[tuple[Digest, Digest]]]:
        """The runs that a cache may find under each name, newest first: the run, and the object it follows from."""
        found: dict[str, list[tuple[Digest, Digest]]] = {name: [] for name in names}
        listed = list(found)
        for start in range(0, len(listed), 400):
            some = listed[start : start + 400]
            rows = self._index.ask(
                "select artifacts.name, line, artifacts.digest from artifacts join lines on lines.digest = line"  # noqa: S608
                f" where role = 'basis' and artifacts.name in ({','.join('?' * len(some))}) order by time desc",
                some,
            )
            for name, run, digest in rows:
                found[name].append((unkey(run), Digest(digest)))
        return found

    def paths(self) -> list[str]:
        """Names under which files may be on record: notebooks, and what cells and runs read and wrote."""
        found = dict.fromkeys(
            name for (name,) in self._index.ask("select distinct name from artifacts where role in ('made', 'used')")
        )
        found.update((name, None) for (name,) in self._index.ask("select distinct notebook from lines") if name)
        for _, _, run in self.records(RunEnded):
            found.update((one.name, None) for one in run.outputs)
        return list(found)

    def counts(self) -> dict[str, int]:
        """How many lines there are of each kind."""
        return dict(self._index.ask("select kind, count(*) from lines group by kind"))

    def _in_role(self, role: str, digest: Digest, name: str | None) -> list[Digest]:
        rows = self._index.ask(
            "select distinct line, time from artifacts left join lines on lines.digest = line"
            " where artifacts.digest = ? and role = ? and (? is null or name = ?) order by time desc",
            (digest, role, name, name),
        )
        return [unkey(row[0]) for row in rows]

    def _lines(self, query: str, values: Iterable[Any]) -> Iterator[Line]:
        """Read the lines a query points to; what the index says wrongly makes it be built anew, once."""
        for attempt in (1, 2):
            rows = self._index.ask(query, tuple(values))
            names = dict(self._index.ask("select id, name from files"))
            with _Files(self.path) as files:
                found, wrong = [], False
                for raw_digest, file, offset, length in rows:
                    try:
                        line = read_line(files.read(names[file], offset, length))
                    except (OSError, RecordInvalid, KeyError, ValueError) as error:
                        if isinstance(error, OSError) and error.errno in PASSING:
                            raise
                        wrong = True
                        continue
                    if key(line.digest) != raw_digest:
                        wrong = True
                        continue
                    found.append(line)
            if not wrong or attempt == 2:
                break
            self._index.discard()
        yield from found

    def _merge(self, digests: list[bytes]) -> list[CellRun]:
        parts: dict[bytes, list[Line]] = {digest: [] for digest in digests}
        for start in range(0, len(digests), 400):
            some = digests[start : start + 400]
            marks = ",".join("?" * len(some))
            for line in self._lines(
                f"select digest, file, offset, length from lines where digest in ({marks}) or about in ({marks})"  # noqa: S608
                " order by time, id", (*some, *some),
            ):  # fmt: skip
                of = line.digest if isinstance(line.record, CellStarted) else line.envelope.refs.get("cell_run")
                if isinstance(of, str) and (known := parts.get(key(of))) is not None:
                    known.append(line)
        lives = _Lives(self.path)
        return [run for digest in digests if (run := _cell_run(parts[digest], lives)) is not None]

    def _runs(self, started: list[Line]) -> list[Run]:
        ends: dict[str, RunEnded] = {}
        names = [key(line.digest) for line in started]
        for start in range(0, len(names), 400):
            some = names[start : start + 400]
            for line in self._lines(
                "select digest, file, offset, length from lines where kind = 'run.ended' and about in"  # noqa: S608
                f" ({','.join('?' * len(some))}) order by time, id", some,
            ):  # fmt: skip
                if isinstance(line.record, RunEnded):
                    ends[line.record.run] = line.record
        lives = _Lives(self.path)
        return [
            Run(
                id=line.digest, time=line.envelope.time, started=line.record, ended=ends.get(line.digest),
                open_ended=line.digest not in ends and lives[line.envelope.writer],
            )
            for line in started
            if isinstance(line.record, RunStarted)
        ]  # fmt: skip


def _runs_where(notebook: str | None) -> tuple[str, list[Any]]:
    """The condition for runs, in fixed words: of a notebook are those that were begun for it, or ran a cell of it."""
    if notebook is None:
        return "kind = 'run.started'", []
    ran = "select run from lines where kind = 'cell.started' and notebook = ?"
    return f"kind = 'run.started' and (notebook = ? or digest in ({ran}))", [notebook, notebook]


def _cells_where(run: Digest | None, notebook: str | None, cell: str | None) -> tuple[str, list[Any]]:
    """The condition that the index is asked with, in fixed words, and its values."""
    where, values = ["kind = 'cell.started'"], []  # type: list[str], list[Any]
    for column, value in (("run", key(run) if run else None), ("notebook", notebook), ("cell", cell)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    return " and ".join(where), values


class _Files:
    """Journal files held open while lines are read from them."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.open: dict[str, int] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.open.values():
            os.close(fd)

    def read(self, name: str, offset: int, length: int) -> bytes:
        fd = self.open.get(name)
        if fd is None:
            if len(self.open) >= 100:
                self._let_go()
            try:
                fd = self._open(name)
            except OSError as error:
                if error.errno != errno.EMFILE or not self.open:
                    raise
                self._let_go()  # the process has no more to give: one is enough
                fd = self._open(name)
            self.open[name] = fd
        return os.pread(fd, length, offset)

    def _open(self, name: str) -> int:
        return os.open(self.store / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)

    def _let_go(self) -> None:
        os.close(self.open.pop(next(iter(self.open))))


class _Lives(dict[str, bool]):
    """Which writers live, asked once each."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def __missing__(self, writer: str) -> bool:
        self[writer] = found = bool(PART.fullmatch(writer)) and alive(self.store / "journal" / f"{writer}.jsonl")
        return found


def _cell_run(lines: list[Line], lives: _Lives) -> CellRun | None:
    first = next((line for line in lines if isinstance(line.record, CellStarted)), None)
    if first is None or not isinstance(first.record, CellStarted):
        return None
    records = [line.record for line in lines]
    ended = next((one for one in records if isinstance(one, CellEnded)), None)
    return CellRun(
        id=first.digest, time=first.envelope.time, writer=first.envelope.writer, seq=first.envelope.seq,
        started=first.record, ended=ended,
        logged=tuple(one for one in records if isinstance(one, CellLogged)),
        settled=tuple(one for one in records if isinstance(one, CellSettled)),
        open_ended=ended is None and lives[first.envelope.writer],
    )  # fmt: skip
