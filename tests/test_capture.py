from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel

from jupyter_mlops.records import CellRun
from jupyter_mlops.store import Store

REPOSITORY = Path(__file__).parents[1]


def by_source(cells: list[CellRun], text: str) -> CellRun:
    found = [cell for cell in cells if text in cell.source]
    assert len(found) == 1, [cell.source for cell in cells]
    return found[0]


def test_every_kind_of_cell_has_exactly_one_record(kernel: Kernel) -> None:
    sources = [
        "a = 1", "a += 1", "print(a)", "a", "1 / 0", "def (", "%time b = a", "%%time\nc = a",
        "import asyncio\nawait asyncio.sleep(0)",
        "%%capture out\nprint('taken')", "!true", "del c", "%%bash\ntrue", "raise KeyboardInterrupt",
    ]  # fmt: skip
    for source in sources:
        kernel.run(source)
    kernel.run("")
    kernel.run("   \n")
    kernel.run("silent = 1", silent=True)
    kernel.no_errors()
    cells = kernel.cells()
    top = [cell for cell in cells if cell.started.parent is None]
    assert [cell.source for cell in top] == ["%load_ext jupyter_mlops", *sources]
    assert all(cell.ended is not None for cell in cells)
    assert {cell.source: cell.status for cell in top if cell.status != "done"} == {
        "1 / 0": "error",
        "def (": "syntax",
        "raise KeyboardInterrupt": "interrupted",
    }
    assert top[5].ended is not None
    assert top[5].ended.error == "ZeroDivisionError: division by zero (line 1)"


def test_the_loading_cell_says_that_recording_began_inside_it(kernel: Kernel) -> None:
    first = kernel.cells()[0]
    assert first.source == "%load_ext jupyter_mlops"
    assert first.status == "done"
    assert "recording began inside this cell" in [gap.reason for gap in first.gaps]


def test_edges_join_the_cells_through_variables_and_files(kernel: Kernel) -> None:
    kernel.run("xs = [1, 2, 3]")
    kernel.run("open('data.txt', 'w').write(str(xs));")
    kernel.run("unrelated = 5")
    kernel.run("text = open('data.txt').read()")
    kernel.run("n = len(text)")
    made, wrote, other, read, used = kernel.cells()[-5:]
    assert wrote.after == [made.id]
    assert [(one.name, one.made) for one in read.files_read] == [("data.txt", wrote.id)]
    assert wrote.files_written[0].digest == read.files_read[0].digest
    assert read.after == [wrote.id]
    assert used.after == [read.id]
    assert other.after == []


def test_a_file_written_in_an_earlier_session_leads_back_to_its_cell(start: Callable[..., Kernel]) -> None:
    first = start()
    first.run("open('data.txt', 'w').write('from before');")
    wrote = first.cells()[-1]
    first.stop()
    second = start()
    second.run("text = open('data.txt').read()")
    assert second.cells()[-1].after == [wrote.id]


def test_displays_are_known_by_type_size_and_digest(kernel: Kernel) -> None:
    kernel.run("from IPython.display import display, HTML")
    outputs, _ = kernel.run("import sys\nprint('a' * 10)\nprint('err', file=sys.stderr)\ndisplay(HTML('<b>x</b>'))\n42")
    assert len(outputs) == 4
    ended = kernel.cells()[-1].ended
    assert ended is not None
    shown = {one.name: one for one in ended.displays}
    assert shown["stdout"].size == 11
    assert shown["stderr"].size == 4
    assert shown["result"].type == "text/plain"
    assert shown["result"].size == 2
    html = next(one for one in ended.displays if one.type == "text/html")
    assert html.size == len("<b>x</b>")
    assert all(one.digest and not one.stored for one in ended.displays)


