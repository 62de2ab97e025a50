"""Sweeps: one notebook over many parameters, in parallel, in one table.

A sweep is a run on record, and each of its points a run that names it as its parent. So a sweep that was cut off is
found again: what it has done is taken over, as long as the notebook's code and kernel are what they were.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import random
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from blake3 import blake3

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.pipelines.engine import NO_CELL, NO_CELL_NEXT
from jupyter_mlops.pipelines.parameters import (
    Parameter,
    ParametersInvalid,
    code_cells,
    declared,
    read_notebook,
    source_of,
    validate,
)
from jupyter_mlops.pipelines.secret import placeholders, split
from jupyter_mlops.pipelines.steps import PERFORM, inside, logged, step_of
from jupyter_mlops.pipelines.words import from_environment, parse_parameter, read_parameters
from jupyter_mlops.project import Project
from jupyter_mlops.records import Digest, Run, RunEnded, RunStarted, Ticket, encode
from jupyter_mlops.targets.protocol import Event, OnEvent, Outcome, Target, tell

if TYPE_CHECKING:
    import pandas as pd

TRIGGER: Final = "sweep"
_MOST: Final = 10_000
_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE: Final = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(lin|log))?(?::(\d{{1,5}}))?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_+.-]{1,40}")


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """What one parameter goes over.

    Attributes
    ----------
    name
        The parameter.
    values
        Its values on a grid; empty where there are only bounds.
    low, high
        Its bounds, both inclusive, where it is a range.
    log
        Whether it is spaced, and drawn, by its logarithm.
    whole
        Whether it takes whole numbers only.
    """

    name: str
    values: list[Any] = []
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False

    def drawn(self, chance: random.Random) -> Any:
        """One value, at random."""
        if self.low is None or self.high is None:
            return chance.choice(self.values)
        if self.whole and not self.log:
            return chance.randint(int(self.low), int(self.high))
        if self.log:
            found = math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        else:
            found = chance.uniform(self.low, self.high)
        found = min(max(found, self.low), self.high)
        return round(found) if self.whole else found


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a sweep.

    Attributes
    ----------
    name
        What it is called, and its notebook: what it was given.
    parameters
        What it was given; of secrets what stands for them on record.
    outcome
        What came of it.
    kept
        Whether it was taken over from an earlier sweep that was cut off.
    """

    name: str
    parameters: dict[str, Any]
    outcome: Outcome
    kept: bool = False


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a sweep.

    Attributes
    ----------
    run
        The sweep's run on record.
    notebook
        The notebook, as records spell it.
    points
        Its runs, in the order of their parameters.
    seconds
        How long it took.
    best
        The place in `points` of the best, where that was asked for and there is one.
    """

    run: Digest
    notebook: str
    points: list[Point]
    seconds: float
    best: int | None = None

    @property
    def ok(self) -> bool:
        """Whether every point came to its result."""
        return all(one.outcome.ok for one in self.points)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a point: parameters, metrics, seconds, status, notebook, run."""
        names = list(dict.fromkeys(name for one in self.points for name in one.parameters))
        metrics = sorted({name for one in self.points for name in one.outcome.metrics})
        # A metric may have a parameter's name.
        columns = {name: name if name not in names else f"{name} (metric)" for name in metrics}
        return [
            {name: one.parameters.get(name) for name in names}
            | {column: one.outcome.metrics.get(name) for name, column in columns.items()}
            | {
                "seconds": one.outcome.seconds,
                "status": "kept" if one.kept else one.outcome.status,
                "notebook": one.outcome.output,
                "run": one.outcome.run,
                "why": one.outcome.why,
            }
            for one in self.points
        ]

    def frame(self) -> pd.DataFrame:
        """The table as a DataFrame; the best row's number is in its ``attrs``."""
        import pandas as pd

        frame = pd.DataFrame(self.rows())
        frame.attrs.update({"run": self.run, "best": self.best})
        return frame


# -- what it goes over -----------------------------------------------------------------------------------------------


