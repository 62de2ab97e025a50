"""Keeping a store: everything read and held against its name, damage set aside, and what must go erased for good."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from jupyter_mlops.index import Index, key
from jupyter_mlops.journal import Journal, JournalUnavailable, alive, raw_lines, sync_folder
from jupyter_mlops.objects import Objects, names, write
from jupyter_mlops.records import (
    Digest,
    Erased,
    RecordInvalid,
    Transition,
    digest_of,
    erase_fields,
    read_line,
    short,
)  # fmt: skip
from jupyter_mlops.store.questions import Questions
from jupyter_mlops.store.refs import Refs

SEEN: Final = "seen.json"
"""What is remembered of files between processes, beside the store's own: it may be deleted at any time."""


class Problem(msgspec.Struct, frozen=True):
    """Something `fsck` found: ``damage`` means that facts are lost or untrue, ``note`` that all is as it should be."""

    where: str
    what: str
    severity: str = "damage"
    next: str = ""


class Erasure(msgspec.Struct, frozen=True):
    """What `Store.erase` did.

    Attributes
    ----------
    lines
        Lines that lost fields.
    objects
        Objects that are gone.
    waiting
        Lines that were left as they are, by the journal they stand in: another process still writes it.
    """

    lines: tuple[Digest, ...] = ()
    objects: tuple[Digest, ...] = ()
    waiting: dict[str, tuple[Digest, ...]] = {}


