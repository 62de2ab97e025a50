"""A process that has imported what others will need, and from which they are forked: kernels, and those of steps.

It runs by its path in a kernel's own interpreter, which need not have this package: it knows the standard library and
ipykernel only. It imports and does nothing else: no computation, no thread of its own. A module that starts threads,
keeps files open, prints or warns when it is imported is not for a template: the process says so and ends, and another
is started without that module, which its children then import by themselves.

Whoever wants a child connects to a socket. Between the template and the child stands a keeper, forked for the purpose,
which tells of the child's end, and when the connection closes without a word kills the child with all it has started.
A child that is a kernel finds no module loaded but those of a kernel: the others are on a shelf, and come off it when
they are imported.

Where a fork is not safe, a process of this kind is used once: it becomes the child itself.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # this file's folder; whoever starts a kernel by its module does likewise

import atexit
import builtins
import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import io
import json
import os
import random
import select
import signal
import socket
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

PER_RUN = (
    "JUPYTER_MLOPS_",
    "JPY_",
    "MPLBACKEND",
    "JE_ARROW_MALLOC_CONF",
    "LINES",
    "COLUMNS",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
)
"""Variables by which no library can have been guided when it was imported."""
KERNEL = ("runpy", "ipykernel.kernelapp")
"""What a kernel has loaded when it begins."""
USUAL = (
    "ipykernel.debugger", "IPython.core.completerlib", "IPython.core.debugger", "IPython.core.magics",
    "IPython.core.oinspect", "IPython.extensions.storemagic", "tornado.platform.asyncio", "psutil", "sqlite3",
    "faulthandler", "resource", "pwd", "blake3", "msgspec.inspect", "msgspec.structs", "wrapt", "tomllib",
    "jupyter_mlops.capture.hooks", "jupyter_mlops.capture.live", "jupyter_mlops.store", "jupyter_mlops.git.observing",
    "jupyter_mlops.git.modules", "jupyter_mlops.environment.observing", "jupyter_mlops.environment.machine",
    "jupyter_mlops.access.sources", "jupyter_mlops.fingerprints.tensors",
)  # fmt: skip
"""What most kernels load before their first cell."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIMIT = 1 << 24


# -- words over the socket -------------------------------------------------------------------------------------------


def send(connection: socket.socket, word: Any, descriptors: Sequence[int] = ()) -> None:
    """Send a word, and open files with it."""
    raw = json.dumps(word).encode()
    head = struct.pack("!I", len(raw))
    if descriptors:
        socket.send_fds(connection, [head], list(descriptors))
    else:
        connection.sendall(head)
    connection.sendall(raw)


def receive(connection: socket.socket, descriptors: int = 0) -> tuple[Any, list[int]]:
    """Receive a word and the files that came with it; None where the other side is gone."""
    files: list[int] = []
    head = b""
    while len(head) < 4:
        if descriptors and not head:
            part, files, _, _ = socket.recv_fds(connection, 4, descriptors)
        else:
            part = connection.recv(4 - len(head))
        if not part:
            return None, files
        head += part
    (size,) = struct.unpack("!I", head)
    if size > _LIMIT:
        return None, files
    raw = b""
    while len(raw) < size:
        part = connection.recv(min(size - len(raw), 1 << 16))
        if not part:
            return None, files
        raw += part
    return json.loads(raw), files


# -- what is imported ------------------------------------------------------------------------------------------------


class Unfit(Exception):
    """A module is not for a template."""


class Group(NamedTuple):
    """What one import has brought: modules, variables of the environment, filters of warnings."""

    head: str
    names: list[str]
    variables: dict[str, str]
    filters: list[Any]


