"""What every test stands on: a project of its own, in a folder of its own, with errors of our own made loud."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Every kernel, shell and subprocess that a test starts inherits these.
os.environ["JUPYTER_MLOPS_STRICT"] = "1"
for _name in (
    "JUPYTER_MLOPS_PROJECT",
    "JUPYTER_MLOPS_RUN",
    "JUPYTER_MLOPS_NOTEBOOK",
    "JUPYTER_MLOPS_HEADLESS",
    "JPY_SESSION_NAME",
):
    os.environ.pop(_name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    late = [] if config.getoption("--nightly") else [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=late)
    items[:] = [item for item in items if item not in late]
    for item in items:
        for marker in item.iter_markers("needs"):
            if shutil.which(marker.args[0]) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs {marker.args[0]}: tests/run.sh --system-packages"))


@pytest.fixture(scope="session", autouse=True)
def _own_jupyter(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kernels of the tests keep their histories and connection files to themselves."""
    home = tmp_path_factory.mktemp("jupyter")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        folder = home / name.lower()
        folder.mkdir()
        os.environ[name] = str(folder)


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder under git, with a project in it, that is the working directory."""
    from jupyter_mlops.store import Store

    folder = tmp_path / "project"
    folder.mkdir()
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-C", str(folder)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    (folder / "readme.txt").write_text("a project\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "Begin"], check=True)
    Store.create(folder / ".mlops").close()
    monkeypatch.chdir(folder)
    return folder
