"""The cache of whole notebooks: finds a run on record that did what is asked for, and puts its result back.

A run is skipped where a run on record was asked for in the same words, and everything that one followed from
(`basis`) is what it was. Files are compared by content. What `stat` says of a file stands for its content only where
that content was seen under it before, and not within the file system's tick of a change: so data of equal size, written
in the same instant or given its old time of change back, is another. What was skipped leaves what a run leaves: files
that are gone are put back from the store; only by a result that this user kept on this machine (`seals`).
"""

from __future__ import annotations

import contextlib
import hmac
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops import seals
from jupyter_mlops.access.looking import kind_of, listing_of, stat_of
from jupyter_mlops.environment.loaded import Loaded, changed
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints.files import Signature, file_digest, folder_digest, racy, signature
from jupyter_mlops.objects import replace_file
from jupyter_mlops.pipelines.basis import (
    FORMAT,
    Basis,
    code_digest,
    machine_here,
    name_of,
    recorded,
    sealed,
    startup_files,
)
from jupyter_mlops.pipelines.parameters import read_notebook
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, Digest, RecordInvalid, decode, digest_of
from jupyter_mlops.store import SEEN

_MOST: Final = 20_000
"""Files that are remembered by what `stat` says of them."""
_CANDIDATES: Final = 20
"""Runs that are looked at, the newest first."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A digest, and the file it was made of by what `stat` said then."""

    signature: Signature
    at: int
    digest: Digest


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is asked for."""

    notebook: Path
    output: Path
    parameters: Mapping[str, Any] = {}
    kernel: str = "python3"
    cwd: Path
    environ: Mapping[str, str]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache says to a run that is asked for.

    Attributes
    ----------
    run
        The run whose result stands for it; None where it has to run.
    why
        Why it has to.
    output
        The output notebook of that run.
    back
        What is to be put back: each with the path where it goes.
    notes
        What to know of that result.
    """

    run: Digest | None = None
    why: str = ""
    output: Artifact | None = None
    back: list[tuple[Path, Artifact]] = []
    notes: list[str] = []
    basis: Basis | None = None


