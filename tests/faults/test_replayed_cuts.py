"""What the disk may hold after a power cut on any file system, replayed from the calls that a store really makes.

strace records every call by which a child that uses the store changes files and names. They are replayed into a model
of a file system that promises no more than POSIX does, up to a call drawn at random, and the folder that might then be
found is laid out and opened. This is what is modelled:

- Bytes written since a file's last fsync or fdatasync (or a change of its size by truncation): each write of them may
  be there, absent, or cut at a page of 4096 bytes or, at its end, anywhere; later writes may be there without earlier
  ones, which leaves zeros between.
- Names made, replaced or removed since the last fsync of their folder: each name is as it was after any of its changes
  since then, independently of all other names. So a rename from one folder to another may be seen in both, or, where
  the first name had not been synced, in neither; and a new folder may be missing with everything in it.
- What was synced stays. A sync lasts when its call has returned; one that is cut leaves what it was to sync in doubt.

Not modelled: disks that lie about syncs, bits that flip, and modes of files, which are never lost here. A folder laid
out anew has other inodes, so its index is read anew; `test_power_cut` cuts an index in its place.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from traced import calls, traced

from jupyter_mlops.records import CellEnded, CellStarted, Digest, RunStarted, Transition, digest_of
from jupyter_mlops.store import Store, StoreMissing

pytestmark = pytest.mark.needs("strace")

CHANGING = "openat,mkdir,write,pwrite64,ftruncate,rename,link,unlink,fsync,fdatasync"
PAGE = 4096


# -- the store at work -----------------------------------------------------------------------------------------------


def work(folder: Path, say: int) -> None:
    """Make a store and use it, saying what is durable as soon as the store has said so."""
    with Store.create(folder) as store:
        for number in range(6):
            kept = store.put(random.randbytes(random.choice((10, 5000, 60_000))))
            run = store.append(RunStarted(trigger="session"), wait=30)
            cell = store.append(CellStarted(run=run, source="x" * random.randrange(9000)), wait=30)
            ended = store.append(CellEnded(cell_run=cell, status="done"), wait=30)
            names = f"object {kept}\nline {run}\nline {cell}\nline {ended}\n"
            if number % 3 == 0 and store.durable(timeout=30):
                os.write(say, names.encode())
            elif number % 3 == 1:
                taken, digest = store.move("models/m@best", Transition(ref="models/m@best", new=cell))
                os.write(say, f"{names}move models/m@best {taken} {digest}\n".encode())
            store.cell_runs(limit=1)


def keep(folder: Path, say: int) -> None:
    """A store is made, an object of it is damaged, found and set aside, and the index is built anew."""
    work(folder, say)
    with Store.open(folder) as store:
        for number in range(3):
            place = store._objects.place(store.put(random.randbytes(6000), durable=True))
            bad = random.randbytes(6000)
            fd = os.open(place, os.O_WRONLY)
            os.pwrite(fd, bad, 0)
            os.fsync(fd)
            os.close(fd)
            os.write(say, f"damaged {digest_of(bad)}\n".encode())
            if number % 2:
                store.reindex()
            store.repair()


# -- the model -------------------------------------------------------------------------------------------------------


class File:
    """The bytes that last, and the writes that may not: where, and what; or a new size."""

    def __init__(self) -> None:
        self.lasting = bytearray()
        self.doubtful: list[tuple[int, bytes | None]] = []
        self.size = 0

    def write(self, at: int, data: bytes) -> None:
        self.doubtful.append((at, data))
        self.size = max(self.size, at + len(data))

    def truncate(self, size: int) -> None:
        self.doubtful.append((size, None))
        self.size = size

    def sync(self) -> None:
        for change in self.doubtful:
            _apply(self.lasting, *change)
        self.doubtful = []

    def found(self, chance: random.Random, fate: str) -> bytes:
        data = bytearray(self.lasting)
        for at, piece in self.doubtful:
            if piece is None or fate == "kept":
                if fate == "kept" or chance.random() < 0.5:
                    _apply(data, at, piece)
            elif fate == "mixed":
                match chance.randrange(3):
                    case 0:
                        _apply(data, at, piece)
                    case 1:
                        cut = chance.randrange(len(piece) + 1)
                        if cut > PAGE:
                            cut = max(0, (at + cut) // PAGE * PAGE - at)
                        _apply(data, at, piece[:cut])
        return bytes(data)


def _apply(data: bytearray, at: int, piece: bytes | None) -> None:
    if piece is None:
        del data[at:]
        data.extend(bytes(at - len(data)))
    elif piece:
        data.extend(bytes(max(0, at - len(data))))
        data[at : at + len(piece)] = piece


class Folder:
    """The names that last, and how each has changed since."""

    def __init__(self) -> None:
        self.lasting: dict[str, File | Folder] = {}
        self.doubtful: list[tuple[str, File | Folder | None]] = []

    @property
    def now(self) -> dict[str, File | Folder]:
        return self._after(self.doubtful)

    def _after(self, changes: list[tuple[str, File | Folder | None]]) -> dict[str, File | Folder]:
        names = dict(self.lasting)
        for name, thing in changes:
            if thing is None:
                names.pop(name, None)
            else:
                names[name] = thing
        return names

    def change(self, name: str, thing: File | Folder | None) -> None:
        self.doubtful.append((name, thing))

    def sync(self) -> None:
        self.lasting, self.doubtful = self.now, []

    def lay_out(self, place: Path, chance: random.Random, fate: str) -> None:
        """Make the folder that might be found."""
        kept: list[tuple[str, File | Folder | None]] = []
        for name in {name for name, _ in self.doubtful}:
            changes = [one for one in self.doubtful if one[0] == name]
            count = {"kept": len(changes), "lost": 0}.get(fate)
            kept += changes[: chance.randrange(len(changes) + 1) if count is None else count]
        place.mkdir()
        for name, thing in self._after(kept).items():
            if isinstance(thing, Folder):
                thing.lay_out(place / name, chance, fate)
            else:
                (place / name).write_bytes(thing.found(chance, fate))


class Machine:
    """The folder below a root as the calls have made it so far."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, Folder()

    def at(self, path: PurePath) -> File | Folder | None:
        thing: File | Folder | None = self.top
        for part in path.relative_to(self.root).parts:
            thing = thing.now.get(part) if isinstance(thing, Folder) else None
        return thing

    def folder(self, path: PurePath) -> Folder:
        found = self.at(path.parent)
        assert isinstance(found, Folder), path
        return found

    def file(self, path: PurePath) -> File:
        found = self.at(path)
        assert isinstance(found, File), path
        return found

    def run(self, name: str, words: list[str], rest: str) -> None:
        """Do as a call did: the texts among its arguments, and the rest of them."""
        ours = [f"{word}/".startswith(f"{self.root}/") and not word.endswith("(deleted)") for word in words]
        if not ours or not ours[0]:
            return
        paths = [PurePath(word) for word, own in zip(words, ours, strict=True) if own]
        match name:
            case "openat":
                if self.at(paths[0]) is None and "O_CREAT" in rest:
                    self.folder(paths[0]).change(paths[0].name, File())
                if "O_TRUNC" in rest and self.file(paths[0]).size:
                    self.file(paths[0]).truncate(0)
            case "mkdir":
                self.folder(paths[0]).change(paths[0].name, Folder())
            case "write":  # the store writes new files, and at the end of journals
                file = self.file(paths[0])
                file.write(file.size, words[1].encode("latin-1"))
            case "pwrite64":
                self.file(paths[0]).write(int(rest.rpartition(",")[2]), words[1].encode("latin-1"))
            case "ftruncate":
                self.file(paths[0]).truncate(int(rest.rpartition(",")[2]))
            case "link":
                self.folder(paths[1]).change(paths[1].name, self.at(paths[0]))
            case "rename":
                self.folder(paths[1]).change(paths[1].name, self.at(paths[0]))
                self.folder(paths[0]).change(paths[0].name, None)
            case "unlink":
                self.folder(paths[0]).change(paths[0].name, None)
            case "fsync" | "fdatasync":
                thing = self.at(paths[0])
                assert thing is not None, paths[0]
                thing.sync()


