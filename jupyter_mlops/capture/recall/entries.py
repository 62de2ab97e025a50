"""What is kept of a cell, and what is asked of the kernel before it and after it."""

from __future__ import annotations

import hashlib
import os
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import __version__, seals, values
from jupyter_mlops.access.looking import OURS
from jupyter_mlops.capture import process
from jupyter_mlops.fingerprints import Budget, file_digest
from jupyter_mlops.lineage import CellNames
from jupyter_mlops.records import (
    Artifact,
    Digest,
    digest_of,
)
from jupyter_mlops.values import Layouts

if TYPE_CHECKING:
    from jupyter_mlops.capture.run import Session

FORMAT: Final = "recall-1"


class Again(Exception):
    """A cell has to run. Its text is the reason."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one run of a cell did and depended on, beside what its key says.

    Attributes
    ----------
    cell_run
        The run that did it.
    variables, manifest, layout, same
        What it left: versions by name, the object that holds the values, their layout, and names that are the very
        object another one is.
    files
        Paths it read, each with the digest.
    written, folders
        Files with digest and mode, and folders, that it made.
    kinds, stats, listings
        What it found under paths, as `Looks` has it.
    environ
        Keyed digests of the variables of the process that it read; None for one that was not there.
    missing
        Modules that were not there.
    imports, sources
        Modules that came into memory, in order; and of those that are not installed the source.
    states
        Local modules' own variables before it, by module.
    settings, changed
        What settings stood at after it, and keyed digests of the variables of the process that changed meanwhile.
    drew
        Generators whose state counted, each with the digest of its state before.
    generators
        The object that holds the states it left.
    shown
        The object that holds the cell's outputs as the notebook has them.
    """

    cell_run: Digest
    variables: dict[str, Artifact] = {}
    made: list[str] = []
    manifest: Digest | None = None
    layout: str = ""
    same: dict[str, str] = {}
    removed: list[str] = []
    files: dict[str, Digest] = {}
    written: dict[str, tuple[Digest, int]] = {}
    folders: list[str] = []
    kinds: dict[str, str] = {}
    stats: dict[str, tuple[int, int]] = {}
    listings: dict[str, str] = {}
    environ: dict[str, str | None] = {}
    missing: list[str] = []
    imports: list[str] = []
    sources: dict[str, process.Source] = {}
    states: dict[str, str] = {}
    settings: dict[str, str] = {}
    changed: dict[str, str | None] = {}
    drew: dict[str, str] = {}
    generators: Digest | None = None
    shown: Digest | None = None
    format: str = FORMAT
    seal: str = ""


class Asked(msgspec.Struct):
    """What is known of a cell before it runs."""

    source: str
    cell: str
    names: CellNames
    key: Digest | None
    lay: Layouts | None
    why: str
    modules: frozenset[str]
    states: dict[str, str | None]
    generators: dict[str, str]
    moment: dict[str, Any]
    began: float


class Ground:
    """What is asked of a kernel and its surroundings before a cell and after it.

    Parameters
    ----------
    session
        The session that records it.
    """

    def __init__(self, session: Session) -> None:
        assert session.variables is not None
        self.session = session
        self.space = session.variables
        self.known: dict[values.Claim, Digest] = {}
        """Objects by the array they hold."""
        self._key = seals.local_key()

    def sealed(self, entry: Entry) -> str:
        """The seal of an entry."""
        return seals.seal(self._key, digest_of(msgspec.json.encode(msgspec.structs.replace(entry, seal=""))))

    def keyed(self, value: str | None) -> str | None:
        """A digest that only this machine can make: what is read from the surroundings is easily guessed."""
        if value is None:
            return None
        return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).hexdigest()

    def path(self, name: str) -> str:
        """The path that a record spells so."""
        if name.startswith("~/"):
            return os.path.expanduser(name)
        return os.path.join(str(self.session.project.root), name)

    def name(self, path: str) -> str:
        """A path as records spell it."""
        return self.session.access.versions.name(path) or path

    def version(self, name: str, known: Artifact | None, value: object) -> str:
        """The version of a variable, as a text.

        Raises
        ------
        Again
            It has none.
        """
        if type(value) is types.ModuleType:
            return f"module {value.__name__}"
        if (ours := dotted(value, name)).startswith("jupyter_mlops."):
            return f"{ours} {__version__}"
        version = known or self.session.namespace.version(name)
        if version is None or version.digest is None:
            why = version.why if version is not None else "it is gone"
            raise Again(f"{name} has no digest: {why or 'it could not be made'}")
        return version.digest

    def variables(self) -> dict[str, str]:
        """The variables of the process, but for those an engine sets for its kernel."""
        environ = self.session.project.environ
        return {name: environ[name] for name in list(environ) if not name.startswith(OURS)}

    def all_variables(self) -> str:
        """All of them, as one text."""
        return repr(sorted(self.variables().items()))


_LIBRARY: Final = (types.FunctionType, types.BuiltinFunctionType)


def dotted(value: object, name: str) -> str:
    """The dotted name of a module, or of a function or class of a library; empty for what is the notebook's."""
    kind = type(value)
    if kind is types.ModuleType:
        return str(types.ModuleType.__getattribute__(value, "__dict__").get("__name__", name))
    if kind in _LIBRARY or issubclass(kind, type):
        home = type.__getattribute__(value, "__module__") if issubclass(kind, type) else value.__module__
        if type(home) is str and home not in ("__main__", "builtins"):
            return f"{home}.{getattr(value, '__qualname__', name)}"
    return ""


def digest_of_file(path: str) -> str | None:
    """The digest of a file's bytes; None where it cannot be read."""
    return file_digest(Path(path), budget=Budget()).digest
