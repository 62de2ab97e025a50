"""The way back: nodes made into values, each once.

What can change is made empty first and filled later, so that circles close; what cannot is made of its parts. A
manifest is anybody's file: each kind of node checks what it reads, numbers are held against what they count, and
whatever goes wrong in a maker is a refusal, never a half-made value.
"""

from __future__ import annotations

import array
import base64
import importlib
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from jupyter_mlops import seals
from jupyter_mlops.records import Digest
from jupyter_mlops.seals import SealRefused
from jupyter_mlops.values.keeping import Bytes, hashes_plainly
from jupyter_mlops.values.manifest import Manifest, ManifestRefused, unsealed
from jupyter_mlops.values.memory import lay_out

Maker = Callable[["Bringing", list[Any], int], Any]
"""Makes a value of a node: the whole node, and its number for what is made before it is filled."""

MAKERS: Final[dict[str, Maker]] = {}
"""By the node's kind. The makers of a library's types come with the module that its prefix names."""
_LIBRARIES: Final = {
    "np": "arrays", "sp": "arrays", "torch": "tensors", "pd": "frames", "pa": "arrow", "pl": "arrow",
    "sk": "estimators", "code": "definitions", "of": "instances",
}  # fmt: skip
_DEEPEST: Final = 150
_LEAVES: Final = frozenset({
    "text", "bytes", "date", "datetime", "time", "timedelta", "decimal", "fraction", "uuid", "pd.moment", "pd.period",
    "pd.interval", "pd.missing", "np.scalar", "posixpath", "code.named", "code.module",
})  # fmt: skip
_double = struct.Struct("<d")
_MISSING: Final = object()


def maker(kind: str) -> Callable[[Maker], Maker]:
    """Register who makes values of nodes of a kind."""

    def register(function: Maker) -> Maker:
        MAKERS[kind] = function
        return function

    return register


