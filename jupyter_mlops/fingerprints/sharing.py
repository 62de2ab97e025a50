"""What can change in place, and through whom else: the ground on which a memo of digests stands.

`immutable` says that a value can never change. `buffers` names the memory and the containers a value is made of: two
values whose sets meet may change together, whichever of them is named when it happens; so may two whose stretches of
memory overlap (`holdings`), where neither knows of the other. `axes` are the indexes of pandas that tables may have in
common, `notes` what was hung on a table.
"""

from __future__ import annotations

import array
import datetime as dt
import decimal
import enum
import fractions
import gc
import itertools
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from jupyter_mlops.fingerprints.walk import derives, loaded, module_of_type, qualname_of_type

PLAIN: Final = frozenset(
    map(
        id,
        (
            int, float, bool, str, bytes, complex, type(None), type(...), type(NotImplemented), range, dt.date,
            dt.timedelta, decimal.Decimal, fractions.Fraction, uuid.UUID,
        ),
    )
)  # fmt: skip
"""The ids of the builtin types whose values can not change."""
_NODES: Final = 2000
_STEPS: Final = 10_000
_BYTEARRAY: Final = 56  # bytes of one in CPython, the last of which are where it begins, and how many hold on to it

Stretch = tuple[int, int]
"""A stretch of memory: the addresses of its first and last byte (exclusive)."""


def immutable(value: object) -> bool:
    """Whether a value can not change in place: an exact builtin scalar, or a tuple or frozenset of such.

    >>> immutable(3), immutable((1, "a")), immutable((1, [])), immutable([])
    (True, True, False, False)
    """
    kind = type(value)
    if id(kind) in PLAIN:
        return True
    if kind is tuple or kind is frozenset:
        return _frozen(value, 0)
    return False


def _frozen(items: Any, depth: int) -> bool:
    if depth > 20 or len(items) > _NODES:
        return False
    for item in items:
        kind = type(item)
        if id(kind) in PLAIN:
            continue
        if (kind is tuple or kind is frozenset) and _frozen(item, depth + 1):
            continue
        return False
    return True


class Holdings:
    """What a value is made of, as far as it is known here.

    Attributes
    ----------
    objects
        The identities of memory and mutable objects: the ids of containers and arrays, of the object at the end of an
        array's chain of bases, the addresses of memory.
    owned
        Stretches of memory, first and last byte (exclusive), that belong to an array of it: no two of them overlap.
    lent
        Stretches that may lie in what something else owns: of tensors, of arrays over a buffer.
    frozen
        Likewise, of what nobody writes through this value: Arrow's and polars'.
    arrays
        Its arrays of Python objects, whose items were not looked at.
    """

    __slots__ = ("arrays", "frozen", "lent", "objects", "owned")

    def __init__(self) -> None:
        self.objects: set[int] = set()
        self.owned: set[Stretch] = set()
        self.lent: set[Stretch] = set()
        self.frozen: set[Stretch] = set()
        self.arrays: list[Any] = []

    def lend(self, low: int, high: int, *, frozen: bool = False) -> None:
        """Note memory whose owner is not known."""
        if high > low and frozen:
            self.frozen.add((low, high))
        elif high > low:
            self.objects.add(low)
            self.lent.add((low, high))


def holdings(value: object) -> Holdings:
    """What a value is made of; of an unknown type only its own identity is told."""
    found = Holdings()
    if not immutable(value):
        _collect([value], found)
    return found


def buffers(value: object) -> frozenset[int]:
    """The identities of the memory and mutable objects a value is made of, items of arrays of objects among them.

    Parameters
    ----------
    value
        Anything; of an unknown type only its own identity is told.

    Returns
    -------
    frozenset of int
        As `Holdings.objects`; of large containers the first 2,000 items count. Empty for what is `immutable`.
    """
    found = holdings(value)
    while found.arrays and len(found.objects) < _NODES:
        items = found.arrays.pop().ravel(order="K")[:_NODES].tolist()
        _collect([one for one in items if not immutable(one)], found)
    return frozenset(found.objects)


def hull(shape: Sequence[int], strides: Sequence[int], width: int) -> Stretch:
    """The first and last byte (exclusive) that items of a view can lie at, counted from its first item.

    >>> hull((2, 3), (-24, 8), 8)
    (-24, 24)
    >>> hull((0, 3), (24, 8), 8)
    (0, 0)
    """
    if any(side == 0 for side in shape) or not width:
        return 0, 0
    low = sum(min(0, (side - 1) * step) for side, step in zip(shape, strides, strict=True))
    high = sum(max(0, (side - 1) * step) for side, step in zip(shape, strides, strict=True))
    return low, high + width


