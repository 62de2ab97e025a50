"""A digest is of the whole content, the same everywhere, and made without touching what is not known."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import gc
import importlib.util
import io
import json
import linecache
import operator
import os
import random
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_mlops.fingerprints import Budget, buffers, facts_bytes, file_digest, fingerprint, folder_digest, immutable
from jupyter_mlops.fingerprints.ordering import in_order
from jupyter_mlops.testing import FingerprintSuite

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=20
)


def digest(value: object) -> str:
    found = fingerprint(value)
    assert found.digest is not None, found.why
    return found.digest


def frame() -> pd.DataFrame:
    return pd.DataFrame({
        "n": [1, 2, 3],
        "f": [0.5, -0.0, float("nan")],
        "s": pd.array(["x", None, "z"], dtype="string"),
        "c": pd.Categorical([10, 20, 10], categories=[20, 10]),
        "t": pd.to_datetime(["2020-01-01"] * 3).tz_localize("Europe/Berlin").as_unit("ns"),
        "I": pd.array([1, None, 3], dtype="Int64"),
    })  # fmt: skip


def test_values_that_python_confuses_have_their_own_digests() -> None:
    values = [1, True, 1.0, "1", b"1", 1 + 0j, None, [1], (1,), {1}, frozenset({1}), {1: 1}, 0.0, -0.0, np.int64(1)]
    assert len({digest(value) for value in values}) == len(values)


@settings(deadline=None)
@given(VALUES)
def test_equal_content_gives_an_equal_digest(value: object) -> None:
    assert digest(value) == digest(copy.deepcopy(value))


def test_the_order_of_a_dict_is_layout_and_that_of_a_list_is_content() -> None:
    one, other = fingerprint({"a": 1, "b": 2}), fingerprint({"b": 2, "a": 1})
    assert one.digest == other.digest
    assert one.facts != other.facts
    assert digest([1, 2]) != digest([2, 1])


def test_cycles_and_values_reached_in_many_ways_end() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    assert digest(loop)
    shared: object = ["x"] * 100
    for _ in range(60):
        shared = [shared, shared]
    assert digest(shared)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_digests_are_the_golden_ones_under_every_hash_seed(seed: str) -> None:
    # A golden digest changes only with its tag: records made by earlier releases name values by it.
    golden = Path(__file__).parent / "data" / "fingerprints-golden.json"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "data" / "fingerprints_golden.py")],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == json.loads(golden.read_text())["digests"]


def test_layout_does_not_change_an_array() -> None:
    plain = np.arange(24.0).reshape(4, 6)
    for other in (np.asfortranarray(plain), plain.astype(">f8"), np.repeat(plain, 2, axis=1)[:, ::2]):
        assert digest(other) == digest(plain)
    assert digest(plain.reshape(6, 4)) != digest(plain)
    assert digest(plain.view("i8")) != digest(plain)


@pytest.mark.parametrize("change", [
    lambda f: f.rename(columns={"n": "m"}), lambda f: f[[*f.columns[1:], "n"]], lambda f: f.astype({"n": "int32"}),
    lambda f: f.set_axis([1, 2, 3]), lambda f: f.rename_axis("i"), lambda f: f.iloc[[1, 0, 2]],
    lambda f: f.assign(c=f["c"].cat.reorder_categories([10, 20])), lambda f: f.assign(f=[0.5, 0.0, float("nan")]),
    lambda f: f.assign(t=f["t"].dt.tz_convert("UTC")), lambda f: f.assign(s=pd.array(["x", None, "y"], dtype="string")),
    lambda f: f.assign(I=pd.array([1, 0, 3], dtype="Int64")), lambda f: f.rename_axis(columns="k"),
])  # fmt: skip
def test_any_change_of_a_frame_changes_its_digest(change: object) -> None:
    assert digest(change(frame())) != digest(frame())  # type: ignore[operator]


COLUMNS = {
    "n": st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3),
    "f": st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
    "s": st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=3, max_size=3),
    "c": st.lists(st.sampled_from("pqr"), min_size=3, max_size=3),
}


@st.composite
def tables(draw: Any) -> pd.DataFrame:
    made = pd.DataFrame({name: draw(kept) for name, kept in COLUMNS.items()}, index=[5, 3, 4])
    return made.assign(c=pd.Categorical(made["c"], categories=draw(st.permutations("pqr"))))


def consolidated_apart(one: pd.DataFrame) -> pd.DataFrame:
    """The same frame of as many blocks as it has columns, put together back to front."""
    made = pd.DataFrame(index=one.index)
    for name in reversed(one.columns):
        made.insert(0, name, one[name].copy())
    return made


CHANGES: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "a value": lambda t, at: t.assign(n=[x + (place == at) for place, x in enumerate(t["n"])]),
    "a NaN": lambda t, at: t.assign(f=[np.nan if place == at else x for place, x in enumerate(t["f"])]),
    "a text": lambda t, at: t.assign(s=[x + "!" * (place == at) for place, x in enumerate(t["s"])]),
    "a name": lambda t, at: t.rename(columns={t.columns[at]: "other"}),
    "a dtype": lambda t, _: t.astype({"n": "float64"}),
    "the order of columns": lambda t, at: t[[*t.columns[at + 1 :], *t.columns[: at + 1]]],
    "a label of the index": lambda t, at: t.rename(index={t.index[at]: 99}),
    "the name of the index": lambda t, _: t.rename_axis("i"),
    "the order of the index": lambda t, _: t.set_axis([5, 4, 3]),
    "the order of categories": lambda t, _: t.assign(c=t["c"].cat.reorder_categories(t["c"].cat.categories[::-1])),
    "a category that no row has": lambda t, _: t.assign(c=t["c"].cat.add_categories("unused")),
    "whether categories are ordered": lambda t, _: t.assign(c=t["c"].cat.as_ordered()),
    "a row less": lambda t, at: t.drop(index=t.index[at]),
    "a column less": lambda t, at: t.drop(columns=t.columns[at]),
}


@settings(deadline=None, max_examples=60)
@given(tables(), st.integers(0, 2))
def test_a_frame_built_another_way_is_equal_and_with_any_one_change_it_is_not(table: pd.DataFrame, at: int) -> None:
    own = digest(table)
    assert digest(consolidated_apart(table)) == own
    assert digest(pd.concat([table.iloc[:at], table.iloc[at:]])) == own
    assert digest(table.iloc[::-1].iloc[::-1]) == own
    changed = {what: digest(change(table, at)) for what, change in CHANGES.items()}
    assert [what for what, other in changed.items() if other == own] == []
    for name in table:
        column = table[name]
        assert digest(column) == digest(column.iloc[::-1].copy().iloc[::-1])
        others = [column.rename("other"), column.iloc[:2], column.set_axis([5, 3, 9]), column.to_frame()]
        assert digest(column) not in {digest(other) for other in others}


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["i1", "u2", "i4", "i8", "f4", "f8", "c16", "?", "M8[s]", "m8[ms]", "S3", "U2"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3), st.binary(min_size=64, max_size=64), st.data(),
)  # fmt: skip
def test_an_array_laid_out_another_way_is_equal_and_with_any_one_change_it_is_not(
    kind: str, shape: list[int], seed: bytes, data: st.DataObject
) -> None:
    numbers = np.array([seed[place % 64] % 100 for place in range(int(np.prod(shape)))])
    plain = numbers.astype("i8").astype(kind).reshape(shape)
    own = digest(plain)
    spread = np.zeros([2 * side for side in shape], kind)
    spread[tuple(slice(None, None, 2) for _ in shape)] = plain
    for other in (np.asfortranarray(plain), spread[tuple(slice(None, None, 2) for _ in shape)],
                  np.flip(np.flip(plain).copy()), plain.astype(plain.dtype.newbyteorder(">"))):  # fmt: skip
        assert digest(other) == own
    changed = plain.copy()
    at = np.unravel_index(data.draw(st.integers(0, plain.size - 1)), plain.shape)
    changed[at] = ~plain[at] if kind == "?" else (numbers.reshape(shape)[at] + 1).astype(kind)
    others = [changed, plain[None], plain.view(f"V{plain.itemsize}"), np.concatenate([plain, plain])]
    if kind in ("f4", "f8", "c16", "M8[s]", "m8[ms]"):
        missing = plain.copy()
        missing[at] = np.nan if kind[0] in "fc" else "NaT"
        others.append(missing)
    assert own not in {digest(other) for other in others}


def rebuilt(value: Any) -> Any:
    """An equal value of new objects, its dicts filled back to front."""
    if type(value) is dict:
        return {rebuilt(key): rebuilt(value[key]) for key in reversed(value)}
    if type(value) in (list, tuple):
        return type(value)(map(rebuilt, value))
    return copy.deepcopy(value)


def one_changed(value: Any, draw: Any) -> Any:
    """The value with one thing in it changed."""
    places = list(value) if type(value) is dict else list(range(len(value))) if type(value) in (list, tuple) else []
    if not places:
        return [value]
    at = draw(st.sampled_from(places))
    if type(value) is dict:
        if draw(st.booleans()):
            return {**value, at: one_changed(value[at], draw)}
        return {f"{key}+" if key == at else key: held for key, held in value.items() if key == at or key != f"{at}+"}
    return type(value)([*value[:at], one_changed(value[at], draw), *value[at + 1 :]])


@settings(deadline=None)
@given(VALUES, st.data())
def test_a_container_filled_in_another_order_is_equal_and_with_one_change_it_is_not(
    value: object, data: st.DataObject
) -> None:
    assert digest(rebuilt(value)) == digest(value)
    assert digest(one_changed(value, data.draw)) != digest(value)


def test_a_range_is_the_index_it_stands_for() -> None:
    assert digest(pd.RangeIndex(3)) == digest(pd.Index([0, 1, 2]))
    assert digest(pd.RangeIndex(3)) != digest(pd.Index([0, 1, 3]))


def test_chunks_slices_and_what_lies_under_a_null_are_layout() -> None:
    whole = pa.table({"a": [1, None, 3], "s": ["x", None, "zz"]})
    assert digest(pa.concat_tables([whole.slice(0, 2), whole.slice(2)])) == digest(whole)
    assert digest(pa.array([0, 1, None, 3, 4]).slice(1, 3)) == digest(pa.array([1, None, 3]))


def test_models_are_named_by_class_parameters_and_learned_state() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    x = np.arange(60.0).reshape(30, 2)
    y = (x[:, 0] % 4 > 1).astype(int)
    for make in (lambda n: RandomForestClassifier(n, random_state=0),
                 lambda n: HistGradientBoostingClassifier(max_iter=n, random_state=0)):  # fmt: skip
        assert digest(make(3).fit(x, y)) == digest(make(3).fit(x, y))
        assert len({digest(make(3)), digest(make(3).fit(x, y)), digest(make(4).fit(x, y))}) == 3


class Trap:
    """Any touch is recorded."""

    touches: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> object:
        Trap.touches.append(name)
        return object.__getattribute__(self, name)

    def _touch(self, *_: object) -> object:
        Trap.touches.append("dunder")
        return NotImplemented

    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = __bool__ = __float__ = __index__ = _touch  # type: ignore[assignment]
    __reduce_ex__ = __array__ = __getitem__ = __contains__ = __call__ = __enter__ = __lt__ = _touch  # type: ignore[assignment]


def test_nothing_of_an_unknown_object_runs() -> None:
    held = np.empty(1, object)
    held[0] = trap = Trap()
    Trap.touches.clear()
    for value in (trap, [trap], {"a": trap}, (1.0,) * 9 + (trap,), held, pd.Series(held), pd.DataFrame({"a": held})):
        Trap.touches.clear()
        assert fingerprint(value).digest is None
        buffers(value)
        immutable(value)
        assert Trap.touches == []


def test_what_is_used_up_by_reading_is_left_alone() -> None:
    numbers = (n for n in range(3))
    assert fingerprint([numbers]).why == "a generator is used up by reading it (at [0])"
    assert list(numbers) == [0, 1, 2]


def test_a_budget_ends_the_work_and_says_so() -> None:
    assert "nodes" in fingerprint(list(range(100_000)), budget=Budget(nodes=1000)).why
    assert "bytes" in fingerprint(np.zeros(1000), budget=Budget(bytes=100)).why
    called_off = Budget()
    threading.Thread(target=called_off.cancel).run()
    assert fingerprint(np.zeros(1000), budget=called_off).why == "called off"


def test_a_file_is_named_by_its_bytes_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert str(file_digest(tmp_path / "a").digest).startswith("blake3:")
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in file_digest(tmp_path / "pipe").why
    assert file_digest(tmp_path / "none").why == "it does not exist"
    (tmp_path / "pipe").unlink()
    before = folder_digest(tmp_path).digest
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder_digest(tmp_path).digest != before


def test_values_that_share_memory_share_a_buffer() -> None:
    root = np.arange(6.0)
    assert buffers(root[1:]) & buffers(root)
    assert buffers(pd.DataFrame(root.reshape(3, 2), copy=False)) & buffers(root)
    inner = [1]
    assert buffers({"a": inner}) & buffers(inner)
    for holder in (Case(1, inner), Row([inner]), Options(a=inner), Point(1, inner), [Case(1, inner)]):
        assert buffers(holder) & buffers(inner)
    assert not buffers((1, "a"))
    assert immutable((1, "a"))
    assert not immutable([])


def test_facts_hold_the_schema_and_no_text_of_the_data() -> None:
    found = fingerprint(pd.DataFrame({"s": ["secret-value"]}))
    assert found.facts is not None
    assert b"secret-value" not in facts_bytes(found.facts)
    assert found.facts["schema"]["columns"][0]["name"] == "s"


class Raster:
    def __init__(self, cells: list[int]) -> None:
        self.cells = cells

    def __reduce__(self) -> object:
        return Raster, (self.cells,)


class RasterProvider:
    tag = "raster-1"

    def types(self) -> dict[type, object]:
        return {Raster: lambda value: value.cells}


class TestAProvidedType(FingerprintSuite):
    provider = RasterProvider()  # type: ignore[assignment]

    def values(self) -> list[object]:
        return [Raster([1, 2]), Raster([2, 1]), Raster([])]


class TestOurOwnTypes(FingerprintSuite):
    def values(self) -> list[object]:
        return [frame(), np.arange(3), pa.table({"a": [1]}), [1, {"a": (2, None)}], frame()["s"]]


def test_a_summary_counts_what_is_missing_and_quotes_no_text() -> None:
    found = fingerprint(frame(), summary=True).facts
    assert found is not None
    assert found["summary"]["n"] == pytest.approx({"missing": 0, "min": 1, "max": 3, "mean": 2, "std": (2 / 3) ** 0.5})
    assert found["summary"]["s"] == {"missing": 1}


class Metres(float):
    pass


class Name(str):
    __slots__ = ()

    def shout(self) -> str:
        return self.upper()


class Row(list):  # type: ignore[type-arg]
    pass


class Options(dict):  # type: ignore[type-arg]
    pass


Point = collections.namedtuple("Point", "x y")


class Edge(NamedTuple):
    a: int
    b: str = "x"


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    RED = 1
    BLUE = 2


class Word(enum.StrEnum):
    RED = "1"
    BLUE = "2"


class Mode(enum.Flag):
    R = 1
    W = 2


@dataclasses.dataclass
class Case:
    a: int
    b: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class FrozenCase:
    a: int
    b: int = 2


class TestClassesOfTheUser(FingerprintSuite):
    def values(self) -> list[object]:
        row = Row([1, 2])
        row.unit = "m"  # type: ignore[attr-defined]
        return [
            1.5, Metres(1.5), Metres(2.5), "a", Name("a"), Name("b"), [1, 2], Row([1, 2]), Row([2, 1]), row, {"a": 1},
            Options(a=1), Options(a=2), (1, 2), Point(1, 2), Point(2, 1), Edge(1), Edge(1, "y"), Colour.RED,
            Colour.BLUE, Level.RED, Level.BLUE, Word.RED, Word.BLUE, Mode.R, Mode.R | Mode.W, Case(1), Case(1, [2]),
            FrozenCase(1), FrozenCase(2), 1, "1",
        ]  # fmt: skip


class TestSmallTypes(FingerprintSuite):
    def values(self) -> list[object]:
        return [
            random.Random(1), random.Random(2), io.BytesIO(b"a"), io.BytesIO(b"b"), io.StringIO("a"), list[int],
            list[str], int | None, int | str, operator.itemgetter(1), operator.itemgetter(2), operator.attrgetter("a"),
            operator.methodcaller("a", 1), operator.methodcaller("a", 2), np.dtype("f8"), np.dtype("i8"), np.float64,
            np.add, np.sum, pd.offsets.Day(1), pd.offsets.Day(2), pd.offsets.Hour(1), pd.offsets.Week(weekday=1),
            pd.offsets.Week(weekday=2), pd.CategoricalDtype(["a"]), pd.CategoricalDtype(["b"]), pd.Int64Dtype(), int,
            collections.deque([1], 3), collections.deque([1]), collections.Counter("aab"), collections.OrderedDict(a=1),
            types.SimpleNamespace(a=1), range(3), slice(1, 2), memoryview(b"ab"), bytearray(b"ab"), 3 + 0j,
        ]  # fmt: skip

    def test_a_copy_has_an_equal_digest(self) -> None:
        copied = [value for value in self.values() if not isinstance(value, memoryview)]
        assert [digest(copy.deepcopy(value)) for value in copied] == [digest(value) for value in copied]


@pytest.mark.parametrize("method", ["__iter__", "__len__", "__getitem__", "__eq__", "__getattribute__", "__reduce__"])
@pytest.mark.parametrize("base", [list, dict, str, int, tuple])
def test_a_subclass_that_shows_other_than_it_holds_has_no_digest(base: type, method: str) -> None:
    kind = type("Kind", (base,), {method: lambda *_: 1 / 0})
    assert f"defines {method}" in fingerprint(kind()).why


def test_a_named_tuple_counts_by_its_fields_and_an_enumeration_by_its_members() -> None:
    def named(fields: str) -> type:
        return collections.namedtuple("P", fields)  # type: ignore[return-value]

    assert digest(named("x y")) == digest(named("x y"))
    assert digest(named("x y")) != digest(named("x z"))
    assert digest(named("x y")(1, 2)) != digest(named("x z")(1, 2))
    assert digest(enum.Enum("E", "A B")) == digest(enum.Enum("E", "A B")) != digest(enum.Enum("E", "A C"))


def test_a_dataclass_counts_by_its_fields_and_defaults() -> None:
    def made(default: int, **options: bool) -> type:
        return dataclasses.make_dataclass("C", [("a", int, default)], **options)

    assert digest(made(1)) == digest(made(1))
    assert len({digest(made(1)), digest(made(2)), digest(made(1, frozen=True))}) == 3


# -- code --------------------------------------------------------------------------------------------------------------


def module(path: Path, source: str) -> types.ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    exec(compile(source, str(path), "exec"), found.__dict__)
    return found


BASE = "import math\nK = 2\ndef g(x): return x\ndef f(a, b=1, *, c=0):\n    return g(a) + K + math.pi\n"


@pytest.mark.parametrize(("old", "new"), [
    ("b=1", "b=2"), ("c=0", "c=1"), ("K = 2", "K = 3"), ("return x", "return -x"), ("g(a) +", "g(a) -"),
    ("math.pi", "math.e"),
])  # fmt: skip
def test_a_function_counts_by_source_defaults_and_the_globals_it_uses(tmp_path: Path, old: str, new: str) -> None:
    one, same = module(tmp_path / "one.py", BASE), module(tmp_path / "same.py", BASE + "UNUSED = 1\n")
    other = module(tmp_path / "other.py", BASE.replace(old, new))
    assert digest(one.f) == digest(same.f) != digest(other.f)


def test_a_function_of_a_cell_counts_by_its_text_in_the_line_cache() -> None:
    def cell(name: str, text: str) -> dict[str, Any]:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), space)
        return space

    one, moved = cell("<cell-1>", "def f(x):\n    return x\n"), cell("<cell-2>", "K = 1\ndef f(x):\n    return x\n")
    other = cell("<cell-3>", "def f(x):\n    return -x\n")
    assert fingerprint(one["f"]).facts is None
    assert digest(one["f"]) == digest(moved["f"]) != digest(other["f"])
    pair = cell("<cell-4>", "a, b = (lambda x: x), (lambda x: -x)\n")
    assert digest(pair["a"]) != digest(pair["b"])


def test_a_closure_counts_by_what_it_holds() -> None:
    def make(held: object) -> Callable[[], object]:
        return lambda: held

    assert digest(make([1])) == digest(make([1])) != digest(make([2]))


def test_a_class_counts_by_its_methods_attributes_and_bases(tmp_path: Path) -> None:
    source = (
        "class B: pass\nclass C(B):\n    k = 1\n    def m(self): return 1\n    @property\n    def p(self): return 2\n"
    )
    found = {digest(module(tmp_path / "one.py", source).C), digest(module(tmp_path / "two.py", source).C)}
    assert len(found) == 1
    for number, (old, new) in enumerate([("k = 1", "k = 2"), ("return 1", "return 3"), ("return 2", "return 3"),
                                         ("C(B)", "C")]):  # fmt: skip
        found.add(digest(module(tmp_path / f"o{number}.py", source.replace(old, new)).C))
    assert len(found) == 5


def test_a_module_edited_after_its_import_does_not_lend_its_new_source_to_the_old_code(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    old = module(path, "def f(x):\n    return x + 1\n")
    original = digest(old.f)
    linecache.clearcache()
    path.write_text("def f(x):\n    return x + 2\n")
    stale = fingerprint(old.f)
    assert stale.facts == {"schema": {"code": "compiled", "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}}
    linecache.clearcache()
    new = module(path, "def f(x):\n    return x + 2\n")
    assert len({original, stale.digest, digest(new.f)}) == 3
    # moved, but not changed: the source still is the function's
    linecache.clearcache()
    path.write_text("import os\n\ndef f(x):\n    return x + 2\n")
    linecache.clearcache()
    assert fingerprint(new.f).facts is None
    linecache.clearcache()
    path.unlink()
    assert fingerprint(new.f).facts is not None


def test_a_function_with_a_cache_is_the_function() -> None:
    @functools.lru_cache
    def slow(x: int) -> int:
        return x

    before = digest(slow)
    slow(1)
    assert digest(slow) == before


# -- libraries ---------------------------------------------------------------------------------------------------------


class TestPolars(FingerprintSuite):
    def values(self) -> list[object]:
        pl = pytest.importorskip("polars")
        return [
            pl.DataFrame({"a": [1, None], "s": ["x", "yy"]}), pl.DataFrame({"a": [1, 2], "s": ["x", "yy"]}),
            pl.DataFrame({"b": [1, None], "s": ["x", "yy"]}), pl.DataFrame({"s": ["x", "yy"], "a": [1, None]}),
            pl.DataFrame({"a": [1.0, None], "s": ["x", "yy"]}), pl.Series("a", [1, 2]), pl.Series("b", [1, 2]),
            pl.Series("a", ["x", "y"], dtype=pl.Categorical), pl.Series("a", [[1], [2, 3]]),
            pl.Series("a", [[1, 2], [3]]), pl.Series("a", [{"x": 1}, {"x": 2}]),
            pl.Series("a", [[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        ]  # fmt: skip


def test_a_column_of_polars_counts_as_the_arrow_column_it_is() -> None:
    pl = pytest.importorskip("polars")
    from polars.testing import parametric

    from jupyter_mlops.fingerprints import arrow
    from jupyter_mlops.fingerprints.walk import Walk, seal, text

    flat = [pl.String, pl.Binary, pl.Boolean, pl.Decimal, pl.Categorical, pl.Enum, pl.Datetime, pl.Time, pl.Duration,
            pl.Date, pl.Null, pl.Int8, pl.UInt64, pl.Float32]  # fmt: skip
    series = parametric.series(max_size=30, allow_null=True, allowed_dtypes=[*flat, pl.List, pl.Array, pl.Struct])

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(series, st.integers(0, 9), st.booleans())
    def check(one: Any, start: int, twice: bool) -> None:
        one = (pl.concat([one, one], rechunk=False) if twice else one).slice(start)  # chunks and offsets are layout
        walk = Walk(Budget())
        try:
            column = one.to_arrow()
            expected = arrow.column(walk, getattr(column, "chunks", None) or [column], column.type, str(one.dtype))
        except pa.ArrowInvalid:
            return  # integers of 128 bits within a structure, which pyarrow does not know
        assert digest(one) == seal(b"frame-1", b"polars.series", text(one.name), expected.inline()).digest()

    check()


def test_texts_of_polars_are_told_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pl = pytest.importorskip("polars")
    from jupyter_mlops.fingerprints import polar

    held = [None, "", "x" * 12, "y" * 13, "ü€😀" * 9, "z"] * 20
    raw = pl.Series([None if one is None else one.encode() for one in held])
    whole = [digest(pl.Series(held)), digest(raw)]
    monkeypatch.setattr(polar, "_ROWS", 7)
    monkeypatch.setattr(polar, "_MOST", 40)
    assert [digest(pl.Series(held)), digest(raw)] == whole
    assert len({*whole, digest(pl.Series(held[:-1])), digest(pl.Series([*held[:-1], "Z"]))}) == 4


def test_reading_polars_loads_no_library_and_leaves_the_process_as_it_was() -> None:
    pytest.importorskip("polars")
    code = """
