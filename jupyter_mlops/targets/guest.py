"""A step where there is nothing of its project: a guest in a Dask worker or in a pod, and the talk with who wants it.

A guest says hello with what it lacks, and waits until it has been given that, and its secrets, straight into memory.
Then it runs the step in a process of its own, in a project folder made for it; tells of each event; and waits at last
until its record and files have been fetched. A guest whose task is given up, because it was cancelled or because
whoever wanted it is gone, ends its step and leaves nothing.

What is said with events may be kept on its way, as by Dask's scheduler for its dashboard: so they hold names and
states, and everything else is fetched.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.objects import OBJECT
from jupyter_mlops.project import CODE, FOLDER, ON_BEHALF_OF, Project
from jupyter_mlops.records import CodeState, Digest, Transition, decode, encode
from jupyter_mlops.store import Store
from jupyter_mlops.targets.local import LocalTarget
from jupyter_mlops.targets.parcels import Sent, changed, inside, unpack
from jupyter_mlops.targets.protocol import Event, Outcome, Step

PIECE: Final = 8 * 2**20
"""Bytes that are sent or fetched at a time."""
_TICK: Final = 0.25
_DEPOT: Final = 2 * 2**30
"""Bytes of files that a worker keeps for further steps."""
_LONG: Final = 2**22
"""Characters of what cells print that wait to be fetched; of more, the first are left out: the notebook has all."""
_FULL: Final = 2**20
"""Bytes left on a disk that is called full."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is told at first: nothing that is secret.

    Attributes
    ----------
    step
        The step, without its secrets.
    perform
        The function that performs it.
    files
        The files of its project.
    code
        The state of the code around it, which can not be seen from here.
    on_behalf_of
        Who had it started, as `Project.on_behalf_of` says there.
    kernels
        ``cold`` or ``warm``; see `local.LocalOptions`.
    """

    step: Step
    perform: str
    files: list[Sent] = []
    code: CodeState = CodeState()
    on_behalf_of: str = ""
    kernels: str = "cold"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is told when it has said hello: to go on, or not to; and in an environment made from which lock."""

    go: bool
    attempt: int = 1
    secrets: dict[str, Any] = {}
    lock: Digest | None = None

    def __repr__(self) -> str:
        return f"Answer(go={self.go})"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A model's version that a step has registered where it ran."""

    transition: Transition


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What a step has left, when it is over.

    Attributes
    ----------
    outcome
        What came of it.
    files
        Files it made or changed.
    gone
        Files of its parcel that are no longer there.
    versions
        Versions of models, in order.
    """

    outcome: Outcome
    files: list[Sent] = []
    gone: list[str] = []
    versions: list[Move] = []


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What is there to be fetched: bytes of each journal, and of each object."""

    journals: dict[str, int] = {}
    objects: dict[Digest, int] = {}


class NotMade(MlopsError, RuntimeError):
    """An environment that is wanted can not be made where the step is to run."""


class _Withdrawn(Exception):
    """Nobody wants the step any more."""


_depots: dict[str, Store] = {}
_warm: dict[str, LocalTarget] = {}
_staying: set[str] = set()
_lock: Final = threading.Lock()
_making: Final = threading.Lock()


class Host(Protocol):
    """Where a guest is: a worker, a pod.

    Attributes
    ----------
    name
        What it is called in a sentence, as in ``the worker tcp://a:1``.
    folder
        Where it may put files.
    slots
        How many guests it has at a time.
    """

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> str: ...

    @property
    def slots(self) -> int: ...

    def say(self, told: dict[str, Any]) -> None:
        """Pass on what a guest has to say to the one who wants its step."""

    def withdrawn(self) -> bool:
        """Whether nobody wants the step any more."""


