"""The interpreter and its packages: observed as a record, held against another, and locked so that it can be made anew.

* `observing` reads what is installed and in memory, and tells two environments apart.
* `locking` writes what a run used as a lock (PEP 751) and as requirements with hashes, `making` makes an environment
  of that; both are loaded when asked for.
"""

from __future__ import annotations

from jupyter_mlops.environment.observing import (
    EnvironmentDiff,
    Observer,
    canonical,
    diff,
    observe,
    owners,
    program_variables,
    requirements,
)

__all__ = [
    "EnvironmentDiff",
    "Observer",
    "canonical",
    "diff",
    "observe",
    "owners",
    "program_variables",
    "requirements",
]
