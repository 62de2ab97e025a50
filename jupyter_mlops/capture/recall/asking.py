"""What is asked before each cell of a kernel whose cells are kept: recall it, or say why it has to run."""

from __future__ import annotations

import ast
import contextlib
import hmac
import os
import sys
import time
import types
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import values
from jupyter_mlops.access import Looks
from jupyter_mlops.capture import process
from jupyter_mlops.capture.recall.entries import FORMAT, Again, Asked, Entry, Ground, dotted
from jupyter_mlops.capture.recall.fitting import Fitting
from jupyter_mlops.capture.recall.keeping import Keeping
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import Budget
from jupyter_mlops.fingerprints.walk import OverBudget
from jupyter_mlops.lineage import CellNames, names_in
from jupyter_mlops.lineage.effects import BLIND, Chain, change_of, named_in
from jupyter_mlops.lineage.volatile import uses_in
from jupyter_mlops.namespace import Before, codes
from jupyter_mlops.objects import replace_file
from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellLogged,
    CellRun,
    CellSettled,
    Digest,
    digest_of,
    encode,
)
from jupyter_mlops.values import Layouts, NotKept

if TYPE_CHECKING:
    from jupyter_mlops.capture.hooks import Hooks
    from jupyter_mlops.capture.run import Session

PATIENCE: Final = 60.0
"""Seconds that fingerprints may take where cells are kept: without one a cell cannot be recalled."""
_TRIED: Final = 5
_AT_A_TIME: Final = 0.25  # seconds after which whoever asks about several cells is told of those that are back
_ALLOWED: Final = frozenset({"log_metric", "log_metrics", "log_param", "log_params", "set_tag", "log_artifact"})


