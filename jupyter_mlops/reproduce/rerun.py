"""A past run brought back and run again, in a folder of its own.

Nothing of what happens there touches the user's files or record. Data files are taken from where they lie and held
against their digests first. The environment is the one here if it is the recorded one in all that the run used, else
one is made from a lock. Then the cells run headless, as they ran.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops import pipelines
from jupyter_mlops.environment import EnvironmentDiff, diff, observe
from jupyter_mlops.environment.locking import used
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import file_digest, folder_digest
from jupyter_mlops.git import FILE_CAP, masked_source
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, CellRun, Digest, Environment, Package, digest_of
from jupyter_mlops.reproduce.causes import Change
from jupyter_mlops.reproduce.checkout import Checkout, checkout, inside, notebook_of, outside
from jupyter_mlops.reproduce.comparing import EXACT, Tolerance
from jupyter_mlops.reproduce.contents import Contents
from jupyter_mlops.reproduce.create import CreateFailed, create_for
from jupyter_mlops.reproduce.past import Past, environment_of

_STEERING: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE"})
_IN_PACKAGE: Final = "package:"
"""What the name of a file begins with that lies where packages are installed."""


class CouldNot(MlopsError, RuntimeError):
    """A run could not be verified: something is missing that it needs, or it can not be run as it ran."""


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


def notebook_here(past: Past, project: Project) -> Path:
    """The notebook of a past run, where it lies now."""
    name = inside(past.notebook)
    if not name:
        raise CouldNot(f"the notebook of {past.text} is not known here", cause="its path is not on record")
    return project.root / name


class Rerun:
    """A past run brought back and run again, step by step.

    Attributes
    ----------
    notes
        What is to be known of how it was run.
    changes
        What of its code and data is not what it was.
    masked
        Modules that only their masked source is there of.
    environment
        ``current`` or ``re-created``, and in `why` for what reason.
    out
        Its code, as it was brought back.
    copy
        The project that it runs in, with a record of its own.
    kept
        The recorded values.
    """

    def __init__(self, past: Past, project: Project, wanted: Wanted, cells: list[CellRun], place: Path) -> None:
        self.past, self.project, self.wanted, self.cells, self.place = past, project, wanted, cells, place
        self.notes: list[str] = []
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

    def observed(self, again: Sequence[CellRun | None]) -> EnvironmentDiff:
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
            here = pipelines.read_notebook(notebook_here(self.past, self.project))
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


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        target.unlink()  # what was placed there may be a link
    shutil.copyfile(source, target)


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
