"""The one place where ``git`` is started, with every program that a repository could name switched off."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from jupyter_mlops.environment import program_variables
from jupyter_mlops.errors import MlopsError

_OUTPUT: Final = 16 * 1024 * 1024
_SECONDS: Final = 10.0


class GitFailed(MlopsError, OSError):
    """The ``git`` program is absent, refused, or took too long."""


# No word here comes from the user or the repository. A configuration key given on the command line wins over the
# repository's own; the protocols are denied as a whole, since a partial clone fetches what it lacks while it is read.
_WORDS: Final = (
    "--no-pager", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=keep",
    "-c", "core.sshCommand=false", "-c", "core.askPass=", "-c", "credential.helper=", "-c", "core.pager=cat",
    "-c", "protocol.allow=never", "-c", "protocol.ext.allow=never", "-c", "diff.external=",
    "-c", "submodule.recurse=false", "-c", "status.submoduleSummary=false", "-c", "status.showStash=false",
    "-c", "core.quotePath=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
)  # fmt: skip
_VARIABLES: Final = {
    "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1",
    "GIT_SSH_COMMAND": "false", "GIT_ASKPASS": "false", "SSH_ASKPASS": "false", "GIT_PAGER": "cat",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_FLUSH": "0",
}  # fmt: skip


def run_git(
    folder: Path, *said: str, filters: Iterable[str] = (), seconds: float = _SECONDS, most: int = _OUTPUT
) -> bytes:
    """Run one fixed ``git`` command in a folder, with every program that a repository could name switched off.

    Parameters
    ----------
    folder
        Where; the search for a repository does not go above it.
    said
        The command; constants of this module, and digests that were checked to be such.
    filters
        The repository's names of filters, which are emptied through variables since a name may hold any character.
    seconds
        It is killed after these.

    Raises
    ------
    GitFailed
        It is not installed, refused, answered too much or took too long.
    """
    words, variables = command(folder, said, filters)
    try:
        done = subprocess.run(
            words, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"git {said[0]} took more than {seconds:g} s") from error
    except (OSError, ValueError) as error:
        raise GitFailed("git could not be started", cause=type(error).__name__) from error
    if done.returncode != 0:
        raise GitFailed(f"git {said[0]} failed", cause=_complaint(done.stderr))
    if len(done.stdout) > most:
        raise GitFailed(f"git {said[0]} told more than {most >> 20} MB")
    return done.stdout


def command(folder: Path, words: Iterable[str], filters: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """A command's words and variables, with every program that a repository could name switched off."""
    program = shutil.which("git")
    if program is None or not os.path.isabs(program):  # a relative one would be found in the repository itself
        raise GitFailed("git is not installed", next="install git to have commits on record")
    variables = program_variables() | _VARIABLES | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    pairs = [
        (f"filter.{name}.{key}", "false" if key == "required" else "")
        for name in filters
        for key in ("clean", "smudge", "process", "required")
    ]
    variables["GIT_CONFIG_COUNT"] = str(len(pairs))
    for number, (key, value) in enumerate(pairs):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return [program, *_WORDS, *words], variables


def _complaint(stderr: bytes) -> str:
    """What git said, without paths: it names the machine's folders."""
    text = stderr.decode("utf-8", "replace")
    if "dubious ownership" in text:
        return "the repository belongs to another user; see safe.directory in git's manual"
    first = text.strip().partition("\n")[0][:200]
    return re.sub(r"'[^']*'|/\S+", "…", first) or "it did not say why"
