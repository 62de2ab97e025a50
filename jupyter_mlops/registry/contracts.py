"""Data held to a contract, to how it was distributed, and apart from a training set; each answer is on record.

A contract comes from a table that was good (at hand, or on record), from a model's training data, or is a schema of
pandera's. What is asked and answered is a `CheckResult`, bound to the digest of the very content that was looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import checks
from jupyter_mlops.checks.contracts import breaches_on_record, of_columns, of_model
from jupyter_mlops.checks.drift import DRIFTED, UNKNOWN, Drift
from jupyter_mlops.errors import MlopsError, WrongUse, door
from jupyter_mlops.records import Artifact, CellRun, CheckResult, Digest, ModelVersion, Run, digest_of, encode
from jupyter_mlops.registry.context import recorded_columns

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.registry.context import RunContext
    from jupyter_mlops.store import Store

_TOLD: Final = 100
_SECONDS: Final = 30.0
DATA: Final = "data"
LEAKAGE: Final = "leakage"
DRIFT: Final = "drift"


class ContractBroken(MlopsError, ValueError):
    """Data is not what it is to be; the answer is on record.

    Attributes
    ----------
    result
        What was asked and answered.
    """

    exit_code = 1

    def __init__(self, result: CheckResult) -> None:
        told = result.evidence.get("breaches") or []
        lines = "".join(f"\n  {breach_text(one)}" for one in told[:10])
        more = f"\n  and {len(told) - 10} more" if len(told) > 10 else ""
        super().__init__(result.summary + lines + more, next="\n--warn says so and goes on")
        self.result = result


def breach_text(one: Mapping[str, Any]) -> str:
    """A breach in a line."""
    text = f"{one['column']}: {one['what']}" if one.get("column") else str(one["what"])
    if one.get("rows") is not None:
        text += f", in {one['rows']:,} rows (the first: {', '.join(map(str, one.get('first', ())))})"
    return text + (f", as in {', '.join(map(repr, one['examples']))}" if one.get("examples") else "")


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about: a table at hand, read from a file or not; or what is on record of one.

    Attributes
    ----------
    name
        What it is called.
    table
        Its content; None where that is not at hand.
    path
        The file it was read from.
    artifact
        What is on record of it.
    """

    name: str
    table: Any = None
    path: Path | None = None
    artifact: Artifact | None = None

    def digest(self) -> Digest | None:
        """The digest of its content, as the record has it."""
        from jupyter_mlops.fingerprints import Budget, file_digest, fingerprint

        if self.table is None:
            return self.artifact.digest if self.artifact is not None else None
        if self.path is not None:
            return file_digest(self.path).digest
        return fingerprint(self.table, budget=Budget(_SECONDS)).digest


def recorded(store: Store, value: Any, name: str, *, source: str = "", ranges: bool = False) -> checks.Contract:
    """The contract that is on record under a reference: of a model's training data, or of a variable or file.

    Parameters
    ----------
    value
        What the reference means: a model version, a run or cell run in which `name` is looked for, or an artifact.

    Raises
    ------
    WrongUse
        Nothing of that kind is on record there.
    """
    if isinstance(getattr(value, "record", None), ModelVersion):
        from jupyter_mlops.registry.local import LocalRegistry

        registry = LocalRegistry(store)
        signature = registry.signature(value)
        if signature is None:
            raise WrongUse(
                f"what {source} takes is not on record", next="register it with --data X, or give a run or a file"
            )
        return of_model(signature, registry.baseline(value), source=source, ranges=ranges)
    runs = [value] if isinstance(value, CellRun) else []
    if isinstance(value, Run):
        runs = store.cell_runs(run=value.id)
    found = value if isinstance(value, Artifact) else _named(runs, name)
    if found is None:
        raise WrongUse(f"no table {name!r} is on record in {source}", next=f"mlops show {source}")
    columns = recorded_columns(found, store)
    if not columns:
        raise WrongUse(
            f"the columns of {found.name} are not on record", cause=found.why or f"it is a {found.type or found.kind}",
            next="give a file (csv, parquet, feather, json lines), a variable, or a model",
        )  # fmt: skip
    return of_columns(columns, source=source)


def _named(runs: Sequence[CellRun], name: str) -> Artifact | None:
    for run in runs:
        for one in (*run.outputs, *run.inputs, *run.files_written, *run.files_read):
            if one.name == name and one.facts is not None:
                return one
    return None


