"""One walk over one value: which handler takes a type, what a node costs, where a walk has to stop.

A value becomes a tree of nodes. A *scalar* is written inline; everything else is a *node*, written where it stands as
its tag and the BLAKE3 of its pre-image (`docs/fingerprints.md`). Handlers are found by the identity of the exact type:
a builtin's in a table, a library's through its module's name in `sys.modules`, so that nothing is imported, and a
class that merely claims to come from pandas is not believed. Nothing here calls into an object of an unknown type.
"""

from __future__ import annotations

import abc
import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from types import ModuleType
from typing import Any, Final, NamedTuple

from blake3 import blake3

DEEPEST: Final = 120
"""Levels of nesting that are followed."""
CHUNK: Final = 8 << 20
"""Bytes hashed between two looks at the budget."""
_STRIDE: Final = 512
"""Nodes visited between two looks at the budget."""
_SHARED: Final = 64
"""Nodes below a node from which on it is remembered within one walk: what is reachable in many ways is read once."""

# Read a type's own slots, past whatever its metaclass or the class itself may define under these names.
module_of_type: Final[Callable[[type], Any]] = type.__dict__["__module__"].__get__
qualname_of_type: Final[Callable[[type], Any]] = type.__dict__["__qualname__"].__get__
mro_of: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
dict_of_type: Final[Callable[[type], Any]] = type.__dict__["__dict__"].__get__
flags_of_type: Final[Callable[[type], int]] = type.__dict__["__flags__"].__get__
HEAP: Final = 1 << 9
"""The flag of a class made by running code; C's static ones lack it."""
module_dict: Final[Callable[[ModuleType], dict[str, Any]]] = vars(ModuleType)["__dict__"].__get__


class NoFingerprint(Exception):
    """A part of the value has no fingerprint.

    Attributes
    ----------
    reason
        Why, without any of the value's own text.
    path
        Where, innermost first.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []

    def why(self) -> str:
        """The reason with the place, for people."""
        where = "".join(reversed(self.path[-8:]))
        return f"{self.reason} (at {where})" if where else self.reason


class OverBudget(NoFingerprint):
    """The budget ran out, or the work was called off."""


class Budget:
    """What fingerprints may cost; one budget can be shared by several calls.

    The clock starts when the budget is made. It is looked at between chunks of 8 MiB and every few hundred nodes.

    Parameters
    ----------
    seconds
        Wall time, or None for any.
    nodes
        Values visited, counting every item of every container.
    bytes
        Bytes hashed.
    threads
        Threads BLAKE3 may use on one buffer. Never automatic: its automatic threads, used before a fork, hang the
        child.

    Examples
    --------
    >>> from jupyter_mlops.fingerprints import fingerprint
    >>> fingerprint([1.0] * 1_000_000, budget=Budget(nodes=1000)).why
    'over the budget of 1,000 nodes'
    """

    __slots__ = ("_cancelled", "bytes", "deadline", "nodes", "nodes_left", "room", "seconds", "threads")

    def __init__(
        self,
        seconds: float | None = None,
        nodes: int | None = None,
        bytes: int | None = None,
        *,
        threads: int = 1,
    ) -> None:
        self.seconds, self.nodes, self.bytes, self.threads = seconds, nodes, bytes, max(1, threads)
        self.deadline = None if seconds is None else perf_counter() + seconds
        self.nodes_left = nodes
        self.room = bytes
        self._cancelled = False

    def cancel(self) -> None:
        """Call the work off, from any thread; it stops at the next chunk."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def left(self) -> float:
        """Seconds left; infinite where no time was set."""
        return float("inf") if self.deadline is None else self.deadline - perf_counter()

    def check(self, nodes: int = 0, size: int = 0) -> None:
        """Spend nodes and bytes, and stop if anything is used up.

        Raises
        ------
        OverBudget
            It is.
        """
        if self._cancelled:
            raise OverBudget("called off")
        if self.deadline is not None and perf_counter() > self.deadline:
            raise OverBudget(f"over the budget of {self.seconds:g} s")
        if self.nodes_left is not None:
            self.nodes_left -= nodes
            if self.nodes_left < 0:
                raise OverBudget(f"over the budget of {self.nodes:,} nodes")
        if self.room is not None:
            self.room -= size
            if self.room < 0:
                raise OverBudget(f"over the budget of {self.bytes:,} bytes")

    def __repr__(self) -> str:
        return f"Budget(seconds={self.seconds}, nodes={self.nodes}, bytes={self.bytes}, threads={self.threads})"


