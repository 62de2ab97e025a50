"""The command tree: ``mlops …`` in a shell, ``%mlops …`` in a cell, ``jupyter mlops …``; no logic.

A verb is a function that returns a value, mostly a `View`. In a shell the value is printed (``--json``: the records
behind it); in a cell it is returned and shows itself. Exit codes: 0 done, 1 the answer is no, 2 wrong use, 3 could
not.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from jupyter_mlops.errors import MlopsError, WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import LocalRegistry
    from jupyter_mlops.standing import Stand
    from jupyter_mlops.widgets import View

GROUPS = {
    "Start": ("status", "init", "demo", "doctor"),
    "Record": ("on", "off", "checkpoint"),
    "Read": ("log", "show", "diff", "lineage", "runs", "env"),
    "Run again": ("run", "slice", "checkout", "verify"),
    "Models": ("register", "models", "check", "promote", "rollback"),
    "Keep the store": ("fsck", "repair", "scrub", "reindex"),
}
"""The verbs as help lists them."""


class Place:
    """Where a command is given: a shell, or a kernel with its session and variables."""

    def __init__(self, session: Session | None = None, variables: dict[str, Any] | None = None) -> None:
        self.session = session
        self.variables = variables
        self.as_json = False
        self._project: Project | None = session.project if session else None

    @property
    def project(self) -> Project:
        """The project here; `ProjectMissing` where there is none."""
        if self._project is None:
            from jupyter_mlops.project import Project

            self._project = Project.open(create=False)
        return self._project

    @property
    def registry(self) -> LocalRegistry:
        """The project's own registry."""
        from jupyter_mlops.registry import LocalRegistry

        return LocalRegistry(self.project.store, user=self.project.user, redactor=self.project.redactor())


class Verb(click.Command):
    """A command that can print the records behind its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print records, as JSON."))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; note in its place how its answer is wanted."""
        ctx.ensure_object(Place).as_json = ctx.params.pop("as_json")
        return super().invoke(ctx)


class Tree(click.Group):
    """The verbs, in the groups of `GROUPS`."""

    command_class = Verb
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs in the order of their groups."""
        return [verb for verbs in GROUPS.values() for verb in verbs]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by group."""
        for title, verbs in GROUPS.items():
            rows = [
                (verb, command.get_short_help_str(90)) for verb in verbs if (command := self.get_command(ctx, verb))
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


here = click.make_pass_decorator(Place, ensure=True)


@click.group(
    cls=Tree,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="jupyter-mlops", prog_name="mlops")
@click.pass_context
def mlops(ctx: click.Context) -> Any:
    """MLOps that lives in the notebook: every cell run on record, models validated before they get a name."""
    if ctx.invoked_subcommand is None:
        with status.make_context("status", [], parent=ctx) as inner:
            return status.invoke(inner)
    return None


# -- start -----------------------------------------------------------------------------------------------------------


@mlops.command()
@click.argument("notebook", required=False, type=click.Path(path_type=Path))
@here
def status(place: Place, notebook: Path | None) -> View:
    """Where am I, and whether the NOTEBOOK as it stands on disk would make what is in memory."""
    from jupyter_mlops import views
    from jupyter_mlops.project import Project

    session = place.session
    start = notebook.parent if notebook is not None and notebook.parent.is_dir() else None
    project = place.project if session else Project.find(start)
    if project is None:
        return views.status(None, None)
    if session is None:
        return views.status(project, None, _stand(project, notebook) if notebook is not None else None)
    session.settle()
    own = project.root / session.notebook() if session.notebook() else None
    asked = notebook.resolve() if notebook is not None else own
    found = None
    if asked is not None and (notebook is not None or asked.is_file()):
        found = _stand(project, asked, session if own is None or asked == own.resolve() else None)
    return views.status(project, session.status(), found)


def _stand(project: Project, notebook: Path, session: Session | None = None) -> Stand:
    from jupyter_mlops.standing import stand

    if session is None:
        return stand(project, notebook)
    return stand(project, notebook, run=session.run, versions=session.access.versions)


@mlops.command()
@here
def init(place: Place) -> View:  # noqa: ARG001 - every verb is given its place
    """Make .mlops/ here, so that what notebooks of this folder do is recorded in it."""
    from jupyter_mlops import views
    from jupyter_mlops.project import FOLDER, Project

    root = Path.cwd().resolve()
    fresh = not (root / FOLDER / "format").is_file()
    project = Project(root)
    _ = project.store
    return views.made(project, fresh=fresh)


@mlops.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("mlops-demo"))
@here
def demo(place: Place, folder: Path) -> View:  # noqa: ARG001
    """The whole story on real data in a fresh FOLDER, in about a minute."""
    from jupyter_mlops.demo import tell

    return tell(folder, say=click.echo)