class Upkeep:
    """What is done to a store as a whole; its parts are those that `Store` is made of."""

    def __init__(
        self, path: Path, journal: Journal, objects: Objects, refs: Refs, index: Index, questions: Questions
    ) -> None:
        self.path, self._journal, self._objects, self._refs = path, journal, objects, refs
        self._index, self._questions = index, questions

    def fsck(self, *, read_data: bool = True) -> list[Problem]:
        """Read everything and name what is not as it was written.

        Parameters
        ----------
        read_data
            Whether to read the objects' bytes too, not only their names and sizes.

        Returns
        -------
        list of Problem
            Damage, and notes on what only looks like it: torn tails, writers that ended without a seal. Empty: clean.
        """
        sound = self._index.sound()  # before anything asks the index, which builds a damaged one anew
        erased: dict[tuple[Digest, str], str] = {}
        found = list(self._fsck_journals(erased))
        found += self._fsck_refs(erased)
        found += self._fsck_erasures(erased)
        if not sound:
            found.append(Problem("index.sqlite", "the index is damaged, and is built anew when next used", "note"))
        for where, what in self._objects.damaged(read_data=read_data):
            found.append(Problem(where, what, next="mlops repair"))
        return found

    def repair(self) -> list[Problem]:
        """Move what is damaged out of the way, deleting nothing, and build the index anew.

        Damaged objects go to ``quarantine/``: the next `put` of their content writes them again. A journal's lines are
        left where they are; readers stop at the first bad one.

        Returns
        -------
        list of Problem
            What was found, and what has become of it.
        """
        done = []
        for problem in self.fsck():
            if problem.where.startswith("objects/"):
                place = self.path / "quarantine" / problem.where.replace("/", "-")
                try:
                    self._set_aside(self.path / problem.where, place)
                    problem = Problem(problem.where, f"{problem.what}; moved to quarantine/{place.name}")
                except OSError as error:
                    problem = Problem(problem.where, f"{problem.what}; could not be moved: {error}")
            done.append(problem)
        self._index.rebuild()
        return done

    def _set_aside(self, path: Path, place: Path) -> None:
        """Give a file another name, which lasts before the old one goes: no cut finds neither."""
        place.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            if not (place.exists() and os.path.samefile(path, place)):  # no hard links here, or older damage lies there
                os.replace(path, place)
        for folder in (place.parent, self.path):
            sync_folder(folder)
        path.unlink(missing_ok=True)

    def erase(
        self, fields: Mapping[Digest, Collection[str]], objects: Collection[Digest] = (), *, by: str = "",
        reason: str = "",
    ) -> Erasure:  # fmt: skip
        """Remove free fields of lines, and objects, for good. The erasure is on record before anything is removed.

        Envelopes, digests and chains stay as they are. Where this is cut short, the same call once more completes it.

        Parameters
        ----------
        fields
            Names of free fields, by the line that holds them; those already erased are passed over.
        by, reason
            Who does it, and why.

        Raises
        ------
        JournalUnavailable
            It could not be put on record: then nothing was removed.
        OSError
            A file could not be written anew; it is as it was.
        """
        places: dict[str, list[Digest]] = {}
        for digest, name in self._files_of(fields):
            places.setdefault(name, []).append(digest)
        mine = self._journal.writers
        waiting = {
            name: tuple(digests)
            for name, digests in places.items()
            if name.startswith("journal/") and Path(name).stem not in mine and alive(self.path / name)
        }
        for name in waiting:
            del places[name]
        for digests in places.values():
            for digest in digests:
                self._journal.append(Erased(line=digest, fields=sorted(fields[digest]), by=by, reason=reason))
        here = [digest for digest in objects if self._objects.has(digest) or self._quarantined(digest).exists()]
        for digest in here:
            self._journal.append(Erased(object=digest, by=by, reason=reason))
        if not self._journal.durable(timeout=30):
            raise JournalUnavailable("nothing was erased", cause="that it was could not be saved to the disk")
        for name, digests in places.items():
            if not self._rewrite(name, {digest: fields[digest] for digest in digests}):
                waiting[name] = tuple(digests)
        for digest in here:
            for path in (self._objects.place(digest), self._quarantined(digest)):
                path.unlink(missing_ok=True)
        for name in names(self.path):
            if name == SEEN or name.startswith("unchanged-"):
                (self.path / name).unlink(missing_ok=True)  # it has digests of files, or stands for what is gone
        self._index.rebuild()  # the old index knows names that may be gone now
        done = tuple(digest for name, digests in places.items() if name not in waiting for digest in digests)
        return Erasure(lines=done, objects=tuple(here), waiting=waiting)

    def _files_of(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, str]]:
        names_ = dict(self._index.ask("select id, name from files"))
        for digest in digests:
            for (file,) in self._index.ask("select file from lines where digest = ?", (key(digest),)):
                yield digest, names_[file]

    def _rewrite(self, name: str, fields: Mapping[Digest, Collection[str]]) -> bool:
        """Write a file of lines without some fields; False where another process writes it."""

        def without(raw: bytes) -> bytes:
            digest = digest_of(raw.partition(b"\t")[0])
            return erase_fields(raw, fields[digest]) if digest in fields else raw

        if name.startswith("journal/"):
            return self._journal.rewrite(Path(name).stem, without)
        temporary = self._objects.temporary()
        write(temporary, (without(raw) for _, raw in raw_lines(self.path / name)), durable=True)
        os.replace(temporary, self.path / name)
        sync_folder((self.path / name).parent)
        return True

    def _quarantined(self, digest: Digest) -> Path:
        return self.path / "quarantine" / f"objects-{digest[7:9]}-{digest[9:]}"

    def _fsck_erasures(self, erased: Mapping[tuple[Digest, str], str]) -> Iterator[Problem]:
        """Fields that are gone though no record says that somebody erased them."""
        said = {(one.line, field) for _, _, one in self._questions.records(Erased) for field in one.fields}
        for (digest, field), where in erased.items():
            if (digest, field) not in said:
                yield Problem(
                    where, f"field {field!r} of line {short(digest)} is gone, and no record says who erased it"
                )

    def _fsck_journals(self, erased: dict[tuple[Digest, str], str]) -> Iterator[Problem]:
        for name in sorted(names(self.path / "journal")):
            where = f"journal/{name}"
            if not name.endswith(".jsonl"):
                continue
            prev, seq, writer = None, 0, name.removesuffix(".jsonl")
            try:
                for at, raw in raw_lines(self.path / where):
                    if not raw.endswith(b"\n"):
                        if not alive(self.path / where):
                            yield Problem(where, f"the last line is cut short (byte {at})", "note")
                        break
                    line = read_line(raw)
                    envelope = line.envelope
                    if (envelope.prev, envelope.seq, envelope.writer) != (prev, seq, writer):
                        raise RecordInvalid("the line does not follow the one before it")
                    prev, seq = line.digest, seq + 1
                    erased.update(((line.digest, field), where) for field in line.erased)
            except (OSError, RecordInvalid) as error:
                yield Problem(
                    where, f"line {seq + 1} is unreadable, and so is what follows: {error}", next="mlops repair"
                )

    def _fsck_refs(self, erased: dict[tuple[Digest, str], str]) -> Iterator[Problem]:
        for ref in self._refs.named():
            before: tuple[int, Digest] | None = None
            for number in sorted(self._refs.numbers(ref)):
                where = f"refs/{ref}/{number:08}.jsonl"
                try:
                    line = self._refs.line(ref, number)
                    if not isinstance(line.record, Transition) or line.record.ref != ref:
                        raise RecordInvalid("the move is about something else")
                    if before is not None and before[0] == number - 1 and line.envelope.prev != before[1]:
                        raise RecordInvalid("the move does not follow the one before it")
                    before = (number, line.digest)
                    erased.update(((line.digest, field), where) for field in line.erased)
                except (OSError, RecordInvalid) as error:
                    yield Problem(where, f"the move is unreadable: {error}; its number stays taken")
