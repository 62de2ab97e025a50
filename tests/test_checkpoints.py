from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jupyter_client.manager import KernelManager

from jupyter_mlops.records import CellRun, short
from jupyter_mlops.store import Store

REPOSITORY = Path(__file__).parents[1]


class Kernel:
    """A stock kernel that records, with checkpoints on."""

    def __init__(self, folder: Path, *, on: bool = True) -> None:
        self.folder = folder
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[0] = sys.executable
        environ = {**os.environ, "PYTHONPATH": path, "XDG_STATE_HOME": str(folder.parent / "state")}
        self.manager.start_kernel(cwd=str(folder), env=environ, stderr=subprocess.DEVNULL)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.run("%load_ext jupyter_mlops")
        if on:
            self.run("%mlops checkpoint on")

    def run(self, code: str, *, fails: bool = False) -> str:
        """Run a cell to its end; what it showed, as text."""
        shown: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            content = message["content"]
            shown.append(
                str(content.get("text") or content.get("data", {}).get("text/plain", "") or content.get("evalue", ""))
            )

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=120)["content"]
        assert (reply["status"] != "ok") == fails, (code, reply, shown)
        return "".join(shown)

    def value(self, expression: str) -> str:
        """What an expression is, asked silently: no cell, no record."""
        reply = self.client.execute_interactive(
            "", silent=True, user_expressions={"it": expression}, timeout=60, output_hook=lambda _: None
        )
        answer = reply["content"]["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return str(answer["data"]["text/plain"])

    def kept(self) -> None:
        """Wait until what the last cell left is kept."""
        self.value("__import__('jupyter_mlops.capture').capture.session().checkpoints.settle()")

    def step(self, code: str) -> str:
        """Run a cell, and wait until its checkpoint is made."""
        shown = self.run(code)
        self.kept()
        return shown

    def cells(self) -> list[CellRun]:
        with Store.open(self.folder / ".mlops") as store:
            return list(reversed(store.cell_runs()))

    def cell(self, text: str) -> CellRun:
        return next(one for one in self.cells() if text in one.source)

    def back_to(self, text: str, *options: str) -> str:
        return self.run(f"%mlops checkout {short(self.cell(text).id)} {' '.join(options)}")

    def no_errors(self) -> None:
        assert self.value("__import__('jupyter_mlops.capture').capture.session().errors") == "[]"

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)


@pytest.fixture
def start(project_folder: Path) -> Iterator[Callable[..., Kernel]]:
    kernels: list[Kernel] = []

    def begin(**options: Any) -> Kernel:
        kernels.append(Kernel(project_folder, **options))
        return kernels[-1]

    yield begin
    for one in kernels:
        if one.manager.is_alive():
            one.stop()


def test_checkout_goes_back_and_forth_with_frames_models_plots_and_changes_in_place(start) -> None:
    kernel = start()
    kernel.step("import numpy as np, pandas as pd\nfrom sklearn.linear_model import LogisticRegression")
    kernel.step(
        "df = pd.DataFrame({'x': np.arange(50.0), 'y': np.arange(50) % 2}); xs = [1]; same = xs; base = np.arange(6)"
    )
    kernel.step("view = base[2:]; model = LogisticRegression().fit(df[['x']], df.y)\ndef f(a): return a + xs[0]")
    kernel.step("df['z'] = df.x * 2; same.append(2); view[0] = 99; late = 1")
    kernel.step(
        "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt\n"
        "fig, ax = plt.subplots(); _ = ax.plot(df.x)"
    )
    kernel.step("del model; xs[0] = 10; df = None")
    shown = kernel.back_to("view = base[2:]")
    assert "brought back" in shown
    facts = (
        "(list(df.columns), xs, same is xs, base.tolist(), view.base is not None, f(1),"
        " 'late' in dir(), 'fig' in dir())"
    )
    assert kernel.value(facts) == "(['x', 'y'], [1], True, [0, 1, 2, 3, 4, 5], True, 2, False, False)"
    kernel.run("view[1] = 7; same.append(5)")
    assert kernel.value("(base.tolist(), xs, model.predict([[1.0]]).shape)") == "([0, 1, 2, 7, 4, 5], [1, 5], (1,))"
    kernel.back_to("df['z'] = df.x * 2")
    assert kernel.value("(list(df.columns), xs, same is xs, base[2], view[0], late, f(1))") == (
        "(['x', 'y', 'z'], [1, 2], True, np.int64(99), np.int64(99), 1, 2)"
    )
    kernel.no_errors()


