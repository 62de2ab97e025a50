"""How every bench reports: one line per measurement, ours beside the limit or peer of the same run, and the goal."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable


def row(topic: str, what: str, ours: float, theirs: float, unit: str, goal: str, *, against: str = "plain") -> None:
    """Print a measurement: ours, what it is held against, the ratio, and the goal set for it."""
    ratio = f"{ours / theirs:.3f}×" if theirs else "—"
    figures = f"ours {ours:>10.4g} {unit:<5} {against} {theirs:>10.4g} {unit:<5} ratio {ratio:>9}"
    print(f"{topic:<12} {what:<52} {figures}  goal {goal}", flush=True)


def processor() -> float:
    """Seconds of the processor's time that this process has taken, with those of its children that have ended.

    On a busy machine that says more than what a clock on the wall does.
    """
    return sum(os.times()[:4])


def interleaved(
    *candidates: Callable[[], object], repeats: int = 7, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Time candidates turn by turn, so that noise falls on all of them alike; medians in seconds."""
    times: list[list[float]] = [[] for _ in candidates]
    for _ in range(repeats):
        for place, candidate in enumerate(candidates):
            began = clock()
            candidate()
            times[place].append(clock() - began)
    return [statistics.median(one) for one in times]
