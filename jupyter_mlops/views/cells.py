"""Cell runs: a list of them, and one with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jupyter_mlops.records import Artifact, CellRun, short
from jupyter_mlops.views.parts import artifact_cells, cell_json, first_line, gap_table, state_mark
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, duration, number, when


def cell_runs(found: Sequence[CellRun]) -> View:
    """The latest cell runs, newest first."""
    rows = [
        (
            short(run.id),
            when(run.time),
            run.started.notebook or "—",
            str(run.started.count or ""),
            first_line(run.source),
            state_mark(run.status),
            duration(run.ended.seconds) if run.ended else "",
            _made(run),
        )
        for run in found
    ]
    headings = ("cell run", "started", "notebook", "#", "source", "status", "took", "made")
    return View(
        blocks=[Table(headings, rows, right=frozenset({3, 6}))] if rows else [Text("Nothing is on record yet.")],
        data=[cell_json(run) for run in found],
    )


def _made(run: CellRun) -> str:
    names = [one.name for one in (*run.outputs, *run.files_written)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def show_cell_run(run: CellRun) -> View:
    """One cell run: its code, what it read and made, and what is not known."""
    started, ended = run.started, run.ended
    facts: list[tuple[str, object]] = [
        ("started", when(run.time)),
        ("status", state_mark(run.status)),
        ("notebook", started.notebook or "—"),
        ("cell", f"{started.cell or '—'}, execution {started.count}"),
        ("run", short(started.run)),
        ("environment", short(run.environment) or "—"),
        ("code", short(run.code) or "—"),
    ]
    if started.label:
        facts.append(("label", started.label))
    if started.tickets:
        facts.append(("tickets", " ".join(ticket.id for ticket in started.tickets)))
    if started.redacted:
        facts.append(("redacted", f"{started.redacted} secrets masked: cannot be replayed verbatim"))
    if ended:
        facts.append(("took", f"{duration(ended.seconds)}, recording it {duration(ended.overhead)}"))
        if ended.randomness:
            facts.append(("randomness", ", ".join(f"{name} {how}" for name, how in sorted(ended.randomness.items()))))
        if ended.error:
            facts.append(("error", Mark(ended.error, "bad")))
    facts += [(line.what, f"{line.key} = {number(line.value)}") for line in run.logged if line.what != "artifact"]
    blocks: list[Block] = [Facts(facts), Text(run.source or "(empty)", tone="dim")]
    groups: list[tuple[str, Iterable[Artifact]]] = [
        ("read", run.inputs),
        ("made", run.outputs),
        ("file read", run.files_read),
        ("file written", run.files_written),
        ("source", ended.sources if ended else ()),
        ("module", ended.modules if ended else ()),
        ("shown", ended.displays if ended else ()),
    ]
    rows = [(how, *artifact_cells(one)) for how, group in groups for one in group]
    if rows:
        blocks.append(Table(("", "name", "type", "size", "content", "made by"), rows, right=frozenset({3})))
    blocks += gap_table(run.gaps)
    return View(title=f"Cell run {short(run.id)}", blocks=blocks, data=cell_json(run))
