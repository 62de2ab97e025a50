"""Drives a kernel through a notebook; what ``papermill --engine mlops`` finds.

Papermill's notebook format, progress bar and metadata are kept: its execution manager keeps the books, its client
collects the outputs. Ours are the loop over the cells, the file on disk, and the kernel's life:

* the kernel's process is told the notebook, the run, and that it is headless; each cell's id travels with its request;
* our extension is loaded by a silent request before the first cell: no execution is counted, nothing is displayed, and
  where it can not be loaded the run goes on, with that said;
* limits of time are kept by interrupting first, so that the traceback tells where it hung, then by killing;
* a guard process outside of the run's process group holds one end of a pipe; when the other end closes unsaid, by
  whatever death, it kills the kernel's process group. (An ipykernel that is deep in C code does not notice by itself.)

The engine is a plain class that papermill calls by three names, so that finding it does not load papermill.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.outputs import OutputNotebook, check_output
from jupyter_mlops.pipelines.parameters import (
    INJECTED_TAG,
    PAPERMILL_OWN,
    NotebookUnreadable,
    ParametersInvalid,
    convert,
    declared,
    language_of,
    read_notebook,
    tags_of,
    validate,
)
from jupyter_mlops.pipelines.recalling import Recalling
from jupyter_mlops.pipelines.secret import TEACH, Masking, conceal, placeholders, split
from jupyter_mlops.records import Artifact, Digest, Gap, RecordInvalid, RunEnded, RunStarted, Ticket, as_digest
from jupyter_mlops.redact import Redactor
from jupyter_mlops.targets.protocol import TEMPLATE, Event, OnEvent, tell

if TYPE_CHECKING:
    import asyncio

    from jupyter_mlops.project import Project

_log = logging.getLogger("jupyter_mlops")

_TICK: Final = 0.25
_GRACE: Final = 3.0
_LOAD_LIMIT: Final = 60.0
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class KernelMissing(MlopsError, LookupError):
    """The notebook's kernel is not installed here."""

    exit_code = 2


class KernelFailed(MlopsError, RuntimeError):
    """The kernel did not start."""


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


class MlopsEngine:
    """The papermill engine ``mlops``."""

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel's name: as asked for, else as the notebook says."""
        from papermill.utils import nb_kernel_name

        return str(nb_kernel_name(nb, name))

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """The notebook's language: as asked for, else as the notebook says."""
        from papermill.utils import nb_language

        return str(nb_language(nb, language))

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | Path | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,  # noqa: ARG003 (papermill's word; our file is fresher than that)
        job: Job | None = None,
        **options: Any,
    ) -> Any:
        """Run a parameterized notebook and return it with its outputs.

        This is what papermill calls; `job` is given by `run_notebook`.

        Raises
        ------
        ParametersInvalid
            A parameter has no usable name, or does not fit the notebook.
        KernelMissing
            There is no such kernel here.
        """
        with _as_click_says():
            if job is None:
                job = _job_of(nb, options)
            require_kernel(kernel_name, job.kernels)
            path = _local_path(output_path)
            if path is not None:
                check_output(path)
        if job.secrets:
            conceal(nb, job.parameters, job.secrets, job.marks, kernel_name)
        _stable_ids(nb, job.notebook)
        job.output = OutputNotebook(nb, path, started=job.started)
        _save_through(nb, job.output, output_path)
        with job.stop:
            if not job.recorded:
                job.begin()
            failed = ""
            try:
                _drive(nb, kernel_name, job, progress_bar, log_output=log_output, options=options)
            except BaseException as error:  # whatever it is, an interrupt too, the run ends on record as what it was
                failed = f"{type(error).__name__}: {error}"
                raise
            finally:
                job.output.finish()
                if not job.recorded:
                    job.end(failed=failed)
        if not job.recorded:
            job.stop.pass_on()
        return nb


@contextlib.contextmanager
def _as_click_says() -> Iterator[None]:
    """In papermill's own command, what we refuse is wrong use and no traceback."""
    try:
        yield
    except MlopsError as error:
        import click

        context = click.get_current_context(silent=True)
        if context is None or context.find_root().info_name == "mlops":
            raise
        kind = type("Refused", (click.ClickException,), {"exit_code": error.exit_code})
        raise kind(str(error)) from error


