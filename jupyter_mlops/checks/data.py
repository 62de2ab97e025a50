"""What a model takes and gives (its signature), and what its training data looked like (the baseline profile).

Tables of pandas, polars, pyarrow and numpy are read through what they have in common, without importing any of these
libraries: a table that can be here has its library loaded already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError

_BINS: Final = 20
_TOP: Final = 50
_MOST_DISTINCT: Final = 200
_LONGEST_LABEL: Final = 60
_MOST_ROWS: Final = 1_000_000
_MOST_COLUMNS: Final = 2_000


class DataInvalid(MlopsError, ValueError):
    """A value given as a model's data is no table, column or array."""

    exit_code = 2


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A column of a model's input or output.

    Attributes
    ----------
    dtype
        ``int64``, ``float32``, ``bool``, ``string``, ``category``, ``datetime64[ns, UTC]``, ``object``, …
    nullable
        Whether missing values were seen, or not known to be absent.
    categories
        How many categories a categorical column declares, or an output has classes.
    """

    name: str
    dtype: str
    nullable: bool = False
    categories: int | None = None


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model takes and gives.

    Attributes
    ----------
    task
        ``classification``, ``regression``, ``clustering``, ``transform``, or empty where the model does not say.
    named
        Whether columns have names; else they are ``x0``, ``x1``, … by position.
    source
        Where this comes from, for people: ``given``, ``inferred from X_train``.
    """

    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...] = ()
    task: str = ""
    named: bool = True
    source: str = ""


# -- tables ----------------------------------------------------------------------------------------------------------


def columns(table: Any) -> list[tuple[str, Any]]:
    """The columns of a table by name; those of an array are ``x0``, ``x1``, …, a series is one column.

    Raises
    ------
    DataInvalid
        The value is no table, column or array of up to two dimensions.
    """
    return list(_columns(table))


def is_named(table: Any) -> bool:
    """Whether a value brings names for its columns."""
    return hasattr(table, "columns") or hasattr(table, "column_names") or isinstance(table, dict)


