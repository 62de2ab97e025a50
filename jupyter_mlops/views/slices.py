"""What a slice holds, and whether it makes the same again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_mlops.records import short
from jupyter_mlops.views.parts import counted, first_line
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.reproduce.slicing import Made


def sliced(project: Project, made: Made) -> View:
    """A slice that was written."""
    found, checked = made.slice, made.checked
    facts: list[tuple[str, object]] = [
        ("written", project.relative(made.path)),
        ("holds", counted(len(found.pieces), "cell run")),
    ]
    facts += [("needs", f"{one.kind} {one.name}  {short(one.digest)}") for one in found.files]
    facts += [("not the same at every run", Mark(f"{gap.subject}: {gap.reason}", "bad")) for gap in found.unseeded]
    rows = [
        (short(piece.run.id), piece.run.started.cell, first_line(piece.source), piece.note or _part(piece.whole))
        for piece in found.pieces
    ]
    blocks: list[Block] = [Facts(facts), Table(("cell run", "cell", "code", ""), rows)]
    if checked is not None:
        if checked.same:
            blocks.append(Text("Run again, it made the same.", tone="good"))
        else:
            told = [f"{name} was {short(was) or was}, and is {short(now) or now}" for name, was, now in checked.differs]
            told += [one for one in (checked.error, checked.first) if one]
            blocks.append(Text("Run again, it made something else.\n" + "\n".join(told), tone="bad"))
    return View(
        title=f"A notebook that makes {made.target.text}",
        blocks=blocks,
        data={"path": project.relative(made.path), "target": made.target, "cell_runs": [run.id for run in found.runs],
              "files": found.files, "unseeded": found.unseeded, "checked": checked},
        ok=checked is None or checked.same, code=1,
    )  # fmt: skip


def _part(whole: bool) -> str:
    return "" if whole else "in part"
