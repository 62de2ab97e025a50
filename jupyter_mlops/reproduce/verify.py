"""Whether a past run comes out the same again, cell by cell, and if not, where it begins to differ and why.

Every cell run that `rerun` comes to is held against its record.

Only the verdict comes back: a `CheckResult` named ``reproducible``, bound to the line of what was verified.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import pipelines
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.lineage.slices import Slice
from jupyter_mlops.objects import ObjectDamaged, ObjectMissing
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, CellRun, CheckResult, Digest
from jupyter_mlops.redact import MASKED
from jupyter_mlops.reproduce.causes import Cause, Situation, causes, origins
from jupyter_mlops.reproduce.checkout import inside
from jupyter_mlops.reproduce.comparing import (
    DIFFERS,
    EXACT,
    IDENTICAL,
    TOLERANCE,
    UNKNOWN,
    Bytes,
    Difference,
    Sides,
    Tolerance,
    compare,
    verdict,
)
from jupyter_mlops.reproduce.contents import Contents, unlike
from jupyter_mlops.reproduce.create import empty_folder
from jupyter_mlops.reproduce.past import Past
from jupyter_mlops.reproduce.rerun import CouldNot, Rerun, Wanted, notebook_here
from jupyter_mlops.reproduce.slicing import SliceRefused, Target, slice_for, target_of

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

CHECK: Final = "reproducible"
"""The name of the check whose result a verification is."""
NOT_RUN: Final = "not run"
_MAKES_NOTHING: Final = ("%load_ext jupyter_mlops", "%reload_ext jupyter_mlops", "%mlops off", "%mlops on")
_PATHS: Final = ("str", "pathlib.PosixPath", "pathlib.WindowsPath", "PosixPath")
_TELLS: Final = 50


class CellVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How one cell came out.

    Attributes
    ----------
    cell_run
        The recorded cell run.
    cell
        Its id in the notebook, or what it was counted as.
    source
        The first line of its source.
    verdict
        ``identical``, ``within tolerance``, ``differs``, ``not run``.
    differences
        What is not identical, and what could not be compared.
    causes
        Why, where the difference is its own and not of what it read.
    """

    cell_run: Digest
    cell: str
    source: str
    verdict: str
    differences: tuple[Difference, ...] = ()
    causes: tuple[Cause, ...] = ()


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """How a run came out.

    Attributes
    ----------
    subject
        The line that the verdict is bound to.
    verdict
        ``identical``, ``within tolerance`` or ``differs``.
    environment
        ``current`` or ``re-created``, and in `why` for what reason.
    result
        The line of the `CheckResult`.
    notes
        What is to be known of how it was verified.
    folder
        Where the second run was left, if it was asked for.
    """

    text: str
    subject: Digest
    verdict: str
    cells: tuple[CellVerdict, ...]
    environment: str
    why: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    tolerance: Tolerance = EXACT
    result: Digest | None = None
    folder: str = ""

    def __bool__(self) -> bool:
        return self.verdict != DIFFERS

    @property
    def first(self) -> CellVerdict | None:
        """The first cell that differs."""
        return next((one for one in self.cells if one.verdict in (DIFFERS, NOT_RUN)), None)


def verify(past: Past, project: Project, wanted: Wanted | None = None, *, keep: Path | None = None) -> Verification:
    """Run a past run again and compare, cell by cell.

    Parameters
    ----------
    past
        What was run.
    project
        Where it is on record; the verdict is recorded there.
    wanted
        How it is to be verified.
    keep
        A new folder in which the second run is left, with its own record.

    Raises
    ------
    CouldNot
        It can not be run as it ran, and why. Nothing is recorded then.
    """
    began = time.monotonic()
    wanted = wanted or Wanted()
    cells, needed, notes = _cells(past, project, wanted)
    with _place(keep) as place:
        rerun = Rerun(past, project, wanted, cells, place)
        rerun.notes += notes
        rerun.bring_back()
        found = _compare(rerun, rerun.run(), needed)
    result = project.store.append(
        CheckResult(
            check=_check(wanted), subject=past.subject, passed=bool(found), summary=summary(found),
            evidence=_evidence(found, wanted), by=project.user,
        )
    )  # fmt: skip
    project.store.durable(timeout=10)
    return msgspec.structs.replace(found, result=result, seconds=time.monotonic() - began, folder=str(keep or ""))


