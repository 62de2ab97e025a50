"""The flights as a new user meets them: the notebook is opened and run, and every fact of it is found in the panel.

``JUPYTER_MLOPS_PICTURES=docs/pictures pytest tests/browser/test_flights.py`` makes the pictures of the documentation.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from labs import REPOSITORY

from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Desk

SMALL = {"iterations: int = 60": "iterations: int = 5", "train_months: int = 9": "train_months: int = 2"}


def test_the_flights_notebook_is_run_and_every_fact_of_it_is_found(desk: Desk) -> None:
    book = json.loads((REPOSITORY / "example_notebooks" / "late_arrivals.ipynb").read_text())
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        for old, new in SMALL.items():
            cell["source"] = "".join(cell["source"]).replace(old, new)
    (desk.folder / "late_arrivals.ipynb").write_text(json.dumps(book))
    desk.open("late_arrivals.ipynb")
    panel = desk.record()
    for cell in cells:
        desk.run(cell["id"])
    desk.wait(lambda: len(desk.titles()) == len(cells), "every cell")
    with Store.open(desk.folder / ".mlops") as store:
        assert [one.status for one in store.cell_runs()] == ["done"] * len(cells)
    desk.command("docmanager:save")

    desk.widen(170)
    assert panel.bounding_box()["width"] > 400

    # what a cell read, made and logged
    panel.get_by_role("listbox").get_by_role("option", name="# The files are located").click()
    details = panel.get_by_role("region", name="Details of a cell run")
    details.get_by_text("flights.csv.zip").first.wait_for()
    details.get_by_text("DataFrame").first.wait_for()

    # the model, its version's numbers and the cell that made it
    panel.get_by_role("tab", name="Models").click()
    panel.get_by_role("button", name="late-arrivals").click()
    model = panel.get_by_role("region", name="Model late-arrivals")
    model.get_by_text("roc_auc").first.wait_for(state="attached")

    # where it comes from: back to the bytes of the data
    panel.get_by_role("tab", name="Lineage").click()
    panel.get_by_role("region", name="Metrics").get_by_role("button", name="roc_auc").click()
    graph = panel.get_by_role("application")
    graph.get_by_text("flights.csv.zip").first.wait_for(state="attached")

    # its run, and the packages it ran with
    panel.get_by_role("tab", name="Runs").click()
    panel.get_by_text("late_arrivals").first.wait_for()
    panel.get_by_role("tab", name="Environment").click()
    panel.get_by_text("scikit-learn").first.wait_for(state="attached")

    for dark in (True, False):
        desk.dark(so=dark)
        for tab in panel.get_by_role("tab").all():
            name = tab.inner_text()
            tab.click()
            panel.get_by_role("tab", name=name, selected=True).wait_for()
            panel.get_by_role("tabpanel").get_by_text("Loading").wait_for(state="detached")
            if name == "Models":
                panel.get_by_role("button", name="late-arrivals").click()
                model.get_by_text("roc_auc").first.wait_for(state="attached")
            assert desk.violations() == [], name
            # (a picture in the documentation is of no particular machine)
            machine = ", ".join(f'.jp-mlops-panel dt:has-text("{fact}") + dd' for fact in ("Platform", "Processor"))
            desk.look(f"{name.lower()}{'-dark' if dark else ''}", panel, hide=machine)
    assert (desk.problems, desk.strays) == ([], [])
