"""How a model becomes bytes, and which bytes may become a model again.

The format is the boundary of safety: what is written down for loading is data, and the code that reads it comes from
installed libraries. skops is the format for scikit-learn; other libraries' own formats (ONNX, safetensors, boosters)
are kept as they are. A pickle is a program: it is written only on explicit demand, said to be one on the record, and
loaded only on explicit demand. No format stands in for another that failed.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from jupyter_mlops.checks import RUNS_CODE
from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.registry.formats.kinds import Format
from jupyter_mlops.registry.formats.native import NATIVE
from jupyter_mlops.values.trust import (
    REVIEWED,
    FormatRefused,
    LoadRefused,
    ModelDamaged,
    class_of,
    dump_skops,
    load_skops,
)

__all__ = [
    "FOREIGN_SKOPS", "OWN_SKOPS", "REVIEWED", "RUNS_CODE", "Format", "FormatRefused", "LoadRefused", "ModelDamaged",
    "check", "dump", "format_of_bytes", "format_of_file", "format_of_object", "formats", "load",
]  # fmt: skip

OWN_SKOPS: Final = "skops"
FOREIGN_SKOPS: Final = "skops-file"
"""A skops file that somebody gave us: skops' own trust applies to it, not the list for what we dumped ourselves."""


# -- pickle, on demand -----------------------------------------------------------------------------------------------


def dump_pickle(model: object) -> bytes:
    """Write a model as a pickle: a program that makes it again.

    Raises
    ------
    FormatRefused
        It can not be pickled.
    """
    import pickle

    try:
        return pickle.dumps(model, protocol=5)
    except Exception as error:  # a class may refuse in any way to be pickled
        raise FormatRefused(f"a {class_of(model)} can not be pickled", cause=str(error)[:300]) from error


def load_pickle(data: bytes, format: str) -> object:
    """Run a pickle. The caller has been told that it is one, and has said to trust it."""
    if format == "joblib":
        import joblib

        loaded: object = joblib.load(io.BytesIO(data))
        return loaded
    import pickle

    return pickle.loads(data)  # noqa: S301 - only on explicit demand: see LocalRegistry.load


# -- all formats -----------------------------------------------------------------------------------------------------

BUILT_IN: Final[Mapping[str, Format]] = {
    **NATIVE,
    FOREIGN_SKOPS: Format(name=FOREIGN_SKOPS, suffixes=(".skops",), looks=lambda head: head[:2] == b"PK"),
}
"""Formats that need no other package to be declared."""
_PICKLES: Final[Mapping[str, str]] = {
    ".pkl": "pickle", ".pickle": "pickle", ".p": "pickle", ".joblib": "joblib", ".dill": "pickle", ".pt": "pickle",
    ".pth": "pickle", ".ckpt": "pickle",
}  # fmt: skip


def formats() -> dict[str, Format]:
    """All formats of files, those of installed providers included; loaded when asked for.

    Raises
    ------
    ProviderBroken
        An installed provider can not be imported, or provides something else.
    """
    from importlib.metadata import entry_points

    found = dict(BUILT_IN)
    for point in entry_points(group="jupyter_mlops.formats"):
        if point.name not in found and point.name not in {*RUNS_CODE, OWN_SKOPS}:
            found[point.name] = _provided(point)
    return found


class ProviderBroken(MlopsError, ImportError):
    """Another package's format can not be had."""


def _provided(point: Any) -> Format:
    whose = point.dist.name if point.dist is not None else point.value
    try:
        provided = point.load()
        made = provided if isinstance(provided, Format) else provided()
    except Exception as error:  # somebody else's module may fail in any way
        raise ProviderBroken(
            f"the format {point.name!r} of {whose} can not be had", cause=f"{type(error).__name__}: {error}"[:300],
            next=f"update {whose}, or uninstall it",
        ) from error  # fmt: skip
    if not isinstance(made, Format) or made.name != point.name:
        raise ProviderBroken(
            f"the format {point.name!r} of {whose} can not be had",
            cause=f"it provides {getattr(made, 'name', type(made).__name__)!r}", next=f"uninstall {whose}",
        )  # fmt: skip
    return made


def format_of_object(model: object, asked: str | None) -> str:
    """The format to keep an object in: the one asked for, else the one of its class, else skops."""
    if asked is not None:
        return asked
    kind = class_of(model)
    if kind.partition(".")[0] == "sklearn":
        return OWN_SKOPS
    return next((one.name for one in formats().values() if kind in one.takes), OWN_SKOPS)


def check(data: Callable[[], bytes], format: str) -> None:
    """Ask a format whether bytes can be kept as they are.

    Raises
    ------
    FormatRefused
        They can not.
    """
    known = formats().get(format) if format not in RUNS_CODE else None
    if known is not None and known.check is not None:
        known.check(data())


