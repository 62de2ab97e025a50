"""Variables that share memory or objects, in whatever way: each change is on record, and comes back where it did."""

from __future__ import annotations

import contextlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from test_namespace import Notebook, after, cell, reads, writes

from jupyter_mlops.fingerprints import Budget, fingerprint, holdings
from jupyter_mlops.store import Store
from jupyter_mlops.values import bring, keep, layout

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning",
    "ignore:\\s*A value is trying to be set:Warning", "ignore:DataFrame is highly fragmented:Warning",
)  # fmt: skip

HEAD = "import numpy as np, pandas as pd\n"
FRAME = "a = pd.DataFrame({'x': [1., 2.], 'y': [3., 4.]})\n"
ROWS = "a = pd.DataFrame({'x': [1., 2.]}, index=[5, 7])\n"
STRUCTURE = "a = np.zeros(3, [('x', 'i4'), ('y', 'f8')])\n"

SCENES = {
    # tables that share data
    "a shallow copy": (FRAME + "b = a.copy(deep=False)", "b.iloc[0, 0] = 9"),
    "a shallow copy's names": (FRAME + "b = a.copy(deep=False)", "b.columns.name = 'k'"),
    "a column": (FRAME + "b = a['x']", "b.iloc[0] = 9"),
    "a column's frame": (FRAME + "b = a['x']", "a.iloc[0, 0] = 9"),
    "a column that takes another dtype": (
        FRAME + "b = a['x']", "try: b.loc[0] = 'text'\nexcept TypeError: pass  # pandas 3"
    ),
    "a column that its frame remembers": (FRAME + "b = a['x']", "b.name = 'z'; c = (a['x'] is b, a['x'].name)"),
    "rows": (FRAME + "b = a.iloc[1:]", "b.iloc[0, 0] = 9"),
    "columns": (FRAME + "b = a.loc[:, 'x':'y']", "b.iloc[0, 0] = 9"),
    "its array": (FRAME + "b = a.to_numpy().view(); b.flags.writeable = True", "b[0, 0] = 9"),
    "a frame over an array": ("a = np.ones((3, 2)); b = pd.DataFrame(a, copy=False)", "a[0, 0] = 9"),
    "frames over an array that is gone": (
        "z = np.ones((3, 2)); a = pd.DataFrame(z, copy=False); b = pd.DataFrame(z, copy=False); del z",
        "a._mgr.blocks[0].values[0, 0] = 9",
    ),
    "a series over an array": ("a = np.array([5., 7.]); b = pd.Series(a, copy=False)", "a[0] = 9"),
    "an array under a series": ("a = np.array([5., 7.]); b = pd.Series(a, copy=False)", "b.iloc[0] = 9"),
    "one of very many columns": (
        "a = pd.DataFrame(index=range(2))\nfor i in range(1500): a[i] = float(i)\nb = a._mgr.blocks[1490].values",
        "b[0, 0] = -1",
    ),
    "an extension array": ("a = pd.DataFrame({'x': pd.array([1, 2], 'Int64')}); b = a['x'].array", "b[0] = 9"),
    "its mask": ("a = pd.array([1, 2], 'Int64'); b = a._mask", "b[0] = True"),
    "sides of intervals": (
        "l, r = np.array([1, 2]), np.array([2, 3])\n"
        "a = pd.Series(pd.arrays.IntervalArray.from_arrays(l, r, copy=False), copy=False)", "l[0] = 0"
    ),
    "sparse values": ("a = pd.Series(pd.arrays.SparseArray([0, 0, 1., 2.]), copy=False); b = a.array.sp_values",
                      "b[0] = 9"),
    "codes of categories": (
        "z = np.array([0, 1], np.int8); a = pd.Series(pd.Categorical.from_codes(z, ['p', 'q']), copy=False)", "z[0] = 1"
    ),
    # objects in tables and arrays
    "a list in a frame": ("xs = [1]; a = pd.DataFrame({'o': [xs, 2]})", "xs.append(3)"),
    "a list out of a frame": ("xs = [1]; a = pd.DataFrame({'o': [xs, 2]})", "a.loc[0, 'o'].append(3)"),
    "a list in two frames": ("a = pd.DataFrame({'o': [[1], 2]}); b = a.copy()", "b.loc[0, 'o'].append(3)"),
    "an array in a frame": ("z = np.arange(3); a = pd.DataFrame({'o': [z, None]})", "z[0] = 9"),
    "the last of many lists": ("xs = [1]; a = pd.Series([[n] for n in range(3000)] + [xs])", "xs.append(3)"),
    "a list among many texts": ("xs = [1]; a = pd.DataFrame({'o': ['x'] * 300_000 + [xs]})", "xs.append(3)"),
    "a list in an array's part": ("xs = [1]; z = np.empty(30, object); z[29] = xs; b = z[20:]; del z", "xs.append(3)"),
    "a list in a square": ("xs = [1]; a = np.empty((2, 2), object); a[1, 1] = xs; b = a[1:]", "xs.append(3)"),
    "what was hung on a frame": ("xs = [1]; a = pd.DataFrame({'x': [1]}); a.attrs['k'] = xs",
                                 "xs.append(2); c = a.attrs['k']"),
    "an empty note on a frame": ("a = pd.DataFrame({'x': [1]}); d = a.attrs", "d['k'] = 2; c = dict(a.attrs)"),
    # indexes that share memory though they are others
    "a view of an index": (ROWS + "b = a.copy(); b.index = a.index.view()", "np.asarray(b.index)[0] = 9"),
    "an index under a view": (ROWS + "b = a.copy(); b.index = a.index.view()", "np.asarray(a.index)[0] = 9"),
    "set_axis": (ROWS + "b = pd.DataFrame({'z': [1, 2]}).set_axis(a.index)", "np.asarray(b.index)[0] = 9"),
    "set_axis, renamed": (ROWS + "b = pd.DataFrame({'z': [1, 2]}).set_axis(a.index)", "b.index.name = 'q'"),
    "a part of an index": (ROWS + "b = pd.DataFrame({'z': [1]}, index=a.index[1:])", "np.asarray(b.index)[0] = 9"),
    "an index over an array": (
        "z = np.array([5, 7]); a = pd.DataFrame({'x': [1., 2.]}, index=pd.Index(z, copy=False))", "z[0] = 9"
    ),
    "indexes over an array that is gone": (
        "z = np.array([5, 7]); a = pd.DataFrame({'x': [1., 2.]}, index=pd.Index(z, copy=False))\n"
        "b = pd.Series([1, 2], index=pd.Index(z, copy=False)); del z", "np.asarray(b.index)[0] = 9"
    ),
    "an index over a column": (
        FRAME + "b = pd.Series([1, 2], index=pd.Index(a['x']))", "a._mgr.blocks[0].values[0, 0] = 9"
    ),
    "an index from a column": (FRAME + "b = pd.Series([1, 2], index=a['x'])", "a.iloc[0, 0] = 9"),
    "times over an array": (
        "z = np.array(['2020', '2021'], 'M8[ns]'); b = pd.Series([1, 2], index=pd.DatetimeIndex(z, copy=False))",
        "z[0] = '2022'",
    ),
    "a view of levels": (
        "a = pd.DataFrame({'x': [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 2), (3, 4)]))\n"
        "b = pd.Series([4, 5], index=a.index.view())", "np.asarray(b.index._levels[0])[0] = 9"
    ),
    "a level": (
        "a = pd.DataFrame({'x': [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 2), (3, 4)])); b = a.index.levels[0]",
        "np.asarray(b)[0] = 9",
    ),
    "categories over an array": (
        "z = np.array([10, 20]); a = pd.Series(pd.Categorical([10, 20], categories=pd.Index(z, copy=False)))",
        "z[0] = 11",
    ),
    "categories of a dtype": (
        "d = pd.CategoricalDtype(pd.Index(np.array([10, 20]), copy=False)); a = pd.Series([10, 20], dtype=d)",
        "np.asarray(d.categories)[0] = 11",
    ),
    # arrays over memory
    "views of what no name holds": ("z = np.arange(10); a = z[:6]; b = z[4:]; del z", "a[5] = 99"),
    "windows": (
        "from numpy.lib.stride_tricks import as_strided, sliding_window_view\n"
        "a = np.arange(10); b = as_strided(a, (4,), (16,)); c = sliding_window_view(a, 3, writeable=True)",
        "c[0, 0] = 99",
    ),
    "arrays over bytes": (
        "m = bytearray(b'abcdefgh'); a = np.frombuffer(m, np.uint8); b = np.frombuffer(m, np.uint8)[2:]", "b[0] = 1"
    ),
    "arrays over bytes that are gone": (
        "m = bytearray(b'abcdefgh'); a = np.frombuffer(m, np.uint8); b = np.frombuffer(m, np.uint8)[2:]; del m",
        "b[0] = 1",
    ),
    "bytes under arrays": ("m = bytearray(b'abcdefgh'); a = np.frombuffer(m, np.uint8)[2:]", "m[3] = 1"),
    "a field of records": ("a = np.rec.array([(1, 2.), (3, 4.)]); b = a.f0", "b[0] = 9"),
    "a row": (STRUCTURE + "b = a[1]", "b['x'] = 9"),
    "a row's array": (STRUCTURE + "b = a[1]", "a['x'][1] = 9"),
    "a record": ("a = np.rec.array([(1, 2.), (3, 4.)]); b = a[1]", "b.f0 = 9"),
    "two rows": (STRUCTURE + "b = a[1]; c = a[1]; del a", "b['x'] = 9"),
    "a row of its own": (STRUCTURE + "b = a[1].copy()", "b['x'] = 9"),
    "a masked array": ("a = np.ma.array([1, 2, 3], mask=[0, 0, 1]); b = a[:2]", "b[0] = np.ma.masked"),
    "data and mask": ("a = np.ma.array([1, 2, 3], mask=[0, 0, 1]); b = a.data; c = a.mask",
                      "b[0] = 9; a[1] = np.ma.masked"),
    "one mask": ("m = np.array([False, False]); a = np.ma.array([1, 2], mask=m, copy=False)\n"
                 "b = np.ma.array([3, 4], mask=m, copy=False)", "a[0] = np.ma.masked"),
    "a sparse matrix": (
        "import scipy.sparse as sp\n"
        "d, i, p = np.array([1., 2.]), np.array([0, 1], np.int32), np.array([0, 1, 2], np.int32)\n"
        "a = sp.csr_matrix((d, i, p), copy=False); b = sp.csc_matrix((d, i, p), copy=False)", "d[0] = 9"
    ),
    # what is drawn from
    "a generator and its bits": ("g = np.random.default_rng(1); b = g.bit_generator",
                                 "c = [b.random_raw(), g.random()]"),
    "two generators on one": (
        "b = np.random.MT19937(1); g = np.random.Generator(b); r = np.random.RandomState(b)",
        "c = [g.random(), r.rand()]",
    ),
    "an old generator on new bits": ("r = np.random.RandomState(np.random.PCG64(3)); r.rand(3)", "c = r.rand()"),
    "children of a generator": ("g = np.random.default_rng(1); first = g.spawn(1)",
                                "c = [k.random() for k in g.spawn(2)]"),
    "seeds": ("s = np.random.SeedSequence(1); g = np.random.default_rng(s)",
              "c = [k.random() for k in g.spawn(2)]; d = s.spawn(1)[0].generate_state(1)"),
    # tensors
    "a tensor over an array": ("import torch\na = np.arange(4.); t = torch.from_numpy(a)", "t[0] = 9"),
    "a tensor over a part": ("import torch\na = np.arange(4.); t = torch.from_numpy(a[1:])", "t[0] = 9"),
    "an array under a tensor": ("import torch\na = np.arange(4.); t = torch.from_numpy(a[1:])", "a[1] = 9"),
    "tensors over what is gone": (
        "import torch\na = np.arange(4.); t = torch.from_numpy(a[:3]); u = torch.from_numpy(a[1:]); del a", "t[1] = 9"
    ),
    "arrays over a tensor": ("import torch\nt = torch.arange(4.); a = t[1:].numpy(); b = t.numpy()", "a[0] = 9"),
    "tensors over bytes": (
        "import torch\nm = bytearray(8); t = torch.frombuffer(m, dtype=torch.uint8)\n"
        "u = torch.frombuffer(m, dtype=torch.uint8, offset=2)", "u[0] = 9"
    ),
    "a capsule": ("import torch\na = np.arange(4.); t = torch.from_dlpack(a[1:])", "t[0] = 9"),
    "a gradient": (
        "import torch\nw = torch.ones(2, requires_grad=True); (w * 2).sum().backward(); g = w.grad", "g[0] = 9"
    ),
    "a layer's weights": ("import torch\nm = torch.nn.Linear(2, 2); w = m.weight.data", "w[0, 0] = 9"),
    # data of a library that nobody can write
    "numbers that polars shows": ("import polars as pl\nt = pl.DataFrame({'x': [1., 2.]}); a = t['x'].to_numpy()",
                                  "b = float(a.sum())"),
}  # fmt: skip
"""What a notebook makes, and a change through one of its names."""

