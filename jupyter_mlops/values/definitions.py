"""Functions, classes and modules: by name where they are installed, by their source where they are the notebook's.

Compiled code is never kept. A function of the notebook is the text of its cell and its place in it: the text is
compiled again, nothing of it is run, and the function gets its own defaults, closure and globals. A class is a
statement, and that is executed again, with what its decorators, bases and body named at that time; then its attributes
are set to what they were. Both are programs: they come back only on the machine that kept them.
"""

from __future__ import annotations

import abc
import ast
import builtins
import collections
import dis
import enum
import functools
import importlib
import inspect
import linecache
import sys
import types
from typing import Any, Final

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import code as source
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.fingerprints.walk import (
    HEAP,
    dict_of_type,
    flags_of_type,
    loaded,
    module_dict,
    module_of_type,
    name_of,
    qualname_of_type,
)  # fmt: skip
from jupyter_mlops.records import digest_of
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import KEEPERS, Keeping
from jupyter_mlops.values.manifest import ManifestRefused, NotKept, ValueDiffers

_LIBRARIES: Final = frozenset({
    "numpy", "pandas", "scipy", "sklearn", "pyarrow", "polars", "torch", "matplotlib", "seaborn", "statsmodels",
    "xgboost", "lightgbm", "networkx", "plotly", "tqdm", "jupyter_mlops",
})  # fmt: skip
"""Packages that may be imported because a manifest names a module of theirs; the standard library's may be as well."""
_ACTS: Final = frozenset({"antigravity", "this", "idlelib", "turtle", "turtledemo", "lib2to3", "test", "__main__"})
"""Modules of the standard library that do something when they are imported."""
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, functools._lru_cache_wrapper)
_FILE: Final = "<ipython-input-mlops-{}>"
"""What a kept cell's text is called where Python asks for a file; IPython's own names begin so."""


class ModuleMissing(MlopsError, ImportError):
    """A kept value stands in a module that is not loaded, and that is not ours to import."""

    exit_code = 1


# -- by name -----------------------------------------------------------------------------------------------------------


def module(name: Any) -> types.ModuleType:
    """A module by its name, imported only where it is the standard library's or of a library known here.

    Raises
    ------
    ModuleMissing
        It is not loaded, and is neither.
    """
    if type(name) is not str or not all(part.isidentifier() for part in name.split(".")):
        raise ManifestRefused("a kept module is refused", cause="its name is none")
    found = sys.modules.get(name)
    root = name.partition(".")[0]
    if found is None and root not in _ACTS and (root in sys.stdlib_module_names or root in _LIBRARIES):
        try:
            found = importlib.import_module(name)
        except ImportError as error:
            raise ModuleMissing(f"the module {name} is not installed", next=f"pip install {root}") from error
    if found is None:
        raise ModuleMissing(f"the module {name} is not loaded", next=f"import {name}, and ask again")
    return found


def keep_named(keep: Keeping, value: Any, module_: Any, qualname: Any) -> list[Any]:  # noqa: ARG001 - as all keepers
    """Write what a module holds under a name.

    Raises
    ------
    NotKept
        The module holds something else there.
    """
    if type(module_) is not str or type(qualname) is not str or loaded(module_, qualname) is not value:
        raise NotKept(f"{module_}.{qualname} is another one by now, or stands nowhere under its name")
    return ["code.named", module_, qualname]


@maker("code.named")
def _named(_bring: Bringing, node: list[Any], _number: int) -> Any:
    _, place, qualname = node
    module(place)
    found = loaded(place, qualname)
    if type(found) not in _FUNCTIONS and not isinstance_of_type(found):
        raise ManifestRefused(f"{place}.{qualname} is not brought back", cause="there is no function or class there")
    return found


def _keep_module(_keep: Keeping, value: types.ModuleType) -> list[Any]:
    name = module_dict(value).get("__name__")
    if type(name) is not str or sys.modules.get(name) is not value:
        raise NotKept("a module that is not among the loaded ones")
    return ["code.module", name]


maker("code.module")(lambda _bring, node, _number: module(node[1]))


def _keep_builtin(keep: Keeping, value: Any) -> list[Any]:
    owner = value.__self__
    if owner is None or type(owner) is types.ModuleType:
        place = module_dict(owner).get("__name__") if owner is not None else value.__module__
        return keep_named(keep, value, place, value.__qualname__)
    if type(owner) in (list, dict, set, str, bytes, tuple):
        return ["code.bound", keep.operand(owner), value.__name__]
    raise NotKept(f"a method of a {name_of(type(owner))}")


