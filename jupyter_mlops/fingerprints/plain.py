"""Plain values and containers: numbers, texts, times, lists, dicts, and the small types of the standard library.

Types that Python itself confuses are told apart: ``1``, ``True``, ``1.0`` and ``"1"`` have four digests, a list is no
tuple. The order of a dict and of a set is how it is laid out, not what it holds: entries are sorted by what they are
written as, and the order found is told as a fact.
"""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import functools
import io
import itertools
import operator
import pathlib
import re
import struct
import sys
import types
import uuid
import zoneinfo
from collections.abc import Iterable, Sequence
from typing import Any, Final

from jupyter_mlops.fingerprints.ordering import in_order
from jupyter_mlops.fingerprints.sharing import immutable
from jupyter_mlops.fingerprints.walk import (
    HANDLERS,
    INLINE,
    Node,
    NoFingerprint,
    Walk,
    begin,
    count,
    finish,
    name_of,
    seal,
    text,
)  # fmt: skip

TAG: Final = b"value-1"
_BLOCK: Final = 1 << 16
_PIECE: Final = 1 << 15
_PACK: Final = 8
_INT, _FLOAT, _STR, _BOOL = id(int), id(float), id(str), id(bool)
_double = struct.Struct("<d").pack
_doubles = struct.Struct("<dd").pack


# -- scalars -----------------------------------------------------------------------------------------------------------


def _bytes(value: bytes) -> bytes:
    return b"b%d:%b" % (len(value), value)


INLINE.update({
    id(type(None)): lambda _: b"N",
    id(bool): lambda value: b"T" if value else b"F",
    id(int): lambda value: b"i%x;" % value,
    id(float): lambda value: b"f" + _double(value),
    id(complex): lambda value: b"c" + _doubles(value.real, value.imag),
    id(str): text,
    id(bytes): _bytes,
    id(type(...)): lambda _: b"E",
    id(type(NotImplemented)): lambda _: b"n",
})  # fmt: skip


# -- sequences ---------------------------------------------------------------------------------------------------------


def sequence(walk: Walk, hasher: Any, items: Sequence[Any]) -> None:
    """Write items in order, in blocks of 65,536: a block of only floats, small ints, bools or texts is packed.

    `items` is an exact list or tuple; slicing it runs nobody's code.
    """
    total = len(items)
    hasher.update(count(total))
    for start in range(0, total, _BLOCK):
        block = items if total <= _BLOCK else items[start : start + _BLOCK]
        if len(block) >= _PACK:
            kinds = set(map(id, map(type, block)))
            packed = _packed(kinds.pop(), block) if len(kinds) == 1 else None
            if packed is not None:
                walk.spend(len(block), len(packed))
                hasher.update(packed)
                continue
        one_by_one(walk, hasher, block, start)


def _packed(kind: int, block: Sequence[Any]) -> bytes | None:
    if kind == _FLOAT:
        return b"D%d;" % len(block) + _little(array.array("d", block))
    if kind == _INT:
        try:
            return b"I%d;" % len(block) + _little(array.array("q", block))
        except OverflowError:  # beyond 64 bits: written one by one
            return None
    if kind == _STR:
        joined = "\0".join(block)
        if joined.count("\0") != len(block) - 1:
            return None
        raw = joined.encode("utf-8", "surrogatepass")
        return b"S%d;%d:%b" % (len(block), len(raw), raw)
    if kind == _BOOL:
        return b"B%d;%b" % (len(block), bytes(block))
    return None


