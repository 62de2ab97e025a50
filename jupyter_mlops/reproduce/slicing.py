"""A slice written as a notebook, and that notebook run again to see whether it makes the same.

The cells are those that ran, with the source they ran with. What is added is said in the metadata: what was sliced from
where, which digests are expected, and the files, the environment and the lock it needs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints.files import file_digest, folder_digest
from jupyter_mlops.lineage.slices import Slice, slice_of
from jupyter_mlops.records import (
    Artifact,
    CellRun,
    Digest,
    Environment,
    Gap,
    ModelVersion,
    Run,
    digest_of,
    plain,
    short,
)
from jupyter_mlops.reproduce import parameters

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store

KEY: Final = "jupyter_mlops"
"""What our part of a notebook's metadata, and of a cell's, is called."""

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_HEADING: Final = re.compile(r"(#{1,6})\s+\S.*")


class SliceRefused(MlopsError, LookupError):
    """What was asked for can not be sliced: the message says which gap prevents it."""

    exit_code = 1


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a slice is to make.

    Attributes
    ----------
    text
        The reference as it was given.
    roots
        The cell runs that made it.
    names
        What is asked for of what they made; everything, where empty.
    expected
        What it was, as it was made: variables and files by digest.
    metrics
        Metrics by value.
    """

    text: str
    roots: tuple[Digest, ...]
    names: tuple[str, ...] = ()
    expected: tuple[Artifact, ...] = ()
    metrics: dict[str, Any] = {}


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of running a slice.

    Attributes
    ----------
    same
        Whether everything expected was made again.
    differs
        What was not: a name, what it was, what it is.
    first
        The first cell that made something else than it had, in words; empty where none did.
    error
        Where the run ended early.
    """

    same: bool
    differs: list[tuple[str, str, str]] = []
    first: str = ""
    error: str = ""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A slice that was written: the notebook, what it makes, and what came of running it where that was asked for."""

    path: Path
    target: Target
    slice: Slice
    book: dict[str, Any]
    checked: Checked | None = None


def make(
    project: Project, text: str, line: Digest | None, value: Any, output: Path, *, check_it: bool = False,
    allow_unseeded: bool = False, force: bool = False, lock: bool = False,
) -> Made:  # fmt: skip
    """Slice what a reference means, and write the notebook.

    Parameters
    ----------
    text, line, value
        As for `target_of`.
    output
        Where the notebook goes.
    check_it
        Run it in a copy, and compare.
    allow_unseeded
        Write it even if it need not give the same again.
    force
        Replace a file that is there.
    lock
        Put a lock of what it used into the metadata: the package index is asked.

    Raises
    ------
    SliceRefused
        A gap prevents it.
    OutputRefused
        It can not be written there.
    """
    from jupyter_mlops.pipelines.parameters import NotebookUnreadable, read_notebook

    target = target_of(project.store, text, line, value)
    found = slice_for(project, target, allow_unseeded=allow_unseeded)
    notebook = next((run.started.notebook for run in reversed(found.runs) if run.started.notebook), "")
    source: dict[str, Any] | None = None
    if notebook:
        try:
            source = read_notebook(place_of(project, notebook))
        except NotebookUnreadable:
            source = None  # moved or removed since: there are no headings then
    redactor = project.redactor()
    locked = ""
    if lock:
        from jupyter_mlops.reproduce.create import lock_of
        from jupyter_mlops.reproduce.past import past

        used = past(project.store, text, found.runs[-1].id, found.runs[-1])
        locked = lock_of(used, project.store, folder=output.absolute().parent)[0].pylock()
    book = notebook_of(
        found, project.store, target=target, book=source, lock=locked, mask=lambda text: redactor.text(text)[0]
    )
    write(output, book, force=force)
    checked = check(project, found, book, target, notebook=notebook) if check_it else None
    return Made(path=output, target=target, slice=found, book=book, checked=checked)


