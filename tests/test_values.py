from __future__ import annotations

import array
import collections
import copy
import datetime as dt
import decimal
import fractions
import functools
import json
import linecache
import math
import operator
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import types
import uuid
import warnings
import zoneinfo
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_mlops import seals
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import Budget, fingerprint
from jupyter_mlops.fingerprints.walk import OverBudget
from jupyter_mlops.records import Digest
from jupyter_mlops.seals import SealRefused
from jupyter_mlops.store import Store
from jupyter_mlops.values import Kept, ManifestRefused, ModuleMissing, ValueDiffers, bring, keep


@pytest.fixture(autouse=True)
def _own_key(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def store(tmp_path: pathlib.Path):
    with Store.create(tmp_path / "store") as made:
        yield made


def there_and_back(variables: dict[str, Any], store: Store) -> dict[str, Any]:
    kept = keep(variables, store)
    assert kept.left == {}
    assert kept.manifest is not None
    return bring(kept.manifest, store)


# -- what comes back is equal ----------------------------------------------------------------------------------------


def _frame() -> pd.DataFrame:
    days = pd.date_range("2020", periods=5)
    return pd.DataFrame({
        "int": range(5), "float": np.arange(5.0), "text": list("abcde"), "day": days,
        "here": days.tz_localize("Europe/Paris"),
        "kind": pd.Categorical(list("aabbc"), ordered=True), "Int": pd.array([1, None, 3, 4, 5], "Int64"),
        "bool": pd.array([True, None, False, True, True], "boolean"), "time": pd.to_timedelta(range(5), unit="s"),
        "month": pd.period_range("2020", periods=5, freq="M"), "between": pd.interval_range(0, 5),
        "sparse": pd.arrays.SparseArray([0, 0, 1, 0, 2]), "objects": [{}, [1], None, 1.5, "x"],
        "arrow": pd.array([1, 2, None, 4, 5], dtype="int64[pyarrow]"),
        "string": pd.array([*"abcd", None], "string[python]"), "other": pd.array([*"abcd", None], "string[pyarrow]"),
    })  # fmt: skip


_INDEXES = {
    "multi": lambda frame: frame.set_index(["int", "text"]).index, "day": lambda frame: frame.set_index("day").index,
    "kind": lambda frame: frame.set_index("kind").index, "text": lambda frame: frame.set_index("text").index,
    "between": lambda frame: frame.set_index("between").index, "month": lambda frame: frame.set_index("month").index,
    "here": lambda frame: frame.set_index("here").index, "time": lambda frame: frame.set_index("time").index,
    "steps": lambda frame: pd.RangeIndex(3, 9, 2), "float": lambda frame: pd.Index([1.5, math.nan]),
}  # fmt: skip

PLAIN: dict[str, Callable[[], Any]] = {
    "numbers": lambda: [1, -(2**100), 1.5, -0.0, math.nan, math.inf, 1j, True, None, ..., NotImplemented],
    "payload of a NaN": lambda: np.uint64(0x7FF8DEADBEEF0001).view(np.float64).item(),
    "texts": lambda: ["", "é", "\ud800", "x" * 10_000, b"raw", b"y" * 10_000],
    "many": lambda: {"f": [1.5] * 1000, "i": list(range(1000)), "s": ["a", "\ud800"] * 500,
                     "m": [1, None, "a", 2.5] * 99},
    "containers": lambda: ({1, "a"}, frozenset({(1, 2)}), {(1, "k"): [2]}, collections.deque([1], 3)),
    "ordered": lambda: collections.OrderedDict(b=1, a=2), "counter": lambda: collections.Counter("aab"),
    "default": lambda: collections.defaultdict(list, {"a": [1]}), "chain": lambda: collections.ChainMap({"a": 1}, {}),
    "namespace": lambda: types.SimpleNamespace(a=1), "user": lambda: collections.UserDict({"a": 1}),
    "times": lambda: [dt.datetime(2020, 1, 1, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")), dt.time(1),
                      dt.timedelta(1), dt.date(2020, 1, 1), dt.timezone(dt.timedelta(hours=1), "x"), dt.UTC],
    "exact": lambda: [decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=5)],
    "paths": lambda: [pathlib.Path("/a/b"), pathlib.PurePosixPath("c"), pathlib.PureWindowsPath("d:/e")],
    "ranges": lambda: [range(1, 9, 2), slice(None, 3)], "pattern": lambda: re.compile("a+", re.IGNORECASE),
    "calls": lambda: [functools.partial(int, base=2), operator.itemgetter(1, 2), operator.methodcaller("x", 1, y=2)],
    "names": lambda: [math, math.sqrt, pd.DataFrame, int, json.dumps, list[int], int | str],
    "random": lambda: [random.Random(3), np.random.default_rng(1), np.random.RandomState(1)],
    "array": lambda: array.array("d", [1, 2]), "bytearray": lambda: bytearray(b"abc"),
    "numpy": lambda: [np.arange(12).reshape(3, 4), np.arange(12.0)[::-2], np.zeros((0, 3)), np.array(3.0),
                      np.asfortranarray(np.eye(3)), np.arange(3, dtype=">i4"), np.array(["2020"], "M8[D]"),
                      np.array(["a", "bb"]), np.float32(2), np.dtype("f4"), np.log1p,
                      np.broadcast_to(np.arange(3), (4, 3)), np.arange(3).astype(np.longdouble)],
    "structures": lambda: np.array([(1, (2.0, 3.0))], [("a", "i4"), ("b", "f8", (2,))]),
    "objects": lambda: np.array([[1, "a"], [None, [1]]], object), "masked": lambda: np.ma.masked_array([1, 2], [0, 1]),
    "frame": _frame, "series": lambda: pd.Series([1.0, 2.0], name=("a", 1)),
    "moments": lambda: [pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp("2020"), pd.Timedelta("1s"), pd.NA, pd.NaT,
                        pd.Period("2020-01", "M"), pd.Interval(0, 1), pd.offsets.MonthEnd(2)],
    "arrow": lambda: [pa.table({"a": [1, 2], "b": ["x", None]}), pa.chunked_array([[1], [2]]), pa.array([[1], None]),
                      pa.array(["a", "b", "a"]).dictionary_encode(), pa.record_batch({"a": [1]}), pa.int64(),
                      pa.schema({"a": pa.int8()}), pa.scalar(3), pa.py_buffer(b"123")],
    **{f"index {name}": functools.partial(lambda make: make(_frame()), make) for name, make in _INDEXES.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_value_comes_back_with_its_type_and_fingerprint(name: str, store: Store) -> None:
    value = PLAIN[name]()
    digest = fingerprint(value).digest
    assert digest is not None
    back = there_and_back({"it": value}, store)["it"]
    assert type(back) is type(value)
    assert fingerprint(back).digest == digest
    assert fingerprint(value).digest == digest, "keeping changed it"


def test_sparse_matrices_of_every_format_come_back(store: Store) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for form in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok"):
        for what in ("matrix", "array"):
            made = getattr(sparse, f"{form}_{what}")(np.eye(3))
            assert fingerprint(there_and_back({"m": made}, store)["m"]).digest == fingerprint(made).digest


def test_polars_frames_come_back(store: Store) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None], "c": pl.Series(["q", "r"], dtype=pl.Categorical)})
    back = there_and_back({"f": frame, "s": frame["a"]}, store)
    assert back["f"].equals(frame)
    assert back["s"].equals(frame["a"])


