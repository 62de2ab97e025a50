"""The comparison of two moments: `Namespace`, what it notes before a cell, and what it says after it."""

from __future__ import annotations

import builtins
import os
import re
import threading
import types
import weakref
from collections.abc import Callable, Container, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from jupyter_mlops.fingerprints import (
    Budget,
    Fingerprint,
    Stretch,
    facts_bytes,
    fingerprint,
    holdings,
    immutable,
    numbers,
    starts,
    summable,
)
from jupyter_mlops.lineage import NOTHING, CellNames, names_until
from jupyter_mlops.lineage.reader import BLIND
from jupyter_mlops.namespace.holding import Holders
from jupyter_mlops.namespace.moments import Lookout, Moment
from jupyter_mlops.namespace.reach import NOWHERE, Reach, own_state, reach
from jupyter_mlops.records import Artifact, Digest, Gap, digest_of

_IPYTHON: Final = re.compile(
    r"_|__|___|_i|_ii|_iii|_i\d+|_\d+|_ih|_oh|_dh|_sh|_exit_code|_pydev\w*|In|Out|exit|quit|get_ipython|__\w+__"
)
_RESULT: Final = re.compile(r"_\d+")
_BACKGROUND: Final = (
    "ipykernel", "IPython", "zmq", "tornado", "traitlets", "debugpy", "pydevd", "_pydevd_bundle", "jupyter_client",
    "tqdm", "jupyter_mlops",
)  # fmt: skip
_OURS: Final = ("mlops-", "jupyter-mlops")  # how all threads of this package are named
_GONE: Final = object()
_ALL: Final = 2_000_000  # objects followed where there is time
_BEFORE_US: Final = "made by no recorded cell"


class Before(msgspec.Struct):
    """What was noted before a cell; handed back to `Namespace.after`.

    Attributes
    ----------
    names
        What the cell's text says.
    inputs
        The variables it reads, each in the version it had before the cell.
    after
        The cell runs that made them.
    """

    names: CellNames = NOTHING
    source: str = ""
    inputs: dict[str, Artifact] = {}
    after: dict[Digest, None] = {}
    gaps: list[Gap] = []
    facts: dict[Digest, bytes] = {}
    off: bool = False
    reached: list[Reach] = []
    mentioned: set[str] = set()
    stores: set[str] = set()
    early: set[str] = set()
    inside: bool = False
    there: frozenset[str] | None = None


class Delta(msgspec.Struct, frozen=True):
    """What a cell did to the variables.

    Attributes
    ----------
    inputs
        What it read, in the version before the cell.
    outputs
        What it bound or changed, in the version after it.
    removed
        Names that are gone.
    after
        The cell runs it builds on, each once.
    gaps
        What could not be told.
    facts
        Objects that the artifacts' `facts` name, to be stored.
    pending
        How many values are still being fingerprinted; `Namespace.settle` brings them.
    """

    inputs: list[Artifact] = []
    outputs: list[Artifact] = []
    removed: list[str] = []
    after: list[Digest] = []
    gaps: list[Gap] = []
    facts: dict[Digest, bytes] = {}
    pending: int = 0


class Settled(NamedTuple):
    """What was found out about a cell run after its end."""

    cell_run: Digest
    outputs: list[Artifact]
    gaps: list[Gap]
    facts: dict[Digest, bytes]


