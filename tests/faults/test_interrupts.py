"""A real SIGINT at the worst moments: the user's code gets it, no record is torn, each cell that ran has one record."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels import Kernel

from jupyter_mlops.records import CellRun
from jupyter_mlops.store import Store

# The hook sends the signal to its own process and goes on for a while, so that it surely comes while the hook works.
PROBE = """
import os, signal, time
from jupyter_mlops.capture import session
def probe(step):
    if step == STEP:
        session().probe = None
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
session().probe = probe
"""
LONG = {
    "sleeping": "import time\nreached.append(1)\ntime.sleep(600)\nreached.append(2)",
    "counting": "reached.append(1)\nwhile True:\n    pass\nreached.append(2)",
    # (an event loop that sleeps is not woken by ipykernel's own handler: the cell ends when the loop next turns)
    "async": "import asyncio\nreached.append(1)\nwhile True: await asyncio.sleep(0.01)\nreached.append(2)",
    "waiting for a lock": "import threading\nreached.append(1)\nthreading.Event().wait(600)\nreached.append(2)",
}


def sound(kernel: Kernel) -> list[CellRun]:
    """The cells on record, of a store in which nothing is torn."""
    kernel.no_errors()
    with Store.open(kernel.folder / ".mlops") as store:
        assert not store.fsck()
        cells = store.cell_runs(newest_first=False)
    assert all(one.ended is not None for one in cells)
    return cells


def own(cells: list[CellRun]) -> list[str]:
    return [one.source for one in cells][1:]


@pytest.mark.parametrize("step", ["pre", "names"])
@pytest.mark.parametrize("code", LONG)
def test_an_interrupt_while_a_hook_works_before_a_cell_interrupts_the_cell(
    kernel: Kernel, step: str, code: str
) -> None:
    kernel.run("reached = []")
    kernel.run(PROBE.replace("STEP", repr(step)), silent=True)
    _, reply = kernel.run(LONG[code])
    assert reply["status"] == "error"
    assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    kernel.run("reached.append('alive')")
    cells = sound(kernel)
    assert own(cells) == ["reached = []", LONG[code], "reached.append('alive')"]
    assert [one.status for one in cells[1:]] == ["done", "interrupted", "done"]
    assert 2 not in eval(kernel.value("reached"))


@pytest.mark.parametrize("code", ["x = 6 * 7\nx", "import asyncio\nawait asyncio.sleep(0)\nx = 42\nx"])
def test_an_interrupt_while_a_hook_works_after_a_cell_harms_neither_it_nor_the_next(kernel: Kernel, code: str) -> None:
    """The code it could have been meant for is over: as anywhere between two cells, there is nothing to interrupt."""
    kernel.run(PROBE.replace("STEP", "'post'"), silent=True)
    outputs, reply = kernel.run(code)
    assert reply["status"] == "ok"
    assert [one["data"]["text/plain"] for one in outputs] == ["42"]
    _, reply = kernel.run("y = x + 1")
    assert reply["status"] == "ok"
    cells = sound(kernel)
    assert own(cells) == [code, "y = x + 1"]
    assert [one.status for one in cells] == ["done"] * 3
    assert "x" in [one.name for one in cells[1].outputs]


def test_an_interrupt_during_queued_cells_ends_one_and_each_that_ran_has_one_record(kernel: Kernel) -> None:
    """What a kernel does with the cells that wait is its own; what ran is on record, and what did not is not."""
    kernel.run("ran = []")
    kernel.run(PROBE.replace("STEP", "'pre'"), silent=True)
    sources = ["import time\nran.append(0)\ntime.sleep(600)", *(f"ran.append({number})" for number in range(1, 6))]
    sent = [kernel.send(source) for source in sources]
    replies = {}
    while len(replies) < len(sent):
        message = kernel.client.get_shell_msg(timeout=60)
        replies[message["parent_header"]["msg_id"]] = message["content"]
    statuses = [replies[one]["status"] for one in sent]
    assert statuses[0] == "error"
    cells = sound(kernel)
    answered = [source for source, status in zip(sources, statuses, strict=True) if status != "aborted"]
    assert own(cells) == ["ran = []", *answered]
    assert [one.status for one in cells[2:]] == ["interrupted", *["done"] * (len(answered) - 1)]


def test_interrupts_at_any_moment_of_a_cell_lose_no_cell_and_tear_no_record(kernel: Kernel) -> None:
    """From outside, as a front end sends them: the cell is mostly in what we wrapped when they come."""
    kernel.run("import os, sqlite3\nbase = sqlite3.connect('base.db')")
    # (each file is closed by hand: one that Python closes when it forgets it swallows what comes meanwhile)
    sources = [
        f"print('go', flush=True)\nwhile True:\n    with open('f{number}', 'w') as file: file.write('x')\n"
        f"    with open(b'f{number}') as file: file.read()\n    os.replace('f{number}', 'g{number}')\n"
        f"    base.execute('select {number}').fetchall()\n"
        for number in range(25)
    ]
    for source in sources:
        request = kernel.send(source)
        while True:
            message = kernel.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == request:
                break
        kernel.manager.interrupt_kernel()
        _, reply = kernel.collect(request)
        assert reply["ename"] == "KeyboardInterrupt"
    cells = sound(kernel)
    assert own(cells)[1:] == sources
    assert [one.status for one in cells[2:]] == ["interrupted"] * len(sources)


def test_an_interrupt_that_comes_as_a_result_replaces_a_recorded_value_is_not_lost(kernel: Kernel) -> None:
    """A weak reference's callback would be the first Python code that runs then, and what is raised in one is dropped.

    A look-up in C that notes an interrupt and gives a value stands for a long multiplication during which one came.
    """
    kernel.run("import _thread, collections, numpy as np\nbig, lost = np.ones(1000), False")
    kernel.run("struck = collections.defaultdict(_thread.interrupt_main)", silent=True)
    _, reply = kernel.run("big = struck[0]; lost = True")
    assert reply["ename"] == "KeyboardInterrupt"
    assert sound(kernel)[-1].status == "interrupted"


def test_an_interrupt_that_comes_while_a_wrapper_of_ours_works_is_not_lost(
    kernel: Kernel, project_folder: Path
) -> None:
    (project_folder / "data.txt").write_text("1\n")
    kernel.run(
        "import os, signal\nfrom jupyter_mlops.access import files, sources\n"
        "def struck(*_): os.kill(os.getpid(), signal.SIGINT)\nkept = files._opened, files.plain_path"
    )
    for place, call in (("_opened", "open(b'data.txt')"), ("plain_path", "open('out.txt', 'w')")):
        kernel.run(f"files.{place} = struck", silent=True)
        source = f"handle = {call}\nwhile True: pass  # {place}"
        outputs, reply = kernel.run(source)
        kernel.run("files._opened, files.plain_path = kept", silent=True)
        assert reply["ename"] == "KeyboardInterrupt"
        shown = "\n".join(outputs[-1]["traceback"])
        assert "handle = " in shown
        assert "jupyter_mlops" not in shown
        assert sound(kernel)[-1].status == "interrupted"
