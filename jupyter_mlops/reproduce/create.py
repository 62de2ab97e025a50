"""The environment of a past run: locked, and made anew as a virtual environment (`environment.making`)."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jupyter_mlops.environment.locking import WHEELS, Lock, lock, read_lock, used
from jupyter_mlops.environment.making import Created, CreateFailed, FolderTaken, create, empty_folder, read_back
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Environment, Gap
from jupyter_mlops.reproduce.past import Past

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

__all__ = [
    "CreateFailed",
    "Created",
    "FolderTaken",
    "create",
    "create_for",
    "empty_folder",
    "lock_of",
    "read_back",
    "read_lock",
    "write",
]

_NAME: Final = re.compile(r"pylock(?:\.[^.\s/]+)?\.toml")


def lock_of(
    past: Past, store: Store, *, folder: Path, everything: bool = False, offline: bool = False
) -> tuple[Lock, Environment]:
    """Lock what a past run used.

    Parameters
    ----------
    past
        What was run.
    folder
        Where wheels that no index has are put: beside the lock.
    everything
        Lock all that was installed, not only what was used.
    offline
        Ask no index.

    Returns
    -------
    tuple
        The lock, and the recorded environment.
    """
    environment = past.environment(store)
    gaps: list[Gap] = []
    names = {one.name for one in environment.packages}
    if not everything and not past.imported:
        gaps.append(Gap(subject="packages", reason="what was imported is not on record, so all that was installed is"))
        everything = True
    if not everything:
        names, gaps = used(environment, past.imported, past.local_modules(store))
    made = lock(
        environment, names, keep=store.put, folder=folder / WHEELS, offline=offline,
        scope="all" if everything else "used", source=past.text, gaps=gaps,
    )  # fmt: skip
    return made, environment


def write(made: Lock, output: Path, requirements: Path | None = None) -> None:
    """Write a lock to its files, over older ones of these names.

    Raises
    ------
    WrongUse
        The name is not one that PEP 751 gives a lock, or a file can not be written.
    """
    if not _NAME.fullmatch(output.name):
        raise WrongUse(f"{output.name} is no name for a lock", next="pylock.toml or pylock.NAME.toml")
    try:
        output.write_text(made.pylock(), encoding="utf-8")
        if requirements is not None:
            requirements.write_text(made.requirements(), encoding="utf-8")
    except OSError as error:
        raise WrongUse(f"{error.filename or output} can not be written", cause=error.strerror or "") from error


def create_for(
    past: Past, folder: Path, *, store: Store, kernel: str = "", offline: bool = False, download: bool = False
) -> Created:
    """Lock what a past run used and make an environment from that, in one step."""
    with tempfile.TemporaryDirectory(prefix="mlops-lock-") as place:
        made, _ = lock_of(past, store, folder=Path(place), offline=offline)
    return create(made, folder, store=store, kernel=kernel, offline=offline, download=download)
