"""Containers, and the small types of the standard library: how each is written, and made again."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import functools
import io
import operator
import pathlib
import random
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Final, cast

from jupyter_mlops.fingerprints.sharing import immutable
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import KEEPERS, Keeper, Keeping
from jupyter_mlops.values.manifest import ManifestRefused, NotKept


def _keeps(*kinds: type) -> Callable[[Any], Any]:
    def register(keeper: Keeper) -> Keeper:
        KEEPERS.update((id(kind), (kind, keeper)) for kind in kinds)
        return keeper

    return register


# -- containers --------------------------------------------------------------------------------------------------------


@_keeps(list)
def _keep_list(keep: Keeping, value: list[Any]) -> list[Any]:
    return ["list", keep.items(value)]


@maker("list")
def _list(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: list[Any] = bring.early(number, [])
    bring.later(lambda: shell.extend(bring.items(node[1])))
    return shell


@_keeps(tuple)
def _keep_tuple(keep: Keeping, value: tuple[Any, ...]) -> list[Any]:
    return ["tuple", keep.items(value)]


@maker("tuple")
def _tuple(bring: Bringing, node: list[Any], _number: int) -> Any:
    return tuple(bring.items(node[1]))


def keep_entries(keep: Keeping, entries: list[tuple[Any, Any]]) -> list[Any]:
    """A mapping's keys and values, in order: two operands of `items`."""
    keys = [key for key, _ in entries]
    for key, value in entries:
        if type(key) is str and keep.secret(key, value):
            raise NotKept("it holds a secret")
    for key in keys:
        keep.key(key)
    return [keep.items(keys), keep.items([value for _, value in entries])]


def entries_of(bring: Bringing, node: list[Any], start: int = 1) -> zip[tuple[Any, Any]]:
    """What `keep_entries` wrote."""
    return zip(bring.keys(node[start]), bring.items(node[start + 1]), strict=True)


@_keeps(dict)
def _keep_dict(keep: Keeping, value: dict[Any, Any]) -> list[Any]:
    return ["dict", *keep_entries(keep, list(value.items()))]


