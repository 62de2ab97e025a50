"""Whether a notebook as it stands would make what is in memory: the answer, and each cell's reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.lineage.staleness import NO, NOTE, Finding, Standing
from jupyter_mlops.views.parts import counted, first_line
from jupyter_mlops.widgets import Block, Mark, Text

if TYPE_CHECKING:
    from jupyter_mlops.standing import Stand

_MARKS: Final = {NO: ("✗", "bad"), NOTE: ("·", "dim")}
_MOST: Final = 40
"""Cells whose reasons are shown; ``--json`` has all."""


def standing_facts(stand: Stand) -> list[tuple[str, object]]:
    """The notebook and the answer, a line each."""
    found = stand.standing
    if found is None:
        return [("notebook", stand.notebook), ("reproduces", Mark(f"cannot tell: {stand.why}", "dim"))]
    ran = f"{found.ran} of {counted(found.cells, 'cell')} ran in this session"
    return [("notebook", f"{stand.notebook}, as it stands on disk: {ran}"), ("reproduces", _answer(stand, found))]


def _answer(stand: Stand, found: Standing) -> Mark:
    over = stand.run is not None and stand.run.status != "running"
    memory = "what was in memory when the session ended" if over else "what is in memory"
    reasons = [finding for finding in found.findings if finding.answer == NO]
    open_ = [finding for finding in found.findings if finding.answer not in (NO, NOTE)]
    if found.verdict == "yes":
        return Mark(f"yes: run from the top, it makes {memory}", "good")
    if reasons:
        below = f"{counted(len(reasons), 'reason')} below"
        return Mark(f"no: run from the top, its cells would not do what they did ({below})", "bad")
    if not found.ran:
        return Mark("cannot tell: no cell of it ran in this session", "dim")
    why = f"{counted(len(open_), 'thing')} {'is' if len(open_) == 1 else 'are'} not known"
    return Mark(f"cannot tell: {why}; nothing else speaks against it", "dim")


def standing_blocks(stand: Stand) -> list[Block]:
    """Each cell that has a finding, with its reasons beneath; what is only built on such cells on one line."""
    found = stand.standing
    if found is None or not found.findings:
        return []
    blocks: list[Block] = [Text("")]
    cells: dict[int, list[Finding]] = {}
    built: list[int] = []
    for finding in found.findings:
        if finding.kind == "built" and finding.answer == NOTE:
            built.append(finding.cell)
        else:
            cells.setdefault(finding.cell, []).append(finding)
    for cell, findings in list(cells.items())[:_MOST]:
        if cell >= 0:
            blocks.append(Text(f"{found.labels[cell]}  {first_line(stand.cells[cell].source)}"))
        else:
            blocks.append(Text("not in the notebook"))
        blocks += _reasons(findings)
    if len(cells) > _MOST:
        blocks.append(Text(f"and {counted(len(cells) - _MOST, 'cell')} more: mlops status --json has all", tone="dim"))
    rest = [found.labels[cell] for cell in dict.fromkeys(built) if cell not in cells]
    if rest:
        shown = ", ".join(rest[:_MOST]) + (" …" if len(rest) > _MOST else "")
        blocks.append(Text(f"built on these, and so not what the notebook says: {shown}", tone="dim"))
    return blocks


def _reasons(findings: Iterable[Finding]) -> list[Block]:
    blocks: list[Block] = []
    for finding in findings:
        mark, tone = _MARKS.get(finding.answer, ("?", ""))
        blocks.append(Text(f"  {mark} {finding.kind:<11}  {finding.reason}", tone=tone))
    return blocks


def standing_json(stand: Stand) -> dict[str, Any]:
    """The answer as builtin values."""
    found = stand.standing
    return {
        "path": stand.notebook, "run": stand.run.id if stand.run else None,
        "reproduces": found.verdict if found is not None else "cannot tell", "why": stand.why,
        "cells": found.cells if found is not None else len(stand.cells), "ran": found.ran if found is not None else 0,
        "findings": list(found.findings) if found is not None else [],
    }  # fmt: skip