_TEXT = re.compile(r"[\"<]((?:\\x[0-9a-f]{2})*)[\">]")


def recorded(log: Path) -> Iterator[tuple[str, list[str], str]]:
    for _, name, arguments, result in calls(log):
        if not result.startswith("-"):
            words = [bytes.fromhex(one.replace("\\x", "")).decode("latin-1") for one in _TEXT.findall(arguments)]
            if name in ("write", "pwrite64"):
                assert len(words[1]) == int(result)
            yield name, words if name != "openat" else words[1:], _TEXT.sub("", arguments)


# -- cuts ------------------------------------------------------------------------------------------------------------


def check(folder: Path, said: list[list[str]]) -> None:
    try:
        store = Store.open(folder)
    except StoreMissing:
        assert said == []
        store = Store.create(folder)  # cut while it was made: made now
    with store:
        counted = store.counts()
        objects = {words[1] for words in said if words[0] == "object"}
        for words in said:
            match words:
                case ["object", name]:
                    store.get(Digest(name))
                case ["line", name]:
                    store.line(Digest(name))
                case ["move", ref, number, digest]:
                    assert store.moves(ref)[int(number) - 1].digest == digest
        # Whatever else there is is whole, or named as damage; and none of it was promised.
        bad = {problem.where for problem in store.fsck() if problem.severity == "damage"}
        assert not {f"objects/{name[7:9]}/{name[9:]}" for name in objects} & bad
        for digest in store.objects():
            if f"objects/{digest[7:9]}/{digest[9:]}" not in bad:
                assert digest_of(store.get(digest)) == digest
        assert sum(counted.values()) == store.reindex()
        assert store.counts() == counted
        store.repair()
        assert not [one for one in store.fsck() if one.where.startswith("objects/")]
        everything = [path for path in folder.rglob("*") if path.is_file() and "index" not in path.name]
        there = {digest_of(path.read_bytes()) for path in everything}
        assert {words[1] for words in said if words[0] == "damaged"} <= there  # set aside, not deleted
        run = store.append(RunStarted(trigger="session"), wait=30)
        store.move("models/m@best", Transition(ref="models/m@best", new=run))


