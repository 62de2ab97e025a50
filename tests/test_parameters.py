"""What a notebook is given: listed, read from words and files, and kept nowhere where it is secret."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_mlops import pipelines
from jupyter_mlops.pipelines import ParametersInvalid, Secret
from jupyter_mlops.pipelines.parameters import assigned, convert
from jupyter_mlops.pipelines.secret import Masking, split
from jupyter_mlops.project import Project
from jupyter_mlops.redact import Redactor

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
DECLARED = """\
alpha: float = 1.0  # size of a step
name = "base"
token = ""  # to fetch the data with
key: "Secret" = "an old default 0a1b2c"  # of the store
code: "Secret[int]" = 0
phrase = ""  # secret: what opens the door
"""
# Neither has a form that any rule knows: only that they were given as secrets can keep them out.
WORD = "correct horse & battery <staple>"
PHRASE = "plain words over\nseveral 'lines' of \"text\" é"


def notebook(folder: Path, *sources: str, parameters: str = DECLARED) -> Path:
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place}"
    path = folder / "a.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def spellings(secret: str) -> list[bytes]:
    """What would give a secret away in a file: as it is, in JSON, in a literal, in HTML, in base64, in hex."""
    import html

    found = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    found |= {html.escape(secret), base64.b64encode(secret.encode()).decode().rstrip("="), secret.encode().hex()}
    return [one.encode() for one in found]


def holds(folder: Path, *secrets: str) -> list[tuple[str, str]]:
    """The files under a folder that hold a secret in some spelling; every byte is looked at."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found += [(path.name, secret) for secret in secrets if any(one in content for one in spellings(secret))]
    return found


