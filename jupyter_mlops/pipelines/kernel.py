"""The life of a run's kernel: that there is one of its name, and that it ends with the run, whatever ends that."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Final

from jupyter_mlops.errors import MlopsError

_log = logging.getLogger("jupyter_mlops")


class KernelMissing(MlopsError, LookupError):
    """The notebook's kernel is not installed here."""

    exit_code = 2


class KernelFailed(MlopsError, RuntimeError):
    """The kernel did not start."""


def require_kernel(name: str, kernels: Path | None = None) -> None:
    """See that a kernel of that name is installed.

    Raises
    ------
    KernelMissing
        It is not; the message lists those that are.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    specs = KernelSpecManager() if kernels is None else KernelSpecManager(kernel_dirs=[str(kernels)])
    try:
        specs.get_kernel_spec(name)
    except NoSuchKernel as error:
        known = ", ".join(sorted(specs.find_kernel_specs())) or "none"
        raise KernelMissing(
            f"there is no kernel {name!r} here",
            cause=f"installed are: {known}",
            next="choose one with -k, or install it: python -m ipykernel install --user --name NAME",
        ) from error


class Guard:
    """A process that outlives this one just long enough to kill the kernel's process group.

    It is outside of the run's process group, and waits for a line on a pipe of ours: the line means that all is well,
    the pipe's end, by whatever death, that we are gone. (An ipykernel deep in C code does not notice by itself.)
    """

    SCRIPT: Final = 'read -r line && exit 0; kill -s KILL -- "-$1"'

    def __init__(self, group: int | None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if group is None or os.name != "posix" or group == os.getpgid(0):
            return
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self.SCRIPT, "jupyter-mlops-guard", str(group)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            # An ipykernel also looks for its parent once a second by itself.
            _log.warning("no process stands guard over the kernel: %s", error)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):  # it is gone already
            self._process.communicate(b"over\n")


def kill(group: int | None) -> None:
    """Kill a kernel with all it has started, unless that is our own process group."""
    if group is not None and hasattr(os, "killpg") and group != os.getpgid(0):
        with contextlib.suppress(OSError):  # it is gone already
            os.killpg(group, signal.SIGKILL)