@maker("code.bound")
def _bound(bring: Bringing, node: list[Any], _number: int) -> Any:
    owner = bring.operand(node[1])
    found = dict_of_type(type(owner)).get(node[2])
    if type(owner) not in (list, dict, set, str, bytes, tuple) or type(found) is not types.MethodDescriptorType:
        raise ManifestRefused("a kept method is refused", cause="there is none of that name")
    return found.__get__(owner)


# -- functions ---------------------------------------------------------------------------------------------------------


def _keep_function(keep: Keeping, value: types.FunctionType) -> list[Any]:
    place = value.__module__
    if value.__globals__ is not keep.space:
        return keep_named(keep, value, place, value.__qualname__)
    code = value.__code__
    found = source.place_of(code)
    if found is None:
        raise NotKept("its source is not what runs, or is not there")
    text, number, future = found
    if keep.secret("source", text):
        raise NotKept("the cell that defines it holds a secret")
    keep.programs = True
    return [
        "code.function", keep.program(text.encode("utf-8", "surrogatepass")), code.co_qualname, number, future,
        value.__name__, value.__qualname__, *keep.inside([
            value.__defaults__, value.__kwdefaults__, value.__closure__, value.__dict__ or None, value.__module__,
            value.__annotations__ or None, value.__doc__,
        ]),
    ]  # fmt: skip


@maker("code.function")
def _function(bring: Bringing, node: list[Any], number: int) -> Any:
    _, text_, qualname, place, future, name, shown, *rest = node
    defaults, keywords, cells, state, module_, annotations, doc = rest
    text = bring.program(text_).decode("utf-8", "surrogatepass")
    codes = source.codes_of(text, file_of(text), qualname, future=future is True)
    closure = bring.operand(cells)
    made = types.FunctionType(codes[place], bring.space, name, None, closure)
    bring.early(number, made)
    made.__qualname__, made.__module__, made.__doc__ = shown, bring.operand(module_), bring.operand(doc)

    def fill() -> None:
        made.__defaults__, made.__kwdefaults__ = bring.operand(defaults), bring.operand(keywords)
        if state is not None:
            made.__dict__ = bring.operand(state)
        if annotations is not None:
            made.__annotations__ = bring.operand(annotations)

    bring.later(fill)
    return made


def file_of(text: str) -> str:
    """The name under which a text is known to Python's line cache from now on, so that its source can be shown."""
    name = _FILE.format(digest_of(text.encode("utf-8", "surrogatepass"))[7:23])
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return name


def cells_brought() -> list[tuple[str, list[str]]]:
    """The cells whose text was brought back: the name each is known by, and its lines."""
    start = _FILE.partition("{")[0]
    return [(name, linecache.getlines(name)) for name in list(linecache.cache) if name.startswith(start)]


def _keep_cell(keep: Keeping, value: types.CellType) -> list[Any]:
    try:
        return ["code.cell", keep.operand(value.cell_contents)]
    except ValueError:  # not assigned yet
        return ["code.cell"]


@maker("code.cell")
def _cell(bring: Bringing, node: list[Any], number: int) -> Any:
    made = bring.early(number, types.CellType())
    if len(node) > 1:
        bring.later(lambda: setattr(made, "cell_contents", bring.operand(node[1])))
    return made


def _keep_method(keep: Keeping, value: types.MethodType) -> list[Any]:
    return ["code.method", keep.operand(value.__func__), keep.operand(value.__self__)]


@maker("code.method")
def _method(bring: Bringing, node: list[Any], _number: int) -> Any:
    function = bring.operand(node[1])
    if type(function) is not types.FunctionType:
        raise ManifestRefused("a kept method is refused", cause="it is no function")
    return types.MethodType(function, bring.operand(node[2]))


def _keep_cached(keep: Keeping, value: Any) -> list[Any]:
    inner = value.__dict__.get("__wrapped__")
    if type(inner) is not types.FunctionType or inner.__globals__ is not keep.space:
        return keep_named(keep, value, value.__module__, value.__qualname__)
    asked = value.cache_parameters()
    return ["code.cached", keep.operand(inner), asked["maxsize"], asked["typed"]]


@maker("code.cached")
def _cached(bring: Bringing, node: list[Any], _number: int) -> Any:
    function = bring.operand(node[1])
    if type(function) is not types.FunctionType:
        raise ManifestRefused("a kept function is refused", cause="what is cached is no function")
    return functools.lru_cache(node[2], node[3])(function)


