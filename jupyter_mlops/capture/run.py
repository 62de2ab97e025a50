"""One run in progress in this process: its store, what surrounds it, and what is logged to it.

A session opens nothing until something is to be written: a kernel that loads the extension and runs no cell leaves no
trace, and a store that cannot be opened never stops a kernel. In a kernel the session is fed by `hooks`; in a plain
script it is begun by the first `log_metric` or by `start_run`, and sealed at exit.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.project import Project
from jupyter_mlops.records import (
    Artifact,
    CellLogged,
    CellSettled,
    Digest,
    Record,
    RunEnded,
    RunStarted,
    as_digest,
)

if TYPE_CHECKING:
    from jupyter_mlops.access import Access, Looks
    from jupyter_mlops.capture.checkpoints import Checkpoints
    from jupyter_mlops.capture.randomness import Generators
    from jupyter_mlops.capture.recall import Recall
    from jupyter_mlops.capture.surroundings import Surroundings
    from jupyter_mlops.namespace import Namespace
    from jupyter_mlops.redact import Redactor
    from jupyter_mlops.registry import RunContext
    from jupyter_mlops.store import Store

BREAKS_AFTER: Final = 3
"""Failures after which recording turns itself off."""

_PACKAGE: Final = Path(__file__).resolve().parent.parent  # what we read of ourselves is no business of a cell

_RETRY: Final = 30.0  # seconds after which a store that could not be written is tried again
_KEPT: Final = 1000  # lines that wait in memory for a store that cannot be written
_MAX_TEXT: Final = 100_000

CELL: contextvars.ContextVar[Digest | None] = contextvars.ContextVar("jupyter_mlops_cell", default=None)
_RUN: contextvars.ContextVar[Digest | None] = contextvars.ContextVar("jupyter_mlops_run", default=None)


class Directions(NamedTuple):
    """What a cell says of itself, on a first line with ``%%mlops``."""

    name: str = ""
    record: bool = True
    tickets: tuple[str, ...] = ()
    unreadable: bool = False
    """The line could not be read: its cell is not run, and who knows whether it was to be recorded."""


class Session:
    """The run that goes on in this process.

    Parameters
    ----------
    trigger
        ``session`` for a person's kernel, ``script`` for a plain one.
    variables
        The kernel's variables, where there is a kernel.
    """

    def __init__(self, *, trigger: str = "session", variables: dict[str, Any] | None = None) -> None:
        self.trigger = trigger
        self.variables = variables
        self.errors: list[str] = []
        self.probe: Any = None
        """Called with the name of each step as a hook comes to it: what tests raise their faults from."""
        self.directions: Callable[[str], Directions | None] = lambda _: None
        """Reads what a cell's first line says of it."""
        self.told_notebook = ""
        self.running: list[Digest] = []
        self.metrics: dict[str, Any] = {}
        self.parameters: dict[str, Any] = {}
        self.paused = False
        self.missed = 0
        self._pid = os.getpid()
        self._project: Project | None = None
        self._store: Store | None = None
        self._run: Digest | None = None
        self._attached = False
        self._began = time.perf_counter()
        self._failures: dict[str, int] = {}
        self._off = ""
        self._retry_at = 0.0
        self._notices: list[str] = []
        self._waiting: list[Record] = []
        self._keys: dict[str, str] = {}
        self._surrounding: tuple[str, bool] | None = None
        self._named = ("", "")  # the notebook's path as it was told, and as records spell it
        self._unsurrounded: list[Digest] = []
        self._lock = threading.RLock()
        self._closed = False
        self.namespace: Namespace
        self.access: Access
        self.surroundings: Surroundings
        self.redactor: Redactor
        self.checkpoints: Checkpoints | None = None
        """The kernel's checkpoints, once somebody has asked for them."""
        self.generators: Generators | None = None
        self.recall: Recall | None = None
        """What keeps and recalls this kernel's cells, once an engine has asked for it."""
        self.looked: dict[Digest, Looks] | None = None
        """What each cell looked for, once an engine has asked for it."""
        self.seconds = 0.0
        """Seconds a cell may be held up; set when the session opens."""
        self._ready = False

    # -- opening -----------------------------------------------------------------------------------------------------

    @property
    def project(self) -> Project:
        """The project around the working directory; found when first asked for."""
        if self._project is None:
            self._project = Project.open()
        return self._project

    @property
    def store(self) -> Store:
        """Its store, made if need be."""
        if self._store is None:
            self._store = self.project.store
        return self._store

    @property
    def run(self) -> Digest:
        """The run's line, written when first asked for."""
        if self._run is None:
            self.open()
        assert self._run is not None
        return self._run

    @property
    def begun(self) -> tuple[Digest | None, str]:
        """The run's line and its store's name, as far as they are on record by now: nothing is opened."""
        return self._run, self._store.id if self._store is not None else ""

    @property
    def current(self) -> Digest | None:
        """The cell run that the calling code belongs to."""
        own = CELL.get()
        if own is not None:
            return own
        return self.running[-1] if self.running else None

    @property
    def environment(self) -> Digest | None:
        """The line of the environment as it is now."""
        return self.surroundings.environment if self._ready else None

    def _is_ready(self) -> bool:
        return self._ready

    def open(self) -> None:
        """Open the store and put the run on record. Safe to call again.

        Raises
        ------
        MlopsError, OSError
            The store cannot be opened or written.
        """
        if self._ready:
            return
        with self._lock:
            if self._is_ready():  # another thread was faster
                return
            project = self.project
            store = self.store
            self.redactor = project.redactor()
            if self._run is None:
                self._run = self._begin_run(project, store)
            self._observe(project, store)
            self._ready = True

    def _begin_run(self, project: Project, store: Store) -> Digest:
        if project.parent_run:
            self._attached = True
            return as_digest(project.parent_run)
        return store.append(
            RunStarted(
                trigger=self.trigger, notebook=self.notebook(), user=self.redactor.text(project.user)[0],
                folder=self.redactor.text(project.folder)[0], on_behalf_of=project.on_behalf_of,
            )
        )  # fmt: skip

    def _observe(self, project: Project, store: Store) -> None:
        from jupyter_mlops.capture.surroundings import Surroundings

        self.surroundings = Surroundings(project, store, self.redactor, self.failed)
        self.surroundings.start()
        if self.variables is None:
            return
        from jupyter_mlops.access import Access
        from jupyter_mlops.namespace import Namespace

        seconds = self.seconds = project.settings.budget_ms / 1000
        self.namespace = Namespace(
            self.variables, budget=seconds, hidden=self._hidden, secret=self.redactor.secret,
            numbers=project.headless or project.settings.keep_displays,
        )  # fmt: skip
        self.access = Access(
            project.root, redact=lambda text: self.redactor.text(text)[0], exclude=[store.path, _PACKAGE],
            budget=seconds,
        )  # fmt: skip
        self.access.install()

    def _hidden(self) -> Container[str]:
        return getattr(self.shell, "user_ns_hidden", None) or frozenset()

    shell: Any = None

    def notebook(self) -> str:
        """The notebook's path in the project: as the front end told, else the engine, VS Code, the server."""
        path = self.told_notebook
        if not path:
            if self._surrounding is None:  # what surrounds a process is settled when it starts
                project = self.project
                self._surrounding = project.notebook, bool(project.environ.get("JUPYTER_MLOPS_NOTEBOOK"))
            around, engine = self._surrounding
            code = self.variables.get("__vsc_ipynb_file__") if self.variables is not None and not engine else None
            if type(code) is not str or not code:
                return around
            path = code
        if path != self._named[0]:
            # a page tells it as records spell it: relative to the project
            self._named = path, self.project.relative(os.path.join(self.project.root, path))
        return self._named[1]

    # -- the guard ---------------------------------------------------------------------------------------------------

    @property
    def strict(self) -> bool:
        """Whether errors of ours are to be loud."""
        return (self._project or Project(Path())).strict

    @property
    def recording(self) -> bool:
        """Whether cells are recorded now."""
        if self.paused or self._closed or os.getpid() != self._pid:
            return False
        if not self._off:
            return True
        if self._retry_at and time.monotonic() >= self._retry_at:
            self._off, self._retry_at = "", 0.0
            self._failures.clear()
            return True
        return False

    @property
    def off(self) -> str:
        """Why recording turned itself off; empty where it did not."""
        return self._off

    def failed(self, where: str, error: BaseException, *, breaks: bool = True) -> None:
        """Note an error of ours; after `BREAKS_AFTER` that count, recording turns itself off. Never raises."""
        try:
            text = "".join(traceback.format_exception(error))
            brief = f"{where}: {type(error).__name__}"
            if isinstance(error, MlopsError | OSError):
                brief += f": {error}"
            if len(self.errors) < 100:
                self.errors.append(text)
            kind = "store" if isinstance(error, OSError) else "ours"
            self._failures[kind] = self._failures.get(kind, 0) + breaks
            if self._failures[kind] >= BREAKS_AFTER and not self._off:
                self._off = f"recording turned itself off after {BREAKS_AFTER} failures; the last: {brief}"
                self._retry_at = time.monotonic() + _RETRY if kind == "store" else 0.0
                self._notices.append(self._off)
            elif len(self._notices) < 20 and not self._off:
                self._notices.append(brief)
            if self.strict and sys.__stderr__ is not None:
                sys.__stderr__.write(text)
        except BaseException:  # noqa: BLE001, S110 - whatever is wrong here, the user's cell goes on
            pass

    def status(self) -> dict[str, Any]:
        """How recording goes: a notice is given once."""
        if self.paused:
            state = "paused: %mlops on"
        elif self._off:
            state = "off: " + self._off
        else:
            state = "on"
        said: dict[str, Any] = {"recording": state}
        if self._run is not None:
            said["run"] = self._run
        if self._store is not None:
            said["not yet durable"] = self._store.pending
        if self._waiting:
            said["waiting for the store"] = len(self._waiting)
        if self._notices:
            said["problems"], self._notices = self._notices, []
        return said

    def pause(self) -> None:
        """Record no cells until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Go on recording, also after recording had turned itself off."""
        self.paused = False
        self._off, self._retry_at = "", 0.0
        self._failures.clear()

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, record: Record) -> None:
        """Capture a line; one that cannot be is kept in memory and tried again with the next."""
        if self._waiting:
            self._flush()
        if self._waiting:
            self._keep(record)
            return
        try:
            self.store.append(record)
        except OSError as error:
            self._keep(record)
            self.failed("store", error)

    def _keep(self, record: Record) -> None:
        if len(self._waiting) < _KEPT:
            self._waiting.append(record)

    def _flush(self) -> None:
        try:
            while self._waiting:
                self.store.append(self._waiting[0])
                del self._waiting[0]
        except OSError as error:
            self.failed("store", error)

    def settle(self, *, wait: float = 0.0) -> None:
        """Write what has come since about cells that are over."""
        if not self._ready:
            return
        if self._unsurrounded:
            if wait:
                self.surroundings.look(wait)
            if not self.surroundings.missing:
                cells, self._unsurrounded = self._unsurrounded, []
                for cell_run in cells:
                    self.write(
                        CellSettled(
                            cell_run=cell_run, environment=self.surroundings.environment, code=self.surroundings.code
                        )
                    )
        if self.variables is None:
            return
        for one in self.namespace.settle():
            for data in one.facts.values():
                self.store.put(data)
            self.write(CellSettled(cell_run=one.cell_run, outputs=one.outputs, gaps=one.gaps))
        for seen in self.access.settle():
            if seen.cell_run is not None:
                self.write(
                    CellSettled(
                        cell_run=seen.cell_run, files_read=seen.files_read, files_written=seen.files_written,
                        gaps=seen.gaps,
                    )
                )  # fmt: skip

    def with_checkpoints(self) -> Checkpoints:
        """The kernel's checkpoints, made when first asked for.

        Raises
        ------
        WrongUse
            There is no kernel here.
        """
        if self.variables is None:
            raise WrongUse("there are no variables to keep here", cause="checkpoints are of a notebook's kernel")
        if self.checkpoints is None:
            from jupyter_mlops.capture.checkpoints import Checkpoints

            self.open()
            self.checkpoints = Checkpoints(self)
        return self.checkpoints

    def awaits_surroundings(self, cell_run: Digest) -> None:
        """Have a later line name the environment and code state of a cell that began before they were known."""
        self._unsurrounded.append(cell_run)

    def close(self) -> None:
        """Put the run's end on record and seal the journal; at most about two seconds."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        if self._run is None or self._store is None:
            return
        try:
            self._closed = False
            if self.checkpoints is not None:
                self.checkpoints.settle(2.0)
            with contextlib.suppress(RuntimeError):  # from Python 3.12 on no thread starts while the interpreter ends
                self.settle(wait=0.5)
            self._flush()
            if not self._attached:
                self._store.append(RunEnded(run=self._run, status="done", seconds=time.perf_counter() - self._began))
        except Exception as error:  # noqa: BLE001 - the process ends: what is captured is captured
            self.failed("close", error)
        finally:
            self._closed = True
            if self._ready and self.variables is not None:
                self.access.remove()
                self.namespace.close()
            self._store.close()

    # -- logging -----------------------------------------------------------------------------------------------------

    def log(self, what: str, key: str, value: Any = None, step: int = 0, artifact: Artifact | None = None) -> None:
        """Put a metric, parameter, tag or artifact on record at once, bound to the cell that runs.

        Raises
        ------
        WrongUse
            The key is no text, or the value cannot be recorded.
        JournalUnavailable
            It could not be written.
        """
        known = self._keys.get(key) if type(key) is str else None
        if known is None:
            known = self._check_key(key)
        if self._run is None:
            self.open()
        run = _RUN.get() or self._run
        assert run is not None
        assert self._store is not None
        self._store.append(
            CellLogged(run=run, cell_run=self.current, what=what, key=known, value=value, step=step, artifact=artifact)
        )
        if what == "metric":
            self.metrics[known] = value
        elif what == "param":
            self.parameters[known] = value

    def _check_key(self, key: Any) -> str:
        if not isinstance(key, str) or not key:
            raise WrongUse(f"a name to log under is a text, not {type(key).__name__}")
        if len(key) > 1000:
            raise WrongUse("a name to log under has at most 1000 characters")
        self.open()
        masked = self.redactor.text(str(key))[0]
        if len(self._keys) < 100_000:
            self._keys[str(key)] = masked
        return masked

    def masked(self, key: str, value: Any) -> Any:
        """A parameter's or tag's value as it may be written."""
        self.open()
        if self.redactor.secret(key, value):
            return "<redacted>"
        return self.redactor.value(value)[0]

    def context(self) -> RunContext:
        """What this session knows, for registering a model."""
        from jupyter_mlops.registry import RunContext

        artifacts: dict[str, Artifact] = {}
        modules: dict[str, None] = {}
        value_of = None
        if self._ready and self.variables is not None:
            variables = self.variables
            for name in list(variables):
                if type(name) is str and not name.startswith("_"):
                    version = self.namespace.version(name)
                    if version is not None:
                        artifacts[name] = version
                    if name in variables:
                        modules[_home(variables[name])] = None
            value_of = variables.get
        return RunContext(
            run=self.run, cell_run=self.current, environment=self.environment, artifacts=artifacts, value_of=value_of,
            metrics=dict(self.metrics), parameters=dict(self.parameters),
            modules=tuple(module for module in modules if module and module.partition(".")[0] != "jupyter_mlops"),
        )  # fmt: skip


def _home(value: object) -> str:
    """The module a value comes from: a module itself, that of a function or class, or of the value's class."""
    if type(value) is types.ModuleType:
        found = object.__getattribute__(value, "__dict__").get("__name__")
    elif type(value) is types.FunctionType:
        found = value.__module__
    else:
        # Past any metaclass: its own idea of attributes is somebody's code.
        found = type.__getattribute__(value if type(value) is type else type(value), "__module__")
    return found if type(found) is str else ""


