"""Finds the project, reads what surrounds it, opens its store.

A project is a folder with a ``.mlops/`` in it. Everything else takes its surroundings as arguments: this module is the
one that looks at environment variables, the working directory and settings, for all faces alike.

Settings stand in the project's ``pyproject.toml`` under ``[tool.jupyter-mlops]``. All of them are numbers, flags,
patterns and names: a folder's settings can not make anybody run code. Where they name a target, nothing goes there
before somebody names it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from jupyter_mlops.errors import MlopsError

if TYPE_CHECKING:
    from jupyter_mlops.redact import Redactor
    from jupyter_mlops.store import Store

FOLDER: Final = ".mlops"
CODE: Final = "JUPYTER_MLOPS_CODE"
"""The variable that tells a process of the code around it, where that is elsewhere; see `Project.code`."""
ON_BEHALF_OF: Final = "JUPYTER_MLOPS_ON_BEHALF_OF"
"""The variable that tells a process for whom a server started it; see `Project.on_behalf_of`."""
_SETTINGS_LIMIT: Final = 1 << 20
_T = TypeVar("_T")


class ProjectMissing(MlopsError, FileNotFoundError):
    """There is no project here, and none was to be made."""


class SettingsInvalid(MlopsError, ValueError):
    """The project's settings can not be read."""

    exit_code = 2


Word = Literal["reason", "ticket"]
"""What can be demanded of whoever does something with a model."""


