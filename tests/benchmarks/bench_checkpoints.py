"""A checkpoint of a frame of 450 MB that got a column, and its return, beside hashing, writing and reading those bytes.

With ``--kishu PYTHON`` (an interpreter that has kishu) the same cells are run under it too: seconds and bytes a cell.
The goal: at most 1.3 times the column's bytes at hashing plus writing speed, and 1.3 times reading speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, COLUMNS = 5_625_000, 10
CELLS = [
    f"import numpy as np, pandas as pd; df = pd.DataFrame(np.random.default_rng(0).random(({ROWS}, {COLUMNS}))).copy()",
    *(f"df['new{number}'] = np.random.default_rng({number}).random({ROWS})" for number in range(1, 6)),
    "small = [1, 2]",
    "small.append(3)",
]

_KISHU = """
import json, pathlib, sys, time, os
folder, cells = sys.argv[1], json.loads(sys.argv[2])
os.environ["HOME"] = folder
from IPython.testing.globalipapp import start_ipython
from kishu.jupyterint import KishuForJupyter
from kishu.storage.config import Config
from kishu.storage.path import KishuPath
KishuPath.ROOT = folder
shell = start_ipython()
os.environ[KishuForJupyter.ENV_KISHU_TEST_MODE] = "1"
from kishu.notebook_id import NotebookId
path = pathlib.Path(folder) / "nb.ipynb"
path.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
kishu = KishuForJupyter(NotebookId(key="bench", path=path, kernel_id="0"), shell)
def size():
    return sum(one.stat().st_size for one in pathlib.Path(folder).rglob("*") if one.is_file())
found = []
for cell in cells:
    before, began = size(), time.perf_counter()
    info = type("Info", (), {"raw_cell": cell, "cell_id": None, "store_history": True, "silent": False})()
    kishu.pre_run_cell(info)
    hooked = time.perf_counter() - began
    result = shell.run_cell(cell, store_history=True)
    result.info = result.info or info
    began = time.perf_counter()
    kishu.post_run_cell(result)
    found.append((time.perf_counter() - began + hooked, size() - before))
print("FOUND " + json.dumps(found))
"""


def _bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def ours(folder: Path) -> tuple[list[tuple[float, int, float]], Any]:
    """Of each cell's checkpoint its seconds, bytes, and the seconds that a column's bytes took right after it.

    From the cell's end to the checkpoint's, without the record's own hashing.
    """
    from IPython.core.interactiveshell import InteractiveShell

    os.chdir(folder)
    os.environ["XDG_STATE_HOME"] = str(folder.parent / "state")
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "jupyter_mlops")
    shell.run_cell("%mlops checkpoint on", store_history=True)
    from jupyter_mlops import capture
    from jupyter_mlops.store import Store

    session = capture.session()
    assert session is not None
    points = session.with_checkpoints()
    points.settle()
    plain = points.after
    began = [0.0]

    def after(cell_run: Any) -> None:
        from jupyter_mlops.fingerprints import Budget

        session.namespace.wait(Budget())  # the record's own hashing is not the checkpoint's
        began[0] = time.perf_counter()
        plain(cell_run)

    points.after = after  # type: ignore[method-assign]
    found = []
    with Store.create(folder.parent / "limit") as limit:
        for seed, cell in enumerate(CELLS):
            before = _bytes(folder)
            shell.run_cell(cell, store_history=True)
            points.settle()
            seconds = time.perf_counter() - began[0]
            found.append((seconds, _bytes(folder) - before, hash_and_write(limit, ROWS * 8, seed)))
    return found, session


def hash_and_write(store: Any, size: int, seed: int) -> float:
    """Seconds to hash and write so many new bytes as a store must."""
    import numpy as np

    data = memoryview(np.random.default_rng(100 + seed).random(size // 8)).cast("B")
    began = time.perf_counter()
    store.put(data)
    return time.perf_counter() - began


def read(store: Any, manifest: Any) -> None:
    """Read the very objects a frame is made of, into fresh memory, verified, and do nothing with them."""
    import numpy as np

    regions = json.loads(store.get(manifest))["regions"]
    memory = [np.empty(sum(part[1] for part in region[0]), np.uint8) for region in regions]
    for region, whole in zip(regions, memory, strict=True):
        place, view = 0, memoryview(whole)
        for digest, size, *_ in region[0]:
            store.read_into(digest, view[place : place + size])
            place += size


def main() -> None:
    """Print what each takes, beside the limit and the peer."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--kishu", default="", help="an interpreter that has kishu installed")
    kishu = asked.parse_args().kishu
    sys.path.insert(0, str(Path(__file__).parent))
    from report import interleaved, row

    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        folder = Path(temporary) / "project"
        folder.mkdir()
        (folder / ".mlops").mkdir()
        from jupyter_mlops.store import Store

        (folder / ".mlops").rmdir()
        Store.create(folder / ".mlops").close()
        found, session = ours(folder)
        column = ROWS * 8
        writing = statistics.median(one for *_, one in found[1:6])
        seconds = statistics.median(one for one, *_ in found[1:6])
        row(
            "checkpoint",
            f"one column of {column / 1e6:.0f} MB more",
            seconds,
            writing,
            "s",
            "≤ 1.3×",
            against="hash+write",
        )
        row(
            "checkpoint",
            "bytes stored for it",
            statistics.median(size for _, size, _ in found[1:6]),
            column,
            "B",
            "≤ 1.05×",
        )
        row("checkpoint", "a list appended to", found[-1][0], 0, "s", "—")
        run = next(one for one in session.store.cell_runs() if one.source == CELLS[5])
        whole = column * (COLUMNS + 5)
        points = session.with_checkpoints()
        points.on = False
        manifest = points._target(run.id).names["df"].manifest

        def back() -> None:
            points._listed.clear()
            session.variables["df"] = None
            assert "df" in points.checkout(run.id).brought

        def plainly() -> None:
            session.variables["df"] = None  # as above: with two frames in memory reading would be slower
            read(session.store, manifest)

        times = interleaved(back, plainly, repeats=15)
        row("checkout", f"that frame of {whole / 1e6:.0f} MB", *times, "s", "≤ 1.3×", against="read")
        if kishu:
            with tempfile.TemporaryDirectory() as theirs:
                ran = subprocess.run(
                    [kishu, "-c", _KISHU, theirs, json.dumps(CELLS)], capture_output=True, text=True, check=False
                )
            told = next((line[6:] for line in ran.stdout.splitlines() if line.startswith("FOUND ")), "")
            if not told:
                print(f"kishu did not run: {ran.stderr.strip().splitlines()[-1:]}")
            for place, (one, other) in enumerate(zip(found, json.loads(told or "[]"), strict=False)):
                what = CELLS[place][:40]
                row("beside kishu", f"{what}: seconds", one[0], other[0], "s", "less", against="kishu")
                row("beside kishu", f"{what}: bytes", one[1], other[1], "B", "less", against="kishu")


if __name__ == "__main__":
    main()
