"""The state of the code, kept current between two cells for microseconds."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops.git.modules import Modules
from jupyter_mlops.git.repository import Put, Repository
from jupyter_mlops.records import CodeState, Gap
from jupyter_mlops.redact import Redactor

_INTERVAL: Final = 5.0


class Observer:
    """Keeps the state of the code current, for microseconds per cell.

    Parameters
    ----------
    root
        The project's folder.
    redactor, put
        As for `Repository.state`; `put` is called from a background thread too.
    interval
        Seconds between two looks at files that changed without a commit.
    given
        The state as it is told, where the code's repository is elsewhere: none is looked for here.
    """

    def __init__(
        self, root: Path, redactor: Redactor, put: Put, *, interval: float = _INTERVAL, given: CodeState | None = None
    ) -> None:  # fmt: skip
        self.repository = Repository.find(root) if given is None else None
        self._redactor, self._put, self._interval = redactor, put, interval
        self._modules = Modules(root, redactor, put)
        self._state: CodeState | None = None if self.repository else given or CodeState()
        self._told: CodeState | None = None
        self._stamp: tuple[Any, ...] = ()
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._pid = os.getpid()

    def start(self) -> None:
        """Begin to observe, in a daemon thread; returns at once."""
        if self.repository is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._stamp = self.repository.stamp()
        self._thread = threading.Thread(target=self._observe, name="mlops-git", daemon=True)
        self._thread.start()

    def changed(self) -> bool:
        """Whether the state differs from what `current` last gave, or is about to: HEAD, index or branch moved.

        Starts a look in the background where one is due. In a forked child it says no.
        """
        if os.getpid() != self._pid:
            return False
        moved = self._modules.changed()
        if self.repository is not None and not (self._thread is not None and self._thread.is_alive()):
            if self.repository.stamp() != self._stamp:
                moved = True
                self.start()
            elif time.monotonic() >= self._next:
                self.start()
        return moved or self._state is not self._told

    def current(self, timeout: float | None = None) -> CodeState | None:
        """The state of the code.

        Parameters
        ----------
        timeout
            Seconds to wait for a look that is under way; None waits for its end.

        Returns
        -------
        CodeState or None
            None only where the first look has not ended in time. While a later one is under way, the last known.
        """
        thread = self._thread
        if thread is None and self._state is None:
            self.start()
            thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(timeout)
        if self._state is None:
            return None
        self._told = self._state
        return msgspec.structs.replace(self._state, modules=self._modules.all())

    def _observe(self) -> None:
        began = time.monotonic()
        try:
            state = self.repository.state(self._redactor, self._put) if self.repository else CodeState()
        except Exception as error:  # noqa: BLE001
            # the store is full, or a hostile repository did the unforeseen: the notebook goes on, the record says it
            state = CodeState(gaps=[Gap(subject="code", reason=f"could not be read: {type(error).__name__}")])
        if state != self._state:
            self._state = state
        took = time.monotonic() - began
        self._next = time.monotonic() + max(self._interval, 20 * took)
