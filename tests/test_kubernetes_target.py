"""Steps as Jobs of a Kubernetes cluster: manifests held to the published schema, and `kubectl` against `clusters`.

No API server can be had as a package, so the cluster is one process that speaks the API for what `kubectl` asks of it
and runs a pod's command on this machine: `clusters` says what of it is real. The code under test knows nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import yaml
from clusters import Cluster

import jupyter_mlops
from jupyter_mlops.pipelines import PERFORM
from jupyter_mlops.project import Project
from jupyter_mlops.targets import Event, Step, Target, TargetInvalid, TargetMissing, jobs, open_target, standing
from jupyter_mlops.targets.jobs import KubernetesOptions
from jupyter_mlops.targets.kubernetes import Line
from jupyter_mlops.targets.pod import Asked, Broken, frame
from jupyter_mlops.testing import TargetSuite, write_notebook

LIMIT = 120.0
SOURCE = str(Path(jupyter_mlops.__file__).parents[1])
HERE = {"PYTHONPATH": SOURCE, "JUPYTER_MLOPS_STRICT": "1"}
"""The variables of an image that has what is here."""


def talks() -> bool:
    """Whether there is a `kubectl` that speaks to pods over WebSockets, as it does from 1.31 on."""
    if shutil.which("kubectl") is None:
        return False
    said = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True).stdout
    version = re.match(r"v?(\d+)\.(\d+)", json.loads(said)["clientVersion"]["gitVersion"])
    return version is not None and (int(version[1]), int(version[2])) >= (1, 31)


kubectl = pytest.mark.skipif(not talks(), reason="needs kubectl 1.31 or newer")


def until(condition: Callable[[], Any], why: str) -> None:
    ends = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < ends, why
        time.sleep(0.05)


@contextlib.contextmanager
def started(**options: Any) -> Iterator[Cluster]:
    one = Cluster({"here:1": HERE}, **options)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started() as one:
        yield one


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project.open(tmp_path / "project")


def around(cluster: Cluster, project: Project) -> Project:
    return Project(project.root, environ={**os.environ, **cluster.environ})


def target(cluster: Cluster, project: Project, **settings: Any) -> Target:
    return open_target("kubernetes", around(cluster, project), **{"image": "here:1", **settings})


def write(project: Project, *sources: str) -> str:
    return write_notebook(project.root / "a.ipynb", *sources)


def step(**rest: Any) -> Step:
    return Step(name="a", notebook="a.ipynb", output="a.out.ipynb", **rest)


def there(path: Path) -> str:
    until(lambda: path.is_file() and path.read_text() != "", f"{path.name} was not written")
    return path.read_text()


def connections(cluster: Cluster) -> int:
    return sum(asked.startswith("EXEC") for asked in cluster.asked)


def gone(*pids: int) -> None:
    for pid in pids:
        until(
            lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE,
            f"process {pid} still runs",
        )


@kubectl
class TestKubernetes(TargetSuite):
    """Steps in pods that share nothing with the project."""

    @pytest.fixture(autouse=True)
    def _given(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def open(self, project: Project) -> Target:
        return target(self.cluster, project, workers=2)


# -- the manifest ----------------------------------------------------------------------------------------------------


FULL = {
    "image": "registry.example.org/team/flights:3", "namespace": "science", "service-account": "notebooks",
    "requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "4Gi", "nvidia.com/gpu": "1"},
    "node-selector": {"kubernetes.io/arch": "amd64", "pool": ""}, "secrets": ["database", "s3"],
    "pull-secrets": ["registry"], "labels": {"ticket": "ABC-12", "example.org/team": "delays"}, "user": 1234,
    "python": "/opt/venv/bin/python", "keep": 600, "wait": 60,
}  # fmt: skip


def made(step: Step, **settings: Any) -> dict[str, Any]:
    from jupyter_mlops.targets import options

    return jobs.manifest(options({"image": "here:1", **settings}, KubernetesOptions), step)


@pytest.mark.parametrize("version", ["1.26.0", "latest"])
@pytest.mark.parametrize("settings", [{}, FULL], ids=["least", "all"])
def test_a_manifest_is_what_the_published_schema_says(settings: dict[str, Any], version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    if version == "latest":
        version = validate.latest_version()
    for one in (step(), step(timeout=90.5, retries=3, parent="blake3:" + "a" * 64)):
        manifest = yaml.safe_load(yaml.safe_dump(made(one, **settings)))
        validate.validate(manifest, version, strict=True)
        manifest["spec"]["backoffLimits"] = 3
        with pytest.raises(validate.ValidationError):
            validate.validate(manifest, version, strict=True)


def test_a_manifest_has_what_is_set_and_what_the_step_says() -> None:
    manifest = made(step(timeout=100, retries=2, parent="blake3:" + "ab" * 32), **FULL)
    spec, pod = manifest["spec"], manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert manifest["metadata"]["namespace"] == "science"
    assert re.fullmatch(r"mlops-a-[0-9a-f]{12}", manifest["metadata"]["name"])
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (2, 600)
    assert spec["activeDeadlineSeconds"] >= 3 * 100 + 60
    assert "activeDeadlineSeconds" not in made(step())["spec"]
    assert container["image"] == FULL["image"]
    assert container["command"][0] == FULL["python"]
    assert container["resources"] == {"requests": FULL["requests"], "limits": FULL["limits"]}
    assert container["envFrom"] == [{"secretRef": {"name": "database"}}, {"secretRef": {"name": "s3"}}]
    assert (pod["restartPolicy"], pod["serviceAccountName"]) == ("Never", "notebooks")
    assert (pod["nodeSelector"], pod["imagePullSecrets"]) == (FULL["node-selector"], [{"name": "registry"}])
    assert pod["securityContext"]["runAsUser"] == 1234
    labels = manifest["metadata"]["labels"]
    assert labels == spec["template"]["metadata"]["labels"]
    assert labels["jupyter-mlops/notebook"] == "a.ipynb"
    assert labels["jupyter-mlops/part-of"] == "ab" * 20
    assert (labels["jupyter-mlops/ticket"], labels["example.org/team"]) == ("ABC-12", "delays")


def test_a_pod_is_as_restricted_as_the_strictest_standard_asks() -> None:
    pod = made(step())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])


def test_nothing_of_a_step_but_names_is_in_its_manifest() -> None:
    one = step(parameters={"query": "select 7142"}, secrets={"token": "hunter2-swordfish"}, reads=["data/private.csv"])
    text = json.dumps(made(one))
    for word in ("7142", "query", "hunter2", "token", "private.csv"):
        assert word not in text.replace("automountServiceAccountToken", "")


def test_any_notebook_makes_a_name_and_labels_that_kubernetes_takes() -> None:
    label = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
    for name in ("Ünïcode §.ipynb", "…", "-x-.ipynb", "a" * 300 + ".ipynb", "deep/er/Late Arrivals (2).ipynb", ""):
        manifest = made(Step(name=name, notebook=name, output="out.ipynb"))
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
        assert len(manifest["metadata"]["name"]) <= 63
        for value in manifest["metadata"]["labels"].values():
            assert label.fullmatch(value)
            assert len(value) <= 63


def test_a_shell_writes_the_manifest_alone_and_needs_no_cluster_and_no_kubectl(project: Project) -> None:
    write(project, "depth = 1")
    (project.root / "pyproject.toml").write_text(
        '[tool.jupyter-mlops.targets.there]\nkind = "kubernetes"\nimage = "here:1"\nlabels = {ticket = "ABC-12"}\n'
    )
    bare = {**os.environ, "PATH": "/nowhere"}

    def mlops(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "jupyter_mlops", *words], cwd=project.root, capture_output=True, text=True, env=bare
        )
        return done.returncode, done.stdout + done.stderr

    code, said = mlops(
        "run", "a.ipynb", "-p", "depth", "3", "--target", "there", "--retries", "1", "--manifest", "j.yaml"
    )
    assert (code, said.strip()) == (0, "wrote j.yaml")
    manifest = yaml.safe_load((project.root / "j.yaml").read_text())
    assert (manifest["kind"], manifest["spec"]["backoffLimit"]) == ("Job", 1)
    assert manifest["metadata"]["labels"]["jupyter-mlops/ticket"] == "ABC-12"
    assert project.store.runs() == []
    code, said = mlops("run", "a.ipynb", "--target", "there")
    assert (code, "kubectl is not on the PATH" in said, "--manifest" in said) == (2, True, True)
    code, said = mlops("run", "a.ipynb", "--target", "local", "--manifest", "j.yaml")
    assert (code, "the target 'local' has no manifest" in said) == (2, True)
    code, said = mlops("run", "a.ipynb", "--manifest", "j.yaml")
    assert (code, "--target NAME" in said) == (2, True)
    code, said = mlops("run", "a.ipynb", "-p", "deep", "3", "--target", "there", "--manifest", "k.yaml")
    assert (code, "is it depth?" in said, (project.root / "k.yaml").exists()) == (2, True, False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "image"), ({"image": ""}, "image is to name an image"), ({"image": "--help"}, "image is to name"),
        ({"image": "a b"}, "image is to name"), ({"user": 0}, "does not run as root"), ({"workers": 0}, "from 1"),
        ({"namespace": "../kube-system"}, "no name that Kubernetes gives"), ({"secrets": ["A_B"]}, "no name"),
        ({"limits": {"memory": "lots"}}, "no amount"), ({"labels": {"ticket": "ABC 12"}}, "is no label"),
        ({"node-selector": {"a/b/c": "x"}}, "is no label"), ({"files": ["/etc/*"]}, "inside of the project"),
        ({"environment": "create"}, "environment"), ({"wait": 0}, "wait"), ({"imago": "x"}, "known are: kind, image"),
    ],
)  # fmt: skip
def test_settings_that_make_no_job_are_refused(project: Project, settings: dict[str, Any], said: str) -> None:
    given = {"image": "here:1", **settings} if settings else {}
    with pytest.raises((TargetMissing, TargetInvalid), match=re.escape(said)):
        open_target("kubernetes", project, **given)
    found = {one.name: one for one in standing(project)}["kubernetes"]
    assert "image is to name an image" in found.hindrance


# -- the program in a pod --------------------------------------------------------------------------------------------


def served(folder: Path, wait: float, patience: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "jupyter_mlops.targets.pod", "serve", str(folder), str(wait), str(patience)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_pod_to_which_nobody_comes_ends_as_one_that_is_not_to_be_tried_again(tmp_path: Path) -> None:
    process = served(tmp_path, 0.2, 0.2)
    _, said = process.communicate(timeout=LIMIT)
    assert (process.returncode, said.strip()) == (jobs.GIVEN_UP, "nobody came with a step")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a name that a socket's path can hold."""
    with tempfile.TemporaryDirectory(prefix="pod-") as name:
        yield Path(name)


