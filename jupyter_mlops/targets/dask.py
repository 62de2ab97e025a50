"""The target ``dask``: each step on a worker of a Dask cluster, which needs nothing of the project but what it is sent.

A step is one task (`guest.attend`), submitted with Dask's own retries, resources and priority. Its worker says which
files it lacks, and is sent those; each file goes to a worker once, by its content. As cells end, what they have put on
record is fetched and becomes part of the project's own record; when the step is over, so do the files it left. Of a
worker that dies, what was fetched until then is on record, as a run that was interrupted.

A worker is used only where it has the Python and the packages that are here, in the same versions.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from jupyter_mlops.environment import canonical, observe
from jupyter_mlops.errors import MlopsError, door
from jupyter_mlops.records import CodeState, Digest, Environment, RecordInvalid, decode, encode
from jupyter_mlops.targets import Provider, TargetMissing, options
from jupyter_mlops.targets.attempts import Attempt
from jupyter_mlops.targets.child import PATIENCE
from jupyter_mlops.targets.guest import Answer, Left, Letter, Order, ask, attend, describe
from jupyter_mlops.targets.local import cores
from jupyter_mlops.targets.parcels import Parcel, code_of, pack
from jupyter_mlops.targets.protocol import Event, Handle, OnEvent, Outcome, Step, tell

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_TICK: Final = 0.5
_OFTEN: Final = 1.0
"""Seconds between two looks at the cluster."""
_TOLD: Final = 8
"""Differences of an environment that are named."""


class DaskOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """What can be set for a cluster.

    Attributes
    ----------
    address
        The scheduler's, as in ``tcp://scheduler:8786``. A cluster on this machine is started unless given.
    workers
        How many workers such a cluster has; as many as there are cores unless given.
    environment
        ``same``: a worker that has another Python or other versions of packages is not used. ``any``: it is, and the
        differences are told of with each result.
    files
        Patterns of files that every step is sent.
    send_mb
        Megabytes of files that a step is sent at most.
    resources, priority
        Dask's own, of each step's task.
    wait
        Seconds to wait for the scheduler, and for a worker where there is none.
    """

    address: str = ""
    workers: int | None = None
    environment: Literal["same", "any"] = "same"
    files: list[str] = []
    send_mb: int = 512
    resources: dict[str, float] = {}
    priority: int = 0
    wait: float = 30.0

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= 1024:
            raise ValueError("workers is to be from 1 to 1024")
        if self.workers is not None and self.address:
            raise ValueError("workers is for a cluster that is started here; a cluster with an address has its own")
        if self.address and "://" not in self.address:
            raise ValueError("address is to be like tcp://scheduler:8786")
        if any(Path(one).is_absolute() or ".." in Path(one).parts for one in self.files):
            raise ValueError("files are to be patterns of names inside of the project, like 'data/*.csv'")


class _Unreachable(MlopsError, OSError):
    """A worker, or the scheduler before it, does not answer."""


class DaskTarget:
    """Steps on the workers of a Dask cluster.

    Parameters
    ----------
    name
        What it is called.
    options
        Which cluster, and how it is used.

    Raises
    ------
    TargetMissing
        The scheduler can not be reached.
    """

    def __init__(self, name: str, options: DaskOptions) -> None:
        distributed = door("distributed", "dask")
        self.name, self.options = name, options
        self.topic = f"jupyter-mlops-{uuid.uuid4().hex}"
        self._cluster: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        address = options.address
        try:
            if not address:
                self._folder = tempfile.TemporaryDirectory(prefix="mlops-dask-")
                self._cluster = distributed.LocalCluster(
                    n_workers=options.workers or cores(), threads_per_worker=1, dashboard_address=":0",
                    local_directory=self._folder.name,
                )  # fmt: skip
                address = self._cluster.scheduler_address
            self.client = distributed.Client(address, name="jupyter-mlops", set_as_default=False, timeout=options.wait)
        except (OSError, ValueError) as error:
            self._let_go()
            raise TargetMissing(
                f"the scheduler {address or 'of a cluster on this machine'} can not be reached", cause=str(error),
                next="see that `dask scheduler` runs there, or change the target's address",
            ) from error  # fmt: skip
        self.client.subscribe_topic(self.topic, self._heard)
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}
        self._closed = False
        self._looking = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        self._looked = 0.0
        self._others: dict[str, list[str]] = {}
        self._here = observe()

    def __enter__(self) -> DaskTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """How many steps run at a time, on the workers there are."""
        known, found = self.workers(), 0
        for address in self.usable()[0]:
            has = known[address].get("resources", {})
            places = [int(has.get(name, 0) // much) for name, much in self.options.resources.items() if much]
            found += min([int(known[address].get("nthreads", 1)), *places])
        return max(1, found)

    def submit(self, step: Step, project: Project, perform: str, on_event: OnEvent | None = None) -> Handle:
        """Have a step run on a worker."""
        task = _Task(self, step, project, perform, on_event)
        with self._lock:
            if self._closed:
                raise MlopsError(f"the target {self.name!r} is closed")
            self._tasks[task.key] = task
        # A daemon: where this process ends, Dask gives the task up, and the guest hears of it.
        threading.Thread(target=task.go, name=f"{self.name} {step.name}", daemon=True).start()
        return task.handle

    def close(self) -> None:
        """End what is under way, and leave the cluster; one that was started here ends."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            tasks = list(self._tasks.values())
        for task in tasks:
            task.stop()
        for task in tasks:
            task.handle.future.result()
        self._let_go()

    def _let_go(self) -> None:
        for one in (getattr(self, "client", None), self._cluster):
            if one is not None:
                with contextlib.suppress(Exception):  # a scheduler that is gone can not be taken leave of
                    one.close(timeout=5)
        if self._folder is not None:
            shutil.rmtree(self._folder.name, ignore_errors=True)
            self._folder.cleanup()

    # -- for its steps -----------------------------------------------------------------------------------------------

    def rename(self, task: _Task) -> str:
        """Give a step's task another name, under which it is heard from here on."""
        with self._lock:
            self._tasks.pop(task.key, None)
            key = f"mlops-{uuid.uuid4().hex}"
            self._tasks[key] = task
        return key

    def forget(self, key: str) -> None:
        """Hear that a step has ended."""
        with self._lock:
            self._tasks.pop(key, None)

    def _heard(self, event: tuple[float, Any]) -> None:
        told = event[1]
        task = self._tasks.get(told.get("key", "")) if isinstance(told, dict) else None
        if task is not None:
            task.inbox.put(told)

    def reachable(self) -> bool:
        """Whether there is a connection to the scheduler."""
        return bool(self.client.status == "running")

    def workers(self) -> dict[str, dict[str, Any]]:
        """The cluster's workers by address, as they were a moment ago.

        Raises
        ------
        _Unreachable
            The scheduler does not answer.
        """
        with self._looking:
            if time.monotonic() > self._looked + _OFTEN:
                try:
                    facts = self.client.sync(self.client.scheduler.identity, n_workers=-1, callback_timeout=30)
                    self._known = dict(facts["workers"])
                except Exception as error:  # whatever a connection that breaks raises
                    raise _Unreachable("the scheduler does not answer", cause=str(error)) from error
                self._looked = time.monotonic()
            return self._known

    def usable(self) -> tuple[list[str], dict[str, list[str]]]:
        """The workers that can be used, and what is different of the others."""
        found, others = [], {}
        for address, facts in self.workers().items():
            has = facts.get("resources", {})
            lacks = [f"no {name}" for name, much in self.options.resources.items() if has.get(name, 0) < much]
            why = self._refuses(address)
            if lacks or (why and self.options.environment == "same"):
                others[address] = [*lacks, *why]
            else:
                found.append(address)
        return found, others

    def differences(self, address: str) -> list[str]:
        """What a worker has other than here."""
        return self._others.get(address, [])

    def _refuses(self, address: str) -> list[str]:
        if address not in self._others:
            try:
                found = self.client.run(describe, workers=[address], on_error="return")[address]
            except Exception as error:  # whatever a connection that breaks raises
                raise _Unreachable(f"the worker {address} does not answer", cause=str(error)) from error
            if isinstance(found, bytes):
                self._others[address] = differences(self._here, decode(found, Environment))
            elif isinstance(found, ImportError):
                self._others[address] = [f"jupyter-mlops can not be loaded there ({found})"]
            else:
                raise _Unreachable(f"the worker {address} does not say what it has", cause=str(found))
        return self._others[address]

    def ask(self, address: str, visit: str, what: str, *given: Any) -> Any:
        """Speak to a guest.

        Raises
        ------
        _Unreachable
            It does not answer, or is gone.
        MlopsError
            It can not do what it is asked.
        """
        try:
            said = self.client.run(ask, visit, what, *given, workers=[address])[address]
        except Exception as error:  # whatever a connection that breaks raises
            raise _Unreachable(f"the worker {address} does not answer", cause=str(error)) from error
        if "gone" in said:
            raise _Unreachable(f"the worker {address} has given the step up")
        if "error" in said:
            raise MlopsError(said["error"])
        return said["answer"]