def _little(values: array.array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def one_by_one(walk: Walk, hasher: Any, block: Iterable[Any], start: int) -> None:
    """Write items one after the other, each inline; `start` is the first one's place, for the reason."""
    item = walk.item
    parts: list[bytes] = []
    size = 0
    index = start
    try:
        for index, value in enumerate(block, start):  # noqa: B007 - the handler below tells it
            encoded = item(value)
            parts.append(encoded)
            size += len(encoded)
            if len(parts) >= 512:
                walk.spend(0, size)
                hasher.update(b"".join(parts))
                parts, size = [], 0
    except NoFingerprint as stop:
        stop.path.append(f"[{index}]")
        raise
    walk.spend(0, size)
    hasher.update(b"".join(parts))


def _listing(kind: bytes) -> Any:
    def handler(walk: Walk, value: Any) -> Node:
        hasher = begin(walk, TAG, kind)
        sequence(walk, hasher, value)
        if walk.top:
            walk.facts = {"length": len(value)}
        return finish(TAG, hasher)

    return handler


# -- mappings and sets -------------------------------------------------------------------------------------------------


def place(key: Any) -> str:
    """How a key is named in a reason: names are said, anything longer or odder is not."""
    if type(key) is str and len(key) <= 40 and key.isidentifier():
        return f"[{key!r}]"
    return f"[{key}]" if type(key) is int and -(10**9) < key < 10**9 else "[…]"


def mapping(walk: Walk, hasher: Any, value: dict[Any, Any]) -> bool:
    """Write a dict's entries, sorted by their written keys; True if they were not already in that order."""
    hasher.update(count(len(value)))
    item = walk.item
    entries: list[tuple[bytes, bytes]] = []
    key: Any = None
    try:
        for key, inner in list(value.items()):
            entries.append((item(key), item(inner)))
            walk.spend(0)
    except NoFingerprint as stop:
        stop.path.append(place(key))
        raise
    ordered = in_order(entries, walk.budget.check)
    for start in range(0, len(ordered), 512):
        raw = b"".join([part for entry in ordered[start : start + 512] for part in entry])
        walk.spend(0, len(raw))
        hasher.update(raw)
    moved = ordered != entries
    if moved:
        note_order(walk, (key for key, _ in entries))
    return moved


def note_order(walk: Walk, keys: Iterable[bytes]) -> None:
    """Take the order of a dict or set that is not the sorted one into the fact of the layout."""
    if walk.order is None:
        walk.order = walk.hasher()
    keys = iter(keys)
    while some := list(itertools.islice(keys, _PIECE)):
        walk.budget.check()
        walk.order.update(b"".join(some))


def _dict(walk: Walk, value: dict[Any, Any]) -> Node:
    hasher = begin(walk, TAG, b"dict")
    mapping(walk, hasher, value)
    if walk.top:
        walk.facts = {"length": len(value)}
    return finish(TAG, hasher)


def _setting(kind: bytes) -> Any:
    def handler(walk: Walk, value: Any) -> Node:
        hasher = begin(walk, TAG, kind)
        hasher.update(count(len(value)))
        found = []
        for one in list(value):
            found.append(walk.item(one))
            walk.spend(0)
        ordered = in_order(found, walk.budget.check)
        if ordered != found:
            note_order(walk, found)
        for start in range(0, len(ordered), _PIECE):
            raw = b"".join(ordered[start : start + _PIECE])
            walk.spend(0, len(raw))
            hasher.update(raw)
        if walk.top:
            walk.facts = {"length": len(value)}
        return finish(TAG, hasher)

    return handler


def _ordered(walk: Walk, value: Any) -> Node:
    """An OrderedDict: there the order is content, since two that differ in it are not equal."""
    hasher = begin(walk, TAG, b"ordereddict")
    if not all(map(immutable, dict.keys(value))):  # going through it looks every key up: that would run theirs
        raise NoFingerprint("an OrderedDict whose keys are not plain")
    entries = [part for entry in list(collections.OrderedDict.items(value)) for part in entry]
    sequence(walk, hasher, entries)
    hasher.update(_state(walk, value))
    return finish(TAG, hasher)


def _defaultdict(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, TAG, b"defaultdict")
    hasher.update(walk.at(".default_factory", value.default_factory))
    mapping(walk, hasher, value)
    return finish(TAG, hasher)


def _counter(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, TAG, b"counter")
    mapping(walk, hasher, value)
    hasher.update(_state(walk, value))
    return finish(TAG, hasher)


def _deque(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, TAG, b"deque")
    hasher.update(walk.item(value.maxlen))
    sequence(walk, hasher, list(value))
    return finish(TAG, hasher)


def _chainmap(walk: Walk, value: Any) -> Node:
    return seal(TAG, b"chainmap", walk.at(".maps", value.maps))


def _state(walk: Walk, value: Any) -> bytes:
    """Attributes set on an instance of a builtin type that allows them; nothing where there are none."""
    state = object.__getattribute__(value, "__dict__")
    return walk.at(".__dict__", state) if state else b"N"


# -- small types of the standard library -------------------------------------------------------------------------------


def _zone(walk: Walk, zone: Any) -> bytes:
    return b"N" if zone is None else walk.at(".tzinfo", zone)


def _datetime(walk: Walk, value: dt.datetime) -> Node:
    plain = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold)
    return seal(TAG, b"datetime", b"%d,%d,%d,%d,%d,%d,%d,%d;" % plain, _zone(walk, value.tzinfo))


def _time(walk: Walk, value: dt.time) -> Node:
    plain = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return seal(TAG, b"time", b"%d,%d,%d,%d,%d;" % plain, _zone(walk, value.tzinfo))


def _zoneinfo(_walk: Walk, value: Any) -> Node:
    if value.key is None:
        raise NoFingerprint("a time zone read from a nameless file")
    return seal(TAG, b"zoneinfo", text(value.key))


def _partial(walk: Walk, value: Any) -> Node:
    return seal(
        TAG,
        b"partial",
        walk.at(".func", value.func),
        walk.at(".args", value.args),
        walk.at(".keywords", value.keywords),
    )


def _getter(walk: Walk, value: Any) -> Node:
    return seal(TAG, type(value).__name__.encode(), walk.item(value.__reduce__()[1]))


def _namespace(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, TAG, b"simplenamespace")
    mapping(walk, hasher, object.__getattribute__(value, "__dict__"))
    return finish(TAG, hasher)


