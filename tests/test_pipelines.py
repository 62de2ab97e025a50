"""Headless runs: what a notebook is given, what comes out on disk, and what is on record."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from jupyter_mlops import pipelines
from jupyter_mlops.objects import replace_file
from jupyter_mlops.pipelines import OutputNotebook, OutputRefused, Parameter, ParametersInvalid
from jupyter_mlops.pipelines.outputs import output_path
from jupyter_mlops.pipelines.parameters import assigned
from jupyter_mlops.pipelines.words import parse_yaml
from jupyter_mlops.project import Project

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
DECLARED = """\
alpha: float = 1.0  # size of a step
epochs = 3  # passes over the data
name = "base"
shuffle: bool = True
limit: int | None = None
columns: list[str] = ["a", "b"]
mode: Literal["fast", "slow"] = "fast"
start = compute()
anything = None
"""


def notebook(path: Path, *sources: str, parameters: str | None = None, **metadata: Any) -> Path:
    cells = [new_markdown_cell("# A title")]
    if parameters is not None:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source) for source in sources]
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place}"
    nbformat.write(new_notebook(cells=cells, metadata={**KERNEL, **metadata}), path)
    return path


def shown(path: Path) -> dict[str, str]:
    """The text that each code cell of a notebook printed or displayed, by cell id."""
    found = {}
    for cell in json.loads(path.read_text())["cells"]:
        texts = []
        for output in cell.get("outputs", ()):
            texts += (
                output.get("text", ()) or output.get("data", {}).get("text/plain", ()) or [output.get("evalue", "")]
            )
        found[cell["id"]] = "".join(texts)
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.open(tmp_path)


# -- parameters ------------------------------------------------------------------------------------------------------


def test_the_parameters_cell_is_read_with_types_defaults_and_help(tmp_path: Path) -> None:
    found = {one.name: one for one in pipelines.inspect_parameters(notebook(tmp_path / "a.ipynb", parameters=DECLARED))}
    assert [(one.name, one.type, one.default) for one in found.values()] == [
        ("alpha", "float", 1.0), ("epochs", "int", 3), ("name", "str", "base"), ("shuffle", "bool", True),
        ("limit", "int | None", None), ("columns", "list[str]", ["a", "b"]),
        ("mode", "Literal['fast', 'slow']", "fast"), ("start", "", None), ("anything", "", None),
    ]  # fmt: skip
    assert found["alpha"].help == "size of a step"
    assert found["start"].computed
    assert str(found["epochs"]) == "epochs: int = 3  # passes over the data"


def test_a_type_may_stand_in_a_comment_as_papermill_has_it() -> None:
    assert assigned("a = None  # type: int how many")[0] == Parameter(
        name="a", type="int", source="None", help="how many"
    )


def test_a_parameters_cell_with_magics_or_a_mistake_is_still_read_or_declares_nothing() -> None:
    assert [one.name for one in assigned("%matplotlib inline\na = 1\n!ls\nb = 2")] == ["a", "b"]
    assert assigned("a = = 1") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 2), ("alpha", 0.5), ("epochs", 10), ("name", "x"), ("shuffle", False), ("limit", None), ("limit", 4),
        ("columns", ["c"]), ("mode", "slow"), ("start", "2013-01-01"), ("anything", {"a": [1, None]}),
    ],
)  # fmt: skip
def test_values_of_the_declared_type_are_taken(name: str, value: Any) -> None:
    pipelines.validate({name: value}, assigned(DECLARED))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", "0.5"), ("alpha", True), ("epochs", 0.5), ("epochs", True), ("epochs", None), ("name", 1),
        ("shuffle", 1), ("limit", "x"), ("columns", [1]), ("columns", "ab"), ("mode", "medium"), ("anything", object()),
        ("anything", {1: 2}), ("anything", {3, 4}),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused_with_what_the_notebook_takes(name: str, value: Any) -> None:
    with pytest.raises(ParametersInvalid) as refused:
        pipelines.validate({name: value}, assigned(DECLARED))
    assert refused.value.exit_code == 2
    assert "epochs: int = 3  # passes over the data" in str(refused.value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ParametersInvalid, match=r"unknown parameter epoch \(is it epochs\?\)"):
        pipelines.validate({"epoch": 3}, assigned(DECLARED))


@pytest.mark.parametrize(
    "name", ["x=1;import os;y", "a b", "", "class", "None", "__builtins__", "1a", "a.b", "x\n", "ﬁt", 3, "a-b"]
)
def test_a_name_that_would_be_code_is_refused_also_where_the_notebook_can_not_be_read(name: Any) -> None:
    with pytest.raises(ParametersInvalid):
        pipelines.validate({name: 1}, None)
    with pytest.raises(ParametersInvalid):
        pipelines.validate({name: 1}, [Parameter(name=str(name))])


@given(st.text(max_size=12))
def test_no_accepted_name_is_anything_but_one_name(name: str) -> None:
    import ast

    try:
        pipelines.validate({name: 1}, None)
    except ParametersInvalid:
        return
    [statement] = ast.parse(f"{name} = 1").body
    assert isinstance(statement, ast.Assign)
    assert isinstance(statement.targets[0], ast.Name)
    assert statement.targets[0].id == name


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("alpha", "0.5", 0.5), ("alpha", "2", 2.0), ("alpha", "1e-3", 1e-3), ("alpha", "inf", float("inf")),
        ("epochs", "10", 10), ("name", "10", "10"), ("name", "True", "True"), ("shuffle", "false", False),
        ("limit", "None", None), ("limit", "7", 7), ("columns", '["c", "d"]', ["c", "d"]), ("columns", "['c']", ["c"]),
        ("mode", "slow", "slow"), ("anything", "3", 3), ("anything", "a b", "a b"), ("anything", "2024_01", "2024_01"),
        ("start", "2013-01-01", "2013-01-01"),
    ],
)  # fmt: skip
def test_a_word_of_the_shell_is_read_as_the_declared_type(name: str, word: str, value: Any) -> None:
    read = pipelines.parse_parameter(name, word, assigned(DECLARED))
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(("name", "word"), [("alpha", "much"), ("epochs", "0.5"), ("shuffle", "1"), ("mode", "medium")])
def test_a_word_that_is_not_of_the_declared_type_is_refused(name: str, word: str) -> None:
    with pytest.raises(ParametersInvalid, match=f"{name} is to be"):
        pipelines.parse_parameter(name, word, assigned(DECLARED))


def test_a_parameters_file_gives_plain_values_and_words_go_over_it(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", parameters=DECLARED)
    (tmp_path / "p.yaml").write_text("alpha: 0.5\nstart: 2013-01-01\ncolumns: [a]\nname: base\n")
    assert pipelines.read_parameters(path, [("name", "other")], tmp_path / "p.yaml") == {
        "alpha": 0.5, "start": "2013-01-01", "columns": ["a"], "name": "other",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["a: &x [1]\nb: *x", "a: !!python/object/apply:os.getcwd []", "a: 1\na: 2", "[1, 2]", "a: [", "[" * 100_000,
     "a" * 2**21],
)  # fmt: skip
def test_a_parameters_file_that_is_odd_or_a_bomb_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ParametersInvalid):
        pipelines.read_parameters_file(tmp_path / "p.yaml")


def test_an_empty_parameters_file_gives_nothing() -> None:
    assert parse_yaml("# nothing\n") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 4}', '{"nbformat": 4, "cells": [1]}', "[" * 200_000])
def test_what_is_no_notebook_is_said_to_be_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(pipelines.NotebookUnreadable, match="is no notebook"):
        pipelines.inspect_parameters(tmp_path / "a.ipynb")
    with pytest.raises(pipelines.NotebookUnreadable, match="there is no notebook"):
        pipelines.inspect_parameters(tmp_path / "b.ipynb")


# -- the output's path -----------------------------------------------------------------------------------------------


def test_the_outputs_path_takes_values_of_given_parameters() -> None:
    given = {"alpha": 0.5, "n": -3, "name": "v1.2", "on": True}
    assert output_path("out/{name}-{alpha}{n}-{on}.ipynb", given) == Path("out/v1.2-0.5-3-True.ipynb")


@pytest.mark.parametrize(
    "template",
    ["{beta}.ipynb", "{up}.ipynb", "{name.__class__}.ipynb", "{name!r}.ipynb", "{name:>99999999}", "{0}", "{}", "a{",
     "}b", "{{name}}.ipynb", "{row}.ipynb", "{dot}.ipynb", "-", "s3://bucket/o.ipynb", "http://host/o.ipynb",
     "s3:/bucket/o.ipynb"],
)  # fmt: skip
def test_an_outputs_path_that_is_not_local_or_reaches_further_is_refused(template: str) -> None:
    given = {"name": "x", "up": "../../x", "row": [1], "dot": ".hidden"}
    with pytest.raises(OutputRefused) as refused:
        output_path(template, given)
    assert refused.value.exit_code == 2


def test_a_link_a_folder_a_read_only_file_and_a_missing_folder_are_refused_before_anything_runs(
    tmp_path: Path, project: Project
) -> None:
    path = notebook(tmp_path / "a.ipynb", "open('ran', 'w')")
    (tmp_path / "target.ipynb").write_text("{}")
    (tmp_path / "link.ipynb").symlink_to("target.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "kept.ipynb").write_text("{}")
    (tmp_path / "kept.ipynb").chmod(0o444)
    for name, why in {
        "link.ipynb": "symbolic link", "folder.ipynb": "no regular file", "kept.ipynb": "read-only",
        "none/o.ipynb": "no folder", "a.ipynb": "the notebook itself",
    }.items():  # fmt: skip
        with pytest.raises(OutputRefused, match=why):
            pipelines.run_notebook(path, output=tmp_path / name, project=project)
    assert not (tmp_path / "ran").exists()
    assert (tmp_path / "target.ipynb").read_text() == "{}"


# -- writing the output ----------------------------------------------------------------------------------------------

LINES = st.text(st.characters(codec="utf-8"), max_size=30)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LINES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINES, inner, max_size=3),
    max_leaves=8,
)
BUNDLES = st.dictionaries(
    st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml", "application/javascript"]),
    LINES,
    max_size=3,
) | st.builds(lambda value: {"application/json": value}, st.dictionaries(LINES, PLAIN, max_size=3))
OUTPUTS = (
    st.builds(
        lambda text, name: new_output("stream", name=name, text=text), LINES, st.sampled_from(["stdout", "stderr"])
    )
    | st.builds(lambda data: new_output("display_data", data=data), BUNDLES)
    | st.builds(lambda data: new_output("execute_result", data=data, execution_count=1), BUNDLES)
    | st.builds(lambda text: new_output("error", ename="E", evalue=text, traceback=[text]), LINES)
)
METADATA = st.dictionaries(LINES | st.just("trusted"), PLAIN, max_size=3)
CELLS = (
    st.builds(lambda source, outputs, data: new_code_cell(source, outputs=outputs, metadata=data),
              LINES, st.lists(OUTPUTS, max_size=3), METADATA)
    | st.builds(lambda source, data: new_markdown_cell(source, metadata=data), LINES, METADATA)
    | st.builds(lambda source, data: new_markdown_cell(source, attachments={"a.png": data}), LINES, BUNDLES)
)  # fmt: skip
NOTEBOOKS = st.builds(
    lambda cells, data: new_notebook(cells=cells, metadata=data),
    st.lists(CELLS, max_size=4),
    st.dictionaries(LINES | st.just("signature"), PLAIN, max_size=3),
)


def as_nbformat_writes(nb: Any) -> bytes:
    file = io.StringIO()
    nbformat.write(nb, file)
    return file.getvalue().encode()


@pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId")
@settings(max_examples=200, deadline=None)
@given(NOTEBOOKS)
def test_the_bytes_are_those_of_nbformat(nb: Any) -> None:
    for place, cell in enumerate(nb.cells):
        cell["id"] = str(place)
    output = OutputNotebook(nb, None)
    expected = as_nbformat_writes(nb)
    assert b"".join(output.parts()) == expected
    assert b"".join(output.parts()) == expected, "the second time, from what is kept"


def test_an_updated_display_and_a_new_output_are_seen_though_outputs_are_turned_into_json_once() -> None:
    nb = new_notebook(cells=[new_code_cell("1", outputs=[new_output("display_data", data={"text/plain": "old"})])])
    output = OutputNotebook(nb, None)
    assert b"".join(output.parts()) == as_nbformat_writes(nb)
    nb.cells[0].outputs[0]["data"] = {"text/plain": "new"}
    nb.cells[0].outputs.append(new_output("stream", text="more"))
    assert b"".join(output.parts()) == as_nbformat_writes(nb)
    nb.cells[0].outputs[:] = []
    assert b"".join(output.parts()) == as_nbformat_writes(nb)


def test_what_json_can_not_hold_is_written_as_a_text_and_read_back() -> None:
    data = {"nan": float("nan"), "inf": float("-inf"), "half": "\ud800", "when": Path("x")}
    read = json.loads(b"".join(OutputNotebook(new_notebook(metadata=data), None).parts()), parse_constant=pytest.fail)
    assert read["metadata"] == {"nan": "NaN", "inf": "-Infinity", "half": "\ud800", "when": "x"}


def test_large_outputs_are_written_seldom_and_whole_at_the_end(tmp_path: Path) -> None:
    text = "".join(f"{n:>79}\n" for n in range(12_500))  # 1 MB
    nb = new_notebook()
    output = OutputNotebook(nb, tmp_path / "o.ipynb")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        if len(nb.cells) < 30:
            nb.cells.append(new_code_cell("x", outputs=[new_output("stream", text=text + str(len(nb.cells)))]))
        output.changed()
    elapsed = time.monotonic() - output.started
    assert output.writes >= 1
    assert output.writes <= elapsed / 1.0 + 1
    # Which share of the run that takes is for the bench to say: a busy machine may not fail a test.
    output.finish()
    assert (tmp_path / "o.ipynb").read_bytes() == as_nbformat_writes(nb)


def test_a_reader_never_finds_half_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "o.ipynb"
    over = threading.Event()

    def write() -> None:
        for size in range(1, 150):
            replace_file(path, [b'{"a": "', b"x" * size * 10_000, b'"}'], durable=False)
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not over.is_set():
        if path.exists():
            json.loads(path.read_bytes())
            reads += 1
    thread.join()
    assert reads
    assert [one.name for one in tmp_path.iterdir()] == ["o.ipynb"]


def test_a_writing_that_is_interrupted_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "o.ipynb"
    path.write_text("{}")

    def parts() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, parts(), durable=False)
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [None, 0o600])
def test_a_file_that_is_put_in_its_place_has_the_mode_that_is_asked_for(tmp_path: Path, there: int | None) -> None:
    path = tmp_path / "made.sh"
    if there is not None:
        path.touch(there)
    before = os.umask(0o077)
    try:
        replace_file(path, [b"#!/bin/sh\n"], durable=False, mode=0o755)
    finally:
        os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"#!/bin/sh\n", 0o755)


def test_the_mode_of_the_file_that_was_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "o.ipynb"
    path.write_text("{}")
    path.chmod(0o640)
    OutputNotebook(new_notebook(), path).finish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_disk_that_fails_in_between_is_tried_again_and_at_the_end_it_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    output = OutputNotebook(new_notebook(), folder / "o.ipynb")
    folder.rmdir()
    output.changed()
    assert output.writes == 0
    with pytest.raises(pipelines.OutputUnwritten, match="could not be written"):
        output.finish()
    folder.mkdir()
    output.finish()
    assert json.loads((folder / "o.ipynb").read_text())["cells"] == []


def test_drafts_of_killed_writers_are_swept_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, ours = tmp_path / f".o.ipynb.{gone.pid}.draft", tmp_path / f".o.ipynb.{os.getppid()}.draft"
    dead.write_text("")
    ours.write_text("")
    OutputNotebook(new_notebook(), tmp_path / "o.ipynb")
    assert (dead.exists(), ours.exists()) == (False, True)


# -- through papermill's own command ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def papermill_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which ``papermill`` finds our entry point, also in a checkout that is not installed."""
    root = Path(__file__).parents[1]
    paths = [str(root)]
    if not any(point.name == "mlops" for point in metadata.entry_points(group="papermill.engine")):
        folder = tmp_path_factory.mktemp("site")
        info = folder / "jupyter_mlops-0.dist-info"
        info.mkdir()
        points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["papermill.engine"]
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[papermill.engine]\n{lines}")
        paths.append(str(folder))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "default"}


