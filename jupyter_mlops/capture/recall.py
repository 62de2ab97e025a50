"""A cell recalled instead of run: what an earlier run of it did is put back, where all it depended on is what it was.

An engine asks before each cell (`Recall.consult`) and has the cell kept when it has run (`Recall.keep`). What a cell
depends on is known in two steps. Before it runs: its code, the versions and the layout of the variables it reads with
all that shares with them, the environment; their digest is the *key* under which earlier runs are found. After it ran:
the files it read and looked for, modules, settings, random generators, variables of the process; an earlier run is
recalled only where each of these is what it was then.

Nothing is guessed. What cannot be put back (an answer from a network, the time, a value of no known format, what a
setter of a library did) has the cell run again, and the reason is said. What an entry says is believed only where this
machine sealed it: it writes files and runs code.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import hmac
import importlib
import importlib.util
import os
import sys
import time
import types
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import __version__, values
from jupyter_mlops.access import Looks
from jupyter_mlops.access.looking import OURS, kind_of, listing_of, stat_of
from jupyter_mlops.capture import process
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import Budget, file_digest
from jupyter_mlops.fingerprints.walk import OverBudget
from jupyter_mlops.lineage import CellNames, names_in
from jupyter_mlops.lineage.effects import BLIND, Chain, change_of, named_in
from jupyter_mlops.lineage.volatile import uses_in
from jupyter_mlops.namespace import Before, codes, reach
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
from jupyter_mlops.values import NotKept, layout, sealed

if TYPE_CHECKING:
    from jupyter_mlops.capture.hooks import Hooks
    from jupyter_mlops.capture.run import Session

FORMAT: Final = "recall-1"
PATIENCE: Final = 60.0
"""Seconds that fingerprints may take where cells are kept: without one a cell cannot be recalled."""
_LARGEST_FILE: Final = 1 << 30
_AT_LEAST: Final = 5.0
"""Seconds that keeping a cell may take in any case; else as long as the cell itself took."""
_TRIED: Final = 5
_ALLOWED: Final = frozenset({"log_metric", "log_metrics", "log_param", "log_params", "set_tag", "log_artifact"})
_FINE_GAPS: Final = ("outputs are not seen in a terminal",)
_LIBRARY: Final = (types.FunctionType, types.BuiltinFunctionType)


class Again(Exception):
    """A cell has to run. Its text is the reason."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one run of a cell did and depended on, beside what its key says.

    Attributes
    ----------
    cell_run
        The run that did it.
    variables, manifest, layout, same
        What it left: versions by name, the object that holds the values, their layout, and names that are the very
        object another one is.
    files
        Paths it read, each with the digest.
    written, folders
        Files with digest and mode, and folders, that it made.
    kinds, stats, listings
        What it found under paths, as `Looks` has it.
    environ
        Keyed digests of the variables of the process that it read; None for one that was not there.
    missing
        Modules that were not there.
    imports, sources
        Modules that came into memory, in order; and of those that are not installed the source.
    states
        Local modules' own variables before it, by module.
    settings, changed
        What settings stood at after it, and keyed digests of the variables of the process that changed meanwhile.
    drew
        Generators whose state counted, each with the digest of its state before.
    generators
        The object that holds the states it left.
    shown
        The object that holds the cell's outputs as the notebook has them.
    """

    cell_run: Digest
    variables: dict[str, Artifact] = {}
    made: list[str] = []
    manifest: Digest | None = None
    layout: str = ""
    same: dict[str, str] = {}
    removed: list[str] = []
    files: dict[str, Digest] = {}
    written: dict[str, tuple[Digest, int]] = {}
    folders: list[str] = []
    kinds: dict[str, str] = {}
    stats: dict[str, tuple[int, int]] = {}
    listings: dict[str, str] = {}
    environ: dict[str, str | None] = {}
    missing: list[str] = []
    imports: list[str] = []
    sources: dict[str, process.Source] = {}
    states: dict[str, str] = {}
    settings: dict[str, str] = {}
    changed: dict[str, str | None] = {}
    drew: dict[str, str] = {}
    generators: Digest | None = None
    shown: Digest | None = None
    format: str = FORMAT
    seal: str = ""


class Asked(msgspec.Struct):
    """What is known of a cell before it runs."""

    source: str
    cell: str
    names: CellNames
    key: Digest | None
    why: str
    modules: frozenset[str]
    states: dict[str, str | None]
    generators: dict[str, str]
    moment: dict[str, Any]
    began: float


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
        self._key = sealed.local_key()
        self._before: list[str] = []
        self._asked: Asked | None = None
        self._ran: tuple[Digest, CellEnded, Looks | None] | None = None
        self._known: dict[values.Claim, Digest] = {}
        self._nothing = self._never(list(cells))

    def _never(self, cells: list[str]) -> str:
        """Why no cell of a notebook may be recalled; empty where some may."""
        if sys.flags.hash_randomization and not self.session.project.environ.get("PYTHONHASHSEED", "").isdigit():
            return "the hash seed is another in each process"
        for source in cells:
            code = self._compiled(source)
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

    def _compiled(self, source: str) -> types.CodeType | None:
        try:
            found: types.CodeType = compile(
                self._transformed(source), "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
            return found
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None

    # -- before a cell -------------------------------------------------------------------------------------------------

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
        self._asked = self._ran = None
        modules = frozenset(sys.modules)
        states = {name: process.state_of(name) for name in modules if process.file_of(name)}
        generators = {name: process.digest(state) for name, state in self._states().items()}
        moment, began = process.moment(self._variables().items()), time.perf_counter()
        text = self._transformed(source)
        names = names_in(text)
        before = session.namespace.before(text, names)
        key: Digest | None = None
        try:
            why = self._nothing
            if not why:
                try:
                    self._permitted(source, names, before)
                    key = self._key_of(source, before)
                    return self._recalled(source, cell, names, before, key)
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
            source=source, cell=cell, names=names, key=key, why=why if key is None else "", modules=modules,
            states=states, generators=generators, moment=moment, began=began,
        )  # fmt: skip
        return {"why": why}

    def _states(self) -> dict[str, Any]:
        found = process.generator_states(("random", "numpy.random", "torch"))
        return {name: repr(_plain(state)) for name, state in found.items()}

    def _variables(self) -> dict[str, str]:
        environ = self.session.project.environ
        return {name: environ[name] for name in list(environ) if not name.startswith(OURS)}

    def _permitted(self, source: str, names: CellNames, before: Before) -> None:
        """See that a cell does nothing, as far as its code says, that cannot be put back.

        Raises
        ------
        Again
            It does.
        """
        code = self._compiled(source)
        if code is None or names.syntax_error:
            raise Again("it is no Python")
        if names.opaque:
            raise Again(f"what it reads and changes cannot be told ({', '.join(names.opaque)})")
        for use in uses_in(self._before)[-1]:
            if use.what != "environment":
                raise Again(f"it depends on {'the time' if use.what == 'time' else use.what} ({use.call})")
        space = self.session.variables
        assert space is not None
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
        dotted = chain.root if chain.imported else _dotted(space.get(chain.root), chain.root)
        if not dotted:
            return
        if dotted.startswith("jupyter_mlops") and (*dotted.split("."), *chain.rest)[-1] not in _ALLOWED:
            raise Again("it asks or tells the record something")
        what = change_of(chain, dotted)
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
        space = session.variables
        assert space is not None
        closure = session.namespace.sharing(before.inputs)
        inputs = []
        for name in sorted(closure):
            inputs.append((name, self._version(name, before.inputs.get(name), space[name])))
        shape = layout({name: space[name] for name in closure})
        around = msgspec.structs.replace(environment, other_variables=[], gaps=[], memory=0)
        said = [
            FORMAT, source, inputs, shape, digest_of(encode(around, sort=True)), list(sys.flags), sys.hash_info.width,
            session.project.environ.get("PYTHONHASHSEED", ""), hash("jupyter"),
        ]  # fmt: skip
        return digest_of(encode(said, sort=True))

    def _version(self, name: str, known: Artifact | None, value: object) -> str:
        if type(value) is types.ModuleType:
            return f"module {value.__name__}"
        if (ours := _dotted(value, name)).startswith("jupyter_mlops."):
            return f"{ours} {__version__}"
        version = known or self.session.namespace.version(name)
        if version is None or version.digest is None:
            why = version.why if version is not None else "it is gone"
            raise Again(f"{name} has no digest: {why or 'it could not be made'}")
        return version.digest

    def _recalled(self, source: str, cell: str, names: CellNames, before: Before, key: Digest) -> dict[str, Any]:
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
                made, states = self._fitting(entry)
                return self._put_back(source, cell, names, before, key, kept.facts, entry, run, made, states)
            except Again as reason:
                why = str(reason)
        raise Again(why)

    def _entry(self, digest: Digest) -> Entry:
        try:
            entry = msgspec.json.decode(self.session.store.get(digest), type=Entry)
        except (msgspec.DecodeError, LookupError, RecursionError) as error:
            raise Again("what is on record of its last run is damaged") from error
        if entry.format != FORMAT or not hmac.compare_digest(self._sealed(entry).encode(), entry.seal.encode()):
            raise Again("what is on record of its last run was not kept by this user on this machine")
        return entry

    def _sealed(self, entry: Entry) -> str:
        return sealed.seal(self._key, digest_of(msgspec.json.encode(msgspec.structs.replace(entry, seal=""))))

    def _keyed(self, value: str | None) -> str | None:
        """A digest that only this machine can make: what is read from the surroundings is easily guessed."""
        if value is None:
            return None
        return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).hexdigest()

    # -- does it fit ---------------------------------------------------------------------------------------------------

    def _fitting(self, entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
        """Hold what an earlier run depended on against what is, and make the values it left; nothing is bound.

        Raises
        ------
        Again
            Something is another, or is gone.
        """
        session, environ = self.session, self.session.project.environ
        for name, value in entry.environ.items():
            now = self._all_variables() if name == "*" else environ.get(name)
            if self._keyed(now) != value:
                raise Again(
                    f"the variable {name} of the process is another"
                    if name != "*"
                    else "variables of the process are others"
                )
        for name, kind in entry.kinds.items():
            if (now := kind_of(self._path(name))) != kind:
                was = f"was a {kind}" if kind else "was not there"
                raise Again(f"{name} {was}, and {'is a ' + now if now else 'is not there'} now")
        for name, stats in entry.stats.items():
            size, changed = stat_of(self._path(name))
            if (size, changed if stats[1] else 0) != tuple(stats):
                raise Again(f"size or time of {name} is another")
        for name, listing in entry.listings.items():
            if listing_of(self._path(name)) != listing:
                raise Again(f"the folder {name} lists other names")
        for name, digest in entry.files.items():
            if session.access.versions.version(self._path(name), Budget()).digest != digest:
                raise Again(f"{name} is another, or gone")
        for name, source in entry.sources.items():
            if _digest_of_file(self._path(source.name)) != source.digest:
                raise Again(f"the module {name} is another, or gone")
        for name, state in entry.states.items():
            if process.state_of(name) != state:
                raise Again(f"variables in the module {name} are others")
        for name in entry.missing:
            if _may_be_found(name):
                raise Again(f"the module {name} was not there, and may be there now")
        now_states = self._states()
        for name, state in entry.drew.items():
            if name not in now_states or process.digest(now_states[name]) != state:
                raise Again(f"the generator {name} stands elsewhere")
        for name, (digest, _) in entry.written.items():
            if not session.store.has(digest):
                raise Again(f"the bytes of {name}, which it wrote, are not in the store")
        if entry.shown is not None and not session.store.has(entry.shown):
            raise Again("its outputs are not in the store")
        self._import(entry)
        made = self._make(entry)
        states = {} if entry.generators is None else values.bring(entry.generators, session.store)
        return made, states

    def _import(self, entry: Entry) -> None:
        """Have the modules in memory that the cell brought there; then all settings must stand as they did."""
        with self.hooks.shell.builtin_trap:  # as in a cell: libraries ask there whether they are in a notebook
            for name in entry.imports:
                if name not in sys.modules:
                    try:
                        importlib.import_module(name)
                    except Exception as error:
                        raise Again(f"the module {name} cannot be imported ({type(error).__name__})") from error
        for name, value in entry.changed.items():
            if self._keyed(self.session.project.environ.get(name)) != value:
                raise Again(f"it sets the variable {name} of the process")
        now = process.settings(self.session.project.relative)
        for name, value in entry.settings.items():
            if now.get(name) != value:
                raise Again(f"settings are others, or it sets them ({name})")

    def _make(self, entry: Entry) -> dict[str, Any]:
        space = self.session.variables
        assert space is not None
        made: dict[str, Any] = {}
        if entry.manifest is not None:
            with process.warnings_kept():
                made = values.bring(entry.manifest, self.session.store, space=space, known=self._known)
        for name, other in entry.same.items():
            if other in made:
                made[name] = made[other]
            elif other in space:
                made[name] = space[other]
            else:
                raise Again(f"{name} was {other}, which is not there")
        if made.keys() != entry.variables.keys():
            raise Again("not all of what it left is in the store")
        if layout(made) != entry.layout:
            raise Again("what it left would lie otherwise in memory")
        return made

    def _path(self, name: str) -> str:
        if name.startswith("~/"):
            return os.path.expanduser(name)
        return os.path.join(str(self.session.project.root), name)

    def _all_variables(self) -> str:
        return repr(sorted(self._variables().items()))

    # -- putting back --------------------------------------------------------------------------------------------------

    def _put_back(
        self, source: str, cell: str, names: CellNames, before: Before, key: Digest, facts: Digest, entry: Entry,
        run: CellRun, made: dict[str, Any], states: dict[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        session, space = self.session, self.session.variables
        assert space is not None
        began = time.perf_counter()
        for folder in entry.folders:
            os.makedirs(self._path(folder), exist_ok=True)
        for name, (digest, mode) in entry.written.items():
            _write(Path(self._path(name)), session.store.get(digest), mode)

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

        digest, ended = self.hooks.put_back(source, cell, bind)
        for line in run.logged:
            self._log(line, digest)
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

    def _log(self, line: CellLogged, cell_run: Digest) -> None:
        session = self.session
        session.write(msgspec.structs.replace(line, run=session.run, cell_run=cell_run))
        if line.what == "metric":
            session.metrics[line.key] = line.value
        elif line.what == "param":
            session.parameters[line.key] = line.value

    # -- after a cell --------------------------------------------------------------------------------------------------

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
            facts = self._kept(asked, cell_run, ended, looks or Looks(), shown)
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

    def _kept(self, asked: Asked, cell_run: Digest, ended: CellEnded, looks: Looks, shown: Digest | None) -> Digest:
        session, store, space = self.session, self.session.store, self.session.variables
        assert space is not None
        run = store.cell_run(cell_run)
        fresh = process.imported_since(asked.modules)
        now, stand = process.moment(self._variables().items()), process.settings(session.project.relative)
        self._repeatable(run, looks, process.changes(asked.moment, now, fresh))
        names = session.namespace.sharing(one.name for one in run.outputs)
        if missing := [one.name for one in run.outputs if one.name not in space]:
            raise Again(f"{missing[0]} is gone")
        self._own(names)
        versions = session.namespace.versions()
        held = {}
        inputs = {one.name for one in run.inputs}
        for name in sorted(names | {one.name for one in run.outputs}):
            version = versions[name].artifact or session.namespace.version(name)
            if version is None:
                raise Again(f"{name} is gone")
            self._version(name, version, space[name])
            held[name] = msgspec.structs.replace(version, made=None)
        same = self._same(held, inputs)
        kept = self._values(held, same, time.perf_counter() - asked.began)
        entry = Entry(
            cell_run=cell_run, variables=held, made=[one.name for one in run.outputs], manifest=kept.manifest,
            same=same,
            layout=layout({name: space[name] for name in held}), removed=ended.removed, shown=shown,
            imports=fresh, files=self._read(run), written=self._written(run),
            folders=[self._name(path) for path in looks.folders],
            kinds={self._name(path): kind for path, kind in looks.kinds.items()},
            stats={self._name(path): found for path, found in looks.stats.items()},
            listings={self._name(path): found for path, found in looks.listings.items()},
            missing=[name for name in looks.modules if name not in sys.modules],
            environ=self._environ(looks), sources=self._sources(fresh), states=self._module_states(asked),
            settings=stand,
            changed={
                name: self._keyed(now["variables"].get(name))
                for name in {*now["variables"], *asked.moment["variables"]}
                if now["variables"].get(name) != asked.moment["variables"].get(name)
            },
            **self._generators(asked, ended),
        )  # fmt: skip
        return store.put(msgspec.json.encode(msgspec.structs.replace(entry, seal=self._sealed(entry))))

    def _repeatable(self, run: CellRun, looks: Looks, changes: list[str]) -> None:
        """See that a cell did nothing that cannot be put back.

        Raises
        ------
        Again
            It did.
        """
        assert run.ended is not None
        if run.started.redacted:
            raise Again("secrets in its code were masked")
        if run.ended.sources:
            raise Again(f"it asked {run.ended.sources[0].name}")
        for gap in run.gaps:
            if gap.reason not in _FINE_GAPS:
                raise Again(f"{gap.subject}: {gap.reason}")
        for name, how in run.ended.randomness.items():
            if how != "seeded" or name not in ("random", "numpy.random", "torch"):
                raise Again(f"it draws from {name}, which no cell seeded")
        for change in (*looks.effects, *changes):
            raise Again(change)
        if any(line.what not in ("metric", "param", "tag", "artifact") for line in run.logged):
            raise Again("it logs what is not known here")

    def _own(self, names: Iterable[str]) -> None:
        """See that what a cell left is held by no module: it would be another object than the module's."""
        space = self.session.variables
        assert space is not None
        held = None
        for name in names:
            value = space[name]
            if type(value) is types.ModuleType:
                continue
            objects = reach(value, space).objects
            if not objects:
                continue
            held = process.objects_of_modules() if held is None else held
            for one in objects:
                if one in held:
                    raise Again(f"{name} is, or holds, an object of the module {held[one]}")

    def _same(self, held: dict[str, Artifact], inputs: set[str]) -> dict[str, str]:
        """Names among those kept that are the very object another one, or what the cell read, is."""
        space = self.session.variables
        assert space is not None
        first: dict[int, str] = {}
        others = {id(space[name]): name for name in inputs if name in space and name not in held}
        same = {}
        for name in held:
            identity = id(space[name])
            if identity in first:
                same[name] = first[identity]
            elif identity in others and type(space[name]) not in (bool, type(None), types.ModuleType):
                same[name] = others[identity]
            else:
                first[identity] = name
        return same

    def _values(self, held: dict[str, Artifact], same: dict[str, str], took: float) -> values.Kept:
        session, space = self.session, self.session.variables
        assert space is not None
        wanted = {name: space[name] for name in held if name not in same}
        if not wanted:
            return values.Kept(None, [], {})
        try:
            with process.warnings_kept():
                kept = values.keep(
                    wanted, session.store, digests={name: held[name].digest for name in wanted},
                    secret=session.redactor.secret, known=self._known, space=space,
                    budget=Budget(max(_AT_LEAST, took)),
                )  # fmt: skip
        except OverBudget as stop:
            raise Again("keeping what it left takes longer than running it again") from stop
        for name, why in kept.left.items():
            raise Again(f"{name} cannot be kept: {why}")
        return kept

    def _read(self, run: CellRun) -> dict[str, Digest]:
        found = {}
        for one in run.files_read:
            if one.digest is None:
                raise Again(f"{one.name}, which it read, has no digest: {one.why}")
            if not one.name.startswith("package:"):
                found[one.name] = one.digest
        return found

    def _written(self, run: CellRun) -> dict[str, tuple[Digest, int]]:
        found = {}
        for one in run.files_written:
            path = Path(self._path(one.name))
            if one.digest is None or one.type == "folder" or one.name.startswith("package:") or path.is_symlink():
                raise Again(f"what it did to {one.name} is not put back ({one.why or 'no plain file'})")
            if (one.size or 0) > _LARGEST_FILE:
                raise Again(f"{one.name}, which it wrote, is larger than {_LARGEST_FILE >> 20} MiB")
            if self.session.store.put(path) != one.digest:
                raise Again(f"{one.name}, which it wrote, is another by now")
            found[one.name] = (one.digest, path.stat().st_mode & 0o777)
        return found

    def _name(self, path: str) -> str:
        return self.session.access.versions.name(path) or path

    def _environ(self, looks: Looks) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        environ = self.session.project.environ
        for name in looks.variables:
            value = self._all_variables() if name == "*" else environ.get(name)
            if name != "*" and value is not None and self.session.redactor.secret(name, value):
                raise Again(f"it reads the secret variable {name} of the process")
            found[name] = self._keyed(value)
        return found

    def _sources(self, fresh: Iterable[str]) -> dict[str, process.Source]:
        found = {}
        for name in fresh:
            path = process.file_of(name)
            if path is not None:
                digest = _digest_of_file(path)
                if digest is None:
                    raise Again(f"the source of the module {name} cannot be read")
                found[name] = process.Source(self._name(path), digest)
        return found

    def _module_states(self, asked: Asked) -> dict[str, str]:
        found = {}
        for name, state in asked.states.items():
            now = process.state_of(name)
            if state is None or now is None:
                raise Again(f"what the module {name} holds has no digest")
            if now != state:
                raise Again(f"it changes variables in the module {name}")
            found[name] = state
        return found

    def _generators(self, asked: Asked, ended: CellEnded) -> dict[str, Any]:
        if not ended.randomness:
            return {}
        assert self.session.variables is not None
        first = _seeded_first(asked.source, self.session.variables)
        drew = {
            name: asked.generators[name] for name in ended.randomness if name not in first and name in asked.generators
        }
        kept = values.keep(process.generator_states(ended.randomness), self.session.store, digests={})
        if kept.left:
            raise Again("the states of random generators cannot be kept")
        return {"drew": drew, "generators": kept.manifest}


