"""pandas' frames, series, indexes and extension arrays, block by block, with what they share.

Blocks come back as they lay, so that a view writes through to its frame where it did; and the notes by which pandas
knows that two frames share a block (copy on write) come back with them, so that a write to one copies where it would
have.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Final

from jupyter_mlops.fingerprints import notes
from jupyter_mlops.fingerprints.walk import derives, loaded, name_of, qualname_of_type
from jupyter_mlops.records import Digest
from jupyter_mlops.values import arrays, arrow
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import Keeper, Keeping, hashes_plainly
from jupyter_mlops.values.manifest import ManifestRefused, NotKept

_MASKED: Final = ("IntegerArray", "FloatingArray", "BooleanArray")
_INDEXES: Final = (
    "Index", "RangeIndex", "MultiIndex", "DatetimeIndex", "TimedeltaIndex", "PeriodIndex", "CategoricalIndex",
    "IntervalIndex",
)  # fmt: skip
_NAMED: Final = ("PeriodDtype", "BooleanDtype", "Float32Dtype", "Float64Dtype", *(
    f"{sign}Int{width}Dtype" for sign in ("", "U") for width in (8, 16, 32, 64)
))  # fmt: skip
"""Dtypes that their names say all of."""
_STEPS: Final = ("DatetimeArray", "TimedeltaArray", "PeriodArray")


def keeper_for(kind: type, module: str, qualname: str) -> Keeper | None:
    """Who writes one of pandas' own types."""
    pd = sys.modules["pandas"]
    if kind is pd.DataFrame:
        return _keep_frame
    if kind is pd.Series:
        return _keep_series
    if kind is pd.Timestamp or kind is pd.Timedelta:
        return _keep_moment
    if kind is pd.Period:
        return lambda keep, value: ["pd.period", int(value.ordinal), keep.operand(value.freqstr)]
    if kind is pd.Interval:
        return lambda keep, value: ["pd.interval", *keep.inside([value.left, value.right]), value.closed]
    if kind is type(pd.NA) or kind is type(pd.NaT):
        return lambda _keep, value: ["pd.missing", "NA" if value is pd.NA else "NaT"]
    if qualname in _INDEXES and loaded("pandas", qualname) is kind:
        return _keep_index
    if loaded(module, qualname) is not kind:
        return None
    if module == "pandas._libs.tslibs.offsets":
        return lambda keep, value: ["pd.offset", _frequency(keep, value)]
    if derives(kind, pd.api.extensions.ExtensionDtype):
        return lambda keep, value: ["pd.dtype", *_written(keep, value)]
    if derives(kind, pd.api.extensions.ExtensionArray):
        return _keep_column
    if qualname == "BlockValuesRefs":
        return lambda _keep, _value: ["pd.refs"]
    return None


def _pd() -> Any:
    import pandas as pd

    return pd


# -- scalars and dtypes ------------------------------------------------------------------------------------------------


def _keep_moment(keep: Keeping, value: Any) -> list[Any]:
    zone = getattr(value, "tzinfo", None)
    return ["pd.moment", type(value).__name__, keep.operand(int(value._value)), value.unit, _zone(keep, zone)]


@maker("pd.moment")
def _moment(bring: Bringing, node: list[Any], _number: int) -> Any:
    pd, np = _pd(), sys.modules["numpy"]
    _, kind, raw, unit, zone = node
    if kind == "Timedelta":
        return pd.Timedelta(np.timedelta64(bring.operand(raw), _unit(unit))).as_unit(unit)
    made = pd.Timestamp(np.datetime64(bring.operand(raw), _unit(unit))).as_unit(unit)
    found = _zone_of(bring, zone)
    return made if found is None else made.tz_localize("UTC").tz_convert(found)


def _unit(unit: Any) -> str:
    if unit not in ("s", "ms", "us", "ns"):
        raise ManifestRefused("a kept time is refused", cause="its unit is not known")
    return str(unit)


