"""What recording costs: per cell in process and through a kernel, on a large namespace, at loading, on disk."""
# ruff: noqa: E501 - one line of code handed to a fresh process

from __future__ import annotations

import compileall
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from report import row

REPOSITORY = Path(__file__).parents[2]


def _environ() -> dict[str, str]:
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environ.get("PYTHONPATH", "")])
    environ.pop("JUPYTER_MLOPS_STRICT", None)
    return environ


_IN_PROCESS = """
import os, statistics, sys, tempfile, time
from pathlib import Path
os.chdir(tempfile.mkdtemp())
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
count, cells = int(sys.argv[1]), int(sys.argv[2])
for i in range(count):
    shell.user_ns[f"v{i}"] = [i] if i % 3 else i
from jupyter_mlops import capture
capture.load(shell)
session = capture.session()
hooks = shell._jupyter_mlops_hooks
shell.run_cell("warm = 0")
time.sleep(1.5)
for i in range(50):
    shell.run_cell(f"x = {i}")
events, plain, ours = shell.events, [], []
pre, post = hooks.pre_run_cell, hooks.post_run_cell
before = len(session.store.cell_runs())
size = sum(p.stat().st_size for p in Path(".mlops/journal").rglob("*"))
for i in range(cells):
    # The unrecorded turn binds the very object of the recorded one, so that it is no change nobody saw.
    code = f"x = {i % 250}"
    began = time.perf_counter()
    shell.run_cell(code)
    ours.append(time.perf_counter() - began)
    events.callbacks["pre_run_cell"].remove(pre); events.callbacks["post_run_cell"].remove(post)
    began = time.perf_counter()
    shell.run_cell(code)
    plain.append(time.perf_counter() - began)
    events.callbacks["pre_run_cell"].append(pre); events.callbacks["post_run_cell"].append(post)
grown = sum(p.stat().st_size for p in Path(".mlops/journal").rglob("*")) - size
assert len(session.store.cell_runs()) == before + cells, "each executed cell has one record"
assert not session.errors, session.errors
extra = [a - b for a, b in zip(ours, plain)]
tenth = max(1, cells // 10)
print(statistics.median(ours), statistics.median(plain), statistics.median(extra), grown / cells,
      statistics.median(extra[:tenth]), statistics.median(extra[-tenth:]))
"""


def in_process(variables: int, cells: int, goal: str) -> list[float]:
    """A trivial cell in a shell without a kernel: turn by turn with the hooks and without."""
    out = subprocess.run(
        [sys.executable, "-c", _IN_PROCESS, str(variables), str(cells)], env=_environ(), check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    ours, plain, extra, disk, first, last = (float(word) for word in out.stdout.split()[-6:])
    row("capture", f"trivial cell in process, {variables} variables", ours * 1e3, plain * 1e3, "ms", "")
    row("capture", f"  of which ours, {variables} variables", extra * 1e3, 0, "ms", goal)
    return [disk, first, last]


class _Kernel:
    def __init__(self, *, record: bool) -> None:
        from jupyter_client.manager import KernelManager

        self.folder = Path(tempfile.mkdtemp())
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[0] = sys.executable
        self.manager.start_kernel(cwd=str(self.folder), env=_environ(), stderr=subprocess.DEVNULL)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.ran = 0
        if record:
            self.run("%load_ext jupyter_mlops")

    def run(self, code: str) -> float:
        began = time.perf_counter()
        request = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") == request and message["msg_type"] == "error":
                raise RuntimeError("\n".join(message["content"]["traceback"]))
            if (
                message["parent_header"].get("msg_id") == request
                and message["content"].get("execution_state") == "idle"
            ):
                break
        self.client.get_shell_msg(timeout=120)
        self.ran += 1
        return time.perf_counter() - began

    def number(self, expression: str) -> float:
        request = self.client.execute("", silent=True, user_expressions={"it": expression})
        while True:
            reply = self.client.get_shell_msg(timeout=120)
            if reply["parent_header"].get("msg_id") == request:
                return float(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])

    def overheads(self, kinds: dict[str, str]) -> dict[str, list[float]]:
        """Seconds spent in both hooks, as each cell run has it on record, by kind of cell."""
        from jupyter_mlops.store import Store

        found: dict[str, list[float]] = {}
        with Store.open(self.folder / ".mlops") as store:
            for run in store.cell_runs():
                for kind, code in kinds.items():
                    if re.fullmatch(
                        re.escape(code).replace(r"\{i\}", "[0-9]+").replace(r"\{f\}", "[0-9]+"), run.source
                    ):
                        found.setdefault(kind, []).append(run.ended.overhead)
        return found

    def check(self) -> None:
        from jupyter_mlops.store import Store

        with Store.open(self.folder / ".mlops") as store:
            assert len(store.cell_runs()) == self.ran, "each executed cell has one record"

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)


