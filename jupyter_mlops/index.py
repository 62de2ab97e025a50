"""The index: where each line stands, and what made and used what. Built from the files, and never more than they say.

One SQLite file that may be deleted, cut, damaged or left behind by another version at any time: it is then built
anew. It is brought up to date before it answers, from the files that grew since. Every line it points to is verified
when it is read; but a flipped bit can also hide lines, and SQLite does not notice most of them, so a *seal* stands
beside it. The seal has two parts. The *stamp* is what the file system says of the file, its time of change having been
set to one that no clock shows: whoever writes the file in whatever way breaks it, and looking costs nothing. It is
believed for an hour, within one run of the machine and of the disk. Past that, and for a copy, the *digest* of all
bytes decides; it is made by the last process that lets go of the index, not at each new line. Where neither holds, the
index is built anew.

Readers and the one who updates exclude one another by a lock on a file of its own: SQLite's locks are lost as soon as
anything else in the process opens and closes the database file. The journal mode is the old rollback one, since the
newer one needs shared memory, and fails on network file systems and in read-only folders.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import secrets
import threading
import time as clock
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from blake3 import blake3

from jupyter_mlops.journal import PASSING, is_remote, raw_lines
from jupyter_mlops.records import Digest, RecordInvalid, decode, read_envelope, read_payload

if TYPE_CHECKING:
    import sqlite3

_MEMORY: Final = Path(":memory:")
_PATIENCE: Final = 20.0  # seconds to wait for another process that brings the index up to date
_BELIEVED: Final = 3600.0  # seconds that a stamp stands for the bytes: a medium decays without telling the file system
SCHEMA: Final = 5
CUT: Final = "the last line is cut short"
"""What is noted of a file whose writer was killed, or writes just now: nothing is damaged."""
_PARTS: Final = ("index.sqlite", "index.sqlite-journal", "index.sum", "index.sum.new")
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
    "outputs": "made", "files_written": "made", "displays": "made", "recall": "recalls",
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
        _ours.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._folder: Path | None = None
        self._inode: tuple[int, int] | None = None
        self._stamp: list[int] = []  # of the file as we know it to be sound
        self._lock_fd = -1
        self._pid = os.getpid()
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._moves: dict[str, tuple[int, int, int]] = {}  # of those, moves read whole: such a file changes no more

    # -- asking ----------------------------------------------------------------------------------------------------

    def ask(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Answer a query, from an index that is up to date."""
        import sqlite3

        with self._mine():
            for attempt in range(3):
                try:
                    return self._ask(query, [_text(one) if isinstance(one, str) else one for one in values])
                except _Busy:
                    self._drop()
                    self._folder = _MEMORY  # somebody holds it, and does not go on
                except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
                    if attempt == 2 or (isinstance(error, OSError) and error.errno in PASSING):
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
            self._see()
            return connection.execute(query, values).fetchall()

    def rebuild(self) -> int:
        """Build the index anew, and say how many lines it holds."""
        with self._mine():
            self.discard()
            return int(self.ask("select count(*) from lines")[0][0])

    def folder(self) -> Path | None:
        """Where the index is kept; None where it is in memory."""
        with self._mine():
            if self._folder is None:
                self._folder = self._place()
            return None if self._folder == _MEMORY else self._folder

    def sound(self) -> bool:
        """Whether the index file, where there is one, is what its last writer left; by its bytes, where it can be."""
        with self._mine():
            if self._folder is None:
                self._folder = self._place()
            if self._folder == _MEMORY or not self._file.exists():
                return True
            if self._lock_fd < 0:
                self._lock_fd = os.open(self._folder / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with self._locked(fcntl.LOCK_SH):
                    return self._sound(self._file, whole=True)
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
            self._drop()
            folder = self._folder
            if folder is not None and folder != _MEMORY:
                for name in _PARTS:
                    with contextlib.suppress(OSError):  # it goes to memory then
                        (folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the index, and leave the digest of it to those who come later."""
        with self._mine():
            self._complete()
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._seen, self._moves, self._stamp = {}, {}, []
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
            self._drop()  # somebody deleted or rebuilt it
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

        fresh = path is None or not self._sound(path, renew=True)
        if fresh and path is not None:
            for name in _PARTS:
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
        except BaseException:  # whatever it is, an interrupt too: nobody else knows of the connection yet
            connection.close()
            raise
        self._connection = connection
        self._inode = None if path is None else _inode(path)
        if fresh and path is not None:
            self._seal(path)
        return connection

    # -- the seal --------------------------------------------------------------------------------------------------

    def _see(self) -> None:
        """See that the file is still as we know it, or as another process sealed it; the caller holds the lock."""
        if self._folder not in (None, _MEMORY) and not (self._stamp and self._stamp == _stamp(self._file)):
            if not self._sound(self._file):
                raise _Unsound
            self._stamp = _stamp(self._file)

    def _sound(self, path: Path, *, whole: bool = False, renew: bool = False) -> bool:
        """Whether the index file is what its last writer left.

        Parameters
        ----------
        whole
            Read the bytes even where the stamp holds, if there is a digest to hold them against.
        renew
            Set a new stamp where only the digest held; the caller holds the lock alone.
        """
        try:
            seal = json.loads(path.with_name("index.sum").read_bytes())
            if seal["schema"] != SCHEMA or path.with_name("index.sqlite-journal").exists():
                return False
            session, since = _session(path)
            stamped = bool(
                session and seal["session"] == session and 0 <= since - seal["since"] < _BELIEVED
                and seal["stamp"] == _stamp(path)
            )  # fmt: skip
            if stamped and not (whole and seal["digest"]):
                return True
            if seal["digest"] != _file_digest(path):
                return False
            if renew and not stamped:
                self._seal(path, seal["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _seal(self, path: Path, digest: str | None = None) -> None:
        """Say beside the file that it is as it should be; the caller holds the lock alone."""
        # Whole seconds, for file systems that keep no more, and long ago: no write can leave this time behind.
        os.utime(path, (0, secrets.randbelow(2**30)))
        session, since = _session(path)
        seal = {
            "schema": SCHEMA, "session": session, "since": since, "stamp": _stamp(path),
            "digest": digest or (None if session else _file_digest(path)),
        }  # fmt: skip
        temporary = path.with_name("index.sum.new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(seal, out)
        os.replace(temporary, path.with_name("index.sum"))
        self._stamp = _stamp(path)

    def _complete(self) -> None:
        """Add the digest to a seal that has none, unless another process is at work, which then will."""
        if self._connection is None or self._folder in (None, _MEMORY) or self._lock_fd < 0:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # without it, the index is built anew
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seal = json.loads(self._file.with_name("index.sum").read_bytes())
            if seal["digest"] is None and seal["stamp"] == self._stamp == _stamp(self._file):
                self._seal(self._file, _file_digest(self._file))

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
            except OSError as error:
                if error.errno in PASSING:
                    raise
                continue  # not made yet, or not ours to read
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if deep and entry.is_dir(follow_symlinks=False):
                    pending.append((name, True))
                elif deep and (facts := self._moves.get(name)) and facts[0] == entry.inode():
                    found[name] = facts
                elif entry.name.endswith(".jsonl") and not entry.name.startswith("."):
                    try:
                        stat = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # gone since
                    found[name] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        return found

    def _update(self, connection: sqlite3.Connection) -> None:
        found = self._scan()
        if found == self._seen:
            return
        with self._locked(fcntl.LOCK_EX):
            self._see()
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
                except BaseException:  # whatever it is, an interrupt too: an open transaction would lock out all others
                    connection.execute("rollback")
                    raise
                if self._folder is not None and self._folder != _MEMORY:
                    self._seal(self._folder / "index.sqlite")
        self._seen = found
        self._moves = {
            name: found[name]
            for name, (_, _, *facts, offset, _, _, _) in known.items()
            if name.startswith("refs/") and tuple(facts) == found.get(name) and offset == facts[1]
        }

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
        if reader.note and start[0] and not (reader.lines or reader.torn):
            # What follows does not continue what we had read: the file is another one under the same number.
            _forget(connection, number)
            self._read(connection, name, facts, None)
            return
        connection.executemany("insert into lines values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", reader.lines)
        connection.executemany("insert into artifacts values (?, ?, ?, ?, ?)", reader.artifacts)
        connection.executemany("insert into edges values (?, ?, ?)", reader.edges)
        connection.execute(
            "update files set inode = ?, size = ?, changed = ?, offset = ?, seq = ?, prev = ?, writer = ?, note = ?"
            " where id = ?",
            (*facts, reader.offset, reader.seq, reader.prev,
             reader.writer, reader.note, number),
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
                    self.note, self.torn = CUT, True
                    return
                self._take(at, raw, journal=journal)
                self.offset = at + len(raw)
        except RecordInvalid as error:
            self.note = str(error)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise
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
            notebook = _text(decode(payload["notebook"][1], str)) if "notebook" in payload else None
            cell = _text(decode(payload["cell"][1], str)) if "cell" in payload else None
        elif kind == "run.started":
            payload = read_payload(tail)
            notebook = _text(decode(payload["notebook"][1], str)) if "notebook" in payload else None
        elif kind == "cell.logged":
            payload = read_payload(tail)
            subject = about or run
            if "key" in payload and isinstance(subject, str):
                named = (_text(decode(payload["key"][1], str)), key(subject))
                if named not in self.logged:  # a thousand values of one metric are one row
                    self.logged.add(named)
                    self.artifacts.append(("", named[0], "logged", named[1], self.number))
        elif kind == "model_version":
            payload = read_payload(tail)
            files = decode(payload["files"][1], list[_Named]) if "files" in payload else []
            if "name" in payload and files and files[0].digest is not None:  # the first is the model's content
                named_ = _text(decode(payload["name"][1], str))
                self.artifacts.append((_text(files[0].digest), named_, "registered", me, self.number))
        elif kind in ("cell.ended", "cell.settled"):
            cell_run = key(about) if isinstance(about, str) else me
            payload = read_payload(tail)
            for field, role in _ROLES.items():
                if field in payload:
                    for one in decode(payload[field][1], list[_Named]):
                        if one.digest is not None:
                            self.artifacts.append((_text(one.digest), _text(one.name), role, cell_run, self.number))
            after = refs.get("after", [])
            for parent in after if isinstance(after, list) else [after]:
                self.edges.append((cell_run, key(parent), self.number))
        elif kind == "run.ended":
            payload = read_payload(tail)
            basis = decode(payload["basis"][1], _Named) if "basis" in payload else None
            if basis is not None and basis.digest is not None and isinstance(about, str):
                self.artifacts.append((_text(basis.digest), _text(basis.name), "basis", key(about), self.number))
        self.lines.append((
            me, _text(kind), _text(envelope.time), self.number, at, len(raw),
            key(about) if isinstance(about, str) else None, key(run) if isinstance(run, str) else None, notebook, cell,
        ))  # fmt: skip


def _text(text: str) -> str:
    r"""A text as SQLite takes it: a lone surrogate, as in a file's name that is no text, becomes an escape.

    >>> _text("été"), _text("a\udcff")
    ('été', 'a\\udcff')
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


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


def _stamp(path: Path) -> list[int]:
    """What the file system says of a file and changes with every write to it."""
    facts = os.stat(path)
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _session(path: Path) -> tuple[str, float]:
    """This run of the machine and of the disk a file is on, and how long the machine has run.

    A file that was written and not synced may be another after either has ended, under the same stamp. Nothing, where
    the system does not tell (macOS).
    """
    device = os.stat(path).st_dev
    disk = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    try:
        found = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        since = clock.clock_gettime(clock.CLOCK_BOOTTIME)
    except (OSError, ValueError, AttributeError):
        return "", 0.0
    for name in ("diskseq", "../diskseq"):  # of a whole disk, or of the one that a partition is part of
        with contextlib.suppress(OSError, ValueError):
            found += " " + Path(disk, name).read_text("ascii").strip()
    return found, since


class _Busy(Exception):
    """The index is held by a process that does not let go."""


class _Unsound(OSError):
    """The index was written to by something that does not keep it."""


_inherited: list[object] = []
_ours: weakref.WeakSet[Index] = weakref.WeakSet()


def _close_all() -> None:
    for index in list(_ours):
        index.close()


atexit.register(_close_all)
