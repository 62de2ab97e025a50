"""What is put into a store comes out as it went in, under the name it was given."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellSettled,
    CellStarted,
    CheckResult,
    Digest,
    Environment,
    Erased,
    ModelVersion,
    RecordInvalid,
    RunEnded,
    RunStarted,
    Transition,
    digest_of,
)
from jupyter_mlops.store import (
    AmbiguousName,
    NotFound,
    ObjectMissing,
    RefConflict,
    RefInvalid,
    Store,
    StoreFormat,
    StoreMissing,
)

NOWHERE = digest_of(b"not in any store")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / ".mlops") as one:
        yield one


def cell(store: Store, run: Digest, source: str = "x = 1", **ended: object) -> Digest:
    started = store.append(CellStarted(run=run, source=source, cell="c1", notebook="a.ipynb"), wait=30)
    store.append(CellEnded(cell_run=started, status="done", **ended), wait=30)  # type: ignore[arg-type]
    return started


def value(name: str, content: bytes) -> Artifact:
    return Artifact(name=name, kind="variable", digest=digest_of(content))


# -- the folder ------------------------------------------------------------------------------------------------------


def test_creating_a_store_twice_opens_the_same_one(tmp_path: Path) -> None:
    one, two = (Store.create(tmp_path / "deep" / ".mlops") for _ in "ab")
    assert one.id == two.id
    assert (one.path / ".gitignore").read_text() == "*\n"


def test_reading_a_store_writes_nothing_but_the_index(store: Store) -> None:
    before = set(store.path.rglob("*"))
    with Store.open(store.path) as other:
        assert other.runs() == []
        assert other.fsck() == []
    assert {path.name for path in set(store.path.rglob("*")) - before} <= {"index.sqlite", "index.sum", "index.lock"}


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="mlops init"):
        Store.open(tmp_path)
    for text in ("", "{}", "[" * 5000, '{"format": "x"}'):
        (tmp_path / "format").write_text(text)
        with pytest.raises(StoreFormat):
            Store.open(tmp_path)


def test_a_store_of_a_later_format_is_refused_and_left_alone(store: Store) -> None:
    text = (store.path / "format").read_text().replace('"format": 1', '"format": 2')
    (store.path / "format").write_text(text)
    with pytest.raises(StoreFormat, match="pip install --upgrade"):
        Store.open(store.path)
    assert (store.path / "format").read_text() == text


UMASK = """
import os, sys
os.umask(int(sys.argv[2], 8))
from pathlib import Path
from jupyter_mlops.records import RunStarted, Transition, digest_of
from jupyter_mlops.store import Store
with Store.create(Path(sys.argv[1])) as store:
    store.put(b"x")
    store.append(RunStarted(trigger="session"), wait=30)
    store.move("models/m", Transition(ref="models/m", new=digest_of(b"")))
    store.runs()
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_files_are_their_owners_alone_under_any_umask(tmp_path: Path, umask: str) -> None:
    subprocess.run([sys.executable, "-c", UMASK, tmp_path / "s", umask], check=True)
    modes = {
        path: stat.S_IMODE(path.lstat().st_mode)
        for path in [tmp_path / "s", *(tmp_path / "s").rglob("*")]
        if path.name != "index.sqlite-journal"
    }
    assert {oct(mode) for path, mode in modes.items() if path.is_dir()} == {oct(0o700)}
    assert {oct(mode) for path, mode in modes.items() if path.is_file()} == {oct(0o600)}


# -- objects ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=5000))
def test_an_object_comes_out_as_it_went_in_named_by_its_bytes(store: Store, data: bytes) -> None:
    digest = store.put(data)
    assert digest == "blake3:" + blake3(data).hexdigest()
    assert store.get(digest) == data
    assert store.size(digest) == len(data)
    assert store.has(digest)