def test_what_is_no_frame_ends_its_connection_and_not_the_pod(short: Path) -> None:
    talk = [sys.executable, "-m", "jupyter_mlops.targets.pod", "talk", str(short)]
    process = served(short, 60, 60)
    try:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, frame({"what": 3}), frame(["order"])):
            line = Line(talk, os.environ)
            with pytest.raises(Broken):
                line.ask(garbage)
            line.close()
        line = Line(talk, os.environ)
        assert msgspec.msgpack.decode(line.ask(frame(Asked(what="news", visit="nobody")))) == {"gone": True}
        assert msgspec.msgpack.decode(line.ask(frame(Asked(what="listen", given=[0, 0.1])))) == {"answer": []}
        line.close()
        assert process.poll() is None
        assert (short / "talk").stat().st_mode & 0o077 == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert process.returncode == jobs.GIVEN_UP


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request", b"\x00\x00\x00\x01ab", b""])
def test_what_answers_as_no_guest_does_is_not_listened_to(said: bytes) -> None:
    line = Line([sys.executable, "-c", f"import sys; sys.stdout.buffer.write({said!r})"], os.environ)
    with pytest.raises(Broken):
        line.ask(frame(Asked(what="news")))
    line.close()


# -- what becomes of a Job -------------------------------------------------------------------------------------------


