"""The wrappers on what opens, moves and removes files: in Python, and in libraries that open them by themselves."""

from __future__ import annotations

import builtins
import io
import os
import stat
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

from jupyter_mlops.access.tracing import Trace, active, current, problem, traces
from jupyter_mlops.access.wrapping import Call, bare, place, reporting, when_imported

_WRITES: Final = frozenset("wax+")
_REMOTE: Final = "://"
_MAGIC: Final = frozenset("*?[")
_PATHS: Final = frozenset({"pathlib", "pathlib._local", "posixpath"})


# -- open ------------------------------------------------------------------------------------------------------------


def _open(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands on ``open``: a Python frame, two look-ups and an entry in a dict more than the original."""
    mode = args[1] if len(args) > 1 else kwargs.get("mode", "r") if kwargs else "r"
    try:
        if mode != "r" and (mode != "rb" or "buffering" in kwargs or (len(args) > 2 and args[2] == 1)):
            return _open_otherwise(wrapped, args, kwargs, mode)
        file = wrapped(*args, **kwargs)
    except BaseException as error:  # the user's own error goes on, without our frames
        bare(error)
        _not_there(error, args, kwargs)
        raise
    try:
        path = args[0] if args else kwargs["file"]
        trace = current.get()
        if trace is not None and trace.running:
            if type(path) is str:
                trace.raw[path] = None
                return file
            _opened((trace,), path, file)
        else:
            _opened(traces(), path, file)
    except BaseException as error:  # the user's file is open, and is the user's
        if problem(error):
            raise
    return file


def _open_otherwise(wrapped: Any, args: tuple[Any, ...], kwargs: dict[str, Any], mode: Any) -> Any:
    writes, path = False, None
    mine: tuple[Trace, ...] = ()
    try:
        writes = type(mode) is str and not _WRITES.isdisjoint(mode)
        path = plain_path(args[0] if args else kwargs.get("file"))
        mine = traces()
        if writes and path is not None:
            for trace in mine:
                trace.before_writing(path, keeps="w" not in mode and "x" not in mode, new="x" in mode)
    except BaseException as error:  # the user's call goes on
        if problem(error):
            raise
    try:
        args, kwargs = _with_the_warning(args, kwargs, mode)
        file = wrapped(*args, **kwargs)
    except BaseException as error:  # the user's own error goes on, without our frames
        bare(error)
        if error.__traceback__ is not None and error.__traceback__.tb_frame.f_code is _with_the_warning.__code__:
            bare(error)
        _not_there(error, args, kwargs)
        raise
    try:
        if writes:
            path = path or _path_behind(args[0] if args else kwargs.get("file"), file)
            for trace in mine if path is not None else ():
                trace.wrote(str(path), file)
        else:
            _opened(mine, args[0] if args else kwargs.get("file"), file)
    except BaseException as error:  # as above
        if problem(error):
            raise
    return file


def _with_the_warning(args: Any, kwargs: Any, mode: Any) -> tuple[Any, Any]:
    """Warn of line buffering in binary mode as ``open`` does, but at the caller's line, which is not ours."""
    buffering = args[2] if len(args) > 2 else kwargs.get("buffering", -1)
    if buffering == 1 and type(buffering) is int and type(mode) is str and "b" in mode:
        warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
            RuntimeWarning,
            stacklevel=4,
        )
        if len(args) > 2:
            return (*args[:2], -1, *args[3:]), kwargs
        return args, {**kwargs, "buffering": -1}
    return args, kwargs