def read_axis(name: str, words: str, known: Sequence[Parameter] | None) -> Axis:
    """Read what a parameter goes over: ``3,5,7``, ``1..9``, ``0..1:5``, ``0.01..0.3:log:5``, or one value.

    Parameters
    ----------
    name, words
        The parameter, and what was written after its name.
    known
        What the notebook declares.

    Raises
    ------
    ParametersInvalid
        The notebook does not take that, or a range can not be read.

    Examples
    --------
    >>> read_axis("depth", "3,5,7", None).values
    [3, 5, 7]
    >>> [round(one, 3) for one in read_axis("rate", "0.01..1:log:3", None).values]
    [0.01, 0.1, 1.0]
    >>> read_axis("n", "1..4", None).values
    [1, 2, 3, 4]
    """
    type_ = next((one.type for one in known or () if one.name == name), "")
    found = None if type_ == "str" else _RANGE.fullmatch(words.strip())
    if found is None:
        return Axis(name=name, values=[parse_parameter(name, _unquoted(word), known) for word in _split(words)])
    first, last = (parse_parameter(name, word, known) for word in found.group(1, 2))
    low, high, count = float(first), float(last), int(found[4] or 0)
    whole = type(first) is int and type(last) is int and type_ != "float"
    log = found[3] == "log"
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ParametersInvalid(f"{name}={words} is no range", cause="it begins above its end")
    if log and low <= 0:
        raise ParametersInvalid(f"{name}={words} is no range", cause="the logarithm needs numbers above zero")
    if count == 1 and low != high:
        raise ParametersInvalid(f"{name}={words} is no range", cause="it has two ends, and is to have one value")
    values: list[Any] = []
    if count:
        spaced = [_between(low, high, place / max(1, count - 1), log=log) for place in range(count)]
        values = list(dict.fromkeys(map(round, spaced))) if whole else list(dict.fromkeys(spaced))
    elif whole and not log:
        if high - low >= _MOST:
            raise ParametersInvalid(f"{name}={words} has more than {_MOST} values", next=f"{name}={words}:10 takes ten")
        values = list(range(int(first), int(last) + 1))
    return Axis(name=name, values=values, low=low, high=high, log=log, whole=whole)


def _between(low: float, high: float, share: float, *, log: bool) -> float:
    if share in (0.0, 1.0):
        return (low, high)[int(share)]
    if log:
        # to twelve digits: what stands in a table and in file names is the number that is meant
        return float(f"{math.exp(math.log(low) + share * (math.log(high) - math.log(low))):.12g}")
    return float(f"{low + share * (high - low):.12g}")


def _split(words: str) -> list[str]:
    """Words between commas that stand in no bracket and no quotes.

    >>> _split("3,[1, 2],'a,b'")
    ['3', '[1, 2]', "'a,b'"]
    """
    parts, depth, quote = [""], 0, ""
    for one in words:
        if quote:
            quote = "" if one == quote else quote
        elif one in "'\"":
            quote = one
        elif one in "([{":
            depth += 1
        elif one in ")]}":
            depth -= 1
        if one == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += one
    return parts


def _unquoted(word: str) -> str:
    stripped = word.strip()
    return stripped[1:-1] if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"" else word