def test_hostile_and_huge_output_is_hashed_and_not_kept(kernel: Kernel) -> None:
    _, reply = kernel.run("print('\\udcff\\x00' * 3)")
    kernel.run("print('x' * 5_000_000)")
    kernel.run("for i in range(100_000): print(i)")
    assert reply["status"] == "ok"
    odd, huge, many = kernel.cells()[-3:]
    sizes = [{one.name: one.size for one in cell.ended.displays} for cell in (odd, huge, many) if cell.ended]
    assert sizes[1] == {"stdout": 5_000_001}
    assert sizes[2] == {"stdout": sum(len(str(i)) + 1 for i in range(100_000))}
    assert sizes[0]["stdout"]
    kernel.no_errors()


def test_outputs_are_kept_in_a_headless_kernel(start: Callable[..., Kernel]) -> None:
    kernel = start(environ={"JUPYTER_MLOPS_HEADLESS": "1"})
    kernel.run("print('kept')")
    ended = kernel.cells()[-1].ended
    assert ended is not None
    one = ended.displays[0]
    assert one.stored
    assert one.digest is not None
    with Store.open(kernel.folder / ".mlops") as store:
        assert store.get(one.digest) == b"kept\n"


def test_secrets_reach_neither_source_error_nor_outputs(start: Callable[..., Kernel]) -> None:
    secret = "hunter2-Zq8Lw0vT5k"
    kernel = start(environ={"MY_API_TOKEN": secret, "JUPYTER_MLOPS_HEADLESS": "1"})
    kernel.run(f"password = {secret!r}")
    kernel.run("print(password)")
    kernel.run("raise ValueError(password)")
    kernel.run(
        "from jupyter_mlops import log_param, set_tag\nlog_param('password', password)\nset_tag('note', password)"
    )
    cells = kernel.cells()
    kernel.stop()
    assert by_source(cells, "password =").started.redacted == 1
    held = b"".join(path.read_bytes() for path in (kernel.folder / ".mlops").rglob("*") if path.is_file())
    assert secret.encode() not in held


def test_cell_ids_and_the_notebooks_path_are_on_record(start: Callable[..., Kernel], project_folder: Path) -> None:
    path = str(project_folder / "work" / "flights.ipynb")
    kernel = start(environ={"JPY_SESSION_NAME": path})
    kernel.run("a = 1", cell="3f7c-cell")
    started = kernel.cells()[-1].started
    assert (started.cell, started.notebook) == ("3f7c-cell", "work/flights.ipynb")
    kernel.run("b = 1", cell=f"vscode-notebook-cell:{project_folder}/my%20notes.ipynb#W3sZmlsZQ%3D%3D")
    started = kernel.cells()[-1].started
    assert (started.cell, started.notebook) == ("W3sZmlsZQ%3D%3D", "my notes.ipynb")


def test_an_engine_tells_the_notebook_and_the_run(start: Callable[..., Kernel], project_folder: Path) -> None:
    run = "blake3:" + "7" * 64
    environ = {"JUPYTER_MLOPS_NOTEBOOK": str(project_folder / "train.ipynb"), "JPY_SESSION_NAME": "/else/x.ipynb",
               "JUPYTER_MLOPS_RUN": run}  # fmt: skip
    kernel = start(environ=environ)
    kernel.run("a = 1")
    started = kernel.cells()[-1].started
    assert (started.notebook, started.run) == ("train.ipynb", run)
    with Store.open(project_folder / ".mlops") as store:
        assert store.runs() == []  # the run is the engine's, which is not part of this test


def test_nested_cells_name_the_cell_they_run_in(kernel: Kernel) -> None:
    kernel.run("get_ipython().run_cell('inner = 1')")
    kernel.run("after = inner")
    cells = kernel.cells()
    _, outer, inner, after = cells
    assert inner.source == "inner = 1"
    assert inner.started.parent == outer.id
    assert after.started.parent is None
    assert inner.ended is not None


