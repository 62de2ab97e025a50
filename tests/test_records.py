"""Every fact survives being written and read; what is damaged is refused; what is erased is known to be."""

from __future__ import annotations

import math
import signal
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops.records import (
    KINDS,
    Artifact,
    CellLogged,
    CellStarted,
    Digest,
    Record,
    RecordInvalid,
    RunStarted,
    as_digest,
    decode,
    digest_of,
    encode,
    lines,
    plain,
    read_line,
    read_payload,
    short,
    unplain,
    write_line,
)  # fmt: skip

TEXTS = st.text(st.characters(), max_size=12)  # lone surrogates included
DIGESTS = st.binary(max_size=4).map(digest_of)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | TEXTS.map("~".__add__)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(TEXTS, one, max_size=3), max_leaves=8
)


def strategy(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if kind is Any:
        return VALUES
    if kind is Digest:
        return DIGESTS
    simple = {
        str: TEXTS, int: st.integers(0, 2**52), bool: st.booleans(), type(None): st.none(),
        float: st.floats(0, 1e9),
    }  # fmt: skip
    if kind in simple:
        return simple[kind]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(strategy, args))
    if origin is list:
        return st.lists(strategy(args[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(TEXTS, strategy(args[1]), max_size=2)
    return struct(kind)


def struct(kind: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: strategy(hints[name]) for name in kind.__struct_fields__})


def same(one: Any, other: Any) -> bool:
    """Equality in which a NaN equals itself, and 1 is not True."""
    if isinstance(one, msgspec.Struct):
        return type(one) is type(other) and all(same(getattr(one, n), getattr(other, n)) for n in one.__struct_fields__)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, float) and type(other) is int:
        return one == other  # JSON has one kind of number: 1.0 may come back as 1 where any value is allowed
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_kind_of_record_reads_back_as_it_was_written(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(struct(kind))
    digest, raw = write_line(record, writer="w", seq=3, prev=digest_of(b"x"))
    line = read_line(raw)
    assert raw.count(b"\n") == 1
    assert raw.count(b"\t") == 1
    assert line.digest == digest == digest_of(raw.partition(b"\t")[0])
    assert same(line.record, record)


@given(VALUES)
def test_the_tagged_spelling_reads_back(value: Any) -> None:
    assert same(decode(encode(value), Any), value)


@given(SCALARS)
def test_a_spelled_value_is_plain_json(value: Any) -> None:
    spelled = plain(value)
    assert msgspec.json.decode(msgspec.json.encode(spelled)) == spelled
    assert same(unplain(spelled), value)


@settings(deadline=None)
@given(data=st.data(), kind=st.sampled_from([kind for kind in KINDS.values() if kind.__struct_fields__]))
def test_a_line_verifies_with_any_of_its_free_fields_erased(data: st.DataObject, kind: type[Record]) -> None:
    record = data.draw(struct(kind))
    digest, raw = write_line(record, writer="w", seq=0, prev=None)
    head, _, tail = raw.partition(b"\t")
    payload = read_payload(tail)
    gone = data.draw(st.sets(st.sampled_from(sorted(payload)))) if payload else set()
    for name in gone:
        del payload[name]
    line = read_line(head + b"\t" + msgspec.json.encode(payload) + b"\n")
    assert line.digest == digest
    assert set(line.erased) == gone
    for name in payload:
        assert same(getattr(line.record, name), getattr(record, name))


def test_equal_texts_have_unequal_commitments() -> None:
    one, two = (
        read_line(write_line(CellStarted(run=digest_of(b""), source="secret"), writer="w", seq=0, prev=None)[1])
        for _ in "ab"
    )
    assert one.envelope.commit["source"] != two.envelope.commit["source"]


LINE = write_line(RunStarted(trigger="session", notebook="a.ipynb", user="ada"), writer="w", seq=0, prev=None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1], lambda raw: raw[:40], lambda raw: b"\n", lambda raw: b"", lambda raw: b"\t{}\n",
        lambda raw: raw.replace(b"ada", b"eve"), lambda raw: raw.replace(b'"v":1', b'"v":2'),
        lambda raw: raw.replace(b"\t{", b"\t{{"), lambda raw: b"[" * 100_000 + b"\t{}\n",
        lambda raw: raw.replace(b"}\n", b',"new":["00","x"]}\n'),
    ],
)  # fmt: skip
def test_a_damaged_line_is_refused(damage: Any) -> None:
    with pytest.raises(RecordInvalid):
        read_line(damage(LINE[1]))


