"""The state of the code around a notebook: commit, branch, remote, what was not committed, local modules by source.

A repository is read as untrusted data. Its own configuration can name programs, for file-system monitors, hooks,
filters, diffs, transports and credentials; the one function here that starts ``git`` switches every one of them off,
also those whose names only the repository knows (filters), and gives it fixed words only. Working files are read by
ourselves: regular files below the root, never through a link, redacted and capped before they are kept.

The ``git`` program is asked in a background thread. Between two cells a few ``stat`` calls tell whether HEAD, the
index or the branch moved; files that changed without either are noticed by the background within seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from jupyter_mlops.environment import program_variables
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.records import Artifact, CodeState, Digest, Gap
from jupyter_mlops.redact import Redactor, clean_url

Put = Callable[[bytes], Digest]

FILE_CAP: Final = 256 * 1024
"""Bytes of one uncommitted file that are kept at most."""
TOTAL_CAP: Final = 2 * 1024 * 1024
"""Bytes of all uncommitted files together."""
_FILES: Final = 500
_OUTPUT: Final = 16 * 1024 * 1024
_TREE: Final = 256 * 1024 * 1024
_SECONDS: Final = 10.0
_INTERVAL: Final = 5.0
_CREDENTIALS: Final = re.compile(
    r"\.env(?:\..*)?|\.?netrc|\.git-credentials|\.pypirc|\.npmrc|\.pgpass|\.htpasswd|id_(?:rsa|dsa|ecdsa|ed25519)|"
    r".*\.(?:pem|key|p12|pfx|jks|keystore|kdbx)|(?:credentials|secrets?|service[-_]account)(?:\..*)?",
    re.IGNORECASE,
)


class GitFailed(MlopsError, OSError):
    """The ``git`` program is absent, refused, or took too long."""


# -- the one place where git is started ------------------------------------------------------------------------------

# No word here comes from the user or the repository. A configuration key given on the command line wins over the
# repository's own; the protocols are denied as a whole, since a partial clone fetches what it lacks while it is read.
_WORDS: Final = (
    "--no-pager", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=keep",
    "-c", "core.sshCommand=false", "-c", "core.askPass=", "-c", "credential.helper=", "-c", "core.pager=cat",
    "-c", "protocol.allow=never", "-c", "protocol.ext.allow=never", "-c", "diff.external=",
    "-c", "submodule.recurse=false", "-c", "status.submoduleSummary=false", "-c", "status.showStash=false",
    "-c", "core.quotePath=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
)  # fmt: skip
_VARIABLES: Final = {
    "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1",
    "GIT_SSH_COMMAND": "false", "GIT_ASKPASS": "false", "SSH_ASKPASS": "false", "GIT_PAGER": "cat",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_FLUSH": "0",
}  # fmt: skip


def _git(
    folder: Path, *said: str, filters: Iterable[str] = (), seconds: float = _SECONDS, most: int = _OUTPUT
) -> bytes:
    """Run one fixed ``git`` command in a folder, with every program that a repository could name switched off.

    Parameters
    ----------
    folder
        Where; the search for a repository does not go above it.
    said
        The command; constants of this module, and digests that were checked to be such.
    filters
        The repository's names of filters, which are emptied through variables since a name may hold any character.
    seconds
        It is killed after these.

    Raises
    ------
    GitFailed
        It is not installed, refused, answered too much or took too long.
    """
    words, variables = _command(folder, said, filters)
    try:
        done = subprocess.run(
            words, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"git {said[0]} took more than {seconds:g} s") from error
    except (OSError, ValueError) as error:
        raise GitFailed("git could not be started", cause=type(error).__name__) from error
    if done.returncode != 0:
        raise GitFailed(f"git {said[0]} failed", cause=_complaint(done.stderr))
    if len(done.stdout) > most:
        raise GitFailed(f"git {said[0]} told more than {most >> 20} MB")
    return done.stdout


def _command(folder: Path, words: Iterable[str], filters: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """A command's words and variables, with every program that a repository could name switched off."""
    program = shutil.which("git")
    if program is None or not os.path.isabs(program):  # a relative one would be found in the repository itself
        raise GitFailed("git is not installed", next="install git to have commits on record")
    variables = program_variables() | _VARIABLES | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    pairs = [
        (f"filter.{name}.{key}", "false" if key == "required" else "")
        for name in filters
        for key in ("clean", "smudge", "process", "required")
    ]
    variables["GIT_CONFIG_COUNT"] = str(len(pairs))
    for number, (key, value) in enumerate(pairs):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return [program, *_WORDS, *words], variables


