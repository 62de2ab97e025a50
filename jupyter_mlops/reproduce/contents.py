"""What two variables hold, where the bytes of both are kept: brought back, and held against each other.

Bytes are kept by checkpoints, and of models by the registry. A value counts as brought back only if its fingerprint is
the one on record. Nothing that runs is brought back: no function, no class of a notebook, no pickle.

Floating-point numbers may differ within the tolerance, one by one; so may integers, except in what an object such as an
estimator holds: there they are counts, indexes and categories. All else has to be the same.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from jupyter_mlops import values
from jupyter_mlops.capture.checkpoints import Variables
from jupyter_mlops.errors import MlopsError
from jupyter_mlops.fingerprints import fingerprint
from jupyter_mlops.records import Artifact, CellRun, Digest, ModelVersion
from jupyter_mlops.registry import formats
from jupyter_mlops.reproduce.comparing import NotTold, Tolerance

if TYPE_CHECKING:
    from jupyter_mlops.store import Store

_KNOWN_BY_PARTS: Final = ("sklearn", "numpy", "scipy", "pandas", "torch", "collections", "functools")
"""Libraries whose objects tell all their state when they are asked to be copied."""
_DEEPEST: Final = 150
_LEAVES: Final = frozenset({int, float, complex, bool, str, bytes})


class Held(NamedTuple):
    """A variable of a checkpoint: how it was called, the manifest that holds its value, or why none does."""

    name: str
    manifest: Digest | None
    why: str


class Contents:
    """Values of variables by their digests, as far as a store keeps their bytes.

    Parameters
    ----------
    store
        The store.
    cells
        The cell runs whose checkpoints count.
    """

    def __init__(self, store: Store, cells: Sequence[CellRun]) -> None:
        self._store = store
        self._cells = cells

    @functools.cached_property
    def _listed(self) -> dict[Digest, Held]:
        """By digest what checkpoints hold; read when it is first asked for."""
        listed: dict[Digest, Held] = {}
        for cell in self._cells:
            if cell.checkpoint is None or cell.checkpoint.variables is None:
                continue
            try:
                found = msgspec.json.decode(self._store.get(cell.checkpoint.variables), type=Variables)
            except (MlopsError, msgspec.DecodeError, RecursionError):
                continue  # lost or damaged: `fsck` names it; others may hold the same values
            for name, held in found.names.items():
                digest = held.artifact.digest if held.artifact is not None else None
                if digest is not None and (digest not in listed or held.manifest is not None):
                    listed[digest] = Held(name, held.manifest, held.why)
        return listed

    def has(self, one: Artifact) -> bool:
        """Whether bytes are kept of a variable's value."""
        held = self._listed.get(one.digest) if one.digest is not None else None
        if held is not None and held.manifest is not None:
            return True
        return one.digest is not None and self._version(one.digest) is not None

    def value(self, one: Artifact) -> Any:
        """A variable's value, made again.

        Raises
        ------
        NotTold
            It can not be made, and why.
        """
        if one.digest is None:
            raise NotTold(one.why or "it has no digest")
        try:
            held = self._listed.get(one.digest)
            if held is not None and held.manifest is not None:
                made = values.bring(held.manifest, self._store, names=[held.name], programs=False)[held.name]
            elif (version := self._version(one.digest)) is not None:
                made = self._registered(version)
            else:
                raise NotTold((held.why if held is not None else "") or "its value was not kept")
        except MlopsError as error:
            raise NotTold(str(error.cause or error.thing)) from error
        if fingerprint(made).digest != one.digest:
            raise NotTold("what was kept of it makes another value here")
        return made

    def _version(self, content: Digest) -> ModelVersion | None:
        for line in self._store.registered(content):
            with contextlib.suppress(MlopsError):  # its line is damaged: another version may hold the same
                record = self._store.line(line).record
                if isinstance(record, ModelVersion) and record.model.digest is not None:
                    return record
        return None

    def _registered(self, version: ModelVersion) -> object:
        if version.model.type in formats.RUNS_CODE:
            raise NotTold("it was registered as a pickle, which is not loaded")
        assert version.model.digest is not None
        data = self._store.get(version.model.digest)
        try:
            return formats.load(data, version.model.type)
        except MlopsError:
            raise
        except Exception as error:
            # the libraries say in many ways that a file of theirs is of another release, or damaged
            raise NotTold(f"what was registered can not be loaded ({type(error).__name__})") from error