def _columns(table: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(table, dict):
        import numpy as np

        for name, column in table.items():
            yield str(name), np.asarray(column) if isinstance(column, (list, tuple)) else column
    elif hasattr(table, "column_names") and hasattr(table, "column"):  # pyarrow
        for at, name in enumerate(table.column_names):
            yield str(name), table.column(at)
    elif hasattr(table, "iter_columns"):  # polars
        for column in table.iter_columns():
            yield str(column.name), column
    elif hasattr(table, "columns") and hasattr(table, "iloc"):  # pandas
        for at, name in enumerate(table.columns):
            yield str(name), table.iloc[:, at]
    elif hasattr(table, "dtype") and getattr(table, "ndim", 1) == 1:
        yield str(getattr(table, "name", None) or "x0"), table
    elif hasattr(table, "dtype") and getattr(table, "ndim", 0) == 2:
        for at in range(table.shape[1]):
            column = table[:, at]
            yield f"x{at}", column.toarray().ravel() if hasattr(column, "toarray") else column
    elif isinstance(table, (list, tuple)) and table:
        import numpy as np

        array = np.asarray(table)
        if array.ndim not in (1, 2):
            raise DataInvalid(f"a list with {array.ndim} dimensions is no table")
        yield from _columns(array)
    else:
        raise DataInvalid(
            f"a {type(table).__module__}.{type(table).__qualname__} is no table",
            next="give a DataFrame, or an array of two dimensions",
        )


def dtype_of(column: Any) -> str:
    """A column's type in words that libraries agree on."""
    kind = getattr(column, "dtype", None)
    if kind is None:
        kind = getattr(column, "type", "object")
    found = dtype_named(str(kind))
    return "string" if found == "object" and _all_text(column) else found


def dtype_named(name: str) -> str:
    """A type in words that libraries agree on, by one library's name for it.

    >>> dtype_named("Int64"), dtype_named("large_string"), dtype_named("<U5")
    ('int64', 'string', 'string')
    """
    name = name.strip()
    low = name.lower()
    if low in {"str", "string", "utf8", "large_string", "string_view"} or low.startswith(("string[", "<u", "str[")):
        return "string"
    if low in {"category", "categorical", "enum"} or low.startswith(("dictionary", "categorical(", "enum(")):
        return "category"
    simple = {"double": "float64", "float": "float32", "halffloat": "float16", "boolean": "bool"}
    return simple.get(low, low if low[:3] in {"int", "uin", "flo", "boo"} else name)


def _all_text(column: Any) -> bool:
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    seen = False
    for value in values:
        if type(value) is str:
            seen = True
        elif value is not None and value == value:
            return False
    return seen


def describe(name: str, column: Any) -> Column:
    """Type, nulls and categories of one column."""
    dtype = dtype_of(column)
    categories = None
    if dtype == "category":
        declared = getattr(getattr(column, "cat", None), "categories", None)
        categories = len(declared) if declared is not None and hasattr(declared, "__len__") else None
    return Column(name=name, dtype=dtype, nullable=_missing(column) > 0, categories=categories)


def _missing(column: Any) -> int:
    for name in ("null_count", "isna"):
        found = getattr(column, name, None)
        if name == "null_count" and found is not None:
            return int(found() if callable(found) else found)
        if callable(found):
            return int(found().sum())
    if getattr(getattr(column, "dtype", None), "kind", "") == "f":
        return int((column != column).sum())
    return 0


def signature_of(
    inputs: Any, outputs: Any = None, *, task: str = "", classes: int | None = None, source: str = ""
) -> Signature:
    """Read a model's signature from the data it was trained on.

    Parameters
    ----------
    inputs, outputs
        Tables or columns, of any library.
    classes
        How many classes a classifier knows.

    >>> signature_of({"age": [1, 2]}, [0, 1]).inputs[0].name
    'age'
    """
    import numpy as np

    def described(table: Any, name: str | None = None) -> tuple[Column, ...]:
        return tuple(
            describe(name if name and label == "x0" else label, np.asarray(c) if isinstance(c, (list, tuple)) else c)
            for label, c in columns(table)
        )

    given = described(outputs, "y") if outputs is not None else ()
    if classes and len(given) == 1:
        given = (msgspec.structs.replace(given[0], categories=classes),)
    return Signature(inputs=described(inputs), outputs=given, task=task, named=is_named(inputs), source=source)


def compare(expected: Signature, found: Signature) -> list[str]:
    """What is different about data, for a model that expects a signature: in words, empty where it fits.

    >>> a = Signature(inputs=(Column(name="age", dtype="int64"),))
    >>> compare(a, Signature(inputs=(Column(name="age", dtype="float64"), Column(name="sex", dtype="string"))))
    ["column 'age' is float64, not int64", "column 'sex' is not known to the model"]
    """
    have = {column.name: column for column in found.inputs}
    want = {column.name: column for column in expected.inputs}
    said = []
    for name, column in want.items():
        other = have.get(name)
        if other is None:
            said.append(f"column {name!r} is missing")
        elif other.dtype != column.dtype:
            said.append(f"column {name!r} is {other.dtype}, not {column.dtype}")
        elif other.nullable and not column.nullable:
            said.append(f"column {name!r} has missing values, which training data had not")
    said += [f"column {name!r} is not known to the model" for name in have if name not in want]
    if not said and list(have) != list(want):
        said.append("the columns stand in another order")
    return said


# -- the baseline ----------------------------------------------------------------------------------------------------


def profile(
    table: Any,
    *,
    seconds: float = 2.0,
    secret: Callable[[str], bool] = lambda _: False,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Summarise training data, one column after the other, so that later data can be held against it.

    Numbers get the edges of about 20 bins of equal counts and how many rows fell into each; columns of few distinct
    labels get their counts; dates get bins likewise. Free text, identifiers and columns with secret names get their
    counts of rows and nulls only: a profile travels with the model, and must not carry people's data.

    Parameters
    ----------
    seconds
        The most it may take; columns not reached are named with that reason.
    secret
        Tells a name that stands for something secret.

    Returns
    -------
    dict
        ``rows``, ``columns`` by name, and ``rows_used`` where only every n-th row of a very long table was read.
    """
    end = clock() + seconds
    found: dict[str, Any] = {}
    rows = used = 0
    for at, (name, column) in enumerate(columns(table)):
        rows = len(column)
        step = -(-rows // _MOST_ROWS) if rows > _MOST_ROWS else 1
        used = -(-rows // step) if rows else 0
        if at >= _MOST_COLUMNS or clock() > end:
            found[name] = {"kind": "none", "why": "not reached in the time allowed"}
        elif secret(name):
            found[name] = {"kind": "none", "why": "its name stands for a secret"}
        else:
            found[name] = _summary(column[::step] if step > 1 else column)
    answer: dict[str, Any] = {"rows": rows, "columns": found}
    if used != rows:
        answer["rows_used"] = used
    return answer


def _summary(column: Any) -> dict[str, Any]:
    import numpy as np

    found = numbers_of(column)
    if found is None:
        dtype = dtype_of(column)
        return _labels(_array(column), dtype, text=dtype not in {"bool", "category"})
    kind, values = found
    missing = np.isnan(values)
    summary = _numbers(values[~missing], int(missing.sum()))
    return {**summary, "kind": "time", "unit": "us"} if kind == "time" else summary


def numbers_of(column: Any) -> tuple[str, Any] | None:
    """A column as floats, what is missing as NaN, and whether they are a ``number`` or a ``time`` (in µs).

    None where it holds labels.
    """
    import numpy as np

    dtype, values = dtype_of(column), _array(column)
    if dtype == "bool" or values.dtype.kind == "b" or dtype in {"string", "category", "object"}:
        return None
    if values.dtype.kind == "O" and dtype.startswith("datetime64"):  # with a zone: as UTC
        values = np.asarray(column, dtype="datetime64[us]")
    if values.dtype.kind in "mM":
        whole = values.astype("datetime64[us]" if values.dtype.kind == "M" else "timedelta64[us]")
        return "time", np.where(np.isnat(values), np.nan, whole.astype("int64").astype(float))
    try:
        return "number", values.astype(float)
    except (TypeError, ValueError):  # a type of a library's own: its labels say more than nothing
        return None


def labels_of(column: Any) -> Iterator[str | None]:
    """A column as labels, None for what is missing."""
    for value in _array(column).tolist():
        missing = value is None or type(value).__name__ == "NAType" or value != value
        yield None if missing else value if type(value) is str else str(value)


def _array(column: Any) -> Any:
    import numpy as np

    return column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)


def _numbers(values: Any, nulls: int) -> dict[str, Any]:
    import numpy as np

    summary: dict[str, Any] = {"kind": "number", "count": len(values), "nulls": nulls}
    finite = values[np.isfinite(values)]
    if len(finite) != len(values):
        summary["infinite"] = len(values) - len(finite)
    if not len(finite):
        return summary
    finite = np.sort(finite)
    with np.errstate(all="ignore"):  # numbers near the largest there are overflow in a mean: then it is infinite
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, _BINS + 1)))
        mean, std = float(finite.mean()), float(finite.std())
    # a value that makes up whole bins has one edge only: bins are closed on the left, the last one on both sides
    at = np.searchsorted(finite, edges[1:-1], side="left") if len(edges) > 2 else np.empty(0, int)
    counts = np.diff(np.concatenate([[0], at, [len(finite)]]))
    return {
        **summary,
        "min": float(finite[0]),
        "max": float(finite[-1]),
        "mean": mean,
        "std": std,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _labels(values: Any, dtype: str, *, text: bool) -> dict[str, Any]:
    counts: dict[str, int] = {}
    nulls = length = 0
    for label in labels_of(values):
        if label is None:
            nulls += 1
            continue
        length = max(length, len(label))
        counts[label] = counts.get(label, 0) + 1
    rows = len(values) - nulls
    summary: dict[str, Any] = {"kind": "label", "count": rows, "nulls": nulls, "distinct": len(counts)}
    rare = text and len(counts) * 2 > max(rows, 1)
    if len(counts) > _MOST_DISTINCT or length > _LONGEST_LABEL or rare:
        return {**summary, "kind": "text", "longest": length}
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(top[:_TOP])
    return {**summary, "top": kept, "other": rows - sum(kept.values()), "dtype": dtype}
