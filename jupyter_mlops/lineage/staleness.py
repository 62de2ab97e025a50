"""Tells whether a notebook as it stands, run from the top, would make what is in memory.

Everything is told from records, and nothing is run. The notebook is walked from its first cell to its last, with the
versions of variables and files as they would be at each place: for a cell that stands as it ran, and that would see
what it saw in one of its runs, the record says what it makes. Where a cell would see something else than it saw, the
walk says what and why; where the record does not tell, it says that.

Versions are compared by content. Where a value has no digest, two versions are the same only if one cell run made both.
"""

from __future__ import annotations

import ast
import builtins
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from jupyter_mlops.lineage.magics import as_python
from jupyter_mlops.lineage.matching import Cell, Done, fold, match, same_code, says_something
from jupyter_mlops.lineage.names import CellNames, names_in
from jupyter_mlops.lineage.statements import aliases_of, cell_of, settings_in
from jupyter_mlops.lineage.volatile import uses_in
from jupyter_mlops.lineage.wording import COME, HAS, IS, IT, ITIS, TOLD, WAS, N, brief, comes, few, worded
from jupyter_mlops.records import Artifact, CellRun, Digest, Gap

NO: Final = "no"
UNKNOWN: Final = "unknown"
NOTE: Final = ""
_GIVEN: Final = frozenset(dir(builtins)) | {"get_ipython", "display", "In", "Out", "exit", "quit", "__name__", "_oh"}
_RESULT: Final = re.compile(r"_+|_\d+|_i+|_i\d+|_ih|_dh")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a cell from being what the notebook says.

    Attributes
    ----------
    kind
        ``stale``, ``order``, ``edited``, ``deleted``, ``hidden``, ``built``, ``failed``, ``never run``, ``randomness``,
        ``time``, ``network``, ``environment``, ``gap``.
    answer
        What it means for a run from the top: ``no``, the cell would not do what it did; ``unknown``, that cannot be
        told; empty, it would all the same.
    reason
        In words.
    cell
        The cell's place among the code cells, from 0; -1 for what belongs to none of them.
    id
        The cell's id in the notebook.
    cell_run
        Its last run.
    names
        Variables, files and modules it is about.
    """

    kind: str
    answer: str
    reason: str
    cell: int = -1
    id: str = ""
    cell_run: Digest | None = None
    names: tuple[str, ...] = ()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a notebook stands against what is in memory.

    Attributes
    ----------
    verdict
        ``yes``, ``no`` or ``cannot tell``: whether run from the top it would make what is in memory.
    cells
        How many code cells have text; `ran` of them have run.
    labels
        What each code cell is called in reasons: ``[7]`` as the notebook shows it, ``cell 4`` where it has not run.
    """

    verdict: str
    findings: tuple[Finding, ...] = ()
    cells: int = 0
    ran: int = 0
    labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.verdict == "yes"


class _At(msgspec.Struct):
    """What a name holds at a place of the walk from the top."""

    artifact: Artifact | None
    run: CellRun | None
    cell: int
    sure: bool = True


class _Version(msgspec.Struct):
    """What a name holds in memory, or a file on record, and the cell run that made it so."""

    artifact: Artifact
    run: CellRun


Disk = Callable[[Artifact], Artifact]
"""A file or module as it is on the disk now: with its digest, or with `why` there is none."""


def staleness(cells: Sequence[Cell], runs: Iterable[CellRun], *, disk: Disk | None = None) -> Standing:
    """Find what keeps a notebook from making what is in memory.

    Parameters
    ----------
    cells
        The code cells as they stand, in their order.
    runs
        The cell runs of one session, oldest first.
    disk
        Looks at a file or module as it is now; without it nothing is said about those.

    Returns
    -------
    Standing
        Its findings in the order of the cells; those that belong to no cell come last.
    """
    return _Walk(cells, runs, disk).standing()


