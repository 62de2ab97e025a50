"""What a headless run's result follows from, found when it is over: so that one that would do the same may be skipped.

A run is judged by its record. What its cells read that none of them had written are its inputs; what they wrote is its
result. Whatever would have another outcome without any of that having changed (a network, the time, a program that was
started, a gap in the record) makes that the run is never taken over, and the reason is kept. Random numbers that were
not seeded do not: a run that drew others would follow from the same, and that it drew them is on record.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops import seals
from jupyter_mlops.access.looking import OURS, Looks
from jupyter_mlops.environment.loaded import Loaded
from jupyter_mlops.fingerprints.files import file_digest
from jupyter_mlops.git import holds_credentials
from jupyter_mlops.lineage.volatile import Use, uses_in
from jupyter_mlops.pipelines.parameters import code_cells, language_of, source_of, tags_of
from jupyter_mlops.pipelines.unchanged import PASSING
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, CellRun, Digest, decode, digest_of, encode
from jupyter_mlops.redact import Redactor

FORMAT: Final = 3
"""Of a basis, and of what it is found by: one of another format is not taken."""

_DURATIONS: Final = re.compile(
    r"time\.(?:perf_counter|monotonic|process_time|thread_time)(?:_ns)?|timeit\.default_timer"
)
"""Clocks whose zero is anywhere: only how long something took can be told by them."""
_SEEN: Final = frozenset(
    "os.environ os.environb os.getenv os.getenvb os.path.expandvars os.path.expanduser pathlib.Path.home "
    "getpass.getuser dotenv.load_dotenv dotenv.dotenv_values".split()
)
"""Looks at the environment that go through variables of the process: which ones is seen when they run."""
_LASTING: Final = ("link", "pipe", "signal", "program")
"""In the words of what a cell did beside writing files: it may be undone by now, and is not put back."""
_UNSEEN: Final = frozenset({"processes", "modules", "files", "sources", "cell", "session", "network", "cells"})
"""Subjects of gaps behind which an input may be hidden."""
_TELLS_OF_THE_MACHINE: Final = re.compile(
    r"a subprocess ran \((?:lscpu|nproc|uname|arch|getconf|sysctl|ldconfig|nvidia-smi)\)"
)
"""Programs that libraries ask how many cores there are and the like: they read no data."""
_IMPORT: Final = re.compile(r"^\s*(?:import|from)\s+([A-Za-z_]\w*)", re.MULTILINE)
_SCANNED: Final = 1 << 20  # bytes of a text that is searched for secrets before it is kept
_KNOWN_SCANNED: Final = 16 << 20  # bytes of a file that is searched for the secrets that are known by value


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """Which interpreter a kernel's name means.

    Attributes
    ----------
    spec
        The file that says so.
    earlier
        Where one of that name would come before it.
    here
        Whether it is the interpreter that starts the run.
    startup
        Files that IPython runs or reads in every kernel.
    machine
        The processor, how many of its cores may be used, and the GPUs.
    """

    spec: Artifact
    earlier: list[str] = []
    here: bool = False
    startup: list[Artifact] = []
    machine: str = ""


class Basis(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run's result follows from, and what the result is.

    Attributes
    ----------
    code
        The digest of the notebook's code: see `code_digest`.
    read
        Files, folders and local modules it read, as they were before it.
    variables
        Variables of the process that say something of the environment; and by name those that its cells read.
    asked
        Names of the variables that its cells read; ``*`` where one went through all of them.
    kinds, stats, listings
        What its cells asked of paths: what is there, size and time of change, the names in a folder.
    made
        Folders it made.
    loaded
        The object that holds what was loaded.
    kernel
        Which interpreter it ran in.
    output
        The output notebook.
    wrote
        Files it left; with ``type`` ``absent`` those it took away.
    never
        Why it is never taken over, where it is not.
    notes
        What whoever takes it over is told.
    seal
        Made by the machine that kept it, for that run and the words it was asked for in: see `sealed`.
    """

    format: int = FORMAT
    code: Digest
    read: list[Artifact] = []
    variables: dict[str, str] = {}
    asked: list[str] = []
    kinds: dict[str, str] = {}
    stats: dict[str, tuple[int, int]] = {}
    listings: dict[str, str] = {}
    made: list[str] = []
    loaded: Digest | None = None
    kernel: Kernel | None = None
    output: Artifact | None = None
    wrote: list[Artifact] = []
    never: list[str] = []
    notes: list[str] = []
    seal: str = ""