def target_of(store: Store, text: str, line: Digest | None, value: Any) -> Target:
    """What a reference asks for, as cell runs and names.

    Parameters
    ----------
    text
        The reference as it was given.
    line, value
        Where it stands and what stands there: an `Artifact`, `CellRun`, `Run`, or a model's version.

    Raises
    ------
    SliceRefused
        No cell run on record made it.
    """
    record = getattr(value, "record", value)
    if isinstance(record, ModelVersion):
        if record.cell_run is None:
            raise SliceRefused(f"{text} was made by no recorded cell", cause="it was registered outside of a notebook")
        return _whole(text, [store.cell_run(record.cell_run)])
    if isinstance(record, Artifact):
        made = record.made or (line if record.kind != "variable" else None)
        run = store.cell_run(made) if made is not None else None
        if run is None or not any(one.name == record.name for one in (*run.outputs, *run.files_written)):
            raise SliceRefused(
                f"{text} was made by no recorded cell", next=f"mlops show {text} says what is known of it"
            )
        return Target(text=text, roots=(run.id,), names=(record.name,), expected=(record,))
    if isinstance(record, CellRun):
        if text in record.metrics:
            return Target(text=text, roots=(record.id,), names=(text,), metrics={text: record.metrics[text]})
        return _whole(text, [record])
    if isinstance(record, Run):
        runs = [run for run in store.cell_runs(run=record.id, newest_first=False) if run.status == "done"]
        results = [run for run in runs if run.logged or run.files_written] or [run for run in runs if run.outputs][-1:]
        if not results:
            raise SliceRefused(f"the run {text} has no result", cause="no cell of it logged, wrote or made anything")
        return _whole(text, results)
    raise SliceRefused(f"{text} is nothing that cells make", next="mlops show says what it is")


def _whole(text: str, runs: Sequence[CellRun]) -> Target:
    expected = [one for run in runs for one in (*run.outputs, *run.files_written) if one.digest is not None]
    return Target(
        text=text, roots=tuple(run.id for run in runs), expected=tuple({one.name: one for one in expected}.values()),
        metrics={key: value for run in runs for key, value in run.metrics.items()},
    )  # fmt: skip


def slice_for(project: Project, target: Target, *, allow_unseeded: bool = False, files: bool = True) -> Slice:
    """Find the slice that makes a target.

    Parameters
    ----------
    allow_unseeded
        Also one that need not give the same again.
    files
        See that the files and modules it needs are here as they were read.

    Raises
    ------
    SliceRefused
        A gap prevents it: each one is named, with what can be done.
    """
    store = project.store
    found = slice_of(
        target.roots, store.cell_run, names=target.names,
        history=lambda run: store.cell_runs(run=run, newest_first=False),
    )  # fmt: skip
    hindered = [*found.blocked, *(_missing(project, found) if files else ())]
    if hindered:
        raise SliceRefused(
            f"{target.text} can not be sliced", cause=_said(hindered),
            next=f"mlops lineage {target.text} shows what is on record",
        )  # fmt: skip
    if found.unseeded and not allow_unseeded:
        raise SliceRefused(
            f"{target.text} need not come out the same again", cause=_said(found.unseeded),
            next="--allow-unseeded writes the notebook all the same, and says so in it",
        )  # fmt: skip
    return found


def _said(gaps: Sequence[Gap]) -> str:
    few = "; ".join(f"{gap.subject}: {gap.reason}" for gap in gaps[:5])
    return few + (f"; and {len(gaps) - 5} more" if len(gaps) > 5 else "")


def _missing(project: Project, found: Slice) -> Iterator[Gap]:
    """Files and modules that are not there any more as they were read."""
    for one in found.files:
        if one.kind == "source":
            continue
        path = place_of(project, one.name)
        if not path.exists():
            yield Gap(subject=one.name, reason="the file is gone", blocks=True)
        elif one.digest is not None and _digest_now(project, path, one) != one.digest:
            what = "module" if one.kind == "module" else "file"
            yield Gap(subject=one.name, reason=f"the {what} is not what it was: {short(one.digest)} then", blocks=True)


def place_of(project: Project, name: str) -> Path:
    """Where a file of a record stands."""
    return project.root / os.path.expanduser(name)


def _digest_now(project: Project, path: Path, one: Artifact) -> Digest | None:
    if one.kind == "module":  # its secrets were masked before it was hashed
        text = project.redactor().text(path.read_bytes().decode("utf-8", "surrogateescape"))[0]
        return digest_of(text.encode("utf-8", "surrogateescape"))
    return folder_digest(path).digest if path.is_dir() else file_digest(path).digest


# -- the notebook ----------------------------------------------------------------------------------------------------


