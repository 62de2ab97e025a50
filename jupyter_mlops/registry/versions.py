"""Reading: which versions of a model there are, which names point to them, and the model itself again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from jupyter_mlops import checks
from jupyter_mlops.records import Digest, ModelVersion, RecordInvalid, decode
from jupyter_mlops.registry import formats
from jupyter_mlops.store import Move, NotFound, RefInvalid, Store

EVALUATION: Final = "application/vnd.jupyter-mlops.evaluation+json"
"""The media type of the object that names a version's evaluated rows."""
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_ALIAS: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_REF: Final = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:/(?P<number>[0-9]{1,9})|@(?P<alias>[^/@]+)|/latest)?")
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{at}" for port in ("COM", "LPT") for at in range(10))}
)


class NameInvalid(RefInvalid):
    """A model or alias can not have that name."""

    exit_code = 2


class ModelMissing(NotFound):
    """There is no such model, version or alias."""


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model, for people.

    Attributes
    ----------
    digest
        The version's line, which holds the digest of the model's bytes.
    aliases
        The names that point to it now.
    time
        When it was registered, UTC.
    content
        The model's own digest by content; two dumps of one model differ in bytes, and not in this.
    type
        The model's class, where it was an object and not a file.
    """

    name: str
    version: int
    digest: Digest
    aliases: tuple[str, ...]
    time: str
    record: ModelVersion
    content: Digest | None = None
    type: str = ""

    @property
    def ref(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def by(self) -> str:
        return self.record.by

    @property
    def format(self) -> str:
        return self.record.model.type

    @property
    def size(self) -> int | None:
        return self.record.model.size

    @property
    def metrics(self) -> dict[str, Any]:
        return self.record.metrics

    @property
    def requirements(self) -> list[str]:
        return self.record.requirements

    @property
    def cell_run(self) -> Digest | None:
        return self.record.cell_run

    @property
    def run(self) -> Digest | None:
        return self.record.run


class Versions:
    """Reads the models of a store.

    Parameters
    ----------
    store
        Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def models(self) -> list[str]:
        """The names of all models."""
        return [ref.removeprefix("models/") for ref in self.store.refs("models/") if "@" not in ref]

    def versions(self, name: str) -> list[VersionInfo]:
        """A model's versions, oldest first.

        Raises
        ------
        ModelMissing
            There is no such model.
        """
        moves = self.store.moves(f"models/{model_name(name)}")
        if not moves:
            raise self._missing(name)
        aliases = self.aliases(name)
        return [info for move in moves if (info := self._info(name, move, aliases)) is not None]

    def aliases(self, name: str) -> dict[str, Digest]:
        """Where a model's aliases point now: version lines by alias."""
        found = {}
        for ref in self.store.refs(f"models/{model_name(name)}@"):
            head = self.store.head(ref)
            if head is not None:
                found[ref.partition("@")[2]] = head
        return found

    def get(self, ref: str) -> VersionInfo:
        """A version by ``models:/name/3``, ``name/3``, ``name@alias``, or ``name`` for the latest.

        Raises
        ------
        ModelMissing
            There is no such model, version or alias.
        NameInvalid
            The text can not name one.
        """
        name, number, alias = parse(ref)
        moves = self.store.moves(f"models/{name}")
        if not moves:
            raise self._missing(name)
        if alias is not None:
            digest = self.store.head(f"models/{name}@{alias}")
            chosen = next((move for move in moves if digest is not None and move.transition.new == digest), None)
            what = f"{name}@{alias} points to nothing"
        elif number is not None:
            chosen = next((move for move in moves if move.number == number), None)
            what = f"{name} has no version {number}"
        else:
            chosen, what = moves[-1], name
        info = self._info(name, chosen, self.aliases(name)) if chosen is not None else None
        if info is None:
            raise ModelMissing(what, next=f"mlops models {name}")
        return info

    def history(self, name: str, alias: str) -> list[Move]:
        """Who moved an alias when and why, oldest first, refusals included."""
        return self.store.moves(f"models/{model_name(name)}@{alias_name(alias)}")

    def _missing(self, name: str) -> ModelMissing:
        known = ", ".join(self.models()[:12])
        return ModelMissing(f"there is no model {name!r}", next=f"known: {known}" if known else "mlops register")

    def _version(self, digest: Digest | None) -> ModelVersion | None:
        if digest is None:
            return None
        try:
            record = self.store.line(digest).record
        except (NotFound, RecordInvalid):  # lost or damaged: `fsck` names it, other versions stay readable
            return None
        return record if isinstance(record, ModelVersion) else None

    def _info(self, name: str, move: Move, aliases: Mapping[str, Digest]) -> VersionInfo | None:
        record = self._version(move.transition.new)
        if record is None or move.transition.new is None:
            return None
        content = record.files[0] if record.files and record.files[0].name == "content" else None
        return VersionInfo(
            name=name,
            version=move.number,
            digest=move.transition.new,
            aliases=tuple(sorted(alias for alias, digest in aliases.items() if digest == move.transition.new)),
            time=move.time,
            record=record,
            content=content.digest if content else None,
            type=content.type if content else "",
        )

    def signature(self, info: VersionInfo) -> checks.Signature | None:
        """What a version takes and gives; None where nobody knows."""
        if info.record.signature is None:
            return None
        return decode(self.store.get(info.record.signature), checks.Signature)

    def baseline(self, info: VersionInfo) -> dict[str, Any] | None:
        """The profile of a version's training data: ``inputs`` and ``outputs`` as `checks.profile` writes them."""
        if info.record.baseline is None:
            return None
        return decode(self.store.get(info.record.baseline), dict)

    def evaluation(self, info: VersionInfo) -> checks.Evaluation | None:
        """The rows a version was evaluated on, where they were recorded."""
        report = next((one for one in info.record.files if one.type == EVALUATION), None)
        if report is None or report.digest is None:
            return None
        parts = decode(self.store.get(report.digest), dict)
        arrays = {
            part: of_npy(self.store.get(parts[part])) for part in ("truth", "prediction", "score") if part in parts
        }
        truth = arrays.pop("truth")
        return checks.evaluation(truth, *arrays.values(), task=parts["task"], rows=parts["truth"])

    def content(self, ref: str) -> bytes:
        """A version's bytes, verified against their digest."""
        return self.store.get(bytes_of(self.get(ref)))

    def load(self, ref: str, *, trust: bool | Iterable[str] = False) -> object:
        """Make a version's model again, from bytes that are verified first.

        The format is the record's, never guessed from a name or from the bytes.

        Parameters
        ----------
        trust
            For a skops file: exact names of further types to trust. For a pickle: True, which runs its code. For
            another library's file from elsewhere: True, which lets that library read it.

        Raises
        ------
        LoadRefused
            It is a pickle and nobody said to trust it, or it holds types that are not trusted.
        ObjectMissing, ObjectDamaged
            The bytes are not there, or are not those that were registered.
        """
        info = self.get(ref)
        kind = info.format
        if kind in formats.RUNS_CODE and trust is not True:
            raise formats.LoadRefused(
                f"{info.ref} is a pickle", cause="loading it runs whatever code is in it",
                next="if you know who made it: load_model(…, trust=True)",
            )  # fmt: skip
        return formats.load(self.store.get(bytes_of(info)), kind, trust=trust)


