"""Prints the digests of fixed values; `fingerprints-golden.json` holds what they have to be.

They differ from it only if a tag's pre-image changed, which needs a new tag: stores of earlier releases name values
by these digests. Run under Python 3.11 to 3.13 and pandas 2.2 and 3, they are the same.
"""

import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa

from jupyter_mlops.fingerprints import fingerprint

VALUES = {
    "none": None, "int": 2**70, "float": -0.0, "text": "žluť\ud800", "list": [1, "a", 2.5, None], "ints": list(range(20)),
    "dict": {"b": 1, "a": [2]}, "set": {"x", "y", "z"}, "datetime": dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
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
}  # fmt: skip
print(json.dumps({name: fingerprint(value).digest or fingerprint(value).why for name, value in VALUES.items()}, indent=1))
