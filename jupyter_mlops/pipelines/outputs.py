"""The output notebook on disk: always whole, seldom more than seconds behind, and cheap however large its outputs.

A notebook is written to a temporary file beside its place and renamed onto it, so that a reader, or whoever comes after
a kill, finds the old text or the new one. When it is written is a matter of a budget: no sooner than a second, nor ten
times what the last writing took, after that writing; and not at all while writing now and once more at the end would
pass a tenth of the run's time. Each output is turned into JSON once; a writing joins what is already there.

The bytes are those of ``nbformat.write`` (asserted by a property test), but for two things that JSON can not hold:
``NaN`` and infinities are written as texts, and half a surrogate pair by its escape.
"""

from __future__ import annotations

import logging
import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, Final

import msgspec
from blake3 import blake3

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.objects import replace_file, sweep_drafts
from jupyter_mlops.records import Digest

_log = logging.getLogger("jupyter_mlops")

PAUSE: Final = 1.0
"""Seconds that pass at least between two writings."""

SHARE: Final = 0.1
"""Of the run's time, what writing may take."""

_RATE: Final = 300e6  # bytes per second a disk is believed to take before it was measured
_encode = msgspec.json.Encoder().encode  # of texts: the very bytes of `json`, at memory's speed
_ODD_ASCII: Final = "\\\r\x0b\x0c\x1c\x1d\x1e"
_ODD: Final = _ODD_ASCII + "\x85\u2028\u2029"
_PIECE: Final = 1 << 16
_SPLIT: Final = frozenset({"application/javascript", "image/svg+xml"})
_REMOTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SAFE: Final = re.compile(r"[A-Za-z0-9_+=][A-Za-z0-9._+=-]{0,99}|-?[0-9][A-Za-z0-9._+-]{0,99}")


_Held = tuple[Any, Any, Any, list[bytes]]
"""An output, its body and metadata, and what they were turned into."""


class OutputRefused(WrongUse):
    """The output notebook can not be written where it is asked for."""


class OutputUnwritten(MlopsError, OSError):
    """The run is over, and its notebook could not be written."""


# -- where -----------------------------------------------------------------------------------------------------------


def output_path(template: Path | str, parameters: Mapping[str, Any]) -> Path:
    """The output's path, with ``{name}`` replaced by that parameter's value.

    >>> output_path("runs/a{alpha}.ipynb", {"alpha": 0.5}).name
    'a0.5.ipynb'

    Raises
    ------
    OutputRefused
        The path is no local file, names something that is not a given parameter, or a value is no part of a file name.
    """
    text = str(template)
    if text == "-" or _REMOTE.match(text):
        raise OutputRefused(f"{text[:200]} is no local file", next="give a path on this machine")

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name not in parameters:
            raise OutputRefused(
                f"{{{name[:60]}}} in the output's path names no given parameter",
                next=f"given are: {', '.join(parameters) or 'none'}",
            )
        value = parameters[name]
        word = str(value) if type(value) in (str, int, float, bool) else ""
        if not _SAFE.fullmatch(word):
            raise OutputRefused(f"the value of {name} is no part of a file name", cause=repr(value)[:100])
        return word

    filled = re.sub(r"\{([^{}]*)\}", fill, text)
    if "{" in filled or "}" in filled:
        raise OutputRefused(f"{text[:200]} has a brace without its partner")
    return Path(filled)


