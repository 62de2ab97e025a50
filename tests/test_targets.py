"""Where notebooks run: what every target keeps to, what a project may name, and what becomes of steps that die."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jupyter_mlops import targets
from jupyter_mlops.pipelines import PERFORM
from jupyter_mlops.project import Project, SettingsInvalid
from jupyter_mlops.records import decode, encode
from jupyter_mlops.targets import Outcome, Step, Target, TargetInvalid, TargetMissing, child, open_target
from jupyter_mlops.targets.local import LocalTarget
from jupyter_mlops.testing import TargetSuite, write_notebook


class TestLocal(TargetSuite):
    """Steps in processes of their own."""

    def open(self, project: Project) -> Target:
        return open_target("local", project, workers=2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.open(tmp_path)


def write(folder: Path, *sources: str) -> str:
    return write_notebook(folder / "a.ipynb", *sources)


def settings(project: Project, text: str) -> Project:
    (project.root / "pyproject.toml").write_text(text)
    return Project(project.root)


# -- names -----------------------------------------------------------------------------------------------------------


def test_a_project_names_its_targets(project: Project) -> None:
    named = settings(project, '[tool.jupyter-mlops.targets.one]\nkind = "local"\nworkers = 1\n')
    assert [(one.name, one.kind, one.hindrance) for one in targets.standing(named) if one.kind == "local"] == [
        ("local", "local", ""), ("one", "local", ""),
    ]  # fmt: skip
    with open_target("one", named) as target:
        assert (target.name, target.slots) == ("one", 1)


def test_a_name_that_nobody_gave_is_refused_with_those_there_are(project: Project) -> None:
    with pytest.raises(TargetMissing, match="there are local"):
        open_target("clutser", project)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('kind = "local"\nworker = 1', "known are: kind, workers"),
        ('kind = "local"\nworkers = 0', "from 1 to 1024"),
        ('kind = "local"\nworkers = "two"', "workers"),
        ('kind = "moon"', "no kind of target 'moon'"),
    ],
)
def test_settings_that_make_no_target_are_listed_with_the_reason_and_refused(
    project: Project, setting: str, said: str
) -> None:
    named = settings(project, f"[tool.jupyter-mlops.targets.odd]\n{setting}\n")
    (one,) = (one for one in targets.standing(named) if one.name == "odd")
    assert said in one.hindrance
    with pytest.raises(TargetMissing, match="odd"):
        open_target("odd", named)


def test_options_of_a_call_are_held_to_the_same_rules(project: Project) -> None:
    with pytest.raises((TargetMissing, TargetInvalid), match="workers"):
        open_target("local", project, workers=-1)


def test_targets_that_are_no_tables_are_refused(project: Project) -> None:
    with pytest.raises(SettingsInvalid):
        targets.standing(settings(project, "[tool.jupyter-mlops]\ntargets = 3\n"))


def test_another_packages_kind_is_found_and_one_that_can_not_be_loaded_is_named(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site"
    (package / "elsewhere-1.0.dist-info").mkdir(parents=True)
    (package / "elsewhere-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n"
    )
    (package / "elsewhere-1.0.dist-info" / "entry_points.txt").write_text(
        "[jupyter_mlops.targets]\nmoon = elsewhere:MOON\nlocal = elsewhere:MOON\nbroken = elsewhere:NONE\n"
        "odd = elsewhere:__name__\n"
    )
    (package / "elsewhere.py").write_text(
        "from jupyter_mlops.targets import Provider\nfrom jupyter_mlops.targets.local import LocalTarget\n"
        "MOON = Provider('moon', 'far away', lambda name, project, options: LocalTarget(name, 3),\n"
        "                lambda project, options: '' if options.get('fuel') else 'no fuel')\n"
    )
    monkeypatch.syspath_prepend(str(package))
    importlib.invalidate_caches()
    found = {one.name: one for one in targets.standing(project)}
    assert found["moon"].hindrance == "no fuel"
    assert "AttributeError" in found["broken"].hindrance
    assert "no targets.Provider" in found["odd"].hindrance
    assert found["local"].about != "far away"
    with open_target("moon", project, fuel=1) as target:
        assert (type(target), target.name, target.slots) == (LocalTarget, "moon", 3)


# -- what dies -------------------------------------------------------------------------------------------------------


def test_an_outcome_and_a_step_do_not_show_secrets() -> None:
    step = Step(name="a", notebook="a.ipynb", output="b.ipynb", secrets={"token": "hunter2hunter2"})
    assert "hunter2" not in repr(step) + str(step) + f"{[step]}"


def test_a_process_that_can_not_even_begin_is_lost_with_its_last_words(project: Project) -> None:
    step = Step(name="a", notebook=write(project.root, "x = 1"), output="b.ipynb")
    with open_target("local", project) as target:
        outcome = target.submit(step, project, "jupyter_mlops.no_such_module:perform").result(60)
        assert outcome.status == "refused"
        assert "no_such_module" in outcome.cause
    broken = Project(project.root, environ={**os.environ, "PYTHONHOME": "/nowhere"})
    with open_target("local", broken) as target:
        outcome = target.submit(step, broken, PERFORM).result(60)
        assert outcome.status == "lost"
        assert "ended with status 1" in outcome.cause
        assert "last words" in outcome.cause


def test_when_the_one_who_asked_dies_the_step_and_its_kernel_end_in_order(project: Project, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    write(
        project.root, "1",
        f"import os, time\nopen({str(mark)!r} + 'x', 'w').write(f'{{os.getpid()}} {{os.getppid()}}')\n"
        f"os.rename({str(mark)!r} + 'x', {str(mark)!r})\ntime.sleep(600)",
    )  # fmt: skip
    asked = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "a.ipynb", "--target", "local"], cwd=project.root,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ends = time.monotonic() + 120
        while not mark.exists():
            assert asked.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.05)
    finally:
        asked.send_signal(signal.SIGKILL)
        asked.wait()
    for pid in map(int, mark.read_text().split()):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < ends
            time.sleep(0.05)
    (run,) = project.store.runs()
    assert run.status == "interrupted"
    assert run.ended is not None


def test_a_ctrl_c_ends_the_step_and_the_command(project: Project, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    write(project.root, "1", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    asked = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "a.ipynb", "--target", "local"], cwd=project.root,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ends = time.monotonic() + 120
    while not mark.exists() or not mark.read_text():
        assert asked.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=60)
    assert (asked.returncode, said.strip()) == (130, "interrupted")
    while psutil.pid_exists(int(mark.read_text())):
        assert time.monotonic() < ends
        time.sleep(0.05)
    (run,) = project.store.runs()
    assert (run.status, run.ended is not None) == ("interrupted", True)


def test_a_process_that_has_performed_its_step_ends_in_order_though_its_lifeline_is_open(project: Project) -> None:
    step = Step(name="one", notebook=write(project.root, "1"), output="b.ipynb")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", child.__name__], cwd=project.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        order = child.Order(step=step, root=str(project.root), perform=PERFORM)
        process.stdin.write(encode(order) + b"\n")
        process.stdin.flush()
        last = [decode(line, child.Word) for line in process.stdout][-1].outcome
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    assert last is not None
    assert last.ok


# -- in a shell ------------------------------------------------------------------------------------------------------


def mlops(project: Project, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", *words], cwd=project.root, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_a_shell_lists_targets_and_runs_a_notebook_on_one_with_retries(project: Project) -> None:
    settings(
        project, '[tool.jupyter-mlops.targets.one]\nkind = "local"\nworkers = 1\n[tool.jupyter-mlops.targets.no]\n'
    )
    code, said, _ = mlops(project, "targets", "--json")
    rows = {row["name"]: row for row in json.loads(said)}
    assert code == 0
    assert rows["one"]["usable"]
    assert not rows["no"]["usable"]
    assert "no kind of target 'no'" in rows["no"]["why"]
    write(
        project.root, "depth = 1", "import os\nassert os.path.exists('mark') or open('mark', 'w').close()",
        "from jupyter_mlops import log_metric\nlog_metric('depth', depth)",
    )  # fmt: skip
    code, said, error = mlops(
        project, "run", "a.ipynb", "-p", "depth", "4", "--target", "one", "--retries", "2", "--json"
    )
    assert code == 0, error
    answer = json.loads(said)
    assert (answer["status"], answer["attempts"], answer["metrics"]) == ("done", 2, {"depth": 4})
    assert answer["output"] == "a.out.ipynb"
    code, _, error = mlops(project, "run", "a.ipynb", "-p", "deep", "4", "--target", "one")
    assert (code, "is it depth?" in error) == (2, True)
    code, _, error = mlops(project, "run", "a.ipynb", "--target", "two")
    assert (code, "there is no target 'two'" in error) == (2, True)


def test_a_failed_step_says_where_and_ends_with_3(project: Project) -> None:
    write(project.root, "1", "1 / 0")
    code, said, _ = mlops(project, "run", "a.ipynb", "--target", "local", "--retries", "1")
    assert code == 3
    assert "ZeroDivisionError" in said
    assert "attempts  2" in said


def test_an_outcome_says_why_it_is_none() -> None:
    assert Outcome(status="lost", cause="gone").why == "gone"
    assert Outcome(status="failed", error="1 / 0", cause="x").why == "1 / 0"
    assert Outcome(status="interrupted").why == "interrupted"
    assert Outcome(status="cached", cause="done before").ok
    assert Outcome(status="cached", cause="done before").why == ""
