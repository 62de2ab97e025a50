"""Instances: of the notebook's classes by their attributes, of known libraries' by name, of others sealed.

An instance is made without calling its class, and its attributes are set past anything the class defines. What keeps
state that Python cannot see is pickled, if it comes from a library whose pickles are known to be nothing but data, and
only under this machine's seal; arrays and frames inside are not: they stay what they are in the rest of the manifest.
"""

from __future__ import annotations

import enum
import io
import pickle
import sys
import types
from typing import Any, Final

from jupyter_mlops.fingerprints import instances as known
from jupyter_mlops.fingerprints.walk import (
    NoFingerprint,
    dict_of_type,
    loaded,
    module_of_type,
    mro_of,
    name_of,
    qualname_of_type,
)
from jupyter_mlops.values import definitions
from jupyter_mlops.values.bringing import Bringing, maker
from jupyter_mlops.values.keeping import KEEPERS, Keeper, Keeping
from jupyter_mlops.values.manifest import ManifestRefused, NotKept
from jupyter_mlops.values.plain import entries_of, keep_entries

_STATE: Final = ("__getstate__", "__setstate__")
_BARE: Final = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset)
_NEVER: Final = frozenset({
    "matplotlib", "IPython", "ipywidgets", "ipykernel", "socket", "ssl", "sqlite3", "sqlalchemy", "psycopg", "psycopg2",
    "pymongo", "redis", "requests", "httpx", "urllib3", "http", "multiprocessing", "concurrent", "asyncio", "threading",
    "subprocess", "dask", "distributed", "pyspark", "ray", "ibis", "duckdb", "weakref", "_thread", "io", "_io",
    "tempfile", "selectors", "queue", "logging", "fsspec", "s3fs", "boto3", "botocore", "zmq", "tornado", "wrapt",
    "unittest", "openai", "anthropic", "paramiko",
})  # fmt: skip
"""Libraries whose objects stand for something outside this process, or for a place on the page."""
_PICKLED: Final = frozenset({
    "lightgbm", "xgboost", "catboost", "statsmodels", "patsy", "networkx", "sympy", "shapely", "scipy", "dateutil",
    "pytz", "numpy", "sklearn", "datetime", "collections", "decimal", "array",
})  # fmt: skip
"""Libraries whose pickles are data and calls of their own constructors."""


def keeper_for(kind: type) -> Keeper:
    """Who writes an instance of an exact type that is in no table.

    Raises
    ------
    NotKept
        Nobody does.
    """
    if type(kind) is enum.EnumType:
        return _keep_member
    if type in mro_of(kind):
        return definitions.keep_class
    if module_of_type(kind) == "typing":
        return definitions.keep_word
    module = module_of_type(kind)
    root = module.partition(".")[0] if type(module) is str else ""
    pickled = root in _PICKLED and loaded(module, qualname_of_type(kind)) is kind
    if root in _NEVER:
        raise NotKept(f"a {name_of(kind)} stands for something outside of the notebook's variables")
    try:
        known.handler_for(kind)
    except NoFingerprint as stop:
        if pickled:
            return keep_pickle
        raise NotKept(stop.reason) from None
    if pickled and any(way in dict_of_type(base) for base in mro_of(kind)[:-1] for way in _STATE):
        return keep_pickle  # what it says its state is, is not what it holds
    return _keep_instance


# -- members of enumerations -------------------------------------------------------------------------------------------


def _keep_member(keep: Keeping, value: enum.Enum) -> list[Any]:
    state = object.__getattribute__(value, "__dict__")
    kind, name = type(value), state.get("_name_")
    if type(name) is not str or dict_of_type(kind)["_member_map_"].get(name) is not value:
        number = state.get("_value_")
        if type(number) is not int or enum.Flag not in mro_of(kind) or definitions.is_users(keep, kind):
            raise NotKept(f"a member that {name_of(kind)} does not list")
        keep.sealing = True
        return ["of.flag", keep.operand(kind), keep.operand(number)]
    return ["of.member", keep.operand(kind), name]


@maker("of.member")
def _member(bring: Bringing, node: list[Any], _number: int) -> Any:
    kind = bring.operand(node[1])
    found = dict_of_type(kind)["_member_map_"].get(node[2]) if type(kind) is enum.EnumType else None
    if type(found) is not kind:
        raise ManifestRefused("a kept member is refused", cause="its enumeration has none of that name")
    return found


@maker("of.flag")
def _flag(bring: Bringing, node: list[Any], _number: int) -> Any:
    kind, value = bring.operand(node[1]), bring.operand(node[2])
    if type(kind) is not enum.EnumType or not issubclass(kind, enum.Flag) or type(value) is not int:
        raise ManifestRefused("a kept flag is refused", cause="its class is none of flags")
    bring.sealed()
    return kind(value)


# -- instances ---------------------------------------------------------------------------------------------------------


