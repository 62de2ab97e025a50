"""What a table is held to before a model is trained on it: a contract, inferred from good data, and its breaches.

A contract is about what columns there are and what they hold, in words that libraries agree on: a whole number where
there was one, no missing value where there was none, no label that was not seen where there were few, and, if wanted,
no number beyond those seen. A breach names the column, how many rows, and a few examples; of a column with a secret's
name none, and any text goes through a mask first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from jupyter_mlops.checks.data import Column, Signature, columns, dtype_of

_FEW: Final = 50
_EXAMPLES: Final = 3
_LONGEST: Final = 60


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one column is held to.

    Attributes
    ----------
    dtype
        Its type, as `Column` has it; empty where any will do.
    nullable
        Whether values may be missing.
    labels
        The values it may have; None where any.
    low, high
        Between which its numbers are to lie, both included; None where it does not matter.
    """

    name: str
    dtype: str = ""
    nullable: bool = True
    labels: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None


class Contract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a table is held to.

    Attributes
    ----------
    rules
        One for each column, and there are to be no others.
    source
        Where it comes from, for people.
    unknown
        What it can not say, and why.
    """

    rules: tuple[Rule, ...]
    source: str = ""
    unknown: tuple[str, ...] = ()


class Breach(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A way in which a table is not what it is to be.

    Attributes
    ----------
    column
        The column; empty where it is the table as a whole.
    what
        In words.
    rows
        In how many rows; None where it is not about rows.
    first
        The positions of the first of them, from 0.
    examples
        A few of the values, masked.
    """

    column: str
    what: str
    rows: int | None = None
    first: tuple[int, ...] = ()
    examples: tuple[str, ...] = ()


def infer(
    table: Any, *, source: str = "", ranges: bool = False, secret: Callable[[str], bool] = lambda _: False
) -> Contract:
    """Infer a contract from a table that is as it should be.

    Parameters
    ----------
    ranges
        Whether numbers are to stay between the least and the greatest seen.
    secret
        Tells a name that stands for something secret: of such a column no value is kept.

    Examples
    --------
    >>> [(one.name, one.dtype, one.nullable) for one in infer({"age": [31, 40]}).rules]
    [('age', 'int64', False)]
    """
    rules = []
    for name, column in columns(table):
        hidden = secret(name)
        low, high = _span(column) if ranges and not hidden else (None, None)
        rules.append(
            Rule(
                name=name, dtype=dtype_of(column), nullable=bool(missing_values(column).any()),
                labels=None if hidden else _few_labels(column, dtype_of(column)), low=low, high=high,
            )
        )  # fmt: skip
    return Contract(rules=tuple(rules), source=source)


def of_columns(found: Sequence[Column], *, source: str = "", known_nulls: bool = False) -> Contract:
    """The contract that is on record of a table: names and types, and where they are known, missing values."""
    # A column of objects may have held texts, which now are told as such, or anything.
    rules = tuple(
        Rule(name=one.name, dtype="" if one.dtype == "object" else one.dtype, nullable=one.nullable or not known_nulls)
        for one in found
    )
    unknown = () if known_nulls else ("whether values were missing, and which labels there were, is not on record",)
    return Contract(rules=rules, source=source, unknown=unknown)


def of_model(
    signature: Signature, profile: Mapping[str, Any] | None, *, source: str = "", ranges: bool = False
) -> Contract:
    """The contract of a model's training data: its signature, and what its baseline profile adds."""
    told = ((profile or {}).get("inputs") or {}).get("columns") or {}
    rules = []
    for one in signature.inputs:
        seen = told.get(one.name) or {}
        whole = seen.get("kind") == "label" and not seen.get("other") and len(seen.get("top", ())) <= _FEW
        spans = ranges and seen.get("kind") == "number"
        rules.append(
            Rule(
                name=one.name, dtype=one.dtype, nullable=one.nullable,
                labels=tuple(sorted(seen["top"])) if whole and one.dtype != "bool" else None,
                low=seen.get("min") if spans else None, high=seen.get("max") if spans else None,
            )
        )  # fmt: skip
    return Contract(rules=tuple(rules), source=source)


def breaches(
    contract: Contract,
    table: Any,
    *,
    secret: Callable[[str], bool] = lambda _: False,
    mask: Callable[[str], str] = lambda text: text,
) -> list[Breach]:
    """Hold a table to a contract.

    Parameters
    ----------
    secret
        Tells a name that stands for something secret: of such a column no example is given.
    mask
        Takes secrets out of an example.

    Examples
    --------
    >>> good = infer({"age": [31, 40], "sex": ["f", "m"]})
    >>> [(one.column, one.what, one.rows) for one in breaches(good, {"age": [31.5, float("nan")], "name": ["x", "y"]})]
    [('age', 'is float64, not int64', None), ('age', 'has missing values', 1), ('sex', 'is missing', None), \
('name', 'is not in the contract', None)]
    """
    have = dict(columns(table))
    want = {rule.name: rule for rule in contract.rules}
    found: list[Breach] = []
    if have and contract.rules and not any(len(column) for column in have.values()):
        found.append(Breach(column="", what="has no rows"))
    for name, rule in want.items():
        if name not in have:
            found.append(Breach(column=name, what="is missing"))
            continue

        def shown(value: Any, hidden: bool = secret(name)) -> str | None:
            return None if hidden else _cut(mask(str(value)))

        found += _of_column(rule, have[name], shown)
    found += [Breach(column=name, what="is not in the contract") for name in have if name not in want]
    return found


