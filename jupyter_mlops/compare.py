"""Two facts of one kind side by side: what is different is a value, and false where nothing is.

Cell runs, runs, environments and model versions are compared as they are on record; data by its recorded facts (schema,
shape, a digest per column), and row by row where both contents are at hand: `tables`, `values`. Nothing here knows how
an answer is shown.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import environment
from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.records import (
    Artifact,
    CellRun,
    Digest,
    Environment,
    ModelVersion,
    Record,
    RecordInvalid,
    Run,
    as_digest,
)

if TYPE_CHECKING:
    from jupyter_mlops.environment import EnvironmentDiff
    from jupyter_mlops.store import Store

SAMPLED: Final = 20
"""Rows, and changed values, that a difference quotes; it counts all of them."""

_MOST: Final = 1_000  # changes within nested values that are told apart
_STATISTICS: Final = ("missing", "distinct", "min", "max", "mean", "std")
_READERS: Final = {
    ".csv": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet", ".pq": "read_parquet",
    ".feather": "read_feather", ".arrow": "read_feather", ".jsonl": "read_json", ".ndjson": "read_json",
}  # fmt: skip


class Change(msgspec.Struct, frozen=True):
    """One thing that is different.

    Attributes
    ----------
    what
        Its kind: ``read``, ``made``, ``metric``, ``parameter``, ``column``, ``status``.
    name
        Which one.
    old, new
        As it was and is, in words or plain values; None on the side that does not have it.
    """

    what: str
    name: str
    old: Any = None
    new: Any = None


class CellChange(msgspec.Struct, frozen=True):
    """A cell that two runs have not in common, or in which they differ.

    Attributes
    ----------
    cell
        The notebook's id of the cell, or its place in the run.
    source
        What ran, in the newer of the two that has it.
    differs
        In what: ``source``, ``what it read``, ``what it made``; ``only before`` or ``only after``.
    """

    cell: str
    source: str
    differs: tuple[str, ...]


class TableDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How two tables differ; false where they do not.

    Attributes
    ----------
    added, removed
        Columns that only the new, only the old one has.
    retyped
        Columns of another type: name, old, new.
    reordered
        The columns they share stand in another order.
    matched
        What made two rows one: ``key a, b``, ``index``, ``position``, or ``content``: then no row counts as changed.
    rows
        Rows added, removed and changed.
    row_samples
        Up to `SAMPLED` of them: ``added`` or ``removed``, the row's label, its values as texts.
    changed
        How many values changed, by column.
    value_samples
        Up to `SAMPLED` of these: the row's label, the column, old, new.
    statistics
        Of columns whose content changed: column, statistic, old, new; only what is not the same.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    reordered: bool = False
    matched: str = ""
    rows: tuple[int, int, int] = (0, 0, 0)
    row_samples: tuple[tuple[str, str, dict[str, str]], ...] = ()
    changed: dict[str, int] = {}
    value_samples: tuple[tuple[str, str, str, str], ...] = ()
    statistics: tuple[tuple[str, str, Any, Any], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retyped or self.reordered or any(self.rows) or self.changed)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How two facts differ; false where they do not.

    Attributes
    ----------
    changes
        One by one.
    source
        Of cell runs: their sources as a unified diff, without its head.
    cells
        Of runs: the cells they differ in.
    environment
        How their environments differ.
    table
        Of data: by columns and rows.
    unknown
        What could not be compared, and why.
    """

    changes: tuple[Change, ...] = ()
    source: tuple[str, ...] = ()
    cells: tuple[CellChange, ...] = ()
    environment: Any = None
    table: TableDifference | None = None
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.source or self.cells or self.environment or self.table)


def is_digest(text: str) -> bool:
    """Whether a side of a change is a digest."""
    try:
        return bool(as_digest(text))
    except RecordInvalid:
        return False


# -- facts on record -------------------------------------------------------------------------------------------------


