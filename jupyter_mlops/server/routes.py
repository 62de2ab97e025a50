"""The addresses under ``jupyter-mlops/api``: what they take, and what they answer.

What is asked with GET is read and changes nothing. What is sent with POST is done as whoever sent it: the server says
who that is, and nothing in the address or the body does.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.extension.application import ExtensionApp
from tornado import web
from traitlets import Bool, Float, Integer

from jupyter_mlops.records import Digest, as_digest
from jupyter_mlops.server import environments, events, forms, sent
from jupyter_mlops.server.handling import Outside, Projects, Route, notebook_in
from jupyter_mlops.server.jobs import Jobs
from jupyter_mlops.server.orders import Init, Order

__all__ = ["API", "ROUTES", "MlopsApp", "Outside", "Projects"]

API: Final = "jupyter-mlops/api"
JOBS: Final = "jupyter_mlops_jobs"
"""What an authorizer is asked about who has a command run."""
_PAGE: Final = 200
_RUNS: Final = 1000  # of one piece of their list
_SEARCH: Final = 500  # characters
_STATES: Final = frozenset({"done", "error", "syntax", "interrupted", "running"})


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
        self.projects = Projects(self.serverapp.contents_manager, above=self.allow_above_root)
        # Pools apart: what holds a notebook against files on the disk must not keep lists from being shown.
        self.threads = ThreadPoolExecutor(4, thread_name_prefix="mlops-server")
        self.slow = ThreadPoolExecutor(1, thread_name_prefix="mlops-standing")
        self.hands = ThreadPoolExecutor(1, thread_name_prefix="mlops-acting")  # one thing after another
        self.jobs = Jobs(self.most_jobs, tell=self._tell)
        events.register(self.serverapp.event_logger)
        for path, handler in ROUTES.items():
            self.handlers.append((f"{API}/{path}", handler, {"app": self}))

    def _tell(self, facts: dict[str, Any]) -> None:
        """Tell of a job, from whatever thread."""
        assert self.serverapp is not None
        self.serverapp.io_loop.add_callback(events.emit, self.serverapp.event_logger, "job", facts)

    async def stop_extension(self) -> None:
        """End the jobs; let go of threads and stores."""
        await asyncio.get_running_loop().run_in_executor(None, self.jobs.close)
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.slow.shutdown(wait=False, cancel_futures=True)
        self.hands.shutdown(wait=False, cancel_futures=True)
        self.projects.close()


class _Overview(Route):
    """What there is for a notebook."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).overview(notebook_in(projects, path)))


class _CellRuns(Route):
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
            notebook = None if everything or run else notebook_in(projects, path)
            return reading.rows(
                notebook=notebook, run=as_digest(run) if run else None, cell=cell or None, before=before,
                limit=limit, status=states, search=search,
            )  # fmt: skip

        await self.answer(made)


class _CellRun(Route):
    """All that is on record of a cell run."""

    @web.authenticated
    @authorized
    async def get(self, digest: str) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).cell_run(as_digest(digest)))


class _Cells(Route):
    """The last cell run of each cell of a notebook."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).cells(notebook_in(projects, path)))


class _Runs(Route):
    """Runs, newest first, in pieces."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()
        skip, limit = self.number("skip", 0) or 0, self.number("limit", _PAGE, _RUNS) or 1
        notebook = self.words("notebook", 4096) or None
        await self.answer(lambda projects: projects.reading(path).runs(skip=skip, limit=limit, notebook=notebook))


class _Run(Route):
    """A run."""

    @web.authenticated
    @authorized
    async def get(self, digest: str) -> None:
        path = self.path()
        await self.answer(lambda projects: projects.reading(path).run(as_digest(digest)))


class _Compare(Route):
    """Runs side by side."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path, runs = self.path(), [one for one in self.words("runs", 2000).split(",") if one]

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server.comparing import compared

            return compared(projects.reading(path), [as_digest(run) for run in runs])

        await self.answer(made)


class _Lineage(Route):
    """Where something comes from, as nodes and edges."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        from jupyter_mlops.server.lineages import MOST_WALKED, WALKED, lineage_of

        path, of = self.path(), self.verbatim("of", 1000)
        limit = self.number("limit", WALKED, MOST_WALKED) or 1
        await self.answer(lambda projects: lineage_of(projects.reading(path).project, of, limit=limit))


class _Names(Route):
    """What a lineage can be asked of."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server.lineages import names_of

            return names_of(projects.reading(path).project, notebook_in(projects, path) or None)

        await self.answer(made)


class _Models(Route):
    """All models."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = self.path()

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server import models

            return models.models(projects.reading(path).store)

        await self.answer(made)


class _Model(Route):
    """A model with its versions, aliases, and the gates that were asked."""

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        path = self.path()

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server import models

            return models.model(projects.reading(path).project, name)

        await self.answer(made)


class _Standing(Route):
    """Whether a notebook as it stands on disk would make what is in memory."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path, run = self.path(), self.words("run", 200)

        def made(projects: Projects) -> Any:
            digest: Digest | None = as_digest(run) if run else None
            return projects.reading(path).standing(projects.place(path), digest)

        await self.answer(made, slow=True)


class _Difference(Route):
    """What is different between two cell runs, or two versions of a model."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path, old, new = self.path(), self.words("old", 200), self.words("new", 200)

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server import differing

            return differing.difference(projects.reading(path).store, as_digest(old), as_digest(new))

        await self.answer(made, slow=True)


class _Environment(Route):
    """The environment and the code around a run, and what changed since another one."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path, old, new = self.path(), self.words("old", 200), self.words("new", 200)

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server import differing

            return differing.surroundings(
                projects.reading(path), notebook_in(projects, path), as_digest(old) if old else None,
                as_digest(new) if new else None,
            )  # fmt: skip

        await self.answer(made)


class _Card(Route):
    """A version's card, as Markdown."""

    @web.authenticated
    @authorized
    async def get(self, name: str, version: str) -> None:
        path = self.path()

        def made(projects: Projects) -> Any:
            from jupyter_mlops.server import models

            return models.card(projects.reading(path).project, f"{name}/{version}")

        await self.answer(made)


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


_DIGEST: Final = r"([a-z0-9-]{1,20}:[0-9a-f]{32,128})"
_MODEL: Final = r"([A-Za-z0-9._-]{1,100})"
ROUTES: Final[dict[str, type[Route]]] = {
    "overview": _Overview,
    "cell-runs": _CellRuns,
    f"cell-runs/{_DIGEST}": _CellRun,
    "cells": _Cells,
    "runs": _Runs,
    f"runs/{_DIGEST}": _Run,
    "compare": _Compare,
    "lineage": _Lineage,
    "names": _Names,
    "models": _Models,
    f"models/{_MODEL}": _Model,
    f"models/{_MODEL}/check": _Check,
    f"models/{_MODEL}/promote": _Promote,
    f"models/{_MODEL}/rollback": _RollBack,
    f"models/{_MODEL}/approve": _Approve,
    rf"models/{_MODEL}/([0-9]{{1,9}})/card": _Card,
    "difference": _Difference,
    "environment": _Environment,
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
    "standing": _Standing,
}
"""Every address, under `API`."""
