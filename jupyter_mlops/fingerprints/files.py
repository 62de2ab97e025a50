"""Files and folders by their bytes.

A file is read, never mapped: a mapped file that somebody truncates kills the process. It is looked at by its
descriptor before and after; one that changed meanwhile has no digest. Only regular files on a disk have content that
stays: pipes, devices, sockets and what the system invents under ``/proc`` do not.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from jupyter_mlops.fingerprints.walk import Budget, NoFingerprint
from jupyter_mlops.records import Digest

if TYPE_CHECKING:
    from jupyter_mlops.fingerprints import Fingerprint

_READ: Final = 1 << 18
_TICK: Final = 20_000_000  # ns: two of the slowest kernel's (100 Hz)
_COARSE_TICK: Final = 2_000_000_000  # ns: FAT's, for times that are whole seconds
_INVENTED: Final = ("/proc/", "/sys/", "/dev/")
Signature = tuple[int, int, int, int, int]
Memo = MutableMapping[str, tuple[tuple[int, ...], Digest]]
"""What is known of files: path → (device, inode, size, mtime and ctime in ns), digest."""


def file_digest(path: Path | str | int, *, budget: Budget | None = None) -> Fingerprint:
    """The BLAKE3 of a file's bytes.

    Parameters
    ----------
    path
        A path, or a descriptor open for reading (its offset is left where it is).
    budget
        What it may cost.

    Returns
    -------
    Fingerprint
        ``blake3:…``, or None and why: it is missing, no regular file, or it changed while it was read.
    """
    from jupyter_mlops.fingerprints import Fingerprint

    try:
        digest, size, _ = _digest(path, budget or Budget())
    except NoFingerprint as stop:
        return Fingerprint(None, 0, "file", None, stop.why())
    except OSError as error:
        return Fingerprint(None, 0, "file", None, _reason(error))
    return Fingerprint(digest, size, "file")


def signature(found: os.stat_result) -> Signature:
    """What a file's content can hardly change without: device, inode, size, times of change."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def racy(found: Signature, at: int) -> bool:
    """Whether a file could have changed after it was read at that time (ns), without its signature showing it."""
    changed = max(found[3], found[4])
    tick = _COARSE_TICK if found[3] % 1_000_000_000 == 0 else _TICK
    return changed + tick >= at


def _digest(path: Path | str | int, budget: Budget) -> tuple[Digest, int, tuple[int, ...]]:
    own = not isinstance(path, int)
    if not isinstance(path, int):
        spelled = os.path.realpath(path)
        if spelled.startswith(_INVENTED):
            raise NoFingerprint("the system invents this file's content")
        # a pipe without a writer must not hold us up, a link that is swapped in must not lead away
        fd = os.open(spelled, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0))
    else:
        fd = path
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise NoFingerprint(f"no regular file but a {_kind(before.st_mode)}")
        hasher = blake3(max_threads=budget.threads)
        buffer = memoryview(bytearray(min(_READ, before.st_size + 1)))
        offset = 0
        while True:
            got = os.preadv(fd, [buffer], offset)
            if not got:
                break
            offset += got
            budget.check(0, got)
            hasher.update(buffer[:got])
            if offset > before.st_size:
                raise NoFingerprint("it grew while it was read")
        after = os.fstat(fd)
        if signature(before) != signature(after) or offset != before.st_size:
            raise NoFingerprint("it changed while it was read")
        return Digest("blake3:" + hasher.hexdigest()), offset, signature(after)
    finally:
        if own:
            os.close(fd)


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
    ):  # fmt: skip
        if test(mode):
            return name
    return "special file"


def _reason(error: OSError) -> str:
    """The error without the path, which the record already names."""
    if error.errno == errno.ENOENT:
        return "it does not exist"
    return f"it cannot be read: {os.strerror(error.errno).lower()}" if error.errno else "it cannot be read"


