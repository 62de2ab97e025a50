"""The engine's client of a kernel: papermill's, that masks what must not be kept and passes on what was printed.

And papermill's books, which tell our writer; and how the engine waits for a kernel to be there, and to be gone: no
longer than the kernel takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jupyter_client.asynchronous import AsyncKernelClient
from nbclient.util import ensure_async
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from jupyter_mlops.pipelines.secret import Masking, answer

_LOOK: Final = 0.005
_SILENCE: Final = 0.2


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """A client whose outputs are masked before anybody has them."""

    masking: Masking | None = None
    on_output: Callable[[Any], None] | None = None

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Take a message of the kernel into the cell."""
        if self.masking is not None:
            self.masking.message(msg["content"])
        output = super().process_message(msg, cell, cell_index)
        if output is not None:
            if self.masking is not None:
                self.masking.seam(cell.outputs)
            if self.on_output is not None:
                self.on_output(output)
        return output

    @contextlib.contextmanager
    def answering(self, hidden: Mapping[str, Any]) -> Iterator[None]:
        """Answer questions for secrets that the kernel asks meanwhile; within a running loop."""
        if not hidden:
            yield
            return
        self.kc.allow_stdin = True
        task = asyncio.ensure_future(answer(self.kc, hidden))
        try:
            yield
        finally:
            self.kc.allow_stdin = False
            task.cancel()


class Books(NotebookExecutionManager):  # type: ignore[misc]
    """Papermill's books of a run: the metadata of each cell, and the bar.

    Parameters
    ----------
    nb
        The notebook.
    changed
        Told where papermill would save it: before and after each cell, and with each output.
    how
        As for papermill's own.
    """

    def __init__(self, nb: Any, changed: Callable[[], None], **how: Any) -> None:
        super().__init__(nb, output_path=None, **how)
        self._changed = changed

    def save(self, **_: Any) -> None:
        """Have it written, if that is due."""
        self._changed()

    def autosave_cell(self) -> None:
        """Likewise."""
        self._changed()

    def cell_complete(self, cell: Any, cell_index: int | None = None, **how: Any) -> None:
        """Note a cell's end, and how long it took.

        Papermill has its beginning, which it has just written itself, read by a parser for any date there may be: that
        takes longer than all else it does for a cell.
        """
        if self.log_output:
            super().cell_complete(cell, cell_index, **how)
            return
        ended, told = self.now(), cell.metadata.papermill
        told["end_time"] = ended.isoformat()
        if told.get("start_time"):
            told["duration"] = (ended - dt.datetime.fromisoformat(told["start_time"])).total_seconds()
        if told["status"] != self.FAILED:
            told["status"] = self.COMPLETED
        self.save()
        if self.pbar:
            self.pbar.update(1)


class Prompt(AsyncKernelClient):  # type: ignore[misc]
    """Jupyter's client, but it knows from the kernel's own word that the kernel is ready.

    Jupyter's listens until IOPub has been silent for 0.2 s, in every run. What a kernel publishes comes in order: once
    it says that it is idle after a request of ours, we are heard of, and nothing older is to come.
    """

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        ends = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            self.kernel_info()
            with contextlib.suppress(queue.Empty):
                reply = await ensure_async(self.shell_channel.get_msg(timeout=1))
                if reply["msg_type"] == "kernel_info_reply" and await self._hears(reply["parent_header"]):
                    self._handle_kernel_info_reply(reply)
                    return
            if not await ensure_async(self.is_alive()):
                raise RuntimeError("Kernel died before replying to kernel_info")
            if time.monotonic() > ends:
                raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")

    async def _hears(self, asked: Mapping[str, Any]) -> bool:
        """Read IOPub until a request is over, or else until silence; whether anything was heard."""
        heard = False
        with contextlib.suppress(queue.Empty):
            while True:
                said = await ensure_async(self.iopub_channel.get_msg(timeout=_SILENCE))
                heard = True
                about = said["parent_header"].get("msg_id")
                if about == asked.get("msg_id") and said["content"].get("execution_state") == "idle":
                    break
        return heard


async def end_kernel(manager: Any) -> None:
    """Ask a kernel to end, and wait for that half as long as Jupyter would; what is left of it then is Jupyter's.

    Jupyter looks every 0.1 s whether a kernel has ended, which is longer than most take.
    """
    if not await ensure_async(manager.is_alive()):
        return
    manager.shutdown_wait_time /= 2
    ends = time.monotonic() + manager.shutdown_wait_time
    await ensure_async(manager.request_shutdown())
    while await ensure_async(manager.is_alive()) and time.monotonic() < ends:
        await asyncio.sleep(_LOOK)