class Node(NamedTuple):
    """A composite value's digest: ``tag:hex`` is its public form."""

    tag: bytes
    raw: bytes

    def inline(self) -> bytes:
        """As written inside another node's pre-image."""
        return b"#" + self.tag + b":" + self.raw

    def digest(self) -> str:
        return f"{self.tag.decode()}:{self.raw.hex()}"


Inline = Callable[[Any], bytes]
Handler = Callable[["Walk", Any], Node]


class Walk:
    """The state of one fingerprint being made."""

    __slots__ = ("_due", "budget", "facts", "known", "lowest", "memo", "nodes", "open", "order", "size", "threads")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.threads = budget.threads
        self.open: dict[int, int] = {}
        self.memo: dict[int, tuple[Any, bytes]] = {}
        self.lowest = DEEPEST + 1
        self.nodes = 0
        self.size = 0
        self._due = 0
        self.facts: dict[str, Any] | None = None
        self.known: Mapping[tuple[int, str, tuple[int, ...]], str] = {}
        """Digests of arrays by address, dtype and shape, for whoever has just read their bytes and verified them."""
        self.order: Any = None

    # -- values --

    def item(self, value: Any) -> bytes:
        """A value as written inside another one's pre-image."""
        self._due += 1
        inline = INLINE.get(id(type(value)))
        if inline is not None:
            return inline(value)
        return self.node(value)

    def node(self, value: Any) -> bytes:
        key = id(value)
        depth = len(self.open)
        up = self.open.get(key)
        if up is not None:
            if up < self.lowest:
                self.lowest = up
            return b"^%d;" % (depth - up)
        known = self.memo.get(key)
        if known is not None:
            return known[1]
        if depth >= DEEPEST:
            raise NoFingerprint(f"nested deeper than {DEEPEST} levels")
        self.spend(1)
        handler = handler_of(value)
        before, outer, self.lowest = self.nodes, self.lowest, DEEPEST + 1
        self.open[key] = depth
        try:
            encoded = handler(self, value).inline()
        finally:
            del self.open[key]
        # what points at something above it means nothing elsewhere, so it is not remembered
        if self.nodes - before >= _SHARED and self.lowest >= depth:
            self.memo[key] = (value, encoded)
        self.lowest = min(outer, self.lowest if self.lowest < depth else DEEPEST + 1)
        return encoded

    def at(self, place: str, value: Any) -> bytes:
        """`item`, with the place in the reason should there be none."""
        try:
            return self.item(value)
        except NoFingerprint as stop:
            stop.path.append(place)
            raise

    @property
    def top(self) -> bool:
        """Whether the node being written is the value that was asked about, not a part of it."""
        return len(self.open) == 1

    # -- cost --

    def pending(self) -> int:
        """Nodes counted and not yet held against the budget."""
        due, self._due = self._due, 0
        return due

    def spend(self, nodes: int, size: int = 0) -> None:
        """Count nodes and bytes; look at the budget when enough have come together."""
        self.size += size
        self._due += nodes
        if self._due >= _STRIDE or size:
            due, self._due = self._due, 0
            self.nodes += due
            self.budget.check(due, size)
        else:
            self.nodes += nodes

    def hasher(self) -> Any:
        return blake3(max_threads=self.threads)

    def feed(self, hasher: Any, data: Any) -> None:
        """Hash a contiguous buffer, chunk by chunk; BLAKE3 lets other threads run meanwhile."""
        view = memoryview(data).cast("B") if type(data) is not bytes else memoryview(data)
        size = len(view)
        if size <= CHUNK:
            self.spend(0, size)
            hasher.update(view)
            return
        for start in range(0, size, CHUNK):
            part = view[start : start + CHUNK]
            self.spend(0, len(part))
            hasher.update(part)


def finish(tag: bytes, hasher: Any) -> Node:
    """The node of a hasher's state."""
    return Node(tag, hasher.digest())


def seal(tag: bytes, kind: bytes, *parts: bytes) -> Node:
    """The node of a pre-image that is at hand: tag, kind, parts."""
    return Node(tag, blake3(b"%b\0%b\0" % (tag, kind) + b"".join(parts)).digest())


