"""The addresses under ``jupyter-mlops/api``, each of which reads and changes nothing.

Whoever asks must be known to the server and allowed to read the resource ``jupyter_mlops``. A notebook is named as the
server's own contents are, by its path from the server's folder, and may not lie outside; records are named by digests,
which lead nowhere else. Everything is read by threads, so that a slow disk or a long search holds up nobody's notebook;
and whatever is wrong with a store, the answer says so in JSON (`Refusal`), and the server goes on.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from tornado import web
from traitlets import Bool, Float

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.project import FOLDER, Project, ProjectMissing
from jupyter_mlops.records import Digest, RecordInvalid, as_digest, encode
from jupyter_mlops.store import NotFound, Store

if TYPE_CHECKING:
    from jupyter_mlops.server.answers import Reading

API: Final = "jupyter-mlops/api"
RESOURCE: Final = "jupyter_mlops"
"""What an authorizer is asked about."""
_PAGE: Final = 200
_SEARCH: Final = 500  # characters
_STATES: Final = frozenset({"done", "error", "syntax", "interrupted", "running"})


class Outside(MlopsError, PermissionError):
    """What is asked for lies outside the server's folder."""


class Elsewhere(MlopsError, OSError):
    """The server keeps its notebooks where no record can be found."""


class Projects:
    """The projects under the server's folder, opened when first asked for.

    Parameters
    ----------
    contents
        The server's contents manager.
    above
        Whether a project may lie above the server's folder.
    """

    def __init__(self, contents: Any, *, above: bool) -> None:
        self.contents = contents
        self.above = above
        self._open: dict[Path, tuple[tuple[int, int], Reading]] = {}
        self._lock = threading.Lock()

    def place(self, path: str) -> Path:
        """The file or folder that the server's contents know by a path.

        Raises
        ------
        Outside
            It lies outside the server's folder, or is hidden and the server shows nothing hidden.
        Elsewhere
            The server's contents are no files.
        """
        root = getattr(self.contents, "root_dir", None)
        if type(root) is not str or not os.path.isdir(root):
            raise Elsewhere("the server keeps its notebooks in no folder", next="the record is where the kernel runs")
        parts = [part for part in path.split("/") if part]
        refused = Outside(f"{path[:200]!r} is not in the server's folder")
        if "\0" in path or "\\" in path or {".", ".."} & set(parts):
            raise refused
        if not self.contents.allow_hidden and any(part.startswith(".") for part in parts):
            raise refused
        found = Path(root, *parts)
        try:
            found.is_dir()
            inside = found.resolve().is_relative_to(Path(root).resolve())
        except (OSError, RuntimeError) as error:  # links that go in circles, a name longer than names are
            raise refused from error
        if not inside:
            raise refused
        return found

    def reading(self, path: str) -> Reading:
        """What can be read around a file or folder.

        Raises
        ------
        ProjectMissing
            There is no project around it.
        Outside
            The project lies above the server's folder, which is not allowed.
        StoreMissing, StoreFormat
            Its store is gone, or is none.
        """
        from jupyter_mlops.server.answers import Reading

        place = self.place(path)
        folder = place if place.is_dir() else place.parent
        found = Project.find(folder)
        if found is None:
            raise ProjectMissing(
                "nothing is on record here yet", cause="no folder above holds a .mlops",
                next="%load_ext jupyter_mlops in a notebook",
            )  # fmt: skip
        served = Path(self.contents.root_dir).resolve()
        if not self.above and not found.root.is_relative_to(served):
            raise Outside(
                "the record of this notebook lies above the folder that this server shows",
                next=f"start Jupyter in the folder that holds {FOLDER}, or with --MlopsApp.allow_above_root=True",
            )
        facts = (found.root / FOLDER / "format").stat()
        now = facts.st_dev, facts.st_ino
        with self._lock:
            known = self._open.get(found.root)
            if known is not None and known[0] == now:
                return known[1]
            if known is not None:  # it was removed, and another one made
                known[1].store.close()
                del self._open[found.root]
            project = Project(found.root, store=Store.open(found.root / FOLDER))
            reading = Reading(project, os.path.relpath(found.root, served).replace(os.sep, "/"))
            self._open[found.root] = now, reading
            return reading

    def close(self) -> None:
        """Let go of every store."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].store.close()


class MlopsApp(ExtensionApp):
    """The record of notebooks, for the pages of JupyterLab."""

    name = "jupyter_mlops"
    description = __doc__
    load_other_extensions = True
    allow_above_root = Bool(
        False, help="Whether a record may be read that lies in a folder above the one the server shows."
    ).tag(config=True)
    patience = Float(60.0, help="Seconds after which a store that does not answer is reported.").tag(config=True)

    def initialize_handlers(self) -> None:
        """Add every route."""
        assert self.serverapp is not None
        self.projects = Projects(self.serverapp.contents_manager, above=self.allow_above_root)
        # Two pools: what holds a notebook against files on the disk must not keep lists from being shown.
        self.threads = ThreadPoolExecutor(4, thread_name_prefix="mlops-server")
        self.slow = ThreadPoolExecutor(1, thread_name_prefix="mlops-standing")
        for path, handler in ROUTES.items():
            self.handlers.append((f"{API}/{path}", handler, {"app": self}))

    async def stop_extension(self) -> None:
        """Let go of threads and stores."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.slow.shutdown(wait=False, cancel_futures=True)
        self.projects.close()


