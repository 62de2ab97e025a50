"""Why a cell gave something else than it did: what the record knows to have changed, or never to have been fixed.

A cause is *proved* where two digests, versions or values on record differ: data, code, packages, what a source
answered, a variable of the environment. It is *possible* where the record only says that the cell depends on something
it cannot hold: a generator without a seed, the time, the network. Nothing is blamed that the record does not name;
where it names nothing, that is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from jupyter_mlops.environment import EnvironmentDiff
from jupyter_mlops.lineage.volatile import Use, uses_in
from jupyter_mlops.records import CellRun, Digest, short
from jupyter_mlops.reproduce.comparing import Difference, Sides, columns_changed, facts_of

_NOT_DEFINED: Final = re.compile(r"^NameError: name '(\w+)' is not defined")
_NOT_THERE: Final = re.compile(r"^FileNotFoundError: .*")
_READ_BY_LIBRARIES: Final = re.compile(
    r"PYTHONHASHSEED|(?:OMP|OPENBLAS|MKL|BLIS|NUMEXPR|KMP|VECLIB|CUDA|CUBLAS|NVIDIA|TF|POLARS)_.*|XLA_FLAGS|JAX_.*|"
    r"LANG|LANGUAGE|LC_.*|TZ"
)
"""Variables, recorded with their values, that change numbers, orders and texts of cells that ask for none."""
KINDS: Final = (
    "code", "data", "package", "python", "network", "environment variable", "hidden state", "order", "randomness",
    "time", "masked", "machine", "unknown",
)  # fmt: skip
"""The kinds of causes, those first that explain more."""


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a cell differs.

    Attributes
    ----------
    kind
        One of `KINDS`.
    what
        In words: which file and column, which package from what to what, which generator.
    cell
        The cell run it is about; empty where it concerns them all.
    proved
        Whether two facts on record differ; else the cell is known to depend on what no record holds.
    """

    kind: str
    what: str
    cell: Digest | None = None
    proved: bool = True


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file whose content is not what it was when the run read it.

    Attributes
    ----------
    kind
        ``data`` or ``code``.
    name
        Its path; of a cell, how it is called.
    why
        What is known of it: its size then and now, that it is gone.
    """

    kind: str
    name: str
    why: str = ""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the two runs as wholes.

    Attributes
    ----------
    old, new
        The cell runs, pair by pair; None where one was not run again.
    order
        Per cell of `old`, its place in the order in which it was run again.
    environment
        How the second environment differs from the recorded one, in what the run used.
    changes
        Files and cells that are not what they were.
    masked
        Modules in which secrets were masked, so that they could not be brought back as they were.
    all_cells
        All cell runs of the recorded run, those among them that were not run again.
    """

    old: Sequence[CellRun]
    new: Sequence[CellRun | None]
    sides: Sides
    order: Sequence[int]
    environment: EnvironmentDiff
    changes: Sequence[Change] = ()
    masked: Sequence[str] = ()
    all_cells: Sequence[CellRun] = ()


def origins(situation: Situation, differences: Mapping[int, Sequence[Difference]]) -> list[int]:
    """The differing cells whose difference is their own: all that they read was the same as before.

    A value without a digest counts as the same: `causes` looks at the cells that made it.
    """
    found: list[int] = []
    for at in sorted(differences):
        new = situation.new[at]
        if new is None or _same_inputs(situation.old[at], new) or not found:
            found.append(at)
    return found


def _same_inputs(old: CellRun, new: CellRun) -> bool:
    before, after = ({one.name: one.digest for one in (*run.inputs, *run.files_read)} for run in (old, new))
    external = {one.name for run in (old, new) for one in run.files_read if one.made is None}
    return all(
        before[name] == after[name] or name in external for name in before.keys() & after.keys()
    )  # fmt: skip


def causes(situation: Situation, at: int) -> list[Cause]:
    """Why the cell at a place differs, those first that explain more; never none."""
    uses = uses_in([one.source for one in situation.old])
    found: list[Cause] = []
    for place in _concerned(situation, at):
        old, new = situation.old[place], situation.new[place]
        found += _data(situation, old, new)
        found += _network(old, new, uses[place])
        found += _variables(situation, old, uses[place])
        found += _hidden(situation, old, new)
        found += _order(situation, place)
        found += _randomness(old, uses[place])
        found += [
            Cause(kind="time", what=f"{_cell(old)} asks for the time ({_call(use)})", cell=old.id, proved=False)
            for use in uses[place]
            if use.what == "time"
        ]
    found += _code(situation, at)
    found += _packages(situation)
    found += [Cause(kind="masked", what=f"secrets are masked in {name}", proved=False) for name in situation.masked]
    found += _libraries(situation) if not found else []
    found += _machine(situation) if not any(one.proved for one in found) else []
    if not found:
        found.append(Cause(kind="unknown", what="nothing that is on record has changed", proved=False))
    unique = list({(one.kind, one.what): one for one in found}.values())
    return sorted(unique, key=lambda one: (not one.proved, KINDS.index(one.kind)))