def sealed(basis: Basis, run: Digest, name: Digest, key: bytes) -> str:
    """The seal of a basis: what is taken over writes files, so a store that comes from elsewhere is not followed.

    Parameters
    ----------
    run
        The run.
    name
        What it is found by (`name_of`).
    key
        This user's on this machine (`seals.local_key`).
    """
    bare = digest_of(encode(msgspec.structs.replace(basis, seal="")))
    return seals.seal(key, f"{run}\0{name}\0{bare}", use="basis-1")


def name_of(notebook: str, parameters: Mapping[str, Any], kernel: str, folder: str) -> Digest:
    """What runs of a notebook that may stand for one another are found by: all that is said in asking for one."""
    return digest_of(encode([FORMAT, notebook, dict(parameters), kernel, folder], sort=True))


def code_digest(book: Mapping[str, Any], redactor: Redactor) -> Digest:
    """The digest of what a notebook says to do: its code cells with their tags, secrets masked, and its language."""
    cells = [[redactor.text(source_of(cell))[0], sorted(map(str, tags_of(cell)))] for cell in code_cells(book)]
    return digest_of(encode([language_of(book), cells]))


def imports_in(sources: Iterable[str]) -> list[str]:
    """The first names of the modules that cells import, also of those that are not there."""
    return sorted({name for source in sources for name in _IMPORT.findall(source)})