@contextlib.contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield empty_folder(keep)
        return
    place = Path(os.path.realpath(tempfile.mkdtemp(prefix="mlops-verify-")))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)  # what a run has made unreadable is left to the system


# -- what is run -----------------------------------------------------------------------------------------------------


def _cells(
    past: Past, project: Project, wanted: Wanted
) -> tuple[list[CellRun], dict[Digest, frozenset[str] | None], list[str]]:
    """The recorded cell runs to be repeated, in the order in which they are to run; or why that can not be.

    Returns
    -------
    tuple
        The cell runs; of those of a slice what of them counts; and what is to be said.
    """
    cells = list(past.cells)
    needed: dict[Digest, frozenset[str] | None] = {}
    notes: list[str] = []
    whole = wanted.order == "run" and wanted.code == "recorded"
    if whole and (wanted.extent == "slice" or (wanted.extent == "auto" and not past.headless)):
        try:
            target = target_of(project.store, past.text, past.line, past.value)
            found = slice_for(project, target, allow_unseeded=True, files=False)
            needed = _needed(found, target)
            cells = [_with_source(piece.run, piece.source) for piece in found.pieces]
            notes.append(f"{len(cells)} of {len(past.cells)} cells run again: those that it needs")
        except SliceRefused as refused:
            if wanted.extent == "slice":
                raise
            notes.append(f"all cells run again, since {refused}")
    cells = [one for one in cells if one.source.strip() and one.source.strip() not in _MAKES_NOTHING]
    while cells and cells[-1].status == "running":
        cells.pop()  # the cell that asks, in a kernel
    if not whole:
        cells = _in_notebook(past, project, cells)
    _check_runnable(past, project, wanted, cells)
    return cells, needed, notes


def _with_source(run: CellRun, source: str) -> CellRun:
    return msgspec.structs.replace(run, started=msgspec.structs.replace(run.started, source=source))


def _needed(found: Slice, target: Target) -> dict[Digest, frozenset[str] | None]:
    """Of each cell run of a slice what was asked for and what the others read; None where all that it left counts."""
    read: dict[Digest, set[str]] = {}
    for run in found.runs:
        for one in (*run.inputs, *run.files_read):
            if one.made is not None:
                read.setdefault(one.made, set()).add(one.name)
    asked: dict[Digest, frozenset[str] | None] = {}
    for piece in found.pieces:
        root = piece.run.id in target.roots
        names = read.get(piece.run.id, set()) | (set(target.names) if root else set())
        asked[piece.run.id] = None if root and not target.names and piece.whole else frozenset(names)
    return asked


def _check_runnable(past: Past, project: Project, wanted: Wanted, cells: Sequence[CellRun]) -> None:
    """See that cells can be run as they ran, and that nothing is written over by it."""
    if not cells:
        raise CouldNot(f"{past.text} can not be run again", cause="no cell is on record")
    for one in cells:
        name = one.started.cell or str(one.started.count)
        if one.status in ("running", "interrupted"):
            how = "is still running" if one.status == "running" else "was interrupted"
            raise CouldNot(f"{past.text} can not be verified", cause=f"cell {name} {how}")
        secret = sorted(name for name, value in past.run.started.parameters.items() if _withheld(value))
        if secret and one.started.cell == pipelines.INJECTED_TAG:
            raise CouldNot(
                f"{past.text} can not be run as it ran", cause=f"its parameter {secret[0]} was secret: not on record",
                next="run the notebook again with it, and compare: mlops diff OLD NEW",
            )  # fmt: skip
        if one.started.redacted and wanted.code == "recorded":
            raise CouldNot(
                f"{past.text} can not be run as it ran", cause=f"secrets are masked in the source of cell {name}",
                next="read secrets from the environment; --code current runs the notebook as it is now",
            )  # fmt: skip
        _check_writes(past, project, one, name)


