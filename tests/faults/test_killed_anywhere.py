"""A process is killed at each system call of one snapshot: what it had said is kept, the rest old or new, never mixed.

strace attaches to a writer that waits, lets it go and kills it as it enters the k-th call of a kind, before the call
is made; so the state behind call k is seen at call k + 1.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from traced import calls, traced

from jupyter_mlops.records import CellEnded, CellStarted, Digest, RunStarted, Transition, digest_of
from jupyter_mlops.store import Store

pytestmark = pytest.mark.needs("strace")

REF = "models/m"
OLD = digest_of(b"old")
CHANGING = (
    "openat mkdir chmod fchmod write pwrite64 fsync fdatasync rename link unlink flock fcntl ftruncate close".split()
)
"""What changes a file, a name, a lock, or makes one last: a default run kills at these."""
KEPT = {
    "format", ".gitignore", "objects", "journal", "refs", "tmp", "index.sqlite", "index.sqlite-journal", "index.sum",
    "index.sum.new", "index.lock",
}  # fmt: skip


def snapshot(store: Store, say: int) -> None:
    """One of everything a store does, each said as soon as the store has said it."""
    os.write(say, f"object {store.put(os.urandom(5000))}\n".encode())
    run = store.append(RunStarted(trigger="session", notebook="new.ipynb"), wait=30)
    cell = store.append(CellStarted(run=run, source="x = 1"), wait=30)
    ended = store.append(CellEnded(cell_run=cell, status="done"), wait=30)
    os.write(say, f"line {run}\nline {cell}\nline {ended}\n".encode())
    _, move = store.move(REF, Transition(ref=REF, old=OLD, new=run), expect=1)
    os.write(say, f"move {move}\n".encode())
    store.cell_runs()
    os.write(say, f"line {store.append(RunStarted(trigger='shell'), wait=30)}\n".encode())
    store.cell_runs()
    store.reindex()
    store.close()


def killed(folder: Path, inject: str, log: Path) -> tuple[bool, list[str]]:
    """Take a snapshot in a child: whether it was killed, and what it had said."""
    options = ("-e", f"inject={inject}") if inject else ()
    status, heard = traced(lambda say: snapshot(Store.open(folder), say), log, *options)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, heard
    return os.WIFSIGNALED(status), heard.splitlines()


def check(folder: Path, before: set[Digest], said: list[str]) -> None:
    with Store.open(folder) as store:
        counted = store.counts()
        assert list((folder / "tmp").iterdir()) == []
        assert {path.name for path in folder.iterdir()} <= KEPT
        assert [one for one in store.fsck() if one.severity == "damage"] == []
        for kind, name in (line.split() for line in said):
            if kind == "object":
                store.get(Digest(name))
            else:
                store.line(Digest(name))
        runs = {run.id: run for run in store.runs()}
        assert before <= set(runs)
        moves = store.moves(REF)
        assert [move.number for move in moves] == list(range(1, len(moves) + 1))
        if len(moves) == 1:
            assert store.head(REF) == OLD
            assert not any(line.startswith("move") for line in said)
        else:
            # What a move builds on is there, whole, before the move is.
            assert runs[store.head(REF)].started.notebook == "new.ipynb"
            assert [cell.status for cell in store.cell_runs(run=store.head(REF))] == ["done"]
        assert sum(counted.values()) == store.reindex()
        assert store.counts() == counted
        again = store.append(RunStarted(trigger="session"), wait=30)
        number, _ = store.move(REF, Transition(ref=REF, new=again))
        assert number == len(moves) + 1


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, set[Digest]]:
    with Store.create(tmp_path / "base") as store:
        run = store.append(RunStarted(trigger="session"), wait=30)
        store.move(REF, Transition(ref=REF, new=OLD))
        store.cell_runs()
        store.close()
    return tmp_path / "base", {run}


def points(base: Path, log: Path) -> list[tuple[str, int]]:
    """Every call that an undisturbed snapshot makes: its name, and which one of its kind in its thread it is."""
    folder = base.with_name("undisturbed")
    shutil.copytree(base, folder)
    was_killed, said = killed(folder, "", log)
    assert (was_killed, len(said)) == (False, 6)
    most: dict[str, int] = {}
    for (_, name), count in Counter((thread, name) for thread, name, _, _ in calls(log)).items():
        most[name] = max(count, most.get(name, 0))
    return [(name, k) for name, count in sorted(most.items()) for k in range(1, count + 1)]


def kills(base: tuple[Path, set[Digest]], tmp_path: Path, chosen: list[tuple[str, int]]) -> int:
    died = 0
    for name, k in chosen:
        folder = tmp_path / f"{name}-{k}"
        shutil.copytree(base[0], folder)
        was_killed, said = killed(folder, f"{name}:signal=KILL:when={k}", tmp_path / "log")
        died += was_killed
        try:
            check(folder, base[1], said)
        except BaseException as error:
            error.add_note(f"killed at {name} number {k}, having said {said}; the store is {folder}")
            raise
        shutil.rmtree(folder)
    return died


def test_a_snapshot_killed_at_a_call_leaves_the_old_state_or_the_new(
    base: tuple[Path, set[Digest]], tmp_path: Path
) -> None:
    every = [point for point in points(base[0], tmp_path / "log") if point[0] in CHANGING]
    assert {"write", "rename", "link", "fdatasync", "fsync", "pwrite64"} <= {name for name, _ in every}
    chosen = every[:: max(1, len(every) // 60)]
    # Two threads write, so a few of the counted calls may fall to the other one the next time.
    assert kills(base, tmp_path, chosen) >= len(chosen) * 0.8


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_snapshot_killed_at_every_call_leaves_the_old_state_or_the_new(
    base: tuple[Path, set[Digest]], tmp_path: Path
) -> None:
    every = points(base[0], tmp_path / "log")
    assert kills(base, tmp_path, every) >= len(every) * 0.8
