"""Runs: a list of them, one with its cells, and how a headless one went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_mlops.records import Digest, ModelVersion, Run, short
from jupyter_mlops.views.cells import cell_runs
from jupyter_mlops.views.parts import gap_table, state_mark
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, duration, number, when

if TYPE_CHECKING:
    from jupyter_mlops.pipelines import RunResult
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store


def runs(store: Store, limit: int) -> View:
    """The latest runs, newest first."""
    found = store.runs(limit=limit)
    rows = [
        (
            short(run.id),
            when(run.time),
            run.started.trigger,
            run.started.notebook or "—",
            " ".join(f"{key}={number(value)}" for key, value in run.started.parameters.items()),
            state_mark(run.status),
            duration(run.ended.seconds) if run.ended else "",
            run.started.user,
        )
        for run in found
    ]
    headings = ("run", "started", "by way of", "notebook", "parameters", "status", "took", "who")
    return View(
        blocks=[Table(headings, rows, right=frozenset({6}))] if rows else [Text("Nothing is on record yet.")],
        data=[{"id": run.id, "time": run.time, "status": run.status, "started": run.started, "ended": run.ended}
              for run in found],
    )  # fmt: skip


def run_result(project: Project, result: RunResult) -> View:
    """How a headless run went."""
    output = project.relative(result.output)
    facts: list[tuple[str, object]] = [
        ("run", short(result.run)),
        ("status", state_mark(result.status)),
        ("took", f"{duration(result.seconds)}, {result.cells} cells"),
        ("output", output),
    ]
    metrics: dict[str, Any] = {}
    for run in project.store.cell_runs(run=result.run, newest_first=False) if result.run else ():
        metrics.update(run.metrics)
    facts += [(name, number(value)) for name, value in sorted(metrics.items())]
    registered = _registered(project.store, result.run)
    facts += [("registered", f"models:/{one}") for one in registered]
    blocks: list[Block] = [Facts(facts)]
    if result.error is not None:
        blocks.append(Text(str(result.error), tone="bad"))
    blocks += gap_table(result.gaps)
    return View(
        blocks=blocks,
        data={"run": result.run, "status": result.status, "seconds": result.seconds, "output": output,
              "metrics": metrics, "registered": registered},
        ok=result.status == "done", code=3,
    )  # fmt: skip


def _registered(store: Store, run: Digest | None) -> list[str]:
    """The model versions that a run registered, as in ``delays/3``."""
    made = {digest for digest, _, one in store.records(ModelVersion) if run is not None and one.run == run}
    names = sorted({ref for ref in store.refs("models/") if made and "@" not in ref})
    return [
        f"{ref.removeprefix('models/')}/{move.number}"
        for ref in names
        for move in store.moves(ref)
        if move.transition.new in made
    ]


def show_run(store: Store, run: Run) -> View:
    """One run, with its cell runs in their order."""
    facts: list[tuple[str, object]] = [
        ("started", when(run.time)),
        ("status", state_mark(run.status)),
        ("by way of", run.started.trigger),
        ("notebook", run.started.notebook or "—"),
        ("who", run.started.user),
    ]
    facts += [("parameter", f"{name} = {number(value)}") for name, value in run.started.parameters.items()]
    if run.ended:
        facts.append(("took", duration(run.ended.seconds)))
        if run.ended.error:
            facts.append(("error", Mark(run.ended.error, "bad")))
    inner = cell_runs(store.cell_runs(run=run.id, newest_first=False))
    return View(
        title=f"Run {short(run.id)}",
        blocks=[Facts(facts), *inner.blocks],
        data={"id": run.id, "started": run.started, "ended": run.ended, "cell_runs": inner.data},
    )