def _dotted(value: object, name: str) -> str:
    """The dotted name of a module, or of a function or class of a library; empty for what is the notebook's."""
    kind = type(value)
    if kind is types.ModuleType:
        return str(types.ModuleType.__getattribute__(value, "__dict__").get("__name__", name))
    if kind in _LIBRARY or issubclass(kind, type):
        home = type.__getattribute__(value, "__module__") if issubclass(kind, type) else value.__module__
        if type(home) is str and home not in ("__main__", "builtins"):
            return f"{home}.{getattr(value, '__qualname__', name)}"
    return ""


def _plain(state: Any) -> Any:
    if type(state) in (tuple, list):
        return [_plain(one) for one in state]
    return state.tobytes() if hasattr(state, "tobytes") else state


def _digest_of_file(path: str) -> str | None:
    return file_digest(Path(path), budget=Budget()).digest


def _may_be_found(name: str) -> bool:
    """Whether a module that was not there may be there now, told without importing anything."""
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            importlib.invalidate_caches()
            return importlib.util.find_spec(name) is not None
        top = importlib.util.find_spec(name.partition(".")[0])
        path = sys.modules[parent].__path__ if parent in sys.modules else None
        if path is None:
            return top is None or top.origin is None or "site-packages" not in top.origin
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, path) is not None
    except (ImportError, AttributeError, ValueError):
        return True  # nothing is known


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file as it was, unless it is that already."""
    try:
        if not path.is_symlink() and path.stat().st_mode & 0o777 == mode and path.read_bytes() == data:
            return
    except OSError:  # it is not there
        pass
    temporary = path.with_name(f".{path.name}.mlops-{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # it never was there, or is there for `doctor` to say
            temporary.unlink()
        raise


_SEEDS: Final = {"random.seed": "random", "numpy.random.seed": "numpy.random", "torch.manual_seed": "torch"}


def _seeded_first(source: str, space: dict[str, Any]) -> frozenset[str]:
    """The generators that a cell seeds before anything of it can have drawn."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    seeded: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            continue
        call = statement.value if isinstance(statement, ast.Expr) else None
        if (
            isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords
            and isinstance(call.args[0], ast.Constant | ast.Name) and isinstance(call.func, ast.Attribute)
        ):  # fmt: skip
            parts = ast.unparse(call.func).split(".")
            seed = _SEEDS.get(".".join([_dotted(space.get(parts[0]), parts[0]), *parts[1:]]))
            if seed is not None:
                seeded.add(seed)
                continue
        break
    return frozenset(seeded)


def keeping(session: Session, hooks: Hooks, cells: Iterable[str]) -> Recall:
    """Have the cells of a kernel kept and recalled from now on."""
    if session.recall is None:
        session.recall = Recall(hooks, cells)
    return session.recall
