"""Sees which files and sources a cell reads and writes, without being seen.

Thin wrappers stand on ``open``, on what moves and removes files, on the readers and writers that open files in C++ or
Rust, and on what asks databases and services. They report to the `Trace` of the cell that runs (`tracing`); nothing is
read then. When the cell ends, each file gets the digest of its bytes (`versions`), from memory where it did not change.
The wrappers themselves and how they stay unnoticed: `wrapping`; on what they stand: `files`, `sources`.

What is not seen: a file that a subprocess touches (a gap says that there was one), a file handle kept open by an
earlier cell and read on, extension modules that open files by themselves and are not in the tables. Some are classes
made in C that nothing can be put on: a variable of such a class is a gap of the cells that use it (`Access.unseen`). A
connection that Python's ``socket.create_connection`` opens for a library that is not in the tables is a gap too; one
opened by the socket's own ``connect``, or in C, is not seen.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.access import files, looking, sources, tracing, wrapping
from jupyter_mlops.access.looking import Looks
from jupyter_mlops.access.tracing import Touched, Trace, muted
from jupyter_mlops.access.versions import Versions
from jupyter_mlops.fingerprints import Budget
from jupyter_mlops.records import DELETED, Artifact, Digest, Gap

__all__ = ["Access", "Looks", "Seen", "Settled", "Trace", "muted"]

_UNSEEN: Final = re.compile(r"pyarrow\.(?:_\w+\.|fs\.)?\w*FileSystem|netCDF4(?:\._netCDF4)?\.(?:MF)?Dataset")


class Seen(msgspec.Struct, frozen=True):
    """What a cell read and wrote.

    Attributes
    ----------
    files_read, files_written
        By name relative to the project; each with its digest or why there is none.
    sources
        Databases and services that were asked, each with its query.
    gaps
        What could not be known.
    pending
        Files whose digest is still being made in the background, and will come with `Access.settle`.
    """

    files_read: list[Artifact] = []
    files_written: list[Artifact] = []
    sources: list[Artifact] = []
    gaps: list[Gap] = []
    pending: int = 0
    looks: Looks | None = None
    """What it looked for, where that is asked (`Access.look`)."""


class Settled(msgspec.Struct, frozen=True):
    """Digests that have come since the cell ended."""

    cell_run: Digest | None
    files_read: list[Artifact] = []
    files_written: list[Artifact] = []
    gaps: list[Gap] = []


_users: Final[weakref.WeakSet[Access]] = weakref.WeakSet()


class Access:
    """What sees files and sources, one per kernel.

    Parameters
    ----------
    root
        The project's folder: names are relative to it.
    redact
        Masks the secrets in a text: queries go through it.
    exclude
        Files and folders that are never recorded.
    budget
        Seconds for the digest of a file that is about to be overwritten, and for that of a query's result.

    Examples
    --------
    >>> access = Access(Path("."), redact=lambda text: text)
    >>> trace = access.begin()
    >>> access.end(trace, budget=0.25).files_read
    []
    """

    def __init__(
        self, root: Path, *, redact: Callable[[str], str], exclude: Iterable[Path] = (), budget: float = 0.25
    ) -> None:
        self.versions = Versions(root, exclude, budget)
        self.redact = redact
        self._open: dict[str, list[weakref.ref[Any]]] = {}
        self._lock = threading.Lock()
        self._looks = False

    def look(self) -> None:
        """See from now on also what cells look for: files that may be there, folders, variables of the process.

        For who has the wrappers on (`install`).
        """
        self._looks = True
        looking.wire()

    def install(self) -> None:
        """Put the wrappers on; a second call does nothing."""
        if self not in _users:
            if not _users:
                files.wire()
                sources.wire()
                wrapping.put_on()
            _users.add(self)

    def remove(self) -> None:
        """Take the wrappers off: every original object is back in its place. Ends the background work."""
        self.versions.close()
        if self in _users:
            _users.discard(self)
            if not _users:
                wrapping.take_off()

    @property
    def problems(self) -> list[BaseException]:
        """Errors of our own that were kept from the user, oldest first."""
        return tracing.problems

    def begin(self, cell_run: Digest | None = None) -> Trace:
        """A cell starts: what its context and its threads touch from now on is its own.

        Parameters
        ----------
        cell_run
            What `settle` will name it by; it can be set on the trace later as well.
        """
        trace = Trace(self.versions, cell_run)
        if self._looks:
            trace.looks = Looks()
        self.versions.busy()
        trace.outer = tracing.current.get()
        tracing.active.append(trace)
        tracing.current.set(trace)
        return trace

    def end(self, trace: Trace, *, budget: float) -> Seen:
        """The cell is over: digest what it touched.

        Parameters
        ----------
        budget
            Seconds; files that do not fit in are left to the background.
        """
        if not trace.running:
            return Seen()
        trace.settle_paths()
        trace.running = False
        if trace in tracing.active:
            tracing.active.remove(trace)
        if trace.files or trace.sources or trace.gaps or self._open:
            with muted():
                seen = self._seen(trace, Budget(budget))
        else:
            seen = Seen()
        if trace.looks is not None:
            seen = msgspec.structs.replace(seen, looks=trace.looks)
        outer = trace.outer
        tracing.current.set(outer if outer is not None and outer.running else None)
        self.versions.idle()
        return seen

    def settle(self) -> list[Settled]:
        """The digests made in the background since the last call."""
        found: dict[Digest | None, Settled] = {}
        for cell_run, role, artifacts, gaps in self.versions.settled():
            one = found.setdefault(cell_run, Settled(cell_run, [], [], []))
            (one.files_written if role == "written" else one.files_read).extend(artifacts)
            one.gaps.extend(gaps)
        return list(found.values())

    def unseen(self, variables: Iterable[Artifact]) -> list[Gap]:
        """The gaps that variables leave through which files and sources are reached unseen."""
        return [
            Gap(subject=one.name, reason=f"what is read and written through a {one.type} is not seen", blocks=True)
            for one in variables
            if one.type and _UNSEEN.fullmatch(one.type)
        ]

    @property
    def pending(self) -> int:
        """Digests that are still to come, or to be taken with `settle`."""
        return self.versions.pending

    # -- the end of a cell --------------------------------------------------------------------------------------

    def _seen(self, trace: Trace, budget: Budget) -> Seen:
        seen = Seen([], [], [], [], 0)
        pending = 0
        written = self._still_open(trace)
        for path, touched in sorted(trace.files.items()):
            if touched.before is not None:
                seen.files_read.append(touched.before)
            elif touched.read and not touched.written:
                pending += self._read(trace, path, seen, budget)
            if touched.written:
                pending += self._written(trace, path, touched, seen, budget, is_open=path in written)
        seen.sources.extend(
            Artifact(
                name=address, kind="source", query=self.redact(query) if query else "", digest=asked.digest,
                size=asked.size, type=asked.type, why="" if asked.digest else asked.why,
            )
            for (address, query), asked in trace.sources.items()
        )  # fmt: skip
        seen.gaps.extend(trace.gaps.values())
        return Seen(seen.files_read, seen.files_written, seen.sources, seen.gaps, pending)

    def _read(self, trace: Trace, path: str, seen: Seen, budget: Budget) -> int:
        name = self.versions.name(path) or path
        try:
            found = os.stat(path)
        except OSError:  # it was there when it was opened
            trace.gap(name, "it was read, and was gone when the cell ended", blocks=True)
            seen.files_read.append(Artifact(name=name, kind="file", why="gone before it could be hashed"))
            return 0
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            seen.files_read.append(Artifact(name=name, kind="file", why="no regular file"))
            return 0
        if found.st_ctime_ns > trace.started and stat.S_ISREG(found.st_mode):
            trace.gap(name, "it was changed while the cell ran, and not by what was seen: its digest is of the end")
        made = self.versions.version(path, budget, found)
        seen.files_read.append(made)
        return self._perhaps_later(trace, "read", path, made, found)

    def _written(self, trace: Trace, path: str, touched: Touched, seen: Seen, budget: Budget, *, is_open: bool) -> int:
        name = self.versions.name(path) or path
        try:
            found = os.stat(path)
        except OSError:  # deleted, moved away, or never made
            if touched.existed:
                seen.files_written.append(Artifact(name=name, kind="file", why=DELETED))
            return 0
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            return 0
        if is_open:
            why = "still open for writing when the cell ended"
            seen.files_written.append(Artifact(name=name, kind="file", size=found.st_size, why=why))
            return 0
        made = self.versions.version(path, budget, found)
        seen.files_written.append(made)
        return self._perhaps_later(trace, "written", path, made, found)

    def _perhaps_later(self, trace: Trace, role: str, path: str, made: Artifact, found: os.stat_result) -> int:
        if made.digest is not None or "budget" not in made.why:
            return 0
        self.versions.later(trace.cell_run, role, path, found)
        return 1

    def _still_open(self, trace: Trace) -> set[str]:
        """The files that are open for writing; what an earlier cell left open and is closed now was written here."""
        now: set[str] = set()
        with self._lock:
            for path, handles in list(self._open.items()):
                if not any(_is_open(handle) for handle in handles):
                    del self._open[path]
                    trace.wrote(path)
            for path, touched in trace.files.items():
                if any(_is_open(handle) for handle in touched.handles):
                    self._open[path] = touched.handles
                    now.add(path)
        return now


def _is_open(handle: weakref.ref[Any]) -> bool:
    file = handle()
    return file is not None and not file.closed