def notebook_of(
    found: Slice, store: Store, *, target: Target, book: Mapping[str, Any] | None = None,
    lock: str = "", mask: Callable[[str], str] = str,
) -> dict[str, Any]:  # fmt: skip
    """Write a slice as a notebook.

    Parameters
    ----------
    found
        The slice.
    store
        Where its environment is on record.
    target
        What it makes.
    book
        The notebook it comes from as it is now, for its headings and its kernel.
    lock
        The text of a lock of its environment; empty for none.
    mask
        Masks the secrets in what is taken from that notebook.

    Returns
    -------
    dict
        Of format 4.5.
    """
    moved = parameters.move([piece.source for piece in found.pieces])
    ids: set[str] = set()
    cells: list[dict[str, Any]] = []
    if found.unseeded:
        said = "\n".join(f"- {gap.subject}: {gap.reason}" for gap in found.unseeded)
        cells.append(_markdown(f"This notebook need not give the same again:\n\n{said}", _free("unseeded", ids)))
    if moved.lines:
        cells.append(_code("\n".join(moved.lines), _free("parameters", ids), {"tags": ["parameters"]}))
    headings = _Headings(book or {}, mask)
    for piece, source in zip(found.pieces, moved.sources, strict=True):
        if not source:
            continue
        run = piece.run
        for text, id_ in headings.above(run.started.cell):
            cells.append(_markdown(text, _free(id_, ids)))
        own: dict[str, Any] = {"cell_run": run.id}
        if not piece.whole or source != piece.run.source:
            own["trimmed"] = True
        if piece.note:
            own["note"] = piece.note
        cells.append(_code(source, _free(run.started.cell or f"run-{short(run.id)}", ids), {KEY: own}))
    metadata = (book or {}).get("metadata") or {}
    return {
        "cells": cells,
        "metadata": {
            **{key: metadata[key] for key in ("kernelspec", "language_info") if isinstance(metadata.get(key), dict)},
            KEY: plain(_facts(found, store, target, lock)),
        } | ({} if isinstance(metadata.get("kernelspec"), dict) else {"kernelspec": dict(_KERNEL)}),
        "nbformat": 4,
        "nbformat_minor": 5,
    }  # fmt: skip


_KERNEL: Final = {"display_name": "Python 3", "language": "python", "name": "python3"}


def _facts(found: Slice, store: Store, target: Target, lock: str) -> dict[str, Any]:
    environment = next((run.environment for run in reversed(found.runs) if run.environment), None)
    facts: dict[str, Any] = {
        "makes": target.text,
        "sliced_from": list(dict.fromkeys(run.started.notebook for run in found.runs if run.started.notebook)),
        "runs": list(dict.fromkeys(run.started.run for run in found.runs)),
        "expected": [
            {"name": one.name, "kind": one.kind, "digest": one.digest} for one in target.expected if one.digest
        ],
        "metrics": target.metrics,
        "files": [
            {"name": one.name, "kind": one.kind, "digest": one.digest, **({"query": one.query} if one.query else {})}
            for one in found.files
        ],
        "environment": environment,
    }  # fmt: skip
    if found.unseeded:
        facts["unseeded"] = [f"{gap.subject}: {gap.reason}" for gap in found.unseeded]
    if environment is not None:
        record = store.line(environment).record
        if isinstance(record, Environment):
            facts["python"] = record.python
    if lock:
        facts["lock"] = lock
    return facts


def _code(source: str, id_: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "id": id_, "execution_count": None, "metadata": metadata, "outputs": [],
            "source": source.splitlines(keepends=True)}  # fmt: skip


