"""Gates: what is demanded of a model before a name may point to it.

A gate is a `Check` in a short spelling:

=============================  =======================================================================================
``accuracy>=0.8``              a metric held against a number (``>=``, ``>``, ``<=``, ``<``)
``auc>@production+0.01``       better than the version that holds an alias, by more than a margin
``rmse<@production-0.5``       the same, for a metric of which less is better
``signature``                  what the model takes and gives is known
``history``                    the cell runs that made it ended well, and none used a value that was later remade
``not-pickle``                 loading the model runs no code
``reproducible``               `mlops verify` found, last time, that the run that made it comes out the same
``approved``, ``approved:2``   somebody else than who registered it, or so many, approved exactly this version
=============================  =======================================================================================

Other names are looked up among the checks installed under the entry point ``jupyter_mlops.checks``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from jupyter_mlops.checks.data import Signature
from jupyter_mlops.checks.evaluation import Evaluation, bootstrap, direction, statistic
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import CellRun, CheckResult, Digest, Gap, short

APPROVAL: Final = "approval"
"""What the answer is called that a person gives."""

RUNS_CODE: Final = frozenset({"pickle", "joblib"})
"""Formats of models whose bytes are programs."""

DEFAULT_GATES: Final = ("signature", "history", "not-pickle")
"""What an alias demands where nobody has said anything else."""


class GateInvalid(MlopsError, ValueError):
    """A gate's spelling can not be read, or names a check that is not installed."""

    exit_code = 2


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The cell runs that led to a model.

    Attributes
    ----------
    ancestors
        Oldest first, the one that made the model among them; None where none is on record.
    others
        All cell runs of the same runs, to tell what was remade later.
    why
        Why there are none.
    """

    ancestors: Sequence[CellRun] | None = None
    others: Sequence[CellRun] = ()
    why: str = ""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record of a model version, as far as checks look at it.

    Attributes
    ----------
    digest
        The version's line: what an answer is bound to.
    maker
        The cell run that made it.
    history
        Reads the cell runs that led to it.
    evaluation
        Reads the rows it was evaluated on, where they were recorded.
    verified
        Reads what `mlops verify` last found for exactly this version.
    by
        Who registered it.
    on_behalf_of
        The named user of a Jupyter server for whom that was done, where it is known.
    approvals
        Reads each one's last word on exactly this version.
    """

    digest: Digest
    name: str
    version: int
    format: str = ""
    metrics: Mapping[str, Any] = {}
    signature: Signature | None = None
    gaps: Sequence[Gap] = ()
    maker: Digest | None = None
    history: Callable[[], History] = lambda: History()
    evaluation: Callable[[], Evaluation | None] = lambda: None
    verified: Callable[[], CheckResult | None] = lambda: None
    by: str = ""
    on_behalf_of: str = ""
    approvals: Callable[[], Sequence[CheckResult]] = lambda: ()

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a check may ask for besides its subject.

    Attributes
    ----------
    holder
        Gives the version that an alias of the same model points to now.
    """

    holder: Callable[[str], Candidate | None] = lambda _: None
    seed: int = 0
    resamples: int = 2000


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, with what was demanded and found in words, and the numbers behind it."""

    passed: bool
    demanded: str
    found: str
    evidence: dict[str, Any] = {}
    next: str = ""


class Check(Protocol):
    """A question asked of a model version."""

    name: str
    """Its spelling as a gate."""

    def __call__(self, subject: Candidate, context: Context) -> Verdict:
        """Answer; raise nothing for a model that merely lacks something: that is a refusal with its reason."""
        ...


_METRIC: Final = r"(?P<metric>[A-Za-z_][A-Za-z0-9_./-]{0,79}?)"
_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_THRESHOLD: Final = re.compile(rf"{_METRIC}\s*(?P<op>>=|<=|>|<)\s*(?P<value>{_NUMBER})")
_BETTER: Final = re.compile(
    rf"{_METRIC}\s*(?P<op>>=|<=|>|<)\s*@(?P<alias>[A-Za-z][A-Za-z0-9_-]{{0,99}}?)\s*(?P<margin>[+-]\s*{_NUMBER})?"
)
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}(?::[^\s\x00-\x1f]{1,200})?")
_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