def folder_digest(
    path: Path | str, *, budget: Budget | None = None, memo: Memo | None = None, skip: Any = None
) -> Fingerprint:
    """The digest of a folder: the names, kinds and contents of everything in it.

    A link counts by where it points, and is not followed. Times, owners and permissions do not count.

    Parameters
    ----------
    path
        The folder.
    budget
        What it may cost.
    memo
        Digests known from before, by path; a file whose signature is the one remembered is not read again. It is
        brought up to date. Files changed in the last moments are not put in, since they could change again without
        their times telling.
    skip
        A function of a name, true for entries to leave out.

    Returns
    -------
    Fingerprint
        ``folder-1:…``; None, with the first reason, if anything in it has no digest.
    """
    from jupyter_mlops.fingerprints import Fingerprint

    budget = budget or Budget()
    root = os.path.realpath(path)
    hasher = blake3(b"folder-1\0")
    size = files = 0
    try:
        for relative, line, length in _entries(root, budget, memo, skip):
            del relative
            hasher.update(line)
            size += length
            files += 1
    except NoFingerprint as stop:
        return Fingerprint(None, 0, "folder", None, stop.why())
    except OSError as error:
        return Fingerprint(None, 0, "folder", None, _reason(error))
    return Fingerprint(Digest("folder-1:" + hasher.hexdigest()), size, "folder", {"entries": files})


def _entries(root: str, budget: Budget, memo: Memo | None, skip: Any) -> Iterator[tuple[str, bytes, int]]:
    """Every entry below a folder, in the order of the names' bytes: relative name, line of the pre-image, size."""
    stack = [("", root)]
    while stack:
        prefix, folder = stack.pop()
        with os.scandir(folder) as found:
            entries = sorted(found, key=_raw_name)
        budget.check(len(entries))
        below = []
        for entry in entries:
            if skip is not None and skip(entry.name):
                continue
            name = prefix + entry.name
            raw = os.fsencode(name)
            if entry.is_file(follow_symlinks=False):
                # asked first and without a call in between: of ten thousand unchanged files this is all there is to do
                path = entry.path
                known = None if memo is None else memo.get(path)
                if known is not None:
                    now = entry.stat(follow_symlinks=False)
                    if known[0] == (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns):
                        yield name, b"f%d:%b%b" % (len(raw), raw, bytes.fromhex(known[1][7:])), now.st_size
                        continue
                try:
                    digest, length = _remembered(path, budget, memo)
                except NoFingerprint as stop:
                    stop.path.append(name)
                    raise
                yield name, b"f%d:%b%b" % (len(raw), raw, bytes.fromhex(digest[7:])), length
            elif entry.is_symlink():
                target = os.fsencode(os.readlink(entry.path))
                yield name, b"l%d:%b%d:%b" % (len(raw), raw, len(target), target), 0
            elif entry.is_dir(follow_symlinks=False):
                yield name, b"d%d:%b" % (len(raw), raw), 0
                below.append((name + "/", entry.path))
            else:
                refusal = NoFingerprint(f"no regular file but a {_kind(entry.stat(follow_symlinks=False).st_mode)}")
                refusal.path.append(name)
                raise refusal
        stack.extend(reversed(below))


def _raw_name(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _remembered(path: str, budget: Budget, memo: Memo | None) -> tuple[Digest, int]:
    """A file's digest, read now, and noted where no further change can hide."""
    digest, size, seen = _digest(path, budget)
    if memo is not None:
        if settled(seen):
            memo[path] = (seen, digest)
        else:
            memo.pop(path, None)
    return digest, size


def settled(seen: tuple[int, ...]) -> bool:
    """Whether a file's times lie far enough back that a further change would show in them.

    Times tick coarsely (2 s on the coarsest file system in use): a file changed twice within a tick looks unchanged.
    """
    import time

    return time.time_ns() - max(seen[3], seen[4]) > 2_100_000_000
