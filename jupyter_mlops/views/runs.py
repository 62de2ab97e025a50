"""Runs: a list of them, one with its cells, and how a headless one went."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_mlops.records import CheckResult, Digest, ModelVersion, Run, short
from jupyter_mlops.targets.protocol import Outcome
from jupyter_mlops.views.cells import cell_runs
from jupyter_mlops.views.parts import counted, gap_table, state_mark, tick
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, duration, number, when

if TYPE_CHECKING:
    from jupyter_mlops.pipelines import Parameter, RunResult, Sweep
    from jupyter_mlops.pipelines.cache import Answer
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store
    from jupyter_mlops.targets import Standing


def run_list(store: Store, limit: int) -> View:
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


def parameters(notebook: Path, found: Sequence[Parameter]) -> View:
    """What a notebook can be given."""
    shown = [one.masked() for one in found]
    rows = [
        (one.name, one.type or "any", one.source, one.help, Mark("secret") if one.secret else "") for one in shown
    ]  # fmt: skip
    return View(
        title=f"{notebook.name} takes {counted(len(rows), 'parameter')}",
        blocks=[Table(("name", "type", "default", "what it is", ""), rows)] if rows else [],
        data=shown,
        hint="" if rows else "A cell with the tag 'parameters' declares them, by assigning to each name",
    )


def run_result(project: Project, result: RunResult) -> View:
    """How a headless run went."""
    return step_result(project, outcome(project, result))


def outcome(project: Project, result: RunResult) -> Outcome:
    """What came of a run, in the words of a step."""
    from jupyter_mlops.pipelines.steps import logged

    return Outcome(
        status=result.status, run=result.run, output=project.relative(result.output), seconds=result.seconds,
        cells=result.cells, error=str(result.error) if result.error else "", gaps=result.gaps,
        metrics=logged(project, result.run)[0], because=result.because, put_back=result.put_back, notes=result.notes,
        recalled=len(result.recalled), again=result.again,
    )  # fmt: skip


def due(project: Project, notebook: Path, answer: Answer) -> View:
    """Whether a run is due, and whether the run that stands had data that broke a contract; yes where neither is so."""
    asked: dict[tuple[str, str, str], CheckResult] = {}
    for _, _, one in project.store.records(CheckResult):  # the latest first
        if answer.run is not None and one.evidence.get("run") == answer.run:
            names = (str(one.evidence.get(name, "")) for name in ("data", "against"))
            asked.setdefault((one.check, *names), one)  # type: ignore[arg-type]
    broken = [one for one in asked.values() if not one.passed]
    facts: list[tuple[str, object]] = [("notebook", project.relative(notebook))]
    if answer.run is None:
        facts.append(("a run is due", Mark(answer.why, "bad")))
    else:
        facts += [("stands", f"run {short(answer.run)}: nothing it follows from has changed")]
        facts += [("gone, and at hand", one.name) for _, one in answer.back]
    facts += [("broken", Mark(one.summary, "bad")) for one in broken]
    return View(
        blocks=[Facts(facts)], ok=answer.run is not None and not broken,
        data={"run": answer.run, "why": answer.why, "broken": broken, "gone": [one.name for _, one in answer.back]},
        hint="mlops run --cache notebook runs it, and keeps what --check asks for" if answer.run is None else "",
    )  # fmt: skip


def step_result(project: Project, outcome: Outcome) -> View:
    """How a step went, wherever it ran."""
    facts: list[tuple[str, object]] = [
        ("run", short(outcome.run)),
        ("status", state_mark(outcome.status)),
        ("took", f"{duration(outcome.seconds)}, {outcome.cells} cells"),
        ("output", outcome.output),
    ]
    if outcome.recalled or outcome.again:
        facts.append(("recalled", f"{outcome.recalled} of {outcome.cells} cells"))
    if outcome.attempts > 1:
        facts.append(("attempts", outcome.attempts))
    if outcome.status == "cached":
        facts[1] = ("status", Mark("cached: nothing it follows from has changed, and nothing ran", "good"))
        facts[2] = ("looked", duration(outcome.seconds))
    facts += [("ran because", outcome.because)] if outcome.because else []
    facts += [("put back", name) for name in outcome.put_back]
    facts += [("note", Mark(note, "dim")) for note in outcome.notes]
    facts += [(name, number(value)) for name, value in sorted(outcome.metrics.items())]
    registered = _registered(project.store, outcome.run)
    facts += [("registered", f"models:/{one}") for one in registered]
    blocks: list[Block] = [Facts(facts)]
    blocks += [Text(text, tone="bad") for text in (outcome.error, outcome.cause) if text and not outcome.ok]
    if outcome.again:
        rows = [(str(place), why) for place, why in outcome.again]
        blocks.append(Table(("cell", "it ran, because"), rows, right=frozenset({0})))
    blocks += gap_table(outcome.gaps)
    return View(
        blocks=blocks,
        data={"run": outcome.run, "status": outcome.status, "seconds": outcome.seconds, "output": outcome.output,
              "metrics": outcome.metrics, "registered": registered, "attempts": outcome.attempts,
              "error": outcome.error or outcome.cause, "because": outcome.because, "put_back": outcome.put_back,
              "notes": outcome.notes, "recalled": outcome.recalled, "again": outcome.again},
        ok=outcome.ok, code=3,
    )  # fmt: skip


def swept(found: Sweep, *, as_csv: bool = False) -> View:
    """A sweep's table."""
    rows = found.rows()
    if as_csv:
        return View(blocks=[Text(_csv(rows))], data=_sweep_json(found), ok=found.ok, code=3)
    facts: list[tuple[str, object]] = [
        ("sweep", short(found.run)),
        ("notebook", found.notebook),
        ("took", f"{duration(found.seconds)}, {counted(len(rows), 'run')}"),
    ]
    headings = [name for name in (rows[0] if rows else {}) if name not in ("notebook", "run", "why")]
    table = [
        (
            Mark("best", "good") if place == found.best else "",
            *(_sweep_cell(name, row[name]) for name in headings),
            short(row["run"]),
        )
        for place, row in enumerate(rows)
    ]
    why = [
        Text(
            f"{' '.join(f'{name}={number(value)}' for name, value in one.parameters.items())}: {one.outcome.why}", "bad"
        )
        for one in found.points
        if not one.outcome.ok
    ]
    return View(
        blocks=[Facts(facts), Table(("", *headings, "run"), table), *why[:20]], data=_sweep_json(found), ok=found.ok,
        code=3,
    )  # fmt: skip


def _sweep_cell(name: str, value: Any) -> object:
    if name == "status":
        return state_mark(value)
    return duration(value) if name == "seconds" else "" if value is None else number(value)


def _sweep_json(found: Sweep) -> dict[str, Any]:
    return {"run": found.run, "notebook": found.notebook, "seconds": found.seconds, "best": found.best,
            "rows": found.rows()}  # fmt: skip


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula is marked as text."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    for row in rows:
        writer.writerow([
            f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
            for value in row.values()
        ])  # fmt: skip
    return file.getvalue()


def targets(found: Sequence[Standing]) -> View:
    """What `--target` takes."""
    rows = [
        (one.name, tick(not one.hindrance), one.kind, Mark(one.hindrance, "bad") if one.hindrance else one.about)
        for one in found
    ]
    return View(
        blocks=[Table(("name", "usable", "kind", "where its steps run, or why they can not"), rows)],
        data=[{"name": one.name, "kind": one.kind, "usable": not one.hindrance, "why": one.hindrance,
               "about": one.about, "options": sorted(one.options)} for one in found],
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
        *([("on behalf of", run.started.on_behalf_of)] if run.started.on_behalf_of else []),
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
