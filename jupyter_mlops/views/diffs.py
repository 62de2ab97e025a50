"""What is different between two subjects of one kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Artifact, CellRun, Digest, Environment, ModelVersion, Run, short
from jupyter_mlops.views.environments import environment_diff
from jupyter_mlops.views.parts import first_line, flat, tagged
from jupyter_mlops.views.subjects import Subject
from jupyter_mlops.widgets import Block, Mark, Table, Text, View

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import VersionInfo
    from jupyter_mlops.store import Store


def diff(project: Project, old: Subject, new: Subject) -> View:
    """What is different between two subjects of one kind; the answer is no where something is."""
    first, second = old.value, new.value
    if type(first) is not type(second):
        raise WrongUse(
            f"{old.text} and {new.text} are not of one kind", next="two cell runs, runs, environments or models"
        )
    if isinstance(first, Environment):
        return environment_diff(project, old, new)
    store = project.store
    if isinstance(first, CellRun):
        blocks = _cell_run_diff(store, first, second)
    elif isinstance(first, Run):
        blocks = _run_diff(store, first, second)
    elif isinstance(first, Artifact):
        blocks = _artifact_diff(store, first, second)
    elif hasattr(first, "record") and isinstance(first.record, ModelVersion):
        blocks = _model_diff(store, first, second)
    else:
        blocks = _changes(msgspec.to_builtins(first), msgspec.to_builtins(second))
    same: list[Block] = [Text("No difference.")]
    return View(title=f"{old.text} → {new.text}", blocks=blocks or same, data=[old.line, new.line], ok=not blocks)


def _source_diff(old: str, new: str) -> list[Block]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    return [Text(line, tone={"+": "good", "-": "bad"}.get(line[:1], "dim")) for line in lines]


def _contents(artifacts: Iterable[Artifact]) -> dict[str, str]:
    return {one.name: tagged(one.digest) if one.digest else one.why for one in artifacts}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], what: str = "") -> list[Block]:
    rows = [
        (what, key, flat(old[key]) if key in old else Mark("—"), flat(new[key]) if key in new else Mark("—"))
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
    return [Table(("", "", "before", "after"), rows)] if rows else []


def _cell_run_diff(store: Store, old: CellRun, new: CellRun) -> list[Block]:
    blocks = _source_diff(old.source, new.source)
    for what, before, after in (
        ("read", old.inputs, new.inputs),
        ("made", old.outputs, new.outputs),
        ("file read", old.files_read, new.files_read),
        ("file written", old.files_written, new.files_written),
    ):
        blocks += _changes(_contents(before), _contents(after), what)
    blocks += _changes(old.metrics, new.metrics, "metric")
    for what, before_, after_ in (
        ("environment", old.environment, new.environment),
        ("code", old.code, new.code),
    ):
        if not _same(store, before_, after_):
            blocks += _changes({"": short(before_)}, {"": short(after_)}, what)
    return blocks + _changes({"status": old.status}, {"status": new.status})


def _run_diff(store: Store, old: Run, new: Run) -> list[Block]:
    metrics: list[dict[str, Any]] = [{}, {}]
    for side, run in zip(metrics, (old, new), strict=True):
        for cell in store.cell_runs(run=run.id, newest_first=False):
            side.update(cell.metrics)
    blocks = _changes(old.started.parameters, new.started.parameters, "parameter")
    return blocks + _changes(metrics[0], metrics[1], "metric") + _cells_diff(store, old, new)


def _cells_diff(store: Store, old: Run, new: Run) -> list[Block]:
    """Cell by cell, by the notebook's ids: in what two runs differ."""
    before, after = (
        {one.started.cell or f"#{one.started.count}": one for one in store.cell_runs(run=run.id, newest_first=False)}
        for run in (old, new)
    )
    rows: list[tuple[object, ...]] = []
    for cell in dict.fromkeys((*before, *after)):
        one, other = before.get(cell), after.get(cell)
        changed = "only after" if one is None else "only before" if other is None else _what_differs(store, one, other)
        if changed:
            shown = other or one
            rows.append((cell, first_line(shown.source) if shown else "", changed))
    return [Table(("cell", "source", "differs in"), rows)] if rows else []


def _same(store: Store, old: Digest | None, new: Digest | None) -> bool:
    """Whether two lines say the same; each line has salts of its own, so their digests do not tell."""
    if old is None or new is None or old == new:
        return old == new
    return store.line(old).record == store.line(new).record


def _what_differs(store: Store, old: CellRun, new: CellRun) -> str:
    parts = {
        "source": old.source != new.source,
        "what it read": _contents((*old.inputs, *old.files_read)) != _contents((*new.inputs, *new.files_read)),
        "what it made": _contents((*old.outputs, *old.files_written)) != _contents((*new.outputs, *new.files_written)),
        "status": old.status != new.status,
        "environment": not _same(store, old.environment, new.environment),
        "code around it": not _same(store, old.code, new.code),
    }
    return ", ".join(part for part, differs in parts.items() if differs)


def _artifact_diff(store: Store, old: Artifact, new: Artifact) -> list[Block]:
    if old.digest is not None and old.digest == new.digest:
        return []
    blocks = _changes(_contents([old]), {old.name: _contents([new])[new.name]})
    if old.facts and new.facts:
        before, after = (msgspec.json.decode(store.get(facts)) for facts in (old.facts, new.facts))
        if isinstance(before, dict) and isinstance(after, dict):
            blocks += _changes(before, after, "fact")
    return blocks


def _model_diff(store: Store, old: VersionInfo, new: VersionInfo) -> list[Block]:
    from jupyter_mlops import environment as world

    first, second = old.record, new.record
    blocks = _changes(first.metrics, second.metrics, "metric")
    blocks += _changes(first.parameters, second.parameters, "parameter")
    blocks += _changes(_contents([first.model]), _contents([second.model]), "model")
    blocks += _changes(_contents(first.training), _contents(second.training), "training data")
    if first.environment and second.environment and not _same(store, first.environment, second.environment):
        one, other = (store.line(digest).record for digest in (first.environment, second.environment))
        if isinstance(one, Environment) and isinstance(other, Environment):
            blocks.append(Text("\n".join(world.diff(one, other).lines())))
    if first.run and second.run and first.run != second.run:
        # Its metrics and parameters are the runs' own: what is left to tell is the cells.
        blocks += _cells_diff(store, store.run(first.run), store.run(second.run))
    return blocks
