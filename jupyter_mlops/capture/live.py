"""Cell runs told to whoever looks on, while they happen.

A page that shows a notebook opens a comm to the kernel, and from then on hears of each cell run as it is put on record:
a `Row`, the few facts that a list shows, taken from the record itself and so with every secret masked already. Nothing
is done where nobody listens. Where somebody does, a hook only puts two records in a queue; rows are made and sent by a
thread of their own, so that a page that hangs holds up no cell. What a page missed while it was away is on record; and
where its server can not see the record, as with a kernel on another machine, the page asks the kernel for it: by the
words of the server's addresses, answered by a thread as well.

The page says first which version it is, and so does the kernel; each also tells the version of this very exchange, so
that two that do not understand one another can say so.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from jupyter_mlops.records import CellEnded, CellRun, CellStarted, Digest, Gap, encode

if TYPE_CHECKING:
    from jupyter_mlops.capture.run import Session

TARGET: Final = "jupyter_mlops.live"
"""The comm's name."""
PROTOCOL: Final = 1
"""Version of what is said over the comm and over HTTP; raised when an older page would misread it."""

_NAMES: Final = 6
_LINE: Final = 200
_WAITING: Final = 2000  # events that wait for the thread; beyond that a page reads the record instead
_QUESTIONS: Final = 100  # that wait for an answer; further ones get none

Answer = Callable[["Session", str, dict[str, str]], tuple[int, bytes]]
"""Answers a question about a session's record, asked in the words of the server's addresses: a status and JSON."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A cell run as one row of a list.

    Attributes
    ----------
    title
        The first line of its code that says something.
    lines
        How many lines of code it has.
    error
        How it failed, one line.
    made
        The first names of what it made and wrote; `made_count` is how many there are.
    metrics
        The last value of each metric it logged.
    marks
        What a reader should know: ``redacted``, ``unseeded``, ``gap``, ``blind`` (a gap through which nothing can be
        followed).
    trigger
        Of its run: ``session``, ``papermill``, ``shell``, ``ci``; empty where that is not known here.
    position
        Its place among those that were asked for, from the oldest; -1 where none was.
    """

    id: Digest
    time: str
    run: Digest
    notebook: str
    cell: str
    count: int
    status: str
    title: str
    lines: int
    label: str
    seconds: float
    error: str
    made: list[str]
    made_count: int
    metrics: dict[str, Any]
    marks: list[str]
    parent: Digest | None
    trigger: str
    position: int


def row_of(run: CellRun, *, trigger: str = "", position: int = -1) -> Row:
    """Make the row of a cell run on record."""
    made = [one.name for one in (*run.outputs, *run.files_written)]
    return _row(
        run.id, run.time, run.started, run.ended, run.status, made, run.gaps, run.metrics,
        trigger=trigger, position=position,
    )  # fmt: skip


def _row(
    id: Digest, time: str, started: CellStarted, ended: CellEnded | None, status: str, made: Sequence[str],
    gaps: Sequence[Gap], metrics: dict[str, Any], *, trigger: str = "", position: int = -1,
) -> Row:  # fmt: skip
    lines = started.source.splitlines()
    title = next((line.strip() for line in lines if line.strip()), "")
    marks = ["redacted"] if started.redacted else []
    if ended is not None and "unseeded" in ended.randomness.values() and not _only_loads(ended):
        marks.append("unseeded")
    if gaps:
        marks.append("blind" if any(gap.blocks for gap in gaps) else "gap")
    return Row(
        id=id, time=time, run=started.run, notebook=started.notebook, cell=started.cell, count=started.count,
        status=status, title=title[:_LINE], lines=len(lines), label=started.label,
        seconds=ended.seconds if ended is not None else 0.0,
        error=ended.error.partition("\n")[0][:_LINE] if ended is not None else "",
        made=list(made[:_NAMES]), made_count=len(made), metrics=metrics, marks=marks, parent=started.parent,
        trigger=trigger, position=position,
    )  # fmt: skip


def _only_loads(ended: CellEnded) -> bool:
    """Whether a cell left nothing but code: then a library drew as it was loaded, and another run gives no others."""
    more = ended.files_written or ended.displays
    return bool(ended.outputs) and all(one.is_code for one in ended.outputs) and not more


