"""An environment like the one that is here, for where a step runs: a lock of what its notebook uses.

It holds what `mlops env lock` would lock of the notebook's runs on record, and what its cells import by their text;
everything that is installed here where it has not run yet.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from jupyter_mlops.environment import canonical
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Digest, Environment

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.targets.protocol import Step

_SEEN: Final = 500
"""Cell runs of a notebook that are looked at."""


class NotLocked(MlopsError, RuntimeError):
    """What is here can not be locked, so that it can not be made elsewhere."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment is made from.

    Attributes
    ----------
    lock
        The digest of its ``pylock.toml``.
    files
        The lock and the wheels that no index has, by digest: where each is, and how many bytes it has.
    packages
        How many packages are in it.
    """

    lock: Digest
    files: Mapping[Digest, tuple[Path, int]]
    packages: int


class Recipes:
    """Recipes of what is here, each made once.

    Parameters
    ----------
    here
        The environment of this process.
    """

    def __init__(self, here: Environment) -> None:
        self._here = here
        self._lock = threading.Lock()
        self._known: dict[frozenset[str], Recipe] = {}

    def recipe(self, project: Project, step: Step) -> Recipe:
        """The recipe for a step.

        Raises
        ------
        NotLocked
            A package can not be locked, or `uv` or the index can not be reached.
        """
        try:
            names = self._names(project, step)
            with self._lock:
                if names not in self._known:
                    self._known[names] = self._made(project, names)
                return self._known[names]
        except MlopsError as error:
            raise NotLocked("the environment that is here can not be made elsewhere", cause=str(error)) from error

    def _names(self, project: Project, step: Step) -> frozenset[str]:
        from jupyter_mlops.environment.locking import used
        from jupyter_mlops.targets.warm import cells_of, imported

        everything = frozenset(canonical(one.name) for one in self._here.packages)
        cells = project.store.cell_runs(notebook=step.notebook, limit=_SEEN)
        seen = {name for one in cells if one.ended is not None for name in one.ended.imported}
        if not seen:
            return everything
        own = {one.type for cell in cells if cell.ended is not None for one in cell.ended.modules}
        path = project.root / step.notebook
        said = imported(cells_of(path)[0], path.parent)
        names, _ = used(self._here, [*seen, *said], own)
        return everything & names

    def _made(self, project: Project, names: frozenset[str]) -> Recipe:
        from jupyter_mlops.environment.locking import WHEELS, lock

        store = project.store
        with tempfile.TemporaryDirectory(prefix="mlops-lock-") as folder:
            made = lock(self._here, names, keep=store.put, folder=Path(folder) / WHEELS)
        missing = sorted(names - {one.name for one in made.packages})
        if missing:
            why = {gap.subject: gap.reason for gap in made.gaps}
            raise MlopsError("; ".join(f"{name}: {why.get(name, 'it is not in the lock')}" for name in missing[:5]))
        digest = store.put(made.pylock().encode())
        kept = [digest, *(file.object for one in made.packages for file in one.files if file.object is not None)]
        places = {one: store.path / "objects" / one[7:9] / one[9:] for one in kept}
        return Recipe(
            lock=digest, files={one: (path, path.stat().st_size) for one, path in places.items()},
            packages=len(made.packages),
        )  # fmt: skip
