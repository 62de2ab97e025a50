"""``%mlops`` in a cell: the shell's words, answers that show themselves, errors without our stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jupyter_mlops.widgets import View


def run(shell: Any, source: str) -> Any:
    result = shell.run_cell(source, store_history=True)
    result.raise_error()
    return result.result


def test_an_answer_is_a_value_that_can_be_used(shell: Any) -> None:
    run(shell, "x = 7")
    view = run(shell, "view = %mlops log\nview")
    assert isinstance(view, View)
    assert [one["started"].source for one in view.data][-1] == "x = 7"
    bundle = view._repr_mimebundle_()
    assert "<table>" in bundle["text/html"]
    assert "x = 7" in bundle["text/plain"]


def test_a_variable_of_the_kernel_is_known_by_its_name(shell: Any) -> None:
    run(shell, "numbers = [1, 2, 3]")
    run(shell, "total = sum(numbers)")
    tree = run(shell, "%mlops lineage total").text()
    assert "numbers = [1, 2, 3]" in tree
    assert "total = sum(numbers)" in tree
    assert "list" in run(shell, "%mlops show numbers").text()


def test_bare_mlops_says_where_one_is(shell: Any) -> None:
    assert run(shell, "%mlops").title == "Where you are"


def test_wrong_words_are_an_error_of_the_cell_without_our_stack(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("%mlops nope")
    assert not result.success
    shown = capsys.readouterr().out
    assert "No such command 'nope'" in shown
    assert "jupyter_mlops/cli" not in shown


def test_off_stops_recording_and_on_goes_on(shell: Any) -> None:
    from jupyter_mlops import capture

    run(shell, "%mlops off")
    run(shell, "unseen = 1")
    run(shell, "%mlops on")
    run(shell, "seen = 1")
    sources = [one.source for one in capture.session().store.cell_runs()]
    assert "seen = 1" in sources
    assert "unseen = 1" not in sources


def test_a_model_is_registered_from_its_cell(shell: Any) -> None:
    run(
        shell,
        "import numpy as np\nfrom sklearn.linear_model import LinearRegression\n"
        "X = np.arange(12.0).reshape(6, 2); y = X.sum(axis=1)",
    )
    run(shell, "model = LinearRegression().fit(X, y)")
    run(shell, "from jupyter_mlops import log_metric\nlog_metric('r2', model.score(X, y))")
    view = run(shell, "%mlops register model sums --data X,y")
    assert view.title == "models:/sums/1"
    assert view.data.metrics["r2"] == pytest.approx(1.0)
    assert view.data.signature is not None
    assert "LinearRegression" in run(shell, "%mlops lineage sums/1").text()


def test_what_the_settings_want_to_be_said_is_asked_for_in_a_cell_too(shell: Any) -> None:
    from jupyter_mlops import capture

    run(shell, "from sklearn.linear_model import LinearRegression\nline = LinearRegression().fit([[0], [1]], [0, 1])")
    root = capture.session().project.root
    (root / "pyproject.toml").write_text('[tool.jupyter-mlops.demands]\nregister = ["reason", "ticket"]\n')
    refused = shell.run_cell("%mlops register line lines --ticket OPS-1").error_in_exec
    assert "lines was not registered: no reason was given" in str(refused)
    refused = shell.run_cell("from jupyter_mlops import register_model\nregister_model(line, 'lines')").error_in_exec
    assert "no reason and no ticket was given" in str(refused)
    view = run(shell, "%mlops register line lines -m 'as was agreed' --ticket OPS-1")
    assert view.title == "models:/lines/1"
    move = capture.session().store.moves("models/lines")[-1].transition
    assert (move.reason, [one.id for one in move.tickets]) == ("as was agreed", ["OPS-1"])


def test_a_variable_that_is_not_there_is_named(shell: Any) -> None:
    result = shell.run_cell("x = 1\n%mlops register x sums --data nowhere")
    assert "'nowhere'" in str(result.error_in_exec)


def test_words_complete(shell: Any) -> None:
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        found = {one.text for one in shell.Completer.completions("%mlops pro", 10)}
    assert "promote" in found


# -- what a cell says of itself ---------------------------------------------------------------------------------------


def record(source: str, *, last: bool = False) -> Any:
    from jupyter_mlops import capture

    found = [one for one in capture.session().store.cell_runs() if source in one.source]
    assert last or len(found) == 1, found
    return found[0]


BODIES = [
    "x = 6 * 7\nx", "print('out')", "1 / 0", "def f():\n    raise KeyError('k')\nf()", "x = (", "_", "x = 1;\nx;",
    "%time y = 1", "%%capture taken\nprint('taken')", "import asyncio\nawait asyncio.sleep(0)\n'awaited'", "",
    "from IPython.display import display, HTML\ndisplay(HTML('<b>1</b>'))", "!echo shell", "sorted(locals())[-1]",
]  # fmt: skip


FIRST = "%%mlops --name features --ticket ABC-12\n"


@pytest.mark.parametrize("body", BODIES)
def test_a_cell_with_a_first_line_of_ours_runs_as_one_with_a_comment_there(
    shell: Any, body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(source: str) -> tuple[Any, ...]:
        run(shell, "1000 + 1")
        result = shell.run_cell(source, store_history=True)
        shown = plain(capsys.readouterr().out)
        error = result.error_before_exec or result.error_in_exec
        assert record(source.lstrip("#"), last=True).status in ("done", "error", "syntax")
        names = sorted(name for name in shell.user_ns if not name.startswith("_"))
        return repr(result.result), type(error), shown, result.success, names

    # in front of another magic the line is left out, for that one has to be first
    comment = "" if body.startswith("%%") else "#" + FIRST
    assert told(FIRST + body) == told(comment + body)


def plain(shown: str) -> str:
    """What a shell printed, without colours, counts, addresses and times."""
    varying = r"\x1b\[[0-9;]*m|(In|Out) ?\[\d+\]|0x[0-9a-f]+|[\d.e+]+ [mµμn]?s\b"
    return re.sub(varying, "", shown)


def test_a_cells_name_and_tickets_are_on_record_and_shown(shell: Any) -> None:
    run(shell, "%%mlops --name 'my features' --ticket ABC-12 --ticket '#7'\nx = [1]")
    one = record("x = [1]")
    assert one.started.label == "my features"
    assert [ticket.id for ticket in one.started.tickets] == ["ABC-12", "#7"]
    assert [made.name for made in one.outputs] == ["x"]
    shown = run(shell, f"%mlops show {one.id[:20]}").text()
    assert "my features" in shown
    assert "ABC-12 #7" in shown


def test_a_secret_in_a_cells_name_is_masked(shell: Any) -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    run(shell, f"%%mlops --name {token}\nmasked = 1")
    assert token not in record("masked = 1").started.label


def test_of_a_cell_that_is_not_to_be_recorded_it_is_on_record_that_it_ran(shell: Any, project_folder: Path) -> None:
    from jupyter_mlops import capture

    run(shell, "kept = [1]")
    run(
        shell,
        "%%mlops --no-record --name private\nquiet = 'zq81 said'\nkept.append(2)\n"
        "with open('f.txt', 'w') as file: file.write('zq81')",
    )
    run(shell, "get_ipython().run_cell('%%mlops --no-record\\nget_ipython().run_cell(\"inmost_zq = 1\")').result")
    run(shell, "after = len(kept)")
    store = capture.session().store
    cells = store.cell_runs(newest_first=False)
    hidden = next(one for one in cells if one.started.label == "private")
    assert hidden.source == ""
    assert hidden.status == "done"
    assert [(gap.reason, gap.blocks) for gap in hidden.gaps] == [("it was not recorded, as it asked", True)]
    assert (hidden.inputs, hidden.outputs, hidden.files_written) == ([], [], [])
    assert hidden.environment is None
    assert [one.source for one in cells if one.started.parent] == ["", ""]
    reader = record("after = len(kept)")
    assert any(gap.subject == "kept" and "by no recorded cell" in gap.reason for gap in reader.gaps)
    held = b"".join(path.read_bytes() for path in (project_folder / ".mlops").rglob("*") if path.is_file())
    assert b"zq81" not in held


def test_the_error_of_a_cell_that_is_not_recorded_is_not_on_record(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from jupyter_mlops import capture

    shell.run_cell("%%mlops --no-record\nraise ValueError('zq82')", store_history=True)
    assert "ValueError: zq82" in plain(capsys.readouterr().out)
    last = capture.session().store.cell_runs()[0]
    assert (last.status, last.ended.error) == ("error", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [("--nope", "No such option"), ("log", "unexpected extra argument"), ("--name", "requires an argument"),
     ("--name 'open", "can not be split into words"), ("--help", "No such option")],
)  # fmt: skip
def test_a_first_line_that_is_off_is_a_clear_error_and_the_body_does_not_run(
    shell: Any, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    result = shell.run_cell(f"%%mlops {line}\nran = 'zq83'", store_history=True)
    assert not result.success
    shown = capsys.readouterr().out
    assert said in shown
    assert "magics.py" not in shown
    assert "ran" not in shell.user_ns
    one = record(f"%%mlops {line}")
    assert one.status == "error"
    assert "zq83" not in one.source
    assert "its first line could not be read: the rest is not recorded" in [gap.reason for gap in one.gaps]


def test_in_a_kernel_the_first_line_of_ours_changes_no_answer_and_is_on_record(kernel: Any) -> None:
    outputs, reply = kernel.run("%%mlops --name slow\nimport asyncio\nawait asyncio.sleep(0)\n6 * 7")
    assert [one["data"]["text/plain"] for one in outputs] == ["42"]
    _, reply = kernel.run("%%mlops --name wrong\nx = 1\nx / 0")
    assert "line 3" in "".join(reply["traceback"])
    kernel.run("%%mlops --no-record\nprint('zq84')")
    kernel.no_errors()
    cells = kernel.cells()[1:]
    assert [(one.started.label, one.status) for one in cells] == [("slow", "done"), ("wrong", "error"), ("", "done")]
    assert cells[1].ended.error == "ZeroDivisionError: division by zero (line 3)"
    assert cells[2].ended.displays == []


def test_ours_anywhere_but_on_the_first_line_is_a_clear_error(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("get_ipython().run_cell_magic('mlops', '--name x', 'ran = 1')")
    assert "put it on the cell's first line" in str(result.error_in_exec)
    assert "ran" not in shell.user_ns


def test_the_options_of_a_cell_complete(shell: Any) -> None:
    from jupyter_mlops import magics

    class Event:
        line = "%%mlops --n"

    assert {"--name", "--no-record", "--ticket"} <= set(magics.complete(shell, Event()))


def test_unloading_takes_the_cells_first_line_away_too(shell: Any) -> None:
    before = len(shell.input_transformers_cleanup)
    shell.run_line_magic("unload_ext", "jupyter_mlops")
    assert len(shell.input_transformers_cleanup) == before - 1
    assert "mlops" not in shell.magics_manager.magics["cell"]
    shell.run_line_magic("load_ext", "jupyter_mlops")
    shell.run_line_magic("reload_ext", "jupyter_mlops")
    assert len(shell.input_transformers_cleanup) == before
