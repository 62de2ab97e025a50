"""One headless run of a notebook, from the words of a call to its record."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.pipelines.engine import NO_CELL, NO_CELL_NEXT, CellFailure, Job, MlopsEngine, require_kernel
from jupyter_mlops.pipelines.outputs import OutputRefused, check_output, output_path
from jupyter_mlops.pipelines.parameters import ParametersInvalid, declared, language_of, read_notebook, validate
from jupyter_mlops.records import Digest, Gap
from jupyter_mlops.targets.protocol import OnEvent

if TYPE_CHECKING:
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
        ``done`` or ``failed``.
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
    """

    run: Digest | None
    output: Path
    status: str
    seconds: float
    error: CellFailure | None = None
    cells: int = 0
    write_seconds: float = 0.0
    gaps: list[Gap] = []


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
    cwd: Path | None = None,
    kernels: Path | None = None,
    on_event: OnEvent | None = None,
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
        Values for names that the notebook's cell tagged ``parameters`` assigns.
    project
        Where the run is recorded.
    kernel
        A kernel's name; the notebook's own unless given.
    timeout, cell_timeout
        Seconds for all cells, and for each: the cell is interrupted, and if that does not help the kernel killed.
    progress
        Show a bar on standard error, if that is a terminal.
    cwd
        The kernel's working directory; the notebook's folder unless given, as in JupyterLab.
    kernels
        The folder of kernel specifications to choose from; all that Jupyter knows unless given.
    on_event
        Told when the run is on record, and when a cell begins and ends.

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
    book, place = checked(path, output, parameters)
    if cwd is not None and not cwd.is_dir():
        raise OutputRefused(f"there is no folder {cwd} to run in")
    kernelspec = (book.get("metadata") or {}).get("kernelspec") or {}
    kernel = kernel or kernelspec.get("name") or "python3"
    require_kernel(kernel, kernels)
    job = Job(
        project, path.absolute(), _rows(dict(parameters)), cwd=(cwd or path.parent).absolute(), timeout=timeout,
        cell_timeout=cell_timeout, recorded=True, kernels=kernels, on_event=on_event,
    )  # fmt: skip
    return _run(job, path, place, kernel, language_of(book), progress=progress)


def checked(path: Path, output: Path | str | None, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """See that a notebook can be run with these parameters; the notebook, and where its output goes.

    Raises
    ------
    NotebookUnreadable, ParametersInvalid, OutputRefused
        It can not.
    """
    book = read_notebook(path)
    known = declared(book)
    if parameters and known is None and language_of(book) == "python":
        raise ParametersInvalid(NO_CELL, next=NO_CELL_NEXT)
    validate(parameters, known)
    place = output_path(output, parameters) if output is not None else path.with_name(f"{path.stem}.out.ipynb")
    place = place.absolute()
    check_output(place)
    if place.exists() and os.path.samefile(place, path):
        raise OutputRefused(f"{place.name} is the notebook itself", next="give the output another name with -o")
    return book, place


def _run(job: Job, path: Path, place: Path, kernel: str, language: str, *, progress: bool) -> RunResult:
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
        except (PapermillExecutionError, CellTimeoutError, DeadKernelError):
            pass  # the job holds which cell, and why
        except PapermillException as error:
            failed = str(error)
            raise RunRefused(f"papermill can not run {path.name}", cause=failed) from error
        except BaseException as error:
            failed = f"{type(error).__name__}: {error}"
            raise
        finally:
            job.end(failed=failed)
    job.stop.pass_on()
    return RunResult(
        run=job.run, output=place, status=job.status, seconds=time.monotonic() - job.started, error=job.error,
        cells=job.cells, write_seconds=job.output.seconds if job.output else 0.0, gaps=job.gaps,
    )  # fmt: skip


def _literal(path: Path) -> str:
    """A path that papermill's templating leaves alone."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _rows(value: Any) -> Any:
    """Tuples as lists: papermill would write a tuple into the cell as a text."""
    if isinstance(value, dict):
        return {key: _rows(item) for key, item in value.items()}
    return [_rows(item) for item in value] if isinstance(value, list | tuple) else value
