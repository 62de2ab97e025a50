"""The target ``local``: each step in a process of its own on this machine, as many at a time as there are cores."""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Digest, RecordInvalid, decode, encode
from jupyter_mlops.targets import Provider, child, options
from jupyter_mlops.targets.child import PATIENCE, Order, Word, end_descendants
from jupyter_mlops.targets.protocol import TEMPLATE, Event, Handle, OnEvent, Outcome, Step, tell

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.targets.warm import Forked, Kernels, Template

_TICK: Final = 0.5
_READY: Final = 120.0
"""Seconds after which a template that is not ready is done without."""
_TAIL: Final = 8192
_OVERTIME: Final = 120.0
"""Seconds beyond a step's own limit after which its process is ended from outside."""


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be set for a local target.

    Attributes
    ----------
    workers
        How many steps run at a time; as many as there are cores unless given.
    kernels
        ``cold``: each kernel is started. ``warm``: it is forked from a process that has imported what the notebook
        does; where a fork is not safe, it is ``spare``: a process that has done so ahead, and is used once.
    """

    workers: int | None = None
    kernels: Literal["cold", "warm", "spare"] = "cold"

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= 1024:
            raise ValueError("workers is to be from 1 to 1024")


class LocalTarget:
    """Steps in processes of this machine.

    Parameters
    ----------
    name
        What it is called.
    slots
        How many steps run at a time.
    kernels
        ``cold``, ``warm`` or ``spare``; see `LocalOptions`.
    python
        The interpreter of the steps' processes, where it is not this one's.
    """

    def __init__(
        self, name: str = "local", slots: int | None = None, *, kernels: str = "cold", python: Path | None = None
    ) -> None:  # fmt: skip
        self.name = name
        self.python = str(python or sys.executable)
        self.slots = slots or cores()
        self._how = kernels
        self._kernels: Kernels | None = None
        self._lock = threading.Lock()
        self._waiting: collections.deque[_Task] = collections.deque()
        self._tasks: set[_Task] = set()
        self._threads = 0
        self._closed = False

    def __enter__(self) -> LocalTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, step: Step, project: Project, perform: str, on_event: OnEvent | None = None) -> Handle:
        """Have a step run as soon as a slot is free."""
        with self._lock:
            if self._closed:
                raise MlopsError(f"the target {self.name!r} is closed")
            if self._how != "cold" and self._kernels is None:
                from jupyter_mlops.targets.warm import Kernels

                self._kernels = Kernels(project.environ, self.slots, fork=self._how == "warm")
            task = _Task(step, project, perform, on_event, self._withdraw, self._kernels, self.python)
            self._tasks.add(task)
            self._waiting.append(task)
            if self._threads < self.slots:
                self._threads += 1
                # Daemons: where this process ends, the steps' processes hear of it by the end of their lifelines.
                threading.Thread(target=self._work, name=f"{self.name} target", daemon=True).start()
        return task.handle

    def close(self) -> None:
        """End what is under way."""
        with self._lock:
            self._closed = True
            tasks = list(self._tasks)
        for task in tasks:
            task.stop()
        for task in tasks:
            task.handle.future.result()
        if self._kernels is not None:
            self._kernels.close()

    def _withdraw(self, task: _Task) -> None:
        """Take a step that waits for its turn off the queue."""
        with self._lock:
            if task not in self._waiting:
                return
            self._waiting.remove(task)
            self._tasks.discard(task)
        task.finish(Outcome(status="interrupted", cause="it was ended before its turn came", attempts=0))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                task = self._waiting.popleft()
            try:
                outcome = task.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is to hear of it
                outcome = Outcome(status="lost", cause=f"{type(error).__name__}: {error}")
            with self._lock:
                self._tasks.discard(task)
            task.finish(outcome)


class _Task:
    """A step on its way through a local target."""

    def __init__(
        self, step: Step, project: Project, perform: str, on_event: OnEvent | None, withdraw: Any,
        kernels: Kernels | None, python: str,
    ) -> None:  # fmt: skip
        self.kernels, self.python = kernels, python
        self.step, self.project, self.perform, self.on_event = step, project, perform, on_event
        self.handle = Handle(step, self.stop)
        self._withdraw = withdraw
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._run: Digest | None = None
        self._ended = 0.0  # when it was told to end

    def stop(self) -> None:
        """Tell the step to end; those who listen to it see to it that it does."""
        with self._lock:
            if not self._ended:
                self._ended = time.monotonic()
            if self._process is not None:
                with contextlib.suppress(OSError):  # it is gone already
                    self._process.send_signal(signal.SIGTERM)
        self._withdraw(self)

    def finish(self, outcome: Outcome) -> None:
        tell(self.on_event, Event(kind="ended", step=self.step.name, attempt=outcome.attempts, run=outcome.run,
                                  text=outcome.status))  # fmt: skip
        self.handle.future.set_result(outcome)

    def run(self) -> Outcome:
        """Try until it is done, or there is no more try."""
        attempt = 1
        while True:
            outcome = self._attempt(attempt)
            if outcome.status not in ("failed", "lost") or attempt > self.step.retries or self._ended:
                return outcome
            again = f"attempt {attempt} of {self.step.retries + 1} {outcome.status}: {outcome.why}"
            tell(self.on_event, Event(kind="note", step=self.step.name, attempt=attempt, text=again))
            attempt += 1

    def _attempt(self, attempt: int) -> Outcome:
        template = self._template() if self.kernels is not None and not self._ended else ""
        began = time.monotonic()
        self._run = None
        order = Order(step=self.step, root=str(self.project.root), perform=self.perform, attempt=attempt)
        with self._lock:
            if self._ended:
                return Outcome(status="interrupted", cause="it was told to end", attempts=attempt - 1)
            try:
                self._process = process = _start(self.python, self.project, self.kernels, template)
            except OSError as error:
                return Outcome(status="lost", cause=f"no process could be started: {error}", attempts=attempt)
        with process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its last words tell why
                process.stdin.write(encode(order) + b"\n")
                process.stdin.flush()
            said, tail = self._listen(process, began)
            with self._lock:
                self._process = None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        seconds = round(time.monotonic() - began, 6)
        if said is not None:
            found = msgspec.structs.replace(said, run=said.run or self._run, attempts=attempt)
            # What was told to end has been interrupted, in whatever words the run's own end put it.
            return found if found.ok or not self._ended else msgspec.structs.replace(found, status="interrupted")
        status = "interrupted" if self._ended else "lost"
        cause = "it did not end in order, and was killed" if self._ended else _obituary(process.wait())
        last = self.project.redactor().text(tail.decode(errors="replace").strip()[-1000:])[0]
        return Outcome(
            status=status, run=self._run, output=self.step.output, seconds=seconds, attempts=attempt,
            kernel="", cause=cause + (f"; its last words: {last}" if last and not self._ended else ""),
        )  # fmt: skip

    def _template(self) -> str:
        """Where the kernel can be had; empty where it is to be started, which is then told of."""
        assert self.kernels is not None
        template, why = self.kernels.kernel(self.project.root / self.step.notebook, self.step.kernel)
        ready = template is not None and self._comes(template)
        if template is not None and not ready:
            why = template.trouble or "the process that it would be forked from is not ready in time"
        elif template is not None:
            why = "; ".join(f"{name}: {one}" for name, one in template.left_out.items())
        if why and not self._ended:
            what = "is warm but for what follows" if ready else "is started as usual"
            tell(self.on_event, Event(kind="note", step=self.step.name, text=f"the kernel {what}: {why}"))
        if self.kernels.steps is not None:
            self._comes(self.kernels.steps)
        return str(template.path) if template is not None and ready else ""

    def _comes(self, template: Template) -> bool:
        """Wait for a template, unless the step is told to end."""
        ends = time.monotonic() + _READY
        while not template.wait(_TICK) and not template.trouble and not self._ended and time.monotonic() < ends:
            pass
        return template.wait(0)

    def _listen(self, process: subprocess.Popen[bytes] | Forked, began: float) -> tuple[Outcome | None, bytes]:
        """Hear a process out to its end; its outcome, if it came to one, and the last it said otherwise."""
        assert process.stdout is not None
        assert process.stderr is not None
        limit = None if self.step.timeout is None else began + self.step.timeout + _OVERTIME
        outcome: Outcome | None = None
        rest, tail = b"", b""
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            listening = True
            while listening:
                heard = selector.select(_TICK)
                now = time.monotonic()
                if (limit is not None and now > limit) or (self._ended and now > self._ended + PATIENCE):
                    _kill(process)
                for key, _ in heard:
                    try:
                        data = os.read(key.fd, 1 << 16)
                    except BlockingIOError:
                        continue
                    if key.fileobj is process.stderr:
                        tail = (tail + data)[-_TAIL:]
                        if not data:
                            selector.unregister(process.stderr)
                        continue
                    listening = bool(data)
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        outcome = self._hear(line) or outcome
                if not heard and process.poll() is not None:
                    listening = False  # somebody it started holds the pipe
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
        return outcome, tail

    def _hear(self, line: bytes) -> Outcome | None:
        try:
            word = decode(line, Word)
        except RecordInvalid:
            return None  # half a line, of a process that died over it
        if word.event is not None:
            self._run = word.event.run or self._run
            tell(self.on_event, word.event)
        return word.outcome


def _start(
    python: str, project: Project, kernels: Kernels | None, template: str
) -> subprocess.Popen[bytes] | Forked:  # fmt: skip
    environ = dict(project.environ) | ({TEMPLATE: template} if template else {})
    if kernels is not None and kernels.steps is not None and kernels.steps.wait(0):
        from jupyter_mlops.targets.warm import Declined

        with contextlib.suppress(Declined):  # it is started as usual
            return _fork(kernels.steps, project, environ)
    # -P: what lies about in the project's folder is not to stand in for modules of ours.
    return subprocess.Popen(
        [python, "-P", "-m", "jupyter_mlops.targets.child"], cwd=project.root, env=environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def _fork(template: Template, project: Project, environ: Mapping[str, str]) -> Forked:
    from jupyter_mlops.targets.warm import fork

    pairs = [os.pipe() for _ in range(3)]
    theirs = (pairs[0][0], pairs[1][1], pairs[2][1])
    ours = (pairs[0][1], pairs[1][0], pairs[2][0])
    try:
        process = fork(
            template.path, "step", line=["-P", "-m", child.__name__], argv=[child.__file__], environ=environ,
            cwd=project.root, files=theirs,
        )  # fmt: skip
    except BaseException:
        # Whatever it is, an interrupt too: without a process nobody will close our ends.
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    process.stdin = os.fdopen(ours[0], "wb")
    process.stdout, process.stderr = (os.fdopen(one, "rb", buffering=0) for one in ours[1:])
    return process


def _kill(process: subprocess.Popen[bytes] | Forked) -> None:
    """Kill a process with all it has started."""
    end_descendants(process.pid)
    with contextlib.suppress(OSError):  # it is gone already
        os.killpg(process.pid, signal.SIGKILL)


def _obituary(code: int) -> str:
    if code >= 0:
        return f"its process ended with status {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"its process was killed by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open(name: str, _project: Project, given: Mapping[str, Any]) -> LocalTarget:
    set_ = options(given, LocalOptions)
    return LocalTarget(name, set_.workers, kernels=set_.kernels)


def _hindrance(_project: Project, given: Mapping[str, Any]) -> str:
    options(given, LocalOptions)
    return "" if os.name == "posix" else "steps in processes of their own need a POSIX system"


PROVIDER: Final = Provider("local", "processes of this machine, as many as there are cores", _open, _hindrance)
