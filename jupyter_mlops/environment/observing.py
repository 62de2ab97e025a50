"""The interpreter and what is installed beside it, as a record.

The names and versions of distributions stand in the names of their ``.dist-info`` folders, so listing them costs a
directory scan; only an origin other than an index needs a file read. The folders' modification times say later, for a
few microseconds, whether anything was installed since: then, and only then, the scan is repeated. What was imported
before such a change keeps its old version in memory, and the record says so.

Variables are recorded by an allow-list with their values; of all others only the names.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from types import ModuleType
from typing import Any, Final

import msgspec

from jupyter_mlops.environment import machine
from jupyter_mlops.records import Environment, Gap, Package
from jupyter_mlops.redact import Redactor, clean_url

# scikit-learn sets these when it is imported: they say nothing, and would make two environments of one.
_SET_BY_IMPORTS: Final = frozenset({"KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK"})
_ALLOWED: Final = re.compile(
    r"PYTHON[A-Z0-9_]*|CUDA_[A-Z0-9_]*|NVIDIA_VISIBLE_DEVICES|OMP_[A-Z0-9_]*|OPENBLAS_[A-Z0-9_]*|MKL_[A-Z0-9_]*|"
    r"NUMEXPR_[A-Z0-9_]*|BLIS_[A-Z0-9_]*|KMP_[A-Z0-9_]*|VECLIB_[A-Z0-9_]*|TF_(?:CPP|CUDNN|DETERMINISTIC|ENABLE|FORCE|GPU|NUM|XLA)_[A-Z0-9_]*|XLA_FLAGS|JAX_[A-Z0-9_]*|"
    r"CUBLAS_WORKSPACE_CONFIG|POLARS_MAX_THREADS|CONDA_DEFAULT_ENV|VIRTUAL_ENV|LANG|LANGUAGE|LC_[A-Z]+|TZ"
)
_PATHS: Final = frozenset({"VIRTUAL_ENV"})
_DIST: Final = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist-info|egg-info)")
_SPELLING: Final = re.compile(r"[-_.]+")
_RACY: Final = 0.05
"""Seconds within which a folder may change twice and show one time."""


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503).

    >>> canonical("Ruamel.Yaml_clib")
    'ruamel-yaml-clib'
    """
    return _SPELLING.sub("-", name).lower()


# -- distributions ---------------------------------------------------------------------------------------------------


class _Distribution(msgspec.Struct, frozen=True):
    name: str
    version: str
    path: str

    def read(self, name: str) -> str:
        """A file of its metadata; empty where there is none."""
        if not self.path.endswith((".dist-info", ".egg-info")):
            return ""
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read(16 * 1024 * 1024).decode("utf-8", "replace")
        except OSError:
            return ""  # most have no such file

    def modules(self) -> set[str]:
        """The top-level modules it brings."""
        listed = self.read("top_level.txt").split()
        if listed:
            return set(listed)
        found = set()
        for line in self.read("RECORD").splitlines():
            head, slash, _ = line.lstrip('"').partition("/")
            head = head if slash else head.partition(",")[0].partition(".")[0] if ".py" in head or ".so" in head else ""
            if head.isidentifier() and head != "__pycache__":
                found.add(head)
        return found