def differences(here: Environment, there: Environment) -> list[str]:
    """What a worker's environment has other than this one, where it matters to what a notebook does."""
    found = []
    for what, one, other in (
        ("Python", *(".".join(one.python.split(".")[:2]) for one in (here, there))),
        ("interpreter", here.implementation, there.implementation),
    ):
        if one != other:
            found.append(f"{what} {other} (here {one})")
    has = {canonical(one.name): one.version for one in there.packages}
    for package in here.packages:
        version = has.get(canonical(package.name))
        if version is None:
            found.append(f"no {package.name} (here {package.version})")
        elif version != package.version:
            found.append(f"{package.name} {version} (here {package.version})")
    return found


def _told(found: Iterable[str]) -> str:
    some = list(found)
    more = f" and {len(some) - _TOLD} more" if len(some) > _TOLD else ""
    return ", ".join(some[:_TOLD]) + more


class _Task:
    """A step on its way through a cluster."""

    def __init__(
        self, target: DaskTarget, step: Step, project: Project, perform: str, on_event: OnEvent | None
    ) -> None:  # fmt: skip
        self.target, self.step, self.project, self.perform, self.on_event = target, step, project, perform, on_event
        self.key = f"mlops-{uuid.uuid4().hex}"
        self.inbox: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self.handle = Handle(step, self._end)
        self._future: Any = None
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._parcel = Parcel(files=[])
        self._code = CodeState()
        self._workers_given: set[str] = set()
        self._alone = 0.0  # since when there is no worker for it
        self._ended = 0.0  # when it was told to end
        self._told = False  # whether its worker was told

    def stop(self) -> None:
        """Tell the step to end."""
        self._ended = self._ended or time.monotonic()
        self.inbox.put({"kind": "end"})

    def _end(self) -> None:
        self.stop()
        self.handle.future.result()

    def go(self) -> None:
        """From the first file packed to the outcome."""
        try:
            outcome = self._through()
        except _Unreachable as error:
            outcome = self._lost(str(error))
        except MlopsError as error:
            outcome = self._lost(str(error)) if self._attempts else Outcome(
                status="refused", cause=str(error), attempts=max(1, self._attempts))  # fmt: skip
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is to hear of it
            outcome = self._lost(f"{type(error).__name__}: {error}")
        try:
            self._let_go()
        except Exception as error:  # noqa: BLE001 - likewise; the outcome stands
            outcome = msgspec.structs.replace(outcome, notes=[*outcome.notes, f"the task was not let go: {error}"])
        tell(self.on_event, Event(kind="ended", step=self.step.name, attempt=outcome.attempts, run=outcome.run,
                                  text=outcome.status))  # fmt: skip
        self.target.forget(self.key)
        self.handle.future.set_result(outcome)

    def _let_go(self) -> None:
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None
        if self._future is not None and self.target.reachable():
            self._future.cancel()

    # -- its way -----------------------------------------------------------------------------------------------------

    def _through(self) -> Outcome:
        for name in (self.step.notebook, self.step.output):
            if Path(name).is_absolute():
                raise MlopsError(f"{name} is outside of the project", cause="a worker has no such folder")
        self._parcel = pack(
            self.project, self.step, most=self.target.options.send_mb * 1_000_000, more=self.target.options.files
        )
        for one in self._parcel.left:
            self._note(f"not sent: {one}")
        self._code = code_of(self.project)
        workers = self._workers()
        if isinstance(workers, Outcome):
            return workers
        self._submit(workers)
        while True:
            try:
                told = self.inbox.get(timeout=_TICK)
            except queue.Empty:
                outcome = self._look()
            else:
                outcome = self._take(told)
            if outcome is not None:
                return outcome

    def _workers(self) -> list[str] | Outcome:
        """The workers that it may run on; an outcome where there is none."""
        ends = time.monotonic() + self.target.options.wait
        while True:
            if self._ended:
                return Outcome(status="interrupted", cause="it was ended before its turn came", attempts=0)
            found, others = self.target.usable()
            if found:
                return found
            if others:
                return Outcome(
                    status="refused", attempts=1,
                    cause="no worker has the environment that is here, and the resources that are asked for: "
                    + "; ".join(f"{address}: {_told(why)}" for address, why in list(others.items())[:3])
                    + '. Start workers in this environment (`mlops env create` makes it), or set environment = "any"',
                )  # fmt: skip
            if time.monotonic() > ends:
                return self._lost(f"the cluster had no worker for {self.target.options.wait:g} s")
            time.sleep(_TICK)

    def _submit(self, workers: list[str]) -> None:
        """Hand it to Dask, under a name of its own: a task that was given up may still be ending under the old one."""
        self._future, self._workers_given = None, set(workers)
        self.key = self.target.rename(self)
        step = msgspec.structs.replace(self.step, secrets={})
        order = Order(step=step, perform=self.perform, topic=self.target.topic, files=self._parcel.files,
                      code=self._code)  # fmt: skip
        self._future = self.target.client.submit(
            attend, Letter(encode(order)), key=self.key, workers=workers, allow_other_workers=False, pure=False,
            retries=max(0, self.step.retries - self._attempts), priority=self.target.options.priority,
            resources=self.target.options.resources or None,
        )  # fmt: skip

    def _take(self, told: Mapping[str, Any]) -> Outcome | None:
        """Hear what a guest says, or that the step is to end."""
        kind, attempt = told["kind"], self._attempt
        if kind == "end":
            return self._stop()
        if kind == "hello":
            return self._greet(told)
        if attempt is None or told["visit"] != attempt.visit:
            return None  # of an attempt that was given up
        try:
            if kind == "event":
                self._pass_on(attempt, decode(str(told["event"]).encode(), Event))
                return None
            if kind == "spoke":
                for raw in attempt.ask("spoken"):
                    self._tell(attempt, decode(raw, Event))
                return None
            return self._over(attempt)
        except _Unreachable as error:
            return self._attempt_lost(str(error))

    def _greet(self, told: Mapping[str, Any]) -> Outcome | None:
        """Give a guest what it lacks, or tell it not to go on."""
        if self._attempt is not None:  # Dask would not start it again if it still ran
            outcome = self._attempt_lost(f"the worker {self._attempt.worker} died or went out of reach")
            if outcome is not None:
                return outcome
        self._attempts += 1
        self._attempt = attempt = Attempt(self.project, told, self._attempts, self.target.ask)
        try:
            if self._ended:
                attempt.ask("stop")
                self._attempts -= 1
                return Outcome(status="interrupted", cause="it was told to end", attempts=self._attempts)
            why = self.target.differences(attempt.worker)
            if why:
                self._note(f"the worker {attempt.worker} has {_told(why)}")
            attempt.send([Digest(one) for one in told["missing"]], self._parcel)
            answer = Answer(go=True, attempt=self._attempts, secrets=self.step.secrets)
            attempt.ask("answer", encode(answer))
        except _Unreachable as error:
            return self._attempt_lost(str(error))
        except (MlopsError, OSError) as error:
            with contextlib.suppress(MlopsError):  # it will see that nobody wants it
                attempt.ask("answer", encode(Answer(go=False)))
            return self._attempt_lost(f"the worker {attempt.worker} could not be given its files: {error}")
        return None

    def _pass_on(self, attempt: Attempt, event: Event) -> None:
        attempt.run = event.run or attempt.run
        if event.kind in ("started", "cell ended"):
            with self._tolerated():
                attempt.fetch_record(now=event.kind == "started")
        self._tell(attempt, event)

    def _tell(self, attempt: Attempt, event: Event) -> None:
        tell(self.on_event, msgspec.structs.replace(event, step=self.step.name, attempt=attempt.number))

    def _over(self, attempt: Attempt) -> Outcome | None:
        """Bring home what an attempt has left; its outcome, if there is to be no other attempt."""
        left = decode(attempt.ask("left"), Left)
        outcome = left.outcome
        notes = list(outcome.notes)
        try:
            attempt.fetch_record(now=True)
            notes += attempt.fetch_files(left)
            attempt.fetch_versions(left)
        except _Unreachable:
            raise
        except (MlopsError, OSError) as error:
            what = f"what it left could not be brought here: {error}"
            outcome = msgspec.structs.replace(outcome, status="lost", cause=what)
        with contextlib.suppress(_Unreachable):  # all is here
            attempt.ask("fetched")
        attempt.close()
        self._attempt = None
        if left.gone:
            notes.append(f"it removed {_told(left.gone)} there; here they are as they were")
        why = self.target.differences(attempt.worker)
        if why:
            notes.append(f"the worker {attempt.worker} has {_told(why)}")
        notes += [f"not sent: {one}" for one in self._parcel.left]
        if not outcome.ok and self._parcel.unasked:
            notes.append(f"not sent: {self._parcel.unasked}")
        status = outcome.status if outcome.ok or not self._ended else "interrupted"
        outcome = msgspec.structs.replace(
            outcome, status=status, notes=notes, attempts=attempt.number, run=outcome.run or attempt.run
        )
        if outcome.status not in ("failed", "lost") or self._attempts > self.step.retries:
            return outcome
        self._note(f"attempt {attempt.number} of {self.step.retries + 1} {outcome.status}: {outcome.why}")
        return None

    def _stop(self) -> Outcome | None:
        if self._attempt is None:
            return Outcome(status="interrupted", cause="it was ended before its turn came", attempts=self._attempts)
        if not self._told:
            self._told = True
            try:
                self._attempt.ask("stop")
            except (_Unreachable, MlopsError) as error:
                return self._attempt_lost(str(error))
        return None

    def _look(self) -> Outcome | None:
        """See whether there is still somebody to hear from."""
        if not self.target.reachable():
            return self._lost("the scheduler went out of reach; run it again when it is back")
        known = self.target.workers()
        attempt = self._attempt
        if attempt is not None:
            if attempt.worker not in known:
                return self._attempt_lost(f"the worker {attempt.worker} died or went out of reach")
            if self._ended and time.monotonic() > self._ended + 4 * PATIENCE:
                return self._attempt_lost(f"the worker {attempt.worker} did not end it in order")
            return None
        status = self._future.status
        if status == "error" and self.inbox.empty():
            error = self._future.exception()
            return self._lost(f"Dask gave it up: {type(error).__name__}: {error}")
        if status in ("cancelled", "lost"):
            return self._lost("its task was cancelled in the cluster")
        if status == "finished" and self.inbox.empty():
            return self._lost("its task ended without a word")
        if status == "pending" and not self._workers_given & set(known):
            return self._move()
        return None

    def _move(self) -> Outcome | None:
        """Give it to other workers, since those it was given to are gone."""
        self._alone = self._alone or time.monotonic()
        found, _ = self.target.usable()
        if found:
            self._future.cancel()
            self._submit(found)
            self._alone = 0.0
        elif time.monotonic() > self._alone + self.target.options.wait:
            return self._lost("no worker is left that it could run on")
        return None

    # -- what came of it ---------------------------------------------------------------------------------------------

    def _attempt_lost(self, cause: str) -> Outcome | None:
        """Give an attempt up; the step's outcome, if there is to be no other attempt."""
        attempt = self._attempt
        assert attempt is not None
        self._attempt = None
        attempt.close()
        if self._attempts <= self.step.retries and not self._ended:
            self._note(f"attempt {attempt.number} of {self.step.retries + 1} lost: {cause}")
            return None
        return self._lost(cause, attempt)

    def _lost(self, cause: str, attempt: Attempt | None = None) -> Outcome:
        attempt = attempt or self._attempt
        run = attempt.run if attempt is not None else None
        if run is not None:
            cause += f"; what it had put on record until then is here (mlops resume {run[7:15]})"
        seconds = round(time.monotonic() - attempt.began, 6) if attempt is not None else 0.0
        return Outcome(
            status="interrupted" if self._ended else "lost", run=run, output=self.step.output, seconds=seconds,
            cause=self.project.redactor().text(cause)[0], attempts=max(1, self._attempts),
        )  # fmt: skip

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Let a fetch under way fail: the next one brings what this one did not, or the step's end says why not."""
        try:
            yield
        except (RecordInvalid, _Unreachable, MlopsError, OSError) as error:
            self._note(f"its record could not be fetched yet: {error}")

    def _note(self, text: str) -> None:
        told = self.project.redactor().text(text)[0]
        tell(self.on_event, Event(kind="note", step=self.step.name, attempt=self._attempts, text=told))


def _open(name: str, _project: Project, given: Mapping[str, Any]) -> DaskTarget:
    return DaskTarget(name, _options(given))


def _options(given: Mapping[str, Any]) -> DaskOptions:
    if given.get("environment") == "create":
        raise MlopsError(
            "a worker's environment is not made from here",
            cause="a worker runs in the one it was started in", next="`mlops env create` makes it, where the worker is",
        )  # fmt: skip
    return options(given, DaskOptions)


def _hindrance(_project: Project, given: Mapping[str, Any]) -> str:
    _options(given)
    if find_spec("distributed") is None:
        return "distributed is not installed. pip install 'jupyter-mlops[dask]'"
    return "" if os.name == "posix" else "a worker that runs notebooks needs a POSIX system"


PROVIDER: Final = Provider("dask", "workers of a Dask cluster, which are sent what a step needs", _open, _hindrance)
