"""The target ``dask``: each step on a worker of a Dask cluster, which needs nothing of the project but what it is sent.

A step is one task (`worker.attend`), submitted with Dask's own retries, resources and priority. Its worker says which
files it lacks, and is sent those; each file goes to a worker once, by its content. As cells end, what they have put on
record is fetched and becomes part of the project's own record; when the step is over, so do the files it left. Of a
worker that dies, what was fetched until then is on record, as a run that was interrupted.

A worker is used only where it has the Python and the packages that are here, in the same versions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from jupyter_mlops.environment import observe
from jupyter_mlops.errors import MlopsError, door
from jupyter_mlops.records import Environment, decode, encode
from jupyter_mlops.targets import Provider, TargetMissing, options
from jupyter_mlops.targets.equal import Recipes
from jupyter_mlops.targets.errands import TICK, Errand, Unreachable, differences, inside_only
from jupyter_mlops.targets.local import cores
from jupyter_mlops.targets.protocol import Handle, OnEvent, Outcome, Step
from jupyter_mlops.targets.worker import Letter, ask, attend, describe

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_OFTEN: Final = 1.0
"""Seconds between two looks at the cluster."""


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
        differences are told of with each result. ``create``: it makes an environment as it is here, and the step runs
        in that.
    files
        Patterns of files that every step is sent.
    send_mb
        Megabytes of files that a step is sent at most.
    kernels
        ``cold``: each kernel is started. ``warm``: it is forked from a process of the worker's that has imported what
        the notebook does; not in an environment that was made.
    resources, priority
        Dask's own, of each step's task.
    wait
        Seconds to wait for the scheduler, and for a worker where there is none.
    """

    address: str = ""
    workers: int | None = None
    environment: Literal["same", "any", "create"] = "same"
    files: list[str] = []
    send_mb: int = 512
    kernels: Literal["cold", "warm"] = "cold"
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
        inside_only(self.files)


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
        self.recipes = Recipes(self._here) if options.environment == "create" else None

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
        said = event[1]
        task = self._tasks.get(said.get("key", "")) if isinstance(said, dict) else None
        if task is not None:
            task.inbox.put(said)

    def reachable(self) -> bool:
        """Whether there is a connection to the scheduler."""
        return bool(self.client.status == "running")

    def workers(self) -> dict[str, dict[str, Any]]:
        """The cluster's workers by address, as they were a moment ago.

        Raises
        ------
        Unreachable
            The scheduler does not answer.
        """
        with self._looking:
            if time.monotonic() > self._looked + _OFTEN:
                try:
                    facts = self.client.sync(self.client.scheduler.identity, n_workers=-1, callback_timeout=30)
                    self._known = dict(facts["workers"])
                except Exception as error:  # whatever a connection that breaks raises
                    raise Unreachable("the scheduler does not answer", cause=str(error)) from error
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
                raise Unreachable(f"the worker {address} does not answer", cause=str(error)) from error
            if isinstance(found, bytes):
                self._others[address] = differences(self._here, decode(found, Environment))
            elif isinstance(found, ImportError):
                self._others[address] = [f"jupyter-mlops can not be loaded there ({found})"]
            else:
                raise Unreachable(f"the worker {address} does not say what it has", cause=str(found))
        return self._others[address]

    def ask(self, address: str, visit: str, what: str, *given: Any) -> Any:
        """Speak to a guest.

        Raises
        ------
        Unreachable
            It does not answer, or is gone.
        MlopsError
            It can not do what it is asked.
        """
        try:
            said = self.client.run(ask, visit, what, *given, workers=[address])[address]
        except Exception as error:  # whatever a connection that breaks raises
            raise Unreachable(f"the worker {address} does not answer", cause=str(error)) from error
        if "gone" in said:
            raise Unreachable(f"the worker {address} has given the step up")
        if "error" in said:
            raise MlopsError(said["error"])
        return said["answer"]