def _withheld(value: object) -> bool:
    """Whether a mask stands for a value."""
    return isinstance(value, str) and MASKED.fullmatch(value) is not None


def _check_writes(past: Past, project: Project, one: CellRun, name: str) -> None:
    """See that running a cell again does not write over the user's files."""
    writes = [file.name for file in one.files_written if not inside(file.name) and not _of_the_system(file.name)]
    roots = {str(project.root), os.path.realpath(project.root)}
    if one.files_written and any(root in one.source for root in roots):
        writes.append(project.root.name)
    if writes:
        raise CouldNot(
            f"{past.text} is not run again", cause=f"cell {name} writes to {writes[0]}, which would be written over",
            next="write to paths relative to the notebook",
        )  # fmt: skip


def _of_the_system(path: str) -> bool:
    """Whether a path is among what is made again at any time: temporary files, caches."""
    return path.startswith((tempfile.gettempdir() + os.sep, "~/.cache/", "~/.config/", "~/.local/"))


def _in_notebook(past: Past, project: Project, cells: Sequence[CellRun]) -> list[CellRun]:
    """The last run of each cell that the notebook has now, from top to bottom."""
    book = pipelines.read_notebook(notebook_here(past, project))
    last = {one.started.cell: one for one in cells if one.started.cell}
    given = last.get(pipelines.INJECTED_TAG)
    cells_ = pipelines.code_cells(book, injected=None if given is None else given.source)
    ids = [str(cell.get("id", "")) for cell in cells_]
    return [last[name] for name in ids if name in last]


# -- the comparison --------------------------------------------------------------------------------------------------


def _compare(
    rerun: Rerun, again: Sequence[CellRun | None], needed: Mapping[Digest, frozenset[str] | None]
) -> Verification:
    """Hold every cell run against its record."""
    kept = Contents(rerun.copy.store, [one for one in again if one is not None])

    def apart(old: Artifact, new: Artifact, tolerance: Tolerance) -> str | None:
        return unlike(rerun.kept.value(old), kept.value(new), tolerance)

    sides = Sides(
        old=_reader(rerun.project.store), new=_reader(rerun.copy.store), places=_places(rerun),
        moved=functools.partial(_moved, rerun), apart=apart,
    )  # fmt: skip
    differences: dict[int, list[Difference]] = {}
    noted: dict[int, list[Difference]] = {}
    for at, (old, new) in enumerate(zip(rerun.cells, again, strict=True)):
        found = compare(old, new, sides, rerun.wanted.tolerance) if new is not None else []
        names = needed.get(old.id)
        if names is not None:  # what else it left was not asked for
            found = [one for one in found if one.what == "status" or one.key in names]
        noted[at] = found
        if new is None or verdict(found) == DIFFERS:
            differences[at] = found
    situation = Situation(
        old=rerun.cells, new=again, sides=sides, order=range(len(rerun.cells)), environment=rerun.observed(again),
        changes=rerun.changes, masked=rerun.masked, all_cells=rerun.past.cells,
    )  # fmt: skip
    own = [at for at in origins(situation, differences) if again[at] is not None]
    cells = tuple(
        CellVerdict(
            cell_run=one.id, cell=one.started.cell or str(one.started.count), source=_line(one.source),
            verdict=NOT_RUN if again[at] is None else verdict(noted[at]), differences=tuple(noted[at]),
            causes=tuple(causes(situation, at)) if at in own else (),
        )
        for at, one in enumerate(rerun.cells)
    )  # fmt: skip
    said = {one.verdict for one in cells}
    overall = DIFFERS if said & {DIFFERS, NOT_RUN} else TOLERANCE if TOLERANCE in said else IDENTICAL
    return Verification(
        text=rerun.past.text, subject=rerun.past.subject, verdict=overall, cells=cells,
        environment=rerun.environment, why=rerun.why, notes=tuple(rerun.notes), tolerance=rerun.wanted.tolerance,
    )  # fmt: skip


