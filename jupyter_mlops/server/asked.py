"""What is asked of a record, in words: the same questions, read the same way, over HTTP and of a kernel.

A question is the end of an address (`QUESTIONS`) with words, as in ``cell-runs?search=auc``. The server reads the
record that it sees; a kernel, asked over its comm, reads its own, which may lie where no server sees it.

What makes the answers is loaded with the first question: a Jupyter server that starts has none yet.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.project import FOLDER, Project, ProjectMissing
from jupyter_mlops.records import RecordInvalid, as_digest, encode
from jupyter_mlops.store import NotFound, Store

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.server.answers import Reading

DIGEST: Final = r"([a-z0-9-]{1,20}:[0-9a-f]{32,128})"
MODEL: Final = r"([A-Za-z0-9._-]{1,100})"
_SEARCH: Final = 500  # characters
_STATES: Final = frozenset({"done", "error", "syntax", "interrupted", "running"})


class Asked(NamedTuple):
    """A question about a record.

    Attributes
    ----------
    reading
        The record.
    file
        The notebook or folder that is asked about.
    words
        What is said beside it.
    """

    reading: Reading
    file: Path
    words: Mapping[str, str]

    @property
    def notebook(self) -> str:
        """The notebook's path as records spell it; empty for a folder."""
        return self.reading.project.relative(self.file) if self.file.suffix == ".ipynb" else ""

    def word(self, name: str, most: int) -> str:
        """A word, cut where it is too long to be meant."""
        return self.words.get(name, "")[:most]

    def number(self, name: str, default: int | None, most: int = 2**40) -> int | None:
        """A count.

        Raises
        ------
        WrongUse
            It is none.
        """
        text = self.word(name, 20)
        if not text:
            return default
        if not (text.isascii() and text.isdecimal()):
            raise WrongUse(f"{name} is a number")
        return min(int(text), most)


class Readings:
    """Records that are open: each opened when first asked for, and anew where it was removed and made again."""

    def __init__(self) -> None:
        self._open: dict[Path, tuple[tuple[int, int], Reading]] = {}
        self._lock = threading.Lock()

    def of(self, root: Path, name: str) -> Reading:
        """The record of a project.

        Parameters
        ----------
        root
            Its folder.
        name
            What pages call that folder.

        Raises
        ------
        StoreMissing, StoreFormat
            Its store is gone, or is none.
        """
        folder = root / FOLDER
        try:
            facts = (folder / "format").stat()
        except FileNotFoundError:
            facts = None
        now = (facts.st_dev, facts.st_ino) if facts is not None else (0, 0)
        with self._lock:
            known = self._open.get(root)
            if known is not None and known[0] == now:
                return known[1]
            if known is not None:  # it was removed, and perhaps another one made
                known[1].store.close()
                del self._open[root]
            from jupyter_mlops.server.answers import Reading

            reading = Reading(Project(root, store=Store.open(folder)), name)
            self._open[root] = now, reading
            return reading

    def still(self) -> list[Reading]:
        """Those that are open, as they are now; one whose store is gone is let go of."""
        found = []
        with self._lock:
            known = [(root, one.root) for root, (_, one) in self._open.items()]
        for root, name in known:
            with contextlib.suppress(MlopsError, OSError):
                found.append(self.of(root, name))
        return found

    def close(self) -> None:
        """Let go of every store."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].store.close()


def _overview(asked: Asked) -> Any:
    """What there is for a notebook."""
    return asked.reading.overview(asked.notebook)


def _cell_runs(asked: Asked) -> Any:
    """Cell runs of a notebook, or of a run, or all; newest first, in pieces, searched and filtered."""
    from jupyter_mlops.server.answers import PAGE

    states = [one for one in asked.word("status", 100).split(",") if one]
    if not _STATES.issuperset(states):
        raise WrongUse(f"status is some of {', '.join(sorted(_STATES))}")
    run = asked.word("run", 200)
    everything = asked.word("of", 20) == "project"
    return asked.reading.rows(
        notebook=None if everything or run else asked.notebook, run=as_digest(run) if run else None,
        cell=asked.word("cell", 500) or None, before=asked.number("before", None),
        limit=asked.number("limit", PAGE, PAGE) or 1, status=states, search=asked.word("search", _SEARCH),
    )  # fmt: skip


def _cell_run(asked: Asked, digest: str) -> Any:
    """All that is on record of a cell run."""
    return asked.reading.cell_run(as_digest(digest))


def _cells(asked: Asked) -> Any:
    """The last cell run of each cell of a notebook."""
    return asked.reading.cells(asked.notebook)


def _runs(asked: Asked) -> Any:
    """Runs, newest first, in pieces."""
    from jupyter_mlops.server.answers import PAGE, RUNS

    return asked.reading.runs(
        skip=asked.number("skip", 0) or 0, limit=asked.number("limit", PAGE, RUNS) or 1,
        notebook=asked.word("notebook", 4096) or None,
    )  # fmt: skip


def _run(asked: Asked, digest: str) -> Any:
    """A run."""
    return asked.reading.run(as_digest(digest))


def _compare(asked: Asked) -> Any:
    """Runs side by side."""
    from jupyter_mlops.server.comparing import compared

    return compared(asked.reading, [as_digest(run) for run in asked.word("runs", 2000).split(",") if run])


def _lineage(asked: Asked) -> Any:
    """Where something comes from, as nodes and edges."""
    from jupyter_mlops.server.lineages import MOST_WALKED, WALKED, lineage_of

    limit = asked.number("limit", WALKED, MOST_WALKED) or 1
    return lineage_of(asked.reading.project, asked.word("of", 1000), limit=limit)


def _names(asked: Asked) -> Any:
    """What a lineage can be asked of."""
    from jupyter_mlops.server.lineages import names_of

    return names_of(asked.reading.project, asked.notebook or None)


def _models(asked: Asked) -> Any:
    """All models."""
    from jupyter_mlops.server import models

    return models.models(asked.reading.project)


def _model(asked: Asked, name: str) -> Any:
    """A model with its versions, aliases, and the gates that were asked."""
    from jupyter_mlops.server import models

    return models.model(asked.reading.project, name)


def _card(asked: Asked, name: str, version: str) -> Any:
    """A version's card, as Markdown."""
    from jupyter_mlops.server import models

    return models.card(asked.reading.project, f"{name}/{version}")