class Cache:
    """Answers for the runs of one project; it remembers files between calls, and with `close` between processes."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._file = project.store.path / SEEN
        self._seen: dict[str, Seen] = _read_seen(self._file)
        self._fresh = False
        self.looked_at: dict[str, tuple[Signature, int]] = {}
        """Each file and folder that an answer was drawn from, by what `stat` said before it was looked at, and when."""
        self.absent: set[str] = set()
        """Paths that an answer was drawn from because nothing is there."""
        self.variables: set[str] = set()
        """Variables of the process that cells had read by name."""
        self._now: dict[str, Digest | None] = {}
        self._root = os.path.abspath(project.root)
        self._loaded: dict[Digest, str] = {}
        self._machine_here = ""
        self._key = b""
        self._looked: dict[str, bool] = {}
        self._variables: dict[tuple[str, ...], dict[str, str]] = {}

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def name(self, asked: Asked) -> Digest:
        """What runs that may stand for this one are found by."""
        relative = self.project.relative
        return name_of(relative(asked.notebook), asked.parameters, asked.kernel, relative(asked.cwd))

    def answer(self, asked: Asked) -> Answer:
        """Whether a run's result is on record; nothing is changed."""
        return self.answers([asked])[0]

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer several at once, as if none of them were run."""
        names = [self.name(one) for one in asked]
        known = self.project.store.bases(names)
        return [self._answer(one, known[name]) for one, name in zip(asked, names, strict=True)]

    def _answer(self, asked: Asked, known: Sequence[tuple[Digest, Digest]]) -> Answer:
        first = ""
        for run, digest in known[:_CANDIDATES]:
            try:
                basis = decode(self.project.store.get(digest), Basis)
                why = self._differs(asked, basis) or self._unsealed(basis, run, self.name(asked))
                back = [] if why else self._to_put_back(asked, basis)
            except (MlopsError, OSError) as error:
                why, back = f"what it follows from cannot be read: {error}", []
            missing = next((one for _, one in back if not self._at_hand(one)), None)
            if not why and missing is not None:
                why = f"{missing.name} is gone, and its bytes are not at hand ({missing.why or 'the store lacks them'})"
            if not why:
                return Answer(run=run, output=basis.output, back=back, notes=basis.notes, basis=basis)
            first = first or why
        return Answer(why=first or "no run like it is on record")

    def put_back(self, answer: Answer) -> list[str]:
        """Put what is gone back where it was; the names of it."""
        done = []
        for path, one in answer.back:
            if one.type == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue  # its files are what is put back
            if one.type == "absent":
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            elif one.digest is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, [self.project.store.get(one.digest)], durable=False)
            self._now.pop(f"file\0{path}", None)
            done.append(self.project.relative(path))
        return done

    def forget(self) -> None:
        """Look at files anew from here on; what is remembered of them by `stat` stays."""
        self._now.clear()

    def _at(self, name: str) -> str:
        """The path of a name of the record, as `Project.path` has it, in a fraction of the time that a `Path` takes."""
        return (
            str(self.project.path(name)) if name.startswith("~/") or os.sep != "/" else os.path.join(self._root, name)
        )

    def _note(self, path: str | Path) -> None:
        """Note what `stat` says of something that is about to be looked at."""
        name = os.fspath(path)
        if name in self.looked_at:
            return
        at = time.time_ns()
        try:
            self.looked_at[name] = signature(os.stat(name)), at
        except OSError:
            self.absent.add(name)

    def close(self) -> None:
        """Write down what is known of files by now."""
        if self._fresh:
            self._fresh = False
            _write_seen(self._file, self._seen)

    # -- what is as it was -------------------------------------------------------------------------------------------

    def _differs(self, asked: Asked, basis: Basis) -> str:
        """Why a run would not do what another did; empty where it would."""
        if basis.format != FORMAT:
            return "it was recorded by another version"
        if basis.never:
            more = len(basis.never) - 1
            return f"it is never skipped: {basis.never[0]}" + (f" (and {more} more)" if more else "")
        if self.digest("code", asked.notebook) != basis.code:
            return "the notebook's code has changed"
        why = self._otherwise_loaded(basis)
        if why:
            return why
        for one in basis.read:
            if self.digest(_kind(one), self._path(one.name, basis)) != one.digest:
                return f"{one.name} has changed"
        why = self._otherwise_found(basis)
        if why:
            return why
        now = self._recorded(asked.environ, basis.asked)
        other = sorted(name for name in {*now, *basis.variables} if now.get(name) != basis.variables.get(name))
        if other:
            name = other[0].removeprefix("read:")
            return "variables of the process have changed" if name == "*" else f"the variable {name} has changed"
        return ""

    def _unsealed(self, basis: Basis, run: Digest, name: Digest) -> str:
        """Why a result is not this user's own, made on this machine; empty where it is."""
        if not self._key:
            self._key = seals.local_key()
        if hmac.compare_digest(sealed(basis, run, name, self._key).encode(), basis.seal.encode()):
            return ""
        return "its result was not kept by this user on this machine"

    def _otherwise_found(self, basis: Basis) -> str:
        """Why a run would find other things where another looked; empty where it would not."""
        for name, was in basis.kinds.items():
            path = self._at(name)
            self._note(path)
            kind = kind_of(path)
            if kind != was:
                return f"{name} is {'gone' if not kind else 'there now' if not was else f'a {kind} now'}"
        for name, listed in basis.listings.items():
            path = self._at(name)
            self._note(path)
            if listing_of(path) != listed:
                return f"other files are in {name}"
        for name, (size, changed_at) in basis.stats.items():
            path = self._at(name)
            self._note(path)
            now = stat_of(path)
            if now[0] != size or (changed_at and now[1] != changed_at):
                return f"{name} has another size or time of change"
        return ""

    def _otherwise_loaded(self, basis: Basis) -> str:
        kernel, path = basis.kernel, self.project.path
        assert kernel is not None
        assert basis.loaded is not None
        for name in kernel.earlier:
            self._note(path(name))
            if os.path.exists(path(name)):
                return "the kernel's name means another one now"
        if self.digest("file", path(kernel.spec.name)) != kernel.spec.digest:
            return f"{kernel.spec.name} has changed"
        if self._startup() != {one.name: one.digest for one in kernel.startup}:
            return "what IPython runs in every kernel has changed"
        if self._machine() != kernel.machine:
            return "it ran on another machine"
        if basis.loaded not in self._loaded:
            was = decode(self.project.store.get(basis.loaded), Loaded)
            for name in (*(file.name for file in was.files), *(folder for folder, _ in (*was.packages, *was.beside))):
                self._note(self._at(name))
            why = ""
            if kernel.here and was.program != self.project.relative(sys.executable):
                why = f"it ran in another Python ({was.program})"
            self._loaded[basis.loaded] = why or changed(was, self._at, self._looked)
        return self._loaded[basis.loaded]

    def _startup(self) -> dict[str, Digest | None]:
        files = startup_files(self.project.environ)
        self._note(files[-1].parent / "startup")
        return {self.project.relative(one): digest for one in files if (digest := self.digest("file", one)) is not None}

    def _machine(self) -> str:
        if not self._machine_here:
            self._machine_here = machine_here()
        return self._machine_here

    def _recorded(self, environ: Mapping[str, str], asked: Sequence[str]) -> dict[str, str]:
        key = tuple(asked)
        self.variables.update(asked)
        if key not in self._variables:
            self._variables[key] = recorded(environ, asked, self.project.redactor())
        return self._variables[key]

    def _path(self, name: str, basis: Basis) -> Path:
        if name.startswith("package:"):
            was = decode(self.project.store.get(basis.loaded or Digest("")), Loaded)
            for folder, _ in was.packages:
                found = self.project.path(folder) / name.removeprefix("package:")
                if found.exists():
                    return found
        return self.project.path(name)

    def digest(self, kind: str, path: Path) -> Digest | None:
        """The digest of a file as it is now, taken once: of its bytes, or of what is code in it."""
        key = f"{kind}\0{path}"
        if key not in self._now:
            self._now[key] = self._digest(key, kind, path)
        return self._now[key]

    def _digest(self, key: str, kind: str, path: Path) -> Digest | None:
        self._note(path)
        if kind == "folder":
            for folder, _, names in os.walk(path):
                self._note(folder)
                for name in names:
                    self._note(os.path.join(folder, name))
            return folder_digest(path).digest
        try:
            found = signature(os.stat(path))
        except OSError:
            return None
        known = self._seen.get(key)
        if known is not None and known.signature == found and not racy(found, known.at):
            return known.digest
        at = time.time_ns()
        made = _MAKE[kind](self, path)
        try:
            again = signature(os.stat(path))
        except OSError:
            return None
        if made is None or again != found:
            return made
        self._seen.pop(key, None)
        self._seen[key] = Seen(found, at, made)
        self._fresh = True
        return made

    def _of_bytes(self, path: Path) -> Digest | None:
        return file_digest(path).digest

    def _of_module(self, path: Path) -> Digest | None:
        from jupyter_mlops.git import masked_source

        try:
            return digest_of(masked_source(path.read_bytes(), self.project.redactor())[0])
        except OSError:
            return None

    def _of_code(self, path: Path) -> Digest | None:
        return code_digest(read_notebook(path), self.project.redactor())

    # -- what is there as it was -------------------------------------------------------------------------------------

    def _to_put_back(self, asked: Asked, basis: Basis) -> list[tuple[Path, Artifact]]:
        wanted = [(self.project.path(one.name), one) for one in basis.wrote]
        missing = [(path, Artifact(name=name, kind="file", type="folder"))
                   for name in basis.made if not (path := self.project.path(name)).is_dir()]  # fmt: skip
        if basis.output is not None:
            wanted.append((asked.output, basis.output))
        return [*missing, *((path, one) for path, one in wanted if self.digest("file", path) != one.digest)]

    def _at_hand(self, one: Artifact) -> bool:
        return one.type in ("absent", "folder") or (one.digest is not None and self.project.store.has(one.digest))


_MAKE: Final[Mapping[str, Callable[[Cache, Path], Digest | None]]] = {
    "file": Cache._of_bytes, "module": Cache._of_module, "code": Cache._of_code,
}  # fmt: skip


def _kind(one: Artifact) -> str:
    return "module" if one.kind == "module" else "folder" if one.type == "folder" else "file"


# -- what is remembered between processes ----------------------------------------------------------------------------


def _read_seen(path: Path) -> dict[str, Seen]:
    """What an earlier process knew of files; nothing where the file is not whole."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if head.decode() == digest_of(body):
            return decode(body, dict[str, Seen])
    except (OSError, RecordInvalid, UnicodeDecodeError):
        pass  # it is a convenience: all is looked at anew
    return {}


def _write_seen(path: Path, seen: Mapping[str, Seen]) -> None:
    kept = dict(_newest(seen.items()))
    body = msgspec.json.encode(kept)
    with contextlib.suppress(OSError):  # a store that is read-only, or full: the next process looks anew
        replace_file(path, [digest_of(body).encode(), b"\n", body], durable=False)


def _newest(items: Iterable[tuple[str, Seen]]) -> Iterable[tuple[str, Seen]]:
    listed = list(items)
    return listed[-_MOST:]
