"""A digest is of the whole content, the same everywhere, and made without touching what is not known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops.fingerprints import Budget, buffers, facts_bytes, file_digest, fingerprint, folder_digest, immutable
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
    import copy

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
