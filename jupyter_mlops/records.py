"""What is known, as frozen facts, and their one written form.

A fact is written as one **line**: an *envelope*, a tab, a *payload*, a newline; both are JSON, in which a raw tab
cannot occur. The envelope holds what may stay for ever: kind, time, writer, sequence, the digest of the writer's
previous envelope, the lines this one builds on, a few closed fields (states, counts, seconds), and for each free
field a salted commitment. The payload holds the free fields themselves (source, names, parameters, digests of
values), each with its salt. The chain runs over envelopes, so a free field can be erased from the payload later and
everything still verifies: what is missing is known to be missing.

A line's name is the digest of its envelope's bytes *as written*. Nothing is ever encoded a second time to be verified.

JSON cannot say NaN, infinities, integers beyond 2^53 or lone surrogates, and libraries disagree on what to do about
it. Here they have one spelling, a tagged string: ``"~nan"``, ``"~inf"``, ``"~-inf"``, ``"~int:18446744073709551616"``,
``"~utf8:<hex>"`` (UTF-8 with surrogates let through); a text that itself begins with ``~`` is written with one more.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final, NamedTuple, NewType, TypeVar

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
_encode = msgspec.json.Encoder().encode
_values = msgspec.structs.astuple
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


# -- the tagged spelling ---------------------------------------------------------------------------------------------


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
    encoder = _encode_sorted if sort else _encode
    try:
        raw: bytes = encoder(value)
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        return encoder(plain(value))
    return encoder(plain(value)) if _may_need_spelling(raw) else raw


def _may_need_spelling(raw: bytes) -> bool:
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


# -- the value used everywhere ---------------------------------------------------------------------------------------


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A thing with content: a variable, file, source, module, display, model, image or report.

    Attributes
    ----------
    name
        A variable's name, a path relative to the project, an address without credentials.
    kind
        ``variable``, ``file``, ``source``, ``module``, ``display``, ``model``, ``image``, ``report``.
    digest
        Of its content, or None: then `why` says why there is none.
    size
        Bytes, where that means something.
    type
        The class of a value (``pandas.DataFrame``), the media type of a display.
    stored
        Whether the bytes are kept as an object.
    facts
        The object that holds schema, layout, per-part digests and a summary.
    made
        The cell run that made this version, when a record says so.
    why
        Why there is no digest.
    query
        What was asked of a source.
    numbers
        The numbers a value consists of, where they are few and it consists of nothing else: so that another one may be
        held against it with a tolerance. Kept only where displays are.
    """

    name: str
    kind: str
    digest: Digest | None = None
    size: int | None = None
    type: str = ""
    stored: bool = False
    facts: Digest | None = None
    made: Digest | None = None
    why: str = ""
    query: str = ""
    numbers: list[float] = []


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that could not be recorded, said openly.

    Attributes
    ----------
    subject
        What it is about: a variable's name, a path, ``displays``.
    reason
        Why, in words for a person.
    blocks
        Whether lineage through the subject can not be trusted.
    """

    subject: str
    reason: str
    blocks: bool = False


class Package(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An installed distribution.

    Attributes
    ----------
    origin
        Where it came from when that is not an index: ``editable``, ``direct <url>``, ``vcs <url>@<commit>``.
    loaded
        The version in memory, where it is no longer the installed one.
    """

    name: str
    version: str
    origin: str = ""
    loaded: str = ""


class Ticket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reference into a tracker of work: ``JIRA-123``, ``#42``, with its address if it has one."""

    id: str
    url: str = ""


