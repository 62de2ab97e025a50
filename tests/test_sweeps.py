"""Sweeps: what a parameter goes over, one table of what came of it, and a sweep that was cut off."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import check_structure

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.pipelines import ParametersInvalid, Sweep, sweep
from jupyter_mlops.pipelines.parameters import assigned
from jupyter_mlops.pipelines.sweeps import draw, grid, read_axis
from jupyter_mlops.project import Project
from jupyter_mlops.targets import Target, open_target
from jupyter_mlops.testing import write_notebook

DECLARED = "depth: int = 1\nrate: float = 0.1\nname: str = 'a'\nshape: list[int] = [1]\nfull: bool = True\nfree = None"
KNOWN = assigned(DECLARED)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.open(tmp_path)


@pytest.fixture
def target(project: Project) -> Iterator[Target]:
    with open_target("local", project, workers=2, kernels="warm") as one:
        yield one


def write(folder: Path, *sources: str, parameters: str = DECLARED) -> Path:
    return folder / write_notebook(folder / "a.ipynb", parameters, *sources)


SCORE = "from jupyter_mlops import log_metric\nlog_metric('score', depth - 10 * rate)\nlog_metric('loss', depth * rate)"


# -- what it goes over -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "values"),
    [
        ("depth", "3,5,7", [3, 5, 7]), ("depth", "4", [4]), ("depth", "1..4", [1, 2, 3, 4]),
        ("depth", "-1..1", [-1, 0, 1]),
        ("depth", "1..100:log:3", [1, 10, 100]), ("depth", "0..9:4", [0, 3, 6, 9]), ("depth", "1..2:5", [1, 2]),
        ("rate", "1,2", [1.0, 2.0]), ("rate", "0..1:5", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("rate", "0..1:lin:2", [0.0, 1.0]),
        ("rate", "0.01..0.3:log:2", [0.01, 0.3]), ("rate", "1e-3..1e-1:log:3", [0.001, 0.01, 0.1]),
        ("name", "a,b", ["a", "b"]), ("name", "1..3", ["1..3"]), ("name", "'a,b',c", ["a,b", "c"]),
        ("shape", "[1, 2],[3]", [[1, 2], [3]]), ("full", "true,false", [True, False]),
        ("free", "1,x,2.5", [1, "x", 2.5]),
        ("free", "../data", ["../data"]),
    ],
)  # fmt: skip
def test_what_a_parameter_goes_over_is_read_as_the_notebook_declares_it(
    name: str, words: str, values: list[Any]
) -> None:
    found = read_axis(name, words, KNOWN).values
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("depth", "1,x", "depth is to be int"), ("depth", "0.5..2", "depth is to be int"),
        ("rate", "a..b", "rate is to be"),
        ("rate", "2..1:5", "begins above its end"), ("rate", "0..1:log:5", "above zero"),
        ("rate", "0..1:1", "two ends"),
        ("depth", "0..99999", "more than 10000"), ("full", "yes", "full is to be bool"), ("x=1;y", "1", "no name"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_refused(name: str, words: str, said: str) -> None:
    with pytest.raises(ParametersInvalid, match=said):
        read_axis(name, words, KNOWN)


def test_a_grid_has_every_combination_and_asks_how_many_of_a_range() -> None:
    axes = [read_axis("depth", "1,2", KNOWN), read_axis("name", "a,b", KNOWN)]
    assert grid(axes) == [
        {"depth": 1, "name": "a"}, {"depth": 1, "name": "b"}, {"depth": 2, "name": "a"}, {"depth": 2, "name": "b"},
    ]  # fmt: skip
    with pytest.raises(ParametersInvalid, match=r"rate=0\.\.1:5 takes five"):
        grid([read_axis("rate", "0..1", KNOWN)])
    with pytest.raises(ParametersInvalid, match="more than 10000 runs"):
        grid([read_axis("depth", "1..200", KNOWN), read_axis("rate", "0..1:200", KNOWN)])


@given(st.integers(1, 40), st.integers())
def test_what_is_drawn_is_within_bounds_of_the_right_type_no_two_alike_and_the_same_for_a_seed(
    count: int, seed: int
) -> None:
    axes = [
        read_axis("depth", "2..50", KNOWN), read_axis("rate", "0.001..1:log", KNOWN), read_axis("name", "a,b", KNOWN)
    ]  # fmt: skip
    found = draw(axes, count, seed)
    assert found == draw(axes, count, seed)
    assert len({json.dumps(one) for one in found}) == count
    for one in found:
        assert type(one["depth"]) is int
        assert 2 <= one["depth"] <= 50
        assert type(one["rate"]) is float
        assert 0.001 <= one["rate"] <= 1
        assert one["name"] in ("a", "b")


def test_no_more_is_drawn_than_there_is() -> None:
    assert sorted(one["depth"] for one in draw([read_axis("depth", "1..3", KNOWN)], 10, 0)) == [1, 2, 3]


# -- a sweep ---------------------------------------------------------------------------------------------------------


def test_a_sweep_gives_one_table_with_the_best_marked_and_is_on_record(project: Project, target: Target) -> None:
    notebook = write(project.root, SCORE)
    found = sweep(notebook, {"depth": "1,2", "rate": "0.1,0.2"}, project=project, target=target, best="score")
    assert found.ok
    assert found.best == 2
    assert [one.parameters for one in found.points] == [
        {"depth": 1, "rate": 0.1}, {"depth": 1, "rate": 0.2}, {"depth": 2, "rate": 0.1}, {"depth": 2, "rate": 0.2},
    ]  # fmt: skip
    frame = found.frame()
    assert list(frame.columns) == ["depth", "rate", "loss", "score", "seconds", "status", "notebook", "run", "why"]
    assert frame["score"].tolist() == [0.0, -1.0, 1.0, 0.0]
    assert frame.attrs["best"] == 2
    assert frame["notebook"].tolist()[0] == "a.sweep/depth=1,rate=0.1.ipynb"
    assert all((project.root / name).is_file() for name in frame["notebook"])
    runs = {run.id: run for run in project.store.runs()}
    assert runs[found.run].started.trigger == "sweep"
    assert runs[found.run].status == "done"
    for one in found.points:
        assert one.outcome.run is not None
        assert runs[one.outcome.run].started.parent == found.run
        assert runs[one.outcome.run].started.parameters == one.parameters


def test_a_run_that_fails_stands_in_the_table_and_is_what_the_next_sweep_runs(project: Project, target: Target) -> None:
    notebook = write(project.root, "import os\nassert depth != 2 or os.path.exists('mended')", SCORE)

    def go(**rest: Any) -> Sweep:
        return sweep(notebook, {"depth": "1,2,3"}, project=project, target=target, best="loss:min", **rest)

    first = go()
    assert [one.outcome.status for one in first.points] == ["done", "failed", "done"]
    assert not first.ok
    assert first.best == 0
    assert "AssertionError" in first.rows()[1]["why"]
    assert first.rows()[1]["score"] is None
    (project.root / "mended").touch()
    second = go()
    assert [row["status"] for row in second.rows()] == ["kept", "done", "kept"]
    assert [one.outcome.run for one in second.points if one.kept] == [
        first.points[0].outcome.run,
        first.points[2].outcome.run,
    ]
    assert second.rows()[0]["score"] == first.rows()[0]["score"]
    # That one came to its end: the next one runs all.
    assert [row["status"] for row in go().rows()] == ["done", "done", "done"]


def test_what_was_done_is_not_taken_over_for_another_code_or_where_that_is_not_wanted(
    project: Project, target: Target
) -> None:
    failing = "assert depth != 2"

    def go(*cells: str, **rest: Any) -> list[str]:
        notebook = write(project.root, *cells)
        found = sweep(notebook, {"depth": "1,2"}, project=project, target=target, **rest)
        return [row["status"] for row in found.rows()]

    assert go(failing) == ["done", "failed"]
    assert go(failing, "1") == ["done", "failed"]
    assert go(failing, "1", fresh=True) == ["done", "failed"]
    assert go(failing, "1") == ["kept", "failed"]
    assert go(failing) == ["done", "failed"]


def test_nothing_runs_where_a_point_does_not_fit(project: Project, target: Target) -> None:
    notebook = write(project.root, "1")
    for words, said in (({"deep": "1"}, "is it depth"), ({"depth": "1,x"}, "depth is to be int")):
        with pytest.raises(ParametersInvalid, match=said):
            sweep(notebook, words, project=project, target=target)
    with pytest.raises(WrongUse, match="names no metric"):
        sweep(notebook, {"depth": "1"}, project=project, target=target, best="score:most")
    with pytest.raises(ParametersInvalid, match="rate is to be float"):
        sweep(notebook, {"depth": "1"}, project=project, target=target, fixed={"rate": "x"})
    assert project.store.runs() == []
    assert not (project.root / "a.sweep").exists()


def test_fixed_parameters_go_with_each_and_odd_values_have_file_names_of_their_own(
    project: Project, target: Target
) -> None:
    notebook = write(project.root, "from jupyter_mlops import log_metric\nlog_metric('length', len(name) + depth)")
    words = {"name": "'../up','a/b','A/b',plain"}
    found = sweep(notebook, words, project=project, target=target, fixed={"depth": 5})
    assert found.frame()["length"].tolist() == [10, 8, 8, 10]
    names = [Path(row["notebook"]) for row in found.rows()]
    assert {name.parent.as_posix() for name in names} == {"a.sweep"}
    assert len({name.name.lower() for name in names}) == 4
    assert names[3].name == "name=plain.ipynb"


def test_the_first_failure_ends_all_where_that_is_wanted(project: Project) -> None:
    notebook = write(project.root, "import time\nassert depth != 1\ntime.sleep(600)")
    with open_target("local", project, workers=2, kernels="warm") as target:
        found = sweep(notebook, {"depth": "1..4"}, project=project, target=target, fail_fast=True)
    statuses = [one.outcome.status for one in found.points]
    assert statuses == ["failed", "interrupted", "interrupted", "interrupted"]


# -- in a shell, and in a notebook -----------------------------------------------------------------------------------


def mlops(project: Project, *words: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", *words], cwd=project.root, capture_output=True, text=True, timeout=250,
        env={**os.environ, **environ},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_shell_prints_a_table_or_csv_or_json(project: Project) -> None:
    write(project.root, SCORE, "assert name != '=1+1'")
    code, said, error = mlops(
        project, "sweep", "a.ipynb", "-p", "depth=1,2", "-p", "rate=0.1..0.2:2", "--best", "score", "--json"
    )
    assert code == 0, error
    answer = json.loads(said)
    assert answer["best"] == 2
    assert [row["score"] for row in answer["rows"]] == [0.0, -1.0, 1.0, 0.0]
    code, said, _ = mlops(project, "sweep", "a.ipynb", "-p", "name=x,=1+1", "--csv", "--target", "local")
    assert code == 3
    rows = list(csv.DictReader(io.StringIO(said)))
    assert [(row["name"], row["status"]) for row in rows] == [("x", "done"), ("'=1+1", "failed")]
    code, said, _ = mlops(
        project, "sweep", "a.ipynb", "-p", "depth=1..5", "--random", "2", "--seed", "1", "--best", "loss:min"
    )
    assert code == 0
    assert said.count(" done ") == 2
    assert "best" in said
    for words in (("-p", "depth"), ("-p", "depth=1", "--target", "no"), ("-p", "depth=x")):
        assert mlops(project, "sweep", "a.ipynb", *words)[0] == 2


def test_a_sweep_that_is_killed_is_continued_and_leaves_no_process(project: Project, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    write(
        project.root,
        f"import os, time\nopen(os.path.join({str(marks)!r}, f'{{depth}}-{{os.getpid()}}'), 'w').close()\n"
        f"while depth > 2 and not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)", SCORE,
    )  # fmt: skip
    (project.root / "pyproject.toml").write_text(
        '[tool.jupyter-mlops.targets.one]\nkind = "local"\nworkers = 1\nkernels = "warm"\n'
    )
    command = [sys.executable, "-m", "jupyter_mlops", "sweep", "a.ipynb", "-p", "depth=1..4", "--target", "one"]
    asked = subprocess.Popen(
        command, cwd=project.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    ends = time.monotonic() + 200
    while not any(name.startswith("3-") for name in os.listdir(marks)):
        assert asked.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)
    below = psutil.Process(asked.pid).children(recursive=True)
    kernel = next(int(name[2:]) for name in os.listdir(marks) if name.startswith("3-"))
    asked.send_signal(signal.SIGKILL)
    asked.wait()
    for pid in [kernel, *(one.pid for one in below)]:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < ends
            time.sleep(0.05)
    (tmp_path / "go").touch()
    code, said, error = mlops(project, *command[3:], "--json")
    assert code == 0, error
    assert [row["status"] for row in json.loads(said)["rows"]] == ["kept", "kept", "done", "done"]
    assert sorted(name[0] for name in os.listdir(marks)) == ["1", "2", "3", "3", "4"]


def test_a_secret_of_a_sweep_is_given_to_all_runs_and_kept_nowhere(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "7hq-correct-horse-battery"
    write(
        project.root, "from jupyter_mlops import log_metric\nlog_metric('length', len(key))\nassert depth == 1, key",
        parameters="depth: int = 1\nkey = ''  # secret: of the store",
    )  # fmt: skip
    monkeypatch.setenv("STORE_KEY", token)
    words = ("sweep", "a.ipynb", "-p", "depth=1,2", "-p", "key=@env:STORE_KEY", "--live", "--junit", "r.xml", "--json")
    code, said, error = mlops(project, *words)
    assert code == 3, error
    assert "process table" not in error
    rows = json.loads(said)["rows"]
    assert [(row["depth"], row["status"], row["length"]) for row in rows] == [
        (1, "done", len(token)), (2, "failed", len(token))
    ]  # fmt: skip
    assert all(row["key"].startswith("<redacted:") for row in rows)
    # What was done with a secret is not taken over: the record does not tell one from another.
    code, again, _ = mlops(project, *words)
    assert [row["status"] for row in json.loads(again)["rows"]] == ["done", "failed"]
    # Said as it is, it can be seen; a file of parameters can name a variable, too.
    (project.root / "more.yaml").write_text("key: '@env:STORE_KEY'\n")
    code, told, error = mlops(project, "sweep", "a.ipynb", "-p", "depth=1", "-f", "more.yaml", "--csv")
    assert (code, next(csv.DictReader(io.StringIO(told)))["length"]) == (0, str(len(token))), error
    code, told, error = mlops(project, "sweep", "a.ipynb", "-p", f"key={token}")
    assert code == 0
    assert "key can be seen in the process table" in error
    assert sorted(path.name for path in (project.root / "a.sweep").iterdir()) == [
        "depth=1.ipynb", "depth=2.ipynb", "run.ipynb"
    ]  # fmt: skip
    assert token not in said + again + told + error.replace(f"key={token}", "")
    for path in project.root.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_a_sweep_does_not_go_over_secrets_and_asks_for_variables_that_are_there(
    project: Project, target: Target
) -> None:
    notebook = write(project.root, "1", parameters="depth: int = 1\nkey: 'Secret' = ''\nname = 'a'")
    looks = "ghp_" + "a1B2" * 9
    for words, said in (
        ({"key": "one-of-them,another-one"}, "key is secret, and a sweep can not go over it"),
        ({"name": f"a,{looks}"}, "name is secret"),
        ({"key": "@env:NOWHERE_AT_ALL"}, "no variable 'NOWHERE_AT_ALL'"),
    ):
        with pytest.raises(ParametersInvalid, match=said):
            sweep(notebook, {"depth": "1,2", **words}, project=project, target=target)
    assert project.store.runs() == []
    assert not (project.root / "a.sweep").exists()


def test_a_sweep_is_told_to_a_service_with_a_suite_for_each_run(project: Project) -> None:
    import junitparser

    write(project.root, SCORE, "assert depth < 3, 'too deep'")
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(project.root / "s.md")}
    command = ("sweep", "a.ipynb", "-p", "depth=1,2,3,4", "--best", "score", "--junit", "r.xml")
    code, said, error = mlops(project, *command, **environ)
    assert code == 3, error
    root = check_structure((project.root / "r.xml").read_bytes())
    assert root.attrib["name"] == "mlops sweep"
    suites = list(junitparser.JUnitXml.fromfile(str(project.root / "r.xml")))
    assert [(one.name, one.tests, one.failures) for one in suites] == [
        (f"a.ipynb[depth={depth}]", 4, int(depth > 2)) for depth in (1, 2, 3, 4)
    ]  # fmt: skip
    assert {one.name: one.value for one in suites[1].properties()}["metric score"] == "1"
    told = [(case.classname, case.name) for suite in suites for case in suite]
    assert len(set(told)) == len(told) == 16
    assert "too deep" in next(case for case in suites[2] if not case.is_passed).result[0].message
    # Two runs failed alike, at one line: that is one annotation.
    [command_] = [line for line in (said + error).splitlines() if line.startswith("::")]
    assert "AssertionError in cell 4" in command_
    assert "in 2 runs%3A" not in command_
    assert "in 2 runs: a.ipynb[depth=3], a.ipynb[depth=4]" in command_
    text = (project.root / "s.md").read_text()
    assert text.startswith("### ❌ `a.ipynb`: 2 of 4 runs done")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4
    assert [line.split("|")[1].strip() for line in table[2:]] == ["", "**best**", "❌", "❌"]
    assert text.count("AssertionError: too deep") >= 2
    # What was taken over from the sweep that failed is told as what it came to.
    mlops(project, *command)
    suites = list(junitparser.JUnitXml.fromfile(str(project.root / "r.xml")))
    assert [(one.tests, one.failures) for one in suites] == [(4, 0), (4, 0), (4, 1), (4, 1)]


def test_what_the_runs_of_a_sweep_print_is_shown_with_their_names(project: Project) -> None:
    write(project.root, "print('begun', depth)\nprint('::error::no', end='')", "depth * 10")
    code, said, error = mlops(project, "sweep", "a.ipynb", "-p", "depth=1,2", "--live", GITHUB_ACTIONS="true")
    assert code == 0, error
    for depth in (1, 2):
        mine = [line.partition(" │ ")[2] for line in error.splitlines() if line.startswith(f"depth={depth} │ ")]
        assert "".join(mine) == f"begun {depth}: :error::no{depth}0", error
        assert "" not in mine
        assert f"depth={depth}: done" in error.splitlines()
    assert not [line for line in (said + error).splitlines() if line.lstrip().startswith("::")]
    assert "│" not in mlops(project, "sweep", "a.ipynb", "-p", "depth=1")[2]


def test_in_a_notebook_the_answer_is_a_frame(shell: Any, project_folder: Path) -> None:
    import pandas as pd

    write(project_folder, SCORE)
    found = shell.run_line_magic("mlops", "sweep a.ipynb -p depth=1,2 --best score")
    assert isinstance(found, pd.DataFrame)
    assert found["score"].tolist() == [0.0, 1.0]
    assert found.attrs["best"] == 1
