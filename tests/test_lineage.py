"""What a cell's text says about names, and the graph that cell runs make."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.lineage import CellNames, ancestors, lineage, names_in, names_until
from jupyter_mlops.records import Artifact, CellEnded, CellRun, CellStarted, digest_of


@pytest.mark.parametrize(
    ("source", "reads", "writes"),
    [
        ("x = 1\ny = x", "", "x y"),
        ("y = x\nx = 1", "x", "x y"),
        ("a += 1", "a", "a"),
        ("df['a'] = 1", "df", ""),
        ("o.a.b = v", "o v", ""),
        ("o.a += v", "o v", ""),
        ("xs[i], *rest = t", "xs i t", "rest"),
        ("if c: x = 1\ny = x", "c x", "x y"),
        ("if c: x = 1\nelse: x = 2\ny = x", "c", "x y"),
        ("for i in r: t += i", "r t", "i t"),
        ("for i in r: x = 1\nx", "r x", "i x"),
        ("while c: c -= 1", "c", "c"),
        ("while True:\n  x = 1\n  break\nx", "", "x"),
        ("with m() as (f, g): t = f", "m", "f g t"),
        ("try:\n  x = 1\nexcept E as e:\n  y = e\nx", "E x", "x y e"),
        ("try:\n  x = 1\nfinally:\n  z = 2\nz", "", "x z"),
        ("match v:\n  case [a, *b]: c = a\n  case {'k': d, **e}: pass\n  case P(x=f): pass", "v P", "a b c d e f"),
        ("match v:\n  case E.X if g: y = 1", "v E g", "y"),
        ("import a.b.c, d as e\nfrom f import g, h as i", "", "a e g i"),
        ("from m import *", "", ""),
        ("[x for x in xs if x in ys]", "xs ys", ""),
        ("[y for x in xs for y in x]", "xs", ""),
        ("{k: v for k, v in d.items()}", "d", ""),
        ("x = [x for x in x]", "x", "x"),
        ("s = {(n := v) for v in vs}\nn", "vs n", "s n"),
        ("if (n := f()) > 1: print(n)", "f print", "n"),
        ("def f(a, b=d): return a + q", "d", "f"),
        ("def f(a): return a + q\nf(1)", "q", "f"),
        ("q = 1\ndef f(a): return a + q\nf(1)", "", "q f"),
        ("def f():\n  global n\n  n += 1\nf()", "n", "f n"),
        ("def f():\n  x = 1\n  def g():\n    nonlocal x\n    x += y\n  return g\nf()", "y", "f"),
        ("def f(): return g()\ndef g(): return z\nf()", "z", "f g"),
        ("@deco\ndef f(): return q", "deco q", "f"),
        ("def f(x: T) -> U: pass", "T U", "f"),
        ("h = lambda x: x + k", "", "h"),
        ("h = lambda x: x + k\nh(1)", "k", "h"),
        ("map(lambda x: x + k, xs)", "map k xs", ""),
        ("class A(B):\n  k = z\n  j = k\n  def m(self): return w", "B z w", "A"),
        ("class A:\n  def m(self): return w", "", "A"),
        ("class A:\n  def m(self): return w\nA()", "w", "A"),
        ("f'{x!r:>{w}}'", "x w", ""),
        ("x: T = v", "T v", "x"),
        ("x: T", "T", ""),
        ("del a\na = 1", "", "a"),
        ("a = 1\ndel a\na", "a", "a"),
        ("del d['k']", "d", ""),
        ("await f(x)\nasync for i in s: pass", "f x s", "i"),
        ("get_ipython().run_line_magic('time', 'x = y')", "y", "x"),
        ("get_ipython().run_cell_magic('time', '', 'x = y\\nz = x')", "y", "x z"),
        ("get_ipython().run_line_magic('timeit', '-n 10 x = y')", "y", ""),
        ("get_ipython().run_cell_magic('timeit', 's = q', 'x = s')", "q", ""),
        ("get_ipython().run_cell_magic('capture', 'out --no-stderr', 'x = y')", "y", "out x"),
        ("get_ipython().run_cell_magic('prun', '', 'x = y')", "y", "x"),
        ("get_ipython().run_cell_magic('mlops', '--name a', 'x = y')", "y", "x"),
        ("get_ipython().run_cell_magic('time', '', '%matplotlib inline\\nx = y')", "y", "x"),
        ("files = get_ipython().getoutput('ls {folder} $other')", "folder other", "files"),
        ("get_ipython().run_cell_magic('bash', '--out text', 'ls')", "", "text"),
        ("Out[3] + 1", "Out _3", ""),
        ("a = yes if c else no", "yes c no", "a"),
        ("a or (b := c)", "a c", "b"),
        ("global x\nx = 1", "", "x"),
        ("(lambda: (yield))", "", ""),
        ("exec('x = y')", "y", "x"),
    ],
)  # fmt: skip
def test_names_are_read_in_the_order_in_which_the_cell_runs(source, reads, writes):
    found = names_in(source)
    assert not found.syntax_error
    assert found.reads - {"exec"} == set(reads.split())
    assert found.writes == set(writes.split())
    assert found.opaque == ()


@pytest.mark.parametrize(
    ("source", "opaque"),
    [
        ("exec(code)", "exec"),
        ("eval(code)", "eval"),
        ("globals()['x'] = 1", "globals"),
        ("vars()['x'] = 1", "vars"),
        ("def f(): exec(s)\nf()", "exec"),
        ("get_ipython().run_line_magic('run', 'script.py')", "%run"),
        ("get_ipython().run_cell_magic('cython', '', 'x')", "%%cython"),
        ("get_ipython().run_cell('x = 1')", "get_ipython().run_cell"),
    ],
)
def test_what_text_cannot_tell_is_said(source, opaque):
    assert names_in(source).opaque == (opaque,)


def test_branches_are_told_from_what_surely_happens():
    found = names_in("a = 1\nif a:\n  b = 2\n  a = 3\nfor i in r:\n  c = 1")
    assert found.maybe == {"b"}


@pytest.mark.parametrize(
    ("source", "likely", "maybe"),
    [
        ("for x in xs: y = x", {"x", "y"}, set()),
        ("for x in range(3): y = x", set(), set()),
        ("for x in range(0, 3, 2): y = x", set(), set()),
        ("for x in range(3, 0): y = x", {"x", "y"}, set()),
        ("for x in range(n): y = x", {"x", "y"}, set()),
        ("for i, x in enumerate([n, 2]): y = x", set(), set()),
        ("for x in [*xs]: y = x", {"x", "y"}, set()),
        ("for x in (1, 2):\n  y = x\n  if y: break\n  z = x\nelse:\n  w = 1", {"z", "w"}, set()),
        ("for x in (1, 2):\n  if x:\n    y = 1", set(), {"y"}),
        ("while True:\n  y = f()\n  if y: break\n  z = y", {"z"}, set()),
        ("while f(): y = 1", set(), {"y"}),
        ("try:\n  y = f()\nexcept ValueError:\n  z = 1\nfinally:\n  w = 2", {"y"}, {"z"}),
        ("try:\n  y = f()\nfinally:\n  w = 2", set(), set()),
        ("with suppress(ValueError): y = f()", {"y"}, set()),
        ("with contextlib.suppress(ValueError) as s: y = f()", {"y"}, set()),
        ("with open(p) as f: y = f.read()", set(), set()),
        ("for x in xs: y = x\ny = 2", {"x"}, set()),
    ],
)
def test_what_a_loop_or_a_swallowed_error_may_leave_out_is_likely_only(source, likely, maybe):
    found = names_in(source)
    assert (found.likely, found.maybe) == (likely, maybe)


@pytest.mark.parametrize(
    "source",
    [
        "while True:\n  if f(): break\n  x = 1\nprint(x)",
        "with suppress(ValueError):\n  f()\n  x = 1\nprint(x)",
        "for n in ns:\n  if f(): break\nelse:\n  x = 1\nprint(x)",
        "for x in ns: pass\nprint(x)",
    ],
)
def test_what_may_not_have_been_bound_is_read(source):
    assert "x" in names_in(source).reads


@pytest.mark.parametrize(
    "source",
    [
        "while True:\n  x = f()\n  if x: break\nprint(x)",
        "with open(p) as f:\n  x = f.read()\nprint(x)",
        "for n in ns: pass\nelse:\n  x = 1\nprint(x)",
        "try:\n  x = f()\nexcept ValueError:\n  x = 1\nprint(x)",
    ],
)
def test_what_was_surely_bound_is_not_read(source):
    assert "x" not in names_in(source).reads


@pytest.mark.parametrize(
    ("source", "line", "writes", "maybe"),
    [
        ("a = 1\nb = f()\nc = 2", 2, {"a"}, set()),
        ("a = 1\nb = g = f()\nc = 2", 2, {"a"}, set()),
        ("a = 1\nb, g = f()\nc = 2", 2, {"a", "b", "g"}, {"b", "g"}),
        ("a = 1\nb = (\n  g := f()\n) + h()\nc = 2", 4, {"a", "g"}, {"g"}),
        ("a = 1\na += f()", 2, {"a"}, set()),
        ("a = 1\nfor a in f(): b = 1", 2, {"a", "b"}, {"b"}),
        ("if f():\n  a = 1\nb: int = f()", 3, {"a"}, {"a"}),
        ("for a in f(): b = a\nraise b", 2, {"a", "b"}, set()),
    ],
)
def test_what_stands_behind_the_statement_that_failed_was_not_bound(source, line, writes, maybe):
    found = names_until(source, line)
    assert found is not None
    assert (found.writes, found.maybe) == (writes, maybe)


def test_a_line_that_is_not_the_cells_says_nothing():
    assert names_until("a = 1", 7) is None
    assert names_until("a = (", 1) is None


def test_seeds_are_noticed():
    assert names_in("np.random.seed(3)").calls_seed
    assert names_in("split(X, random_state=0)").calls_seed
    assert not names_in("split(X)").calls_seed
    assert not names_in("split(X, random_state=None)").calls_seed


@pytest.mark.parametrize("source", ["x =", "\0", "  x", "def", "%time x"])
def test_a_syntax_error_gives_an_empty_answer(source):
    assert names_in(source) == CellNames(syntax_error=True)


def test_deep_and_large_text_ends():
    assert names_in("-" * 100_000 + "x") is not None
    assert names_in("x = " + "(" * 5_000 + ")" * 5_000) is not None
    assert names_in("x\n" * 600_000).opaque
    assert names_in("+".join(["x"] * 50_000)) is not None


if sys.version_info >= (3, 12):

    def test_newer_syntax_is_read():
        assert names_in("type X[T] = list[T]").writes == {"X"}
        assert names_in("def f[T](x: T) -> T: return x\nf(1)").reads == set()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gets_an_answer(text):
    assert isinstance(names_in(text), CellNames)


# -- the graph -------------------------------------------------------------------------------------------------------


def digest(number: int) -> str:
    return digest_of(str(number).encode())


def cell_run(number: int, after: list[int], **fields) -> CellRun:
    inputs = [Artifact(name=f"v{one}", kind="variable", digest=digest(-one), made=digest(one)) for one in after]
    return CellRun(
        id=digest(number), time=f"2026-01-01T00:00:{number % 60:02}.000000Z", writer="w", seq=number,
        started=CellStarted(run=digest(10**9), source=f"v{number} = {number}", notebook="n.ipynb", cell=f"c{number}"),
        ended=CellEnded(
            cell_run=digest(number), status="done", after=[digest(one) for one in after], inputs=inputs, **fields
        ),
    )  # fmt: skip


class Missing(MlopsError, KeyError):
    pass


def look_up(runs):
    found = {run.id: run for run in runs}

    def one(digest):
        if digest not in found:
            raise Missing("not here")
        return found[digest]

    return one


def test_ancestors_come_before_what_builds_on_them_each_once():
    runs = [cell_run(0, []), cell_run(1, [0]), cell_run(2, [0]), cell_run(3, [1, 2]), cell_run(4, [])]
    found = ancestors(digest(3), look_up(runs))
    assert [run.seq for run in found] == [0, 1, 2, 3]


def test_a_ring_in_hostile_records_ends():
    runs = [cell_run(0, [2]), cell_run(1, [0, 1]), cell_run(2, [1])]
    graph = lineage([digest(2)], look_up(runs))
    assert sorted(run.seq for run in graph.runs) == [0, 1, 2]
    assert graph.text()


def test_a_cell_run_that_is_not_on_record_is_said():
    graph = lineage([digest(1)], look_up([cell_run(1, [0])]))
    assert graph.missing == (digest(0),)
    assert [run.seq for run in graph.runs] == [1]


def test_the_tree_shows_cells_files_and_what_passed():
    read = Artifact(name="data/flights.csv", kind="file", digest=digest(77))
    graph = lineage([digest(1)], look_up([cell_run(0, [], files_read=[read]), cell_run(1, [0])]))
    text = graph.text()
    assert "v1 = 1" in text.splitlines()[0]
    assert "(v0)" in text
    assert "data/flights.csv" in text
    assert graph.files == [read]


def test_a_long_chain_is_walked_without_recursion():
    runs = [cell_run(0, [])] + [cell_run(number, [number - 1]) for number in range(1, 5000)]
    graph = lineage([digest(4999)], look_up(runs))
    assert [run.seq for run in graph.runs] == list(range(5000))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 20)), min_size=1, max_size=20))
def test_every_graph_is_walked_whole_and_in_order(edges):
    runs = [cell_run(number, sorted(one for one in parents if one < number)) for number, parents in enumerate(edges)]
    found = ancestors(digest(len(runs) - 1), look_up(runs))
    place = {run.id: index for index, run in enumerate(found)}
    assert len(place) == len(found)
    for run in found:
        assert all(place[parent] < place[run.id] for parent in run.after)
