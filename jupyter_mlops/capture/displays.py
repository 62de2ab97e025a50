"""What a cell shows, seen where the kernel publishes it.

Everything a kernel puts into a notebook (streams, displays, results, errors) leaves through one method, its session's
``send``. That method is wrapped on that one object: a message is passed on first, exactly as it came, and then looked
at. ``sys.stdout`` and what stands behind it stay as they are, so a million prints cost what they always cost, and what
``%%capture`` takes away is not shown and not seen.

Of each output its type, size and digest are kept. Texts are masked before they are hashed, since the digest of a
printed password is as good as the password; only the first `CHECKED` characters of a stream are looked through.
"""

from __future__ import annotations

import binascii
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from jupyter_mlops.records import Artifact, Digest, Gap, encode

if TYPE_CHECKING:
    from jupyter_mlops.redact import Redactor
    from jupyter_mlops.store import Store

CHECKED: Final = 256 * 1024
"""Characters of a stream that are searched for secrets; what follows is hashed as it is."""

MOST: Final = 200
"""Displays of one cell that are told apart."""

KEPT: Final = 16 * 2**20
"""Bytes: a longer output is not stored, its digest is."""

_PIECE: Final = 2**20  # characters
_TYPES: Final = frozenset({"stream", "display_data", "update_display_data", "execute_result", "error"})
# The form that says most about an output: a plot's plain text holds only an address in memory.
_RICHEST: Final[tuple[str, ...]] = (
    "image/png", "image/jpeg", "image/svg+xml", "text/html", "text/markdown", "text/latex", "application/json",
    "text/plain",
)  # fmt: skip


