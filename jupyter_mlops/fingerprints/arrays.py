"""NumPy arrays and scalars, and SciPy's sparse matrices.

What counts is shape, dtype and the items in C order, little-endian. Strides, memory order, byte order, alignment,
padding between fields and whether a file is mapped are layout: told as facts, not part of the digest.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, Final

from jupyter_mlops.fingerprints import plain
from jupyter_mlops.fingerprints.walk import (
    CHUNK,
    Handler,
    Node,
    NoFingerprint,
    Walk,
    begin,
    count,
    finish,
    loaded,
    seal,
    text,
)  # fmt: skip

TAG: Final = b"array-1"
SPARSE: Final = b"sparse-1"
_BLOCK: Final = 8192
_NAN: Final = struct.pack("<d", float("nan"))
_MEMORY: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**63
_SWAP: Final = ">" if sys.byteorder == "little" else "<"


def _np() -> Any:
    return sys.modules["numpy"]


def handler_for(kind: type, module: str, qualname: str) -> Handler | None:
    """The handler for one of NumPy's or SciPy's own types."""
    root = module.partition(".")[0]
    if root == "scipy":
        return _sparse if qualname in _SPARSE and loaded("scipy.sparse", qualname) is kind else None
    np = _np()
    if kind is np.ndarray or kind is np.memmap:
        return _ndarray
    if kind is np.matrix or kind is np.recarray:
        return _ndarray
    if kind is np.ma.MaskedArray:
        return _masked
    if kind is type(np.ma.masked):
        return lambda _walk, _value: seal(TAG, b"masked-constant")
    if qualname in dir(np) and loaded("numpy", qualname) is kind and np.generic in kind.__mro__:
        return _scalar
    if module == "numpy.dtypes" or kind is np.dtype:
        return lambda walk, value: seal(TAG, b"dtype", dtype(walk, value)) if np.dtype in kind.__mro__ else _no(kind)
    if kind is np.ufunc:
        return lambda _walk, value: seal(TAG, b"ufunc", text(value.__name__))
    if kind is type(np.concatenate):
        return lambda _walk, value: seal(TAG, b"function", text(f"{value.__module__}.{value.__qualname__}"))
    if module.startswith("numpy.random"):
        return _random(kind, qualname)
    return None


def _no(kind: type) -> Node:
    raise NoFingerprint(f"the type {kind.__qualname__} is not known")


# -- dtypes ------------------------------------------------------------------------------------------------------------


def dtype(walk: Walk, kind: Any) -> bytes:
    """A dtype as written: kind and width without the byte order; the fields of a structure with their names."""
    if kind.names is not None:
        fields = b"".join([text(name) + dtype(walk, kind.fields[name][0]) for name in kind.names])
        return b"{" + count(len(kind.names)) + fields + b"}"
    if kind.subdtype is not None:
        inner, shape = kind.subdtype
        return b"(" + b"".join(map(count, shape)) + b")" + dtype(walk, inner)
    if kind.kind == "T":
        missing = walk.at(".na_object", kind.na_object) if hasattr(kind, "na_object") else b"-"
        return text("T") + missing
    if kind.kind not in "biufcmMOSUV":
        raise NoFingerprint(f"the dtype {kind.name} is not known")
    return text(kind.str[1:])


def ndarray_shape(value: Any) -> dict[str, Any]:
    """The facts of an array."""
    flags = value.flags
    order = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "strided"
    layout: dict[str, Any] = {"order": order}
    if value.dtype.byteorder == _SWAP:
        layout["byteorder"] = "swapped"
    if type(value).__name__ == "memmap":
        layout["mapped"] = True
    return {"schema": {"dtype": str(value.dtype)}, "shape": list(value.shape), "layout": layout}


# -- arrays ------------------------------------------------------------------------------------------------------------


def _ndarray(walk: Walk, value: Any) -> Node:
    np = _np()
    kind = {np.matrix: b"matrix", np.recarray: b"recarray"}.get(type(value), b"ndarray")
    if walk.top:
        walk.facts = ndarray_shape(value)
    plain_view = value if type(value) is np.ndarray else np.ndarray.view(value, np.ndarray)
    if plain_view.dtype.type is np.record:  # a recarray's items are records by default
        plain_view = plain_view.view(np.dtype((np.void, plain_view.dtype)))
    return array(walk, plain_view, kind)


def array(walk: Walk, value: Any, kind: bytes = b"ndarray") -> Node:
    """The node of an exact ndarray."""
    if value.nbytes > _MEMORY:  # mapped from a file: to read it drives all else out of memory, and takes for ever
        raise NoFingerprint("larger than this machine's memory")
    if walk.known and kind == b"ndarray" and value.flags.c_contiguous:
        found = walk.known.get((value.ctypes.data, value.dtype.str, value.shape))
        if found is not None and found.startswith("array-1:"):
            return Node(TAG, bytes.fromhex(found[8:]))
    hasher = begin(walk, TAG, kind)
    hasher.update(dtype(walk, value.dtype) + count(value.ndim) + b"".join(map(count, value.shape)))
    items(walk, hasher, value)
    return finish(TAG, hasher)


def items(walk: Walk, hasher: Any, value: Any) -> None:
    """Write an array's items in C order."""
    np = _np()
    kind = value.dtype
    if not value.size:
        return None
    if kind.names is not None:
        for name in kind.names:
            hasher.update(text(name))
            items(walk, hasher, value[name])
        return None
    if kind.kind in "OT":
        return objects(walk, hasher, value)
    if kind.char in "gG" and kind.itemsize // (2 if kind.char == "G" else 1) > 8:
        return _long(walk, hasher, value)
    if value.flags.c_contiguous and kind.byteorder != _SWAP and value.ndim:
        return walk.feed(hasher, value.reshape(-1).view(np.uint8) if kind.itemsize else b"")
    for part in parts(value):
        straight = np.ascontiguousarray(part)
        if straight.dtype.byteorder == _SWAP:
            straight = straight.byteswap()
        walk.feed(hasher, straight.reshape(-1).view(np.uint8) if kind.itemsize else b"")
    return None


