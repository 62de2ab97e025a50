"""What a value holds on to: the objects through which it could be changed, and the names its functions use.

Two variables share when they hold on to one object: a list in a dict, an array and a view of it, a default argument, an
attribute. Objects are followed by Python's own garbage collector (`gc.get_referents`), which calls no code of theirs;
what it cannot see, the buffer under an array or a frame, `fingerprints.buffers` knows. The indexes of tables stand
apart: parts of one table share them though no data, and are seldom changed through it.
"""

from __future__ import annotations

import array
import dis
import functools
import gc
import time
import types
import weakref
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from jupyter_mlops.fingerprints import Stretch, axes, holdings, immutable, notes
from jupyter_mlops.fingerprints.instances import made_in_python
from jupyter_mlops.fingerprints.sharing import PLAIN, lies_over_memory
from jupyter_mlops.fingerprints.walk import derives, loaded


class Reach(NamedTuple):
    """What a value holds on to.

    Attributes
    ----------
    objects
        Identities of the mutable objects and root buffers, the value itself among them.
    loads, stores
        Names of the notebook that its functions look up and bind.
    complete
        False where it holds more objects than were followed.
    axes
        The indexes of its tables, by identity, and those it holds by themselves.
    sealed
        Of `objects`, the memory that only an index leads to.
    owned, lent, frozen
        Its stretches of memory, as `fingerprints.holdings` has them.
    """

    objects: frozenset[int]
    loads: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    complete: bool = True
    axes: Mapping[int, weakref.ref[Any]] = types.MappingProxyType({})
    sealed: frozenset[int] = frozenset()
    owned: frozenset[Stretch] = frozenset()
    lent: frozenset[Stretch] = frozenset()
    frozen: frozenset[Stretch] = frozenset()


NOWHERE: Final = Reach(frozenset())
_NODES: Final = 5_000
_ITEMS: Final = 200_000
_SCALARS: Final = frozenset({
    int, float, str, bytes, bool, complex, type(None), range, type(Ellipsis), type(NotImplemented), types.ModuleType,
    types.CodeType, types.WrapperDescriptorType, types.MethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.ClassMethodDescriptorType, weakref.ref,
    types.TracebackType, types.FrameType,
})  # fmt: skip
_SEQUENCES: Final = frozenset({list, tuple, set, frozenset})
_dict_of_type: Final = type.__dict__["__dict__"].__get__
_module_of_type: Final = type.__dict__["__module__"].__get__
_BYTES: Final = frozenset({bytearray, memoryview, array.array})
_MOMENTS: Final = frozenset({"Timestamp", "Timedelta", "Period", "Interval"})
_PATIENCE: Final = 0.05  # seconds for the types of what arrays of objects hold
_LIBRARIES: Final = frozenset({"numpy", "pandas", "polars", "pyarrow", "scipy", "torch"})
_mro_of_type: Final = type.__dict__["__mro__"].__get__


def reach(value: object, user_ns: dict[str, Any], *, nodes: int = _NODES) -> Reach:
    """Follow what a value holds on to, without calling into it.

    Parameters
    ----------
    value
        Any object.
    user_ns
        The notebook's variables: functions that use them as their globals are the user's own.
    nodes
        How many objects are followed.
    """
    kind = type(value)
    if kind in _SCALARS or immutable(value):
        return NOWHERE
    if _is_library(value, user_ns):
        return NOWHERE
    walk = _Walk(user_ns, nodes)
    walk.follow(value)
    return Reach(
        frozenset(walk.objects | walk.sealed), frozenset(walk.loads), frozenset(walk.stores), walk.complete, walk.axes,
        frozenset(walk.sealed - walk.objects), frozenset(walk.owned), frozenset(walk.lent), frozenset(walk.frozen),
    )  # fmt: skip


def codes(value: object, user_ns: dict[str, Any]) -> list[types.CodeType]:
    """The code of the notebook's functions that can be got at through a value: its own, its class's, its parts'."""
    if type(value) in _SCALARS or immutable(value) or _is_library(value, user_ns):
        return []
    walk = _Walk(user_ns, _ITEMS)
    walk.follow(value)
    return list(walk.codes)


def _is_library(value: Any, user_ns: dict[str, Any]) -> bool:
    """Functions and classes that were not written in the notebook: shared by all, changed by nobody."""
    kind = type(value)
    if kind is types.FunctionType:
        return value.__globals__ is not user_ns
    if kind is types.BuiltinFunctionType:
        return value.__self__ is None or type(value.__self__) is types.ModuleType
    return isinstance_of_type(value) and not _is_users_class(value, user_ns)


