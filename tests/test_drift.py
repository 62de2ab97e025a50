"""Columns held against how they were distributed, and against what chance makes of few rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_contracts import shell

from jupyter_mlops.checks import DataInvalid, Drift, drift, profile
from jupyter_mlops.checks.drift import DRIFTED, STEADY, UNKNOWN, stability
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.project import Project
from jupyter_mlops.records import CheckResult
from jupyter_mlops.registry.contracts import ContractBroken, Data, check_drift

COUNTS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=2, max_size=40)


def one(then: Any, now: Any) -> Drift:
    [found] = drift(profile({"x": then}), {"x": now})
    return found


# -- the index -------------------------------------------------------------------------------------------------------


@given(COUNTS)
def test_the_index_is_the_symmetric_divergence_of_the_shares(counts: list[tuple[int, int]]) -> None:
    then, now = (tuple(row) for row in zip(*counts, strict=True))
    found = stability(then, now)
    p, q = ((np.array(row) + 0.5) / (sum(row) + 0.5 * len(row)) for row in (then, now))
    assert math.isclose(found, stats.entropy(p, q) + stats.entropy(q, p), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(found, stability(now, then), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("free", [1, 2, 5, 19, 100])
def test_what_chance_makes_of_it_is_the_quantile_of_chi_square(free: int) -> None:
    then = now = [*range(free + 1)] * 100
    found = drift({"columns": {"x": {"kind": "label", "nulls": 0, "top": {str(n): 100 for n in range(free + 1)},
                                     "other": 0}}}, {"x": list(map(str, now))})[0]  # fmt: skip
    wanted = stats.chi2.ppf(0.95, free) * 2 / len(then)
    assert found.chance is not None
    assert math.isclose(found.chance, wanted, rel_tol=0.03)


def test_where_nothing_has_changed_five_in_a_hundred_are_beyond_chance() -> None:
    rng = np.random.default_rng(5)
    makers = (
        lambda n: rng.normal(size=n), lambda n: rng.integers(0, 12, n), lambda n: rng.choice(list("abcdef"), n),
        lambda n: np.where(rng.random(n) < 0.1, np.nan, rng.exponential(size=n)),
    )  # fmt: skip
    found = [one(make(n), make(n)) for make in makers for n in (300, 1000) for _ in range(60)]
    beyond = sum(each.value > each.chance for each in found)  # type: ignore[operator]
    assert 5 <= beyond <= 48, "of 480: about 24"
    assert sum(each.verdict() == DRIFTED for each in found) <= 5


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (np.arange(1000.0), np.arange(1000.0) + 400),
        (np.arange(1000), np.where(np.arange(1000) % 2, np.nan, np.arange(1000))),
        (list("abab") * 100, list("acac") * 100),
        ([True, False] * 200, [True, True, True, False] * 100),
        ([3.0] * 500, [4.0] * 500),
        (pd.date_range("2020", periods=500, tz="UTC"), pd.date_range("2021-03", periods=500, tz="UTC")),
    ],
)
def test_what_has_moved_is_seen(then: Any, now: Any) -> None:
    found = one(then, now)
    assert found.verdict() == DRIFTED
    assert sum(found.then) == sum(found.now) == len(then)
    assert len(found.bins) == len(found.then) == len(found.now)
    same = one(then, then)
    assert (same.value, same.verdict()) == (0.0, STEADY)


# -- what can not be told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        ([1.0] * 9, [], "there are no rows"),
        ([math.nan] * 9, [math.nan] * 9, ""),
        ([1.0, 2.0] * 50, ["a", "b"] * 50, "it held numbers, and does no more"),
        (["a", "b"] * 50, [1.0, 2.0] * 50, "it held labels, and holds numbers now"),
        ([f"text {n}" for n in range(99)], ["text 1"] * 9, "of free text no distribution is kept"),
    ],
)
def test_odd_columns_get_an_answer_or_a_reason(then: Any, now: Any, why: str) -> None:
    found = one(then, now)
    assert found.why == why
    assert (found.value is None) == bool(why)
    assert found.verdict() == (UNKNOWN if why else STEADY)


def test_few_rows_are_not_taken_for_a_shift_and_not_for_none() -> None:
    rng = np.random.default_rng(1)
    baseline = rng.normal(size=5000)
    for rows in (1, 5, 20):
        found = one(baseline, rng.normal(size=rows))
        assert found.verdict() == UNKNOWN
        assert found.value is not None


def test_columns_that_are_gone_are_named_and_those_that_came_are_not_asked_about() -> None:
    found = drift(profile({"a": [1, 2] * 50, "password": ["x", "y"] * 50}), {"b": [1], "password": ["x"]},
                  secret=lambda name: name == "password")  # fmt: skip
    assert [(each.name, each.why) for each in found] == [
        ("a", "the column is not there"), ("password", "its name stands for a secret"),
    ]  # fmt: skip
    with pytest.raises(DataInvalid):
        drift(profile({"a": [1]}), 3)


@pytest.mark.parametrize("kind", ["pandas", "pandas nullable", "polars", "pyarrow"])
def test_any_library_gives_the_same_answer(kind: str) -> None:
    values: dict[str, list[Any]] = {
        "n": [1, 2, None, 4] * 50,
        "s": ["a", "b", None, "a"] * 50,
        "b": [True, None, False, True] * 50,
    }
    make: Any = {
        "pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table,
        "pandas nullable": lambda table: pd.DataFrame(table).convert_dtypes(),
    }[kind]  # fmt: skip
    plain, there = pd.DataFrame(values), make(values)
    assert [each.value for each in drift(profile(there), there)] == [0.0, 0.0, 0.0]
    moved = {name: column[:100] + column[:1] * 100 for name, column in values.items()}
    wanted = [each.value for each in drift(profile(plain), pd.DataFrame(moved))]
    assert [each.value for each in drift(profile(there), make(moved))] == wanted


# -- on record, in a shell and in a notebook -------------------------------------------------------------------------


def test_the_answer_is_on_record_with_what_moved_and_what_is_not_known(tmp_path: Path) -> None:
    project = Project.open(tmp_path)
    rng = np.random.default_rng(0)
    then = {
        "age": rng.normal(40, 9, 2000),
        "note": [f"n{n}" for n in range(2000)],
        "port": rng.choice(["S", "C"], 2000),
    }
    now = pd.DataFrame({**then, "age": then["age"] + 9})
    result = check_drift(project, Data(name="X", table=now), drift(profile(then), now), source="then", limit=0.2)
    assert not result.passed
    assert result.summary == "1 of 2 columns of X have drifted from then"
    assert [one["column"] for one in result.evidence["breaches"]] == ["age"]
    assert result.evidence["unknown"] == ["note: of free text no distribution is kept"]
    assert [kept for _, _, kept in project.store.records(CheckResult)] == [result]
    loose = check_drift(project, Data(name="X", table=now), drift(profile(then), now), source="then", limit=9)
    assert loose.passed
    with pytest.raises(WrongUse, match="can not be held"):
        check_drift(project, Data(name="X", table=now), drift(profile(then), {"z": [1]}), source="then", limit=0.2)


def test_files_are_held_against_files_in_a_shell(project_folder: Path) -> None:
    table = pd.DataFrame({"age": np.arange(500) % 60, "port": ["S", "C"] * 250})
    table.to_csv("then.csv", index=False)
    table.assign(age=table.age + 30).to_parquet("now.parquet")

    told = shell(project_folder, "drift", "now.parquet", "--against", "then.csv")
    assert (told.returncode, "1 of 2 columns of now.parquet have drifted" in told.stdout) == (1, True), told.stderr
    assert "▁" in told.stdout
    assert shell(project_folder, "drift", "now.parquet", "--against", "then.csv", "--limit", "50").returncode == 0
    assert shell(project_folder, "drift", "then.csv", "--against", "then.csv").returncode == 0
    for words, code, why in (
        (("nowhere.csv", "--against", "then.csv"), 3, "nowhere.csv"),
        (("then.csv", "--against", "then.csv", "--panel"), 2, "notebook"),
        (("then.csv", "--against", "then.csv", "--limit", "-1"), 2, "-1"),
    ):
        told = shell(project_folder, "drift", *words)
        assert (told.returncode, why in told.stderr) == (code, True), told.stderr


def test_a_variable_is_held_against_what_a_model_was_trained_on(page: Any) -> None:
    page.all(
        make="import pandas as pd\nfrom sklearn.linear_model import LinearRegression\n"
        "X = pd.DataFrame({'a': [float(n % 50) for n in range(1000)]})\ny = X.a * 2\n"
        "model = LinearRegression().fit(X, y)",
        moved="Z = X + 30",
    )
    assert page.say("%mlops register model lines --data X,y").ok
    assert page.say("%mlops check drift X --against lines/1").ok
    stopped = page.shell.run_cell("%mlops check drift Z --against lines/1\ntrained = True").error_in_exec
    assert isinstance(stopped, ContractBroken)
    assert "a: is distributed otherwise" in str(stopped)
    assert "trained" not in page.shell.user_ns
    assert not page.say("%mlops check drift Z --against lines/1 --warn").ok
    run = page.record()[0].started.run
    refused = page.shell.run_cell(f"%mlops check drift Z --against {run.removeprefix('blake3:')[:12]}").error_in_exec
    assert isinstance(refused, WrongUse)
    assert "a model, as NAME@production" in str(refused)
