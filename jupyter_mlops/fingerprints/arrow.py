"""Apache Arrow's arrays and tables.

A column counts by its type, its length and its items. Chunks, slices, offsets and whatever lies under a missing item
are layout. Datasets, readers and scanners are not touched.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from jupyter_mlops.errors import late
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

TAG: Final = b"arrow-1"
_STEP: Final = 1 << 16
"""Lengths of texts computed at a time: few enough to stay in the cache until they are hashed."""


def handler_for(kind: type, module: str, qualname: str) -> Handler | None:  # noqa: ARG001 - as all of these
    """The handler for one of pyarrow's own types."""
    if loaded("pyarrow.lib", qualname) is not kind:
        return None
    pa = sys.modules["pyarrow"]
    if kind is pa.Table or kind is pa.RecordBatch:
        return _table
    if kind is pa.ChunkedArray:
        return lambda walk, value: _column(walk, value, chunks(value))
    if pa.Array in kind.__mro__:
        return lambda walk, value: _column(walk, value, [value])
    if kind is pa.Schema or pa.DataType in kind.__mro__ or kind is pa.Field:
        return lambda _walk, value: seal(TAG, qualname.lower().encode(), text(str(value)))
    if pa.Scalar in kind.__mro__:
        return lambda walk, value: seal(TAG, b"scalar", _scalar(walk, value))
    if kind is pa.Buffer:
        return lambda walk, value: _buffer(walk, value)
    return None


def _scalar(walk: Walk, value: Any) -> bytes:
    _known(value.type)
    return text(str(value.type)) + walk.item(value.as_py())


def _buffer(walk: Walk, value: Any) -> Node:
    if not value.is_cpu:
        raise NoFingerprint("its memory is not the CPU's")
    hasher = begin(walk, TAG, b"buffer")
    walk.feed(hasher, value)
    return finish(TAG, hasher)


def _column(walk: Walk, value: Any, chunks: list[Any]) -> Node:
    if walk.top:
        walk.facts = {"schema": {"type": str(value.type)}, "shape": [len(value)], "layout": {"chunks": len(chunks)}}
    return column(walk, chunks, value.type)


def _table(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, TAG, b"table")
    hasher.update(count(value.num_rows) + count(value.num_columns))
    told = []
    for name, kind in zip(value.schema.names, value.schema.types, strict=True):
        _named(name, _known, kind)
    for name, one in zip(value.schema.names, value.columns, strict=True):
        node = _named(name, column, walk, getattr(one, "chunks", None) or [one], one.type)
        hasher.update(text(name) + node.inline())
        told.append({"name": name, "type": str(one.type), "digest": node.digest()})
    if walk.top:
        chunks = [column.num_chunks for column in value.columns] if hasattr(value, "to_batches") else []
        walk.facts = {
            "schema": {"columns": told}, "shape": [value.num_rows, value.num_columns], "layout": {"chunks": chunks},
        }  # fmt: skip
    return finish(TAG, hasher)


def _known(kind: Any) -> None:
    """Refuse a type that somebody's extension type is part of: Arrow asks its class already for wrapping a chunk."""
    pa = sys.modules["pyarrow"]
    if isinstance(kind, pa.BaseExtensionType):
        if loaded("pyarrow.lib", qualname_of_type(type(kind))) is not type(kind):
            raise NoFingerprint(f"the extension type {name_of(type(kind))} is not known")
        kind = kind.storage_type
    for place in range(kind.num_fields):
        _known(kind.field(place).type)
    if pa.types.is_dictionary(kind):
        _known(kind.value_type)


def chunks(value: Any) -> list[Any]:
    """The chunks of a chunked array whose type is known.

    Raises
    ------
    NoFingerprint
        It is not.
    """
    _known(value.type)
    return value.chunks  # type: ignore[no-any-return]


def _named(name: str, act: Any, *given: Any) -> Any:
    """Call, with the column's name in the reason should it be refused."""
    try:
        return act(*given)
    except NoFingerprint as stop:
        stop.path.append(f"[{name!r}]" if len(name) <= 40 else "[…]")
        raise


def column(walk: Walk, chunks: list[Any], kind: Any, label: str | None = None) -> Node:
    """The node of a column given in chunks."""
    _known(kind)
    hasher = begin(walk, TAG, b"column")
    hasher.update(text(str(kind) if label is None else label) + count(sum(map(len, chunks))))
    write(walk, hasher, chunks, kind)
    return finish(TAG, hasher)


