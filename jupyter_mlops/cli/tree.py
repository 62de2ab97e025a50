"""The tree that verbs hang on, where a verb is given, and the options that several verbs have."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jupyter_mlops import __version__
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import LocalRegistry
    from jupyter_mlops.reproduce.past import Past

GROUPS = {
    "Start": ("status", "init", "demo", "doctor"),
    "Record": ("on", "off", "checkpoint"),
    "Read": ("log", "show", "diff", "lineage", "runs", "env"),
    "Run again": ("run", "resume", "sweep", "pipeline", "targets", "slice", "checkout", "verify"),
    "Models": ("register", "models", "card", "check", "promote", "rollback", "approve"),
    "Keep the store": ("fsck", "repair", "scrub", "reindex"),
}
"""The verbs as help lists them."""

_MODULES: Final = {
    "Start": "start", "Record": "recording", "Read": "reading", "Run again": "again", "Models": "models",
    "Keep the store": "keeping",
}  # fmt: skip
_HOMES: Final = {verb: _MODULES[title] for title, verbs in GROUPS.items() for verb in verbs} | {
    "env": "environments", "pipeline": "pipelines",
}  # fmt: skip
"""The module of each verb: it is loaded when the verb is asked for, since a command line has one."""


class Verbs(MutableMapping[str, click.Command]):
    """The verbs by name, in the order of `GROUPS`; one is loaded when it is looked at."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, verb: str) -> click.Command:
        if verb not in self._loaded:
            importlib.import_module(f"jupyter_mlops.cli.{_HOMES[verb]}")  # hangs its verbs on the tree
        return self._loaded[verb]

    def __contains__(self, verb: object) -> bool:
        return verb in _HOMES

    def __setitem__(self, verb: str, command: click.Command) -> None:
        if verb not in _HOMES:
            raise ValueError(f"{verb!r} would not be found: GROUPS does not have it")
        self._loaded[verb] = command

    def __delitem__(self, verb: str) -> None:
        del self._loaded[verb]

    def __iter__(self) -> Iterator[str]:
        return (verb for verbs in GROUPS.values() for verb in verbs)

    def __len__(self) -> int:
        return len(_HOMES)


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

    def subject(self, what: str) -> Any:
        """What a reference on the command line or in a cell means."""
        from jupyter_mlops import views

        return views.subject(self.project, what, session=self.session)

    def past(self, what: str | None) -> Past:
        """What was run, as a reference names it; the latest run where none is given."""
        from jupyter_mlops.reproduce.past import latest, past

        if what is None:
            return latest(self.project.store)
        found = self.subject(what)
        return past(self.project.store, found.text, found.line, found.value)

    def variable(self, name: str) -> Any:
        """The value of a variable of the kernel; `WrongUse` where there is none."""
        if self.variables is None:
            raise WrongUse(
                f"there is no variable {name!r} in a shell",
                next=f"type it after %mlops, in the notebook that has {name}",
            )
        if name not in self.variables:
            raise WrongUse(f"there is no variable {name!r} in this kernel")
        return self.variables[name]

    def need_notebook(self, what: str) -> None:
        """Raise `WrongUse` in a shell."""
        if self.variables is None:
            raise WrongUse(f"{what} is for notebooks", next="type it after %mlops in a cell, or leave --panel out")

    def named(self, names: str | None) -> tuple[Any, ...] | None:
        """The values of variables named with commas between them."""
        return tuple(self.variable(name.strip()) for name in names.split(",")) if names else None


class Verb(click.Command):
    """A command that can print the records behind its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print records, as JSON."))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; note in its place how its answer is wanted."""
        ctx.ensure_object(Place).as_json = ctx.params.pop("as_json")
        return super().invoke(ctx)


class Words(click.Group):
    """A verb that takes another word, as ``env lock``."""

    command_class = Verb


class Tree(click.Group):
    """The verbs, in the groups of `GROUPS`."""

    command_class = Verb
    group_class = Words

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands = Verbs()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs in the order of their groups."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by group."""
        for title, verbs in GROUPS.items():
            rows = [
                (verb, command.get_short_help_str(90)) for verb in verbs if (command := self.get_command(ctx, verb))
            ]
            with formatter.section(title):
                formatter.write_dl(rows)


here = click.make_pass_decorator(Place, ensure=True)

FILE: Final = click.Path(path_type=Path)
SECONDS: Final = click.FloatRange(min=0, min_open=True)
panelled: Final = click.option("--panel", is_flag=True, help="In a notebook: with controls to choose and try.")
limited: Final = click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most."
)

ticketed: Final = click.option("--ticket", "tickets", multiple=True, help="A ticket this is for.")
telling: Final = click.option(
    "--events", is_flag=True, help="Tell of each step and cell as it happens, a line of JSON each, on standard error."
)


def warn_of_seen(place: Place, names: Iterable[str]) -> None:
    """Say which secrets stand on the command line, where everybody on the machine can read them; a cell has none."""
    for name in names if place.session is None else ():
        click.echo(f"{name} can be seen in the process table: -p {name} @env:VARIABLE", err=True)


def one_of(name: str, *words: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that takes one of these words; the first unless it is given."""
    return click.option(name, type=click.Choice(words), default=words[0], show_default=True, help=help)


@click.group(
    cls=Tree,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="mlops")
@click.pass_context
def mlops(ctx: click.Context) -> Any:
    """MLOps that lives in the notebook: every cell run on record, models validated before they get a name."""
    if ctx.invoked_subcommand is None:
        status = mlops.commands["status"]
        with status.make_context("status", [], parent=ctx) as inner:
            return status.invoke(inner)
    return None