def papermill(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "papermill", *words, "--engine", "mlops", "--no-progress-bar"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_grammar_that_no_notebook_needs_is_compiled_when_it_is_first_asked() -> None:
    pytest.importorskip("rfc3987_syntax", reason="needs what JupyterLab brings: pip install 'jupyter-mlops[lab]'")
    asked = """if True:
        import sys
        from jupyter_mlops.pipelines import lean
        import nbformat, jsonschema
        late = "rfc3987_syntax" not in sys.modules
        check = jsonschema.FormatChecker()
        said = [check.conforms(one, "iri") for one in ("https://exämple.org/ü", "no address")]
        print(late, said, "rfc3987_syntax" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "True [True, False] True"


def test_papermill_finds_the_engine_and_its_kernel_is_told_notebook_cell_and_run(
    tmp_path: Path, papermill_environment: dict[str, str]
) -> None:
    project = Project.open(tmp_path)
    notebook(
        tmp_path / "a.ipynb",
        "import os\nprint(os.environ['JUPYTER_MLOPS_NOTEBOOK'], os.environ['JUPYTER_MLOPS_HEADLESS'])",
        "get_ipython().get_parent()['metadata']['cellId']",
        "print(os.environ['JUPYTER_MLOPS_RUN'], os.environ['PYTHONHASHSEED'], alpha)",
        parameters="alpha = 1",
    )
    done = papermill(papermill_environment, tmp_path, "a.ipynb", "o.ipynb", "-p", "alpha", "2")
    assert done.returncode == 0, done.stderr
    cells = shown(tmp_path / "o.ipynb")
    assert cells["cell-2"] == f"{tmp_path / 'a.ipynb'} 1\n"
    assert cells["cell-3"] == "'cell-3'"
    [run] = project.store.runs()
    assert cells["cell-4"] == f"{run.id} 0 2\n"
    assert (run.status, run.started.trigger, run.started.notebook) == ("done", "papermill", "a.ipynb")
    assert run.started.parameters == {"alpha": 2}
    assert "injected-parameters" in cells


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("beta", "2"), "unknown parameter beta"),
        (("alpha", "much"), "alpha is to be int"),
        (("x=1;open('ran','w');y", "1"), "is no name for a parameter"),
    ],
)
def test_papermills_own_command_ends_with_2_and_runs_nothing_when_a_parameter_is_wrong(
    tmp_path: Path, papermill_environment: dict[str, str], given: tuple[str, str], why: str
) -> None:
    notebook(tmp_path / "a.ipynb", "open('ran', 'w')", parameters="alpha = 1  # a step")
    done = papermill(papermill_environment, tmp_path, "a.ipynb", "o.ipynb", "-p", *given)
    assert done.returncode == 2
    assert why in done.stderr
    assert "alpha: int = 1  # a step" in done.stderr or "no name" in why
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_papermills_own_last_save_of_a_failed_run_is_atomic_and_carries_its_note(
    tmp_path: Path, papermill_environment: dict[str, str]
) -> None:
    notebook(tmp_path / "a.ipynb", "1/0", "print('never')")
    (tmp_path / "o.ipynb").write_text("{}")
    before = (tmp_path / "o.ipynb").stat().st_ino
    done = papermill(papermill_environment, tmp_path, "a.ipynb", "o.ipynb")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert (tmp_path / "o.ipynb").stat().st_ino != before
    book = json.loads((tmp_path / "o.ipynb").read_text())
    assert book["metadata"]["papermill"]["exception"] is True
    assert "papermill-error-cell-tag" in book["cells"][0]["metadata"]["tags"]
    assert shown(tmp_path / "o.ipynb")["cell-2"] == ""
    [run] = Project.open(tmp_path).store.runs()
    assert run.status == "failed"
    assert "ZeroDivisionError: division by zero" in (run.ended.error if run.ended else "")


def test_papermill_may_still_save_only_at_the_end_and_write_to_its_own_places(
    tmp_path: Path, papermill_environment: dict[str, str]
) -> None:
    notebook(tmp_path / "a.ipynb", "import os; print(os.path.exists('o.ipynb'))")
    quiet = papermill(papermill_environment, tmp_path, "a.ipynb", "o.ipynb", "--no-request-save-on-cell-execute")
    assert quiet.returncode == 0, quiet.stderr
    assert shown(tmp_path / "o.ipynb")["cell-1"] == "False\n"
    piped = papermill(papermill_environment, tmp_path, "a.ipynb", "-")
    assert piped.returncode == 0, piped.stderr
    assert json.loads(piped.stdout)["cells"][1]["outputs"][0]["text"] == ["True\n"]


# -- run_notebook ----------------------------------------------------------------------------------------------------


def test_a_run_with_parameters_is_on_record_with_its_output(tmp_path: Path, project: Project) -> None:
    (tmp_path / "sub").mkdir()
    path = notebook(
        tmp_path / "sub" / "a.ipynb",
        "print(alpha, len(api_key), api_key); open('here', 'w')",
        parameters="alpha = 1.0\napi_key = ''",
    )
    given = {"alpha": 2, "api_key": "zq81-kkfu-27ab-plw9"}
    result = pipelines.run_notebook(path, output=tmp_path / "o{alpha}.ipynb", parameters=given, project=project)
    assert (result.status, result.error, result.cells) == ("done", None, 3)
    assert result.output == tmp_path / "o2.ipynb"
    assert shown(result.output)["cell-2"].startswith("2 19 <redacted:")
    assert "zq81" not in result.output.read_text()
    assert (tmp_path / "sub" / "here").exists(), "the kernel runs in the notebook's folder"
    assert 0 < result.write_seconds < result.seconds
    assert result.run is not None
    run = project.store.run(result.run)
    assert run.started.notebook == "sub/a.ipynb"
    assert run.started.parameters["alpha"] == 2
    assert "zq81" not in str(run.started.parameters)
    assert run.ended is not None
    [artifact] = run.ended.outputs
    assert (artifact.name, artifact.size) == ("o2.ipynb", result.output.stat().st_size)
    from jupyter_mlops.records import digest_of

    assert artifact.digest == digest_of(result.output.read_bytes())


def test_the_output_on_disk_follows_a_long_cell_within_seconds(tmp_path: Path, project: Project) -> None:
    # The cell itself looks at the file until what it has printed is there.
    source = (
        "import time, pathlib, json\nprint('mark' + 'er')\nuntil = time.monotonic() + 30\n"
        "while 'mark' 'er\\\\n' not in pathlib.Path('o.ipynb').read_text() and time.monotonic() < until:\n"
        "    time.sleep(.05)\n"
        "json.loads(pathlib.Path('o.ipynb').read_text())\nprint('seen', time.monotonic() < until)"
    )
    result = pipelines.run_notebook(
        notebook(tmp_path / "a.ipynb", source), output=tmp_path / "o.ipynb", project=project
    )
    assert shown(result.output)["cell-1"] == "marker\nseen True\n"


def test_values_arrive_in_the_kernel_as_they_were_given(tmp_path: Path, project: Project) -> None:
    text = "a\"b'c\\n{x}\n\t\u2028é\ud800"
    given = {"a": text, "b": [1, [float("inf")], {"k'\"": None}], "c": (1, "x"), "d": -(2**70), "e": False}
    names = "\n".join(f"{name} = None" for name in given)
    path = notebook(tmp_path / "a.ipynb", "print(ascii([a, b, c, d, e]))", parameters=names)
    result = pipelines.run_notebook(path, parameters=given, project=project)
    assert shown(result.output)["cell-2"].strip() == ascii([*list(given.values())[:2], [1, "x"], -(2**70), False])


def test_the_bar_names_the_cell_and_its_heading_and_is_off_where_nobody_looks(tmp_path: Path) -> None:
    import pty
    import termios

    notebook(tmp_path / "a.ipynb", "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)")
    run = "from jupyter_mlops.pipelines import *; from jupyter_mlops.project import Project; from pathlib import Path\n"
    run += "run_notebook(Path('a.ipynb'), project=Project.open(Path('.')), progress=True)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, 100))
    told = b""
    process = subprocess.Popen([sys.executable, "-c", run], cwd=tmp_path, env=environment, stderr=inner)
    os.close(inner)
    while True:
        try:
            told += os.read(terminal, 4096)
        except OSError:  # Linux says so at the end
            break
        if b"this cell" in told:
            (tmp_path / "go").touch()
    os.close(terminal)
    assert process.wait() == 0
    assert "cell 2 · A title" in told.decode()
    assert re.search(r"this cell [1-9]\d* s", told.decode()), "how long the present cell has been running"
    quiet = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert quiet.returncode == 0
    assert "cell" not in quiet.stderr.replace("no cell was recorded", "")


def test_a_failed_cell_is_named_with_line_and_error_and_what_follows_does_not_run(
    tmp_path: Path, project: Project
) -> None:
    path = notebook(tmp_path / "a.ipynb", "def f(x):\n    return 1 / x", "a = 0\nf(a)", "open('ran', 'w')")
    result = pipelines.run_notebook(path, project=project)
    assert result.output == tmp_path / "a.out.ipynb"
    assert result.status == "failed"
    error = result.error
    assert error is not None
    assert (error.cell, error.id, error.count) == (3, "cell-2", 2)
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "division by zero")
    assert (error.line, error.source) == (2, "f(a)")
    assert str(error).startswith("cell 3 (In [2]), line 2: f(a)\nZeroDivisionError: division by zero")
    assert not (tmp_path / "ran").exists()
    cells = json.loads(result.output.read_text())["cells"]
    assert next(cell for cell in cells if cell["id"] == "cell-2")["outputs"][0]["ename"] == "ZeroDivisionError"
    assert result.run is not None
    assert project.store.run(result.run).status == "failed"


def test_a_syntax_error_is_a_failure_with_its_line(tmp_path: Path, project: Project) -> None:
    result = pipelines.run_notebook(notebook(tmp_path / "a.ipynb", "a = 1\nb = = 2"), project=project)
    assert result.error is not None
    assert (result.error.ename, result.error.line, result.error.source) == ("SyntaxError", 2, "b = = 2")


def test_an_error_that_a_cell_may_raise_and_an_exit_end_no_run_as_failed(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path / "a.ipynb", "1/0", "import sys\nsys.exit(0)", "open('ran', 'w')")
    book = nbformat.read(path, as_version=4)
    book.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(book, path)
    result = pipelines.run_notebook(path, project=project)
    assert (result.status, result.error) == ("done", None)
    assert not (tmp_path / "ran").exists()


def test_wrong_parameters_are_refused_before_a_run_is_on_record(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path / "a.ipynb", "open('ran', 'w')", parameters="alpha = 1")
    for parameters in ({"beta": 1}, {"alpha": "x"}, {"alpha=1;x": 1}):
        with pytest.raises(ParametersInvalid):
            pipelines.run_notebook(path, parameters=parameters, project=project)
    bare = notebook(tmp_path / "b.ipynb", "open('ran', 'w')")
    with pytest.raises(ParametersInvalid, match="none of its cells has the tag 'parameters'"):
        pipelines.run_notebook(bare, parameters={"alpha": 1}, project=project)
    assert not (tmp_path / "ran").exists()
    assert project.store.runs() == []


def test_a_kernel_that_is_not_installed_is_named_with_those_that_are(tmp_path: Path, project: Project) -> None:
    path = notebook(
        tmp_path / "a.ipynb", "1", kernelspec={"name": "gone", "display_name": "Gone", "language": "python"}
    )
    with pytest.raises(pipelines.KernelMissing, match=r"no kernel 'gone' here: installed are: .*python3"):
        pipelines.run_notebook(path, project=project)
    assert pipelines.run_notebook(path, kernel="python3", project=project).status == "done"


def test_a_cell_that_runs_too_long_is_interrupted_and_shows_where_it_hung(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path / "a.ipynb", "import time\nprint('before')\ntime.sleep(600)", "open('ran', 'w')")
    result = pipelines.run_notebook(path, cell_timeout=2, project=project)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.ename, result.error.evalue) == ("CellTimeoutError", "the cell ran longer than 2 s")
    assert (result.error.line, result.error.source) == (3, "time.sleep(600)")
    assert "before" in shown(result.output)["cell-1"]
    assert not (tmp_path / "ran").exists()


def test_a_kernel_that_ignores_the_interrupt_is_killed_with_what_it_started(tmp_path: Path, project: Project) -> None:
    source = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sleep = 'import time, signal; signal.signal(2, signal.SIG_IGN); time.sleep(600)'\n"
        "child = subprocess.Popen([sys.executable, '-c', sleep])\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "while True: time.sleep(1)"
    )
    result = pipelines.run_notebook(notebook(tmp_path / "a.ipynb", source), timeout=4, project=project)
    assert result.error is not None
    assert "the run took longer than 4 s; the kernel ignored the interrupt and was killed" in result.error.evalue
    for pid in (tmp_path / "pids").read_text().split():
        assert gone(int(pid))


def gone(pid: int, within: float = 10) -> bool:
    """Whether a process ends (or is a zombie) in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_the_kernels_death_is_reported_by_name(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path / "a.ipynb", "print('last words', flush=True)\nimport os\nos.kill(os.getpid(), 9)")
    result = pipelines.run_notebook(path, project=project)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.cell, result.error.ename) == (2, "DeadKernelError")
    assert "the kernel was killed by SIGKILL" in result.error.evalue
    assert "DeadKernelError" in (tmp_path / "a.out.ipynb").read_text()


