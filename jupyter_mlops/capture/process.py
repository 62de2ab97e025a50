"""The state of the process around a cell that is nobody's variable: settings of libraries, modules, generators.

A cell that is recalled is not run, so all that could have made it do something else must be what it was. Only known
places of known libraries are read, and only where the library is loaded; values are compared by digest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from jupyter_mlops.fingerprints import fingerprint, immutable
from jupyter_mlops.fingerprints.walk import dict_of_type, module_dict
from jupyter_mlops.records import digest_of, encode

_OWN: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INERT: Final = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, logging.Logger, types.MethodType,
    types.GenericAlias,
)  # fmt: skip
_FOLDERS: Final = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_LIBRARIES: Final = tuple({os.path.join(one, "") for path in _FOLDERS for one in (path, os.path.realpath(path))})


def digest(value: Any) -> str:
    """A short name for plain values: texts, numbers, lists and dicts of such."""
    return digest_of(encode(value, sort=True))[7:39]


def settings(relative: Callable[[str], str]) -> dict[str, str]:
    """What settings of the process and of loaded libraries stand at, each as a digest.

    Parameters
    ----------
    relative
        Spells paths, so that a folder that was moved is the same.
    """
    found: dict[str, Any] = {
        "working directory": relative(os.getcwd()),
        "sys.path": [relative(one) if one else "" for one in sys.path if type(one) is str],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval()],
        "warnings": [[one[0], _pattern(one[1]), str(one[2]), _pattern(one[3]), one[4]] for one in warnings.filters],
        "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
    }
    loaded = sys.modules
    if "locale" in loaded:
        found["locale"] = loaded["locale"].setlocale(loaded["locale"].LC_ALL)
    if "decimal" in loaded:
        found["decimal"] = repr(loaded["decimal"].getcontext())
    for name, read in _READERS.items():
        if name in loaded and not getattr(getattr(loaded[name], "__spec__", None), "_initializing", False):
            found[name] = read(loaded[name])
    return {name: digest(value) for name, value in found.items()}


@contextlib.contextmanager
def warnings_kept() -> Iterator[None]:
    """Import what is needed for a value, and leave the filters of warnings as they were: libraries add to them."""
    filters = warnings.filters[:]
    try:
        yield
    finally:
        if warnings.filters != filters:
            warnings.filters[:] = filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]


def _pattern(one: Any) -> str:
    return one if type(one) is str else getattr(one, "pattern", "") or ""


def _numpy(numpy: Any) -> Any:
    shown = {key: repr(value) for key, value in numpy.get_printoptions().items()}
    return [shown, numpy.geterr(), numpy.getbufsize()]


def _pandas(config: Any) -> Any:
    def walk(node: Any) -> Any:
        return {key: walk(one) for key, one in node.items()} if type(node) is dict else repr(node)

    return walk(config._global_config)


def _matplotlib(matplotlib: Any) -> Any:
    # dict's own look-up: asking for the backend would choose one; until then a bare object stands there
    held = {key: dict.__getitem__(matplotlib.rcParams, key) for key in dict.keys(matplotlib.rcParams)}
    return {key: "" if type(value) is object else repr(value) for key, value in held.items()}


def _torch(torch: Any) -> Any:
    return [
        str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled,
    ]  # fmt: skip


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "numpy": _numpy,
    "pandas._config.config": _pandas,
    "matplotlib": _matplotlib,
    "sklearn._config": lambda one: {key: repr(value) for key, value in one.get_config().items()},
    "torch": _torch,
    "plotly.io": lambda one: [str(one.templates.default), str(one.renderers.default)],
    "polars.config": lambda one: repr(sorted(one.Config.state().items())),
}


def moment(variables: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What is compared before and after a cell within one process, and means nothing outside of it."""
    import builtins

    pyplot: Any = sys.modules.get("matplotlib._pylab_helpers")
    return {
        "variables": dict(variables),
        "the standard streams": tuple(map(id, (sys.stdout, sys.stderr, sys.stdin, sys.displayhook, sys.excepthook))),
        "builtins": tuple(map(id, vars(builtins).values())),
        "levels and handlers of loggers": {
            name: (one.level, len(one.handlers), one.disabled, one.propagate)
            for name, one in list(logging.root.manager.loggerDict.items())
            if type(one) is logging.Logger
        },
        "figures that are open": tuple(pyplot.Gcf.figs) if pyplot is not None else (),
        "warned": {
            name: len(registry)
            for name, one in list(sys.modules.items())
            if type(one) is types.ModuleType and "__warningregistry__" in (held := module_dict(one))
            and type(registry := held["__warningregistry__"]) is dict and name not in ("__main__", "__mp_main__")
        },
    }  # fmt: skip


def changes(before: dict[str, Any], after: dict[str, Any], fresh: Iterable[str]) -> list[str]:
    """What of two moments differs, in words; what came with modules that were imported meanwhile does not count."""
    found = []
    new = set(fresh)
    for name in ("the standard streams", "builtins", "figures that are open"):
        if before[name] != after[name]:
            found.append(f"it changes {name}")
    loggers = "levels and handlers of loggers"
    if any(after[loggers].get(name) != one for name, one in before[loggers].items()):
        found.append(f"it changes {loggers}")
    then = before["warned"]
    warned = [name for name, count in after["warned"].items() if name not in new and count != then.get(name, 0)]
    if warned:
        found.append(f"it warned from within {warned[0]}, and that is shown once")
    return found


