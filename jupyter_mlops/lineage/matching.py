"""Which cell run is of which cell of a notebook as it stands.

By the notebook's ids where notebook and record know the same ones, by the text where there is no such id.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Sequence

import msgspec

from jupyter_mlops.lineage.magics import as_python
from jupyter_mlops.records import Artifact, CellRun, Digest, Gap


class Cell(msgspec.Struct, frozen=True):
    """A code cell of the notebook as it stands.

    Attributes
    ----------
    id
        Its id in the notebook; empty where the notebook gives none.
    source
        Its text, with secrets masked as the record has them.
    """

    id: str
    source: str


class Done(msgspec.Struct):
    """A cell run, together with what ran inside it (``%run``)."""

    run: CellRun
    inputs: list[Artifact]
    outputs: list[Artifact]
    removed: list[str]
    read: list[Artifact]
    written: list[Artifact]
    gaps: list[Gap]
    inside: list[CellRun] = []


def fold(runs: Iterable[CellRun]) -> list[Done]:
    """Cell runs with what ran inside them; those that go on are left out."""
    done: dict[Digest, Done] = {}
    order: list[Done] = []
    for run in runs:
        if run.status == "running":
            continue
        one = Done(
            run=run, inputs=run.inputs, outputs=run.outputs, removed=list(run.ended.removed) if run.ended else [],
            read=run.files_read, written=run.files_written, gaps=run.gaps,
        )  # fmt: skip
        outer = done.get(run.started.parent) if run.started.parent is not None else None
        if outer is None:
            done[run.id] = one
            order.append(one)
            continue
        done[run.id] = outer
        own = {outer.run.id, *(inner.id for inner in outer.inside)}
        outer.inside.append(run)
        known = {artifact.name for artifact in outer.inputs}
        outer.inputs += [a for a in one.inputs if a.made not in own and a.name not in known]
        ours = {artifact.name for artifact in outer.outputs}
        outer.outputs += [a for a in one.outputs if a.name not in ours]
        outer.removed += [name for name in one.removed if name not in ours]
        outer.read += one.read
        outer.written += one.written
        outer.gaps += one.gaps
    for one in order:
        left = {artifact.name for artifact in one.outputs}
        one.removed = [name for name in one.removed if name not in left]
    return order


def match(cells: Sequence[Cell], done: Sequence[Done]) -> tuple[dict[int, int], list[list[int]]]:
    """Which run is of which cell, by place; and the runs of each cell.

    By id where the ids of notebook and record are the same ones. What is left is matched by text, for cells without any
    run: a cell that was cut and pasted has another id, and is the same code.
    """
    ids = {cell.id: number for number, cell in enumerate(cells) if cell.id}
    home: dict[int, int] = {}
    of: list[list[int]] = [[] for _ in cells]
    for place, one in enumerate(done):
        number = ids.get(one.run.started.cell) if one.run.started.cell else None
        if number is not None:
            home[place] = number
            of[number].append(place)
    sources: dict[str, list[int]] = {}
    for number, cell in enumerate(cells):
        if not of[number] and says_something(cell.source):
            sources.setdefault(cell.source.strip(), []).append(number)
    if not sources:
        return home, of
    left: dict[str, list[int]] = {}
    for place, one in enumerate(done):
        if place not in home and (text := one.run.source.strip()) in sources:
            left.setdefault(text, []).append(place)
    for text, places in left.items():
        numbers = sources[text]
        # the last runs belong to the cells in their order, as far as anybody can tell: their code is one and the same
        for turn, place in enumerate(reversed(places)):
            number = numbers[-1 - turn % len(numbers)]
            home[place] = number
            of[number].insert(0, place)
    return home, of


@functools.lru_cache(maxsize=4096)
def same_code(one: str, other: str) -> bool:
    """Whether two texts are the same code: comments, blank lines and layout make no difference."""
    if one == other or one.strip() == other.strip():
        return True
    try:
        return ast.dump(ast.parse(as_python(one))) == ast.dump(ast.parse(as_python(other)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # no Python: the texts are what there is to compare, and they differ


def says_something(source: str) -> bool:
    """Whether a cell holds anything but blank lines and comments."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in source.splitlines())