class Stream:
    """The text one stream carried in a cell: masked at its beginning, hashed as it grows."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.held = 0
        self.size = 0
        self.hash: Any = None  # set once there is more than is searched

    def add(self, text: str, mask: Callable[[str], str]) -> None:
        if self.hash is None:
            self.parts.append(text)
            self.held += len(text)
            if self.held > CHECKED:
                self.hash = blake3(max_threads=1)
                whole = "".join(self.parts)
                self.parts = []
                self._more(mask(whole[:CHECKED]))
                self._more(whole, CHECKED)
        else:
            self._more(text)

    def _more(self, text: str, start: int = 0) -> None:
        for data in _pieces(text, start):
            self.size += len(data)
            self.hash.update(data)

    def text(self) -> str:
        return "".join(self.parts)


class Shown:
    """What one request put on the page."""

    __slots__ = ("counted", "digests", "error", "lock", "outputs", "over", "streams")

    def __init__(self) -> None:
        self.outputs: list[Artifact] = []
        self.streams: dict[str, Stream] = {}
        self.error = ""
        self.counted = 0
        self.over = False
        self.digests: Any = None
        self.lock = threading.Lock()


class Displays:
    """The seam in one kernel.

    Parameters
    ----------
    shell
        The shell; without a kernel (plain IPython) there is no such seam.
    guard
        Told of errors of ours; nothing is raised into the kernel's own sending.
    """

    def __init__(self, shell: Any, guard: Callable[[str, BaseException], None]) -> None:
        kernel = getattr(shell, "kernel", None)
        self._session: Any = getattr(kernel, "session", None)
        self._kernel = kernel
        self._guard = guard
        self._shown: dict[str, Shown] = {}
        self._late: set[str] = set()
        self._wrapper: Any = None
        self.redactor: Redactor | None = None
        self.store: Store | None = None
        self.keep = False

    @property
    def there(self) -> bool:
        """Whether this shell publishes anywhere that can be seen."""
        return self._session is not None

    def install(self) -> None:
        """Wrap the kernel's sending."""
        if self._session is None or self._wrapper is not None:
            return
        inner, shown, look, guard = self._session.send, self._shown, self._look, self._guard

        def send(stream: Any, msg_or_type: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                message = inner(stream, msg_or_type, *args, **kwargs)
            except BaseException as error:  # what cannot be sent is told to the user, without our frame
                error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ is not None else None
                raise
            if shown and message is not None:
                try:
                    if message["msg_type"] in _TYPES:
                        look(message)
                except KeyboardInterrupt as error:  # the user's own, that came while we looked
                    error.__traceback__ = None
                    raise
                except BaseException as error:  # noqa: BLE001 - the message is out: nothing of ours may reach its sender
                    guard("displays", error)
            return message

        self._wrapper = send
        self._session.send = send

    def remove(self) -> None:
        """Take the wrapper off again, where nobody has put another one over it."""
        if self._wrapper is not None and self._session.__dict__.get("send") is self._wrapper:
            del self._session.send
        self._wrapper = None

    def request(self) -> str:
        """The id of the request the calling thread is answering; empty where there is none."""
        if self._kernel is None:
            return ""
        parent = self._kernel.get_parent()
        return str((parent.get("header") or {}).get("msg_id", "")) if parent else ""

    def begin(self, request: str) -> None:
        """Look at what is sent in answer to a request from now on."""
        if request and request not in self._shown:
            self._shown[request] = Shown()

    def end(self, request: str) -> tuple[list[Artifact], list[Gap], str]:
        """What was shown in answer to a request: outputs, gaps, and the error as it was published."""
        shown = self._shown.get(request)
        if shown is None:
            return [], [], ""
        self._flush()
        self._shown.pop(request, None)
        gaps: list[Gap] = []
        with shown.lock:
            outputs = [self._stream(name, stream) for name, stream in shown.streams.items()]
            outputs += shown.outputs
            if shown.over:
                rest = shown.counted - MOST
                outputs.append(
                    Artifact(name=f"{rest} more", kind="display", digest=_named(shown.digests.hexdigest()), size=None)
                )
        return outputs, gaps, shown.error

    def _flush(self) -> None:
        """Have what was printed go out now; the kernel does the same right after the cell."""
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "_flush_pending", False) is True:
                stream.flush()

    def _look(self, message: dict[str, Any]) -> None:
        parent = message.get("parent_header") or {}
        shown = self._shown.get(parent.get("msg_id", ""))
        if shown is None:
            return
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            with shown.lock:
                stream = shown.streams.get(content["name"])
                if stream is None:
                    stream = shown.streams[content["name"]] = Stream()
                stream.add(content["text"], self._mask)
        elif kind == "error":
            shown.error = f"{content.get('ename', '')}: {content.get('evalue', '')}"
            self._count(shown, "error", "error", [self._mask(shown.error).encode("utf-8", "surrogatepass")])
        else:
            mime, data = _form(content["data"], self._mask)
            name = "result" if kind == "execute_result" else "display"
            self._count(shown, name, mime, data)

    def _count(self, shown: Shown, name: str, mime: str, pieces: Iterable[bytes]) -> None:
        hasher, size, kept = blake3(max_threads=1), 0, b""
        for piece in pieces:
            hasher.update(piece)
            size += len(piece)
            kept = kept + piece if self.keep and size <= KEPT else b""
        digest = hasher.hexdigest()
        with shown.lock:
            shown.counted += 1
            if shown.counted > MOST:
                shown.over = True
                if shown.digests is None:
                    shown.digests = blake3(max_threads=1)
                shown.digests.update(digest.encode())
                return
            number = "" if name in ("result", "error") else f" {shown.counted}"
            stored = size <= KEPT and self._keep(kept)
            shown.outputs.append(
                Artifact(name=name + number, kind="display", type=mime, size=size, digest=_named(digest), stored=stored)
            )

    def _stream(self, name: str, stream: Stream) -> Artifact:
        if stream.hash is not None:
            return Artifact(
                name=name, kind="display", type="text/plain", size=stream.size, digest=_named(stream.hash.hexdigest())
            )
        data = self._mask(stream.text()).encode("utf-8", "surrogatepass")
        return Artifact(
            name=name, kind="display", type="text/plain", size=len(data), stored=self._keep(data),
            digest=_named(blake3(data, max_threads=1).hexdigest()),
        )  # fmt: skip

    def _keep(self, data: bytes) -> bool:
        if not self.keep or self.store is None or len(data) > KEPT:
            return False
        self.store.put(data)
        return True

    def _mask(self, text: str) -> str:
        # Without a redactor nothing may be hashed: the same word for all texts says nothing about any.
        return self.redactor.text(text)[0] if self.redactor is not None else "<withheld>"


def _named(hexdigest: str) -> Digest:
    return Digest("blake3:" + hexdigest)


def _pieces(text: str, start: int = 0) -> Iterator[bytes]:
    """A text's bytes in parts: an output of any length is held once, by the kernel."""
    for at in range(start, len(text), _PIECE):
        yield text[at : at + _PIECE].encode("utf-8", "surrogatepass")


def _form(bundle: dict[str, Any], mask: Callable[[str], str]) -> tuple[str, Iterable[bytes]]:
    """The form of an output that says most, and its bytes."""
    mime: str = next((mime for mime in _RICHEST if mime in bundle), None) or next(iter(bundle), "")
    data = bundle.get(mime, "")
    if type(data) is list and all(type(part) is str for part in data):
        data = "".join(data)
    if type(data) is str:
        if mime.startswith("image/") and mime != "image/svg+xml":
            try:
                return mime, [binascii.a2b_base64(data)]
            except (binascii.Error, ValueError):
                pass  # somebody's own spelling: hashed as the text it is
        return mime, itertools.chain(_pieces(mask(data[:CHECKED])), _pieces(data, CHECKED))
    raw = encode(data)
    return mime, [mask(raw.decode()).encode() if len(raw) <= CHECKED else raw]
