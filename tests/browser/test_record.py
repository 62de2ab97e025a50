"""What a person sees of the record in JupyterLab, in a real browser before a real server."""

from __future__ import annotations

import fcntl
import html
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from labs import REPOSITORY, Lab
from payloads import PAYLOADS
from sklearn.linear_model import LogisticRegression

from jupyter_mlops.records import Artifact, CellEnded, CellLogged, CellStarted, Gap, RunEnded, RunStarted, digest_of
from jupyter_mlops.registry import GateRefused, LocalRegistry, RunContext
from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk

LOAD = "%load_ext jupyter_mlops"


def test_a_notebook_is_run_and_each_cell_appears_as_it_runs(desk: Desk) -> None:
    desk.write(
        "story.ipynb",
        load=LOAD,
        data="import random\nrows = [random.random() for _ in range(5)]\nopen('rows.txt', 'w').write('x')",
        metric="from jupyter_mlops import log_metric\nlog_metric('total', 7)\ntotal = len(rows)",
        fail="raise ValueError('no such column')",
        slow="import time\nwhile not __import__('os').path.exists('go'):\n    time.sleep(0.05)",
    )
    desk.open("story.ipynb")
    panel = desk.record()
    panel.get_by_text("Nothing is on record here yet").or_(panel.get_by_text("No cell of this notebook")).wait_for()
    desk.look("before")
    for cell in ("load", "data", "metric", "fail"):
        desk.run(cell)
    desk.wait(lambda: len(desk.titles()) == 4, "four rows")
    assert desk.titles()[::-1] == [LOAD, "import random", "from jupyter_mlops import log_metric",
                                   "raise ValueError('no such column')"]  # fmt: skip
    panel.get_by_role("listbox").get_by_role("option", name="failed").wait_for()
    panel.get_by_text("total 7").wait_for()

    # live: the row is there while the cell runs, and only the kernel can have told of it
    desk.start("slow")
    panel.get_by_role("listbox").get_by_role("option", name="running").wait_for()
    (desk.folder / "go").touch()
    panel.get_by_role("listbox").get_by_role("option", name="running").wait_for(state="detached")
    desk.wait(lambda: desk.marks("slow")[:1] == ["recorded"], "recorded")

    # beside the cells, in words
    desk.wait(lambda: "unseeded" in desk.marks("data"), "unseeded")
    assert desk.marks("fail") == ["failed"]
    desk.page.locator(".jp-mlops-status", has_text="Record: recording").wait_for()

    # one of them whole, and back to its cell
    panel.get_by_role("listbox").get_by_role("option", name="import random").click()
    details = panel.get_by_role("region", name="Details of a cell run")
    details.get_by_text("rows = [random.random()").wait_for()
    details.get_by_text("rows.txt", exact=True).wait_for()
    details.get_by_text("Environment").click()
    details.get_by_text("Packages").wait_for()
    desk.look("details")
    details.get_by_role("button", name="Go to cell").click()
    assert desk.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCell.model.id") == "data"

    # nothing of it is in the document
    desk.command("docmanager:save")
    assert "mlops-mark" not in (desk.folder / "story.ipynb").read_text()
    assert (desk.problems, desk.strays) == ([], [])


def test_after_a_reload_it_is_all_there_and_goes_on_live(desk: Desk) -> None:
    desk.write("again.ipynb", load=LOAD, one="value = 1", two="other = value + 1",
               slow="import time\nwhile not __import__('os').path.exists('go'):\n    time.sleep(0.05)")  # fmt: skip
    desk.open("again.ipynb")
    desk.record()
    for cell in ("load", "one"):
        desk.run(cell)
    desk.wait(lambda: len(desk.titles()) == 2, "two rows")
    desk.command("docmanager:save")
    desk.start("slow")
    desk.wait(lambda: len(desk.titles()) == 3, "three rows")
    desk.open("again.ipynb", kernel=False, reset=False)
    panel = desk.record()
    desk.wait(lambda: len(desk.titles()) == 3, "three rows again")
    desk.wait(lambda: desk.marks("one")[:1] == ["recorded"], "its mark again")
    # told by the kernel, which was busy all the time and could answer nothing
    (desk.folder / "go").touch()
    panel.get_by_role("listbox").get_by_role("option", name="running").wait_for(state="detached")
    desk.run("two")
    desk.wait(lambda: desk.titles()[0] == "other = value + 1", "the new row")
    assert (desk.problems, desk.strays) == ([], [])


