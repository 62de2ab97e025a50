"""A step as a Kubernetes Job: what may be set for it, and the manifest.

A manifest holds nothing of a step but its name: content, parameters and secrets go to the pod when it runs. The pod is
what the strictest of the Pod Security Standards ("restricted") asks for.
"""

from __future__ import annotations

import math
import re
import uuid
from pathlib import PurePosixPath
from typing import Any, ClassVar, Final, Literal

import msgspec

from jupyter_mlops.targets.errands import inside_only
from jupyter_mlops.targets.protocol import Step

CONTAINER: Final = "step"
WORK: Final = "/mlops"
"""Where in a pod files may be put, beside ``/tmp``."""
PREFIX: Final = "jupyter-mlops/"
KEY: Final = PREFIX + "step"
"""The label by which the Job of a step, and its pods, are found."""
GIVEN_UP: Final = 3
"""What a pod ends with that is not to be tried again."""
_GRACE: Final = 45
_OVERTIME: Final = 240.0
"""Seconds beyond a step's own limit after which the cluster ends it."""
_BACKOFF: Final = 360.0
"""Seconds that Kubernetes waits at most before it tries again."""
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_QUANTITY: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[mkMGTPE]|[KMGTPE]i)?")


class KubernetesOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """What can be set for a target of the kind ``kubernetes``.

    Attributes
    ----------
    image
        The image of the pods; it has this package, and what the notebooks import.
    namespace, context
        Where Jobs are made; what `kubectl` is set up for unless given.
    workers
        How many Jobs are under way at a time.
    requests, limits
        Of resources, as in ``{cpu = "2", memory = "4Gi"}``.
    service_account
        The account of the pods. Its token is put into them only where it is given.
    node_selector
        Labels that a node must have.
    secrets
        Names of Secrets in the cluster whose keys are variables of the notebook's process.
    pull_secrets
        Names of Secrets with which the image is pulled.
    labels
        Further labels, as in ``{ticket = "ABC-12"}``; they are put under ``jupyter-mlops/`` unless they name a place.
    user
        The number of the user, and of its group, that a pod runs as; not root.
    python
        The interpreter in the image.
    environment
        ``same``: a pod that has another Python or other versions of packages is not used. ``any``: it is, and the
        differences are told of with each result.
    files
        Patterns of files that every step is sent.
    send_mb
        Megabytes of files that a step is sent at most.
    wait
        Seconds to wait for a pod to run.
    patience
        Seconds for which a pod that hears nothing of the one who asked goes on.
    keep
        Seconds for which a Job that has ended is kept in the cluster, to look at.
    """

    image: str = ""
    namespace: str = ""
    context: str = ""
    workers: int = 4
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    service_account: str = ""
    node_selector: dict[str, str] = {}
    secrets: list[str] = []
    pull_secrets: list[str] = []
    labels: dict[str, str] = {}
    user: int = 1000
    python: str = "python"
    environment: Literal["same", "any"] = "same"
    files: list[str] = []
    send_mb: int = 512
    wait: float = 300.0
    kernels: ClassVar[str] = "cold"
    patience: float = 120.0
    keep: int = 3600

    def __post_init__(self) -> None:
        if not self.image or self.image.startswith("-") or re.search(r"\s", self.image):
            raise ValueError("image is to name an image that has jupyter-mlops and what the notebooks import")
        if not 1 <= self.workers <= 1024:
            raise ValueError("workers is to be from 1 to 1024")
        if self.user < 1:
            raise ValueError("user is to be a number from 1: a pod does not run as root")
        if self.wait < 1 or self.patience < 1 or self.keep < 0:
            raise ValueError("wait and patience are to be at least 1, and keep at least 0")
        for what, names in (
            ("namespace", [self.namespace]), ("service-account", [self.service_account]), ("secrets", self.secrets),
            ("pull-secrets", self.pull_secrets),
        ):  # fmt: skip
            for name in names:
                if name and not (len(name) <= 253 and _DNS.fullmatch(name)):
                    raise ValueError(f"{what}: {name[:80]!r} is no name that Kubernetes gives")
        for amount in (*self.requests.values(), *self.limits.values()):
            if not _QUANTITY.fullmatch(amount):
                raise ValueError(f"{amount[:80]!r} is no amount of a resource, like '500m' or '4Gi'")
        for name, value in (*self.labels.items(), *self.node_selector.items()):
            place, slash, rest = name.rpartition("/")
            fits = _LABEL.fullmatch(rest) and (not slash or (len(place) <= 253 and _DNS.fullmatch(place)))
            if not fits or not (value == "" or _LABEL.fullmatch(value)):
                raise ValueError(
                    f"{name[:80]!r} = {value[:80]!r} is no label: letters, digits, '-', '_', '.', 63 at most"
                )
        inside_only(self.files)


