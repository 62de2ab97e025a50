"""As much of a Kubernetes cluster as one process can be: the published API for what `kubectl` asks of it, and pods.

It stands in for an API server, the Job controller, a scheduler and a kubelet, none of which can be had as a package.
What it is not: it pulls no image (an "image" is a set of variables for a process of this machine), isolates nothing
unless asked to, waits before no second try, and knows only the paths, fields and rules below, as the API's reference
has them. A volume is a folder, and a path that begins with a mount point is changed into one that begins with that
folder. Everything else is real: `kubectl`, its requests, the WebSocket of ``exec``, and the container's command, which
runs as a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

Thing = dict[str, Any]

DISCOVERY: Mapping[str, Thing] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList", "apiVersion": "v1",
        "groups": [
            {"name": "batch", "versions": [{"groupVersion": "batch/v1", "version": "v1"}],
             "preferredVersion": {"groupVersion": "batch/v1", "version": "v1"}},
        ],
    },
    "/api/v1": {
        "kind": "APIResourceList", "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod",
             "verbs": ["create", "delete", "get", "list", "patch", "watch"]},
            {"name": "pods/exec", "singularName": "", "namespaced": True, "kind": "PodExecOptions",
             "verbs": ["create", "get"]},
        ],
    },
    "/apis/batch/v1": {
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "batch/v1",
        "resources": [
            {"name": "jobs", "singularName": "job", "namespaced": True, "kind": "Job",
             "verbs": ["create", "delete", "get", "list", "patch", "watch"]},
        ],
    },
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.4", "platform": "linux/amd64"},
}  # fmt: skip


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Pod:
    """A pod: its object, and the process of its container."""

    def __init__(self, cluster: Cluster, job: Thing, index: int) -> None:
        self.cluster, self.job = cluster, job
        template = job["spec"]["template"]
        self.name = f"{job['metadata']['name']}-{index}{secrets.token_hex(2)}"
        self.folder = cluster.folder / self.name
        self.spec = template["spec"]
        self.container = self.spec["containers"][0]
        self.process: subprocess.Popen[bytes] | None = None
        self.known: dict[int, psutil.Process] = {}
        self.thing: Thing = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name, "namespace": "default", "uid": secrets.token_hex(8), "creationTimestamp": now(),
                "labels": {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": job["metadata"]["name"]},
            },
            "spec": self.spec,
            "status": {"phase": "Pending"},
        }  # fmt: skip

    def status(self, phase: str, **state: Thing) -> None:
        self.thing["status"] = {
            "phase": phase,
            "containerStatuses": [{"name": self.container["name"], "state": state, "image": self.container["image"]}],
        }

    def inside(self, text: str) -> str:
        """A path in the container as one of this machine."""
        for mount in self.container["volumeMounts"]:
            if text == mount["mountPath"] or text.startswith(mount["mountPath"] + "/"):
                return str(self.folder / mount["name"]) + text[len(mount["mountPath"]) :]
        return text

    def environ(self) -> dict[str, str]:
        """The variables of the container: none of this process's own."""
        found = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TMPDIR": self.inside("/tmp")}
        found |= self.cluster.images[self.container["image"]]
        for one in self.container.get("envFrom", ()):
            found |= self.cluster.secrets[one["secretRef"]["name"]]
        return found | {one["name"]: self.inside(one["value"]) for one in self.container["env"]}

    def command(self, words: list[str]) -> list[str]:
        return [*self.cluster.confined(self), *map(self.inside, words)]

    def start(self) -> None:
        waits = ""
        if self.container["image"] not in self.cluster.images:
            waits = "ImagePullBackOff"
        elif any(one["secretRef"]["name"] not in self.cluster.secrets for one in self.container.get("envFrom", ())):
            waits = "CreateContainerConfigError"
        if waits:
            self.status("Pending", waiting={"reason": waits, "message": f"{waits} of {self.container['image']}"})
            return
        for volume in self.spec["volumes"]:
            assert volume["emptyDir"] == {}
            (self.folder / volume["name"]).mkdir(parents=True)
            os.chown(self.folder / volume["name"], *self.cluster.owner(self))
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self.command(self.container["command"]), cwd=self.inside(self.container["workingDir"]),
                env=self.environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.status("Running", running={"startedAt": now()})

    def look(self) -> int | None:
        """What the container's process has ended with, if it has; then nothing of it goes on, as in a namespace."""
        if self.process is None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess):
            self.known |= {one.pid: one for one in psutil.Process(self.process.pid).children(recursive=True)}
        code = self.process.poll()
        if code is None:
            return None
        for one in self.known.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        code = code if code >= 0 else 128 - code
        reason = {0: "Completed", 137: "OOMKilled"}.get(code, "Error")
        self.status("Failed" if code else "Succeeded", terminated={"exitCode": code, "reason": reason})
        return code

    async def end(self) -> None:
        """Ask the process to end, and kill it when its time is over."""
        self.thing["metadata"]["deletionTimestamp"] = now()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            ends = time.monotonic() + self.spec["terminationGracePeriodSeconds"]
            while self.look() is None:
                if time.monotonic() > ends:
                    self.process.kill()
                await asyncio.sleep(0.05)
        self.cluster.pods.pop(self.name, None)


