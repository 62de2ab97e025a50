"""What a cell's text says of the world beyond the notebook: time, network, environment variables, fresh entropy.

A name counts only where an import of the notebook says what it is: `datetime.now` where ``datetime`` is the standard
library's, whatever it is called here. What stands in a function counts for the cells that mention the function, by
however many steps. What a library does inside is not read: the sources that `access` sees are on record besides.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from jupyter_mlops.lineage.magics import as_python


class Use(msgspec.Struct, frozen=True):
    """A look at the world beyond the notebook.

    Attributes
    ----------
    what
        ``time``, ``network``, ``environment``, ``randomness``.
    call
        How it is spelled: ``datetime.datetime.now``.
    through
        The function it stands in, where a cell uses it by calling that.
    """

    what: str
    call: str
    through: str = ""


class Text(msgspec.Struct, frozen=True):
    """What one cell's text holds.

    Attributes
    ----------
    at_once
        Uses in what runs with the cell.
    functions
        Uses in the functions and classes it defines, by name.
    mentions
        Names that run with the cell, and by function those in its body.
    """

    at_once: tuple[Use, ...] = ()
    functions: dict[str, tuple[Use, ...]] = {}
    mentions: frozenset[str] = frozenset()
    bodies: dict[str, frozenset[str]] = {}


_TIME: Final = frozenset(
    "time.time time.time_ns time.perf_counter time.perf_counter_ns time.monotonic time.monotonic_ns time.process_time "
    "time.process_time_ns time.thread_time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today "
    "datetime.date.today pandas.Timestamp.now pandas.Timestamp.today pandas.Timestamp.utcnow timeit.default_timer "
    "pendulum.now pendulum.today arrow.now arrow.utcnow uuid.uuid1".split()
)
_TIME_WITHOUT: Final = {"time.localtime": 0, "time.gmtime": 0, "time.ctime": 0, "time.asctime": 0, "time.strftime": 1}
"""Functions that take the present moment where fewer arguments are given than this and one more."""
_NOW: Final = frozenset({"pandas.Timestamp", "pandas.to_datetime", "numpy.datetime64", "polars.lit"})
_ENVIRONMENT: Final = frozenset(
    "os.environ os.environb os.getenv os.getenvb os.path.expandvars os.path.expanduser pathlib.Path.home os.getlogin "
    "getpass.getuser socket.gethostname platform.node dotenv.load_dotenv dotenv.dotenv_values".split()
)
_ENTROPY: Final = frozenset("os.urandom uuid.uuid4 random.SystemRandom torch.seed torch.initial_seed".split())
_ENTROPY_MODULES: Final = ("secrets.",)
_SEEDABLE: Final = frozenset(
    "random.seed random.Random numpy.random.seed numpy.random.default_rng numpy.random.RandomState "
    "numpy.random.SeedSequence numpy.random.PCG64 numpy.random.MT19937 numpy.random.Philox numpy.random.SFC64".split()
)
"""Take their seed from the system where they are given none."""
_NETWORK: Final = (
    "requests.", "urllib.request.", "http.client.", "httpx.", "aiohttp.", "urllib3.", "socket.create_connection",
    "socket.socket", "ftplib.", "smtplib.", "imaplib.", "paramiko.", "boto3.", "websocket.", "websockets.",
    "huggingface_hub.", "kagglehub.", "kaggle.", "yfinance.", "openml.", "gdown.", "wget.", "google.cloud.",
    "snowflake.connector.", "psycopg.connect", "psycopg2.connect", "pymysql.connect", "torch.hub.",
    "seaborn.load_dataset", "sklearn.datasets.fetch_", "tensorflow.keras.utils.get_file", "datasets.load_dataset",
)  # fmt: skip
_NO_NETWORK: Final = ("requests.exceptions.", "requests.utils.", "requests.structures.", "urllib3.exceptions.")
_ADDRESS: Final = re.compile(r"(?:https?|s3|s3a|gs|gcs|ftp|sftp|hf|abfss?|az|postgres\w*|mysql\w*|mssql\w*|oracle\w*)"
                             r"(?:\+\w+)?://")  # fmt: skip
_SHELL: Final = (
    ("network", re.compile(r"\b(curl|wget|scp|sftp|rsync|ssh|gsutil|aws s3|kaggle|pip3? install|conda install|uv pip"
                           r"|apt(?:-get)? install|npm install|git (?:clone|pull|fetch))\b")),
    ("time", re.compile(r"(?:^|[|;&(]\s*)(date)\b")),
)  # fmt: skip
_MAGICS: Final = {"pip": "network", "conda": "network", "mamba": "network", "uv": "network", "sql": "network",
                  "bigquery": "network"}  # fmt: skip
_HINTS: Final = (
    "time", "now", "today", "date", "environ", "getenv", "expand", "home", "getuser", "getlogin", "hostname",
    "platform", "dotenv", "urandom", "uuid", "secrets", "SystemRandom", "seed", "Random", "rng", "PCG", "MT19937",
    "Philox", "SFC64", "://", "requests", "urllib", "http", "socket", "ftp", "smtp", "imap", "paramiko", "boto",
    "hugging", "kaggle", "yfinance", "openml", "gdown", "wget", "google", "snowflake", "psycopg", "pymysql", "hub",
    "load_dataset", "fetch_", "get_file", "arrow", "pendulum", "curl", "scp", "rsync", "ssh", "gsutil", "aws", "pip",
    "conda", "mamba", "apt", "npm", "git ", "%sql", "%env", "bigquery", "%uv", "!uv",
)  # fmt: skip
"""What no text is without that has a use in it: others need not be parsed."""
_TABLES: Final = (*_TIME, *_TIME_WITHOUT, *_NOW, *_ENVIRONMENT, *_ENTROPY, *_SEEDABLE)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def uses_in(cells: Iterable[str]) -> list[tuple[Use, ...]]:
    r"""Find the uses of each cell of a notebook.

    Parameters
    ----------
    cells
        Their sources as they stand, in their order.

    Returns
    -------
    list
        For each cell its uses, each once; those through a function name it.

    Examples
    --------
    >>> uses_in(["import time\ndef stamp(): return time.time()", "x = stamp()"])[1]
    (Use(what='time', call='time.time', through='stamp'),)
    """
    sources = list(cells)
    hinted = [_hinted(source) for source in sources]
    if not any(hinted):
        return [()] * len(sources)
    imports: dict[str, str] = {}
    for source in sources:
        if "import" in source:
            imports.update(_imports(source))
    known = tuple(sorted(imports.items()))
    texts = [_read(source, known) if hint else None for source, hint in zip(sources, hinted, strict=True)]
    functions: dict[str, tuple[Use, ...]] = {}
    for text in texts:
        if text is not None:
            functions.update((name, uses) for name, uses in text.functions.items() if uses)
    if not functions:
        return [_once(text.at_once) if text is not None else () for text in texts]
    # Some function looks beyond the notebook: whoever mentions it has to be found, in whatever cell.
    whole = [text if text is not None else _read(source, known) for source, text in zip(sources, texts, strict=True)]
    bodies: dict[str, frozenset[str]] = {}
    for text in whole:
        bodies.update(text.bodies)
    return [_once((*text.at_once, *_through(text.mentions, functions, bodies))) for text in whole]


def _through(
    mentions: Iterable[str], functions: Mapping[str, tuple[Use, ...]], bodies: Mapping[str, frozenset[str]]
) -> Iterator[Use]:
    due = sorted(mentions)
    seen: set[str] = set()
    while due:
        name = due.pop()
        if name in seen:
            continue
        seen.add(name)
        for use in functions.get(name, ()):
            yield msgspec.structs.replace(use, through=name)
        due += sorted(bodies.get(name, ()))


def _once(uses: Iterable[Use]) -> tuple[Use, ...]:
    found: dict[tuple[str, str], Use] = {}
    for use in uses:
        found.setdefault((use.what, use.call), use)
    return tuple(found.values())


@functools.lru_cache(maxsize=4096)
def _hinted(source: str) -> bool:
    for hint in _HINTS:  # noqa: SIM110 - a generator for `any` takes twice as long
        if hint in source:
            return True
    return False


@functools.lru_cache(maxsize=4096)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(as_python(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # no Python: nothing that could be read in it


@functools.lru_cache(maxsize=4096)
def _imports(source: str) -> dict[str, str]:
    """What the names that a text imports stand for."""
    found: dict[str, str] = {}
    tree = _parsed(source)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                found[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.name != "*":
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    continue
                head = node.module + "."
                rest = (one.removeprefix(head).partition(".")[0] for one in _TABLES if one.startswith(head))
                found.update((name, head + name) for name in rest)
    return found


@functools.lru_cache(maxsize=4096)
def _read(source: str, imports: tuple[tuple[str, str], ...]) -> Text:
    tree = _parsed(source)
    if tree is None:
        return Text()
    reader = _Reader(dict(imports))
    try:
        reader.walk(tree, "")
    except RecursionError:
        return Text()  # nested deeper than can be followed: `names_in` says so of the cell
    functions = {name: tuple(uses) for name, uses in reader.uses.items() if name}
    return Text(
        at_once=tuple(reader.uses.get("", ())), functions=functions, mentions=frozenset(reader.mentions.get("", ())),
        bodies={name: frozenset(names) for name, names in reader.mentions.items() if name},
    )  # fmt: skip


class _Reader:
    """One walk over a cell; everything is noted under the function it stands in, empty for what runs at once."""

    def __init__(self, imports: Mapping[str, str]) -> None:
        self.imports = imports
        self.uses: dict[str, list[Use]] = {}
        self.mentions: dict[str, set[str]] = {}

    def walk(self, node: ast.AST, inside: str) -> None:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and not inside:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self.function(node.value, target.id, inside)
                    return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.function(node, inside or node.name, inside)
            return
        if isinstance(node, ast.ClassDef):
            for part in (*node.decorator_list, *node.bases, *node.keywords):
                self.walk(part, inside)
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    self.function(member, inside or node.name, inside)
                else:
                    self.walk(member, inside)
            return
        if isinstance(node, ast.Call):
            self.call(node, inside)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            self.reference(node, inside)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            # `os.environ["X"] = 1` looks nothing up
            self.walk(node.slice, inside)
            if self.dotted(node.value) not in _ENVIRONMENT:
                self.walk(node.value, inside)
            return
        for child in ast.iter_child_nodes(node):
            self.walk(child, inside)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, name: str, outer: str) -> None:
        now: list[ast.AST] = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
        if not isinstance(node, ast.Lambda):
            now += node.decorator_list
        for part in now:
            self.walk(part, outer)
        self.uses.setdefault(name, [])
        self.mentions.setdefault(name, set())
        for part in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self.walk(part, name)

    def use(self, what: str, call: str, inside: str) -> None:
        self.uses.setdefault(inside, []).append(Use(what, call))

    def dotted(self, node: ast.AST) -> str:
        """What a chain of attributes stands for; empty where no import tells."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.imports:
            return ""
        return ".".join([self.imports[node.id], *reversed(parts)])

    def reference(self, node: ast.Attribute | ast.Name, inside: str) -> None:
        if isinstance(node, ast.Name):
            self.mentions.setdefault(inside, set()).add(node.id)
        name = self.dotted(node)
        if name in _TIME:
            self.use("time", name, inside)
        elif name in _ENVIRONMENT:
            self.use("environment", name, inside)
        elif name in _ENTROPY or (name.startswith(_ENTROPY_MODULES)):
            self.use("randomness", name, inside)

    def call(self, node: ast.Call, inside: str) -> None:
        func = node.func
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Call):
            shell = func.value.func
            if isinstance(shell, ast.Name) and shell.id == "get_ipython":
                self.magic(func.attr, node, inside)
        name = self.dotted(func)
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        text = given[0].value if given and isinstance(given[0], ast.Constant) else None
        if name in _TIME_WITHOUT and len(given) <= _TIME_WITHOUT[name]:
            self.use("time", name, inside)
        elif name in _NOW and isinstance(text, str) and text.strip().lower() in ("now", "today"):
            self.use("time", f"{name}({text!r})", inside)
        elif name in _SEEDABLE and all(isinstance(one, ast.Constant) and one.value is None for one in given):
            self.use("randomness", f"{name}() without a seed", inside)
        elif name.startswith(_NETWORK) and not name.startswith(_NO_NETWORK):
            self.use("network", name, inside)
        elif any(_is_address(one) for one in given):
            called = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
            if re.match(r"read|load|open|urlopen|urlretrieve|get|post|fetch|download|create_engine|connect|scan|from_",
                        called):  # fmt: skip
                self.use("network", name or called, inside)

    def magic(self, method: str, node: ast.Call, inside: str) -> None:
        words = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if not words:
            return
        if method in ("system", "getoutput"):
            self.shell(words[0], inside)
            return
        name, line = words[0], words[1] if len(words) > 1 else ""
        if name in _MAGICS:
            self.use(_MAGICS[name], f"%{name}", inside)
        elif name == "env" and line.strip() and "=" not in line and len(line.split()) == 1:
            self.use("environment", f"%env {line.strip()}", inside)
        elif method == "run_cell_magic" and len(words) > 2:
            if name in ("time", "capture", "prun", "mlops", "debug"):
                inner = _parsed(words[2])
                if inner is not None:
                    self.walk(inner, inside)
            else:
                self.shell(words[2], inside)
        elif name in ("time", "prun"):
            inner = _parsed(line)
            if inner is not None:
                self.walk(inner, inside)
        elif name in ("sx", "system", "sc"):
            self.shell(line, inside)

    def shell(self, text: str, inside: str) -> None:
        for what, pattern in _SHELL:
            for line in text.splitlines():
                found = pattern.search(line)
                if found is not None:
                    self.use(what, f"!{found[1]}", inside)


def _is_address(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and _ADDRESS.match(node.value) is not None
