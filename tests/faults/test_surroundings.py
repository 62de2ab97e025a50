"""What surrounds a store turns on it: file systems without locks, stopped processes, jumping clocks, few open files."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

sys.path.insert(0, str(Path(__file__).parent))
from traced import fork, traced

from jupyter_mlops import index
from jupyter_mlops.journal import JournalUnavailable, is_remote
from jupyter_mlops.project import Project
from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellStarted,
    Digest,
    ModelVersion,
    RunStarted,
    Transition,
    digest_of,
)
from jupyter_mlops.store import Store
from jupyter_mlops.views.start import doctor, status

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / ".mlops") as one:
        yield one


def fill(store: Store, cells: int = 3) -> list[Digest]:
    run = store.append(RunStarted(trigger="session"), wait=30)
    done = []
    for number in range(cells):
        done.append(store.append(CellStarted(run=run, source=f"x = {number}"), wait=30))
        store.append(CellEnded(cell_run=done[-1], status="done"), wait=30)
    return done


# -- file systems ----------------------------------------------------------------------------------------------------


class Bound:
    """A folder seen through FUSE, and the daemon that shows it."""

    def __init__(self, folder: Path) -> None:
        self.real, self.path = folder / "real", folder / "seen"
        self.real.mkdir()
        self.path.mkdir()
        self.mount()

    def mount(self) -> None:
        self.daemon = subprocess.Popen(
            ["bindfs", "-f", self.real, self.path], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        while not os.path.ismount(self.path):
            if self.daemon.poll() is not None:
                assert self.daemon.stderr
                pytest.skip(f"needs the right to mount by FUSE: {self.daemon.stderr.read().strip()}")

    def die(self) -> None:
        self.daemon.kill()
        self.daemon.wait()
        assert self.daemon.stderr
        self.daemon.stderr.close()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=False, stderr=subprocess.DEVNULL)
        self.die()


@pytest.fixture
def bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bound]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    one = Bound(tmp_path)
    try:
        yield one
    finally:
        one.unmount()


def words(folder: Path) -> str:
    project = Project(folder)
    try:
        return f"{status(project, None).text(columns=999)}\n{doctor(project).text(columns=999)}"
    finally:
        project.store.close()


@pytest.mark.needs("bindfs")
def test_on_a_fuse_file_system_the_index_goes_to_the_users_folder_and_records_are_safe(
    bound: Bound, tmp_path: Path
) -> None:
    folder = bound.path / ".mlops"
    with Store.create(folder) as store:
        assert is_remote(folder)
        kept = fill(store)
        thing = store.put(b"bytes")
        store.move("models/m", Transition(ref="models/m", new=kept[0]))
        assert [one.id for one in store.cell_runs(newest_first=False)] == kept
        assert store.durable(timeout=30)
        assert store.runs()[0].status == "running"
        place = store.index_folder
        assert place is not None
        assert place.is_relative_to(tmp_path / "state")
        assert (place / "index.sqlite").exists()
    assert not list(folder.glob("index.*"))
    said = words(bound.path)
    assert f"in {place}: the store's folder is read-only, without locks, or on a network file system" in said
    with Store.open(bound.real / ".mlops") as other:  # the same files, without FUSE
        assert {one.id for one in other.cell_runs()} == set(kept)
        assert other.get(thing) == b"bytes"
        assert [one for one in other.fsck() if one.severity == "damage"] == []


@pytest.mark.needs("bindfs")
def test_a_file_system_that_stops_or_dies_under_a_writer_costs_a_bounded_wait_and_nothing_acknowledged(
    bound: Bound,
) -> None:
    with Store.create(bound.path / ".mlops") as store:
        kept = fill(store)
        bound.daemon.send_signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                with pytest.raises(JournalUnavailable, match=r"did not answer|has not answered"):
                    store.append(RunStarted(trigger="session"), wait=0.05)
        finally:
            bound.daemon.send_signal(signal.SIGCONT)
        kept += fill(store)
        bound.die()
        with pytest.raises(JournalUnavailable):
            store.append(RunStarted(trigger="session"), wait=5)
        subprocess.run(["umount", "-l", bound.path], check=True)
        bound.mount()
    with Store.open(bound.path / ".mlops") as other:
        assert [one.id for one in other.cell_runs(newest_first=False)] == kept
        assert [one for one in other.fsck() if one.severity == "damage"] == []


@pytest.mark.needs("strace")
def test_a_file_system_without_locks_keeps_records_and_an_index_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def act(say: int) -> None:
        with Store.create(tmp_path / ".mlops") as store:
            kept = fill(store)
            store.move("models/m", Transition(ref="models/m", new=kept[0]))
            assert [one.id for one in store.cell_runs(newest_first=False)] == kept
            assert store.index_folder is None
            assert store.durable(timeout=30)
            os.write(say, "\n".join([*kept, words(tmp_path)]).encode())

    ended, said = traced(act, tmp_path / "log", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK")
    assert ended == 0, said
    assert "ENOLCK" in (tmp_path / "log").read_text()
    assert "in memory, built anew by each process" in said
    with Store.open(tmp_path / ".mlops") as store:
        assert [one.id for one in store.cell_runs(newest_first=False)] == said.split()[:3]
        assert [one for one in store.fsck() if one.severity == "damage"] == []


# -- processes that stop ---------------------------------------------------------------------------------------------

HOLDER = """
import fcntl, sys
from pathlib import Path
from jupyter_mlops.records import CellEnded, CellStarted, RunStarted
from jupyter_mlops.store import Store

