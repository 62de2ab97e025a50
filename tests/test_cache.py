"""The cache of whole notebooks: what has not changed is skipped, what has is never, and what is gone comes back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.pipelines.basis import Basis
from jupyter_mlops.pipelines.cache import Answer, Asked, Cache
from jupyter_mlops.pipelines.engine import Job
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, RunEnded, RunStarted, decode, digest_of, encode
from jupyter_mlops.targets.protocol import TEMPLATE

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def notebook(path: Path, *sources: str, parameters: str | None = None) -> Path:
    cells = [] if parameters is None else [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    for place, cell in enumerate(cells):
        cell["id"] = f"cell-{place}"
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def ask(project: Project, path: Path, **parameters: object) -> Answer:
    """What a process that knows nothing yet would be told of a run."""
    asked = Asked(
        notebook=path, output=path.with_name(f"{path.stem}.out.ipynb"), parameters=parameters, cwd=path.parent,
        environ=Job(project, path, parameters).environment(),
    )  # fmt: skip
    with Cache(project) as cache:
        return cache.answer(asked)


def basis(project: Project) -> Basis:
    ended = next(one for _, _, one in project.store.records(RunEnded))
    assert ended.basis is not None
    assert ended.basis.digest is not None
    return decode(project.store.get(ended.basis.digest), Basis)


class Scene:
    """A project with a notebook that was run once: it reads data, a local module, a package, variables."""

    def __init__(self, root: Path) -> None:
        self.root = root
        packages = root / "elsewhere" / "site-packages"
        (packages / "grains").mkdir(parents=True)
        (packages / "grains" / "__init__.py").write_text("WEIGHT = 2\n")
        (packages / "grains-1.0.dist-info").mkdir()
        (packages / "grains-1.0.dist-info" / "METADATA").write_text("Name: grains\nVersion: 1.0\n")
        self.environ = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
                        "GRAINS": "many"}  # fmt: skip
        work = root / "work"
        work.mkdir()
        self.project = Project(work, environ=self.environ)
        (work / "data").mkdir()
        (work / "data" / "a.csv").write_text("x\n1\n")
        (work / "helper.py").write_text("def double(x):\n    return 2 * x\n")
        self.path = notebook(
            work / "count.ipynb",
            "import os\nfrom pathlib import Path\nimport grains, helper\n"
            "try:\n    import absentee\nexcept ImportError:\n    pass",
            "text = Path('data/a.csv').read_text()\nword = os.environ['GRAINS']",
            "Path('made').mkdir(exist_ok=True)\n"
            "Path('made/counted.txt').write_text(f'{helper.double(len(text)) * rows} {word} {grains.WEIGHT}')",
            "Path('made/again.txt').write_text(Path('made/counted.txt').read_text())",
            parameters="rows: int = 3",
        )
        self.result = run_notebook(self.path, project=self.project, cache="notebook")
        assert self.result.error is None
        assert self.result.status == "done"
        self.packages, self.work = packages, work


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A file that is changed, and is as it was again afterwards."""
    before = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_run_that_would_do_the_same_is_skipped_and_its_result_is_there(scene: Scene) -> None:
    before = len(scene.project.store.runs())
    again = run_notebook(scene.path, project=scene.project, cache="notebook")
    assert (again.status, again.run, again.cells, again.put_back) == ("cached", scene.result.run, 0, [])
    assert scene.result.because == "no run like it is on record"
    assert len(scene.project.store.runs()) == before
    assert (scene.work / "made" / "again.txt").read_text() == "24 many 2"


def test_what_a_run_follows_from_is_on_record_with_what_it_left(scene: Scene) -> None:
    found = basis(scene.project)
    assert found.never == []
    assert [one.name for one in found.read] == ["helper.py", "data/a.csv"]
    assert [(one.name, one.stored) for one in found.wrote] == [("made/counted.txt", True), ("made/again.txt", True)]
    assert found.variables["read:GRAINS"] == "many"
    ended = scene.project.store.run(scene.result.run).ended  # type: ignore[arg-type]
    assert ended is not None
    assert [one.name for one in ended.outputs] == ["count.out.ipynb", "made/counted.txt", "made/again.txt"]
    assert all(scene.project.store.get(one.digest) for one in ended.outputs if one.digest)


