"""MLOps that lives in the notebook: every cell run on record, models validated before they get a name.

``%load_ext jupyter_mlops`` in a notebook starts recording; ``%mlops`` there and ``mlops`` in a shell are the same
commands. In code, with MLflow's words where MLflow has one::

    from jupyter_mlops import log_metric, load_model, register_model

Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Project": "project",
    "fingerprint": "fingerprints",
    "load_model": "capture",
    "log_artifact": "capture",
    "log_metric": "capture",
    "log_metrics": "capture",
    "log_param": "capture",
    "log_params": "capture",
    "register_model": "capture",
    "set_tag": "capture",
    "start_run": "capture",
}

if TYPE_CHECKING:
    from jupyter_mlops.capture import (
        load_model,
        log_artifact,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        register_model,
        set_tag,
        start_run,
    )
    from jupyter_mlops.fingerprints import fingerprint
    from jupyter_mlops.project import Project

__all__ = [
    "Project",
    "__version__",
    "fingerprint",
    "load_model",
    "log_artifact",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "register_model",
    "set_tag",
    "start_run",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """What Jupyter's server loads; `server` is imported then, and not before."""
    return [{"module": "jupyter_mlops", "app": importlib.import_module("jupyter_mlops.server.routes").MlopsApp}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where the built JupyterLab extension is, for ``jupyter-builder develop``."""
    return [{"src": "labextension", "dest": "jupyter-mlops"}]


def load_ipython_extension(shell: Any) -> None:
    """Start recording in a shell: ``%load_ext jupyter_mlops``."""
    from jupyter_mlops import capture

    capture.load(shell)
    capture.directions(_directions)
    capture.answering(_answers)
    shell.register_magic_function(_magic, magic_kind="line", magic_name="mlops")
    shell.register_magic_function(_cell_magic, magic_kind="cell", magic_name="mlops")
    if _without_directions not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.insert(0, _without_directions)
    for word in ("%mlops", "%%mlops"):
        shell.set_hook("complete_command", _complete, str_key=word)


def unload_ipython_extension(shell: Any) -> None:
    """Stop recording, and take everything off again: ``%unload_ext jupyter_mlops``."""
    from jupyter_mlops import capture

    capture.unload(shell)
    if _without_directions in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(_without_directions)
    for kind, word in (("line", "%mlops"), ("cell", "%%mlops")):
        shell.magics_manager.magics[kind].pop("mlops", None)
        shell.strdispatchers["complete_command"].strs.pop(word, None)


# The command tree is loaded when its first word is typed, and not with the extension.


def _magic(line: str) -> Any:
    """The commands of `mlops`, in a cell: ``%mlops status``."""
    from IPython import get_ipython

    from jupyter_mlops import magics

    return magics.run_line(get_ipython(), line)


def _cell_magic(line: str, _body: str) -> None:
    """Say something of the cell on whose first line it stands: ``%%mlops --name features --ticket ABC-12``."""
    from jupyter_mlops import magics

    magics.refuse(line)


def _without_directions(lines: list[str]) -> list[str]:
    """Have a cell with ``%%mlops`` on its first line run as without; a line that is off stays, and fails."""
    first = next((line for line in lines if not line.isspace()), "")
    if not first.startswith("%%mlops"):
        return lines
    from jupyter_mlops import magics

    return magics.without_directions(lines)


def _directions(source: str) -> Any:
    if not source.lstrip().startswith("%%mlops"):
        return None
    from jupyter_mlops import magics

    return magics.directions(source)


def _answers(session: Any, what: str, words: dict[str, str]) -> tuple[int, bytes]:
    status, body = importlib.import_module("jupyter_mlops.server.asked").by_kernel(session, what, words)
    return status, body


def _complete(shell: Any, event: Any) -> list[str]:
    from jupyter_mlops import magics

    return magics.complete(shell, event)
