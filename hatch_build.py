"""Build hook: bundles the JupyterLab extension into the wheel where its source is in the tree.

The extension's source lives in ``labextension/``. A checkout without a ``package.json`` there has nothing to bundle,
and the wheel is pure Python.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LabExtensionHook(BuildHookInterface):
    """Puts what ``labextension/`` builds beside the package's modules."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bundle the extension, if there is one to bundle."""
        source = Path(self.root, "labextension")
        if not (source / "package.json").is_file():
            return
        raise RuntimeError("labextension/package.json is there, but this hook does not know how to build it yet")