def starts(stretches: Iterable[Stretch]) -> dict[Stretch, int]:
    """For each stretch of memory the first address of all that overlaps with it, by however many steps.

    >>> starts([(10, 20), (15, 30), (30, 40), (5, 5)])
    {(10, 20): 10, (15, 30): 10, (30, 40): 30}
    """
    found: dict[Stretch, int] = {}
    start = end = -1
    for low, high in sorted(set(stretches)):
        if high == low:
            continue
        if low >= end:
            start = low
        end = max(end, high)
        found[low, high] = start
    return found


def _collect(todo: list[Any], found: Holdings) -> None:
    objects = found.objects
    while todo:
        one = todo.pop()
        kind = type(one)
        if id(kind) in PLAIN or id(one) in objects:
            continue
        objects.add(id(one))
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            todo.extend(list(one)[: max(0, _NODES - len(objects))])
        elif kind is dict:
            todo.extend(list(one.values())[: max(0, _NODES - len(objects))])
        else:
            todo.extend(_memory(one, kind, found))


def _memory(one: Any, kind: type, found: Holdings) -> list[Any]:
    """Note the memory behind a value of a known type; return what to look at further."""
    np = sys.modules.get("numpy")
    if np is not None and (kind is np.ndarray or derives(kind, np.ndarray)):
        return _array(np, one, kind, found)
    module = module_of_type(kind)
    root = module.partition(".")[0] if type(module) is str else ""
    if root == "numpy" and np is not None:
        return _over_array(np, one, kind)
    if root == "torch" and any(
        kind is loaded(*place) for place in (("torch._tensor", "Tensor"), ("torch.nn.parameter", "Parameter"))
    ):
        if one.device.type == "cpu" and one.layout is sys.modules["torch"].strided:
            storage = one.untyped_storage()
            found.lend(storage.data_ptr(), storage.data_ptr() + storage.nbytes())
        if one.grad_fn is not None:
            return _leaves(one.grad_fn)
        return [] if not one.is_leaf or one.grad is None else [one.grad]
    if root == "pandas":
        return _pandas(one, kind)
    if root == "pyarrow" and loaded("pyarrow.lib", qualname_of_type(kind)) is kind:
        return _arrow(one, found)
    if root == "polars":
        from jupyter_mlops.fingerprints import polar

        for low, high in polar.stretches(one, kind):
            found.lend(low, high, frozen=True)
        return []
    if root in ("builtins", "array", "_io") or type(kind) is not type:
        return _exported(one, kind, found)
    return _held(one, kind, max(0, _NODES - len(found.objects)))


def _leaves(last: Any) -> list[Any]:
    """The tensors that are given gradients where they flow back from a step of PyTorch's."""
    leaves, waiting = [], [last]
    seen: dict[int, Any] = {}
    while waiting and len(seen) < _STEPS:
        step = waiting.pop()
        if step is None or id(step) in seen:
            continue
        seen[id(step)] = step
        leaf = getattr(step, "variable", None)
        if leaf is not None:
            leaves.append(leaf)
        waiting.extend(further for further, _ in step.next_functions)
    return leaves


def _exported(one: Any, kind: type, found: Holdings) -> list[Any]:
    """Memory that others may be given to write: of a bytearray, an array of the standard library, of ctypes'."""
    if kind is memoryview:
        try:
            return [] if one.obj is None else [one.obj]
        except ValueError:  # it was released
            return []
    if kind is bytearray:
        low = _address(one)
        found.lend(low, low + len(one))
    elif kind is array.array:
        low, count = one.buffer_info()
        found.lend(low, low + count * one.itemsize)
    elif qualname_of_type(kind) == "_BytesIOBuffer":
        return gc.get_referents(one)  # the stream, which no attribute tells
    elif _of_ctypes(kind):
        import ctypes

        found.lend(ctypes.addressof(one), ctypes.addressof(one) + ctypes.sizeof(one))
    else:
        return _held(one, kind, max(0, _NODES - len(found.objects)))
    return []


def _of_ctypes(kind: type) -> bool:
    simple = loaded("_ctypes", "_SimpleCData")
    return simple is not None and derives(kind, simple.__base__)


def lies_over_memory(kind: type) -> bool:
    """Whether values of a type are arrays of NumPy's or ctypes', which may be given each other's memory."""
    array_ = loaded("numpy", "ndarray")
    return (array_ is not None and derives(kind, array_)) or (type(kind) is not type and _of_ctypes(kind))


