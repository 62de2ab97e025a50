"""Facts reach the disk: one append-only file per writer, and the thread that makes it last.

A writer (a kernel, a shell command that changes something) owns one file under ``journal/``; nobody else ever writes
it, so there is nothing to lock against and nothing another writer could corrupt. The writer holds an ``flock`` on its
file for as long as it lives: that is how readers tell a run that goes on from one that was interrupted.

An append is one ``write(2)`` of one whole line: the line is then *captured*, and survives the death of the process.
A daemon thread syncs files and folders: the line is then *durable*, and survives a power cut. After a short or failed
write, or a failed sync, the file is left as it is and a new one begins, whose first line names the one it continues:
what the kernel says about a file after an error cannot be relied on.

On a network or FUSE file system, and while a sync hangs, appends go through a writer thread, and the caller waits for
a stated time only.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import queue
import re
import secrets
import stat
import threading
import time as clock
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from jupyter_mlops import __version__
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import (
    Digest,
    JournalOpened,
    JournalSealed,
    Record,
    RecordInvalid,
    now,
    read_line,
    write_line,
)

LONGEST_LINE: Final = 64 * 2**20
"""Bytes: a longer line is refused when written and taken for damage when read."""

PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What keeps this process from reading any file just now: nothing is wrong with the file, and no answer is complete."""

_COALESCE: Final = 0.2  # seconds between two syncs: a burst of appends wakes the thread once
_STUCK: Final = 1.0  # seconds after which a sync or a write counts as hanging
_CLOSING: Final = 2.0  # seconds that closing waits for the disk
_WRITER: Final = re.compile(r"[0-9]{8}T[0-9]{12}-[0-9a-f]{12}")
_CANNOT: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR}


class JournalUnavailable(MlopsError, OSError):
    """The line could not be captured: the store's file system is full, slow, read-only or gone."""


class StoreReplaced(JournalUnavailable):
    """The store's folder was deleted, moved or replaced while it was open; nothing is written to what stands there."""


def new_writer() -> str:
    """A writer's name: sorts by time, unique by chance, as in ``20260131T235959123456-9f86d081884c``."""
    return now().translate(str.maketrans("", "", "-:.Z")) + "-" + secrets.token_hex(6)


