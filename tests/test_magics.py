"""``%mlops`` in a cell: the shell's words, answers that show themselves, errors without our stack."""

from __future__ import annotations

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
    assert "cli.py" not in shown


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


def test_a_variable_that_is_not_there_is_named(shell: Any) -> None:
    result = shell.run_cell("x = 1\n%mlops register x sums --data nowhere")
    assert "'nowhere'" in str(result.error_in_exec)


def test_words_complete(shell: Any) -> None:
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        found = {one.text for one in shell.Completer.completions("%mlops pro", 10)}
    assert "promote" in found
