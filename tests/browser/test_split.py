"""A kernel whose record the server does not see: the page reads it through the kernel, and says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk

WAITS = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.02)"


def accessible(desk: Desk) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(desk.page, context=".jp-mlops-panel").response["violations"]
    assert found == [], [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize("other", [True, False], ids=["another record", "no record"])
def test_a_record_out_of_the_servers_reach_is_read_through_the_kernel(desk: Desk, tmp_path: Path, other: bool) -> None:
    Store.create(tmp_path / ".mlops").close()
    if not other:
        shutil.rmtree(desk.folder / ".mlops")
    desk.write(
        "far.ipynb", load=f"import os\nos.chdir({str(tmp_path)!r})\n%load_ext jupyter_mlops", one="value = 1",
        two="from jupyter_mlops import log_metric\nlog_metric('auc', 0.5)", waits=WAITS,
    )  # fmt: skip
    desk.open("far.ipynb")
    panel = desk.record()
    for cell in ("load", "one", "two"):
        desk.run(cell)
    panel.get_by_text("the record is read through the kernel").wait_for()
    desk.wait(lambda: len(desk.titles()) == 3, "three rows")
    listbox = panel.get_by_role("listbox")
    listbox.get_by_role("option", name="value = 1").click()
    details = panel.get_by_role("region", name="Details of a cell run")
    details.get_by_text("value = 1").wait_for()
    details.get_by_text("Environment").wait_for()
    desk.look("through-the-kernel")

    # a cell that runs is told of; after a reload the page knows nothing, says why, and reads it from the idle kernel
    desk.command("docmanager:save")
    desk.start("waits")
    listbox.get_by_role("option", name="running").wait_for()
    desk.open("far.ipynb", kernel=False, reset=False)
    desk.record()
    silent = panel.get_by_text("The kernel has not answered yet")
    silent.wait_for()
    desk.look(f"busy-{'another' if other else 'none'}")
    assert panel.get_by_text("Nothing is on record here yet").count() == 0
    accessible(desk)
    (tmp_path / "go").touch()
    desk.wait(lambda: len(desk.titles()) == 4, "four rows again")
    silent.wait_for(state="detached")
    panel.get_by_text("auc 0.5").wait_for()
    panel.get_by_role("searchbox").fill("log_metric")
    desk.wait(lambda: desk.titles() == ["from jupyter_mlops import log_metric"], "what was searched for")
    desk.wait(lambda: desk.marks("one")[:1] == ["recorded"], "recorded")
    panel.get_by_role("tab", name="Models").click()
    panel.get_by_text("No model is registered yet").wait_for()
    panel.get_by_role("tab", name="Monitoring").click()
    panel.get_by_text("Nothing is monitored yet").wait_for()
    accessible(desk)
    assert (desk.problems, desk.strays) == ([], [])


def test_a_kernel_of_another_version_is_told_of_and_not_misread(desk: Desk) -> None:
    desk.write(
        "later.ipynb", load="import jupyter_mlops.capture.live as live\nlive.PROTOCOL = 2\n%load_ext jupyter_mlops",
        one="value = 1",
    )  # fmt: skip
    desk.open("later.ipynb")
    panel = desk.record()
    desk.run("load")
    desk.run("one")
    panel.get_by_text("are of different versions").wait_for()
    desk.wait(lambda: len(desk.titles()) == 2, "what the server reads")
    assert (desk.problems, desk.strays) == ([], [])


def test_where_there_is_no_record_a_project_is_made_from_the_panel(desk: Desk) -> None:
    shutil.rmtree(desk.folder / ".mlops")
    desk.write("new.ipynb", one="value = 1")
    desk.open("new.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("button", name="Make a project here").click()
    desk.page.locator(".lm-TabBar-tabLabel", has_text="first_steps.ipynb").wait_for()
    assert (desk.folder / ".mlops" / "format").is_file()
    assert (desk.problems, desk.strays) == ([], [])