class Cluster:
    """A cluster on this machine.

    Parameters
    ----------
    images
        Names of images, and the variables that are set in each.
    confine
        Have containers run as the user that their pod says, with a root that can only be read.
    """

    def __init__(self, images: Mapping[str, Mapping[str, str]], *, confine: bool = False) -> None:
        self.images, self.confine = dict(images), confine
        self.secrets: dict[str, dict[str, str]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="k8s-"))
        self.folder.chmod(0o755)
        self.jobs: dict[str, Thing] = {}
        self.pods: dict[str, Pod] = {}
        self.asked: list[str] = []
        self.refuses: Callable[[str, str], bool] = lambda _method, _path: False
        self.schedules = True
        self.execs: dict[asyncio.subprocess.Process, asyncio.Task[None]] = {}
        self._ending: list[asyncio.Task[None]] = []
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        self.config = self.folder / "config"
        self.config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "users": [{"name": "me", "user": {}}],
        }))  # fmt: skip
        self.environ = {"KUBECONFIG": str(self.config), "KUBECACHEDIR": str(self.folder / "cache")}

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        self._loop.run_forever()

    async def _begin(self) -> None:
        handlers = [
            (r"/api/v1/namespaces/default/pods/([^/]+)/exec", Exec),
            (r"/api/v1/namespaces/default/pods/([^/]+)/log", Log),
            (r"/(?:api|apis/batch)/v1/namespaces/default/(jobs|pods)(?:/([^/]+))?", Things), (r"(/.*)", Discovery),
        ]  # fmt: skip
        self._server = HTTPServer(Application(handlers, cluster=self))  # type: ignore[arg-type]
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        self._server.add_sockets(sockets)
        self._control = asyncio.ensure_future(self._controller())
        self._ready.set()

    def close(self) -> None:
        """End every pod, and the cluster."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(120)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _end(self) -> None:
        self._control.cancel()
        self._server.stop()
        passing = list(self.execs.values())
        for one in passing:
            one.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        for pod in list(self.pods.values()):
            pod.spec["terminationGracePeriodSeconds"] = 5
            await pod.end()
        await asyncio.gather(*self._ending)
        await self._server.close_all_connections()

    def owner(self, pod: Pod) -> tuple[int, int]:
        context = pod.spec["securityContext"]
        return (context["runAsUser"], context["fsGroup"]) if self.confine else (-1, -1)

    def confined(self, pod: Pod) -> list[str]:
        """What a command is run by, to be as confined as its pod says: a root that is only read, no user's powers."""
        if not self.confine:
            return []
        context = pod.container["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
        }  # fmt: skip
        places = [str(pod.folder / one["name"]) for one in pod.spec["volumes"]]
        # A Python in a folder that is closed to others is put where it is again, in a folder that is not.
        python = Path(sys.base_prefix)
        closed = next((one for one in reversed(python.parents) if not one.stat().st_mode & 0o001), None)
        aside = pod.folder / "python"
        aside.mkdir(exist_ok=True)
        script = 'for place in "$1" "$2"; do mount --bind "$place" "$place" || exit 9; done\n'
        script += 'if [ -n "$3" ]; then mount --bind "$4" "$5" && mount -t tmpfs -o mode=755 none "$3" || exit 9\n'
        script += '  mkdir -p "$4" && mount --bind "$5" "$4" || exit 9; fi\n'
        # What is mounted below the root is made read-only with it; the volumes are not.
        script += "awk '{print $5}' /proc/self/mountinfo | while read -r at; do\n"
        script += (
            '  case "$at" in "$1"|"$2"|/proc*|/dev*|/sys*) ;; *) mount -o remount,bind,ro "$at" 2>/dev/null ;; esac\n'
        )
        script += 'done\nmount -o remount,bind,ro / || exit 9\nshift 5\nexec setpriv "$@"\n'
        user = pod.spec["securityContext"]["runAsUser"]
        return [
            "unshare", "--mount", "sh", "-c", script, "sh", *places, str(closed or ""), str(python), str(aside),
            f"--reuid={user}", f"--regid={user}",
            "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--",
        ]  # fmt: skip

    # -- the controller ----------------------------------------------------------------------------------------------

    async def _controller(self) -> None:
        while True:
            for job in list(self.jobs.values()):
                self._reconcile(job)
            await asyncio.sleep(0.05)

    def of(self, job: Thing) -> list[Pod]:
        return [one for one in self.pods.values() if one.job is job]

    def _reconcile(self, job: Thing) -> None:
        if job["status"].get("conditions") or not self.schedules:
            return
        spec, active = job["spec"], False
        for pod in self.of(job):
            code = pod.look()
            if code is None:
                active = True
            elif code == 0:
                self._over(job, "Complete", "CompletionsReached")
                return
            elif code in spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]:
                self._over(job, "Failed", "PodFailurePolicy")
                return
        limit = spec.get("activeDeadlineSeconds")
        if limit is not None and time.monotonic() > job["began"] + limit:
            self._over(job, "Failed", "DeadlineExceeded")
            self._end_pods(job)
        elif not active and job["tries"] > spec["backoffLimit"]:
            self._over(job, "Failed", "BackoffLimitExceeded")
        elif not active:
            pod = Pod(self, job, job["tries"])
            job["tries"] += 1
            self.pods[pod.name] = pod
            pod.start()

    def _end_pods(self, job: Thing) -> None:
        for pod in self.of(job):
            self._ending.append(self._loop.create_task(pod.end()))

    def _over(self, job: Thing, kind: str, reason: str) -> None:
        job["status"]["conditions"] = [{"type": kind, "status": "True", "reason": reason, "message": f"said {reason}"}]

    def delete(self, job: Thing) -> None:
        del self.jobs[job["metadata"]["name"]]
        self._end_pods(job)