def test_versions_and_their_makers_stay_true_after_a_checkout(start) -> None:
    kernel = start()
    kernel.step("xs = [1]")
    kernel.step("xs.append(2); other = xs; def_ = 1")
    kernel.back_to("xs = [1]")
    kernel.step("total = sum(xs)")
    read = kernel.cell("total = sum")
    assert [(one.name, one.made) for one in read.inputs if one.name == "xs"] == [("xs", kernel.cell("xs = [1]").id)]
    assert read.gaps == []
    [checkout] = [one for one in kernel.cells() if "checkout" in one.source]
    assert checkout.outputs == []
    assert checkout.gaps == []
    assert checkout.checkpoint is not None
    assert checkout.checkpoint.back_to == kernel.cell("xs = [1]").id
    kernel.no_errors()


def test_another_kernel_takes_up_where_the_first_one_was(start) -> None:
    first = start()
    first.step("import random; random.seed(3)")
    first.step("class Node:\n    def __init__(self, to): self.to = to\na = Node(None); b = Node(a); a.to = b")
    first.step("def names(n): return [type(n).__name__, n.to.to is n]\ndraw = random.random()")
    expected = first.value("random.random()")
    first.stop()
    second = start(on=False)
    second.run("import random")
    second.back_to("def names(n)")
    assert second.value("names(a), b.to is a, type(b) is Node") == "(['Node', True], True, True)"
    assert second.value("random.random()") == expected
    second.no_errors()


def test_what_cannot_be_kept_is_said_and_made_again_only_on_demand(start) -> None:
    kernel = start()
    kernel.step("xs = [1, 2, 3]")
    kernel.step("steps = (x * 10 for x in xs)\nopen('side.txt', 'a').write('ran ')")
    kernel.step("first = next(steps); xs = None; steps = None")
    shown = kernel.back_to("steps = (x", "--dry-run")
    assert "used up by reading it" in shown
    assert "side.txt" in shown
    assert kernel.value("(xs, steps)") == "(None, None)"
    shown = kernel.back_to("steps = (x")
    assert "steps" in shown
    assert "--rerun" in shown
    assert kernel.value("xs") == "[1, 2, 3]"
    assert (kernel.folder / "side.txt").read_text() == "ran "
    kernel.back_to("steps = (x", "--rerun")
    assert kernel.value("(list(steps), xs)") == "([10, 20, 30], [1, 2, 3])"
    assert (kernel.folder / "side.txt").read_text() == "ran ran "
    kernel.no_errors()


def test_a_rerun_that_fails_leaves_the_variables_as_they_were(start) -> None:
    kernel = start()
    kernel.step("import os; xs = [1]")
    kernel.step("steps = iter(open(os.environ['WHERE'])) if 'WHERE' in os.environ else iter(xs)")
    kernel.step("os.environ['WHERE'] = '/nowhere'; steps = 5; xs = 6; new = 7")
    said = kernel.run(f"%mlops checkout {short(kernel.cell('steps = iter').id)} --rerun", fails=True)
    assert "failed when it was run again" in said
    assert kernel.value("(xs, steps, new)") == "(6, 5, 7)"


def test_a_damaged_object_spares_the_other_names_and_is_said(start) -> None:
    kernel = start()
    kernel.step("import numpy as np; big = np.arange(100_000.0); small = [1]")
    kernel.step("big = small = None")
    with Store.open(kernel.folder / ".mlops") as store:
        [digest] = [one for one in store.objects() if store.size(one) == 800_000]
        path = store.path / "objects" / digest[7:9] / digest[9:]
    path.chmod(0o600)
    path.write_bytes(b"x" * 800_000)
    shown = kernel.back_to("big = np.arange")
    assert "damaged" in shown
    assert kernel.value("small") == "[1]"


def test_secrets_are_in_no_checkpoint(start) -> None:
    kernel = start()
    kernel.step("password = 'hunter2hunter2'; box = {'api_key': 'abcdefgh12345'}; ok = 1")
    found = kernel.cell("ok = 1").checkpoint
    assert found is not None
    assert {gap.subject for gap in found.left} == {"password", "box"}
    for file in (kernel.folder / ".mlops").rglob("*"):
        if file.is_file():
            assert b"hunter2hunter2" not in file.read_bytes()
            assert b"abcdefgh12345" not in file.read_bytes()


