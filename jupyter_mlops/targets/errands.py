"""A step on its way to where nothing of its project is, and back: what every target keeps to that shares no folder.

An errand packs what the step needs, has a guest visited (`guest`) by whatever way there is to one, gives it what it
lacks, passes on what it says, and brings home what it leaves (`attempts`). What is a target's own is how a guest comes
about, is spoken to, and is looked after: `Errand` is made whole by that.
"""

from __future__ import annotations

import contextlib
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from jupyter_mlops.environment import canonical
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import CodeState, Digest, Environment, RecordInvalid, decode, encode
from jupyter_mlops.targets.attempts import Attempt
from jupyter_mlops.targets.child import PATIENCE
from jupyter_mlops.targets.equal import NotLocked, Recipe, Recipes
from jupyter_mlops.targets.guest import Answer, Left, Order
from jupyter_mlops.targets.parcels import Parcel, code_of, pack
from jupyter_mlops.targets.protocol import Event, Handle, OnEvent, Outcome, Step, tell

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

TICK: Final = 0.5
"""Seconds after which an errand that hears nothing looks whether there is still somebody to hear from."""
_TOLD: Final = 8
"""Differences of an environment that are named."""


class Unreachable(MlopsError, OSError):
    """Whoever runs a step does not answer, or has given it up."""


class Terms(Protocol):
    """What the settings of a target say of its errands.

    Attributes
    ----------
    environment
        ``same``: what has another Python or other versions of packages is not used; else what is done instead.
    files
        Patterns of files that every step is sent.
    send_mb
        Megabytes of files that a step is sent at most.
    kernels
        ``cold`` or ``warm``; see `local.LocalOptions`.
    """

    @property
    def environment(self) -> str: ...

    @property
    def files(self) -> Sequence[str]: ...

    @property
    def send_mb(self) -> int: ...

    @property
    def kernels(self) -> str: ...


def inside_only(patterns: Iterable[str]) -> None:
    """See that patterns of files stay inside of a project.

    Raises
    ------
    ValueError
        One does not.
    """
    if any(Path(one).is_absolute() or ".." in Path(one).parts for one in patterns):
        raise ValueError("files are to be patterns of names inside of the project, like 'data/*.csv'")


def differences(here: Environment, there: Environment) -> list[str]:
    """What another environment has other than this one, where it matters to what a notebook does."""
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


def told(found: Iterable[str]) -> str:
    """Differences in a sentence: the first few, and how many more there are."""
    some = list(found)
    more = f" and {len(some) - _TOLD} more" if len(some) > _TOLD else ""
    return ", ".join(some[:_TOLD]) + more


