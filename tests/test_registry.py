"""Models registered, gated, promoted and loaded in real stores, by real processes, with real scikit-learn models."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import warnings
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)  # fmt: skip
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from jupyter_mlops import checks
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.project import SettingsInvalid
from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellStarted,
    CheckResult,
    ModelVersion,
    Policy,
    RunStarted,
    Ticket,
    Transition,
)  # fmt: skip
from jupyter_mlops.registry import (
    REVIEWED,
    DemandUnmet,
    FormatRefused,
    GateRefused,
    LoadRefused,
    LocalRegistry,
    ModelDamaged,
    ModelMissing,
    NameInvalid,
    NothingBefore,
    RunContext,
)  # fmt: skip
from jupyter_mlops.store import ObjectDamaged, RefConflict, Store


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / ".mlops") as store:
        yield store


@pytest.fixture
def registry(store):
    return LocalRegistry(store, user="ada")


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(400, 3)), columns=["a", "b", "c"])
    return X, (X.a + random.normal(size=400) * 0.5 > 0).astype(int)


@pytest.fixture(scope="module")
def model(data):
    return LogisticRegression().fit(*data)


PASSING = ("not-pickle",)


# -- formats ---------------------------------------------------------------------------------------------------------


def families():
    yield make_pipeline(StandardScaler(), LogisticRegression())
    yield RandomForestClassifier(5, random_state=0)
    yield GradientBoostingClassifier(n_estimators=5, random_state=0)
    yield HistGradientBoostingClassifier(max_iter=5)
    yield SVC()
    yield StackingClassifier([("tree", DecisionTreeClassifier(max_depth=3))], LogisticRegression())
    yield GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring="roc_auc", cv=3)
    yield IsolationForest(n_estimators=5, random_state=0)
    yield make_pipeline(FunctionTransformer(np.abs), DecisionTreeClassifier(max_depth=3, random_state=0))


@pytest.mark.parametrize("estimator", list(families()), ids=lambda one: type(one).__name__)
def test_a_model_that_is_loaded_predicts_what_it_predicted(registry, data, estimator):
    X, y = data
    fitted = clone(estimator).fit(X, y)
    number, line = registry.register(fitted, "m", data=(X, y))
    assert registry.get("m").digest == line
    loaded = registry.load(f"models:/m/{number}")
    assert (loaded.predict(X) == fitted.predict(X)).all()


def test_a_pipeline_with_text_and_categories_is_kept(registry):
    X = pd.DataFrame({"n": [1.0, 2, 3, 4] * 10, "s": ["a", "b", "c", "a"] * 10})
    y = np.arange(40) % 4 * 1.5
    chosen = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")), remainder="passthrough"
    )
    fitted = make_pipeline(chosen, HistGradientBoostingRegressor(max_iter=3)).fit(X, y)
    registry.register(fitted, "m", data=(X, y))
    assert (registry.load("m").predict(X) == fitted.predict(X)).all()


# What scikit-learn has and skops can not write at all: told, not turned into something else.
CAN_NOT = {"Birch"}


def test_every_estimator_of_scikit_learn_is_covered_by_the_reviewed_list():
    """A type that a new scikit-learn brings has to be reviewed before models that hold it are kept."""
    from sklearn.utils import all_estimators
    from sklearn.utils._test_common.instance_generator import _construct_instances

    classification = make_classification(60, 6, random_state=0)
    X, y = np.abs(classification[0]), classification[1]
    Xr, yr = make_regression(60, 6, random_state=0)
    shapes = [(X, y), (Xr, yr), (X, np.c_[y, y]), (Xr, np.c_[yr, yr]), (X[:, :1], y), (X @ X.T, y)]
    missing, done = {}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind in all_estimators():
            for estimator in _instances(_construct_instances, kind):
                if not _fit(estimator, shapes) or name in CAN_NOT:
                    continue
                data = skops.io.dumps(estimator)
                untrusted = set(skops.io.get_untrusted_types(data=data)) - REVIEWED
                if untrusted:
                    missing[name] = untrusted
                else:
                    skops.io.loads(data, trusted=sorted(REVIEWED))
                    done += 1
    assert missing == {}
    assert done > 150


def _instances(construct, kind):
    try:
        return list(construct(kind))[:1]
    except Exception:
        return []  # it needs arguments that only its own tests know


def _fit(estimator, shapes) -> bool:
    for X, y in shapes:
        try:
            estimator.fit(X, y)
        except Exception:
            continue
        return True
    return False


def test_the_reviewed_list_holds_nothing_that_could_act():
    for name in REVIEWED:
        assert name.partition(".")[0] in {"sklearn", "scipy", "numpy"}
        words = set(name.lower().replace("_", ".").split("."))
        assert not words & {
            "eval",
            "exec",
            "load",
            "open",
            "system",
            "fromfile",
            "memmap",
            "import",
            "subprocess",
            "os",
        }


class Own(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X


def test_types_of_ones_own_are_named_and_never_become_a_pickle(registry, data):
    fitted = make_pipeline(Own(), LogisticRegression()).fit(*data)
    with pytest.raises(FormatRefused) as caught:
        registry.register(fitted, "m")
    assert "test_registry.Own" in str(caught.value)
    assert "--format pickle" in str(caught.value)
    assert registry.models() == []
    own = next(name for name in _untrusted(fitted) if name.endswith(".Own"))
    registry.register(fitted, "m", trust=[own])
    with pytest.raises(LoadRefused, match="Own"):
        registry.load("m")
    assert (registry.load("m", trust=[own]).predict(data[0]) == fitted.predict(data[0])).all()


def _untrusted(model):
    return skops.io.get_untrusted_types(data=skops.io.dumps(model))


def test_a_skops_file_from_elsewhere_gets_only_skops_own_trust(registry, data, tmp_path):
    fitted = DecisionTreeClassifier(max_depth=2).fit(*data)
    path = tmp_path / "foreign.skops"
    skops.io.dump(fitted, path)
    registry.register(path, "foreign")
    assert registry.get("foreign").format == "skops-file"
    with pytest.raises(LoadRefused, match="sklearn.tree._tree.Tree"):  # noqa: RUF043
        registry.load("foreign")
    registry.register(fitted, "ours")
    assert (registry.load("ours").predict(data[0]) == fitted.predict(data[0])).all()
    loaded = registry.load("foreign", trust=["sklearn.tree._tree.Tree"])
    assert (loaded.predict(data[0]) == fitted.predict(data[0])).all()


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "suffix", [".pkl", ".pickle", ".joblib", ".pt", ".onnx", ".json", ".txt", ".ubj", ".skops", ".bin"]
)
def test_a_pickle_under_any_name_is_refused_and_never_unpickled(registry, tmp_path, suffix):
    path, mark = tmp_path / f"model{suffix}", tmp_path / "exploded"
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=4))
    with pytest.raises(Exception) as caught:
        registry.register(path, "m")
    assert isinstance(caught.value, (FormatRefused, ValueError))
    assert not mark.exists()
    registry.register(path, "m", format="pickle")
    info = registry.get("m")
    assert info.format in {"pickle", "joblib"}
    with pytest.raises(LoadRefused, match="runs whatever code"):
        registry.load("m")
    with pytest.raises(LoadRefused):
        registry.load("m", trust=["os.mkdir"])
    with pytest.raises(GateRefused):
        registry.promote("m", "production", gates=["not-pickle"])
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_pickle_without_a_header_in_a_skops_file_is_no_archive(registry, tmp_path, protocol):
    path, mark = tmp_path / "model.json", tmp_path / "exploded"
    path.write_bytes(pickle.dumps(Bomb(mark), protocol=protocol))
    with pytest.raises(FormatRefused):
        registry.register(path, "m")
    archive = tmp_path / "model.skops"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.pkl", pickle.dumps(Bomb(mark)))
    registry.register(archive, "m")
    with pytest.raises(ModelDamaged):
        registry.load("m")
    assert not mark.exists()


def test_a_pickle_on_demand_is_marked_and_loaded_on_demand(registry, data, model, tmp_path):
    registry.register(model, "m", format="pickle")
    assert registry.get("m").format == "pickle"
    assert (registry.load("m", trust=True).predict(data[0]) == model.predict(data[0])).all()
    joblib.dump(model, tmp_path / "m.joblib")
    registry.register(tmp_path / "m.joblib", "j", format="pickle")
    assert registry.get("j").format == "joblib"
    assert (registry.load("j", trust=True).predict(data[0]) == model.predict(data[0])).all()


def test_a_skops_archive_that_would_fill_the_memory_is_refused(registry, tmp_path):
    path = tmp_path / "bomb.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("schema.json", b" " * (1 << 27))
    registry.register(path, "m")
    with pytest.raises(ModelDamaged, match="unpack"):
        registry.load("m")


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("booster.json", b'{"learner": {}}', "json"),
        ("booster.ubj", b"{L\0\0", "ubj"),
        ("booster.txt", b"tree\nversion=v4\n", "text"),
        ("model.onnx", b"\x08\x0a\x12\x04test", "onnx"),
        ("weights.safetensors", (2).to_bytes(8, "little") + b"{}", "safetensors"),
    ],
)
def test_files_of_other_libraries_are_kept_as_they_are(registry, tmp_path, name, content, format):
    (tmp_path / name).write_bytes(content)
    registry.register(tmp_path / name, "m")
    assert registry.get("m").format == format
    assert registry.content("m") == content
    assert registry.register(content, "bytes", format=format)[0] == 1


def test_a_fifo_a_folder_and_nothing_are_no_models(registry, tmp_path):
    os.mkfifo(tmp_path / "fifo.onnx")
    for path in (tmp_path / "fifo.onnx", tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(ValueError):
            registry.register(path, "m")
    assert registry.models() == []


def test_bytes_that_were_changed_are_not_loaded_or_promoted(registry, store, model):
    registry.register(model, "m")
    digest = registry.get("m").record.model.digest
    hexes = digest.partition(":")[2]
    path = store.path / "objects" / hexes[:2] / hexes[2:]
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)
    with pytest.raises(ObjectDamaged):
        registry.load("m")
    with pytest.raises(ObjectDamaged):
        registry.promote("m", "production", gates=PASSING)


# -- versions --------------------------------------------------------------------------------------------------------


def test_the_same_content_is_one_version_unless_something_new_is_said(registry, data, model):
    X, y = data
    first = registry.register(model, "m")
    if registry.get("m").content is None:
        pytest.fail("a fitted LogisticRegression has no digest")
    again = registry.register(model, "m")
    assert (tuple(again), again.existed) == (tuple(first), True)
    assert registry.register(clone(model).fit(X, y), "m").existed, "fitted again on the same data: the same content"
    assert registry.register(model, "m", data=(X, y))[0] == 2, "now its signature is known"
    assert registry.register(model, "m", force=True)[0] == 3
    assert registry.register(LogisticRegression(C=0.1).fit(X, y), "m")[0] == 4
    assert registry.get("m/1").record.model.digest != registry.get("m/3").record.model.digest
    assert registry.get("m/1").content == registry.get("m/3").content


opened: list[str] = []
watching: list[Path] = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if watching and event == "open" else None)


def test_the_fortieth_version_opens_as_many_files_as_the_second_and_the_first_is_still_found(registry, store, data):
    def moves_opened(C: float) -> int:
        model = LogisticRegression(C=C).fit(*data)
        opened.clear()
        watching.append(store.path)
        assert not registry.register(model, "m").existed
        watching.clear()
        return sum(path.endswith(".jsonl") and "/refs/" in path for path in opened)

    counts = [moves_opened(1 + at) for at in range(40)]
    assert counts[1] > 0
    assert set(counts[1:]) == {counts[1]}
    for number in (1, 17, 40):
        again = registry.register(LogisticRegression(C=number).fit(*data), "m")
        assert (again[0], again.existed) == (number, True)
        assert registry.register(LogisticRegression(C=number).fit(*data), "another").existed is False
    assert len(registry.versions("m")) == 40


def test_the_same_content_is_found_by_a_process_that_comes_later(registry, store, model):
    first = registry.register(model, "m")
    store.close()
    with Store.open(store.path) as later:
        again = LocalRegistry(later, user="bob").register(model, "m")
    assert (tuple(again), again.existed) == (tuple(first), True)


def test_names_go_on_moving_after_a_move_that_is_damaged(registry, store, data):
    for C in (1, 2):
        registry.register(LogisticRegression(C=C).fit(*data), "m")
        registry.promote("m", "production", gates=PASSING)
    for ref in ("m", "m@production"):
        path = store.path / "refs" / "models" / ref / "00000002.jsonl"
        path.write_bytes(path.read_bytes()[:-30])
    assert registry.register(LogisticRegression(C=3).fit(*data), "m")[0] == 3
    registry.promote("m/3", "production", gates=PASSING)
    assert registry.get("m@production").version == 3
    registry.rollback("m", "production")
    assert registry.get("m@production").version == 1


def test_a_version_whose_line_is_lost_is_registered_anew(registry, store, model):
    number, _ = registry.register(model, "m")
    store.close()
    for journal in (store.path / "journal").iterdir():
        journal.unlink()
    with Store.open(store.path) as later:
        again = LocalRegistry(later, user="bob").register(model, "m")
    assert (again[0], again.existed) == (number + 1, False)


def test_a_version_says_what_people_ask(registry, data, model):
    X, y = data
    registry.register(
        model, "m", data=(X, y), evaluation=(y, model.predict_proba(X)[:, 1]), parameters={"C": 1.0},
        description="late or not", tags={"team": "ops"},
    )  # fmt: skip
    info = registry.get("models:/m/1")
    assert (info.name, info.version, info.by, info.format, info.ref) == ("m", 1, "ada", "skops", "models:/m/1")
    assert info.metrics["accuracy"] == pytest.approx((model.predict(X) == y).mean())
    assert info.size == len(registry.content("m"))
    assert any(line.startswith("scikit-learn==") for line in info.requirements)
    signature = registry.signature(info)
    assert [column.name for column in signature.inputs] == ["a", "b", "c"]
    assert (signature.task, signature.outputs[0].categories) == ("classification", 2)
    baseline = registry.baseline(info)
    assert sum(baseline["inputs"]["columns"]["a"]["counts"]) == len(X)
    assert {one.type for one in info.record.training} == {"pandas.DataFrame", "pandas.Series"}
    assert [one.version for one in registry.versions("m")] == [1]
    assert registry.models() == ["m"]


def test_a_metric_that_the_rows_contradict_is_recomputed_and_said(registry, data, model):
    X, y = data
    registry.register(
        model, "m", evaluation=(y, model.predict(X)), metrics={"accuracy": 0.999, "cost": np.float64(3.5)}
    )
    record = registry.get("m").record
    assert record.metrics["accuracy"] == pytest.approx((model.predict(X) == y).mean())
    assert record.metrics["cost"] == 3.5
    assert any("0.999 was logged" in gap.reason for gap in record.gaps)


def test_secrets_in_texts_are_masked(store, model):
    from jupyter_mlops.redact import Redactor

    registry = LocalRegistry(store, user="ada", redactor=Redactor(["hunter2hunter2"]))
    registry.register(model, "m", description="made with hunter2hunter2", tags={"note": "hunter2hunter2"})
    registry.promote("m", "production", gates=PASSING, reason="hunter2hunter2 says so")
    raw = b"".join(path.read_bytes() for path in store.path.rglob("*.jsonl"))
    assert b"hunter2hunter2" not in raw


HOSTILE = [
    "", "../x", "/etc/x", "..\\x", "%2e%2e%2f", "CON", "con.txt", "a\0b", "a\nb", "a\n", "x" * 4096, "a\u202eb", "-x", ".",  # noqa: E501
    "..", "x.", "x ", " x", "a/b", "a@b", "ä", "m.jsonl", "a:b", "\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=[f"name{at}" for at in range(len(HOSTILE))])
def test_a_hostile_name_is_refused_and_nothing_is_written(registry, store, model, name):
    with pytest.raises(NameInvalid) as caught:
        registry.register(model, name)
    assert caught.value.exit_code == 2
    assert list(store.objects()) == []
    registry.register(model, "m")
    for call in (
        lambda: registry.promote("m", name), lambda: registry.history("m", name), lambda: registry.rollback("m", name)
    ):  # fmt: skip
        with pytest.raises(NameInvalid):
            call()
    with pytest.raises((NameInvalid, ModelMissing)):
        registry.get(f"m@{name}" if name != "" else "m@")


@pytest.mark.parametrize("alias", ["latest", "v3", "3", "LATEST"])
def test_an_alias_does_not_read_like_a_version(registry, model, alias):
    registry.register(model, "m")
    with pytest.raises(NameInvalid):
        registry.promote("m", alias)


def test_what_is_not_there_is_named_with_what_is(registry, model):
    with pytest.raises(ModelMissing, match="no model 'm'"):
        registry.get("m")
    registry.register(model, "delays")
    with pytest.raises(ModelMissing, match="delays"):
        registry.get("m")
    for ref in ("delays/2", "delays@production", "models:/delays/0"):
        with pytest.raises(ModelMissing):
            registry.get(ref)


def child(tmp_path, code, *, wait=True):
    path = tmp_path / f"child{len(list(tmp_path.glob('child*')))}.py"
    path.write_text(textwrap.dedent(code))
    started = subprocess.Popen(
        [sys.executable, str(path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if not wait:
        return started
    out, err = started.communicate(timeout=120)
    return started.returncode, out, err


KILLED = """
    import os, signal
    from pathlib import Path
    from sklearn.linear_model import LogisticRegression
    from jupyter_mlops.registry import LocalRegistry
    from jupyter_mlops.store import Store
    import numpy as np

    store = Store.open(Path({path!r}))
    point = {point!r}
    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    if point == "before the line":
        store.append = die
    elif point == "before the number":
        store.move = die
    fitted = LogisticRegression().fit(np.arange(20).reshape(10, 2), [0, 1] * 5)
    LocalRegistry(store, user="bob").register(fitted, "m")
    die()