def test_nothing_is_kept_while_checkpoints_are_off(start) -> None:
    kernel = start(on=False)
    kernel.run("xs = [1]")
    assert kernel.cell("xs = [1]").checkpoint is None
    assert "were not kept" in kernel.run(f"%mlops checkout {short(kernel.cell('xs = [1]').id)}", fails=True)
    kernel.step("%mlops checkpoint on")
    kernel.run("%mlops checkpoint off")
    kernel.run("ys = 2")
    assert kernel.cell("ys = 2").checkpoint is None


def test_one_more_column_stores_that_column_and_hashes_no_other(start) -> None:
    kernel = start()
    kernel.step("import numpy as np, pandas as pd; df = pd.DataFrame(np.random.rand(20_000, 8)).copy()")
    with Store.open(kernel.folder / ".mlops") as store:
        before = set(store.objects())
    kernel.step("df['new'] = np.random.rand(20_000)")
    with Store.open(kernel.folder / ".mlops") as store:
        sizes = sorted(store.size(one) for one in set(store.objects()) - before)
    assert sizes[-1] == 160_000
    assert sum(sizes[:-1]) < 30_000


def test_a_kernel_killed_while_it_keeps_leaves_a_whole_store(start) -> None:
    kernel = start()
    kernel.step("import numpy as np; xs = [1]")
    kernel.run("big = [np.random.rand(2_000_000) for _ in range(20)]")
    pid = int(kernel.value("__import__('os').getpid()"))
    os.kill(pid, signal.SIGKILL)
    kernel.client.stop_channels()
    kernel.manager.cleanup_resources()
    with Store.open(kernel.folder / ".mlops") as store:
        assert [one for one in store.fsck() if "interrupted" not in one.what] == []
    again = start(on=False)
    again.back_to("xs = [1]")
    assert again.value("xs") == "[1]"


def test_a_list_of_variables_from_elsewhere_is_read_as_anybodys(start) -> None:
    kernel = start()
    kernel.step("xs = [1]")
    found = kernel.cell("xs = [1]").checkpoint
    assert found is not None
    with Store.open(kernel.folder / ".mlops") as store:
        listing = json.loads(store.get(found.variables))
    assert set(listing["names"]) == {"xs"}
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_what_was_there_before_recording_is_kept_once_and_its_aliases_too(project_folder: Path, start) -> None:
    kernel = start(on=False)
    kernel.client.execute_interactive("xs = [1]; ys = {'held': xs}; plain = 5", silent=True, timeout=60)
    kernel.step("%mlops checkpoint on")
    kernel.step("one = 1")
    kept = kernel.cell("one = 1").checkpoint
    assert kept is not None
    assert kept.names == ["one"]
    kernel.step("xs.append(2)")
    kept = kernel.cell("xs.append").checkpoint
    assert kept is not None
    assert {"xs", "ys"} <= set(kept.names)
    kernel.step("xs = ys = None")
    kernel.back_to("one = 1")
    assert kernel.value("(xs, ys['held'] is xs)") == "([1], True)"


def test_an_object_far_inside_a_large_one_is_still_one_with_its_name(start) -> None:
    kernel = start()
    kernel.step("deep = [[[n] for n in range(20_000)]]; inner = deep[0][19_999]")
    kernel.step("inner.append('here')")
    kernel.step("inner = deep = None")
    kernel.back_to("inner.append")
    assert kernel.value("(inner is deep[0][19_999], inner)") == "(True, [19999, 'here'])"


def test_an_index_that_tables_share_is_still_one(start) -> None:
    kernel = start()
    kernel.step("import pandas as pd\na = pd.DataFrame({'x': [1., 2.]})\nb = a.T")
    assert kernel.value("b.index is a.columns") == "True"
    kernel.step("n = 1")
    kernel.step("a = b = None")
    kernel.back_to("n = 1")
    kernel.step("b.index.name = 'i'")
    assert kernel.value("a.columns.name") == "'i'"
    changed = kernel.cell("b.index.name").ended
    assert changed is not None
    assert {one.name for one in changed.outputs} == {"a", "b"}


