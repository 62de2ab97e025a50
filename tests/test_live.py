"""Cell runs told to a page while they happen: over a real kernel's comm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel

import jupyter_mlops
from jupyter_mlops.capture.live import PROTOCOL, TARGET

COMM = "jupyter_mlops.live"

NO_MODELS = {"models": [], "demands": {"register": [], "approve": [], "promote": {}, "rollback": {}}}


class Listener:
    """A page: opens the comm, and hears what the kernel says on it."""

    def __init__(self, kernel: Kernel, *, comm: str = COMM, **data: Any) -> None:
        self.kernel, self.comm = kernel, comm
        self.send("comm_open", target_name=TARGET, data=data)

    def send(self, kind: str, **content: Any) -> None:
        client = self.kernel.client
        client.shell_channel.send(client.session.msg(kind, {"comm_id": self.comm, "data": {}, **content}))

    def hear(self, kind: str = "comm_msg") -> dict[str, Any]:
        while True:
            message = self.kernel.client.get_iopub_msg(timeout=60)
            if message["msg_type"] == kind and message["content"]["comm_id"] == self.comm:
                return message["content"]["data"]

    def run(self, code: str, *, cell: str = "") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Run a cell: what it put out, and what was told of it."""
        client = self.kernel.client
        request = self.kernel.send(code, cell=cell)
        outputs, told, idle = [], [], False
        while not (idle and told and told[-1]["kind"] == "ended"):
            message = client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if kind == "comm_msg" and content["comm_id"] == self.comm:
                told.append(content["data"])
            elif message["parent_header"].get("msg_id") == request:
                if kind in ("stream", "error"):
                    outputs.append(content)
                idle = idle or (kind == "status" and content["execution_state"] == "idle")
        while client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != request:
            pass
        return outputs, told


def test_a_page_says_hello_and_hears_each_cell_begin_and_end(kernel: Kernel) -> None:
    page = Listener(kernel)
    hello = page.hear()
    assert (hello["kind"], hello["version"], hello["protocol"]) == ("hello", jupyter_mlops.__version__, PROTOCOL)
    outputs, told = page.run("import random\nvalue = random.random()\nprint('it ran')", cell="cell-a")
    assert [one["text"] for one in outputs] == ["it ran\n"]
    assert [one["kind"] for one in told] == ["began", "ended"]
    began, ended = (one["row"] for one in told)
    assert (began["status"], began["title"], began["cell"]) == ("running", "import random", "cell-a")
    assert (ended["id"], ended["time"]) == (began["id"], began["time"])
    assert (ended["status"], sorted(ended["made"]), ended["marks"]) == ("done", ["random", "value"], ["unseeded"])
    assert kernel.cells()[-1].id == ended["id"]
    kernel.no_errors()


def test_what_a_library_draws_as_it_is_loaded_marks_no_cell_as_unseeded(kernel: Kernel, project_folder: Path) -> None:
    (project_folder / "lucky.py").write_text("import random\nrandom.random()\n")
    page = Listener(kernel)
    page.hear()
    _, told = page.run("import lucky")
    assert told[-1]["row"]["marks"] == []
    assert kernel.cells()[-1].ended.randomness == {"random": "unseeded"}, "it is on record all the same"
    _, told = page.run("import random\nrandom.random()")
    assert told[-1]["row"]["marks"] == ["unseeded"]


def test_what_is_told_has_its_secrets_masked(kernel: Kernel) -> None:
    page = Listener(kernel)
    page.hear()
    secret = "ghp_" + "a1B2" * 9
    _, told = page.run(f"token = '{secret}'\nraise ValueError('{secret}')")
    assert [one["row"]["status"] for one in told] == ["running", "error"]
    assert secret not in str(told)
    assert "redacted" in told[-1]["row"]["marks"]


def test_nothing_is_done_where_nobody_listens(kernel: Kernel) -> None:
    kernel.run("value = 1")
    live = "get_ipython()._jupyter_mlops_hooks.live"
    assert kernel.value(f"({live}.listened_to, {live}._thread, {live}._queue.qsize())") == "(False, None, 0)"


def test_a_page_that_was_reloaded_speaks_on_the_same_comm(kernel: Kernel) -> None:
    Listener(kernel).hear()
    page = Listener.__new__(Listener)
    page.kernel, page.comm = kernel, COMM
    page.send("comm_msg", data={"hello": 1})
    assert page.hear()["kind"] == "hello"
    Listener(kernel).hear()  # and one that opens it again breaks nothing
    _, told = page.run("value = 2")
    assert [one["kind"] for one in told] == ["began", "ended"]
    kernel.no_errors()


def test_a_page_tells_the_notebooks_new_name(kernel: Kernel, project_folder: Path) -> None:
    page = Listener(kernel)
    page.hear()
    for path in ("../out.ipynb", "/etc/x.ipynb", "a//b.ipynb", "notes.txt", "a\n.ipynb", 5, "x" * 2000 + ".ipynb"):
        page.send("comm_msg", data={"notebook": path})
        page.hear()
    page.run("value = 1")
    page.send("comm_msg", data={"notebook": "work/renamed.ipynb"})
    page.hear()
    _, told = page.run("value = 2")
    assert told[-1]["row"]["notebook"] == "work/renamed.ipynb"
    assert [cell.started.notebook for cell in kernel.cells()[-2:]] == ["", "work/renamed.ipynb"]