def _zone(keep: Keeping, zone: Any) -> Any:
    if zone is None:
        return None
    kind = type(zone)
    if name_of(kind) in ("datetime.timezone", "zoneinfo.ZoneInfo"):
        return {"zone": keep.operand(zone)}
    if (kind.__module__ or "").partition(".")[0] == "pytz" and loaded("pytz", "timezone") is not None:
        return {"pytz": keep.operand(str(zone))}
    raise NotKept(f"a time zone of the type {name_of(kind)}")


def _zone_of(bring: Bringing, raw: Any) -> Any:
    if raw is None:
        return None
    if "pytz" in raw:
        import pytz  # type: ignore[import-untyped,unused-ignore]

        return pytz.timezone(bring.operand(raw["pytz"]))
    return bring.operand(raw["zone"])


@maker("pd.period")
def _period(bring: Bringing, node: list[Any], _number: int) -> Any:
    return _pd().Period(ordinal=node[1], freq=bring.operand(node[2]))


@maker("pd.interval")
def _interval(bring: Bringing, node: list[Any], _number: int) -> Any:
    return _pd().Interval(bring.operand(node[1]), bring.operand(node[2]), closed=node[3])


@maker("pd.missing")
def _missing(_bring: Bringing, node: list[Any], _number: int) -> Any:
    return _pd().NA if node[1] == "NA" else _pd().NaT


def _frequency(keep: Keeping, value: Any) -> Any:
    """A frequency by its word, where that word means this frequency."""
    if value is None:
        return None
    word = value.freqstr
    if _pd().tseries.frequencies.to_offset(word) != value:
        raise NotKept("a frequency that its name does not tell")
    return keep.operand(word)


def _frequency_of(bring: Bringing, raw: Any) -> Any:
    return None if raw is None else _pd().tseries.frequencies.to_offset(bring.operand(raw))


maker("pd.offset")(lambda bring, node, _number: _frequency_of(bring, node[1]))


def _written(keep: Keeping, kind: Any) -> list[Any]:
    """An extension dtype: its class, and what makes it again."""
    name = type(kind).__name__
    if name == "CategoricalDtype":
        return [name, None if kind.categories is None else keep.operand(kind.categories), kind.ordered]
    if name == "DatetimeTZDtype":
        return [name, kind.unit, _zone(keep, kind.tz)]
    if name == "StringDtype":
        missing = kind.na_value
        return [name, kind.storage, "NA" if missing is _pd().NA else "nan"]
    if name == "ArrowDtype":
        return [name, arrow.keep_type(keep, kind.pyarrow_dtype)]
    if name == "IntervalDtype":
        return [name, str(kind.subtype), kind.closed]
    if name == "SparseDtype":
        return [name, arrays.written(kind.subtype), keep.operand(kind.fill_value)]
    if name in _NAMED and loaded("pandas", name) is type(kind):
        return [name, keep.operand(str(kind))]
    raise NotKept(f"the dtype {name} is not known")


def _dtype_of(bring: Bringing, parts: list[Any]) -> Any:
    pd = _pd()
    name, *rest = parts
    if name == "CategoricalDtype":
        categories = None if rest[0] is None else bring.operand(rest[0])
        return pd.CategoricalDtype(categories, ordered=rest[1])
    if name == "DatetimeTZDtype":
        return pd.DatetimeTZDtype(_unit(rest[0]), _zone_of(bring, rest[1]))
    if name == "StringDtype":
        return _string(rest[0], rest[1])
    if name == "ArrowDtype":
        return pd.ArrowDtype(arrow.read_type(bring, rest[0]))
    if name == "IntervalDtype":
        return pd.IntervalDtype(rest[0], rest[1])
    if name == "SparseDtype":
        return pd.SparseDtype(arrays.read(rest[0]), bring.operand(rest[1]))
    made = pd.api.types.pandas_dtype(bring.operand(rest[0]))
    if type(made).__name__ != name:
        raise ManifestRefused("a kept dtype is refused", cause="it is not the one it says")
    return made


def _string(storage: Any, missing: Any) -> Any:
    pd = _pd()
    if storage == "pyarrow_numpy":  # pandas 2's word for what pandas 3 calls str
        return pd.StringDtype("pyarrow_numpy")
    if storage not in ("python", "pyarrow"):
        raise ManifestRefused("a kept dtype is refused", cause="it is not known")
    if missing == "NA":
        return pd.StringDtype(storage)
    return pd.StringDtype(storage, na_value=float("nan"))


