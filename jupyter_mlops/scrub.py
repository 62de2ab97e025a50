"""A secret or a value taken out of a store after the fact, wherever it stands.

First it is found, then removed. `find_text`, `find_value` and `find_lines` say which fields of which lines and which
objects hold it (`Findings`; nothing is changed), and `Store.erase` removes what they say. What cannot be removed is
said: a name in an envelope, a file that somebody else writes, a damaged tail.

A text is looked for as it stands and as others write it: escaped in JSON, also twice, as in a notebook's output; as
Python prints it; percent-encoded in an address; in hex; as arrays of texts hold it; in Base64 at each of its three
alignments. Zip archives and streams of gzip, bzip2 and xz are looked into. The digest of a guessable text is the text:
where a whole value, file or output is the text and nothing else, fields that hold its digest go too.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

from jupyter_mlops.errors import MlopsError, WrongUse
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.journal import raw_lines
from jupyter_mlops.objects import names, write
from jupyter_mlops.records import (
    Artifact,
    CellSettled,
    Digest,
    Erased,
    RecordInvalid,
    Transition,
    decode,
    digest_of,
    read_envelope,
    read_payload,
    short,
)
from jupyter_mlops.store import Store

SHORTEST: Final = 4
"""Characters: a shorter text stands in too many places by chance."""

_CHUNK: Final = 2**20
_LARGEST: Final = 2**30  # bytes that are unpacked of one archive
_PACKERS: Final = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}
_OBJECT: Final = re.compile(rb"blake3:[0-9a-f]{64}")
_KEEPS: Final[dict[str, frozenset[str]]] = {
    # Without these a line no longer says what it is about: an alias would jump, an erasure would look like a theft.
    Transition.KIND: frozenset({"ref"}),
    Erased.KIND: frozenset({"fields"}),
}


class Findings(msgspec.Struct, frozen=True):
    """Where something stands in a store.

    Attributes
    ----------
    fields
        Names of free fields that hold it, by line.
    kinds
        What each of these lines is.
    objects
        Objects that hold it.
    left
        Places that hold it and that `Store.erase` cannot change: where, and why.
    """

    fields: dict[Digest, tuple[str, ...]] = {}
    kinds: dict[Digest, str] = {}
    objects: tuple[Digest, ...] = ()
    left: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fields or self.objects or self.left)


def find_text(store: Store, text: str) -> Findings:
    """Find a text in every line and object of a store.

    Raises
    ------
    WrongUse
        The text is shorter than `SHORTEST`.
    """
    needles = _Needles(text)
    return _find(store, needles.found, needles.within)


def find_value(store: Store, artifact: Artifact) -> Findings:
    """Find all that a store keeps of a variable's, file's or source's content: bytes, facts, digests.

    Of an artifact of the kind ``object`` these are its bytes alone.

    Raises
    ------
    WrongUse
        The content has no digest: nothing of it is kept.
    """
    if artifact.digest is None:
        raise WrongUse(f"nothing of the content of {artifact.name!r} is on record", cause=artifact.why)
    if artifact.kind == "object":
        return Findings(objects=(artifact.digest,))
    needle = re.compile(re.escape(artifact.digest.encode()))
    facts: set[Digest] = {artifact.digest}

    def found(field: bytes) -> bool:
        if needle.search(field) is None:
            return False
        with contextlib.suppress(RecordInvalid):  # it names the digest, and is no list of artifacts
            same = (one for one in decode(field, list[Artifact]) if one.digest == artifact.digest)
            facts.update(one.facts for one in same if one.facts is not None)
        return True

    lines = _find(store, found, None)
    facts |= _checkpointed(store, needle)
    return msgspec.structs.replace(lines, objects=tuple(digest for digest in sorted(facts) if store.has(digest)))


def _checkpointed(store: Store, needle: re.Pattern[bytes]) -> set[Digest]:
    """What checkpoints keep of a value: the manifests that say how it is made, and the bytes that only they name."""
    lists = {
        one.checkpoint.variables
        for _, _, one in store.records(CellSettled)
        if one.checkpoint is not None and one.checkpoint.variables is not None
    }
    manifests = {name for one in lists for name in _named_in(store, one)}
    guilty = {one for one in manifests if store.has(one) and needle.search(store.get(one))}
    others = {name for one in manifests - guilty for name in _named_in(store, one)}
    return guilty | ({name for one in guilty for name in _named_in(store, one)} - others)


def _named_in(store: Store, digest: Digest) -> set[Digest]:
    if not store.has(digest):
        return set()  # erased before
    return {Digest(name.decode()) for name in _OBJECT.findall(store.get(digest))}


def find_lines(store: Store, line: Digest, fields: Iterable[str] = ()) -> Findings:
    """Say which free fields of a line, and of the lines about it, can be removed: those named, or all.

    Raises
    ------
    WrongUse
        None of these lines has such a field.
    """
    wanted = set(fields)
    there: dict[Digest, tuple[str, ...]] = {}
    kinds: dict[Digest, str] = {}
    for found in store.lines_about(line):
        kind, stays = found.envelope.kind, _KEEPS.get(found.envelope.kind, frozenset())
        names_ = [name for name in found.envelope.commit if name not in found.erased and name not in stays]
        if names_:
            there[found.digest], kinds[found.digest] = tuple(names_), kind
    unknown = wanted.difference(*there.values())
    if unknown:
        raise WrongUse(
            f"{short(line)} has no field {', '.join(sorted(unknown))} that could be removed",
            next=f"it has {', '.join(sorted(set().union(*there.values()))) or 'none'}",
        )
    chosen = {one: tuple(name for name in names_ if not wanted or name in wanted) for one, names_ in there.items()}
    return Findings(fields={one: names_ for one, names_ in chosen.items() if names_}, kinds=kinds)


def files_with(root: Path, paths: Iterable[str], text: str) -> list[str]:
    """Files of the project, named as records name them, that hold a text; what cannot be read is passed over."""
    needles = _Needles(text)
    found = []
    for name in dict.fromkeys(paths):
        path = root / name
        with contextlib.suppress(OSError, MlopsError):  # moved away since, or not ours to read
            if path.is_file() and path.resolve().is_relative_to(root.resolve()) and needles.within(path):
                found.append(name)
    return found


def mask_file(path: Path, text: str) -> None:
    """Write a file anew with ``<redacted>`` wherever the text stood, atomically and with the same mode.

    Raises
    ------
    OSError
        It could not be read or written; it is as it was.
    """
    needles = _Needles(text)
    data = needles.pattern.sub(b"<redacted>", path.read_bytes())
    temporary = path.with_name(f".{path.name}.scrub-{os.getpid()}")
    write(str(temporary), data, durable=True)
    try:
        os.chmod(temporary, path.stat().st_mode & 0o7777)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


# -- inside ----------------------------------------------------------------------------------------------------------


def _find(store: Store, found: Callable[[bytes], bool], within: Callable[[Path], bool] | None) -> Findings:
    fields: dict[Digest, tuple[str, ...]] = {}
    kinds: dict[Digest, str] = {}
    left: list[tuple[str, str]] = []
    for name in _files(store.path):
        for digest, kind, hit, why in _lines(store.path / name, found):
            if digest is None or why:
                left.append((name, why))
            elif hit:
                fields[digest], kinds[digest] = hit, kind
    objects = []
    if within is not None:
        for digest in store.objects():
            path = store.path / "objects" / digest[7:9] / digest[9:]
            if within(path):
                objects.append(digest)
        for name in names(store.path / "quarantine"):
            stem = name.removeprefix("objects-").replace("-", "")
            if within(store.path / "quarantine" / name):
                if re.fullmatch(r"[0-9a-f]{64}", stem):
                    objects.append(Digest("blake3:" + stem))
                else:
                    left.append((f"quarantine/{name}", "nobody knows what it is: delete it by hand"))
    return Findings(fields=fields, kinds=kinds, objects=tuple(dict.fromkeys(objects)), left=tuple(left))


def _files(store: Path) -> Iterator[str]:
    for name in sorted(names(store / "journal")):
        if name.endswith(".jsonl"):
            yield f"journal/{name}"
    for folder, _, files in os.walk(store / "refs"):
        for name in sorted(files):
            if name.endswith(".jsonl"):
                yield (Path(folder) / name).relative_to(store).as_posix()


def _lines(
    path: Path, found: Callable[[bytes], bool]
) -> Iterator[tuple[Digest | None, str, tuple[str, ...], str]]:  # fmt: skip
    """The lines of a file that hold something: their name, kind and fields, or why they have to stay."""
    try:
        for at, raw in raw_lines(path):
            if not raw.endswith(b"\n"):
                if found(raw):
                    yield (
                        None,
                        "",
                        (),
                        f"a write that was cut short, at byte {at}: it goes with the file's next erasure",
                    )
                continue
            try:
                digest, envelope, tail = read_envelope(raw)
                payload = read_payload(tail)
            except RecordInvalid:
                if found(raw):
                    yield None, "", (), f"a damaged line at byte {at}: delete the file by hand, if you can spare it"
                continue
            stays = _KEEPS.get(envelope.kind, frozenset())
            hit = tuple(name for name, (_, value) in payload.items() if found(bytes(value)))
            if any(name in stays for name in hit) or found(raw.partition(b"\t")[0]):
                yield digest, envelope.kind, (), f"{envelope.kind} {short(digest)} is known by it"
            hit = tuple(name for name in hit if name not in stays)
            if hit:
                yield digest, envelope.kind, hit, ""
    except OSError as error:
        yield None, "", (), f"it cannot be read: {error}"


class _Needles:
    """One text, in the ways in which others write it."""

    def __init__(self, text: str) -> None:
        if len(text.strip()) < SHORTEST:
            raise WrongUse(f"a text of fewer than {SHORTEST} characters stands everywhere by chance")
        raw = text.encode("utf-8", "surrogatepass")
        wide = {text.encode(code, "surrogatepass") for code in ("utf-16-le", "utf-32-le")}  # as arrays hold texts
        forms = {
            raw,
            raw.hex().encode(),
            quote(text, errors="replace").encode(),
            quote_plus(text, errors="replace").encode(),
        }
        escapes = (functools.partial(json.dumps, ensure_ascii=False), json.dumps, repr)
        once = {escape(text)[1:-1] for escape in escapes}
        twice = {escape(one)[1:-1] for one in once for escape in escapes}
        forms |= {one.encode("utf-8", "surrogatepass") for one in once | twice}
        forms |= set(_base64(raw)) | wide
        self.longest = max(map(len, forms))
        self.pattern = re.compile(b"|".join(re.escape(one) for one in sorted(forms, key=len, reverse=True)))
        # The texts that are nothing else, by the names their content has on record.
        alone = {raw, raw + b"\n", raw + b"\r\n", repr(text).encode("utf-8", "surrogatepass")}
        alone.add(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        digests = {digest_of(one) for one in alone} | {fingerprint(text).digest, fingerprint(raw).digest}
        self.digests = re.compile(b"|".join(re.escape(one.encode()) for one in digests if one is not None))

    def found(self, data: bytes) -> bool:
        return self.pattern.search(data) is not None or self.digests.search(data) is not None

    def within(self, path: Path) -> bool:
        """Whether a file holds the text, or a digest that is as good, in the open or packed."""
        with open(path, "rb") as file:
            start = file.read(8)
            file.seek(0)
            if self._stream(iter(lambda: file.read(_CHUNK), b"")):
                return True
            packer = next((name for head, name in _PACKERS.items() if start.startswith(head)), "")
            if packer:
                return self._stream(_unpacked(file, packer))
            if start.startswith(b"PK\x03\x04"):
                file.seek(0)
                return self._archive(file)
        return False

    def _archive(self, file: io.BufferedReader) -> bool:
        left = _LARGEST
        try:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    with archive.open(member) as packed:
                        pieces = iter(lambda packed=packed: packed.read(_CHUNK), b"")  # type: ignore[misc]
                        if self._stream(_at_most(pieces, left)):
                            return True
                    left -= member.file_size
                    if left <= 0:
                        break
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError):
            return False  # it only began like one, or is encrypted: its bytes were looked through as they stand
        return False

    def _stream(self, pieces: Iterable[bytes]) -> bool:
        rest = b""
        for piece in pieces:
            held = rest + piece
            if self.found(held):
                return True
            rest = held[-max(self.longest, 80) :]
        return False


def _base64(raw: bytes) -> Iterator[bytes]:
    """What of a text's Base64 does not depend on what stands before and after it, at each alignment."""
    for skip in range(3):
        for encoded in (base64.b64encode(b"\0" * skip + raw), base64.urlsafe_b64encode(b"\0" * skip + raw)):
            sure = encoded.rstrip(b"=")
            if (len(raw) + skip) % 3:
                sure = sure[:-1]
            sure = sure[(0, 2, 3)[skip] :]
            if len(sure) >= 8:
                yield sure


def _unpacked(file: io.BufferedReader, packer: str) -> Iterator[bytes]:
    """A stream unpacked, also where another one was added to its end."""
    file.seek(0)
    left = _LARGEST
    # It only began like one, or is cut short; its bytes as they stand have been read to their end.
    with contextlib.suppress(zlib.error, lzma.LZMAError, EOFError, OSError), import_module(packer).open(file) as stream:
        while left > 0 and (piece := stream.read1(_CHUNK)):
            left -= len(piece)
            yield piece


def _at_most(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return
