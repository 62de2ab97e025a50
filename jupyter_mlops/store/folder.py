"""The store itself: one folder, opened or made, and its parts behind one door."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from blake3 import blake3

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.index import Index
from jupyter_mlops.journal import Adopted, Journal, sync_folder
from jupyter_mlops.objects import Objects, write_new
from jupyter_mlops.records import FORMAT, Digest, Erased, Record, Transition, now
from jupyter_mlops.store.questions import Questions
from jupyter_mlops.store.refs import PART, Move, Refs
from jupyter_mlops.store.upkeep import Erasure, Problem, Upkeep


class StoreMissing(MlopsError, FileNotFoundError):
    """There is no store at that place."""


class StoreFormat(MlopsError, ValueError):
    """What stands there is no store, or one of a later format."""


class Store(Questions):
    """A store, as `Store.create` and `Store.open` give it. Threads may share it, and a forked child may go on using it.

    Attributes
    ----------
    path
        The store's folder.
    id
        What tells this store from others; a copy has the same.
    """

    def __init__(self, path: Path, id: str) -> None:
        super().__init__(path, Index(path, lambda: _elsewhere(id, path)))
        self.id = id
        self._journal = Journal(path)
        self._objects = Objects(path, self._journal, self._erasure)
        self._refs = Refs(path, self._journal, self._objects)

    @classmethod
    def create(cls, path: Path) -> Store:
        """Make a store, or open the one that is there.

        Raises
        ------
        StoreFormat
            The folder holds something else, or a store of a later format.
        """
        path = Path(path).absolute()
        if not (path / "format").exists():
            try:
                new = [one for one in (path, *path.parents) if not one.exists()]
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
                for name in ("objects", "journal", "refs", "tmp"):
                    (path / name).mkdir(mode=0o700, exist_ok=True)
                    (path / name).chmod(0o700)
                facts = {"format": FORMAT, "id": secrets.token_hex(16), "created": now()}
                for name, text in ((".gitignore", "*\n"), ("format", json.dumps(facts) + "\n")):
                    write_new(path, name, text.encode())
                for folder in (path, *(one.parent for one in new)):
                    sync_folder(folder)
            except OSError as error:
                raise StoreMissing(f"no store can be made at {path}", cause=str(error)) from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a store.

        Raises
        ------
        StoreMissing
            There is none.
        StoreFormat
            It is none, or of a later format.
        """
        path = Path(path).absolute()
        try:
            facts = json.loads((path / "format").read_bytes()[:65536])
            version, name = int(facts["format"]), str(facts["id"])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreMissing(f"there is no store at {path}", next="mlops init") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreFormat(f"{path} is not a store", cause="its file `format` cannot be read") from error
        if version > FORMAT:
            raise StoreFormat(
                f"the store at {path} has format {version}", cause=f"this version reads up to {FORMAT}",
                next="pip install --upgrade jupyter-mlops",
            )  # fmt: skip
        return cls(path, name)

    def close(self) -> None:
        """Seal this process's journal and let go of the index. The store may still be used, and opens them anew."""
        self._journal.close()
        self._index.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- objects ---------------------------------------------------------------------------------------------------

    def put(
        self,
        data: bytes | bytearray | memoryview | Path,
        *,
        durable: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Digest:
        """Keep bytes, or the content of a file, and say their name. See `Objects.put`."""
        return self._objects.put(data, durable=durable, check=check)

    def get(self, digest: Digest) -> bytes:
        """Read an object, verified: `ObjectMissing` or `ObjectDamaged` where that fails."""
        return self._objects.get(digest)

    def read_into(self, digest: Digest, memory: memoryview) -> None:
        """See `Objects.read_into`."""
        self._objects.read_into(digest, memory)

    def has(self, digest: Digest) -> bool:
        """Whether the object is here; its bytes are not read."""
        return self._objects.has(digest)

    def size(self, digest: Digest) -> int:
        """How many bytes an object has; `ObjectMissing` where it is not here."""
        return self._objects.size(digest)

    def objects(self) -> Iterator[Digest]:
        """The name of every object, in no order."""
        return iter(self._objects)

    def _erasure(self, digest: Digest) -> tuple[str, Erased] | None:
        return next(((time, one) for _, time, one in self.records(Erased) if one.object == digest), None)

    # -- records ---------------------------------------------------------------------------------------------------

    def append(self, record: Record, *, time: str | None = None, wait: float = 0.05) -> Digest:
        """Write a record; on return it survives the death of this process. See `Journal.append`.

        Raises
        ------
        JournalUnavailable
            The line could not be captured within `wait` seconds.
        """
        return self._journal.append(record, time=time, wait=wait)

    def adopt(self, writer: str) -> Adopted:
        """Begin to bring a journal of another store into this one. See `Adopted`."""
        return Adopted(self.path, writer)

    def durable(self, *, timeout: float | None = None) -> bool:
        """Wait until everything put and appended so far would survive a power cut; False if that cannot be said."""
        return self._journal.durable(timeout=timeout)

    @property
    def pending(self) -> int:
        """Lines and objects captured and not yet durable."""
        return self._journal.pending

    @property
    def writer(self) -> str | None:
        """The journal this process writes, once it has."""
        return self._journal.writer

    @property
    def problems(self) -> list[str]:
        """What went wrong in this process's writing, in words."""
        return list(self._journal.problems)

    # -- refs ------------------------------------------------------------------------------------------------------

    def move(self, ref: str, move: Transition, *, expect: int | None = None) -> tuple[int, Digest]:
        """Add a move to a ref; everything appended before is made durable first, and so is the move. See `Refs.move`.

        Raises
        ------
        RefConflict
            Another move came first, or `move.old` is not where the ref stands.
        """
        return self._refs.move(ref, move, expect=expect)

    def moves(self, ref: str) -> list[Move]:
        """A ref's moves in order, refused ones included; what cannot be read is left out (`fsck` names it)."""
        return self._refs.moves(ref)

    def moves_back(self, ref: str) -> Iterator[Move]:
        """A ref's moves, the last one first, each read when it is asked for."""
        return self._refs.moves_back(ref)

    def taken(self, ref: str) -> int:
        """The last number of a ref that is taken, be it by a move that can not be read; 0 where there is none."""
        return self._refs.taken(ref)

    def head(self, ref: str) -> Digest | None:
        """Where a ref stands: `new` of its last move that was not refused."""
        return self._refs.head(ref)

    def refs(self, prefix: str = "") -> list[str]:
        """The names of all refs that begin so, sorted."""
        return self._refs.named(prefix)

    # -- keeping it ------------------------------------------------------------------------------------------------

    def reindex(self) -> int:
        """Build the index anew, and say how many lines it holds."""
        return self._index.rebuild()

    @property
    def index_folder(self) -> Path | None:
        """Where the index is kept: the store's folder, or where that cannot hold it the user's own; None: in memory."""
        return self._index.folder()

    def fsck(self, *, read_data: bool = True) -> list[Problem]:
        """Read everything and name what is not as it was written. See `Upkeep.fsck`."""
        return self._upkeep.fsck(read_data=read_data)

    def repair(self) -> list[Problem]:
        """Move what is damaged out of the way, deleting nothing, and build the index anew. See `Upkeep.repair`."""
        return self._upkeep.repair()

    def erase(
        self, fields: Mapping[Digest, Collection[str]], objects: Collection[Digest] = (), *, by: str = "",
        reason: str = "",
    ) -> Erasure:  # fmt: skip
        """Remove free fields of lines, and objects, for good; that it was done is on record. See `Upkeep.erase`."""
        return self._upkeep.erase(fields, objects, by=by, reason=reason)

    @property
    def _upkeep(self) -> Upkeep:
        return Upkeep(self.path, self._journal, self._objects, self._refs, self._index, self)


def _elsewhere(id: str, path: Path) -> Path:
    """The user's own folder for the index of a store that cannot hold it."""
    import platformdirs

    place = blake3(os.fsencode(path)).hexdigest()[:16]
    name = id if PART.fullmatch(id) else "unnamed"
    return Path(platformdirs.user_state_dir("jupyter-mlops", appauthor=False)) / "index" / f"{name}-{place}"