def test_marks_are_turned_off_and_on_by_a_setting(desk: Desk) -> None:
    desk.write("marks.ipynb", load=LOAD, one="value = 1")
    desk.open("marks.ipynb")
    for cell in ("load", "one"):
        desk.run(cell)
    desk.wait(lambda: desk.marks("one")[:1] == ["recorded"], "recorded")
    desk.command("jupyter-mlops:toggle-marks")
    try:
        desk.wait(lambda: desk.marks("one") == [], "no mark")
        asked = "window.jupyterapp.commands.isToggled('jupyter-mlops:toggle-marks')"
        assert desk.page.evaluate(asked) is False
    finally:
        desk.command("jupyter-mlops:toggle-marks")  # the server remembers it
    desk.wait(lambda: desk.marks("one")[:1] == ["recorded"], "the mark again")
    assert desk.page.evaluate(asked) is True
    assert (desk.problems, desk.strays) == ([], [])


def test_a_restarted_kernel_is_greeted_anew(desk: Desk) -> None:
    desk.write("anew.ipynb", load=LOAD, one="value = 1", two="other = value + 1")
    desk.open("anew.ipynb")
    desk.record()
    for cell in ("load", "one", "two"):
        desk.run(cell)
    desk.wait(lambda: len(desk.titles()) == 3, "three rows")
    desk.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    desk.page.locator(".jp-mlops-status", has_text="not recording").wait_for()
    desk.ready()
    desk.run("load")
    desk.page.locator(".jp-mlops-status", has_text="Record: recording").wait_for()
    desk.run("two")
    desk.wait(lambda: desk.marks("two")[:1] == ["failed"], "failed: the value is gone")
    assert (desk.problems, desk.strays) == ([], [])


def test_a_renamed_notebook_goes_on_under_its_new_name(desk: Desk) -> None:
    desk.write("old.ipynb", load=LOAD, one="value = 1")
    desk.open("old.ipynb")
    desk.record()
    desk.run("load")
    desk.wait(lambda: len(desk.titles()) == 1, "a row")
    desk.page.evaluate("window.jupyterapp.shell.currentWidget.context.rename('new.ipynb')")
    desk.page.get_by_text("Record of new.ipynb").wait_for()
    desk.page.get_by_text("No cell of this notebook has run on record yet.").wait_for()
    with Store.open(desk.folder / ".mlops") as store:
        desk.wait(lambda: desk.page.evaluate(_TOLD) == "new.ipynb", "told")
        desk.run("one")
        desk.wait(lambda: desk.titles() == ["value = 1"], "the row under the new name")
        assert [run.started.notebook for run in store.cell_runs()] == ["new.ipynb", "old.ipynb"]


_TOLD = """async () => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const it = "__import__('jupyter_mlops.capture').capture.session().notebook()";
  const reply = kernel.requestExecute({code: '', silent: true, user_expressions: {it}});
  const done = await reply.done;
  return done.content.user_expressions.it.data['text/plain'].replaceAll("'", '');
}"""


def test_a_headless_run_of_the_notebook_appears_by_itself(desk: Desk) -> None:
    desk.write("headless.ipynb", one="value = 1")
    desk.open("headless.ipynb", kernel=False)
    panel = desk.record()
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "run", "headless.ipynb", "-o", "out.ipynb"], cwd=desk.folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    panel.get_by_role("listbox").get_by_role("option", name="value = 1").wait_for()
    panel.get_by_role("listbox").get_by_role("option", name="headless").or_(
        panel.get_by_role("listbox").get_by_role("option", name="shell")
    ).first.wait_for()
    panel.get_by_role("listbox").get_by_role("option", name="value = 1").click()
    panel.get_by_role("region", name="Details of a cell run").get_by_text("value = 1").wait_for()