def sync_folder(path: Path | str) -> None:
    """Make the names in a folder last, where the file system can be asked for it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT:  # a disk that fails is not one that needs no asking
            raise
    finally:
        os.close(fd)


def is_remote(path: Path) -> bool:
    """Whether a path lies on a network or FUSE file system, whose calls may hang and whose locks may lie."""
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                left, _, right = line.partition(" - ")
                if left.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    kind = right.split()[0]
                    return kind.startswith(("nfs", "cifs", "smb", "fuse", "9p", "ceph", "lustre", "gluster", "afs",
                                            "gpfs", "beegfs", "ncpfs", "orangefs", "virtiofs"))  # fmt: skip
    except (OSError, IndexError):
        pass  # no /proc (macOS), or a path that is gone: taken for local, and found out by its errors
    return False


class _File:
    """One journal file of ours: what was written to it, and how much of that is known to last."""

    __slots__ = ("failed", "fd", "inode", "path", "prev", "seq", "spoiled", "synced", "writer", "written")

    def __init__(self, path: str, writer: str, fd: int) -> None:
        facts = os.fstat(fd)
        self.path, self.writer, self.fd = path, writer, fd
        self.inode = (facts.st_dev, facts.st_ino)
        self.seq, self.prev = 0, None  # type: int, Digest | None
        self.written = self.synced = 0
        self.spoiled = self.failed = False


class _Job:
    """An append handed to the writer thread."""

    __slots__ = ("cancelled", "digest", "done", "error", "record", "started", "time")

    def __init__(self, record: Record, time: str | None) -> None:
        self.record, self.time = record, time
        self.done = threading.Event()
        self.digest: Digest | None = None
        self.error: Exception | None = None
        self.started, self.cancelled = 0.0, False


def _is(path: Path | str, inode: tuple[int, int]) -> bool:
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (facts.st_dev, facts.st_ino) == inode


_ours: weakref.WeakSet[Journal] = weakref.WeakSet()


class Journal:
    """The writing end of a store in this process. Opens its file at the first append.

    Safe to call from any thread. A forked child starts afresh: it never writes to the file of its parent.

    Parameters
    ----------
    store
        The store's folder.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        facts = os.stat(store)
        self._place = (facts.st_dev, facts.st_ino)
        self._remote: bool | None = None
        self._begin()
        _ours.add(self)

    def _begin(self) -> None:
        """Set everything that belongs to this process alone; also what a forked child calls."""
        self._lock = threading.Lock()
        self._file: _File | None = None
        self._old: list[_File] = []  # abandoned files: kept open, for their lock says that we live
        self._objects: list[str] = []  # files written elsewhere in the store, to be synced before the journal
        self._gone = False
        self._kept: list[int] = []  # copies of files whose sync failed, locked like them
        self._syncer: threading.Thread | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._round = threading.Condition(threading.Lock())
        self._begun = self._ended = 0  # rounds of syncing
        self._sync_since = 0.0  # when the one that is going on began
        self._doubtful: list[str] = []  # objects whose sync failed
        self._held = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._job: _Job | None = None
        self._hand: threading.Thread | None = None
        self.problems: list[str] = []

    # -- appending -------------------------------------------------------------------------------------------------

    @property
    def writer(self) -> str | None:
        """The name of the file now written to, or None before the first append."""
        return self._file.writer if self._file else None

    @property
    def writers(self) -> list[str]:
        """The names of all files this process writes or has written, as long as it lives."""
        return [file.writer for file in self._files()]

    def append(self, record: Record, *, time: str | None = None, wait: float = 0.05) -> Digest:
        """Write a record; on return it survives the death of this process.

        Parameters
        ----------
        time
            When it happened, as `records.now` spells it; now if left out.
        wait
            Seconds to wait at most for a file system that does not answer.

        Raises
        ------
        JournalUnavailable
            The line could not be captured.
        StoreReplaced
            The store's folder is no longer the one that was opened.
        RecordInvalid
            The line would be longer than `LONGEST_LINE`.
        """
        if self._remote is None:
            self._remote = is_remote(self.store)
        if self._remote or (self._sync_since and clock.monotonic() - self._sync_since > _STUCK):
            return self._hand_over(record, time, wait)
        return self._append(record, time, wait)

    def _append(self, record: Record, time: str | None, wait: float) -> Digest:
        if not self._lock.acquire(timeout=wait):
            raise JournalUnavailable(
                "the record could not be written", cause=f"the store's file system did not answer in {wait:g} s",
                next="see `mlops doctor`",
            )  # fmt: skip
        try:
            return self._write(record, time)
        finally:
            self._lock.release()

    def _write(self, record: Record, time: str | None) -> Digest:
        why = ""
        for _ in range(3):
            file = self._file
            if file is None or file.spoiled or file.failed:
                file = self._open(why)
            if not self._still(file.path, file.inode):
                self.check()  # the whole store, or this file alone?
                self._file_lost(file)
                why = "its file was removed or replaced"
                continue
            digest, raw = write_line(record, writer=file.writer, seq=file.seq, prev=file.prev, time=time)
            if len(raw) > LONGEST_LINE:
                raise RecordInvalid(f"a record of {len(raw)} bytes is too long", cause=f"the limit is {LONGEST_LINE}")
            # If anything cuts in below, a Ctrl-C included, the file counts as spoiled and the next append leaves it.
            file.spoiled = True
            try:
                count = os.write(file.fd, raw)
            except OSError as error:
                why = str(error)
                continue
            if count != len(raw):
                why = f"only {count} of {len(raw)} bytes were written"
                continue
            file.seq += 1
            file.prev = digest
            file.written += 1
            file.spoiled = False
            if not self._wake.is_set():
                self._wake.set()
            return digest
        raise JournalUnavailable("the record could not be written", cause=why, next="see `mlops doctor`")

    def _open(self, why: str) -> _File:
        """Begin a new file, which says which one it continues; the caller holds the lock."""
        self.check()
        before, self._file = self._file, None
        if before is not None:
            self._old.append(before)
        last = self._old[-1].writer if self._old else ""
        writer = new_writer()
        folder = self.store / "journal"
        path = str(folder / f"{writer}.jsonl")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JournalUnavailable(
                "no journal could be opened", cause=str(error), next="see `mlops doctor`"
            ) from error
        try:
            os.fchmod(fd, 0o600)
            with contextlib.suppress(OSError):  # a file system without locks: its runs read as interrupted
                fcntl.flock(fd, fcntl.LOCK_EX)
            file = _File(path, writer, fd)
            opened = JournalOpened(
                software=f"jupyter-mlops {__version__}",
                continues=last,
                because=why or ("" if not last else "a failure"),
            )
            file.prev, raw = write_line(opened, writer=writer, seq=0, prev=None)
            if os.write(fd, raw) != len(raw):
                raise OSError(f"only a part of {len(raw)} bytes was written")
        except OSError as error:
            # Nothing in this file was promised to anybody, so it need not stay.
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(fd)
            raise JournalUnavailable(
                "no journal could be begun", cause=str(error), next="see `mlops doctor`"
            ) from error
        file.seq = file.written = 1
        if last:
            self.problems.append(f"journal {last} was left for {writer}: {why or 'a failure'}")
        self._file = file
        self._start_syncer()
        return file

    def check(self) -> None:
        """See that the store's folder is still the one that was opened.

        Raises
        ------
        StoreReplaced
            It is not.
        JournalUnavailable
            It cannot be told.
        """
        if not self._gone and not self._still(self.store, self._place):
            self._gone = True
        if self._gone:
            raise StoreReplaced(
                f"the store {self.store.name} is no longer the one that was opened",
                cause="its folder was deleted, moved or replaced while it was in use",
                next="restart the kernel",
            )

    def _still(self, path: Path | str, inode: tuple[int, int]) -> bool:
        try:
            return _is(path, inode)
        except OSError as error:  # a network file system that is gone says nothing of what was there
            raise JournalUnavailable(
                "the store can not be reached", cause=error.strerror or str(error), next="see `mlops doctor`"
            ) from error

    def _file_lost(self, file: _File) -> None:
        file.spoiled = True
        file.synced = file.written  # nothing is left to be synced
        self.problems.append(f"the file of journal {file.writer} was removed or replaced while it was being written")

    def _hand_over(self, record: Record, time: str | None, wait: float) -> Digest:
        """Let the writer thread append, and wait for it as long as stated."""
        current = self._job
        if current is not None and current.started and clock.monotonic() - current.started > _STUCK:
            raise JournalUnavailable(
                "the record could not be written", cause="the store's file system has not answered for a while",
                next="see `mlops doctor`",
            )  # fmt: skip
        if self._hand is None or not self._hand.is_alive():
            self._hand = threading.Thread(target=self._work, name="jupyter-mlops journal", daemon=True)
            self._hand.start()
        job = _Job(record, time)
        self._jobs.put(job)
        if not job.done.wait(wait):
            job.cancelled = True
            raise JournalUnavailable(
                "the record could not be written", cause=f"the store's file system did not answer in {wait:g} s",
                next="see `mlops doctor`",
            )  # fmt: skip
        if job.error is not None:
            raise job.error
        assert job.digest is not None
        return job.digest

    def _work(self) -> None:
        jobs = self._jobs
        while (job := jobs.get()) is not None:
            if job.cancelled:
                continue
            self._job, job.started = job, clock.monotonic()
            try:
                job.digest = self._append(job.record, job.time, 60.0)
            except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for it
                job.error = error
            self._job = None
            job.done.set()

    # -- making it last --------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Lines and objects that are captured and not yet durable."""
        return sum(file.written - file.synced for file in self._files()) + len(self._objects)

    def rewrite(self, writer: str, line: Callable[[bytes], bytes]) -> bool:
        """Write a journal file anew, each line as `line` gives it, and put it in the old one's place, synced.

        A file that this process writes is left for a new one first. What follows the last whole line, a write that was
        cut short, is dropped.

        Returns
        -------
        bool
            False, and nothing was done, where another process is writing it.

        Raises
        ------
        OSError
            It could not be read or written; the old file is as it was.
        """
        path = f"{self.store}/journal/{writer}.jsonl"
        with self._lock:
            if self._file is not None and self._file.writer == writer:
                self._open("lines of it were erased")
            own = next((file for file in self._old if file.writer == writer), None)
            with _held(path) if own is None else contextlib.nullcontext(True) as ours:
                if not ours:
                    return False
                lines = (line(raw) for _, raw in raw_lines(path) if raw.endswith(b"\n"))
                fd = _replace(path, lines, str(self.store / "tmp"), keep=own is not None)
            if own is not None:
                # Whoever uses the old number, the syncing thread among them, means the new file from here on; and no
                # open file holds on to what was erased.
                os.dup2(fd, own.fd, inheritable=False)
                os.close(fd)
                own.synced = own.written
        return True

    def sync_later(self, path: str) -> None:
        """Have a file of the store synced in the background, before the lines that may name it."""
        self._objects.append(path)
        self._start_syncer()
        self._wake.set()

    def durable(self, *, timeout: float | None = None) -> bool:
        """Wait until everything appended so far is on the disk.

        Returns
        -------
        bool
            False if the time ran out, or a sync failed: then it may or may not survive a power cut.
        """
        if self.pending:
            self._start_syncer()
            if self._syncer is None:
                self._sync_round()
            elif not self._await_round(timeout):
                return False
        return not self._doubtful and not any(file.failed and file.synced < file.written for file in self._files())

    def _await_round(self, timeout: float | None) -> bool:
        with self._round:
            goal = self._begun + 1  # a round that begins after this moment
            self._wake.set()
            self._hurry.set()
            return self._round.wait_for(lambda: self._ended >= goal, timeout)

    def _files(self) -> list[_File]:
        return [*self._old, *([self._file] if self._file else [])]

    def _start_syncer(self) -> None:
        if self._syncer is None or not self._syncer.is_alive():
            self._syncer = threading.Thread(target=self._sync, name="jupyter-mlops sync", daemon=True)
            try:
                self._syncer.start()
            except RuntimeError:  # the interpreter is going down, and starts no threads any more (Python 3.12 on)
                self._syncer = None

    def _sync(self) -> None:
        """Sync in rounds, for as long as the process lives: objects, then journals, then their folder."""
        stop = self._stop
        while not stop.is_set():
            self._wake.wait()
            self._wake.clear()
            with self._round:
                self._begun += 1
            self._sync_since = clock.monotonic()
            try:
                self._sync_round()
            finally:
                self._sync_since = 0.0
                with self._round:
                    self._ended += 1
                    self._round.notify_all()
            if not stop.is_set() and self._hurry.wait(_COALESCE):
                self._hurry.clear()

    def _sync_round(self) -> None:
        self._sync_objects()
        for file in self._files():
            self._sync_file(file)

    def _sync_objects(self) -> None:
        paths, folders = self._objects[:], set()
        doubtful, self._doubtful = self._doubtful, []
        for path in doubtful:
            self._rewrite(path)
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                continue  # removed since, or the store is gone: nothing to keep
            try:
                fsync(fd)
                folders.add(os.path.dirname(path))
            except OSError as error:
                self.problems.append(f"{os.path.basename(path)} could not be synced: {error}")
                self._rewrite(path)
            finally:
                os.close(fd)
        folders |= {os.path.dirname(folder) for folder in folders}  # a folder's own name is new at times
        for folder in sorted(folders):
            try:
                sync_folder(folder)
            except OSError as error:
                self.problems.append(f"{os.path.basename(folder)} could not be synced: {error}")
                self._doubtful += [path for path in paths if path.startswith(folder + os.sep)]
        del self._objects[: len(paths)]

    def _rewrite(self, path: str) -> None:
        """Write an object once more: after a failed sync its pages may be dropped, and a second sync lies."""
        try:
            _copy(path, str(self.store / "tmp"))
        except OSError:
            self._doubtful.append(path)  # the next round tries again

    def _sync_file(self, file: _File) -> None:
        written = file.written
        if written == file.synced:
            return
        if not file.failed:
            try:
                fdatasync(file.fd)
                if not file.synced:
                    sync_folder(os.path.dirname(file.path))
                file.synced = written
                return
            except OSError as error:
                with self._lock:  # from here on nothing is appended to it
                    file.failed = True
                self.problems.append(f"journal {file.writer} could not be synced: {error}")
        # What a later sync of this file says is worth nothing: its lines are saved by a copy that takes its place.
        try:
            fd = _copy(file.path, str(self.store / "tmp"), keep=True)
        except OSError:
            return  # the next round tries again
        self._kept.append(fd)
        file.synced = file.written

    # -- the end, and forks ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Seal the journal and sync it, waiting for the disk two seconds at most. A later append begins a new one."""
        file = self._file
        if file is not None and not file.spoiled:
            # A store that is gone, full or hanging cannot be sealed; its readers see an interrupted writer.
            with contextlib.suppress(JournalUnavailable):
                self.append(JournalSealed(), wait=_CLOSING)
        self.durable(timeout=_CLOSING)
        thread, files = self._syncer, self._files()
        self._stop.set()
        self._wake.set()
        self._hurry.set()
        self._jobs.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING)
        if thread is None or not thread.is_alive():
            for fd in (*(one.fd for one in files), *self._kept):
                os.close(fd)
        problems = self.problems
        self._begin()
        self.problems = problems

    def _quiesce(self) -> None:
        # Bounded: a write that hangs must not make the user's fork hang.
        self._held = self._lock.acquire(timeout=_STUCK)

    def _resume(self) -> None:
        if self._held:
            self._lock.release()

    def _leave(self) -> None:
        """In a forked child: forget what belongs to the parent."""
        for fd in (*(file.fd for file in self._files()), *self._kept):
            # Closing our copy leaves the parent's lock alone, and keeps the child from looking like its parent's life.
            with contextlib.suppress(OSError):
                os.close(fd)
        self._begin()


