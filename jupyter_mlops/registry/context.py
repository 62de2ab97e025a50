"""What a session knows when a model is registered in it, and what follows from it for the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import checks
from jupyter_mlops.records import Artifact, Digest, RecordInvalid, decode

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

_TABLES: Final = ("DataFrame", "ndarray", "Table", "csr_matrix", "csr_array", "csc_matrix", "csc_array")
_MOST_COLUMNS: Final = 100_000


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

    What the cell run that made the model read comes first. Else every table of the session counts, also one that was
    deleted or replaced since; if several fit, nothing is guessed.
    """
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    count = getattr(model, "n_features_in_", None)
    if not names and not isinstance(count, int):
        return Training(why="no data was given, and the model does not say what columns it takes: --data X,y")
    if context is None:
        return Training(why="no data was given, and no session is recorded to look for it in: --data X,y")

    def fits(table: _Table) -> bool:
        found = table.columns(store)
        # scikit-learn keeps the names of every table whose columns have texts for names
        return found == names if names else len(found) == count and _by_place(found)

    fitting: dict[str, _Table] = {}
    for known in (_read_by(maker, store), _of_session(context, store)):
        for one in known:
            table = _Table(one, _live(one, context))
            if (one.digest or one.name) not in fitting and fits(table):
                fitting[one.digest or one.name] = table
        if fitting:
            break
    if len(fitting) == 1:
        return _from(next(iter(fitting.values())), model, named=bool(names), store=store)
    what = f"columns {', '.join(names[:4])}{', …' if len(names) > 4 else ''}" if names else f"{count} columns by place"
    if not fitting:
        return Training(why=f"no data was given, and no recorded table has its {what}: --data X,y")
    several = ", ".join(sorted({table.artifact.name for table in fitting.values()})[:6])
    return Training(why=f"no data was given, and several recorded tables have its {what} ({several}): --data X,y")


class _Table(msgspec.Struct, frozen=True):
    """A recorded table, with its value where the session still has it."""

    artifact: Artifact
    value: Any = None

    def columns(self, store: Store) -> list[str]:
        """The names of its columns as the value has them, or else as the record says; none where neither tells."""
        if self.value is None:
            return [column.name for column in recorded_columns(self.artifact, store)]
        try:
            return [name for name, _ in checks.columns(self.value)] if getattr(self.value, "ndim", 2) == 2 else []
        except checks.DataInvalid:
            return []


def _by_place(names: list[str]) -> bool:
    return names in ([f"x{at}" for at in range(len(names))], [str(at) for at in range(len(names))])


def _from(table: _Table, model: object, *, named: bool, store: Store) -> Training:
    """What a model was trained on: a table whose value may be gone, while its facts are on record."""
    source = f"inferred from {table.artifact.name}"
    if table.value is not None:
        signature = checks.signature_of(table.value, task=task_of(model), source=source)
    else:
        found = recorded_columns(table.artifact, store)
        signature = checks.Signature(inputs=tuple(found), task=task_of(model), named=named, source=source)
    return Training(inputs=table.value, signature=signature, artifacts=(table.artifact,))


def _read_by(maker: Digest | None, store: Store) -> list[Artifact]:
    """The tables that the cell run which made the model read."""
    if maker is None:
        return []
    try:
        return _tables(store.cell_run(maker).inputs)
    except (KeyError, ValueError):  # a maker that is not on record, or whose lines are damaged, tells nothing
        return []


def _of_session(context: RunContext, store: Store) -> list[Artifact]:
    """The tables of a session: those that are there now, and all that its cell runs made."""
    made = [one for run in store.cell_runs(run=context.run) for one in run.outputs]
    return _tables([*context.artifacts.values(), *made])


def _tables(artifacts: Iterable[Artifact]) -> list[Artifact]:
    return [one for one in artifacts if one.type.rpartition(".")[2] in _TABLES]


def _live(one: Artifact, context: RunContext) -> Any:
    """The value of an artifact, where a variable holds just that content now."""
    if one.digest is None:
        now = context.artifacts.get(one.name)
        return _value(context, one.name) if now is one else None
    for name, now in context.artifacts.items():
        if now.digest == one.digest:
            return _value(context, name)
    return None


def _value(context: RunContext, name: str) -> Any:
    if context.value_of is None:
        return None
    try:
        return context.value_of(name)
    except (KeyError, LookupError, NameError):  # deleted since it was recorded
        return None


def recorded_columns(one: Artifact, store: Store) -> list[checks.Column]:
    """The columns that a recorded table's facts speak of. Whether any had missing values, they do not say."""
    if one.facts is None:
        return []
    try:
        facts = decode(store.get(one.facts), dict)
    except (KeyError, ValueError, RecordInvalid):  # facts that are gone or damaged say nothing
        return []
    schema, shape = facts.get("schema"), facts.get("shape")
    if not isinstance(schema, dict):
        return []
    columns = schema.get("columns")
    if isinstance(columns, list):
        told = [(column.get("name"), column.get("dtype") or column.get("type")) for column in columns
                if isinstance(column, dict)]  # fmt: skip
    elif isinstance(shape, list) and len(shape) == 2 and isinstance(shape[1], int) and shape[1] <= _MOST_COLUMNS:
        told = [(f"x{at}", schema.get("dtype")) for at in range(shape[1])]
    else:
        return []
    return [checks.Column(name=str(name), dtype=checks.dtype_named(str(kind)), nullable=True) for name, kind in told]


def name_of(value: object, context: RunContext) -> str | None:
    """The first recorded variable that is this very object."""
    return next((name for name in context.artifacts if _value(context, name) is value), None)


def _recorded(value: Any, context: RunContext | None) -> Artifact | None:
    """The artifact of a value that was passed: found by identity, else by content, and else made of its digest."""
    from jupyter_mlops.fingerprints import Budget, fingerprint

    if value is None:
        return None
    named = name_of(value, context) if context is not None else None
    if context is not None and named is not None and context.artifacts[named].digest is not None:
        return context.artifacts[named]
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


def unfitted(model: object) -> bool:
    """Whether an estimator says that it was never fitted, and holds nothing but the parameters it was made with."""
    base = sys.modules.get("sklearn.base")
    if base is None or not isinstance(model, base.BaseEstimator):
        return False
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        steps = getattr(model, "steps", None)
        if isinstance(steps, list) and steps:
            return unfitted(steps[-1][1])
        # scikit-learn knows what was learned by names that end in "_"; people's own estimators keep it as they like
        return set(vars(model)) <= set(model.get_params(deep=False))
    except Exception:  # noqa: BLE001 - a third party's estimator may not answer: then nobody knows better
        return False
    return False


def _classes(model: object) -> int | None:
    found: Any = getattr(model, "classes_", None)
    return len(found) if hasattr(found, "__len__") and not isinstance(found, str) else None