def _concerned(situation: Situation, at: int) -> list[int]:
    """The cell itself, and those that made what it read and has no digest to be compared by."""
    place = {run.id: number for number, run in enumerate(situation.old)}
    found: dict[int, None] = {}
    waiting = [at]
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        found[number] = None
        for one in situation.old[number].inputs:
            if one.digest is None and one.made in place and one.type != "module":
                waiting.append(place[one.made])
    return list(found)


def _cell(run: CellRun) -> str:
    return f"cell {run.started.cell or run.started.count or short(run.id)}"


def _call(use: Use) -> str:
    return f"{use.call} in {use.through}" if use.through else use.call


def _data(situation: Situation, old: CellRun, new: CellRun | None) -> list[Cause]:
    """Files that the cell read and that are not what they were, with the columns that show it."""
    changed = {one.name: one for one in situation.changes if one.kind == "data"}
    found = []
    again = {one.name: one.digest for one in new.files_read} if new is not None else {}
    for one in old.files_read:
        change = changed.get(one.name)
        if change is None and (one.made is not None or one.name not in again or again[one.name] in (one.digest, None)):
            continue
        if change is None and any(other.name == one.name for other in situation.changes):
            continue
        columns = _columns(situation, old, new)
        words = f"{one.name} changed"
        if columns:
            words += f": column{'s' * (len(columns) > 1)} {', '.join(columns[:6])}" + (" …" if len(columns) > 6 else "")
        if change is not None and change.why:
            words += f" ({change.why})"
        found.append(Cause(kind="data", what=words, cell=old.id))
    error = new.ended.error if new is not None and new.ended else ""
    if not found and old.status == "done" and _NOT_THERE.match(error):
        what = f"{_cell(old)} looks for a file that it is not on record to have read ({error})"
        found.append(Cause(kind="data", what=what, cell=old.id, proved=False))
    return found


def _columns(situation: Situation, old: CellRun, new: CellRun | None) -> list[str]:
    """The columns that differ in the tables the cell made from what it read."""
    if new is None:
        return []
    after = {one.name: one for one in new.outputs}
    found: dict[str, None] = {}
    for one in old.outputs:
        other = after.get(one.name)
        if other is not None and one.digest != other.digest:
            names = columns_changed(facts_of(one, situation.sides.old), facts_of(other, situation.sides.new))
            found.update(dict.fromkeys(names))
    return list(found)


def _network(old: CellRun, new: CellRun | None, uses: Iterable[Use]) -> list[Cause]:
    before, after = (
        {(one.name, one.query): one for one in run.ended.sources} if run is not None and run.ended else {}
        for run in (old, new)
    )
    found = []
    for key in before.keys() & after.keys():
        one, other = before[key], after[key]
        if one.digest is not None and other.digest is not None and one.digest != other.digest:
            found.append(Cause(kind="network", what=f"{one.name} answered something else", cell=old.id))
        elif one.digest is None or other.digest is None:
            what = f"{_cell(old)} asks {one.name}, whose answer is not on record"
            found.append(Cause(kind="network", what=what, cell=old.id, proved=False))
    for key in before.keys() - after.keys():
        found.append(Cause(kind="network", what=f"{before[key].name} was not asked, or did not answer", cell=old.id))
    if not found and not before:
        found += [
            Cause(kind="network", what=f"{_cell(old)} uses the network ({_call(use)})", cell=old.id, proved=False)
            for use in uses
            if use.what == "network"
        ]
    return found


def _variables(situation: Situation, old: CellRun, uses: Iterable[Use]) -> list[Cause]:
    asked = [use for use in uses if use.what == "environment"]
    told = {name: (before, after) for name, before, after in situation.environment.variables}
    found = []
    named = False
    for name, (before, after) in sorted(told.items()):
        if name in old.source:
            named = True
            found.append(Cause(kind="environment variable", what=_changed(name, before, after), cell=old.id))
    if not named:
        found += [
            Cause(
                kind="environment variable", cell=old.id, proved=False,
                what=f"{_cell(old)} reads the environment ({_call(use)}), whose values are not on record",
            )
            for use in asked
        ]  # fmt: skip
    return found


