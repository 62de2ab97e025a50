"""What a cell looked for beside what it read: whether a file is there, what a folder lists, variables of the process.

That is more than a record needs, and it stands on functions that are called often; so it is on only where a cell may
be recalled instead of run (`Access.look`). Then it must be known what the cell found: a file that was absent and is
there now may change what the cell does, though the cell read nothing.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, Final

import msgspec

from jupyter_mlops.access.files import at, plain_path
from jupyter_mlops.access.tracing import MUTED, Trace, current, problem, traces
from jupyter_mlops.access.wrapping import Call, place, reporting, when_imported
from jupyter_mlops.records import digest_of

_ASKING: Final = frozenset({
    "exists", "isfile", "isdir", "islink", "lexists", "is_file", "is_dir", "is_symlink", "realpath", "_joinrealpath",
    "ismount", "samefile", "resolve",
})  # fmt: skip
_PATHS: Final = ("genericpath", "posixpath", "pathlib", "pathlib._local", "pathlib._abc", "pathlib._os")
_MAKING: Final = ("makedirs", "mkdir")
OURS: Final = ("JUPYTER_MLOPS_", "JPY_")
"""How the variables begin that an engine sets for its kernel: another value for each run, and nobody's input."""


class Looks(msgspec.Struct):
    """What one cell looked for; by absolute path, where it is a file or folder.

    Attributes
    ----------
    kinds
        Whether something was there: ``file``, ``folder``, ``other``, or empty where nothing was.
    added
        Those of them that were then added to, or made only where there was none: run once more, it does something else.
    stats
        Size and time of change, where those were asked for; the time is 0 where a library asked.
    listings
        The digest of a folder's names.
    folders
        Folders that were made.
    variables
        Names of variables of the process; ``*`` where all were gone through.
    modules
        Modules that were asked for and not found.
    effects
        What it did that cannot be put back, in words.
    """

    kinds: dict[str, str] = {}
    added: dict[str, None] = {}
    stats: dict[str, tuple[int, int]] = {}
    listings: dict[str, str] = {}
    folders: dict[str, None] = {}
    variables: dict[str, None] = {}
    modules: dict[str, None] = {}
    effects: dict[str, None] = {}

    def spelled(self, spell: Callable[[str], str]) -> Looks:
        """The same with its paths as records spell them."""
        names = {field: {spell(path): found for path, found in getattr(self, field).items()}
                 for field in ("kinds", "added", "stats", "listings", "folders")}  # fmt: skip
        return msgspec.structs.replace(self, **names)


def kind_of(path: str) -> str:
    """What is there under a path: ``file``, ``folder``, ``other``; empty where nothing is."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # not there, or no path at all: the same to whoever asks
        return ""
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def stat_of(path: str) -> tuple[int, int]:
    """Size and time of change; (-1, -1) where nothing is there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # as above
        return -1, -1
    return (0 if stat.S_ISDIR(found.st_mode) else found.st_size), found.st_mtime_ns


def listing_of(path: str) -> str:
    """The digest of a folder's names; empty where there is none."""
    try:
        found = sorted(os.listdir(path))
    except OSError:  # not there, or not ours to see
        return ""
    return digest_of("\0".join(found).encode("utf-8", "surrogatepass"))


def _mine(path: Any) -> list[tuple[Trace, Looks, str]]:
    """Whose look at a path it is; of none where it is no path whose name is recorded, or one that the cell wrote."""
    text = plain_path(path)
    if text is None:
        return []
    found = []
    for trace in traces():
        if trace.looks is None or trace.versions is None:
            continue
        full = os.path.abspath(text)
        name = trace.versions.name(full)
        touched = trace.files.get(full)
        if name is None or name.startswith("package:") or (touched is not None and touched.written):
            continue
        if full not in trace.looks.folders:
            found.append((trace, trace.looks, full))
    return found


def _ours(depth: int = 3) -> bool:
    """Whether it is this package that calls what is wrapped, as when it keeps what a cell shows."""
    frame: Any = sys._getframe(depth)
    while frame is not None and frame.f_globals.get("__name__") in (*_PATHS, "os", "shutil", "tempfile"):
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("jupyter_mlops")


def missing(path: Any) -> None:
    """A file was to be opened, and was not there."""
    for _, looks, full in _mine(path):
        looks.kinds.setdefault(full, "")


def _of_imports(frame: Any) -> bool:
    """Whether what asks is after what is installed: that is known otherwise, and no other file of a folder matters."""
    name = frame.f_globals.get("__name__")
    return type(name) is str and name.startswith(("importlib.metadata", "importlib_metadata", "pkg_resources"))


