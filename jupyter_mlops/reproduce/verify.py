"""Whether a past run comes out the same again, cell by cell, and if not, where it begins to differ and why.

Code is brought back into a folder of its own, with a store of its own: nothing of what happens there touches the user's
files or record. Data files are taken from where they lie and held against their digests first. The environment is the
one here if it is the recorded one in all that the run used, else one is made from a lock. Then the cells run headless,
as they ran, and every one is held against its record.

Only the verdict comes back: a `CheckResult` named ``reproducible``, bound to the line of what was verified.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import pipelines
from jupyter_mlops.environment import EnvironmentDiff, diff, observe
from jupyter_mlops.environment.locking import used
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import file_digest, fingerprint, folder_digest
from jupyter_mlops.git import FILE_CAP, masked_source
from jupyter_mlops.lineage.slices import Slice
from jupyter_mlops.objects import ObjectDamaged, ObjectMissing
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, CellRun, CheckResult, Digest, Environment, Package, digest_of
from jupyter_mlops.redact import MASKED
from jupyter_mlops.reproduce.causes import Cause, Change, Situation, causes, origins
from jupyter_mlops.reproduce.checkout import Checkout, checkout, inside, notebook_of, outside
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
from jupyter_mlops.reproduce.create import CreateFailed, create_for, empty_folder
from jupyter_mlops.reproduce.past import Past, environment_of
from jupyter_mlops.reproduce.slicing import SliceRefused, Target, slice_for, target_of

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

CHECK: Final = "reproducible"
"""The name of the check whose result a verification is."""
NOT_RUN: Final = "not run"
_MAKES_NOTHING: Final = ("%load_ext jupyter_mlops", "%reload_ext jupyter_mlops", "%mlops off", "%mlops on")
_PATHS: Final = ("str", "pathlib.PosixPath", "pathlib.WindowsPath", "PosixPath")
_TELLS: Final = 50
_STEERING: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE"})
_IN_PACKAGE: Final = "package:"
"""What the name of a file begins with that lies where packages are installed."""


class CouldNot(MlopsError, RuntimeError):
    """A run could not be verified: something is missing that it needs, or it can not be run as it ran."""


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


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is to be verified.

    Attributes
    ----------
    env
        ``auto``, ``current`` (the one here) or ``new`` (made from a lock).
    code
        ``recorded``, or ``current``: the notebook and modules as they are now.
    data
        ``current`` (the files as they lie there), or ``recorded``: kept bytes where there are any.
    order
        ``run``, or ``notebook``: each cell once, from top to bottom.
    extent
        ``slice``, the cells that what was asked for needs; ``all``; ``auto``: of a headless run all, else the slice.
    """

    env: str = "auto"
    code: str = "recorded"
    data: str = "current"
    order: str = "run"
    extent: str = "auto"
    tolerance: Tolerance = EXACT
    timeout: float | None = None
    offline: bool = False

    @property
    def check(self) -> str:
        """The check's name: another one where something else than the run itself was asked about."""
        odd = [
            *(["code=current"] if self.code == "current" else ()),
            *(["order=notebook"] if self.order == "notebook" else ()),
        ]
        return f"{CHECK}:{','.join(odd)}" if odd else CHECK


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
        work = _Work(past, project, wanted, cells, place)
        work.needed, work.notes = needed, notes
        work.bring_back()
        again = work.run()
        found = work.compare(again)
    result = project.store.append(
        CheckResult(
            check=wanted.check, subject=past.subject, passed=bool(found), summary=summary(found),
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
    book = pipelines.read_notebook(_notebook_here(past, project))
    last = {one.started.cell: one for one in cells if one.started.cell}
    given = last.get(pipelines.INJECTED_TAG)
    cells_ = pipelines.code_cells(book, injected=None if given is None else given.source)
    ids = [str(cell.get("id", "")) for cell in cells_]
    return [last[name] for name in ids if name in last]


def _notebook_here(past: Past, project: Project) -> Path:
    name = inside(past.notebook)
    if not name:
        raise CouldNot(f"the notebook of {past.text} is not known here", cause="its path is not on record")
    return project.root / name


# -- running it ------------------------------------------------------------------------------------------------------


class _Work:
    """One verification, step by step."""

    def __init__(self, past: Past, project: Project, wanted: Wanted, cells: list[CellRun], place: Path) -> None:
        self.past, self.project, self.wanted, self.cells, self.place = past, project, wanted, cells, place
        self.notes: list[str] = []
        self.needed: dict[Digest, frozenset[str] | None] = {}
        self.changes: list[Change] = []
        self.masked: list[str] = []
        self.environment = "current"
        self.why = ""
        self.kernels: Path | None = None
        self.environ: dict[str, str] = dict(project.environ)
        self.out: Checkout
        self.copy: Project
        self.kept = Contents(project.store, past.cells)
        self.recorded: Environment
        self.names: set[str]

    def bring_back(self) -> None:
        """Code, data and environment."""
        self.out = checkout(self.past, self.project, self.place / "project")
        self.code = {one.name for one in (*self._modules(), *self.out.missing) if one.kind == "module"}
        self._bring_code()
        for one in outside(self.cells):
            if one.name not in self.code and not one.name.endswith(".py"):
                self._bring_data(one)
        self._choose_environment()
        self.copy = Project(self.out.project, environ=self.environ)

    def _modules(self) -> list[Artifact]:
        state = self.past.code(self.project.store)
        found = {one.name: one for one in (*(state.modules if state else ()), *self.past.modules)}
        return list(found.values())

    def _bring_code(self) -> None:
        """See that modules are what they were; with the present code, that they are what they are now."""
        for one in self._modules():
            path = inside(one.name)
            if not path:
                continue
            here, there = self.project.root / path, self.out.project / path
            if one.why and one.stored and self.wanted.code == "recorded":
                if self._is_masked(here, one):
                    _copy(here, there)
                else:
                    self.masked.append(one.name)
            now = file_digest(here).digest if here.is_file() else None
            if self.wanted.code == "current" or not there.exists():
                if now is None:
                    raise CouldNot(
                        f"{self.past.text} can not be run again", cause=f"{one.name} was not kept and is not here"
                    )
                _copy(here, there)
                if now != one.digest:
                    self.changes.append(Change(kind="code", name=one.name))
            elif now != one.digest and not one.why:
                self.notes.append(f"{one.name} is not what it was; the recorded source was used")

    def _is_masked(self, here: Path, one: Artifact) -> bool:
        """Whether a file that lies here is the recorded one, before secrets were masked in it."""
        if not here.is_file() or here.stat().st_size > FILE_CAP:
            return False
        return digest_of(masked_source(here.read_bytes(), self.project.redactor())[0]) == one.digest

    def _bring_data(self, one: Artifact) -> None:
        path = inside(one.name)
        if one.name.startswith(_IN_PACKAGE):
            self._check_in_package(one)
            return
        if not path:
            self._check_outside(one)
            return
        here, there = self.project.root / path, self.out.project / path
        kept = there.is_file() and one.digest is not None and file_digest(there).digest == one.digest
        if self.wanted.data == "recorded" and kept:
            if file_digest(here).digest != one.digest:
                self.notes.append(f"{one.name} is not what it was; the recorded bytes were used")
            return
        if not here.exists():
            if not kept:
                raise CouldNot(
                    f"{self.past.text} can not be run again", cause=f"{one.name} is gone and its bytes were not kept",
                    next=f"put back the file with the content {one.digest or '(not recorded)'}",
                )  # fmt: skip
            self.notes.append(f"{one.name} is gone; the recorded bytes were used")
            return
        self._check_room(here)
        if here.is_dir():
            shutil.copytree(here, there, dirs_exist_ok=True)
            now: Digest | None = folder_digest(there).digest
        else:
            _copy(here, there)
            now = file_digest(there).digest
        self._held(one, now, there)
        if now != one.digest and kept:
            self.notes.append(f"the bytes that {one.name} had then are kept: --data recorded runs with them")

    def _check_in_package(self, one: Artifact) -> None:
        """A file that came with a package comes with it again; here it is looked at where packages lie."""
        path = one.name.removeprefix(_IN_PACKAGE)
        for folder in sys.path:
            found = Path(folder or ".", path)
            if found.is_file():
                self._held(one, file_digest(found).digest, found)
                return
        self.notes.append(f"{one.name} is not among the packages here")

    def _check_outside(self, one: Artifact) -> None:
        """A file outside of the project is read where it lies."""
        path = Path(one.name)
        if one.name.startswith("~/"):
            path = Path(self.project.environ.get("HOME", "~")) / one.name[2:]
        if not path.exists():
            raise CouldNot(f"{self.past.text} can not be run again", cause=f"{one.name} is gone")
        self._held(one, folder_digest(path).digest if path.is_dir() else file_digest(path).digest, path)

    def _held(self, one: Artifact, now: Digest | None, path: Path) -> None:
        if one.digest is None:
            self.notes.append(f"whether {one.name} is what it was is not known: {one.why or 'it has no digest'}")
        elif now != one.digest:
            size = path.stat().st_size if path.is_file() else None
            why = f"{one.size} → {size} bytes" if None not in (size, one.size) and size != one.size else ""
            self.changes.append(Change(kind="data", name=one.name, why=why))

    def _check_room(self, path: Path) -> None:
        size = path.stat().st_size if path.is_file() else 0
        free = shutil.disk_usage(self.place).free
        if size > free - (256 << 20):
            raise CouldNot(
                f"there is no room to copy {path.name}", cause=f"{size >> 20} MiB, {free >> 20} are free",
                next="point TMPDIR to a larger disk, or --keep FOLDER there",
            )  # fmt: skip

    # -- the environment ---------------------------------------------------------------------------------------------

    def _choose_environment(self) -> None:
        """Take the environment here where it is the recorded one in what was used, else make one from a lock."""
        store = self.project.store
        recorded = self.recorded = self.past.environment(store)
        here = observe(self.project.environ, redactor=self.project.redactor())
        names, why_all = {one.name for one in recorded.packages}, "of all that was installed"
        if self.past.imported:
            with contextlib.suppress(MlopsError):  # without the extra `env` it is not known what needs what
                names, _ = used(recorded, self.past.imported, self.past.local_modules(store))
                why_all = "of what it used"
        self.names = names
        differs = _narrowed(recorded, here, names)
        same = not (differs.changed or differs.removed or any(fact[0] == "python" for fact in differs.facts))
        if self.wanted.env == "current" or (self.wanted.env == "auto" and same):
            self.why = f"everything {why_all} is here in the recorded version" if same else "as asked for"
            return
        try:
            made = create_for(self.past, self.place / "environment", store=store, offline=self.wanted.offline)
        except MlopsError as error:
            if self.wanted.env == "new":
                raise
            shutil.rmtree(self.place / "environment", ignore_errors=True)
            self.why = f"another could not be made: {error}"
            return
        if not made.kernel:
            raise CreateFailed("the environment has no kernel", cause="ipykernel is not in the lock")
        self.environment = "re-created"
        self.why = "as asked for" if self.wanted.env == "new" else _told(differs)
        self.kernels = made.folder / "share" / "jupyter" / "kernels"
        self.notes += [f"{gap.subject}: {gap.reason}" for gap in made.gaps]
        # the environment is what the lock says: no variable of this one may put other packages before it
        self.environ = {name: value for name, value in self.environ.items() if name not in here.variables}
        told = {name: value for name, value in recorded.variables.items() if name not in _STEERING}
        self.environ |= {name: value for name, value in told.items() if value != "(set)" and "~" not in value}

    def _observed(self, again: Sequence[CellRun | None]) -> EnvironmentDiff:
        """How the environment that the second run had, as its own kernel recorded it, differs from the recorded one."""
        there = environment_of(self.copy.store, [one for one in again if one is not None])
        if there is None:
            self.notes.append("the environment it ran in the second time is not on record")
            return EnvironmentDiff()
        return _narrowed(self.recorded, there, self.names)

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> list[CellRun | None]:
        """Run the cells again; what each became."""
        path = self.out.folder / self.out.notebook
        book = self._notebook()
        for cell, one in zip(book["cells"], self.cells, strict=True):
            if one.status != "done":
                cell["metadata"]["tags"] = [
                    *pipelines.tags_of(cell),
                    "raises-exception",
                ]  # it ended so then, and the run went on
        path.write_text(json.dumps(book))
        cwd = self._cwd(path)
        result = pipelines.run_notebook(
            path, output=self.place / "again.ipynb", project=self.copy, timeout=self.wanted.timeout, cwd=cwd,
            kernels=self.kernels, checkpoints=self._keeps(),
        )  # fmt: skip
        if result.run is None or any(gap.blocks for gap in result.gaps):
            raise CouldNot(
                f"{self.past.text} was run again and not recorded",
                cause=result.gaps[0].reason if result.gaps else "its store could not be written",
            )
        if result.error is not None and result.error.ename == "CellTimeoutError":
            raise CouldNot(
                f"{self.past.text} was not run to its end", cause=str(result.error), next="--timeout SECONDS"
            )
        found = [one for one in self.copy.store.cell_runs(run=result.run, newest_first=False) if not one.started.parent]
        by_cell = {one.started.cell: one for one in found}
        return [by_cell.get(cell["id"]) for cell in book["cells"]]

    def _keeps(self) -> bool:
        """Whether the values of the second run are to be kept: there are values of the first to be held against."""
        return bool(self.wanted.tolerance) and any(self.kept.has(one) for run in self.cells for one in run.outputs)

    def _notebook(self) -> dict[str, Any]:
        book = notebook_of(msgspec.structs.replace(self.past, cells=tuple(self.cells)))
        if self.wanted.code == "current":
            here = pipelines.read_notebook(_notebook_here(self.past, self.project))
            now = {str(cell.get("id", "")): pipelines.source_of(cell) for cell in pipelines.code_cells(here)}
            for cell, one in zip(book["cells"], self.cells, strict=True):
                source = now.get(one.started.cell, one.source)
                if source != one.source:
                    self.changes.append(Change(kind="code", name=f"cell {one.started.cell}"))
                cell["source"] = source
        return book

    def _cwd(self, path: Path) -> Path:
        """The working directory it had, in the new folder; the notebook's own where none is on record."""
        folder = self.past.run.started.folder
        if folder == ".":
            return self.out.project
        place = inside(folder) if folder else ""
        if folder and not place:
            self.notes.append(f"it ran in {folder}, outside of the project: here in the notebook's own folder")
        cwd = self.out.project / place if place else path.parent
        cwd.mkdir(parents=True, exist_ok=True)
        return cwd

    # -- the comparison ----------------------------------------------------------------------------------------------

    def compare(self, again: Sequence[CellRun | None]) -> Verification:
        """Hold every cell run against its record."""
        kept = Contents(self.copy.store, [one for one in again if one is not None])

        def apart(old: Artifact, new: Artifact, tolerance: Tolerance) -> str | None:
            return unlike(self.kept.value(old), kept.value(new), tolerance)

        sides = Sides(
            old=_reader(self.project.store), new=_reader(self.copy.store), places=self._places(), moved=self._moved,
            apart=apart,
        )  # fmt: skip
        differences: dict[int, list[Difference]] = {}
        noted: dict[int, list[Difference]] = {}
        for at, (old, new) in enumerate(zip(self.cells, again, strict=True)):
            found = compare(old, new, sides, self.wanted.tolerance) if new is not None else []
            names = self.needed.get(old.id)
            if names is not None:  # what else it left was not asked for
                found = [one for one in found if one.what == "status" or one.key in names]
            noted[at] = found
            if new is None or verdict(found) == DIFFERS:
                differences[at] = found
        situation = Situation(
            old=self.cells, new=again, sides=sides, order=range(len(self.cells)), environment=self._observed(again),
            changes=self.changes, masked=self.masked, all_cells=self.past.cells,
        )  # fmt: skip
        own = [at for at in origins(situation, differences) if again[at] is not None]
        cells = tuple(
            CellVerdict(
                cell_run=one.id, cell=one.started.cell or str(one.started.count), source=_line(one.source),
                verdict=NOT_RUN if again[at] is None else verdict(noted[at]), differences=tuple(noted[at]),
                causes=tuple(causes(situation, at)) if at in own else (),
            )
            for at, one in enumerate(self.cells)
        )  # fmt: skip
        said = {one.verdict for one in cells}
        overall = DIFFERS if said & {DIFFERS, NOT_RUN} else TOLERANCE if TOLERANCE in said else IDENTICAL
        return Verification(
            text=self.past.text, subject=self.past.subject, verdict=overall, cells=cells,
            environment=self.environment, why=self.why, notes=tuple(self.notes), tolerance=self.wanted.tolerance,
        )  # fmt: skip

    def _places(self) -> tuple[tuple[str, str], ...]:
        there = str(self.out.project)
        pairs = [(str(self.project.root), there), (os.path.realpath(self.project.root), os.path.realpath(there))]
        return tuple(dict.fromkeys(pairs))

    def _moved(self, old: Artifact, new: Artifact) -> bool:
        """Whether a text or path is that of a folder or file of the project, here and there."""
        if old.type not in _PATHS or old.digest is None:
            return False
        names = {
            name
            for run in self.past.cells
            for one in (*run.files_read, *run.files_written)
            if (name := inside(one.name))
        }
        names |= {inside(self.past.notebook), inside(self.past.run.started.folder), ""}
        for name in list(names):
            while name := posixpath.dirname(name):
                names.add(name)
        make: Callable[[str], Any] = str if old.type == "str" else Path
        for root, copy in self._places():
            for name in names:
                was, now = (make(posixpath.join(base, name) if name else base) for base in (root, copy))
                if fingerprint(was).digest == old.digest and fingerprint(now).digest == new.digest:
                    return True
        return False


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        target.unlink()  # what was placed there may be a link
    shutil.copyfile(source, target)


def _reader(store: Store) -> Bytes:
    def read(digest: Digest) -> bytes | None:
        try:
            return store.get(digest) if store.has(digest) else None
        except (ObjectMissing, ObjectDamaged, ValueError):
            return None  # erased or damaged: it is not at hand

    return read


def _narrowed(recorded: Environment, here: Environment, names: set[str]) -> EnvironmentDiff:
    """How the environment here differs from the recorded one, in the packages of these names and in what it runs on."""

    def only(one: Environment) -> Environment:
        packages = [Package(name=each.name, version=each.loaded or each.version) for each in one.packages]
        return msgspec.structs.replace(one, packages=[each for each in packages if each.name in names])

    found = diff(only(recorded), only(here))
    return EnvironmentDiff(removed=found.removed, changed=found.changed, facts=found.facts, variables=found.variables)


def _told(differs: EnvironmentDiff) -> str:
    lines = [f"{old.name} is {new.version} here and was {old.version}" for old, new in differs.changed]
    lines += [f"{one.name} is not installed here" for one in differs.removed]
    lines += [f"{what} is {new} here and was {old}" for what, old, new in differs.facts if what == "python"]
    return ", ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")


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