def _complaint(stderr: bytes) -> str:
    """What git said, without paths: it names the machine's folders."""
    text = stderr.decode("utf-8", "replace")
    if "dubious ownership" in text:
        return "the repository belongs to another user; see safe.directory in git's manual"
    first = text.strip().partition("\n")[0][:200]
    return re.sub(r"'[^']*'|/\S+", "…", first) or "it did not say why"


# -- a repository ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a commit: its path below the repository's root, git's mode, the name of its bytes, their count."""

    path: str
    mode: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Repository:
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
    _seen: dict[str, tuple[tuple[int, ...], Artifact]] = field(default_factory=dict, compare=False, repr=False)

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
        raw = _git(self.root, *words, seconds=60, most=_TREE)
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
        words, variables = _command(self.root, ("cat-file", "--batch"), ())
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
        raw = _git(self.root, "config", "--list", "-z", "--includes", seconds=5)
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
                raw = _git(self.root, *words, f"--untracked-files={untracked}", filters=filters)
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
    data = _bytes(str(path), size, follow=True)
    return data.decode("utf-8", "surrogateescape") if data else ""


def _bytes(path: str, size: int, *, follow: bool = False) -> bytes | None:
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


@dataclass(frozen=True, slots=True)
class _Status:
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
        data = _bytes(full, self._cap + 1)
        if data is None or len(data) > self._cap:
            return self._omit(name, what, "changed while it was read")
        if b"\0" in data[:8192]:
            return self._omit(name, what, "is no text", len(data))
        kept = _keep(name, "file", what, data, self._redactor, self._put)
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


def masked_source(data: bytes, redactor: Redactor) -> tuple[bytes, int]:
    """A source file as the record has it, with its secrets masked, and how many there were."""
    text, count = redactor.text(data.decode("utf-8", "surrogateescape"))
    return text.encode("utf-8", "surrogateescape"), count


def _keep(name: str, kind: str, type_: str, data: bytes, redactor: Redactor, put: Put) -> Artifact:
    masked, count = masked_source(data, redactor)
    return Artifact(
        name=name, kind=kind, type=type_, digest=put(masked), size=len(masked), stored=True,
        why=f"{count} secret{'s' * (count > 1)} masked" if count else "",
    )  # fmt: skip


# -- local modules ---------------------------------------------------------------------------------------------------


def local_modules(root: Path, redactor: Redactor, put: Put) -> list[Artifact]:
    """The loaded modules whose files lie in the project, by source.

    Parameters
    ----------
    root
        The project's folder; installed packages and virtual environments inside it do not count.
    redactor, put
        As for `Repository.state`.

    Returns
    -------
    list of Artifact
        ``kind`` is ``module``, ``type`` the module's name, ``name`` the path below the root.
    """
    global _last
    last = _last
    if last is None or not last.serves(root, redactor, put):
        last = _last = _Modules(root, redactor, put)
    return last.all()


class _Modules:
    """Local modules as they were loaded; new and reloaded ones are noticed for microseconds."""

    def __init__(self, root: Path, redactor: Redactor, put: Put) -> None:
        self._root = os.path.realpath(root)
        self._redactor, self._put = redactor, put
        self._count = -1
        self._looked: set[str] = set()
        self._specs: dict[str, int] = {}
        self._found: dict[str, Artifact] = {}
        self._environments: dict[str, bool] = {}
        self._folders: dict[str, str] = {}
        self._own = os.path.dirname(os.path.abspath(__file__))

    def changed(self) -> bool:
        """Look at what was imported or reloaded since; whether the list differs."""
        before = len(self._found)
        again = [name for name, spec in self._specs.items() if _spec(name) != spec]
        for name in again:
            self._found.pop(name, None)
            self._specs.pop(name, None)
        fresh: list[str] = again
        if len(sys.modules) != self._count:
            self._count = len(sys.modules)
            fresh = again + [name for name in list(sys.modules) if name not in self._looked]
        for name in fresh:
            self._look(name)
        return bool(again) or len(self._found) != before

    def serves(self, root: Path, redactor: Redactor, put: Put) -> bool:
        return (os.path.realpath(root), redactor, put) == (self._root, self._redactor, self._put)

    def all(self) -> list[Artifact]:
        self.changed()
        return [self._found[name] for name in sorted(self._found)]

    def _look(self, name: str) -> None:
        if type(name) is not str:
            return
        self._looked.add(name)
        path = _attribute(sys.modules.get(name), "__file__")
        if type(path) is not str or not path.endswith((".py", ".pyw")):
            return
        path = self._real(path)
        if not self._is_local(path):
            return
        self._specs[name] = _spec(name)
        relative = self._redactor.text(os.path.relpath(path, self._root))[0]
        try:
            size = os.stat(path).st_size
        except OSError:
            return  # removed since it was imported; its spec is kept, so a reload is still noticed
        data = _bytes(path, FILE_CAP + 1, follow=True)
        if data is None or size > FILE_CAP:
            self._found[name] = Artifact(
                name=relative, kind="module", type=name, size=size, why="not kept: larger than the cap"
            )
        else:
            self._found[name] = _keep(relative, "module", name, data, self._redactor, self._put)

    def _real(self, path: str) -> str:
        """The path without links, asked once for each folder: there are thousands of modules."""
        folder, _, name = path.rpartition(os.sep)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return f"{self._folders[folder]}{os.sep}{name}"

    def _is_local(self, path: str) -> bool:
        if not path.startswith(self._root + os.sep) or path.startswith(self._own + os.sep):
            return False
        folder = os.path.dirname(path)
        if folder not in self._environments:
            parts = os.path.relpath(folder, self._root).split(os.sep)
            above = [os.path.join(self._root, *parts[: n + 1]) for n in range(len(parts))]
            self._environments[folder] = any(part in ("site-packages", "dist-packages") for part in parts) or any(
                os.path.exists(os.path.join(one, "pyvenv.cfg")) or os.path.isdir(os.path.join(one, "conda-meta"))
                for one in above
            )
        return not self._environments[folder]


