"""Drives a kernel through a notebook; what ``papermill --engine mlops`` finds.

Papermill's notebook format, progress bar and metadata are kept: its execution manager keeps the books, its client
collects the outputs. Ours are the loop over the cells, the file on disk, and the kernel's life:

* the kernel's process is told the notebook, the run, and that it is headless (`job`);
* our extension is loaded by a silent request before the first cell: no execution is counted, nothing is displayed, and
  where it can not be loaded the run goes on, with that said (`asking`);
* limits of time are kept by interrupting first, so that the traceback tells where it hung, then by killing (`cells`);
* a guard process outlives this one just long enough to kill the kernel (`kernel`).

The engine is a plain class that papermill calls by three names, so that finding it does not load papermill.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.job import Job
from jupyter_mlops.pipelines.kernel import Guard, KernelFailed, kill, require_kernel
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
    validate,
)
from jupyter_mlops.pipelines.secret import Masking, conceal, split
from jupyter_mlops.redact import Redactor

_log = logging.getLogger("jupyter_mlops")


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


def _drive(
    nb: Any, kernel_name: str, job: Job, progress_bar: Any, *, log_output: bool, options: Mapping[str, Any]
) -> None:
    from jupyter_client.asynchronous import AsyncKernelClient
    from nbclient.exceptions import CellTimeoutError
    from nbclient.util import run_sync
    from papermill.log import logger

    from jupyter_mlops.pipelines.cells import Cells
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
                run_sync(Cells(nb, client, books, job).run)()
            except CellTimeoutError:
                raise  # it has answered to the interrupt, and may end in order, or was killed
            except BaseException:
                # Whatever the kernel is at, and whatever it has started, ends with the run.
                kill(group)
                raise
            finally:
                output.hold = True  # what follows is written once
                books.notebook_complete()
                output.begin_last()  # while the kernel ends
                run_sync(end_kernel)(client.km)
    finally:
        books.cleanup_pbar()
