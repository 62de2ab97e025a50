"""Digests for further types, brought by other packages under the entry point group ``jupyter_mlops.fingerprints``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

GROUP = "jupyter_mlops.fingerprints"


class Provider(Protocol):
    """What an entry point of the group names: an object with a tag and the types it knows.

    Attributes
    ----------
    tag
        The digest's tag: lower-case letters, digits and hyphens, ending in a version, as in ``raster-1``. A change of
        what is written needs a new one.
    """

    tag: str

    def types(self) -> Mapping[type, Callable[[Any], Any]]:
        """For each exact type a function that turns a value into plain values, containers, arrays and frames.

        It must not change the value, and must give equal parts for equal content.
        """
        ...


def providers() -> list[str]:
    """Load the providers that other packages bring, and say their names."""
    return []
