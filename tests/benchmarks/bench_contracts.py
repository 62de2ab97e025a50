"""Rows that leak from a training set into a test set, beside pandas' own join over the same columns; data held to a
contract, beside reading its values once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from report import interleaved, row

from jupyter_mlops.checks import breaches, infer, leakage

ROWS = 1_000_000


def main() -> None:
    """Print what each takes, taken in turn."""
    random = np.random.default_rng(0)
    train = pd.DataFrame(
        {f"f{at}": random.normal(size=ROWS).round(2) for at in range(5)}
        | {f"i{at}": random.integers(0, 50, ROWS) for at in range(3)}
        | {"s": random.choice(["aa", "bb", "cc", "dd"], ROWS)}
    )
    clean = train.sample(ROWS // 5, random_state=2).assign(f0=lambda table: table.f0 + 0.001)
    test = pd.concat([train.sample(1000, random_state=1), clean], ignore_index=True)
    joined = len(test.merge(train.drop_duplicates()))
    assert leakage(train, test).test_rows == joined
    ours, theirs = interleaved(lambda: leakage(train, test), lambda: test.merge(train.drop_duplicates()), repeats=3)
    row(
        "contracts",
        f"{joined} of {len(test):,} rows that leak, {ROWS:,} × 9",
        ours,
        theirs,
        "s",
        "≤ 1×",
        against="merge",
    )
    contract = infer(train, ranges=True)
    ours, theirs = interleaved(
        lambda: breaches(contract, train), lambda: [train[name].tolist() for name in train], repeats=3
    )
    row("contracts", f"{ROWS:,} × 9 held to a contract", ours, theirs, "s", "≤ 3×", against="tolist")


if __name__ == "__main__":
    main()
