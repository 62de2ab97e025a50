"""scikit-learn's estimators: by class and attributes, so that what they share with other variables stays shared.

Which classes may come back is what skops trusts and what was reviewed for registered models (`trust`). Their compiled
parts, such as a fitted tree, are sealed, and come back only where they were kept: compiled code follows their numbers
without looking.

skops itself is not loaded: it imports all of scikit-learn, which takes seconds.
"""

from __future__ import annotations

import re
from typing import Any, Final

from jupyter_mlops.fingerprints.walk import (
    HEAP,
    derives,
    flags_of_type,
    loaded,
    mro_of,
    name_of,
)
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.instances import Unpickler, keep_pickle
from jupyter_mlops.values.keeping import Keeper, Keeping
from jupyter_mlops.values.manifest import ManifestRefused, NotKept
from jupyter_mlops.values.plain import entries_of, keep_entries
from jupyter_mlops.values.trust import REVIEWED, load_skops

_INTERNAL: Final = frozenset({
    *(f"sklearn._loss.link.{name}" for name in (
        "HalfLogitLink", "IdentityLink", "Interval", "LogitLink", "LogLink", "MultinomialLogit",
    )),
    *(f"sklearn._loss.loss.{name}" for name in (
        "AbsoluteError", "ExponentialLoss", "HalfBinomialLoss", "HalfGammaLoss", "HalfMultinomialLoss",
        "HalfPoissonLoss", "HalfSquaredError", "HuberLoss", "PinballLoss",
    )),
})  # fmt: skip
"""What skops trusts beside public estimators."""
_OTHERS: Final = re.compile(r"\.(tests|externals|setup|conftest|experimental|estimator_checks)(\.|$)")
"""Modules in which scikit-learn itself does not look for its estimators."""
_BUILT_OF: Final = {("builtins", "object"), ("copyreg", "_reconstructor"), ("_codecs", "encode")}
"""What pickles of their compiled parts call besides scikit-learn and NumPy."""
_ABSTRACT: Final = 1 << 20  # of a type's flags


def trusted(kind: type) -> bool:
    """Whether anybody's manifest may have instances made of one of scikit-learn's classes.

    A public estimator is one as `sklearn.utils.all_estimators` finds them: in a public module, and no base of others.
    """
    name = name_of(kind)
    if name in REVIEWED or name in _INTERNAL:
        return True
    base = loaded("sklearn.base", "BaseEstimator")
    if base is None or kind is base or not derives(kind, base) or flags_of_type(kind) & _ABSTRACT:
        return False
    module, _, own = name.rpartition(".")
    public = module.partition("._")[0]
    found = not own.startswith("_") and public.startswith("sklearn.") and not _OTHERS.search(public)
    return found and loaded(public, own) is kind


def keeper_for(kind: type, module: str, qualname: str) -> Keeper | None:
    """Who writes one of scikit-learn's own objects."""
    if loaded(module, qualname) is not kind:
        return None
    if derives(kind, dict):
        return _keep_bunch if qualname == "Bunch" else None
    if all(base is object or flags_of_type(base) & HEAP for base in mro_of(kind)) and _python(kind):
        return _keep_object
    return _keep_compiled


def _python(kind: type) -> bool:
    """Whether all its state is in its ``__dict__``: no class of it is compiled."""
    import types

    return not any(
        type(held) in (types.WrapperDescriptorType, types.MethodDescriptorType, types.BuiltinFunctionType)
        for base in mro_of(kind) if base is not object for held in vars(base).values()
    )  # fmt: skip


def _keep_object(keep: Keeping, value: Any) -> list[Any]:
    name = name_of(type(value))
    if not trusted(type(value)):
        raise NotKept(f"nobody has reviewed {name}")
    return ["sk.object", name, *keep_entries(keep, list(object.__getattribute__(value, "__dict__").items()))]


@maker("sk.object")
def _object(bring: Bringing, node: list[Any], number: int) -> Any:
    from jupyter_mlops.values import definitions

    name = node[1]
    place, _, qualname = name.rpartition(".") if type(name) is str else ("", "", "")
    if not place.startswith("sklearn.") or _OTHERS.search(place):
        raise ManifestRefused("a kept object is refused", cause="nobody has reviewed its class")
    definitions.module(place)
    kind = loaded(place, qualname)
    if definitions.isinstance_of_type(kind) and not trusted(kind):
        raise ManifestRefused("a kept object is refused", cause="nobody has reviewed its class")
    if not definitions.isinstance_of_type(kind) or keeper_for(kind, place, qualname) is not _keep_object:
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


def _keep_compiled(keep: Keeping, value: Any) -> list[Any]:
    return ["sk.compiled", *keep_pickle(keep, value)[1:]]


class _OfLibraries(Unpickler):
    """Makes what scikit-learn and NumPy make, and runs nothing of anybody else's."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] not in ("sklearn", "numpy") and (module, name) not in _BUILT_OF:
            raise ManifestRefused("a kept object is refused", cause=f"{module}.{name} is not run here")
        return super().find_class(module, name)


@maker("sk.compiled")
def _compiled(bring: Bringing, node: list[Any], _number: int) -> Any:
    data = bring.followed(node[1])
    return (Unpickler if bring.programs else _OfLibraries)(bring, data, node[2]).load()


@maker("sk.archive")
def _archive(bring: Bringing, node: list[Any], _number: int) -> Any:
    # Written by earlier versions, for compiled parts.
    return load_skops(bring.followed(node[1]), ours=True)
