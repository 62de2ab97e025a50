"""scikit-learn's estimators and pipelines, by class, parameters and learned state.

An estimator of scikit-learn's own is its attributes; the few parts written in Cython are read through the plain arrays
they are made of, by exact type. What is none of these ends the digest with the attribute's path.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from jupyter_mlops.fingerprints import arrays, plain
from jupyter_mlops.fingerprints.code import version_of
from jupyter_mlops.fingerprints.walk import (
    Handler,
    Node,
    NoFingerprint,
    Walk,
    begin,
    derives,
    finish,
    loaded,
    name_of,
    seal,
    text,
)

TAG: Final = b"model-1"


def handler_for(kind: type, module: str, qualname: str) -> Handler | None:
    """The handler for one of scikit-learn's own types."""
    if module == "_loss":  # what releases before 1.9 say of the functions compiled in this module
        module = "sklearn._loss._loss"
    if loaded(module, qualname) is not kind:
        return None
    if qualname == "Tree" and module == "sklearn.tree._tree":
        return _tree
    if qualname == "Bunch":
        return _bunch
    estimator = loaded("sklearn.base", "BaseEstimator")
    if (estimator is not None and derives(kind, estimator)) or qualname in ("TreePredictor", "_BinMapper"):
        return _estimator
    if module == "sklearn._loss._loss":
        return _reduced
    if module.startswith("sklearn._loss"):
        return _estimator
    return None


def _estimator(walk: Walk, value: Any) -> Node:
    """Class, version of the library, and every attribute."""
    kind = type(value)
    hasher = begin(walk, TAG, b"estimator")
    hasher.update(text(name_of(kind)) + text(version_of("sklearn")))
    try:
        plain.mapping(walk, hasher, object.__getattribute__(value, "__dict__"))
    except NoFingerprint as stop:
        if stop.path and stop.path[-1].startswith("['"):
            stop.path[-1] = "." + stop.path[-1][2:-2]
        raise
    if walk.top:
        walk.facts = {"schema": {"class": name_of(kind), "sklearn": version_of("sklearn")}}
    return finish(TAG, hasher)


def _tree(walk: Walk, value: Any) -> Node:
    """A fitted tree: its nodes and values."""
    state = value.__getstate__()
    np = sys.modules["numpy"]
    parts = [walk.item(int(value.n_features)), walk.item(np.asarray(value.n_classes, np.int64).tolist()),
             walk.item(int(value.n_outputs))]  # fmt: skip
    for key in sorted(state):
        held = state[key]
        encoded = arrays.array(walk, held).inline() if type(held) is np.ndarray else walk.item(held)
        parts.append(text(key) + encoded)
    return seal(TAG, b"tree", *parts)


def _bunch(walk: Walk, value: Any) -> Node:
    hasher = begin(walk, TAG, b"bunch")
    plain.mapping(walk, hasher, dict(dict.items(value)))
    return finish(TAG, hasher)


def _reduced(walk: Walk, value: Any) -> Node:
    """A loss function: its class and the arguments that make it again."""
    kind = type(value)
    reduced = value.__reduce__()
    return seal(TAG, b"reduced", text(name_of(kind)), walk.item([one for one in reduced[1:] if one is not None]))
