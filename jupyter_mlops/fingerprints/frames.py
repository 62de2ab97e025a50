"""pandas' frames, series, indexes, extension arrays and scalars.

Read from the blocks and arrays behind the public face, so that nothing is cached on the user's frame. Columns count by
name, dtype, order and items; the index by its items and names. ``attrs`` count where there are any; flags, blocks and
storage are not content.
"""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any, Final

from jupyter_mlops.errors import late
from jupyter_mlops.fingerprints import arrays, arrow
from jupyter_mlops.fingerprints.sharing import notes
from jupyter_mlops.fingerprints.walk import (
    Handler,
    Node,
    NoFingerprint,
    Walk,
    begin,
    count,
    derives,
    finish,
    loaded,
    module_of_type,
    name_of,
    qualname_of_type,
    seal,
    text,
)  # fmt: skip

TAG: Final = b"frame-1"
NOTED: Final = b"frame-2"


def _pd() -> Any:
    return sys.modules["pandas"]


def handler_for(kind: type, module: str, qualname: str) -> Handler | None:
    """The handler for one of pandas' own types; its subclasses elsewhere are unknown."""
    if module.partition(".")[0] != "pandas":
        return None
    pd = _pd()
    table = {
        pd.DataFrame: _frame, pd.Series: _series, pd.Timestamp: _moment, pd.Timedelta: _moment, pd.Period: _period,
        pd.Interval: _interval, type(pd.NA): _named(b"NA"), type(pd.NaT): _named(b"NaT"),
    }  # fmt: skip
    if kind in table:
        return table[kind]
    if pd.Index in kind.__mro__:
        return _index_alone if loaded("pandas", qualname) is kind else None
    if loaded(module, qualname) is not kind:
        return None
    if module == "pandas._libs.tslibs.offsets":
        return _offset
    if pd.api.extensions.ExtensionDtype in kind.__mro__:
        return lambda walk, value: seal(TAG, b"dtype", _dtype(walk, value))
    if pd.api.extensions.ExtensionArray in kind.__mro__ and qualname in _ARRAYS:
        return lambda walk, value: column(walk, value)
    return None


def _named(kind: bytes) -> Handler:
    return lambda _walk, _value: seal(TAG, kind)


def _moment(walk: Walk, value: Any) -> Node:
    zone = getattr(value, "tzinfo", None)
    return seal(
        TAG, type(value).__name__.lower().encode(), walk.item(int(value._value)), text(value.unit),
        b"N" if zone is None else text(_zone(zone)), count(getattr(value, "fold", 0)),
    )  # fmt: skip


def _period(walk: Walk, value: Any) -> Node:
    return seal(TAG, b"period", walk.item(int(value.ordinal)), text(value.freqstr))


def _offset(walk: Walk, value: Any) -> Node:
    return seal(
        TAG, b"offset", text(type(value).__name__), walk.item(int(value.n)), walk.item(bool(value.normalize)),
        walk.at(".kwds", dict(value.kwds)),
    )  # fmt: skip


def _interval(walk: Walk, value: Any) -> Node:
    return seal(TAG, b"interval", walk.item(value.left), walk.item(value.right), text(value.closed))


def _zone(zone: Any) -> str:
    """A zone's name, the same from zoneinfo and from pytz; only of zones whose class is known to run nobody's code."""
    kind = type(zone)
    if kind is dt.timezone or name_of(kind) == "zoneinfo.ZoneInfo" or kind.__module__.partition(".")[0] == "pytz":
        return str(zone)
    if name_of(kind) == "dateutil.tz.tz.tzutc":
        return "UTC"
    raise NoFingerprint(f"a time zone of the type {name_of(kind)}")


# -- frames ------------------------------------------------------------------------------------------------------------


def column_arrays(value: Any) -> list[Any]:
    """The columns' arrays in order, past the frame's caches."""
    found: list[Any] = [None] * value.shape[1]
    for block in value._mgr.blocks:
        inner = block.values
        many = getattr(inner, "ndim", 1) == 2
        for row, place in enumerate(block.mgr_locs):
            found[place] = inner[row] if many else inner
    return found


def _frame(walk: Walk, value: Any) -> Node:
    names, index = value._mgr.axes
    height = len(index)
    hasher = begin(walk, TAG, b"dataframe")
    hasher.update(count(height) + count(len(names)))
    hasher.update(_at(".index", walk, index_node, index).inline() + _at(".columns", walk, _heading, names).inline())
    told = []
    shown = labels(names)
    for label, one in zip(shown, column_arrays(value), strict=True):
        node = _at(f"[{label}]", walk, column, one)
        hasher.update(node.inline())
        told.append({"name": label, "dtype": str(one.dtype), "digest": node.digest()})
    if walk.top:
        walk.facts = {
            "schema": {"columns": told, "index": _index_schema(index)}, "shape": [height, len(names)],
            "layout": {"index": type(index).__name__, "blocks": len(value._mgr.blocks)},
        }  # fmt: skip
    return _noted(walk, finish(TAG, hasher), value)