LEFT = {
    "a view of bytes": ("m = bytearray(b'abcdefgh'); v = memoryview(m)[2:]; a = np.asarray(v)", "a[0] = 1", {"v"}),
    "a view of an array": ("a = np.arange(4); v = memoryview(a)", "v[0] = 9", {"v"}),
    "a stdlib array": ("import array\nm = array.array('d', [1, 2, 3]); a = np.frombuffer(m)", "a[0] = 9", {"a"}),
    "arrays over a stdlib array that is gone": (
        "import array\nm = array.array('d', [1, 2, 3]); a = np.frombuffer(m); b = np.asarray(m); del m", "a[0] = 9",
        {"a", "b"},
    ),
    "a stream": ("import io\nm = io.BytesIO(b'abcdef'); a = np.frombuffer(m.getbuffer(), np.uint8)", "a[0] = 9", {"a"}),
    "memory of C": (
        "import ctypes\nm = (ctypes.c_double * 3)(1, 2, 3); a = np.ctypeslib.as_array(m); b = np.frombuffer(m)",
        "b[0] = 9", {"m"},
    ),
    "mapped memory": ("import mmap\nm = mmap.mmap(-1, 16); a = np.frombuffer(m, np.uint8)\n"
                      "b = np.frombuffer(m, np.uint8)", "a[0] = 9", {"m", "a", "b"}),
    "a mapped file": ("m = np.memmap('mapped', mode='w+', shape=4); a = np.asarray(m); b = a[1:]", "b[0] = 9",
                      {"m", "a", "b"}),
    "an iterator over items": ("a = np.arange(4); f = a.flat", "f[0] = 9", {"f"}),
    "an iterator of C": ("a = np.arange(4); f = np.nditer(a, op_flags=['readwrite'])", "f.operands[0][0] = 9", {"f"}),
    "Arrow over an array": ("import pyarrow as pa\na = np.arange(4.); t = pa.array(a[1:]); n = [t]", "a[1] = 9",
                            {"t", "n"}),
    "Arrow's tables over an array": ("import pyarrow as pa\na = np.arange(4.); t = pa.table({'x': a[1:]})", "a[1] = 9",
                                     {"t"}),
    "an array over Arrow's buffer": (
        "import pyarrow as pa\na = np.arange(4.); b = pa.py_buffer(a); t = np.frombuffer(b)", "a[1] = 9", {"b"}
    ),
    "polars over an array": (
        "import polars as pl\na = np.arange(4.); v = pl.Series([1.])\n"
        "t = pl.Series('x', a); u = pl.DataFrame({'x': a})",
        "a[1] = 9", {"t", "u"},
    ),
    "an indexer": ("a = pd.Series([1., 2.]); g = a.iloc", "g[0] = 9", {"g"}),
    "a word on a frame": ("a = pd.DataFrame({'x': [1]}); a.note = xs = [1]", "xs.append(2)", {"a"}),
}  # fmt: skip
"""Likewise, with the names that can not be kept: which is said."""