def begin(walk: Walk, tag: bytes, kind: bytes) -> Any:
    """A hasher that has taken the tag and the kind."""
    hasher = walk.hasher()
    hasher.update(b"%b\0%b\0" % (tag, kind))
    return hasher


def text(value: str) -> bytes:
    """A text as written inline: its length in bytes, then UTF-8 with surrogates let through."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(raw), raw)


def count(value: int) -> bytes:
    """A count as written: decimal, closed by a semicolon."""
    return b"%d;" % value


# -- types -------------------------------------------------------------------------------------------------------------

INLINE: Final[dict[int, Inline]] = {}
"""Scalars, by the id of their exact type; the types are builtin and live as long as the process."""
HANDLERS: Final[dict[int, tuple[type, Handler]]] = {}
"""Nodes, by the id of their exact type, with the type held so that its id stays its own."""
REFUSED: Final[dict[int, tuple[type, str]]] = {}
"""Exact types that never have a fingerprint, with the reason."""
LIBRARIES: Final[dict[str, str]] = {
    "numpy": "arrays", "scipy": "arrays", "pandas": "frames", "geopandas": "frames", "pyarrow": "arrow",
    "polars": "polar", "sklearn": "models", "_loss": "models", "torch": "tensors",
}  # fmt: skip
"""Which of our modules knows a library's types."""
PROVIDED: Final[dict[int, tuple[type, Handler]]] = {}
"""What providers of other packages have brought, by exact type."""
_lock = threading.Lock()


def name_of(kind: type) -> str:
    """A type's qualified name, without asking its metaclass.

    >>> name_of(dict), name_of(threading.Thread)
    ('dict', 'threading.Thread')
    """
    try:
        module, qualname = module_of_type(kind), qualname_of_type(kind)
    except AttributeError:  # the class deleted its own __module__
        module, qualname = "?", qualname_of_type(kind)
    if type(module) is not str:
        module = "?"
    return qualname if module == "builtins" else f"{module}.{qualname}"


def derives(kind: type, base: type) -> bool:
    """Whether a class has a base, found by identity: ``in`` would ask the classes' own metaclass for equality."""
    return any(one is base for one in mro_of(kind))


def loaded(module: str, qualname: str) -> Any:
    """What a loaded module holds under a name, or None: never an import, never a module's ``__getattr__``."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if isinstance_exact_module(found):
            found = module_dict(found).get(part)
        elif type(found) is type:
            found = dict_of_type(found).get(part)
        else:
            return None
    return found


def isinstance_exact_module(found: Any) -> bool:
    """Whether this is a module (or a subclass made of one) whose own dictionary can be read past any override."""
    return derives(type(found), ModuleType)


def handler_of(value: Any) -> Handler:
    """The handler for a value's exact type.

    Raises
    ------
    NoFingerprint
        Nobody knows the type.
    """
    kind = type(value)
    entry = HANDLERS.get(id(kind))
    if entry is not None and entry[0] is kind:
        return entry[1]
    entry = PROVIDED.get(id(kind))
    if entry is not None and entry[0] is kind:
        return entry[1]
    refused = REFUSED.get(id(kind))
    if refused is not None and refused[0] is kind:
        raise NoFingerprint(refused[1])
    try:
        module = module_of_type(kind)
    except AttributeError:
        module = None
    if type(module) is str:
        ours = LIBRARIES.get(module.partition(".")[0])
        if ours is not None and _known_metaclass(type(kind)):
            found = _library(ours).handler_for(kind, module, qualname_of_type(kind))
            if found is not None:
                HANDLERS[id(kind)] = (kind, found)
                return found  # type: ignore[no-any-return]
    from jupyter_mlops.fingerprints import instances

    return instances.handler_for(kind)


def _known_metaclass(meta: type) -> bool:
    """Whether asking a class (is it this one? what are its bases?) runs nobody's code but its library's."""
    if meta is type or meta is abc.ABCMeta or not flags_of_type(meta) & HEAP:
        return True
    module = module_of_type(meta)
    return (
        type(module) is str and module.partition(".")[0] in LIBRARIES and loaded(module, qualname_of_type(meta)) is meta
    )


def _library(name: str) -> Any:
    return importlib.import_module(f"jupyter_mlops.fingerprints.{name}")