# -- the facts -------------------------------------------------------------------------------------------------------


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact that is written as one line.

    ``KIND`` is its name on the line. ``OPEN`` are the closed fields that stand in the envelope and can never be erased;
    ``BUILDS_ON`` are those that hold digests of other lines, and stand in the envelope's ``refs``. All others are
    free: committed to in the envelope, kept in the payload, erasable.
    """

    KIND: ClassVar[str] = ""
    OPEN: ClassVar[frozenset[str]] = frozenset()
    BUILDS_ON: ClassVar[tuple[str, ...]] = ()


class JournalOpened(Record, frozen=True, kw_only=True):
    """The first line of a journal."""

    KIND = "journal.opened"
    OPEN = frozenset({"format", "software", "continues"})

    format: int = FORMAT
    software: str = ""
    continues: str = ""
    """The writer whose file was left after a failed write or sync."""
    because: str = ""


class JournalSealed(Record, frozen=True, kw_only=True):
    """The last line of a journal whose writer ended in order."""

    KIND = "journal.sealed"


class Erased(Record, frozen=True, kw_only=True):
    """Fields of a line, or an object, were removed after the fact: who, why, what."""

    KIND = "erased"
    OPEN = frozenset({"line", "object"})

    line: Digest | None = None
    object: Digest | None = None
    fields: list[str] = []
    by: str = ""
    reason: str = ""


class Environment(Record, frozen=True, kw_only=True):
    """The interpreter and what is installed beside it."""

    KIND = "environment"

    python: str = ""
    implementation: str = ""
    platform: str = ""
    machine: str = ""
    cpu: str = ""
    cores: int = 0
    memory: int = 0
    gpus: list[str] = []
    driver: str = ""
    packages: list[Package] = []
    variables: dict[str, str] = {}
    other_variables: list[str] = []
    gaps: list[Gap] = []


class CodeState(Record, frozen=True, kw_only=True):
    """The state of the code around a cell."""

    KIND = "code_state"

    commit: str = ""
    branch: str = ""
    remote: str = ""
    dirty: list[Artifact] = []
    modules: list[Artifact] = []
    gaps: list[Gap] = []


class RunStarted(Record, frozen=True, kw_only=True):
    """A session, notebook or pipeline began."""

    KIND = "run.started"
    OPEN = frozenset({"trigger"})
    BUILDS_ON = ("parent", "resumes")

    trigger: str
    """``session`` (a person's kernel), ``papermill``, ``sweep``, ``pipeline``, ``shell``, ``ci``."""
    notebook: str = ""
    parameters: dict[str, Any] = {}
    user: str = ""
    tickets: list[Ticket] = []
    parent: Digest | None = None
    folder: str = ""
    """The working directory it began in, as paths are spelled; empty where that is not on record."""
    resumes: Digest | None = None
    """The failed or killed run that this one goes on with."""


class RunEnded(Record, frozen=True, kw_only=True):
    """A run came to its end; a run without this line was interrupted, or still goes on."""

    KIND = "run.ended"
    OPEN = frozenset({"status", "seconds"})
    BUILDS_ON = ("run", "same_as")

    run: Digest
    status: str
    """``done``, ``failed``, ``interrupted``, ``cached``."""
    seconds: float = 0.0
    error: str = ""
    outputs: list[Artifact] = []
    """Its output notebook, and where a cache was asked for every file it left."""
    gaps: list[Gap] = []
    basis: Artifact | None = None
    """What a cache finds it by (``name``), and the object that lists what its result follows from."""
    same_as: Digest | None = None
    """The run whose result this one took over, as nothing that follows from had changed: ``status`` is ``cached``."""


class CellStarted(Record, frozen=True, kw_only=True):
    """A cell began; written before the user's code, so that a crash reads as an interruption.

    Its line's digest is the cell run's name.
    """

    KIND = "cell.started"
    OPEN = frozenset({"count", "redacted"})
    BUILDS_ON = ("run", "environment", "code", "parent")

    run: Digest
    environment: Digest | None = None
    code: Digest | None = None
    parent: Digest | None = None
    """The cell run inside which this one runs (``%run``, ``ip.run_cell``)."""
    count: int = 0
    redacted: int = 0
    """How many secrets were masked in the source: then it cannot be replayed verbatim."""
    cell: str = ""
    """The notebook's id of the cell, where the front end gives it."""
    notebook: str = ""
    source: str = ""
    label: str = ""
    tickets: list[Ticket] = []


class CellLogged(Record, frozen=True, kw_only=True):
    """A metric, parameter, tag or artifact, bound to the cell that logged it, at once."""

    KIND = "cell.logged"
    OPEN = frozenset({"what", "step"})
    BUILDS_ON = ("cell_run", "run")

    run: Digest
    cell_run: Digest | None = None
    what: str
    """``metric``, ``param``, ``tag``, ``artifact``."""
    step: int = 0
    key: str
    value: Any = None
    artifact: Artifact | None = None


class CellEnded(Record, frozen=True, kw_only=True):
    """What a cell did."""

    KIND = "cell.ended"
    OPEN = frozenset({"status", "seconds", "overhead"})
    BUILDS_ON = ("cell_run", "after", "recalled")

    cell_run: Digest
    status: str
    """``done``, ``error``, ``interrupted``, ``syntax``."""
    recalled: Digest | None = None
    """The cell run whose doing was put back: the cell was not run."""
    seconds: float = 0.0
    overhead: float = 0.0
    """Seconds our own hooks took."""
    after: list[Digest] = []
    """The cell runs that made what it read."""
    inputs: list[Artifact] = []
    outputs: list[Artifact] = []
    removed: list[str] = []
    files_read: list[Artifact] = []
    files_written: list[Artifact] = []
    sources: list[Artifact] = []
    modules: list[Artifact] = []
    imported: list[str] = []
    """Modules of installed packages that are in memory and that no earlier cell of this kernel named."""
    displays: list[Artifact] = []
    randomness: dict[str, str] = {}
    """Generators whose state moved, each with ``seeded`` or ``unseeded``."""
    error: str = ""
    failed_line: int = 0
    """The line of the cell's own statement that failed, from 1; 0 where none did, or none is known."""
    gaps: list[Gap] = []


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The variables as a cell left them, kept as objects.

    Attributes
    ----------
    variables
        The object that lists them, each with the manifest that holds its value; None where nothing was kept.
    names
        Those whose values were kept anew.
    left
        What could not be kept, and why.
    size
        Bytes of the objects that hold the values kept anew; what was there already is among them.
    back_to
        The cell run whose variables these are again: the cell was a checkout.
    """

    variables: Digest | None = None
    names: list[str] = []
    left: list[Gap] = []
    size: int = 0
    back_to: Digest | None = None


class CellSettled(Record, frozen=True, kw_only=True):
    """What was not ready when the cell started or ended, and has come since."""

    KIND = "cell.settled"
    BUILDS_ON = ("cell_run", "environment", "code", "after")

    cell_run: Digest
    environment: Digest | None = None
    code: Digest | None = None
    after: list[Digest] = []
    outputs: list[Artifact] = []
    inputs: list[Artifact] = []
    files_read: list[Artifact] = []
    files_written: list[Artifact] = []
    gaps: list[Gap] = []
    checkpoint: Checkpoint | None = None
    recall: list[Artifact] = []
    """Under which key (``digest``) a later run finds what it did (``facts``, an object), or `why` it has to run."""


class ModelVersion(Record, frozen=True, kw_only=True):
    """A version of a model: *n* is the number of its move under ``models/<name>``."""

    KIND = "model_version"
    BUILDS_ON = ("cell_run", "run", "environment")

    cell_run: Digest | None = None
    run: Digest | None = None
    environment: Digest | None = None
    name: str
    model: Artifact
    """The model's bytes: ``type`` is the format (``skops``, ``onnx``, ``pickle``)."""
    files: list[Artifact] = []
    signature: Digest | None = None
    metrics: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    requirements: list[str] = []
    baseline: Digest | None = None
    training: list[Artifact] = []
    tags: dict[str, str] = {}
    description: str = ""
    by: str = ""
    gaps: list[Gap] = []


class CheckResult(Record, frozen=True, kw_only=True):
    """This was asked of that exact digest, and answered."""

    KIND = "check_result"
    OPEN = frozenset({"passed"})

    check: str
    subject: Digest
    passed: bool
    summary: str = ""
    evidence: dict[str, Any] = {}
    by: str = ""


class Policy(Record, frozen=True, kw_only=True):
    """What a stage demands of a model before a name may point to it."""

    KIND = "policy"

    name: str
    checks: list[dict[str, Any]] = []
    approvals: int = 0
    by: str = ""
    reason: str = ""


class Transition(Record, frozen=True, kw_only=True):
    """A ref moved, or was asked to and refused: the move itself, and the audit trail."""

    KIND = "transition"
    OPEN = frozenset({"refused"})
    BUILDS_ON = ("old", "new", "checks", "policy")

    ref: str
    old: Digest | None = None
    new: Digest | None = None
    refused: bool = False
    by: str = ""
    reason: str = ""
    tickets: list[Ticket] = []
    checks: list[Digest] = []
    policy: Digest | None = None


KINDS: Final[Mapping[str, type[Record]]] = {
    kind.KIND: kind
    for kind in (
        JournalOpened, JournalSealed, Erased, Environment, CodeState, RunStarted, RunEnded, CellStarted, CellLogged,
        CellEnded, CellSettled, ModelVersion, CheckResult, Policy, Transition,
    )
}  # fmt: skip


# -- lines -----------------------------------------------------------------------------------------------------------


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
_FIELDS: Final[Mapping[type[Record], tuple[_Field, ...]]] = {
    kind: tuple(
        _Field(
            default := field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory(),
            type(default),
            _REFS if field.name in kind.BUILDS_ON else _OPEN if field.name in kind.OPEN else _FREE,
            field.name.encode(),
            f'"{field.name}":',
        )
        for field in msgspec.structs.fields(kind)
    )
    for kind in KINDS.values()
}
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
        raws = [_encode(value) for value in values]
    except (UnicodeEncodeError, TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        return [encode(value) for value in values]
    return [encode(value) for value in values] if _may_need_spelling(b",".join(raws)) else raws


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
        parts += [b"%b:%b" % (_encode(name), _encode(value)) for name, value in envelope.refs.items()]
        parts += [b"%b:%b" % (_encode(name), bytes(value)) for name, (_, value) in payload.items()]
        parts += [b"%b:%b" % (_encode(name), _BLANK[kind][name]) for name in erased if name in _BLANK[kind]]
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
        b'%b:["%b",%b]' % (_encode(name), salt.encode(), bytes(value))
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


# -- facts put together from their lines -----------------------------------------------------------------------------


class CellRun(msgspec.Struct, frozen=True, kw_only=True):
    """A cell run, put together from its lines: started, logged, ended, settled.

    `status` is ``interrupted`` where the end is missing and its run is over, ``running`` where the run may go on.
    """

    id: Digest
    time: str
    writer: str
    seq: int
    started: CellStarted
    logged: tuple[CellLogged, ...] = ()
    ended: CellEnded | None = None
    settled: tuple[CellSettled, ...] = ()
    open_ended: bool = False

    @property
    def status(self) -> str:
        if self.ended is not None:
            return self.ended.status
        return "running" if self.open_ended else "interrupted"

    @property
    def source(self) -> str:
        return self.started.source

    @property
    def environment(self) -> Digest | None:
        """The line of the environment it ran in."""
        return self.started.environment or next((late.environment for late in self.settled if late.environment), None)

    @property
    def code(self) -> Digest | None:
        """The line of the code's state it ran in."""
        return self.started.code or next((late.code for late in self.settled if late.code), None)

    @property
    def after(self) -> list[Digest]:
        late = (digest for one in self.settled for digest in one.after)
        return list(dict.fromkeys((*(self.ended.after if self.ended else ()), *late)))

    @property
    def inputs(self) -> list[Artifact]:
        return self._merged("inputs")

    @property
    def outputs(self) -> list[Artifact]:
        return self._merged("outputs")

    @property
    def files_read(self) -> list[Artifact]:
        return self._merged("files_read")

    @property
    def files_written(self) -> list[Artifact]:
        return self._merged("files_written")

    @property
    def gaps(self) -> list[Gap]:
        return [*(self.ended.gaps if self.ended else ()), *(gap for late in self.settled for gap in late.gaps)]

    @property
    def metrics(self) -> dict[str, Any]:
        """The last value of each metric."""
        return {line.key: line.value for line in self.logged if line.what == "metric"}

    @property
    def parameters(self) -> dict[str, Any]:
        return {line.key: line.value for line in self.logged if line.what == "param"}

    @property
    def recalled(self) -> Digest | None:
        """The cell run whose doing was put back, where this one was not run."""
        return self.ended.recalled if self.ended is not None else None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The variables as it left them, where they were kept."""
        return next((late.checkpoint for late in reversed(self.settled) if late.checkpoint is not None), None)

    def _merged(self, field: str) -> list[Artifact]:
        """What the end says, with what settled later in its place."""
        ended: list[Artifact] = getattr(self.ended, field) if self.ended else []
        if not ended and not self.settled:
            return []
        found = {one.name: one for one in ended}
        for late in self.settled:
            found.update((one.name, one) for one in getattr(late, field))
        return list(found.values())


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run, put together from its lines."""

    id: Digest
    time: str
    started: RunStarted
    ended: RunEnded | None = None
    open_ended: bool = False

    @property
    def status(self) -> str:
        if self.ended is not None:
            return self.ended.status
        return "running" if self.open_ended else "interrupted"