def _keep_instance(keep: Keeping, value: Any) -> list[Any]:
    kind = type(value)
    base = next((one for one in mro_of(kind) if one in _BARE), None)
    held = None
    if base is not None:
        bare = known.BARE[base](value)
        held = keep_entries(keep, list(bare.items())) if base is dict else [
            keep.items(list(bare)) if base in (tuple, list) else keep.items([keep_key(keep, one) for one in bare])
            if base in (set, frozenset) else keep.operand(bare)
        ]  # fmt: skip
    slots: list[list[Any]] = []
    for owner in mro_of(kind):
        for name, place in dict_of_type(owner).items():
            if type(place) is types.MemberDescriptorType and definitions.is_users(keep, owner):
                try:
                    slots.append([keep.operand(owner), name, keep.named(name, place.__get__(value, kind))])
                except AttributeError:  # a slot that is not filled
                    continue
    try:
        state = object.__getattribute__(value, "__dict__")
    except AttributeError:  # it has only slots
        state = {}
    if not definitions.is_users(keep, kind) and not trusted(kind):
        keep.sealing = True
    return [
        "of.instance",
        keep.operand(kind),
        base.__name__ if base else None,
        held,
        slots,
        keep_entries(keep, list(state.items())),
    ]


def keep_key(keep: Keeping, value: Any) -> Any:
    """A value that is looked up by its hash."""
    keep.key(value)
    return value


def trusted(kind: type) -> bool:
    """Whether instances of an installed class may be made because anybody's manifest says so."""
    from jupyter_mlops.values import estimators

    module = module_of_type(kind)
    if type(module) is not str or loaded(module, qualname_of_type(kind)) is not kind:
        return False
    if module.startswith("torch.nn.modules."):
        return True
    # Beside scikit-learn's own classes these are parts of its models.
    return "sklearn" in sys.modules and estimators.trusted(kind)


@maker("of.instance")
def _instance(bring: Bringing, node: list[Any], number: int) -> Any:
    _, kind_, base_, held, slots, state = node
    kind = bring.operand(kind_)
    if not definitions.isinstance_of_type(kind):
        raise ManifestRefused("a kept object is refused", cause="its class is none")
    if not trusted(kind):
        bring.sealed()
    known.handler_for(kind)
    base: Any = next((one for one in mro_of(kind) if one in _BARE), None)
    if (base.__name__ if base else None) != base_:
        raise ManifestRefused("a kept object is refused", cause="its class is another by now")
    if base is None:
        made = object.__new__(kind)
    elif base in (list, dict, set):
        made = base.__new__(kind)
    else:
        content = (
            bring.items(held[0])
            if base is tuple
            else bring.keys(held[0])
            if base is frozenset
            else bring.operand(held[0])
        )
        made = base.__new__(kind, content)
    bring.early(number, made)

    def fill() -> None:
        if base is list:
            list.extend(made, bring.items(held[0]))
        elif base is set:
            set.update(made, bring.keys(held[0]))
        elif base is dict:
            dict.update(made, entries_of(bring, held, 0))
        for owner_, name, raw in slots:
            place = dict_of_type(bring.operand(owner_)).get(name)
            if type(place) is not types.MemberDescriptorType:
                raise ManifestRefused("a kept object is refused", cause="its class has another layout by now")
            place.__set__(made, bring.operand(raw))
        entries = list(entries_of(bring, state, 0))
        if entries:
            object.__getattribute__(made, "__dict__").update(entries)

    bring.later(fill)
    return made


# -- pickles, sealed ---------------------------------------------------------------------------------------------------

_INSIDE: Final = ("ndarray", "DataFrame", "Series", "Table", "Tensor")


class _Pickler(pickle.Pickler):
    """Takes builtin values and what the libraries of `_PICKLED` make; arrays and frames stay nodes."""

    def __init__(self, keep: Keeping, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.keep = keep
        self.outside: list[Any] = []

    def persistent_id(self, obj: Any) -> Any:
        if type(obj).__name__ in _INSIDE and id(type(obj)) in KEEPERS:
            self.outside.append(self.keep.operand(obj))
            return len(self.outside) - 1
        return None

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is types.FunctionType or definitions.isinstance_of_type(obj) or kind is types.BuiltinFunctionType:
            module = obj.__module__
        else:
            module = module_of_type(kind)
        root = module.partition(".")[0] if type(module) is str else ""
        if root not in _PICKLED and root not in ("builtins", "copyreg", "_codecs", "operator", "functools"):
            raise NotKept(f"it holds a {name_of(kind)}")
        return NotImplemented


def keep_pickle(keep: Keeping, value: Any) -> list[Any]:
    """Write a value as a pickle, under this machine's seal."""
    sink = io.BytesIO()
    pickler = _Pickler(keep, sink)
    try:
        pickler.dump(value)
    except NotKept:
        raise
    except Exception as error:  # a class may refuse in any way to be pickled
        raise NotKept(f"a {name_of(type(value))} that cannot be pickled ({type(error).__name__})") from error
    keep.swallowed([one for _, one in pickler.memo.copy().values() if one is not value])
    return ["of.pickle", keep.program(sink.getvalue()), pickler.outside]


class Unpickler(pickle.Unpickler):
    """Reads a pickle that `keep_pickle` wrote."""

    def __init__(self, bring: Bringing, data: bytes, outside: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self.bring, self.outside = bring, outside

    def persistent_load(self, number: Any) -> Any:
        return self.bring.operand(self.outside[number])


@maker("of.pickle")
def _pickle(bring: Bringing, node: list[Any], _number: int) -> Any:
    data = bring.program(node[1])
    return Unpickler(bring, data, node[2]).load()