def _job_of(nb: Any, options: Mapping[str, Any]) -> Job:
    """The run that papermill asks for, whose parameters already stand in an injected cell."""
    from jupyter_mlops.project import Project

    given = dict(nb.metadata.get("papermill", {}).get("parameters") or {})
    own = {name: value for name, value in given.items() if name not in PAPERMILL_OWN}
    known = declared(nb)
    if own and known is None and language_of(nb) == "python":
        raise ParametersInvalid(NO_CELL, next=NO_CELL_NEXT)
    own = convert(own)
    validate(own, known)
    source = options.get("input_path")
    notebook = _local_path(source) if isinstance(source, str) and not source.lstrip().startswith("{") else None
    if notebook is not None and not notebook.is_file():
        notebook = None
    project: Project | None = None
    try:
        project = Project.open(notebook.parent if notebook else None)
        _ = project.store
    except (MlopsError, OSError) as error:
        _log.warning("this run is not on record: %s", error)
        project = None
    limit = options.get("execution_timeout") or options.get("timeout")
    seen, hidden = split(own, known, Redactor() if project is None else project.redactor())
    if hidden:
        require_python(nb, hidden)
    rest = {name: value for name, value in given.items() if name in PAPERMILL_OWN}
    cache = str(options.get("cache") or (project.settings.cache if project is not None else "off"))
    if cache not in ("off", "cells"):
        raise ParametersInvalid(f"papermill's engine has no cache {cache!r}", next="it can be cells, or off")
    return Job(project, notebook, {**rest, **seen}, secrets=hidden, cell_timeout=limit, cache=cache)


def require_python(book: Mapping[str, Any], hidden: Mapping[str, Any]) -> None:
    """See that a notebook can be given secrets without their being written into a cell.

    Raises
    ------
    ParametersInvalid
        It is in another language than Python.
    """
    if language_of(book) != "python":
        raise ParametersInvalid(
            f"{', '.join(hidden)}: a secret can be given to a notebook in Python only",
            next="have the notebook read it from a variable of the environment",
        )


NO_CELL: Final = "the notebook takes no parameters: none of its cells has the tag 'parameters'"
NO_CELL_NEXT: Final = "tag the cell that assigns them: in JupyterLab, Property Inspector > Cell Tags > parameters"


def _local_path(path: str | Path | None) -> Path | None:
    """A path that papermill takes for a local one, as seen from where papermill was called."""
    if path is None or str(path) == "-":
        return None
    from papermill.iorw import papermill_io

    handler = papermill_io.get_handler(str(path))
    if handler is not papermill_io.get_handler("any.ipynb"):
        return None
    base = handler.cwd(None)
    handler.cwd(base)
    return Path(base or ".", path).absolute()


