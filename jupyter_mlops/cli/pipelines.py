"""Pipelines: found from the record, run, shown, exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jupyter_mlops.cli.tree import FILE, SECONDS, Place, Verb, here, mlops, one_of, warn_of_seen
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.widgets import View

_FILE = click.option(
    "--file", "file", type=FILE, default=Path("pipeline.yaml"), show_default=True, help="The pipeline's file."
)


@mlops.group(name="pipeline")
def pipeline() -> None:
    """Notebooks as steps: found from what they read and wrote, run where something has changed."""


@pipeline.command(name="infer", cls=Verb)
@click.argument("notebooks", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", type=FILE, default=Path("pipeline.yaml"), show_default=True, help="Where it goes.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@here
def infer(place: Place, notebooks: tuple[Path, ...], output: Path, force: bool) -> View:
    """Find the pipeline that NOTEBOOKS make, by what they read and wrote in the runs on record."""
    from jupyter_mlops import views
    from jupyter_mlops.pipelines import graph, running

    if output.exists() and not force:
        raise WrongUse(f"{output} is there already", next="give another name with -o, or replace it with --force")
    project = place.project
    # A pattern such as *.ipynb also finds what headless runs have left.
    given = [one for one in dict.fromkeys(notebooks) if len(notebooks) == 1 or not running.is_output(project, one)]
    seen = [running.observed(project, notebook) for notebook in given]
    found = graph.infer(seen, output.absolute().parent, project.path)
    graph.write(found, output)
    return views.pipeline_found(found, output, graph.text_of(found))


@pipeline.command(name="run", cls=Verb)
@click.argument("steps", nargs=-1)
@_FILE
@click.option("--target", default="local", show_default=True, help="Where it runs: a name that `mlops targets` lists.")
@one_of(
    "--cache", "notebook", "cells", "off",
    help="Skip a step if a run on record would do the same; or the cells of it that need not run.",
)  # fmt: skip
@click.option("--retries", type=click.IntRange(0, 100), default=0, help="How often to try a step again if it fails.")
@click.option("--timeout", type=SECONDS, help="Seconds each step may take.")
@click.option("--cell-timeout", type=SECONDS, help="Seconds each cell may take.")
@click.option("--keep-going", is_flag=True, help="Go on with what does not need a step that failed.")
@click.option(
    "-p", "--parameter", "pairs", type=(str, str), multiple=True, metavar="[STEP.]NAME VALUE", help="Set a parameter."
)
@click.option(
    "--junit", "junit_file", type=FILE, metavar="FILE", help="Write JUnit XML: a suite per step, a case per cell."
)
@click.option("--live", is_flag=True, help="Show what cells print as they print it, with the step's name.")
@here
def run(
    place: Place, steps: tuple[str, ...], file: Path, target: str, cache: str, retries: int, timeout: float | None,
    cell_timeout: float | None, keep_going: bool, pairs: tuple[tuple[str, str], ...], junit_file: Path | None,
    live: bool,
) -> View:  # fmt: skip
    """Run a pipeline: all of it, or STEPS and what they build on. What has not changed is skipped."""
    from jupyter_mlops.pipelines import unchanged

    project = place.project
    if not pairs and place.session is None and junit_file is None:
        known = unchanged.known(project.store_folder, file, [list(steps), cache], project.environ)
        if known is not None:
            from jupyter_mlops.views.unchanged import pipeline_unchanged

            return pipeline_unchanged(known)
    from jupyter_mlops import views
    from jupyter_mlops.pipelines import graph, running

    found = graph.read(file)
    warn_of_seen(place, running.secrets_said(found, pairs))
    wanted = running.Wanted(
        steps=steps, target=target, cache=cache, timeout=timeout, cell_timeout=cell_timeout, retries=retries,
        keep_going=keep_going, live=live, parameters=running.parameters_of(found, pairs, project.environ),
    )  # fmt: skip
    told = views.telling(in_notebook=place.session is not None, live=live)
    result = running.run_pipeline(project, found, wanted, on_event=told.heard if told else None)
    if views.wanted(project, junit_file):
        notebooks = {name: found.folder / one.notebook for name, one in found.steps.items()}
        views.pipeline_told(project, notebooks, result.outcomes, junit_file, lambda line: click.echo(line, err=True))
    return views.pipeline_run(result)


@pipeline.command(name="show", cls=Verb)
@_FILE
@click.option("--mermaid", is_flag=True, help="As a flowchart in Mermaid's words.")
@click.option("-o", "--output", type=FILE, help="Draw it into this PNG file.")
@here
def show(place: Place, file: Path, mermaid: bool, output: Path | None) -> View | str:
    """Show a pipeline, what passes between its steps, and how each stands."""
    from jupyter_mlops import views
    from jupyter_mlops.pipelines import graph, running

    if output is not None and output.suffix.lower() != ".png":
        raise WrongUse(f"{str(output)!r} is no picture's name", next="give one that ends in .png")
    found = graph.read(file)
    states = running.states(place.project, found)
    if mermaid:
        return views.mermaid(found, states)
    view = views.pipeline_shown(found, states)
    return view if output is None else views.drawn(view, output)


@pipeline.command(name="export", cls=Verb)
@_FILE
@click.option("--github", "to_github", is_flag=True, required=True, help="As a workflow of GitHub Actions.")
@click.option("-o", "--output", type=FILE, help="Where it goes, as .github/workflows/pipeline.yml; else it is printed.")
@click.option("--keep-going", is_flag=True, help="Have it go on with what does not need a step that failed.")
@here
def export(place: Place, file: Path, to_github: bool, output: Path | None, keep_going: bool) -> str:  # noqa: ARG001 - the only form there is
    """Write a pipeline as a workflow that runs it at every push."""
    from jupyter_mlops.objects import replace_file
    from jupyter_mlops.pipelines import exporting, graph

    text = exporting.github(place.project, graph.read(file), keep_going=keep_going)
    if output is None:
        return text
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_file(output, [text.encode()], durable=False)
    return f"wrote {output}"
