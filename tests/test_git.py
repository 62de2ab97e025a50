"""The state of the code is told truly, and reading it runs nothing that a repository names."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_mlops.git import Observer, Repository, local_modules
from jupyter_mlops.records import Artifact, CodeState, Digest, digest_of
from jupyter_mlops.redact import Redactor


class Objects:
    """Where a store would keep bytes."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}

    def put(self, data: bytes) -> Digest:
        digest = digest_of(data)
        self.kept[digest] = bytes(data)
        return digest

    def text(self, artifact: Artifact) -> str:
        assert artifact.digest is not None
        return self.kept[artifact.digest].decode()


@pytest.fixture
def objects() -> Objects:
    return Objects()


def git(folder: Path, *words: str) -> str:
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    fixed = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    done = subprocess.run([*fixed, *words], cwd=folder, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.py").write_text("a = 1\n")
    (folder / "b.py").write_text("b = 1\n")
    (folder / ".gitignore").write_text("ignored/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def read(folder: Path, objects: Objects, redactor: Redactor | None = None, **caps: int) -> CodeState:
    found = Repository.find(folder)
    assert found is not None
    return found.state(redactor or Redactor(), objects.put, **caps)


def by_name(state: CodeState) -> dict[str, Artifact]:
    return {artifact.name: artifact for artifact in state.dirty}


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_clean_repository_is_its_commit_and_branch(repository: Path, objects: Objects) -> None:
    assert read(repository, objects) == CodeState(commit=git(repository, "rev-parse", "HEAD"), branch="main")
    assert not objects.kept


def test_the_repository_is_found_from_below_and_not_from_outside(repository: Path, tmp_path: Path) -> None:
    below = repository / "x" / "y"
    below.mkdir(parents=True)
    found = Repository.find(below)
    assert found is not None
    assert found.root == repository.resolve()
    assert Repository.find(tmp_path) is None
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert Repository.find(tmp_path) is None


def test_what_is_not_committed_is_kept_with_its_text(repository: Path, objects: Objects) -> None:
    (repository / "a.py").write_text("a = 2\n")
    (repository / "new é\n name.py").write_text("n = 1\n")
    (repository / "b.py").unlink()
    (repository / "ignored").mkdir()
    (repository / "ignored" / "x.py").write_text("x")
    (repository / "staged.py").write_text("s = 1\n")
    git(repository, "add", "staged.py")
    state = read(repository, objects)
    found = by_name(state)
    assert {name: one.type for name, one in found.items()} == {
        "a.py": "modified", "b.py": "deleted", "new é\n name.py": "untracked", "staged.py": "added",
    }  # fmt: skip
    assert objects.text(found["a.py"]) == "a = 2\n"
    assert objects.text(found["new é\n name.py"]) == "n = 1\n"
    assert found["b.py"].digest is None
    assert found["a.py"].stored


def test_secrets_in_uncommitted_files_are_masked_before_they_are_kept(repository: Path, objects: Objects) -> None:
    secret = "".join(("Zq7", "tB1", "mN4", "xK9"))
    (repository / "a.py").write_text(f"password = '{secret}'\n")
    (repository / ".env").write_text(f"X={secret}\n")
    (repository / "id_rsa").write_text(secret)
    state = read(repository, objects)
    assert not any(secret.encode() in data for data in objects.kept.values())
    assert by_name(state)["a.py"].why == "1 secret masked"
    assert by_name(state)[".env"].digest is None
    assert any(".env" in gap.reason and "credentials" in gap.reason for gap in state.gaps)


def test_what_is_large_or_no_text_is_left_out_and_said(repository: Path, objects: Objects) -> None:
    (repository / "large.csv").write_text("x" * 3000)
    (repository / "image.png").write_bytes(b"\x89PNG\0\0")
    (repository / "analysis.ipynb").write_text("{}")
    for number in range(4):
        (repository / f"t{number}.txt").write_text("y" * 900)
    state = read(repository, objects, cap=1000, total=2000)
    found = by_name(state)
    assert sum(len(data) for data in objects.kept.values()) <= 2000
    assert sum(one.stored for one in state.dirty if one.name.startswith("t")) == 2
    assert found["large.csv"].why.startswith("not kept: is larger")
    assert found["image.png"].why == "not kept: is no text"
    assert found["analysis.ipynb"].digest is None
    reasons = " ".join(gap.reason for gap in state.gaps)
    assert "large.csv" in reasons
    assert "image.png" in reasons


def test_links_pipes_and_ways_out_of_the_repository_are_not_followed(
    repository: Path, tmp_path: Path, objects: Objects
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("not yours")
    (repository / "link.txt").symlink_to(outside)
    (tmp_path / "folder").mkdir()
    (repository / "d").mkdir()
    (repository / "d" / "outside.txt").write_text("tracked\n")
    git(repository, "add", "d")
    git(repository, "commit", "-qm", "d")
    (repository / "d" / "outside.txt").unlink()
    (repository / "d").rmdir()
    (repository / "d").symlink_to(tmp_path)
    os.mkfifo(repository / "pipe.txt")
    state = read(repository, objects)
    assert not any(b"not yours" in data for data in objects.kept.values())
    assert by_name(state)["link.txt"].digest is None


def test_names_and_texts_that_are_no_utf8_do_not_stop_it(repository: Path, objects: Objects) -> None:
    (repository / os.fsdecode(b"caf\xe9.py")).write_bytes(b"x = '\xe9'\n")
    state = read(repository, objects)
    (one,) = state.dirty
    assert one.digest is not None
    assert objects.kept[one.digest] == b"x = '\xe9'\n"


def test_a_detached_head_has_no_branch(repository: Path, objects: Objects) -> None:
    git(repository, "checkout", "-q", "--detach")
    state = read(repository, objects)
    assert (state.branch, state.commit) == ("", git(repository, "rev-parse", "HEAD"))


def test_a_repository_without_commits_has_a_branch_and_files(tmp_path: Path, objects: Objects) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk", "fresh")
    (tmp_path / "fresh" / "a.py").write_text("a = 1\n")
    state = read(tmp_path / "fresh", objects)
    assert (state.commit, state.branch) == ("", "trunk")
    assert list(by_name(state)) == ["a.py"]


def test_a_worktree_and_a_bare_repository_are_read(repository: Path, tmp_path: Path, objects: Objects) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    (tmp_path / "side" / "a.py").write_text("a = 3\n")
    state = read(tmp_path / "side", objects)
    assert (state.branch, list(by_name(state))) == ("side", ["a.py"])
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    state = read(tmp_path / "bare.git", objects)
    assert state == CodeState(commit=git(repository, "rev-parse", "main"), branch="main", remote=state.remote)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://ana:pw-1234@example.org/o/r.git", "https://example.org/o/r.git"),
        ("https://sometoken123@example.org/o/r.git?x=1#y", "https://example.org/o/r.git?x=1"),
        ("git@example.org:o/r.git", "example.org:o/r.git"),
    ],
)
def test_the_remote_is_told_without_credentials(repository: Path, objects: Objects, url: str, clean: str) -> None:
    git(repository, "remote", "add", "origin", url)
    assert read(repository, objects).remote == clean


def test_the_branch_s_own_remote_comes_before_origin(repository: Path, objects: Objects) -> None:
    git(repository, "remote", "add", "origin", "https://example.org/o/r.git")
    git(repository, "remote", "add", "fork", "https://example.org/f/r.git")
    git(repository, "config", "branch.main.remote", "fork")
    assert read(repository, objects).remote == "https://example.org/f/r.git"


def test_a_submodule_is_noted_and_not_entered(repository: Path, tmp_path: Path, objects: Objects) -> None:
    git(tmp_path, "clone", "-q", str(repository), "inner")
    git(repository, "submodule", "--quiet", "add", str(tmp_path / "inner"), "vendor")
    git(repository, "commit", "-qm", "submodule")
    trace = tmp_path / "ran"
    git(repository / "vendor", "config", "core.fsmonitor", f"touch {trace}; false")
    (repository / "vendor" / "a.py").write_text("changed\n")
    state = read(repository, objects)
    assert [gap.subject for gap in state.gaps] == ["vendor"]
    assert not trace.exists()


def test_a_malicious_configuration_runs_nothing(
    repository: Path, tmp_path: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "ran"
    command = f"touch {trace}; cat"
    git(repository, "remote", "add", "origin", f"ext::sh -c touch% {trace}")
    config = {
        "core.fsmonitor": f"touch {trace}; false", "core.fsmonitorHookVersion": "2", "core.hooksPath": "hooks",
        "core.sshCommand": command, "core.pager": command, "core.editor": command, "core.askPass": command,
        "core.gitProxy": command, "core.alternateRefsCommand": command, "filter.evil.clean": command,
        "filter.evil.smudge": command, "filter.evil.process": command, "filter.evil.required": "true",
        "filter.e=v.il.clean": command, "diff.external": command, "diff.evil.textconv": command,
        "diff.evil.command": command, "merge.evil.driver": command, "alias.status": f"!{command}",
        "alias.config": f"!{command}", "credential.helper": f"!{command}", "gpg.program": command,
        "protocol.ext.allow": "always", "remote.origin.promisor": "true", "remote.origin.uploadpack": command,
        "extensions.partialClone": "origin", "core.repositoryFormatVersion": "1", "pager.status": command,
        "status.submoduleSummary": "true", "uploadpack.packObjectsHook": command, "sequence.editor": command,
        "core.worktree": "..", "trace2.normalTarget": str(trace),
    }  # fmt: skip
    for key, value in config.items():
        if key != "core.worktree":
            git(repository, "config", key, value)
    hooks = repository / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "fsmonitor-watchman", "post-checkout", "pre-auto-gc", "reference-transaction"):
        for place in (hooks, repository / ".git" / "hooks"):
            place.mkdir(exist_ok=True)
            (place / name).write_text(f"#!/bin/sh\ntouch {trace}\n")
            (place / name).chmod(0o755)
    (repository / ".gitattributes").write_text("*.py filter=evil diff=evil merge=evil\n*.txt filter=e=v.il\n")
    (repository / "c.txt").write_text("c\n")
    for name in ("git", "ssh", "cat"):
        (repository / name).write_text(f"#!/bin/sh\ntouch {trace}\n")
        (repository / name).chmod(0o755)
    # same size and an index older than the file: git must read the content to know, which is when filters run
    (repository / "a.py").write_text("a = 9\n")
    os.utime(repository / "b.py", (1, 1))
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", command)
    monkeypatch.setenv("GIT_TRACE", str(trace))
    trace.unlink(missing_ok=True)
    state = read(repository, objects)
    assert not trace.exists()
    assert {"a.py", "c.txt", ".gitattributes"} <= set(by_name(state)) or state.gaps
    # the trap is real: an ordinary `git status` walks into it
    subprocess.run(
        ["/usr/bin/env", "git", "status"],
        cwd=repository,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert trace.exists()


def test_reading_writes_nothing_into_the_repository(repository: Path, objects: Objects) -> None:
    (repository / "a.py").write_text("a = 2\n")

    def seen() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in (repository / ".git").rglob("*")}

    before = seen()
    read(repository, objects)
    assert seen() == before


def test_without_git_the_commit_is_known_and_the_rest_is_a_gap(
    repository: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    monkeypatch.setenv("PATH", str(tmp_path))
    state = read(repository, objects)
    assert (state.commit, state.branch) == (commit, "main")
    assert "git is not installed" in state.gaps[0].reason


def test_a_damaged_repository_is_a_gap_and_no_error(repository: Path, objects: Objects) -> None:
    (repository / ".git" / "index").write_bytes(b"DIRC garbage")
    state = read(repository, objects)
    assert state.branch == "main"
    assert state.gaps
    assert str(repository) not in " ".join(gap.reason for gap in state.gaps)
    (repository / ".git" / "config").write_text("[core\nbroken")
    assert read(repository, objects).gaps


def test_hostile_references_are_not_followed(
    repository: Path, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    for head in ("ref: refs/heads/../../../../etc/hostname", "ref: /etc/hostname", "ref: refs/heads/" + "x" * 5000):
        (repository / ".git" / "HEAD").write_text(head + "\n")
        assert read(repository, objects).commit == ""


# -- kept current ----------------------------------------------------------------------------------------------------


@pytest.fixture
def observer(repository: Path, objects: Objects) -> Observer:
    one = Observer(repository, Redactor(), objects.put, interval=0.05)
    one.start()
    return one


def test_the_first_look_is_in_the_background_and_then_nothing_changes(repository: Path, observer: Observer) -> None:
    state = observer.current()
    assert state is not None
    assert state.branch == "main"
    assert not observer.changed()


def test_a_commit_is_noticed_at_once(repository: Path, observer: Observer) -> None:
    observer.current()
    (repository / "a.py").write_text("a = 5\n")
    git(repository, "commit", "-qam", "two")
    assert observer.changed()
    state = observer.current()
    assert state is not None
    assert state.commit == git(repository, "rev-parse", "HEAD")


def test_another_branch_is_noticed_at_once(repository: Path, observer: Observer) -> None:
    observer.current()
    git(repository, "checkout", "-q", "-b", "other")
    assert observer.changed()
    state = observer.current()
    assert state is not None
    assert state.branch == "other"


def test_an_edited_file_is_noticed_in_the_background(repository: Path, observer: Observer) -> None:
    observer.current()
    (repository / "a.py").write_text("a = 55\n")
    eventually(observer.changed)
    state = observer.current()
    assert state is not None
    assert list(by_name(state)) == ["a.py"]
    eventually(lambda: not observer.changed())


def test_no_repository_is_an_empty_state_without_gaps(tmp_path: Path, objects: Objects) -> None:
    observer = Observer(tmp_path, Redactor(), objects.put)
    observer.start()
    assert observer.current() == CodeState()


def test_a_store_that_fails_is_a_gap(repository: Path) -> None:
    (repository / "a.py").write_text("a = 5\n")

    def full(data: bytes) -> Digest:
        raise OSError(28, "No space left on device")

    observer = Observer(repository, Redactor(), full)
    state = observer.current()
    assert state is not None
    assert "OSError" in state.gaps[0].reason


def test_a_forked_child_does_not_look(repository: Path, observer: Observer) -> None:
    observer.current()
    (repository / "a.py").write_text("a = 5\n")
    git(repository, "commit", "-qam", "two")
    child = os.fork()
    if child == 0:
        os._exit(int(observer.changed()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- local modules ---------------------------------------------------------------------------------------------------


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.syspath_prepend(str(project))
    before = set(sys.modules)
    yield project
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_local_modules_are_kept_by_source_and_installed_ones_are_not(importable: Path, objects: Objects) -> None:
    (importable / "mlops_local_one.py").write_text("x = 1\n")
    package = importable / "mlops_local_two"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("password = 'Zq7tB1mN4'\n")
    for place in ("site-packages", "env/lib"):
        (importable / place).mkdir(parents=True)
        (importable / place / f"mlops_installed_{place[0]}.py").write_text("")
        sys.path.insert(0, str(importable / place))
    (importable / "env" / "pyvenv.cfg").write_text("")
    for name in ("mlops_local_one", "mlops_local_two.deep", "mlops_installed_s", "mlops_installed_e"):
        importlib.import_module(name)
    found = local_modules(importable, Redactor(), objects.put)
    assert [(one.name, one.type) for one in found] == [
        ("mlops_local_one.py", "mlops_local_one"),
        ("mlops_local_two/__init__.py", "mlops_local_two"),
        ("mlops_local_two/deep.py", "mlops_local_two.deep"),
    ]
    assert objects.text(found[0]) == "x = 1\n"
    assert "Zq7tB1mN4" not in objects.text(found[2])


def test_a_new_and_a_reloaded_module_are_noticed(importable: Path, objects: Objects) -> None:
    observer = Observer(importable, Redactor(), objects.put)
    observer.current()
    (importable / "mlops_local_three.py").write_text("x = 1\n")
    module = importlib.import_module("mlops_local_three")
    assert observer.changed()
    state = observer.current()
    assert state is not None
    assert [objects.text(one) for one in state.modules] == ["x = 1\n"]
    (importable / "mlops_local_three.py").write_text("x = 22\n")
    assert not observer.changed()  # what is in memory is still the old one
    importlib.reload(module)
    assert observer.changed()
    state = observer.current()
    assert state is not None
    assert [objects.text(one) for one in state.modules] == ["x = 22\n"]


def test_strange_things_among_the_modules_are_not_touched(importable: Path, objects: Objects) -> None:
    class Trap:
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

    sys.modules["mlops_trap"] = Trap()  # type: ignore[assignment]
    sys.modules["mlops_none"] = None  # type: ignore[assignment]
    assert local_modules(importable, Redactor(), objects.put) == []
