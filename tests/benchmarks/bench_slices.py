"""A slice of a history of a thousand cell runs: the walk alone, and with reading them from the store."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jupyter_mlops.lineage import names_in, volatile
from jupyter_mlops.lineage.magics import as_python
from jupyter_mlops.lineage.slices import slice_of
from jupyter_mlops.lineage.statements import cell_of
from jupyter_mlops.namespace import Namespace
from jupyter_mlops.records import CellEnded, CellRun, CellStarted, RunStarted
from jupyter_mlops.store import Store

CELLS = 1000
REPETITIONS = 15
PARSED = (volatile._hinted, volatile._parsed, volatile._imports, volatile._read)
"""What else is remembered of a text."""


def history(store: Store) -> list[CellRun]:
    """Play a thousand small cells, as people write them, and put them on record."""
    variables: dict[str, object] = {"__name__": "__main__"}
    namespace = Namespace(variables)
    run = store.append(RunStarted(trigger="session"))
    for count in range(CELLS):
        source = _source(count)
        digest = store.append(CellStarted(run=run, source=source, cell=f"c{count}", count=count))
        before = namespace.before(source, names_in(source))
        exec(source, variables)
        delta = namespace.after(before, digest)
        store.append(
            CellEnded(
                cell_run=digest, status="done", after=delta.after, inputs=delta.inputs, outputs=delta.outputs,
                removed=delta.removed, gaps=delta.gaps,
            )
        )  # fmt: skip
    return store.cell_runs(run=run, newest_first=False)


def _source(count: int) -> str:
    if not count:
        return "import math\nimport warnings\nwarnings.filterwarnings('ignore')\nxs = []\ntotal = 0"
    return (
        f"rate{count} = {count / 10}",
        f"xs.append(rate{count - 1})",
        f"def step{count}(x):\n    return math.sqrt(x + rate{count - 2})",
        f"total = total + step{count - 1}(len(xs))",
        f"print(total, {count}, end='')\nunused{count} = [total] * 3",
    )[(count - 1) % 5]


def milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Print medians."""
    with tempfile.TemporaryDirectory() as folder, Store.create(Path(folder) / ".mlops") as store:
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()):
            runs = history(store)
        by = {run.id: run for run in runs}
        last = next(run for run in reversed(runs) if any(one.name == "total" for one in run.outputs))

        def walk() -> object:
            return slice_of([last.id], by.__getitem__, names=["total"], history=lambda _: runs)

        def read() -> object:
            return store.cell_runs(run=last.started.run, newest_first=False)

        found = slice_of([last.id], by.__getitem__, names=["total"], history=lambda _: runs)
        assert not found.blocked, found.blocked[:3]
        cold = []
        for _ in range(REPETITIONS):
            for known in (cell_of, as_python, *PARSED):
                known.cache_clear()
            cold.append(milliseconds(walk))
        warm = [milliseconds(walk) for _ in range(REPETITIONS)]
        reads = [milliseconds(read) for _ in range(REPETITIONS)]
    print(f"{CELLS} cell runs, {len(found.pieces)} of them in the slice")
    print(f"the walk, no cell seen before      {statistics.median(cold):8.1f} ms   (target 50 ms)")
    print(f"the walk, cells known              {statistics.median(warm):8.1f} ms   (target 50 ms)")
    print(f"reading the cell runs from a store {statistics.median(reads):8.1f} ms")


if __name__ == "__main__":
    main()
