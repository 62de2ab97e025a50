"""The graph that cell runs make: walked back along ``after`` and ``made``, to files, sources, environments and commits.

Records come from disk and may be hostile, so every walk visits a cell run once, whatever they say, and a cell run that
can not be read is a gap in the graph and not the end of the walk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Artifact, CellRun, Digest, short

_WIDEST: Final = 64
"""Columns a line of source may take in a tree."""
_ROOM: Final = 32
"""Columns for the names of what was used."""

LookUp = Callable[[Digest], CellRun]


class Edge(msgspec.Struct, frozen=True):
    """A cell run built on another: what passed between them.

    Attributes
    ----------
    child, parent
        The cell run that read, and the one that had made what it read.
    names
        Of the variables and files that passed; empty where only the order is on record.
    """

    child: Digest
    parent: Digest
    names: tuple[str, ...] = ()


class Node(msgspec.Struct, frozen=True):
    """A cell run, file or source, as a picture or a page shows it.

    Attributes
    ----------
    id
        The cell run's digest; of what came from outside its kind, name and version.
    kind
        ``cell``, ``file``, ``source``, ``missing``.
    label, detail
        What it is called, and in smaller letters where it stands or which version it is.
    """

    id: str
    kind: str
    label: str
    detail: str = ""


class Graph(msgspec.Struct, frozen=True):
    """Where something comes from.

    Attributes
    ----------
    roots
        The cell runs that made it.
    runs
        These and all they build on, oldest first, each once.
    edges
        Who built on whom.
    missing
        Cell runs that are referred to and can not be read.
    beyond
        Cell runs further back that were not walked to, as no more were asked for.
    """

    roots: tuple[Digest, ...]
    runs: tuple[CellRun, ...]
    edges: tuple[Edge, ...]
    missing: tuple[Digest, ...] = ()
    beyond: tuple[Digest, ...] = ()

    @property
    def files(self) -> list[Artifact]:
        """Files and sources that came from outside of these cell runs, each once."""
        written = {one.digest for run in self.runs for one in run.files_written if one.digest is not None}
        found: dict[tuple[str, str | None], Artifact] = {}
        for run in self.runs:
            for one in (*run.files_read, *(run.ended.sources if run.ended else ())):
                if one.digest is None or one.digest not in written:
                    found[one.name, one.digest] = one
        return list(found.values())

    def environments(self) -> list[Digest]:
        """The environments they ran in."""
        return list(dict.fromkeys(run.environment for run in self.runs if run.environment))

    def codes(self) -> list[Digest]:
        """The states of the code around them."""
        return list(dict.fromkeys(run.code for run in self.runs if run.code))

    def nodes(self) -> tuple[list[Node], list[tuple[str, str, str]]]:
        """Cell runs and what they read from outside, oldest first; and the edges: parent, child, what passed."""
        runs = [
            Node(run.id, "cell", _first_line(run.source), f"{short(run.id)}  {_where(run)}") for run in self.runs
        ]  # fmt: skip
        found = {node.id: node for node in runs}
        outside: dict[str, Node] = {}
        edges: list[tuple[str, str, str]] = []
        came = {(one.name, one.digest) for one in self.files}
        for run in self.runs:
            for one in (*run.files_read, *(run.ended.sources if run.ended else ())):
                if (one.name, one.digest) in came and one.made not in found:
                    name = f"{one.kind}:{one.name}:{one.digest or ''}"
                    outside[name] = Node(name, one.kind, one.name, short(one.digest) or one.why)
                    edges.append((name, run.id, ""))
            for parent in run.after:
                if parent in self.missing:
                    outside[parent] = Node(parent, "missing", short(parent), "is not on record here")
                    edges.append((parent, run.id, ""))
        for edge in self.edges:
            edges += [(edge.parent, edge.child, name) for name in edge.names or ("",)]
        return [*outside.values(), *runs], edges

    def text(self) -> str:
        """Draw as a tree, each cell run once: beneath it what it read from outside, and the cell runs it builds on."""
        return "\n".join("  ".join(part for part in line if part) for line in self.lines())

    def lines(self) -> list[tuple[str, str]]:
        """The lines of that tree: what names a cell run, and its first line of code where there is one to tell."""
        return list(_tree(self))


def lineage(roots: Sequence[Digest], cell_run: LookUp, *, most: int | None = None) -> Graph:
    """Walk back from cell runs to all they build on, the nearest first.

    Parameters
    ----------
    roots
        Where to begin.
    cell_run
        Finds a cell run by its digest; may raise any `MlopsError` for one that is not there.
    most
        How many cell runs are walked to; all unless given.

    Returns
    -------
    Graph
        Oldest first, in an order in which each comes after all it builds on.
    """
    found: dict[Digest, CellRun] = {}
    missing: dict[Digest, None] = {}
    beyond: dict[Digest, None] = {}
    due = deque(roots)
    while due:
        digest = due.popleft()
        if digest in found or digest in missing:
            continue
        if most is not None and len(found) >= most:
            beyond[digest] = None
            continue
        try:
            found[digest] = run = cell_run(digest)
        except MlopsError:
            missing[digest] = None
            continue
        due += run.after
    return Graph(
        roots=tuple(roots),
        runs=tuple(_sorted(found)),
        edges=tuple(edge for run in found.values() for edge in _edges(run, found)),
        missing=tuple(missing),
        beyond=tuple(beyond),
    )


def ancestors(run: Digest, cell_run: LookUp) -> list[CellRun]:
    """A cell run and all it builds on, oldest first, each once."""
    return list(lineage([run], cell_run).runs)


def _sorted(found: Mapping[Digest, CellRun]) -> Iterator[CellRun]:
    """Parents before children; where hostile records make a ring, it is cut where the walk met it first."""
    done: set[Digest] = set()
    for start in sorted(found, key=lambda digest: (found[digest].time, found[digest].seq)):
        stack = [(start, False)]
        while stack:
            digest, ready = stack.pop()
            if ready:
                yield found[digest]
            elif digest not in done:
                done.add(digest)
                stack.append((digest, True))
                stack += [(parent, False) for parent in found[digest].after if parent in found and parent not in done]


def _edges(run: CellRun, found: Mapping[Digest, CellRun]) -> Iterator[Edge]:
    passed: dict[Digest, list[str]] = {parent: [] for parent in run.after}
    for one in (*run.inputs, *run.files_read):
        if one.made is not None and one.made in passed:
            passed[one.made].append(one.name)
    for parent, names in passed.items():
        if parent in found and parent != run.id:
            yield Edge(run.id, parent, tuple(names))


def _tree(graph: Graph) -> Iterator[tuple[str, str]]:
    runs = {run.id: run for run in graph.runs}
    order = {run.id: place for place, run in enumerate(graph.runs)}
    below: dict[Digest, list[Edge]] = {}
    for edge in graph.edges:
        below.setdefault(edge.child, []).append(edge)
    drawn: set[Digest] = set()
    # (what leads here, its edge's names, the prefix of this line, and of the lines below it)
    stack: list[tuple[Digest, tuple[str, ...], str, str]] = [(root, (), "", "") for root in reversed(graph.roots)]
    while stack:
        digest, names, head, tail = stack.pop()
        via = f"  ({_few(names)})" if names else ""
        run = runs.get(digest)
        if run is None:
            yield f"{head}{short(digest)}  is not on record here{via}", ""
            continue
        if digest in drawn:
            yield f"{head}{short(digest)}  as above", via.strip()
            continue
        drawn.add(digest)
        yield f"{head}{short(digest)}  {_where(run)}{via}", _first_line(run.source)
        # The nearest in time first: what came last is what the eye looks for.
        edges = sorted(below.get(digest, ()), key=lambda edge: -order[edge.parent])
        outside = [*run.files_read, *(run.ended.sources if run.ended else ())]
        for place, one in enumerate(outside):
            last = place == len(outside) - 1 and not edges
            content = short(one.digest) if one.digest else one.why or "no digest"
            yield f"{tail}{'└─ ' if last else '├─ '}{one.kind} {one.name}  {content}", ""
        for place, edge in enumerate(reversed(edges)):
            last = place == 0
            stack.append(
                (edge.parent, edge.names, tail + ("└─ " if last else "├─ "), tail + ("   " if last else "│  "))
            )


def _where(run: CellRun) -> str:
    notebook = run.started.notebook.rpartition("/")[2]
    cell = run.started.cell or (f"[{run.started.count}]" if run.started.count else "")
    return f"{notebook}#{cell}" if notebook and cell else notebook or cell or "—"


def _first_line(source: str) -> str:
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return "(no code)"
    first = lines[0] if len(lines[0]) <= _WIDEST else lines[0][: _WIDEST - 1] + "…"
    return first + (" …" if len(lines) > 1 and not first.endswith("…") else "")


def _few(names: Sequence[str]) -> str:
    """As many of the names as there is room for, the first in any case.

    >>> _few(["X", "y"]), _few(["categories", "y_train", "X_train", "train"])
    ('X, y', 'categories, y_train and 2 more')
    """
    for count in range(len(names), 0, -1):
        text = ", ".join(names[:count]) + (f" and {len(names) - count} more" if count < len(names) else "")
        if len(text) <= _ROOM:
            break
    return text
