"""The smallest set of cell runs that makes something, in an order that works: the one in which they ran.

The walk goes along *versions*, never along names: from what is asked for to the cell run that made that version, to
the versions it read, and so on. What passes between cells without being a variable is followed too: files, the state
of random generators, settings (``%matplotlib``, ``os.chdir``), imports, local modules. Since a slice is a part of what
ran, in the order in which it ran, and holds the last maker of each version that is read, it works by construction.

What the record does not know is a gap on the way (`Slice.blocked`), never a guess. Pure: records come by look-up.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from jupyter_mlops.errors import MlopsError
from jupyter_mlops.lineage.graph import LookUp, lineage
from jupyter_mlops.lineage.names import names_of
from jupyter_mlops.lineage.statements import (
    DEFINITION,
    IMPORT,
    LITERAL,
    MAY_SET_UP,
    Cell,
    Statement,
    aliases_of,
    cell_of,
    functions_of,
    matters_to_all,
    seeds_of,
    sets_for_users,
    setting_of,
)
from jupyter_mlops.lineage.trimming import Part, binds
from jupyter_mlops.lineage.volatile import Use, uses_in
from jupyter_mlops.records import Artifact, CellRun, Digest, Gap, short

History = Callable[[Digest], Sequence[CellRun]]
"""Gives all cell runs of a session, oldest first."""

_GLOBAL: Final = re.compile(r"\bglobal\s+([\w, ]+)")
_MASKED: Final = "<redacted"
_DATABASES: Final = ("sqlite:///", "duckdb:///")
_WRITES: Final = re.compile(r"\s*(?!select\b|pragma\b|explain\b|with\b|show\b|describe\b|values\b)\w", re.IGNORECASE)
_NUMBERED: Final = re.compile(r"_\d+|Out|_oh|In|_ih|_i\d*|_ii|_iii")
_NOT_ALONE: Final = (("threads", "changes may be theirs"), ("variables", "another cell ran at the same time"))
"""Gaps that do not block lineage, and say that something else may have changed what this cell left."""


class Piece(msgspec.Struct, frozen=True):
    """A cell run of a slice, with as much of its source as is needed.

    Attributes
    ----------
    run
        The cell run.
    source
        Its source, whole or only the statements that are needed.
    whole
        Whether nothing was left out.
    note
        What was left out or altered beyond that, in words.
    """

    run: CellRun
    source: str
    whole: bool = True
    note: str = ""


class Slice(msgspec.Struct, frozen=True):
    """What makes something.

    Attributes
    ----------
    pieces
        The cell runs in the order in which they ran.
    makes
        What was asked for, as it was made.
    files
        Files, sources and local modules it needs from outside.
    blocked
        Why it can not be run again; empty where it can.
    unseeded
        Why another run need not give the same: randomness without a seed, the time. Empty where it will.
    """

    pieces: tuple[Piece, ...]
    makes: tuple[Artifact, ...] = ()
    files: tuple[Artifact, ...] = ()
    blocked: tuple[Gap, ...] = ()
    unseeded: tuple[Gap, ...] = ()

    @property
    def runs(self) -> tuple[CellRun, ...]:
        """The cell runs, in the order in which they ran."""
        return tuple(piece.run for piece in self.pieces)


def slice_of(
    roots: Sequence[Digest], cell_run: LookUp, *, names: Sequence[str] = (), history: History | None = None
) -> Slice:
    """Find the cell runs that make something.

    Parameters
    ----------
    roots
        The cell runs that made it.
    cell_run
        Finds a cell run by its digest; may raise any `MlopsError` for one that is not there.
    names
        What is asked for of what they made: variables, files, metrics. All they did, unless given.
    history
        All cell runs of a session, oldest first. Without it only what the record links is known: no settings, no
        generator's state.
    """
    walk = _Walk(cell_run, history)
    for root in roots:
        walk.begin(root, names)
    walk.run()
    return walk.slice(roots, names)


class _Session:
    """The cell runs of one kernel in their order, and where in it things happened."""

    def __init__(self, runs: Iterable[CellRun]) -> None:
        self.runs = sorted(runs, key=lambda run: (run.time, run.seq))
        self.place = {run.id: place for place, run in enumerate(self.runs)}
        self.makers: dict[str, list[int]] = {}
        self.writers: dict[str, list[int]] = {}
        self.movers: dict[str, list[int]] = {}
        self.removers: dict[str, list[int]] = {}
        self.changers: dict[str, list[int]] = {}  # of databases
        self.modules: dict[str, list[tuple[int, Artifact]]] = {}
        for place, run in enumerate(self.runs):
            for one in run.outputs:
                self.makers.setdefault(one.name, []).append(place)
            ended = run.ended
            if ended is None:
                continue
            if ended.files_written:
                for one in run.files_written:
                    self.writers.setdefault(one.name, []).append(place)
            for name in ended.removed:
                self.removers.setdefault(name, []).append(place)
            for generator in ended.randomness:
                self.movers.setdefault(generator, []).append(place)
            for one in ended.sources:
                if one.name.startswith(_DATABASES) and _WRITES.match(one.query):
                    self.changers.setdefault(one.name, []).append(place)
            for one in ended.modules:
                self.modules.setdefault(one.type, []).append((place, one))
        self.module_files = {one.name for versions in self.modules.values() for _, one in versions}
        self._aliases: dict[str, str] | None = None
        self._setters: list[tuple[int, CellRun]] | None = None
        self._declared: frozenset[str] | None = None

    @property
    def declared(self) -> frozenset[str]:
        """Names that some function of the session binds as a global."""
        if self._declared is None:
            found = [name for run in self.runs if "global" in run.source for name in _GLOBAL.findall(run.source)]
            self._declared = frozenset(name for names in found for name in re.findall(r"\w+", names))
        return self._declared

    @property
    def aliases(self) -> dict[str, str]:
        """What imports of the session call things."""
        if self._aliases is None:
            self._aliases = {}
            for run in self.runs:
                if "import" in run.source:
                    self._aliases.update(aliases_of(cell_of(run.source)))
        return self._aliases

    @property
    def setters(self) -> list[tuple[int, CellRun]]:
        """The cell runs whose text may set something up, and their places."""
        if self._setters is None:
            self._setters = [(place, run) for place, run in enumerate(self.runs) if MAY_SET_UP.search(run.source)]
        return self._setters

    def before(self, places: Sequence[int], place: int) -> int | None:
        """The last of some places before another."""
        found = bisect_left(places, place)
        return places[found - 1] if found else None


class _Walk:
    """From what is asked for back to all it takes."""

    def __init__(self, cell_run: LookUp, history: History | None) -> None:
        self._cell_run = cell_run
        self._history = history
        self.parts: dict[Digest, Part] = {}
        self.sessions: dict[Digest, _Session] = {}
        self.due: list[Part] = []
        self.files: dict[tuple[str, str | None], Artifact] = {}
        self.gaps: dict[tuple[str, str], Gap] = {}
        self.unseeded: dict[Digest, str] = {}

    # -- asking ------------------------------------------------------------------------------------------------------

    def begin(self, root: Digest, names: Sequence[str]) -> None:
        part = self.ask(root)
        if part is None:
            return
        outputs = {one.name for one in part.run.outputs}
        wanted = [name for name in names if name in outputs]
        if not wanted or len(wanted) < len(names):
            self.ask(root, whole=True)
        for name in wanted:
            self.ask(root, name=name)
            for one in part.cell.statements:
                if one.kind == DEFINITION and binds(one, name):
                    self._globals(part, one, name)

    def _globals(self, part: Part, one: Statement, name: str) -> None:
        """A function that is asked for itself is the same only with the globals it uses."""
        session = self.session(part.run)
        use = ast.Expr(ast.Name(name, ast.Load()))
        for read in names_of([one.node, use]).reads - {name}:
            places = session.makers.get(read, [])
            place = session.before(places, session.place[part.run.id] + 1)
            if place is not None:
                self.ask(session.runs[place].id, name=read)

    def ask(
        self, digest: Digest, *, name: str | None = None, statements: Sequence[int] = (), whole: bool = False
    ) -> Part | None:
        """Need a cell run: for a name it made, for some of its statements, or all of it."""
        part = self.parts.get(digest)
        if part is None:
            try:
                part = self.parts[digest] = Part(self._cell_run(digest))
            except MlopsError:
                self.gap(f"cell run {short(digest)}", "is not on record here")
                return None
        more = (name is not None and name not in part.names) or (whole and not part.asked)
        if name is not None:
            part.names.add(name)
        if statements:
            more = more or not part.statements.issuperset(statements)
            part.statements.update(statements)
        part.asked = part.asked or whole
        if more and not part.due:
            part.due = True
            self.due.append(part)
        return part

    def gap(self, subject: str, reason: str) -> None:
        self.gaps[subject, reason] = Gap(subject=subject, reason=reason, blocks=True)

    def session(self, run: CellRun) -> _Session:
        key = run.started.run
        found = self.sessions.get(key)
        if found is None:
            if self._history is not None:
                runs = list(self._history(key))
            else:
                runs = [one for one in lineage([run.id], self._cell_run).runs if one.started.run == key]
            found = self.sessions[key] = _Session(runs)
        if run.id not in found.place:
            found = self.sessions[key] = _Session([*found.runs, run])
        return found

    # -- the walk ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        while True:
            while self.due:
                part = self.due.pop()
                part.due = False
                self.follow(part)
            self.settings()
            self.unbound()
            if not self.due:
                return

    def follow(self, part: Part) -> None:
        session = self.session(part.run)
        part.declared = session.declared
        reads = part.plan()
        for name in reads:
            if not part.whole or name in part.names or not self._only_changed(part, name):
                self.read(part, part.inputs[name])
        if part.whole:
            self.rest(part)
            self.read_files(part, session)
            self.draws(part, session)
        self.bound_before(part, session)
        self.imported(part, session)

    def _only_changed(self, part: Part, name: str) -> bool:
        """Whether an input is one for this only: that it was changed through another name, and so builds on itself."""
        if name in part.cell.names.reads or not any(one.name == name for one in part.run.outputs):
            return False
        for one in part.inputs.values():
            if one.name == name or one.made is None:
                continue
            if one.type.startswith("__main__.") or one.type in ("type", "builtins.type"):
                return False  # methods may use it: their text is not looked for
            if one.type.endswith("function"):
                try:
                    if re.search(rf"\b{re.escape(name)}\b", self._cell_run(one.made).source):
                        return False
                except MlopsError:
                    return False
        return True

    def read(self, part: Part, one: Artifact) -> None:
        if one.made is None:
            self.gap(one.name, "made by no recorded cell")
        elif one.made != part.run.id:
            self.ask(one.made, name=one.name)

    def rest(self, part: Part) -> None:
        """What it builds on and reads by no name: results such as ``_``, and changes that content cannot tell."""
        if not part.run.after:
            return
        by_name = {one.made for one in part.inputs.values()}
        by_file = {one.made for one in part.run.files_read}
        opaque = any(_is_opaque(one) for one in part.inputs.values())
        for digest in part.run.after:
            if digest in by_file and digest not in by_name:
                continue
            if digest not in by_name or (opaque and self._touches(digest)):
                self.ask(digest, whole=True)

    def _touches(self, digest: Digest) -> bool:
        """Whether a cell run mentions something whose changes cannot be told from its content."""
        try:
            run = self._cell_run(digest)
        except MlopsError:
            return False
        return any(_is_opaque(one) for one in run.inputs)

    def read_files(self, part: Part, session: _Session) -> None:
        own = {(one.name, one.digest) for one in part.run.files_written}
        for one in part.run.files_read:
            writer = self.writer(session, part, one)
            if writer is not None:
                self.ask(writer, whole=True)
            elif one.name.startswith("package:") or one.name in session.module_files:
                continue  # the environment brings it; or it was imported, and is a module
            elif (one.name, one.digest) not in own or one.digest is None:
                self.files[one.name, one.digest] = one
        here = session.place[part.run.id]
        for one in part.run.ended.sources if part.run.ended else ():
            self.files[one.name, one.digest] = one
            changed = [place for place in session.changers.get(one.name, ()) if place < here]
            for place in changed:
                self.ask(session.runs[place].id, whole=True)

    def writer(self, session: _Session, part: Part, one: Artifact) -> Digest | None:
        """The cell run that wrote this content under this name."""
        here = session.place[part.run.id]
        for place in reversed(session.writers.get(one.name, [])):
            if place < here:
                written = next((file for file in session.runs[place].files_written if file.name == one.name), None)
                if written is not None and written.digest == one.digest:
                    return session.runs[place].id
                break
        if one.made is not None and one.made not in session.place:
            try:
                other = self._cell_run(one.made)
            except MlopsError:
                return None
            if any((file.name, file.digest) == (one.name, one.digest) for file in other.files_written):
                return one.made
        return None

    def draws(self, part: Part, session: _Session) -> None:
        """What brought the generators into the state in which it found them."""
        ended = part.run.ended
        if ended is None or not ended.randomness:
            return
        seeds = seeds_of(part.cell, session.aliases, self._functions(part))
        here = session.place[part.run.id]
        for generator in ended.randomness:
            if seeds.get(generator):
                continue
            movers = session.movers.get(generator, [])
            if generator == "torch.cuda":  # before the GPU is first used a seed waits, and moves only the CPU's
                movers = sorted({*movers, *session.movers.get("torch", [])})
            place = session.before(movers, here)
            if place is None:
                self.unseeded[part.run.id] = f"{generator} is drawn from, and was never seeded"
            else:
                self.state(session, session.runs[place].id, generator)

    def state(self, session: _Session, digest: Digest, generator: str) -> None:
        """Need a cell run for the state in which it left a generator."""
        part = self.ask(digest)
        if part is None:
            return
        seeding = [
            place
            for place, one in enumerate(part.cell.statements)
            if seeds_of(Cell("", (one,), one.names), session.aliases, self._functions(part))
        ]
        rest = tuple(one for place, one in enumerate(part.cell.statements) if place not in seeding)
        alone = seeding and part.cell.separable and all(one.kind in (IMPORT, LITERAL, DEFINITION) for one in rest)
        if alone and generator in seeds_of(part.cell, session.aliases, self._functions(part)):
            self.ask(digest, statements=seeding)
        else:
            self.ask(digest, whole=True)

    def _functions(self, part: Part) -> dict[str, ast.FunctionDef]:
        found: dict[str, ast.FunctionDef] = {}
        for name, one in part.inputs.items():
            if one.made is not None and one.type.endswith("function"):
                try:
                    own = functions_of(cell_of(self._cell_run(one.made).source)).get(name)
                except MlopsError:
                    continue
                if own is not None:
                    found[name] = own
        return found

    def bound_before(self, part: Part, session: _Session) -> None:
        """A name that it changed and did not surely bind, or took away, was bound by somebody before."""
        if not part.whole:
            return
        names = part.cell.names
        sure = frozenset() if part.run.status != "done" else names.writes - names.maybe - names.likely
        here = session.place[part.run.id]
        # (what a handler of exceptions is bound to is deleted as well, and was nobody's)
        gone = set(part.run.ended.removed if part.run.ended else ()) | names.deletes - (names.writes - sure)
        for name in (*(part.names - sure), *gone):
            if name in part.inputs:
                continue
            place = session.before(session.makers.get(name, []), here)
            if place is not None:
                self.ask(session.runs[place].id, name=name)

    def imported(self, part: Part, session: _Session) -> None:
        """Local modules that it imports, and the cell runs that wrote them."""
        if not session.modules:
            return
        here = session.place[part.run.id]
        for name in _modules_named(part):
            for known, versions in session.modules.items():
                if known != name and not name.startswith(known + ".") and not known.startswith(name + "."):
                    continue
                module = next((one for place, one in reversed(versions) if place <= here), versions[0][1])
                writer = self.writer(session, part, module)
                if writer is not None:
                    self.ask(writer, whole=True)

    def modules(self, parts: Sequence[Part]) -> None:
        """The local modules that these cells import, in the versions in which they used them."""
        for part in parts:
            session = self.session(part.run)
            if not session.modules:
                continue
            here = session.place[part.run.id]
            named = [name for name in _modules_named(part) if name in session.modules]
            if not named:
                continue
            users = {here}
            for other in parts:
                used = [one for one in other.inputs.values() if one.made == part.run.id and one.type == "module"]
                if used and other.whole and other.run.id in session.place:
                    users.add(session.place[other.run.id])
            # What is imported by what it imports came in the same cell.
            first = {session.modules[name][0][0] for name in named}
            along = [known for known, versions in session.modules.items() if versions[0][0] in first]
            for known in dict.fromkeys((*named, *along)):
                versions = session.modules[known]
                at = users - {here} if known in named and len(users) > 1 else {here}
                found: dict[str | None, Artifact] = {}
                for user in at:
                    one = next((one for place, one in reversed(versions) if place <= user), versions[0][1])
                    found[one.digest] = one
                if len(found) > 1:
                    self.gap(versions[0][1].name, "these cells used two versions of this module")
                for one in found.values():
                    if self.writer(session, part, one) is None:
                        self.files[one.name, one.digest] = one

    def unbound(self) -> None:
        """A name that was not there, or was the builtin, when a cell looked it up: who took it away is needed too."""
        if len(self.sessions) == 1 and not any(session.removers for session in self.sessions.values()):
            return  # what a cell mentions and is there is among what it read
        bound: dict[str, Digest] = {}
        for part in self.ordered():
            session = self.session(part.run)
            if part.whole:
                functions = [
                    read
                    for name, node in self._functions(part).items()
                    for read in names_of([node, ast.Expr(ast.Name(name, ast.Load()))]).reads
                ]
                for name in (*part.cell.names.reads, *functions):
                    if name in bound and name not in part.inputs and bound[name] != part.run.id:
                        self._taken_away(session, part, name)
            for one in part.kept():
                for name in one.names.writes:
                    bound[name] = part.run.id
                for name in one.names.deletes:
                    bound.pop(name, None)
            for name in part.run.ended.removed if part.whole and part.run.ended else ():
                bound.pop(name, None)

    def _taken_away(self, session: _Session, part: Part, name: str) -> None:
        here = session.place[part.run.id]
        place = session.before(session.removers.get(name, []), here)
        made = session.before(session.makers.get(name, []), here)
        if place is not None and (made is None or made <= place):
            self.ask(session.runs[place].id, whole=True)
        elif made is not None:
            self.gap(name, f"{_named(part.run)} looked it up, and what it found is not on record")

    def ordered(self) -> list[Part]:
        """What is needed, in the order in which it ran."""
        parts = sorted(self.parts.values(), key=lambda part: (part.run.time, part.run.seq))
        return [part for part in parts if part.whole or part.places]

    # -- settings ----------------------------------------------------------------------------------------------------

    def settings(self) -> None:
        """Take in what was set up before what is needed, and matters to it."""
        for session in list(self.sessions.values()):
            needed = [session.place[digest] for digest in self.parts if digest in session.place]
            if not needed or self._history is None:
                continue
            last = max(needed)
            used: set[str] | None = None
            for place, run in session.setters:
                if place >= last:
                    break
                if run.id in self.parts and self.parts[run.id].asked:
                    continue
                cell = cell_of(run.source)
                found = []
                for at, one in enumerate(cell.statements):
                    root = setting_of(one, session.aliases)
                    if not root:
                        continue
                    if not matters_to_all(root):
                        used = self._used(session) if used is None else used
                        if root not in (used if sets_for_users(root) else self._read(session)):
                            continue
                    found.append(at)
                if found:
                    failed = Part(run).failed_at()
                    self.ask(run.id, statements=[at for at in found if at < failed])

    def _read(self, session: _Session) -> set[str]:
        """The modules whose variables what is needed so far may read."""
        local = {name.partition(".")[0] for name in session.modules}
        found: set[str] = set()
        for part in self.parts.values():
            if part.whole and part.run.id in session.place:
                found |= {session.aliases.get(name, "").partition(".")[0] for name in part.inputs}
        return found | local if found & local else found  # one of them may read another's

    def _used(self, session: _Session) -> set[str]:
        """The libraries that what is needed so far makes use of."""
        found: set[str] = set()
        for part in self.parts.values():
            if part.run.id not in session.place:
                continue
            for one in (*part.inputs.values(), *part.run.outputs) if part.whole else ():
                found.add(one.type.partition(".")[0])
                found.add(session.aliases.get(one.name, "").partition(".")[0])
            for name in _modules_named(part):
                found.add(name.partition(".")[0])
                if name in session.modules:
                    found.update(("pandas", "matplotlib", "sklearn", "torch"))  # who knows what it uses
        return {"matplotlib" if one == "seaborn" else one for one in found}

    # -- the answer --------------------------------------------------------------------------------------------------

    def slice(self, roots: Sequence[Digest], names: Sequence[str]) -> Slice:
        parts = self.ordered()
        for part in parts:
            self.gaps.update({(gap.subject, gap.reason): gap for gap in _hindrances(part)})
        self.databases(parts)
        self.modules(parts)
        makes = []
        for root in roots:
            if root in self.parts:
                run = self.parts[root].run
                makes += [one for one in (*run.outputs, *run.files_written) if not names or one.name in names]
        return Slice(
            pieces=tuple(Piece(part.run, part.source, part.whole, part.note) for part in parts),
            makes=tuple(makes),
            files=tuple(self.files.values()),
            blocked=tuple(self.gaps.values()),
            unseeded=tuple(self._unpromised(parts, roots, [one.name for one in makes] + list(names))),
        )

    def databases(self, parts: Sequence[Part]) -> None:
        """Database files: made by these cells, or needed from outside as they are."""
        changed: dict[str, list[str]] = {}
        for part in parts:
            for one in part.run.ended.sources if part.whole and part.run.ended else ():
                if one.name.startswith(_DATABASES) and ":memory:" not in one.name:
                    queries = changed.setdefault(one.name.partition(":///")[2], [])
                    queries += [one.query] if _WRITES.match(one.query) else []
        for name, queries in changed.items():
            if not queries:
                self.files[name, None] = Artifact(name=name, kind="file", type="database")
            elif not any(query.lstrip().lower().startswith("create") for query in queries):
                self.gap(name, "cells changed this database, and what it held before is not kept")

    def _unpromised(self, parts: Sequence[Part], roots: Sequence[Digest], names: Sequence[str]) -> Iterator[Gap]:
        """Why what is asked for may be another in another run: followed from statement to statement."""
        tainted: dict[str, Gap] = {}
        beyond = self._beyond(parts)
        if not beyond and not self.unseeded:
            return
        for part in parts:
            subject = _named(part.run)
            drawn = self.unseeded.get(part.run.id)
            effects: dict[str, Gap] = {}
            for place, one in enumerate(part.kept()):
                use = beyond.get((part.run.id, place))
                reads = {node.id for node in ast.walk(one.node) if isinstance(node, ast.Name)}
                why = Gap(subject=subject, reason=f"{use.call} {_BEYOND[use.what]}") if use else None
                why = why or next((tainted[name] for name in sorted(reads) if name in tainted), None)
                for name in one.names.writes:
                    tainted.pop(name, None)
                if why is not None:
                    for name in (*one.names.writes, *_changed(one.node)):
                        tainted[name] = why
                    if not one.names.writes and not _only_shows(one.node):
                        effects[subject] = why
            if (
                drawn and part.whole and not all(one.kind for one in part.kept())
            ):  # else a library drew as it was loaded
                for artifact in part.run.outputs:
                    tainted[artifact.name] = Gap(subject=subject, reason=drawn)
                effects[subject] = Gap(subject=subject, reason=drawn)
            if part.run.id in roots and {one.name for one in part.run.outputs}.isdisjoint(names):
                yield from effects.values()
        yield from dict.fromkeys(tainted[name] for name in names if name in tainted)

    def _beyond(self, parts: Sequence[Part]) -> dict[tuple[Digest, int], Use]:
        """Which statements look at something that is another at every run, by their cell run and place."""
        sources = {run.source for session in self.sessions.values() for run in session.runs if "import" in run.source}
        imports = "\n".join(
            ast.unparse(one.node) for source in sources for one in cell_of(source).statements if one.kind == IMPORT
        )
        if not any(any(_counts(use) for use in uses) for uses in uses_in([imports, *(part.source for part in parts)])):
            return {}
        places = [(part.run.id, place, one) for part in parts for place, one in enumerate(part.kept())]
        found = uses_in([imports, *(ast.unparse(one.node) for _, _, one in places)])[1:]
        return {
            (run, place): use
            for (run, place, one), uses in zip(places, found, strict=True)
            for use in uses
            if _counts(use) and one.kind != DEFINITION
        }


_BEYOND: Final = {"time": "depends on the time", "network": "asks the network", "randomness": "has no seed"}


def _counts(use: Use) -> bool:
    return use.what in _BEYOND


def _is_opaque(one: Artifact) -> bool:
    return one.digest is None and one.type != "module" and one.why != "secret"


def _named(run: CellRun) -> str:
    return f"cell run {short(run.id)}"


def _called(part: Part) -> set[str]:
    """What the text calls by a bare name, also in functions."""
    calls = (node.func for one in part.kept() for node in ast.walk(one.node) if isinstance(node, ast.Call))
    return {func.id for func in calls if isinstance(func, ast.Name)}


def _modules_named(part: Part) -> Iterator[str]:
    if "import" not in part.source:
        return
    for one in part.kept():
        for node in ast.walk(one.node):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _changed(node: ast.AST) -> Iterator[str]:
    """Names whose objects a statement may change in place: ``xs.append(…)``, ``d["k"] = …``, ``o.a = …``."""
    for part in ast.walk(node):
        base: ast.AST | None = None
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            base = part.func.value
        elif isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            base = part.value
        while isinstance(base, ast.Attribute | ast.Subscript):
            base = base.value
        if isinstance(base, ast.Name):
            yield base.id


def _only_shows(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in ("print", "display")
    )


def _hindrances(part: Part) -> Iterator[Gap]:
    """Why a cell run can not be run again as it was."""
    run = part.run
    cut = part.cut()
    if cut is not None:
        yield cut
    if not run.source.strip() and run.outputs:
        yield Gap(subject=_named(run), reason="its source is not on record any more", blocks=True)
    if _MASKED in part.source:
        yield Gap(subject=_named(run), reason="a secret was masked in its source", blocks=True)
    if "input" in part.source or "getpass" in part.source:
        reads = names_of([one.node for one in part.kept()]).reads | _called(part)
        if reads & {"input", "getpass"} - part.inputs.keys() or re.search(r"\bgetpass\s*\(", part.source):
            yield Gap(subject=_named(run), reason="it asks a person (input)", blocks=True)
    if not part.whole:
        return
    for gap in run.gaps:
        if gap.blocks or any(gap.subject == who and gap.reason.startswith(why) for who, why in _NOT_ALONE):
            yield msgspec.structs.replace(gap, blocks=True)
    for name in part.cell.names.opaque:
        yield Gap(subject=name, reason="what it reads and changes cannot be told", blocks=True)
    for name in sorted(filter(_NUMBERED.fullmatch, part.cell.names.reads)):
        if name not in part.inputs:
            yield Gap(subject=name, reason="cells are counted anew in another notebook", blocks=True)
