"""The variables that people see, at one moment and the next: names, values and identities side by side.

Every cell is looked at twice, and nearly all of what is seen is what was seen before. So names and identities are kept
as columns, which C reads and compares whole; by name only what has moved is looked up.
"""

from __future__ import annotations

import array
import ctypes
import itertools
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

_GONE: Final = object()
_WIDTH: Final = 8  # bytes of an identity
_BLOCK: Final = 64 * _WIDTH  # bytes that are compared at once


def _numbered(values: tuple[Any, ...]) -> bytes:
    """The identities of some values, one after the other."""
    return array.array("Q", map(id, values)).tobytes()


def _copied(values: tuple[Any, ...]) -> bytes:
    """The same, as CPython has it: an identity is an address, and a tuple is a row of them."""
    return ctypes.string_at(id(values) + tuple.__basicsize__, _WIDTH * len(values))


def _reading() -> Callable[[tuple[Any, ...]], bytes]:
    """The faster of both, which is a tenth of the other's time, where it is seen to say the same."""
    one: list[object] = []
    sample: tuple[object, ...] = (None, "", 0, one, one)
    layout = tuple.__basicsize__ + _WIDTH * len(sample)
    if sys.implementation.name == "cpython" and tuple.__itemsize__ == _WIDTH and sample.__sizeof__() == layout:
        return _copied if _copied(sample) == _numbered(sample) else _numbered
    return _numbered


def _unequal(mine: bytes, theirs: bytes) -> Iterator[int]:
    """The places at which two rows differ: a few in many, so both are taken as one number each."""
    differing, at = int.from_bytes(mine, "little") ^ int.from_bytes(theirs, "little"), 0
    while differing:
        further = ((differing & -differing).bit_length() - 1) // (8 * _WIDTH)
        yield at + further
        at += further + 1
        differing >>= 8 * _WIDTH * (further + 1)


identities: Final = _reading()
"""The identities of some values as bytes, equal where each value is the very same object."""


class Names:
    """Which names there are, in the order in which they came. Names are only added: where one goes, new ones begin."""

    __slots__ = ("_picker", "order", "place")

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.place = dict(zip(order, range(len(order)), strict=True))
        self._picker: Callable[[Any], tuple[Any, ...]] | None = None

    def add(self, name: str) -> None:
        self.place[name] = len(self.order)
        self.order.append(name)
        self._picker = None

    def pick(self, ns: dict[str, Any]) -> tuple[Any, ...]:
        """Their values: in one call for all of them, twice as fast as asking for each.

        Raises
        ------
        KeyError
            One of them is gone.
        """
        order = self.order
        if len(order) < 2:
            return tuple([ns[name] for name in order])
        if self._picker is None:
            self._picker = operator.itemgetter(*order)
        return self._picker(ns)


class Moment:
    """What the names stood for at one moment.

    Attributes
    ----------
    names
        Shared by all moments between which no name went; some may have come since.
    ids
        The identity of each name's object.
    """

    __slots__ = ("_values", "count", "ids", "names")

    def __init__(self, names: Names, values: tuple[Any, ...], ids: bytes | None = None) -> None:
        self.names = names
        self.ids = identities(values) if ids is None else ids
        self.count = len(self.ids) // _WIDTH
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self.names.place.get(name, self.count) < self.count

    def __iter__(self) -> Iterator[str]:
        return itertools.islice(self.names.order, self.count)

    def __getitem__(self, name: str) -> Any:
        return self._values[self.names.place[name]]

    def get(self, name: str, default: Any) -> Any:
        place = self.names.place.get(name, self.count)
        return self._values[place] if place < self.count else default

    def without_values(self) -> Moment:
        """What may be kept from one cell to the next."""
        return Moment(self.names, (), self.ids)

    def since(self, then: Moment) -> tuple[list[str], list[str]]:
        """Names that are new or have another object than then, and names that are gone."""
        order, ids, old, count = self.names.order, self.ids, then.ids, then.count
        if self.names is not then.names:
            place, then_ids = then.names.place, memoryview(old).cast("Q")
            moved = [
                name
                for name, identity in zip(order, memoryview(ids).cast("Q"), strict=False)
                if (at := place.get(name, count)) >= count or then_ids[at] != identity
            ]
            return moved, [name for name in then if name not in self]
        moved = []
        if ids != old:
            for start in range(0, len(old), _BLOCK):
                end = min(start + _BLOCK, len(old))
                mine, theirs = ids[start:end], old[start:end]
                if mine != theirs:
                    moved += [order[start // _WIDTH + at] for at in _unequal(mine, theirs)]
            moved += order[count : self.count]
        return moved, []


class Lookout:
    """Sees which variables there are, cell by cell.

    Parameters
    ----------
    user_ns
        The kernel's variables. They are only ever read.
    visible
        Whether people count a name as theirs.

    Attributes
    ----------
    arrived
        Names not counted as anybody's that have come; whoever reads them clears them.
    """

    def __init__(self, user_ns: dict[str, Any], visible: Callable[[str], bool]) -> None:
        self._ns = user_ns
        self._visible = visible
        self._names = Names([])
        self._last: object = None
        self._count = 0
        self.arrived: list[str] = []

    def look(self) -> Moment:
        """The variables that people see, as they are now.

        IPython leaves names behind at every cell (``_i7``, ``_7``), so walking all of them at each would make a long
        session slow. A dict keeps the order in which names came: what is new stands at its end, up to the name that was
        the last one before. Where the count does not come out even, all of them are looked at.
        """
        ns, last = self._ns, self._last
        fresh: list[str] = []
        try:
            for name in reversed(ns):
                if name is last:
                    break
                fresh.append(name)
            self._last = next(reversed(ns), None)
            count = len(ns)
        except RuntimeError:  # a thread of the user's is adding names right now
            return self._look_everywhere()
        names = self._names
        gone = 0
        try:
            values = names.pick(ns)
        except KeyError:
            found = {name: value for name in names.order if (value := ns.get(name, _GONE)) is not _GONE}
            gone = len(names.order) - len(found)
            self._names = names = Names(list(found))
            values = tuple(found.values())
        if fresh:
            fresh = [name for name in reversed(fresh) if name not in names.place]
        if count != self._count - gone + len(fresh):
            return self._look_everywhere()
        self._count = count
        for name in fresh:
            if type(name) is not str:
                continue
            if not self._visible(name):
                self.arrived.append(name)
            elif (value := ns.get(name, _GONE)) is not _GONE:
                names.add(name)
                values = (*values, value)
        return Moment(names, values)

    def _look_everywhere(self) -> Moment:
        everything = dict.copy(self._ns)
        self._last, self._count = next(reversed(everything), None), len(everything)
        now = {name: value for name, value in everything.items() if type(name) is str and self._visible(name)}
        self.arrived += [name for name in everything if type(name) is str and name not in now]
        self._names = Names(list(now))
        return Moment(self._names, tuple(now.values()))
