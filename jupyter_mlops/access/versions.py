"""Names files as records spell them, and says which version of them there is: the digest of their bytes.

A digest is remembered by the file's signature (device, inode, size, times of change), under git's rule: a file that
changed within the file system's tick of the moment it was hashed may change again without its signature showing it, so
that memory is not trusted. What does not fit the cell's budget is hashed by a thread while no cell runs.

A database that this process has open is never read as a file: closing it again would drop the locks that SQLite and
DuckDB hold, and with them somebody's commit.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jupyter_mlops.access.tracing import MUTED, active, current, problem
from jupyter_mlops.fingerprints import Budget, file_digest, folder_digest
from jupyter_mlops.fingerprints.files import Signature, racy, signature
from jupyter_mlops.records import Artifact, Digest, Gap

if TYPE_CHECKING:
    from jupyter_mlops.access.tracing import Trace

_NAMES_LIMIT: Final = 200_000
_MEMO_LIMIT: Final = 500_000
_NEVER: Final = ("/proc/", "/sys/", "/dev/", "/run/", "/var/run/")
_SYSTEM: Final = (
    "/etc/ssl/", "/etc/fonts/", "/etc/pki/", "/usr/share/zoneinfo", "/usr/share/fonts", "/usr/share/mime",
    "/usr/share/locale", "/usr/share/i18n", "/usr/share/terminfo", "/usr/lib/locale", "/usr/lib/ssl",
    "/usr/share/ca-certificates", "/usr/share/fontconfig", "/System/Library/Fonts", "/Library/Fonts",
)  # fmt: skip
_SYSTEM_FILES: Final = frozenset(
    "/etc/" + name
    for name in (
        "passwd", "group", "hosts", "host.conf", "resolv.conf", "nsswitch.conf", "gai.conf", "localtime", "timezone",
        "os-release", "lsb-release", "debian_version", "mime.types", "services", "protocols", "locale.alias", "inputrc",
    )
) | {"/usr/lib/os-release"}  # fmt: skip
_FOLDERS: Final = frozenset({
    ".mlops", ".git", ".ipython", ".jupyter", ".ipynb_checkpoints", "__pycache__", ".matplotlib", ".mypy_cache",
    ".ruff_cache", ".pytest_cache", "fontconfig",
})  # fmt: skip
_CACHES: Final = _FOLDERS - {".git"}
_FOLDER_PAIRS: Final = (
    "/share/jupyter/", "/etc/jupyter/", "/etc/ipython/", "/.cache/matplotlib/", "/.config/matplotlib/", "/.cache/pip/",
    "/.cache/uv/", "/jupyter/runtime/", "/.cache/black/", "/Library/Jupyter/",
)  # fmt: skip
_CODE: Final = (
    ".pyc", ".pyo", ".so", ".dylib", ".pyd", ".dll", ".pth", ".mo", ".ttf", ".otf", ".afm", ".pfb", ".mplstyle",
)  # fmt: skip
_PACKAGE_CODE: Final = (*_CODE, ".py", ".pyi", ".pyx", ".pxd", ".ipy", ".typed", ".h", ".c", ".cpp", ".js", ".css",
                        ".tpl", ".j2", ".tcl")  # fmt: skip
_PACKAGE_FILES: Final = frozenset({"METADATA", "RECORD", "WHEEL", "PKG-INFO", "matplotlibrc", "cacert.pem"})


class _Patient(Budget):
    """A budget for work that goes on only while no cell runs."""

    __slots__ = ("_idle", "_stop")

    def __init__(self, idle: threading.Event, stop: threading.Event) -> None:
        super().__init__()
        self._idle, self._stop = idle, stop

    def check(self, nodes: int = 0, size: int = 0) -> None:
        while not self._stop.is_set() and not self._idle.wait(0.5):
            pass
        if self._stop.is_set():
            self.cancel()
        super().check(nodes, size)


class Versions:
    """The files around a project: their names, and their versions as they stand.

    Parameters
    ----------
    root
        The project's folder.
    exclude
        Files and folders that are never recorded.
    budget
        Seconds that may be spent on one file at the moment it is about to be overwritten.
    """

    def __init__(self, root: Path, exclude: Iterable[Path], budget: float) -> None:
        self.root = os.path.abspath(root)
        self.budget = budget
        self._roots = tuple(dict.fromkeys(base.rstrip(os.sep) + os.sep for base in (self.root, os.path.realpath(root))))
        self._home = os.path.expanduser("~").rstrip(os.sep) + os.sep
        self._exclude = tuple(os.path.abspath(path) for path in exclude)
        self._packages, self._library = _installation()
        self._names: dict[str, str | None] = {}
        self._memo: dict[Signature, tuple[Digest, int]] = {}
        self.databases: set[tuple[int, int]] = set()
        self._later: list[tuple[Digest | None, str, str, Signature]] = []
        self._settled: list[tuple[Digest | None, str, list[Artifact], list[Gap]]] = []
        self._lock = threading.Lock()
        self._idle, self._stop = threading.Event(), threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    # -- names --------------------------------------------------------------------------------------------------

    def name(self, path: str) -> str | None:
        """The name of an absolute path as records spell it; None for what is never recorded."""
        try:
            return self._names[path]
        except KeyError:
            if len(self._names) >= _NAMES_LIMIT:
                self._names.clear()
            name = self._names[path] = self._spell(path)
            return name

    def _spell(self, path: str) -> str | None:
        if path.startswith((*_NEVER, *_SYSTEM)) or path in _SYSTEM_FILES or path.endswith(_CODE):
            return None
        if any(path == one or path.startswith(one + os.sep) for one in self._exclude):
            return None
        if not _FOLDERS.isdisjoint(path.split(os.sep)) or any(pair in path for pair in _FOLDER_PAIRS):
            return None
        for base in self._packages:
            if path.startswith(base):
                return _in_package(path[len(base) :])
        if path.startswith(self._library):
            return None
        for base in self._roots:
            if path.startswith(base):
                return path[len(base) :].replace(os.sep, "/")
            if path + os.sep == base:
                return "."
        if len(self._home) > 1 and path.startswith(self._home):
            return "~/" + path[len(self._home) :].replace(os.sep, "/")
        return path.replace(os.sep, "/")

    def passed_over(self, path: str) -> bool:
        """Whether a file whose name is not recorded may be part of what a cell did, and no cache or device is."""
        path = os.path.abspath(path)
        if path.startswith(("/dev/shm/", "/run/", "/var/run/")):  # noqa: S108 - only looked at
            return True
        if path.startswith(_NEVER) or any(path == one or path.startswith(one + os.sep) for one in self._exclude):
            return False
        if any(pair in path for pair in _FOLDER_PAIRS) or path.endswith((".pyc", ".pyo")):
            return False
        return _CACHES.isdisjoint(path.split(os.sep)) and not path.startswith(self._library)

    # -- versions -----------------------------------------------------------------------------------------------

    def database(self, path: str) -> None:
        """A database engine of this process has this file open."""
        try:
            found = os.stat(path)
        except OSError:  # it does not exist yet: then nobody can have read it as a file either
            return
        self.databases.add((found.st_dev, found.st_ino))

    def remembered(self, found: os.stat_result) -> Digest | None:
        """The digest that a file with this signature is known to have."""
        known = self._memo.get(signature(found))
        return known[0] if known is not None and not racy(signature(found), known[1]) else None

    def version(self, path: str, budget: Budget, found: os.stat_result | None = None) -> Artifact:
        """The version of a file or folder as it stands, within a budget."""
        name = self._names.get(path) or self.name(path) or path
        try:
            found = found or os.stat(path)
        except OSError as error:  # gone, or out of reach: said in the record
            return Artifact(name=name, kind="file", why=error.strerror or "it can not be seen")
        if stat.S_ISDIR(found.st_mode):
            whole = folder_digest(Path(path), budget=budget)
            return Artifact(name=name, kind="file", type="folder", digest=whole.digest, size=whole.size, why=whole.why)
        if (found.st_dev, found.st_ino) in self.databases:
            return Artifact(
                name=name,
                kind="file",
                size=found.st_size,
                why="a database that is open: reading it would drop its locks",
            )
        known = self.remembered(found)
        if known is not None:
            return Artifact(name=name, kind="file", digest=known, size=found.st_size)
        at = time.time_ns()
        made = file_digest(Path(path), budget=budget)
        if made.digest is None:
            return Artifact(name=name, kind="file", size=found.st_size, why=made.why)
        try:
            again = os.stat(path)
        except OSError:  # it went after it was read: what was read is what it was
            again = found
        if signature(again) == signature(found):
            if len(self._memo) >= _MEMO_LIMIT:
                self._memo.clear()
            self._memo[signature(found)] = made.digest, at
        return Artifact(name=name, kind="file", digest=made.digest, size=made.size)

    def at_once(self, path: str, trace: Trace) -> Artifact:
        """The version of a file that is about to be overwritten, now or never."""
        token = current.set(MUTED)
        try:
            made = self.version(path, Budget(self.budget))
        finally:
            current.reset(token)
        if made.digest is None:
            trace.gap(made.name, f"it was read, and then overwritten in the same cell: {made.why}", blocks=True)
        return made

    # -- later --------------------------------------------------------------------------------------------------

    def later(self, cell_run: Digest | None, role: str, path: str, found: os.stat_result) -> None:
        """Have a file hashed while no cell runs."""
        with self._lock:
            self._later.append((cell_run, role, path, signature(found)))
            if self._thread is None or not self._thread.is_alive() or self._pid != os.getpid():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._work, name="jupyter-mlops-files", daemon=True)
                self._thread.start()

    def busy(self) -> None:
        """A cell begins: stop the work in the background."""
        if self._idle.is_set():
            self._idle.clear()

    def idle(self) -> None:
        """No cell runs: go on with the work in the background."""
        if not active and (self._later or self._thread is not None):
            self._idle.set()

    def settled(self) -> list[tuple[Digest | None, str, list[Artifact], list[Gap]]]:
        """What the background has done since it was last asked."""
        if not self._settled:
            return []
        with self._lock:
            done, self._settled = self._settled, []
            return done

    @property
    def pending(self) -> int:
        """Files still to be hashed, or not yet asked for."""
        with self._lock:
            return len(self._later) + len(self._settled)

    def close(self) -> None:
        """Stop the background; what it had not done is dropped."""
        self._stop.set()
        self._idle.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(2)
        self._thread = None
        self._stop = threading.Event()
        with self._lock:
            self._later.clear()

    def _work(self) -> None:
        current.set(MUTED)
        idle, stop = self._idle, self._stop
        while not stop.is_set():
            idle.wait()
            with self._lock:
                if not self._later or stop.is_set():
                    self._thread = None
                    return
                cell_run, role, path, was = self._later[0]
            try:
                done = self._one(path, was, _Patient(idle, stop))
            except BaseException as error:  # noqa: BLE001 - one file's trouble must not end the work on the others
                problem(error)
                done = ([], [Gap(subject=self.name(path) or path, reason="it could not be hashed in the background")])
            with self._lock:
                if stop.is_set():
                    return
                self._later.pop(0)
                self._settled.append((cell_run, role, *done))

    def _one(self, path: str, was: Signature, budget: Budget) -> tuple[list[Artifact], list[Gap]]:
        name = self.name(path) or path
        gap = Gap(subject=name, reason="it changed before it could be hashed in the background", blocks=True)
        try:
            if signature(os.stat(path)) != was:
                return [], [gap]
            made = self.version(path, budget)
            if signature(os.stat(path)) != was:
                return [], [gap]
        except OSError:  # it is gone: the same to whoever asks for its digest
            return [], [gap]
        if made.digest is None:
            return [], [Gap(subject=name, reason=made.why, blocks=True)]
        return [made], []


def _in_package(rest: str) -> str | None:
    name = rest.rpartition(os.sep)[2]
    if rest.endswith(_PACKAGE_CODE) or name in _PACKAGE_FILES or ".dist-info" + os.sep in rest or ".egg-info" in rest:
        return None
    if rest.startswith(("matplotlib" + os.sep, "certifi" + os.sep, "tzdata" + os.sep, "pytz" + os.sep)):
        return None
    return "package:" + rest.replace(os.sep, "/")


def _installation() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where packages lie, and where the standard library does; each ends in a separator."""
    paths = sysconfig.get_paths()
    packages = {paths["purelib"], paths["platlib"]}
    packages |= {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    library = {paths["stdlib"], paths["platstdlib"]}
    for prefix in (sys.prefix, sys.base_prefix):
        library.add(os.path.join(prefix, "conda-meta"))
        library.add(os.path.join(prefix, "pyvenv.cfg"))

    def both(found: set[str]) -> tuple[str, ...]:
        spelled = {os.path.abspath(path) for path in found} | {os.path.realpath(path) for path in found}
        return tuple(sorted(path + os.sep for path in spelled))

    return both(packages), both(library)
