"""Rows that stand in two tables: what a model has learned by heart is no measure of it.

Rows are compared by what they say, not by how they are kept: not by index, order, library, the width of a number or
whether a text is a category. ``3`` is ``3.0``, and a missing value is one of whatever kind. Nothing is hashed to fewer
bits than it has: each column becomes codes that are the same for the same values in both tables, rows become
combinations of codes, and what has no counterpart yet is dropped after each column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from jupyter_mlops.checks.data import DataInvalid, columns

_ROOM: Final = 1 << 62
_PAIRS: Final = 100
_NS: Final = 1_000_000_000


class Leakage(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a test set that are in the training set too.

    Attributes
    ----------
    on
        The columns compared.
    ignored
        Those that only one of the two has.
    train, test
        How many rows each has.
    train_rows, test_rows
        How many rows of each are in the other.
    distinct
        How many different rows these are.
    pairs
        Rows of the test set, each with the first row of the training set that says the same; by position, from 0, and
        the first of them only.
    """

    on: tuple[str, ...]
    ignored: tuple[str, ...]
    train: int
    test: int
    train_rows: int
    test_rows: int
    distinct: int
    pairs: tuple[tuple[int, int], ...]

    @property
    def share(self) -> float:
        """The share of the test set's rows that are in the training set."""
        return self.test_rows / self.test if self.test else 0.0


def leakage(train: Any, test: Any, *, on: Sequence[str] = ()) -> Leakage:
    """Find the rows that are in both of two tables.

    Parameters
    ----------
    train, test
        Tables of pandas, polars, pyarrow or numpy.
    on
        The columns that make a row; all that both have, unless given.

    Raises
    ------
    DataInvalid
        A value is no table, a column of `on` is missing, or the two share no column.

    Examples
    --------
    >>> found = leakage({"a": [1, 2, 3], "b": ["x", "y", "z"]}, {"b": ["z", "x"], "a": [3.0, 9.0]})
    >>> found.test_rows, found.share, found.pairs
    (1, 0.5, ((0, 2),))
    """
    import numpy as np

    left, right = _named(train, "training"), _named(test, "test")
    names = tuple(on) or tuple(name for name in left if name in right)
    for table, what in ((left, "training"), (right, "test")):
        missing = [name for name in names if name not in table]
        if missing:
            raise DataInvalid(f"the {what} set has no column {', '.join(missing)}", next=f"it has {', '.join(table)}")
    if not names:
        raise DataInvalid("the two tables have no column in common", next="give tables with the same columns")
    rows = [np.arange(len(next(iter(table.values())))) for table in (left, right)]
    height = [len(one) for one in rows]
    keys: list[Any] = [np.zeros(len(one), np.int64) for one in rows]
    count = 1
    for name in names:
        codes, different = _codes(*(_taken(table[name], at) for table, at in zip((left, right), rows, strict=True)))
        if count * different >= _ROOM:
            raise DataInvalid("the tables are too large to compare")  # beyond 2**31 rows that are all in both
        keys = [key * different + code for key, code in zip(keys, codes, strict=True)]
        keys, count, rows = _only_shared(keys, rows)
        if not count:
            break
    first: Any = np.zeros(count, np.int64)
    first[keys[0][::-1]] = rows[0][::-1]
    ignored = () if on else tuple(name for name in (*left, *right) if name not in left or name not in right)
    return Leakage(
        on=names, ignored=ignored, train=height[0], test=height[1], train_rows=len(rows[0]), test_rows=len(rows[1]),
        distinct=count,
        pairs=tuple(zip(rows[1][:_PAIRS].tolist(), first[keys[1][:_PAIRS]].tolist(), strict=True)),
    )  # fmt: skip


