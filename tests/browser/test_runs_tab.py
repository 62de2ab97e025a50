"""Runs in JupyterLab: a table that is sorted and filtered, runs side by side, a sweep as points."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from payloads import PAYLOADS

from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellStarted,
    Environment,
    Package,
    RunEnded,
    RunStarted,
    digest_of,
)
from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk


def image(wide: int = 96, high: int = 64) -> bytes:
    """A grey slope as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(255 * (x + y) // (wide + high) for x in range(wide)) for y in range(high))
    head = struct.pack(">IIBBBBB", wide, high, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sweep(folder: Path, notebook: str = "train.ipynb") -> None:
    """Put a sweep on record, of which one run failed, and a session; each run leaves its notebook."""
    book = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    with Store.open(folder / ".mlops") as store:
        session = store.append(RunStarted(trigger="session", notebook=notebook, user="alice"))
        store.append(RunEnded(run=session, status="done", seconds=90))
        whole = store.append(
            RunStarted(
                trigger="sweep", notebook=notebook, user="alice", parameters={"key": "k", "over": {"depth": "3,5"}}
            )
        )  # fmt: skip
        for number, (depth, rate) in enumerate((depth, rate) for depth in (3, 5, 7) for rate in (0.01, 0.1, 1.0, 10.0)):
            environment = store.append(
                Environment(python="3.11.2", packages=[Package(name="numpy", version=f"2.{number % 2}")])
            )
            run = store.append(
                RunStarted(
                    trigger="papermill", notebook=notebook, user="alice", parent=whole,
                    parameters={"depth": depth, "rate": rate, "seed": 1},
                )
            )  # fmt: skip
            cell = store.append(
                CellStarted(
                    run=run,
                    notebook=notebook,
                    cell="fit",
                    count=1,
                    source=f"fit(depth={depth})",
                    environment=environment,
                )
            )
            store.append(
                CellLogged(run=run, cell_run=cell, what="metric", key="auc", value=round(0.5 + number / 30, 4))
            )
            store.append(CellLogged(run=run, cell_run=cell, what="metric", key="rows", value=1000))
            plot = Artifact(
                name="display 1", kind="display", type="image/png", digest=store.put(image()), size=9, stored=True
            )
            failed = number == 4
            store.append(CellEnded(cell_run=cell, status="error" if failed else "done", displays=[plot]))
            out = f"{notebook.removesuffix('.ipynb')}.sweep/{number}.ipynb"
            (folder / out).parent.mkdir(exist_ok=True)
            (folder / out).write_text(json.dumps(book))
            store.append(
                RunEnded(
                    run=run, status="failed" if failed else "done", seconds=1 + number,
                    error="ValueError: no" if failed else "",
                    outputs=[Artifact(name=out, kind="file", digest=digest_of(out.encode()))],
                )
            )  # fmt: skip
        store.append(RunEnded(run=whole, status="done", seconds=60))


def column(desk: Desk, name: str) -> list[str]:
    """What stands in a column of the rows that are there, from the top."""
    return desk.page.evaluate(
        """name => {
          const heads = [...document.querySelectorAll('.jp-mlops-run-head [role=columnheader]')];
          const at = heads.findIndex(one => one.textContent.replace(/[▾▴]/, '') === name);
          const rows = [...document.querySelectorAll('.jp-mlops-run-row')];
          rows.sort((one, other) => parseFloat(one.style.top) - parseFloat(other.style.top));
          return rows.map(row => row.children[at].textContent);
        }""",
        name,
    )


def heads(desk: Desk) -> list[str]:
    return [
        text.strip("▾▴") for text in desk.page.locator(".jp-mlops-run-head [role=columnheader]").all_text_contents()
    ]


def open_runs(desk: Desk, notebook: str = "train.ipynb") -> Any:
    desk.write(notebook, fit="pass")
    desk.open(notebook, kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Runs").click()
    panel.get_by_role("grid").wait_for()
    return panel


def test_a_sweep_is_sorted_filtered_plotted_and_its_result_opened(desk: Desk) -> None:
    sweep(desk.folder)
    panel = open_runs(desk)
    desk.dark(so=False)
    panel.get_by_text("14 runs").wait_for()
    # what differs stands first, what is the same in all after it
    assert heads(desk)[:6] == ["Run", "depth", "rate", "auc", "seed", "rows"]
    desk.look("runs")
    assert desk.violations() == []
    panel.get_by_role("button", name="auc").click()
    desk.wait(lambda: column(desk, "auc")[:2] == ["0.8667", "0.8333"], "the best first")
    panel.get_by_role("button", name="auc").click()
    desk.wait(lambda: column(desk, "auc")[:2] == ["0.5", "0.5333"], "the worst first")
    assert panel.get_by_role("columnheader", name="auc").get_attribute("aria-sort") == "ascending"
    panel.get_by_role("combobox", name="Show runs by state").select_option("failed")
    panel.get_by_text("1 of 14 runs").wait_for()
    assert column(desk, "depth") == ["5"]
    panel.get_by_role("combobox", name="Show runs by state").select_option("")
    panel.get_by_role("searchbox", name="Search runs").fill("depth=7 rate=10")
    panel.get_by_text("1 of 14 runs").wait_for()
    assert column(desk, "auc") == ["0.8667"]
    panel.get_by_role("searchbox", name="Search runs").fill("")

    # which run a value is of stays in sight
    grid = panel.get_by_role("grid")
    grid.press("ArrowRight")
    desk.wait(lambda: grid.evaluate("grid => grid.scrollLeft") > 0, "scrolled")
    name = panel.locator(".jp-mlops-run-row .jp-mlops-run-name").first.bounding_box()
    whole = grid.bounding_box()
    assert name is not None
    assert whole is not None
    assert abs(name["x"] - whole["x"]) <= 1
    grid.press("ArrowLeft")

    # which columns there are
    panel.get_by_role("button", name="Columns").click()
    panel.get_by_role("group", name="Columns").get_by_label("rows").uncheck()
    desk.wait(lambda: "rows" not in heads(desk), "the column gone")
    panel.get_by_role("group", name="Columns").get_by_role("button", name="Close").click()

    # the sweep as points; one leads to its run, and that to the notebook it left
    panel.get_by_role("button", name="Plot").click()
    plot = panel.get_by_role("region", name="Plot of the runs")
    desk.wait(lambda: plot.get_by_role("button").count() == 12, "its points")
    plot.get_by_label("Up").select_option("metric:auc")
    plot.get_by_label("Across").select_option("parameter:rate")
    plot.get_by_text("rate (log)").wait_for()
    desk.look("runs-plot")
    assert desk.violations() == []
    desk.dark()
    desk.look("runs-plot-dark")
    assert desk.violations() == []
    plot.get_by_role("button", name="rate 10, auc 0.8667").click()
    details = panel.get_by_role("region", name="Details of a run")
    details.get_by_text("train.sweep/11.ipynb").wait_for()
    details.get_by_role("button", name="Open result").click()
    desk.page.locator(".lm-TabBar-tabLabel", has_text="11.ipynb").wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_runs_are_compared_side_by_side_by_keyboard_alone(desk: Desk) -> None:
    sweep(desk.folder)
    desk.write("train.ipynb", fit="pass")
    desk.open("train.ipynb", kernel=False)
    panel = desk.record()
    keyboard = desk.page.keyboard
    panel.get_by_role("tab", name="Timeline").focus()
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    panel.get_by_role("tab", name="Runs", selected=True).wait_for()
    grid = panel.get_by_role("grid")
    panel.get_by_text("14 runs").wait_for()
    for _ in range(30):
        keyboard.press("Tab")
        if grid.evaluate("node => node === document.activeElement"):
            break
    assert grid.evaluate("node => node === document.activeElement")
    keyboard.press("Space")
    keyboard.press("ArrowDown")
    keyboard.press("Space")
    assert panel.get_by_role("row", selected=True).count() == 2
    keyboard.press("Enter")
    panel.get_by_role("region", name="Details of a run").get_by_text("papermill").or_(
        panel.get_by_role("region", name="Details of a run").get_by_text("headless")
    ).first.wait_for()
    keyboard.press("Escape")
    panel.get_by_role("region", name="Details of a run").wait_for(state="detached")
    for _ in range(30):
        keyboard.press("Shift+Tab")
        if desk.page.evaluate("document.activeElement.textContent").startswith("Compare"):
            break
    keyboard.press("Enter")
    sides = panel.get_by_role("region", name="Runs side by side")
    sides.get_by_role("row", name="rate").wait_for()
    desk.look("runs-compared")
    rows = {
        row.get_by_role("rowheader").inner_text(): row.get_by_role("cell").all_inner_texts()
        for row in sides.get_by_role("row").all() if row.get_by_role("rowheader").count()
    }  # fmt: skip
    assert rows["rate"] == ["1", "10"] or rows["rate"] == ["10", "1"]
    assert rows["numpy"] in (["2.0", "2.1"], ["2.1", "2.0"])
    assert set(rows["auc"]) == {"0.8667", "0.8333"}
    assert "seed" not in rows
    assert sides.get_by_role("img").count() == 2
    assert desk.violations() == []
    desk.dark()
    desk.look("runs-compared-dark")
    assert desk.violations() == []
    keyboard.press("Escape")
    grid.wait_for()
    assert (desk.problems, desk.strays) == ([], [])


def test_ten_thousand_runs_are_read_sorted_and_scrolled(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(desk.folder / ".mlops") as store:
        for number in range(10_000):
            run = store.append(
                RunStarted(trigger="papermill", notebook="many.ipynb", user="alice", parameters={"depth": number % 97})
            )
            store.append(CellLogged(run=run, what="metric", key="auc", value=(number * 7919 % 10_000) / 10_000))
            store.append(RunEnded(run=run, status="failed" if number % 100 == 3 else "done", seconds=1.0))
    desk.lab.ask("jupyter-mlops/api/overview", path=f"{desk.folder.name}/many.ipynb")  # its index is made once
    desk.write("many.ipynb", fit="pass")
    desk.open("many.ipynb", kernel=False)
    panel = desk.record()
    panel.get_by_role("tab", name="Runs").wait_for()
    began = desk.page.evaluate("performance.now()")
    shown = desk.page.evaluate(
        """async () => {
          const began = performance.now();
          document.querySelector('#jp-mlops-tab-runs').click();
          while (!document.querySelector('.jp-mlops-run-row')) {
            await new Promise(done => requestAnimationFrame(done));
          }
          return performance.now() - began;
        }"""
    )
    panel.get_by_text("10000 runs", exact=True).wait_for()
    whole = desk.page.evaluate("performance.now()") - began
    assert panel.get_by_role("row").count() <= 80
    took = desk.page.evaluate(
        """async () => {
          const began = performance.now();
          const frame = () => new Promise(done => requestAnimationFrame(done));
          document.querySelector('.jp-mlops-run-head button[title^=auc]').click();
          while (!document.querySelector('[aria-sort=descending] button[title^=auc]')) await frame();
          const sorted = performance.now() - began;
          const grid = document.querySelector('.jp-mlops-runs');
          const frames = [];
          let last = await frame();
          for (let step = 0; step < 60; step++) {
            grid.scrollTop += 4000;
            const now = await frame();
            frames.push(now - last);
            last = now;
          }
          frames.sort((a, b) => a - b);
          grid.scrollTop = 0;
          return [sorted, frames[30], frames[59]];
        }"""
    )
    with capsys.disabled():
        print(
            f"\n10,000 runs: first rows in {shown:.0f} ms, all in {whole:.0f} ms, sorted in {took[0]:.0f} ms, a frame"
            f" of scrolling in {took[1]:.1f} ms (median), {took[2]:.1f} ms (worst);"
            f" {panel.get_by_role('row').count()} rows in the page"
        )
    desk.wait(lambda: column(desk, "auc")[:2] == ["0.9999", "0.9998"], "the best first")
    grid = panel.get_by_role("grid")
    grid.focus()
    grid.press("End")
    desk.wait(lambda: column(desk, "auc")[-1:] == ["0"], "the last")
    assert panel.get_by_role("row").count() <= 80
    panel.get_by_role("combobox", name="Show runs by state").select_option("failed")
    panel.get_by_text("100 of 10000 runs").wait_for()
    panel.get_by_role("button", name="Plot").click()
    desk.wait(
        lambda: panel.get_by_role("region", name="Plot of the runs").get_by_role("button").count() == 100, "points"
    )
    assert (desk.problems, desk.strays) == ([], [])


def test_nothing_recorded_of_runs_is_more_than_text(desk: Desk) -> None:
    with Store.open(desk.folder / ".mlops") as store:
        for number, bad in enumerate(PAYLOADS):
            environment = store.append(Environment(python=bad, packages=[Package(name=bad, version=f"{number}{bad}")]))
            run = store.append(
                RunStarted(
                    trigger=bad, notebook="bad.ipynb", user=bad, parameters={bad: f"{number}{bad}", "same": number}
                )
            )
            cell = store.append(
                CellStarted(
                    run=run, notebook="bad.ipynb", cell=bad, source=f"{bad}{number}", count=1, environment=environment
                )
            )
            store.append(CellLogged(run=run, cell_run=cell, what="metric", key=bad, value=f"{number}{bad}"))
            store.append(CellLogged(run=run, cell_run=cell, what="param", key=bad + "p", value=bad))
            plot = Artifact(name=bad, kind="display", type="image/png", digest=store.put(bad.encode() * 9), stored=True)
            store.append(CellEnded(cell_run=cell, status="done", displays=[plot]))
            out = [Artifact(name=f"{bad}.ipynb", kind="file", digest=digest_of(b"x"))]
            store.append(RunEnded(run=run, status="failed", error=bad, outputs=out))
    panel = open_runs(desk, "bad.ipynb")
    panel.get_by_text(f"{len(PAYLOADS)} runs", exact=True).wait_for()
    panel.get_by_role("button", name="Columns").click()
    for box in panel.get_by_role("group", name="Columns").get_by_role("checkbox").all():
        box.check()
    panel.get_by_role("button", name="Plot").click()
    grid = panel.get_by_role("grid")
    grid.focus()
    details = panel.get_by_role("region", name="Details of a run")
    for number, bad in reversed(list(enumerate(PAYLOADS))):
        shown = bad.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\u2066", "\\u2066")
        grid.press("Enter")
        details.locator("pre.jp-mlops-error", has_text=shown).wait_for()
        assert f"{number}{shown}" in details.inner_text()
        if number > len(PAYLOADS) - 5:
            grid.press("Space")
        grid.press("ArrowDown")
    plot = panel.get_by_role("region", name="Plot of the runs")
    for axis in ("Across", "Up", "Colour"):
        plot.get_by_label(axis).select_option(index=1)
    panel.get_by_role("button", name="Compare 4").click()
    sides = panel.get_by_role("region", name="Runs side by side")
    sides.get_by_role("rowheader").first.wait_for()
    desk.page.evaluate("document.querySelectorAll('.jp-mlops-panel details').forEach(one => { one.open = true; })")
    sides.get_by_text("not kept in the record").first.wait_for()
    made = desk.page.evaluate("[...document.querySelectorAll('.jp-mlops-panel *')].map(one => one.localName)")
    assert not {"script", "img", "iframe", "style", "a", "math", "form", "image"} & set(made)
    assert "\u202e" not in panel.inner_text()
    assert (desk.problems, desk.strays) == ([], [])
