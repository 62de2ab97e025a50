"""Notebooks as people write them, made up from a number: episodes of cells, drawn, filled in and interleaved."""

# ruff: noqa: E501 - the cells are what people write
from __future__ import annotations

import random

# `{v}` is a name of the episode's own, `{n}` and `{m}` are numbers; `shared` is everybody's.
EPISODES: dict[str, list[str]] = {
    "plot": [
        "%matplotlib inline\nimport matplotlib.pyplot as plt",
        "fig_{v}, ax_{v} = plt.subplots(figsize=(2, 1))\nax_{v}.plot(range({m}));",
        "ax_{v}.set_title('t{n}')\nfig_{v}.savefig('{v}.png')",
        "len(ax_{v}.lines), plt.get_fignums() == []",
    ],
    "histogram": [
        "import numpy as np, matplotlib.pyplot as plt\nplt.hist(np.arange({n}) % {m}, bins=3)",
        "plt.close('all')\nplt.rcParams['font.size']",
    ],
    "groupby": [
        "import pandas as pd\n{v} = pd.DataFrame({{'k': list('abca'), 'x': range({n}, {n} + 4)}})",
        "{v}.groupby('k')['x'].agg(['sum', 'mean'])",
        "{v}['y'] = {v}['x'] ** 2\n{v}.tail(2)",
        "{v}.pivot_table(index='k', values='y', aggfunc='max')",
        "{v} = {v}[{v}.x > {n}]\n{v}.shape",
    ],
    "merge": [
        "import pandas as pd\nleft_{v} = pd.DataFrame({{'k': [1, 2, 3]}}); right_{v} = left_{v}.assign(z={n})",
        "left_{v}.merge(right_{v}, on='k').to_dict('records')",
        "left_{v}.columns = ['renamed']\nleft_{v}",
        "right_{v}.style.set_uuid('{v}')",
    ],
    "csv": [
        "import pandas as pd\npd.DataFrame({{'a': [{n}, {m}]}}).to_csv('{v}.csv', index=False)",
        "{v} = pd.read_csv('{v}.csv')\n{v}.a.sum()",
        "!cat {v}.csv",
        "import os\nos.remove('{v}.csv')\nos.path.exists('{v}.csv')",
    ],
    "model": [
        "from sklearn.linear_model import LinearRegression\nimport numpy as np\nX_{v} = np.arange({m} * 2.).reshape(-1, 2); y_{v} = X_{v}.sum(axis=1)",
        "{v} = LinearRegression().fit(X_{v}, y_{v})\n{v}",
        "{v}.predict(X_{v}[:2]).round(3)",
        "{v}.coef_[0] = {n}\n{v}.coef_.round(3)",
    ],
    "tree": [
        "from sklearn.tree import DecisionTreeClassifier\n{v} = DecisionTreeClassifier(random_state={n}).fit([[0], [1], [2]], [0, 1, 1])",
        "{v}.predict([[{m}]])",
        "{v}.get_params()['random_state']",
    ],
    "pipeline": [
        "from sklearn.pipeline import make_pipeline\nfrom sklearn.preprocessing import StandardScaler\nfrom sklearn.linear_model import Ridge\n{v} = make_pipeline(StandardScaler(), Ridge(alpha={n}))",
        "{v}.fit([[0.], [1.], [3.]], [0., 1., 2.])",
        "round({v}.score([[0.], [1.]], [0., 1.]), 4)",
    ],
    "in place": [
        "{v} = [[{n}], {{'k': {m}}}]\nother_{v} = {v}[0]",
        "other_{v}.append({n})\n{v}",
        "{v}[1]['new'] = other_{v}\nsorted({v}[1])",
        "del {v}[0]\nlen({v}), other_{v}",
        "{v}.clear()",
    ],
    "arrays": [
        "import numpy as np\n{v} = np.zeros(({m}, 3)); view_{v} = {v}[:, 1]",
        "view_{v} += {n}\n{v}.sum()",
        "np.add({v}, 1, out={v})\nview_{v}[0]",
        "{v}.flags.owndata, view_{v}.base is {v}",
        "{v}.resize((3, {m}), refcheck=False)",
    ],
    "magics": [
        "%time {v} = {n}",
        "%%time\n{v} += {m}\n{v}",
        "%%capture out_{v}\nprint('taken', {n})",
        "out_{v}.stdout",
        "%who_ls str",
        "%precision 3\n1 / {m}",
        "%precision %r",
    ],
    "timeit": [
        "{v} = %timeit -n1 -r1 -o -q sum(range({n}))",
        "type({v}).__name__",
        "%%timeit -n1 -r1 -q x = {n}\nx + 1",
    ],
    "files of magics": [
        "%%writefile {v}.py\nvalue = {n}\nprint('run', value)",
        "%run {v}.py",
        "value",
        "%pycat {v}.py",
        "%cat {v}.py",
    ],
    "shell": ["{v} = !echo {n}", "{v}", "!echo {m} | tr 0-9 a-j", "%%bash\necho one\necho two >&2", "%%sh\nexit {m}"],
    "errors": [
        "def f_{v}(x):\n    return {n} / x",
        "f_{v}(0)",
        "try:\n    f_{v}(0)\nexcept ZeroDivisionError as error:\n    caught_{v} = str(error)\ncaught_{v}",
        "raise RuntimeError('n {n}') from ValueError({m})",
        "assert {n} < 0, 'never'",
    ],
    "syntax": ["{v} = ({n}", "if True:\nprint(1)", "{v} = 1 +", "return {n}", "f'{{'"],
    "unknown names": ["{v}_nowhere", "import no_such_module_{v}", "%no_such_magic", "?no_such_{v}"],
    "exception groups": [
        "raise ExceptionGroup('several', [ValueError({n}), KeyError('{v}')])",
        "try:\n    raise ExceptionGroup('g', [ValueError(1)])\nexcept* ValueError as group:\n    print(len(group.exceptions))",
    ],
    "async": [
        "import asyncio\nasync def {v}(x):\n    await asyncio.sleep(0)\n    return x + {n}",
        "await {v}({m})",
        "await asyncio.gather({v}(1), {v}(2))",
        "async for item in (x async for x in (_ async for _ in gen_{v}())) if False else []:\n    pass",
        "task_{v} = asyncio.ensure_future({v}(5))",
        "await task_{v}",
        "async with asyncio.timeout(60):\n    print(await {v}(0))",
    ],
    "background task": [
        "import asyncio\nsaid_{v} = []\nasync def slow_{v}():\n    for i in range(3):\n        await asyncio.sleep(0)\n        said_{v}.append(i)\nwait_{v} = asyncio.create_task(slow_{v}())",
        "await wait_{v}\nsaid_{v}",
    ],
    "classes": [
        "class {v}:\n    made = []\n    def __init__(self, x):\n        self.x = x\n        {v}.made.append(x)\n    def __repr__(self):\n        return f'<{{self.x}}>'",
        "o_{v} = {v}({n})\no_{v}",
        "class Sub_{v}({v}):\n    def __eq__(self, other): return True\n    __hash__ = None\ns_{v} = Sub_{v}({m})",
        "s_{v} == 3, {v}.made",
        "o_{v}.x = [o_{v}.x]\no_{v}",
        "{v}.__repr__ = lambda self: 'patched'\no_{v}",
    ],
    "dataclasses": [
        "from dataclasses import dataclass, field\n@dataclass(order=True)\nclass {v}:\n    a: int\n    b: list = field(default_factory=list)\n{v}({n})",
        "d_{v} = [{v}(3), {v}({m})]\nsorted(d_{v})",
        "d_{v}[0].b.append(1)\nd_{v}",
    ],
    "enum and slots": [
        "import enum\nclass {v}(enum.Enum):\n    A = {n}\n    B = 'b'\n{v}.A",
        "class S_{v}:\n    __slots__ = ('x',)\ns_{v} = S_{v}(); s_{v}.x = {v}.B\ns_{v}.x",
        "{v}({n}) is {v}.A",
    ],
    "generators": [
        "{v} = (i * {n} for i in range(4))",
        "next({v})",
        "def count_{v}():\n    got = yield 1\n    yield got\ng_{v} = count_{v}(); next(g_{v})",
        "g_{v}.send({m})",
        "list({v})",
        "g_{v}.close()\nimport inspect\ninspect.getgeneratorstate(g_{v})",
    ],
    "iterators": [
        "import itertools\n{v} = itertools.count({n}); z_{v} = zip('abc', {v})",
        "next(z_{v})",
        "list(z_{v}), next({v})",
        "e_{v} = enumerate(open('{v}.txt', 'w'))",
        "m_{v} = map(print, 'ab')",
        "list(m_{v})",
    ],
    "threads": [
        "import threading, queue\nq_{v} = queue.Queue()\nt_{v} = threading.Thread(target=lambda: q_{v}.put({n})); t_{v}.start()",
        "q_{v}.get(timeout=60)",
        "t_{v}.join()\nt_{v}.is_alive()",
        "lock_{v} = threading.Lock()\nwith lock_{v}:\n    print('held')",
        "local_{v} = threading.local(); local_{v}.x = {m}\nlocal_{v}.x",
    ],
    "pool of threads": [
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n    {v} = list(pool.map(lambda x: x * {n}, range(3)))\n{v}"
    ],
    "subprocess": [
        "import subprocess, sys\n{v} = subprocess.run([sys.executable, '-c', 'print({n})'], capture_output=True, text=True)",
        "{v}.stdout, {v}.returncode",
        "subprocess.run('exit {m}', shell=True).returncode",
        "p_{v} = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\np_{v}.communicate(b'x')",
        "subprocess.run(['/no/such/program'])",
    ],
    "processes": [
        "import multiprocessing as mp\nwith mp.get_context('fork').Pool(2) as pool:\n    {v} = pool.map(abs, [-{n}, -{m}])\n{v}"
    ],
    "files": [
        "with open('{v}.txt', 'w') as file:\n    print(file.write('line {n}\\nline {m}\\n'))",
        "f_{v} = open('{v}.txt')\nf_{v}.readline()",
        "f_{v}.tell(), f_{v}.closed",
        "f_{v}.read(); f_{v}.close()\nopen('{v}.txt', 'x')",
        "open('nowhere/{v}.txt')",
        "with open('{v}.txt', 'r+b') as file: file.seek(2); file.write(b'XX')\nprint(open('{v}.txt').read())",
    ],
    "paths": [
        "from pathlib import Path\n{v} = Path('d_{v}'); {v}.mkdir(); ({v} / 'a.txt').write_text('{n}')",
        "sorted(p.name for p in {v}.iterdir())",
        "({v} / 'a.txt').rename({v} / 'b.txt').name",
        "import shutil\nshutil.rmtree({v})\n{v}.exists()",
        "import tempfile\nwith tempfile.TemporaryDirectory() as temporary: (Path(temporary) / 'x').touch()\ndel temporary",
    ],
    "json and pickle": [
        "import json, pickle\n{v} = {{'n': {n}, 'l': [1, None, True]}}\njson.dump({v}, open('{v}.json', 'w'))",
        "json.load(open('{v}.json')) == {v}",
        "pickle.loads(pickle.dumps({v}))['n']",
        "with open('{v}.pkl', 'wb') as file: pickle.dump(open, file)",
        "pickle.load(open('{v}.pkl', 'rb')) is open",
    ],
    "archives": [
        "import gzip, zipfile\nwith gzip.open('{v}.gz', 'wt') as file: file.write('{n}')\ngzip.open('{v}.gz', 'rt').read()",
        "with zipfile.ZipFile('{v}.zip', 'w') as z: z.writestr('a', '{m}')\nzipfile.ZipFile('{v}.zip').namelist()",
    ],
    "warnings": [
        "import warnings\nwarnings.warn('n {n}')",
        "with warnings.catch_warnings(record=True) as {v}:\n    warnings.simplefilter('always')\n    warnings.warn('kept', DeprecationWarning)\n{v} = [str(one.message) for one in {v}]\n{v}",
        "def deep_{v}():\n    warnings.warn('deep {v}', UserWarning, stacklevel=2)\ndeep_{v}()",
        "warnings.filters[0][0]",
    ],
    "logging": [
        "import logging\n{v} = logging.getLogger('{v}')\n{v}.warning('w %s', {n})",
        "{v}.info('unseen'); {v}.handlers",
        "logging.captureWarnings(False)\nlogging.root.level",
    ],
    "displays": [
        "from IPython.display import display, HTML, Markdown, Latex, JSON, SVG\ndisplay(HTML('<b>{n}</b>'), Markdown('*{m}*'))",
        "JSON({{'a': [{n}]}})",
        "SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
        "display({{'text/plain': '{v}', 'x/y': 'z'}}, raw=True)",
        "class R_{v}:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n        return {{'text/plain': 'r{n}', 'text/html': '<i>'}}, {{'text/html': {{'a': 1}}}}\nR_{v}()",
        "from IPython.display import clear_output\nprint('gone'); clear_output(); print('stays')",
    ],
    "updated displays": [
        "from IPython.display import display, update_display\ndisplay('one', display_id='{v}');",
        "update_display('two {n}', display_id='{v}')",
    ],
    "bad reprs": [
        "class B_{v}:\n    def __repr__(self): raise ValueError('repr {n}')\nb_{v} = B_{v}()",
        "b_{v}",
        "class H_{v}:\n    def _repr_html_(self): raise KeyError('html')\n    def __repr__(self): return 'plain'\nH_{v}()",
        "[b_{v}][:0]",
    ],
    "printing": [
        "print('a', {n}, sep='-', end='')\nprint()\nimport sys\nprint('err', file=sys.stderr)",
        "sys.stdout.write('w{m}\\n')",
        "print(*range(40), sep='\\n', flush=True)",
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as {v}: print('hidden')\n{v}.getvalue()",
        "print('\\x1b[31mred\\x1b[0m', '\\t|', 'ü€😀')",
    ],
    "history": ["{n} + {m}", "_ + 1", "__, ___", "_i.strip()", "len(In) > 2, max(Out) > 0", "_oh is Out", "{n};"],
    "random": [
        "import random\nrandom.seed({n})\nrandom.random()",
        "random.sample(range(100), 3)",
        "import numpy as np\nnp.random.seed({m})\nnp.random.rand(2)",
        "{v} = np.random.default_rng({n})\n{v}.integers(100, size=3)",
        "{v}.normal()",
        "np.random.rand(), random.randint(0, 9)",
    ],
    "lifetimes": [
        "import weakref, gc\ngone_{v} = []\nclass D_{v}:\n    def __del__(self): gone_{v}.append(1)\nd_{v} = D_{v}(); w_{v} = weakref.ref(d_{v})",
        "import sys\nsys.getrefcount(d_{v})",
        "k_{v} = [d_{v}]; del d_{v}\ngone_{v}",
        "k_{v}.pop(); gc.collect(); gone_{v}, w_{v}() is None",
    ],
    "closures": [
        "def outer_{v}():\n    n = {n}\n    def inner():\n        nonlocal n\n        n += 1\n        return n\n    return inner\n{v} = outer_{v}()",
        "{v}(), {v}()",
        "{v}.__closure__[0].cell_contents",
        "shared = {v}; shared()",
    ],
    "decorators": [
        "import functools\n@functools.lru_cache\ndef {v}(n): return n if n < 2 else {v}(n - 1) + {v}(n - 2)\n{v}({m} + 5)",
        "{v}.cache_info()",
        "p_{v} = functools.partial(pow, {n})\np_{v}(2)",
        "@functools.singledispatch\ndef s_{v}(x): return 'any'\n@s_{v}.register\ndef _(x: int): return 'int'\ns_{v}(1), s_{v}('')",
    ],
    "exec": [
        "exec('{v} = {n}')\n{v}",
        "eval('{v} + {m}')",
        "globals()['g_{v}'] = {n}\ng_{v}",
        "locals() is globals(), '{v}' in vars()",
        "exec('def f_{v}(): return {v}')\nf_{v}()",
    ],
    "deleting": [
        "{v} = {n}; del {v}\n'{v}' in globals()",
        "{v} = 1\n%reset_selective -f ^{v}$",
        "{v}",
        "a_{v} = b_{v} = [{m}]\ndel a_{v}\nb_{v}",
    ],
    "imports": [
        "import math as {v}\n{v}.floor({n}.5)",
        "from collections import *\nCounter('a{v}').most_common(1)",
        "import importlib, string\nimportlib.reload(string).digits",
        "from __future__ import annotations\ndef f_{v}(x: no_such_type) -> {v}: ...\nf_{v}.__annotations__['x']",
    ],
    "a module of one's own": [
        "open('mod_{v}.py', 'w').write('value = {n}\\ndef f(): return value\\n');",
        "import mod_{v}\nmod_{v}.f()",
        "mod_{v}.value = {m}\nmod_{v}.f()",
        "open('mod_{v}.py', 'a').write('extra = 1\\n');\nimport importlib; importlib.reload(mod_{v}).extra, mod_{v}.value",
    ],
    "surroundings": [
        "import os, sys\nos.environ['V_{v}'] = '{n}'\nos.environ['V_{v}']",
        "os.makedirs('w_{v}', exist_ok=True); os.chdir('w_{v}'); os.path.basename(os.getcwd())",
        "os.chdir('..'); os.listdir('w_{v}')",
        "sys.setrecursionlimit(sys.getrecursionlimit())",
        "import locale, signal\nsignal.getsignal(signal.SIGUSR1) == signal.SIG_DFL",
    ],
    "sqlite": [
        "import sqlite3\n{v} = sqlite3.connect('{v}.db')\n{v}.execute('create table t (n int)'); {v}.executemany('insert into t values (?)', [({n},), ({m},)]).rowcount",
        "c_{v} = {v}.execute('select n from t order by n')\nc_{v}.fetchone()",
        "c_{v}.fetchall()",
        "{v}.execute('select nothing')",
        "import pandas as pd\npd.read_sql('select sum(n) s from t', {v})",
        "{v}.rollback(); {v}.close()\n{v}.execute('select 1')",
    ],
    "matching": [
        "match {{'k': {n}}}:\n    case {{'k': int(x)}} if x > 0:\n        print('positive', x)\n    case _:\n        print('else')",
        "[{v} := {m}, {v} + 1]",
        "{v}",
    ],
    "big numbers": [
        "{v} = 2 ** (100 + {n})\n{v}",
        "from decimal import Decimal\nfrom fractions import Fraction\nDecimal('0.1') * {m}, Fraction({n}, 7)",
        "float('nan'), -0.0, complex({n}, 1)",
        "int('9' * 5000)",
    ],
    "polars": [
        "import polars as pl\n{v} = pl.DataFrame({{'a': [{n}, {m}], 'b': ['x', 'y']}})\n{v}",
        "l_{v} = {v}.lazy().filter(pl.col('a') > 0)\nl_{v}.collect().height",
        "{v}.write_parquet('{v}.parquet'); pl.read_parquet('{v}.parquet').equals({v})",
    ],
    "arrow": [
        "import pyarrow as pa, pyarrow.parquet as pq\n{v} = pa.table({{'a': [{n}, None]}})\npq.write_table({v}, '{v}_a.parquet')",
        "pq.read_table('{v}_a.parquet').column('a').null_count",
        "{v}.schema",
    ],
    "nested cells": [
        "r_{v} = get_ipython().run_cell('n_{v} = {n}\\nn_{v} + 1')\nr_{v}.result",
        "get_ipython().run_cell('1 / 0').success",
        "get_ipython().ex('x_{v} = {m}'); x_{v}",
        "get_ipython().run_line_magic('pwd', '')[:0]",
    ],
    "user hooks": [
        "seen_{v} = []\ndef before_{v}(info): seen_{v}.append(len(info.raw_cell) > 0)\nget_ipython().events.register('pre_run_cell', before_{v})",
        "len(seen_{v})",
        "get_ipython().events.unregister('pre_run_cell', before_{v})\nlen(seen_{v})",
    ],
    "asking": ["input('name?')", "import getpass\ngetpass.getpass()", "exit_{v} = 'no exit'\nexit_{v}"],
    "interrupts": [
        "raise KeyboardInterrupt",
        "raise KeyboardInterrupt('said {n}')",
        "try:\n    raise KeyboardInterrupt\nexcept BaseException as error:\n    print(type(error).__name__)",
    ],
    "exits": ["raise SystemExit({m})", "import sys\nsys.exit('words {n}')", "'still here'"],
}


def notebook(number: int) -> list[str]:
    """The cells of the notebook of that number: five to eight episodes, each in its order, shuffled into one another."""
    chance = random.Random(number)
    names = sorted(EPISODES)
    # one after the other as numbers go, so that any run of them has each episode
    told = [names[number % len(names)], *chance.sample(names, chance.randrange(4, 8))]
    queues = []
    for place, name in enumerate(told):
        words = {"v": f"{'abcdefghij'[place]}{number % 10}", "n": chance.randrange(2, 30), "m": chance.randrange(1, 9)}
        queues.append([cell.replace("%r", "").format(**words) for cell in EPISODES[name]])
    cells = []
    while queues:
        queue = chance.choice(queues)
        cells.append(queue.pop(0))
        if not queue:
            queues.remove(queue)
    return cells
