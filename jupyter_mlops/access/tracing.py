"""What one cell did, while it runs: the events that the wrappers report, and whose they are.

An event belongs to the trace found in the context variable: the cell's own code, its coroutines and the tasks it starts
carry it with them. A thread starts with an empty context: it belongs to the cell during which it was started. Whatever
else reports (a pool's thread older than the cell, a task that outlived its cell, a thread while several cells run) is
kept with every cell that was running, and a gap says so: an extra input is honest where a missing one is not.

Reporting must cost nothing that a user could notice: a path that was opened for reading goes into a dict as it was
given, and is looked at when the cell ends or before something is written.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.records import Artifact, Digest, Gap

if TYPE_CHECKING:
    from jupyter_mlops.access.looking import Looks
    from jupyter_mlops.access.versions import Versions

_LIMIT: Final = 100_000
"""Distinct paths, and distinct questions, kept of one cell; more become one gap."""
_CLOCK: Final = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)

active: Final[list[Trace]] = []
"""The traces of the cells that run now. Its length is what switches the wrappers on."""
current: Final[ContextVar[Trace | None]] = ContextVar("jupyter_mlops_trace", default=None)
OURS: Final = ("mlops-", "jupyter-mlops")
"""How the names of this package's own threads begin: what they touch, no cell touches."""

problems: Final[list[BaseException]] = []
"""Errors of our own that were kept from users; the newest twenty."""