class Bringing:
    """One manifest's values being made.

    Parameters
    ----------
    manifest
        Read and checked as far as its form goes.
    store
        Has its objects.
    space
        The variables that functions of the notebook look their globals up in.
    programs
        Whether what runs may run.
    """

    def __init__(self, manifest: Manifest, store: Bytes, space: dict[str, Any], *, programs: bool = True) -> None:
        self.manifest, self.store, self.space, self.programs = manifest, store, space, programs
        self.claims: dict[tuple[int, str, tuple[int, ...]], str] = {}
        """Fingerprints of arrays whose bytes were just read and verified, by address, dtype and shape."""
        self._made: dict[int, Any] = {}
        self._order: list[int] = []
        self._open: set[int] = set()
        self._later: deque[Callable[[], None]] = deque()
        self._shared: dict[tuple[str, int], Any] = {}
        self._regions: dict[int, Any] = {}
        self._sealed = False

    def variable(self, name: str) -> Any:
        """Make a variable's value, whole.

        Raises
        ------
        MlopsError
            It is refused; what was made before is as it was.
        """
        mark = len(self._order)
        try:
            value = self.operand(self.manifest.names[name])
            self.settle()
            return value
        except BaseException:
            # Whatever it is, an interrupt too: others may be asked for, and must not be given half-made parts of this.
            self._later.clear()
            self._open.clear()
            for number in self._order[mark:]:
                self._made.pop(number, None)
            del self._order[mark:]
            raise

    def operand(self, raw: Any) -> Any:
        """A value as it is written inside a node."""
        if type(raw) is not list:
            if type(raw) in (str, int, float, bool) or raw is None:
                return raw
            raise ManifestRefused("a kept value is refused", cause="a part of it is none")
        kind = raw[0]
        if kind == "@":
            return self.node(raw[1])
        if kind == "i":
            return int(raw[1], 16)
        if kind == "f":
            return _double.unpack(bytes.fromhex(raw[1]))[0]
        if kind == "s":
            return bytes.fromhex(raw[1]).decode("utf-8", "surrogatepass")
        if kind == "b":
            return base64.b64decode(raw[1], validate=True)
        if kind == "c":
            data = bytes.fromhex(raw[1])
            return complex(_double.unpack(data[:8])[0], _double.unpack(data[8:])[0])
        if kind == "...":
            return ...
        if kind == "NI":
            return NotImplemented
        raise ManifestRefused("a kept value is refused", cause="a part of it is of no known kind")

    def node(self, number: Any) -> Any:
        """The value of a node, made when first asked for."""
        found = self._made.get(number, _MISSING) if type(number) is int else _MISSING
        if found is not _MISSING:
            return found
        if type(number) is not int or not 0 <= number < len(self.manifest.nodes):
            raise ManifestRefused("a kept value is refused", cause="a part of it is not there")
        if number in self._open:
            raise ManifestRefused("a kept value is refused", cause="it is made of itself")
        if len(self._open) >= _DEEPEST:
            raise ManifestRefused("a kept value is refused", cause="it is nested too deeply")
        node = self.manifest.nodes[number]
        self._open.add(number)
        value = maker_of(node[0])(self, node, number)
        self._open.discard(number)
        if number not in self._made:
            self.early(number, value)
        return self._made[number]

    def early(self, number: int, value: Any) -> Any:
        """Note a value that is filled later, so that its parts can hold it."""
        self._made[number] = value
        self._order.append(number)
        return value

    def later(self, fill: Callable[[], None]) -> None:
        """Have a value filled, when those that are being made are made."""
        self._later.append(fill)

    def settle(self) -> None:
        """Fill all that waits to be filled."""
        while self._later:
            self._later.popleft()()

    def items(self, raw: Any) -> list[Any]:
        """The items of a sequence."""
        if type(raw) is list:
            return [self.operand(one) for one in raw]
        form, count = raw["form"], raw["count"]
        data = self.object(raw["object"])
        if form == "j":
            found = [self.operand(one) for one in msgspec.json.decode(data, type=list)]
        elif form in ("d", "q"):
            packed = array.array(form)
            packed.frombytes(data)
            if sys.byteorder == "big":
                packed.byteswap()
            found = packed.tolist()
        else:
            raise ManifestRefused("kept items are refused", cause="they are of no known form")
        if len(found) != count:
            raise ManifestRefused("kept items are refused", cause="they are not as many as they say")
        return found

    def plain(self, raw: Any, depth: int = 0) -> bool:
        """Whether a value is nothing that could hold what is being made: then it need not wait."""
        if type(raw) is not list or raw[0] != "@":
            return True
        number = raw[1]
        if type(number) is not int or not 0 <= number < len(self.manifest.nodes):
            return True  # refused when it is made
        kind, *rest = self.manifest.nodes[number]
        if kind == "tuple" and depth < 20 and rest:
            return type(rest[0]) is dict or all(self.plain(one, depth + 1) for one in rest[0])
        return kind in _LEAVES

    def keys(self, raw: Any) -> list[Any]:
        """Items that are looked up by their hashes.

        Raises
        ------
        ManifestRefused
            Hashing one could run somebody's code.
        """
        found = self.items(raw)
        if not all(map(hashes_plainly, found)):
            raise ManifestRefused("a kept value is refused", cause="a key says itself how it is looked up")
        return found

    def shared(self, kind: str, number: Any) -> Any:
        """What was made of an object before, and can be shared; None where nothing was."""
        return self._shared.get((kind, number)) if type(number) is int else None

    def share(self, kind: str, number: int, made: Any) -> Any:
        """Note what was made of an object."""
        self._shared[kind, number] = made
        return made

    # -- bytes --

    def object(self, number: Any) -> bytes:
        """The bytes of one of the manifest's objects, verified."""
        return self.store.get(self._digest(number))

    def program(self, number: Any) -> bytes:
        """Bytes that will run, if this machine sealed the manifest.

        Raises
        ------
        SealRefused
            It did not, or nothing is to run.
        """
        if not self.programs:
            raise SealRefused("kept definitions and programs are not run", cause="it holds code, which is not run here")
        return self.followed(number)

    def followed(self, number: Any) -> bytes:
        """Bytes that are data, and that compiled code follows without looking, if this machine sealed the manifest.

        Raises
        ------
        SealRefused
            It did not.
        """
        self.sealed()
        return self.object(number)

    def sealed(self) -> None:
        """See that nobody but this machine wrote the manifest.

        Raises
        ------
        SealRefused
            Somebody did.
        """
        if not self._sealed:
            seals.check(seals.local_key(), unsealed(self.manifest), self.manifest.seal)
            self._sealed = True

    def _digest(self, number: Any) -> Digest:
        if type(number) is not int or not 0 <= number < len(self.manifest.objects):
            raise ManifestRefused("a kept value is refused", cause="it names an object that is not listed")
        return self.manifest.objects[number].digest

    def region(self, number: Any) -> Any:
        """Memory that arrays share, as an array of bytes."""
        found = self._regions.get(number) if type(number) is int else None
        if found is not None:
            return found
        if type(number) is int and number == -1:
            import numpy as np

            found = np.empty(0, np.uint8)
        elif type(number) is not int or not 0 <= number < len(self.manifest.regions):
            raise ManifestRefused("a kept array is refused", cause="its memory is not listed")
        else:
            region = self.manifest.regions[number]
            found = lay_out(region, self.store.read_into)
            start = found.ctypes.data
            for part in region.parts:
                if part.claim is not None:
                    self.claims[start, part.claim.dtype, part.claim.shape] = part.claim.digest
                start += part.size
        self._regions[number] = found
        return found


def maker_of(kind: str) -> Maker:
    """Who makes values of nodes of a kind.

    Raises
    ------
    ManifestRefused
        Nobody does.
    """
    found = MAKERS.get(kind)
    if found is None:
        module = _LIBRARIES.get(kind.partition(".")[0])
        if module is not None:
            importlib.import_module(f"jupyter_mlops.values.{module}")
            found = MAKERS.get(kind)
    if found is None:
        raise ManifestRefused(
            f"a kept value of the kind {kind[:40]!r} is not known here", next="pip install -U jupyter-mlops"
        )
    return found
