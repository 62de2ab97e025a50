"""Runs side by side: what is not the same in all of them, a column each."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import compare
from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.records import Artifact, CellRun, Digest, Package
from jupyter_mlops.server.answers import MeasuredRun, Reading

if TYPE_CHECKING:
    from jupyter_mlops.environment import EnvironmentDiff
    from jupyter_mlops.store import Store

MOST: Final = 8
"""Runs that are compared at once."""
_PLOTS: Final = 6  # of one run
_PLOT: Final = 2**20  # bytes
_DIFF: Final = 400  # lines of a cell's difference
_IMAGES: Final = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}


class Aspect(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not the same in all runs.

    Attributes
    ----------
    what
        ``parameter``, ``metric``, ``status``, ``environment``, ``package``, ``variable``.
    values
        One for each run, in their order; None where it has none.
    """

    what: str
    name: str
    values: list[Any]


class ComparedCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell in which runs differ from the first.

    Attributes
    ----------
    differs
        For each run in what; nothing for the first.
    diffs
        For each run how its code differs from the first one's, as a unified diff.
    """

    cell: str
    source: str
    differs: list[list[str]]
    diffs: list[list[str]]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a cell showed, as base64."""

    cell: str
    name: str
    type: str
    data: str


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a run showed: `plots` are those that were kept, of as many `images`."""

    images: int
    plots: list[Plot]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Runs side by side.

    Attributes
    ----------
    aspects
        What is not the same in all of them.
    cells
        In which the others differ from the first.
    shown
        What each of them showed.
    unknown
        What could not be compared, and why.
    """

    runs: list[MeasuredRun]
    aspects: list[Aspect]
    cells: list[ComparedCell]
    shown: list[Shown]
    unknown: list[str]


def compared(reading: Reading, digests: Sequence[Digest]) -> Compared:
    """Put runs side by side; each is held against the first.

    Raises
    ------
    WrongUse
        There are fewer than two, or too many.
    NotFound
        One of them is not on record.
    """
    digests = list(dict.fromkeys(digests))
    if not 2 <= len(digests) <= MOST:
        raise WrongUse(
            f"2 to {MOST} runs can be compared", cause=f"{len(digests)} are named", next="runs=DIGEST,DIGEST"
        )
    store = reading.store
    runs = [store.run(digest) for digest in digests]
    cells = [store.cell_runs(run=run.id, newest_first=False) for run in runs]
    found = [compare.runs(store, runs[0], other) for other in runs[1:]]
    unknown = dict.fromkeys(reason for one in found for reason in one.unknown)
    return Compared(
        runs=reading.measured(runs), aspects=_aspects(found), cells=list(_cells(store, found, cells)),
        shown=[_shown(store, own) for own in cells], unknown=list(unknown),
    )  # fmt: skip


def _aspects(found: Sequence[compare.Difference]) -> list[Aspect]:
    """From how each of the others differs from the first: one that does not name a thing has what the first has."""
    sides = [dict(_changes(one)) for one in found]
    names = dict.fromkeys(name for side in sides for name in side)
    aspects = []
    for name in names:
        first = next(side[name][0] for side in sides if name in side)
        values = [first, *(side[name][1] if name in side else first for side in sides)]
        aspects.append(Aspect(what=name[0], name=name[1], values=values))
    return aspects


def _changes(one: compare.Difference) -> Iterator[tuple[tuple[str, str], tuple[Any, Any]]]:
    for change in one.changes:
        yield (change.what, change.name), (change.old, change.new)
    around: EnvironmentDiff | None = one.environment
    if around is not None:
        for what, old, new in around.facts:
            yield ("environment", what), (old or None, new or None)
        for package in around.removed:
            yield ("package", package.name), (_version(package), None)
        for package in around.added:
            yield ("package", package.name), (None, _version(package))
        for before, after in around.changed:
            yield ("package", before.name), (_version(before), _version(after))
        for name, was, now in around.variables:
            yield ("variable", name), (was, now)


def _version(package: Package) -> str:
    more = [f"loaded {package.loaded}"] if package.loaded else []
    more += [package.origin] if package.origin else []
    return package.version + (f" ({', '.join(more)})" if more else "")


def _cells(
    store: Store, found: Sequence[compare.Difference], cells: Sequence[Sequence[CellRun]]
) -> Iterator[ComparedCell]:
    by_name = [{one.started.cell or f"#{one.started.count}": one for one in own} for own in cells]
    sides = [{one.cell: one for one in difference.cells} for difference in found]
    for cell in dict.fromkeys(name for side in sides for name in side):
        differs: list[list[str]] = [[]]
        diffs: list[list[str]] = [[]]
        for side, others in zip(sides, by_name[1:], strict=True):
            change = side.get(cell)
            differs.append(list(change.differs) if change else [])
            old, new = by_name[0].get(cell), others.get(cell)
            lines = compare.cell_runs(store, old, new).source if change and old and new else ()
            diffs.append(list(lines[:_DIFF]))
        source = next(side[cell].source for side in sides if cell in side)
        yield ComparedCell(cell=cell, source=source, differs=differs, diffs=diffs)


def _shown(store: Store, cells: Sequence[CellRun]) -> Shown:
    images = [
        (cell, one) for cell in cells for one in (cell.ended.displays if cell.ended else ()) if one.type in _IMAGES
    ]
    plots: list[Plot] = []
    for cell, one in images:
        data = _bytes(store, one) if len(plots) < _PLOTS else None
        if data is not None:
            name = cell.started.cell or f"[{cell.started.count}]"
            plots.append(Plot(cell=name, name=one.name, type=one.type, data=base64.b64encode(data).decode()))
    return Shown(images=len(images), plots=plots)


def _bytes(store: Store, one: Artifact) -> bytes | None:
    """An image that was kept, where it is what it is said to be."""
    if one.digest is None or not one.stored or (one.size or 0) > _PLOT:
        return None
    try:
        data = store.get(one.digest)
    except (MlopsError, OSError):
        return None  # erased or damaged: the number of images still tells that there was one
    return data if len(data) <= _PLOT and data.startswith(_IMAGES[one.type]) else None