def _stat(call: Call) -> None:
    if _of_imports(sys._getframe(2)):
        return
    path = call.argument(0, "path")
    if _ours():
        return
    frame: Any = sys._getframe(2)
    asking = False
    while frame is not None and frame.f_globals.get("__name__") in (*_PATHS, "os"):
        name = frame.f_code.co_name
        if name in _MAKING:
            return  # what was made is told by `mkdir`
        asking = asking or name in _ASKING
        frame = frame.f_back
    for trace, looks, full in _mine(path):
        token = current.set(MUTED)
        try:
            if asking:
                looks.kinds.setdefault(full, kind_of(full))
            else:
                size, changed = stat_of(full)
                # Libraries look at files before they read them, and mean no more than that they are there.
                looks.stats.setdefault(full, (size, changed if _of_user(frame, trace) else 0))
        finally:
            current.reset(token)


def _of_user(frame: Any, trace: Trace) -> bool:
    """Whether it is the notebook, or a module of the project, that asks."""
    if frame is None or frame.f_globals.get("__name__") == "__main__":
        return True
    path = frame.f_globals.get("__file__")
    if type(path) is not str or trace.versions is None:
        return False
    name = trace.versions.name(os.path.abspath(path))
    return name is not None and not name.startswith("package:")


def _list(call: Call) -> None:
    if _of_imports(sys._getframe(2)):
        return
    path = call.argument(0, "path")
    if _ours():
        return
    for trace, looks, full in _mine("." if path is None else path):
        if any(os.path.dirname(one) == full and touched.written for one, touched in trace.files.items()):
            looks.effects["it lists a folder after it wrote into it"] = None
        token = current.set(MUTED)
        try:
            looks.listings.setdefault(full, listing_of(full))
        finally:
            current.reset(token)


def _mkdir(call: Call) -> None:
    if _ours():
        return
    frame: Any = sys._getframe(2)
    name, space = frame.f_code.co_name, frame.f_locals
    fine = name in _MAKING and frame.f_globals.get("__name__") in (*_PATHS, "os") and space.get("exist_ok")
    for _, looks, full in _mine(call.argument(0, "path")):
        if not fine:
            token = current.set(MUTED)
            try:
                looks.kinds.setdefault(full, kind_of(full))
            finally:
                current.reset(token)
        looks.folders[full] = None


def _effect(words: str) -> Any:
    def before(_call: Call) -> None:
        if _ours():
            return
        for trace in traces():
            if trace.looks is not None:
                trace.looks.effects[words] = None

    return reporting(before, None)


def _entropy(_call: Call) -> None:
    frame = sys._getframe(2)
    for trace in traces():
        # Libraries name their temporary files by it.
        if trace.looks is not None and _of_user(frame, trace):
            trace.looks.effects["it asks for fresh entropy"] = None


def _rmdir(call: Call) -> None:
    path = at(call.argument(0, "path"), call.kwargs.get("dir_fd"))
    if _ours():
        return
    for trace in traces():
        if trace.looks is not None:
            full = os.path.abspath(path) if path is not None else ""
            if full in trace.looks.folders:  # one that the cell itself had made
                del trace.looks.folders[full]
            else:
                trace.looks.effects["it removes a folder"] = None


def _variable(call: Call) -> None:
    name = call.args[0] if call.args else None
    if type(name) is str and not name.startswith(OURS) and not _ours():
        for trace in traces():
            if trace.looks is not None:
                trace.looks.variables[name] = None


def _variables(_call: Call) -> None:
    for trace in traces():
        if trace.looks is not None:
            trace.looks.variables["*"] = None


class _Finder:
    """Stands last among the finders of modules: what it is asked for, no other has found."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG004
        """Note a module that is not there."""
        try:
            for trace in traces():
                if trace.looks is not None:
                    trace.looks.modules[name] = None
        except BaseException as error:  # an import of the user's must not fail by us
            if problem(error):
                raise
        return None


def _wire_os(module: Any) -> None:
    for name, wrapper in {
        "stat": reporting(_stat), "lstat": reporting(_stat), "access": reporting(_stat), "readlink": reporting(_stat),
        "listdir": reporting(_list), "scandir": reporting(_list), "mkdir": reporting(_mkdir),
        "rmdir": reporting(_rmdir), "symlink": _effect("it makes a link"),
        "link": _effect("it makes a link"), "chmod": _effect("it changes the mode of a file"),
        "utime": _effect("it sets the times of a file"), "truncate": _effect("it cuts a file"),
        "mkfifo": _effect("it makes a pipe"), "kill": _effect("it sends a signal"),
        "system": _effect("it runs a program"), "popen": _effect("it runs a program"),
        "umask": _effect("it changes the modes of the files it makes"), "urandom": reporting(_entropy),
    }.items():  # fmt: skip
        place(module, name, wrapper)
    for name, wrapper in {"__getitem__": reporting(_variable), "__iter__": reporting(_variables)}.items():
        place(module._Environ, name, wrapper)


def wire() -> None:
    """Say what is to be wrapped; once per process."""
    if _wired:
        return
    _wired.append(True)
    when_imported("os", _wire_os)
    _wire_os(os)
    sys.meta_path.append(_Finder)


_wired: list[bool] = []
