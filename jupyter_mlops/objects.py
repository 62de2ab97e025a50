"""Objects: bytes named by their digest, written once, atomically, and verified whenever they are read.

A new object is written under ``tmp/``, under a name that says which process of which machine writes it, and renamed
into place; what writers that died have left there is swept when a store is opened. A name proves nothing of what a
power cut has left under it, so an object is believed to be there only where its size is right.

Files of the user's are put in their place in the same way, from drafts beside them: `replace_file`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.journal import Journal, fsync, sync_folder
from jupyter_mlops.records import Digest, Erased, digest_of, short

_CHUNK: Final = 2**20
OBJECT: Final = re.compile(r"blake3:[0-9a-f]{64}")
"""What names an object."""


class ObjectMissing(MlopsError, KeyError):
    """The store does not hold the object: it was never kept here, or it was erased."""

    __str__ = MlopsError.__str__


class ObjectDamaged(MlopsError, ValueError):
    """The object's bytes are no longer those its name says."""


class Objects:
    """The objects of a store.

    Parameters
    ----------
    store
        The store's folder.
    journal
        Syncs them before the lines that name them.
    erased
        Finds the record of an erasure: when, and what it says.
    """

    def __init__(self, store: Path, journal: Journal, erased: Callable[[Digest], tuple[str, Erased] | None]) -> None:
        self.path, self._journal, self._erased = store, journal, erased
        self._sweep()

    def put(
        self,
        data: bytes | bytearray | memoryview | Path,
        *,
        durable: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Digest:
        """Keep bytes, or the content of a file, and say their name.

        Parameters
        ----------
        data
            The bytes, or the path of a regular file, which is read in pieces.
        durable
            Whether to wait until they are on the disk; otherwise they are synced in the background.
        check
            Called between pieces of some MiB; what it raises calls the work off, and nothing is kept.

        Raises
        ------
        StoreReplaced
            The store's folder is no longer the one that was opened.
        OSError
            The bytes cannot be read or written.
        """
        self._journal.check()
        if isinstance(data, Path):
            digest, temporary, size = self._take_in(data)
        else:
            data = _flat(data)
            size = len(data)
            digest, temporary = digest_of(data) if check is None else _checked_digest(data, check), None
        path = self.place(digest)
        try:
            # A name proves nothing of what a power cut has left under it; the size costs no reading.
            if os.stat(path, follow_symlinks=False).st_size == size:
                if temporary:
                    os.unlink(temporary)
                if durable:
                    self._sync(path)
                return digest
        except OSError:
            pass  # not there: the usual case
        if temporary is None:
            temporary = self.temporary()
            write(temporary, data if check is None else _pieces(data, check))  # type: ignore[arg-type]
        try:
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                make_folder(path.parent)
                os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            self._sync(path)
        else:
            self._journal.sync_later(str(path))
        return digest

    def get(self, digest: Digest) -> bytes:
        """Read an object, and see that it is what its name says.

        Raises
        ------
        ObjectMissing
            The store does not hold it.
        ObjectDamaged
            Its bytes are others.
        """
        try:
            data = self.place(digest).read_bytes()
        except OSError as error:
            raise self._missing(digest, error) from error
        if digest_of(data) != digest:
            raise ObjectDamaged(
                f"object {short(digest)} is damaged", cause="its bytes do not match its name", next="mlops fsck"
            )
        return data

    def read_into(self, digest: Digest, memory: memoryview) -> None:
        """Read an object into memory of its size, and see that it is what its name says.

        Raises
        ------
        ObjectMissing
            The store does not hold it.
        ObjectDamaged
            Its bytes are others, or not as many.
        """
        hasher, place = blake3(), 0
        try:
            with open(self.place(digest), "rb", buffering=0) as file:
                # what was just read is hashed while it is still in the cache
                while read := file.readinto(memory[place : place + _CHUNK]):
                    hasher.update(memory[place : place + read])
                    place += read
                more = place == len(memory) and file.read(1)
        except OSError as error:
            raise self._missing(digest, error) from error
        if more or place != len(memory) or "blake3:" + hasher.hexdigest() != digest:
            raise ObjectDamaged(
                f"object {short(digest)} is damaged", cause="its bytes do not match its name", next="mlops fsck"
            )

    def has(self, digest: Digest) -> bool:
        """Whether the object is here; its bytes are not read."""
        return bool(OBJECT.fullmatch(digest)) and self.place(digest).is_file()

    def size(self, digest: Digest) -> int:
        """How many bytes an object has.

        Raises
        ------
        ObjectMissing
            The store does not hold it.
        """
        try:
            return self.place(digest).stat().st_size
        except OSError as error:
            raise self._missing(digest, error) from error

    def __iter__(self) -> Iterator[Digest]:
        """The name of every object, in no order."""
        root = self.path / "objects"
        for folder in names(root):
            for name in names(root / folder):
                if OBJECT.fullmatch(found := f"blake3:{folder}{name}"):
                    yield Digest(found)

    def damaged(self, *, read_data: bool) -> Iterator[tuple[str, str]]:
        """Objects that are not what their names say: where each stands in the store, and what is wrong with it."""
        for digest in self:
            where = f"objects/{digest[7:9]}/{digest[9:]}"
            try:
                whole = (self.size(digest) > 0 or digest == digest_of(b"")) and (
                    not read_data or _hash_file(self.path / where) == digest
                )
            except (OSError, ObjectMissing) as error:
                yield where, f"the object cannot be read: {error}"
                continue
            if not whole:
                yield where, "the object's bytes do not match its name"

    def place(self, digest: str) -> Path:
        """Where an object stands, or would."""
        if not OBJECT.fullmatch(digest):
            raise ObjectMissing(
                f"{digest[:80]!r} names no object", cause="objects are named by their bytes, as in blake3:5f3c…"
            )
        return self.path / "objects" / digest[7:9] / digest[9:]

    def _missing(self, digest: Digest, error: OSError) -> ObjectMissing:
        if not isinstance(error, FileNotFoundError):
            return ObjectMissing(f"object {short(digest)} cannot be read", cause=str(error), next="mlops fsck")
        erased = self._erased(digest)
        if erased is not None:
            time, record = erased
            by = f" by {record.by}" if record.by else ""
            return ObjectMissing(f"object {short(digest)} was erased{by} on {time[:10]}", cause=record.reason)
        return ObjectMissing(f"object {short(digest)} is not in this store", next="mlops fsck")

    def _take_in(self, path: Path) -> tuple[Digest, str, int]:
        """Copy a file beside the objects, naming it on the way."""
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise IsADirectoryError(f"{path} is not a regular file")
            temporary, hasher, size = self.temporary(), blake3(), 0

            def chunks() -> Iterator[bytes]:
                nonlocal size
                while chunk := os.read(source, _CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
                    yield chunk

            write(temporary, chunks())
        finally:
            os.close(source)
        return Digest("blake3:" + hasher.hexdigest()), temporary, size

    def temporary(self) -> str:
        """A path for a file that is being written, on the store's own file system."""
        if not os.path.isdir(self.path / "tmp"):  # git and some copies leave empty folders out
            make_folder(self.path / "tmp")
        return str(self.path / "tmp" / f"{_host()}-{os.getpid()}-{secrets.token_hex(6)}")

    def _sync(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            fsync(fd)
        finally:
            os.close(fd)
        sync_folder(path.parent)
        sync_folder(path.parent.parent)

    def _sweep(self) -> None:
        """Remove what writers that died have left half-written."""
        for name in names(self.path / "tmp"):
            host, _, rest = name.partition("-")
            pid = rest.partition("-")[0]
            if host == _host() and pid.isdecimal() and not _lives(int(pid)):
                with contextlib.suppress(OSError):  # read-only, or swept by another: no matter
                    os.unlink(self.path / "tmp" / name)


_PIECE: Final = 8 * 2**20


def _pieces(data: Any, check: Callable[[], None]) -> Iterator[memoryview]:
    """Bytes in pieces, each after a look at whether to go on."""
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        check()
        yield view[start : start + _PIECE]


def _checked_digest(data: Any, check: Callable[[], None]) -> Digest:
    hasher = blake3()
    for piece in _pieces(data, check):
        hasher.update(piece)
    return Digest("blake3:" + hasher.hexdigest())


def _flat(data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    """The same bytes, in a shape that can be hashed and written."""
    if isinstance(data, memoryview) and (data.ndim != 1 or data.format != "B" or not data.c_contiguous):
        return data.cast("B") if data.c_contiguous and data.nbytes else data.tobytes()
    return data


def make_folder(path: Path) -> None:
    """Make a folder and those above it, for their owner alone under any umask."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)


def names(folder: Path) -> list[str]:
    """What is in a folder; nothing, if there is none."""
    try:
        return os.listdir(folder)
    except OSError:
        return []  # not made yet, or no folder


def _hash_file(path: Path) -> str:
    hasher = blake3()
    for chunk in _chunks(path):
        hasher.update(chunk)
    return "blake3:" + hasher.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        while chunk := os.read(fd, _CHUNK):
            yield chunk
    finally:
        os.close(fd)


def write(path: str, data: bytes | bytearray | memoryview | Iterator[bytes], *, durable: bool = False) -> None:
    """Write a new file of ours, whole, or leave nothing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            for piece in (data,) if isinstance(data, bytes | bytearray | memoryview) else data:
                view = memoryview(piece).cast("B")
                while len(view):
                    view = view[os.write(fd, view) :]
            if durable:
                fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        # Whatever ends it, an interrupt too: a part of a file must not lie about under a name of ours.
        with contextlib.suppress(OSError):  # the first error is the one to hear about
            os.unlink(path)
        raise


def write_new(folder: Path, name: str, data: bytes) -> None:
    """Write a file at its creation; another process that makes the same store may have come first."""
    temporary = folder / "tmp" / f"{name}-{secrets.token_hex(6)}"
    write(str(temporary), data, durable=True)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, folder / name)
    except OSError:
        with contextlib.suppress(FileExistsError):
            write(str(folder / name), data, durable=True)
    finally:
        os.unlink(temporary)


def replace_file(path: Path, parts: Iterable[bytes], *, durable: bool, mode: int | None = None) -> None:
    """Put bytes in a file's place at once: whoever looks finds the old ones or the new ones, never a part.

    Where we may, the owner of the file that was there is kept.

    Parameters
    ----------
    durable
        Sync before renaming, so that a power cut can not leave an empty file.
    mode
        The permissions it gets; without, those of the file that was there.
    """
    draft = _draft(path, os.getpid())
    try:
        found: os.stat_result | None = path.lstat()
    except FileNotFoundError:
        found = None
    if mode is None and found is not None:
        mode = stat.S_IMODE(found.st_mode)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(draft, flags, 0o666 if mode is None else 0o600)
    try:
        with open(descriptor, "wb") as file:
            mine = os.fstat(descriptor)
            if found is not None and (found.st_uid, found.st_gid) != (mine.st_uid, mine.st_gid):
                with contextlib.suppress(PermissionError):  # only root may give files away
                    os.fchown(descriptor, found.st_uid, found.st_gid)
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.writelines(parts)
            if durable:
                file.flush()
                os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        # Whatever ends it, an interrupt too: no draft of a writer that lives may lie beside the user's files.
        with contextlib.suppress(OSError):  # the first error is the one to hear about
            draft.unlink()
        raise


def sweep_drafts(path: Path) -> None:
    """Remove drafts of this file whose writer was killed while writing."""
    import glob

    for draft in path.parent.glob(f".{glob.escape(path.name[:200])}.*.draft"):
        pid = draft.name.rsplit(".", 2)[-2]
        if pid.isdecimal() and int(pid) != os.getpid() and not _lives(int(pid)):
            with contextlib.suppress(OSError):  # somebody else was quicker
                draft.unlink()


def _draft(path: Path, pid: int) -> Path:
    return path.with_name(f".{path.name[:200]}.{pid}.draft")


def _host() -> str:
    return blake3(os.uname().nodename.encode()).hexdigest()[:8]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's, or no process's number: whoever put it there is not ours to clean up after
    return True
