"""What a run tells a continuous integration service: JUnit XML, a step's summary, annotations.

All three are drawn from the output notebook, so they say the same of a run here, on a target, or of one that was
interrupted. What stands in them is untrusted: a name or an error of a notebook can neither end an element nor be a
command to the service.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape, quoteattr

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.objects import replace_file
from jupyter_mlops.pipelines.parameters import INJECTED_TAG, NotebookUnreadable, read_notebook, source_of, tags_of
from jupyter_mlops.records import short
from jupyter_mlops.targets.protocol import Outcome
from jupyter_mlops.views.parts import counted, first_line
from jupyter_mlops.widgets import clean, duration, number

if TYPE_CHECKING:
    from jupyter_mlops.pipelines import Sweep
    from jupyter_mlops.project import Project

_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOTE_TAG: Final = "papermill-error-cell-tag"
_MOST_ROWS: Final = 200
_MOST_TOLD: Final = 20
_MOST_TEXT: Final = 20_000
_SUMMARY_LIMIT: Final = 900_000  # a service takes 1 MiB from a step


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A code cell of an output notebook.

    Attributes
    ----------
    number
        Its place in the notebook as it ran, from 1.
    id
        Its nbformat id.
    title
        What it is called: the first line of its code.
    status
        ``passed``, ``failed``, or ``skipped`` where it did not run.
    seconds
        How long it took.
    ename, evalue, traceback
        The error it ended with.
    line, source
        The line of the cell that failed, from 1, and its text; None and empty where the traceback does not tell.
    """

    number: int
    id: str
    title: str
    status: str
    seconds: float = 0.0
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    line: int | None = None
    source: str = ""

    @property
    def where(self) -> str:
        """The place in words."""
        line = f", line {self.line}: {self.source}" if self.line else ""
        return f"cell {self.number}{line}"


def cases(book: Mapping[str, Any]) -> list[Case]:
    """The code cells of an output notebook, as they went."""
    found = []
    cells = [cell for cell in book["cells"] if _NOTE_TAG not in tags_of(cell)]
    for number_, cell in enumerate(cells, 1):
        source = source_of(cell)
        if cell.get("cell_type") != "code" or not source.strip():
            continue
        told = (cell.get("metadata") or {}).get("papermill") or {}
        error = next((one for one in reversed(cell.get("outputs") or ()) if one.get("output_type") == "error"), None)
        failed = bool(told.get("exception")) or told.get("status") == "failed"
        ended = told.get("status") == "completed" or (told.get("end_time") and told.get("start_time"))
        seconds = told.get("duration")
        case = Case(
            number=number_, id=str(cell.get("id", "")), title=_title(cell, source),
            status="failed" if failed else "passed" if ended else "skipped",
            seconds=max(0.0, seconds) if isinstance(seconds, int | float) else 0.0,
        )  # fmt: skip
        found.append(_with_error(case, error or {}, source, cell.get("execution_count")) if failed else case)
    return found


def _title(cell: Mapping[str, Any], source: str) -> str:
    return "parameters" if INJECTED_TAG in tags_of(cell) else _plain(first_line(source))[:80]


def _with_error(case: Case, error: Mapping[str, Any], source: str, count: object) -> Case:
    text = _plain("\n".join(map(str, error.get("traceback") or ())))
    lines = source.splitlines()
    told = [int(one) for one in re.findall(rf"Cell In\s?\[{count}\], line (\d+)", text)]
    line = told[-1] if told and 0 < told[-1] <= len(lines) else None
    return msgspec.structs.replace(
        case, ename=_plain(str(error.get("ename", "")))[:200] or "error",
        evalue=_plain(str(error.get("evalue", "")))[:2000], traceback=text[-_MOST_TEXT:], line=line,
        source=lines[line - 1].strip()[:200] if line else "",
    )  # fmt: skip


def _plain(text: str) -> str:
    """A text without colours and other controls."""
    return clean(_ANSI.sub("", text), newlines=True)