import datetime, logging, random, signal, sys, warnings
import polars as pl
from jupyter_mlops.fingerprints import fingerprint
frame = pl.DataFrame({
    "n": [1, None], "f": [1.5, None], "t": ["x", None], "b": [b"x", None], "y": [True, None], "l": [[1], None],
    "s": [{"a": 1}, None], "d": [datetime.date(2020, 1, 1), None], "z": [None, None],
}, schema_overrides={"l": pl.List(pl.UInt8)}).with_columns(
    c=pl.col("t").cast(pl.Categorical), a=pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)),
    m=pl.col("n").cast(pl.Decimal(9, 2)), w=pl.col("n").cast(pl.Int128))
def state():
    return (id(warnings.filters), list(warnings.filters), signal.getsignal(signal.SIGINT), random.getstate(),
            logging.root.level, list(logging.root.handlers))
before, libraries = state(), set(sys.modules)
assert fingerprint(frame).digest and fingerprint(frame.slice(1)).digest
assert state() == before
gained = {name.partition(".")[0] for name in set(sys.modules) - libraries} - sys.stdlib_module_names
assert gained <= {"jupyter_mlops", "polars"}, gained
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class TestSparse(FingerprintSuite):
    def values(self) -> list[object]:
        sparse = pytest.importorskip("scipy.sparse")
        dense = np.array([[0, 1.5, 0, 2], [0, 0, 3, 0], [4, 0, 0, 0], [0, 0, 0, 5]])
        changed = dense.copy()
        changed[0, 1] = 9
        return [
            getattr(sparse, f"{form}_{what}")(held)
            for form in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok") for what in ("array", "matrix")
            for held in (dense, changed, dense.astype("f4"), dense[:3])
        ]  # fmt: skip


