"""Functions and classes by their source, and by what they refer to.

The source comes from the line cache, where IPython keeps every cell, or from the file. Without it the compiled code
stands in, bound to the Python version. Defaults, closures and the globals a function of the user's names count too;
functions and classes of installed packages count by name and version.
"""

from __future__ import annotations
import __future__

import abc
import ast
import builtins
import enum
import functools
import inspect
import linecache
import sys
import textwrap
import types
from typing import Any, Final

from jupyter_mlops.fingerprints.walk import (
    HANDLERS,
    HEAP,
    Budget,
    Node,
    NoFingerprint,
    Walk,
    begin,
    derives,
    dict_of_type,
    finish,
    flags_of_type,
    loaded,
    module_dict,
    module_of_type,
    name_of,
    qualname_of_type,
    seal,
    text,
)  # fmt: skip

TAG: Final = b"code-1"
FUTURE: Final = __future__.annotations.compiler_flag
"""The compiler's flag that leaves annotations unevaluated."""
GENERATED: Final = {
    "__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "_abc_impl", "__abstractmethods__",
    "__slotnames__",  # what copying or pickling an instance leaves on its class
}  # fmt: skip


def source_of(thing: Any) -> str | None:
    """The source text of a plain function or class as the line cache has it, without common indentation, or None."""
    if type(thing) is types.FunctionType:
        return _source(thing.__code__)
    if type(thing) is type:
        for held in list(dict_of_type(thing).values()):
            inner = held.__func__ if type(held) in (staticmethod, classmethod) else held
            if type(inner) is types.FunctionType and inner.__qualname__.startswith(thing.__qualname__):
                return _class_source(thing, inner.__code__)
    return None


def _lines(code: types.CodeType) -> list[str]:
    return linecache.getlines(code.co_filename)


def _source(code: types.CodeType) -> str | None:
    """The text a piece of code was compiled from; None unless compiling that text gives this very code."""
    try:
        lines = _lines(code)
        first = _first_line(code, lines)
        return textwrap.dedent("".join(inspect.getblock(lines[first - 1 :]))) if first else None
    except Exception:  # noqa: BLE001 - a source that cannot be read, cut or compiled is one we do not have
        return None


_compiled_files: Final[dict[str, tuple[str, dict[str, list[types.CodeType]]]]] = {}
"""By file name: the text that was compiled last, and the code in it by qualified name."""
_FILES: Final = 64


def _first_line(code: types.CodeType, lines: list[str]) -> int:
    """Where in a file's lines a piece of code begins now; 0 if it is not there any more.

    A file edited after its import holds other functions than those that run, at other lines.
    """
    whole = "".join(lines)
    known = _compiled_files.get(code.co_filename)
    if known is None or known[0] != whole:
        flags = code.co_flags & __future__.annotations.compiler_flag | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        found: dict[str, list[types.CodeType]] = {}
        _collect(compile(whole, code.co_filename, "exec", flags=flags, dont_inherit=True), found)
        if len(_compiled_files) >= _FILES:
            _compiled_files.clear()
        known = _compiled_files[code.co_filename] = (whole, found)
    same = [one.co_firstlineno for one in known[1].get(code.co_qualname, ()) if _same(one, code)]
    return code.co_firstlineno if code.co_firstlineno in same else min(same, default=0)


def place_of(code: types.CodeType) -> tuple[str, int, bool] | None:
    """Where a piece of code stands: its file's text, which one of that qualified name it is, and how it was compiled.

    Returns
    -------
    tuple or None
        The text; the number among the pieces of code of the same qualified name in it; whether annotations are left
        unevaluated. None where compiling the text does not give this very code.
    """
    try:
        text_, future = "".join(_lines(code)), bool(code.co_flags & __future__.annotations.compiler_flag)
        places = [
            (abs(one.co_firstlineno - code.co_firstlineno), number)
            for number, one in enumerate(codes_of(text_, code.co_filename, code.co_qualname, future=future))
            if _same(one, code) and _columns(one) == _columns(code)
        ]
    except Exception:  # noqa: BLE001 - a text that cannot be read or compiled is one we do not have
        return None
    return (text_, min(places)[1], future) if places else None


