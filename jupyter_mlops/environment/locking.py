"""What a run used, as a lock: ``pylock.toml`` (PEP 751) and ``requirements.txt``, every file by its hash.

The versions are the recorded ones and nothing is resolved anew: `uv` is asked only which files the index has of exactly
these versions. What did not come from an index is kept as a wheel: of an editable package one is built from its folder,
of a package installed from an address or a commit the installed files themselves are packed again. What cannot be
locked is named in the lock.

A lock is for other machines, so no address of this one's index stands in it. PEP 751 wants an address or a path for
each file: files that lie where PyPI's do get PyPI's own address, whatever mirror told of them; all others get their
bare name, and are found by it and by their hash wherever the reader's index is.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from jupyter_mlops.environment.observing import canonical, origin_of, owners, program_variables
from jupyter_mlops.errors import MlopsError, door
from jupyter_mlops.records import Digest, Environment, Gap, Package, RecordInvalid, as_digest

WHEELS: Final = "wheels"
"""The folder beside a lock that holds the wheels no index has."""
KERNEL: Final[tuple[str, ...]] = ("ipykernel", "jupyter-mlops")
"""What a recorded kernel needs besides what the notebook imports."""

_PUBLIC: Final = "https://files.pythonhosted.org"
_PUBLIC_PATH: Final = re.compile(r"/packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[^/]+")
_UNREACHABLE: Final = re.compile(
    r"Failed to fetch|error sending request|network connectivity|Connection refused|dns error|timed out|"
    r"Temporary failure|offline|Could not connect|tls",
    re.IGNORECASE,
)
_PYTHON: Final = re.compile(r"3\.\d{1,3}(?:\.\d{1,3})?(?:(?:a|b|rc)\d{1,3})?\+?")
_LIMIT: Final = 32 << 20
_SECONDS: Final = 1800
_TOOL: Final = "jupyter-mlops"

Keep = Callable[[Path], Digest]
"""Keeps a file as an object and says its name."""


class LockFailed(MlopsError, RuntimeError):
    """A lock could not be made: the index could not be reached, or `uv` failed."""


class LockInvalid(MlopsError, ValueError):
    """A file is no lock that can be read."""

    exit_code = 2


class LockedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of a package: a wheel or a source archive.

    Attributes
    ----------
    name
        Its file name.
    url
        PyPI's address of it; empty for what is found by name and hash.
    object
        The object of the store that holds it, where it came from no index.
    """

    name: str
    sha256: str
    url: str = ""
    size: int | None = None
    object: Digest | None = None


class LockedPackage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A package of one version, and the files that may be installed for it."""

    name: str
    version: str
    files: tuple[LockedFile, ...] = ()


class Lock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an environment consists of.

    Attributes
    ----------
    python, implementation
        The interpreter, as recorded.
    scope
        ``used``: what was imported, with what that needs; ``all``: everything that was installed.
    source
        What it was made for, as it was asked for.
    gaps
        What could not be locked, or is known less surely.
    """

    python: str
    implementation: str = "CPython"
    packages: tuple[LockedPackage, ...] = ()
    scope: str = "used"
    source: str = ""
    gaps: tuple[Gap, ...] = ()

    def pylock(self) -> str:
        """The lock as ``pylock.toml``."""
        minor = ".".join(self.python.split(".")[:2])
        text: str = door("tomli_w", "env").dumps(
            {
                "lock-version": "1.0",
                "requires-python": f"=={minor}.*",
                "created-by": _TOOL,
                "packages": [_package_table(one) for one in self.packages],
                "tool": {
                    _TOOL: {
                        "python": self.python,
                        "implementation": self.implementation,
                        "scope": self.scope,
                        "source": self.source,
                        "gaps": [msgspec.to_builtins(gap) for gap in self.gaps],
                    }
                },
            }
        )
        return text

    def requirements(self) -> str:
        """The lock as ``requirements.txt``, every package with the hashes of its files."""
        said = [f"Python {self.python}; made by mlops env lock {self.source}"]
        said += [f"gap: {gap.subject}: {gap.reason}" for gap in self.gaps]
        # pip begins a new line, and so a new demand, at each mark that Unicode has for one
        lines = [f"# {' '.join(one.split())}" for one in said]
        if any(file.object for one in self.packages for file in one.files):
            lines.append(f"--find-links ./{WHEELS}")
        for one in self.packages:
            hashes = sorted({file.sha256 for file in one.files})
            words = [f"{one.name}=={one.version}", *(f"--hash=sha256:{each}" for each in hashes)]
            lines.append(" \\\n    ".join(words))
        return "\n".join(lines) + "\n"

    def record(self, environment: Environment) -> Environment:
        """The recorded environment, narrowed to what is locked."""
        names = {one.name for one in self.packages}
        return msgspec.structs.replace(environment, packages=[one for one in environment.packages if one.name in names])