def fill(folder: Path, notebook: str, count: int, source: Callable[[int], str]) -> None:
    """Put cell runs on record, two hundred to a session."""
    with Store.open(folder / ".mlops") as store:
        for first in range(0, count, 200):
            run = store.append(RunStarted(trigger="session", notebook=notebook, user="alice"))
            for number in range(first, min(first + 200, count)):
                cell = store.append(
                    CellStarted(run=run, notebook=notebook, cell=f"c{number % 20}", count=number, source=source(number))
                )
                store.append(CellEnded(cell_run=cell, status="error" if number % 50 == 7 else "done", seconds=0.1))
            store.append(RunEnded(run=run, status="done"))


def test_ten_thousand_cell_runs_open_at_once_and_are_searched(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.write("long.ipynb", **{f"c{number}": f"step({number})" for number in range(20)})
    fill(desk.folder, "long.ipynb", 10_000, lambda number: f"step_{number} = work({number})")
    desk.lab.ask("jupyter-mlops/api/overview", path=f"{desk.folder.name}/long.ipynb")  # its index is made once
    desk.open("long.ipynb", kernel=False)
    took = desk.page.evaluate(
        """async () => {
          const began = performance.now();
          await window.jupyterapp.commands.execute('jupyter-mlops:open');
          while (!document.querySelector('.jp-mlops-row .jp-mlops-title')) {
            await new Promise(done => requestAnimationFrame(done));
          }
          return performance.now() - began;
        }"""
    )
    with capsys.disabled():
        print(
            f"\n10,000 cell runs shown in {took:.0f} ms, {desk.page.locator('.jp-mlops-row').count()} rows in the page"
        )
    panel = desk.page.locator(".jp-mlops-panel")
    panel.get_by_text("10000 cell runs").wait_for()
    assert desk.page.locator(".jp-mlops-row").count() <= 80
    assert desk.titles()[0] == "step_9999 = work(9999)"

    # by keyboard to the oldest
    listbox = panel.get_by_role("listbox")
    listbox.focus()
    listbox.press("End")
    desk.wait(lambda: desk.titles()[-1:] == ["step_0 = work(0)"], "the oldest row")
    assert desk.page.locator(".jp-mlops-row").count() <= 80
    listbox.press("Enter")
    panel.get_by_role("region", name="Details of a cell run").get_by_text("step_0 = work(0)").wait_for()
    listbox.press("Escape")

    panel.get_by_role("searchbox").fill("step_421")
    desk.wait(lambda: desk.titles()[-1:] == ["step_421 = work(421)"], "what was searched for")
    assert len(desk.titles()) == 11
    panel.get_by_role("combobox").select_option("error,syntax")
    desk.wait(lambda: desk.titles() == ["step_4207 = work(4207)"][:0] or len(desk.titles()) < 11, "fewer")
    panel.get_by_role("searchbox").fill("")
    desk.wait(lambda: desk.titles()[:1] == ["step_9957 = work(9957)"], "failed ones")
    assert (desk.problems, desk.strays) == ([], [])


def shop(folder: Path, *, name: str = "churn", said: str = "good enough") -> None:
    """Register two versions: one is promoted, the other refused."""
    features, labels = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2
    with Store.open(folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="shop.ipynb", user=said))
        cell = store.append(CellStarted(run=run, notebook="shop.ipynb", cell="fit", source="model.fit(X, y)", count=3))
        store.append(CellEnded(cell_run=cell, status="done"))
        registry, made = LocalRegistry(store, user=said), RunContext(run=run, cell_run=cell)
        options = {"data": features, "context": made, "description": said, "tags": {said: said}}
        registry.register(LogisticRegression().fit(features, labels), name, metrics={"auc": 0.8, said: 1}, **options)
        registry.promote(f"{name}/1", "staging", gates=["auc>=0.7"], reason=said, tickets=[said])
        registry.register(LogisticRegression(C=0.1).fit(features, labels), name, metrics={"auc": 0.6}, **options)
        with pytest.raises(GateRefused):
            registry.promote(f"{name}/2", "staging", gates=["auc>=0.7", "signature"], reason=said)


