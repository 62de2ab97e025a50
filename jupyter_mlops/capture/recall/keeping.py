"""What a cell did and depended on, kept for a later run to recall; or the reason why it has to run again."""

from __future__ import annotations

import ast
import sys
import time
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from jupyter_mlops import values
from jupyter_mlops.access import Looks
from jupyter_mlops.capture import process
from jupyter_mlops.capture.recall.entries import Again, Asked, Entry, Ground, digest_of_file, dotted
from jupyter_mlops.fingerprints import Budget
from jupyter_mlops.fingerprints.walk import OverBudget
from jupyter_mlops.namespace import reach
from jupyter_mlops.records import (
    Artifact,
    CellEnded,
    CellRun,
    Digest,
)
from jupyter_mlops.values import Layouts, layout

_LARGEST_FILE: Final = 1 << 30

_AT_LEAST: Final = 60.0

_FINE_GAPS: Final = ("outputs are not seen in a terminal",)


class Keeping:
    """Keeps what a cell did.

    Parameters
    ----------
    ground
        The kernel and its surroundings.
    """

    def __init__(self, ground: Ground) -> None:
        self.ground, self.session, self.space = ground, ground.session, ground.space

    def entry(self, asked: Asked, cell_run: Digest, ended: CellEnded, looks: Looks, shown: Digest | None) -> Digest:
        session, store, space = self.session, self.session.store, self.space
        run = store.cell_run(cell_run)
        fresh = process.imported_since(asked.modules)
        now, stand = process.moment(self.ground.variables().items()), process.settings(session.project.relative)
        self._repeatable(run, looks, process.changes(asked.moment, now, fresh))
        names = session.namespace.sharing({*(one.name for one in run.outputs), *self._moved(asked, run)})
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
            self.ground.version(name, version, space[name])
            held[name] = msgspec.structs.replace(version, made=None)
        same = self._same(held, inputs)
        kept = self._values(held, same, time.perf_counter() - asked.began)
        entry = Entry(
            cell_run=cell_run, variables=held, made=[one.name for one in run.outputs], manifest=kept.manifest,
            same=same,
            layout=layout({name: space[name] for name in held}), removed=ended.removed, shown=shown,
            imports=fresh, files=self._read(run), written=self._written(run),
            folders=[self.ground.name(path) for path in looks.folders],
            kinds={self.ground.name(path): kind for path, kind in looks.kinds.items()},
            stats={self.ground.name(path): found for path, found in looks.stats.items()},
            listings={self.ground.name(path): found for path, found in looks.listings.items()},
            missing=[name for name in looks.modules if name not in sys.modules],
            environ=self._environ(looks), sources=self._sources(fresh), states=self._module_states(asked),
            settings=stand,
            changed={
                name: self.ground.keyed(now["variables"].get(name))
                for name in {*now["variables"], *asked.moment["variables"]}
                if now["variables"].get(name) != asked.moment["variables"].get(name)
            },
            **self._generators(asked, ended),
        )  # fmt: skip
        return store.put(msgspec.json.encode(msgspec.structs.replace(entry, seal=self.ground.sealed(entry))))

    def _moved(self, asked: Asked, run: CellRun) -> list[str]:
        """Variables whose content is what it was, and that lie in memory otherwise: by order, attributes, aliases."""
        space, lay = self.space, asked.lay
        assert lay is not None
        outputs = {one.name for one in run.outputs}
        names = [name for name in self.session.namespace.versions() if name in lay and name not in outputs]
        now = Layouts({name: space[name] for name in names})
        if lay.digest(names) == now.digest():
            return []
        return [name for name in names if lay.digest([name]) != now.digest([name])] or names

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
        space = self.space
        objects: frozenset[int] = frozenset()
        for name in names:
            objects |= reach(space[name], space).objects
        module = process.module_that_holds(objects) if objects else ""
        if module:
            raise Again(f"what it left is, or holds, an object of the module {module}")

    def _same(self, held: dict[str, Artifact], inputs: set[str]) -> dict[str, str]:
        """Names among those kept that are the very object another one, or what the cell read, is."""
        space = self.space
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
        session, space = self.session, self.space
        wanted = {name: space[name] for name in held if name not in same}
        if not wanted:
            return values.Kept(None, [], {})
        try:
            with process.warnings_kept():
                kept = values.keep(
                    wanted, session.store, digests={name: held[name].digest for name in wanted},
                    secret=session.redactor.secret, known=self.ground.known, space=space,
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
            path = Path(self.ground.path(one.name))
            if one.digest is None or one.type == "folder" or one.name.startswith("package:") or path.is_symlink():
                raise Again(f"what it did to {one.name} is not put back ({one.why or 'no plain file'})")
            if (one.size or 0) > _LARGEST_FILE:
                raise Again(f"{one.name}, which it wrote, is larger than {_LARGEST_FILE >> 20} MiB")
            if self.session.store.put(path) != one.digest:
                raise Again(f"{one.name}, which it wrote, is another by now")
            found[one.name] = (one.digest, path.stat().st_mode & 0o777)
        return found

    def _environ(self, looks: Looks) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        environ = self.session.project.environ
        for name in looks.variables:
            value = self.ground.all_variables() if name == "*" else environ.get(name)
            if name != "*" and value is not None and self.session.redactor.secret(name, value):
                raise Again(f"it reads the secret variable {name} of the process")
            found[name] = self.ground.keyed(value)
        return found

    def _sources(self, fresh: Iterable[str]) -> dict[str, process.Source]:
        found = {}
        for name in fresh:
            path = process.file_of(name)
            if path is not None:
                digest = digest_of_file(path)
                if digest is None:
                    raise Again(f"the source of the module {name} cannot be read")
                found[name] = process.Source(self.ground.name(path), digest)
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
        first = _seeded_first(asked.source, self.space)
        drew = {
            name: asked.generators[name] for name in ended.randomness if name not in first and name in asked.generators
        }
        kept = values.keep(process.generator_states(ended.randomness), self.session.store, digests={})
        if kept.left:
            raise Again("the states of random generators cannot be kept")
        return {"drew": drew, "generators": kept.manifest}


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
            seed = _SEEDS.get(".".join([dotted(space.get(parts[0]), parts[0]), *parts[1:]]))
            if seed is not None:
                seeded.add(seed)
                continue
        break
    return frozenset(seeded)
