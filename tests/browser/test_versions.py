"""One build of the pages in every JupyterLab that it is for, and in Notebook 7."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from labs import Lab

if TYPE_CHECKING:
    from conftest import Desk

LABS = ["4.0.13", "4.1.8", "4.2.7", "4.3.8", "4.4.10", "4.5.11"]
SHARED = [
    "jupyter-collaboration>=5,<6", "jupyter-collaboration-ui<4", "jupyter-docprovider<4", "jupyter-server-fileid<1",
    "jupyter-server-ydoc<4", "jupyter-ydoc<5", "pycrdt<0.15", "pycrdt-store<0.2", "pycrdt-websocket<0.17",
    "sqlite-anyio<0.3",
]  # fmt: skip


@pytest.fixture
def served(request: pytest.FixtureRequest, extension: Path, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab of the version that the test names, or Notebook 7, or a JupyterLab in which people share documents."""
    version, over = request.param, None
    if version == "notebook":
        pytest.importorskip("notebook", reason="needs notebook: pip install 'jupyter-mlops[test]'")
    else:
        over = tmp_path / "over"
        wanted = SHARED if version == "shared" else [f"jupyterlab=={version}"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(over), *wanted],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"needs {wanted[0]} from PyPI: {done.stderr.strip().splitlines()[-1]}")
    (tmp_path / "lab").mkdir()
    lab = Lab(tmp_path / "lab", app="notebook" if version == "notebook" else "jupyterlab", over=over)
    yield lab
    lab.stop()


@pytest.mark.parametrize(
    "served",
    ["notebook", LABS[0], *(pytest.param(one, marks=pytest.mark.nightly) for one in LABS[1:])],
    indirect=True,
)
def test_a_notebook_is_recorded_and_shown(
    served: Lab, sit: Callable[..., Desk], request: pytest.FixtureRequest
) -> None:
    desk, version = sit(served), request.node.callspec.params["served"]
    desk.write("story.ipynb", load="%load_ext jupyter_mlops", data="rows = [1, 2]", fail="raise ValueError('none')")
    desk.open("story.ipynb")
    if version != "notebook":
        assert desk.page.evaluate("window.jupyterapp.version") == version
    panel = desk.record()
    for cell in ("load", "data", "fail"):
        desk.run(cell)
    desk.wait(lambda: desk.titles() == ["raise ValueError('none')", "rows = [1, 2]", "%load_ext jupyter_mlops"], "rows")
    desk.wait(lambda: desk.marks("fail") == ["failed"], "its mark")
    panel.get_by_role("listbox").get_by_role("option", name="rows = ").click()
    panel.get_by_role("region", name="Details of a cell run").get_by_text("rows = [1, 2]").wait_for()
    for tab in panel.get_by_role("tab").all():
        tab.click()
        panel.get_by_role("tab", name=tab.inner_text(), selected=True).wait_for()
        assert panel.get_by_role("alert").count() == 0
    desk.look(f"version-{version}")
    desk.command("docmanager:save")
    assert "mlops-mark" not in (desk.folder / "story.ipynb").read_text()
    # Notebook 7 itself has one of its own, with or without us.
    assert ([one for one in desk.problems if "reading 'schema'" not in one], desk.strays) == ([], [])


@pytest.mark.parametrize("served", ["notebook"], indirect=True)
def test_in_notebook_a_form_runs_a_notebook_to_its_end_and_its_model_has_a_card(
    served: Lab, sit: Callable[..., Desk]
) -> None:
    desk = sit(served)
    fit = (
        "from sklearn.linear_model import LogisticRegression\nfrom jupyter_mlops import log_metric\n"
        "model = LogisticRegression(C=rate).fit([[0.0], [1.0]], [0, 1])\nlog_metric('twice', 2 * rate)"
    )
    path = desk.write("train.ipynb", parameters="rate: float = 1.0", fit=fit, keep="%mlops register model churn")
    book = json.loads(path.read_text())
    book["cells"][0]["metadata"]["tags"] = ["parameters"]
    path.write_text(json.dumps(book))
    desk.open("train.ipynb")
    desk.command("jupyter-mlops:run")
    form = desk.page.locator(".jp-mlops-run")
    form.get_by_label("rate").fill("0.5")
    form.get_by_text("mlops run -p rate 0.5 train.ipynb").wait_for()
    assert desk.violations(".jp-mlops-run") == []
    form.get_by_role("button", name="Run", exact=True).press("Enter")
    form.get_by_role("status").get_by_text("Done").wait_for()
    form.get_by_role("button", name="Open train.out.ipynb").wait_for()
    desk.look("notebook-run")
    assert desk.violations(".jp-mlops-run") == []
    panel = desk.record()
    panel.get_by_role("tab", name="Models").click()
    panel.get_by_role("button", name="churn").click()
    desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel.get_by_role("button", name="Copy card").click()
    panel.get_by_text("The card is on the clipboard").wait_for()
    card = desk.page.evaluate("navigator.clipboard.readText()")
    assert card.startswith("# churn, version 1\n")
    assert "| twice | 1 |" in card
    desk.look("notebook-model")
    assert desk.violations() == []
    desk.command("jupyter-mlops:run")  # it is found again
    form.get_by_role("status").get_by_text("Done").wait_for()
    # Notebook 7 itself has one of its own, with or without us.
    assert ([one for one in desk.problems if "reading 'schema'" not in one], desk.strays) == ([], [])


@pytest.mark.parametrize("served", ["shared"], indirect=True)
def test_two_people_at_one_notebook_see_the_same_record_and_none_of_it_is_shared_as_text(
    served: Lab, sit: Callable[..., Desk]
) -> None:
    one, rows = sit(served), ["rows.append(3)", "rows = [1, 2]  # typed by one", "%load_ext jupyter_mlops"]
    one.write("story.ipynb", load="%load_ext jupyter_mlops", data="rows = [1, 2]", more="rows.append(3)")
    two = sit(served, beside=one)
    for desk in (one, two):
        desk.open("story.ipynb")
        desk.record()
    one.page.evaluate(_TYPE)
    two.wait(lambda: "typed by one" in two.page.evaluate(_DOCUMENT), "shared")
    one.run("load")
    one.run("data")
    two.run("more")  # in the same kernel
    for desk in (one, two):
        desk.wait(lambda desk=desk: desk.titles() == rows, "rows")
        desk.wait(lambda desk=desk: desk.marks("more")[:1] == ["recorded"], "its mark")
    one.command("docmanager:save")
    one.wait(lambda: "rows.append" in (one.folder / "story.ipynb").read_text(), "saved")
    for text in ((one.folder / "story.ipynb").read_text(), *(desk.page.evaluate(_DOCUMENT) for desk in (one, two))):
        assert "mlops" not in text.replace("%load_ext jupyter_mlops", "")
    assert (one.problems, one.strays, two.problems, two.strays) == ([], [], [], [])


_SHARED = (
    "'provider' in window.jupyterapp.shell.currentWidget.context || !!window.jupyterapp.serviceManager.user.identity"
)
_DOCUMENT = "JSON.stringify(window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON())"
_TYPE = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
  cells.get(1).sharedModel.updateSource(13, 13, '  # typed by one');
}"""
