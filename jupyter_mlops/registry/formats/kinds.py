"""What a format is, and how one says no."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """A way to keep models, as providers declare it under the entry point ``jupyter_mlops.formats``.

    Attributes
    ----------
    name
        What stands on the record as the model's type.
    suffixes
        Of files in this format, with their dots.
    load
        Makes a model of its bytes, without running code that the bytes bring. None: only the bytes can be had.
    dump
        Makes bytes of a model; None for a format that only files come in.
    looks
        Says of the first 4 KiB of a file whether it can be one.
    takes
        Classes, by their full names, whose very objects are kept in this format unless another is asked for.
    check
        Raises `FormatRefused` for bytes that can not be kept as they are, such as those that name further files.
    fragile
        Whether crafted bytes can crash the process that loads them, though no code of theirs runs: they are loaded
        on demand only (``trust=True``).
    foreign
        For a fragile format that we dump too: the name under which files from elsewhere are kept. What stands on
        record under `name` was then dumped here, and is loaded without being asked for twice.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    load: Callable[[bytes], object] | None = None
    dump: Callable[[object], bytes] | None = None
    looks: Callable[[bytes], bool] = lambda _: True
    takes: tuple[str, ...] = ()
    check: Callable[[bytes], None] | None = None
    fragile: bool = False
    foreign: str = ""