def write(walk: Walk, hasher: Any, chunks: list[Any], kind: Any) -> None:
    """Write which items are there, then the items."""
    pa = sys.modules["pyarrow"]
    types = pa.types
    chunks = [chunk for chunk in chunks if len(chunk)]
    walk.spend(1)
    if isinstance(kind, pa.BaseExtensionType):
        return write(walk, hasher, [chunk.storage for chunk in chunks], kind.storage_type)
    if types.is_null(kind):
        return None
    if types.is_dictionary(kind):
        return write(walk, hasher, [chunk.dictionary_decode() for chunk in chunks], kind.value_type)
    if types.is_run_end_encoded(kind):
        pc = late("pyarrow.compute")
        return write(walk, hasher, [pc.run_end_decode(chunk) for chunk in chunks], kind.value_type)
    if str(kind) in ("string_view", "binary_view"):
        wide = pa.large_string() if str(kind) == "string_view" else pa.large_binary()
        return write(walk, hasher, [chunk.cast(wide) for chunk in chunks], wide)
    if types.is_map(kind):
        return write(walk, hasher, [_pairs(chunk, kind) for chunk in chunks], _pair_list(kind))
    _validity(walk, hasher, chunks)
    if types.is_boolean(kind):
        np = _np()
        bits = [_bits(chunk.buffers()[1], chunk.offset, len(chunk)) & _valid(chunk) for chunk in chunks]
        return walk.feed(hasher, np.packbits(np.concatenate(bits), bitorder="little") if bits else b"")
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        return _texts(walk, hasher, chunks, 8 if types.is_large_string(kind) or types.is_large_binary(kind) else 4)
    if types.is_struct(kind):
        flat = [chunk.flatten() for chunk in chunks]
        for place in range(kind.num_fields):
            field = kind.field(place)
            hasher.update(text(field.name))
            write(walk, hasher, [one[place] for one in flat], field.type)
        return None
    if types.is_list(kind) or types.is_large_list(kind):
        for chunk in chunks:
            lengths = chunk.value_lengths().fill_null(0).cast(pa.int64())
            walk.feed(hasher, lengths.to_numpy(zero_copy_only=False).astype("<u4"))
        return write(walk, hasher, [chunk.flatten() for chunk in chunks], kind.value_type)
    if types.is_fixed_size_list(kind):
        return write(walk, hasher, [chunk.flatten() for chunk in chunks], kind.value_type)
    try:
        width = kind.bit_width // 8
    except ValueError:
        raise NoFingerprint(f"the Arrow type {kind} is not known") from None
    return _fixed(walk, hasher, chunks, width)


def _pair_list(kind: Any) -> Any:
    pa = sys.modules["pyarrow"]
    return pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))


def _pairs(chunk: Any, kind: Any) -> Any:
    """Maps as the lists of pairs they are stored as, without a copy."""
    pa = sys.modules["pyarrow"]
    pairs = pa.StructArray.from_arrays([chunk.keys, chunk.items], fields=list(_pair_list(kind).value_type))
    return pa.ListArray.from_buffers(
        _pair_list(kind), len(chunk), chunk.buffers()[:2], chunk.null_count, chunk.offset, [pairs]
    )


def _np() -> Any:
    return late("numpy")


def _bits(buffer: Any, offset: int, length: int) -> Any:
    np = _np()
    raw = np.frombuffer(buffer, np.uint8)[offset // 8 : (offset + length + 7) // 8]
    return np.unpackbits(raw, bitorder="little")[offset % 8 : offset % 8 + length].view(np.bool_)


def _valid(chunk: Any) -> Any:
    np = _np()
    if not chunk.null_count:
        return np.ones(len(chunk), np.bool_)
    return _bits(chunk.buffers()[0], chunk.offset, len(chunk))


def _validity(walk: Walk, hasher: Any, chunks: list[Any]) -> None:
    missing = sum(chunk.null_count for chunk in chunks)
    hasher.update(count(missing))
    if missing:
        np = _np()
        walk.feed(hasher, np.packbits(np.concatenate([_valid(chunk) for chunk in chunks]), bitorder="little"))


def _fixed(walk: Walk, hasher: Any, chunks: list[Any], width: int) -> None:
    np = _np()
    for chunk in chunks:
        buffer = chunk.buffers()[1]
        if not buffer.is_cpu:
            raise NoFingerprint("its memory is not the CPU's")
        raw = np.frombuffer(buffer, np.uint8)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
        if chunk.null_count:
            raw = raw.reshape(-1, width) * _valid(chunk)[:, None]
            raw = raw.reshape(-1)
        walk.feed(hasher, raw)


def _texts(walk: Walk, hasher: Any, chunks: list[Any], width: int) -> None:
    np = _np()
    bodies = []
    for chunk in chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, f"<i{width}")[chunk.offset : chunk.offset + len(chunk) + 1]
        body = (data, int(ends[0]), int(ends[-1]))
        valid = _valid(chunk) if chunk.null_count else None
        stray = False
        for start in range(0, len(chunk), _STEP):
            lengths = np.diff(ends[start : start + _STEP + 1])
            if valid is not None:
                here = valid[start : start + _STEP]
                stray = stray or bool(lengths[~here].any())
                lengths = lengths * here
            walk.feed(hasher, lengths.astype("<u4"))
        if stray:  # something lies under a missing item
            kept = chunk.drop_null()
            ends = np.frombuffer(kept.buffers()[1], f"<i{width}")[kept.offset : kept.offset + len(kept) + 1]
            body = (kept.buffers()[2], int(ends[0]), int(ends[-1]))
        bodies.append(body)
    for data, first, last in bodies:
        if data is not None and last > first:
            walk.feed(hasher, memoryview(data)[first:last])