@mlops.command()
@here
def doctor(place: Place) -> View:
    """What is installed, reachable, misconfigured, and what to do about it."""
    from jupyter_mlops import views
    from jupyter_mlops.project import Project

    return views.doctor(place.project if place.session else Project.find())


# -- record ----------------------------------------------------------------------------------------------------------


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
@click.option("-n", "limit", default=20, show_default=True, help="How many at most.")
@here
def checkpoint(place: Place, what: str, limit: int) -> View:
    """Keep the variables after each cell, stop keeping them, or list what was kept."""
    from jupyter_mlops import views

    if what == "list":
        found = (one for one in place.project.store.cell_runs() if one.checkpoint is not None)
        return views.checkpoints(list(itertools.islice(found, limit)))
    if place.session is None:
        raise WrongUse("there are no variables to keep here", next="%mlops checkpoint on, in a notebook")
    place.session.with_checkpoints().on = what == "on"
    return views.checkpointing(what == "on")


def _kernel(place: Place, verb: str) -> Session:
    if place.session is None:
        raise WrongUse(f"`{verb}` speaks of a kernel", next=f"type %mlops {verb} in a notebook's cell")
    return place.session


# -- read ------------------------------------------------------------------------------------------------------------


@mlops.command()
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many.")
@click.option("--run", "run_id", help="Only of this run.")
@click.option("--notebook", help="Only of this notebook (path in the project).")
@click.option("--cell", help="Only of this cell (its id in the notebook).")
@here
def log(place: Place, limit: int, run_id: str | None, notebook: str | None, cell: str | None) -> View:
    """The latest cell runs."""
    from jupyter_mlops import views

    store = place.project.store
    run = store.resolve(run_id) if run_id else None
    return views.cell_runs(store.cell_runs(run=run, notebook=notebook, cell=cell, limit=limit))


@mlops.command()
@click.argument("what")
@here
def show(place: Place, what: str) -> View:
    """All that is known of WHAT: a cell run, run, environment, check, model version; a variable, a file."""
    from jupyter_mlops import views

    return views.show(place.project, _subject(place, what))


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
    before, after = (_content(place, what) for what in (old, new))
    if before is not None and after is not None:
        found = compare.values(before[0], after[0], key=columns)
        return views.difference(found, title=f"{old} → {new}")
    if columns:
        raise WrongUse(
            "rows can be matched only where both contents are at hand",
            next="give variables of this kernel, or files of tables (csv, parquet, feather, json lines)",
        )
    return views.diff(place.project, _subject(place, old), _subject(place, new))


def _content(place: Place, what: str) -> tuple[Any] | None:
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
        found = _subject(place, what)
        store = place.project.store
        if isinstance(found.value, Artifact) and found.value.digest and store.has(found.value.digest):
            table = compare.read_table(found.value.name, store.get(found.value.digest))
            return None if table is None else (table,)
    return None


@mlops.command()
@click.argument("what")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Draw it into this PNG file.")
@here
def lineage(place: Place, what: str, output: Path | None) -> View:
    """Where WHAT comes from: a variable, metric, file, cell run or model; back to files, packages and commit."""
    from jupyter_mlops import views

    if output is not None and output.suffix.lower() != ".png":
        raise WrongUse(f"{str(output)!r} is no picture's name", next="give one that ends in .png")
    view = views.lineage(
        place.project, _subject(place, what), title=what, draw=output is not None or place.session is not None
    )  # fmt: skip
    if output is None:
        return view
    return views.drawn(view, output)


@mlops.command()
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many.")
@here
def runs(place: Place, limit: int) -> View:
    """The latest runs: sessions, and headless runs of notebooks."""
    from jupyter_mlops import views

    return views.runs(place.project.store, limit)


@mlops.group(name="env")
def env() -> None:
    """Environments: interpreter, packages, machine."""


