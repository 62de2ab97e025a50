"""A kernel is killed at any moment: what its cells acknowledged is on record, and the store is sound."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from jupyter_mlops.store import Store

REPOSITORY = Path(__file__).parents[2]


def _kernel(folder: Path) -> KernelManager:
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    return manager


def _life(folder: Path, chance: random.Random, number: int) -> list[str]:
    """One kernel, killed at a random moment; the sources of the cells that were answered before it died."""
    manager = _kernel(folder)
    client = manager.blocking_client()
    client.start_channels()
    answered: list[str] = []
    try:
        client.wait_for_ready(timeout=60)
        pid = manager.provisioner.process.pid
        loading = client.execute("%load_ext jupyter_mlops")
        sent = {loading: "%load_ext jupyter_mlops"}
        while client.get_shell_msg(timeout=60)["parent_header"]["msg_id"] != loading:
            pass  # on a slow machine more than one answer to "are you ready?" is under way
        answered.append("%load_ext jupyter_mlops")
        for i in range(400):
            source = f"xs_{number} = [{i}] * 100\nopen('f{number}', 'w').write(str({i}));"
            sent[client.execute(source)] = source
        killer = threading.Timer(chance.uniform(0.0, 1.0), os.kill, (pid, signal.SIGKILL))
        killer.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                reply = client.get_shell_msg(timeout=0.2)
            except queue.Empty:
                if manager.provisioner.process.poll() is not None:
                    break
                continue
            if reply["msg_type"] == "execute_reply" and reply["content"]["status"] == "ok":
                answered.append(sent[reply["parent_header"]["msg_id"]])
        killer.join()
    finally:
        client.stop_channels()
        with contextlib.suppress(ProcessLookupError):
            manager.shutdown_kernel(now=True)
    return answered


def _kills(folder: Path, times: int) -> None:
    chance = random.Random(times)
    acknowledged: list[str] = []
    for number in range(times):
        acknowledged += _life(folder, chance, number)
    with Store.open(folder / ".mlops") as store:
        assert [one for one in store.fsck() if one.severity == "damage"] == []
        ended = [cell.source for cell in store.cell_runs() if cell.ended is not None and cell.ended.status == "done"]
        for source in set(acknowledged):
            assert ended.count(source) == acknowledged.count(source), f"lost: {source}"
        assert {run.status for run in store.runs()} == {"interrupted"}
        assert len(store.runs()) == times
        assert all(cell.status in ("done", "interrupted") for cell in store.cell_runs())


def test_nothing_acknowledged_is_lost_when_a_kernel_is_killed(project_folder: Path) -> None:
    _kills(project_folder, 20)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_two_hundred_kills(project_folder: Path) -> None:
    _kills(project_folder, 200)
