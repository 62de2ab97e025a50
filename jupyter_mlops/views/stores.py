"""What is wrong with a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jupyter_mlops.records import short
from jupyter_mlops.views.parts import counted
from jupyter_mlops.widgets import Block, Mark, Table, Text, View, size

if TYPE_CHECKING:
    from jupyter_mlops.scrub import Findings
    from jupyter_mlops.store import Erasure, Problem, Store


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


def scrubbed(store: Store, found: Findings, done: Erasure | None, files: Sequence[str], *, masked: bool) -> View:
    """What holds a secret, or what was removed of it; the answer is no where something still holds it."""
    lines: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for digest, fields in found.fields.items():
        lines.setdefault((found.kinds[digest], fields), []).append(short(digest))
    rows: list[tuple[object, ...]] = [
        (counted(len(digests), kind), ", ".join(fields), ", ".join(digests[:3]) + (" …" if len(digests) > 3 else ""))
        for (kind, fields), digests in sorted(lines.items())
    ]
    rows += [
        ("object", size(store.size(one)) if done is None and store.has(one) else "", short(one))
        for one in found.objects
    ]
    blocks: list[Block] = [Table(("where", "what goes", "names"), rows)] if rows else []
    waiting = done.waiting if done is not None else {}
    left = [(Mark("left", "bad"), where, why) for where, why in found.left]
    left += [
        (
            Mark("left", "bad"),
            name,
            f"{counted(len(digests), 'line')}: a living process writes it; scrub there, or end it",
        )
        for name, digests in waiting.items()
    ]
    left += [
        (Mark("masked", "good"), name, "a file of the project") if masked and done is not None
        else (Mark("left", "bad"), name, "a file of the project: --files masks it there")
        for name in files
    ]  # fmt: skip
    if left:
        blocks.append(Table(("", "also in", ""), left))
    held = bool(found.left or waiting or (files and not masked))
    if not found and not files:
        title = "scrub: nothing on record holds it"
    elif done is None:
        title = "scrub: nothing removed yet"
        blocks.append(Text("Type it again with --yes to remove this for good."))
    else:
        title = f"scrub: removed from {counted(len(done.lines), 'line')} and {counted(len(done.objects), 'object')}"
    return View(title=title, blocks=blocks, data=[found, done], ok=done is None or not held)