def _noted(walk: Walk, node: Node, value: Any) -> Node:
    """A table with what was hung on it by hand, if anything was: other cells may read it there."""
    hung = {key: one for key, one in notes(value).items() if key != "_attrs" or one}
    return seal(NOTED, b"noted", node.inline(), walk.at(".attrs", hung)) if hung else node


def _heading(walk: Walk, names: Any) -> Node:
    """The node of the columns' labels. Labels of text are texts, whatever dtype this pandas keeps them in."""
    data = names.__dict__.get("_data")
    if data is None or str(data.dtype) not in ("object", "str"):
        return index_node(walk, names)
    held = data.tolist() if type(data).__name__ == "ndarray" else list(data)
    return seal(TAG, b"labels", walk.at(".name", names.__dict__["_name"]), walk.item(held))


def _at(place: str, walk: Walk, write: Any, value: Any) -> Node:
    try:
        return write(walk, value)  # type: ignore[no-any-return]
    except NoFingerprint as stop:
        stop.path.append(place)
        raise


def labels(names: Any) -> list[str]:
    """The columns' names as told in facts: texts and numbers; anything else by its place."""
    if "_data" not in names.__dict__:
        return (
            [str(one) for one in names._range] if "_range" in names.__dict__ else [f"#{n}" for n in range(len(names))]
        )
    return [
        str(one)[:200] if type(one) in (str, int, float, bool) else f"#{place}"
        for place, one in enumerate(names._data.tolist())
    ]


def _index_schema(index: Any) -> dict[str, Any]:
    names = index._names if "_names" in index.__dict__ else [index._name]
    return {"names": [one if type(one) in (str, int) else None for one in names], "dtype": str(index.dtype)}


def _series(walk: Walk, value: Any) -> Node:
    block = value._mgr.blocks[0].values
    index = value._mgr.axes[0]
    node = column(walk, block)
    if walk.top:
        walk.facts = {
            "schema": {"dtype": str(block.dtype), "index": _index_schema(index)}, "shape": [len(index)],
            "layout": {"index": type(index).__name__},
        }  # fmt: skip
        if type(value._name) in (str, int):
            walk.facts["schema"]["name"] = value._name
    name, rows = walk.at(".name", value._name), _at(".index", walk, index_node, index).inline()
    return _noted(walk, seal(TAG, b"series", name, node.inline(), rows), value)


# -- indexes -----------------------------------------------------------------------------------------------------------


def _index_alone(walk: Walk, value: Any) -> Node:
    if walk.top:
        walk.facts = {"schema": _index_schema(value), "shape": [len(value)], "layout": {"index": type(value).__name__}}
    return index_node(walk, value)


def index_node(walk: Walk, value: Any) -> Node:
    """The node of an index: names and items. Steps of 64-bit integers are one index, stored as a range or not."""
    state = value.__dict__
    if "_levels" in state:
        parts = [walk.at(".names", list(state["_names"])), count(len(value))]
        for level, codes in zip(state["_levels"], state["_codes"], strict=True):
            # codes count into a level whose order and leftovers are layout: the items themselves are written
            parts.append(column(walk, level.take(codes) if not (codes < 0).any() else _taken(level, codes)).inline())
        return seal(TAG, b"multiindex", *parts)
    name = walk.at(".name", state["_name"])
    if "_range" in state:
        steps = state["_range"]
        return _range(name, steps.start, len(steps), steps.step)
    data = state["_data"]
    if str(data.dtype) == "int64":
        steps = _steps(data)
        if steps is not None:
            return _range(name, *steps)
    return seal(TAG, b"index", name, column(walk, data).inline())


def _range(name: bytes, start: int, length: int, step: int) -> Node:
    if length < 2:
        start, step = (start if length else 0), 1
    return seal(TAG, b"range", name, b"%d,%d,%d;" % (start, length, step))


def _steps(data: Any) -> tuple[int, int, int] | None:
    np = sys.modules["numpy"]
    size = len(data)
    if size < 2:
        return (int(data[0]), 1, 1) if size else (0, 0, 1)
    first, step = int(data[0]), int(data[1]) - int(data[0])
    if not step or int(data[-1]) != first + step * (size - 1):
        return None
    for start in range(0, size - 1, 1 << 20):
        if not (np.diff(data[start : start + (1 << 20) + 1]) == step).all():
            return None
    return first, size, step


