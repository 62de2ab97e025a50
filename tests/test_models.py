"""Models as people register them from a notebook's cell: what they were trained on, followed through real capture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jupyter_mlops import capture
from jupyter_mlops.errors import MlopsError
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


# -- all kinds of models, all the way --------------------------------------------------------------------------------

WHOLE = {
    "a grid search": (
        "from sklearn.model_selection import GridSearchCV\n"
        "model = GridSearchCV(LogisticRegression(), {'C': [0.1, 1.0]}, cv=3).fit(df, y)",
        "df", ["age", "paid", "fast"],
    ),
    "an array": ("A = df[['age', 'paid']].to_numpy()\nmodel = LogisticRegression().fit(A, y)", "A", ["x0", "x1"]),
    "several outputs": (
        "Y = pd.DataFrame({'late': y * 2.5, 'cost': df.paid})\nmodel = LinearRegression().fit(df, Y)",
        "df", ["age", "paid", "fast"],
    ),
    "categories and dates": (
        "from sklearn.compose import make_column_transformer\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import OneHotEncoder\n"
        "wide = df.assign(kind=pd.Categorical(rng.choice(['a', 'b'], 80)),"
        " day=pd.date_range('2024-01-01', periods=80, tz='UTC'))\n"
        "prepare = make_column_transformer((OneHotEncoder(), ['kind']), ('passthrough', ['age', 'paid']))\n"
        "model = make_pipeline(prepare, LogisticRegression()).fit(wide, y)",
        "wide", ["age", "paid", "fast", "kind", "day"],
    ),
    "text": (
        "from sklearn.feature_extraction.text import CountVectorizer\n"
        "from sklearn.naive_bayes import MultinomialNB\n"
        "from sklearn.pipeline import make_pipeline\n"
        "texts = pd.Series(['late again', 'on time'] * 40, name='remark')\n"
        "model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, y)",
        "texts", ["remark"],
    ),
    "nothing to learn": (
        "from sklearn.preprocessing import FunctionTransformer\nmodel = FunctionTransformer(np.abs)", "df",
        ["age", "paid", "fast"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WHOLE))
def test_a_model_goes_from_its_cell_to_production_and_back_into_one(shell: Any, what: str) -> None:
    source, data, names = WHOLE[what]
    ask = "transform" if what == "nothing to learn" else "predict"
    run(shell, DATA, source, f"%mlops register model m --data {data}")
    assert [name for name, _ in columns(shell, "m")] == names
    view = run(shell, "%mlops check m")
    assert view.ok, view.text()
    run(shell, "%mlops promote m/1 production")
    run(shell, "import jupyter_mlops\nloaded = jupyter_mlops.load_model('m@production')")
    assert run(shell, f"np.array_equal(loaded.{ask}({data}), model.{ask}({data}))") in (True, np.True_)


def test_types_and_classes_are_told_as_they_are(shell: Any) -> None:
    run(shell, DATA, WHOLE["categories and dates"][0], "%mlops register model m --data wide,y")
    found = registry(shell).signature(registry(shell).get("m"))
    assert found is not None
    kinds = {one.name: (one.dtype, one.categories) for one in found.inputs}
    assert kinds["kind"] == ("category", 2)
    assert kinds["day"][0].startswith("datetime64[")
    assert kinds["day"][0].endswith("UTC]")
    assert (found.outputs[0].name, found.outputs[0].categories) == ("y", 2)
    run(shell, WHOLE["several outputs"][0], "%mlops register model both --data df,Y")
    found = registry(shell).signature(registry(shell).get("both"))
    assert found is not None
    assert [(one.name, one.dtype) for one in found.outputs] == [("late", "float64"), ("cost", "float64")]


# -- what can not be registered, and what to do about it -------------------------------------------------------------

OWN = """\
from sklearn.base import BaseEstimator, ClassifierMixin
class Rule(ClassifierMixin, BaseEstimator):
    def __init__(self, *, least=0.0):
        self.least = least
    def fit(self, X, y):
        self.classes_ = sorted(set(y))
        self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        return self
    def predict(self, X):
        return (X['paid'] > self.least).astype(int).to_numpy()
