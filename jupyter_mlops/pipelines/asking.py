"""What a run asks its kernel beside the cells: by silent requests, which count as no execution and show nothing."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Final

from jupyter_mlops.pipelines.job import Job
from jupyter_mlops.pipelines.kernel import KernelFailed
from jupyter_mlops.pipelines.recalling import Recalling
from jupyter_mlops.pipelines.secret import TEACH
from jupyter_mlops.records import Gap, RecordInvalid, as_digest

_log = logging.getLogger("jupyter_mlops")

TICK: Final = 0.25
"""Seconds between two looks at whether a run is to end."""
GRACE: Final = 3.0
"""Seconds that a kernel is given to answer an interrupt."""
_LOAD_LIMIT: Final = 60.0


class Asking:
    """What is asked of one kernel.

    Parameters
    ----------
    nb
        The notebook.
    client
        Of its kernel.
    job
        The run.
    deadline
        When the run is to end (`time.monotonic`), if it is.
    """

    def __init__(self, nb: Any, client: Any, job: Job, deadline: float | None) -> None:
        self.nb, self.client, self.job, self.deadline = nb, client, job, deadline

    async def load_extension(self) -> None:
        """Switch recording on in the kernel; where that can not be, say so and go on."""
        reply = await self._ask(self.client.kc.kernel_info())
        info = reply.get("language_info") or {}
        if info:
            self.nb.metadata["language_info"] = info
        language = str(info.get("name", "")).lower()
        if self.job.secrets and language == "python":
            await self._reach_input()
        if self.job.run is None:
            return
        if language != "python":
            self._gap(f"the kernel's language is {language or 'unknown'}, and only Python's cells are recorded")
            return
        answer = await self._evaluate("get_ipython().extension_manager.load_extension('jupyter_mlops')")
        said = str(answer.get("data", {}).get("text/plain", ""))
        if answer.get("status") != "ok" or said not in ("None", "'already loaded'"):
            why = f"{answer.get('ename')}: {answer.get('evalue')}" if answer.get("ename") else said or "no answer"
            self._gap(f"jupyter_mlops could not be loaded in the kernel ({why}), so no cell was recorded")
            return
        if self.job.checkpoints:
            kept = await self._evaluate("get_ipython().run_line_magic('mlops', 'checkpoint on').ok")
            if kept.get("status") != "ok":
                why = str(kept.get("evalue", "no answer"))
                self.job.gaps.append(Gap(subject="variables", reason=f"they were not kept: {why}"))
        if self.job.keeps:
            await self._evaluate("__import__('jupyter_mlops.capture').capture.looking()")
        if self.job.secrets:
            # A request for input is answered on a channel of its own: the values stand in no request.
            teach = f"__import__('jupyter_mlops.capture').capture.learn(get_ipython().kernel.getpass({TEACH!r}))"
            with self.client.answering(self.job.secrets):
                answer = await self._evaluate(teach)
            if answer.get("status") != "ok":
                raise KernelFailed("the kernel could not be told what to mask", cause=str(answer.get("evalue", "")))

    async def _reach_input(self) -> None:
        """See that the kernel's questions come through: one that it asks before that channel stands is lost, unsaid."""
        from nbclient.util import ensure_async

        for patience in (1.0, 3.0, 10.0, _LOAD_LIMIT):
            with self.client.answering({"": ""}):
                if await self._evaluate("get_ipython().kernel.getpass(' ')", patience):
                    return
            await ensure_async(self.client.km.interrupt_kernel())  # it waits for an answer to what nobody heard
        raise KernelFailed("the kernel could not be given its secrets", cause="its questions do not come through")

    async def what_is_loaded(self) -> None:
        """Have the kernel keep an object that says what it has loaded."""
        from jupyter_mlops.pipelines.basis import imports_in

        wanted = imports_in(cell.source for cell in self.nb.cells if cell.cell_type == "code")
        load = f"__import__('jupyter_mlops.capture', fromlist=['capture']).loaded({wanted!r}, {self.job.loading_since})"
        answer = await self._evaluate(load)
        said = str(answer.get("data", {}).get("text/plain", "")).strip("'").split()
        with contextlib.suppress(RecordInvalid, ValueError):  # an error, or no answer: then it is not known
            self.job.loaded, self.job.looked = map(as_digest, said)

    async def _evaluate(self, expression: str, limit: float | None = _LOAD_LIMIT) -> dict[str, Any]:
        """What an expression is in the kernel; it leaves no name, and a silent request neither counts nor shows."""
        from nbclient.util import ensure_async

        request = self.client.kc.execute("", silent=True, store_history=False, user_expressions={"it": expression})
        answer = await self._ask(await ensure_async(request), limit)
        return dict(answer.get("user_expressions", {}).get("it", {}))

    async def _until_stopped(self, question: Any) -> dict[str, Any]:
        """An answer of the kernel, or nothing where the run is to end before it comes."""
        import asyncio

        from nbclient.util import ensure_async

        task = asyncio.ensure_future(question)
        while not task.done():
            await asyncio.wait({task}, timeout=TICK)
            late = self.deadline is not None and time.monotonic() >= self.deadline
            if not task.done() and (self.job.stop.signum or late):
                await ensure_async(self.client.km.interrupt_kernel())
                await asyncio.wait({task}, timeout=GRACE)
                if not task.done():
                    task.cancel()
                    return {}
        return dict(task.result())

    async def begin_recalling(self) -> None:
        """Have cells recalled and kept, where the kernel records them."""
        job = self.job
        if job.project is None or job.run is None or job.gaps:
            return

        async def ask(expression: str) -> str:
            answer = await self._until_stopped(self._evaluate(expression, None))
            return str(answer.get("data", {}).get("text/plain", ""))

        recalling = Recalling(ask, job.project.store, job.redactor)
        sources = [cell.source for cell in self.nb.cells if has_code(cell)]
        why = await recalling.begin(sources)
        if why:
            job.gaps.append(Gap(subject="cache", reason=f"no cell is recalled: {why}"))
        else:
            job.recalling = recalling

    async def _ask(self, message: Any, limit: float | None = _LOAD_LIMIT) -> dict[str, Any]:
        import asyncio

        from nbclient.exceptions import DeadKernelError
        from nbclient.util import ensure_async

        try:
            reply = await asyncio.wait_for(self.client.async_wait_for_reply(await ensure_async(message)), timeout=limit)
        except (TimeoutError, DeadKernelError):
            return {}
        return dict(reply["content"]) if reply else {}

    def _gap(self, reason: str) -> None:
        self.job.gaps.append(Gap(subject="cells", reason=f"capture was off: {reason}", blocks=True))
        _log.warning("capture is off: %s", reason)


def has_code(cell: Any) -> bool:
    """Whether there is anything in a cell for a kernel to do."""
    return cell.cell_type == "code" and bool(cell.source.strip())
