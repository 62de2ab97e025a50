"""Models, and the names that point to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jupyter_mlops.cli.reading import content
from jupyter_mlops.cli.tree import Place, Words, here, mlops, panelled
from jupyter_mlops.errors import WrongUse

if TYPE_CHECKING:
    from jupyter_mlops.registry.contracts import Data
    from jupyter_mlops.widgets import View


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
@click.option("-m", "--reason", default="", help="Why.")
@click.option("--ticket", "tickets", multiple=True, help="A ticket this is for.")
@here
def register(
    place: Place, value: str, name: str, data: str | None, evaluation: str | None, format_: str | None,
    trust: tuple[str, ...], description: str, tags: tuple[tuple[str, str], ...], reason: str,
    tickets: tuple[str, ...],
) -> View:  # fmt: skip
    """Register VALUE (a variable in a cell, a file in a shell) as the next version of model NAME."""
    from jupyter_mlops import views

    session = place.session
    model: Any = place.variable(value) if place.variables is not None and value in place.variables else Path(value)
    registered = place.registry.register(
        model, name, data=place.named(data), evaluation=place.named(evaluation), format=format_,
        trust=trust, description=description, tags=dict(tags), reason=reason, tickets=tickets,
        context=session.context() if session else None,
    )  # fmt: skip
    return views.model_version(place.project, place.registry.get(f"{name}/{registered[0]}"), known=registered.existed)


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
@here
def card(place: Place, model: str) -> View:
    """The card of a MODEL version as Markdown: what it is, trained on what, how good, and what is not known."""
    from jupyter_mlops import views

    return views.card(place.project, place.registry.get(model))


class Asking(Words):
    """The questions that can be asked; without one of their names, that of a model's gates."""

    default = "model"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what is no question's name for a model's."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@mlops.group(cls=Asking)
def check() -> None:
    """Ask about a model's gates (the word `model` may be left out), about data, its drift, or a test set."""


@check.command(name="model")
@click.argument("model")
@click.option("-g", "--gate", "gates", multiple=True, help="What to ask, as in `roc_auc>=0.8`, `signature`, `history`.")
@click.option("--for", "alias", default="production", show_default=True, help="Ask what this alias demands.")
@panelled
@here
def check_model(place: Place, model: str, gates: tuple[str, ...], alias: str, panel: bool) -> View:
    """Ask a MODEL version the gates of an alias, or those given. Ends with 1 if one is not passed.

    A panel has a slider for each threshold, to see what would pass: what is tried there is not on record.
    """
    from jupyter_mlops import views

    if panel:
        place.need_notebook("a panel")
    registry, title = place.registry, f"{model} for @{alias}"
    found = registry.check(model, gates, alias=alias)
    view = views.checks(found, title=title)
    if not panel:
        return view
    return views.thresholds(
        lambda gates: registry.tried(model, gates, alias=alias), [one.check for one in found], view, title=title
    )


_warn: Final = click.option("--warn", is_flag=True, help="In a notebook: only say so, and let the cell go on.")


@check.command(name="data")
@click.argument("data")
@click.option("--against", required=True, help="What it is to be like: a table, a run, a model, or a pandera schema.")
@click.option("--ranges", is_flag=True, help="Numbers are to stay between the least and the greatest there.")
@_warn
@here
def check_data(place: Place, data: str, against: str, ranges: bool, warn: bool) -> View:
    """Hold DATA (a variable, a file, a name on record) to what good data or a schema says. Ends with 1 if it breaks it.

    In a notebook a broken contract is an error, so that nothing is trained on what follows.
    """
    from jupyter_mlops import views
    from jupyter_mlops.registry import contracts

    result = contracts.check_data(
        place.project, _data(place, data), _good(place, against, data, ranges), source=against, ranges=ranges,
        context=place.session.context() if place.session else None,
    )  # fmt: skip
    return views.contract(result, strict=place.variables is not None and not warn)


@check.command(name="leakage")
@click.argument("train")
@click.argument("test")
@click.option("--on", metavar="COLUMN[,COLUMN]", help="The columns that make a row; all that both have unless given.")
@click.option("--allow", type=click.FloatRange(0, 1), default=0.0, help="The share of rows that may be there.")
@_warn
@here
def check_leakage(place: Place, train: str, test: str, on: str | None, allow: float, warn: bool) -> View:
    """Find the rows of TEST that are in TRAIN (variables, or files). Ends with 1 if there are any.

    Rows are compared by content, whatever index, order or types they are kept in.
    """
    from jupyter_mlops import views
    from jupyter_mlops.registry import contracts

    result = contracts.check_leakage(
        place.project, _data(place, train), _data(place, test), allow=allow,
        on=tuple(name.strip() for name in on.split(",")) if on else (),
        context=place.session.context() if place.session else None,
    )  # fmt: skip
    return views.contract(result, strict=place.variables is not None and not warn)


