"""One attempt at a step on a worker, seen from home: what it is given, and what is brought back of it.

The record comes first and in order: objects, then the lines that name them, each verified. Then the files, in place of
those that are here; then versions of models, which are numbered anew.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops.journal import Adopted
from jupyter_mlops.records import Digest, decode
from jupyter_mlops.targets.guest import PIECE, Left, News
from jupyter_mlops.targets.parcels import Parcel, ParcelInvalid, Sent, inside

if TYPE_CHECKING:
    from jupyter_mlops.project import Project

_OFTEN: Final = 1.0
"""Seconds between two fetches of what a running step has put on record."""

Ask = Callable[..., Any]


class Attempt:
    """One attempt at a step: a guest, and what was brought home of its record.

    Parameters
    ----------
    project
        The project, at home.
    told
        What the guest said with hello.
    number
        Which attempt it is, from 1.
    ask
        Speaks to a guest: worker, visit, what, and what goes with it.

    Attributes
    ----------
    run
        The run on record, once it is known.
    behind
        Whether there is more on record there than was brought home.
    """

    def __init__(self, project: Project, told: Mapping[str, Any], number: int, ask: Ask) -> None:
        self.project, self.number, self._ask = project, number, ask
        self.visit, self.worker = str(told["visit"]), str(told["worker"])
        self.run: Digest | None = None
        self.began = time.monotonic()
        self.behind = False
        self._fetched = 0.0
        self._journals: dict[str, Adopted] = {}
        self._rest: dict[str, bytes] = {}

    def ask(self, what: str, *given: Any) -> Any:
        """Ask the guest."""
        return self._ask(self.worker, self.visit, what, *given)

    # -- what it is given --------------------------------------------------------------------------------------------

    def send(self, missing: Iterable[Digest], parcel: Parcel) -> None:
        """Send what the worker lacks of a parcel."""
        by_digest = {one.digest: one for one in parcel.files}
        self.send_files({one: (self.project.root / by_digest[one].name, by_digest[one].size) for one in missing})

    def send_files(self, files: Mapping[Digest, tuple[Path, int]]) -> None:
        """Send files: by their digests where each is, and how many bytes it has."""
        pieces: list[tuple[Digest, int, int, bytes]] = []
        size = 0
        for digest, (path, whole) in files.items():
            with path.open("rb") as file:
                offset = 0
                while offset == 0 or offset < whole:
                    data = file.read(min(PIECE, whole - offset))
                    pieces.append((digest, offset, whole, data))
                    size += len(data)
                    offset += len(data)
                    if size >= PIECE:
                        self.ask("put", pieces)
                        pieces, size = [], 0
                    if not data:
                        break  # it is shorter than it was, or empty: the worker sees which
        if pieces:
            self.ask("put", pieces)

    # -- what it leaves ----------------------------------------------------------------------------------------------

    def fetch_record(self, *, now: bool = False) -> None:
        """Bring home what is on record there, unless that was done a moment ago."""
        if not now and time.monotonic() < self._fetched + _OFTEN:
            self.behind = True
            return
        store = self.project.store
        news = decode(self.ask("news"), News)
        missing = {digest: size for digest, size in news.objects.items() if not store.has(digest)}
        for digest, got in self._fetch("object", missing):
            with got as content:
                found = store.put(content)
            if found != digest:
                # Still being written, or damaged: its journal may name it, and says what it should have been.
                continue
        for writer, size in news.journals.items():
            if writer not in self._journals:
                self._journals[writer] = store.adopt(writer)
                self._rest[writer] = b""
            journal = self._journals[writer]
            at = journal.size + len(self._rest[writer])
            for _, data in self._read([("journal", writer, at, size - at)]):
                whole, newline, rest = (self._rest[writer] + data).rpartition(b"\n")
                self._rest[writer] = rest
                journal.add(whole + newline)
        self._fetched, self.behind = time.monotonic(), False

    def fetch_files(self, left: Left) -> list[str]:
        """Bring home the files it left; what could not be."""
        root, store = self.project.root, self.project.store
        problems, wanted, known = [], {}, {one.name: one for one in left.files}
        for one in left.files:
            try:
                path = inside(root, one.name)
            except ParcelInvalid as error:
                problems.append(str(error))
                continue
            if store.has(one.digest):
                _place(path, store.path / "objects" / one.digest[7:9] / one.digest[9:], one)
            else:
                wanted[one.name] = one.size
        for name, got in self._fetch("file", wanted):
            with got as content:
                _place(inside(root, name), content, known[name])
        return problems

    def fetch_versions(self, left: Left) -> None:
        """Give the versions of models that were registered there their numbers here."""
        store = self.project.store
        for one in left.versions:
            move = one.transition
            if move.ref.startswith("models/") and "@" not in move.ref and not move.refused:
                store.move(move.ref, msgspec.structs.replace(move, old=store.head(move.ref)))

    def close(self) -> None:
        """Let go of its journals: the run is over."""
        journals, self._journals = self._journals, {}
        for journal in journals.values():
            journal.close()

    def _fetch(self, kind: str, sizes: Mapping[Any, int]) -> Iterator[tuple[Any, Any]]:
        """Each of what is wanted, as a file that is there until the next is asked for."""
        wants = [
            (kind, str(name), offset, min(PIECE, size - offset))
            for name, size in sizes.items()
            for offset in (range(0, size, PIECE) if size else (0,))
        ]
        part: tempfile.TemporaryDirectory[str] | None = None
        for (_, name, offset, length), data in self._read(wants):
            if part is None:
                part = tempfile.TemporaryDirectory(prefix="mlops-fetched-")
            path = Path(part.name) / "content"
            with path.open("ab") as file:
                file.write(data)
            if offset + length >= sizes[name]:
                yield name, _Content(part, path)
                part = None
        if part is not None:
            part.cleanup()

    def _read(self, wants: Iterable[tuple[str, str, int, int]]) -> Iterator[tuple[tuple[str, str, int, int], bytes]]:
        some: list[tuple[str, str, int, int]] = []
        size = 0
        for want in wants:
            if some and size + want[3] > PIECE:
                yield from zip(some, self.ask("read", some), strict=True)
                some, size = [], 0
            some.append(want)
            size += want[3]
        if some:
            yield from zip(some, self.ask("read", some), strict=True)


class _Content:
    """A file that was fetched, for as long as it is looked at."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], path: Path) -> None:
        self._folder, self._path = folder, path

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _place(path: Path, content: Path, one: Sent) -> None:
    """Put a file in its place, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}")
    try:
        shutil.copyfile(content, draft)
        if one.program:
            draft.chmod(draft.stat().st_mode | 0o111)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
