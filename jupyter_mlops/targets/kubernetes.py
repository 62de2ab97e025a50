"""The target ``kubernetes``: each step in a pod of its own, as a Job, which is spoken to through `kubectl`.

The Job (`jobs`) is made with `kubectl create`. When its pod runs, `kubectl exec` connects to the program in it (`pod`),
and over that connection, standard input and output, goes everything: what the step needs, its secrets, what it says,
its record and the files it leaves. There is no shared folder, no volume that outlives the pod, nothing listens on a
network, and no library of Kubernetes is needed; who may do what is what the cluster grants to the user of `kubectl`.

Kubernetes tries again as often as the step says (``backoffLimit``). Each pod of a Job is one attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.environment import observe
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Environment, decode, encode
from jupyter_mlops.targets import Provider, jobs, options
from jupyter_mlops.targets.attempts import Attempt
from jupyter_mlops.targets.errands import TICK, Errand, Unreachable, differences
from jupyter_mlops.targets.jobs import CONTAINER, KEY, PREFIX, KubernetesOptions
from jupyter_mlops.targets.pod import Asked, Broken, frame, size_of
from jupyter_mlops.targets.protocol import Event, Handle, OnEvent, Outcome, Step

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_OFTEN: Final = 1.0
"""Seconds between two looks at a Job whose pod is not there yet."""
_SELDOM: Final = 15.0
"""Seconds between two looks at one that can be spoken to: a connection that breaks tells sooner."""
_SILENCE: Final = 60.0
"""Seconds without a byte after which a connection is taken for one that is broken."""
_ANSWERS: Final = 60.0
"""Seconds that `kubectl` is given to answer."""
_WAITS: Final = frozenset(
    "ImagePullBackOff InvalidImageName ErrImageNeverPull CreateContainerConfigError CreateContainerError".split()
)
"""Reasons for which a container waits that do not go away by waiting."""
_LATE: Final = "DeadlineExceeded"
_NO: Final = re.compile(
    r"^Error from server \((?:Forbidden|Invalid|BadRequest|NotFound|AlreadyExists|Unauthorized)\)|"
    r"^Error in configuration|^error: (?!.*(?:dial tcp|refused|timeout|timed out|EOF|TLS|reset by peer))",
    re.MULTILINE,
)
"""What `kubectl` says where it would not help to ask once more."""
_NOISE: Final = re.compile(r"^[EWI]\d{4} .*\n?", re.MULTILINE)


class Kubectl:
    """The program `kubectl`, as a target's settings have it used.

    Parameters
    ----------
    options
        What is set for the target.
    environ
        Its variables: ``KUBECONFIG`` and the like.
    """

    def __init__(self, options: KubernetesOptions, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self._words = ["kubectl"]
        for name, value in (("--context", options.context), ("--namespace", options.namespace)):
            if value:
                self._words.append(f"{name}={value}")

    def line(self, *words: str) -> list[str]:
        """The whole command line."""
        return [*self._words, *words]

    def ask(self, *words: str, given: bytes = b"") -> bytes:
        """What it prints.

        Raises
        ------
        Unreachable
            The cluster does not answer.
        MlopsError
            The cluster refuses.
        """
        try:
            done = subprocess.run(
                self.line(*words), input=given, env=self.environ, capture_output=True, timeout=_ANSWERS, check=False,
                start_new_session=True,  # a Ctrl-C is for us: we end the step first
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unreachable("the cluster does not answer", cause=f"in {_ANSWERS:g} s") from error
        except OSError as error:
            raise MlopsError("kubectl can not be run", cause=error.strerror or "") from error
        if done.returncode == 0:
            return done.stdout
        said = _NOISE.sub("", done.stderr.decode(errors="replace")).strip()[-1000:]
        kind = MlopsError if _NO.search(said) else Unreachable
        raise kind(f"kubectl {words[0]} failed", cause=said)


class KubernetesTarget:
    """Steps as Jobs of a Kubernetes cluster.

    Parameters
    ----------
    name
        What it is called.
    options
        Which cluster, and how it is used.
    kubectl
        How it is spoken to.
    """

    def __init__(self, name: str, options: KubernetesOptions, kubectl: Kubectl) -> None:
        self.name, self.options, self.kubectl = name, options, kubectl
        self.slots = options.workers
        self.turns = threading.Semaphore(options.workers)
        self.here = observe()
        self._lock = threading.Lock()
        self._tasks: set[_Task] = set()
        self._closed = False

    def __enter__(self) -> KubernetesTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, step: Step, project: Project, perform: str, on_event: OnEvent | None = None) -> Handle:
        """Have a step run in a pod, as soon as a slot is free."""
        task = _Task(self, step, project, perform, on_event)
        with self._lock:
            if self._closed:
                raise MlopsError(f"the target {self.name!r} is closed")
            self._tasks.add(task)
        # A daemon: where this process ends, the pod hears nothing any more, and ends its step.
        threading.Thread(target=task.go, name=f"{self.name} {step.name}", daemon=True).start()
        return task.handle

    def close(self) -> None:
        """End what is under way."""
        with self._lock:
            self._closed = True
            tasks = list(self._tasks)
        for task in tasks:
            if not task.handle.done():
                task.stop()
        for task in tasks:
            task.handle.future.result()

    def forget(self, task: _Task) -> None:
        """Hear that a step has ended."""
        with self._lock:
            self._tasks.discard(task)


class Line:
    """A connection to the program in a pod.

    Parameters
    ----------
    words
        The command whose standard input and output it is.
    environ
        Its variables.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            words, env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,  # likewise
        )  # fmt: skip
        self._said = b""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)

    def ask(self, raw: bytes) -> bytes:
        """Send one frame, and receive one.

        Raises
        ------
        Broken
            It ended, or nothing moves on it.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        size = -1
        parts = bytearray()
        moved = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            view = memoryview(raw)
            while size < 0 or len(parts) < size:
                ready = selector.select(TICK)
                if time.monotonic() > moved + _SILENCE:
                    raise Broken(f"nothing was heard for {_SILENCE:g} s")
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        view = view[self._write(view) :]
                        if not view:
                            selector.unregister(process.stdin)
                        moved = time.monotonic()
                        continue
                    data = os.read(key.fd, 1 << 20)
                    if key.fileobj is process.stderr:
                        self._said = (self._said + data)[-2000:]
                        if not data:
                            selector.unregister(process.stderr)
                        continue
                    if not data:
                        raise Broken(self._last_words())
                    moved = time.monotonic()
                    parts += data
                    if size < 0 and len(parts) >= 4:
                        size = size_of(bytes(parts[:4]))
                        del parts[:4]
        if len(parts) > size:
            raise Broken("it said more than it was asked for")
        return bytes(parts)

    def _write(self, view: memoryview) -> int:
        assert self._process.stdin is not None
        try:
            return os.write(self._process.stdin.fileno(), view[: 1 << 16])
        except BlockingIOError:
            return 0
        except BrokenPipeError as error:
            raise Broken(self._last_words()) from error

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TICK)
        assert self._process.stderr is not None
        with contextlib.suppress(BlockingIOError):
            self._said += self._process.stderr.read() or b""
        return self._said.decode(errors="replace").strip()[-500:] or "the connection ended"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):  # what was not written does not matter any more
                stream.close()


class _Task(Errand):
    """A step on its way through a cluster."""

    def __init__(
        self, target: KubernetesTarget, step: Step, project: Project, perform: str, on_event: OnEvent | None
    ) -> None:  # fmt: skip
        super().__init__(target.options, step, project, perform, on_event)
        self.target = target
        self.job = ""
        self._key = uuid.uuid4().hex
        self._turn = False  # whether it has a slot
        self._began = 0.0  # since when it waits for a pod
        self._looked = self._known = 0.0  # when it looked last, and when it saw something
        self._pod = ""  # the one it speaks to
        self._line: Line | None = None
        self._heard = 0  # how much of what the guest said
        self._past: set[str] = set()  # pods that are done with
        self._differs: dict[str, list[str]] = {}

    # -- a pod comes about -------------------------------------------------------------------------------------------

    def begin(self) -> Outcome | None:
        while not self._turn:
            if self.ended:
                return Outcome(status="interrupted", cause="it was ended before its turn came", attempts=0)
            self._turn = self.target.turns.acquire(timeout=TICK)
        made = jobs.manifest(self.target.options, self.step, self._key)
        # What a server does not know of, it leaves out; that is no reason for it to refuse the rest.
        try:
            self.job = str(made["metadata"]["name"])
            self.target.kubectl.ask("create", "--validate=false", "-f", "-", given=json.dumps(made).encode())
        except Unreachable:
            raise  # it may have been made all the same
        except MlopsError:
            self.job = ""
            raise
        self._began = self._known = time.monotonic()
        return None

    def look(self) -> Outcome | None:
        if time.monotonic() < self._looked + (_OFTEN if self._line is None else _SELDOM):
            return None
        self._looked = time.monotonic()
        try:
            job, pods = self._state()
        except Unreachable:
            if time.monotonic() > self._known + self.target.options.patience or self.overdue():
                raise
            return None
        if self._pod:
            pod = next((one for one in pods if _name(one) == self._pod), None)
            ended = _ended(pod)
            if not ended and not self.overdue():
                return None
            over = _condition(job, "FailureTarget", "Failed")
            if over is not None and over.get("reason") == _LATE:
                return self._job_over(over, pods)
            why = f"{self.called(self._pod)} {ended or 'did not end it in order'}"
            if self.attempt is not None:
                return self.attempt_lost(why)
            self.leave(self._pod)
            self.note(why)
        if job is None:
            return self.lost("its Job was deleted")
        for pod in pods:
            if _name(pod) not in self._past and _runs(pod):
                return self._meet(_name(pod))
        over = _condition(job, "Failed", "Complete")
        if over is not None:
            return self._job_over(over, pods)
        return self._still_waits([pod for pod in pods if _name(pod) not in self._past])

    def _state(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """The Job and its pods, as the cluster has them."""
        found = json.loads(self.target.kubectl.ask("get", "jobs,pods", "-l", f"{KEY}={self._key}", "-o", "json"))
        self._known = time.monotonic()
        by_kind: dict[str, list[dict[str, Any]]] = {"Job": [], "Pod": []}
        for one in found["items"]:
            by_kind.setdefault(one["kind"], []).append(one)
        return next(iter(by_kind["Job"]), None), sorted(
            by_kind["Pod"], key=lambda one: str(one["metadata"].get("creationTimestamp"))
        )

    def _meet(self, pod: str) -> Outcome | None:
        """Give a pod its order; it says hello then."""
        self._pod, self._heard = pod, 0
        try:
            there = self.talk(Asked(what="order", given=[encode(self.order()), pod]))
        except Unreachable as error:
            self.leave(pod)
            self.note(str(error))
            return None  # another one may come
        self._differs[pod] = differences(self.target.here, decode(there, Environment))
        return None

    def _job_over(self, condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Outcome:
        reason, message = str(condition.get("reason", "")), str(condition.get("message", ""))
        if condition["type"] == "Complete":
            return self.lost("its Job ended without a word")
        why = f"its Job failed: {reason}: {message}".strip(": ")
        if pods:
            why += f"; its pod {_ended(pods[-1])}{self._last_words(_name(pods[-1]))}"
        outcome = self.lost(why)
        if reason == _LATE and outcome.status == "lost":
            return msgspec.structs.replace(outcome, status="failed", error=f"it ran out of time: {outcome.cause}")
        return outcome

    def _last_words(self, pod: str) -> str:
        """What a pod printed last, as the end of a sentence; nothing where that can not be told."""
        try:
            said = self.target.kubectl.ask("logs", pod, "-c", CONTAINER, "--tail=5").decode(errors="replace").strip()
        except MlopsError:
            return ""
        return f"; its last words: {said[-1000:]}" if said else ""

    def _still_waits(self, pods: Sequence[Mapping[str, Any]]) -> Outcome | None:
        """Give up on a pod that will not come, or does not."""
        for pod in pods:
            for status in pod.get("status", {}).get("containerStatuses", ()):
                waits = status.get("state", {}).get("waiting", {})
                if waits.get("reason") in _WAITS:
                    cause = f"{self.called(_name(pod))} can not run: {waits['reason']}: {waits.get('message', '')}"
                    return Outcome(status="refused", cause=self.redacted(cause), attempts=max(1, self.attempts))
        # Between two attempts it is Kubernetes that waits, longer each time.
        wait = self.target.options.wait + (360.0 if self.attempts else 0.0)
        if time.monotonic() < self._began + wait:
            return None
        why = [
            str(one.get("message") or one.get("reason", ""))
            for pod in pods
            for one in pod.get("status", {}).get("conditions", ())
            if one.get("type") == "PodScheduled" and one.get("status") == "False"
        ]
        return self.lost(": ".join([f"no pod ran for {wait:g} s", *why[-1:]]))

    # -- it is spoken to ---------------------------------------------------------------------------------------------

    def listen(self) -> Mapping[str, Any] | None:
        if not self._pod or not self.inbox.empty():
            return super().listen()
        try:
            for one in self.talk(Asked(what="listen", given=[self._heard, TICK])):
                self._heard += 1
                self.inbox.put({"worker": self._pod, **one})
        except Unreachable as error:
            self.note(str(error))
            self._looked = 0.0
        return None if self.inbox.empty() else self.inbox.get()

    def ask(self, where: str, visit: str, what: str, *given: Any) -> Any:
        if where != self._pod:
            raise Unreachable(f"{self.called(where)} is gone")
        return self.talk(Asked(what=what, visit=visit, given=list(given)))

    def talk(self, asked: Asked) -> Any:
        """Ask the pod, over another connection where one breaks, for as long as the pod is there to be asked.

        Raises
        ------
        Unreachable
            It is not, or does not answer.
        MlopsError
            It can not do what it is asked.
        """
        raw, ends = frame(asked), time.monotonic() + self.target.options.patience
        while True:
            try:
                if self._line is None:
                    words = self.target.kubectl.line(
                        "exec", "-i", self._pod, "-c", CONTAINER, "--", *jobs.talk(self.target.options)
                    )
                    self._line = Line(words, self.target.kubectl.environ)
                said = msgspec.msgpack.decode(self._line.ask(raw))
                break
            except (OSError, msgspec.MsgspecError) as error:
                self._hang_up()
                ended = self._pod_ended()
                if ended or time.monotonic() > ends or self.overdue():
                    why = f"{self.called(self._pod)} {ended or 'does not answer'}"
                    raise Unreachable(why, cause=str(error)) from error
                time.sleep(_OFTEN)
        if "gone" in said:
            raise Unreachable(f"{self.called(self._pod)} has given the step up")
        if "error" in said:
            raise MlopsError(said["error"])
        return said["answer"]

    def _pod_ended(self) -> str:
        """How the pod that it speaks to ended; empty where it has not, or nobody can tell."""
        try:
            _, pods = self._state()
        except Unreachable:
            return ""
        return _ended(next((one for one in pods if _name(one) == self._pod), None))

    def called(self, where: str) -> str:
        return f"the pod {where}"

    def differs(self, where: str) -> list[str]:
        return self._differs.get(where, [])

    def pass_on(self, attempt: Attempt, event: Event) -> None:
        super().pass_on(attempt, event)
        if event.kind == "started" and event.run:
            try:
                run = f"{PREFIX}run={jobs.run_label(event.run)}"
                self.target.kubectl.ask("label", "job", self.job, run, "--overwrite")
            except MlopsError as error:  # whoever may make Jobs need not be one who may change them
                self.note(f"its Job has no label that names the run: {error}")

    # -- it is over --------------------------------------------------------------------------------------------------

    def leave(self, where: str) -> None:
        self._hang_up()
        self._past.add(where)
        self._pod, self._began = "", time.monotonic()

    def other_environment(self, others: Mapping[str, Sequence[str]]) -> Outcome:
        refused = super().other_environment(others)
        cause = (
            f"the image has not the environment that is here: {refused.cause}. Make one that has "
            '(`mlops env lock` writes what is to be installed), or set environment = "any"'
        )
        return msgspec.structs.replace(refused, cause=cause)

    def let_go(self, outcome: Outcome) -> None:
        try:
            # One that has ended by itself is left for its time, to be looked at.
            if self.job and outcome.status not in ("done", "cached", "failed"):
                self.target.kubectl.ask("delete", "job", self.job, "--ignore-not-found", "--wait=false")
        finally:
            self._hang_up()
            if self._turn:
                self.target.turns.release()
            self.target.forget(self)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _name(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"]["name"])


def _runs(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's container can be spoken to."""
    if "deletionTimestamp" in pod["metadata"]:
        return False
    return any("running" in one.get("state", {}) for one in pod.get("status", {}).get("containerStatuses", ()))