class TestArrowMaps(FingerprintSuite):
    def values(self) -> list[object]:
        kind = pa.map_(pa.string(), pa.int64())
        return [pa.array(items, kind) for items in ([[("a", 1)], None], [[("a", 2)], None], [[("b", 1)], None],
                                                   [[("a", 1)], []], [[], [("a", 1)]])]  # fmt: skip


def test_models_of_many_kinds_count_by_what_they_learned() -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x = pd.DataFrame({"n": np.arange(40.0) % 7, "c": ["a", "b"] * 20})
    y = (x["n"] > 3).astype(int)

    def piped() -> Any:
        columns = ColumnTransformer([("n", StandardScaler(), ["n"]), ("c", OneHotEncoder(), ["c"])])
        return Pipeline([("columns", columns), ("model", LogisticRegression())])

    makes: list[tuple[Callable[[], Any], Any]] = [
        (lambda: GradientBoostingClassifier(n_estimators=3, random_state=0), x[["n"]]),
        (lambda: GradientBoostingRegressor(n_estimators=3, random_state=0), x[["n"]]),
        (LogisticRegression, x[["n"]]),
        (piped, x),
    ]
    for make, data in makes:
        other = y.copy()
        other.iloc[:8] = 1 - other.iloc[:8]
        assert digest(make()) == digest(make())
        assert digest(make().fit(data, y)) == digest(make().fit(data, y))
        assert len({digest(make()), digest(make().fit(data, y)), digest(make().fit(data, other))}) == 3


