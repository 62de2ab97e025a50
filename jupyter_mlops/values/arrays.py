"""NumPy's arrays, scalars and generators, and SciPy's sparse matrices.

An array is a view: where its memory lies, its dtype, shape and strides. A dtype is written field by field and read
back through a pattern, so that no text of a manifest is given to NumPy that could mean an object's address.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from jupyter_mlops.fingerprints import hull
from jupyter_mlops.fingerprints.walk import derives, loaded
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import Keeper, Keeping
from jupyter_mlops.values.manifest import Claim, ManifestRefused, NotKept
from jupyter_mlops.values.memory import SMALLEST, checked

_PLAIN: Final = re.compile(r"[<>|=]?(?:[biufcSU?][0-9]{1,9}|V[0-9]{1,9}|[mM]8(?:\[[0-9]{0,9}[A-Za-zµ]{1,7}\])?)")
_DEEPEST: Final = 20
_SWAP: Final = ">" if sys.byteorder == "little" else "<"
_ARRAYS: Final = ("ndarray", "matrix", "recarray")
_OWNERS: Final = (
    ("mmap", "mmap", "a file that is mapped"), ("array", "array", "an array of the standard library"),
)  # fmt: skip
_GENERATORS: Final = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def _np() -> Any:
    import numpy as np

    return np


def keeper_for(kind: type, module: str, qualname: str) -> Keeper | None:
    """Who writes one of NumPy's or SciPy's own types."""
    root = module.partition(".")[0]
    if root == "scipy":
        return keep_sparse if qualname in _SPARSE and loaded("scipy.sparse", qualname) is kind else None
    np = _np()
    if kind is np.ndarray or kind is np.matrix or kind is np.recarray:
        return keep_array
    if kind is np.memmap:
        raise NotKept("it is a file that is mapped")
    if kind is np.ma.MaskedArray:
        return _keep_masked
    if kind is type(np.ma.masked):
        return lambda _keep, _value: ["np.masked"]
    if loaded("numpy", qualname) is kind and np.generic in kind.__mro__:
        return _keep_scalar
    if np.dtype in kind.__mro__:
        return lambda _keep, value: ["np.dtype", written(value)]
    if kind is np.ufunc or kind is type(np.concatenate):
        return _keep_function
    if module.startswith("numpy.random"):
        return _keep_random(kind, qualname)
    return None


# -- dtypes ------------------------------------------------------------------------------------------------------------


def written(dtype: Any) -> Any:
    """A dtype in builtin values.

    Raises
    ------
    NotKept
        It is none that every release knows.
    """
    if dtype.names is not None:
        fields = [[name, written(dtype.fields[name][0]), dtype.fields[name][1]] for name in dtype.names]
        if any(len(dtype.fields[name]) > 2 for name in dtype.names):
            raise NotKept("an array of structures whose fields have titles")
        return {"fields": fields, "size": dtype.itemsize, "aligned": bool(dtype.isalignedstruct),
                "record": dtype.type is _np().record}  # fmt: skip
    if dtype.subdtype is not None:
        return {"of": written(dtype.subdtype[0]), "shape": list(dtype.subdtype[1])}
    if dtype.kind == "O":
        return "O"
    if dtype.kind == "T":
        na = getattr(dtype, "na_object", "-")
        if na != "-" and not (na is None or (type(na) is float and na != na)):
            raise NotKept("texts of numpy with a missing value of their own")
        return {"texts": "-" if na == "-" else None if na is None else "nan"}
    if dtype.metadata or not _PLAIN.fullmatch(dtype.str):
        raise NotKept(f"the dtype {dtype.name} is not known")
    return str(dtype.str)


def read(raw: Any, depth: int = 0) -> Any:
    """The dtype that `written` wrote.

    Raises
    ------
    ManifestRefused
        It wrote none such.
    """
    np = _np()
    if type(raw) is str:
        if raw == "O":
            return np.dtype(object)
        if _PLAIN.fullmatch(raw):
            return np.dtype(raw)
    elif type(raw) is dict and depth < _DEEPEST:
        if "texts" in raw:
            na: Any = {"-": {}, None: {"na_object": None}, "nan": {"na_object": float("nan")}}[raw["texts"]]
            return np.dtypes.StringDType(**na)
        if "of" in raw:
            inner = read(raw["of"], depth + 1)
            if inner.hasobject or not all(type(one) is int and 0 <= one < 2**31 for one in raw["shape"]):
                raise ManifestRefused("a kept dtype is refused", cause="its shape is none")
            return np.dtype((inner, tuple(raw["shape"])))
        names, formats, offsets = [], [], []
        for name, inner, offset in raw["fields"]:
            names.append(name)
            formats.append(read(inner, depth + 1))
            offsets.append(offset)
        if any(one.hasobject for one in formats):
            raise ManifestRefused("a kept dtype is refused", cause="its structures hold objects")
        made = np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": raw["size"]}, align=raw["aligned"]
        )
        return np.dtype((np.record, made)) if raw["record"] is True else made
    raise ManifestRefused("a kept dtype is refused", cause="it is not known")


maker("np.dtype")(lambda _bring, node, _number: read(node[1]))


# -- arrays ------------------------------------------------------------------------------------------------------------


def keep_array(keep: Keeping, value: Any, *, cuts: bool = False, columns: Any = ()) -> list[Any]:
    """Write an array.

    Parameters
    ----------
    keep
        The manifest being made.
    value
        An array of an exact type.
    cuts
        Whether its rows are columns of a frame: then each is an object of its own.
    columns
        The fingerprints of those columns, where the record has them.
    """
    np = _np()
    kind = type(value).__name__
    plain = value if type(value) is np.ndarray else np.ndarray.view(value, np.ndarray)
    dtype = plain.dtype
    if dtype.kind in "OT" and dtype.names is None:
        return _keep_objects(keep, plain, kind, bool(value.flags.writeable))
    if dtype.hasobject:
        raise NotKept("an array of structures that hold objects")
    _see_owner(plain)
    keep.hold(plain)
    shape, strides = list(plain.shape), list(plain.strides)
    low, high = hull(shape, strides, dtype.itemsize)
    start = plain.ctypes.data + low
    ends: list[int] = []
    straight = plain.flags.c_contiguous and dtype.byteorder != _SWAP and dtype.char not in "gG"
    if cuts and plain.ndim == 2 and len(plain) and straight:
        row = (high - low) // len(plain)
        if row >= SMALLEST:
            ends = [start + row * place for place in range(1, len(plain))]
            for place, digest in zip(range(len(plain)), columns, strict=False):
                if digest is not None:
                    claim = Claim(digest, dtype.str, (plain.shape[1],))
                    keep.memory.claim(start + row * place, start + row * (place + 1), claim)
    elif straight and columns and columns[0] is not None and high > low and dtype.names is None:
        keep.memory.claim(start, start + high, Claim(columns[0], dtype.str, tuple(shape)))
    writeable = bool(value.flags.writeable)
    place_ = keep.memory.span(start, start + high - low, cuts=ends, writeable=writeable)
    return ["np.array", kind, written(dtype), shape, strides, writeable, place_]


def _see_owner(plain: Any) -> None:
    """See that an array's memory is no other thing than memory.

    Raises
    ------
    NotKept
        What is written to it goes to a file, a stream, or an array that is kept in another way.
    """
    np = _np()
    one = plain.base
    while one is not None and (derives(type(one), np.ndarray) or type(one) is memoryview):
        one = one.obj if type(one) is memoryview else one.base
    for module, name, what in _OWNERS:
        if type(one) is loaded(module, name):
            raise NotKept(f"it lies over {what}")
    if type(one).__name__ == "_BytesIOBuffer":
        raise NotKept("it lies over the memory of a stream")


@maker("np.array")
def _array(bring: Bringing, node: list[Any], _number: int) -> Any:
    np = _np()
    _, kind, raw, shape, strides, writeable, (region, offset) = node
    dtype = read(raw)
    if dtype.hasobject:
        raise ManifestRefused("a kept array is refused", cause="its memory would hold objects")
    memory = bring.region(region)
    shape, strides = checked(len(memory), offset, shape, strides, dtype.itemsize)
    low, _ = hull(shape, strides, dtype.itemsize)
    made = np.ndarray(shape, dtype, memory, offset - low, strides) if memory.size else np.empty(shape, dtype)
    if not writeable:
        made.flags.writeable = False
    return _of_kind(made, kind)


def _of_kind(made: Any, kind: Any) -> Any:
    if kind not in _ARRAYS:
        raise ManifestRefused("a kept array is refused", cause="its class is not known")
    return made if kind == "ndarray" else made.view(getattr(_np(), kind))


def _keep_objects(keep: Keeping, plain: Any, kind: str, writeable: bool) -> list[Any]:
    """An array of objects: its items, or which items of the array that owns them it shows."""
    np = _np()
    root = plain
    while type(root.base) is np.ndarray:
        root = root.base
    if root.base is not None or root.dtype != plain.dtype or not (root.flags.c_contiguous or root.flags.f_contiguous):
        raise NotKept("an array of objects in another's memory")
    width = plain.dtype.itemsize
    if root is not plain:
        low, _ = hull(plain.shape, plain.strides, width)
        first = (plain.ctypes.data - root.ctypes.data) // width if plain.size else 0
        steps = [step // width for step in plain.strides]
        return ["np.window", kind, keep.operand(root), first, list(plain.shape), steps, writeable, low // width]
    rows = [keep.items(row.tolist()) for row in plain] if plain.ndim == 2 else [keep.items(plain.reshape(-1).tolist())]
    order = "C" if plain.flags.c_contiguous else "F"
    return ["np.objects", kind, written(plain.dtype), list(plain.shape), order, writeable, rows]


@maker("np.objects")
def _objects(bring: Bringing, node: list[Any], number: int) -> Any:
    np = _np()
    _, kind, raw, shape, order, writeable, rows = node
    dtype = read(raw)
    counts = [row["count"] if type(row) is dict else len(row) for row in rows]
    fits = all(type(side) is int and side >= 0 for side in shape) and all(type(one) is int for one in counts)
    if not fits or dtype.kind not in "OT" or order not in ("C", "F") or (
        (len(shape) == 2 and (len(counts) != shape[0] or set(counts) - {shape[1]}))
        or (len(shape) != 2 and counts != [math.prod(shape)])
    ):  # fmt: skip
        raise ManifestRefused("a kept array is refused", cause="its items are not as many as its shape says")
    if sum(counts) > 2**40 or (not sum(counts) and max(shape, default=0) > 2**40):
        raise ManifestRefused("a kept array is refused", cause="its shape is none")
    for row in rows:  # before room is made for as many as it says
        if type(row) is dict and row["count"] > len(bring.object(row["object"])):
            raise ManifestRefused("kept items are refused", cause="they are not as many as they say")
    made = np.empty(tuple(shape), dtype, order=order)
    whole = bring.early(number, _of_kind(made, kind))

    def fill() -> None:
        for place, row in enumerate(rows):
            flat = made[place] if made.ndim == 2 else made.reshape(-1)
            for at, one in enumerate(bring.items(row)):
                flat[at] = one
        whole.flags.writeable = writeable is True

    if all(type(row) is dict or all(map(bring.plain, row)) for row in rows):
        fill()  # labels are looked up by their hashes as soon as an index is made of them
    else:
        bring.later(fill)
    return whole


@maker("np.window")
def _window(bring: Bringing, node: list[Any], _number: int) -> Any:
    np = _np()
    _, kind, raw, first, shape, steps, writeable, low = node
    root = bring.operand(raw)
    if type(root) is not np.ndarray or root.dtype.kind not in "OT" or root.base is not None:
        raise ManifestRefused("a kept array is refused", cause="what it shows a part of is no array of objects")
    flat = (root if root.flags.c_contiguous else root.T).reshape(-1)
    if type(first) is not int or type(low) is not int:
        raise ManifestRefused("a kept array is refused", cause="its place is none")
    sides, strides = checked(len(flat), first + low, shape, steps, 1)
    if low != hull(sides, strides, 1)[0]:
        raise ManifestRefused("a kept array is refused", cause="its place is none")
    width = root.dtype.itemsize
    if not math.prod(sides):
        made = np.empty(sides, root.dtype)
    else:
        made = np.lib.stride_tricks.as_strided(flat[first:], sides, [step * width for step in strides])
    if writeable is not True:
        made.flags.writeable = False
    return _of_kind(made, kind)


def _keep_masked(keep: Keeping, value: Any) -> list[Any]:
    np = _np()
    if value.dtype.hasobject or value.dtype.names is not None:
        raise NotKept("a masked array of structures or objects")
    mask = None if value._mask is np.ma.nomask else keep.operand(value._mask)
    fill = None if value._fill_value is None else keep.operand(np.asarray(value._fill_value))
    return ["np.maskedarray", keep.operand(np.ndarray.view(value, np.ndarray)), mask, fill, bool(value._hardmask)]


@maker("np.maskedarray")
def _masked(bring: Bringing, node: list[Any], _number: int) -> Any:
    np = _np()
    mask = np.ma.nomask if node[2] is None else bring.operand(node[2])
    fill = None if node[3] is None else bring.operand(node[3])
    return np.ma.MaskedArray(bring.operand(node[1]), mask, copy=False, fill_value=fill, hard_mask=node[4] is True)


@maker("np.masked")
def _masked_constant(_bring: Bringing, _node: list[Any], _number: int) -> Any:
    return _np().ma.masked


def _keep_scalar(keep: Keeping, value: Any) -> list[Any]:
    np = _np()
    if value.dtype.hasobject:
        raise NotKept("a scalar of structures that hold objects")
    if type(value) in (np.void, np.record) and value.base is not None and value.dtype.itemsize:
        memory = np.frombuffer(value, np.uint8)  # a row of an array, which is written through it
        _see_owner(memory)
        keep.hold(memory)
        low = memory.ctypes.data
        writeable = bool(value.flags.writeable)
        place = keep.memory.span(low, low + len(memory), writeable=writeable)
        return ["np.row", written(value.dtype), writeable, place]
    whole = np.asarray(value)
    return ["np.scalar", written(whole.dtype), keep.operand(whole.tobytes())]


@maker("np.scalar")
def _scalar(bring: Bringing, node: list[Any], _number: int) -> Any:
    dtype, data = read(node[1]), bring.operand(node[2])
    if dtype.hasobject or type(data) is not bytes or len(data) != dtype.itemsize:
        raise ManifestRefused("a kept number is refused", cause="its bytes are not those of one")
    made = _np().frombuffer(data, dtype)[0] if data else _np().empty((), dtype)[()]
    return made.copy() if dtype.kind == "V" else made  # of its own memory, which can be written


@maker("np.row")
def _row(bring: Bringing, node: list[Any], _number: int) -> Any:
    dtype, (region, offset) = read(node[1]), node[3]
    if dtype.kind != "V" or dtype.hasobject:
        raise ManifestRefused("a kept row is refused", cause="it is none of an array of structures")
    memory = bring.region(region)
    checked(len(memory), offset, [], [], dtype.itemsize)
    made = _np().ndarray((), dtype, memory, offset)
    made.flags.writeable = node[2] is True
    return made[()]


_SAFE_ROOTS: Final = ("numpy", "scipy")


def _keep_function(_keep: Keeping, value: Any) -> list[Any]:
    name = value.__name__
    module = getattr(value, "__module__", None) or "numpy"
    for place in (module, "numpy", "scipy.special"):
        if loaded(place, name) is value and place.partition(".")[0] in _SAFE_ROOTS:
            return ["np.function", place, name]
    raise NotKept(f"the function {name} stands nowhere under its name")


@maker("np.function")
def _function(_bring: Bringing, node: list[Any], _number: int) -> Any:
    import importlib

    _, module, name = node
    if module.partition(".")[0] not in _SAFE_ROOTS or not re.fullmatch(r"[a-z_.]+", module):
        raise ManifestRefused("a kept function is refused", cause="it is none of numpy's or scipy's")
    np = _np()
    if module != "numpy":
        importlib.import_module("scipy.special" if module.startswith("scipy") else "numpy")
    found = loaded(module, name)
    if type(found) not in (np.ufunc, type(np.concatenate)):
        raise ManifestRefused("a kept function is refused", cause="there is none of that name")
    return found


# -- generators of random numbers --------------------------------------------------------------------------------------


def _keep_random(kind: type, qualname: str) -> Keeper | None:
    np = _np()
    if kind is np.random.Generator:
        return lambda keep, value: ["np.generator", keep.operand(value.bit_generator)]
    if kind is np.random.RandomState:
        return _keep_randomstate
    if kind is np.random.SeedSequence:
        return lambda keep, value: ["np.seeds", *map(keep.operand, _seeds(value))]
    if qualname in _GENERATORS and loaded("numpy.random", qualname) is kind:
        return _keep_bits
    return None


def _keep_randomstate(keep: Keeping, value: Any) -> list[Any]:
    bits = value._bit_generator  # which a Generator may draw from, too
    state = value.get_state(legacy=type(bits).__name__ == "MT19937")
    return ["np.randomstate", keep.operand(state), keep.operand(bits)]


def _seeds(value: Any) -> tuple[Any, ...]:
    return value.entropy, value.spawn_key, value.pool_size, value.n_children_spawned


def _keep_bits(keep: Keeping, value: Any) -> list[Any]:
    seeds = value.seed_seq  # what its children are seeded by
    known = type(seeds) is _np().random.SeedSequence
    return ["np.bits", type(value).__name__, keep.operand(value.state), keep.operand(seeds) if known else None]


@maker("np.generator")
def _generator(bring: Bringing, node: list[Any], _number: int) -> Any:
    return _np().random.Generator(bring.operand(node[1]))


@maker("np.randomstate")
def _randomstate(bring: Bringing, node: list[Any], _number: int) -> Any:
    bits = bring.operand(node[2]) if len(node) > 2 else None
    if bits is not None and type(bits).__name__ not in _GENERATORS:
        raise ManifestRefused("a kept generator is refused", cause="what it draws from is none")
    made = _np().random.RandomState(bits)
    state = bring.operand(node[1])
    _later(bring, lambda: made.set_state(state))
    return made


def _later(bring: Bringing, fill: Callable[[], None]) -> None:
    """Give a generator its state, whose dicts are filled by then."""
    bring.later(lambda: bring.later(lambda: bring.later(fill)))


@maker("np.seeds")
def _seed_sequence(bring: Bringing, node: list[Any], _number: int) -> Any:
    entropy, key, size, spawned = (bring.operand(one) for one in node[1:5])
    return _np().random.SeedSequence(entropy, spawn_key=key, pool_size=size, n_children_spawned=spawned)


@maker("np.bits")
def _bits(bring: Bringing, node: list[Any], number: int) -> Any:
    if node[1] not in _GENERATORS:
        raise ManifestRefused("a kept generator is refused", cause="it is not known")
    seeds = bring.operand(node[3]) if len(node) > 3 else None
    if seeds is not None and type(seeds) is not _np().random.SeedSequence:
        raise ManifestRefused("a kept generator is refused", cause="what its children are seeded by is none")
    made = bring.early(number, getattr(_np().random, node[1])(seeds))
    state = bring.operand(node[2])
    _later(bring, lambda: setattr(made, "state", state))
    return made


# -- sparse matrices ---------------------------------------------------------------------------------------------------

_PARTS: Final = {
    "csr": ("data", "indices", "indptr"), "csc": ("data", "indices", "indptr"), "bsr": ("data", "indices", "indptr"),
    "dia": ("data", "offsets"), "lil": ("data", "rows"),
}  # fmt: skip
_SPARSE: Final = {
    f"{form}_{what}" for form in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok") for what in ("matrix", "array")
}


def keep_sparse(keep: Keeping, value: Any) -> list[Any]:
    """Write a sparse matrix: its class, shape, and the arrays it is made of."""
    name = type(value).__name__
    form = name[:3]
    state = object.__getattribute__(value, "__dict__")
    shape = [int(side) for side in value.shape]
    dtype = written(value.dtype)
    if form == "coo":
        where = state["coords"] if "coords" in state else (state["row"], state["col"])
        return ["sp.sparse", name, shape, dtype, [keep.operand(one) for one in (state["data"], *where)]]
    if form == "dok":
        return ["sp.sparse", name, shape, dtype, [keep.operand(state["_dict"])]]
    return ["sp.sparse", name, shape, dtype, [keep.operand(state[part]) for part in _PARTS[form]]]


@maker("sp.sparse")
def _sparse(bring: Bringing, node: list[Any], number: int) -> Any:
    import scipy.sparse

    _, name, sides, raw, parts = node
    if name not in _SPARSE or not all(type(side) is int and 0 <= side < 2**62 for side in sides):
        raise ManifestRefused("a kept sparse matrix is refused", cause="its class or shape is not known")
    kind, form, shape = getattr(scipy.sparse, name), name[:3], tuple(sides)
    held = [bring.operand(one) for one in parts]
    if form in ("lil", "dok"):
        made = kind(shape, dtype=read(raw))
        if form == "dok":
            bring.early(number, made)
            bring.later(lambda: bring.later(lambda: _fill_dok(made, held[0])))
        else:
            if any(type(one) is not _np().ndarray or one.shape != (shape[0],) for one in held):
                raise ManifestRefused("a kept sparse matrix is refused", cause="its rows are not as many as it says")
            made.data, made.rows = held
        return made
    if any(type(one) is not _np().ndarray for one in held):
        raise ManifestRefused("a kept sparse matrix is refused", cause="its parts are no arrays")
    data, *where = held
    if form == "coo":
        made = kind((data, tuple(where)), shape=shape, copy=False)
    else:
        made = kind((data, *where), shape=shape, copy=False)
        if form in ("csr", "csc") or form == "bsr":
            made.check_format(full_check=True)
    for part, one in zip(_PARTS.get(form, ()), held, strict=False):
        if getattr(made, part) is not one and getattr(made, part).dtype == one.dtype:
            setattr(made, part, one)  # the very array, where the constructor took a view of it
    return made


def _fill_dok(made: Any, entries: Any) -> None:
    if type(entries) is not dict:
        raise ManifestRefused("a kept sparse matrix is refused", cause="its entries are none")
    object.__getattribute__(made, "__dict__")["_dict"].update(entries)
