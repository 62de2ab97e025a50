"""What surrounds the cells of a session: environment, code state and local modules, as lines written once.

Both observers look in the background when a session begins, and re-check for nearly nothing before each cell. A line is
written when there is none yet, and when what it says has changed.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.records import Artifact, CodeState, Digest, Environment, Gap, RecordInvalid, decode

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.redact import Redactor
    from jupyter_mlops.store import Store

_INSTALLED: Final = re.compile(r".*[/\\](?:site|dist)-packages[/\\]([^/\\.]+)")
FIRST_WAIT: Final = 0.05
"""Seconds the first cell may be held up for the first observations."""


class Surroundings:
    """Environment and code state around one session.

    Parameters
    ----------
    project, store, redactor
        Where it happens, where it is written, and what is masked.
    failed
        Told of an observation that failed.
    """

    def __init__(
        self, project: Project, store: Store, redactor: Redactor, failed: Callable[[str, BaseException], None]
    ) -> None:
        from jupyter_mlops import environment, git

        self._store, self._failed = store, failed
        self.environment: Digest | None = None
        self.code: Digest | None = None
        self._installed: Any = environment.Observer(project.environ, redactor=redactor)
        self._around: Any = git.Observer(project.root, redactor, store.put, given=_given(project.code))
        self._written: Environment | None = None
        self._state: CodeState | None = None
        self._modules: dict[str, Digest | None] = {}
        self._imported: set[str] = set()
        self._count = 0
        self._waited = False

    def start(self) -> None:
        """Begin to look, in the background."""
        self._installed.start()
        self._around.start()

    def refresh(self) -> None:
        """Bring both lines up to date with what is known by now; the first call waits for at most `FIRST_WAIT`."""
        wait, self._waited = (0.0 if self._waited else FIRST_WAIT), True
        self.look(wait)

    def look(self, wait: float) -> None:
        """Bring both lines up to date, and wait so many seconds for first observations that are under way."""
        deadline = time.monotonic() + wait if wait else 0.0
        if self._installed is not None:
            try:
                self._look_at_environment(wait)
            except Exception as error:  # noqa: BLE001 - a cell is recorded without its environment rather than not at all
                self._installed = None  # it would fail again before each cell
                self._failed("environment", error)
        if self._around is not None:
            try:
                self._look_at_code(max(0.0, deadline - time.monotonic()) if wait else 0.0)
            except Exception as error:  # noqa: BLE001 - likewise
                self._around = None
                self._failed("code state", error)

    def _look_at_environment(self, wait: float) -> None:
        if self._installed.changed() or self.environment is None:
            now = self._installed.current(timeout=wait)
            if now is not None and now != self._written:
                self.environment = self._store.append(now)
                self._written = now

    def _look_at_code(self, wait: float) -> None:
        if self._around.changed() or self.code is None:
            now = self._around.current(timeout=wait)
            if now is not None and now != self._state:
                self.code = self._store.append(now)
                self._state = now

    def observed(self, wait: float) -> Environment | None:
        """The environment as it is, for which so many seconds may be waited."""
        self.look(wait)
        return self._written if self._installed is not None and self.environment is not None else None

    @property
    def missing(self) -> bool:
        """Whether something is still being observed."""
        unknown = self.environment is None and self._installed is not None
        return unknown or (self.code is None and self._around is not None)

    def modules(self) -> list[Artifact]:
        """The local modules that were imported or have changed since the last call."""
        if self._around is None or not self._around.changed():
            return []
        now = self._around.current(timeout=0)
        if now is None:
            return []
        fresh = [one for one in now.modules if self._modules.get(one.name, "") != one.digest]
        self._modules.update((one.name, one.digest) for one in fresh)
        return fresh

    def imported(self) -> list[str]:
        """Modules of packages that came into memory since the last call: what an environment needs to have.

        Of a package its own name is enough, also where it brings modules of other names from a folder inside it. Where
        several distributions share a name (such a package has no file), the first name below it that has a file.
        """
        if len(sys.modules) == self._count:
            return []
        self._count = len(sys.modules)
        found = set()
        for name in list(sys.modules):
            top = name.partition(".")[0]
            if top in self._imported or top in sys.stdlib_module_names or top in ("__main__", "__mp_main__"):
                continue
            file = _file_of(name)
            if file is None:
                continue
            inside = _INSTALLED.search(file)
            holder = inside[1] if inside is not None else top
            found.add(holder if top == name or holder != top or _file_of(top) is not None else name)
        # below a shared name only the uppermost that has a file
        fresh = {name for name in found if not any(name.startswith(f"{one}.") for one in found)} - self._imported
        self._imported |= fresh
        return sorted(fresh)


def _given(code: str) -> CodeState | None:
    """The state of the code as whoever started this process told it; None where it is to be looked for here."""
    if not code:
        return None
    try:
        return decode(code.encode(), CodeState)
    except RecordInvalid:
        return CodeState(gaps=[Gap(subject="code", reason="what was told of it could not be read")])


def _file_of(name: str) -> str | None:
    """The file a loaded module comes from, read from its dictionary alone."""
    module = sys.modules.get(name)
    if not issubclass(type(module), ModuleType):
        return None
    file = ModuleType.__getattribute__(module, "__dict__").get("__file__")
    return file if type(file) is str else None
