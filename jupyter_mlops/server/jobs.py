"""Work that goes on while a page waits: each job is one ``mlops …`` command in a process of its own.

A job outlives the page that asked for it, and no job outlives the server: each process holds the end of a pipe, and
ends in order when the server is gone. It tells how far it is in lines of JSON, and at last its answer; what else it
says is kept to its last lines. Secrets that it was given are masked in all of that.
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import os
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.pipelines.secret import texts
from jupyter_mlops.project import ON_BEHALF_OF
from jupyter_mlops.records import Digest, RecordInvalid, decode
from jupyter_mlops.redact import Redactor
from jupyter_mlops.server.orders import Command
from jupyter_mlops.store import NotFound
from jupyter_mlops.targets.child import PATIENCE, end_descendants
from jupyter_mlops.targets.protocol import Event

if TYPE_CHECKING:
    from jupyter_mlops.server.handling import Projects

OVER: Final = frozenset({"done", "no", "failed", "interrupted"})
_KEPT: Final = 50  # jobs that are over and still told of
_LINES: Final = 200
_LINE: Final = 2000  # characters
_ANSWER: Final = 8 << 20  # bytes
_STEPS: Final = 64  # steps under way that are told of
_TICK: Final = 0.5
_GRACE: Final = PATIENCE + 5.0  # the process itself kills what it has started after `PATIENCE`


class JobsFull(MlopsError, RuntimeError):
    """As many jobs run as may."""


class JobMissing(NotFound):
    """There is no such job."""


class At(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is: in which cell of how many; 0 before the first."""

    step: str
    cell: int
    cells: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is.

    Attributes
    ----------
    done, steps
        How many runs are over, of how many; of a sweep more than one.
    now
        Those that go on.
    """

    done: int
    steps: int
    now: list[At]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job.

    Attributes
    ----------
    command
        What it does, as one would type it.
    path
        The notebook or folder that it is about, as the server's contents name it.
    root
        The folder of its project likewise, to which paths in `answer` are relative.
    state
        ``running``; ``done``; ``no``: the answer is no, as of a gate; ``failed``; ``interrupted``.
    code
        The command's exit code; None while it runs, negative where a signal ended it.
    run
        The run that it put on record.
    said
        The last lines that it said, without secrets.
    answer
        The command's answer, once there is one; None in a list of jobs.
    """

    id: str
    verb: str
    command: str
    path: str
    root: str
    state: str
    code: int | None
    began: str
    seconds: float
    progress: Progress
    run: Digest | None
    said: list[str]
    answer: Any


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: list[Job]