def _addressing() -> Callable[[bytearray], int]:
    """Who tells where a bytearray's items lie; nobody, where CPython's layout is not the one that is known.

    To ask for the memory itself would keep another thread from appending to it meanwhile.
    """
    import ctypes

    def told(one: bytearray) -> int:
        return ctypes.c_size_t.from_address(id(one) + bytearray.__basicsize__ - 16).value if one else 0

    sample = bytearray(b"sample")
    del sample[:1]
    place = ctypes.addressof((ctypes.c_char * len(sample)).from_buffer(sample))
    known = sys.implementation.name == "cpython" and bytearray.__basicsize__ == _BYTEARRAY and told(sample) == place
    return told if known else lambda _one: 0


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


def _array(np: Any, one: Any, kind: type, found: Holdings) -> list[Any]:
    """The end of an array's chain of bases; of one that owns its memory, where that is."""
    base = np.ndarray.base.__get__(one)
    while base is not None and _is_array(np, base) and (further := np.ndarray.base.__get__(base)) is not None:
        base = further
    more = [] if kind is np.ndarray or (mask := _mask(np, one, kind)) is None else [mask]
    if base is not None and _is_array(np, base):
        return [base, *more]
    start, flags = np.ndarray.ctypes.__get__(one).data, np.ndarray.flags.__get__(one)
    if flags.contiguous:
        low, high = start, start + np.ndarray.nbytes.__get__(one)
    else:
        first, last = hull(
            np.ndarray.shape.__get__(one), np.ndarray.strides.__get__(one), np.ndarray.itemsize.__get__(one)
        )
        low, high = start + first, start + last
    if base is not None:
        found.lend(low, high, frozen=not flags.writeable)
        return [base, *more]
    # Arrow and PyTorch, made from an array without a copy, know it by its address
    if high > low:
        found.objects.add(low)
        found.owned.add((low, high))
    if np.ndarray.dtype.__get__(one).kind == "O":
        found.arrays.append(one if kind is np.ndarray else np.ndarray.view(one, np.ndarray))
    return more


def _is_array(np: Any, one: Any) -> bool:
    kind = type(one)
    return kind is np.ndarray or derives(kind, np.ndarray)


def _mask(np: Any, one: Any, kind: type) -> Any:
    """The mask of a masked array, where it has one of its own."""
    masked = loaded("numpy.ma", "MaskedArray")
    if masked is None or not derives(kind, masked):
        return None
    mask = object.__getattribute__(one, "__dict__").get("_mask")
    return mask if _is_array(np, mask) else None


def _over_array(np: Any, one: Any, kind: type) -> list[Any]:
    """The arrays that numpy's scalars of structures and iterators write through to."""
    if derives(kind, np.void):
        base = np.void.base.__get__(one)
        return [] if base is None else [base]
    if kind is np.flatiter:
        return [one.base]
    if kind is np.nditer:
        try:
            return list(one.operands)
        except ValueError:  # it was closed
            return []
    return []


def _arrow(one: Any, found: Holdings) -> list[Any]:
    """Note where Arrow's memory lies; its parts are objects made for who asks, whose identity says nothing."""
    parts = [one]
    while parts:
        part = parts.pop()
        held = getattr(part, "columns", None) or getattr(part, "chunks", None)
        if held is not None:
            parts.extend(held)
        elif hasattr(part, "buffers"):
            if _is_text(part.type):
                continue  # which Arrow made itself: no array of numpy's has them
            for buffer in part.buffers():
                if buffer is not None and buffer.address:
                    found.lend(buffer.address, buffer.address + buffer.size, frozen=True)
        elif hasattr(part, "address") and part.address:  # a buffer itself
            found.lend(part.address, part.address + part.size, frozen=not part.is_mutable)
    return []


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")


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
    parts += [*state.get("_levels", ()), *state.get("_codes", ())]
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
    if kind is pd.CategoricalDtype:
        categories = getattr(value, "_categories", None)
        return [] if categories is None else [categories]
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


def notes(value: object) -> dict[str, Any]:
    """What was hung on a table of pandas by hand: its ``attrs``, and attributes that are no columns."""
    kind = type(value)
    if not _of_pandas(kind):
        return {}
    state = getattr(value, "__dict__", {})
    shown: frozenset[str] = getattr(kind, "_accessors", frozenset())
    found = {key: one for key, one in state.items() if type(key) is str and key[:1] != "_" and key not in shown}
    return {"_attrs": state["_attrs"], **found} if "_attrs" in state else found


_address: Final = _addressing()
