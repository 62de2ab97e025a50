from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_mlops import cli
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellSettled,
    CellStarted,
    Checkpoint,
    Digest,
    Erased,
    RunStarted,
    Transition,
    digest_of,
    erase_fields,
)
from jupyter_mlops.scrub import find_lines, find_text, find_value
from jupyter_mlops.store import ObjectMissing, Store
from jupyter_mlops.values import bring, keep

# Nothing marks it as a secret, so that recording lets it pass: somebody finds out later.
SECRET = 'plum "tart" über 4711'


def everything(folder: Path) -> dict[str, bytes]:
    """Every byte under a folder, archives and streams unpacked."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                data += gzip.decompress(data)
            if data[:4] == b"PK\x03\x04":
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    data += b"".join(archive.read(name) for name in archive.namelist())
            found[str(path.relative_to(folder))] = data
    return found


def spellings(text: str) -> list[bytes]:
    once, coded = json.dumps(text, ensure_ascii=False)[1:-1], base64.b64encode(text.encode()).rstrip(b"=")
    twice = json.dumps(once, ensure_ascii=False)[1:-1]
    forms = (text, once, twice, json.dumps(text)[1:-1], quote(text), text.encode().hex())
    return [*(form.encode() for form in forms), coded[:-1]]


def holders(folder: Path, text: str) -> list[str]:
    needles = spellings(text)
    return [name for name, data in everything(folder).items() if any(needle in data for needle in needles)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / ".mlops")


def scrub(*words: str, place: cli.Place | None = None) -> Any:
    return cli.call(["scrub", *words], place or cli.Place())


def test_a_secret_of_a_headless_run_is_gone_from_every_byte_and_the_history_still_reads(project_folder: Path) -> None:
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell('note = "none"', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import base64\nprint('the word is', note)\nnote"),
        nbformat.v4.new_code_cell("print(base64.b64encode(b'...' + note.encode()).decode())"),
        nbformat.v4.new_code_cell("open('kept.txt', 'w').write(note)\ntotal = 1 + 1"),
        nbformat.v4.new_code_cell(
            "import jupyter_mlops\njupyter_mlops.log_artifact('kept.txt')\nraise ValueError(note)"
        ),
    ]
    nbformat.write(book, project_folder / "book.ipynb")
    project = Project.open(project_folder)
    run_notebook(
        project_folder / "book.ipynb", output=project_folder / "out.ipynb", parameters={"note": SECRET}, project=project
    )
    project.store.close()
    assert "out.ipynb" in holders(project_folder, SECRET)
    assert any(name.startswith(".mlops/journal") for name in holders(project_folder, SECRET))
    (project_folder / "secret").write_text(SECRET + "\n")

    told = scrub("--text-from", "secret")
    assert told.ok
    assert "nothing removed yet" in told.title
    assert any(name.startswith(".mlops/journal") for name in holders(project_folder, SECRET))

    (project_folder / "readme.txt").write_text("changed\n")
    done = scrub("--text-from", "secret", "--files", "--yes", "-m", "it was a password")
    (project_folder / "secret").unlink()
    assert done.ok, done.text()
    assert holders(project_folder, SECRET) == []
    assert json.loads((project_folder / "out.ipynb").read_text())["cells"], "the notebook is still one"

    after = Project.open(project_folder)
    with after.store as store:
        assert store.fsck() == []
        cells = store.cell_runs(newest_first=False)
        assert [cell.status for cell in cells] == ["done"] * 5 + ["error"]
        assert any("total" in {one.name for one in cell.outputs} for cell in cells)
        said = [record for _, _, record in store.records(Erased)]
        assert said
        assert all(record.reason == "it was a password" for record in said)
    answer = subprocess.run(["mlops", "fsck"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_the_chain_verifies_with_the_page_s_own_reader_after_an_erasure(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    cell = store.append(CellStarted(run=run, source=f"x = {SECRET!r}", notebook="a.ipynb"))
    store.append(CellEnded(cell_run=cell, status="done", outputs=[Artifact(name="x", kind="variable")]))
    found = find_text(store, SECRET)
    assert found.fields == {cell: ("source",)}
    store.erase(found.fields, found.objects, reason="test")
    page = (Path(__file__).parents[1] / "docs/store-format.md").read_text()
    code = page.split("```python\n")[-1].split("```")[0]
    answer = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert store.line(cell).erased == ("source",)
    assert store.cell_run(cell).started.notebook == "a.ipynb"
    assert [one.name for one in store.cell_run(cell).outputs] == ["x"]


@pytest.mark.parametrize(
    "pack", ["plain", "gzip", "gzip, added to", "gzip, cut short", "bzip2", "xz", "zip", "base64", "hex", "address"]
)
def test_objects_that_hold_it_in_whatever_wrapping_are_removed_and_say_so(store: Store, pack: str) -> None:
    text = SECRET.encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("notes.txt", b"x" * 2_000_000 + text)
    data = {
        "plain": b"a" * (2**20 - 5) + text, "gzip": gzip.compress(b"y" * 3_000_000 + text), "zip": archive.getvalue(),
        "gzip, added to": gzip.compress(b"line\n") + gzip.compress(text), "bzip2": bz2.compress(b"z" * 9 + text),
        "gzip, cut short": gzip.compress(text + os.urandom(99_999))[:-5000], "xz": lzma.compress(b"z" * 9 + text),
        "base64": base64.b64encode(b"??" + text + b"!"), "hex": text.hex().encode(), "address": quote(SECRET).encode(),
    }[pack]  # fmt: skip
    guilty, innocent = store.put(data), store.put(b"nothing to see")
    found = find_text(store, SECRET)
    assert found.objects == (guilty,)
    store.erase(found.fields, found.objects, by="ana", reason="leaked")
    with pytest.raises(ObjectMissing, match=r"erased by ana.*leaked"):
        store.get(guilty)
    assert store.get(innocent) == b"nothing to see"
    assert store.fsck() == []


def test_the_digest_of_a_text_that_is_all_there_is_goes_with_it(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    cell = store.append(CellStarted(run=run, source="read()"))
    named = Artifact(name="pin.txt", kind="file", digest=digest_of(b"1234-tulip\n"))
    other = Artifact(name="big.txt", kind="file", digest=digest_of(b"1234-tulip and more\n"))
    ended = store.append(CellEnded(cell_run=cell, status="done", files_read=[named], files_written=[other]))
    assert find_text(store, "1234-tulip").fields == {ended: ("files_read",)}


def test_what_names_a_ref_is_left_and_said(store: Store) -> None:
    store.move("models/plum-tart", Transition(ref="models/plum-tart", reason="for plum-tart"))
    found = find_text(store, "plum-tart")
    (fields,) = found.fields.values()
    assert fields == ("reason",)
    assert any("refs/models/plum-tart" in where for where, _ in found.left)
    store.erase(found.fields, found.objects)
    assert store.fsck() == []
    assert len(store.moves("models/plum-tart")) == 1


def test_a_journal_that_another_process_writes_is_left_whole_and_named(store: Store, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from jupyter_mlops.store import Store;"
        "from jupyter_mlops.records import RunStarted;"
        f"s = Store.open(Path({str(store.path)!r}));"
        "s.append(RunStarted(trigger='session', notebook='violet-77.ipynb'));"
        "print('ready', flush=True); sys.stdin.read();"
        "s.append(RunStarted(trigger='session', notebook='late.ipynb')); s.close()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        found = find_text(store, "violet-77")
        done = store.erase(found.fields, found.objects)
        assert done.lines == ()
        assert sum(map(len, done.waiting.values())) == 1
    finally:
        other.communicate(b"")
    assert other.returncode == 0
    assert [run.started.notebook for run in store.runs(newest_first=False)] == ["violet-77.ipynb", "late.ipynb"]
    found = find_text(store, "violet-77")
    assert len(store.erase(found.fields, found.objects).lines) == 1
    assert [run.started.notebook for run in store.runs(newest_first=False)] == ["", "late.ipynb"]
    assert store.fsck() == []


def test_a_process_erases_lines_of_its_own_and_goes_on_writing(store: Store) -> None:
    runs = [store.append(RunStarted(trigger="session", notebook=f"rose-{number}.ipynb")) for number in range(3)]
    for number in range(3):
        found = find_text(store, f"rose-{number}")
        assert store.erase(found.fields, found.objects).waiting == {}
        runs.append(store.append(RunStarted(trigger="session", notebook="after.ipynb")))
    assert store.durable(timeout=30)
    assert holders(store.path, "rose-1") == []
    held = [path.resolve() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert any(path.parent == store.path / "journal" for path in held)
    assert not [path for path in held if path.is_relative_to(store.path) and "(deleted)" in path.name]
    assert {run.id for run in store.runs()} == set(runs)
    assert all(run.status == "running" for run in store.runs()), "readers still see that the writer lives"
    store.close()
    with Store.open(store.path) as again:
        assert again.fsck() == []
        assert {run.id for run in again.runs()} == set(runs)


def test_a_field_that_is_gone_without_a_record_of_it_is_damage(store: Store) -> None:
    run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
    store.close()
    (path,) = (store.path / "journal").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(erase_fields(line, {"notebook"}) for line in lines))
    (problem,) = store.fsck()
    assert problem.severity == "damage"
    assert "no record says who" in problem.what
    assert store.line(run).erased == ("notebook",)


def test_a_value_loses_its_bytes_facts_and_digests_and_nothing_else(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    cell = store.append(CellStarted(run=run, source="frame = load()"))
    facts, kept = store.put(b'{"schema": 1}'), store.put(b"bytes of it")
    frame = Artifact(name="frame", kind="variable", digest=kept, stored=True, facts=facts)
    other = Artifact(name="other", kind="variable", digest=Digest("value-1:" + "0" * 64), facts=store.put(b"{}"))
    one = store.append(CellEnded(cell_run=cell, status="done", outputs=[frame], inputs=[other]))
    found = find_value(store, frame)
    assert found.fields == {one: ("outputs",)}
    assert set(found.objects) == {facts, kept}
    with pytest.raises(WrongUse, match="nothing of the content"):
        find_value(store, Artifact(name="socket", kind="variable", why="no fingerprint"))


def test_a_value_goes_from_the_checkpoints_that_kept_it_and_other_variables_stay(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    secret, other = np.arange(3.0), np.arange(500.0, 600.0)
    shared = {"other": other, "also": other}
    lists = []
    for variables in ({"secret": secret}, shared):
        kept = keep(variables, store, digests={name: fingerprint(one).digest for name, one in variables.items()})
        assert kept.manifest is not None
        lists.append(store.put(json.dumps(dict.fromkeys(variables, kept.manifest)).encode()))
    cell = store.append(CellStarted(run=run, source="make()"))
    made = Artifact(name="secret", kind="variable", digest=fingerprint(secret).digest)
    store.append(CellEnded(cell_run=cell, status="done", outputs=[made]))
    for variables in lists:
        store.append(CellSettled(cell_run=cell, checkpoint=Checkpoint(variables=variables)))
    found = find_value(store, made)
    store.erase(found.fields, found.objects)
    assert not any(secret.tobytes() in data for data in everything(store.path).values())
    manifest = Digest(json.loads(store.get(lists[1]))["other"])
    back = bring(manifest, store)
    assert back["other"] is back["also"]
    assert (back["other"] == other).all()


def test_a_text_in_an_array_of_texts_is_found(store: Store) -> None:
    digest = store.put(np.array(["spam", "marzipan"]).tobytes())
    assert find_text(store, "marzipan").objects == (digest,)


def test_fields_of_a_cell_run_are_removed_by_name_and_unknown_ones_refused(store: Store) -> None:
    run = store.append(RunStarted(trigger="session"))
    cell = store.append(CellStarted(run=run, source="secret()", notebook="a.ipynb"))
    ended = store.append(CellEnded(cell_run=cell, status="error", error="boom"))
    assert find_lines(store, cell, ["source"]).fields == {cell: ("source",)}
    assert find_lines(store, cell).fields == {cell: ("notebook", "source"), ended: ("error",)}
    with pytest.raises(WrongUse, match=r"no field colour.*error, notebook, source"):
        find_lines(store, cell, ["colour"])


def test_the_secret_is_never_a_word_of_the_command(project_folder: Path) -> None:
    with pytest.raises(WrongUse, match="nothing to remove"):
        cli.call(["scrub"], cli.Place())
    (project_folder / "s").write_text("abc")
    with pytest.raises(WrongUse, match="fewer than 4"):
        scrub("--text-from", "s")
    with pytest.raises(WrongUse, match="one thing at a time"):
        scrub("abcd", "--text-from", "s")


def test_a_variable_s_text_is_removed_from_the_kernel_that_holds_it_and_masked_from_then_on(
    project_folder: Path,
) -> None:
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell("word = 'marzipan-' + str(4711)\nprint(word)"),
        nbformat.v4.new_code_cell("answer = %mlops scrub --variable word --yes\nprint(answer.ok)"),
        nbformat.v4.new_code_cell("print('once more: ' + word)"),
    ]
    nbformat.write(book, project_folder / "book.ipynb")
    project = Project.open(project_folder)
    run_notebook(project_folder / "book.ipynb", project=project)
    project.store.close()
    assert holders(project_folder / ".mlops", "marzipan-4711") == []
    with Store.open(project_folder / ".mlops") as store:
        assert store.fsck() == []
        assert [cell.status for cell in store.cell_runs()] == ["done"] * 3


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=4, max_size=30).filter(lambda text: len(text.strip()) >= 4))
def test_any_text_is_found_in_any_field_that_holds_it(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store.create(tmp_path_factory.mktemp("store") / ".mlops")
    run = store.append(RunStarted(trigger="session", parameters={"a": [{"b": f"<{text}>"}]}))
    cell = store.append(CellStarted(run=run, source=f"x = {text!r}"))
    found = find_text(store, text)
    assert run in found.fields
    assert cell in found.fields
    store.erase(found.fields, found.objects)
    assert not [where for where in find_text(store, text).fields if where in (run, cell)]
    assert store.fsck() == []
    store.close()
