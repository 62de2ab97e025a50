"""Targets: where notebooks run. On this machine, on a cluster, or wherever a provider of another package reaches.

A target takes a `Step`, returns a `Handle` at once, and tells of each `Event` until there is an `Outcome`: the words of
`protocol`. It knows nothing of notebooks: it is given the name of the function that performs a step, and sees to it
that this runs, is heard of and can be ended. `jupyter_mlops.testing.TargetSuite` holds every target to it.

Others come under the entry point group ``jupyter_mlops.targets``: an entry point names a `Provider`. A project gives
names to what it uses in ``pyproject.toml``::

    [tool.jupyter-mlops.targets.cluster]
    kind = "dask"
    address = "tcp://scheduler:8786"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.targets.protocol import (
    FINAL,
    Event,
    Handle,
    OnEvent,
    Outcome,
    Perform,
    Step,
    Target,
    performer,
    tell,
)

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

__all__ = [
    "FINAL",
    "Event",
    "Handle",
    "OnEvent",
    "Outcome",
    "Perform",
    "Provider",
    "Standing",
    "Step",
    "Target",
    "TargetInvalid",
    "TargetMissing",
    "manifest_of",
    "open_target",
    "options",
    "performer",
    "providers",
    "standing",
    "tell",
]

GROUP: Final = "jupyter_mlops.targets"
DEFAULT: Final = "local"
_OURS: Final[Mapping[str, str]] = {
    "local": "jupyter_mlops.targets.local",
    "dask": "jupyter_mlops.targets.dask",
    "kubernetes": "jupyter_mlops.targets.kubernetes",
}
"""The kinds that are brought here, and the module that has the `PROVIDER` of each."""


class TargetMissing(MlopsError, LookupError):
    """There is no target of that name."""

    exit_code = 2


class TargetInvalid(WrongUse):
    """A target's settings can not be read."""


@dataclass(frozen=True)
class Provider:
    """A kind of target; what an entry point of the group names.

    Attributes
    ----------
    kind
        Its name, as in ``kind = "dask"``.
    about
        One line on where its steps run.
    open
        Makes a target of its name, the project, and the settings of that name without ``kind``.
    hindrance
        Why there can be none of these settings here, and what to do about it; empty where there can. It does not
        connect to anything.
    manifest
        What it would have somebody else run for a step, as a text, of the settings and the step; for kinds that have
        such a thing.
    """

    kind: str
    about: str
    open: Callable[[str, Project, Mapping[str, Any]], Target]
    hindrance: Callable[[Project, Mapping[str, Any]], str] = lambda _project, _options: ""
    manifest: Callable[[Mapping[str, Any], Step], str] | None = None


@dataclass(frozen=True)
class Standing:
    """A name that ``--target`` takes, and whether it can be used.

    Attributes
    ----------
    name, kind
        The name, and the kind of target.
    about
        One line on where its steps run.
    options
        What the project sets for it.
    hindrance
        Why it can not be used; empty where it can.
    """

    name: str
    kind: str
    about: str
    options: Mapping[str, Any]
    hindrance: str = ""


def providers() -> dict[str, Provider | MlopsError]:
    """The kinds of targets there are, ours and other packages'; an error in place of one that can not be loaded."""
    from importlib.metadata import entry_points

    found: dict[str, Provider | MlopsError] = {}
    for kind, module in _OURS.items():
        try:
            found[kind] = importlib.import_module(module).PROVIDER
        except MlopsError as error:  # an optional dependency that is not there
            found[kind] = error
    for entry in entry_points(group=GROUP):
        if entry.name in found:
            continue  # a name of ours, or the first who took it
        try:
            loaded = entry.load()
        except Exception as error:  # noqa: BLE001 - somebody else's module may fail in any way
            found[entry.name] = MlopsError(f"{entry.value} can not be loaded", cause=f"{type(error).__name__}: {error}")
            continue
        if isinstance(loaded, Provider):
            found[entry.name] = loaded
        else:
            found[entry.name] = MlopsError(f"{entry.value} is no targets.Provider")
    return found


def standing(project: Project) -> list[Standing]:
    """Every name that ``--target`` takes in a project: each kind's own, and those the settings give."""
    kinds = providers()
    named: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in kinds}
    named.update(project.settings.targets)
    return [_standing(project, kinds, name, settings) for name, settings in named.items()]


def _standing(
    project: Project, kinds: Mapping[str, Provider | MlopsError], name: str, settings: Mapping[str, Any]
) -> Standing:
    kind = str(settings.get("kind", name))
    given = {key: value for key, value in settings.items() if key != "kind"}
    provider = kinds.get(kind)
    if isinstance(provider, Provider):
        try:
            hindrance = provider.hindrance(project, given)
        except MlopsError as error:
            hindrance = str(error)
        return Standing(name, kind, provider.about, given, hindrance)
    known = f"there is no kind of target {kind!r}: there are {', '.join(kinds)}"
    return Standing(name, kind, "", given, str(provider) if provider is not None else known)


def open_target(name: str, project: Project, **overriding: Any) -> Target:
    """The target of that name: one of the project's settings, or a kind.

    Parameters
    ----------
    name
        The name.
    project
        The project, whose settings may name it.
    overriding
        Options that go over what the settings say.

    Raises
    ------
    TargetMissing
        There is none of that name, or it can not be used here.
    TargetInvalid
        Its settings can not be read.
    """
    kinds, settings = _settings(name, project)
    one = _standing(project, kinds, name, {**settings, **overriding})
    if one.hindrance:
        raise TargetMissing(f"the target {name!r} can not be used", cause=one.hindrance, next="mlops targets")
    provider = kinds[one.kind]
    assert isinstance(provider, Provider)
    return provider.open(name, project, one.options)


def manifest_of(name: str, project: Project, step: Step) -> str:
    """What a target would have somebody else run for a step, as a text; nothing is asked of anybody.

    Raises
    ------
    TargetMissing
        There is no target of that name, or its kind can not be loaded.
    TargetInvalid
        Its settings can not be read.
    WrongUse
        Its kind has no such thing.
    """
    kinds, settings = _settings(name, project)
    kind = str(settings.get("kind", name))
    provider = kinds.get(kind)
    if not isinstance(provider, Provider):
        raise TargetMissing(f"the target {name!r} can not be used", cause=str(provider or ""), next="mlops targets")
    if provider.manifest is None:
        raise WrongUse(f"the target {name!r} has no manifest", cause=f"steps of the kind {kind} are run as they are")
    return provider.manifest({key: value for key, value in settings.items() if key != "kind"}, step)


def _settings(name: str, project: Project) -> tuple[dict[str, Provider | MlopsError], Mapping[str, Any]]:
    """The kinds there are, and what the project sets for a name."""
    kinds = providers()
    settings = project.settings.targets.get(name)
    if settings is None and name not in kinds:
        known = ", ".join(dict.fromkeys([*kinds, *project.settings.targets]))
        raise TargetMissing(f"there is no target {name!r}", cause=f"there are {known}", next="mlops targets")
    return kinds, settings or {}


_Options = TypeVar("_Options", bound=msgspec.Struct)


def options(given: Mapping[str, Any], type_: type[_Options]) -> _Options:
    """A target's settings as a struct: for providers.

    Raises
    ------
    TargetInvalid
        One is unknown, or has a wrong type; the message lists what there is.
    """
    try:
        return msgspec.convert(dict(given), type_)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(type_))
        raise TargetInvalid(
            "the target's settings can not be read", cause=str(error), next=f"known are: kind, {known}"
        ) from error
