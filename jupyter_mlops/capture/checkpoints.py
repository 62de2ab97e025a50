"""Checkpoints: a kernel's variables kept after each cell, and brought back as they were.

While they are on, what a cell changed is kept as objects, together with all that shares an object with it (`values`):
so that names which never share are never in one manifest, and those that do always are. That is done in the background
while the kernel is idle; a cell that starts meanwhile waits for at most the budget, then the work is called off, the
cell run says so, and the next checkpoint takes in what this one did not. An object, the list of variables, says of each
name which manifest holds it and which version it is; so going back needs one record and one list, no replay.

Going back makes everything first and binds it last. What the record knows to be unchanged stays the object it is.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from jupyter_mlops import values
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import Budget, fingerprint
from jupyter_mlops.fingerprints.walk import OverBudget
from jupyter_mlops.records import Artifact, CellRun, CellSettled, Checkpoint, Digest, Gap, short

if TYPE_CHECKING:
    from jupyter_mlops.capture.run import Session
    from jupyter_mlops.namespace import Seen

LIST: Final = "variables-1"
_CALLED_OFF: Final = "the next cell began before they were kept"


class NotCheckedOut(MlopsError, RuntimeError):
    """The variables of a cell run cannot be brought back; they are as they were."""

    exit_code = 1


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """A variable of a list: its version, and the manifest that holds its value or why none does.

    Attributes
    ----------
    mates
        Of one that no manifest holds: the names that shared an object with it.
    """

    artifact: Artifact | None = None
    manifest: Digest | None = None
    why: str = ""
    mates: list[str] = []


class Variables(msgspec.Struct, frozen=True, omit_defaults=True):
    """All variables as a cell left them, and the states of the process's random generators."""

    names: dict[str, Held]
    generators: Digest | None = None
    format: str = LIST


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkout did, or with ``--dry-run`` would do.

    Attributes
    ----------
    cell_run
        Whose variables these are.
    brought, stayed, removed
        Names made anew, left as the very objects they were, and no longer bound.
    left
        Names that are not as they were, each with the reason.
    runs
        Cell runs that make what could not be kept, in order.
    reran
        Whether they were run again.
    replaced
        Names whose present values no checkpoint holds: they are gone after it.
    done
        False where it was only asked for.
    """

    cell_run: Digest
    brought: list[str] = []
    stayed: list[str] = []
    removed: list[str] = []
    left: dict[str, str] = {}
    runs: list[CellRun] = []
    reran: bool = False
    replaced: list[str] = []
    done: bool = True


class Checkpoints:
    """The checkpoints of one kernel.

    Parameters
    ----------
    session
        The session that records it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.on = False
        self._listed: dict[str, Held] = {}
        self._stamps: dict[str, Any] = {}
        self._known: dict[values.Claim, Digest] = {}
        self._worker: threading.Thread | None = None
        self._budget = Budget()
        self._back_to: Digest | None = None

    # -- keeping -----------------------------------------------------------------------------------------------------

    def after(self, cell_run: Digest) -> None:
        """Keep what is not kept yet, in the background, now that a cell has ended."""
        if not self.on or self.session.running:  # a cell inside a cell: the outer one's end takes it in
            return
        back_to, self._back_to = self._back_to, None
        threads = self.session.namespace.threads
        if threads:
            self._write(cell_run, Checkpoint(left=[Gap(subject="variables", reason=f"threads are running: {threads}")]))
            return
        self._budget = Budget(threads=1)
        self._worker = threading.Thread(
            target=self._work, args=(cell_run, back_to, self._budget), name="jupyter-mlops-checkpoint", daemon=True
        )
        self._worker.start()

    def settle(self, wait: float | None = None) -> None:
        """Wait for the work, for so many seconds, then call it off: from here on the values may change."""
        worker = self._worker
        if worker is None:
            return
        worker.join(wait)
        if worker.is_alive():
            self._budget.cancel()
            worker.join()
        self._worker = None

    def _work(self, cell_run: Digest, back_to: Digest | None, budget: Budget) -> None:
        try:
            self.session.namespace.wait(budget)
            made = self._keep(budget)
            self._write(cell_run, msgspec.structs.replace(made, back_to=back_to))
        except OverBudget:
            self._write(cell_run, Checkpoint(left=[Gap(subject="variables", reason=_CALLED_OFF)]))
        except BaseException as error:  # noqa: BLE001 - a thread of ours: the cell run says that nothing was kept
            self.session.failed("checkpoint", error)
            reason = f"they could not be kept ({type(error).__name__})"
            self._write(cell_run, Checkpoint(left=[Gap(subject="variables", reason=reason)]))

    def _write(self, cell_run: Digest, made: Checkpoint) -> None:
        try:
            self.session.store.append(CellSettled(cell_run=cell_run, checkpoint=made))
        except OSError as error:
            self.session.failed("checkpoint", error)

    def _keep(self, budget: Budget) -> Checkpoint:
        """Keep what changed since the last time, with all that shares with it."""
        session = self.session
        now = session.namespace.versions()
        changed = [name for name, seen in now.items() if not self._is_listed(name, seen)]
        gone = self._listed.keys() - now.keys()
        # What shared with a name that changed or went may share with nothing any more, or with others.
        mates = {held.manifest for name in (*changed, *gone) if (held := self._listed.get(name)) and held.manifest}
        changed += [name for name, held in self._listed.items() if held.manifest in mates and name in now]
        others = {*changed, *gone}
        changed += [name for name, held in self._listed.items() if name in now and not others.isdisjoint(held.mates)]
        fresh = session.namespace.sharing(changed)
        listed = {name: held for name, held in self._listed.items() if name in now and name not in fresh}
        kept = values.Kept(None, [], {})
        if fresh:
            artifacts = {
                name: seen.artifact or self._seen(name, seen, budget) for name, seen in now.items() if name in fresh
            }
            facts = session.namespace.facts()
            kept = values.keep(
                {name: now[name].value for name in artifacts}, session.store,
                digests={name: one.digest for name, one in artifacts.items()},
                columns={name: found for name, one in artifacts.items() if (found := self._columns(one, facts))},
                secret=session.redactor.secret, known=self._known, space=session.variables, budget=budget,
            )  # fmt: skip
            beside = {
                name: sorted(group - {name})
                for group in (session.namespace.shared(kept.left) if kept.left else ())
                for name in group & kept.left.keys()
            }
            for name, artifact in artifacts.items():
                manifest = kept.manifest if name not in kept.left else None
                listed[name] = Held(artifact, manifest, kept.left.get(name, ""), beside.get(name, []))
        listing = Variables(names=listed, generators=self._generators(budget))
        variables = session.store.put(msgspec.json.encode(listing), check=budget.check)
        self._listed = listed
        self._stamps = {name: now[name].stamp for name in listed}
        left = [Gap(subject=name, reason=held.why) for name, held in listed.items() if held.why]
        return Checkpoint(variables=variables, names=sorted(kept.names), left=left, size=kept.size)

    def _is_listed(self, name: str, seen: Seen) -> bool:
        """Whether a variable is, as far as has been seen, what the list of the last time says."""
        return name in self._listed and self._stamps.get(name) == seen.stamp

    def _seen(self, name: str, seen: Seen, budget: Budget) -> Artifact:
        """The version of a variable that no cell has mentioned yet, or that one may have changed since it was seen."""
        if type(seen.value) is types.ModuleType:
            return Artifact(name=name, kind="variable", type="module")
        found = fingerprint(seen.value, budget=budget)
        return Artifact(
            name=name, kind="variable", digest=found.digest, size=found.size, type=found.type, why=found.why,
            made=seen.stamp[2],
        )  # fmt: skip

    def _columns(self, artifact: Artifact, facts: dict[Digest, bytes]) -> list[str | None]:
        """The fingerprints of a frame's columns, or an array's own, as the record has them."""
        if artifact.digest is not None and artifact.digest.startswith("array-1:"):
            return [artifact.digest]
        if artifact.facts is None or artifact.type != "pandas.DataFrame":
            return []
        data = facts.get(artifact.facts) or self.session.store.get(artifact.facts)
        told = msgspec.json.decode(data).get("schema", {}).get("columns", [])
        return [one.get("digest") for one in told]

    def _generators(self, budget: Budget) -> Digest | None:
        """Keep the states of the generators that all of the process shares."""
        return values.keep(_states(), self.session.store, digests={}, budget=budget).manifest

    # -- going back --------------------------------------------------------------------------------------------------

    def checkout(self, cell_run: Digest, *, dry_run: bool = False, rerun: bool = False) -> Returned:
        """Bring the variables back as they were after a cell run.

        Parameters
        ----------
        cell_run
            Its name.
        dry_run
            Only say what would be done.
        rerun
            Run the cells again that make what could not be kept, whatever else these cells do.

        Raises
        ------
        NotCheckedOut
            Nothing was kept after that cell, or a cell that was run again failed. The variables are as they were.
        MlopsError
            The list of variables is missing or damaged.
        """
        session = self.session
        target = self._target(cell_run)
        now = session.namespace.versions()
        stayed = set() if rerun else self._unmoved(target, now)
        wanted = {name: held for name, held in target.names.items() if name not in stayed}
        left = {
            name: why for name, held in wanted.items()
            if held.manifest is None and (why := self._otherwise(name, held, target, stayed, now))
        }  # fmt: skip
        removed = sorted(name for name in now if name not in target.names)
        runs = self._makers(target, left) if left else []
        replaced = sorted(
            name for name, seen in now.items()
            if (name in removed or (name in wanted and wanted[name].manifest is not None))
            and not (self._is_listed(name, seen) and self._listed[name].manifest is not None)
            and type(seen.value) is not types.ModuleType
        )  # fmt: skip
        brought = sorted(name for name, held in wanted.items() if held.manifest is not None)
        answer = Returned(
            cell_run=cell_run, brought=brought, stayed=sorted(stayed), removed=removed, left=left, runs=runs,
            replaced=replaced, done=not dry_run,
        )  # fmt: skip
        if dry_run:
            return answer
        made, failures = self._make(wanted)
        states = None if target.generators is None else values.bring(target.generators, session.store)
        left |= {name: str(error) for name, error in failures.items()}
        again = None
        if rerun and left:
            runs = self._makers(target, left)
            again = self._make(wanted)[0]
        space = session.variables
        assert space is not None
        with _all_or_nothing(space):
            self._bind(space, again if again is not None else made, removed)
            if again is not None:
                self._rerun(runs)
                remade = [name for name in left if name in space]
                left = {name: why for name, why in left.items() if name not in space}
                for name in [one for one in session.namespace.versions() if one not in target.names]:
                    del space[name]
                joined, severed = self._joined(space, target, made, remade)
                left |= severed
                self._bind(space, {name: value for name, value in made.items() if name not in joined}, [])
            if states is not None:
                _give_states(states)
        restored = {name: target.names[name].artifact for name in made} | dict.fromkeys(removed)
        session.namespace.restored(restored)
        if session.generators is not None:
            session.generators.given()
        self._listed = {name: held for name, held in target.names.items() if name in made or name in stayed}
        now = session.namespace.versions()
        self._stamps = {name: now[name].stamp for name in self._listed if name in now}
        self._back_to = cell_run
        return msgspec.structs.replace(answer, brought=sorted(made), left=left, runs=runs, reran=again is not None)

    def _target(self, cell_run: Digest) -> Variables:
        run = self.session.store.cell_run(cell_run)
        found = run.checkpoint
        if found is None or found.variables is None:
            why = found.left[0].reason if found is not None and found.left else "checkpoints were off"
            raise NotCheckedOut(
                f"the variables after cell run {short(cell_run)} were not kept",
                cause=why,
                next="%mlops checkpoint list",
            )
        try:
            target = msgspec.json.decode(self.session.store.get(found.variables), type=Variables)
        except msgspec.DecodeError as error:
            raise NotCheckedOut(
                "the list of variables is damaged", cause=str(error)[:200], next="mlops fsck"
            ) from error
        if target.format != LIST or not all(map(self.session.namespace.visible, target.names)):
            raise NotCheckedOut("the list of variables is refused", cause="it is none that is known here")
        return target

    def _unmoved(self, target: Variables, now: dict[str, Seen]) -> set[str]:
        """Names that are what they were, together with all that shares with them: they stay as they are."""
        manifests: dict[Digest, bool] = {}
        for name, held in target.names.items():
            if held.manifest is not None:
                same = (
                    name in now and self._is_listed(name, now[name]) and self._listed[name].manifest == held.manifest
                    and self._listed[name].artifact == held.artifact and self._is_true(name)
                )  # fmt: skip
                manifests[held.manifest] = manifests.get(held.manifest, True) and same
        for name, held in self._listed.items():
            # another name holds on to one of these by now
            if held.manifest in manifests and name not in target.names:
                manifests[held.manifest] = False
        return {name for name, held in target.names.items() if held.manifest and manifests[held.manifest]}

    def _is_true(self, name: str) -> bool:
        """Whether a variable's content is what its version says, should somebody have changed it unseen."""
        version, held = self.session.namespace.version(name), self._listed[name]
        return version is not None and held.artifact is not None and version.digest == held.artifact.digest

    def _otherwise(
        self, name: str, held: Held, target: Variables, stayed: set[str], now: dict[str, Seen]
    ) -> str:  # fmt: skip
        """Why a variable that cannot be kept is not the very one it was, or holds other objects than it did."""
        if name not in now or held.artifact is None or now[name].artifact != held.artifact:
            return held.why or "it was not kept"
        anew = [one for one in held.mates if one not in stayed and (mate := target.names.get(one)) and mate.manifest]
        return f"it shares with {', '.join(anew[:5])}, made anew here" if anew else ""

    def _joined(
        self, space: dict[str, Any], target: Variables, made: dict[str, Any], remade: list[str]
    ) -> tuple[set[str], dict[str, str]]:  # fmt: skip
        """What shares with variables that were made by running their cells again.

        Returns
        -------
        tuple
            The kept variables that stay as the cells left them, since they are what they were; and of the variables
            made again those that therefore share no more with ones that are not, each with the reason.
        """
        joined: set[str] = set()
        severed: dict[str, str] = {}
        for group in self.session.namespace.shared(remade) if remade else ():
            other = sorted(name for name in group & made.keys() if not _is(target.names[name], space[name]))
            if other:
                why = f"it was made again, and shares no more with {', '.join(other[:5])}"
                severed |= dict.fromkeys((name for name in remade if name in group), why)
            else:
                joined |= group & made.keys()
        return joined, severed

    def _make(self, wanted: dict[str, Held]) -> tuple[dict[str, Any], dict[str, MlopsError]]:
        """Make values, manifest by manifest; nothing is bound."""
        groups: dict[Digest, list[str]] = {}
        for name, held in wanted.items():
            if held.manifest is not None:
                groups.setdefault(held.manifest, []).append(name)
        made: dict[str, Any] = {}
        failures: dict[str, MlopsError] = {}
        for manifest, names in groups.items():
            try:
                made |= values.bring(
                    manifest, self.session.store, names=names, space=self.session.variables, failures=failures,
                    known=self._known,
                )  # fmt: skip
            except MlopsError as error:
                failures |= dict.fromkeys(names, error)
        return made, failures

    def _bind(self, space: dict[str, Any], made: dict[str, Any], removed: Iterable[str]) -> None:
        for name in removed:
            space.pop(name, None)
        space.update(made)

    def _makers(self, target: Variables, names: Iterable[str]) -> list[CellRun]:
        """The cell runs that make some variables, with those that make what they read and is not at hand."""
        store = self.session.store
        found: dict[Digest, CellRun] = {}
        seen: set[Digest] = set()

        def need(maker: Digest | None) -> None:
            if maker is None or maker in seen:
                return
            seen.add(maker)
            run = store.cell_run(maker)
            for read in run.inputs:
                held = target.names.get(read.name)
                if (
                    held is None
                    or held.manifest is None
                    or held.artifact is None
                    or held.artifact.digest != read.digest
                ):
                    need(read.made)
            found[maker] = run

        for name in names:
            held = target.names[name]
            need(held.artifact.made if held.artifact is not None else None)
        return list(found.values())

    def _rerun(self, runs: list[CellRun]) -> None:
        for run in runs:
            if run.started.redacted:
                raise NotCheckedOut(f"cell run {short(run.id)} is not run again", cause="secrets in it were masked")
            result = self.session.shell.run_cell(run.source, store_history=False)
            if not result.success:
                raise NotCheckedOut(
                    f"cell run {short(run.id)} failed when it was run again",
                    cause=type(result.error_before_exec or result.error_in_exec).__name__,
                )


def _is(held: Held, value: Any) -> bool:
    """Whether a value is the one of a list by its content."""
    digest = held.artifact.digest if held.artifact is not None else None
    return digest is not None and fingerprint(value).digest == digest


@contextlib.contextmanager
def _all_or_nothing(space: dict[str, Any]) -> Iterator[None]:
    """Bind all or, where anything is raised, nothing; the generators' states likewise."""
    before, states = dict.copy(space), _states()
    try:
        yield
    except BaseException:
        # Whatever it is, an interrupt too: half of one moment and half of another never was.
        for name in space.keys() - before.keys():
            del space[name]
        space.update(before)
        _give_states(states)
        raise


def _states() -> dict[str, Any]:
    """The states of the generators that all of the process shares."""
    states: dict[str, Any] = {"random": random.getstate()}
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        states["numpy"] = numpy.get_state(legacy=True)
    return states


def _give_states(states: dict[str, Any]) -> None:
    random.setstate(states["random"])
    if "numpy" in states:
        import numpy as np

        np.random.set_state(states["numpy"])


def kept(cells: Iterable[CellRun]) -> list[CellRun]:
    """The cell runs of some that have a checkpoint."""
    return [one for one in cells if one.checkpoint is not None]
