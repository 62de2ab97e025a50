"""Models, their versions, and the names that point to them.

Version *n* of a model is the *n*-th move of the ref ``models/<name>``; an alias is the ref ``models/<name>@<alias>``.
A move is made after the bytes and facts it speaks of are on the disk, and of two that race one is told so.
"""

from __future__ import annotations

from jupyter_mlops.registry.aliases import DemandUnmet, GateRefused, NothingBefore
from jupyter_mlops.registry.context import RunContext
from jupyter_mlops.registry.formats import (
    REVIEWED,
    Format,
    FormatRefused,
    LoadRefused,
    ModelDamaged,
)
from jupyter_mlops.registry.local import LocalRegistry, Registered
from jupyter_mlops.registry.versions import ModelMissing, NameInvalid, VersionInfo, Versions

__all__ = [
    "REVIEWED",
    "DemandUnmet",
    "Format",
    "FormatRefused",
    "GateRefused",
    "LoadRefused",
    "LocalRegistry",
    "ModelDamaged",
    "ModelMissing",
    "NameInvalid",
    "NothingBefore",
    "Registered",
    "RunContext",
    "VersionInfo",
    "Versions",
]
