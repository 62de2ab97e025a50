"""What each answer shows: records turned into `View`s, the same for a shell, a cell and a panel."""

from __future__ import annotations

from jupyter_mlops.views.cells import cell_runs
from jupyter_mlops.views.checkpoints import checkpointing, checkpoints, returned
from jupyter_mlops.views.diffs import diff, difference
from jupyter_mlops.views.environments import environment, environment_diff
from jupyter_mlops.views.lineages import TOLD_OF, drawn, lineage
from jupyter_mlops.views.pipelines import mermaid, pipeline_found, pipeline_run, pipeline_shown
from jupyter_mlops.views.registry import checks, contract, model, model_version, models, moved
from jupyter_mlops.views.reproducing import checked_out, created, locked, verified
from jupyter_mlops.views.runs import parameters, run_result, runs, step_result, targets
from jupyter_mlops.views.showing import show
from jupyter_mlops.views.slices import sliced
from jupyter_mlops.views.start import EXTRAS, doctor, made, status
from jupyter_mlops.views.stores import problems, scrubbed
from jupyter_mlops.views.subjects import NotFound, Subject, at, subject

__all__ = [
    "EXTRAS",
    "TOLD_OF",
    "NotFound",
    "Subject",
    "at",
    "cell_runs",
    "checked_out",
    "checkpointing",
    "checkpoints",
    "checks",
    "contract",
    "created",
    "diff",
    "difference",
    "doctor",
    "drawn",
    "environment",
    "environment_diff",
    "lineage",
    "locked",
    "made",
    "mermaid",
    "model",
    "model_version",
    "models",
    "moved",
    "parameters",
    "pipeline_found",
    "pipeline_run",
    "pipeline_shown",
    "problems",
    "returned",
    "run_result",
    "runs",
    "scrubbed",
    "show",
    "sliced",
    "status",
    "step_result",
    "subject",
    "targets",
    "verified",
]