store = Store.open(Path(sys.argv[1]))
run = store.append(RunStarted(trigger="session"), wait=30)
store.runs()
with store._index._locked(fcntl.LOCK_EX):
    print(run, flush=True)
    sys.stdin.readline()
cell = store.append(CellStarted(run=run), wait=30)
store.append(CellEnded(cell_run=cell, status="done"), wait=30)
assert [one.id for one in store.cell_runs(run=run)] == [cell]
print(cell, flush=True)
"""


class Stopped:
    """A process that writes a journal, holds the index's lock, and is stopped."""

    def __init__(self, store: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.run = Digest(self.process.stdout.readline().strip())
        assert self.run
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> str:
        self.process.send_signal(signal.SIGCONT)
        said, _ = self.process.communicate("\n")
        assert self.process.returncode == 0
        return said.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def stopped(store: Store) -> Iterator[Stopped]:
    one = Stopped(store.path)
    try:
        yield one
    finally:
        one.kill()


def test_beside_a_stopped_holder_of_the_index_others_append_move_refs_and_read(
    store: Store, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = fill(store)
    store.put(b"bytes", durable=True)
    store.move("models/m", Transition(ref="models/m", new=kept[0]))
    assert store.head("models/m") == kept[0]
    with monkeypatch.context() as patch:
        patch.setattr(index, "_PATIENCE", 0.2)  # after this wait, an index of one's own in memory answers
        assert [one.id for one in store.cell_runs(newest_first=False)] == kept
        assert store.run(stopped.run).status == "running"
        assert store.fsck() == []
    cell = stopped.go_on()
    with Store.open(store.path) as other:
        assert {one.id for one in other.cell_runs()} == {*kept, cell}
        assert other.index_folder == store.path
        assert other.run(stopped.run).status == "interrupted"
        assert [one for one in other.fsck() if one.severity == "damage"] == []


def test_a_lock_whose_holder_died_is_no_lock(store: Store, stopped: Stopped) -> None:
    (store.path / "index.lock").write_text("12345 another-host\n")
    stopped.kill()
    kept = fill(store)
    assert {one.id for one in store.cell_runs()} == set(kept)
    assert store.index_folder == store.path
    assert store.run(stopped.run).status == "interrupted"


def test_a_cell_is_not_held_up_by_another_process_that_stopped(project_folder: Path) -> None:
    stopped = Stopped(project_folder / ".mlops")
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    manager.start_kernel(cwd=str(project_folder), env={**os.environ, "PYTHONPATH": path})
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        for source in ("%load_ext jupyter_mlops", "xs = [1] * 1000", "open('f', 'w').write(str(sum(xs)));"):
            reply = client.execute_interactive(source, timeout=60, store_history=True)
            assert reply["content"]["status"] == "ok"
        assert stopped.process.poll() is None
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        stopped.kill()
    with Store.open(project_folder / ".mlops") as store:
        cells = store.cell_runs(newest_first=False)
        assert [cell.source.split(" ")[0] for cell in cells[-2:]] == ["xs", "open('f',"]
        # The index's lock is never waited for in a cell: its holder was stopped all the while.
        assert all(cell.ended and cell.ended.overhead < index._PATIENCE / 2 for cell in cells[-2:])


# -- clocks ----------------------------------------------------------------------------------------------------------

JUMPS = """
import os, sys
from pathlib import Path
from jupyter_mlops.records import CellEnded, CellStarted, RunStarted, Transition
from jupyter_mlops.store import Store

clock = Path(os.environ["FAKETIME_TIMESTAMP_FILE"])
store = Store.open(Path(sys.argv[1]))
run = store.append(RunStarted(trigger="session"), wait=30)
store.put(b"kept before")
for number, now in enumerate(("+0", "+1y", "-1y", "@1970-01-01 00:00:05", "+0")):
    clock.write_text(now)
    kept = store.put(b"kept %d" % number)
    cell = store.append(CellStarted(run=run, source=f"x = {number}"), wait=30)
    store.append(CellEnded(cell_run=cell, status="done"), wait=30)
    store.move("models/m", Transition(ref="models/m", new=cell))
    assert store.durable(timeout=30)
    assert store.cell_run(cell).status == "done"
    assert len(store.cell_runs()) == number + 1
    print(cell, flush=True)
store.close()
"""


def faked(folder: Path, now: str, *command: object) -> str:
    """Run a command whose clock shows another time. (What measures durations goes on, as when a real clock is set.)"""
    clock = folder / "clock"
    clock.write_text(now)
    environment = {
        **os.environ, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", "LD_PRELOAD": preload(),
    }  # fmt: skip
    done = subprocess.run(list(map(str, command)), env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def preload() -> str:
    """The library that `faketime` puts before others, as it itself says."""
    found = subprocess.run(
        ["faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"], check=True, capture_output=True, text=True
    ).stdout
    return found.strip()


@pytest.mark.needs("faketime")
def test_a_clock_that_jumps_changes_no_order_and_deletes_nothing(store: Store, tmp_path: Path) -> None:
    kept = faked(tmp_path, "+0", sys.executable, "-c", JUMPS, store.path).split()
    assert len(kept) == 5
    cells = [store.line(Digest(name)).envelope for name in kept]
    assert len({one.time[:4] for one in cells}) == 4
    assert "1970" in {one.time[:4] for one in cells}
    assert len({one.writer for one in cells}) == 1
    assert sorted(one.seq for one in cells) == [one.seq for one in cells]
    moves = store.moves("models/m")
    assert [move.transition.new for move in moves] == kept
    assert store.head("models/m") == kept[-1]
    assert store.fsck() == []
    assert len(list(store.objects())) == 6
    # The listing is by what the clock said, and has each cell once.
    assert [one.id for one in store.cell_runs(newest_first=False)] == [
        name for _, name in sorted(zip([one.time for one in cells], kept, strict=True), key=lambda pair: pair[0])
    ]


@pytest.mark.needs("faketime")
@pytest.mark.parametrize("now", ["-1y", "+1y", "@1970-01-01 00:00:05"])
def test_a_store_is_read_kept_and_believed_under_any_clock(store: Store, tmp_path: Path, now: str) -> None:
    kept = fill(store)
    store.put(b"bytes", durable=True)
    half = store.path / "tmp" / Path(store._objects.temporary()).name
    half.write_bytes(b"being written by a process that lives")
    store.cell_runs()
    before = {path for path in store.path.rglob("*") if "index" not in path.name}
    mlops = [sys.executable, "-m", "jupyter_mlops"]
    for verb in (["status"], ["log", "--json"], ["fsck"], ["repair"], ["reindex"]):
        said = faked(tmp_path, now, *mlops, *verb)
        if verb[0] == "log":
            assert all(name in said for name in kept)
    assert {path for path in store.path.rglob("*") if "index" not in path.name} == before
    assert {one.id for one in store.cell_runs()} == set(kept)


# -- few files, other programs ---------------------------------------------------------------------------------------


def test_sixteen_open_files_are_enough_to_write_and_to_read_many_journals(store: Store) -> None:
    kept = []
    for _ in range(40):
        kept += fill(store, 1)
        store.close()

    def act() -> None:
        # A process of its own, with what every process has, and a few more.
        os.closerange(3, 256)
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        with Store.open(store.path) as other:
            assert {one.id for one in other.cell_runs()} == set(kept)
            (mine,) = fill(other, 1)
            thing = other.put(b"bytes", durable=True)
            other.move("models/m", Transition(ref="models/m", new=mine))
            assert other.get(thing) == b"bytes"
            assert {one.id for one in other.cell_runs()} == {*kept, mine}
            assert [one for one in other.fsck() if one.severity == "damage"] == []

    assert os.waitpid(fork(act), 0)[1] == 0


def test_an_index_made_while_files_were_short_hides_nothing_later(store: Store) -> None:
    kept = fill(store)
    store.close()
    (store.path / "index.sqlite").unlink(missing_ok=True)
    with Store.open(store.path) as other:
        other.runs(limit=1)  # what it needs open is open
        more = fill(store)
        store.close()  # from here on nothing opens or closes a file in the background
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, hard))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            # Refused where there is none left at all, whole from three: never an answer from half of the files.
            with pytest.raises(OSError, match="Too many open files"):
                other.cell_runs()
            for _ in range(3):
                os.close(taken.pop())
            assert {one.id for one in other.cell_runs()} == {*kept, *more}
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open("/dev/null", os.O_RDONLY))
            with pytest.raises(OSError, match="Too many open files"):
                Store.open(store.path)
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert {one.id for one in other.cell_runs()} == {*kept, *more}
    with Store.open(store.path) as another:
        assert {one.id for one in another.cell_runs()} == {*kept, *more}


