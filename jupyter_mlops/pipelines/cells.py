"""The walk over the cells of one notebook: each to its end, its limit of time, or a signal."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.pipelines.asking import GRACE, TICK, Asking, has_code
from jupyter_mlops.pipelines.job import CellFailure, Job
from jupyter_mlops.pipelines.kernel import kill
from jupyter_mlops.pipelines.parameters import INJECTED_TAG, tags_of
from jupyter_mlops.pipelines.recalling import AHEAD

if TYPE_CHECKING:
    import asyncio

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Cells:
    """The cells of one notebook.

    Parameters
    ----------
    nb
        The notebook, which is filled as they run.
    client
        Of its kernel.
    books
        Papermill's, which has the metadata of each cell.
    job
        The run.
    """

    def __init__(self, nb: Any, client: Any, books: Any, job: Job) -> None:
        self.nb, self.client, self.books, self.job = nb, client, books, job
        self.deadline = None if job.timeout is None else time.monotonic() + job.timeout
        self.asking = Asking(nb, client, job, self.deadline)

    async def run(self) -> None:
        """Run the cells, one after the other, until one fails or the run is to end."""
        await self.asking.load_extension()
        if self.job.cache == "cells":
            await self.asking.begin_recalling()
        heading = ""
        cells, nth = sum(map(has_code, self.nb.cells)), 0
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type == "markdown":
                heading = _heading(cell.source) or heading
            # What the kernel has put back already is on record, and belongs on the page.
            if self.job.stop.signum and not (self.job.recalling and self.job.recalling.next_is_back):
                break
            try:
                self.books.cell_start(cell, index)
                self._show(index, cell, heading)
                if has_code(cell):
                    nth += 1
                    self.job.tell("cell began", cell=nth, cells=cells, id=cell.get("id", ""))
                if not await self._cell(cell, index):
                    self.books.cell_exception(cell, cell_index=index)
                    break
            finally:
                _join_streams(cell)
                self.books.cell_complete(cell, cell_index=index)
                if has_code(cell):
                    self.job.tell("cell ended", cell=nth, cells=cells, id=cell.get("id", ""))
        if self.job.keeps and self.job.status == "done":
            await self.asking.what_is_loaded()

    def _show(self, index: int, cell: Any, heading: str) -> None:
        if self.books.pbar:
            name = self.books.get_cell_description(cell) or heading
            self.books.pbar.set_postfix_str("", refresh=False)
            self.books.pbar.set_description(f"cell {index + 1}" + (f" · {name[:40]}" if name else ""))

    async def _cell(self, cell: Any, index: int) -> bool:
        """Run a cell to its end, its limit or a signal; whether the run may go on."""
        import asyncio

        from nbclient.exceptions import CellExecutionError, DeadKernelError

        code = has_code(cell)
        asks = self.job.secrets if INJECTED_TAG in tags_of(cell) else {}
        recalling = self.job.recalling if code and not asks else None
        if recalling is not None and await recalling.consult(self._from(index), index + 1):
            self.job.cells += 1
            return True
        if code and (why := self._over()):  # maybe since the kernel was asked, whose answer was lost over it
            self._ended(cell, index, why)
            return False
        self.client.kc.session.metadata = {"cellId": cell.get("id", "")}
        task = asyncio.ensure_future(self.client.async_execute_cell(cell, index))
        try:
            with self.client.answering(asks):
                late = await self._wait(task)
            if late:
                await self._end(task, cell, index, late)
                return False
            await task
            if recalling is not None:
                _join_streams(cell)
                await recalling.keep(cell)
        except CellExecutionError as error:
            self.job.error = _failure(cell, index, self.job.seen(error.ename), self.job.seen(error.evalue))
            # `sys.exit()` ends a notebook without being a failure, as in papermill.
            if error.ename == "SystemExit" and error.evalue in ("", "0", "None"):
                self.job.error = None
            return False
        except DeadKernelError:
            self._note(cell, index, "DeadKernelError", await self._obituary())
            raise
        finally:
            self.job.cells += code
            if not task.done():
                task.cancel()
        return True

    def _from(self, index: int) -> list[Any]:
        """A cell and the next ones that a kernel may recall, up to one that is given secrets."""
        found = []
        for cell in self.nb.cells[index : index + AHEAD]:
            if self.job.secrets and INJECTED_TAG in tags_of(cell):
                break
            if has_code(cell):
                found.append(cell)
        return found

    async def _wait(self, task: asyncio.Future[Any]) -> str:
        """Wait for a cell while keeping the file fresh; why it must end, if it must."""
        import asyncio

        begun = time.monotonic()
        limit = self.job.cell_timeout
        ends = None if limit is None else time.monotonic() + limit
        while True:
            now = time.monotonic()
            pause = min(TICK, *(max(0.0, one - now) for one in (ends, self.deadline) if one is not None), TICK)
            await asyncio.wait({task}, timeout=pause)
            if task.done():
                return ""
            self.job.output.write_if_due()  # type: ignore[union-attr]
            self._moment(time.monotonic() - begun)
            if why := self._over(ends):
                return why

    def _over(self, ends: float | None = None) -> str:
        """Why a cell must not go on, if so; `ends` is when its own time is up."""
        now = time.monotonic()
        if self.job.stop.signum:
            return f"stopped by {signal.Signals(self.job.stop.signum).name}"
        if ends is not None and now >= ends:
            return f"the cell ran longer than {self.job.cell_timeout:g} s"
        if self.deadline is not None and now >= self.deadline:
            return f"the run took longer than {self.job.timeout:g} s"
        return ""

    def _moment(self, seconds: float) -> None:
        """Show that time has passed in a cell."""
        if self.books.pbar and seconds >= 1:
            self.books.pbar.set_postfix_str(f"this cell {seconds:.0f} s")
        if self.job.watch is not None:
            self.job.watch.moment()

    async def _end(self, task: asyncio.Future[Any], cell: Any, index: int, why: str) -> None:
        """End a cell that must end: by an interrupt, or if that does not help by the kernel's death."""
        import asyncio

        from nbclient.exceptions import CellExecutionError, DeadKernelError
        from nbclient.util import ensure_async

        await ensure_async(self.client.km.interrupt_kernel())
        await asyncio.wait({task}, timeout=GRACE)
        if task.done():
            with contextlib.suppress(CellExecutionError, DeadKernelError):  # it is why it ended that counts
                task.result()
        else:
            task.cancel()
            why += "; the kernel ignored the interrupt and was killed"
            kill(getattr(self.client.km.provisioner, "pgid", None))
        self._ended(cell, index, why)

    def _ended(self, cell: Any, index: int, why: str) -> None:
        """Have a cell show why it came to no end of its own.

        Raises
        ------
        CellTimeoutError
            Time was up.
        """
        from nbclient.exceptions import CellTimeoutError

        name = "KeyboardInterrupt" if self.job.stop.signum else "CellTimeoutError"
        self._note(cell, index, name, why)
        if not self.job.stop.signum:
            self.books.cell_exception(cell, cell_index=index)
            raise CellTimeoutError(why)

    def _note(self, cell: Any, index: int, ename: str, evalue: str) -> None:
        """Put an error that the kernel could not tell itself into the cell."""
        from nbformat.v4 import new_output

        cell.setdefault("outputs", []).append(
            new_output("error", ename=ename, evalue=evalue, traceback=[f"{ename}: {evalue}"])
        )
        cell.metadata.papermill["exception"] = True
        cell.metadata.papermill["status"] = "failed"
        self.nb.metadata.papermill["exception"] = True
        self.job.error = _failure(cell, index, ename, evalue)

    async def _obituary(self) -> str:
        """How the kernel died."""
        code = await self.client.km.provisioner.poll() if self.client.km and self.client.km.provisioner else None
        if isinstance(code, int) and code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"the kernel was killed by {name}{hint}"
        return f"the kernel ended with status {code}" if isinstance(code, int) else "the kernel died"


