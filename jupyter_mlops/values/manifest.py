"""The written form of kept values: a graph of nodes in JSON, and the objects that hold what the nodes are made of.

A manifest read is anybody's file. It is checked here as far as its form goes: counts, sizes and types of its parts,
and that every object it names is in the store with the size it says. What a node holds is checked by who reads it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Digest, digest_of

FORMAT: Final = "values-1"
LARGEST: Final = 256 << 20
"""Bytes of a manifest: its weight is in the objects it names."""
MOST: Final = 5_000_000
"""Nodes, and items of one node, of a manifest."""
_OBJECT: Final = re.compile(r"blake3:[0-9a-f]{64}")


class NotKept(Exception):
    """A value, or a part of it, has no format in which it could come back. Its text is the reason."""


class ManifestRefused(MlopsError, ValueError):
    """A manifest, or an object it names, is not what we write; nothing of it was made."""


class ValueDiffers(MlopsError, ValueError):
    """A value was brought back, and is not what it was when it was kept."""


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Which array the bytes of a part are: its fingerprint as the record has it, its dtype and its shape."""

    digest: str
    dtype: str
    shape: tuple[int, ...]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """An object that holds a piece of a region of memory."""

    digest: Digest
    size: int
    claim: Claim | None = None


class Region(msgspec.Struct, frozen=True, array_like=True):
    """Memory that arrays share: its pieces in order, and how far its start was from an address divisible by 64."""

    parts: list[Part]
    skew: int = 0
    owner: str = ""
    """``bytearray`` where one of those is the memory."""


class Manifest(msgspec.Struct, frozen=True):
    """What `keep` writes.

    Attributes
    ----------
    names
        For each variable the operand that is its value.
    digests
        The fingerprints of those whose fingerprint can be made again: `bring` compares them.
    nodes
        Each a list of its kind and what that kind writes.
    regions
        The memory behind arrays.
    objects
        What else is kept as bytes: texts, Arrow streams, packed items.
    """

    names: dict[str, Any]
    nodes: list[list[Any]]
    digests: dict[str, str] = {}
    regions: list[Region] = []
    objects: list[Part] = []
    seal: str = ""
    """Of a manifest that holds programs: this machine's, over all the rest of it."""
    format: str = FORMAT


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """A manifest as it is stored."""
    return _encoder.encode(manifest)


def unsealed(manifest: Manifest) -> Digest:
    """What a manifest's seal is of: the digest of all the rest of it."""
    return digest_of(encode(msgspec.structs.replace(manifest, seal="")))


def decode(data: bytes, size: Any) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    data
        Its bytes.
    size
        Gives the size of an object of the store; raises where there is none.

    Raises
    ------
    ManifestRefused
        It has not the form, or not the size, of one.
    """
    if len(data) > LARGEST:
        raise ManifestRefused("the kept values are refused", cause=f"their list has {len(data):,} bytes")
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ManifestRefused("these bytes are no list of kept values", cause=str(error)[:200]) from error
    if found.format != FORMAT:
        raise ManifestRefused(
            f"kept values of the format {found.format[:20]!r} are not known here", next="pip install -U jupyter-mlops"
        )
    if len(found.nodes) > MOST or len(found.names) > MOST:
        raise ManifestRefused("the kept values are refused", cause="there are too many")
    for node in found.nodes:
        if not node or type(node[0]) is not str:
            raise ManifestRefused("a kept value is refused", cause="it does not say what it is")
    known: dict[Digest, int] = {}
    for part in [*(part for region in found.regions for part in region.parts), *found.objects]:
        if not _OBJECT.fullmatch(part.digest) or part.size < 0:
            raise ManifestRefused("the kept values are refused", cause="they name an object that can be none")
        if part.digest not in known:
            known[part.digest] = size(part.digest)
        if known[part.digest] != part.size:
            raise ManifestRefused("the kept values are refused", cause="an object has not the size they say")
    return found