def test_cells_without_an_id_get_the_same_one_in_every_run(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path / "a.ipynb", "1", "1", "2", parameters="alpha = 1")
    book = json.loads(path.read_text())
    book["nbformat_minor"] = 4
    for cell in book["cells"]:
        del cell["id"]
    path.write_text(json.dumps(book))
    seen = []
    for name, alpha in (("o", 1), ("p", 2)):
        pipelines.run_notebook(path, output=tmp_path / f"{name}.ipynb", parameters={"alpha": alpha}, project=project)
        out = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        nbformat.validate(out)
        seen.append([cell["id"] for cell in out.cells])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 6


ECHO = """\
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Echo(Kernel):
    implementation, implementation_version, banner = "echo", "1", "echo"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": code})
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Echo)
"""


def echo(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook of a kernel of another language, whose code that is."""
    kernel = folder / "jupyter" / "kernels" / "echo"
    kernel.mkdir(parents=True)
    (folder / "echo.py").write_text(code)
    argv = [sys.executable, str(folder / "echo.py"), "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Echo", "language": "echo"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    spec = {"name": "echo", "display_name": "Echo", "language": "echo"}
    return notebook(folder / "a.ipynb", "hello", kernelspec=spec)


def test_a_notebook_of_another_language_runs_with_a_gap(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = echo(tmp_path, ECHO, monkeypatch)
    result = pipelines.run_notebook(path, project=project)
    assert result.status == "done"
    assert shown(result.output)["cell-1"] == "hello"
    assert result.run is not None
    ended = project.store.run(result.run).ended
    assert ended is not None
    assert [gap.subject for gap in ended.gaps] == ["cells"]
    assert "the kernel's language is echo" in ended.gaps[0].reason
    assert "capture is off" in caplog.text


HUSHED = """\
    def _publish_status(self, status, channel, parent=None):
        asked = (parent or self.get_parent(channel)).get("header", {}).get("msg_type")
        if status != "idle" or asked != "kernel_info_request":
            super()._publish_status(status, channel, parent)

IPKernelApp"""


def test_a_kernel_that_never_says_that_it_is_idle_after_the_first_question_is_used_all_the_same(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = echo(tmp_path, ECHO.replace("\nIPKernelApp", f"\n{HUSHED}"), monkeypatch)
    result = pipelines.run_notebook(path, project=project)
    assert result.status == "done"
    assert shown(result.output)["cell-1"] == "hello"


def test_a_kernel_that_does_not_end_when_asked_is_ended(tmp_path: Path, project: Project) -> None:
    source = (
        "import atexit, os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "atexit.register(time.sleep, 600)\n"
        "print(os.getpid())"
    )
    result = pipelines.run_notebook(notebook(tmp_path / "a.ipynb", source), project=project)
    assert result.status == "done"
    assert gone(int(shown(result.output)["cell-1"]))


def test_a_kernel_without_our_package_runs_the_notebook_with_a_gap(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "jupyter_mlops.py").write_text("raise ModuleNotFoundError('no jupyter_mlops here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hide"))
    result = pipelines.run_notebook(notebook(tmp_path / "a.ipynb", "print(1)", "2"), project=project)
    assert result.status == "done"
    assert shown(result.output) == {"cell-0": "", "cell-1": "1\n", "cell-2": "2"}
    assert [cell.get("execution_count") for cell in json.loads(result.output.read_text())["cells"]] == [None, 1, 2]
    assert "no jupyter_mlops here" in result.gaps[0].reason
    assert "capture is off" in caplog.text


def test_a_nested_run_names_its_parent(tmp_path: Path) -> None:
    parent = "blake3:" + "ab" * 32
    project = Project.open(tmp_path)
    inner = Project(tmp_path, environ={**os.environ, "JUPYTER_MLOPS_RUN": parent})
    result = pipelines.run_notebook(notebook(tmp_path / "a.ipynb", "1"), project=inner)
    assert result.run is not None
    inner.store.close()
    assert project.store.run(result.run).started.parent == parent


def test_a_notebook_can_be_run_from_within_a_running_event_loop(tmp_path: Path, project: Project) -> None:
    import asyncio

    async def main() -> str:
        return pipelines.run_notebook(notebook(tmp_path / "a.ipynb", "1"), project=project).status

    assert asyncio.run(main()) == "done"


def test_a_store_that_can_not_be_written_stops_no_notebook(
    tmp_path: Path, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    journal = project.root / ".mlops" / "journal"
    project.store.close()
    for one in journal.glob("*"):
        one.unlink()
    journal.rmdir()
    journal.write_text("no folder")
    result = pipelines.run_notebook(notebook(tmp_path / "a.ipynb", "print(1)"), project=Project(tmp_path))
    assert (result.status, result.run) == ("done", None)
    assert shown(result.output)["cell-1"] == "1\n"
    assert "this run is not on record" in caplog.text


# -- with capture in the kernel --------------------------------------------------------------------------------------


def test_each_executed_cell_has_one_record_with_its_id_and_notebook_and_outputs_are_those_without_capture(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = notebook(
        tmp_path / "a.ipynb",
        "import random\nprint('a')\nxs = [alpha]",
        "xs.append(2)\nxs",
        "%time y = 3",
        "",
        "from IPython.display import display, HTML\n"
        "h = display(HTML('<b>x</b>'), display_id=True)\nh.update(HTML('<i>y</i>'))",
        "sorted({str(n) for n in range(9)}, key=hash), get_ipython().execution_count, sorted(set(globals()) - {'_ih'})",
        "1 / 0",
        "print('never')",
        parameters="alpha = 1",
    )
    monkeypatch.setenv("JUPYTER_MLOPS_STRICT", "1")
    result = pipelines.run_notebook(path, output=tmp_path / "with.ipynb", parameters={"alpha": 5}, project=project)
    assert result.gaps == []
    assert result.status == "failed"
    runs = project.store.cell_runs(run=result.run, newest_first=False)
    ran = ["cell-1", "injected-parameters", "cell-2", "cell-3", "cell-4", "cell-6", "cell-7", "cell-8"]
    assert [one.started.cell for one in runs] == ran
    assert {one.started.notebook for one in runs} == {"a.ipynb"}
    assert [one.status for one in runs] == ["done"] * 7 + ["error"]
    assert [run.id for run in project.store.runs()] == [result.run], "the kernel's cells belong to this run"

    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "jupyter_mlops.py").write_text("raise ModuleNotFoundError('no jupyter_mlops here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hide"))
    bare = pipelines.run_notebook(path, output=tmp_path / "bare.ipynb", parameters={"alpha": 5}, project=project)
    assert bare.gaps
    assert project.store.cell_runs(run=bare.run) == []

    def comparable(name: str) -> list[Any]:
        cells = json.loads((tmp_path / name).read_text())["cells"]
        return [
            # `%time` tells a time, which is another each time
            (
                [] if cell["source"][:1] == ["%time y = 3"] else cell.get("outputs"),
                cell.get("execution_count"),
                cell["source"],
            )
            for cell in cells
            if "papermill-error-cell-tag" not in cell["metadata"]["tags"]
        ]

    assert comparable("with.ipynb") == comparable("bare.ipynb")
