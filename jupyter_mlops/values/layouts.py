"""How values lie in memory, as one digest: what a fingerprint leaves out because it is not content.

Two equal arrays, one in C and one in Fortran order, give sums that differ in their last bits; two equal sets are gone
through in another order; of two lists that are equal item by item one may hold the same object twice. Who wants to
know whether code would do the same with one value as with another asks for both, fingerprint and layout.

Nothing of the user's is called. What has no layout that is known here (a tree made in C) counts by its type.
"""

from __future__ import annotations

import array
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from blake3 import blake3

from jupyter_mlops.fingerprints import fingerprint, holdings, hull, immutable, starts
from jupyter_mlops.fingerprints.instances import attributes, made_in_python
from jupyter_mlops.fingerprints.walk import DEEPEST, dict_of_type, module_of_type, name_of
from jupyter_mlops.records import encode
from jupyter_mlops.values.manifest import NotKept

_MOST: Final = 2_000_000
"""Objects that are looked at; of more nothing is said."""
_PLAIN: Final = frozenset({int, float, bool, str, bytes, complex, type(None)})


def layout(variables: Mapping[str, object]) -> str:
    """The digest of how some variables lie in memory, and of what they share.

    Parameters
    ----------
    variables
        Values by name; the order of the names does not matter.

    Raises
    ------
    NotKept
        They hold too much, or are nested too deeply, to be told.

    Examples
    --------
    >>> xs = [1]
    >>> layout({"a": xs, "b": xs}) == layout({"b": xs, "a": xs})
    True
    >>> layout({"a": xs, "b": xs}) == layout({"a": xs, "b": [1]})
    False
    """
    return Layouts(variables).digest()


class Layouts:
    """How variables lie in memory at one moment, without a reference to any of them.

    Parameters
    ----------
    variables
        Values by name.

    Raises
    ------
    NotKept
        They hold too much, or are nested too deeply, to be told.
    """

    def __init__(self, variables: Mapping[str, object]) -> None:
        self._told: dict[str, list[Any]] = {}
        left = _MOST
        for name, value in variables.items():
            walk = _Walk(left)
            walk.node(value, 0)
            self._told[name] = walk.told
            left = walk.left

    def __contains__(self, name: str) -> bool:
        return name in self._told

    def digest(self, names: Iterable[str] | None = None) -> str:
        """The digest for some of the variables, or for all: of each, and of what they share with one another."""
        told = {name: self._told[name] for name in sorted(self._told if names is None else names)}
        numbers: dict[int, int] = {}
        begins = starts(one for parts in told.values() for one in parts if type(one) in (_Stretch, _Frozen))
        written = {begins.get(one) for parts in told.values() for one in parts if type(one) is _Stretch} - {None}
        regions: dict[int, int] = {}
        spelled: list[Any] = []
        for name, parts in told.items():
            spelled.append(name)
            for one in parts:
                if type(one) is _Object:
                    spelled.append(numbers.setdefault(one.identity, len(numbers)))
                elif type(one) is _Stretch:
                    start = begins.get(one, 0)
                    spelled.append([regions.setdefault(start, len(regions)), one.low - start] if start else [])
                elif type(one) is _Frozen:  # which matters only where an array lies over it, too
                    start = begins.get(one, 0)
                    if start in written:
                        spelled.append([regions.setdefault(start, len(regions)), one.low - start])
                else:
                    spelled.append(one)
        return blake3(encode(spelled)).hexdigest()


class _Object(NamedTuple):
    """Something that can change, as it is met: which one it is."""

    identity: int


class _Stretch(NamedTuple):
    """The memory of an array."""

    low: int
    high: int


class _Frozen(NamedTuple):
    """Memory that nobody writes through the value that lies over it: Arrow's, polars'."""

    low: int
    high: int


