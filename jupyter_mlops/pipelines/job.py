"""One run of a notebook: as it is asked for, as it goes, and how its beginning and end get on record."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.outputs import OutputNotebook
from jupyter_mlops.pipelines.recalling import Recalling
from jupyter_mlops.pipelines.secret import placeholders
from jupyter_mlops.records import Artifact, Digest, Gap, RecordInvalid, RunEnded, RunStarted, Ticket, as_digest
from jupyter_mlops.redact import Redactor
from jupyter_mlops.targets.protocol import TEMPLATE, Event, OnEvent, tell

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_log = logging.getLogger("jupyter_mlops")


class CellFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run ended at a cell.

    Attributes
    ----------
    cell
        The cell's place in the notebook as it ran, from 1.
    id
        Its nbformat id.
    count
        Its execution count, the number in ``In [n]``; None where it has none.
    line, source
        The line of the cell that failed, from 1, and its text; None and empty where the traceback does not tell.
    ename, evalue
        The error's class and message.
    """

    cell: int
    id: str
    count: int | None
    line: int | None
    source: str
    ename: str
    evalue: str

    def __str__(self) -> str:
        where = f"cell {self.cell}" + (f" (In [{self.count}])" if self.count else "")
        if self.line is not None:
            where += f", line {self.line}: {self.source}"
        return f"{where}\n{self.ename}: {self.evalue}" if self.evalue else f"{where}\n{self.ename}"


class Watch(Protocol):
    """Who looks on while a run goes: `moment` is called a few times a second, `output` with each output as it comes."""

    def moment(self) -> None:
        """Time has passed."""

    def output(self, output: Mapping[str, Any]) -> None:
        """Something was printed, shown or raised; secrets are masked."""


