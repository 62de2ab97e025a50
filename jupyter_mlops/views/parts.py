"""Pieces that several answers are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from jupyter_mlops.records import Artifact, CellRun, Gap, short
from jupyter_mlops.widgets import Block, Mark, Table, number, size

_TONES: Final = {
    "done": "good", "cached": "good", "kept": "good", "running": "dim", "error": "bad", "failed": "bad",
    "interrupted": "bad", "syntax": "bad", "lost": "bad", "refused": "bad",
}  # fmt: skip


def counted(number_: int, what: str) -> str:
    """Say ``1 cell run``, ``2 cell runs``."""
    return f"{number_} {what}" if number_ == 1 else f"{number_} {what}s"


def tick(good: bool) -> Mark:
    """A mark for yes or no."""
    return Mark("✓", "good") if good else Mark("✗", "bad")


def state_mark(state: str) -> Mark:
    """A status in its colour."""
    return Mark(state, _TONES.get(state, "dim"))


def first_line(source: str) -> str:
    """The first line of a cell that says something."""
    lines = [line for line in source.splitlines() if line.strip()]
    return lines[0].strip() + (" …" if len(lines) > 1 else "") if lines else "(empty)"


def tagged(digest: str) -> str:
    """A digest cut for reading, with the scheme it was made by."""
    return f"{digest.partition(':')[0]}:{short(digest)}"


def flat(value: Any) -> str:
    """Any part of a record on one line."""
    if isinstance(value, Artifact):
        return f"{value.name} {short(value.digest)}"
    if isinstance(value, (list, tuple)):
        return ", ".join(flat(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={flat(item)}" for key, item in value.items())
    if isinstance(value, msgspec.Struct):
        return " ".join(str(item) for item in msgspec.structs.astuple(value) if item)
    return number(value)


def artifact_cells(one: Artifact) -> tuple[object, ...]:
    """An artifact as the cells of a table: name, type, size, content, made by."""
    content: object = one.digest and tagged(one.digest)
    return (one.name, one.type, size(one.size), content or Mark(one.why or "no digest"), short(one.made))


def gap_table(gaps: Sequence[Gap]) -> list[Block]:
    """What is not known, as a table; nothing where there is no gap."""
    if not gaps:
        return []
    rows = [(Mark("gap", "bad" if gap.blocks else "dim"), gap.subject, gap.reason) for gap in gaps]
    return [Table(("", "about", "what is not known"), rows)]


def cell_json(run: CellRun) -> dict[str, Any]:
    """A cell run as its records, for ``--json``."""
    return {"id": run.id, "time": run.time, "status": run.status, "started": run.started, "logged": list(run.logged),
            "ended": run.ended, "settled": list(run.settled)}  # fmt: skip
