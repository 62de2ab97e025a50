"""Notebooks do the same with recording as without: outputs, replies, and everything a cell could look at afterwards."""

# ruff: noqa: E501 - the cells are what people write
from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from notebooks import EPISODES, notebook

from jupyter_mlops.errors import late
from jupyter_mlops.store import Store

REPOSITORY = Path(__file__).parents[1]

NOTEBOOKS: dict[str, list[str]] = {
    "scalars": ["a = 1", "b = a + 1", "b", "_", "a += b\na", "del b", "sorted(n for n in dir() if n in ('a', 'b'))"],
    "printing": ["print('x')", "import sys\nprint('e', file=sys.stderr)", "print('a', end='')\nprint('b')", "'r'"],
    "errors": ["1 / 0", "def f():\n    raise KeyError('k')", "f()", "def (", "x = [", "%nomagic", "undefined_name"],
    "own error": [
        "class Odd(Exception):\n    calls = []\n    def __str__(self):\n        Odd.calls.append(1)\n        return 'odd'",
        "raise Odd()",
        "len(Odd.calls) > 0",
    ],
    "containers": ["xs = []", "xs.append(1)", "d = {'x': xs}", "d['x'].append(2)\nxs", "xs.append(xs)\nlen(xs)"],
    "functions": ["k = 2", "def f(x): return x * k", "f(3)", "k = 3", "f(3)", "g = lambda: f(1)", "g()"],
    "classes": ["class A:\n    n = 0\n    def up(self):\n        self.n += 1\n        return self", "a = A().up()", "a.n"],
    "generators": ["g = (i for i in range(3))", "next(g)", "list(g)", "it = iter([1, 2])", "list(it)", "m = map(str, [1])", "list(m)"],
    "files": ["open('t.txt', 'w').write('one\\ntwo\\n');", "f = open('t.txt')", "f.readline()", "f.tell()", "f.read()", "f.close()"],
    "pathlib": ["from pathlib import Path\nPath('p').mkdir()\nPath('p/a.json').write_text('{}')", "Path('p/a.json').read_text()"],
    "magics": ["%time 1", "%%time\n2", "%%capture cap\nprint('taken')", "cap.stdout", "%pwd", "x = !echo hi", "x", "%who_ls int"],
    "shell": ["!echo out", "%%bash\necho from bash", "import os\nos.system('true')", "import subprocess\nsubprocess.run(['true'])"],
    "nested": ["r = get_ipython().run_cell('inner = 5\\ninner')", "r.result", "get_ipython().run_line_magic('time', '1')"],
    "async": [
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 7",
        "await f()",
        "t = asyncio.ensure_future(f())",
        "await t",
    ],
    "threads": ["import threading\nout = []\nt = threading.Thread(target=out.append, args=(1,))\nt.start(); t.join()\nout"],
    "random": ["import random\nrandom.seed(4)", "random.random()", "import numpy as np\nnp.random.seed(1)", "np.random.rand(2)", "random.random()"],
    "numpy": ["import numpy as np\na = np.arange(6).reshape(2, 3)", "a.T.flags.f_contiguous", "v = a[:, 1]", "v[0] = 9\na", "a.sum()"],
    "pandas": ["import pandas as pd\ndf = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})", "df", "df['c'] = df['a'] * 2", "df.describe()",
               "df.to_csv('df.csv', index=False)", "pd.read_csv('df.csv')"],
    "sklearn": ["from sklearn.linear_model import LinearRegression\nm = LinearRegression()", "m.fit([[0.], [1.]], [0., 1.])", "m.coef_.round(6)"],
    "display": ["from IPython.display import display, HTML, Markdown\ndisplay(HTML('<b>1</b>'))", "Markdown('*m*')",
                "h = display('first', display_id='d1')", "h = display(1, display_id=True)\nh.update(2)"],
    "rich reprs": ["class R:\n    n = 0\n    def _repr_html_(self):\n        R.n += 1\n        return f'<i>{R.n}</i>'", "r = R()", "r", "r", "R.n"],
    "traps": [
        "touched = []\nclass Trap:\n"
        "    def __getattr__(self, name): touched.append(name); raise AttributeError(name)\n"
        "    def __len__(self): touched.append('len'); return 1\n"
        "    def __eq__(self, other): touched.append('eq'); return True\n"
        "    def __hash__(self): touched.append('hash'); return 1\n"
        "    def __reduce_ex__(self, p): touched.append('reduce'); return (int, ())\n"
        "    def __repr__(self): touched.append('repr'); return 'Trap'",
        "t = Trap()", "u = [t, {'k': t}]", "v = t, u", "touched",
    ],
    "lifetimes": [
        "import weakref, gc\ngone = []\nclass D:\n    def __del__(self): gone.append(1)",
        "d = D(); w = weakref.ref(d)", "import sys; sys.getrefcount(d)", "del d", "gone, w() is None",
    ],
    "warnings": ["import warnings\nwarnings.warn('once')", "warnings.warn('again')", "len(warnings.filters) > 0"],
    "logging": ["import logging\nlogging.getLogger().handlers, logging.getLogger().level", "logging.warning('shown')"],
    "identity": ["import sys, io, builtins, os\n(type(sys.stdout).__name__, sys.stdout is sys.__stdout__)", "builtins.open.__name__, open is builtins.open",
                 "import pickle\npickle.loads(pickle.dumps(open)) is open", "sys.getrecursionlimit()", "isinstance(open, object)"],
    "changing directory": ["import os\nos.mkdir('sub')\nos.chdir('sub')", "os.path.basename(os.getcwd())", "open('in_sub.txt', 'w').write('x');", "os.listdir('.')"],
    "matplotlib": ["import matplotlib\nmatplotlib.get_backend().rpartition('.')[2] != ''", "import matplotlib.pyplot as plt\nplt.rcParams['figure.dpi']"],
    "recursion": ["def deep(n): return 0 if n == 0 else deep(n - 1)\ndeep(500)", "def forever(): return forever()\ntry:\n    forever()\nexcept RecursionError:\n    print('as ever')"],
    "sqlite": ["import sqlite3\nc = sqlite3.connect(':memory:')", "c.execute('create table t (n)')\nc.execute('insert into t values (1)')\nq = c.execute('select * from t')", "q.fetchall()"],
    "secrets": ["token = 'sk-not-really-0123456789abcdef'", "token[:2]", "len(token)"],
    "history": ["1 + 1", "_ * 2", "_1", "__", "In[-1]", "sorted(Out)", "_i"],
    "exit codes": ["import sys\ntry:\n    sys.exit(3)\nexcept SystemExit as e:\n    print(e.code)", "exit_was = 'caught'"],
    "polars": ["import polars as pl\ndf = pl.DataFrame({'a': [1, None], 's': ['x', 'a longer text than that']})", "df", "df = df.with_columns(b=pl.col('a') * 2)",
               "import sys, warnings\nlen(warnings.filters), 'numpy' in sys.modules, 'pyarrow' in sys.modules", "import numpy\nlen(warnings.filters)"],
    "input": ["try:\n    input('?')\nexcept Exception as error:\n    print(type(error).__name__)"],
}  # fmt: skip