"""


def refused(shell: Any, source: str) -> str:
    result = shell.run_cell(source, store_history=True)
    assert isinstance(result.error_in_exec, MlopsError), result
    assert registry(shell).models() == []
    return str(result.error_in_exec)


@pytest.mark.parametrize(
    ("made", "next"),
    [
        ("LogisticRegression()", "model.fit(X, y)"),
        ("make_pipeline(StandardScaler(), LogisticRegression())", "model.fit(X, y)"),
        ("GridSearchCV(LogisticRegression(), {'C': [1.0]})", "model.fit(X, y)"),
    ],
)
def test_a_model_that_was_never_fitted_is_refused(shell: Any, made: str, next: str) -> None:
    run(
        shell, DATA,
        "from sklearn.model_selection import GridSearchCV\nfrom sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler",
        f"model = {made}",
    )  # fmt: skip
    said = refused(shell, "%mlops register model m --data df,y")
    assert "was never fitted" in said
    assert next in said
    run(shell, "model.fit(df, y)", "%mlops register model m --data df,y")
    assert registry(shell).get("m").version == 1


def test_an_estimator_of_ones_own_that_keeps_its_state_under_plain_names_counts_as_fitted(shell: Any) -> None:
    run(
        shell, DATA,
        "from sklearn.base import BaseEstimator\nclass Mean(BaseEstimator):\n"
        "    def fit(self, X, y):\n        self.mean = float(y.mean())\n        return self",
        "model = Mean()",
    )  # fmt: skip
    assert "was never fitted" in refused(shell, "%mlops register model m --data df,y")
    said = refused(shell, "model.fit(df, y)\n%mlops register model m --data df,y")
    assert "__main__.Mean" in said, said


def test_a_lambda_in_a_pipeline_is_refused_with_the_way_out(shell: Any, project_folder: Path) -> None:
    head = "from sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import FunctionTransformer\n"
    run(
        shell,
        DATA,
        f"{head}model = make_pipeline(FunctionTransformer(lambda x: x * 2), LogisticRegression()).fit(df, y)",
    )
    said = refused(shell, "%mlops register model m --data df,y")
    assert "<lambda>" in said
    assert "a .py file" in said
    assert "pickle" not in said, "a lambda can not be pickled either"
    (project_folder / "doubling.py").write_text("def double(x):\n    return x * 2\n")
    run(
        shell, f"import sys\nsys.path.insert(0, {str(project_folder)!r})\nfrom doubling import double",
        "model = make_pipeline(FunctionTransformer(double), LogisticRegression()).fit(df, y)",
    )  # fmt: skip
    said = refused(shell, "%mlops register model m --data df,y")
    assert "--trust doubling.double" in said
    run(shell, "%mlops register model m --data df,y --trust doubling.double", "%mlops promote m/1 production")
    result = shell.run_cell("from jupyter_mlops import load_model\nload_model('m@production')", store_history=True)
    assert "load_model(…, trust=['doubling.double'])" in str(result.error_in_exec)
    run(shell, "loaded = load_model('m@production', trust=['doubling.double'])")
    assert run(shell, "bool((loaded.predict(df) == model.predict(df)).all())") is True


def test_a_class_of_the_notebook_is_refused_and_of_a_module_is_kept(shell: Any, project_folder: Path) -> None:
    run(shell, DATA, OWN, "model = Rule(least=0.5).fit(df, y)")
    said = refused(shell, "%mlops register model m --data df,y")
    assert "__main__.Rule" in said
    assert "move it to a .py file" in said
    (project_folder / "rules_of_ours.py").write_text(f"import numpy as np\n{OWN}")
    run(
        shell, f"import sys\nsys.path.insert(0, {str(project_folder)!r})\nfrom rules_of_ours import Rule",
        "model = Rule(least=0.5).fit(df, y)",
    )  # fmt: skip
    said = refused(shell, "%mlops register model m")
    assert "--trust rules_of_ours.Rule" in said
    run(shell, "%mlops register model m --trust rules_of_ours.Rule")
    assert [name for name, _ in columns(shell, "m")] == ["age", "paid", "fast"]
    run(shell, "%mlops promote m/1 production", "from jupyter_mlops import load_model")
    run(shell, "loaded = load_model('m@production', trust=['rules_of_ours.Rule'])")
    assert run(shell, "bool((loaded.predict(df) == model.predict(df)).all()) and loaded.least == 0.5") is True


def test_what_is_no_table_is_named_when_it_is_given_as_data(shell: Any) -> None:
    run(shell, DATA, "model = LogisticRegression().fit(df, y)")
    assert "is no table" in refused(shell, "%mlops register model m --data model")