def problem(error: BaseException) -> bool:
    """Keep an error of our own for whoever asks for it; True where it is none, but the user's interrupt.

    An interrupt is raised wherever the main thread is, in our code as well: it has to go on from there, and looks as
    if it had come in what is wrapped.
    """
    if type(error) is KeyboardInterrupt:
        error.__traceback__ = None
        return True
    problems.append(error)
    del problems[:-20]
    return False


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Do something of our own that no cell did."""
    token = current.set(MUTED)
    try:
        yield
    finally:
        current.reset(token)


def traces() -> tuple[Trace, ...]:
    """The traces an event in this thread and context belongs to."""
    trace = current.get()
    if trace is not None and (trace.running or trace is MUTED):
        return (trace,) if trace.running else ()
    return _unclear(outlived=trace is not None)


def _unclear(*, outlived: bool) -> tuple[Trace, ...]:
    running = tuple(active)
    if not running or outlived:
        for trace in running:
            trace.gap("background work", "a task of an earlier cell touched files or sources while this one ran")
        return running
    here = threading._active.get(get_ident())  # type: ignore[attr-defined]  # current_thread() would make a dummy
    if here is not None and here.name.startswith(OURS):
        return ()
    young = tuple(trace for trace in running if here is not None and here not in trace.threads)
    if len(young) == 1:
        return young
    if young:
        for trace in young:
            trace.gap("threads", "a thread touched files or sources while several cells ran: it is kept with each")
        return young
    if here is threading.main_thread() and len(running) == 1:
        return running  # a context of its own, as a callback of the event loop has
    for trace in running:
        trace.gap("threads", "a thread older than this cell touched files or sources while it ran")
    return running


class Touched:
    """A file that a cell touched.

    Attributes
    ----------
    read
        Its content from before the cell was read.
    written
        It was opened for writing, or moved here.
    existed
        Whether it was there before the cell first wrote it.
    before
        Its version from before it was written, where that was read.
    handles
        Weak references to the files that were opened for writing.
    """

    __slots__ = ("before", "existed", "handles", "read", "written")

    def __init__(self) -> None:
        self.read = False
        self.written = False
        self.existed: bool | None = None
        self.before: Artifact | None = None
        self.handles: list[weakref.ref[Any]] = []


class Asked:
    """A question to a source, and what is known of the answer."""

    __slots__ = ("digest", "size", "type", "why")

    def __init__(self, why: str, type_: str = "") -> None:
        self.digest: Digest | None = None
        self.size: int | None = None
        self.type = type_
        self.why = why


class Trace:
    """The events of one cell run. Made by `Access.begin`."""

    def __init__(self, versions: Versions | None, cell_run: Digest | None = None) -> None:
        self.versions = versions
        self.cell_run = cell_run
        self.outer: Trace | None = None
        self.running = versions is not None
        self.started = time.clock_gettime_ns(_CLOCK) if self.running else 0
        self.threads: frozenset[Any] = frozenset(threading._active.values()) if self.running else frozenset()  # type: ignore[attr-defined]
        self.raw: dict[Any, None] = {}
        self.files: dict[str, Touched] = {}
        self.sources: dict[tuple[str, str], Asked] = {}
        self.gaps: dict[tuple[str, str], Gap] = {}
        self.looks: Looks | None = None
        """What it looked for, where that is asked."""
        self.lock = threading.RLock()

    # -- what is reported ---------------------------------------------------------------------------------------

    def gap(self, subject: str, reason: str, *, blocks: bool = False) -> None:
        """Say, once, that something can not be known."""
        if len(self.gaps) < _LIMIT and (subject, reason) not in self.gaps:
            self.gaps[subject, reason] = Gap(subject=subject, reason=reason, blocks=blocks)

    def settle_paths(self) -> None:
        """Resolve the paths as they were given; before the working directory or a file changes."""
        if not self.raw:
            return
        with self.lock:
            given, self.raw = self.raw, {}
            for path in given:
                if not isinstance(path, str):
                    path = os.fsdecode(path)
                touched = self.touched(os.path.abspath(path))
                if touched is not None and not touched.written:
                    touched.read = True

    def touched(self, path: str) -> Touched | None:
        """The entry of an absolute path; None for what is never recorded."""
        found = self.files.get(path)
        if found is None and self.versions is not None and self.versions.name(path) is not None:
            if len(self.files) >= _LIMIT:
                self.gap("files", f"more than {_LIMIT:,} files were touched: the rest are not recorded", blocks=True)
                return None
            found = self.files[path] = Touched()
        return found

    def read(self, path: str) -> None:
        """A file or folder was given to a reader."""
        self.settle_paths()
        with self.lock:
            touched = self.touched(os.path.abspath(path))
            if touched is not None and not touched.written:
                touched.read = True

    def before_writing(self, path: str, *, keeps: bool, new: bool = False) -> Touched | None:
        """A file is about to be written: the last moment at which its earlier bytes can be had.

        Parameters
        ----------
        path
            The file.
        keeps
            Whether what is in it stays (``a``, ``r+``): then the earlier bytes, or that there are none, are an input of
            what it becomes.
        new
            Whether it must not be there (``x``): then whether it is is an input.
        """
        self.settle_paths()
        with self.lock:
            path = os.path.abspath(path)
            touched = self.touched(path)
            if touched is None or touched.written or self.versions is None:
                return touched
            try:
                found: os.stat_result | None = os.stat(path)
            except OSError:  # it is not there, or can not be seen: the call that follows will say so to the user
                found = None
            if touched.existed is None:
                touched.existed = found is not None
            if self.looks is not None and (new or (keeps and found is None)):
                from jupyter_mlops.access.looking import kind_of

                self.looks.kinds.setdefault(path, kind_of(path))
                self.looks.added[path] = None
            matters = touched.read or (keeps and found is not None and (found.st_size or self.looks is not None))
            if found is not None and stat.S_ISREG(found.st_mode) and matters:
                touched.before = self.versions.at_once(path, self)
                touched.read = True
            return touched

    def wrote(self, path: str, handle: object = None) -> None:
        """A file was opened for writing, or written by a library."""
        with self.lock:
            touched = self.touched(os.path.abspath(path))
            if touched is None and self.looks is not None and self.versions and self.versions.passed_over(path):
                self.looks.effects[f"it writes {os.path.basename(path)[:80]}, which is no file that is recorded"] = None
            if touched is not None:
                touched.written = True
                if handle is not None and len(touched.handles) < 16:
                    touched.handles.append(weakref.ref(handle))

    def moved(self, source: str, target: str) -> None:
        """A file or folder has a new name: what was written under the old one was written under the new."""
        source, target = os.path.abspath(source), os.path.abspath(target)
        with self.lock:
            for path in [path for path in self.files if path == source or path.startswith(source + os.sep)]:
                there = target + path[len(source) :]
                old, new = self.files.pop(path), self.touched(there)
                if old.existed is not False:
                    self._lost(path, old)
                if new is not None:
                    new.written = True
                    new.handles += old.handles
            new = self.touched(target)
            if new is not None:
                new.written = True

    def removed(self, path: str) -> None:
        """A file was deleted: no event where the cell had made it."""
        path = os.path.abspath(path)
        with self.lock:
            touched = self.files.get(path)
            if touched is not None and touched.written and touched.existed is False:
                if touched.before is None:
                    del self.files[path]
                return
            touched = self.touched(path)
            if touched is not None:
                touched.written = True

    def _lost(self, path: str, old: Touched) -> None:
        """A name from before the cell is gone; what was read under it is kept."""
        gone = self.files[path] = Touched()
        gone.read, gone.before, gone.existed, gone.written = old.read, old.before, True, True

    def asked(self, address: str, query: str, why: str, type_: str = "") -> Asked | None:
        """A source was asked something."""
        with self.lock:
            found = self.sources.get((address, query))
            if found is None:
                if len(self.sources) >= _LIMIT:
                    self.gap("sources", f"more than {_LIMIT:,} questions were asked: the rest are not recorded")
                    return None
                found = self.sources[address, query] = Asked(why, type_)
            return found


MUTED: Final = Trace(None)
"""Stands in the context while we do something ourselves."""


def _after_fork() -> None:
    for trace in active:
        trace.running = False
        trace.lock = threading.RLock()
    active.clear()


def _before_fork() -> None:
    if not active:
        return
    try:
        for trace in traces():
            trace.gap("processes", "the process forked: what the child touched is not seen")
    except BaseException as error:  # noqa: BLE001 - a fork of the user's must happen, whatever becomes of our note
        problem(error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
