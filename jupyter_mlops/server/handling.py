"""What every address has in common: which project is meant, who asks, and how an answer or a refusal is sent.

Whoever asks must be known to the server and allowed to read, or to change, the resource ``jupyter_mlops``. A notebook
is named as the server's own contents are, by its path from the server's folder, and may not lie outside. Everything is
done by threads, so that a slow disk or a long search holds up nobody's notebook; and whatever is wrong with a store,
the answer says so in JSON (`Refusal`), and the server goes on.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async
from tornado import web

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.project import FOLDER, Project, ProjectMissing
from jupyter_mlops.server import events
from jupyter_mlops.server.asked import Readings, answered, refused
from jupyter_mlops.server.telling import Telling

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from jupyter_mlops.server.answers import Reading
    from jupyter_mlops.server.routes import MlopsApp

RESOURCE: Final = "jupyter_mlops"
"""What an authorizer is asked about."""
_BODY: Final = 1 << 16  # bytes that a page may send
_NAMELESS: Final = re.compile(r"[0-9a-f]{32}")

_T = TypeVar("_T", bound=msgspec.Struct)


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
    tell
        Takes what is to be told of what comes into their records: a schema's name, and the facts; from any thread.
        They are not followed where there is none.
    """

    def __init__(
        self, contents: Any, *, above: bool, tell: Callable[[str, dict[str, Any]], None] | None = None
    ) -> None:
        self.contents = contents
        self.above = above
        self._readings = Readings()
        self._telling = Telling(tell, self._readings.still) if tell else None

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

    def new(self, path: str) -> Path:
        """Where something new may be written: as `place`, and in no folder that keeps a record or a repository."""
        found = self.place(path)
        if not path.strip("/") or {FOLDER, ".git"} & {part.casefold() for part in found.resolve().parts}:
            raise Outside(f"{path[:200]!r} is no place for something new", next="name another one")
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
        reading = self._readings.of(found.root, self.name(found.root))
        if self._telling is not None:
            self._telling.begin(reading)
        return reading

    def look(self, reading: Reading) -> None:
        """Tell now of what has come into a record."""
        if self._telling is not None:
            self._telling.look(reading)

    def name(self, place: Path) -> str:
        """A file or folder, from the server's; ``.`` where they are the same."""
        served = Path(self.contents.root_dir).resolve()
        return os.path.relpath(place.resolve(), served).replace(os.sep, "/")

    def close(self) -> None:
        """Let go of every store."""
        if self._telling is not None:
            self._telling.close()
        self._readings.close()


class BodyRefused(WrongUse):
    """What was sent is not what is taken there."""

    status = 400


class BodyUnknown(BodyRefused):
    """What was sent is no JSON."""

    status = 415


class BodyTooLarge(BodyRefused):
    """More was sent than anything takes."""

    status = 413


class Route(APIHandler):
    """Answers with a struct, made by a thread; every refusal is JSON."""

    auth_resource = RESOURCE

    def initialize(self, app: MlopsApp) -> None:
        self.app = app

    async def answer(self, made: Callable[[Projects], Any], *, slow: bool = False) -> None:
        """Have something read, and send it."""
        pool = self.app.slow if slow else self.app.threads
        try:
            done = await asyncio.wait_for(self._thread(pool, made), self.app.patience)
        except TimeoutError:
            done = 503, refused("StoreBusy", "the record does not answer", next="mlops doctor")
        await self.send(*done)

    async def act(self, form: type[_T], done: Callable[..., Any], *, files: bool = False) -> None:
        """Have something done that changes the record or writes files, as whoever asked, and send what came of it.

        It is awaited to its end, however long that takes: nothing may be done after it was said that it was not.

        Parameters
        ----------
        form
            What is to be sent: JSON with exactly the fields of this struct.
        done
            Does it, given an `Acting` and what was sent.
        files
            Files are written: an authorizer is asked about the server's contents too.
        """
        given = await self.sent(form)
        if given is None:
            return
        if files and not await ensure_async(
            self.authorizer.is_authorized(self, self.current_user, "write", "contents")
        ):
            raise web.HTTPError(403)
        path, who = self.path(), self.who()
        told: list[tuple[str, dict[str, Any]]] = []

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server.acting import Acting

            acting = Acting(projects, path, who, lambda *facts: told.append(facts))
            try:
                return done(acting, given)
            finally:
                projects.look(acting.reading)  # what was done, refused or not, before it is answered

        outcome = await self._thread(self.app.hands, made)
        for name, facts in told:
            events.emit(self.event_logger, name, facts)
        await self.send(*outcome)

    async def sent(self, form: type[_T]) -> _T | None:
        """What was sent; None where it is not what is taken, which is then said."""
        try:
            return self._body(form)
        except BodyRefused as error:
            said = refused(type(error).__name__, error.thing, cause=error.cause, next=error.next)
            await self.send(error.status, said)
            return None

    async def send(self, status: int, raw: bytes) -> None:
        """Send an answer or a refusal, as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        await self.finish(raw)

    def _thread(self, pool: Executor, made: Callable[[Projects], Any]) -> Awaitable[tuple[int, bytes]]:
        work = functools.partial(answered, lambda: made(self.app.projects), failed=_log)
        return asyncio.get_running_loop().run_in_executor(pool, work)

    def _body(self, form: type[_T]) -> _T:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise BodyUnknown("what was sent is no JSON", cause=f"it is called {kind[:80] or 'nothing'}",
                              next="send application/json")  # fmt: skip
        if len(self.request.body) > _BODY:
            raise BodyTooLarge("too much was sent", cause=f"at most {_BODY:,} bytes are taken")
        try:
            return msgspec.json.decode(self.request.body, type=form)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            known = ", ".join(one.encode_name for one in msgspec.structs.fields(form))
            raise BodyRefused("what was sent is not what is taken here", cause=str(error)[:300],
                              next=f"an object of {known}") from error  # fmt: skip

    def who(self) -> str:
        """The server's user, where that is a name: who logs in with a token or password gets one drawn at random."""
        name = str(getattr(self.current_user, "username", "") or "")
        return "" if _NAMELESS.fullmatch(name) else name[:200]

    def path(self) -> str:
        """The notebook or folder that is asked about."""
        return str(self.get_query_argument("path", ""))[:4096]

    def words(self) -> dict[str, str]:
        """What the address says beside it, with the control characters that a name on record may have."""
        return {
            name: found[-1].decode("utf-8", "replace") for name, found in self.request.query_arguments.items() if found
        }


def _log(error: Exception) -> None:
    from tornado.log import app_log

    app_log.error("jupyter_mlops could not answer", exc_info=error)
