"""Gates, metrics, signatures and profiles, against other implementations and against chance."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops import checks
from jupyter_mlops.records import Artifact, CellEnded, CellRun, CellStarted, Digest, Gap


def digest(text: str) -> Digest:
    return Digest("blake3:" + text.encode().hex().ljust(64, "0"))


def candidate(**fields) -> checks.Candidate:
    return checks.Candidate(**{"digest": digest("one"), "name": "delays", "version": 2, **fields})


# -- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("accuracy>=0.8", "accuracy>=0.8"),
        (" rmse <= 3.5 ", "rmse<=3.5"),
        ("val/loss<1e-3", "val/loss<0.001"),
        ("auc>@production+0.01", "auc>@production+0.01"),
        ("auc >= @production - 0.005", "auc>=@production-0.005"),
        ("rmse<@production-0.5", "rmse<@production-0.5"),
        ("signature", "signature"),
        ("not-pickle", "not-pickle"),
    ],
)
def test_a_gate_reads_back_as_it_is_written(text, name):
    gate = checks.parse_gate(text)
    assert gate.name == name
    assert checks.parse_gate(gate.name).name == name


@pytest.mark.parametrize(
    "text",
    ["", "accuracy", "accuracy>=", ">=0.8", "accuracy=>0.8", "accuracy>=0.8; rm", "a>=0.8\n", "auc>@../x", "x" * 5000,
     "accuracy>=nan", "__import__('os')", "signature:x"],
)  # fmt: skip
def test_a_gate_that_can_not_be_read_says_what_could(text):
    if text == "a>=0.8\n":
        assert checks.parse_gate(text).name == "a>=0.8"
        return
    with pytest.raises(checks.GateInvalid) as caught:
        checks.parse_gate(text)
    assert caught.value.exit_code == 2
    assert caught.value.next


def test_a_gate_that_asks_for_a_worse_model_is_refused():
    with pytest.raises(checks.GateInvalid, match="less of rmse is better"):
        checks.parse_gate("rmse>@production")
    assert checks.parse_gate("revenue<@production").name == "revenue<@production"


@pytest.mark.parametrize(
    ("value", "passed"), [(0.8, True), (0.7999, False), (math.nan, False), ("0.9", False), (True, False), (None, False)]
)
def test_a_threshold_is_passed_only_by_a_number_that_reaches_it(value, passed):
    gate = checks.parse_gate("accuracy>=0.8")
    assert gate(candidate(metrics={"accuracy": value}), checks.Context()).passed is passed


def test_a_metric_that_was_not_recorded_fails_and_names_those_that_were():
    verdict = checks.parse_gate("auc>=0.8")(candidate(metrics={"accuracy": 0.9}), checks.Context())
    assert not verdict.passed
    assert "accuracy" in verdict.found


def test_the_signature_gate_says_why_there_is_none():
    gap = Gap(subject="signature", reason="several recorded tables fit")
    verdict = checks.parse_gate("signature")(candidate(gaps=[gap]), checks.Context())
    assert not verdict.passed
    assert verdict.found == "several recorded tables fit"
    assert "--data" in verdict.next


@pytest.mark.parametrize(
    ("format", "passed"), [("skops", True), ("pickle", False), ("joblib", False), ("onnx", True), ("", False)]
)
def test_a_pickle_does_not_pass_not_pickle(format, passed):
    assert checks.parse_gate("not-pickle")(candidate(format=format), checks.Context()).passed is passed


# -- better than -----------------------------------------------------------------------------------------------------


def scored(quality: float, rows: int, seed: int) -> checks.Evaluation:
    """Scores of a model whose signal has that strength, all on the same rows."""
    truth = np.random.default_rng(0).integers(0, 2, rows)
    noise = np.random.default_rng(seed).normal(size=rows)
    return checks.evaluation(truth, 1 / (1 + np.exp(-(quality * (truth - 0.5) + noise))), rows="same")


def asked(gate: str, one: checks.Evaluation, other: checks.Evaluation) -> checks.Verdict:
    challenger = candidate(metrics=checks.metrics(one), evaluation=lambda: one)
    holder = candidate(digest=digest("two"), version=1, metrics=checks.metrics(other), evaluation=lambda: other)
    return checks.parse_gate(gate)(challenger, checks.Context(holder=lambda _: holder))


def test_a_truly_better_challenger_passes():
    verdict = asked("auc>@production+0.01", scored(2.0, 3000, 1), scored(1.0, 3000, 2))
    assert verdict.passed
    assert verdict.evidence["low"] > 0.01
    assert "interval" in verdict.found


def test_a_challenger_that_is_better_by_luck_is_refused():
    pairs = ((scored(1.0, 150, seed), scored(1.0, 150, seed + 1000)) for seed in range(1, 60))
    lucky = next(
        (one, other) for one, other in pairs
        if checks.metrics(one)["auc"] > checks.metrics(other)["auc"] + 0.02
        and checks.metrics(one)["auc"] < checks.metrics(other)["auc"] + 0.05
    )  # fmt: skip
    verdict = asked("auc>@production", *lucky)
    assert not verdict.passed
    assert verdict.evidence["difference"] > 0.02
    assert "luck" in verdict.found


def test_less_is_better_for_errors():
    truth = np.linspace(0, 10, 500)
    noise = np.random.default_rng(3).normal(size=500)
    good, bad = (checks.evaluation(truth, truth + noise * scale, rows="same") for scale in (1, 2))
    assert asked("rmse<@production-0.5", good, bad).passed
    assert not asked("rmse<@production", bad, good).passed


def test_other_rows_are_compared_by_their_numbers_and_it_says_so():
    one = scored(2.0, 500, 1)
    other = msgspec.structs.replace(scored(1.0, 500, 2), rows="others")
    verdict = asked("auc>@production", one, other)
    assert verdict.passed
    assert "no interval: the two were evaluated on different rows" in verdict.found
    assert verdict.evidence["interval"] is None


def test_the_first_holder_and_the_holder_itself_pass():
    gate = checks.parse_gate("auc>@production+0.01")
    assert gate(candidate(), checks.Context()).passed
    assert gate(candidate(), checks.Context(holder=lambda _: candidate())).passed


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(11)
    covered = 0
    for seed in range(100):
        truth = random.integers(0, 2, 200)
        one, other = (
            checks.evaluation(truth, np.where(random.random(200) < right, truth, 1 - truth), task="binary", rows="r")
            for right in (0.8, 0.75)
        )
        found = checks.bootstrap("accuracy", one, other, resamples=1000, seed=seed)
        covered += found.low <= 0.05 <= found.high
    assert 85 <= covered <= 100


def test_a_bootstrap_is_the_same_each_time_and_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    one, other = scored(2.0, 300, 1), scored(1.0, 300, 2)
    assert checks.bootstrap("auc", one, other) == checks.bootstrap("auc", one, other)
    assert (np.random.get_state()[1] == before).all()


# -- metrics ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 60), st.booleans())
def test_classification_metrics_agree_with_scikit_learn_under_any_weights(seed, rows, ties):
    random = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], random.integers(0, 2, rows)])
    score = random.random(rows + 2)
    score = score.round(1) if ties else score
    of = checks.evaluation(truth, score)
    weights = random.integers(0, 3, rows + 2).astype(float)
    weights[:2] = 1
    from jupyter_mlops.checks.evaluation import statistic

    answer = (score >= 0.5).astype(int)
    expected = {
        "accuracy": reference.accuracy_score(truth, answer, sample_weight=weights),
        "f1": reference.f1_score(truth, answer, sample_weight=weights, zero_division=0),
        "precision": reference.precision_score(truth, answer, sample_weight=weights, zero_division=0),
        "recall": reference.recall_score(truth, answer, sample_weight=weights, zero_division=0),
        "auc": reference.roc_auc_score(truth, score, sample_weight=weights),
        "average_precision": reference.average_precision_score(truth, score, sample_weight=weights),
        "log_loss": reference.log_loss(truth, score, sample_weight=weights),
        "brier": reference.brier_score_loss(truth, score, sample_weight=weights),
    }
    for name, value in expected.items():
        assert statistic(name, of)(weights) == pytest.approx(value, abs=1e-9), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_regression_metrics_agree_with_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth, answer = random.normal(size=50), random.normal(size=50)
    found = checks.metrics(checks.evaluation(truth, answer))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(truth, answer))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, answer))
    assert found["r2"] == pytest.approx(reference.r2_score(truth, answer))


def test_several_classes_of_text_are_evaluated():
    truth = ["a", "b", "c", "a", "b", "c"]
    score = np.eye(3)[[0, 1, 2, 0, 1, 0]] * 0.8 + 0.2 / 3
    found = checks.metrics(checks.evaluation(pd.Series(truth), score))
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["log_loss"] == pytest.approx(reference.log_loss(truth, score))
    assert found["f1"] == pytest.approx(reference.f1_score(truth, ["a", "b", "c", "a", "b", "a"], average="macro"))


@pytest.mark.parametrize(
    ("truth", "answers"),
    [([1, 0], [1]), ([], []), ([1, math.nan], [1, 1]), ([0, 1, 2], np.ones((3, 2))), ([1, 0], np.ones((2, 2, 2)))],
)
def test_an_evaluation_that_does_not_fit_is_refused(truth, answers):
    with pytest.raises(checks.EvaluationInvalid):
        checks.evaluation(truth, answers)


@pytest.mark.parametrize(("name", "sign"), [("val_auc", 1), ("test/rmse", -1), ("log-loss", -1), ("revenue", 0)])
def test_the_direction_of_standard_metrics_is_known(name, sign):
    assert checks.direction(name) == sign


# -- history ---------------------------------------------------------------------------------------------------------


def cell_run(name: str, seq: int, *, cell: str, reads=(), writes=(), status: str = "done", gaps=()) -> CellRun:
    def values(named):
        return [
            Artifact(name=n, kind="variable", digest=digest(content), made=digest(made) if made else None)
            for n, content, made in named
        ]

    ended = CellEnded(
        cell_run=digest(name), status=status, inputs=values(reads), outputs=values(writes), gaps=list(gaps)
    )
    return CellRun(
        id=digest(name), time=f"2026-01-01T00:00:{seq:02}Z", writer="w", seq=seq,
        started=CellStarted(run=digest("run"), cell=cell), ended=ended,
    )  # fmt: skip


def test_a_value_that_was_remade_by_its_cell_after_use_is_stale():
    made = cell_run("p", 1, cell="A", writes=[("x", "v1", None)])
    used = cell_run("q", 2, cell="B", reads=[("x", "v1", "p")], writes=[("model", "m", None)])
    again = cell_run("r", 3, cell="A", writes=[("x", "v2", None)])
    same = cell_run("r", 3, cell="A", writes=[("x", "v1", None)])
    other = cell_run("r", 3, cell="C", writes=[("x", "v2", None)])
    assert checks.stale_inputs([made, used], [made, used, again])
    assert not checks.stale_inputs([made, used], [made, used, same])
    assert not checks.stale_inputs([made, used], [made, used, other]), "a name that gets a new meaning is no rerun"


def test_the_history_gate_names_what_is_wrong():
    def asked(*runs, others=()):
        history = checks.History(ancestors=runs, others=[*runs, *others])
        return checks.parse_gate("history")(candidate(maker=digest("q"), history=lambda: history), checks.Context())

    good = cell_run("p", 1, cell="A")
    assert asked(good).passed
    assert "'error'" in asked(good, cell_run("q", 2, cell="B", status="error")).found
    gap = Gap(subject="frame", reason="changed since", blocks=True)
    assert "changed since" in asked(good, cell_run("q", 2, cell="B", gaps=[gap])).found
    unended = msgspec.structs.replace(cell_run("q", 2, cell="B"), ended=None, open_ended=True)
    assert "has not ended yet" in asked(good, unended).found
    assert not checks.parse_gate("history")(candidate(), checks.Context()).passed


# -- data ------------------------------------------------------------------------------------------------------------


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n": [1, 2, 3, 4], "f": [1.0, None, 3.0, 4.0], "s": ["a", "b", "a", None],
            "c": pd.Categorical(["x", "y", "x", "x"], categories=["x", "y", "z"]),
            "t": pd.date_range("2026-01-01", periods=4, tz="UTC"), "b": [True, False, True, True],
        }
    )  # fmt: skip


def test_a_signature_says_types_nulls_and_categories():
    found = checks.signature_of(frame(), pd.Series([0, 1, 0, 1], name="late"), classes=2)
    kinds = {column.name: (column.dtype, column.nullable, column.categories) for column in found.inputs}
    assert kinds["n"] == ("int64", False, None)
    assert kinds["f"] == ("float64", True, None)
    assert kinds["s"] == ("string", True, None)
    assert kinds["c"] == ("category", False, 3)
    assert kinds["t"][0].startswith("datetime64[")
    assert kinds["t"][0].endswith("UTC]")
    assert kinds["b"][0] == "bool"
    assert (found.outputs[0].name, found.outputs[0].categories) == ("late", 2)


def test_libraries_agree_on_a_signature():
    import polars as pl
    import pyarrow as pa

    columns = {"n": [1, 2], "f": [0.5, 1.5], "s": ["a", "b"], "b": [True, False]}
    tables = [pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns)]
    assert len({checks.signature_of(table).inputs for table in tables}) == 1


def test_a_changed_column_is_named():
    one = checks.signature_of(frame())
    other = checks.signature_of(frame().drop(columns="n").assign(f=1, extra=2))
    said = checks.compare(one, other)
    assert said == [
        "column 'n' is missing",
        "column 'f' is int64, not float64",
        "column 'extra' is not known to the model",
    ]
    assert checks.compare(one, one) == []


def test_a_profile_counts_every_row_once():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=900), np.zeros(100)])
    found = checks.profile(pd.DataFrame({"x": values}))["columns"]["x"]
    assert sum(found["counts"]) == 1000
    assert len(found["edges"]) == len(found["counts"]) + 1
    counted, _ = np.histogram(values, bins=found["edges"])
    assert counted.tolist() == found["counts"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5)), max_size=40))
def test_a_profile_of_any_numbers_adds_up(values):
    found = checks.profile({"x": np.array(values, dtype=float)})["columns"]["x"]
    assert found["count"] + found["nulls"] == len(values)
    if found.get("counts"):
        assert sum(found["counts"]) == found["count"] - found.get("infinite", 0)


def test_a_profile_holds_labels_but_no_free_text_and_no_secrets():
    people = [f"person{at}@example.org" for at in range(100)]
    table = pd.DataFrame({"mail": people, "carrier": ["AA", "B6"] * 50, "api_key": ["abc"] * 100})
    found = checks.profile(table, secret=lambda name: name == "api_key")["columns"]
    assert found["carrier"]["top"] == {"AA": 50, "B6": 50}
    assert found["mail"]["kind"] == "text"
    assert found["api_key"]["kind"] == "none"
    assert "person" not in str(found)
    assert "abc" not in str(found)


def test_a_profile_knows_missing_labels_and_times_with_a_zone_of_any_kind_of_column():
    table = pd.DataFrame({
        "ok": pd.array([True, None, True], dtype="boolean"), "port": pd.array(["S", None, "S"], dtype="string"),
        "at": pd.to_datetime(["2020-01-01", None, "2020-01-03"]).tz_localize("Europe/Berlin"),
    })  # fmt: skip
    found = checks.profile(table)["columns"]
    assert [found[name]["nulls"] for name in table] == [1, 1, 1]
    assert [found[name]["kind"] for name in table] == ["label", "label", "time"]
    assert (found["ok"]["top"], found["port"]["top"]) == ({"True": 2}, {"S": 2})
    assert found["at"]["max"] - found["at"]["min"] == 2 * 86_400e6


def test_a_profile_stops_in_time_and_says_what_it_did_not_reach():
    ticks = iter(range(100))
    found = checks.profile({"a": [1], "b": [1], "c": [1]}, seconds=1.5, clock=lambda: next(ticks))["columns"]
    assert found["a"]["kind"] == "number"
    assert "not reached" in found["c"]["why"]


def test_a_value_that_is_no_table_is_refused():
    with pytest.raises(checks.DataInvalid):
        checks.signature_of(object())
