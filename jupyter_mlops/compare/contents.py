"""Contents at hand side by side: tables by columns and rows, values part by part."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from jupyter_mlops.compare.differences import SAMPLED, Change, Difference, TableDifference, equal
from jupyter_mlops.errors import WrongUse

_MOST: Final = 1_000  # changes within nested values that are told apart
_DEEP: Final = 50  # containers inside of each other that are looked into
_STATISTICS: Final = ("missing", "distinct", "min", "max", "mean", "std")
_READERS: Final = {
    ".csv": "read_csv", ".tsv": "read_table", ".parquet": "read_parquet", ".pq": "read_parquet",
    ".feather": "read_feather", ".arrow": "read_feather", ".jsonl": "read_json", ".ndjson": "read_json",
}  # fmt: skip


def values(old: Any, new: Any, *, key: Sequence[str] = ()) -> Difference:
    """Compare two values: tables by columns and rows, containers by their parts, estimators by their parameters.

    Two values of one type differ where their fingerprints do, whether or not that shows in a row or part: an order of
    categories, an attribute of a frame.

    Parameters
    ----------
    old, new
        Any values. What is no table, container or plain value is compared by type and fingerprint.
    key
        Columns that make two rows of tables one, wherever they stand.

    Raises
    ------
    WrongUse
        A key is given and these are no tables, or it is none of theirs.
    """
    before, after = _table(old), _table(new)
    walk = _Walk()
    kinds = _kind(old), _kind(new)
    if before is not None and after is not None:
        table = tables(before, after, key=key)
        if kinds[0] != kinds[1]:
            walk.changes.append(Change("type", "", *kinds))
        elif not table and not key:
            walk.wholes(old, new, "")
        return Difference(changes=tuple(walk.changes), table=table, unknown=tuple(walk.unknown))
    if key:
        raise WrongUse("a key matches rows of tables", cause=f"these are {kinds[0]} and {kinds[1]}")
    walk.within(old, new, "", 0)
    if not walk.changes and not walk.unknown:
        walk.wholes(old, new, "")
    return Difference(changes=tuple(walk.changes[:_MOST]), unknown=tuple(walk.unknown[:_MOST]))


def tables(old: Any, new: Any, *, key: Sequence[str] = ()) -> TableDifference:
    """Compare two pandas frames.

    Rows are matched by the columns of `key`; without one by the index, if it is a labelled one and unique in both; by
    position, if both have as many rows; else by content. A labelled index is compared as columns are: ``(index) name``.

    Raises
    ------
    WrongUse
        A column of the key is missing, or its values are not unique.
    """
    labelled = not _is_counted(old) or not _is_counted(new)
    before, after = _named(old, labels=labelled), _named(new, labels=labelled)
    shared = [name for name in before.columns if name in after.columns]
    how, left, right = _matched(before, after, list(key), labelled=labelled)
    if how == "content":
        added, removed = _by_content(left, right, shared)
        changed: dict[str, Any] = {}
        moved = False  # of two tables of unlike length
    else:
        added = right.loc[~right.index.isin(left.index)]
        removed = left.loc[~left.index.isin(right.index)]
        both = left.index[left.index.isin(right.index)]
        moved = how == "index" and not both.equals(right.index[right.index.isin(left.index)])
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
        moved=moved,
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


def _is_counted(frame: Any) -> bool:
    """Whether a frame's rows have no labels but their places."""
    import pandas as pd

    index = frame.index
    return isinstance(index, pd.RangeIndex) and (index.start, index.step, index.name) == (0, 1, None)


def _named(frame: Any, *, labels: bool) -> Any:
    """The frame with texts for column names, each once, as a difference speaks of them; with its labels as columns."""
    names: dict[str, int] = {}
    columns = []
    for label in frame.columns:
        name = label if isinstance(label, str) else str(label)
        names[name] = names.get(name, 0) + 1
        columns.append(name if names[name] == 1 else f"{name} ({names[name]})")
    found = frame.copy(deep=False)
    found.columns = columns
    for level, name in enumerate(frame.index.names if labels else ()):
        label = f"(index) {'' if name is None else name}".rstrip() + (f" #{level}" if name is None and level else "")
        found[label] = frame.index.get_level_values(level)
    return found


def _matched(old: Any, new: Any, key: list[str], *, labelled: bool) -> tuple[str, Any, Any]:
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
    if labelled and old.index.is_unique and new.index.is_unique and old.index.nlevels == new.index.nlevels:
        return "index", old, new
    old, new = old.reset_index(drop=True), new.reset_index(drop=True)
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
            if not equal(one, other):
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


class _Walk:
    """Gathers what is different inside two values, and what nobody can tell."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.unknown: list[str] = []
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}  # held, since what is freed gives its id away

    def within(self, old: Any, new: Any, place: str, depth: int) -> None:
        """Compare part by part; each pair once, since containers may hold themselves."""
        if len(self.changes) >= _MOST:
            self._say(f"only the first {_MOST:,} differences are told")
            return
        plain = type(old) is type(new) and depth < _DEEP
        if plain and type(old) in (dict, list, tuple):
            if (id(old), id(new)) in self._seen:
                return
            self._seen[id(old), id(new)] = old, new
        if plain and type(old) is dict:
            for key in dict.fromkeys((*old, *new)):
                inner = f"{place}[{key!r}]"
                if key not in old or key not in new:
                    self.changes.append(Change("value", inner, _quoted(old, key), _quoted(new, key)))
                else:
                    self.within(old[key], new[key], inner, depth + 1)
        elif plain and type(old) in (list, tuple):
            for index in range(max(len(old), len(new))):
                inner = f"{place}[{index}]"
                if index >= len(old) or index >= len(new):
                    self.changes.append(Change("value", inner, _quoted(old, index), _quoted(new, index)))
                else:
                    self.within(old[index], new[index], inner, depth + 1)
        elif _kind(old) != _kind(new):
            self.changes.append(Change("type", place, _kind(old), _kind(new)))
        elif type(old) in (int, float, str, bool, bytes, complex, type(None)):
            if not equal(old, new):
                self.changes.append(Change("value", place, _text(repr(old)), _text(repr(new))))
        else:
            told = len(self.changes)
            if type(old).__module__.partition(".")[0] == "sklearn" and hasattr(old, "get_params"):
                self.within(old.get_params(), new.get_params(), f"{place}.", depth + 1)
            if len(self.changes) == told:
                self.wholes(old, new, place)

    def wholes(self, old: Any, new: Any, place: str) -> None:
        """Compare by fingerprint."""
        from jupyter_mlops.fingerprints import fingerprint

        if old is new:
            return
        first, second = fingerprint(old), fingerprint(new)
        without = first if first.digest is None else second
        if without.digest is None:
            self._say(f"{place or f'a {_kind(old)}'} has no digest: {without.why}")
        elif first.digest != second.digest:
            self.changes.append(Change("content", place, first.digest, second.digest))

    def _say(self, unknown: str) -> None:
        if unknown not in self.unknown:
            self.unknown.append(unknown)


def _quoted(container: Any, key: Any) -> str | None:
    try:
        return _text(repr(container[key]))
    except LookupError:
        return None