def test_tensors_and_modules_count_by_their_items_and_state() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    plain = torch.arange(6.0).reshape(2, 3)
    assert digest(plain) == digest(plain.T.contiguous().T) == digest(plain.clone())
    others = [plain + 1, plain.T, plain.double(), plain.bfloat16(), plain.clone().requires_grad_(),
              torch.nn.Parameter(plain.clone()), torch.zeros(0), torch.tensor(3.0), plain.numpy()]  # fmt: skip
    assert len({digest(plain), *map(digest, others)}) == len(others) + 1
    assert fingerprint(plain.to_sparse()).digest is None
    assert fingerprint(torch.empty(2, device="meta")).why == "its memory is not the CPU's"
    assert buffers(plain[1:]) & buffers(plain)
    watched: list[object] = []

    class Watching(torch.overrides.TorchFunctionMode):  # type: ignore[name-defined,misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
            watched.append(func)
            return func(*args, **(kwargs or {}))

    with Watching():
        assert fingerprint(plain).digest == fingerprint(plain.detach()).digest
    assert len(watched) == 1  # the test's own detach()
    array = np.arange(3.0)
    assert buffers(torch.from_numpy(array)) & buffers(array)
    assert buffers(array[1:]) & buffers(torch.from_numpy(array))

    class Net(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self, k: int) -> None:
            super().__init__()
            self.inner, self.norm, self.k = torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), k

    def net(k: int = 1) -> Any:
        torch.manual_seed(0)
        return Net(k)

    trained, other = net(), net()
    with torch.no_grad():
        trained.inner.weight[0, 0] += 1
    other.norm.running_mean += 1
    assert digest(net()) == digest(net())
    assert len({digest(one) for one in (net(), net(2), trained, other, net().eval())}) == 5