# What a cell could look at when all is done. The names that loading an extension brings are not there in both kernels.
SURVEY = r"""
import sys as _s, os as _o, random as _r, signal as _g, logging as _l, warnings as _w, json as _j, hashlib as _h, locale as _c
_np = _s.modules.get('numpy')
_mpl = _s.modules.get('matplotlib')
_ip = get_ipython()
print(_j.dumps({
    'names': sorted(n for n in _ip.user_ns if not n.startswith('_')),
    'values': {n: repr(v) for n, v in sorted(_ip.user_ns.items()) if type(v) in (int, float, str, bool, list, tuple, dict) and not n.startswith('_') and n not in ('In', 'Out')},
    'out': {str(k): type(v).__name__ for k, v in _ip.user_ns['Out'].items()},
    'in': _ip.user_ns['In'],
    'cwd': _o.path.basename(_o.getcwd()),
    'env': sorted(k for k in _o.environ),
    'random': _h.sha256(repr(_r.getstate()).encode()).hexdigest() if 'seeded' in _ip.user_ns else None,
    'filters': [repr(f) for f in _w.filters],
    'sigint': repr(_g.getsignal(_g.SIGINT)).partition(' at ')[0],
    'sigterm': repr(_g.getsignal(_g.SIGTERM)).partition(' at ')[0],
    'limit': _s.getrecursionlimit(),
    'root': [repr(h).partition(' at ')[0] for h in _l.getLogger().handlers] + [_l.getLogger().level],
    'streams': [type(_s.stdout).__name__, type(_s.stderr).__name__, type(_s.stdin).__name__],
    'write': 'write' in vars(_s.stdout) if hasattr(_s.stdout, '__dict__') else False,
    'hooks': [_s.displayhook.__class__.__name__, _s.excepthook.__name__, getattr(_s, 'gettrace')() is None, _s.getprofile() is None],
    'switch': _s.getswitchinterval(),
    'locale': _c.setlocale(_c.LC_ALL),
    'backend': _mpl.get_backend() if _mpl else None,
    'numpy': repr(_np.geterr()) if _np else None,
    'path': [p for p in _s.path],
    'argv': len(_s.argv),
    'libraries': [n for n in ('matplotlib', 'numpy', 'pandas', 'polars', 'pyarrow', 'scipy', 'sklearn', 'torch') if n in _s.modules],
    'loggers': sorted([n, l.level, len(l.handlers)] for n, l in _l.root.manager.loggerDict.items() if isinstance(l, _l.Logger) and (l.level or l.handlers)),
}, default=repr))
"""


