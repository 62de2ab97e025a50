"""A real JupyterLab with a token, its protection against forged requests, and a base address as a hub gives one."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
TESTS = REPOSITORY / "tests"
BUILT = REPOSITORY / "jupyter_mlops" / "labextension"


class Lab:
    """A JupyterLab server of this very source, that serves `root`.

    Parameters
    ----------
    folder
        An empty folder for all of it.
    app
        `jupyterlab`, or `notebook` for Notebook 7.
    over
        A folder with packages in it that take the place of those that are installed, or join them.
    options
        Words for the server's command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        app: str = "jupyterlab",
        over: Path | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.app = app
        self.root = folder / "root"
        self.root.mkdir()
        self.token = secrets.token_hex(16)
        self._log = folder / "lab.log"
        config = folder / "config"
        (config / "labconfig").mkdir(parents=True)
        (config / "labconfig" / "page_config.json").write_text(
            json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}})
        )
        (config / "jupyter_server_config.d").mkdir()
        shutil.copy(
            REPOSITORY / "labextension" / "config" / "jupyter_server_config.json",
            config / "jupyter_server_config.d" / "jupyter_mlops.json",
        )
        # What was built from this tree, and not what happens to be installed beside it.
        (folder / "path" / "labextensions").mkdir(parents=True)
        (folder / "path" / "labextensions" / "jupyter-mlops").symlink_to(BUILT)
        environ = {
            **os.environ,
            **{
                name: str(folder / name.lower())
                for name in (
                    "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR",
                    "IPYTHONDIR",
                )
            },
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_PATH": str(folder / "path"),
            "PYTHONPATH": os.pathsep.join(
                [*([str(over)] if over else []), str(REPOSITORY), str(TESTS), os.environ.get("PYTHONPATH", "")]
            ),
        }  # fmt: skip
        if over:
            environ["JUPYTER_PATH"] += os.pathsep + str(over / "share" / "jupyter")
            environ["JUPYTER_CONFIG_PATH"] = str(over / "etc" / "jupyter")
            if (over / "share" / "jupyter" / "lab").is_dir():
                environ["JUPYTERLAB_DIR"] = str(over / "share" / "jupyter" / "lab")
        own = "LabApp" if app == "jupyterlab" else "JupyterNotebookApp"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}/user/alice/"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", app, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
                    f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}",
                    "--ServerApp.base_url=/user/alice/", "--ServerApp.allow_unauthenticated_access=False",
                    f"--IdentityProvider.token={self.token}", f"--{own}.expose_app_in_browser=True",
                    "--LabApp.extension_manager=readonly", *options,
                ],
                env=environ, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        hang = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < hang, self.log
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.base + "api", timeout=60).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return self._log.read_text()

    def ask(
        self, address: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None,
        token: str | None = None, **words: Any,
    ) -> tuple[int, Any]:  # fmt: skip
        """Ask the server for something under its base address: the status, and the JSON (or text) it sent."""
        query = urllib.parse.urlencode(words)
        given = self.token if token is None else token
        request = urllib.request.Request(
            self.base + address + (f"?{query}" if query else ""), method=method, data=body,
            headers={**({"Authorization": f"token {given}"} if given else {}), **(headers or {})},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, data = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, data = error.code, error.read()
        try:
            return status, json.loads(data)
        except ValueError:
            return status, data.decode(errors="replace")

    def session_cookie(self) -> str:
        """What a browser sends after a login: its cookies, in one header."""
        with urllib.request.urlopen(self.base + f"lab?token={self.token}", timeout=120) as answer:
            found = [re.split(";", value)[0] for value in answer.headers.get_all("Set-Cookie") or []]
        return "; ".join(found)

    def send(self, address: str, body: Any, **options: Any) -> tuple[int, Any]:
        """Have the server do something: the status, and the JSON it sent."""
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(address, method="POST", body=raw, headers=headers, **options)

    def stop(self) -> None:
        """Stop the server, and with it its kernels."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
