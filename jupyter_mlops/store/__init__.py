"""Where facts are kept: objects, journals and refs in one folder, and the questions that can be put to them.

*Objects* are bytes named by their digest, written once and atomically, and verified whenever they are read. *Journals*
are the records, one file per writer (`journal`). *Refs* are names: each a folder of numbered moves, every move a line
in a file of its own that is created exclusively, so that of two who race one loses and is told. The files are the
truth; questions are answered through the index, which can be deleted at any time (`index`).

* `folder` opens the store, or makes it, and is the one door to its parts.
* `questions` reads lines, and puts cell runs and runs together from them.
* `refs` reads and makes the moves of refs.
* `upkeep` checks the whole, sets damage aside, and erases.

The form on disk is described for strangers in ``docs/store-format.md``.
"""

from __future__ import annotations

from jupyter_mlops.journal import JournalUnavailable, StoreReplaced
from jupyter_mlops.objects import ObjectDamaged, ObjectMissing
from jupyter_mlops.store.folder import Store, StoreFormat, StoreMissing
from jupyter_mlops.store.questions import AmbiguousName, NotFound
from jupyter_mlops.store.refs import Move, RefConflict, RefInvalid
from jupyter_mlops.store.upkeep import SEEN, Erasure, Problem

__all__ = [
    "SEEN", "AmbiguousName", "Erasure", "JournalUnavailable", "Move", "NotFound", "ObjectDamaged", "ObjectMissing",
    "Problem", "RefConflict", "RefInvalid", "Store", "StoreFormat", "StoreMissing", "StoreReplaced",
]  # fmt: skip