def test_tensors_of_one_storage_share_it_again_and_a_module_its_parameters(store: Store) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(6.0).reshape(2, 3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.ReLU())
    back = there_and_back(
        {"x": x, "t": x.t(), "n": x.numpy(), "h": x.to(torch.bfloat16), "net": net, "w": net[0].weight}, store
    )
    back["x"][0, 1] = 7
    assert back["t"][1, 0] == 7
    assert back["n"][0, 1] == 7
    assert back["net"][0].weight is back["w"]
    assert torch.equal(back["net"](x), net(x))


def test_a_pipeline_and_its_last_step_are_one_again_and_predict_the_same(store: Store) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).random((40, 3))
    y = (x[:, 0] > 0.5).astype(int)
    pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    forest = RandomForestClassifier(3, random_state=0).fit(x, y)
    boosted = HistGradientBoostingClassifier(max_iter=3).fit(x, y)
    back = there_and_back({"pipe": pipe, "last": pipe[-1], "forest": forest, "boosted": boosted}, store)
    assert back["pipe"][-1] is back["last"]
    for name, model in (("pipe", pipe), ("forest", forest), ("boosted", boosted)):
        assert (back[name].predict_proba(x) == model.predict_proba(x)).all()


# -- what was one is one ---------------------------------------------------------------------------------------------