def _array(walk: Walk, value: array.array[Any]) -> Node:
    if value.typecode in "uw":
        return seal(TAG, b"array", text("w"), text(value.tounicode()))
    if sys.byteorder == "big":
        value = value[:]
        value.byteswap()
    hasher = begin(walk, TAG, b"array")
    hasher.update(
        text(f"{'f' if value.typecode in 'fd' else 'u' if value.typecode.isupper() else 'i'}{value.itemsize}")
    )
    hasher.update(count(len(value)))
    walk.feed(hasher, value)
    return finish(TAG, hasher)


def _bytearray(walk: Walk, value: bytearray) -> Node:
    hasher = begin(walk, TAG, b"bytearray")
    walk.feed(hasher, value)
    return finish(TAG, hasher)


def _memoryview(walk: Walk, value: memoryview) -> Node:
    """By its format, shape and items in C order: strides are layout."""
    hasher = begin(walk, TAG, b"memoryview")
    hasher.update(text(value.format) + b"".join(map(count, value.shape or ())) + b".")
    if value.c_contiguous:
        walk.feed(hasher, value.cast("B") if value.nbytes else b"")
    else:
        walk.feed(hasher, value.tobytes())
    return finish(TAG, hasher)


def _regex(walk: Walk, value: re.Pattern[Any]) -> Node:
    return seal(TAG, b"pattern", walk.item(value.pattern), count(value.flags))


def _simple(kind: bytes, write: Any) -> Any:
    return lambda _walk, value: seal(TAG, kind, write(value))


def _pure_path(value: Any) -> bytes:
    return text(str(value))


def _register() -> None:
    table: dict[type, Any] = {
        list: _listing(b"list"),
        tuple: _listing(b"tuple"),
        dict: _dict,
        set: _setting(b"set"),
        frozenset: _setting(b"frozenset"),
        collections.OrderedDict: _ordered,
        collections.defaultdict: _defaultdict,
        collections.Counter: _counter,
        collections.deque: _deque,
        collections.ChainMap: _chainmap,
        collections.UserDict: lambda walk, value: seal(TAG, b"userdict", walk.at(".data", value.data)),
        collections.UserList: lambda walk, value: seal(TAG, b"userlist", walk.at(".data", value.data)),
        collections.UserString: lambda walk, value: seal(TAG, b"userstring", walk.at(".data", value.data)),
        types.SimpleNamespace: _namespace,
        types.MappingProxyType: _mappingproxy,
        bytearray: _bytearray,
        memoryview: _memoryview,
        array.array: _array,
        range: lambda walk, value: seal(TAG, b"range", *map(walk.item, (value.start, value.stop, value.step))),
        slice: lambda walk, value: seal(TAG, b"slice", *map(walk.item, (value.start, value.stop, value.step))),
        dt.datetime: _datetime,
        dt.time: _time,
        dt.date: _simple(b"date", lambda value: b"%d,%d,%d;" % (value.year, value.month, value.day)),
        dt.timedelta: _simple(
            b"timedelta", lambda value: b"%d,%d,%d;" % (value.days, value.seconds, value.microseconds)
        ),
        dt.timezone: lambda walk, value: seal(
            TAG, b"timezone", walk.item(value.utcoffset(None)), text(value.tzname(None))
        ),
        zoneinfo.ZoneInfo: _zoneinfo,
        decimal.Decimal: lambda _walk, value: seal(TAG, b"decimal", text(str(value))),
        fractions.Fraction: lambda walk, value: seal(
            TAG, b"fraction", walk.item(value.numerator), walk.item(value.denominator)
        ),
        uuid.UUID: _simple(b"uuid", lambda value: value.bytes),
        pathlib.PosixPath: _simple(b"posixpath", _pure_path),
        pathlib.WindowsPath: _simple(b"windowspath", _pure_path),
        pathlib.PurePosixPath: _simple(b"pureposixpath", _pure_path),
        pathlib.PureWindowsPath: _simple(b"purewindowspath", _pure_path),
        re.Pattern: _regex,
        functools.partial: _partial,
        io.BytesIO: lambda walk, value: seal(TAG, b"bytesio", walk.item(value.getvalue()), count(value.tell())),
        io.StringIO: lambda walk, value: seal(TAG, b"stringio", walk.item(value.getvalue()), count(value.tell())),
        operator.itemgetter: _getter,
        operator.attrgetter: _getter,
        operator.methodcaller: _getter,
        types.GenericAlias: lambda walk, value: seal(
            TAG, b"alias", walk.item(value.__origin__), walk.item(value.__args__)
        ),
        types.UnionType: lambda walk, value: seal(TAG, b"union", *sorted(map(walk.item, value.__args__))),
    }
    HANDLERS.update((id(kind), (kind, handler)) for kind, handler in table.items())


def _mappingproxy(_walk: Walk, value: Any) -> Node:
    # The mapping behind a proxy can be anyone's; only copying it would tell, and that would run its code.
    raise NoFingerprint(f"a {name_of(type(value))} hides what it stands for")


_register()
