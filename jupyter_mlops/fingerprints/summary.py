"""Counts and ranges of a table's columns, for people: computed when asked for, never part of a digest."""

from __future__ import annotations

import math
import sys
from typing import Any


def summarise(value: object) -> dict[str, Any] | None:
    """Per column: how many are missing and, of numbers, least, greatest, mean and standard deviation; never a text.

    Parameters
    ----------
    value
        Anything.

    Returns
    -------
    dict or None
        By column name, for a pandas frame whose columns are named by texts; None for anything else.
    """
    kind = type(value)
    pd = sys.modules.get("pandas")
    if pd is None or kind is not getattr(pd, "DataFrame", None):
        return None
    from jupyter_mlops.fingerprints.frames import column_arrays, labels

    frame: Any = value
    return {name: _column(held) for name, held in zip(labels(frame._mgr.axes[0]), column_arrays(frame), strict=True)}


def _column(held: Any) -> dict[str, Any]:
    np = sys.modules["numpy"]
    if type(held) is not np.ndarray:
        return {"missing": int(held.isna().sum())}
    if held.dtype.kind == "f":
        there = held[~np.isnan(held)]
        return {"missing": len(held) - len(there), **_range(there)}
    return {"missing": 0, **_range(held)} if held.dtype.kind in "iu" else {}


def _range(held: Any) -> dict[str, float]:
    np = sys.modules["numpy"]
    if not len(held):
        return {}
    with np.errstate(all="ignore"):
        found = {"min": held.min(), "max": held.max(), "mean": held.mean(dtype="f8"), "std": held.std(dtype="f8")}
    return {name: float(one) for name, one in found.items() if math.isfinite(one)}