def test_classes_of_scikit_learn_come_back_unsealed_just_where_skops_trusts_them() -> None:
    from sklearn.utils import all_estimators
    from skops.io import _trusted_types

    from jupyter_mlops.fingerprints.walk import name_of
    from jupyter_mlops.values import estimators
    from jupyter_mlops.values.trust import REVIEWED

    assert all(estimators.trusted(kind) for _, kind in all_estimators() if kind.__module__.startswith("sklearn."))
    theirs = {*_trusted_types.SKLEARN_ESTIMATOR_TYPE_NAMES, *_trusted_types.SKLEARN_INTERNAL_TYPE_NAMES, *REVIEWED}
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "sklearn" and module]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    ours = {name_of(kind) for kind in kinds if estimators.trusted(kind)}
    assert len(ours) > 200
    assert ours - theirs == set()


def test_keeping_and_bringing_back_estimators_does_not_load_all_of_scikit_learn(tmp_path: pathlib.Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from jupyter_mlops.store import Store
        from jupyter_mlops.values import bring, keep

        X, y = [[0.0, 1], [1, 0], [2, 1], [3, 0]], [0, 0, 1, 1]
        forest = RandomForestClassifier(3, random_state=0).fit(X, y)
        line = LogisticRegression().fit(X, y)
        loaded = set(sys.modules)
        with Store.create(Path(sys.argv[1])) as store:
            kept = keep({"forest": forest, "line": line}, store)
            back = bring(kept.manifest, store)
        assert kept.left == {}, kept.left
        for name, model in (("forest", forest), ("line", line)):
            assert back[name] is not model
            assert (back[name].predict_proba(X) == model.predict_proba(X)).all()
        new = {name for name in set(sys.modules) - loaded if name.partition(".")[0] in ("sklearn", "skops")}
        assert new == set(), new
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "there")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr


def test_two_names_for_one_list_are_two_names_for_one_list_again(store: Store) -> None:
    xs: list[Any] = [1]
    box = {"xs": xs}
    xs.append(box)
    back = there_and_back({"xs": xs, "again": xs, "box": box}, store)
    assert back["again"] is back["xs"]
    assert back["box"]["xs"] is back["xs"]
    assert back["xs"][1] is back["box"]


def test_a_view_writes_through_to_its_base_again(store: Store) -> None:
    base = np.arange(24).reshape(4, 6)
    memory = bytearray(b"abcdefgh")
    objects = np.array([1, [2], "c"], object)
    back = there_and_back(
        {"base": base, "column": base[:, 2], "turned": base[::-1, ::2], "memory": memory,
         "bytes": np.frombuffer(memory, np.uint8), "objects": objects, "last": objects[1:]}, store)  # fmt: skip
    back["base"][1, 2] = 99
    assert back["column"][1] == 99
    assert back["turned"][2, 1] == 99
    back["bytes"][0] = ord("z")
    assert back["memory"] == b"zbcdefgh"
    back["objects"][1] = "new"
    assert back["last"][0] == "new"


