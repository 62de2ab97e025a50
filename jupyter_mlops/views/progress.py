"""How far a headless run is, where somebody looks: overall and in its present cell, and what cells print."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from jupyter_mlops.project import Project
from jupyter_mlops.targets.protocol import Event
from jupyter_mlops.views.ci import harmless, on_github
from jupyter_mlops.views.parts import counted
from jupyter_mlops.widgets import Facts, View, clean, duration

_PAUSE: Final = 1.0
_WIDE: Final = 30
_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def watching(notebook: Path, *, in_notebook: bool, progress: bool | None, live: bool) -> Watching | None:
    """Who looks on: in a notebook a display that changes, in a shell what cells print; None where nobody does.

    Parameters
    ----------
    in_notebook
        Whether the run is asked for in a cell.
    progress
        Whether progress is wanted; None where nobody has said.
    live
        Whether what cells print is wanted.
    """
    handle = _display() if in_notebook and progress is not False else None
    if handle is None and not live:
        return None
    return Watching(notebook.name, handle, (sys.stdout if in_notebook else sys.stderr) if live else None)


def _display() -> Any:
    """A display that can be changed; None where there is no kernel, or no front end that would show it."""
    from IPython.core.getipython import get_ipython
    from IPython.display import DisplayHandle

    shell = get_ipython()
    return DisplayHandle() if getattr(shell, "kernel", None) is not None else None


class Watching:
    """Looks on while a run goes.

    Parameters
    ----------
    name
        The notebook's name.
    handle
        The display to keep up to date.
    stream
        Where what cells print goes.
    """

    def __init__(self, name: str, handle: Any, stream: TextIO | None) -> None:
        self.name, self._handle, self._stream = name, handle, stream
        self._began = self._cell_began = self._shown = time.monotonic()
        self._cell = self._cells = self._done = 0
        self._visible = False
        self._guarded = on_github(Project(Path()).environ)
        self._open = False

    def heard(self, event: Event) -> None:
        """Something began or ended."""
        if event.kind == "cell began":
            self._cell, self._cells, self._cell_began = event.cell, event.cells, time.monotonic()
            self._print(f"[cell {event.cell} of {event.cells}]\n", of_its_own=True)
        elif event.kind == "cell ended":
            self._done, self._cell = event.cell, 0
        self._show(last=event.kind == "cell ended" and event.cell == event.cells)

    def moment(self) -> None:
        """Time has passed."""
        self._show()

    def output(self, output: Mapping[str, Any]) -> None:
        """Something was printed, shown or raised."""
        kind = output.get("output_type")
        if kind == "stream":
            self._print(str(output.get("text", "")))
        elif kind == "error":
            self._print(f"{output.get('ename')}: {output.get('evalue')}\n", of_its_own=True)
        else:
            text = (output.get("data") or {}).get("text/plain", "")
            self._print(f"{text}\n", of_its_own=True)

    def view(self) -> View:
        """How far it is, to look at."""
        done, cells = self._done, max(self._cells, 1)
        filled = _WIDE * done // cells
        bar = f"{'█' * filled}{'░' * (_WIDE - filled)} {done} of {counted(self._cells, 'cell')}"
        facts = [
            (self.name, bar if self._cells else "the kernel starts"),
            ("took" if done == self._cells and done else "running for", duration(time.monotonic() - self._began)),
        ]
        if self._cell:
            facts.append((f"cell {self._cell}", f"for {duration(time.monotonic() - self._cell_began)}"))
        return View(blocks=[Facts(facts)], data={"done": done, "cells": self._cells, "cell": self._cell})

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._handle is None or not (last or not self._visible or now - self._shown >= _PAUSE):
            return
        self._shown = now
        (self._handle.update if self._visible else self._handle.display)(self.view())
        self._visible = True

    def _print(self, text: str, *, of_its_own: bool = False) -> None:
        """Print what a notebook says: as text, and so that a service takes no line of it for a command."""
        if self._stream is None or not text:
            return
        text = clean(_ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"), newlines=True)
        if of_its_own and self._open:
            text = f"\n{text}"
        if self._guarded:
            # The end of a line may come with the next print: a mark before each piece keeps it from being a beginning.
            text = "".join(f"│ {harmless(line)}" for line in text.splitlines(keepends=True))
        self._open = not text.endswith("\n")
        self._stream.write(text)
        self._stream.flush()
