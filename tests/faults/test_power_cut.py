"""The power goes while a store is written: what was said to be durable is there, and nothing torn is taken for whole.

A small ext4 in a file is mounted through a loop device, and shut down in the middle of things by the ioctl that the
kernel's own tests use for it (``EXT4_IOC_SHUTDOWN`` without flushing): from that moment nothing reaches the disk, what
was only in memory is gone, and the next mount replays the file system's journal as after a power cut. It loses what a
real ext4 loses, in the order in which ext4 loses it. It has no disk cache that lies, and it is one file system: what
others may lose besides, `test_replayed_cuts` replays. The writers are killed in the moment before, as the power would:
a sync that overlaps the shutdown may be answered wrongly by the kernel, and no process lives to hear it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from traced import fork

from jupyter_mlops.records import CellEnded, CellStarted, Digest, RunStarted, Transition, digest_of
from jupyter_mlops.store import Store

pytestmark = [pytest.mark.needs("mkfs.ext4"), pytest.mark.needs("losetup")]

SHUTDOWN, WITHOUT_FLUSHING = 0x8004587D, 2


class Disk:
    """A file system of its own, whose power can be cut."""

    def __init__(self, folder: Path, options: str) -> None:
        self.image, self.folder, self.options = folder / "image", folder / "disk", f"loop,{options}"
        self.folder.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(96 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)

    def mount(self) -> None:
        done = subprocess.run(
            ["mount", "-o", self.options, self.image, self.folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"needs the right to mount (root) and loop devices: {done.stderr.strip()}")

    def cut(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=True)


@pytest.fixture(params=["data=ordered", pytest.param("data=writeback", marks=pytest.mark.nightly)])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    one = Disk(tmp_path, request.param)
    one.mount()
    try:
        yield one
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            one.unmount()


Act = Callable[[Store, Callable[[str], None]], None]


def begin(folder: Path, act: Act) -> tuple[int, int]:
    """Let a child act on the store for ever, and hear what it says."""
    reading, writing = os.pipe()

    def for_ever() -> None:
        random.seed(os.getpid())
        with Store.open(folder) as store:
            while True:
                act(store, lambda said: os.write(writing, f"{said}\n".encode()) and None)

    child = fork(for_ever)
    os.close(writing)
    return child, reading


def end(child: int, reading: int) -> list[str]:
    os.waitpid(child, 0)
    heard = b""
    while piece := os.read(reading, 65536):
        heard += piece
    os.close(reading)
    return heard[: heard.rfind(b"\n") + 1].decode().splitlines()


def write(store: Store, say: Callable[[str], None]) -> None:
    """A cell with its object, and then either wait for it to last, or move a ref to it, or neither."""
    kept = store.put(random.randbytes(random.choice((10, 5000, 150_000))))
    run = store.append(RunStarted(trigger="session"), wait=30)
    cell = store.append(CellStarted(run=run, source="x" * random.randrange(3000)), wait=30)
    ended = store.append(CellEnded(cell_run=cell, status="done"), wait=30)
    names = f"object {kept}\nline {run}\nline {cell}\nline {ended}"
    match random.randrange(4):
        case 0:
            if store.durable(timeout=30):
                say(names)
        case 1:
            ref = f"models/m{os.getpid() % 5}"
            number, digest = store.move(ref, Transition(ref=ref, new=cell))
            say(f"{names}\nmove {ref} {number} {digest}")
        case 2:
            store.cell_runs(limit=1)


def keep(store: Store, say: Callable[[str], None]) -> None:
    """What keeping a store consists of: an object is damaged, and set aside; the index is built anew."""
    content = random.randbytes(2000)
    place = store._objects.place(store.put(content, durable=True))
    bad = random.randbytes(2000)
    with open(place, "r+b", buffering=0) as file:
        file.write(bad)
        os.fsync(file.fileno())
    say(f"damaged {place.parent.name}{place.name} {digest_of(bad)}")
    store.repair()
    store.reindex()


class Promises:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[list[str]] = []

    def check(self, new: list[list[str]]) -> None:
        """Read what is new, and look whether all the rest is there."""
        self.said += new
        damaged = {words[1]: words[2] for words in self.said if words[0] == "damaged"}
        objects = {words[1] for words in self.said if words[0] == "object"}
        with Store.open(self.folder) as store:
            counted = store.counts()
            known = {"blake3:" + one for (one,) in store._index.ask("select lower(hex(digest)) from lines")}
            assert {words[1] for words in self.said if words[0] == "line"} <= known
            for words in new:
                match words:
                    case ["object", name]:
                        store.get(Digest(name))
                    case ["line", name]:
                        store.line(Digest(name))
                    case ["move", ref, number, digest]:
                        assert store.moves(ref)[int(number) - 1].digest == digest
            for problem in store.fsck():
                if problem.severity == "damage":  # only of what nobody was promised, and named as what it is
                    assert problem.where.startswith("objects/"), problem
                    assert "blake3:" + problem.where.removeprefix("objects/").replace("/", "") not in objects
            assert sum(counted.values()) == store.reindex()
            assert store.counts() == counted
            store.repair()
            assert [one for one in store.fsck() if one.severity == "damage"] == []
        if damaged:  # nothing is deleted: what was damaged lies in one place or the other
            aside = {digest_of(path.read_bytes()) for path in (self.folder / "quarantine").iterdir()}
            assert set(damaged.values()) <= aside


def cuts(disk: Disk, times: int, *acts: Act) -> Promises:
    folder = disk.folder / ".mlops"
    Store.create(folder).close()
    promises = Promises(folder)
    for _ in range(times):
        children = [begin(folder, act) for act in acts]
        time.sleep(random.uniform(0.01, 0.25))
        for pid, _ in children:
            os.kill(pid, signal.SIGKILL)
        disk.cut()
        new = [line.split() for child in children for line in end(*child)]
        disk.unmount()
        disk.mount()
        promises.check(new)
    promises.check(promises.said[:])
    return promises


def test_what_was_durable_survives_twenty_power_cuts(disk: Disk) -> None:
    promises = cuts(disk, 20, write, write)
    assert {"object", "line", "move"} <= {words[0] for words in promises.said}


def test_power_cuts_while_a_store_is_repaired_and_indexed_lose_nothing(disk: Disk) -> None:
    promises = cuts(disk, 10, write, keep)
    assert {"object", "damaged"} <= {words[0] for words in promises.said}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("life", range(15))
def test_what_was_durable_survives_many_more_power_cuts(disk: Disk, life: int) -> None:
    cuts(disk, 30, write, write, keep)