class Recall:
    """The cells of one kernel that may be recalled.

    Parameters
    ----------
    hooks
        What records the kernel's cells.
    cells
        The sources of all cells that are to run, in order: what a later cell asks for decides what may be recalled.
    """

    def __init__(self, hooks: Hooks, cells: Iterable[str]) -> None:
        self.hooks = hooks
        self.session: Session = hooks.session
        self.session.open()
        self.session.seconds = PATIENCE
        self.session.namespace.patience = PATIENCE
        self.session.access.versions.budget = PATIENCE
        self.session.access.look()
        self.ground = Ground(self.session)
        self._fitting = Fitting(self.ground, hooks.shell.builtin_trap)
        self._keeping = Keeping(self.ground)
        self._before: list[str] = []
        self._counts: dict[str, int] = {}
        """The numbers of cells by their text: a traceback through what was recalled names its cell by it."""
        self._asked: Asked | None = None
        self._lay: Layouts | None = None
        self._ran: tuple[Digest, CellEnded, Looks | None] | None = None
        self._nothing = self._never(list(cells))

    def _never(self, cells: list[str]) -> str:
        """Why no cell of a notebook may be recalled; empty where some may."""
        if sys.flags.hash_randomization and not self.session.project.environ.get("PYTHONHASHSEED", "").isdigit():
            return "the hash seed is another in each process"
        for source in cells:
            code = _compiled(self._transformed(source))
            if code is None:
                continue
            named = named_in(code)
            if named.reads_history:
                return "a cell of the notebook reads what IPython remembers of others (as `_` or `Out`)"
            if named.asks_for_owners:
                return "a cell of the notebook asks who owns an array's memory, or how large an object is"
            if not {"display_id", "update_display", "clear_output"}.isdisjoint(named.names):
                return "a cell of the notebook changes what another one displays"
        return ""

    def _transformed(self, source: str) -> str:
        try:
            return str(self.hooks.shell.transform_cell(source))
        except Exception:  # noqa: BLE001 - not even the shell can read it: it will say so itself
            return source

    def consult_all(self, cells: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """Recall cells, given by source and id, one after the other, until one has to run or time has passed.

        Returns
        -------
        list
            What `consult` says of each that was come to.
        """
        told: list[dict[str, Any]] = []
        ends = time.monotonic() + _AT_A_TIME
        for source, cell in cells:
            try:
                told.append(self.consult(source, cell))
            except KeyboardInterrupt:
                if not told:
                    raise
                break  # whoever asked ends the run; what is back already is on record, and is told
            except Exception as error:  # noqa: BLE001 - that cell is run as it would be without us; those before it stand
                self.session.failed("recall", error)
                told.append({"why": f"recalling failed ({type(error).__name__})"})
            if "recalled" not in told[-1] or time.monotonic() > ends:
                break
        return told

    def consult(self, source: str, cell: str = "") -> dict[str, Any]:
        """Recall a cell, or say why it has to run.

        Parameters
        ----------
        source
            The cell as it would run.
        cell
            Its id in the notebook.

        Returns
        -------
        dict
            ``recalled`` (the cell run it was recalled from), ``shown`` (the object with its outputs) and ``count``;
            or ``why``.
        """
        session = self.session
        session.namespace.wait(Budget(PATIENCE))
        session.settle()
        self._before.append(source)
        self._asked = self._ran = self._lay = None
        modules = frozenset(sys.modules)
        states = {name: process.state_of(name) for name in process.local()}
        generators = {name: process.digest(state) for name, state in process.generator_marks().items()}
        moment, began = process.moment(self.ground.variables().items()), time.perf_counter()
        text = self._transformed(source)
        self._counts[text] = self.hooks.shell.execution_count
        names = names_in(text)
        before = session.namespace.before(text, names)
        key: Digest | None = None
        try:
            why = self._nothing
            if not why:
                try:
                    self._permitted(text, names, before)
                    key = self._key_of(source, before)
                    return self._recalled(source, text, cell, names, before, key)
                except Again as reason:
                    why = str(reason)
                except (NotKept, OverBudget) as reason:
                    why = f"how its variables lie in memory cannot be told ({reason})"
                except (MlopsError, OSError) as error:
                    why = f"what it left cannot be put back: {error}".partition("\n")[0]
        finally:
            session.namespace.leave(before)
            for data in before.facts.values():
                session.store.put(data)
        self._asked = Asked(
            source=source, cell=cell, names=names, key=key, lay=self._lay, why=why if key is None else "",
            modules=modules, states=states, generators=generators, moment=moment, began=began,
        )  # fmt: skip
        return {"why": why}

    def _permitted(self, text: str, names: CellNames, before: Before) -> None:
        """See that a cell does nothing, as far as its code says, that cannot be put back.

        Raises
        ------
        Again
            It does.
        """
        code = _compiled(text)
        if code is None or names.syntax_error:
            raise Again("it is no Python")
        if names.opaque:
            raise Again(f"what it reads and changes cannot be told ({', '.join(names.opaque)})")
        for use in uses_in(self._before)[-1]:
            if use.what != "environment":
                raise Again(f"it depends on {'the time' if use.what == 'time' else use.what} ({use.call})")
        space = self.ground.space
        pieces = [code]
        for name in before.mentioned:
            if name in space:
                pieces += codes(space[name], space)
        for piece in pieces:
            named = named_in(piece)
            if "__future__" in named.names:
                raise Again("it changes how later cells are compiled (from __future__)")
            for chain in named.chains:
                self._harmless(chain, space)

    def _harmless(self, chain: Chain, space: dict[str, Any]) -> None:
        if chain.root in BLIND and not chain.imported and chain.root not in space:
            raise Again(f"what it does cannot be told ({chain.root})")
        if chain.root == "get_ipython":
            raise Again("it uses IPython itself")
        name = chain.root if chain.imported else dotted(space.get(chain.root), chain.root)
        if not name:
            return
        if name.startswith("jupyter_mlops") and (*name.split("."), *chain.rest)[-1] not in _ALLOWED:
            raise Again("it asks or tells the record something")
        what = change_of(chain, name)
        if what:
            raise Again(what)

    def _key_of(self, source: str, before: Before) -> Digest:
        """The digest of all that a cell is known to depend on before it runs.

        Raises
        ------
        Again
            Something of that has no digest.
        """
        session = self.session
        environment = session.surroundings.observed(PATIENCE)
        if environment is None:
            raise Again("what is installed is not known")
        space = self.ground.space
        closure = session.namespace.sharing(before.inputs)
        self._lay = Layouts({name: space[name] for name in closure})
        inputs = []
        for name in sorted(closure):
            inputs.append((name, self.ground.version(name, before.inputs.get(name), space[name])))
        around = msgspec.structs.replace(environment, other_variables=[], gaps=[], memory=0)
        said = [
            FORMAT, source, inputs, self._lay.digest(), digest_of(encode(around, sort=True)), list(sys.flags),
            session.project.environ.get("PYTHONHASHSEED", ""), hash("jupyter"),
        ]  # fmt: skip
        return digest_of(encode(said, sort=True))

    def _recalled(
        self, source: str, text: str, cell: str, names: CellNames, before: Before, key: Digest
    ) -> dict[str, Any]:
        """Put back what an earlier run did, the newest that fits.

        Raises
        ------
        Again
            None fits.
        """
        store = self.session.store
        why = "no run of it on record had the same code, variables and environment"
        seen: set[Digest] = set()
        for digest in store.recalls(key):
            run = store.cell_run(digest)
            kept = next((one for late in run.settled for one in late.recall if one.digest == key), None)
            if kept is None or kept.facts in seen or len(seen) >= _TRIED:
                continue
            if kept.facts is None:
                why = kept.why or why
                continue
            seen.add(kept.facts)
            try:
                entry = self._entry(kept.facts)
                made, states = self._fitting.fits(entry)
                return self._put_back(source, text, cell, names, before, key, kept.facts, entry, run, made, states)
            except Again as reason:
                why = str(reason)
        raise Again(why)

    def _entry(self, digest: Digest) -> Entry:
        try:
            entry = msgspec.json.decode(self.session.store.get(digest), type=Entry)
        except (msgspec.DecodeError, LookupError, RecursionError) as error:
            raise Again("what is on record of its last run is damaged") from error
        if entry.format != FORMAT or not hmac.compare_digest(self.ground.sealed(entry).encode(), entry.seal.encode()):
            raise Again("what is on record of its last run was not kept by this user on this machine")
        return entry

    def _put_back(
        self, source: str, text: str, cell: str, names: CellNames, before: Before, key: Digest, facts: Digest,
        entry: Entry, run: CellRun, made: dict[str, Any], states: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        session, space = self.session, self.ground.space
        began = time.perf_counter()
        for folder in entry.folders:
            os.makedirs(self.ground.path(folder), exist_ok=True)
        for name, (digest, mode) in entry.written.items():
            _write(Path(self.ground.path(name)), session.store.get(digest), mode)

        was = {name: session.namespace.version(name) for name in entry.variables if name not in entry.made}

        def bind(cell_run: Digest) -> CellEnded:
            for name in entry.removed:
                space.pop(name, None)
            space.update(made)
            versions: dict[str, Artifact | None] = dict.fromkeys(entry.removed)
            outputs = []
            for name, artifact in entry.variables.items():
                versions[name] = was.get(name) or msgspec.structs.replace(artifact, made=cell_run)
                if name in entry.made:
                    outputs.append(versions[name])
            session.namespace.restored(versions)
            process.give_states(states)
            moved = session.generators.moved(names) if session.generators is not None else {}
            return self._ended(cell_run, entry, run, before, [one for one in outputs if one is not None], moved, began)

        digest, ended = self.hooks.put_back(source, text, cell, bind)
        for line in run.logged:
            self._log(line, digest)
        self._name_cells()
        session.write(
            CellSettled(cell_run=digest, recall=[Artifact(name=cell or "cell", kind="recall", digest=key, facts=facts)])
        )
        return {
            "recalled": entry.cell_run, "cell_run": digest, "shown": entry.shown, "seconds": ended.seconds,
            "count": self.hooks.shell.execution_count - 1,
        }  # fmt: skip

    def _ended(
        self, cell_run: Digest, entry: Entry, run: CellRun, before: Before, outputs: list[Artifact],
        moved: dict[str, str], began: float,
    ) -> CellEnded:  # fmt: skip
        """What is on record of a cell that was recalled: as of one that ran, and from which run it is."""
        session, was = self.session, run.ended
        assert was is not None
        read = self.hooks.with_makers([msgspec.structs.replace(one, made=None) for one in run.files_read], cell_run)
        after = dict.fromkeys([*before.after, *(one.made for one in read if one.made is not None)])
        after.pop(cell_run, None)
        self.hooks.wrote(run.files_written, cell_run)
        with contextlib.suppress(Exception):  # it is noted by the next cell then
            session.surroundings.modules()
            session.surroundings.imported()
        return CellEnded(
            cell_run=cell_run, status="done", seconds=round(time.perf_counter() - began, 6), recalled=entry.cell_run,
            after=list(after), inputs=list(before.inputs.values()), outputs=outputs, removed=entry.removed,
            files_read=read, files_written=run.files_written, sources=was.sources, modules=was.modules,
            imported=was.imported, displays=was.displays, randomness=was.randomness or moved,
        )  # fmt: skip

    def _name_cells(self) -> None:
        """Have tracebacks show code that was brought back as the cell's that it comes from."""
        numbers = getattr(getattr(self.hooks.shell, "compile", None), "_filename_map", None)
        if type(numbers) is dict:
            for name, lines in values.cells_brought():
                count = self._counts.get("".join(lines))
                if count is not None:
                    numbers.setdefault(name, count)

    def _log(self, line: CellLogged, cell_run: Digest) -> None:
        session = self.session
        session.write(msgspec.structs.replace(line, run=session.run, cell_run=cell_run))
        if line.what == "metric":
            session.metrics[line.key] = line.value
        elif line.what == "param":
            session.parameters[line.key] = line.value

    def ran(self, cell_run: Digest, ended: CellEnded, looks: Looks | None) -> None:
        """Take note of what a cell did; called by the hooks."""
        self._ran = cell_run, ended, looks

    def keep(self, shown: Digest | None, why: str = "") -> dict[str, Any]:
        """Keep what the cell did that has just run, for a later run to recall.

        Parameters
        ----------
        shown
            The object that holds its outputs as the notebook has them; None where they cannot be kept: then `why`.

        Returns
        -------
        dict
            ``kept``, or ``why`` it is not.
        """
        asked, ran = self._asked, self._ran
        self._asked = self._ran = None
        if asked is None or ran is None:
            return {"why": "it was not recorded"}
        cell_run, ended, looks = ran
        self.session.namespace.wait(Budget(PATIENCE))
        self.session.settle()
        facts: Digest | None = None
        try:
            if ended.status != "done":
                return {"why": "it did not come to its end"}
            reason = asked.why or why
            if reason:
                raise Again(reason)
            facts = self._keeping.entry(asked, cell_run, ended, looks or Looks(), shown)
            reason = ""
        except Again as stop:
            reason = str(stop)
        except (NotKept, OverBudget) as stop:
            reason = f"what it left cannot be kept ({stop})"
        self.session.write(
            CellSettled(
                cell_run=cell_run,
                recall=[Artifact(name=asked.cell or "cell", kind="recall", digest=asked.key, facts=facts, why=reason)],
            )
        )
        return {"why": reason} if reason else {"kept": facts}


def _compiled(text: str) -> types.CodeType | None:
    """The code of a cell, given as the shell transforms it; None where it is no Python."""
    try:
        found: types.CodeType = compile(text, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        return found
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file as it was, unless it is that already."""
    try:
        if not path.is_symlink() and path.stat().st_mode & 0o777 == mode and path.read_bytes() == data:
            return
    except OSError:  # it is not there
        pass
    replace_file(path, [data], durable=False, mode=mode)


def recalls(session: Session, hooks: Hooks, cells: Iterable[str]) -> Recall:
    """Have the cells of a kernel kept and recalled from now on."""
    if session.recall is None:
        session.recall = Recall(hooks, cells)
    return session.recall