def cell_runs(store: Store, old: CellRun, new: CellRun) -> Difference:
    """Compare two cell runs: source, what was read and made, metrics, environment, code, status."""
    changes = [
        change
        for what, before, after in (
            ("read", old.inputs, new.inputs),
            ("made", old.outputs, new.outputs),
            ("file read", old.files_read, new.files_read),
            ("file written", old.files_written, new.files_written),
        )
        for change in _mapped(what, _contents(before), _contents(after))
    ]
    changes += _mapped("metric", old.metrics, new.metrics)
    changes += _mapped("parameter", old.parameters, new.parameters)
    changes += _code(store, old.code, new.code)
    changes += _mapped("status", {"": old.status}, {"": new.status})
    return Difference(
        source=_unified(old.source, new.source),
        changes=tuple(changes),
        environment=_environments(store, old.environment, new.environment),
    )


def runs(store: Store, old: Run, new: Run) -> Difference:
    """Compare two runs: parameters, metrics, environment, and cell by cell."""
    cells = tuple(store.cell_runs(run=run.id, newest_first=False) for run in (old, new))
    metrics: list[dict[str, Any]] = [{}, {}]
    for side, own in zip(metrics, cells, strict=True):
        for cell in own:
            side.update(cell.metrics)
    first, last = ((own[-1].environment if own else None) for own in cells)
    return Difference(
        changes=(
            *_mapped("parameter", old.started.parameters, new.started.parameters),
            *_mapped("metric", *metrics),
            *_mapped("status", {"": old.status}, {"": new.status}),
        ),
        cells=tuple(_cells(store, *cells)),
        environment=_environments(store, first, last),
    )


def models(store: Store, old: ModelVersion, new: ModelVersion) -> Difference:
    """Compare two model versions: bytes, metrics, parameters, training data, environment, and the runs' cells."""
    changes = [
        *_mapped("metric", old.metrics, new.metrics),
        *_mapped("parameter", old.parameters, new.parameters),
        *_mapped("model", _contents([old.model]), _contents([new.model])),
        *_mapped("training data", _contents(old.training), _contents(new.training)),
        *_mapped("requirement", dict.fromkeys(old.requirements, ""), dict.fromkeys(new.requirements, "")),
    ]
    cells: Iterable[CellChange] = ()
    if old.run and new.run and old.run != new.run:
        sides = (store.cell_runs(run=run, newest_first=False) for run in (old.run, new.run))
        cells = _cells(store, *sides)
    return Difference(
        changes=tuple(changes), cells=tuple(cells), environment=_environments(store, old.environment, new.environment)
    )


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


def _environments(store: Store, old: Digest | None, new: Digest | None) -> EnvironmentDiff | None:
    if old is None or new is None or old == new:
        return None
    before, after = (store.line(digest).record for digest in (old, new))
    if isinstance(before, Environment) and isinstance(after, Environment) and before != after:
        return environment.diff(before, after)
    return None


def _code(store: Store, old: Digest | None, new: Digest | None) -> Iterator[Change]:
    if old == new or old is None or new is None:
        return
    yield from code_states(*(store.line(digest).record for digest in (old, new)))


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


def _cells(store: Store, old: Sequence[CellRun], new: Sequence[CellRun]) -> Iterator[CellChange]:
    before, after = ({one.started.cell or f"#{one.started.count}": one for one in side} for side in (old, new))
    for cell in dict.fromkeys((*before, *after)):
        one, other = before.get(cell), after.get(cell)
        if one is None or other is None:
            there = one or other
            assert there is not None
            yield CellChange(cell, there.source, ("only after" if one is None else "only before",))
            continue
        parts = {
            "source": one.source != other.source,
            "what it read": _contents((*one.inputs, *one.files_read)) != _contents((*other.inputs, *other.files_read)),
            "what it made": _contents((*one.outputs, *one.files_written))
            != _contents((*other.outputs, *other.files_written)),
            "status": one.status != other.status,
            "environment": not _same(store, one.environment, other.environment),
            "code around it": not _same(store, one.code, other.code),
        }
        differs = tuple(part for part, is_so in parts.items() if is_so)
        if differs:
            yield CellChange(cell, other.source, differs)


