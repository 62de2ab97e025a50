"""The project's own modules among those that are loaded, by source, as they were loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from jupyter_mlops.git.repository import FILE_CAP, Put, keep, read_bytes
from jupyter_mlops.records import Artifact
from jupyter_mlops.redact import Redactor


def local_modules(root: Path, redactor: Redactor, put: Put) -> list[Artifact]:
    """The loaded modules whose files lie in the project, by source.

    Parameters
    ----------
    root
        The project's folder; installed packages and virtual environments inside it do not count.
    redactor, put
        As for `Repository.state`.

    Returns
    -------
    list of Artifact
        ``kind`` is ``module``, ``type`` the module's name, ``name`` the path below the root.
    """
    global _last
    last = _last
    if last is None or not last.serves(root, redactor, put):
        last = _last = Modules(root, redactor, put)
    return last.all()


class Modules:
    """Local modules as they were loaded; new and reloaded ones are noticed for microseconds."""

    def __init__(self, root: Path, redactor: Redactor, put: Put) -> None:
        self._root = os.path.realpath(root)
        self._redactor, self._put = redactor, put
        self._count = -1
        self._looked: set[str] = set()
        self._specs: dict[str, int] = {}
        self._found: dict[str, Artifact] = {}
        self._environments: dict[str, bool] = {}
        self._folders: dict[str, str] = {}
        self._own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def changed(self) -> bool:
        """Look at what was imported or reloaded since; whether the list differs."""
        before = len(self._found)
        again = [name for name, spec in self._specs.items() if _spec(name) != spec]
        for name in again:
            self._found.pop(name, None)
            self._specs.pop(name, None)
        fresh: list[str] = again
        if len(sys.modules) != self._count:
            self._count = len(sys.modules)
            fresh = again + [name for name in list(sys.modules) if name not in self._looked]
        for name in fresh:
            self._look(name)
        return bool(again) or len(self._found) != before

    def serves(self, root: Path, redactor: Redactor, put: Put) -> bool:
        return (os.path.realpath(root), redactor, put) == (self._root, self._redactor, self._put)

    def all(self) -> list[Artifact]:
        self.changed()
        return [self._found[name] for name in sorted(self._found)]

    def _look(self, name: str) -> None:
        if type(name) is not str:
            return
        self._looked.add(name)
        path = _attribute(sys.modules.get(name), "__file__")
        if type(path) is not str or not path.endswith((".py", ".pyw")):
            return
        path = self._real(path)
        if not self._is_local(path):
            return
        self._specs[name] = _spec(name)
        relative = self._redactor.text(os.path.relpath(path, self._root))[0]
        try:
            size = os.stat(path).st_size
        except OSError:
            return  # removed since it was imported; its spec is kept, so a reload is still noticed
        data = read_bytes(path, FILE_CAP + 1, follow=True)
        if data is None or size > FILE_CAP:
            self._found[name] = Artifact(
                name=relative, kind="module", type=name, size=size, why="not kept: larger than the cap"
            )
        else:
            self._found[name] = keep(relative, "module", name, data, self._redactor, self._put)

    def _real(self, path: str) -> str:
        """The path without links, asked once for each folder: there are thousands of modules."""
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}{os.sep}{name}"

    def _is_local(self, path: str) -> bool:
        if not path.startswith(self._root + os.sep) or path.startswith(self._own + os.sep):
            return False
        folder = os.path.dirname(path)
        if folder not in self._environments:
            parts = os.path.relpath(folder, self._root).split(os.sep)
            above = [os.path.join(self._root, *parts[: n + 1]) for n in range(len(parts))]
            self._environments[folder] = any(part in ("site-packages", "dist-packages") for part in parts) or any(
                os.path.exists(os.path.join(one, "pyvenv.cfg")) or os.path.isdir(os.path.join(one, "conda-meta"))
                for one in above
            )
        return not self._environments[folder]


_last: Modules | None = None
"""What `local_modules` last looked at: it notices what came since, and keeps the source of what was loaded then."""


def _attribute(module: object, name: str) -> Any:
    """An attribute from a module's dictionary alone: what a module computes on demand is not asked for."""
    # the class itself is asked, since an object can lie about its own
    return ModuleType.__getattribute__(module, "__dict__").get(name) if issubclass(type(module), ModuleType) else None


def _spec(name: str) -> int:
    """Identity of a module's specification: a reload makes a new one."""
    return id(_attribute(sys.modules.get(name), "__spec__"))
