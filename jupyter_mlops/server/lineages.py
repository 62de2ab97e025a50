"""Where something comes from, as nodes and edges that a page draws: the facts of ``mlops lineage``.

A cell run stands above what it made, and that above the cell runs that read it, so that each version of a value is a
node of its own. Around them are files and sources, environments, commits, tickets, and what is not known. What is far
back is not walked to: it stands there as a node from which to go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.capture.live import row_of
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.lineage import Graph
from jupyter_mlops.lineage import lineage as walk
from jupyter_mlops.records import (
    Artifact,
    CellRun,
    CodeState,
    Digest,
    Environment,
    ModelVersion,
    RecordInvalid,
    short,
)
from jupyter_mlops.registry import LocalRegistry
from jupyter_mlops.store import NotFound
from jupyter_mlops.views.lineages import heading_of, origin
from jupyter_mlops.views.parts import counted, flat
from jupyter_mlops.views.subjects import Subject, subject

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store

WALKED: Final = 300
"""Cell runs that are walked to unless more are asked for."""
MOST_WALKED: Final = 2000
_MANY: Final = 30  # things that one cell run read, or readers of one file, which are nodes of their own
_NAMED: Final = 300  # cell runs whose names are offered
_TEXT: Final = 300  # characters of a label


class LineageNode(msgspec.Struct, frozen=True, kw_only=True):
    """Something a lineage leads through.

    Attributes
    ----------
    kind
        ``cell``, ``value``, ``file``, ``source``, ``module``, ``metric``, ``model``, ``environment``, ``commit``,
        ``ticket``, ``gap`` (not known), ``missing`` (referred to, and not on record), ``beyond`` (not walked to),
        ``more``.
    label, detail
        What it is called; which version it is, where it stands, or why it is not known.
    cell_run
        The cell run that it is, or that made it.
    status
        Of a cell run: how it ended.
    """

    id: str
    kind: str
    label: str
    detail: str
    cell_run: Digest | None
    status: str
    marks: list[str]


class LineageEdge(msgspec.Struct, frozen=True, kw_only=True):
    """What something comes from: `source` came before `target`."""

    source: str
    target: str


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where something comes from.

    Attributes
    ----------
    title
        Which version of what it is.
    root
        The node that was asked for.
    cell_runs
        How many were walked to; `beyond` more are known of by name, from which to go on.
    outside
        No cell run on record made it: what follows it are those that read it.
    """

    of: str
    title: str
    root: str
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    cell_runs: int
    beyond: int
    outside: bool
    mark: str


