"""The facts, each a record, and the value that all of them are made of: `Artifact`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from jupyter_mlops.records.spelling import FORMAT, Digest

DELETED: Final = "deleted by this cell"
"""Why a file that a cell wrote has no digest: a fact, where other reasons say that something is not known."""


_CODE: Final = frozenset({"module", "function", "type", "builtin_function_or_method"})


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

    @property
    def is_code(self) -> bool:
        """Whether it is a module, function or class, and no data."""
        return self.type in _CODE or self.type.endswith("Meta")


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
    on_behalf_of: str = ""
    """The named user of a Jupyter server who had it started; `user` is who it ran as."""


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
    demands: list[str] = []
    """What is to be said with the promotion: ``reason``, ``ticket``."""


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
    lacking: list[str] = []
    """What was to be said with it and was not (``reason``, ``ticket``): then it was refused."""


KINDS: Final[Mapping[str, type[Record]]] = {
    kind.KIND: kind
    for kind in (
        JournalOpened, JournalSealed, Erased, Environment, CodeState, RunStarted, RunEnded, CellStarted, CellLogged,
        CellEnded, CellSettled, ModelVersion, CheckResult, Policy, Transition,
    )
}  # fmt: skip
