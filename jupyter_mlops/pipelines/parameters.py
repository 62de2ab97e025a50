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
import re
import tokenize
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse

PARAMETERS_TAG: Final = "parameters"
INJECTED_TAG: Final = "injected-parameters"
PAPERMILL_OWN: Final = frozenset({"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"})
"""Names that papermill itself adds where asked for paths."""

_FILE_LIMIT: Final = 1 << 20
_TEXT_LIMIT: Final = 1 << 16
_DEPTH_LIMIT: Final = 50
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class ParametersInvalid(WrongUse):
    """A parameter has no usable name, is unknown to the notebook, or does not have the type the notebook declares."""


class NotebookUnreadable(MlopsError, ValueError):
    """The file is missing, or is no notebook."""

    exit_code = 2


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
    """

    name: str
    type: str = ""
    default: Any = None
    source: str = ""
    help: str = ""
    computed: bool = False

    def __str__(self) -> str:
        text = f"{self.name}: {self.type or 'any'}"
        if self.source:
            text += f" = {self.source if len(self.source) <= 60 else self.source[:57] + '…'}"
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
        default, computed = _literal(value)
        if not type_ and not computed and default is not None:
            type_ = type(default).__name__
        found[name] = Parameter(
            name=name, type=type_, default=default, help=help_, computed=computed,
            source=ast.unparse(value) if value is not None else "",
        )  # fmt: skip
    return list(found.values())


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
        problem = _name_problem(name)
        if not problem and table is not None and name not in table:
            problem = f"unknown parameter {name}{_nearest(name, table)}"
        if not problem:
            problem = _value_problem(name, value, "" if table is None else table[name].type)
        if problem:
            wrong.append(problem)
    if wrong:
        raise ParametersInvalid("; ".join(wrong), next=_listing(table))


def _listing(table: Mapping[str, Parameter] | None) -> str:
    if table is None:
        return ""
    if not table:
        return "The notebook's parameters cell declares none"
    return "The notebook takes:\n  " + "\n  ".join(map(str, table.values()))


def _nearest(name: str, table: Mapping[str, Parameter]) -> str:
    import difflib

    near = difflib.get_close_matches(name, table, n=1)
    return f" (is it {near[0]}?)" if near else ""


def _name_problem(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or unicodedata.normalize("NFKC", name) != name:
        return f"{str(name)[:60]!r} is no name for a parameter"
    if keyword.iskeyword(name):
        return f"{name!r} is a word of the language, and no name for a parameter"
    if name.startswith("__"):
        return f"{name!r} begins with two underscores, and is no name for a parameter"
    return ""


def _value_problem(name: str, value: Any, type_: str) -> str:
    strange = _strange(value)
    if strange:
        return f"{name} holds {strange}, which can not be written into a cell"
    if type_ and not _fits(value, _annotation(type_)):
        shown = repr(value)
        return f"{name} is to be {type_}, not {type(value).__name__} ({shown[:57] + '…' if len(shown) > 60 else shown})"
    return ""


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


# -- from words to values --------------------------------------------------------------------------------------------


def parse_parameter(name: str, text: str, known: Iterable[Parameter] | None = None) -> Any:
    """Read a parameter's value from a word of the shell, as the notebook declares its type.

    Without a declared type: numbers, ``True``, ``False`` and ``None`` are read as such, all else is text.

    >>> parse_parameter("alpha", "0.5", [Parameter(name="alpha", type="float")])
    0.5
    >>> parse_parameter("tag", "05", [Parameter(name="tag", type="str")])
    '05'

    Raises
    ------
    ParametersInvalid
        The text can not be read as the declared type.
    """
    problem = _name_problem(name)
    if problem:
        raise ParametersInvalid(problem)
    table = {one.name: one for one in known or ()}
    wanted = table[name].type if name in table else ""
    for candidate in _readings(text):
        if not wanted or _fits(candidate, _annotation(wanted)):
            return float(candidate) if wanted == "float" else candidate
    raise ParametersInvalid(
        f"{name} is to be {wanted}, and {text[:60]!r} can not be read as that", next=_listing(table)
    )


def _readings(text: str) -> Iterable[Any]:
    """What a word may mean, the most special first; a text is always the last."""
    stripped = text.strip()
    word = stripped.lower()
    if word in ("true", "false"):
        yield word == "true"
    elif word in ("none", "null"):
        yield None
    elif word in ("nan", "inf", "+inf", "-inf"):
        yield float(word)
    elif re.fullmatch(r"[+-]?\d{1,4000}", stripped):
        yield int(stripped)
    elif _NUMBER.fullmatch(stripped):
        yield float(stripped)
    elif stripped[:1] in ("[", "{", "(") and len(stripped) <= _TEXT_LIMIT:
        for read in (json.loads, ast.literal_eval):
            try:
                yield read(stripped)
                break
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue  # not in that notation
    yield text


def read_parameters(
    notebook: Path | str, pairs: Iterable[tuple[str, str]] = (), file: Path | str | None = None
) -> dict[str, Any]:
    """Put together what a shell says: a file's parameters, and over them single names with words for their values.

    Parameters
    ----------
    notebook
        The notebook whose declared types say how a word is read.
    pairs
        Names and words.
    file
        A YAML file; see `read_parameters_file`.

    Raises
    ------
    NotebookUnreadable
        There is no such notebook.
    ParametersInvalid
        The file can not be read, or a word does not fit its parameter's type.
    """
    found = read_parameters_file(file) if file is not None else {}
    pairs = list(pairs)
    known = inspect_parameters(notebook) if pairs else []
    found.update((name, parse_parameter(name, word, known)) for name, word in pairs)
    return found


def read_parameters_file(path: Path | str) -> dict[str, Any]:
    """Read parameters from a YAML (or JSON) file: plain values only, no aliases, dates stay texts.

    Parameters
    ----------
    path
        The file, of at most 1 MiB.

    Raises
    ------
    ParametersInvalid
        The file can not be read, is too large, uses aliases or tags, names a key twice, or is no mapping.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise ParametersInvalid(f"{path} can not be read", cause=str(error)) from error
    if len(raw) > _FILE_LIMIT:
        raise ParametersInvalid(f"{path} is too large for parameters", cause="more than 1 MiB")
    return parse_yaml(raw, where=str(path))


def parse_yaml(raw: bytes | str, *, where: str = "the YAML text") -> dict[str, Any]:
    """Read parameters from YAML text, with the limits of `read_parameters_file`."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values only: an alias can make kilobytes into gigabytes, a date has no literal form."""

        yaml_implicit_resolvers = {  # noqa: RUF012 (yaml reads it from the class)
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not allowed here")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = next((key for place, key in enumerate(keys) if isinstance(key, str) and key in keys[:place]), None)
            if twice is not None:
                raise yaml.YAMLError(f"{twice!r} is there twice")
            return dict(super().construct_mapping(node, deep=deep))

    try:
        found = yaml.load(raw, Loader=Loader)  # noqa: S506 (the loader is a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParametersInvalid(f"{where} can not be read as YAML", cause=str(error)[:300]) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ParametersInvalid(f"{where} is no mapping of names to values")
    return found