def require_kernel(name: str, kernels: Path | None = None) -> None:
    """See that a kernel of that name is installed.

    Raises
    ------
    KernelMissing
        It is not; the message lists those that are.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    specs = KernelSpecManager() if kernels is None else KernelSpecManager(kernel_dirs=[str(kernels)])
    try:
        specs.get_kernel_spec(name)
    except NoSuchKernel as error:
        known = ", ".join(sorted(specs.find_kernel_specs())) or "none"
        raise KernelMissing(
            f"there is no kernel {name!r} here",
            cause=f"installed are: {known}",
            next="choose one with -k, or install it: python -m ipykernel install --user --name NAME",
        ) from error


def _stable_ids(nb: Any, notebook: Path | None) -> None:
    """Give cells that have no id in the file one that is the same in every run.

    Formats before 4.5 have no ids, and papermill draws random ones, as for the cell of parameters that it adds.
    """
    known: set[str] = set()
    if notebook is not None:
        with contextlib.suppress(NotebookUnreadable):  # papermill has read it already, in its own way
            known = {str(cell.get("id")) for cell in read_notebook(notebook)["cells"] if cell.get("id")}
    taken = set(known)
    for cell in nb.cells:
        if cell.get("id") in known:
            continue
        if INJECTED_TAG in cell.metadata.get("tags", ()):
            seed = INJECTED_TAG
        else:
            seed = hashlib.sha256(f"{cell.cell_type}\0{cell.source}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
        name, nth = seed, 1
        while name in taken:
            nth += 1
            name = f"{seed}-{nth}"
        taken.add(name)
        cell["id"] = name
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        nb.nbformat_minor = 5


_unsaved: dict[str, OutputNotebook] = {}
"""Files whose last writing papermill asks for after the engine is done, by the path it uses."""


def _save_through(nb: Any, output: OutputNotebook, named: str | Path | None) -> None:
    """Have papermill's own last save go through our writer.

    After an engine is done, papermill serialises the whole notebook again and writes it in place, and before that, for
    a failed run, a note above the failed cell. It offers no hook for either; the one function it calls is wrapped.
    """
    import papermill.execute as papermill_execute

    place = named or nb.metadata.get("papermill", {}).get("output_path")
    local = _local_path(place)
    if local is None:
        return
    if output.path is None:  # "save only at the end"
        output.path = local
        output.hold = True
    _unsaved[str(place)] = output
    written = papermill_execute.write_ipynb
    if getattr(written, "by_mlops", False):
        return

    def write_ipynb(nb: Any, path: Any) -> None:
        ours = _unsaved.pop(str(path), None)
        if ours is None:
            written(nb, path)
        else:
            ours.finish(nb)

    write_ipynb.by_mlops = True  # type: ignore[attr-defined]
    papermill_execute.write_ipynb = write_ipynb


# -- the kernel ------------------------------------------------------------------------------------------------------


class Guard:
    """A process that outlives this one just long enough to kill the kernel's process group.

    It waits for a line on a pipe of ours: the line means that all is well, the pipe's end that we are dead.
    """

    SCRIPT: Final = 'read -r line && exit 0; kill -s KILL -- "-$1"'

    def __init__(self, group: int | None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if group is None or os.name != "posix" or group == os.getpgid(0):
            return
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self.SCRIPT, "jupyter-mlops-guard", str(group)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            # An ipykernel also looks for its parent once a second by itself.
            _log.warning("no process stands guard over the kernel: %s", error)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):  # it is gone already
            self._process.communicate(b"over\n")


def _drive(
    nb: Any, kernel_name: str, job: Job, progress_bar: Any, *, log_output: bool, options: Mapping[str, Any]
) -> None:
    from jupyter_client.asynchronous import AsyncKernelClient
    from nbclient.exceptions import CellTimeoutError
    from nbclient.util import run_sync
    from papermill.log import logger

    from jupyter_mlops.pipelines.client import Books, Client, Prompt, end_kernel

    assert job.output is not None
    output = job.output
    books = Books(nb, output.changed, progress_bar=progress_bar, log_output=log_output)
    books.notebook_start()
    client = Client(
        books, kernel_name=kernel_name, timeout=None, startup_timeout=options.get("start_timeout") or 60, log=logger,
        log_output=log_output, stdout_file=options.get("stdout_file"), stderr_file=options.get("stderr_file"),
        # Saved widget state makes a static page ask a server for scripts, instead of showing the plain form.
        store_widget_state=False,
    )  # fmt: skip
    if job.watch is not None:
        client.on_output = job.watch.output
    if job.secrets:
        client.masking = Masking(job.redactor.known)
    client.create_kernel_manager()
    if job.kernels is not None:
        from jupyter_client.kernelspec import KernelSpecManager

        client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[str(job.kernels)])
    if job.template:
        from jupyter_mlops.targets import warm

        warm.use(client.km, job.template)
    if client.km.client_factory is AsyncKernelClient:
        client.km.client_factory = Prompt
    client.reset_execution_trackers()
    start: dict[str, Any] = {"env": job.environment()}
    if hasattr(client.kernel_manager_class, "transport_encryption"):
        start["transport_encryption"] = "auto"  # where the kernel can; else it warns on every start that it is not
    if job.cwd is not None:
        start["cwd"] = str(job.cwd)
    try:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(client.setup_kernel(**start))
            except (RuntimeError, OSError) as error:
                raise KernelFailed(f"the kernel {kernel_name!r} did not start", cause=str(error)) from error
            group = getattr(client.km.provisioner, "pgid", None)
            stack.enter_context(Guard(group))
            job.kernel = getattr(client.km.provisioner, "origin", "cold")
            if getattr(client.km.provisioner, "declined", ""):
                job.tell("note", text=f"the kernel is started as usual: {client.km.provisioner.declined}")
            try:
                run_sync(_Cells(nb, client, books, job).run)()
            except CellTimeoutError:
                raise  # it has answered to the interrupt, and may end in order, or was killed
            except BaseException:
                # Whatever the kernel is at, and whatever it has started, ends with the run.
                _kill(group)
                raise
            finally:
                output.hold = True  # what follows is written once
                books.notebook_complete()
                output.begin_last()  # while the kernel ends
                run_sync(end_kernel)(client.km)
    finally:
        books.cleanup_pbar()


def _kill(group: int | None) -> None:
    if group is not None and hasattr(os, "killpg") and group != os.getpgid(0):
        with contextlib.suppress(OSError):  # it is gone already
            os.killpg(group, signal.SIGKILL)


class _Cells:
    """The walk over the cells of one notebook."""

    def __init__(self, nb: Any, client: Any, books: Any, job: Job) -> None:
        self.nb, self.client, self.books, self.job = nb, client, books, job
        self.deadline = None if job.timeout is None else time.monotonic() + job.timeout

    async def run(self) -> None:
        await self._load_extension()
        if self.job.cache == "cells":
            await self._begin_recalling()
        heading = ""
        cells, nth = sum(map(_runs, self.nb.cells)), 0
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type == "markdown":
                heading = _heading(cell.source) or heading
            if self.job.stop.signum:
                break
            try:
                self.books.cell_start(cell, index)
                self._show(index, cell, heading)
                if _runs(cell):
                    nth += 1
                    self.job.tell("cell began", cell=nth, cells=cells, id=cell.get("id", ""))
                if not await self._cell(cell, index):
                    self.books.cell_exception(cell, cell_index=index)
                    break
            finally:
                _join_streams(cell)
                self.books.cell_complete(cell, cell_index=index)
                if _runs(cell):
                    self.job.tell("cell ended", cell=nth, cells=cells, id=cell.get("id", ""))
        if self.job.keeps and self.job.status == "done":
            await self._ask_what_is_loaded()

    def _show(self, index: int, cell: Any, heading: str) -> None:
        if self.books.pbar:
            name = self.books.get_cell_description(cell) or heading
            self.books.pbar.set_postfix_str("", refresh=False)
            self.books.pbar.set_description(f"cell {index + 1}" + (f" · {name[:40]}" if name else ""))

    async def _cell(self, cell: Any, index: int) -> bool:
        """Run a cell to its end, its limit or a signal; whether the run may go on."""
        import asyncio

        from nbclient.exceptions import CellExecutionError, DeadKernelError

        runs = _runs(cell)
        asks = self.job.secrets if INJECTED_TAG in tags_of(cell) else {}
        recalling = self.job.recalling if runs and not asks else None
        if recalling is not None and await recalling.consult(cell, index + 1):
            self.job.cells += 1
            return True
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
            self.job.cells += runs
            if not task.done():
                task.cancel()
        return True

    async def _wait(self, task: asyncio.Future[Any]) -> str:
        """Wait for a cell while keeping the file fresh; why it must end, if it must."""
        import asyncio

        begun = time.monotonic()
        limit = self.job.cell_timeout
        ends = None if limit is None else time.monotonic() + limit
        while True:
            now = time.monotonic()
            pause = min(_TICK, *(max(0.0, one - now) for one in (ends, self.deadline) if one is not None), _TICK)
            await asyncio.wait({task}, timeout=pause)
            if task.done():
                return ""
            self.job.output.write_if_due()  # type: ignore[union-attr]
            self._moment(time.monotonic() - begun)
            now = time.monotonic()
            if self.job.stop.signum:
                return f"stopped by {signal.Signals(self.job.stop.signum).name}"
            if ends is not None and now >= ends:
                return f"the cell ran longer than {limit:g} s"
            if self.deadline is not None and now >= self.deadline:
                return f"the run took longer than {self.job.timeout:g} s"

    def _moment(self, seconds: float) -> None:
        """Show that time has passed in a cell."""
        if self.books.pbar and seconds >= 1:
            self.books.pbar.set_postfix_str(f"this cell {seconds:.0f} s")
        if self.job.watch is not None:
            self.job.watch.moment()

    async def _end(self, task: asyncio.Future[Any], cell: Any, index: int, why: str) -> None:
        """End a cell that must end: by an interrupt, or if that does not help by the kernel's death."""
        import asyncio

        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
        from nbclient.util import ensure_async

        await ensure_async(self.client.km.interrupt_kernel())
        await asyncio.wait({task}, timeout=_GRACE)
        if task.done():
            with contextlib.suppress(CellExecutionError, DeadKernelError):  # it is why it ended that counts
                task.result()
        else:
            task.cancel()
            why += "; the kernel ignored the interrupt and was killed"
            _kill(getattr(self.client.km.provisioner, "pgid", None))
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

    async def _load_extension(self) -> None:
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

    async def _ask_what_is_loaded(self) -> None:
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
            await asyncio.wait({task}, timeout=_TICK)
            late = self.deadline is not None and time.monotonic() >= self.deadline
            if not task.done() and (self.job.stop.signum or late):
                await ensure_async(self.client.km.interrupt_kernel())
                await asyncio.wait({task}, timeout=_GRACE)
                task.cancel()
                return {}
        return dict(task.result())

    async def _begin_recalling(self) -> None:
        """Have cells recalled and kept, where the kernel records them."""
        job = self.job
        if job.project is None or job.run is None or job.gaps:
            return

        async def ask(expression: str) -> str:
            answer = await self._until_stopped(self._evaluate(expression, None))
            return str(answer.get("data", {}).get("text/plain", ""))

        recalling = Recalling(ask, job.project.store, job.redactor)
        sources = [cell.source for cell in self.nb.cells if _runs(cell)]
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


def _runs(cell: Any) -> bool:
    """Whether there is anything in a cell for a kernel to do."""
    return cell.cell_type == "code" and bool(cell.source.strip())


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