def codes_of(text_: str, file: str, qualname: str, *, future: bool) -> list[types.CodeType]:
    """The pieces of code of a qualified name in a text, compiled as IPython compiles cells; nothing is run."""
    flags = (__future__.annotations.compiler_flag if future else 0) | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    found: dict[str, list[types.CodeType]] = {}
    _collect(compile(text_, file, "exec", flags=flags, dont_inherit=True), found)
    return found.get(qualname, [])


def _columns(code: types.CodeType) -> list[tuple[int, int | None]]:
    """Where on its lines a lambda stands: two on one line are told apart by nothing else."""
    if code.co_name != "<lambda>":
        return []
    return [(first - code.co_firstlineno, column) for first, _, column, _ in code.co_positions() if first is not None]


def _collect(code: types.CodeType, found: dict[str, list[types.CodeType]]) -> None:
    for one in code.co_consts:
        if type(one) is types.CodeType:
            found.setdefault(one.co_qualname, []).append(one)
            _collect(one, found)


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two pieces of code do the same, wherever in their files they stand."""
    if (
        one.co_code != other.co_code
        or one.co_names != other.co_names
        or one.co_varnames != other.co_varnames
        or one.co_freevars != other.co_freevars
        or len(one.co_consts) != len(other.co_consts)
    ):
        return False
    # written as values are: 0.0 is not -0.0, the order of a set does not count, and nothing runs
    walk = Walk(Budget())
    return all(
        _same(mine, theirs) if type(mine) is type(theirs) is types.CodeType else walk.item(mine) == walk.item(theirs)
        for mine, theirs in zip(one.co_consts, other.co_consts, strict=True)
    )


def _class_source(kind: type, code: types.CodeType) -> str | None:
    lines = _lines(code)
    if _source(code) is None:
        return None
    word = f"class {kind.__name__}"
    for start in range(min(code.co_firstlineno, len(lines)) - 1, -1, -1):
        if lines[start].lstrip().startswith(word):
            return textwrap.dedent("".join(inspect.getblock(lines[start:])))
    return None


_OURS: Final = __name__.partition(".")[0]
"""This package: what a notebook imports from it is no work of the user's, from wherever it is run."""


def of_user(module: Any) -> bool:
    """Whether a module's code is the user's own: neither the standard library's nor an installed package's."""
    if type(module) is not str or module in ("__main__", "__mp_main__"):
        return True
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root == _OURS:
        return False
    found = sys.modules.get(module)
    file = module_dict(found).get("__file__") if type(found) is types.ModuleType else None
    return type(file) is not str or not any(part in file for part in ("site-packages", "dist-packages"))


def version_of(module: str) -> str:
    """The version an installed package states; empty for the standard library, which counts by name alone."""
    found = loaded(module.partition(".")[0], "__version__")
    # PyTorch's is a text of a class of its own
    return str.__str__(found) if derives(type(found), str) else ""


def _function(walk: Walk, value: types.FunctionType) -> Node:
    module = value.__module__
    if not of_user(module) and loaded(module, value.__qualname__) is value:
        return seal(TAG, b"installed", text(f"{module}.{value.__qualname__}"), text(version_of(module)))
    code = value.__code__
    hasher = begin(walk, TAG, b"function")
    hasher.update(text(value.__qualname__))
    _body(walk, hasher, code)
    hasher.update(walk.at(".__defaults__", value.__defaults__) + walk.at(".__kwdefaults__", value.__kwdefaults__))
    for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # not yet assigned
            hasher.update(text(name) + b"-")
            continue
        hasher.update(text(name) + walk.at(f".{name}", held))
    space = value.__globals__
    for name in sorted(_names(code)):
        if type(space) is dict and name in space:
            hasher.update(text(name) + walk.at(f".{name}", space[name]))
        elif name in vars(builtins):
            continue
    if value.__dict__:
        hasher.update(b"@" + walk.at(".__dict__", value.__dict__))
    return finish(TAG, hasher)


