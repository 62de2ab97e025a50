"""What a difference is made of: values that are false where nothing is different."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from jupyter_mlops.records import RecordInvalid, as_digest

SAMPLED: Final = 20
"""Rows, and changed values, that a difference quotes; it counts all of them."""


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
    moved
        The rows they share stand in another order. Not looked at where rows are matched by a key: whoever names one
        asks for rows wherever they stand.
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
    moved: bool = False
    matched: str = ""
    rows: tuple[int, int, int] = (0, 0, 0)
    row_samples: tuple[tuple[str, str, dict[str, str]], ...] = ()
    changed: dict[str, int] = {}
    value_samples: tuple[tuple[str, str, str, str], ...] = ()
    statistics: tuple[tuple[str, str, Any, Any], ...] = ()

    def __bool__(self) -> bool:
        columns = self.added or self.removed or self.retyped or self.reordered
        return bool(columns or self.moved or any(self.rows) or self.changed)


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


def equal(old: Any, new: Any) -> bool:
    """Whether two plain values are the same; NaN is the same as NaN."""
    return bool(old == new) or (old != old and new != new)


def is_digest(text: str) -> bool:
    """Whether a side of a change is a digest."""
    try:
        return bool(as_digest(text))
    except RecordInvalid:
        return False