# -- classes -----------------------------------------------------------------------------------------------------------


def is_users(keep: Keeping, kind: type) -> bool:
    """Whether a class was made by a cell."""
    return module_of_type(kind) == keep.space.get("__name__", "__main__") and bool(flags_of_type(kind) & HEAP)


def keep_class(keep: Keeping, value: type) -> list[Any]:
    """Write a class: an installed one by name, one of the notebook by its statement.

    Raises
    ------
    NotKept
        It has none that would make it again.
    """
    place, qualname = module_of_type(value), qualname_of_type(value)
    if not is_users(keep, value):
        if place == "builtins" and loaded(place, qualname) is not value:  # as the type of None
            place = "types"
            qualname = next((name for name, one in vars(types).items() if one is value), qualname)
        return keep_named(keep, value, place, qualname)
    if type(value) not in (type, abc.ABCMeta, enum.EnumType) and module_of_type(type(value)) == place:
        raise NotKept("its metaclass was made by a cell")
    keep.programs = True
    outer, _, inner = qualname.rpartition(".")
    if outer:
        holder: Any = keep.space.get(outer.partition(".")[0])
        for part in outer.split(".")[1:]:
            holder = dict_of_type(holder).get(part) if isinstance_of_type(holder) else None
        if not isinstance_of_type(holder) or dict_of_type(holder).get(inner) is not value:
            raise NotKept("a class that was made inside a function")
        return ["code.inner", keep.operand(holder), inner]
    space = dict_of_type(value)
    if value.__bases__ == (tuple,) and "_field_defaults" in space and "_fields" in space:
        return [
            "code.namedtuple",
            qualname,
            list(space["_fields"]),
            keep.operand(tuple(space["_field_defaults"].values())),
        ]
    return _keep_statement(keep, value, qualname)


def isinstance_of_type(value: Any) -> bool:
    """Whether a value is a class, judged by its type alone."""
    return type in type.__dict__["__mro__"].__get__(type(value))


@maker("code.inner")
def _inner(bring: Bringing, node: list[Any], _number: int) -> Any:
    bring.sealed()
    holder = bring.operand(node[1])
    found = dict_of_type(holder).get(node[2]) if isinstance_of_type(holder) else None
    if not isinstance_of_type(found):
        raise ManifestRefused("a kept class is refused", cause="it is not where it says")
    return found


@maker("code.namedtuple")
def _namedtuple(bring: Bringing, node: list[Any], _number: int) -> Any:
    bring.sealed()
    return collections.namedtuple(
        node[1], node[2], defaults=bring.operand(node[3]), module=bring.space.get("__name__", "__main__")
    )


_SKIPPED: Final = source.GENERATED | {"__dataclass_fields__", "__dataclass_params__", "__match_args__", "__slots__",
                                      "__orig_bases__", "__parameters__", "__type_params__"}  # fmt: skip


def _keep_statement(keep: Keeping, value: type, qualname: str) -> list[Any]:
    """A class by its statement: the text it stands in, what that names, and what its attributes are now."""
    space = dict_of_type(value)
    entries: list[tuple[str, Any]] = []
    texts: dict[str, bool] = {}
    known = type(value) is enum.EnumType
    for key, held in list(space.items()):
        inner = source.held_by(held)
        if type(inner) is types.FunctionType:
            if source.by_machine(held) or (known and not source.of_user(inner.__module__)):
                continue
            found = source.place_of(inner.__code__) if inner.__globals__ is keep.space else None
            if found is None or not inner.__qualname__.startswith(qualname + "."):
                raise NotKept(f"its method {key} was not written in its statement")
            texts[found[0]] = found[2]
        elif not known and key not in _SKIPPED and not isinstance_of_type(held) and type(held) not in (
            types.GetSetDescriptorType, types.MemberDescriptorType, property, staticmethod, classmethod,
        ):  # fmt: skip
            entries.append((key, held))
    if len(texts) > 1:
        raise NotKept("its methods were written in several cells")
    text, future = next(iter(texts.items())) if texts else _text_with(qualname)
    statement = _statement(text, qualname)
    if statement is None:
        raise NotKept("its statement is not found")
    if keep.secret("source", text):
        raise NotKept("the cell that defines it holds a secret")
    asked = {name: keep.space[name] for name in sorted(_asked(statement)) if name in keep.space}
    names = [[name, keep.named(name, one)] for name, one in asked.items()]
    digest = None if texts else fingerprint(value).digest
    number = keep.program(text.encode("utf-8", "surrogatepass"))
    attributes = [[key, keep.named(key, held)] for key, held in entries]
    return ["code.class", number, qualname, future, names, attributes, digest]


