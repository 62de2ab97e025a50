"""Cells recalled instead of run: what a full run gives, or the cell runs and says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_namespace import FAMILIES, START, statements
from test_sharing import ALL, HEAD

from jupyter_mlops.pipelines import NotResumed, RunResult, resume_run, run_notebook
from jupyter_mlops.pipelines.recalling import Recalling
from jupyter_mlops.project import Project
from jupyter_mlops.records import CellRun
from jupyter_mlops.store import Store
from jupyter_mlops.values import layout

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_seal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


class Book:
    """A notebook in a project of its own, run with its cells kept."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        Store.create(folder / ".mlops").close()
        self.folder = folder
        self.path = folder / "book.ipynb"

    def write(self, *sources: str, parameters: str | None = None) -> None:
        cells = [({"tags": ["parameters"]}, parameters)] if parameters is not None else []
        cells += [({}, source) for source in sources]
        book = {
            "cells": [
                {"cell_type": "code", "id": f"c{place}", "metadata": metadata, "outputs": [], "execution_count": None,
                 "source": source}
                for place, (metadata, source) in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}},
            "nbformat": 4, "nbformat_minor": 5,
        }  # fmt: skip
        self.path.write_text(json.dumps(book))

    def run(self, *sources: str, cache: str = "cells", **options: Any) -> RunResult:
        if sources:
            self.write(*sources)
        return run_notebook(self.path, project=Project(self.folder), cache=cache, **options)

    def resume(self, run: RunResult, **options: Any) -> RunResult:
        assert run.run is not None
        return resume_run(Project(self.folder), run.run, **options)

    def cells(self, run: RunResult) -> list[CellRun]:
        with Store.open(self.folder / ".mlops") as store:
            return store.cell_runs(run=run.run, newest_first=False)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "book")


def shown(run: RunResult) -> list[Any]:
    """What the output notebook shows, cell by cell."""
    cells = json.loads(run.output.read_text())["cells"]
    return [[cell["execution_count"], cell["outputs"]] for cell in cells if cell["cell_type"] == "code"]


def reasons(run: RunResult) -> dict[int, str]:
    return dict(run.again)


# -- what comes back -------------------------------------------------------------------------------------------------

STORY = (
    "import random\nimport numpy as np, pandas as pd",
    "random.seed(3)\nnp.random.seed(1)",
    "a = np.asfortranarray(np.random.rand(4, 3))\nb = a\nc = a.T\nprint(a.sum())",
    "frame = pd.DataFrame(np.arange(6).reshape(3, 2), columns=['x', 'y'])\npart = frame['x']\nframe.head(2)",
    "class P:\n    def __init__(self): self.items = []\ndef f(x, into=[]):\n    into.append(x)\n    return into",
    "p = P()\np.items.append(f(1))\nq = [p, p.items]",
    "frame.to_csv('out.csv')\nimport os\nos.makedirs('deep/er', exist_ok=True)\n"
    "print('wrote', file=open('deep/er/x.txt', 'w'))",
    "back = pd.read_csv('out.csv')\nback",
    "draw = [random.random(), float(np.random.rand())]\nprint(draw)",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()",
    "del back\nn = 10 ** 400\nm = n\ntext = 'x' * 50\nsame = text",
)
TELL = (
    "c[0, 0] = 7\nf(2)\nassert b is a and a[0, 0] == 7 and q[0] is p and q[1] is p.items and m is n and same is text\n"
    "assert p.items[0] is f.__defaults__[0] and p.items[0] == [1, 2]\n"
    "print(a.strides, isinstance(p, P), random.random(), np.random.rand())\nframe.loc[0, 'x'] = 50\nprint(part[0])"
)


def test_what_cells_left_printed_drew_and_wrote_is_put_back_with_aliases_views_and_generators(book: Book) -> None:
    full = book.run(*STORY, TELL)
    assert full.status == "done", full.error
    told = shown(full)
    for place in ("out.csv", "deep"):
        target = book.folder / place
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    again = book.run(*STORY, TELL + "\n# another cell, that runs")
    assert again.status == "done", again.error
    assert again.recalled == list(range(1, len(STORY) + 1)), again.again
    assert shown(again) == told
    assert (book.folder / "out.csv").is_file()
    assert (book.folder / "deep/er/x.txt").read_text() == "wrote\n"


