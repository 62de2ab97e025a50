"""Checkpoints of a notebook's variables, and their return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jupyter_mlops.records import CellRun, short
from jupyter_mlops.views.parts import counted, first_line
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, size, when

if TYPE_CHECKING:
    from jupyter_mlops.capture.checkpoints import Returned

_SOME = 12


def checkpointing(on: bool) -> View:
    """That checkpoints are on, or off."""
    if not on:
        return View(title="Checkpoints are off", blocks=[Text("What was kept stays.")], data={"checkpoints": False})
    return View(
        title="Checkpoints are on",
        blocks=[Text("After each cell, what it changed is kept; begun with what is there now.")],
        data={"checkpoints": True},
        hint="%mlops checkpoint list",
    )


def checkpoint_list(cells: Sequence[CellRun]) -> View:
    """The cell runs whose variables can be brought back."""
    rows = []
    for one in cells:
        found = one.checkpoint
        assert found is not None
        what: object = (
            _named(found.names) if found.variables else Mark(found.left[0].reason if found.left else "", "bad")
        )
        left = _named([gap.subject for gap in found.left]) if found.variables else ""
        rows.append((short(one.id), when(one.time), first_line(one.source), what, size(found.size), left))
    return View(
        title=counted(len(rows), "checkpoint"),
        blocks=[Table(("cell run", "when", "cell", "kept", "size", "not kept"), rows)],
        data=list(cells),
        hint="%mlops checkout ID" if rows else "%mlops checkpoint on",
    )


def returned(one: Returned) -> View:
    """What a checkout did, or would do."""
    facts: list[tuple[str, object]] = [
        (word, _named(names))
        for word, names in (
            ("brought back", one.brought), ("as they were", one.stayed), ("removed", one.removed),
            ("kept nowhere else", one.replaced),
        )
        if names
    ]  # fmt: skip
    blocks: list[Block] = [Facts(facts)]
    if one.left:
        blocks.append(Table(("not as it was", "why"), list(one.left.items())))
    if one.runs:
        said = "run again" if one.reran else "would make them"
        rows = [
            (short(run.id), first_line(run.source), _named([f.name for f in run.files_written])) for run in one.runs
        ]
        blocks.append(Table((said, "cell", "writes"), rows))
    title = "Variables as after cell run" if one.done else "Would bring back the variables after cell run"
    hint = f"%mlops checkout {short(one.cell_run)} --rerun" if one.left and one.runs and not one.reran else ""
    return View(title=f"{title} {short(one.cell_run)}", blocks=blocks, data=one, hint=hint)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(names[:_SOME]) + more
