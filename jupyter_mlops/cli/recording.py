"""Recording in this kernel: on, off, and whether its variables are kept."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from jupyter_mlops.cli.tree import Place, here, limited, mlops
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.widgets import View


@mlops.command()
@here
def on(place: Place) -> str:
    """Go on recording in this kernel."""
    _kernel(place, "on").resume()
    return "recording"


@mlops.command()
@here
def off(place: Place) -> str:
    """Stop recording in this kernel, until `on`."""
    _kernel(place, "off").pause()
    return "not recording until %mlops on"


@mlops.command()
@click.argument("what", type=click.Choice(["on", "off", "list"]))
@limited
@here
def checkpoint(place: Place, what: str, limit: int) -> View:
    """Keep the variables after each cell, stop keeping them, or list what was kept."""
    from jupyter_mlops import views

    if what == "list":
        found = (one for one in place.project.store.cell_runs() if one.checkpoint is not None)
        return views.checkpoint_list(list(itertools.islice(found, limit)))
    if place.session is None:
        raise WrongUse("there are no variables to keep here", next="%mlops checkpoint on, in a notebook")
    place.session.with_checkpoints().on = what == "on"
    return views.checkpointing(what == "on")


def _kernel(place: Place, verb: str) -> Session:
    if place.session is None:
        raise WrongUse(f"`{verb}` speaks of a kernel", next=f"type %mlops {verb} in a notebook's cell")
    return place.session
