"""Locks and environments that pages have made: the orders for ``mlops env lock`` and ``mlops env create``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.server.orders import Command, Order, from_root
from jupyter_mlops.server.sent import Name, Place

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.server.handling import Projects

_FILES: Final = ("output", "requirements")  # the options that name what a lock writes


class _Kept(Order, frozen=True, kw_only=True):
    """What is wanted of the environment of something that was run.

    Attributes
    ----------
    what
        A run, cell run or model.
    offline
        Ask no index.
    """

    what: Name
    offline: bool = False

    def _project(self, projects: Projects, path: str) -> Project:
        if not self.what.strip() or self.what.endswith(".toml"):
            raise WrongUse("it is not said of what", next="give a run, a cell run or a model")
        return projects.reading(path).project


class LockEnvironment(_Kept, frozen=True, kw_only=True):
    """Lock exactly what something used.

    Attributes
    ----------
    output
        The lock, as the server's contents name it: ``pylock.toml`` or ``pylock.NAME.toml``.
    requirements
        Write a ``requirements.txt`` beside it too.
    everything
        Lock all that was installed, not only what was used.
    replace
        Take the place of files that are there.
    """

    VERB = "lock"

    output: Place
    requirements: bool = False
    everything: bool = False
    replace: bool = False

    def command(self, projects: Projects, path: str) -> Command:
        project, output = self._project(projects, path), projects.new(self.output)
        beside = f"{self.output.rpartition('/')[0]}/requirements.txt"
        files = [output, *([projects.new(beside)] if self.requirements else [])]
        for file in files:
            if os.path.lexists(file) and not self.replace:
                raise WrongUse(f"{file.name} is there already", next="give another name, or have it replaced")
        words = [f"--{option}={from_root(project, file)}" for option, file in zip(_FILES, files, strict=False)]
        words += [f"--{one}" for one, wanted in (("all", self.everything), ("offline", self.offline)) if wanted]
        return Command(project, path, ["env", "lock", *words, "--json", "--", self.what])


class CreateEnvironment(_Kept, frozen=True, kw_only=True):
    """Make a virtual environment with a kernel from what something used.

    Attributes
    ----------
    folder
        A folder that is new or empty, as the server's contents name it.
    kernel
        Put its kernel among the user's own, under this name.
    download
        Let uv download the Python if none here fits.
    """

    VERB = "create"

    folder: Place
    kernel: Name = ""
    download: bool = False

    def command(self, projects: Projects, path: str) -> Command:
        project, folder = self._project(projects, path), projects.new(self.folder)
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise WrongUse(f"{folder.name} is not empty", next="give a folder that is new or empty")
        words = [f"--kernel={self.kernel.strip()}"] if self.kernel.strip() else []
        words += [f"--{one}" for one, wanted in (("offline", self.offline), ("download", self.download)) if wanted]
        arguments = ["env", "create", *words, "--json", "--", self.what, from_root(project, folder)]
        return Command(project, path, arguments)


ENVIRONMENTS: Final = (LockEnvironment, CreateEnvironment)
"""What the pages' types are made of, besides the answers."""