def _markdown(text: str, id_: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": id_, "metadata": {}, "source": text.splitlines(keepends=True)}


def _free(wanted: str, taken: set[str]) -> str:
    """A cell's id: the one it had, with a number where a cell stands in the notebook twice."""
    wanted = wanted if _ID.fullmatch(wanted) else re.sub(r"[^a-zA-Z0-9_-]", "-", wanted)[:60] or "cell"
    id_, number = wanted, 1
    while id_ in taken:
        number += 1
        id_ = f"{wanted[:58]}-{number}"
    taken.add(id_)
    return id_


class _Headings:
    """The headings of a notebook, each given once, above the first cell it heads."""

    def __init__(self, book: Mapping[str, Any], mask: Callable[[str], str]) -> None:
        from jupyter_mlops.pipelines.parameters import source_of

        self._mask = mask
        self._above: dict[str, list[tuple[int, str, str]]] = {}
        self._given: set[int] = set()
        open_: list[tuple[int, int, str, str]] = []
        cells = book.get("cells")
        for number, cell in enumerate(cells if isinstance(cells, list) else ()):
            if not isinstance(cell, dict):
                continue
            id_ = str(cell.get("id", ""))
            if cell.get("cell_type") == "code":
                self._above[id_] = [(place, text, name) for place, _, text, name in open_]
            elif cell.get("cell_type") == "markdown":
                for text in _headings_in(source_of(cell)):
                    depth = len(text) - len(text.lstrip("#"))
                    open_ = [one for one in open_ if one[1] < depth]
                    open_.append((number * 1000 + len(open_), depth, text, id_ or f"heading-{number}"))

    def above(self, cell: str) -> Iterator[tuple[str, str]]:
        """The headings of a cell that have not been given yet, outermost first: text and id."""
        for place, text, id_ in self._above.get(cell, ()) if cell else ():
            if place not in self._given:
                self._given.add(place)
                yield self._mask(text), id_


def _headings_in(text: str) -> Iterator[str]:
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and _HEADING.fullmatch(line.rstrip()):
            yield line.rstrip()


def write(path: Path, book: Mapping[str, Any], *, force: bool = False) -> None:
    """Put a notebook on the disk, whole or not at all.

    Raises
    ------
    OutputRefused
        There is a file already, and `force` is off; or no folder for it.
    """
    from jupyter_mlops.objects import replace_file
    from jupyter_mlops.pipelines.outputs import OutputRefused, check_output

    if os.path.lexists(path) and not force:
        raise OutputRefused(f"{path.name} is there already", next="give another name with -o, or --force to replace it")
    check_output(path)
    raw = json.dumps(book, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    replace_file(path, [raw], durable=True)


# -- does it make the same? ------------------------------------------------------------------------------------------


def check(project: Project, found: Slice, book: Mapping[str, Any], target: Target, *, notebook: str = "") -> Checked:
    """Run a slice headless, in a folder of its own with the files it needs, and compare what it makes.

    Parameters
    ----------
    notebook
        Where the source notebook stands in the project: the slice runs in the same folder of the copy.
    """
    from jupyter_mlops.pipelines import run_notebook
    from jupyter_mlops.project import Project as Folder
    from jupyter_mlops.store import Store as Records

    with tempfile.TemporaryDirectory(prefix="mlops-slice-") as name:
        root = Path(name).resolve()
        Records.create(root / ".mlops").close()
        for one in found.files:
            if one.kind != "source":
                bring(place_of(project, one.name), root, one.name)
        inside = Path(notebook).parent if notebook and not os.path.isabs(notebook) and notebook[0] != "~" else Path()
        folder = root / inside
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "slice.ipynb"
        write(path, book, force=True)
        environ = {key: value for key, value in project.environ.items() if not key.startswith("JUPYTER_MLOPS_")}
        fresh = Folder(root, environ=environ)
        result = run_notebook(path, output=root / "slice.out.ipynb", project=fresh)
        with Records.open(root / ".mlops") as store:
            runs = store.cell_runs(run=result.run, newest_first=False) if result.run else []
        return compare(target, found, book, runs, error=str(result.error) if result.error else "")


def bring(source: Path, root: Path, name: str) -> None:
    """Copy a file or folder to where a record says it stood, below another root; what stands outside stays there."""
    if os.path.isabs(name) or name.startswith("~"):
        return
    place = root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, dirs_exist_ok=True)
    else:
        shutil.copy2(source, place)


def compare(
    target: Target, found: Slice, book: Mapping[str, Any], runs: Sequence[CellRun], *, error: str = ""
) -> Checked:
    """Hold what a slice made against what was expected of it.

    Parameters
    ----------
    runs
        The cell runs of the slice's own run, oldest first.
    error
        Where that run ended early.
    """
    made: dict[str, Artifact] = {}
    metrics: dict[str, Any] = {}
    for run in runs:
        made.update((one.name, one) for one in (*run.outputs, *run.files_written))
        metrics.update(run.metrics)
    differs = [
        (one.name, one.digest or "", made[one.name].digest or made[one.name].why if one.name in made else "not made")
        for one in target.expected
        if one.digest is not None and (one.name not in made or made[one.name].digest != one.digest)
    ]
    differs += [
        (key, str(value), str(metrics.get(key, "not logged")))
        for key, value in target.metrics.items()
        if plain(metrics.get(key)) != plain(value)
    ]
    first = _first_other(found, book, runs) if differs or error else ""
    return Checked(same=not differs and not error, differs=differs, first=first, error=error)


def _first_other(found: Slice, book: Mapping[str, Any], runs: Sequence[CellRun]) -> str:
    """The first cell that made something else than when it was recorded, in words."""
    was = {piece.run.id: piece for piece in found.pieces}
    ids = {cell["id"]: cell["metadata"].get(KEY, {}).get("cell_run") for cell in book["cells"]}
    for run in runs:
        piece = was.get(ids.get(run.started.cell) or Digest(""))
        if piece is None:
            continue
        now = {one.name: one.digest for one in run.outputs}
        for one in piece.run.outputs:
            if one.digest is not None and now.get(one.name) is not None and now[one.name] != one.digest:
                return f"cell {run.started.cell}: {one.name} was {short(one.digest)}, and is {short(now[one.name])}"
        if run.status != "done" and run.status != piece.run.status:
            return f"cell {run.started.cell}: {run.ended.error if run.ended else run.status}"
    return ""