def _heading(source: str) -> str:
    return next((line.lstrip("#").strip() for line in source.splitlines() if line.startswith("#")), "")


def _join_streams(cell: Any) -> None:
    """Join prints that came in pieces, as a front end shows them; where the pieces end is chance.

    Only where the cell has nothing but prints: a display may be updated later, by its place.
    """
    outputs: Sequence[Any] = cell.get("outputs") or ()
    if len(outputs) < 2 or any(output.output_type not in ("stream", "error") for output in outputs):
        return
    joined: list[Any] = []
    pieces: list[str] = []
    for output in outputs:
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            pieces.append(output.text)
            continue
        if len(pieces) > 1:
            joined[-1]["text"] = "".join(pieces)
        pieces = [output.get("text", "")]
        joined.append(output)
    if len(pieces) > 1:
        joined[-1]["text"] = "".join(pieces)
    cell.outputs = joined


def _failure(cell: Any, index: int, ename: str, evalue: str) -> CellFailure:
    line = None
    lines = cell.source.splitlines()
    for output in reversed(cell.get("outputs") or ()):
        if output.get("output_type") == "error":
            text = _ANSI.sub("", "\n".join(output.get("traceback") or ()))
            found = re.findall(rf"Cell In\s?\[{cell.get('execution_count')}\], line (\d+)", text)
            if found:
                line = int(found[-1])
                break
    return CellFailure(
        cell=index + 1, id=cell.get("id", ""), count=cell.get("execution_count"),
        line=line if line is not None and 0 < line <= len(lines) else None,
        source=lines[line - 1].strip()[:200] if line is not None and 0 < line <= len(lines) else "",
        ename=ename, evalue=_ANSI.sub("", evalue)[:500],
    )  # fmt: skip