def test_an_interrupted_cell_is_on_record_as_such(kernel: Kernel) -> None:
    request = kernel.send("import time\nprint('go', flush=True)\ntime.sleep(60)")
    while kernel.client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass
    kernel.manager.interrupt_kernel()
    _, reply = kernel.collect(request)
    assert reply["status"] == "error"
    assert kernel.cells()[-1].status == "interrupted"
    kernel.run("import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(60)")
    assert kernel.cells()[-1].status == "interrupted"
    kernel.run("alive = True")
    assert kernel.cells()[-1].status == "done"
    kernel.no_errors()


def test_random_generators_that_moved_are_named(kernel: Kernel) -> None:
    kernel.run("import random, numpy as np")
    kernel.run("random.random()")
    kernel.run("quiet = 1")
    kernel.run("np.random.seed(1)\nx = np.random.rand(3)")
    moved = [cell.ended.randomness for cell in kernel.cells()[-3:] if cell.ended]
    assert moved == [{"random": "unseeded"}, {}, {"numpy.random": "seeded"}]


def test_environment_and_code_state_are_named_by_every_cell(kernel: Kernel) -> None:
    kernel.run("import time; time.sleep(1)")
    kernel.run("a = 1")
    kernel.stop()
    cells = kernel.cells()
    assert all(cell.environment for cell in cells)
    assert all(cell.code for cell in cells)
    with Store.open(kernel.folder / ".mlops") as store:
        assert store.line(cells[-1].environment).record.packages  # type: ignore[arg-type,union-attr]
        assert store.line(cells[-1].code).record.branch == "main"  # type: ignore[arg-type,union-attr]


def test_a_local_module_is_recorded_by_its_source(kernel: Kernel, project_folder: Path) -> None:
    (project_folder / "features.py").write_text("def f(x):\n    return x + 1\n")
    kernel.run("import features")
    ended = kernel.cells()[-1].ended
    assert ended is not None
    assert [one.name for one in ended.modules] == ["features.py"] or "features" in ended.modules[0].name


def test_the_runs_end_is_on_record_when_the_kernel_shuts_down(kernel: Kernel) -> None:
    kernel.run("a = 1")
    kernel.stop()
    with Store.open(kernel.folder / ".mlops") as store:
        (run,) = store.runs()
        assert run.status == "done"
        assert run.ended is not None
        assert not store.fsck()


def test_hooks_are_registered_once_whatever_is_done_to_them(kernel: Kernel) -> None:
    for code in ("%reload_ext jupyter_mlops", "%load_ext jupyter_mlops", "%reset -f",
                 "import importlib, jupyter_mlops.capture as c, jupyter_mlops.capture.run as r\n"
                 "importlib.reload(r); importlib.reload(c); c.load(get_ipython())"):  # fmt: skip
        kernel.run(code)
    before = len(kernel.cells())
    kernel.run("once = 1")
    assert len(kernel.cells()) == before + 1
    kernel.run("%unload_ext jupyter_mlops")
    count = len(kernel.cells())
    kernel.run("unseen = 1")
    assert len(kernel.cells()) == count
    kernel.run("%load_ext jupyter_mlops")
    kernel.run("again = 1")
    assert len(kernel.cells()) == count + 2


def test_a_store_that_cannot_be_written_never_stops_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mlops").write_text("not a folder")
    kernel = Kernel(tmp_path, environ={"JUPYTER_MLOPS_STRICT": "0"})
    try:
        for _ in range(5):
            outputs, reply = kernel.run("print('works')")
            assert [one["text"] for one in outputs] == ["works\n"]
            assert reply["status"] == "ok"
        status = kernel.value("__import__('jupyter_mlops.capture').capture.session().status()")
        assert "turned itself off" in status
        again = kernel.value("__import__('jupyter_mlops.capture').capture.session().status()")
        assert "problems" not in again
    finally:
        kernel.stop()


def test_recording_goes_on_after_a_pause_and_says_what_it_missed(kernel: Kernel) -> None:
    kernel.run("%mlops off")
    kernel.run("unseen = 1")
    kernel.run("%mlops on")
    kernel.run("seen = unseen")
    sources = [cell.source for cell in kernel.cells()]
    assert "unseen = 1" not in sources
    assert sources[-1] == "seen = unseen"
    assert any("not recorded" in gap.reason for gap in kernel.cells()[-1].gaps)


