"""Bringing a past run back: locks, environments made from them, checkouts, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.records import Environment, short
from jupyter_mlops.views.parts import gap_table
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, size

if TYPE_CHECKING:
    from jupyter_mlops.environment.locking import Lock
    from jupyter_mlops.reproduce.checkout import Checkout
    from jupyter_mlops.reproduce.create import Created


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