class Live:
    """Tells the pages that listen what happens in a session; its methods may be called from any thread.

    All pages share one comm, whose id is known beforehand: so a page that comes back hears at once what goes on, also
    while a cell runs and the kernel would answer nothing.

    Parameters
    ----------
    session
        The session that is told of.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._comms: list[Any] = []  # the last one is the one in use; none is let go of, for that would close it
        self._queue: queue.Queue[Callable[[], dict[str, Any]] | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._manager: Any = None
        self._pid = os.getpid()
        self._recording = True  # as pages were last told
        self.answer: Answer | None = None
        """Answers what pages ask of the record."""
        self._questions: queue.Queue[tuple[str, str, dict[str, str]] | None] = queue.Queue(_QUESTIONS)
        self._answering: threading.Thread | None = None

    # -- where it is put on and taken off ----------------------------------------------------------------------------

    def install(self, shell: Any) -> None:
        """Be there for pages, if the shell is a kernel's."""
        manager = getattr(getattr(shell, "kernel", None), "comm_manager", None)
        if manager is not None:
            self._manager = manager
            manager.register_target(TARGET, self._opened)

    def remove(self) -> None:
        """Close the comm, and be there no more."""
        if self._manager is None or os.getpid() != self._pid:
            return
        if self._manager.targets.get(TARGET) == self._opened:
            self._manager.unregister_target(TARGET, self._opened)
        self._manager = None
        comms, self._comms = self._comms, []
        self._put(None)
        if self._thread is not None:
            self._thread.join(1.0)
        if self._answering is not None:
            with contextlib.suppress(queue.Full):  # it ends with the process
                self._questions.put_nowait(None)
        for comm in comms[-1:]:
            comm.close()

    # -- what the hooks say ------------------------------------------------------------------------------------------

    @property
    def listened_to(self) -> bool:
        """Whether anybody listens: asked before anything is done."""
        return bool(self._comms)

    def missed(self) -> None:
        """A cell began and is not recorded: pages are told why, since recording may have ended after they came."""
        if self.listened_to:
            self._put(self._hello)

    def began(self, digest: Digest, time: str, started: CellStarted) -> None:
        """A cell began."""
        if not self._recording:
            self._put(self._hello)  # it goes on
        self._put(lambda: _event("began", _row(digest, time, started, None, "running", (), (), {})))

    def ended(self, digest: Digest, time: str, started: CellStarted, ended: CellEnded) -> None:
        """A cell ended, and its end was written."""
        self._put(lambda: _event("ended", _ended_row(digest, time, started, ended)))

    # -- what pages say ----------------------------------------------------------------------------------------------

    def _opened(self, comm: Any, message: Any) -> None:
        """The first page has come, or the first after the comm was closed; called by the kernel."""
        comm.on_msg(self._said)
        comm.on_close(self._closed)
        with self._lock:
            self._comms.append(comm)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="mlops-live", daemon=True)
                self._thread.start()
        self._said(message)

    def _closed(self, _message: Any) -> None:
        with self._lock:
            self._comms.clear()

    def _said(self, message: Any) -> None:
        """A page says which notebook it shows, as records spell paths; or nothing but that it is there."""
        content = message.get("content") if type(message) is dict else None
        data = content.get("data") if type(content) is dict else None
        if type(data) is dict and "ask" in data:
            self._ask(data["ask"])
            return
        path = data.get("notebook") if type(data) is dict else None
        if type(path) is str and _names_a_notebook(path):
            self.session.told_notebook = path
        self._put(self._hello)

    def _hello(self) -> dict[str, Any]:
        from jupyter_mlops import __version__

        run, store = self.session.begun
        self._recording = self.session.recording
        return {
            "kind": "hello", "version": __version__, "protocol": PROTOCOL, "recording": self._recording,
            "off": self.session.off, "run": run, "store": store, "answers": self.answer is not None,
        }  # fmt: skip

    # -- what pages ask ----------------------------------------------------------------------------------------------

    def _ask(self, asked: Any) -> None:
        """Have a question answered; one that is no question, or one too many, is not."""
        try:
            question = msgspec.convert(asked, _Question)
            self._questions.put_nowait((question.id, question.what, question.words))
        except (msgspec.ValidationError, queue.Full):
            return
        with self._lock:
            if self._answering is None:
                self._answering = threading.Thread(target=self._reply, name="mlops-answers", daemon=True)
                self._answering.start()

    def _reply(self) -> None:
        while (question := self._questions.get()) is not None:
            name, what, words = question
            try:
                if self.answer is None:
                    continue
                status, body = self.answer(self.session, what, words)
                said = {"kind": "answer", "id": name, "status": status, "body": msgspec.json.decode(body)}
                for comm in self._comms[-1:]:
                    comm.send(said)
            except Exception as error:  # noqa: BLE001 - a page goes without an answer, and says so
                self.session.failed("answers", error, breaks=False)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _put(self, made: Callable[[], dict[str, Any]] | None) -> None:
        with contextlib.suppress(queue.Full):  # pages read the record instead
            self._queue.put_nowait(made)

    def _send(self) -> None:
        while (made := self._queue.get()) is not None:
            try:
                said = made()
                for comm in self._comms[-1:]:
                    comm.send(said)
            except Exception as error:  # noqa: BLE001 - a page goes without a row; the record has it
                self.session.failed("live", error, breaks=False)


class _Question(msgspec.Struct, frozen=True):
    id: Annotated[str, msgspec.Meta(max_length=100)]
    what: Annotated[str, msgspec.Meta(max_length=300)]
    words: dict[str, Annotated[str, msgspec.Meta(max_length=5000)]] = {}


def _names_a_notebook(path: str) -> bool:
    """Whether a text is a path inside the project, to a notebook."""
    parts = path.split("/")
    return path.endswith(".ipynb") and len(path) < 1000 and path.isprintable() and not {"", ".", ".."} & set(parts)


def _ended_row(digest: Digest, time: str, started: CellStarted, ended: CellEnded) -> Row:
    made = [one.name for one in (*ended.outputs, *ended.files_written)]
    return _row(digest, time, started, ended, ended.status, made, ended.gaps, {})


def _event(kind: str, row: Row) -> dict[str, Any]:
    return {"kind": kind, "row": msgspec.json.decode(encode(row))}
