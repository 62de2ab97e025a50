"""An authorizer for a server of the tests: reading is allowed, and what a file in the server's folder lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.auth import Authorizer, User
from jupyter_server.base.handlers import JupyterHandler


class Guard(Authorizer):
    """Allows what stands in the file ``may``, an action and a resource on each line."""

    def is_authorized(self, handler: JupyterHandler, user: User, action: str, resource: str) -> Any:
        file = Path(handler.settings["server_root_dir"]).expanduser() / "may"
        allowed = file.read_text().splitlines() if file.exists() else []
        return action == "read" or f"{action} {resource}" in allowed
