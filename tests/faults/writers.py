"""Writers that are killed while they write: forks them, kills them, and prints what they were promised.

python tests/faults/writers.py STORE KILLS
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
from pathlib import Path

from jupyter_mlops.records import CellEnded, CellLogged, CellStarted, RunStarted
from jupyter_mlops.store import Store


def write(folder: Path, acknowledge: int) -> None:
    """Write facts for ever, and say each name once the store has said that it holds it."""
    store = Store.open(folder)
    run = store.append(RunStarted(trigger="session"), wait=30)
    while True:
        cell = store.append(CellStarted(run=run, source=f"x = {random.random()}"), wait=30)
        kept = store.put(random.randbytes(random.choice((10, 1000, 100_000))))
        logged = store.append(CellLogged(run=run, cell_run=cell, what="metric", key="x", value=1.5), wait=30)
        ended = store.append(CellEnded(cell_run=cell, status="done"), wait=30)
        os.write(acknowledge, "".join(f"{one}\n" for one in (cell, kept, logged, ended)).encode())


def begin(folder: Path) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            write(folder, writing)
        finally:
            os._exit(1)
    os.close(writing)
    return pid, reading


def main(folder: Path, kills: int) -> None:
    writers: list[tuple[int, int]] = []
    begun = 0
    while writers or begun < kills:
        while len(writers) < 8 and begun < kills:
            writers.append(begin(folder))
            begun += 1
        pid, reading = writers.pop(random.randrange(len(writers)))
        select.select([reading], [], [])  # it has been promised something
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit("a writer ended by itself")
        said = b""
        while piece := os.read(reading, 65536):
            said += piece
        os.close(reading)
        sys.stdout.write(said[: said.rfind(b"\n") + 1].decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
