"""Polars' eager frames and series, read without loading another library into the user's process.

A column counts as the Arrow column it is (`arrow`): by its type, its length, which items are missing, and its items.
What is computed on the way (lengths, which items are there, the texts one after the other) polars computes; the memory
is then read where it lies, through Arrow's C interface, which is a contract between libraries and needs none of them.
Lazy frames are not touched.
"""

from __future__ import annotations

import binascii
import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from jupyter_mlops.fingerprints.arrow import TAG
from jupyter_mlops.fingerprints.walk import (
    Handler,
    Node,
    NoFingerprint,
    Walk,
    begin,
    count,
    finish,
    loaded,
    name_of,
    qualname_of_type,
    seal,
    text,
)

FRAME: Final = b"frame-1"
_WIDTHS: Final = {
    "Int8": 1, "Int16": 2, "Int32": 4, "Int64": 8, "Int128": 16, "UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8,
    "UInt128": 16, "Float16": 2, "Float32": 4, "Float64": 8,
}  # fmt: skip
"""Bytes of an item, by the type in which polars keeps it."""
_PHYSICAL: Final = frozenset({"Date", "Datetime", "Duration", "Time", "Decimal"})
_ROWS: Final = 1 << 20
_MOST: Final = 1 << 28
"""Rows, and bytes of them, that are put one after the other at a time."""


def handler_for(kind: type, module: str, qualname: str) -> Handler | None:  # noqa: ARG001 - as all of these
    """The handler for one of polars' own types."""
    if loaded("polars", qualname) is not kind:
        return None
    return {"DataFrame": _frame, "Series": _series}.get(qualname)


def stretches(value: Any, kind: type) -> Iterator[tuple[int, int]]:
    """Where the numbers of a frame or series lie: for them polars takes the memory of arrays, texts it copies."""
    if handler_for(kind, "polars", qualname_of_type(kind)) is None:
        return
    for series in value.get_columns() if kind is loaded("polars", "DataFrame") else [value]:
        dtype = series.dtype
        base = dtype if type(dtype) is type(loaded("polars", "Int64")) else type(dtype)
        if base.__name__ not in _WIDTHS and base.__name__ not in _PHYSICAL:
            continue
        width = _WIDTHS.get(base.__name__) or _WIDTHS[_kind(series.to_physical())]
        for chunk in _chunks(series):
            if chunk.buffers[1]:
                low = chunk.buffers[1] + chunk.offset * width
                yield low, low + chunk.length * width


def _frame(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, FRAME, b"polars.dataframe")
    height, width = value.shape
    hasher.update(count(height) + count(width))
    told = []
    for one in value.get_columns():
        try:
            node = _column(walk, one)
        except NoFingerprint as stop:
            stop.path.append(f"[{one.name!r}]" if len(one.name) <= 40 else "[…]")
            raise
        hasher.update(text(one.name) + node.inline())
        told.append({"name": one.name, "dtype": str(one.dtype), "digest": node.digest()})
    if walk.top:
        walk.facts = {"schema": {"columns": told}, "shape": [height, width]}
    return finish(FRAME, hasher)


def _series(walk: Walk, value: Any) -> Node:
    if walk.top:
        walk.facts = {"schema": {"name": value.name, "dtype": str(value.dtype)}, "shape": [len(value)]}
    return seal(FRAME, b"polars.series", text(value.name), _column(walk, value).inline())


def _column(walk: Walk, series: Any) -> Node:
    hasher = begin(walk, TAG, b"column")
    _kind(series)
    hasher.update(text(str(series.dtype)) + count(len(series)))
    _write(walk, hasher, series)
    return finish(TAG, hasher)


def _kind(series: Any) -> str:
    """The name of a series' type, if it is one of polars' own: others are asked nothing."""
    dtype = series.dtype
    base = dtype if type(dtype) is type(loaded("polars", "Int64")) else type(dtype)
    if loaded("polars", base.__name__) is not base:
        raise NoFingerprint(f"the polars type {name_of(base)} is not known")
    if base.__name__ == "Object":
        raise NoFingerprint("a polars column of Python objects")
    return str(base.__name__)