maker("pd.dtype")(lambda bring, node, _number: _dtype_of(bring, node[1:]))


# -- columns -----------------------------------------------------------------------------------------------------------


def _keep_column(keep: Keeping, value: Any, claim: Digest | None = None) -> list[Any]:
    """An extension array, by the arrays it is made of."""
    name = qualname_of_type(type(value))
    if name.startswith("ArrowString") or name == "ArrowExtensionArray":
        return ["pd.arrow", name, _written(keep, value.dtype), arrow.keep_chunks(keep, value._pa_array, claim)]
    if name == "NumpyExtensionArray":
        return ["pd.array", name, None, [keep.operand(value._ndarray)], None]
    if name.startswith("StringArray") or name == "Categorical" or name in _STEPS:
        steps = _frequency(keep, value._freq) if getattr(value, "_freq", None) is not None else None
        dtype = value.dtype
        kind = ["numpy", arrays.written(dtype)] if type(dtype).__module__.startswith("numpy") else _written(keep, dtype)
        held = keep.made(value._ndarray, lambda one, array: arrays.keep_array(one, array, cuts=True))
        return ["pd.array", name, kind, [held], steps]
    if name == "IntervalArray":
        return ["pd.array", name, _written(keep, value.dtype), keep.inside([value._left, value._right]), None]
    if name in _MASKED:
        return ["pd.array", name, _written(keep, value.dtype), keep.inside([value._data, value._mask]), None]
    if name == "SparseArray":
        places = value._sparse_index.to_int_index().indices
        kind_ = type(value._sparse_index).__name__
        parts = [*keep.inside([value._sparse_values, places]), len(value), kind_]
        return ["pd.array", name, _written(keep, value.dtype), parts, None]
    raise NotKept(f"the extension array {name_of(type(value))} is not known")


@maker("pd.arrow")
def _arrow(bring: Bringing, node: list[Any], _number: int) -> Any:
    pd = _pd()
    _, name, kind, raw = node
    held, dtype = arrow.chunks_of(bring, raw), _dtype_of(bring, kind)
    if name == "ArrowExtensionArray":
        return pd.arrays.ArrowExtensionArray(held)
    made = (
        dtype.construct_array_type()(held, dtype=dtype) if _takes_dtype(dtype) else dtype.construct_array_type()(held)
    )
    if not qualname_of_type(type(made)).startswith("ArrowString"):
        raise ManifestRefused("a kept column is refused", cause="it is not of the class it says")
    return made


def _takes_dtype(dtype: Any) -> bool:
    import inspect

    return "dtype" in inspect.signature(dtype.construct_array_type().__init__).parameters


@maker("pd.array")
def _column(bring: Bringing, node: list[Any], _number: int) -> Any:
    pd, np = _pd(), sys.modules["numpy"]
    _, name, kind, raw, steps = node
    if name == "SparseArray":
        values, places = bring.operand(raw[0]), bring.operand(raw[1])
        index, dtype = _sparse_index(raw[2], places, raw[3]), _dtype_of(bring, kind)
        if _checked(values).shape != (index.npoints,) or type(dtype).__name__ != "SparseDtype":
            raise ManifestRefused("a kept column is refused", cause="its items are not as many as their places")
        return pd.arrays.SparseArray._simple_new(values, index, dtype)
    parts = [bring.operand(one) for one in raw]
    if name == "NumpyExtensionArray":
        return pd.arrays.NumpyExtensionArray(_checked(parts[0]))
    dtype = arrays.read(kind[1]) if kind[0] == "numpy" else _dtype_of(bring, kind)
    if name == "Categorical":
        made = pd.Categorical.from_codes(_checked(parts[0]), dtype=dtype)
        return made._simple_new(parts[0], made.dtype) if made._ndarray.dtype == parts[0].dtype else made
    if name in _STEPS:
        held = _checked(parts[0])
        if name == "PeriodArray":
            return pd.arrays.PeriodArray(held.view("i8") if held.dtype != np.int64 else held, dtype=dtype)
        if held.dtype.kind not in "mM":
            raise ManifestRefused("a kept column is refused", cause="its times are none")
        kind_ = pd.arrays.DatetimeArray if name == "DatetimeArray" else pd.arrays.TimedeltaArray
        made = kind_._simple_new(held, dtype=dtype)
        frequency = _frequency_of(bring, steps)
        if frequency is not None:
            object.__getattribute__(made, "__dict__")["_freq"] = frequency
        return made
    if name == "IntervalArray":
        return pd.arrays.IntervalArray.from_arrays(*parts, closed=dtype.closed, copy=False)
    if name in _MASKED:
        return getattr(pd.arrays, name)(*map(_checked, parts), copy=False)
    if name.startswith("StringArray"):
        held = _checked(parts[0])
        if held.dtype.kind != "O":
            raise ManifestRefused("a kept column is refused", cause="its texts are none")
        kind_ = dtype.construct_array_type()
        if name != qualname_of_type(kind_):
            raise ManifestRefused("a kept column is refused", cause="it is not of the class it says")
        # Its items are still on their way, so that they are looked at when they are there.
        bring.later(lambda: _check_texts(held, dtype))
        empty = np.empty(0, object)
        return (kind_(empty, dtype=dtype) if _takes_dtype(dtype) else kind_(empty))._from_backing_data(held)
    raise ManifestRefused("a kept column is refused", cause="its class is not known")