class Job:
    """One run as it is asked for, and as it goes.

    Parameters
    ----------
    project
        Where it is recorded, or None.
    notebook
        The input notebook, where there is one.
    parameters
        What it is given and may be seen.
    secrets
        What it is given and nothing keeps.
    cwd
        The kernel's working directory; papermill's own rule unless given.
    timeout, cell_timeout
        Seconds for all cells, and for one.
    recorded
        Whether the caller writes the run's beginning and end.
    kernels
        The folder of kernel specifications to choose from; all that Jupyter knows unless given.
    watch
        Looks on.
    on_event
        Told when the run is on record, and when a cell begins and ends.
    keeps
        Whether what it follows from and what it leaves is kept, for a cache.
    checkpoints
        Whether the kernel's variables are kept after each cell.
    cache
        ``cells``: cells are recalled instead of run where all they depend on is what it was.
    resumes
        The run that this one goes on with.
    tickets
        What it is for.
    """

    def __init__(
        self,
        project: Project | None,
        notebook: Path | None,
        parameters: Mapping[str, Any],
        *,
        secrets: Mapping[str, Any] | None = None,
        cwd: Path | None = None,
        timeout: float | None = None,
        cell_timeout: float | None = None,
        recorded: bool = False,
        kernels: Path | None = None,
        on_event: OnEvent | None = None,
        watch: Watch | None = None,
        keeps: bool = False,
        checkpoints: bool = False,
        cache: str = "off",
        resumes: Digest | None = None,
        tickets: Sequence[str] = (),
    ) -> None:
        self.project = project
        self.notebook = notebook
        self.parameters = parameters
        self.secrets = secrets or {}
        self.cwd = cwd
        self.timeout = timeout
        self.cell_timeout = cell_timeout
        self.recorded = recorded
        self.kernels = kernels
        self.watch = watch
        self.on_event = on_event
        self.keeps = keeps
        self.checkpoints = checkpoints
        self.since = time.time_ns()
        self.loaded: Digest | None = None
        """The object that holds what the kernel had loaded at its end, where that was asked."""
        self.looked: Digest | None = None
        """The object that holds what its cells looked for, likewise."""
        self.basis: Artifact | None = None
        self.book: Mapping[str, Any] = {}
        """The notebook as it was given, where that is kept."""
        self.left: list[Artifact] = []
        """Files that it left, besides the output notebook."""
        self.cache = cache
        self.resumes = resumes
        self.tickets = tickets
        self.recalling: Recalling | None = None
        self.started = time.monotonic()
        self.run: Digest | None = None
        self.gaps: list[Gap] = []
        self.error: CellFailure | None = None
        self.cells = 0
        self.output: OutputNotebook | None = None
        self.kernel = "cold"
        self.stop = Stop()
        self._redactor: Redactor | None = None

    @property
    def status(self) -> str:
        """``done``, ``failed`` or ``interrupted``."""
        return "interrupted" if self.stop.signum else "failed" if self.error else "done"

    @property
    def redactor(self) -> Redactor:
        """What masks texts of this run; it knows the values of its secrets."""
        if self._redactor is None:
            self._redactor = Redactor() if self.project is None else self.project.redactor()
        return self._redactor

    @property
    def marks(self) -> dict[str, str]:
        """What stands for its secrets where it is kept."""
        return placeholders(self.secrets, self.redactor)

    def seen(self, text: str) -> str:
        """A text without the values of its secrets."""
        return self.redactor.known(text)[0] if self.secrets else text

    def begin(self) -> None:
        """Put the run on record."""
        if self.project is None:
            self.tell("started")
            return
        parent: Digest | None = None
        if self.project.parent_run:
            with contextlib.suppress(RecordInvalid):  # somebody else's variable
                parent = as_digest(self.project.parent_run)
        try:
            self.run = self.project.store.append(
                RunStarted(
                    trigger="papermill",
                    notebook="" if self.notebook is None else self.project.relative(self.notebook),
                    parameters={**self.redactor.value(dict(self.parameters))[0], **self.marks},
                    user=self.project.user,
                    on_behalf_of=self.project.on_behalf_of,
                    tickets=[Ticket(id=self.redactor.text(one)[0]) for one in self.tickets],
                    parent=parent,
                    resumes=self.resumes,
                    folder=self.project.folder if self.cwd is None else self.project.relative(self.cwd),
                )
            )
        except (MlopsError, OSError) as error:
            # A store that can not be written never stops a notebook.
            _log.warning("this run is not on record: %s", error)
        self.tell("started")

    def tell(self, kind: str, *, cell: int = 0, cells: int = 0, id: str = "", text: str = "") -> None:
        """Tell whoever listens how far the run is."""
        tell(self.on_event, Event(kind=kind, run=self.run, cell=cell, cells=cells, id=id, text=text))

    @property
    def template(self) -> str:
        """Where a warm kernel can be had; empty where there is none."""
        return self.project.environ.get(TEMPLATE, "") if self.project is not None else ""

    @property
    def loading_since(self) -> int:
        """When the first module of its kernel may have been loaded, which of a warm one is before it was forked."""
        with contextlib.suppress(OSError):  # there is none
            return min(self.since, os.stat(self.template).st_ctime_ns)
        return self.since

    def end(self, *, failed: str = "") -> None:
        """Put the run's end on record."""
        if self.project is None or self.run is None:
            return
        message = failed or (str(self.error) if self.error else "")
        outputs = []
        # Papermill adds its note to a failed notebook after the engine's end, so what is there then has another digest.
        final = self.recorded or not self.error
        if final and self.output is not None and self.output.path is not None and self.output.digest is not None:
            outputs.append(self.notebook_left(self.project, self.output))
        try:
            self.project.store.append(
                RunEnded(
                    run=self.run,
                    status=self.status if not failed or self.stop.signum else "failed",
                    seconds=round(time.monotonic() - self.started, 6),
                    error=self.redactor.text(message)[0][:2000],
                    outputs=[*outputs, *self.left],
                    gaps=self.gaps,
                    basis=self.basis,
                )
            )
            self.project.store.durable(timeout=2.0)
        except (MlopsError, OSError) as error:
            _log.warning("this run's end is not on record: %s", error)

    @staticmethod
    def notebook_left(project: Project, output: OutputNotebook) -> Artifact:
        """The output notebook, as records name it."""
        assert output.path is not None
        assert output.digest is not None
        return Artifact(
            name=project.relative(output.path), kind="file", digest=output.digest, size=output.size,
            stored=project.store.has(output.digest),
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The variables of the kernel's process."""
        from jupyter_mlops.project import Project

        environ = dict((self.project or Project(Path())).environ)
        # The order of a set of texts follows the hash seed: a run is to be repeatable.
        environ.setdefault("PYTHONHASHSEED", "0")
        environ["JUPYTER_MLOPS_HEADLESS"] = "1"
        environ.pop("JUPYTER_MLOPS_RUN", None)
        environ.pop(TEMPLATE, None)
        if self.run is not None:
            environ["JUPYTER_MLOPS_RUN"] = self.run
        if self.project is not None:
            environ["JUPYTER_MLOPS_PROJECT"] = str(self.project.root)
        if self.notebook is not None:
            path = os.path.abspath(self.notebook)
            environ["JUPYTER_MLOPS_NOTEBOOK"] = environ["JPY_SESSION_NAME"] = path
        return environ


class Stop:
    """The signals that end a run: the first asks for an orderly end, the second does not wait for it."""

    SIGNALS: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signum: int = 0
        self._before: dict[int, Any] = {}
        self._depth = 0

    def __enter__(self) -> Stop:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for signum in self.SIGNALS:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._before[signum] = signal.signal(signum, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _ask(self, signum: int, _: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum

    def pass_on(self) -> None:
        """Let the signal do what it does elsewhere, now that the run is in order."""
        if self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signum:
            signal.raise_signal(self.signum)
