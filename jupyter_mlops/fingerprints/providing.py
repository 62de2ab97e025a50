"""Digests for further types, brought by other packages under the entry point group ``jupyter_mlops.fingerprints``.

A provider turns a value of a type it knows into plain values, arrays and frames, and those are what is written, under
the provider's own tag. Providers are loaded when `providers` is called, never by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from jupyter_mlops.errors import WrongUse
from jupyter_mlops.fingerprints.walk import (
    HANDLERS,
    INLINE,
    PROVIDED,
    Handler,
    Node,
    Walk,
    begin,
    finish,
    name_of,
    text,
)

GROUP: Final = "jupyter_mlops.fingerprints"
_TAG: Final = re.compile(r"[a-z][a-z0-9]*-[0-9]+")


class Provider(Protocol):
    """What an entry point of the group names: an object with a tag and the types it knows.

    Attributes
    ----------
    tag
        The digest's tag: lower-case letters and digits, a hyphen, a version, as in ``raster-1``. A change of what is
        written needs a new one.
    """

    tag: str

    def types(self) -> Mapping[type, Callable[[Any], Any]]:
        """For each exact type a function that turns a value into plain values, containers, arrays and frames.

        It must not change the value, and must give equal parts for equal content.
        """
        ...


def use(provider: Provider) -> None:
    """Take a provider's types into the table.

    Raises
    ------
    WrongUse
        The tag has not its form, or a type has a digest already.
    """
    if not _TAG.fullmatch(provider.tag):
        raise WrongUse(f"{provider.tag!r} is no tag", cause="a tag looks like raster-1")
    for kind, parts in provider.types().items():
        if id(kind) in HANDLERS or id(kind) in INLINE:
            raise WrongUse(f"{name_of(kind)} has a fingerprint already")
        PROVIDED[id(kind)] = (kind, _handler(provider.tag.encode(), kind, parts))


def _handler(tag: bytes, kind: type, parts: Callable[[Any], Any]) -> Handler:
    def handler(walk: Walk, value: Any) -> Node:
        hasher = begin(walk, tag, b"provided")
        hasher.update(text(name_of(kind)) + walk.item(parts(value)))
        return finish(tag, hasher)

    return handler


def providers() -> list[str]:
    """Load the providers that other packages bring, and say their names."""
    from importlib.metadata import entry_points

    found = []
    for entry in entry_points(group=GROUP):
        loaded = entry.load()
        use(loaded() if isinstance(loaded, type) else loaded)
        found.append(entry.name)
    return found
