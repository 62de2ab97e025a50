"""What a step needs where there is nothing of its project, packed by content; and what it left there, brought home.

A parcel lists files by name and digest. What goes into it: the notebook, files that are named as read or that the
notebook's last run was seen to read, files that its parameters name, and what git tracks, in that order until a size
is reached. What does not go is listed with the reason. Files that are named like a secret never go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints.files import file_digest
from jupyter_mlops.records import CodeState, Digest, Gap, encode

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store
    from jupyter_mlops.targets.protocol import Step

_APART: Final = frozenset({".mlops", ".git", "__pycache__", ".ipynb_checkpoints"})
"""Folders whose files belong to one place and do not travel."""
_NAMED: Final = 5
_CODE: Final = 60_000
"""Bytes of a code state that are told: a variable of a process can hold as many."""


class ParcelInvalid(MlopsError, ValueError):
    """What came from elsewhere has a name that a project's file can not have, or other bytes than it says."""


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a project: its name from the root, its content, and whether it may be started as a program."""

    name: str
    digest: Digest
    size: int
    program: bool = False


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What a step is given of its project.

    Attributes
    ----------
    files
        What is sent.
    left
        What is not though something asks for it, each with the reason.
    unasked
        What else is in the project's folder.
    """

    files: list[Sent]
    left: list[str] = []
    unasked: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files)


def pack(project: Project, step: Step, *, most: int, more: Sequence[str] = ()) -> Parcel:
    """List what a step needs of its project, by content as it is now.

    Parameters
    ----------
    project, step
        Which step, of which project.
    most
        Bytes at most, the notebook aside.
    more
        Patterns of further files, from the project's root.
    """
    redactor = project.redactor()
    files: dict[str, Sent] = {}
    left: list[str] = []
    size = 0
    before = _read_before(project, step.notebook)
    for name in sorted({*step.reads, *before}):
        if name.startswith("~/") or (os.path.isabs(name) and next(_files(project.root, name), None) is None):
            left.append(f"{name}: it is outside of the project")
    for name in _wanted(project, step, before, more):
        if name in files or name == step.output or _APART.intersection(PurePosixPath(name).parts):
            continue
        path = project.root / name
        if name != step.notebook and (_secret(name, redactor) or _secret(os.path.realpath(path), redactor)):
            left.append(f"{name}: it is named like a secret")
            continue
        try:
            facts = path.stat()
            if name != step.notebook and size + facts.st_size > most:
                left.append(
                    f"{name}: with its {facts.st_size / 1e6:,.1f} MB more than {most / 1e6:,.1f} MB would be sent"
                )
                continue
            digest = file_digest(path).digest
        except OSError as error:
            left.append(f"{name}: {error.strerror or error}")
            continue
        if digest is None:
            left.append(f"{name}: it changed while it was read")
            continue
        files[name] = Sent(name=name, digest=digest, size=facts.st_size, program=bool(facts.st_mode & 0o100))
        size += 0 if name == step.notebook else facts.st_size
    return Parcel(files=list(files.values()), left=left, unasked=_others(project.root, files, step, left))


def _secret(name: str, redactor: Any) -> bool:
    from jupyter_mlops.git import holds_credentials

    return holds_credentials(name) or redactor.text(name)[1] > 0


def _wanted(project: Project, step: Step, before: Sequence[str], more: Sequence[str]) -> Iterator[str]:
    """Names of files from the project's root, the ones that are needed most first; each that is there."""
    named = [step.notebook, *step.reads, *before]
    folder = PurePosixPath(step.notebook).parent
    for text in _texts(step.parameters):  # a kernel runs in its notebook's folder
        named += [text, (folder / text).as_posix()] if text and len(text) < 1024 and "\0" not in text else []
    for name in named:
        yield from _files(project.root, name)
    for pattern in more:
        for path in sorted(project.root.glob(pattern)):
            yield from _files(project.root, path.relative_to(project.root).as_posix())
    yield from _tracked(project.root)


def _files(root: Path, name: str) -> Iterator[str]:
    """The file of that name inside of the root, or the files of that folder."""
    clean = os.path.normpath(name)
    path = root / clean
    if os.path.isabs(name):
        if not path.is_relative_to(root):
            return
        clean = path.relative_to(root).as_posix()
    if clean == "." or clean.startswith(".."):
        return
    if path.is_file():
        yield clean
    elif path.is_dir() and name.endswith("/"):
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(set(folders) - _APART)
            for one in sorted(names):
                yield Path(folder, one).relative_to(root).as_posix()


