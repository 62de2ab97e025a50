"""``%mlops``: the shell's commands inside a cell.

The words are the command tree's own (see `cli`), split as a shell splits them. The answer is the cell's value: it
shows itself richly, and can be assigned (``table = %mlops log``). An error of a command shows its message and not our
stack; it is an error of the cell all the same, so that a headless run stops there.
"""

from __future__ import annotations

import shlex
from typing import Any

from jupyter_mlops import capture, cli
from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.widgets import clean


def run_line(shell: Any, line: str) -> Any:
    """Run ``%mlops LINE`` in a shell, and give the command's answer."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise _brief(WrongUse("the line can not be split into words", cause=str(error))) from None
    try:
        return cli.call(words, cli.Place(capture.session(), shell.user_ns))
    except MlopsError as error:
        raise _brief(error) from None


def complete(shell: Any, event: Any) -> list[str]:
    """What may come next on a ``%mlops`` line: verbs, options, names of variables."""
    import click

    words = event.line.split()[1:]
    if event.line.endswith(" "):
        words.append("")
    command: click.Command = cli.mlops
    while len(words) > 1 and isinstance(command, click.Group):
        found = command.commands.get(words[0])
        if found is None:
            return []
        command, words = found, words[1:]
    if isinstance(command, click.Group):
        return sorted(command.commands)
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
    return [*options, *(name for name in shell.user_ns if not name.startswith("_"))]


def _brief(error: MlopsError) -> MlopsError:
    """Have the notebook show the message alone: our stack says nothing to its reader."""
    text = f"{type(error).__name__}: {clean(error, newlines=True)}"
    error._render_traceback_ = lambda: text.split("\n")  # type: ignore[attr-defined]
    return error
