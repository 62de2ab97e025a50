"""Pipelines with kernels: side by side, tried again, timed out, broken off; whatever happens is on record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_mlops.pipelines import graph, unchanged
from jupyter_mlops.pipelines.graph import Member, pipeline_of
from jupyter_mlops.pipelines.running import Result, Wanted, parameters_of, run_pipeline
from jupyter_mlops.project import Project

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
MEET = """\
import time
from pathlib import Path
Path("{mine}").write_text("")
end = time.monotonic() + 120
while not Path("{other}").exists() and time.monotonic() < end:
    time.sleep(0.05)
assert Path("{other}").exists()
"""


def notebook(folder: Path, name: str, *sources: str, parameters: str | None = None) -> Member:
    cells = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place}"
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), folder / f"{name}.ipynb")
    return Member(notebook=f"{name}.ipynb")


def with_(member: Member, **more: object) -> Member:
    return Member(notebook=member.notebook, **more)  # type: ignore[arg-type]


def run(project: Project, steps: dict[str, Member], **wanted: object) -> Result:
    return run_pipeline(project, pipeline_of(steps, project.root), Wanted(**wanted))  # type: ignore[arg-type]


def states(result: Result) -> dict[str, str]:
    return {name: one.status for name, one in result.outcomes.items()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "pyproject.toml").write_text("[tool.jupyter-mlops.targets.two]\nkind = 'local'\nworkers = 2\n")
    return Project.open(tmp_path)


def test_steps_that_do_not_need_each_other_run_side_by_side(project: Project) -> None:
    one = notebook(project.root, "one", MEET.format(mine="a", other="b"))
    other = notebook(project.root, "other", MEET.format(mine="b", other="a"))
    result = run(project, {"one": one, "other": other}, target="two", cache="off")
    assert states(result) == {"one": "done", "other": "done"}


def test_after_a_failure_nothing_new_is_started_unless_it_is_to_keep_going(project: Project) -> None:
    steps = {
        "bad": notebook(project.root, "bad", "1 / 0"),
        "needs": with_(notebook(project.root, "needs", "1"), after=["bad"]),
        "last": with_(notebook(project.root, "last", "open('done', 'w').close()"), after=["needs"]),
        "apart": with_(notebook(project.root, "apart", "1")),
        "then": with_(notebook(project.root, "then", "1"), after=["apart"]),
    }
    found = run(project, steps, target="two", keep_going=True)
    assert states(found) == {
        "bad": "failed", "needs": "skipped", "last": "skipped", "apart": "done", "then": "done"
    }  # fmt: skip
    assert "ZeroDivisionError" in found.outcomes["bad"].error
    assert found.outcomes["last"].cause == "needs before it did not succeed"
    assert found.run is not None
    ended = project.store.run(found.run).ended
    assert ended is not None
    assert ended.status == "failed"
    assert "bad: cell 1" in ended.error
    assert not (project.root / "done").exists()

    (project.root / "pyproject.toml").write_text("[tool.jupyter-mlops.targets.one]\nkind = 'local'\nworkers = 1\n")
    again = run(
        Project(project.root), {"bad": steps["bad"], "later": with_(steps["needs"], after=["bad"])}, target="one"
    )
    assert states(again) == {"bad": "failed", "later": "skipped"}


def test_a_step_is_tried_again_and_a_step_that_takes_too_long_is_ended(project: Project) -> None:
    flaky = notebook(
        project.root, "flaky",
        "from pathlib import Path\nfirst = not Path('tried').exists()\nPath('tried').write_text('')\nassert not first",
    )  # fmt: skip
    slow = notebook(project.root, "slow", "import time\ntime.sleep(600)")
    result = run(
        project, {"flaky": with_(flaky, retries=2), "slow": with_(slow, timeout=1.0)}, target="two", keep_going=True
    )
    assert states(result) == {"flaky": "done", "slow": "failed"}
    assert result.outcomes["flaky"].attempts == 2
    assert "the run took longer than 1 s" in result.outcomes["slow"].error


def test_a_value_that_is_not_given_back_and_a_parameter_for_nobody_are_refused(project: Project) -> None:
    gives = notebook(project.root, "gives", "from jupyter_mlops import log_param\nlog_param('rows', [1, 2])")
    takes = notebook(
        project.root, "takes", "open('rows.txt', 'w').write(repr(rows))", parameters="rows: list[int] = []"
    )
    good = with_(takes, parameters={"rows": "${gives.rows}"})
    assert states(run(project, {"gives": gives, "takes": good})) == {"gives": "done", "takes": "done"}
    assert (project.root / "rows.txt").read_text() == "[1, 2]"
    bad = run(project, {"gives": gives, "takes": with_(takes, parameters={"rows": "${gives.row}"})})
    assert states(bad) == {"gives": "cached", "takes": "refused"}
    assert "gives has not given back 'row'" in bad.outcomes["takes"].cause
    found = pipeline_of({"gives": gives, "takes": takes}, project.root)
    assert parameters_of(found, [("rows", "[3]")], {}) == {"takes": {"rows": [3]}}
    assert parameters_of(found, [("takes.rows", "[3]")], {}) == {"takes": {"rows": [3]}}
    with pytest.raises(graph.PipelineInvalid, match="no step takes a parameter 'row'"):
        parameters_of(found, [("row", "3")], {})
    with pytest.raises(graph.PipelineInvalid, match=r"no step 'take' \(is it takes\?\)"):
        parameters_of(found, [("take.rows", "3")], {})


def test_what_is_remembered_of_a_pipeline_gives_way_to_any_change(project: Project) -> None:
    root = project.root
    notebook(root, "copy", "open('out.txt', 'w').write(open('in.txt').read())")
    (root / "in.txt").write_text("1")
    file = root / "pipeline.yaml"
    file.write_text("steps: {copy: copy.ipynb}\n")
    environ = dict(os.environ)

    def again() -> Result:
        return run_pipeline(project, graph.read(file), Wanted())

    def known(**variables: str) -> bool:
        words = unchanged.words_of(Wanted())
        return unchanged.known(project.store.path, file, words, {**environ, **variables}) is not None

    assert not known()
    assert again().status == "done"
    assert not known()
    end = time.monotonic() + 60
    while not known() and time.monotonic() < end:  # what changed within the clock's tick is not remembered yet
        assert again().status == "cached"
    assert known()
    assert known(SHLVL="7", TERM="dumb")
    assert not known(OMP_NUM_THREADS="2")
    for path, text in (("in.txt", "2"), ("out.txt", "2"), ("copy.ipynb", None), ("pipeline.yaml", None)):
        before, times = (root / path).read_bytes(), (root / path).stat()
        changed = before.replace(b"in.txt", b"no.txt").replace(b"copy:", b"copi:") if text is None else text.encode()
        (root / path).write_bytes(changed)
        os.utime(root / path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert not known(), path
        (root / path).write_bytes(before)
        end = time.monotonic() + 60
        while not known() and time.monotonic() < end:
            assert again().status == "cached"
        assert known(), path
    note = unchanged.place(project.store.path, file, unchanged.words_of(Wanted()))
    note.write_bytes(note.read_bytes()[:-1])
    assert not known()


def test_an_interrupt_ends_the_steps_and_leaves_all_of_it_on_record(project: Project) -> None:
    notebook(project.root, "first", "open('first', 'w').close()")
    notebook(project.root, "waits", "open('waits', 'w').close()\nimport time\ntime.sleep(600)")
    (project.root / "pipeline.yaml").write_text(
        "steps:\n  first: first.ipynb\n  waits: {notebook: waits.ipynb, after: first}\n"
        "  never: {notebook: first.ipynb, output: never.ipynb, after: waits}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "pipeline", "run"], cwd=project.root, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        end = time.monotonic() + 200
        while not (project.root / "waits").exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        assert (project.root / "waits").exists()
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert psutil.wait_procs(children, timeout=60)[1] == []
    runs = {run.started.notebook: run for run in project.store.runs()}
    whole = runs["pipeline.yaml"]
    assert whole.status == "interrupted"
    assert {name: run.status for name, run in runs.items() if run.started.parent == whole.id} == {
        "first.ipynb": "done", "waits.ipynb": "interrupted"
    }  # fmt: skip