def test_a_models_versions_aliases_and_gates_are_read_with_their_evidence(desk: Desk) -> None:
    shop(desk.folder)
    desk.write("shop.ipynb", fit="model.fit(X, y)")
    desk.open("shop.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Timeline").focus()
    chosen = panel.get_by_role("tab", selected=True)
    for _ in range(panel.get_by_role("tab").count()):
        if chosen.inner_text() != "Models":
            desk.page.keyboard.press("ArrowRight")
    assert chosen.inner_text() == "Models"
    panel.get_by_role("button", name="churn").get_by_text("@staging → 1").wait_for()
    desk.look("models")
    panel.get_by_role("button", name="churn").press("Enter")
    model = panel.get_by_role("region", name="Model churn")
    model.get_by_text("Version 2 was refused").wait_for()
    refused = model.locator(".jp-mlops-steps > li").first
    assert refused.locator(".jp-mlops-gates > li").first.inner_text().startswith("✗ auc>=0.7 refused")
    for text in ("0.6", "1 of 2 gates passed"):
        refused.get_by_text(text, exact=True).first.wait_for()
    moved = model.locator(".jp-mlops-steps > li").nth(1)
    assert "Set to version 1" in moved.inner_text()
    assert "good enough" in moved.inner_text()
    desk.look("model")
    assert desk.violations() == []
    desk.dark()
    desk.look("model-dark")

    # where it comes from, and the tab is the same after a reload
    model.locator("summary").get_by_text("Version 1 @staging").click()
    model.get_by_role("button", name="cell run").first.click()
    panel.get_by_role("region", name="Details of a cell run").get_by_text("model.fit(X, y)").wait_for()
    with desk.saved():
        panel.get_by_role("tab", name="Models").click()
    desk.open("shop.ipynb", kernel=False, reset=False)
    panel.get_by_role("tab", name="Models", selected=True).wait_for()
    assert (desk.problems, desk.strays) == ([], [])


@pytest.mark.parametrize("said", ["<img src=x onerror=alert(1)>", "<script>alert(2)</script>\u202e"])
def test_what_is_said_of_a_model_is_never_more_than_text(desk: Desk, said: str) -> None:
    shop(desk.folder, said=said)
    desk.write("shop.ipynb", fit="model.fit(X, y)")
    desk.open("shop.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Models").click()
    panel.get_by_role("button", name="churn").click()
    model = panel.get_by_role("region", name="Model churn")
    model.get_by_text("Version 2 was refused").wait_for()
    assert said.rstrip("\u202e") in model.inner_text()
    assert "\u202e" not in model.inner_text()
    assert model.locator("img, script").count() == 0
    assert (desk.problems, desk.strays) == ([], [])


def test_nothing_recorded_is_ever_more_than_text(desk: Desk) -> None:
    with Store.open(desk.folder / ".mlops") as store:
        for number, bad in enumerate(PAYLOADS):
            run = store.append(RunStarted(trigger="session", notebook="bad.ipynb", user=bad))
            one = Artifact(name=bad, kind="variable", type=bad, why=bad, digest=None)
            known = Artifact(name=bad, kind="file", type=bad, digest=digest_of(bad.encode()), size=3)
            cell = store.append(
                CellStarted(
                    run=run, notebook="bad.ipynb", cell=f"c{number}", source=f"{bad}\n{bad}", label=bad, count=1
                )
            )
            store.append(CellLogged(run=run, cell_run=cell, what="metric", key=bad, value=bad))
            store.append(
                CellEnded(
                    cell_run=cell, status="error", error=bad, inputs=[one], outputs=[known], files_read=[known],
                    sources=[known], displays=[known], modules=[known], removed=[bad], randomness={bad: bad},
                    gaps=[Gap(subject=bad, reason=bad)],
                )
            )  # fmt: skip
    desk.write("bad.ipynb", **{f"c{number}": "pass" for number in range(len(PAYLOADS))})
    desk.open("bad.ipynb", kernel=False)
    panel = desk.record()
    desk.wait(lambda: len(desk.titles()) == len(PAYLOADS), "every row")
    desk.wait(lambda: desk.marks("c0")[:1] == ["failed"], "its mark")
    listbox = panel.get_by_role("listbox")
    details = panel.get_by_role("region", name="Details of a cell run")
    listbox.focus()
    for bad in reversed(PAYLOADS):
        listbox.press("Enter")
        # what would reorder or hide text is shown as an escape
        shown = bad.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\u2066", "\\u2066")
        details.locator("pre.jp-mlops-error", has_text=shown).wait_for()
        assert details.locator("pre.jp-mlops-error").all_text_contents() == [shown]
        desk.page.evaluate("document.querySelectorAll('.jp-mlops-panel details').forEach(one => { one.open = true; })")
        listbox.press("ArrowDown")
    made = desk.page.evaluate(
        "[...document.querySelectorAll('.jp-mlops-panel *, .jp-mlops-marks *')].map(one => one.localName)"
    )
    assert not {"script", "img", "svg", "iframe", "style", "a", "math", "form"} & set(made)
    assert (desk.problems, desk.strays) == ([], [])