class _Route(APIHandler):
    """Answers with a struct, made by a thread; every refusal is JSON."""

    auth_resource = RESOURCE

    def initialize(self, app: MlopsApp) -> None:
        self.app = app

    async def answer(self, made: Callable[[Projects], Any], *, slow: bool = False) -> None:
        """Have something read, and send it."""
        pool = self.app.slow if slow else self.app.threads
        work = functools.partial(_made, made, self.app.projects)
        try:
            done = asyncio.get_running_loop().run_in_executor(pool, work)
            status, body = await asyncio.wait_for(done, self.app.patience)
        except TimeoutError:
            status, body = 503, _refused("StoreBusy", "the record does not answer", next="mlops doctor")
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        await self.finish(body)

    def words(self, name: str, most: int) -> str:
        """An argument of the address, cut where it is too long to be meant."""
        return str(self.get_query_argument(name, ""))[:most]

    def path(self) -> str:
        """The notebook or folder that is asked about."""
        return self.words("path", 4096)

    def number(self, name: str, default: int | None, most: int = 2**40) -> int | None:
        """A count in the address.

        Raises
        ------
        HTTPError
            It is none.
        """
        text = self.words(name, 20)
        if not text:
            return default
        if not (text.isascii() and text.isdecimal()):
            raise web.HTTPError(400, f"{name} is a number")
        return min(int(text), most)


def _made(made: Callable[[Projects], Any], projects: Projects) -> tuple[int, bytes]:
    """Make an answer: its status and JSON."""
    try:
        return 200, encode(made(projects))
    except MlopsError as error:
        return _status(error), _refused(type(error).__name__, error.thing, cause=error.cause, next=error.next)
    except OSError as error:
        where = f"the record can not be read: {error.strerror or type(error).__name__}"
        return 503, _refused("StoreUnreadable", where, next="mlops doctor")
    except Exception as error:  # noqa: BLE001 - a page is told, in its own form, and the server goes on
        _log(error)
        return 500, _refused(
            "Failed", "the record could not be read", cause=type(error).__name__, next="mlops doctor, mlops fsck"
        )  # fmt: skip


def _log(error: Exception) -> None:
    from tornado.log import app_log

    app_log.error("jupyter_mlops could not answer", exc_info=error)


def _status(error: MlopsError) -> int:
    if isinstance(error, Outside | PermissionError):
        return 403
    if isinstance(error, NotFound | FileNotFoundError | LookupError):
        return 404
    if isinstance(error, RecordInvalid | WrongUse):
        return 400
    return 503 if isinstance(error, OSError) else 409


def _refused(kind: str, message: str, *, cause: str = "", next: str = "") -> bytes:
    from jupyter_mlops.server.answers import Refusal

    return encode(Refusal(kind=kind, message=message, cause=cause, next=next))


class _Overview(_Route):
    """What there is for a notebook."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).overview(_notebook(projects, path)))


class _CellRuns(_Route):
    """Cell runs of a notebook, or of a run, or all; newest first, in pieces, searched and filtered."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        limit = self.number("limit", _PAGE, _PAGE) or 1
        before = self.number("before", None)
        states = [one for one in self.words("status", 100).split(",") if one]
        if not _STATES.issuperset(states):
            raise web.HTTPError(400, f"status is some of {', '.join(sorted(_STATES))}")
        run, cell, search = self.words("run", 200), self.words("cell", 500), self.words("search", _SEARCH)
        everything = self.words("of", 20) == "project"

        def made(projects: Projects) -> Any:
            reading = projects.reading(path)
            notebook = None if everything or run else _notebook(projects, path)
            return reading.rows(
                notebook=notebook, run=as_digest(run) if run else None, cell=cell or None, before=before,
                limit=limit, status=states, search=search,
            )  # fmt: skip

        await self.answer(made)


class _CellRun(_Route):
    """All that is on record of a cell run."""

    @web.authenticated
    @authorized
    async def get(self, digest: str) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).cell_run(as_digest(digest)))


class _Cells(_Route):
    """The last cell run of each cell of a notebook."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).cells(_notebook(projects, path)))


class _Runs(_Route):
    """Runs, newest first, in pieces."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        skip, limit = self.number("skip", 0) or 0, self.number("limit", _PAGE, _PAGE) or 1
        await self.answer(lambda projects: projects.reading(path).runs(skip=skip, limit=limit))


class _Run(_Route):
    """A run."""

    @web.authenticated
    @authorized
    async def get(self, digest: str) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).run(as_digest(digest)))


class _Models(_Route):
    """All models."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).models())


class _Model(_Route):
    """A model with its versions, aliases, and the gates that were asked."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).model(name))


class _Standing(_Route):
    """Whether a notebook as it stands on disk would make what is in memory."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path, run = self.path(), self.words("run", 200)

        def made(projects: Projects) -> Any:
            digest: Digest | None = as_digest(run) if run else None
            return projects.reading(path).standing(projects.place(path), digest)

        await self.answer(made, slow=True)


def _notebook(projects: Projects, path: str) -> str:
    """A notebook's path as records spell it; empty for a folder."""
    return projects.reading(path).project.relative(projects.place(path)) if path.endswith(".ipynb") else ""


_DIGEST: Final = r"([a-z0-9-]{1,20}:[0-9a-f]{32,128})"
ROUTES: Final[dict[str, type[_Route]]] = {
    "overview": _Overview,
    "cell-runs": _CellRuns,
    f"cell-runs/{_DIGEST}": _CellRun,
    "cells": _Cells,
    "runs": _Runs,
    f"runs/{_DIGEST}": _Run,
    "models": _Models,
    r"models/([A-Za-z0-9._-]{1,100})": _Model,
    "standing": _Standing,
}
"""Every address, under `API`."""
