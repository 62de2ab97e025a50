"""Cells recalled: a run resumed after a failure in the last of 30 cells beside the full run, and what keeping costs."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from report import row

from jupyter_mlops.pipelines import RunResult, resume_run, run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.store import Store

CELLS = 30
SECONDS = 0.4
"""How long a cell computes, about."""


def _book(path: Path) -> None:
    """A notebook whose cells compute, each from what the one before it made; the last fails until a file is there."""
    sources = ["import os\nimport numpy as np\nvalues = np.linspace(0, 1, 200_000)"]
    for number in range(1, CELLS - 1):
        before = "values" if number == 1 else f"made_{number - 1}"
        sources.append(
            f"made_{number} = {before}.copy()\n"
            f"for _ in range({int(SECONDS * 400)}):\n    made_{number} = np.sin(made_{number}) + {before}\n"
            f"print(float(made_{number}.mean()))"
        )
    sources.append(f"assert os.path.exists('go.txt')\nprint(float(made_{CELLS - 2}.sum()))")
    _write(path, sources)


ANALYSIS = (
    "import numpy as np\nimport pandas as pd\nfrom sklearn.ensemble import RandomForestClassifier\n"
    "from sklearn.linear_model import LogisticRegression\nfrom sklearn.pipeline import make_pipeline\n"
    "from sklearn.preprocessing import StandardScaler",
    "rng = np.random.default_rng(0)\n"
    "frame = pd.DataFrame(rng.normal(size=(300_000, 12)), columns=list('abcdefghijkl'))\n"
    "frame['key'] = rng.integers(0, 500, len(frame))\nframe['y'] = (frame.a + frame.b ** 2 > 1).astype(int)\n"
    "frame['word'] = frame['key'].map('word {}'.format)",
    "means = frame.groupby('word')[list('abcdef')].agg(['mean', 'std'])\nmeans.head()",
    "table = frame.merge(frame.groupby('key')['c'].mean().rename('c_mean'), on='key')\n"
    "table['ratio'] = table.c / table.c_mean",
    "X, y = table[list('abcdefgh')], table['y']\ntrain = np.arange(len(X)) % 4 > 0",
    "line = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[train], y[train])\n"
    "line.score(X[~train], y[~train])",
    "forest = RandomForestClassifier(10, max_depth=8, random_state=0).fit(X[train], y[train])",
    "scores = pd.Series(forest.predict_proba(X[~train])[:, 1], index=X.index[~train])\nscores.describe()",
)
"""A notebook as people write them: its cells make and change tables, and fit models."""


def _write(path: Path, sources: Sequence[str]) -> None:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{place}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": text,
        }
        for place, text in enumerate(sources)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


def main() -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Store.create(folder / ".mlops").close()
        path, project = folder / "book.ipynb", Project(folder)
        _book(path)
        (folder / "go.txt").touch()
        plain = _timed(lambda: run_notebook(path, project=project))[0]
        empty = folder / "empty.ipynb"
        book = json.loads(path.read_text())
        empty.write_text(json.dumps({**book, "cells": book["cells"][:1]}))
        least = _timed(lambda: run_notebook(empty, project=project))[0]
        (folder / "go.txt").unlink()
        keeping, failed = _timed(lambda: run_notebook(path, project=project, cache="cells"))
        assert failed.status == "failed"
        (folder / "go.txt").touch()
        assert failed.run is not None
        resumed, result = _timed(lambda: resume_run(project, failed.run))
        assert result.status == "done"
        assert len(result.recalled) == CELLS - 1, result.again
        row("recall", f"a run of {CELLS} cells, kept", keeping, plain, "s", "≤ 1.2×", against="not kept")
        row("recall", "resumed at the last of them", resumed, plain, "s", "≤ 0.1×", against="all run")
        row(
            "recall",
            "the same, less a kernel with NumPy",
            resumed - least,
            plain - least,
            "s",
            "≤ 0.1×",
            against="all run",
        )
        analysis(folder, project)


def analysis(folder: Path, project: Project) -> None:
    """What keeping costs the first run of a notebook with tables and models, and what the second one then takes."""
    path = folder / "analysis.ipynb"
    _write(path, ANALYSIS)
    _timed(lambda: run_notebook(path, project=project))  # what the disk has to read is read
    plain = _timed(lambda: run_notebook(path, project=project))[0]
    keeping, first = _timed(lambda: run_notebook(path, project=project, cache="cells"))
    again, second = _timed(lambda: run_notebook(path, project=project, cache="cells"))
    assert (first.status, second.status) == ("done", "done")
    row("recall", "a run with tables and models, kept", keeping, plain, "s", "", against="not kept")
    row("recall", f"the same, {len(second.recalled)} of {len(ANALYSIS)} cells recalled", again, plain, "s", "",
        against="all run")  # fmt: skip


def _timed(run: Callable[[], RunResult]) -> tuple[float, RunResult]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