# -- what was used ---------------------------------------------------------------------------------------------------


def used(environment: Environment, imported: Iterable[str], local: Iterable[str] = ()) -> tuple[set[str], list[Gap]]:
    """The packages of an environment that a run used: what it imported, what a kernel needs, and what these need.

    Parameters
    ----------
    environment
        As it was recorded.
    imported
        Names of modules, as cell runs record them.
    local
        Names of modules that are the project's own.

    Returns
    -------
    tuple
        Canonical names, and gaps: modules that no recorded package is known to bring. Where the needs of a package are
        not known here, everything that was installed is named instead, with a gap that says so.
    """
    there = {one.name for one in environment.packages}
    own = {name.partition(".")[0] for name in local}
    roots: set[str] = {name for name in KERNEL if name in there}
    gaps: list[Gap] = []
    for module in sorted(set(imported)):
        top = module.partition(".")[0]
        found = (owners(module) & there) or ({canonical(top)} & there)
        roots |= found
        if not found and top not in own and not top.startswith("_"):
            gaps.append(Gap(subject=module, reason="imported, and no recorded package is known to bring it"))
    names, unknown = _with_needs(roots, there)
    if unknown:
        reason = f"what {', '.join(sorted(unknown)[:5])} needs is not known here, so all that was installed is locked"
        return there, [*gaps, Gap(subject="packages", reason=reason)]
    return names, gaps


def _with_needs(roots: set[str], there: set[str]) -> tuple[set[str], set[str]]:
    """The roots with what they need, as far as it was installed; and those whose needs are not known."""
    requirement = door("packaging.requirements", "env").Requirement
    found: set[str] = set()
    unknown: set[str] = set()
    waiting = sorted(roots)
    extras: dict[str, set[str]] = {}
    while waiting:
        name = waiting.pop()
        if name in found and not extras.get(name):
            continue
        asked = {"", *extras.pop(name, ())}
        found.add(name)
        try:
            needs = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            unknown.add(name)
            continue
        for text in needs:
            need = requirement(text)
            other = canonical(need.name)
            if other not in there or not _applies(need, asked):
                continue
            if need.extras and need.extras - extras.get(other, set()) and other not in found:
                extras[other] = extras.get(other, set()) | need.extras
            if other not in found:
                waiting.append(other)
    return found, unknown


def _applies(need: Any, extras: Iterable[str]) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)


# -- making a lock ---------------------------------------------------------------------------------------------------


def lock(
    environment: Environment,
    names: Iterable[str],
    *,
    keep: Keep,
    folder: Path,
    offline: bool = False,
    scope: str = "used",
    source: str = "",
    gaps: Iterable[Gap] = (),
) -> Lock:
    """Lock packages of a recorded environment in exactly the versions that were in memory.

    Parameters
    ----------
    environment
        As it was recorded.
    names
        Canonical names of the packages.
    keep
        Keeps a wheel as an object.
    folder
        Where wheels that no index has are put; made if need be.
    offline
        Ask no index: only what `uv` has in its cache.

    Raises
    ------
    ExtraMissing
        `uv` is not installed.
    LockFailed
        The index could not be reached.
    LockInvalid
        The record's Python is none.
    """
    wanted = set(names)
    check_python(environment.python)
    packages = [one for one in environment.packages if one.name in wanted]
    said = list(gaps)
    said += [Gap(subject=one.name, reason="its name or version is none") for one in packages if not _named(one)]
    packages = [one for one in packages if _named(one)]
    public = [one for one in packages if not one.origin]
    locked = _from_index(public, environment.python, offline=offline)
    for one in public:
        if one.name not in locked:
            said.append(Gap(subject=one.name, reason=f"the index has no {one.name} {one.loaded or one.version}"))
        elif not all(file.url for file in locked[one.name].files):
            said.append(
                Gap(subject=one.name, reason="comes from an index of its own, whose address is not written here")
            )
    for one in packages:
        if one.origin:
            try:
                file, note = _snapshot(one, folder, keep, offline=offline)
            except MlopsError as error:
                said.append(Gap(subject=one.name, reason=str(error)))
                continue
            locked[one.name] = LockedPackage(name=one.name, version=one.version, files=(file,))
            if note:
                said.append(Gap(subject=one.name, reason=note))
    return Lock(
        python=environment.python, implementation=environment.implementation or "CPython",
        packages=tuple(locked[name] for name in sorted(locked)), scope=scope, source=source, gaps=tuple(said),
    )  # fmt: skip