FAULTS = ["Exception", "KeyboardInterrupt", "SystemExit", "GeneratorExit", "MemoryError", "RecursionError"]


@pytest.mark.parametrize("step", ["pre", "names", "post"])
def test_no_error_of_ours_reaches_a_cell(start: Callable[..., Kernel], step: str) -> None:
    kernel = start(environ={"JUPYTER_MLOPS_STRICT": "0"})
    plain = start(load=False)
    kernel.run("from jupyter_mlops.capture import session")
    for fault in FAULTS:
        kernel.run(
            "def probe(step):\n"
            f"    if step == {step!r}: raise {fault}('ours')\n"
            "session().resume(); session().probe = probe",
            silent=True,
        )
        for code in ("print('out')\n6 * 7", "1 / 0"):
            mine, theirs = kernel.run(code), plain.run(code)
            assert normal(mine) == normal(theirs)
        kernel.run("session().probe = None; session().resume()", silent=True)
        kernel.run(f"sound = {fault!r}")
        assert kernel.cells()[-1].source == f"sound = {fault!r}"


def normal(answer: tuple[list[dict[str, Any]], dict[str, Any]]) -> str:
    """A cell's outputs and reply, without counts and addresses, and however its prints were cut into messages."""
    outputs, reply = answer
    kept = {key: reply.get(key) for key in ("status", "ename", "evalue", "payload")}
    joined: list[dict[str, Any]] = []
    for one in outputs:
        one.pop("execution_count", None)
        if joined and one["type"] == joined[-1]["type"] == "stream" and one["name"] == joined[-1]["name"]:
            joined[-1]["text"] += one["text"]
        else:
            joined.append(one)
    text = json.dumps([joined, kept], sort_keys=True)
    return re.sub(r"In\[\d+\]|0x[0-9a-f]+|\\u001b\[[0-9;]*m|ipykernel_\d+/\d+", "", text)


def test_after_three_failures_recording_turns_itself_off_and_says_so_once(start: Callable[..., Kernel]) -> None:
    kernel = start(environ={"JUPYTER_MLOPS_STRICT": "0"})
    kernel.run(
        "from jupyter_mlops.capture import session\ndef probe(step): raise ValueError('ours')\nsession().probe = probe",
        silent=True,
    )
    for _ in range(4):
        kernel.run("a = 1")
    count = len(kernel.cells())
    kernel.run("a = 2")
    assert len(kernel.cells()) == count
    assert "turned itself off" in kernel.value("session().status()['problems'][-1]")
    assert "problems" not in kernel.value("session().status()")


@pytest.mark.parametrize("how", [
    "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nstatus = os.waitpid(pid, 0)[1]",
    "import multiprocessing as mp\nwith mp.get_context('fork').Pool(2) as pool: out = pool.map(abs, [-1, -2])",
    "import joblib\nout = joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in (-1, -2))",
])  # fmt: skip
def test_a_cell_may_fork(kernel: Kernel, how: str) -> None:
    _, reply = kernel.run(how)
    assert reply["status"] == "ok"
    kernel.run("on = 1")
    cells = kernel.cells()
    assert [cell.status for cell in cells[-2:]] == ["done", "done"]
    assert len(cells) == 3
    kernel.no_errors()


def test_a_forked_child_writes_only_what_it_logs_and_that_for_its_parents_cell(kernel: Kernel) -> None:
    kernel.run(
        "import os\nfrom jupyter_mlops import log_metric\npid = os.fork()\n"
        "if pid == 0:\n    log_metric('child', 1.0)\n    os._exit(0)\n"
        "status = os.waitpid(pid, 0)[1]\nlog_metric('parent', 2.0)"
    )
    cell = kernel.cells()[-1]
    assert cell.metrics == {"child": 1.0, "parent": 2.0}
    assert len({path.name for path in (kernel.folder / ".mlops" / "journal").iterdir()}) >= 2


