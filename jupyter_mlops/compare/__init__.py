"""Two facts of one kind side by side: what is different is a value, and false where nothing is.

* `differences` says what such a value is made of.
* `recorded` compares cell runs, runs, environments and model versions as they are on record, and data by its recorded
  facts: schema, shape, a digest per column.
* `contents` compares data row by row, and values part by part, where both are at hand.

What could not be compared is named in the answer, and is no difference. Nothing here knows how an answer is shown.
"""

from __future__ import annotations

from jupyter_mlops.compare.contents import read_table, tables, values
from jupyter_mlops.compare.differences import SAMPLED, CellChange, Change, Difference, TableDifference, is_digest
from jupyter_mlops.compare.recorded import artifacts, cell_runs, code_states, columns_of, models, records, runs

__all__ = [
    "SAMPLED",
    "CellChange",
    "Change",
    "Difference",
    "TableDifference",
    "artifacts",
    "cell_runs",
    "code_states",
    "columns_of",
    "is_digest",
    "models",
    "read_table",
    "records",
    "runs",
    "tables",
    "values",
]
