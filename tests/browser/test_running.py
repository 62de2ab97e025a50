"""Notebooks run from a form in JupyterLab, and projects made: a real browser, a real server, real runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from payloads import PAYLOADS

from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk

WAITS = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.02)"
NOTEBOOK = "[...window.jupyterapp.shell.widgets('main')].find(one => one.context)"
SAVE = f"{NOTEBOOK}.context.save()"
READY = f"{NOTEBOOK}.sessionContext.session?.kernel?.status === 'idle'"


def declare(desk: Desk, name: str, parameters: str, **cells: str) -> Path:
    """Write a notebook with a cell of parameters."""
    path = desk.write(name, parameters=parameters, **cells)
    book = json.loads(path.read_text())
    book["cells"][0]["metadata"]["tags"] = ["parameters"]
    path.write_text(json.dumps(book))
    return path


def form_of(desk: Desk, name: str) -> Any:
    """Open a notebook, and the form that runs it."""
    desk.open(name, kernel=False)
    desk.command("jupyter-mlops:run")
    form = desk.page.locator(".jp-mlops-run")
    form.get_by_role("button", name="Run", exact=True).wait_for()
    return form


def test_a_form_of_its_parameters_runs_a_notebook_to_its_result_and_record(desk: Desk) -> None:
    declare(
        desk, "train.ipynb", "from typing import Literal\ndepth: int = 3  # how deep each tree may be\nrate = 0.1\n"
        "mode: Literal['fast', 'slow'] = 'fast'",
        waits=WAITS, metric="from jupyter_mlops import log_metric\nlog_metric('twice', 2 * depth)",
    )  # fmt: skip
    form = form_of(desk, "train.ipynb")
    depth = form.get_by_label("depth")
    assert depth.get_attribute("placeholder") == "3"
    depth.fill("deep")
    form.get_by_text("depth is to be int, and 'deep' can not be read as that").wait_for()
    assert depth.get_attribute("aria-invalid") == "true"
    run = form.get_by_role("button", name="Run", exact=True)
    assert run.is_disabled()
    desk.look("run-wrong")
    assert desk.violations(".jp-mlops-run") == []
    depth.fill("21")
    form.get_by_label("mode").select_option("slow")
    form.locator("summary").get_by_text("Where, and how").click()
    form.get_by_label("Tickets").fill("ABC-7")
    form.get_by_text("mlops run -p depth 21 -p mode slow --ticket=ABC-7 train.ipynb").wait_for()
    run.press("Enter")
    form.get_by_text("cell 3 of 4").wait_for()
    desk.look("run-running")
    assert desk.violations(".jp-mlops-run") == []
    (desk.folder / "go").touch()
    form.get_by_role("status").get_by_text("Done").wait_for()
    form.locator("dd", has_text="42").wait_for()
    desk.page.locator(".lm-TabBar-tabLabel", has_text="train.out.ipynb").wait_for()
    form.get_by_role("button", name="from jupyter_mlops import log_metric").wait_for()
    desk.look("run-done")
    desk.dark()
    desk.look("run-done-dark")
    assert desk.violations(".jp-mlops-run") == []
    form.get_by_role("button", name="from jupyter_mlops import log_metric").click()
    panel = desk.page.locator(".jp-mlops-panel")
    panel.get_by_role("region", name="Details of a cell run").get_by_text("log_metric('twice', 2 * depth)").wait_for()
    with Store.open(desk.folder / ".mlops") as store:
        (started,) = [run.started for run in store.runs() if run.started.trigger == "papermill"]
    assert (started.parameters, [one.id for one in started.tickets]) == ({"depth": 21, "mode": "slow"}, ["ABC-7"])
    assert (desk.problems, desk.strays) == ([], [])


def test_a_sweep_is_asked_for_in_the_form_and_answers_with_its_table(desk: Desk) -> None:
    declare(desk, "s.ipynb", "depth: int = 3", metric="from jupyter_mlops import log_metric\nlog_metric('m', depth)")
    form = form_of(desk, "s.ipynb")
    form.get_by_label("Over many values").check()
    form.get_by_label("depth").fill("3..1")
    form.get_by_text("it begins above its end").wait_for()
    form.get_by_label("depth").fill("1..3")
    form.get_by_label("Best by metric").fill("m")
    form.get_by_role("button", name="Run 3 times").click()
    form.get_by_role("status").get_by_text("Done").wait_for()
    rows = form.get_by_role("row")
    assert rows.count() == 4
    best = form.get_by_role("row", name="best")
    assert "★ best" in best.inner_text()
    assert best.locator("td").nth(1).inner_text() == "3"
    desk.look("sweep")
    assert desk.violations(".jp-mlops-run") == []
    best.get_by_role("button", name="Open").click()
    desk.page.locator(".lm-TabBar-tabLabel", has_text="depth=3.ipynb").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_a_secret_of_the_form_is_seen_by_its_kernel_and_by_nobody_else(desk: Desk) -> None:
    secret = "correct-horse-battery"
    declare(desk, "secret.ipynb", "key: \"Secret\" = ''  # of the store", waits=WAITS, use="print('it is', key)")
    form = form_of(desk, "secret.ipynb")
    field = form.get_by_label("key")
    assert field.get_attribute("type") == "password"
    field.fill(secret)
    form.get_by_text("mlops run -f - secret.ipynb").wait_for()
    form.get_by_role("button", name="Run", exact=True).click()
    form.get_by_text("cell 3 of 4").wait_for()
    assert field.input_value() == ""
    for process in psutil.process_iter():
        try:
            if "chrom" not in process.name() and process.pid != os.getpid():
                assert secret not in " ".join(process.cmdline())
                assert secret not in str(process.environ())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    (desk.folder / "go").touch()
    form.get_by_role("status").get_by_text("Done").wait_for()
    assert "it is <redacted:known:1>" in (desk.folder / "secret.out.ipynb").read_text()
    desk.page.locator(".lm-TabBar-tabLabel", has_text="secret.out.ipynb").wait_for()
    assert secret not in desk.page.content()
    kept = desk.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert secret not in kept
    for path in desk.lab.root.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret.encode() not in path.read_bytes(), path


def test_a_page_that_is_reloaded_finds_its_run_and_interrupts_it(desk: Desk) -> None:
    declare(desk, "long.ipynb", "depth: int = 3", waits=WAITS)
    form = form_of(desk, "long.ipynb")
    with desk.saved():
        form.get_by_role("button", name="Run", exact=True).click()
        form.get_by_text("cell 2 of 2").wait_for()
    desk.open("long.ipynb", kernel=False, reset=False)
    form.get_by_text("cell 2 of 2").wait_for()
    form.get_by_role("button", name="Interrupt").click()
    form.get_by_role("status").get_by_text("Interrupted").wait_for()
    with Store.open(desk.folder / ".mlops") as store:
        desk.wait(lambda: [run.status for run in store.runs() if run.ended] == ["interrupted"], "on record")
    assert (desk.problems, desk.strays) == ([], [])


def test_a_notebook_with_changes_is_saved_first_if_wanted_and_the_form_follows(desk: Desk) -> None:
    path = declare(desk, "edited.ipynb", "depth: int = 3", one="print(depth)")
    form = form_of(desk, "edited.ipynb")
    said = form.get_by_text("changes that are not saved")

    def saved() -> bool:
        """A kernel that has come tells of its name and language, which are changes."""
        desk.page.evaluate(SAVE)
        return desk.page.evaluate(READY) and said.count() == 0

    desk.wait(saved, "saved")
    desk.page.evaluate(
        f"{NOTEBOOK}.context.model.cells.get(0).sharedModel.setSource('depth: int = 3\\nwidth: int = 4')"
    )
    said.wait_for()
    desk.look("run-unsaved")
    form.get_by_role("button", name="Save it").click()
    form.get_by_label("width").wait_for()
    said.wait_for(state="detached")
    assert "width: int = 4" in json.loads(path.read_text())["cells"][0]["source"]


def test_what_a_notebook_declares_is_never_more_than_text(desk: Desk) -> None:
    lines = [f"p{at}: str = {bad!r}  # {bad.splitlines()[0]}" for at, bad in enumerate(PAYLOADS)]
    lines += [f"q{at}: Literal[{bad!r}, 'x'] = {bad!r}" for at, bad in enumerate(PAYLOADS)]
    declare(desk, "bad.ipynb", "\n".join(lines), fail=f"raise ValueError({PAYLOADS[0]!r})")
    form = form_of(desk, "bad.ipynb")
    for at, bad in enumerate(PAYLOADS):
        shown = bad.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\u2066", "\\u2066")
        assert form.get_by_label(f"p{at} ", exact=False).first.get_attribute("placeholder") == shown
    form.get_by_label("p0 ").first.fill(PAYLOADS[1])
    form.get_by_role("button", name="Run", exact=True).click()
    form.get_by_role("status").get_by_text("Failed").wait_for()
    form.locator("pre.jp-mlops-error", has_text=PAYLOADS[0]).wait_for()
    made = desk.page.evaluate("[...document.querySelectorAll('.jp-mlops-run *')].map(one => one.localName)")
    assert not {"script", "img", "svg", "iframe", "style", "a", "math"} & set(made)
    assert (desk.problems, desk.strays) == ([], [])


def test_a_project_is_made_from_the_launcher_with_a_first_notebook(desk: Desk) -> None:
    folder = desk.folder / "new one"
    folder.mkdir()
    (desk.folder / ".mlops" / "format").unlink()  # no project is around the new one
    desk.page.goto(f"{desk.lab.base}lab?reset&token={desk.lab.token}")
    desk.page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('launcher:create')")
    desk.command("launcher:create", cwd=f"{desk.folder.name}/new one")
    card = desk.page.locator(".jp-LauncherCard", has_text="New MLOps Project").last
    card.wait_for()
    desk.look("launcher")
    card.click()
    desk.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    assert {one.name for one in folder.iterdir()} >= {".mlops", "first_steps.ipynb"}
    desk.command("jupyter-mlops:run")
    form = desk.page.locator(".jp-mlops-run")
    form.get_by_label("trees").wait_for()
    form.get_by_label("trees").fill("5")
    form.get_by_role("button", name="Run", exact=True).click()
    form.get_by_role("status").get_by_text("Done").wait_for()
    form.get_by_text("accuracy").first.wait_for()
    desk.look("first-steps")
    assert (desk.problems, desk.strays) == ([], [])
