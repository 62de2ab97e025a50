"""Running a notebook from a page: what it can be given, whether what was typed will do, and the order to run it.

Words are read as `mlops run -p` and `mlops sweep -p` read them, so a page and a shell take and refuse the same.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import msgspec

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.pipelines.parameters import (
    Parameter,
    ParametersInvalid,
    declared,
    language_of,
    read_notebook,
    validate,
)
from jupyter_mlops.pipelines.words import parse_parameter, told_apart
from jupyter_mlops.project import Project
from jupyter_mlops.server.orders import Command, Init, Order, from_root
from jupyter_mlops.store import NotFound

if TYPE_CHECKING:
    from jupyter_mlops.server.handling import Projects


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """What a notebook can be given.

    Attributes
    ----------
    default
        As one would type it; empty where it is not to be seen, or only running the cell would tell it.
    choices
        All there are, as one would type them, where the type names them.
    """

    name: str
    type: str
    default: str
    choices: list[str]
    help: str
    secret: bool


class Somewhere(msgspec.Struct, frozen=True, kw_only=True):
    """A target: a place where notebooks can run; `why` says what keeps it from being used."""

    name: str
    kind: str
    about: str
    why: str


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What a notebook can be given, and where it can run.

    Attributes
    ----------
    notebook
        Its path as records spell it.
    declares
        Whether it has a cell that declares parameters.
    why
        Why it can be given none, where it has none.
    output
        Where the executed notebook goes unless said otherwise, as the server's contents name it.
    """

    notebook: str
    declares: bool
    why: str
    fields: list[Field]
    targets: list[Somewhere]
    output: str


