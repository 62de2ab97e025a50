"""What a session knows when a model is registered in it, and what follows from it for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import checks
from jupyter_mlops.records import Artifact, Digest, RecordInvalid, decode

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

_TABLES: Final = ("DataFrame", "ndarray", "Table", "csr_matrix", "csr_array")


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a session knows at the moment of registering.

    Attributes
    ----------
    run, cell_run, environment
        Lines of the run, of the cell run being executed, and of the environment.
    artifacts
        The session's variables as last recorded, by name, each with the cell run that made it.
    value_of
        A variable's value by name, for the profile of the training data; None where there is no kernel.
    metrics, parameters
        What was logged so far; read from the run's cells where left out.
    modules
        What the user's code imported; all loaded modules where left out.
    """

    run: Digest
    cell_run: Digest | None = None
    environment: Digest | None = None
    artifacts: Mapping[str, Artifact] = {}
    value_of: Callable[[str], Any] | None = None
    metrics: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] | None = None
    modules: tuple[str, ...] = ()


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was trained on, as far as it is known."""

    inputs: Any = None
    outputs: Any = None
    signature: checks.Signature | None = None
    artifacts: tuple[Artifact, ...] = ()
    why: str = ""
    """Why there is no signature."""


def of_data(model: object, data: Any, context: RunContext | None) -> Training:
    """The training data that somebody passed: a table, or the pair of a table and the truth."""
    inputs, outputs = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if isinstance(inputs, tuple) and len(inputs) == 1:
        inputs = inputs[0]
    signature = checks.signature_of(inputs, outputs, task=task_of(model), classes=_classes(model), source="given")
    return Training(
        inputs=inputs, outputs=outputs, signature=signature,
        artifacts=tuple(found for one in (inputs, outputs) if (found := _recorded(one, context)) is not None),
    )  # fmt: skip


def inferred(model: object, context: RunContext | None, store: Store, maker: Digest | None) -> Training:
    """The training data where exactly one recorded table fits what the model says of its columns.

    Where several fit, those that the cell run that made the model read come first; if they are still several, nothing
    is guessed.
    """
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    count = getattr(model, "n_features_in_", None)
    if not names and not isinstance(count, int):
        return Training(why="no data was given, and the model does not say what columns it takes: --data X,y")
    if context is None:
        return Training(why="no data was given, and no session is recorded to look for it in: --data X,y")
    fitting = {
        name: one
        for name, one in context.artifacts.items()
        if one.type.rpartition(".")[2] in _TABLES and _fits(one, name, context, store, names, count)
    }
    chosen = _one_content(fitting) or _one_content(_read_by(maker, fitting, store))
    what = f"columns {', '.join(names[:4])}{', …' if len(names) > 4 else ''}" if names else f"{count} columns"
    if chosen is None:
        if not fitting:
            return Training(why=f"no data was given, and no recorded table has its {what}: --data X,y")
        several = ", ".join(sorted(fitting)[:6])
        return Training(why=f"no data was given, and several recorded tables have its {what} ({several}): --data X,y")
    artifact = fitting[chosen]
    source = f"inferred from {chosen}"
    value = _value(context, chosen)
    if value is not None:
        signature = checks.signature_of(value, task=task_of(model), source=source)
    else:
        found = _schema(artifact, store) or []
        signature = checks.Signature(inputs=tuple(found), task=task_of(model), named=bool(names), source=source)
    return Training(inputs=value, signature=signature, artifacts=(artifact,))


def _one_content(fitting: Mapping[str, Artifact]) -> str | None:
    """The one name, or one of several names of the one content."""
    contents = {one.digest or name for name, one in fitting.items()}
    return min(fitting) if len(contents) == 1 else None


def _read_by(maker: Digest | None, fitting: Mapping[str, Artifact], store: Store) -> dict[str, Artifact]:
    if maker is None or len(fitting) < 2:
        return {}
    try:
        read = {one.digest for one in store.cell_run(maker).inputs if one.digest}
    except (KeyError, ValueError):  # a maker that is not on record, or whose lines are damaged, narrows nothing
        return {}
    return {name: one for name, one in fitting.items() if one.digest in read}


def _fits(one: Artifact, name: str, context: RunContext, store: Store, names: list[str], count: int | None) -> bool:
    value = _value(context, name)
    try:
        if value is not None:
            found = [label for label, _ in checks.columns(value)]
        else:
            schema = _schema(one, store)
            if schema is None:
                return False
            found = [column.name for column in schema]
    except checks.DataInvalid:
        return False
    return found == names if names else len(found) == count


def _value(context: RunContext, name: str) -> Any:
    if context.value_of is None:
        return None
    try:
        return context.value_of(name)
    except (KeyError, LookupError, NameError):  # deleted since it was recorded
        return None


def _schema(one: Artifact, store: Store) -> list[checks.Column] | None:
    """The columns that a recorded table's facts speak of."""
    if one.facts is None:
        return None
    try:
        facts = decode(store.get(one.facts), dict)
    except (KeyError, ValueError, RecordInvalid):  # facts that are gone or damaged say nothing
        return None
    columns = facts.get("columns")
    if isinstance(columns, list):
        return [
            checks.Column(
                name=str(column.get("name")), dtype=str(column.get("dtype") or column.get("type") or "object"),
                nullable=bool(column.get("nulls", True)),
            )
            for column in columns
            if isinstance(column, dict)
        ]  # fmt: skip
    shape = facts.get("shape")
    if isinstance(shape, list) and len(shape) == 2 and isinstance(shape[1], int) and shape[1] <= 100_000:
        dtype = str(facts.get("dtype", "object"))
        return [checks.Column(name=f"x{at}", dtype=dtype) for at in range(shape[1])]
    return None


def _recorded(value: Any, context: RunContext | None) -> Artifact | None:
    """The artifact of a value that was passed: found by identity, else by content, and else made of its digest."""
    from jupyter_mlops.fingerprints import Budget, fingerprint

    if value is None:
        return None
    if context is not None:
        for name, one in context.artifacts.items():
            if one.digest is not None and _value(context, name) is value:
                return one
    found = fingerprint(value, budget=Budget(1.0))
    for one in context.artifacts.values() if context is not None else ():
        if one.digest is not None and one.digest == found.digest:
            return one
    if found.digest is None:
        return None
    return Artifact(name="data", kind="variable", digest=found.digest, size=found.size, type=found.type)


def task_of(model: object) -> str:
    """``classification``, ``regression``, ``clustering``, ``transform``; empty where the model does not say."""
    tags = getattr(model, "__sklearn_tags__", None)
    kind = ""
    if callable(tags):
        try:
            kind = tags().estimator_type or ""
        except Exception:  # noqa: BLE001 - a third party's estimator may not answer: then its older attribute may
            kind = ""
    kind = kind or str(getattr(model, "_estimator_type", "") or "")
    words = {"classifier": "classification", "regressor": "regression", "clusterer": "clustering"}
    return words.get(kind, "transform" if hasattr(model, "transform") else "")


def _classes(model: object) -> int | None:
    found: Any = getattr(model, "classes_", None)
    return len(found) if hasattr(found, "__len__") and not isinstance(found, str) else None
