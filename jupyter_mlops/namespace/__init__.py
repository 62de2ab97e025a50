"""The user's variables between two cells: what a cell read, in which version, and what it changed.

Nothing is put in the way of the user's code: the names are compared before and after a cell, by identity and, where the
cell could have got at an object, by content. A cell's outputs are

- the names it binds, as far as its text says (`lineage.names_in`);
- the names whose object is another one now, or whose old object died (weak references);
- the names whose *content* changed, among all that share an object with a name the cell mentions: two views of one
  array, a list inside a dict, a default argument of a function the cell calls.

A content that changed though no recorded cell could have done it is a gap, never a guess.

No reference to a value is kept: between cells a variable is its identity, a weak reference where its type allows one,
its fingerprint, and the identities it shares. An identity alone proves nothing, since Python uses addresses again: what
takes no weak reference is fingerprinted again when it is read. What takes longer than the budget is fingerprinted in a
background thread while the kernel is idle, and dropped as a gap when the next cell starts before it is done.
"""

from __future__ import annotations

from jupyter_mlops.namespace.observe import Before, Delta, Namespace, Seen, Settled
from jupyter_mlops.namespace.reach import Reach, codes, reach

__all__ = ["Before", "Delta", "Namespace", "Reach", "Seen", "Settled", "codes", "reach"]
