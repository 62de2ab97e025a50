"""What pages may have done: each verb a struct of its own, strictly read, and turned into one command's arguments.

Nothing but these verbs can be run, and nothing of an order is ever a word for a shell. Paths are the server's own, and
stay in its folder. What is secret goes to the command's standard input, and never onto its command line.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import msgspec

from jupyter_mlops.project import Project
from jupyter_mlops.store import NotFound

if TYPE_CHECKING:
    from jupyter_mlops.server.handling import Projects

_NO_SECRETS: Final[Mapping[str, Any]] = MappingProxyType({})


class Command(NamedTuple):
    """What an order comes to.

    Attributes
    ----------
    project
        The project it is done in, or that it makes: the command runs in its folder.
    path
        The notebook or folder it is about, as the server's contents name it.
    arguments
        The words after ``mlops``; whoever looks at the machine's processes sees them.
    secrets
        Parameters that nobody is to see; ``-f -`` among the arguments reads them.
    """

    project: Project
    path: str
    arguments: Sequence[str]
    secrets: Mapping[str, Any] = _NO_SECRETS

    def words(self) -> str:
        """The command as a person would type it; that it tells of itself to us is left out."""
        plain = not self.arguments[-1].startswith("-")
        left_out = ("--json", "--events", "--") if plain else ("--json", "--events")
        return shlex.join(["mlops", *(one for one in self.arguments if one not in left_out)])

    def given(self) -> bytes:
        """Its standard input, as one line."""
        if not self.secrets:
            return b"\n"
        import yaml  # it spells every text so that our reader of parameters reads the same

        return base64.b64encode(yaml.safe_dump(dict(self.secrets)).encode()) + b"\n"


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something to be done about a notebook or folder."""

    VERB: ClassVar[str]

    def command(self, projects: Projects, path: str) -> Command:
        """The command that does it.

        Raises
        ------
        MlopsError
            It can not be done.
        """
        raise NotImplementedError


class Init(Order, frozen=True, kw_only=True):
    """Make a project in a folder; with `notebook`, a small one to begin with."""

    VERB = "init"

    notebook: bool

    def command(self, projects: Projects, path: str) -> Command:
        place = projects.place(path)
        if not place.is_dir():
            raise NotFound(f"there is no folder {path[:200]!r}")
        return Command(Project(place), path, ["init", *(["--notebook"] if self.notebook else []), "--json"])


def from_root(project: Project, path: Path) -> str:
    """A file's name for a command that runs in the project's folder; what is outside of it by its whole path."""
    return path.relative_to(project.root).as_posix() if path.is_relative_to(project.root) else str(path)