# -- JUnit -----------------------------------------------------------------------------------------------------------


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A notebook that ran, or did not.

    Attributes
    ----------
    notebook
        The notebook's path in the project.
    cases
        Its cells; none where the run did not come to any: then one case tells why.
    outcome
        What came of it.
    lines
        For cells that failed, the line of the notebook's file.
    step
        What it is called in a pipeline or a sweep.
    """

    notebook: str
    cases: Sequence[Case]
    outcome: Outcome
    lines: Mapping[int, int] = {}
    step: str = ""

    @property
    def failures(self) -> int:
        """How many cells failed."""
        return sum(one.status == "failed" for one in self.cases)

    @property
    def left_out(self) -> bool:
        """Whether it was not its turn."""
        return self.outcome.status == "skipped"

    @property
    def errors(self) -> int:
        """Whether it failed without a cell that did."""
        return int(not self.outcome.ok and not self.failures and not self.left_out)

    @property
    def tests(self) -> int:
        """How many cases it has."""
        return len(self.cases) + self.errors + self.left_out


def junit(suites: Sequence[Suite], *, name: str = "mlops run") -> bytes:
    """Runs as JUnit XML: a suite for each notebook, a case for each code cell."""
    sums = [sum(getattr(one, what) for one in suites) for what in ("tests", "failures", "errors")]
    took = sum(max(0.0, one.outcome.seconds) for one in suites)
    lines = ['<?xml version="1.0" encoding="utf-8"?>']
    lines.append(f'<testsuites name={_attribute(name)}{_counts(*sums)} time="{took:.3f}">')
    for suite in suites:
        lines += _suite(suite)
    return "\n".join([*lines, "</testsuites>", ""]).encode()


def _counts(tests: int, failures: int, errors: int) -> str:
    return f' tests="{tests}" failures="{failures}" errors="{errors}"'


def _suite(suite: Suite) -> Iterator[str]:
    notebook, outcome = suite.notebook, suite.outcome
    skipped = suite.left_out + sum(one.status == "skipped" for one in suite.cases)
    took = f"{max(0.0, outcome.seconds):.3f}"
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    yield (
        f"<testsuite name={_attribute(suite.step or notebook)}{_counts(suite.tests, suite.failures, suite.errors)} "
        f'skipped="{skipped}" time="{took}" timestamp="{now}" file={_attribute(notebook)}>'
    )
    known = {"run": outcome.run or "", "status": outcome.status, "output": outcome.output}
    known |= {f"metric {name}": number(value) for name, value in sorted(outcome.metrics.items())}
    told = "".join(f"<property name={_attribute(name)} value={_attribute(value)}/>" for name, value in known.items())
    yield f"<properties>{told}</properties>"
    # Services tell cases apart by class and name: those of two runs of one notebook must not be taken for one another.
    class_ = re.sub(r"[^\w-]+", ".", (suite.step or notebook).replace(".ipynb", "")).strip(".") or "notebook"
    for one in suite.cases:
        name = f"[{one.number}] {one.title}"
        open_ = f'<testcase classname={_attribute(class_)} name={_attribute(name)} time="{one.seconds:.3f}"'
        if one.status == "failed":
            at = suite.lines.get(one.number)
            place = f"{notebook}:{at}\n" if at else ""
            message = f"{one.where}: {one.ename}: {one.evalue}"
            body = _text(f"{place}{one.where}\n{one.traceback or f'{one.ename}: {one.evalue}'}")
            yield f"{open_}><failure message={_attribute(message)} type={_attribute(one.ename)}>{body}</failure>"
            yield "</testcase>"
        elif one.status == "skipped":
            yield f'{open_}><skipped message="it did not run"/></testcase>'
        else:
            yield f"{open_}/>"
    if suite.errors or suite.left_out:
        why = _plain(outcome.why)
        yield f'<testcase classname={_attribute(class_)} name="run" time="{took}">'
        if suite.left_out:
            yield f"<skipped message={_attribute(why[:500])}/>"
        else:
            yield f"<error message={_attribute(why[:500])} type={_attribute(outcome.status)}>{_text(why)}</error>"
        yield "</testcase>"
    yield "</testsuite>"


def _attribute(text: str) -> str:
    return quoteattr(_NO_XML.sub("\ufffd", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _text(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))


# -- a step's summary --------------------------------------------------------------------------------------------------


def summary(notebook: str, found: Sequence[Case], outcome: Outcome) -> str:
    """A run as Markdown: the cells that count, what failed and how, what was measured."""
    mark = "✅" if outcome.ok else "❌"
    ran = sum(one.status != "skipped" for one in found)
    parts = [f"### {mark} {_code(notebook)}: {_cell(outcome.status)}", ""]
    parts.append(
        f"{ran} of {counted(len(found), 'cell')} ran in {duration(outcome.seconds)}; run `{short(outcome.run)}`"
    )
    failed = [one for one in found if one.status == "failed"]
    for one in failed:
        parts += [
            "",
            f"**{_cell(one.where)}**",
            "",
            _fenced(f"{one.ename}: {one.evalue}\n\n{one.traceback}"[:_MOST_TEXT]),
        ]
    if not outcome.ok and not failed:
        parts += ["", _fenced(_plain(outcome.why))]
    if outcome.metrics:
        parts += ["", "| metric | |", "|---|---:|"]
        parts += [f"| {_code(name)} | {_cell(number(value))} |" for name, value in sorted(outcome.metrics.items())]
    # Where there are very many, the failed and the slowest are told.
    shown = sorted(found, key=lambda one: (one.status != "failed", -one.seconds))[:_MOST_ROWS]
    parts += ["", "<details><summary>Cells</summary>", "", "| | cell | | took |", "|---|---:|---|---:|"]
    signs = {"passed": "✅", "failed": "❌", "skipped": "—"}
    parts += [
        f"| {signs[one.status]} | {one.number} | {_code(one.title)} | {duration(one.seconds)} |"
        for one in sorted(shown, key=lambda one: one.number)
    ]
    parts += [f"\nand {len(found) - len(shown)} more"] if len(found) > len(shown) else []
    return "\n".join([*parts, "", "</details>", ""])


def sweep_summary(found: Sweep, suites: Sequence[Suite]) -> str:
    """A sweep as Markdown: its table, and of the first that failed how."""
    done = sum(one.outcome.ok for one in found.points)
    parts = [
        f"### {'✅' if found.ok else '❌'} {_code(found.notebook)}: {done} of {counted(len(suites), 'run')} done", "",
        f"took {duration(found.seconds)}; sweep `{short(found.run)}`", "",
    ]  # fmt: skip
    rows = found.rows()
    names = [name for name in rows[0] if name not in ("notebook", "run", "why")] if rows else []
    parts += [f"| | {' | '.join(map(_code, names))} |", "|---" * (len(names) + 1) + "|"]
    # Where there are very many, the best and the first are shown.
    shown = [place for place in range(len(rows)) if place < _MOST_ROWS or place == found.best]
    for place in shown:
        mark = "**best**" if place == found.best else "" if found.points[place].outcome.ok else "❌"
        values = (duration(value) if name == "seconds" else "" if value is None else _cell(number(value))
                  for name, value in ((name, rows[place][name]) for name in names))  # fmt: skip
        parts.append(f"| {mark} | {' | '.join(values)} |")
    parts += [f"\nand {len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    for suite in [one for one in suites if not one.outcome.ok][:_MOST_TOLD]:
        case = next((one for one in suite.cases if one.status == "failed"), None)
        why = f"{case.ename}: {case.evalue}\n\n{case.traceback}"[:_MOST_TEXT] if case else _plain(suite.outcome.why)
        parts += ["", f"**{_cell(suite.step)}**" + (f", {_cell(case.where)}" if case else ""), "", _fenced(why)]
    return "\n".join([*parts, ""])


def _cell(text: str) -> str:
    """A text on one line of Markdown, whose signs are signs."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&@-])", r"\\\1", clean(text))