def _same_size_and_times(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("work/data/a.csv", lambda path: path.write_text("x\n2\n"), "data/a.csv has changed"),
        ("work/data/a.csv", _same_size_and_times, "data/a.csv has changed"),
        ("work/helper.py", lambda path: path.write_text("def double(x):\n    return 3 * x\n"), "helper.py has changed"),
        ("work/count.ipynb", lambda path: path.write_text(path.read_text().replace("data/a", "data/b")),
         "the notebook's code has changed"),
    ],
    ids=["data", "data of equal size and times", "module", "code"],
)  # fmt: skip
def test_a_run_is_not_skipped_where_a_file_has_changed(
    scene: Scene, file: str, change: Callable[[Path], object], why: str
) -> None:
    assert ask(scene.project, scene.path).run == scene.result.run
    path = scene.root / file
    with held(path):
        change(path)
        answer = ask(scene.project, scene.path)
    assert (answer.run, answer.why) == (None, why)
    assert ask(scene.project, scene.path).run == scene.result.run  # its content is what it was, and so is the answer


def test_markdown_and_outputs_of_a_notebook_are_no_part_of_what_it_does(scene: Scene) -> None:
    with held(scene.path):
        book = json.loads(scene.path.read_text())
        book["cells"].append({"cell_type": "markdown", "id": "note", "metadata": {}, "source": "# Thoughts"})
        book["cells"][1]["execution_count"] = 7
        scene.path.write_text(json.dumps(book))
        assert ask(scene.project, scene.path).run == scene.result.run


def test_a_run_is_not_skipped_with_other_parameters_variables_packages_or_modules(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert ask(scene.project, scene.path).run == scene.result.run
    assert ask(scene.project, scene.path, rows=4).why == "no run like it is on record"

    other = Project(scene.work, environ={**scene.environ, "GRAINS": "few"})
    assert ask(other, scene.path).why == "the variable GRAINS has changed"
    other = Project(scene.work, environ={**scene.environ, "OMP_NUM_THREADS": "3"})
    assert ask(other, scene.path).why == "the variable OMP_NUM_THREADS has changed"
    other = Project(scene.work, environ={**scene.environ, "SHLVL": "9", "MY_OWN": "1"})
    assert ask(other, scene.path).run == scene.result.run

    hidden = scene.work / "grains.py"
    hidden.write_text("WEIGHT = 5\n")
    assert "a module that is imported may be another" in ask(scene.project, scene.path).why
    hidden.unlink()
    hidden = scene.work / "absentee.py"
    hidden.write_text("")
    assert "a module that is imported may be another" in ask(scene.project, scene.path).why
    hidden.unlink()
    (scene.work / "notes.txt").write_text("nothing that is imported")
    assert ask(scene.project, scene.path).run == scene.result.run

    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    other = Project(scene.work, environ={**scene.environ, "IPYTHONDIR": str(tmp_path / "ipython")})
    assert ask(other, scene.path).run == scene.result.run
    (startup / "00.py").write_text("import random")
    assert ask(other, scene.path).why == "what IPython runs in every kernel has changed"

    (scene.packages / "grains-1.0.dist-info").rename(scene.packages / "grains-1.1.dist-info")
    assert ask(scene.project, scene.path).why == "packages were installed or removed"
    (scene.packages / "grains-1.1.dist-info").rename(scene.packages / "grains-1.0.dist-info")
    assert ask(scene.project, scene.path).run == scene.result.run

    module = scene.packages / "grains" / "__init__.py"
    before = module.stat()
    module.write_text("WEIGHT = 3\n")  # in place, under the same version, of the same size and time
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask(scene.project, scene.path).why == "grains/__init__.py (installed) is not what was loaded"


def test_what_is_gone_or_another_is_put_back_from_the_store(scene: Scene) -> None:
    output = scene.work / "count.out.ipynb"
    was = output.read_bytes()
    output.unlink()
    shutil.rmtree(scene.work / "made")
    again = run_notebook(scene.path, project=scene.project, cache="notebook")
    assert (again.status, again.put_back) == ("cached", ["made/counted.txt", "made/again.txt", "count.out.ipynb"])
    assert output.read_bytes() == was
    (scene.work / "made" / "again.txt").write_text("24 many 3")
    again = run_notebook(scene.path, project=scene.project, cache="notebook")
    assert again.put_back == ["made/again.txt"]
    assert (scene.work / "made" / "again.txt").read_text() == "24 many 2"


def test_a_store_that_comes_from_elsewhere_puts_nothing_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "work")
    project.root.mkdir()
    path = notebook(project.root / "one.ipynb", "open('made.txt', 'w').write('mine')")
    run_notebook(path, project=project, cache="notebook")
    (project.root / "made.txt").unlink()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        assert ask(project, path).why == "its result was not kept by this user on this machine"

    # what somebody writes into a store himself, with a seal that is good for something else
    kept = basis(project)
    outside = Artifact(name=str(tmp_path / "stolen.txt"), kind="file", digest=project.store.put(b"theirs"), stored=True)
    forged = msgspec.structs.replace(kept, wrote=[outside])
    begun = project.store.append(RunStarted(trigger="papermill", notebook="one.ipynb"))
    named = next(one.basis for _, _, one in project.store.records(RunEnded) if one.basis is not None).name
    for one in (forged, kept):
        left = Artifact(name=named, kind="basis", digest=project.store.put(encode(one)), stored=True)
        project.store.append(RunEnded(run=begun, status="done", basis=left))
        assert ask(project, path).run not in (None, begun)
    again = run_notebook(path, project=project, cache="notebook")
    assert (again.status, again.put_back) == ("cached", ["made.txt"])
    assert not (tmp_path / "stolen.txt").exists()