def test_a_recalled_cell_is_on_record_as_such_and_its_versions_are_those_of_this_run(book: Book) -> None:
    cells = (
        "from jupyter_mlops import log_metric",
        "xs = [1, 2]\nlog_metric('n', 2)",
        "ys = [x + 1 for x in xs]\nopen('ys.txt', 'w').write(str(ys));",
        "print(open('ys.txt').read())",
    )
    first, second = book.run(*cells), book.run(*cells)
    assert second.recalled == [1, 2, 3, 4], second.again
    old, new = book.cells(first), book.cells(second)
    assert [one.recalled for one in new] == [one.id for one in old]
    assert [one.recalled for one in old] == [None] * 4
    assert [one.source for one in new] == list(cells)
    assert [one.started.count for one in new] == [1, 2, 3, 4]
    assert new[1].metrics == {"n": 2}
    assert [one.made for one in new[2].inputs if one.name == "xs"] == [new[1].id]
    assert new[1].id in new[2].after
    assert [one.made for one in new[3].files_read] == [new[2].id]
    for before, after in zip(old, new, strict=True):
        assert {one.name: one.digest for one in before.outputs} == {one.name: one.digest for one in after.outputs}
        assert [one.digest for one in before.ended.displays] == [one.digest for one in after.ended.displays]
    third = book.run(*cells)  # also what was recalled may be recalled
    assert [one.recalled for one in book.cells(third)] == [one.id for one in old]


def test_a_recalled_result_has_the_number_that_its_cell_has_in_this_run(book: Book) -> None:
    book.run("x = [1]\nx", "y = 2")
    again = book.run("z = 0", "x = [1]\nx", "y = 2", "x = [1]\nx")
    assert 2 in again.recalled
    assert 4 in again.recalled
    counts = [[count, *(one["execution_count"] for one in outputs)] for count, outputs in shown(again)]
    assert counts == [[1], [2, 2], [3], [4, 4]]


def test_only_what_an_edit_reaches_runs_again(book: Book) -> None:
    cells = ["a = 1", "b = [a]", "c = [2]", "d = (len(b), c)"]
    book.run(*cells)
    run = book.run("a = 5", *cells[1:])
    assert set(reasons(run)) == {1, 2, 4}  # b is another, and d reads it
    assert run.recalled == [3]
    assert book.run(*cells).recalled == [1, 2, 3, 4]


def test_a_changed_parameter_runs_what_reads_it(book: Book) -> None:
    book.write("b = a * 2\nprint(b)", "c = 3\nprint(c)", parameters="a = 1")
    assert book.run(parameters={"a": 2}).status == "done"
    run = book.run(parameters={"a": 3})
    assert ["".join(output["text"]) for _, outputs in shown(run) for output in outputs] == ["6\n", "3\n"]
    assert book.run(parameters={"a": 2}).recalled == [1, 2, 3, 4]
    assert 4 in run.recalled


# -- the same as a full run: generated notebooks, in processes that are forked ---------------------------------------