class _Walk:
    def __init__(self, cells: Sequence[Cell], runs: Iterable[CellRun], disk: Disk | None) -> None:
        runs = list(runs)
        self.cells = cells
        self.disk = disk
        self.running = {run.started.cell for run in runs if run.status == "running"} - {""}
        self.modules = {module.name for run in runs if run.ended for module in run.ended.modules}
        self.found: dict[Finding, None] = {}
        self.done = fold(runs)
        self.place = {one.run.id: number for number, one in enumerate(self.done)}
        for number, one in enumerate(self.done):
            self.place.update((inner.id, number) for inner in one.inside)
        self.home, self.of = match(cells, self.done)
        self.last: list[Done | None] = [self.done[found[-1]] if found else None for found in self.of]
        self.labels = tuple(self._label(number) for number in range(len(cells)))
        self.memory: dict[str, _Version] = {}
        self.blind: set[int] = set()  # cells whose text may bind what cannot be read off it
        self.above: dict[str, _At] = {}
        self.files: dict[str, _At] = {}
        self.writers: dict[tuple[str, Digest], CellRun] = {}
        for one in self.done:
            for name in one.removed:
                self.memory.pop(name, None)
            self.memory.update((artifact.name, _Version(artifact, one.run)) for artifact in one.outputs)
            for artifact in one.written:
                if artifact.digest is not None:
                    self.writers[artifact.name, artifact.digest] = one.run

        self.users: dict[tuple[str, Digest], list[int]] = {}  # of what has no digest to tell whether it was changed
        for place, one in enumerate(self.done):
            for artifact in one.inputs:
                if artifact.made is not None and _is_opaque(artifact):
                    self.users.setdefault((artifact.name, artifact.made), []).append(place)
        self._aliases: dict[str, str] = {}
        self._setters: dict[int, frozenset[str]] | None = None
        self.alive: dict[int, list[str]] = {}  # what each cell's runs left in memory
        for name, version in self.memory.items():
            self.alive.setdefault(self.home.get(self._top(version.run), -1), []).append(name)

    def standing(self) -> Standing:
        full = [
            number for number, cell in enumerate(self.cells)
            if says_something(cell.source) and (self.last[number] is not None or cell.id not in self.running)
        ]  # fmt: skip
        modules = self._modules()
        for number in full:
            one = self.last[number]
            if one is None:
                self._never_run(number)
            elif not same_code(self.cells[number].source, one.run.source):
                self._edited(number, one)
            else:
                self._ran(number, one, modules.get(number, {}))
        self._volatile(full)
        self._randomness(full)
        self._in_memory()
        answers = {finding.answer for finding in self.found}
        ran = sum(self.last[number] is not None for number in full)
        verdict = "no" if NO in answers else "cannot tell" if UNKNOWN in answers or not ran else "yes"
        order = sorted(self.found, key=lambda finding: (finding.cell < 0, finding.cell))
        return Standing(verdict=verdict, findings=tuple(order), cells=len(full), ran=ran, labels=self.labels)

    # -- words -------------------------------------------------------------------------------------------------------

    def say(self, kind: str, answer: str, reason: str, cell: int = -1, names: Iterable[str] = ()) -> None:
        one = self.last[cell] if cell >= 0 else None
        finding = Finding(
            kind=kind, answer=answer, reason=reason, cell=cell, id=self.cells[cell].id if cell >= 0 else "",
            cell_run=one.run.id if one is not None else None, names=tuple(names),
        )  # fmt: skip
        self.found[finding] = None

    def _label(self, number: int) -> str:
        one = self.last[number]
        return f"[{one.run.started.count}]" if one is not None else f"cell {number + 1}"

    def by(self, run: CellRun | None) -> str:
        """Call the cell that a run belongs to by its name."""
        if run is None:
            return "no recorded cell"
        cell = self.home.get(self._top(run))
        if cell is None:
            return f"a cell that is no longer there ([{run.started.count}] {brief(run.source)})"
        one = self.last[cell]
        if one is not None and not same_code(self.cells[cell].source, run.source):
            return f"{self.labels[cell]} as it was before it was edited ({brief(run.source)})"
        return self.labels[cell]

    def _top(self, run: CellRun) -> int:
        return self.place[run.id]

    def _run(self, digest: Digest | None) -> CellRun | None:
        """The run of this session that a digest names."""
        number = self.place.get(digest) if digest is not None else None
        return self.done[number].run if number is not None else None

    # -- a cell that has not run, or not as it stands ----------------------------------------------------------------

    def _never_run(self, number: int) -> None:
        names = names_in(as_python(self.cells[number].source))
        self._missing(number, names.reads | _deleted(self.cells[number].source, names))
        own = {name for name in names.reads if name not in _GIVEN and not _RESULT.fullmatch(name)}
        touched = sorted(own | names.deletes | (names.writes & self.memory.keys()))
        if names.syntax_error:
            self.say("never run", NO, "is no Python, and has not run", number)
        elif touched or names.opaque:
            what = few(touched) or few(names.opaque)
            self.say("never run", UNKNOWN, f"has not run in this session: what it does to {what} is not known", number,
                     touched)  # fmt: skip
        else:
            self.say("never run", NOTE, "has not run in this session; it touches nothing that is in memory", number)
        self._unknown_from(number, names.writes, names.deletes, opaque=bool(names.opaque) or _stars(self.cells[number]))

    def _edited(self, number: int, one: Done) -> None:
        cell = self.cells[number]
        names = names_in(as_python(cell.source))
        self._missing(number, names.reads | _deleted(self.cells[number].source, names))
        alive = self.alive.get(number, [])
        if names.syntax_error:
            self.say("edited", NO, "edited since it ran, and no Python now", number, alive)
        elif alive:
            self.say("edited", NO, f"edited since it ran: {few(alive)} in memory {comes(alive)} from what it was"
                     f" ({brief(one.run.source)})", number, alive)  # fmt: skip
        else:
            self.say("edited", UNKNOWN, f"edited since it ran ({brief(one.run.source)}): its effect is not known",
                     number)  # fmt: skip
        made = {artifact.name for artifact in one.outputs}
        self._unknown_from(number, names.writes | (made & names.reads), names.deletes,
                           opaque=bool(names.opaque) or _stars(cell))  # fmt: skip

    def _unknown_from(self, number: int, writes: Iterable[str], deletes: Iterable[str], *, opaque: bool) -> None:
        for name in deletes:
            self.above.pop(name, None)
        for name in writes:
            self.above[name] = _At(None, None, number, sure=False)
        if opaque:
            self.blind.add(number)

    def _missing(self, number: int, reads: Iterable[str]) -> None:
        """Say what a text looks up that nothing above it makes."""
        missing = sorted(
            name for name in reads
            if name not in self.above and name not in _GIVEN and not _RESULT.fullmatch(name)
        )  # fmt: skip
        if not missing or self.blind:
            return
        inside = [name for name in missing if name in self.memory]
        for name in inside:
            self.say("hidden", NO, f"reads `{name}`, which no cell above it makes; it is in memory from"
                     f" {self.by(self.memory[name].run)}", number, [name])  # fmt: skip
        rest = [name for name in missing if name not in self.memory]
        if rest:
            self.say("hidden", UNKNOWN, f"may read {few(rest)}, which no cell above it makes", number, rest)

    # -- a cell that stands as it ran --------------------------------------------------------------------------------

    def _ran(self, number: int, one: Done, modules: Mapping[str, str]) -> None:
        if one.run.status != "done":
            how = {"syntax": "is no Python"}.get(one.run.status, "was cut off" if one.run.status == "interrupted" else
                                                 "ended by an error")  # fmt: skip
            error = one.run.ended.error if one.run.ended else ""
            self.say("failed", NO, f"{how} when it last ran: a run from the top stops here"
                     + (f" ({brief(error)})" if error else ""), number)  # fmt: skip
        sure = self._seen(number, one) and one.run.status == "done"
        witness = one
        if not sure:
            for place in reversed(self.of[number][:-1]):
                other = self.done[place]
                if other.run.status == "done" and same_code(other.run.source, one.run.source) and self._fits(other):
                    witness, sure = other, True
                    break
        for path, reason in modules.items():
            self.say("stale", NO, reason, number, [path])
        imported = _bound_by_import(self.cells[number].source, modules) if modules else frozenset()
        for name in witness.removed:
            if self.above.pop(name, None) is None and not self.blind:
                self.say("hidden", NO, f"deletes `{name}`, which no cell above it leaves there", number, [name])
        for artifact in witness.outputs:
            self.above[artifact.name] = _At(artifact, witness.run, number, sure and artifact.name not in imported)
        for artifact in witness.written:
            self.files[artifact.name] = _At(artifact, witness.run, number, sure)
        self._gaps(number, one)
        self._used_between(number, one)
        self._set_up(number, one)

    def _used_between(self, number: int, one: Done) -> None:
        """Say what has no digest, and was used by other cells before than those that stand above."""
        here = self._top(one.run)
        names = []
        for artifact in one.inputs:
            users = self.users.get((artifact.name, artifact.made), ()) if artifact.made is not None else ()
            before = {self.home.get(place, -1) for place in users if place < here}
            above = {
                cell for place in users
                if (cell := self.home.get(place, -1)) in range(number) and self.last[cell] is self.done[place]
            }  # fmt: skip
            if before != above:
                names.append(artifact.name)
        if names:
            reason = f"whether {N} {IS} as it was cannot be told: used in another order than the cells stand"
            self.say("hidden", UNKNOWN, worded(f"{reason}, and without a digest", names), number, names)

    def _set_up(self, number: int, one: Done) -> None:
        """Say what was set up for a cell by others than stand above it."""
        if self._setters is None:
            for run in self.done:
                if "import" in run.run.source:
                    self._aliases.update(aliases_of(cell_of(run.run.source)))
            found = ((place, settings_in(run.run.source, self._aliases)) for place, run in enumerate(self.done))
            self._setters = {place: roots for place, roots in found if roots}
        if not self._setters:
            return
        here = self._top(one.run)
        used = {artifact.type.partition(".")[0] for artifact in (*one.inputs, *one.outputs)}
        used |= {self._aliases.get(artifact.name, "").partition(".")[0] for artifact in one.inputs}
        used |= {"os"} if one.read or one.written else set()
        for root in sorted({root for roots in self._setters.values() for root in roots} & used):
            places = [place for place, roots in self._setters.items() if root in roots and place != here]
            before = {self.home.get(place, -1) for place in places if place < here} - {number}
            above = {cell for place in places if (cell := self.home.get(place, -1)) in range(number)}
            for cell in sorted(before ^ above):
                who = self.labels[cell] if cell >= 0 else "a cell that is no longer there"
                when = "had set it up, and does not stand above" if cell in before else "stands above, and ran after it"
                self.say("order", UNKNOWN, f"uses `{root}`: {who} {when}", number)

    def _fits(self, one: Done) -> bool:
        """Whether a run saw exactly what the notebook would give it at this place."""
        variables = all(
            (at := self.above.get(artifact.name)) is not None and at.sure and self._alike(at, artifact)
            for artifact in one.inputs
        )
        return variables and all(
            (at := self.files.get(file.name)) is None or (at.sure and _same(at, file) is True) for file in one.read
        )

    def _seen(self, number: int, one: Done) -> bool:
        """Compare what a cell saw with what it would see, and say where they differ."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        sure = True
        for artifact in one.inputs:
            kind, answer, reason = self._differs(number, one, artifact, self.above.get(artifact.name))
            if kind:
                groups.setdefault((kind, answer, reason), []).append(artifact.name)
            sure = sure and not kind
        for file in one.read:
            at = self.files.get(file.name)
            kind, answer, reason = (
                self._differs(number, one, file, at) if at is not None else self._on_disk(number, file)
            )
            if kind:
                groups.setdefault((kind, answer, reason), []).append(file.name)
            sure = sure and (not kind or answer == NOTE)
        for (kind, answer, reason), names in groups.items():
            self.say(kind, answer, worded(reason, names), number, names)
        return sure

    def _differs(self, number: int, one: Done, read: Artifact, at: _At | None) -> tuple[str, str, str]:
        """Kind, answer and reason, where a cell would see another version than it saw; the kind is empty otherwise."""
        maker = self._run(read.made)
        made_at = self.home.get(self._top(maker)) if maker is not None else None
        if at is None:
            return self._from_nowhere(number, read, maker, made_at)
        if at.artifact is None:
            return "built", NOTE, f"built on {self.labels[at.cell]} ({N}), which has not run as it stands"
        same = self._alike(at, read)
        if same:
            if at.sure:
                return "", "", ""
            return "built", NOTE, f"built on {self.labels[at.cell]} ({N}), which does not stand as it ran"
        assert at.run is not None
        if same is None:
            later = self._top(at.run) > self._top(one.run)
            since = f"made anew by {self.by(at.run)}" if later else f"made by {self.by(maker)} when it ran"
            return (
                "hidden",
                UNKNOWN,
                f"whether {N} {IS} what it read cannot be told: {since}, and without a digest",
            )
        if self._top(at.run) > self._top(one.run):
            first = self.of[at.cell][0]
            if first > self._top(one.run):
                return "order", NO, f"ran before {self.labels[at.cell]}, which stands above it and makes {N}"
            return "stale", NO, f"{N} {WAS} changed since it ran, by {self.by(at.run)}"
        if maker is None:
            return (
                "hidden",
                UNKNOWN,
                (f"{N} {WAS} not as {self.labels[at.cell]} above had left {IT}: changed by no recorded cell"),
            )
        if made_at is None or not same_code(self.cells[made_at].source, maker.source):
            return "hidden", NO, f"reads {N} as left by {self.by(maker)}"
        if made_at == number:
            return (
                "order",
                NO,
                (f"ran again on what it had left: from the top it sees {N} as {self.labels[at.cell]} leaves it"),
            )
        if made_at > number:
            return "order", NO, f"reads {N} as {self.labels[made_at]}, which stands below it, had left it"
        if not at.sure:
            return "built", NOTE, f"built on {self.labels[at.cell]} ({N}), which does not stand as it ran"
        return (
            "order",
            NO,
            (f"read {N} as {self.labels[made_at]} left it; as the cells stand {self.labels[at.cell]} comes between"),
        )

    def _alike(self, at: _At, other: Artifact, by: CellRun | None = None) -> bool | None:
        """Whether two versions are the same: of modules, whether the cells that bound them import the same one."""
        assert at.artifact is not None
        same = _same(at, other)
        if same is None and at.artifact.type == other.type == "module":
            mine, theirs = (_module_of(run, other.name) for run in (at.run, by or self._run(other.made)))
            return True if mine == theirs else None if not (mine and theirs) else False
        return same

    def _from_nowhere(
        self, number: int, read: Artifact, maker: CellRun | None, made_at: int | None
    ) -> tuple[str, str, str]:
        if maker is None:
            if read.type in ("module", "builtin_function_or_method") and read.digest is None:
                return "", "", ""
            before = "from before recording began, or from no recorded cell"
            return "hidden", UNKNOWN, f"reads {N}, which no cell above it makes: {ITIS} {before}"
        if self.blind:
            return "hidden", UNKNOWN, f"reads {N}, which may or may not come from {self._blind_words()}"
        if made_at is not None and made_at > number and same_code(self.cells[made_at].source, maker.source):
            return "order", NO, f"reads {N}, which is made by {self.labels[made_at]} below it and by no cell above"
        if made_at == number:
            return "hidden", NO, f"ran again on what it had left itself: no cell above it makes {N}"
        return "hidden", NO, f"reads {N}, which no cell above it makes now: {ITIS} from {self.by(maker)}"

    def _blind_words(self) -> str:
        return few([self.labels[number] for number in sorted(self.blind)], quote="")

    # -- files, modules ----------------------------------------------------------------------------------------------

    def _on_disk(self, number: int, file: Artifact) -> tuple[str, str, str]:
        """Where no cell above writes a file, the disk has to have what was read."""
        if self.disk is None or file.name.startswith("package:") or file.name in self.modules:
            return "", "", ""
        now = self.disk(file)
        if file.digest is None or now.digest is None:
            why = now.why if file.digest is not None else file.why
            return "gap", UNKNOWN, f"whether the file {N} is what it read cannot be told: {why or 'no digest'}"
        if now.digest == file.digest:
            maker = self._run(file.made)
            if maker is not None and (made_at := self.home.get(self._top(maker))) is None:
                return "hidden", NOTE, f"reads the file {N}, which was written by {self.by(maker)} and is still there"
            if maker is not None and made_at is not None and made_at > number:
                return "order", NOTE, f"reads the file {N} as {self.labels[made_at]} below it wrote {IT}"
            return "", "", ""
        writer = self.writers.get((file.name, now.digest))
        return "stale", NO, f"{N} {HAS} changed on disk since it ran, by {self.by(writer)}"

    def _modules(self) -> dict[int, dict[str, str]]:
        """Local modules that are not on disk as they are in memory: reasons, by the cell that imports them."""
        if self.disk is None:
            return {}
        held: dict[str, tuple[Artifact, int]] = {}
        for place, one in enumerate(self.done):
            for artifact in one.run.ended.modules if one.run.ended else ():
                held[artifact.name] = artifact, place
        found: dict[int, dict[str, str]] = {}
        for path, (artifact, place) in held.items():
            if artifact.digest is None:
                continue
            now = self.disk(artifact)
            if now.digest == artifact.digest:
                continue
            cell = self._importer(artifact.type, path, place)
            if now.digest is None:
                reason = f"whether the module `{path}` is still what was imported cannot be told: {now.why}"
                self.say("gap", UNKNOWN, reason, -1 if cell is None else cell, [path])
                continue
            reason = f"the module `{path}` has changed on disk since it was imported: memory has the old one"
            if cell is None:
                self.say("stale", NO, reason, names=[path])
            else:
                found.setdefault(cell, {})[path] = reason
        return found

    def _importer(self, module: str, path: str, place: int) -> int | None:
        """The cell that imports a module: by its text, else the one in which it was first seen."""
        name = module or path.rpartition("/")[2].removesuffix(".py")
        pattern = re.compile(rf"^\s*(?:import|from)\b[^\n]*\b{re.escape(name)}\b", re.MULTILINE)
        for number, cell in enumerate(self.cells):
            if pattern.search(cell.source):
                return number
        return self.home.get(place)

    # -- what the text and the generators say ------------------------------------------------------------------------

    def _volatile(self, full: Sequence[int]) -> None:
        for number, uses in zip(full, uses_in([self.cells[number].source for number in full]), strict=True):
            one = self.last[number]
            lasting = one is None or bool(one.outputs or one.written or one.run.logged)
            for use in uses:
                words = {
                    "time": "takes the time", "network": "asks the network", "environment": "reads the environment",
                    "randomness": "takes fresh randomness",
                }[use.what]  # fmt: skip
                through = f", through `{use.through}`" if use.through else ""
                self.say(use.what, UNKNOWN if lasting else NOTE, f"{words}: `{use.call}`{through}", number)
            for source in one.run.ended.sources if one is not None and one.run.ended else ():
                self.say("network", UNKNOWN, f"reads `{source.name}`: whether it still says the same is not known",
                         number, [source.name])  # fmt: skip

    def _randomness(self, full: Sequence[int]) -> None:
        drawn: dict[str, list[tuple[int, int]]] = {}
        for number in full:
            one = self.last[number]
            for generator, how in (one.run.ended.randomness if one is not None and one.run.ended else {}).items():
                if how == "seeded" or one is None:
                    continue
                if _only_code(one):
                    words = f"a library that it loads drew from `{generator}`, and no seed precedes; it made no data"
                    self.say("randomness", NOTE, words, number, [generator])
                else:
                    self.say("randomness", NO, f"draws from `{generator}`, and no seed precedes", number, [generator])
        seeded: dict[str, list[int]] = {}
        for place, one in enumerate(self.done):
            for generator, how in (one.run.ended.randomness if one.run.ended else {}).items():
                if how != "seeded":
                    continue
                if generator in _seeds(one.run.source):
                    seeded[generator] = []
                seeded.setdefault(generator, []).append(place)
                drawn[generator] = [(self.home.get(one_, -1), one_) for one_ in seeded[generator]]
        for generator, order in drawn.items():
            cells = [cell for cell, _ in order]
            if cells == sorted(set(cells)) and -1 not in cells:
                continue
            culprit = next((cell for before, cell in itertools.pairwise(cells) if cell <= before), cells[-1])
            said = ", ".join(self.by(self.done[place].run) for _, place in order[:TOLD])
            self.say("randomness", NO, f"`{generator}` was seeded, and then drawn from in another order than the cells"
                     f" stand: {said}" + (" …" if len(order) > TOLD else ""), culprit, [generator])  # fmt: skip

    def _gaps(self, number: int, one: Done) -> None:
        if not one.gaps:
            return
        told = {name for finding in self.found if finding.cell == number for name in finding.names}
        for gap in one.gaps:
            if (gap.blocks or _unsure(gap)) and gap.subject not in told:
                self.say("gap", UNKNOWN, f"`{gap.subject}`: {gap.reason}", number, [gap.subject])

    # -- memory ------------------------------------------------------------------------------------------------------

    def _in_memory(self) -> None:
        """Compare what the walk ends with and what is in memory."""
        groups: dict[tuple[str, str, str, int], list[str]] = {}
        edited = {name for finding in self.found if finding.kind == "edited" for name in finding.names}
        told = {(finding.cell, name) for finding in self.found if finding.answer == NO for name in finding.names}
        for name, version in self.memory.items():
            cell = self.home.get(self._top(version.run))
            if name in edited or (cell, name) in told:
                continue
            kind, answer, reason = self._ends(name, version, cell)
            if kind:
                groups.setdefault((kind, answer, reason, -1 if cell is None else cell), []).append(name)
        for (kind, answer, reason, cell), names in groups.items():
            self.say(kind, answer, worded(reason, names), cell, names)

    def _ends(self, name: str, version: _Version, cell: int | None) -> tuple[str, str, str]:
        at = self.above.get(name)
        if at is None:
            if self.blind:
                return "hidden", UNKNOWN, f"{N} in memory may or may not come from {self._blind_words()} as it stands"
            if cell is None:
                return "deleted", NO, f"{N} in memory {COME} from {self.by(version.run)}, and no cell makes {IT}"
            return (
                "hidden",
                NO,
                f"{N} in memory {COME} from an earlier run of {self.labels[cell]}, or would be deleted",
            )
        if at.artifact is None and cell is None:
            return "deleted", NO, f"{N} in memory {COME} from {self.by(version.run)}"
        if at.artifact is None:
            return "", "", ""  # the cell that was edited or never ran has its finding
        same = self._alike(at, version.artifact, version.run)
        if same:
            return "", "", ""
        assert at.run is not None
        if cell is None:
            return (
                "deleted",
                NO,
                (
                    f"{N} in memory {IS} as left by {self.by(version.run)}; as the cells stand {self.labels[at.cell]}"
                    " has the last word"
                ),
            )
        if not at.sure:
            return "", "", ""  # what it was built on has its finding
        if same is None:
            return (
                "hidden",
                UNKNOWN,
                (
                    f"whether {N} in memory {IS} what {self.labels[at.cell]} makes cannot be told: without a digest,"
                    f" and last touched by {self.by(version.run)}"
                ),
            )
        if cell == at.cell:
            return (
                "order",
                NO,
                f"ran {len(self.of[cell])} times: {N} in memory {IS} not what one run makes",
            )
        return (
            "order",
            NO,
            (f"{N} in memory {IS} as this cell left it; as the cells stand {self.labels[at.cell]} has the last word"),
        )


def _same(at: _At, other: Artifact) -> bool | None:
    """Whether two versions are the same; None where that cannot be told."""
    one = at.artifact
    assert one is not None
    if one.digest is not None and other.digest is not None:
        return one.digest == other.digest
    maker = one.made or (at.run.id if at.run is not None else None)
    if other.made is not None and other.made == maker:
        return True
    return None


def _is_opaque(one: Artifact) -> bool:
    """Whether nothing tells if a version was changed: it has no digest, and that is not for want of time."""
    return one.digest is None and not one.is_code and not one.why.startswith(("secret", "over the", "called off"))


def _module_of(run: CellRun | None, name: str) -> str:
    """Which module a cell run's imports call by a name; empty where its text does not say."""
    return "" if run is None or "import" not in run.source else aliases_of(cell_of(run.source)).get(name, "")