@env.command(name="show", cls=Verb)
@click.argument("what", required=False)
@here
def env_show(place: Place, what: str | None) -> View:
    """The environment of WHAT (a cell run, run, model version); the one this command runs in unless given."""
    from jupyter_mlops import views

    return views.environment(place.project if what else None, _subject(place, what) if what else None)


@env.command(name="diff", cls=Verb)
@click.argument("old")
@click.argument("new", required=False)
@here
def env_diff(place: Place, old: str, new: str | None) -> View:
    """What changed from the environment of OLD to that of NEW (the one here unless given). Ends with 1 if anything."""
    from jupyter_mlops import views

    return views.environment_diff(place.project, _subject(place, old), _subject(place, new) if new else None)


@env.command(name="lock", cls=Verb)
@click.argument("what", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("pylock.toml"), show_default=True)
@click.option("--requirements", type=click.Path(path_type=Path), help="Write a requirements.txt with hashes too.")
@click.option("--all", "everything", is_flag=True, help="Lock all that was installed, not only what was used.")
@click.option("--offline", is_flag=True, help="Ask no index: only what uv has in its cache.")
@here
def env_lock(
    place: Place, what: str | None, output: Path, requirements: Path | None, everything: bool, offline: bool
) -> View:  # fmt: skip
    """Lock exactly what WHAT (a run, cell run or model; the latest run unless given) used, every file by its hash."""
    from jupyter_mlops import views
    from jupyter_mlops.reproduce import create

    past = _past(place, what)
    made, environment = create.lock_of(
        past, place.project.store, folder=output.absolute().parent, everything=everything, offline=offline
    )
    create.write(made, output, requirements)
    return views.locked(made, environment, output, requirements)


@env.command(name="create", cls=Verb)
@click.argument("what")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--kernel", default="", help="Put its kernel among yours, under this name.")
@click.option("--offline", is_flag=True, help="Only from uv's cache.")
@click.option("--download", is_flag=True, help="Let uv download the Python if none here fits.")
@here
def env_create(place: Place, what: str, folder: Path, kernel: str, offline: bool, download: bool) -> View:
    """Make a virtual environment with a kernel in FOLDER from WHAT: a pylock.toml, or a run, cell run or model."""
    from jupyter_mlops import views
    from jupyter_mlops.project import Project
    from jupyter_mlops.reproduce import create

    if Path(what).suffix == ".toml":
        project = place.project if place.session else Project.find()
        lock, wheels = create.read_lock(Path(what)), Path(what).absolute().parent
        store = project.store if project else None
        made = create.create(
            lock, folder, store=store, wheels=wheels, kernel=kernel, offline=offline, download=download
        )
    else:
        made = create.create_for(
            _past(place, what), folder, store=place.project.store, kernel=kernel, offline=offline, download=download
        )
    return views.created(made)


def _past(place: Place, what: str | None) -> Any:
    """What was run, as a reference names it; the latest run where none is given."""
    from jupyter_mlops.reproduce.past import latest, past

    if what is None:
        return latest(place.project.store)
    found = _subject(place, what)
    return past(place.project.store, found.text, found.line, found.value)


def _subject(place: Place, what: str) -> Any:
    """What a reference on the command line or in a cell means."""
    from jupyter_mlops import views

    return views.subject(place.project, what, session=place.session)


# -- run again -------------------------------------------------------------------------------------------------------


@mlops.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where the executed notebook goes.")
@click.option(
    "-p", "--parameter", "pairs", type=(str, str), multiple=True, metavar="NAME VALUE", help="Set a parameter."
)
@click.option("-f", "--parameters-file", type=click.Path(path_type=Path), help="Parameters from a YAML file.")
@click.option("-k", "--kernel", help="Kernel to run in, if not the notebook's own.")
@click.option("--cell-timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds a cell may take.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds the run may take.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar (where a person looks).")
@here
def run(
    place: Place, notebook: Path, output: Path | None, pairs: tuple[tuple[str, str], ...], parameters_file: Path | None,
    kernel: str | None, cell_timeout: float | None, timeout: float | None, progress: bool | None,
) -> View:  # fmt: skip
    """Run a NOTEBOOK headless, with parameters, on record."""
    from jupyter_mlops import pipelines, views
    from jupyter_mlops.project import Project

    project = place.project if place.session else Project.open(notebook.parent if notebook.parent.is_dir() else None)
    result = pipelines.run_notebook(
        notebook, output=output, parameters=pipelines.read_parameters(notebook, pairs, parameters_file),
        project=project, kernel=kernel, cell_timeout=cell_timeout, timeout=timeout,
        progress=sys.stderr.isatty() if progress is None else progress,
    )  # fmt: skip
    return views.run_result(project, result)


