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

SEEDED = "seeded"
UNSEEDED = "unseeded"
_FRESH = 623  # where numpy's Mersenne Twister stands before the first draw
_TWISTER: Final = struct.Struct("i624I")  # CPython's: where it stands, and its words


class Generators:
    """The global generators of a process: Python's, numpy's legacy one, torch's on the CPU."""

    def __init__(self) -> None:
        self._seeded = False
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
        return found

    def _of_python(self, python: Any) -> object:
        generator = vars(python).get("_inst")
        if generator is not self._generator:
            self._generator, self._state = generator, _reading(python, generator)
        if self._state is not None:
            return self._state(), generator.gauss_next
        _, words, gauss = python.getstate()
        # A draw moves the last number; seeding, and every 624th draw, makes all the others anew.
        return words[-1], words[:4], gauss

    def moved(self, *, calls_seed: bool) -> dict[str, str]:
        """Generators whose state moved since the last call, each with `SEEDED` or `UNSEEDED`.

        Parameters
        ----------
        calls_seed
            Whether the cell calls something that seeds: from then on states follow from the record.
        """
        before, after = self._tokens, self._now()
        self._tokens = after
        if calls_seed:
            self._seeded = True
        word = SEEDED if self._seeded else UNSEEDED
        return {
            name: word
            for name, token in after.items()
            # One that was not loaded before has been seeded by its own import, which is no draw.
            if (before[name] != token if name in before else calls_seed or _has_drawn(name, token))
        }


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


def _has_drawn(name: str, token: object) -> bool:
    """Whether a generator that has only just been loaded was drawn from."""
    return name == "numpy.random" and type(token) is tuple and token[0] not in (_FRESH, None)