def test_present_values_that_are_kept_nowhere_are_named_before_they_go(start) -> None:
    kernel = start()
    kernel.step("xs = [1]")
    kernel.run("%mlops checkpoint off")
    kernel.run("ys = [2]; xs = [3]")
    shown = kernel.back_to("xs = [1]", "--dry-run")
    assert "kept nowhere else" in shown
    assert kernel.value("(xs, ys)") == "([3], [2])"


def test_work_that_a_cell_cuts_off_is_a_said_gap_and_the_next_checkpoint_takes_it_in(start) -> None:
    kernel = start()
    kernel.step("xs = [1]")
    # a disk so slow that nothing is ever written: only calling the work off ends it
    kernel.value(
        "exec('''def put(data, check=None, **more):\n    while check is not None: check()\n"
        "    return store_put(data, **more)\n"
        "''', (space := {})) or (session := __import__('jupyter_mlops.capture').capture.session(),"
        " space.update(store_put=session.store.put), session.store.__dict__.update(put=space['put'])) and None"
    )
    kernel.run("xs.append(2); import numpy as np; big = np.arange(100_000.0)")
    kernel.run("ys = 3")
    kernel.value("__import__('jupyter_mlops.capture').capture.session().store.__dict__.pop('put') and None")
    cut = kernel.cell("xs.append(2)").checkpoint
    assert cut is not None
    assert cut.variables is None
    assert [gap.reason for gap in cut.left] == ["the next cell began before they were kept"]
    assert "the next cell began" in kernel.run(f"%mlops checkout {short(kernel.cell('xs.append(2)').id)}", fails=True)
    kernel.step("last = 4")
    # the disk became well at some time after the cut: whichever of the cells since then came first took them in
    later = [one.checkpoint for one in kernel.cells() if one.started.count > kernel.cell("xs.append(2)").started.count]
    assert {"xs", "big", "ys", "last"} <= {name for one in later if one is not None for name in one.names}
    kernel.no_errors()


def test_what_shares_with_a_value_that_is_made_anew_is_said_to_hold_another_and_made_again_with_it(start) -> None:
    kernel = start()
    kernel.step("xs = [1, 2]")
    kernel.step("it = iter(xs)")
    kernel.step("ys = [3]")
    kernel.step("xs = [5]")  # the iterator goes on over the first list
    shown = kernel.back_to("ys = [3]", "--dry-run")
    assert "it shares with xs" in shown
    kernel.back_to("ys = [3]")
    kernel.step("xs.append(9); unjoined = list(it)")
    assert kernel.value("unjoined") == "[1, 2]"  # as was said
    kernel.back_to("ys = [3]", "--rerun")
    kernel.step("xs.append(9); joined = list(it)")
    assert kernel.value("(xs, joined)") == "([1, 2, 9], [1, 2, 9])"
    kernel.step("import os; zs = [os.urandom(4)]\nturned = iter(zs)")
    wanted = kernel.value("zs")
    kernel.step("zs = turned = None")
    shown = kernel.back_to("os.urandom", "--rerun")  # whose cell makes another list
    assert "shares no more with zs" in shown
    assert kernel.value("zs") == wanted
    assert kernel.value("list(turned) == zs") == "False"
    kernel.no_errors()


def test_what_lies_over_one_memory_does_so_again_in_a_new_kernel(start) -> None:
    first = start()
    first.step("import numpy as np, pandas as pd")
    first.step(
        "a = pd.DataFrame({'x': [1., 2.]}, index=[5, 7]); b = a.copy(); b.index = a.index.view()\n"
        "m = bytearray(8); v = np.frombuffer(m, np.uint8); w = np.frombuffer(m, np.uint8)[2:]\n"
        "rows = np.zeros(3, [('x', 'i4')]); row = rows[1]"
    )
    change = "np.asarray(b.index)[0] = 9; w[0] = 1; row['x'] = 4"
    told = "(a.index.tolist(), m[2], int(v[2]), rows['x'].tolist())"
    first.step(change)
    wanted = first.value(told)
    assert wanted == "([9, 7], 1, 1, [0, 4, 0])"
    second = start()
    second.step("import numpy as np, pandas as pd")
    second.back_to("m = bytearray")
    assert second.value(told) == "([5, 7], 0, 0, [0, 0, 0])"
    second.step(change)
    assert second.value(told) == wanted
    changed = second.cells()[-1]
    assert {one.name for one in changed.outputs} == {"a", "b", "m", "v", "w", "rows", "row"}
    second.no_errors()
