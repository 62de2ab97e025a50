from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from jupyter_mlops import cli, compare
from jupyter_mlops.compare import Change, Difference, TableDifference, tables, values
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.project import Project


@pytest.fixture
def people() -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [1, 2, 3, 4], "name": ["Ana", "Bo", None, "Di"], "height": [1.7, np.nan, 1.8, 1.6]}
    )  # fmt: skip


def test_a_difference_has_a_truth_value(people: pd.DataFrame) -> None:
    assert not values(people, people.copy())
    assert not tables(people, people.copy())
    assert not Difference()
    assert not TableDifference()
    assert values(people, people.assign(height=0.0))
    assert Difference(unknown=("nobody knows",)).unknown
    assert not Difference(unknown=("nobody knows",))


def test_rows_are_matched_by_a_key_wherever_they_stand(people: pd.DataFrame) -> None:
    new = people.iloc[[3, 1, 0]].copy()
    new.loc[new["id"] == 4, "height"] = 1.65
    new.loc[len(new) + 9] = [5, "Eve", 1.5]
    found = tables(people, new.reset_index(drop=True), key=["id"])
    assert found.matched == "key id"
    assert found.rows == (1, 1, 1)
    assert found.changed == {"height": 1}
    assert found.value_samples == (("4", "height", "1.6", "1.65"),)
    assert [(what, label) for what, label, _ in found.row_samples] == [("added", "5"), ("removed", "3")]


def test_without_a_key_equal_lengths_match_by_position_and_others_by_content(people: pd.DataFrame) -> None:
    by_place = tables(people, people.assign(name=["Ana", "Bob", None, "Di"]))
    assert (by_place.matched, by_place.rows, by_place.changed) == ("position", (0, 0, 1), {"name": 1})
    by_content = tables(people, people.iloc[1:].reset_index(drop=True))
    assert (by_content.matched, by_content.rows) == ("content", (0, 1, 0))
    assert by_content.row_samples[0][2]["name"] == "Ana"
    doubled = pd.concat([people, people.iloc[[0, 0]]], ignore_index=True)
    assert tables(people, doubled).rows == (2, 0, 0), "rows that are alike are counted"


def test_a_labelled_index_matches_rows(people: pd.DataFrame) -> None:
    old = people.set_index("name", drop=False)
    found = tables(old.iloc[:2], old.iloc[[1, 3]])
    assert (found.matched, found.rows) == ("index", (1, 1, 0))


def test_columns_types_and_order_are_told(people: pd.DataFrame) -> None:
    new = people[["name", "id"]].astype({"id": "int32"}).assign(age=1)
    found = tables(people, new)
    assert found.added == ("age",)
    assert found.removed == ("height",)
    assert found.retyped == (("id", "int64", "int32"),)
    assert found.reordered
    assert found.rows == (0, 0, 0)


def test_statistics_are_told_of_columns_that_changed(people: pd.DataFrame) -> None:
    found = tables(people, people.assign(height=[1.7, 1.9, 1.8, 1.6]))
    told = {(column, what): (old, new) for column, what, old, new in found.statistics}
    assert told["height", "missing"] == (1, 0)
    assert told["height", "max"] == (1.8, 1.9)
    assert told["height", "mean"] == (pytest.approx(1.7), pytest.approx(1.75))
    assert {column for column, _ in told} == {"height"}


def test_missing_values_of_any_kind_are_alike_and_types_that_do_not_compare_differ() -> None:
    old = pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None], utc=True), "b": pd.Categorical(["x", None])})
    assert not tables(old, old.copy())
    naive = old.assign(a=old["a"].dt.tz_localize(None))
    assert tables(old, naive).changed == {"a": 1}
    assert tables(old, old.assign(b=["x", "y"])).changed == {"b": 1}
    lists = pd.DataFrame({"a": [[1], [2, 3], np.array([1])]})
    assert not tables(lists, lists.copy())
    assert tables(lists, pd.DataFrame({"a": [[1], [2], np.array([1])]})).changed == {"a": 1}


def test_names_that_are_no_texts_or_stand_twice_are_told_apart() -> None:
    old = pd.DataFrame([[1, 2, 3]], columns=[0, "a", "a"])
    new = pd.DataFrame([[1, 2, 4]], columns=[0, "a", "a"])
    assert tables(old, new).changed == {"a (2)": 1}


def test_a_key_that_is_none_is_refused(people: pd.DataFrame) -> None:
    with pytest.raises(WrongUse, match=r"old table has no column colour.*id, name, height"):
        tables(people, people, key=["colour"])
    with pytest.raises(WrongUse, match="no key of the new table"):
        tables(people, pd.concat([people, people]), key=["id"])
    with pytest.raises(WrongUse, match="a key matches rows of tables"):
        values({"a": 1}, {"a": 2}, key=["a"])