def test_views_arrays_and_files_are_put_by_their_bytes(store: Store, tmp_path: Path) -> None:
    import numpy as np

    array = np.arange(1000, dtype="<i8").reshape(10, 100)
    name = digest_of(array.tobytes())
    (tmp_path / "file").write_bytes(array.tobytes())
    assert store.put(memoryview(array)) == store.put(bytearray(array.tobytes())) == store.put(tmp_path / "file") == name


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to tell a process's memory")
def test_a_large_file_is_streamed(store: Store, tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(300 * 2**20)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom jupyter_mlops.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\nstore.put(Path(sys.argv[2]))\n"
        # `ru_maxrss` would be that of the process that started this one, where that was larger
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    command = [sys.executable, "-c", script, store.path, tmp_path / "large"]
    kibibytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert kibibytes < 150 * 1024
    (digest,) = store.objects()
    assert store.size(digest) == 300 * 2**20
    assert store.fsck() == []


def test_what_is_no_regular_file_is_not_put(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(OSError):
            store.put(path)
    assert list((store.path / "tmp").iterdir()) == []


def test_putting_durably_returns_after_the_sync(store: Store) -> None:
    store.put(b"now", durable=True)
    assert store.pending == 0
    store.put(b"later")
    assert store.durable(timeout=30)
    assert store.pending == 0


@pytest.mark.parametrize(
    "name", [NOWHERE, "frame-1:" + "0" * 64, "blake3:../../../etc/passwd", "", "blake3:" + "A" * 9]
)
def test_an_object_that_is_not_here_is_missing(store: Store, name: str) -> None:
    assert not store.has(Digest(name))
    for ask in (store.get, store.size):
        with pytest.raises(ObjectMissing) as caught:
            ask(Digest(name))
        assert isinstance(caught.value, KeyError)


def test_an_erased_object_says_who_erased_it(store: Store) -> None:
    name = store.put(b"secret")
    (store.path / "objects" / name[7:9] / name[9:]).unlink()
    store.append(Erased(object=name, by="ada", reason="a password"), wait=30)
    with pytest.raises(ObjectMissing, match=r"was erased by ada on \d{4}-\d\d-\d\d: a password"):
        store.get(name)


# -- records ---------------------------------------------------------------------------------------------------------


def test_a_cell_run_is_put_together_from_its_lines(store: Store) -> None:
    run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
    started = store.append(CellStarted(run=run, source="fit()", cell="c1", notebook="a.ipynb"))
    assert store.cell_run(started).status == "running"
    for step in (1, 2):
        store.append(CellLogged(run=run, cell_run=started, what="metric", key="loss", value=1 / step, step=step))
    store.append(CellEnded(cell_run=started, status="error", outputs=[value("a", b"1"), value("b", b"2")]))
    store.append(CellSettled(cell_run=started, outputs=[value("b", b"3")]))
    found = store.cell_run(started)
    assert (found.id, found.status, found.source, found.metrics) == (started, "error", "fit()", {"loss": 0.5})
    assert found.outputs == [value("a", b"1"), value("b", b"3")]
    assert store.cell_runs() == [found]
    with pytest.raises(NotFound):
        store.cell_run(run)


def test_cell_runs_are_found_by_run_notebook_and_cell(store: Store) -> None:
    one, two = (store.append(RunStarted(trigger="session", user=user)) for user in ("ada", "eve"))
    first, second, third = cell(store, one), cell(store, two), cell(store, one)
    other = store.append(CellStarted(run=one, cell="c2", notebook="b.ipynb"))
    assert [each.id for each in store.cell_runs()] == [other, third, second, first]
    assert [each.id for each in store.cell_runs(newest_first=False, limit=2)] == [first, second]
    assert [each.id for each in store.cell_runs(run=one)] == [other, third, first]
    assert [each.id for each in store.cell_runs(notebook="b.ipynb")] == [other]
    assert [each.id for each in store.cell_runs(cell="c1", limit=1)] == [third]
    assert store.cell_runs(run=NOWHERE) == []


def test_a_run_goes_on_until_it_ends_or_its_writer_does(store: Store) -> None:
    one, two = (store.append(RunStarted(trigger="session")) for _ in "ab")
    store.append(RunEnded(run=one, status="done", seconds=2.0))
    assert [run.status for run in store.runs()] == ["running", "done"]
    with Store.open(store.path) as other:
        assert other.run(two).status == "running"
        store.close()
        assert other.run(two).status == "interrupted"
    with pytest.raises(NotFound):
        store.run(NOWHERE)


def test_a_value_leads_to_the_cells_that_made_and_read_it(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    load = cell(store, run, outputs=[value("df", b"table")])
    copy = cell(store, run, inputs=[value("df", b"table")], outputs=[value("other", b"table")], after=[load])
    use = cell(store, run, files_read=[value("table.csv", b"table")], after=[copy])
    table = digest_of(b"table")
    assert store.made_by(table) == [copy, load]
    assert store.made_by(table, name="df") == [load]
    assert store.used_by(table) == [use, copy]
    assert store.built_on(load) == [copy]
    assert store.made_by(NOWHERE) == store.used_by(NOWHERE) == store.built_on(NOWHERE) == []


def test_records_of_a_kind_come_by_time(store: Store) -> None:
    for second in (3, 1, 2):
        store.append(Environment(python=str(second)), time=f"2026-01-01T00:00:0{second}.000000Z")
    assert [record.python for _, _, record in store.records(Environment)] == ["3", "2", "1"]
    assert [record.python for _, _, record in store.records(Environment, newest_first=False, limit=2)] == ["1", "2"]
    assert list(store.records(CheckResult)) == []


def test_lines_and_objects_are_resolved_from_a_few_digits(store: Store) -> None:
    run, thing = store.append(RunStarted(trigger="session")), store.put(b"thing")
    for name in (run, thing):
        assert store.resolve(name) == store.resolve(name[7:19]) == store.resolve(name[:19]) == name
    assert store.line(run).record == RunStarted(trigger="session")
    for bad in ("", "abc", "xyzw", "ABCD", "%%%%", "' or 1=1", NOWHERE, "abcd\n"):
        with pytest.raises(NotFound):
            store.resolve(bad)
    with pytest.raises(NotFound):
        store.line(NOWHERE)
    names: dict[str, bytes] = {}
    for number in range(5000):
        data = str(number).encode()
        twin = names.setdefault(digest_of(data)[7:11], data)
        if twin is not data:
            store.put(twin)
            store.put(data)
            with pytest.raises(AmbiguousName, match="object"):
                store.resolve(digest_of(data)[7:11])
            return
    raise AssertionError("no two of 5000 digests share four digits")


def test_other_processes_see_what_was_appended_at_once(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    with Store.open(store.path) as other:
        for number in range(1, 20):
            started = cell(store, run)
            assert other.cell_runs(limit=1)[0].id == started
            assert len(other.cell_runs()) == number


def test_copying_files_merges_two_stores(store: Store, tmp_path: Path) -> None:
    kept = cell(store, store.append(RunStarted(trigger="session")))
    store.close()
    with Store.create(tmp_path / "other") as other:
        theirs = cell(other, other.append(RunStarted(trigger="session")), outputs=[value("x", b"1")])
        name = other.put(b"1")
        other.close()
        subprocess.run(["cp", "-r", f"{other.path}/journal", f"{other.path}/objects", store.path], check=True)
    assert {one.id for one in store.cell_runs()} == {kept, theirs}
    assert store.made_by(digest_of(b"1")) == [theirs]
    assert store.get(name) == b"1"
    assert store.fsck() == []


def test_a_record_longer_than_any_line_is_refused(store: Store) -> None:
    with pytest.raises(RecordInvalid, match="too long"):
        store.append(RunStarted(trigger="session", notebook="x" * 2**26), wait=30)
    store.append(RunStarted(trigger="session"), wait=30)
    assert store.fsck() == []


def test_links_in_a_strangers_store_are_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jsonl").write_text("secret\n")
    os.symlink(tmp_path / "elsewhere.jsonl", store.path / "journal" / "x.jsonl")
    os.mkfifo(store.path / "journal" / "pipe.jsonl")
    store.append(RunStarted(trigger="session"), wait=30)
    assert len(store.runs()) == 1
    assert sorted(one.where for one in store.fsck()) == ["journal/pipe.jsonl", "journal/x.jsonl"]
    assert not any("secret" in one.what for one in store.fsck())


# -- refs ------------------------------------------------------------------------------------------------------------


def test_a_ref_moves_by_numbered_moves_that_are_its_history(store: Store) -> None:
    ref = "models/delays@production"
    one, two = digest_of(b"1"), digest_of(b"2")
    assert (store.head(ref), store.moves(ref), store.refs()) == (None, [], [])
    number, digest = store.move(ref, Transition(ref=ref, new=one, by="ada", reason="first"))
    assert number == 1
    store.move(ref, Transition(ref=ref, old=one, new=two, refused=True), expect=1)
    assert store.head(ref) == one
    store.move(ref, Transition(ref=ref, old=one, new=two), expect=2)
    assert store.head(ref) == two
    assert [(move.number, move.transition.refused) for move in store.moves(ref)] == [(1, False), (2, True), (3, False)]
    assert store.moves(ref)[0].digest == digest
    assert store.line(digest).record == Transition(ref=ref, new=one, by="ada", reason="first")
    assert len(list(store.records(Transition))) == 3
    assert store.fsck() == []


def test_a_move_from_where_the_ref_no_longer_stands_is_a_conflict(store: Store) -> None:
    one, two = digest_of(b"1"), digest_of(b"2")
    store.move("models/m", Transition(ref="models/m", new=one))
    with pytest.raises(RefConflict, match="stands at"):
        store.move("models/m", Transition(ref="models/m", old=two, new=two))
    with pytest.raises(RefConflict):
        store.move("models/m", Transition(ref="models/m", new=two), expect=0)
    with pytest.raises(RefConflict):
        store.move("models/m", Transition(ref="models/m", new=two), expect=7)


def test_what_a_move_builds_on_is_durable_before_it(store: Store) -> None:
    version = store.append(ModelVersion(name="m", model=Artifact(name="m", kind="model")))
    store.move("models/m", Transition(ref="models/m", new=version))
    assert store.pending == 0


def test_refs_are_listed_by_prefix(store: Store) -> None:
    for ref in ("models/a", "models/a@production", "models/b", "endpoints/a", "models/00000001"):
        store.move(ref, Transition(ref=ref, new=NOWHERE))
    assert store.refs("models/a") == ["models/a", "models/a@production"]
    assert len(store.refs()) == 5


@pytest.mark.parametrize(
    "ref",
    ["", "models", "models/", "/models/a", "models/..", "models/../x", "models/a b", "models/a\n", "models/.a", "a/@b",
     "models/a@", "models/a@b@c", "models/a\0", "models/é", "models/" + "x" * 129, "models/x.jsonl", "../x"],
)  # fmt: skip
def test_a_name_that_could_leave_the_store_or_confuse_a_reader_is_refused(store: Store, ref: str) -> None:
    for act in (store.head, store.moves, lambda name: store.move(name, Transition(ref=name))):
        with pytest.raises(RefInvalid):
            act(ref)


def test_a_damaged_move_is_named_and_its_number_stays_taken(store: Store) -> None:
    for text in (b"1", b"2", b"3"):
        store.move("models/m", Transition(ref="models/m", new=digest_of(text)))
    path = store.path / "refs" / "models" / "m" / "00000003.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert [one.where for one in store.fsck()] == ["refs/models/m/00000003.jsonl"]
    assert store.head("models/m") == digest_of(b"2")
    number, _ = store.move("models/m", Transition(ref="models/m", new=digest_of(b"4")))
    assert number == 4
    assert len(store.fsck()) == 1


def test_a_move_that_is_seen_half_written_is_found_once_it_is_whole(store: Store) -> None:
    for _ in range(3):
        store.move("models/m", Transition(ref="models/m", by="ada"))
    path = store.path / "refs/models/m/00000002.jsonl"
    whole = path.read_bytes()
    with open(path, "r+b") as file:  # as where there are no links, and files are made in place
        file.truncate(len(whole) // 2)
        for _ in range(3):
            assert len(list(store.records(Transition))) == 2
        file.seek(0)
        file.write(whole)
    for _ in range(3):
        assert len(list(store.records(Transition))) == 3


def test_a_ref_moves_where_the_file_system_has_no_links(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert store.move("models/m", Transition(ref="models/m", new=NOWHERE), expect=0)[0] == 1
    with pytest.raises(RefConflict):
        store.move("models/m", Transition(ref="models/m", new=NOWHERE), expect=0)
    assert store.head("models/m") == NOWHERE


# -- the index -------------------------------------------------------------------------------------------------------


def test_reindexing_counts_every_line(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    cell(store, run)
    store.move("models/m", Transition(ref="models/m", new=run))
    assert store.reindex() == 5  # opened, run, started, ended, and the move


def test_a_secret_in_an_index_that_was_rebuilt_leaves_no_trace(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    store.append(CellStarted(run=run, notebook="tr0ub4dor.ipynb"))
    store.cell_runs()
    assert b"tr0ub4dor" in (store.path / "index.sqlite").read_bytes()
    writer = store.writer
    store.close()
    (store.path / "journal" / f"{writer}.jsonl").unlink()
    assert store.cell_runs() == []
    assert b"tr0ub4dor" not in (store.path / "index.sqlite").read_bytes()


def test_the_stranger_of_the_format_page_verifies_a_store(store: Store) -> None:
    page = (Path(__file__).parent.parent / "docs" / "store-format.md").read_text()
    script = page.split("```python\n")[1].split("```")[0]
    assert len(script.strip().splitlines()) <= 24
    cell(store, store.append(RunStarted(trigger="session", parameters={"lr": float("nan")})))
    store.put(b"bytes")
    store.move("models/m", Transition(ref="models/m", new=NOWHERE))
    store.close()
    command = [sys.executable, "-c", script, str(store.path)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stdout.strip()) == (0, "6 lines and 1 objects verify"), done.stderr
    journal = next((store.path / "journal").iterdir())
    journal.write_bytes(journal.read_bytes().replace(b"x = 1", b"x = 2"))
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_a_name_that_is_no_text_hides_nothing_else(tmp_path: Path) -> None:
    with Store.create(tmp_path / "s") as store:
        run = store.append(RunStarted(trigger="session"))
        cell = store.append(CellStarted(run=run, count=1, cell="\ud800", notebook="\udc80.ipynb", source="x"))
        odd = Artifact(name="caf\udce9.csv", kind="file", digest=digest_of(b"x"))
        store.append(CellLogged(run=run, cell_run=cell, what="metric", key="\udfff", value=1))
        store.append(CellEnded(cell_run=cell, status="done", files_read=[odd]))
        assert store.cell_run(cell).files_read == [odd]
        assert store.named(odd.name) == store.used_by(odd.digest) == [cell]  # type: ignore[arg-type]
        assert store.logged("\udfff") == [cell]
        assert [one.id for one in store.cell_runs(notebook="\udc80.ipynb")] == [cell]
