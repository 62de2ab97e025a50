"""Facts on record side by side."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops import environment
from jupyter_mlops.compare.differences import CellChange, Change, Difference, equal
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Artifact, CellRun, CodeState, Digest, Environment, ModelVersion, Record, Run, short

if TYPE_CHECKING:
    from jupyter_mlops.environment import EnvironmentDiff
    from jupyter_mlops.store import Store

    _Side = tuple[str, Digest | None]  # what it is called, and where on record is what is around it


def cell_runs(store: Store, old: CellRun, new: CellRun) -> Difference:
    """Compare two cell runs: source, what was read and made, metrics, environment, code, status."""
    unknown: list[str] = []
    changes: list[Change] = []
    for what, before, after in (
        ("read", old.inputs, new.inputs),
        ("made", old.outputs, new.outputs),
        ("file read", old.files_read, new.files_read),
        ("file written", old.files_written, new.files_written),
    ):
        changes += _mapped(what, _contents(before), _contents(after))
        unknown += _untold(before, after)
    changes += _mapped("metric", old.metrics, new.metrics)
    changes += _mapped("parameter", old.parameters, new.parameters)
    changes += _code(store, (short(old.id), old.code), (short(new.id), new.code), unknown)
    changes += _mapped("status", {"": old.status}, {"": new.status})
    return Difference(
        source=_unified(old.source, new.source),
        changes=tuple(changes),
        environment=_environments(store, (short(old.id), old.environment), (short(new.id), new.environment), unknown),
        unknown=_once(unknown),
    )


def runs(store: Store, old: Run, new: Run) -> Difference:
    """Compare two runs: parameters, metrics, environment, and cell by cell."""
    before, after = (store.cell_runs(run=run.id, newest_first=False) for run in (old, new))
    metrics: list[dict[str, Any]] = [{}, {}]
    for side, own in zip(metrics, (before, after), strict=True):
        for cell in own:
            side.update(cell.metrics)
    unknown: list[str] = []
    cells = _cells(store, before, after, unknown)
    first, last = ((short(run.id), own[-1].environment if own else None) for run, own in ((old, before), (new, after)))
    return Difference(
        changes=(
            *_mapped("parameter", old.started.parameters, new.started.parameters),
            *_mapped("metric", *metrics),
            *_mapped("status", {"": old.status}, {"": new.status}),
        ),
        cells=cells,
        environment=_environments(store, first, last, unknown),
        unknown=_once(unknown),
    )


def models(store: Store, old: ModelVersion, new: ModelVersion) -> Difference:
    """Compare two model versions: bytes, signature, numbers, training data, environment, and their runs' cells."""
    unknown = [*_untold(old.training, new.training)]
    changes = [
        *_mapped("metric", old.metrics, new.metrics),
        *_mapped("parameter", old.parameters, new.parameters),
        *_mapped("model", _contents([old.model]), _contents([new.model])),
        *_mapped("file", _contents(old.files), _contents(new.files)),
        *_mapped("training data", _contents(old.training), _contents(new.training)),
        *_mapped("requirement", dict.fromkeys(old.requirements, ""), dict.fromkeys(new.requirements, "")),
    ]
    if not _same(store, old.signature, new.signature):
        changes.append(Change("signature", "", old.signature, new.signature))
    cells: tuple[CellChange, ...] = ()
    if old.run and new.run and old.run != new.run:
        before, after = (store.cell_runs(run=run, newest_first=False) for run in (old.run, new.run))
        cells = _cells(store, before, after, unknown)
    first, last = ((one.name, one.environment) for one in (old, new))
    return Difference(
        changes=tuple(changes), cells=cells, environment=_environments(store, first, last, unknown),
        unknown=_once(unknown),
    )  # fmt: skip


def records(old: Record, new: Record) -> Difference:
    """Compare two records of one kind, field by field."""
    return Difference(changes=tuple(_mapped("", msgspec.to_builtins(old), msgspec.to_builtins(new))))


def artifacts(store: Store, old: Artifact, new: Artifact) -> Difference:
    """Compare two contents by what is on record of them: digest, schema, shape, a digest per column."""
    if old.digest is not None and old.digest == new.digest:
        return Difference()
    if old.digest is None or new.digest is None:
        without = old if old.digest is None else new
        reason = f"{without.name} has no digest: {without.why or 'none was recorded'}"
        same = (old.type, old.why) == (new.type, new.why)
        return Difference(
            changes=() if same else tuple(_mapped("content", {"": _content(old)}, {"": _content(new)})),
            unknown=(reason,),
        )
    changes = [*_mapped("type", {"": old.type}, {"": new.type}), *_mapped("size", {"": old.size}, {"": new.size})]
    before, after = _facts(store, old), _facts(store, new)
    if before is None or after is None:
        changes.append(Change("content", "", old.digest, new.digest))
        return Difference(changes=tuple(changes))
    columns, others = columns_of(before), columns_of(after)
    if columns and others:
        told = ({name: " ".join(one).strip() for name, one in side.items()} for side in (columns, others))
        changes += _mapped("column", *told)
        if list(columns) != list(others) and columns.keys() == others.keys():
            changes.append(Change("columns", "order", ", ".join(columns), ", ".join(others)))
        for facts in (before, after):
            facts["schema"] = {key: value for key, value in facts["schema"].items() if key != "columns"}
    changes += _mapped("fact", dict(_leaves(before)), dict(_leaves(after)))
    if not changes:
        changes.append(Change("content", "", old.digest, new.digest))
    return Difference(changes=tuple(changes))


