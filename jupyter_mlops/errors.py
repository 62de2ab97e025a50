"""The one base class of every error the package raises on purpose, and the doors through which libraries come late.

An error says three things to the reader of a notebook: the thing, the cause, the next command. Its children live
beside the code that raises them and derive also from the builtin they refine, so that ``except KeyError`` keeps
working: ``class ObjectMissing(MlopsError, KeyError)``.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import ClassVar


class MlopsError(Exception):
    """Something the user can act on.

    Parameters
    ----------
    thing
        What went wrong, in one sentence that names the object concerned.
    cause
        Why, when that adds something.
    next
        What to type or change next.
    """

    exit_code: ClassVar[int] = 3
    """What a shell command ends with: 1 the answer is no, 2 wrong use, 3 could not."""

    def __init__(self, thing: str, *, cause: str = "", next: str = "") -> None:
        super().__init__(thing)
        self.thing, self.cause, self.next = thing, cause, next

    def __str__(self) -> str:
        parts = [self.thing.rstrip(".")]
        if self.cause:
            parts[0] += f": {self.cause.rstrip('.')}"
        if self.next:
            parts.append(self.next)
        return ". ".join(parts)


class WrongUse(MlopsError, ValueError):
    """The words of a call are off: nothing was done."""

    exit_code = 2


class ExtraMissing(MlopsError, ImportError):
    """An optional dependency is asked for and is not installed."""


def late(module: str) -> ModuleType:
    """Import a library into a process that is the user's, and leave that process as it was.

    What a library does while it is loaded to warning filters, handlers of signals, generators of random numbers and
    logging is taken back, and nothing is shown. What is loaded already is only looked up.
    """
    if module in sys.modules:
        return importlib.import_module(module)  # waits for a thread that is at it
    with _as_it_was():
        return importlib.import_module(module)


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    import logging
    import random
    import signal
    import threading
    import warnings

    root, drawn = logging.getLogger(), random.getstate()
    handlers, level = root.handlers[:], root.level
    main = threading.current_thread() is threading.main_thread()  # only there may handlers of signals be set
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()} if main else {}
    numpy = sys.modules.get("numpy.random")
    state = numpy.get_state() if numpy is not None else None
    try:
        with warnings.catch_warnings(record=True):
            yield
    finally:
        random.setstate(drawn)
        if numpy is not None:
            numpy.set_state(state)
        root.handlers[:] = handlers
        root.setLevel(level)
        for number, handler in signals.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def door(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which pip line brings it.

    Parameters
    ----------
    module
        The module to import, as in ``"uv"``.
    extra
        The extra of this package that installs it.

    Raises
    ------
    ExtraMissing
        The module is not installed.
    """
    try:
        return late(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # it is there, and something it needs is not: its own message is the better one
        raise ExtraMissing(f"{module} is not installed", next=f"pip install 'jupyter-mlops[{extra}]'") from error