def _check_texts(held: Any, dtype: Any) -> None:
    missing = dtype.na_value
    for one in held.reshape(-1).tolist():
        if type(one) is not str and one is not missing and not (type(one) is float and one != one):
            raise ManifestRefused("a kept column is refused", cause="its items are no texts")


def _checked(held: Any) -> Any:
    if type(held) is not sys.modules["numpy"].ndarray:
        raise ManifestRefused("a kept column is refused", cause="its items are in no array")
    return held


def _sparse_index(length: Any, places: Any, kind: Any) -> Any:
    from pandas._libs.sparse import IntIndex

    np = sys.modules["numpy"]
    found = _checked(places)
    if found.dtype != np.int32 or type(length) is not int or not 0 <= length < 2**31:
        raise ManifestRefused("a kept column is refused", cause="its places are none")
    made = IntIndex(length, found, check_integrity=True)
    return made.to_block_index() if kind == "BlockIndex" else made


# -- indexes -----------------------------------------------------------------------------------------------------------


def _keep_index(keep: Keeping, value: Any) -> list[Any]:
    state = object.__getattribute__(value, "__dict__")
    kind = type(value).__name__
    if kind == "MultiIndex":
        levels, codes = list(state["_levels"]), [code_of(one) for one in state["_codes"]]
        return ["pd.index", kind, keep.inside(levels), keep.inside(codes), keep.inside(list(state["_names"]))]
    name = keep.operand(state["_name"])
    if kind == "RangeIndex":
        steps = state["_range"]
        return ["pd.index", kind, name, [keep.operand(one) for one in (steps.start, steps.stop, steps.step)], None]
    refs = state.get("_references")
    return ["pd.index", kind, name, keep.operand(state["_data"]), None if refs is None else keep.operand(refs)]


def code_of(codes: Any) -> Any:
    """The codes of a level as the exact array they are."""
    np = sys.modules["numpy"]
    return codes if type(codes) is np.ndarray else np.ndarray.view(codes, np.ndarray)


