"""A past run's code and files come into a folder of their own, and nowhere else whatever the record says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_mlops import cli
from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellStarted,
    CodeState,
    Digest,
    RunStarted,
    digest_of,
)  # fmt: skip
from jupyter_mlops.reproduce.checkout import Checkout, checkout, inside
from jupyter_mlops.reproduce.create import FolderTaken
from jupyter_mlops.reproduce.past import past

HOSTILE = [
    "", ".", "..", "../x", "a/../../x", "/etc/cron.d/x", "//x", "~/x", "~root/x", "a/./../../x", "a\\..\\x", "C:/x",
    "c:x", ".git/hooks/post-checkout", "a/.git/config", ".GIT/config", ".git /config", ".git./config",
    ".g\u200cit/config", "git~1/config", "GIT~2/x",
    ".mlops/format", ".Mlops/x", "con", "NUL.txt", "a/aux.csv", "COM1", "lpt9.log", "com¹",
    "a\0b", "a\nb", "\x1b[2Jx", "a\x7f", "x.", "x ", "a/b /c", "file:stream", "\udcff", "a/" * 80 + "x", "x" * 300,
]  # fmt: skip


def git(folder: Path, *words: str, data: str = "") -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-C", str(folder), *words],
        input=data, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def everything(folder: Path) -> dict[str, str]:
    """Each file and link below a folder, with its text or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text(errors="replace")
    return found


def of_record(project: Project, state: CodeState | None = None, **ended: object) -> Callable[[Path], Checkout]:
    """Put a run of one cell on record, and say how to check it out."""
    store = project.store
    run = store.append(RunStarted(trigger="session", notebook="a.ipynb"))
    code = store.append(state) if state is not None else None
    cell = store.append(CellStarted(run=run, code=code, count=1, cell="c", notebook="a.ipynb", source="x = 1"))
    store.append(CellEnded(cell_run=cell, status="done", **ended))  # type: ignore[arg-type]
    return lambda folder: checkout(past(store, "it", run, store.run(run)), project, folder)


