"""Where a subject comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.lineage import lineage as walk
from jupyter_mlops.records import Artifact, CellStarted, CodeState, Digest, Environment, ModelVersion, short
from jupyter_mlops.views.drawing import picture
from jupyter_mlops.views.parts import cell_json, gap_table, tagged
from jupyter_mlops.views.subjects import NotFound, Subject
from jupyter_mlops.widgets import Block, Facts, Text, Tree, View, size

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store


TOLD_OF: Final = ("numpy", "pandas", "polars", "pyarrow", "scikit-learn", "torch", "xgboost", "lightgbm")
"""Packages whose versions a lineage names; `env show` has all."""


def lineage(project: Project, found: Subject, *, title: str, draw: bool = False) -> View:
    """Where a subject comes from: cell runs, files, environment, commit; with `draw`, a picture of it as well."""
    store = project.store
    value = found.value
    root = origin(store, found)
    if root is None:
        if isinstance(value, Artifact):
            return _from_outside(store, value, found.line, title)
        raise NotFound(f"no cell run is on record that made {title}", next="mlops show says what is known of it")
    graph = walk([root], store.cell_run)
    facts: list[tuple[str, object]] = []
    for one in graph.files:
        facts.append((one.kind, f"{one.name}  {size(one.size)}  {one.digest or one.why}"))
    facts += [("environment", _environment_line(store, digest)) for digest in graph.environments()]
    facts += [("code", _code_line(store, digest)) for digest in graph.codes()]
    gaps = [gap for run in graph.runs for gap in run.gaps if gap.blocks]
    blocks: list[Block] = [Tree(graph.lines()), Facts(facts), *gap_table(gaps)]
    if graph.missing:
        blocks.append(Text(f"not on record here: {', '.join(map(short, graph.missing))}", tone="bad"))
    nodes, _ = graph.nodes()
    data = {"roots": graph.roots, "nodes": nodes, "runs": [cell_json(run) for run in graph.runs], "edges": graph.edges,
            "files": graph.files, "missing": graph.missing}  # fmt: skip
    heading = heading_of(value, title)
    return View(
        title=heading, blocks=blocks, data=data, png=(lambda: picture(graph, title=heading)) if draw else None
    )  # fmt: skip


def origin(store: Store, found: Subject) -> Digest | None:
    """The cell run a subject comes from; None where no cell run made it."""
    value = found.value
    if isinstance(getattr(value, "record", None), ModelVersion):
        root: Digest | None = value.record.cell_run
    elif isinstance(value, Artifact):
        root = value.made or found.line
        if value.made is None and found.line is not None:
            run = store.cell_run(found.line)
            if value not in (*run.outputs, *run.files_written):
                return None
    else:
        root = found.line
    return root if root is not None and isinstance(store.line(root).record, CellStarted) else None


def _from_outside(store: Store, one: Artifact, line: Digest | None, title: str) -> View:
    """What no cell run made: who read it is all there is to tell."""
    readers = [short(digest) for digest in store.used_by(one.digest)] if one.digest is not None else []
    if line is not None and not readers:
        readers = [short(line)]
    few = ", ".join(readers[:10]) + (f" and {len(readers) - 10} more" if len(readers) > 10 else "")
    return View(
        title=heading_of(one, title),
        blocks=[Text("No cell run on record made it: it comes from outside."), Facts([("read by", few or "nobody")])],
        data={"roots": [], "nodes": [], "runs": [], "edges": [], "files": [one], "missing": [], "read_by": readers},
    )


def heading_of(value: Any, title: str) -> str:
    """What a lineage is of, in a line: the version that is meant."""
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


def drawn(view: View, path: Path) -> View:
    """Draw an answer's picture into a file.

    Raises
    ------
    WrongUse
        There is nothing to draw, or the file can not be written.
    """
    if view.png is None:
        raise WrongUse(f"there is nothing to draw of {view.title}", cause="no cell run on record made it")
    data = view.png()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise WrongUse(f"{str(path)!r} can not be written", cause=error.strerror or str(error)) from error
    return View(title=f"drawn: {path}", data={"output": str(path), "size": len(data)})
