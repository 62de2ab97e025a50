"""A pipeline of which nothing has changed: the whole command as a process, and single decisions, beside their floors.

The peer is DVC with as many stages that copy a file, where a program `dvc` is on the path (or named as the first word);
the floor is an interpreter that starts and imports click.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from report import interleaved, row

STEPS = 50
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
COPY = "from pathlib import Path\nPath('to{n}.txt').write_text(Path('from{n}.txt').read_text())"


def process(*words: str) -> Callable[[], object]:
    """A process that runs to its end, in silence."""
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu(words: Sequence[str], repeats: int = 15) -> float:
    """The processor's time that an interpreter takes with these words, at its least: a busy machine adds to it."""
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process(sys.executable, *words)()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def ours() -> None:
    """Lay out the pipeline, and run it until nothing is left to do."""
    lines = ["steps:"]
    for n in range(STEPS):
        book = new_notebook(cells=[new_code_cell(COPY.format(n=n))], metadata=KERNEL)
        nbformat.write(book, f"s{n}.ipynb")
        Path(f"from{n}.txt").write_text(str(n))
        lines.append(f"  s{n}: {{notebook: s{n}.ipynb, reads: from{n}.txt, writes: to{n}.txt}}")
    Path("pipeline.yaml").write_text("\n".join(lines) + "\n")
    for _ in range(3):
        subprocess.run([sys.executable, "-m", "jupyter_mlops", "pipeline", "run"], check=True)
        time.sleep(0.1)  # files that changed within the clock's tick are not remembered yet


def theirs(dvc: str) -> None:
    """Lay out the same for DVC."""
    stages = "".join(
        f"  s{n}:\n    cmd: cp from{n}.txt copy{n}.txt\n    deps: [from{n}.txt]\n    outs: [copy{n}.txt]\n"
        for n in range(STEPS)
    )
    Path("dvc.yaml").write_text(f"stages:\n{stages}")
    for words in ((dvc, "init", "--no-scm", "-q"), (dvc, "repro", "-q")):
        subprocess.run(words, check=True)


def main(dvc: str = "") -> None:
    """Print a line per measurement."""
    # What is installed has its bytecode; a process that may not write ours would compile it at every start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    root = Path(__file__).parents[2]
    compileall.compile_dir(str(root / "jupyter_mlops"), quiet=2)
    os.environ["PYTHONPATH"] = str(root)
    dvc = dvc or shutil.which("dvc") or ""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        subprocess.run([sys.executable, "-m", "jupyter_mlops", "init"], check=True, stdout=subprocess.DEVNULL)
        ours()
        mine, floor = interleaved(
            process(sys.executable, "-m", "jupyter_mlops", "pipeline", "run"),
            process(sys.executable, "-c", "import click"),
            repeats=15,
        )
        row(
            "pipeline",
            f"no-op of {STEPS} steps, the command",
            1e3 * mine,
            1e3 * floor,
            "ms",
            "≤ 80 ms",
            against="click",
        )
        mine, floor = (cpu(words) for words in (("-m", "jupyter_mlops", "pipeline", "run"), ("-c", "import click")))
        row("pipeline", "the same, time of the processor", 1e3 * mine, 1e3 * floor, "ms", "≤ 80 ms", against="click")
        decisions()
        if dvc:
            theirs(dvc)
            mine, peer = interleaved(
                process(sys.executable, "-m", "jupyter_mlops", "pipeline", "run"),
                process(dvc, "repro", "-q"),
                repeats=7,
            )
            row(
                "pipeline", f"no-op of {STEPS} steps, the command", 1e3 * mine, 1e3 * peer, "ms", "< DVC", against="DVC"
            )


def decisions() -> None:
    """Time what a cache answers, anew each time: for one notebook, and for all of them."""
    from jupyter_mlops.pipelines.cache import Cache
    from jupyter_mlops.pipelines.runs import asked_of
    from jupyter_mlops.project import Project

    project = Project.open(Path())
    asked = [asked_of(project, Path(f"s{n}.ipynb"), Path(f"s{n}.out.ipynb"), {}, "python3") for n in range(STEPS)]

    def one() -> None:
        assert Cache(project).answer(asked[0]).run is not None

    def all_() -> None:
        assert all(answer.run is not None for answer in Cache(project).answers(asked))

    def digest() -> None:
        Path("s0.ipynb").read_bytes()

    single, many, read = interleaved(one, all_, digest, repeats=15)
    row("pipeline", "one decision, from the record", 1e3 * single, 1e3 * read, "ms", "a few ms", against="read")
    row("pipeline", f"{STEPS} decisions, from the record", 1e3 * many, 1e3 * single, "ms", "≤ 50 ones", against="one")


if __name__ == "__main__":
    main(*sys.argv[1:])
