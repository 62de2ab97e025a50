"""Functions and classes by their source, and by what they refer to.

The source comes from the line cache, where IPython keeps every cell, or from the file. Without it the compiled code
stands in, bound to the Python version. Defaults, closures and the globals a function of the user's names count too;
functions and classes of installed packages count by name and version.
"""

from __future__ import annotations

import abc
import builtins
import inspect
import linecache
import sys
import textwrap
import types
from typing import Any, Final

from jupyter_mlops.fingerprints.walk import (
    HANDLERS,
    Node,
    NoFingerprint,
    Walk,
    begin,
    dict_of_type,
    finish,
    loaded,
    module_dict,
    module_of_type,
    name_of,
    qualname_of_type,
    seal,
    text,
)  # fmt: skip

TAG: Final = b"code-1"
_GENERATED: Final = {
    "__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "_abc_impl", "__abstractmethods__",
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
    try:
        lines = _lines(code)
        return textwrap.dedent("".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))) or None
    except Exception:  # noqa: BLE001 - a source that cannot be read or cut is one we do not have
        return None


def _class_source(kind: type, code: types.CodeType) -> str | None:
    lines = _lines(code)
    word = f"class {kind.__name__}"
    for start in range(min(code.co_firstlineno, len(lines)) - 1, -1, -1):
        if lines[start].lstrip().startswith(word):
            return textwrap.dedent("".join(inspect.getblock(lines[start:])))
    return None


def of_user(module: Any) -> bool:
    """Whether a module's code is the user's own: neither the standard library's nor an installed package's."""
    if type(module) is not str or module in ("__main__", "__mp_main__"):
        return True
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names:
        return False
    found = sys.modules.get(module)
    file = module_dict(found).get("__file__") if type(found) is types.ModuleType else None
    return type(file) is not str or not any(part in file for part in ("site-packages", "dist-packages"))


def version_of(module: str) -> str:
    """The version an installed package states; empty for the standard library, which counts by name alone."""
    found = loaded(module.partition(".")[0], "__version__")
    return found if type(found) is str else ""


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
    hasher.update(b"c" + text(f"{sys.version_info[0]}.{sys.version_info[1]}"))
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
    if not of_user(module) and loaded(module, qualname_of_type(value)) is value:
        return seal(TAG, b"installed", text(name), text(version_of(module)))
    hasher = begin(walk, TAG, b"class")
    hasher.update(text(qualname_of_type(value)))
    for base in value.__bases__:
        hasher.update(walk.item(base))
    for key, held in sorted(dict_of_type(value).items()):
        if key in _GENERATED or type(held) in (types.GetSetDescriptorType, types.MemberDescriptorType):
            continue
        hasher.update(text(key) + walk.at(f".{key}", held))
    return finish(TAG, hasher)


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
    staticmethod: _wrapped(b"staticmethod"),
    classmethod: _wrapped(b"classmethod"),
    property: lambda walk, value: seal(TAG, b"property", *map(walk.item, (value.fget, value.fset, value.fdel))),
}.items()})  # fmt: skip