# -- what is not known -------------------------------------------------------------------------------------------------

DUNDERS = [
    "__eq__", "__ne__", "__lt__", "__hash__", "__len__", "__iter__", "__next__", "__getitem__", "__contains__",
    "__bool__", "__int__", "__index__", "__float__", "__complex__", "__repr__", "__str__", "__format__", "__bytes__",
    "__call__", "__enter__", "__exit__", "__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__",
    "__getnewargs_ex__", "__copy__", "__deepcopy__", "__sizeof__", "__dir__", "__getattribute__", "__getattr__",
    "__setattr__", "__delattr__", "__array__", "__array_interface__", "__array_struct__", "__array_ufunc__",
    "__array_function__", "__arrow_array__", "__arrow_c_array__", "__arrow_c_stream__", "__dataframe__", "__dlpack__",
    "__buffer__", "__fspath__", "__length_hint__", "__reversed__", "__missing__", "__del__", "__instancecheck__",
    "__torch_function__", "__sklearn_tags__", "__sklearn_clone__", "__set_name__", "__class_getitem__", "__get__",
]  # fmt: skip
TOUCHED: list[str] = []


def _touch(name: str) -> Callable[..., object]:
    def touched(*_: object, **__: object) -> object:
        TOUCHED.append(name)
        if name != "__del__":  # there it would only be a warning, of whatever test comes next
            raise RuntimeError(name)
        return None

    return touched