ALL = {name: (*scene, set()) for name, scene in SCENES.items()} | LEFT
MODES = ["as it is"] if pd.__version__ >= "3" else ["copies on write", "views"]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects in large arrays are followed as long as there is time: here there is, however slow the machine."""
    monkeypatch.setattr(sys.modules["jupyter_mlops.namespace.reach"], "_PATIENCE", 600.0)


@pytest.fixture(params=MODES)
def pandas(request: pytest.FixtureRequest) -> Iterator[None]:
    with (
        contextlib.nullcontext()
        if len(MODES) == 1
        else pd.option_context("mode.copy_on_write", request.param == "copies on write")
    ):
        yield


def scene(name: str) -> tuple[str, str, set[str]]:
    made, change, left = ALL[name]
    for module in re.findall(r"import (torch|polars|pyarrow)\b", made):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    return made, change, left


def content(variables: dict[str, Any]) -> dict[str, str | None]:
    """What each variable holds, in builtin words where it has no digest."""
    mine = {name: value for name, value in variables.items() if name not in ("np", "pd", "sp") and name[:2] != "__"}
    return {name: fingerprint(value).digest for name, value in mine.items()}


def warns(name: str, notebook: Notebook) -> bool:
    """Whether pandas 2 warns who writes to a variable that it may be a copy: that does not come back."""
    return getattr(notebook.variables[name], "_is_copy", None) is not None


@pytest.mark.usefixtures("pandas")
@pytest.mark.parametrize("name", ALL)
def test_every_variable_that_a_change_shows_in_is_on_record_as_changed(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, change, _ = scene(name)
    notebook = Notebook(budget=60.0)
    notebook.run(HEAD)
    notebook.run(made)
    was = content(notebook.variables)
    delta = notebook.run(change)
    now = content(notebook.variables)
    changed = {one for one in was if now[one] != was[one]}
    assert changed <= writes(delta)
    assert not [gap for gap in delta.gaps if gap.blocks]
    for one in changed:  # who reads it next reads what is there, and builds on that cell
        read = notebook.run(f"None, {one}")
        assert [(found.digest, found.name) for found in read.inputs] == [(now[one], one)]
        assert 3 in after(read)
        assert not [gap for gap in read.gaps if gap.blocks]


@pytest.mark.usefixtures("pandas")
@pytest.mark.parametrize("name", ALL)
def test_after_a_checkout_a_change_shows_where_it_did_or_it_is_said_that_it_can_not(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    made, change, expected = scene(name)
    notebook = Notebook(budget=60.0)
    notebook.run(HEAD + made)
    before, laid = content(notebook.variables), {}
    back: dict[str, Any] = {"__name__": "__main__"}
    left: dict[str, str] = {}
    waiting = set(before)
    with Store.create(tmp_path / "store") as store:
        while waiting:  # a manifest for each that share, as checkpoints do it
            group = notebook.namespace.sharing([min(waiting)])
            waiting -= group
            kept = keep({one: notebook.variables[one] for one in sorted(group)}, store, space=notebook.variables)
            left |= kept.left
            if kept.manifest is not None:
                back |= bring(kept.manifest, store, space=back)
                if not kept.left:
                    laid |= {one: layout({one: notebook.variables[one]}) for one in group if not warns(one, notebook)}
    assert set(left) == expected
    exec(HEAD, back)
    assert {one: digest for one, digest in content(back).items() if one in before} == {
        one: digest for one, digest in before.items() if one not in expected
    }
    assert {one: layout({one: back[one]}) for one in laid} == laid
    exec(change, notebook.variables)
    try:
        exec(change, back)
    except NameError:
        assert expected  # the change goes through a name that is not there, as is said
        return
    now = content(notebook.variables)
    assert {one: digest for one, digest in content(back).items() if one not in expected} == {
        one: digest for one, digest in now.items() if one not in expected
    }


@pytest.mark.parametrize(
    "name", ["arrays over bytes", "a row", "a tensor over a part", "two generators on one", "one mask"]
)
def test_what_is_shared_tells_in_the_layout(name: str) -> None:
    made, _, _ = scene(name)
    one: dict[str, Any] = {}
    exec(HEAD + made, one)
    names = list(content(one))
    apart: dict[str, Any] = {}
    for each in names:  # the same once more for each name, so that none shares with another
        alone: dict[str, Any] = {}
        exec(HEAD + made, alone)
        apart[each] = alone[each]
    together = {each: one[each] for each in names}
    again: dict[str, Any] = {}
    exec(HEAD + made, again)
    assert layout(together) == layout({each: again[each] for each in names})
    assert layout(together) != layout(apart)


def test_children_that_a_generator_had_are_content_of_it() -> None:
    import numpy as np

    one, other = np.random.default_rng(1), np.random.default_rng(1)
    assert fingerprint(one).digest == fingerprint(other).digest
    one.spawn(1)
    assert fingerprint(one).digest != fingerprint(other).digest
    other.spawn(1)
    assert fingerprint(one).digest == fingerprint(other).digest
    old = np.random.RandomState(np.random.PCG64(1))
    was = fingerprint(old).digest
    old.rand()
    assert fingerprint(old).digest != was


HUNG = "import pandas as pd\ndf = pd.DataFrame({'x': [1, 2]}); s = df['x']; df.attrs['unit'] = 'm'"


@pytest.mark.parametrize(
    ("sources", "makers"),
    [
        ((HUNG, "df.attrs['unit'] = 'km'", "unit = df.attrs['unit']"), {1, 2}),
        ((HUNG, "notes = df.attrs; notes['unit'] = 'km'", "unit = df.attrs['unit']"), {1, 2}),
        ((HUNG, "df.note = [1]", "df.note.append(2)", "note = df.note"), {1, 3}),
        ((HUNG, "s.attrs['unit'] = 'km'", "unit = s.attrs['unit']"), {1, 2}),
        (
            ("import torch\nw = torch.ones(2, requires_grad=True)", "loss = (w * 2).sum()", "loss.backward()",
             "g = w.grad.clone()"), {1, 3},
        ),
        (("import numpy as np\nr = np.random.default_rng(1)", "a = r.spawn(1)", "b = r.spawn(1)"), {1, 2}),
    ],
)  # fmt: skip
def test_what_hangs_on_a_value_is_read_from_the_cell_that_hung_it_there(
    sources: tuple[str, ...], makers: set[int]
) -> None:
    if "torch" in sources[0]:
        pytest.importorskip("torch", reason="PyTorch is not installed")
    notebook = Notebook(budget=60.0)
    for source in sources:
        delta = notebook.run(source)
    assert after(delta) >= makers - {1}
    assert {one.made for one in delta.inputs if one.name in ("df", "s", "w", "r")} == {cell(max(makers))}


def test_where_a_bytearray_lies_is_known_without_keeping_anybody_from_appending_to_it() -> None:
    import ctypes

    memory = bytearray(b"abcdefgh")
    del memory[:3]
    held = holdings(memory)
    memory.extend(b"more")
    [(low, high)] = held.lent
    assert high - low == 5
    again = holdings(memory)
    place = ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
    assert again.lent == {(place, place + len(memory))}
    assert holdings(bytearray()).lent == set()


def test_what_is_too_large_to_be_looked_at_again_in_time_keeps_its_maker_and_is_not_said_to_have_changed() -> None:
    notebook = Notebook(budget=0.02)
    notebook.run("big = [str(i) for i in range(400_000)]; n = 1")
    notebook.namespace.wait(Budget())
    notebook.namespace.settle()
    notebook.run("m = n")
    for _ in range(2):
        read = notebook.run("k = len(big)")
        notebook.namespace.wait(Budget())
        assert "big" in reads(read)
        assert 1 in after(read)
        assert read.gaps == []
        assert [one for settled in notebook.namespace.settle() for one in settled.outputs] == []
        notebook.run("m = n")


def test_what_holds_more_than_can_be_followed_is_looked_at_before_it_is_read() -> None:
    notebook = Notebook(budget=60.0)
    notebook.run("class Box: pass\nlast = [0]\nbox = Box(); box.items = [[n] for n in range(9_000)] + [last]")
    notebook.run("n = 1")
    notebook.run("last.append(1)")  # nobody sees that the box holds it
    notebook.run("n = 2")
    read = notebook.run("k = len(box.items)")
    [version] = [one for one in read.inputs if one.name == "box"]
    assert version.digest == fingerprint(notebook.variables["box"]).digest
