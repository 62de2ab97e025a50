"""Which random generators moved in a cell, told from their states without disturbing them.

A generator's state is read, never set, and only where its library is loaded already. States are compared by a short
token; the libraries' own accessors copy the state, so nothing of the user's is held.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from jupyter_mlops.lineage import NOTHING, CellNames

SEEDED = "seeded"
UNSEEDED = "unseeded"
_FRESH = 623  # where numpy's Mersenne Twister stands before the first draw
_TWISTER: Final = struct.Struct("i624I")  # CPython's: where it stands, and its words


class Generators:
    """The global generators of a process: Python's, numpy's legacy one, torch's on the CPU and on GPUs."""

    def __init__(self) -> None:
        self._seeded: set[str] = set()
        self._seeding: dict[str, frozenset[str]] = {}  # functions of earlier cells that seed
        self._generator: Any = None
        self._state: Callable[[], bytes] | None = None
        self._tokens: dict[str, object] = self._now()

    def _now(self) -> dict[str, object]:
        found: dict[str, object] = {}
        modules = sys.modules
        python = modules.get("random")
        if python is not None:
            found["random"] = self._of_python(python)
        numpy: Any = modules.get("numpy.random.mtrand")
        generator = getattr(numpy, "_rand", None)  # numpy.random itself may still be half imported
        if generator is not None:
            state = generator.get_state(legacy=False)
            inner = state["state"]
            # Drawing moves `pos`; every 624 draws the key is made anew.
            if "key" in inner:
                found["numpy.random"] = (inner["pos"], inner["key"][:4].tobytes(), state["has_gauss"])
            else:  # the user gave the legacy functions another bit generator
                found["numpy.random"] = tuple(sorted((key, str(value)) for key, value in inner.items()))
        torch: Any = modules.get("torch.random")
        default = getattr(torch, "default_generator", None)
        if default is not None:
            found["torch"] = default.get_state().numpy().tobytes()
            gpus = _of_gpus(modules.get("torch.cuda"))
            if gpus:
                found["torch.cuda"] = gpus
        return found

    def given(self) -> None:
        """Take the states as they are now for nobody's doing: they were given back."""
        self._tokens = self._now()

    def _of_python(self, python: Any) -> object:
        generator = vars(python).get("_inst")
        if generator is not self._generator:
            self._generator, self._state = generator, _reading(python, generator)
        if self._state is not None:
            return self._state(), generator.gauss_next
        _, words, gauss = python.getstate()
        # A draw moves the last number; seeding, and every 624th draw, makes all the others anew.
        return words[-1], words[:4], gauss

    def moved(self, names: CellNames = NOTHING) -> dict[str, str]:
        """Generators whose state moved since the last call, each with `SEEDED` or `UNSEEDED`.

        A generator counts as seeded from the cell on that calls what seeds it, or a function defined in an earlier cell
        that does: from then on its states follow from the record. Only one that moved in that cell was seeded there.

        Parameters
        ----------
        names
            What the cell's text says.
        """
        before, after = self._tokens, self._now()
        self._tokens = after
        # One that was not loaded before has been seeded by its own import, which is no draw.
        moved = [
            name
            for name, token in after.items()
            if (before[name] != token if name in before else name in names.seeds or _has_drawn(name, token))
        ]
        may = set(names.seeds)
        if may == {"random"} and moved == ["numpy.random"]:
            may = {"numpy.random"}  # `from numpy import random`: what moved tells which one was meant
        for name in names.reads & self._seeding.keys() if self._seeding else ():
            may |= self._seeding[name]
        self._seeded |= may.intersection(moved)
        if "torch.cuda" in moved and "torch" in self._seeded and _seeded_alike(after["torch.cuda"]):
            self._seeded.add("torch.cuda")  # the seed had waited until the GPU was first used
        self._seeding.update(names.seeding)
        return {name: SEEDED if name in self._seeded else UNSEEDED for name in moved}


def _reading(python: Any, generator: Any) -> Callable[[], bytes] | None:
    """How to read the state of Python's generator in place, where that is seen to say what its own accessor says.

    The accessor makes 625 numbers of it, which takes as long as all else that is done for a small cell.
    """
    base = type(generator).__mro__[1] if type(generator) is python.Random else None
    if sys.implementation.name != "cpython" or base is None:
        return None
    if base.__basicsize__ - object.__basicsize__ < _TWISTER.size or base.__module__ != "_random":
        return None
    place = id(generator) + object.__basicsize__

    def state() -> bytes:
        return ctypes.string_at(place, _TWISTER.size)

    at, *words = _TWISTER.unpack(state())
    return state if (*words, at) == python.getstate()[1] == generator.getstate()[1] else None


def _of_gpus(cuda: Any) -> tuple[tuple[int, int], ...]:
    """Each GPU's seed and how far it has drawn: numbers that the CPU keeps, so that no GPU is asked or waited for."""
    try:
        return tuple((one.initial_seed(), one.get_offset()) for one in getattr(cuda, "default_generators", ()))
    except RuntimeError:  # a graph is being captured: it is told once that is over
        return ()


def _seeded_alike(token: Any) -> bool:
    """Whether every GPU has the seed of torch's own generator, as `torch.manual_seed` gives it."""
    torch: Any = sys.modules["torch.random"]
    seed = torch.default_generator.initial_seed()
    return all(one == seed for one, _ in token)


def _has_drawn(name: str, token: object) -> bool:
    """Whether a generator that has only just been loaded was drawn from."""
    if name == "torch.cuda":
        return any(offset for _, offset in token)  # type: ignore[attr-defined]
    return name == "numpy.random" and type(token) is tuple and token[0] not in (_FRESH, None)
