"""All that is known of a subject, of whatever kind it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.records import Artifact, CellRun, Digest, Environment, Record, Run, short
from jupyter_mlops.views.cells import show_cell_run
from jupyter_mlops.views.environments import show_environment
from jupyter_mlops.views.parts import first_line, flat, tagged
from jupyter_mlops.views.registry import model_version
from jupyter_mlops.views.runs import show_run
from jupyter_mlops.views.subjects import Subject
from jupyter_mlops.widgets import Block, Facts, Table, View, size

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store


def show(project: Project, found: Subject) -> View:
    """All that is known of a subject."""
    value = found.value
    if isinstance(value, CellRun):
        return show_cell_run(value)
    if isinstance(value, Run):
        return show_run(project.store, value)
    if isinstance(value, Environment):
        return show_environment(value, title=f"Environment {short(found.line)}")
    if isinstance(value, Artifact):
        return _show_artifact(project.store, value, found.line)
    if isinstance(value, Record):
        facts = [(key, flat(item)) for key, item in msgspec.structs.asdict(value).items() if item]
        return View(title=f"{value.KIND} {short(found.line)}", blocks=[Facts(facts)], data=value)
    return model_version(project, value)


def _show_artifact(store: Store, one: Artifact, line: Digest | None) -> View:
    facts: list[tuple[str, object]] = [
        ("kind", one.kind),
        ("type", one.type),
        ("content", one.digest or one.why),
        ("size", size(one.size)),
        ("kept", "yes" if one.stored else "no: known by its fingerprint"),
    ]
    if line is not None:
        run = store.cell_run(line)
        facts.append(("cell run", f"{short(line)}  {first_line(run.source)}"))
    blocks: list[Block] = [Facts(facts)]
    if one.facts is not None:
        blocks += _facts_blocks(msgspec.json.decode(store.get(one.facts)))
    return View(title=one.name, blocks=blocks, data=one)


def _facts_blocks(facts: Any) -> list[Block]:
    """What an object of facts says: columns as a table, the rest a line each."""
    if not isinstance(facts, dict):
        return []
    schema = facts.get("schema")
    schema = schema if isinstance(schema, dict) else {}
    columns = schema.get("columns")
    if not (isinstance(columns, list) and columns and all(isinstance(one, dict) for one in columns)):
        return [Facts([(str(key), flat(value)) for key, value in facts.items()])]
    rows = [(flat(one.get("name")), flat(one.get("dtype")), tagged(str(one.get("digest", "")))) for one in columns]
    rest = {**{key: value for key, value in facts.items() if key != "schema"}, "index": schema.get("index")}
    return [
        Facts([(key, flat(value)) for key, value in rest.items() if value is not None]),
        Table(("column", "type", "content"), rows),
    ]
