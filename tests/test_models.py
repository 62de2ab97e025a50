"""Models as people register them from a notebook's cell: what they were trained on, followed through real capture."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_mlops import capture
from jupyter_mlops.records import ModelVersion
from jupyter_mlops.registry import FormatRefused, GateRefused, LocalRegistry
from jupyter_mlops.registry.context import name_of

DATA = """\
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression
rng = np.random.default_rng(0)
df = pd.DataFrame({"age": rng.integers(18, 90, 80), "paid": rng.normal(size=80), "fast": rng.random(80) > 0.5})
y = (df.paid + df.fast > 0.5).astype(int)
"""


def run(shell: Any, *sources: str) -> Any:
    """Run cells, and give what the last one gave."""
    result = None
    for source in sources:
        result = shell.run_cell(source, store_history=True)
        result.raise_error()
    return result.result if result is not None else None


def registry(shell: Any) -> LocalRegistry:
    return LocalRegistry(capture.session().store, user="ada")


def columns(shell: Any, ref: str) -> list[tuple[str, str]]:
    found = registry(shell).signature(registry(shell).get(ref))
    assert found is not None, why(shell, ref)
    return [(one.name, one.dtype) for one in found.inputs]


def why(shell: Any, ref: str) -> str:
    record: ModelVersion = registry(shell).get(ref).record
    return next((gap.reason for gap in record.gaps if gap.subject == "signature"), "")


# -- what a model was trained on -------------------------------------------------------------------------------------


def test_a_frame_that_was_deleted_gives_the_signature_from_what_is_on_record(shell: Any) -> None:
    run(shell, DATA, "model = LogisticRegression().fit(df, y)", "del df, y", "%mlops register model m")
    found = registry(shell).signature(registry(shell).get("m"))
    assert found is not None
    assert [(one.name, one.dtype) for one in found.inputs] == [("age", "int64"), ("paid", "float64"), ("fast", "bool")]
    assert all(one.nullable for one in found.inputs), "the record does not say whether any were missing"
    assert (found.source, found.named, found.task) == ("inferred from df", True, "classification")
    (trained,) = registry(shell).get("m").record.training
    (maker,) = [one for one in capture.session().store.cell_runs() if one.source.startswith("model =")]
    assert trained.digest in {one.digest for one in maker.inputs}
    assert registry(shell).get("m").cell_run == maker.id
    assert registry(shell).baseline(registry(shell).get("m")) is None, "nobody can profile what is gone"
    assert "not known" not in why(shell, "m")
    assert all(one.passed for one in registry(shell).check("m", ["signature", "history"]))


def test_a_frame_that_was_replaced_since_is_not_taken_for_the_one_that_was_read(shell: Any) -> None:
    run(shell, DATA, "model = LogisticRegression().fit(df, y)", "df = df.astype({'age': 'float32'})")
    run(shell, "%mlops register model m")
    assert columns(shell, "m")[0] == ("age", "int64")


def test_two_recorded_frames_that_fit_are_not_chosen_from_and_the_gate_says_why(shell: Any) -> None:
    run(shell, DATA, "first, second = df.head(50), df.tail(30)\ndel df")
    run(shell, "model = LogisticRegression().fit(first, y.head(50))\nright = model.score(second, y.tail(30))")
    run(shell, "del first, second", "%mlops register model m")
    assert registry(shell).get("m").record.signature is None
    assert "several recorded tables have its columns age, paid, fast (first, second)" in why(shell, "m")
    with pytest.raises(GateRefused, match=r"several recorded tables .*--data X,y"):
        registry(shell).promote("m", "production", gates=["signature"])
    result = shell.run_cell("%mlops promote m/1 production")
    assert isinstance(result.error_in_exec, GateRefused)
    run(shell, "first = None", "again = pd.DataFrame({'age': [1], 'paid': [0.5], 'fast': [True]})")
    run(shell, "%mlops register model m --data again")
    assert [name for name, _ in columns(shell, "m/2")] == ["age", "paid", "fast"]
    assert all(one.passed for one in registry(shell).check("m/2", ["signature"]))


def test_no_recorded_frame_that_fits_is_said(shell: Any) -> None:
    run(shell, DATA, "model = LogisticRegression().fit(df[['paid', 'age']], y)", "%mlops register model m")
    assert why(shell, "m").startswith("no data was given, and no recorded table has its columns paid, age")


def test_an_array_gives_a_signature_by_place_alive_or_from_the_record(shell: Any) -> None:
    run(shell, DATA, "X = df[['age', 'paid']].to_numpy()", "model = LinearRegression().fit(X, y)")
    run(shell, "%mlops register model alive", "del X", "%mlops register model gone")
    for name in ("alive", "gone"):
        assert columns(shell, name) == [("x0", "float64"), ("x1", "float64")]
        found = registry(shell).signature(registry(shell).get(name))
        assert found is not None
        assert (found.named, found.source) == (False, "inferred from X")


def test_a_column_of_truth_is_no_table_that_a_model_of_one_column_was_fitted_on(shell: Any) -> None:
    run(shell, DATA, "truth = y.to_numpy()", "model = LinearRegression().fit(df[['age']].to_numpy(), truth)")
    run(shell, "%mlops register model m")
    assert why(shell, "m").startswith("no data was given, and no recorded table has its 1 columns by place")


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_tables_of_other_libraries_tell_their_columns_from_the_record_too(shell: Any, library: str) -> None:
    pytest.importorskip(library)
    made = {"polars": "pl.from_pandas(df)", "pyarrow": "pa.Table.from_pandas(df, preserve_index=False)"}[library]
    run(shell, DATA, f"import polars as pl\nimport pyarrow as pa\ntable = {made}\ndel df")
    run(shell, "model = LogisticRegression().fit(table.to_pandas(), y)", "%mlops register model alive")
    alive = columns(shell, "alive")
    run(shell, "del table", "%mlops register model gone")
    assert columns(shell, "gone") == alive == [("age", "int64"), ("paid", "float64"), ("fast", "bool")]


def test_a_model_without_a_digest_still_leads_to_the_cell_that_made_it(shell: Any) -> None:
    run(shell, DATA, "class Mean:\n    feature_names_in_ = ['age', 'paid', 'fast']\n    __slots__ = ('lock', 'held')")
    run(shell, "import threading\nmodel = Mean()\nmodel.lock, model.held = threading.Lock(), df", "other = model")
    with pytest.raises(FormatRefused):
        run(shell, "%mlops register model m")
    context = capture.session().context()
    assert context.artifacts["model"].digest is None
    assert name_of(shell.user_ns["model"], context) == "model"