def hostile_class(seed: random.Random) -> type:
    """A class whose own and whose metaclass's dunders all record that they were touched."""
    names = seed.sample(DUNDERS, seed.randrange(8, len(DUNDERS)))
    base = seed.choice([object, object, list, dict, str, int, float, tuple, set, bytes, Exception])
    space: dict[str, object] = {name: _touch(name) for name in names if name not in ("__setattr__", "__set_name__")}
    space["__getattribute__"] = _touch("__getattribute__")
    if seed.random() < 0.5:
        space["__class__"] = property(_touch("__class__"))
    if seed.random() < 0.3 and "__dict__" not in space:
        space["__dict__"] = property(_touch("__dict__"))
    space["__module__"] = seed.choice(["__main__", "numpy", "pandas", "pyarrow.lib", "torch", "sklearn.tree._tree",
                                       "scipy.sparse", "polars", "builtins", "collections"])  # fmt: skip
    space["__qualname__"] = seed.choice(["ndarray", "DataFrame", "Series", "Table", "Tensor", "Tree", "csr_array", "X"])
    if seed.random() < 0.5:
        return type("Hostile", (base,), space)
    meta_space: dict[str, object] = {
        name: _touch(f"meta {name}") for name in ("__getattribute__", "__getattr__", "__eq__", "__hash__", "__len__",
                                                  "__instancecheck__", "__subclasscheck__", "__call__", "__repr__",
                                                  "__iter__", "__dir__", "__prepare__")
    }  # fmt: skip
    meta = type("Meta", (type,), meta_space)
    return type.__new__(meta, "Hostile", (base,), space)


