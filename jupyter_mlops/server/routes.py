"""The addresses under ``jupyter-mlops/api``: what they take, and what they answer.

What is asked with GET is read and changes nothing. What is sent with POST is done as whoever sent it: the server says
who that is, and nothing in the address or the body does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.extension.application import ExtensionApp
from tornado import web
from traitlets import Bool, Float, Integer

from jupyter_mlops.server import environments, events, forms, sent
from jupyter_mlops.server.asked import MODEL, QUESTIONS, Asked
from jupyter_mlops.server.handling import Outside, Projects, Route
from jupyter_mlops.server.jobs import Jobs
from jupyter_mlops.server.orders import Init, Order

__all__ = ["API", "ROUTES", "MlopsApp", "Outside", "Projects"]

API: Final = "jupyter-mlops/api"
JOBS: Final = "jupyter_mlops_jobs"
"""What an authorizer is asked about who has a command run."""


class MlopsApp(ExtensionApp):
    """The record of notebooks, for the pages of JupyterLab."""

    name = "jupyter_mlops"
    description = __doc__
    load_other_extensions = True
    allow_above_root = Bool(
        False, help="Whether a record may be read that lies in a folder above the one the server shows."
    ).tag(config=True)
    most_jobs = Integer(4, min=0, help="How many jobs may run at a time.").tag(config=True)
    patience = Float(60.0, help="Seconds after which a store that does not answer is reported.").tag(config=True)

    def initialize_handlers(self) -> None:
        """Add every route."""
        assert self.serverapp is not None
        self.projects = Projects(self.serverapp.contents_manager, above=self.allow_above_root, tell=self._tell)
        # Pools apart: what holds a notebook against files on the disk must not keep lists from being shown.
        self.threads = ThreadPoolExecutor(4, thread_name_prefix="mlops-server")
        self.slow = ThreadPoolExecutor(1, thread_name_prefix="mlops-standing")
        self.hands = ThreadPoolExecutor(1, thread_name_prefix="mlops-acting")  # one thing after another
        self.jobs = Jobs(self.most_jobs, tell=lambda facts: self._tell("job", facts))
        events.register(self.serverapp.event_logger)
        for path, handler in ROUTES.items():
            self.handlers.append((f"{API}/{path}", handler, {"app": self}))

    def _tell(self, schema: str, facts: dict[str, Any]) -> None:
        """Tell of something, from whatever thread."""
        assert self.serverapp is not None
        self.serverapp.io_loop.add_callback(events.emit, self.serverapp.event_logger, schema, facts)

    async def stop_extension(self) -> None:
        """End the jobs; let go of threads and stores."""
        await asyncio.get_running_loop().run_in_executor(None, self.jobs.close)
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.slow.shutdown(wait=False, cancel_futures=True)
        self.hands.shutdown(wait=False, cancel_futures=True)
        self.projects.close()


def _reads(question: Callable[..., Any], *, slow: bool) -> type[Route]:
    """An address that answers a question about a record."""

    class Reads(Route):
        @web.authenticated
        @authorized
        async def get(self, *names: str) -> None:
            path, words = self.path(), self.words()

            def made(projects: Projects) -> Any:
                return question(Asked(projects.reading(path), projects.place(path), words), *names)

            await self.answer(made, slow=slow)

    Reads.__doc__ = question.__doc__
    return Reads


class _Act(Route):
    """Has something done, by the method of `Acting` that it names."""

    SENT: ClassVar[type[msgspec.Struct]]
    VERB: ClassVar[str]
    FILES: ClassVar[bool] = False

    @web.authenticated
    @authorized
    async def post(self, *names: str) -> None:
        await self.act(self.SENT, lambda acting, given: getattr(acting, self.VERB)(*names, given), files=self.FILES)


class _Check(_Act):
    """Ask a version of a model its gates; the answers are on record."""

    SENT, VERB = sent.Check, "check"


class _Promote(_Act):
    """Point an alias to a version of a model that passes its gates."""

    SENT, VERB = sent.Promote, "promote"


class _RollBack(_Act):
    """Point an alias back to what it pointed to before."""

    SENT, VERB = sent.RollBack, "rollback"


class _Approve(_Act):
    """Approve a version of a model, or take that back."""

    SENT, VERB = sent.Approve, "approve"


class _CheckOut(_Act):
    """Write the code and files of something that was run into a folder."""

    SENT, VERB, FILES = sent.CheckOut, "checkout", True


class _Slice(_Act):
    """Write the smallest notebook that makes something."""

    SENT, VERB, FILES = sent.Slice, "slice", True


class _Parameters(Route):
    """What a notebook can be given, and where it can run."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        output = f"{path.removesuffix('.ipynb')}.out.ipynb"
        await self.answer(lambda projects: forms.form(projects.reading(path).project, projects.place(path), output))


