"""Stock kernels, with recording or without, for the tests that need a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

from jupyter_mlops.records import CellRun
from jupyter_mlops.store import Store

REPOSITORY = Path(__file__).parents[1]


class Kernel:
    """A stock kernel with a client: `run` gives a cell's outputs and reply."""

    def __init__(self, folder: Path, *, load: bool = True, environ: dict[str, str] | None = None) -> None:
        self.folder = folder
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        for left in (2, 1, 0):
            self.manager = KernelManager(kernel_name="python3")
            self.manager.kernel_spec.argv[0] = sys.executable
            self.manager.start_kernel(
                cwd=str(folder), env={**os.environ, "PYTHONPATH": path, **(environ or {})}, stderr=subprocess.DEVNULL
            )
            self.client = self.manager.blocking_client()
            self.client.start_channels()
            try:
                self.client.wait_for_ready(timeout=60)
                break
            except RuntimeError:  # another process was given one of its ports, between its choice and its start
                self.client.stop_channels()
                self.manager.shutdown_kernel(now=True)
                if not left:
                    raise
        if load:
            self.run("%load_ext jupyter_mlops")

    def send(self, code: str, *, cell: str = "", silent: bool = False) -> str:
        self.client.session.metadata = {"cellId": cell} if cell else {}
        return self.client.execute(code, silent=silent)

    def collect(self, request: str, *, patience: float = 60) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """A cell's outputs and reply; `queue.Empty` where the kernel says nothing for so many seconds."""
        outputs: list[dict[str, Any]] = []
        while True:
            message = self.client.get_iopub_msg(timeout=patience)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind in ("stream", "display_data", "execute_result", "error"):
                outputs.append({"type": kind, **content})
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"].get("msg_id") == request:
                return outputs, reply["content"]

    def run(self, code: str, *, cell: str = "", silent: bool = False) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return self.collect(self.send(code, cell=cell, silent=silent))

    def value(self, expression: str) -> str:
        """What an expression is, asked silently: no cell, no record."""
        request = self.client.execute("", silent=True, user_expressions={"it": expression})
        _, reply = self.collect(request)
        answer = reply["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return str(answer["data"]["text/plain"])

    def no_errors(self) -> None:
        """Nothing of ours went wrong behind the cells' backs."""
        assert self.value("__import__('jupyter_mlops.capture').capture.session().errors") == "[]"

    def cells(self) -> list[CellRun]:
        """What is on record, oldest first."""
        with Store.open(self.folder / ".mlops") as store:
            return list(reversed(store.cell_runs()))

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)