def test_hello_opens_no_store(start: Callable[..., Kernel], project_folder: Path) -> None:
    kernel = start(load=False)
    kernel.run("%load_ext jupyter_mlops", silent=True)
    hello = Listener(kernel, notebook="a.ipynb").hear()
    assert (hello["run"], hello["store"]) == (None, "")
    assert not list((project_folder / ".mlops" / "journal").glob("*.jsonl"))


def test_a_page_is_told_that_cells_are_not_recorded_and_that_they_are_again(kernel: Kernel) -> None:
    page = Listener(kernel)

    def greeted() -> dict[str, Any]:
        while (told := page.hear())["kind"] != "hello":
            pass
        return told

    assert greeted()["recording"] is True
    for cell in ("%mlops off", "unseen = 1"):
        kernel.send(cell)
    told = greeted()
    assert (told["recording"], told["off"]) == (False, "")  # somebody paused it: nothing is wrong
    for cell in ("%mlops on", "seen = 1"):
        kernel.send(cell)
    while greeted()["recording"] is not True:  # one may be of the cell that turned it on
        pass


def test_unloading_closes_the_comm(kernel: Kernel) -> None:
    page = Listener(kernel)
    page.hear()
    kernel.send("%unload_ext jupyter_mlops")
    page.hear("comm_close")


@pytest.mark.parametrize("data", [None, 5, "text", [1]])
def test_a_page_that_speaks_nonsense_is_answered(kernel: Kernel, data: Any) -> None:
    page = Listener(kernel)
    page.hear()
    page.send("comm_msg", data=data)
    assert page.hear()["kind"] == "hello"
    kernel.no_errors()


# -- a record that only the kernel sees ------------------------------------------------------------------------------


def ask(page: Listener, what: str, **words: str) -> tuple[int, Any]:
    """Ask the kernel of its record."""
    page.send("comm_msg", data={"ask": {"id": f"q-{what}", "what": what, "words": words}})
    while True:
        said = page.hear()
        if said["kind"] == "answer" and said["id"] == f"q-{what}":
            return said["status"], said["body"]


def test_a_kernel_answers_of_its_own_record_what_a_server_would(
    start: Callable[..., Kernel], project_folder: Path
) -> None:
    kernel = start(environ={"JPY_SESSION_NAME": str(project_folder / "far.ipynb")})
    page = Listener(kernel)
    assert page.hear()["answers"] is True
    page.run("value = 1", cell="cell-a")
    page.run("from jupyter_mlops import log_metric\nlog_metric('auc', 0.5)", cell="cell-b")
    page.send("comm_msg", data={})
    store = page.hear()["store"]
    assert store
    status, overview = ask(page, "overview", path="what/the/page/calls/it.ipynb")
    assert (status, overview["store"], overview["root"]) == (200, store, ".")
    status, rows = ask(page, "cell-runs", limit="2")
    assert [row["cell"] for row in rows["rows"]] == ["cell-b", "cell-a"]
    assert rows["rows"][0]["metrics"] == {"auc": 0.5}
    status, found = ask(page, "cell-runs", search="LOG_METRIC", limit="1")
    assert [row["cell"] for row in found["rows"]] == ["cell-b"]
    status, cell = ask(page, f"cell-runs/{rows['rows'][1]['id']}")
    assert (status, cell["source"], [one["name"] for one in cell["outputs"]]) == (200, "value = 1", ["value"])
    assert [one["kind"] for one in cell["outputs"]] == ["variable"]
    assert (ask(page, "models")[1], ask(page, "runs")[1]["runs"][0]["status"]) == (NO_MODELS, "running")
    kernel.no_errors()


def test_what_is_no_question_is_refused_or_not_answered(start: Callable[..., Kernel]) -> None:
    kernel = start(load=False)
    kernel.run("%load_ext jupyter_mlops", silent=True)
    page = Listener(kernel)
    page.hear()
    assert ask(page, "overview")[0] == 404  # nothing is on record before the first cell
    page.run("value = 1")
    assert ask(page, "scrub")[0] == 400
    assert ask(page, "cell-runs/../../etc")[0] == 400
    assert ask(page, "cell-runs", limit="x")[0] == 400
    assert ask(page, f"cell-runs/blake3:{'0' * 64}")[0] == 404
    for wrong in (5, {}, {"id": 1, "what": "models"}, {"id": "x" * 200, "what": "models"}, {"id": "a", "what": []}):
        page.send("comm_msg", data={"ask": wrong})
    assert ask(page, "models") == (200, NO_MODELS)
    kernel.no_errors()


def test_asking_loads_and_opens_nothing_before_it_is_asked(kernel: Kernel) -> None:
    page = Listener(kernel)
    page.hear()
    page.run("value = 1")
    loaded = "'jupyter_mlops.server' in __import__('sys').modules"
    assert kernel.value(loaded) == "False"
    assert ask(page, "models")[0] == 200
    assert kernel.value(loaded) == "True"
    _, told = page.run("import random\nrandom.seed(1)\nopen('x.txt', 'w').close()")
    assert told[-1]["row"]["marks"] == []
    kernel.no_errors()


def test_a_kernel_answers_every_question_that_a_server_does() -> None:
    from jupyter_mlops.server.asked import QUESTIONS
    from jupyter_mlops.server.routes import ROUTES

    reads = {name for name, handler in ROUTES.items() if "get" in vars(handler)}
    # what is run, and what a run can be given, is the server's own
    assert set(QUESTIONS) == {name for name in reads if not name.startswith(("jobs", "parameters"))}
