"""Draws a lineage as a picture: cell runs and files in layers, what is older above what builds on it.

Matplotlib is loaded when a picture is asked for, and not through pyplot: the user's figures, backend and settings stay
as they are. All text is untrusted, and is drawn as the text it is: never as mathematics, never by TeX.
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Final

from jupyter_mlops.errors import door
from jupyter_mlops.lineage import Graph, Node
from jupyter_mlops.widgets import clean, fit

MOST: Final = 120
"""Nodes that are drawn: the nearest to what was asked for; the text and ``--json`` have all."""

_COLUMNS: Final = 38
_WIDE, _HIGH, _DOWN = 2.75, 0.5, 1.05  # inches: a box, and from layer to layer
_PIXELS: Final = 60_000  # what the format of the drawing library can hold in a direction
_FILL: Final = {
    "cell": "#eef3fb", "root": "#dbe9d8", "missing": "#f7dcdc",
    "current": "#dbe9d8", "due": "#eef3fb", "failed": "#f7dcdc",
}  # fmt: skip
_SETTINGS: Final = {"usetex": False, "parse_math": False, "family": "sans-serif"}


def picture(graph: Graph, *, title: str) -> bytes:
    """Draw a lineage as PNG.

    Raises
    ------
    ExtraMissing
        Matplotlib is not installed.
    """
    nodes, edges = graph.nodes()
    left = len(nodes) - MOST
    if left > 0:
        nodes = _nearest(graph, nodes, edges)
        kept = {node.id for node in nodes}
        edges = [edge for edge in edges if edge[0] in kept and edge[1] in kept]
    more = f"  ({left} further back are not drawn)" if left > 0 else ""
    return drawn(nodes, edges, title=title, more=more, roots=graph.roots)


def drawn(
    nodes: Sequence[Node], edges: Sequence[tuple[str, str, str]], *, title: str, more: str = "",
    roots: Collection[str] = (),
) -> bytes:  # fmt: skip
    """Draw nodes in layers, each below what its edges come from, as PNG.

    Parameters
    ----------
    nodes
        Each after all that its edges come from; the kind tells its colour.
    edges
        Parent, child, what passed.
    title, more
        What stands above: the first is cut where it is too long.
    roots
        Nodes that stand out.

    Raises
    ------
    ExtraMissing
        Matplotlib is not installed.
    """
    figures = door("matplotlib.figure", "demo")
    agg = door("matplotlib.backends.backend_agg", "demo")
    places, ways, columns, rows = _laid_out(nodes, edges)
    wide, high = max(columns, 1) * (_WIDE + 0.35) + 0.3, max(rows, 1) * _DOWN + 0.6
    figure = figures.Figure(figsize=(wide, high), facecolor="white")
    agg.FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, wide)
    axes.set_ylim(high, 0)
    axes.axis("off")
    axes.text(0.2, 0.3, fit(clean(title), int(wide * 11)) + more, fontsize=10, weight="bold", va="center", **_SETTINGS)
    for (parent, child), names in _named(edges).items():
        if (parent, child) in ways:
            _arrow(axes, ways[parent, child], names)
    for node in nodes:
        _box(axes, node, places[node.id], root=node.id in roots)
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that the font lacks is drawn as a box
        figure.savefig(data, format="png", dpi=min(110.0, _PIXELS / max(wide, high)))
    return data.getvalue()


def _nearest(graph: Graph, nodes: Sequence[Node], edges: Sequence[tuple[str, str, str]]) -> list[Node]:
    """The nodes in fewest steps from the roots."""
    above: dict[str, list[str]] = {}
    for parent, child, _ in edges:
        above.setdefault(child, []).append(parent)
    order = dict.fromkeys(map(str, graph.roots))
    due = list(order)
    for one in due:
        for parent in above.get(one, ()):
            if parent not in order:
                order[parent] = None
                due.append(parent)
    kept = set(list(order)[:MOST])
    return [node for node in nodes if node.id in kept]


Point = tuple[float, float]


def _laid_out(
    nodes: Sequence[Node], edges: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, Point], dict[tuple[str, str], list[Point]], int, int]:
    """Places of the boxes, the way of each arrow, and how many columns and rows that takes.

    In layers, each below all that it builds on; where an arrow passes a layer it takes a place there like a box, and
    each layer is put in the order of the middles of what it is tied to, a few times down and up.
    """
    layer = {node.id: 0 for node in nodes}
    pairs = list(dict.fromkeys((parent, child) for parent, child, _ in edges if parent != child))
    place = {node.id: number for number, node in enumerate(nodes)}
    pairs = [pair for pair in pairs if place[pair[0]] < place[pair[1]]]  # a ring in hostile records is cut here
    for parent, child in sorted(pairs, key=lambda pair: place[pair[1]]):
        layer[child] = max(layer[child], layer[parent] + 1)
    below: dict[str, list[str]] = {}
    for parent, child in pairs:
        below.setdefault(parent, []).append(child)
    for node in nodes:  # what comes from outside stands right above what reads it
        if node.kind != "cell" and node.id in below:
            layer[node.id] = min(layer[child] for child in below[node.id]) - 1
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for node in nodes:
        rows[layer[node.id]].append(node.id)
    ties: dict[str, list[str]] = {}
    chains: dict[tuple[str, str], list[str]] = {}
    for number, (parent, child) in enumerate(pairs):
        chain = [parent]
        for row in range(layer[parent] + 1, layer[child]):
            chain.append(f"\0{number}.{row}")
            rows[row].append(chain[-1])
        chain.append(child)
        chains[parent, child] = chain
        for one, other in itertools.pairwise(chain):
            ties.setdefault(one, []).append(other)
            ties.setdefault(other, []).append(one)
    widths = {one: 0.3 if one.startswith("\0") else 1.0 for row in rows for one in row}
    at = {one: float(number) for row in rows for number, one in enumerate(row)}
    for _ in range(6):
        for some in (*rows, *reversed(rows)):
            some.sort(key=lambda one: sum(at[other] for other in ties.get(one, [one])) / len(ties.get(one, [one])))
            start = -sum(widths[one] for one in some) / 2
            for one in some:
                at[one] = start + widths[one] / 2
                start += widths[one]
    total = max((sum(widths[one] for one in row) for row in rows), default=1.0)
    scale = _WIDE + 0.35
    points = {
        one: (0.15 + (at[one] + total / 2) * scale, 0.6 + (number + 0.5) * _DOWN)
        for number, row in enumerate(rows)
        for one in row
    }
    ways = {pair: [point for one in chain for point in _passed(one, points[one])] for pair, chain in chains.items()}
    return points, ways, int(total + 0.999), len(rows)


def _passed(one: str, point: Point) -> list[Point]:
    """The points an arrow takes at a place: straight down beside the boxes where it only passes."""
    x, y = point
    return [(x, y - _HIGH / 2), (x, y + _HIGH / 2)] if one.startswith("\0") else [point]


def _named(edges: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], list[str]] = {}
    for parent, child, name in edges:
        if parent != child:
            found.setdefault((parent, child), []).append(name)
    return {pair: ", ".join(dict.fromkeys(name for name in names if name)) for pair, names in found.items()}


def _arrow(axes: Any, way: Sequence[Point], names: str) -> None:
    points = [(way[0][0], way[0][1] + _HIGH / 2), *way[1:-1], (way[-1][0], way[-1][1] - _HIGH / 2)]
    for one, other in itertools.pairwise(points[:-1]):
        axes.plot((one[0], other[0]), (one[1], other[1]), color="#8a94a6", linewidth=0.8, zorder=1)
    axes.annotate("", xy=points[-1], xytext=points[-2], zorder=1,
                  arrowprops={"arrowstyle": "->", "color": "#8a94a6", "linewidth": 0.8})  # fmt: skip
    if names:
        x, y = (points[-1][0] * 0.35 + points[-2][0] * 0.65, points[-1][1] * 0.35 + points[-2][1] * 0.65)
        axes.text(x, y, fit(clean(names), 20), fontsize=6.5, color="#4a5568", ha="center", va="center", zorder=2,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, **_SETTINGS)  # fmt: skip


def _box(axes: Any, node: Node, place: Point, *, root: bool) -> None:
    patches = door("matplotlib.patches", "demo")
    x, y = place
    kind = "root" if root else node.kind
    axes.add_patch(
        patches.FancyBboxPatch(
            (x - _WIDE / 2, y - _HIGH / 2), _WIDE, _HIGH, boxstyle="round,pad=0,rounding_size=0.06", linewidth=0.8,
            facecolor=_FILL.get(kind, "#fdf6e3"), edgecolor="#8a94a6", zorder=3,
        )
    )  # fmt: skip
    axes.text(x, y - 0.1, fit(clean(node.label), _COLUMNS), fontsize=8, ha="center", va="center", zorder=4, **_SETTINGS)
    axes.text(x, y + 0.12, fit(clean(node.detail), _COLUMNS + 8), fontsize=6.5, color="#4a5568", ha="center",
              va="center", zorder=4, **_SETTINGS)  # fmt: skip
