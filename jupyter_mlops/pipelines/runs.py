"""One headless run of a notebook, from the words of a call to its record."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.engine import NO_CELL, NO_CELL_NEXT, MlopsEngine, require_python
from jupyter_mlops.pipelines.job import CellFailure, Job, Watch
from jupyter_mlops.pipelines.kernel import require_kernel
from jupyter_mlops.pipelines.outputs import OutputRefused, check_output, output_path
from jupyter_mlops.pipelines.parameters import (
    ParametersInvalid,
    convert,
    declared,
    language_of,
    read_notebook,
    validate,
)
from jupyter_mlops.pipelines.secret import split
from jupyter_mlops.records import Artifact, Digest, Gap, RunEnded, encode
from jupyter_mlops.targets.protocol import OnEvent

if TYPE_CHECKING:
    from jupyter_mlops.pipelines.cache import Answer, Asked
    from jupyter_mlops.project import Project

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class RunRefused(MlopsError, RuntimeError):
    """Papermill has no way to run this notebook, as where it knows no words for parameters in its language."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run.

    Attributes
    ----------
    run
        The run's digest; None where it could not be put on record.
    output
        The output notebook.
    status
        ``done``, ``failed``, or ``cached``: nothing ran, and `run` is the one whose result stands.
    seconds
        How long it took, kernel start and end included.
    error
        Where and why it failed.
    cells
        How many code cells ran.
    write_seconds
        How long writing the output notebook has held up the run.
    gaps
        What could not be recorded.
    because
        Why it ran, where a cache was asked.
    put_back
        Files that were gone, where nothing ran: they are there again.
    notes
        What to know of a result that was taken over.
    recalled
        With a cache of cells: the places of those that were recalled instead of run, from 1.
    again
        With a cache of cells: the places of those that ran, each with the reason.
    kernel
        How the kernel came about: ``cold``: it was started; or ``warm``.
    """

    run: Digest | None
    output: Path
    status: str
    seconds: float
    error: CellFailure | None = None
    cells: int = 0
    write_seconds: float = 0.0
    gaps: list[Gap] = []
    because: str = ""
    put_back: list[str] = []
    notes: list[str] = []
    recalled: list[int] = []
    again: list[tuple[int, str]] = []
    kernel: str = "cold"


def run_notebook(
    path: Path,
    *,
    output: Path | str | None = None,
    parameters: Mapping[str, Any] = _NOTHING,
    project: Project,
    kernel: str | None = None,
    timeout: float | None = None,
    cell_timeout: float | None = None,
    progress: bool = False,
    watch: Watch | None = None,
    cwd: Path | None = None,
    kernels: Path | None = None,
    on_event: OnEvent | None = None,
    cache: str = "off",
    checkpoints: bool = False,
    resumes: Digest | None = None,
    tickets: Sequence[str] = (),
) -> RunResult:
    """Run a notebook headless, with parameters, and put the run on record.

    Parameters
    ----------
    path
        The notebook.
    output
        Where the executed notebook goes; ``{name}`` stands for that parameter's value. Beside the notebook, as
        ``NAME.out.ipynb``, unless given.
    parameters
        Values for names that the notebook's cell tagged ``parameters`` assigns. Secret ones (see `pipelines.secret`)
        get into the kernel and nowhere else.
    project
        Where the run is recorded.
    kernel
        A kernel's name; the notebook's own unless given.
    timeout, cell_timeout
        Seconds for all cells, and for each: the cell is interrupted, and if that does not help the kernel killed.
    progress
        Show a bar on standard error, if that is a terminal.
    watch
        Is told of each moment and each output as it comes.
    cwd
        The kernel's working directory; the notebook's folder unless given, as in JupyterLab.
    kernels
        The folder of kernel specifications to choose from; all that Jupyter knows unless given.
    on_event
        Told when the run is on record, and when a cell begins and ends.
    cache
        ``notebook``: nothing is run where a run on record was asked for in the same words, and nothing has changed that
        it followed from; files of it that are gone are put back. ``cells``: what a cell did is put back where all it
        depends on is what it was. ``off``: it is run.
    checkpoints
        Keep the kernel's variables after each cell.
    resumes
        The run that this one goes on with.
    tickets
        What it is for, as a tracker's ids.

    Returns
    -------
    RunResult
        Also of a run whose cell failed, ran out of time or took the kernel down.

    Raises
    ------
    NotebookUnreadable, ParametersInvalid, OutputRefused, KernelMissing
        Before anything runs.
    KernelFailed, OutputUnwritten
        The kernel did not start; the result could not be written.
    KeyboardInterrupt
        The run was interrupted; it is on record as that. A SIGTERM is passed on likewise.
    """
    path = Path(path)
    asked = checked(path, output, parameters, project)
    job, kernel = _job(
        path, asked, project, kernel=kernel, timeout=timeout, cell_timeout=cell_timeout, cwd=cwd, kernels=kernels,
        on_event=on_event, checkpoints=checkpoints, watch=watch,
        # The record does not know whether secrets are those of another run.
        keeps=cache == "notebook" and not asked.secrets, cache=cache, resumes=resumes, tickets=tickets,
    )  # fmt: skip
    if job.keeps:
        return _unless_known(job, path, asked.place, kernel, asked.book, progress=progress)
    result = _run(job, path, asked.place, kernel, language_of(asked.book), progress=progress)
    if cache == "notebook":
        result = msgspec.structs.replace(result, because=_SECRETS)
    return result


def run_due(
    path: Path,
    *,
    output: Path | str | None = None,
    parameters: Mapping[str, Any] = _NOTHING,
    project: Project,
    kernel: str | None = None,
) -> Answer:
    """Whether the run that `run_notebook` would make with its cache is on record, or why not; nothing is run.

    Raises
    ------
    NotebookUnreadable, ParametersInvalid, OutputRefused, KernelMissing
        It can not be run.
    """
    from jupyter_mlops.pipelines.cache import Answer, Cache

    asked = checked(Path(path), output, parameters, project)
    job, kernel = _job(Path(path), asked, project, kernel=kernel)
    if asked.secrets:
        return Answer(why=_SECRETS)
    with Cache(project) as cache:
        return cache.answer(_words(job, asked.place, kernel))


_SECRETS: Final = "it is given secrets, and the record does not tell one from another"


def _job(
    path: Path, asked: Checked, project: Project, *, kernel: str | None, cwd: Path | None = None,
    kernels: Path | None = None, **options: Any,
) -> tuple[Job, str]:  # fmt: skip
    """A run as it is asked for, and the name of its kernel."""
    book = asked.book
    if cwd is not None and not cwd.is_dir():
        raise OutputRefused(f"there is no folder {cwd} to run in")
    kernelspec = (book.get("metadata") or {}).get("kernelspec") or {}
    kernel = kernel or kernelspec.get("name") or "python3"
    require_kernel(kernel, kernels)
    job = Job(
        project, path.absolute(), asked.parameters, secrets=asked.secrets, cwd=(cwd or path.parent).absolute(),
        recorded=True, kernels=kernels, **options,
    )  # fmt: skip
    job.book = book
    return job, kernel


class Checked(NamedTuple):
    """A run that can be: the notebook, where its output goes, and what it is given, apart from its secrets."""

    book: dict[str, Any]
    place: Path
    parameters: dict[str, Any]
    secrets: dict[str, Any]


def checked(path: Path, output: Path | str | None, parameters: Mapping[str, Any], project: Project) -> Checked:
    """See that a notebook can be run with these parameters; the project's redactor learns the secrets among them.

    Raises
    ------
    NotebookUnreadable, ParametersInvalid, OutputRefused
        It can not.
    """
    book = read_notebook(path)
    known = declared(book)
    if parameters and known is None and language_of(book) == "python":
        raise ParametersInvalid(NO_CELL, next=NO_CELL_NEXT)
    given = convert(parameters)
    validate(given, known)
    seen, hidden = split(given, known, project.redactor())
    if hidden:
        require_python(book, hidden)
    place = output_path(output, seen) if output is not None else path.with_name(f"{path.stem}.out.ipynb")
    place = place.absolute()
    check_output(place)
    if place.exists() and os.path.samefile(place, path):
        raise OutputRefused(f"{place.name} is the notebook itself", next="give the output another name with -o")
    return Checked(book, place, _rows(seen), _rows(hidden))


def _unless_known(
    job: Job, path: Path, place: Path, kernel: str, book: Mapping[str, Any], *, progress: bool
) -> RunResult:  # fmt: skip
    """Run, unless what that would do is on record."""
    from jupyter_mlops.pipelines.cache import Cache

    assert job.project is not None
    with Cache(job.project) as cache:
        asked = _words(job, place, kernel)
        answer = cache.answer(asked)
        if answer.run is not None:
            back = cache.put_back(answer)
            _took_over(job, answer)
            return RunResult(
                run=answer.run, output=place, status="cached", seconds=time.monotonic() - job.started, put_back=back,
                notes=answer.notes,
            )  # fmt: skip
        result = _run(job, path, place, kernel, language_of(book), progress=progress, found_by=cache.name(asked))
    return msgspec.structs.replace(result, because=answer.why)


def asked_of(
    project: Project, path: Path, output: Path, parameters: Mapping[str, Any], kernel: str | None = None
) -> Asked:
    """A run as a cache is asked for it, where it is asked for as `run_notebook` would be."""
    from jupyter_mlops.pipelines.cache import Asked

    if kernel is None:
        kernelspec = (read_notebook(path).get("metadata") or {}).get("kernelspec") or {}
        kernel = kernelspec.get("name") or "python3"
    return Asked(
        notebook=path.absolute(), output=output.absolute(), parameters=_rows(dict(parameters)), kernel=kernel,
        cwd=path.parent.absolute(), environ=Job(project, path, parameters).environment(),
    )  # fmt: skip


def _words(job: Job, place: Path, kernel: str) -> Asked:
    """A run as a cache knows it."""
    from jupyter_mlops.pipelines.cache import Asked

    assert job.notebook is not None
    assert job.cwd is not None
    return Asked(
        notebook=job.notebook, output=place, parameters=job.parameters, kernel=kernel, cwd=job.cwd,
        environ=job.environment(),
    )  # fmt: skip


def _took_over(job: Job, answer: Answer) -> None:
    """Put on record, where it is part of a greater run, that nothing ran and whose result stands."""
    project = job.project
    if project is None or not project.parent_run:
        return
    job.begin()
    if job.run is not None:
        seconds = round(time.monotonic() - job.started, 6)
        project.store.append(RunEnded(run=job.run, status="cached", same_as=answer.run, seconds=seconds))


def _keep(job: Job, found_by: Digest, kernel: str) -> None:
    """Put what the run follows from, and what it left, where a cache finds it."""
    from jupyter_mlops import seals
    from jupyter_mlops.pipelines.basis import basis_of, kernel_of, sealed

    project, output = job.project, job.output
    if project is None or job.run is None or job.notebook is None or output is None or output.digest is None:
        return
    made = basis_of(
        project, project.store.cell_runs(run=job.run, newest_first=False), book=job.book, parameters=job.parameters,
        environ=job.environment(), kernel=kernel_of(kernel, job.kernels, project), loaded=job.loaded, looked=job.looked,
        output=job.notebook_left(project, output), ran=job.cells,
    )  # fmt: skip
    try:
        made = msgspec.structs.replace(made, seal=sealed(made, job.run, found_by, seals.local_key()))
    except (MlopsError, OSError) as error:
        made = msgspec.structs.replace(made, never=[*made.never, f"it can not be sealed: {error}"])
    job.left = made.wrote
    job.basis = Artifact(name=found_by, kind="basis", digest=project.store.put(encode(made)), stored=True)


def _run(
    job: Job, path: Path, place: Path, kernel: str, language: str, *, progress: bool, found_by: Digest | None = None
) -> RunResult:  # fmt: skip
    from jupyter_mlops.pipelines import lean  # noqa: F401 - before all that import nbformat

    # isort: split
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import papermill_engines
    from papermill.exceptions import PapermillException, PapermillExecutionError
    from papermill.execute import execute_notebook

    papermill_engines.register("mlops", MlopsEngine)  # a checkout that is not installed has no entry point
    bar: bool | dict[str, Any] = False
    if progress and sys.stderr.isatty():
        bar = {"desc": path.name, "leave": False, "file": sys.stderr}
    with job.stop:
        job.begin()
        failed = ""
        try:
            with warnings.catch_warnings():
                # A notebook that lacks ids is given some; papermill's reader would tell every user of it.
                warnings.filterwarnings("ignore", message="Cell is missing an id field")
                execute_notebook(
                    _literal(path.absolute()), _literal(place), parameters=dict(job.parameters) or None,
                    engine_name="mlops", kernel_name=kernel, language=language, progress_bar=bar, job=job,
                )  # fmt: skip
            if found_by is not None and job.status == "done":
                _keep(job, found_by, kernel)
        except (PapermillExecutionError, CellTimeoutError, DeadKernelError):
            pass  # the job holds which cell, and why
        except PapermillException as error:
            failed = job.seen(str(error))
            raise RunRefused(f"papermill can not run {path.name}", cause=failed) from error
        except BaseException as error:  # whatever it is, an interrupt too, the run ends on record as what it was
            failed = f"{type(error).__name__}: {error}"
            raise
        finally:
            job.end(failed=failed)
    job.stop.pass_on()
    return RunResult(
        run=job.run, output=place, status=job.status, seconds=time.monotonic() - job.started, error=job.error,
        cells=job.cells, write_seconds=job.output.seconds if job.output else 0.0, gaps=job.gaps,
        recalled=job.recalling.recalled if job.recalling else [], again=job.recalling.again if job.recalling else [],
        kernel=job.kernel,
    )  # fmt: skip


def _literal(path: Path) -> str:
    """A path that papermill's templating leaves alone."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _rows(value: Any) -> Any:
    """Tuples as lists: papermill would write a tuple into the cell as a text."""
    if isinstance(value, dict):
        return {key: _rows(item) for key, item in value.items()}
    return [_rows(item) for item in value] if isinstance(value, list | tuple) else value
