"""Run again: a notebook headless; what is on record sliced, brought back, repeated and compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jupyter_mlops.cli.tree import FILE, SECONDS, Place, here, mlops, one_of, telling, ticketed, warn_of_seen
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.widgets import View


@mlops.command()
@click.argument("notebook", type=FILE)
@click.option("-o", "--output", type=FILE, help="Where the executed notebook goes.")
@click.option(
    "-p", "--parameter", "pairs", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter."
)
@click.option(
    "-r",
    "--parameter-raw",
    "raw",
    type=(str, str),
    multiple=True,
    metavar="NAME TEXT",
    help="Set one to a text as it is.",
)
@click.option(
    "-f",
    "--parameters-file",
    "files",
    type=FILE,
    multiple=True,
    help="Parameters from a YAML or JSON file; - reads standard input.",
)
@click.option("-y", "--parameters-yaml", "yaml", multiple=True, metavar="YAML", help="Parameters as YAML.")
@click.option(
    "-b", "--parameters-base64", "coded", multiple=True, metavar="BASE64", help="Parameters as YAML in base64."
)
@click.option(
    "--parameters", "--help-notebook", "listing", is_flag=True, help="List what it can be given; run nothing."
)
@click.option("-k", "--kernel", help="Kernel to run in, if not the notebook's own.")
@click.option("--cell-timeout", type=SECONDS, help="Seconds a cell may take.")
@click.option("--timeout", type=SECONDS, help="Seconds the run may take.")
@click.option(
    "--target", help="Where it runs: a name that `mlops targets` lists. In a process of this command unless given."
)
@click.option(
    "--manifest", type=FILE, metavar="FILE", help="Write what the target would have a cluster run; run nothing."
)
@click.option("--retries", type=click.IntRange(0, 100), default=0, help="How often to try again if it fails.")
@one_of(
    "--cache", "off", "notebook", "cells",
    help="notebook: skip it if a run on record would do the same. cells: recall each cell that would do the same.",
)  # fmt: skip
@click.option("--progress/--no-progress", default=None, help="Show how far it is (where a person looks).")
@click.option("--live", is_flag=True, help="Show what cells print as they print it.")
@telling
@ticketed
@click.option("--junit", "junit_file", type=FILE, metavar="FILE", help="Write JUnit XML with a case per cell.")
@click.option(
    "--check", "checking", is_flag=True, help="Run nothing. Ends with 1 if a run is due, or a contract was broken."
)
@here
def run(
    place: Place, notebook: Path, output: Path | None, pairs: tuple[tuple[str, str], ...],
    raw: tuple[tuple[str, str], ...], files: tuple[Path, ...], yaml: tuple[str, ...], coded: tuple[str, ...],
    listing: bool, kernel: str | None, cell_timeout: float | None, timeout: float | None, target: str | None,
    manifest: Path | None, retries: int, cache: str, progress: bool | None, live: bool, events: bool,
    tickets: tuple[str, ...], junit_file: Path | None, checking: bool,
) -> View | str:  # fmt: skip
    """Run a NOTEBOOK headless, with parameters, on record.

    A value of the form @env:NAME is taken from the environment, and kept nowhere.
    """
    from jupyter_mlops import pipelines, targets, views
    from jupyter_mlops.pipelines.words import secrets_among
    from jupyter_mlops.project import Project

    if listing:
        return views.parameters(notebook, pipelines.inspect_parameters(notebook))
    project = place.project if place.session else Project.open(notebook.parent if notebook.parent.is_dir() else None)
    parameters = pipelines.read_parameters(
        notebook, pairs, files, yaml=yaml, coded=coded, raw=raw, environ=project.environ
    )  # fmt: skip
    warn_of_seen(place, secrets_among(notebook, [*pairs, *raw]))
    if checking:
        answer = pipelines.run_due(notebook, output=output, parameters=parameters, project=project, kernel=kernel)
        return views.due(project, notebook, answer)
    away = target is not None or retries > 0
    if manifest is not None and target is None:
        raise WrongUse("it is a target that has a manifest", next="--target NAME: see mlops targets")

    def step() -> targets.Step:
        return pipelines.step_of(
            project, notebook, output=output, parameters=parameters, kernel=kernel or "", cell_timeout=cell_timeout,
            timeout=timeout, retries=retries, cache=cache, live=live, tickets=list(tickets),
        )  # fmt: skip

    if manifest is not None and target is not None:
        text = targets.manifest_of(target, project, step())
        try:
            manifest.write_text(text, encoding="utf-8")
        except OSError as error:
            raise WrongUse(f"{manifest} can not be written", cause=error.strerror or "") from error
        return f"wrote {manifest}"
    _one_voice(events=events, live=live)
    bar = not events and (sys.stderr.isatty() if progress is None else progress)
    lines = views.event_lines(sys.stderr) if events else None
    place_ = pipelines.checked(notebook, output, parameters, project).place
    with views.reporting(project, notebook, place_, junit_file, lambda line: click.echo(line, err=True)) as report:
        if away:
            told = views.telling(in_notebook=place.session is not None, live=live, quiet=True)
            with targets.open_target(target or "local", project) as opened:
                report.outcome = pipelines.run_on(
                    opened,
                    step(),
                    project,
                    progress=bar and not live,
                    on_event=lines or (told.heard if told else None),
                )
        else:
            watch = views.watching(notebook, in_notebook=place.variables is not None, progress=progress, live=live)
            result = pipelines.run_notebook(
                notebook, output=output, parameters=parameters, project=project, kernel=kernel,
                cell_timeout=cell_timeout, timeout=timeout, cache=cache, progress=bar and not live, watch=watch,
                on_event=lines or (watch.heard if watch else None), tickets=tickets,
            )  # fmt: skip
            report.outcome = views.outcome(project, result)
    return views.step_result(project, report.outcome)


def _one_voice(*, events: bool, live: bool) -> None:
    if events and live:
        raise WrongUse("--events and --live write to the same place", next="leave out one of them")


@mlops.command()
@click.argument("what", metavar="RUN")
@click.option("-o", "--output", type=FILE, help="Where the executed notebook goes; NAME.resumed.ipynb unless given.")
@click.option(
    "-p", "--parameter", "pairs", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter."
)
@click.option("--progress/--no-progress", default=None, help="Show a progress bar (where a person looks).")
@here
def resume(
    place: Place, what: str, output: Path | None, pairs: tuple[tuple[str, str], ...], progress: bool | None
) -> View:  # fmt: skip
    """Go on with a failed or killed RUN: what its cells did is put back, and the first that must run is run."""
    from jupyter_mlops import pipelines, views
    from jupyter_mlops.pipelines.words import secrets_among

    project = place.project
    before = project.store.resolve(what)
    if pairs:
        warn_of_seen(place, secrets_among(pipelines.resumed_notebook(project, before), pairs))
    result = pipelines.resume_run(
        project, before, output=output, pairs=pairs,
        progress=sys.stderr.isatty() if progress is None else progress,
    )  # fmt: skip
    return views.run_result(project, result)


@mlops.command()
@click.argument("notebook", type=FILE)
@click.option(
    "-p", "--parameter", "pairs", multiple=True, metavar="NAME=WHAT",
    help="What a parameter goes over: 3,5,7 or 1..9 or 0..1:5 or 0.01..0.3:log:5, or one value.",
)  # fmt: skip
@click.option(
    "-f", "--parameters-file", type=FILE,
    help="Further parameters from a YAML file, the same for each run; - reads standard input.",
)  # fmt: skip
@click.option("--random", "count", type=click.IntRange(1, 10_000), help="Draw so many combinations.")
@click.option("--seed", type=int, help="Draw the same again.")
@click.option("--best", default="", metavar="METRIC", help="Say which run has the largest; METRIC:min the smallest.")
@click.option("-o", "--output", type=FILE, help="Folder of the executed notebooks; NAME.sweep unless given.")
@click.option("-k", "--kernel", help="Kernel to run in, if not the notebook's own.")
@click.option("--cell-timeout", type=SECONDS, help="Seconds a cell may take.")
@click.option("--timeout", type=SECONDS, help="Seconds each run may take.")
@click.option("--target", help="Where it runs; processes of this machine with warm kernels unless given.")
@click.option("--retries", type=click.IntRange(0, 100), default=0, help="How often to try a run again if it fails.")
@one_of("--cache", "off", "notebook", "cells", help="Skip runs, or recall cells, that would do what is on record.")
@click.option("--fresh", is_flag=True, help="Take nothing over from a sweep that was cut off.")
@click.option("--fail-fast", is_flag=True, help="End all when one fails.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar (where a person looks).")
@click.option("--live", is_flag=True, help="Show what cells print as they print it, with the run's parameters.")
@telling
@ticketed
@click.option(
    "--junit", "junit_file", type=FILE, metavar="FILE", help="Write JUnit XML: a suite per run, a case per cell."
)
@here
def sweep(
    place: Place, notebook: Path, pairs: tuple[str, ...], parameters_file: Path | None, count: int | None,
    seed: int | None, best: str, output: Path | None, kernel: str | None, cell_timeout: float | None,
    timeout: float | None, target: str | None, retries: int, cache: str, fresh: bool, fail_fast: bool, as_csv: bool,
    progress: bool | None, live: bool, events: bool, tickets: tuple[str, ...], junit_file: Path | None,
) -> object:  # fmt: skip
    """Run a NOTEBOOK over many parameters, in parallel, in one table; in a notebook the answer is a DataFrame.

    A sweep that was cut off, or in which runs failed, goes on where it was: runs on record as done are taken over, as
    long as the notebook's code is the same.
    """
    from jupyter_mlops import pipelines, targets, views
    from jupyter_mlops.pipelines.words import secrets_among
    from jupyter_mlops.project import Project

    words = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise WrongUse(f"{pair!r} does not say what the parameter goes over", next=f"-p {pair}=1,2,3")
        words[name] = text
    project = place.project if place.session else Project.open(notebook.parent if notebook.parent.is_dir() else None)
    fixed = pipelines.read_parameters(notebook, files=parameters_file, environ=project.environ)
    warn_of_seen(place, secrets_among(notebook, words.items()))
    told = views.telling(in_notebook=place.session is not None, live=live, quiet=True)
    _one_voice(events=events, live=live)
    lines = views.event_lines(sys.stderr) if events else None
    bar = not events and (sys.stderr.isatty() if progress is None else progress)
    options = {} if target else {"kernels": "warm"}
    with targets.open_target(target or "local", project, **options) as opened:
        found = pipelines.sweep(
            notebook, words, project=project, target=opened, fixed=fixed, count=count, seed=seed, best=best,
            folder=output, fresh=fresh, fail_fast=fail_fast, kernel=kernel or "", cell_timeout=cell_timeout,
            timeout=timeout, retries=retries, cache=cache, live=live, progress=bar and not live,
            on_event=lines or (told.heard if told else None), tickets=list(tickets),
        )  # fmt: skip
    if views.wanted(project, junit_file):
        views.sweep_told(project, notebook, found, junit_file, lambda line: click.echo(line, err=True))
    return found.frame() if place.session else views.swept(found, as_csv=as_csv)


@mlops.command(name="targets")
@here
def targets_(place: Place) -> View:
    """Where notebooks can run: what `--target` takes, and which of it can be used here."""
    from jupyter_mlops import targets, views

    return views.targets(targets.standing(place.project))


@mlops.command(name="slice")
@click.argument("what")
@click.option("-o", "--output", type=FILE, required=True, help="Where the notebook goes.")
@click.option("--check", "checked", is_flag=True, help="Run it in a copy and compare. Ends with 1 if it differs.")
@click.option("--allow-unseeded", is_flag=True, help="Write it even if it need not give the same again.")
@click.option("--lock", is_flag=True, help="Put a lock of what it used into the notebook. Asks the package index.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@here
def slice_(
    place: Place, what: str, output: Path, checked: bool, allow_unseeded: bool, lock: bool, force: bool
) -> View:  # fmt: skip
    """Write the smallest notebook that makes WHAT (a variable, metric, file, cell run, run, model), as it was made."""
    from jupyter_mlops import views
    from jupyter_mlops.reproduce import slicing

    subject = place.subject(what)
    made = slicing.make(
        place.project, what, subject.line, subject.value, output, check_it=checked, allow_unseeded=allow_unseeded,
        force=force, lock=lock,
    )  # fmt: skip
    return views.sliced(place.project, made)


@mlops.command()
@click.argument("what")
@click.argument("folder", type=FILE, required=False)
@click.option("--dry-run", is_flag=True, help="In a notebook: only say what would become of the variables.")
@click.option("--rerun", is_flag=True, help="In a notebook: run the cells again that make what could not be kept.")
@here
def checkout(place: Place, what: str, folder: Path | None, dry_run: bool, rerun: bool) -> View:
    """Write the code and files of WHAT into FOLDER; in a notebook, without one: its variables as they were.

    WHAT is a run, a cell run or a model, FOLDER new or empty. Variables come back as they were after a cell run, if
    checkpoints were on.
    """
    from jupyter_mlops import views

    if folder is None and place.session is not None and place.variables is not None:
        digest = place.project.store.resolve(what)
        return views.returned(place.session.with_checkpoints().checkout(digest, dry_run=dry_run, rerun=rerun))
    if folder is None:
        raise WrongUse("where to is not said", next=f"mlops checkout {what} FOLDER")
    if dry_run or rerun:
        raise WrongUse("--dry-run and --rerun are for the variables of a notebook", next=f"%mlops checkout {what}")
    from jupyter_mlops.reproduce.checkout import checkout as write

    return views.checked_out(write(place.past(what), place.project, folder))


@mlops.command()
@click.argument("what")
@one_of(
    "--env", "auto", "current", "new",
    help="Run in the environment here, or in one made from a lock; auto: here if it is the recorded one.",
)  # fmt: skip
@one_of("--code", "recorded", "current", help="Run the cells and modules as they were, or as they are now.")
@one_of(
    "--data", "current", "recorded",
    help="Read data files as they lie there, or as they were where their bytes are kept.",
)  # fmt: skip
@one_of("--order", "run", "notebook", help="As it ran, or each cell once from top to bottom.")
@one_of("--extent", "auto", "slice", "all", help="The cells that it needs, or all; auto: of a headless run all.")
@click.option("--rtol", type=click.FloatRange(min=0), default=0.0, help="Numbers may differ by this fraction.")
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, help="Numbers may differ by this much.")
@click.option("--timeout", type=SECONDS, help="Seconds the run may take.")
@click.option("--offline", is_flag=True, help="Make an environment only from uv's cache.")
@click.option("--keep", type=FILE, help="Leave the second run in this new folder.")
@here
def verify(
    place: Place, what: str, env: str, code: str, data: str, order: str, extent: str, rtol: float, atol: float,
    timeout: float | None, offline: bool, keep: Path | None,
) -> View:  # fmt: skip
    """Run WHAT (a run, cell run or model) again and compare every cell. Ends with 1 if one differs, and says why."""
    from jupyter_mlops import views
    from jupyter_mlops.reproduce.comparing import Tolerance
    from jupyter_mlops.reproduce.rerun import Wanted
    from jupyter_mlops.reproduce.verify import verify as again

    wanted = Wanted(
        env=env, code=code, data=data, order=order, extent=extent, tolerance=Tolerance(rtol, atol), timeout=timeout,
        offline=offline,
    )  # fmt: skip
    past = place.past(what)
    if place.session is None and sys.stderr.isatty():
        click.echo(f"running {len(past.cells)} cells again …", err=True)
    return views.verified(again(past, place.project, wanted, keep=keep))