@mlops.command(name="slice")
@click.argument("what")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where the notebook goes.")
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

    subject = _subject(place, what)
    made = slicing.make(
        place.project, what, subject.line, subject.value, output, check_it=checked, allow_unseeded=allow_unseeded,
        force=force, lock=lock,
    )  # fmt: skip
    return views.sliced(place.project, made)


@mlops.command()
@click.argument("what")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
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

    return views.checked_out(write(_past(place, what), place.project, folder))


@mlops.command()
@click.argument("what")
@click.option(
    "--env",
    type=click.Choice(["auto", "current", "new"]),
    default="auto",
    show_default=True,
    help="Run in the environment here, or in one made from a lock; auto: here if it is the recorded one.",
)
@click.option(
    "--code",
    type=click.Choice(["recorded", "current"]),
    default="recorded",
    show_default=True,
    help="Run the cells and modules as they were, or as they are now.",
)
@click.option(
    "--data",
    type=click.Choice(["current", "recorded"]),
    default="current",
    show_default=True,
    help="Read data files as they lie there, or as they were where their bytes are kept.",
)
@click.option(
    "--order",
    type=click.Choice(["run", "notebook"]),
    default="run",
    show_default=True,
    help="As it ran, or each cell once from top to bottom.",
)
@click.option(
    "--extent",
    type=click.Choice(["auto", "slice", "all"]),
    default="auto",
    show_default=True,
    help="The cells that it needs, or all; auto: of a headless run all.",
)
@click.option("--rtol", type=click.FloatRange(min=0), default=0.0, help="Numbers may differ by this fraction.")
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, help="Numbers may differ by this much.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds the run may take.")
@click.option("--offline", is_flag=True, help="Make an environment only from uv's cache.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the second run in this new folder.")
@here
def verify(
    place: Place,
    what: str,
    env: str,
    code: str,
    data: str,
    order: str,
    extent: str,
    rtol: float,
    atol: float,
    timeout: float | None,
    offline: bool,
    keep: Path | None,
) -> View:
    """Run WHAT (a run, cell run or model) again and compare every cell. Ends with 1 if one differs, and says why."""
    from jupyter_mlops import views
    from jupyter_mlops.reproduce.comparing import Tolerance
    from jupyter_mlops.reproduce.verify import Wanted
    from jupyter_mlops.reproduce.verify import verify as again

    wanted = Wanted(
        env=env,
        code=code,
        data=data,
        order=order,
        extent=extent,
        tolerance=Tolerance(rtol, atol),
        timeout=timeout,
        offline=offline,
    )
    past = _past(place, what)
    if place.session is None and sys.stderr.isatty():
        click.echo(f"running {len(past.cells)} cells again …", err=True)
    return views.verified(again(past, place.project, wanted, keep=keep))


# -- models ----------------------------------------------------------------------------------------------------------


@mlops.command()
@click.argument("value")
@click.argument("name")
@click.option("--data", metavar="X[,y]", help="Variables the model was trained on: for its signature and baseline.")
@click.option(
    "--evaluation", metavar="TRUTH,PREDICTION", help="Variables with the test's truth and predictions or scores."
)
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    help="How to keep it (skops, onnx, safetensors, xgboost, lightgbm, pickle …); by its kind unless given.",
)
@click.option(
    "--trust", multiple=True, metavar="TYPE", help="A type of your own that the model may hold, by its full name."
)
@click.option("--description", default="", help="What it is, for people.")
@click.option("--tag", "tags", type=(str, str), multiple=True, metavar="KEY VALUE", help="A tag.")
@here
def register(
    place: Place, value: str, name: str, data: str | None, evaluation: str | None, format_: str | None,
    trust: tuple[str, ...], description: str, tags: tuple[tuple[str, str], ...],
) -> View:  # fmt: skip
    """Register VALUE (a variable in a cell, a file in a shell) as the next version of model NAME."""
    from jupyter_mlops import views

    session = place.session
    model: Any = _variable(place, value) if place.variables is not None and value in place.variables else Path(value)
    registered = place.registry.register(
        model, name, data=_variables(place, data), evaluation=_variables(place, evaluation), format=format_,
        trust=trust, description=description, tags=dict(tags), context=session.context() if session else None,
    )  # fmt: skip
    return views.model_version(place.project, place.registry.get(f"{name}/{registered[0]}"), known=registered.existed)


