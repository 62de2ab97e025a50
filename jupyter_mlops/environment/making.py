"""A virtual environment with a kernel that works in it, made from a lock.

`uv` finds a Python that is installed, downloads none unless asked to, and installs exactly the locked files: each by
its hash, from its cache or from whatever index it is set up for here. What came out is read back and held against what
was recorded; nothing is taken for granted because an installer said that it was done.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Protocol

import msgspec

from jupyter_mlops.environment.locking import WHEELS, Lock, LockedFile, check_python, told, uv
from jupyter_mlops.environment.observing import EnvironmentDiff, canonical, diff, program_variables
from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.records import Digest, Environment, Gap, Package, decode

_READ_BACK: Final = """\
import json, platform
from importlib import metadata
found = {}
for one in metadata.distributions():
    found.setdefault(one.metadata["Name"], one.version)
print(json.dumps({"python": platform.python_version(), "implementation": platform.python_implementation(),
                  "machine": platform.machine(), "packages": found}))
"""


class Kept(Protocol):
    """Where wheels are kept as objects: a store."""

    def has(self, digest: Digest) -> bool: ...

    def get(self, digest: Digest) -> bytes: ...


class CreateFailed(MlopsError, RuntimeError):
    """An environment could not be made from a lock."""


class FolderTaken(WrongUse):
    """A folder that was to be new or empty is not."""


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that was made.

    Attributes
    ----------
    folder, python
        Where it is, and its interpreter.
    kernel
        The name of its kernel, as Jupyter lists it in that environment; empty where it has none.
    installed
        Whether that kernel is among the user's own too.
    differs
        How what was made differs from what was locked.
    gaps
        What is to be said.
    """

    folder: Path
    python: Path
    kernel: str
    installed: bool
    lock: Lock
    differs: EnvironmentDiff
    gaps: tuple[Gap, ...] = ()


def empty_folder(folder: Path) -> Path:
    """Make a folder that nothing is in yet.

    Raises
    ------
    FolderTaken
        Something is there.
    """
    folder = folder.absolute()
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise FolderTaken(f"{folder} is not empty", next="give a folder that is new or empty")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderTaken(f"{folder} can not be made", cause=error.strerror or "") from error
    return folder


def create(
    made: Lock,
    folder: Path,
    *,
    store: Kept | None = None,
    wheels: Path | None = None,
    kernel: str = "",
    offline: bool = False,
    download: bool = False,
) -> Created:
    """Make a virtual environment from a lock, with every file's hash required, and read it back.

    Parameters
    ----------
    made
        The lock.
    folder
        A folder that is new or empty.
    store
        Where wheels that no index has are kept.
    wheels
        The lock's folder, beside whose file they may lie in ``wheels/``.
    kernel
        The name under which its kernel is to be among the user's own; none is put there unless given.
    offline
        Use only what `uv` has in its cache.
    download
        Let `uv` download the Python, where none that fits is installed.

    Raises
    ------
    FolderTaken
        The folder holds something.
    LockInvalid
        Its Python is none.
    CreateFailed
        There is no such Python here, or a package could not be installed with the hash it is locked to.
    """
    folder = empty_folder(folder)
    python, gaps = _interpreter(made, folder, offline=offline, download=download)
    with tempfile.TemporaryDirectory(prefix="mlops-create-") as place:
        work = Path(place)
        (work / WHEELS).mkdir()
        gaps += _bring_wheels(made, work / WHEELS, store, wheels)
        (work / "requirements.txt").write_text(made.requirements())
        done = uv(
            "pip", "install", "--python", str(python), "--require-hashes", "--no-deps", "--quiet", "--strict",
            "--find-links", str(work / WHEELS), "-r", str(work / "requirements.txt"), offline=offline, cwd=work,
        )  # fmt: skip
        if done.returncode != 0:
            raise CreateFailed(
                f"the environment could not be made in {folder.name}", cause=told(done),
                next="without --offline" if offline else "mlops env lock makes the lock anew, from what is here",
            )  # fmt: skip
    there = read_back(python)
    name = ""
    installed = False
    if any(one.name == "ipykernel" for one in there.packages):
        name = kernel or "python3"
        installed = bool(kernel)
        _kernel(python, name, folder, user=installed)
    else:
        gaps.append(Gap(subject="kernel", reason="ipykernel is not in the lock, so there is no kernel"))
    wanted = Environment(
        python=made.python, implementation=made.implementation, machine=there.machine,
        packages=[Package(name=one.name, version=one.version) for one in made.packages],
    )  # fmt: skip
    return Created(
        folder=folder, python=python, kernel=name, installed=installed, lock=made, differs=diff(wanted, there),
        gaps=(*made.gaps, *gaps),
    )  # fmt: skip


