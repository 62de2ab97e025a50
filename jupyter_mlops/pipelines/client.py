"""The engine's client of a kernel: papermill's, that masks what must not be kept and passes on what was printed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from papermill.clientwrap import PapermillNotebookClient

from jupyter_mlops.pipelines.secret import Masking, answer


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