@kubectl
def test_a_job_says_which_run_it_is_and_is_kept_when_it_is_done(cluster: Cluster, project: Project) -> None:
    cluster.secrets["database"] = {"DATABASE_HOST": "db.example.org"}
    (project.root / "data.csv").write_text("x\n1\n")
    write(
        project, "x = 1",
        "import os\nfrom jupyter_mlops import log_param\nlog_param('host', os.environ['DATABASE_HOST'])\n"
        "log_param('data', open('data.csv').read())\nopen('made.csv', 'w').write('made')",
    )  # fmt: skip
    with target(cluster, project, secrets=["database"]) as one:
        outcome = one.submit(step(reads=["data.csv"]), project, PERFORM).result(LIMIT)
    assert outcome.ok, outcome.why
    assert outcome.values == {"host": "db.example.org", "data": "x\n1\n"}
    assert (project.root / "made.csv").read_text() == "made"
    assert outcome.run is not None
    (job,) = [
        job for job in cluster.jobs.values()
        if job["metadata"]["labels"].get("jupyter-mlops/run") == jobs.run_label(outcome.run)
    ]  # fmt: skip
    until(lambda: job["status"].get("conditions"), "the Job did not end")
    assert job["status"]["conditions"][0]["type"] == "Complete"
    assert [one.what for one in project.store.fsck() if one.severity == "damage"] == []


