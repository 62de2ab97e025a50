"""What keeping facts costs: appends, objects, the index, lineage; beside a plain write and a SQLite row.

PYTHONPATH=. python tests/benchmarks/bench_store.py [CELLS]
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from report import interleaved, row

from jupyter_mlops.index import _file_digest
from jupyter_mlops.records import Artifact, CellEnded, CellLogged, CellStarted, Digest, RunStarted, digest_of
from jupyter_mlops.store import Store

WAIT = 30.0


def appends(folder: Path) -> None:
    """A metric logged, with the whole cost of building it, beside the least that could survive a process's death."""
    store = Store.create(folder / "appends")
    run = store.append(RunStarted(trigger="session"), wait=WAIT)
    cell = store.append(CellStarted(run=run, source="fit()"), wait=WAIT)
    plain = os.open(folder / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    database = sqlite3.connect(folder / "rows", isolation_level=None)
    database.execute("pragma synchronous = off")
    database.execute("create table metrics (run text, key text, value real, step integer)")
    line = b"x" * 600 + b"\n"

    def ours() -> None:
        for step in range(2000):
            record = CellLogged(run=run, cell_run=cell, what="metric", key="loss", value=0.1234567 * step, step=step)
            store.append(record, wait=WAIT)

    def writes() -> None:
        for _ in range(2000):
            os.write(plain, line)

    def rows() -> None:
        for step in range(200):
            database.execute("insert into metrics values (?, ?, ?, ?)", (run, "loss", 0.1234567 * step, step))

    ours()
    mine, bare, theirs = interleaved(ours, writes, rows)
    row("store", "log_metric, safe against process death, a second", 2000 / mine, 200 / theirs, "/s", ">= 50,000/s",
        against="SQLite row")  # fmt: skip
    row("store", "log_metric, beside write(2) of as many bytes", mine / 2000 * 1e6, bare / 2000 * 1e6, "us", "<= 20 us",
        against="write(2)")  # fmt: skip
    store.close()


def objects(folder: Path) -> None:
    store = Store.create(folder / "objects")
    (folder / "files").mkdir()
    count = 0

    def ours() -> None:
        nonlocal count
        for _ in range(200):
            count += 1
            store.put(b"%d" % count * 100)

    def files() -> None:
        nonlocal count
        for _ in range(200):
            count += 1
            path = folder / "files" / str(count)
            with open(f"{path}.tmp", "xb", buffering=0) as file:
                file.write(b"%d" % count * 100)
            os.replace(f"{path}.tmp", path)

    mine, theirs = interleaved(ours, files)
    row("store", "put of a new small object", mine / 200 * 1e6, theirs / 200 * 1e6, "us", "—", against="file")
    again = interleaved(lambda: [store.put(b"the same") for _ in range(200)])[0]
    row("store", "put of an object that is there", again / 200 * 1e6, theirs / 200 * 1e6, "us", "—", against="file")
    store.close()


def many(folder: Path, cells: int) -> None:
    """A store that has grown: what one more cell costs, and what questions do."""
    store = Store.create(folder / "many")
    run = store.append(RunStarted(trigger="session"), wait=WAIT)
    environment = digest_of(b"environment")
    before: list[Digest] = []

    def cell(number: int) -> None:
        started = store.append(
            CellStarted(run=run, environment=environment, code=environment, count=number, cell=f"cell-{number % 500}",
                        notebook="notebook.ipynb", source=f"x = {number}"), wait=WAIT,
        )  # fmt: skip
        store.append(
            CellEnded(
                cell_run=started, status="done", seconds=0.01, overhead=0.0001, after=before[-1:],
                inputs=[Artifact(name="x", kind="variable", type="int", digest=digest_of(b"%d" % (number - 1)))],
                outputs=[Artifact(name="x", kind="variable", type="int", digest=digest_of(b"%d" % number))],
            ), wait=WAIT,
        )  # fmt: skip
        # Chains of ten, as cells of one session depend on one another.
        before[:] = [] if number % 10 == 9 else [started]

    times = []
    for number in range(cells):
        began = time.perf_counter()
        cell(number)
        times.append(time.perf_counter() - began)
    tenth = len(times) // 10
    first, last = sorted(times[:tenth])[tenth // 2], sorted(times[-tenth:])[tenth // 2]
    row(
        "store",
        f"a cell's two lines, the last of {cells:,}",
        last * 1e6,
        first * 1e6,
        "us",
        "flat",
        against="the first",
    )
    size = sum(path.stat().st_size for path in (store.path / "journal").iterdir())
    row("store", "started and ended lines of a trivial cell", size / cells, 2048, "B", "<= 2 KB", against="limit")

    began = time.perf_counter()
    lines = store.reindex()
    seconds = time.perf_counter() - began
    row("store", f"index rebuilt from {lines:,} lines, a second", lines / seconds, 20_000, "/s", ">= 20,000/s",
        against="goal")  # fmt: skip
    place = store.path / "index.sqlite"
    row("store", "index on disk, per cell", place.stat().st_size / cells, size / cells, "B", "—", against="journal")

    def lineage(store: Store = store) -> None:
        (maker,) = store.made_by(digest_of(b"%d" % (cells // 2 + 9)))
        found, pending = set(), [maker]
        while pending:
            one = store.cell_run(pending.pop())
            found.add(one.id)
            pending += [parent for parent in one.after if parent not in found]
        assert found

    lineage()
    path, page, started = interleaved(lineage, lambda: store.cell_runs(limit=50), lambda: Store.open(store.path))
    row("store", f"lineage of one value among {cells:,}", path * 1e3, 20, "ms", "<= 20 ms", against="goal")
    row("store", "the newest fifty cell runs", page * 1e3, 20, "ms", "—", against="")
    row("store", "opening the store", started * 1e3, 1, "ms", "—", against="")

    def fresh() -> None:
        with Store.open(store.path) as other:
            other.cell_runs(limit=1)

    def fresh_lineage() -> None:
        with Store.open(store.path) as other:
            lineage(other)

    def grown() -> None:
        cell(cells)
        store.cell_runs(limit=1)

    def status() -> None:
        with Store.open(store.path) as other:
            other.runs(limit=1)
            other.counts()
            other.cell_runs(limit=200)

    def bytes_() -> None:
        _file_digest(place)

    store.close()
    hashed, opened, path, asked = interleaved(bytes_, fresh, fresh_lineage, status)
    row(
        "store",
        "a fresh process's first question",
        opened * 1e3,
        hashed * 1e3,
        "ms",
        "<= 20 ms",
        against="index hashed",
    )
    row("store", "lineage of one value, through a fresh open", path * 1e3, hashed * 1e3, "ms", "<= 20 ms",
        against="index hashed")  # fmt: skip
    row("store", "last run, counts and 200 cells, through a fresh open", asked * 1e3, hashed * 1e3, "ms", "—",
        against="index hashed")  # fmt: skip
    grown()
    hashed, one = interleaved(bytes_, grown)
    row("store", "a question after one more cell", one * 1e3, hashed * 1e3, "ms", "<= 20 ms", against="index hashed")
    hashed, closed = interleaved(bytes_, lambda: (grown(), store.close()))
    row("store", "the same, and letting go of the index", closed * 1e3, hashed * 1e3, "ms", "—", against="index hashed")
    store.close()


def main() -> None:
    cells = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = Path(tempfile.mkdtemp(prefix="bench-store-"))
    try:
        appends(folder)
        objects(folder)
        many(folder, cells)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