def _variable(place: Place, name: str) -> Any:
    if place.variables is None:
        raise WrongUse(
            f"there is no variable {name!r} in a shell", next=f"type %mlops register in the cell that has {name}"
        )
    if name not in place.variables:
        raise WrongUse(f"there is no variable {name!r} in this kernel")
    return place.variables[name]


def _variables(place: Place, names: str | None) -> tuple[Any, ...] | None:
    return tuple(_variable(place, name.strip()) for name in names.split(",")) if names else None


@mlops.command()
@click.argument("name", required=False)
@here
def models(place: Place, name: str | None) -> View:
    """All models; or the versions of model NAME, and who moved its aliases when and why."""
    from jupyter_mlops import views

    if name is None:
        return views.models(place.registry)
    asked = [gate for gates in place.project.settings.gates.values() for gate in gates]
    return views.model(place.registry, name, gates=asked)


@mlops.command()
@click.argument("model")
@click.option("-g", "--gate", "gates", multiple=True, help="What to ask, as in `roc_auc>=0.8`, `signature`, `history`.")
@click.option("--for", "alias", default="production", show_default=True, help="Ask what this alias demands.")
@here
def check(place: Place, model: str, gates: tuple[str, ...], alias: str) -> View:
    """Ask a MODEL version the gates of an alias, or those given. Ends with 1 if one is not passed."""
    from jupyter_mlops import views

    asked = gates or tuple(place.project.settings.gates.get(alias, place.project.settings.gates.get("*", ())))
    return views.checks(place.registry.check(model, asked, alias=alias), title=f"{model} for @{alias}")


@mlops.command()
@click.argument("model")
@click.argument("alias")
@click.option("-g", "--gate", "gates", multiple=True, help="What to demand besides what the project's settings do.")
@click.option("-m", "--reason", default="", help="Why.")
@click.option("--ticket", "tickets", multiple=True, help="A ticket this is for.")
@here
def promote(
    place: Place, model: str, alias: str, gates: tuple[str, ...], reason: str, tickets: tuple[str, ...]
) -> View:
    """Point ALIAS (`production`) to a MODEL version, if it passes the gates. Ends with 1, on record, if not."""
    from jupyter_mlops import views

    settings = place.project.settings
    demanded = (*settings.gates.get(alias, settings.gates.get("*", ())), *gates)
    place.registry.promote(
        model, alias.lstrip("@"), gates=demanded, reason=reason, tickets=tickets, by=place.project.user
    )
    return views.moved(place.registry, model, alias.lstrip("@"))


@mlops.command()
@click.argument("name")
@click.argument("alias")
@click.option("-m", "--reason", default="", help="Why.")
@here
def rollback(place: Place, name: str, alias: str, reason: str) -> View:
    """Point ALIAS of model NAME back to the version it pointed to before."""
    from jupyter_mlops import views

    place.registry.rollback(name, alias.lstrip("@"), by=place.project.user, reason=reason)
    return views.moved(place.registry, name, alias.lstrip("@"))


# -- keep the store --------------------------------------------------------------------------------------------------


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
        subject = _subject(place, str(what))
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
        value = _variable(place, variable)
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


# -- the two ways in -------------------------------------------------------------------------------------------------


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

    head, *rest = clean(error, newlines=True).split("\n")
    return "\n".join([f"{click.style('mlops:', fg='red')} {head}", *rest])


def _print(answer: Any, *, as_json: bool) -> int:
    from jupyter_mlops.widgets import View, clean

    if isinstance(answer, View):
        click.echo(answer.json() if as_json else answer.text(colour=sys.stdout.isatty()))
        return 0 if answer.ok else answer.code
    if answer is not None:
        click.echo(clean(answer, newlines=True))
    return 0
