"""Whatever kills a headless run, no kernel outlives it, its notebook is whole, and it is on record as interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_mlops.project import Project

RUN = """
import sys
from pathlib import Path
from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.project import Project
run_notebook(Path("a.ipynb"), output=Path("o.ipynb"), project=Project.open(Path(".")))
"""
BEGIN = "import os, time\nprint('begun ' + 'here')\nopen('pid', 'w').write(str(os.getpid()))\n"
SLEEPS = BEGIN + "time.sleep(600)"
# One call into C that never lets another thread run: the kernel's own watch over its parent can not notice.
HOLDS = BEGIN + "time.sleep(1)\nimport re\nre.match('(a|a)*b', 'a' * 60)"
DEAF = BEGIN + "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)"


def wait(condition: Callable[[], bool], what: str, within: float = 60) -> None:
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, f"waited {within} s for {what}"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Started:
    """A run in a process (and process group) of its own, at its first cell."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cells = [new_code_cell(source), new_code_cell("open('ran', 'w')")]
        nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "a.ipynb")
        self.project = Project.open(folder)
        self.project.store.close()
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=folder, env=environment, start_new_session=True, stderr=subprocess.PIPE
        )
        self.wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text().isdigit(), "the cell")
        self.kernel = int((folder / "pid").read_text())

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        wait(lambda: condition() or self.process.poll() is not None, what)
        assert self.process.poll() is None, (self.process.stderr and self.process.stderr.read()) or b""

    def printed(self) -> None:
        self.wait_for(lambda: "begun here" in (self.folder / "o.ipynb").read_text(), "the output on disk")

    def status(self) -> str:
        [run] = Project(self.folder).store.runs()
        return run.status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Started]]:
    runs: list[Started] = []

    def make(source: str) -> Started:
        runs.append(Started(tmp_path, source))
        return runs[-1]

    yield make
    for run in runs:
        for pid in (run.process.pid, run.kernel):
            if not ended(pid):
                os.kill(pid, signal.SIGKILL)
        run.process.communicate()


def check_notebook(folder: Path) -> dict[str, object]:
    """The partial notebook is whole JSON, and nothing half-written lies beside it for long."""
    book = json.loads((folder / "o.ipynb").read_text())
    nbformat.validate(book)
    assert "begun here" in json.dumps([cell.get("outputs") for cell in book["cells"]])
    assert not (folder / "ran").exists()
    return dict(book)


@pytest.mark.parametrize("source", [SLEEPS, HOLDS, DEAF], ids=["sleeping", "deep in C", "deaf"])
@pytest.mark.parametrize("whole_group", [False, True], ids=["alone", "with its group"])
def test_a_killed_parent_leaves_no_kernel_a_whole_notebook_and_an_interrupted_run(
    start: Callable[[str], Started], tmp_path: Path, source: str, whole_group: bool
) -> None:
    run = start(source)
    run.printed()
    assert run.status() == "running"
    (os.killpg if whole_group else os.kill)(run.process.pid, signal.SIGKILL)
    run.process.wait()
    wait(lambda: ended(run.kernel), "the kernel to end", within=10)
    check_notebook(tmp_path)
    assert run.status() == "interrupted"
    assert not [problem for problem in Project(tmp_path).store.fsck() if problem.severity == "damage"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", [SLEEPS, DEAF], ids=["sleeping", "deaf"])
def test_a_run_told_to_stop_ends_its_kernel_and_says_interrupted(
    start: Callable[[str], Started], tmp_path: Path, source: str, signum: signal.Signals
) -> None:
    run = start(source)
    run.printed()
    os.kill(run.process.pid, signum)
    _, stderr = run.process.communicate(timeout=60)
    assert run.process.returncode in ({-signal.SIGTERM} if signum == signal.SIGTERM else {-signal.SIGINT, 130}), stderr
    assert ended(run.kernel)
    book = check_notebook(tmp_path)
    assert "KeyboardInterrupt" in json.dumps(book)
    assert run.status() == "interrupted"


def test_a_second_interrupt_does_not_wait(start: Callable[[str], Started], tmp_path: Path) -> None:
    run = start(DEAF)
    run.printed()
    os.kill(run.process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(run.process.pid, signal.SIGINT)
    run.process.communicate(timeout=60)
    wait(lambda: ended(run.kernel), "the kernel to end", within=15)
    check_notebook(tmp_path)
    assert run.status() in ("interrupted", "failed")
