"""A child that is looked at, and tampered with, through strace: it waits until strace is attached, then acts.

Nothing here knows the store.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def fork(act: Callable[[], object]) -> int:
    """Let a child act, and end; its status is 1 where it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: none of them holds a lock of ours
        child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return child


def traced(act: Callable[[int], object], log: Path, *options: str) -> tuple[int, str]:
    """Let a child act under strace, with a number of a file to say things to: how it ended, and what it said."""
    reading, writing = os.pipe()
    waiting, go = os.pipe()

    def begin() -> None:
        os.close(reading)
        os.close(go)
        os.read(waiting, 1)
        act(writing)

    child = fork(begin)
    os.close(writing)
    os.close(waiting)
    command = ["strace", "-f", "-o", str(log), *options, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        said = tracer.stderr.readline()
        if "attached" not in said:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if "not permitted" in said:
                pytest.skip("strace may not attach to a process here")
            raise AssertionError(said)
        os.close(go)
        heard = b""
        while piece := os.read(reading, 65536):
            heard += piece
        os.close(reading)
        _, status = os.waitpid(child, 0)
        tracer.stderr.read()
    return status, heard.decode()


def calls(log: Path) -> Iterator[tuple[str, str, str, str]]:
    """Each call that returned, in the order of returning: thread, name, arguments as strace writes them, result."""
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith(" <unfinished ...>"):
            begun[thread] = rest.removesuffix(" <unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            rest = begun.pop(thread) + resumed[1]
        if found := re.fullmatch(r"(\w+)\((.*)\)\s+= (-?\w+)(.*)", rest):
            yield thread, found[1], found[2], found[3]
