"""IPython's two events turned into cell runs.

``pre_run_cell`` and ``post_run_cell`` come in pairs, except where they do not: the cell that loads us and an empty cell
give only the second; nested ``run_cell`` nests the pairs; subshells interleave them from different threads; a cell that
is cancelled may end with no result at all. So an open cell is kept under the identity of the ``info`` object, which is
the same one in both.

Each hook has one outermost guard that catches everything: what leaks out of these callbacks prints the user's source,
hangs the cell or kills the kernel. While a hook works, an interrupt is held back, so that it neither tears a line of
ours nor gets lost: it is handed to the user's code as soon as that runs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` takes 20 µs a cell to make enumerations of its numbers
import _thread
import contextlib
import os
import re
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from jupyter_mlops.capture.displays import Displays
from jupyter_mlops.capture.live import Live
from jupyter_mlops.capture.randomness import Generators
from jupyter_mlops.capture.run import CELL, Directions, Session
from jupyter_mlops.lineage import NOTHING, CellNames, names_in
from jupyter_mlops.records import Artifact, CellEnded, CellStarted, Digest, Gap, Ticket, now

_LOADING: Final = re.compile(r"\s*%(?:re)?load_ext\s+jupyter_mlops\s*")  # a cell that does nothing else
_SIGINT: Final = int(signal.SIGINT)
_INTERRUPTED: Final = ("KeyboardInterrupt", "CancelledError")
_MOST_FILES: Final = 50  # files of one cell whose makers are looked up
_MOST_BEGUN: Final = 1000  # cells of whose end nothing may be known
_LOOK_UP: Final = 0.02  # seconds that looking up who made the files may hold up a cell


class Open:
    """A cell that has started and not ended."""

    __slots__ = (
        "before", "began", "beside", "digest", "gaps", "info", "late", "looks", "names", "outer", "overhead",
        "recorded", "request", "said", "thread", "trace",
    )  # fmt: skip

    def __init__(self, info: Any, thread: int) -> None:
        self.info = info
        self.thread = thread
        self.digest: Digest | None = None
        self.outer: Open | None = None
        self.names: CellNames = NOTHING
        self.before: Any = None
        self.trace: Any = None
        self.looks: Any = None
        self.request = ""
        self.gaps: list[Gap] = []
        self.late = False
        self.said: tuple[CellStarted, str] | None = None  # for pages that look on: what was written, and when
        self.recorded = True  # more than that it ran
        self.beside = False
        self.began = 0.0
        self.overhead = 0.0


class Hooks:
    """What is registered with one shell.

    Parameters
    ----------
    shell
        IPython's shell.
    session
        The session that is fed.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self.shell = shell
        self.session = session
        self.displays = Displays(shell, session.failed)
        self.live = Live(session)
        self.generators: Generators | None = None
        self._pid = os.getpid()
        self._open: dict[int, Open] = {}
        self._lock = threading.RLock()
        self._made: dict[Digest, Digest] = {}
        self._asked: dict[Digest, Digest | None] = {}
        self._told_terminal = False
        self._begun: set[int] = set()  # cells whose code may be running, recorded or not
        self._events = getattr(type(shell.events).trigger, "__code__", None)
        session.shell = shell

    # -- on and off --------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Register both hooks; the cell that is running now, if any, is the first."""
        running = _running_cell()
        if running is not None and not getattr(running, "silent", False):
            one = Open(running, threading.get_ident())
            one.late = True
            one.began = time.perf_counter()
            self._open[id(running)] = one
        self.shell.events.register("pre_run_cell", self.pre_run_cell)
        self.shell.events.register("post_run_cell", self.post_run_cell)
        self.displays.install()
        self.live.install(self.shell)

    def remove(self) -> None:
        """Unregister everything; the cell that is running now is not recorded to its end."""
        for name, function in (("pre_run_cell", self.pre_run_cell), ("post_run_cell", self.post_run_cell)):
            with contextlib.suppress(ValueError):  # somebody cleared the shell's callbacks: that is what is wanted
                self.shell.events.unregister(name, function)
        self.displays.remove()
        self.live.remove()

    # -- the two events ----------------------------------------------------------------------------------------------

    def pre_run_cell(self, info: Any) -> None:
        """A cell is about to run."""
        if os.getpid() != self._pid:
            return
        began, key = time.perf_counter(), id(info)
        if len(self._begun) > _MOST_BEGUN:
            self._begun.clear()
        self._begun.add(key)
        with _InterruptsHeld(lambda: key in self._begun, self._events), _Guard(self.session, "pre_run_cell"):
            if not self.session.recording:
                self.session.missed += 1
                self.live.missed()
                return
            with self._lock:
                self._start(info, began)

    def post_run_cell(self, result: Any) -> None:
        """A cell has run."""
        if os.getpid() != self._pid:
            return
        began = time.perf_counter()
        if result is None:
            self._begun.clear()  # broken off: it is not said which
        else:
            self._begun.discard(id(getattr(result, "info", None)))
        with _InterruptsHeld(None, None), _Guard(self.session, "post_run_cell"), self._lock:
            one = self._take(result)
            if one is not None:
                for inner in self._left_in(one):
                    self._end(inner, None, began)
                self._end(one, result, began)

    def _probe(self, step: str) -> None:
        if self.session.probe is not None:
            self.session.probe(step)

    # -- start -------------------------------------------------------------------------------------------------------

    def _start(self, info: Any, began: float) -> None:
        self._probe("pre")
        session = self.session
        session.open()
        if session.checkpoints is not None:
            # in a headless run nobody waits at the keyboard: there a cell begins when all is kept
            session.checkpoints.settle(None if session.project.headless else session.seconds)
        session.settle()
        one = Open(info, threading.get_ident())
        if self._open:
            one.outer = self._outer(one)
            self._beside(one)
        self._ready()
        self._write_start(one)
        self._open[id(info)] = one
        if not one.recorded:
            one.began = time.perf_counter()
            return
        try:
            source = getattr(info, "transformed_cell", None) or self._transformed(info)
            one.names = names_in(source)
            self._probe("names")
            one.before = session.namespace.before(source, one.names)
            one.trace = session.access.begin(one.digest)
        except BaseException as error:  # noqa: BLE001 - the cell is on record: its reads and writes become a gap
            one.gaps.append(Gap(subject="variables and files", reason="recording failed before the cell", blocks=True))
            session.failed("pre_run_cell", error)
        now = time.perf_counter()
        one.overhead += now - began
        one.began = now

    def _outer(self, one: Open) -> Open | None:
        """The cell in which a cell runs: tasks carry its name with them, and what else nests is on the same thread."""
        own = CELL.get()
        if own is not None:
            return next((other for other in self._open.values() if other.digest == own), None)
        return next((other for other in reversed(self._open.values()) if other.thread == one.thread), None)

    def _beside(self, one: Open) -> None:
        """Note of a cell, and of those it does not run in, that they run at the same time.

        It is noted as the later one begins, so both say it, whichever ends first. Of what no hook is told of (silent
        requests, cells while recording is off) nothing can be said.
        """
        around, outer = [], one.outer
        while outer is not None:
            around.append(outer)
            outer = outer.outer
        for other in self._open.values():
            if other not in around:
                other.beside = one.beside = True

    def _ready(self) -> None:
        if self.generators is None:
            self.generators = self.session.generators = Generators()
        if self.displays.redactor is None:
            self.displays.redactor = self.session.redactor
            self.displays.store = self.session.store
            project = self.session.project
            self.displays.keep = project.headless or project.settings.keep_displays

    def _write_start(self, one: Open) -> None:
        session = self.session
        session.surroundings.refresh()
        missing = session.surroundings.missing
        if session.missed and one.outer is None:
            reason = f"{session.missed} cells before this one were not recorded"
            one.gaps.append(Gap(subject="session", reason=reason, blocks=True))
            session.missed = 0
        source, masked = session.redactor.text(_source(one.info))
        notebook, cell = self._place(one.info)
        outer = one.outer.digest if one.outer is not None else None
        said = self._directions(one)
        label, tickets = self._said(said)
        if not one.recorded:
            source, masked, missing = "", 0, False
        elif said.unreadable:
            source, masked = session.redactor.text(_source(one.info).lstrip().partition("\n")[0])
            one.gaps.append(Gap(subject="cell", reason="its first line could not be read: the rest is not recorded"))
        started = CellStarted(
            run=session.run, environment=session.surroundings.environment if one.recorded else None,
            code=session.surroundings.code if one.recorded else None, parent=outer, count=_count(self.shell),
            redacted=masked, cell=cell, notebook=notebook, source=source, label=label, tickets=tickets,
        )  # fmt: skip
        one.digest = session.store.append(started)
        if self.live.listened_to:
            one.said = started, now()
            self.live.began(one.digest, one.said[1], started)
        if missing:
            session.awaits_surroundings(one.digest)
        session.running.append(one.digest)
        CELL.set(one.digest)
        if self.displays.there and one.outer is None and one.recorded:
            one.request = self.displays.request()
            self.displays.begin(one.request)

    def _directions(self, one: Open) -> Directions:
        """What the cell says of itself; what runs inside a cell that is not recorded is not recorded either."""
        try:
            said = self.session.directions(_source(one.info)) or Directions()
        except Exception as error:  # noqa: BLE001 - not to know is not to record
            self.session.failed("directions", error)
            said = Directions(record=False)
        one.recorded = said.record and (one.outer is None or one.outer.recorded)
        if not one.recorded:
            one.gaps.append(Gap(subject="cell", reason="it was not recorded, as it asked", blocks=True))
        return said

    def _said(self, said: Directions) -> tuple[str, list[Ticket]]:
        if not said.name and not said.tickets:
            return "", []
        mask = self.session.redactor.text
        return mask(said.name)[0], [Ticket(id=mask(ticket)[0]) for ticket in said.tickets]

    def _place(self, info: Any) -> tuple[str, str]:
        """The notebook's path and the cell's id; VS Code gives both in one address."""
        cell = getattr(info, "cell_id", None)  # Colab's IPython has none
        cell = cell if type(cell) is str else ""
        if cell.startswith("vscode-notebook-cell:") and not self.session.told_notebook:
            address, _, fragment = cell.partition("#")
            path = unquote(address.partition(":")[2].partition("?")[0])
            path = "/" + path.lstrip("/") if path.startswith("/") else path
            return self.session.project.relative(path), fragment
        return self.session.notebook(), self.session.redactor.text(cell)[0] if cell else ""

    def _transformed(self, info: Any) -> str:
        try:
            return str(self.shell.transform_cell(_source(info)))  # IPython 8: the event does not carry it
        except Exception:  # noqa: BLE001 - not even the shell can read it: it will say so itself
            return _source(info)

    # -- end ---------------------------------------------------------------------------------------------------------

    def _take(self, result: Any) -> Open | None:
        """The open cell a result belongs to."""
        info = getattr(result, "info", None)
        one = self._open.pop(id(info), None) if info is not None else None
        if one is not None:
            return one
        thread, source = threading.get_ident(), _source(info)
        # A cell that was broken off is given a new `info`, or none: it is the innermost of this thread.
        for key, other in reversed(list(self._open.items())):
            if other.thread == thread and (result is None or (source and _source(other.info) == source)):
                return self._open.pop(key)
        return None

    def _left_in(self, one: Open) -> list[Open]:
        """The cells inside one that is over, of whose end the shell said nothing (``run_cell_async``); inmost first."""
        left: list[Open] = []
        for key, other in list(self._open.items()):
            if other.outer is one or other.outer in left:
                del self._open[key]
                other.gaps.append(Gap(subject="cell", reason="the shell did not say how it ended"))
                left.insert(0, other)
        return left

    def _end(self, one: Open, result: Any, began: float) -> None:
        session = self.session
        ended = began
        if one.late:
            session.open()
            self._ready()
            self._write_start(one)
            more = not _LOADING.fullmatch(_source(one.info))
            one.gaps.append(Gap(subject="session", reason="recording began inside this cell", blocks=more))
        assert one.digest is not None
        displays, gaps, published = self.displays.end(one.request) if one.request else ([], [], "")
        one.gaps += gaps
        status, error, line = self._outcome(result, published)
        what: dict[str, Any] = {}
        try:
            self._probe("post")
            if one.recorded:
                what = self._observed(one, status, line)
            else:
                error = ""
        except BaseException as failure:  # noqa: BLE001 - the end is written without: it says what is missing
            one.gaps.append(Gap(subject="variables and files", reason="recording failed after the cell", blocks=True))
            session.failed("post_run_cell", failure)
        finally:
            if one.digest in session.running:
                session.running.remove(one.digest)
            CELL.set(one.outer.digest if one.outer is not None else None)
        if not self.displays.there and one.recorded and not self._told_terminal:
            self._told_terminal = True
            one.gaps.append(Gap(subject="displays", reason="outputs are not seen in a terminal"))
        gaps = one.gaps + what.pop("gaps", [])
        record = CellEnded(
            cell_run=one.digest, status=status, seconds=round(max(0.0, ended - one.began), 6), displays=displays,
            overhead=round(one.overhead + time.perf_counter() - began, 6), error=error, failed_line=line, gaps=gaps,
            **what,
        )  # fmt: skip
        session.write(record)
        if one.said is not None:
            self.live.ended(one.digest, one.said[1], one.said[0], record)
        if session.recall is not None and one.outer is None:
            session.recall.ran(one.digest, record, one.looks)
        session.namespace.idle()
        if session.checkpoints is not None:
            session.checkpoints.after(one.digest)

    def _observed(self, one: Open, status: str, line: int) -> dict[str, Any]:
        session = self.session
        assert one.digest is not None
        assert self.generators is not None
        budget = session.seconds
        began = time.perf_counter()
        delta = session.namespace.after(
            one.before, one.digest, failed=status != "done", line=line, beside=one.beside
        )  # fmt: skip
        left = max(0.0, budget - (time.perf_counter() - began))
        seen = session.access.end(one.trace, budget=left) if one.trace is not None else None
        for data in delta.facts.values():
            session.store.put(data)
        what: dict[str, Any] = {
            "inputs": delta.inputs, "outputs": delta.outputs, "removed": delta.removed,
            "gaps": list(delta.gaps),
            "randomness": self.generators.moved(one.names),
        }  # fmt: skip
        after = dict.fromkeys(delta.after)
        if seen is not None:
            one.looks = seen.looks
            if session.looked is not None and seen.looks is not None:
                session.looked[one.digest] = seen.looks
            read = self.with_makers(seen.files_read, one.digest)
            after.update(dict.fromkeys(file.made for file in read if file.made is not None))
            self.wrote(seen.files_written, one.digest)
            what |= {"files_read": read, "files_written": seen.files_written, "sources": seen.sources}
            used = {artifact.name: artifact for artifact in (*delta.inputs, *delta.outputs)}
            what["gaps"] += [*seen.gaps, *session.access.unseen(used.values())]
        after.pop(one.digest, None)
        what["after"] = list(after)
        try:
            what["modules"] = session.surroundings.modules()
            what["imported"] = session.surroundings.imported()
        except Exception as error:  # noqa: BLE001 - the cell is recorded without them, and says so
            what["gaps"].append(Gap(subject="modules", reason="local modules could not be read"))
            session.failed("modules", error)
        return what

    def wrote(self, files: list[Artifact], own: Digest) -> None:
        """Remember which cell run wrote these contents."""
        for file in files:
            if file.digest is not None:
                self._made[file.digest] = own

    def with_makers(self, files: list[Artifact], own: Digest) -> list[Artifact]:
        """Files read, each with the cell run that wrote this content, where one did."""
        import msgspec

        if not files:
            return files
        deadline = time.perf_counter() + _LOOK_UP
        found = []
        for number, file in enumerate(files):
            maker = self._made.get(file.digest) if file.digest is not None else None
            if maker is None and file.digest is not None and number < _MOST_FILES:
                maker = self._look_up(file.digest, deadline)
            if maker is not None and maker != own:
                file = msgspec.structs.replace(file, made=maker)
            found.append(file)
        return found

    def put_back(
        self, source: str, text: str, cell: str, bind: Callable[[Digest], CellEnded]
    ) -> tuple[Digest, CellEnded]:
        """Have a cell on record, and among what the shell remembers, that is not run.

        Parameters
        ----------
        source, text, cell
            Its text, that text as the shell transforms it, and its id in the notebook.
        bind
            Does what the cell would have done, given the cell run's name, and says what that is.
        """
        session, shell = self.session, self.shell
        with self._lock, _InterruptsHeld(None, None):
            shell.history_manager.store_inputs(shell.execution_count, text, source)
            shell.execution_count += 1
            one = Open(types.SimpleNamespace(raw_cell=source, cell_id=cell), threading.get_ident())
            self._ready()
            self._write_start(one)
            assert one.digest is not None
            try:
                if one.request:
                    self.displays.end(one.request)
                ended = bind(one.digest)
            finally:
                session.running.remove(one.digest)
                CELL.set(None)
            session.write(ended)
            return one.digest, ended

    def _look_up(self, digest: Digest, deadline: float) -> Digest | None:
        """Who wrote a content in another session; asked once per content, while there is time."""
        if digest not in self._asked and time.perf_counter() < deadline:
            makers = self.session.store.made_by(digest)
            self._asked[digest] = makers[0] if makers else None
        return self._asked.get(digest)

    def _outcome(self, result: Any, published: str) -> tuple[str, str, int]:
        """How a cell ended: its status, its error in words, and the line of its own that failed."""
        if result is None:
            return "interrupted", "", 0
        before = getattr(result, "error_before_exec", None)
        during = getattr(result, "error_in_exec", None)
        error = before if before is not None else during
        if error is None:
            return "done", "", 0
        name = type(error).__name__
        if name in _INTERRUPTED:
            status = "interrupted"
        else:
            status = "syntax" if before is not None and isinstance(before, SyntaxError) else "error"
        text = published if published.startswith(name) else _said(name, error)
        own, line = _lines_of(error, self.shell)
        text = self.session.redactor.text(text[:10_000])[0]
        return status, f"{text} (line {line})" if line else text, own if before is None else 0


