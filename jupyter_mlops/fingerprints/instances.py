"""Instances of classes nobody told us about: by their attributes where that runs no code, else not at all."""

from __future__ import annotations

from jupyter_mlops.fingerprints.walk import Handler, NoFingerprint, name_of


def handler_for(kind: type) -> Handler:
    """The handler for an exact type that is in no table, or the reason why there is none."""
    name = name_of(kind)
    if name.endswith("iterator"):
        raise NoFingerprint(f"a {name} is used up by reading it")
    raise NoFingerprint(f"the type {name} is not known")
