"""What looking at the variables costs a cell: trivial cells, and cells that touch frames in a large namespace."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from blake3 import blake3

sys.path.insert(0, str(Path(__file__).parents[2]))
from jupyter_mlops.lineage import names_in
from jupyter_mlops.namespace import Namespace
from tests.benchmarks.report import row


def digest(count: int) -> str:
    return f"blake3:{count:064x}"


def trivial(variables: int, goal: str) -> None:
    user_ns: dict[str, object] = {f"v{number}": [number, str(number)] for number in range(variables // 2)}
    user_ns |= {f"n{number}": number for number in range(variables - len(user_ns))}
    namespace = Namespace(user_ns)
    namespace.after(namespace.before("v", names_in(" ; ".join(user_ns))), digest(0))
    times, plain = [], []
    for count in range(1, 501):
        source = "x = 1 + 1"
        code = compile(source, "cell", "exec")
        names = names_in(source)
        began = time.perf_counter()
        before = namespace.before(source, names)
        between = time.perf_counter()
        exec(code, user_ns)
        ran = time.perf_counter()
        delta = namespace.after(before, digest(count))
        ended = time.perf_counter()
        assert [one.name for one in delta.outputs] == ["x"]
        times.append(between - began + ended - ran)
        user_ns["_i"] = f"{source} {count}"
    # the limit: one look at every name's identity, before and after
    for _ in range(500):
        began = time.perf_counter()
        dict(zip(user_ns, map(id, user_ns.values()), strict=True))
        dict(zip(user_ns, map(id, user_ns.values()), strict=True))
        plain.append(time.perf_counter() - began)
    row("namespace", f"trivial cell, {variables:,} variables", statistics.median(times) * 1e6,
        statistics.median(plain) * 1e6, "µs", goal, against="id walk")  # fmt: skip
    namespace.close()


def touching() -> None:
    rng = np.random.default_rng(0)
    rows = 390_625
    user_ns: dict[str, object] = {
        f"df{number}": pd.DataFrame({name: rng.normal(size=rows) for name in "abcdefgh"}) for number in range(18)
    }
    namespace = Namespace(user_ns, budget=5)
    namespace.after(namespace.before("", names_in(" ; ".join(user_ns))), digest(0))
    ratios, ours_all, limits = [], [], []
    for count in range(1, 51):
        name = f"df{count % 18}"
        source = f"{name}.iloc[0, 0] = {count}"
        code = compile(source, "cell", "exec")
        began = time.perf_counter()
        before = namespace.before(source, names_in(source))
        middle = time.perf_counter()
        exec(code, user_ns)
        ran = time.perf_counter()
        delta = namespace.after(before, digest(count))
        ours = time.perf_counter() - ran + middle - began
        assert [one.name for one in delta.outputs] == [name]
        blocks = [np.ascontiguousarray(block.values) for block in user_ns[name]._mgr.blocks]
        began = time.perf_counter()
        for block in blocks:
            blake3(block.view(np.uint8).data).hexdigest()
        limit = time.perf_counter() - began
        ours_all.append(ours)
        limits.append(limit)
        ratios.append((ours - 0.0005) / limit)
    row("namespace", "50 cells, 450 MB namespace, each touches 25 MB", statistics.median(ours_all) * 1e3,
        statistics.median(limits) * 1e3, "ms", "≤ 1.15 × + 0.5 ms", against="BLAKE3")  # fmt: skip
    print(f"{'':12} less 0.5 ms: {statistics.median(ratios):.3f}×")
    namespace.close()


def main() -> None:
    trivial(200, "≤ 60 µs")
    trivial(1_000, "≤ 200 µs")
    touching()


if __name__ == "__main__":
    main()
