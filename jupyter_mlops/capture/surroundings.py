"""What surrounds the cells of a session: environment, code state and local modules, as lines written once.

Both observers look in the background when a session begins, and re-check for nearly nothing before each cell. A line is
written when there is none yet, and when what it says has changed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.records import Artifact, Digest, Record

if TYPE_CHECKING:
    from jupyter_mlops.project import Project
    from jupyter_mlops.redact import Redactor
    from jupyter_mlops.store import Store

FIRST_WAIT: Final = 0.05
"""Seconds the first cell may be held up for the first observations."""

_CODE_EVERY: Final = 1.0  # seconds between two looks at the working tree, which are taken behind the cells' backs


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
        self._project, self._store, self._redactor, self._failed = project, store, redactor, failed
        self.environment: Digest | None = None
        self.code: Digest | None = None
        self._observer: Any = None
        self._written: Record | None = None
        self._state: Any = None
        self._state_written: Any = None
        self._state_known = threading.Event()
        self._repository: Any = None
        self._has_code = True
        self._looking: threading.Thread | None = None
        self._looked = 0.0
        self._asked = 0
        self._modules_seen = -1
        self._modules: dict[str, Digest | None] = {}
        self._modules_off = False
        self._muted: Any = None

    def start(self) -> None:
        """Begin to look, in the background."""
        from jupyter_mlops.access import muted
        from jupyter_mlops.environment import Observer

        self._muted = muted
        self._observer = Observer(self._project.environ, redactor=self._redactor)
        self._observer.start()
        self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._looking = threading.Thread(target=self._look_at_code, name="mlops-code", daemon=True)
        self._looking.start()

    def _look_at_code(self) -> None:
        try:
            with self._muted():  # what we read is not what a cell reads
                from jupyter_mlops.git import Repository

                if self._repository is None:
                    self._repository = Repository.find(self._project.root)
                if self._repository is None:
                    self._has_code = False
                else:
                    self._state = self._repository.state(self._redactor, self._store.put)
        except BaseException as error:  # noqa: BLE001 - a thread of ours: nobody above it could handle anything
            self._has_code = False  # asked once: a repository that cannot be read is named once, not every second
            self._failed("code state", error)
        finally:
            self._state_known.set()

    def refresh(self) -> None:
        """Bring both lines up to date with what is known by now; the first call waits for at most `FIRST_WAIT`."""
        deadline = time.monotonic() + FIRST_WAIT if self._asked == 0 else 0.0
        self._asked += 1
        try:
            self._refresh_environment(max(0.0, deadline - time.monotonic()) if deadline else 0.0)
            self._refresh_code(max(0.0, deadline - time.monotonic()) if deadline else 0.0)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a cell is recorded without them rather than not at all
            self._failed("surroundings", error)

    def _refresh_environment(self, wait: float) -> None:
        if self._observer.changed() or self.environment is None:
            now = self._observer.current(timeout=wait)
            if now is not None and now != self._written:
                self.environment = self._store.append(now)
                self._written = now

    def _refresh_code(self, wait: float) -> None:
        if wait:
            self._state_known.wait(wait)
        state = self._state
        if state is not None and state is not self._state_written:
            if state != self._state_written:
                self.code = self._store.append(state)
            self._state_written = state
        if self._has_code and time.monotonic() - self._looked > _CODE_EVERY and not self._busy():
            self._look()

    def _busy(self) -> bool:
        return self._looking is not None and self._looking.is_alive()

    @property
    def missing(self) -> list[str]:
        """What is still being observed, or could not be."""
        names = []
        if self.environment is None:
            names.append("environment")
        if self.code is None and self._has_code:
            names.append("code state")
        return names

    def wait(self, seconds: float) -> None:
        """Wait for first observations that are still under way, and write their lines."""
        if not self.missing:
            return
        deadline = time.monotonic() + seconds
        self._refresh_environment(seconds)
        self._refresh_code(max(0.001, deadline - time.monotonic()))

    def modules(self) -> list[Artifact]:
        """The local modules that were imported or have changed since the last call."""
        count = len(sys.modules)
        if count == self._modules_seen or self._modules_off:
            return []
        self._modules_seen = count
        self._modules_off = True  # stays so where this fails: it would fail again at every import
        from jupyter_mlops.git import local_modules

        with self._muted():
            found = local_modules(self._project.root, self._redactor, self._store.put)
        self._modules_off = False
        fresh = [one for one in found if one.name not in self._modules or self._modules[one.name] != one.digest]
        self._modules.update((one.name, one.digest) for one in fresh)
        return fresh
