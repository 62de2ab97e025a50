"""Models, their versions, their aliases, and what was asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.records import CheckResult, Digest, ModelVersion, Transition, short
from jupyter_mlops.views.parts import artifact_cells, gap_table, tick
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, number, size, when

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import LocalRegistry, VersionInfo
    from jupyter_mlops.store import Store


def models(registry: LocalRegistry) -> View:
    """All models, with their aliases."""
    rows = []
    for name in registry.models():
        versions = registry.versions(name)
        aliases = [f"@{alias} → {one.version}" for one in versions for alias in one.aliases]
        last = versions[-1]
        rows.append((name, str(last.version), ", ".join(aliases) or "—", when(last.time), last.record.by))
    headings = ("model", "versions", "aliases", "latest", "by")
    return View(
        blocks=[Table(headings, rows, right=frozenset({1}))] if rows else [Text("No model is registered yet.")],
        data=[[str(cell) for cell in row] for row in rows],
        hint="" if rows else "%mlops register VARIABLE NAME in the cell that made a model",
    )


def _telling(versions: Sequence[VersionInfo], gates: Iterable[str]) -> list[str]:
    """The few metrics to tell versions apart by: those that gates speak of, then any."""
    known = {key for one in versions for key in one.record.metrics}
    asked = [key for key in sorted(known) if any(re.match(rf"{re.escape(key)}\b", gate) for gate in gates)]
    return [*asked, *sorted(known - set(asked))][:3]


def model(registry: LocalRegistry, name: str, *, gates: Iterable[str] = ()) -> View:
    """The versions of a model, and the history of its aliases."""
    versions = registry.versions(name)
    measures = _telling(versions, gates)
    rows = [
        (
            str(one.version),
            " ".join("@" + alias for alias in one.aliases) or "",
            when(one.time),
            one.record.by,
            one.record.model.type,
            size(one.record.model.size),
            *(number(one.record.metrics.get(key, "")) for key in measures),
            short(one.record.cell_run),
        )
        for one in versions
    ]
    headings = ("version", "alias", "registered", "by", "format", "size", *measures, "cell run")
    blocks: list[Block] = [Table(headings, rows, right=frozenset({0, *range(5, 6 + len(measures))}))]
    history: list[Any] = []
    for alias in sorted({ref.partition("@")[2] for ref in registry.store.refs(f"models/{name}@")}):
        moves = registry.history(name, alias)
        history += moves
        blocks += [Text(""), _history(alias, moves, {one.digest: one.version for one in versions})]
    return View(
        title=name,
        blocks=blocks,
        data={"versions": [one.record for one in versions], "moves": [move.transition for move in history]},
    )


def _history(alias: str, moves: Sequence[Any], versions: Mapping[Digest, int]) -> Table:
    rows = []
    for move in moves:
        step: Transition = move.transition
        old, new = (str(versions.get(digest, short(digest))) if digest else "—" for digest in (step.old, step.new))
        verdict = Mark("refused", "bad") if step.refused else Mark("moved", "good")
        tickets = " ".join(ticket.id for ticket in step.tickets)
        lacking = [f"no {' and no '.join(step.lacking)} was given"] if step.lacking else []
        why = ": ".join([*lacking, *([step.reason] if step.reason else [])])
        rows.append((verdict, f"{old} → {new}", when(move.time), step.by, why, tickets))
    return Table((f"@{alias}", "version", "when", "who", "why", "tickets"), rows)


def model_version(project: Project, info: VersionInfo, *, known: bool = False) -> View:
    """One version of a model; `known` if it was just registered and had been before."""
    record = info.record
    facts: list[tuple[str, object]] = [
        ("model", f"{record.name}, version {info.version}" + "".join(f" @{alias}" for alias in info.aliases)),
        ("registered", f"{when(info.time)} by {record.by}"),
        ("format", f"{record.model.type}, {size(record.model.size)}"),
        ("bytes", record.model.digest),
        ("content", info.content or Mark("no digest of its content")),
        ("class", info.type or "—"),
        ("cell run", short(record.cell_run) or "—"),
        ("environment", short(record.environment) or "—"),
        ("signature", _signature(project.store, record)),
        ("baseline", short(record.baseline) or Mark("none")),
        ("requirements", ", ".join(record.requirements)),
    ]
    if record.description:
        facts.append(("description", record.description))
    facts += [("tag", f"{key} = {value}") for key, value in sorted(record.tags.items())]
    facts += [("metric", f"{key} = {number(value)}") for key, value in sorted(record.metrics.items())]
    facts += [("parameter", f"{key} = {number(value)}") for key, value in sorted(record.parameters.items())]
    facts += [("approved", f"{when(time)} by {one.by}: {one.summary}") for time, one in _approvals(project, info)]
    rows = [artifact_cells(one) for one in record.training]
    blocks: list[Block] = [Facts(facts)]
    if rows:
        blocks.append(Table(("trained on", "type", "size", "content", "made by"), rows, right=frozenset({2})))
    unknown = [gap.reason for gap in record.gaps if gap.subject == "signature"]
    blocks += gap_table([gap for gap in record.gaps if gap.subject != "signature"])
    hints = ["This very model is that version already."] if known else []
    hints += [f"What it takes is not known: {reason}" for reason in unknown]
    return View(title=f"models:/{record.name}/{info.version}", blocks=blocks, data=record, hint="\n".join(hints))


def _approvals(project: Project, info: VersionInfo) -> list[tuple[str, CheckResult]]:
    from jupyter_mlops.registry import LocalRegistry

    return [(time, one) for time, one in LocalRegistry(project.store).approvals(info.digest) if one.passed]


def _signature(store: Store, record: ModelVersion) -> object:
    if record.signature is None:
        return Mark("none", "bad")
    found = msgspec.json.decode(store.get(record.signature))
    names = [str(one.get("name")) for one in found.get("inputs", [])]
    return f"{len(names)} inputs: {', '.join(names)}"


def checks(found: Sequence[CheckResult], *, title: str) -> View:
    """What was asked, and answered; the answer is no unless all were passed."""
    # what a gate demands is worth the room where it was not met
    rows = [(tick(one.passed), one.check, one.evidence.get("found", one.summary) if one.passed else one.summary)
            for one in found]  # fmt: skip
    passed = sum(one.passed for one in found)
    return View(
        title=f"{title}: {passed} of {len(rows)} passed",
        blocks=[Table(("", "gate", "answer"), rows)],
        data=list(found),
        ok=passed == len(rows),
    )


def contract(result: CheckResult, *, strict: bool = False) -> View:
    """What was asked of data, and answered.

    Raises
    ------
    ContractBroken
        The answer is no, and that is to be an error.
    """
    from jupyter_mlops.registry.contracts import LEAKAGE, ContractBroken

    if strict and not result.passed:
        raise ContractBroken(result)
    told = result.evidence
    blocks: list[Block] = []
    if result.check == LEAKAGE:
        facts = [("compared on", ", ".join(told["on"])), ("rows", f"{told['train']:,} and {told['test']:,}")]
        facts += [("only in one", ", ".join(told["ignored"]))] if told["ignored"] else []
        blocks.append(Facts(facts))
        if told["pairs"]:
            rows = [(f"{test:,}", f"{train:,}") for test, train in told["pairs"][:10]]
            more = told["test_rows"] - len(rows)
            blocks.append(Table(("row of the test set", "the same in the training set"), rows, right=frozenset({0, 1})))
            blocks += [Text(f"and {more:,} more", tone="dim")] if more > 0 else []
    elif told["breaches"]:
        found = [
            (one.get("column") or "—", one["what"], "" if one.get("rows") is None else f"{one['rows']:,}",
             ", ".join(map(str, one.get("first", ()))), ", ".join(map(repr, one.get("examples", ()))))
            for one in told["breaches"]
        ]  # fmt: skip
        headings = ("column", "what is wrong", "rows", "the first", "as in")
        blocks.append(Table(headings, found, right=frozenset({2})))
    blocks += [Text(f"Not known: {one}.", tone="dim") for one in told.get("unknown", ())]
    return View(
        title=f"{tick(result.passed)} {result.summary}", blocks=blocks, data=result, ok=result.passed
    )  # fmt: skip


def moved(registry: LocalRegistry, model_: str, alias: str) -> View:
    """Where an alias points now."""
    name = model_.removeprefix("models:/").partition("@")[0].partition("/")[0]
    info = registry.get(f"{name}@{alias}")
    move = registry.history(name, alias)[-1]
    results = [registry.store.line(digest).record for digest in move.transition.checks]
    answered = checks([one for one in results if isinstance(one, CheckResult)], title="")
    return View(
        title=f"{name}@{alias} is now version {info.version}",
        blocks=[
            *(answered.blocks if results else ()),
            Text(f"by {move.transition.by}: {move.transition.reason or '—'}"),
        ],
        data=move.transition,
    )
