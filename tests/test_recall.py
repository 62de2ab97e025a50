"""Cells recalled instead of run: what a full run gives, or the cell runs and says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_mlops.pipelines import RunResult, resume_run, run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import CellRun
from jupyter_mlops.store import Store

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


SAME = ("variables", "aliases", "layout", "printed", "failed", "files", "draws", "count", "settings")


def same(got: dict[str, Any], full: dict[str, Any], cells: list[str]) -> None:
    for what in SAME:
        assert got[what] == full[what], (what, cells, got["recalled"], got["why"])


def test_nothing_is_recalled_that_another_run_did_not_do(caller: Caller) -> None:
    folder = caller.folder()
    cells = ["a = [1]", "b = a", "b.append(2)", "print(a)"]
    full = caller.play(folder, cells, cache=False)
    first = caller.play(folder, cells)
    same(first, full, cells)
    assert first["recalled"] == []
    second = caller.play(folder, cells)
    same(second, full, cells)
    assert second["recalled"] == [0, 1, 2, 3], second["why"]
