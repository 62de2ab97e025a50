"""The walk that writes values down: each object once, so that what was one object comes back as one.

As everywhere, nothing of the user's is called: a value is read by its exact type, and what no table knows is not kept,
with the reason. References to the values are held while the walk goes on, and not after it.
"""

from __future__ import annotations

import array
import base64
import importlib
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from jupyter_mlops.fingerprints import Budget, Stretch, holdings, starts
from jupyter_mlops.fingerprints.walk import DEEPEST, loaded, module_of_type, name_of, qualname_of_type
from jupyter_mlops.records import Digest
from jupyter_mlops.values.manifest import Claim, NotKept, Part
from jupyter_mlops.values.memory import Memory

Keeper = Callable[["Keeping", Any], list[Any]]
"""Writes a value of a type it knows as a node."""

_LARGEST: Final = 2**53
_LONG: Final = 4096
"""Characters, or bytes, from which on a text is an object of its own."""
_PACKED: Final = 64
"""Items from which on plain ones are an object of their own."""
_STRIDE: Final = 256

KEEPERS: Final[dict[int, tuple[type, Keeper]]] = {}
"""By the id of the exact type, with the type held so that its id stays its own."""
_LIBRARIES: Final = {
    "numpy": "arrays", "scipy": "arrays", "torch": "tensors", "pandas": "frames", "pyarrow": "arrow",
    "polars": "arrow", "sklearn": "estimators",
}  # fmt: skip
_double = struct.Struct("<d")


class Bytes(Protocol):
    """What is asked of a store: bytes by digest."""

    def put(self, data: Any, *, check: Callable[[], None] | None = None) -> Digest: ...
    def get(self, digest: Digest) -> bytes: ...
    def read_into(self, digest: Digest, memory: memoryview) -> None: ...
    def size(self, digest: Digest) -> int: ...


