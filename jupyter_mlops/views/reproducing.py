"""Bringing a past run back: locks, environments made from them, checkouts, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.records import Environment, short
from jupyter_mlops.views.parts import gap_table
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, duration, size

if TYPE_CHECKING:
    from jupyter_mlops.environment.locking import Lock
    from jupyter_mlops.reproduce.causes import Cause
    from jupyter_mlops.reproduce.checkout import Checkout
    from jupyter_mlops.reproduce.create import Created
    from jupyter_mlops.reproduce.verify import CellVerdict, Verification


def _lock_facts(made: Lock) -> list[tuple[str, object]]:
    files = [file for one in made.packages for file in one.files]
    own = [file for file in files if file.object]
    facts: list[tuple[str, object]] = [
        ("for", f"{_named(made.source)}, Python {made.python}"),
        ("packages", f"{len(made.packages)}, {len(files)} files by hash"),
    ]
    if own:
        told = ", ".join(f"{file.name} ({size(file.size)})" for file in own)
        facts.append(("built here", f"{told}: kept in the store, and in wheels/ beside the lock"))
    return facts


def _named(text: str) -> str:
    """A reference as people read it: of a whole digest its beginning."""
    return short(text) if text.startswith("blake3:") else text


def locked(made: Lock, environment: Environment, output: Path, requirements: Path | None) -> View:
    """What was locked, and what could not be."""
    left = len(environment.packages) - len(made.packages)
    facts = _lock_facts(made)
    if made.scope == "used" and left:
        facts.append(("left out", f"{left} that were installed and not used (--all locks them too)"))
    return View(
        title=f"Locked: {output.name}" + (f", {requirements.name}" if requirements else ""),
        blocks=[Facts(facts), *gap_table(made.gaps)],
        data=made,
        hint=f"mlops env create {output} FOLDER",
    )


def created(made: Created) -> View:
    """What environment was made, and how it differs from what was locked."""
    facts: list[tuple[str, object]] = [("folder", str(made.folder)), ("python", str(made.python))]
    if made.kernel:
        where = "among yours" if made.installed else "in that environment"
        facts.append(("kernel", f"{made.kernel}, {where}"))
    facts += _lock_facts(made.lock)
    lines = made.differs.lines()
    verdict: Block = (
        Text("It differs from the lock:\n" + "\n".join(lines), tone="bad")
        if lines
        else Facts([("read back", Mark("every package is the locked one", "good"))])
    )
    data: dict[str, Any] = {
        "folder": str(made.folder), "kernel": made.kernel, "differs": lines, "gaps": msgspec.to_builtins(made.gaps),
    }  # fmt: skip
    return View(
        title=f"Made: {made.folder.name}", blocks=[Facts(facts), verdict, *gap_table(made.gaps)], data=data,
        ok=not lines,
    )  # fmt: skip


def checked_out(made: Checkout) -> View:
    """What was written where, and what the record does not hold."""
    counts: dict[str, int] = {}
    for one in made.placed:
        counts[one.origin] = counts.get(one.origin, 0) + 1
    told = ", ".join(f"{origin} {number}" for origin, number in sorted(counts.items()))
    facts: list[tuple[str, object]] = [
        ("folder", str(made.folder)),
        ("notebook", f"{made.notebook}: the cells in the order they ran"),
        ("commit", made.commit[:12] or "none on record"),
        ("files", told),
    ]
    blocks: list[Block] = [Facts(facts)]
    if made.missing:
        rows = [(one.name, one.digest or "", size(one.size), one.why) for one in made.missing]
        blocks.append(Table(("not here", "content", "size", "why"), rows, right=frozenset({2})))
    return View(
        title=f"Checked out: {made.folder.name}", blocks=[*blocks, *gap_table(made.gaps)],
        data={"folder": str(made.folder), "notebook": made.notebook, "placed": list(made.placed),
              "missing": list(made.missing), "gaps": list(made.gaps)},
    )  # fmt: skip


_TONES: Final = {"identical": "good", "within tolerance": "good", "differs": "bad", "not run": "dim"}
_MOST: Final = 8


def verified(found: Verification) -> View:
    """How a run came out again: the verdict, where it begins to differ and why, and every cell."""
    facts: list[tuple[str, object]] = [("environment", f"{found.environment}: {found.why}")]
    if found.tolerance:
        facts.append(("tolerance", f"rtol {found.tolerance.rtol:g}, atol {found.tolerance.atol:g}"))
    facts += [("note", note) for note in found.notes]
    facts.append(("took", duration(found.seconds)))
    if found.result:
        facts.append(("on record", f"{short(found.result)}, for {short(found.subject)}"))
    if found.folder:
        facts.append(("left in", found.folder))
    blocks: list[Block] = []
    for cell in found.cells:
        if cell.causes:
            blocks += _differing(cell, first=cell is found.first)
    rows = [(Mark(one.verdict, _TONES[one.verdict]), one.cell, one.source, _in_short(one)) for one in found.cells]
    blocks.append(Table(("", "cell", "source", "what differs"), rows))
    blocks += [Text(""), Facts(facts)]
    return View(
        title=f"{_named(found.text)}: {found.verdict}. {_sum(found)}", blocks=blocks, data=found, ok=bool(found), code=1
    )


def _sum(found: Verification) -> str:
    counts: dict[str, int] = {}
    for one in found.cells:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    return ", ".join(f"{counts[word]} {word}" for word in _TONES if word in counts)


def _differing(cell: CellVerdict, *, first: bool) -> list[Block]:
    """A cell whose difference is its own: what, and why."""
    head = f"Cell {cell.cell} {'is the first that differs' if first else 'differs by itself too'}: {cell.source}"
    real = [one for one in cell.differences if one.how == "differs"]
    rows: list[tuple[object, ...]] = [
        ("", f"{one.what} {one.name}", one.old, one.new, one.detail) for one in real[:_MOST]
    ]
    if len(real) > _MOST:
        rows.append(("", f"and {len(real) - _MOST} more", "", "", ""))
    blocks: list[Block] = [
        Text(head, tone="bad"),
        Table(("", "what", "recorded", "again", "where"), rows) if rows else Text("(it was not run to its end)"),
    ]
    proved = [one for one in cell.causes if one.proved]
    possible = [one for one in cell.causes if not one.proved]
    if proved:
        blocks.append(Text("because " + "; ".join(f"{_kind(one)}{one.what}" for one in proved), tone="bold"))
    if possible:
        word = "possibly also: " if proved else "most likely: " if possible[0].kind != "unknown" else ""
        blocks.append(
            Text(word + "; ".join(f"{_kind(one)}{one.what}" for one in possible), tone="dim" if proved else "bold")
        )
    return [*blocks, Text("")]


def _kind(one: Cause) -> str:
    return "" if one.kind == "unknown" else f"[{one.kind}] "


def _in_short(cell: CellVerdict) -> str:
    if cell.verdict == "not run":
        return "not reached"
    said = []
    for how, word in (
        ("differs", ""),
        ("within tolerance", "within tolerance: "),
        ("not comparable", "not comparable: "),
    ):
        told = [f"{one.what} {one.name}" if not word else one.name for one in cell.differences if one.how == how]
        if told:
            said.append(word + ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else ""))
    return "; ".join(said)
