"""Refs: names, each a folder of numbered moves.

Every move is a line in a file of its own that is created exclusively, so that of two who race one loses and is told.
The moves are the truth and the audit trail at once; where a ref stands is read off them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.journal import Journal, JournalUnavailable, new_writer, raw_lines, sync_folder
from jupyter_mlops.objects import Objects, make_folder, names, write
from jupyter_mlops.records import Digest, Line, RecordInvalid, Transition, read_line, short, write_line

PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""One part of a name that becomes a path."""
_MOVE: Final = re.compile(r"([0-9]{8,12})\.jsonl")


class RefConflict(MlopsError, RuntimeError):
    """Somebody else moved the ref first."""


class RefInvalid(MlopsError, ValueError):
    """A ref cannot have that name."""


class Move(msgspec.Struct, frozen=True):
    """One move of a ref: its number, from 1, the line that says so, and when."""

    number: int
    digest: Digest
    time: str
    transition: Transition


class Refs:
    """The refs of a store.

    Parameters
    ----------
    store
        The store's folder.
    journal
        Makes durable what a move builds on.
    objects
        Knows where a file may be written before it has its name.
    """

    def __init__(self, store: Path, journal: Journal, objects: Objects) -> None:
        self.path, self._journal, self._objects = store, journal, objects

    def move(self, ref: str, move: Transition, *, expect: int | None = None) -> tuple[int, Digest]:
        """Add a move to a ref; everything appended before is made durable first, and so is the move.

        Parameters
        ----------
        expect
            The number of the last move the caller knows of (0: there is none yet); the one found, if left out.

        Returns
        -------
        tuple
            The number the move took, and the digest of its line.

        Raises
        ------
        RefConflict
            Another move came first, or `move.old` is not where the ref stands.
        RefInvalid
            The ref cannot have that name, or the transition is about another ref.
        JournalUnavailable
            What the move builds on could not be made durable; or the move is made, and may not survive a power cut.
        """
        folder = self._ref(ref)
        if move.ref != ref:
            raise RefInvalid(f"the move is about {move.ref!r}, not {ref!r}")
        self._journal.check()
        numbers = self._numbers(folder)
        last = max(numbers, default=0)
        if expect is not None and expect != last:
            raise self._conflict(ref, last)
        known = self._read_back(ref, numbers)
        before = next(known, None)
        head = before.transition.new if before and not before.transition.refused else _head(known)
        if move.old is not None and move.old != head:
            raise RefConflict(
                f"{ref} stands at {short(head) or 'nothing'}", cause=f"the move begins at {short(move.old)}",
                next=f"mlops log {ref}",
            )  # fmt: skip
        if not self._journal.durable(timeout=30):
            raise JournalUnavailable(f"{ref} was not moved", cause="what it builds on could not be saved to the disk")
        digest, raw = write_line(
            move, writer=self._journal.writer or new_writer(), seq=last + 1, prev=before.digest if before else None
        )
        make_folder(folder)
        if not self._create(folder / f"{last + 1:08}.jsonl", raw):
            raise self._conflict(ref, last + 1)
        return last + 1, digest

    def moves(self, ref: str) -> list[Move]:
        """A ref's moves in order, refused ones included; what cannot be read is left out (`fsck` names it)."""
        return list(self.moves_back(ref))[::-1]

    def moves_back(self, ref: str) -> Iterator[Move]:
        """A ref's moves, the last one first, each read when it is asked for."""
        return self._read_back(ref, self._numbers(self._ref(ref)))

    def _read_back(self, ref: str, numbers: Iterable[int]) -> Iterator[Move]:
        folder = self._ref(ref)
        for number in sorted(numbers, reverse=True):
            with contextlib.suppress(OSError, RecordInvalid):
                line = _only_line(folder / f"{number:08}.jsonl")
                if isinstance(line.record, Transition) and line.record.ref == ref:
                    yield Move(number, line.digest, line.envelope.time, line.record)

    def taken(self, ref: str) -> int:
        """The last number of a ref that is taken, be it by a move that can not be read; 0 where there is none."""
        return max(self._numbers(self._ref(ref)), default=0)

    def head(self, ref: str) -> Digest | None:
        """Where a ref stands: `new` of its last move that was not refused."""
        return _head(self.moves_back(ref))

    def named(self, prefix: str = "") -> list[str]:
        """The names of all refs that begin so, sorted."""
        root = self.path / "refs"
        found = []
        for folder, _, files in os.walk(root):
            if any(_MOVE.fullmatch(name) for name in files):
                name = Path(folder).relative_to(root).as_posix()
                if name.startswith(prefix):
                    found.append(name)
        return sorted(found)

    def _ref(self, ref: str) -> Path:
        kind, *parts = ref.split("/")
        *folders, last = parts or [""]
        name, at, alias = last.partition("@")
        good = all(map(PART.fullmatch, (kind, *folders, name, *([alias] if at else []))))
        if not good or any(part.endswith(".jsonl") for part in (*folders, name, alias)):
            raise RefInvalid(
                f"{ref[:200]!r} is no name for a ref",
                cause="names are made of letters, digits, '.', '_' and '-', as in models/delays@production",
            )
        return self.path / "refs" / ref

    def _numbers(self, folder: Path) -> list[int]:
        return [int(found[1]) for name in names(folder) if (found := _MOVE.fullmatch(name))]

    def _conflict(self, ref: str, number: int) -> RefConflict:
        return RefConflict(
            f"{ref} was moved by somebody else", cause=f"move {number} is taken", next=f"mlops log {ref}"
        )

    def _create(self, path: Path, raw: bytes) -> bool:
        """Make a file that was not there, whole and on the disk; False if it was there."""
        temporary = self._objects.temporary()
        write(temporary, raw, durable=True)
        try:
            try:
                os.link(temporary, path)
            except FileExistsError:
                # A network file system may repeat a request whose answer was lost, and then deny it.
                if os.stat(temporary).st_nlink != 2 or not os.path.samefile(temporary, path):
                    return False
            except OSError:
                # No hard links here: exclusive creation, which a crash can leave half-written, but never twice taken.
                try:
                    write(str(path), raw, durable=True)
                except FileExistsError:
                    return False
        finally:
            os.unlink(temporary)
        try:
            for folder in path.relative_to(self.path).parents[:-1]:
                sync_folder(self.path / folder)
        except OSError as error:
            raise JournalUnavailable(
                "the ref was moved, and may stand where it stood after a power cut", cause=str(error),
                next="see `mlops doctor`",
            ) from error  # fmt: skip
        return True

    def numbers(self, ref: str) -> list[int]:
        """The numbers of a ref that are taken, in no order."""
        return self._numbers(self.path / "refs" / ref)

    def line(self, ref: str, number: int) -> Line:
        """One move's line, verified: `OSError` or `RecordInvalid` where it cannot be read."""
        return _only_line(self.path / "refs" / ref / f"{number:08}.jsonl")


def _head(back: Iterable[Move]) -> Digest | None:
    return next((move.transition.new for move in back if not move.transition.refused), None)


def _only_line(path: Path) -> Line:
    for at, raw in raw_lines(path):
        if at == 0:
            return read_line(raw)
    raise RecordInvalid("the file is empty")
