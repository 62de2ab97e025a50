"""Named values kept as objects of a store, and brought back as they were: equal, and one where they were one.

`keep` writes a manifest, a graph of nodes, and the objects it names; `bring` makes the values again. Two names for one
list are two names for one list again; a view writes through to its base; frames that share a buffer share it. Each
buffer, and each column of a frame, is an object named by its bytes, so that what did not change is not stored twice.

What comes back is data. Definitions of the notebook, and what only a pickle holds, are programs, and come back only on
the machine that kept them (`sealed`). `docs/checkpoints.md` says what is kept how.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from jupyter_mlops import seals
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import Budget, fingerprint
from jupyter_mlops.fingerprints.walk import NoFingerprint, OverBudget
from jupyter_mlops.records import Digest, short
from jupyter_mlops.values import definitions as _definitions  # noqa: F401 - likewise
from jupyter_mlops.values import plain as _plain  # noqa: F401 - it fills the tables
from jupyter_mlops.values.bringing import Bringing
from jupyter_mlops.values.definitions import ModuleMissing, cells_brought
from jupyter_mlops.values.keeping import Bytes, Keeping, numbers_in
from jupyter_mlops.values.layouts import Layouts, layout
from jupyter_mlops.values.manifest import (
    Claim,
    Manifest,
    ManifestRefused,
    NotKept,
    ValueDiffers,
    decode,
    encode,
    unsealed,
)

__all__ = [
    "Claim",
    "Kept",
    "Layouts",
    "ManifestRefused",
    "ModuleMissing",
    "NotKept",
    "ValueDiffers",
    "bring",
    "cells_brought",
    "keep",
    "layout",
]


class Kept(msgspec.Struct, frozen=True):
    """What `keep` kept.

    Attributes
    ----------
    manifest
        The object that says how; None where nothing could be kept.
    names
        The variables in it.
    left
        Those that are not, each with the reason.
    size
        Bytes of the objects it names.
    """

    manifest: Digest | None
    names: list[str]
    left: dict[str, str]
    size: int = 0


def keep(
    variables: Mapping[str, object],
    store: Bytes,
    *,
    digests: Mapping[str, Digest | None] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    secret: Callable[[str, object], bool] | None = None,
    known: dict[Claim, Digest] | None = None,
    space: dict[str, Any] | None = None,
    budget: Budget | None = None,
) -> Kept:
    """Keep variables' values in a store.

    Parameters
    ----------
    variables
        Values by name. What they share is kept as shared among them, and with nothing else.
    store
        Takes the objects.
    digests
        The values' fingerprints, where they are known and the values have not changed since; made otherwise.
    columns
        For frames, the fingerprints of their columns likewise; for arrays, their own.
    secret
        Whether a value of a name is secret: neither it nor what holds it is kept.
    known
        Objects by the array they hold: what an earlier call put there is not hashed again. Added to.
    space
        The variables that the notebook's functions look their globals up in; `variables`, where it is a dict.
    budget
        What it may cost.

    Raises
    ------
    OverBudget
        The budget ran out or the work was called off; objects written until then are in the store, and no manifest.
    OSError, MlopsError
        The store cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from jupyter_mlops.store import Store
    >>> store = Store.create(pathlib.Path(tempfile.mkdtemp()) / "store")
    >>> xs = [1, 2]
    >>> kept = keep({"xs": xs, "again": xs}, store)
    >>> back = bring(kept.manifest, store)
    >>> back["again"] is back["xs"], back
    (True, {'xs': [1, 2], 'again': [1, 2]})
    """
    if space is None:
        space = variables if type(variables) is dict else {}
    work = Keeping(store, secret=secret, known={} if known is None else known, budget=budget or Budget(), space=space)
    names: dict[str, Any] = {}
    left: dict[str, str] = {}
    checks: dict[str, str] = {}
    for name, value in variables.items():
        try:
            if work.secret(name, value):
                raise NotKept("secret")
            names[name], programs = work.variable(value, (columns or {}).get(name, ()))
        except OverBudget:
            raise
        except (NotKept, NoFingerprint) as stop:
            left[name] = str(stop)
        except RecursionError:
            left[name] = "nested too deeply"
        except (OSError, MlopsError):
            raise
        except Exception as error:  # noqa: BLE001 - a value that changes under our hands, or a library that moved
            left[name] = f"could not be read ({type(error).__name__})"
        else:
            if not programs:
                digest = digests.get(name) if digests is not None else fingerprint(value, budget=work.budget).digest
                if digest is not None:
                    checks[name] = digest
    severed = work.severed()
    for name in [name for name, operand in names.items() if not severed.isdisjoint(numbers_in(operand))]:
        del names[name]
        checks.pop(name, None)
        left[name] = "it lies over the memory of an array, in a way that no format keeps"
    if not names:
        return Kept(None, [], left)
    work.finish()
    regions = work.memory.regions()
    found = Manifest(names=names, nodes=work.nodes, digests=checks, regions=regions, objects=work.objects)
    if work.sealing:
        found = msgspec.structs.replace(found, seal=seals.seal(seals.local_key(), unsealed(found)))
    size = sum(part.size for region in regions for part in region.parts) + sum(part.size for part in work.objects)
    return Kept(store.put(encode(found)), list(names), left, size)


def bring(
    manifest: Digest,
    store: Bytes,
    *,
    names: Iterable[str] | None = None,
    space: dict[str, Any] | None = None,
    failures: dict[str, MlopsError] | None = None,
    known: dict[Claim, Digest] | None = None,
    programs: bool = True,
) -> dict[str, Any]:
    """Make kept values again.

    Parameters
    ----------
    manifest
        What `keep` returned.
    store
        Has the objects.
    names
        Which ones; all, where none are named.
    space
        The variables that functions of the notebook look their globals up in; the returned dict, where none is given.
        Nothing is bound in it.
    failures
        Where given, a value that cannot be made again is noted here, and the others are made all the same.
    known
        As `keep` has it: what is read is added.
    programs
        Whether what runs may run, where this machine sealed it: texts of cells and classes, pickles.

    Returns
    -------
    dict
        Values by name. Each is new: nothing is shared with what is in memory.

    Raises
    ------
    ManifestRefused
        The manifest, or an object it names, is not what `keep` writes.
    ValueDiffers
        A value is not what it was when it was kept.
    SealRefused
        It holds programs, and this machine did not seal it, or they were not to run.
    """
    found = decode(store.get(manifest), store.size)
    back: dict[str, Any] = {}
    work = Bringing(found, store, back if space is None else space, programs=programs)
    for name in found.names if names is None else names:
        try:
            if name not in found.names:
                raise ManifestRefused(f"{name} is not among the values of {short(manifest)}")
            back[name] = _one(work, name, found.digests.get(name))
        except MlopsError as error:
            if failures is None:
                raise
            failures[name] = error
    if known is not None:
        known.update(
            (part.claim, part.digest) for region in found.regions for part in region.parts if part.claim is not None
        )
    return back


def _one(work: Bringing, name: str, digest: str | None) -> Any:
    try:
        value = work.variable(name)
    except MlopsError:
        raise
    except Exception as error:
        # the libraries say in many ways that they were given what is no array, frame or estimator of theirs
        raise ManifestRefused(f"{name} is refused", cause=f"{type(error).__name__}: {error}"[:300]) from error
    if digest is not None and type(value) is not types.ModuleType:
        now = fingerprint(value, known=work.claims)
        if now.digest != digest:
            raise ValueDiffers(
                f"{name} is not what it was when it was kept",
                cause=now.why or f"{short(now.digest)}, not {short(digest)}", next="re-run the cell that made it",
            )  # fmt: skip
    return value