def _environments(store: Store, old: _Side, new: _Side, unknown: list[str]) -> EnvironmentDiff | None:
    if old[1] is not None and old[1] == new[1]:
        return None
    before, after = (_kept(store, *one, "environment of", unknown) for one in (old, new))
    if isinstance(before, Environment) and isinstance(after, Environment) and before != after:
        return environment.diff(before, after)
    return None


def _code(store: Store, old: _Side, new: _Side, unknown: list[str]) -> Iterator[Change]:
    if old[1] == new[1]:  # of what is under no version control there is none
        return
    before, after = (_kept(store, *one, "code around", unknown) for one in (old, new))
    if isinstance(before, CodeState) and isinstance(after, CodeState):
        yield from code_states(before, after)


def _kept(store: Store, name: str, digest: Digest | None, what: str, unknown: list[str]) -> Record | None:
    """What is on record of what is around something; where there is none, that is said."""
    found = store.line(digest).record if digest is not None else None
    if isinstance(found, Environment | CodeState):
        return found
    unknown.append(f"the {what} {name} is not on record")
    return None


def _untold(old: Iterable[Artifact], new: Iterable[Artifact]) -> Iterator[str]:
    """What has no digest on either side, so that nobody can tell whether it is the same."""
    before = {one.name for one in old if one.digest is None}
    for one in new:
        if one.digest is None and one.name in before:
            yield f"{one.name} has no digest: {one.why or 'none was recorded'}"


def _once(unknown: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(unknown))


def code_states(before: Record | None, after: Record | None) -> Iterator[Change]:
    """Compare the state of the code around two cell runs."""
    for field in ("commit", "branch", "remote"):
        yield from _mapped(
            "code", {field: getattr(before, field, "") or None}, {field: getattr(after, field, "") or None}
        )
    for field, what in (("dirty", "changed file"), ("modules", "module")):
        yield from _mapped(what, _contents(getattr(before, field, ())), _contents(getattr(after, field, ())))


def _same(store: Store, old: Digest | None, new: Digest | None) -> bool:
    """Whether two lines say the same; each line has salts of its own, so their digests do not tell."""
    if old is None or new is None or old == new:
        return old == new
    return store.line(old).record == store.line(new).record


def _cells(store: Store, old: Sequence[CellRun], new: Sequence[CellRun], unknown: list[str]) -> tuple[CellChange, ...]:
    before, after = ({one.started.cell or f"#{one.started.count}": one for one in side} for side in (old, new))
    changes = []
    for cell in dict.fromkeys((*before, *after)):
        one, other = before.get(cell), after.get(cell)
        if one is None or other is None:
            there = one or other
            assert there is not None
            changes.append(CellChange(cell, there.source, ("only after" if one is None else "only before",)))
            continue
        read, made = (((*one.inputs, *one.files_read), (*other.inputs, *other.files_read)),
                      ((*one.outputs, *one.files_written), (*other.outputs, *other.files_written)))  # fmt: skip
        parts = {
            "source": one.source != other.source,
            "what it read": _contents(read[0]) != _contents(read[1]),
            "what it made": _contents(made[0]) != _contents(made[1]),
            "status": one.status != other.status,
            "environment": not _same(store, one.environment, other.environment),
            "code around it": not _same(store, one.code, other.code),
        }
        unknown += (*_untold(*read), *_untold(*made))
        differs = tuple(part for part, is_so in parts.items() if is_so)
        if differs:
            changes.append(CellChange(cell, other.source, differs))
    return tuple(changes)


def _content(one: Artifact) -> str:
    return one.digest or one.why or "no digest"


def _contents(found: Iterable[Artifact]) -> dict[str, str]:
    return {one.name: _content(one) for one in found}


def _mapped(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if name not in old or name not in new or not equal(before, after):
            yield Change(what, name, before, after)


def _unified(old: str, new: str) -> tuple[str, ...]:
    return tuple(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]


def _facts(store: Store, one: Artifact) -> dict[str, Any] | None:
    if one.facts is None:
        return None
    try:
        facts = msgspec.json.decode(store.get(one.facts))
    except (MlopsError, msgspec.MsgspecError, RecursionError):
        return None  # erased, damaged or nobody's: the digests still tell that the contents differ
    return facts if isinstance(facts, dict) else None


def columns_of(facts: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """A table's columns, by name, with type and digest, from its facts; empty for what is no table."""
    schema = facts.get("schema")
    columns = schema.get("columns") if isinstance(schema, dict) else None
    if not isinstance(columns, list):
        return {}
    there = [one for one in columns if isinstance(one, dict)]
    return {str(one.get("name")): (str(one.get("dtype")), str(one.get("digest") or "")) for one in there}


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key))
    else:
        yield place, value