class Caller:
    """The process that runs notebooks for these tests."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "tests" / "recaller.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "XDG_STATE_HOME": str(folder)},
        )  # fmt: skip
        self.number = 0
        self.root = folder

    def folder(self) -> Path:
        self.number += 1
        folder = self.root / f"book{self.number}"
        folder.mkdir()
        Store.create(folder / ".mlops").close()
        return folder

    def play(self, folder: Path, cells: list[str], *, dies: bool = False, **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"folder": str(folder), "cells": cells, **more}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        assert (said["status"] == 0) != dies, said
        return said["answer"] or {}


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    one = Caller(tmp_path_factory.mktemp("recaller"))
    yield one
    one.process.communicate()


SAME = ("variables", "aliases", "layout", "printed", "failed", "files", "count", "settings")


def test_nothing_is_recalled_that_another_run_did_not_do(caller: Caller) -> None:
    folder = caller.folder()
    cells = ["a = [1]", "b = a", "b.append(2)", "print(a)"]
    full = caller.play(folder, cells, cache=False)
    first = caller.play(folder, cells)
    assert_same(first, full, cells)
    assert first["recalled"] == []
    second = caller.play(folder, cells)
    assert_same(second, full, cells)
    assert second["recalled"] == [0, 1, 2, 3], second["why"]


@st.composite
def notebooks(draw: Any) -> list[str]:
    """The cells of a notebook: assignments, aliases, views, frames, functions, classes, generators, and what draws."""
    family = draw(st.sampled_from(["plain", *FAMILIES]))
    lines = st.one_of(
        statements(family), statements(family), statements(family),
        st.sampled_from([
            "a = random.random()", "b = [np.random.rand()]", "random.seed(4)", "np.random.seed(5)",
            "print(random.random())", "a = np.random.default_rng(3)", "b = a.normal()", "print(a)",
            "open('w.txt', 'a').write('x')", "print(open('w.txt').read())", "np.set_printoptions(precision=3)",
            "c = open('w.txt').read() if os.path.exists('w.txt') else ''", "d = os.environ.get('WORD', 'none')",
            "print(np.array([1 / 3]))", "a = 10 ** 30\nb = a", "b = c = 'long text ' * 9",
            "import word\nd = word.it()", "a = {'x', 'y', 'z', 'w'}\nb = list(a)",
            "a = np.asfortranarray(np.eye(3))\nb = a",
        ]),
    )  # fmt: skip
    cells = draw(st.lists(st.lists(lines, min_size=1, max_size=2).map("\n".join), min_size=2, max_size=6))
    first = [] if family == "plain" else [FAMILIES[family][0].format()]
    return ["import os, random", START, *first, *cells]


def check(caller: Caller, cells: list[str], other: list[str], kill: int, change: str) -> int:
    """Whatever is recalled in whatever order of runs, edits and deaths, what comes of it is what a full run gives."""

    def fresh() -> Path:
        folder = caller.folder()
        (folder / "word.py").write_text("count = 0\ndef it():\n    return 'first'\n")
        return folder

    def wipe(folder: Path) -> None:
        (folder / "w.txt").unlink(missing_ok=True)

    known: dict[str, dict[str, Any]] = {}

    def full(cells: list[str], environ: dict[str, str]) -> dict[str, Any]:
        key = repr((cells, environ))
        if key not in known:
            folder = fresh()
            if "MODULE" in environ:
                (folder / "word.py").write_text(environ["MODULE"])
            known[key] = caller.play(folder, cells, cache=False, environ=environ)
            shutil.rmtree(folder)
        return known[key]

    folder, recalled = fresh(), 0
    caller.play(folder, cells, kill=kill, dies=True)
    wipe(folder)
    steps: list[tuple[list[str], dict[str, str]]] = [(cells, {}), (other, {}), (cells, {})]
    if change == "word":
        steps.append((cells, {"WORD": "said"}))
    if change == "module":
        steps.append((cells, {"MODULE": "count = 0\ndef it():\n    return 'other'\n"}))
    for sources, environ in steps:
        if "MODULE" in environ:
            (folder / "word.py").write_text(environ["MODULE"])
        got = caller.play(folder, sources, environ=environ)
        wanted = full(sources, environ)
        assert_same(got, wanted, sources)
        recalled += len(got["recalled"])
        wipe(folder)
    shutil.rmtree(folder)
    return recalled


def assert_same(got: dict[str, Any], wanted: dict[str, Any], cells: list[str]) -> None:
    text = "\n# ----\n".join(cells)
    for what in SAME:
        assert got[what] == wanted[what], f"{what}: recalled {got['recalled']}, {got['why']}\n{text}"


def check_drawn(caller: Caller, cells: list[str], data: Any) -> None:
    place = data.draw(st.integers(2, len(cells) - 1))
    other = [*cells]
    other[place] = data.draw(notebooks())[-1]
    kill, change = data.draw(st.integers(1, len(cells))), data.draw(st.sampled_from(["", "word", "module"]))
    check(caller, cells, other, kill, change)


@pytest.mark.timeout(1200)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(notebooks(), st.data())
def test_a_cached_and_a_resumed_run_give_what_a_full_run_gives(caller: Caller, cells: list[str], data: Any) -> None:
    check_drawn(caller, cells, data)


@pytest.mark.nightly
@pytest.mark.timeout(14400)
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(notebooks(), st.data())
def test_cached_and_resumed_runs_give_what_full_runs_give_a_thousand_times(
    caller: Caller, cells: list[str], data: Any
) -> None:
    check_drawn(caller, cells, data)


# -- what must run again -----------------------------------------------------------------------------------------------

AGAIN = {
    "network": ("import urllib.request as u\ntry: u.urlopen('http://127.0.0.1:9/')\nexcept OSError: pass", "network"),
    "source": ("import sqlite3\nsqlite3.connect('a.db').execute('select 1').fetchall()", "it asked sqlite"),
    "time": ("import time\nx = time.time()", "the time (time.time)"),
    "time in a function": ("import time\ndef now(): return time.time()\nx = now()", "the time"),
    "entropy": ("import uuid\nx = uuid.uuid4()", "randomness"),
    "unseeded": ("import random\nx = random.random()", "which no cell seeded"),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])", "a subprocess ran"),
    "a thread": (
        "import threading\nt = threading.Thread(target=lambda: None)\nt.start(); t.join()", "t has no digest"
    ),
    "a generator": ("x = (i for i in range(3))", "x has no digest"),
    "an open file": ("x = open('w.txt', 'w')", "x has no digest"),
    "an option": ("import pandas as pd\npd.set_option('display.max_rows', 7)", "may change what the whole process"),
    "an item of a module": ("import matplotlib as m\nm.rcParams['lines.linewidth'] = 9", "it sets matplotlib.rcParams"),
    "an attribute of a module": ("import json\njson.mine = 1", "it sets json.mine"),
    "a class of a library": ("from collections import Counter\nCounter.mine = 1", "it sets collections.Counter.mine"),
    "a function's own setter": (
        "import numpy as np\ndef quiet(): np.seterr(all='ignore')\nquiet()", "numpy.seterr may change"
    ),
    "a local module's variable": ("import word\nword.bump()", "it changes variables in the module word"),
    "an object of a module": ("import word\nx = word.table", "an object of the module word"),
    "exec": ("exec('x = 1')", "cannot be told"),
    "globals": ("globals()['x'] = 1", "cannot be told"),
    "a magic": ("%time x = 1", "IPython itself"),
    "the future": ("from __future__ import annotations", "from __future__"),
    "deleting a file": ("import os\nos.remove('there.txt')", "deleted by this cell"),
    "a link": ("import os\nos.symlink('there.txt', 'link')", "it makes a link"),
    "a mode": ("import os\nos.chmod('there.txt', 0o600)", "the mode of a file"),
    "a working directory": ("import os\nos.chdir('sub')", "os.chdir may change"),
    "a variable of the process": ("import os\nos.environ['MINE'] = '1'", "it sets"),
    "a secret": ("api_key = 'sk-ant-REDACTED'", "secret"),
}  # fmt: skip


@pytest.mark.parametrize("name", AGAIN)
def test_what_cannot_be_put_back_runs_again_and_says_so(caller: Caller, name: str) -> None:
    source, words = AGAIN[name]
    folder = caller.folder()
    (folder / "word.py").write_text("count, table = 0, [1]\ndef bump():\n    global count\n    count += 1\n")
    (folder / "sub").mkdir()
    for _ in range(2):
        (folder / "there.txt").write_text("it is")
        (folder / "link").unlink(missing_ok=True)
        got = caller.play(folder, ["a = 1", "import word" if "word" in source else "b = 2", source, "c = a + 1"])
        assert got["failed"] == []
    assert got["recalled"] == [0, 1, 3], got["why"]  # what comes after may still be recalled
    assert any(words in one for one in got["why"]["2"]), got["why"]


# -- nothing stale -----------------------------------------------------------------------------------------------------

STALE = {
    "data of equal size with its time restored": ("x = open('data.txt').read()", "data.txt is another"),
    "a file that is gone": ("x = open('data.txt').read()", "data.txt is another, or gone"),
    "a file that was absent": (
        "try:\n    x = open('new.txt').read()\nexcept FileNotFoundError:\n    x = ''", "new.txt was not there"
    ),
    "a file that was looked for": ("import os\nx = os.path.exists('new.txt')", "new.txt was not there"),
    "a path that was looked for": ("from pathlib import Path\nx = Path('new.txt').is_file()", "new.txt was not there"),
    "a table that a library did not find": (
        "import pyarrow.parquet as pq\ntry:\n    x = pq.read_table('new.txt').num_rows\nexcept Exception:\n    x = 0",
        "new.txt was not there",
    ),
    "a folder's names": ("import os\nx = len(os.listdir('.'))", "lists other names"),
    "names that match": ("import glob\nx = sorted(glob.glob('*.txt'))", "lists other names"),
    "a file's time": ("import os\nx = os.path.getmtime('data.txt')", "size or time of data.txt"),
    "a module": ("import word\nx = word.it()", "the module word is another"),
    "a module that was not there": (
        "try:\n    import absent\n    x = 1\nexcept ImportError:\n    x = 0", "the module absent was not there"
    ),
    "a variable of the process": ("import os\nx = os.environ.get('WORD')", "the variable WORD of the process"),
    "an option of pandas": ("print(pd.DataFrame({'a': [1.23456]}))", "settings are others"),
    "an option of NumPy": ("print(np.array([1 / 3]))", "settings are others"),
    "a generator's state": ("x = random.random()", "the generator random stands elsewhere"),
    "a variable in a module": ("import json\nx = state.table[0]", "variables in the module state are others"),
}  # fmt: skip


@pytest.mark.parametrize("name", STALE)
def test_nothing_stale_is_recalled(caller: Caller, name: str) -> None:
    source, words = STALE[name]
    folder = caller.folder()
    data = folder / "data.txt"
    data.write_text("first")
    (folder / "word.py").write_text("def it():\n    return 'first'\n")
    (folder / "state.py").write_text("table = [1]\n")
    first = ["import os, random, numpy as np, pandas as pd\nimport state", "random.seed(1)"]
    cells = [*first, "y = 0", source, "z = 1"]
    assert caller.play(folder, cells)["failed"] == []
    assert 3 in caller.play(folder, cells)["recalled"]
    environ = {}
    stat = data.stat()
    match name:
        case "data of equal size with its time restored":
            data.write_text("other")
            os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        case "a file that is gone":
            data.unlink()
        case "a file's time":
            os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        case "a module":
            (folder / "word.py").write_text("def it():\n    return 'other'\n")
            # Python itself takes a module's bytecode for current if its source has the same size and second.
            os.utime(folder / "word.py", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        case "a module that was not there":
            (folder / "absent.py").write_text("")
        case "a variable of the process":
            environ = {"WORD": "said"}
        case "an option of pandas":
            cells[2] = "y = pd.set_option('display.precision', 2)"
        case "an option of NumPy":
            cells[2] = "y = np.set_printoptions(precision=2)"
        case "a generator's state":
            cells[2] = "y = random.random()"
        case "a variable in a module":
            cells[2] = "y = state.table.__setitem__(0, 2)"
        case _:
            (folder / "new.txt").write_text("there")
    got = caller.play(folder, cells, environ=environ)
    assert 3 not in got["recalled"], got
    why = got["why"]["3"]
    assert words in (why if type(why) is str else why[0]), why
    fresh = caller.folder()
    for path in folder.iterdir():
        if path.is_file():
            shutil.copy2(path, fresh / path.name)
    assert_same(got, caller.play(fresh, cells, cache=False, environ=environ), cells)


ADDS = {
    "append": "x = open('w.txt', 'a').write('x')",
    "append by the system": "import os\nd = os.open('w.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "x = os.write(d, b'x')\nos.close(d)",
    "only where there is none": "try:\n    x = open('w.txt', 'x').write('x')\nexcept FileExistsError:\n    x = 0",
}


@pytest.mark.parametrize("name", ADDS)
def test_what_a_file_was_before_it_was_added_to_is_what_a_cell_depends_on(caller: Caller, name: str) -> None:
    folder, recalled = caller.folder(), set()
    file = folder / "w.txt"
    for before in (None, None, "", "", "y", "y", None, ""):
        file.unlink(missing_ok=True)
        if before is not None:
            file.write_text(before)
        got = caller.play(folder, ["a = 1", ADDS[name], "b = a + 1"])
        assert got["failed"] == []
        new = name.startswith("only")
        assert file.read_text() == (before if new and before is not None else (before or "") + "x")
        if 1 in got["recalled"]:
            recalled.add(before)
    assert recalled == {None, "", "y"}
    file.unlink()
    got = caller.play(folder, ["a = 1", ADDS[name], ADDS[name]])
    assert file.read_text() == ("x" if new else "xx")


def test_what_another_user_or_machine_kept_is_not_recalled(caller: Caller, tmp_path: Path) -> None:
    folder = caller.folder()
    cells = ["a = [1]", "open('out.txt', 'w').write('x');"]
    caller.play(folder, cells)
    assert caller.play(folder, cells)["recalled"] == [0, 1]
    other = Caller(tmp_path)  # with another key
    got = other.play(folder, cells)
    other.process.communicate()
    assert got["recalled"] == []
    assert "was not kept by this user on this machine" in got["why"]["0"][0]


def test_a_model_that_was_fitted_is_recalled_and_so_is_a_folder_that_came_and_went(book: Book) -> None:
    cells = (
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression",
        "X = np.random.default_rng(0).normal(size=(60, 3))\ny = (X[:, 0] > 0).astype(int)",
        "model = LogisticRegression().fit(X, y)\nprint(model.score(X, y))",
        "import tempfile, os\nwith tempfile.TemporaryDirectory() as place:\n    os.mkdir(os.path.join(place, 'x'))\n"
        "del place",
    )
    first = book.run(*cells)
    again = book.run(*cells, "print(model.predict(X[:2]), model.coef_.shape)")
    assert again.status == "done", again.error
    assert {2, 3, 4} <= set(again.recalled), again.again
    assert shown(again)[2] == shown(first)[2]


# -- going on with a run -----------------------------------------------------------------------------------------------

LONG = (
    "xs = [n * n for n in range(1000)]\nprint(len(xs))",
    "ys = xs\ntotal = sum(xs)",
    "import os\nif not os.path.exists('go.txt'):\n    {end}\nprint(total, ys is xs)",
    "last = total + 1",
)


def test_a_failed_run_goes_on_at_the_first_cell_that_must_run(book: Book) -> None:
    book.write(*(one.format(end="raise RuntimeError('not yet')") for one in LONG))
    failed = book.run()
    assert failed.status == "failed"
    partial = failed.output.read_bytes()
    (book.folder / "go.txt").write_text("")
    resumed = book.resume(failed)
    assert resumed.status == "done"
    assert resumed.recalled == [1, 2]
    assert set(reasons(resumed)) == {3, 4}
    assert shown(resumed)[2][1][0]["text"] == ["332833500 True\n"]
    assert failed.output.read_bytes() == partial
    assert resumed.output.name == "book.resumed.ipynb"
    with Store.open(book.folder / ".mlops") as store:
        assert failed.run is not None
        assert resumed.run is not None
        assert store.run(resumed.run).started.resumes == failed.run
        assert store.run(failed.run).status == "failed"


def test_a_run_whose_kernel_was_killed_goes_on_from_a_shell(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # of both: a cell may depend on it
    book.write(*(one.format(end="os.abort()") for one in LONG))
    killed = book.run()
    assert killed.status == "failed"
    (book.folder / "go.txt").write_text("")
    assert killed.run is not None
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "resume", killed.run.partition(":")[2][:12], "--json"],
        cwd=book.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["recalled"] == 2
    assert [place for place, _ in said["again"]] == [3, 4]


def test_cells_that_follow_one_another_are_recalled_in_few_requests_up_to_one_that_must_run(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [f"a{n} = [{n}]\nprint(a{n})" for n in range(12)]
    first = book.run(*made[:8], "import time\nnow = time.time()", *made[8:])
    asked: list[str] = []
    say = Recalling._say

    async def heard(self: Recalling, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request["do"])
        return await say(self, request)

    monkeypatch.setattr(Recalling, "_say", heard)
    second = book.run()
    assert (second.status, second.recalled) == ("done", [*range(1, 9), *range(10, 14)])
    assert [place for place, _ in second.again] == [9]
    assert shown(second) == shown(first)
    assert asked.count("begin") == asked.count("keep") == 1
    assert asked.count("consult") < 9
    assert [cell.status for cell in book.cells(second)] == ["done"] * 13


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.08, 0.15])
def test_a_run_that_is_ended_while_many_cells_are_recalled_has_each_of_them_wholly_or_not(
    book: Book, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # of both: a cell may depend on it
    sources = ["import numpy as np", *(f"a{n} = np.full(500_000, {n}.0)\nprint({n})" for n in range(40))]
    full = book.run(*sources)
    ended = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "book.ipynb", "--cache", "cells", "--events", "-o", "end.ipynb"],
        cwd=book.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert ended.stderr is not None
    for line in ended.stderr:
        told = json.loads(line)
        if told.get("kind") == "cell began" and told["cell"] > 3:
            break
    time.sleep(seconds)
    ended.send_signal(signal.SIGINT)
    ended.communicate(timeout=60)
    with Store.open(book.folder / ".mlops") as store:
        run = store.runs()[0]
        cells = store.cell_runs(run=run.id, newest_first=False)
    # (a fast machine may have been through before, or be about to leave)
    assert (ended.returncode, run.status) in [(130, "interrupted"), (0, "done"), (-signal.SIGINT, "done")]
    assert [cell.source for cell in cells] == sources[: len(cells)]
    assert {cell.status for cell in cells[:-1]} == {"done"}
    page = json.loads((book.folder / "end.ipynb").read_text())["cells"]
    left = [cell["outputs"] for cell in page if cell["cell_type"] == "code"]
    while left and (not left[-1] or left[-1][0].get("ename") == "KeyboardInterrupt"):
        left.pop()
    assert left == [outputs for _, outputs in shown(full)][: len(left)]
    assert len(left) <= len(cells)
    again = book.run()
    assert (again.status, len(again.recalled)) == ("done", 41)
    assert shown(again) == shown(full)


def test_a_run_of_which_nothing_was_kept_is_resumed_by_running_all(book: Book) -> None:
    book.write(*(one.format(end="raise RuntimeError('not yet')") for one in LONG))
    failed = book.run(cache="off")
    (book.folder / "go.txt").write_text("")
    resumed = book.resume(failed)
    assert (resumed.status, resumed.recalled) == ("done", [])


def test_what_can_not_be_resumed_is_refused(book: Book) -> None:
    run = book.run("a = 1")
    book.path.unlink()
    with pytest.raises(NotResumed, match="is gone"):
        book.resume(run)


def test_papermill_recalls_cells_where_the_project_says_so(book: Book) -> None:
    from papermill import execute_notebook

    book.write("a = 1\nprint(a)", "b = [a]")
    (book.folder / "pyproject.toml").write_text('[tool.jupyter-mlops]\ncache = "cells"\n')
    for place in ("one.ipynb", "two.ipynb"):
        execute_notebook(
            str(book.path), str(book.folder / place), engine_name="mlops", progress_bar=False, cwd=str(book.folder)
        )
    cells = json.loads((book.folder / "two.ipynb").read_text())["cells"]
    assert all(cell["metadata"]["mlops"]["recalled"].startswith("blake3:") for cell in cells)
    assert cells[0]["outputs"][0]["text"] == ["1\n"]


@pytest.mark.parametrize("name", [
    "a view of an index", "an index over an array", "a column that its frame remembers", "a list in a frame",
    "arrays over bytes", "a row", "one mask", "two generators on one", "children of a generator",
    "a stdlib array", "polars over an array", "a mapped file",
])  # fmt: skip
def test_what_shares_memory_does_so_when_its_cell_is_recalled_or_the_cell_runs_again(caller: Caller, name: str) -> None:
    made, change, left = ALL[name]
    folder, other = caller.folder(), caller.folder()
    cells = [HEAD, made, "n = 1", change]
    caller.play(folder, cells)
    assert (1 in caller.play(folder, cells)["recalled"]) == (not left)
    edited = [*cells[:3], change + "\nagain = 1"]
    got = caller.play(folder, edited)
    assert (1 in got["recalled"]) == (not left)
    assert 3 not in got["recalled"]
    wanted = caller.play(other, edited, cache=False)
    assert wanted["failed"] == []
    assert_same(got, wanted, edited)


def test_how_values_lie_in_memory_tells_orders_strides_and_what_is_shared() -> None:
    import numpy as np
    import pandas as pd

    array = np.arange(6.0).reshape(2, 3)
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    told = frame.copy()
    told.attrs["k"] = 1
    pairs = [
        ({"a": array}, {"a": np.asfortranarray(array)}), ({"a": array}, {"a": array.astype(">f8")}),
        ({"a": array, "b": array[0]}, {"a": array, "b": array[0].copy()}), ({"f": frame}, {"f": told}),
        ({"a": {8, 0}}, {"a": {0, 8}}), ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}),
        ({"f": frame}, {"f": pd.DataFrame({"a": [1, 2]}).assign(b=[3, 4])}),
    ]  # fmt: skip
    for one, other in pairs:
        assert layout(one) == layout(dict(reversed(one.items())))
        assert layout(one) != layout(other), (one, other)
    assert layout({"a": array}) == layout({"a": array.copy()})