class _Task(Errand):
    """A step on its way through a cluster."""

    def __init__(
        self, target: DaskTarget, step: Step, project: Project, perform: str, on_event: OnEvent | None
    ) -> None:  # fmt: skip
        super().__init__(target.options, step, project, perform, on_event, target.recipes)
        self.target = target
        self.key = f"mlops-{uuid.uuid4().hex}"
        self._future: Any = None
        self._workers_given: set[str] = set()
        self._alone = 0.0  # since when there is no worker for it

    def begin(self) -> Outcome | None:
        workers = self._workers()
        if isinstance(workers, Outcome):
            return workers
        self._submit(workers)
        return None

    def ask(self, where: str, visit: str, what: str, *given: Any) -> Any:
        return self.target.ask(where, visit, what, *given)

    def called(self, where: str) -> str:
        return f"the worker {where}"

    def differs(self, where: str) -> list[str]:
        return self.target.differences(where)

    def let_go(self, outcome: Outcome) -> None:  # noqa: ARG002 - Dask lets go of all alike
        self.target.forget(self.key)
        if self._future is not None and self.target.reachable():
            self._future.cancel()

    def _workers(self) -> list[str] | Outcome:
        """The workers that it may run on; an outcome where there is none."""
        ends = time.monotonic() + self.target.options.wait
        while True:
            if self.ended:
                return Outcome(status="interrupted", cause="it was ended before its turn came", attempts=0)
            found, others = self.target.usable()
            if found:
                return found
            if others:
                return self.other_environment(others)
            if time.monotonic() > ends:
                return self.lost(f"the cluster had no worker for {self.target.options.wait:g} s")
            time.sleep(TICK)

    def other_environment(self, others: Mapping[str, Sequence[str]]) -> Outcome:
        refused = super().other_environment(others)
        cause = (
            f"no worker has the environment that is here, and the resources that are asked for: {refused.cause}. "
            'Start workers in this environment (`mlops env create` makes it), or set environment = "create" or "any"'
        )
        return msgspec.structs.replace(refused, cause=cause)

    def _submit(self, workers: list[str]) -> None:
        """Hand it to Dask, under a name of its own: a task that was given up may still be ending under the old one."""
        self._future, self._workers_given = None, set(workers)
        self.key = self.target.rename(self)
        self._future = self.target.client.submit(
            attend, Letter(encode(self.order()), self.target.topic), key=self.key, workers=workers,
            allow_other_workers=False, pure=False, retries=max(0, self.step.retries - self.attempts),
            priority=self.target.options.priority, resources=self.target.options.resources or None,
        )  # fmt: skip

    def look(self) -> Outcome | None:
        if not self.target.reachable():
            return self.lost("the scheduler went out of reach; run it again when it is back")
        known = self.target.workers()
        attempt = self.attempt
        if attempt is not None:
            if attempt.worker not in known:
                return self.attempt_lost(f"the worker {attempt.worker} died or went out of reach")
            if self.overdue():
                return self.attempt_lost(f"the worker {attempt.worker} did not end it in order")
            return None
        status = self._future.status
        if status == "error" and self.inbox.empty():
            error = self._future.exception()
            return self.lost(f"Dask gave it up: {type(error).__name__}: {error}")
        if status in ("cancelled", "lost"):
            return self.lost("its task was cancelled in the cluster")
        if status == "finished" and self.inbox.empty():
            return self.lost("its task ended without a word")
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
            return self.lost("no worker is left that it could run on")
        return None


def _open(name: str, _project: Project, given: Mapping[str, Any]) -> DaskTarget:
    return DaskTarget(name, options(given, DaskOptions))


def _hindrance(_project: Project, given: Mapping[str, Any]) -> str:
    set_ = options(given, DaskOptions)
    if find_spec("distributed") is None:
        return "distributed is not installed. pip install 'jupyter-mlops[dask]'"
    if set_.environment == "create" and find_spec("uv") is None:
        return "environment = \"create\" needs uv. pip install 'jupyter-mlops[env]'"
    return "" if os.name == "posix" else "a worker that runs notebooks needs a POSIX system"


PROVIDER: Final = Provider("dask", "workers of a Dask cluster, which are sent what a step needs", _open, _hindrance)
