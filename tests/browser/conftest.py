"""A real browser before a real JupyterLab: notebooks are opened and run as a person does."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from labs import BUILT, REPOSITORY, Lab

from jupyter_mlops.store import Store

READY = """async () => {
  const widget = window.jupyterapp?.shell.currentWidget;
  if (!widget?.sessionContext) return false;
  await widget.context.ready;
  await widget.sessionContext.ready;
  const kernel = widget.sessionContext.session?.kernel;
  if (!kernel) return false;
  // A question sent before the kernel's channels stand may stay without answer for good: the page goes on then.
  await Promise.race([kernel.info, new Promise(done => setTimeout(done, 5000))]);
  return kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
"""Cells that are run before this is so are dropped without a word."""
_RUN = """id => {
  const panel = window.jupyterapp.shell.currentWidget;
  panel.content.activeCellIndex = panel.content.widgets.findIndex(cell => cell.model.id === id);
  return window.jupyterapp.commands.execute('notebook:run-cell');
}"""

# Playwright keeps an event loop in the thread it starts in, and other tests want their own in the main one.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")


def there(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Do something in the browser's thread."""
    if threading.current_thread().name.startswith("browser"):
        return function(*args, **options)
    return _thread.submit(function, *args, **options).result()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    names = pyfuncitem._fixtureinfo.argnames
    there(pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in names})
    return True


@pytest.fixture(scope="session")
def extension() -> Path:
    """The extension, built from this tree."""
    sys.path.insert(0, str(REPOSITORY))
    try:
        pytest.importorskip("hatchling", reason="needs hatchling: pip install 'jupyter-mlops[test]'")
        from hatch_build import LabExtensionHook
    finally:
        sys.path.remove(str(REPOSITORY))
    hook = LabExtensionHook(str(REPOSITORY), {}, None, None, "", "sdist")  # type: ignore[arg-type]
    if hook._due():
        if shutil.which("npm") is None or not hook._has_libraries():
            pytest.skip("needs the built extension: pip install -e .")
        hook.initialize("standard", {})
    return BUILT


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or the test is skipped."""
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if path is None:
        pytest.skip("needs chromium: tests/run.sh --system-packages")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'jupyter-mlops[test]'")
    playwright = there(lambda: api.sync_playwright().start())
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    one = there(playwright.chromium.launch, executable_path=path, args=options)
    yield one
    there(one.close)
    there(playwright.stop)


class Desk:
    """A browser window with JupyterLab in it.

    Attributes
    ----------
    page
        Playwright's page.
    problems
        Errors of the page's scripts.
    requests
        Addresses outside the server that were asked for, and dialogs that were shown: there are to be none.
    """

    def __init__(self, browser: Any, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.problems: list[str] = []
        self.strays: list[str] = []
        self._darkened = False
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", self._said)
        self.page.on("request", self._asked)

    def _said(self, dialog: Any) -> None:
        if dialog.type == "beforeunload":  # the page is left with something unsaved
            dialog.accept()
        else:
            self.strays.append(f"dialog {dialog.message}")
            dialog.dismiss()

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.lab.base, "data:", "blob:")):
            self.strays.append(request.url)

    def write(self, name: str, **cells: str) -> Path:
        """Put a notebook into the folder."""
        path = self.folder / name
        path.write_text(
            json.dumps(
                {
                    "cells": [
                        {"cell_type": "code", "id": cell, "metadata": {}, "outputs": [], "execution_count": None,
                         "source": source}
                        for cell, source in cells.items()
                    ],
                    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
                    "nbformat": 4, "nbformat_minor": 5,
                }
            )
        )  # fmt: skip
        return path

    def open(self, name: str, *, kernel: bool = True, reset: bool = True) -> None:
        """Open a notebook, and wait until its kernel takes cells."""
        path = (self.folder / name).relative_to(self.lab.root)
        place = "lab/tree" if self.lab.app == "jupyterlab" else "notebooks"
        self.page.goto(f"{self.lab.base}{place}/{path}?{'reset&' if reset else ''}token={self.lab.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        if kernel:
            self.ready()

    def ready(self) -> None:
        """Wait until the kernel takes cells."""
        self.page.wait_for_function(READY)

    def command(self, name: str, **arguments: Any) -> None:
        """Do what a menu or shortcut does."""
        self.page.evaluate(
            "async ([name, words]) => { await window.jupyterapp.commands.execute(name, words); }", [name, arguments]
        )

    def saved(self) -> Any:
        """Do something the page remembers, and wait until it has been written: the page writes a little later."""
        return self.page.expect_response(
            lambda answer: "/api/workspaces/" in answer.url and answer.request.method == "PUT"
        )

    def record(self) -> Any:
        """Show the side panel."""
        self.command("jupyter-mlops:open")
        panel = self.page.locator(".jp-mlops-panel")
        panel.wait_for()
        return panel

    def run(self, cell: str) -> None:
        """Run a cell by its id, to its end."""
        self.page.evaluate(f"async id => {{ await ({_RUN})(id); }}", cell)

    def start(self, cell: str) -> None:
        """Run a cell, and do not wait."""
        self.page.evaluate(f"id => {{ void ({_RUN})(id); }}", cell)

    def titles(self) -> list[str]:
        """The first lines of the cell runs in the list."""
        return [text.strip() for text in self.page.locator(".jp-mlops-row .jp-mlops-title").all_text_contents()]

    def marks(self, cell: str) -> list[str]:
        """What stands beside a cell."""
        return self.page.evaluate(
            """id => {
              const cells = window.jupyterapp.shell.currentWidget.content.widgets;
              const cell = cells.find(cell => cell.model.id === id);
              // A page that has just been loaded adds its cells one after another.
              return [...(cell?.node.querySelectorAll('.jp-mlops-mark') ?? [])].map(mark => mark.textContent);
            }""",
            cell,
        )

    def wait(self, function: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        for _ in range(600):
            if function():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never {what}")

    def widen(self, by: int) -> None:
        """Draw the side bar wider, as a person does with the mouse."""
        box = self.page.locator("#jp-right-stack").bounding_box()
        assert box is not None
        left, middle = box["x"] - 2, box["y"] + box["height"] / 2
        self.page.mouse.move(left, middle)
        self.page.mouse.down()
        self.page.mouse.move(left - by, middle, steps=5)
        self.page.mouse.up()

    def look(self, name: str, part: Any = None, *, hide: str = "") -> None:
        """Keep a picture, where a folder for pictures is named; of the page or a part of it, with something hidden."""
        folder = os.environ.get("JUPYTER_MLOPS_PICTURES")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.locator("#jupyterlab-splash").wait_for(state="detached")  # a theme that comes is covered by it
            hidden = [self.page.locator(hide)] if hide else []
            (part or self.page).screenshot(path=str(Path(folder) / f"{name}.png"), mask=hidden, mask_color="#888")

    def dark(self, *, so: bool = True) -> None:
        """Change to the dark theme, or back to the light one; the server remembers it until this window is closed."""
        self._darkened = so
        self.command("apputils:change-theme", theme="JupyterLab Dark" if so else "JupyterLab Light")
        self.page.locator(f"body[data-jp-theme-light={'false' if so else 'true'}]").wait_for(state="attached")

    def violations(self, context: str = ".jp-mlops-panel") -> list[Any]:
        """What axe finds wrong with a part of the page: the rule, and the elements that break it."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
        self.page.wait_for_function("document.body.dataset.jpThemeName")  # colours of half a theme tell nothing
        found = axe.Axe().run(self.page, context=context).response["violations"]
        return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]

    def close(self) -> None:
        """Leave the server as it was: the next window is to begin in the light theme."""
        if self._darkened:
            self.dark(so=False)
        self.context.close()


@pytest.fixture
def sit(browser: Any, extension: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Desk]]:
    """Opens a window before a server: over a project of its own below the server's folder, or over another's."""
    desks = []

    def down(lab: Lab, beside: Desk | None = None) -> Desk:
        if beside is None:
            folder = lab.root / f"{request.node.name.split('[')[0][:60]}-{len(list(lab.root.iterdir()))}"
            folder.mkdir()
            Store.create(folder / ".mlops").close()
        else:
            folder = beside.folder
        desks.append(there(Desk, browser, lab, folder))
        return desks[-1]

    yield down
    for one in desks:
        there(one.close)


@pytest.fixture
def desk(sit: Callable[..., Desk], lab: Lab) -> Desk:
    """A window before the one server that the tests share."""
    return sit(lab)