def isinstance_of_type(value: object) -> bool:
    """Whether a value is a class, judged by its type alone: `isinstance` would ask the value for its ``__class__``."""
    kind = type(value)
    return kind is type or type in _mro_of_type(kind)


def _is_users_class(value: Any, user_ns: dict[str, Any]) -> bool:
    return _dict_of_type(value).get("__module__") in ("__main__", user_ns.get("__name__", "__main__"))


class _Walk:
    def __init__(self, user_ns: dict[str, Any], nodes: int) -> None:
        self.user_ns = user_ns
        self.nodes = nodes
        self.objects: set[int] = set()
        self.loads: set[str] = set()
        self.stores: set[str] = set()
        self.codes: set[types.CodeType] = set()
        self.complete = True
        self.axes: dict[int, weakref.ref[Any]] = {}
        self.sealed: set[int] = set()
        self.owned: set[Stretch] = set()
        self.lent: set[Stretch] = set()
        self.frozen: set[Stretch] = set()
        self.until = time.monotonic() + _PATIENCE if nodes <= _NODES else None

    def follow(self, value: object) -> None:
        queue: list[Any] = [value]
        # The walk itself must not be found: its list refers to everything it has still to see.
        seen: set[int] = set()
        left = self.nodes
        while queue:
            one = queue.pop()
            kind = type(one)
            if kind in _SCALARS or id(one) in seen or one is self.user_ns:
                continue
            left -= 1
            if left < 0:
                self.complete = False
                break
            if kind in _SEQUENCES:
                seen.add(id(one))
                self.items(one, queue)
            elif kind is dict:
                seen.add(id(one))
                self.items(one.values(), queue, len(one))
            elif kind is types.FunctionType:
                if one.__globals__ is self.user_ns:
                    seen.add(id(one))
                    self.function(one, queue)
            elif isinstance_of_type(one):
                if _is_users_class(one, self.user_ns):
                    seen.add(id(one))
                    self.class_(one, queue)
            elif kind is types.BuiltinFunctionType:
                queue.append(one.__self__)
            elif not immutable(one):
                seen.add(id(one))
                self.other(one, kind, queue)
        self.objects |= seen

    def items(self, items: Any, queue: list[Any], size: int | None = None) -> None:
        size = len(items) if size is None else size
        if size > max(_ITEMS, self.nodes):
            self.complete = self.complete and _all_scalars(items)
            return
        if size > 8 and _all_scalars(items):
            return
        try:
            queue.extend(items)
        except RuntimeError:
            self.complete = False  # a thread changed it meanwhile

    def function(self, one: types.FunctionType, queue: list[Any]) -> None:
        loads, stores = global_names(one.__code__)
        self.codes.add(one.__code__)
        self.loads |= loads
        self.stores |= stores
        queue.extend(one.__defaults__ or ())
        queue.extend((one.__kwdefaults__ or {}).values())
        queue.extend(one.__closure__ or ())
        queue.append(one.__dict__)

    def class_(self, one: type, queue: list[Any]) -> None:
        for base in _mro_of_type(one):
            if _is_users_class(base, self.user_ns):
                self.objects.add(id(base))
                queue.extend(list(_dict_of_type(base).values()))

    def other(self, one: Any, kind: type, queue: list[Any]) -> None:
        root = str(_module_of_type(kind)).partition(".")[0]
        if root in _LIBRARIES or kind in _BYTES or lies_over_memory(kind):
            if kind.__name__.endswith(("Dtype", "DType")) and kind.__name__ != "CategoricalDtype":
                return  # one object for all columns of that type, and none of theirs to change
            held = holdings(one)
            indexes = axes(one) if root == "pandas" else []
            self.axes.update((id(index), weakref.ref(index)) for index in indexes)
            if indexes and indexes[0] is one:
                self.sealed |= held.objects
            else:
                self.objects |= held.objects
            self.owned |= held.owned
            self.lent |= held.lent
            self.frozen |= held.frozen
            for array in held.arrays:
                self.array(array, queue)
            if root == "pandas":
                queue.extend(notes(one).values())
            if root in _LIBRARIES and (len(held.objects) > 1 or held.frozen or lies_over_memory(kind)):
                return  # its memory is known; the rest are caches and types that all such values have in common
        if _is_users_class(kind, self.user_ns):
            queue.append(kind)
        queue.extend(gc.get_referents(one))

    def array(self, array: Any, queue: list[Any]) -> None:
        """The items of an array of objects: mostly texts, of which only the type is asked for."""
        items = array.ravel(order="K")
        for start in range(0, len(items), _ITEMS):
            if self.until is not None and start and time.monotonic() > self.until:
                self.complete = False
                return
            piece = items[start : start + _ITEMS]
            kinds = {kind for kind in set(map(type, piece)) if not _holds_nothing(kind)}
            if kinds:
                queue.extend(one for one in piece if type(one) in kinds)