def _deleted(source: str, names: CellNames) -> frozenset[str]:
    """Names that have to be there for a text to delete them; the names of ``except … as`` are its own."""
    return names.deletes if re.search(r"\bdel\b", source) else frozenset()


def _only_code(one: Done) -> bool:
    """Whether all that a run left behind is modules, functions and classes, as imports do."""
    return all(out.is_code for out in one.outputs) and not one.written and not one.run.logged


def _stars(cell: Cell) -> bool:
    return re.search(r"^\s*from\s+\S+\s+import\s+\*", cell.source, re.MULTILINE) is not None


@functools.lru_cache(maxsize=4096)
def _seeds(source: str) -> frozenset[str]:
    return names_in(as_python(source)).seeds if "seed" in source or "state" in source else frozenset()


def _bound_by_import(source: str, modules: Mapping[str, Any]) -> frozenset[str]:
    """The names that a cell imports from local modules."""
    stems = {path.rpartition("/")[2].removesuffix(".py") for path in modules}
    stems |= {part for path in modules for part in path.removesuffix(".py").split("/")}
    try:
        tree = ast.parse(as_python(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()  # it did run, so IPython could read it: then nothing is told from its text
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and stems & set((node.module or "").split(".")):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if stems & set(alias.name.split(".")):
                    found.add(alias.asname or alias.name.partition(".")[0])
    return frozenset(found)


def _unsure(gap: Gap) -> bool:
    """A gap that leaves open what a cell read or changed."""
    return gap.subject in ("threads", "variables") or gap.reason.startswith("what it reads and changes")
