"""Cells that do too much: they run as ever, the record says how much it was, and the kernel's memory stays its own."""

from __future__ import annotations

import queue
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from blake3 import blake3
from kernels import Kernel

from jupyter_mlops.store import Store


def memory(kernel: Kernel, what: str) -> int:
    """Bytes, as the system counts them: ``VmHWM`` is the most there ever was, ``RssAnon`` what is the process's own."""
    status = Path(f"/proc/{kernel.manager.provisioner.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(what + ":"))


def joined(outputs: list[dict[str, Any]]) -> str:
    return "".join(one["text"] for one in outputs if one["type"] == "stream")


BIG = [pytest.param(20, id="20 MB"), pytest.param(200, id="200 MB", marks=[pytest.mark.nightly])]


@pytest.mark.parametrize("megabytes", BIG)
@pytest.mark.parametrize("how", ["print('x' * N)", "display({'text/html': 'x' * N}, raw=True)", "'x' * N"])
def test_a_huge_output_is_as_ever_and_is_named_without_a_copy(
    start: Callable[..., Kernel], megabytes: int, how: str
) -> None:
    size = megabytes * 2**20
    grown = []
    for load in (False, True):
        kernel = start(load=load)
        kernel.run("from IPython.display import display; display({'text/html': 'warm'}, raw=True); print('up')")
        before = memory(kernel, "VmHWM")
        outputs, reply = kernel.run(how.replace("N", str(size)))
        assert reply["status"] == "ok"
        shown = joined(outputs) or next(iter(outputs[0]["data"].values()))
        assert len(shown.strip("\n'")) == size
        grown.append(memory(kernel, "VmHWM") - before)
        if load:
            kernel.no_errors()
            (display,) = kernel.cells()[-1].ended.displays
            assert display.size == len(shown)
            assert display.digest == "blake3:" + blake3(shown.encode()).hexdigest()
            assert not display.stored
        kernel.stop()
    plain, recorded = grown
    assert recorded - plain < size // 2 + 16 * 2**20, (plain, recorded)


@pytest.mark.parametrize(
    "count", [pytest.param(50_000, id="50,000"), pytest.param(10**6, id="a million", marks=[pytest.mark.nightly])]
)
def test_so_many_prints_are_one_display_and_hold_no_memory(start: Callable[..., Kernel], count: int) -> None:
    grown = []
    for load in (False, True):
        kernel = start(load=load)
        kernel.run("print('up')")
        before = memory(kernel, "RssAnon")
        outputs, reply = kernel.run(f"for number in range({count}): print(number)")
        assert reply["status"] == "ok"
        text = joined(outputs)
        assert text.count("\n") == count
        if load:
            (display,) = kernel.cells()[-1].ended.displays
            assert (display.name, display.size) == ("stdout", len(text))
            assert display.digest == "blake3:" + blake3(text.encode()).hexdigest()
            kernel.no_errors()
        kernel.run("after = 1")
        grown.append(memory(kernel, "RssAnon") - before)  # with what the kernel keeps for a client that is slow
        kernel.stop()
    plain, recorded = grown
    assert recorded - plain < 32 * 2**20, (plain, recorded)


def test_so_many_displays_are_told_apart_up_to_a_number_and_the_rest_counted(kernel: Kernel) -> None:
    outputs, _ = kernel.run("from IPython.display import display\nfor number in range(3000): display(number)")
    assert len(outputs) == 3000
    displays = kernel.cells()[-1].ended.displays
    assert len(displays) == 201
    assert displays[-1].name == "2800 more"
    kernel.no_errors()


HOSTILE = {
    "NUL bytes": "print('a\\0b' * 1000)",
    "lone surrogates": "print('\\udcff\\ud800x')",
    "all of Latin-1": "print(bytes(range(256)).decode('latin-1') * 100)",
    "bytes to the descriptor": "import os\n_ = os.write(1, bytes(range(256)) * 40)",
    "a surrogate as a result": "'\\udc80' * 3",
    "a surrogate in an error": "raise ValueError('\\udc80\\0')",
    "bytes in a bundle": "from IPython.display import display\n"
    "display({'application/x-odd': b'\\0\\xff' * 100}, raw=True)",
    "what is no image": "from IPython.display import display\ndisplay({'image/png': 'no base64 \\0 at all'}, raw=True)",
    "deep JSON": "from IPython.display import display\nx = []\nfor _ in range(200): x = [x]\n"
    "display({'application/json': x}, raw=True)",
    "a bundle with odd values": "from IPython.display import display\n"
    "display({'text/html': ['<b>', 'x'], 'x/y': None}, raw=True)",
    "an empty bundle": "from IPython.display import display\ndisplay({}, raw=True)",
    "colours and carriage returns": "print('\\x1b[31mred\\x1b[0m\\r\\b\\x07' * 50)",
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_garbage_in_outputs_passes_as_it_is_and_is_named(start: Callable[..., Kernel], what: str) -> None:
    answers = []
    for load in (False, True):
        for left in range(20, -1, -1):
            kernel = start(load=load)
            try:
                outputs, reply = kernel.collect(kernel.send(HOSTILE[what]), patience=10)
                break
            except queue.Empty:
                # ipykernel's thread that sends is dead to the world where a text that cannot be sent comes while
                # wake-ups wait for it, with recording and without: nobody hears of such a kernel again
                if what != "lone surrogates" or not left:
                    raise
        for one in outputs:
            one.pop("execution_count", None), one.pop("traceback", None)
        # (the kernel numbers its descriptors in what it says of a text that cannot be sent)
        text = re.sub(r"_handle_events\(\d+", "_handle_events(", joined(outputs))
        rest = [one for one in outputs if one["type"] != "stream"]
        answers.append((text, rest, reply["status"], reply.get("evalue")))
    assert answers[0] == answers[1]
    kernel.no_errors()
    ended = kernel.cells()[-1].ended
    if answers[0][0] or answers[0][1]:
        assert ended.displays
        assert all(one.digest for one in ended.displays)
    with Store.open(kernel.folder / ".mlops") as store:
        assert not store.fsck()


def test_an_array_mapped_from_a_file_larger_than_memory_is_not_read(kernel: Kernel, project_folder: Path) -> None:
    size = 2 * psutil.virtual_memory().total
    with open(project_folder / "big.bin", "wb") as file:
        file.truncate(size)
    kernel.run("import numpy as np")
    before = memory(kernel, "VmHWM")
    for cell in (
        f"big = np.memmap('big.bin', dtype='u1', mode='r', shape=({size},))", "part = big[10:-10]",
        "whole = np.asarray(big).reshape(2, -1); held = [big]", "total = int(big[:10].sum())", "on = 1",
    ):  # fmt: skip
        _, reply = kernel.run(cell)
        assert reply["status"] == "ok"
    kernel.no_errors()
    made = {one.name: one for cell in kernel.cells() for one in cell.outputs}
    for name in ("big", "part", "whole", "held"):
        assert made[name].digest is None
        assert "larger than this machine's memory" in made[name].why
    assert made["total"].digest is not None
    assert memory(kernel, "VmHWM") - before < 256 * 2**20
    kernel.stop()  # the file itself is still being read in the background, if it is: that holds nothing up
    assert not kernel.manager.is_alive()


def test_an_array_mapped_from_a_file_that_fits_is_named_by_its_content(kernel: Kernel, project_folder: Path) -> None:
    (project_folder / "small.bin").write_bytes(bytes(range(256)) * 1000)
    kernel.run("import numpy as np\nmapped = np.memmap('small.bin', 'u1', 'r')\nread = np.fromfile('small.bin', 'u1')")
    made = {one.name: one.digest for one in kernel.cells()[-1].outputs}
    assert made["mapped"] == made["read"] is not None


def _soak(kernel: Kernel, cells: int) -> None:
    process = psutil.Process(kernel.manager.provisioner.process.pid)
    sources = [
        "xs = [{n}] * 50", "xs.append({n})", "d{m} = {{'k': xs, 'n': {n}}}", "print({n})", "total = sum(xs) + {n}",
        "with open('f{m}', 'w') as file: file.write('{n}')", "with open('f{m}') as file: text = file.read()",
        "def f(x): return x + {n}", "f({n})", "1 / 0", "a = np.arange({n} % 100)", "import random; random.random();",
    ]  # fmt: skip

    def some(count: int, begin: int) -> None:
        for number in range(begin, begin + count):
            kernel.run(sources[number % len(sources)].format(n=number, m=number % 20))

    kernel.run("import numpy as np, gc\nget_ipython().history_manager.enabled = False")
    warm = max(120, cells // 10)
    some(warm, 0)
    # what IPython keeps of every cell is its own: its history of inputs and results is emptied before each look
    clean = (
        "Out.clear()\nfor kept in (In, get_ipython().history_manager.input_hist_raw):\n"
        "    kept[1:] = [''] * (len(kept) - 1)\ngc.collect()"
    )
    kernel.run(clean, silent=True)
    before, files, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
    some(cells, warm)
    kernel.run(clean, silent=True)
    grown = process.memory_info().rss - before
    assert process.num_fds() <= files + 2
    assert process.num_threads() <= threads + 1
    assert grown < 20 * 2**20, f"{grown / 2**20:.1f} MB in {cells} cells"
    kernel.no_errors()
    found = [one for one in kernel.cells() if one.started.parent is None]
    assert all(one.ended is not None for one in found)
    with Store.open(kernel.folder / ".mlops") as store:
        assert len(store.cell_runs(limit=10**6)) == cells + warm + 2
        assert not store.fsck()


def test_three_hundred_cells_leak_nothing(kernel: Kernel) -> None:
    _soak(kernel, 300)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_ten_thousand_cells_leak_nothing(kernel: Kernel) -> None:
    _soak(kernel, 10_000)
