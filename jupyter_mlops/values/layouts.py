"""How values lie in memory, as one digest: what a fingerprint leaves out because it is not content.

Two equal arrays, one in C and one in Fortran order, give sums that differ in their last bits; two equal sets are gone
through in another order; of two lists that are equal item by item one may hold the same object twice. Who wants to
know whether code would do the same with one value as with another asks for both, fingerprint and layout.

Nothing of the user's is called. What has no layout that is known here (a tree made in C) counts by its type.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any, Final

from blake3 import blake3

from jupyter_mlops.fingerprints import fingerprint, immutable
from jupyter_mlops.fingerprints.instances import attributes, made_in_python
from jupyter_mlops.fingerprints.walk import DEEPEST, dict_of_type, module_of_type, name_of
from jupyter_mlops.records import encode
from jupyter_mlops.values.manifest import NotKept
from jupyter_mlops.values.memory import hull

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
    walk = _Walk()
    for name in sorted(variables):
        walk.told.append(name)
        walk.node(variables[name], 0)
    walk.memory()
    return blake3(encode(walk.told)).hexdigest()


class _Walk:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self._seen: dict[int, tuple[int, Any]] = {}
        self._left = _MOST
        self._spans: list[tuple[int, int, list[Any]]] = []

    def node(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind in _PLAIN or immutable(value):
            return
        known = self._seen.get(id(value))
        if known is not None:
            self.told.append(known[0])
            return
        self._left -= 1
        if self._left < 0:
            raise NotKept(f"more than {_MOST:,} objects")
        if depth > DEEPEST:
            raise NotKept(f"nested deeper than {DEEPEST} levels")
        self._seen[id(value)] = (len(self._seen), value)
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
        if root == "numpy" and hasattr(kind, "__array_interface__"):
            self.array(value, depth)
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

    def array(self, value: Any, depth: int) -> None:
        numpy: Any = sys.modules["numpy"]
        if not isinstance(value, numpy.ndarray):
            return  # a scalar
        flags = value.flags
        self.told.append([
            repr(value.dtype.descr) if value.dtype.fields else value.dtype.str, list(value.shape), list(value.strides),
            flags.writeable, flags.aligned,
        ])  # fmt: skip
        low, high = hull(value.shape, value.strides, value.dtype.itemsize)
        start = value.__array_interface__["data"][0]
        self.span(start + low, start + high)
        if value.dtype.hasobject:
            self.items(value.ravel().tolist(), depth)
        mask = getattr(value, "_mask", None) if type(value) is numpy.ma.MaskedArray else None
        if mask is not None:
            self.node(mask, depth + 1)

    def span(self, low: int, high: int) -> None:
        place: list[Any] = []
        self.told.append(place)
        if high > low:
            self._spans.append((low, high, place))

    def memory(self) -> None:
        """Say of each stretch of memory which others it overlaps, and where it lies among them."""
        regions: dict[int, int] = {}  # numbers by the address of the first byte, in the order of the walk
        starts: dict[int, int] = {}
        start = end = -1
        for low, high, _ in sorted(self._spans, key=lambda one: (one[0], -one[1])):
            if low >= end:
                start = low
            end = max(end, high)
            starts[low] = start
        for low, _, place in self._spans:
            number = regions.setdefault(starts[low], len(regions))
            place.extend((number, low - starts[low]))

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
            self.mapping(names.get("_attrs") or {}, depth)
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

    def polars(self, value: Any) -> None:
        polars: Any = sys.modules["polars"]
        if isinstance(value, polars.DataFrame):
            self.told.append([int(one) for one in value.n_chunks("all")])
        elif isinstance(value, polars.Series):
            self.told.append(value.n_chunks())

    def tensor(self, value: Any) -> None:
        torch: Any = sys.modules["torch"]
        if isinstance(value, torch.Tensor):
            self.told.append([str(value.dtype), list(value.shape), list(value.stride()), value.requires_grad])
            low, high = hull(value.shape, value.stride(), 1)
            size, start = value.element_size(), value.data_ptr()
            self.span(start + low * size, start + high * size)
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