def test_a_run_comes_back_as_it_was_though_everything_has_changed_since(
    project_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project_folder / "committed.py").write_text("value = 1\n")
    (project_folder / "tool.sh").write_text("#!/bin/sh\n")
    (project_folder / "tool.sh").chmod(0o755)
    (project_folder / "gone.py").write_text("value = 0\n")
    (project_folder / "latest").symlink_to("committed.py")
    (project_folder / "big.csv").write_text("a\n1\n")
    (project_folder / ".gitignore").write_text("big.csv\n*.out.ipynb\n")
    git(project_folder, "add", ".")
    git(project_folder, "commit", "-qm", "More")
    (project_folder / "committed.py").write_text("value = 2\n")
    (project_folder / "new.py").write_text("value = 3\n")
    (project_folder / "gone.py").unlink()
    sources = ["import committed, new", "text = open('big.csv').read()", "y = committed.value + new.value"]
    cells = [new_code_cell(source, id=f"c{at}") for at, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), project_folder / "a.ipynb")
    run = run_notebook(project_folder / "a.ipynb", project=Project.open(project_folder)).run
    assert run is not None
    for name in ("committed.py", "new.py", "big.csv", "a.ipynb", "tool.sh"):
        (project_folder / name).write_text("changed since\n")
    folder = tmp_path / "then"
    assert cli._shell(["checkout", run, str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = everything(folder)
    book = json.loads(found.pop("a.ipynb"))
    assert found == {
        "readme.txt": "a project\n", "committed.py": "value = 2\n", "new.py": "value = 3\n", "tool.sh": "#!/bin/sh\n",
        "latest": "-> committed.py", ".gitignore": "big.csv\n*.out.ipynb\n",
    }  # fmt: skip
    assert os.access(folder / "tool.sh", os.X_OK)
    assert [cell["source"] for cell in book["cells"]] == sources
    assert book["metadata"]["mlops"]["run"] == run
    nbformat.validate(nbformat.from_dict(book))
    (missing,) = said["missing"]
    assert (missing["name"], missing["digest"], missing["size"]) == ("big.csv", digest_of(b"a\n1\n"), 4)


def test_nothing_is_ever_written_over_something(project_folder: Path, tmp_path: Path) -> None:
    go = of_record(Project.open(project_folder))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years\n")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    for name in ("work", "link", "work/thesis.tex"):
        with pytest.raises(FolderTaken) as refused:
            go(tmp_path / name)
        assert refused.value.exit_code == 2
    assert everything(tmp_path / "work") == {"thesis.tex": "years\n"}
    assert list((tmp_path / "empty").iterdir()) == []
    assert go(tmp_path / "empty").notebook == "a.ipynb"


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_path_that_could_lie_elsewhere_is_refused(name: str) -> None:
    assert inside(name) == ""


@pytest.mark.parametrize("name", ["a.csv", "data/a b.csv", "données/été.csv", "a/..b/c", ".github/x", "console.log"])
def test_a_path_that_lies_inside_stays_as_it_is(name: str) -> None:
    assert inside(name) == name


def test_hostile_paths_of_records_are_listed_and_written_nowhere(project_folder: Path, tmp_path: Path) -> None:
    project = Project.open(project_folder)
    digest = project.store.put(b"owned\n")

    def all_of(kind: str, type_: str) -> list[Artifact]:
        names = [name for name in HOSTILE if name]
        return [Artifact(name=name, kind=kind, type=type_, digest=digest, size=6, stored=True) for name in names]

    state = CodeState(dirty=all_of("file", "untracked"), modules=all_of("module", "m"))
    go = of_record(project, state, files_read=all_of("file", ""), modules=all_of("module", "m"))
    (tmp_path / "x").write_text("mine\n")
    before = everything(tmp_path)
    made = go(tmp_path / "out" / "then")
    after = everything(tmp_path)
    assert {name for name in after if name not in before and not name.startswith("project/.mlops/")} == {
        "out/then/a.ipynb"
    }
    assert after["x"] == "mine\n"
    assert {one.name for one in made.missing} == {name for name in HOSTILE if name}


def test_a_notebook_with_a_hostile_path_is_written_under_a_name_of_ours(project_folder: Path, tmp_path: Path) -> None:
    project = Project.open(project_folder)
    run = project.store.append(RunStarted(trigger="session", notebook="../../evil.ipynb"))
    cell = project.store.append(CellStarted(run=run, count=1, source="x = 1"))
    project.store.append(CellEnded(cell_run=cell, status="done"))
    made = checkout(past(project.store, "it", run, project.store.run(run)), project, tmp_path / "then")
    assert list(everything(tmp_path / "then")) == [made.notebook]
    assert made.notebook.startswith("run-")


def test_links_of_a_commit_stay_only_where_they_lead_inside(project_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("mine\n")
    (project_folder / "a").mkdir()
    (project_folder / "a" / "deep.txt").write_text("deep\n")
    links = {
        "good": "a/deep.txt", "folder": "a", "absolute": "/etc/passwd", "up": "../secret.txt",
        "sly": "a/../../secret.txt", "p/q/turn": "../../a", "across": "p/q/turn/../../secret.txt",
        "self": "self", "nothing": "not/there",
    }  # fmt: skip
    for name, target in links.items():
        (project_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project_folder / name).symlink_to(target)
    git(project_folder, "add", ".")
    git(project_folder, "commit", "-qm", "Links")
    go = of_record(Project.open(project_folder), CodeState(commit=git(project_folder, "rev-parse", "HEAD")))
    made = go(tmp_path / "then")
    left = {name for name, text in everything(tmp_path / "then").items() if text.startswith("->")}
    assert {"good", "folder", "p/q/turn", "nothing"} <= left
    assert not {"absolute", "up", "sly", "across"} & left
    for path in (tmp_path / "then").rglob("*"):
        assert os.path.realpath(path).startswith(str(tmp_path / "then"))
    assert {"absolute", "up", "sly", "across"} <= {gap.subject for gap in made.gaps}


def test_a_repositorys_filters_hooks_and_attributes_do_nothing(project_folder: Path, tmp_path: Path) -> None:
    (project_folder / "data.txt").write_text("$Format:%H$\nas it is\n")
    (project_folder / "hidden.txt").write_text("also here\n")
    (project_folder / ".gitattributes").write_text("*.txt filter=evil ident eol=crlf\nhidden.txt export-ignore\n")
    git(project_folder, "add", ".")
    git(project_folder, "commit", "-qm", "Attributes")
    for key in ("clean", "smudge"):
        git(project_folder, "config", f"filter.evil.{key}", f"touch {tmp_path}/ran; cat")
    (project_folder / ".git/hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (project_folder / ".git/hooks/post-checkout").chmod(0o755)
    go = of_record(Project.open(project_folder), CodeState(commit=git(project_folder, "rev-parse", "HEAD")))
    go(tmp_path / "then")
    found = everything(tmp_path / "then")
    assert found["data.txt"] == "$Format:%H$\nas it is\n"
    assert found["hidden.txt"] == "also here\n"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("commit", ["f" * 40, "--upload-pack=touch x", "HEAD", "main:readme.txt", "../x"])
def test_a_commit_that_is_not_here_is_a_gap_and_the_cells_come_back(
    project_folder: Path, tmp_path: Path, commit: str
) -> None:
    made = of_record(Project.open(project_folder), CodeState(commit=commit))(tmp_path / "then")
    assert list(everything(tmp_path / "then")) == ["a.ipynb"]
    assert any("commit" in gap.reason for gap in made.gaps)


def test_bytes_that_are_gone_are_listed_and_the_rest_comes_back(project_folder: Path, tmp_path: Path) -> None:
    project = Project.open(project_folder)
    kept, lost = project.store.put(b"kept\n"), digest_of(b"never kept\n")
    files = [
        Artifact(name=name, kind="file", type="untracked", digest=Digest(digest), size=5, stored=True)
        for name, digest in (("kept.txt", kept), ("lost.txt", lost))
    ]
    made = of_record(project, CodeState(dirty=files))(tmp_path / "then")
    assert sorted(everything(tmp_path / "then")) == ["a.ipynb", "kept.txt"]
    assert [(one.name, one.digest, one.why) for one in made.missing] == [("lost.txt", lost, "its bytes are gone")]


def test_a_submodule_and_a_masked_secret_are_said(project_folder: Path, tmp_path: Path) -> None:
    project = Project.open(project_folder)
    commit = git(project_folder, "rev-parse", "HEAD")
    git(project_folder, "update-index", "--add", "--cacheinfo", f"160000,{commit},library")
    git(project_folder, "commit", "-qm", "Submodule")
    store = project.store
    run = store.append(RunStarted(trigger="session"))
    code = store.append(CodeState(commit=git(project_folder, "rev-parse", "HEAD")))
    cell = store.append(CellStarted(run=run, code=code, count=1, redacted=2, cell="c9", source="key = '<masked>'"))
    store.append(CellEnded(cell_run=cell, status="done"))
    made = checkout(past(store, "it", run, store.run(run)), project, tmp_path / "then")
    assert {gap.subject for gap in made.gaps} == {"library", "cell c9"}


def test_a_project_inside_of_a_repository_comes_back_at_its_place(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "repo")
    folder = tmp_path / "repo" / "study"
    folder.mkdir()
    (tmp_path / "repo" / "top.txt").write_text("top\n")
    (folder / "helpers.py").write_text("x = 1\n")
    git(tmp_path / "repo", "add", ".")
    git(tmp_path / "repo", "commit", "-qm", "Begin")
    project = Project(folder)
    digest = project.store.put(b"x = 2\n")
    state = CodeState(
        commit=git(folder, "rev-parse", "HEAD"),
        modules=[Artifact(name="helpers.py", kind="module", type="helpers", digest=digest, stored=True)],
    )
    made = of_record(project, state)(tmp_path / "then")
    assert made.project == tmp_path / "then" / "study"
    found = everything(tmp_path / "then")
    assert found["study/helpers.py"] == "x = 2\n"
    assert found["top.txt"] == "top\n"
    assert "study/a.ipynb" in found
