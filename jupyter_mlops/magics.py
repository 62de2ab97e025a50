"""``%mlops``: the shell's commands inside a cell; ``%%mlops``: what a cell says of itself.

The words are the command tree's own (see `cli`), split as a shell splits them. The answer is the cell's value: it
shows itself richly, and can be assigned (``table = %mlops log``). An error of a command shows its message and not our
stack; it is an error of the cell all the same, so that a headless run stops there.
``%%mlops --name features`` on a cell's first line says something of that cell to the record. The line becomes a comment
before anything runs, so the rest runs as the cell it would be without: same displays, result, errors, line numbers.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from jupyter_mlops import capture, cli
from jupyter_mlops.capture import Directions
from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.widgets import clean

_FIRST_LINE = re.compile(r"\s*^%%mlops(?:[ \t]([^\n]*))?(?:\n|\Z)", re.MULTILINE)


def run_line(shell: Any, line: str) -> Any:
    """Run ``%mlops LINE`` in a shell, and give the command's answer."""
    try:
        return cli.call(_words(line), cli.Place(capture.session(), shell.user_ns))
    except MlopsError as error:
        raise _brief(error) from None


def directions(source: str) -> Directions | None:
    """What a cell says of itself on its first line; None where it says nothing."""
    found = _FIRST_LINE.match(source)
    if found is None:
        return None
    try:
        return _read(found[1] or "")
    except MlopsError:  # it will say so itself, instead of running
        return Directions(unreadable=True)


def without_directions(lines: list[str]) -> list[str]:
    """A cell's lines as they are to run: the first is a comment, or is gone where another cell magic follows it."""
    said = directions("".join(lines))
    if said is None or said.unreadable:
        return lines  # to IPython it is a magic then, which says what is wrong with it
    at = next(number for number, line in enumerate(lines) if not line.isspace())
    if at + 1 < len(lines) and lines[at + 1].startswith("%%"):
        return lines[at + 1 :]
    return [*lines[:at], "#" + lines[at], *lines[at + 1 :]]


def refuse(line: str) -> None:
    """Say why a ``%%mlops`` that came to be run as a magic is not what it should be."""
    try:
        _read(line)
    except MlopsError as error:
        raise _brief(error) from None
    raise _brief(WrongUse("%%mlops speaks of a whole cell", next="put it on the cell's first line"))


def _read(line: str) -> Directions:
    name, record, tickets = cli.call(_words(line), cli.Place(), cli.cell)
    return Directions(name, record, tickets)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise WrongUse("the line can not be split into words", cause=str(error)) from None


def complete(shell: Any, event: Any) -> list[str]:
    """What may come next on a ``%mlops`` line: verbs, options, names of variables."""
    import click

    if event.line.startswith("%%"):
        return _options(cli.cell)
    words = event.line.split()[1:]
    if event.line.endswith(" "):
        words.append("")
    command: click.Command = cli.mlops
    while len(words) > 1 and isinstance(command, click.Group):
        found = command.commands.get(words[0])
        if found is None:
            found = command.commands.get(getattr(command, "default", ""))
            words = ["", *words]
        if found is None:
            return []
        command, words = found, words[1:]
    if isinstance(command, click.Group):
        return sorted(command.commands)
    return [*_options(command), *(name for name in shell.user_ns if not name.startswith("_"))]


def _options(command: Any) -> list[str]:
    return [option for parameter in command.params for option in parameter.opts if option.startswith("-")]


def _brief(error: MlopsError) -> MlopsError:
    """Have the notebook show the message alone: our stack says nothing to its reader."""
    text = f"{type(error).__name__}: {clean(error, newlines=True)}"
    error._render_traceback_ = lambda: text.split("\n")  # type: ignore[attr-defined]
    return error