def _interpreter(made: Lock, folder: Path, *, offline: bool, download: bool) -> tuple[Path, list[Gap]]:
    """The Python of a new virtual environment: the locked version, else another of its minor version."""
    check_python(made.python)
    if made.implementation != "CPython":
        raise CreateFailed(f"the lock is of {made.implementation}", cause="only CPython can be made here")
    minor = ".".join(made.python.split(".")[:2])
    words = ("venv", "--no-project", "--quiet", str(folder))
    for version in dict.fromkeys((made.python, minor)):
        done = uv(*words, "--python", version, offline=offline, download=download)
        if done.returncode == 0:
            path = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
            gaps = [] if version == made.python else [Gap(subject="python", reason=f"Python {made.python} is not here")]
            return path, gaps
    raise CreateFailed(
        f"there is no Python {minor} here", cause=told(done), next=f"uv python install {made.python}, or --download"
    )


def _bring_wheels(made: Lock, target: Path, store: Kept | None, beside: Path | None) -> list[Gap]:
    """Put the wheels that no index has where the installer looks; it compares their hashes itself."""
    gaps = []
    for one in made.packages:
        for file in one.files:
            if file.object is None:
                continue
            data = _wheel(file, store, beside)
            if data is None:
                gaps.append(Gap(subject=one.name, reason=f"{file.name} is neither beside the lock nor in this store"))
            else:
                (target / file.name).write_bytes(data)
    return gaps


def _wheel(file: LockedFile, store: Kept | None, beside: Path | None) -> bytes | None:
    if store is not None and file.object is not None and store.has(file.object):
        return store.get(file.object)
    path = beside / WHEELS / file.name if beside is not None else None
    return path.read_bytes() if path is not None and path.is_file() and not path.is_symlink() else None


def _run(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *words], env=program_variables("JUPYTER_DATA_DIR", "XDG_DATA_HOME"), text=True,
        stdin=subprocess.DEVNULL, capture_output=True,
        errors="replace", timeout=300, check=False,
    )  # fmt: skip


def read_back(python: Path) -> Environment:
    """What an environment really holds, asked of its own interpreter.

    Raises
    ------
    CreateFailed
        It does not run.
    """
    done = _run(python, "-I", "-c", _READ_BACK)
    if done.returncode != 0:
        raise CreateFailed("the new interpreter does not run", cause=done.stderr.strip()[-300:])
    found = decode(done.stdout.encode(), dict)
    packages = [Package(name=canonical(name), version=version) for name, version in found["packages"].items()]
    return Environment(
        python=found["python"], implementation=found["implementation"], machine=found["machine"],
        packages=sorted(packages, key=lambda one: one.name),
    )  # fmt: skip


def _kernel(python: Path, name: str, folder: Path, *, user: bool) -> None:
    """Put a kernel's specification into the environment, and among the user's own where asked."""
    title = f"{name} ({folder.name})"
    places = [["--prefix", str(folder)], *([["--user"]] if user else [])]
    for place in places:
        done = _run(python, "-m", "ipykernel", "install", "--name", name, "--display-name", title, *place)
        if done.returncode != 0:
            raise CreateFailed(f"the kernel {name!r} could not be installed", cause=done.stderr.strip()[-300:])