def _holds_nothing(kind: type) -> bool:
    """Whether values of a type hold on to nothing that could change."""
    if kind in _SCALARS or id(kind) in PLAIN:
        return True
    module = _module_of_type(kind)
    root = module.partition(".")[0] if type(module) is str else ""
    if root == "numpy":
        generic, void = loaded("numpy", "generic"), loaded("numpy", "void")
        return generic is not None and derives(kind, generic) and not derives(kind, void)
    return root == "pandas" and kind.__name__ in _MOMENTS and loaded("pandas", kind.__name__) is kind


def _all_scalars(items: Any) -> bool:
    try:
        return _SCALARS.issuperset(set(map(type, items)))
    except RuntimeError:
        return False  # a thread changed it meanwhile


_GLOBALS: Final = {"LOAD_GLOBAL": True, "LOAD_NAME": True, "STORE_GLOBAL": False, "DELETE_GLOBAL": False}


@functools.lru_cache(maxsize=4096)
def global_names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a function's code, and the functions in it, look up and bind as globals."""
    loads: set[str] = set()
    stores: set[str] = set()
    for step in dis.get_instructions(code):
        is_load = _GLOBALS.get(step.opname)
        if is_load is not None:
            (loads if is_load else stores).add(step.argval)
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            inner = global_names(constant)
            loads |= inner[0]
            stores |= inner[1]
    return frozenset(loads), frozenset(stores)


def own_state(value: object, user_ns: dict[str, Any]) -> object:
    """What a value that holds functions of the user is made of, without the globals that these functions use.

    A function's fingerprint tells what its globals are; whether *it* changed is another question. Functions stand as
    the identity of their code, with what they hold; instances and classes as what hangs on them.
    """
    return _project(value, user_ns, 8, set())


def _project(value: Any, user_ns: dict[str, Any], depth: int, seen: set[int]) -> Any:
    kind = type(value)
    if kind in _SCALARS or immutable(value):
        return value if kind is not types.ModuleType else id(value)
    if not depth:
        return id(value)
    deeper = depth - 1
    if kind is types.FunctionType:
        if value.__globals__ is not user_ns:
            return id(value)
        held = [_content(cell) for cell in value.__closure__ or ()]
        parts = [id(value.__code__), value.__defaults__, value.__kwdefaults__, held, value.__dict__]
        return [_project(part, user_ns, deeper, seen) for part in parts]
    if kind in (list, tuple) and len(value) <= _NODES:
        return [_project(item, user_ns, deeper, seen) for item in value]
    if kind is dict and len(value) <= _NODES:
        return [
            (_project(key, user_ns, deeper, seen), _project(item, user_ns, deeper, seen))
            for key, item in list(value.items())
        ]
    if isinstance_of_type(value):
        if not _is_users_class(value, user_ns):
            return id(value)
        return [
            _class_state(base, user_ns, deeper, seen) for base in _mro_of_type(value) if _is_users_class(base, user_ns)
        ]
    if _is_users_class(kind, user_ns) and "__dict__" in _dict_of_type(_root(kind)):
        state = _dict_of_type(_root(kind))["__dict__"]
        if type(state) is types.GetSetDescriptorType and made_in_python(_root(kind)):
            return [_project(kind, user_ns, deeper, seen), _project(state.__get__(value), user_ns, deeper, seen)]
    return value


def _class_state(base: type, user_ns: dict[str, Any], depth: int, seen: set[int]) -> object:
    """A class of the user: which it is, and what hangs on it; once, since each of its methods may hold it again."""
    if id(base) in seen:
        return id(base)
    seen.add(id(base))
    names = dict(_dict_of_type(base))
    return [
        id(base),
        *((key, _project(names[key], user_ns, depth, seen)) for key in names if type(key) is str and key[:2] != "__"),
    ]


def _root(kind: type) -> type:
    """The first class, from the top, that gives its instances attributes."""
    base: type
    for base in reversed(_mro_of_type(kind)):
        if "__dict__" in _dict_of_type(base) and base is not type:
            return base
    return kind


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not assigned yet