def _places(rerun: Rerun) -> tuple[tuple[str, str], ...]:
    there = str(rerun.out.project)
    pairs = [(str(rerun.project.root), there), (os.path.realpath(rerun.project.root), os.path.realpath(there))]
    return tuple(dict.fromkeys(pairs))


def _moved(rerun: Rerun, old: Artifact, new: Artifact) -> bool:
    """Whether a text or path is that of a folder or file of the project, here and there."""
    if old.type not in _PATHS or old.digest is None:
        return False
    names = {
        name for run in rerun.past.cells for one in (*run.files_read, *run.files_written) if (name := inside(one.name))
    }
    names |= {inside(rerun.past.notebook), inside(rerun.past.run.started.folder), ""}
    for name in list(names):
        while name := posixpath.dirname(name):
            names.add(name)
    make: Callable[[str], Any] = str if old.type == "str" else Path
    for root, copy in _places(rerun):
        for name in names:
            was, now = (make(posixpath.join(base, name) if name else base) for base in (root, copy))
            if fingerprint(was).digest == old.digest and fingerprint(now).digest == new.digest:
                return True
    return False


def _reader(store: Store) -> Bytes:
    def read(digest: Digest) -> bytes | None:
        try:
            return store.get(digest) if store.has(digest) else None
        except (ObjectMissing, ObjectDamaged, ValueError):
            return None  # erased or damaged: it is not at hand

    return read


def _line(source: str) -> str:
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return lines[0][:200] if lines else ""


# -- the verdict -----------------------------------------------------------------------------------------------------


def summary(found: Verification) -> str:
    """The verdict in one line."""
    count = len(found.cells)
    many = f"{count} cell{'s' * (count != 1)}"
    first = found.first
    if first is None:
        odd = sum(one.verdict == TOLERANCE for one in found.cells)
        unknown = sum(each.how == UNKNOWN for one in found.cells for each in one.differences)
        but = f"; {unknown} of what they left {'is' if unknown == 1 else 'are'} not comparable" if unknown else ""
        if odd:
            return f"{many}, {count - odd} identical and {odd} within tolerance{but}"
        return f"{many} identical{but}"
    same = sum(one.verdict in (IDENTICAL, TOLERANCE) for one in found.cells)
    why = next((cause.what for one in found.cells for cause in one.causes), "")
    return f"{same} of {many} the same; cell {first.cell} is the first that differs" + (f": {why}" if why else "")


def _check(wanted: Wanted) -> str:
    """The check's name: another one where something else than the run itself was asked about."""
    odd = [
        *(["code=current"] if wanted.code == "current" else ()),
        *(["order=notebook"] if wanted.order == "notebook" else ()),
    ]
    return f"{CHECK}:{','.join(odd)}" if odd else CHECK


def _evidence(found: Verification, wanted: Wanted) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "verdict": found.verdict, "environment": found.environment, "why": found.why, "notes": list(found.notes),
        "code": wanted.code, "data": wanted.data, "order": wanted.order, "rtol": wanted.tolerance.rtol,
        "atol": wanted.tolerance.atol, "cells": {one.cell_run: one.verdict for one in found.cells},
        "differences": [
            {"cell_run": one.cell_run, "cell": one.cell, "differences": msgspec.to_builtins(one.differences[:_TELLS]),
             "causes": msgspec.to_builtins(one.causes)}
            for one in found.cells
            if one.differences or one.causes
        ][:_TELLS],
    }  # fmt: skip
    return evidence