class Errand(ABC):
    """A step on its way.

    Parameters
    ----------
    terms
        What the target's settings say.
    step, project, perform, on_event
        As a target is given them.
    recipes
        Where an environment is to be made that is like the one here: what from.

    Attributes
    ----------
    inbox
        What guests have said, in order, and that the step is to end.
    handle
        What whoever asked for the step has of it.
    attempt, attempts
        The attempt under way, if one is; and how many there were.
    ended
        When it was told to end; 0 where it was not.
    """

    def __init__(
        self, terms: Terms, step: Step, project: Project, perform: str, on_event: OnEvent | None,
        recipes: Recipes | None = None,
    ) -> None:  # fmt: skip
        self.terms, self.step, self.project, self.perform, self.on_event = terms, step, project, perform, on_event
        self.inbox: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self.handle = Handle(step, self._end)
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.ended = 0.0
        self._parcel = Parcel(files=[])
        self._code = CodeState()
        self._recipes = recipes
        self._recipe: Recipe | None = None
        self._told = False  # whether its guest was told to end

    # -- what is a target's own --------------------------------------------------------------------------------------

    @abstractmethod
    def begin(self) -> Outcome | None:
        """Have a guest come about; an outcome where there will be none."""

    @abstractmethod
    def look(self) -> Outcome | None:
        """See whether there is still somebody to hear from: asked whenever nothing was heard for a while."""

    @abstractmethod
    def ask(self, where: str, visit: str, what: str, *given: Any) -> Any:
        """Speak to a guest.

        Raises
        ------
        Unreachable
            It does not answer, or is gone.
        MlopsError
            It can not do what it is asked.
        """

    @abstractmethod
    def called(self, where: str) -> str:
        """Where a guest is, in a sentence."""

    @abstractmethod
    def differs(self, where: str) -> list[str]:
        """What is other in the environment of a guest than here."""

    @abstractmethod
    def let_go(self, outcome: Outcome) -> None:
        """Let go of whatever there is of the step there, now that there is an outcome."""

    def leave(self, where: str) -> None:  # noqa: B027 - most have nothing to do
        """Hear that there is no more to be said to whoever is there."""

    def listen(self) -> Mapping[str, Any] | None:
        """Wait a while for what a guest says."""
        try:
            return self.inbox.get(timeout=TICK)
        except queue.Empty:
            return None

    # -- its way -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Tell the step to end."""
        self.ended = self.ended or time.monotonic()
        self.inbox.put({"kind": "end"})

    def _end(self) -> None:
        self.stop()
        self.handle.future.result()

    def go(self) -> None:
        """From the first file packed to the outcome."""
        try:
            outcome = self._through()
        except Unreachable as error:
            outcome = self.lost(str(error))
        except MlopsError as error:
            outcome = self.lost(str(error)) if self.attempts else Outcome(status="refused", cause=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is to hear of it
            outcome = self.lost(f"{type(error).__name__}: {error}")
        if self.attempt is not None:
            self.attempt.close()
            self.attempt = None
        try:
            self.let_go(outcome)
        except Exception as error:  # noqa: BLE001 - likewise; the outcome stands
            outcome = msgspec.structs.replace(outcome, notes=[*outcome.notes, f"it was not let go: {error}"])
        tell(self.on_event, Event(kind="ended", step=self.step.name, attempt=outcome.attempts, run=outcome.run,
                                  text=outcome.status))  # fmt: skip
        self.handle.future.set_result(outcome)

    def _through(self) -> Outcome:
        for name in (self.step.notebook, self.step.output):
            if Path(name).is_absolute():
                raise MlopsError(f"{name} is outside of the project", cause="where the step runs is no such folder")
        self._parcel = pack(self.project, self.step, most=self.terms.send_mb * 1_000_000, more=self.terms.files)
        for one in self._parcel.left:
            self.note(f"not sent: {one}")
        self._code = code_of(self.project)
        outcome = self.begin()
        while outcome is None:
            heard = self.listen()
            if heard is not None:
                outcome = self._take(heard)
                continue
            self._catch_up()
            outcome = self.look()
        return outcome

    def _catch_up(self) -> None:
        """Bring home what cells that ended a moment ago have put on record: the next may take long, and be the last."""
        if self.attempt is not None and self.attempt.behind:
            with self._tolerated():
                self.attempt.fetch_record()

    def order(self) -> Order:
        """What a guest is told at first."""
        step = msgspec.structs.replace(self.step, secrets={})
        return Order(
            step=step, perform=self.perform, files=self._parcel.files, code=self._code,
            on_behalf_of=self.project.on_behalf_of, kernels=self.terms.kernels,
        )  # fmt: skip

    def _take(self, heard: Mapping[str, Any]) -> Outcome | None:
        """Hear what a guest says, or that the step is to end."""
        kind, attempt = heard["kind"], self.attempt
        if kind == "end":
            return self._stop()
        if kind == "hello":
            return self._greet(heard)
        if attempt is None or heard["visit"] != attempt.visit:
            return None  # of an attempt that was given up
        try:
            if kind == "event":
                self.pass_on(attempt, decode(str(heard["event"]).encode(), Event))
                return None
            if kind == "spoke":
                for raw in attempt.ask("spoken"):
                    self._tell(attempt, decode(raw, Event))
                return None
            return self._over(attempt)
        except Unreachable as error:
            return self.attempt_lost(str(error))

    def _greet(self, heard: Mapping[str, Any]) -> Outcome | None:
        """Give a guest what it lacks, or tell it not to go on."""
        if self.attempt is not None:  # there would be no other if it still ran
            outcome = self.attempt_lost(f"{self.called(self.attempt.worker)} died or went out of reach")
            if outcome is not None:
                return outcome
        self.attempts += 1
        self.attempt = attempt = Attempt(self.project, heard, self.attempts, self.ask)
        try:
            if self.ended:
                attempt.ask("stop")
                self.attempts -= 1
                return Outcome(status="interrupted", cause="it was told to end", attempts=self.attempts)
            why = self.differs(attempt.worker)
            if why and self.terms.environment == "same":
                with contextlib.suppress(MlopsError):  # it will see that nobody wants it
                    attempt.ask("answer", encode(Answer(go=False)))
                return self.other_environment({attempt.worker: why})
            lock = None
            if why:
                self.note(f"{self.called(attempt.worker)} has {told(why)}")
                lock = self._send_recipe(attempt)
            attempt.send([Digest(one) for one in heard["missing"]], self._parcel)
            answer = Answer(go=True, attempt=self.attempts, secrets=self.step.secrets, lock=lock)
            attempt.ask("answer", encode(answer))
        except Unreachable as error:
            return self.attempt_lost(str(error))
        except NotLocked as error:
            with contextlib.suppress(MlopsError):  # likewise
                attempt.ask("answer", encode(Answer(go=False)))
            return Outcome(status="refused", cause=self.redacted(str(error)), attempts=self.attempts)
        except (MlopsError, OSError) as error:
            with contextlib.suppress(MlopsError):  # likewise
                attempt.ask("answer", encode(Answer(go=False)))
            return self.attempt_lost(f"{self.called(attempt.worker)} could not be given its files: {error}")
        return None

    def _send_recipe(self, attempt: Attempt) -> Digest | None:
        """Send what an environment like the one here is made from, where one is to be made."""
        self._recipe = None
        if self._recipes is None:
            return None
        self._recipe = recipe = self._recipes.recipe(self.project, self.step)
        lacking = attempt.ask("lacks", list(recipe.files))
        attempt.send_files({Digest(one): recipe.files[one] for one in lacking})
        return recipe.lock

    def pass_on(self, attempt: Attempt, event: Event) -> None:
        """Tell of an event, and bring home what is on record by then."""
        attempt.run = event.run or attempt.run
        if event.kind in ("started", "cell ended"):
            with self._tolerated():
                attempt.fetch_record(now=event.kind == "started")
            attempt.behind = True  # what is settled after a cell's end comes later
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
        except Unreachable:
            raise
        except (MlopsError, OSError) as error:
            what = f"what it left could not be brought here: {error}"
            outcome = msgspec.structs.replace(outcome, status="lost", cause=what)
        with contextlib.suppress(Unreachable):  # all is here
            attempt.ask("fetched")
        attempt.close()
        self.attempt = None
        self.leave(attempt.worker)
        if left.gone:
            notes.append(f"it removed {told(left.gone)} there; here they are as they were")
        why = self.differs(attempt.worker)
        if why:
            made = "" if self._recipe is None else (
                f"; the step ran in an environment made there of {self._recipe.packages} packages as they are here"
            )  # fmt: skip
            notes.append(f"{self.called(attempt.worker)} has {told(why)}{made}")
        notes += [f"not sent: {one}" for one in self._parcel.left]
        if not outcome.ok and self._parcel.unasked:
            notes.append(f"not sent: {self._parcel.unasked}")
        status = outcome.status if outcome.ok or not self.ended else "interrupted"
        outcome = msgspec.structs.replace(
            outcome, status=status, notes=notes, attempts=attempt.number, run=outcome.run or attempt.run
        )
        if outcome.status not in ("failed", "lost") or self.attempts > self.step.retries:
            return outcome
        self.note(f"attempt {attempt.number} of {self.step.retries + 1} {outcome.status}: {outcome.why}")
        return None

    def _stop(self) -> Outcome | None:
        if self.attempt is None:
            return Outcome(status="interrupted", cause="it was ended before its turn came", attempts=self.attempts)
        if not self._told:
            self._told = True
            try:
                self.attempt.ask("stop")
            except (Unreachable, MlopsError) as error:
                return self.attempt_lost(str(error))
        return None

    def overdue(self) -> bool:
        """Whether the step was told to end so long ago that it will not do so in order."""
        return bool(self.ended) and time.monotonic() > self.ended + 4 * PATIENCE

    # -- what came of it ---------------------------------------------------------------------------------------------

    def other_environment(self, others: Mapping[str, Sequence[str]]) -> Outcome:
        """What comes of a step for which there is no environment like the one that is here."""
        named = "; ".join(f"{self.called(where)} has {told(why)}" for where, why in list(others.items())[:3])
        return Outcome(status="refused", attempts=1, cause=self.redacted(named))

    def attempt_lost(self, cause: str) -> Outcome | None:
        """Give an attempt up; the step's outcome, if there is to be no other attempt."""
        attempt = self.attempt
        assert attempt is not None
        self.attempt = None
        attempt.close()
        self.leave(attempt.worker)
        if self.attempts <= self.step.retries and not self.ended:
            self.note(f"attempt {attempt.number} of {self.step.retries + 1} lost: {cause}")
            return None
        return self.lost(cause, attempt)

    def lost(self, cause: str, attempt: Attempt | None = None) -> Outcome:
        """What comes of a step of which nobody knows what it came to."""
        attempt = attempt or self.attempt
        run = attempt.run if attempt is not None else None
        if run is not None:
            cause += f"; what it had put on record until then is here (mlops resume {run[7:15]})"
        seconds = round(time.monotonic() - attempt.began, 6) if attempt is not None else 0.0
        return Outcome(
            status="interrupted" if self.ended else "lost", run=run, output=self.step.output, seconds=seconds,
            cause=self.redacted(cause), attempts=max(1, self.attempts),
        )  # fmt: skip

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Let a fetch under way fail: the next one brings what this one did not, or the step's end says why not."""
        try:
            yield
        except (RecordInvalid, Unreachable, MlopsError, OSError) as error:
            self.note(f"its record could not be fetched yet: {error}")

    def note(self, text: str) -> None:
        """Tell whoever listens of something that is to be known."""
        tell(self.on_event, Event(kind="note", step=self.step.name, attempt=self.attempts, text=self.redacted(text)))

    def redacted(self, text: str) -> str:
        """A text that may hold what others said, without secrets."""
        return self.project.redactor().text(text)[0]
