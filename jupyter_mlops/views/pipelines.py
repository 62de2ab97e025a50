"""Pipelines: what was found, how each step stands, how a run of it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.records import short
from jupyter_mlops.views.parts import counted, state_mark
from jupyter_mlops.views.unchanged import pipeline_unchanged
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, clean, duration, when

if TYPE_CHECKING:
    from jupyter_mlops.pipelines.graph import Pipeline
    from jupyter_mlops.pipelines.running import Result, State

_PASSED: Final = 3
"""Names on an arrow; ``--json`` has all."""


def pipeline_run(result: Result) -> View:
    """How a run of a pipeline went."""
    if result.status == "cached":
        return pipeline_unchanged([(name, one.run or "") for name, one in result.outcomes.items()])
    rows = []
    for name, one in result.outcomes.items():
        why = one.cause or one.error.partition("\n")[2] or one.error if not one.ok else one.because
        if one.put_back:
            why = f"put back: {', '.join(one.put_back[:_PASSED])}"
        took = duration(one.seconds) if one.status not in ("skipped", "cached") else ""
        rows.append((name, state_mark(one.status), took, short(one.run), Mark(why, "" if one.ok else "bad")))
    failed = [f"{name}, {one.error}" for name, one in result.outcomes.items() if one.error and not one.ok]
    return View(
        blocks=[
            Table(("step", "", "took", "run", "because"), rows, right=frozenset({2})),
            *(Text(text, tone="bad") for text in failed),
            Text(""),
            Facts([("pipeline", state_mark(result.status)), ("took", duration(result.seconds)),
                   ("run", short(result.run))]),
        ],
        data={"run": result.run, "status": result.status, "seconds": result.seconds, "steps": result.outcomes},
        ok=result.ok, code=3,
    )  # fmt: skip


def pipeline_found(pipeline: Pipeline, path: Path, text: str) -> View:
    """A pipeline that was found, and written down."""
    ties = counted(len(pipeline.ties), "tie")
    return View(
        title=f"{path.name}: {counted(len(pipeline.steps), 'step')}, {ties} between them",
        blocks=[Text(text)],
        data={"file": path.name, "steps": pipeline.steps, "ties": pipeline.ties},
        hint="mlops pipeline run",
    )


def pipeline_shown(pipeline: Pipeline, states: Mapping[str, State]) -> View:
    """A pipeline, each step below what it builds on, with how it stands."""
    rows = []
    for name, member in pipeline.steps.items():
        state = states[name]
        ran = f"{state.last.status} {when(state.last.time)}" if state.last is not None else "never"
        stands = Mark("current", "good") if state.current else Mark(f"to run: {state.why}", "dim")
        rows.append((name, member.notebook, ", ".join(pipeline.before(name)), ran, stands))
    title = pipeline.file.name if pipeline.file else "pipeline"
    blocks: list[Block] = [Table(("step", "notebook", "after", "last ran", "stands"), rows)]
    passed = [
        (f"{tie.before} → {tie.after}", ", ".join(tie.what[:_PASSED]) + (" …" if len(tie.what) > _PASSED else ""))
        for tie in pipeline.ties
    ]
    if passed:
        blocks += [Text(""), Table(("tie", "what passes"), passed)]
    return View(
        title=title, blocks=blocks,
        data={"steps": {name: {"step": member, **_standing(states[name])} for name, member in pipeline.steps.items()},
              "ties": pipeline.ties},
        png=_picture(pipeline, states, title),
    )  # fmt: skip


def _standing(state: State) -> dict[str, Any]:
    return {"current": state.current, "why": state.why, "last": state.last.id if state.last else None}


def _picture(pipeline: Pipeline, states: Mapping[str, State], title: str) -> Callable[[], bytes]:
    def draw() -> bytes:
        from jupyter_mlops.lineage import Node
        from jupyter_mlops.views.drawing import drawn

        nodes = []
        for name, member in pipeline.steps.items():
            state = states[name]
            failed = state.last is not None and state.last.status in ("failed", "interrupted")
            kind = "current" if state.current else "failed" if failed else "due"
            said = "current" if state.current else f"{state.last.status}, to run again" if state.last else "never run"
            nodes.append(Node(name, kind, name, f"{member.notebook} · {said}"))
        edges = [(tie.before, tie.after, what) for tie in pipeline.ties for what in tie.what or ("",)]
        return drawn(nodes, edges, title=title)

    return draw


def mermaid(pipeline: Pipeline, states: Mapping[str, State]) -> str:
    """A pipeline as a flowchart in Mermaid's words."""
    lines = ["flowchart TD"]
    ids = {name: f"s{number}" for number, name in enumerate(pipeline.steps)}
    for name, member in pipeline.steps.items():
        lines.append(f'    {ids[name]}["{_label(name)}<br/>{_label(member.notebook)}"]')
    for tie in pipeline.ties:
        what = ", ".join(tie.what[:_PASSED]) + (" …" if len(tie.what) > _PASSED else "")
        arrow = f'-->|"{_label(what)}"|' if what else "-->"
        lines.append(f"    {ids[tie.before]} {arrow} {ids[tie.after]}")
    current = [ids[name] for name, state in states.items() if state.current]
    if current:
        lines += ["    classDef current fill:#dbe9d8", f"    class {','.join(current)} current"]
    return "\n".join(lines)


def _label(text: str) -> str:
    """A text as Mermaid shows it between quotes: nothing in it is markup."""
    kept: dict[str, Any] = {'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"}
    return "".join(kept.get(one, one) for one in clean(text))
