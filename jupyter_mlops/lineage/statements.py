"""A cell taken apart into its statements: which of them stand on their own, set something up, or seed a generator.

A statement *stands on its own* where leaving out the others of its cell cannot change what it binds: an import, a name
for a literal, a function or class. Only such statements are ever taken out of a cell; any other cell stays whole.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from jupyter_mlops.lineage.magics import as_python
from jupyter_mlops.lineage.names import CellNames, names_of
from jupyter_mlops.lineage.seeds import GENERATORS, SEEDING_ALL, SEEDING_PATHS

IMPORT: Final = "import"
LITERAL: Final = "literal"
DEFINITION: Final = "definition"
SETTING: Final = "setting"


class Statement(msgspec.Struct, frozen=True):
    """A statement at the top of a cell.

    Attributes
    ----------
    node
        Its syntax tree.
    first, last
        Its lines, from 1, decorators included.
    names
        What it reads and writes itself.
    kind
        ``import``, ``literal``, ``definition``, ``setting``, or empty: then it does not stand on its own.
    """

    node: ast.stmt
    first: int
    last: int
    names: CellNames
    kind: str = ""

    @property
    def star(self) -> bool:
        """Whether it imports what it does not name."""
        return isinstance(self.node, ast.ImportFrom) and any(alias.name == "*" for alias in self.node.names)

    @property
    def constant(self) -> bool:
        """Whether what it binds cannot change in place."""
        return isinstance(self.node, ast.Assign | ast.AnnAssign) and is_constant(self.node.value)


class Cell(msgspec.Struct, frozen=True):
    """A cell's text, taken apart.

    Attributes
    ----------
    source
        As it was typed.
    statements
        None where it is no Python, or a cell magic: then nothing can be taken out of it.
    names
        What the whole reads and writes.
    body
        The statements that run, also those under ``%%time`` and ``%%capture``.
    """

    source: str
    statements: tuple[Statement, ...]
    names: CellNames
    body: tuple[Statement, ...] = ()

    def text(self, places: frozenset[int]) -> str:
        """The lines of some of its statements, as they were typed; comments go with the statement below them."""
        lines = self.source.splitlines()
        kept: list[str] = []
        for place in sorted(places):
            one = self.statements[place]
            first = one.first - 1
            while first and lines[first - 1].lstrip().startswith("#"):
                first -= 1
            kept += lines[first : one.last]
        return "\n".join(kept)

    @property
    def separable(self) -> bool:
        """Whether each statement has its lines to itself."""
        return all(one.last < other.first for one, other in zip(self.statements, self.statements[1:], strict=False))


_CELL_MAGIC: Final = re.compile(r"\n*%%(\w+)[^\n]*\n?(.*)", re.DOTALL)
_TRANSPARENT: Final = frozenset({"time", "capture", "prun", "debug", "mlops"})


@functools.lru_cache(maxsize=4096)
def cell_of(source: str) -> Cell:
    """Take a cell as it was typed apart."""
    text = as_python(source)
    try:
        tree = ast.parse(text)
        whole = names_of(tree.body)
        magic = _CELL_MAGIC.match(source)
        if magic is None:
            if len(tree.body) == 1:
                found: tuple[Statement, ...] = (_statement(tree.body[0], whole),)
            else:
                found = tuple(_statement(node) for node in tree.body)
            return Cell(source, found, whole, found)
        inner = ast.parse(as_python(magic[2])).body if magic[1] in _TRANSPARENT else []
        return Cell(source, (), whole, tuple(_statement(node) for node in inner))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Cell(source, (), CellNames(syntax_error=True))


def _statement(node: ast.stmt, names: CellNames | None = None) -> Statement:
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return Statement(node, first, node.end_lineno or node.lineno, names or names_of([node]), _kind(node))


def _kind(node: ast.stmt) -> str:
    match node:
        case ast.Import() | ast.ImportFrom():
            return IMPORT
        case ast.Assign(targets=targets, value=value) if is_literal(value):
            return LITERAL if all(isinstance(target, ast.Name) for target in targets) else ""
        case ast.AnnAssign(target=ast.Name(), value=value) if value is not None and is_literal(value):
            return LITERAL
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            defaults = (*node.args.defaults, *node.args.kw_defaults)
            return DEFINITION if all(one is None or is_constant(one) for one in defaults) else ""
        case ast.ClassDef():
            plain = all(isinstance(one, _IN_A_CLASS) or _is_text(one) or bool(_kind(one)) for one in node.body)
            return DEFINITION if plain else ""
    return SETTING if _setter(node) else ""


_IN_A_CLASS: Final = (ast.Pass, ast.AnnAssign)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_literal(node: ast.expr | None) -> bool:
    """Whether an expression is written out: numbers, texts, and lists, tuples, sets and dicts of them.

    >>> [is_literal(ast.parse(text, mode="eval").body) for text in ("-1.5", "{'a': [1, None]}", "x", "f'{1}'")]
    [True, True, False, False]
    """
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() | complex())):
            return True
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return all(map(is_literal, parts))
        case ast.Dict(keys=keys, values=values):
            return all(map(is_literal, keys)) and all(map(is_literal, values))
    return False


def is_constant(node: ast.expr | None) -> bool:
    """Whether an expression is a literal that cannot change in place."""
    if isinstance(node, ast.Tuple):
        return all(map(is_constant, node.elts))
    return is_literal(node) and not isinstance(node, ast.List | ast.Set | ast.Dict)


# -- what sets something up ------------------------------------------------------------------------------------------

_CALLS: Final = frozenset({
    "warnings.filterwarnings", "warnings.simplefilter", "warnings.resetwarnings", "numpy.seterr",
    "numpy.set_printoptions", "pandas.set_option", "pandas.reset_option", "os.chdir", "os.putenv", "os.unsetenv",
    "os.environ.update", "os.environ.setdefault", "os.environ.pop", "sys.path.insert", "sys.path.append",
    "sys.path.extend", "sys.path.remove", "sys.setrecursionlimit", "locale.setlocale", "logging.basicConfig",
    "matplotlib.use", "matplotlib.rc", "matplotlib.style.use", "matplotlib.rcParams.update",
    "matplotlib.pyplot.rc", "matplotlib.pyplot.style.use", "matplotlib.pyplot.rcParams.update",
    "matplotlib.pyplot.switch_backend", "seaborn.set", "seaborn.set_theme", "seaborn.set_style",
    "seaborn.set_context", "seaborn.set_palette", "sklearn.set_config", "torch.set_default_dtype",
    "torch.use_deterministic_algorithms", "torch.set_num_threads", "tensorflow.random.set_seed",
    "tensorflow.keras.utils.set_random_seed", "keras.utils.set_random_seed", "transformers.set_seed",
    "lightning.seed_everything", "lightning.pytorch.seed_everything", "pytorch_lightning.seed_everything",
    "polars.Config.set_tbl_rows", "polars.Config.set_fmt_str_lengths", "decimal.setcontext",
    "csv.field_size_limit", "socket.setdefaulttimeout",
})  # fmt: skip
_TARGETS: Final = (
    "os.environ", "sys.path", "pandas.options", "matplotlib.rcParams", "matplotlib.pyplot.rcParams",
    "decimal.getcontext", "torch.backends",
)  # fmt: skip
_MAGICS: Final = {
    "matplotlib": "matplotlib", "load_ext": "IPython", "reload_ext": "IPython", "autoreload": "IPython",
    "config": "IPython", "cd": "os", "env": "os", "set_env": "os", "precision": "IPython",
}  # fmt: skip
MAY_SET_UP: Final = re.compile(
    r"^[ \t]*%|^[ \t]*\w+(?:\.\w+)+[ \t]*(?:\[[^\]\n]*\][ \t]*)*[-+*/|&]?=(?!=)"
    r"|\b(?:environ|filterwarnings|simplefilter|resetwarnings|seterr|set_printoptions|set_option|options"
    r"|chdir|putenv|path|setrecursionlimit|setlocale|basicConfig|rcParams|rc|use|set|set_theme|set_style|set_context"
    r"|set_palette|set_config|set_default_dtype|backends|getcontext|experimental|set_seed|set_random_seed"
    r"|seed_everything|Config)\b", re.MULTILINE,
)  # fmt: skip
"""What every text that sets something up matches."""
_DISPLAYS: Final = frozenset({"matplotlib", "seaborn", "pandas", "polars", "sklearn", "torch", "tensorflow", "keras"})
"""Libraries whose settings matter to those alone who use them."""
_TO_ALL: Final = (
    frozenset({path.partition(".")[0] for path in (*_CALLS, *_TARGETS)} | set(_MAGICS.values())) - _DISPLAYS
)
"""Those whose settings matter to all."""
_LIKE: Final = {"seaborn": "matplotlib"}


def aliases_of(cell: Cell) -> dict[str, str]:
    """What the cell's imports call things: ``{"np": "numpy", "seed": "random.seed"}``."""
    found: dict[str, str] = {}
    for one in cell.statements:
        match one.node:
            case ast.Import(names=names):
                for alias in names:
                    root = alias.name.partition(".")[0]
                    found[alias.asname or root] = alias.name if alias.asname else root
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    found[alias.asname or alias.name] = f"{module}.{alias.name}"
    return found


