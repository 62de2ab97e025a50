"""Who holds what: which variables share an object, memory, or an index, and which of them a cell may have changed."""

from __future__ import annotations

import collections
import itertools
import weakref
from collections.abc import Container, Iterable, Iterator
from typing import Any, Final

from jupyter_mlops.fingerprints import Budget, Stretch, buffers, fingerprint, holdings, starts
from jupyter_mlops.namespace.reach import Reach
from jupyter_mlops.records import Digest

_PATIENCE: Final = 0.25  # seconds for the indexes after a cell; of one that has no time it is not known what it is


class Holders:
    """The variables by what they hold on to, as far as `reach` found it; nothing of theirs is referred to."""

    def __init__(self) -> None:
        self._by_object: dict[int, set[str]] = {}
        self._indexes: dict[int, _Index] = {}
        self._over: dict[int, set[int]] = {}  # which of the indexes lie over a piece of memory
        self._shared: list[_Index] = []  # by more than one since the last cell
        self._owned: collections.Counter[Stretch] = collections.Counter()
        self._lent: collections.Counter[Stretch] = collections.Counter()
        self._frozen: dict[Stretch, set[str]] = {}

    def add(self, name: str, found: Reach) -> None:
        """Take note of what a variable holds."""
        for one in found.objects:
            self._by_object.setdefault(one, set()).add(name)
        self._owned.update(found.owned)
        self._lent.update(found.lent)
        for stretch in found.frozen:
            self._frozen.setdefault(stretch, set()).add(name)
        for identity, ref in found.axes.items():
            known = self._indexes.get(identity)
            if known is not None and known.ref() is not ref():  # it is gone, and another one has its address
                self._drop(identity)
                known = None
            if known is None:
                if (index := ref()) is None:
                    continue  # a thread took it away meanwhile
                known = self._indexes[identity] = _Index(index, ref)
                self._owned.update(known.owned)
                for one in known.memory:
                    over = self._over.setdefault(one, set())
                    over.add(identity)
                    if len(over) > 1:
                        self._shared += [known] if len(over) > 2 else map(self._indexes.__getitem__, over)
            known.holders.add(name)
            if len(known.holders) == 2:
                self._shared.append(known)

    def remove(self, name: str, found: Reach, *, but: Container[int] = ()) -> None:
        """Take note that a variable no longer holds this, but for some of the indexes."""
        for one in found.objects:
            holders = self._by_object.get(one)
            if holders is not None:
                holders.discard(name)
                if not holders:
                    del self._by_object[one]
        _less(self._owned, found.owned)
        _less(self._lent, found.lent)
        for stretch in found.frozen:
            holders = self._frozen.get(stretch, set())
            holders.discard(name)
            if not holders:
                self._frozen.pop(stretch, None)
        for one in found.axes:
            known = self._indexes.get(one)
            if known is not None and one not in but:
                known.holders.discard(name)
                if not known.holders:
                    self._drop(one)

    def _drop(self, identity: int) -> None:
        known = self._indexes.pop(identity)
        _less(self._owned, known.owned)
        for one in known.memory:
            over = self._over[one]
            over.discard(identity)
            if not over:
                del self._over[one]

    def replace(self, name: str, old: Reach, new: Reach) -> None:
        """Take note of what a variable holds now, where that is something else."""
        if new is old:
            return
        same = {key for key in new.axes.keys() & old.axes.keys() if new.axes[key]() is old.axes[key]()}
        held = (new.objects, new.owned, new.lent, new.frozen) == (old.objects, old.owned, old.lent, old.frozen)
        if not held or not len(new.axes) == len(old.axes) == len(same):
            self.remove(name, old, but=same)
            self.add(name, new)

    def touched(self, reached: Iterable[Reach]) -> dict[str, None]:
        """The variables that hold an object which a cell reached, or lie over such memory: each once."""
        names: dict[str, None] = {}
        objects: set[int] = set()
        for one in reached:
            objects |= one.objects
        for stretch in self._beside(reached):
            objects.add(stretch[0])
            names.update(dict.fromkeys(self._frozen.get(stretch, ())))
        for key in objects:
            for name in self._by_object.get(key, ()):
                names[name] = None
        for identity in self._written(reached):
            names.update(dict.fromkeys(self._indexes[identity].holders))
        return names

    def moved(self, reached: Iterable[Reach], same: Container[str]) -> dict[str, None]:
        """Of those that only have an index in common with what a cell reached, the ones whose index it changed.

        Parameters
        ----------
        same
            Variables that were looked at after the cell, and are what they were: then their indexes are, too.
        """
        names: dict[str, None] = {}
        if not self._indexes:
            return names
        budget = Budget(_PATIENCE)
        looked: dict[int, bool] = {}

        def look(identity: int) -> bool:
            if identity not in looked:
                known = self._indexes[identity]
                looked[identity] = not known.held_by(same) and known.moved(budget)
                if looked[identity]:
                    names.update(dict.fromkeys(known.holders))
            return looked[identity]

        for identity in self._written(reached):
            look(identity)
        memory: set[int] = set()
        for one in reached:
            for identity, ref in one.axes.items():
                if identity in self._indexes:
                    memory.update(self._indexes[identity].memory if look(identity) else ())
                elif (index := ref()) is not None:  # no variable's, such as that of a cell's result
                    memory |= buffers(index)
        for key in memory:
            names.update(dict.fromkeys(self._by_object.get(key, ())))
            for identity in self._over.get(key, ()):
                look(identity)
        shared, self._shared = self._shared, []
        for known in shared:
            if known.holders:
                known.note(budget)
        return names

    def _written(self, reached: Iterable[Reach]) -> set[int]:
        """The indexes that lie over memory which a cell may have written otherwise than through an index."""
        if not self._over:
            return set()
        written: set[int] = {low for low, _ in self._beside(reached, written=True)}
        for one in reached:
            written |= one.objects - one.sealed
        return set().union(*(self._over[key] for key in written & self._over.keys()))

    def _beside(self, reached: Iterable[Reach], *, written: bool = False) -> Iterator[Stretch]:
        """The stretches over memory that a cell may have written, though neither's holders know of the other's.

        Arrays that own their memory overlap with none but those who were lent it; mostly nobody was.
        """
        owned: set[Stretch] = set().union(*(one.owned for one in reached))
        lent: set[Stretch] = set().union(*(one.lent for one in reached))
        if written:
            sealed = frozenset().union(*(one.sealed for one in reached))
            owned, lent = ({one for one in found if one[0] not in sealed} for found in (owned, lent))
        if not (lent or (owned and (self._lent or self._frozen))):
            return
        begins = starts(itertools.chain(owned, lent, self._owned, self._lent, self._frozen))
        met = {begins[one] for one in itertools.chain(owned, lent)}
        for stretch, start in begins.items():
            if start in met:
                yield stretch

    def clear(self) -> None:
        """Forget everything."""
        self._owned.clear()
        self._lent.clear()
        self._frozen.clear()
        self._by_object.clear()
        self._indexes.clear()
        self._over.clear()
        self._shared.clear()