# -- two values ------------------------------------------------------------------------------------------------------


def unlike(old: Any, new: Any, tolerance: Tolerance) -> str | None:
    """Where two values differ by more than a tolerance allows; None where they do not.

    Raises
    ------
    NotTold
        They hold something whose parts are not known.

    Examples
    --------
    >>> unlike({"a": [1.0, "x"]}, {"a": [1.0 + 1e-12, "x"]}, Tolerance(rtol=1e-9))
    >>> unlike({"a": [1.0, "x"]}, {"a": [1.5, "x"]}, Tolerance(rtol=1e-9))
    "['a'][0]"
    """
    return _Pair(tolerance).values(old, new, "", whole=False)


class _Pair:
    """Two values on their way through their parts."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._depth = 0

    def values(self, old: Any, new: Any, path: str, *, whole: bool) -> str | None:
        """Where two values differ; with `whole`, integers have to be the same."""
        if old is new:
            return None
        if type(old) is not type(new):
            return path or "its type"
        if type(old) not in _LEAVES:
            if (id(old), id(new)) in self._seen:
                return None
            self._seen[id(old), id(new)] = (old, new)  # held, so that nothing else gets their ids
        if self._depth > _DEEPEST:
            raise NotTold("it is nested too deeply")
        self._depth += 1
        try:
            return self._parts(old, new, path, whole)
        finally:
            self._depth -= 1

    def _parts(self, old: Any, new: Any, path: str, whole: bool) -> str | None:
        kind = type(old)
        same: bool
        if kind is float or (kind is int and not whole):
            same = self.tolerance.close(old, new)
        elif kind in (int, bool, str, bytes, bytearray, set, frozenset, range, slice):
            same = old == new
        elif kind in (list, tuple):
            return self._items(old, new, path, whole)
        elif kind is dict:
            return self._entries(old, new, path, whole)
        elif kind is complex:
            import numpy as np

            return self._array(np.asarray(old), np.asarray(new), path, whole)
        elif isinstance(old, type | types.FunctionType | types.BuiltinFunctionType | types.ModuleType):
            same = False  # the same one is the same object: both were brought back by name
        else:
            return self._of_a_library(old, new, path, whole)
        return None if same else path or "its value"

    def _items(self, old: Any, new: Any, path: str, whole: bool) -> str | None:
        if len(old) != len(new):
            return path or "its length"
        for at, (one, other) in enumerate(zip(old, new, strict=True)):
            found = self.values(one, other, f"{path}[{at}]", whole=whole)
            if found is not None:
                return found
        return None

    def _entries(self, old: Mapping[Any, Any], new: Mapping[Any, Any], path: str, whole: bool) -> str | None:
        if list(old) != list(new):
            return path or "its keys"
        for key in old:
            found = self.values(old[key], new[key], f"{path}[{key!r}]"[:200], whole=whole)
            if found is not None:
                return found
        return None

    def _of_a_library(self, old: Any, new: Any, path: str, whole: bool) -> str | None:
        module = type(old).__module__
        root, name = module.partition(".")[0], type(old).__name__
        if root == "numpy" and name in ("ndarray", "memmap"):
            return self._array(old, new, path, whole)
        if root == "numpy" and hasattr(old, "dtype") and getattr(old, "shape", None) == ():
            return self._array(old[...], new[...], path, whole)
        if root == "pandas" and name in ("DataFrame", "Series"):
            return self._frame(old, new, path, whole)
        if root == "torch" and name in ("Tensor", "Parameter"):
            if old.dtype != new.dtype or old.is_sparse or old.is_quantized:
                raise NotTold(f"a tensor of {old.dtype} is not told number by number")
            plain = [one.detach().cpu() for one in (old, new)]
            plain = [one.double() if one.is_floating_point() else one for one in plain]  # NumPy has no bfloat16
            return self._array(plain[0].numpy(), plain[1].numpy(), path, whole)
        if root not in _KNOWN_BY_PARTS:
            raise NotTold(f"it holds a {module}.{name}, whose parts are not known")
        return self._object(old, new, path)

    def _object(self, old: Any, new: Any, path: str) -> str | None:
        """An object by what it says has to be known to copy it; of plain ones, their attributes."""
        try:
            parts = [one.__reduce_ex__(4) for one in (old, new)]
        except Exception as error:  # what can not be copied says so in its library's own way
            raise NotTold(f"it holds a {type(old).__name__}, which does not tell its parts") from error
        if isinstance(parts[0], str) or isinstance(parts[1], str):
            return None if parts[0] == parts[1] else path or "its name"
        (make, arguments, *more), (other, others, *rest) = parts
        found = self.values(make, other, path, whole=True) or self.values(arguments, others, path, whole=True)
        if found is not None:
            return found
        for at in range(max(len(more), len(rest))):
            one, two = (side[at] if at < len(side) else None for side in (more, rest))
            if at in (1, 2) and one is not None and two is not None:
                one, two = list(one), list(two)  # what a list or dict holds comes one by one
            if at == 0 and type(one) is type(two) is dict:
                found = self._attributes(one, two, path)
            else:
                found = self.values(one, two, path, whole=True)
            if found is not None:
                return found
        return None

    def _attributes(self, old: dict[str, Any], new: dict[str, Any], path: str) -> str | None:
        if old.keys() != new.keys():
            return path or "its attributes"
        for name in old:
            found = self.values(old[name], new[name], f"{path}.{name}", whole=True)
            if found is not None:
                return found
        return None

    def _array(self, old: Any, new: Any, path: str, whole: bool) -> str | None:
        import numpy as np

        if old.dtype != new.dtype or old.shape != new.shape:
            return path or "its shape"
        if old.dtype.names is not None:
            for name in old.dtype.names:
                found = self._array(old[name], new[name], f"{path}[{name!r}]", whole)
                if found is not None:
                    return found
            return None
        kind = old.dtype.kind
        if kind == "O":
            return self._items(old.ravel().tolist(), new.ravel().tolist(), path, whole)
        if kind in "fc" or (kind in "iu" and not whole):
            one, other = (side if kind in "fc" else side.astype(np.float64) for side in (old, new))
            with np.errstate(invalid="ignore", over="ignore"):
                near = np.abs(one - other) <= self.tolerance.atol + self.tolerance.rtol * np.abs(one)
            near = (one == other) | (near & np.isfinite(one) & np.isfinite(other)) | (np.isnan(one) & np.isnan(other))
        elif kind == "V":
            near = np.array([side.tobytes() for side in (old, new)])
            near = near[:1] == near[1:]
        else:
            near = (old == new) | (np.isnat(old) & np.isnat(new)) if kind in "mM" else old == new
        return None if np.all(near) else f"{path} (an array of {old.dtype})".strip()

    def _frame(self, old: Any, new: Any, path: str, whole: bool) -> str | None:
        import pandas as pd

        if not old.index.equals(new.index):
            return f"{path}.index"
        if type(old) is pd.DataFrame:
            if not old.columns.equals(new.columns):
                return f"{path}.columns"
            for at, name in enumerate(old.columns):
                found = self._frame(old.iloc[:, at], new.iloc[:, at], f"{path}[{name!r}]"[:200], whole)
                if found is not None:
                    return found
            return None
        if old.dtype != new.dtype:
            return path or "its dtype"
        if pd.api.types.is_float_dtype(old.dtype) or (pd.api.types.is_integer_dtype(old.dtype) and not whole):
            if not old.isna().equals(new.isna()):
                return path or "what it lacks"
            one, other = (side.to_numpy(dtype="float64", na_value=float("nan")) for side in (old, new))
            return self._array(one, other, path, whole)
        if old.dtype == object:
            return self._items(old.tolist(), new.tolist(), path, whole)
        return None if old.equals(new) else path or "its values"
