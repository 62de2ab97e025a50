"""What is on record: listed, shown, compared, followed back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jupyter_mlops.cli.tree import FILE, Place, here, limited, mlops, panelled
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.widgets import View


@mlops.command()
@limited
@click.option("--run", "run_id", help="Only of this run.")
@click.option("--notebook", help="Only of this notebook (path in the project).")
@click.option("--cell", help="Only of this cell (its id in the notebook).")
@panelled
@here
def log(
    place: Place, limit: int, run_id: str | None, notebook: str | None, cell: str | None, panel: bool
) -> View:  # fmt: skip
    """The latest cell runs."""
    from jupyter_mlops import views

    store = place.project.store
    run = store.resolve(run_id) if run_id else None
    if not panel:
        return views.cell_runs(store.cell_runs(run=run, notebook=notebook, cell=cell, limit=limit))
    place.need_notebook("a panel")
    return views.timeline(lambda: list(store.cell_runs(run=run, notebook=notebook, cell=cell, limit=limit)))


@mlops.command()
@click.argument("what")
@here
def show(place: Place, what: str) -> View:
    """All that is known of WHAT: a cell run, run, environment, check, model version; a variable, a file."""
    from jupyter_mlops import views

    return views.show(place.project, place.subject(what))


@mlops.command()
@click.argument("old")
@click.argument("new")
@click.option("--key", metavar="COLUMN[,COLUMN]", help="Columns that make two rows of tables one.")
@here
def diff(place: Place, old: str, new: str, key: str | None) -> View:
    """What is different between two cell runs, runs, environments, model versions or values. Ends with 1 if anything.

    Variables of this kernel and files of tables are compared by columns and rows; `NAME@CELL_RUN` is a version that is
    on record.
    """
    from jupyter_mlops import compare, views

    columns = tuple(name.strip() for name in key.split(",")) if key else ()
    before, after = (content(place, what) for what in (old, new))
    if before is not None and after is not None:
        found = compare.values(before[0], after[0], key=columns)
        return views.difference(found, title=f"{old} → {new}")
    if columns:
        raise WrongUse(
            "rows can be matched only where both contents are at hand",
            next="give variables of this kernel, or files of tables (csv, parquet, feather, json lines)",
        )
    return views.diff(place.project, place.subject(old), place.subject(new))


def content(place: Place, what: str) -> tuple[Any] | None:
    """The value itself that a reference means, in a tuple of its own, where it is at hand."""
    from jupyter_mlops import compare
    from jupyter_mlops.records import Artifact

    if place.variables is not None and what in place.variables:
        return (place.variables[what],)
    path = Path(what)
    if path.is_file():
        table = compare.read_table(path.name, path)
        return None if table is None else (table,)
    if "@" in what or "." in what:
        found = place.subject(what)
        store = place.project.store
        if isinstance(found.value, Artifact) and found.value.digest and store.has(found.value.digest):
            table = compare.read_table(found.value.name, store.get(found.value.digest))
            return None if table is None else (table,)
    return None


@mlops.command()
@click.argument("what")
@click.option("-o", "--output", type=FILE, help="Draw it into this PNG file.")
@here
def lineage(place: Place, what: str, output: Path | None) -> View:
    """Where WHAT comes from: a variable, metric, file, cell run or model; back to files, packages and commit."""
    from jupyter_mlops import views

    if output is not None and output.suffix.lower() != ".png":
        raise WrongUse(f"{str(output)!r} is no picture's name", next="give one that ends in .png")
    view = views.lineage(
        place.project, place.subject(what), title=what, draw=output is not None or place.session is not None
    )  # fmt: skip
    if output is None:
        return view
    return views.drawn(view, output)


@mlops.command()
@limited
@panelled
@here
def runs(place: Place, limit: int, panel: bool) -> View:
    """The latest runs: sessions, and headless runs of notebooks."""
    from jupyter_mlops import views

    if not panel:
        return views.run_list(place.project.store, limit)
    place.need_notebook("a panel")
    return views.comparison(place.project, limit)
