"""Processor, memory, GPUs and driver, as the system tells them."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

_PATIENCE: Final = 10.0
"""Seconds that ``nvidia-smi`` may take."""
_MOST: Final = 1 << 16


def first(pattern: str, path: str) -> str:
    """The first group of a pattern in the beginning of one of the system's files; empty where there is none."""
    try:
        with open(path, "rb") as file:
            match = re.search(pattern, file.read(65536).decode("utf-8", "replace"), re.MULTILINE)
        return match[1].strip() if match else ""
    except OSError:
        return ""  # another system than Linux, or hidden in a container


def cpu() -> str:
    """The processor's name."""
    return first(r"^(?:model name|Hardware|cpu model)\s*:\s*(.+)$", "/proc/cpuinfo") or platform.processor()


def memory() -> int:
    """Bytes of memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0  # the system does not say


def cores() -> int:
    """How many processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 0  # macOS has no affinity


def driver() -> tuple[list[str], str]:
    """GPUs and driver as the kernel driver tells them, for nothing."""
    gpus = []
    with contextlib.suppress(OSError):  # no such driver
        for folder in sorted(Path("/proc/driver/nvidia/gpus").iterdir()):
            gpus.append(first(r"^Model:\s*(.+)$", str(folder / "information")))
    return [gpu for gpu in gpus if gpu], first(
        r"(?:Module|Kernel Module)\s+(?:for \S+\s+)?([\d.]+)", "/proc/driver/nvidia/version"
    )


class Answer(msgspec.Struct, frozen=True):
    """What ``nvidia-smi`` says: GPUs by name, the driver's version, and why it says nothing where it does not."""

    gpus: list[str] = []
    driver: str = ""
    why: str = ""


def ask_driver(program: str, *, patience: float = _PATIENCE) -> Answer:
    """Ask ``nvidia-smi``, which may take seconds: not for longer than it has patience, and whatever it answers."""
    for fields in ("name,driver_version,mig.mode.current", "name,driver_version"):
        try:
            code, said = _run([program, f"--query-gpu={fields}", "--format=csv,noheader"], patience)
        except TimeoutError:
            return Answer(why=f"nvidia-smi did not answer within {patience:g} seconds")
        except OSError as error:
            return Answer(why=f"nvidia-smi can not be run: {error.strerror or error}")
        if code != _UNKNOWN_FIELD:
            break  # an old driver does not know the modes of newer GPUs: asked again without
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code == 0 or lines == [_NONE]:
        rows = [row for line in lines if (row := _row(line)) is not None]
        if rows or lines == [_NONE]:
            return Answer(gpus=[row[0] for row in rows], driver=rows[0][1] if rows else "")
        return Answer(why="nvidia-smi gave an answer that can not be read")
    return Answer(why=f"nvidia-smi ended with {code}, without an answer")


_UNKNOWN_FIELD: Final = 2
_NONE: Final = "No devices were found"


def _row(line: str) -> tuple[str, str] | None:
    """A GPU and its driver, of a line of the answer; None for anything else."""
    found = re.fullmatch(r"(?P<name>[^\[\]]{1,200}), (?P<driver>\d[\d.]*)(?:, (?P<mig>Enabled|Disabled|\[.*\]))?", line)
    if found is None or not found["name"].isprintable():
        return None
    return found["name"] + (" (MIG)" if found["mig"] == "Enabled" else ""), found["driver"]


def _run(words: list[str], patience: float) -> tuple[int, str]:
    """Run a program, and give its exit code and the first 64 KiB it prints.

    Raises
    ------
    TimeoutError
        It did not end in time. It and what it started are ended.
    """
    end = time.monotonic() + patience
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process, selectors.DefaultSelector() as selector:  # fmt: skip
        assert process.stdout is not None
        said = b""
        try:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(said) < _MOST:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise TimeoutError
                part = os.read(process.stdout.fileno(), _MOST)
                if not part:
                    return process.wait(max(0.0, end - time.monotonic())), said.decode("utf-8", "replace")
                said += part
        except (TimeoutError, subprocess.TimeoutExpired):
            _end(process)
            raise TimeoutError from None
        _end(process)
        return 0, said.decode("utf-8", "replace")[: _MOST // 2].rpartition("\n")[0]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that goes on, with what it started."""
    with contextlib.suppress(OSError):  # it has just ended
        os.killpg(process.pid, signal.SIGKILL)