def _difference(asked: Asked) -> Any:
    """What is different between two cell runs, or two versions of a model."""
    from jupyter_mlops.server import differing

    old, new = (as_digest(asked.word(name, 200)) for name in ("old", "new"))
    return differing.difference(asked.reading.store, old, new)


def _environment(asked: Asked) -> Any:
    """The environment and the code around a run, and what changed since another one."""
    from jupyter_mlops.server import differing

    old, new = (as_digest(word) if (word := asked.word(name, 200)) else None for name in ("old", "new"))
    return differing.surroundings(asked.reading, asked.notebook, old, new)


def _standing(asked: Asked) -> Any:
    """Whether a notebook as it stands on disk would make what is in memory."""
    run = asked.word("run", 200)
    return asked.reading.standing(asked.file, as_digest(run) if run else None)


QUESTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "overview": _overview,
    "cell-runs": _cell_runs,
    f"cell-runs/{DIGEST}": _cell_run,
    "cells": _cells,
    "runs": _runs,
    f"runs/{DIGEST}": _run,
    "compare": _compare,
    "lineage": _lineage,
    "names": _names,
    "models": _models,
    f"models/{MODEL}": _model,
    rf"models/{MODEL}/([0-9]{{1,9}})/card": _card,
    "difference": _difference,
    "environment": _environment,
    "standing": _standing,
}
"""Every question, by the end of its address."""


def answered(made: Callable[[], Any], *, failed: Callable[[Exception], None]) -> tuple[int, bytes]:
    """Make an answer: its status, as HTTP has them, and JSON. Whatever is wrong with a store, there is one.

    Parameters
    ----------
    made
        Makes it.
    failed
        Told of what nobody expected.
    """
    try:
        return 200, encode(made())
    except MlopsError as error:
        return _refusal(error)
    except OSError as error:
        where = f"the record can not be read: {error.strerror or type(error).__name__}"
        return 503, refused("StoreUnreadable", where, next="mlops doctor")
    except Exception as error:  # noqa: BLE001 - a page is told, in its own form, and whoever answers goes on
        failed(error)
        return 500, refused(
            "Failed", "the record could not be read", cause=type(error).__name__, next="mlops doctor, mlops fsck"
        )  # fmt: skip


def _refusal(error: MlopsError) -> tuple[int, bytes]:
    from jupyter_mlops.registry import GateRefused

    kind = type(error).__name__
    if isinstance(error, GateRefused):
        from jupyter_mlops.server.models import GateRefusal
        from jupyter_mlops.server.models import answered as gate

        return _status(error), encode(
            GateRefusal(
                kind=kind, message=error.thing, cause=error.cause, next=error.next,
                checks=[gate(one) for one in error.results],
            )
        )  # fmt: skip
    return _status(error), refused(kind, error.thing, cause=error.cause, next=error.next)


def _status(error: MlopsError) -> int:
    from jupyter_mlops.checks import GateInvalid
    from jupyter_mlops.registry import NameInvalid

    if isinstance(error, PermissionError):
        return 403
    if error.exit_code == 1:  # the answer is no
        return 409
    if isinstance(error, NotFound | FileNotFoundError | LookupError):
        return 404
    if isinstance(error, RecordInvalid | WrongUse | NameInvalid | GateInvalid):
        return 400
    return 503 if isinstance(error, OSError) else 409


def refused(kind: str, message: str, *, cause: str = "", next: str = "") -> bytes:
    """Why there is no answer, as JSON."""
    from jupyter_mlops.server.answers import Refusal

    return encode(Refusal(kind=kind, message=message, cause=cause, next=next))


# -- asked of a kernel -----------------------------------------------------------------------------------------------

_own: Final = Readings()


def by_kernel(session: Session, what: str, words: Mapping[str, str]) -> tuple[int, bytes]:
    """Answer a question about a session's record; of the notebook of its kernel, whichever the page names."""
    question = next((one for one in ((re.fullmatch(key, what), key) for key in QUESTIONS) if one[0]), None)

    def made() -> Any:
        if question is None or question[0] is None:
            raise WrongUse(f"{what[:100]!r} is no question that this version answers")
        reading = _reading(session)
        notebook = session.notebook()
        file = reading.project.path(notebook) if notebook else reading.project.root
        return QUESTIONS[question[1]](Asked(reading, file, words), *question[0].groups())

    return answered(made, failed=lambda error: session.failed("answers", error, breaks=False))


def _reading(session: Session) -> Reading:
    """The session's record, read through a store of its own: the one that writes is left alone."""
    if not session.begun[1]:
        raise ProjectMissing("nothing is on record here yet", cause="no cell of this kernel has run on record")
    return _own.of(session.project.root, ".")