"""


@pytest.mark.parametrize(("point", "versions"), [("before the line", 0), ("before the number", 0), ("after", 1)])
def test_killed_at_any_point_there_is_no_version_without_bytes(store, registry, tmp_path, point, versions):
    code, _, err = child(tmp_path, KILLED.format(path=str(store.path), point=point))
    assert code == -signal.SIGKILL, err
    assert len(list(store.objects())) >= 1, "the bytes were there before"
    assert registry.models() == (["m"] if versions else [])
    for info in registry.versions("m") if versions else ():
        assert len(registry.content(info.ref)) == info.size
    number, _ = registry.register(LogisticRegression().fit([[0], [1]], [0, 1]), "m")
    assert number == versions + 1
    assert not [problem for problem in store.fsck() if problem.severity == "damage"]


REGISTERS = """
    import sys
    from pathlib import Path
    from sklearn.linear_model import LogisticRegression
    from jupyter_mlops.registry import LocalRegistry
    from jupyter_mlops.store import Store
    import numpy as np

    registry = LocalRegistry(Store.open(Path({path!r})), user="p{at}")
    X, y = np.arange(20).reshape(10, 2), [0, 1] * 5
    fitted = [LogisticRegression(C=c + {at} / 10).fit(X, y) for c in (1, 2, 3, 4, 5)]
    print("ready", flush=True)
    sys.stdin.readline()
    print([registry.register(one, "m")[0] for one in fitted])
