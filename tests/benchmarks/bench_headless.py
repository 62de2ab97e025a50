"""Headless runs: our engine beside papermill's own, and beside nbclient with one write at the end, in one process.

Each run starts and ends a kernel of its own. Ours is the whole of ``mlops run``: the run on record, the extension
loaded in the kernel where it can be, the output on disk throughout.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from report import interleaved, processor, row

KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}
LARGE = (
    "from IPython.display import HTML, display\n"
    "line = 'x' * 79 + '\\n'\n"
    "for _ in range(10): display(HTML(line * 65_536))"
)  # ten times five megabytes
CASES = {
    "1 cell": ["1"],
    "200 trivial cells": [f"x{n} = {n}" for n in range(200)],
    "50 MB of output, then 30 cells": [LARGE, *[f"x{n} = {n}" for n in range(30)]],
}


def main(*words: str) -> None:
    """Print a line per case and peer; of the cases that a word names, if any is given."""
    import papermill
    from nbclient import NotebookClient

    from jupyter_mlops.pipelines import RunResult, run_notebook
    from jupyter_mlops.project import Project

    # What is installed has its bytecode; a kernel that may not write ours would compile it in every run.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(str(Path(__file__).parents[2] / "jupyter_mlops"), quiet=2)
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        project = Project.open(Path(name))
        for what, sources in CASES.items():
            if words and not any(word in what for word in words):
                continue
            nb = new_notebook(cells=[new_code_cell(source) for source in sources], metadata=KERNEL)
            nbformat.write(nb, "in.ipynb")
            results: list[RunResult] = []

            def ours(results: list[RunResult] = results) -> None:
                results.append(run_notebook(Path("in.ipynb"), output=Path("ours.ipynb"), project=project))

            def stock() -> None:
                papermill.execute_notebook("in.ipynb", "papermill.ipynb", progress_bar=False)

            def once() -> None:
                book = nbformat.read("in.ipynb", as_version=4)
                nbformat.write(NotebookClient(book, kernel_name="python3").execute(), "nbclient.ipynb")

            repeats = 3 if "MB" in what else 5
            mine, papermills, nbclients = interleaved(ours, stock, once, repeats=repeats)
            last = results[-1]
            assert last.status == "done"
            recorded = len(project.store.cell_runs(run=last.run)) if last.run else 0
            row("headless", what, mine, papermills, "s", "< papermill", against="papermill")
            row("headless", what, mine, nbclients, "s", "≈ nbclient", against="nbclient")
            mine, nbclients = interleaved(ours, once, repeats=repeats, clock=processor)
            row("headless", f"{what}, time of the processor", mine, nbclients, "s", "≈ nbclient", against="nbclient")
            share = sorted(one.write_seconds / one.seconds for one in results)[len(results) // 2]
            row("headless", f"{what}: share of the run spent writing", share, 1, "", "≤ 0.1", against="whole")
            print(f"{'':<12} cells on record in the last run: {recorded} of {len(sources)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
