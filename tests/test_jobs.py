"""What pages have done: each job one command in a process, strictly ordered, followed, interrupted, ended."""

from __future__ import annotations

import base64
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from labs import REPOSITORY, Lab

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.pipelines import read_parameters_file
from jupyter_mlops.project import ON_BEHALF_OF, Project
from jupyter_mlops.records import CellEnded, CellStarted, Environment, Package, RunStarted
from jupyter_mlops.server.environments import ENVIRONMENTS
from jupyter_mlops.server.handling import Outside, Projects
from jupyter_mlops.server.jobs import OVER, Jobs, JobsFull
from jupyter_mlops.server.orders import Command
from jupyter_mlops.store import Store

API = "jupyter-mlops/api/"
WAITS = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.02)"


def write(folder: Path, name: str, *cells: str, parameters: str = "") -> Path:
    """Put a notebook into a folder of a project, with a cell of parameters where there are any."""
    if not (folder / ".mlops").exists():
        folder.mkdir(parents=True, exist_ok=True)
        Store.create(folder / ".mlops").close()
    tagged = [(parameters, ["parameters"])] if parameters else []
    book = {
        "cells": [
            {"cell_type": "code", "id": f"c{at}", "metadata": {"tags": tags}, "outputs": [], "execution_count": None,
             "source": source}
            for at, (source, tags) in enumerate([*tagged, *((one, []) for one in cells)])
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    path = folder / name
    path.write_text(json.dumps(book))
    return path


def check(lab: Lab, verb: str, path: str, **sent: Any) -> tuple[int, Any]:
    return lab.send(f"{API}parameters/{verb}", {"parameters": {}, **sent}, path=path)


def ordered(lab: Lab, verb: str, path: str, **sent: Any) -> dict[str, Any]:
    status, job = lab.send(f"{API}jobs/{verb}", {"parameters": {}, **sent}, path=path)
    assert status == 200, job
    return dict(job)


def made(lab: Lab, folder: str) -> dict[str, Any]:
    status, job = lab.send(f"{API}jobs/init", {"notebook": True}, path=folder)
    assert status == 200, job
    return dict(job)


def until(made: Callable[[], Any]) -> Any:
    """What something is, as soon as it is anything."""
    for _ in range(3000):
        found = made()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("never so")


def over(lab: Lab, job: dict[str, Any]) -> dict[str, Any]:
    """A job, once it is over."""

    def ended() -> dict[str, Any] | None:
        status, found = lab.ask(API + f"jobs/{job['id']}")
        assert status == 200, found
        return dict(found) if found["state"] in OVER else None

    return dict(until(ended))


def test_a_notebook_is_run_with_parameters_followed_by_its_cells_and_found_by_another_page(lab: Lab) -> None:
    folder = lab.root / "ran"
    write(folder, "train.ipynb", WAITS, "from jupyter_mlops import log_metric\nlog_metric('twice', 2 * depth)",
          parameters="depth: int = 3  # how deep")  # fmt: skip
    job = ordered(lab, "run", "ran/train.ipynb", parameters={"depth": "21"}, tickets=["ABC-7"])
    assert (job["state"], job["answer"], job["path"], job["root"]) == ("running", None, "ran/train.ipynb", "ran")
    assert job["command"] == "mlops run -p depth 21 --ticket=ABC-7 train.ipynb"

    def waits() -> bool:
        (found,) = lab.ask(API + "jobs", path="ran/train.ipynb")[1]["jobs"]
        assert found["state"] == "running"
        return found["id"] == job["id"] and [one["cell"] for one in found["progress"]["now"]] == [3]

    until(waits)  # the cell of parameters, that with their values, and the one that waits
    (folder / "go").touch()
    done = over(lab, job)
    assert (done["state"], done["code"], done["progress"]["done"]) == ("done", 0, 1), done
    assert (done["answer"]["status"], done["answer"]["metrics"]) == ("done", {"twice": 42})
    assert (folder / done["answer"]["output"]).is_file()
    with Store.open(folder / ".mlops") as store:
        started = store.run(done["run"]).started
    assert (done["answer"]["run"], started.parameters) == (done["run"], {"depth": 21})
    assert [one.id for one in started.tickets] == ["ABC-7"]


def test_a_job_that_fails_says_why_and_how_far_it_came(lab: Lab) -> None:
    write(lab.root / "failing", "bad.ipynb", "raise ValueError('no such column')")
    done = over(lab, ordered(lab, "run", "failing/bad.ipynb"))
    assert (done["state"], done["code"]) == ("failed", 3)
    assert "no such column" in done["answer"]["error"]


def test_a_sweep_is_counted_and_answers_with_its_table(lab: Lab) -> None:
    folder = lab.root / "swept"
    write(folder, "s.ipynb", "from jupyter_mlops import log_metric\nlog_metric('m', depth)",
          parameters="depth: int = 3\nkey: \"Secret\" = ''")  # fmt: skip
    order: dict[str, Any] = {"parameters": {"depth": "1..3", "key": "hunter2-of-sweeps"}, "best": "m"}
    status, checked = check(lab, "sweep", "swept/s.ipynb", **order)
    assert (status, checked["runs"], checked["problems"], checked["problem"]) == (200, 3, {}, "")
    assert checked["command"] == "mlops sweep -p depth=1..3 --best=m -f - s.ipynb"
    done = over(lab, ordered(lab, "sweep", "swept/s.ipynb", **order))
    assert (done["state"], done["progress"]["done"], done["progress"]["steps"]) == ("done", 3, 3), done
    rows = done["answer"]["rows"]
    assert [(row["depth"], row["m"], row["status"]) for row in rows] == [(one, one, "done") for one in (1, 2, 3)]
    assert (done["answer"]["best"], {row["key"] for row in rows}) == (2, {"<redacted:assigned:1>"})
    nowhere(lab, "hunter2-of-sweeps")


def nowhere(lab: Lab, secret: str) -> None:
    """A text is in no file that the server, its jobs and their kernels have written."""
    for path in lab.root.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret.encode() not in path.read_bytes(), path


def test_a_secret_is_in_no_command_line_no_environment_no_file_and_no_answer(lab: Lab) -> None:
    secret, folder = "correct-horse-battery", lab.root / "hidden"
    write(folder, "secret.ipynb", WAITS, "print('it is', key)\nraise ValueError(key)",
          parameters="key: \"Secret\" = ''\ncolour = 'red'")  # fmt: skip
    status, checked = check(lab, "run", "hidden/secret.ipynb", parameters={"key": secret})
    assert (status, checked["problems"]) == (200, {})
    job = ordered(lab, "run", "hidden/secret.ipynb", parameters={"key": secret, "colour": "blue"})
    told = [checked, job]
    until(lambda: [one["cell"] for one in lab.ask(API + f"jobs/{job['id']}")[1]["progress"]["now"]] == [3])
    seen = 0
    for process in psutil.process_iter():
        try:
            if process.username() == psutil.Process().username() and process.pid != os.getpid():
                seen += 1
                assert secret not in " ".join(process.cmdline())
                assert secret not in str(process.environ())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    assert seen > 2
    (folder / "go").touch()
    told += [over(lab, job), lab.ask(API + "jobs")[1], lab.ask(API + "parameters", path="hidden/secret.ipynb")[1]]
    assert "it is <redacted:known:1>" in (folder / "secret.out.ipynb").read_text()
    assert secret not in json.dumps(told)
    assert "-p colour blue" in job["command"]
    nowhere(lab, secret)


def test_an_interrupted_job_ends_in_order_and_leaves_no_process(lab: Lab) -> None:
    folder = lab.root / "cut"
    write(folder, "long.ipynb", WAITS)
    job = ordered(lab, "run", "cut/long.ipynb")
    until(lambda: [one["cell"] for one in lab.ask(API + f"jobs/{job['id']}")[1]["progress"]["now"]] == [1])
    assert lab.ask(API + f"jobs/{job['id']}", method="DELETE")[0] == 200
    done = over(lab, job)
    assert (done["state"], done["code"]) == ("interrupted", 130)
    with Store.open(folder / ".mlops") as store:
        assert [run.status for run in store.runs() if run.ended is not None] == ["interrupted"]
    assert not [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(folder)]
    assert lab.ask(API + f"jobs/{job['id']}", method="DELETE")[1]["state"] == "interrupted"
    assert lab.ask(API + f"jobs/{'0' * 32}", method="DELETE")[0] == 404


def test_a_project_is_made_with_a_first_notebook_that_takes_parameters(lab: Lab) -> None:
    (lab.root / "fresh").mkdir()
    done = over(lab, made(lab, "fresh"))
    assert (done["state"], done["answer"]) == ("done", {"project": "fresh", "fresh": True,
                                                        "notebook": "first_steps.ipynb"})  # fmt: skip
    status, form = lab.ask(API + "parameters", path="fresh/first_steps.ipynb")
    assert (status, form["declares"]) == (200, True)
    assert [(one["name"], one["type"], one["default"]) for one in form["fields"]] == [
        ("trees", "int", "100"), ("depth", "int", "4"), ("seed", "int", "0"),
    ]  # fmt: skip
    assert {one["name"] for one in form["targets"]} >= {"local"}
    (lab.root / "fresh" / "first_steps.ipynb").write_text("mine")
    assert over(lab, made(lab, "fresh"))["answer"]["fresh"] is False
    assert (lab.root / "fresh" / "first_steps.ipynb").read_text() == "mine"


def test_a_form_shows_what_a_notebook_declares_and_no_secret_of_it(lab: Lab) -> None:
    write(
        lab.root / "formed", "f.ipynb",
        parameters="from typing import Literal\ndepth: int = 3  # how deep\nmode: Literal['fast', 'slow'] = 'fast'\n"
        "on = True\nname = 'x, y'\nwhen = compute()\ntoken = 'tok-en-of-the-notebook'\nrest = None  # <b>anything</b>",
    )  # fmt: skip
    status, form = lab.ask(API + "parameters", path="formed/f.ipynb")
    assert status == 200, form
    shown = {one["name"]: (one["type"], one["default"], one["choices"], one["secret"]) for one in form["fields"]}
    assert shown == {
        "depth": ("int", "3", [], False), "mode": ("Literal['fast', 'slow']", "fast", ["fast", "slow"], False),
        "on": ("bool", "True", ["True", "False"], False), "name": ("str", "x, y", [], False),
        "when": ("", "", [], False), "token": ("str", "", [], True), "rest": ("", "None", [], False),
    }  # fmt: skip
    assert form["fields"][-1]["help"] == "<b>anything</b>"
    write(lab.root / "formed", "none.ipynb", "x = 1")
    assert lab.ask(API + "parameters", path="formed/none.ipynb")[1]["declares"] is False


def test_what_does_not_fit_is_named_by_its_parameter_before_anything_runs(lab: Lab) -> None:
    write(lab.root / "checked", "c.ipynb", "x = 1", parameters='depth: int = 3\nrate = 0.1\nkey: "Secret[int]" = 0')
    given = {"depth": "deep", "rate": "0.5", "nothing": "1", "key": "not-a-number-at-all"}
    status, checked = check(lab, "run", "checked/c.ipynb", parameters=given)
    assert status == 200, checked
    assert set(checked["problems"]) == {"depth", "nothing", "key"}
    assert checked["problems"]["depth"] == "depth is to be int, and 'deep' can not be read as that"
    assert "not-a-number-at-all" not in json.dumps(checked)
    swept = {"depth": "9..1", "rate": "0.1..1"}
    status, checked = check(lab, "sweep", "checked/c.ipynb", parameters=swept)
    assert set(checked["problems"]) == {"depth"}
    status, checked = check(lab, "sweep", "checked/c.ipynb", parameters={"rate": "0.1..1"})
    assert "how many values rate takes is not said" in checked["problem"]
    refused = over(lab, ordered(lab, "run", "checked/c.ipynb", parameters={"depth": "deep"}))
    assert refused["state"] == "failed"  # the command refuses it in the same words
    assert "depth is to be int" in "".join(refused["said"])


@pytest.mark.parametrize(
    "wrong",
    [{"shell": "ls"}, {"retries": -1}, {"retries": 2.5}, {"cache": "all"}, {"timeout": 0}, {"tickets": "A"},
     {"verb": "x"}, {"parameters": {"a": 1}}, {"parameters": {"a": "x" * 5000}}, {"draws": 5}],
)  # fmt: skip
def test_what_is_no_order_is_refused(lab: Lab, wrong: dict[str, Any]) -> None:
    write(lab.root / "strict", "s.ipynb", "print(1)")
    for address in ("jobs/run", "parameters/run"):
        status, answer = lab.send(API + address, {"parameters": {}, **wrong}, path="strict/s.ipynb")
        assert (status, answer["kind"]) == (400, "BodyRefused")
    assert lab.ask(API + "jobs", path="strict/s.ipynb")[1] == {"jobs": []}


def test_only_who_may_ends_a_job(lab: Lab) -> None:
    job, cookie = made(lab, ""), lab.session_cookie()
    address = API + f"jobs/{job['id']}"
    for forged in (
        {"token": ""}, {"token": "wrong"}, {"token": "", "headers": {"Cookie": cookie}},
        {"headers": {"Host": "evil.example"}},
    ):  # fmt: skip
        assert lab.ask(address, method="DELETE", **forged)[0] == 403, forged
    over(lab, job)
    (lab.root / "first_steps.ipynb").unlink()
    shutil.rmtree(lab.root / ".mlops")


def test_words_of_an_order_are_never_options_and_paths_never_lead_out(lab: Lab) -> None:
    folder = lab.root / "worded"
    write(folder, "--help.ipynb", "print(name)", parameters="name = ''")
    job = ordered(lab, "run", "worded/--help.ipynb", parameters={"name": "--output=/tmp/x; touch here"})
    done = over(lab, job)
    assert (done["state"], done["answer"]["output"]) == ("done", "--help.out.ipynb"), done
    assert sorted(one.name for one in folder.iterdir()) == ["--help.ipynb", "--help.out.ipynb", ".mlops"]
    for verb, path, sent in (
        ("run", "../x.ipynb", {"parameters": {}}), ("init", "worded/../..", {"notebook": True}),
        ("run", "worded/--help.ipynb", {"parameters": {}, "output": "../../x.ipynb"}),
        ("init", "worded/.mlops", {"notebook": True}),
    ):  # fmt: skip
        assert lab.send(f"{API}jobs/{verb}", sent, path=path)[0] == 403, (verb, path)
    # neither the project's settings nor what a link leads to is put out of force by a run's result
    (folder / "pyproject.toml").write_text('[tool.jupyter-mlops.gates]\nproduction = ["auc>=0.9"]\n')
    (folder / "link").symlink_to(lab.root.parent)
    for output, parameters in (
        ("worded/pyproject.toml", {}), ("worded/x.py", {}), ("worded/{name}/x.ipynb", {"name": "link"}),
        ("worded/link/x.ipynb", {}),
    ):  # fmt: skip
        sent = {"parameters": parameters, "output": output}
        assert lab.send(f"{API}jobs/run", sent, path="worded/--help.ipynb")[0] in (400, 403), output
        assert lab.send(f"{API}parameters/run", sent, path="worded/--help.ipynb")[0] in (400, 403), output
    assert "auc>=0.9" in (folder / "pyproject.toml").read_text()
    assert lab.send(f"{API}jobs/run", {"parameters": {}}, path="worded/none.ipynb")[0] == 404
    assert lab.send(f"{API}jobs/run", {"parameters": {"name": "a\0b"}}, path="worded/--help.ipynb")[0] == 400


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server that knows its users by name."""
    pytest.importorskip("jupyterlab", reason="needs jupyterlab: pip install 'jupyter-mlops[lab]'")
    one = Lab(tmp_path_factory.mktemp("hub"), options=("--ServerApp.identity_provider_class=guards.Named",))
    yield one
    one.stop()


def test_a_run_says_on_behalf_of_whom_it_was_started_beside_who_it_ran_as(hub: Lab) -> None:
    folder, name = hub.root / "named", "zoë; rm -rf ~ \x1b[0m"
    (hub.root / "who").write_text(name)
    write(folder, "wait.ipynb", WAITS)
    job = ordered(hub, "run", "named/wait.ipynb")
    until(lambda: [at["cell"] for at in hub.ask(API + f"jobs/{job['id']}")[1]["progress"]["now"]] == [1])
    inner = [one for one in psutil.process_iter() if one.pid != os.getpid() and named_in(one, name)]
    assert len(inner) >= 2  # the command, and its kernel; and no server
    assert not any("zoë" in word for one in psutil.process_iter() for word in words_of(one))
    (folder / "go").touch()
    assert over(hub, job)["state"] == "done"
    write(folder, "some.ipynb", "print(x)", parameters="x: int = 1")
    assert over(hub, ordered(hub, "sweep", "named/some.ipynb", parameters={"x": "2"}))["state"] == "done"
    status, found = hub.ask(API + "runs", path="named")
    assert status == 200
    assert {(one["trigger"], one["on_behalf_of"]) for one in found["runs"]} == {("papermill", name), ("sweep", name)}
    assert {one["user"] for one in found["runs"]} == {os.environ.get("JUPYTERHUB_USER") or getpass.getuser()}
    # nothing that a page sends says who it is
    for body in ({"on_behalf_of": "eve"}, {"by": "eve"}, {"environ": {"JUPYTER_MLOPS_ON_BEHALF_OF": "eve"}}):
        assert hub.send(f"{API}jobs/run", {"parameters": {}, **body}, path="named/wait.ipynb")[0] == 400
    (hub.root / "who").write_text("a" * 32)  # as one that was drawn at random
    heard = {"X-Forwarded-User": "eve", "Remote-User": "eve"}
    status, job = hub.send(f"{API}jobs/run", {"parameters": {}}, path="named/wait.ipynb", headers=heard)
    assert over(hub, job)["state"] == "done"
    assert hub.ask(API + "runs", path="named", limit=1)[1]["runs"][0]["on_behalf_of"] == ""


def named_in(process: psutil.Process, name: str) -> bool:
    try:
        return name in process.environ().values()
    except psutil.Error:
        return False


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


# -- jobs without a server -------------------------------------------------------------------------------------------


def command(folder: Path, *arguments: str, **secrets: Any) -> Command:
    return Command(Project(folder), "x.ipynb", arguments, secrets)


def test_no_more_jobs_run_than_may_and_all_end_with_the_server(project_folder: Path) -> None:
    write(project_folder, "wait.ipynb", WAITS)
    before = {one.pid for one in psutil.Process().children()}
    jobs, projects = Jobs(1), Projects(SimpleNamespace(root_dir=str(project_folder), allow_hidden=False), above=False)
    one = jobs.start("run", command(project_folder, "run", "--events", "--json", "wait.ipynb"), projects)
    with pytest.raises(JobsFull, match="wait for one to end"):
        jobs.start("run", command(project_folder, "run", "wait.ipynb"), projects)
    until(lambda: [at.cell for at in jobs.show(one.id).progress.now] == [1])
    jobs.close()
    assert (jobs.show(one.id).state, [job.id for job in jobs.list("x.ipynb").jobs]) == ("interrupted", [one.id])
    assert {one.pid for one in psutil.Process().children()} <= before
    with pytest.raises(JobsFull):
        jobs.start("run", command(project_folder, "run", "wait.ipynb"), projects)


@pytest.mark.parametrize(("by", "said"), [("", ""), ("a\0b\ud800c" + "d" * 300, "ab?c" + "d" * 196)])
def test_a_job_is_on_behalf_of_whom_its_server_says_and_of_nobody_that_the_servers_own_surroundings_say(
    project_folder: Path, by: str, said: str
) -> None:
    write(project_folder, "one.ipynb", "1")
    project = Project(project_folder, environ={**os.environ, ON_BEHALF_OF: "mallory"})
    jobs, projects = Jobs(1), Projects(SimpleNamespace(root_dir=str(project_folder), allow_hidden=False), above=False)
    one = jobs.start("run", Command(project, "one.ipynb", ["run", "--json", "one.ipynb"]), projects, by=by)
    until(lambda: jobs.show(one.id).state in OVER)
    jobs.close()
    with Store.open(project_folder / ".mlops") as store:
        assert [run.started.on_behalf_of for run in store.runs()] == [said]


def test_a_server_that_is_killed_leaves_no_job_behind(project_folder: Path) -> None:
    write(project_folder, "wait.ipynb", WAITS)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom types import SimpleNamespace\n"
        "from jupyter_mlops.project import Project\nfrom jupyter_mlops.server.handling import Projects\n"
        "from jupyter_mlops.server.jobs import Jobs\nfrom jupyter_mlops.server.orders import Command\n"
        "jobs = Jobs(1)\nwords = ['run', '--events', '--json', 'wait.ipynb']\n"
        "projects = Projects(SimpleNamespace(root_dir=sys.argv[1], allow_hidden=False), above=False)\n"
        "one = jobs.start('run', Command(Project(Path(sys.argv[1])), 'wait.ipynb', words), projects)\n"
        "while not any(at.cell == 1 for at in jobs.show(one.id).progress.now):\n    time.sleep(0.05)\n"
        "print('it runs', flush=True)\ntime.sleep(600)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script, str(project_folder)], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert server.stdout is not None
    with server, server.stdout:
        assert server.stdout.readline() == b"it runs\n"
        left = psutil.Process(server.pid).children(recursive=True)
        assert len(left) > 1  # the job, and its kernel
        server.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(left, timeout=120)
    assert not alive
    with Store.open(project_folder / ".mlops") as store:
        assert [run.status for run in store.runs() if run.started.trigger == "papermill"] == ["interrupted"]


def test_a_secret_of_any_kind_comes_through_standard_input_as_it_was(tmp_path: Path) -> None:
    secrets = {
        "a": "ü\U0001f600\u2028\x85\x7f\t\"'\\ # : - x", "b": "123456", "c": 5, "d": ["no", 1.5e300],
        "e": "2026-01-02", "f": "null", "g": "1e5", "h": "=", "i": "<<",
    }  # fmt: skip
    line = command(tmp_path, **secrets).given()
    assert line.count(b"\n") == 1
    (tmp_path / "given").write_bytes(base64.b64decode(line))
    assert read_parameters_file(tmp_path / "given") == secrets


# -- environments ----------------------------------------------------------------------------------------------------


def test_an_order_for_a_lock_or_an_environment_is_one_commands_words_and_replaces_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    Store.create(folder / ".mlops").close()
    (folder / "pylock.toml").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    projects = Projects(SimpleNamespace(root_dir=str(tmp_path), allow_hidden=False), above=False)

    def words(*, verb: str, what: str = "$(id) 3f", **given: Any) -> list[str]:
        kind = {one.VERB: one for one in ENVIRONMENTS}[verb]
        command = kind(what=what, **given).command(projects, "a/b.ipynb")
        assert command.project.root == folder
        return list(command.arguments)

    assert words(verb="lock", output="a/pylock.x.toml", requirements=True, everything=True, offline=True) == [
        "env", "lock", "--output=pylock.x.toml", "--requirements=requirements.txt", "--all", "--offline", "--json",
        "--", "$(id) 3f",
    ]  # fmt: skip
    assert words(verb="create", folder="a/env", kernel=" mine ", download=True) == [
        "env", "create", "--kernel=mine", "--download", "--json", "--", "$(id) 3f", "env",
    ]  # fmt: skip
    assert words(verb="lock", output="a/pylock.toml", replace=True)[2] == "--output=pylock.toml"
    (folder / "requirements.txt").symlink_to(tmp_path.parent / "theirs.txt")  # out of the server's folder
    with pytest.raises(Outside):
        words(verb="lock", output="a/pylock.y.toml", requirements=True, replace=True)
    (folder / "requirements.txt").unlink()
    for refused in (
        {"verb": "lock", "output": "a/pylock.toml"}, {"verb": "create", "folder": "a/full"},
        {"verb": "create", "folder": "a/pylock.toml"}, {"verb": "lock", "output": "a/pylock.x.toml", "what": " "},
        {"verb": "create", "folder": "a/env", "what": "/etc/pylock.toml"},
    ):  # fmt: skip
        with pytest.raises(WrongUse):
            words(**refused)
    for outside in ("../pylock.toml", "a/.mlops/pylock.toml", "", "a\\pylock.toml"):
        for order in ({"verb": "lock", "output": outside}, {"verb": "create", "folder": outside}):
            with pytest.raises(Outside):
                words(**order)
    projects.close()


def test_a_lock_is_made_by_a_job_and_what_can_not_be_says_why(lab: Lab) -> None:
    folder = lab.root / "locked"
    with Store.create(folder / ".mlops") as store:
        run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
        packages = [Package(name="none-such-here", version="1")]
        world = store.append(Environment(python="3.99.1", implementation="CPython", packages=packages))
        cell = store.append(CellStarted(run=run, notebook="a.ipynb", cell="c", source="pass", environment=world))
        store.append(CellEnded(cell_run=cell, status="done"))

    def job(verb: str, **sent: Any) -> tuple[int, Any]:
        return lab.send(f"{API}jobs/{verb}", {"what": run, "offline": True, **sent}, path="locked/a.ipynb")

    status, started = job("lock", output="locked/pylock.toml")
    assert status == 200, started
    done = over(lab, started)
    assert (done["state"], done["answer"]["python"]) == ("done", "3.99.1"), done
    assert "none-such-here" in [one["subject"] for one in done["answer"]["gaps"]]
    assert (folder / "pylock.toml").is_file()
    status, refusal = job("lock", output="locked/pylock.toml")
    assert (status, refusal["kind"]) == (400, "WrongUse")
    status, started = job("create", folder="locked/env")
    assert status == 200, started
    done = over(lab, started)
    assert done["state"] == "failed"
    assert "there is no Python 3.99 here" in " ".join(done["said"])