def test_a_result_whose_bytes_are_neither_there_nor_kept_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.jupyter-mlops]\nkeep-files-mb = 1\n")
    project = Project(tmp_path)
    path = notebook(
        tmp_path / "big.ipynb",
        "from pathlib import Path\nPath('big.bin').write_bytes(bytes(2 << 20))\nPath('small.txt').write_text('1')",
        "Path('key.pem').write_text('-----')\nPath('token.txt').write_text('password = \"correct horse\"')",
    )
    assert run_notebook(path, project=project, cache="notebook").status == "done"
    kept = {one.name: one.why for one in basis(project).wrote}
    assert kept == {
        "big.bin": "not kept: the files of one run are kept up to 1 MB", "small.txt": "",
        "key.pem": "not kept: its name is that of a file of secrets", "token.txt": "not kept: it holds a secret",
    }  # fmt: skip
    output = basis(project).output
    assert output is not None
    assert (output.stored, output.why) == (False, "not kept: it holds a secret")  # in the text of the second cell
    assert not project.store.has(output.digest or "")  # type: ignore[arg-type]
    assert ask(project, path).run is not None
    (tmp_path / "big.bin").unlink()
    answer = ask(project, path)
    assert answer.run is None
    assert answer.why.startswith("big.bin is gone, and its bytes are not at hand (not kept")


def test_a_run_that_looks_beyond_the_record_is_never_skipped_and_says_why(tmp_path: Path) -> None:
    project = Project(tmp_path, environ={**os.environ, "MY_TOKEN": "not to be told"})
    path = notebook(
        tmp_path / "wide.ipynb",
        "import datetime, os, random, sqlite3, subprocess, time",
        "today = datetime.date.today()",
        "subprocess.run(['true'])",
        "sqlite3.connect('x.db').execute('create table if not exists a (b)')",
        "import socket\nsocket.gethostname()",
        "os.environ.get('MY_TOKEN')",
        "before = time.perf_counter()\nrandom.random()",
    )
    result = run_notebook(path, project=project, cache="notebook")
    assert result.status == "done"
    found = basis(project)
    assert [one for one in found.never if "cell 2" in one] == ["cell 2 asks for the time (datetime.date.today)"]
    assert any("cell 3: processes: a subprocess ran (true)" in one for one in found.never)
    assert any(one.startswith("cell 4 asks sqlite:///x.db") for one in found.never)
    assert "cell 5 asks who and where it is (socket.gethostname)" in found.never
    assert "it reads the variable MY_TOKEN, a secret, which is not on record" in found.never
    assert not any("cell 7" in one for one in found.never)
    assert found.notes == ["random was not seeded: another run draws other numbers"]
    again = run_notebook(path, project=project, cache="notebook")
    assert again.status == "done"
    assert again.run != result.run
    assert again.because.startswith("it is never skipped: ")