def _not_there(error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Note of a cell that may be recalled that a file it was to open was not there."""
    trace = current.get()
    if type(error) is not FileNotFoundError or trace is None or trace.looks is None:
        return
    try:
        from jupyter_mlops.access.looking import missing

        missing(args[0] if args else kwargs.get("file"))
    except BaseException as failure:  # the user's own error goes on
        if problem(failure):
            raise


def _opened(mine: tuple[Trace, ...], path: Any, file: Any) -> None:
    if not mine:
        return
    found = plain_path(path) or _path_behind(path, file)
    if found is not None:
        for trace in mine:
            trace.raw[found] = None


def plain_path(path: Any) -> str | None:
    """The text of a path that can be had without running anybody's code."""
    kind = type(path)
    if kind is str:
        return str(path)
    if kind is bytes:
        return os.fsdecode(path)
    if kind.__module__ in _PATHS or kind is os.DirEntry:
        return os.fsdecode(os.fspath(path))
    return None


def _path_behind(path: Any, file: Any) -> str | None:
    """The path of a file that is open, as the system knows it; None for a descriptor the user brought."""
    if type(path) is int or not sys.platform.startswith("linux"):
        return None
    try:
        return os.readlink(f"/proc/self/fd/{file.fileno()}")
    except (OSError, ValueError):  # a file in memory only, or already closed
        return None


# -- os --------------------------------------------------------------------------------------------------------------


def _os_open_before(call: Call) -> Any:
    flags = call.args[1] if len(call.args) > 1 else call.kwargs.get("flags", 0)
    writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
    path = at(call.args[0] if call.args else call.kwargs.get("path"), call.kwargs.get("dir_fd"))
    mine = traces() if path is not None else ()
    if writes and path is not None:
        for trace in mine:
            trace.before_writing(path, keeps=not flags & os.O_TRUNC, new=bool(flags & os.O_EXCL))
    return path, writes, mine


def _os_open_after(call: Call) -> None:
    path, writes, mine = call.note
    for trace in mine:
        if writes:
            trace.wrote(path)
        elif stat.S_ISREG(os.fstat(call.result).st_mode):
            trace.raw[path] = None


def _move_before(call: Call) -> Any:
    source = at(call.args[0] if call.args else call.kwargs.get("src"), call.kwargs.get("src_dir_fd"))
    target = at(call.args[1] if len(call.args) > 1 else call.kwargs.get("dst"), call.kwargs.get("dst_dir_fd"))
    if source is None or target is None:
        return None
    mine = traces()
    for trace in mine:
        old = trace.files.get(os.path.abspath(source))
        if old is None or not old.written:
            trace.before_writing(source, keeps=True)
        trace.before_writing(target, keeps=False)
    return source, target, mine


def _move_after(call: Call) -> None:
    if call.note is not None:
        for trace in call.note[2]:
            trace.moved(call.note[0], call.note[1])


def _remove_before(call: Call) -> Any:
    path = at(call.args[0] if call.args else call.kwargs.get("path"), call.kwargs.get("dir_fd"))
    if path is None:
        return None
    mine = traces()
    for trace in mine:
        trace.before_writing(path, keeps=False)
    return path, mine


def _remove_after(call: Call) -> None:
    if call.note is not None:
        for trace in call.note[1]:
            trace.removed(call.note[0])


def _chdir_before(_call: Call) -> None:
    for trace in list(active):
        trace.settle_paths()


def at(path: Any, folder: Any) -> str | None:
    """A path, relative to an open folder if one is given."""
    found = plain_path(path)
    if found is None or type(folder) is not int or os.path.isabs(found):
        return found
    if not sys.platform.startswith("linux"):
        return None
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), found)


# -- readers and writers of libraries --------------------------------------------------------------------------------


def paths_in(value: Any) -> Iterator[str]:
    """The local paths that an argument names: itself, or each of a list; patterns are expanded."""
    if type(value) in (list, tuple):
        for one in value[:10_000]:
            yield from paths_in(one)
        return
    path = None if type(value) is bytes else plain_path(value)
    if path is None or "\0" in path or "\n" in path[:4096] or len(path) > 4096:
        return
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if _REMOTE in path:
        for trace in traces():
            trace.asked(clean_url(path), "", "opened by the library itself: what it answered is not seen")
        return
    path = os.path.expanduser(path)
    if _MAGIC.isdisjoint(path) or os.path.exists(path):
        yield path
    else:
        import glob

        yield from sorted(glob.glob(path, recursive=True))[:10_000]


def clean_url(address: str) -> str:
    """An address without its credentials; the rules for that are loaded when the first one comes."""
    from jupyter_mlops import redact

    return redact.clean_url(address)


def reads(position: int, *names: str) -> Callable[..., Any]:
    """The wrapper of what reads the file or folder named by an argument."""

    def before(call: Call) -> None:
        trace = current.get()
        if trace is not None and trace.looks is not None:
            from jupyter_mlops.access.looking import missing

            for path in paths_in(call.argument(position, *names)):
                if not os.path.lexists(path):
                    missing(path)

    def after(call: Call) -> None:
        for path in paths_in(call.argument(position, *names)):
            if os.path.lexists(path):
                for trace in traces():
                    trace.read(path)

    return reporting(before, after)


