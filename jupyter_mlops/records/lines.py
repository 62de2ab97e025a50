"""A fact's one written form: a line, written, read, verified, and written again without some of its fields."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec
from blake3 import blake3

from jupyter_mlops.records.facts import KINDS, CellLogged, CheckResult, ModelVersion, Policy, Record, Transition
from jupyter_mlops.records.spelling import (
    FORMAT,
    Digest,
    RecordInvalid,
    decode,
    digest_of,
    encode,
    may_need_spelling,
    now,
    to_json,
)

_values = msgspec.structs.astuple


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a line that is chained and never changes."""

    v: int = FORMAT
    kind: str
    time: str
    writer: str
    seq: int
    prev: Digest | None = None
    refs: dict[str, Digest | list[Digest]] = {}
    open: msgspec.Raw = msgspec.Raw(b"{}")
    commit: dict[str, str] = {}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line as read: its name, envelope, the record, and the free fields that have been erased."""

    digest: Digest
    envelope: Envelope
    record: Record | None
    """None for a kind this version does not know."""
    erased: tuple[str, ...] = ()


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_PAYLOAD: Final = msgspec.json.Decoder(dict[str, tuple[str, msgspec.Raw]])


class _Field(NamedTuple):
    """A field of a record as `write_line` needs it: its place on the line, and its name as it is hashed and written."""

    default: Any
    type: type
    place: int
    raw_name: bytes
    key: str


_REFS, _OPEN, _FREE = range(3)


class _Fields(dict[type[Record], tuple[_Field, ...]]):
    """The fields of each kind of record, looked at when the first of its kind is written: most writers have few."""

    def __missing__(self, kind: type[Record]) -> tuple[_Field, ...]:
        found = self[kind] = tuple(
            _Field(
                default := field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory(),
                type(default),
                _REFS if field.name in kind.BUILDS_ON else _OPEN if field.name in kind.OPEN else _FREE,
                field.name.encode(),
                f'"{field.name}":',
            )
            for field in msgspec.structs.fields(kind)
        )
        return found


_FIELDS: Final = _Fields()
_BEGIN: Final = {kind: b'{"v":%d,"kind":"%b","time":"' % (FORMAT, kind.KIND.encode()) for kind in KINDS.values()}
_SALT: Final = 16


def commitment(name: str, salt: str, raw: bytes | msgspec.Raw) -> str:
    """What the envelope says of a free field: BLAKE3 of its name, salt (hex) and bytes as written, NUL between."""
    return blake3(b"\0".join((name.encode(), salt.encode(), bytes(raw)))).hexdigest()


def write_line(
    record: Record, *, writer: str, seq: int, prev: Digest | None, time: str | None = None
) -> tuple[Digest, bytes]:
    """Write a record as a line.

    Returns
    -------
    tuple
        The line's name, and its bytes with the newline.
    """
    kind = type(record)
    said = [
        (value, place, raw_name, key)
        for (default, type_, place, raw_name, key), value in zip(_FIELDS[kind], _values(record), strict=True)
        # The type first: whatever a user logged is never asked whether it equals anything.
        if value is not default and (type(value) is not type_ or value != default)
    ]
    raws = _encoded([one[0] for one in said])
    salts = os.urandom(_SALT * len(said)).hex().encode()
    refs: list[bytes] = []
    open_: list[bytes] = []
    commits: list[str] = []
    payload: list[bytes] = []
    at = 0
    for (_, place, raw_name, key), raw in zip(said, raws, strict=True):
        if place == _FREE:
            salt = salts[at : (at := at + 2 * _SALT)]
            commit = blake3(b"\0".join((raw_name, salt, raw))).hexdigest()  # as `commitment` has it
            commits.append(f'{key}"{commit}"')
            payload += (b'"', raw_name, b'":["', salt, b'",', raw, b"],")
        else:
            (refs if place == _REFS else open_).append(key.encode() + raw)
    head = b'%b%b","writer":"%b","seq":%d' % (_BEGIN[kind], (time or now()).encode(), writer.encode(), seq)
    if prev is not None:
        head += b',"prev":"%b"' % prev.encode()
    if refs:
        head += b',"refs":{%b}' % b",".join(refs)
    if open_:
        head += b',"open":{%b}' % b",".join(open_)
    if commits:
        head += b',"commit":{%b}' % ",".join(commits).encode()
    head += b"}"
    return digest_of(head), b"%b\t{%b}\n" % (head, b"".join(payload)[:-1])


def _encoded(values: list[Any]) -> list[bytes]:
    """Each value as `encode` writes it; whether one of them needs its spelling is asked once for all."""
    try:
        raws = [to_json(value) for value in values]
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        return [encode(value) for value in values]
    return [encode(value) for value in values] if may_need_spelling(b",".join(raws)) else raws


def read_envelope(raw: bytes) -> tuple[Digest, Envelope, bytes]:
    """Read a line's envelope and leave its payload alone: name, envelope, the payload's bytes.

    Raises
    ------
    RecordInvalid
        The line is cut short, its envelope is no JSON, or it comes from a later format.
    """
    head, tab, tail = raw.partition(b"\t")
    if not tab or not raw.endswith(b"}\n"):
        raise RecordInvalid("the line is cut short" if raw[-1:] != b"\n" else "the line is damaged")
    try:
        envelope = _ENVELOPE.decode(head)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RecordInvalid("the line is damaged", cause=str(error)[:300]) from error
    if envelope.v > FORMAT:
        raise RecordInvalid(
            f"the line has format {envelope.v}", cause=f"this version reads up to {FORMAT}",
            next="pip install --upgrade jupyter-mlops",
        )  # fmt: skip
    return digest_of(head), envelope, tail


def read_payload(tail: bytes) -> dict[str, tuple[str, msgspec.Raw]]:
    """Read a line's payload: each free field's salt and bytes, not yet held against their commitments.

    Raises
    ------
    RecordInvalid
        It is no such JSON.
    """
    try:
        return _PAYLOAD.decode(tail)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise RecordInvalid("the line is damaged", cause=str(error)[:300]) from error


def read_line(raw: bytes) -> Line:
    """Read and verify one line.

    Every free field present is checked against its commitment; one that is absent though committed to was erased.

    Raises
    ------
    RecordInvalid
        The line is cut short, is no JSON, comes from a later format, or a field does not match its commitment.
    """
    digest, envelope, tail = read_envelope(raw)
    payload = read_payload(tail)
    for name, (salt, value) in payload.items():
        if envelope.commit.get(name) != commitment(name, salt, value):
            raise RecordInvalid(f"the line's field {name[:40]!r} is not what was written")
    kind = KINDS.get(envelope.kind)
    record = None
    erased = tuple(name for name in envelope.commit if name not in payload)
    if kind is not None:
        parts = [bytes(envelope.open).strip()[1:-1]] if len(bytes(envelope.open).strip()) > 2 else []
        parts += [b"%b:%b" % (to_json(name), to_json(value)) for name, value in envelope.refs.items()]
        parts += [b"%b:%b" % (to_json(name), bytes(value)) for name, (_, value) in payload.items()]
        parts += [b"%b:%b" % (to_json(name), _BLANK[kind][name]) for name in erased if name in _BLANK[kind]]
        record = decode(b"{" + b",".join(parts) + b"}", kind)
    return Line(digest=digest, envelope=envelope, record=record, erased=erased)


def erase_fields(raw: bytes, fields: Collection[str]) -> bytes:
    """Write a line again without some of its free fields: the envelope and the other fields stay to the byte.

    Raises
    ------
    RecordInvalid
        The line cannot be read.
    """
    _, _, tail = read_envelope(raw)
    kept = [
        b'%b:["%b",%b]' % (to_json(name), salt.encode(), bytes(value))
        for name, (salt, value) in read_payload(tail).items()
        if name not in fields
    ]
    return b"%b\t{%b}\n" % (raw.partition(b"\t")[0], b",".join(kept))


# What stands for an erased field that has no default of its own.
_BLANK: Final[dict[type[Record], dict[str, bytes]]] = {
    CellLogged: {"key": b'"(erased)"'},
    ModelVersion: {"name": b'"(erased)"', "model": b'{"name":"(erased)","kind":"model"}'},
    CheckResult: {"check": b'"(erased)"', "subject": b'"blake3:%b"' % (b"0" * 64)},
    Policy: {"name": b'"(erased)"'},
    Transition: {"ref": b'"(erased)"'},
}
for _kind in KINDS.values():
    _BLANK.setdefault(_kind, {})
