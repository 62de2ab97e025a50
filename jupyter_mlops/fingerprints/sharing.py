"""What can change in place, and through whom else: the ground on which a memo of digests stands.

`immutable` says that a value can never change. `buffers` names the memory and the containers a value is made of: two
values whose sets meet may change together, whichever of them is named when it happens. `axes` are the indexes of pandas
that tables may have in common.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import itertools
import sys
import uuid
from typing import Any, Final

from jupyter_mlops.fingerprints.walk import derives, loaded, module_of_type, qualname_of_type

_SCALARS: Final = frozenset(
    map(
        id,
        (
            int, float, bool, str, bytes, complex, type(None), type(...), type(NotImplemented), range, dt.date,
            dt.timedelta, decimal.Decimal, fractions.Fraction, uuid.UUID,
        ),
    )
)  # fmt: skip
_NODES: Final = 2000


def immutable(value: object) -> bool:
    """Whether a value can not change in place: an exact builtin scalar, or a tuple or frozenset of such.

    >>> immutable(3), immutable((1, "a")), immutable((1, [])), immutable([])
    (True, True, False, False)
    """
    kind = type(value)
    if id(kind) in _SCALARS:
        return True
    if kind is tuple or kind is frozenset:
        return _frozen(value, 0)
    return False


def _frozen(items: Any, depth: int) -> bool:
    if depth > 20 or len(items) > _NODES:
        return False
    for item in items:
        kind = type(item)
        if id(kind) in _SCALARS:
            continue
        if (kind is tuple or kind is frozenset) and _frozen(item, depth + 1):
            continue
        return False
    return True


def buffers(value: object) -> frozenset[int]:
    """The identities of the memory and mutable objects a value is made of.

    Parameters
    ----------
    value
        Anything; of an unknown type only its own identity is told.

    Returns
    -------
    frozenset of int
        For containers the ids of themselves and of the containers inside, up to 2,000 of them; for arrays the id of
        the object at the end of the chain of bases; for Arrow memory the addresses. Empty for what is `immutable`.
    """
    if immutable(value):
        return frozenset()
    found: set[int] = set()
    _collect(value, found)
    return frozenset(found)


def _collect(value: Any, found: set[int]) -> None:
    todo = [value]
    while todo and len(found) < _NODES:
        one = todo.pop()
        kind = type(one)
        if id(kind) in _SCALARS or id(one) in found:
            continue
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            found.add(id(one))
            todo.extend(list(one)[: _NODES - len(found)])
        elif kind is dict:
            found.add(id(one))
            todo.extend(list(one.values())[: _NODES - len(found)])
        else:
            found.add(id(one))
            todo.extend(_memory(one, kind, found))


def _memory(one: Any, kind: type, found: set[int]) -> list[Any]:
    """Note the memory behind a value of a known library; return what to look at further."""
    module = module_of_type(kind)
    root = module.partition(".")[0] if type(module) is str else ""
    if root == "numpy" and (np := sys.modules.get("numpy")) is not None and derives(kind, np.ndarray):
        return _array(np, one, found)
    if root == "torch" and any(
        kind is loaded(*place) for place in (("torch._tensor", "Tensor"), ("torch.nn.parameter", "Parameter"))
    ):
        if one.device.type == "cpu" and one.layout is sys.modules["torch"].strided:
            found.add(one.untyped_storage().data_ptr())
        return []
    if root == "pandas":
        return _pandas(one, kind)
    if root == "pyarrow" and loaded("pyarrow.lib", qualname_of_type(kind)) is kind:
        return _arrow(one, found)
    return _held(one, kind, _NODES - len(found))


def _held(one: Any, kind: type, most: int) -> list[Any]:
    """What an instance of the user's class holds, where reading that runs no code of the class."""
    from jupyter_mlops.fingerprints import instances
    from jupyter_mlops.fingerprints.walk import NoFingerprint

    try:
        instances.handler_for(kind)
    except NoFingerprint:
        return []
    held: list[Any] = []
    if not derives(kind, enum.Enum):  # a member is a constant
        held.extend(list(instances.attributes(one).values())[:most])
    for base, read in ((list, list.__iter__), (tuple, tuple.__iter__), (dict, dict.values), (set, set.__iter__)):
        if derives(kind, base):
            held.extend(itertools.islice(read(one), most))
    return held


def _array(np: Any, one: Any, found: set[int]) -> list[Any]:
    """The end of an array's chain of bases; of one that owns its memory, the objects it holds."""
    base = np.ndarray.base.__get__(one)
    while type(base) is np.ndarray and np.ndarray.base.__get__(base) is not None:
        base = np.ndarray.base.__get__(base)
    if base is not None:
        return [base]
    # Arrow and PyTorch, made from an array without a copy, know it by its address
    found.add(np.ndarray.ctypes.__get__(one).data if np.ndarray.size.__get__(one) else id(one))
    held = np.ndarray.dtype.__get__(one)
    return np.ndarray.tolist(one)[:_NODES] if held.kind == "O" and np.ndarray.ndim.__get__(one) == 1 else []


def _arrow(one: Any, found: set[int]) -> list[Any]:
    """Note the addresses of Arrow memory; its parts are objects made for who asks, whose identity says nothing."""
    parts = [one]
    while parts and len(found) < _NODES:
        part = parts.pop()
        held = getattr(part, "columns", None) or getattr(part, "chunks", None)
        if held is not None:
            parts.extend(held)
        elif hasattr(part, "buffers"):
            found.update(buffer.address for buffer in part.buffers() if buffer is not None and buffer.address)
    return []


def _of_pandas(kind: type) -> bool:
    name = qualname_of_type(kind)
    return loaded("pandas", name) is kind or loaded("pandas.arrays", name) is kind


def _pandas(one: Any, kind: type) -> list[Any]:
    if not _of_pandas(kind):
        return []
    try:
        state = object.__getattribute__(one, "__dict__")
    except AttributeError:  # an extension array written in Cython has none
        state = {}
    if "_mgr" in state:
        return [block.values for block in state["_mgr"].blocks]
    parts = [
        state[name] for name in ("_data", "_mask", "_pa_array", "_left", "_right", "_sparse_values") if name in state
    ]
    parts += state.get("_levels", ())
    held = getattr(one, "_ndarray", None)
    return parts if held is None else [*parts, held]


def axes(value: object) -> list[Any]:
    """The indexes of a value of pandas: itself first if it is one, its axes, the categories of its columns.

    Tables share them far more often than data, and hardly ever change more of them than their names.
    """
    kind = type(value)
    if not _of_pandas(kind):
        return []
    pd = sys.modules["pandas"]
    state = getattr(value, "__dict__", {})
    found = [value] if derives(kind, pd.Index) else []
    if "_mgr" in state:
        manager = state["_mgr"]
        found += manager.axes
        held = [block.values for block in manager.blocks]
    else:
        held = [value]
    for one in (*held, *(axis.__dict__.get("_data") for axis in found)):
        categories = getattr(getattr(one, "_dtype", None), "_categories", None)
        if categories is not None and _of_pandas(type(categories)):
            found.append(categories)
    return found
