"""Keeping the store: verified, mended, rid of a secret, indexed anew."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING

import click

from jupyter_mlops.cli.tree import Place, here, mlops
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.widgets import View


@mlops.command()
@click.option("--read-data/--no-read-data", default=True, help="Read every object and compare it with its name.")
@here
def fsck(place: Place, read_data: bool) -> View:
    """Verify the store: every chain, commitment and object. Ends with 1 if something is damaged."""
    from jupyter_mlops import views

    return views.problems(place.project.store.fsck(read_data=read_data), title="fsck")


@mlops.command()
@here
def repair(place: Place) -> View:
    """Set damaged objects and torn lines aside (nothing is deleted), rebuild the index, say what is lost."""
    from jupyter_mlops import views

    return views.problems(place.project.store.repair(), title="repair")


@mlops.command()
@click.argument("what", required=False)
@click.option("--field", "fields", multiple=True, help="Only this field of the record WHAT.")
@click.option("--text-from", type=click.File("r"), help="A file that holds the text to remove; - reads it here.")
@click.option("--variable", help="The text to remove is in this variable of the kernel.")
@click.option("--files", is_flag=True, help="Mask the text in the project's files that the record names, too.")
@click.option("-m", "--reason", default="", help="Why.")
@click.option("--yes", is_flag=True, help="Remove it; without this the answer only says what would go.")
@here
def scrub(
    place: Place, what: str | None, fields: tuple[str, ...], text_from: IO[str] | None, variable: str | None,
    files: bool, reason: str, yes: bool,
) -> View:  # fmt: skip
    """Remove a secret text, a value or a record's fields for good. Ends with 1 if something could not be removed.

    WHAT is a variable, file, cell run, run, model version or digest. Without it the text to remove is asked for, or
    read from --text-from or --variable. It goes from records, objects and the index.
    """
    from jupyter_mlops import scrub as scrubbing
    from jupyter_mlops import views
    from jupyter_mlops.records import Artifact

    store = place.project.store
    text = _text_to_remove(place, what, text_from, variable)
    names: list[str] = []
    if text is not None:
        found = scrubbing.find_text(store, text)
        names = scrubbing.files_with(place.project.root, store.paths(), text)
    else:
        subject = place.subject(str(what))
        if isinstance(subject.value, Artifact):
            found = scrubbing.find_value(store, subject.value)
        else:
            found = scrubbing.find_lines(store, subject.line, fields)
    done = None
    if yes:
        done = store.erase(found.fields, found.objects, by=place.project.user, reason=reason)
        if text is not None:
            if place.session is not None:
                place.session.redactor.learn(text)
            for name in names if files else ():
                scrubbing.mask_file(place.project.root / name, text)
    return views.scrubbed(store, found, done, names, masked=files)


def _text_to_remove(place: Place, what: str | None, text_from: IO[str] | None, variable: str | None) -> str | None:
    """The secret, which is never a word of the command: those are kept in histories, ours among them."""
    ways = [what is not None, text_from is not None, variable is not None]
    if sum(ways) > 1:
        raise WrongUse("scrub removes one thing at a time", next="give WHAT, --text-from or --variable")
    if variable is not None:
        value = place.variable(variable)
        if type(value) is not str:
            raise WrongUse(f"the variable {variable!r} holds no text", cause=f"it is a {type(value).__name__}")
        return value
    if text_from is not None:
        return text_from.read().strip("\r\n")
    if what is None:
        if place.session is not None or not sys.stdin.isatty():
            raise WrongUse("there is nothing to remove", next="give WHAT, --text-from or --variable")
        return str(click.prompt("Text to remove", hide_input=True, err=True))
    return None


@mlops.command()
@here
def reindex(place: Place) -> str:
    """Build the index anew from the files."""
    return f"{place.project.store.reindex()} lines read"