def test_frames_of_other_libraries_and_arrays_are_tables_too(people: pd.DataFrame) -> None:
    polars = pl.from_pandas(people)
    assert values(polars, polars.with_columns(pl.lit(1).alias("id"))).table is not None
    found = values(np.arange(6).reshape(2, 3), np.array([[0, 1, 2], [3, 4, 50]]))
    assert found.table is not None
    assert found.table.value_samples == (("1", "2", "5", "50"),)


def test_containers_differ_where_their_parts_do() -> None:
    old = {"rate": 0.1, "layers": [64, 32], "name": "a", "nan": float("nan")}
    found = values(old, {"rate": 0.2, "layers": [64, 32, 16], "seed": 1, "nan": float("nan")})
    assert found.changes == (
        Change("value", "['rate']", "0.1", "0.2"),
        Change("value", "['layers'][2]", None, "16"),
        Change("value", "['name']", "'a'", None),
        Change("value", "['seed']", None, "1"),
    )
    assert values(1, True).changes == (Change("type", "", "int", "bool"),)
    assert values(LogisticRegression(C=1.0), LogisticRegression(C=2.0)).changes == (
        Change("value", ".['C']", "1.0", "2.0"),
    )


def test_rows_that_stand_in_another_order_and_labels_are_differences(people: pd.DataFrame) -> None:
    named = people.set_index("name", drop=False).iloc[[0, 1, 3]]
    found = tables(named, named.iloc[::-1])
    assert (found.matched, found.rows, found.moved) == ("index", (0, 0, 0), True)
    assert found
    assert not tables(named, named.iloc[::-1], key=["id"]), "whoever names a key asks for rows wherever they stand"

    doubled = named.set_axis(["x", "x", "y"])
    assert not tables(doubled, doubled.copy())
    assert tables(doubled, named.set_axis(["x", "x", "z"])).changed == {"(index)": 1}
    twice = people.assign(name="x").set_index("name", drop=False)  # a label of the rows and a column have one name
    assert tables(twice, twice.assign(height=0.0)).changed == {"height": 4}
    assert tables(named, named.rename_axis("who")).added == ("(index) who",)
    assert tables(named, named.rename_axis("who")).removed == ("(index) name",)


def test_what_no_row_shows_is_a_difference_and_what_nobody_can_tell_is_none() -> None:
    old = pd.DataFrame({"a": pd.Categorical(["x", "y"], categories=["x", "y", "z"])})
    new = pd.DataFrame({"a": pd.Categorical(["x", "y"], categories=["z", "y", "x"])})
    assert not tables(old, new)
    assert [change.what for change in values(old, new).changes] == ["content"]
    assert not values({"a": 1, "b": 2}, {"b": 2, "a": 1})

    found = values({"rows": iter([1])}, {"rows": iter([1])})
    assert not found
    assert found.unknown[0].startswith("['rows'] has no digest")


def test_containers_that_hold_themselves_or_one_part_many_times_are_compared() -> None:
    one: list[Any] = [1]
    one.append(one)
    other: list[Any] = [2]
    other.append(other)
    assert Change("value", "[0]", "1", "2") in values(one, other).changes
    first: list[Any] = [1]
    second: list[Any] = [2]
    for _ in range(40):
        first, second = [first, first], [second, second]
    assert [change.what for change in values(first, second).changes] == ["value"]
    many = values(list(range(2000)), list(range(1, 2001)))
    assert len(many.changes) == 1000
    assert many.unknown == ("only the first 1,000 differences are told",)


@pytest.mark.parametrize(
    "make",
    [
        lambda frame: frame.set_index("a"),
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.assign(a=frame["a"].astype("float64")),
        lambda frame: frame.rename_axis("rows"),
        lambda frame: frame.rename_axis("columns", axis=1),
        lambda frame: frame.set_axis([5, 6, 7]),
        lambda frame: frame.set_axis(pd.RangeIndex(1, 4)),
        lambda frame: frame.astype({"c": "object"}),
        lambda frame: frame.assign(b=[None, "y", "z"]),
    ],
)
def test_values_of_one_type_differ_exactly_where_their_fingerprints_do(make: Callable[[Any], Any]) -> None:
    frame = pd.DataFrame(
        {"a": [1, 2, 3], "b": ["x", "y", "z"], "c": pd.Categorical(["p", "q", "p"]),
         "d": pd.date_range("2020", periods=3, tz="UTC")}
    )  # fmt: skip
    new = make(frame.copy())
    assert fingerprint(new).digest != fingerprint(frame).digest
    assert values(frame, new)
    assert not values(new, make(frame.copy()))


