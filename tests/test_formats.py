"""Frozen stores: what was written once is read the same for ever."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from jupyter_mlops.records import Digest, Environment, Transition
from jupyter_mlops.store import Store

HERE = Path(__file__).parent / "data"


@pytest.fixture
def frozen(tmp_path: Path):
    shutil.copytree(HERE / "store-1", tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        yield store, json.loads((HERE / "store-1.json").read_text())


def test_the_frozen_store_verifies(frozen) -> None:
    store, facts = frozen
    assert store.fsck() == []
    assert store.reindex() == facts["lines"]


def test_the_frozen_store_reads_as_on_the_day_it_was_written(frozen) -> None:
    store, facts = frozen
    assert {one.id: [one.status, one.source, one.time] for one in store.cell_runs()} == facts["cell_runs"]
    assert {one.id: [one.status, one.started.notebook] for one in store.runs()} == facts["runs"]
    assert store.get(Digest(facts["table"])) == b"carrier,delay\nUA,11\nAA,33\n"
    parameters = store.runs()[0].started.parameters
    assert math.isnan(parameters.pop("lr"))
    assert parameters == {"top": math.inf, "seed": 2**64, "home": "~/data", "odd": "\ud800"}
    assert [package.name for *_, one in store.records(Environment) for package in one.packages] == ["pandas"]
    fit = store.cell_run(Digest(facts["fit"]))
    assert fit.metrics == {"accuracy": 0.8}
    assert fit.parameters == {"depth": 2**60}
    assert [one.name for one in fit.outputs] == ["big"]


def test_the_refs_of_the_frozen_store_stand_where_they_stood(frozen) -> None:
    store, facts = frozen
    assert store.refs() == ["models/delays", "models/delays@production"]
    assert store.head("models/delays@production") == facts["version"]
    assert [move.transition.refused for move in store.moves("models/delays@production")] == [True, False]
    assert all(isinstance(move.transition, Transition) for move in store.moves("models/delays"))


def test_the_field_erased_from_the_frozen_store_is_known_to_be_erased(frozen) -> None:
    store, facts = frozen
    lost = [digest for digest, (_, source, _) in facts["cell_runs"].items() if not source]
    assert [store.line(Digest(digest)).erased for digest in lost] == [("source",)]
