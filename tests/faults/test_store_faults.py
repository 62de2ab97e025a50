"""The store under faults: killed writers, full and failing disks, damage, copies, forks, races."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_mlops import journal
from jupyter_mlops.journal import JournalUnavailable, StoreReplaced, raw_lines
from jupyter_mlops.records import (
    CellEnded,
    CellLogged,
    CellStarted,
    Digest,
    Erased,
    JournalOpened,
    RunStarted,
    Transition,
    digest_of,
    read_line,
)
from jupyter_mlops.store import ObjectDamaged, Problem, RefConflict, Store

HERE = Path(__file__).parent
ROOT = os.geteuid() == 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / ".mlops") as one:
        yield one


def fill(store: Store, cells: int = 5) -> list[Digest]:
    run = store.append(RunStarted(trigger="session"), wait=30)
    done = []
    for number in range(cells):
        cell = store.append(CellStarted(run=run, source=f"x = {number}"), wait=30)
        store.append(CellEnded(cell_run=cell, status="done"), wait=30)
        done.append(cell)
    return done


def damage(problems: list[Problem]) -> list[Problem]:
    return [one for one in problems if one.severity == "damage"]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def only_journal(store: Store) -> Path:
    (path,) = (store.path / "journal").iterdir()
    return path


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "256k") -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# -- death -----------------------------------------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost_when_eight_writers_are_killed_two_hundred_times(store: Store) -> None:
    said = subprocess.run(
        [sys.executable, HERE / "writers.py", store.path, "200"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(said) >= 800
    assert damage(store.fsck()) == []
    store.reindex()
    lines = {digest for (digest,) in store._index.ask("select 'blake3:' || lower(hex(digest)) from lines")}
    objects = set(store.objects())
    assert [one for one in said if one not in lines and one not in objects] == []
    assert len(list((store.path / "journal").iterdir())) == 200
    assert {run.status for run in store.runs()} == {"interrupted"}


def test_what_killed_writers_left_half_written_is_swept_at_the_next_opening(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = Path(store._objects.temporary())
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    for path in (mine, theirs):
        path.write_bytes(b"half")
    Store.open(store.path).close()
    assert mine.exists()
    assert not theirs.exists()


# -- disks -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_openly_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, Store.create(disk / ".mlops") as store:
        kept = fill(store, 3)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        run, refused = store.append(RunStarted(trigger="session")), 0
        for _ in range(200):
            try:
                kept.append(store.append(CellStarted(run=run, source="y" * 500)))
            except JournalUnavailable:
                refused += 1
        with pytest.raises(OSError, match="No space"):
            store.put(random.randbytes(100_000))
        assert refused
        assert list((store.path / "tmp").iterdir()) == []
        ballast.unlink()
        kept += fill(store, 3)
        assert {one.id for one in store.cell_runs()} == set(kept)
        assert damage(store.fsck()) == []
        assert store.durable(timeout=30)


LIMITED = """
import resource, sys
from pathlib import Path
from jupyter_mlops.journal import JournalUnavailable
from jupyter_mlops.records import CellStarted, RunStarted
from jupyter_mlops.store import Store

store = Store.open(Path(sys.argv[1]))
run = store.append(RunStarted(trigger="session"))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for number in range(60):
    print(store.append(CellStarted(run=run, source="z" * 200), wait=30))