column = st.lists(st.one_of(st.none(), st.integers(-3, 3), st.text("ab", max_size=2)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(old=column, new=column)
def test_a_difference_is_false_exactly_where_two_columns_hold_the_same(old: list[object], new: list[object]) -> None:
    first, second = (pd.DataFrame({"a": pd.Series(side, dtype=object)}) for side in (old, new))
    found = tables(first, second)
    if len(old) == len(new):
        assert bool(found) == (old != new)
    else:
        from collections import Counter

        added, removed, _ = found.rows
        assert added == sum((Counter(map(repr, new)) - Counter(map(repr, old))).values())
        assert removed == sum((Counter(map(repr, old)) - Counter(map(repr, new))).values())


# -- on record -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(project_folder: Path) -> Project:
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell("rate = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import pandas as pd\nframe = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})"),
        nbformat.v4.new_code_cell("frame['a'] = frame['a'] * rate\nframe.to_csv('out.csv', index=False)"),
        nbformat.v4.new_code_cell(
            "from jupyter_mlops import log_artifact, log_metric\nlog_metric('total', int(frame['a'].sum()))\n"
            "_ = log_artifact('out.csv')"
        ),
    ]
    nbformat.write(book, project_folder / "book.ipynb")
    project = Project.open(project_folder)
    for rate in (2, 3):
        run_notebook(project_folder / "book.ipynb", parameters={"rate": rate}, project=project)
    return project


def test_two_runs_differ_in_parameters_metrics_and_the_cells_that_tell_why(project: Project) -> None:
    new, old = project.store.runs(limit=2)
    found = compare.runs(project.store, old, new)
    assert Change("parameter", "rate", 2, 3) in found.changes
    assert Change("metric", "total", 6, 9) in found.changes
    assert any("what it made" in cell.differs and "to_csv" in cell.source for cell in found.cells)
    assert not compare.runs(project.store, new, new)


def test_what_has_no_digest_on_record_is_said_not_to_be_compared(project_folder: Path) -> None:
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell("rows = (row for row in range(3))")]
    nbformat.write(book, project_folder / "book.ipynb")
    project = Project.open(project_folder)
    for _ in range(2):
        run_notebook(project_folder / "book.ipynb", project=project)
    new, old = project.store.runs(limit=2)
    cells = [project.store.cell_runs(run=one.id)[0] for one in (old, new)]
    for found in (compare.runs(project.store, old, new), compare.cell_runs(project.store, *cells)):
        assert not found
        assert [reason.partition(":")[0] for reason in found.unknown] == ["rows has no digest"]
    answer = cli.call(["diff", *(one.id for one in (old, new))], cli.Place())
    assert "Not compared: rows has no digest" in answer.text()


def test_two_versions_on_record_differ_by_column_and_by_the_rows_of_kept_bytes(project: Project) -> None:
    cells = [run for run in project.store.cell_runs(newest_first=False) if "to_csv" in run.source]
    old, new = (next(one for one in cell.outputs if one.name == "frame") for cell in cells)
    found = compare.artifacts(project.store, old, new)
    assert [change.name for change in found.changes if change.what == "column"] == ["a"]

    names = [f"frame@{cell.id.partition(':')[2][:12]}" for cell in cells]
    answer = cli.call(["diff", *names], cli.Place())
    assert not answer.ok
    assert "a" in answer.text()
    names = [f"out.csv@{cell.id.partition(':')[2][:12]}" for cell in cells]
    answer = cli.call(["diff", *names], cli.Place())
    assert "2 changed" in answer.text()
    assert answer.ok is False
    assert cli.call(["diff", names[0], names[0]], cli.Place()).ok


def test_two_files_of_tables_are_compared_row_by_row_in_a_shell(project_folder: Path, people: pd.DataFrame) -> None:
    people.to_csv("old.csv", index=False)
    people.assign(height=[1.7, 1.0, 1.8, 1.6]).iloc[::-1].to_parquet("new.parquet", index=False)
    answer = cli.call(["diff", "old.csv", "new.parquet", "--key", "id"], cli.Place())
    assert "0 added, 0 removed, 1 changed" in answer.text()
    (project_folder / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(WrongUse, match=r"bad\.parquet cannot be read"):
        cli.call(["diff", "old.csv", "bad.parquet"], cli.Place())
    with pytest.raises(WrongUse, match="only where both contents are at hand"):
        cli.call(["diff", "aaaa", "bbbb", "--key", "id"], cli.Place())
