"""The engine's side of cells that are recalled instead of run: it asks the kernel, and keeps what the page shows.

The kernel decides (`capture.recall`); it is asked by silent requests, which count as no execution. What a cell showed
is kept as one object, in the notebook's own form; texts in which a secret is found are not kept, and that cell runs.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.records import Digest, as_digest

if TYPE_CHECKING:
    from jupyter_mlops.redact import Redactor
    from jupyter_mlops.store import Store

_LARGEST: Final = 64 << 20
"""Characters of outputs; a cell that shows more is run."""
AHEAD: Final = 64
"""Cells that the kernel is asked about in one request at most."""
_NO_ANSWER: Final = "the kernel gave no answer"
_CALL: Final = "__import__('jupyter_mlops.capture', fromlist=['recalling']).recalling({request!r})"


class Recalling:
    """The cells of one run.

    Parameters
    ----------
    ask
        Has the kernel evaluate an expression, silently; gives its text, or empty where that failed.
    store, redactor
        Where outputs are kept, and what finds secrets in them.
    """

    def __init__(self, ask: Callable[[str], Awaitable[str]], store: Store, redactor: Redactor) -> None:
        self._ask, self._store, self._redactor = ask, store, redactor
        self.recalled: list[int] = []
        """The places of cells that were recalled."""
        self.again: list[tuple[int, str]] = []
        """The places of cells that ran, and why each did."""
        self._told: list[dict[str, Any]] = []  # of the next cells, in order
        self._many = 1

    async def begin(self, cells: list[str]) -> str:
        """Have the kernel keep its cells; why it does not, or empty."""
        return str((await self._say({"do": "begin", "cells": cells})).get("why", ""))

    async def consult(self, cells: Sequence[Any], place: int) -> bool:
        """Put back what a cell shows, if the kernel recalled it.

        As long as cells are recalled, the kernel is asked about more and more of them in one request: it recalls them
        one after the other, until one has to run.

        Parameters
        ----------
        cells
            The cell, and those that are asked about after it.
        place
            The cell's place, from 1.
        """
        cell = cells[0]
        if not self._told:
            asked = [{"source": one.source, "cell": one.get("id", "")} for one in cells[: self._many]]
            answer = await self._say({"do": "consult", "cells": asked})
            self._told = answer.get("told") or [answer]
        said = self._told.pop(0)
        self._many = min(2 * self._many, AHEAD) if "recalled" in said else 1
        if "recalled" not in said:
            self.again.append((place, str(said.get("why", ""))))
            return False
        from nbformat import from_dict

        outputs = json.loads(self._store.get(as_digest(said["shown"]))) if said.get("shown") else []
        cell["execution_count"] = said["count"]
        for output in outputs:
            if output["output_type"] == "execute_result":
                output["execution_count"] = said["count"]
        cell["outputs"] = [from_dict(output) for output in outputs]
        cell.metadata["mlops"] = {"recalled": said["recalled"]}
        self.recalled.append(place)
        return True

    @property
    def next_is_back(self) -> bool:
        """Whether the kernel has recalled the next cell already, and is not to be asked."""
        return bool(self._told) and "recalled" in self._told[0]

    async def keep(self, cell: Any) -> None:
        """Have the cell kept that has just run, with what it shows."""
        cell.metadata.pop("mlops", None)
        outputs = cell.get("outputs") or []
        raw = json.dumps(outputs, sort_keys=True)
        if len(raw) > _LARGEST:
            await self._say({"do": "keep", "why": f"it shows more than {_LARGEST >> 20} MiB"})
        elif any(self._redactor.text(text)[1] for text in _texts(outputs)):
            await self._say({"do": "keep", "why": "it shows a secret"})
        else:
            shown: Digest | None = self._store.put(raw.encode("utf-8", "surrogatepass")) if outputs else None
            await self._say({"do": "keep", "shown": shown})

    async def _say(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = await self._ask(_CALL.format(request=json.dumps(request)))
        try:
            found = json.loads(ast.literal_eval(answer))
        except (ValueError, SyntaxError, TypeError):
            return {"why": _NO_ANSWER}
        return found if isinstance(found, dict) else {}


def _texts(value: Any) -> list[str]:
    """The texts in outputs that may hold a secret; pictures are none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    if isinstance(value, dict):
        return [
            text for key, one in value.items()
            if not (key.startswith(("image/", "audio/", "video/")) and key != "image/svg+xml")
            for text in _texts(one)
        ]  # fmt: skip
    return []
