"""A sort that can be called off: Python's own, in pieces of bounded size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final, TypeVar

_RUN: Final = 1 << 15
"""Items that are sorted between two looks at the budget."""
_SAMPLES: Final = 64

T = TypeVar("T", bytes, tuple[bytes, bytes])


def in_order(items: list[T], look: Callable[[], None], *, run: int = _RUN) -> list[T]:
    """What `sorted` gives, with a look at the budget after each piece.

    Runs are sorted one by one. Splitters from samples of all of them cut every run at the same values; what lies
    between two splitters is put together and sorted: Python's sort finds the runs in it and merges them.

    Parameters
    ----------
    items
        Bytes, or pairs of them.
    look
        Raises where the budget is used up.
    run
        Items of one piece.

    Examples
    --------
    >>> in_order([b"c", b"a", b"b", b"a"], lambda: None, run=2)
    [b'a', b'a', b'b', b'c']
    """
    if len(items) <= run:
        return sorted(items)
    runs: list[list[T]] = []
    for start in range(0, len(items), run):
        look()
        runs.append(sorted(items[start : start + run]))
    samples = sorted([one for part in runs for one in part[:: max(1, len(part) // _SAMPLES)]])
    ordered: list[T] = []
    cuts = [0] * len(runs)
    for splitter in samples[_SAMPLES::_SAMPLES]:
        look()
        ends = [bisect_left(part, splitter, at) for part, at in zip(runs, cuts, strict=True)]
        ordered += sorted([one for part, at, end in zip(runs, cuts, ends, strict=True) for one in part[at:end]])
        cuts = ends
    look()
    ordered += sorted([one for part, at in zip(runs, cuts, strict=True) for one in part[at:]])
    return ordered