def check_output(path: Path) -> None:
    """See, before anything runs, that a notebook can be put there.

    Raises
    ------
    OutputRefused
        The folder is missing or closed to us, or what stands there is a link, a folder, or read-only.
    """
    folder = path.parent
    if not folder.is_dir():
        raise OutputRefused(f"there is no folder {folder}", next=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputRefused(f"the folder {folder} is read-only")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputRefused(f"{path} can not be looked at", cause=str(error)) from error
    if stat.S_ISLNK(found.st_mode):
        raise OutputRefused(
            f"{path} is a symbolic link",
            cause="the output replaces what stands there, and a link would be lost",
            next=f"name the file itself: {os.path.realpath(path)}",
        )
    if not stat.S_ISREG(found.st_mode):
        raise OutputRefused(f"{path} is no regular file")
    # Root may write everywhere; that the owner has made it read-only counts all the same.
    if not found.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise OutputRefused(f"{path} is read-only", next=f"chmod u+w {path}")


# -- how -------------------------------------------------------------------------------------------------------------


class OutputNotebook:
    """A notebook that changes in memory, and its file.

    Parameters
    ----------
    nb
        The notebook; its cells may change at any time between two calls.
    path
        Its file, or None to write nothing.
    started
        When the run began (`time.monotonic`), for the budget.

    Attributes
    ----------
    seconds
        How long writing has held up the run so far.
    writes
        How often the file was written.
    digest, size
        Of the bytes last written.
    """

    def __init__(self, nb: Any, path: Path | None, *, started: float | None = None) -> None:
        self.nb = nb
        self.path = path
        self.started = time.monotonic() if started is None else started
        self.seconds = 0.0
        self.writes = 0
        self.digest: Digest | None = None
        self.size = 0
        self.hold = False
        """Write only at the end."""
        self._changed = True
        self._count = 0
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._rate = _RATE
        self._complained = False
        # By identity of the output, which is kept alive here so that its identity stays its own.
        self._encoded: dict[int, _Held] = {}
        if path is not None:
            sweep_drafts(path)

    def changed(self) -> None:
        """Say that the notebook has changed; it is written if that is due."""
        self._changed = True
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write if there is something new, the last writing is long enough ago, and the budget allows it."""
        if self.path is None or self.hold or not self._changed or time.monotonic() < self._next:
            return
        begun = time.monotonic()
        self._write(last=False)
        self.seconds += time.monotonic() - begun

    def begin_last(self) -> None:
        """Write what the notebook is now beside what the caller does next, which is not to change it: see `finish`."""
        self._thread = threading.Thread(target=self._write_aside, name="jupyter-mlops-output")
        self._thread.start()

    def _write_aside(self) -> None:
        try:
            self._write(last=True)
        except OutputUnwritten:
            self._changed = True  # `finish` tries again, and says why where it has to

    def finish(self, nb: Any = None) -> None:
        """Write what the notebook is now, onto the disk itself, unless that is what stands there.

        Parameters
        ----------
        nb
            The notebook, where it may have become another object.

        Raises
        ------
        OutputUnwritten
            That can not be done.
        """
        begun = time.monotonic()
        try:
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            if nb is not None:
                self.nb = nb
            written = self.digest is not None and not self._changed and self._count == len(self.nb["cells"])
            if not written:
                self._write(last=True)
        finally:
            self.seconds += time.monotonic() - begun

    def _write(self, *, last: bool) -> None:
        if self.path is None:
            return
        begun = time.monotonic()
        try:
            parts = list(self.parts())
            size = sum(map(len, parts))
            encoded = time.monotonic()
            once = size / self._rate
            spent = self.seconds + encoded - begun + 2 * once
            if last or self.writes == 0 or spent <= SHARE * (encoded - self.started):
                replace_file(self.path, parts, durable=last)
                self._changed = False
                self.writes += 1
                self.size = size
                if size > 1 << 20:
                    self._rate = size / max(time.monotonic() - encoded, 1e-6)
                self.digest = _digest(parts) if last else None
                self._count = len(self.nb["cells"])
        except (OSError, RecursionError, MemoryError) as error:
            if last:
                raise OutputUnwritten(f"{self.path} could not be written", cause=str(error)) from error
            # The run goes on: the disk may have room again before its end.
            if not self._complained:
                _log.warning("%s could not be written, and is tried again: %s", self.path, error)
                self._complained = True
        finally:
            ended = time.monotonic()
            self._next = ended + max(PAUSE, (ended - begun) / SHARE)

    def parts(self) -> Iterator[bytes]:
        """The bytes of the file, in pieces."""
        top = {key: value for key, value in self.nb.items() if key != "cells"}
        top["metadata"] = {
            key: value
            for key, value in self.nb["metadata"].items()
            if key not in ("orig_nbformat", "orig_nbformat_minor", "signature")
        }
        seen: dict[int, _Held] = {}
        before = b"{\n "
        for key in sorted({*top, "cells"}):
            yield before + _text(str(key)) + b": "
            if key == "cells":
                yield from self._cells(seen)
            else:
                yield from _json(top[key], b"\n ")
            before = b",\n "
        yield b"\n}\n"
        self._encoded = seen

    def _cells(self, seen: dict[int, _Held]) -> Iterator[bytes]:
        if not self.nb["cells"]:
            yield b"[]"
            return
        before = b"[\n  "
        for cell in self.nb["cells"]:
            yield before
            yield from self._cell(cell, seen)
            before = b",\n  "
        yield b"\n ]"

    def _cell(self, cell: Any, seen: dict[int, _Held]) -> Iterator[bytes]:
        shown = dict(cell)
        if isinstance(shown.get("source"), str):
            shown["source"] = _Lines(shown["source"])
        if "metadata" in shown:
            shown["metadata"] = {key: value for key, value in shown["metadata"].items() if key != "trusted"}
        if shown.get("attachments"):
            shown["attachments"] = {name: _split(bundle) for name, bundle in shown["attachments"].items()}
        outputs = shown.get("outputs") if shown.get("cell_type") == "code" else None
        if not outputs:
            yield from _json(shown, b"\n  ")
            return
        del shown["outputs"]
        first = {key: value for key, value in shown.items() if key < "outputs"}
        later = {key: value for key, value in shown.items() if key > "outputs"}
        yield from _json(first, b"\n  ")[:-1]
        yield b',\n   "outputs": [\n    '
        for place, output in enumerate(outputs):
            if place:
                yield b",\n    "
            yield from self._output(output, seen)
        yield b"\n   ]"
        for key in sorted(later):
            yield b",\n   %b: " % _text(key)
            yield from _json(later[key], b"\n   ")
        yield b"\n  }"

    def _output(self, output: Any, seen: dict[int, _Held]) -> list[bytes]:
        body = output.get("text") if output.get("output_type") == "stream" else output.get("data")
        metadata = output.get("metadata")
        held = seen.get(id(output)) or self._encoded.get(id(output))
        # `update_display` puts other objects in the place of these two; nothing changes them from within.
        if held is None or held[0] is not output or held[1] is not body or held[2] is not metadata:
            shown = dict(output)
            if shown.get("output_type") in ("execute_result", "display_data"):
                shown["data"] = _split(shown.get("data", {}))
            elif shown.get("output_type") == "stream" and isinstance(shown.get("text"), str):
                shown["text"] = _Lines(shown["text"])
            pieces = _json(shown, b"\n    ")
            held = (output, body, metadata, pieces if sum(map(len, pieces)) > _PIECE else [b"".join(pieces)])
        seen[id(output)] = held
        return held[3]


class _Lines:
    """A text that stands on disk as a list of its lines."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _split(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle of media types as nbformat puts it on disk: what is likely text, in lines."""
    return {
        kind: _Lines(value) if isinstance(value, str) and (kind.startswith("text/") or kind in _SPLIT) else value
        for kind, value in bundle.items()
    }


def _json(value: Any, pad: bytes) -> list[bytes]:
    """JSON as ``json.dumps(indent=1, sort_keys=True, ensure_ascii=False)`` writes it, `pad` being the line's start.

    In pieces, since every joining would copy megabytes.
    """
    pieces: list[bytes] = []
    _put(value, pad, pieces.append)
    return pieces


def _put(value: Any, pad: bytes, put: Callable[[bytes], None]) -> None:
    kind = type(value)
    if kind is str or isinstance(value, str):
        put(_text(value))
    elif kind is _Lines:
        _put_lines(value.text, pad, put)
    elif isinstance(value, (dict, Mapping)):  # a dict is known by its class alone, and that is cheap
        deeper = pad + b" "
        before, between = b"{" + deeper, b"," + deeper
        for key in sorted(value) if all(type(key) is str for key in value) else sorted(value, key=str):
            item = value[key]
            put(before + _text(str(key)) + b": ")
            before = between
            if item is None or type(item) is bool or type(item) is float or type(item) is int:
                put(_scalar(item))
            else:
                _put(item, deeper, put)
        put(pad + b"}" if value else b"{}")
    elif isinstance(value, list | tuple):
        before = b"[" + pad + b" "
        for item in value:
            put(before)
            _put(item, pad + b" ", put)
            before = b"," + pad + b" "
        put(pad + b"]" if value else b"[]")
    else:
        put(_scalar(value))


def _scalar(value: Any) -> bytes:
    if value is None:
        return b"null"
    if value is True or value is False:
        return b"true" if value else b"false"
    if isinstance(value, int):
        return int.__repr__(value).encode()
    if isinstance(value, float):
        if math.isfinite(value):
            return float.__repr__(value).encode()
        return b'"NaN"' if value != value else b'"Infinity"' if value > 0 else b'"-Infinity"'
    return _text(value.decode("ascii", "replace") if isinstance(value, bytes) else str(value))


def _text(text: str) -> bytes:
    try:
        return _encode(str(text))
    except UnicodeEncodeError:
        # Half a surrogate pair has no UTF-8; Python's escape for it is JSON's.
        return str(encode_basestring(text)).encode("utf-8", "backslashreplace")


def _put_lines(text: str, pad: bytes, put: Callable[[bytes], None]) -> None:
    if not text:
        put(b"[]")
        return
    between = b",%b " % pad
    # Where no backslash stands in the text, the two bytes that escape a newline stand for nothing else.
    if any(odd in text for odd in (_ODD_ASCII if text.isascii() else _ODD)):
        put(b"[%b %b%b]" % (pad, between.join(map(_text, text.splitlines(keepends=True))), pad))
        return
    last = len(text) - text.endswith("\n")
    put(b'[%b "' % pad)
    for start in range(0, last, _PIECE):  # small enough to stay in the processor's cache
        escaped = _text(text[start : min(start + _PIECE, last)])[1:-1]
        put((b'\\n"' + between + b'"').join(escaped.split(b"\\n")))
    put((b'"' if last == len(text) else b'\\n"') + pad + b"]")


def _digest(parts: Iterable[bytes]) -> Digest:
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return Digest("blake3:" + hasher.hexdigest())
