"""Runs notebooks in shells that keep and recall their cells, each in a process of its own, and tells what came of it.

One process loads the heavy libraries once and forks for each job (a line of JSON), as `player` does. The shell is
IPython's own; what a cell prints is kept by this module, as the engine keeps what a page shows.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Final

PRELOADED = (
    "numpy", "pandas", "IPython.core.completer", "IPython.core.interactiveshell", "IPython.core.magics",
    "IPython.display", "jupyter_mlops.access", "jupyter_mlops.capture.displays", "jupyter_mlops.capture.hooks",
    "jupyter_mlops.capture.recall", "jupyter_mlops.capture.run", "jupyter_mlops.capture.surroundings",
    "jupyter_mlops.environment", "jupyter_mlops.fingerprints.instances", "jupyter_mlops.git",
    "jupyter_mlops.namespace", "jupyter_mlops.redact", "jupyter_mlops.store", "jupyter_mlops.values.arrays",
    "jupyter_mlops.values.frames", "jupyter_mlops.values.instances", "test_namespace",
)  # fmt: skip

_RESULT: Final = re.compile(r"^Out\[\d+\]", re.MULTILINE)


def play(job: dict[str, Any]) -> dict[str, Any]:
    """Run cells in a fresh shell.

    Parameters
    ----------
    job
        ``folder``, ``cells`` (sources), and where wanted ``cache`` (false: cells are only run), ``kill`` (the number of
        cells after which the process dies), ``environ`` (variables to set), ``drawn`` (how many numbers are drawn from
        each generator beforehand).
    """
    os.chdir(job["folder"])
    os.environ |= {
        "JUPYTER_MLOPS_HEADLESS": "1", "JUPYTER_MLOPS_PROJECT": job["folder"],
        "JUPYTER_MLOPS_NOTEBOOK": str(Path(job["folder"], "book.ipynb")), **job.get("environ", {}),
    }  # fmt: skip
    sys.path.insert(0, job["folder"])
    import random

    import numpy as np
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    random.seed(7)  # a fork draws a fresh one; as for the record, no cell has seeded it
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    sys.modules["__main__"] = shell.user_module
    shell.run_line_magic("load_ext", "jupyter_mlops")
    from jupyter_mlops.capture import recalling, session, unload

    def say(**request: Any) -> dict[str, Any]:
        return json.loads(recalling(json.dumps(request)))

    one = session()
    cells, told = job["cells"], []
    if job.get("cache", True):
        assert say(do="begin", cells=cells) == {}
    for _ in range(job.get("drawn", 0)):
        random.random(), np.random.rand()
    recalled, why = [], {}
    failed: list[Any] = []
    ahead: list[dict[str, Any]] = []
    for place, source in enumerate(cells):
        if job.get("cache", True) and not ahead:
            asked = [{"source": text, "cell": f"c{number}"} for number, text in enumerate(cells)][place:]
            ahead = say(do="consult", cells=asked)["told"]
        said = ahead.pop(0) if ahead else {}
        if "recalled" in said:
            recalled.append(place)
            # (as the engine does: what is shown as a result is numbered as this run has it)
            told.append(_RESULT.sub(f"Out[{said['count']}]", one.store.get(said["shown"]).decode()))
        else:
            why[place] = said.get("why", "")
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
                result = shell.run_cell(source, store_history=True, cell_id=f"c{place}")
            error = result.error_before_exec or result.error_in_exec
            told.append(out.getvalue())
            if error is not None:  # the next runs all the same, as after a cell that may raise
                failed.append([place, type(error).__name__])
            elif job.get("cache", True):
                kept = say(do="keep", shown=one.store.put(out.getvalue().encode()))
                why[place] = [why[place], kept.get("why", "")]
        if place + 1 == job.get("kill"):
            os._exit(9)
    from test_namespace import told as content

    from jupyter_mlops.values import NotKept, layout

    variables = {name: shell.user_ns[name] for name in sorted(one.namespace.versions())}
    try:
        shape = layout(variables)
    except NotKept as error:
        shape = str(error)
    answer = {
        "variables": {name: repr(content(value)) for name, value in variables.items()},
        "aliases": sharing(variables), "layout": shape, "printed": told, "failed": failed,
        "files": {
            path.name: path.read_text() for path in sorted(Path().iterdir())
            if path.is_file() and path.name not in job.get("sources", ()) and path.suffix in (".txt", ".csv")
        },
        "count": shell.execution_count, "recalled": recalled, "why": why,
        "settings": [np.get_printoptions()["precision"], os.path.relpath(os.getcwd(), job["folder"])],
    }  # fmt: skip
    errors = [str(error) for error in one.errors]
    unload(shell)
    assert not errors, errors
    return answer


def sharing(variables: dict[str, Any]) -> list[list[str]]:
    """The places at which one and the same changeable object is found, told without help of ours."""
    import types

    import numpy as np

    places: dict[Any, list[str]] = {}
    memory: list[tuple[int, int, str]] = []

    def walk(value: Any, place: str) -> None:
        kind = type(value)
        if kind in (int, float, str, bool, bytes, type(None), types.ModuleType, np.float64, np.int64):
            return
        if kind in (tuple, frozenset):
            for number, one in enumerate(value):
                walk(one, f"{place}[{number}]")
            return
        known = places.setdefault(id(value), [])
        known.append(place)
        if len(known) > 1:
            return
        if kind is list:
            parts = list(enumerate(value))
        elif kind is dict:
            parts = list(value.items())
        elif kind is np.ndarray:
            memory.append((*np.lib.array_utils.byte_bounds(value), place))
            return
        elif kind is types.FunctionType and value.__module__ == "__main__":
            cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
            parts = [("defaults", value.__defaults__), ("closure", tuple(cells)), *vars(value).items()]
        elif kind is type and value.__module__ == "__main__":
            parts = [(name, one) for name, one in vars(value).items() if name[:2] != "__"]
        elif kind.__module__ == "__main__" and hasattr(value, "__dict__"):
            parts = [("class", kind), *vars(value).items()]
        else:
            return
        for name, one in parts:
            walk(one, f"{place}.{name}")

    for name, value in variables.items():
        walk(value, name)
    overlap = [
        [one, other, str(start - low)] for low, high, one in memory for start, end, other in memory
        if one < other and low < end and start < high
    ]  # fmt: skip
    return sorted(found for found in places.values() if len(found) > 1) + sorted(overlap)


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.close(reading)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                answer = json.dumps(play(job)).encode("utf-8", "surrogatepass")
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(answer)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": status, "answer": json.loads(answer) if answer else None}), flush=True)


if __name__ == "__main__":
    main()
