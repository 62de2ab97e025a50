"""Where facts are kept: objects, journals and refs in one folder, and the questions that can be put to them.

*Objects* are bytes named by their digest, written once and atomically, and verified whenever they are read. *Journals*
are the records, one file per writer (`journal`). *Refs* are names: each a folder of numbered moves, every move a line
in a file of its own that is created exclusively, so that of two who race one loses and is told. The files are the
truth; questions are answered through the index, which can be deleted at any time (`index`).

The form on disk is described for strangers in ``docs/store-format.md``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from blake3 import blake3

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.index import PASSING, Index, key, unkey
from jupyter_mlops.journal import (
    Adopted,
    Journal,
    JournalUnavailable,
    StoreReplaced,
    alive,
    new_writer,
    raw_lines,
    sync_folder,
)  # fmt: skip
from jupyter_mlops.objects import OBJECT, ObjectDamaged, ObjectMissing, Objects, make_folder, names, write, write_new
from jupyter_mlops.records import (
    FORMAT,
    CellEnded,
    CellLogged,
    CellRun,
    CellSettled,
    CellStarted,
    Digest,
    Erased,
    Line,
    Record,
    RecordInvalid,
    Run,
    RunEnded,
    RunStarted,
    Transition,
    digest_of,
    erase_fields,
    now,
    read_line,
    short,
    write_line,
)  # fmt: skip

__all__ = [
    "AmbiguousName", "Erasure", "JournalUnavailable", "Move", "NotFound", "ObjectDamaged", "ObjectMissing", "Problem",
    "RefConflict", "RefInvalid", "Store", "StoreFormat", "StoreMissing", "StoreReplaced",
]  # fmt: skip

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MOVE: Final = re.compile(r"([0-9]{8,12})\.jsonl")
_SHORT: Final = re.compile(r"(?:blake3:)?([0-9a-f]{4,64})")

SEEN: Final = "seen.json"
"""What is remembered of files between processes, beside the store's own: it may be deleted at any time."""
_PLACES: Final = "select digest, file, offset, length from lines"
"""The columns that `Store._lines` asks for."""

R = TypeVar("R", bound=Record)


class StoreMissing(MlopsError, FileNotFoundError):
    """There is no store at that place."""


class StoreFormat(MlopsError, ValueError):
    """What stands there is no store, or one of a later format."""


class NotFound(MlopsError, KeyError):
    """Nothing in the store has that name."""

    __str__ = MlopsError.__str__


class AmbiguousName(MlopsError, LookupError):
    """Several things in the store have a name that begins so."""


class RefConflict(MlopsError, RuntimeError):
    """Somebody else moved the ref first."""


class RefInvalid(MlopsError, ValueError):
    """A ref cannot have that name."""


class Move(msgspec.Struct, frozen=True):
    """One move of a ref: its number, from 1, the line that says so, and when."""

    number: int
    digest: Digest
    time: str
    transition: Transition


class Problem(msgspec.Struct, frozen=True):
    """Something `fsck` found: ``damage`` means that facts are lost or untrue, ``note`` that all is as it should be."""

    where: str
    what: str
    severity: str = "damage"
    next: str = ""


class Erasure(msgspec.Struct, frozen=True):
    """What `Store.erase` did.

    Attributes
    ----------
    lines
        Lines that lost fields.
    objects
        Objects that are gone.
    waiting
        Lines that were left as they are, by the journal they stand in: another process still writes it.
    """

    lines: tuple[Digest, ...] = ()
    objects: tuple[Digest, ...] = ()
    waiting: dict[str, tuple[Digest, ...]] = {}


