"""Counts, ranges and single numbers of a value, for people and tolerances: told when asked for, never in a digest."""

from __future__ import annotations

import math
import sys
from typing import Any, Final

FEW: Final = 64
"""Numbers that are told one by one."""
MANY: Final = 1 << 20
"""Items that a range is computed of: some milliseconds."""


def summarise(value: object) -> dict[str, Any] | None:
    """Per column: how many are missing and, of numbers, least, greatest, mean and standard deviation; never a text.

    Parameters
    ----------
    value
        Anything.

    Returns
    -------
    dict or None
        By column name, for a pandas frame whose columns are named by texts; of an array or series of numbers, under
        the empty name; None for anything else.
    """
    kind = type(value)
    np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
    held: Any = value
    if pd is not None and kind is getattr(pd, "Series", None):
        held = held._mgr.array
        kind = type(held)
    if np is not None and kind is getattr(np, "ndarray", None):
        return {"": _column(held)} if held.dtype.kind in "fiu" else None
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


def numbers(value: object) -> list[float]:
    """The numbers a value consists of, where it consists of at most `FEW` and nothing else; empty for anything else.

    >>> numbers(0.5), numbers([1, 2.5]), numbers(True), numbers([1, "a"]), numbers(2**60)
    ([0.5], [1.0, 2.5], [], [], [])
    """
    kind = type(value)
    held: Any = value
    if kind is float or kind is int:
        return [float(held)] if kind is float or -(2**53) < held < 2**53 else []
    if kind is list or kind is tuple:
        if len(held) > FEW:
            return []
        found = [numbers(one)[0] for one in held if type(one) in (float, int) and numbers(one)]
        return found if len(found) == len(held) else []
    np = sys.modules.get("numpy")
    if np is None or kind.__module__ != "numpy":
        return []
    if kind in (np.float64, np.float32) or (kind in (np.int64, np.int32) and -(2**53) < held.item() < 2**53):
        return [float(held.item())]
    if kind is np.ndarray and held.dtype.kind == "f" and held.size <= FEW:
        return [float(one) for one in held.ravel().tolist()]
    return []


def summable(value: object) -> bool:
    """Whether a value is small enough to be summarised within some milliseconds."""
    kind = type(value)
    for library, name in (("numpy", "ndarray"), ("pandas", "Series"), ("pandas", "DataFrame")):
        module = sys.modules.get(library)
        if module is not None and kind is getattr(module, name, None):
            shape = value.shape  # type: ignore[attr-defined]
            return bool(math.prod(shape) <= MANY)
    return False