class Shelf:
    """Modules that are loaded and not yet imported: a finder that gives each back with all that it imports itself."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.edges: dict[str, set[str]] = {}
        self.place: dict[str, tuple[Group, Any]] = {}
        self.specs: dict[str, tuple[Any, Any]] = {}

    @contextlib.contextmanager
    def group(self, head: str) -> Iterator[None]:
        """Note what is loaded meanwhile, and what imports what."""
        before, around, filtered = set(sys.modules), dict(os.environ), len(warnings.filters)
        stock = builtins.__import__

        def noted(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            module = stock(name, globals, locals, fromlist, level)
            importer = globals.get("__name__") if globals else None
            if importer is not None:
                if level:
                    package = globals.get("__package__") or importer.rpartition(".")[0]
                    name = importlib.util.resolve_name("." * level + name, package)
                self.edges.setdefault(importer, set()).update([name, *(f"{name}.{one}" for one in fromlist or ())])
            return module

        builtins.__import__ = noted
        try:
            yield
        finally:
            builtins.__import__ = stock
        names = [name for name in sys.modules if name not in before]
        variables = {name: value for name, value in os.environ.items() if around.get(name) != value}
        filters = list(warnings.filters[: max(0, len(warnings.filters) - filtered)])
        self.groups.append(Group(head, names, variables, filters))

    def tops(self) -> set[str]:
        """The packages and modules that a file of the same name beside a notebook would come before."""
        names = {name.partition(".")[0] for group in self.groups for name in group.names}
        return names - sys.stdlib_module_names

    def fill(self) -> None:
        """Take what was noted out of sight."""
        for group in self.groups:
            filter_by(group.filters, False)
            for name in group.names:
                module = sys.modules.get(name)
                if module is not None:
                    self.place[name] = (group, module)
        for name, (_, module) in self.place.items():
            del sys.modules[name]
            self.bind(name, module, False)
        if self.place:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        """Give a module back, and put what it imports where it was."""
        if name not in self.place:
            return None
        module = self.place[name][1]
        self.take(name)
        del sys.modules[name]  # whoever asks for it puts it there
        if not self.place:
            sys.meta_path.remove(self)
        own = module.__dict__.get("__spec__")
        spec = importlib.machinery.ModuleSpec(name, self, is_package="__path__" in module.__dict__)  # type: ignore[arg-type]
        self.specs[name] = (module, own)
        return spec

    def take(self, name: str) -> None:
        """Put a module and all that its import has loaded back, as if it were imported now."""
        asked = [name]
        while asked:
            one = asked.pop()
            if one not in self.place:
                continue
            group, module = self.place.pop(one)
            sys.modules[one] = module
            self.bind(one, module, True)
            asked += self.edges.get(one, ())
            if "." in one:
                asked.append(one.rpartition(".")[0])
            if one == group.head:
                asked += group.names
            if one.partition(".")[0] not in sys.stdlib_module_names:
                os.environ.update(group.variables)
                filter_by(group.filters, True)
                group.variables.clear()
                group.filters.clear()

    def bind(self, name: str, module: Any, there: bool) -> None:
        """Make a module an attribute of its package, as importing it does, or no more."""
        above, _, last = name.rpartition(".")
        package = sys.modules.get(above) or self.place.get(above, (None, None))[1]
        space = getattr(package, "__dict__", None)
        if type(space) is not dict:
            return
        if there:
            space.setdefault(last, module)
        elif space.get(last) is module:
            del space[last]

    def create_module(self, spec: Any) -> Any:
        """The module as it was loaded."""
        return self.specs[spec.name][0]

    def exec_module(self, module: Any) -> None:
        """It has run already; what it knows of its own coming is put right again."""
        _, own = self.specs.pop(module.__spec__.name)
        module.__spec__ = own


def filter_by(filters: list[Any], there: bool) -> None:
    """Put filters of warnings before the others, or take them away."""
    if not filters:
        return
    gone = {id(one) for one in filters}
    rest = [one for one in warnings.filters if id(one) not in gone]
    warnings.filters[:] = [*filters, *rest] if there else rest  # type: ignore[index]
    getattr(warnings, "_filters_mutated", int)()


def base(names: list[str], usual: list[str], shelf: Shelf) -> dict[str, str]:
    """Import what every child has, in sight of all, and what most will, out of sight; the variables of the former."""
    around = dict(os.environ)
    for name in names:
        importlib.import_module(name)
    given = {name: value for name, value in os.environ.items() if around.get(name) != value}
    for name in usual:
        with shelf.group(name), contextlib.suppress(ImportError):  # of another version, or not installed there
            importlib.import_module(name)
    return given


def load(names: list[str], shelf: Shelf, *, free: bool = False) -> list[Any]:
    """Import modules one by one, each held to what a template may hold; threads and the like are free in a spare."""
    shown: list[str] = []
    stock = warnings.showwarning
    warnings.showwarning = lambda message, *_: shown.append(str(message))
    out, err = os.dup(1), os.dup(2)
    heard = os.memfd_create("said") if hasattr(os, "memfd_create") else os.open("/dev/null", os.O_RDWR)
    os.dup2(heard, 1)
    os.dup2(heard, 2)
    try:
        for name in names:
            files, before = open_files(), set(sys.modules)
            try:
                with shelf.group(name):
                    importlib.import_module(name)
            except Exception as error:  # noqa: BLE001 - whatever it raises, the notebook's own import will tell
                if set(sys.modules) == before:
                    continue
                raise Unfit(name, f"it can not be imported here: {type(error).__name__}: {error}") from None
            sys.stdout.flush()
            sys.stderr.flush()
            if shown or os.fstat(heard).st_size:
                raise Unfit(name, "it prints or warns when it is imported")
            if not free and threads() > 1:
                raise Unfit(name, "it starts threads when it is imported")
            if not free and open_files() != files:
                raise Unfit(name, "it keeps files open")
    finally:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for one in (out, err, heard):
            os.close(one)
        warnings.showwarning = stock
    if free:
        return []
    unclear, drawn = generators()
    for one in unclear:
        holders = {space.get("__name__") for space in gc.get_referrers(one) if type(space) is dict}
        heads = [group.head for group in shelf.groups if holders & set(group.names)]
        raise Unfit((heads or names)[-1], "it keeps a random generator of its own")
    return drawn


def threads() -> int:
    """How many threads there are once those have ended that end for a fork; 1 where the system can not say."""
    try:
        if len(os.listdir("/proc/self/task")) == 1:
            return 1
        child = os.fork()  # OpenBLAS ends its threads before a fork, and starts them again when there is work
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def open_files() -> dict[str, str]:
    """The files that are open, by descriptor."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return {}
    found = {}
    for name in names:
        with contextlib.suppress(OSError):  # the listing's own
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def generators() -> tuple[list[Any], list[Any]]:
    """The random generators there are: those that may hold what every child would draw, and NumPy's bit generators.

    Python's own global one is seeded anew after a fork by itself, and so are those of `tempfile`.
    """
    known = {id(random._inst)}
    names = getattr(sys.modules.get("tempfile"), "_RandomNameSequence", None)
    numpy = sys.modules.get("numpy.random")
    kinds = () if numpy is None else (numpy.RandomState, numpy.Generator)
    unclear, drawn = [], []
    for one in gc.get_objects():
        if type(one) is random.Random:
            unclear.append(one)
        elif type(one) is names:
            known.add(id(getattr(one, "_rng", None)))
        elif type(one) in kinds:
            bits = one._bit_generator
            seeds = getattr(bits, "seed_seq", None)
            entropy = getattr(seeds, "entropy", None)
            # The system's entropy has 128 bits; what was given a seed is the same in every process, and stays so.
            if type(entropy) is int and entropy.bit_length() > 64:
                drawn.append(bits)
    return [one for one in unclear if id(one) not in known], drawn


