"""Memory that arrays share: found by addresses when values are kept, laid out again when they come back.

Every array is a view of a stretch of addresses. Stretches that overlap are one region: so a view, its base, a frame's
column and a tensor on the same buffer come back on one buffer, whatever object owned it. A region is cut where columns
end, and each piece is an object of its own: adding a column stores that column.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from jupyter_mlops.fingerprints import Stretch, hull
from jupyter_mlops.records import Digest
from jupyter_mlops.values.manifest import Claim, ManifestRefused, Part, Region

SMALLEST: Final = 16 << 10
"""Bytes of a column from which on it is an object of its own."""


class Span:
    """A stretch of addresses that a node is written about; its place is known when all have been seen."""

    __slots__ = ("cuts", "high", "low", "owner", "place", "writeable")

    def __init__(self, low: int, high: int, cuts: Sequence[int], owner: str, writeable: bool) -> None:
        self.low, self.high, self.cuts, self.owner, self.writeable = low, high, cuts, owner, writeable
        self.place: list[int] = []
        """Filled in by `Memory.regions`: the region's number, and the offset in it."""


class Memory:
    """The memory of the values that are being kept.

    Parameters
    ----------
    put
        Keeps bytes.
    known
        Objects by the fingerprint of the array they are the bytes of; added to.
    has
        Whether the store has an object of that size.
    """

    def __init__(
        self, put: Callable[[memoryview], Digest], known: dict[Claim, Digest], has: Callable[[Digest, int], bool]
    ) -> None:
        self._put, self._known, self._has = put, known, has
        self._spans: list[Span] = []
        self._claims: dict[tuple[int, int], Claim] = {}

    def mark(self) -> int:
        """How much has been noted: for `forget`."""
        return len(self._spans)

    def forget(self, mark: int) -> None:
        """Drop what was noted since."""
        del self._spans[mark:]

    def span(
        self, low: int, high: int, *, cuts: Iterable[int] = (), owner: str = "", writeable: bool = True
    ) -> list[int]:
        """Note a stretch; gives the list that its place will be put into."""
        one = Span(low, high, sorted(cuts), owner, writeable)
        self._spans.append(one)
        return one.place

    def written(self) -> list[Stretch]:
        """What has been noted and can be written through the array that lies there."""
        return [(one.low, one.high) for one in self._spans if one.writeable]

    def claim(self, low: int, high: int, claim: Claim) -> None:
        """Say what array a stretch is, byte for byte."""
        self._claims[low, high] = claim

    def regions(self) -> list[Region]:
        """Keep all memory, and say where each stretch lies."""
        found: list[Region] = []
        group: list[Span] = []
        end = -1
        for span in sorted(self._spans, key=lambda one: (one.low, -one.high)):
            if span.low == span.high:
                span.place.extend((-1, 0))
                continue
            if group and span.low >= end:
                found.append(self._region(len(found), group, end))
                group = []
            group.append(span)
            end = max(end, span.high) if len(group) > 1 else span.high
        if group:
            found.append(self._region(len(found), group, end))
        return found

    def _region(self, number: int, group: list[Span], end: int) -> Region:
        start = group[0].low
        cuts = sorted({start, end, *(cut for span in group for cut in span.cuts if start < cut < end)})
        parts = []
        for low, high in itertools.pairwise(cuts):
            claim = self._claims.get((low, high))
            digest = self._known.get(claim) if claim is not None else None
            if digest is None or not self._has(digest, high - low):
                digest = self._put(at(low, high - low))
                if claim is not None:
                    self._known[claim] = digest
            parts.append(Part(digest, high - low, claim))
        for span in group:
            span.place.extend((number, span.low - start))
        owners = {span.owner for span in group if span.owner}
        return Region(parts, start % 64, owners.pop() if owners else "")


def at(address: int, size: int) -> memoryview:
    """The bytes at an address of this process, read only; whoever asks holds their owner."""
    import ctypes

    return memoryview((ctypes.c_char * size).from_address(address)).cast("B").toreadonly()


def checked(size: int, offset: Any, shape: Any, strides: Any, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A view's shape and strides, if every item of it lies within `size` bytes.

    Parameters
    ----------
    size
        Bytes of the region.
    offset
        Where in the region the lowest byte of the view lies.
    shape, strides
        As the manifest has them.
    width
        Bytes of an item.

    Raises
    ------
    ManifestRefused
        They are no shape and strides, or reach beyond the region.
    """
    fits = (
        type(offset) is int and type(shape) is list and type(strides) is list and len(shape) == len(strides) <= 64
        and all(type(one) is int and 0 <= one < 2**62 for one in shape)
        and all(type(one) is int and -(2**62) < one < 2**62 for one in strides)
        and math.prod(shape) * max(1, width) < 2**62
    )  # fmt: skip
    if fits:
        low, high = hull(shape, strides, width)
        fits = offset >= 0 and offset + high - low <= size
    if not fits:
        raise ManifestRefused("a kept array is refused", cause="it would reach beyond its memory")
    return tuple(shape), tuple(strides)


def lay_out(region: Region, fill: Callable[[Digest, memoryview], None]) -> Any:
    """A region's memory again, as an array of bytes that can be written.

    Parameters
    ----------
    region
        As written.
    fill
        Reads an object into memory of its size, and verifies it.

    Raises
    ------
    ManifestRefused
        It has not the form of a region.
    """
    import numpy as np

    size = sum(part.size for part in region.parts)
    if not 0 <= region.skew < 64 or region.owner not in ("", "bytearray"):
        raise ManifestRefused("kept memory is refused", cause="its layout is not one")
    if region.owner:
        whole = np.frombuffer(bytearray(size), np.uint8)
    else:
        raw: Any = np.empty(size + 128, np.uint8)
        start = (region.skew - raw.ctypes.data) % 64
        whole = raw[start : start + size]
    view = memoryview(whole) if size else memoryview(b"")
    place = 0
    for part in region.parts:
        fill(part.digest, view[place : place + part.size])
        place += part.size
    return whole