def test_a_process_that_reads_and_packs_its_own_store_loses_nothing(store: Store, tmp_path: Path) -> None:
    """Closing any of its descriptors of a file drops a process's POSIX locks on it, SQLite's among them."""
    stop = threading.Event()

    def pack() -> None:
        while not stop.is_set():
            with tarfile.open(tmp_path / "packed.tar", "w") as tar:
                for path in sorted(store.path.rglob("*")):
                    try:
                        digest_of(path.read_bytes())
                        tar.add(path, arcname=path.name)
                    except OSError:
                        pass  # a folder, or gone since

    def ask() -> None:
        with Store.open(store.path) as other:
            while not stop.is_set():
                other.cell_runs(limit=1)

    command = [sys.executable, "-c", OTHERS, store.path]
    threads = [threading.Thread(target=one) for one in (pack, ask)]
    for thread in threads:
        thread.start()
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            kept = []
            for number in range(60):
                kept += fill(store, 1)
                assert kept[-1] in {one.id for one in store.cell_runs(limit=200)}, number
            said, _ = process.communicate()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert process.returncode == 0
    assert {one.id for one in store.cell_runs()} == {*kept, *said.split()}
    counted = store.counts()
    store.reindex()
    assert store.counts() == counted
    assert [one for one in store.fsck() if one.severity == "damage"] == []