class Handler(RequestHandler):
    """What every answer has: a refusal where one is asked for, and the API's own form of errors."""

    @property
    def cluster(self) -> Cluster:
        found: Cluster = self.settings["cluster"]
        return found

    def prepare(self) -> None:
        self.cluster.asked.append(f"{self.request.method} {self.request.path}")
        if self.cluster.refuses(self.request.method or "", self.request.path):
            raise HTTPError(403)

    def write_error(self, status_code: int, **_: Any) -> None:
        reason = {403: "Forbidden", 404: "NotFound", 409: "AlreadyExists"}.get(status_code, "InternalError")
        self.write({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status_code,
            "message": f"{self.request.path} is {reason}", "metadata": {},
        })  # fmt: skip

    def log_exception(self, *_: Any) -> None:
        """Say nothing: the answer says it."""


class Discovery(Handler):
    def get(self, path: str) -> None:
        if path not in DISCOVERY:
            raise HTTPError(404)
        self.write(dict(DISCOVERY[path]))


class Things(Handler):
    def _all(self, kind: str) -> dict[str, Thing]:
        if kind == "jobs":
            return self.cluster.jobs
        return {name: pod.thing for name, pod in self.cluster.pods.items()}

    def _one(self, kind: str, name: str) -> Thing:
        found = self._all(kind).get(name)
        if found is None:
            raise HTTPError(404)
        return found

    def get(self, kind: str, name: str | None) -> None:
        if name:
            return self.write(shown(self._one(kind, name)))
        key, _, value = self.get_query_argument("labelSelector", "").partition("=")
        found = [
            shown(one) for one in self._all(kind).values() if not key or one["metadata"]["labels"].get(key) == value
        ]
        version, item = ("batch/v1", "Job") if kind == "jobs" else ("v1", "Pod")
        # Items of a list have no kind of their own.
        bare = [{name: one[name] for name in one if name not in ("kind", "apiVersion")} for one in found]
        return self.write({"kind": f"{item}List", "apiVersion": version, "metadata": {}, "items": bare})

    def post(self, kind: str, name: str | None) -> None:
        assert kind == "jobs"
        assert name is None
        job = json.loads(self.request.body)
        if job["metadata"]["name"] in self.cluster.jobs:
            raise HTTPError(409)
        job["metadata"] |= {"namespace": "default", "uid": secrets.token_hex(8), "creationTimestamp": now()}
        job |= {"status": {}, "began": time.monotonic(), "tries": 0}
        self.cluster.jobs[job["metadata"]["name"]] = job
        self.set_status(201)
        self.write(shown(job))

    def patch(self, kind: str, name: str | None) -> None:
        assert name is not None
        thing = self._one(kind, name)
        thing["metadata"]["labels"] |= json.loads(self.request.body)["metadata"]["labels"]
        self.write(shown(thing))

    def delete(self, kind: str, name: str | None) -> None:
        assert kind == "jobs"
        assert name is not None
        job = self._one(kind, name)
        self.cluster.delete(job)
        self.write({"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}})


class Log(Handler):
    def get(self, name: str) -> None:
        lines = (self.cluster.pods[name].folder / "log").read_bytes().splitlines(keepends=True)
        self.write(b"".join(lines[-int(self.get_query_argument("tailLines", "1000")) :]))


class Exec(WebSocketHandler):
    """``exec``: a process beside the container's, over the protocol ``v5.channel.k8s.io``."""

    process: asyncio.subprocess.Process | None = None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return "v5.channel.k8s.io" if "v5.channel.k8s.io" in subprotocols else None

    async def open(self, name: str) -> None:  # type: ignore[override]
        cluster: Cluster = self.settings["cluster"]
        cluster.asked.append(f"EXEC {name}")
        pod = cluster.pods[name]
        assert self.get_query_argument("container") == pod.container["name"]
        words = pod.command(self.get_query_arguments("command"))
        self.process = await asyncio.create_subprocess_exec(
            *words, env=pod.environ(), cwd=pod.inside(pod.container["workingDir"]),
            stdin=-1, stdout=-1, stderr=-1, limit=1 << 20,
        )  # fmt: skip
        cluster.execs[self.process] = asyncio.create_task(self._pass_on(cluster, self.process))

    async def _pass_on(self, cluster: Cluster, process: asyncio.subprocess.Process) -> None:
        async def pump(channel: int, stream: asyncio.StreamReader) -> None:
            while data := await stream.read(1 << 16):
                await self.write_message(bytes([channel]) + data, binary=True)

        assert process.stdout is not None
        assert process.stderr is not None
        try:
            await asyncio.gather(pump(1, process.stdout), pump(2, process.stderr))
            code = await process.wait()
            status: Thing = {"metadata": {}, "status": "Success"}
            if code:
                status = {
                    "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": f"ended with {code}",
                    "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
                }  # fmt: skip
            await self.write_message(b"\x03" + json.dumps(status).encode(), binary=True)
            self.close()
        except (WebSocketClosedError, StreamClosedError):
            pass  # whoever asked is gone
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # also pipes that a child of it still holds
            del cluster.execs[process]

    async def on_message(self, message: str | bytes) -> None:  # type: ignore[override]
        while self.process is None:
            await asyncio.sleep(0.01)
        assert isinstance(message, bytes)
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it has ended; its status says how
            if message[0] == 0:
                self.process.stdin.write(message[1:])
                await self.process.stdin.drain()
            elif message[0] == 255:
                self.process.stdin.close()

    def on_close(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()


def shown(thing: Thing) -> Thing:
    """A thing as the API gives it."""
    return {name: thing[name] for name in ("apiVersion", "kind", "metadata", "spec", "status")}