# -- modules -----------------------------------------------------------------------------------------------------------


def imported_since(before: frozenset[str]) -> list[str]:
    """Modules that came into memory, in order, and that importing them by name brings there again."""
    found = []
    for name, one in list(sys.modules.items()):
        if name in before or type(one) is not types.ModuleType or name.partition(".")[0] == "jupyter_mlops":
            continue
        spec = module_dict(one).get("__spec__")
        if spec is not None and spec.loader is not None and spec.name == name:
            found.append(name)
    return found


_files: Final[dict[tuple[str, int], str | None]] = {}


def file_of(name: str) -> str | None:
    """The file of a loaded module that is neither installed nor Python's own nor ours; None for all others."""
    one = sys.modules.get(name)
    if type(one) is not types.ModuleType or name in ("__main__", "__mp_main__"):
        return None
    known = name, id(one)
    if known not in _files:
        _files[known] = _file_of(one)
    return _files[known]


def local() -> list[str]:
    """The loaded modules that have such a file: asked before each cell, of all that there are."""
    known, unknown = _files, ""  # no path is empty
    return [
        name for name, one in list(sys.modules.items())
        if (known.get((name, id(one)), unknown) is not None) and file_of(name) is not None
    ]  # fmt: skip


def _file_of(one: types.ModuleType) -> str | None:
    path = module_dict(one).get("__file__")
    if type(path) is not str:
        return None
    if path.startswith(_LIBRARIES):  # nearly all: without asking the file system
        return None
    path = os.path.realpath(path)
    if path.startswith((*_LIBRARIES, _OWN)) or "site-packages" in path or "dist-packages" in path:
        return None
    return path


def state_of(name: str) -> str | None:
    """The digest of what a local module's names hold, its functions and classes aside; None where there is none."""
    one = sys.modules.get(name)
    if type(one) is not types.ModuleType:
        return None
    held: dict[str, Any] = {}
    for key, value in list(module_dict(one).items()):
        if type(key) is not str or (key.startswith("__") and key.endswith("__")):
            continue
        if type(value) is type and value.__module__ == name:
            space = dict_of_type(value)
            held |= {f"{key}.{inner}": space[inner] for inner in list(space) if not _inert(space[inner], inner)}
        elif not _inert(value, key):
            held[key] = value
    if not held:
        return ""
    return fingerprint(held).digest


def _inert(value: Any, name: str) -> bool:
    kind = type(value)
    if kind in _INERT or issubclass(kind, type) or (name.startswith("__") and name.endswith("__")):
        return True
    module = kind.__module__
    return module in ("typing", "re", "_thread", "functools", "__future__", "importlib.metadata") or kind in (
        property, classmethod, staticmethod, types.GetSetDescriptorType, types.MemberDescriptorType
    )  # fmt: skip


def module_that_holds(objects: frozenset[int]) -> str:
    """A module that holds one of these objects, given by identity, under a name of its own; empty where none does."""
    for name, one in list(sys.modules.items()):
        if type(one) is not types.ModuleType or name in ("__main__", "__mp_main__") or name.startswith("jupyter_mlops"):
            continue
        held = module_dict(one)
        if objects.isdisjoint(map(id, list(held.values()))):
            continue
        for key, value in list(held.items()):
            if id(value) in objects and not _inert(value, str(key)) and not immutable(value):
                return name
    return ""


# -- generators --------------------------------------------------------------------------------------------------------


def generator_states(names: Iterable[str]) -> dict[str, Any]:
    """The states of random generators that all of the process shares."""
    states: dict[str, Any] = {}
    for name in names:
        if name == "random":
            states[name] = random.getstate()
        elif name == "numpy.random" and "numpy.random" in sys.modules:
            states[name] = sys.modules["numpy.random"].get_state(legacy=True)
        elif name == "torch" and "torch" in sys.modules:
            states[name] = sys.modules["torch"].get_rng_state().numpy().copy()
    return states


def generator_marks() -> dict[str, str]:
    """The same, each as a digest."""
    found = generator_states(("random", "numpy.random", "torch"))
    return {name: digest(repr(_plain(state))) for name, state in found.items()}


def _plain(state: Any) -> Any:
    if type(state) in (tuple, list):
        # the six hundred numbers of a Mersenne Twister among them
        return list(state) if set(map(type, state)) == {int} else [_plain(one) for one in state]
    return state.tobytes() if hasattr(state, "tobytes") else state


def give_states(states: dict[str, Any]) -> None:
    """Set the states of generators."""
    if "random" in states:
        random.setstate(states["random"])
    if "numpy.random" in states:
        sys.modules["numpy.random"].set_state(states["numpy.random"])
    if "torch" in states:
        torch: Any = sys.modules["torch"]
        torch.set_rng_state(torch.from_numpy(states["torch"]))


class Source(msgspec.Struct, frozen=True, array_like=True):
    """The source file of a module that is not installed: as records spell it, and its digest."""

    name: str
    digest: str