def _content(one: Artifact) -> str:
    return one.digest or one.why or "no digest"


def _contents(found: Iterable[Artifact]) -> dict[str, str]:
    return {one.name: _content(one) for one in found}


def _mapped(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if name not in old or name not in new or not _equal(before, after):
            yield Change(what, name, before, after)


def _equal(old: Any, new: Any) -> bool:
    return bool(old == new) or (old != old and new != new)  # NaN is the same metric as NaN


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


# -- contents at hand ------------------------------------------------------------------------------------------------


def values(old: Any, new: Any, *, key: Sequence[str] = ()) -> Difference:
    """Compare two values: tables by columns and rows, containers by their parts, estimators by their parameters.

    Parameters
    ----------
    old, new
        Any values. What is no table, container or plain value is compared by type and fingerprint.
    key
        Columns that make two rows of tables one.
    """
    before, after = _table(old), _table(new)
    if before is not None and after is not None:
        kinds = tuple(_mapped("type", {"": _kind(old)}, {"": _kind(new)}))
        return Difference(changes=kinds, table=tables(before, after, key=key))
    if key:
        raise WrongUse("a key matches rows of tables", cause=f"these are {_kind(old)} and {_kind(new)}")
    changes: list[Change] = []
    _within(old, new, "", changes, 0)
    return Difference(changes=tuple(changes[:_MOST]))


def tables(old: Any, new: Any, *, key: Sequence[str] = ()) -> TableDifference:
    """Compare two pandas frames.

    Rows are matched by the columns of `key`; without one by the index, if it is a labelled one and unique in both; by
    position, if both have as many rows; else by content.

    Raises
    ------
    WrongUse
        A column of the key is missing, or its values are not unique.
    """
    before, after = _named(old), _named(new)
    shared = [name for name in before.columns if name in after.columns]
    how, left, right = _matched(before, after, list(key))
    if how == "content":
        added, removed = _by_content(left, right, shared)
        changed: dict[str, Any] = {}
    else:
        added = right.loc[~right.index.isin(left.index)]
        removed = left.loc[~left.index.isin(right.index)]
        both = left.index[left.index.isin(right.index)]
        changed = _changed(left.loc[both], right.loc[both], [name for name in shared if name not in key])
    samples = [*_rows("added", added), *_rows("removed", removed)]
    touched = set(changed) if how != "content" and not (len(added) or len(removed)) else set(shared)
    rows_changed = set().union(*(one[0] for one in changed.values())) if changed else set()
    return TableDifference(
        added=tuple(name for name in after.columns if name not in before.columns),
        removed=tuple(name for name in before.columns if name not in after.columns),
        retyped=tuple(
            (name, str(before[name].dtype), str(after[name].dtype))
            for name in shared
            if before[name].dtype != after[name].dtype
        ),
        reordered=shared != [name for name in after.columns if name in before.columns],
        matched=f"key {', '.join(key)}" if key else how,
        rows=(len(added), len(removed), len(rows_changed)),
        row_samples=tuple(samples[:SAMPLED]),
        changed={name: len(one[0]) for name, one in changed.items()},
        value_samples=tuple(sample for name, one in changed.items() for sample in one[1])[:SAMPLED],
        statistics=tuple(_statistics(before, after, [name for name in shared if name in touched])),
    )


def read_table(name: str, source: Path | bytes) -> Any:
    """Read a file of a known table format, or its bytes, as a frame; None where the name is of no such format.

    Raises
    ------
    WrongUse
        It is damaged, or not what its name says.
    """
    reader = _READERS.get(Path(name).suffix.lower())
    if reader is None:
        return None
    import pandas as pd

    try:
        given = io.BytesIO(source) if isinstance(source, bytes) else source
        return getattr(pd, reader)(given, **({"lines": True} if reader == "read_json" else {}))
    except Exception as error:  # each reader says in its own ways that a file is none of its kind, or damaged
        raise WrongUse(f"{name} cannot be read as a table", cause=f"{type(error).__name__}: {error}") from error


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _table(value: Any) -> Any:
    """A value as a pandas frame, or None where it is no table."""
    root = type(value).__module__.partition(".")[0]
    if root not in ("pandas", "polars", "pyarrow", "numpy"):
        return None
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return value
    if isinstance(value, pd.Series):
        return value.to_frame(value.name if value.name is not None else "value")
    if root in ("polars", "pyarrow") and hasattr(value, "to_pandas"):
        found = value.to_pandas()
        return found.to_frame("value") if isinstance(found, pd.Series) else found
    if root == "numpy" and 1 <= getattr(value, "ndim", 0) <= 2:
        names = value.dtype.names
        return pd.DataFrame(value) if names is None else pd.DataFrame.from_records(value)
    return None


def _named(frame: Any) -> Any:
    """The frame with texts for column names, each once, as a difference speaks of them."""
    names: dict[str, int] = {}
    columns = []
    for label in frame.columns:
        name = label if isinstance(label, str) else str(label)
        names[name] = names.get(name, 0) + 1
        columns.append(name if names[name] == 1 else f"{name} ({names[name]})")
    found = frame.copy(deep=False)
    found.columns = columns
    return found


def _matched(old: Any, new: Any, key: list[str]) -> tuple[str, Any, Any]:
    import pandas as pd

    if key:
        for frame, which in ((old, "old"), (new, "new")):
            missing = [name for name in key if name not in frame.columns]
            if missing:
                raise WrongUse(f"the {which} table has no column {', '.join(missing)}", next=", ".join(frame.columns))
            if frame.duplicated(key).any():
                raise WrongUse(
                    f"{', '.join(key)} is no key of the {which} table", cause="its values are not unique",
                    next="name more columns",
                )  # fmt: skip
        return "key", old.set_index(key, drop=False), new.set_index(key, drop=False)
    labelled = not isinstance(old.index, pd.RangeIndex) or not isinstance(new.index, pd.RangeIndex)
    if labelled and old.index.is_unique and new.index.is_unique and old.index.nlevels == new.index.nlevels:
        return "index", old, new
    old, new = old.reset_index(drop=not labelled), new.reset_index(drop=not labelled)
    return ("position" if len(old) == len(new) else "content"), old, new


def _by_content(old: Any, new: Any, shared: list[str]) -> tuple[Any, Any]:
    """Rows that only one side has, counting those that are alike; rows are told apart by 64 bits of their content."""
    if not shared:
        return new, old
    counted = [
        content.astype(str) + "\x1f" + content.groupby(content).cumcount().astype(str)
        for content in (_row_hashes(side, shared, other) for side, other in ((old, new), (new, old)))
    ]
    return new.loc[~counted[1].isin(counted[0]).to_numpy()], old.loc[~counted[0].isin(counted[1]).to_numpy()]


def _row_hashes(frame: Any, shared: list[str], other: Any) -> Any:
    import pandas as pd

    columns = {
        name: frame[name] if frame[name].dtype == other[name].dtype and frame[name].dtype != object
        # hashes depend on the type, and objects may have none: their texts stand for them
        else frame[name].map(repr)
        for name in shared
    }  # fmt: skip
    return pd.util.hash_pandas_object(pd.DataFrame(columns, index=frame.index), index=False)


def _changed(old: Any, new: Any, columns: list[str]) -> dict[str, tuple[set[int], list[tuple[str, str, str, str]]]]:
    """Per column: the places of changed values, and some of them."""
    found = {}
    for name in columns:
        places = _differing(old[name], new[name])
        if places:
            sample = [
                (str(old.index[place]), name, _text(old[name].iloc[place]), _text(new[name].iloc[place]))
                for place in places[:SAMPLED]
            ]
            found[name] = (set(places), sample)
    return found


def _differing(old: Any, new: Any) -> list[int]:
    import numpy as np

    missing, absent = old.isna().to_numpy(), new.isna().to_numpy()
    if str(old.dtype) == "category" or str(new.dtype) == "category":
        old, new = old.astype(object), new.astype(object)
    with np.errstate(all="ignore"):
        try:
            same = np.asarray(old.to_numpy() == new.to_numpy(), dtype=bool)
            if same.shape != missing.shape:
                raise ValueError("compared as a whole")
        except (TypeError, ValueError):
            same = np.array([_alike(one, other) for one, other in zip(old, new, strict=True)], dtype=bool)
    return [int(place) for place in np.flatnonzero(~((same & ~missing & ~absent) | (missing & absent)))]


def _alike(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError):
        return repr(one) == repr(other)  # an array in a cell answers with an array


def _rows(what: str, frame: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    for label, row in frame.head(SAMPLED).iterrows():
        yield what, str(label), {str(name): _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _statistics(old: Any, new: Any, columns: list[str]) -> Iterator[tuple[str, str, Any, Any]]:
    for name in columns:
        before, after = _of_column(old[name]), _of_column(new[name])
        for statistic in _STATISTICS:
            one, other = before.get(statistic), after.get(statistic)
            if not _equal(one, other):
                yield name, statistic, one, other


def _of_column(column: Any) -> dict[str, Any]:
    import pandas as pd

    found: dict[str, Any] = {"missing": int(column.isna().sum())}
    try:
        found["distinct"] = int(column.nunique())
    except TypeError:
        return found  # lists or dicts stand in it: they are not counted
    there = column.dropna()
    if not len(there):
        return found
    if pd.api.types.is_bool_dtype(column.dtype):
        found["mean"] = float(there.mean())
    elif pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        found |= {name: float(getattr(there, name)()) for name in ("min", "max", "mean")} | {"std": float(there.std())}
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        found |= {"min": str(there.min()), "max": str(there.max())}
    return found


def _within(old: Any, new: Any, place: str, changes: list[Change], depth: int) -> None:
    """Gather what is different inside two values."""
    from jupyter_mlops.fingerprints import fingerprint

    if len(changes) >= _MOST:
        return
    if type(old) is type(new) and type(old) is dict and depth < 50:
        for key in dict.fromkeys((*old, *new)):
            inner = f"{place}[{key!r}]"
            if key not in old or key not in new:
                changes.append(Change("value", inner, _quoted(old, key), _quoted(new, key)))
            else:
                _within(old[key], new[key], inner, changes, depth + 1)
    elif type(old) is type(new) and type(old) in (list, tuple) and depth < 50:
        for index in range(max(len(old), len(new))):
            if index >= len(old) or index >= len(new):
                changes.append(Change("value", f"{place}[{index}]", _quoted(old, index), _quoted(new, index)))
            else:
                _within(old[index], new[index], f"{place}[{index}]", changes, depth + 1)
    elif _kind(old) != _kind(new):
        changes.append(Change("type", place, _kind(old), _kind(new)))
    elif type(old) in (int, float, str, bool, bytes, complex, type(None)):
        if not _equal(old, new):
            changes.append(Change("value", place, _text(repr(old)), _text(repr(new))))
    else:
        first, second = fingerprint(old), fingerprint(new)
        if first.digest is not None and first.digest == second.digest:
            return
        told = len(changes)
        if type(old).__module__.partition(".")[0] == "sklearn" and hasattr(old, "get_params"):
            _within(old.get_params(), new.get_params(), f"{place}.", changes, depth + 1)
        if len(changes) == told:
            changes.append(Change("content", place, first.digest or first.why, second.digest or second.why))


def _quoted(container: Any, key: Any) -> str | None:
    try:
        return _text(repr(container[key]))
    except LookupError:
        return None
