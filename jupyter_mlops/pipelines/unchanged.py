"""A pipeline of which nothing has changed, told from `stat` alone.

When every step of a pipeline was taken over and nothing had to be put back, each file and folder that was looked at for
it is noted by what `stat` said *before* it was looked at. Where all of that is as it was, the answer is. Anything
else, and whatever could have changed within the clock's tick, is decided anew. It is a convenience that may be deleted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from blake3 import blake3

from jupyter_mlops import __version__

if TYPE_CHECKING:
    from jupyter_mlops.pipelines.cache import Cache
    from jupyter_mlops.pipelines.graph import Pipeline
    from jupyter_mlops.pipelines.running import Wanted
    from jupyter_mlops.project import Project
    from jupyter_mlops.targets.protocol import Outcome

_FORMAT: Final = 1
_LIMIT: Final = 100_000
PASSING: Final = frozenset(
    "_ SHLVL PWD OLDPWD COLUMNS LINES TERM COLORTERM TERM_PROGRAM TERM_PROGRAM_VERSION TERM_SESSION_ID WINDOWID "
    "LS_COLORS SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_AUTH_SOCK SSH_AGENT_PID TMUX TMUX_PANE STY XDG_SESSION_ID "
    "INVOCATION_ID JOURNAL_STREAM GPG_TTY DISPLAY WAYLAND_DISPLAY DBUS_SESSION_BUS_ADDRESS VSCODE_IPC_HOOK_CLI "
    "VSCODE_GIT_IPC_HANDLE ITERM_SESSION_ID LC_TERMINAL LC_TERMINAL_VERSION".split()
)
"""Variables that differ from one shell to the next; where any other differs, that is looked into."""


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What nothing has changed of."""

    format: int
    version: str
    program: str
    environ: str
    at: int
    files: list[tuple[str, int, int, int, int, int]]
    absent: list[str]
    passing: dict[str, str]
    steps: list[tuple[str, str]]


def place(store: Path, file: Path, words: Any) -> Path:
    """Where the note about a pipeline, asked for in these words, is kept."""
    name = blake3(msgspec.msgpack.encode([os.fsdecode(file.absolute()), words])).hexdigest()
    return store / f"unchanged-{name[:16]}"


def known(store: Path, file: Path, words: Any, environ: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """The steps, each with the run that stands for it, where nothing has changed; None where that is to be looked into.

    Parameters
    ----------
    store
        The store's folder.
    file
        The pipeline's file.
    words
        What it is asked for with.
    environ
        The variables of the process.
    """
    try:
        with open(place(store, file, words), "rb") as noted:
            head, raw = noted.read(64), noted.read()
        if head.decode("ascii") != blake3(raw).hexdigest():
            return None
        note = msgspec.msgpack.decode(raw, type=Note)
        if (note.format, note.version, note.program) != (_FORMAT, __version__, sys.executable):
            return None
        if note.environ != _environ(environ) or any(environ.get(key, "") != was for key, was in note.passing.items()):
            return None
        stat = os.stat
        for path, device, inode, size, modified, changed in note.files:
            found = stat(path)
            if (
                found.st_mtime_ns != modified or found.st_ctime_ns != changed or found.st_size != size
                or found.st_ino != inode or found.st_dev != device
            ):  # fmt: skip
                return None
        if any(os.path.lexists(path) for path in note.absent):
            return None
    except (OSError, ValueError, msgspec.MsgspecError):
        return None  # there is no note, or something is gone: it is looked into
    return note.steps


def remember(
    project: Project, pipeline: Pipeline, wanted: Wanted, cache: Cache, outcomes: Mapping[str, Outcome]
) -> None:  # fmt: skip
    """Note that nothing of a pipeline has changed, if each thing looked at is such that `stat` would tell."""
    from jupyter_mlops.fingerprints.files import racy
    from jupyter_mlops.objects import replace_file  # where there is a note, nothing is to be loaded that writes one

    if pipeline.file is None or pipeline.seen is None or wanted.parameters or len(cache.looked_at) > _LIMIT:
        return
    files = dict(cache.looked_at)
    with contextlib.suppress(OSError):  # it is gone by now: there is nothing to note
        files[os.fspath(pipeline.file.absolute())] = pipeline.seen
        if any(racy(found, at) for found, at in files.values()):
            return
        note = Note(
            _FORMAT, __version__, sys.executable, _environ(project.environ), time.time_ns(),
            [(path, *found) for path, (found, _) in files.items()], sorted(cache.absent),
            {key: project.environ.get(key, "") for key in sorted(PASSING & cache.variables)},
            [(name, str(one.run)) for name, one in outcomes.items()],
        )  # fmt: skip
        raw = msgspec.msgpack.encode(note)
        path = place(project.store.path, pipeline.file, words_of(wanted))
        replace_file(path, [blake3(raw).hexdigest().encode(), raw], durable=False)


def words_of(wanted: Wanted) -> list[Any]:
    """What a pipeline is asked for with, as far as it can matter where nothing runs."""
    return [list(wanted.steps), wanted.cache]


def _environ(environ: Mapping[str, str]) -> str:
    said = sorted(item for item in environ.items() if item[0] not in PASSING)
    return blake3("\0".join(f"{name}={value}" for name, value in said).encode("utf-8", "surrogateescape")).hexdigest()
