"""A sweep of sixteen runs of a notebook with pandas and scikit-learn, beside papermill in two processes.

Ours is the whole of it: templates started and ended, each run on record, each executed notebook on disk. On a Dask
cluster of two workers, which has been started before, the same sweep is held against that of two processes here.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from report import interleaved, row

DEPTHS, RATES = (1, 2, 3, 4), (0.01, 0.03, 0.1, 0.3)
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELLS = (
    "import numpy as np\nimport pandas as pd\nfrom sklearn.linear_model import SGDClassifier",
    "rng = np.random.default_rng(0)\nframe = pd.DataFrame(rng.normal(size=(2000, 6)), columns=list('abcdef'))\n"
    "frame['y'] = (frame.a + frame.b * depth / 4 > 0).astype(int)",
    "model = SGDClassifier(alpha=rate, random_state=0).fit(frame.iloc[:1500, :6], frame.y[:1500])",
    "score = model.score(frame.iloc[1500:, :6], frame.y[1500:])\nscore",
)


def one(point: tuple[int, float]) -> None:
    """One run, as papermill makes it."""
    import papermill

    depth, rate = point
    papermill.execute_notebook(
        "in.ipynb", f"papermill-{depth}-{rate}.ipynb", {"depth": depth, "rate": rate}, progress_bar=False
    )


def main() -> None:
    """Print a line per kind of kernel: ours beside papermill's in two processes, and on Dask beside ours here."""
    sections = sys.argv[1:] or ["papermill", "dask"]
    from jupyter_mlops.pipelines import sweep
    from jupyter_mlops.project import Project
    from jupyter_mlops.targets import open_target

    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        # Compiled, as what is installed is; both sides run once before.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(name) / "compiled")
        parameters = new_code_cell("depth: int = 1\nrate: float = 0.1", metadata={"tags": ["parameters"]})
        nb = new_notebook(cells=[parameters, *map(new_code_cell, CELLS)], metadata=KERNEL)
        nbformat.write(nb, "in.ipynb")
        project = Project.open(Path(name))
        words = {"depth": ",".join(map(str, DEPTHS)), "rate": ",".join(map(str, RATES))}

        def ours(kernels: str, words: dict[str, str] = words) -> float:
            began = time.perf_counter()
            with open_target("local", project, workers=2, kernels=kernels) as target:
                found = sweep(Path("in.ipynb"), words, project=project, target=target, fresh=True)
            assert found.ok
            assert all(one.outcome.kernel == kernels for one in found.points)
            return time.perf_counter() - began

        def papermills() -> float:
            began = time.perf_counter()
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                pool.map(one, [(depth, rate) for depth in DEPTHS for rate in RATES], chunksize=1)
            return time.perf_counter() - began

        def dask(address: str, kernels: str, words: dict[str, str] = words) -> float:
            began = time.perf_counter()
            with open_target("dask", project, address=address, kernels=kernels) as target:
                assert target.slots == 2
                found = sweep(Path("in.ipynb"), words, project=project, target=target, fresh=True)
            assert found.ok
            assert all(one.outcome.kernel == kernels for one in found.points)
            return time.perf_counter() - began

        what = "16 runs, pandas and scikit-learn, {} kernels"
        ours("warm", {"depth": "1"})
        if "papermill" in sections:
            one((1, 0.1))
            warm, theirs = ours("warm"), papermills()
            row("sweeps", what.format("warm"), warm, theirs, "s", "≤ 0.333", against="papermill")
            row("sweeps", what.format("cold"), ours("cold"), theirs, "s", "", against="papermill")
        if "dask" in sections:
            from distributed import LocalCluster

            two = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "local_directory": name}
            with LocalCluster(**two) as cluster:
                for kernels in ("warm", "cold"):
                    there = functools.partial(dask, cluster.scheduler_address, kernels)
                    there({"depth": "1,2"})
                    away, here = interleaved(there, functools.partial(ours, kernels), repeats=2)
                    row("sweeps", what.format(kernels) + ", on Dask", away, here, "s", "≤ 1.2", against="local")


if __name__ == "__main__":
    main()