def _read_before(project: Project, notebook: str) -> list[str]:
    """What the notebook's last run, headless or a session, was seen to read."""
    last = project.store.cell_runs(notebook=notebook, limit=1)
    found: dict[str, None] = {}
    for one in project.store.cell_runs(run=last[0].started.run, notebook=notebook) if last else ():
        for artifact in (*one.files_read, *(one.ended.modules if one.ended is not None else ())):
            if artifact.kind in ("file", "module") and not artifact.name.startswith("package:"):
                found[f"{artifact.name}/" if artifact.type == "folder" else artifact.name] = None
    return list(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _tracked(root: Path) -> Iterator[str]:
    from jupyter_mlops.git import GitFailed, Repository

    repository = Repository.find(root)
    if repository is None or repository.bare:
        return
    try:
        names = repository.tracked()
    except GitFailed:
        return  # no git here: what is tracked is then listed among what is left out
    here = Path(os.path.realpath(root))
    for name in names:
        path = repository.root / name
        if path.is_relative_to(here) and path.is_file():
            yield path.relative_to(here).as_posix()


def _others(root: Path, files: dict[str, Sent], step: Step, left: Sequence[str]) -> str:
    """Which files of the project's folder nothing has asked for."""
    known = {*files, step.output, *(one.partition(":")[0] for one in left)}
    found: list[str] = []
    for count, path in enumerate(_visible(root)):
        if count > 10_000:
            return f"more than {len(found):,} files of the project's folder: nothing says that they are needed"
        name = path.relative_to(root).as_posix()
        if name not in known:
            found.append(name)
    if not found:
        return ""
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return f"{', '.join(sorted(found)[:_NAMED])}{more}: nothing says that they are needed"


def _visible(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if one not in _APART and not one.startswith("."))
        for name in sorted(names):
            yield Path(folder, name)


def code_of(project: Project) -> CodeState:
    """The commit around a project and what differs from it, kept here: a worker has no repository to look at."""
    from jupyter_mlops.git import Repository

    repository = Repository.find(project.root)
    if repository is None:
        return CodeState()
    try:
        found = repository.state(project.redactor(), project.store.put)
    except Exception as error:  # noqa: BLE001 - a hostile repository did the unforeseen: the step runs, the record says it
        return CodeState(gaps=[Gap(subject="code", reason=f"could not be read: {type(error).__name__}")])
    if len(encode(found)) <= _CODE:
        return found
    why = Gap(subject="code", reason=f"{len(found.dirty):,} files that differ from the commit were too many to name")
    return CodeState(commit=found.commit, branch=found.branch, remote=found.remote, gaps=[why])


# -- where the step runs ---------------------------------------------------------------------------------------------


def unpack(files: Iterable[Sent], store: Store, root: Path) -> None:
    """Lay a parcel's files out in a folder, from a store that has their bytes.

    Raises
    ------
    ParcelInvalid
        One would lie outside of the folder.
    OSError
        They can not be written.
    """
    for one in files:
        path = inside(root, one.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A copy, never a link: the notebook may write into it.
        shutil.copyfile(store.path / "objects" / one.digest[7:9] / one.digest[9:], path)
        if one.program:
            path.chmod(0o755)


def changed(files: Iterable[Sent], root: Path) -> tuple[list[Sent], list[str]]:
    """What is other in a folder than a parcel laid it out: files made or changed, and the names of those gone."""
    was = {one.name: one for one in files}
    found: list[Sent] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _APART)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                continue
            relative = path.relative_to(root).as_posix()
            seen.add(relative)
            digest = file_digest(path).digest
            if digest is not None and (relative not in was or was[relative].digest != digest):
                facts = path.stat()
                found.append(
                    Sent(name=relative, digest=digest, size=facts.st_size, program=bool(facts.st_mode & 0o100))
                )
    return found, sorted(set(was) - seen)


def inside(root: Path, name: str) -> Path:
    """The path of a project's file by its name, which came from elsewhere.

    Raises
    ------
    ParcelInvalid
        It would lie outside of the folder, or where no notebook's files belong.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name or {".mlops", ".git"} & set(parts):
        raise ParcelInvalid(f"{name[:200]!r} can not be a file of a project")
    path = root.joinpath(*parts)
    top = os.path.realpath(root)
    if os.path.commonpath([top, os.path.realpath(path.parent)]) != top or path.is_symlink():
        raise ParcelInvalid(f"{name[:200]!r} leads out of the project", cause="a link stands in its way")
    return path