"""


def test_a_line_cut_short_makes_a_new_journal_that_names_the_old(store: Store) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, store.path], check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(said) == 60
    assert {one.id for one in store.cell_runs()} == set(said)
    openings = [record for _, _, record in store.records(JournalOpened, newest_first=False)]
    assert len(openings) > 3
    assert all(one.continues and "bytes were written" in one.because for one in openings[1:])
    assert damage(store.fsck()) == []
    assert any("cut short" in one.what for one in store.fsck())


@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("kth", range(1, 9))
def test_an_input_output_error_at_any_write_loses_nothing_acknowledged(
    store: Store, monkeypatch: pytest.MonkeyPatch, kth: int, *, sticky: bool
) -> None:
    count, real = 0, os.write

    def failing(fd: int, data: bytes) -> int:
        nonlocal count
        if threading.current_thread() is threading.main_thread():
            count += 1
            if count == kth or (sticky and count > kth):
                raise OSError(errno.EIO, "Input/output error")
        return real(fd, data)

    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing)
        for number in range(4):
            with contextlib.suppress(OSError):
                kept.append(store.append(RunStarted(trigger="session", notebook=str(number)), wait=30))
            with contextlib.suppress(OSError):
                kept.append(store.put(f"bytes {number}".encode()))
    last = store.append(RunStarted(trigger="shell"), wait=30)
    runs = {run.id for run in store.runs()}
    assert last in runs
    assert [one for one in kept if one not in runs and not store.has(one)] == []
    assert damage(store.fsck()) == []
    assert list((store.path / "tmp").iterdir()) == []


def test_a_sync_that_fails_once_is_never_taken_for_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fill(store, 2)
    assert store.durable(timeout=30)
    failed = []

    def failing(fd: int) -> None:
        if not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)

    monkeypatch.setattr(journal, "fdatasync", failing)
    monkeypatch.setattr(journal, "_copy", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "again")))
    writer = store.writer
    second = fill(store, 2)
    assert not store.durable(timeout=30)
    assert store.pending
    third = fill(store, 2)
    assert store.writer != writer
    monkeypatch.undo()
    assert store.durable(timeout=30)  # saved by a copy that took the file's place
    assert not store.pending
    assert any("could not be synced" in one for one in store.problems)
    assert {one.id for one in store.cell_runs()} == {*first, *second, *third}
    assert {run.status for run in store.runs()} == {"running"}
    assert damage(store.fsck()) == []


def test_a_folder_whose_names_could_not_be_synced_is_never_taken_for_saved(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def failing(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        store.put(b"bytes")
        assert not store.durable(timeout=30)
        run = store.append(RunStarted(trigger="session"), wait=30)
        assert not store.durable(timeout=30)
        with pytest.raises(JournalUnavailable, match="not moved"):
            store.move("models/m", Transition(ref="models/m", new=run))
    assert store.durable(timeout=30)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(JournalUnavailable, match="may stand where it stood"):
            store.move("models/m", Transition(ref="models/m", new=run))
    assert store.move("models/m", Transition(ref="models/m", new=digest_of(b"")), expect=1)[0] == 2
    assert any("could not be synced" in one for one in store.problems)
    assert {one.id for one in store.runs()} == {run}
    assert store.get(digest_of(b"bytes")) == b"bytes"
    assert damage(store.fsck()) == []


def test_a_file_system_that_cannot_sync_folders_is_not_a_failing_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def unable(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", unable)
    run = store.append(RunStarted(trigger="session"), wait=30)
    store.put(b"bytes", durable=True)
    assert store.move("models/m", Transition(ref="models/m", new=run))[0] == 1
    assert store.durable(timeout=30)
    assert store.problems == []


def test_a_read_only_store_can_be_read_and_refuses_openly(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        with Store.create(disk / ".mlops") as store:
            kept, thing = fill(store), store.put(b"bytes")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Store.open(disk / ".mlops") as store:
            assert [one.id for one in store.cell_runs(newest_first=False)] == kept
            assert store.get(thing) == b"bytes"
            assert store.fsck() == []
            with pytest.raises(JournalUnavailable, match="Read-only"):
                store.append(RunStarted(trigger="session"))
            with pytest.raises(OSError, match="Read-only"):
                store.put(b"others")


# -- the folder taken away -------------------------------------------------------------------------------------------


def test_a_store_deleted_while_it_is_open_is_noticed(store: Store) -> None:
    fill(store)
    shutil.rmtree(store.path)
    for _ in range(2):
        with pytest.raises(StoreReplaced, match="deleted, moved or replaced"):
            store.append(RunStarted(trigger="session"))
    with pytest.raises(StoreReplaced):
        store.put(b"x")
    assert not store.path.exists()


def test_a_store_put_in_the_place_of_the_open_one_is_never_written_to(store: Store) -> None:
    fill(store)
    store.path.rename(store.path.with_name("old"))
    other = Store.create(store.path)
    with pytest.raises(StoreReplaced):
        store.append(RunStarted(trigger="session"))
    with pytest.raises(StoreReplaced):
        store.put(b"x")
    assert list(other.objects()) == []
    assert list((other.path / "journal").iterdir()) == []
    other.close()


def test_a_journal_file_taken_away_is_left_for_a_new_one_that_says_so(store: Store) -> None:
    fill(store)
    only_journal(store).unlink()
    kept = fill(store, 2)
    assert {one.id for one in store.cell_runs()} == set(kept)
    (opened,) = (record for _, _, record in store.records(JournalOpened))
    assert opened.because == "its file was removed or replaced"
    assert opened.continues
    assert store.problems


# -- damage ----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_an_object_is_named_quarantined_and_healed_by_the_next_put(store: Store) -> None:
    good, bad = store.put(b"good"), store.put(b"bad bytes")
    path = store.path / "objects" / bad[7:9] / bad[9:]
    flip(path, 3)
    with pytest.raises(ObjectDamaged):
        store.get(bad)
    assert [one.where for one in store.fsck()] == [f"objects/{bad[7:9]}/{bad[9:]}"]
    (repaired,) = store.repair()
    assert "quarantine/" in repaired.what
    assert len(list((store.path / "quarantine").iterdir())) == 1
    assert store.fsck() == []
    assert store.get(good) == b"good"
    assert store.put(b"bad bytes") == bad
    assert store.get(bad) == b"bad bytes"


def test_an_empty_file_under_an_objects_name_is_rewritten_by_the_next_put(store: Store) -> None:
    name = store.put(b"content")
    (store.path / "objects" / name[7:9] / name[9:]).write_bytes(b"")
    assert damage(store.fsck(read_data=False))
    store.put(b"content")
    assert store.get(name) == b"content"
    assert store.get(store.put(b"")) == b""
    assert store.fsck() == []


def test_a_flipped_bit_in_a_journal_is_named_and_hides_only_what_follows(store: Store) -> None:
    kept = fill(store)
    store.close()
    with Store.open(store.path) as other:
        others = fill(other)
        first = min((store.path / "journal").iterdir())
        lines = first.read_bytes().splitlines(keepends=True)
        flip(first, sum(map(len, lines[:6])) + 30)
        (problem,) = damage(other.fsck())
        assert problem.where == f"journal/{first.name}"
        assert "line 7" in problem.what
        other.repair()
        assert {one.id for one in other.cell_runs()} == {*kept[:2], *others}


def test_a_torn_tail_is_a_note_and_hides_nothing(store: Store) -> None:
    kept = fill(store)
    store.close()
    path = only_journal(store)
    path.write_bytes(path.read_bytes()[:-20])
    with Store.open(store.path) as other:
        assert [one.severity for one in other.fsck()] == ["note"]
        assert {one.id for one in other.cell_runs()} == set(kept)


def test_an_index_in_any_state_is_built_anew_without_a_word(store: Store) -> None:
    kept = set(fill(store, 30))
    store.cell_runs()
    store.close()
    place = store.path / "index.sqlite"
    good = place.read_bytes()
    states = [b"", b"not a database", good[: len(good) // 2], good + b"x"]
    for _ in range(60):
        state = bytearray(good)
        state[random.randrange(len(state))] ^= 1 << random.randrange(8)
        states.append(bytes(state))
    for state in states:
        place.write_bytes(state)
        with Store.open(store.path) as other:
            assert [one.where for one in other.fsck()] == ["index.sqlite"]
            assert {one.id for one in other.cell_runs()} == kept
            assert other.fsck() == []
    for name in ("index.sqlite", "index.sum", "index.lock"):
        (store.path / name).unlink()
        with Store.open(store.path) as other:
            assert {one.id for one in other.cell_runs()} == kept


def test_an_index_of_a_later_schema_is_built_anew(store: Store) -> None:
    kept = set(fill(store))
    store.cell_runs()
    store.close()
    path = store.path / "index.sum"
    path.write_text(path.read_text().replace('"schema": ', '"schema": 9'))
    with Store.open(store.path) as other:
        assert {one.id for one in other.cell_runs()} == kept


def test_a_write_to_the_index_under_a_process_that_has_it_open_is_noticed(store: Store) -> None:
    kept = set(fill(store, 30))
    store.cell_runs()
    place = store.path / "index.sqlite"
    for _ in range(20):
        facts, size = place.stat(), place.stat().st_size
        with open(place, "r+b", buffering=0) as file:
            at = random.randrange(4096, size)
            (byte,) = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte ^ 1 << random.randrange(8)]), at)
        os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a tool may, that hides what it did
        assert {one.id for one in store.cell_runs()} == kept
        assert place.stat().st_ino != facts.st_ino or place.stat().st_mtime_ns != facts.st_mtime_ns
        assert store.fsck() == []


def test_a_seal_of_another_run_of_the_machine_or_too_old_is_believed_by_its_digest_only(store: Store) -> None:
    kept = set(fill(store, 5))
    store.cell_runs()
    path, place = store.path / "index.sum", store.path / "index.sqlite"
    open_seal = json.loads(path.read_text())
    store.close()
    seal = json.loads(path.read_text())
    assert seal["digest"]
    if seal["session"]:  # the digest is made when the index is let go of, not at every new line
        assert open_seal["digest"] is None
    inode = place.stat().st_ino
    for stale in ({"session": "another"}, {"since": seal["since"] - 3601}, {"since": seal["since"] + 3600}):
        path.write_text(json.dumps({**seal, **stale}))
        with Store.open(store.path) as other:
            assert {one.id for one in other.cell_runs()} == kept
        assert place.stat().st_ino == inode  # the bytes spoke for it
        path.write_text(json.dumps({**seal, **stale, "digest": None}))
        with Store.open(store.path) as other:
            assert {one.id for one in other.cell_runs()} == kept
        renewed = json.loads(path.read_text())
        assert renewed["stamp"] != seal["stamp"]  # nothing spoke for it: it was built anew
        seal, inode = renewed, place.stat().st_ino


def test_an_index_deleted_by_another_process_is_noticed(store: Store) -> None:
    kept = fill(store)
    store.cell_runs()
    (store.path / "index.sqlite").unlink()
    kept += fill(store)
    assert {one.id for one in store.cell_runs()} == set(kept)


def test_a_field_erased_after_it_was_indexed_is_gone_from_every_answer_and_byte(store: Store) -> None:
    sys.path.insert(0, str(HERE.parent / "data"))
    try:
        from make_store import erase
    finally:
        sys.path.pop(0)
    run = store.append(RunStarted(trigger="session"))
    cell = store.append(CellStarted(run=run, source="password = 'tr0ub4dor'", notebook="tr0ub4dor.ipynb"))
    store.close()
    assert store.cell_run(cell).source
    erase(store.path, cell)
    assert store.cell_run(cell).source == ""
    assert store.line(cell).erased == ("source",)
    assert ["no record says who erased it" in one.what for one in store.fsck()] == [True]
    store.append(Erased(line=cell, fields=["source"], by="ada", reason="a password"))
    assert store.fsck() == []


# -- many at once ----------------------------------------------------------------------------------------------------


def test_a_copy_made_while_writers_write_verifies(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()
    promised: list[Digest] = []

    def write() -> None:
        run = store.append(RunStarted(trigger="session"), wait=30)
        while not stop.is_set():
            promised.append(store.append(CellStarted(run=run, source="x" * 300), wait=30))
            store.put(random.randbytes(5000))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            before = len(promised)
            store.cell_runs(limit=1)
            target = tmp_path / f"copy-{number}"
            # cp complains of temporary files that are gone when it comes to them; what it copied is what counts
            subprocess.run(["cp", "-r", store.path, target], stderr=subprocess.DEVNULL)
            with Store.open(target) as copy:
                assert damage(copy.fsck()) == []
                assert {one.id for one in copy.cell_runs()} >= set(promised[:before])
    finally:
        stop.set()
        for thread in threads:
            thread.join()


FORKS = """
import os, sys, threading
from pathlib import Path
from jupyter_mlops.records import RunStarted
from jupyter_mlops.store import Store