def parts(value: Any) -> Any:
    """An array cut along its first axes into pieces of at most about 8 MiB, in C order."""
    if value.nbytes <= CHUNK or not value.ndim:
        yield value
        return
    row = value.nbytes // value.shape[0]
    if row > CHUNK:
        for inner in value:
            yield from parts(inner)
        return
    step = max(1, CHUNK // max(1, row))
    for start in range(0, value.shape[0], step):
        yield value[start : start + step]


def _long(walk: Walk, hasher: Any, value: Any) -> None:
    """Extended precision: ten bytes hold the number, the rest is padding that nobody cleared."""
    np = _np()
    if np.finfo(np.longdouble).nmant != 63 or sys.byteorder != "little" or value.dtype.byteorder == _SWAP:
        raise NoFingerprint(f"the layout of {value.dtype.name} is not known on this machine")
    width = np.dtype(np.longdouble).itemsize
    for part in parts(value):
        raw = np.ascontiguousarray(part).reshape(-1).view(np.uint8).reshape(-1, width)[:, :10]
        walk.feed(hasher, np.ascontiguousarray(raw).reshape(-1))


def objects(walk: Walk, hasher: Any, value: Any) -> None:
    """Write Python objects, in blocks of 8,192: texts joined, also among missing values; anything else one by one."""
    flat = value if value.ndim == 1 else value.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK].tolist()
        packed = None
        first = type(block[0])
        if first is str or block[0] is None or first is float:
            packed = _texts(block)
        if packed is not None:
            walk.spend(len(block), len(packed))
            hasher.update(packed)
        else:
            hasher.update(b"*")
            plain.one_by_one(walk, hasher, block, start)


def _texts(block: list[Any]) -> bytes | None:
    codes = b""
    try:
        # in C, and it takes texts only: the check of the types and the copy are one
        joined = "\0".join(block)
        total = len(block)
    except TypeError:
        codes = bytes(map(_missing, block))
        if 9 in codes:
            return None
        found = [one for one in block if type(one) is str]
        joined, total = "\0".join(found), len(found)
    if joined.count("\0") != max(0, total - 1):
        return None
    raw = joined.encode("utf-8", "surrogatepass")
    return b"S%d;%d;%d:%b%b" % (len(block), len(codes), len(raw), codes, raw)


