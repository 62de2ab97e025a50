"""Plays a person's session with a notebook, or a notebook from top to bottom, in a shell that records.

One process loads the heavy libraries once and forks for each job it is given (a line of JSON): a job has a folder, the
notebook's path, and the steps. So a session costs what its cells cost. The shell is IPython's own, with the extension
loaded as a person loads it; only the messages to a front end are missing.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

PRELOADED = (
    "matplotlib.pyplot", "numpy", "pandas", "sklearn.linear_model", "sklearn.model_selection",
    "IPython.core.completer", "IPython.core.interactiveshell", "IPython.core.magics", "IPython.display",
    "jupyter_mlops.access", "jupyter_mlops.capture.displays", "jupyter_mlops.capture.hooks",
    "jupyter_mlops.capture.run", "jupyter_mlops.capture.surroundings", "jupyter_mlops.environment",
    "jupyter_mlops.fingerprints.instances", "jupyter_mlops.fingerprints.tensors", "jupyter_mlops.git",
    "jupyter_mlops.namespace", "jupyter_mlops.redact", "jupyter_mlops.store",
)  # fmt: skip
"""What every session needs: loaded once, before the processes part."""


def play(job: dict[str, Any]) -> None:
    """Run the steps in a fresh shell: ``["run", cell, source]`` or ``["file", path, text]``."""
    os.chdir(job["cwd"])
    os.environ["JUPYTER_MLOPS_NOTEBOOK"] = job["notebook"]
    os.environ["JUPYTER_MLOPS_PROJECT"] = job["folder"]
    sys.path.insert(0, "")
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):
        def enable_gui(self, gui: object = None) -> None:
            """As a kernel has it for ``%matplotlib inline``: there is no window."""

    shell = Shell.instance()
    shell.history_manager.enabled = False
    main = sys.modules["__main__"] = shell.user_module
    assert main.__name__ == "__main__"
    shell.run_line_magic("load_ext", "jupyter_mlops")
    from jupyter_mlops.capture import session, unload

    for kind, name, text in job["steps"]:
        if kind == "file":
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        else:
            shell.run_cell(text, store_history=True, cell_id=name)
    errors = [str(error) for error in session().errors]
    unload(shell)
    assert not errors, errors


def main() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            status = 1
            try:
                out = os.open(os.devnull, os.O_WRONLY)
                os.dup2(out, 1)
                play(job)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(json.dumps(status), flush=True)


if __name__ == "__main__":
    main()