def test_logged_values_are_on_record_at_once_and_bound_to_their_cell(kernel: Kernel) -> None:
    kernel.run(
        "import numpy as np\nfrom jupyter_mlops import log_metric, log_metrics, log_param, log_params, set_tag\n"
        "log_metric('loss', np.float32(0.5), step=1); log_metric('loss', float('nan'), step=2)\n"
        "log_metrics({'a': 1, 'b': np.int64(2)}); log_param('lr', 0.1); log_params({'k': [1, None]}); set_tag('t', 'x')"
    )
    cell = kernel.cells()[-1]
    steps = [(one.step, one.value) for one in cell.logged if one.key == "loss"]
    assert steps[0] == (1, 0.5)
    assert steps[1][0] == 2
    assert steps[1][1] != steps[1][1]
    assert cell.metrics["b"] == 2
    assert cell.parameters == {"lr": 0.1, "k": [1, None]}


def test_a_value_that_is_no_number_is_wrong_use(kernel: Kernel) -> None:
    _, reply = kernel.run("from jupyter_mlops import log_metric\nlog_metric('loss', 'low')")
    assert reply["ename"] == "WrongUse"


def test_a_plain_script_has_its_run(project_folder: Path) -> None:
    code = (
        "from jupyter_mlops import start_run, log_metric, log_artifact\n"
        "log_metric('outside', 1)\n"
        "open('a.txt', 'w').write('x')\n"
        "with start_run(depth=3):\n    log_metric('inside', 2.5)\n    log_artifact('a.txt')\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=project_folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    with Store.open(project_folder / ".mlops") as store:
        runs = store.runs(newest_first=False)
        assert [(run.started.trigger, run.status) for run in runs] == [("script", "done"), ("script", "done")]
        assert runs[1].started.parent == runs[0].id
        assert runs[1].started.parameters == {"depth": 3}


def test_a_terminal_says_that_outputs_are_not_seen(project_folder: Path) -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "for cell in ('%load_ext jupyter_mlops', 'a = 1', 'print(a)'): shell.run_cell(cell, store_history=True)\n"
        "from jupyter_mlops.capture import session\nassert session().errors == [], session().errors\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=project_folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    with Store.open(project_folder / ".mlops") as store:
        cells = store.cell_runs(newest_first=False)
    assert [cell.source for cell in cells] == ["%load_ext jupyter_mlops", "a = 1", "print(a)"]
    assert sum(gap.subject == "displays" for cell in cells for gap in cell.gaps) == 1


def beside(kernel: Kernel, subshell: str, code: str, *, cell: str = "beside") -> str:
    """Send a cell to a subshell."""
    client = kernel.client
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
               "stop_on_error": True}  # fmt: skip
    message = client.session.msg("execute_request", content, metadata={"cellId": cell})
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