@check.command(name="drift")
@click.argument("data")
@click.option("--against", required=True, help="A model, for what it was trained on, or a table at hand.")
@click.option(
    "--limit",
    type=click.FloatRange(0),
    help="The population stability index up to which a column counts as what it was; 0.2 unless given.",
)
@_warn
@panelled
@here
def check_drift(place: Place, data: str, against: str, limit: float | None, warn: bool, panel: bool) -> View:
    """Ask whether the columns of DATA (a variable, a file) are distributed as they were. Ends with 1 if one is not.

    A panel shows what fell where, then and now, and has a slider for the limit: what is tried there is not on record.
    """
    from jupyter_mlops import checks, views
    from jupyter_mlops.checks.drift import LIMIT
    from jupyter_mlops.registry import contracts

    if panel:
        place.need_notebook("a panel")
    table, good = _data(place, data), content(place, against)
    if table.table is None:
        raise WrongUse(f"the values of {data} are not at hand", next="give a file, or ask in the notebook")
    secret = place.project.redactor().secret_name
    if good is not None:
        baseline = checks.profile(good[0], secret=secret)
    else:
        baseline = contracts.baseline_of(place.project.store, place.subject(against).value, source=against)
    found = checks.drift(baseline, table.table, secret=secret)
    limit = LIMIT if limit is None else limit
    result = contracts.check_drift(
        place.project, table, found, source=against, limit=limit,
        context=place.session.context() if place.session else None,
    )  # fmt: skip
    view = views.drift(result, found, strict=place.variables is not None and not (warn or panel))
    return views.drifts(found, view, limit=limit) if panel else view


def _data(place: Place, what: str) -> Data:
    """A table that a word means: at hand, or what is on record of it."""
    from jupyter_mlops.records import Artifact
    from jupyter_mlops.registry.contracts import Data

    found = content(place, what)
    if found is not None:
        live = place.variables is not None and what in place.variables
        return Data(name=what, table=found[0], path=Path(what) if not live and Path(what).is_file() else None)
    value = place.subject(what).value
    return Data(name=what, artifact=value if isinstance(value, Artifact) else None)


def _good(place: Place, against: str, name: str, ranges: bool) -> Any:
    """What data is held to: a table or schema at hand, a schema's file, or what is on record."""
    from jupyter_mlops.registry import contracts

    if place.variables is None or against not in place.variables:
        path = Path(against)
        if path.suffix.lower() in (".yaml", ".yml", ".json") and path.is_file():
            return contracts.read_schema(path)
    found = content(place, against)
    if found is not None:
        return found[0]
    value = place.subject(against).value
    return contracts.recorded(place.project.store, value, name, source=against, ranges=ranges)


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

    alias = alias.lstrip("@")
    place.registry.promote(model, alias, gates=gates, reason=reason, tickets=tickets, by=place.project.user)
    return views.moved(place.registry, model, alias)


@mlops.command()
@click.argument("name")
@click.argument("alias")
@click.option("-m", "--reason", default="", help="Why.")
@click.option("--ticket", "tickets", multiple=True, help="A ticket this is for.")
@here
def rollback(place: Place, name: str, alias: str, reason: str, tickets: tuple[str, ...]) -> View:
    """Point ALIAS of model NAME back to the version it pointed to before."""
    from jupyter_mlops import views

    alias = alias.lstrip("@")
    place.registry.rollback(name, alias, by=place.project.user, reason=reason, tickets=tickets)
    return views.moved(place.registry, name, alias)


@mlops.command()
@click.argument("model")
@click.option("-m", "--reason", default="", help="Why.")
@click.option("--ticket", "tickets", multiple=True, help="A ticket this is for.")
@click.option("--withdraw", is_flag=True, help="Take it back.")
@here
def approve(place: Place, model: str, reason: str, tickets: tuple[str, ...], withdraw: bool) -> View:
    """Put your approval of exactly this MODEL version on record: what the gate `approved` asks for."""
    from jupyter_mlops import views

    registry = place.registry
    registry.approve(model, by=place.project.user, reason=reason, tickets=tickets, withdraw=withdraw)
    return views.model_version(place.project, registry.get(model))
