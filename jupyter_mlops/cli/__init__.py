"""The command tree: ``mlops …`` in a shell, ``%mlops …`` in a cell, ``jupyter mlops …``; no logic.

A verb is a function that returns a value, mostly a `View`. In a shell the value is printed (``--json``: the records
behind it); in a cell it is returned and shows itself. Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 could
not.

`tree` is what verbs hang on; each other module holds the verbs of one group, as help lists them, and is loaded with the
first of them that is asked for. Here are the two ways in: a cell's and a shell's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jupyter_mlops.cli.tree import GROUPS, Place, mlops
from jupyter_mlops.errors import MlopsError, WrongUse

__all__ = ["GROUPS", "Place", "call", "cell", "main", "mlops"]


@click.command(name="%%mlops", add_help_option=False)
@click.option("--name", default="", help="What the record calls this cell.")
@click.option("--no-record", "record", flag_value=False, default=True, help="Record only that a cell was not recorded.")
@click.option("--ticket", "tickets", multiple=True, help="A ticket this is for.")
def cell(name: str, record: bool, tickets: tuple[str, ...]) -> tuple[str, bool, tuple[str, ...]]:
    """Say something of the cell on whose first line this stands."""
    return name, record, tickets


def call(arguments: Sequence[str], place: Place, command: click.Command = mlops) -> Any:
    """Run a command line in a place and return its answer: the way in for a cell.

    Raises
    ------
    MlopsError
        What the verb could not do, or `WrongUse` where the words are off.
    """
    try:
        answer = command.main(list(arguments), prog_name=command.name, standalone_mode=False, obj=place)
    except click.ClickException as error:
        hint = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else "mlops --help"
        raise WrongUse(error.format_message(), next=hint) from None
    except click.Abort as error:
        raise KeyboardInterrupt from error  # as the kernel knows it
    return None if isinstance(answer, int) else answer  # an exit code: of --help, which has printed its answer


def main() -> None:
    """Run a shell's command line, print the answer, and end the process with its exit code."""
    sys.exit(_shell(sys.argv[1:]))


def _shell(arguments: Sequence[str]) -> int:
    place = Place()
    try:
        answer = mlops.main(list(arguments), prog_name="mlops", standalone_mode=False, obj=place)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        return 0
    except MlopsError as error:
        click.echo(_error_text(error), err=True)
        return error.exit_code
    return answer if isinstance(answer, int) else _print(answer, as_json=place.as_json)


def _error_text(error: MlopsError) -> str:
    from jupyter_mlops.widgets import clean

    head, *rest = _harmless(clean(error, newlines=True)).split("\n")
    return "\n".join([f"{click.style('mlops:', fg='red')} {head}", *rest])


def _harmless(text: str) -> str:
    """What is printed, where a service would take some of its lines for commands."""
    from jupyter_mlops.project import Project

    if Project(Path()).environ.get("GITHUB_ACTIONS") != "true":
        return text
    from jupyter_mlops.views.ci import harmless

    return harmless(text)


def _print(answer: Any, *, as_json: bool) -> int:
    from jupyter_mlops.widgets import View, clean

    if isinstance(answer, View):
        # In JSON a bracket may be escaped, and no line begins with a colon.
        shown = answer.json().replace("##[", "##\\u005b") if as_json else answer.text(colour=sys.stdout.isatty())
        click.echo(shown if as_json else _harmless(shown))
        return 0 if answer.ok else answer.code
    if answer is not None:
        click.echo(_harmless(clean(answer, newlines=True)))
    return 0
