"""Names that point to versions: gates asked of a version, and names moved to one that passes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from jupyter_mlops import checks
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.project import Project, Settings
from jupyter_mlops.records import CheckResult, Digest, ModelVersion, Policy, RecordInvalid, Ticket, Transition
from jupyter_mlops.redact import Redactor
from jupyter_mlops.registry.versions import (
    ModelMissing,
    VersionInfo,
    Versions,
    alias_name,
    bytes_of,
    model_name,
    npy,
    plain,
)  # fmt: skip
from jupyter_mlops.store import Move, NotFound, RefConflict, Store

TRIES: Final = 50
"""How often a move is tried that others come before."""


class NothingBefore(MlopsError, LookupError):
    """An alias has pointed to nothing else yet."""

    exit_code = 1


class DemandUnmet(MlopsError, RuntimeError):
    """What the project's settings want to be said with an act was not said, and nothing was done.

    Attributes
    ----------
    lacking
        What was not said: ``reason``, ``ticket``.
    """

    exit_code = 1

    def __init__(self, thing: str, lacking: Sequence[str], *, cause: str, next: str) -> None:
        super().__init__(thing, cause=cause, next=next)
        self.lacking = list(lacking)


class GateRefused(MlopsError, RuntimeError):
    """A model did not pass the gates of an alias; the refusal is on record.

    Attributes
    ----------
    results
        What was asked and answered.
    transition
        The refusal, as it stands in the alias's history.
    """

    exit_code = 1

    def __init__(self, thing: str, results: Sequence[CheckResult], transition: Transition, *, next: str) -> None:
        super().__init__(thing, next=next)
        self.results = list(results)
        self.transition = transition

    def __str__(self) -> str:
        return f"{self.thing}:\n\n{table(self.results)}\n\n{self.next}"


def table(results: Iterable[CheckResult]) -> str:
    """Gates and answers as plain text: verdict, gate, what was found and, where it was refused, demanded."""
    rows = []
    for one in results:
        found = _shown(one.evidence.get("found", one.summary))
        if not one.passed and "demanded" in one.evidence:
            found += f" (demanded: {_shown(one.evidence['demanded'])})"
        rows.append(("passed" if one.passed else "REFUSED", _shown(one.check), found))
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(2)]
    return "\n".join(f"{verdict:{widths[0]}}  {gate:{widths[1]}}  {found}" for verdict, gate, found in rows)


def _shown(text: object) -> str:
    """A recorded text for a terminal: one line of printable characters."""
    flat = "".join(char if char.isprintable() else " " for char in str(text))
    return flat if len(flat) <= 160 else flat[:159] + "…"


class Aliases(Versions):
    """Checks and promotes the models of a store, as the settings of its project have it at that moment.

    Parameters
    ----------
    user
        Who acts, where a call does not say.
    redactor
        Masks secrets in texts before they are written.
    """

    def __init__(self, store: Store, *, user: str = "", redactor: Redactor | None = None) -> None:
        super().__init__(store)
        self.user = user
        self._redactor = redactor or Redactor()

    @property
    def settings(self) -> Settings:
        """What the project around the store sets, as it stands on the disk now."""
        return Project(self.store.path.parent, store=self.store).settings

    def _unmet(
        self, act: str, reason: str, tickets: Sequence[Ticket], *, thing: str, command: str, alias: str = "",
        besides: Sequence[str] = (),
    ) -> DemandUnmet | None:  # fmt: skip
        """What the settings, and others besides, want to be said with an act and was not; None: nothing is lacking."""
        demanded = list(dict.fromkeys((*self.settings.demands.of(act, alias), *besides)))
        said = {"reason": bool(reason.strip()), "ticket": bool(tickets)}
        lacking = [one for one in demanded if not said[one]]
        if not lacking:
            return None
        of = {
            "register": "a registration", "approve": "an approval", "promote": f"a promotion to @{alias}",
            "rollback": f"a rollback of @{alias}",
        }[act]  # fmt: skip
        words = {"reason": "-m WHY", "ticket": "--ticket ID"}
        return DemandUnmet(
            f"{thing}: no {' and no '.join(lacking)} was given", lacking,
            cause=f"the project's settings demand a {' and a '.join(demanded)} of {of}",
            next=" ".join([command, *(words[one] for one in demanded)]),
        )  # fmt: skip

    # -- checking ------------------------------------------------------------------------------------------------

    def check(
        self, ref: str, gates: Sequence[str] = (), *, alias: str = "", data: Any = None, by: str = ""
    ) -> list[CheckResult]:
        """Ask a version gates; each answer is put on record, bound to that version's line.

        Parameters
        ----------
        gates
            As `checks.parse_gate` reads them; those that the settings demand for the alias where there are none.
        alias
            What the gates are asked for, for the record; and whose gates they are where there are none.
        data
            ``(X, y)`` to evaluate this version and the alias's holder on, where no predictions were recorded.
        """
        asked = self._gates(gates or self.settings.demanded(alias))[0]
        return [result for _, result in self._ask(self.get(ref), asked, data, by, alias=alias)]

    def tried(self, ref: str, gates: Sequence[checks.Check], *, alias: str = "") -> list[CheckResult]:
        """What a version would answer these gates; nothing is put on record."""
        return list(self._verdicts(self.get(ref), gates, None, "", alias=alias))

    def _gates(self, gates: Sequence[str]) -> tuple[tuple[str, ...], str]:
        asked = tuple(dict.fromkeys(gate.strip() for gate in gates if gate.strip()))
        return (asked, "as configured") if asked else (checks.DEFAULT_GATES, "the default, as nothing is configured")

    def _ask(
        self, info: VersionInfo, gates: Sequence[str], data: Any, by: str, *, alias: str = ""
    ) -> list[tuple[Digest, CheckResult]]:
        installed = providers()
        asked = [checks.parse_gate(gate, installed) for gate in gates]
        return [(self.store.append(one), one) for one in self._verdicts(info, asked, data, by, alias=alias)]

    def _verdicts(
        self, info: VersionInfo, asked: Sequence[checks.Check], data: Any, by: str, *, alias: str = ""
    ) -> Iterator[CheckResult]:
        subject = self.candidate(info, data=data)
        context = checks.Context(holder=lambda alias: self._holder(info.name, alias, data))
        for check in asked:
            verdict = check(subject, context)
            evidence = {**verdict.evidence, "demanded": verdict.demanded, "found": verdict.found}
            if alias:
                evidence["for"] = alias
            if verdict.next and not verdict.passed:
                evidence["next"] = verdict.next
            yield CheckResult(
                check=check.name, subject=info.digest, passed=verdict.passed, evidence=_builtin(evidence),
                summary=self._clean(f"{verdict.found} (demanded: {verdict.demanded})"), by=by or self.user,
            )  # fmt: skip

    def _holder(self, name: str, alias: str, data: Any) -> checks.Candidate | None:
        if self.store.head(f"models/{name}@{alias_name(alias)}") is None:
            return None
        return self.candidate(self.get(f"{name}@{alias}"), data=data)

    def candidate(self, info: VersionInfo, *, data: Any = None) -> checks.Candidate:
        """What checks look at of a version."""
        record = info.record
        measured: list[checks.Evaluation | None] = []

        def evaluation() -> checks.Evaluation | None:
            if not measured:
                measured.append(self.evaluation(info) if data is None else self._evaluate(info, data))
            return measured[0]

        metrics = dict(record.metrics)
        if data is not None:
            found = evaluation()
            metrics |= checks.metrics(found) if found else {}
        return checks.Candidate(
            digest=info.digest, name=info.name, version=info.version, format=info.format, metrics=metrics,
            signature=self.signature(info),
            gaps=record.gaps,
            maker=record.cell_run,
            history=lambda: self._history(record),
            evaluation=evaluation,
            verified=lambda: self._verified(info.digest),
            by=record.by,
            on_behalf_of=self._behalf(record),
            approvals=lambda: [one for _, one in self.approvals(info.digest)],
        )  # fmt: skip

    def _behalf(self, record: ModelVersion) -> str:
        if record.run is None:
            return ""
        try:
            return self.store.run(record.run).started.on_behalf_of
        except (NotFound, RecordInvalid):  # lost or damaged: `fsck` names it
            return ""

    def _verified(self, digest: Digest) -> CheckResult | None:
        """What was last found when a version was run again. The registry runs nothing itself."""
        found = (one for _, _, one in self.store.records(CheckResult) if one.check == "reproducible")
        # a gate's answer has the same name, and no cells of its own
        return next((one for one in found if one.subject == digest and "cells" in one.evidence), None)

    def _history(self, record: ModelVersion) -> checks.History:
        from jupyter_mlops.lineage import ancestors

        if record.cell_run is None:
            return checks.History(why="no cell run on record made it")
        try:
            found = ancestors(record.cell_run, self.store.cell_run)
        except (KeyError, RecordInvalid) as error:
            return checks.History(why=f"a cell run that it builds on is not on record: {error}")
        runs = {run.started.run for run in found}
        return checks.History(ancestors=found, others=[one for run in runs for one in self.store.cell_runs(run=run)])

    def _evaluate(self, info: VersionInfo, data: Any) -> checks.Evaluation:
        """Predict a data set with a version, now."""
        from jupyter_mlops.records import digest_of

        inputs, truth = data
        model: Any = self.load(info.ref)
        try:
            answers = [model.predict(inputs)]
            if hasattr(model, "predict_proba"):
                answers.append(model.predict_proba(inputs))
        except Exception as error:  # a model's own code, or one that is asked in another way than scikit-learn's
            raise checks.EvaluationInvalid(
                f"{info.ref} can not be asked about the data given", cause=f"{type(error).__name__}: {error}"[:300],
                next="register it with --evaluation y_true,y_pred, and it is compared by these",
            ) from error  # fmt: skip
        found = checks.evaluation(truth, *answers)
        return msgspec.structs.replace(found, rows=digest_of(npy(found.truth)))

    # -- names that point to versions ------------------------------------------------------------------------------

    def promote(
        self,
        ref: str,
        alias: str,
        *,
        gates: Sequence[str] = (),
        policy: Policy | None = None,
        data: Any = None,
        by: str = "",
        reason: str = "",
        tickets: Sequence[str | Ticket] = (),
        reuse: bool = False,
    ) -> Transition:
        """Point an alias to a version, if the version passes the alias's gates and it is said what is to be said.

        The gates are asked of the version's line, which holds the digest of its bytes, and that line is what the alias
        then points to: what was checked is what is promoted. The alias moves only if it has not moved meanwhile.

        Parameters
        ----------
        gates
            What is demanded besides what the settings, and a `policy`, demand. Where none of them says anything:
            signature, history and not-pickle, which the recorded policy then says.
        reuse
            Take answers on record for this very line instead of asking again; gates that compare with an alias, or
            ask for approvals, are always asked.

        Raises
        ------
        DemandUnmet
            A reason or ticket is demanded and was not given. The refusal is on record; no gate was asked.
        GateRefused
            A gate was not passed. The refusal is on record, with its answers.
        RefConflict
            Somebody else moved the alias meanwhile.
        """
        info = self.get(ref)
        target = f"models/{info.name}@{alias_name(alias)}"
        by = by or self.user
        taken, old = self.store.taken(target), self.store.head(target)
        settings = self.settings
        demanded = [str(one["gate"]) for one in policy.checks if "gate" in one] if policy else []
        asked, said = self._gates((*settings.demanded(alias), *demanded, *gates))
        told = self._tickets(tickets)
        unmet = self._unmet(
            "promote", reason, told, alias=alias, besides=policy.demands if policy else (),
            thing=f"{info.name}/{info.version} may not be @{alias}",
            command=f"mlops promote {info.name}/{info.version} {alias}",
        )  # fmt: skip
        if unmet is not None:
            self._record_refusal(target, Transition(
                ref=target, old=old, new=info.digest, by=by, reason=self._clean(reason), refused=True, tickets=told,
                policy=self._policy(alias, asked, said, policy, by, settings), lacking=unmet.lacking,
            ))  # fmt: skip
            raise unmet
        self.store.get(bytes_of(info))  # bytes that are lost or damaged get no name
        answers = self._answers(info, asked, data, by, alias=alias, reuse=reuse)
        move = Transition(
            ref=target, old=old, new=info.digest, by=by, reason=self._clean(reason),
            refused=not all(result.passed for _, result in answers), tickets=told,
            checks=[digest for digest, _ in answers], policy=self._policy(alias, asked, said, policy, by, settings),
        )  # fmt: skip
        if move.refused:
            self._record_refusal(target, move)
            raise self._refusal(info, alias, [result for _, result in answers], move)
        try:
            self.store.move(target, move, expect=taken)
        except RefConflict as error:
            raise RefConflict(
                f"{info.name}@{alias} was moved by somebody else meanwhile, and not to version {info.version} by you",
                next=f"see who and why (mlops models {info.name}), then promote again if it still should be",
            ) from error
        return move

    def _answers(
        self, info: VersionInfo, gates: Sequence[str], data: Any, by: str, *, alias: str, reuse: bool
    ) -> list[tuple[Digest, CheckResult]]:
        known: dict[str, tuple[Digest, CheckResult]] = {}
        if reuse:
            for digest, _, result in self.store.records(CheckResult):
                fixed = "@" not in result.check and not result.check.startswith("approv")
                if result.subject == info.digest and fixed:
                    known.setdefault(result.check, (digest, result))
        installed = providers()
        names = [checks.parse_gate(gate, installed).name for gate in gates]
        missing = [gate for gate, name in zip(gates, names, strict=True) if name not in known]
        fresh = {result.check: (digest, result) for digest, result in self._ask(info, missing, data, by, alias=alias)}
        return [(known | fresh)[name] for name in dict.fromkeys(names)]

    def _policy(
        self, alias: str, gates: Sequence[str], said: str, policy: Policy | None, by: str, settings: Settings
    ) -> Digest:
        """The line that says what was demanded; one that says the same already is used again."""
        wanted = policy or Policy(name=alias, checks=[{"gate": gate} for gate in gates], by=by, reason=said)
        demands = dict.fromkeys((*settings.demands.of("promote", alias), *wanted.demands))
        wanted = msgspec.structs.replace(wanted, demands=list(demands))
        for digest, _, known in self.store.records(Policy, limit=200):
            if (known.name, known.checks, known.approvals, known.reason, known.demands) == (
                wanted.name, wanted.checks, wanted.approvals, wanted.reason, wanted.demands,
            ):  # fmt: skip
                return digest
        return self.store.append(wanted)

    def _record_refusal(self, target: str, move: Transition) -> None:
        for _ in range(TRIES):
            try:
                self.store.move(target, msgspec.structs.replace(move, old=self.store.head(target)))
            except RefConflict:
                continue  # a refusal changes nothing: it may stand after whatever came first
            return
        raise RefConflict(f"the refusal could not be put on record in {target}", next="try again")

    def _refusal(self, info: VersionInfo, alias: str, results: Sequence[CheckResult], move: Transition) -> GateRefused:
        failed = [result for result in results if not result.passed]
        next_ = next((str(one.evidence["next"]) for one in failed if one.evidence.get("next")), "")
        thing = f"{info.name}/{info.version} may not be @{alias}: {len(failed)} of {len(results)} gates refused it"
        again = f"mlops promote {info.name}/VERSION {alias}"
        return GateRefused(
            thing, results, move, next=f"{next_}; then {again}" if next_ else f"Improve it, then {again}"
        )

    def rollback(
        self, name: str, alias: str, *, by: str = "", reason: str = "", tickets: Sequence[str | Ticket] = ()
    ) -> Transition:
        """Point an alias back to the version it pointed to before.

        Rolling back twice goes back two versions, as undo does: a version that was left that way is not come back to.

        Raises
        ------
        NothingBefore
            It has pointed to nothing else.
        DemandUnmet
            A reason or ticket is demanded and was not given. The refusal is on record.
        RefConflict
            Somebody else moved it meanwhile.
        """
        target = f"models/{model_name(name)}@{alias_name(alias)}"
        taken, standing = self.store.taken(target), holders(self.store.moves(target))
        if len(standing) < 2:
            raise NothingBefore(f"{name}@{alias} has pointed to nothing else before", next=f"mlops models {name}")
        earlier = self._version(standing[-2])
        if earlier is None or earlier.model.digest is None:
            raise ModelMissing(f"what {name}@{alias} pointed to before can not be read", next="mlops fsck")
        self.store.get(earlier.model.digest)  # bytes that are lost or damaged get no name
        move = Transition(
            ref=target, old=standing[-1], new=standing[-2], by=by or self.user,
            reason=self._clean(reason) or "rollback", tickets=self._tickets(tickets),
        )  # fmt: skip
        unmet = self._unmet(
            "rollback", reason, move.tickets, alias=alias, thing=f"{name}@{alias} was not rolled back",
            command=f"mlops rollback {name} {alias}",
        )  # fmt: skip
        if unmet is not None:
            refused = msgspec.structs.replace(move, refused=True, reason=self._clean(reason), lacking=unmet.lacking)
            self._record_refusal(target, refused)
            raise unmet
        self.store.move(target, move, expect=taken)
        return move

    # -- approvals -------------------------------------------------------------------------------------------------

    def approve(
        self, ref: str, *, by: str = "", reason: str = "", tickets: Sequence[str | Ticket] = (), withdraw: bool = False
    ) -> CheckResult:
        """Put on record that somebody approves exactly this version, or takes that back.

        What it is worth is for the gate ``approved`` to say; see `checks.gates.Approved`.

        Raises
        ------
        DemandUnmet
            A reason or ticket is demanded and was not given.
        """
        info = self.get(ref)
        told = self._tickets(tickets)
        unmet = self._unmet(
            "approve", reason, told,
            thing=f"{info.name}/{info.version}: the approval was not {'taken back' if withdraw else 'put on record'}",
            command=f"mlops approve {info.name}/{info.version}{' --withdraw' if withdraw else ''}",
        )  # fmt: skip
        if unmet is not None:
            raise unmet
        result = CheckResult(
            check=checks.APPROVAL, subject=info.digest, passed=not withdraw,
            evidence={"tickets": [one.id for one in told]} if told else {},
            summary=self._clean(reason) or ("withdrawn" if withdraw else "approved"), by=by or self.user,
        )  # fmt: skip
        self.store.append(result)
        return result

    def approvals(self, digest: Digest) -> list[tuple[str, CheckResult]]:
        """Each one's last word on a version, newest first, with its time."""
        last: dict[str, tuple[str, CheckResult]] = {}
        for _, time, one in self.store.records(CheckResult):
            if one.subject == digest and one.check == checks.APPROVAL:
                last.setdefault(one.by, (time, one))
        return list(last.values())

    def _tickets(self, tickets: Sequence[str | Ticket]) -> list[Ticket]:
        told = [one if isinstance(one, Ticket) else Ticket(id=self._clean(str(one).strip())) for one in tickets]
        return [one for one in told if one.id.strip()]

    def _clean(self, text: str) -> str:
        return self._redactor.text(text)[0]


def holders(moves: Sequence[Move]) -> list[Digest]:
    """What an alias has pointed to and would go back to, the present one last: a stack that rollbacks take from.

    A rollback is a move that passed without a check; a promotion has at least one.
    """
    stack: list[Digest] = []
    for move in moves:
        step = move.transition
        if step.refused or step.new is None:
            continue
        if not step.checks and step.new in stack:
            del stack[len(stack) - stack[::-1].index(step.new) :]
        elif not stack or stack[-1] != step.new:
            stack.append(step.new)
    return stack


def providers() -> dict[str, Any]:
    """Checks that other packages bring, by name; loaded when asked for."""
    from importlib.metadata import entry_points

    return {point.name: _Late(point) for point in entry_points(group="jupyter_mlops.checks")}


class _Late:
    """A check of another package, imported when it is asked."""

    def __init__(self, point: Any) -> None:
        self._point = point

    def __call__(self, argument: str) -> checks.Check:
        made: checks.Check = self._point.load()(argument)
        return made


def _builtin(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plain(value) for key, value in evidence.items()}