class _Ref(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that knows its variable's name, so that its callback can be a function in C.

    A callback in Python is where an interrupt that came during a long call is raised when the call's result takes the
    place of the old object; and what a callback raises is dropped. The user's interrupt would be lost.
    """

    __slots__ = ("name",)
    name: str


class Seen(NamedTuple):
    """A variable now: its value, its version if that is known, and what another look is compared with."""

    value: Any
    artifact: Artifact | None
    stamp: tuple[int, Artifact | None, Digest | None]


class _Entry:
    """A variable as it was last seen, without a reference to its value."""

    __slots__ = ("artifact", "checked", "constant", "costly", "id", "made", "own", "reach", "ref", "touched")

    def __init__(self, value: object, artifact: Artifact, made: Digest | None, reach: Reach, checked: int) -> None:
        self.id = id(value)
        self.ref: weakref.ref[Any] | None = None
        self.artifact = artifact
        self.made = made
        self.touched: Digest | None = None  # a later cell that may have changed it, where its content cannot tell
        self.reach = reach
        self.own: Digest | None = None  # of its own state, where its fingerprint tells also of globals it uses
        self.checked = checked
        self.constant = False  # cannot change in place
        self.costly = False  # did not fit the budget when it was last tried

    def holds(self, value: object) -> bool | None:
        """Whether a value is still the object that was seen; None where an identity is no proof."""
        if self.id != id(value):
            return False
        if self.ref is not None:
            return self.ref() is value
        return None


class _Late(NamedTuple):
    """A value whose fingerprint has to wait for an idle kernel."""

    name: str
    identity: int
    cell_run: Digest
    bound: bool
    old: Digest | None


class Namespace:
    """The variables of one kernel.

    Parameters
    ----------
    user_ns
        The kernel's variables. They are only ever read.
    budget
        Seconds that fingerprints may take at once, before a cell and after it.
    hidden
        Names the kernel itself put there and people do not count as theirs.
    secret
        Whether a variable's name or value is secret: it gets no digest then.

    Examples
    --------
    >>> from jupyter_mlops.lineage import names_in
    >>> variables = {}
    >>> namespace = Namespace(variables)
    >>> source = "xs = [1, 2]"
    >>> before = namespace.before(source, names_in(source))
    >>> exec(source, variables)
    >>> delta = namespace.after(before, "blake3:" + "0" * 64)
    >>> [output.name for output in delta.outputs]
    ['xs']
    """

    def __init__(
        self,
        user_ns: dict[str, Any],
        *,
        budget: float = 0.25,
        hidden: Callable[[], Container[str]] | None = None,
        secret: Callable[[str, object], bool] | None = None,
        numbers: bool = False,
    ) -> None:
        self._ns = user_ns
        self._numbers = numbers
        self.patience = budget
        """Seconds that fingerprints may take at once."""
        self._owed: list[Gap] = []
        self._hidden = hidden or frozenset
        self._nobodys: Container[str] = ()
        self._secret = secret
        self._pid = os.getpid()
        self._closed = False
        self._entries: dict[str, _Entry] = {}
        self._holders = Holders()
        self._dead: list[weakref.ref[Any]] = []
        self._lost: dict[str, Digest] = {}
        self._results: dict[str, Digest] = {}
        self._unweak: set[type] = set()
        self._tick = 0
        self._doubt = 0  # what was last checked at this tick or before may have been changed by nobody we see
        self._open: list[Before] = []
        self._known: dict[int, weakref.ref[threading.Thread]] = {}  # threads that are nobody's, by identity
        for thread in threading.enumerate():
            self._know(thread)
        self._late: list[_Late] = []
        self._settled: list[Settled] = []
        self._worker: threading.Thread | None = None
        self._working: Budget | None = None
        self._lock = threading.Lock()
        self._nobodys = self._hidden()
        self._lookout = Lookout(user_ns, self._visible)
        self._then = self._lookout.look().without_values()

    # -- before a cell -----------------------------------------------------------------------------------------------

    def before(self, source: str, names: CellNames) -> Before:
        """Note what a cell is about to read.

        Parameters
        ----------
        source
            The cell's text.
        names
            What `lineage.names_in` read in it.
        """
        if self._off():
            return Before(off=True)
        self._join()
        self._tick += 1
        self._nobodys = self._hidden()
        now = self._lookout.look()
        self._lookout.arrived.clear()  # what came until now is none of this cell's results
        owed, self._owed = self._owed, []
        before = Before(names=names, source=source, inside=bool(self._open), gaps=owed)
        self._drift(now)
        if self._others():
            self._doubt = self._tick - 1
        if names.reads or names.writes:
            self._look(before, now)
        if names.deletes:
            before.there = frozenset(now)
        self._open.append(before)
        return before

    def _look(self, before: Before, now: Moment) -> None:
        """Follow the names a cell mentions, through the functions it may call, and note their versions."""
        budget = Budget(self.patience)
        hidden = self._nobodys
        seen: dict[int, Fingerprint] = {}
        waiting = list(before.names.reads)
        blind = dict.fromkeys(before.names.opaque)
        while waiting:
            name = waiting.pop()
            if name in before.mentioned:
                continue
            value = now.get(name, _GONE)
            if value is _GONE:  # the kernel's own, or a builtin
                value = dict.get(self._ns, name, _GONE)
                if value is _GONE:
                    if name in BLIND:
                        blind[name] = None
                    continue
            if type(value) is types.BuiltinFunctionType and value.__name__ in BLIND and value.__self__ is builtins:
                blind[value.__name__] = None
            before.mentioned.add(name)
            if name in hidden or _IPYTHON.fullmatch(name):
                found = reach(value, self._ns)
                if name in self._results:
                    before.after[self._results[name]] = None
            else:
                found = self._read(before, name, value, budget, seen)
            before.reached.append(found)
            before.stores |= found.stores
            waiting.extend(found.loads)
            waiting.extend(found.stores)
        if len(blind) > len(before.names.opaque):  # a function that it may call is as blind as its own text
            before.names = msgspec.structs.replace(before.names, opaque=tuple(blind))

    def _read(self, before: Before, name: str, value: Any, budget: Budget, seen: dict[int, Fingerprint]) -> Reach:
        entry = self._entries.get(name)
        unproved: Artifact | None = None
        if entry is None or not self._trusted(entry, value):
            entry, unproved = self._checked(before, name, value, entry, budget, seen)
        artifact = unproved or entry.artifact
        if entry.made is not None:
            before.after[entry.made] = None
        if entry.touched is not None:
            before.after[entry.touched] = None
        before.inputs[name] = artifact
        return entry.reach

    def _trusted(self, entry: _Entry, value: Any) -> bool:
        same = entry.holds(value)
        if same is False:
            return False
        if entry.checked <= self._doubt:
            return False
        # what holds more than could be followed may have been changed through another name that nobody connects with it
        return (same is True and entry.reach.complete) or entry.constant or entry.checked >= self._tick - 1

    def _checked(
        self, before: Before, name: str, value: Any, entry: _Entry | None, budget: Budget,
        seen: dict[int, Fingerprint],
    ) -> tuple[_Entry, Artifact | None]:  # fmt: skip
        """Fingerprint a value that is about to be read and whose version is not proved.

        Returns
        -------
        tuple
            What is known of it, and how it is on record where there was no time to prove that.
        """
        if entry is not None and entry.holds(value) and (entry.costly or self._unchanged(entry, value, budget)):
            return entry, None
        artifact = self._artifact(name, value, budget, seen, before.facts)
        if entry is not None and entry.holds(value) is not False:
            if artifact.digest == entry.artifact.digest:
                entry.checked = self._tick
                return entry, None
            if _late(artifact):
                return entry, msgspec.structs.replace(artifact, made=entry.made)
        if entry is not None and self._open:
            # a cell inside a cell: the outer one did it, and will say so
            self._open[-1].early.add(name)
        elif entry is not None or name in self._lost:
            made = entry.made if entry is not None else self._lost[name]
            since = f" since cell run {made.partition(':')[2][:10]}" if made else ""
            before.gaps.append(
                Gap(subject=name, reason=f"changed{since}, by no recorded cell{self._and_threads()}", blocks=True)
            )
        elif not _shared_by_all(value):
            before.gaps.append(Gap(subject=name, reason=_BEFORE_US, blocks=True))
        return self._enter(name, value, artifact, None), None

    def leave(self, before: Before) -> None:
        """Take back that a cell is about to run: it does not, or another look is taken before it does."""
        self._close_cell(before)
        self._owed += before.gaps

    # -- after a cell ------------------------------------------------------------------------------------------------

    def after(
        self, before: Before | None, cell_run: Digest, *, failed: bool = False, line: int = 0, beside: bool = False
    ) -> Delta:
        """Say what a cell read, bound, changed and removed.

        Parameters
        ----------
        before
            What `before` returned for this cell; None where recording began inside it.
        cell_run
            The cell run's name: what it made is known by it from now on.
        failed
            The cell ended by an error, so that it may not have bound all it names.
        line
            Where it did, if that is known: in the cell's text as `before` was given it.
        beside
            Another cell ran at the same time, in another thread or task: neither knows what the other did.
        """
        if before is None:
            before = Before()
        if before.off or self._off():
            return Delta()
        self._close_cell(before)
        self._nobodys = self._hidden()
        now = self._lookout.look()
        threads = self._others()
        if threads or beside or _doubtful(before.names):
            self._doubt = self._tick
        if failed and line and (reached := names_until(before.source, line)) is not None:
            before.names, failed = msgspec.structs.replace(reached, opaque=before.names.opaque), False
        gaps = before.gaps
        changed, removed = self._moved(now, before)
        self._note_results(cell_run)
        bound = self._bound(before, now, changed, failed=failed)
        pass_ = _Pass(self, before, now, cell_run, Budget(self.patience))
        for name in bound:
            pass_.bind(name, sure=name in changed or name not in before.names.maybe)
        pass_.share()
        if _doubtful(before.names):
            gaps.append(Gap(subject=", ".join(before.names.opaque), reason="what it reads and changes cannot be told"))
        if threads and pass_.outputs:
            gaps.append(Gap(subject="threads", reason=f"changes may be theirs: {threads}"))
        if beside:
            gaps.append(Gap(subject="variables", reason="another cell ran at the same time: changes may be its"))
        self._then = now.without_values()
        pending = self._postpone(pass_.late, gaps)
        return Delta(
            inputs=list(before.inputs.values()), outputs=list(pass_.outputs.values()), removed=removed,
            after=[one for one in before.after if one != cell_run], gaps=gaps, facts=before.facts, pending=pending,
        )  # fmt: skip

    def _close_cell(self, before: Before) -> None:
        for index in range(len(self._open) - 1, -1, -1):
            if self._open[index] is before:
                del self._open[index]
                return

    def _moved(self, now: Moment, before: Before) -> tuple[set[str], list[str]]:
        """Names whose object is another one than before, and names that are gone."""
        moved, gone = now.since(self._then)
        changed = set(moved)
        removed = sorted(name for name in gone if self._visible(name)) if gone else gone
        for name in removed:
            self._forget(name)
        if before.early:
            changed.update(name for name in before.early if name in now)
        if self._dead:
            count = len(self._dead)  # the list itself stays: the weak references' callbacks know it
            dead = {one.name for one in self._dead[:count] if type(one) is _Ref}
            del self._dead[:count]
            changed.update(name for name in dead if name in now and self._died(name, now))
        return changed, removed

    def _died(self, name: str, now: Moment) -> bool:
        entry = self._entries.get(name)
        return entry is not None and entry.holds(now[name]) is False

    def _bound(self, before: Before, now: Moment, changed: set[str], *, failed: bool) -> list[str]:
        names = before.names
        bound = dict.fromkeys(changed)
        for name in (*names.writes, *(before.stores if before.stores else ())):
            if name in bound or name not in now or not self._visible(name):
                continue
            entry = self._entries.get(name)
            if (
                (failed or name in names.maybe or name not in names.writes)
                and entry is not None
                and entry.holds(now[name])
            ):
                continue  # the very object it was: this way through the cell did not bind it
            bound[name] = None
        unsure = names.writes if failed else names.maybe
        if before.stores or failed:
            sure = names.writes - unsure
            before.names = msgspec.structs.replace(names, maybe=unsure | (before.stores - sure))
        return list(bound)

    def _note_results(self, cell_run: Digest) -> None:
        """Remember which cell left ``_`` and its like behind."""
        counted = [name for name in self._lookout.arrived if name not in self._results and _RESULT.fullmatch(name)]
        self._lookout.arrived.clear()
        if counted:
            results = self._results
            for name, previous in (("___", "__"), ("__", "_")):
                if previous in results:
                    results[name] = results[previous]
            results["_"] = cell_run
            results.update(dict.fromkeys(counted, cell_run))

    # -- versions ----------------------------------------------------------------------------------------------------

    def version(self, name: str) -> Artifact | None:
        """The variable's present version, or None where there is no such variable.

        Inside a cell it is fingerprinted anew, since the cell may have changed it.
        """
        if self._off():
            return None
        try:
            value = dict.__getitem__(self._ns, name)
        except KeyError:
            return None
        entry = self._entries.get(name)
        if entry is not None and not self._open and self._trusted(entry, value):
            return entry.artifact
        artifact = self._artifact(name, value, Budget(self.patience), {}, {})
        if entry is not None and artifact.digest is not None and artifact.digest == entry.artifact.digest:
            return entry.artifact
        return artifact

    def versions(self) -> dict[str, Seen]:
        """The variables as they are now, each as it was last seen; values are referred to while the answer is."""
        found: dict[str, Seen] = {}
        for name, value in self._mine():
            entry = self._entries.get(name)
            if entry is None or entry.id != id(value):
                found[name] = Seen(value, None, (id(value), None, None))
            else:
                artifact = entry.artifact if entry.touched is None else None
                found[name] = Seen(value, artifact, (id(value), entry.artifact, entry.touched))
        return found

    def _mine(self) -> list[tuple[str, Any]]:
        return [one for one in dict.copy(self._ns).items() if type(one[0]) is str and self._visible(one[0])]

    def visible(self, name: str) -> bool:
        """Whether a name is one that people count as theirs."""
        return self._visible(name)

    def sharing(self, names: Iterable[str]) -> set[str]:
        """Names that share an object with some of these, or with one that does; these among them."""
        return set().union(*self.shared(names))

    def shared(self, names: Iterable[str]) -> list[set[str]]:
        """The names that share with some of these, apart: no two of the answer's sets share anything."""
        own: dict[str, set[int]] = {}
        stretches: dict[str, set[Stretch]] = {}
        frozen: dict[str, frozenset[Stretch]] = {}
        for name, value in self._mine():
            held = NOWHERE if immutable(value) else reach(value, self._ns, nodes=_ALL)
            own[name] = set(held.objects.union(held.axes))
            stretches[name], frozen[name] = set(held.owned | held.lent), held.frozen
            for ref in held.axes.values():
                if (index := ref()) is not None:
                    under = holdings(index)
                    own[name] |= under.objects
                    stretches[name] |= under.owned | under.lent
        holders: dict[int, set[str]] = {}
        begins = starts(one for found in (*stretches.values(), *frozen.values()) for one in found)
        written = {begins[one] for found in stretches.values() for one in found}
        for name, objects in own.items():
            objects.update(begins[one] for one in stretches[name])
            objects.update(written.intersection(begins[one] for one in frozen[name]))
            for one in objects:
                holders.setdefault(one, set()).add(name)
        found: list[set[str]] = []
        seen: set[str] = set()
        for first in names:
            waiting, group = [first], set[str]()
            while waiting:
                name = waiting.pop()
                if name not in seen and name in own:
                    seen.add(name)
                    group.add(name)
                    for one in own[name]:
                        waiting.extend(holders.pop(one, ()))
            found += [group] if group else []
        return found

    def facts(self) -> dict[Digest, bytes]:
        """Objects that describe what was fingerprinted while the kernel was idle and is not on record yet."""
        with self._lock:
            return {digest: data for one in self._settled for digest, data in one.facts.items()}

    def wait(self, budget: Budget) -> None:
        """Wait until what was postponed is fingerprinted, or the budget is cancelled."""
        while (worker := self._worker) is not None and worker.is_alive():
            budget.check()
            worker.join(0.02)

    def restored(self, artifacts: dict[str, Artifact | None]) -> None:
        """Take note that variables were bound to what they were before, or removed: nobody made them anew.

        Parameters
        ----------
        artifacts
            The versions they have again, by name; those that are no more are not bound.
        """
        now = self._lookout.look()
        for name, artifact in artifacts.items():
            self._forget(name)
            self._lost.pop(name, None)
            if name in now and artifact is not None:
                self._enter(name, now[name], artifact, artifact.made)
        for before in self._open:
            before.early -= artifacts.keys()
        self._then = now.without_values()

    @property
    def threads(self) -> str:
        """The user's threads that are alive; empty where there are none."""
        return self._others()

    def _artifact(
        self, name: str, value: Any, budget: Budget, seen: dict[int, Fingerprint], facts: dict[Digest, bytes]
    ) -> Artifact:
        if type(value) is types.ModuleType:
            return Artifact(name=name, kind="variable", type="module", why="a module is known by its name and version")
        if self._secret is not None and self._secret(name, value):
            return Artifact(name=name, kind="variable", why="secret")
        found = seen.get(id(value))
        if found is None:
            summary = self._numbers and summable(value)
            found = seen[id(value)] = fingerprint(value, budget=budget, summary=summary)
        facts_digest = None
        if found.facts:
            raw = facts_bytes(found.facts)
            facts_digest = digest_of(raw)
            facts[facts_digest] = raw
        return Artifact(
            name=name, kind="variable", digest=found.digest, size=found.size, type=found.type, facts=facts_digest,
            why=found.why, numbers=numbers(value) if self._numbers and found.digest else [],
        )  # fmt: skip

    def _unchanged(self, entry: _Entry, value: Any, budget: Budget) -> bool:
        """Whether a value that uses globals is itself what it was, whatever has become of them."""
        return entry.own is not None and entry.own == fingerprint(own_state(value, self._ns), budget=budget).digest

    def _enter(self, name: str, value: Any, artifact: Artifact, made: Digest | None) -> _Entry:
        """Note a variable as it is now."""
        if made is not None:
            artifact = msgspec.structs.replace(artifact, made=made)
        old = self._entries.get(name)
        constant = immutable(value)
        entry = _Entry(value, artifact, made, NOWHERE if constant else reach(value, self._ns), self._tick)
        entry.constant = constant or _shared_by_all(value)
        if not constant:
            entry.ref = self._weak(name, value)
        if entry.reach.loads:
            entry.own = fingerprint(own_state(value, self._ns), budget=Budget(self.patience)).digest
        self._holders.replace(name, NOWHERE if old is None else old.reach, entry.reach)
        self._entries[name] = entry
        self._lost.pop(name, None)
        return entry

    def _weak(self, name: str, value: Any) -> weakref.ref[Any] | None:
        if type(value) in self._unweak:
            return None
        try:
            made = _Ref(value, self._dead.append)
        except TypeError:
            self._unweak.add(type(value))
            return None
        made.name = name
        return made

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._holders.remove(name, entry.reach)

    # -- between cells -----------------------------------------------------------------------------------------------

    def _drift(self, now: Moment) -> None:
        """Take in what changed while no cell was known to run."""
        moved, gone = now.since(self._then)
        for name in moved:
            if not self._visible(name):
                continue
            if self._open:
                self._open[-1].early.add(name)
            else:
                entry = self._entries.get(name)
                if entry is not None and entry.made is not None:
                    self._lost[name] = entry.made
            self._forget(name)
        for name in gone:
            self._forget(name)
        if moved or gone:
            self._then = now.without_values()

    def _visible(self, name: str) -> bool:
        return name not in self._nobodys and not _IPYTHON.fullmatch(name)

    def _others(self) -> str:
        """The user's threads that are alive, as text; empty where there are none."""
        threads = threading.enumerate()
        if all(map(self._known.__contains__, map(id, threads))):
            return ""
        found = []
        for thread in threads:
            if id(thread) in self._known:
                continue
            if (type(thread).__module__ or "").startswith(_BACKGROUND) or thread.name.startswith(_OURS):
                self._know(thread)
            else:
                found.append(thread.name)
        return ", ".join(sorted(found)[:5])

    def _know(self, thread: threading.Thread) -> None:
        known, identity = self._known, id(thread)
        known[identity] = weakref.ref(thread, lambda _: known.pop(identity, None))

    def _and_threads(self) -> str:
        threads = self._others()
        return f"; threads are running: {threads}" if threads else ""

    def _off(self) -> bool:
        return self._closed or os.getpid() != self._pid

    # -- while the kernel is idle ------------------------------------------------------------------------------------

    def _postpone(self, late: Iterable[_Late], gaps: list[Gap]) -> int:
        late = list(late)
        if not late:
            return 0
        reason = (
            "another cell goes on" if self._open else f"threads are running: {self._others()}" if self._others() else ""
        )
        if reason:
            gaps.extend(
                Gap(subject=one.name, reason=f"not fingerprinted: over the budget, and {reason}") for one in late
            )
            return 0
        self._late.extend(late)
        self.idle()
        return len(late)

    def idle(self) -> None:
        """Go on with what did not fit the budget, in the background, until the next cell starts."""
        if self._off() or not self._late or self._open or (self._worker is not None and self._worker.is_alive()):
            return
        self._working = Budget(threads=1)
        late, self._late = self._late, []
        self._worker = threading.Thread(
            target=self._work, args=(late, self._working), name="jupyter-mlops-fingerprints", daemon=True
        )
        self._worker.start()

    def _work(self, late: list[_Late], budget: Budget) -> None:
        for one in late:
            self._settle_one(one, budget)

    def _settle_one(self, one: _Late, budget: Budget) -> None:
        facts: dict[Digest, bytes] = {}
        artifact: Artifact | None = None
        value = self._ns.get(one.name)
        if not budget.cancelled and id(value) == one.identity:
            artifact = self._artifact(one.name, value, budget, {}, facts)
        del value
        with self._lock:
            entry = self._entries.get(one.name)
            if artifact is None or artifact.digest is None or entry is None or entry.id != one.identity:
                why = (
                    artifact.why
                    if artifact is not None and not budget.cancelled
                    else "the next cell began before it was done"
                )
                gap = Gap(subject=one.name, reason=f"not fingerprinted: {why}")
                self._settled.append(Settled(one.cell_run, [], [gap], {}))
                if entry is not None and entry.id == one.identity:
                    entry.costly = True
                return
            if not one.bound and artifact.digest == one.old:
                entry.checked = self._tick
                entry.touched = None
                return
            artifact = msgspec.structs.replace(artifact, made=one.cell_run)
            entry.artifact, entry.made, entry.checked, entry.costly = artifact, one.cell_run, self._tick, False
            entry.touched = None
            self._settled.append(Settled(one.cell_run, [artifact], [], facts))

    def _join(self) -> None:
        """Give the background the budget to end, then call it off: from here on its values may change."""
        worker = self._worker
        if worker is None:
            return
        if worker.is_alive():
            worker.join(self.patience)
            if worker.is_alive() and self._working is not None:
                self._working.cancel()
                worker.join()
        self._worker = None

    def settle(self) -> list[Settled]:
        """What was found out since, about cells that have ended."""
        if self._off():
            return []
        if not self._settled:
            return []
        with self._lock:
            settled, self._settled = self._settled, []
        return settled

    def close(self) -> None:
        """Stop; nothing is noted from here on."""
        self._closed = True
        if os.getpid() != self._pid:
            return
        if self._working is not None:
            self._working.cancel()
        if self._worker is not None:
            self._worker.join(1.0)
        self._entries.clear()
        self._holders.clear()


class _Pass:
    """One look at the variables after a cell."""

    def __init__(self, namespace: Namespace, before: Before, now: Moment, cell_run: Digest, budget: Budget) -> None:
        self.of = namespace
        self.before = before
        self.now = now
        self.cell_run = cell_run
        self.budget = budget
        self.seen: dict[int, Fingerprint] = {}
        self.facts: dict[Digest, bytes] = before.facts
        self.outputs: dict[str, Artifact] = {}
        self.late: list[_Late] = []
        self.done: set[str] = set()
        self.same: set[str] = set()
        self.reached = before.reached

    def bind(self, name: str, *, sure: bool) -> None:
        """Note a name that the cell bound; not `sure`: unless its content is what it was."""
        value = self.now[name]
        old = self.of._entries.get(name)
        if not sure and old is not None and old.id == id(value):
            self.look_again(name)
            return
        artifact = self.of._artifact(name, value, self.budget, self.seen, self.facts)
        self.done.add(name)
        if old is not None and old.id == id(value) and name in self.before.names.likely:
            # the loop that may have bound it may have gone through nothing, and left the very object that it was:
            # no look at the variables tells these two apart, so it counts as bound, and builds on who made it before
            self.before.after.update(dict.fromkeys(one for one in (old.made, old.touched) if one is not None))
        entry = self.of._enter(name, value, artifact, self.cell_run)
        self.reached.append(entry.reach)
        self.outputs[name] = entry.artifact
        if _late(artifact):
            self.late.append(_Late(name, id(value), self.cell_run, bound=True, old=None))

    def share(self) -> None:
        """Look again at every variable that shares an object with what the cell mentions, or an index it changed."""
        if any(one.objects for one in self.reached):
            self._again(self.of._holders.touched(self.reached))
            self._again(self.of._holders.moved(self.reached, self.same))

    def _again(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.done and name in self.now:
                self.look_again(name)

    def look_again(self, name: str) -> None:
        value = self.now[name]
        of = self.of
        entry = of._entries[name]
        self.done.add(name)
        if entry.constant:
            return
        if of._unchanged(entry, value, self.budget):
            self.same.add(name)
            self.refresh(name, entry, value)
            return
        artifact = of._artifact(name, value, self.budget, self.seen, self.facts)
        if artifact.digest is not None and artifact.digest == entry.artifact.digest:
            self.same.add(name)
            self.refresh(name, entry, value)
        elif artifact.digest is None and entry.artifact.digest is None and not _late(artifact):
            # its content cannot tell: whoever reads it next builds on this cell as well, and so on those before it
            if entry.touched is not None:
                self.before.after[entry.touched] = None
            entry.touched = self.cell_run
            self.refresh(name, entry, value)
        elif _late(artifact):
            self.late.append(_Late(name, id(value), self.cell_run, bound=False, old=entry.artifact.digest))
            self.build_on(name, entry)
            entry.touched = self.cell_run
            self.refresh(name, entry, value)
        else:
            self.build_on(name, entry)
            entry = of._enter(name, value, artifact, self.cell_run)
            self.outputs[name] = entry.artifact

    def build_on(self, name: str, entry: _Entry) -> None:
        """What is changed through another name is made of what it was: its maker is one that this cell builds on."""
        self.before.inputs.setdefault(name, entry.artifact)
        for one in (entry.made, entry.touched):
            if one is not None:
                self.before.after[one] = None

    def refresh(self, name: str, entry: _Entry, value: Any) -> None:
        """Equal content may be held by other objects by now."""
        of = self.of
        entry.checked = of._tick
        found = reach(value, of._ns)
        of._holders.replace(name, entry.reach, found)
        entry.reach = found


def _late(artifact: Artifact) -> bool:
    return artifact.digest is None and artifact.why.startswith(("over the budget", "called off"))


def _doubtful(names: CellNames) -> bool:
    return bool(names.opaque)


def _shared_by_all(value: Any) -> bool:
    """Modules, and the functions of others: nobody's variables, though a name points to them."""
    return type(value) is types.ModuleType or (
        type(value) is types.BuiltinFunctionType and type(value.__self__) is types.ModuleType
    )
