"""Whether columns are still distributed as they were: the population stability index, beside what chance makes of it.

The index of a column is the sum of ``(now - then) * log(now / then)`` over the shares of its bins: the symmetric
divergence of Kullback and Leibler. Who uses it takes 0.1 for a small shift and 0.25 for a large one (Siddiqi, *Credit
Risk Scorecards*, 2006). Few rows make it large by chance alone: where nothing has changed, it is about
``(1 / then + 1 / now)`` times a chi-square of as many degrees of freedom as there are bins less one (Yurdakul and
Naranjo, *Journal of Risk Model Validation* 14(4), 2020). Only what is beyond 95 % of that counts as drift.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from jupyter_mlops.checks.data import columns, labels_of, numbers_of

LIMIT: Final = 0.2
DRIFTED: Final = "drifted"
STEADY: Final = "steady"
UNKNOWN: Final = "unknown"
_NORMAL: Final = 1.6448536269514722  # of 95 %, one-sided
_HALF: Final = 0.5  # a row in each bin of which nothing is known: no share is zero (Jeffreys' prior)


class Drift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a column has moved.

    Attributes
    ----------
    value
        The population stability index; None where it can not be told, for the reason in `why`.
    chance
        What it stays below in 95 % of all cases where nothing has changed.
    bins
        What the bins hold, for people.
    then, now
        How many rows fell into each.
    """

    name: str
    value: float | None = None
    chance: float | None = None
    bins: tuple[str, ...] = ()
    then: tuple[int, ...] = ()
    now: tuple[int, ...] = ()
    why: str = ""

    def verdict(self, limit: float = LIMIT) -> str:
        """``drifted``, ``steady`` or ``unknown``, as it is where rows are too few to tell such a shift from chance."""
        if self.value is None or self.chance is None:
            return UNKNOWN
        if self.value <= limit:
            return STEADY if self.chance <= limit else UNKNOWN
        return DRIFTED if self.value > self.chance else UNKNOWN


def drift(baseline: Mapping[str, Any], table: Any, *, secret: Callable[[str], bool] = lambda _: False) -> list[Drift]:
    """Hold a table against the profile of another, column by column.

    Parameters
    ----------
    baseline
        As `profile` makes it.
    table
        What there is now.
    secret
        Tells a name that stands for something secret: of such a column no label is told.

    Returns
    -------
    list
        One for each column of the baseline; columns that only the table has are nothing that could have moved.

    Raises
    ------
    DataInvalid
        The value is no table.

    Examples
    --------
    >>> from jupyter_mlops.checks import profile
    >>> then = profile({"hour": [*range(24)] * 100})
    >>> [one.verdict() for one in drift(then, {"hour": [*range(12)] * 100})]
    ['drifted']
    """
    have = dict(columns(table))
    found = []
    for name, summary in baseline["columns"].items():
        if name not in have:
            found.append(Drift(name=name, why="the column is not there"))
        elif secret(name):
            found.append(Drift(name=name, why="its name stands for a secret"))
        else:
            found.append(_of_column(name, summary, have[name]))
    return found


def _of_column(name: str, summary: Mapping[str, Any], column: Any) -> Drift:
    if summary["kind"] in ("none", "text"):
        return Drift(name=name, why=summary.get("why") or "of free text no distribution is kept")
    counted = _labels(summary, column) if summary["kind"] == "label" else _numbers(summary, column)
    if isinstance(counted, str):
        return Drift(name=name, why=counted)
    kept = [one for one in counted if one[1] or one[2]]
    bins, then, now = (tuple(row) for row in zip(*kept, strict=True)) if kept else ((), (), ())
    if not sum(then) or not sum(now):
        return Drift(name=name, bins=bins, then=then, now=now, why="there are no rows")
    return Drift(name=name, value=stability(then, now), chance=_chance(then, now), bins=bins, then=then, now=now)


def stability(then: tuple[int, ...], now: tuple[int, ...]) -> float:
    """The population stability index of two rows of counts.

    >>> stability((50, 50), (50, 50)), round(stability((900, 100), (500, 500)), 2)
    (0.0, 0.88)
    """
    whole, other = sum(then) + _HALF * len(then), sum(now) + _HALF * len(now)
    shares = [((one + _HALF) / whole, (two + _HALF) / other) for one, two in zip(then, now, strict=True)]
    return sum((two - one) * math.log(two / one) for one, two in shares)


def _chance(then: tuple[int, ...], now: tuple[int, ...]) -> float:
    """What the index stays below in 95 % of all cases where nothing has changed.

    The quantile of chi-square is Wilson and Hilferty's (*PNAS* 17(12), 1931).
    """
    free = len(then) - 1
    if free < 1:
        return 0.0
    part = 2 / (9 * free)
    return float(free * (1 - part + _NORMAL * math.sqrt(part)) ** 3 * (1 / sum(then) + 1 / sum(now)))


def _numbers(summary: Mapping[str, Any], column: Any) -> list[tuple[str, int, int]] | str:
    import numpy as np

    found = numbers_of(column)
    if found is None or found[0] != summary["kind"]:
        return f"it held {summary['kind']}s, and does no more"
    values = found[1]
    missing = int(np.isnan(values).sum())
    finite = values[np.isfinite(values)]
    counted = [("missing", summary["nulls"], missing),
               ("infinite", summary.get("infinite", 0), len(values) - missing - len(finite))]  # fmt: skip
    edges = np.asarray(summary.get("edges", []), float)
    if not len(edges):
        return [*counted, ("any other", 0, len(finite))]
    if len(edges) == 1:  # one value only, as far as was seen
        same = int((finite == edges[0]).sum())
        return [*counted, (_told(edges[0], summary), summary["counts"][0], same), ("any other", 0, len(finite) - same)]
    # the outer bins are open: what lies beyond what was seen belongs to them
    places = np.bincount(np.searchsorted(edges[1:-1], finite, side="right"), minlength=len(edges) - 1)
    names = [f"{_told(low, summary)} to {_told(high, summary)}" for low, high in itertools.pairwise(edges)]
    return [*counted, *zip(names, summary["counts"], map(int, places), strict=True)]


def _told(edge: float, summary: Mapping[str, Any]) -> str:
    if summary["kind"] != "time":
        return f"{edge:.4g}"
    import numpy as np

    return str(np.datetime64(int(edge), "us").astype("datetime64[s]"))


def _labels(summary: Mapping[str, Any], column: Any) -> list[tuple[str, int, int]] | str:
    found = numbers_of(column)
    if found is not None:
        return f"it held labels, and holds {found[0]}s now"
    counts = collections.Counter(labels_of(column))
    missing = counts.pop(None, 0)
    known = {label: counts.pop(label, 0) for label in summary["top"]}
    return [
        ("missing", summary["nulls"], missing),
        *((label, then, known[label]) for label, then in summary["top"].items()),
        ("any other", summary["other"], sum(counts.values())),
    ]