class Guest:
    """A step on its visit.

    Parameters
    ----------
    host
        Where it is.
    order
        What it was told.

    Attributes
    ----------
    visit
        Its own name.
    left
        What it leaves, when it is over.
    """

    def __init__(self, host: Host, order: Order) -> None:
        self.host, self.order = host, order
        self.visit = uuid.uuid4().hex
        self.left: Left | None = None
        self._turn = threading.Condition()
        self._answer: Answer | None = None
        self._stopped = self._fetched = False
        self._spoken: collections.deque[Event] = collections.deque()
        self._long = 0
        self._folder: Path | None = None
        self._depot: Store | None = None

    @property
    def root(self) -> Path:
        """The folder made for its project."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="mlops-step-", dir=self.host.folder))
        return self._folder

    def serve(self) -> str:
        """From hello to good-bye; the step's status."""
        with _lock:
            _staying.add(self.visit)
        try:
            return self._through()
        except _Withdrawn:
            return "interrupted"
        finally:
            self._leave()

    def _through(self) -> str:
        try:
            self._depot = _depot_of(self.host.folder)
            missing = sorted({one.digest for one in self.order.files if not self._depot.has(one.digest)})
            self._say("hello", missing=missing)
            answer = self._wait(lambda: self._answer)
            if not answer.go:
                return "interrupted" if self._stopped else "lost"
            python = self._equal(answer.lock) if answer.lock is not None else None
            unpack(self.order.files, self._depot, self.root)
            inside(self.root, self.order.step.output).parent.mkdir(parents=True, exist_ok=True)
            outcome = self._run(answer, python)
        except NotMade as error:
            outcome = Outcome(status="refused", cause=str(error))
        except (OSError, MlopsError) as error:
            cause = f"{self.host.name} could not lay out its files: {_said(error)}"
            outcome = Outcome(status="lost", cause=cause)
        self.left = self._gathered(self._explained(outcome))
        self._say("over")
        self._wait(lambda: self._fetched or None)
        return outcome.status

    def _equal(self, lock: Digest) -> Path:
        """The interpreter of an environment that is made from a lock, once for each lock.

        Raises
        ------
        NotMade
            It can not be made here.
        """
        assert self._depot is not None
        folder = Path(self.host.folder) / "mlops-environments" / lock[7:23]
        python, mark = folder / "bin" / "python", folder / "mlops-made"
        try:
            with _making:
                if not mark.exists():
                    from jupyter_mlops.environment.locking import read_lock
                    from jupyter_mlops.environment.making import create

                    self._tell(f"{self.host.name} makes the environment that is wanted")
                    shutil.rmtree(folder, ignore_errors=True)  # half made, by one that died over it
                    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
                        file.write(self._depot.get(lock))
                        file.flush()
                        made = create(read_lock(Path(file.name)), folder, store=self._depot)
                    others = [one.name for one in (*made.differs.added, *made.differs.removed)]
                    others += [old.name for old, _ in made.differs.changed]
                    if others or not made.kernel:
                        what = ", ".join(others) or "ipykernel is not in it"
                        raise MlopsError("what was made is not what was locked", cause=what)
                    mark.touch()
        except MlopsError as error:
            raise NotMade(f"{self.host.name} can not make the environment that is wanted", cause=str(error)) from error
        return python

    def _run(self, answer: Answer, python: Path | None) -> Outcome:
        step = msgspec.structs.replace(self.order.step, secrets=answer.secrets, retries=0)
        # What Dask tells its own processes is another in each: a run that reads all variables would never be skipped.
        around = {name: value for name, value in Project(self.root).environ.items() if not name.startswith("__DASK")}
        if python is not None:
            apart = {"PYTHONPATH", "PYTHONHOME", "JUPYTER_PATH"}  # they would lead out of the environment
            around = {name: value for name, value in around.items() if name not in apart}
            around |= {
                "VIRTUAL_ENV": str(python.parents[1]), "JUPYTER_PREFER_ENV_PATH": "1",
                "PATH": os.pathsep.join([str(python.parent), around.get("PATH", os.defpath)]),
            }  # fmt: skip
        told = {CODE: encode(self.order.code).decode(), ON_BEHALF_OF: self.order.on_behalf_of}
        project = Project(self.root, environ={**around, **told})
        with self._processes(python) as here:
            handle = here.submit(step, project, self.order.perform, self._heard)
            while True:
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    return handle.future.result(_TICK)
                if self.host.withdrawn():
                    handle.kill()
                    raise _Withdrawn
                if self._stopped:
                    return handle.kill()

    @contextlib.contextmanager
    def _processes(self, python: Path | None) -> Iterator[LocalTarget]:
        """Where its process is started; or forked, as for all guests that come here, while this process lives."""
        if python is not None or self.order.kernels == "cold":
            with LocalTarget(self.visit, 1, python=python) as here:
                yield here
            return
        with _lock:
            place = self.host.folder
            if place not in _warm:
                _warm[place] = LocalTarget(self.host.name, self.host.slots, kernels=self.order.kernels)
        yield _warm[place]

    def _heard(self, event: Event) -> None:
        if event.kind == "output":
            with self._turn:
                first = not self._spoken
                self._spoken.append(event)
                self._long += len(event.text)
                while self._long > _LONG and len(self._spoken) > 1:
                    self._long -= len(self._spoken.popleft().text)
            if first:
                self._say("spoke")
        elif event.kind != "ended":  # that it is over is said when what it left can be fetched
            self._say("event", event=encode(event).decode())

    def _tell(self, text: str) -> None:
        self._heard(Event(kind="note", text=text))

    def _explained(self, outcome: Outcome) -> Outcome:
        """Say of an outcome that is none that the disk is full, where it is."""
        if outcome.ok or outcome.status == "interrupted":
            return outcome
        try:
            free = shutil.disk_usage(self.host.folder).free
        except OSError:
            return outcome
        if free > _FULL:
            return outcome
        status = "lost" if outcome.status == "refused" else outcome.status
        cause = "; ".join(filter(None, (f"the disk of {self.host.name} is full", outcome.cause)))
        error = f"{outcome.error} (the disk of {self.host.name} is full)" if outcome.error else ""
        return msgspec.structs.replace(outcome, status=status, cause=cause, error=error)

    def _gathered(self, outcome: Outcome) -> Left:
        if self._folder is None:
            return Left(outcome=outcome)
        try:
            files, gone = changed(self.order.files, self.root)
            return Left(outcome=outcome, files=files, gone=gone, versions=self._versions())
        except (OSError, MlopsError) as error:
            notes = [*outcome.notes, f"what it left could not be looked through: {_said(error)}"]
            return Left(outcome=msgspec.structs.replace(outcome, notes=notes))

    def _versions(self) -> list[Move]:
        folder = self.root / FOLDER
        if not (folder / "refs" / "models").is_dir():
            return []
        with Store.open(folder) as store:
            moves = [move for ref in store.refs("models/") if "@" not in ref for move in store.moves(ref)]
        return [Move(transition=move.transition) for move in sorted(moves, key=lambda one: one.time)]

    def _leave(self) -> None:
        """Take away everything but files that further steps may need."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        with _lock:
            _staying.discard(self.visit)
            if not _staying and self._depot is not None:
                _sweep(self._depot)

    # -- what it waits for -------------------------------------------------------------------------------------------

    def _wait(self, ready: Callable[[], Any]) -> Any:
        while True:
            with self._turn:
                found = ready()
                if found is not None:
                    return found
                self._turn.wait(_TICK)
            if self.host.withdrawn():
                raise _Withdrawn

    def _say(self, kind: str, **facts: Any) -> None:
        self.host.say({"visit": self.visit, "kind": kind, **facts})

    # -- what it is asked --------------------------------------------------------------------------------------------

    def ask(self, what: str, given: Sequence[Any]) -> dict[str, Any]:
        """Do what is asked: the answer, or why there is none."""
        calls: dict[str, Callable[..., Any]] = {
            "lacks": self.lacks, "put": self.put, "answer": self.answered, "stop": self.stop, "news": self.news,
            "read": self.read, "left": self.what_is_left, "fetched": self.fetched, "spoken": self.spoken,
        }  # fmt: skip
        try:
            return {"answer": calls[what](*given)}
        except (OSError, MlopsError) as error:
            return {"error": _said(error)}

    def lacks(self, digests: list[Digest]) -> list[Digest]:
        """Which of these are not here yet."""
        assert self._depot is not None
        return [one for one in digests if not self._depot.has(one)]

    def put(self, pieces: list[tuple[Digest, int, int, bytes]]) -> None:
        """Take pieces of files: digest, offset, size of the whole, bytes."""
        assert self._depot is not None
        for digest, offset, size, data in pieces:
            if offset == 0 and len(data) == size:
                found = self._depot.put(data)
            else:
                if self._depot.has(digest):
                    continue  # sent again by one who did not hear that it had come
                part = self.root / f".{digest.replace(':', '-')}.part"
                with part.open("r+b" if offset else "wb") as file:
                    file.seek(offset)
                    file.write(data)
                if offset + len(data) < size:
                    continue
                found = self._depot.put(part)
                part.unlink()
            if found != digest:
                raise MlopsError("a file that was sent is another than was said", cause="it changed on the way")

    def answered(self, raw: bytes) -> None:
        """Hear whether to go on."""
        with self._turn:
            self._answer = decode(raw, Answer)
            self._turn.notify_all()

    def stop(self) -> None:
        """End the step."""
        with self._turn:
            self._stopped = True
            if self._answer is None:
                self._answer = Answer(go=False)
            self._turn.notify_all()

    def news(self) -> bytes:
        """What there is of the record by now."""
        folder = self.root / FOLDER
        if not (folder / "format").exists():
            return encode(News())
        journals = {path.stem: path.stat().st_size for path in (folder / "journal").glob("*.jsonl")}
        objects: dict[Digest, int] = {}
        for path in (folder / "objects").glob("??/*"):
            name = f"blake3:{path.parent.name}{path.name}"
            if OBJECT.fullmatch(name):
                objects[Digest(name)] = path.stat().st_size
        return encode(News(journals=journals, objects=objects))

    def spoken(self) -> list[bytes]:
        """What cells have printed since this was asked."""
        with self._turn:
            told, self._spoken, self._long = self._spoken, collections.deque(), 0
        return [encode(one) for one in told]

    def read(self, wants: list[tuple[str, str, int, int]]) -> list[bytes]:
        """Pieces of what is there: what it is, its name, offset, length."""
        found = []
        for kind, name, offset, length in wants:
            if kind == "file":
                path = inside(self.root, name)
            elif kind == "object":
                path = self.root / FOLDER / "objects" / name[7:9] / name[9:]
            else:
                path = self.root / FOLDER / "journal" / f"{name}.jsonl"
            with path.open("rb") as file:
                file.seek(offset)
                found.append(file.read(length))
        return found

    def what_is_left(self) -> bytes:
        """What came of the step, when it is over."""
        assert self.left is not None
        return encode(self.left)

    def fetched(self) -> None:
        """Hear that all of it has been fetched."""
        with self._turn:
            self._fetched = True
            self._turn.notify_all()


def _depot_of(place: str) -> Store:
    """Where files that were sent are kept, each once, for as long as a worker lives."""
    with _lock:
        if place not in _depots:
            _depots[place] = Store.create(Path(place) / "mlops-depot")
        return _depots[place]


def _sweep(depot: Store) -> None:
    """Drop the oldest files of a depot that has grown too large."""
    found = []
    for path in (depot.path / "objects").glob("??/*"):
        with contextlib.suppress(OSError):  # another has swept it
            facts = path.stat()
            found.append((facts.st_mtime, facts.st_size, path))
    size = sum(one[1] for one in found)
    for _, bytes_, path in sorted(found):
        if size <= _DEPOT:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            size -= bytes_


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, MlopsError) else f"{getattr(error, 'strerror', '') or error}"
