"""The code and files of a past run, written into a folder of their own.

First it is planned what lies where: the files of the recorded commit, over them what was not committed, the modules as
they were loaded, the data files whose bytes are kept, and the cells as a notebook in the order in which they ran. What
the record names and does not hold is listed, never replaced by what happens to lie at that place today.

Paths come from records and from repositories, and both may be hostile. A path is taken only if it can lie in the folder
and nowhere else, on any system; files are created, never opened, in folders that were made here; links are made last,
so that nothing is written through one, and only those stay that lead to something inside.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.git import GitFailed, Repository, TreeFile
from jupyter_mlops.objects import ObjectDamaged, ObjectMissing
from jupyter_mlops.pipelines import INJECTED_TAG
from jupyter_mlops.records import Artifact, CellRun, Digest, Gap, digest_of, short
from jupyter_mlops.reproduce.create import empty_folder
from jupyter_mlops.reproduce.past import Past

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store

_DEVICES: Final = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\.[^/]*)?", re.IGNORECASE)
_OURS: Final = frozenset({".git", ".mlops"})
_DEEPEST: Final = 64
_WIDEST: Final = 255
_LARGEST_LINK: Final = 4096


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a checkout.

    Attributes
    ----------
    path
        Below the folder.
    origin
        ``commit``, ``not committed``, ``module``, ``data``, ``notebook``.
    """

    path: str
    origin: str
    digest: Digest | None = None
    executable: bool = False


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """What was written.

    Attributes
    ----------
    folder
        Where.
    project
        The project's own folder in it: another one where the project is a part of its repository.
    notebook
        The notebook's path below the folder.
    placed
        The files.
    missing
        Files that the record names and does not hold: name, digest, size, and in `why` the reason.
    gaps
        What could not be brought back.
    """

    folder: Path
    project: Path
    notebook: str
    commit: str
    placed: tuple[Placed, ...]
    missing: tuple[Artifact, ...]
    gaps: tuple[Gap, ...]


class _Plan:
    """What is to lie where: path below the folder → what it is, and its bytes or where they are."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files: dict[str, tuple[Placed, bytes | Digest | TreeFile]] = {}
        self.links: dict[str, TreeFile] = {}
        self.missing: dict[str, Artifact] = {}
        self.gaps: list[Gap] = []

    def place(self, path: str, origin: str, what: bytes | Digest | TreeFile, *, executable: bool = False) -> None:
        self.drop(path)
        digest = Digest(what) if isinstance(what, str) else digest_of(what) if isinstance(what, bytes) else None
        self.files[path] = (Placed(path=path, origin=origin, digest=digest, executable=executable), what)

    def drop(self, path: str) -> None:
        self.files.pop(path, None)
        self.links.pop(path, None)

    def lacks(self, one: Artifact, why: str) -> None:
        self.missing[one.name] = msgspec.structs.replace(one, why=why, stored=False, facts=None)


def checkout(past: Past, project: Project, folder: Path) -> Checkout:
    """Write the code and files of a past run into a folder.

    Parameters
    ----------
    past
        What was run.
    project
        Where it is on record, and where its repository is.
    folder
        A folder that is new or empty.

    Raises
    ------
    FolderTaken
        Something is in the folder.
    """
    folder = empty_folder(folder)
    store = project.store
    plan = _Plan(store)
    repository, prefix = _repository(project)
    state = past.code(store)
    if state is not None:
        if state.commit:
            _plan_commit(plan, repository, state.commit)
        plan.gaps += state.gaps
        for one in state.dirty:
            _plan_recorded(plan, one, "", "not committed")
    modules = [*(state.modules if state else ()), *past.modules]
    for one in modules:
        _plan_recorded(plan, one, prefix, "module")
    for one in outside(past.cells):
        _plan_data(plan, one, prefix)
    notebook = _plan_notebook(plan, past, prefix)
    placed = _write(plan, folder, repository)
    return Checkout(
        folder=folder, project=folder / prefix if prefix else folder, notebook=notebook,
        commit=state.commit if state else "", placed=tuple(placed), missing=tuple(plan.missing.values()),
        gaps=tuple(plan.gaps),
    )  # fmt: skip


def outside(cells: Iterable[CellRun]) -> list[Artifact]:
    """The files that cells read and did not write before, each as it was first read."""
    found: dict[str, Artifact] = {}
    written: set[str] = set()
    for cell in cells:
        for one in cell.files_read:
            if one.name not in written:
                found.setdefault(one.name, one)
        written.update(one.name for one in cell.files_written)
    return list(found.values())


def inside(name: str) -> str:
    """A recorded path as one that can only lie below a folder, on any system; empty where it could lie elsewhere.

    >>> inside("data/./a.csv"), inside("../a"), inside("/etc/passwd"), inside("a/.GIT/hooks/x"), inside("nul.txt")
    ('data/a.csv', '', '', '', '')
    """
    if not name or name.startswith(("/", "~")) or "\\" in name or any(ord(one) < 32 or ord(one) == 127 for one in name):
        return ""
    try:
        name.encode()
    except UnicodeEncodeError:
        return ""  # bytes that are no text: other systems would name another file so
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or len(parts) > _DEEPEST or not all(map(_plain, parts)):
        return ""
    return "/".join(parts)


def _plain(part: str) -> bool:
    # some file systems pass over marks that nobody sees, and over case, and shorten names: ".g\u200cit", "GIT~1"
    seen = "".join(one for one in unicodedata.normalize("NFKC", part) if unicodedata.category(one) not in ("Cf", "Cc"))
    folded = seen.casefold().rstrip(". ")
    return not (
        part == ".."
        or part[-1] in ". "
        or ":" in part
        or folded in _OURS
        or re.fullmatch(r"git~\d+", folded)
        or _DEVICES.fullmatch(part)
        or len(part.encode()) > _WIDEST
    )


# -- the plan --------------------------------------------------------------------------------------------------------


def _repository(project: Project) -> tuple[Repository | None, str]:
    """The repository around a project, and the project's path in it."""
    found = Repository.find(project.root)
    if found is None or found.bare:
        return None, ""
    prefix = os.path.relpath(os.path.realpath(project.root), found.root).replace(os.sep, "/")
    return found, "" if prefix == "." else prefix