def _named(table: Any, what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, column in columns(table):
        if name in found:
            raise DataInvalid(f"two columns of the {what} set are called {name!r}", next="give them different names")
        found[name] = column
    if not found:
        raise DataInvalid(f"the {what} set has no columns")
    return found


def _only_shared(keys: list[Any], rows: list[Any]) -> tuple[list[Any], int, list[Any]]:
    """Number the keys anew from 0, and leave only rows whose key is on both sides."""
    import numpy as np

    (left, right), count = _numbered(*keys)
    sides: Any = np.zeros((2, count), bool)
    sides[0, left] = True
    sides[1, right] = True
    both: Any = sides.all(axis=0)
    again = np.cumsum(both) - 1
    kept = [both[one] for one in (left, right)]
    keys = [again[one[mask]] for one, mask in zip((left, right), kept, strict=True)]
    return keys, int(both.sum()), [at[mask] for at, mask in zip(rows, kept, strict=True)]


def _numbered(left: Any, right: Any) -> tuple[tuple[Any, Any], int]:
    """Two arrays of whole numbers as numbers from 0 without gaps: the same number for the same value."""
    import numpy as np
    import pyarrow as pa

    found = pa.array(np.concatenate([left, right])).dictionary_encode()
    codes = found.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return (codes[: len(left)], codes[len(left) :]), len(found.dictionary)


# -- columns ---------------------------------------------------------------------------------------------------------


def _taken(column: Any, rows: Any) -> Any:
    """Some rows of a column."""
    if len(rows) == len(column):
        return column
    if hasattr(column, "iloc"):
        return column.iloc[rows]
    if hasattr(column, "gather"):  # polars
        return column.gather(rows)
    return column.take(rows)


def _codes(left: Any, right: Any) -> tuple[tuple[Any, Any], int]:
    """Two columns as codes: 0 is missing, and any other number is the same value in both."""
    arrays = [_arrow(column) for column in (left, right)]
    kinds = ["other" if one is None else _kind(one.type) for one in arrays]
    known = {kind for kind in kinds if kind != "null"}
    if "other" in known:
        return _by_objects(*(_objects(*pair) for pair in zip((left, right), arrays, strict=True)))
    masks = [_missing(one) for one in arrays]
    if len(known) > 1:  # no text is a number, and no time is either
        return (_codes_of(masks[0], 1), _codes_of(masks[1], 2)), 3
    kind = known.pop() if known else "null"
    if kind == "null":
        return (_codes_of(masks[0], 1), _codes_of(masks[1], 1)), 2
    arrays = [
        _nothing(len(one), other.type) if its == "null" else one
        for one, its, other in zip(arrays, kinds, reversed(arrays), strict=True)
    ]
    parts = [_parts(one, kind, mask) for one, mask in zip(arrays, masks, strict=True)]
    if kind == "text":
        (codes, count) = _texts(*(part[0] for part in parts))
    else:
        codes, count = _numbered(parts[0][0], parts[1][0])
        for one, other in zip(parts[0][1:], parts[1][1:], strict=True):
            (fine, more) = _numbered(one, other)
            codes, count = _numbered(*(code * more + part for code, part in zip(codes, fine, strict=True)))
    return (_masked(codes[0], masks[0]), _masked(codes[1], masks[1])), count + 1


def _codes_of(missing: Any, code: int) -> Any:
    import numpy as np

    return np.where(missing, 0, code).astype(np.int64)


def _masked(codes: Any, missing: Any) -> Any:
    import numpy as np

    return np.where(missing, 0, codes + 1)


def _arrow(column: Any) -> Any:
    """A column as one array of Arrow's, categories decoded; None where its values are of several kinds."""
    import pyarrow as pa

    try:
        if isinstance(column, pa.Array | pa.ChunkedArray):
            found = column
        elif hasattr(column, "to_arrow"):  # polars
            found = column.to_arrow()
        else:
            found = pa.array(column, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks() if found.num_chunks != 1 else found.chunk(0)
    return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found


def _kind(type_: Any) -> str:
    from pyarrow import types

    if types.is_null(type_):
        return "null"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_) or str(type_) == "string_view":
        return "text"
    if types.is_date(type_) or (types.is_timestamp(type_) and type_.tz is None):
        return "time"
    if types.is_timestamp(type_):
        return "moment"
    return "span" if types.is_duration(type_) else "other"


def _nothing(count: int, type_: Any) -> Any:
    import pyarrow as pa

    return pa.nulls(count, type_)


def _missing(array: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_null(array.type):
        return np.ones(len(array), bool)
    return array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)


def _parts(array: Any, kind: str, missing: Any) -> list[Any]:
    """A column as arrays of whole numbers that together tell its values apart; of texts, the array itself."""
    import pyarrow as pa

    if kind == "text":
        return [array.cast(pa.large_string())]
    if kind == "number":
        return _numbers(array, missing)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms" if pa.types.is_date64(array.type) else "s"))
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": _NS}[array.type.unit]
    whole = _plain(array.cast(pa.int64()))
    seconds = whole // per_second
    return [seconds, (whole - seconds * per_second) * (_NS // per_second)]


def _plain(array: Any) -> Any:
    import pyarrow.compute as pc

    return pc.fill_null(array, 0).to_numpy(zero_copy_only=False)


def _numbers(array: Any, missing: Any) -> list[Any]:
    """Whole numbers by their value, others by the bits of the float; and which of these it is.

    ``2**53 + 1`` has no float and so equals none; ``1.0`` is 1; of what a shorter float holds, its exact value counts.
    """
    import numpy as np
    import pyarrow as pa

    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    values = _plain(array)
    if values.dtype.kind in "iu":
        beyond = values > np.uint64(2**63 - 1) if values.dtype == np.uint64 else np.zeros(len(values), bool)
        return [values.astype(np.int64, casting="unsafe"), np.where(beyond, 2, 0).astype(np.int64)]
    values = np.where(missing, 0.0, values).astype(np.float64)
    whole = np.trunc(values) == values
    small = whole & (values >= -(2.0**63)) & (values < 2.0**63)
    beyond = whole & (values >= 2.0**63) & (values < 2.0**64)
    payload = values.view(np.int64).copy()
    payload[small] = values[small].astype(np.int64)
    payload[beyond] = values[beyond].astype(np.uint64).astype(np.int64)
    return [payload, np.where(small, 0, np.where(beyond, 2, 1)).astype(np.int64)]


def _texts(left: Any, right: Any) -> tuple[tuple[Any, Any], int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pa.concat_arrays([left, right]).dictionary_encode()
    codes = pc.fill_null(found.indices, 0).to_numpy(zero_copy_only=False).astype("int64")
    return (codes[: len(left)], codes[len(left) :]), max(len(found.dictionary), 1)


# -- values that are no array's ----------------------------------------------------------------------------------------


def _objects(column: Any, array: Any) -> list[Any]:
    if array is not None and not hasattr(column, "tolist"):
        return list(array.to_pylist())
    return list(column.tolist()) if hasattr(column, "tolist") else list(column)


def _by_objects(left: Iterable[Any], right: Iterable[Any]) -> tuple[tuple[Any, Any], int]:
    import numpy as np

    numbers: dict[Any, int] = {}
    codes = []
    for side in (left, right):
        found = []
        for value in side:
            key = _key(value)
            found.append(0 if key is None else numbers.setdefault(key, len(numbers) + 1))
        codes.append(np.array(found, np.int64))
    return (codes[0], codes[1]), len(numbers) + 1


def _key(value: Any) -> Any:
    """A value that can be looked up, equal for what says the same; None for what is missing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, dict):
        return ("mapping", frozenset((_key(key), _key(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ("row", tuple(_key(item) for item in value))
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _key(value.tolist())
    try:
        return None if value != value else (hash(value), value)[1]
    except Exception as error:  # somebody's own class may refuse in any way to be hashed or compared
        raise DataInvalid(
            f"values of {type(value).__module__}.{type(value).__qualname__} can not be compared", cause=str(error),
            next="name the columns to compare with --on",
        ) from error  # fmt: skip