def _text_with(qualname: str) -> tuple[str, bool]:
    """The latest cell's text that has a class statement of that name."""
    for file, entry in reversed(list(linecache.cache.items())):
        if len(entry) == 4 and (file.startswith("<ipython-input") or "ipykernel_" in file):
            text = "".join(entry[2])
            if f"class {qualname}" in text and _statement(text, qualname) is not None:
                return text, False
    raise NotKept("its statement is not found")


def _statement(text: str, qualname: str) -> ast.Module | None:
    """The last statement of a text that makes a class of that name, alone."""
    try:
        whole = compile(text, "<cell>", "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return None
    assert isinstance(whole, ast.Module)
    found: list[ast.stmt] = [one for one in whole.body if isinstance(one, ast.ClassDef) and one.name == qualname]
    return ast.Module(found[-1:], []) if found else None


def _asked(statement: ast.Module) -> set[str]:
    """The names that executing a class statement looks up: all but what its methods will when they are called."""
    found: set[str] = set()
    waiting = [compile(statement, "<cell>", "exec", dont_inherit=True)]
    while waiting:
        code = waiting.pop()
        found |= {step.argval for step in dis.get_instructions(code) if step.opname in _LOADS}
        waiting += [
            one for one in code.co_consts
            if type(one) is types.CodeType and (not one.co_flags & inspect.CO_OPTIMIZED or one.co_name.startswith("<"))
        ]  # fmt: skip
    return found - vars(builtins).keys()


_LOADS: Final = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")


@maker("code.class")
def _class(bring: Bringing, node: list[Any], number: int) -> Any:
    _, text_, qualname, future, names, attributes, digest = node
    text = bring.program(text_).decode("utf-8", "surrogatepass")
    statement = _statement(text, qualname)
    if statement is None:
        raise ManifestRefused("a kept class is refused", cause="its statement is not there")
    flags = source.FUTURE if future is True else 0
    code = compile(statement, file_of(text), "exec", flags=flags, dont_inherit=True)
    asked = {name: bring.operand(raw) for name, raw in names}
    bring.settle()  # what the statement names is whole when it runs
    space, missing = bring.space, object()
    before = {name: space.get(name, missing) for name in (*asked, "__builtins__")}
    made: dict[str, Any] = {}
    try:
        space.update(asked)
        exec(code, space, made)  # noqa: S102 - a statement of the user's own, sealed on this machine
    finally:
        for name, value in before.items():
            if value is missing:
                space.pop(name, None)
            else:
                space[name] = value
    value = made[qualname]
    if not isinstance_of_type(value):
        raise ValueDiffers(f"{qualname} is not brought back", cause="its statement makes no class")
    bring.early(number, value)
    if digest is not None and fingerprint(value).digest != digest:
        raise ValueDiffers(f"{qualname} is not brought back", cause="its statement makes another class by now")

    def fill() -> None:
        for key, raw in attributes:
            type.__setattr__(value, key, bring.operand(raw))

    bring.later(fill)
    return value


def keep_word(_keep: Keeping, value: Any) -> list[Any]:
    """Write one of the words of `typing`.

    Raises
    ------
    NotKept
        It is made of several.
    """
    import typing

    name = next((name for name, one in vars(typing).items() if one is value), None)
    if name is None:
        raise NotKept(f"a {name_of(type(value))} is not known")
    return ["code.word", name]


@maker("code.word")
def _word(_bring: Bringing, node: list[Any], _number: int) -> Any:
    import typing

    found = vars(typing)[node[1]]
    if module_of_type(type(found)) != "typing":
        raise ManifestRefused("a kept word is refused", cause="it is none of typing's")
    return found


def _register() -> None:
    table: dict[type, Any] = {
        types.ModuleType: _keep_module, types.BuiltinFunctionType: _keep_builtin, types.FunctionType: _keep_function,
        types.CellType: _keep_cell, types.MethodType: _keep_method, functools._lru_cache_wrapper: _keep_cached,
        type: keep_class, abc.ABCMeta: keep_class, enum.EnumType: keep_class,
    }  # fmt: skip
    KEEPERS.update((id(kind), (kind, keeper)) for kind, keeper in table.items())


_register()
