"""Pipelines: notebooks as steps, what passes between them, and the small file that says so.

Nobody has to declare a pipeline: what notebooks read and wrote in the runs on record tells which builds on which
(`infer`). What is found is written down as a file that people read, change and keep under version control (`write`),
and that is what runs (`read`).
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.fingerprints.files import Signature, signature
from jupyter_mlops.objects import replace_file
from jupyter_mlops.pipelines.words import parse_yaml
from jupyter_mlops.records import Artifact, CellRun, Run

NAME: Final = "pipeline.yaml"
"""What a pipeline's file is called unless somebody says otherwise."""
REFERENCE: Final = re.compile(r"\$(\$|\{\s*([A-Za-z_][\w-]*)\.([^\s{}]+)\s*\})")
"""A value that an earlier step gives back, as in ``${prepare.rows}``; ``$$`` is a dollar sign."""
_STEP: Final = re.compile(r"[A-Za-z_][\w-]{0,99}")
_LIMIT: Final = 1 << 20
_CROWD: Final = 12
"""Files of one folder beyond which the folder itself is named."""
_HEAD: Final = (
    "# Notebooks as steps. `reads` and `writes` are what was seen; `after` names the steps that come before.\n"
)


class PipelineInvalid(WrongUse):
    """A pipeline's file cannot be read, or the steps in it cannot be put in an order."""


class NeverRun(MlopsError, LookupError):
    """A notebook is on no record: what it reads and writes is not known."""

    exit_code = 2


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"):
    """A step as the file has it.

    Attributes
    ----------
    notebook
        Its path from the file's folder.
    output
        Where the executed notebook goes; beside the notebook unless given.
    parameters
        Values by name; ``${step.value}`` is what an earlier step gave back.
    after
        Steps that come before it.
    reads, writes
        Files; a folder with all in it where the name ends in ``/``.
    kernel, cache, timeout, cell_timeout, retries
        As for `mlops run`, where this step is to differ from the others.
    """

    notebook: str
    output: str = ""
    parameters: dict[str, Any] = {}
    after: list[str] = []
    reads: list[str] = []
    writes: list[str] = []
    kernel: str = ""
    cache: Literal["", "off", "notebook", "cells"] = ""
    timeout: float | None = None
    cell_timeout: float | None = None
    retries: int | None = None


class Tie(msgspec.Struct, frozen=True):
    """A step that comes before another, and what passes between them: files, values, nothing where only told so."""

    before: str
    after: str
    what: tuple[str, ...] = ()


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in an order in which they can run.

    Attributes
    ----------
    steps
        By name; each after all that come before it.
    ties
        Which comes before which.
    folder
        What paths are relative to.
    file
        The file it was read from, if it was.
    seen
        What `stat` said of the file before it was read, and when.
    """

    steps: dict[str, Member]
    ties: list[Tie] = []
    folder: Path
    file: Path | None = None
    seen: tuple[Signature, int] | None = None

    def before(self, name: str) -> list[str]:
        """The steps right before one."""
        return [tie.before for tie in self.ties if tie.after == name]

    def needed(self, names: Iterable[str]) -> list[str]:
        """These steps and all that come before them, in order; all steps where none are named.

        Raises
        ------
        PipelineInvalid
            There is no such step.
        """
        due = list(names)
        for name in due:
            if name not in self.steps:
                near = _nearest(name, self.steps)
                raise PipelineInvalid(f"there is no step {name!r}{near}", next=f"there are: {', '.join(self.steps)}")
        if not due:
            return list(self.steps)
        found: set[str] = set()
        while due:
            name = due.pop()
            if name not in found:
                found.add(name)
                due += self.before(name)
        return [name for name in self.steps if name in found]


def pipeline_of(steps: Mapping[str, Member], folder: Path, file: Path | None = None) -> Pipeline:
    """Put steps in order by what passes between them.

    Raises
    ------
    PipelineInvalid
        Two write one file, they come before one another in a ring, or one names a step that there is not.
    """
    _one_writer(steps)
    ties: dict[tuple[str, str], list[str]] = {}
    for name, step in steps.items():
        for other in step.after:
            if other not in steps:
                near = _nearest(other, steps)
                raise PipelineInvalid(f"{name} is to come after {other!r}, which is no step{near}")
            if other == name:
                raise PipelineInvalid(f"{name} is to come after itself")
            ties.setdefault((other, name), [])
        for other, value in references(step.parameters):
            if other not in steps or other == name:
                near = _nearest(other, steps)
                raise PipelineInvalid(f"{name} takes ${{{other}.{value}}}, and {other!r} is no other step{near}")
            ties.setdefault((other, name), []).append(f"{other}.{value}")
        for other, writer in steps.items():
            if other != name:
                passed = [read for read in step.reads if any(overlap(read, one) for one in writer.writes)]
                if passed:
                    ties.setdefault((other, name), []).extend(passed)
    order = _ordered(list(steps), ties)
    listed = [Tie(one, other, tuple(dict.fromkeys(what))) for (one, other), what in ties.items()]
    place = {name: number for number, name in enumerate(order)}
    listed.sort(key=lambda tie: (place[tie.after], place[tie.before]))
    return Pipeline(steps={name: steps[name] for name in order}, ties=listed, folder=folder, file=file)


def overlap(one: str, other: str) -> bool:
    """Whether two names of files may mean the same bytes.

    >>> overlap("data/", "data/a.csv"), overlap("data/a.csv", "data/b.csv")
    (True, False)
    """
    return (
        one == other or (one.endswith("/") and other.startswith(one)) or (other.endswith("/") and one.startswith(other))
    )


def references(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The values of other steps that parameters take: step, name."""
    due: list[Any] = list(parameters.values())
    while due:
        value = due.pop()
        if isinstance(value, str):
            yield from ((found[2], found[3]) for found in REFERENCE.finditer(value) if found[2])
        elif isinstance(value, dict):
            due += value.values()
        elif isinstance(value, list):
            due += value


