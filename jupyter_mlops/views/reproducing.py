"""Bringing a past run back: locks, environments made from them, checkouts, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.records import Environment, short
from jupyter_mlops.views.parts import gap_table
from jupyter_mlops.widgets import Block, Facts, Mark, Text, View, size

if TYPE_CHECKING:
    from jupyter_mlops.environment.locking import Lock
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
