"""What is installed is what the tree holds: the wheel, its entry points, its metadata, its hook."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

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