def label(text: str) -> str:
    """A text as the value of a label, as much of it as that can hold.

    >>> label("notebooks/late arrivals.ipynb"), label("…"), len(label("x" * 99))
    ('notebooks-late-arrivals.ipynb', '', 63)
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")


def manifest(options: KubernetesOptions, step: Step, key: str = "") -> dict[str, Any]:
    """The Job of a step.

    Parameters
    ----------
    options
        What is set for the target.
    step
        The step; nothing of it but names, limits and retries is in the Job.
    key
        By what it is found again; a new one unless given.
    """
    key = key or uuid.uuid4().hex
    stem = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(step.notebook).stem.lower())[:30].strip("-") or "notebook"
    labels = {
        "app.kubernetes.io/managed-by": "jupyter-mlops",
        KEY: key,
        PREFIX + "name": label(step.name),
        PREFIX + "notebook": label(step.notebook),
    }
    if step.parent:
        labels[PREFIX + "part-of"] = run_label(step.parent)
    labels |= {name if "/" in name else PREFIX + name: value for name, value in options.labels.items()}
    spec: dict[str, Any] = {
        "backoffLimit": step.retries,
        "completions": 1,
        "parallelism": 1,
        "ttlSecondsAfterFinished": options.keep,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [],  # up to 1.28 it has to be there
                 "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [GIVEN_UP]}},
            ]
        },
        "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(options)},
    }  # fmt: skip
    if step.timeout is not None:
        once = step.timeout + _OVERTIME
        spec["activeDeadlineSeconds"] = math.ceil(options.wait + once + step.retries * (once + _BACKOFF))
    metadata: dict[str, Any] = {"name": f"mlops-{stem}-{key[:12]}", "labels": labels}
    if options.namespace:
        metadata["namespace"] = options.namespace
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def run_label(run: str) -> str:
    """A run as the value of a label: what `mlops show` takes for it."""
    return run.partition(":")[2][:40]


def talk(options: KubernetesOptions) -> list[str]:
    """The command that speaks to what runs in a pod, over standard input and output."""
    return [*_program(options), "talk", WORK]


def _program(options: KubernetesOptions) -> list[str]:
    # -P: what lies about in the folder is not to stand in for modules of ours.
    return [options.python, "-P", "-m", "jupyter_mlops.targets.pod"]


def _pod(options: KubernetesOptions) -> dict[str, Any]:
    resources = {name: dict(one) for name, one in (("requests", options.requests), ("limits", options.limits)) if one}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": options.image,
        "command": [*_program(options), "serve", WORK, f"{options.wait:g}", f"{options.patience:g}"],
        "workingDir": WORK,
        "env": [{"name": "HOME", "value": f"{WORK}/home"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "work", "mountPath": WORK}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    if options.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in options.secrets]
    if resources:
        container["resources"] = resources
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": bool(options.service_account),
        # Variables for each service around would be on record, and other ones each time.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": options.user, "runAsGroup": options.user, "fsGroup": options.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }  # fmt: skip
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    if options.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in options.pull_secrets]
    return pod