"""


def race(tmp_path, code, **words):
    children = [child(tmp_path, code.format(at=at, **words), wait=False) for at in range(2)]
    for one in children:
        assert one.stdout.readline() == "ready\n", one.stderr.read()
    for one in children:
        one.stdin.write("go\n")
        one.stdin.flush()
    return [one.communicate(timeout=120) for one in children]


def test_two_that_register_at_once_both_get_numbers_of_their_own(store, registry, tmp_path):
    taken = [number for out, _ in race(tmp_path, REGISTERS, path=str(store.path)) for number in eval(out)]
    assert sorted(taken) == list(range(1, 11))
    assert [info.version for info in registry.versions("m")] == list(range(1, 11))


PROMOTES = """
    import sys
    from pathlib import Path
    from jupyter_mlops.registry import LocalRegistry
    from jupyter_mlops.store import RefConflict, Store

    registry = LocalRegistry(Store.open(Path({path!r})), user="p{at}")
    # both look first, then both move: each expects the alias where it saw it
    ask = registry._ask
    def slowly(*words, **named):
        found = ask(*words, **named)
        print("ready", flush=True)
        sys.stdin.readline()
        return found
    registry._ask = slowly
    try:
        registry.promote("m/{at}".replace("0", "2"), "production", gates=["not-pickle"], reason="mine")
        print("moved")
    except RefConflict as error:
        print("conflict", error)
