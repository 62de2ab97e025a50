"""Slices of realistic sessions: from what ran, in order, the least that makes it again; or the true reason why not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jupyter_mlops import views
from jupyter_mlops.project import Project
from jupyter_mlops.records import CellRun
from jupyter_mlops.reproduce import slicing
from jupyter_mlops.store import Store

ROOT = Path(__file__).parents[1]
COUNTS: list[tuple[str, int, int, int, list[str]]] = []
SESSIONS = sorted((Path(__file__).parent / "data" / "sessions").glob("*.txt"))


class Session(msgspec.Struct):
    """A written-down session: what a person did, and what slices of it are to hold."""

    steps: list[tuple[str, str, str]]
    cells: dict[str, tuple[str, str]]  # the notebook as it is at the end: type and source by id
    slices: list[tuple[str, list[str]]]
    refused: list[tuple[str, str]]


def read(path: Path) -> Session:
    """Read a session: parts headed ``--- run ID``, ``again``, ``edit``, ``delete``, ``file``, ``slice`` and others."""
    found = Session([], {}, [], [])
    for part in re.split(r"^--- ", path.read_text(), flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        word, _, name = head.partition(" ")
        text = text.rstrip("\n")
        match word:
            case "markdown":
                found.cells[name] = ("markdown", text)
            case "run":
                found.cells[name] = ("code", text)
                found.steps.append(("run", name, text))
            case "again":
                found.steps.append(("run", name, found.cells[name][1]))
            case "edit":
                found.cells[name] = ("code", text)
            case "delete":
                del found.cells[name]
            case "file":
                found.steps.append(("file", name, text + "\n"))
            case "slice":
                target, _, cells = name.partition(":")
                found.slices.append((target.strip(), cells.split()))
            case "refused":
                target, _, reason = name.partition(":")
                found.refused.append((target.strip(), reason.strip()))
            case _:
                raise AssertionError(head)
    return found


class Player:
    """The process that plays sessions."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("player.py"))], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"},
        )  # fmt: skip

    def play(self, folder: Path, notebook: Path, steps: list[tuple[str, str, str]]) -> list[CellRun]:
        """Play steps, and give what is on record of them."""
        Store.create(folder / ".mlops").close()
        job = {"folder": str(folder), "notebook": str(notebook), "cwd": str(notebook.parent), "steps": steps}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        assert json.loads(self.process.stdout.readline()) == 0, "the session itself failed: see standard error"
        with Store.open(folder / ".mlops") as store:
            return store.cell_runs(newest_first=False)


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    one = Player()
    with one.process:  # closes what it reads, and so ends it
        yield one


def as_notebook(cells: dict[str, tuple[str, str]]) -> dict[str, Any]:
    made = []
    for name, (kind, source) in cells.items():
        cell: dict[str, Any] = {"cell_type": kind, "id": name, "metadata": {}, "source": source}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def rerun(player: Player, project: Project, found: Any, book: dict[str, Any], target: Any, root: Path) -> Any:
    """Run a slice in a fresh shell, in a fresh folder with the files it needs; compare as `slicing.check` does."""
    root.mkdir()
    for one in found.files:
        if one.kind != "source":
            slicing.bring(slicing.place_of(project, one.name), root, one.name)
    steps = [("run", cell["id"], "".join(cell["source"])) for cell in book["cells"] if cell["cell_type"] == "code"]
    runs = player.play(root, root / "slice.ipynb", steps)
    return slicing.compare(target, found, book, runs), runs


def play(player: Player, session: Session, folder: Path) -> tuple[Project, list[CellRun]]:
    folder.mkdir()
    notebook = folder / "work.ipynb"
    runs = player.play(folder, notebook, session.steps)
    notebook.write_text(json.dumps(as_notebook(session.cells)))
    return Project(folder), runs


def target_in(project: Project, what: str) -> Any:
    found = views.subject(project, what)
    return slicing.target_of(project.store, what, found.line, found.value)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_slice_of_a_session_makes_the_same_or_says_why_not(path: Path, player: Player, tmp_path: Path) -> None:
    session = read(path)
    assert session.slices or session.refused
    project, runs = play(player, session, tmp_path / "project")
    for number, (what, cells) in enumerate(session.slices):
        target = target_in(project, what)
        found = slicing.slice_for(project, target)
        book = slicing.notebook_of(found, project.store, target=target, book=as_notebook(session.cells))
        shown = [piece.run.started.cell + ("" if piece.whole else "*") for piece in found.pieces]
        assert shown == cells, f"the slice of {what}"
        checked, again = rerun(player, project, found, book, target, tmp_path / f"again-{number}")
        assert checked.same, (checked, [(run.source, run.status, run.ended and run.ended.error) for run in again])
    for what, reason in session.refused:
        with pytest.raises(slicing.SliceRefused) as refused:
            slicing.slice_for(project, target_in(project, what))
        assert re.search(reason, str(refused.value)), str(refused.value)
    project.store.close()
    COUNTS.append((
        path.stem, len(session.slices), len(session.refused), len(runs),
        [run.source for run in runs if any(gap.blocks for gap in run.gaps)],
    ))  # fmt: skip


def test_hardly_a_cell_of_all_sessions_has_a_gap_that_blocks() -> None:
    if len(COUNTS) < len(SESSIONS):
        pytest.skip("counts what the sessions before it recorded")
    blocked = [source for *_, sources in COUNTS for source in sources]
    assert len(SESSIONS) >= 20
    assert len(blocked) <= 0.02 * sum(cells for *_, cells, _ in COUNTS), blocked
