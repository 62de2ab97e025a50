"""Two things on record side by side, as pages are told: what changed, and nothing of what did not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import compare, environment
from jupyter_mlops.compare import CellChange, Change
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Artifact, CellRun, CodeState, Digest, Environment, ModelVersion, Package
from jupyter_mlops.registry import Versions
from jupyter_mlops.server.answers import Reading, RunRow
from jupyter_mlops.store import NotFound
from jupyter_mlops.views.subjects import at

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

_VALUES: Final = 40  # contents that are told apart
_LINES: Final = 2000
_LOOK: Final = 200  # cell runs of a run in which an environment is looked for


class PackageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A package in another version, from elsewhere, or loaded in another version."""

    old: Package
    new: Package


class EnvironmentChange(msgspec.Struct, frozen=True, kw_only=True):
    """How two environments differ."""

    facts: list[Change]
    added: list[Package]
    removed: list[Package]
    changed: list[PackageChange]
    variables: list[Change]


class ValueChange(msgspec.Struct, frozen=True, kw_only=True):
    """How a content differs that both sides have, by what is on record of it; `unknown` could not be compared."""

    name: str
    what: str
    changes: list[Change]
    unknown: list[str]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of two things that are compared."""

    id: Digest
    title: str
    time: str
    count: int


class DifferenceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is different between two things of one kind.

    Attributes
    ----------
    source
        Of cell runs: their code as a unified diff, without its head.
    values
        Of contents that both have, and that are others: how.
    cells
        Of models: the cells in which their runs differ.
    """

    kind: str
    old: Side
    new: Side
    same: bool
    changes: list[Change]
    source: list[str]
    values: list[ValueChange]
    cells: list[CellChange]
    environment: EnvironmentChange | None
    unknown: list[str]


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run stood in when it was last seen."""

    run: RunRow
    cell_run: Digest | None
    environment: Environment | None
    code: CodeState | None


class EnvironmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a run stands in, and what changed since another one; `old` is None where none was named.

    Attributes
    ----------
    known
        Both have an environment on record.
    code
        How the state of the code differs.
    """

    old: Surroundings | None
    new: Surroundings
    known: bool
    difference: EnvironmentChange
    code: list[Change]


DIFFERENT: Final = (DifferenceAnswer, EnvironmentAnswer)
"""What the pages' types are made of, besides the answers."""


def difference(store: Store, old: Digest, new: Digest) -> DifferenceAnswer:
    """What is different between two cell runs, or two versions of a model.

    Raises
    ------
    NotFound
        One of them is not on record.
    WrongUse
        They are of two kinds, or of one that is not compared.
    """
    before, after = at(store, old), at(store, new)
    values: list[ValueChange] = []
    if isinstance(before, CellRun) and isinstance(after, CellRun):
        kind, found = "cell run", compare.cell_runs(store, before, after)
        values = list(_values(store, before, after))
    elif isinstance(before, ModelVersion) and isinstance(after, ModelVersion):
        kind, found = "model", compare.models(store, before, after)
    else:
        raise WrongUse("these are not of one kind", next="give two cell runs or two versions of a model")
    return DifferenceAnswer(
        kind=kind, old=_side(store, old, before), new=_side(store, new, after), same=not found,
        changes=list(found.changes), source=list(found.source[:_LINES]), values=values, cells=list(found.cells),
        environment=_environment(found.environment) if found.environment else None, unknown=list(found.unknown),
    )  # fmt: skip


def _side(store: Store, id: Digest, one: Any) -> Side:
    if isinstance(one, CellRun):
        title = one.started.label or next((line.strip() for line in one.source.splitlines() if line.strip()), "")
        return Side(id=id, title=title[:200], time=one.time, count=one.started.count)
    known = [version.ref for version in Versions(store).versions(one.name) if version.digest == id]
    title = known[0].removeprefix("models:/") if known else one.name
    return Side(id=id, title=title, time=store.line(id).envelope.time, count=0)


def _values(store: Store, old: CellRun, new: CellRun) -> Iterable[ValueChange]:
    """How the contents differ that both read or made."""
    sides = (
        ("read", old.inputs, new.inputs), ("made", old.outputs, new.outputs),
        ("file read", old.files_read, new.files_read), ("file written", old.files_written, new.files_written),
    )  # fmt: skip
    told = 0
    for what, before, after in sides:
        others: dict[str, Artifact] = {one.name: one for one in after}
        for one in before:
            other = others.get(one.name)
            if other is None or (one.digest, one.why) == (other.digest, other.why) or told == _VALUES:
                continue
            found = compare.artifacts(store, one, other)
            told += 1
            yield ValueChange(name=one.name, what=what, changes=list(found.changes), unknown=list(found.unknown))


def _environment(found: environment.EnvironmentDiff) -> EnvironmentChange:
    return EnvironmentChange(
        facts=[Change("fact", what, old, new) for what, old, new in found.facts],
        added=list(found.added), removed=list(found.removed),
        changed=[PackageChange(old=old, new=new) for old, new in found.changed],
        variables=[Change("variable", name, old, new) for name, old, new in found.variables],
    )  # fmt: skip


def surroundings(reading: Reading, notebook: str, old: Digest | None, new: Digest | None) -> EnvironmentAnswer:
    """What a run stands in, and what changed since another one.

    Parameters
    ----------
    new
        The run; the latest of the notebook that has a cell on record, where none is named.

    Raises
    ------
    NotFound
        There is no such run, or the notebook has none.
    """
    if new is None:
        latest = reading.store.cell_runs(notebook=notebook or None, limit=1)
        if not latest:
            raise NotFound(
                "nothing of this notebook has run on record yet", next="run a cell, after %load_ext jupyter_mlops"
            )
        new = latest[0].started.run
    before, after = _stood(reading, old) if old is not None else None, _stood(reading, new)
    known = before is not None and before.environment is not None and after.environment is not None
    changed = environment.EnvironmentDiff()
    if before is not None and before.environment is not None and after.environment is not None:
        changed = environment.diff(before.environment, after.environment)
    code = compare.code_states(before.code, after.code) if before is not None else ()
    return EnvironmentAnswer(old=before, new=after, known=known, difference=_environment(changed), code=list(code))


def _stood(reading: Reading, run: Digest) -> Surroundings:
    store = reading.store
    state: CodeState | None = None
    world: Environment | None = None
    cell: Digest | None = None
    for one in store.cell_runs(run=run, limit=_LOOK):
        cell = cell or one.id
        for digest in (one.environment, one.code):
            record = store.line(digest).record if digest is not None else None
            if isinstance(record, Environment):
                world = world or record
            elif isinstance(record, CodeState):
                state = state or record
        if world is not None and state is not None:
            break
    return Surroundings(run=reading.run(run), cell_run=cell, environment=world, code=state)
