"""Answers questions about a model from what is on record: gates, metrics, signatures, profiles. Pure functions.

A `Check` is asked of a `Candidate` and answers with a `Verdict`. Gates are checks in a short spelling
(``auc>@production+0.01``), read by `parse_gate`. Nothing here reads a file, a store or the clock.
"""

from __future__ import annotations

from jupyter_mlops.checks.contracts import Breach, Contract, Rule, breaches, infer
from jupyter_mlops.checks.data import (
    Column,
    DataInvalid,
    Signature,
    columns,
    compare,
    dtype_named,
    profile,
    signature_of,
)
from jupyter_mlops.checks.drift import Drift, drift
from jupyter_mlops.checks.evaluation import (
    Evaluation,
    EvaluationInvalid,
    Interval,
    bootstrap,
    direction,
    evaluation,
    metrics,
)
from jupyter_mlops.checks.gates import (
    APPROVAL,
    DEFAULT_GATES,
    RUNS_CODE,
    Approved,
    Better,
    Candidate,
    Check,
    Context,
    GateInvalid,
    History,
    Threshold,
    Verdict,
    parse_gate,
    stale_inputs,
)
from jupyter_mlops.checks.leakage import Leakage, leakage

__all__ = [
    "APPROVAL",
    "DEFAULT_GATES",
    "RUNS_CODE",
    "Approved",
    "Better",
    "Breach",
    "Candidate",
    "Check",
    "Column",
    "Context",
    "Contract",
    "DataInvalid",
    "Drift",
    "Evaluation",
    "EvaluationInvalid",
    "GateInvalid",
    "History",
    "Interval",
    "Leakage",
    "Rule",
    "Signature",
    "Threshold",
    "Verdict",
    "bootstrap",
    "breaches",
    "columns",
    "compare",
    "direction",
    "drift",
    "dtype_named",
    "evaluation",
    "infer",
    "leakage",
    "metrics",
    "parse_gate",
    "profile",
    "signature_of",
    "stale_inputs",
]