class _Asks(Route):
    """Says whether an order will do; it is read, and nothing is done."""

    SENT: ClassVar[type[forms.Given]]

    @web.authenticated
    @authorized("read")  # type: ignore[untyped-decorator] # only its bare form is typed
    async def post(self) -> None:
        path, order = self.path(), await self.sent(self.SENT)
        if order is not None:
            await self.answer(lambda projects: order.check(projects, path))


class _AsksRun(_Asks):
    """Says whether a notebook can be run so."""

    SENT = forms.RunNotebook


class _AsksSweep(_Asks):
    """Says whether a notebook can be run so over many values."""

    SENT = forms.SweepNotebook


class _Jobs(Route):
    """The jobs about a notebook or folder."""

    auth_resource = JOBS

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        await self.answer(lambda _: self.app.jobs.list(path))


class _Starts(Route):
    """Starts a job."""

    auth_resource = JOBS
    SENT: ClassVar[type[Order]]

    @web.authenticated
    @authorized("execute")  # type: ignore[untyped-decorator] # only its bare form is typed
    async def post(self) -> None:
        path, who, order = self.path(), self.who(), await self.sent(self.SENT)
        if order is not None:
            await self.answer(
                lambda projects: self.app.jobs.start(order.VERB, order.command(projects, path), projects, by=who)
            )


class _StartsRun(_Starts):
    """Runs a notebook."""

    SENT = forms.RunNotebook


class _StartsSweep(_Starts):
    """Runs a notebook over many values."""

    SENT = forms.SweepNotebook


class _StartsInit(_Starts):
    """Makes a project."""

    SENT = Init


class _StartsLock(_Starts):
    """Locks what something used."""

    SENT = environments.LockEnvironment


class _StartsCreate(_Starts):
    """Makes an environment from what something used."""

    SENT = environments.CreateEnvironment


class _Job(Route):
    """A job: how it stands; its end."""

    auth_resource = JOBS

    @web.authenticated
    @authorized
    async def get(self, id: str) -> None:
        await self.answer(lambda _: self.app.jobs.show(id))

    @web.authenticated
    @authorized
    async def delete(self, id: str) -> None:
        await self.answer(lambda _: self.app.jobs.interrupt(id))


_SLOW: Final = frozenset({"difference", "standing"})
"""Questions whose answers may take long."""
ROUTES: Final[dict[str, type[Route]]] = {
    **{name: _reads(question, slow=name in _SLOW) for name, question in QUESTIONS.items()},
    f"models/{MODEL}/check": _Check,
    f"models/{MODEL}/promote": _Promote,
    f"models/{MODEL}/rollback": _RollBack,
    f"models/{MODEL}/approve": _Approve,
    "checkout": _CheckOut,
    "slice": _Slice,
    "parameters": _Parameters,
    "parameters/run": _AsksRun,
    "parameters/sweep": _AsksSweep,
    "jobs": _Jobs,
    "jobs/run": _StartsRun,
    "jobs/sweep": _StartsSweep,
    "jobs/init": _StartsInit,
    "jobs/lock": _StartsLock,
    "jobs/create": _StartsCreate,
    r"jobs/([0-9a-f]{32})": _Job,
}
"""Every address, under `API`."""
