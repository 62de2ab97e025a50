"""Staleness of a notebook with a thousand cells, and the lineage of one value among a hundred thousand cell runs.

Beside each: the plain cost of the records it stands on, decoded from JSON, in the same run.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import msgspec
from report import interleaved, row

from jupyter_mlops.lineage import lineage, names_in
from jupyter_mlops.lineage.magics import as_python
from jupyter_mlops.lineage.matching import Cell, same_code
from jupyter_mlops.lineage.staleness import staleness
from jupyter_mlops.lineage.volatile import _hinted, _imports, _parsed, _read
from jupyter_mlops.records import Artifact, CellEnded, CellRun, CellStarted, Digest, RunStarted, digest_of
from jupyter_mlops.store import Store

CELLS = 1_000
RUNS = 100_000
DEEP = 20


def source_of(number: int, parents: list[int]) -> str:
    """A cell as people write them: some lines, some names, now and then a word of the time or the network."""
    used = ", ".join(f"v{one}" for one in parents) or "1"
    lines = [f"v{number} = step({used})", f"# what comes of {number}", f"if v{number} is None:", "    raise ValueError"]
    if number % 50 == 0:
        lines.insert(0, f"started_{number} = time.time()")
    if number % 10 == 0:
        lines.append(f"def f{number}(x):\n    return x + v{number}")
    return "\n".join(lines) if number else "import time\ndef step(*given):\n    return sum(given)\nv0 = step(1)"


def ended(number: int, parents: list[int], names: dict[int, Digest]) -> CellEnded:
    def version(one: int) -> Artifact:
        return Artifact(name=f"v{one}", kind="variable", digest=digest_of(f"v{one}".encode()), type="int", size=8,
                        made=names[one])  # fmt: skip

    return CellEnded(
        cell_run=names[number], status="done", seconds=0.01, after=[names[one] for one in parents],
        inputs=[version(one) for one in parents], outputs=[version(number)],
    )  # fmt: skip


def history() -> tuple[list[Cell], list[CellRun]]:
    """A notebook and its session: run from the top, and every twentieth cell edited since."""
    rng = random.Random(3)
    parents = [
        sorted({*(rng.randrange(max(0, one - 30), one) for _ in range(3))} if one else ()) for one in range(CELLS)
    ]
    names = {one: digest_of(str(one).encode()) for one in range(CELLS)}
    runs = [
        CellRun(
            id=names[one], time=f"2026-01-01T00:00:{one:09}Z", writer="w", seq=one,
            started=CellStarted(run=names[0], source=source_of(one, parents[one]), cell=f"c{one}", count=one),
            ended=ended(one, parents[one], names),
        )
        for one in range(CELLS)
    ]  # fmt: skip
    cells = [Cell(f"c{one}", run.source + (" + 1" if one % 20 == 7 else "")) for one, run in enumerate(runs)]
    return cells, runs


def forget() -> None:
    """As a fresh process: no text has been read yet."""
    for cached in (names_in, as_python, same_code, _hinted, _parsed, _imports, _read):
        cached.cache_clear()


def bench_staleness() -> None:
    cells, runs = history()
    raw = [msgspec.json.encode(run) for run in runs]
    decode = msgspec.json.Decoder(CellRun).decode

    def fresh() -> None:
        forget()
        staleness(cells, runs)

    cold, plain = interleaved(fresh, lambda: [decode(one) for one in raw])
    warm, plain_again = interleaved(lambda: staleness(cells, runs), lambda: [decode(one) for one in raw])
    what = f"of {CELLS:,} cells, {CELLS:,} cell runs"
    row("staleness", f"{what}, texts never seen before", cold * 1e3, plain * 1e3, "ms", "≤ 50 ms", against="decode")
    row("staleness", f"{what}, asked again", warm * 1e3, plain_again * 1e3, "ms", "≤ 50 ms", against="decode")


def bench_lineage(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Store.create(Path(folder) / ".mlops") as store:
        session = store.append(RunStarted(trigger="session"))
        names: dict[int, Digest] = {}
        for number in range(runs):
            names[number] = store.append(
                CellStarted(run=session, source=f"v{number} = step(v{number - 1})", cell=f"c{number}", count=number)
            )
            # chains of their own, so that one value has as many ancestors as people's values have
            store.append(ended(number, [number - 1] if number % DEEP else [], names))
        root = names[runs - 1]
        found = lineage([root], store.cell_run)
        assert len(found.runs) == (runs - 1) % DEEP + 1
        raw = [msgspec.json.encode(run) for run in found.runs]
        decode = msgspec.json.Decoder(CellRun).decode
        ours, plain = interleaved(
            lambda: lineage([root], store.cell_run), lambda: [decode(one) for one in raw], repeats=31
        )  # fmt: skip
        what = f"of one value ({len(found.runs)} cell runs) among {runs:,}"
        row("lineage", what, ours * 1e3, plain * 1e3, "ms", "≤ 20 ms", against="decode")
        named, _ = interleaved(lambda: store.named(f"v{runs - 1}", limit=1), lambda: None, repeats=31)
        row("lineage", f"finding a name among {runs:,}", named * 1e3, plain * 1e3, "ms", "≤ 20 ms", against="decode")


if __name__ == "__main__":
    bench_staleness()
    bench_lineage(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
