"""A repository read as untrusted data: its state, what is not committed in it, and the files of a commit."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.git.program import GitFailed, command, run_git
from jupyter_mlops.records import Artifact, CodeState, Digest, Gap
from jupyter_mlops.redact import Redactor, clean_url

Put = Callable[[bytes], Digest]

FILE_CAP: Final = 256 * 1024
"""Bytes of one uncommitted file that are kept at most."""
TOTAL_CAP: Final = 2 * 1024 * 1024
"""Bytes of all uncommitted files together."""
_FILES: Final = 500
_TREE: Final = 256 * 1024 * 1024
_CREDENTIALS: Final = re.compile(
    r"\.env(?:\..*)?|\.?netrc|\.git-credentials|\.pypirc|\.npmrc|\.pgpass|\.htpasswd|id_(?:rsa|dsa|ecdsa|ed25519)|"
    r".*\.(?:pem|key|p12|pfx|jks|keystore|kdbx)|(?:credentials|secrets?|service[-_]account)(?:\..*)?",
    re.IGNORECASE,
)


class TreeFile(msgspec.Struct, frozen=True):
    """A file of a commit: its path below the repository's root, git's mode, the name of its bytes, their count."""

    path: str
    mode: str
    digest: str
    size: int


class Repository(msgspec.Struct, frozen=True, eq=False):
    """A git repository, found without running anything.

    Attributes
    ----------
    root
        The working tree's top folder; of a bare repository, the repository itself.
    git_dir
        Where HEAD and the index are.
    common_dir
        Where references and the configuration are: another folder than `git_dir` in a linked worktree.
    """

    root: Path
    git_dir: Path
    common_dir: Path
    bare: bool = False
    _seen: dict[str, tuple[tuple[int, ...], Artifact]] = msgspec.field(default_factory=dict)

    @classmethod
    def find(cls, path: Path) -> Repository | None:
        """The repository that holds a path, or None."""
        try:
            start = Path(os.path.realpath(path))
        except (OSError, ValueError):
            return None  # a path that cannot be resolved lies in no repository
        for folder in (start, *start.parents):
            mark = folder / ".git"
            git_dir = mark if mark.is_dir() else _linked(mark) if mark.is_file() else None
            if git_dir is not None and _is_git_dir(git_dir):
                return cls(folder, git_dir, _common(git_dir))
            if _is_git_dir(folder) and (folder / "objects").is_dir() and (folder / "refs").is_dir():
                return cls(folder, folder, folder, bare=True)
        return None

    def stamp(self) -> tuple[Any, ...]:
        """What a few ``stat`` calls tell of HEAD, index, branch and configuration: equal while none of them moved."""
        head = _small(self.git_dir / "HEAD")
        return (
            head,
            *(
                _times(path)
                for path in (
                    f"{self.git_dir}/index", f"{self.common_dir}/packed-refs", f"{self.common_dir}/config",
                    f"{self.common_dir}/{head[5:].strip()}" if head.startswith("ref: refs/") else "",
                    f"{self.common_dir}/reftable/tables.list",
                )
            ),
        )  # fmt: skip

    def state(self, redactor: Redactor, put: Put, *, cap: int = FILE_CAP, total: int = TOTAL_CAP) -> CodeState:
        """Read the state of the code: commit, branch, remote, and what is not committed.

        Parameters
        ----------
        redactor
            Masks secrets in everything that is kept.
        put
            Keeps bytes as an object and returns their digest.
        cap, total
            Bytes of one file, and of all together, that are kept at most.

        Returns
        -------
        CodeState
            Without local modules (see `local_modules`). What could not be read or was left out is among its gaps.
        """
        gaps: list[Gap] = []
        try:
            config = self._config()
        except GitFailed as error:
            commit, branch = self._head()
            return CodeState(commit=commit, branch=branch, gaps=[Gap(subject="code", reason=str(error))])
        filters = _filters(config)
        entries = self._status(filters, gaps)
        commit, branch = entries.commit, entries.branch
        if not commit and not branch:
            commit, branch = self._head()
        keeper = _Keeper(self, redactor, put, cap, total)
        dirty = [keeper.artifact(path, what) for path, what in entries.paths[:_FILES]]
        if len(entries.paths) > _FILES:
            gaps.append(
                Gap(subject="code", reason=f"{len(entries.paths) - _FILES:,} more uncommitted files are not listed")
            )
        gaps += keeper.gaps()
        gaps += self._submodules()
        return CodeState(
            commit=commit, branch=redactor.text(branch)[0], remote=redactor.text(_remote(config, branch))[0],
            dirty=dirty, gaps=gaps,
        )  # fmt: skip

    def tracked(self) -> list[str]:
        """The files that git has in its index, from the working tree's root.

        Raises
        ------
        GitFailed
            Git does not say.
        """
        raw = run_git(self.root, "ls-files", "-z", "--cached", seconds=60, most=_TREE)
        return [path.decode("utf-8", "surrogateescape") for path in raw.split(b"\0") if path]

    def tree(self, commit: str) -> list[TreeFile]:
        """The files of a commit, as they are stored: no filter, no attribute, no conversion of line ends.

        Raises
        ------
        GitFailed
            The repository does not have that commit.
        """
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            raise GitFailed("this is no commit", cause=repr(commit[:80]))
        words = ("ls-tree", "-r", "-z", "-l", "--full-tree", f"{commit}^{{commit}}")
        raw = run_git(self.root, *words, seconds=60, most=_TREE)
        found = []
        for entry in raw.split(b"\0"):
            head, tab, path = entry.partition(b"\t")
            if tab:
                mode, _, digest, size = head.decode("ascii", "replace").split()
                found.append(
                    TreeFile(path.decode("utf-8", "surrogateescape"), mode, digest, int(size) if size != "-" else 0)
                )
        return found

    def blobs(self, files: Sequence[TreeFile]) -> Iterator[tuple[TreeFile, bytes | None]]:
        """The bytes of a commit's files, one after the other; None for one that the repository lacks."""
        words, variables = command(self.root, ("cat-file", "--batch"), ())
        with subprocess.Popen(
            words, cwd=self.root, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            for file in files:
                with contextlib.suppress(BrokenPipeError):  # it has ended: there is no answer either
                    process.stdin.write(f"{file.digest}\n".encode())
                    process.stdin.flush()
                told = process.stdout.readline().split()
                if len(told) == 3 and told[1] == b"blob":
                    data = process.stdout.read(int(told[2]))
                    process.stdout.read(1)
                    yield file, data
                else:
                    yield file, None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _config(self) -> dict[str, str]:
        """The configuration as git reads it: the last value of each key."""
        raw = run_git(self.root, "config", "--list", "-z", "--includes", seconds=5)
        config: dict[str, str] = {}
        for entry in raw.decode("utf-8", "surrogateescape").split("\0"):
            key, _, value = entry.partition("\n")
            if key:
                config[key] = value
        return config

    def _status(self, filters: list[str], gaps: list[Gap]) -> _Status:
        if self.bare:
            return _Status(*self._head(), [])
        words = ("status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=dirty")
        for untracked in ("all", "no"):
            try:
                raw = run_git(self.root, *words, f"--untracked-files={untracked}", filters=filters)
            except GitFailed as error:
                gaps.append(
                    Gap(
                        subject="code",
                        reason=f"{'untracked' if untracked == 'all' else 'uncommitted'} files are not listed: {error}",
                    )
                )
                continue
            return _parse(raw)
        return _Status(*self._head(), [])

    def _head(self) -> tuple[str, str]:
        """Commit and branch, read from the files themselves: for when there is no ``git``."""
        head = _small(self.git_dir / "HEAD").strip()
        if not head.startswith("ref: "):
            return (head if re.fullmatch(r"[0-9a-f]{40,64}", head) else ""), ""
        ref = head[5:].strip()
        if not re.fullmatch(r"refs/(?!.*\.\.)[^\s~^:?*\[\\]{1,1000}", ref) or "/." in ref:
            return "", ""
        commit = _small(self.common_dir / ref).strip()
        if not commit:
            packed = re.search(
                rf"^([0-9a-f]{{40,64}}) {re.escape(ref)}$",
                _small(self.common_dir / "packed-refs", 1 << 24),
                re.MULTILINE,
            )
            commit = packed[1] if packed else ""
        return (commit if re.fullmatch(r"[0-9a-f]{40,64}", commit) else ""), ref.removeprefix("refs/heads/")

    def _submodules(self) -> list[Gap]:
        text = _small(self.root / ".gitmodules", 1 << 20) if not self.bare else ""
        paths = re.findall(r"^\s*path\s*=\s*(.+?)\s*$", text, re.MULTILINE)
        return [
            Gap(
                subject=path[:200],
                reason="a submodule: its commit is part of this one, changes inside it are not looked at",
            )
            for path in paths[:20]
        ]


def _linked(mark: Path) -> Path | None:
    """Where a ``.git`` file points: worktrees and submodules have one."""
    text = _small(mark)
    if not text.startswith("gitdir: "):
        return None
    return Path(os.path.normpath(mark.parent / text[8:].strip()))


def _common(git_dir: Path) -> Path:
    text = _small(git_dir / "commondir").strip()
    return Path(os.path.normpath(git_dir / text)) if text else git_dir


def _is_git_dir(folder: Path) -> bool:
    head = _small(folder / "HEAD")
    return head.startswith("ref: ") or re.fullmatch(r"[0-9a-f]{40,64}\s*", head) is not None


def _small(path: Path, size: int = 4096) -> str:
    """The beginning of a regular file; empty when it is anything else."""
    data = read_bytes(str(path), size, follow=True)
    return data.decode("utf-8", "surrogateescape") if data else ""


def read_bytes(path: str, size: int, *, follow: bool = False) -> bytes | None:
    """Up to `size` bytes of a regular file, or None; never waits on a pipe or follows a link put in its place."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError):
        return None  # gone, unreadable, or a link: the caller says so
    try:
        return os.read(descriptor, size) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None  # the disk failed or the file became unreadable: as above
    finally:
        os.close(descriptor)


def _times(path: str) -> tuple[int, ...]:
    try:
        told = os.stat(path)
    except (OSError, ValueError):
        return ()  # most repositories lack some of these files
    return told.st_mtime_ns, told.st_size, told.st_ino


def _filters(config: dict[str, str]) -> list[str]:
    names = {key[len("filter.") :].rpartition(".")[0] for key in config if key.startswith("filter.")}
    return sorted(name for name in names if name)


def _remote(config: dict[str, str], branch: str) -> str:
    """The address of the branch's remote, or of ``origin``, or of the only one; without credentials."""
    urls = {
        key[len("remote.") : -len(".url")]: value
        for key, value in config.items()
        if key.startswith("remote.") and key.endswith(".url")
    }
    for name in (config.get(f"branch.{branch}.remote", ""), "origin", *(urls if len(urls) == 1 else ())):
        if name in urls:
            return clean_url(urls[name])
    return ""


# -- what is not committed -------------------------------------------------------------------------------------------


class _Status(msgspec.Struct, frozen=True):
    commit: str
    branch: str
    paths: list[tuple[str, str]]


def _parse(raw: bytes) -> _Status:
    """Read ``status --porcelain=v2 --branch -z``."""
    commit = branch = ""
    paths: list[tuple[str, str]] = []
    for entry in raw.decode("utf-8", "surrogateescape").split("\0"):
        kind, _, rest = entry.partition(" ")
        if kind == "#":
            key, _, value = rest.partition(" ")
            if key == "branch.oid" and value != "(initial)":
                commit = value
            elif key == "branch.head" and value != "(detached)":
                branch = value
        elif kind == "?":
            paths.append((rest, "untracked"))
        elif kind in ("1", "u"):
            fields = rest.split(" ", 7 if kind == "1" else 9)
            states, submodule, path = fields[0], fields[1], fields[-1]
            what = (
                "submodule" if submodule[:1] == "S" else "deleted" if states[1] == "D" or states == "D." else "modified"
            )
            paths.append(
                (path, "conflict" if kind == "u" else "added" if states[0] == "A" and what == "modified" else what)
            )
    return _Status(commit, branch, paths)


class _Keeper:
    """Keeps the texts of uncommitted files within the caps, and counts what is left out."""

    def __init__(self, repository: Repository, redactor: Redactor, put: Put, cap: int, total: int) -> None:
        self._root, self._seen = str(repository.root), repository._seen
        self._redactor, self._put, self._cap, self._left = redactor, put, cap, total
        self._omitted: dict[str, list[str]] = {}

    def artifact(self, path: str, what: str) -> Artifact:
        name = self._redactor.text(path)[0]
        if what == "deleted":
            return Artifact(name=name, kind="file", type=what, why="deleted")
        if what == "submodule":
            return Artifact(name=name, kind="file", type=what, why="a submodule at another commit")
        base = path.rpartition("/")[2]
        if _CREDENTIALS.fullmatch(base):
            return self._omit(name, what, "holds credentials")
        if base.endswith(".ipynb"):
            return Artifact(name=name, kind="file", type=what, why="a notebook: its cells are recorded as they run")
        return self._kept(path, name, what)

    def _kept(self, path: str, name: str, what: str) -> Artifact:
        full = os.path.join(self._root, path)
        try:
            told = os.lstat(full)
            inside = os.path.realpath(os.path.dirname(full))
        except (OSError, ValueError):
            return self._omit(name, what, "could not be read")
        stamp = (told.st_mtime_ns, told.st_ctime_ns, told.st_size, told.st_ino)
        seen = self._seen.get(path)
        if seen is not None and seen[0] == stamp and seen[1].type == what:
            self._left -= seen[1].size or 0
            return seen[1]
        if not stat.S_ISREG(told.st_mode):
            return self._omit(name, what, "is no regular file")
        if inside != self._root and not inside.startswith(self._root + os.sep):
            return self._omit(name, what, "lies outside, behind a link")
        if told.st_size > self._cap:
            return self._omit(name, what, f"is larger than {self._cap >> 10:,} KB", told.st_size)
        if told.st_size > self._left:
            return self._omit(name, what, "would make more than is kept in all", told.st_size)
        data = read_bytes(full, self._cap + 1)
        if data is None or len(data) > self._cap:
            return self._omit(name, what, "changed while it was read")
        if b"\0" in data[:8192]:
            return self._omit(name, what, "is no text", len(data))
        kept = keep(name, "file", what, data, self._redactor, self._put)
        self._left -= len(data)
        if time.time_ns() - max(stamp[:2]) > 50_000_000:  # one that just changed may change again unseen
            self._seen[path] = (stamp, kept)
        return kept

    def _omit(self, name: str, what: str, why: str, size: int | None = None) -> Artifact:
        self._omitted.setdefault(why, []).append(name)
        return Artifact(name=name, kind="file", type=what, size=size, why=f"not kept: {why}")

    def gaps(self) -> list[Gap]:
        """One gap for each reason, with the first names."""
        found = []
        for why, names in self._omitted.items():
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            found.append(Gap(subject="code", reason=f"not kept since it {why}: {', '.join(names[:5])}{more}"))
        return found


def holds_credentials(name: str) -> bool:
    """Whether a file has a name that files of secrets have."""
    return _CREDENTIALS.fullmatch(name.rpartition("/")[2]) is not None


def masked_source(data: bytes, redactor: Redactor) -> tuple[bytes, int]:
    """A source file as the record has it, with its secrets masked, and how many there were."""
    text, count = redactor.text(data.decode("utf-8", "surrogateescape"))
    return text.encode("utf-8", "surrogateescape"), count


def keep(name: str, kind: str, type_: str, data: bytes, redactor: Redactor, put: Put) -> Artifact:
    """Keep a file's text as an object, without the secrets in it."""
    masked, count = masked_source(data, redactor)
    return Artifact(
        name=name, kind=kind, type=type_, digest=put(masked), size=len(masked), stored=True,
        why=f"{count} secret{'s' * (count > 1)} masked" if count else "",
    )  # fmt: skip
