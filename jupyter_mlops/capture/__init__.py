"""What happens in a kernel, recorded without changing it.

* `hooks` turns IPython's events into cell runs.
* `run` is the run in progress: store, surroundings, what is logged.
* `displays` sees what the kernel publishes; `randomness` which generators moved; `surroundings` the environment and the
  code around the cells.
* `tracking` is what people call: `log_metric` and its like, in notebooks and plain scripts.
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jupyter_mlops.capture.run import ActiveRun, Directions, Session, session, set_session
from jupyter_mlops.capture.tracking import (
    log_artifact,
    log_metric,
    log_metrics,
    log_param,
    log_params,
    set_tag,
    start_run,
)

if TYPE_CHECKING:
    from jupyter_mlops.capture.live import Answer

__all__ = [
    "ActiveRun",
    "Directions",
    "Session",
    "answering",
    "directions",
    "learn",
    "load",
    "load_model",
    "loaded",
    "log_artifact",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "looking",
    "recalling",
    "register_model",
    "session",
    "set_tag",
    "start_run",
    "unload",
]

_MARK = "_jupyter_mlops_hooks"


def load(shell: Any) -> None:
    """Begin recording in a shell. A second call, also after a reload of this package, changes nothing."""
    if getattr(shell, _MARK, None) is not None:
        return
    from jupyter_mlops.capture.hooks import Hooks

    one = Session(variables=shell.user_ns)
    hooks = Hooks(shell, one)
    setattr(shell, _MARK, hooks)
    set_session(one)
    hooks.install()
    atexit.register(one.close)


def directions(read: Callable[[str], Directions | None]) -> None:
    """Have what a cell's first line says of it read by a function; see `Directions`."""
    one = session()
    if one is not None:
        one.directions = read


def answering(answer: Answer) -> None:
    """Have what pages ask of the record answered by a function; see `capture.live`."""
    one = session()
    hooks = getattr(one.shell, _MARK, None) if one is not None else None
    if hooks is not None:
        hooks.live.answer = answer


def learn(told: str) -> None:
    """Mask secrets that an engine tells of, from now on: names and the texts that give each away, as JSON."""
    one = session()
    if one is None:
        return
    redactor = one.project.redactor()
    for name, texts in json.loads(told).items():
        redactor.learn_name(name)
        for text in texts:
            redactor.learn(text)


def recalling(request: str) -> str:
    """Answer an engine that wants cells recalled instead of run; see `capture.recall.Recall`. Never raises.

    Parameters
    ----------
    request
        JSON: ``do`` is ``begin`` (with ``cells``, all sources in order), ``consult`` before a cell (with ``cells``: the
        ``source`` and ``cell`` of it and of those after it), or ``keep`` (with ``shown`` or ``why``) after it.

    Returns
    -------
    str
        JSON; ``told`` of each cell that was come to; ``why`` where a cell has to run, or was not kept.
    """
    one = session()
    try:
        said = json.loads(request)
        hooks = getattr(one.shell, _MARK, None) if one is not None else None
        if one is None or hooks is None or not one.recording:
            return json.dumps({"why": "this kernel does not record"})
        if said["do"] == "begin":
            from jupyter_mlops.capture.recall import recalls

            recalls(one, hooks, said["cells"])
            return "{}"
        if one.recall is None:
            return json.dumps({"why": "this kernel keeps no cells"})
        if said["do"] == "consult":
            cells = [(asked["source"], asked["cell"]) for asked in said["cells"]]
            return json.dumps({"told": one.recall.consult_all(cells)})
        return json.dumps(one.recall.keep(said.get("shown"), said.get("why", "")))
    except Exception as error:  # noqa: BLE001 - whatever is wrong here, the cell is run as it would be without us
        if one is not None:
            one.failed("recall", error)
        return json.dumps({"why": f"recalling failed ({type(error).__name__})"})


def unload(shell: Any) -> None:
    """End recording: the run's end is put on record, and everything is taken off again."""
    hooks = getattr(shell, _MARK, None)
    if hooks is None:
        return
    delattr(shell, _MARK)
    hooks.remove()
    hooks.session.close()
    atexit.unregister(hooks.session.close)
    set_session(None)


def looking() -> None:
    """Note from now on what each cell looks for, and not only what it reads."""
    one = session()
    if one is not None:
        one.open()
        one.access.look()
        one.looked = {}


def loaded(wanted: Iterable[str], since: int) -> str:
    """Keep two objects, of what is loaded in this process and of what its cells looked for, and say their names.

    Parameters
    ----------
    wanted
        Names of modules that cells tried to import.
    since
        When this process was about to begin, in nanoseconds since the epoch.
    """
    import msgspec

    from jupyter_mlops.capture.run import here
    from jupyter_mlops.environment.loaded import loaded as look

    one = here()
    one.open()
    one.settle(wait=0.5)
    looked = one.looked or {}
    missed = {name.partition(".")[0] for looks in looked.values() for name in looks.modules}
    around = look(str(one.project.root), one.project.relative, {*wanted, *missed}, since=since)
    spelled = {cell: looks.spelled(one.project.relative) for cell, looks in looked.items()}
    return " ".join(one.store.put(msgspec.json.encode(kept)) for kept in (around, spelled))


def register_model(model: object, name: str, **options: Any) -> int:
    """Register the next version of a model, bound to the cell that does it; options as `LocalRegistry.register` has.

    Returns
    -------
    int
        The version's number.
    """
    from jupyter_mlops.capture.run import here
    from jupyter_mlops.registry import LocalRegistry

    one = here()
    registry = LocalRegistry(one.store, user=one.project.user, redactor=one.redactor)
    number, _ = registry.register(model, name, context=one.context(), **options)
    return int(number)


def load_model(ref: str, *, trust: bool = False) -> object:
    """Load a registered model: ``load_model("models:/delays@production")``."""
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import LocalRegistry

    one = session()
    project = one.project if one is not None else Project.open(create=False)
    return LocalRegistry(project.store, user=project.user).load(ref, trust=trust)
