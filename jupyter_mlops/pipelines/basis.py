"""What a headless run's result follows from, found when it is over: so that one that would do the same may be skipped.

A run is judged by its record. What its cells read that none of them had written are its inputs; what they wrote is its
result. Whatever would have another outcome without any of that having changed (a network, the time, a program that was
started, a gap in the record) makes that the run is never taken over, and the reason is kept. Random numbers that were
not seeded do not: a run that drew others would follow from the same, and that it drew them is on record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.environment.loaded import Loaded
from jupyter_mlops.fingerprints.files import file_digest
from jupyter_mlops.git import holds_credentials
from jupyter_mlops.lineage.volatile import Use, uses_in
from jupyter_mlops.pipelines.parameters import code_cells, language_of, source_of, tags_of
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, CellRun, Digest, decode, digest_of, encode
from jupyter_mlops.redact import Redactor

FORMAT: Final = 1
"""Of a basis, and of what it is found by: one of another format is not taken."""

_DURATIONS: Final = re.compile(
    r"time\.(?:perf_counter|monotonic|process_time|thread_time)(?:_ns)?|timeit\.default_timer"
)
"""Clocks whose zero is anywhere: only how long something took can be told by them."""
_VARIABLE: Final = re.compile(r"""environ\s*(?:\.get\s*\(|\[)\s*["']([^"']+)["']|getenv\s*\(\s*["']([^"']+)["']""")
_READS_VARIABLES: Final = frozenset({"os.environ", "os.getenv"})
_UNSEEN: Final = frozenset({"processes", "modules", "files", "sources", "cell", "session", "network", "cells"})
"""Subjects of gaps behind which an input may be hidden."""
_TELLS_OF_THE_MACHINE: Final = re.compile(
    r"a subprocess ran \((?:lscpu|nproc|uname|arch|getconf|sysctl|ldconfig|nvidia-smi)\)"
)
"""Programs that libraries ask how many cores there are and the like: they read no data."""
_IMPORT: Final = re.compile(r"^\s*(?:import|from)\s+([A-Za-z_]\w*)", re.MULTILINE)
_SCANNED: Final = 1 << 20  # bytes of a text that is searched for secrets before it is kept


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
    """

    spec: Artifact
    earlier: list[str] = []
    here: bool = False


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
        Names of the variables that its cells read.
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
    """

    format: int = FORMAT
    code: Digest
    read: list[Artifact] = []
    variables: dict[str, str] = {}
    asked: list[str] = []
    loaded: Digest | None = None
    kernel: Kernel | None = None
    output: Artifact | None = None
    wrote: list[Artifact] = []
    never: list[str] = []
    notes: list[str] = []


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
    )  # fmt: skip


def basis_of(
    project: Project, cells: Sequence[CellRun], *, book: Mapping[str, Any], parameters: Mapping[str, Any],
    environ: Mapping[str, str], kernel: Kernel | None, loaded: Digest | None, output: Artifact | None, ran: int,
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
    kernel, loaded
        Which interpreter it ran in; the object that holds what was loaded at its end.
    output
        The output notebook.
    ran
        How many of its cells ran.
    """
    redactor = project.redactor()
    doings = Doings()
    for one in cells:
        doings.take(one)
    never = list(doings.never)
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
    asked = _uses(sources, modules, never, redactor)
    variables = recorded(environ, asked, redactor)
    keeper = _Keeper(project)
    written = [kept for one in doings.wrote.values() for kept in keeper.keep(one, never)]
    if output is not None and output.digest is not None:
        project.store.put(project.path(output.name))
        output = msgspec.structs.replace(output, stored=project.store.has(output.digest))
    return Basis(
        code=code_digest(book, redactor), read=list(doings.read.values()), variables=variables, asked=asked,
        loaded=loaded, kernel=kernel, output=output, wrote=written, never=list(dict.fromkeys(never)),
        notes=doings.notes(),
    )  # fmt: skip


def recorded(environ: Mapping[str, str], asked: Iterable[str], redactor: Redactor) -> dict[str, str]:
    """The variables of a process that a result may follow from: those on a record, and those that cells read."""
    from jupyter_mlops.environment.observing import recorded_variables

    found = recorded_variables(environ, redactor)
    found.update((f"read:{name}", redactor.text(environ[name])[0]) for name in asked if name in environ)
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
        self._unseeded: set[str] = set()

    def take(self, one: CellRun) -> None:
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

    def notes(self) -> list[str]:
        return [f"{name} was not seeded: another run draws other numbers" for name in sorted(self._unseeded)]


def _uses(sources: Sequence[str], modules: Sequence[str], never: list[str], redactor: Redactor) -> list[str]:
    """The variables of the process that code reads; to `never` is added what else it looks at beyond the notebook."""
    asked: set[str] = set()
    # Whatever stands in a module's functions may be called: each is taken as mentioned.
    whole = [text for module in modules for text in (module, "\n".join(re.findall(r"^\s*def (\w+)", module, re.M)))]
    for place, (text, uses) in enumerate(zip((*sources, *whole), _all_uses(sources, whole), strict=True)):
        where = f"cell {place + 1}" if place < len(sources) else "a local module"
        for use in uses:
            if use.what == "environment" and use.call in _READS_VARIABLES:
                names = {one or other for one, other in _VARIABLE.findall(text)}
                if not names or len(_VARIABLE.findall(text)) < len(re.findall(r"environ\b|getenv\b", text)):
                    never.append(f"{where} reads variables of the process that cannot be told from its text")
                elif secret := sorted(filter(redactor.secret_name, names)):
                    never.append(f"{where} reads {secret[0]}, a secret, which is not on record")
                else:
                    asked |= names
            elif not (use.what == "randomness" or (use.what == "time" and _DURATIONS.fullmatch(use.call))):
                never.append(f"{where} {_WORDS.get(use.what, 'looks beyond the notebook')} ({use.call})")
    return sorted(asked)


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
            return [self._file(file, self.project.relative(file), never) for file in sorted(files)]
        found = self._file(path, one.name, never)
        if one.digest is not None and found.digest is not None and found.digest != one.digest:
            never.append(f"{one.name} was changed after the run wrote it")
        return [found]

    def _file(self, path: Path, name: str, never: list[str]) -> Artifact:
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
        if size <= _SCANNED:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            if "\0" not in text:
                return "not kept: it holds a secret" if self.project.redactor().text(text)[1] else ""
        return ""