def breaches_on_record(contract: Contract, found: Sequence[Column]) -> list[Breach]:
    """Hold what is on record of a table, its columns and their types, to a contract."""
    have = {one.name: one.dtype for one in found}
    want = {rule.name: rule.dtype for rule in contract.rules}
    told = [Breach(column=name, what="is missing") for name in want if name not in have]
    told += [
        Breach(column=name, what=f"is {have[name]}, not {dtype}")
        for name, dtype in want.items()
        if name in have and dtype and have[name] != "object" and not _same_type(dtype, have[name])
    ]
    return told + [Breach(column=name, what="is not in the contract") for name in have if name not in want]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _of_column(rule: Rule, column: Any, shown: Callable[[Any], str | None]) -> list[Breach]:
    import numpy as np

    found = []
    dtype = dtype_of(column)
    if rule.dtype and not _same_type(rule.dtype, dtype):
        found.append(Breach(column=rule.name, what=f"is {dtype}, not {rule.dtype}"))
    missing = missing_values(column)
    if not rule.nullable and missing.any():
        found.append(_rows(rule.name, "has missing values", missing, None, shown))
    if rule.labels is not None:
        allowed = set(rule.labels)
        values = _listed(column)
        strange = np.fromiter((str(value) not in allowed for value in values), bool, len(values)) & ~missing
        if strange.any():
            found.append(_rows(rule.name, "has labels that were not there", strange, values, shown))
    if (rule.low is not None or rule.high is not None) and (numbers := _numbers(column)) is not None:
        with np.errstate(invalid="ignore"):
            below = numbers < rule.low if rule.low is not None else np.zeros(len(numbers), bool)
            above = numbers > rule.high if rule.high is not None else np.zeros(len(numbers), bool)
        beyond = (below | above) & ~missing
        if beyond.any():
            what = f"has values beyond {_number(rule.low)} to {_number(rule.high)}"
            found.append(_rows(rule.name, what, beyond, numbers, shown))
    return found


def _number(value: float | None) -> str:
    return "any" if value is None else f"{value:.6g}"


def _rows(column: str, what: str, mask: Any, values: Any, shown: Callable[[Any], str | None]) -> Breach:
    at = mask.nonzero()[0]
    examples: dict[str, None] = {}
    for place in at.tolist() if values is not None else ():
        text = shown(values[place])
        if text is not None:
            examples[text] = None
        if text is None or len(examples) == _EXAMPLES:
            break
    return Breach(
        column=column, what=what, rows=len(at), first=tuple(at[:_EXAMPLES].tolist()), examples=tuple(examples)
    )  # fmt: skip


_FAMILIES: Final = (("int", "uint"), ("float", "int", "uint"), ("string", "category"), ("datetime64[", "timestamp"))


def _same_type(wanted: str, found: str) -> bool:
    """Whether a type is the one wanted, in whatever width; a whole number is a number, not the other way round."""
    if wanted == found:
        return True
    for wide in _FAMILIES:
        if wanted.startswith(wide[0]) and found.startswith(wide):
            return _zone(wanted) == _zone(found)
        if wide[0] != "float" and wanted.startswith(wide) and found.startswith(wide):
            return _zone(wanted) == _zone(found)
    return False


def _zone(dtype: str) -> bool:
    return dtype.startswith(("datetime64[", "timestamp")) and ("," in dtype or "tz=" in dtype)


def missing_values(column: Any) -> Any:
    """Which values of a column are missing."""
    import numpy as np

    if hasattr(column, "isna"):  # pandas
        return np.asarray(column.isna())
    if hasattr(column, "is_null"):
        if hasattr(column, "chunks") or hasattr(column, "buffers"):  # pyarrow
            return np.asarray(column.is_null(nan_is_null=True))
        missing = np.asarray(column.is_null())  # polars
        return missing | np.asarray(column.is_nan().fill_null(False)) if column.dtype.is_float() else missing
    values = np.asarray(column)
    if values.dtype.kind in "fc":
        return np.isnan(values)
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind == "O":
        return np.fromiter((value is None or value != value for value in values.tolist()), bool, len(values))
    return np.zeros(len(values), bool)


def _listed(column: Any) -> list[Any]:
    """A column's values as Python has them."""
    listed = next(filter(None, (getattr(column, name, None) for name in ("tolist", "to_pylist", "to_list"))), None)
    return list(listed()) if listed is not None else list(column)


def _numbers(column: Any) -> Any:
    import numpy as np

    values = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    if values.dtype.kind not in "iuf":
        return None
    return values.astype(float)


def _span(column: Any) -> tuple[float | None, float | None]:
    import numpy as np

    numbers = _numbers(column)
    if numbers is None:
        return None, None
    finite = numbers[np.isfinite(numbers)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (None, None)


def _few_labels(column: Any, dtype: str) -> tuple[str, ...] | None:
    """The labels of a column that has few, each more than once on average; None for free text and numbers."""
    if dtype not in ("string", "category", "object"):
        return None
    found: set[str] = set()
    count = 0
    for value in _listed(column):
        if not isinstance(value, (str, bool, int)):
            continue
        count += 1
        found.add(str(value))
        if len(found) > _FEW:
            return None
    few = found and len(found) * 2 <= count and all(len(label) <= _LONGEST for label in found)
    return tuple(sorted(found)) if few or (found and dtype == "category" and len(found) <= _FEW) else None