def _plan_commit(plan: _Plan, repository: Repository | None, commit: str) -> None:
    if repository is None:
        plan.gaps.append(Gap(subject="code", reason=f"there is no repository here that has commit {commit[:12]}"))
        return
    try:
        files = repository.tree(commit)
    except GitFailed as error:
        plan.gaps.append(Gap(subject="code", reason=f"commit {commit[:12]}: {error}"))
        return
    for file in files:
        path = inside(file.path)
        if not path:
            plan.gaps.append(Gap(subject=file.path[:200], reason="a path that could lie elsewhere: not written"))
        elif file.mode == "120000":
            plan.links[path] = file
        elif file.mode == "160000":
            plan.gaps.append(Gap(subject=path, reason=f"a submodule, at commit {file.digest[:12]}: not brought back"))
        else:
            plan.place(path, "commit", file, executable=file.mode == "100755")


def _plan_recorded(plan: _Plan, one: Artifact, prefix: str, origin: str) -> None:
    """A file whose text the record holds, or says why not."""
    path = inside(posixpath.join(prefix, one.name))
    if not path:
        plan.lacks(one, "a path that lies elsewhere")
    elif one.type == "deleted" and origin != "module":
        plan.drop(path)
    elif one.digest is None or not one.stored:
        if not one.name.endswith(".ipynb"):  # its cells are brought back as they ran
            plan.drop(path)
            plan.lacks(one, one.why or "its bytes were not kept")
    elif one.why:  # secrets were masked in it
        plan.place(path, origin, one.digest)
        plan.gaps.append(Gap(subject=one.name, reason=one.why))
    else:
        plan.place(path, origin, one.digest)


def _plan_data(plan: _Plan, one: Artifact, prefix: str) -> None:
    path = inside(posixpath.join(prefix, one.name))
    if not path:
        of_package = one.name.startswith("package:")
        plan.lacks(one, "comes with a package" if of_package else "lies outside of the project")
    elif one.digest is None:
        if path not in plan.files:
            plan.lacks(one, one.why or "no digest of it is on record")
    elif path in plan.files and plan.files[path][0].digest == one.digest:
        return
    elif plan.store.has(one.digest):
        plan.place(path, "data", one.digest)
    elif path not in plan.files:
        plan.lacks(one, "its bytes were not kept")
    else:  # committed: whether these are the bytes that were read is seen when they are written
        placed, what = plan.files[path]
        plan.files[path] = (msgspec.structs.replace(placed, digest=one.digest, origin=placed.origin), what)