def grid(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination, the last axis fastest.

    Raises
    ------
    ParametersInvalid
        An axis is a range of which no number of values is said, or there are too many points.
    """
    for axis in axes:
        if not axis.values:
            raise ParametersInvalid(
                f"how many values {axis.name} takes is not said",
                next=f"{axis.name}={axis.low:g}..{axis.high:g}:{'log:' if axis.log else ''}5 takes five, "
                "--random N draws them",
            )
    if math.prod(len(axis.values) for axis in axes) > _MOST:
        raise ParametersInvalid(f"that is more than {_MOST} runs", next="--random N draws some of them")
    return [
        dict(zip((axis.name for axis in axes), values, strict=True))
        for values in itertools.product(*(axis.values for axis in axes))
    ]


def draw(axes: Sequence[Axis], count: int, seed: int | None) -> list[dict[str, Any]]:
    """So many combinations at random, no two alike; fewer where there are no more.

    Parameters
    ----------
    axes
        What is drawn from: a value of a list, a number of a range.
    count
        How many.
    seed
        Gives the same again.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    found: dict[bytes, dict[str, Any]] = {}
    for _ in range(count * 20):
        point = {axis.name: axis.drawn(chance) for axis in axes}
        found.setdefault(encode(point, sort=True), point)
        if len(found) == count:
            break
    return list(found.values())


# -- running it ------------------------------------------------------------------------------------------------------


def sweep(
    notebook: Path, words: Mapping[str, str], *, project: Project, target: Target,
    fixed: Mapping[str, Any] | None = None, count: int | None = None, seed: int | None = None, best: str = "",
    folder: Path | None = None, fresh: bool = False, fail_fast: bool = False, progress: bool = False,
    on_event: OnEvent | None = None, **rest: Any,
) -> Sweep:  # fmt: skip
    """Run a notebook over many parameters.

    Parameters
    ----------
    notebook
        The notebook.
    words
        What each parameter goes over; see `read_axis`. ``@env:NAME`` is one secret value, from the environment.
    project
        Where it is recorded.
    target
        Where it runs.
    fixed
        Further parameters, the same for each run; a `Secret` is kept nowhere.
    count, seed
        Draw so many combinations at random, instead of all there are.
    best
        A metric: which point has the largest; with ``:min`` after it, the smallest.
    folder
        Where the executed notebooks go; ``NAME.sweep`` beside the notebook unless given.
    fresh
        Take nothing over from a sweep that was cut off.
    fail_fast
        End what is under way when one fails.
    progress
        Show a bar on standard error.
    on_event
        Told of each event of each run.
    rest
        Further fields of each step, as ``retries``.

    Raises
    ------
    NotebookUnreadable, ParametersInvalid, OutputRefused
        It can not be run; nothing has run.
    KeyboardInterrupt
        It was interrupted; what is done is on record, and is taken over the next time.
    """
    began = time.monotonic()
    _best((), best)
    book = read_notebook(notebook)
    known = declared(book)
    if known is None:
        raise ParametersInvalid(NO_CELL, next=NO_CELL_NEXT)
    taken = read_parameters(
        notebook, [one for one in words.items() if from_environment(one[1])], environ=project.environ
    )
    axes = [read_axis(name, text, known) for name, text in words.items() if name not in taken]
    points = [{**(fixed or {}), **taken, **one} for one in (grid(axes) if count is None else draw(axes, count, seed))]
    for one in points:
        validate(one, known)
    seen, hidden = _told_apart(project, points, known, axes)
    place = folder if folder is not None else notebook.with_name(f"{notebook.stem}.sweep")
    place.mkdir(parents=True, exist_ok=True)
    names = _file_names(seen, [one.name for one in axes if one.name not in hidden])
    steps = [
        step_of(project, notebook, output=place / f"{name}.ipynb", parameters=point, name=name, **rest)
        for name, point in zip(names, points, strict=True)
    ]
    where = inside(project, notebook)
    key = _key(book, str(rest.get("kernel", "")))
    done = {} if fresh else _taken_over(project, where, key)
    run = project.store.append(
        RunStarted(
            trigger=TRIGGER, notebook=where, user=project.user, folder=project.folder,
            on_behalf_of=project.on_behalf_of,
            tickets=[Ticket(id=project.redactor().text(one)[0]) for one in rest.get("tickets", ())],
            parameters=project.redactor().value({"key": key, "points": len(points), "over": {**words, **hidden}})[0],
        )
    )  # fmt: skip
    keys = [encode(one, sort=True) for one in seen]
    # The record does not tell one secret from another.
    kept = {number: done[one] for number, one in enumerate(keys) if one in done and not hidden}
    found: dict[int, Outcome] = {}
    status = "interrupted"
    try:
        wanted = [
            (number, msgspec.structs.replace(one, parent=run)) for number, one in enumerate(steps) if number not in kept
        ]
        tell(on_event, Event(kind="planned", run=run, cell=len(kept), cells=len(points)))
        _run(target, wanted, project, found, len(kept), fail_fast=fail_fast, progress=progress, on_event=on_event)
        status = "done" if all(one.ok for one in found.values()) else "failed"
    finally:
        project.store.append(
            RunEnded(run=run, status=status, seconds=round(time.monotonic() - began, 6), error=_failures(found))
        )
    rows = [
        Point(name=names[number], parameters=one, outcome=kept.get(number) or found[number], kept=number in kept)
        for number, one in enumerate(seen)
    ]
    return Sweep(
        run=run, notebook=where, points=rows, seconds=round(time.monotonic() - began, 6), best=_best(rows, best)
    )


def _told_apart(
    project: Project, points: Sequence[Mapping[str, Any]], known: Sequence[Parameter] | None, axes: Sequence[Axis]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The points as they may be seen, and what stands for the secrets in them, by name.

    Raises
    ------
    ParametersInvalid
        A secret is among what the sweep goes over: names, tables and the record would have to tell its values apart.
    """
    seen: list[dict[str, Any]] = []
    marks: dict[str, str] = {}
    redactor = project.redactor()
    for one in points:
        plain, secret = split(one, known, redactor)
        marks |= placeholders(secret, redactor)
        seen.append({name: marks[name] if name in secret else plain[name] for name in one})
    for axis in axes:
        if axis.name in marks and len(axis.values) != 1:
            raise ParametersInvalid(
                f"{axis.name} is secret, and a sweep can not go over it",
                next=f"give all runs the same one: -p {axis.name}=@env:VARIABLE",
            )
    return seen, marks


def _run(
    target: Target, steps: Iterable[tuple[int, Any]], project: Project, found: dict[int, Outcome], before: int, *,
    fail_fast: bool, progress: bool, on_event: OnEvent | None,
) -> None:  # fmt: skip
    from tqdm import tqdm

    handles = {}
    try:
        for number, step in steps:
            handle = target.submit(step, project, PERFORM, on_event)
            handles[handle.future] = (number, handle)
        with tqdm(
            total=before + len(handles), initial=before, desc="sweep", unit="run", leave=False, file=sys.stderr,
            disable=not progress,
        ) as bar:  # fmt: skip
            for future in concurrent.futures.as_completed(handles):
                found[handles[future][0]] = outcome = future.result()
                bar.update()
                if fail_fast and not outcome.ok:
                    for _, handle in reversed(handles.values()):
                        handle.kill()
    except BaseException:
        # Whatever ends the sweep, an interrupt too, ends its runs: nobody is left who waits for them.
        for _, handle in reversed(handles.values()):
            handle.kill()
        raise


def _failures(found: Mapping[int, Outcome]) -> str:
    failed = [one for one in found.values() if not one.ok]
    return f"{len(failed)} of {len(found)} runs: {failed[0].why[:500]}" if failed else ""


def _key(book: Mapping[str, Any], kernel: str) -> str:
    """What a point's result depends on beside its parameters, as far as the notebook says: its code and its kernel."""
    kernel = kernel or str(((book.get("metadata") or {}).get("kernelspec") or {}).get("name") or "")
    code = [kernel, *(source_of(cell) for cell in code_cells(book))]
    return "blake3:" + blake3(encode(code)).hexdigest()


def _taken_over(project: Project, notebook: str, key: str) -> dict[bytes, Outcome]:
    """What the latest sweeps of this notebook have done, back to one that came to its end."""
    found: dict[bytes, Outcome] = {}
    store = project.store
    sweeps: dict[Digest, list[Run]] = {}
    for run in store.runs():
        if run.started.parent is not None:
            sweeps.setdefault(run.started.parent, []).append(run)
    for one in store.runs():
        if one.started.trigger != TRIGGER or one.started.notebook != notebook:
            continue
        if one.started.parameters.get("key") != key or one.status == "done":
            break
        for run in sweeps.get(one.id, ()):
            if run.status == "done" and run.ended is not None and run.ended.outputs:
                metrics, values = logged(project, run.id)
                found.setdefault(
                    encode(run.started.parameters, sort=True),
                    Outcome(status="done", run=run.id, output=run.ended.outputs[0].name, seconds=run.ended.seconds,
                            metrics=metrics, values={**values, **metrics}, gaps=run.ended.gaps),
                )  # fmt: skip
    return found


def _best(points: Sequence[Point], wanted: str) -> int | None:
    """The place of the point that is best by a metric; none where no point has it as a number."""
    if not wanted:
        return None
    metric, _, way = wanted.partition(":")
    if way not in ("", "max", "min"):
        raise WrongUse(f"{wanted!r} names no metric", next=f"--best {metric} for the largest, --best {metric}:min")
    rated: dict[int, float] = {}
    for number, one in enumerate(points):
        value = one.outcome.metrics.get(metric)
        if one.outcome.ok and isinstance(value, int | float) and not math.isnan(value):
            rated[number] = float(value)
    if not rated:
        return None
    return (min if way == "min" else max)(rated, key=rated.__getitem__)


def _file_names(points: Sequence[Mapping[str, Any]], words: Iterable[str]) -> list[str]:
    """A name for each point's notebook: its parameters where they fit into one."""
    shown = list(words)
    names = []
    for point in points:
        parts = [f"{name}={point[name]}" for name in shown]
        plain = all(_PLAIN.fullmatch(part.partition("=")[2]) for part in parts)
        name = ",".join(parts) or "run"
        mark = blake3(encode(dict(point))).hexdigest()[:8]
        names.append(name if plain and len(name) <= 100 else f"{re.sub(r'[^A-Za-z0-9_=,.+-]', '_', name)[:80]}-{mark}")
    # Two that are told apart by their types only, or by letters that are alike on some file systems.
    lowered = [name.lower() for name in names]
    return [name if lowered.count(name.lower()) == 1 else f"{name}-{place}" for place, name in enumerate(names)]