class Adopted:
    """A journal that another store's writer writes, brought into this store line by line as it grows.

    It is locked for as long as it is being brought: so its runs are seen to go on. Nothing gets in that does not
    verify and follow what is there.

    Parameters
    ----------
    store
        The store's folder.
    writer
        The writer's name.

    Raises
    ------
    RecordInvalid
        That is no writer's name.
    JournalUnavailable
        The journal is here already, or can not be written.
    """

    def __init__(self, store: Path, writer: str) -> None:
        if not _WRITER.fullmatch(writer):
            raise RecordInvalid(f"{writer[:80]!r} names no journal")
        self.writer, self.size = writer, 0
        self._seq, self._prev = 0, None  # type: int, Digest | None
        folder = store / "journal"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._fd = os.open(
                folder / f"{writer}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise JournalUnavailable("a journal could not be brought here", cause=str(error)) from error
        with contextlib.suppress(OSError):  # a file system without locks: its runs read as interrupted
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def add(self, raw: bytes) -> None:
        """Bring further lines, whole ones.

        Raises
        ------
        RecordInvalid
            One does not verify, or does not follow the one before it: those before it are there.
        JournalUnavailable
            They can not be written.
        """
        for text in raw.splitlines(keepends=True):
            if not text.endswith(b"\n") or len(text) > LONGEST_LINE:
                raise RecordInvalid("a line that was brought is cut short, or too long")
            line = read_line(text)
            envelope = line.envelope
            if (envelope.writer, envelope.seq, envelope.prev) != (self.writer, self._seq, self._prev):
                raise RecordInvalid("a line that was brought does not follow the one before it")
            try:
                count = os.write(self._fd, text)
                if count != len(text):
                    raise OSError(f"only {count} of {len(text)} bytes were written")
            except OSError as error:
                raise JournalUnavailable("a journal could not be brought here", cause=str(error)) from error
            self._seq, self._prev, self.size = self._seq + 1, line.digest, self.size + len(text)

    def close(self) -> None:
        """Sync it, and let go of it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                fsync(fd)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise JournalUnavailable("a journal could not be saved here", cause=str(error)) from error
            finally:
                os.close(fd)


fsync = os.fsync
fdatasync = getattr(os, "fdatasync", os.fsync)


def _copy(path: str, folder: str, *, keep: bool = False) -> int:
    """Put a synced copy of a file in its place; with `keep` it is locked and stays open."""
    with open(path, "rb") as source:
        return _replace(path, iter(lambda: source.read(2**20), b""), folder, keep=keep)


def _replace(path: str, pieces: Iterable[bytes], folder: str, *, keep: bool = False) -> int:
    """Put a synced file with that content in another's place; with `keep` it is locked and stays open."""
    temporary = os.path.join(folder, f"copy-{os.getpid()}-{secrets.token_hex(6)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for piece in pieces:
            if os.write(fd, piece) != len(piece):
                raise OSError("the copy is short")
        fsync(fd)
        if keep:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(temporary, path)
        sync_folder(os.path.dirname(path))
    except BaseException:
        # Whatever it is, an interrupt too: the lock on a file that took nobody's place must not outlive it.
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if not keep:
        os.close(fd)
    return fd


def _each(act: str) -> None:
    for journal in list(_ours):
        getattr(journal, act)()


os.register_at_fork(
    before=lambda: _each("_quiesce"),
    after_in_parent=lambda: _each("_resume"),
    after_in_child=lambda: _each("_leave"),
)
atexit.register(lambda: _each("close"))


# -- reading ---------------------------------------------------------------------------------------------------------


def alive(path: Path | str) -> bool:
    """Whether the writer of a journal file lives: it holds a lock on it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in PASSING:
            raise
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(fd)
    return False


@contextlib.contextmanager
def _held(path: str) -> Iterator[bool]:
    """Hold a dead writer's file against others who would rewrite it; False where somebody holds it."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # a file system without locks: nobody is known to write it
        yield True
    finally:
        os.close(fd)


def raw_lines(path: Path | str, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Read a journal's lines, each with its offset in bytes; a last piece without a newline is a line too.

    Raises
    ------
    OSError
        The file cannot be read, is a link or is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        rest = b""
        at = offset
        while chunk := os.pread(fd, 2**20, at + len(rest)):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield at, line + b"\n"
                at += len(line) + 1
            if len(rest) > LONGEST_LINE:
                break
        if rest:
            yield at, rest
    finally:
        os.close(fd)