def _source(info: Any) -> str:
    raw = getattr(info, "raw_cell", "")
    return raw if type(raw) is str else ""


def _count(shell: Any) -> int:
    count = getattr(shell, "execution_count", 0)
    return max(0, count - 1) if type(count) is int else 0


def _said(name: str, error: BaseException) -> str:
    """An error in words, without calling anything of the user's."""
    args = error.args if type(error).__module__ == "builtins" else ()
    if len(args) == 1 and type(args[0]) in (str, int, float):
        return f"{name}: {args[0]}"
    return name


def _lines_of(error: BaseException, shell: Any) -> tuple[int, int]:
    """The first and the last line of cells that an error passed through: where it left its own, where it arose."""
    first, line, trace = 0, 0, error.__traceback__
    names = getattr(getattr(shell, "compile", None), "_filename_map", {})
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in names or file.startswith("<ipython-input"):
            line = trace.tb_lineno
            first = first or line
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno if type(error.lineno) is int else 0
    return first, line


def _running_cell() -> Any:
    """The ``info`` of the cell whose code is being executed on this thread, or None."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "run_cell_async" and "info" in frame.f_code.co_varnames:
            return frame.f_locals.get("info")
        frame = frame.f_back
    return None


class _Guard:
    """The one guard of a hook: nothing of ours may reach IPython."""

    __slots__ = ("session", "where")

    def __init__(self, session: Session, where: str) -> None:
        self.session = session
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is not None:
            self.session.failed(self.where, error)
        return True


class _InterruptsHeld:
    """Holds an interrupt back while a hook works, then passes it on to the code that runs.

    Parameters
    ----------
    runs_on
        Whether user code goes on after the hook, and still does a moment later; None where there is none.
    caller
        The code that calls the hook, in which an interrupt would be printed and dropped.
    """

    __slots__ = ("before", "caller", "held", "runs_on")

    def __init__(self, runs_on: Callable[[], bool] | None, caller: types.CodeType | None) -> None:
        self.runs_on = runs_on
        self.caller = caller
        self.before: Any = None
        self.held: list[int] = []

    def __enter__(self) -> None:
        if _thread.get_ident() != threading.main_thread().ident:
            return
        before = _signal.getsignal(_SIGINT)
        if type(before) is _Again:  # the cell was over before it came through
            before = before.handler
        if callable(before):  # otherwise it is ignored, or not Python's: nothing would be raised anyway
            held = self.held
            _signal.signal(_SIGINT, lambda number, _: held.append(number))
            self.before = before

    def __exit__(self, *_: object) -> None:
        before = self.before
        if before is None:
            return
        if self.held and self.runs_on is not None:
            again = _Again(before)
            _signal.signal(_SIGINT, again)
            threading.Thread(
                target=_pass_on, args=(again, self.runs_on, self.caller), name="mlops-interrupt", daemon=True
            ).start()
        else:
            _signal.signal(_SIGINT, before)


class _Again:
    """Stands in for the handler until an interrupt that was held back has come through to it."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: Any) -> None:
        if _signal.getsignal(_SIGINT) is self:
            _signal.signal(_SIGINT, self.handler)
        try:
            self.handler(number, frame)
        except BaseException as error:
            error.__traceback__ = None  # without our frame
            raise


def _pass_on(again: _Again, runs_on: Callable[[], bool], caller: types.CodeType | None) -> None:
    """Send an interrupt again, once the hook's caller is left: a real one, for only that ends a sleep or a wait.

    One that comes while the main thread goes to sleep is noted and wakes nobody: so it is sent until it came through.
    """
    main = threading.main_thread().ident
    assert main is not None
    while True:
        time.sleep(0.002)
        if not runs_on() or _signal.getsignal(_SIGINT) is not again:
            return
        if _is_in(caller, main):
            continue
        if hasattr(_signal, "pthread_kill"):
            _signal.pthread_kill(main, _SIGINT)
        else:
            _thread.interrupt_main()


def _is_in(code: types.CodeType | None, thread: int) -> bool:
    """Whether a thread is in a call of a function."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