def test_frames_that_share_a_block_still_copy_when_one_is_written(store: Store) -> None:
    frame = pd.DataFrame({"a": np.arange(4.0), "b": np.arange(4.0)})
    same, column = frame.copy(deep=False), frame["a"]
    shared = np.shares_memory(frame["a"].to_numpy(), same["a"].to_numpy())
    back = there_and_back({"frame": frame, "same": same, "column": column, "index": frame.index}, store)
    assert np.shares_memory(back["frame"]["a"].to_numpy(), back["same"]["a"].to_numpy()) == shared
    assert back["frame"].index is back["index"]
    for one in (frame, back["frame"]):
        one.iloc[0, 0] = 7.0
    assert back["same"].iloc[0, 0] == same.iloc[0, 0]
    assert back["column"].iloc[0] == column.iloc[0]


@st.composite
def namespaces(draw: Any) -> dict[str, Any]:
    """Variables made of values that were made before: so that they hold one another."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    made: list[Any] = [[1], {"k": 2}, rng.random((3, 4))]
    pick = lambda: made[draw(st.integers(0, len(made) - 1))]  # noqa: E731
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["list", "tuple", "dict", "array", "view", "frame", "column", "append", "scalar"]))
        arrays = [one for one in made if type(one) is np.ndarray and one.ndim == 2 and len(one)]
        frames = [one for one in made if type(one) is pd.DataFrame]
        if kind == "list":
            made.append([pick(), pick()])
        elif kind == "tuple":
            made.append((pick(), 1))
        elif kind == "dict":
            made.append({"a": pick(), 3: pick()})
        elif kind == "array":
            made.append(rng.integers(0, 9, (2, 3)))
        elif kind == "view" and arrays:
            made.append(arrays[-1][draw(st.sampled_from([slice(1, None), slice(None, None, -1), slice(0, 0)]))].T)
        elif kind == "frame":
            made.append(pd.DataFrame({"x": rng.random(3), "y": ["a", None, "c"], "z": [1, 2, 3]}))
        elif kind == "column" and frames:
            made.append(frames[-1]["x"])
        elif kind == "append":
            one = pick()
            if type(one) is list and len(made) < 20:
                one.append(pick() if draw(st.booleans()) else one)
        elif kind == "scalar":
            made.append(draw(st.one_of(st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5))))
    return {f"v{number}": one for number, one in enumerate(made)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(variables=namespaces())
def test_generated_namespaces_come_back_equal_and_with_the_same_identities(
    variables: dict[str, Any], store: Store
) -> None:
    digests = {name: fingerprint(value).digest for name, value in variables.items()}
    kept = keep(variables, store)
    assert kept.left == {}
    assert kept.manifest is not None
    back = bring(kept.manifest, store)
    assert {name: fingerprint(value).digest for name, value in back.items()} == digests
    names = list(variables)
    for one in names:
        for other in names:
            a, b = variables[one], variables[other]
            if type(a) not in (int, float, str, bytes):
                assert (a is b) == (back[one] is back[other])
            if type(a) is type(b) is np.ndarray:
                assert np.shares_memory(a, b) == np.shares_memory(back[one], back[other])


# -- what is stored --------------------------------------------------------------------------------------------------


def test_one_more_column_stores_that_column_whatever_pandas_makes_of_the_blocks(store: Store) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((50_000, 4)), columns=list("abcd"), copy=True).copy()
    keep({"frame": frame}, store)
    before = set(store.objects())
    frame["e"] = rng.random(50_000)
    wider = frame.copy()  # one block of five columns, in new memory
    kept = keep({"frame": wider}, store)
    fresh = sorted(store.size(one) for one in set(store.objects()) - before)
    assert fresh[-1] == 400_000
    assert sum(fresh) < 410_000
    assert bring(kept.manifest, store)["frame"].equals(wider)


# -- definitions of the notebook -------------------------------------------------------------------------------------

CELL = """
import abc, collections, enum, functools
from dataclasses import dataclass, field
k = 3
shared = [1]
def f(x: int, y=shared, *, z=2):
    "what it says"
    return x + k + z + len(y)