def check_python(version: str) -> str:
    """Check that a Python's version is one: whatever else it is, `uv` would take for a program, and run it.

    Raises
    ------
    LockInvalid
        It is not.
    """
    if not _PYTHON.fullmatch(version):
        raise LockInvalid(f"{version[:80]!r} is no version of Python")
    return version


def _named(one: Package) -> bool:
    """Whether a package's name and version are such, and nothing that `uv` would read as more than that."""
    versions = door("packaging.version", "env")
    version = one.loaded or one.version
    try:
        versions.Version(version)
    except versions.InvalidVersion:
        return False
    return version == version.strip() and re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", canonical(one.name)) is not None


def uv(
    *words: str, offline: bool = False, cwd: Path | None = None, download: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `uv`, which is given its own settings and what a connection needs, and downloads no Python unasked.

    Raises
    ------
    ExtraMissing
        It is not installed.
    """
    program = str(door("uv", "env").find_uv_bin())
    needed = re.compile(r"UV_\w+|SSL_\w+|(?:HTTPS?|ALL|NO)_PROXY|XDG_\w+", re.IGNORECASE)
    variables = {name: value for name, value in os.environ.items() if needed.fullmatch(name)}
    variables |= program_variables() | {"UV_NO_PROGRESS": "1"}
    variables["UV_PYTHON_DOWNLOADS"] = "automatic" if download else "never"
    variables.pop("UV_PROJECT_ENVIRONMENT", None)
    try:
        return subprocess.run(
            [program, *words, *(["--offline"] if offline else [])], env=variables, cwd=cwd, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LockFailed("uv could not be run", cause=type(error).__name__) from error


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What `uv` said went wrong, in one line, without credentials that an address may hold."""
    text = re.sub(r"://[^/@\s]+@", "://", done.stderr)
    lines = [line.strip(" ×╰▶─│├-→") for line in text.splitlines() if not line.startswith(("Using ", "Resolved "))]
    return " ".join(line for line in lines if line)[:600] or f"it ended with {done.returncode}"


def _from_index(packages: Sequence[Package], python: str, *, offline: bool) -> dict[str, LockedPackage]:
    """What the index has of these packages; one that it does not have is left out."""
    if not packages:
        return {}
    with tempfile.TemporaryDirectory(prefix="mlops-lock-") as folder:
        asked, answer = Path(folder, "asked.in"), Path(folder, "pylock.toml")
        asked.write_text("".join(f"{one.name}=={one.loaded or one.version}\n" for one in packages))
        done = uv(
            "pip", "compile", str(asked), "--no-deps", "--format", "pylock.toml", "--output-file", str(answer),
            "--no-header", "--no-annotate", "--quiet", "--python-version", python, "--prerelease", "allow",
            offline=offline, cwd=Path(folder),
        )  # fmt: skip
        if done.returncode == 0:
            found = [_locked(one) for one in tomllib.loads(answer.read_text())["packages"]]
            return {one.name: one for one in found if one is not None}
    if _UNREACHABLE.search(done.stderr) and "--offline" not in done.args:
        raise LockFailed("the index could not be reached", cause=told(done), next="--offline locks what uv's cache has")
    if len(packages) == 1:
        return {}
    half = len(packages) // 2
    return _from_index(packages[:half], python, offline=offline) | _from_index(packages[half:], python, offline=offline)


def _locked(table: Mapping[str, Any]) -> LockedPackage | None:
    files = [*table.get("wheels", ()), *([table["sdist"]] if "sdist" in table else ())]
    found = tuple(_file(one) for one in files if one.get("hashes", {}).get("sha256"))
    return LockedPackage(name=canonical(table["name"]), version=table["version"], files=found) if found else None


def _file(table: Mapping[str, Any]) -> LockedFile:
    """A file as `uv` tells of it, with PyPI's address or none."""
    address = urlsplit(str(table.get("url", "")))
    path = address.path or str(table.get("path", ""))
    public = _PUBLIC_PATH.fullmatch(address.path)
    name = str(table.get("name") or unquote(path.rpartition("/")[2]))
    return LockedFile(
        name=name, sha256=table["hashes"]["sha256"], url=_PUBLIC + address.path if public else "",
        size=table.get("size"),
    )  # fmt: skip


def _package_table(one: LockedPackage) -> dict[str, Any]:
    wheels: list[dict[str, Any]] = []
    table: dict[str, Any] = {"name": one.name, "version": one.version}
    kept = {file.name: file.object for file in one.files if file.object}
    for file in one.files:
        entry: dict[str, Any] = {"name": file.name}
        entry |= {"url": file.url} if file.url else {"path": f"{WHEELS}/{file.name}"}
        if file.size is not None:
            entry["size"] = file.size
        entry["hashes"] = {"sha256": file.sha256}
        if file.name.endswith(".whl"):
            wheels.append(entry)
        else:
            table["sdist"] = entry
    if wheels:
        table["wheels"] = wheels
    if kept:
        table["tool"] = {_TOOL: {"objects": kept}}
    return table


# -- what no index has -----------------------------------------------------------------------------------------------


def _snapshot(package: Package, folder: Path, keep: Keep, *, offline: bool) -> tuple[LockedFile, str]:
    """A wheel of a package that came from no index, as it is here; and what is to be said of it."""
    try:
        here = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        raise LockFailed("it came from no index and is not installed here") from None
    origin = origin_of(here)
    if (here.version, origin) != (package.version, package.origin):
        raise LockFailed(f"it came from no index, and here is {here.version} ({origin or 'from an index'})")
    folder.mkdir(parents=True, exist_ok=True)
    note = ""
    if package.origin == "editable":
        path = _built(here, folder, offline=offline)
        note = "editable: a wheel built from its folder as it was when this was locked"
    else:
        path, note = repacked(here, folder)
    data = path.read_bytes()
    file = LockedFile(name=path.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data), object=keep(path))
    return file, note


