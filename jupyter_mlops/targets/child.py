"""The process that performs one step for a target, and tells of it as JSON lines.

The step comes as one line on standard input: what is secret in it is on no command line and in no file. That pipe then
stays open for as long as the one who wants the step lives; its end, like a SIGTERM, means to end in order. What the
step comes to is written to what was standard output; whatever else is printed goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.project import Project
from jupyter_mlops.records import decode, encode
from jupyter_mlops.targets.protocol import Event, Outcome, Step, performer

PATIENCE: Final = 15.0
"""Seconds that a process that is told to end is given to do so in order."""
_PR_SET_CHILD_SUBREAPER: Final = 36


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is given to do.

    Attributes
    ----------
    step
        The step.
    root
        The project's root.
    perform
        The function that performs it.
    attempt
        Which attempt this is, from 1.
    """

    step: Step
    root: str
    perform: str
    attempt: int = 1


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of what a process tells: an event, or at last the outcome."""

    event: Event | None = None
    outcome: Outcome | None = None


def main() -> None:
    """Perform the step that standard input names."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    order = decode(sys.stdin.buffer.readline(), Order)
    serve(order, sys.stdin.fileno(), out)


def serve(order: Order, lifeline: int, out: IO[bytes]) -> None:
    """Perform a step, tell of it, and see to it that an end that is asked for leaves nothing running."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, interrupted)
    threading.Thread(target=watch, args=(lifeline,), daemon=True).start()
    lock = threading.Lock()

    def say(word: Word) -> None:
        # Whoever listened may be gone; the lifeline tells of it.
        with lock, contextlib.suppress(BrokenPipeError):
            out.write(encode(word) + b"\n")

    def on_event(event: Event) -> None:
        say(Word(event=msgspec.structs.replace(event, step=order.step.name, attempt=order.attempt)))

    began = time.monotonic()
    try:
        outcome = performer(order.perform)(order.step, Project(Path(order.root)), on_event)
    except KeyboardInterrupt:
        outcome = Outcome(status="interrupted", output=order.step.output, seconds=round(time.monotonic() - began, 6))
    except MlopsError as error:
        outcome = Outcome(status="refused", cause=str(error), seconds=round(time.monotonic() - began, 6))
    if outcome.status == "interrupted":
        end_descendants()
    elif "jupyter_mlops.targets.warm" in sys.modules:
        sys.modules["jupyter_mlops.targets.warm"].release()
    say(Word(outcome=msgspec.structs.replace(outcome, attempts=order.attempt)))


def interrupted(_signum: int, _frame: FrameType | None) -> None:
    """What a SIGTERM means: to end in order."""
    raise KeyboardInterrupt


def watch(lifeline: int) -> None:
    """End in order when the one who wants the step is gone; and if that is not done in time, at once.

    The descriptor itself is read: a thread that waits in a stream's `read` holds its lock; an interpreter that ends
    waits a second for that, and then aborts.
    """
    while os.read(lifeline, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    end_descendants()
    os._exit(1)


def adopt_orphans() -> None:
    """Stay the parent of whatever a kernel starts, where the system can: Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(pid: int | None = None) -> None:
    """Kill all processes that this one, or another, has started and that still run."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for one in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


if __name__ == "__main__":
    main()
