"""What a run used is locked by hash and made again; what cannot be is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.pylock import Pylock

from jupyter_mlops import cli
from jupyter_mlops.environment import canonical, observe
from jupyter_mlops.environment.locking import (
    Lock,
    LockedFile,
    LockedPackage,
    LockInvalid,
    _file,
    lock,
    read_lock,
    repacked,
    used,
    uv,
)
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.pipelines import run_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import Digest, Environment, Gap, Package, digest_of
from jupyter_mlops.reproduce.create import CreateFailed, FolderTaken, create, read_back, write
from jupyter_mlops.reproduce.past import past

SHA = "61a3265b914e850b85317d0b3109c7f8cd35a670f963866005d6ef1d5175a12b"
PUBLIC = "/packages/85/32/10bb5764d90a8eee674e9dc6f4db6a0ab47c8c4d0d83c27f7c39ac415a4d/click-8.2.1-py3-none-any.whl"


def keeper(kept: list[Path]) -> object:
    def keep(path: Path) -> Digest:
        kept.append(path)
        return digest_of(path.read_bytes())

    return keep


# -- what was used ---------------------------------------------------------------------------------------------------


def test_what_was_imported_is_locked_with_what_it_needs_and_nothing_else() -> None:
    environment = observe()
    names, gaps = used(environment, ["pandas"])
    assert {"pandas", "numpy", "python-dateutil", "six", "ipykernel", "ipython", "jupyter-client"} <= names
    assert not {"ruff", "mypy", "pytest", "duckdb"} & names
    assert gaps == []


def test_a_module_of_no_recorded_package_is_a_gap_and_the_projects_own_is_not() -> None:
    environment = observe()
    _, gaps = used(environment, ["pandas", "helpers", "lost_module"], local=["helpers"])
    assert [gap.subject for gap in gaps] == ["lost_module"]


def test_where_the_needs_of_a_package_are_not_known_all_is_locked_and_that_is_said() -> None:
    environment = Environment(
        python="3.11.7", packages=[Package(name="six", version="1.0"), Package(name="gone-since", version="2.0")]
    )
    names, gaps = used(environment, ["gone_since"])
    assert names == {"six", "gone-since"}
    assert "gone-since" in gaps[0].reason


def test_modules_in_memory_are_on_record_by_the_package_that_holds_them(project_folder: Path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    (project_folder / "helpers.py").write_text("x = 1\n")
    cells = [new_code_cell(text, id=f"c{at}") for at, text in enumerate(["x = 1", "import yaml, helpers", "y = 2"])]
    nbformat.write(new_notebook(cells=cells), project_folder / "a.ipynb")
    project = Project.open(project_folder)
    run = run_notebook(project_folder / "a.ipynb", project=project).run
    assert run is not None
    first, second, third = (
        one.ended.imported for one in project.store.cell_runs(run=run, newest_first=False) if one.ended
    )
    assert {"ipykernel", "IPython", "jupyter_mlops"} <= set(first)
    assert "yaml" in second
    assert "yaml" not in first
    assert third == []
    found = past(project.store, "the run", run, project.store.run(run))
    assert "helpers" in found.local_modules(project.store)
    _, gaps = used(found.environment(project.store), found.imported, found.local_modules(project.store))
    assert gaps == []


# -- the files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["https://user:token@mirror.example:8443/root/pypi", "http://10.0.0.7", ""])
def test_no_address_of_an_index_here_stands_in_a_lock(host: str) -> None:
    address = f"{host}{PUBLIC}" if not host.endswith("/pypi") else f"https://user:token@mirror.example:8443{PUBLIC}"
    file = _file({"url": address, "hashes": {"sha256": SHA}, "size": 1})
    assert file == LockedFile(
        name="click-8.2.1-py3-none-any.whl", sha256=SHA, url=f"https://files.pythonhosted.org{PUBLIC}", size=1
    )


@pytest.mark.parametrize(
    "address", ["https://user:token@nexus.internal/repository/py/own/1.0/own-1.0-py3-none-any.whl?sig=abc#x=y", ""]
)
def test_a_file_of_a_private_index_is_named_and_not_addressed(address: str) -> None:
    table = {"url": address} if address else {"path": "/home/me/wheels/own-1.0-py3-none-any.whl"}
    file = _file({**table, "hashes": {"sha256": SHA}})
    made = Lock(python="3.11.7", packages=(LockedPackage(name="own", version="1.0", files=(file,)),))
    text = made.pylock()
    assert "nexus" not in text
    assert "token" not in text
    assert "/home" not in text
    assert tomllib.loads(text)["packages"][0]["wheels"][0]["path"] == "wheels/own-1.0-py3-none-any.whl"
    Pylock.from_dict(tomllib.loads(text))


def test_a_lock_says_what_is_not_in_it_and_reads_back_as_it_was(tmp_path: Path) -> None:
    file = LockedFile(name="own-1.0-py3-none-any.whl", sha256=SHA, size=3, object=digest_of(b"own"))
    made = Lock(
        python="3.11.7", packages=(LockedPackage(name="own", version="1.0", files=(file,)),), source="models:/m/1",
        gaps=(Gap(subject="lost", reason='said "no"\nand \x7f more'),),
    )  # fmt: skip
    write(made, tmp_path / "pylock.toml", tmp_path / "requirements.txt")
    assert read_lock(tmp_path / "pylock.toml") == made
    text = (tmp_path / "requirements.txt").read_text()
    assert f"own==1.0 \\\n    --hash=sha256:{SHA}\n" in text
    assert "# gap: lost: " in text


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["packages"][0].update(name="../own"),
        lambda table: table["packages"][0]["wheels"][0].update(name="../../own-1.0-py3-none-any.whl"),
        lambda table: table["packages"][0]["wheels"][0].update(name="other-1.0-py3-none-any.whl"),
        lambda table: table["packages"][0]["wheels"][0].pop("hashes"),
        lambda table: table["packages"][0]["tool"]["jupyter-mlops"]["objects"].update(
            {"own-1.0-py3-none-any.whl": "../../../etc/passwd"}
        ),
        lambda table: table.update({"lock-version": "9.0"}),
        lambda table: table.pop("packages"),
        lambda table: table["tool"]["jupyter-mlops"].update(python="./3.11"),
        lambda table: table["packages"][0].update(version="1.0\n--index-url http://127.0.0.1:9/"),
        lambda table: table["packages"][0].pop("wheels"),
    ],
)
def test_a_hostile_or_damaged_lock_is_refused(tmp_path: Path, change: object) -> None:
    import tomli_w

    file = LockedFile(name="own-1.0-py3-none-any.whl", sha256=SHA, object=digest_of(b"own"))
    made = Lock(python="3.11.7", packages=(LockedPackage(name="own", version="1.0", files=(file,)),))
    table = tomllib.loads(made.pylock())
    assert callable(change)
    change(table)
    (tmp_path / "pylock.toml").write_text(tomli_w.dumps(table))
    with pytest.raises(LockInvalid):
        read_lock(tmp_path / "pylock.toml")


def test_what_a_hostile_record_says_is_no_word_for_an_installer(tmp_path: Path) -> None:
    program = tmp_path / "3.11"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    with pytest.raises(LockInvalid, match="no version of Python"):
        create(Lock(python=str(program)), tmp_path / "env", offline=True)
    with pytest.raises(LockInvalid, match="no version of Python"):
        lock(Environment(python=str(program)), [], keep=keeper([]), folder=tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / "ran").exists()

    packages = [
        Package(name="six", version="1.0\n--index-url http://127.0.0.1:9/"),
        Package(name="six", version="1.17.0", loaded="1.0 @ file:///tmp/x"),
        Package(name=f"six@file://{tmp_path}/", version="1.0"),
    ]
    names = [one.name for one in packages]
    made = lock(Environment(python="3.11.7", packages=packages), names, keep=keeper([]), folder=tmp_path)  # type: ignore[arg-type]
    assert made.packages == ()
    assert {gap.reason for gap in made.gaps} == {"its name or version is none"}

    said = Lock(python="3.11.7", source="a\r-e .", gaps=(Gap(subject="b\u2028-e .", reason="c\x85d\n-e ."),))
    assert all(line.startswith("#") for line in said.requirements().splitlines())


def test_a_lock_has_a_name_that_the_standard_gives_it(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"pylock\.toml"):
        write(Lock(python="3.11.7"), tmp_path / "lock.toml")


# -- what no index has -----------------------------------------------------------------------------------------------


def test_an_installed_package_is_packed_again_to_the_same_bytes_and_installs_to_the_same_files(
    tmp_path: Path, wheel: Callable[..., Path]
) -> None:
    source = wheel(tmp_path / "in", "own-tool", "1.0", own_tool="x = 1\n")
    places = [tmp_path / "one", tmp_path / "two"]
    assert uv("pip", "install", "-q", "--target", str(places[0]), str(source), offline=True).returncode == 0
    found = next(iter(metadata.distributions(path=[str(places[0])])))
    made, note = repacked(found, tmp_path)
    assert (made.name, note) == ("own_tool-1.0-py3-none-any.whl", "")
    first = made.read_bytes()
    os.utime(places[0] / "own_tool.py", (1, 1))
    assert repacked(found, tmp_path)[0].read_bytes() == first
    assert uv("pip", "install", "-q", "--target", str(places[1]), str(made), offline=True).returncode == 0
    texts = [(place / "own_tool.py").read_text() for place in places]
    assert texts == ["x = 1\n", "x = 1\n"]
    (places[0] / "own_tool.py").write_text("x = 2\n")
    assert repacked(found, tmp_path)[1] == "not as it was installed: own_tool.py"


def test_a_package_from_no_index_that_is_not_here_any_more_is_a_gap(tmp_path: Path) -> None:
    environment = Environment(
        python="3.11.7", packages=[Package(name="own-tool", version="1.0", origin="direct x.whl")]
    )
    kept: list[Path] = []
    made = lock(environment, ["own-tool"], keep=keeper(kept), folder=tmp_path / "wheels")  # type: ignore[arg-type]
    assert made.packages == ()
    assert made.gaps == (Gap(subject="own-tool", reason="it came from no index and is not installed here"),)
    assert kept == []


# -- with an index ---------------------------------------------------------------------------------------------------


def test_a_version_that_the_index_does_not_have_is_a_gap_and_the_others_are_locked(index: None, tmp_path: Path) -> None:
    packages = [
        Package(name="six", version="1.17.0"), Package(name="click", version="8.2.1", loaded="8.2.0"),
        Package(name="six-of-nobody-at-all", version="1.0"), Package(name="pluggy", version="99.99"),
    ]  # fmt: skip
    environment = Environment(python="3.11.7", packages=packages)
    names = [one.name for one in packages]
    made = lock(environment, names, keep=keeper([]), folder=tmp_path)  # type: ignore[arg-type]
    assert [(one.name, one.version) for one in made.packages] == [("click", "8.2.0"), ("six", "1.17.0")]
    assert {gap.subject for gap in made.gaps} == {"six-of-nobody-at-all", "pluggy"}
    assert all(file.url.startswith("https://files.pythonhosted.org/") for one in made.packages for file in one.files)


def test_a_run_is_locked_and_its_environment_made_anew_with_a_kernel(
    index: None, project_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [new_code_cell("import yaml\nx = yaml.safe_load('[1, 2]')", id="a")]
    nbformat.write(new_notebook(cells=cells), project_folder / "a.ipynb")
    project = Project.open(project_folder)
    run = run_notebook(project_folder / "a.ipynb", project=project).run
    assert run is not None
    assert cli._shell(["env", "lock", "--requirements", "requirements.txt"]) == 0
    said = capsys.readouterr().out
    assert run[7:17] in said
    assert "jupyter_mlops-" in said
    table = tomllib.loads((project_folder / "pylock.toml").read_text())
    names = {one["name"] for one in table["packages"]}
    assert {"pyyaml", "ipykernel", "jupyter-mlops"} <= names
    assert "ruff" not in names
    for name in ("pylock.toml", "requirements.txt"):
        text = (project_folder / name).read_text()
        assert str(project_folder) not in text
        assert str(Path.home()) not in text
    (project_folder / "wheels").rename(project_folder / "gone")  # the store has them too
    assert cli._shell(["env", "create", "pylock.toml", "new", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["differs"] == []
    there = read_back(project_folder / "new" / "bin" / "python")
    assert {one.name: one.version for one in there.packages} == {
        canonical(one["name"]): one["version"] for one in table["packages"]
    }
    listed = subprocess.run(
        [project_folder / "new/bin/python", "-m", "jupyter_client.kernelspecapp", "list", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    spec = json.loads(listed.stdout)["kernelspecs"]["python3"]
    assert spec["spec"]["argv"][0] == str(project_folder / "new/bin/python")
    own = project_folder / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(own))
        assert cli._shell(["env", "create", run, "other", "--kernel", "then", "--offline"]) == 0  # it is in the cache
    spec = json.loads((own / "kernels" / "then" / "kernel.json").read_text())
    assert spec["argv"][0] == str(project_folder / "other/bin/python")
    assert "among yours" in capsys.readouterr().out
    assert cli._shell(["env", "create", "pylock.toml", "new"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_file_with_another_hash_than_the_locked_one_is_not_installed(index: None, tmp_path: Path) -> None:
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    environment = Environment(python=minor, packages=[Package(name="six", version="1.17.0")])
    good = lock(environment, ["six"], keep=keeper([]), folder=tmp_path)  # type: ignore[arg-type]
    files = tuple(LockedFile(name=file.name, sha256="0" * 64, url=file.url) for file in good.packages[0].files)
    bad = Lock(python=good.python, packages=(LockedPackage(name="six", version="1.17.0", files=files),))
    with pytest.raises(CreateFailed, match=r"(?i)hash"):
        create(bad, tmp_path / "env")


def test_no_python_is_downloaded_unasked(tmp_path: Path) -> None:
    with pytest.raises(CreateFailed, match=r"there is no Python 3\.4 here"):
        create(Lock(python="3.4.1"), tmp_path / "env", offline=True)


def test_an_environment_is_never_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years\n")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    for name in ("work", "link", "work/thesis.tex"):
        with pytest.raises(FolderTaken):
            create(Lock(python="3.11.7"), tmp_path / name, offline=True)
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years\n"
