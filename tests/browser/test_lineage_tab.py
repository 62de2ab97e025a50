"""Where something comes from, in JupyterLab: found, drawn, walked through, folded, kept as a picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
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
    RunEnded,
    RunStarted,
    Ticket,
    digest_of,
)
from jupyter_mlops.registry import LocalRegistry, RunContext
from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk


def value(name: str, made: Any = None, *, kind: str = "variable", type: str = "DataFrame") -> Artifact:
    """A version of something, by who made it."""
    return Artifact(name=name, kind=kind, type=type, digest=digest_of(f"{name}{made}".encode()), size=10, made=made)


def study(folder: Path, notebook: str = "study.ipynb", *, said: str = "") -> dict[str, Any]:
    """Put a small study on record: a file is read, split, learned from, measured; with all that stands around it."""
    with Store.open(folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook=notebook, user=said or "alice"))
        around = {
            "environment": store.append(
                Environment(
                    python=said or "3.11.2", platform=said or "Linux", packages=[Package(name="numpy", version="2")]
                )
            ),
            "code": store.append(CodeState(commit=said or "0123456789abcdef", branch=said or "main")),
        }  # fmt: skip
        made: dict[str, Any] = {}

        def cell(name: str, source: str, **ended: Any) -> Any:
            number = len(made) + 1
            tickets = [Ticket(id=said or "ABC-12")] if name == "fit" else []
            made[name] = store.append(
                CellStarted(
                    run=run, notebook=notebook, cell=name, source=source, count=number, label=said, tickets=tickets,
                    **around,
                )
            )  # fmt: skip
            after = [one.made for one in ended.get("inputs", []) if one.made]
            store.append(CellEnded(cell_run=made[name], status="done", seconds=0.1, after=after, **ended))
            return made[name]

        def named(text: str) -> str:
            return said or text

        read = cell(
            "read", said or "flights = pd.read_csv('flights.csv')", outputs=[value(named("flights"))],
            files_read=[value(named("flights.csv"), kind="file", type="")],
            gaps=[Gap(subject=named("weather"), reason=said or "it was read over a socket", blocks=True)],
        )  # fmt: skip
        split = cell("split", said or "train, test = split(flights)", inputs=[value(named("flights"), read)],
                     outputs=[value(named("train")), value(named("test"))])  # fmt: skip
        fit = cell("fit", said or "model = fit(train)", inputs=[value(named("train"), split)],
                   outputs=[value(named("model"), type="LogisticRegression")])  # fmt: skip
        test = Artifact(name=named("test"), kind="variable", type=said, why=said or "no honest digest", made=split)
        score = cell("score", said or "log_metric('auc', score(model, test))",
                     inputs=[value(named("model"), fit), test])  # fmt: skip
        store.append(CellLogged(run=run, cell_run=score, what="metric", key=named("auc"), value=said or 0.8125))
        store.append(RunEnded(run=run, status="done"))
        return made


def labels(desk: Desk) -> list[str]:
    """What the nodes in sight are called, read as a screen reader does."""
    return desk.page.eval_on_selector_all(".jp-mlops-node", "all => all.map(one => one.getAttribute('aria-label'))")


def active(desk: Desk) -> str:
    """The node that the keyboard is at, read as a screen reader does."""
    return desk.page.evaluate(
        """() => {
          const graph = document.querySelector('.jp-mlops-graph');
          return document.getElementById(graph.getAttribute('aria-activedescendant')).getAttribute('aria-label');
        }"""
    )


def test_where_a_metric_comes_from_is_found_without_reading_anything_first(desk: Desk) -> None:
    study(desk.folder)
    desk.write("study.ipynb", read="pass", split="pass", fit="pass", score="pass")
    desk.open("study.ipynb", kernel=False)
    desk.dark(so=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Lineage").click()
    panel.get_by_role("region", name="Variables").get_by_role("button", name="flights").wait_for()
    desk.look("lineage-offer")
    panel.get_by_role("region", name="Metrics").get_by_role("button", name="auc").click()
    graph = panel.get_by_role("application")
    graph.wait_for()
    desk.wait(lambda: len(labels(desk)) > 8, "the graph")
    found = labels(desk)
    for kind, name in (
        ("metric", "auc"), ("cell run", "log_metric('auc', score(model, test))"), ("value", "model"),
        ("value", "flights"), ("file", "flights.csv"), ("not known", "weather"),
        ("environment", "Python 3.11.2"), ("commit", "0123456789ab"),
        ("ticket", "ABC-12"),
    ):  # fmt: skip
        assert any(label.startswith(f"{name}, {kind}") for label in found), (name, kind, found)
    assert any("no honest digest" in label for label in found)
    desk.look("lineage")
    assert desk.violations() == []
    desk.dark()
    desk.look("lineage-dark")
    assert desk.violations() == []

    # by the mouse: what is chosen is said in words, and leads on
    panel.get_by_role("button", name="Fit").click()
    panel.get_by_role("img", name="flights.csv, file").click()
    chosen = panel.get_by_role("group", name="The chosen node")
    chosen.get_by_text("flights.csv").wait_for()
    panel.get_by_role("img", name="train, test = split(flights), cell run").click()
    chosen.get_by_role("button", name="Details").click()
    panel.get_by_role("region", name="Details of a cell run").get_by_text("train, test = split(flights)").wait_for()
    # and the tab is as it was left
    panel.get_by_role("tab", name="Lineage").click()
    desk.wait(lambda: len(labels(desk)) == len(found), "the same graph")
    assert (desk.problems, desk.strays) == ([], [])


def test_a_lineage_is_opened_in_a_tab_with_more_room_and_leads_back_to_the_panel(desk: Desk) -> None:
    study(desk.folder)
    desk.write("study.ipynb", read="pass", split="pass", fit="pass", score="pass")
    desk.open("study.ipynb", kernel=False)
    panel = desk.record().and_(desk.page.get_by_role("region", name="Record", exact=True))
    panel.get_by_role("tab", name="Lineage").click()
    panel.get_by_role("region", name="Metrics").get_by_role("button", name="auc").click()
    panel.get_by_role("button", name="Open in a tab").click()
    desk.page.get_by_role("tab", name="Lineage of auc").wait_for()
    large = desk.page.get_by_role("region", name="Lineage of auc")
    large.get_by_role("img", name="flights.csv, file").wait_for()
    assert large.get_by_role("button", name="Open in a tab").count() == 0
    desk.look("lineage-large")
    assert desk.violations() == []
    large.get_by_role("img", name="train, test = split(flights), cell run").click()
    large.get_by_role("button", name="Lineage of this").click()
    large.get_by_role("button", name="Back to what was shown before").click()
    large.get_by_role("img", name="train, test = split(flights), cell run").click()
    large.get_by_role("button", name="Details").click()
    panel.get_by_role("region", name="Details of a cell run").get_by_text("train, test = split(flights)").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_a_lineage_is_walked_folded_and_read_as_lines_by_keyboard_alone(desk: Desk) -> None:
    study(desk.folder)
    desk.write("study.ipynb", read="pass", split="pass", fit="pass", score="pass")
    desk.open("study.ipynb", kernel=False)
    panel = desk.record()
    keyboard = desk.page.keyboard
    panel.get_by_role("tab", name="Timeline").focus()
    keyboard.press("ArrowRight")
    panel.get_by_role("tab", name="Lineage", selected=True).wait_for()
    panel.get_by_role("region", name="Variables").wait_for()
    keyboard.press("Tab")
    field = panel.get_by_role("combobox", name="Show the lineage of")
    assert field.evaluate("node => node === document.activeElement")
    keyboard.type("mod")
    keyboard.press("ArrowDown")
    option = panel.get_by_role("option", selected=True)
    assert option.inner_text().startswith("model")
    keyboard.press("Enter")
    graph = panel.get_by_role("application")
    graph.wait_for()
    desk.wait(lambda: len(labels(desk)) > 4, "the graph")
    for _ in range(4):
        keyboard.press("Tab")
        if graph.evaluate("node => node === document.activeElement"):
            break
    assert graph.evaluate("node => node === document.activeElement")
    assert active(desk).startswith("model, value")
    keyboard.press("ArrowUp")
    assert active(desk).startswith("model = fit(train), cell run")
    whole = panel.get_by_text(re.compile(r"^\d+ nodes$")).inner_text()
    keyboard.press("Space")
    desk.wait(lambda: len(labels(desk)) == 2, "what is left when the cell is folded")
    panel.get_by_text(f"2 of {whole}").wait_for()
    keyboard.press("Space")
    panel.get_by_text(whole, exact=True).wait_for()
    where = desk.page.locator(".jp-mlops-graph svg > g")
    before = where.get_attribute("transform")
    keyboard.press("Shift+ArrowLeft")
    panned = where.get_attribute("transform")
    assert panned != before
    keyboard.press("+")
    assert where.get_attribute("transform") != panned
    keyboard.press("0")
    keyboard.press("Home")
    assert active(desk).startswith("model, value")
    keyboard.press("ArrowUp")
    keyboard.press("Enter")
    panel.get_by_role("region", name="Details of a cell run").get_by_text("model = fit(train)").wait_for()

    # the same as lines
    panel.get_by_role("tab", name="Lineage").click()
    panel.get_by_role("button", name="List").press("Enter")
    tree = panel.get_by_role("tree")
    tree.focus()
    keyboard.press("Home")
    assert "LogisticRegression" in tree.get_by_role("treeitem", selected=True).inner_text()
    lines = tree.get_by_role("treeitem").count()
    keyboard.press("ArrowDown")
    assert tree.get_by_role("treeitem", selected=True).get_attribute("aria-level") == "2"
    keyboard.press("ArrowLeft")
    desk.wait(lambda: tree.get_by_role("treeitem").count() == 2, "the folded tree")
    keyboard.press("ArrowRight")
    desk.wait(lambda: tree.get_by_role("treeitem").count() == lines, "the whole tree")
    desk.look("lineage-list")
    assert desk.violations() == []
    keyboard.press("Enter")
    panel.get_by_role("region", name="Details of a cell run").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_a_lineage_is_kept_as_a_picture(desk: Desk) -> None:
    study(desk.folder)
    desk.write("study.ipynb", read="pass")
    desk.open("study.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Lineage").click()
    panel.get_by_role("region", name="Metrics").get_by_role("button", name="auc").click()
    panel.get_by_role("application").wait_for()
    with desk.page.expect_download() as got:
        panel.get_by_role("button", name="SVG").click()
    assert got.value.suggested_filename == "lineage-auc.svg"
    tree = ET.parse(got.value.path())
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "flights.csv" in texts
    assert not [one for one in tree.iter() if one.tag.rpartition("}")[2] in ("script", "foreignObject", "image")]
    with desk.page.expect_download() as got:
        panel.get_by_role("button", name="PNG").click()
    data = Path(got.value.path()).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) > 5000
    assert (desk.problems, desk.strays) == ([], [])


def test_details_of_cell_runs_and_models_lead_to_their_lineage(desk: Desk) -> None:
    made = study(desk.folder)
    with Store.open(desk.folder / ".mlops") as store:
        context = RunContext(run=store.cell_run(made["fit"]).started.run, cell_run=made["fit"])
        features = np.arange(20.0).reshape(-1, 1)
        for strength in (1, 0.1):
            model = LogisticRegression(C=strength).fit(features, np.arange(20) % 2)
            LocalRegistry(store, user="alice").register(model, "churn", data=features, context=context)
    desk.write("study.ipynb", read="pass", split="pass", fit="pass", score="pass")
    desk.open("study.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("listbox").get_by_role("option", name="model = fit(train)").click()
    panel.get_by_role("region", name="Details of a cell run").get_by_role("button", name="Lineage").click()
    panel.get_by_role("tab", name="Lineage", selected=True).wait_for()
    panel.get_by_role("application").wait_for()
    assert active(desk).startswith("model = fit(train), cell run")

    panel.get_by_role("tab", name="Models").click()
    panel.get_by_role("button", name="churn").click()
    panel.get_by_role("region", name="Model churn").get_by_role("button", name="Lineage").first.click()
    panel.get_by_role("tab", name="Lineage", selected=True).wait_for()
    desk.wait(lambda: panel.get_by_role("application").count() == 1 and active(desk).startswith("churn 2, model"), "it")
    panel.get_by_role("button", name="Back to what was shown before").click()
    desk.wait(lambda: panel.get_by_role("application").count() == 1 and active(desk).startswith("model = fit"), "back")

    # what is not known here is said, and leads back too
    field = panel.get_by_role("combobox", name="Show the lineage of")
    field.fill("nothing of that name")
    field.press("Enter")
    panel.get_by_text("is not known here").wait_for()
    panel.get_by_role("button", name="Back", exact=True).click()
    panel.get_by_role("application").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_a_lineage_of_500_nodes_stays_fluid(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(desk.folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="long.ipynb", user="alice"))
        cells: list[Any] = []
        for number in range(250):
            read = [value(f"part_{at}", cells[at]) for at in {number - 1, number - 7, number // 2} if 0 <= at < number]
            cells.append(
                store.append(
                    CellStarted(
                        run=run, notebook="long.ipynb", cell=f"c{number}", source=f"part_{number} = work()", count=1
                    )
                )
            )
            store.append(
                CellEnded(
                    cell_run=cells[-1], status="done", after=[one.made for one in read if one.made], inputs=read,
                    outputs=[value(f"part_{number}")],
                )
            )  # fmt: skip
        store.append(RunEnded(run=run, status="done"))
    desk.write("long.ipynb", c0="pass")
    desk.open("long.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Lineage").click()
    field = panel.get_by_role("combobox", name="Show the lineage of")
    field.fill("part_249")
    field.press("Enter")
    panel.get_by_text("500 nodes").wait_for()
    desk.wait(lambda: bool(labels(desk)), "nodes")
    near = len(labels(desk))

    # more than can be read at once is not made smaller than that, but has a map
    panel.get_by_role("button", name="Fit").click()
    moved = desk.page.locator(".jp-mlops-graph svg > g").get_attribute("transform") or ""
    assert float(moved.partition("scale(")[2].rstrip(")")) >= 0.6
    desk.look("lineage-500-fit")
    assert not any(label.startswith("part_0,") for label in labels(desk))
    panel.locator(".jp-mlops-overview").click(position={"x": 8, "y": 1})
    desk.wait(lambda: any(label.startswith("part_0,") for label in labels(desk)), "the other end")
    frames: dict[str, list[float]] = {}
    for name, small in (("near", False), ("whole", True)):
        if small:
            for _ in range(25):
                panel.get_by_role("button", name="Zoom out").click()
            desk.wait(lambda: len(labels(desk)) == 500, "all of them")
            desk.look("lineage-500")
        frames[name] = desk.page.evaluate(
            """async () => {
              const graph = document.querySelector('.jp-mlops-graph');
              const at = graph.getBoundingClientRect();
              const send = (type, x, y) => graph.dispatchEvent(new PointerEvent(type, {
                bubbles: true, pointerId: 1, button: 0, buttons: 1, clientX: x, clientY: y }));
              const frame = () => new Promise(done => requestAnimationFrame(done));
              graph.setPointerCapture = () => undefined;  // there is no such pointer
              const took = [];
              send('pointerdown', at.x + 100, at.y + 100);
              let last = await frame();
              for (let step = 0; step < 60; step++) {
                send('pointermove', at.x + 100 + 3 * step, at.y + 100 + 12 * step);
                const now = await frame();
                took.push(now - last);
                last = now;
              }
              send('pointerup', at.x, at.y);
              for (let step = 0; step < 30; step++) {
                graph.dispatchEvent(new WheelEvent('wheel', { bubbles: true, cancelable: true,
                  deltaY: step % 2 ? 40 : -40, clientX: at.x + 100, clientY: at.y + 100 }));
                const now = await frame();
                took.push(now - last);
                last = now;
              }
              return took.sort((a, b) => a - b);
            }"""
        )
    with capsys.disabled():
        for name, took in frames.items():
            median, worst = took[len(took) // 2], took[-1]
            print(
                f"\n500 nodes, {name}: a frame in {median:.1f} ms (median), {worst:.1f} ms (worst of {len(took)})",
                end="",
            )
        print(f"; {near} of 500 nodes in the page when near")
    assert near < 120
    assert (desk.problems, desk.strays) == ([], [])


def test_nothing_recorded_in_a_lineage_is_more_than_text(desk: Desk) -> None:
    desk.write("bad.ipynb", read="pass")
    for bad in PAYLOADS:
        study(desk.folder, "bad.ipynb", said=bad)
    desk.open("bad.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Lineage").click()
    metrics = panel.get_by_role("region", name="Metrics").get_by_role("button")
    metrics.first.wait_for()
    assert metrics.count() == len(PAYLOADS)
    field = panel.get_by_role("combobox", name="Show the lineage of")
    field.click()
    panel.get_by_role("option").first.wait_for()
    for bad in PAYLOADS:
        shown = bad.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\u2066", "\\u2066")
        field.fill(bad)
        field.press("ArrowDown")
        panel.get_by_role("option", name=shown).first.wait_for()
        field.press("Enter")
        desk.wait(lambda shown=shown: any(label.startswith(f"{shown}, ") for label in labels(desk)), shown)  # type: ignore[misc]
        panel.get_by_role("button", name="List").click()
        panel.get_by_role("tree").get_by_text(shown).first.wait_for()
        panel.get_by_role("button", name="List").click()
        with desk.page.expect_download() as got:
            panel.get_by_role("button", name="SVG").click()
        tags = {one.tag.rpartition("}")[2] for one in ET.parse(got.value.path()).iter()}
        assert tags == {"svg", "title", "rect", "g", "path", "text"}
    made = desk.page.evaluate("[...document.querySelectorAll('.jp-mlops-panel *')].map(one => one.localName)")
    assert not {"script", "img", "iframe", "style", "a", "math", "form", "image", "foreignobject"} & set(made)
    assert "\u202e" not in desk.page.locator(".jp-mlops-panel").inner_text()
    assert (desk.problems, desk.strays) == ([], [])
