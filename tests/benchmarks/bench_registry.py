"""Registering a small model, beside serializing it with skops and nothing else, in the same run.

Then the 200th version of a name beside the second one in a new store, in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jupyter_mlops.registry import LocalRegistry
from jupyter_mlops.store import Store

REPETITIONS = 30
VERSIONS = 199


def milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Print medians of pairs, taken in turn."""
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(2000, 10)), columns=[f"f{at}" for at in range(10)])
    y = (X.f0 > 0).astype(int)
    with tempfile.TemporaryDirectory() as folder, Store.create(Path(folder) / ".mlops") as store:
        registry = LocalRegistry(store, user="bench")
        for what, words in (("bare", {}), ("with data and evaluation", {"data": (X, y), "evaluation": (y, y)})):
            plain, ours = [], []
            for at in range(REPETITIONS + 3):
                model = make_pipeline(StandardScaler(), LogisticRegression(C=1 + at / 100)).fit(X, y)
                plain.append(milliseconds(lambda model=model: skops.io.dumps(model)))
                ours.append(milliseconds(lambda model=model, words=words: registry.register(model, "small", **words)))
            one, other = statistics.median(ours[3:]), statistics.median(plain[3:])
            beside = statistics.median(a - b for a, b in zip(ours[3:], plain[3:], strict=True))
            print(
                f"registry · register a small model, {what} · {one:.1f} ms · skops.io.dumps {other:.1f} ms · "
                f"{one / other:.1f} × · {beside:.1f} ms beside it, goal ≤ 30 ms"
            )
        words = {"data": (X, y), "evaluation": (y, y)}
        first = LogisticRegression().fit(X, y)
        early, late = [], []
        for at in range(VERSIONS + REPETITIONS):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=1 + at / 100)).fit(X, y)
            if at >= VERSIONS:
                with Store.create(Path(folder) / f"new{at}/.mlops") as new:
                    young = LocalRegistry(new, user="bench")
                    young.register(first, "many", **words)
                    early.append(milliseconds(lambda model=model, young=young: young.register(model, "many", **words)))
            spent = milliseconds(lambda model=model: registry.register(model, "many", **words))
            if at >= VERSIONS:
                late.append(spent)
        one, other = statistics.median(late), statistics.median(early)
        print(
            f"registry · register version {VERSIONS + 1} to {VERSIONS + REPETITIONS} of a name · {one:.1f} ms · "
            f"version 2 {other:.1f} ms · {one / other:.2f} ×, goal ≈ 1"
        )


if __name__ == "__main__":
    main()
