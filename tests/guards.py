"""For a server of the tests: who may what, and who somebody is, each as a file in the server's folder says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.auth import Authorizer, IdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async


class Guard(Authorizer):
    """Allows what stands in the file ``may``, an action and a resource on each line."""

    def is_authorized(self, handler: JupyterHandler, user: User, action: str, resource: str) -> Any:
        file = Path(handler.settings["server_root_dir"]).expanduser() / "may"
        allowed = file.read_text().splitlines() if file.exists() else []
        return action == "read" or f"{action} {resource}" in allowed


class Named(IdentityProvider):
    """Whoever has the server's token has the name that stands in the file ``who``; as a hub gives names."""

    def get_user(self, handler: Any) -> Any:
        return self._named(handler)

    async def _named(self, handler: JupyterHandler) -> User | None:
        user = await ensure_async(super().get_user(handler))
        file = Path(handler.settings["server_root_dir"]).expanduser() / "who"
        return user and (User(file.read_text()) if file.exists() else user)