def test_a_store_that_breaks_stops_neither_running_nor_saving(desk: Desk) -> None:
    desk.write("broken.ipynb", load=LOAD, one="value = 1", two="print('still here', value)")
    desk.open("broken.ipynb")
    panel = desk.record()
    desk.run("load")
    desk.run("one")
    desk.wait(lambda: len(desk.titles()) == 2, "two rows")
    shutil.rmtree(desk.folder / ".mlops")
    panel.get_by_text("Nothing is on record here yet").first.wait_for()
    desk.run("two")
    desk.page.locator(".jp-OutputArea-output", has_text="still here 1").wait_for()
    desk.command("docmanager:save")
    assert "still here 1" in (desk.folder / "broken.ipynb").read_text()

    (desk.folder / ".mlops").mkdir(exist_ok=True)
    (desk.folder / ".mlops" / "format").write_text('{"format": 99, "id": "x"}')
    panel.get_by_text("has format 99").first.wait_for()
    desk.look("broken")
    assert (desk.problems, desk.strays) == ([], [])


def test_a_store_that_is_damaged_while_the_page_is_open_stops_nothing_and_is_said(desk: Desk) -> None:
    desk.write("damaged.ipynb", load=LOAD, one="value = 1", two="print('still here', value)")
    desk.open("damaged.ipynb")
    panel = desk.record()
    for cell in ("load", "one"):
        desk.run(cell)
    desk.wait(lambda: len(desk.titles()) == 2, "two rows")
    (journal,) = (desk.folder / ".mlops" / "journal").glob("*.jsonl")

    def change(what: bytes, to: bytes, at: int = 0) -> None:
        """In the very file that the kernel writes."""
        with journal.open("r+b") as file:
            file.seek(journal.read_bytes().index(what, at))
            file.write(to)

    change(b"value = 1", b"value = 2")
    panel.get_by_role("alert").get_by_text("1 cell run is damaged and not shown").wait_for()
    change(b"{", b"?", at=journal.read_bytes().index(b"\n"))
    panel.get_by_role("alert").get_by_text("is damaged after byte").wait_for()
    panel.get_by_role("alert").get_by_text("mlops fsck says more of it").wait_for()
    goes_on(desk, "two", "damaged.ipynb", "still here 1")
    desk.look("damaged")
    assert desk.violations() == []
    assert (desk.problems, desk.strays) == ([], [])


def test_a_store_that_can_only_be_read_stops_nothing_and_is_said(desk: Desk) -> None:
    desk.write("sealed.ipynb", load=LOAD, one="value = 1", two="print('still here', value)")
    fill(desk.folder, "sealed.ipynb", 3, lambda number: f"step_{number} = 1")
    desk.open("sealed.ipynb")
    panel = desk.record()
    desk.wait(lambda: len(desk.titles()) == 3, "three rows")
    store = desk.folder / ".mlops"
    if os.geteuid() == 0:  # who may write everywhere: the file system itself has to refuse
        for words in (["--bind"], ["-o", "remount,ro,bind"]):
            done = subprocess.run(["mount", *words, str(store), str(store)], capture_output=True)
            if done.returncode != 0:
                pytest.skip("nothing can be mounted here")
    else:
        for folder in (store, *(one for one in store.rglob("*") if one.is_dir())):
            folder.chmod(0o500)
    try:
        for cell in ("load", "one"):
            desk.run(cell)
        goes_on(desk, "two", "sealed.ipynb", "still here 1")
        desk.run("one")  # it was tried three times
        panel.get_by_role("alert").get_by_text("This kernel has stopped recording, and runs on").wait_for()
        assert "Read-only file system" in panel.inner_text() or "Permission denied" in panel.inner_text()
        desk.look("sealed")
        assert desk.violations() == []
    finally:
        desk.page.goto("about:blank")
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(store)], check=True)
        else:
            for folder in (store, *(one for one in store.rglob("*") if one.is_dir())):
                folder.chmod(0o700)
    assert (desk.problems, desk.strays) == ([], [])


