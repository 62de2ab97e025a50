"""Apache Arrow's arrays and tables, and polars' frames, as Arrow's own streams.

They cannot change in place, so that what they share is no one's business but memory's: each column is one object, and
columns that were one object come back as one. A stream read is checked in full before anything is made of it.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from jupyter_mlops.fingerprints.walk import loaded
from jupyter_mlops.records import Digest
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import Keeper, Keeping
from jupyter_mlops.values.manifest import Claim, ManifestRefused, NotKept

_NAME = "x"


def keeper_for(kind: type, module: str, qualname: str) -> Keeper | None:
    """Who writes one of pyarrow's or polars' own types."""
    if module.partition(".")[0] == "polars":
        if loaded("polars", qualname) is not kind:
            return None
        return {"DataFrame": _keep_polars, "Series": _keep_polars_series}.get(qualname)
    if loaded("pyarrow.lib", qualname) is not kind:
        return None
    pa = sys.modules["pyarrow"]
    if kind is pa.Table or kind is pa.RecordBatch:
        return _keep_table
    if kind is pa.ChunkedArray:
        return lambda keep, value: ["pa.chunked", keep_chunks(keep, value)]
    if pa.Array in kind.__mro__:
        return lambda keep, value: ["pa.array", keep_chunks(keep, pa.chunked_array([value]))]
    if kind is pa.Schema:
        return lambda keep, value: ["pa.schema", keep.object(value.serialize().to_pybytes())]
    if kind is pa.Field:
        return lambda keep, value: ["pa.field", keep.object(pa.schema([value]).serialize().to_pybytes())]
    if pa.DataType in kind.__mro__:
        return lambda keep, value: ["pa.type", keep_type(keep, value)]
    if pa.Scalar in kind.__mro__:
        return lambda keep, value: [
            "pa.scalar",
            keep_chunks(keep, pa.chunked_array([pa.array([value.as_py()], value.type)])),
        ]
    if kind is pa.Buffer:
        return _keep_buffer
    return None


def _known(kind: Any) -> None:
    pa = sys.modules["pyarrow"]
    if isinstance(kind, pa.BaseExtensionType) and loaded("pyarrow.lib", type(kind).__qualname__) is not type(kind):
        raise NotKept(f"the extension type {type(kind).__qualname__} is not known")
    for place in range(kind.num_fields):
        _known(kind.field(place).type)
    if pa.types.is_dictionary(kind):
        _known(kind.value_type)


def keep_type(keep: Keeping, kind: Any) -> int:
    """Write one of Arrow's types: the object that holds it."""
    import pyarrow as pa

    _known(kind)
    return keep.object(pa.schema([pa.field(_NAME, kind)]).serialize().to_pybytes())


def _schema(bring: Bringing, number: Any) -> Any:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(bring.object(number)))


def read_type(bring: Bringing, number: Any) -> Any:
    """The type that `keep_type` wrote."""
    return _schema(bring, number).field(0).type


maker("pa.type")(lambda bring, node, _number: read_type(bring, node[1]))
maker("pa.schema")(lambda bring, node, _number: _schema(bring, node[1]))
maker("pa.field")(lambda bring, node, _number: _schema(bring, node[1]).field(0))


def keep_chunks(keep: Keeping, value: Any, claim: Digest | None = None) -> int:
    """Write a column, chunk by chunk, as one stream: the object that holds it."""
    import pyarrow as pa

    _known(value.type)
    asked = None if claim is None else Claim(claim, str(value.type), (len(value), value.num_chunks))
    known = keep.known.get(asked) if asked is not None else None
    if known is not None and keep.has(known, size := keep.store.size(known)):
        return keep.listed(known, size)
    schema = pa.schema([pa.field(_NAME, value.type)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=False)) as stream:
        for chunk in value.chunks:
            keep.budget.check(1, chunk.nbytes)
            stream.write_batch(pa.record_batch([chunk], schema=schema))
    number = keep.object(memoryview(sink.getvalue()))
    if asked is not None:
        keep.known[asked] = keep.objects[number].digest
    return number