class Plain:
    """A stock kernel, with recording or without."""

    def __init__(self, folder: Path, *, record: bool) -> None:
        folder.mkdir()
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self.folder = folder
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[0] = sys.executable
        environ = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        self.manager.start_kernel(cwd=str(folder), env=environ, stderr=subprocess.DEVNULL)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        if record:
            load = "get_ipython().extension_manager.load_extension('jupyter_mlops')"
            _, reply = self.run("", silent=True, user_expressions={"load": load})
            assert reply["user_expressions"]["load"]["status"] == "ok"

    def run(self, code: str, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        outputs: list[dict[str, Any]] = []
        request = self.client.execute(code, allow_stdin=False, **options)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
                outputs[-1]["text"] += content["text"]  # where a stream is cut into messages is a matter of time
            elif kind != "status" and kind != "execute_input":
                outputs.append({"type": kind, **content})
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == request:
                return outputs, reply["content"]

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)


_VARYING = re.compile(
    r"0x[0-9a-f]{6,}|ipykernel_\d+/\d+|(?:CPU times|Wall time)[^\"]*?(?=\\n|\")|\d+(?:\.\d+)? [mµnu]?s\b|\\u001b\[[0-9;]*m"
    r"|pytest-of-[^\"' ]*?/(?:plain|recorded)\d*"
)


def normal(answer: tuple[list[dict[str, Any]], dict[str, Any]], folder: Path) -> str:
    outputs, reply = answer
    kept = {key: reply.get(key) for key in ("status", "ename", "evalue", "execution_count", "payload", "traceback")}
    text = json.dumps([outputs, kept], sort_keys=True).replace(str(folder), "<folder>")
    return _VARYING.sub("…", re.sub(r"display_id\": \"[0-9a-f]{32}", "display_id", text))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