def writes(position: int, *names: str) -> Callable[..., Any]:
    """The wrapper of what writes the file or folder named by an argument."""

    def before(call: Call) -> Any:
        mine, found = traces(), list(paths_in(call.argument(position, *names)))
        for trace in mine:
            for path in found:
                trace.before_writing(path, keeps=False)
        return mine, found

    def after(call: Call) -> None:
        for trace in call.note[0]:
            for path in call.note[1]:
                trace.wrote(path)

    return reporting(before, after)


def opens(position: int, *names: str, mode_at: int = 1, default: str = "r") -> Callable[..., Any]:
    """A library's own ``open``, with a mode."""

    def before(call: Call) -> Any:
        mode = call.argument(mode_at, "mode") or default
        mine, found = traces(), list(paths_in(call.argument(position, *names)))
        writing = type(mode) is str and (not _WRITES.isdisjoint(mode))
        for trace in mine if writing else ():
            for path in found:
                trace.before_writing(path, keeps="w" not in mode and "x" not in mode, new="x" in mode)
        return mine, found, writing

    def after(call: Call) -> None:
        for trace in call.note[0]:
            for path in call.note[1]:
                trace.wrote(path) if call.note[2] else trace.read(path)

    return reporting(before, after)


def _gap(subject: str, reason: Callable[[Any], str]) -> Callable[..., Any]:
    def before(call: Call) -> None:
        for trace in traces():
            trace.gap(subject, reason(call.argument(0, "args")))

    return reporting(before, None)


def _program(command: Any) -> str:
    first = command[0] if type(command) in (list, tuple) and command else command
    text = plain_path(first) or "?"
    if type(command) is str:  # a shell's line: only its first word, the rest may hold anything
        text = text.split(None, 1)[0] if text.split() else "?"
    return f"a subprocess ran ({os.path.basename(text)[:80]}): files it touched are not seen"


_READ = reads(0, "source", "path", "where", "path_or_paths", "input_file", "file")
_PARQUET_FILE = reads(0, "source")

READERS: Final[dict[str, dict[str, Callable[..., Any]]]] = {
    # numpy keeps the `open` it found when it was imported, which may have been before us
    "numpy": {"loadtxt": reads(0, "fname"), "genfromtxt": reads(0, "fname")},
    "pyarrow.parquet.core": {
        "read_table": _READ, "read_pandas": _READ, "read_metadata": _READ, "read_schema": _READ,
        "ParquetFile.__init__": _PARQUET_FILE, "ParquetDataset.__init__": reads(0, "path_or_paths"),
        "ParquetWriter.__init__": writes(0, "where"), "write_table": writes(1, "where"),
        "write_to_dataset": writes(1, "root_path"), "write_metadata": writes(1, "where"),
    },
    "pyarrow.dataset": {"dataset": _READ, "write_dataset": writes(1, "base_dir")},
    "pyarrow.feather": {
        "read_table": _READ, "read_feather": _READ, "write_feather": writes(1, "dest"),
        "FeatherDataset.__init__": _READ,
    },
    "pyarrow.orc": {
        "ORCFile.__init__": _READ, "ORCWriter.__init__": writes(0, "where"), "read_table": _READ,
        "write_table": writes(1, "where"),
    },
    "pyarrow._csv": {
        "read_csv": reads(0, "input_file"), "open_csv": reads(0, "input_file"), "write_csv": writes(1, "output_file"),
    },
    "pyarrow._json": {"read_json": reads(0, "input_file"), "open_json": reads(0, "input_file")},
    "pyarrow.ipc": {
        "open_file": _READ, "open_stream": _READ, "new_file": writes(0, "sink"), "new_stream": writes(0, "sink"),
    },
    "pyarrow.lib": {
        "memory_map": opens(0, "path"), "OSFile": opens(0, "path"), "input_stream": reads(0, "source"),
        "output_stream": writes(0, "source"), "create_memory_map": writes(0, "path"),
    },
    "polars": {
        **{
            verb + kind: reads(0, "source", "table_uri")
            for verb in ("read_", "scan_")
            for kind in ("csv", "parquet", "ipc", "ndjson", "json", "avro", "excel", "ods", "ipc_stream", "csv_batched",
                         "delta", "lines", "parquet_schema", "ipc_schema", "parquet_metadata")
        },
        **{
            "DataFrame.write_" + kind: writes(0, "file", "workbook", "target")
            for kind in ("csv", "parquet", "ipc", "ndjson", "json", "avro", "excel", "ipc_stream", "delta")
        },
        **{
            "LazyFrame.sink_" + kind: writes(0, "path", "target")
            for kind in ("csv", "parquet", "ipc", "ndjson", "delta")
        },
    },
    "xarray.backends.api": {
        **{
            name: reads(0, "filename_or_obj", "paths")
            for name in ("open_dataset", "open_dataarray", "open_mfdataset", "load_dataset", "load_dataarray",
                         "open_datatree")
        },
    },
    "xarray.core.dataset": {"Dataset.to_netcdf": writes(0, "path"), "Dataset.to_zarr": writes(0, "store")},
    "xarray.core.dataarray": {"DataArray.to_netcdf": writes(0, "path")},
    "h5py._hl.files": {"File.__init__": opens(0, "name")},
    "tables.file": {"open_file": opens(0, "filename")},
    "torch.serialization": {"save": writes(1, "f")},
    "safetensors": {"safe_open": reads(0, "filename")},
    "safetensors.torch": {"load_file": reads(0, "filename"), "save_file": writes(1, "filename")},
    "safetensors.numpy": {"load_file": reads(0, "filename"), "save_file": writes(1, "filename")},
    "xgboost.core": {"Booster.load_model": reads(0, "fname"), "Booster.save_model": writes(0, "fname")},
    "lightgbm.basic": {"Booster.save_model": writes(0, "filename")},
    "onnxruntime.capi.onnxruntime_inference_collection": {"InferenceSession.__init__": reads(0, "path_or_bytes")},
    "subprocess": {"Popen.__init__": _gap("processes", _program)},
    "multiprocessing.process": {
        "BaseProcess.start": _gap("processes", lambda _: "a process was started: files it touched are not seen")
    },
}  # fmt: skip
"""Module, function in it, wrapper: what opens files without Python's ``open``. What is not there is left out."""


