"""Words to log with, in MLflow's spelling: on record at once, bound to the cell that says them."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_mlops.capture.run import ActiveRun, here
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Artifact


def log_metric(key: str, value: float, step: int = 0) -> None:
    """Put a number on record at once: it survives the death of the process.

    Parameters
    ----------
    key
        Its name.
    value
        A number; numpy's scalars and arrays of one number too. NaN and infinities are numbers.
    step
        Which one of a series.

    Raises
    ------
    WrongUse
        The value is no number.
    """
    here().log("metric", key, value if type(value) is float else _number(key, value), step)


def log_metrics(metrics: Mapping[str, float], step: int = 0) -> None:
    """Put several numbers on record."""
    checked = {key: _number(key, value) for key, value in metrics.items()}
    for key, value in checked.items():
        here().log("metric", key, value, step)


def log_param(key: str, value: Any) -> Any:
    """Put a parameter on record; its value is given back."""
    session = here()
    session.log("param", key, session.masked(key, _plain(key, value)))
    return value


def log_params(params: Mapping[str, Any]) -> None:
    """Put several parameters on record."""
    for key, value in params.items():
        log_param(key, value)


def set_tag(key: str, value: Any) -> None:
    """Put a tag on record."""
    session = here()
    session.log("tag", key, session.masked(key, _plain(key, value)))


def log_artifact(path: str | Path, name: str = "") -> Artifact:
    """Keep a file's bytes in the store, and put it on record.

    Raises
    ------
    WrongUse
        There is no such file.
    """
    session = here()
    file = Path(path)
    if not file.is_file():
        raise WrongUse(f"{os.fspath(path)!r} is no file", next="log_artifact takes one file's path")
    session.open()
    shown = name or session.project.relative(file)
    digest = session.store.put(file)
    artifact = Artifact(name=shown, kind="file", digest=digest, size=session.store.size(digest), stored=True)
    session.log("artifact", shown, None, artifact=artifact)
    return artifact


def start_run(**parameters: Any) -> ActiveRun:
    """Begin a run of its own for what is logged inside ``with start_run():``."""
    return ActiveRun(here(), parameters=parameters or None)


def _number(key: object, value: Any) -> float | int:
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    if kind is bool or isinstance(value, str | bytes | complex):
        raise WrongUse(
            f"the metric {key!r} is no number", cause=f"it is a {kind.__name__}", next="log_param takes any value"
        )
    if isinstance(value, numbers.Real) or hasattr(kind, "__float__"):
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise WrongUse(f"the metric {key!r} is no number", cause=str(error)[:200]) from error
    raise WrongUse(
        f"the metric {key!r} is no number", cause=f"it is a {kind.__name__}", next="log_param takes any value"
    )


def _plain(key: str, value: Any) -> Any:
    """A value of builtin types that says the same."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) in (list, tuple):
        return [_plain(key, one) for one in value]
    if type(value) is dict:
        return {str(name): _plain(key, one) for name, one in value.items()}
    if type(value).__module__ == "numpy" and hasattr(type(value), "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | int | float):
        return str(value)
    raise WrongUse(
        f"the value of {key!r} cannot be recorded", cause=f"it is a {type(value).__name__}", next="give a text"
    )