def _less(counts: collections.Counter[Stretch], gone: Iterable[Stretch]) -> None:
    for one in gone:
        if counts[one] > 1:
            counts[one] -= 1
        else:
            del counts[one]


class _Index:
    """An index of tables: its memory, who has it, and what it was when it was last looked at.

    It is looked at only where others have it, too, or lie over its memory: it says for all of them at once whether they
    are as they were, and none of their data is looked at.
    """

    __slots__ = ("holders", "memory", "owned", "ref", "seen")

    def __init__(self, index: Any, ref: weakref.ref[Any]) -> None:
        self.ref = ref
        self.holders: set[str] = set()
        held = holdings(index)
        self.memory = held.objects - {id(index)}
        self.owned = held.owned | held.lent | held.frozen
        self.seen: Digest | None = None

    def held_by(self, names: Container[str]) -> bool:
        """Whether one of these has it."""
        return any(name in names for name in self.holders)

    def note(self, budget: Budget) -> None:
        """Take note of what it is, where that is not known."""
        if self.seen is None:
            self.seen = self._look(budget)

    def moved(self, budget: Budget) -> bool:
        """Whether it is not what it was when it was last looked at, or that can not be told."""
        if (was := self.seen) is None:
            return True
        self.seen = self._look(budget)
        return self.seen is None or self.seen != was

    def _look(self, budget: Budget) -> Digest | None:
        index = self.ref()
        return None if index is None else fingerprint(index, budget=budget).digest