def setting_of(one: Statement, aliases: Mapping[str, str]) -> str:
    """The library a statement sets up (``matplotlib``, ``os``), or nothing where it sets up none.

    What is assigned to an attribute of something imported sets up the module that it is of.
    """
    node = one.node
    if isinstance(node, ast.ImportFrom) and node.module == "sklearn.experimental":
        return "sklearn"
    setter = _setter(node)
    if setter is None:
        return ""
    if isinstance(setter, str):
        name, _, line = setter.partition(" ")
        if name.endswith("load_ext") and line.strip() == "jupyter_mlops":
            return ""
        if name == "config" and line.startswith("InlineBackend"):
            return "matplotlib"
        return _MAGICS[name] if name not in ("env", "set_env") or line.strip() else ""
    path = dotted(setter, aliases)
    if isinstance(node, ast.Expr):
        found = path in _CALLS
    else:
        found = any(path == one or path.startswith(one + ".") for one in _TARGETS) or _first(setter) in aliases
    if not found:
        return ""
    root = path.partition(".")[0]
    return _LIKE.get(root, root)


def sets_for_users(root: str) -> bool:
    """Whether that library has settings that matter to all who use it; else only a variable of a module was set."""
    return root in _DISPLAYS


_ONLY_SHOW: Final = frozenset({"matplotlib", "IPython", "logging", "warnings", "sys"})
_SHOWS: Final = re.compile(r"display|print_?options|plotting|styler|\benviron\b")