def counter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    def get():
        return n
    return up, get
up, get = counter()
one, two = (lambda x: x + 1), (lambda x: x + 2)
@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@dataclass
class Point:
    x: int
    tags: list = field(default_factory=list)
    def total(self): return self.x + k
class Base(abc.ABC):
    count = 0
    @abc.abstractmethod
    def go(self): ...
class Child(Base):
    held = shared
    def __init__(self, p): self.p = p
    def go(self): return self.p.total()
class Slots:
    __slots__ = ("a", "b")
class Color(enum.Enum):
    RED = 1
class Words(list):
    def first(self): return self[0]
Pair = collections.namedtuple("Pair", "x y")
p = Point(1); c = Child(p); c.me = c; s = Slots(); s.a = shared; red = Color.RED; w = Words([1, 2]); pair = Pair(1, 2)
go = c.go
Base.count = 5
up()
"""


def run_cell(text: str, space: dict[str, Any], number: int = 1) -> None:
    file = f"<ipython-input-{number}-{abs(hash(text))}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec", dont_inherit=True), space)


@pytest.fixture
def notebook() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__"}
    run_cell(CELL, space)
    return space


def _visible(space: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in space.items() if not name.startswith("__")}


def test_functions_classes_and_instances_of_the_notebook_come_back_by_their_source(notebook, store: Store) -> None:
    kept = keep(_visible(notebook), store, space=notebook)
    assert kept.left == {}
    space: dict[str, Any] = {"__name__": "__main__"}
    back = bring(kept.manifest, store, space=space)
    assert list(space) == ["__name__"], "making values bound something"
    space.update(back)
    assert back["f"](1) == 7
    assert back["f"].__defaults__[0] is back["shared"]
    assert back["f"].__doc__ == "what it says"
    assert (back["get"](), back["up"](), back["get"]()) == (1, 2, 2)
    assert (back["one"](1), back["two"](1), back["fib"](10)) == (2, 3, 55)
    assert back["c"].me is back["c"]
    assert back["c"].p is back["p"]
    assert type(back["p"]) is back["Point"]
    assert (back["c"].go(), back["go"]()) == (4, 4)
    assert back["Child"].held is back["shared"]
    assert back["s"].a is back["shared"]
    assert back["Base"].count == 5
    assert back["red"] is back["Color"].RED
    assert back["w"].first() == 1
    assert back["pair"].x == 1
    space["k"] = 10
    assert back["f"](1) == 14, "a function looks its globals up where the notebook's variables are"
    assert back["p"] == back["Point"](1)
    assert fingerprint(back["c"]).digest is not None


def test_definitions_come_back_only_on_the_machine_that_kept_them(
    notebook, store: Store, tmp_path, monkeypatch
) -> None:
    kept = keep(_visible(notebook), store, space=notebook)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    failures: dict[str, MlopsError] = {}
    back = bring(kept.manifest, store, failures=failures)
    assert back["k"] == 3
    assert back["shared"] == [1]
    assert isinstance(failures["f"], SealRefused)
    assert "re-run" in str(failures["Point"])
    assert not {"f", "Point", "p", "c", "up"} & set(back)


def test_a_forged_or_missing_seal_is_refused_and_so_is_any_edit_under_a_true_one(notebook, store: Store) -> None:
    kept = keep({"f": notebook["f"], "n": 1}, store, space=notebook)
    manifest = json.loads(store.get(kept.manifest))
    for change in ({"seal": ""}, {"seal": "0" * 64}, {"names": {**manifest["names"], "n": 2}}):
        forged = store.put(json.dumps({**manifest, **change}).encode())
        with pytest.raises(SealRefused):
            bring(forged, store, names=["f"])


def test_a_pickle_is_sealed_too_and_arrays_inside_it_stay_shared(store: Store, tmp_path, monkeypatch) -> None:
    booster = pytest.importorskip("lightgbm")
    x = np.random.default_rng(0).random((40, 3))
    model = booster.LGBMClassifier(n_estimators=2, verbose=-1).fit(x, x[:, 0] > 0.5)
    kept = keep({"model": model}, store)
    assert (bring(kept.manifest, store)["model"].booster_.predict(x) == model.booster_.predict(x)).all()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(SealRefused):
        bring(kept.manifest, store)


def test_the_key_is_its_owners_alone_and_never_in_the_store(notebook, store: Store) -> None:
    keep({"f": notebook["f"]}, store, space=notebook)
    path = seals.key_path()
    assert path.stat().st_mode & 0o777 == 0o600
    key = path.read_bytes()
    assert not any(key in file.read_bytes() for file in store.path.rglob("*") if file.is_file())
    os.chmod(path, 0o644)
    with pytest.raises(SealRefused, match="others can get at"):
        seals.local_key()


# -- what is not kept ------------------------------------------------------------------------------------------------


def test_what_stands_for_something_else_is_left_alone_with_a_reason_and_the_rest_is_kept(
    store: Store, tmp_path
) -> None:
    pl = pytest.importorskip("polars")
    with open(tmp_path / "f", "w") as file:
        kept = keep(
            {"ok": [1], "steps": (i for i in []), "file": file, "lock": threading.Lock(), "local": threading.local(),
             "lazy": pl.DataFrame({"a": [1]}).lazy(), "holds": [threading.Lock()],
             "mapped": np.memmap(tmp_path / "m", np.uint8, "w+", shape=4)}, store)  # fmt: skip
    assert kept.names == ["ok"]
    assert set(kept.left) == {"steps", "file", "lock", "local", "lazy", "holds", "mapped"}
    assert all(kept.left.values())
    assert bring(kept.manifest, store) == {"ok": [1]}


def test_secrets_are_not_kept_nor_what_holds_them(store: Store) -> None:
    from jupyter_mlops.redact import Redactor

    kept = keep(
        {"password": "hunter2hunter2", "box": {"api_key": "abcdefgh12345"}, "fine": {"a": 1}}, store,
        secret=Redactor().secret,
    )  # fmt: skip
    assert kept.names == ["fine"]
    assert not any(b"hunter2" in store.get(one) or b"abcdefgh12345" in store.get(one) for one in store.objects())


def test_nothing_of_an_object_runs_when_it_is_kept(store: Store) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "ran": []}
    run_cell(
        "class Loud:\n"
        + "".join(f"    def {name}(self, *a): ran.append({name!r}); raise SystemExit\n" for name in (
            "__repr__", "__len__", "__eq__", "__hash__", "__getattribute__", "__reduce_ex__", "__iter__",
        ))
        + "loud = Loud()\nkeys = {1: loud}\n", space)  # fmt: skip
    kept = keep({"loud": space["loud"], "keys": space["keys"]}, store, space=space)
    assert space["ran"] == []
    assert set(kept.left) == {"loud", "keys"}


def test_work_that_is_called_off_leaves_a_whole_store(store: Store) -> None:
    budget = Budget()
    budget.cancel()
    with pytest.raises(OverBudget):
        keep({"a": np.arange(100_000.0)}, store, budget=budget)
    assert store.fsck() == []


# -- what is refused -------------------------------------------------------------------------------------------------


def test_a_value_that_is_not_what_it_was_is_refused_loudly(store: Store) -> None:
    kept = keep({"a": [1, 2]}, store, digests={"a": fingerprint([1, 3]).digest})
    with pytest.raises(ValueDiffers, match="a is not what it was"):
        bring(kept.manifest, store)


def test_a_module_that_is_not_loaded_is_not_imported_for_a_manifest(store: Store) -> None:
    kept = keep({"m": json}, store)
    manifest = store.get(kept.manifest).replace(b'"json"', b'"antigravity"')
    with pytest.raises(ModuleMissing):
        bring(store.put(manifest), store)
    assert "antigravity" not in sys.modules


def test_an_array_that_would_reach_beyond_its_memory_is_refused(store: Store) -> None:
    kept = keep({"a": np.arange(100.0)}, store)
    manifest = json.loads(store.get(kept.manifest))
    [number] = [place for place, node in enumerate(manifest["nodes"]) if node[0] == "np.array"]
    node = manifest["nodes"][number]
    for change in ({3: [101]}, {4: [16]}, {4: [-8]}, {6: [0, 8]}, {6: [0, -8]}, {2: "<f16"}, {2: "O"}, {3: [2**61]},
                   {3: [2**40], 4: [2**40]}):  # fmt: skip
        hostile = copy.deepcopy(manifest)
        hostile["nodes"][number] = [change.get(place, one) for place, one in enumerate(node)]
        with pytest.raises(MlopsError):
            bring(store.put(json.dumps(hostile).encode()), store)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = tree.items() if type(tree) is dict else enumerate(tree) if type(tree) is list else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


def _edited(tree: Any, rng: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    places = [one for one in _places(tree) if one]
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(places)
        holder = tree
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = rng.choice([
                None, True, -1, 0, 1, 7, 2**31, 2**63, 1e308, "", "O", "<f8", "|V9999999", "os", "system", [], {},
                [-1, 0],
                ["@", 0], ["@", 10**9], ["i", "zz"], ["code.named", "os", "system"], ["list", [["@", 0]]],
                copy.deepcopy(holder[rng.choice(list(holder) if type(holder) is dict else range(len(holder)))]),
            ])  # fmt: skip
        except (KeyError, IndexError, TypeError):
            continue  # an earlier edit took the place away
    return tree


@pytest.mark.parametrize("seed", range(4))
def test_hostile_manifests_are_refused_or_harmless(seed: int, store: Store) -> None:
    """Random edits never crash, never import, never run anything; whatever goes wrong is a refusal."""
    sparse = pytest.importorskip("scipy.sparse")
    values = {name.replace(" ", "_"): make() for name, make in PLAIN.items()}
    values |= {"csr": sparse.csr_matrix(np.eye(3)), "coo": sparse.coo_array(np.eye(3)), "f": _frame().iloc[::2]}
    kept = keep(values, store)
    manifest = json.loads(store.get(kept.manifest))
    rng = random.Random(seed)
    before = set(sys.modules)
    for turn in range(60):
        if turn == 30:
            manifest["digests"] = {}  # so that what is made is not held against what it was
        hostile = store.put(msgspec.json.encode(_edited(manifest, rng)))
        failures: dict[str, MlopsError] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                back = bring(hostile, store, failures=failures)
            except MlopsError:
                continue
        for name, value in back.items():
            assert fingerprint(value).digest is not None or failures, name
    new = {one.partition(".")[0] for one in set(sys.modules) - before}
    assert new <= set(sys.stdlib_module_names) | {"numpy", "pandas", "scipy", "pyarrow", "sklearn", "jupyter_mlops"}


def test_bytes_that_are_no_manifest_are_refused(store: Store) -> None:
    for data in (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"names":{},"nodes":[],"format":"values-9"}',
        b'{"names":{"a":["@",0]},"nodes":[[]]}',
    ):
        with pytest.raises(ManifestRefused):
            bring(store.put(data), store)


def test_an_object_that_is_damaged_or_gone_is_said_to_be(store: Store) -> None:
    kept = keep({"a": np.arange(100_000.0)}, store)
    part = json.loads(store.get(kept.manifest))["regions"][0][0][0][0]
    path = store.path / "objects" / part[7:9] / part[9:]
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"x" + data[1:])
    with pytest.raises(MlopsError, match="damaged"):
        bring(kept.manifest, store)
    path.unlink()
    with pytest.raises(MlopsError, match="not in this store"):
        bring(kept.manifest, store)


def test_nothing_is_kept_of_no_variables(store: Store) -> None:
    assert keep({}, store) == Kept(None, [], {})
    assert Digest("") == ""