def _changed(name: str, before: str | None, after: str | None) -> str:
    was, now = (value if value is not None else "(not set)" for value in (before, after))
    return f"{name}: {was} → {now}"


def _hidden(situation: Situation, old: CellRun, new: CellRun | None) -> list[Cause]:
    """What the cell used and no recorded cell made."""
    again = {one.name for one in new.inputs} if new is not None else set()
    names = [one.name for one in old.inputs if one.made is None and one.name not in again]
    lacking = _NOT_DEFINED.search(new.ended.error) if new is not None and new.ended else None
    if lacking is not None:
        names.append(lacking[1])
    made = {one.name for run in situation.all_cells for one in run.outputs}
    found = [
        Cause(kind="hidden state", what=f"{_cell(old)} used {name}, which no recorded cell made", cell=old.id)
        for name in dict.fromkeys(names)
        if name not in made
    ]
    for gap in old.gaps:
        if gap.blocks and gap.subject == "session":
            found.append(Cause(kind="hidden state", what=f"{_cell(old)}: {gap.reason}", cell=old.id, proved=False))
    return found


def _order(situation: Situation, at: int) -> list[Cause]:
    """What the cell used and that was made, this time, only after it, or by an older run of a cell."""
    place = {run.id: number for number, run in enumerate(situation.old)}
    cells = {run.id: run for run in situation.all_cells}
    own = situation.old[at]
    found = []
    for one in own.inputs:
        maker = cells.get(one.made) if one.made is not None else None
        if maker is None:
            continue
        number = place.get(maker.id)
        if number is None:
            later = [run for run in situation.old if run.started.cell == maker.started.cell]
            how = "which was run once more" if later else "which is not in the notebook any more"
        elif situation.order[number] > situation.order[at]:
            how = "which stands after it"
        else:
            continue
        what = f"{_cell(own)} used {one.name} as {_cell(maker)} had made it, {how}"
        found.append(Cause(kind="order" if number is not None or later else "hidden state", what=what, cell=own.id))
    return found


def _randomness(old: CellRun, uses: Iterable[Use]) -> list[Cause]:
    moved = old.ended.randomness if old.ended else {}
    found = [
        Cause(kind="randomness", what=f"{name} is not seeded before {_cell(old)}", cell=old.id, proved=False)
        for name, how in sorted(moved.items())
        if how == "unseeded"
    ]
    found += [
        Cause(kind="randomness", what=f"{_cell(old)} draws what cannot be drawn again ({_call(use)})", cell=old.id,
              proved=False)
        for use in uses
        if use.what == "randomness"
    ]  # fmt: skip
    return found


def _code(situation: Situation, at: int) -> list[Cause]:
    own = situation.old[at]
    found = []
    for one in situation.changes:
        if one.kind == "code":
            what = f"{one.name} changed" + (f" ({one.why})" if one.why else "")
            found.append(Cause(kind="code", what=what, cell=own.id))
    new = situation.new[at]
    if new is not None and new.source != own.source and not any(_cell(own) in one.what for one in found):
        found.append(Cause(kind="code", what=f"{_cell(own)} changed", cell=own.id))
    return found


def _packages(situation: Situation) -> list[Cause]:
    changed = situation.environment
    found = [
        Cause(kind="package", what=f"{old.name} {old.loaded or old.version} → {new.loaded or new.version}")
        for old, new in changed.changed
        if (old.loaded or old.version) != (new.loaded or new.version)
    ]
    found += [Cause(kind="package", what=f"{one.name} {one.version} is not installed") for one in changed.removed]
    found += [
        Cause(kind="python", what=f"{what} {old} → {new}")
        for what, old, new in changed.facts
        if what in ("python", "implementation")
    ]
    return found


def _libraries(situation: Situation) -> list[Cause]:
    """Variables that libraries read without the cell asking: how many threads, which kernels, which language."""
    return [
        Cause(kind="environment variable", what=_changed(name, before, after), proved=False)
        for name, before, after in situation.environment.variables
        if _READ_BY_LIBRARIES.fullmatch(name)
    ]


def _machine(situation: Situation) -> list[Cause]:
    return [
        Cause(kind="machine", what=f"{what} {old} → {new}", proved=False)
        for what, old, new in situation.environment.facts
        if what in ("platform", "machine", "cpu", "cores", "gpus", "driver")
    ]