OTHERS = """
import sys
from pathlib import Path
from jupyter_mlops.records import CellStarted, RunStarted
from jupyter_mlops.store import Store

with Store.open(Path(sys.argv[1])) as store:
    run = store.append(RunStarted(trigger="session"), wait=30)
    for number in range(60):
        cell = store.append(CellStarted(run=run, source=str(number)), wait=30)
        assert cell in {one.id for one in store.cell_runs(limit=200)}
        print(cell)
"""


def test_two_copies_that_went_on_apart_are_merged_by_union_and_fsck_lists_the_moves_that_disagree(
    store: Store, tmp_path: Path
) -> None:
    def version(one: Store, text: str) -> Digest:
        model = Artifact(name="m", kind="model", digest=one.put(text.encode()), stored=True)
        made = one.append(ModelVersion(name="m", model=model), wait=30)
        one.move("models/m", Transition(ref="models/m", new=made))
        return made

    both = version(store, "both")
    store.close()
    shutil.copytree(store.path, tmp_path / "copy")
    mine = version(store, "mine")
    store.close()
    with Store.open(tmp_path / "copy") as copy:
        theirs = [version(copy, "theirs"), version(copy, "theirs too")]
    for name in ("objects", "journal"):
        shutil.copytree(copy.path / name, store.path / name, dirs_exist_ok=True)
    assert store.fsck() == []
    assert {digest for digest, _, _ in store.records(ModelVersion)} == {both, mine, *theirs}
    assert {store.get(digest) for digest in store.objects()} == {b"both", b"mine", b"theirs", b"theirs too"}
    assert [move.transition.new for move in store.moves("models/m")] == [both, mine]
    # Moves have numbers, and a number is taken once: of those that disagree, ours stays, and the next does not fit.
    subprocess.run(["cp", "-rn", copy.path / "refs", store.path], check=False, stderr=subprocess.DEVNULL)
    assert [move.transition.new for move in store.moves("models/m")] == [both, mine, theirs[1]]
    (problem,) = store.fsck()
    assert (problem.where, problem.severity) == ("refs/models/m/00000003.jsonl", "damage")
    assert "does not follow" in problem.what