def settings_in(source: str, aliases: Mapping[str, str]) -> frozenset[str]:
    """The libraries that a cell sets up in a way that may change what others compute, and not only how it is shown."""
    if not MAY_SET_UP.search(source):
        return frozenset()
    return frozenset(
        root for one in cell_of(source).statements
        if (root := setting_of(one, aliases)) and root not in _ONLY_SHOW and not _SHOWS.search(ast.unparse(one.node))
    )  # fmt: skip


def matters_to_all(root: str) -> bool:
    """Whether a setting of that library matters even to those who do not mention it."""
    return root in _TO_ALL


def _setter(node: ast.stmt) -> ast.expr | str | None:
    """What a statement calls or assigns to, where it could be a setting: an expression, or a magic's words."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython"))) as func)):
            words = [part.value for part in node.value.args if isinstance(part, ast.Constant)]  # type: ignore[attr-defined]
            line = " ".join(map(str, words))
            return line if func.attr == "run_line_magic" and line.partition(" ")[0] in _MAGICS else None
        case ast.Expr(value=ast.Call(func=func)):
            return func if _tail(func) in _TAILS else None
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript() as target]):
            return _base(target)
        case ast.AugAssign(target=ast.Attribute() | ast.Subscript() as target):
            return _base(target)
    return None


_TAILS: Final = frozenset(name.rpartition(".")[2] for name in _CALLS)


def _tail(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _first(node: ast.expr) -> str:
    """The name that a path such as ``np.random.seed`` begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _base(target: ast.expr) -> ast.expr | None:
    """``os.environ`` of ``os.environ["A"] = …``, ``decimal.getcontext`` of ``decimal.getcontext().prec = …``."""
    node: ast.expr = target
    while True:
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            node = node.value.func
        else:
            return node if isinstance(node, ast.Attribute) else None