@kubectl
def test_a_connection_that_breaks_is_made_again_and_nothing_is_lost(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    write(
        project, "mark = ''\ngo = ''",
        "import os, time\nopen(mark, 'w').write('x')\nwhile not os.path.exists(go): time.sleep(0.05)",
        "from jupyter_mlops import log_metric\nlog_metric('x', 1)\nopen('made.bin', 'wb').write(bytes(20_000_000))",
    )  # fmt: skip
    heard: list[Event] = []
    with target(cluster, project) as one:
        handle = one.submit(step(parameters={"mark": str(mark), "go": str(go)}), project, PERFORM, heard.append)
        there(mark)
        for round_ in range(2):
            until(lambda: cluster.execs, "there is no connection")
            before = connections(cluster)
            for process in list(cluster.execs):
                process.kill()
            until(lambda n=before: connections(cluster) > n, f"no other connection was made after {round_}")
        go.touch()
        outcome = handle.result(LIMIT)
    assert outcome.ok, outcome.why
    assert (outcome.metrics, outcome.attempts) == ({"x": 1}, 1)
    assert (project.root / "made.bin").stat().st_size == 20_000_000
    cells = [(one.kind, one.cell) for one in heard if one.kind.startswith("cell")]
    assert cells == [(kind, n) for n in range(1, 5) for kind in ("cell began", "cell ended")]


@kubectl
def test_a_pod_that_dies_leaves_what_was_on_record_and_another_takes_the_step(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "pids"
    write(
        project, "mark = ''", "kept = 'kept'",
        "import os, time\nwhile not os.path.exists(mark):\n"
        "    open(mark + 'x', 'w').write(f'{os.getpid()} {os.getppid()}')\n    os.rename(mark + 'x', mark)\n"
        "    time.sleep(600)",
    )  # fmt: skip
    heard: list[Event] = []
    with target(cluster, project) as one:
        known = set(cluster.pods)
        handle = one.submit(step(parameters={"mark": str(mark)}, retries=1), project, PERFORM, heard.append)
        pids = [int(pid) for pid in there(mark).split()]
        until(lambda: any(one.kind == "cell began" and one.cell == 4 for one in heard), "no third cell")
        (pod,) = [pod for name, pod in cluster.pods.items() if name not in known]
        assert pod.process is not None
        pod.process.kill()
        outcome = handle.result(LIMIT)
        gone(*pids)
        assert (outcome.status, outcome.attempts) == ("done", 2), outcome.why
        first, second = project.store.runs()[::-1]
        assert (first.status, second.status, second.id) == ("interrupted", "done", outcome.run)
        assert any("(OOMKilled)" in one.text for one in heard)
        # Where there is no other try, it is lost, and what was on record until then can be gone on with.
        mark.unlink()
        known = set(cluster.pods)
        handle = one.submit(step(parameters={"mark": str(mark)}), project, PERFORM)
        there(mark)
        (pod,) = [pod for name, pod in cluster.pods.items() if name not in known]
        assert pod.process is not None
        pod.process.kill()
        outcome = handle.result(LIMIT)
    assert outcome.status == "lost"
    assert "ended with status 137 (OOMKilled)" in outcome.cause
    assert outcome.run is not None
    assert f"mlops resume {outcome.run[7:15]}" in outcome.cause
    assert project.store.run(outcome.run).status == "interrupted"
    assert [one.what for one in project.store.fsck() if one.severity == "damage"] == []


@kubectl
def test_an_interrupt_ends_the_step_in_order_and_deletes_its_job(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    write(project, "1", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    (project.root / "pyproject.toml").write_text(
        '[tool.jupyter-mlops.targets.there]\nkind = "kubernetes"\nimage = "here:1"\n'
    )
    known = set(cluster.jobs)
    asked = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "a.ipynb", "--target", "there"], cwd=project.root,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **cluster.environ},
        start_new_session=True,
    )  # fmt: skip
    pid = int(there(mark))
    assert len(set(cluster.jobs) - known) == 1
    os.killpg(asked.pid, signal.SIGINT)  # as a terminal does
    _, said = asked.communicate(timeout=LIMIT)
    assert (asked.returncode, said.strip()) == (130, "interrupted")
    gone(pid)
    assert set(cluster.jobs) == known
    (run,) = project.store.runs()
    assert (run.status, run.ended is not None) == ("interrupted", True)


@kubectl
def test_a_pod_ends_its_step_when_the_one_who_asked_is_gone(cluster: Cluster, project: Project, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    write(project, "1", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    (project.root / "pyproject.toml").write_text(
        '[tool.jupyter-mlops.targets.there]\nkind = "kubernetes"\nimage = "here:1"\npatience = 3\n'
    )
    known = set(cluster.jobs)
    asked = subprocess.Popen(
        [sys.executable, "-m", "jupyter_mlops", "run", "a.ipynb", "--target", "there"], cwd=project.root,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **cluster.environ},
    )  # fmt: skip
    try:
        pid = int(there(mark))
    finally:
        asked.kill()
        asked.wait()
    gone(pid)
    (name,) = set(cluster.jobs) - known
    until(lambda: cluster.jobs[name]["status"].get("conditions"), "its Job goes on")
    assert cluster.jobs[name]["status"]["conditions"][0]["reason"] == "PodFailurePolicy"  # and is not tried again


@kubectl
def test_what_can_not_run_is_refused_with_what_the_cluster_says(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    write(project, "x = 1")
    for settings, said in (
        ({"image": "nowhere:1"}, "ImagePullBackOff of nowhere:1"),
        ({"secrets": ["unknown"]}, "CreateContainerConfigError"),
    ):
        known = set(cluster.jobs)
        with target(cluster, project, **settings) as one:
            outcome = one.submit(step(retries=1), project, PERFORM).result(LIMIT)
        assert (outcome.status, outcome.run) == ("refused", None)
        assert said in outcome.cause
        assert set(cluster.jobs) == known
    with started() as closed:
        closed.refuses = lambda method, path: method == "POST"
        with target(closed, project) as one:
            outcome = one.submit(step(), project, PERFORM).result(LIMIT)
        assert (outcome.status, outcome.notes) == ("refused", [])
        assert "Forbidden" in outcome.cause
        closed.refuses = lambda method, path: method == "PATCH"
        with target(closed, project) as one:
            outcome = one.submit(step(), project, PERFORM).result(LIMIT)
        assert outcome.ok, outcome.why  # that the Job has no label is no reason to have no result
        shutil.copy(closed.config, tmp_path / "config")
    closed.environ["KUBECONFIG"] = str(tmp_path / "config")
    with target(closed, project) as one:  # nobody listens there any more
        outcome = one.submit(step(), project, PERFORM).result(LIMIT)
    assert outcome.status == "lost"
    assert "refused" in outcome.cause
    assert project.store.runs()[0].status == "done"


@kubectl
def test_an_image_with_another_environment_is_refused_by_name_and_used_only_where_that_is_said(
    cluster: Cluster, project: Project, tmp_path: Path
) -> None:
    (tmp_path / "site" / "papermill-0.0.1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "papermill-0.0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: papermill\nVersion: 0.0.1\n"
    )
    cluster.images["odd:1"] = {**HERE, "PYTHONPATH": f"{tmp_path / 'site'}:{SOURCE}"}
    cluster.images["bare:1"] = {"PYTHONHOME": "/nowhere"}
    write(project, "x = 1", "from jupyter_mlops import log_metric\nlog_metric('x', x)")
    with target(cluster, project, image="odd:1") as one:
        outcome = one.submit(step(retries=2), project, PERFORM).result(LIMIT)
        assert (outcome.status, outcome.attempts, project.store.runs()) == ("refused", 1, [])
        assert "papermill 0.0.1 (here " in outcome.cause
    with target(cluster, project, image="odd:1", environment="any") as one:
        outcome = one.submit(step(), project, PERFORM).result(LIMIT)
        assert outcome.metrics == {"x": 1}, outcome.why
        assert "papermill 0.0.1" in "".join(outcome.notes)
    with target(cluster, project, image="bare:1") as one:
        outcome = one.submit(step(), project, PERFORM).result(LIMIT)
        assert outcome.status == "lost"
        assert "BackoffLimitExceeded" in outcome.cause
        assert "its last words" in outcome.cause


@kubectl
def test_a_job_that_is_deleted_runs_out_of_time_or_never_gets_a_pod_is_told_of_as_that(
    cluster: Cluster, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "pid"
    write(project, "1", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    known = set(cluster.jobs)
    with target(cluster, project) as one:
        handle = one.submit(step(timeout=500), project, PERFORM)
        pid = int(there(mark))
        (name,) = set(cluster.jobs) - known
        cluster.jobs[name]["spec"]["activeDeadlineSeconds"] = 0  # its time is over now
        outcome = handle.result(LIMIT)
        gone(pid)
        assert outcome.status == "failed"
        assert "it ran out of time: its Job failed: DeadlineExceeded" in outcome.why
        mark.unlink()
        known = set(cluster.jobs)
        handle = one.submit(step(), project, PERFORM)
        pid = int(there(mark))
        (name,) = set(cluster.jobs) - known
        subprocess.run(
            ["kubectl", "delete", "job", name, "--wait=false"], env={**os.environ, **cluster.environ}, check=True
        )
        outcome = handle.result(LIMIT)
        gone(pid)
        assert (outcome.status, outcome.attempts) == ("lost", 1)
        assert outcome.run is not None
        assert project.store.run(outcome.run).status == "interrupted"
    monkeypatch.setattr(cluster, "schedules", False)
    with target(cluster, project, wait=1) as one:
        outcome = one.submit(step(), project, PERFORM).result(LIMIT)
    assert (outcome.status, "no pod ran for 1 s" in outcome.cause) == ("lost", True)


@kubectl
@pytest.mark.skipif(os.geteuid() != 0, reason="a process can only be confined by root")
def test_a_pod_needs_no_root_and_writes_to_its_own_folders_alone(project: Project) -> None:
    write(
        project, "where = ''",
        "import os\nfrom jupyter_mlops import log_param\nlog_param('user', os.getuid())\n"
        "try:\n    open(where, 'w')\nexcept OSError as error:\n    log_param('why', error.strerror)\n"
        "open(os.path.expanduser('~/mine'), 'w').write('x')\nopen('made.csv', 'w').write('made')",
    )  # fmt: skip
    with started(confine=True) as confined, target(confined, project, user=1234) as one:
        world = confined.folder / "world"
        world.mkdir()
        world.chmod(0o777)  # anybody may write there, but for what the pod may not
        outcome = one.submit(step(parameters={"where": str(world / "x")}), project, PERFORM).result(LIMIT)
    assert outcome.ok, outcome.why
    assert (outcome.values["user"], outcome.values["why"]) == (1234, "Read-only file system")
    assert (project.root / "made.csv").read_text() == "made"