"""


def test_of_two_that_promote_at_once_one_is_told(store, registry, data, tmp_path):
    for strength in (1, 2):
        registry.register(LogisticRegression(C=strength).fit(*data), "m")
    answers = sorted(out for out, _ in race(tmp_path, PROMOTES, path=str(store.path)))
    assert answers[1] == "moved\n"
    assert answers[0].startswith("conflict m@production was moved by somebody else meanwhile")
    assert len(registry.history("m", "production")) == 1


# -- gates and aliases -----------------------------------------------------------------------------------------------


def evaluated(registry, data, strength, **fields):
    X, y = data
    fitted = LogisticRegression(C=strength).fit(X, y)
    return registry.register(fitted, "m", data=data, evaluation=(y, fitted.predict_proba(X)[:, 1]), **fields)


def test_a_refused_promotion_is_on_record_and_moves_nothing(registry, store, data):
    evaluated(registry, data, 1.0)
    registry.promote("m/1", "production", gates=["signature"], reason="first")
    _, line = evaluated(registry, data, 2.0)
    with pytest.raises(GateRefused) as caught:
        registry.promote("m/2", "production", gates=["accuracy>=0.999", "signature"], reason="hope", tickets=["OPS-7"])
    said = str(caught.value)
    assert caught.value.exit_code == 1
    assert "accuracy >= 0.999" in said
    assert "REFUSED" in said
    assert "passed" in said
    assert "mlops promote" in said
    assert registry.get("m@production").version == 1
    move = registry.history("m", "production")[-1].transition
    assert (move.refused, move.new, move.by, move.reason, move.tickets[0].id) == (True, line, "ada", "hope", "OPS-7")
    answers = [store.line(digest).record for digest in move.checks]
    assert [(one.check, one.passed, one.subject) for one in answers] == [
        ("accuracy>=0.999", False, line), ("signature", True, line),
    ]  # fmt: skip


def test_an_answer_is_bound_to_the_version_that_holds_the_bytes_digest(registry, store, data):
    evaluated(registry, data, 1.0)
    registry.promote("m", "production", gates=["signature"])
    move = registry.history("m", "production")[-1].transition
    for digest in move.checks:
        assert store.line(digest).record.subject == move.new
    record = store.line(move.new).record
    assert isinstance(record, ModelVersion)
    assert store.get(record.model.digest)


def test_without_a_word_production_demands_the_default_and_says_so(registry, store, data):
    evaluated(registry, data, 1.0)
    with pytest.raises(GateRefused, match="no cell run on record"):
        registry.promote("m", "production")
    move = registry.history("m", "production")[-1].transition
    policy = store.line(move.policy).record
    assert isinstance(policy, Policy)
    assert [one["gate"] for one in policy.checks] == list(checks.DEFAULT_GATES)
    assert "default" in policy.reason
    assert len(list(store.records(CheckResult))) == 3


def test_a_policy_is_asked_and_named_by_the_move(registry, store, data):
    evaluated(registry, data, 1.0)
    policy = Policy(name="careful", checks=[{"gate": "signature"}, {"gate": "accuracy>=0.5"}], reason="the board")
    move = registry.promote("m", "staging", policy=policy, gates=["not-pickle"])
    assert store.line(move.policy).record == policy
    assert len(move.checks) == 3


def test_answers_on_record_are_taken_again_for_that_version_only(registry, store, data):
    evaluated(registry, data, 1.0)
    registry.check("m/1", ["signature"])
    registry.promote("m/1", "production", gates=["signature"], reuse=True)
    assert len(list(store.records(CheckResult))) == 1
    evaluated(registry, data, 2.0)
    registry.promote("m/2", "production", gates=["signature"], reuse=True)
    assert len(list(store.records(CheckResult))) == 2


def test_a_challenger_has_to_be_better_than_the_holder(registry, data):
    X, y = data
    weak = LogisticRegression().fit(X[["b", "c"]], y)
    registry.register(weak, "m", data=(X[["b", "c"]], y), evaluation=(y, weak.predict_proba(X[["b", "c"]])[:, 1]))
    registry.promote("m/1", "production", gates=["auc>@production+0.01"], reason="the first")
    evaluated(registry, data, 1.0)
    evaluated(registry, data, 1.3)
    answer = registry.promote("m/2", "production", gates=["auc>@production+0.01"], reason="better")
    assert registry.store.line(answer.checks[0]).record.evidence["low"] > 0.01
    with pytest.raises(GateRefused):
        registry.promote("m/3", "production", gates=["auc>@production+0.001"], reason="hardly")


def test_two_versions_without_recorded_rows_are_compared_on_given_data(registry, data):
    X, y = data
    registry.register(LogisticRegression(C=1e-9).fit(-X, y), "m")
    registry.promote("m/1", "production", gates=PASSING)
    registry.register(LogisticRegression().fit(X, y), "m")
    (unknown,) = registry.check("m/2", ["accuracy>@production"])
    assert not unknown.passed
    (known,) = registry.check("m/2", ["accuracy>@production"], data=(X, y))
    assert known.passed
    assert known.evidence["low"] > 0


def test_rolling_back_twice_goes_back_two_and_never_to_what_was_left(registry, data):
    for strength in (1.0, 2.0, 3.0):
        evaluated(registry, data, strength)
    for version in (1, 2, 3):
        registry.promote(f"m/{version}", "production", gates=["signature"])
    with pytest.raises(GateRefused):
        registry.promote("m/1", "production", gates=["accuracy>=2"])
    move = registry.rollback("m", "production", reason="wrong at night", by="bob")
    assert registry.get("m@production").version == 2
    registry.rollback("m", "production")
    assert registry.get("m@production").version == 1
    with pytest.raises(NothingBefore):
        registry.rollback("m", "production")
    moves = registry.history("m", "production")
    assert [one.transition.refused for one in moves] == [False, False, False, True, False, False]
    assert (move.by, move.reason) == ("bob", "wrong at night")
    assert (moves[4].transition.by, moves[4].transition.reason) == ("bob", "wrong at night")
    assert all(one.time for one in moves)
    registry.promote("m/3", "production", gates=["signature"])
    registry.rollback("m", "production")
    assert registry.get("m@production").version == 1
    assert registry.get("m/1").aliases == ("production",)


def test_registering_and_rolling_back_are_for_tickets_too(registry, data):
    X, y = data
    registry.register(LogisticRegression().fit(X, y), "m", tickets=["OPS-1"])
    (move,) = registry.store.moves("models/m")
    assert [one.id for one in move.transition.tickets] == ["OPS-1"]
    registry.register(LogisticRegression(C=2.0).fit(X, y), "m")
    for version in (1, 2):
        registry.promote(f"m/{version}", "production", gates=["not-pickle"])
    assert [one.id for one in registry.rollback("m", "production", tickets=["OPS-2"]).tickets] == ["OPS-2"]


DEMANDS = """
[tool.jupyter-mlops.gates]
production = ["signature"]
[tool.jupyter-mlops.demands]
register = ["ticket"]
approve = ["reason"]
promote = { "@production" = ["reason", "ticket"], "*" = ["reason"] }
rollback = { production = ["reason"] }
"""


@pytest.fixture
def strict(registry, data, tmp_path):
    """A model with two versions, in a project that came to demand words then."""
    for strength in (1.0, 2.0):
        evaluated(registry, data, strength)
    (tmp_path / "pyproject.toml").write_text(DEMANDS)
    return registry


@pytest.mark.parametrize(("reason", "tickets", "lacking"), [
    ("", [], ["reason", "ticket"]), ("why", [], ["ticket"]), ("why", ["", " "], ["ticket"]),
    (" \n", ["OPS-1"], ["reason"]), ("", [Ticket(id=" ")], ["reason", "ticket"]),
])  # fmt: skip
def test_a_promotion_that_does_not_say_what_is_demanded_is_refused_and_on_record(
    strict, store, reason, tickets, lacking
):
    with pytest.raises(DemandUnmet) as raised:
        strict.promote("m/1", "production", reason=reason, tickets=tickets)
    assert raised.value.lacking == lacking
    assert raised.value.exit_code == 1
    assert raised.value.thing == f"m/1 may not be @production: no {' and no '.join(lacking)} was given"
    assert raised.value.cause == "the project's settings demand a reason and a ticket of a promotion to @production"
    assert raised.value.next == "mlops promote m/1 production -m WHY --ticket ID"
    (move,) = [one.transition for one in strict.history("m", "production")]
    assert (move.refused, move.lacking, move.checks, move.new) == (True, lacking, [], strict.get("m/1").digest)
    policy = store.line(move.policy).record
    assert (policy.demands, policy.checks) == (["reason", "ticket"], [{"gate": "signature"}])
    assert store.head("models/m@production") is None
    assert list(store.records(CheckResult)) == []
    moved = strict.promote("m/1", "production", reason="the first", tickets=["OPS-1"])
    assert (moved.refused, moved.lacking, moved.policy) == (False, [], move.policy)


def test_what_is_demanded_of_an_alias_is_demanded_of_that_one_and_of_the_others_what_the_star_says(strict):
    with pytest.raises(DemandUnmet, match="may not be @staging: no reason was given"):
        strict.promote("m/1", "staging", gates=PASSING)
    strict.promote("m/1", "staging", gates=PASSING, reason="to try it")
    strict.promote("m/2", "staging", gates=PASSING, reason="to try it")
    assert strict.rollback("m", "staging").reason == "rollback"  # nothing is said of that


def test_a_rollback_that_does_not_say_why_where_it_should_is_refused_and_on_record(strict):
    for version in (1, 2):
        strict.promote(f"m/{version}", "production", reason="better", tickets=["OPS-1"])
    with pytest.raises(DemandUnmet, match=r"m@production was not rolled back: no reason was given"):
        strict.rollback("m", "production", tickets=["OPS-2"])
    assert strict.get("m@production").version == 2
    refused = strict.history("m", "production")[-1].transition
    assert (refused.refused, refused.lacking, refused.reason) == (True, ["reason"], "")
    strict.rollback("m", "production", reason="wrong at night")
    assert strict.get("m@production").version == 1
    with pytest.raises(NothingBefore):
        strict.rollback("m", "production", reason="again")


def test_a_registration_or_approval_that_does_not_say_what_is_demanded_is_refused_and_takes_nothing(
    strict, store, data
):
    other, before = LogisticRegression(C=0.3).fit(*data), store.mark()
    for known in (other, LogisticRegression(C=1.0).fit(*data)):
        with pytest.raises(DemandUnmet, match="m was not registered: no ticket was given"):
            strict.register(known, "m", reason="better")
    for withdraw in (False, True):
        with pytest.raises(DemandUnmet, match="no reason was given"):
            strict.approve("m/1", by="bob", tickets=["OPS-1"], withdraw=withdraw)
    assert store.mark() == before
    assert strict.register(other, "m", reason="better", tickets=["OPS-3"])[0] == 3
    move = store.moves("models/m")[-1].transition
    assert (move.reason, [one.id for one in move.tickets]) == ("better", ["OPS-3"])
    strict.approve("m/1", by="bob", reason="looked at it")
    assert [one.by for _, one in strict.approvals(strict.get("m/1").digest)] == ["bob"]


def test_settings_that_can_not_be_read_demand_everything_of_everybody(strict, store, data, tmp_path):
    for wrong in ('promote = ["reason"]', 'approve = ["a word"]', "registre = []"):
        (tmp_path / "pyproject.toml").write_text(f"[tool.jupyter-mlops.demands]\n{wrong}\n")
        before = store.mark()
        for act in (
            lambda: strict.promote("m/1", "production", gates=PASSING, reason="r", tickets=["t"]),
            lambda: strict.register(LogisticRegression(C=0.3).fit(*data), "m", reason="r", tickets=["t"]),
            lambda: strict.approve("m/1", reason="r", tickets=["t"]),
        ):
            with pytest.raises(SettingsInvalid, match=r"pyproject\.toml can not be read"):
                act()
        assert store.mark() == before


def test_gates_that_the_settings_demand_hold_for_python_too(strict, data):
    evaluated(strict, data, 3.0, tickets=["OPS-1"])
    (answer,) = strict.check("m/1", alias="production")
    assert answer.check == "signature"
    with pytest.raises(GateRefused, match="of 2 gates"):
        strict.promote("m/1", "production", gates=["accuracy>=2"], reason="r", tickets=["t"])


def test_an_approval_is_somebody_elses_last_word_on_exactly_that_version(registry, data):
    X, y = data
    for strength in (1.0, 2.0):
        registry.register(LogisticRegression(C=strength).fit(X, y), "m")

    def asked(gate="approved", version=1):
        (result,) = registry.check(f"m/{version}", [gate])
        return result

    assert asked().evidence["found"] == "nobody else has approved it"
    assert "mlops approve m/1" in asked().evidence["next"]
    registry.approve("m/1", reason="it is mine")  # by ada, who registered it
    assert not asked().passed
    assert "ada registered it, and does not count" in asked().evidence["found"]
    registry.approve("m/1", by="bob", reason="residuals are fine")
    assert asked().passed
    assert not asked(version=2).passed
    assert not asked("approved:2").passed
    registry.approve("m/1", by="bob")  # twice is one
    assert not asked("approved:2").passed
    registry.approve("m/1", by="eve")
    assert asked("approved:2").passed
    registry.promote("m/1", "production", gates=["approved:2"])
    registry.approve("m/1", by="bob", withdraw=True)
    assert asked().passed
    assert not asked("approved:2").passed
    registry.promote("m/2", "staging", gates=["not-pickle"])
    with pytest.raises(GateRefused):  # an answer that stood once is not taken for one that stands
        registry.promote("m/1", "staging", gates=["approved:2"], reuse=True)
    for wrong in ("approved:0", "approved:x", "approved:101", "approved:-1"):
        with pytest.raises(checks.GateInvalid):
            checks.parse_gate(wrong)


def test_who_had_a_run_started_that_registered_a_version_can_not_approve_it(registry, store, data):
    run = store.append(RunStarted(trigger="papermill", user="server", on_behalf_of="alice"))
    evaluated(registry, data, 1.0, by="server", context=RunContext(run=run))
    registry.approve("m/1", by="alice", reason="my own")
    registry.approve("m/1", by="server", reason="its own")
    (answer,) = registry.check("m/1", ["approved"])
    assert not answer.passed
    assert answer.evidence["found"] == (
        "nobody else has approved it; server registered it, and does not count; it was registered on behalf of alice, "
        "who does not count"
    )
    registry.approve("m/1", by="bob", reason="looked at it")
    (answer,) = registry.check("m/1", ["approved"])
    assert (answer.passed, answer.evidence["approvals"]) == (True, ["bob"])


def test_an_alias_that_was_moved_meanwhile_is_not_moved_by_who_did_not_see_it(registry, store, data):
    for strength in (1.0, 2.0):
        evaluated(registry, data, strength)
    ask = registry._ask

    def and_then(*words, **named):
        found = ask(*words, **named)
        other = Transition(ref="models/m@production", new=registry.get("m/1").digest, by="bob", reason="quicker")
        store.move("models/m@production", other)
        return found

    registry._ask = and_then
    with pytest.raises(RefConflict, match="somebody else"):
        registry.promote("m/2", "production", gates=["signature"])
    assert registry.get("m@production").version == 1


# -- in a session ----------------------------------------------------------------------------------------------------


def session(store, values, *, model=None, made="B", read=("X",)):
    """A run on record: cell A made the data, cell B read some of it and made the model."""
    from jupyter_mlops.fingerprints import facts_bytes, fingerprint

    run = store.append(RunStarted(trigger="session", user="ada"))
    first = store.append(CellStarted(run=run, cell="A", source="X = load()", count=1))
    artifacts = {}
    for name, value in values.items():
        found = fingerprint(value)
        facts = store.put(facts_bytes(found.facts)) if found.facts else None
        artifacts[name] = Artifact(
            name=name, kind="variable", digest=found.digest, size=found.size, type=found.type, facts=facts, made=first
        )
    store.append(CellEnded(cell_run=first, status="done", outputs=list(artifacts.values())))
    second = store.append(CellStarted(run=run, cell=made, source="model = fit(X)", count=2))
    store.append(CellLogged(run=run, cell_run=second, what="metric", key="auc", value=0.8))
    store.append(CellLogged(run=run, cell_run=second, what="metric", key="auc", value=0.9, step=1))
    store.append(CellLogged(run=run, cell_run=second, what="param", key="C", value=1.0))
    outputs = []
    if model is not None:
        found = fingerprint(model)
        outputs = [Artifact(name="model", kind="variable", digest=found.digest, type=found.type, made=second)]
    inputs = [artifacts[name] for name in read]
    store.append(CellEnded(cell_run=second, status="done", after=[first], inputs=inputs, outputs=outputs))
    third = store.append(CellStarted(run=run, cell="C", source="%mlops register model m", count=3))
    everything = {**artifacts, **{one.name: one for one in outputs}}
    return RunContext(
        run=run, cell_run=third, artifacts=everything, value_of={**values, "model": model}.__getitem__
    ), second


def test_the_one_recorded_table_that_fits_gives_the_signature_and_the_baseline(registry, store, data, model):
    X, y = data
    context, maker = session(store, {"X": X, "other": X[["a"]], "y": y}, model=model)
    registry.register(model, "m", context=context)
    info = registry.get("m")
    signature = registry.signature(info)
    assert [column.name for column in signature.inputs] == ["a", "b", "c"]
    assert signature.source == "inferred from X"
    assert registry.baseline(info)["inputs"]["rows"] == len(X)
    assert [one.name for one in info.record.training] == ["X"]
    assert (info.run, info.cell_run) == (context.run, maker)
    assert (info.metrics, info.record.parameters) == ({"auc": 0.9}, {"C": 1.0})


def test_of_several_tables_that_fit_the_one_that_the_maker_read_counts(registry, store, data, model):
    X, _ = data
    context, _ = session(store, {"X": X, "X_test": X[:50]}, model=model)
    registry.register(model, "m", context=context)
    assert registry.signature(registry.get("m")).source == "inferred from X"


def test_where_several_tables_fit_nothing_is_guessed_and_the_gate_says_so(registry, store, data, model):
    X, _ = data
    context, _ = session(store, {"X": X, "X_test": X[:50]}, model=model, read=("X", "X_test"))
    registry.register(model, "m", context=context)
    assert registry.get("m").record.signature is None
    with pytest.raises(GateRefused, match=r"several recorded tables .*X, X_test"):
        registry.promote("m", "production", gates=["signature"])


def test_the_history_of_a_model_made_in_order_passes(registry, store, data, model):
    X, _ = data
    context, _ = session(store, {"X": X}, model=model)
    registry.register(model, "m", context=context)
    (answer,) = registry.check("m", ["history"])
    assert answer.passed, answer.summary
    assert answer.evidence["cell_runs"] == 2


def test_data_that_was_made_anew_after_training_makes_the_history_stale(registry, store, data, model):
    X, _ = data
    context, _ = session(store, {"X": X}, model=model)
    registry.register(model, "m", context=context)
    from jupyter_mlops.fingerprints import fingerprint

    again = store.append(CellStarted(run=context.run, cell="A", source="X = load(2)", count=4))
    changed = Artifact(name="X", kind="variable", digest=fingerprint(X * 2).digest, type="pandas.DataFrame")
    store.append(CellEnded(cell_run=again, status="done", outputs=[changed]))
    with pytest.raises(GateRefused, match="made it anew"):
        registry.promote("m", "production")


def test_a_file_that_changes_while_it_is_registered_gets_no_version(registry, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\x12\x04test")

    class Late:
        def to_numpy(self):
            path.write_bytes(b"\x08\x0a\x12\x04another")
            return np.array([0, 1])

    with pytest.raises(WrongUse, match=r"model\.onnx was changed while it was registered.*register it again"):
        registry.register(path, "m", evaluation=([0, 1], Late()))
    assert registry.models() == []


def test_a_file_leads_back_to_the_cell_that_wrote_it(registry, store, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a model")
    from jupyter_mlops.records import digest_of

    run = store.append(RunStarted(trigger="session"))
    cell = store.append(CellStarted(run=run, cell="A"))
    written = Artifact(name="model.onnx", kind="file", digest=digest_of(path.read_bytes()))
    store.append(CellEnded(cell_run=cell, status="done", files_written=[written]))
    registry.register(path, "m")
    assert registry.get("m").cell_run == cell


def test_an_evaluation_of_text_labels_comes_back_as_it_was(registry, data):
    X, y = data
    names = np.where(y == 1, "late", "on time")
    fitted = LogisticRegression().fit(X, names)
    registry.register(fitted, "m", evaluation=(pd.Series(names), fitted.predict(X), fitted.predict_proba(X)))
    found = registry.evaluation(registry.get("m"))
    assert (found.truth == names).all()
    assert (found.prediction == fitted.predict(X)).all()
    assert found.classes == ("late", "on time")
    assert checks.metrics(found) == pytest.approx(registry.get("m").metrics)


def test_a_regression_is_registered_and_gated(registry):
    X, y = make_regression(200, 4, noise=5, random_state=0)
    fitted = LinearRegression().fit(X, y)
    registry.register(fitted, "m", data=(X, y), evaluation=(y, fitted.predict(X)))
    found = registry.signature(registry.get("m"))
    assert ([one.name for one in found.inputs], found.named, found.task) == (
        ["x0", "x1", "x2", "x3"],
        False,
        "regression",
    )
    assert all(one.passed for one in registry.check("m", ["rmse<=10", "r2>=0.9", "rmse<@production-1", "signature"]))


def test_a_npy_with_a_pickle_in_it_is_not_read(tmp_path):
    from jupyter_mlops.registry.versions import of_npy

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(tmp_path / "exploded")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError):
        of_npy(buffer.getvalue())
    assert not Path(tmp_path / "exploded").exists()