def resolved(parameters: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters with the values of earlier steps in them.

    Raises
    ------
    WrongUse
        A step did not give back what is asked of it.
    """

    def given(step: str, name: str) -> Any:
        known = values.get(step, {})
        if name not in known:
            said = ", ".join(sorted(known)) or "nothing"
            raise WrongUse(
                f"{step} has not given back {name!r}", cause=f"it logged {said}", next=f"in it: log_param({name!r}, …)"
            )
        return known[name]

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item) for item in value]
        if not isinstance(value, str):
            return value
        whole = REFERENCE.fullmatch(value)
        if whole is not None and whole[2]:
            return given(whole[2], whole[3])
        return REFERENCE.sub(lambda found: "$" if found[1] == "$" else str(given(found[2], found[3])), value)

    return {name: put(value) for name, value in parameters.items()}


def _one_writer(steps: Mapping[str, Member]) -> None:
    writers: dict[str, str] = {}
    for name, step in steps.items():
        for one in step.writes:
            for known, other in writers.items():
                if other != name and overlap(one, known):
                    raise PipelineInvalid(
                        f"{one} is written by two steps, {other} and {name}",
                        cause="which of them a reader would get is left to chance",
                        next="have one of them write another file, or make one notebook of them",
                    )
            writers[one] = name


def _ordered(names: Sequence[str], ties: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    """The names, each after all that come before it, else as they stand."""
    before = {name: {one for one, other in ties if other == name} for name in names}
    order: list[str] = []
    left = list(names)
    while left:
        ready = next((name for name in left if not before[name] - set(order)), None)
        if ready is None:
            raise PipelineInvalid("the steps come before one another in a ring", cause=_ring(left, before, ties))
        order.append(ready)
        left.remove(ready)
    return order


def _ring(
    left: Sequence[str], before: Mapping[str, set[str]], ties: Mapping[tuple[str, str], Sequence[str]]
) -> str:  # fmt: skip
    """One ring among steps of which each waits for another, in words."""
    way = [left[0]]
    while way.count(way[-1]) < 2:
        way.append(min(one for one in before[way[-1]] if one in left))
    ring = way[way.index(way[-1]) :][::-1]
    parts = [ring[0]]
    for one, other in itertools.pairwise(ring):
        what = ", ".join(list(ties[one, other])[:3])
        parts.append(f"{other} ({what})" if what else other)
    return " → ".join(parts)


# -- the file --------------------------------------------------------------------------------------------------------


def read(path: Path) -> Pipeline:
    """Read a pipeline's file.

    Raises
    ------
    PipelineInvalid
        There is no such file, it is no YAML, a key is unknown or has a value of a wrong type, or the steps cannot be
        put in an order.
    """
    try:
        with path.open("rb") as file:
            at = time.time_ns()
            seen = signature(os.fstat(file.fileno())), at
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        raise PipelineInvalid(
            f"there is no pipeline {path}" if isinstance(error, FileNotFoundError) else f"{path} can not be read",
            cause="" if isinstance(error, FileNotFoundError) else str(error),
            next="mlops pipeline infer NOTEBOOK…",
        ) from error
    if len(raw) > _LIMIT:
        raise PipelineInvalid(f"{path} is too large for a pipeline", cause="more than 1 MiB")
    try:
        table = parse_yaml(raw, where=str(path))
    except WrongUse as error:
        raise PipelineInvalid(str(error)) from error
    _known(path.name, table, ("steps",))
    steps = table.get("steps")
    if not isinstance(steps, dict) or not steps:
        raise PipelineInvalid(f"{path.name} has no steps", cause="`steps` maps names to notebooks")
    found = pipeline_of({name: _member(path.name, name, one) for name, one in steps.items()}, path.parent, path)
    return msgspec.structs.replace(found, seen=seen)


def _member(where: str, name: Any, given: Any) -> Member:
    if not isinstance(name, str) or not _STEP.fullmatch(name):
        raise PipelineInvalid(f"{name!r} in {where} is no name for a step", cause="letters, digits, _ and -")
    if isinstance(given, str):
        given = {"notebook": given}
    if not isinstance(given, dict):
        raise PipelineInvalid(f"the step {name} in {where} is no mapping", next=f"{name}: {{notebook: {name}.ipynb}}")
    fields = [field.encode_name for field in msgspec.structs.fields(Member)]
    _known(f"the step {name} in {where}", given, fields)
    if "notebook" not in given:
        raise PipelineInvalid(f"the step {name} in {where} names no notebook")
    given = {key: [one] if key in ("after", "reads", "writes") and isinstance(one, str) else one
             for key, one in given.items()}  # fmt: skip
    try:
        return msgspec.convert(given, Member)
    except msgspec.ValidationError as error:
        raise PipelineInvalid(f"the step {name} in {where} can not be read", cause=str(error)) from error


def _known(where: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise PipelineInvalid(f"{where} has an unknown key {key!r}{_nearest(str(key), known)}",
                                  next=f"known are: {', '.join(known)}")  # fmt: skip


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (is it {near[0]}?)" if near else ""


def text_of(pipeline: Pipeline) -> str:
    """A pipeline as its file has it."""
    import yaml

    steps = {name: msgspec.to_builtins(step) for name, step in pipeline.steps.items()}
    parts = [_HEAD, "steps:\n"]
    for name, step in steps.items():
        said = yaml.safe_dump({name: step}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
        parts.append("".join(f"  {line}\n" for line in said.splitlines()))
    return "".join(parts)


def write(pipeline: Pipeline, path: Path) -> None:
    """Write a pipeline's file; one that is there is replaced.

    Raises
    ------
    OSError
        It cannot be written.
    """
    replace_file(path, [text_of(pipeline).encode()], durable=False)


# -- from the record -------------------------------------------------------------------------------------------------


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a notebook was seen to do.

    Attributes
    ----------
    notebook
        Its path.
    run
        The run it was seen in.
    reads, writes
        What its cells read that none of them had written, and what they wrote; paths as records spell them.
    """

    notebook: Path
    run: Run
    reads: list[str]
    writes: list[str]


def infer(observed: Sequence[Observed], folder: Path, path_of: Callable[[str], Path]) -> Pipeline:
    """Find the pipeline that notebooks make by what they were seen to read and write.

    Parameters
    ----------
    observed
        What each was seen to do.
    folder
        The folder of the file that it is for.
    path_of
        The path that a name of a record stands for.

    Raises
    ------
    PipelineInvalid
        Two write one file, or each needs what the other makes.
    """
    steps: dict[str, Member] = {}

    def named(names: Sequence[str]) -> list[str]:
        return [spell(path_of(name), folder) + ("/" if name.endswith("/") else "") for name in names]

    for one in observed:
        stem = re.sub(r"[^\w-]+", "-", one.notebook.stem).strip("-") or "step"
        stem = stem if _STEP.fullmatch(stem) else f"step-{stem}"[:90]
        name, number = stem, 1
        while name in steps:
            number += 1
            name = f"{stem}-{number}"
        elsewhere = [name for other in observed if other is not one for name in named(other.writes)]
        steps[name] = Member(
            notebook=spell(one.notebook, folder), parameters=dict(one.run.started.parameters),
            reads=_gathered(named(one.reads), elsewhere), writes=_gathered(named(one.writes), elsewhere),
        )  # fmt: skip
    found = pipeline_of(steps, folder)
    told = {name: msgspec.structs.replace(step, after=found.before(name)) for name, step in found.steps.items()}
    return msgspec.structs.replace(found, steps=told)


def spell(path: Path, folder: Path) -> str:
    """A path as the file has it: from its folder where that is above it, else absolute."""
    full, base = path.absolute(), folder.absolute()
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else full.as_posix()


def files_of(found: Iterable[Artifact]) -> list[str]:
    """The names of those that are files or folders outside of packages; a folder's with a slash."""
    return [
        f"{one.name}/" if one.type == "folder" else one.name
        for one in found
        if one.kind == "file" and not one.name.startswith("package:") and one.digest is not None
    ]


def _gathered(names: Sequence[str], elsewhere: Sequence[str]) -> list[str]:
    """Many files of one folder as that folder, unless another step writes there too."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    found: dict[str, None] = {}
    for name in names:
        folder = name.rpartition("/")[0]
        whole = f"{folder}/"
        if folder and len(folders[folder]) > _CROWD and not any(
            other.startswith(whole) and other not in names for other in elsewhere
        ):  # fmt: skip
            found[whole] = None
        else:
            found[name] = None
    return list(found)


def latest(cells: Iterable[CellRun], run_of: Any) -> tuple[Run, list[CellRun]] | None:
    """The run by which a notebook is judged, with its cell runs in order: the last headless one that got to its end.

    Parameters
    ----------
    cells
        Cell runs of the notebook, newest first.
    run_of
        Reads a run by its name.
    """
    runs: dict[str, list[CellRun]] = {}
    for one in cells:
        runs.setdefault(one.started.run, []).append(one)
    read_runs = [(run_of(digest), some) for digest, some in runs.items()]
    for run, some in read_runs:
        if run.started.trigger != "session" and run.status == "done":
            return run, some[::-1]
    return (read_runs[0][0], read_runs[0][1][::-1]) if read_runs else None