def _body(walk: Walk, hasher: Any, code: types.CodeType) -> None:
    source = _source(code)
    if source is not None:
        hasher.update(b"s" + text(source))
        if code.co_name == "<lambda>":  # two on one line share their source
            places = [(first - code.co_firstlineno, column) for first, _, column, _ in code.co_positions()
                      if first is not None and column]  # fmt: skip
            hasher.update(text(repr(min(places, default=None))))
        return
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if walk.top:
        walk.facts = {"schema": {"code": "compiled", "python": version}}
    hasher.update(b"c" + text(version))
    _compiled(walk, hasher, code)


def _compiled(walk: Walk, hasher: Any, code: types.CodeType) -> None:
    hasher.update(walk.item((code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)))
    for one in code.co_consts:
        if type(one) is types.CodeType:
            hasher.update(b"{")
            _compiled(walk, hasher, one)
        else:
            hasher.update(walk.item(one))


def _names(code: types.CodeType) -> set[str]:
    """Names the code may look up among the globals; attributes are among them and do no harm but company."""
    import dis

    found = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for one in code.co_consts:
        if type(one) is types.CodeType:
            found |= _names(one)
    return found


def class_node(walk: Walk, value: type) -> Node:
    """A class: of an installed package by name and version, of the user by its source and what its methods use."""
    module = module_of_type(value)
    name = name_of(value)
    static = not flags_of_type(value) & HEAP  # C's own, as the type of None, which no module has a name for
    if static or (not of_user(module) and loaded(module, qualname_of_type(value)) is value):
        return seal(TAG, b"installed", text(name), text(version_of(module)))
    hasher = begin(walk, TAG, b"class")
    hasher.update(text(qualname_of_type(value)))
    for base in value.__bases__:
        hasher.update(walk.item(base))
    made = _made(walk, value)
    hasher.update(made)
    for key, held in sorted(dict_of_type(value).items()):
        if key in GENERATED or type(held) in (types.GetSetDescriptorType, types.MemberDescriptorType):
            continue
        if made and (type(held).__name__ == "_tuplegetter" or key in _MADE_DATA or by_machine(held)):
            continue
        hasher.update(text(key) + walk.at(f".{key}", held))
    return finish(TAG, hasher)


_MADE_DATA: Final = {"_fields", "_field_defaults", "__slots__", "__match_args__", "__orig_bases__", "__annotations__",
                     "__dataclass_fields__", "__dataclass_params__"}  # fmt: skip


def held_by(held: Any) -> Any:
    """What a method is wrapped around."""
    if type(held) is property:
        return held.fget
    return held.__func__ if type(held) in (staticmethod, classmethod) else held


def by_machine(held: Any) -> bool:
    """Whether a method was generated by `namedtuple` or `dataclass`: it says nothing that the fields do not."""
    inner = held_by(held)
    if type(inner) is not types.FunctionType:
        return False
    file = inner.__code__.co_filename
    return file == "<string>" or file.startswith("<string ") or file in _machine_files()


@functools.cache
def _machine_files() -> frozenset[str]:
    import collections
    import reprlib

    found = {collections.namedtuple.__code__.co_filename, reprlib.recursive_repr.__code__.co_filename}
    dataclass = loaded("dataclasses", "dataclass")
    return frozenset(found if dataclass is None else found | {dataclass.__code__.co_filename})