def kernel_of(name: str, kernels: Path | None, project: Project) -> Kernel | None:
    """Which interpreter a kernel's name means here; None where that cannot be said."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    specs = KernelSpecManager() if kernels is None else KernelSpecManager(kernel_dirs=[str(kernels)])
    try:
        spec = specs.get_kernel_spec(name)
    except NoSuchKernel:
        return None
    path = Path(spec.resource_dir, "kernel.json")
    made = file_digest(path)
    if made.digest is None:
        return None
    earlier = []
    for folder in specs.kernel_dirs:
        if os.path.normcase(os.path.join(folder, name)) == os.path.normcase(spec.resource_dir):
            break
        earlier.append(project.relative(os.path.join(folder, name, "kernel.json")))
    return Kernel(
        spec=Artifact(name=project.relative(path), kind="file", digest=made.digest), earlier=earlier,
        here=bool(spec.argv) and re.fullmatch(r"python3?(?:\.\d+)?", spec.argv[0]) is not None,
        startup=[
            Artifact(name=project.relative(one), kind="file", digest=file_digest(one).digest)
            for one in startup_files(project.environ) if one.is_file()
        ],
        machine=machine_here(),
    )  # fmt: skip


def startup_files(environ: Mapping[str, str]) -> list[Path]:
    """The files that IPython runs or reads in every kernel, whether or not they are there."""
    base = Path(environ.get("IPYTHONDIR") or Path(environ.get("HOME", "/"), ".ipython"), "profile_default")
    scripts = sorted(one for one in (base / "startup").glob("*") if one.suffix in (".py", ".ipy"))
    return [*scripts, base / "ipython_config.py", base / "ipython_kernel_config.py"]


def machine_here() -> str:
    """The processor, how many of its cores may be used, and the GPUs."""
    from jupyter_mlops.environment import machine

    gpus, driver = machine.driver()
    return " | ".join([machine.cpu(), str(machine.cores()), *gpus, driver])


def basis_of(
    project: Project, cells: Sequence[CellRun], *, book: Mapping[str, Any], parameters: Mapping[str, Any],
    environ: Mapping[str, str], kernel: Kernel | None, loaded: Digest | None, looked: Digest | None,
    output: Artifact | None, ran: int,
) -> Basis:  # fmt: skip
    """Find what a run's result follows from, and keep the files it left.

    Parameters
    ----------
    project
        Where it is recorded.
    cells
        Its cell runs, in their order.
    book
        The notebook as it was given.
    parameters
        What it was given.
    environ
        The variables its kernel began with.
    kernel, loaded, looked
        Which interpreter it ran in; the objects that hold what was loaded at its end, and what its cells looked for.
    output
        The output notebook.
    ran
        How many of its cells ran.
    """
    redactor = project.redactor()
    looks = decode(project.store.get(looked), dict[str, Looks]) if looked is not None else {}
    doings = Doings()
    for one in cells:
        doings.take(one, looks.get(one.id))
    doings.settle()
    never = list(doings.never)
    if any(one.id not in looks for one in cells):
        never.append("what its cells looked for is not on record")
    if len(cells) != ran:
        never.append(f"{ran - len(cells)} of its {ran} cells are not on record")
    if redactor.value(dict(parameters))[1]:
        never.append("its parameters hold a secret, which is not on record")
    if loaded is None:
        never.append("what was loaded is not on record")
    else:
        never += [
            f"{name} was changed while the run had it loaded"
            for name in decode(project.store.get(loaded), Loaded).younger
        ]
    if kernel is None:
        never.append("which interpreter its kernel's name means is not known")
    sources = [one.source for one in cells]
    modules = [found for one in doings.read.values() if one.kind == "module" and (found := _text(project, one))]
    _uses(sources, modules, never)
    # Who goes through all of them reads each by name.
    asked = ["*"] if "*" in doings.variables else sorted(doings.variables)
    secret = next(
        (name for name in asked if name in environ and name not in PASSING and redactor.secret(name, environ[name])),
        "",
    )
    if secret:
        never.append(f"it reads the variable {secret}, a secret, which is not on record")
    variables = recorded(environ, asked, redactor)
    keeper = _Keeper(project)
    written = [kept for one in doings.wrote.values() for kept in keeper.keep(one, never)]
    if output is not None:
        output = keeper.file(project.path(output.name), output.name, never)
    return Basis(
        code=code_digest(book, redactor), read=list(doings.read.values()), variables=variables, asked=asked,
        kinds=doings.kinds, stats=doings.stats, listings=doings.listings, made=list(doings.made),
        loaded=loaded, kernel=kernel, output=output, wrote=written, never=list(dict.fromkeys(never)),
        notes=doings.notes(),
    )  # fmt: skip


def recorded(environ: Mapping[str, str], asked: Iterable[str], redactor: Redactor) -> dict[str, str]:
    """The variables of a process that a result may follow from: those on a record, and those that cells read."""
    from jupyter_mlops.environment.observing import recorded_variables

    found = recorded_variables(environ, redactor)
    for name in asked:
        if name == "*":
            rest = sorted(item for item in environ.items() if not item[0].startswith(OURS) and item[0] not in PASSING)
            masked = [[one, "" if redactor.secret(one, value) else redactor.text(value)[0]] for one, value in rest]
            found["read:*"] = digest_of(encode(masked))
        elif name in environ:
            found[f"read:{name}"] = redactor.text(environ[name])[0]
    return found


class Doings:
    """What a run read and wrote, found from its cell runs in their order.

    Attributes
    ----------
    read
        What it read that none of its cells had written, by name.
    wrote
        What it wrote, as it was last.
    never
        Why its result may differ though nothing of that has changed.
    """

    def __init__(self) -> None:
        self.read: dict[str, Artifact] = {}
        self.wrote: dict[str, Artifact] = {}
        self.never: list[str] = []
        self.kinds: dict[str, str] = {}
        self.stats: dict[str, tuple[int, int]] = {}
        self.listings: dict[str, str] = {}
        self.made: dict[str, None] = {}
        self.added: set[str] = set()
        self.variables: set[str] = set()
        self._unseeded: set[str] = set()

    def take(self, one: CellRun, looks: Looks | None = None) -> None:
        """Take in a cell run, and what it looked for where that is known."""
        where = f"cell {one.started.count or '?'}"
        for file in one.files_read:
            self._reads(file, where)
        ended = one.ended
        if ended is not None:
            for module in ended.modules:
                self._reads(module, where)
            self.never += [f"{where} asks {source.name}" for source in ended.sources]
            self._unseeded |= {name for name, how in ended.randomness.items() if how == "unseeded"}
        else:
            self.never.append(f"{where} has no end on record")
        for gap in one.gaps:
            if _TELLS_OF_THE_MACHINE.match(gap.reason):
                continue
            if gap.blocks or gap.subject in _UNSEEN or gap.subject in self.read:
                self.never.append(f"{where}: {gap.subject}: {gap.reason}")
        if looks is not None:
            self._looks(looks, where)
        for file in one.files_written:
            self.wrote[file.name] = file

    def _reads(self, file: Artifact, where: str) -> None:
        made, known = self.wrote.get(file.name), self.read.get(file.name)
        if made is not None:
            if made.digest and file.digest and made.digest != file.digest and file.kind == "file":
                self.never.append(f"{where} reads {file.name}, which was changed after a cell wrote it")
            return
        if any(file.name.startswith(f"{folder}/") for folder, one in self.wrote.items() if one.type == "folder"):
            return
        if file.digest is None:
            self.never.append(f"{where} reads {file.name}: {file.why or 'it has no digest'}")
        elif known is not None and known.digest != file.digest:
            self.never.append(f"{file.name} was changed while the run was going")
        else:
            self.read[file.name] = msgspec.structs.replace(file, made=None, stored=False, facts=None)

    def _looks(self, looks: Looks, where: str) -> None:
        """Take in what a cell asked of paths that no cell of the run had written; what was asked first counts."""
        tables: list[tuple[dict[str, Any], Mapping[str, Any]]] = [
            (self.kinds, looks.kinds), (self.stats, looks.stats), (self.listings, looks.listings)
        ]  # fmt: skip
        for known, asked in tables:
            for name, found in asked.items():
                if name not in self.wrote and not _comes_and_goes(name):
                    known.setdefault(name, found)
        self.made.update((name, None) for name in looks.folders if not _comes_and_goes(name))
        self.added.update(name for name in looks.added if name in self.kinds)
        self.variables.update(looks.variables)
        for effect in looks.effects:
            if any(word in effect for word in _LASTING):
                self.never.append(f"{where}: {effect}, which is not put back")

    def settle(self) -> None:
        """Leave out what was asked of what the run itself left: what is there of that is its result, and no input.

        But for what was added to: another run adds more.
        """
        for known in (self.kinds, self.stats):
            for name in [name for name in known if name in self.wrote or name in self.made]:
                if name not in self.added:
                    del known[name]

    def notes(self) -> list[str]:
        """What whoever takes the result over is told."""
        return [f"{name} was not seeded: another run draws other numbers" for name in sorted(self._unseeded)]


def _comes_and_goes(name: str) -> bool:
    """Whether a name lies in the folder for temporary files, outside of the project: there it is another every time."""
    return name.startswith(os.path.realpath(tempfile.gettempdir()) + os.sep)


def _uses(sources: Sequence[str], modules: Sequence[str], never: list[str]) -> None:
    """Add to `never` what code looks at beyond the notebook."""
    # Whatever stands in a module's functions may be called: each is taken as mentioned.
    whole = [text for module in modules for text in (module, "\n".join(re.findall(r"^\s*def (\w+)", module, re.M)))]
    for place, uses in enumerate(_all_uses(sources, whole)):
        where = f"cell {place + 1}" if place < len(sources) else "a local module"
        for use in uses:
            if use.what == "randomness" or (use.what == "time" and _DURATIONS.fullmatch(use.call)):
                continue
            if use.call not in _SEEN:
                never.append(f"{where} {_WORDS.get(use.what, 'looks beyond the notebook')} ({use.call})")


_WORDS: Final = {
    "time": "asks for the time",
    "network": "may use the network",
    "environment": "asks who and where it is",
}


def _all_uses(sources: Sequence[str], modules: Sequence[str]) -> list[tuple[Use, ...]]:
    found = uses_in(sources)
    for module, mentions in zip(modules[::2], modules[1::2], strict=True):
        found += uses_in([module, mentions])
    return found


def _text(project: Project, module: Artifact) -> str:
    if module.digest is None or not project.store.has(module.digest):
        return ""
    return project.store.get(module.digest).decode("utf-8", "replace")


class _Keeper:
    """Keeps the files that a run left, within a limit."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.left = project.settings.keep_files_mb << 20

    def keep(self, one: Artifact, never: list[str]) -> list[Artifact]:
        """A file as it is now that the run is over, its bytes kept where that may be; a folder's files each."""
        path = self.project.path(one.name)
        if one.name.startswith("package:"):
            never.append(f"it wrote into an installed package ({one.name})")
            return []
        if not path.exists():
            if one.digest is not None:
                never.append(f"{one.name} was taken away after the run wrote it")
            return [Artifact(name=one.name, kind="file", type="absent")]
        if path.is_dir():
            files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
            return [self.file(file, self.project.relative(file), never) for file in sorted(files)]
        found = self.file(path, one.name, never)
        if one.digest is not None and found.digest is not None and found.digest != one.digest:
            never.append(f"{one.name} was changed after the run wrote it")
        return [found]

    def file(self, path: Path, name: str, never: list[str]) -> Artifact:
        """A file as it is now, its bytes kept where that may be."""
        made = file_digest(path)
        if made.digest is None:
            never.append(f"it wrote {name}, which has no digest: {made.why}")
            return Artifact(name=name, kind="file", why=made.why)
        why = self._why_not(path, name, made.size)
        if not why:
            self.left -= made.size
            if self.project.store.put(path) != made.digest:
                never.append(f"{name} was changed while it was kept")
        return Artifact(name=name, kind="file", digest=made.digest, size=made.size, stored=not why, why=why)

    def _why_not(self, path: Path, name: str, size: int) -> str:
        if holds_credentials(name):
            return "not kept: its name is that of a file of secrets"
        if size > self.left:
            return f"not kept: the files of one run are kept up to {self.project.settings.keep_files_mb} MB"
        if size <= _KNOWN_SCANNED and self._holds_secret(path, size):
            return "not kept: it holds a secret"
        return ""

    def _holds_secret(self, path: Path, size: int) -> bool:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        redactor = self.project.redactor()
        if size <= _SCANNED and "\0" not in text:
            return redactor.text(text)[1] > 0
        return redactor.known(text)[1] > 0