@maker("pd.index")
def _index(bring: Bringing, node: list[Any], _number: int) -> Any:
    pd = _pd()
    kind = node[1]
    if kind not in _INDEXES:
        raise ManifestRefused("a kept index is refused", cause="its class is not known")
    if kind == "MultiIndex":
        levels, codes, names = (bring_all(bring, one) for one in node[2:5])
        return pd.MultiIndex(levels=levels, codes=codes, names=names)
    name = bring.operand(node[2])
    if kind == "RangeIndex":
        return pd.RangeIndex._simple_new(range(*bring_all(bring, node[3])), name=name)
    data = bring.operand(node[3])
    refs = None if node[4] is None else bring.operand(node[4])

    def make() -> Any:
        fitting = {"Index": data, "DatetimeIndex": "DatetimeArray", "TimedeltaIndex": "TimedeltaArray",
                   "PeriodIndex": "PeriodArray", "CategoricalIndex": "Categorical",
                   "IntervalIndex": "IntervalArray"}[kind]  # fmt: skip
        if kind == "Index":
            if getattr(data, "ndim", 0) != 1 or not (
                type(data) is sys.modules["numpy"].ndarray or derives(type(data), pd.api.extensions.ExtensionArray)
            ):
                raise ManifestRefused("a kept index is refused", cause="its items are in no array")
        elif qualname_of_type(type(data)) != fitting:
            raise ManifestRefused("a kept index is refused", cause="its items are not of its kind")
        return getattr(pd, kind)._simple_new(data, name, refs=refs)

    made = make()
    if refs is not None and hasattr(refs, "add_index_reference"):
        refs.add_index_reference(made)
    return made


def bring_all(bring: Bringing, raw: Any) -> list[Any]:
    """Operands, one by one."""
    return [bring.operand(one) for one in raw]


# -- frames ------------------------------------------------------------------------------------------------------------


@maker("pd.refs")
def _refs(_bring: Bringing, _node: list[Any], _number: int) -> Any:
    from pandas._libs.internals import BlockValuesRefs

    return BlockValuesRefs()


def _keep_blocks(keep: Keeping, value: Any) -> list[Any]:
    found = []
    columns, keep.columns = keep.columns, ()  # they are the variable's own, not those of a frame inside it
    for block in value._mgr.blocks:
        places = [int(place) for place in block.mgr_locs]
        claims = [columns[place] if place < len(columns) else None for place in places] if columns else []
        held = block.values
        if type(held) is sys.modules["numpy"].ndarray:
            plain = [digest if digest is not None and digest.startswith("array-1:") else None for digest in claims]
            operand = keep.made(held, functools.partial(_keep_numpy, columns=plain))
        else:
            operand = keep.made(held, functools.partial(_keep_extension, claim=claims[0] if claims else None))
        refs = getattr(block, "refs", None)
        found.append([places, operand, None if refs is None else keep.operand(refs)])
    return found


def _keep_numpy(keep: Keeping, held: Any, *, columns: list[Any]) -> list[Any]:
    return arrays.keep_array(keep, held, cuts=True, columns=columns)


def _keep_extension(keep: Keeping, held: Any, *, claim: Digest | None) -> list[Any]:
    if derives(type(held), _pd().api.extensions.ExtensionArray):
        return _keep_column(keep, held, claim)
    raise NotKept(f"a column of the type {name_of(type(held))}")


def _about(keep: Keeping, value: Any) -> list[Any]:
    hung = notes(value)
    attrs = hung.pop("_attrs", None)
    if hung:
        raise NotKept(f"attributes that pandas does not know were set on it ({', '.join(sorted(hung))[:100]})")
    return [None if attrs is None else keep.operand(attrs), bool(value._flags._allows_duplicate_labels)]


def _keep_frame(keep: Keeping, value: Any) -> list[Any]:
    names, index = value._mgr.axes
    blocks = _keep_blocks(keep, value)
    return ["pd.frame", *keep.inside([names, index]), blocks, *_about(keep, value)]


def _keep_series(keep: Keeping, value: Any) -> list[Any]:
    [index] = value._mgr.axes
    blocks = _keep_blocks(keep, value)
    node = ["pd.series", keep.operand(value._name), keep.operand(index), blocks, *_about(keep, value)]
    key, ref = object.__getattribute__(value, "__dict__").get("_cacher") or (None, None)
    frame = ref() if ref is not None else None
    if frame is not None and getattr(frame, "_item_cache", {}).get(key) is value:
        # pandas 2: the very column that its frame gives again, and that it changes with
        held = keep.operand(key)
        keep.afterwards(
            lambda: node.append([held, ["@", number]]) if (number := keep.number_of(frame)) is not None else None
        )
    return node