# -- children --------------------------------------------------------------------------------------------------------


def objection(request: dict[str, Any], environ: dict[str, str], loaded: set[str]) -> str:
    """Why a child of this process would not be as one that is started; empty where it is."""
    wanted = request["env"]
    names = sorted(
        name
        for name in {*wanted, *environ}
        if wanted.get(name) != environ.get(name) and not name.startswith(PER_RUN[:2]) and name not in PER_RUN
    )
    if names:
        return f"its environment is another: {', '.join(names[:5])}"
    if request["run"] == "kernel":
        here = {name.partition(".")[0] for name in _names(request["cwd"])} & loaded
        if here:
            return f"what lies beside the notebook stands in for a module: {', '.join(sorted(here)[:5])}"
    return ""


def _names(folder: str) -> list[str]:
    try:
        found = os.listdir(folder)
    except OSError:
        return []
    return [
        name
        for name in found
        if name.endswith((".py", ".so", ".pyc")) or os.path.exists(os.path.join(folder, name, "__init__.py"))
    ]


def keep(connection: socket.socket, child: int) -> None:
    """Stand between a child and the one who wants it, until either is gone; then end what is left."""
    control(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        send(connection, {"pid": child})
    watched = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    status = None
    while True:
        ready, _, _ = select.select(
            [connection] + ([watched] if watched is not None and status is None else []),
            [],
            [],
            None if watched is not None or status is not None else 0.05,
        )
        if status is None:
            pid, found = os.waitpid(child, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(found)
                with contextlib.suppress(OSError):
                    send(connection, {"status": status})
        if connection in ready:
            try:
                word, _ = receive(connection)
            except OSError:
                word = None
            if word is None:
                end(None if status is not None else child)
            return


def end(child: int | None) -> None:
    """Kill a child and all that it, or what came of it, has started."""
    import psutil

    me = psutil.Process()
    for _ in range(100):
        left = [one for one in me.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        if child is not None:
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)
        psutil.wait_procs(left, timeout=0.1)


def control(option: int, value: int) -> None:
    """Tell Linux something of this process; elsewhere nothing."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def settle(request: dict[str, Any], files: list[int], drawn: list[Any], mine: Sequence[Any]) -> None:
    """Become in this process what a started one is: its files, folder, variables, and fresh random generators.

    `mine` is what this process has open as objects: left to themselves they would close, later, what is another's then.
    """
    for one in mine:
        one.close()
    os.setsid()
    control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for place, file in enumerate(files):
        os.dup2(file, place)
    os.closerange(3, 1 + max([1023, *map(int, open_files())]))
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update({**request["env"], **request["set"]})
    os.environ["JPY_PARENT_PID"] = str(os.getppid())
    os.chdir(request["cwd"])
    sys.argv = list(request["argv"])
    sys.orig_argv = [sys.executable, *request["line"]]
    reseed(drawn)


def reseed(drawn: list[Any]) -> None:
    """Draw every random generator anew from the system, as a process that starts does."""
    random.seed()
    for bits in drawn:
        fresh = type(bits)()
        try:
            bits.__setstate__((fresh.state, fresh.seed_seq))
        except (TypeError, KeyError, ValueError):  # of a NumPy that keeps no seeds with the state
            bits.state = fresh.state
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)


# -- the process -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Import, wait, and in a child go on as what was asked for."""
    order = json.loads(sys.stdin.readline())
    listener = socket.socket(fileno=order["listener"])
    say = os.fdopen(os.dup(1), "w", buffering=1)
    environ = dict(os.environ)
    # A thread of jemalloc is started when pyarrow is loaded; what memory is given back by changes no result.
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    if not os.environ.get("MPLBACKEND"):
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as ipykernel does before any cell
    shelf = Shelf()
    try:
        if order["fork"]:
            given = base(order["base"], order["usual"], shelf)
            if threads() > 1:
                raise Unfit("", "it has threads before anything is imported")
            drawn = load(order["imports"], shelf)
            # What is here has come to stay: no child's collector need look at it, and so copy its pages.
            gc.freeze()
            say.write(json.dumps({"ready": True}) + "\n")
            request = wait(listener, environ, shelf.tops(), given, drawn, say)
        else:
            request = spare(order, listener, environ, shelf, say)
    except Unfit as error:
        say.write(json.dumps({"unfit": error.args[0], "why": error.args[1]}) + "\n")
        return
    if request is None:
        return
    if request["run"] == "kernel":
        shelf.fill()
        from ipykernel import kernelapp

        kernelapp.launch_new_instance(parent_handle=os.getppid())
    else:
        from jupyter_mlops.targets import child

        child.main()
    leave()


def leave() -> None:
    """End as an interpreter does, but for taking apart every module, whose pages would all be copied for that."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    for one in gc.get_objects():
        if isinstance(one, io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom):
            with contextlib.suppress(Exception):  # closed, detached, or its disk is full
                one.flush()
    os._exit(0)


def wait(
    listener: socket.socket, environ: dict[str, str], loaded: set[str], given: dict[str, str], drawn: list[Any],
    say: IO[str],
) -> dict[str, Any] | None:  # fmt: skip
    """Fork children until nobody wants any; what a child was asked to be, in the child."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [], 1.0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if sys.stdin in ready:
            return None  # the one who started it is gone
        if listener not in ready:
            continue
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        os.setsid()
        listener.close()
        request = serve(connection, environ, loaded, given, drawn, [say])
        if request is None:
            os._exit(0)
        return request


def serve(
    connection: socket.socket, environ: dict[str, str], loaded: set[str], given: dict[str, str], drawn: list[Any],
    mine: Sequence[Any],
) -> dict[str, Any] | None:  # fmt: skip
    """In a process of its own: what was asked for is forked and kept. In the child, the request; else None."""
    request, files = receive(connection, 3)
    if request is None or len(files) != 3:
        return None
    why = objection(request, environ, loaded)
    if why:
        send(connection, {"declined": why})
        return None
    child = os.fork()
    if child == 0:
        settle({**request, "set": given}, files, drawn, [connection, *mine])
        return dict(request)
    for file in files:
        os.close(file)
    keep(connection, child)
    return None


def spare(
    order: dict[str, Any], listener: socket.socket, environ: dict[str, str], shelf: Shelf, say: IO[str]
) -> dict[str, Any] | None:
    """Have a child import, and become the one thing that is asked for; its keeper has no part in either."""
    mine, its = socket.socketpair()
    child = os.fork()
    if child == 0:
        mine.close()
        given = base(order["base"], order["usual"], shelf)
        load(order["imports"], shelf, free=True)
        loaded = shelf.tops()
        say.write(json.dumps({"ready": True}) + "\n")
        while True:
            request, files = receive(its, 3)
            if request is None:
                return None
            why = objection(request, environ, loaded)
            send(its, {"declined": why} if why else {})
            if not why:
                settle({**request, "set": given}, files, [], [its, listener, say])
                return dict(request)
    its.close()
    listener.setblocking(False)
    while True:
        ready, _, _ = select.select([listener, sys.stdin, mine], [], [])
        if sys.stdin in ready or mine in ready:
            end(child)
            return None
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # another was quicker
        connection.setblocking(True)
        request, files = receive(connection, 3)
        if request is None or len(files) != 3:
            continue
        send(mine, request, files)
        for file in files:
            os.close(file)
        answer, _ = receive(mine)
        if answer is None or "declined" in answer:
            send(connection, answer or {"declined": "the process that was ready for it has died"})
            connection.close()
            continue
        say.write(json.dumps({"taken": True}) + "\n")
        listener.close()
        keep(connection, child)
        return None


if __name__ == "__main__":
    main()
