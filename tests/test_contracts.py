"""Data held to a contract before training, and test sets held apart from training sets."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops.checks import DataInvalid, breaches, infer, leakage
from jupyter_mlops.project import Project
from jupyter_mlops.records import CheckResult
from jupyter_mlops.registry.contracts import ContractBroken, Data, check_data, check_leakage

# -- leakage ---------------------------------------------------------------------------------------------------------


def one_of_many_kinds(values: list[Any], kind: str) -> Any:
    return {"pandas": pd.DataFrame, "polars": lambda table: pl.DataFrame(table, strict=False), "pyarrow": pa.table}[
        kind
    ](values)


def by_hand(train: list[tuple[Any, ...]], test: list[tuple[Any, ...]]) -> tuple[list[int], int]:
    """The positions in the test set of rows that are in the training set; nothing clever."""

    def said(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(None if value is None or value != value else value for value in row)

    there = {said(row) for row in train}
    found = [place for place, row in enumerate(test) if said(row) in there]
    return found, len({said(test[place]) for place in found})


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5, 0.1, math.nan, math.inf, -math.inf, 2.0**53, 1e300])
COLUMNS = [
    NUMBERS, st.sampled_from([0, 1, 2, 2**53 + 1, -(2**63), 2**63 - 1]), st.sampled_from(["", "a", "b", "ä", None]),
    st.sampled_from([True, False]),
    st.sampled_from([dt.datetime(2013, 1, 1), dt.datetime(2013, 1, 1, 0, 0, 0, 1), None]),
]  # fmt: skip
ROWS = st.integers(1, 4).flatmap(
    lambda width: st.tuples(*[st.sampled_from(range(len(COLUMNS))) for _ in range(width)]).flatmap(
        lambda kinds: st.tuples(*[st.lists(st.tuples(*[COLUMNS[kind] for kind in kinds]), min_size=1, max_size=12)] * 2)
    )
)


@settings(max_examples=150, deadline=None)
@given(
    ROWS, st.sampled_from(["pandas", "polars", "pyarrow"]), st.sampled_from(["pandas", "polars", "pyarrow"]), st.data()
)
def test_the_rows_found_are_those_that_a_set_of_tuples_finds(
    sides: tuple[list[Any], list[Any]], one: str, other: str, data: Any
) -> None:
    train, test = sides
    test = [data.draw(st.sampled_from(train)) if data.draw(st.booleans()) else row for row in test]
    tables = [
        one_of_many_kinds({f"c{at}": list(column) for at, column in enumerate(zip(*rows, strict=True))}, kind)
        for rows, kind in ((train, one), (test, other))
    ]
    found = leakage(*tables)
    places, distinct = by_hand(train, test)
    assert [place for place, _ in found.pairs] == places
    assert (found.test_rows, found.distinct) == (len(places), distinct)
    assert found.train_rows == len(by_hand(test, train)[0])
    for here, there in found.pairs:
        assert by_hand([train[there]], [test[here]])[0] == [0], "each has its counterpart"
        assert not by_hand(train[:there], [test[here]])[0], "the first one"


NEW_YEAR = pd.Timestamp("2013-01-01", tz="UTC")


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (pd.Series([1, 2], dtype="int8"), pd.Series([2.0, 3.0]), [0]),
        (pd.Series(["a", "b"], dtype="category"), pd.Series(["b", "z"]), [0]),
        (pd.Series(["a", None], dtype="string"), pd.Series([np.nan, "z"], dtype=object), [0]),
        (pd.Series([2**53 + 1]), pd.Series([2.0**53]), []),
        (pd.Series([2**63 + 2**11], dtype="uint64"), pd.Series([2.0**63 + 2**11]), [0]),
        (pd.Series([-1]), pd.Series([2**64 - 1], dtype="uint64"), []),
        (pd.Series([0.1], dtype="float32"), pd.Series([0.1]), []),
        (pd.Series([0.5], dtype="float32"), pd.Series([0.5]), [0]),
        (pd.Series(["1"]), pd.Series([1]), []),
        (pd.Series([dt.date(2013, 1, 1)]), pd.Series([pd.Timestamp("2013-01-01")]), [0]),
        (pd.Series([NEW_YEAR]), pd.Series([pd.Timestamp("2013-01-01 01:00", tz="CET")]), [0]),
        (pd.Series([NEW_YEAR]), pd.Series([pd.Timestamp("2013-01-01")]), []),
        (pd.Series([decimal.Decimal("1.50")]), pd.Series([1.5]), [0]),
        (pd.Series([[1, 2], {"a": 1}]), pd.Series([(1, 2), {"a": 2}]), [0]),
        (pd.Series([1, "a"], dtype=object), pd.Series(["a", 2], dtype=object), [0]),
        (pd.Series([None, None]), pd.Series([np.nan]), [0]),
    ],
)  # fmt: skip
def test_rows_are_the_same_by_what_they_say(left: Any, right: Any, same: list[int]) -> None:
    found = leakage(pd.DataFrame({"a": left}), pd.DataFrame({"a": right}))
    assert [place for place, _ in found.pairs] == same


def test_index_and_order_of_rows_and_columns_do_not_count_and_columns_may_be_named() -> None:
    train = pd.DataFrame({"a": [1, 2, 3], "b": list("xyz"), "id": [7, 8, 9]}, index=[10, 20, 30])
    test = pd.DataFrame({"b": list("zqx"), "a": [3, 1, 2], "y": [0, 0, 0]}, index=list("pqr"))
    found = leakage(train, test)
    assert (found.on, found.ignored) == (("a", "b"), ("id", "y"))
    assert found.pairs == ((0, 2),)
    assert leakage(train, test, on=["a"]).test_rows == 3
    with pytest.raises(DataInvalid, match="test set has no column id"):
        leakage(train, test, on=["id"])
    with pytest.raises(DataInvalid, match="no column in common"):
        leakage(train[["id"]], test)
    with pytest.raises(DataInvalid, match="called 'a'"):
        leakage(pd.DataFrame([[1, 2]], columns=["a", "a"]), test)


def test_arrays_and_sparse_matrices_are_compared_by_place() -> None:
    import scipy.sparse

    train = np.arange(12.0).reshape(4, 3)
    found = leakage(train, np.array([[3, 4, 5], [0, 0, 0]]))
    assert (found.test_rows, found.pairs) == (1, ((0, 1),))
    assert leakage(scipy.sparse.csr_matrix(train), train).test_rows == 4


def test_the_rows_of_large_tables_are_found_as_pandas_own_join_finds_them() -> None:
    random = np.random.default_rng(0)
    size = 200_000
    train = pd.DataFrame({
        "a": random.normal(size=size).round(2), "b": random.integers(0, 50, size),
        "s": random.choice(list("pqrs"), size),
    })  # fmt: skip
    test = pd.concat(
        [train.sample(500, random_state=1), train.sample(20_000, random_state=2).assign(a=lambda t: t.a + 0.001)]
    )
    found = leakage(train, test)
    joined = test.reset_index(drop=True).reset_index().merge(train.drop_duplicates(), on=["a", "b", "s"])
    assert found.test_rows == len(joined)
    assert [place for place, _ in found.pairs] == sorted(joined["index"])[: len(found.pairs)]


# -- contracts -------------------------------------------------------------------------------------------------------

GOOD = {
    "age": [31, 40, 29, 55], "fare": [7.25, 71.3, 8.05, math.nan], "port": ["S", "C", "S", "C"],
    "name": ["Ann B", "Carl D", "Eve F", "Gus H"], "api_key": ["k1k1k1k1k1", "k2k2k2k2k2", "k1k1k1k1k1", "k2k2k2k2k2"],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("other", ["pandas", "polars", "pyarrow"])
def test_data_is_as_it_was_in_whatever_library(kind: str, other: str) -> None:
    contract = infer(one_of_many_kinds(GOOD, kind), ranges=True)
    assert breaches(contract, one_of_many_kinds(GOOD, other)) == []


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_each_way_to_break_a_contract_is_told_with_rows_and_examples(kind: str) -> None:
    contract = infer(pd.DataFrame(GOOD), ranges=True, secret=lambda name: name == "api_key")
    bad = one_of_many_kinds(
        {"age": [31.5, 40, 29, 55], "fare": [7.25, 999.0, -5.0, 8.05], "port": ["S", "Q", None, "Q"],
         "api_key": ["hunter2hunter2", "x", None, "y"], "extra": [1, 2, 3, 4]}, kind,
    )  # fmt: skip
    found = {(one.column, one.what.split(",")[0]): one for one in breaches(
        contract, bad, secret=lambda name: name == "api_key", mask=lambda text: text.replace("Q", "*"))}  # fmt: skip
    assert set(found) == {
        ("age", "is float64"), ("fare", "has values beyond 7.25 to 71.3"), ("port", "has missing values"),
        ("port", "has labels that were not there"), ("api_key", "has missing values"), ("name", "is missing"),
        ("extra", "is not in the contract"),
    }  # fmt: skip
    labels = found["port", "has labels that were not there"]
    assert (labels.rows, labels.first, labels.examples) == (2, (1, 3), ("*",))
    beyond = found["fare", "has values beyond 7.25 to 71.3"]
    assert (beyond.rows, beyond.first, beyond.examples) == (2, (1, 2), ("999.0", "-5.0"))


def test_what_changes_between_files_and_libraries_breaks_nothing() -> None:
    contract = infer(pd.DataFrame({"n": pd.Series([1, 2], dtype="int64"), "x": [0.5, 1.5], "c": ["a", "b"]}))
    again = pd.DataFrame({"n": pd.Series([1, 2], dtype="int32"), "x": [1, 2], "c": pd.Categorical(["a", "b"])})
    assert breaches(contract, again) == []
    assert [one.what for one in breaches(contract, again.iloc[:0])] == ["has no rows"]


def test_free_text_and_secrets_are_no_labels() -> None:
    contract = infer(pd.DataFrame({**GOOD}), secret=lambda name: name == "api_key")
    assert {rule.name: rule.labels for rule in contract.rules} == {
        "age": None, "fare": None, "port": ("C", "S"), "name": None, "api_key": None
    }  # fmt: skip


def test_an_answer_is_on_record_bound_to_the_content_and_without_secrets(tmp_path: Path) -> None:
    from jupyter_mlops.fingerprints import fingerprint

    project = Project.open(tmp_path)
    project.redactor().learn("correct horse battery")
    good = pd.DataFrame({"port": ["S", "C", "S", "C"], "password": ["a", "a", "b", "b"]})
    bad = pd.DataFrame(
        {"port": ["S", "correct horse battery", "C", "C"], "password": ["hunter2hunter2", "a", "b", "b"]}
    )
    result = check_data(project, Data(name="X", table=bad), good, source="good")
    assert not result.passed
    assert result.subject == fingerprint(bad).digest
    [breach] = result.evidence["breaches"]
    assert (breach["column"], breach["rows"], breach["first"]) == ("port", 1, [1])
    assert breach["examples"][0].startswith("<redacted:")
    [(_, _, kept)] = project.store.records(CheckResult)
    assert kept == result
    raw = b"".join(path.read_bytes() for path in (tmp_path / ".mlops").rglob("*") if path.is_file())
    assert b"battery" not in raw
    assert b"hunter2" not in raw


def test_a_share_of_leaking_rows_may_be_allowed(tmp_path: Path) -> None:
    project = Project.open(tmp_path)
    train, test = (
        Data(name="train", table=pd.DataFrame({"a": range(10)})),
        Data(name="test", table=pd.DataFrame({"a": [3, 30]})),
    )
    refused = check_leakage(project, train, test)
    assert (refused.passed, refused.evidence["share"], refused.evidence["pairs"]) == (False, 0.5, [[0, 3]])
    assert refused.summary == "1 of 2 rows of test (50.00%) are in train"
    assert check_leakage(project, train, test, allow=0.5).passed


# -- pandera ---------------------------------------------------------------------------------------------------------


def test_a_schema_of_panderas_is_asked_and_what_fails_is_told_by_column(tmp_path: Path) -> None:
    import pandera.pandas as pandera

    schema = pandera.DataFrameSchema(
        {"age": pandera.Column(int, pandera.Check.in_range(0, 120)), "gone": pandera.Column(float),
         "token": pandera.Column(str, pandera.Check.str_length(3))}
    )  # fmt: skip
    table = pd.DataFrame({"age": [31, 200, -1], "token": ["zq", "zp", "abc"]})
    project = Project.open(tmp_path)
    result = check_data(project, Data(name="X", table=table), schema, source="schema")
    told = {one["column"]: one for one in result.evidence["breaches"]}
    assert set(told) == {"age", "token", "gone"}
    assert told["age"]["rows"] == 2
    assert told["age"]["first"] == [1, 2]
    assert told["age"]["examples"] == ["200", "-1"]
    assert "examples" not in told["token"], "its name is a secret's"
    assert check_data(
        project, Data(name="X", table=table.assign(age=3, gone=1.0, token="abc")), schema, source="schema"
    ).passed


def test_a_model_of_panderas_is_a_schema_too(tmp_path: Path) -> None:
    import pandera.pandas as pandera
    from pandera.typing import Series

    class Passengers(pandera.DataFrameModel):
        age: Series[int] = pandera.Field(ge=0)

    Passengers.__annotations__ = {"age": Series[int]}
    project = Project.open(tmp_path)
    assert not check_data(project, Data(name="X", table=pd.DataFrame({"age": [-1]})), Passengers, source="P").passed
    assert check_data(project, Data(name="X", table=pd.DataFrame({"age": [1]})), Passengers, source="P").passed


# -- in a shell and in a notebook --------------------------------------------------------------------------------------


def shell(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "check", *words], cwd=folder, env=dict(os.environ),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_files_are_held_to_files_in_a_shell(project_folder: Path) -> None:
    pd.DataFrame(GOOD).to_csv("good.csv", index=False)
    pd.DataFrame(GOOD).assign(port=["S", "C", "Q", "C"]).to_parquet("new.parquet")
    pd.DataFrame(GOOD).head(2).to_csv("test.csv", index=False)
    assert shell(project_folder, "data", "good.csv", "--against", "good.csv").returncode == 0
    told = shell(project_folder, "data", "new.parquet", "--against", "good.csv")
    assert told.returncode == 1, told.stderr
    assert "port" in told.stdout
    assert "'Q'" in told.stdout
    leaking = shell(project_folder, "leakage", "good.csv", "test.csv", "--json")
    assert leaking.returncode == 1
    assert json.loads(leaking.stdout)["evidence"]["pairs"] == [[0, 0], [1, 1]]
    assert shell(project_folder, "leakage", "good.csv", "test.csv", "--allow", "1").returncode == 0
    assert len(list(Project(project_folder).store.records(CheckResult))) == 4
    assert shell(project_folder, "data", "nowhere.csv", "--against", "good.csv").returncode == 3


def test_a_schema_may_come_from_a_file(project_folder: Path) -> None:
    import pandera.pandas as pandera

    schema = pandera.DataFrameSchema({"age": pandera.Column("int64", pandera.Check.ge(30))})
    (project_folder / "schema.yaml").write_text(schema.to_yaml())
    pd.DataFrame({"age": [31, 29]}).to_csv("a.csv", index=False)
    told = shell(project_folder, "data", "a.csv", "--against", "schema.yaml")
    assert told.returncode == 1, told.stderr
    assert "'29'" in told.stdout


def test_in_a_notebook_nothing_is_trained_on_data_that_breaks_its_contract(page: Any) -> None:
    page.all(
        make="import pandas as pd\nX = pd.DataFrame({'age': [31, 40], 'port': ['S', 'C']})",
        spoil="Y = X.assign(age=[1.5, 2.5])\nT = X.iloc[[1]]",
    )
    assert page.say("%mlops check data X --against X").ok
    result = page.shell.run_cell("%mlops check data Y --against X\ntrained = True")
    assert isinstance(result.error_in_exec, ContractBroken)
    assert "age: is float64, not int64" in str(result.error_in_exec)
    assert "trained" not in page.shell.user_ns
    assert not page.say("%mlops check data Y --against X --warn").ok
    leak = page.shell.run_cell("%mlops check leakage X T").error_in_exec
    assert isinstance(leak, ContractBroken)
    run = page.record()[0].started.run
    asked = [one for _, _, one in Project(page.path.parent).store.records(CheckResult)]
    assert [one.passed for one in asked] == [False, False, False, True]
    assert {one.evidence["run"] for one in asked} == {run}
    recorded = page.say(f"%mlops check data Y --against {run.removeprefix('blake3:')[:12]} --warn")
    assert recorded.ok, "Y is what the run made"
    other = page.say("%mlops check data X --against Y --warn")
    assert [one["what"] for one in other.data.evidence["breaches"]] == [], "a whole number is a number"


def test_a_models_training_data_is_a_contract(page: Any) -> None:
    page.all(
        make="import pandas as pd\nfrom sklearn.linear_model import LinearRegression\n"
        "X = pd.DataFrame({'a': [1.0, 2.0, 3.0], 'b': [0.0, 1.0, 0.5]})\ny = [1.0, 2.0, 3.0]\n"
        "model = LinearRegression().fit(X, y)",
        register="%mlops register model lines --data X,y",
        drift="Z = X.assign(a=[1.0, 2.0, 30.0], b=[0.0, None, 1.0])",
    )
    assert page.say("%mlops check data X --against lines/1 --ranges").ok
    found = page.say("%mlops check data Z --against lines/1 --ranges --warn").data.evidence["breaches"]
    assert [(one["column"], one["what"]) for one in found] == [
        ("a", "has values beyond 1 to 3"), ("b", "has missing values")
    ]  # fmt: skip


def test_the_gates_of_a_model_are_asked_with_and_without_the_word(page: Any) -> None:
    page.all(
        make="from sklearn.dummy import DummyClassifier\nm = DummyClassifier().fit([[0], [1]], [0, 1])",
        register="%mlops register m data",
    )
    both = [page.say(f"%mlops check {words} -g not-pickle") for words in ("data/1", "model data/1")]
    assert [view.ok for view in both] == [True, True]
    assert "1 of 1 passed" in both[0].title
