"""The worker's side of the target ``dask``: a step that runs as a guest in a worker, and the talk with who wants it.

A guest is a task of Dask's. It says hello with what it lacks, and waits until it has been given that, and its secrets,
straight into memory. Then it runs the step in a process of its own, in a project folder made for it; tells of each
event; and waits at last until its record and files have been fetched. A guest whose task is given up, because it was
cancelled or because whoever wanted it is gone, ends its step and leaves nothing.

What is said with events passes through the scheduler, which keeps it for its dashboard: so they hold names and states,
and everything else is fetched.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.environment import observe
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.objects import OBJECT
from jupyter_mlops.project import CODE, FOLDER, Project
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


class StepFailed(MlopsError, RuntimeError):
    """A step did not succeed: what Dask is told, so that it tries again as often as it was asked to."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is told with its task: nothing that is secret.

    Attributes
    ----------
    step
        The step, without its secrets.
    perform
        The function that performs it.
    topic
        Where events are said.
    files
        The files of its project.
    code
        The state of the code around it, which can not be seen from here.
    """

    step: Step
    perform: str
    topic: str
    files: list[Sent] = []
    code: CodeState = CodeState()


class Letter(msgspec.Struct, frozen=True):
    """An order as it travels; Dask shows and logs what tasks are given, and this shows nothing."""

    raw: bytes

    def __repr__(self) -> str:
        return "Letter()"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is told when it has said hello: to go on, or not to."""

    go: bool
    attempt: int = 1
    secrets: dict[str, Any] = {}

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


class _Withdrawn(Exception):
    """Nobody wants the step any more."""


_guests: dict[str, Guest] = {}
_depots: dict[str, Store] = {}
_lock: Final = threading.Lock()


def attend(letter: Letter) -> None:
    """Be a guest: what is submitted to Dask."""
    from distributed import get_worker

    worker = get_worker()
    guest = Guest(worker, str(worker.get_current_task()), decode(letter.raw, Order))
    _guests[guest.visit] = guest
    try:
        status = guest.serve()
    except _Withdrawn:
        status = "interrupted"
    finally:
        del _guests[guest.visit]
        guest.leave()
    if status in ("failed", "lost"):
        raise StepFailed(f"the step {guest.order.step.name!r} {status}: whoever asked for it has the record")


async def ask(visit: str, what: str, *given: Any) -> dict[str, Any]:
    """Speak to a guest of this worker: what is called through `Client.run`."""
    guest = _guests.get(visit)
    if guest is None:
        return {"gone": True}
    calls: dict[str, Callable[..., Any]] = {
        "put": guest.put, "answer": guest.answered, "stop": guest.stop, "news": guest.news, "read": guest.read,
        "left": guest.what_is_left, "fetched": guest.fetched, "spoken": guest.spoken,
    }  # fmt: skip
    try:
        return {"answer": await asyncio.to_thread(calls[what], *given)}
    except (OSError, MlopsError) as error:
        return {"error": _said(error)}


def describe() -> bytes:
    """The environment of this worker, as a record."""
    global _described
    if _described is None:
        _described = encode(observe())
    return _described


_described: bytes | None = None


class Guest:
    """A step in a worker.

    Parameters
    ----------
    worker
        Dask's worker.
    key
        The name of its task.
    order
        What it was told.
    """

    def __init__(self, worker: Any, key: str, order: Order) -> None:
        self.worker, self.key, self.order = worker, key, order
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
            self._folder = Path(tempfile.mkdtemp(prefix="mlops-step-", dir=self.worker.local_directory))
        return self._folder

    def serve(self) -> str:
        """From hello to good-bye; the step's status."""
        try:
            self._depot = _depot_of(self.worker)
            missing = sorted({one.digest for one in self.order.files if not self._depot.has(one.digest)})
            self._say("hello", missing=missing)
            answer = self._wait(lambda: self._answer)
            if not answer.go:
                return "interrupted" if self._stopped else "lost"
            unpack(self.order.files, self._depot, self.root)
            inside(self.root, self.order.step.output).parent.mkdir(parents=True, exist_ok=True)
            outcome = self._run(answer)
        except (OSError, MlopsError) as error:
            cause = f"the worker could not lay out its files: {_said(error)}"
            outcome = Outcome(status="lost", cause=cause)
        self.left = self._gathered(self._explained(outcome))
        self._say("over")
        self._wait(lambda: self._fetched or None)
        return outcome.status

    def _run(self, answer: Answer) -> Outcome:
        step = msgspec.structs.replace(self.order.step, secrets=answer.secrets, retries=0)
        # What Dask tells its own processes is another in each: a run that reads all variables would never be skipped.
        around = {name: value for name, value in Project(self.root).environ.items() if not name.startswith("__DASK")}
        project = Project(self.root, environ={**around, CODE: encode(self.order.code).decode()})
        with LocalTarget(self.key, 1) as here:
            handle = here.submit(step, project, self.order.perform, self._heard)
            while True:
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    return handle.future.result(_TICK)
                if self._withdrawn():
                    handle.kill()
                    raise _Withdrawn
                if self._stopped:
                    return handle.kill()

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

    def _explained(self, outcome: Outcome) -> Outcome:
        """Say of an outcome that is none that the disk is full, where it is."""
        if outcome.ok or outcome.status == "interrupted":
            return outcome
        try:
            free = shutil.disk_usage(self.worker.local_directory).free
        except OSError:
            return outcome
        if free > _FULL:
            return outcome
        status = "lost" if outcome.status == "refused" else outcome.status
        cause = "; ".join(filter(None, (f"the disk of the worker {self.worker.address} is full", outcome.cause)))
        error = f"{outcome.error} (the disk of the worker {self.worker.address} is full)" if outcome.error else ""
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

    def leave(self) -> None:
        """Take away everything but files that further steps may need."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        with _lock:
            if not _guests and self._depot is not None:
                _sweep(self._depot)

    # -- what it waits for -------------------------------------------------------------------------------------------

    def _wait(self, ready: Callable[[], Any]) -> Any:
        while True:
            with self._turn:
                found = ready()
                if found is not None:
                    return found
                self._turn.wait(_TICK)
            if self._withdrawn():
                raise _Withdrawn

    def _withdrawn(self) -> bool:
        """Whether nobody wants the task any more."""
        task = self.worker.state.tasks.get(self.key)
        return task is None or task.state in ("cancelled", "released", "forgotten")

    def _say(self, kind: str, **facts: Any) -> None:
        told = {"key": self.key, "visit": self.visit, "worker": self.worker.address, "kind": kind, **facts}
        self.worker.log_event(self.order.topic, told)

    # -- what it is asked --------------------------------------------------------------------------------------------

    def put(self, pieces: list[tuple[Digest, int, int, bytes]]) -> None:
        """Take pieces of files: digest, offset, size of the whole, bytes."""
        assert self._depot is not None
        for digest, offset, size, data in pieces:
            if offset == 0 and len(data) == size:
                found = self._depot.put(data)
            else:
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


def _depot_of(worker: Any) -> Store:
    """Where a worker keeps files that were sent to it, each once, for as long as it lives."""
    with _lock:
        place = str(worker.local_directory)
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