def _built(one: metadata.Distribution, folder: Path, *, offline: bool) -> Path:
    """A wheel built from the folder of an editable package."""
    said = json.loads(one.read_text("direct_url.json") or "{}")
    source = Path(unquote(urlsplit(str(said.get("url", ""))).path))
    if not source.is_dir():
        raise LockFailed("it is editable, and its folder is gone")
    with tempfile.TemporaryDirectory(prefix="mlops-wheel-") as place:
        words = ("build", "--wheel", "--out-dir", place, "--python", sys.executable, "--quiet", str(source))
        done = uv(*words, offline=offline)
        if done.returncode != 0:  # its builder may be installed here, where the index has none
            again = uv(*words, "--no-build-isolation", offline=True)
            if again.returncode != 0:
                raise LockFailed("no wheel could be built from its folder", cause=told(done))
        wheels = sorted(Path(place).glob("*.whl"))
        if len(wheels) != 1:
            raise LockFailed("no wheel could be built from its folder")
        target = folder / wheels[0].name
        target.write_bytes(wheels[0].read_bytes())
    return target


def repacked(one: metadata.Distribution, folder: Path) -> tuple[Path, str]:
    """Pack an installed package's files into a wheel again, the same bytes every time.

    Returns
    -------
    tuple
        The wheel, and what is to be said of it: files that are not as they were installed.

    Raises
    ------
    LockFailed
        Its files are not listed, or one is gone.
    """
    tags = re.findall(r"^Tag:\s*(\S+)$", one.read_text("WHEEL") or "", re.MULTILINE)
    if not one.files or not tags:
        raise LockFailed("its installer left no list of its files")
    name = re.sub(r"[-_.]+", "_", one.metadata["Name"]).lower()
    stem = f"{name}-{one.version}"
    base = os.path.realpath(str(one.locate_file("")))
    entries: dict[str, bytes] = {}
    changed = []
    for path in one.files:
        inside = str(path)
        if "__pycache__" in path.parts or path.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            continue
        if ".." in path.parts or os.path.isabs(inside):
            full = os.path.normpath(os.path.join(base, inside))
            relative = os.path.relpath(full, os.path.realpath(sys.prefix))
            if relative.startswith(("..", "bin" + os.sep)):
                continue  # what an installer makes itself from the entry points
            inside = f"{stem}.data/data/{relative}"
        try:
            data = Path(str(one.locate_file(path))).read_bytes()
        except OSError as error:
            raise LockFailed(f"its file {path} is gone") from error
        said = path.hash
        if said is not None and said.mode == "sha256" and _hash(data) != said.value:
            changed.append(str(path))
        entries[re.sub(r"^[^/]+\.dist-info/", f"{stem}.dist-info/", inside)] = data
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for inside, data in sorted(entries.items()):
        rows.writerow((inside, f"sha256={_hash(data)}", len(data)))
    rows.writerow((f"{stem}.dist-info/RECORD", "", ""))
    parts = [".".join(sorted({part for tag in tags for part in tag.split("-")[at].split(".")})) for at in range(3)]
    target = folder / f"{stem}-{'-'.join(parts)}.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for inside, data in [*sorted(entries.items()), (f"{stem}.dist-info/RECORD", record.getvalue().encode())]:
            info = zipfile.ZipInfo(inside, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(info, data)
    return target, f"not as it was installed: {', '.join(changed[:5])}" if changed else ""


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


# -- reading a lock --------------------------------------------------------------------------------------------------


def read_lock(path: Path) -> Lock:
    """Read a ``pylock.toml``.

    Raises
    ------
    LockInvalid
        It can not be read, is no such lock, or names files that could lie anywhere.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        raise LockInvalid(f"{path.name} can not be read", cause=error.strerror or "") from error
    if len(raw) > _LIMIT:
        raise LockInvalid(f"{path.name} is too large for a lock", cause=f"more than {_LIMIT >> 20} MiB")
    pylock = door("packaging.pylock", "env")
    try:
        table = tomllib.loads(raw.decode())
        pylock.Pylock.from_dict(table)  # the standard's own rules: names, versions, hashes, file names
        own = table.get("tool", {}).get(_TOOL, {})
        packages = [_read_package(one) for one in table["packages"]]
        python = str(own.get("python") or _minor(str(table.get("requires-python", ""))))
        gaps = msgspec.convert(own.get("gaps", []), tuple[Gap, ...])
        return Lock(
            python=check_python(python), implementation=str(own.get("implementation", "CPython")),
            packages=tuple(packages), scope=str(own.get("scope", "all")), source=str(own.get("source", path.name)),
            gaps=gaps,
        )  # fmt: skip
    except MlopsError as error:
        raise LockInvalid(f"{path.name} is no lock that can be read", cause=str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, msgspec.MsgspecError) as error:
        raise LockInvalid(f"{path.name} is no lock that can be read", cause=str(error)[:300]) from error
    except pylock.PylockValidationError as error:
        raise LockInvalid(f"{path.name} is no lock that can be read", cause=str(error)[:300]) from error


def _minor(text: str) -> str:
    found = re.search(r"3\.\d+(?:\.\d+)?", text)
    return found[0] if found else ""


def _read_package(table: Mapping[str, Any]) -> LockedPackage:
    name = str(table["name"])
    if "version" not in table or not (table.get("wheels") or table.get("sdist")):
        raise LockInvalid(f"{name} is locked to no files")
    kept = table.get("tool", {}).get(_TOOL, {}).get("objects", {})
    found = []
    for one in [*table.get("wheels", ()), *([table["sdist"]] if "sdist" in table else ())]:
        file = _file(one)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,300}", file.name):
            raise LockInvalid(f"a file of {name} has no plain name")
        if file.name in kept:
            file = msgspec.structs.replace(file, object=_object(kept[file.name]))
        found.append(file)
    return LockedPackage(name=canonical(name), version=str(table["version"]), files=tuple(found))


def _object(text: Any) -> Digest:
    try:
        return as_digest(str(text))
    except RecordInvalid as error:
        raise LockInvalid(str(error)) from error
