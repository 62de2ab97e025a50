"""Registering a model in a project's own store."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jupyter_mlops import checks
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.records import Artifact, Digest, Gap, ModelVersion, Ticket, Transition, encode
from jupyter_mlops.registry import context as contexts
from jupyter_mlops.registry import formats
from jupyter_mlops.registry.aliases import TRIES, Aliases
from jupyter_mlops.registry.context import RunContext, Training
from jupyter_mlops.registry.versions import EVALUATION, model_name, npy, plain
from jupyter_mlops.store import RefConflict


class Registered(tuple[int, Digest]):
    """A version's number and line, and whether it existed before: the same content is one version.

    >>> number, line = Registered(3, Digest("blake3:00"), existed=True)
    >>> number
    3
    """

    existed: bool

    def __new__(cls, number: int, line: Digest, *, existed: bool) -> Registered:
        self = super().__new__(cls, (number, line))
        self.existed = existed
        return self


class LocalRegistry(Aliases):
    """Registers, checks, promotes and loads models in a store.

    Parameters
    ----------
    user
        Who acts, where a call does not say.
    redactor
        Masks secrets in texts before they are written.
    """

    def register(
        self,
        model: object,
        name: str,
        *,
        data: Any = None,
        evaluation: Sequence[Any] | None = None,
        format: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        reason: str = "",
        tickets: Sequence[str | Ticket] = (),
        trust: Iterable[str] = (),
        context: RunContext | None = None,
        by: str = "",
        force: bool = False,
    ) -> Registered:
        """Keep a model as the next version of a name.

        Bytes first, then the facts, then the number: killed in between, it leaves an object that nothing refers to,
        and never a version without bytes.

        Parameters
        ----------
        model
            A fitted model, or the path of a file that holds one.
        data
            What it was trained on, ``X`` or ``(X, y)``: for its signature and baseline profile.
        evaluation
            ``(y_true, y_pred)``, ``(y_true, y_score)`` or all three: kept by row, so that a later version can be held
            against this one on the same rows; metrics are recomputed from it.
        format
            ``skops`` (for objects, unless given), ``onnx``, …; ``pickle`` runs code when it is loaded.
        metrics, parameters
            Besides those logged in the session's run.
        reason, tickets
            Why there is a new version, and what it is for; on record where it gets its number.
        trust
            Exact names of types of your own that a skops file may hold.
        force
            Make a new version even if one of the same content exists.

        Returns
        -------
        Registered
            The version's number and the digest of its line.

        Raises
        ------
        NameInvalid
            The name is not made of letters, digits, ``.``, ``_`` and ``-``.
        WrongUse
            The model was never fitted, or nobody knows the format.
        FormatRefused
            The model can not be kept in that format.
        DemandUnmet
            The project's settings demand a reason or ticket, and it was not given.
        """
        ref = f"models/{model_name(name)}"
        told = self._tickets(tickets)
        unmet = self._unmet(
            "register", reason, told, thing=f"{name} was not registered", command=f"mlops register VARIABLE {name}"
        )
        if unmet is not None:
            raise unmet
        bytes_, content, format_ = self._described(model, format, tuple(trust))
        maker = self._maker(model, content, context)
        training = (
            contexts.of_data(model, data, context) if data is not None
            else contexts.inferred(model, context, self.store, maker)
        )  # fmt: skip
        given = {key: plain(value) for key, value in (metrics or {}).items()}
        evaluated, files = self._keep_evaluation(evaluation)
        signature = None if training.signature is None else self._keep(encode(training.signature, sort=True))
        record = ModelVersion(
            name=name,
            cell_run=maker,
            run=context.run if context else None,
            environment=context.environment if context else None,
            model=Artifact(name=name, kind="model", type=format_),
            files=[content, *files],
            signature=signature,
            metrics={**self._logged(context, "metrics"), **given, **evaluated},
            parameters={**self._logged(context, "parameters"), **dict(parameters or {})},
            training=list(training.artifacts),
            tags={str(key): self._clean(str(value)) for key, value in (tags or {}).items()},
            description=self._clean(description),
            by=by or self.user,
            gaps=[
                *([Gap(subject="signature", reason=training.why)] if training.signature is None else ()),
                *_contradictions({**self._logged(context, "metrics"), **given}, evaluated),
            ],
        )
        if not force and (found := self._same(record, given, parameters)) is not None:
            return found
        digest, size = bytes_()
        record = msgspec.structs.replace(
            record,
            model=Artifact(name=name, kind="model", type=format_, digest=digest, size=size, stored=True),
            baseline=self._baseline(training),
            requirements=self._requirements(model, context),
        )
        return self._number(ref, record, self._clean(reason), told)

    def _described(self, model: object, format: str | None, trust: tuple[str, ...]) -> tuple[Any, Artifact, str]:
        """How to keep a model's bytes (a call that does it), its content, and its format."""
        from jupyter_mlops.fingerprints import file_digest, fingerprint

        if isinstance(model, Path):
            kind = formats.format_of_file(model, format)
            formats.check(model.read_bytes, kind)
            found = file_digest(model)
            content = Artifact(name="content", kind="file", digest=found.digest, size=found.size, why=found.why)

            def keep_file() -> tuple[Digest, int]:
                digest = self.store.put(model)
                if digest != found.digest:
                    raise WrongUse(f"{model.name} was changed while it was registered", next="register it again")
                return digest, self.store.size(digest)

            return keep_file, content, kind
        if isinstance(model, (bytes, bytearray)):
            kind = formats.format_of_bytes(bytes(model[:4096]), format)
            raw = bytes(model)
            formats.check(lambda: raw, kind)
            found = fingerprint(raw)
        else:
            if contexts.unfitted(model):
                raise WrongUse(
                    f"this {type(model).__name__} was never fitted", next="model.fit(X, y), and register it then"
                )
            kind = formats.format_of_object(model, format)
            raw = formats.dump(model, kind, trust=trust)
            found = fingerprint(model)
            if found.digest is None and kind in formats.formats():
                found = msgspec.structs.replace(found, digest=fingerprint(raw).digest, why="")
        content = Artifact(
            name="content", kind="model", digest=found.digest, size=found.size, type=found.type, why=found.why
        )
        return lambda: (self.store.put(raw), len(raw)), content, kind

    def _maker(self, model: object, content: Artifact, context: RunContext | None) -> Digest | None:
        """The cell run that made a model: this content or, where it has no digest, this object; else the one now."""
        if content.digest is not None:
            for one in context.artifacts.values() if context else ():
                if one.digest == content.digest and one.made is not None:
                    return one.made
            made = self.store.made_by(content.digest)
            if context is None and made:
                return made[0]
            here = {run.id for run in self.store.cell_runs(run=context.run)} if context and made else set()
            for digest in made:
                if digest in here:
                    return digest
        if context is not None and (named := contexts.name_of(model, context)) and context.artifacts[named].made:
            return context.artifacts[named].made
        return context.cell_run if context else None

    def _logged(self, context: RunContext | None, what: str) -> dict[str, Any]:
        """Metrics or parameters logged in the session's run so far, the last value of each."""
        if context is None:
            return {}
        told = getattr(context, what)
        if told is not None:
            return {key: plain(value) for key, value in told.items()}
        found: dict[str, Any] = {}
        for run in self.store.cell_runs(run=context.run, newest_first=False):
            found.update(getattr(run, what))
        return found

    def _keep(self, data: bytes) -> Digest:
        return self.store.put(data)  # the move waits until all that was put before it is on the disk

    def _keep_evaluation(self, given: Sequence[Any] | None) -> tuple[dict[str, float], list[Artifact]]:
        if given is None:
            return {}, []
        if len(given) < 2:
            raise checks.EvaluationInvalid(
                "an evaluation needs the truth and answers", next="--evaluation y_true,y_pred"
            )
        found = checks.evaluation(*given)
        parts = {
            part: self._keep(npy(value))
            for part, value in (("truth", found.truth), ("prediction", found.prediction), ("score", found.score))
            if value is not None
        }
        raw = encode({"task": found.task, "rows": len(found.truth), **parts}, sort=True)
        artifact = Artifact(
            name="evaluation", kind="report", digest=self._keep(raw), size=len(raw), type=EVALUATION, stored=True
        )
        return checks.metrics(found), [artifact]

    def _baseline(self, training: Training) -> Digest | None:
        if training.inputs is None:
            return None
        secret = self._redactor.secret_name
        inputs = checks.profile(training.inputs, secret=secret)
        outputs = checks.profile(training.outputs, secret=secret) if training.outputs is not None else None
        masked, _ = self._redactor.value({"inputs": inputs, "outputs": outputs})
        return self._keep(encode(masked, sort=True))

    def _requirements(self, model: object, context: RunContext | None) -> list[str]:
        from jupyter_mlops.environment import requirements

        if isinstance(model, (Path, bytes)) and context is None:
            return []  # a shell's own imports say nothing of what made the file
        return requirements(context.modules if context and context.modules else list(sys.modules))

    def _same(
        self, record: ModelVersion, metrics: Mapping[str, Any], parameters: Mapping[str, Any] | None
    ) -> Registered | None:
        """The version that already holds this content and all that is said of it now."""
        content = record.files[0].digest
        if content is None:
            return None
        known = self.store.registered(content, name=record.name)
        for move in self.store.moves_back(f"models/{record.name}") if known else ():
            other = self._version(move.transition.new) if move.transition.new in known else None
            if other is None:
                continue
            new_files = {one.digest for one in record.files[1:]} - {one.digest for one in other.files[1:]}
            told = (
                record.model.type == other.model.type
                and (record.signature is None or record.signature == other.signature)
                and not new_files
                and all(other.metrics.get(key) == value for key, value in metrics.items())
                and all(other.parameters.get(key) == value for key, value in (parameters or {}).items())
                and all(other.tags.get(key) == value for key, value in record.tags.items())
                and record.description in ("", other.description)
            )
            if told and move.transition.new is not None:
                return Registered(move.number, move.transition.new, existed=True)
        return None

    def _number(self, ref: str, record: ModelVersion, reason: str, tickets: list[Ticket]) -> Registered:
        line = self.store.append(record)
        for _ in range(TRIES):
            taken = self.store.taken(ref)
            move = Transition(
                ref=ref, old=self.store.head(ref), new=line, by=record.by, reason=reason or "registered",
                tickets=tickets,
            )  # fmt: skip
            try:
                number, _ = self.store.move(ref, move, expect=taken)
            except RefConflict:
                continue  # somebody else took this number: the next one is as good
            return Registered(number, line, existed=False)
        raise RefConflict(f"{record.name} got no version number", cause="others kept taking them", next="try again")


def _contradictions(told: Mapping[str, Any], found: Mapping[str, float]) -> list[Gap]:
    """Metrics that were logged and that the evaluated rows contradict; the recomputed ones count."""
    gaps = []
    for key in told.keys() & found.keys():
        said = told[key]
        if isinstance(said, (int, float)) and abs(said - found[key]) > 1e-6 * max(1.0, abs(found[key])):
            reason = f"{said:.6g} was logged, and {found[key]:.6g} is what the evaluated rows give"
            gaps.append(Gap(subject=f"metrics.{key}", reason=reason))
    return sorted(gaps, key=lambda gap: gap.subject)