store = Store.open(Path(sys.argv[1]))
stop = threading.Event()

def write():
    while not stop.is_set():
        store.append(RunStarted(trigger="session", user="parent"), wait=30)
        store.put(os.urandom(100))

thread = threading.Thread(target=write)
thread.start()
store.append(RunStarted(trigger="session"), wait=30)
for number in range(100):
    mine = store.writer
    pid = os.fork()
    if pid == 0:
        if number % 2:
            assert store.writer is None
            store.append(RunStarted(trigger="shell", user="child"), wait=30)
            assert store.writer != mine
            store.runs(limit=1)
            store.durable()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.writer == mine
stop.set()
thread.join()
print(store.writer)
store.close()
"""


def test_a_hundred_forks_beside_a_writing_thread_neither_hang_nor_share_a_journal(store: Store) -> None:
    writer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, store.path], check=True, capture_output=True, text=True,
        timeout=120,
    ).stdout.strip()  # fmt: skip
    assert damage(store.fsck()) == []
    # read from the files: the thread wrote as many as it could, too many to ask the index for each
    every = [read_line(raw) for path in (store.path / "journal").iterdir() for _, raw in raw_lines(path)]
    lines = [line for line in every if isinstance(line.record, RunStarted)]
    assert sum(line.record.user == "child" for line in lines) == 50
    assert {line.record.user == "child" for line in lines if line.envelope.writer == writer} == {False}
    assert len({line.envelope.writer for line in lines if line.record.user == "child"}) == 50


def test_a_run_goes_on_while_its_process_lives_though_a_child_outlives_it(store: Store) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom jupyter_mlops.records import RunStarted\n"
        "from jupyter_mlops.store import Store\nstore = Store.open(Path(sys.argv[1]))\n"
        "store.append(RunStarted(trigger='session'), wait=30)\n"
        "pid = os.fork()\nif pid == 0:\n    sys.stdin.read()\n    os._exit(0)\n"
        "print('ready', flush=True)\nsys.stdin.readline()\nos._exit(0)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        assert store.runs()[0].status == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert store.runs()[0].status == "interrupted"


RACE = """
import sys
from pathlib import Path
from jupyter_mlops.records import Transition, digest_of
from jupyter_mlops.store import RefConflict, Store