def test_a_store_that_somebody_holds_locked_stops_nothing_and_is_said(
    sit: Callable[..., Desk], extension: Path, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, options=("--MlopsApp.patience=0.5",))
    try:
        desk = sit(lab)
        desk.write("locked.ipynb", load=LOAD, one="value = 1", two="print('still here', value)")
        desk.open("locked.ipynb")
        panel = desk.record()
        desk.run("load")
        desk.wait(lambda: desk.titles() == [LOAD], "a row")
        with (desk.folder / ".mlops" / "index.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            panel.get_by_text("the record does not answer").first.wait_for()
            desk.run("one")
            goes_on(desk, "two", "locked.ipynb", "still here 1")
            desk.look("locked")
            desk.open("locked.ipynb", reset=False)  # Lab itself opens too
        desk.record()
        desk.wait(lambda: desk.titles() == ["print('still here', value)", "value = 1", LOAD], "all rows")
        assert panel.get_by_role("alert").count() == 0
        assert (desk.problems, desk.strays) == ([], [])
    finally:
        lab.stop()


def goes_on(desk: Desk, cell: str, notebook: str, said: str) -> None:
    """See that a cell is run and its notebook saved."""
    desk.run(cell)
    desk.page.locator(".jp-OutputArea-output", has_text=said).wait_for()
    desk.command("docmanager:save")
    assert said in (desk.folder / notebook).read_text()


def test_a_server_without_the_extension_is_named_and_the_kernel_still_tells(desk: Desk) -> None:
    desk.write("alone.ipynb", load=LOAD, one="value = 1")
    desk.page.route("**/jupyter-mlops/api/**", lambda route: route.fulfill(status=404, body="<html>Not Found</html>"))
    desk.open("alone.ipynb")
    panel = desk.record()
    panel.get_by_text("The server extension is missing").wait_for()
    desk.look("missing")
    desk.run("load")
    desk.page.locator(".jp-mlops-status", has_text="Record: recording").wait_for()
    desk.run("one")
    desk.wait(lambda: desk.titles() == ["value = 1", LOAD], "what the kernel has on record")
    panel.get_by_text("The server extension is missing").wait_for()
    assert desk.marks("one") == ["recorded"]
    assert desk.problems == []


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_panel_is_usable_by_keyboard_and_screen_reader_in_both_themes(desk: Desk, theme: str) -> None:
    desk.write("axe.ipynb", **{f"c{number}": f"step({number})" for number in range(20)})
    fill(desk.folder, "axe.ipynb", 60, lambda number: f"step_{number} = work({number})")
    desk.open("axe.ipynb")  # and wait: a notebook takes the focus as it opens
    focused = "document.activeElement.closest('.jp-Notebook') !== null"
    desk.wait(lambda: desk.page.evaluate(focused), "the notebook has the focus")
    desk.dark(so=theme.endswith("Dark"))
    desk.page.keyboard.press("Control+Alt+m")
    panel = desk.page.locator(".jp-mlops-panel")
    desk.wait(lambda: len(desk.titles()) > 5, "rows")
    desk.wait(lambda: desk.page.evaluate("document.activeElement.type") == "search", "the search has the focus")
    desk.page.keyboard.press("Tab")
    desk.page.keyboard.press("Tab")
    desk.page.keyboard.press("ArrowDown")
    desk.page.keyboard.press("Enter")
    details = panel.get_by_role("region", name="Details of a cell run")
    details.get_by_text("step_58 = work(58)").wait_for()
    chosen = panel.get_by_role("listbox").get_by_role("option", selected=True)
    assert chosen.get_attribute("aria-posinset") == "2"
    assert "step_58" in chosen.inner_text()
    desk.look(f"theme-{theme.split()[-1].lower()}")
    for context in (".jp-mlops-panel", ".jp-mlops-marks", ".jp-mlops-status"):
        assert desk.violations(context) == []
    desk.page.keyboard.press("Escape")
    details.wait_for(state="detached")
    assert (desk.problems, desk.strays) == ([], [])


def test_an_answer_with_controls_is_chosen_in_and_tried_out(desk: Desk) -> None:
    nbconvert = pytest.importorskip("nbconvert", reason="needs nbconvert: pip install 'jupyter-mlops[test]'")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    shop(desk.folder)
    path = desk.write(
        "panel.ipynb", load=LOAD, first="answer = 'of the first'", second="answer = 'of the second'",
        log="%mlops log --panel", runs="%mlops runs --panel",
        check="%mlops check churn/1 -g auc>=0.7 -g not-pickle --panel",
        tables="import pandas as pd\nthen = pd.DataFrame({'hour': list(range(24)) * 50, 'port': ['S', 'C'] * 600})\n"
        "now = then.assign(hour=then.hour // 2)",
        drift="%mlops check drift now --against then --panel",
    )  # fmt: skip
    desk.open("panel.ipynb")
    for cell in ("load", "first", "second", "log", "runs", "check", "tables", "drift"):
        desk.run(cell)

    def output(cell: str) -> Any:
        """A cell's output: the page draws only what is in sight, so the cell is gone to."""
        desk.page.evaluate(
            """async id => {
              const notebook = window.jupyterapp.shell.currentWidget.content;
              const at = notebook.widgets.findIndex(cell => cell.model.id === id);
              notebook.activeCellIndex = at;
              await notebook.scrollToItem(at, 'start');
            }""",
            cell,
        )
        return desk.page.locator(".jp-CodeCell.jp-mod-active .jp-OutputArea")

    # a cell run is found by its words, and shown whole
    log = output("log")
    log.get_by_placeholder("words in code").fill("of the first")
    log.get_by_placeholder("words in code").press("Enter")
    log.locator("pre", has_text="answer = 'of the first'").wait_for()
    assert log.locator("select option").count() == 1
    desk.look("panel-log")

    # runs side by side
    runs = output("runs")
    runs.locator("select option").first.wait_for()
    assert runs.locator("select option").count() == 2
    runs.locator("td", has_text="auc").or_(runs.get_by_text("Neither parameters nor metrics")).first.wait_for()
    desk.look("panel-runs")

    # a threshold is moved until the gate is not passed, and the record knows nothing of it
    check = output("check")
    check.get_by_text("2 of 2 passed").wait_for()
    with Store.open(desk.folder / ".mlops") as store:
        asked = store.counts()["check_result"]
        slider = check.get_by_role("slider")
        slider.focus()
        slider.press("End")
        check.get_by_text("1 of 2 passed").wait_for()
        desk.look("panel-check")
        assert store.counts()["check_result"] == asked

    # what fell where in the column that has drifted; with a higher limit it has not
    drift = output("drift")
    drift.get_by_text("1 of 2 columns above 0.2, tried").wait_for()
    drift.get_by_text("What fell where in hour").wait_for()
    desk.look("panel-drift")
    slider = drift.get_by_role("slider")
    slider.focus()
    slider.press("End")
    drift.get_by_text("0 of 2 columns above").wait_for()
    drift.locator("select").select_option("port")
    drift.get_by_text("What fell where in port").wait_for()
    found = axe.Axe().run(desk.page, context=".jp-OutputArea").response["violations"]
    # the handle of ipywidgets' slider has no name of its own: its label stands beside it
    mine = [one for one in found if not all("noUi-handle" in node["html"] for node in one["nodes"])]
    assert mine == [], [(one["id"], [node["html"] for node in one["nodes"]]) for one in mine]

    # without a kernel it is the answer as it was
    desk.command("docmanager:save")
    page, _ = nbconvert.HTMLExporter().from_filename(str(path))
    for text in ("2 of 2 passed", ">cell run</th>", "interrupted", "1 of 2 columns of now have drifted from then"):
        assert text in page
    assert "answer = 'of the first'" in html.unescape(page)  # in the answer: in the cell it is cut up by colours
    assert (desk.problems, desk.strays) == ([], [])