class Jobs:
    """The jobs of a server. Threads may share it.

    Parameters
    ----------
    most
        How many may run at a time.
    tell
        Takes what is to be told of a job to whoever listens, when it is started and when it is over; from any thread.
    """

    def __init__(self, most: int, *, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        self.most = most
        self._tell = tell
        self._jobs: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._closed = False

    def start(self, verb: str, command: Command, projects: Projects, *, by: str = "") -> Job:
        """Start a command, as somebody asked for; as whoever the server runs as where nobody is named.

        Raises
        ------
        WrongUse
            A word of it can be on no command line.
        JobsFull
            As many run as may.
        OSError
            No process could be started.
        """
        if any("\0" in word for word in command.arguments):
            raise WrongUse("a word of it can be on no command line", cause="it holds a zero")
        with self._lock:
            running = sum(one.state not in OVER for one in self._jobs.values())
            if self._closed or running >= self.most:
                raise JobsFull(
                    f"{running} jobs run already, and that is as many as may",
                    next="wait for one to end, or interrupt it; MlopsApp.most_jobs sets how many",
                )
            one = _Running(verb, command, projects.name(command.project.root), by, self._tell)
            self._jobs[one.id] = one
            over = [key for key, other in self._jobs.items() if other.state in OVER]
            for key in over[: max(0, len(over) - _KEPT)]:
                del self._jobs[key]
        return one.told(whole=True)

    def list(self, path: str = "") -> JobList:
        """Those about a notebook or folder, or all; newest first."""
        with self._lock:
            found = list(self._jobs.values())[::-1]
        return JobList(jobs=[one.told(whole=False) for one in found if path in ("", one.command.path)])

    def show(self, id: str) -> Job:
        """One of them.

        Raises
        ------
        JobMissing
            There is no such job.
        """
        return self._job(id).told(whole=True)

    def interrupt(self, id: str) -> Job:
        """Ask a job to end in order; what does not end is killed. A second time does not wait.

        Raises
        ------
        JobMissing
            There is no such job.
        """
        one = self._job(id)
        one.interrupt()
        return one.told(whole=True)

    def close(self) -> None:
        """End all, and wait until that is so."""
        with self._lock:
            self._closed = True
            left = list(self._jobs.values())
        for one in left:
            one.interrupt()
        for one in left:
            one.thread.join()

    def _job(self, id: str) -> _Running:
        with self._lock:
            found = self._jobs.get(id)
        if found is None:
            raise JobMissing("there is no such job", cause="jobs end with the server, and old ones are forgotten")
        return found


class _Running:
    """A job with its process, and the thread that listens to it."""

    def __init__(self, verb: str, command: Command, root: str, by: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self.id = secrets.token_hex(16)
        self.verb, self.root = verb, root
        self.by, self._tell = by or command.project.user, tell
        self.words = command.words()
        self.state = "running"
        self.code: int | None = None
        self.run: Digest | None = None
        self._began, self._clock = dt.datetime.now(dt.UTC), time.monotonic()
        self._seconds: float | None = None
        self._redactor = Redactor()
        for value in command.secrets.values():
            for text in texts(value):
                self._redactor.learn(text)
        self._said: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._answer: Any = None
        self._steps, self._done = 1, 0
        self._now: dict[str, At] = {}
        self._asked = 0.0  # when it was told to end
        self._killed = False
        given = command.given()
        self.command = command._replace(secrets={})
        self._process = _start(command, by)
        self.thread = threading.Thread(target=self._follow, args=(given,), name=f"mlops-job-{verb}", daemon=True)
        self._told("started")
        self.thread.start()

    def _told(self, action: str) -> None:
        facts = {
            "action": action, "project": self.root, "verb": self.verb, "path": self.command.path, "job": self.id,
            "by": self.by,
        }  # fmt: skip
        self._tell({**facts, "run": self.run} if self.run else facts)

    def told(self, *, whole: bool) -> Job:
        """The job as it stands; with what it said and answered where it is asked for by itself."""
        seconds = time.monotonic() - self._clock if self._seconds is None else self._seconds
        progress = Progress(done=self._done, steps=self._steps, now=list(self._now.values())[:_STEPS])
        return Job(
            id=self.id, verb=self.verb, command=self.words, path=self.command.path, root=self.root, state=self.state,
            code=self.code, began=self._began.isoformat(), seconds=round(seconds, 3), progress=progress, run=self.run,
            said=list(self._said) if whole else [], answer=self._answer if whole else None,
        )  # fmt: skip

    def interrupt(self) -> None:
        """Ask it to end in order."""
        if self.state not in OVER:
            self._asked = self._asked or time.monotonic()
            with contextlib.suppress(OSError):  # it is gone already
                self._process.send_signal(signal.SIGINT)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _follow(self, given: bytes) -> None:
        try:
            with contextlib.suppress(OSError):  # it is gone: its last words tell why
                self._write(given)
            answer = self._listen()
            self.code = self._process.wait()
            self._end(answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job is over, and a page is told why
            self._said.append(f"{type(error).__name__}: {error}"[:_LINE])
            _kill(self._process)
            self.code = self._process.wait()
            self._end(b"")
        finally:
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert stream is not None
                with contextlib.suppress(OSError):
                    stream.close()

    def _write(self, given: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(given)
        self._process.stdin.flush()

    def _listen(self) -> bytes:
        """Hear the process out: its answer is what it writes to standard output."""
        out, error = self._process.stdout, self._process.stderr
        assert out is not None
        assert error is not None
        answer, rest = bytearray(), b""
        with selectors.DefaultSelector() as selector:
            for stream in (out, error):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                heard = selector.select(_TICK)
                if self._asked and not self._killed and time.monotonic() > self._asked + _GRACE:
                    self._killed = True
                    _kill(self._process)
                for key, _ in heard:
                    try:
                        data = os.read(key.fd, 1 << 16)
                    except BlockingIOError:
                        continue
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is out:
                        answer += data[: max(0, _ANSWER + 1 - len(answer))]
                    else:
                        *lines, rest = (rest + data).split(b"\n")
                        for line in [*lines, rest] if len(rest) > 1 << 16 else lines:
                            self._hear(line)
                        rest = b"" if len(rest) > 1 << 16 else rest
                if not heard and self._process.poll() is not None:
                    break  # somebody it started holds the pipe
        self._hear(rest)
        return bytes(answer)

    def _hear(self, line: bytes) -> None:
        """A line of standard error: an event, or words."""
        if not line.strip():
            return
        if line.startswith(b'{"kind":'):
            with contextlib.suppress(RecordInvalid):  # words that only begin like one
                self._event(decode(line, Event))
                return
        self._said.append(self._redactor.text(line.decode(errors="replace").rstrip())[0][:_LINE])

    def _event(self, event: Event) -> None:
        if event.kind == "planned":
            self._steps, self._done = event.cells, event.cell
        elif event.kind == "ended":
            self._now.pop(event.step, None)
            self._done += 1
        elif event.kind in ("cell began", "cell ended"):
            self._now[event.step] = At(step=event.step, cell=event.cell, cells=event.cells)
        elif event.kind == "started":
            self._now[event.step] = At(step=event.step, cell=0, cells=0)
        elif event.text:
            self._said.append(self._redactor.text(event.text)[0][:_LINE])
        if event.run is not None and (self._steps == 1 or event.kind == "planned"):
            self.run = event.run

    def _end(self, answer: bytes) -> None:
        if len(answer) > _ANSWER:
            self._said.append("its answer is too long to be shown here")
        elif answer.strip():
            try:
                self._answer = _masked(msgspec.json.decode(answer), self._redactor)
            except msgspec.DecodeError:
                self._said.append(self._redactor.text(answer.decode(errors="replace").strip())[0][-_LINE:])
        self._now.clear()
        self._seconds = time.monotonic() - self._clock
        ended = {0: "done", 1: "no", 130: "interrupted"}.get(-1 if self.code is None else self.code, "failed")
        self._done = self._steps if ended == "done" else self._done
        self.state = "interrupted" if self._asked and ended != "done" else ended
        self._told(self.state)


def _masked(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        return redactor.known(value)[0]
    if isinstance(value, dict):
        return {redactor.known(key)[0]: _masked(item, redactor) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, redactor) for item in value]
    hidden = type(value) in (int, float) and redactor.known(str(value))[1]
    return "<redacted>" if hidden else value


_OWN: Final = frozenset({
    "JUPYTER_MLOPS_RUN", "JUPYTER_MLOPS_HEADLESS", "JUPYTER_MLOPS_NOTEBOOK", "JPY_SESSION_NAME", ON_BEHALF_OF,
})  # fmt: skip


def _start(command: Command, by: str) -> subprocess.Popen[bytes]:
    """Start a command's process, and tell it for whom: where others see it, a command line, that is not."""
    project = command.project
    behalf = by.replace("\0", "").encode("utf-8", "replace").decode()
    environ: Mapping[str, str] = {
        **{name: value for name, value in project.environ.items() if name not in _OWN},
        "JUPYTER_MLOPS_PROJECT": str(project.root),
        **({ON_BEHALF_OF: behalf} if behalf else {}),
    }  # fmt: skip
    # -P: what lies about in the project's folder is not to stand in for modules of ours.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jupyter_mlops.server.child", *command.arguments], cwd=project.root, env=environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all it has started."""
    end_descendants(process.pid)
    with contextlib.suppress(OSError):  # it is gone already
        os.killpg(process.pid, signal.SIGKILL)
