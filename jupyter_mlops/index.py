"""The index: where each line stands, and what made and used what. Built from the files, and never more than they say.

One SQLite file that may be deleted, cut, damaged or left behind by another version at any time: it is then built
anew. It is brought up to date before it answers, from the files that grew since. Beside it stands a digest of it, for
SQLite does not notice most flipped bits; and every line it points to is verified when it is read.

Readers and the one who updates exclude one another by a lock on a file of its own: SQLite's locks are lost as soon as
anything else in the process opens and closes the database file. The journal mode is the old rollback one, since the
newer one needs shared memory, and fails on network file systems and in read-only folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time as clock
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from blake3 import blake3

from jupyter_mlops.journal import is_remote, raw_lines
from jupyter_mlops.records import Digest, RecordInvalid, decode, read_envelope, read_payload

if TYPE_CHECKING:
    import sqlite3

_MEMORY: Final = Path(":memory:")
_PATIENCE: Final = 20.0  # seconds to wait for another process that brings the index up to date
SCHEMA: Final = 2
_TABLES: Final = """
create table files (id integer primary key, name text unique, inode integer, size integer, changed integer,
                    offset integer, seq integer, prev text, writer text, note text);
create table lines (id integer primary key, digest blob, kind text, time text, file integer, offset integer,
                    length integer, about blob, run blob, notebook text, cell text);
create table artifacts (digest text, name text, role text, line blob, file integer);
create table edges (child blob, parent blob, file integer);
create index lines_digest on lines (digest);
create index lines_kind on lines (kind, time);
create index lines_about on lines (about) where about is not null;
create index lines_run on lines (run) where run is not null;
create index lines_cell on lines (cell) where cell is not null;
create index lines_file on lines (file);
create index artifacts_file on artifacts (file);
create index edges_file on edges (file);
create index artifacts_digest on artifacts (digest, role);
create index artifacts_name on artifacts (name, role);
create index edges_child on edges (child);
create index edges_parent on edges (parent);
"""
_ABOUT: Final = {
    "cell.logged": "cell_run", "cell.ended": "cell_run", "cell.settled": "cell_run", "run.ended": "run"
}  # fmt: skip
_ROLES: Final = {
    "inputs": "used", "files_read": "used", "sources": "used", "modules": "used",
    "outputs": "made", "files_written": "made", "displays": "made",
}  # fmt: skip


def key(digest: str) -> bytes:
    """A line's digest as the index holds it."""
    if len(digest) == 71 and digest.startswith("blake3:"):
        with contextlib.suppress(ValueError):
            return bytes.fromhex(digest[7:])
    return digest.encode("utf-8", "surrogatepass")


def unkey(raw: bytes) -> Digest:
    """What `key` was given."""
    return Digest("blake3:" + raw.hex() if len(raw) == 32 else raw.decode("utf-8", "surrogatepass"))