def format_of_file(path: Path, asked: str | None) -> str:
    """The format to register a file under.

    Raises
    ------
    WrongUse
        Nobody says what it is.
    FormatRefused
        It is a pickle and that was not asked for, or is not what its name says.
    """
    suffix = path.suffix.lower()
    head = _head(path)
    if asked == "pickle":
        return _PICKLES.get(suffix, "pickle")
    if suffix in _PICKLES or _is_pickle(head):
        raise FormatRefused(
            f"{path.name} is a pickle", cause="loading it would run whatever code is in it",
            next="save the model in a safe format, or register it with --format pickle",
        )  # fmt: skip
    known = formats()
    name = _foreign(asked, known) or next((one.name for one in known.values() if suffix in one.suffixes), None)
    if name not in known:
        raise WrongUse(
            f"nobody knows the format of {path.name}",
            next=f"--format one of {', '.join(sorted(known))}, or a suffix of "
            + ", ".join(sorted(end for one in known.values() for end in one.suffixes)),
        )
    if not known[name].looks(head):
        raise FormatRefused(f"{path.name} is not what its name says", cause=f"it does not begin as {name} does")
    return name


def _foreign(asked: str | None, known: Mapping[str, Format]) -> str | None:
    """The name for what we did not dump ourselves."""
    if asked == OWN_SKOPS:
        return FOREIGN_SKOPS
    return asked if asked is None or asked not in known else known[asked].foreign or asked


def format_of_bytes(head: bytes, asked: str | None) -> str:
    """The format to register bytes under, given their beginning; it has to be said.

    Raises
    ------
    WrongUse
        Nobody says what they are.
    FormatRefused
        They are a pickle, or not what was said.
    """
    if asked == "pickle":
        return asked
    if _is_pickle(head):
        raise FormatRefused("these bytes are a pickle", next="register them with format='pickle', if it must be")
    known = formats()
    name = _foreign(asked, known)
    if name not in known:
        raise WrongUse("bytes do not say what they are", next=f"format= one of {', '.join(sorted(known))}")
    if not known[name].looks(head):
        raise FormatRefused(f"these bytes are no {name}", cause="they do not begin as it does")
    return name


def dump(model: object, format: str, *, trust: Iterable[str] = ()) -> bytes:
    """Make bytes of a model, in the format that was asked for and no other.

    Raises
    ------
    WrongUse
        Nobody can write that format.
    FormatRefused
        The model can not be kept in it.
    """
    if format == OWN_SKOPS:
        return dump_skops(model, trust=trust)
    if format == "pickle":
        return dump_pickle(model)
    known = formats()
    if format not in known or known[format].dump is None:
        raise WrongUse(
            f"nobody here writes {format!r} from a {class_of(model)}",
            next="save the model to a file with its own library, and register the file"
            if format in known
            else f"--format one of {', '.join(sorted({OWN_SKOPS, 'pickle', *_written(known)}))}",
        )
    return known[format].dump(model)  # type: ignore[misc]


def _written(known: Mapping[str, Format]) -> list[str]:
    return [one.name for one in known.values() if one.dump is not None]


def load(data: bytes, format: str, *, trust: bool | Iterable[str] = False) -> object:
    """Make a model of bytes that were verified, by the format on their record.

    Parameters
    ----------
    trust
        Exact names of further types that a skops file may hold; True for bytes whose maker is trusted altogether.

    Raises
    ------
    LoadRefused
        They hold types that are not trusted.
    WrongUse
        Nobody here reads that format.
    """
    if format in RUNS_CODE:
        return load_pickle(data, format)
    if format in (OWN_SKOPS, FOREIGN_SKOPS):
        return load_skops(data, ours=format == OWN_SKOPS, trust=() if isinstance(trust, bool) else trust)
    known = formats().get(format)
    if known is None or known.load is None:
        raise WrongUse(
            f"nobody here reads {format!r} into a model",
            next="take its bytes with content(…), and read them with the library that wrote them",
        )
    if known.fragile and not known.foreign and trust is not True:
        raise LoadRefused(
            f"the model is a file from elsewhere, in the format {format!r}",
            cause="a crafted one can crash the process that loads it",
            next="if you know who made it: load_model(…, trust=True)",
        )
    return known.load(data)


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _head(path: Path) -> bytes:
    """A file's first 4 KiB; a thing that is no regular file is refused, and never waited for.

    Raises
    ------
    WrongUse
        There is no such file, or it is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise WrongUse(f"{path.name} can not be read", cause=error.strerror or str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise WrongUse(f"{path.name} is no regular file")
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
