"""Values that do something when they are looked at: a cell may hold them, and nobody looks but its own code."""

# ruff: noqa: E501 - the cells are what people write
from __future__ import annotations

from collections.abc import Callable

import pytest
from kernels import Kernel

COUNTED = "ran = []\ndef look(*given):\n    ran.append(1)\n    return given[0] if given else None\n"

LAZY = {
    "a lazy frame of polars": "import polars as pl\nlazy = pl.LazyFrame({'a': [1, 2]}).map_batches(look)",
    "a graph of dask": "import dask\nlazy = dask.delayed(look)(1)",
    "a proxy of werkzeug": "from werkzeug.local import LocalProxy\nlazy = LocalProxy(look)",
    "a lazy proxy of wrapt": "import wrapt\nlazy = wrapt.LazyObjectProxy(look) if hasattr(wrapt, 'LazyObjectProxy') else iter(look, 1)",
    "a proxy of wrapt": "import wrapt\nclass Proxy(wrapt.ObjectProxy):\n    def __getattr__(self, name): return look(name)\n"
    "    def __eq__(self, other): return look(True)\n    def __hash__(self): return look(1)\n"
    "    def __len__(self): return look(1)\n    def __repr__(self): return look('')\nlazy = Proxy([1])",
    "a dataset of torch": "import torch\nclass Rows(torch.utils.data.IterableDataset):\n"
    "    def __iter__(self): look(); yield 1\nlazy = torch.utils.data.DataLoader(Rows())",
    "a generator": "lazy = (look(number) for number in range(3))",
    "a map": "lazy = map(look, [1, 2])",
    "a mapping that makes what it is asked for": "import collections\nlazy = collections.defaultdict(look)",
    "a cached property": "import functools\nclass Late:\n    @functools.cached_property\n    def it(self): return look(1)\n"
    "    @property\n    def other(self): return look(2)\n    def __len__(self): return look(3)\nlazy = Late()",
    "a module that loads late": "import types\nclass Late(types.ModuleType):\n"
    "    def __getattr__(self, name):\n        return look(name) if not name.startswith('__') else super().__getattribute__(name)\n"
    "lazy = Late('late')",
}  # fmt: skip


@pytest.mark.parametrize("what", LAZY)
def test_a_value_that_works_when_it_is_looked_at_does_not_work(kernel: Kernel, what: str) -> None:
    for cell in (
        COUNTED,
        LAZY[what],
        "again = lazy",
        "held = [lazy, {'k': lazy}]",
        "def f(): return lazy",
        "del again",
    ):
        _, reply = kernel.run(cell)
        assert reply["status"] == "ok", reply
    kernel.no_errors()
    assert kernel.value("len(ran)") == "0"
    made = {one.name: one for cell in kernel.cells() for one in cell.outputs}
    assert "lazy" in made


def test_a_mock_is_not_called(kernel: Kernel) -> None:
    kernel.run(
        "from unittest.mock import MagicMock, Mock, NonCallableMagicMock\nm, n, o = MagicMock(), Mock(), NonCallableMagicMock()"
    )
    kernel.run("held = [m, {'n': n}]; again = o")
    kernel.run("m; n; o; held")
    assert (
        kernel.value("[m.mock_calls, n.mock_calls, o.mock_calls, list(vars(m)['_mock_children'])]")
        == "[[], [], [], []]"
    )
    kernel.no_errors()


def test_cursors_and_queries_hand_their_rows_to_the_cell_alone(kernel: Kernel) -> None:
    kernel.run(
        "import sqlite3, sqlalchemy, duckdb\nbase = sqlite3.connect(':memory:')\n"
        "rows = base.execute('select 1 union select 2')\nengine = sqlalchemy.create_engine('sqlite://')\n"
        "connection = engine.connect()\nresult = connection.execute(sqlalchemy.text('select 3 union select 4'))\n"
        "duckdb.sql('create sequence s')\nrelation = duckdb.sql(\"select nextval('s') as n\")"
    )
    kernel.run("again = [rows, result]; rows; relation\nNone")
    kernel.run("held = {'r': relation, 'c': rows}")
    assert (
        kernel.value("rows.fetchall(), result.fetchall(), relation.fetchall()")
        == "([(1,), (2,)], [(3,), (4,)], [(1,)])"
    )
    kernel.no_errors()


def test_a_tensor_without_data_is_not_asked_for_it(kernel: Kernel) -> None:
    kernel.run("import torch\nempty = torch.empty(10**12, device='meta')\nfull = torch.ones(3)")
    kernel.run("model = torch.nn.Linear(10, 10, device='meta'); empty; full\nNone")
    made = {one.name: one for cell in kernel.cells() for one in cell.outputs}
    assert made["full"].digest is not None
    for name in ("empty", "model"):
        assert made[name].digest is None
        assert made[name].why
    kernel.no_errors()


FORKS = {
    "a pool": "import multiprocessing as mp\nwith mp.get_context('fork').Pool(2) as pool: out = pool.map(abs, range(-8, 0))",
    "joblib's processes": "import joblib\nout = joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in range(-8, 0))",
    "joblib's threads": "import joblib\nout = joblib.Parallel(n_jobs=2, backend='threading')(joblib.delayed(abs)(i) for i in range(-8, 0))",
    "a data loader": "import torch\nloader = torch.utils.data.DataLoader(list(range(8)), num_workers=2, multiprocessing_context='fork')\n"
    "out = [int(one) for batch in loader for one in batch]",
    "an executor": "import concurrent.futures as cf, multiprocessing as mp\n"
    "with cf.ProcessPoolExecutor(2, mp_context=mp.get_context('fork')) as pool: out = list(pool.map(abs, range(-8, 0)))",
    "many children": "import os\nfor _ in range(30):\n    pid = os.fork()\n    if pid == 0:\n        open('x', 'w').close()\n        os._exit(0)\n"
    "    os.waitpid(pid, 0)\nout = list(range(8))",
}  # fmt: skip


@pytest.mark.parametrize("how", FORKS)
def test_a_cell_forks_while_the_background_works_and_nothing_hangs(start: Callable[..., Kernel], how: str) -> None:
    kernel = start()
    kernel.run("import numpy as np\nbig = np.random.default_rng(1).random(100_000_000)")  # 800 MB: over the budget
    _, reply = kernel.run(FORKS[how])
    assert reply["status"] == "ok", reply
    assert kernel.value("sorted(out)") in ("[1, 2, 3, 4, 5, 6, 7, 8]", "[0, 1, 2, 3, 4, 5, 6, 7]")
    kernel.run("big = None")
    kernel.no_errors()
    cells = [cell for cell in kernel.cells() if cell.started.parent is None]
    assert [cell.status for cell in cells] == ["done"] * 4