class Keeping:
    """One manifest being made.

    Parameters
    ----------
    store
        Takes the objects.
    secret
        Whether a name's value is secret: what holds such a one is not kept.
    known
        Objects by the array they hold; added to.
    budget
        What it may cost.
    space
        The variables that functions of the notebook look their globals up in.
    """

    def __init__(
        self, store: Bytes, *, secret: Callable[[str, object], bool] | None, known: dict[Claim, Digest], budget: Budget,
        space: dict[str, Any],
    ) -> None:  # fmt: skip
        self.store, self.budget, self.known, self.space = store, budget, known, space
        self.secret = secret or (lambda _name, _value: False)
        self.nodes: list[list[Any]] = []
        self.objects: list[Part] = []
        self.columns: Sequence[Any] = ()
        """Fingerprints of the columns of the frame that is the variable's value, as the record has them."""
        self.memory = Memory(self._put, known, self.has)
        self.sealing = False
        """Whether something of it is a program."""
        self.programs = False
        """Whether the value that is being written holds definitions of the notebook, as far as has been seen."""
        self._memo: dict[int, tuple[Any, int]] = {}
        self._held: list[object] = []
        self._swallowed: dict[int, object] = {}
        self._order: list[int] = []
        self._numbers: dict[Digest, int] = {}
        self._open: set[int] = set()
        self._holding: set[int] = set()
        self._due = 0
        self._copied: list[tuple[int, Stretch]] = []
        self._afterwards: list[Callable[[], None]] = []

    # -- values --

    def variable(self, value: object, columns: Sequence[Any] = ()) -> tuple[Any, bool]:
        """Write a variable's value.

        Returns
        -------
        tuple
            Its operand, and whether definitions of the notebook are part of it.

        Raises
        ------
        NotKept
            It has no format; everything is as it was before.
        """
        marks = len(self.nodes), len(self._order), self.memory.mark()
        self.columns, self.programs = columns, False
        try:
            return self.operand(value), self.programs
        except BaseException:
            # Whatever it is, an interrupt too: the manifest may be gone on with, and holds no half of a value.
            del self.nodes[marks[0] :]
            for key in self._order[marks[1] :]:
                del self._memo[key]
            del self._order[marks[1] :]
            self.memory.forget(marks[2])
            self._copied = [one for one in self._copied if one[0] < marks[0]]
            self._open.clear()
            raise

    def operand(self, value: Any) -> Any:
        """A value as written inside a node: a small one whole, any other as the number of its node."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -_LARGEST < value < _LARGEST else ["i", f"{value:x}"]
        if kind is float:
            if value - value == 0:
                return value
            return ["f", _double.pack(value).hex()]
        if kind is str and len(value) < _LONG:
            return value if value.isascii() else _text(value)
        if kind is bytes and len(value) < _LONG:
            return ["b", base64.b64encode(value).decode()]
        if kind is complex:
            return ["c", (_double.pack(value.real) + _double.pack(value.imag)).hex()]
        if value is ...:
            return ["..."]
        if value is NotImplemented:
            return ["NI"]
        return ["@", self.node(value)]

    def made(self, value: Any, keeper: Keeper) -> Any:
        """The operand of a value that is written in a way of its own, unless it was met before."""
        return ["@", self.node(value, keeper)]

    def node(self, value: Any, keeper: Keeper | None = None) -> int:
        """The number of a value's node, written when first met."""
        key = id(value)
        known = self._memo.get(key)
        if key in self._swallowed:
            raise NotKept("it is part of an object that only a pickle holds")
        if known is not None:
            number = known[1]
            if number in self._holding or number in self._open:
                self.programs = True
            return number
        if len(self._open) >= DEEPEST:
            raise NotKept(f"nested deeper than {DEEPEST} levels")
        self._due += 1
        if self._due >= _STRIDE:
            self.budget.check(self._due)
            self._due = 0
        keeper = keeper or keeper_of(value)
        number = len(self.nodes)
        self.nodes.append([])
        self._memo[key] = (value, number)
        self._order.append(key)
        outer, self.programs = self.programs, False
        self._open.add(number)
        self.nodes[number] = keeper(self, value)
        if _is_copied(value):
            self._copied.extend((number, stretch) for stretch in holdings(value).frozen)
        self._open.discard(number)
        if self.programs:
            self._holding.add(number)
        self.programs = self.programs or outer
        return number

    def number_of(self, value: object) -> int | None:
        """The number of the node of a value that was met, if it was."""
        found = self._memo.get(id(value))
        return found[1] if found is not None and found[0] is value else None

    def afterwards(self, write: Callable[[], None]) -> None:
        """Have something written when all values are: what depends on who else is kept."""
        self._afterwards.append(write)

    def finish(self) -> None:
        """Write what waited until now."""
        for write in self._afterwards:
            write()

    def severed(self) -> set[int]:
        """Nodes that were written as copies though arrays lie over their memory, and all that hold one of them."""
        if not self._copied:
            return set()
        begins = starts([*self.memory.written(), *(stretch for _, stretch in self._copied)])
        written = {begins[one] for one in self.memory.written() if one in begins}
        found = {number for number, stretch in self._copied if begins[stretch] in written}
        holders: dict[int, list[int]] = {}
        for number, node in enumerate(self.nodes if found else ()):
            for one in numbers_in(node):
                holders.setdefault(one, []).append(number)
        waiting = list(found)
        while waiting:
            more = set(holders.get(waiting.pop(), ())) - found
            found |= more
            waiting += more
        return found

    def hold(self, value: object) -> None:
        """Keep an object alive, and its memory where it is, until all is written."""
        self._held.append(value)

    def swallowed(self, values: Sequence[Any]) -> None:
        """Note what a pickle holds.

        Raises
        ------
        NotKept
            It shares with the other values what can change.
        """
        for one in values:
            if type(one) in (list, dict, set, bytearray) or "__dict__" in dir(type(one)):
                if id(one) in self._memo and not isinstance(one, type):
                    raise NotKept("it shares objects with other variables in a way that no format keeps")
                self._swallowed[id(one)] = one

    def inside(self, values: Sequence[Any]) -> list[Any]:
        """Operands, one by one."""
        return [self.operand(one) for one in values]

    def items(self, values: Sequence[Any]) -> Any:
        """The items of an exact list or tuple: many plain ones together, as an object of their own."""
        if len(values) >= _PACKED:
            packed = self._packed(values)
            if packed is not None:
                return packed
        return self.inside(values)

    def _packed(self, values: Sequence[Any]) -> dict[str, Any] | None:
        kinds = set(map(type, values))
        raw: bytes | None = None
        form = "j"
        if kinds == {float}:
            form, raw = "d", _little(array.array("d", values))
        elif kinds == {int}:
            try:
                form, raw = "q", _little(array.array("q", values))
            except OverflowError:
                raw = None
        if raw is None:
            if not kinds <= {str, float, int, bool, type(None)}:
                return None
            try:
                raw = msgspec.json.encode(list(values) if kinds == {str} else self.inside(values))
            except UnicodeEncodeError:
                raw = msgspec.json.encode(self.inside(values))
            if b'["@",' in raw:  # a long text is a node of its own, and nodes stand in the manifest
                return None
        self.budget.check(0, len(raw))
        return {"form": form, "object": self.object(raw), "count": len(values)}

    def key(self, value: Any) -> Any:
        """The operand of what is looked up by its hash: only where hashing it again runs nobody's code.

        Raises
        ------
        NotKept
            It would.
        """
        if not hashes_plainly(value):
            raise NotKept(f"a {name_of(type(value))} is a key, and says itself how it is looked up")
        return self.operand(value)

    def named(self, name: Any, value: Any) -> Any:
        """The operand of what stands under a name.

        Raises
        ------
        NotKept
            It is secret.
        """
        if type(name) is str and self.secret(name, value):
            raise NotKept("it holds a secret")
        return self.operand(value)

    # -- bytes --

    def object(self, data: bytes | memoryview, claim: Claim | None = None) -> int:
        """Keep bytes, and give their number among the manifest's objects."""
        return self.listed(self._put(data), len(data), claim)

    def listed(self, digest: Digest, size: int, claim: Claim | None = None) -> int:
        """The number of an object that the store has."""
        number = self._numbers.get(digest)
        if number is None:
            number = self._numbers[digest] = len(self.objects)
            self.objects.append(Part(digest, size, claim))
        return number

    def program(self, data: bytes) -> int:
        """Keep what runs when it is brought back: the manifest is then sealed."""
        self.sealing = True
        return self.object(data)

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the store has an object of that size."""
        try:
            return self.store.size(digest) == size
        except LookupError:
            return False

    def _put(self, data: Any) -> Digest:
        self.budget.check()
        return self.store.put(data, check=self.budget.check)


def _text(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return ["s", value.encode("utf-8", "surrogatepass").hex()]
    return value


def _little(values: array.array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def numbers_in(raw: Any) -> Iterator[int]:
    """The numbers of the nodes that a node, or an operand, names."""
    waiting = [raw]
    while waiting:
        one = waiting.pop()
        if type(one) is dict:
            waiting.extend(one.values())
        elif type(one) is list or type(one) is tuple:
            if len(one) == 2 and one[0] == "@":
                yield one[1]
            else:
                waiting.extend(one)


def _is_copied(value: Any) -> bool:
    """Whether a value is written as a copy of memory that may be an array's."""
    kind = type(value)
    module = str(module_of_type(kind))
    return module.partition(".")[0] in ("pyarrow", "polars") or (
        module.startswith("pandas.") and kind.__name__.startswith("Arrow")
    )


