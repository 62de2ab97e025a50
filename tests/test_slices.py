"""Slices of realistic sessions: from what ran, in order, the least that makes it again; or the true reason why not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import nbformat
import pytest
from packaging.pylock import Pylock

from jupyter_mlops import views
from jupyter_mlops.pipelines import OutputRefused, inspect_parameters, run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import CellRun
from jupyter_mlops.reproduce import parameters, slicing
from jupyter_mlops.store import Store

if TYPE_CHECKING:
    from kernels import Kernel

ROOT = Path(__file__).parents[1]
COUNTS: list[tuple[str, int, int, int, list[str]]] = []
SESSIONS = sorted((Path(__file__).parent / "data" / "sessions").glob("*.txt"))


class Session(msgspec.Struct):
    """A written-down session: what a person did, and what slices of it are to hold."""

    steps: list[tuple[str, str, str]]
    cells: dict[str, tuple[str, str]]  # the notebook as it is at the end: type and source by id
    slices: list[tuple[str, list[str]]]
    refused: list[tuple[str, str]]


def read(path: Path) -> Session:
    """Read a session: parts headed ``--- run ID``, ``again``, ``edit``, ``delete``, ``file``, ``slice`` and others."""
    found = Session([], {}, [], [])
    for part in re.split(r"^--- ", path.read_text(), flags=re.MULTILINE)[1:]:
        head, _, text = part.partition("\n")
        word, _, name = head.partition(" ")
        text = text.rstrip("\n")
        match word:
            case "markdown":
                found.cells[name] = ("markdown", text)
            case "run":
                found.cells[name] = ("code", text)
                found.steps.append(("run", name, text))
            case "again":
                found.steps.append(("run", name, found.cells[name][1]))
            case "edit":
                found.cells[name] = ("code", text)
            case "delete":
                del found.cells[name]
            case "file":
                found.steps.append(("file", name, text + "\n"))
            case "slice":
                target, _, cells = name.partition(":")
                found.slices.append((target.strip(), cells.split()))
            case "refused":
                target, _, reason = name.partition(":")
                found.refused.append((target.strip(), reason.strip()))
            case _:
                raise AssertionError(head)
    return found


class Player:
    """The process that plays sessions."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("player.py"))], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"},
        )  # fmt: skip

    def play(self, folder: Path, notebook: Path, steps: list[tuple[str, str, str]]) -> list[CellRun]:
        """Play steps, and give what is on record of them."""
        if not (folder / ".mlops").exists():
            Store.create(folder / ".mlops").close()
        job = {"folder": str(folder), "notebook": str(notebook), "cwd": str(notebook.parent), "steps": steps}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        assert json.loads(self.process.stdout.readline()) == 0, "the session itself failed: see standard error"
        with Store.open(folder / ".mlops") as store:
            return store.cell_runs(newest_first=False)


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    one = Player()
    with one.process:  # closes what it reads, and so ends it
        yield one


def as_notebook(cells: dict[str, tuple[str, str]]) -> dict[str, Any]:
    made = []
    for name, (kind, source) in cells.items():
        cell: dict[str, Any] = {"cell_type": kind, "id": name, "metadata": {}, "source": source}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def rerun(player: Player, project: Project, found: Any, book: dict[str, Any], target: Any, root: Path) -> Any:
    """Run a slice in a fresh shell, in a fresh folder with the files it needs; compare as `slicing.check` does."""
    root.mkdir()
    for one in found.files:
        if one.kind != "source":
            slicing.bring(slicing.place_of(project, one.name), root, one.name)
    steps = [("run", cell["id"], "".join(cell["source"])) for cell in book["cells"] if cell["cell_type"] == "code"]
    runs = player.play(root, root / "slice.ipynb", steps)
    return slicing.compare(target, found, book, runs), runs


def play(player: Player, session: Session, folder: Path) -> tuple[Project, list[CellRun]]:
    folder.mkdir()
    notebook = folder / "work.ipynb"
    runs = player.play(folder, notebook, session.steps)
    notebook.write_text(json.dumps(as_notebook(session.cells)))
    return Project(folder), runs