NOISY = """
import logging, random, signal, sys, warnings
warnings.simplefilter("ignore")
warnings.filterwarnings("always", category=ResourceWarning)
signal.signal(signal.SIGUSR1, lambda *_: None)
random.seed(1)
logging.getLogger().addHandler(logging.StreamHandler())
logging.getLogger().setLevel(5)
if "numpy" in sys.modules:
    import numpy
    numpy.random.seed(1)
warnings.simplefilter("always")
warnings.warn("loaded")
"""


def test_a_library_that_is_loaded_late_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    (tmp_path / "noisy_library.py").write_text(NOISY)
    (tmp_path / "broken_library.py").write_text(NOISY + "raise ImportError('halfway')")
    monkeypatch.syspath_prepend(str(tmp_path))

    def state() -> list[object]:
        root, drawn = logging.getLogger(), np.random.get_state()
        signals = [signal.getsignal(number) for number in signal.valid_signals()]
        return [id(warnings.filters), list(warnings.filters), warnings.showwarning, signals, random.getstate(),
                [part.tobytes() if isinstance(part, np.ndarray) else part for part in drawn],
                list(root.handlers), root.level]  # fmt: skip

    before = state()
    assert late("noisy_library").__name__ == "noisy_library"
    assert state() == before
    with pytest.raises(ImportError, match="halfway"):
        late("broken_library")
    assert state() == before
    assert late("noisy_library") is sys.modules["noisy_library"]
    assert capfd.readouterr() == ("", "")
    alone = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True)
    assert "UserWarning: loaded" in alone.stderr  # it is shown where nobody takes it back


def test_there_are_enough_notebooks_to_say_so() -> None:
    assert len(NOTEBOOKS) >= 20


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_does_the_same_with_recording_as_without(notebook: str, folders: Path) -> None:
    _the_same(notebook.replace(" ", "-"), NOTEBOOKS[notebook], folders)


def test_made_up_notebooks_tell_every_episode() -> None:
    assert len(EPISODES) >= 50
    assert len({tuple(notebook(number)) for number in range(120)}) == 120


@pytest.mark.parametrize(
    "number", [*range(3), *(pytest.param(number, marks=[pytest.mark.nightly]) for number in range(3, 120))]
)
def test_a_made_up_notebook_does_the_same_with_recording_as_without(number: int, folders: Path) -> None:
    _the_same(f"made-up-{number}", notebook(number), folders)


def _the_same(slug: str, sources: list[str], folders: Path) -> None:
    plain = Plain(folders / f"{slug}-0", record=False)
    recorded = Plain(folders / f"{slug}-1", record=True)
    try:
        for source in sources:
            theirs, mine = plain.run(source), recorded.run(source)
            assert normal(mine, recorded.folder) == normal(theirs, plain.folder), source
        theirs, mine = plain.run(SURVEY), recorded.run(SURVEY)
        before, after = (json.loads(outputs[-1]["text"]) for outputs, _ in (theirs, mine))
        for survey, folder in ((before, plain.folder), (after, recorded.folder)):
            survey["cwd"] = survey["cwd"].replace(folder.name, "")
            survey["values"] = {name: value.replace(str(folder), "") for name, value in survey["values"].items()}
        assert after == before
        request = "__import__('jupyter_mlops.capture').capture.session().errors"
        _, reply = recorded.run("", silent=True, user_expressions={"errors": request})
        assert reply["user_expressions"]["errors"]["data"]["text/plain"] == "[]", reply
    finally:
        plain.stop()
        recorded.stop()
    with Store.open(recorded.folder / ".mlops") as store:
        cells = store.cell_runs(newest_first=False)
        top = [cell for cell in cells if cell.started.parent is None]
        assert len(top) == len(sources) + 1
        for cell, source in zip(top, [*sources, SURVEY], strict=True):
            assert cell.source == source or cell.started.redacted
        assert all(cell.ended is not None for cell in cells)
        assert not store.fsck()
