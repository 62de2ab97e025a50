"""What is known, as frozen facts, and their one written form.

A fact is written as one **line**: an *envelope*, a tab, a *payload*, a newline; both are JSON, in which a raw tab
cannot occur. The envelope holds what may stay for ever: kind, time, writer, sequence, the digest of the writer's
previous envelope, the lines this one builds on, a few closed fields (states, counts, seconds), and for each free
field a salted commitment. The payload holds the free fields themselves (source, names, parameters, digests of
values), each with its salt. The chain runs over envelopes, so a free field can be erased from the payload later and
everything still verifies: what is missing is known to be missing.

A line's name is the digest of its envelope's bytes *as written*. Nothing is ever encoded a second time to be verified.

* `facts` says what is recorded.
* `lines` writes a fact as a line, and reads it back.
* `runs` puts cell runs and runs together from their lines.
* `spelling` writes values that JSON cannot say; digests and times as well.
"""

from __future__ import annotations

from jupyter_mlops.records.facts import (
    DELETED,
    KINDS,
    Artifact,
    CellEnded,
    CellLogged,
    CellSettled,
    CellStarted,
    Checkpoint,
    CheckResult,
    CodeState,
    Environment,
    Erased,
    Gap,
    JournalOpened,
    JournalSealed,
    ModelVersion,
    Package,
    Policy,
    Record,
    RunEnded,
    RunStarted,
    Ticket,
    Transition,
)
from jupyter_mlops.records.lines import (
    Envelope,
    Line,
    commitment,
    erase_fields,
    read_envelope,
    read_line,
    read_payload,
    write_line,
)
from jupyter_mlops.records.runs import (
    CellRun,
    Run,
)
from jupyter_mlops.records.spelling import (
    FORMAT,
    Digest,
    RecordInvalid,
    as_digest,
    decode,
    digest_of,
    encode,
    now,
    plain,
    short,
    unplain,
)

__all__ = [
    "DELETED", "FORMAT", "KINDS", "Artifact", "CellEnded", "CellLogged", "CellRun", "CellSettled", "CellStarted",
    "CheckResult", "Checkpoint", "CodeState", "Digest", "Envelope", "Environment", "Erased", "Gap", "JournalOpened",
    "JournalSealed", "Line", "ModelVersion", "Package", "Policy", "Record", "RecordInvalid", "Run", "RunEnded",
    "RunStarted", "Ticket", "Transition", "as_digest", "commitment", "decode", "digest_of", "encode", "erase_fields",
    "now", "plain", "read_envelope", "read_line", "read_payload", "short", "unplain", "write_line",
]  # fmt: skip