def notebook_of(past: Past) -> dict[str, Any]:
    """The cells of a past run as a notebook, in the order in which they ran."""
    cells: list[dict[str, Any]] = []
    for at, run in enumerate(past.cells, 1):
        facts = {"cell_run": run.id, "cell": run.started.cell, "count": run.started.count, "status": run.status}
        metadata: dict[str, Any] = {"mlops": facts}
        if run.started.cell == INJECTED_TAG:
            metadata["tags"] = [INJECTED_TAG]
        cells.append(
            {"cell_type": "code", "id": f"run-{at:04}", "metadata": metadata, "source": run.source,
             "execution_count": None, "outputs": []}
        )  # fmt: skip
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "mlops": {"of": past.subject, "run": past.run.id, "parameters": past.run.started.parameters},
        },
        "cells": cells,
    }


def _plan_notebook(plan: _Plan, past: Past, prefix: str) -> str:
    for run in past.cells:
        if run.started.redacted:
            reason = f"{run.started.redacted} secrets are masked in its source"
            plan.gaps.append(Gap(subject=f"cell {run.started.cell or run.started.count}", reason=reason))
    name = past.notebook
    path = inside(posixpath.join(prefix, name)) if name.endswith(".ipynb") else ""
    path = path or inside(posixpath.join(prefix, f"run-{short(past.run.id)}.ipynb"))
    text = json.dumps(notebook_of(past), indent=1, ensure_ascii=True) + "\n"
    plan.place(path, "notebook", text.encode())
    return path


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(plan: _Plan, folder: Path, repository: Repository | None) -> list[Placed]:
    placed: list[Placed] = []
    later: list[TreeFile] = []
    waiting: dict[str, list[Placed]] = {}
    for path in sorted(plan.files):
        one, what = plan.files[path]
        if isinstance(what, TreeFile):
            waiting.setdefault(what.digest, []).append(one)
            later.append(what)
        elif isinstance(what, bytes):
            _put(plan, folder, one, what, placed)
        else:
            _put(plan, folder, one, _stored(plan.store, what), placed)
    links = [plan.links[path] for path in sorted(plan.links)]
    if repository is not None and (later or links):
        try:
            for file, data in repository.blobs([*later, *links]):
                if file.mode == "120000":
                    _link(plan, folder, inside(file.path), data, placed)
                else:
                    _put(plan, folder, waiting[file.digest].pop(0), data, placed)
        except GitFailed as error:
            plan.gaps.append(Gap(subject="code", reason=f"the commit's files could not be read: {error}"))
    # what a link leads to can change with the links that are made after it
    real = os.path.realpath(folder)
    while astray := [one for one in placed if not os.path.realpath(folder / one.path).startswith(real + os.sep)]:
        for one in astray:
            (folder / one.path).unlink()
            placed.remove(one)
            plan.gaps.append(Gap(subject=one.path, reason="a link that leads elsewhere: not made"))
    return placed


def _stored(store: Store, digest: Digest) -> bytes | None:
    try:
        return store.get(digest)
    except (ObjectMissing, ObjectDamaged):
        return None  # erased, or lost: it is listed as missing


def _put(plan: _Plan, folder: Path, one: Placed, data: bytes | None, placed: list[Placed]) -> None:
    """Create a file, and the folders it lies in; never open what is there."""
    if data is None:
        plan.lacks(Artifact(name=one.path, kind="file", digest=one.digest), "its bytes are gone")
        return
    found = digest_of(data)
    if one.origin == "commit" and one.digest not in (None, found):
        plan.lacks(Artifact(name=one.path, kind="file", digest=one.digest), "other bytes than those of the commit")
    target = folder / one.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(target, flags, 0o755 if one.executable else 0o644), "wb") as file:
            file.write(data)
    except OSError as error:
        reason = f"could not be written: {error.strerror}"  # two paths that are one here, or a file for a folder
        plan.gaps.append(Gap(subject=one.path, reason=reason))
        return
    placed.append(msgspec.structs.replace(one, digest=found))


def _link(plan: _Plan, folder: Path, path: str, data: bytes | None, placed: list[Placed]) -> None:
    """Make a link, if it leads to something inside; by then every file is written."""
    target = (data or b"").decode("utf-8", "surrogateescape")
    leads = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if not target or len(target) > _LARGEST_LINK or target.startswith("/") or inside(leads) != leads:
        plan.gaps.append(Gap(subject=path, reason="a link that leads elsewhere: not made"))
        return
    try:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, folder / path)
    except OSError as error:
        plan.gaps.append(Gap(subject=path, reason=f"the link could not be made: {error.strerror}"))
        return
    placed.append(Placed(path=path, origin="commit"))
