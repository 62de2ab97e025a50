"""What comes into the records that a server has open, told as it comes: each fact once, whoever put it there.

The record is where everything meets that is done in a page, a cell, a shell, in CI or on another machine: so what is
told is read there, and nobody who does something has to tell of it too. What was on record before a page first asked
for a project is not told.

Looking is asking the index whether a file of lines has grown, which it does for every page anyway. It is done by one
thread, which then rests a hundred times as long as looking took, and at least a second: however large the records are,
it takes at most a hundredth of that thread's time. File systems tell of changes too, but not over a network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.checks import APPROVAL
from jupyter_mlops.records import CheckResult, Digest, ModelVersion, RecordInvalid, RunEnded, Transition
from jupyter_mlops.store import NotFound

if TYPE_CHECKING:
    from jupyter_mlops.records import Line
    from jupyter_mlops.server.answers import Reading
    from jupyter_mlops.store import Store

_REST: Final = 1.0  # seconds, at least
_SHARE: Final = 100  # times as long as a look took
_BATCH: Final = 20  # facts that are told without a pause, in which the server does other things
_PAUSE: Final = 0.02
_KINDS: Final = (RunEnded, Transition, CheckResult)
_MODELS: Final = "models/"


class Telling:
    """Follows records that are open. Threads may share it.

    Parameters
    ----------
    tell
        Takes what is to be told: a schema's name, and the facts; from any thread.
    still
        Gives the records that are open, as they are now.
    """

    def __init__(self, tell: Callable[[str, dict[str, Any]], None], still: Callable[[], Iterable[Reading]]) -> None:
        self._tell, self._still = tell, still
        self._known: dict[Path, _Known] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, reading: Reading) -> None:
        """Follow a record, if it is not followed yet: from what is in it now."""
        known = self._of(reading)
        if known.mark is None:
            self._look(known)

    def look(self, reading: Reading) -> None:
        """Tell now what has come into a record."""
        self._look(self._of(reading))

    def close(self) -> None:
        """Tell of nothing more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(5)  # longer it waits for a disk: it is a daemon

    def _of(self, reading: Reading) -> _Known:
        with self._lock:
            known = self._known.get(reading.project.root)
            if known is None or known.reading is not reading:  # another store has come to stand there
                known = self._known[reading.project.root] = _Known(reading)
            if self._thread is None and not self._over.is_set():
                self._thread = threading.Thread(target=self._follow, name="mlops-telling", daemon=True)
                self._thread.start()
            return known

    def _follow(self) -> None:
        rest = _REST
        while not self._over.wait(rest):
            began = time.perf_counter()
            for reading in self._still():
                self.look(reading)
            rest = max(_REST, _SHARE * (time.perf_counter() - began))

    def _look(self, known: _Known) -> None:
        with known.lock:
            try:
                for count, (schema, facts) in enumerate(known.news(), 1):
                    if self._over.is_set():
                        return
                    self._tell(schema, facts)
                    if count % _BATCH == 0:
                        time.sleep(_PAUSE)
                known.failed = ""
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a store, pages are answered, and it is told later
                self._say(known, error)

    def _say(self, known: _Known, error: Exception) -> None:
        """Log what keeps a record from being followed, once until it is another thing."""
        from tornado.log import app_log

        said = f"{type(error).__name__}: {error}"
        if said != known.failed:
            known.failed = said
            app_log.warning("jupyter_mlops can not tell of what comes into %s: %s", known.reading.root, said)


class _Known:
    """What has been told of a record, or was there before.

    Attributes
    ----------
    mark
        As `Questions.mark` was when it was last looked at; None: nothing is known yet.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.lock = threading.Lock()
        self.mark: str | None = None
        self.failed = ""
        self._names: set[Digest] = set()

    def news(self) -> Iterable[tuple[str, dict[str, Any]]]:
        """What has come since, each with its schema; nothing the first time."""
        store = self.reading.store
        mark = store.mark()
        if mark == self.mark:
            return
        names = store.names(*_KINDS)
        for name in names if self.mark is not None else ():
            if name not in self._names:
                found = _news(store, name)
                self._names.add(name)  # told or not: it is looked at once
                if found is not None:
                    schema, facts = found
                    facts["project"] = self.reading.root
                    yield schema, {key: value for key, value in facts.items() if value not in (None, "", [])}
        self._names.update(names)
        self.mark = mark


def _news(store: Store, name: Digest) -> tuple[str, dict[str, Any]] | None:
    """What is to be told of a record: a schema's name, and the facts; None where it is nothing to be told, or lost."""
    try:
        line = store.line(name)
        match line.record:
            case Transition() as move if move.ref.startswith(_MODELS):
                return "model", _moved(store, line, move)
            case CheckResult(check=check) as result if check == APPROVAL:
                return "model", _approved(store, line, result)
            case RunEnded() as ended:
                return "run", _ended(store, line, ended)
    except (NotFound, RecordInvalid):  # damaged or gone since: `fsck` names it
        pass
    return None


def _moved(store: Store, line: Line, move: Transition) -> dict[str, Any]:
    model, _, alias = move.ref.removeprefix(_MODELS).partition("@")
    if not alias:
        action = "registered"
    elif move.refused:
        action = "refused"
    else:
        action = "promoted" if move.checks else "rolled back"  # which asks no gate
    failed = [one.check for digest in move.checks if (one := _check(store, digest)) is not None and not one.passed]
    return {
        "action": action, "model": model, "alias": alias, "version": _version(store, model, move.new),
        "old": _version(store, model, move.old) if alias else None, "by": move.by, "reason": move.reason,
        "tickets": [one.id for one in move.tickets], "failed": failed, "lacking": list(move.lacking),
        "id": line.digest, "time": line.envelope.time,
    }  # fmt: skip


def _check(store: Store, digest: Digest) -> CheckResult | None:
    try:
        record = store.line(digest).record
    except (NotFound, RecordInvalid):  # `fsck` names it
        return None
    return record if isinstance(record, CheckResult) else None


def _approved(store: Store, line: Line, result: CheckResult) -> dict[str, Any]:
    record = store.line(result.subject).record
    model = record.name if isinstance(record, ModelVersion) else ""
    tickets = result.evidence.get("tickets")
    return {
        "action": "approved" if result.passed else "withdrawn", "model": model,
        "version": _version(store, model, result.subject) if model else None, "by": result.by,
        "reason": result.summary, "tickets": [str(one) for one in tickets] if isinstance(tickets, list) else [],
        "id": line.digest, "time": line.envelope.time,
    }  # fmt: skip


def _version(store: Store, model: str, digest: Digest | None) -> int | None:
    if digest is None:
        return None
    return next((move.number for move in store.moves_back(f"{_MODELS}{model}") if move.transition.new == digest), None)


def _ended(store: Store, line: Line, ended: RunEnded) -> dict[str, Any]:
    run = store.run(ended.run)
    started = run.started
    return {
        "action": "ended", "run": run.id, "status": ended.status, "trigger": started.trigger,
        "notebook": started.notebook, "user": started.user, "on_behalf_of": started.on_behalf_of,
        "parent": started.parent, "seconds": ended.seconds, "tickets": [one.id for one in started.tickets],
        "id": line.digest, "time": line.envelope.time,
    }  # fmt: skip