def cuts(tmp_path: Path, act: str, times: int, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "real"
    root.mkdir()
    status, heard = traced(
        lambda say: {"work": work, "keep": keep}[act](root / ".mlops", say), tmp_path / "log",
        "-y", "-xx", "-s", str(2**20), "-e", f"trace={CHANGING}",
    )  # fmt: skip
    assert status == 0
    assert "move" in heard
    happened = list(recorded(tmp_path / "log"))
    for number in range(times):
        at = chance.randrange(len(happened) + 1)
        machine, said = Machine(root), []
        for name, words, rest in happened[:at]:
            machine.run(name, words, rest)
            if name == "write" and words[0].startswith("pipe:"):
                said += [line.split() for line in words[1].splitlines()]
        fate = ("mixed", "lost", "mixed", "kept")[number % 4]
        found = tmp_path / f"found-{number}"
        machine.top.lay_out(found, chance, fate)
        try:
            check(found / ".mlops", said)
        except BaseException as error:
            error.add_note(f"cut {number} of seed {seed}, after call {at} of {len(happened)}, unsynced {fate}: {found}")
            raise
        shutil.rmtree(found)


@pytest.mark.parametrize("act", ["work", "keep"])
def test_what_was_durable_is_there_whatever_a_cut_leaves_of_the_rest(tmp_path: Path, act: str) -> None:
    cuts(tmp_path, act, 40, random.randrange(2**32))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("act", ["work", "keep"])
def test_what_was_durable_is_there_after_a_thousand_cuts(tmp_path: Path, act: str) -> None:
    cuts(tmp_path, act, 1000, random.randrange(2**32))


def test_the_model_undisturbed_is_the_folder_as_it_is(tmp_path: Path) -> None:
    """What the model would find if nothing were lost is, byte for byte, what the store has left."""
    root = tmp_path / "real"
    root.mkdir()
    status, _ = traced(
        lambda say: keep(root / ".mlops", say), tmp_path / "log",
        "-y", "-xx", "-s", str(2**20), "-e", f"trace={CHANGING}",
    )  # fmt: skip
    assert status == 0
    machine = Machine(root)
    for call in recorded(tmp_path / "log"):
        machine.run(*call)
    machine.top.lay_out(tmp_path / "found", random.Random(0), "kept")
    real, found = (
        {path.relative_to(place): path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}
        for place in (root, tmp_path / "found")
    )
    assert found == real