def chunks_of(bring: Bringing, number: Any) -> Any:
    """The column that `keep_chunks` wrote.

    Raises
    ------
    ManifestRefused
        It wrote none such.
    """
    found = bring.shared("pa", number)
    if found is None:
        import pyarrow as pa

        with pa.ipc.open_stream(pa.py_buffer(bring.object(number))) as stream:
            table = stream.read_all()
        if table.num_columns != 1:
            raise ManifestRefused("a kept column is refused", cause="it is not one column")
        table.validate(full=True)
        found = bring.share("pa", number, table.column(0))
    return found


maker("pa.chunked")(lambda bring, node, _number: chunks_of(bring, node[1]))


@maker("pa.array")
def _array(bring: Bringing, node: list[Any], _number: int) -> Any:
    import pyarrow as pa

    found = chunks_of(bring, node[1])
    return found.chunk(0) if found.num_chunks == 1 else pa.array([], found.type)


@maker("pa.scalar")
def _scalar(bring: Bringing, node: list[Any], _number: int) -> Any:
    return chunks_of(bring, node[1])[0]


def _keep_table(keep: Keeping, value: Any) -> list[Any]:
    schema = value.schema
    import pyarrow as pa

    for kind in schema.types:
        _known(kind)
    columns = [
        keep_chunks(keep, one if type(one) is pa.ChunkedArray else pa.chunked_array([one])) for one in value.columns
    ]
    return ["pa.table", type(value).__name__, keep.object(schema.serialize().to_pybytes()), columns, value.num_rows]


@maker("pa.table")
def _table(bring: Bringing, node: list[Any], _number: int) -> Any:
    import pyarrow as pa

    _, kind, schema_, columns, count = node
    schema, held = _schema(bring, schema_), [chunks_of(bring, one) for one in columns]
    if len(schema) != len(held) or any(len(one) != count for one in held):
        raise ManifestRefused("a kept table is refused", cause="its columns are not those of its schema")
    if kind == "RecordBatch":
        arrays = [one.chunk(0) if one.num_chunks == 1 else pa.array([], one.type) for one in held]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    return pa.Table.from_arrays(held, schema=schema)


def _keep_buffer(keep: Keeping, value: Any) -> list[Any]:
    if not value.is_cpu or value.is_mutable:
        raise NotKept("a buffer that can be written, or is not the CPU's")
    return ["pa.buffer", keep.object(value.to_pybytes())]


@maker("pa.buffer")
def _buffer(bring: Bringing, node: list[Any], _number: int) -> Any:
    import pyarrow as pa

    return pa.py_buffer(bring.object(node[1]))


# -- polars ------------------------------------------------------------------------------------------------------------


def _keep_polars_series(keep: Keeping, value: Any) -> list[Any]:
    pl = sys.modules["polars"]
    if value.dtype == pl.Object:
        raise NotKept("a column of Python objects")
    sink = io.BytesIO()
    pl.DataFrame([value.alias(_NAME)]).write_ipc_stream(sink, compression="uncompressed")
    return ["pl.series", keep.operand(value.name), keep.object(sink.getvalue())]


def _column(bring: Bringing, name: Any, number: Any) -> Any:
    import polars as pl

    try:
        frame = pl.read_ipc_stream(io.BytesIO(bring.object(number)))
    except BaseException as error:
        # Rust's own panics are no exceptions of Python's kind; an interrupt is none of theirs
        if type(error).__name__ == "PanicException":
            raise ManifestRefused("a kept column is refused", cause="polars cannot read it") from error
        raise
    if frame.width != 1:
        raise ManifestRefused("a kept column is refused", cause="it is not one column")
    return frame.to_series(0).alias(name)


@maker("pl.series")
def _polars_series(bring: Bringing, node: list[Any], _number: int) -> Any:
    return _column(bring, bring.operand(node[1]), node[2])


def _keep_polars(keep: Keeping, value: Any) -> list[Any]:
    return ["pl.frame", [_keep_polars_series(keep, one)[1:] for one in value.get_columns()], value.height]


@maker("pl.frame")
def _polars(bring: Bringing, node: list[Any], _number: int) -> Any:
    import polars as pl

    made = pl.DataFrame([_column(bring, bring.operand(name), number) for name, number in node[1]])
    if made.width and made.height != node[2]:
        raise ManifestRefused("a kept frame is refused", cause="its columns are not as long as it says")
    return made
