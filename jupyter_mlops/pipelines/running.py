"""A pipeline run: each step as soon as all before it are done, where the target says, unless its result is on record.

The pipeline's own run is put on record with the first step that runs, and each step, run or taken over, is a run
inside of it. A pipeline of which nothing has changed leaves no record; that nothing has is remembered (`unchanged`), so
that the next time some looks at `stat` answer for all of it.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines import unchanged
from jupyter_mlops.pipelines.graph import (
    Member,
    NeverRun,
    Observed,
    Pipeline,
    PipelineInvalid,
    files_of,
    latest,
    resolved,
)
from jupyter_mlops.project import Project
from jupyter_mlops.records import Digest, Run, RunEnded, RunStarted
from jupyter_mlops.targets.protocol import Event, Handle, OnEvent, Outcome, Step, Target, tell

if TYPE_CHECKING:
    from jupyter_mlops.pipelines.cache import Answer, Asked, Cache
    from jupyter_mlops.pipelines.parameters import Parameter

_TICK: Final = 0.25


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How a pipeline is to be run.

    Attributes
    ----------
    steps
        The steps that are wanted, with all that come before them; all where none are named.
    target
        Where.
    cache, timeout, cell_timeout, retries
        For each step that does not say otherwise.
    keep_going
        Go on with what does not need a step that failed.
    parameters
        Values over those of the file, by step and name: see `parameters_of`.
    live
        Whether what cells print is told of as they print it.
    """

    steps: tuple[str, ...] = ()
    target: str = "local"
    cache: str = "notebook"
    timeout: float | None = None
    cell_timeout: float | None = None
    retries: int = 0
    keep_going: bool = False
    parameters: dict[str, dict[str, Any]] = {}
    live: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a pipeline.

    Attributes
    ----------
    run
        The pipeline's own run; None where nothing had changed.
    status
        ``done``, ``failed``, ``interrupted``, or ``cached`` where nothing had changed.
    seconds
        How long it took.
    outcomes
        By step, in order; ``skipped`` where a step before it failed.
    """

    run: Digest | None
    status: str
    seconds: float
    outcomes: dict[str, Outcome]

    @property
    def ok(self) -> bool:
        return self.status in ("done", "cached")


def run_pipeline(
    project: Project, pipeline: Pipeline, wanted: Wanted, *, on_event: OnEvent | None = None,
    open_target: Callable[[str, Project], Target] | None = None,
) -> Result:  # fmt: skip
    """Run a pipeline.

    Parameters
    ----------
    project
        Where it is recorded.
    pipeline
        What to run.
    wanted
        How.
    on_event
        Told of each step's events.
    open_target
        Opens a target by its name, when the first step is to run.

    Raises
    ------
    PipelineInvalid
        A step or parameter is named that there is not.
    NotebookUnreadable, ParametersInvalid, OutputRefused
        A step cannot be run as it stands: nothing was.
    TargetMissing, TargetInvalid
        The target cannot be used.
    KeyboardInterrupt
        It was interrupted: steps under way are ended, and all is on record.
    """
    from jupyter_mlops.pipelines.cache import Cache
    from jupyter_mlops.pipelines.job import Stop

    if open_target is None:
        from jupyter_mlops.targets import open_target as opened

        open_target = opened
    with Cache(project) as cache, Stop() as stop:
        one = _Running(project, pipeline, wanted, cache, on_event, open_target)
        result = one.go(stop)
    stop.pass_on()
    return result


class _Running:
    """One pipeline on its way."""

    def __init__(
        self, project: Project, pipeline: Pipeline, wanted: Wanted, cache: Cache, on_event: OnEvent | None,
        open_target: Callable[[str, Project], Target],
    ) -> None:  # fmt: skip
        self.project, self.pipeline, self.wanted, self.cache = project, pipeline, wanted, cache
        self.on_event, self.open_target = on_event, open_target
        self.names = pipeline.needed(wanted.steps)
        self.given = {
            name: {**pipeline.steps[name].parameters, **wanted.parameters.get(name, {})} for name in self.names
        }
        self.outcomes: dict[str, Outcome] = {}
        self.under_way: dict[concurrent.futures.Future[Outcome], tuple[str, Handle]] = {}
        self.run: Digest | None = None
        self.target: Target | None = None
        self.taken: list[tuple[str, Step, Answer]] = []
        self.began = time.monotonic()

    def go(self, stop: Any) -> Result:
        """Run it to its end."""
        try:
            self._check()
            while not stop.signum:
                started = self._start_what_can()
                if not self.under_way:
                    if started:
                        continue
                    break
                done, _ = concurrent.futures.wait(
                    self.under_way, timeout=_TICK, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    name, _ = self.under_way.pop(future)
                    self._ended(name, future.result())
            # The last first: those that wait for their turn are not to get it.
            for name, handle in reversed(list(self.under_way.values())):
                self._ended(name, handle.kill())
        except BaseException as error:  # whatever it is, no step goes on without us, and the run ends on record
            self._close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", type(error).__name__)
            raise
        return self._result(interrupted=bool(stop.signum))

    def _check(self) -> None:
        """See that every step can be run as it stands, before any is."""
        from jupyter_mlops.pipelines.runs import checked

        for name in self.names:
            member = self.pipeline.steps[name]
            given = self.given[name]
            known = {key: value for key, value in given.items() if not _refers(value)}
            output = (
                self._output(member) if len(known) == len(given) else None
            )  # its name may be made of values to come
            checked(self._notebook(member), output, known, self.project)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _start_what_can(self) -> bool:
        """Take over or start each step whose turn it is; whether there was one."""
        failed = any(not one.ok for one in self.outcomes.values())
        moved = False
        busy = {name for name, _ in self.under_way.values()}
        for name in self.names:
            if name in self.outcomes or name in busy:
                continue
            before = [self.outcomes.get(one) for one in self.pipeline.before(name)]
            bad = next(
                (one for one in self.pipeline.before(name) if one in self.outcomes and not self.outcomes[one].ok), ""
            )
            if bad or (failed and not self.wanted.keep_going):
                cause = f"{bad} before it did not succeed" if bad else "another step did not succeed"
                self.outcomes[name] = Outcome(status="skipped", cause=cause, attempts=0)
                moved = True
            elif all(one is not None for one in before):
                self._start(name)
                moved = True
        return moved

    def _start(self, name: str) -> None:
        member = self.pipeline.steps[name]
        try:
            parameters = resolved(self.given[name], {one: outcome.values for one, outcome in self.outcomes.items()})
            step = self._step(name, member, parameters)
        except MlopsError as error:
            self._ended(name, Outcome(status="refused", cause=str(error), attempts=0))
            return
        if step.cache == "notebook" and not step.secrets:
            began = time.monotonic()
            asked = self._asked(step, member)
            answer = self.cache.answer(asked)
            if answer.run is not None:
                back = self.cache.put_back(answer)
                self._took_over(name, step, answer, back, began)
                return
        self._begin()
        assert self.run is not None
        if self.target is None:
            self.target = self.open_target(self.wanted.target, self.project)
        step = msgspec.structs.replace(step, parent=self.run)
        from jupyter_mlops.pipelines.steps import PERFORM

        handle = self.target.submit(step, self.project, PERFORM, self.on_event)
        self.under_way[handle.future] = (name, handle)

    def _took_over(self, name: str, step: Step, answer: Answer, back: Sequence[str], began: float) -> None:
        from jupyter_mlops.pipelines.steps import logged

        metrics, values = logged(self.project, answer.run) if self._gives(name) else ({}, {})
        self._ended(
            name,
            Outcome(
                status="cached", run=answer.run, output=step.output, seconds=time.monotonic() - began, metrics=metrics,
                values={**values, **metrics}, put_back=list(back), notes=answer.notes, attempts=0,
            ),
        )  # fmt: skip
        self.taken.append((name, step, answer))
        if back:
            self._begin()
        if self.run is not None:
            self._record_taken()

    def _ended(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        self.cache.forget()  # whatever ran has written files
        if outcome.attempts == 0:  # no target has told of it
            tell(self.on_event, Event(kind="ended", step=name, run=outcome.run, text=outcome.status))

    def _gives(self, name: str) -> bool:
        """Whether a later step takes a value of this one."""
        return any(one.before == name and any("." in what for what in one.what) for one in self.pipeline.ties)

    def _step(self, name: str, member: Member, parameters: dict[str, Any]) -> Step:
        from jupyter_mlops.pipelines.steps import step_of

        wanted = self.wanted
        return step_of(
            self.project, self._notebook(member), output=self._output(member), parameters=parameters, name=name,
            kernel=member.kernel, cache=member.cache or wanted.cache,
            timeout=wanted.timeout if member.timeout is None else member.timeout,
            cell_timeout=wanted.cell_timeout if member.cell_timeout is None else member.cell_timeout,
            retries=wanted.retries if member.retries is None else member.retries,
            reads=[self._inside(one) for one in member.reads], live=wanted.live,
        )  # fmt: skip

    def _asked(self, step: Step, member: Member) -> Asked:
        from jupyter_mlops.pipelines.runs import asked_of

        return asked_of(
            self.project, self._notebook(member), self.project.root / step.output, step.parameters, step.kernel or None
        )

    def _inside(self, name: str) -> str:
        from jupyter_mlops.pipelines.steps import inside

        return inside(self.project, self.pipeline.folder / name) + ("/" if name.endswith("/") else "")

    def _notebook(self, member: Member) -> Path:
        return self.pipeline.folder / member.notebook

    def _output(self, member: Member) -> Path | None:
        return self.pipeline.folder / member.output if member.output else None

    # -- the record --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Put the pipeline's run on record, and the steps taken over so far."""
        if self.run is None:
            from jupyter_mlops.pipelines.parameters import Secret

            file = self.pipeline.file
            given = {
                f"{step}.{name}": "<redacted>" if isinstance(value, Secret) else value
                for step, some in self.wanted.parameters.items()
                for name, value in some.items()
            }
            self.run = self.project.store.append(
                RunStarted(
                    trigger="pipeline", notebook="" if file is None else self.project.relative(file),
                    parameters=self.project.redactor().value(given)[0], user=self.project.user,
                    folder=self.project.relative(self.pipeline.folder), on_behalf_of=self.project.on_behalf_of,
                )
            )  # fmt: skip
        self._record_taken()

    def _record_taken(self) -> None:
        taken, self.taken = self.taken, []
        for name, step, answer in taken:
            redactor = self.project.redactor()
            begun = self.project.store.append(
                RunStarted(
                    trigger="pipeline", notebook=step.notebook, parameters=redactor.value(step.parameters)[0],
                    user=self.project.user, parent=self.run, on_behalf_of=self.project.on_behalf_of,
                )
            )  # fmt: skip
            seconds = round(self.outcomes[name].seconds, 6)
            self.project.store.append(RunEnded(run=begun, status="cached", same_as=answer.run, seconds=seconds))

    def _close(self, status: str, error: str = "") -> None:
        for _, handle in reversed(list(self.under_way.values())):
            handle.kill()
        if self.target is not None:
            self.target.close()
            self.target = None
        if self.run is not None:
            seconds = round(time.monotonic() - self.began, 6)
            masked = self.project.redactor().text(error)[0][:2000]
            self.project.store.append(RunEnded(run=self.run, status=status, seconds=seconds, error=masked))
            self.project.store.durable(timeout=2.0)

    def _result(self, *, interrupted: bool) -> Result:
        outcomes = {name: self.outcomes[name] for name in self.names if name in self.outcomes}
        bad = [f"{name}: {one.why}" for name, one in outcomes.items() if not one.ok and one.status != "skipped"]
        status = "interrupted" if interrupted else "failed" if bad else "done"
        if self.run is None and not bad and all(one.status == "cached" for one in outcomes.values()):
            status = "cached"
            unchanged.remember(self.project, self.pipeline, self.wanted, self.cache, outcomes)
        self._close(status, "; ".join(bad))
        return Result(run=self.run, status=status, seconds=time.monotonic() - self.began, outcomes=outcomes)


