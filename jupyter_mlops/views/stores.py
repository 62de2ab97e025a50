"""What is wrong with a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jupyter_mlops.widgets import Mark, Table, View

if TYPE_CHECKING:
    from jupyter_mlops.store import Problem


def problems(found: Sequence[Problem], *, title: str) -> View:
    """What is wrong with a store; the answer is no where something is damaged."""
    damage = [one for one in found if one.severity == "damage"]
    if not found:
        return View(title=f"{title}: clean", data=[])
    rows = [
        (Mark(one.severity, "bad" if one.severity == "damage" else "dim"), one.where, one.what, one.next)
        for one in found
    ]
    return View(
        title=f"{title}: {len(damage)} damaged" if damage else f"{title}: sound, with notes",
        blocks=[Table(("", "where", "what", "what to do"), rows)],
        data=list(found),
        ok=not damage,
    )