def test_a_run_is_not_skipped_where_it_would_find_what_it_looked_for_in_vain(tmp_path: Path) -> None:
    environ = {**os.environ, "GREETING": "hello"}
    project = Project(tmp_path, environ=environ)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.csv").write_text("1")
    path = notebook(
        tmp_path / "looks.ipynb",
        "import glob, os\nfrom pathlib import Path",
        "try:\n    settings = open('settings.yaml').read()\nexcept FileNotFoundError:\n    settings = ''",
        "more = Path('more.csv').exists()\nfiles = [Path(one).read_text() for one in sorted(glob.glob('raw/*.csv'))]",
        "name = 'GREET' + 'ING'\nword = os.environ[name]\nother = os.environ.get('FAREWELL')",
        "Path('made/empty').mkdir(parents=True, exist_ok=True)\nPath('made/files.txt').write_text(str(files))",
        "assert Path('made/files.txt').exists()",
    )
    assert run_notebook(path, project=project, cache="notebook").status == "done"
    assert basis(project).never == []
    assert ask(project, path).run is not None

    for name, why in {
        "settings.yaml": "settings.yaml is there now", "more.csv": "more.csv is there now",
        "raw/b.csv": "other files are in raw",
    }.items():  # fmt: skip
        (tmp_path / name).write_text("2")
        assert ask(project, path).why == why
        (tmp_path / name).unlink()
        assert ask(project, path).run is not None
    for changed in ({"GREETING": "good morning"}, {"FAREWELL": "bye"}):
        why = ask(Project(tmp_path, environ={**environ, **changed}), path).why
        assert why == f"the variable {next(iter(changed))} has changed"

    shutil.rmtree(tmp_path / "made")
    assert run_notebook(path, project=project, cache="notebook").put_back == ["made/files.txt"]
    assert (tmp_path / "made" / "empty").is_dir()


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("open('log.txt', 'a').write('x')", ["x", "xx", "xxx", "yx", "x"]),
        ("try:\n    open('log.txt', 'x').write('x')\nexcept FileExistsError:\n    pass", ["x", "x", "x", "y", "x"]),
    ],
)
def test_a_run_that_would_add_to_what_it_left_is_not_skipped(tmp_path: Path, source: str, left: list[str]) -> None:
    project, log = Project(tmp_path), tmp_path / "log.txt"
    path = notebook(tmp_path / "adds.ipynb", source)
    found = []
    for there in ("", None, None, "y", ""):
        if there is not None:
            log.write_text(there) if there else log.unlink(missing_ok=True)
        result = run_notebook(path, project=project, cache="notebook")
        found.append(log.read_text())
    assert found == left
    assert result.status == "cached"  # as where there was none


def test_a_failed_run_is_run_again(tmp_path: Path) -> None:
    project = Project(tmp_path)
    path = notebook(tmp_path / "fails.ipynb", "open('absent.txt')")
    assert run_notebook(path, project=project, cache="notebook").status == "failed"
    assert ask(project, path).why == "no run like it is on record"


def test_a_file_rewritten_within_a_tick_of_the_clock_is_never_taken_for_what_it_was(tmp_path: Path) -> None:
    cache, path = Cache(Project.open(tmp_path)), tmp_path / "data.bin"
    for number in range(300):
        data = number.to_bytes(4, "big")
        path.write_bytes(data)
        os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
        cache._now.clear()
        assert cache.digest("file", path) == digest_of(data)
    cache.close()
    assert Cache(Project.open(tmp_path)).digest("file", path) == digest_of(data)


def test_what_a_warm_kernel_has_loaded_may_be_as_old_as_what_it_is_forked_from(tmp_path: Path) -> None:
    socket = tmp_path / "template"
    socket.touch()
    cold = Job(Project(tmp_path, environ={}), None, {})
    warm = Job(Project(tmp_path, environ={TEMPLATE: str(socket)}), None, {})
    assert cold.loading_since == cold.since
    assert warm.loading_since == socket.stat().st_ctime_ns <= warm.since


def test_what_is_remembered_of_files_may_be_damaged_or_gone(tmp_path: Path) -> None:
    project, path = Project.open(tmp_path), tmp_path / "data.bin"
    path.write_bytes(b"1")
    with Cache(project) as cache:
        cache.digest("file", path)
    memo = project.store.path / "seen.json"
    memo.write_bytes(memo.read_bytes().replace(b"blake3:", b"blake3:0", 2))
    assert Cache(project).digest("file", path) == digest_of(b"1")
    memo.write_bytes(b"\xff\n{")
    assert Cache(project).digest("file", path) == digest_of(b"1")