def _write(walk: Walk, hasher: Any, series: Any) -> None:
    """Write which items are there, then the items."""
    kind = _kind(series)
    walk.spend(1)
    if kind == "Extension":
        return _write(walk, hasher, series.ext.storage())
    if kind == "Null":
        return None
    if kind in ("Categorical", "Enum"):
        series, kind = series.cast(sys.modules["polars"].String), "String"
    missing = series.null_count()
    hasher.update(count(missing))
    if missing:
        walk.feed(hasher, _bits(series.is_not_null()))
    if kind == "Boolean":
        return walk.feed(hasher, _bits(series.fill_null(False) if missing else series))
    if kind in ("String", "Binary"):
        return _texts(walk, hasher, series.drop_nulls() if missing else series, series, kind)
    if kind == "Struct":
        for name in series.struct.fields:
            hasher.update(text(name))
            _write(walk, hasher, series.struct.field(name))
        return None
    if kind in ("List", "Array"):
        there = series.drop_nulls() if missing else series
        if kind == "List":
            lengths = series.list.len()
            _fixed(walk, hasher, lengths.fill_null(0) if missing else lengths)
            there = there.filter(there.list.len() > 0)
        return _write(walk, hasher, there.explode())
    if kind in _PHYSICAL:
        series = series.to_physical()
    return _fixed(walk, hasher, series.fill_null(0) if missing else series)


def _fixed(walk: Walk, hasher: Any, series: Any) -> None:
    width = _WIDTHS.get(_kind(series))
    if width is None:
        raise NoFingerprint(f"the polars type {series.dtype} is not known")
    for chunk in _chunks(series):
        walk.feed(hasher, _memory(chunk.buffers[1], chunk.offset * width, chunk.length * width))


def _bits(series: Any) -> bytes:
    """Truths as Arrow packs them, from the first bit on; the bits behind the last one are not set."""
    packed, filled = 0, 0
    for chunk in _chunks(series):
        first = chunk.offset // 8
        raw = _memory(chunk.buffers[1], first, (chunk.offset + chunk.length + 7) // 8 - first)
        found = (int.from_bytes(raw, "little") >> (chunk.offset % 8)) & ((1 << chunk.length) - 1)
        packed |= found << filled
        filled += chunk.length
    return packed.to_bytes((filled + 7) // 8, "little")


def _texts(walk: Walk, hasher: Any, there: Any, series: Any, kind: str) -> None:
    measured = series.str.len_bytes() if kind == "String" else series.bin.size()
    _fixed(walk, hasher, measured.fill_null(0) if measured.null_count() else measured)
    waiting = [there.slice(start, _ROWS) for start in range(0, len(there), _ROWS)][::-1]
    while waiting:
        piece = waiting.pop()
        size = (piece.str.len_bytes() if kind == "String" else piece.bin.size()).sum()
        if not size:
            continue
        if size > _MOST and len(piece) > 1:
            half = len(piece) // 2
            waiting += [piece.slice(half), piece.slice(0, half)]
        elif kind == "String":
            with _text(piece.str.join("") if len(piece) > 1 else piece) as body:
                walk.feed(hasher, body)
        else:
            with _text(piece.bin.encode("hex").str.join("")) as body:
                walk.feed(hasher, binascii.unhexlify(body))


# -- Arrow's C interface -----------------------------------------------------------------------------------------------


class _Array(ctypes.Structure):
    """``struct ArrowArray``."""


_Array._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.c_void_p), ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))), ("private_data", ctypes.c_void_p),
]  # fmt: skip


class _Stream(ctypes.Structure):
    """``struct ArrowArrayStream``, as far as it is needed."""


_Stream._fields_ = [
    ("get_schema", ctypes.c_void_p),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Array))),
]

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _chunks(series: Any) -> Iterator[_Array]:
    """A series' memory, chunk by chunk; each is there until the next is asked for."""
    capsule = series.__arrow_c_stream__()  # releases the stream when it goes
    stream = _Stream.from_address(_pointer_of(capsule, b"arrow_array_stream"))
    while True:
        chunk = _Array()
        if stream.get_next(ctypes.byref(stream), ctypes.byref(chunk)):
            raise NoFingerprint("polars did not give its memory")
        if not chunk.release:
            return
        try:
            if chunk.length:
                yield chunk
        finally:
            chunk.release(ctypes.byref(chunk))


def _memory(start: int | None, offset: int, size: int) -> memoryview:
    if not size:
        return memoryview(b"")
    return memoryview((ctypes.c_char * size).from_address((start or 0) + offset)).cast("B")


@contextmanager
def _text(series: Any) -> Iterator[memoryview]:
    """The memory of a text that stands alone: its view has its length, then itself or the place where it is."""
    for chunk in _chunks(series):
        view = _memory(chunk.buffers[1], chunk.offset * 16, 16)
        size = int.from_bytes(view[:4], "little")
        if size <= 12:
            yield view[4 : 4 + size]
        else:
            held = chunk.buffers[2 + int.from_bytes(view[8:12], "little")]
            yield _memory(held, int.from_bytes(view[12:], "little"), size)
