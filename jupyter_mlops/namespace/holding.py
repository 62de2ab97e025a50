"""Who holds what: which variables share an object, memory, or an index, and which of them a cell may have changed."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from jupyter_mlops.fingerprints import axis_names, buffers, fingerprint
from jupyter_mlops.namespace.reach import Reach
from jupyter_mlops.records import Digest


class Holders:
    """The variables by what they hold on to, as far as `reach` found it; nothing of theirs is referred to."""

    def __init__(self) -> None:
        self._by_object: dict[int, set[str]] = {}
        self._indexes: dict[int, _Index] = {}
        self._over: dict[int, set[int]] = {}  # which of the indexes lie over a piece of memory

    def add(self, name: str, found: Reach) -> None:
        """Take note of what a variable holds."""
        for one in found.objects:
            self._by_object.setdefault(one, set()).add(name)
        for identity, ref in found.axes.items():
            known = self._indexes.get(identity)
            if known is not None and known.ref() is not ref():  # it is gone, and another one has its address
                self._drop(identity)
                known = None
            if known is None:
                if (index := ref()) is None:
                    continue  # a thread took it away meanwhile
                known = self._indexes[identity] = _Index(index, ref)
                for one in known.memory:
                    self._over.setdefault(one, set()).add(identity)
            known.holders.add(name)

    def remove(self, name: str, found: Reach) -> None:
        """Take note that a variable no longer holds this."""
        for one in found.objects:
            holders = self._by_object.get(one)
            if holders is not None:
                holders.discard(name)
                if not holders:
                    del self._by_object[one]
        for one in found.axes:
            known = self._indexes.get(one)
            if known is not None:
                known.holders.discard(name)
                if not known.holders:
                    self._drop(one)

    def _drop(self, identity: int) -> None:
        for one in self._indexes.pop(identity).memory:
            over = self._over[one]
            over.discard(identity)
            if not over:
                del self._over[one]

    def replace(self, name: str, old: Reach, new: Reach) -> None:
        """Take note of what a variable holds now, where that is something else."""
        if new.objects != old.objects or not _same_axes(new, old):
            self.remove(name, old)
            self.add(name, new)

    def touched(self, reached: Iterable[Reach]) -> dict[str, None]:
        """The variables that a cell may have changed, given what it reached: each once.

        These are all that hold an object it reached or lie over such memory, and of those that only have an index in
        common with it, the ones whose index has another name than before.
        """
        names: dict[str, None] = {}
        objects: set[int] = set()
        axes: set[int] = set()
        written: set[int] = set()
        for one in reached:
            if not one.objects:
                continue
            objects |= one.objects
            axes.update(one.axes)
            if self._over:
                written |= one.objects - one.sealed
        if not objects:
            return names
        for key in objects:
            for name in self._by_object.get(key, ()):
                names[name] = None
        for key in axes:
            known = self._indexes.get(key)
            if known is not None and known.renamed():
                names.update(dict.fromkeys(known.holders))
        for key in written & self._over.keys():
            for identity in self._over[key]:
                names.update(dict.fromkeys(self._indexes[identity].holders))
        return names

    def clear(self) -> None:
        """Forget everything."""
        self._by_object.clear()
        self._indexes.clear()
        self._over.clear()


class _Index:
    """An index that variables have in common: what it was called when it was last seen, its memory, and who has it.

    It says for all of them at once whether they are as they were: none of their data is looked at.
    """

    __slots__ = ("called", "holders", "memory", "ref")

    def __init__(self, index: Any, ref: weakref.ref[Any]) -> None:
        self.ref = ref
        self.holders: set[str] = set()
        self.memory = buffers(index) - {id(index)}
        self.called: Digest | None = fingerprint(axis_names(index)).digest

    def renamed(self) -> bool:
        """Whether it is called otherwise than when this was last asked, or by what cannot be told."""
        index = self.ref()
        if index is None:
            return False
        was, self.called = self.called, fingerprint(axis_names(index)).digest
        return self.called is None or self.called != was


def _same_axes(one: Reach, two: Reach) -> bool:
    """Whether two looks found the same indexes; one that is gone may have left its address to another."""
    return one.axes.keys() == two.axes.keys() and all(two.axes[key]() is ref() for key, ref in one.axes.items())