def target_in(project: Project, what: str) -> Any:
    found = views.subject(project, what)
    return slicing.target_of(project.store, what, found.line, found.value)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_a_slice_of_a_session_makes_the_same_or_says_why_not(path: Path, player: Player, tmp_path: Path) -> None:
    session = read(path)
    assert session.slices or session.refused
    project, runs = play(player, session, tmp_path / "project")
    for number, (what, cells) in enumerate(session.slices):
        target = target_in(project, what)
        found = slicing.slice_for(project, target)
        book = slicing.notebook_of(found, project.store, target=target, book=as_notebook(session.cells))
        shown = [piece.run.started.cell + ("" if piece.whole else "*") for piece in found.pieces]
        assert shown == cells, f"the slice of {what}"
        checked, again = rerun(player, project, found, book, target, tmp_path / f"again-{number}")
        assert checked.same, (checked, [(run.source, run.status, run.ended and run.ended.error) for run in again])
    for what, reason in session.refused:
        with pytest.raises(slicing.SliceRefused) as refused:
            slicing.slice_for(project, target_in(project, what))
        assert re.search(reason, str(refused.value)), str(refused.value)
    project.store.close()
    COUNTS.append((
        path.stem, len(session.slices), len(session.refused), len(runs),
        [run.source for run in runs if any(gap.blocks for gap in run.gaps)],
    ))  # fmt: skip


def test_hardly_a_cell_of_all_sessions_has_a_gap_that_blocks() -> None:
    if len(COUNTS) < len(SESSIONS):
        pytest.skip("counts what the sessions before it recorded")
    blocked = [source for *_, sources in COUNTS for source in sources]
    assert len(SESSIONS) >= 20
    assert len(blocked) <= 0.02 * sum(cells for *_, cells, _ in COUNTS), blocked


# -- the notebook, and the words that make it ------------------------------------------------------------------------


def sliced(player: Player, tmp_path: Path, text: str) -> tuple[Project, Path]:
    """Play a session that is written here; the project, with its notebook on the disk."""
    written = tmp_path / "session.txt"
    written.write_text(text)
    project, _ = play(player, read(written), tmp_path / "project")
    return project, tmp_path / "project"


SMALL = """--- markdown top
# Work

Words about it.
--- file data.txt
3
--- run imports
import json
from pathlib import Path
--- markdown numbers
## Numbers
--- run rate
rate = 0.5  # per day
names = ["a", "b"]
print(rate)
--- run unused
other = 7
--- run total
total = int(Path("data.txt").read_text()) * rate * len(names)
--- again total
--- run token
password = "correct-horse-battery-staple-9"
hidden = len(password)
--- run draw
import random
luck = random.random()
"""


class Played(msgspec.Struct):
    """A session that was played once, for all tests that only slice it."""

    project: Project
    folder: Path


