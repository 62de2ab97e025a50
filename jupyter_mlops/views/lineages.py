"""Where a subject comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.records import Artifact, CellStarted, CodeState, Digest, Environment, ModelVersion, short
from jupyter_mlops.views.parts import cell_json, gap_table, tagged
from jupyter_mlops.views.subjects import NotFound, Subject
from jupyter_mlops.widgets import Block, Facts, Text, View, size

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store


TOLD_OF: Final = ("numpy", "pandas", "polars", "pyarrow", "scikit-learn", "torch", "xgboost", "lightgbm")
"""Packages whose versions a lineage names; `env show` has all."""


def lineage(project: Project, found: Subject, *, title: str) -> View:
    """Where a subject comes from: cell runs, files, environment, commit."""
    from jupyter_mlops.lineage import lineage as walk

    store = project.store
    value = found.value
    root = value.record.cell_run if isinstance(getattr(value, "record", None), ModelVersion) else found.line
    if root is None or not isinstance(store.line(root).record, CellStarted):
        raise NotFound(f"no cell run is on record that made {title}", next="mlops show says what is known of it")
    graph = walk([root], store.cell_run)
    facts: list[tuple[str, object]] = []
    for one in graph.files:
        facts.append((one.kind, f"{one.name}  {size(one.size)}  {one.digest or one.why}"))
    facts += [("environment", _environment_line(store, digest)) for digest in graph.environments()]
    facts += [("code", _code_line(store, digest)) for digest in graph.codes()]
    gaps = [gap for run in graph.runs for gap in run.gaps if gap.blocks]
    blocks: list[Block] = [Text(graph.text()), Facts(facts), *gap_table(gaps)]
    if graph.missing:
        blocks.append(Text(f"not on record here: {', '.join(map(short, graph.missing))}", tone="bad"))
    data = {"roots": graph.roots, "runs": [cell_json(run) for run in graph.runs], "edges": graph.edges,
            "files": graph.files, "missing": graph.missing}  # fmt: skip
    return View(title=_lineage_title(value, title), blocks=blocks, data=data)


def _lineage_title(value: Any, title: str) -> str:
    record = getattr(value, "record", None)
    if isinstance(record, ModelVersion):
        return f"{title}: version {value.version} of {record.name}, {record.model.type} {short(record.model.digest)}"
    if isinstance(value, Artifact):
        return f"{title}: {value.type or value.kind} {tagged(value.digest) if value.digest else value.why}"
    return title


def _environment_line(store: Store, digest: Digest) -> str:
    record = store.line(digest).record
    if not isinstance(record, Environment):
        return f"{short(digest)}  can not be read"
    told = [f"{one.name} {one.version}" for one in record.packages if one.name.lower() in TOLD_OF]
    return f"{short(digest)}  Python {record.python}, {', '.join(told)}, {len(record.packages)} packages in all"


def _code_line(store: Store, digest: Digest) -> str:
    record = store.line(digest).record
    if not isinstance(record, CodeState):
        return f"{short(digest)}  can not be read"
    commit = f"commit {record.commit[:12]} on {record.branch or 'no branch'}" if record.commit else "no commit"
    state = f"{len(record.dirty)} files changed since" if record.dirty else "nothing changed since"
    return f"{short(digest)}  {commit}, {state}"
