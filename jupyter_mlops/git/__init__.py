"""The state of the code around a notebook: commit, branch, remote, what was not committed, local modules by source.

A repository is read as untrusted data. Its own configuration can name programs, for file-system monitors, hooks,
filters, diffs, transports and credentials; the one function here that starts ``git`` switches every one of them off,
also those whose names only the repository knows (filters), and gives it fixed words only. Working files are read by
ourselves: regular files below the root, never through a link, redacted and capped before they are kept.

The ``git`` program is asked in a background thread. Between two cells a few ``stat`` calls tell whether HEAD, the
index or the branch moved; files that changed without either are noticed by the background within seconds.

* `program` is the one place where ``git`` is started.
* `repository` reads a repository: its state, and the files of a commit.
* `modules` finds the project's own modules among those that are loaded.
* `observing` keeps all of that current between two cells.
"""

from __future__ import annotations

from jupyter_mlops.git.modules import local_modules
from jupyter_mlops.git.observing import Observer
from jupyter_mlops.git.program import GitFailed
from jupyter_mlops.git.repository import FILE_CAP, Repository, TreeFile, holds_credentials, masked_source

__all__ = [
    "FILE_CAP",
    "GitFailed",
    "Observer",
    "Repository",
    "TreeFile",
    "holds_credentials",
    "local_modules",
    "masked_source",
]