def _taken(level: Any, codes: Any) -> Any:
    return level.take(codes, allow_fill=True, fill_value=level._na_value)


# -- columns -----------------------------------------------------------------------------------------------------------

_TEXTS: Final = 1 << 20
"""Texts turned into Arrow memory between two looks at the budget."""
_ARRAYS: Final = {
    "Categorical", "DatetimeArray", "TimedeltaArray", "PeriodArray", "IntervalArray", "IntegerArray", "FloatingArray",
    "BooleanArray", "SparseArray", "NumpyExtensionArray", "StringArray", "ArrowStringArray", "ArrowExtensionArray",
    "ArrowStringArrayNumpySemantics", "StringArrayNumpySemantics",
}  # fmt: skip


def _dtype(walk: Walk, kind: Any) -> bytes:
    name = type(kind).__name__
    if name == "StringDtype":
        return text(_string(kind))
    if name == "CategoricalDtype":
        categories = b"N" if kind.categories is None else index_node(walk, kind.categories).inline()
        return text("category") + categories + (b"T" if kind.ordered else b"F")
    if name == "DatetimeTZDtype":
        return text(f"datetime64[{kind.unit}, {_zone(kind.tz)}]")
    return text(str(kind))


def _string(kind: Any) -> str:
    """``str`` where a missing text is NaN, ``string`` where it is NA; how it is stored is layout."""
    missing = getattr(kind, "na_value", None)
    return "str" if type(missing) is float or kind.storage == "pyarrow_numpy" else "string"


def column(walk: Walk, value: Any) -> Node:
    """The node of a column's array, or of an index's."""
    pd = _pd()
    if derives(type(value), pd.Index):
        state = value.__dict__
        np = sys.modules["numpy"]
        value = (
            np.arange(len(value)) * state["_range"].step + state["_range"].start
            if "_range" in state
            else state["_data"]
        )
    name = qualname_of_type(type(value))
    if type(value) is sys.modules["numpy"].ndarray:
        return arrays.array(walk, value)
    if name not in _ARRAYS or not _of_pandas(type(value)):
        raise NoFingerprint(f"the extension array {name_of(type(value))} is not known")
    if name == "NumpyExtensionArray":
        return arrays.array(walk, value._ndarray)
    kind = value.dtype
    if name.startswith("ArrowString") or name == "ArrowExtensionArray":
        held = value._pa_array
        label = _string(kind) if name.startswith("ArrowString") else str(kind)
        return arrow.column(walk, arrow.chunks(held), held.type, label)
    if name.startswith("StringArray"):
        return _objects_as_texts(walk, value._ndarray, _string(kind))
    hasher = begin(walk, TAG, b"column")
    hasher.update(_dtype(walk, kind) + count(len(value)))
    for part in _parts(value, name):
        hasher.update(column(walk, part).inline())
    return finish(TAG, hasher)


def _of_pandas(kind: type) -> bool:
    """Whether a class is the one that pandas keeps under the name the class gives itself."""
    module = module_of_type(kind)
    known = type(module) is str and module.partition(".")[0] == "pandas"
    return known and loaded(module, qualname_of_type(kind)) is kind


def _parts(value: Any, name: str) -> list[Any]:
    np = sys.modules["numpy"]
    if name in ("Categorical", "DatetimeArray", "TimedeltaArray", "PeriodArray"):
        return [value._ndarray]
    if name == "IntervalArray":
        return [value._left, value._right]
    if name == "SparseArray":
        index = value._sparse_index.to_int_index()
        fill = np.empty(1, object)
        fill[0] = value.fill_value
        return [np.asarray(index.indices, np.int64), value._sparse_values, fill]
    data, mask = value._data, value._mask
    if mask.any():  # what lies under a missing item is not content
        data = data.copy()
        data[mask] = 0
    return [data, np.ascontiguousarray(mask)]


def _objects_as_texts(walk: Walk, held: Any, label: str) -> Node:
    """Texts held as Python objects, written as those held in Arrow memory are."""
    pa = late("pyarrow")
    chunks = []
    for start in range(0, len(held), _TEXTS):
        walk.budget.check()
        found = [one if type(one) is str else None for one in held[start : start + _TEXTS].tolist()]
        chunks.append(pa.array(found, pa.large_string()))
    return arrow.column(walk, chunks, pa.large_string(), label)