@pytest.mark.parametrize("first_to_end", ["main", "beside"])
def test_cells_of_two_subshells_that_overlap_have_one_record_each_and_say_so(kernel: Kernel, first_to_end: str) -> None:
    """The front end's own threads: a cell goes on while another one runs beside it."""
    if int(metadata.version("ipykernel").partition(".")[0]) < 7:
        pytest.skip("needs ipykernel 7: older ones have no subshells")
    if int(metadata.version("ipykernel").partition(".")[0]) < 7:
        pytest.skip("needs ipykernel 7: older ones have no subshells")
    client = kernel.client
    client.control_channel.send(client.session.msg("create_subshell_request", {}))
    subshell = client.get_control_msg(timeout=60)["content"]["subshell_id"]
    kernel.run("import threading\nbegun, met, over = (threading.Event() for _ in range(3))\nshared = []")
    one = "begun.set()\nassert met.wait(60)\n" + ("" if first_to_end == "main" else "assert over.wait(60)\n")
    other = "assert begun.wait(60)\nmet.set()\n" + ("" if first_to_end == "beside" else "assert over.wait(60)\n")
    sent = {
        kernel.send(f"{one}main = 1\nshared.append(main)", cell="main"),
        beside(kernel, subshell, f"{other}inner = 2\nshared.append(inner)"),
    }
    # each thread takes its cells in turn: this one begins when the first to end has ended
    sent |= {kernel.send("over.set()") if first_to_end == "main" else beside(kernel, subshell, "over.set()", cell="")}
    while sent:
        reply = client.get_shell_msg(timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        sent.discard(reply["parent_header"]["msg_id"])
    kernel.run("len(shared)")
    runs = {run.started.cell: run for run in kernel.cells() if run.started.cell}
    assert set(runs) == {"main", "beside"}
    for name, made in (("main", "main"), ("beside", "inner")):
        assert runs[name].status == "done"
        assert runs[name].started.parent is None
        assert made in [one.name for one in runs[name].outputs]
        reasons = [gap.reason for gap in runs[name].gaps if gap.subject == "variables"]
        assert reasons == ["another cell ran at the same time: changes may be its"]
    alone = kernel.cells()[-1]
    assert alone.source == "len(shared)"
    assert alone.gaps == []
    kernel.no_errors()


def test_a_cell_run_inside_another_has_an_end_even_where_the_shell_tells_of_none(kernel: Kernel) -> None:
    kernel.run("await get_ipython().run_cell_async('inner = 1', transformed_cell='inner = 1')")
    kernel.run("after = inner")
    _, outer, inner, after = kernel.cells()
    assert inner.started.parent == outer.id
    assert inner.ended is not None
    assert [gap.reason for gap in inner.gaps] == ["the shell did not say how it ended"]
    assert after.started.parent is None
    assert after.status == outer.status == "done"
    assert not [gap for gap in outer.gaps if "another cell" in gap.reason]
    kernel.no_errors()


def test_tasks_that_run_cells_at_once_say_so(kernel: Kernel) -> None:
    kernel.run(
        "import asyncio\nshell, met = get_ipython(), asyncio.Event()\n"
        "def run(code): return shell.run_cell_async(code, transformed_cell=code)\n"
        "await asyncio.gather(run('one = 1\\nawait met.wait()'), run('met.set()\\ntwo = 2'))"
    )
    cells = kernel.cells()
    inner = [one for one in cells if one.source in ("one = 1\nawait met.wait()", "met.set()\ntwo = 2")]
    assert [one.started.parent for one in inner] == [cells[1].id] * 2
    for one in inner:
        assert "another cell ran at the same time: changes may be its" in [gap.reason for gap in one.gaps]
    assert not [gap for gap in cells[1].gaps if "another cell" in gap.reason]
    kernel.no_errors()


@pytest.mark.parametrize(
    ("library", "cells"),
    [
        ("pyarrow.fs", ("it = library.LocalFileSystem()", "stream = it.open_output_stream('a.txt'); stream.close()")),
        ("netCDF4", ("it = library.Dataset('a.nc', 'w')", "size = it.createDimension('x', 3); it.close()")),
    ],
)  # fmt: skip
def test_a_variable_through_which_files_are_reached_unseen_is_a_gap(
    kernel: Kernel, library: str, cells: tuple[str, ...]
) -> None:
    if find_spec(library) is None:
        pytest.skip(f"needs {library}: pip install 'jupyter-mlops[test]'")
    kernel.run(f"import {library} as library")
    for code in cells:
        _, reply = kernel.run(code)
        assert reply["status"] == "ok"
        gaps = [gap for gap in kernel.cells()[-1].gaps if gap.subject == "it"]
        assert [gap.blocks for gap in gaps] == [True], code
        assert "is not seen" in gaps[0].reason
    kernel.run("unrelated = 1")
    assert kernel.cells()[-1].gaps == []
    kernel.no_errors()