def check_data(
    project: Project,
    data: Data,
    against: Any,
    *,
    source: str,
    ranges: bool = False,
    context: RunContext | None = None,
) -> CheckResult:
    """Hold a table to a contract, and put the answer on record.

    Parameters
    ----------
    against
        A `checks.Contract`, a schema of pandera's, or a table that is as it should be.
    source
        What that is called.
    ranges
        Whether numbers are to stay within those of a table.
    context
        The session this is asked in.

    Raises
    ------
    DataInvalid
        A value is no table.
    """
    redactor = project.redactor()

    def mask(text: str) -> str:
        return redactor.text(text)[0]

    unknown: tuple[str, ...] = ()
    told = recorded_columns(data.artifact, project.store) if data.table is None and data.artifact is not None else []
    if data.table is None and not told:
        raise WrongUse(f"of {data.name} no columns are on record", next="give a file, or ask in its notebook")
    if is_schema(against):
        if data.table is None:
            raise WrongUse(f"the values of {data.name} are not at hand", next="give a file, or ask in the notebook")
        found = _by_pandera(against, data.table, redactor.secret_name, mask)
    else:
        contract = against if isinstance(against, checks.Contract) else checks.infer(
            against, source=source, ranges=ranges, secret=redactor.secret_name
        )  # fmt: skip
        unknown = contract.unknown
        if data.table is None:
            found = breaches_on_record(contract, told)
            unknown = (*unknown, f"of {data.name} only columns and their types are on record")
        else:
            found = checks.breaches(contract, data.table, secret=redactor.secret_name, mask=mask)
    columns = checks.columns(data.table) if data.table is not None else []
    rows = len(columns[0][1]) if columns else None
    said = f"{data.name} is as {source} has it" if not found else f"{data.name} is not as {source} has it"
    evidence = {
        "data": data.name, "against": source, "rows": rows, "columns": len(columns or told),
        "breaches": [msgspec.to_builtins(one) for one in found[:_TOLD]], "unknown": list(unknown),
    }  # fmt: skip
    if len(found) > _TOLD:
        evidence["more"] = len(found) - _TOLD
    summary = f"{said}: {len(found)} breaches" if found else said
    return _put(project, DATA, data, passed=not found, summary=summary, evidence=evidence, context=context)


def check_leakage(
    project: Project,
    train: Data,
    test: Data,
    *,
    on: Sequence[str] = (),
    allow: float = 0.0,
    context: RunContext | None = None,
) -> CheckResult:
    """Look for rows of a test set in a training set, and put the answer on record.

    Parameters
    ----------
    on
        The columns that make a row; all that both have, unless given.
    allow
        The share of the test set's rows that may be in the training set.

    Raises
    ------
    DataInvalid
        A value is no table, or the columns do not fit.
    """
    found = checks.leakage(train.table, test.table, on=on)
    passed = found.test_rows == 0 or found.share <= allow
    said = f"{found.test_rows:,} of {found.test:,} rows of {test.name} ({found.share:.2%}) are in {train.name}"
    evidence = {
        **msgspec.to_builtins(found), "train_name": train.name, "test_name": test.name, "train_digest": train.digest(),
        "share": found.share, "allowed": allow,
    }  # fmt: skip
    summary = said if found.test_rows else f"no row of {test.name} is in {train.name}"
    return _put(project, LEAKAGE, test, passed=passed, summary=summary, evidence=evidence, context=context)


def baseline_of(store: Store, value: Any, *, source: str) -> dict[str, Any]:
    """How the columns were distributed that a model was trained on, as `checks.profile` has it.

    Raises
    ------
    WrongUse
        It is no model, or that is not on record of it.
    """
    from jupyter_mlops.registry.local import LocalRegistry

    if not isinstance(getattr(value, "record", None), ModelVersion):
        raise WrongUse(
            f"of {source} it is not on record how its columns were distributed",
            next="give a model, as NAME@production, or a table at hand: a variable, a file",
        )
    found = LocalRegistry(store).baseline(value)
    if found is None:
        raise WrongUse(
            f"what {source} was trained on is not on record", next="register it with --data X, or give a table at hand"
        )
    return dict(found["inputs"])