def _os_open() -> Callable[..., Any]:
    return reporting(_os_open_before, _os_open_after)


def _wire_os(module: Any) -> None:
    others = [sys.modules["posix"]] if "posix" in sys.modules else []
    for name, wrapper in {
        "open": _os_open(), "rename": reporting(_move_before, _move_after),
        "replace": reporting(_move_before, _move_after), "remove": reporting(_remove_before, _remove_after),
        "unlink": reporting(_remove_before, _remove_after), "chdir": reporting(_chdir_before, None),
        "fchdir": reporting(_chdir_before, None),
    }.items():  # fmt: skip
        place(module, name, wrapper, others=[(other, name) for other in others])


def _wire_open(_module: Any) -> None:
    others: list[tuple[Any, str]] = [(io, "open")]
    if "_io" in sys.modules:
        others.append((sys.modules["_io"], "open"))
    for name, attribute in (
        ("tarfile", "bltn_open"),
        ("bz2", "_builtin_open"),
        ("IPython.core.interactiveshell", "io_open"),
    ):
        if name in sys.modules:
            others.append((sys.modules[name], attribute))
    place(builtins, "open", _open, others=others)


def wire() -> None:
    """Say what is to be wrapped; once per process."""
    if _wired:
        return
    _wired.append(True)
    when_imported("builtins", _wire_open)
    when_imported("os", _wire_os)
    for name, functions in READERS.items():
        when_imported(name, placer(functions))


def placer(functions: dict[str, Callable[..., Any]]) -> Callable[[Any], None]:
    """What puts wrappers on a module's functions and on methods of its classes."""

    def hook(module: Any) -> None:
        for path, wrapper in functions.items():
            holder, dot, name = path.rpartition(".")
            where = vars(module).get(holder) if dot else module
            if where is None:
                continue
            original = vars(where).get(name)
            place(where, name, wrapper, others=aliases(original, name) if not dot else ())

    return hook


def aliases(original: Any, name: str) -> list[tuple[Any, str]]:
    """The other modules of the same library that hold a function under its name, so that it stays one object."""
    library = (getattr(original, "__module__", None) or "").partition(".")[0]
    if not library:
        return []
    return [
        (module, name)
        for title, module in list(sys.modules.items())
        if title.partition(".")[0] == library
        and isinstance(module, types.ModuleType)
        and vars(module).get(name) is original
    ]


_wired: list[bool] = []
