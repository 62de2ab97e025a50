"""Models, and the names that point to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jupyter_mlops.cli.tree import Place, here, mlops

if TYPE_CHECKING:
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
@here
def register(
    place: Place, value: str, name: str, data: str | None, evaluation: str | None, format_: str | None,
    trust: tuple[str, ...], description: str, tags: tuple[tuple[str, str], ...],
) -> View:  # fmt: skip
    """Register VALUE (a variable in a cell, a file in a shell) as the next version of model NAME."""
    from jupyter_mlops import views

    session = place.session
    model: Any = place.variable(value) if place.variables is not None and value in place.variables else Path(value)
    registered = place.registry.register(
        model, name, data=place.named(data), evaluation=place.named(evaluation), format=format_,
        trust=trust, description=description, tags=dict(tags), context=session.context() if session else None,
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