def end_to_end(cells: int) -> None:
    """The round trip of a cell through a kernel, turn by turn with a plain one."""
    plain, ours = _Kernel(record=False), _Kernel(record=True)
    time.sleep(1.5)
    times: dict[str, list[tuple[float, float]]] = {"a = 1": [], "print('x')": []}
    for i in range(cells):
        for code, found in times.items():
            pair = [plain, ours] if i % 2 else [ours, plain]
            took = {id(one): one.run(code) for one in pair}
            found.append((took[id(ours)], took[id(plain)]))
    ours.check()
    for code, found in times.items():
        mine, theirs = (statistics.median(side) * 1e3 for side in zip(*found, strict=True))
        row("capture", f"through a kernel: {code}", mine, theirs, "ms", "")
        extra = statistics.median(a - b for a, b in found) * 1e3
        row("capture", "  of which ours", extra, 0, "ms", "<= 0.3 ms")
    plain.stop()
    ours.stop()


_FRAMES = """
import numpy as np, pandas as pd
rng = np.random.default_rng(0)
frames = {}
for i in range(18):
    globals()[f'df{i}'] = pd.DataFrame(rng.random((312_500, 10)), columns=list('abcdefghij'))
"""


# The limit, where our hooks run: in a kernel between two cells, over a frame that no cache holds.
_LIMIT = """
import statistics, time
from blake3 import blake3
limits = []
def limit(frame):
    began = time.perf_counter()
    for column in frame._mgr.blocks[0].values:
        blake3(memoryview(column).cast('B'), max_threads=blake3.AUTO).digest()
    limits.append(time.perf_counter() - began)
"""


def large_namespace() -> None:
    """Eighty cells beside 450 MB of frames, each cell touching 25 MB or nothing."""
    plain, ours = _Kernel(record=False), _Kernel(record=True)
    for one in (plain, ours):
        one.run(_FRAMES)
    time.sleep(3)
    for one in (plain, ours):
        one.run("pass")
    kinds = {
        "scalar": "n = {i}",
        "read a frame": "m = df{f}['a'].mean()",
        "add a column": "df{f}['k{i}'] = df{f}['a'] * 2",
        "change in place": "df{f}.loc[0, 'b'] = {i}",
    }
    plain.run(_LIMIT)
    extra: dict[str, list[float]] = {kind: [] for kind in kinds}
    for i in range(80):
        kind = list(kinds)[i % len(kinds)]
        frame = random.Random(i).randrange(18)
        code = kinds[kind].format(i=i, f=frame)
        pair = [plain, ours] if i // len(kinds) % 2 else [ours, plain]
        took = {id(one): one.run(code) for one in pair}
        extra[kind].append(took[id(ours)] - took[id(plain)])
        plain.run(f"limit(df{(frame + 7) % 18})")
    limit = plain.number("statistics.median(limits)") * 1e3
    hooks = {kind: statistics.median(times) * 1e3 for kind, times in ours.overheads(kinds).items()}
    for kind in kinds:
        goal = "<= 0.5 ms" if kind == "scalar" else "limit x 1.15 + 0.5 ms"
        row("capture", f"450 MB: {kind}, in the hooks", hooks[kind], limit, "ms", goal, against="BLAKE3")
        row(
            "capture",
            "  the whole round trip, beyond plain",
            statistics.median(extra[kind]) * 1e3,
            limit,
            "ms",
            "",
            against="BLAKE3",
        )
    ours.check()
    plain.stop()
    ours.stop()


def loading() -> None:
    """``%load_ext`` after IPython, in fresh processes."""
    code = (
        "import os,tempfile,time;os.chdir(tempfile.mkdtemp());from IPython.core.interactiveshell import InteractiveShell\n"
        "shell=InteractiveShell.instance();b=time.perf_counter();shell.extension_manager.load_extension('jupyter_mlops')\n"
        "l=time.perf_counter();shell.run_cell('a=1');print(l-b,time.perf_counter()-l)"
    )
    found = []
    for _ in range(7):
        out = subprocess.run([sys.executable, "-c", code], env=_environ(), check=True, capture_output=True, text=True)
        found.append([float(word) for word in out.stdout.split()[-2:]])
    load, first = (statistics.median(side) * 1e3 for side in zip(*found, strict=True))
    row("capture", "%load_ext after IPython", load, 0, "ms", "<= 60 ms")
    row("capture", "the first cell (opens the store)", first, 0, "ms", "")


_LOGGING = """
import os, tempfile, time
os.chdir(tempfile.mkdtemp())
from jupyter_mlops import log_metric
log_metric("warm", 1.0)
n = 50_000
began = time.perf_counter()
for i in range(n):
    log_metric("loss", 0.5, step=i)
print(n / (time.perf_counter() - began))
"""


def logging() -> None:
    """Metrics captured per second: each is written before the call returns."""
    rates: list[Any] = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", _LOGGING], env=_environ(), check=True, capture_output=True, text=True
        )
        rates.append(float(out.stdout.split()[-1]))
    row("capture", "log_metric", statistics.median(rates), 0, "1/s", ">= 50,000/s")


def main() -> None:
    """Print every figure beside its goal."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(str(REPOSITORY / "jupyter_mlops"), quiet=2)
    disk, _, _ = in_process(200, 1000, "<= 0.15 ms")
    in_process(1000, 1000, "<= 0.3 ms")
    row("capture", "journal per trivial cell", disk, 0, "B", "<= 2048 B")
    _, first, last = in_process(200, 10_000, "<= 0.15 ms")
    row("capture", "last tenth of 10,000 cells", last * 1e3, first * 1e3, "ms", "flat", against="first")
    end_to_end(100)
    large_namespace()
    loading()
    logging()


if __name__ == "__main__":
    main()