def check_drift(
    project: Project,
    data: Data,
    found: Sequence[Drift],
    *,
    source: str,
    limit: float,
    context: RunContext | None = None,
) -> CheckResult:
    """Put on record whether a table is distributed as another was.

    Parameters
    ----------
    found
        How far its columns have moved, as `checks.drift` tells.
    source
        What it was held against.
    limit
        The population stability index up to which a column counts as what it was.

    Raises
    ------
    WrongUse
        Of no column it can be told.
    """
    if all(one.value is None for one in found):
        why = "; ".join(f"{one.name}: {one.why}" for one in found[:3]) or "it has no columns"
        raise WrongUse(f"{data.name} can not be held against {source}", cause=why)
    moved = [one for one in found if one.verdict(limit) == DRIFTED]
    unknown = [one for one in found if one.verdict(limit) == UNKNOWN]
    evidence = {
        "data": data.name, "against": source, "limit": limit,
        "columns": [
            {"column": one.name, "value": one.value, "chance": one.chance, "verdict": one.verdict(limit)}
            for one in found[:_TOLD]
        ],
        "breaches": [
            {"column": one.name, "what": f"is distributed otherwise: {one.value:.3g}, at most {limit:g} is demanded"}
            for one in moved[:_TOLD]
        ],
        "unknown": [f"{one.name}: {one.why or 'too few rows to tell from chance'}" for one in unknown[:_TOLD]],
    }  # fmt: skip
    told = sum(one.value is not None for one in found)
    summary = (
        f"{len(moved)} of {told} columns of {data.name} have drifted from {source}"
        if moved
        else f"no column of {data.name} has drifted from {source}"
    )
    return _put(project, DRIFT, data, passed=not moved, summary=summary, evidence=evidence, context=context)


def _put(
    project: Project, check: str, data: Data, *, passed: bool, summary: str, evidence: dict[str, Any],
    context: RunContext | None,
) -> CheckResult:  # fmt: skip
    if context is not None:
        evidence |= {"run": context.run, "cell_run": context.cell_run}
    evidence = msgspec.json.decode(msgspec.json.encode(project.redactor().value(evidence)[0]))
    subject = data.digest()
    if subject is None:
        # An answer is about some content; where that has no digest, what was found of it stands for it.
        evidence["subject"] = "its content has no digest: this is that of the evidence"
        subject = digest_of(encode(evidence, sort=True))
    result = CheckResult(
        check=check, subject=subject, passed=passed, evidence=evidence, summary=project.redactor().text(summary)[0],
        by=project.user,
    )  # fmt: skip
    project.store.append(result)
    return result


# -- pandera ---------------------------------------------------------------------------------------------------------


def is_schema(value: Any) -> bool:
    """Whether a value is a schema or model of pandera's."""
    kind = value if isinstance(value, type) else type(value)
    return any(base.__module__.partition(".")[0] == "pandera" for base in kind.__mro__)


def read_schema(path: Path) -> Any:
    """Read a schema that pandera has written as YAML or JSON.

    Raises
    ------
    ExtraMissing
        Pandera is not installed.
    WrongUse
        The file can not be read as one.
    """
    schemas = door("pandera.pandas", "contracts").DataFrameSchema
    read = schemas.from_json if path.suffix.lower() == ".json" else schemas.from_yaml
    try:
        return read(path)
    except Exception as error:  # whatever pandera or its parser makes of a file that is none
        raise WrongUse(f"{path.name} can not be read as a schema of pandera's", cause=str(error)[:300]) from error


def _by_pandera(schema: Any, table: Any, secret: Any, mask: Any) -> list[checks.Breach]:
    errors = door("pandera.errors", "contracts")
    try:
        schema.validate(table, lazy=True)
    except errors.SchemaErrors as error:
        return _breaches_of(error.failure_cases, secret, mask)
    except errors.SchemaError as error:
        return [checks.Breach(column="", what=mask(str(error).partition("\n")[0])[:300])]
    return []


def _breaches_of(cases: Any, secret: Any, mask: Any) -> list[checks.Breach]:
    rows = cases.to_dicts() if hasattr(cases, "to_dicts") else cases.to_dict("records")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        column = row.get("column")
        # A column that is missing or too many stands as the value that failed.
        at_fault = row["failure_case"] if str(row["check"]).startswith("column_") else column
        found.setdefault((str(at_fault) if isinstance(at_fault, str) else "", str(row["check"])), []).append(row)
    told = []
    for (column, check), failed in found.items():
        places = [int(row["index"]) for row in failed if isinstance(row.get("index"), int)]
        values = [] if secret(column) or not places else dict.fromkeys(mask(str(row["failure_case"])) for row in failed)
        told.append(
            checks.Breach(
                column=mask(column), what=f"does not pass {mask(check)}", rows=len(places) or None,
                first=tuple(places[:3]), examples=tuple(value[:60] for value in list(values)[:3]),
            )
        )  # fmt: skip
    return told
