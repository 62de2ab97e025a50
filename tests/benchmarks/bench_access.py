"""What the wrappers on files and sources cost: user code that opens nothing, ``open`` itself, unchanged files."""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jupyter_mlops.access import Access
from tests.benchmarks.report import row


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _pairs(access: Access, run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians with the wrappers on in a running cell, and without them, interleaved."""
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(_seconds(run))
        access.install()
        trace = access.begin()
        ours.append(_seconds(run))
        access.end(trace, budget=1)
        access.remove()
    return statistics.median(ours), statistics.median(plain)


def _ids() -> None:
    value = object()
    for _ in range(300_000):
        id(value)


def _calls() -> None:
    def function() -> None: ...

    for _ in range(1_000_000):
        function()


_NESTED = {str(key): [key, {"a": (key, [key])}] for key in range(2_000)}


def main() -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.chdir(root)
        access = Access(root, redact=str)
        kinds = (("id × 300,000", _ids), ("deepcopy", lambda: copy.deepcopy(_NESTED)), ("1,000,000 calls", _calls))
        for what, run in kinds:
            ours, plain = _pairs(access, run, 31)
            row("access", what, ours * 1e3, plain * 1e3, "ms", "≤ 1.01")

        Path("x").write_text("1\n")

        def opens(mode: str) -> Callable[[], None]:
            def run() -> None:
                for _ in range(3_000):
                    open("x", mode).close()

            return run

        for mode in ("r", "rb"):
            ours, plain = _pairs(access, opens(mode), 31)
            row("access", f"open and close, {mode!r}", ours / 3e-3, plain / 3e-3, "µs", "≤ 1.2")

        many = Path("many")
        many.mkdir()
        names = [str(many / f"{number:05}.csv") for number in range(10_000)]
        for name in names:
            Path(name).write_bytes(os.urandom(64))
        time.sleep(0.05)  # out of the racy window
        limit = statistics.median(_seconds(lambda: [os.stat(name) for name in names]) for _ in range(9))
        checks = []
        for _ in range(9):
            access.install()
            trace = access.begin()
            for name in names:
                trace.raw[name] = None
            checks.append(_seconds(lambda trace=trace: access.end(trace, budget=60)))
            access.remove()
        again = statistics.median(checks[1:])
        row("access", "10,000 unchanged files checked again", again * 1e3, limit * 1e3, "ms", "≤ 70 ms", against="stat")
        trace_costs = [_seconds(lambda: access.end(access.begin(), budget=1)) for _ in range(2_000)]
        row("access", "a cell that touches nothing", statistics.median(trace_costs) * 1e6, 0.1, "µs", "≤ 10 µs")


if __name__ == "__main__":
    main()
