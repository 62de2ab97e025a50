"""How far headless runs are, where somebody looks: overall and in the present cell, and what cells print."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from jupyter_mlops.pipelines import printed
from jupyter_mlops.project import Project
from jupyter_mlops.records import encode
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


def telling(*, in_notebook: bool, live: bool, quiet: bool = False) -> Telling | None:
    """Who prints what steps come to; None where nobody looks.

    Parameters
    ----------
    in_notebook
        Whether it is asked for in a cell.
    live
        Whether what cells print is wanted.
    quiet
        Whether nothing else is.
    """
    if not live and (quiet or in_notebook or not sys.stderr.isatty()):
        return None
    return Telling(sys.stdout if in_notebook else sys.stderr, live=live)


def _display() -> Any:
    """A display that can be changed; None where there is no kernel, or no front end that would show it."""
    from IPython.core.getipython import get_ipython
    from IPython.display import DisplayHandle

    shell = get_ipython()
    return DisplayHandle() if getattr(shell, "kernel", None) is not None else None


def event_lines(stream: TextIO) -> Callable[[Event], None]:
    """Writes each event as a line of JSON; threads may share it."""
    lock = threading.Lock()

    def told(event: Event) -> None:
        with lock:
            stream.write(encode(event).decode() + "\n")
            stream.flush()

    return told


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
        text, own = printed(output)
        self._print(text, of_its_own=own)

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
        text = _plain(text)
        if of_its_own and self._open:
            text = f"\n{text}"
        if self._guarded:
            # The end of a line may come with the next print: a mark before each piece keeps it from being a beginning.
            text = "".join(f"│ {harmless(line)}" for line in text.splitlines(keepends=True))
        self._open = not text.endswith("\n")
        self._stream.write(text)
        self._stream.flush()


class Telling:
    """Prints what steps come to, and what their cells print: line by line, each with the step's name before it.

    Steps run side by side, so lines of theirs stand between one another, and no line is of two.

    Parameters
    ----------
    stream
        Where it goes.
    live
        Whether what cells print is part of it.
    """

    def __init__(self, stream: TextIO, *, live: bool) -> None:
        self._stream, self._live = stream, live
        self._lock = threading.Lock()
        self._open = ""  # the step whose line has no end yet
        self._broken: set[str] = set()  # steps whose line another one ended
        self._guarded = on_github(Project(Path()).environ)
        self._cells: dict[str, int] = {}

    def heard(self, event: Event) -> None:
        """Something began or ended, or was printed."""
        with self._lock:
            if event.kind == "output":
                if self._live and self._cells.get(event.step) != event.cell:
                    self._cells[event.step] = event.cell
                    self._line(event.step, f"[cell {event.cell} of {event.cells}]")
                self._print(event.step, event.text)
            elif event.kind in ("started", "ended", "note"):
                self._cells.pop(event.step, None)
                self._line(event.step, event.text or event.kind)
            self._stream.flush()

    def _line(self, step: str, text: str) -> None:
        self._end()
        self._stream.write(f"{clean(step)}: {clean(text)}\n")

    def _print(self, step: str, text: str) -> None:
        for line in _plain(text).splitlines(keepends=True):
            ended = step in self._broken and line == "\n"
            self._broken.discard(step)
            if ended:
                continue
            if self._open != step:
                self._end()
                self._stream.write(f"{clean(step)} │ ")
            elif self._guarded:
                self._stream.write("│ ")
            # With the name before it no line begins as a service's commands do; but one kind may stand within a line.
            self._stream.write(harmless(line) if self._guarded else line)
            self._open = "" if line.endswith("\n") else step

    def _end(self) -> None:
        if self._open:
            self._stream.write("\n")
            self._broken.add(self._open)
            self._open = ""


def _plain(text: str) -> str:
    """What cells print, as text: a line that would be written anew is the next one."""
    return clean(_ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"), newlines=True)
