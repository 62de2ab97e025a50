"""What is loaded in a process, by its files: to tell later, from outside, whether a new process would load the same.

A list of versions does not tell whether a file of an installed package was edited, nor whether a new module lies before
another on the path. So each loaded file is kept with what `stat` says of it, each folder of packages with the names of
the distributions in it, and each other folder on the path with those of its names that hide a module.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

import msgspec

from jupyter_mlops.records import Digest, digest_of

Spell = Callable[[str], str]
_INSTALLED = ("site-packages", "dist-packages")
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class File(msgspec.Struct, frozen=True, array_like=True):
    """A file by what its content can hardly change without."""

    name: str
    size: int
    modified: int
    changed: int


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a process had loaded.

    Attributes
    ----------
    python
        The interpreter's version and implementation.
    program
        The interpreter itself, as it was called.
    files
        The interpreter's file, and those of loaded modules that are neither the standard library's nor the project's.
    packages
        Folders of packages, each with the digest of the names of the distributions in it.
    beside
        Other folders on the path, each with the digest of those of its entries that a module may be found under.
    names
        The top-level modules that were loaded, or that code tried to import.
    younger
        Files that changed after the process began: what is loaded may be what they held before.
    """

    python: str
    program: str
    files: list[File] = []
    packages: list[tuple[str, Digest]] = []
    beside: list[tuple[str, Digest]] = []
    names: list[str] = []
    younger: list[str] = []


def loaded(root: str, spell: Spell, wanted: Iterable[str] = (), *, since: int = 0) -> Loaded:
    """Look at this process.

    Parameters
    ----------
    root
        The project's folder: its own modules are recorded by their source, and not here.
    spell
        Writes a path as records do.
    wanted
        Names of modules that code tried to import, whether or not it found them.
    since
        When the process was about to begin, in nanoseconds since the epoch.
    """
    inside = os.path.realpath(root) + os.sep
    library = tuple({os.path.dirname(os.path.realpath(os.__file__)) + os.sep, os.path.dirname(os.__file__) + os.sep})
    paths = {sys.executable}
    names = set(wanted)
    for name, module in list(sys.modules.items()):
        if type(name) is not str:
            continue
        names.add(name.partition(".")[0])
        path = _file(module)
        if path is None or path.startswith(_OURS):
            continue
        installed = any(f"{os.sep}{one}{os.sep}" in path for one in _INSTALLED)
        if installed or not (path.startswith(library) or os.path.realpath(path).startswith(inside)):
            paths.add(path)
    folders = list(dict.fromkeys(os.path.abspath(path) for path in sys.path))
    packages = [path for path in folders if path.endswith(_INSTALLED)]
    for folder in packages:  # what is written in these extends the path, or runs
        paths.update(os.path.join(folder, name) for name in _names(folder) if name.endswith(".pth"))
    found = [one for path in sorted(paths) if (one := _look(path, spell(path))) is not None]
    beside = [
        path for path in folders
        if path not in packages and not f"{path}{os.sep}".startswith((*library, _OURS)) and os.path.isdir(path)
    ]  # fmt: skip
    return Loaded(
        python=f"{platform.python_implementation()} {sys.version.split()[0]}",
        program=spell(sys.executable),
        files=found,
        packages=[(spell(path), distributions(path)) for path in packages],
        beside=[(spell(path), hiding(path, names)) for path in beside],
        names=sorted(names),
        younger=[file.name for file in found if file.changed > since],
    )


def changed(was: Loaded, find: Callable[[str], str], seen: dict[str, bool] | None = None) -> str:
    """Why a new process would not load the same; empty where it would.

    Parameters
    ----------
    was
        What was loaded.
    find
        Turns a name of the record into a path.
    seen
        Files and folders looked at already, each with whether it is as it was: for many questions at once.
    """
    seen = {} if seen is None else seen
    for file in was.files:
        key = f"{file.name}\0{file.size}\0{file.modified}\0{file.changed}"
        if key not in seen:
            seen[key] = _look(find(file.name), file.name) == file
        if not seen[key]:
            return f"{_package(file.name)} is not what was loaded"
    for folder, digest in was.packages:
        key = f"{folder}\0{digest}"
        if key not in seen:
            seen[key] = distributions(find(folder)) == digest
        if not seen[key]:
            return "packages were installed or removed"
    for folder, digest in was.beside:
        key = f"{folder}\0{digest}\0{len(was.names)}"
        if key not in seen:
            seen[key] = hiding(find(folder), was.names) == digest
        if not seen[key]:
            return f"a module that is imported may be another: {folder} has new files"
    return ""


def distributions(folder: str) -> Digest:
    """The digest of the names and versions of what is installed in a folder, and of the files that extend the path."""
    return _names_in(folder, lambda name: name.endswith((".dist-info", ".egg-info", ".egg-link", ".pth")))


def hiding(folder: str, names: Iterable[str]) -> Digest:
    """The digest of the names in a folder under which a module of these names may be found."""
    wanted = names if isinstance(names, set) else set(names)

    def hides(name: str) -> bool:
        stem, _, rest = name.partition(".")
        return stem in wanted and (not rest or rest.endswith(("py", "so", "pyd", "pyc")))

    return _names_in(folder, hides)


def _names_in(folder: str, wanted: Callable[[str], bool]) -> Digest:
    return digest_of(b"\0".join(sorted(os.fsencode(name) for name in _names(folder) if wanted(name))))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # gone, or none of ours: there is nothing to be found in it


def _look(path: str, name: str) -> File | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # an archive's inside, or gone
    return File(name, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _file(module: object) -> str | None:
    """The file a loaded module comes from, read from its dictionary alone."""
    if not issubclass(type(module), ModuleType):
        return None
    path = ModuleType.__getattribute__(module, "__dict__").get("__file__")
    return path if type(path) is str else None


def _package(name: str) -> str:
    """A file as a person knows it: by its place among the packages."""
    for one in _INSTALLED:
        _, found, rest = name.rpartition(f"/{one}/")
        if found:
            return f"{rest} (installed)"
    return name