def shell(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", *words], cwd=folder, env={**os.environ, **environ},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.open(tmp_path)


# -- declared, listed, read ------------------------------------------------------------------------------------------


def test_secrets_are_declared_by_name_annotation_or_comment() -> None:
    found = {one.name: one for one in assigned(DECLARED)}
    assert [name for name, one in found.items() if one.secret] == ["token", "key", "code", "phrase"]
    assert [found[name].type for name in ("key", "code", "phrase")] == ["str", "int", "str"]
    assert found["phrase"].help == "what opens the door"
    assert [one.secret for one in assigned("alpha = 1  # secret sauce\nbeta = 2  # secretly")] == [False, False]


def test_the_listing_tells_names_types_defaults_and_help_and_no_secrets_default(tmp_path: Path) -> None:
    notebook(tmp_path)
    told = shell(tmp_path, "run", "a.ipynb", "--parameters")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert "6 parameters" in lines[0]
    assert any(line.split() == ["alpha", "float", "1.0", "size", "of", "a", "step"] for line in lines)
    assert any(line.split()[:1] == ["key"] and line.endswith("secret") for line in lines)
    assert "0a1b2c" not in told.stdout
    listed = json.loads(shell(tmp_path, "run", "a.ipynb", "--parameters", "--json").stdout)
    assert [(one["name"], one["type"]) for one in listed][:2] == [("alpha", "float"), ("name", "str")]
    assert listed[0]["default"] == 1.0
    assert "0a1b2c" not in json.dumps(listed)
    assert not (tmp_path / "a.out.ipynb").exists(), "nothing ran"


def test_words_files_yaml_and_base64_go_over_each_other_in_papermills_order(tmp_path: Path) -> None:
    path = notebook(tmp_path, parameters="a: float = 0\nb = 0\nc = ''\nd = 0\ne = ''")
    (tmp_path / "p.yaml").write_text("a: 2\nb: 2\nc: two\nd: 2\n")
    (tmp_path / "q.json").write_text('{"b": 3}')
    found = pipelines.read_parameters(
        path, [("d", "5")], [tmp_path / "p.yaml", tmp_path / "q.json"], yaml=["c: four", "{d: 4}"],
        coded=[base64.b64encode(b"a: 1\ne: one").decode()], raw=[("e", "06")],
    )  # fmt: skip
    assert found == {"a": 2.0, "e": "06", "b": 3, "c": "four", "d": 5}
    assert type(found["a"]) is float, "a whole number is written as the declared float"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"coded": ["%%%"]}, "base64"), ({"yaml": ["[1]"]}, "no mapping"), ({"yaml": ["a: b: hunter2"]}, "line 1"),
        ({"pairs": [("a", "@env:NOT_THERE")]}, "no variable 'NOT_THERE'"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_refused_without_showing_it(options: Any, why: str, tmp_path: Path) -> None:
    path = notebook(tmp_path, parameters="a = 0")
    with pytest.raises(ParametersInvalid, match=why) as refused:
        pipelines.read_parameters(path, environ={}, **options)
    assert "hunter2" not in str(refused.value)


def test_numbers_of_numpy_and_paths_become_what_can_be_written_into_a_cell() -> None:
    found = convert({"a": np.float32(0.5), "b": np.int64(3), "c": Path("x") / "y", "d": np.bool_(True)})
    assert found == {"a": 0.5, "b": 3, "c": str(Path("x", "y")), "d": True}
    assert [type(value) for value in found.values()] == [float, int, str, bool]


def test_a_secret_is_not_shown_where_it_is_refused_printed_or_pickled() -> None:
    import pickle

    known = assigned(DECLARED)
    for given_ in ({"code": "hunter2hunter2"}, {"alpha": Secret("hunter2hunter2")}):
        with pytest.raises(ParametersInvalid) as refused:
            pipelines.validate(given_, known)
        assert "is to be" in str(refused.value)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(ParametersInvalid) as refused:
        pipelines.parse_parameter("code", "hunter2hunter2", known)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in f"{Secret('hunter2hunter2')}{[Secret('hunter2hunter2')]!r}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret("hunter2hunter2"))


def test_what_is_secret_is_told_by_declaration_name_wrapper_and_value() -> None:
    seen, hidden = split(
        {"alpha": 0.5, "name": "x", "token": "", "key": "kkkkkkkk", "code": 123456, "phrase": "pppppppp",
         "url": "postgres://ana:hunter2hunter2@host/db", "other": Secret("oooooooo"), "api_key": "aaaaaaaa"},
        assigned(DECLARED), Redactor(),
    )  # fmt: skip
    assert seen == {"alpha": 0.5, "name": "x", "token": ""}
    assert list(hidden) == ["key", "code", "phrase", "url", "other", "api_key"]


@given(st.text(st.sampled_from("abc"), max_size=40), st.lists(st.integers(1, 9), max_size=8), st.data())
def test_a_secret_is_masked_however_its_print_is_cut_into_pieces(rest: str, sizes: list[int], data: Any) -> None:
    secret = "hunter2hunter2"
    at = data.draw(st.integers(0, len(rest)))
    text = rest[:at] + secret + rest[at:]
    redactor = Redactor([secret])
    masking = Masking(redactor.known)
    outputs: list[Any] = []
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    for piece in [*pieces, text]:
        content = {"text": piece}
        masking.message(content)
        outputs.append({"output_type": "stream", "name": "stdout", "text": content["text"]})
        masking.seam(outputs)
    shown = "".join(output["text"] for output in outputs)
    assert secret not in shown
    assert shown == rest[:at] + "<redacted:known:1>" + rest[at:]


def test_a_secret_is_masked_across_the_end_of_a_long_print() -> None:
    masking = Masking(Redactor(["hunter2hunter2"]).known)
    outputs = [{"output_type": "stream", "name": "stdout", "text": "x" * 100_000 + "hunter2"},
               {"output_type": "stream", "name": "stdout", "text": "hunter2" + "y" * 100}]  # fmt: skip
    masking.seam(outputs)
    assert "".join(one["text"] for one in outputs) == "x" * 100_000 + "<redacted:known:1>" + "y" * 100


# -- secrets that are given ------------------------------------------------------------------------------------------

SHOWS = """\
import html, sys
from IPython.display import display, HTML
assert [token, phrase, code] == wanted, "the values arrived"
print(token, phrase, code)
print("bytes", token.encode().hex(), file=sys.stderr)
for letter in token: print(letter, end="", flush=True)
display(HTML(html.escape(token)), {"token": token})
held = {"inside": phrase}
token
"""
LOOKS = """import os, subprocess
table = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
own = open("/proc/self/cmdline").read() + open("/proc/self/environ").read() + str(dict(os.environ))
assert "ipykernel" in table and token not in table and token not in own
assert [line for line in In if token in line] == []
"""
RAISES = "raise ValueError(f'{token} and {phrase} are not taken')"


def test_secrets_reach_the_kernel_and_nothing_that_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    # What the values are compared with lies elsewhere.
    (tmp_path / "truth.py").write_text(f"wanted = [{WORD!r}, {PHRASE!r}, 123456789]\n")
    reads = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom truth import wanted"
    path = notebook(folder, reads, SHOWS, LOOKS, RAISES)
    project = Project.open(folder)
    result = pipelines.run_notebook(
        path, project=project, parameters={"token": WORD, "phrase": PHRASE, "code": 123456789, "alpha": 2.0}
    )
    assert result.error is not None
    assert result.error.ename == "ValueError", str(result.error)
    assert "are not taken" in result.error.evalue
    for secret in (WORD, PHRASE, "123456789"):
        assert secret not in str(result.error)
    assert holds(folder, WORD, PHRASE, "123456789") == []
    [run] = project.store.runs()
    assert run.started.parameters["alpha"] == 2.0
    assert all(run.started.parameters[name].startswith("<redacted:") for name in ("token", "phrase", "code"))
    book = json.loads(result.output.read_text())
    [injected] = [cell for cell in book["cells"] if "injected-parameters" in cell["metadata"].get("tags", [])]
    source = "".join(injected["source"])
    assert 'token = __import__("getpass").getpass("token")' in source
    assert "alpha = 2.0" in source
    assert book["metadata"]["papermill"]["parameters"]["token"].startswith("<redacted:")
    last = project.store.cell_runs(run=run.id)[0]
    assert last.status == "error"
    made = {one.name: one for each in project.store.cell_runs(run=run.id) for one in each.outputs}
    assert made["token"].digest is None
    assert made["phrase"].digest is None
    assert made["held"].digest is None, "what holds a secret has none either"
    assert made["alpha"].digest is not None
    assert not [problem for problem in project.store.fsck() if problem.severity == "damage"]


def test_a_secret_stands_in_no_command_line_where_it_comes_from_the_environment(tmp_path: Path) -> None:
    path = notebook(tmp_path, "print(len(token), token)", "print(len(phrase))")
    (tmp_path / "p.yaml").write_text('phrase: "@env:MY_PHRASE"\n')
    told = shell(
        tmp_path, "run", path.name, "-p", "token", "@env:MY_WORD", "-f", "p.yaml", MY_WORD=WORD, MY_PHRASE=PHRASE
    )
    assert told.returncode == 0, told.stderr
    assert WORD not in told.stdout + told.stderr
    assert holds(tmp_path, WORD, PHRASE) == []
    book = nbformat.read(tmp_path / "a.out.ipynb", 4)
    assert book.cells[2].outputs[0].text.startswith(f"{len(WORD)} <redacted:")
    assert book.cells[3].outputs[0].text == f"{len(PHRASE)}\n"


def test_a_target_gets_secrets_as_they_are_and_writes_none_down(tmp_path: Path) -> None:
    # The variable it comes from is the user's own, and the kernel has it as any process of theirs.
    looks = LOOKS.replace("environ", "cmdline").replace("os.cmdline", "{}")
    path = notebook(tmp_path, looks + "print(len(token), token, alpha)", RAISES)
    told = shell(
        tmp_path, "run", path.name, "-p", "token", "@env:MY_WORD", "-y", "{phrase: '@env:MY_PHRASE', alpha: 2}",
        "--target", "local", "--json", MY_WORD=WORD, MY_PHRASE=PHRASE,
    )  # fmt: skip
    assert told.returncode == 3, told.stderr
    assert "are not taken" in json.loads(told.stdout)["error"]
    assert not any(secret in told.stdout + told.stderr for secret in (WORD, PHRASE))
    assert holds(tmp_path, WORD, PHRASE) == []
    book = nbformat.read(tmp_path / "a.out.ipynb", 4)
    [printed] = [cell.outputs[0].text for cell in book.cells if cell.id == "cell-1"]
    assert printed.startswith(f"{len(WORD)} <redacted:")
    assert printed.endswith(" 2.0\n")


def test_a_secret_on_a_command_line_is_taken_and_warned_of(tmp_path: Path) -> None:
    path = notebook(tmp_path, "print(len(token))")
    told = shell(tmp_path, "run", path.name, "-p", "token", WORD)
    assert told.returncode == 0, told.stderr
    assert "@env:" in told.stderr
    assert WORD not in told.stdout + told.stderr
    assert holds(tmp_path, WORD) == []


def test_a_secret_on_the_command_line_of_a_pipeline_or_of_a_resumed_run_is_warned_of(tmp_path: Path) -> None:
    notebook(tmp_path, "assert len(token) > 3")
    (tmp_path / "pipeline.yaml").write_text("steps:\n  fetch: {notebook: a.ipynb}\n")
    project = Project.open(tmp_path)
    told = shell(tmp_path, "pipeline", "run", "-p", "token", "@env:MY_WORD", MY_WORD="abc")
    assert told.returncode == 3, told.stderr
    assert "process table" not in told.stderr
    [failed] = [one for one in project.store.runs() if one.started.parent is not None]
    told = shell(tmp_path, "resume", failed.id, "-p", "token", WORD, "-p", "name", "other")
    assert told.returncode == 0, told.stderr
    assert "token can be seen in the process table: -p token @env:VARIABLE" in told.stderr
    assert "name can be seen" not in told.stderr
    told = shell(tmp_path, "pipeline", "run", "-p", "fetch.token", WORD, "-p", "alpha", "2")
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("process table") == 1
    assert "fetch.token can be seen in the process table: -p fetch.token @env:VARIABLE" in told.stderr
    assert WORD not in told.stdout + told.stderr
    assert holds(tmp_path, WORD) == []


def test_papermills_own_command_gives_secrets_away_no_more(tmp_path: Path) -> None:
    path = notebook(tmp_path, "print(len(token), token)")
    done = subprocess.run(
        [sys.executable, "-m", "papermill", path.name, "out.ipynb", "--engine", "mlops",
         "-y", f"token: {WORD!r}\nalpha: 3"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert holds(tmp_path, WORD) == []
    book = nbformat.read(tmp_path / "out.ipynb", 4)
    assert book.cells[2].outputs[0].text.startswith(f"{len(WORD)} <redacted:")
    assert "alpha = 3" in book.cells[1].source


def test_secrets_need_no_extension_in_the_kernel(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = notebook(tmp_path, "import sys\nprint('jupyter_mlops' in sys.modules, len(token), token)")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "shadow"), "JUPYTER_MLOPS_STRICT": "0"}
    broken = tmp_path / "shadow" / "jupyter_mlops"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('not here')")
    result = pipelines.run_notebook(
        path, parameters={"token": WORD}, project=Project(tmp_path, environ=environ)
    )  # fmt: skip
    assert result.status == "done", str(result.error)
    assert "could not be loaded" in result.gaps[0].reason
    assert nbformat.read(result.output, 4).cells[2].outputs[0].text.startswith(f"False {len(WORD)} <redacted:")
    assert holds(tmp_path, WORD) == []


def test_whoever_runs_the_output_again_by_hand_is_asked(tmp_path: Path, project: Project) -> None:
    from jupyter_client.manager import start_new_kernel

    path = notebook(tmp_path, "1")
    output = pipelines.run_notebook(path, parameters={"token": WORD}, project=project).output
    source = nbformat.read(output, 4).cells[1].source
    manager, client = start_new_kernel()
    try:
        asked = []

        def answer(message: Any) -> None:
            asked.append(message["content"]["prompt"])
            client.input("typed")

        client.execute_interactive(source, allow_stdin=True, stdin_hook=answer, timeout=60)
        reply = client.execute_interactive("", user_expressions={"token": "token"}, timeout=60)
        assert reply["content"]["user_expressions"]["token"]["data"]["text/plain"] == "'typed'"
        assert asked == ["token"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_secret_is_refused_for_a_notebook_in_another_language(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path, "1")
    book = json.loads(path.read_text())
    book["metadata"]["kernelspec"]["language"] = "R"
    path.write_text(json.dumps(book))
    with pytest.raises(ParametersInvalid, match="Python only") as refused:
        pipelines.run_notebook(path, parameters={"token": WORD}, project=project)
    assert WORD not in str(refused.value)
    assert project.store.runs() == []


def test_a_secret_is_no_part_of_the_outputs_name(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path, "1")
    with pytest.raises(pipelines.OutputRefused, match="names no given parameter"):
        pipelines.run_notebook(path, output="out-{token}.ipynb", parameters={"token": "hunter2"}, project=project)


def test_a_run_with_a_secret_is_never_taken_for_one_with_another(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path, "print(len(token))")
    for token, length in (("first secret", 12), ("the second", 10), ("the second", 10)):
        result = pipelines.run_notebook(path, parameters={"token": token}, project=project, cache="notebook")
        assert (result.status, "given secrets" in result.because) == ("done", True)
        assert nbformat.read(result.output, 4).cells[2].outputs[0].text == f"{length}\n"


def test_a_cell_that_got_a_secret_is_never_recalled_for_another(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path, "print(len(token))", "print(2)")
    for token in ("first secret word", "the second one"):
        result = pipelines.run_notebook(path, parameters={"token": token}, project=project, cache="cells")
        assert nbformat.read(result.output, 4).cells[2].outputs[0].text == f"{len(token)}\n"
        assert holds(tmp_path, token) == []


def test_a_run_with_a_secret_is_not_verified_without_it_and_says_so(tmp_path: Path, project: Project) -> None:
    path = notebook(tmp_path, "print(len(token))", parameters="token = ''")
    run = pipelines.run_notebook(path, parameters={"token": WORD}, project=project).run
    told = shell(tmp_path, "verify", str(run))
    assert told.returncode == 3
    assert "its parameter token was secret" in told.stderr
