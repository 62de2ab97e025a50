"""Scenes of lineage through a real shell: every edge is there, none is invented, or an honest gap says so.

A scene is a list of cells; each says what it makes or changes, on which cells before it it builds (by place), and where
the record can not tell, what it says is not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Did(NamedTuple):
    source: str
    makes: str = ""
    on: str = ""
    gap: str = ""


D = Did

SCENES: dict[str, list[Did]] = {
    # -- aliases and views
    "an alias is changed with what it is another name of": [
        D("a = [1]", "a"), D("b = a", "b", "0"), D("b.append(1)", "a b", "0 1"), D("n = len(a)", "n", "2"),
    ],
    "an alias that was bound anew is changed alone": [
        D("a = [1]", "a"), D("b = a", "b", "0"), D("b = [2]", "b"), D("b.append(3)", "b", "2"),
        D("n = len(a)", "n", "0"),
    ],
    "a copy is no alias": [
        D("a = [1]", "a"), D("b = list(a)", "b", "0"), D("b.append(1)", "b", "1"), D("n = len(a)", "n", "0"),
    ],
    "an augmented list changes its aliases and an augmented number does not": [
        D("a = [1]; i = 1", "a i"), D("b = a; j = i", "b j", "0"), D("b += [2]; j += 1", "a b j", "0 1"),
        D("x = (a, i)", "x", "0 2"),
    ],
    "views of one array change together": [
        D("import numpy as np", "np"), D("z = np.zeros((3, 3))", "z", "0"),
        D("row = z[0]; col = z[:, 1]", "row col", "1"),
        D("row[:] = 5", "z row col", "1 2"),
        D("total = col.sum()", "total", "3"), D("col[0] = 1", "z row col", "3"),
    ],
    "a slice that was copied does not change": [
        D("import numpy as np", "np"), D("z = np.zeros(4)", "z", "0"), D("c = z[1:].copy()", "c", "1"),
        D("c[0] = 1", "c", "2"), D("s = z.sum()", "s", "1"),
    ],
    "a frame and its column's buffer": [
        D("import pandas as pd", "pd"), D("df = pd.DataFrame({'a': [1., 2.]})", "df", "0"),
        D("v = df['a'].array", "v", "1"), D("v[0] = 9", "df v", "1 2"), D("m = df['a'].mean()", "m", "3"),
    ],
    "swapping two names": [
        D("a = [1]", "a"), D("b = [2]", "b"), D("a, b = b, a", "a b", "0 1"), D("a.append(3)", "a", "2"),
        D("x = b", "x", "2"),
    ],
    # -- attributes and items
    "an item of a dict is the dict's": [
        D("d = {}", "d"), D("d['k'] = [1]", "d", "0"), D("v = d['k']", "v", "1"), D("v.append(2)", "d v", "1 2"),
        D("n = len(d['k'])", "n", "3"),
    ],
    "an attribute of an object is the object's": [
        D("class P: pass", "P"), D("p = P()", "p", "0"), D("p.x = [1]", "p", "1"), D("q = p", "q", "2"),
        D("q.x.append(2)", "p q", "2 3"), D("s = sum(p.x)", "s", "4"),
    ],
    "an object in a list in a tuple in a dict": [
        D("deep = [1]", "deep"), D("d = {'t': ([deep],)}", "d", "0"), D("d['t'][0][0].append(2)", "deep d", "0 1"),
        D("n = len(deep)", "n", "2"),
    ],
    "a method that changes its object": [
        D("class C:\n    def __init__(self): self.n = 0\n    def up(self): self.n += 1", "C"), D("c = C()", "c", "0"),
        D("c.up()", "c", "1"), D("n = c.n", "n", "2"),
    ],
    "a slotted object": [
        D("class S:\n    __slots__ = ('v',)", "S"), D("s = S(); s.v = 1", "s", "0"), D("s.v = 2", "s", "1"),
        D("x = s.v", "x", "2"),
    ],
    # -- functions
    "a function that uses a global reads it where it is called": [
        D("k = 2", "k"), D("def f(x): return x * k", "f"), D("y = f(1)", "y", "0 1"), D("k = 3", "k"),
        D("z = f(1)", "z", "1 3"),
    ],
    "a function that changes a global": [
        D("log = []", "log"), D("def note(x): log.append(x)", "note"), D("note(1)", "log", "0 1"),
        D("n = len(log)", "n", "2"),
    ],
    "a function that binds a global": [
        D("n = 0", "n"), D("def up():\n    global n\n    n += 1", "up"), D("up()", "n", "0 1"), D("m = n", "m", "2"),
    ],
    "functions that call functions": [
        D("k = 1", "k"), D("def f(): return k", "f"), D("def g(): return f()", "g"), D("x = g()", "x", "0 1 2"),
    ],
    "a closure holds what it closed over": [
        D("def counter():\n  n = [0]\n  def up():\n    n[0] += 1\n    return n[0]\n  return up", "counter"),
        D("up = counter()", "up", "0"), D("a = up()", "a up", "1"), D("b = up()", "b up", "2"),
    ],
    "a default argument that is changed": [
        D("def add(x, into=[]):\n    into.append(x)\n    return len(into)", "add"), D("a = add(1)", "a add", "0"),
        D("b = add(2)", "b add", "1"),
    ],
    "a lambda in a dict": [
        D("k = 1", "k"), D("ops = {'k': lambda: k}", "ops", "0"), D("x = ops['k']()", "x", "0 1"),
    ],
    "a function in an array of objects": [
        D("import numpy as np", "np"), D("k = 1", "k"), D("def f(): return k", "f"),
        D("fs = np.array([f, f], dtype=object)", "fs", "0 1 2"), D("x = fs[0]()", "x", "1 3"),
    ],
    "a decorator": [
        D("calls = []", "calls"),
        D("def counted(f):\n  def inner(*a):\n    calls.append(1)\n    return f(*a)\n  return inner", "counted"),
        D("@counted\ndef g(x): return x", "g", "0 1"), D("y = g(3)", "y calls", "0 2"), D("n = len(calls)", "n", "3"),
    ],
    "an argument is changed by the function": [
        D("xs = [3, 1]", "xs"), D("def tidy(v): v.sort()", "tidy"), D("tidy(xs)", "xs", "0 1"),
        D("x = xs[0]", "x", "2"),
    ],
    "a function that was defined anew": [
        D("def f(): return 1", "f"), D("a = f()", "a", "0"), D("def f(): return 2", "f"), D("b = f()", "b", "2"),
    ],
    # -- classes
    "state of a class": [
        D("class C:\n    made = []\n    def __init__(self): C.made.append(1)", "C"), D("c = C()", "c C", "0"),
        D("n = len(C.made)", "n", "1"),
    ],
    "inheritance": [
        D("class A:\n    k = 1", "A"), D("class B(A): pass", "B", "0"), D("b = B()", "b", "1"), D("x = b.k", "x", "2"),
    ],
    # -- flow
    "del takes a name away and not the object": [
        D("a = [1]", "a"), D("b = a", "b", "0"), D("del a"), D("b.append(2)", "b", "1"), D("a = 5", "a"),
        D("x = (a, b)", "x", "3 4"),
    ],
    "del of an item": [
        D("d = {'a': 1, 'b': 2}", "d"), D("del d['a']", "d", "0"), D("n = len(d)", "n", "1"),
    ],
    "a loop leaves its variable behind": [
        D("xs = [1, 2]", "xs"), D("for x in xs:\n    total = x", "x total", "0"), D("y = x", "y", "1"),
    ],
    "a comprehension leaves nothing behind": [
        D("x = 5", "x"), D("xs = [x for x in range(3)]", "xs"), D("y = x", "y", "0"),
    ],
    "a walrus in a comprehension does": [
        D("xs = [1, 2]", "xs"), D("ys = [(last := x) for x in xs]", "ys last", "0"), D("z = last", "z", "1"),
    ],
    "a branch that is not taken makes nothing": [
        D("flag = False; x = 1", "flag x"), D("if flag:\n    x = 2", "", "0"), D("y = x", "y", "0"),
    ],
    "an error leaves what was reached": [
        D("a = 1; b = 1", "a b"), D("a = 2\nraise ValueError\nb = 2", "a"), D("x = (a, b)", "x", "0 1"),
    ],
    "with and as": [
        D("import contextlib", "contextlib"),
        D("with contextlib.nullcontext([1]) as held:\n    held.append(2)", "held", "0"),
        D("n = len(held)", "n", "1"),
    ],
    "unpacking with a star": [
        D("xs = [1, 2, 3]", "xs"), D("first, *rest = xs", "first rest", "0"), D("rest.append(4)", "rest", "1"),
        D("n = len(xs)", "n", "0"),
    ],
    "a generator holds what it draws from": [
        D("xs = [1, 2, 3]", "xs"), D("g = (x * 2 for x in xs)", "g", "0"), D("a = next(g)", "a", "1"),
        D("b = list(g)", "b", "1 2"),
    ],
    # -- what names cannot tell
    "a star import": [
        D("from string import *", "*ascii_letters"), D("x = ascii_letters[0]", "x", "0"),
    ],
    "exec is seen by its effects and leaves a gap": [
        D("code = 'made = 1'", "code"), D("exec(code)", "made", "0", "exec"), D("x = made", "x", "1"),
    ],
    "exec of a text that stands there is read like it": [
        D("a = 1", "a"), D("exec('b = a')", "b", "0"), D("c = b", "c", "1"),
    ],
    "globals()[...] is seen by its effects and leaves a gap": [
        D("globals()['x'] = 1", "x", "", "globals"), D("y = x", "y", "0"),
    ],
    "what globals()[...] reads is not seen and leaves a gap": [
        D("x = 1", "x"), D("y = globals()['x']", "y", "", "globals"),
    ],
    "eval leaves a gap": [
        D("x = 1", "x"), D("text = 'x + 1'", "text"), D("y = eval(text)", "y", "1", "eval"),
    ],
    "setattr and getattr on the user's object": [
        D("class P: pass", "P"), D("p = P()", "p", "0"), D("setattr(p, 'v', 1)", "p", "1"),
        D("x = getattr(p, 'v')", "x", "2"),
    ],
    # -- magics
    "%%capture": [
        D("a = 1", "a"), D("%%capture out\nb = a\nprint(b)", "b out", "0"), D("c = b", "c", "1"),
    ],
    "%%time and %time": [
        D("a = [1]", "a"), D("%%time\nb = a\nb.append(2)", "a b", "0"), D("%time c = b", "c", "1"),
        D("d = a", "d", "1"),
    ],
    "a result by its number": [
        D("xs = [1, 2]", "xs"), D("len(xs)", "", "0"), D("n = _ + 1", "n", "1"),
    ],
    "%run leaves a gap and its effects": [
        D("k = 3", "k"), D("%run -i script.py", "made", "", "%run"), D("x = made", "x", "1"),
    ],
    # -- classic scenes of slicing and liveness
    "only the last of several writes is what is read": [
        D("x = 1", "x"), D("x = 2", "x"), D("x = 3", "x"), D("y = x", "y", "2"),
    ],
    "a chain, and what stands beside it": [
        D("a = 1", "a"), D("b = a + 1", "b", "0"), D("other = 7", "other"), D("c = b + 1", "c", "1"),
        D("d = c + a", "d", "0 3"),
    ],
    "a name that is read after the cell bound it is not read": [
        D("x = 1", "x"), D("x = 5\ny = x", "x y"), D("z = y", "z", "1"),
    ],
    "a name that is bound on one way only is read": [
        D("x = 1; c = False", "x c"), D("if c:\n    x = 2\ny = x", "y", "0"),
    ],
    "nested subscripts and attributes": [
        D("class N: pass\nn = N()\nn.d = {'k': [1]}", "N n"), D("n.d['k'][0] = 5", "n", "0"),
        D("v = n.d['k'][0]", "v", "1"),
    ],
    "two dicts that share a value": [
        D("v = [0]", "v"), D("a = {'v': v}", "a", "0"), D("b = {'v': v}", "b", "0"),
        D("a['v'][0] = 1", "v a b", "0 1 2"),
        D("a['v'] = [9]", "a", "3"), D("a['v'].append(1)", "a", "4"), D("x = b['v']", "x", "3"),
    ],
    "list.sort, dict.update, set.add": [
        D("xs = [2, 1]; d = {}; s = set()", "xs d s"), D("xs.sort()", "xs", "0"), D("d.update(a=1)", "d", "0"),
        D("s.add(1)", "s", "0"), D("t = (xs, d, s)", "t", "1 2 3"),
    ],
    "reading an object changes nothing": [
        D("xs = [1]; d = {'a': 1}", "xs d"), D("len(xs), sorted(xs), list(d.items()), xs.count(1), xs[0]", "", "0"),
        D("t = (xs, d)", "t", "0"),
    ],
    "an imported module's state is not the notebook's": [
        D("import math", "math"), D("x = math.pi", "x", "0"), D("y = math.e", "y", "0"),
    ],
    "try and except": [
        D("xs = [1]", "xs"), D("try:\n    y = xs[5]\nexcept IndexError:\n    y = None", "y", "0"), D("z = y", "z", "1"),
    ],
    "a recursive value": [
        D("a = [1]; a.append(a)", "a"), D("b = [a]", "b", "0"), D("a.append(2)", "a b", "0 1"),
    ],
    "sorting out by groupby and merge": [
        D("import pandas as pd", "pd"), D("df = pd.DataFrame({'k': [1, 1, 2], 'v': [1., 2., 3.]})", "df", "0"),
        D("g = df.groupby('k').sum()", "g", "1"), D("df['v'] *= 2", "df", "1"),
        D("m = df.merge(g, on='k')", "m", "2 3"),
        D("s = m['v_x'].sum()", "s", "4"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str, page: Any, project_folder: Path) -> None:
    (project_folder / "script.py").write_text("made = k + 1\n")
    scene = SCENES[name]
    page.all(**{f"c{place}": did.source for place, did in enumerate(scene)})
    place_of = {page.last(f"c{place}").id: place for place in range(len(scene))}
    for place, did in enumerate(scene):
        run = page.last(f"c{place}")
        makes = {one.name for one in run.outputs}
        if did.makes.startswith("*"):
            assert did.makes[1:] in makes
        else:
            assert makes == set(did.makes.split()), (place, did.source)
        assert {place_of[one] for one in run.after if one in place_of} == set(map(int, did.on.split())), (
            place, did.source,
        )  # fmt: skip
        unknown = {gap.subject for gap in run.gaps if gap.blocks or gap.reason.startswith("what it reads")}
        assert unknown == ({did.gap} if did.gap else set()), (place, did.source)


def test_an_edited_local_module_that_is_reloaded_makes_new_versions(page: Any, project_folder: Path) -> None:
    module = project_folder / "scene_module.py"
    module.write_text("RATE = 2\ndef scaled(x):\n    return x * RATE\n")
    page.all(a="import scene_module", b="x = scene_module.scaled(3)")
    module.write_text("RATE = 10\nOTHER = 1\ndef scaled(x):\n    return x * RATE\n")
    page.all(c="import importlib; importlib.reload(scene_module)", d="y = scene_module.scaled(3)")
    assert page.shell.user_ns["y"] == 30
    listed = [
        (artifact.name, artifact.digest)
        for run in page.record()
        for artifact in (run.ended.modules if run.ended else ())
        if artifact.name == "scene_module.py"
    ]
    assert len({digest for _, digest in listed}) == 2


def test_store_magic_brings_values_back_with_a_gap(page: Any) -> None:
    page.say("%load_ext storemagic")
    page.say("kept = [1, 2]")
    page.say("%store kept")
    page.say("del kept")
    page.all(a="%store -r kept", b="n = len(kept)")
    first, second = page.last("a"), page.last("b")
    assert {one.name for one in first.outputs} == {"kept"}
    assert [gap.subject for gap in first.gaps if gap.reason.startswith("what it reads")] == ["%store"]
    assert second.after == [first.id]


def test_a_script_that_is_run_is_a_file_that_was_read(page: Any, project_folder: Path) -> None:
    (project_folder / "script.py").write_text("made = 4\n")
    page.all(a="%run script.py", b="x = made")
    assert [one.name for one in page.last("a").files_read] == ["script.py"]
    assert page.last("b").after == [page.last("a").id]