def dotted(node: ast.expr, aliases: Mapping[str, str]) -> str:
    """``np.random.seed`` spelled out as ``numpy.random.seed``; empty where it is no such path."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([aliases.get(node.id, node.id), *reversed(parts)])


# -- seeds and draws -------------------------------------------------------------------------------------------------

_DRAWS_NOTHING: Final = frozenset({
    "print", "len", "range", "int", "float", "str", "bool", "list", "dict", "tuple", "set", "sorted", "min", "max",
    "sum", "zip", "enumerate", "abs", "round", "isinstance", "type", "Path", "read_csv", "read_parquet", "read_json",
    "display", "get_ipython", "open",
})  # fmt: skip


def seeds_of(cell: Cell, aliases: Mapping[str, str], functions: Mapping[str, ast.FunctionDef]) -> dict[str, bool]:
    """Which generators a cell seeds, and whether it surely does so before it draws from anything.

    Parameters
    ----------
    cell
        The cell.
    aliases
        What imports of the notebook call things.
    functions
        Functions of the notebook, for those that seed: ``def fix(n): random.seed(n)``.
    """
    known = dict(functions)
    found: dict[str, bool] = {}
    drawn = False
    for one in cell.statements:
        node = one.node
        if isinstance(node, ast.FunctionDef):
            known[node.name] = node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
            continue
        for generator in _seeded(node, aliases, known, 3):
            found.setdefault(generator, not drawn)
        drawn = drawn or _may_draw(node, aliases, known)
    return found


def _seeded(
    node: ast.AST, aliases: Mapping[str, str], functions: Mapping[str, ast.FunctionDef], depth: int
) -> frozenset[str]:
    """The generators a statement surely seeds: by a call that is all of it, or such a call in a function it calls."""
    call = getattr(node, "value", None) if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign) else None
    if not isinstance(call, ast.Call):
        return frozenset()
    path = dotted(call.func, aliases)
    if path in SEEDING_PATHS:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        none = not given or (isinstance(given[0], ast.Constant) and given[0].value is None)
        return frozenset() if none else frozenset(SEEDING_PATHS[path].split())
    own = functions.get(path)
    if own is not None and depth:
        local = {**aliases, **_local_aliases(own)}
        found: frozenset[str] = frozenset()
        for part in own.body:
            found |= _seeded(part, local, functions, depth - 1)
        return found
    return frozenset(GENERATORS) if path.rpartition(".")[2] in SEEDING_ALL else frozenset()


def _local_aliases(function: ast.FunctionDef) -> dict[str, str]:
    inner = [part for part in function.body if isinstance(part, ast.Import | ast.ImportFrom)]
    return aliases_of(Cell("", tuple(_statement(part) for part in inner), CellNames()))


def _may_draw(node: ast.AST, aliases: Mapping[str, str], functions: Mapping[str, ast.FunctionDef]) -> bool:
    for part in ast.walk(node):
        if not isinstance(part, ast.Call):
            continue
        if _tail(part.func) not in _DRAWS_NOTHING and not _seeded(ast.Expr(part), aliases, functions, 3):
            return True
    return False


def functions_of(cell: Cell) -> dict[str, ast.FunctionDef]:
    """The functions a cell defines at its top."""
    return {one.node.name: one.node for one in cell.statements if isinstance(one.node, ast.FunctionDef)}
