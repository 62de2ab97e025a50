"""What a cell reads and writes, read off its text; and the graph that cell runs make when their edges are walked back.

`names` says what a cell reads and writes; `reader` walks its syntax tree in the order in which Python would run it.
What they have to know of magics, of what seeds generators and of blocks that are cut short is in `magics`, `seeds` and
`flow`. `volatile` reads what in a cell depends on the time, the network, the environment. `graph` knows records only
through the look-ups it is given, and walks ``after`` and ``made`` back; `staleness` holds a notebook as it stands
against its records; `slices` finds the cell runs that make something, and takes cells apart by `statements`. All are
pure: nothing here touches a file, a kernel or a user's value.
"""

from __future__ import annotations

from jupyter_mlops.lineage.graph import Edge, Graph, Node, ancestors, lineage
from jupyter_mlops.lineage.names import NOTHING, CellNames, names_in, names_until

__all__ = ["NOTHING", "CellNames", "Edge", "Graph", "Node", "ancestors", "lineage", "names_in", "names_until"]