def _blocks(bring: Bringing, raw: Any, sides: list[int]) -> list[Any]:
    """Blocks whose shapes fit the axes, each place filled once."""
    from pandas._libs.internals import BlockPlacement
    from pandas.core.internals.blocks import new_block

    np = sys.modules["numpy"]
    found, filled = [], []
    for places, operand, refs in raw:
        held = bring.operand(operand)
        numpy = type(held) is np.ndarray
        many = held.ndim == 2
        if not numpy and not derives(type(held), _pd().api.extensions.ExtensionArray):
            raise ManifestRefused("a kept frame is refused", cause="a column of it is none")
        wanted = (sides[-1],) if not many else (len(places), sides[-1])
        count = len(places) if many else sides[0] if len(sides) == 1 else 1
        if (
            not all(type(place) is int and place >= 0 for place in places)
            or tuple(held.shape) != wanted or len(places) != count
            or (many != (len(sides) == 2) and (numpy or many))
        ):  # fmt: skip
            raise ManifestRefused("a kept frame is refused", cause="a column of it has another length")
        if numpy and held.dtype.kind == "M" and len(sides) == 2:
            held = _pd().arrays.DatetimeArray._simple_new(held, dtype=held.dtype)
        elif numpy and held.dtype.kind == "m" and len(sides) == 2:
            held = _pd().arrays.TimedeltaArray._simple_new(held, dtype=held.dtype)
        placement = BlockPlacement(slice(0, sides[0]) if len(sides) == 1 else np.asarray(places, np.intp))
        shared = None if refs is None else bring.operand(refs)
        if shared is None:
            found.append(new_block(held, placement, ndim=len(sides)))
        else:
            if type(shared).__name__ != "BlockValuesRefs":
                raise ManifestRefused("a kept frame is refused", cause="what it shares is no note of that")
            found.append(new_block(held, placement, ndim=len(sides), refs=shared))
        filled += places
    if len(sides) == 2 and sorted(filled) != list(range(sides[0])):
        raise ManifestRefused("a kept frame is refused", cause="its columns are not those of its names")
    return found


def _give(bring: Bringing, made: Any, attrs: Any, duplicates: Any) -> Any:
    if attrs is not None:
        held = bring.operand(attrs)
        if type(held) is not dict:
            raise ManifestRefused("a kept frame is refused", cause="its attrs are none")
        object.__setattr__(made, "_attrs", held)
    if duplicates is False:
        made._flags._allows_duplicate_labels = False
    return made


@maker("pd.frame")
def _frame(bring: Bringing, node: list[Any], _number: int) -> Any:
    from pandas.core.internals import BlockManager

    pd = _pd()
    _, names_, index_, raw, attrs, duplicates = node
    axes = [_an_index(bring.operand(names_)), _an_index(bring.operand(index_))]
    blocks = _blocks(bring, raw, [len(axes[0]), len(axes[1])])
    manager = BlockManager(tuple(blocks), axes, verify_integrity=True)
    return _give(bring, pd.DataFrame._from_mgr(manager, axes=manager.axes), attrs, duplicates)


@maker("pd.series")
def _series(bring: Bringing, node: list[Any], _number: int) -> Any:
    from pandas.core.internals import SingleBlockManager

    pd = _pd()
    _, name, index_, raw, attrs, duplicates, *cached = node
    index = _an_index(bring.operand(index_))
    [block] = _blocks(bring, raw, [len(index)])
    manager = SingleBlockManager(block, index, verify_integrity=True)
    made = pd.Series._from_mgr(manager, axes=manager.axes)
    object.__setattr__(made, "_name", bring.operand(name))
    if cached and hasattr(made, "_reset_cacher"):
        bring.later(lambda: _cache(made, *map(bring.operand, cached[0])))
    return _give(bring, made, attrs, duplicates)


def _cache(made: Any, key: Any, frame: Any) -> None:
    """Have a frame of pandas 2 give a column again as the very object, which it changes with."""
    if type(frame) is not _pd().DataFrame or not hashes_plainly(key):
        raise ManifestRefused("a kept frame is refused", cause="it is not the one that a column is of")
    frame._item_cache[key] = made
    made._set_as_cached(key, frame)


def _an_index(found: Any) -> Any:
    if not derives(type(found), _pd().Index):
        raise ManifestRefused("a kept frame is refused", cause="an axis of it is no index")
    return found
