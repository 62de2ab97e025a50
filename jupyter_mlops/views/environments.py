"""Environments: one, and what changed between two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_mlops.records import Artifact, CellRun, Digest, Environment, ModelVersion, Run
from jupyter_mlops.views.parts import gap_table
from jupyter_mlops.views.subjects import NotFound, Subject
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, size

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store


def environment(project: Project | None, found: Subject | None) -> View:
    """The environment of a subject, or the one here."""
    if project is None or found is None:
        return show_environment(_here(), title="The environment here")
    return show_environment(_environment_of(project.store, found), title=f"The environment of {found.text}")


def environment_diff(project: Project, old: Subject, new: Subject | None) -> View:
    """What changed between two environments; the answer is no where something did."""
    from jupyter_mlops import environment as world

    changed = world.diff(
        _environment_of(project.store, old), _environment_of(project.store, new) if new is not None else _here()
    )
    lines = list(changed.lines())
    return View(
        title=f"{old.text} → {new.text if new else 'here'}",
        blocks=[Text("\n".join(lines) or "The same environment.")],
        data=lines,
        ok=not changed,
    )


def _here() -> Environment:
    from jupyter_mlops import environment as world

    return world.observe()


def _environment_of(store: Store, found: Subject) -> Environment:
    value = found.value
    if isinstance(value, Environment):
        return value
    digest: Digest | None = None
    if isinstance(value, CellRun):
        digest = value.environment
    elif isinstance(value, Run):
        digest = next((one.environment for one in store.cell_runs(run=value.id) if one.environment), None)
    elif isinstance(value, Artifact) and found.line is not None:
        digest = store.cell_run(found.line).environment
    elif hasattr(value, "record") and isinstance(value.record, ModelVersion):
        digest = value.record.environment
    record = store.line(digest).record if digest else None
    if not isinstance(record, Environment):
        raise NotFound(f"no environment is on record for {found.text}")
    return record


def show_environment(record: Environment, *, title: str) -> View:
    """An environment: interpreter, machine, packages."""
    facts: list[tuple[str, object]] = [
        ("Python", f"{record.python} ({record.implementation})"),
        ("platform", f"{record.platform}, {record.machine}"),
        ("processor", f"{record.cpu}, {record.cores} cores, {size(record.memory)}"),
        (
            "GPU",
            ", ".join(record.gpus) + (f", driver {record.driver}" if record.driver else "") if record.gpus else "none",
        ),
    ]
    facts += sorted(record.variables.items())
    rows = [
        (one.name, one.version, one.origin, Mark(f"{one.loaded} is loaded", "bad") if one.loaded else "")
        for one in record.packages
    ]
    blocks: list[Block] = [Facts(facts), Table(("package", "version", "from", ""), rows), *gap_table(record.gaps)]
    return View(title=title, blocks=blocks, data=record)