class OrderChecked(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an order will do.

    Attributes
    ----------
    problems
        What is wrong with a parameter, by its name.
    problem
        What else is wrong.
    command
        The command, as one would type it.
    runs
        How many runs it comes to.
    """

    problems: dict[str, str]
    problem: str
    command: str
    runs: int


_Text = Annotated[str, msgspec.Meta(max_length=4000)]


class Given(Order, frozen=True, kw_only=True):
    """What running a notebook once and running it over many parameters have in common.

    Attributes
    ----------
    parameters
        The words that were typed, by name.
    """

    parameters: dict[str, _Text]
    target: _Text = ""
    cache: Literal["off", "notebook", "cells"] = "off"
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    cell_timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    tickets: list[_Text] = msgspec.field(default_factory=list)

    def check(self, projects: Projects, path: str) -> OrderChecked:
        """Say what is wrong with it, before anything runs."""
        known = declared(read_notebook(_file(projects, path)))
        problems = {name: why for name, word in self.parameters.items() if (why := self.problem(name, word, known))}
        runs, problem = 0, ""
        if not problems:
            try:
                runs = self.runs(known)
            except ParametersInvalid as error:
                problem = _said(error)
        return OrderChecked(
            problems=problems, problem=problem, command=self.command(projects, path, problems).words(), runs=runs
        )

    def problem(self, name: str, word: str, known: Sequence[Parameter] | None) -> str:
        """What is wrong with a parameter; empty where nothing is."""
        if word.startswith("@env:"):
            return ""  # the command looks it up
        try:
            validate({name: parse_parameter(name, word, known)}, known)
        except ParametersInvalid as error:
            return _said(error)
        return ""

    def runs(self, known: Sequence[Parameter] | None) -> int:  # noqa: ARG002 - of a sweep it is told by these
        """How many runs it comes to."""
        return 1

    def command(self, projects: Projects, path: str, without: Collection[str] = ()) -> Command:
        """The command that does it, but for some parameters."""
        raise NotImplementedError

    def _words(self, projects: Projects, path: str, without: Collection[str]) -> _Words:
        place = _file(projects, path)
        project = projects.reading(path).project
        seen, hidden = told_apart({name: word for name, word in self.parameters.items() if name not in without}, place)
        given = {
            "target": self.target, "cache": "" if self.cache == "off" else self.cache, "retries": self.retries or "",
            "timeout": _seconds(self.timeout), "cell-timeout": _seconds(self.cell_timeout),
        }  # fmt: skip
        options = [f"--{name}={value}" for name, value in given.items() if value]
        options += [f"--ticket={one.strip()}" for one in self.tickets if one.strip()]
        options += ["-f", "-"] if hidden else []
        return _Words(project, from_root(project, place), options, seen, hidden)


def _file(projects: Projects, path: str) -> Path:
    place = projects.place(path)
    if not place.is_file():
        raise NotFound(f"there is no notebook {path[:200]!r}")
    return place


class _Words(NamedTuple):
    """An order's words: of the project, of the notebook; the options, the parameters that can be seen, the others."""

    project: Project
    notebook: str
    options: list[str]
    seen: dict[str, str]
    hidden: dict[str, Any]


class RunNotebook(Given, frozen=True, kw_only=True):
    """Run a notebook once.

    Attributes
    ----------
    output
        Where the executed notebook goes, as the server's contents name it; beside the notebook unless given.
    """

    VERB = "run"

    output: _Text = ""

    def command(self, projects: Projects, path: str, without: Collection[str] = ()) -> Command:
        said = self._words(projects, path, without)
        pairs = [word for pair in said.seen.items() for word in ("-p", *pair)]
        output = [f"--output={from_root(said.project, self._output(projects))}"] if self.output else []
        arguments = ["run", *pairs, *output, *said.options, "--events", "--json", "--", said.notebook]
        return Command(said.project, path, arguments, said.hidden)

    def _output(self, projects: Projects) -> Path:
        """Where the executed notebook goes: over a notebook at most, and never over the project's settings."""
        place = projects.new(self.output)
        if place.suffix != ".ipynb":
            raise WrongUse(f"{place.name} is no notebook's name", next="give one that ends in .ipynb")
        if "{" in self.output.rpartition("/")[0]:
            raise WrongUse("a parameter can not name a folder here", cause="it might lead out of the server's",
                           next="use {name} in the name of the notebook")  # fmt: skip
        return place


class SweepNotebook(Given, frozen=True, kw_only=True):
    """Run a notebook over many parameters.

    Attributes
    ----------
    parameters
        What each goes over: ``3,5,7``, ``1..9``, ``0..1:5``, ``0.01..0.3:log:5``, or one value.
    best
        A metric; ``:min`` after it for the smallest.
    draws
        Draw so many combinations; all unless given.
    """

    VERB = "sweep"

    best: _Text = ""
    draws: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None

    def command(self, projects: Projects, path: str, without: Collection[str] = ()) -> Command:
        said = self._words(projects, path, without)
        pairs = [one for name, word in said.seen.items() for one in ("-p", f"{name}={word}")]
        best = [f"--best={self.best.strip()}"] if self.best.strip() else []
        draws = [f"--random={self.draws}"] if self.draws else []
        arguments = ["sweep", *pairs, *best, *draws, *said.options, "--events", "--json", "--", said.notebook]
        return Command(said.project, path, arguments, said.hidden)

    def problem(self, name: str, word: str, known: Sequence[Parameter] | None) -> str:
        if known is not None and any(one.name == name and one.secret for one in known):
            return super().problem(name, word, known)
        from jupyter_mlops.pipelines.sweeps import read_axis  # it loads all that runs notebooks

        try:
            axis = read_axis(name, word, known)
            for value in axis.values or [axis.low]:
                validate({name: value}, known)
        except ParametersInvalid as error:
            return _said(error)
        return ""

    def runs(self, known: Sequence[Parameter] | None) -> int:
        from jupyter_mlops.pipelines.sweeps import draw, grid, read_axis

        hidden = {one.name for one in known or () if one.secret}
        axes = [read_axis(name, word, known) for name, word in self.parameters.items() if name not in hidden]
        return len(grid(axes) if self.draws is None else draw(axes, self.draws, 0))


ORDERED: Final = (RunNotebook, SweepNotebook, Init)
"""What pages may send to have a command run."""


def form(project: Project, notebook: Path, output: str) -> Form:
    """What a notebook can be given, and where it can run."""
    from jupyter_mlops import targets

    book = read_notebook(notebook)
    found = declared(book)
    why = ""
    if found is None:
        language = language_of(book)
        why = "" if language == "python" else f"its cells are {language}: only Python's parameters are read"
    places = [
        Somewhere(name=one.name, kind=one.kind, about=one.about, why=one.hindrance) for one in targets.standing(project)
    ]
    return Form(
        notebook=project.relative(notebook), declares=found is not None, why=why,
        fields=[_field(one) for one in found or ()], targets=places, output=output,
    )  # fmt: skip


def _field(known: Parameter) -> Field:
    shown = known.masked()
    default = "" if shown.computed or (known.secret and shown.source == "…") else _typed(shown.source)
    return Field(
        name=known.name, type=known.type, default=default, choices=_choices(known.type), help=known.help,
        secret=known.secret,
    )  # fmt: skip


def _typed(source: str) -> str:
    """A default as one would type it: a text without its quotes."""
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return source
    return value if isinstance(value, str) else source


def _choices(type_: str) -> list[str]:
    """What a type says that there is to choose from."""
    if type_ == "bool":
        return ["True", "False"]
    try:
        read = ast.parse(type_, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    match read:
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if all(isinstance(one, ast.Constant) for one in items):
                return [str(one.value) for one in items if isinstance(one, ast.Constant)]
    return []


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _said(error: ParametersInvalid) -> str:
    return f"{error.thing}: {error.cause}" if error.cause else error.thing