class Demands(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be said with whatever is done with models.

    Attributes
    ----------
    register, approve
        With each registration; with each approval, and where one is taken back.
    promote, rollback
        With each move of an alias, by alias; ``"*"`` for any other.
    """

    register: list[Word] = []
    approve: list[Word] = []
    promote: dict[str, list[Word]] = {}
    rollback: dict[str, list[Word]] = {}

    def of(self, act: str, alias: str = "") -> tuple[Word, ...]:
        """What is to be said with an act; of a move, with that of an alias."""
        if act in ("promote", "rollback"):
            return tuple(_for_alias(getattr(self, act), alias) or ())
        return tuple(getattr(self, act))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """What a project may set, with its defaults.

    Attributes
    ----------
    budget_ms
        Milliseconds a cell may be held up by fingerprints of what it touched; the rest is done while the kernel is
        idle, or becomes a gap.
    keep_displays
        Keep the bytes of what cells display and print (always so in headless runs); else type, size and digest.
    keep_files_mb
        Megabytes of the files that one headless run leaves which a cache keeps, to put them back when they are gone.
    gates
        What `promote` demands of a model before an alias may point to it, by alias; ``"*"`` for any other.
    demands
        What is to be said with what is done with models: a ``reason``, a ``ticket``.
    targets
        Where notebooks can run, by name: a table of ``kind`` and what that kind of target can be told.
    cache
        What headless runs do not do again unless they are told otherwise: ``cells`` that did it before, or nothing.
    """

    budget_ms: int = 250
    keep_displays: bool = False
    keep_files_mb: int = 512
    gates: dict[str, list[str]] = {}
    demands: Demands = Demands()
    targets: dict[str, dict[str, Any]] = {}
    cache: Literal["off", "cells"] = "off"

    def demanded(self, alias: str) -> tuple[str, ...]:
        """The gates that are set for an alias; none where nothing is said of it."""
        return tuple(_for_alias(self.gates, alias) or ())


def _for_alias(table: Mapping[str, _T], alias: str) -> _T | None:
    """What a table says of an alias, which it may write with its ``@``; else of any other."""
    named = {name.removeprefix("@"): said for name, said in table.items()}
    return named.get(alias, named.get("*"))


class Project:
    """A folder with a record.

    Parameters
    ----------
    root
        The folder that holds ``.mlops/``.
    environ
        The variables to read; the process's own unless given.
    store
        Its store, where it is open already.
    """

    def __init__(
        self, root: Path, *, environ: Mapping[str, str] | None = None, store: Store | None = None
    ) -> None:  # fmt: skip
        self.root = root
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self._store: Store | None = store
        self._redactor: Redactor | None = None
        self._settings: Settings | None = None

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r})"

    @classmethod
    def find(cls, start: Path | None = None) -> Project | None:
        """The project around a folder (the working directory unless given), or None."""
        here = Path(start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / FOLDER / "format").is_file():
                return cls(folder)
        return None

    @classmethod
    def open(cls, start: Path | None = None, *, create: bool = True) -> Project:
        """The project around a folder; made, if need be, at the root of the repository or else in the folder itself.

        Raises
        ------
        ProjectMissing
            There is none, and `create` is off.
        """
        told = os.environ.get("JUPYTER_MLOPS_PROJECT") if start is None else None
        if told and (Path(told) / FOLDER / "format").is_file():
            return cls(Path(told))  # a headless run's kernel records where the run does, wherever its notebook is
        found = cls.find(start)
        if found is not None:
            return found
        here = Path(start or Path.cwd()).resolve()
        if not create:
            raise ProjectMissing(f"there is no project in {here} or above", next="mlops init")
        root = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
        project = cls(root)
        _ = project.store
        return project

    def within(self, run: str) -> Project:
        """This project, for what is done as a part of a run: it says so on record."""
        inner = Project(self.root, environ={**self.environ, "JUPYTER_MLOPS_RUN": run})
        inner._store, inner._redactor, inner._settings = self.store, self._redactor, self._settings
        return inner

    @property
    def store_folder(self) -> Path:
        """Where the store is, or would be; it is not opened."""
        return self.root / FOLDER

    @property
    def store(self) -> Store:
        """The project's store, opened (and made, if need be) when first asked for."""
        if self._store is None:
            from jupyter_mlops.store import Store

            self._store = Store.create(self.root / FOLDER)
        return self._store

    @property
    def settings(self) -> Settings:
        """What ``pyproject.toml`` sets.

        Raises
        ------
        SettingsInvalid
            The file is no TOML, or a setting is unknown or of a wrong type.
        """
        if self._settings is None:
            self._settings = _read_settings(self.root / "pyproject.toml")
        return self._settings

    def redactor(self) -> Redactor:
        """The one redactor of this process and project: it knows the secret values around."""
        if self._redactor is None:
            from jupyter_mlops.redact import Redactor, known_secrets

            home = Path(self.environ["HOME"]) if self.environ.get("HOME") else None
            self._redactor = Redactor(known_secrets(self.environ, home, self.root))
        return self._redactor

    @property
    def user(self) -> str:
        """Who acts: the hub's user, else the system's."""
        hub = self.environ.get("JUPYTERHUB_USER")
        if hub:
            return hub
        import getpass  # it brings what sets terminals

        try:
            return getpass.getuser()
        except (OSError, KeyError):  # a container's numeric user has no name
            return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"

    @property
    def on_behalf_of(self) -> str:
        """The server's user who had this process started, as the server knows them, secrets masked; else empty.

        It says nothing of who this process runs as: that is `user`.
        """
        told = self.environ.get(ON_BEHALF_OF, "")
        return self.redactor().text(told[:200])[0] if told else ""

    @property
    def headless(self) -> bool:
        """Whether this kernel was started by a headless run."""
        return self.environ.get("JUPYTER_MLOPS_HEADLESS") == "1"

    @property
    def strict(self) -> bool:
        """Whether errors of our own are to be loud: so in all tests."""
        return self.environ.get("JUPYTER_MLOPS_STRICT") == "1"

    @property
    def notebook(self) -> str:
        """The notebook's path as the surroundings tell it, relative to the root where inside; empty where nobody says.

        An engine's word comes before the server's, which is stale after a rename.
        """
        path = self.environ.get("JUPYTER_MLOPS_NOTEBOOK") or self.environ.get("JPY_SESSION_NAME") or ""
        return self.relative(path) if path.endswith(".ipynb") else ""

    @property
    def folder(self) -> str:
        """The working directory, as records spell paths; empty where it is gone."""
        try:
            return self.relative(os.getcwd())
        except OSError:
            return ""

    @property
    def parent_run(self) -> str:
        """The run this process is part of, as a digest; empty where it starts its own."""
        return self.environ.get("JUPYTER_MLOPS_RUN", "")

    @property
    def code(self) -> str:
        """The state of the code around this process, as a record, where it can not be seen from here; else empty."""
        return self.environ.get(CODE, "")

    def relative(self, path: str | Path) -> str:
        """A path as records spell it: relative to the root where inside, under ``~`` where in the home folder.

        Purely by name where it can be: nothing is opened, and links are followed only to tell inside from outside.
        """
        full = os.path.abspath(path)
        for base in dict.fromkeys((str(self.root), os.path.realpath(self.root))):
            if full == base:
                return "."
            if full.startswith(base + os.sep):
                return full[len(base) + 1 :].replace(os.sep, "/")
        home = self.environ.get("HOME", "")
        if home and full.startswith(home.rstrip(os.sep) + os.sep):
            return "~/" + full[len(home.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
        return full.replace(os.sep, "/")

    def path(self, name: str) -> Path:
        """The path that `relative` spells so."""
        if name.startswith("~/"):
            return Path(self.environ.get("HOME", "/"), name[2:])
        return Path(self.root, name)


def _read_settings(path: Path) -> Settings:
    try:
        with path.open("rb") as file:
            raw = file.read(_SETTINGS_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except OSError as error:
        raise SettingsInvalid(f"{path.name} can not be read", cause=str(error)) from error
    if len(raw) > _SETTINGS_LIMIT:
        raise SettingsInvalid(f"{path.name} is too large to hold settings", cause="more than 1 MiB")
    import tomllib  # most projects have no such file

    try:
        table: Any = tomllib.loads(raw.decode())
        return msgspec.convert(table.get("tool", {}).get("jupyter-mlops", {}), Settings)
    except (ValueError, AttributeError, RecursionError, msgspec.MsgspecError) as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(Settings))
        raise SettingsInvalid(
            f"[tool.jupyter-mlops] in {path.name} can not be read", cause=str(error), next=f"known settings: {known}"
        ) from error
