"""The architecture is kept by tools: one way down, a pure core, light imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jupyter_mlops

PACKAGE = Path(jupyter_mlops.__file__).parent
HEAVY = {"pandas", "numpy", "sklearn", "papermill", "git", "jupyter_server", "skops", "pyarrow", "nbformat", "sqlite3"}


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def loaded_after(code: str) -> set[str]:
    return {name.partition(".")[0] for name in modules_after(code)}


def test_imports_go_one_way_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("needs import-linter: pip install 'jupyter-mlops[test]'")
    done = subprocess.run([linter], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import jupyter_mlops") & (HEAVY | {"IPython", "click", "msgspec", "blake3"})


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_after("from jupyter_mlops.cli import mlops") & (HEAVY | {"IPython"})


def test_loading_the_extension_loads_nothing_heavy(project_folder: Path) -> None:
    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "before = __import__('sys').modules.copy()\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'jupyter_mlops')\n"
    )
    # IPython itself loads sqlite3 for its history.
    assert not loaded_after(code) & (HEAVY - {"sqlite3"})


def test_a_jupyter_server_that_starts_loads_nothing_that_runs_notebooks_or_reads_records() -> None:
    names = modules_after("import jupyter_mlops.server.routes")
    later = ("pipelines.engine", "pipelines.runs", "pipelines.sweeps", "server.answers", "views", "lineage", "registry")
    assert not names & {f"jupyter_mlops.{name}" for name in later}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module begins with what it is for"


def test_only_project_and_environment_look_at_the_surroundings() -> None:
    allowed = {"project.py", "environment"}
    # A program of its own, that no module of ours imports to run: it makes the surroundings of the kernels it forks.
    apart = PACKAGE / "targets" / "template.py"
    for path in PACKAGE.rglob("*.py"):
        if path.name in allowed or path.parent.name in allowed or path == apart:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                assert node.attr not in {"environ", "getenv"}, f"{path.name}:{node.lineno} reads the environment"
