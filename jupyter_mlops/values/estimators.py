"""scikit-learn's estimators: by class and attributes, so that what they share with other variables stays shared.

Which classes may come back is what skops trusts and what was reviewed for registered models (`trust`). Their compiled
parts, such as a fitted tree, are skops' own archives, and come back only where they were kept: compiled code follows
their numbers without looking.
"""

from __future__ import annotations

import functools
from typing import Any

from jupyter_mlops.fingerprints.walk import HEAP, derives, flags_of_type, loaded, mro_of, name_of
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import Keeper, Keeping
from jupyter_mlops.values.manifest import ManifestRefused, NotKept
from jupyter_mlops.values.plain import entries_of, keep_entries
from jupyter_mlops.values.trust import REVIEWED, FormatRefused, dump_skops, load_skops


@functools.cache
def trusted() -> frozenset[str]:
    """Names of the classes whose instances anybody's manifest may have made."""
    from skops.io import _trusted_types

    return frozenset(
        {*_trusted_types.SKLEARN_ESTIMATOR_TYPE_NAMES, *_trusted_types.SKLEARN_INTERNAL_TYPE_NAMES, *REVIEWED}
    )


def keeper_for(kind: type, module: str, qualname: str) -> Keeper | None:
    """Who writes one of scikit-learn's own objects."""
    if loaded(module, qualname) is not kind:
        return None
    if derives(kind, dict):
        return _keep_bunch if qualname == "Bunch" else None
    if all(base is object or flags_of_type(base) & HEAP for base in mro_of(kind)) and _python(kind):
        return _keep_object
    return _keep_archive


def _python(kind: type) -> bool:
    """Whether all its state is in its ``__dict__``: no class of it is compiled."""
    import types

    return not any(
        type(held) in (types.WrapperDescriptorType, types.MethodDescriptorType, types.BuiltinFunctionType)
        for base in mro_of(kind) if base is not object for held in vars(base).values()
    )  # fmt: skip


def _keep_object(keep: Keeping, value: Any) -> list[Any]:
    name = name_of(type(value))
    if name not in trusted():
        raise NotKept(f"nobody has reviewed {name}")
    return ["sk.object", name, *keep_entries(keep, list(object.__getattribute__(value, "__dict__").items()))]


@maker("sk.object")
def _object(bring: Bringing, node: list[Any], number: int) -> Any:
    from jupyter_mlops.values import definitions

    name = node[1]
    if name not in trusted() or not name.startswith("sklearn."):
        raise ManifestRefused("a kept object is refused", cause="nobody has reviewed its class")
    place, _, qualname = name.rpartition(".")
    definitions.module(place)
    kind = loaded(place, qualname)
    if kind is None or keeper_for(kind, place, qualname) is not _keep_object:
        raise ManifestRefused("a kept object is refused", cause="its class is another by now")
    made = bring.early(number, kind.__new__(kind))
    bring.later(lambda: object.__getattribute__(made, "__dict__").update(entries_of(bring, node, 2)))
    return made


def _keep_bunch(keep: Keeping, value: Any) -> list[Any]:
    return ["sk.bunch", *keep_entries(keep, list(dict.items(value)))]


@maker("sk.bunch")
def _bunch(bring: Bringing, node: list[Any], number: int) -> Any:
    from sklearn.utils import Bunch

    made = bring.early(number, Bunch())
    bring.later(lambda: dict.update(made, entries_of(bring, node)))
    return made


def _keep_archive(keep: Keeping, value: Any) -> list[Any]:
    try:
        return ["sk.archive", keep.program(dump_skops(value))]
    except FormatRefused as error:
        raise NotKept(error.cause or error.thing) from error


@maker("sk.archive")
def _archive(bring: Bringing, node: list[Any], _number: int) -> Any:
    return load_skops(bring.followed(node[1]), ours=True)