def _missing(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return 0
    if value is None:
        return 1
    return 2 if kind is float and value != value and struct.pack("<d", value) == _NAN else 9


def _masked(walk: Walk, value: Any) -> Node:
    np = _np()
    data = np.ndarray.view(value, np.ndarray)
    mask = np.ma.getmaskarray(value)
    if data.dtype.names is not None or data.dtype.kind in "OT":
        raise NoFingerprint("a masked array of structures or objects")
    if walk.top:
        walk.facts = ndarray_shape(data)
    clear = data.copy()
    clear[mask] = np.zeros((), data.dtype)
    fill = value.fill_value if value._fill_value is not None else None
    return seal(
        TAG, b"maskedarray", array(walk, np.ascontiguousarray(mask)).inline(), array(walk, clear).inline(),
        b"N" if fill is None else array(walk, np.asarray(fill)).inline(),
    )  # fmt: skip


def _scalar(walk: Walk, value: Any) -> Node:
    np = _np()
    whole = np.asarray(value)
    hasher = begin(walk, TAG, b"scalar")
    hasher.update(dtype(walk, whole.dtype))
    items(walk, hasher, whole)
    return finish(TAG, hasher)


# -- generators of random numbers --------------------------------------------------------------------------------------


def _random(kind: type, qualname: str) -> Handler | None:
    np = _np()
    if kind is np.random.Generator:
        return lambda walk, value: seal(TAG, b"generator", walk.item(value.bit_generator))
    if kind is np.random.RandomState:
        return _randomstate
    if loaded("numpy.random", qualname) is kind and np.random.BitGenerator in kind.__mro__:
        return _bits
    return None


def _randomstate(walk: Walk, value: Any) -> Node:
    if type(value._bit_generator).__name__ != "MT19937":
        return seal(TAG, b"randomstate", walk.item(value.get_state(legacy=False)))
    return seal(TAG, b"randomstate", walk.item(list(value.get_state(legacy=True))))


def _bits(walk: Walk, value: Any) -> Node:
    """By its state; where children were spawned from it, also by how many, since the next ones are others."""
    spawned = getattr(value.seed_seq, "n_children_spawned", 0) if hasattr(value, "seed_seq") else 0
    return seal(TAG, b"bitgenerator", walk.item(value.state), *([walk.item(spawned)] if spawned else []))


# -- sparse matrices ---------------------------------------------------------------------------------------------------

_SPARSE: Final = {
    f"{form}_{what}" for form in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok") for what in ("matrix", "array")
}


def _sparse(walk: Walk, value: Any) -> Node:
    """By format, shape, and stored entries, in order within their row; the width of the indices is layout."""
    np = _np()
    form = type(value).__name__
    state = object.__getattribute__(value, "__dict__")
    shape = tuple(int(side) for side in value.shape)
    hasher = begin(walk, SPARSE, form.encode())
    hasher.update(count(len(shape)) + b"".join(map(count, shape)))
    if form.startswith(("csr", "csc")):
        indptr, indices, data = (state[name] for name in ("indptr", "indices", "data"))
        used = int(indptr[-1])
        indices, data = indices[:used], data[:used]
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        if len(indices) > 1 and ((np.diff(indices) < 0) & (np.diff(rows) == 0)).any():
            order = np.lexsort((indices, rows))
            indices, data = indices[order], data[order]
        found = [indptr.astype(np.int64), indices.astype(np.int64), data]
    elif form.startswith("coo"):
        where = state["coords"] if "coords" in state else (state["row"], state["col"])
        order = np.lexsort(tuple(reversed(where)))
        found = [*(one[order].astype(np.int64) for one in where), state["data"][order]]
    elif form.startswith("bsr"):
        found = [state["indptr"].astype(np.int64), state["indices"].astype(np.int64), state["data"]]
    elif form.startswith("dia"):
        found = [state["offsets"].astype(np.int64), state["data"]]
    elif form.startswith("lil"):
        found = [state["rows"], state["data"]]
        hasher.update(dtype(walk, state.get("dtype", value.dtype)))
    else:
        hasher.update(dtype(walk, value.dtype))
        hasher.update(walk.item(dict(state["_dict"])))
        return finish(SPARSE, hasher)
    for one in found:
        hasher.update(array(walk, one).inline())
    if walk.top:
        walk.facts = {"schema": {"dtype": str(found[-1].dtype)}, "shape": list(shape), "layout": {"format": form[:3]}}
    return finish(SPARSE, hasher)