@pytest.fixture(scope="module")
def small(player: Player, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    project, folder = sliced(player, tmp_path_factory.mktemp("small"), SMALL)
    yield Played(project, folder)
    project.store.close()


def make(project: Project, what: str, output: Path, **options: Any) -> slicing.Made:
    found = views.subject(project, what)
    return slicing.make(project, what, found.line, found.value, output, **options)


def test_a_slice_is_a_notebook_with_parameters_headings_and_what_it_needs(small: Played, tmp_path: Path) -> None:
    made = make(small.project, "total", tmp_path / "train.ipynb")
    book = json.loads((tmp_path / "train.ipynb").read_text())
    nbformat.validate(book)
    assert ["".join(cell["source"]) for cell in book["cells"]] == [
        'rate: float = 0.5  # per day\nnames: list[str] = ["a", "b"]',
        "# Work",
        "import json\nfrom pathlib import Path",
        "## Numbers",
        'total = int(Path("data.txt").read_text()) * rate * len(names)',
    ]
    assert book["cells"][0]["metadata"]["tags"] == ["parameters"]
    assert [cell["id"] for cell in book["cells"]] == ["parameters", "top", "imports", "numbers", "total"]
    assert {one.name: one.type for one in inspect_parameters(tmp_path / "train.ipynb")} == {
        "rate": "float", "names": "list[str]",
    }  # fmt: skip
    facts = book["metadata"]["jupyter_mlops"]
    assert facts["expected"] == [{"name": "total", "kind": "variable", "digest": made.target.expected[0].digest}]
    assert [one["name"] for one in facts["files"]] == ["data.txt"]
    assert facts["sliced_from"] == ["work.ipynb"]
    assert book["metadata"]["kernelspec"]["name"] == "python3"


def test_a_file_that_is_there_is_never_replaced_unasked(small: Played, tmp_path: Path) -> None:
    (tmp_path / "mine.ipynb").write_text("mine")
    with pytest.raises(OutputRefused, match="there already"):
        make(small.project, "total", tmp_path / "mine.ipynb")
    assert (tmp_path / "mine.ipynb").read_text() == "mine"
    make(small.project, "total", tmp_path / "mine.ipynb", force=True)
    assert json.loads((tmp_path / "mine.ipynb").read_text())["nbformat"] == 4


def test_a_masked_secret_is_a_reason_to_refuse_and_is_never_written(small: Played, tmp_path: Path) -> None:
    with pytest.raises(slicing.SliceRefused, match="a secret was masked in its source"):
        make(small.project, "hidden", tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def test_what_is_not_seeded_is_written_only_when_allowed_and_says_so(small: Played, tmp_path: Path) -> None:
    with pytest.raises(slicing.SliceRefused, match="random is drawn from, and was never seeded"):
        make(small.project, "luck", tmp_path / "luck.ipynb")
    make(small.project, "luck", tmp_path / "luck.ipynb", allow_unseeded=True)
    book = json.loads((tmp_path / "luck.ipynb").read_text())
    assert "never seeded" in "".join(book["cells"][0]["source"])
    assert "never seeded" in book["metadata"]["jupyter_mlops"]["unseeded"][0]


def test_what_no_cell_made_can_not_be_sliced(small: Played, tmp_path: Path) -> None:
    with pytest.raises(slicing.SliceRefused, match=r"data.txt was made by no recorded cell"):
        make(small.project, "data.txt", tmp_path / "out.ipynb")


def test_a_slice_run_headless_makes_the_same_and_a_changed_one_is_told(small: Played, tmp_path: Path) -> None:
    made = make(small.project, "total", tmp_path / "train.ipynb", check_it=True)
    assert made.checked == slicing.Checked(same=True)
    text = json.dumps(made.book).replace("rate * len", "rate + len")
    other = slicing.check(small.project, made.slice, json.loads(text), made.target)
    assert not other.same
    assert [name for name, _, _ in other.differs] == ["total"]
    assert other.first.startswith("cell total: total was ")


def test_the_shell_s_word_writes_a_slice_and_its_exit_code_says_whether_it_holds(small: Played, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "jupyter_mlops", "slice"]
    done = subprocess.run([*words, "total", "-o", "t.ipynb"], cwd=small.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "A notebook that makes total" in done.stdout
    refused = subprocess.run([*words, "luck", "-o", "l.ipynb"], cwd=small.folder, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "--allow-unseeded" in refused.stderr
    assert not (small.folder / "l.ipynb").exists()
    again = subprocess.run([*words, "total", "-o", "t.ipynb"], cwd=small.folder, capture_output=True, text=True)
    assert again.returncode == 2 or "there already" in again.stderr


WRITER = """--- run numbers
numbers = [3, 1, 2]
unused = "nothing"
--- run write
from pathlib import Path
Path("shared.txt").write_text("\\n".join(map(str, sorted(numbers))))
--- run noise
len(numbers)
"""
READER = """--- run read
from pathlib import Path
lines = Path("shared.txt").read_text().split()
--- run scale
scale = 10
--- run unused
other = 7
--- run score
from jupyter_mlops import log_metric
total = sum(int(line) * scale for line in lines)
log_metric("score", total / len(lines))
--- run fit
import numpy as np
from sklearn.linear_model import LinearRegression
X = np.array([[float(line)] for line in lines])
model = LinearRegression().fit(X, X[:, 0] * scale)
--- run register
%mlops register model lines
"""


@pytest.fixture(scope="module")
def two(player: Player, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, list[CellRun]]]:
    """Two sessions of one project: the second reads the file that the first wrote."""
    folder = tmp_path_factory.mktemp("two") / "project"
    folder.mkdir()
    for name, text in (("writer", WRITER), ("reader", READER)):
        written = folder.parent / f"{name}.txt"
        written.write_text(text)
        session = read(written)
        (folder / f"{name}.ipynb").write_text(json.dumps(as_notebook(session.cells)))
        runs = player.play(folder, folder / f"{name}.ipynb", session.steps)
    project = Project(folder)
    yield project, runs
    project.store.close()


def test_a_file_of_another_session_brings_the_cells_that_wrote_it(
    two: tuple[Project, list[CellRun]], player: Player, tmp_path: Path
) -> None:
    project, _ = two
    for what, cells in (
        ("shared.txt", ["numbers", "write"]),
        ("score", ["numbers", "write", "read", "scale", "score"]),
        ("total", ["numbers", "write", "read", "scale", "score"]),
    ):
        made = make(project, what, tmp_path / f"{what}.ipynb")
        assert [piece.run.started.cell for piece in made.slice.pieces] == cells
        assert "unused" not in json.dumps(made.book["cells"])
        assert made.slice.files == ()
        assert made.book["metadata"]["jupyter_mlops"]["sliced_from"] == (
            ["writer.ipynb"] if what == "shared.txt" else ["writer.ipynb", "reader.ipynb"]
        )
        checked, again = rerun(player, project, made.slice, made.book, made.target, tmp_path / what)
        assert checked.same, (checked, [run.ended for run in again])


def test_a_metric_is_expected_by_its_value(two: tuple[Project, list[CellRun]], player: Player, tmp_path: Path) -> None:
    project, _ = two
    made = make(project, "score", tmp_path / "score.ipynb")
    assert made.target.metrics == {"score": 20.0}
    assert made.book["metadata"]["jupyter_mlops"]["metrics"] == {"score": 20.0}
    other = json.loads(json.dumps(made.book).replace("* scale", "+ scale"))
    checked, _ = rerun(player, project, made.slice, other, made.target, tmp_path / "other")
    assert ("score", "20.0", "12.0") in checked.differs


def test_a_model_s_version_is_sliced_to_what_made_it_and_makes_it_again(
    two: tuple[Project, list[CellRun]], player: Player, tmp_path: Path
) -> None:
    project, runs = two
    made = make(project, "models:/lines/1", tmp_path / "model.ipynb")
    cells = [piece.run.started.cell for piece in made.slice.pieces]
    assert [cell for cell in cells if cell != "register"] == ["numbers", "write", "read", "scale", "fit"]
    (model,) = [one for run in runs for one in run.outputs if one.name == "model"]
    assert model.digest is not None
    assert model.digest in {one.digest for one in made.target.expected}
    checked, again = rerun(player, project, made.slice, made.book, made.target, tmp_path / "again")
    assert checked.same, (checked, [run.ended for run in again])


def test_a_run_is_sliced_to_its_results(two: tuple[Project, list[CellRun]], player: Player, tmp_path: Path) -> None:
    project, runs = two
    writer, reader = dict.fromkeys(run.started.run for run in runs)
    made = make(project, writer, tmp_path / "writer.ipynb")
    assert [piece.run.started.cell for piece in made.slice.pieces] == ["numbers", "write"]
    assert [one.name for one in made.target.expected] == ["Path", "shared.txt"]
    made = make(project, reader, tmp_path / "reader.ipynb")
    assert [one.name for one in made.target.expected] == ["total", "log_metric"]
    assert made.target.metrics == {"score": 20.0}
    assert [piece.run.started.cell for piece in made.slice.pieces] == ["numbers", "write", "read", "scale", "score"]
    checked, again = rerun(player, project, made.slice, made.book, made.target, tmp_path / "again")
    assert checked.same, (checked, [run.ended for run in again])


def test_a_source_that_was_scrubbed_is_a_reason_to_refuse(player: Player, tmp_path: Path) -> None:
    project, folder = sliced(player, tmp_path, WRITER)
    before = make(project, "shared.txt", tmp_path / "before.ipynb")
    project.store.close()
    cell = before.slice.pieces[0].run.id
    words = [sys.executable, "-m", "jupyter_mlops"]
    done = subprocess.run(
        [*words, "scrub", cell, "--field", "source", "--yes"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    after = Project(folder)
    with pytest.raises(slicing.SliceRefused, match=f"{cell.partition(':')[2][:10]}: its source is not on record"):
        make(after, "shared.txt", tmp_path / "after.ipynb")
    assert not (tmp_path / "after.ipynb").exists()
    after.store.close()


def test_a_kernel_slices_its_own_variables_and_refuses_what_a_thread_or_a_person_made(kernel: Kernel) -> None:
    kernel.run("a = 2", cell="a")
    kernel.run("unused = 5", cell="unused")
    kernel.run("b = [a] * 3", cell="b")
    kernel.run("b.append(a)", cell="append")
    request = kernel.send("typed = int(input('how many? '))", cell="ask")
    kernel.client.get_stdin_msg(timeout=60)
    kernel.client.input("4")
    assert kernel.collect(request)[1]["status"] == "ok"
    kernel.run("asked = typed + a", cell="asked")
    kernel.run(
        "import threading\nstop = threading.Event()\nheld = []\n"
        "thread = threading.Thread(target=stop.wait)\nthread.start()",
        cell="thread",
    )
    kernel.run("beside = a * 7", cell="beside")
    kernel.run("stop.set(); thread.join()", cell="join")
    outputs, reply = kernel.run("answer = %mlops slice b -o b.ipynb --check\nprint(answer.ok)\nanswer", cell="slice")
    assert reply["status"] == "ok", reply
    assert outputs[0]["text"] == "True\n"
    assert "Run again, it made the same." in outputs[1]["data"]["text/plain"]
    book = json.loads((kernel.folder / "b.ipynb").read_text())
    assert ["".join(cell["source"]) for cell in book["cells"]] == ["a: int = 2", "b = [a] * 3", "b.append(a)"]
    for what, why in (("asked", "it asks a person"), ("beside", "threads: changes may be theirs")):
        outputs, reply = kernel.run(f"%mlops slice {what} -o {what}.ipynb", cell="slice")
        assert reply["status"] == "error"
        assert why in "".join(str(one) for one in outputs), outputs
        assert not (kernel.folder / f"{what}.ipynb").exists()
    kernel.no_errors()


def test_a_lock_of_what_it_used_is_in_the_notebook(index: None, small: Played, tmp_path: Path) -> None:
    made = make(small.project, "total", tmp_path / "locked.ipynb", lock=True)
    book = json.loads((tmp_path / "locked.ipynb").read_text())
    nbformat.validate(book)
    lock = Pylock.from_dict(tomllib.loads(book["metadata"]["jupyter_mlops"]["lock"]))
    environment = small.project.store.line(made.slice.runs[-1].environment).record
    had = {one.name.lower().replace("_", "-"): one.version for one in environment.packages}
    locked = {str(one.name): str(one.version) for one in lock.packages}
    assert "ipykernel" in locked
    assert locked.items() <= had.items()
    assert all(one.wheels or one.sdist or one.archive for one in lock.packages)


@pytest.mark.timeout(1200)
def test_the_example_notebook_s_model_and_metric_are_made_again_by_their_slices(tmp_path: Path) -> None:
    example = ROOT / "example_notebooks" / "late_arrivals.ipynb"
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / example.name).write_bytes(example.read_bytes())
    Store.create(folder / ".mlops").close()
    project = Project(folder)
    result = run_notebook(folder / example.name, parameters={"seed": 8}, project=project)
    assert result.status == "done", result.error
    keys = {key for run in project.store.cell_runs(run=result.run) for key in run.metrics}
    assert keys
    made = make(project, sorted(keys)[0], folder / "slice.ipynb", check_it=True)
    assert made.checked == slicing.Checked(same=True), made.checked
    sources = ["".join(cell["source"]) for cell in made.book["cells"]]
    assert "seed: int = 8" in sources[0]
    assert "iterations: int = 60" in sources[0]
    assert "train_months: int = 9" in sources[0]
    model = make(project, "models:/late-arrivals/1", folder / "model.ipynb")
    assert [piece.run.started.cell for piece in model.slice.pieces] == [
        "parameters", "injected-parameters", "imports", "flights", "weather", "table", "features", "train",
    ]  # fmt: skip
    assert {"model", "encode"} <= {one.name for one in model.target.expected}
    project.store.close()


def test_a_model_is_made_again_across_two_notebooks_and_from_a_live_kernel(project_folder: Path) -> None:
    first, second = nbformat.v4.new_notebook(), nbformat.v4.new_notebook()
    first.cells = [
        nbformat.v4.new_code_cell("import pandas as pd\nimport numpy as np"),
        nbformat.v4.new_code_cell(
            "x = np.linspace(0, 1, 40)\npd.DataFrame({'x': x, 'y': x > 0.4}).to_csv('data.csv', index=False)"
        ),
        nbformat.v4.new_code_cell("unrelated = 1"),
    ]
    second.cells = [
        nbformat.v4.new_code_cell("import pandas as pd\nfrom sklearn.linear_model import LogisticRegression"),
        nbformat.v4.new_code_cell("table = pd.read_csv('data.csv')\nX, y = table[['x']], table['y']"),
        nbformat.v4.new_code_cell("print('a look', len(table))"),
        nbformat.v4.new_code_cell("model = LogisticRegression(C=2.0).fit(X, y)"),
        nbformat.v4.new_code_cell("%mlops register model small --data X,y"),
        nbformat.v4.new_code_cell("%mlops slice model -o live.ipynb"),
    ]
    project = Project(project_folder)
    for name, book in (("first.ipynb", first), ("second.ipynb", second)):
        nbformat.write(book, project_folder / name)
        result = run_notebook(project_folder / name, project=project)
        assert result.status == "done", result.error

    made = make(project, "models:/small/1", project_folder / "model.ipynb", check_it=True)
    assert made.checked == slicing.Checked(same=True), made.checked
    text = "\n".join("".join(cell["source"]) for cell in made.book["cells"])
    assert "to_csv" in text
    assert "LogisticRegression(C=2.0)" in text
    assert "unrelated" not in text
    assert "a look" not in text
    live = json.loads((project_folder / "live.ipynb").read_text())
    code = [cell["source"] for cell in made.book["cells"] if cell["cell_type"] == "code"]
    assert [cell["source"] for cell in live["cells"] if cell["cell_type"] == "code"] == code

    (written,) = [run for run in project.store.runs() if run.started.notebook == "first.ipynb"]
    whole = make(project, written.id.partition(":")[2][:12], project_folder / "run.ipynb")
    assert "to_csv" in json.dumps(whole.book)
    assert "unrelated" not in json.dumps(whole.book)

    (cell,) = [run for run in project.store.cell_runs() if "to_csv" in run.source]
    project.store.erase({cell.id: ["source"]}, reason="test")
    with pytest.raises(slicing.SliceRefused, match="its source is not on record any more"):
        make(project, "models:/small/1", project_folder / "again.ipynb")
    assert not (project_folder / "again.ipynb").exists()


@pytest.mark.parametrize(
    ("sources", "lines"),
    [
        (["x = 1\ny = x"], ["x: int = 1"]),
        (["x = 1\nx = 2\ny = x"], []),
        (["x = 1\ny = x", "x = 1"], []),
        (["print(x)", "x = 1\ny = x"], []),
        (["x = 1", "for x in y: pass"], []),
        (["x = 1\ndef f():\n    global x\n    x = 2", "f(); x"], []),
        (["x = 1; y = x"], []),
        (["x = {1, 2}\ny = x"], []),
        (["x = None\ny = x"], ["x = None"]),
        (["x: int = 1\ny = x"], ["x: int = 1"]),
        (["x: T = 1\ny = x"], []),
        (["x = -1.5\ny = x"], ["x: float = -1.5"]),
        (["x = {'a': 1}\ny = x"], ["x: dict[str, int] = {'a': 1}"]),
        (["x = 1"], []),
        (["if a:\n    x = 1\ny = x"], []),
        (["x = 'é'  # ü\ny = x"], ["x: str = 'é'  # ü"]),
        (["%%time\nx = 1", "y = x"], []),
        (["x = 1", "%cd {x}"], ["x: int = 1"]),
        (["x = 1", "del x"], []),
    ],
)
def test_only_names_bound_once_by_a_literal_are_moved(sources: list[str], lines: list[str]) -> None:
    moved = parameters.move(sources)
    assert list(moved.lines) == lines
    left = "\n".join(moved.sources)
    assert sum(source.count("\n") + 1 for source in sources) - len(lines) >= left.strip("\n").count("\n")
