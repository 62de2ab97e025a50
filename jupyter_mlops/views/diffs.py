"""What is different between two subjects of one kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_mlops import compare
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Artifact, CellRun, Environment, ModelVersion, Record, Run
from jupyter_mlops.views.environments import environment_diff
from jupyter_mlops.views.parts import first_line, flat, tagged
from jupyter_mlops.views.subjects import Subject
from jupyter_mlops.widgets import Block, Mark, Table, Text, View

if TYPE_CHECKING:
    from jupyter_mlops.project import Project


def diff(project: Project, old: Subject, new: Subject) -> View:
    """What is different between two subjects of one kind; the answer is no where something is."""
    first, second = old.value, new.value
    if type(first) is not type(second):
        raise WrongUse(
            f"{old.text} and {new.text} are not of one kind", next="two cell runs, runs, environments, values or models"
        )
    store = project.store
    if isinstance(first, Environment):
        return environment_diff(project, old, new)
    if isinstance(first, CellRun):
        found = compare.cell_runs(store, first, second)
    elif isinstance(first, Run):
        found = compare.runs(store, first, second)
    elif isinstance(first, Artifact):
        found = compare.artifacts(store, first, second)
    elif isinstance(first, Record):
        found = compare.records(first, second)
    else:
        assert isinstance(first.record, ModelVersion)
        found = compare.models(store, first.record, second.record)
    return difference(found, title=f"{old.text} → {new.text}")


def difference(found: compare.Difference, *, title: str) -> View:
    """Show what is different; the answer is no where something is."""
    blocks: list[Block] = [
        Text(line, tone={"+": "good", "-": "bad"}.get(line[:1], "dim")) for line in found.source
    ]  # fmt: skip
    if found.changes:
        rows = [(one.what, one.name, _side(one.old), _side(one.new)) for one in found.changes]
        blocks.append(Table(("", "", "before", "after"), rows))
    if found.table:
        blocks += _table(found.table)
    if found.environment:
        blocks.append(Text("\n".join(found.environment.lines())))
    if found.cells:
        cells = [(one.cell, first_line(one.source), ", ".join(one.differs)) for one in found.cells]
        blocks.append(Table(("cell", "source", "differs in"), cells))
    if not found:
        blocks.append(Text("No difference." if not found.unknown else "No difference is on record."))
    blocks += [Text(f"Not compared: {reason}.", tone="dim") for reason in found.unknown]
    return View(title=title, blocks=blocks, data=found, ok=not found)


def _side(value: Any) -> object:
    if value is None:
        return Mark("—")
    text = flat(value)
    kind, colon, rest = text.rpartition(" ")
    if isinstance(value, str) and ":" in rest and compare.is_digest(rest):
        return f"{kind}{colon}{tagged(rest)}"  # a column's type stands before its digest
    return text


def _table(found: compare.TableDifference) -> list[Block]:
    blocks: list[Block] = []
    columns: list[tuple[object, ...]] = [(Mark("+", "good"), name, "", "") for name in found.added]
    columns += [(Mark("−", "bad"), name, "", "") for name in found.removed]
    columns += [("~", name, old, new) for name, old, new in found.retyped]
    columns += [("~", "order of columns", "", "")] if found.reordered else []
    if found.moved:
        blocks.append(Text("The rows stand in another order."))
    if columns:
        blocks.append(Table(("", "column", "before", "after"), columns))
    added, removed, changed = found.rows
    if any(found.rows):
        said = [f"{added:,} added", f"{removed:,} removed"]
        said += [f"{changed:,} changed"] if found.matched != "content" else []
        blocks.append(Text(f"Rows, matched by {found.matched}: {', '.join(said)}."))
    if found.changed:
        blocks.append(Table(("column", "values changed"), [(name, f"{n:,}") for name, n in found.changed.items()]))
    if found.value_samples:
        blocks.append(Table(("row", "column", "before", "after"), list(found.value_samples)))
    if found.row_samples:
        signs = {"added": Mark("+", "good"), "removed": Mark("−", "bad")}
        rows = [
            (signs[what], label, ", ".join(f"{name}={value}" for name, value in row.items()))
            for what, label, row in found.row_samples
        ]
        blocks.append(Table(("", "row", "values"), rows))
    if found.statistics:
        rows_ = [(name, what, _side(old), _side(new)) for name, what, old, new in found.statistics]
        blocks.append(Table(("column", "statistic", "before", "after"), rows_))
    return blocks
