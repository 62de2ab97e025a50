"""What a reference on a command line or in a cell means: a model, a variable, a digest, a name on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Artifact, CellRun, Digest, short

if TYPE_CHECKING:
    from jupyter_mlops.capture import Session
    from jupyter_mlops.project import Project
    from jupyter_mlops.store import Store


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


def subject(project: Project, what: str, *, session: Session | None = None) -> Subject:
    """Find what a reference means.

    In this order: ``models:/name/3`` or ``name@alias``; a variable of this kernel; the name a variable, metric or file
    has on record, the latest of that name; ``name@5f3c1a``, the version a cell run made, or failing that read; the
    beginning of a digest.

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
    name, _, at_run = what.rpartition("@")
    if name and len(at_run) >= 4 and _is_hex(at_run):
        version = _version_at(store, name, store.resolve(at_run)) or _version_at(
            store, project.relative(name), store.resolve(at_run)
        )
        if version is not None:
            return Subject(what, *version)
    bare = what.removeprefix("blake3:")
    if len(bare) >= 4 and _is_hex(bare):
        line = store.resolve(what)
        if store.has(line):
            return Subject(
                what, None, Artifact(name=short(line), kind="object", digest=line, size=store.size(line), stored=True)
            )
        return Subject(what, line, at(store, line))
    raise NotFound(
        f"{what!r} is not known here",
        cause="no cell run, run, model, variable, metric or file on record has that name",
        next="mlops log, mlops runs and mlops models list what there is",
    )


def _is_hex(text: str) -> bool:
    return all(one in "0123456789abcdef" for one in text)


def _version_at(store: Store, name: str, line: Digest) -> tuple[Digest, Any] | None:
    """The version of a name that a cell run made, else the one it read."""
    found = at(store, line)
    if not isinstance(found, CellRun):
        return None
    for one in (*found.outputs, *found.files_written, *found.inputs, *found.files_read):
        if one.name == name:
            return one.made or found.id, one
    return (found.id, found) if name in found.metrics else None


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
