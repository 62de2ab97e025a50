"""The worker's side of the target ``dask``: a guest as one task of Dask's, and how it is spoken to."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from jupyter_mlops.environment import observe
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import decode, encode
from jupyter_mlops.targets.guest import Guest, Order


class StepFailed(MlopsError, RuntimeError):
    """A step did not succeed: what Dask is told, so that it tries again as often as it was asked to."""


class Letter(msgspec.Struct, frozen=True):
    """An order as it travels; Dask shows and logs what tasks are given, and this shows nothing."""

    raw: bytes
    topic: str

    def __repr__(self) -> str:
        return "Letter()"


class _Host:
    """A worker as a guest sees it.

    Parameters
    ----------
    worker
        Dask's worker.
    topic
        Where events are said.
    """

    def __init__(self, worker: Any, topic: str) -> None:
        self._worker, self._topic = worker, topic
        self._key = str(worker.get_current_task())
        self.name = f"the worker {worker.address}"
        self.folder = str(worker.local_directory)
        self.slots = int(worker.state.nthreads)

    def say(self, told: dict[str, Any]) -> None:
        self._worker.log_event(self._topic, {"key": self._key, "worker": self._worker.address, **told})

    def withdrawn(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state in ("cancelled", "released", "forgotten")


_guests: dict[str, Guest] = {}
_described: bytes | None = None


def attend(letter: Letter) -> None:
    """Be a guest: what is submitted to Dask."""
    from distributed import get_worker

    guest = Guest(_Host(get_worker(), letter.topic), decode(letter.raw, Order))
    _guests[guest.visit] = guest
    try:
        status = guest.serve()
    finally:
        del _guests[guest.visit]
    if status in ("failed", "lost"):
        raise StepFailed(f"the step {guest.order.step.name!r} {status}: whoever asked for it has the record")


async def ask(visit: str, what: str, *given: Any) -> dict[str, Any]:
    """Speak to a guest of this worker: what is called through `Client.run`."""
    guest = _guests.get(visit)
    return {"gone": True} if guest is None else await asyncio.to_thread(guest.ask, what, given)


def describe() -> bytes:
    """The environment of this worker, as a record."""
    global _described
    if _described is None:
        _described = encode(observe())
    return _described