def _distributions(paths: Iterable[str]) -> tuple[dict[str, _Distribution], set[str]]:
    """What is installed, by canonical name, the first on the path winning; and the folders that hold any."""
    found: dict[str, _Distribution] = {}
    holding: set[str] = set()
    for folder in dict.fromkeys(paths):
        try:
            with os.scandir(folder or ".") as entries:
                names = [entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue  # an archive, or an entry that does not exist: Python passes over it too
        for entry in sorted(names):
            one = _distribution(os.path.join(folder or ".", entry), entry)
            if one is not None:
                holding.add(folder)
                found.setdefault(canonical(one.name), one)
    return found, holding


def _distribution(path: str, entry: str) -> _Distribution | None:
    match = _DIST.fullmatch(entry)
    if match is not None and not entry.startswith("~"):  # what pip has half removed begins with a tilde
        return _Distribution(match["name"], match["version"], path)
    one = _Distribution(entry, "", path)
    text = one.read("METADATA") or one.read("PKG-INFO")
    fields = dict(re.findall(r"^(Name|Version):[ \t]*(\S+)", text.partition("\n\n")[0], re.MULTILINE))
    return _Distribution(fields["Name"], fields["Version"], path) if len(fields) == 2 else None


def _origin(one: _Distribution) -> str:
    return _origin_in(one.read("direct_url.json"))


def origin_of(one: metadata.Distribution) -> str:
    """Where a distribution installed here came from, spelt as in a record; empty where that is an index."""
    return _origin_in(one.read_text("direct_url.json") or "")


def _origin_in(text: str) -> str:
    """Where it came from, when that is not an index (PEP 610); without credentials."""
    if not text:
        return ""
    try:
        said: Any = json.loads(text)
        url = str(said.get("url", ""))
        if (said.get("dir_info") or {}).get("editable"):
            return "editable"
        vcs = said.get("vcs_info")
        if vcs:
            return f"vcs {vcs.get('vcs', 'git')}+{clean_url(url)}@{vcs.get('commit_id', '')}"
        if url.startswith("file:"):  # the folder it lay in says nothing elsewhere
            return f"direct {url.rstrip('/').rpartition('/')[2]}"
        return f"direct {clean_url(url)}"
    except (ValueError, AttributeError, RecursionError):
        return "direct (unreadable)"


def _packages(found: Mapping[str, _Distribution], loaded: Mapping[str, str]) -> list[Package]:
    return [
        Package(name=name, version=one.version, origin=_origin(one), loaded=loaded.get(name, ""))
        for name, one in sorted(found.items())
    ]


def _version_in_memory(one: _Distribution) -> str | None:
    """The ``__version__`` of a loaded module of the distribution; "" where it says none, None where none is loaded."""
    present = None
    for name in sorted(one.modules(), key=lambda name: canonical(name) != canonical(one.name)):
        module = sys.modules.get(name)
        if issubclass(type(module), ModuleType):
            # its dictionary only: attributes of a module can be computed by its own code
            version = ModuleType.__getattribute__(module, "__dict__").get("__version__")
            if type(version) is str:
                return version
            present = ""
    return present


# -- the record ------------------------------------------------------------------------------------------------------


def observe(
    environ: Mapping[str, str] | None = None,
    *,
    redactor: Redactor | None = None,
    loaded: Mapping[str, str] | None = None,
    gpus: tuple[list[str], str] | None = None,
) -> Environment:
    """Observe the environment of this process, now.

    Parameters
    ----------
    environ
        The variables; by default the process's own.
    redactor
        Masks secrets in values of allow-listed variables.
    loaded
        Versions in memory, by canonical name, where they differ from the installed ones.
    gpus
        GPUs and driver, where they are already known.
    """
    found, _ = _distributions(sys.path)
    return _record(
        found,
        os.environ if environ is None else environ,
        redactor or Redactor(),
        loaded or {},
        gpus or machine.driver(),
    )


def _record(
    found: Mapping[str, _Distribution],
    environ: Mapping[str, str],
    redactor: Redactor,
    loaded: Mapping[str, str],
    gpus: tuple[list[str], str],
    gaps: Iterable[Gap] = (),
) -> Environment:
    values, others = _variables(environ, redactor)
    return Environment(
        python=platform.python_version(), implementation=platform.python_implementation(),
        platform=platform.platform(), machine=platform.machine(), cpu=machine.cpu(), cores=machine.cores(),
        memory=machine.memory(),
        gpus=gpus[0], driver=gpus[1], packages=_packages(found, loaded), variables=values, other_variables=others,
        gaps=list(gaps),
    )  # fmt: skip


def recorded_variables(environ: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """The variables of an environment that a record has with their values."""
    return _variables(environ, redactor)[0]


def _variables(environ: Mapping[str, str], redactor: Redactor) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    others: list[str] = []
    home = environ.get("HOME", "")
    for name, value in sorted(dict(environ).items()):
        if name in _SET_BY_IMPORTS:
            continue
        if _ALLOWED.fullmatch(name) is None or redactor.secret_name(name):
            others.append(redactor.text(name)[0])
        elif name in _PATHS or (name == "CONDA_DEFAULT_ENV" and "/" in value):
            values[name] = "(set)"  # a folder of this machine; that there is one is the fact
        else:
            if len(home) > 1:
                value = value.replace(home, "~")
            values[name] = redactor.text(value)[0]
    return values, others


class Observer:
    """Keeps the environment's record current, for a few microseconds per cell.

    Parameters
    ----------
    environ
        The variables to watch; by default the process's own.
    redactor
        Masks secrets in values of allow-listed variables.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, *, redactor: Redactor | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._redactor = redactor or Redactor()
        self._current: Environment | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._found: dict[str, _Distribution] = {}
        self._loaded: dict[str, str] = {}
        self._gpus: machine.Answer | None = None
        self._asked = False
        self._path: list[str] = []
        self._watched: list[str] = []
        self._times: list[int] = []
        self._raw: Any = None

    def start(self) -> None:
        """Begin to observe, in a daemon thread; returns at once."""
        with self._lock:
            if self._thread is None and self._current is None:
                self._thread = threading.Thread(target=self._observe_all, name="mlops-environment", daemon=True)
                self._thread.start()

    def current(self, timeout: float | None = None) -> Environment | None:
        """The environment as last observed.

        Parameters
        ----------
        timeout
            Seconds to wait for the first observation; None waits until it is there.

        Returns
        -------
        Environment or None
            None only where the time was over before the first observation.
        """
        self._after_fork()
        if self._current is None:
            thread = self._thread
            if thread is not None and thread.is_alive():
                deadline = None if timeout is None else time.monotonic() + timeout
                while self._current is None and thread.is_alive():
                    left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
                    if left <= 0:
                        return None
                    # the lock is held while the thread observes the packages, and not while it asks for GPUs
                    if self._lock.acquire(timeout=left):
                        self._lock.release()
                        if self._current is None:
                            thread.join(0.001)
            if self._current is None:  # never started, or started in the parent of a forked child
                self._observe()
        return self._current

    def changed(self) -> bool:
        """Whether the environment differs from what it was when this was last asked; `current` is then the new one."""
        self._after_fork()
        if self._current is None:
            return False
        if self._same():
            return False
        with self._lock:
            before = self._current
            self._observe()
            return self._current != before

    # -- inside ------------------------------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """In a forked child the thread is gone, and with it whoever held the lock."""
        if os.getpid() != self._pid:
            self._pid, self._thread, self._lock = os.getpid(), None, threading.RLock()

    def _same(self) -> bool:
        if sys.path != self._path or (self._asked and self._gpus is not None):
            return False
        if getattr(self._environ, "_data", self._environ) != self._raw:
            return False
        stat = os.stat
        try:
            for folder, then in zip(self._watched, self._times, strict=True):
                if stat(folder).st_mtime_ns != then:
                    return False
        except OSError:
            return False  # a folder of packages is gone: look anew
        return True

    def _observe_all(self) -> None:
        self._observe()
        if self._current is not None and any(gap.subject == "gpus" for gap in self._current.gaps):
            program = shutil.which("nvidia-smi")
            answer = machine.ask_driver(program) if program else machine.Answer()
            with self._lock:
                self._gpus, self._asked = answer, True

    def _observe(self) -> None:
        with self._lock:
            now = time.time_ns()
            path = list(sys.path)
            raw = dict(getattr(self._environ, "_data", self._environ))
            watched = [
                folder
                for folder in dict.fromkeys(path)
                if folder.rstrip("/").endswith(("site-packages", "dist-packages")) and os.path.isdir(folder)
            ]
            times = [os.stat(folder).st_mtime_ns for folder in watched]
            found, holding = _distributions(path)
            for folder in sorted(holding.difference(watched)):
                watched.append(folder or ".")
                times.append(os.stat(folder or ".").st_mtime_ns)
            self._notice_loaded(found)
            gpus, gaps = self._known_gpus()
            record = _record(found, self._environ, self._redactor, self._loaded, gpus, gaps)
            self._found, self._path, self._raw, self._watched = found, path, raw, watched
            # a folder that changed just now may change again within the clock's tick: do not trust its time
            self._times = [-1 if now - then < _RACY * 1e9 else then for then in times]
            self._current = record if record != self._current else self._current

    def _known_gpus(self) -> tuple[tuple[list[str], str], list[Gap]]:
        if self._gpus is not None:
            self._asked = False
            gaps = [Gap(subject="gpus", reason=self._gpus.why)] if self._gpus.why else []
            return (self._gpus.gpus, self._gpus.driver), gaps
        told = machine.driver()
        if told[0] or not shutil.which("nvidia-smi"):
            return told, []
        return told, [Gap(subject="gpus", reason="the driver is still being asked")]

    def _notice_loaded(self, found: Mapping[str, _Distribution]) -> None:
        """Compare what changed on disk with what is in memory."""
        for name, one in found.items():
            old = self._found.get(name)
            if old is None and not self._found:
                suspect = _installed_since_start(one.path)
            else:
                suspect = old is not None and old.version != one.version
            if suspect or name in self._loaded:
                version = _version_in_memory(one)
                if version == "" and old is not None:
                    version = self._loaded.get(name) or old.version
                if version and version != one.version:
                    self._loaded[name] = version
                else:
                    self._loaded.pop(name, None)


def _installed_since_start(path: str) -> bool:
    try:
        return os.stat(path).st_mtime > _process_start()
    except OSError:
        return False  # removed while we look


def _process_start() -> float:
    """When this process began, in seconds since the epoch; infinity where the system does not say."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        boot = machine.first(r"^btime (\d+)$", "/proc/stat")
        return int(boot) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return float("inf")  # not Linux: only later changes are noticed


# -- what was imported -----------------------------------------------------------------------------------------------

_owners_cache: tuple[tuple[Any, ...], dict[str, list[_Distribution]]] | None = None


def _owners() -> dict[str, list[_Distribution]]:
    """The distributions that bring each top-level module; kept until a folder of packages changes."""
    global _owners_cache
    key: list[Any] = []
    for folder in sys.path:
        with contextlib.suppress(OSError):  # an archive or an entry that does not exist
            key.append((folder, os.stat(folder or ".").st_mtime_ns))
    if _owners_cache is None or _owners_cache[0] != tuple(key):
        owners: dict[str, list[_Distribution]] = {}
        for one in _distributions(sys.path)[0].values():
            for module in one.modules():
                owners.setdefault(module, []).append(one)
        _owners_cache = (tuple(key), owners)
    return _owners_cache[1]


def requirements(modules: Iterable[str], environment: Environment | None = None) -> list[str]:
    """The distributions that modules came from, as pip names them.

    Parameters
    ----------
    modules
        Names as in ``sys.modules``; those of the standard library and of the project itself are passed over.
    environment
        Where given, the versions that were in memory are named, and VCS origins.

    Returns
    -------
    list of str
        ``name==version``, or ``name @ git+https://…@commit``, sorted.
    """
    owners = _owners()
    loaded = {package.name: package for package in environment.packages} if environment else {}
    below: dict[str, list[str]] = {}  # thousands of modules stand below a few dozen names
    for module in modules:
        below.setdefault(module.partition(".")[0], []).append(module)
    found: set[_Distribution] = set()
    for top, names in below.items():
        candidates = owners.get(top, [])
        if len(candidates) > 1:
            found.update(*(_narrowed(name, candidates) for name in names))
        else:
            found.update(candidates)
    lines = set()
    for one in found:
        name = canonical(one.name)
        package = loaded.get(name)
        origin = package.origin if package else _origin(one)
        if origin.startswith("vcs "):
            lines.add(f"{name} @ {origin[4:]}")
        else:
            lines.add(f"{name}=={(package.loaded if package else '') or one.version}")
    return sorted(lines)


def owners(module: str) -> set[str]:
    """The canonical names of the distributions installed here that bring a module; none for one of nobody's."""
    candidates = _owners().get(module.partition(".")[0], [])
    if len(candidates) > 1:
        candidates = _narrowed(module, candidates)
    return {canonical(one.name) for one in candidates}


def _narrowed(module: str, candidates: list[_Distribution]) -> list[_Distribution]:
    """Of the distributions that share a namespace, those whose files hold the module."""
    path = module.replace(".", "/")
    held = [
        one
        for one in candidates
        if re.search(rf"^{re.escape(path)}(?:/__init__)?(?:\.[^/\n]*)?\.(?:py|so)", one.read("RECORD"), re.MULTILINE)
    ]
    return held or ([] if "." not in module else _narrowed(module.rpartition(".")[0], candidates))


# -- differences -----------------------------------------------------------------------------------------------------


class EnvironmentDiff(msgspec.Struct, frozen=True):
    """How two environments differ; false when they do not.

    Attributes
    ----------
    added, removed
        Packages that only the new, only the old one has.
    changed
        Packages of another version, origin or loaded version: old and new.
    facts
        Of interpreter, platform, CPU, GPU and driver: what, old, new.
    variables
        Name, old value and new value; None where it was not set, ``(not recorded)`` where only its name is known.
    """

    added: tuple[Package, ...] = ()
    removed: tuple[Package, ...] = ()
    changed: tuple[tuple[Package, Package], ...] = ()
    facts: tuple[tuple[str, str, str], ...] = ()
    variables: tuple[tuple[str, str | None, str | None], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.facts or self.variables)

    def lines(self) -> list[str]:
        """The differences as text, one a line: ``+``, ``-`` and ``~``."""
        return [
            *(f"~ {what}: {old or '(none)'} -> {new or '(none)'}" for what, old, new in self.facts),
            *(f"+ {_told(package)}" for package in self.added),
            *(f"- {_told(package)}" for package in self.removed),
            *(f"~ {old.name}: {_told(old, name=False)} -> {_told(new, name=False)}" for old, new in self.changed),
            *(
                f"+ ${name}={new}"
                if old is None
                else f"- ${name}={old}"
                if new is None
                else f"~ ${name}: {old} -> {new}"
                for name, old, new in self.variables
            ),
        ]


def _told(package: Package, *, name: bool = True) -> str:
    text = f"{package.name} {package.version}" if name else package.version
    if package.origin:
        text += f" ({package.origin})"
    return f"{text} [{package.loaded} in memory]" if package.loaded else text


_FACTS: Final = ("python", "implementation", "platform", "machine", "cpu", "cores", "memory", "gpus", "driver")


def diff(old: Environment, new: Environment) -> EnvironmentDiff:
    """Compare two environments."""
    before = {package.name: package for package in old.packages}
    after = {package.name: package for package in new.packages}
    return EnvironmentDiff(
        added=tuple(after[name] for name in sorted(after.keys() - before.keys())),
        removed=tuple(before[name] for name in sorted(before.keys() - after.keys())),
        changed=tuple(
            (before[name], after[name]) for name in sorted(before.keys() & after.keys()) if before[name] != after[name]
        ),
        facts=tuple(_changed_facts(old, new)),
        variables=tuple(_changed_variables(old, new)),
    )


def program_variables(*more: str) -> dict[str, str]:
    """The few variables that a program we start needs, and none that would steer it; and those named."""
    kept = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "USER", "LOGNAME", "SYSTEMROOT", *more)
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C", "LANGUAGE": "C"}


def _changed_facts(old: Environment, new: Environment) -> Iterator[tuple[str, str, str]]:
    for what in _FACTS:
        was, now = getattr(old, what), getattr(new, what)
        if was != now:
            yield what, _spelled(was), _spelled(now)


def _spelled(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _changed_variables(old: Environment, new: Environment) -> Iterator[tuple[str, str | None, str | None]]:
    before: dict[str, str] = dict.fromkeys(old.other_variables, "(not recorded)") | old.variables
    after: dict[str, str] = dict.fromkeys(new.other_variables, "(not recorded)") | new.variables
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)