# -- names -----------------------------------------------------------------------------------------------------------


def model_name(name: str) -> str:
    """Check a model's name.

    Raises
    ------
    NameInvalid
        It is not made of letters, digits, ``.``, ``_`` and ``-``, up to 100, or some system takes it for a device.
    """
    if not _NAME.fullmatch(name) or name.partition(".")[0].upper() in _DEVICES or name.endswith(".jsonl"):
        raise NameInvalid(
            f"{name[:80]!r} can not name a model",
            cause="names are made of up to 100 letters, digits, '.', '_' and '-'",
            next="as in late-arrivals",
        )
    return name


def alias_name(alias: str) -> str:
    """Check an alias.

    Raises
    ------
    NameInvalid
        It does not begin with a letter and go on in letters, digits, ``_`` and ``-``, or reads like a version.
    """
    taken = alias.lower() == "latest" or re.fullmatch(r"[vV][0-9]+", alias)
    if not _ALIAS.fullmatch(alias) or taken or alias.upper() in _DEVICES:
        raise NameInvalid(
            f"{alias[:80]!r} can not be an alias", cause="aliases are words such as production; latest and v3 are taken"
        )
    return alias


def parse(ref: str) -> tuple[str, int | None, str | None]:
    """Read ``models:/name/3``, ``name@alias``, ``name/latest``, ``name``: name, number, alias.

    >>> parse("models:/delays@production")
    ('delays', None, 'production')
    """
    found = _REF.fullmatch(ref)
    if found is None:
        raise NameInvalid(f"{ref[:80]!r} names no model", next="write name, name/3, name@production or models:/name/3")
    number, alias = found["number"], found["alias"]
    return model_name(found["name"]), int(number) if number else None, alias_name(alias) if alias else None


def bytes_of(info: VersionInfo) -> Digest:
    """The digest of a version's bytes."""
    if info.record.model.digest is None:
        raise ModelMissing(f"{info.ref} has no bytes on record", next="mlops fsck")
    return info.record.model.digest


def npy(array: Any) -> bytes:
    """An array as the bytes of a ``.npy`` file, which holds no pickle: equal arrays, equal bytes."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def of_npy(data: bytes) -> Any:
    """Read what `npy` wrote; a pickle in it is refused."""
    import numpy as np

    return np.load(io.BytesIO(data), allow_pickle=False)


def plain(value: Any) -> Any:
    """A metric as a builtin number; anything else as it is."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    return value