class Store:
    """A store, as `Store.create` and `Store.open` give it. Threads may share it, and a forked child may go on using it.

    Attributes
    ----------
    path
        The store's folder.
    id
        What tells this store from others; a copy has the same.
    """

    def __init__(self, path: Path, id: str) -> None:
        self.path, self.id = path, id
        self._journal = Journal(path)
        self._index = Index(path, lambda: _elsewhere(id, path))
        self._objects = Objects(path, self._journal, self._erasure)

    @classmethod
    def create(cls, path: Path) -> Store:
        """Make a store, or open the one that is there.

        Raises
        ------
        StoreFormat
            The folder holds something else, or a store of a later format.
        """
        path = Path(path).absolute()
        if not (path / "format").exists():
            try:
                new = [one for one in (path, *path.parents) if not one.exists()]
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
                for name in ("objects", "journal", "refs", "tmp"):
                    (path / name).mkdir(mode=0o700, exist_ok=True)
                    (path / name).chmod(0o700)
                facts = {"format": FORMAT, "id": secrets.token_hex(16), "created": now()}
                for name, text in ((".gitignore", "*\n"), ("format", json.dumps(facts) + "\n")):
                    write_new(path, name, text.encode())
                for folder in (path, *(one.parent for one in new)):
                    sync_folder(folder)
            except OSError as error:
                raise StoreMissing(f"no store can be made at {path}", cause=str(error)) from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a store.

        Raises
        ------
        StoreMissing
            There is none.
        StoreFormat
            It is none, or of a later format.
        """
        path = Path(path).absolute()
        try:
            facts = json.loads((path / "format").read_bytes()[:65536])
            version, name = int(facts["format"]), str(facts["id"])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreMissing(f"there is no store at {path}", next="mlops init") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreFormat(f"{path} is not a store", cause="its file `format` cannot be read") from error
        if version > FORMAT:
            raise StoreFormat(
                f"the store at {path} has format {version}", cause=f"this version reads up to {FORMAT}",
                next="pip install --upgrade jupyter-mlops",
            )  # fmt: skip
        return cls(path, name)

    def close(self) -> None:
        """Seal this process's journal and let go of the index. The store may still be used, and opens them anew."""
        self._journal.close()
        self._index.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- objects ---------------------------------------------------------------------------------------------------

    def put(
        self,
        data: bytes | bytearray | memoryview | Path,
        *,
        durable: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Digest:
        """Keep bytes, or the content of a file, and say their name. See `Objects.put`."""
        return self._objects.put(data, durable=durable, check=check)

    def get(self, digest: Digest) -> bytes:
        """Read an object, verified: `ObjectMissing` or `ObjectDamaged` where that fails."""
        return self._objects.get(digest)

    def read_into(self, digest: Digest, memory: memoryview) -> None:
        """See `Objects.read_into`."""
        self._objects.read_into(digest, memory)

    def has(self, digest: Digest) -> bool:
        """Whether the object is here; its bytes are not read."""
        return self._objects.has(digest)

    def size(self, digest: Digest) -> int:
        """How many bytes an object has; `ObjectMissing` where it is not here."""
        return self._objects.size(digest)

    def objects(self) -> Iterator[Digest]:
        """The name of every object, in no order."""
        return iter(self._objects)

    def _erasure(self, digest: Digest) -> tuple[str, Erased] | None:
        return next(((time, one) for _, time, one in self.records(Erased) if one.object == digest), None)

    # -- records ---------------------------------------------------------------------------------------------------

    def append(self, record: Record, *, time: str | None = None, wait: float = 0.05) -> Digest:
        """Write a record; on return it survives the death of this process. See `Journal.append`.

        Raises
        ------
        JournalUnavailable
            The line could not be captured within `wait` seconds.
        """
        return self._journal.append(record, time=time, wait=wait)

    def adopt(self, writer: str) -> Adopted:
        """Begin to bring a journal of another store into this one. See `Adopted`."""
        return Adopted(self.path, writer)

    def durable(self, *, timeout: float | None = None) -> bool:
        """Wait until everything put and appended so far would survive a power cut; False if that cannot be said."""
        return self._journal.durable(timeout=timeout)

    @property
    def pending(self) -> int:
        """Lines and objects captured and not yet durable."""
        return self._journal.pending

    @property
    def writer(self) -> str | None:
        """The journal this process writes, once it has."""
        return self._journal.writer

    @property
    def problems(self) -> list[str]:
        """What went wrong in this process's writing, in words."""
        return list(self._journal.problems)

    # -- refs ------------------------------------------------------------------------------------------------------

    def move(self, ref: str, move: Transition, *, expect: int | None = None) -> tuple[int, Digest]:
        """Add a move to a ref; everything appended before is made durable first, and so is the move.

        Parameters
        ----------
        expect
            The number of the last move the caller knows of (0: there is none yet); the one found, if left out.

        Returns
        -------
        tuple
            The number the move took, and the digest of its line.

        Raises
        ------
        RefConflict
            Another move came first, or `move.old` is not where the ref stands.
        RefInvalid
            The ref cannot have that name, or the transition is about another ref.
        JournalUnavailable
            What the move builds on could not be made durable; or the move is made, and may not survive a power cut.
        """
        folder = self._ref(ref)
        if move.ref != ref:
            raise RefInvalid(f"the move is about {move.ref!r}, not {ref!r}")
        self._journal.check()
        numbers = self._numbers(folder)
        last = max(numbers, default=0)
        if expect is not None and expect != last:
            raise self._conflict(ref, last)
        known = self._read_back(ref, numbers)
        before = next(known, None)
        head = before.transition.new if before and not before.transition.refused else _head(known)
        if move.old is not None and move.old != head:
            raise RefConflict(
                f"{ref} stands at {short(head) or 'nothing'}", cause=f"the move begins at {short(move.old)}",
                next=f"mlops log {ref}",
            )  # fmt: skip
        if not self.durable(timeout=30):
            raise JournalUnavailable(f"{ref} was not moved", cause="what it builds on could not be saved to the disk")
        digest, raw = write_line(
            move, writer=self.writer or new_writer(), seq=last + 1, prev=before.digest if before else None
        )
        make_folder(folder)
        if not self._create(folder / f"{last + 1:08}.jsonl", raw):
            raise self._conflict(ref, last + 1)
        return last + 1, digest

    def moves(self, ref: str) -> list[Move]:
        """A ref's moves in order, refused ones included; what cannot be read is left out (`fsck` names it)."""
        return list(self.moves_back(ref))[::-1]

    def moves_back(self, ref: str) -> Iterator[Move]:
        """A ref's moves, the last one first, each read when it is asked for."""
        return self._read_back(ref, self._numbers(self._ref(ref)))

    def _read_back(self, ref: str, numbers: Iterable[int]) -> Iterator[Move]:
        folder = self._ref(ref)
        for number in sorted(numbers, reverse=True):
            with contextlib.suppress(OSError, RecordInvalid):
                line = _only_line(folder / f"{number:08}.jsonl")
                if isinstance(line.record, Transition) and line.record.ref == ref:
                    yield Move(number, line.digest, line.envelope.time, line.record)

    def taken(self, ref: str) -> int:
        """The last number of a ref that is taken, be it by a move that can not be read; 0 where there is none."""
        return max(self._numbers(self._ref(ref)), default=0)

    def head(self, ref: str) -> Digest | None:
        """Where a ref stands: `new` of its last move that was not refused."""
        return _head(self.moves_back(ref))

    def refs(self, prefix: str = "") -> list[str]:
        """The names of all refs that begin so, sorted."""
        root = self.path / "refs"
        found = []
        for folder, _, files in os.walk(root):
            if any(_MOVE.fullmatch(name) for name in files):
                name = Path(folder).relative_to(root).as_posix()
                if name.startswith(prefix):
                    found.append(name)
        return sorted(found)

    def _ref(self, ref: str) -> Path:
        kind, *parts = ref.split("/")
        *folders, last = parts or [""]
        name, at, alias = last.partition("@")
        good = all(map(_PART.fullmatch, (kind, *folders, name, *([alias] if at else []))))
        if not good or any(part.endswith(".jsonl") for part in (*folders, name, alias)):
            raise RefInvalid(
                f"{ref[:200]!r} is no name for a ref",
                cause="names are made of letters, digits, '.', '_' and '-', as in models/delays@production",
            )
        return self.path / "refs" / ref

    def _numbers(self, folder: Path) -> list[int]:
        return [int(found[1]) for name in names(folder) if (found := _MOVE.fullmatch(name))]

    def _conflict(self, ref: str, number: int) -> RefConflict:
        return RefConflict(
            f"{ref} was moved by somebody else", cause=f"move {number} is taken", next=f"mlops log {ref}"
        )

    def _create(self, path: Path, raw: bytes) -> bool:
        """Make a file that was not there, whole and on the disk; False if it was there."""
        temporary = self._objects.temporary()
        write(temporary, raw, durable=True)
        try:
            try:
                os.link(temporary, path)
            except FileExistsError:
                # A network file system may repeat a request whose answer was lost, and then deny it.
                if os.stat(temporary).st_nlink != 2 or not os.path.samefile(temporary, path):
                    return False
            except OSError:
                # No hard links here: exclusive creation, which a crash can leave half-written, but never twice taken.
                try:
                    write(str(path), raw, durable=True)
                except FileExistsError:
                    return False
        finally:
            os.unlink(temporary)
        try:
            for folder in path.relative_to(self.path).parents[:-1]:
                sync_folder(self.path / folder)
        except OSError as error:
            raise JournalUnavailable(
                "the ref was moved, and may stand where it stood after a power cut", cause=str(error),
                next="see `mlops doctor`",
            ) from error  # fmt: skip
        return True

    # -- reading ---------------------------------------------------------------------------------------------------

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

    def runs(self, *, newest_first: bool = True, limit: int | None = None) -> list[Run]:
        """Runs by the time they began."""
        order = "desc" if newest_first else "asc"
        query = f"{_PLACES} where kind = 'run.started' order by time {order}, id {order} limit ?"
        return self._runs(list(self._lines(query, (-1 if limit is None else limit,))))

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

    # -- keeping it ------------------------------------------------------------------------------------------------

    def reindex(self) -> int:
        """Build the index anew, and say how many lines it holds."""
        return self._index.rebuild()

    @property
    def index_folder(self) -> Path | None:
        """Where the index is kept: the store's folder, or where that cannot hold it the user's own; None: in memory."""
        return self._index.folder()

    def fsck(self, *, read_data: bool = True) -> list[Problem]:
        """Read everything and name what is not as it was written.

        Parameters
        ----------
        read_data
            Whether to read the objects' bytes too, not only their names and sizes.

        Returns
        -------
        list of Problem
            Damage, and notes on what only looks like it: torn tails, writers that ended without a seal. Empty: clean.
        """
        sound = self._index.sound()  # before anything asks the index, which builds a damaged one anew
        erased: dict[tuple[Digest, str], str] = {}
        found = list(self._fsck_journals(erased))
        found += self._fsck_refs(erased)
        found += self._fsck_erasures(erased)
        if not sound:
            found.append(Problem("index.sqlite", "the index is damaged, and is built anew when next used", "note"))
        for where, what in self._objects.damaged(read_data=read_data):
            found.append(Problem(where, what, next="mlops repair"))
        return found

    def repair(self) -> list[Problem]:
        """Move what is damaged out of the way, deleting nothing, and build the index anew.

        Damaged objects go to ``quarantine/``: the next `put` of their content writes them again. A journal's lines are
        left where they are; readers stop at the first bad one.

        Returns
        -------
        list of Problem
            What was found, and what has become of it.
        """
        done = []
        for problem in self.fsck():
            if problem.where.startswith("objects/"):
                place = self.path / "quarantine" / problem.where.replace("/", "-")
                try:
                    self._set_aside(self.path / problem.where, place)
                    problem = Problem(problem.where, f"{problem.what}; moved to quarantine/{place.name}")
                except OSError as error:
                    problem = Problem(problem.where, f"{problem.what}; could not be moved: {error}")
            done.append(problem)
        self.reindex()
        return done

    def _set_aside(self, path: Path, place: Path) -> None:
        """Give a file another name, which lasts before the old one goes: no cut finds neither."""
        place.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            if not (place.exists() and os.path.samefile(path, place)):  # no hard links here, or older damage lies there
                os.replace(path, place)
        for folder in (place.parent, self.path):
            sync_folder(folder)
        path.unlink(missing_ok=True)

    def erase(
        self, fields: Mapping[Digest, Collection[str]], objects: Collection[Digest] = (), *, by: str = "",
        reason: str = "",
    ) -> Erasure:  # fmt: skip
        """Remove free fields of lines, and objects, for good. The erasure is on record before anything is removed.

        Envelopes, digests and chains stay as they are. Where this is cut short, the same call once more completes it.

        Parameters
        ----------
        fields
            Names of free fields, by the line that holds them; those already erased are passed over.
        by, reason
            Who does it, and why.

        Raises
        ------
        JournalUnavailable
            It could not be put on record: then nothing was removed.
        OSError
            A file could not be written anew; it is as it was.
        """
        places: dict[str, list[Digest]] = {}
        for digest, name in self._files_of(fields):
            places.setdefault(name, []).append(digest)
        mine = self._journal.writers
        waiting = {
            name: tuple(digests)
            for name, digests in places.items()
            if name.startswith("journal/") and Path(name).stem not in mine and alive(self.path / name)
        }
        for name in waiting:
            del places[name]
        for digests in places.values():
            for digest in digests:
                self.append(Erased(line=digest, fields=sorted(fields[digest]), by=by, reason=reason))
        here = [digest for digest in objects if self.has(digest) or self._quarantined(digest).exists()]
        for digest in here:
            self.append(Erased(object=digest, by=by, reason=reason))
        if not self.durable(timeout=30):
            raise JournalUnavailable("nothing was erased", cause="that it was could not be saved to the disk")
        for name, digests in places.items():
            if not self._rewrite(name, {digest: fields[digest] for digest in digests}):
                waiting[name] = tuple(digests)
        for digest in here:
            for path in (self._objects.place(digest), self._quarantined(digest)):
                path.unlink(missing_ok=True)
        for name in names(self.path):
            if name == SEEN or name.startswith("unchanged-"):
                (self.path / name).unlink(missing_ok=True)  # it has digests of files, or stands for what is gone
        self.reindex()  # the old index knows names that may be gone now
        done = tuple(digest for name, digests in places.items() if name not in waiting for digest in digests)
        return Erasure(lines=done, objects=tuple(here), waiting=waiting)

    def _files_of(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, str]]:
        names_ = dict(self._index.ask("select id, name from files"))
        for digest in digests:
            for (file,) in self._index.ask("select file from lines where digest = ?", (key(digest),)):
                yield digest, names_[file]

    def _rewrite(self, name: str, fields: Mapping[Digest, Collection[str]]) -> bool:
        """Write a file of lines without some fields; False where another process writes it."""

        def without(raw: bytes) -> bytes:
            digest = digest_of(raw.partition(b"\t")[0])
            return erase_fields(raw, fields[digest]) if digest in fields else raw

        if name.startswith("journal/"):
            return self._journal.rewrite(Path(name).stem, without)
        temporary = self._objects.temporary()
        write(temporary, (without(raw) for _, raw in raw_lines(self.path / name)), durable=True)
        os.replace(temporary, self.path / name)
        sync_folder((self.path / name).parent)
        return True

    def _quarantined(self, digest: Digest) -> Path:
        return self.path / "quarantine" / f"objects-{digest[7:9]}-{digest[9:]}"

    def _fsck_erasures(self, erased: Mapping[tuple[Digest, str], str]) -> Iterator[Problem]:
        """Fields that are gone though no record says that somebody erased them."""
        said = {(one.line, field) for _, _, one in self.records(Erased) for field in one.fields}
        for (digest, field), where in erased.items():
            if (digest, field) not in said:
                yield Problem(
                    where, f"field {field!r} of line {short(digest)} is gone, and no record says who erased it"
                )

    def _fsck_journals(self, erased: dict[tuple[Digest, str], str]) -> Iterator[Problem]:
        for name in sorted(names(self.path / "journal")):
            where = f"journal/{name}"
            if not name.endswith(".jsonl"):
                continue
            prev, seq, writer = None, 0, name.removesuffix(".jsonl")
            try:
                for at, raw in raw_lines(self.path / where):
                    if not raw.endswith(b"\n"):
                        if not alive(self.path / where):
                            yield Problem(where, f"the last line is cut short (byte {at})", "note")
                        break
                    line = read_line(raw)
                    envelope = line.envelope
                    if (envelope.prev, envelope.seq, envelope.writer) != (prev, seq, writer):
                        raise RecordInvalid("the line does not follow the one before it")
                    prev, seq = line.digest, seq + 1
                    erased.update(((line.digest, field), where) for field in line.erased)
            except (OSError, RecordInvalid) as error:
                yield Problem(
                    where, f"line {seq + 1} is unreadable, and so is what follows: {error}", next="mlops repair"
                )

    def _fsck_refs(self, erased: dict[tuple[Digest, str], str]) -> Iterator[Problem]:
        for ref in self.refs():
            before: tuple[int, Digest] | None = None
            for number in sorted(self._numbers(self.path / "refs" / ref)):
                where = f"refs/{ref}/{number:08}.jsonl"
                try:
                    line = _only_line(self.path / where)
                    if not isinstance(line.record, Transition) or line.record.ref != ref:
                        raise RecordInvalid("the move is about something else")
                    if before is not None and before[0] == number - 1 and line.envelope.prev != before[1]:
                        raise RecordInvalid("the move does not follow the one before it")
                    before = (number, line.digest)
                    erased.update(((line.digest, field), where) for field in line.erased)
                except (OSError, RecordInvalid) as error:
                    yield Problem(where, f"the move is unreadable: {error}; its number stays taken")


# -- small parts -----------------------------------------------------------------------------------------------------


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
        self[writer] = found = bool(_PART.fullmatch(writer)) and alive(self.store / "journal" / f"{writer}.jsonl")
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


def _head(back: Iterable[Move]) -> Digest | None:
    return next((move.transition.new for move in back if not move.transition.refused), None)


def _only_line(path: Path) -> Line:
    for at, raw in raw_lines(path):
        if at == 0:
            return read_line(raw)
    raise RecordInvalid("the file is empty")


def _elsewhere(id: str, path: Path) -> Path:
    """The user's own folder for the index of a store that cannot hold it."""
    import platformdirs

    place = blake3(os.fsencode(path)).hexdigest()[:16]
    name = id if _PART.fullmatch(id) else "unnamed"
    return Path(platformdirs.user_state_dir("jupyter-mlops", appauthor=False)) / "index" / f"{name}-{place}"
