"""What runs in a pod: ``serve``, a guest that waits for its step, and ``talk``, through which it is spoken to.

``serve`` is the pod's program. ``talk`` is started beside it by `kubectl exec`, once for each connection, and passes
what is on its standard input and output on to a socket in the pod's own folder. So a connection that breaks breaks
nothing: another one is made, and goes on. What is said are frames, each an answer to one that asked; what a guest has
to say of itself is asked for, too. A pod that is asked nothing for a while ends its step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.records import decode, encode
from jupyter_mlops.targets.jobs import GIVEN_UP

LARGEST: Final = 64 * 2**20
"""Bytes of a frame at most."""
_HEAD: Final = struct.Struct(">I")
_SOCKET: Final = "talk"
_TICK: Final = 0.25
_LINGER: Final = 30.0
"""Seconds in which the pod's program has begun to listen, or what it said last has been passed on."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One frame to a pod.

    Attributes
    ----------
    what
        ``order``: here are your order and your name; the answer is the pod's environment. ``listen``: what the guest
        has said, from a place on, after so many seconds at most. Anything else is for the guest whose visit is named.
    visit, given
        For whom, and what goes with it.
    """

    what: str
    visit: str = ""
    given: list[Any] = []


class Broken(OSError):
    """A connection ended in the middle, or said what no frame can."""


def frame(value: Any) -> bytes:
    """A value as a frame."""
    raw = msgspec.msgpack.encode(value)
    return _HEAD.pack(len(raw)) + raw


def size_of(head: bytes) -> int:
    """How many bytes follow the four that begin a frame.

    Raises
    ------
    Broken
        More than a frame can have.
    """
    size = int(_HEAD.unpack(head)[0])
    if size > LARGEST:
        raise Broken("what answers is no guest of ours")
    return size


# -- serve -----------------------------------------------------------------------------------------------------------


class Pod:
    """A pod's program, as its guest sees it and as it is spoken to.

    Parameters
    ----------
    folder
        Where files may be put.
    wait
        Seconds to wait for an order.
    patience
        Seconds after which it is given up if nobody has asked for anything.
    """

    def __init__(self, folder: Path, *, wait: float, patience: float) -> None:
        self.folder, self.name, self.slots = str(folder), "the pod", 1
        self._turn = threading.Condition()
        self._said: list[dict[str, Any]] = []
        self._order: bytes | None = None
        self._guest: Any = None
        self._patience = patience
        self._until = time.monotonic() + wait
        self._ended = False
        self._answering = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = folder / _SOCKET
        path.unlink(missing_ok=True)
        before = os.umask(0o077)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        self._socket.listen()
        threading.Thread(target=self._receive, name="pod", daemon=True).start()

    def serve(self) -> int:
        """Be a guest, once there is an order; what the process ends with."""
        from jupyter_mlops.targets.guest import Guest, Order

        with self._turn:
            while self._order is None:
                if self.withdrawn():
                    print("nobody came with a step", file=sys.stderr)
                    return GIVEN_UP
                self._turn.wait(_TICK)
            order = decode(self._order, Order)
        self._guest = guest = Guest(self, order)
        status = guest.serve()
        print(f"the step {order.step.name!r} is {status}", flush=True)
        with self._answering:  # whoever is told that it is over hears so
            return {"done": 0, "cached": 0, "failed": 1, "lost": 1}.get(status, GIVEN_UP)

    def end(self, _signum: int = 0, _frame: FrameType | None = None) -> None:
        """Hear that the pod is to end."""
        self._ended = True

    def say(self, told: dict[str, Any]) -> None:
        """Keep what the guest says until it is asked for; and say its kind where a pod's log is."""
        with self._turn:
            self._said.append(told)
            self._turn.notify_all()
        print(told["kind"], *([told["event"]] if "event" in told else ()), flush=True)

    def withdrawn(self) -> bool:
        """Whether the pod is to end, or nobody has asked for anything for a while."""
        return self._ended or time.monotonic() > self._until

    def _receive(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # one that breaks is followed by another
            while True:
                head = _exactly(connection, _HEAD.size)
                raw = _exactly(connection, size_of(head))
                self._until = time.monotonic() + self._patience
                try:
                    asked = msgspec.msgpack.decode(raw, type=Asked)
                except msgspec.MsgspecError as error:
                    raise Broken("that is no frame of ours") from error
                if asked.what == "listen":
                    connection.sendall(frame(self._listened(*asked.given)))
                    continue
                with self._answering:
                    connection.sendall(frame(self._answer(asked)))

    def _answer(self, asked: Asked) -> dict[str, Any]:
        if asked.what == "order":
            from jupyter_mlops.environment import observe

            with self._turn:
                self._order, self.name = self._order or asked.given[0], f"the pod {asked.given[1]}"
                self._turn.notify_all()
            return {"answer": encode(observe())}
        guest = self._guest
        if guest is None or guest.visit != asked.visit:
            return {"gone": True}
        found: dict[str, Any] = guest.ask(asked.what, asked.given)
        return found

    def _listened(self, since: int, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + min(float(seconds), self._patience / 4)
        with self._turn:
            while len(self._said) <= since and (left := ends - time.monotonic()) > 0:
                self._turn.wait(left)
            return {"answer": self._said[since:]}


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise Broken("it ended")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# -- talk ------------------------------------------------------------------------------------------------------------


def talk(folder: Path) -> int:
    """Pass standard input and output on to the pod's program, until either ends."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ends = time.monotonic() + _LINGER
    while True:
        try:
            connection.connect(str(folder / _SOCKET))
            break
        except OSError as error:  # it is still on its way
            if time.monotonic() > ends:
                print(f"what runs in this pod does not listen: {error}", file=sys.stderr)
                return 1
            time.sleep(_TICK)

    def back() -> None:
        with contextlib.suppress(OSError):  # whoever listened is gone
            _pump(lambda: connection.recv(1 << 16), lambda data: _write(1, data))
        os._exit(0)

    threading.Thread(target=back, daemon=True).start()
    with contextlib.suppress(OSError):  # the pod's program has ended; what it said last is on its way
        _pump(lambda: os.read(0, 1 << 16), connection.sendall)
        return 0
    time.sleep(_LINGER)
    return 0


def _pump(read: Callable[[], bytes], write: Callable[[bytes], Any]) -> None:
    while data := read():
        write(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def main(words: list[str]) -> int:
    """Run as a program: ``serve FOLDER WAIT PATIENCE``, or ``talk FOLDER``."""
    match words:
        case ["talk", folder]:
            return talk(Path(folder))
        case ["serve", folder, wait, patience]:
            Path(folder, "home").mkdir(exist_ok=True)
            pod = Pod(Path(folder), wait=float(wait), patience=float(patience))
            signal.signal(signal.SIGTERM, pod.end)
            return pod.serve()
    raise WrongUse("this is the program of a pod", next="serve FOLDER WAIT PATIENCE, or talk FOLDER")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MlopsError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