class ActiveRun:
    """What `start_run` gives: a run of its own for what is logged inside the ``with``.

    Attributes
    ----------
    id
        The run's line.
    """

    def __init__(self, session: Session, *, parameters: dict[str, Any] | None = None) -> None:
        self._session = session
        session.open()
        self._began = time.perf_counter()
        self.id = session.store.append(
            RunStarted(
                trigger="script" if session.variables is None else "session", notebook=session.notebook(),
                user=session.redactor.text(session.project.user)[0], parent=session.run,
                on_behalf_of=session.project.on_behalf_of,
                parameters={key: session.masked(key, value) for key, value in (parameters or {}).items()},
            )
        )  # fmt: skip
        self._token = _RUN.set(self.id)
        self._ended = False

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        status = "done" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed"
        self.end(status=status, error=f"{kind.__name__}" if kind is not None else "")

    def end(self, *, status: str = "done", error: str = "") -> None:
        """Put the run's end on record; once."""
        if self._ended:
            return
        self._ended = True
        if _RUN.get() == self.id:
            _RUN.set(None)
        self._session.store.append(
            RunEnded(run=self.id, status=status, error=error, seconds=time.perf_counter() - self._began)
        )


_session: Session | None = globals().get("_session")  # a reload of this module keeps the session that goes on


def session() -> Session | None:
    """The session of this process, or None where nothing is recorded."""
    return _session


def set_session(one: Session | None) -> None:
    """Make a session the process's own, or none."""
    global _session
    _session = one


def here() -> Session:
    """The session of this process; a script's first word begins one."""
    if _session is None:
        one = Session(trigger="script")
        one.open()
        set_session(one)
        atexit.register(one.close)
        return one
    return _session