class Index:
    """What the files say, arranged for questions.

    Parameters
    ----------
    store
        The store's folder.
    elsewhere
        Where the index goes if the store's folder is read-only or on a network file system; if it cannot be written
        there either, it is kept in memory.
    """

    def __init__(self, store: Path, elsewhere: Callable[[], Path]) -> None:
        self.store, self.elsewhere = store, elsewhere
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._folder: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._lock_fd = -1
        self._pid = os.getpid()
        self._seen: dict[str, tuple[int, int, int]] = {}

    # -- asking ----------------------------------------------------------------------------------------------------

    def ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Answer a query, from an index that is up to date."""
        import sqlite3

        with self._mine():
            for attempt in range(3):
                try:
                    return self._ask(query, values)
                except _Busy:
                    self.close()
                    self._folder = _MEMORY  # somebody holds it, and does not go on
                except (sqlite3.Error, OSError, OverflowError, UnicodeError):
                    if attempt == 2:
                        raise
                    self.discard()
                    if attempt == 1:
                        self._folder = _MEMORY  # the disk does not hold it
        raise AssertionError

    @contextlib.contextmanager
    def _mine(self) -> Iterator[None]:
        if self._pid != os.getpid():
            # Forked: the parent's connection is kept from being closed here, which would drop the parent's locks.
            _inherited.append(self._connection)
            self._begin()
        with self._lock:
            yield

    def _ask(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        connection = self._open()
        self._update(connection)
        with self._locked(fcntl.LOCK_SH):
            return connection.execute(query, values).fetchall()

    def rebuild(self) -> int:
        """Build the index anew, and say how many lines it holds."""
        with self._mine():
            self.discard()
            return int(self.ask("select count(*) from lines")[0][0])

    def sound(self) -> bool:
        """Whether the index file, where there is one, is byte for byte what its last writer left."""
        with self._mine():
            if self._folder is None:
                self._folder = self._place()
            if self._folder == _MEMORY or not self._file.exists():
                return True
            if self._lock_fd < 0:
                self._lock_fd = os.open(self._folder / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with self._locked(fcntl.LOCK_SH):
                    return self._sound(self._file)
            except _Busy:
                return True  # it is being written: nothing can be said

    def notes(self) -> list[tuple[str, int, str]]:
        """Where reading a file stopped before its end: its name, the offset, the reason."""
        return [
            (name, at, note) for name, at, note in self.ask("select name, offset, note from files where note <> ''")
        ]

    def discard(self) -> None:
        """Delete the index."""
        with self._mine():
            self.close()
            folder = self._folder
            self._seen = {}
            if folder is not None and folder != _MEMORY:
                for name in ("index.sqlite", "index.sqlite-journal", "index.sum"):
                    with contextlib.suppress(OSError):  # it goes to memory then
                        (folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        with self._mine():
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self._seen = {}
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    # -- opening ---------------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return (self._folder or _MEMORY) / "index.sqlite"

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._folder == _MEMORY or self._inode == _inode(self._file):
                return self._connection
            self.close()  # somebody deleted or rebuilt it
        if self._folder is None:
            self._folder = self._place()
        if self._folder != _MEMORY:
            if self._lock_fd < 0:
                self._lock_fd = os.open(self._folder / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with self._locked(fcntl.LOCK_EX):
                return self._connect(self._file)
        return self._connect(None)

    def _place(self) -> Path:
        """The first folder of the two that takes files; none: memory."""
        for local in (self.store, None):
            try:
                folder = local or self.elsewhere()
                if local and is_remote(folder):
                    continue
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(folder / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # somebody is at work: locks work
                finally:
                    os.close(fd)
                return folder
            except OSError:
                continue  # read-only, full, or without locks
        return _MEMORY

    def _connect(self, path: Path | None) -> sqlite3.Connection:
        import sqlite3

        fresh = path is None or not self._sound(path)
        if fresh and path is not None:
            for name in ("index.sqlite", "index.sqlite-journal", "index.sum"):
                path.with_name(name).unlink(missing_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            ":memory:" if path is None else path, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("pragma journal_mode = delete")
            connection.execute("pragma synchronous = off")  # what a power cut spoils is built anew
            connection.execute("pragma secure_delete = on")
            connection.execute("pragma trusted_schema = off")
            if fresh:
                connection.executescript(f"begin; {_TABLES} pragma user_version = {SCHEMA}; commit")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._inode = None if path is None else _inode(path)
        if fresh and path is not None:
            self._seal(path)
        return connection

    def _sound(self, path: Path) -> bool:
        """Whether the index file is byte for byte what its last writer left."""
        try:
            facts = json.loads((path.with_name("index.sum")).read_bytes())
            if facts["schema"] != SCHEMA or path.with_name("index.sqlite-journal").exists():
                return False
            return bool(facts["digest"] == _file_digest(path))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _seal(self, path: Path) -> None:
        facts = {"schema": SCHEMA, "digest": _file_digest(path)}
        temporary = path.with_name(f"index.sum.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(facts, out)
        os.replace(temporary, path.with_name("index.sum"))

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        if self._lock_fd < 0:
            yield
            return
        end = clock.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._lock_fd, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic() > end:
                    raise _Busy from None
                clock.sleep(0.005)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    # -- bringing up to date ---------------------------------------------------------------------------------------

    def _scan(self) -> dict[str, tuple[int, int, int]]:
        """Every file of lines, with what tells whether it has changed: inode, size, time of change."""
        found = {}
        pending = [("journal", False), ("refs", True)]
        while pending:
            folder, deep = pending.pop()
            try:
                entries = list(os.scandir(self.store / folder))
            except OSError:
                continue  # not made yet, or not ours to read
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if deep and entry.is_dir(follow_symlinks=False):
                    pending.append((name, True))
                elif entry.name.endswith(".jsonl") and not entry.name.startswith("."):
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # gone since
                    found[name] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        return found

    def _update(self, connection: sqlite3.Connection) -> None:
        found = self._scan()
        if found == self._seen:
            return
        with self._locked(fcntl.LOCK_EX):
            known = {
                row[1]: row for row in connection.execute(
                    "select id, name, inode, size, changed, offset, seq, prev, writer from files"
                )
            }  # fmt: skip
            stale = [name for name in known if name not in found]
            work = [name for name, facts in found.items() if name not in known or known[name][2:5] != facts]
            if stale or work:
                connection.execute("begin immediate")
                try:
                    for name in stale:
                        _forget(connection, known[name][0])
                    for name in sorted(work):
                        self._read(connection, name, found[name], known.get(name))
                    connection.execute("commit")
                except BaseException:
                    connection.execute("rollback")
                    raise
                if self._folder is not None and self._folder != _MEMORY:
                    self._seal(self._folder / "index.sqlite")
        self._seen = found

    def _read(
        self, connection: sqlite3.Connection, name: str, facts: tuple[int, int, int], known: tuple[Any, ...] | None
    ) -> None:
        """Take in what a file has gained; all of it, where what we knew of it no longer fits."""
        number: Any = None
        start: tuple[Any, ...] = (0, 0, None, None)
        if known is not None:
            number = known[0]
            if known[2] == facts[0] and known[3] < facts[1] and known[5] <= facts[1]:
                start = known[5:9]
            else:
                _forget(connection, number)
                number = None
        if number is None:
            number = connection.execute("insert into files (name) values (?)", (name,)).lastrowid
        reader = _Reader(number, *start)
        reader.read(self.store / name, journal=name.startswith("journal/"))
        if reader.note and start[0] and not reader.lines and not reader.torn:
            # What follows does not continue what we had read: the file is another one under the same number.
            _forget(connection, number)
            self._read(connection, name, facts, None)
            return
        connection.executemany("insert into lines values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", reader.lines)
        connection.executemany("insert into artifacts values (?, ?, ?, ?, ?)", reader.artifacts)
        connection.executemany("insert into edges values (?, ?, ?)", reader.edges)
        connection.execute(
            "update files set inode = ?, size = ?, changed = ?, offset = ?, seq = ?, prev = ?, writer = ?, note = ?"
            " where id = ?", (*facts, reader.offset, reader.seq, reader.prev, reader.writer, reader.note, number),
        )  # fmt: skip


class _Named(msgspec.Struct, frozen=True):
    """As much of an artifact as the index holds."""

    name: str
    digest: str | None = None


class _Reader:
    """Reads the lines of one file into rows."""

    def __init__(self, number: int, offset: int, seq: int, prev: str | None, writer: str | None) -> None:
        self.number, self.offset, self.seq, self.prev, self.writer = number, offset, seq, prev, writer
        self.lines: list[tuple[Any, ...]] = []
        self.artifacts: list[tuple[Any, ...]] = []
        self.edges: list[tuple[Any, ...]] = []
        self.logged: set[tuple[str, bytes]] = set()
        self.note, self.torn = "", False

    def read(self, path: Path, *, journal: bool) -> None:
        try:
            for at, raw in raw_lines(path, self.offset):
                if not raw.endswith(b"\n"):
                    self.note, self.torn = "the last line is cut short", True
                    return
                self._take(at, raw, journal=journal)
                self.offset = at + len(raw)
        except RecordInvalid as error:
            self.note = str(error)
        except (OSError, ValueError, RecursionError) as error:
            self.note = f"cannot be read: {error}"

    def _take(self, at: int, raw: bytes, *, journal: bool) -> None:
        digest, envelope, tail = read_envelope(raw)
        if journal:
            if envelope.prev != self.prev or envelope.seq != self.seq or (self.seq and envelope.writer != self.writer):
                raise RecordInvalid("the line does not follow the one before it")
            self.prev, self.writer = digest, envelope.writer
            self.seq += 1
        kind, refs = envelope.kind, envelope.refs
        me = key(digest)
        about = refs.get(_ABOUT.get(kind, ""))
        run = refs.get("run")
        notebook = cell = None
        if kind == "cell.started":
            payload = read_payload(tail)
            notebook = decode(payload["notebook"][1], str) if "notebook" in payload else None
            cell = decode(payload["cell"][1], str) if "cell" in payload else None
        elif kind == "cell.logged":
            payload = read_payload(tail)
            subject = about or run
            if "key" in payload and isinstance(subject, str):
                named = (decode(payload["key"][1], str), key(subject))
                if named not in self.logged:  # a thousand values of one metric are one row
                    self.logged.add(named)
                    self.artifacts.append(("", named[0], "logged", named[1], self.number))
        elif kind in ("cell.ended", "cell.settled"):
            cell_run = key(about) if isinstance(about, str) else me
            payload = read_payload(tail)
            for field, role in _ROLES.items():
                if field in payload:
                    for one in decode(payload[field][1], list[_Named]):
                        if one.digest is not None:
                            self.artifacts.append((one.digest, one.name, role, cell_run, self.number))
            after = refs.get("after", [])
            for parent in after if isinstance(after, list) else [after]:
                self.edges.append((cell_run, key(parent), self.number))
        self.lines.append((
            me, kind, envelope.time, self.number, at, len(raw), key(about) if isinstance(about, str) else None,
            key(run) if isinstance(run, str) else None, notebook, cell,
        ))  # fmt: skip


def _forget(connection: sqlite3.Connection, number: int) -> None:
    for table in ("lines", "artifacts", "edges"):
        connection.execute(f"delete from {table} where file = ?", (number,))  # noqa: S608 - our own three names
    connection.execute("delete from files where id = ?", (number,))


def _file_digest(path: Path) -> str:
    hasher = blake3()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(2**20):
            hasher.update(chunk)
    return hasher.hexdigest()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


class _Busy(Exception):
    """The index is held by a process that does not let go."""


_inherited: list[object] = []
