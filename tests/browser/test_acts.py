"""What a person has done from the side panel: models, comparisons, slices, checkouts; in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from payloads import PAYLOADS
from sklearn.linear_model import LogisticRegression

from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellStarted,
    CodeState,
    Environment,
    Gap,
    Package,
    RunStarted,
    digest_of,
)
from jupyter_mlops.registry import LocalRegistry, RunContext
from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk

LOAD = "%load_ext jupyter_mlops"
GATES = '[tool.jupyter-mlops.gates]\nproduction = ["auc>=0.7", "not-pickle"]\n'
HOSTILE = "<img src=x onerror=alert(1)>{__import__('os').getpid()} $HOME it's \"so\" \\ \u202e?"


def shop(folder: Path, said: str = "author") -> None:
    """A model: version 1 holds production, 2 is not good enough, 3 is."""
    features, labels = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2
    with Store.open(folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="shop.ipynb"))
        cell = store.append(CellStarted(run=run, notebook="shop.ipynb", cell="fit", source="model.fit(X, y)", count=3))
        store.append(CellEnded(cell_run=cell, status="done"))
        registry, made = LocalRegistry(store, user=said), RunContext(run=run, cell_run=cell)
        for rate, auc in ((1.0, 0.8), (0.1, 0.6), (0.5, 0.9)):
            model = LogisticRegression(C=rate).fit(features, labels)
            registry.register(
                model, "churn", metrics={"auc": auc, said: said}, data=features, context=made, description=said,
                tags={said: said}, parameters={said: said},
            )  # fmt: skip
        registry.approve("churn/1", by=said, reason=said, tickets=[said])
        registry.promote("churn/1", "production", gates=["auc>=0.7"], reason="first", tickets=[said])
    (folder / "pyproject.toml").write_text(GATES)


def usable(desk: Desk, name: str) -> None:
    """See that the panel has no fault of accessibility in either theme, and keep a picture of each."""
    for dark in (False, True):
        desk.dark(so=dark)
        desk.look(f"{name}-{'dark' if dark else 'light'}")
        assert desk.violations() == []
    desk.dark(so=False)


def models_of(desk: Desk) -> Any:
    panel = desk.record()
    panel.get_by_role("tab", name="Models").click()
    return panel


def test_a_model_is_registered_refused_promoted_and_rolled_back_from_the_panel(desk: Desk) -> None:
    (desk.folder / "pyproject.toml").write_text(GATES)
    fit = (
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\n"
        "from jupyter_mlops import log_metric\nX, y = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2"
    )
    desk.write(
        "churn.ipynb", load=LOAD, fit=fit, first="one = LogisticRegression().fit(X, y); log_metric('auc', 0.8)",
        keep="%mlops register one churn --data X,y", point="%mlops promote churn/1 production -m first",
        second="two = LogisticRegression(C=0.1).fit(X, y); log_metric('auc', 0.6)",
        third="three = LogisticRegression(C=0.5).fit(X, y); log_metric('auc', 0.9)",
        best="%mlops register three churn --data X,y",
    )  # fmt: skip
    desk.open("churn.ipynb")
    panel = models_of(desk)
    for cell in ("load", "fit", "first", "keep", "point", "second"):
        desk.run(cell)
    panel.get_by_role("button", name="churn").click()
    model = panel.get_by_role("region", name="Model churn")
    model.get_by_role("button", name="Register a model…").click()
    form = model.get_by_role("form", name="Register a model")
    assert form.get_by_label("Model", exact=True).input_value() == "churn"
    form.get_by_label("Variable").fill("two")
    form.get_by_label("Trained on").fill("X, y")
    form.get_by_label("Description").fill(HOSTILE)
    form.get_by_label("Tags").fill("stage=trial, team={ops}")
    form.get_by_label("Tickets").fill("OPS-7, OPS-8")
    desk.look("register")
    form.get_by_role("button", name="Register").click()
    form.get_by_text("Registered as churn, version 2.").wait_for()
    desk.look("registered")
    form.get_by_role("button", name="Close").click()
    with Store.open(desk.folder / ".mlops") as store:
        record = LocalRegistry(store).get("churn/2").record
        assert record.description == HOSTILE
        assert record.tags == {"stage": "trial", "team": "{ops}"}
        assert [one.id for one in store.moves("models/churn")[-1].transition.tickets] == ["OPS-7", "OPS-8"]
        maker = store.cell_run(record.cell_run) if record.cell_run else None
        assert maker is not None
        assert maker.started.cell == "second"

    # refused, with what was found and demanded; and on record
    verbs = model.get_by_role("group", name="What can be done with version 2")
    verbs.get_by_role("button", name="Promote…").click()
    form = model.get_by_role("form", name="Promote version 2")
    form.get_by_text("@production demands: auc>=0.7, not-pickle").wait_for()
    form.get_by_label("Reason").fill("newer")
    form.get_by_role("button", name="Promote").click()
    alert = form.get_by_role("alert")
    alert.get_by_text("auc>=0.7", exact=True).wait_for()
    for text in ("0.6", "auc >= 0.7", "1 of 2 gates passed"):
        alert.get_by_text(text, exact=True).first.wait_for()
    model.get_by_text("Version 2 was refused").wait_for()
    usable(desk, "refused")
    form.get_by_role("button", name="Cancel").click()

    # a better one passes
    desk.run("third")
    desk.run("best")
    verbs = model.get_by_role("group", name="What can be done with version 3")
    verbs.get_by_role("button", name="Check…").click()
    form = model.get_by_role("form", name="Check version 3")
    form.get_by_role("button", name="Ask the gates").click()
    form.get_by_text("It passes what @production demands.").wait_for()
    form.get_by_role("button", name="Ask the gates").press("Escape")
    form.wait_for(state="detached")
    verbs.get_by_role("button", name="Promote…").click()
    form = model.get_by_role("form", name="Promote version 3")
    form.get_by_label("Reason").fill("better")
    form.get_by_label("Tickets").fill("OPS-9")
    form.get_by_role("button", name="Promote").click()
    form.get_by_text("@production points to version 3 now.").wait_for()
    model.get_by_text("Moved from version 1 to 3").wait_for()
    form.get_by_role("button", name="Close").click()

    model.get_by_role("button", name="Roll back @production").click()
    form = model.get_by_role("form", name="Roll back @production")
    form.get_by_label("Reason").fill("wrong at night")
    form.get_by_role("button", name="Roll back").click()
    form.get_by_text("@production points to version 1 again.").wait_for()
    model.get_by_text("Moved from version 3 to 1").wait_for()
    desk.look("rolled-back")
    with Store.open(desk.folder / ".mlops") as store:
        assert LocalRegistry(store).get("churn@production").version == 1
    # what the panel had the kernel do is in nobody's history, and on record
    assert desk.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCell.model.executionCount") == 8
    assert (desk.problems, desk.strays) == ([], [])


def test_versions_are_approved_compared_and_copied_as_a_card(desk: Desk) -> None:
    shop(desk.folder)
    (desk.folder / "pyproject.toml").write_text(GATES.replace('"not-pickle"', '"approved"'))
    desk.write("shop.ipynb", fit="model.fit(X, y)")
    desk.open("shop.ipynb", kernel=False)
    panel = models_of(desk)
    panel.get_by_role("button", name="churn").click()
    model = panel.get_by_role("region", name="Model churn")
    verbs = model.get_by_role("group", name="What can be done with version 3")
    verbs.get_by_role("button", name="Approve…").click()
    form = model.get_by_role("form", name="Approve version 3")
    form.get_by_label("Reason").fill("looked at it")
    form.get_by_role("button", name="Approve").click()
    form.get_by_text("approves it").wait_for()
    form.get_by_role("button", name="Close").click()
    verbs.get_by_role("button", name="Withdraw…").wait_for()
    verbs.get_by_role("button", name="Promote…").click()
    form = model.get_by_role("form", name="Promote version 3")
    form.get_by_role("button", name="Promote").click()
    form.get_by_text("@production points to version 3 now.").wait_for()
    form.get_by_role("button", name="Close").click()

    verbs.get_by_role("button", name="Compare").click()
    shown = model.get_by_role("group", name="What is different")
    metrics = shown.locator("tr", has_text="auc")
    assert re.sub(r"\s+", " ", metrics.inner_text()) == "auc 0.6 0.9"
    usable(desk, "versions")
    shown.get_by_role("button", name="Close").click()

    desk.context.grant_permissions(["clipboard-read", "clipboard-write"])
    verbs.get_by_role("button", name="Copy card").click()
    model.get_by_text("The card is on the clipboard").wait_for()
    card = desk.page.evaluate("navigator.clipboard.readText()")
    assert card.startswith("# churn, version 3\n")
    assert "| auc | 0.9 |" in card
    assert (desk.problems, desk.strays) == ([], [])


def test_a_form_wants_what_the_settings_want_to_be_said_of_that_alias_and_what_is_refused_is_shown(desk: Desk) -> None:
    shop(desk.folder)
    demands = '[tool.jupyter-mlops.demands]\nregister = ["ticket"]\npromote.production = ["reason", "ticket"]\n'
    (desk.folder / "pyproject.toml").write_text(GATES + demands)
    desk.write("shop.ipynb", load=LOAD, value="x = 1")
    desk.open("shop.ipynb")
    panel = models_of(desk)
    desk.run("load")
    panel.get_by_role("button", name="Register a model…").click()
    form = panel.get_by_role("form", name="Register a model")
    form.get_by_role("textbox", name="Tickets").and_(desk.page.locator(":required")).wait_for()
    form.get_by_role("textbox", name="Reason").and_(desk.page.locator(":optional")).wait_for()
    form.get_by_role("button", name="Cancel").click()
    panel.get_by_role("button", name="churn").click()
    model = panel.get_by_role("region", name="Model churn")
    model.get_by_role("group", name="What can be done with version 3").get_by_text("Promote…").click()
    form = model.get_by_role("form", name="Promote version 3")
    reason, tickets = (form.get_by_role("textbox", name=name) for name in ("Reason", "Tickets"))
    for field in (reason, tickets):
        field.and_(desk.page.locator(":required")).wait_for()
    assert form.get_by_text("The project’s settings demand it").count() == 2
    usable(desk, "demanded")
    form.get_by_label("Alias").fill("staging")
    for field in (reason, tickets):
        field.and_(desk.page.locator(":optional")).wait_for()
    form.get_by_label("Alias").fill("@production")
    reason.fill("better")
    form.get_by_role("button", name="Promote").click()
    assert desk.page.evaluate("document.activeElement.validity.valueMissing")  # nothing was sent
    # a browser takes a blank for something: the registry does not
    tickets.fill(" ")
    form.get_by_role("button", name="Promote").click()
    form.get_by_role("alert").get_by_text("churn/3 may not be @production: no ticket was given").wait_for()
    model.get_by_text("No ticket was given", exact=True).wait_for()
    desk.look("lacking")
    tickets.fill("OPS-9")
    form.get_by_role("button", name="Promote").click()
    form.get_by_text("@production points to version 3 now.").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_cell_runs_are_compared_sliced_and_checked_out(desk: Desk) -> None:
    (desk.folder / "rows.csv").write_text("a\n1\n2\n")
    path = desk.write(
        "story.ipynb", load=LOAD, read="text = open('rows.csv').read()", count="count = len(text.splitlines())",
        idle="unused = 1",
    )  # fmt: skip
    desk.open("story.ipynb")
    panel = desk.record()
    for cell in ("load", "read", "count", "idle"):
        desk.run(cell)
    (desk.folder / "rows.csv").write_text("a\n1\n2\n3\n")
    for cell in ("read", "count"):
        desk.run(cell)
    desk.wait(lambda: len(desk.titles()) == 6, "six rows")
    listbox = panel.get_by_role("listbox")
    listbox.get_by_role("option", name="count = len").first.click()
    details = panel.get_by_role("region", name="Details of a cell run")
    details.get_by_role("button", name="Compare with before").click()
    compared = panel.get_by_role("region", name="What is different between two cell runs")
    compared.get_by_text("Other contents").wait_for()
    names = [text.strip() for text in compared.locator(".jp-mlops-value .jp-mlops-name").all_text_contents()]
    assert names == ["text", "count"]
    usable(desk, "difference")
    compared.get_by_role("button", name="Close the comparison").click()

    # with one that is chosen, by keyboard
    details.get_by_role("button", name="Compare with…").click()
    panel.get_by_text("Choose the cell run to compare").wait_for()
    for key in ("End", "ArrowUp", "Enter"):
        desk.page.keyboard.press(key)
    lines = compared.locator(".jp-mlops-lines")
    lines.wait_for()
    assert "-text = open('rows.csv').read()" in lines.inner_text()  # the older one first
    assert "+count = len(text.splitlines())" in lines.inner_text()
    desk.page.keyboard.press("Tab")
    compared.get_by_role("button", name="Close the comparison").press("Escape")
    compared.wait_for(state="detached")

    listbox.get_by_role("option", name="count = len").first.click()
    details.get_by_role("button", name="Check out…").click()
    form = details.get_by_role("form", name="Check out code and files")
    form.get_by_label("Folder").fill(f"{desk.folder.name}/then")
    form.get_by_role("button", name="Write them").click()
    form.get_by_role("button", name="then/story.ipynb").wait_for()
    usable(desk, "checked-out")
    written = json.loads((desk.folder / "then" / "story.ipynb").read_text())
    assert [cell["source"] for cell in written["cells"]][-1] == "count = len(text.splitlines())"
    form.get_by_role("button", name="Write them").click()
    form.get_by_role("alert").get_by_text("is not empty").wait_for()
    form.get_by_role("button", name="Cancel").click()

    details.get_by_role("button", name="Slice…").click()
    form = details.get_by_role("form", name="Slice from here")
    name = form.get_by_label("Notebook").input_value()
    assert name.startswith(f"{desk.folder.name}/story-slice-")
    form.get_by_role("button", name="Write the notebook").click()
    desk.page.wait_for_function("name => window.jupyterapp.shell.currentWidget?.context?.path === name", arg=name)
    made = json.loads((desk.lab.root / name).read_text())
    assert ["".join(cell["source"]) for cell in made["cells"]] == [
        "text = open('rows.csv').read()", "count = len(text.splitlines())",
    ]  # fmt: skip
    desk.look("sliced")
    assert path.exists()
    assert (desk.problems, desk.strays) == ([], [])


def worlds(folder: Path, said: str = "") -> None:
    """Two sessions in two environments."""
    with Store.open(folder / ".mlops") as store:
        for number in range(2):
            run = store.append(RunStarted(trigger="session", notebook="env.ipynb", user="alice"))
            world = store.append(
                Environment(
                    python=f"3.{11 + number}.2{said if number else ''}", implementation="CPython", platform="Linux",
                    variables={f"MODE{said}": f"{number}{said}"}, cpu=f"chip{said}", cores=4, memory=2**33,
                    packages=[
                        Package(name="numpy", version="2.0"), Package(name="pandas", version=f"2.{number}{said}"),
                        Package(name=f"only{number}{said}", version="1.0", origin=f"file{said}"),
                    ],
                    gaps=[Gap(subject=f"gpu{said}", reason=f"not asked{said}")],
                )
            )  # fmt: skip
            code = store.append(
                CodeState(
                    commit=f"{number}" * 40, branch=f"main{said}", dirty=[Artifact(name=f"a{said}.py", kind="file")]
                )
            )
            cell = store.append(
                CellStarted(run=run, notebook="env.ipynb", cell="c", source=f"x = {number}{said}\n{said}", label=said,
                            environment=world, code=code, count=number + 1)
            )  # fmt: skip
            store.append(CellLogged(run=run, cell_run=cell, what="metric", key=f"auc{said}", value=f"{number}{said}"))
            made = Artifact(
                name=f"x{said}", kind="variable", type=f"int{number}{said}", digest=digest_of(b"%d" % number)
            )
            lost = Artifact(name=f"y{said}", kind="variable", why=f"lost {number}{said}")
            store.append(
                CellEnded(cell_run=cell, status=f"done{number}{said}" if said else "done", outputs=[made, lost])
            )


def test_what_changed_in_the_environment_since_a_run_is_shown(desk: Desk) -> None:
    worlds(desk.folder)
    desk.write("env.ipynb", c="x = 1")
    desk.open("env.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Environment").click()
    choice = panel.get_by_role("combobox", name="Changed since")
    desk.wait(lambda: choice.locator("option").count() == 3, "both runs")
    panel.get_by_text("3.12.2 CPython").wait_for()
    choice.select_option(index=2)
    row = panel.locator("tr", has_text="pandas")
    row.wait_for()
    assert re.sub(r"\s+", " ", row.inner_text()) == "pandas 2.0 2.1"
    rows = [re.sub(r"\s+", " ", text) for text in panel.locator(".jp-mlops-changes tbody tr").all_inner_texts()]
    assert rows == [
        "python 3.11.2 3.12.2", "pandas 2.0 2.1", "only1 not there 1.0 (file)", "only0 1.0 (file) not there",
        "MODE 0 1", "commit " + "0" * 12 + " " + "1" * 12,
    ]  # fmt: skip
    usable(desk, "environment")
    choice.select_option(index=1)
    panel.get_by_text("The same environment.").wait_for()
    panel.get_by_text("The same state of the code.").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_nothing_that_is_compared_or_refused_is_more_than_text(desk: Desk) -> None:
    said = " ".join(PAYLOADS)
    shop(desk.folder, said)
    worlds(desk.folder, said)
    desk.write("env.ipynb", c="x = 1")
    desk.open("env.ipynb", kernel=False)
    panel = models_of(desk)
    panel.get_by_role("button", name="churn").click()
    model = panel.get_by_role("region", name="Model churn")
    verbs = model.get_by_role("group", name="What can be done with version 3")
    verbs.get_by_role("button", name="Compare").click()
    model.get_by_role("group", name="What is different").get_by_text("Metrics").first.wait_for()
    model.locator("summary", has_text="Version 2").click()
    model.get_by_role("group", name="What can be done with version 2").get_by_role("button", name="Promote…").click()
    form = model.get_by_role("form", name="Promote version 2")
    form.get_by_label("Alias").fill("production")
    form.get_by_label("Reason").fill(said)
    form.get_by_label("Tickets").fill("<script>alert(3)</script>")
    form.get_by_role("button", name="Promote").click()
    form.get_by_role("alert").wait_for()
    form.get_by_label("Alias").fill("staging")
    form.get_by_role("button", name="Promote").click()
    form.get_by_text("@staging points to version 2 now.").or_(form.get_by_role("alert")).first.wait_for()
    harmless(desk)

    panel.get_by_role("tab", name="Environment").click()
    choice = panel.get_by_role("combobox", name="Changed since")
    desk.wait(lambda: choice.locator("option").count() >= 3, "the runs")
    texts = choice.locator("option").all_text_contents()
    choice.select_option(index=next(at for at in reversed(range(len(texts))) if "env.ipynb" in texts[at]))
    panel.locator(".jp-mlops-changes").first.wait_for()
    harmless(desk)

    panel.get_by_role("tab", name="Timeline").click()
    panel.get_by_role("listbox").get_by_role("option").first.click()
    panel.get_by_role("button", name="Compare with before").click()
    panel.get_by_role("region", name="What is different between two cell runs").get_by_text("Code").first.wait_for()
    harmless(desk)
    assert (desk.problems, desk.strays) == ([], [])


def test_an_environment_is_locked_and_one_that_can_not_be_made_says_why(desk: Desk) -> None:
    with Store.open(desk.folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="env.ipynb", user="alice"))
        packages = [Package(name="none-such-here", version="1")]
        world = store.append(Environment(python="3.99.1", implementation="CPython", packages=packages))
        cell = store.append(CellStarted(run=run, notebook="env.ipynb", cell="c", source="x = 1", environment=world))
        store.append(CellEnded(cell_run=cell, status="done"))
    desk.write("env.ipynb", c="x = 1")
    desk.open("env.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Environment").click()
    panel.get_by_role("button", name="Lock…").click()
    form = panel.get_by_role("form", name="Lock what the run of")
    form.get_by_label("Ask no index").check()
    form.get_by_role("button", name="Lock", exact=True).click()
    form.get_by_text("0 packages are locked:").wait_for()
    form.get_by_text("none-such-here", exact=True).wait_for()
    assert (desk.folder / "pylock.toml").is_file()
    usable(desk, "locked")
    form.get_by_role("button", name="Lock", exact=True).click()
    form.get_by_role("alert").get_by_text("pylock.toml is there already").wait_for()
    form.get_by_role("button", name="Cancel").click()
    panel.get_by_role("button", name="Create…").click()
    form = panel.get_by_role("form", name="Create the environment of the run of")
    form.get_by_label("Ask no index").check()
    form.get_by_role("button", name="Create", exact=True).click()
    form.get_by_role("alert").get_by_text("there is no Python 3.99 here").wait_for()
    desk.look("not-created")
    assert (desk.problems, desk.strays) == ([], [])


def harmless(desk: Desk) -> None:
    """See that nothing recorded made an element, and that nothing hides or reorders text."""
    desk.page.evaluate("document.querySelectorAll('.jp-mlops-panel details').forEach(one => { one.open = true; })")
    made = set(desk.page.evaluate("[...document.querySelectorAll('.jp-mlops-panel *')].map(one => one.localName)"))
    assert not {"script", "img", "svg", "iframe", "style", "a", "math"} & made
    text = desk.page.evaluate(
        """() => {
          const panel = document.querySelector('.jp-mlops-panel').cloneNode(true);
          panel.querySelectorAll('textarea').forEach(one => one.remove());  // what a person types is theirs
          return panel.textContent;
        }"""
    )
    assert not {"\u202e", "\x1b"} & set(text)


def test_a_model_is_promoted_and_rolled_back_by_keyboard_alone(desk: Desk) -> None:
    shop(desk.folder)
    desk.write("shop.ipynb", fit="model.fit(X, y)")
    desk.open("shop.ipynb")  # and wait: a notebook takes the focus as it opens
    keys = desk.page.keyboard
    keys.press("Control+Alt+m")
    desk.wait(lambda: desk.page.evaluate("document.activeElement.type") == "search", "the search has the focus")
    keys.press("Shift+Tab")
    while desk.page.evaluate("document.activeElement.id") != "jp-mlops-tab-models":
        before = desk.page.evaluate("document.activeElement.id")
        keys.press("ArrowRight")
        desk.page.wait_for_function("id => document.activeElement.id !== id", arg=before)
    panel = desk.page.locator(".jp-mlops-panel")
    panel.get_by_role("button", name="churn").wait_for()
    to(desk, "churn")
    keys.press("Enter")
    panel.get_by_role("region", name="Model churn").get_by_text("Version 3").first.wait_for()
    to(desk, "Promote…")
    keys.press("Enter")
    form = panel.get_by_role("form", name="Promote version 3")
    desk.wait(lambda: form.get_by_label("Alias").evaluate("one => one === document.activeElement"), "the first field")
    keys.press("Tab")
    keys.type("by hand")
    keys.press("Tab")
    keys.press("Enter")
    form.get_by_text("@production points to version 3 now.").wait_for()
    keys.press("Escape")
    form.wait_for(state="detached")
    to(desk, "Roll back @production", back=True)
    keys.press("Enter")
    form = panel.get_by_role("form", name="Roll back @production")
    form.wait_for()
    to(desk, "Roll back")
    keys.press("Enter")
    form.get_by_text("@production points to version 1 again.").wait_for()
    with Store.open(desk.folder / ".mlops") as store:
        reasons = [one.transition.reason for one in store.moves("models/churn@production")]
    assert reasons == ["first", "by hand", "rollback"]
    assert (desk.problems, desk.strays) == ([], [])


def to(desk: Desk, name: str, *, back: bool = False) -> None:
    """Go on with the tabulator until what has the focus is called so."""
    for _ in range(80):
        called = desk.page.evaluate(
            "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()"
        )
        if called == name or (called.startswith(name) and name == "churn"):
            return
        desk.page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"the keyboard leads to no {name}")