class Name(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can be asked for.

    Attributes
    ----------
    kind
        ``variable``, ``metric``, ``file``, ``model``.
    of
        The reference that means this very version of it.
    """

    name: str
    kind: str
    detail: str
    of: str


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What a notebook made and logged, the latest first, and the project's models."""

    names: list[Name]


class _Drawing:
    """Nodes and edges as they are found, each once."""

    def __init__(self) -> None:
        self.nodes: dict[str, LineageNode] = {}
        self.edges: dict[tuple[str, str], None] = {}

    def node(
        self, id: str, kind: str, label: str, detail: str, *, cell_run: Digest | None = None, status: str = "",
        marks: Sequence[str] = (),
    ) -> str:  # fmt: skip
        if id not in self.nodes:
            self.nodes[id] = LineageNode(
                id=id, kind=kind, label=label[:_TEXT] or "—", detail=detail[:_TEXT], cell_run=cell_run, status=status,
                marks=list(marks),
            )  # fmt: skip
        return id

    def edge(self, source: str, target: str) -> None:
        if source != target:
            self.edges[source, target] = None

    def cell(self, run: CellRun) -> str:
        row = row_of(run)
        where = f"{row.notebook.rpartition('/')[2]} [{row.count}]" if row.count else row.notebook
        detail = ", ".join(part for part in (short(run.id), row.label, where) if part)
        title = row.title + (" …" if row.lines > 1 else "")
        return self.node(
            run.id, "cell", title or "(no code on record)", detail, cell_run=run.id, status=run.status, marks=row.marks
        )  # fmt: skip

    def thing(self, one: Artifact, made: Digest | None) -> str:
        """A version of something: what another cell run made of that name is another node."""
        kind = "value" if one.kind == "variable" else one.kind
        version = short(one.digest) or one.why or "no digest"
        detail = ", ".join(part for part in (one.type, version) if part)
        return self.node(f"{kind}:{made or ''}:{one.name}:{one.digest or ''}", kind, one.name, detail, cell_run=made)


def lineage_of(project: Project, of: str, *, limit: int = WALKED) -> Lineage:
    """Walk back from what a reference means.

    Parameters
    ----------
    of
        What ``mlops lineage`` takes.
    limit
        How many cell runs are walked to, the nearest first.

    Raises
    ------
    NotFound
        It means nothing here, or nothing is on record of where it comes from.
    WrongUse
        Nothing is asked for.
    """
    if not of.strip():
        raise WrongUse("nothing is asked for", next="of=NAME: a variable, metric, file, model or cell run")
    store = project.store
    mark = store.mark()
    found = subject(project, of.strip())
    root = origin(store, found)
    drawing = _Drawing()
    if root is None:
        if not isinstance(found.value, Artifact):
            raise NotFound(
                f"no cell run is on record that made {of[:200]!r}", next="mlops show says what is known of it"
            )
        top, graph = _outside(drawing, store, found), Graph(roots=(), runs=(), edges=())
    else:
        graph = walk([root], store.cell_run, most=limit)
        _draw(drawing, store, graph)
        top = _root(drawing, found, root)
    return Lineage(
        of=of, title=_title(found, drawing.nodes[top])[:_TEXT], root=top,
        nodes=list(drawing.nodes.values()), edges=[LineageEdge(source=a, target=b) for a, b in drawing.edges],
        cell_runs=len(graph.runs), beyond=len(graph.beyond), outside=root is None, mark=mark,
    )  # fmt: skip


def _title(found: Subject, top: LineageNode) -> str:
    if top.kind == "cell":
        return f"cell run {short(top.id)}"
    return f"{top.label}: {top.detail}" if top.kind in ("metric", "model") else heading_of(found.value, top.label)


def _root(drawing: _Drawing, found: Subject, root: Digest) -> str:
    """The node of what was asked for, below the cell run that made it."""
    value = found.value
    if root not in drawing.nodes:  # it is referred to, and not on record here
        drawing.node(root, "missing", short(root), "is not on record here", cell_run=root)
    record = getattr(value, "record", None)
    if isinstance(record, ModelVersion):
        top = drawing.node(
            value.digest, "model", f"{record.name} {value.version}",
            f"{record.model.type}, {short(record.model.digest)}",
        )  # fmt: skip
        for one in record.training[:_MANY]:
            data = drawing.thing(one, one.made)
            drawing.edge(data, top)
            if one.made in drawing.nodes:
                drawing.edge(str(one.made), data)
    elif isinstance(value, Artifact):
        top = drawing.thing(value, root)
    elif isinstance(value, CellRun):
        name = next((one for one in (found.text, found.text.rpartition("@")[0]) if one in value.metrics), None)
        if name is None:
            return root
        top = drawing.node(f"metric:{root}:{name}", "metric", name, flat(value.metrics[name]), cell_run=root)
    else:
        return root
    drawing.edge(root, top)
    return top


def _draw(drawing: _Drawing, store: Store, graph: Graph) -> None:
    runs = {run.id: run for run in graph.runs}
    for run in graph.runs:
        drawing.cell(run)
    for digest in graph.missing:
        drawing.node(digest, "missing", short(digest), "is not on record here", cell_run=digest)
    for digest in graph.beyond:
        drawing.node(digest, "beyond", short(digest), "further back, and not followed from here", cell_run=digest)
    wrote = {
        (one.name, one.digest): run.id for run in graph.runs for one in run.files_written if one.digest is not None
    }  # fmt: skip
    joined: set[tuple[str, str]] = set()
    for run in graph.runs:
        read = [*run.inputs, *run.files_read, *(run.ended.sources if run.ended else ())]
        for one in read[:_MANY]:
            made = one.made or wrote.get((one.name, one.digest))
            if made == run.id:
                continue
            thing = drawing.thing(one, made)
            drawing.edge(thing, run.id)
            if made is not None and made in drawing.nodes:
                drawing.edge(made, thing)
                joined.add((made, run.id))
        if len(read) > _MANY:
            names = ", ".join(one.name for one in read[_MANY : _MANY + 8])
            drawing.edge(drawing.node(f"more:{run.id}", "more", f"{len(read) - _MANY} more", names), run.id)
        for number, gap in enumerate(run.gaps[:_MANY]):
            drawing.edge(
                drawing.node(f"gap:{run.id}:{number}", "gap", gap.subject, gap.reason, cell_run=run.id), run.id
            )
        for ticket in run.started.tickets:
            drawing.edge(drawing.node(f"ticket:{ticket.id}", "ticket", ticket.id, ticket.url), run.id)
        for parent in run.after:  # nothing by name passed between them, or it is among too many
            if parent in drawing.nodes and (parent, run.id) not in joined:
                drawing.edge(parent, run.id)
    _around(drawing, store, runs.values())


def _around(drawing: _Drawing, store: Store, runs: Iterable[CellRun]) -> None:
    """Environments and states of the code; two lines that say the same are one."""
    names: dict[Digest, str] = {}
    said: list[tuple[Any, str]] = []
    for run in runs:
        for digest in (run.environment, run.code):
            if digest is None:
                continue
            if digest not in names:
                record = _record(store, digest)
                same = next((name for known, name in said if known is not None and known == record), None)
                names[digest] = same or _surrounding(drawing, digest, record)
                if same is None:
                    said.append((record, digest))
            drawing.edge(names[digest], run.id)


def _record(store: Store, digest: Digest) -> Any:
    try:
        return store.line(digest).record
    except (NotFound, RecordInvalid):  # lost or damaged: `fsck` names it
        return None


def _surrounding(drawing: _Drawing, digest: Digest, record: Any) -> str:
    if isinstance(record, Environment):
        detail = f"{counted(len(record.packages), 'package')}, {record.platform or 'unknown platform'}"
        return drawing.node(digest, "environment", f"Python {record.python}", detail)
    if isinstance(record, CodeState):
        label = record.commit[:12] or "no commit"
        changed = f"{counted(len(record.dirty), 'file')} changed since" if record.dirty else "nothing changed since"
        return drawing.node(digest, "commit", label, ", ".join(part for part in (record.branch, changed) if part))
    return drawing.node(digest, "missing", short(digest), "can not be read")


def _outside(drawing: _Drawing, store: Store, found: Subject) -> str:
    """What no cell run made, above those that read it."""
    one: Artifact = found.value
    top = drawing.thing(one, None)
    readers = store.used_by(one.digest) if one.digest is not None else []
    if not readers and found.line is not None:
        readers = [found.line]
    for run in store.cell_runs_named(readers[:_MANY]):
        drawing.edge(top, drawing.cell(run))
    if len(readers) > _MANY:
        drawing.edge(
            top, drawing.node("more:readers", "more", f"{len(readers) - _MANY} more", "cell runs that read it")
        )
    return top


def names_of(project: Project, notebook: str | None) -> Names:
    """What can be asked for in a notebook, or in a project where there is none."""
    store = project.store
    latest = store.cell_run_names(notebook=notebook, limit=_NAMED)
    if notebook is not None:
        latest += store.last_of_cells(notebook)[::-1][:_NAMED]
    found: dict[tuple[str, str], Name] = {}
    for run in store.cell_runs_named(dict.fromkeys(latest)):
        for one in _names_in(run):
            found.setdefault((one.kind, one.name), one)
    registry = LocalRegistry(store)
    models = [
        Name(name=f"{name}/{one.version}", kind="model", detail=" ".join(f"@{alias}" for alias in one.aliases),
             of=f"models:/{name}/{one.version}")
        for name in registry.models() for one in reversed(registry.versions(name)[-5:])
    ]  # fmt: skip
    return Names(names=[*models, *found.values()])


def _names_in(run: CellRun) -> Iterator[Name]:
    at = run.id.partition(":")[2]
    for key, value in run.metrics.items():
        yield Name(name=key, kind="metric", detail=flat(value)[:_TEXT], of=f"{key}@{at}")
    for one in run.outputs:
        yield Name(name=one.name, kind="variable", detail=one.type, of=f"{one.name}@{at}")
    for one in (*run.files_written, *run.files_read):
        yield Name(name=one.name, kind="file", detail="", of=f"{one.name}@{at}")