def parse_gate(text: str, providers: Mapping[str, Callable[[str], Check]] | None = None) -> Check:
    """Read a gate's spelling.

    Parameters
    ----------
    providers
        Further checks by name; each is called with what follows the colon in ``name:argument``.

    Raises
    ------
    GateInvalid
        The spelling can not be read.

    >>> parse_gate("rmse <= 3.5").name
    'rmse<=3.5'
    >>> parse_gate("auc>@production+0.01")
    Better('auc>@production+0.01')
    """
    text = text.strip()
    if found := _BETTER.fullmatch(text):
        margin = (found["margin"] or "0").replace(" ", "")
        return Better(found["metric"], found["op"], found["alias"], float(margin), text)
    if found := _THRESHOLD.fullmatch(text):
        return Threshold(found["metric"], found["op"], float(found["value"]))
    if _NAME.fullmatch(text):
        name, _, argument = text.partition(":")
        if name in _NAMED and not argument:
            return _Named(name)
        if name == "approved":
            return Approved(argument)
        if providers and name in providers:
            return providers[name](argument)
        known = ", ".join(sorted({*_NAMED, "approved", *(providers or ())}))
        raise GateInvalid(
            f"there is no check {text[:60]!r}",
            next=f"known: {known}; or write a metric and what is demanded of it, as in accuracy>=0.8",
        )
    raise GateInvalid(
        f"the gate {text[:80]!r} can not be read",
        next="write accuracy>=0.8, auc>@production+0.01, or the name of a check: "
        + ", ".join(sorted({*_NAMED, "approved"})),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _no_metric(subject: Candidate, metric: str) -> str:
    if metric in subject.metrics:
        return f"{metric} is {str(subject.metrics[metric])[:40]}, which is no number"
    known = ", ".join(sorted(subject.metrics)[:12]) or "none"
    return f"{metric} was not recorded (recorded: {known})"


class Threshold:
    """A metric held against a number."""

    def __init__(self, metric: str, op: str, value: float) -> None:
        self.metric, self.op, self.value = metric, op, value
        self.name = f"{metric}{op}{value:.12g}"

    def __repr__(self) -> str:
        return f"Threshold({self.name!r})"

    def __call__(self, subject: Candidate, context: Context) -> Verdict:  # noqa: ARG002
        demanded = f"{self.metric} {self.op} {self.value:.12g}"
        value = _number(subject.metrics.get(self.metric))
        if value is None:
            return Verdict(
                passed=False,
                demanded=demanded,
                found=_no_metric(subject, self.metric),
                next=f"log_metric({self.metric!r}, …) before registering, or register with --evaluation",
            )
        return Verdict(
            passed=_OPERATORS[self.op](value, self.value),
            demanded=demanded,
            found=f"{value:.6g}",
            evidence={"metric": self.metric, "value": value, "threshold": self.value},
        )


class Better:
    """Better than the version that holds an alias, by a margin.

    Where both versions' predictions of the same rows are known, the paired bootstrap interval of the difference must
    lie beyond the margin as a whole: a challenger that is better by luck does not pass. Else the recorded numbers are
    compared, and the answer says that it has no interval.
    """

    def __init__(self, metric: str, op: str, alias: str, margin: float = 0.0, name: str = "") -> None:
        sign = 1 if op.startswith(">") else -1
        known = direction(metric)
        if known and known != sign:
            word, right = ("less", "<") if known < 0 else ("more", ">")
            raise GateInvalid(
                f"the gate {name or metric!r} asks for a worse model", cause=f"{word} of {metric} is better",
                next=f"write {metric}{right}@{alias}",
            )  # fmt: skip
        self.metric, self.op, self.alias, self.sign = metric, op, alias, sign
        self.margin = sign * margin
        """By how much it must be better; negative: by how much it may be worse."""
        self.name = f"{metric}{op}@{alias}" + (f"{margin:+.12g}" if margin else "")

    def __repr__(self) -> str:
        return f"Better({self.name!r})"

    def __call__(self, subject: Candidate, context: Context) -> Verdict:
        holder = context.holder(self.alias)
        word = "better" if self.margin >= 0 else "no worse"
        by = f" by {'at least' if '=' in self.op else 'more than'} {abs(self.margin):.12g}" if self.margin else ""
        demanded = f"{self.metric} {word} than @{self.alias}'s{by}"
        if holder is None:
            return Verdict(passed=True, demanded=demanded, found=f"nothing holds @{self.alias} yet")
        if holder.digest == subject.digest:
            return Verdict(passed=True, demanded=demanded, found=f"it holds @{self.alias} itself")
        demanded = demanded.replace(f"@{self.alias}'s", f"@{self.alias} ({holder.label})")
        paired = self._paired(subject, holder, context)
        if paired is not None:
            return msgspec.structs.replace(paired, demanded=demanded)
        return self._by_point(subject, holder, demanded)

    def _paired(self, subject: Candidate, holder: Candidate, context: Context) -> Verdict | None:
        one, other = subject.evaluation(), holder.evaluation()
        if one is None or other is None or not one.rows or one.rows != other.rows:
            return None
        interval = bootstrap(self.metric, one, other, sign=self.sign, seed=context.seed, resamples=context.resamples)
        if interval is None:
            return None
        passed = interval.low >= self.margin if "=" in self.op else interval.low > self.margin
        found = (
            f"{interval.difference:+.4g} better, {interval.level:.0%} interval "
            f"[{interval.low:+.4g}, {interval.high:+.4g}] over {interval.rows:,} rows"
        )
        if not passed and interval.difference > self.margin:
            found += ": that may be luck"
        return Verdict(
            passed=passed, demanded="", found=found,
            evidence={"metric": self.metric, "holder": holder.digest, "margin": self.margin,
                      **msgspec.structs.asdict(interval)},
        )  # fmt: skip

    def _by_point(self, subject: Candidate, holder: Candidate, demanded: str) -> Verdict:
        for candidate in (subject, holder):
            if _number(candidate.metrics.get(self.metric)) is None:
                return Verdict(
                    passed=False,
                    demanded=demanded,
                    found=f"{candidate.label}: {_no_metric(candidate, self.metric)}",
                    next="register with --evaluation, so that the two can be held against each other",
                )
        mine, theirs = float(subject.metrics[self.metric]), float(holder.metrics[self.metric])
        difference = self.sign * (mine - theirs)
        return Verdict(
            passed=difference >= self.margin if "=" in self.op else difference > self.margin,
            demanded=demanded,
            found=f"{mine:.6g} against {theirs:.6g}, {_why_no_interval(self.metric, subject, holder)}",
            evidence={"metric": self.metric, "value": mine, "holder": holder.digest, "holder_value": theirs,
                      "difference": difference, "margin": self.margin, "interval": None},
            next="register both with --evaluation on the same rows for an interval",
        )  # fmt: skip


def _why_no_interval(metric: str, subject: Candidate, holder: Candidate) -> str:
    one, other = subject.evaluation(), holder.evaluation()
    if one is None or other is None:
        lacking = subject if one is None else holder
        return f"no interval: no predictions are recorded of {lacking.label}"
    if one.rows != other.rows:
        return "no interval: the two were evaluated on different rows"
    if statistic(metric, one) is None or statistic(metric, other) is None:
        return f"no interval: {metric} can not be computed from the recorded predictions"
    return "no interval: it is undefined on too many resamples"


class Approved:
    """So many people approved exactly this version, the one who registered it, or for whom that was done, not counted.

    People are told apart by the names they act under: where everybody works under one account there is nobody else.
    """

    def __init__(self, count: str = "") -> None:
        if count and not (count.isascii() and count.isdecimal() and 0 < int(count) <= 100):
            raise GateInvalid(f"the gate 'approved:{count[:20]}' can not be read", next="write approved, or approved:2")
        self.count = int(count or 1)
        self.name = "approved" if self.count == 1 else f"approved:{self.count}"

    def __repr__(self) -> str:
        return f"Approved({self.name!r})"

    def __call__(self, subject: Candidate, context: Context) -> Verdict:  # noqa: ARG002
        said, authors = subject.approvals(), {subject.by, subject.on_behalf_of} - {""}
        given = sorted({one.by for one in said if one.passed and one.by and one.by not in authors})
        own = {one.by for one in said if one.passed and one.by in authors}
        found = f"approved by {', '.join(given)}" if given else "nobody else has approved it"
        if subject.by in own:
            found += f"; {subject.by} registered it, and does not count"
        if subject.on_behalf_of in own - {subject.by}:
            found += f"; it was registered on behalf of {subject.on_behalf_of}, who does not count"
        others = "somebody" if self.count == 1 else f"{self.count} people"
        return Verdict(
            passed=len(given) >= self.count, demanded=f"approved by {others} other than {subject.by or 'its author'}",
            found=found, evidence={"approvals": given},
            next="" if len(given) >= self.count else f"have somebody else type: mlops approve {subject.label}",
        )  # fmt: skip


# -- checks by name --------------------------------------------------------------------------------------------------


class _Named:
    """One of the checks that a name is enough for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"parse_gate({self.name!r})"

    def __call__(self, subject: Candidate, context: Context) -> Verdict:  # noqa: ARG002
        return _NAMED[self.name](subject)


def _signature(subject: Candidate) -> Verdict:
    demanded = "what it takes and gives is known"
    if subject.signature is None:
        why = next((gap.reason for gap in subject.gaps if gap.subject == "signature"), "no signature is recorded")
        return Verdict(
            passed=False, demanded=demanded, found=why, next=f"mlops register MODEL {subject.name} --data X,y"
        )
    taken = len(subject.signature.inputs)
    found = f"{taken} column{'s' * (taken != 1)} in, {len(subject.signature.outputs) or 'unknown'} out"
    if subject.signature.source:
        found += f" ({subject.signature.source})"
    return Verdict(passed=True, demanded=demanded, found=found, evidence={"inputs": taken})


def _not_pickle(subject: Candidate) -> Verdict:
    return Verdict(
        passed=bool(subject.format) and subject.format not in RUNS_CODE,
        demanded="loading it runs no code",
        found=subject.format or "no format is recorded",
        evidence={"format": subject.format},
        next="register it in a safe format (skops, onnx)" if subject.format in RUNS_CODE else "",
    )


def _history(subject: Candidate) -> Verdict:
    history = subject.history()
    problems = list(_problems(subject, history))
    runs = len(history.ancestors or ())
    if history.ancestors is None:
        found = history.why or "no cell run on record made it"
        next_ = "register it in the notebook that made it"
    elif problems:
        found = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        next_ = "run the notebook from top to bottom (mlops run NB), and register again"
    else:
        found, next_ = f"{runs} cell run{'s' * (runs != 1)}, all done and none stale", ""
    return Verdict(
        passed=history.ancestors is not None and not problems,
        demanded="every cell behind it ended well, on values that still stand",
        found=found,
        evidence={"cell_runs": runs, "problems": problems[:50]},
        next=next_,
    )


def _reproducible(subject: Candidate) -> Verdict:
    demanded = "run again, what made it comes out the same"
    found = subject.verified()
    if found is None:
        return Verdict(
            passed=False, demanded=demanded, found="it was never verified", next=f"mlops verify {subject.label}"
        )
    return Verdict(
        passed=found.passed, demanded=demanded, found=found.summary,
        evidence={"verdict": found.evidence.get("verdict", ""), "environment": found.evidence.get("environment", "")},
        next="" if found.passed else f"mlops verify {subject.label} says where it differs, and why",
    )  # fmt: skip


def _problems(subject: Candidate, history: History) -> Iterable[str]:
    for run in history.ancestors or ():
        if run.status == "running" and run.id == subject.maker:
            yield f"the cell that made it ({short(run.id)}) has not ended yet: ask again in a later cell"
        elif run.status != "done":
            yield f"cell run {short(run.id)} {'is' if run.status == 'running' else 'ended'} {run.status!r}"
        yield from (f"cell run {short(run.id)}: {gap.subject}: {gap.reason}" for gap in run.gaps if gap.blocks)
    yield from (f"{gap.subject}: {gap.reason}" for gap in subject.gaps if gap.blocks)
    yield from stale_inputs(history.ancestors or (), history.others)


def stale_inputs(ancestors: Sequence[CellRun], others: Sequence[CellRun]) -> list[str]:
    """Values that were used and have since been remade differently by the same cell: in words, empty where none.

    A cell run used version *v* of a variable, made by a run of cell *c*. If *c* ran once more afterwards, and
    made another content under that name, then what was built on *v* is out of date. Another cell that gives the name a
    new meaning is no such case: code from top to bottom does that all the time.

    Parameters
    ----------
    ancestors
        The cell runs that led to a model.
    others
        All cell runs of the same runs, in any order.
    """
    by_id = {run.id: run for run in ancestors}
    reruns: dict[tuple[Digest, str], list[CellRun]] = {}
    for run in others:
        reruns.setdefault((run.started.run, _cell(run)), []).append(run)
    said = []
    for user in ancestors:
        for value in user.inputs:
            maker = by_id.get(value.made) if value.made else None
            if maker is None or value.digest is None or maker.started.run != user.started.run:
                continue
            for again in reruns.get((maker.started.run, _cell(maker)), ()):
                remade = next((one for one in again.outputs if one.name == value.name), None)
                if _after(again, user) and remade is not None and remade.digest != value.digest:
                    said.append(
                        f"cell run {short(user.id)} used {value.name!r} as it was before {short(again.id)} made it anew"
                    )
                    break
    return said


def _cell(run: CellRun) -> str:
    return run.started.cell or run.source


def _after(run: CellRun, other: CellRun) -> bool:
    return run.seq > other.seq if run.writer == other.writer else run.time > other.time


_NAMED: Final[Mapping[str, Callable[[Candidate], Verdict]]] = {
    "signature": _signature,
    "history": _history,
    "not-pickle": _not_pickle,
    "reproducible": _reproducible,
}
