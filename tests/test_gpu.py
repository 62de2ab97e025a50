"""What is recorded of a machine that has a GPU, and of values that lie in its memory: on a real one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_mlops.environment import Observer, observe
from jupyter_mlops.environment.machine import ask_driver
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.registry import LocalRegistry
from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from conftest import Page
    from kernels import Kernel

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(200)]


def asked(field: str) -> list[str]:
    """What the driver's own program says of each GPU."""
    words = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def test_the_gpus_and_the_driver_are_those_that_the_driver_names(page: Page) -> None:
    answer = ask_driver("nvidia-smi", patience=60)
    assert (answer.gpus, answer.driver, answer.why) == (asked("name"), asked("driver_version")[0], "")
    told = observe(gpus=(answer.gpus, answer.driver))
    assert (told.gpus, told.driver) == (asked("name"), asked("driver_version")[0])

    observer = Observer()
    observer.start()
    while (now := observer.current()) is None or not now.gpus:
        observer.changed()
        time.sleep(0.05)
    assert (now.gpus, now.driver, now.gaps) == (told.gpus, told.driver, [])


def test_what_lies_on_a_gpu_is_a_gap_and_is_neither_read_nor_waited_for(page: Page) -> None:
    import torch

    page.all(
        make="import torch\ntorch.manual_seed(3)\nw = torch.arange(1000, device='cuda', dtype=torch.float64)",
        change="w.mul_(2)\ntotal = float(w.sum())",
    )
    w = page.shell.user_ns["w"]
    assert w.device.type == "cuda"
    assert w.cpu().equal(torch.arange(1000, dtype=torch.float64) * 2)
    made, changed = page.last("make"), page.last("change")
    (written,) = [one for one in made.outputs if one.name == "w"]
    assert (written.digest, written.why) == (None, "its memory is not the CPU's")
    assert {one.name: (one.digest, one.why) for one in changed.inputs}["w"] == (None, written.why)
    assert {one.name: one.digest for one in changed.outputs}["total"] == fingerprint(999_000.0).digest

    # a queue of seconds of work stays a queue: the hooks do not wait for it
    page.all(
        queue="""
            import torch
            big = torch.rand(8192, 8192, device='cuda'); done = torch.cuda.Event()
            for _ in range(200): big = big @ big * 1e-4
            done.record()
        """.replace("\n            ", "\n"),
    )
    assert not page.shell.user_ns["done"].query()
    torch.cuda.synchronize()


def test_random_numbers_of_the_gpu_are_seeded_or_said_not_to_be(start: Callable[..., Kernel]) -> None:
    unseeded = start()
    unseeded.run("import torch\nx = torch.rand(3, device='cuda')", cell="draw")
    assert unseeded.cells()[-1].ended.randomness == {"torch.cuda": "unseeded"}
    unseeded.stop()

    seeded = start()
    seeded.run("import torch\ntorch.manual_seed(0)", cell="seed")
    seeded.run("x = torch.rand(3, device='cuda')", cell="draw")
    seeded.run("y = torch.rand(3, device='cuda')", cell="again")
    seeded.run("z = x + y", cell="none")
    seeded.run("torch.cuda.manual_seed(1)", cell="own")
    told = [run.ended.randomness for run in seeded.cells()[-5:]]
    assert told[1:3] == [{"torch.cuda": "seeded"}] * 2
    assert told[3] == {}
    assert told[4] == {"torch.cuda": "seeded"}
    assert told[0] == {"torch": "seeded"}


def test_a_module_on_the_gpu_is_registered_and_comes_back_on_the_cpu(tmp_path: Path) -> None:
    import torch

    model: Any = torch.nn.Linear(3, 2).cuda()
    with Store.create(tmp_path / "store") as store:
        registry = LocalRegistry(store, user="ada")
        registry.register(model, "net", format="safetensors")
        back: Any = registry.load("net")
    assert {name: one.device.type for name, one in back.items()} == {"weight": "cpu", "bias": "cpu"}
    assert all(back[name].equal(one.cpu()) for name, one in model.state_dict().items())