@maker("dict")
def _dict(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: dict[Any, Any] = bring.early(number, {})
    bring.later(lambda: shell.update(entries_of(bring, node)))
    return shell


@_keeps(set, frozenset)
def _keep_set(keep: Keeping, value: Any) -> list[Any]:
    found = list(value)
    for one in found:
        keep.key(one)
    return [type(value).__name__, keep.items(found)]


@maker("set")
def _set(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: set[Any] = bring.early(number, set())
    bring.later(lambda: shell.update(bring.keys(node[1])))
    return shell


@maker("frozenset")
def _frozenset(bring: Bringing, node: list[Any], _number: int) -> Any:
    return frozenset(bring.keys(node[1]))


def _state(keep: Keeping, value: Any) -> Any:
    """Attributes set on an instance of a builtin type that allows them."""
    state = object.__getattribute__(value, "__dict__")
    return keep.operand(state) if state else None


def _give_state(bring: Bringing, value: Any, raw: Any) -> None:
    if raw is not None:
        state = bring.operand(raw)
        if type(state) is not dict:
            raise ManifestRefused("a kept value is refused", cause="its attributes are none")
        bring.later(lambda: object.__getattribute__(value, "__dict__").update(state))


@_keeps(collections.OrderedDict)
def _keep_ordered(keep: Keeping, value: Any) -> list[Any]:
    if not all(map(immutable, dict.keys(value))):  # going through it looks every key up
        raise NotKept("an OrderedDict whose keys are not plain")
    entries = list(collections.OrderedDict.items(value))
    return ["ordered", *keep_entries(keep, entries), _state(keep, value)]


@maker("ordered")
def _ordered(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: Any = bring.early(number, collections.OrderedDict())
    bring.later(lambda: shell.update(entries_of(bring, node)))
    _give_state(bring, shell, node[3])
    return shell


@_keeps(collections.Counter)
def _keep_counter(keep: Keeping, value: Any) -> list[Any]:
    return ["counter", *keep_entries(keep, list(dict.items(value))), _state(keep, value)]


@maker("counter")
def _counter(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: Any = bring.early(number, collections.Counter())
    bring.later(lambda: dict.update(shell, entries_of(bring, node)))
    _give_state(bring, shell, node[3])
    return shell


@_keeps(collections.defaultdict)
def _keep_default(keep: Keeping, value: Any) -> list[Any]:
    return ["default", *keep_entries(keep, list(dict.items(value))), keep.operand(value.default_factory)]


@maker("default")
def _default(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: Any = bring.early(number, collections.defaultdict())

    def fill() -> None:
        factory = bring.operand(node[3])
        if factory is not None and not callable(factory):
            raise ManifestRefused("a kept value is refused", cause="its default_factory is none")
        shell.default_factory = factory
        dict.update(shell, entries_of(bring, node))

    bring.later(fill)
    return shell


@_keeps(collections.deque)
def _keep_deque(keep: Keeping, value: Any) -> list[Any]:
    return ["deque", keep.items(list(value)), value.maxlen]


@maker("deque")
def _deque(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: Any = bring.early(number, collections.deque(maxlen=node[2]))
    bring.later(lambda: shell.extend(bring.items(node[1])))
    return shell


@_keeps(collections.ChainMap)
def _keep_chain(keep: Keeping, value: Any) -> list[Any]:
    return ["chain", keep.operand(value.maps)]


@maker("chain")
def _chain(bring: Bringing, node: list[Any], number: int) -> Any:
    shell: Any = bring.early(number, collections.ChainMap())
    bring.later(lambda: setattr(shell, "maps", bring.operand(node[1])))
    return shell


_WRAPPED: Final = (collections.UserDict, collections.UserList, collections.UserString)


@_keeps(*_WRAPPED)
def _keep_wrapped(keep: Keeping, value: Any) -> list[Any]:
    state = object.__getattribute__(value, "__dict__")
    if set(state) != {"data"}:
        raise NotKept(f"a {type(value).__name__} with attributes of its own")
    return ["wrapped", type(value).__name__, keep.operand(state["data"])]


@maker("wrapped")
def _wrapped(bring: Bringing, node: list[Any], number: int) -> Any:
    kind = {one.__name__: one for one in _WRAPPED}[node[1]]
    shell: Any = bring.early(number, kind.__new__(kind))
    bring.later(lambda: setattr(shell, "data", bring.operand(node[2])))
    return shell


@_keeps(types.SimpleNamespace)
def _keep_simple(keep: Keeping, value: Any) -> list[Any]:
    return ["simple", *keep_entries(keep, list(object.__getattribute__(value, "__dict__").items()))]


@maker("simple")
def _simple(bring: Bringing, node: list[Any], number: int) -> Any:
    shell = bring.early(number, types.SimpleNamespace())
    bring.later(lambda: object.__getattribute__(shell, "__dict__").update(entries_of(bring, node)))
    return shell


# -- memory ------------------------------------------------------------------------------------------------------------


@_keeps(bytearray)
def _keep_bytearray(keep: Keeping, value: bytearray) -> list[Any]:
    if not value:
        return ["bytearray", None, 0]
    import ctypes

    probe = (ctypes.c_char * len(value)).from_buffer(value)  # it cannot grow while this holds its memory
    low = ctypes.addressof(probe)
    place = keep.memory.span(low, low + len(value), owner="bytearray")
    keep.hold(probe)
    return ["bytearray", place, len(value)]


@maker("bytearray")
def _bytearray(bring: Bringing, node: list[Any], _number: int) -> Any:
    if node[1] is None:
        return bytearray()
    number, offset = node[1]
    whole = bring.region(number)
    owner = whole.base
    while owner is not None and type(owner) is not bytearray:
        owner = getattr(owner, "obj", None) if type(owner) is memoryview else getattr(owner, "base", None)
    if type(owner) is not bytearray or offset != 0 or len(owner) != node[2]:
        raise ManifestRefused("a kept bytearray is refused", cause="its memory is another's")
    return owner


@_keeps(array.array)
def _keep_array(keep: Keeping, value: array.array[Any]) -> list[Any]:
    if value.typecode in "uw":
        return ["array", value.typecode, keep.operand(value.tounicode())]
    return ["array", value.typecode, keep.object(value.tobytes()), value.itemsize]


@maker("array")
def _array(bring: Bringing, node: list[Any], _number: int) -> Any:
    made: Any = array.array(node[1])
    if node[1] in "uw":
        made.fromunicode(bring.operand(node[2]))
    elif made.itemsize != node[3]:
        raise ManifestRefused("a kept array is refused", cause="its items have another size on this machine")
    else:
        made.frombytes(bring.object(node[2]))
    return made


def _keep_long_text(keep: Keeping, value: str) -> list[Any]:
    return ["text", keep.object(value.encode("utf-8", "surrogatepass"))]


def _keep_long_bytes(keep: Keeping, value: bytes) -> list[Any]:
    return ["bytes", keep.object(value)]


_keeps(str)(_keep_long_text)
_keeps(bytes)(_keep_long_bytes)


@maker("text")
def _text(bring: Bringing, node: list[Any], _number: int) -> Any:
    return bring.object(node[1]).decode("utf-8", "surrogatepass")


@maker("bytes")
def _bytes(bring: Bringing, node: list[Any], _number: int) -> Any:
    return bring.object(node[1])


@_keeps(io.BytesIO, io.StringIO)
def _keep_stream(keep: Keeping, value: Any) -> list[Any]:
    if value.closed:
        raise NotKept("a closed stream")
    if type(value) is io.StringIO and cast("Any", value).__getstate__()[1] != "\n":
        raise NotKept("a StringIO that translates the ends of lines")
    return ["stream", type(value).__name__, keep.operand(value.getvalue()), value.tell()]


@maker("stream")
def _stream(bring: Bringing, node: list[Any], _number: int) -> Any:
    held = bring.operand(node[2])
    made: Any = io.BytesIO(held) if node[1] == "BytesIO" else io.StringIO(held, newline="\n")
    made.seek(node[3])
    return made


# -- small types of the standard library -------------------------------------------------------------------------------


def _simply(tag: str, kind: type, write: Any, make: Any) -> None:
    """A type that is made of the parts it is written as."""
    _keeps(kind)(lambda keep, value: [tag, *keep.inside(write(value))])
    maker(tag)(lambda bring, node, _number: make(*map(bring.operand, node[1:])))


def _moment(value: Any) -> tuple[Any, ...]:
    return (value.hour, value.minute, value.second, value.microsecond, value.tzinfo, value.fold)


_simply("date", dt.date, lambda value: (value.year, value.month, value.day), dt.date)
_simply(
    "datetime", dt.datetime, lambda value: (value.year, value.month, value.day, *_moment(value)),
    lambda *parts: dt.datetime(*parts[:8], fold=parts[8]),
)  # fmt: skip
_simply("time", dt.time, _moment, lambda *parts: dt.time(*parts[:5], fold=parts[5]))
_simply(
    "timedelta", dt.timedelta, lambda value: (value.days, value.seconds, value.microseconds), dt.timedelta,
)  # fmt: skip


def _timezone(offset: dt.timedelta, name: str | None) -> dt.timezone:
    if name is not None:
        return dt.timezone(offset, name)
    return dt.UTC if not offset else dt.timezone(offset)


def _named_zone(value: dt.timezone) -> tuple[Any, ...]:
    offset = value.utcoffset(None)
    plain = dt.timezone(offset).tzname(None)
    return (offset, None if value.tzname(None) == plain else value.tzname(None))


def _zone_key(value: Any) -> tuple[Any, ...]:
    if value.key is None:
        raise NotKept("a time zone read from a nameless file")
    return (value.key,)


_simply("timezone", dt.timezone, _named_zone, _timezone)
_simply("zoneinfo", zoneinfo.ZoneInfo, _zone_key, zoneinfo.ZoneInfo)
_simply("decimal", decimal.Decimal, lambda value: (str(value),), decimal.Decimal)
_simply("fraction", fractions.Fraction, lambda value: (value.numerator, value.denominator), fractions.Fraction)
_simply("uuid", uuid.UUID, lambda value: (value.bytes,), lambda raw: uuid.UUID(bytes=raw))
_simply("range", range, lambda value: (value.start, value.stop, value.step), range)
_simply("slice", slice, lambda value: (value.start, value.stop, value.step), slice)
_simply("posixpath", pathlib.PosixPath, lambda value: (str(value),), pathlib.PosixPath)
_simply("pureposixpath", pathlib.PurePosixPath, lambda value: (str(value),), pathlib.PurePosixPath)
_simply("purewindowspath", pathlib.PureWindowsPath, lambda value: (str(value),), pathlib.PureWindowsPath)
_simply("pattern", re.Pattern, lambda value: (value.pattern, value.flags), lambda text, flags: re.compile(text, flags))
_simply("alias", types.GenericAlias, lambda value: (value.__origin__, value.__args__), types.GenericAlias)
_simply("random", random.Random, lambda value: (value.getstate(),), lambda state: _seeded(random.Random(), state))  # noqa: S311 - the user's own


def _seeded(generator: random.Random, state: Any) -> random.Random:
    generator.setstate(state)
    return generator


@_keeps(operator.itemgetter, operator.attrgetter, operator.methodcaller)
def _keep_getter(keep: Keeping, value: Any) -> list[Any]:
    reduced = value.__reduce__()
    function, given = reduced[0], reduced[1]
    named: dict[str, Any] = {}
    if type(function) is functools.partial:  # a methodcaller with keywords
        named, given = function.keywords, (*function.args, *given)
    return ["getter", type(value).__name__, keep.items(tuple(given)), *keep_entries(keep, list(named.items()))]


@maker("getter")
def _getter(bring: Bringing, node: list[Any], _number: int) -> Any:
    kind: Any = {"itemgetter": operator.itemgetter, "attrgetter": operator.attrgetter}.get(
        node[1], operator.methodcaller
    )
    return kind(*bring.items(node[2]), **dict(entries_of(bring, node, 3)))


@_keeps(types.UnionType)
def _keep_union(keep: Keeping, value: Any) -> list[Any]:
    return ["union", keep.items(value.__args__)]


@maker("union")
def _union(bring: Bringing, node: list[Any], _number: int) -> Any:
    found = bring.items(node[1])
    if not all(type(one) in (type, types.GenericAlias) or one is None for one in found):
        raise ManifestRefused("a kept type is refused", cause="its parts are none")
    return functools.reduce(operator.or_, found)


@_keeps(functools.partial)
def _keep_partial(keep: Keeping, value: Any) -> list[Any]:
    return ["partial", keep.operand(value.func), keep.operand(value.args), keep.operand(value.keywords)]


@maker("partial")
def _partial(bring: Bringing, node: list[Any], number: int) -> Any:
    function = bring.operand(node[1])
    if not callable(function):
        raise ManifestRefused("a kept partial is refused", cause="what it calls is not callable")
    made: Any = functools.partial(function)
    bring.early(number, made)

    def fill() -> None:
        given, named = bring.operand(node[2]), bring.operand(node[3])
        if type(given) is not tuple or type(named) is not dict:
            raise ManifestRefused("a kept partial is refused", cause="its arguments are none")
        # Its own dict of keywords is filled after this, so it is given it as it is.
        made.__setstate__((function, given, named, {}))

    bring.later(fill)
    return made
