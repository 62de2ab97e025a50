"""Whether an earlier run of a cell fits: each thing it depended on is what it was, and what it left can be made."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from jupyter_mlops import values
from jupyter_mlops.access.looking import kind_of, listing_of, stat_of
from jupyter_mlops.capture import process
from jupyter_mlops.capture.recall.entries import Again, Entry, Ground, digest_of_file
from jupyter_mlops.fingerprints import Budget
from jupyter_mlops.values import layout


class Fitting:
    """Holds what an earlier run of a cell depended on against what is there now.

    Parameters
    ----------
    ground
        The kernel and its surroundings.
    trap
        Within it, code is run as a cell is.
    """

    def __init__(self, ground: Ground, trap: Any) -> None:
        self.ground, self.session, self.trap = ground, ground.session, trap

    def fits(self, entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
        """Hold what an earlier run depended on against what is, and make the values it left; nothing is bound.

        Raises
        ------
        Again
            Something is another, or is gone.
        """
        session, environ = self.session, self.session.project.environ
        for name, value in entry.environ.items():
            now = self.ground.all_variables() if name == "*" else environ.get(name)
            if self.ground.keyed(now) != value:
                raise Again(
                    f"the variable {name} of the process is another"
                    if name != "*"
                    else "variables of the process are others"
                )
        for name, kind in entry.kinds.items():
            if (now := kind_of(self.ground.path(name))) != kind:
                was = f"was a {kind}" if kind else "was not there"
                raise Again(f"{name} {was}, and {'is a ' + now if now else 'is not there'} now")
        for name, stats in entry.stats.items():
            size, changed = stat_of(self.ground.path(name))
            if (size, changed if stats[1] else 0) != tuple(stats):
                raise Again(f"size or time of {name} is another")
        for name, listing in entry.listings.items():
            if listing_of(self.ground.path(name)) != listing:
                raise Again(f"the folder {name} lists other names")
        for name, source in entry.sources.items():
            if digest_of_file(self.ground.path(source.name)) != source.digest:
                raise Again(f"the module {name} is another, or gone")
        for name, digest in entry.files.items():
            if session.access.versions.version(self.ground.path(name), Budget()).digest != digest:
                raise Again(f"{name} is another, or gone")
        for name, state in entry.states.items():
            if process.state_of(name) != state:
                raise Again(f"variables in the module {name} are others")
        for name in entry.missing:
            if _may_be_found(name):
                raise Again(f"the module {name} was not there, and may be there now")
        now_states = process.generator_marks() if entry.drew else {}
        for name, state in entry.drew.items():
            if name not in now_states or process.digest(now_states[name]) != state:
                raise Again(f"the generator {name} stands elsewhere")
        for name, (digest, _) in entry.written.items():
            if not session.store.has(digest):
                raise Again(f"the bytes of {name}, which it wrote, are not in the store")
        if entry.shown is not None and not session.store.has(entry.shown):
            raise Again("its outputs are not in the store")
        self._import(entry)
        made = self._make(entry)
        states = {} if entry.generators is None else values.bring(entry.generators, session.store)
        return made, states

    def _import(self, entry: Entry) -> None:
        """Have the modules in memory that the cell brought there; then all settings must stand as they did."""
        with self.trap:  # as in a cell: libraries ask there whether they are in a notebook
            for name in entry.imports:
                if name not in sys.modules:
                    try:
                        importlib.import_module(name)
                    except Exception as error:  # somebody else's module may fail in any way
                        raise Again(f"the module {name} cannot be imported ({type(error).__name__})") from error
        for name, value in entry.changed.items():
            if self.ground.keyed(self.session.project.environ.get(name)) != value:
                raise Again(f"it sets the variable {name} of the process")
        now = process.settings(self.session.project.relative)
        for name, value in entry.settings.items():
            if now.get(name) != value:
                raise Again(f"settings are others, or it sets them ({name})")

    def _make(self, entry: Entry) -> dict[str, Any]:
        space = self.ground.space
        made: dict[str, Any] = {}
        if entry.manifest is not None:
            with process.warnings_kept():
                made = values.bring(entry.manifest, self.session.store, space=space, known=self.ground.known)
        for name, other in entry.same.items():
            if other in made:
                made[name] = made[other]
            elif other in space:
                made[name] = space[other]
            else:
                raise Again(f"{name} was {other}, which is not there")
        if made.keys() != entry.variables.keys():
            raise Again("not all of what it left is in the store")
        if layout(made) != entry.layout:
            raise Again("what it left would lie otherwise in memory")
        return made


def _may_be_found(name: str) -> bool:
    """Whether a module that was not there may be there now, told without importing anything."""
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            importlib.invalidate_caches()
            return importlib.util.find_spec(name) is not None
        top = importlib.util.find_spec(name.partition(".")[0])
        path = sys.modules[parent].__path__ if parent in sys.modules else None
        if path is None:
            return top is None or top.origin is None or "site-packages" not in top.origin
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, path) is not None
    except (ImportError, AttributeError, ValueError):
        return True  # nothing is known