def _made(walk: Walk, value: type) -> bytes:
    """The fields of a named tuple or dataclass, as written; empty for any other class."""
    space = dict_of_type(value)
    if "_field_defaults" in space and "_fields" in space and value.__bases__ == (tuple,):
        return b"n" + walk.item(space["_fields"]) + walk.at("._field_defaults", space["_field_defaults"])
    fields, kind = space.get("__dataclass_fields__"), loaded("dataclasses", "Field")
    if type(fields) is not dict or not all(type(one) is kind for one in fields.values()):
        return b""
    nothing = loaded("dataclasses", "MISSING")
    asked = space.get("__dataclass_params__")
    if type(asked) is not loaded("dataclasses", "_DataclassParams"):
        return b""
    # those that every release knows; the others show in the fields and slots
    parts = [
        walk.item(tuple(getattr(asked, name) for name in ("init", "repr", "eq", "order", "unsafe_hash", "frozen")))
    ]
    for name, one in fields.items():
        parts.append(text(name) + text(one._field_type.name))
        parts.extend(
            b"-" if held is nothing else walk.at(f".{name}", held) for held in (one.default, one.default_factory)
        )
        parts.append(walk.item((one.init, one.repr, one.hash, one.compare, one.kw_only is True, bool(one.metadata))))
    return b"d" + b"".join(parts)


def _enum_class(walk: Walk, value: Any) -> Node:
    """An enumeration: its members in order, and what methods the user gave it."""
    module, space = module_of_type(value), dict_of_type(value)
    if not of_user(module) and loaded(module, qualname_of_type(value)) is value:
        return seal(TAG, b"installed", text(name_of(value)), text(version_of(module)))
    members = {name: one.__dict__["_value_"] for name, one in space["_member_map_"].items()}
    methods = {
        name: held for name, held in space.items()
        if type(inner := held_by(held)) is types.FunctionType and of_user(inner.__module__)
    }  # fmt: skip
    return seal(
        TAG, b"enum", text(qualname_of_type(value)), walk.item([base.__name__ for base in value.__bases__]),
        walk.at(".__members__", list(members.items())), walk.item(methods),
    )  # fmt: skip


def _cached(walk: Walk, value: Any) -> Node:
    """A function with a cache around it: the function; what it remembers is not content."""
    inner = value.__dict__.get("__wrapped__")
    if type(inner) is not types.FunctionType:
        raise NoFingerprint("a cache around something that is not a function")
    return seal(TAG, b"lru_cache", walk.at(".__wrapped__", inner))


def _wrapped(kind: bytes) -> Any:
    return lambda walk, value: seal(TAG, kind, walk.item(value.__func__))


def _builtin(walk: Walk, value: Any) -> Node:
    owner = value.__self__
    if type(owner) is types.ModuleType or owner is None:
        module = owner.__name__ if owner is not None else "?"
        return seal(TAG, b"builtin", text(f"{module}.{value.__name__}"), text(version_of(module)))
    return seal(TAG, b"builtin-method", text(value.__name__), walk.at(".__self__", owner))


def _module(_walk: Walk, value: types.ModuleType) -> Node:
    name = module_dict(value).get("__name__")
    if type(name) is not str or sys.modules.get(name) is not value:
        raise NoFingerprint("a module that is not among the loaded ones")
    return seal(TAG, b"module", text(name), text(version_of(name)))


HANDLERS.update({id(kind): (kind, handler) for kind, handler in {
    types.FunctionType: _function,
    type: class_node,
    abc.ABCMeta: class_node,
    types.MethodType: lambda walk, value: seal(
        TAG, b"method", walk.at(".__func__", value.__func__), walk.at(".__self__", value.__self__)),
    types.BuiltinFunctionType: _builtin,
    types.ModuleType: _module,
    enum.EnumType: _enum_class,
    functools._lru_cache_wrapper: _cached,
    staticmethod: _wrapped(b"staticmethod"),
    classmethod: _wrapped(b"classmethod"),
    property: lambda walk, value: seal(TAG, b"property", *map(walk.item, (value.fget, value.fset, value.fdel))),
}.items()})  # fmt: skip
