"""What a notebook can be given: the variables its ``parameters`` cell assigns, their types and defaults.

Papermill writes ``name = value`` into a new cell, so a parameter's *name* is code: it is checked as one before anything
else. The parameters cell is read, never run: a name's type is its annotation, else the type of its literal default,
else anything. Whatever does not fit is refused with the list of what would, before a kernel starts.
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import os
import re
import tokenize
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.redact import Redactor, secret_name

PARAMETERS_TAG: Final = "parameters"
INJECTED_TAG: Final = "injected-parameters"
PAPERMILL_OWN: Final = frozenset({"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"})
"""Names that papermill itself adds where asked for paths."""

_DEPTH_LIMIT: Final = 50
_SECRET_TYPES: Final = frozenset({"Secret", "SecretStr"})
_SECRET_HELP: Final = re.compile(r"secret(?=[:,.]|$)[:,.]?\s*")


class ParametersInvalid(WrongUse):
    """A parameter has no usable name, is unknown to the notebook, or does not have the type the notebook declares."""


class NotebookUnreadable(MlopsError, ValueError):
    """The file is missing, or is no notebook."""

    exit_code = 2


class Secret:
    """A parameter's value that is not to be seen: it prints as a mask, and only `reveal` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def reveal(self) -> Any:
        """The value."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled: reveal it, and see to it that nothing keeps it")


def revealed(value: Any) -> Any:
    """A parameter's value, also of a `Secret`."""
    return value.reveal() if isinstance(value, Secret) else value


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A variable that a notebook may be given.

    Attributes
    ----------
    name
        Its name.
    type
        Its annotation as written, else the type of its default; empty where it can be anything.
    default
        The default's value where it is a literal, else None: then `computed` is true.
    source
        The default as written.
    help
        The comment on its line.
    computed
        Whether only running the cell would tell the default.
    secret
        Whether its name or the notebook says that it holds a secret: an annotation ``"Secret"`` or ``"Secret[int]"``,
        or a comment that begins with ``secret:``.
    """

    name: str
    type: str = ""
    default: Any = None
    source: str = ""
    help: str = ""
    computed: bool = False
    secret: bool = False

    def masked(self) -> Parameter:
        """The same to show to anybody: without its default where that may be a secret."""
        hidden = self.secret or Redactor().text(self.source)[1] > 0
        empty = self.default in ("", None) and not self.computed
        return msgspec.structs.replace(self, default=None, source="…") if hidden and not empty else self

    def __str__(self) -> str:
        text = f"{self.name}: {self.type or 'any'}"
        if source := self.masked().source:
            text += f" = {source if len(source) <= 60 else source[:57] + '…'}"
        return f"{text}  # {self.help}" if self.help else text


# -- reading ---------------------------------------------------------------------------------------------------------


def read_notebook(path: Path) -> dict[str, Any]:
    """Read a notebook's JSON, of format 4 (older ones are converted), as plain dicts and lists.

    Raises
    ------
    NotebookUnreadable
        There is no such file, or it is no notebook.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise NotebookUnreadable(f"there is no notebook {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise NotebookUnreadable(f"{path} can not be read", cause=str(error)) from error
    try:
        book = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotebookUnreadable(f"{path} is no notebook", cause=f"not JSON: {error}") from error
    version = book.get("nbformat") if isinstance(book, dict) else None
    if not isinstance(version, int):
        raise NotebookUnreadable(f"{path} is no notebook", cause="it has no nbformat")
    if version < 4:
        import nbformat

        book = json.loads(json.dumps(nbformat.reads(text, as_version=4)))
    cells = book.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise NotebookUnreadable(f"{path} is no notebook", cause="it has no list of cells")
    return dict(book)


def language_of(book: Mapping[str, Any]) -> str:
    """The language a notebook says it is in, in lower case; ``python`` where it does not say."""
    metadata = book.get("metadata") or {}
    kernelspec = metadata.get("kernelspec") or {}
    named = (metadata.get("language_info") or {}).get("name") or kernelspec.get("language") or ""
    if not named and str(kernelspec.get("name", "python")).startswith("python"):
        named = "python"
    return str(named or kernelspec.get("name")).lower()


def source_of(cell: Mapping[str, Any]) -> str:
    """A cell's source, which on disk is a text or a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source))


def tags_of(cell: Mapping[str, Any]) -> Sequence[str]:
    """A cell's tags."""
    tags = (cell.get("metadata") or {}).get("tags")
    return tags if isinstance(tags, list) else ()


def code_cells(book: Mapping[str, Any], *, injected: str | None = None) -> list[dict[str, Any]]:
    """A notebook's code cells; with the source of a cell of parameters, that one stands where a run injects it."""
    cells = [cell for cell in book["cells"] if cell.get("cell_type") == "code"]
    if injected is not None:
        tagged = next((at for at, cell in enumerate(cells) if PARAMETERS_TAG in tags_of(cell)), -1)
        cells.insert(tagged + 1, {"cell_type": "code", "id": INJECTED_TAG, "source": injected, "metadata": {}})
    return cells


def inspect_parameters(path: Path | str) -> list[Parameter]:
    """The parameters a notebook declares, in order.

    Parameters
    ----------
    path
        The notebook.

    Raises
    ------
    NotebookUnreadable
        There is no such file, or it is no notebook.
    """
    return declared(read_notebook(Path(path))) or []


def declared(book: Mapping[str, Any]) -> list[Parameter] | None:
    """The parameters a notebook declares; None where it has no cell tagged ``parameters``, or is not in Python."""
    cell = next((cell for cell in book["cells"] if PARAMETERS_TAG in tags_of(cell)), None)
    if cell is None or language_of(book) != "python":
        return None
    return assigned(source_of(cell))


def assigned(source: str) -> list[Parameter]:
    r"""The top-level assignments of a cell.

    >>> [str(one) for one in assigned("alpha: float = 1  # step\nname = 'x'")]
    ['alpha: float = 1  # step', "name: str = 'x'"]
    """
    # A magic is no Python; its line is blanked so that positions stay.
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        tree = ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    comments = _comments(plain)
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                type_ = ast.unparse(annotation)
                if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                    type_ = annotation.value
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                type_ = ""
            case _:
                continue
        help_ = comments.get(statement.end_lineno or 0, "")
        declared_, _, rest = help_.removeprefix("type:").strip().partition(" ")
        if help_.startswith("type:"):
            type_, help_ = type_ or declared_, rest.strip()
        type_, secret = _said_secret(type_)
        if mark := _SECRET_HELP.match(help_):
            secret, help_ = True, help_[mark.end() :]
        default, computed = _literal(value)
        if not type_ and not computed and default is not None:
            type_ = type(default).__name__
        found[name] = Parameter(
            name=name, type=type_, default=default, help=help_, computed=computed,
            source=ast.unparse(value) if value is not None else "", secret=secret or secret_name(name),
        )  # fmt: skip
    return list(found.values())


def _said_secret(type_: str) -> tuple[str, bool]:
    """A type without the word that calls its values secret, and whether that word was there."""
    match _annotation(type_) if "Secret" in type_ else None:
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _SECRET_TYPES:
            return "str", True
        case ast.Subscript(value=ast.Name(id="Secret") | ast.Attribute(attr="Secret"), slice=inner):
            return ast.unparse(inner), True
    return type_, False


def secret_names(known: Iterable[Parameter] | None) -> frozenset[str]:
    """The parameters that a notebook declares secret."""
    return frozenset(one.name for one in known or () if one.secret)


def _literal(value: ast.expr | None) -> tuple[Any, bool]:
    if value is None:
        return None, True
    try:
        return ast.literal_eval(value), False
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None, True


def _comments(source: str) -> dict[int, str]:
    try:
        return {
            token.start[0]: token.string.lstrip("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except (tokenize.TokenError, SyntaxError):
        return {}


# -- checking --------------------------------------------------------------------------------------------------------


def validate(parameters: Mapping[str, Any], known: Iterable[Parameter] | None) -> None:
    """Check names and values before anything runs.

    Parameters
    ----------
    parameters
        What is to be given.
    known
        What the notebook declares; None where it can not be read: then only names and kinds of values are checked.

    Raises
    ------
    ParametersInvalid
        With everything that is wrong, and what the notebook takes.
    """
    table = None if known is None else {one.name: one for one in known}
    wrong = []
    for name, value in parameters.items():
        problem = name_problem(name)
        if not problem and table is not None and name not in table:
            problem = f"unknown parameter {name}{_nearest(name, table)}"
        if not problem:
            declared_ = Parameter(name=name, secret=secret_name(name)) if table is None else table[name]
            problem = _value_problem(declared_, value)
        if problem:
            wrong.append(problem)
    if wrong:
        raise ParametersInvalid("; ".join(wrong), next=listing(table))


def listing(table: Mapping[str, Parameter] | None) -> str:
    """What a notebook takes, for an error message."""
    if table is None:
        return ""
    if not table:
        return "The notebook's parameters cell declares none"
    return "The notebook takes:\n  " + "\n  ".join(map(str, table.values()))


def _nearest(name: str, table: Mapping[str, Parameter]) -> str:
    import difflib

    near = difflib.get_close_matches(name, table, n=1)
    return f" (is it {near[0]}?)" if near else ""


def name_problem(name: Any) -> str:
    """Why a parameter can not have this name; empty where it can."""
    if not isinstance(name, str) or not name.isidentifier() or unicodedata.normalize("NFKC", name) != name:
        return f"{str(name)[:60]!r} is no name for a parameter"
    if keyword.iskeyword(name):
        return f"{name!r} is a word of the language, and no name for a parameter"
    if name.startswith("__"):
        return f"{name!r} begins with two underscores, and is no name for a parameter"
    return ""


def _value_problem(known: Parameter, value: Any) -> str:
    plain = revealed(value)
    strange = _strange(plain)
    if strange:
        return f"{known.name} holds {strange}, which can not be written into a cell"
    if not fits(plain, known.type):
        hidden = known.secret or isinstance(value, Secret)
        said = "" if hidden else f" ({shown(repr(plain))})"
        return f"{known.name} is to be {known.type}, not {type(plain).__name__}{said}"
    return ""


def shown(text: str) -> str:
    """A value for an error message: short, and without what looks like a secret."""
    text = Redactor().text(text)[0]
    return text[:57] + "…" if len(text) > 60 else text


def _strange(value: Any, depth: int = 0) -> str:
    """The type of a part that has no literal form, if there is one."""
    if depth > _DEPTH_LIMIT:
        return "something nested too deeply"
    if value is None or type(value) in (bool, int, float, str):
        return ""
    if type(value) in (list, tuple):
        return next(filter(None, (_strange(item, depth + 1) for item in value)), "")
    if type(value) is dict:
        keys = next((f"a key of type {type(key).__name__}" for key in value if type(key) is not str), "")
        return keys or next(filter(None, (_strange(item, depth + 1) for item in value.values())), "")
    return f"a {type(value).__name__}"


def _annotation(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_NONE: Final = (type(None),)
_ROW: Final = (list, tuple)
_SIMPLE: Final[Mapping[str, tuple[type, ...]]] = {
    "int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "None": _NONE, "NoneType": _NONE,
    "list": _ROW, "List": _ROW, "Sequence": _ROW, "tuple": _ROW, "Tuple": _ROW,
    "dict": (dict,), "Dict": (dict,), "Mapping": (dict,),
}  # fmt: skip


def fits(value: Any, type_: str) -> bool:
    """Whether a value has a declared type; any has where none is declared."""
    return not type_ or _fits(value, _annotation(type_))


def _fits(value: Any, wanted: ast.expr | None) -> bool:
    """Whether a value has an annotated type; what we can not read fits everything."""
    match wanted:
        case ast.Constant(value=None):
            return value is None
        case ast.Constant(value=str(text)):
            return _fits(value, _annotation(text))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Attribute(attr=name):
            return _fits(value, ast.Name(id=name))
        case ast.Name(id=name):
            types = _SIMPLE.get(name)
            return types is None or (isinstance(value, types) and (type(value) is not bool or bool in types))
        case ast.Subscript(value=ast.Name(id=outer) | ast.Attribute(attr=outer), slice=inner):
            return _fits_generic(value, outer, inner.elts if isinstance(inner, ast.Tuple) else [inner])
    return True


def _fits_generic(value: Any, outer: str, inner: list[ast.expr]) -> bool:
    if outer == "Optional":
        return value is None or _fits(value, inner[0])
    if outer == "Union":
        return any(_fits(value, one) for one in inner)
    if outer == "Literal":
        return any(isinstance(one, ast.Constant) and _same(one.value, value) for one in inner)
    if not _fits(value, ast.Name(id=outer)):
        return False
    if outer in ("list", "List", "Sequence"):
        return all(_fits(item, inner[0]) for item in value)
    if outer in ("dict", "Dict", "Mapping") and len(inner) == 2:
        return all(_fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items())
    return True


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def convert(parameters: Mapping[str, Any], known: Iterable[Parameter] | None = None) -> dict[str, Any]:
    """Values as they can be written into a cell, of the declared type where another type's value says the same.

    A path becomes a text, a number of numpy's own kind a plain one, and a whole number a ``float`` where `known` says
    so. What does not fit is left as it is, for `validate` to refuse.
    """
    types = {one.name: one.type for one in known or ()}

    def converted(name: str, value: Any) -> Any:
        if isinstance(value, Secret):
            return Secret(converted(name, value.reveal()))
        if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
            value = value.item()
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if types.get(name) == "float" and type(value) is int:
            return as_float(value)
        return value

    return {name: converted(name, value) for name, value in parameters.items()}


def as_float(value: int) -> Any:
    """A whole number as a float, where one holds it."""
    try:
        return float(value)
    except OverflowError:  # no float holds it: better as it is than refused
        return value
