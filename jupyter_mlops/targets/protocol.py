"""The words between those who want a notebook run and those who can run one: steps, events, outcomes, handles.

All that crosses to another process is a frozen struct of plain values, written as JSON in the spelling of the records;
no pickle.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Digest, Gap

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_log = logging.getLogger("jupyter_mlops")

TEMPLATE: Final = "JUPYTER_MLOPS_TEMPLATE"
"""The variable that tells the process of a step where warm kernels can be had: see `targets.warm`."""
FINAL: Final = ("done", "failed", "interrupted", "lost", "cached", "refused")


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a process elsewhere needs to run one notebook once.

    Attributes
    ----------
    name
        What it is called where there are several; unique among them.
    notebook, output
        The notebook and where the executed one goes: relative to the project's root, with ``/``; a path outside of the
        project is absolute.
    parameters
        Values by name.
    secrets
        Further values by name that no file, record or command line may hold; not shown, and never written down.
    kernel
        The kernel's name; the notebook's own where empty.
    cache
        ``off``, ``notebook`` or ``cells``.
    timeout, cell_timeout
        Seconds for all cells, and for one.
    retries
        How often to try again where it failed or was lost.
    parent
        The run that this one is part of.
    reads
        Files that it is said to read, spelled like the notebook; a folder's ends in ``/``. Where the step runs on this
        machine nothing is made of it.
    live
        Whether what its cells print is told of as they print it.
    tickets
        What it is for.
    """

    name: str
    notebook: str
    output: str
    parameters: dict[str, Any] = {}
    secrets: dict[str, Any] = {}
    kernel: str = ""
    cache: str = "off"
    timeout: float | None = None
    cell_timeout: float | None = None
    retries: int = 0
    parent: Digest | None = None
    reads: list[str] = []
    live: bool = False
    tickets: list[str] = []

    def __repr__(self) -> str:
        return f"Step({self.name!r}, {self.notebook!r})"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that a step came to.

    Attributes
    ----------
    kind
        ``started`` (of each attempt), ``cell began``, ``output`` (of a step that is `live`), ``cell ended``, ``note``,
        ``ended`` (once, last); of several steps first ``planned``: how many there are is `cells`, and how many of them
        are done already is `cell`.
    step
        The step's name.
    attempt
        From 1; 0 where the step never came to one.
    run
        The run on record, with ``started``; where it is known.
    cell, cells
        Which cell of how many, from 1, and its nbformat id.
    text
        A note's text; an ending's status; what a cell printed, without secrets.
    """

    kind: str
    step: str = ""
    attempt: int = 0
    run: Digest | None = None
    cell: int = 0
    cells: int = 0
    id: str = ""
    text: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a step.

    Attributes
    ----------
    status
        ``done``; ``cached`` (done before, nothing ran); ``failed`` (the notebook, or its kernel); ``refused`` (nothing
        ran, for what it was given can not be run); ``interrupted`` (it was told to end); ``lost`` (whoever ran it died
        or went out of reach: what it came to is not known).
    run
        The run on record; None where it did not come to one, or nobody knows.
    output
        The output notebook, spelled as in `Step`.
    seconds
        From the start of the last attempt to its end.
    error
        Where and why the notebook failed.
    cause
        Why there is no ordinary result: one sentence, and what to do next, if that is known.
    cells
        How many code cells ran.
    metrics
        What the notebook logged, the last of each name.
    values
        What it gives back to the steps that follow, by name.
    attempts
        How often it was tried.
    gaps
        What could not be recorded.
    recalled, again
        With a cache of cells: how many were recalled instead of run, and the places of those that ran with the reason.
    kernel
        How its kernel came about: ``cold``, it was started; or ``warm``; empty where nobody knows.
    because
        Why it ran, where a cache was asked.
    put_back
        Files that were gone, where nothing ran: they are there again.
    notes
        What to know of a result that was taken over.
    """

    status: str
    run: Digest | None = None
    output: str = ""
    seconds: float = 0.0
    error: str = ""
    cause: str = ""
    cells: int = 0
    metrics: dict[str, Any] = {}
    values: dict[str, Any] = {}
    attempts: int = 1
    gaps: list[Gap] = []
    recalled: int = 0
    again: list[tuple[int, str]] = []
    kernel: str = "cold"
    because: str = ""
    put_back: list[str] = []
    notes: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether its result is there."""
        return self.status in ("done", "cached")

    @property
    def why(self) -> str:
        """Why it is not, in words."""
        return "" if self.ok else self.error or self.cause or self.status


OnEvent = Callable[[Event], None]
Perform = Callable[["Step", "Project", OnEvent], Outcome]
"""What performs a step in the process it is called in; targets are given its name, ``package.module:function``."""


class Handle:
    """A step under way.

    Parameters
    ----------
    step
        Which.
    kill
        Ends it, and returns when nothing of it is left; called once at most, and only while it is under way.
    """

    def __init__(self, step: Step, kill: Callable[[], None]) -> None:
        self.step = step
        self.future: Future[Outcome] = Future()
        """Its outcome, for those who wait for several: `concurrent.futures.wait`."""
        self.killed = False
        self._kill = kill

    def __repr__(self) -> str:
        return f"Handle({self.step!r}, {'done' if self.done() else 'under way'})"

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.future.done()

    def result(self, timeout: float | None = None) -> Outcome:
        """Wait for the outcome; whatever became of the step is one, and no error.

        Raises
        ------
        TimeoutError
            It is not there after so many seconds; the step goes on.
        """
        return self.future.result(timeout)

    def kill(self) -> Outcome:
        """End the step with all it has started, and wait until that is so; nothing where it has ended already."""
        if not self.killed and not self.done():
            self.killed = True
            self._kill()
        return self.future.result()


class Target(Protocol):
    """Somewhere that steps can run.

    Attributes
    ----------
    name
        What it is called in settings and on the command line.
    slots
        How many steps run at a time; further ones wait their turn.
    """

    name: str

    @property
    def slots(self) -> int: ...

    def submit(self, step: Step, project: Project, perform: str, on_event: OnEvent | None = None) -> Handle:
        """Have a step run, and return at once.

        Parameters
        ----------
        step
            What to run.
        project
            Where it is recorded, and the folder that its paths are relative to.
        perform
            The function that performs a step, as ``package.module:function``; see `Perform`.
        on_event
            Told of each event, in order, from whatever thread; it is not to block.
        """
        ...

    def close(self) -> None:
        """End what is under way, and let go of everything. Afterwards there is nothing to submit to."""
        ...

    def __enter__(self) -> Target: ...

    def __exit__(self, *exc: object) -> None: ...


def performer(name: str) -> Perform:
    """The function of that name, ``package.module:function``.

    Raises
    ------
    WrongUse
        There is none.
    """
    module, _, function = name.partition(":")
    try:
        found: Perform = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise WrongUse(f"there is no function {name!r} that performs a step", cause=str(error)) from error
    return found


def tell(on_event: OnEvent | None, event: Event) -> None:
    """Tell of an event; whoever listens can not break the step by it."""
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception:  # noqa: BLE001 - somebody else's listener, in a thread of ours
        _log.exception("a listener failed at %s of %s", event.kind, event.step)
