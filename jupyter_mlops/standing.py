"""A notebook as it stands on disk, held against what its session has on record.

`lineage.staleness` judges; here its facts are fetched: the cells with their secrets masked as the record has them, the
session's cell runs, and the files and modules as they are on the disk now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from jupyter_mlops.access.tracing import MUTED, current
from jupyter_mlops.access.versions import Versions
from jupyter_mlops.fingerprints import Budget
from jupyter_mlops.git import masked_source
from jupyter_mlops.lineage.matching import Cell
from jupyter_mlops.lineage.staleness import Standing, staleness
from jupyter_mlops.pipelines.parameters import INJECTED_TAG, code_cells, language_of, read_notebook, source_of
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, Digest, Run, digest_of

SECONDS: Final = 10.0
"""What hashing files may take in all; what does not fit cannot be told."""
_PIECE: Final = 20


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """How a notebook on disk stands against a session.

    Attributes
    ----------
    notebook
        Its path as records spell it.
    run
        The session, None where none is on record.
    cells
        The code cells as they stand, secrets masked; of a headless run, its parameters among them.
    standing
        What `lineage.staleness` found.
    why
        Why nothing could be found, where that is so.
    """

    notebook: str
    run: Run | None = None
    cells: tuple[Cell, ...] = ()
    standing: Standing | None = None
    why: str = ""


def stand(
    project: Project, notebook: Path, *, run: Digest | None = None, versions: Versions | None = None
) -> Stand:  # fmt: skip
    """Hold a notebook on disk against a session.

    Parameters
    ----------
    notebook
        The file.
    run
        The session of the kernel that asks; the notebook's last one on record unless given.
    versions
        Knows files by what `stat` says of them; made anew unless given.

    Raises
    ------
    NotebookUnreadable
        There is no such notebook.
    """
    # What is read here is no input of the cell that asks.
    token = current.set(MUTED)
    try:
        return _stand(project, notebook, run, versions)
    finally:
        current.reset(token)


def _stand(project: Project, notebook: Path, run: Digest | None, versions: Versions | None) -> Stand:
    book = read_notebook(notebook)
    name = project.relative(notebook)
    language = language_of(book)
    if language != "python":
        return Stand(notebook=name, why=f"its cells are {language}: only Python is read")
    redactor = project.redactor()
    session = run or last_session(project, name)
    runs = project.store.cell_runs(run=session, newest_first=False) if session is not None else []
    # A headless run's parameters are no part of the notebook, and part of the run: they stand where they stood.
    given = next((one.source for one in runs if one.started.cell == INJECTED_TAG), None)
    cells = tuple(
        Cell(_text(cell.get("id")), redactor.text(source_of(cell))[0]) for cell in code_cells(book, injected=given)
    )
    if session is None:
        return Stand(notebook=name, cells=cells, why="no session of it is on record")
    disk = _Disk(project, versions or Versions(project.root, [project.store.path], SECONDS))
    return Stand(
        notebook=name, run=project.store.run(session), cells=cells, standing=staleness(cells, runs, disk=disk)
    )  # fmt: skip


def last_session(project: Project, notebook: str) -> Digest | None:
    """The last session in which cells of a notebook ran; a headless run where no person's is on record."""
    store = project.store
    found: Digest | None = None
    asked: set[Digest] = set()
    for first in range(0, 2000, _PIECE):  # mostly the newest cell run tells
        names = store.cell_run_names(notebook=notebook, limit=_PIECE, skip=first)
        for one in store.cell_runs_named(names):
            run = one.started.run
            if run in asked:
                continue
            asked.add(run)
            if store.run(run).started.trigger == "session":
                return run
            found = found or run
        if len(names) < _PIECE:
            break
    return found


class _Disk:
    """Files and modules as they are now, each looked at once."""

    def __init__(self, project: Project, versions: Versions) -> None:
        self._project, self._versions = project, versions
        self._budget = Budget(SECONDS)
        self._known: dict[tuple[str, str], Artifact] = {}

    def __call__(self, asked: Artifact) -> Artifact:
        key = asked.kind, asked.name
        if key not in self._known:
            self._known[key] = self._module(asked) if asked.kind == "module" else self._file(asked)
        return self._known[key]

    def _file(self, asked: Artifact) -> Artifact:
        return self._versions.version(str(self._project.path(asked.name)), self._budget)

    def _module(self, asked: Artifact) -> Artifact:
        try:
            data = self._project.path(asked.name).read_bytes()
        except OSError as error:
            return msgspec.structs.replace(asked, digest=None, why=error.strerror or "it can not be read")
        return msgspec.structs.replace(asked, digest=digest_of(masked_source(data, self._project.redactor())[0]))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
