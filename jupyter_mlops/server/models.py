"""What the pages of JupyterLab can ask about models: versions, aliases and their history, gates, approvals, cards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from jupyter_mlops import views
from jupyter_mlops.checks import APPROVAL, DEFAULT_GATES
from jupyter_mlops.project import Demands, Project, Settings, SettingsInvalid
from jupyter_mlops.records import Artifact, CheckResult, Digest, Gap, RecordInvalid, Ticket, Transition
from jupyter_mlops.registry import LocalRegistry, VersionInfo
from jupyter_mlops.server.answers import Refusal
from jupyter_mlops.store import NotFound

if TYPE_CHECKING:
    from jupyter_mlops.store import Move, Store

_Said = TypeVar("_Said", bound=str)


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model, its latest version, and where its aliases point."""

    name: str
    versions: int
    latest: int
    time: str
    by: str
    aliases: dict[str, int]


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """All models; `demands` as in `ModelDetail`."""

    models: list[ModelRow]
    demands: Demands


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A gate that was asked of a version, and its answer."""

    check: str
    passed: bool
    summary: str
    evidence: dict[str, Any]
    by: str
    time: str = ""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's last word on a version: approved, or withdrawn."""

    by: str
    time: str
    reason: str
    withdrawn: bool


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model; `checks` are the last answers to each gate."""

    version: int
    id: Digest
    time: str
    by: str
    aliases: list[str]
    format: str
    type: str
    size: int | None
    digest: Digest | None
    metrics: dict[str, Any]
    parameters: dict[str, Any]
    tags: dict[str, str]
    description: str
    requirements: list[str]
    training: list[Artifact]
    gaps: list[Gap]
    cell_run: Digest | None
    run: Digest | None
    checks: list[Answered]
    approvals: list[Approval]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A move of an alias, or a refusal: from which version to which, by whom, why, what was asked and not said."""

    time: str
    old: int | None
    new: int | None
    refused: bool
    by: str
    reason: str
    tickets: list[Ticket]
    checks: list[Answered]
    lacking: list[str]


class AliasRow(msgspec.Struct, frozen=True, kw_only=True):
    """An alias and its history, newest first."""

    alias: str
    version: int | None
    steps: list[Step]


class ModelDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its versions, newest first, and its aliases.

    Attributes
    ----------
    policy
        The gates that the project's settings demand, by alias; ``*`` stands for any other.
    default
        What is demanded where they say nothing.
    demands
        What they want to be said with what is done; of moves, by alias like `policy`.
    unreadable
        Why the settings can not be read, where that is so: nothing can be done then.
    """

    name: str
    versions: list[VersionRow]
    aliases: list[AliasRow]
    policy: dict[str, list[str]]
    default: list[str]
    demands: Demands
    unreadable: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A version's card, as Markdown in which nothing recorded is more than text."""

    markdown: str


class GateRefusal(Refusal, frozen=True, kw_only=True):
    """Why a model may not have an alias: what was asked, and answered."""

    checks: list[Answered]


MODELS: Final = (Models, ModelDetail, Card, GateRefusal)
"""What the pages' types are made of, besides the answers."""


def models(project: Project) -> Models:
    """All models."""
    registry = LocalRegistry(project.store)
    rows = []
    for name in registry.models():
        versions = registry.versions(name)
        if versions:
            last = versions[-1]
            aliases = {alias: one.version for one in versions for alias in one.aliases}
            rows.append(
                ModelRow(
                    name=name, versions=len(versions), latest=last.version, time=last.time, by=last.by,
                    aliases=aliases,
                )
            )  # fmt: skip
    return Models(models=rows, demands=_demands(_settings(project)[0]))


