"""Instances of classes nobody told us about: by their attributes where that runs no code, else not at all.

The class must be plain Python all the way up to `object`, with `type` as its metaclass, and must not say itself how
its attributes are looked up or how it is saved; then its ``__dict__`` and slots are read past anything it defines.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import types
from typing import Any, Final

from jupyter_mlops.fingerprints import code, plain, tensors
from jupyter_mlops.fingerprints.walk import (
    HEAP,
    Handler,
    Node,
    NoFingerprint,
    Walk,
    begin,
    dict_of_type,
    finish,
    flags_of_type,
    loaded,
    module_of_type,
    mro_of,
    name_of,
    seal,
    text,
)  # fmt: skip

TAG: Final = b"value-1"
_OWN_WAYS: Final = ("__getattribute__", "__getattr__", "__reduce__", "__reduce_ex__", "__class__")
_OTHER_CONTENT: Final = (
    "__eq__", "__hash__", "__len__", "__iter__", "__getitem__", "__contains__", "__int__", "__float__", "__index__",
    "__bool__", "__str__", "__getstate__", "__setstate__", "keys", "values", "items",
)  # fmt: skip
"""What a subclass of a builtin may not redefine: then what it holds is not what it shows."""
_WHOLE: Final = slice(None)
BARE: Final[dict[type, Any]] = {
    int: int.__int__, float: float.__float__, complex: complex.__pos__, str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, _WHOLE), tuple: lambda value: tuple.__getitem__(value, _WHOLE),
    list: lambda value: list.__getitem__(value, _WHOLE), dict: dict.copy, set: set().union,
    frozenset: frozenset().union,
}  # fmt: skip
"""How a subclass's instance becomes the exact builtin, past anything the subclass defines."""
_C_MADE: Final = (types.WrapperDescriptorType, types.MethodDescriptorType, types.BuiltinFunctionType,
                  types.ClassMethodDescriptorType)  # fmt: skip


def handler_for(kind: type) -> Handler:
    """The handler for an exact type that is in no table.

    Raises
    ------
    NoFingerprint
        Reading it could run code, or would not tell all of it.
    """
    name = name_of(kind)
    if type(kind) is enum.EnumType:
        return _enum
    if name.endswith("iterator") or name in (
        "generator",
        "coroutine",
        "async_generator",
        "map",
        "zip",
        "filter",
        "enumerate",
    ):
        raise NoFingerprint(f"a {name} is used up by reading it")
    if kind is object:
        raise NoFingerprint("a bare object is nothing but itself")
    if kind is loaded("random", "Random"):
        return lambda walk, value: seal(TAG, b"random", walk.item(value.getstate()))
    if tensors.is_module(kind):
        return tensors.module_node
    if type(kind) is not type and type(kind) is not abc.ABCMeta:
        raise NoFingerprint(f"the type {name} is not known, and its class is made by another than type")
    line = mro_of(kind)
    builtin = next((base for base in line if base in BARE), None)
    refused = _OWN_WAYS if builtin is None else _OWN_WAYS + _OTHER_CONTENT
    for base in line:
        if base is object or base is builtin:
            continue
        held = dict_of_type(base)
        if not made_in_python(base):
            raise NoFingerprint(f"the type {name} is not known")
        for way in refused:
            if way in held and held[way] is not getattr(builtin, way, _WHOLE):
                raise NoFingerprint(f"the type {name} is not known, and defines {way}")
        if "__dict__" in held and type(held["__dict__"]) is not types.GetSetDescriptorType:
            raise NoFingerprint(f"the type {name} is not known, and defines __dict__")
    return _instance if builtin is None else _derived(BARE[builtin])


def made_in_python(kind: type) -> bool:
    """Whether a class is a class statement's: to read its instances runs no code of others."""
    return bool(flags_of_type(kind) & HEAP) and not any(type(one) in _C_MADE for one in dict_of_type(kind).values())


def _derived(bare: Any) -> Handler:
    """The handler for a class derived from a builtin: class, what the builtin holds, and attributes."""

    def handler(walk: Walk, value: Any) -> Node:
        kind = type(value)
        hasher = begin(walk, TAG, b"derived")
        hasher.update(text(name_of(kind)) + walk.at(".__class__", kind) + walk.item(bare(value)))
        plain.mapping(walk, hasher, attributes(value))
        return finish(TAG, hasher)

    return handler


def _instance(walk: Walk, value: Any) -> Node:
    kind = type(value)
    hasher = begin(walk, TAG, b"instance")
    hasher.update(text(name_of(kind)) + walk.at(".__class__", kind))
    plain.mapping(walk, hasher, attributes(value))
    return finish(TAG, hasher)


def attributes(value: Any) -> dict[str, Any]:
    """Filled slots and the instance's dictionary, read past anything its class defines."""
    kind = type(value)
    state: dict[str, Any] = {}
    for base in reversed(mro_of(kind)):
        for name, held in dict_of_type(base).items():
            if type(held) is types.MemberDescriptorType:
                try:
                    state[f"{base.__name__}.{name}"] = held.__get__(value, kind)
                except AttributeError:  # a slot that is not filled
                    continue
    with contextlib.suppress(AttributeError):  # it has only slots
        state.update(object.__getattribute__(value, "__dict__"))
    return state


def _enum(walk: Walk, value: Any) -> Node:
    kind = type(value)
    state = object.__getattribute__(value, "__dict__")
    if code.of_user(module_of_type(kind)) and any(way in dict_of_type(kind) for way in _OWN_WAYS[:2]):
        raise NoFingerprint(f"the type {name_of(kind)} defines how its attributes are looked up")
    return seal(TAG, b"enum", text(name_of(kind)), walk.item(state.get("_name_")), walk.item(state.get("_value_")))
