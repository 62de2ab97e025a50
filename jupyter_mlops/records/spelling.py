"""How digests, times and values are spelled.

JSON cannot say NaN, infinities, integers beyond 2^53 or lone surrogates, and libraries disagree on what to do about
it. Here they have one spelling, a tagged string: ``"~nan"``, ``"~inf"``, ``"~-inf"``, ``"~int:18446744073709551616"``,
``"~utf8:<hex>"`` (UTF-8 with surrogates let through); a text that itself begins with ``~`` is written with one more.
"""

from __future__ import annotations

import functools
import math
import re
import time
from typing import Any, Final, NewType, TypeVar

import msgspec
from blake3 import blake3

from jupyter_mlops.errors import MlopsError

FORMAT: Final = 1
"""Version of the written form; a reader refuses a greater one."""

Digest = NewType("Digest", str)
"""``algorithm:hex``, as in ``blake3:5f3c…``: the part before the colon says how it was made."""

_DIGEST: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*:[0-9a-f]{32,128}")
_LARGEST: Final = 2**53
_LONG: Final = re.compile(rb"(?<![.0-9])[0-9]{16}")
_DIGITS: Final = bytes.maketrans(b"0123456789", b"0" * 10)
_SIXTEEN: Final = b"0" * 16
to_json = msgspec.json.Encoder().encode  # as it is: a value that has a spelling of its own is not spelled
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class RecordInvalid(MlopsError, ValueError):
    """A line, object or digest does not have the form the format page gives it."""


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """Name bytes by their content.

    >>> digest_of(b"")[:14]
    'blake3:af1349b'
    """
    return Digest("blake3:" + blake3(data).hexdigest())


def as_digest(text: str) -> Digest:
    """Check that a text has a digest's form, and call it one.

    Raises
    ------
    RecordInvalid
        The text is no digest.
    """
    if not _DIGEST.fullmatch(text):
        raise RecordInvalid(f"{text[:80]!r} is not a digest", cause="a digest looks like blake3:5f3c…")
    return Digest(text)


def short(digest: str | None) -> str:
    """The first ten hex digits, as people are shown them.

    >>> short("blake3:af1349b9f5f9a1a6")
    'af1349b9f5'
    """
    return digest.partition(":")[2][:10] if digest else ""


def now() -> str:
    """The current time as records spell it: UTC, microseconds."""
    seconds, rest = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def plain(value: Any) -> Any:
    """Turn a value of builtin types into what JSON can say, in the one spelling.

    Containers become lists and dicts with text keys; a value of any other type becomes ``"~type:<its class>"``
    without being touched.

    >>> plain({"lr": float("nan"), "seed": 2**64, "home": "~/data", 3: (1, None)})
    {'lr': '~nan', 'seed': '~int:18446744073709551616', 'home': '~~/data', '3': [1, None]}
    """
    kind = type(value)
    if kind is str:
        return _spell(value)
    if kind is bool or value is None:
        return value
    if kind is int:
        return value if -_LARGEST < value < _LARGEST else f"~int:{value}"
    if kind is float:
        if value == value and value not in (math.inf, -math.inf):
            return value
        return "~nan" if value != value else "~inf" if value > 0 else "~-inf"
    if kind is dict:
        return {_spell(key if type(key) is str else str(plain(key))): plain(item) for key, item in value.items()}
    if kind in (list, tuple):
        return [plain(item) for item in value]
    if kind in (set, frozenset):
        return sorted((plain(item) for item in value), key=_encode_sorted)
    if kind is bytes:
        return f"~bytes:{value.hex()}"
    if issubclass(kind, msgspec.Struct):
        return {
            name: plain(item)
            for name, default in _defaults(kind)
            if type(item := getattr(value, name)) is not type(default) or item != default
        }
    # A number or text of a class of its own, as NumPy's float64, read without running any code of that class.
    if issubclass(kind, float):
        return plain(float.__pos__(value))
    if issubclass(kind, int):
        return plain(int.__index__(value))
    if issubclass(kind, str):
        return plain(str.__str__(value))
    return f"~type:{kind.__module__}.{kind.__qualname__}"


@functools.cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    """A struct's fields, each with its default; NODEFAULT, which equals nothing, where it has none."""
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in msgspec.structs.fields(kind)
    )


def unplain(value: Any) -> Any:
    """Read the tagged spelling back.

    >>> unplain(["~inf", "~~/data", "~int:18446744073709551616"])
    [inf, '~/data', 18446744073709551616]
    """
    if isinstance(value, str):
        return _unspell(value) if value.startswith("~") else value
    if isinstance(value, list):
        return [unplain(item) for item in value]
    if isinstance(value, dict):
        return {str(unplain(key)): unplain(item) for key, item in value.items()}
    return value


def _spell(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "~utf8:" + text.encode("utf-8", "surrogatepass").hex()
    return "~" + text if text.startswith("~") else text


def _unspell(text: str) -> Any:
    tag, colon, rest = text.partition(":")
    match tag:
        case "~nan" | "~inf" | "~-inf" if not colon:
            return float(tag[1:])
        case "~int":
            # a hostile file must not buy minutes of conversion: Python's own limit on digits holds
            return int(rest)
        case "~utf8":
            return bytes.fromhex(rest).decode("utf-8", "surrogatepass")
        case "~bytes":
            return bytes.fromhex(rest)
        case "~type":
            return text
    return text[1:] if text.startswith("~~") else text


def encode(value: Any, *, sort: bool = False) -> bytes:
    """Encode a record's field, or any value of builtin types and structs, as JSON bytes in the one spelling.

    Parameters
    ----------
    value
        A struct, or builtin values.
    sort
        Order the keys of dicts: for objects, whose name is the digest of these bytes.
    """
    encoder = _encode_sorted if sort else to_json
    try:
        raw: bytes = encoder(value)
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        return encoder(plain(value))
    return encoder(plain(value)) if may_need_spelling(raw) else raw


def may_need_spelling(raw: bytes) -> bool:
    """Whether JSON bytes may hide a value that has a spelling of its own.

    A NaN is encoded as null, a tag begins with a tilde, an integer beyond 2^53 has sixteen digits that are no fraction.
    """
    return b'"~' in raw or b"null" in raw or (_SIXTEEN in raw.translate(_DIGITS) and _LONG.search(raw) is not None)


T = TypeVar("T")


def decode(raw: bytes | bytearray | memoryview | msgspec.Raw, type_: type[T]) -> T:
    """Read what `encode` wrote; unknown fields are passed over.

    Raises
    ------
    RecordInvalid
        The bytes are no JSON, or not of that type.
    """
    data = bytes(raw)
    try:
        if b'"~' not in data:
            return msgspec.json.decode(data, type=type_)
        return msgspec.convert(unplain(msgspec.json.decode(data)), type_)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RecordInvalid(f"this is not a {getattr(type_, '__name__', type_)}", cause=str(error)[:300]) from error
