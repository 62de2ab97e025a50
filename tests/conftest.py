"""What every test stands on: a project of its own, in a folder of its own, with errors of our own made loud."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from kernels import Kernel
    from labs import Lab

# Every kernel, shell and subprocess that a test starts inherits these.
os.environ["JUPYTER_MLOPS_STRICT"] = "1"
for _name in (
    "JUPYTER_MLOPS_PROJECT",
    "JUPYTER_MLOPS_RUN",
    "JUPYTER_MLOPS_NOTEBOOK",
    "JUPYTER_MLOPS_HEADLESS",
    "JPY_SESSION_NAME",
    "COLUMNS",  # of a terminal, where there is none
):
    os.environ.pop(_name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also the tests that take minutes")
    parser.addoption("--gpu", action="store_true", help="also the tests that need a real NVIDIA GPU")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the same examples at every run, so that a run tells of the change at hand; new ones every night."""
    settings.register_profile("steady", derandomize=True)
    if not config.getoption("--nightly"):
        settings.load_profile("steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    late = [
        item
        for item in items
        if any(item.get_closest_marker(name) and not config.getoption(f"--{name}") for name in ("nightly", "gpu"))
    ]
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


class Page:
    """A notebook file and a real shell: cells are run, edited and deleted as a person does, by their ids."""

    def __init__(self, shell: Any, path: Path) -> None:
        self.shell = shell
        self.path = path
        self.cells: dict[str, str] = {}

    def write(self, **cells: str) -> None:
        """Put cells into the notebook, or edit those that are there, and save it."""
        self.cells.update(cells)
        self.save()

    def save(self, *, ids: bool = True) -> None:
        cells = [
            {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
            | ({"id": name} if ids else {})
            for name, source in self.cells.items()
        ]
        book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5 if ids else 4}
        self.path.write_text(json.dumps(book))

    def delete(self, name: str) -> None:
        del self.cells[name]
        self.save()

    def run(self, *names: str) -> Any:
        """Run cells as they stand, in this order; the last one's result."""
        result = None
        for name in names:
            result = self.shell.run_cell(self.cells[name], store_history=True, cell_id=name)
        return result

    def all(self, **cells: str) -> None:
        """Put cells into the notebook and run them from the top."""
        self.write(**cells)
        self.run(*cells)

    def say(self, source: str) -> Any:
        """Run a line that stands in no notebook, and give its value."""
        result = self.shell.run_cell(source, store_history=True)
        result.raise_error()
        return result.result

    def record(self) -> list[Any]:
        """The cell runs of this session, oldest first, but for those that ask for answers."""
        from jupyter_mlops import capture

        session = capture.session()
        assert session is not None
        assert session.errors == []
        session.settle()
        return session.store.cell_runs(run=session.run, newest_first=False)

    def last(self, name: str) -> Any:
        """The last run of a cell."""
        return [run for run in self.record() if run.started.cell == name][-1]


@pytest.fixture
def page(project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page of a notebook in a real shell that records."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    path = project_folder / "page.ipynb"
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    monkeypatch.syspath_prepend(str(project_folder))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_cell("%load_ext jupyter_mlops", store_history=True, cell_id="load")
    one = Page(shell, path)
    one.cells["load"] = "%load_ext jupyter_mlops"
    yield one
    shell.run_line_magic("unload_ext", "jupyter_mlops")
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(project_folder: Path) -> Iterator[Any]:
    """IPython's own shell with the extension loaded, in a project of its own."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_line_magic("load_ext", "jupyter_mlops")
    yield shell
    shell.run_line_magic("unload_ext", "jupyter_mlops")
    InteractiveShell.clear_instance()


@pytest.fixture(scope="session")
def wheel() -> Callable[..., Path]:
    """Make a wheel of a small pure package: folder, name, version, modules by name."""

    def make(folder: Path, name: str, version: str, **modules: str) -> Path:
        stem = f"{name.replace('-', '_')}-{version}"
        files = {f"{module}.py": text for module, text in modules.items()}
        files[f"{stem}.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[f"{stem}.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        rows = []
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text)}\n")
        files[f"{stem}.dist-info/RECORD"] = "".join(rows) + f"{stem}.dist-info/RECORD,,\n"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(target, "w") as archive:
            for inside, text in files.items():
                archive.writestr(inside, text)
        return target

    return make


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The package index, or the test is skipped."""
    from jupyter_mlops.environment.locking import uv

    folder = tmp_path_factory.mktemp("index")
    (folder / "asked.in").write_text("six==1.17.0\n")
    done = uv("pip", "compile", "--no-deps", "--refresh", "-q", str(folder / "asked.in"), cwd=folder)
    if done.returncode != 0:
        pytest.skip("needs the package index")


@pytest.fixture
def kernel(project_folder: Path) -> Iterator[Kernel]:
    """A kernel in the project's folder that records."""
    from kernels import Kernel

    one = Kernel(project_folder)
    yield one
    if one.manager.is_alive():
        one.stop()


@pytest.fixture
def start(project_folder: Path) -> Iterator[Callable[..., Kernel]]:
    """Starts kernels in the project's folder, with options of one's own."""
    from kernels import Kernel

    kernels: list[Kernel] = []

    def begin(**options: Any) -> Kernel:
        kernels.append(Kernel(project_folder, **options))
        return kernels[-1]

    yield begin
    for one in kernels:
        if one.manager.is_alive():
            one.stop()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab that serves an empty folder, or the test is skipped: one for the whole session."""
    pytest.importorskip("jupyterlab", reason="needs jupyterlab: pip install 'jupyter-mlops[lab]'")
    from labs import Lab

    one = Lab(tmp_path_factory.mktemp("lab"))
    yield one
    one.stop()