_PLAIN: Final = frozenset({int, float, bool, str, bytes, complex, type(None), type(...), range})


def hashes_plainly(value: Any, depth: int = 0) -> bool:
    """Whether hashing and comparing a value runs no code but Python's and the known libraries' own.

    >>> hashes_plainly(("a", 1)), hashes_plainly(object())
    (True, True)
    """
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is tuple or kind is frozenset:
        return depth < 20 and all(hashes_plainly(one, depth + 1) for one in value)
    for base in type.__dict__["__mro__"].__get__(kind):
        space = type.__dict__["__dict__"].__get__(base)
        if "__hash__" in space or "__eq__" in space:
            return base is object or _of_library(base)
    return False


def _of_library(kind: type) -> bool:
    module = module_of_type(kind)
    return (
        type(module) is str
        and (module.partition(".")[0] in sys.stdlib_module_names or module.partition(".")[0] in _LIBRARIES)
        and module != "__main__"
        and loaded(module, qualname_of_type(kind)) is kind
    )


def keeper_of(value: Any) -> Keeper:
    """Who writes a value of this exact type.

    Raises
    ------
    NotKept
        Nobody does.
    """
    kind = type(value)
    entry = KEEPERS.get(id(kind))
    if entry is not None and entry[0] is kind:
        return entry[1]
    module = module_of_type(kind)
    if type(module) is str:
        ours = _LIBRARIES.get(module.partition(".")[0])
        if ours is not None:
            found = importlib.import_module(f"jupyter_mlops.values.{ours}").keeper_for(kind, module, kind.__qualname__)
            if found is not None:
                KEEPERS[id(kind)] = (kind, found)
                return found  # type: ignore[no-any-return]
    from jupyter_mlops.values import instances

    return instances.keeper_for(kind)
