"""Notebooks run headless: our papermill engine, and single runs of a notebook with parameters.

A headless run is a kernel that loads the extension, as a person's kernel does; what happens inside it is recorded
there. This side starts the kernel, tells it which run, notebook and cell it is about, keeps the output notebook on disk
valid and fresh, and sees to it that whatever happens the run is on record and no kernel outlives it.

* `parameters` reads what a notebook can be given, and refuses what it can not, before anything runs; `words` reads what
  command lines, YAML and the environment say of them; `secret` sees to it that nothing keeps the values of secret ones.
* `outputs` writes the output notebook: atomically, and for a bounded share of the run's time.
* `engine` is what ``papermill --engine mlops`` finds: it has a `job` done: one run, as it is asked for and goes.
  For that it has a `kernel` with a `client`, takes it through the `cells`, and is `asking` it what is not in these.
* `runs` is one run from the words of a call to its record: `run_notebook`.
* `steps` is a run as a step that a target performs, in whatever process that is.
* `basis` finds what a run follows from, and keeps what it left; `cache` finds a run on record that stands for another.
* `graph` is a pipeline as a file and in order, found from the record; `running` runs it, `unchanged` remembers that
  nothing of it has changed, `exporting` writes it as a workflow.
* `sweeps` is one notebook over many parameters.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_mlops.pipelines.engine import MlopsEngine
    from jupyter_mlops.pipelines.job import CellFailure
    from jupyter_mlops.pipelines.kernel import KernelFailed, KernelMissing
    from jupyter_mlops.pipelines.outputs import OutputNotebook, OutputRefused, OutputUnwritten
    from jupyter_mlops.pipelines.parameters import (
        INJECTED_TAG,
        NotebookUnreadable,
        Parameter,
        ParametersInvalid,
        Secret,
        code_cells,
        inspect_parameters,
        read_notebook,
        source_of,
        tags_of,
        validate,
    )
    from jupyter_mlops.pipelines.resuming import NotResumed, resume_run, resumed_notebook
    from jupyter_mlops.pipelines.runs import RunRefused, RunResult, checked, run_due, run_notebook
    from jupyter_mlops.pipelines.steps import PERFORM, perform, printed, run_on, step_of
    from jupyter_mlops.pipelines.sweeps import Axis, Point, Sweep, sweep
    from jupyter_mlops.pipelines.words import parse_parameter, read_parameters, read_parameters_file

_HOMES = {
    "Axis": "sweeps",
    "CellFailure": "job",
    "INJECTED_TAG": "parameters",
    "KernelFailed": "kernel",
    "KernelMissing": "kernel",
    "MlopsEngine": "engine",
    "NotResumed": "resuming",
    "NotebookUnreadable": "parameters",
    "OutputNotebook": "outputs",
    "OutputRefused": "outputs",
    "OutputUnwritten": "outputs",
    "PERFORM": "steps",
    "Parameter": "parameters",
    "ParametersInvalid": "parameters",
    "Point": "sweeps",
    "RunRefused": "runs",
    "RunResult": "runs",
    "Secret": "parameters",
    "Sweep": "sweeps",
    "checked": "runs",
    "code_cells": "parameters",
    "inspect_parameters": "parameters",
    "parse_parameter": "words",
    "perform": "steps",
    "printed": "steps",
    "read_notebook": "parameters",
    "read_parameters": "words",
    "read_parameters_file": "words",
    "resume_run": "resuming",
    "resumed_notebook": "resuming",
    "run_due": "runs",
    "run_notebook": "runs",
    "run_on": "steps",
    "source_of": "parameters",
    "step_of": "steps",
    "sweep": "sweeps",
    "tags_of": "parameters",
    "validate": "parameters",
}
"""The module of each name: they are loaded when they are asked for, since most commands need few."""

__all__ = [
    "INJECTED_TAG",
    "PERFORM",
    "Axis",
    "CellFailure",
    "KernelFailed",
    "KernelMissing",
    "MlopsEngine",
    "NotResumed",
    "NotebookUnreadable",
    "OutputNotebook",
    "OutputRefused",
    "OutputUnwritten",
    "Parameter",
    "ParametersInvalid",
    "Point",
    "RunRefused",
    "RunResult",
    "Secret",
    "Sweep",
    "checked",
    "code_cells",
    "inspect_parameters",
    "parse_parameter",
    "perform",
    "printed",
    "read_notebook",
    "read_parameters",
    "read_parameters_file",
    "resume_run",
    "resumed_notebook",
    "run_due",
    "run_notebook",
    "run_on",
    "source_of",
    "step_of",
    "sweep",
    "tags_of",
    "validate",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return found