def hostile_value(seed: random.Random, keep: list[object]) -> object:
    kind = hostile_class(seed)
    builtin = type.__dict__["__mro__"].__get__(kind)[1]
    value = builtin.__new__(kind)
    keep.append(value)
    held = np.empty(2, object)
    held[0], held[1] = value, "x"
    around: list[Callable[[], object]] = [
        lambda: value, lambda: [value], lambda: {"a": [1, (value,)]}, lambda: (1.0, value), lambda: held,
        lambda: pd.DataFrame({"a": pd.Series(held, dtype=object)}), lambda: kind, lambda: {"k": kind},
        lambda: functools.partial(print, value), lambda: types.SimpleNamespace(a=value), lambda: [[value] * 20] * 3,
        lambda: collections.deque([value]), lambda: (lambda: value), lambda: types.MethodType(print, value),
    ]  # fmt: skip
    return seed.choice(around)()


@pytest.mark.parametrize(
    "numbers",
    [range(2000), pytest.param(range(2000, 10_000), marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])],
    ids=["2,000", "8,000 more"],
)
def test_hostile_namespaces_are_not_touched(numbers: range) -> None:
    keep: list[object] = []  # a finaliser that runs because we forgot an object is the test's doing, not ours
    for number in numbers:
        seed = random.Random(number)
        namespace = {f"v{place}": hostile_value(seed, keep) for place in range(seed.randrange(1, 4))}
        TOUCHED.clear()
        for value in (*namespace.values(), namespace):
            fingerprint(value)
            fingerprint(value, budget=Budget(seconds=5, nodes=1000), summary=True)
            buffers(value)
            immutable(value)
        assert TOUCHED == [], number
    # Whoever walks the classes of errors, as libraries do that pickle them, would come upon ours.
    keep.clear()
    del namespace, value
    gc.collect()
    assert "Hostile" not in map(type.__dict__["__name__"].__get__, Exception.__subclasses__())


