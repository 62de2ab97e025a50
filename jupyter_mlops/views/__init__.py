"""What each answer shows: records turned into `View`s, the same for a shell, a cell and a panel."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_mlops.views.cards import card
    from jupyter_mlops.views.cells import cell_runs
    from jupyter_mlops.views.checkpoints import checkpoint_list, checkpointing, returned
    from jupyter_mlops.views.ci import harmless, on_github, pipeline_told, reporting, sweep_told, wanted
    from jupyter_mlops.views.diffs import diff, difference
    from jupyter_mlops.views.drifting import drift, drifts
    from jupyter_mlops.views.environments import environment, environment_diff
    from jupyter_mlops.views.lineages import TOLD_OF, drawn, lineage
    from jupyter_mlops.views.panels import comparison, thresholds, timeline
    from jupyter_mlops.views.pipelines import mermaid, pipeline_found, pipeline_run, pipeline_shown
    from jupyter_mlops.views.progress import event_lines, telling, watching
    from jupyter_mlops.views.registry import checks, contract, model, model_version, models, moved
    from jupyter_mlops.views.reproducing import checked_out, created, locked, verified
    from jupyter_mlops.views.runs import due, outcome, parameters, run_list, run_result, step_result, swept, targets
    from jupyter_mlops.views.showing import show
    from jupyter_mlops.views.slices import sliced
    from jupyter_mlops.views.start import EXTRAS, doctor, made, status
    from jupyter_mlops.views.stores import problems, scrubbed
    from jupyter_mlops.views.subjects import NotFound, Subject, at, subject

_HOMES = {
    "EXTRAS": "start",
    "NotFound": "subjects",
    "Subject": "subjects",
    "TOLD_OF": "lineages",
    "at": "subjects",
    "card": "cards",
    "cell_runs": "cells",
    "checked_out": "reproducing",
    "checkpoint_list": "checkpoints",
    "checkpointing": "checkpoints",
    "checks": "registry",
    "contract": "registry",
    "comparison": "panels",
    "created": "reproducing",
    "diff": "diffs",
    "difference": "diffs",
    "doctor": "start",
    "drawn": "lineages",
    "drift": "drifting",
    "drifts": "drifting",
    "due": "runs",
    "environment": "environments",
    "environment_diff": "environments",
    "event_lines": "progress",
    "harmless": "ci",
    "lineage": "lineages",
    "locked": "reproducing",
    "made": "start",
    "mermaid": "pipelines",
    "model": "registry",
    "model_version": "registry",
    "models": "registry",
    "moved": "registry",
    "on_github": "ci",
    "outcome": "runs",
    "parameters": "runs",
    "pipeline_found": "pipelines",
    "pipeline_run": "pipelines",
    "pipeline_shown": "pipelines",
    "pipeline_told": "ci",
    "problems": "stores",
    "reporting": "ci",
    "returned": "checkpoints",
    "run_list": "runs",
    "run_result": "runs",
    "scrubbed": "stores",
    "show": "showing",
    "sliced": "slices",
    "status": "start",
    "step_result": "runs",
    "subject": "subjects",
    "sweep_told": "ci",
    "swept": "runs",
    "targets": "runs",
    "telling": "progress",
    "thresholds": "panels",
    "timeline": "panels",
    "verified": "reproducing",
    "wanted": "ci",
    "watching": "progress",
}
"""The module of each name: they are loaded when they are asked for, since most commands need few."""

__all__ = [
    "EXTRAS",
    "TOLD_OF",
    "NotFound",
    "Subject",
    "at",
    "card",
    "cell_runs",
    "checked_out",
    "checkpoint_list",
    "checkpointing",
    "checks",
    "comparison",
    "contract",
    "created",
    "diff",
    "difference",
    "doctor",
    "drawn",
    "drift",
    "drifts",
    "due",
    "environment",
    "environment_diff",
    "event_lines",
    "harmless",
    "lineage",
    "locked",
    "made",
    "mermaid",
    "model",
    "model_version",
    "models",
    "moved",
    "on_github",
    "outcome",
    "parameters",
    "pipeline_found",
    "pipeline_run",
    "pipeline_shown",
    "pipeline_told",
    "problems",
    "reporting",
    "returned",
    "run_list",
    "run_result",
    "scrubbed",
    "show",
    "sliced",
    "status",
    "step_result",
    "subject",
    "sweep_told",
    "swept",
    "targets",
    "telling",
    "thresholds",
    "timeline",
    "verified",
    "wanted",
    "watching",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return found
