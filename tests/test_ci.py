"""What a run tells a continuous integration service, and what it shows while it goes."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import nbformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from reports import check_structure, published_schemas

from jupyter_mlops import cli
from jupyter_mlops.project import Project
from jupyter_mlops.targets import Event, Outcome
from jupyter_mlops.views.ci import Case, Suite, annotation, cases, harmless, junit, lines_of, summary
from jupyter_mlops.views.progress import Telling, Watching

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def notebook(folder: Path, *cells: str, name: str = "a.ipynb", tags: dict[int, list[str]] | None = None) -> Path:
    made = [new_markdown_cell("# A title"), *map(new_code_cell, cells)]
    for place, cell in enumerate(made):
        cell["id"] = f"cell-{place}"
        if tags and place in tags:
            cell["metadata"]["tags"] = tags[place]
    nbformat.write(new_notebook(cells=made, metadata=KERNEL), folder / name)
    return folder / name


def shell(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", *words], cwd=folder, env={**os.environ, **environ},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


HOSTILE = st.text(st.characters(), max_size=40) | st.sampled_from([
    "]]>", "<!-- -->", "</failure>", '"><x y="', "a\n::error::b", "::stop-commands::x", "##[add-mask]a", "%0A::x::",
    "\x00\x1b[31m", "|", "```", "</details>", "\ud800", "<script>", "[a](javascript:b)", "\u2028::debug::x", "\r::x::",
])  # fmt: skip
CASES = st.lists(
    st.builds(
        Case, number=st.integers(1, 99), id=HOSTILE, title=HOSTILE, seconds=st.floats(0, 1e6),
        status=st.sampled_from(["passed", "failed", "skipped"]), ename=HOSTILE, evalue=HOSTILE,
        traceback=HOSTILE, source=HOSTILE, line=st.none() | st.integers(1, 9),
    ), max_size=5,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(HOSTILE, CASES, st.sampled_from(["done", "failed", "lost"]), HOSTILE)
def test_no_name_or_error_ends_an_element_a_table_or_is_a_command(
    name: str, found: list[Case], status: str, why: str
) -> None:
    outcome = Outcome(status=status, cause=why, seconds=1.5, metrics={name: 0.5})
    root = check_structure(junit([Suite(notebook=name, cases=found, outcome=outcome)]))
    assert len(root.findall(".//testcase")) == len(found) + (status != "done" and not root.findall(".//failure"))
    text = summary(name, found, outcome)
    rows = text[text.index("<details>") :].splitlines()
    assert sum(line.startswith("|") for line in rows) == 2 + len(found)
    assert text.count("<details>") - name.count("<details>") >= 1
    line = annotation("error", name, 3, why, why)
    assert not set(line) & {"\r", "\n"}
    assert re.fullmatch(r"::error file=[^:,\n]*,line=3,title=[^:,\n]*::.*", line, re.DOTALL)
    for shown in harmless(f"{why}\n{name}\n{text}").split("\n"):
        assert not shown.lstrip().startswith("::")
        assert "##[" not in shown


SOURCES = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=4).map("\n".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(SOURCES, min_size=1, max_size=4))
def test_the_line_of_the_file_is_where_the_sources_line_stands(sources: list[str]) -> None:
    cells = [new_code_cell(source) for source in sources]
    for place, cell in enumerate(cells):
        cell["id"] = f"c{place}"
    raw = nbformat.writes(new_notebook(cells=cells, metadata=KERNEL))
    lines = raw.split("\n")
    found = lines_of(raw)
    assert [id_ for id_, _ in found] == [f"c{place}" for place in range(len(sources))]
    for source, (_, places) in zip(sources, found, strict=True):
        assert [json.loads(lines[at - 1].strip().rstrip(",")) for at in places] == source.splitlines(keepends=True)


def test_a_file_that_is_no_notebook_has_no_lines() -> None:
    for raw in ("", "{", "[]", '{"cells": 3}', '{"cells": [{}]}', "{" * 10_000, '{"cells": [' * 5000):
        assert lines_of(raw) == []


FAILS = [
    "x = 1",
    "print('::error::hostile')\ny = 2\nraise ValueError('no ::set-output name=a::b\\n::error::c')",
    "z = 3",
]


def test_a_failed_run_is_told_to_the_service_in_its_three_ways(tmp_path: Path) -> None:
    import junitparser

    path = notebook(tmp_path, *FAILS, name="it, is: a.ipynb")
    Project.open(tmp_path)
    (tmp_path / "summary.md").write_text("before\n")
    told = shell(
        tmp_path, "run", path.name, "-o", "o.ipynb", "--junit", "report.xml", "--live", GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"), GITHUB_WORKSPACE=str(tmp_path),
    )  # fmt: skip
    assert told.returncode == 3, told.stderr
    # one annotation, and no other line that the runner would take for a command
    commands = [line for line in (told.stdout + told.stderr).splitlines() if line.lstrip().startswith("::")]
    file_line = next(
        number for number, line in enumerate(path.read_text().splitlines(), 1) if "raise ValueError" in line
    )
    [command] = commands
    assert command.startswith(f"::error file=it%2C is%3A a.ipynb,line={file_line},title=ValueError in cell 3::cell 3")
    assert "hostile" in told.stderr, "what a cell prints is shown as it comes"
    check_structure((tmp_path / "report.xml").read_bytes())
    [suite] = junitparser.JUnitXml.fromfile(str(tmp_path / "report.xml"))
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (3, 1, 1, 0)
    passed, failed, skipped = suite
    assert passed.name == "[2] x = 1"
    assert passed.is_passed
    [failure] = failed.result
    assert failure.type == "ValueError"
    assert f"it, is: a.ipynb:{file_line}\n" in failure.text
    assert "cell 3, line 3: raise ValueError" in failure.message
    assert skipped.is_skipped
    assert failed.time > 0
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("before\n### ❌ `it, is: a.ipynb`")
    assert "2 of 3 cells ran" in text
    assert "ValueError: no" in text


def test_a_run_that_ended_well_or_came_to_no_cell_is_told_too(tmp_path: Path) -> None:
    import junitparser

    path = notebook(tmp_path, "from jupyter_mlops import log_metric\nlog_metric('auc', 0.75)")
    Project.open(tmp_path)
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "s.md")}
    told = shell(tmp_path, "run", path.name, "--junit", "a.xml", "--target", "local", **environ)
    assert told.returncode == 0, told.stderr
    [suite] = junitparser.JUnitXml.fromfile(str(tmp_path / "a.xml"))
    assert (suite.tests, suite.failures, suite.errors) == (1, 0, 0)
    assert {one.name: one.value for one in suite.properties()}["metric auc"] == "0.75"
    assert "| `auc` | 0.75 |" in (tmp_path / "s.md").read_text()
    assert "::" not in told.stdout + told.stderr
    refused = shell(tmp_path, "run", path.name, "--junit", "b.xml", "-k", "nothing", **environ)
    assert refused.returncode == 2, refused.stderr
    [suite] = junitparser.JUnitXml.fromfile(str(tmp_path / "b.xml"))
    assert (suite.tests, suite.errors) == (1, 1)
    assert "there is no kernel" in next(iter(suite)).result[0].message
    assert "::error file=a.ipynb,line=1" in refused.stderr


def test_a_pipeline_is_told_with_a_suite_for_each_step(tmp_path: Path) -> None:
    import junitparser

    notebook(tmp_path, "open('a.txt', 'w').write('1')", name="first.ipynb")
    notebook(tmp_path, "print(open('a.txt').read())", "1 / 0", name="second.ipynb")
    notebook(tmp_path, "1", name="third.ipynb")
    steps = {"first": {"notebook": "first.ipynb"}, "second": {"notebook": "second.ipynb", "after": ["first"]},
             "third": {"notebook": "third.ipynb", "after": ["second"]}}  # fmt: skip
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"steps": steps}))
    Project.open(tmp_path)
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "s.md")}
    told = shell(tmp_path, "pipeline", "run", "--junit", "r.xml", "--cache", "off", **environ)
    assert told.returncode == 3, told.stderr
    check_structure((tmp_path / "r.xml").read_bytes())
    suites = {suite.name: suite for suite in junitparser.JUnitXml.fromfile(str(tmp_path / "r.xml"))}
    assert [(name, one.tests, one.failures, one.skipped) for name, one in suites.items()] == [
        ("first", 1, 0, 0), ("second", 2, 1, 0), ("third", 1, 0, 1)
    ]  # fmt: skip
    [command] = [line for line in told.stderr.splitlines() if line.startswith("::")]
    assert "file=second.ipynb" in command
    assert "ZeroDivisionError" in command
    assert (tmp_path / "s.md").read_text().count("### ") == 3


def test_what_a_service_is_told_is_masked(tmp_path: Path) -> None:
    path = notebook(
        tmp_path, "token = ''", "raise ValueError(f'{token} is not taken')", tags={1: ["parameters"]}
    )  # fmt: skip
    Project.open(tmp_path)
    secret = "correct horse & battery"
    told = shell(
        tmp_path, "run", path.name, "-p", "token", "@env:MINE", "--junit", "a.xml", "--live", GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(tmp_path / "s.md"), MINE=secret,
    )  # fmt: skip
    assert told.returncode == 3, told.stderr
    everything = told.stdout + told.stderr + (tmp_path / "a.xml").read_text() + (tmp_path / "s.md").read_text()
    assert "is not taken" in everything
    assert "battery" not in everything


@pytest.mark.usefixtures("index")
def test_the_report_is_valid_by_the_schema_that_jenkins_publishes(tmp_path: Path) -> None:
    import xmlschema

    schemas = published_schemas(tmp_path)
    error = new_output("error", ename="E", evalue="<&>", traceback=["Cell In[2], line 1"])
    cells = [
        new_code_cell("a = 1", metadata={"papermill": {"status": "completed", "duration": 0.5}}),
        new_code_cell("b", outputs=[error], metadata={"papermill": {"status": "failed", "exception": True}}),
        new_code_cell("c", metadata={"papermill": {"status": "pending"}}),
    ]
    found = cases(new_notebook(cells=cells))
    assert [one.status for one in found] == ["passed", "failed", "skipped"]
    for schema in schemas:
        known = xmlschema.XMLSchema(schema)
        ways = [("failed", found), ("lost", ()), ("skipped", ())]
        suites = [
            Suite(notebook="a.ipynb", cases=shown, outcome=Outcome(status=status, cause="E", seconds=1.25))
            for status, shown in ways
        ]
        known.validate(junit(suites).decode())
        with pytest.raises(xmlschema.XMLSchemaValidationError):
            known.validate("<testsuites><testcase/></testsuites>")


def test_a_run_is_due_or_not_and_a_broken_contract_counts(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a\n1\n2\n")
    reads = "import pandas as pd\nX = pd.read_csv('data.csv')\nG = pd.DataFrame({'a': [1, 2]})"
    path = notebook(tmp_path, "%load_ext jupyter_mlops\n" + reads, "%mlops check data X --against G --warn")
    Project.open(tmp_path)

    def check() -> tuple[int, dict[str, Any]]:
        told = shell(tmp_path, "run", path.name, "--check", "--json")
        return told.returncode, json.loads(told.stdout)

    assert check()[0] == 1, "it never ran"
    assert not (tmp_path / "a.out.ipynb").exists()
    assert shell(tmp_path, "run", path.name, "--cache", "notebook").returncode == 0
    code, said = check()
    assert (code, said["broken"]) == (0, []), said
    (tmp_path / "data.csv").write_text("a\n1.5\n2\n")
    code, said = check()
    assert code == 1
    assert "data.csv" in said["why"]
    assert shell(tmp_path, "run", path.name, "--cache", "notebook").returncode == 0
    code, said = check()
    assert code == 1
    assert [one["summary"] for one in said["broken"]] == ["X is not as G has it: 1 breaches"]


# -- while it goes -----------------------------------------------------------------------------------------------------


def test_what_cells_print_is_shown_as_it_comes_as_text_only(capsys: pytest.CaptureFixture[str]) -> None:
    watching = Watching("a.ipynb", None, sys.stderr)
    for text in ("\x1b[31mred\x1b[0m 1%", "\r 2%", "\x1b]0;title\x07\n"):
        watching.output({"output_type": "stream", "text": text})
    watching.output({"output_type": "display_data", "data": {"text/plain": "<Figure>"}})
    said = capsys.readouterr().err
    assert said == "red 1%\n 2%\\x1b]0;title\\x07\n<Figure>\n"


def test_what_steps_print_is_shown_line_by_line_and_no_line_is_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(stream: io.StringIO) -> None:
        telling = Telling(stream, live=True)

        def say(step: str, kind: str, text: str = "", cell: int = 2) -> None:
            telling.heard(Event(kind=kind, step=step, text=text, cell=cell, cells=3))

        say("a", "started")
        say("a", "output", "one\ntw")
        say("a", "output", "o")
        say("b", "output", "::error::\x1b[31mx\x1b[0m\x07\r##")
        say("b", "output", "[add-mask]y")
        say("a", "output", "\nthree\n")
        say("b", "note", "tried\nagain")
        say("a", "output", "four", cell=3)
        say("a", "ended", "done")

    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    stream = io.StringIO()
    told(stream)
    assert stream.getvalue().splitlines() == [
        "a: started", "a: [cell 2 of 3]", "a │ one", "a │ two", "b: [cell 2 of 3]", "b │ ::error::x\\x07",
        "b │ ##[add-mask]y", "a │ three", "b: tried\\nagain", "a: [cell 3 of 3]", "a │ four", "a: done",
    ]  # fmt: skip
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    guarded = io.StringIO()
    told(guarded)
    lines = guarded.getvalue().splitlines()
    assert "##[" not in guarded.getvalue()
    assert not [line for line in lines if line.lstrip().startswith("::")]
    assert "b │ ##│ [add-mask]y" in lines


def test_progress_in_a_notebook_is_a_display_that_changes(project_folder: Path, kernel: Any) -> None:
    notebook(project_folder, "import time\ntime.sleep(2.5)", "1")
    messages: list[Any] = []
    kernel.client.execute_interactive(
        "%load_ext jupyter_mlops\n%mlops run a.ipynb", timeout=200, output_hook=messages.append
    )  # fmt: skip
    shown = [one["content"] for one in messages if one["msg_type"] in ("display_data", "update_display_data")]
    texts = [one["data"]["text/plain"] for one in shown]
    ids = {one["transient"].get("display_id") for one in shown if "of 2 cells" in one["data"]["text/plain"]}
    assert len(ids) == 1
    assert "the kernel starts" in texts[0]
    assert any(re.search(r"cell 1 +for [1-9]", text) for text in texts), texts
    assert "2 of 2 cells" in texts[-1]


SLEEPS = "import os, time\nprint('begun')\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"


def pid_in(folder: Path) -> int:
    until = time.monotonic() + 200
    while not ((folder / "pid").exists() and (folder / "pid").read_text().isdigit()):
        assert time.monotonic() < until, "the cell did not begin"
        time.sleep(0.05)
    return int((folder / "pid").read_text())


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def check_partial(folder: Path, output: str, kernel: int) -> None:
    """The kernel is gone, the notebook valid with what was printed, and the run on record as interrupted."""
    until = time.monotonic() + 60
    while not ended(kernel):
        assert time.monotonic() < until, "the kernel outlived the run"
        time.sleep(0.05)
    book = nbformat.read(folder / output, 4)
    nbformat.validate(book)
    shown = {cell.id: cell.get("outputs") for cell in book.cells}
    assert shown["cell-2"][0].text == "begun\n"
    assert shown["cell-3"] == []
    [run] = [one for one in Project(folder).store.runs() if one.started.trigger == "papermill"]
    assert run.status == "interrupted"
    assert not [problem for problem in Project(folder).store.fsck() if problem.severity == "damage"]


def test_an_interrupt_in_a_terminal_leaves_notebook_record_and_report_in_order(tmp_path: Path) -> None:
    notebook(tmp_path, "x = 1", SLEEPS, "y = 2")
    Project.open(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "a.ipynb", "--junit", "r.xml"], cwd=tmp_path,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        kernel = pid_in(tmp_path)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all in the foreground
        _, err = process.communicate(timeout=100)
    assert (process.returncode, err.strip()) == (130, "interrupted")
    check_partial(tmp_path, "a.out.ipynb", kernel)
    root = check_structure((tmp_path / "r.xml").read_bytes())
    told = [[child.tag for child in case] for case in root.iter("testcase")]
    assert told == [[], ["failure"], ["skipped"]]


def test_an_interrupt_of_a_cell_that_runs_a_notebook_leaves_all_in_order(project_folder: Path, kernel: Any) -> None:
    notebook(project_folder, "x = 1", SLEEPS, "y = 2")
    ask = kernel.client.execute("%load_ext jupyter_mlops\n%mlops run a.ipynb")
    inner = pid_in(project_folder)
    kernel.manager.interrupt_kernel()
    reply: Any = {}
    while reply.get("parent_header", {}).get("msg_id") != ask:
        reply = kernel.client.get_shell_msg(timeout=100)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    check_partial(project_folder, "a.out.ipynb", inner)
    again = kernel.client.execute_interactive("", user_expressions={"one": "1 + 1"}, timeout=60)
    assert again["content"]["user_expressions"]["one"]["data"]["text/plain"] == "2", "the kernel itself goes on"


def test_widgets_leave_no_state_and_a_static_page_shows_something(tmp_path: Path) -> None:
    from nbconvert import HTMLExporter

    path = notebook(tmp_path, "import ipywidgets\nipywidgets.IntSlider(value=7)")
    Project.open(tmp_path)
    assert shell(tmp_path, "run", path.name).returncode == 0
    book = nbformat.read(tmp_path / "a.out.ipynb", 4)
    assert "widgets" not in book.metadata
    page, _ = HTMLExporter().from_notebook_node(book)
    assert "IntSlider(value=7)" in page


# -- the documented workflow -------------------------------------------------------------------------------------------


def test_the_workflow_of_the_docs_is_one_and_its_commands_exist() -> None:
    text = (Path(__file__).parent.parent / "docs" / "ci.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    steps = yaml.safe_load(block)["jobs"]["train"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("mlops")]
    assert len(commands) == 3
    for line in commands:
        words = shlex.split(line)[1:]
        command: click.Command = cli.mlops
        context = click.Context(command, info_name="mlops")
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(str(command.name), words, parent=context)