def _refers(value: Any) -> bool:
    from jupyter_mlops.pipelines.graph import references

    return next(references({"": value}), None) is not None


def parameters_of(
    pipeline: Pipeline, pairs: Iterable[tuple[str, str]], environ: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Read what a shell says: ``step.name`` and a word, or ``name`` and a word for each step that takes it.

    Raises
    ------
    PipelineInvalid
        It is for no step.
    ParametersInvalid
        A word cannot be read as the notebook declares.
    """
    from jupyter_mlops.pipelines.words import read_parameters

    found: dict[str, dict[str, Any]] = {}
    for _, step, name, word in _meant(pipeline, pairs):
        notebook = pipeline.folder / pipeline.steps[step].notebook
        found.setdefault(step, {}).update(read_parameters(notebook, [(name, word)], environ=environ))
    return found


def secrets_said(pipeline: Pipeline, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """What among these is a secret of some step, and stands there as it is; as it is named there.

    Raises
    ------
    PipelineInvalid
        One is for no step.
    """
    from jupyter_mlops.pipelines.words import secrets_among

    said = (
        key for key, step, name, word in _meant(pipeline, pairs)
        if secrets_among(pipeline.folder / pipeline.steps[step].notebook, [(name, word)])
    )  # fmt: skip
    return list(dict.fromkeys(said))


def _meant(pipeline: Pipeline, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """What a shell says, for each step that it is for: as it is named there, the step, the parameter, the word."""
    from jupyter_mlops.pipelines.parameters import inspect_parameters

    declared: dict[str, list[Parameter]] = {}
    for key, word in pairs:
        if not declared:
            declared = {
                name: inspect_parameters(pipeline.folder / one.notebook) for name, one in pipeline.steps.items()
            }
        step, dot, name = key.rpartition(".")
        if dot:
            pipeline.needed([step])  # says so where there is no such step
        meant = [step] if dot else [one for one, known in declared.items() if name in {each.name for each in known}]
        if not meant:
            raise PipelineInvalid(f"no step takes a parameter {key!r}", next="say which: -p STEP.NAME VALUE")
        for one in meant:
            yield key, one, name, word


# -- how it stands ---------------------------------------------------------------------------------------------------

_FAR: Final = 2000
"""Runs that are looked through for the last one of each notebook."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How a step stands.

    Attributes
    ----------
    current
        Whether its result is on record and nothing it follows from has changed.
    why
        Why it is not.
    last
        Its notebook's last headless run on record.
    """

    current: bool
    why: str = ""
    last: Run | None = None


def states(project: Project, pipeline: Pipeline) -> dict[str, State]:
    """How each step of a pipeline stands; nothing is run, and nothing put back."""
    from jupyter_mlops.pipelines.cache import Cache
    from jupyter_mlops.pipelines.runs import asked_of
    from jupyter_mlops.pipelines.steps import logged, step_of

    last: dict[str, Run] = {}
    for run in project.store.runs(limit=_FAR):
        if run.started.trigger not in ("session", "pipeline"):
            last.setdefault(run.started.notebook, run)
    found: dict[str, State] = {}
    values: dict[str, dict[str, Any]] = {}
    with Cache(project) as cache:
        for name, member in pipeline.steps.items():
            path = pipeline.folder / member.notebook
            ran = last.get(project.relative(path))
            due = next((one for one in pipeline.before(name) if not found[one].current), "")
            why = f"{due} before it is to run" if due else ""
            if not why:
                try:
                    output = pipeline.folder / member.output if member.output else None
                    given = resolved(member.parameters, values)
                    step = step_of(project, path, output=output, parameters=given, name=name, kernel=member.kernel)
                    asked = asked_of(project, path, project.root / step.output, given, member.kernel or None)
                    answer = cache.answer(asked)
                    why = answer.why
                    metrics, said = logged(project, answer.run)
                    values[name] = {**said, **metrics}
                except MlopsError as error:
                    why = str(error)
            found[name] = State(current=not why, why=why, last=ran)
    return found


def is_output(project: Project, notebook: Path) -> bool:
    """Whether a notebook is one that a headless run has left, and was never run itself."""
    from jupyter_mlops.pipelines.parameters import read_notebook

    left = (read_notebook(notebook).get("metadata") or {}).get("papermill")
    return bool(left) and not project.store.cell_runs(notebook=project.relative(notebook), limit=1)


def observed(project: Project, notebook: Path) -> Observed:
    """What a notebook was seen to do, in its last headless run that got to its end, or failing that its last session.

    Raises
    ------
    NeverRun
        It is on no record.
    NotebookUnreadable
        There is no such notebook.
    """
    from jupyter_mlops.pipelines.basis import Doings
    from jupyter_mlops.pipelines.parameters import read_notebook

    read_notebook(notebook)
    name = project.relative(notebook)
    seen = latest(project.store.cell_runs(notebook=name, limit=_FAR), project.store.run)
    if seen is None:
        raise NeverRun(
            f"{name} was never run on record", cause="what it reads and writes is found from that",
            next=f"mlops run {name} --cache notebook",
        )  # fmt: skip
    run, cells = seen
    doings = Doings()
    for one in cells:
        doings.take(one)
    return Observed(
        notebook=notebook, run=run, reads=files_of(doings.read.values()),
        writes=files_of(doings.wrote.values()),
    )  # fmt: skip