_last: _Modules | None = None
"""What `local_modules` last looked at: it notices what came since, and keeps the source of what was loaded then."""


def _attribute(module: object, name: str) -> Any:
    """An attribute from a module's dictionary alone: what a module computes on demand is not asked for."""
    # the class itself is asked, since an object can lie about its own
    return ModuleType.__getattribute__(module, "__dict__").get(name) if issubclass(type(module), ModuleType) else None


def _spec(name: str) -> int:
    """Identity of a module's specification: a reload makes a new one."""
    return id(_attribute(sys.modules.get(name), "__spec__"))


# -- kept current ----------------------------------------------------------------------------------------------------


class Observer:
    """Keeps the state of the code current, for microseconds per cell.

    Parameters
    ----------
    root
        The project's folder.
    redactor, put
        As for `Repository.state`; `put` is called from a background thread too.
    interval
        Seconds between two looks at files that changed without a commit.
    """

    def __init__(self, root: Path, redactor: Redactor, put: Put, *, interval: float = _INTERVAL) -> None:
        self.repository = Repository.find(root)
        self._redactor, self._put, self._interval = redactor, put, interval
        self._modules = _Modules(root, redactor, put)
        self._state: CodeState | None = None if self.repository else CodeState()
        self._told: CodeState | None = None
        self._stamp: tuple[Any, ...] = ()
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._pid = os.getpid()

    def start(self) -> None:
        """Begin to observe, in a daemon thread; returns at once."""
        if self.repository is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._stamp = self.repository.stamp()
        self._thread = threading.Thread(target=self._observe, name="mlops-git", daemon=True)
        self._thread.start()

    def changed(self) -> bool:
        """Whether the state differs from what `current` last gave, or is about to: HEAD, index or branch moved.

        Starts a look in the background where one is due. In a forked child it says no.
        """
        if os.getpid() != self._pid:
            return False
        moved = self._modules.changed()
        if self.repository is not None and not (self._thread is not None and self._thread.is_alive()):
            if self.repository.stamp() != self._stamp:
                moved = True
                self.start()
            elif time.monotonic() >= self._next:
                self.start()
        return moved or self._state is not self._told

    def current(self, timeout: float | None = None) -> CodeState | None:
        """The state of the code.

        Parameters
        ----------
        timeout
            Seconds to wait for a look that is under way; None waits for its end.

        Returns
        -------
        CodeState or None
            None only where the first look has not ended in time. While a later one is under way, the last known.
        """
        thread = self._thread
        if thread is None and self._state is None:
            self.start()
            thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout)
        if self._state is None:
            return None
        self._told = self._state
        return msgspec.structs.replace(self._state, modules=self._modules.all())

    def _observe(self) -> None:
        began = time.monotonic()
        try:
            state = self.repository.state(self._redactor, self._put) if self.repository else CodeState()
        except Exception as error:  # noqa: BLE001
            # the store is full, or a hostile repository did the unforeseen: the notebook goes on, the record says it
            state = CodeState(gaps=[Gap(subject="code", reason=f"could not be read: {type(error).__name__}")])
        if state != self._state:
            self._state = state
        took = time.monotonic() - began
        self._next = time.monotonic() + max(self._interval, 20 * took)
