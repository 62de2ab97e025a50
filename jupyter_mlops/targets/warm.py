"""Warm processes: forked from one that has imported what they need, in place of being started.

A `Template` is such a process, seen from the one who started it; `template` is what runs in it. `fork` asks it for a
child, which is handled like any process. `Provisioner` is how jupyter_client comes by a kernel from a template; where
the template objects, it starts one as usual, and says why.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.provisioning import LocalProvisioner
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from traitlets import Unicode

from jupyter_mlops.targets.template import KERNEL, USUAL, receive, send

_SCRIPT: Final = Path(__file__).with_name("template.py")
_STEP: Final = (
    "jupyter_mlops.pipelines.lean", "jupyter_mlops.targets.child", "jupyter_mlops.pipelines.steps",
    "jupyter_mlops.targets.warm", "papermill.execute", "jupyter_mlops.pipelines.client", "nbclient", "nbformat.v4",
    "jupyter_client.asynchronous", "jupyter_mlops.store", "jupyter_mlops.redact", "sqlite3", "ipykernel.kernelspec",
    "ipykernel_launcher", "psutil",
)  # fmt: skip
"""What the process of a step imports."""
_LAUNCHERS: Final = ("ipykernel_launcher", "ipykernel")
_STARTS: Final = 12
"""How many modules may turn out unfit before a template is given up."""


class Declined(Exception):
    """A template has no child to give for this, and why."""


# -- a template ------------------------------------------------------------------------------------------------------


class Template:
    """A process that others are forked from, or where that is not safe, a few that each become one.

    Parameters
    ----------
    folder
        Where its socket is; nobody else may look into it.
    run
        ``kernel`` or ``step``: what its children become.
    line
        The interpreter with its options.
    environ
        The variables of its children.
    imports
        The modules to import.
    spares
        How many processes to keep ready where there is no fork; None to fork.
    """

    def __init__(
        self, folder: Path, run: str, line: Sequence[str], environ: Mapping[str, str], imports: Sequence[str] = (),
        *, spares: int | None = None,
    ) -> None:  # fmt: skip
        self.run = run
        self.line = list(line)
        self.environ = dict(environ)
        self.imports = list(imports)
        self.spares = spares
        self.path = folder / f"{run}-{secrets.token_hex(4)}"
        self.left_out: dict[str, str] = {}
        """Modules that are not for a template, and why."""
        self.trouble = ""
        """Why it has no children to give."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._closed = False
        for _ in range(spares or 1):
            threading.Thread(target=self._keep_up, name=f"{run} template", daemon=True).start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is ready, or known not to be; whether it has children to give."""
        return self._ready.wait(timeout) and not self.trouble

    def close(self) -> None:
        """End it; its children go on until whoever wanted them is done."""
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
        self._listener.close()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _keep_up(self) -> None:
        """Start a process, and another without a module that turns out unfit; and another for one that is used up."""
        starts = 0
        while True:
            imports = [name for name in self.imports if name not in self.left_out]
            process = self._start(imports)
            if process is None:
                return
            assert process.stdout is not None
            last: dict[str, Any] = {}
            for line in process.stdout:
                last = json.loads(line)
                if "ready" in last:
                    self._ready.set()
                if "taken" in last:
                    break
            process.stdout.close()
            if "taken" in last:
                self._let_go(process)
                continue
            starts += 1
            if last.get("unfit") in imports and starts <= _STARTS:
                self.left_out[last["unfit"]] = last["why"]
                continue
            if not self._closed:
                ended = f"the process that others are forked from ended with status {process.wait()}"
                self.trouble = last.get("why") or ended
            self._ready.set()
            return

    def _let_go(self, process: subprocess.Popen[str]) -> None:
        """Leave a process to the one who has taken its child; it ends with that."""
        with self._lock, contextlib.suppress(ValueError):  # closed meanwhile
            self._processes.remove(process)
        assert process.stdin is not None
        process.stdin.close()
        threading.Thread(target=process.wait, name=f"{self.run} taken", daemon=True).start()

    def _start(self, imports: Sequence[str]) -> subprocess.Popen[str] | None:
        base = KERNEL if self.run == "kernel" else _STEP
        order = {
            "run": self.run, "listener": self._listener.fileno(), "base": base,
            "usual": USUAL if self.run == "kernel" else (), "imports": imports, "fork": self.spares is None,
        }  # fmt: skip
        with self._lock:
            if self._closed:
                return None
            process = subprocess.Popen(
                [*self.line, str(_SCRIPT)], env=self.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, start_new_session=True, pass_fds=[self._listener.fileno()],
            )  # fmt: skip
            self._processes.append(process)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end tells
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        return process


# -- a child ---------------------------------------------------------------------------------------------------------


class Forked:
    """A child of a template, with the words of `subprocess.Popen`.

    Parameters
    ----------
    connection
        To its keeper.
    pid
        Its number.
    """

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self._connection = connection
        self._lock = threading.Lock()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.wait()
        self.release()

    def poll(self) -> int | None:
        """Its exit status, as `subprocess` counts; None while it runs."""
        return self._heard(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        code = self._heard(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return code

    def send_signal(self, signum: int) -> None:
        """Send it a signal, while it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def release(self) -> None:
        """Say that what it has started and left behind may stay."""
        with self._lock:
            with contextlib.suppress(OSError):  # its keeper is gone
                send(self._connection, {})
            self._connection.close()
            if self.returncode is None:
                self.returncode = -signal.SIGKILL  # or whatever else: nobody tells any more

    def _heard(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
                try:
                    word, _ = receive(self._connection)
                except OSError:
                    word = None
                self.returncode = -signal.SIGKILL if word is None else int(word["status"])
            return self.returncode


_kept: list[Forked] = []
"""The kernels that this process has had forked."""


def fork(
    path: str | Path, run: str, *, line: Sequence[str], argv: Sequence[str], environ: Mapping[str, str],
    cwd: str | Path, files: Sequence[int],
) -> Forked:  # fmt: skip
    """Have a template fork a child.

    Parameters
    ----------
    path
        The template's socket.
    run
        ``kernel`` or ``step``.
    line, argv
        The words of the command that would start one, and what it would see of them.
    environ, cwd
        Its variables and folder.
    files
        What are to be its standard input, output and error.

    Raises
    ------
    Declined
        There is nothing to be had, and why.
    """
    request = {"run": run, "line": list(line), "argv": list(argv), "env": dict(environ), "cwd": str(cwd)}
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
        send(connection, request, files)
        word, _ = receive(connection)
    except OSError as error:
        connection.close()
        raise Declined(f"the process it would be forked from is gone: {error}") from error
    if word is None or "pid" not in word:
        connection.close()
        raise Declined(str((word or {}).get("declined") or "the process it would be forked from is gone"))
    return Forked(connection, int(word["pid"]))


def release() -> None:
    """Let stay what the kernels of this process have left behind; without this word it is killed."""
    while _kept:
        _kept.pop().release()


class Provisioner(LocalProvisioner):  # type: ignore[misc]
    """Brings a kernel from a template, or starts one as usual where that is declined.

    Attributes
    ----------
    template
        The template's socket.
    origin
        ``warm``, or ``cold`` where it was started.
    declined
        Why it was started.
    """

    NAME: Final = "jupyter-mlops-warm"
    template = Unicode("")
    origin = "cold"
    declined = ""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Have a kernel forked."""
        from ipykernel_launcher import __file__ as launcher

        argv = [launcher, *cmd[cmd.index("-f") :]]
        theirs, ours = os.pipe()  # a started kernel has a pipe too
        try:
            process = fork(
                self.template, "kernel", line=cmd[1:], argv=argv, environ=options["env"],
                cwd=options.get("cwd") or os.getcwd(), files=(theirs, 1, 2),
            )  # fmt: skip
        except Declined as why:
            os.close(ours)
            self.declined = str(why)
            return await super().launch_kernel(cmd, **options)
        finally:
            os.close(theirs)
        process.stdin = os.fdopen(ours, "wb")
        self.origin = "warm"
        _kept.append(process)
        self.process = process
        self.pid = self.pgid = process.pid
        self.cwd = options.get("cwd")
        return self.connection_info


def use(manager: Any, template: str) -> None:
    """Have a kernel manager bring its kernel from a template."""
    from importlib.metadata import EntryPoint

    KernelProvisionerFactory.provisioners[Provisioner.NAME] = EntryPoint(
        Provisioner.NAME, f"{__name__}:Provisioner", KernelProvisionerFactory.GROUP_NAME
    )
    manager.kernel_spec.metadata["kernel_provisioner"] = {
        "provisioner_name": Provisioner.NAME, "config": {"template": template},
    }  # fmt: skip


# -- which kernel, and what it imports -------------------------------------------------------------------------------


class Kernels:
    """The templates of one target: one for steps, one for each set of imports.

    Parameters
    ----------
    environ
        The variables of steps and kernels.
    slots
        How many run at a time.
    fork
        Whether to fork where that is safe; else processes are got ready ahead, and used once.
    """

    def __init__(self, environ: Mapping[str, str], slots: int, *, fork: bool = True) -> None:
        self.environ = {**environ}
        self.environ.setdefault("PYTHONHASHSEED", "0")  # as the engine does
        self._folder = tempfile.TemporaryDirectory(prefix="mlops-")  # of mode 0700
        self._spares = None if fork and forks() else slots + 1
        self._most = slots + 2
        self._lock = threading.Lock()
        self._templates: dict[tuple[str, ...], Template] = {}
        self.steps: Template | None = None
        if self._spares is None:
            self.steps = Template(Path(self._folder.name), "step", [sys.executable, "-P"], environ)

    def kernel(self, notebook: Path, name: str) -> tuple[Template | None, str]:
        """A template for a notebook's kernel, and why there is none."""
        cells, own = cells_of(notebook)
        try:
            spec = KernelSpecManager().get_kernel_spec(name or own)
        except NoSuchKernel:
            return None, ""  # the run says so better
        line, launched = spec.argv[:-4], spec.argv[-4:]
        if len(launched) != 4 or launched[0] != "-m" or launched[1] not in _LAUNCHERS or launched[2] != "-f":
            return None, f"the kernel {name or own!r} is not started as a plain ipykernel"
        version = sys.version_info
        if line and line[0] in ("python", f"python{version[0]}", f"python{version[0]}.{version[1]}"):
            line = [sys.executable, *line[1:]]  # as jupyter_client does
        imports = imported(cells, notebook.parent)
        key = (*line, "", *imports)
        with self._lock:
            found = self._templates.pop(key, None)
            if found is None:
                environ = {**self.environ, **spec.env}
                found = Template(Path(self._folder.name), "kernel", line, environ, imports, spares=self._spares)
            self._templates[key] = found  # the last one that was asked for
            # Whoever comes too late to one that is closed here gets a kernel that is started.
            old = self._templates.pop(next(iter(self._templates))) if len(self._templates) > self._most else None
        if old is not None:
            old.close()
        return found, ""

    def close(self) -> None:
        """End the templates."""
        for one in [*self._templates.values(), *([self.steps] if self.steps else [])]:
            one.close()
        self._folder.cleanup()


def forks() -> bool:
    """Whether a fork is safe here, and whether that can be seen: on Linux."""
    return sys.platform == "linux" and os.path.isdir("/proc/self/task")


def cells_of(notebook: Path) -> tuple[list[str], str]:
    """A notebook's code, and the name of its kernel; nothing of one that can not be read: the run will tell."""
    try:
        book = json.loads(notebook.read_text(encoding="utf-8-sig"))
        cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
        return cells, str(book["metadata"].get("kernelspec", {}).get("name") or "python3")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [], "python3"


_GUIDES: Final = frozenset("environ putenv unsetenv import_module __import__ reload addsitedir chdir".split())
_OF_SYS: Final = frozenset("path modules meta_path path_hooks".split())
"""Names by which a cell may guide what a later import does; the latter as attributes of `sys`."""


def imported(cells: Sequence[str], folder: Path) -> list[str]:
    """The modules that a notebook imports, in order, up to the first statement that may guide an import.

    Modules of the notebook's own folder are read in its place, as they may change from run to run.

    >>> imported(["import json, os.path", "from csv import reader", "os.environ['A'] = 'b'", "import gzip"], Path())
    ['json', 'os.path', 'csv']
    """
    found: dict[str, None] = {}
    for cell in cells:
        lines = cell.splitlines()
        if any(
            line.lstrip().startswith(("!", "%env", "%set_env", "%cd", "%pip", "%conda", "%run", "%%")) for line in lines
        ):
            break
        plain = "\n".join("" if line.lstrip().startswith("%") else line for line in lines)
        if not _collect(plain, folder, found, set()):
            break
    return list(found)


def _collect(source: str, folder: Path, found: dict[str, None], seen: set[Path]) -> bool:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for statement in tree.body:
        inner = list(_walk(statement))
        if any(map(_guides, inner)):
            return False
        for node in inner:
            for name in _names(node):
                beside = _beside(folder, name.partition(".")[0])
                if beside is None:
                    found[name] = None
                elif beside.is_file() and beside not in seen:
                    seen.add(beside)
                    with contextlib.suppress(OSError, UnicodeDecodeError):
                        _collect(beside.read_text(encoding="utf-8"), folder, found, seen)
    return True


def _guides(node: ast.AST) -> bool:
    """Whether a part of a statement may guide what a later import does."""
    match node:
        case ast.Name(id=name):
            return name in _GUIDES
        case ast.Attribute(value=ast.Name(id="sys"), attr=name):
            return name in _OF_SYS
        case ast.Attribute(attr=name):
            return name in _GUIDES
        case ast.ImportFrom(names=names):
            return any(alias.name in _GUIDES for alias in names)
    return False


def _walk(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement's parts that run with it: not the bodies of functions."""
    yield statement
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    for child in ast.iter_child_nodes(statement):
        yield from _walk(child)  # type: ignore[arg-type]


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level and node.module != "__future__":
        return [node.module]
    return []


def _beside(folder: Path, name: str) -> Path | None:
    """The module or package of that name in a folder, where it comes before one that is installed."""
    if name in sys.stdlib_module_names:
        return None
    for path in (folder / f"{name}.py", folder / name / "__init__.py", folder / name):
        if path.exists():
            return path
    return None