class _Walk:
    """The walk through one variable's value."""

    def __init__(self, left: int) -> None:
        self.told: list[Any] = []
        self.left = left
        self._seen: dict[int, Any] = {}

    def node(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind in _PLAIN or immutable(value):
            return
        self.told.append(_Object(id(value)))
        if id(value) in self._seen:
            return
        self.left -= 1
        if self.left < 0:
            raise NotKept(f"more than {_MOST:,} objects")
        if depth > DEEPEST:
            raise NotKept(f"nested deeper than {DEEPEST} levels")
        self._seen[id(value)] = value
        if kind is list or kind is tuple:
            self.items(value, depth)
        elif kind is dict:
            self.mapping(value, depth)
        elif kind is set or kind is frozenset:
            self.told.append(fingerprint(list(value)).digest)
            self.items(list(value), depth)
        elif kind is types.FunctionType:
            self.function(value, depth)
        elif kind is types.ModuleType or kind is types.BuiltinFunctionType:
            self.told.append(name_of(kind))
        else:
            self.other(value, kind, depth)

    def items(self, values: Any, depth: int) -> None:
        self.told.append(len(values))
        if len(values) > 8 and _PLAIN.issuperset(set(map(type, values))):
            return
        for one in values:
            self.node(one, depth + 1)

    def mapping(self, value: dict[Any, Any], depth: int) -> None:
        self.told.append(fingerprint(list(value)).digest)
        self.items(list(value), depth)
        self.items(list(value.values()), depth)

    def function(self, value: types.FunctionType, depth: int) -> None:
        self.told.append("function")
        if value.__module__ not in ("__main__", None):
            return  # a library's: by name
        for cell in value.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            self.node(cell, depth + 1)
            self.node(held, depth + 1)
        self.items(value.__defaults__ or (), depth)
        self.mapping(value.__kwdefaults__ or {}, depth)
        self.mapping(value.__dict__, depth)

    def other(self, value: Any, kind: type, depth: int) -> None:
        self.told.append(name_of(kind))
        root = str(module_of_type(kind)).partition(".")[0]
        if kind is memoryview or kind is bytearray or kind is array.array:
            self.bytes(value, kind, depth)
        elif root == "numpy" and hasattr(kind, "__array_interface__"):
            self.array(value, depth)
        elif root == "numpy":
            for name in ("bit_generator", "_bit_generator", "seed_seq"):  # which another one may draw from
                self.node(getattr(value, name, None), depth + 1)
        elif root == "pandas":
            self.pandas(value, kind, depth)
        elif root == "pyarrow":
            self.arrow(value)
        elif root == "polars":
            self.polars(value)
        elif root == "torch":
            self.tensor(value)
        elif issubclass(kind, type):
            if module_of_type(value) == "__main__":
                space = dict_of_type(value)
                self.mapping({key: space[key] for key in space if key[:2] != "__"}, depth)
        elif made_in_python(kind):
            self.node(kind, depth + 1)
            self.mapping(attributes(value), depth)
        elif issubclass(kind, dict):
            self.mapping(dict(dict.items(value)), depth)
        elif issubclass(kind, list):
            self.items(list.copy(value), depth)

    # -- memory --------------------------------------------------------------------------------------------------------

    def bytes(self, value: Any, kind: type, depth: int) -> None:
        if kind is memoryview:
            try:
                self.told.append([value.format, list(value.shape or ()), list(value.strides or ()), value.readonly])
                self.node(value.obj, depth + 1)
            except ValueError:  # it was released
                return
        self.told += [_Stretch(*one) for one in sorted(holdings(value).lent)]

    def array(self, value: Any, depth: int) -> None:
        numpy: Any = sys.modules["numpy"]
        if not isinstance(value, numpy.ndarray):  # a scalar
            if isinstance(value, numpy.void) and value.base is not None and value.dtype.itemsize:
                low = numpy.frombuffer(value, numpy.uint8).ctypes.data
                self.told += [bool(value.flags.writeable), _Stretch(low, low + value.dtype.itemsize)]
            return
        flags = value.flags
        self.told.append([
            repr(value.dtype.descr) if value.dtype.fields else value.dtype.str, list(value.shape), list(value.strides),
            flags.writeable, flags.aligned,
        ])  # fmt: skip
        low, high = hull(value.shape, value.strides, value.dtype.itemsize)
        start = value.__array_interface__["data"][0]
        self.told.append(_Stretch(start + low, start + high))
        if value.dtype.hasobject:
            self.items(value.ravel().tolist(), depth)
        mask = getattr(value, "_mask", None) if type(value) is numpy.ma.MaskedArray else None
        if mask is not None:
            self.node(mask, depth + 1)

    def pandas(self, value: Any, kind: type, depth: int) -> None:
        names = _names(value)
        manager = names.get("_mgr")
        if manager is not None:
            for block in manager.blocks:
                self.told.append([int(one) for one in block.mgr_locs.as_array])
                self.node(block.values, depth + 1)
                self.node(block.refs, depth + 1)
            for axis in manager.axes:
                self.node(axis, depth + 1)
            self.told.append(names.get("_is_copy") is not None)
            self.node(names.get("_attrs"), depth + 1)
            key, ref = names.get("_cacher") or (None, None)
            if ref is not None and (frame := ref()) is not None and frame._item_cache.get(key) is value:
                self.told.append(_Object(id(frame)))
            return
        if kind.__name__ == "RangeIndex":
            return  # it makes its items when it is asked for them
        for name in ("_data", "_ndarray", "_mask", "_codes", "_levels", "_left", "_right", "_pa_array", "_references"):
            held = getattr(value, name, None)
            if held is not None:
                self.told.append(name)
                self.node(held, depth + 1)

    def arrow(self, value: Any) -> None:
        for column in getattr(value, "columns", None) or [value]:
            chunks = getattr(column, "chunks", None) or [column]
            self.told.append([len(chunk) if hasattr(chunk, "__len__") else 0 for chunk in chunks])
        self.told += [_Frozen(*one) for one in sorted(holdings(value).frozen)]

    def polars(self, value: Any) -> None:
        polars: Any = sys.modules["polars"]
        if isinstance(value, polars.DataFrame):
            self.told.append([int(one) for one in value.n_chunks("all")])
        elif isinstance(value, polars.Series):
            self.told.append(value.n_chunks())
        self.told += [_Frozen(*one) for one in sorted(holdings(value).frozen)]

    def tensor(self, value: Any) -> None:
        torch: Any = sys.modules["torch"]
        if isinstance(value, torch.Tensor):
            self.told.append([str(value.dtype), list(value.shape), list(value.stride()), value.requires_grad])
            low, high = hull(value.shape, value.stride(), 1)
            size, start = value.element_size(), value.data_ptr()
            self.told.append(_Stretch(start + low * size, start + high * size))
        elif isinstance(value, torch.nn.Module):
            for name, held in value.state_dict(keep_vars=True).items():
                self.told.append(name)
                self.node(held, 1)


def _names(value: Any) -> dict[str, Any]:
    """What a value of pandas' holds, read past its own look-up."""
    try:
        held: dict[str, Any] = attributes(value)
    except (TypeError, AttributeError):
        return {}
    return {key.rpartition(".")[2]: one for key, one in held.items()}
