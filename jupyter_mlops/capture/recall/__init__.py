"""A cell recalled instead of run: what an earlier run of it did is put back, where all it depended on is what it was.

An engine asks before each cell (`Recall.consult`) and has the cell kept when it has run (`Recall.keep`). What a cell
depends on is known in two steps. Before it runs: its code, the versions and the layout of the variables it reads with
all that shares with them, the environment; their digest is the *key* under which earlier runs are found. After it ran:
the files it read and looked for, modules, settings, random generators, variables of the process; an earlier run is
recalled only where each of these is what it was then.

Nothing is guessed. What cannot be put back (an answer from a network, the time, a value of no known format, what a
setter of a library did) has the cell run again, and the reason is said. What an entry says is believed only where this
machine sealed it: it writes files and runs code.

* `entries` is what is kept of a cell, and what both sides ask the kernel for.
* `asking` is asked before each cell; `fitting` holds what a cell depended on against what is.
* `keeping` keeps what a cell did, or says why that cannot be put back.
"""

from __future__ import annotations

from jupyter_mlops.capture.recall.asking import Recall, recalls
from jupyter_mlops.capture.recall.entries import Again, Entry

__all__ = ["Again", "Entry", "Recall", "recalls"]
