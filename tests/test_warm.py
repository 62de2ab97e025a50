"""Warm kernels: forked from one that has imported, and in nothing else different from one that is started."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_mlops.pipelines import PERFORM
from jupyter_mlops.project import Project
from jupyter_mlops.targets import Event, Outcome, Step, Target, open_target
from jupyter_mlops.targets.warm import imported
from jupyter_mlops.testing import TargetSuite

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux")


class TestWarm(TargetSuite):
    """Steps and kernels that are forked."""

    def open(self, project: Project) -> Target:
        return open_target("local", project, workers=2, kernels="warm")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.open(tmp_path)


Run = Callable[..., tuple[Outcome, dict[str, Any], list[str]]]


@pytest.fixture
def run(project: Project) -> Iterator[Run]:
    """Run a notebook on a local target of some kind: its outcome, what it put into ``told.json``, and notes."""
    with ExitStack() as stack:
        opened: dict[tuple[str, int], Target] = {}

        def go(kind: str, *sources: str, at: Project = project, kernel: str = "") -> Any:
            cells = [
                {"cell_type": "code", "id": f"c{place}", "metadata": {}, "source": source, "outputs": [],
                 "execution_count": None}
                for place, source in enumerate(sources)
            ]  # fmt: skip
            spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
            book = {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
            (at.root / "a.ipynb").write_text(json.dumps(book))
            if (kind, id(at)) not in opened:
                opened[kind, id(at)] = stack.enter_context(open_target("local", at, workers=2, kernels=kind))
            notes: list[str] = []

            def heard(event: Event) -> None:
                if event.kind == "note":
                    notes.append(event.text)

            (at.root / "told.json").unlink(missing_ok=True)
            step = Step(name="a", notebook="a.ipynb", output="out.ipynb", kernel=kernel)
            outcome = opened[kind, id(at)].submit(step, at, PERFORM, heard).result(200)
            told = at.root / "told.json"
            return outcome, json.loads(told.read_text()) if told.is_file() else {}, notes

        yield go


def tell(expression: str) -> str:
    return f"import json\nopen('told.json', 'w').write(json.dumps({expression}, default=str))"


IMPORTS = (
    "import numpy as np\nimport pandas as pd\nfrom sklearn.ensemble import RandomForestRegressor\n"
    "import matplotlib.pyplot as plt"
)
STATE = """
import os, re, signal, sys, threading, warnings, resource, locale, logging, multiprocessing, gc
opened = [os.path.realpath(f"/proc/self/fd/{n}").removeprefix("/proc/self/fd/") for n in os.listdir("/proc/self/fd")]
opened = [re.sub("^/proc/[0-9]+/fd/", "", name) for name in opened]
passing = ("socket", "anon_inode", os.path.join(os.getcwd(), ".mlops"))
told = {
    "modules": sorted(sys.modules),
    "attributes": {name: sorted(vars(sys.modules[name])) for name in ("numpy", "pandas", "sklearn", "json", "os")},
    "specs": sorted(f"{n} {type(m.__spec__.loader).__name__} {m.__spec__.name}" for n, m in list(sys.modules.items())
                    if getattr(m, "__spec__", None) is not None),
    "cwd": os.getcwd(),
    "environ": {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER_MLOPS_RUN") and k != "JPY_PARENT_PID"},
    "path": sys.path, "argv": [os.path.basename(one) for one in sys.argv[:2]], "flags": str(sys.flags),
    "finders": [getattr(one, "__name__", type(one).__name__) for one in sys.meta_path],
    "files": sorted(name.split(":")[0] for name in opened if not name.startswith(passing) and not name.isdigit()),
    "threads": sorted(re.sub("[0-9]+", "", one.name) for one in threading.enumerate()),
    "handlers": {str(n): str(signal.getsignal(n)).split(" at ")[0] for n in (2, 10, 12, 13, 15)},
    "filters": [str(one) for one in warnings.filters],
    "limits": resource.getrlimit(resource.RLIMIT_NOFILE), "umask": os.umask(0o22), "nice": os.nice(0),
    "locale": locale.setlocale(locale.LC_ALL), "recursion": sys.getrecursionlimit(), "gc": gc.get_threshold(),
    "alone": os.getpgrp() == os.getpid() == os.getsid(0),
    "rcParams": dict(plt.rcParams), "backend": plt.get_backend(), "figures": plt.get_fignums(),
    "numpy": str(np.get_printoptions()) + str(np.geterr()), "pandas": pd.options.display.max_rows,
    "switch": sys.getswitchinterval(), "loggers": sorted(logging.root.manager.loggerDict), "hash": hash("a text"),
    "stdin": os.readlink("/proc/self/fd/0").split(":")[0], "daemon": multiprocessing.current_process().name,
}
"""
DIRT = """
import os, sys, threading, random, signal, warnings, math, json
os.environ["LEFT"] = "behind"; os.makedirs("elsewhere", exist_ok=True); os.chdir("elsewhere")
sys.path.insert(0, "/nowhere"); math.pi = 3; json.left = 1; np.left = 1; sys.modules["left"] = math
random.seed(1); np.random.seed(1); signal.signal(signal.SIGUSR1, signal.SIG_IGN); warnings.simplefilter("error")
plt.rcParams["figure.dpi"] = 7; plt.figure(); pd.options.display.max_rows = 3; np.set_printoptions(precision=2)
kept = open("left.txt", "w"); threading.Thread(target=lambda: __import__("time").sleep(60), daemon=True).start()
os.umask(0o77); sys.setrecursionlimit(1234); sys.setswitchinterval(0.1)
"""


@pytest.mark.parametrize("kind", ["warm", "spare"])
def test_nothing_of_a_run_is_found_by_the_next_and_all_is_as_in_a_cold_kernel(run: Run, kind: str) -> None:
    outcome, cold, _ = run("cold", IMPORTS, STATE, tell("told"))
    assert (outcome.status, outcome.kernel) == ("done", "cold"), outcome.why
    outcome, _, notes = run(kind, IMPORTS, DIRT, tell("1"))
    assert (outcome.status, outcome.kernel, notes) == ("done", "warm", []), outcome.why
    outcome, warm, notes = run(kind, IMPORTS, STATE, tell("told"))
    assert (outcome.status, outcome.kernel, notes) == ("done", "warm", []), outcome.why
    assert set(cold) == set(warm)
    # What most kernels load before a cell, and this one did not, is still to be asked for.
    warm["finders"].remove("Shelf")
    for name, value in cold.items():
        assert warm[name] == value, name


def test_a_module_is_not_there_before_it_is_imported_and_then_is_the_very_one(run: Run) -> None:
    before = "import sys\nbefore = sorted(sys.modules)"
    after = (
        "import pandas, importlib, pickle, sklearn.linear_model as linear\nafter = sorted(sys.modules)\n"
        "frame = importlib.import_module('pandas.core.frame').DataFrame\n"
        "same = sys.modules['pandas'] is pandas and frame is pandas.DataFrame\n"
        "loader = type(pandas.__spec__.loader).__name__\n"
        "back = pickle.loads(pickle.dumps(linear.LinearRegression())).__class__ is linear.LinearRegression\n"
        "reloaded = importlib.reload(json) is json"
    )
    told = "[before, after, same, loader, back, reloaded]"
    # (the import of what is to be warm stands in a cell that comes later)
    _, cold, _ = run("cold", "import json", before, after, tell(told))
    outcome, warm, notes = run("warm", "import json", before, after, tell(told))
    assert (outcome.kernel, notes) == ("warm", [])
    assert warm == cold
    assert "pandas" not in warm[0]
    assert warm[2:] == [True, "SourceFileLoader", True, True]


def test_a_warm_kernel_ends_in_order(run: Run, project: Project) -> None:
    last = (
        "import atexit, threading, time, weakref, signal\nkept = open('kept.txt', 'w')\nkept.write('not flushed')\n"
        "class Last:\n    def __del__(self): open('del.txt', 'w').write('deleted')\n"
        "last = Last()\natexit.register(lambda: open('exit.txt', 'w').write('exit'))\n"
        "finalizer = weakref.finalize(last, print)\n"
        "worker = threading.Thread(target=lambda: (time.sleep(1), open('thread.txt', 'w').write('done')))\n"
        "worker.start()"
    )
    for kind in ("cold", "warm"):
        outcome, _, _ = run(kind, IMPORTS, last)
        assert (outcome.status, outcome.kernel) == ("done", kind)
        for name, text in (
            ("kept.txt", "not flushed"), ("del.txt", "deleted"), ("exit.txt", "exit"), ("thread.txt", "done"),
        ):  # fmt: skip
            assert (project.root / name).read_text() == text
            (project.root / name).unlink()


DRAWS = (
    "import random, secrets, uuid, tempfile, inspect, multiprocessing, numpy as np\n"
    "from sklearn.ensemble._hist_gradient_boosting.grower import TreeGrower\n"
    "own = inspect.signature(TreeGrower.__init__).parameters['rng'].default\n"
    "draws = [random.random(), np.random.rand(), np.random.default_rng().random(), own.random(), secrets.token_hex(),\n"
    "         own.spawn(1)[0].random(), uuid.uuid4().hex, next(tempfile._get_candidate_names()),\n"
    "         bytes(multiprocessing.current_process().authkey).hex()]"
)


def test_every_generator_is_drawn_anew_and_one_with_a_seed_is_as_it_was(run: Run) -> None:
    kept = "seeded = np.random.default_rng(3).random()"
    seen = [run("warm", DRAWS, kept, tell("[draws, seeded]")) for _ in range(3)]
    assert [outcome.kernel for outcome, _, _ in seen] == ["warm"] * 3
    for place in range(9):
        assert len({one[0][place] for _, one, _ in seen}) == 3, place
    assert len({one[1] for _, one, _ in seen}) == 1


def test_the_record_of_a_warm_run_is_that_of_a_cold_one(run: Run, project: Project) -> None:
    cells = (
        IMPORTS,
        "rng = np.random.default_rng(0)\nframe = pd.DataFrame(rng.normal(size=(300, 4)), columns=list('abcd'))",
        "model = RandomForestRegressor(n_estimators=5, random_state=1).fit(frame[['a', 'b', 'c']], frame['d'])\n"
        "predicted = model.predict(frame[['a', 'b', 'c']])\nweights = np.linalg.lstsq(frame, predicted, rcond=None)[0]",
        "from sklearn.ensemble import HistGradientBoostingRegressor\n"
        "booster = HistGradientBoostingRegressor(max_iter=4, random_state=0)\n"
        "boosted = booster.fit(frame[['a']], frame['b']).predict(frame[['a']])",
        "frame.plot(); frame.describe()",
    )
    facts = []
    for kind in ("cold", "warm"):
        outcome, _, notes = run(kind, *cells)
        assert (outcome.status, outcome.kernel, notes) == ("done", kind, []), outcome.why
        assert outcome.run is not None
        facts.append([
            (one.status, {made.name: made.digest for made in one.outputs}, one.ended and one.ended.imported,
             one.started.environment and project.store.line(one.started.environment).record,
             [gap for gap in one.gaps if gap.blocks],
             [shown.digest for shown in one.ended.displays] if one.ended else None)
            for one in project.store.cell_runs(run=outcome.run, newest_first=False)
        ])  # fmt: skip
    for cold, warm in zip(*facts, strict=True):
        for one, other in zip(cold, warm, strict=True):
            assert one == other
    assert facts[0][2][1]["predicted"] is not None


def test_a_module_that_is_not_for_a_template_is_imported_by_the_notebook_and_said_so(
    run: Run, project: Project, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "threaded.py").write_text(
        "import threading, time\nworker = threading.Thread(target=time.sleep, args=(600,), daemon=True)\n"
        "worker.start()\n"
    )
    (site / "warned.py").write_text("import warnings\nwarnings.warn('mind the gap')\n")
    (site / "printed.py").write_text("print('hello')\n")
    (site / "opened.py").write_text("kept = open(__file__)\n")
    (site / "drawing.py").write_text("import random\nown = random.Random()\n")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    at = Project(project.root, environ=environ)
    names = ("threaded", "warned", "printed", "opened", "drawing")
    cells = [
        "try:\n    import missing_module\nexcept ImportError: pass",
        *map("import {}".format, names),
    ]
    outcome, told, notes = run("warm", *cells, tell("[drawing.own.random(), threaded.worker.is_alive()]"), at=at)
    assert (outcome.status, outcome.kernel) == ("done", "warm"), (outcome.why, notes)
    assert told[1]
    (note,) = notes
    for said in (
        "threaded: it starts threads", "warned: it prints or warns", "printed: it prints or warns",
        "opened: it keeps files open", "drawing: it keeps a random generator",
    ):  # fmt: skip
        assert said in note
    assert "missing_module" not in note
    book = json.loads((project.root / "out.ipynb").read_text())
    shown = ["".join(out.get("text", ())) for cell in book["cells"] for out in cell["outputs"]]
    assert any("mind the gap" in text for text in shown)
    assert any(text == "hello\n" for text in shown)


def test_a_kernel_that_can_not_be_warm_is_started_and_said_so(run: Run, project: Project, tmp_path: Path) -> None:
    kernels = tmp_path / "kernels" / "wrapped"
    kernels.mkdir(parents=True)
    line = ["env", "WRAPPED=1", sys.executable, "-m", "ipykernel_launcher", "--log-level=50", "-f", "{connection_file}"]
    (kernels / "kernel.json").write_text(json.dumps({"argv": line, "display_name": "W", "language": "python"}))
    at = Project(project.root, environ={**os.environ, "JUPYTER_PATH": str(tmp_path)})
    os.environ["JUPYTER_PATH"] = str(tmp_path)
    try:
        outcome, told, notes = run("warm", tell("__import__('os').environ['WRAPPED']"), at=at, kernel="wrapped")
    finally:
        del os.environ["JUPYTER_PATH"]
    assert (outcome.status, outcome.kernel, told) == ("done", "cold", "1"), outcome.why
    assert "not started as a plain ipykernel" in notes[0]


def test_a_file_beside_the_notebook_that_stands_in_for_a_module_makes_the_kernel_cold(
    run: Run, project: Project
) -> None:
    (project.root / "beside.py").write_text("mine = True\n")
    outcome, told, notes = run("warm", "import beside", tell("beside.mine"))
    assert (outcome.status, outcome.kernel, told, notes) == ("done", "warm", True, [])
    (project.root / "joblib.py").write_text("raise ImportError('not the real one')\n")
    outcome, _, notes = run("warm", "import sklearn.base", tell("1"))
    assert (outcome.status, outcome.kernel) == ("failed", "cold")
    assert "not the real one" in outcome.error
    assert "stands in for a module: joblib" in notes[0]


def test_a_variable_that_is_another_makes_the_kernel_cold(run: Run, project: Project) -> None:
    at = Project(project.root, environ={**os.environ, "GUIDE": "1"})
    outcome, told, _ = run("warm", "import json", tell("__import__('os').environ['GUIDE']"), at=at)
    assert (outcome.kernel, told) == ("warm", "1")
    at.environ["GUIDE"] = "2"  # type: ignore[index] - it is a dict
    outcome, told, notes = run("warm", "import json", tell("__import__('os').environ['GUIDE']"), at=at)
    assert (outcome.status, outcome.kernel, told) == ("done", "cold", "2")
    assert "its environment is another: GUIDE" in notes[0]


def test_what_fits_a_template_is_what_is_imported_before_anything_may_guide_an_import(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import gzip\nimport other\n")
    (tmp_path / "other.py").write_text("import helper, bz2\n")
    cells = [
        "%matplotlib inline\nimport os.path as place\nfrom json import loads as read, dumps",
        "from helper import *\ndef later():\n    import lzma\n",
        "try:\n    import tomllib\nexcept ImportError:\n    import zlib\nif True: import csv",
        "here = os.path.join('a', 'b')",
        "import shelve\nos.environ['THREADS'] = '1'\nimport dbm",
        "import wave",
    ]
    assert imported(cells, tmp_path) == ["os.path", "json", "gzip", "bz2", "tomllib", "zlib", "csv", "shelve"]
    for guiding in ("sys.path.insert(0, '')", "!pip install x", "%env A=1", "from os import environ", "def f(: pass"):
        assert imported(["import json", guiding, "import csv"], tmp_path) == ["json"]


def test_a_closed_target_leaves_no_template_and_no_socket(project: Project, run: Run) -> None:
    me = psutil.Process()
    before = {one.pid for one in me.children(recursive=True)}
    with open_target("local", project, kernels="warm") as target:
        step = Step(name="a", notebook="none.ipynb", output="b.ipynb")
        assert target.submit(step, project, PERFORM).result(100).status == "refused"
        folder = Path(target._kernels._folder.name)  # type: ignore[attr-defined]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {one.pid for one in me.children(recursive=True)} - before
    assert not folder.exists()
    assert {one.pid for one in me.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE} <= before
