"""Prints the digests of fixed values; `fingerprints-golden.json` holds what they have to be.

They differ from it only if a tag's pre-image changed, which needs a new tag: stores of earlier releases name values
by these digests. Run under Python 3.11 to 3.13 and pandas 2.2 and 3, they are the same.
"""

import collections
import dataclasses
import datetime as dt
import enum
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse

from jupyter_mlops.fingerprints import fingerprint

Point = collections.namedtuple("Point", "x y")


class Metres(float):
    pass


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Case:
    a: int
    b: tuple[int, ...] = (1, 2)


def area(width: float, height: float = 2.0) -> float:
    return Metres(width * height)


VALUES = {
    "none": None, "int": 2**70, "float": -0.0, "text": "žluť\ud800", "list": [1, "a", 2.5, None],
    "ints": list(range(20)), "dict": {"b": 1, "a": [2]}, "set": {"x", "y", "z"},
    "datetime": dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
    "decimal": Decimal("1.50"), "array": np.arange(6, dtype="f8").reshape(2, 3), "strings": np.array(["a", "bc"]),
    "objects": np.array(["a", None, 3], dtype=object),
    "record": np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
    "frame": pd.DataFrame({
        "n": np.array([1, 2], "int64"), "s": pd.array(["x", None], dtype="string"),
        "t": pd.to_datetime(["2020", "2021"]).tz_localize("Europe/Berlin").as_unit("ns"),
        "c": pd.Categorical([1, 2], ordered=True), "I": pd.array([1, None], dtype="Int64"),
        "p": pd.period_range("2020", periods=2, freq="D"), "v": pd.interval_range(0, 2),
    }).set_index(["n", "I"]),
    "table": pa.table({"a": [1, None], "s": ["x", "yy"], "l": [[1], None]}),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), "sparse": scipy.sparse.csr_array(np.eye(3)),
    "namedtuple": Point(1, 2), "subclass": Metres(1.5), "enum": Colour.RED, "enumclass": Colour, "dataclass": Case(1),
    "function": area, "alias": dict[str, int | None], "offset": pd.offsets.Day(2),
    "timestamp": pd.Timestamp("2020-01-02").as_unit("ns"),
}  # fmt: skip
print(
    json.dumps({name: fingerprint(value).digest or fingerprint(value).why for name, value in VALUES.items()}, indent=1)
)