@given(st.integers(0, 8 * len(LINE[1]) - 1))
def test_no_flipped_bit_goes_unnoticed(bit: int) -> None:
    raw = bytearray(LINE[1])
    raw[bit // 8] ^= 1 << bit % 8
    try:
        line = read_line(bytes(raw))
    except RecordInvalid:
        return
    assert line.digest != LINE[0] or line.record == read_line(LINE[1]).record


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_one_kind_of_error(raw: bytes) -> None:
    for candidate in (raw, raw + b"\t{}\n", b'{"kind":"erased"}\t' + raw + b"\n"):
        with pytest.raises(RecordInvalid):
            read_line(candidate)


def test_a_line_of_a_kind_from_the_future_is_kept_without_a_record() -> None:
    raw = LINE[1].replace(b"run.started", b"run.dreamed")
    assert read_line(raw).record is None


def test_golden_lines_are_written_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines.os, "urandom", lambda count: bytes(count))
    digest, raw = write_line(
        CellLogged(run=digest_of(b"run"), what="metric", key="loss", value=float("nan"), step=2),
        writer="w", seq=7, prev=digest_of(b"before"), time="2026-01-31T23:59:59.000001Z",
    )  # fmt: skip
    assert raw == (GOLDEN + "\n").encode()
    assert digest == GOLDEN_DIGEST


GOLDEN_DIGEST = "blake3:bd170973eb914ab7c43a4bb0d7a02c3ae5d17529f90da109e3cc57969589bb81"
GOLDEN = (
    '{"v":1,"kind":"cell.logged","time":"2026-01-31T23:59:59.000001Z","writer":"w","seq":7,"pre'
    'v":"blake3:18c52a7ed981fbffa12fbf611b593c451f6a5700af2206c612b5c3dd2888909b","refs":{"run"'
    ':"blake3:a7fceeda275f1d74d7dd05d0139905d286f7fe37b73b0ff295e35c83b36d8c42"},"open":{"what"'
    ':"metric","step":2},"commit":{"key":"e28cb520f3f3278e8d15a7ce2f97391b79fe602469ee1c53f826e'
    '98880634884","value":"b27f514e081c9e73cf12a72f340a55b21b3d281746a90ce15c97d9da6df64eda"}}\t'
    '{"key":["00000000000000000000000000000000","loss"],"value":["00000000000000000000000000000'
    '000","~nan"]}'
)


def test_integers_beyond_the_doubles_are_spelled_out_wherever_they_stand() -> None:
    assert encode({"seed": 2**53 - 1, "half": 0.12345678901234}) == b'{"seed":9007199254740991,"half":0.12345678901234}'
    assert encode({"seed": 2**60}) == b'{"seed":"~int:1152921504606846976"}'
    assert encode([-(2**53)]) == b'["~int:-9007199254740992"]'


def test_numbers_and_texts_of_classes_of_their_own_keep_their_value() -> None:
    import numpy as np

    class Text(str):
        def __str__(self) -> str:
            raise AssertionError

    assert plain([np.float64(0.5), np.str_("a"), Text("b"), signal.SIGTERM]) == [0.5, "a", "b", 15]


def test_what_a_user_logged_is_not_asked_whether_it_equals_anything() -> None:
    import numpy as np

    record = CellLogged(run=digest_of(b"run"), what="param", key="weights", value=np.zeros(3))
    line = read_line(write_line(record, writer="w", seq=0, prev=None)[1])
    assert isinstance(line.record, CellLogged)
    assert line.record.value == "~type:numpy.ndarray"


def test_digests_are_told_from_other_texts() -> None:
    assert as_digest(digest_of(b"")) == digest_of(b"")
    assert short(digest_of(b"")) == "af1349b9f5"
    assert short(None) == ""
    for text in ("", "blake3:", "blake3:XYZ", "../../etc", "blake3:" + "0" * 31, "blake3:" + "0" * 64 + "\n"):
        with pytest.raises(RecordInvalid):
            as_digest(text)


def test_a_value_of_an_unknown_type_is_named_by_its_type_and_not_touched() -> None:
    class Touchy:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    assert encode({"x": Touchy()}).startswith(b'{"x":"~type:')
    assert encode(Artifact(name="~x", kind="variable")) == b'{"name":"~~x","kind":"variable"}'