def _ended(pod: Mapping[str, Any] | None) -> str:
    """How a pod ended, as what follows its name in a sentence; empty where it has not."""
    if pod is None:
        return "was deleted"
    status = pod.get("status", {})
    for one in status.get("containerStatuses", ()):
        ended = one.get("state", {}).get("terminated")
        if ended:
            reason = str(ended.get("reason", ""))
            how = f"ended with status {ended.get('exitCode')}"
            return how + (f" ({reason})" if reason not in ("", "Error", "Completed") else "")
    if status.get("phase") in ("Failed", "Succeeded"):
        return f"ended: {status.get('reason') or status['phase']} {status.get('message', '')}".strip()
    return "is being deleted" if "deletionTimestamp" in pod["metadata"] else ""


def _condition(job: Mapping[str, Any] | None, *kinds: str) -> Mapping[str, Any] | None:
    """The first of a Job's conditions that is of one of these kinds, and is true."""
    for one in (job or {}).get("status", {}).get("conditions", ()):
        if one.get("type") in kinds and one.get("status") == "True":
            found: Mapping[str, Any] = one
            return found
    return None


def _open(name: str, project: Project, given: Mapping[str, Any]) -> KubernetesTarget:
    set_ = options(given, KubernetesOptions)
    return KubernetesTarget(name, set_, Kubectl(set_, project.environ))


def _hindrance(project: Project, given: Mapping[str, Any]) -> str:
    options(given, KubernetesOptions)
    if shutil.which("kubectl", path=project.environ.get("PATH")) is None:
        return (
            "kubectl is not on the PATH. Install it (https://kubernetes.io/docs/tasks/tools/) and set it up for the "
            "cluster; `mlops run NOTEBOOK --target NAME --manifest FILE` needs none"
        )
    return "" if os.name == "posix" else "what is sent to a pod needs a POSIX system"


def _manifest(given: Mapping[str, Any], step: Step) -> str:
    import yaml

    text: str = yaml.safe_dump(jobs.manifest(options(given, KubernetesOptions), step), sort_keys=False)
    return text


PROVIDER: Final = Provider(
    "kubernetes", "pods of a Kubernetes cluster, which are sent what a step needs", _open, _hindrance, _manifest
)