store = Store.open(Path(sys.argv[1]))
won = lost = 0
for number in range(30):
    known = len(store.moves("models/m"))
    move = Transition(ref="models/m", new=digest_of(f"{sys.argv[2]} {number}".encode()), by=sys.argv[2])
    try:
        taken, _ = store.move("models/m", move, expect=known)
    except RefConflict:
        lost += 1
    else:
        assert taken == known + 1
        won += 1
print(won, lost)
"""


def test_of_two_processes_that_race_for_a_ref_one_wins_each_number_and_the_other_is_told(store: Store) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, store.path, name], stdout=subprocess.PIPE, text=True)
        for name in ("ada", "eve")
    ]
    won = lost = 0
    for racer in racers:
        out, _ = racer.communicate()
        assert racer.returncode == 0
        won, lost = won + int(out.split()[0]), lost + int(out.split()[1])
    moves = store.moves("models/m")
    assert won + lost == 60
    assert [move.number for move in moves] == list(range(1, won + 1))
    assert store.fsck() == []


def test_the_loser_of_a_race_is_told(store: Store) -> None:
    first, second = (Transition(ref="models/m", new=digest_of(text)) for text in (b"a", b"b"))
    store.move("models/m", first, expect=0)
    with pytest.raises(RefConflict, match="somebody else"):
        store.move("models/m", second, expect=0)
    assert store.head("models/m") == first.new


def test_eight_threads_share_one_journal_in_order(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"), wait=30)

    def write() -> None:
        for step in range(300):
            store.append(CellLogged(run=run, what="metric", key="x", value=0.5, step=step), wait=30)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.records(CellLogged))) == 2400
    assert store.fsck() == []


def test_a_file_system_that_hangs_costs_a_bounded_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append(RunStarted(trigger="session"), wait=30)
    go_on, real = threading.Event(), os.write
    store._journal._remote = True  # as is found out of a network file system

    def hanging(fd: int, data: bytes) -> int:
        if threading.current_thread().name == "jupyter-mlops journal":
            go_on.wait()
        return real(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", hanging)
        for _ in range(3):
            with pytest.raises(JournalUnavailable, match="did not answer"):
                store.append(RunStarted(trigger="session"), wait=0.01)
        go_on.set()
        assert store.append(RunStarted(trigger="session"), wait=30)
    assert store.fsck() == []


def test_the_limit_on_open_files_is_reported_and_survived(store: Store) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(JournalUnavailable, match="Too many open files"):
            store.append(RunStarted(trigger="session"))
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.append(RunStarted(trigger="session"), wait=30)