def model(project: Project, name: str) -> ModelDetail:
    """A model with its versions, aliases and gates.

    Raises
    ------
    ModelMissing
        There is no such model.
    """
    store = project.store
    registry = LocalRegistry(store)
    versions = registry.versions(name)
    numbers = {one.digest: one.version for one in versions}
    last: dict[tuple[Digest, str], Answered] = {}
    said: dict[tuple[Digest, str], Approval] = {}
    for _, time, result in store.records(CheckResult):
        if result.subject not in numbers:
            continue
        if result.check == APPROVAL:
            said.setdefault((result.subject, result.by), _approval(result, time))
        else:
            last.setdefault((result.subject, result.check), answered(result, time))
    aliases = []
    for ref in store.refs(f"models/{name}@"):
        moves = registry.history(name, ref.partition("@")[2])
        head = store.head(ref)
        steps = [_step(store, move, numbers) for move in reversed(moves)]
        number = numbers.get(head) if head else None
        aliases.append(AliasRow(alias=ref.partition("@")[2], version=number, steps=steps))
    rows = [
        _version_row(
            one, [answer for (subject, _), answer in last.items() if subject == one.digest],
            [word for (subject, _), word in said.items() if subject == one.digest],
        )
        for one in reversed(versions)
    ]  # fmt: skip
    settings, unreadable = _settings(project)
    return ModelDetail(
        name=name, versions=rows, aliases=aliases, policy=_plain(settings.gates), default=list(DEFAULT_GATES),
        demands=_demands(settings), unreadable=unreadable,
    )  # fmt: skip


def card(project: Project, ref: str) -> Card:
    """A version's card.

    Raises
    ------
    ModelMissing
        There is no such version.
    """
    return Card(markdown=views.card(project, LocalRegistry(project.store).get(ref)).text())


def _settings(project: Project) -> tuple[Settings, str]:
    """What the project's settings are now, or why that can not be read."""
    try:
        return Project(project.root, store=project.store).settings, ""
    except SettingsInvalid as error:
        return Settings(), str(error)


def _demands(settings: Settings) -> Demands:
    found = settings.demands
    return msgspec.structs.replace(found, promote=_plain(found.promote), rollback=_plain(found.rollback))


def _plain(table: dict[str, list[_Said]]) -> dict[str, list[_Said]]:
    """What is set by alias, whose names may be written with an ``@``."""
    return {alias.removeprefix("@"): said for alias, said in table.items()}


def _step(store: Store, move: Move, numbers: dict[Digest, int]) -> Step:
    step: Transition = move.transition
    return Step(
        time=move.time, old=numbers.get(step.old) if step.old else None,
        new=numbers.get(step.new) if step.new else None, refused=step.refused, by=step.by, reason=step.reason,
        tickets=step.tickets, checks=results(store, step.checks), lacking=step.lacking,
    )  # fmt: skip


def results(store: Store, lines: Iterable[Digest]) -> list[Answered]:
    """The answers that stand on these lines; those that are lost or damaged are left out, and `fsck` names them."""
    found = []
    for line in lines:
        try:
            record = store.line(line).record
        except (NotFound, RecordInvalid):
            continue
        if isinstance(record, CheckResult):
            found.append(answered(record))
    return found


def _approval(result: CheckResult, time: str) -> Approval:
    return Approval(by=result.by, time=time, reason=result.summary, withdrawn=not result.passed)


def _version_row(info: VersionInfo, checks: list[Answered], approvals: list[Approval]) -> VersionRow:
    record = info.record
    return VersionRow(
        version=info.version, id=info.digest, time=info.time, by=record.by, aliases=list(info.aliases),
        format=info.format, type=info.type, size=info.size, digest=record.model.digest, metrics=record.metrics,
        parameters=record.parameters, tags=record.tags, description=record.description,
        requirements=record.requirements, training=record.training, gaps=record.gaps, cell_run=record.cell_run,
        run=record.run, checks=checks, approvals=approvals,
    )  # fmt: skip


def answered(result: CheckResult, time: str = "") -> Answered:
    """A `CheckResult` as pages are given it."""
    return Answered(
        check=result.check, passed=result.passed, summary=result.summary, evidence=result.evidence, by=result.by,
        time=time,
    )  # fmt: skip