def _code(text: str) -> str:
    """A text as code within a line, also of a table."""
    text = clean(text).replace("|", "¦")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`" if text else "—"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


# -- annotations -------------------------------------------------------------------------------------------------------


def annotation(kind: str, file: str, line: int | None, title: str, message: str) -> str:
    r"""An annotation for GitHub's page of a change: one line, whatever stands in the texts.

    >>> annotation("error", "a,b.ipynb", 3, "x::y", "no\n::stop::")
    '::error file=a%2Cb.ipynb,line=3,title=x%3A%3Ay::no%0A::stop::'
    """
    where = f"file={_property(file)}" + (f",line={line}" if line else "") + f",title={_property(title)}"
    return f"::{kind} {where}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def harmless(text: str) -> str:
    r"""A text no line of which is a command to GitHub's runner.

    >>> harmless("a\n  ::error::x\n##[group]y")
    'a\n  : :error::x\n## [group]y'
    """
    text = re.sub(r"(^|[\r\n])(\s*):(?=:)", r"\1\2: ", text)
    return text.replace("##[", "## [")


def lines_of(raw: str) -> list[tuple[str, list[int]]]:
    """For each cell of a notebook's file its id, and the file's line on which each line of its source stands.

    The file is JSON as it stands on disk; what is no such notebook gives nothing.
    """
    try:
        found = []
        for start in _items(raw, dict(_members(raw, 0))["cells"]):
            members = dict(_members(raw, start))
            cell_type = _value(raw, members["cell_type"])
            id_ = _value(raw, members["id"]) if "id" in members else ""
            at = members["source"]
            places = list(_items(raw, at)) if raw[at] == "[" else [at]
            found.append((str(id_) if cell_type == "code" else "", [raw.count("\n", 0, one) + 1 for one in places]))
        return found
    except (ValueError, KeyError, IndexError, RecursionError):
        return []  # then there is no line to tell


_SPACE: Final = re.compile(r"[ \t\n\r]*")
_decoder: Final = json.JSONDecoder()


def _value(raw: str, at: int) -> Any:
    return _decoder.raw_decode(raw, at)[0]


def _skip(raw: str, at: int) -> int:
    found = _SPACE.match(raw, at)
    return found.end() if found else at


def _members(raw: str, at: int) -> Iterator[tuple[str, int]]:
    """The names of an object's members, and where their values begin."""
    at = _skip(raw, at)
    if raw[at] != "{":
        raise ValueError("no object")
    at = _skip(raw, at + 1)
    while raw[at] != "}":
        name, at = _decoder.raw_decode(raw, at)
        at = _skip(raw, _skip(raw, at) + 1)  # past the colon
        yield name, at
        at = _skip(raw, _decoder.raw_decode(raw, at)[1])
        at = _skip(raw, at + 1) if raw[at] == "," else at


def _items(raw: str, at: int) -> Iterator[int]:
    """Where an array's items begin."""
    if raw[at] != "[":
        raise ValueError("no array")
    at = _skip(raw, at + 1)
    while raw[at] != "]":
        yield at
        at = _skip(raw, _decoder.raw_decode(raw, at)[1])
        at = _skip(raw, at + 1) if raw[at] == "," else at


def _file_lines(notebook: Path, found: Sequence[Case]) -> dict[int, int]:
    """For cells that failed, the line of the notebook's file that holds the source's line."""
    try:
        raw = notebook.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return {}
    cells = dict(lines_of(raw))
    lines = {}
    for one in found:
        places = cells.get(one.id) if one.id else None
        if one.status == "failed" and places:
            lines[one.number] = places[min((one.line or 1) - 1, len(places) - 1)]
    return lines


# -- all of them -------------------------------------------------------------------------------------------------------


class Report:
    """What is told of a run when it is over; see `reporting`.

    Attributes
    ----------
    outcome
        What came of it; set by whoever runs it.
    """

    def __init__(self, project: Project, notebook: Path, output: Path, junit_file: Path | None) -> None:
        self.project, self.notebook, self.output, self.junit_file = project, notebook, output, junit_file
        self.outcome: Outcome | None = None
        self._before = _state(output)

    def suite(self) -> Suite | None:
        """The run as it is told; None where it has no outcome."""
        if self.outcome is None:
            return None
        # What another run has left there says nothing of this one.
        fresh = self.outcome.status == "cached" or _state(self.output) != self._before
        return _suite_of(self.project, self.notebook, self.output if fresh else None, self.outcome)


def _suite_of(project: Project, notebook: Path, output: Path | None, outcome: Outcome, *, step: str = "") -> Suite:
    """A run as it is told to a service: without secrets."""

    def seen(text: str) -> str:
        return project.redactor().text(text)[0]

    found: list[Case] = []
    if output is not None:
        with contextlib.suppress(NotebookUnreadable):  # it did not come to an output
            texts = ("title", "ename", "evalue", "traceback", "source")
            found = [
                msgspec.structs.replace(one, **{name: seen(getattr(one, name)) for name in texts})
                for one in cases(read_notebook(output))
            ]
    return Suite(
        notebook=project.relative(notebook), cases=found, step=step, lines=_file_lines(notebook, found),
        outcome=msgspec.structs.replace(outcome, error=seen(outcome.error), cause=seen(outcome.cause)),
    )  # fmt: skip


def tell(
    project: Project, suites: Sequence[Suite], junit_file: Path | None, say: Callable[[str], None], *,
    name: str = "mlops run", markdown: Callable[[], str] | None = None,
) -> None:  # fmt: skip
    """Write what is wanted of runs that are over, and say what a service is to hear.

    Parameters
    ----------
    name
        The command that ran them.
    markdown
        The step's summary; that of each run unless given.

    Raises
    ------
    WrongUse
        A file can not be written.
    """
    if junit_file is not None:
        try:
            replace_file(junit_file, [junit(suites, name=name)], durable=False)
        except OSError as error:
            raise WrongUse(f"{junit_file} could not be written", cause=str(error)) from error
    environ = project.environ
    if environ.get("GITHUB_STEP_SUMMARY"):
        told = (summary(one.step or one.notebook, one.cases, one.outcome) for one in suites)
        _append(Path(environ["GITHUB_STEP_SUMMARY"]), markdown() if markdown is not None else "\n".join(told))
    if on_github(environ):
        for line in _annotations(project, suites):
            say(line)


def _annotations(project: Project, suites: Sequence[Suite]) -> Iterator[str]:
    """One for each cell that failed; where it failed alike in several runs, one for all of them."""
    found: dict[tuple[str, int | None, str, str], list[str]] = {}
    for suite in suites:
        for one in suite.cases:
            if one.status == "failed":
                title, message = f"{one.ename} in cell {one.number}", f"{one.where}\n{one.ename}: {one.evalue}"
                place = (_file_of(project, suite), suite.lines.get(one.number, 1), title, message)
                found.setdefault(place, []).append(suite.step)
        if suite.errors:
            title = f"the run {suite.outcome.status}"
            message = _plain(suite.outcome.why)[:2000]
            found.setdefault((_file_of(project, suite), 1, title, message), []).append(suite.step)
    for (file, line, title, message), steps in found.items():
        more = f"\nin {len(steps)} runs: {', '.join(steps)[:500]}" if len(steps) > 1 else ""
        yield annotation("error", file, line, title, message + more)


def _file_of(project: Project, suite: Suite) -> str:
    """A notebook as the service spells paths: from where the repository is checked out."""
    root, file = project.environ.get("GITHUB_WORKSPACE"), suite.notebook
    full = (project.root / file).resolve()
    if root and full.is_relative_to(Path(root).resolve()):
        return full.relative_to(Path(root).resolve()).as_posix()
    return file


def pipeline_told(
    project: Project, notebooks: Mapping[str, Path], outcomes: Mapping[str, Outcome], junit_file: Path | None,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Tell of a pipeline that is over.

    Parameters
    ----------
    notebooks, outcomes
        By step, what ran and what came of it.
    """
    suites = []
    for step, outcome in outcomes.items():
        suites.append(_suite_of(project, notebooks[step], _output_of(project, outcome), outcome, step=step))
    tell(project, suites, junit_file, say, name="mlops pipeline run")


def sweep_told(
    project: Project, notebook: Path, found: Sweep, junit_file: Path | None, say: Callable[[str], None]
) -> None:
    """Tell of a sweep that is over: a suite for each run, and one table."""
    suites = [
        _suite_of(
            project, notebook, _output_of(project, one.outcome), one.outcome, step=f"{found.notebook}[{one.name}]"
        )
        for one in found.points
    ]
    tell(project, suites, junit_file, say, name="mlops sweep", markdown=lambda: sweep_summary(found, suites))


def _output_of(project: Project, outcome: Outcome) -> Path | None:
    return project.root / outcome.output if outcome.run is not None and outcome.output else None


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from one that was put in its place."""
    try:
        found = path.stat()
    except OSError:
        return None  # none is there
    return found.st_ino, found.st_mtime_ns, found.st_size


def on_github(environ: Mapping[str, str]) -> bool:
    """Whether this runs in a step of GitHub's."""
    return environ.get("GITHUB_ACTIONS") == "true"


def _append(path: Path, text: str) -> None:
    raw = text.encode("utf-8", "replace")[:_SUMMARY_LIMIT]
    try:
        with path.open("ab") as file:
            file.write(raw + b"\n")
    except OSError as error:
        raise WrongUse(f"the step's summary {path} could not be written", cause=str(error)) from error


def wanted(project: Project, junit_file: Path | None) -> bool:
    """Whether anybody wants to be told."""
    environ = project.environ
    return bool(junit_file or environ.get("GITHUB_STEP_SUMMARY") or on_github(environ))


@contextlib.contextmanager
def reporting(
    project: Project, notebook: Path, output: Path, junit_file: Path | None, say: Callable[[str], None]
) -> Iterator[Report]:
    """Tell of a run when it is over, whatever ended it; `say` prints a line for the service."""
    report = Report(project, notebook, output, junit_file)
    try:
        yield report
    except KeyboardInterrupt:
        report.outcome = Outcome(status="interrupted", output=project.relative(output))
        raise
    except MlopsError as error:
        report.outcome = Outcome(status="failed", cause=str(error))
        raise
    finally:
        suite = report.suite() if wanted(project, junit_file) else None
        if suite is not None:
            tell(project, [suite], junit_file, say)