def test_the_class_of_an_extension_type_is_not_asked() -> None:
    class Hostile(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.int64(), "hostile")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

    kind = Hostile()
    values = [pa.schema([pa.field("plain", pa.int64()), pa.field("x", kind)]).empty_table(), kind,
              pa.chunked_array([pa.ExtensionArray.from_storage(kind, pa.array([1]))]),
              pa.chunked_array([], pa.struct([("a", pa.list_(kind))]))]  # fmt: skip
    for name in ("__str__", "__repr__", "__arrow_ext_class__", "__arrow_ext_scalar_class__"):
        setattr(Hostile, name, _touch(name))
    TOUCHED.clear()
    for value in values:
        assert "not known" in fingerprint(value).why
    assert TOUCHED == []


def test_an_extension_type_of_arrows_own_is_its_storage() -> None:
    held = pa.chunked_array([pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))])
    other = pa.chunked_array([pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 1], pa.int8()))])
    assert digest(held) != digest(other)


def test_work_called_off_from_another_thread_ends_at_once() -> None:
    budget = Budget(bytes=1 << 60)
    value = [np.zeros(4 << 20, "u1")] * 100_000
    distinct = [value[0][n:] for n in range(100_000)]
    found = []
    worker = threading.Thread(target=lambda: found.append(fingerprint(distinct, budget=budget)))
    worker.start()
    while budget.room == budget.bytes and worker.is_alive():
        time.sleep(0)  # until it has begun
    began = time.monotonic()
    budget.cancel()
    worker.join(60)
    assert not worker.is_alive(), time.monotonic() - began
    assert found[0].why.startswith("called off")


def test_the_keys_of_a_mapping_are_not_looked_up() -> None:
    class Key:
        pass

    held = [collections.OrderedDict({Key(): 1}), {Key(): 1}, {Key()}, collections.Counter([Key()])]
    for name in ("__hash__", "__eq__", "__getattribute__"):
        setattr(Key, name, _touch(name))
    TOUCHED.clear()
    for value in held:
        assert fingerprint(value).digest is None
        buffers(value)
    assert TOUCHED == []


@pytest.mark.parametrize("make", [
    lambda: {str(n): n for n in range(1_000_000)}, lambda: set(range(3_000_000)),
    lambda: [(n,) for n in range(300_000)],
    lambda: pd.array(["a"] * 2_000_000, dtype=pd.StringDtype("python")), lambda: np.array(["ab"] * 2_000_000, object),
])  # fmt: skip
def test_every_long_walk_looks_at_its_budget(make: Callable[[], object]) -> None:
    value = make()
    assert fingerprint(value, budget=Budget(seconds=0)).why.startswith("over the budget of 0 s")


@given(
    st.lists(st.binary(max_size=2), max_size=300) | st.lists(st.tuples(st.binary(max_size=1), st.binary(max_size=1))),
    st.integers(2, 40),
)
def test_a_sort_in_pieces_is_the_sort(items: list[Any], run: int) -> None:
    assert in_order(items, lambda: None, run=run) == sorted(items)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("kind", [set, dict.fromkeys])
def test_a_large_sort_looks_at_its_budget_between_small_pieces(kind: Callable[[Any], Any], order: int) -> None:
    looks = []
    numbers = [b"%08d" % (n * 7919 % 1_000_003) for n in range(400_000)][::order]
    assert in_order(numbers, lambda: looks.append(1)) == sorted(numbers)
    assert len(looks) >= 2 * 400_000 // (1 << 15)
    value = kind(range(400_000))
    budget = Budget(seconds=3600)
    budget.cancel()
    assert fingerprint(value, budget=budget).why.startswith("called off")
    assert fingerprint(value).digest == fingerprint(kind(list(range(400_000))[::-1])).digest


def test_what_holds_a_figure_has_none() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    assert "not known" in fingerprint({"f": figure}).why


def test_copying_or_pickling_an_instance_does_not_change_its_class_or_itself() -> None:
    """Python leaves a note of its own on the class then."""

    class Held:
        def __init__(self) -> None:
            self.inside = [1]

    held = Held()
    before, of_class = digest(held), digest(Held)
    assert "__slotnames__" not in vars(Held)
    copy.deepcopy(held)
    assert "__slotnames__" in vars(Held)
    assert (digest(held), digest(Held)) == (before, of_class)
