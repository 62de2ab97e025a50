"""What the pages of JupyterLab can have done: with models, and with what was run.

Policy and gates are the registry's own, asked with the settings as they stand on the disk at that moment: there is no
way around them here. Every method is one act, done by a named person, and answered with a struct.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from jupyter_mlops import views
from jupyter_mlops.compare import is_digest
from jupyter_mlops.errors import WrongUse
from jupyter_mlops.project import Project
from jupyter_mlops.records import Artifact, Digest, Gap, Transition, short
from jupyter_mlops.registry import LocalRegistry
from jupyter_mlops.reproduce.checkout import Placed
from jupyter_mlops.server import sent
from jupyter_mlops.server.handling import Projects
from jupyter_mlops.server.models import Answered, answered, results


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What gates answered of a version; it is on record."""

    name: str
    version: int
    alias: str
    passed: bool
    checks: list[Answered]


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points now, and where it did before; who moved it, and what was asked."""

    name: str
    alias: str
    version: int
    old: int | None
    by: str
    checks: list[Answered]


class Approved(msgspec.Struct, frozen=True, kw_only=True):
    """An approval that is on record now, or was taken back."""

    name: str
    version: int
    by: str
    withdrawn: bool


class CheckedOut(msgspec.Struct, frozen=True, kw_only=True):
    """What was written into a folder; paths as the server's contents name them.

    Attributes
    ----------
    placed
        The files, below the folder.
    missing
        Files that the record names and does not hold; in `why` the reason.
    """

    folder: str
    notebook: str
    commit: str
    placed: list[Placed]
    missing: list[Artifact]
    gaps: list[Gap]


class Sliced(msgspec.Struct, frozen=True, kw_only=True):
    """A notebook that was written; its path as the server's contents name it.

    Attributes
    ----------
    cells
        How many cells of code it has, of the `of` cell runs that led there.
    files
        What it reads.
    unseeded
        Why it need not give the same again.
    """

    notebook: str
    makes: str
    cells: int
    files: list[str]
    unseeded: list[Gap]


ACTED: Final = (Checked, Moved, Approved, CheckedOut, Sliced)
"""What the pages' types are made of, besides the answers."""


class Acting:
    """Acts of one person in one project.

    Parameters
    ----------
    projects
        The projects under the server's folder.
    path
        A notebook or folder in the one that is meant.
    who
        The person's name; empty where the server knows none, which is then whoever the server runs as.
    tell
        Takes what is to be told to whoever listens and is not in the record (`telling`): a schema's name, and the
        facts.
    """

    def __init__(self, projects: Projects, path: str, who: str, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self.reading = reading = projects.reading(path)
        self.projects = projects
        self.project = Project(reading.project.root, store=reading.store)  # with the settings as they are now
        self.by = who or self.project.user
        self.registry = LocalRegistry(self.project.store, user=self.by, redactor=self.project.redactor())
        self._root, self._told = reading.root, tell

    def _tell(self, schema: str, action: str, **facts: Any) -> None:
        known = {key: value for key, value in facts.items() if value not in (None, "", [])}
        self._told(schema, {"action": action, "project": self._root, "by": self.by, **known})

    # -- models ------------------------------------------------------------------------------------------------------

    def check(self, name: str, ask: sent.Check) -> Checked:
        """Ask a version gates."""
        alias = ask.alias.lstrip("@")
        found = self.registry.check(f"{name}/{ask.version}", ask.gates, alias=alias)
        failed = [one.check for one in found if not one.passed]
        self._tell("model", "checked", model=name, version=ask.version, alias=alias, failed=failed)
        return Checked(
            name=name, version=ask.version, alias=alias, passed=not failed, checks=[answered(one) for one in found]
        )

    def promote(self, name: str, ask: sent.Promote) -> Moved:
        """Point an alias to a version, if it passes."""
        alias = ask.alias.lstrip("@")
        move = self.registry.promote(
            f"{name}/{ask.version}", alias, gates=ask.gates, reason=ask.reason, tickets=ask.tickets
        )
        return self._moved(name, alias, move)

    def rollback(self, name: str, ask: sent.RollBack) -> Moved:
        """Point an alias back to what it pointed to before."""
        alias = ask.alias.lstrip("@")
        move = self.registry.rollback(name, alias, reason=ask.reason, tickets=ask.tickets)
        return self._moved(name, alias, move)

    def _moved(self, name: str, alias: str, move: Transition) -> Moved:
        numbers: dict[Digest | None, int] = {one.digest: one.version for one in self.registry.versions(name)}
        checks = results(self.project.store, move.checks)
        return Moved(
            name=name, alias=alias, version=numbers[move.new], old=numbers.get(move.old), by=self.by, checks=checks
        )

    def approve(self, name: str, ask: sent.Approve) -> Approved:
        """Put an approval of a version on record, or take it back."""
        self.registry.approve(f"{name}/{ask.version}", reason=ask.reason, tickets=ask.tickets, withdraw=ask.withdraw)
        return Approved(name=name, version=ask.version, by=self.by, withdrawn=ask.withdraw)

    # -- what was run ------------------------------------------------------------------------------------------------

    def checkout(self, ask: sent.CheckOut) -> CheckedOut:
        """Write the code and files of something into a folder that is new or empty."""
        from jupyter_mlops.reproduce.checkout import checkout
        from jupyter_mlops.reproduce.past import past

        found = views.subject(self.project, ask.what)
        of = past(self.project.store, _named(ask.what), found.line, found.value)
        done = checkout(of, self.project, self.projects.new(ask.folder))
        folder = self.projects.name(done.folder)
        self._tell("files", "checked out", what=ask.what, path=folder)
        return CheckedOut(
            folder=folder, notebook=f"{folder}/{done.notebook}", commit=done.commit, placed=list(done.placed),
            missing=list(done.missing), gaps=list(done.gaps),
        )  # fmt: skip

    def slice(self, ask: sent.Slice) -> Sliced:
        """Write the smallest notebook that makes something."""
        from jupyter_mlops.reproduce import slicing

        output = self.projects.new(ask.output)
        if output.suffix != ".ipynb":
            raise WrongUse(f"{output.name} is no notebook's name", next="give one that ends in .ipynb")
        found = views.subject(self.project, ask.what)
        made = slicing.make(
            self.project, _named(ask.what), found.line, found.value, output, allow_unseeded=ask.allow_unseeded
        )
        notebook = self.projects.name(made.path)
        self._tell("files", "sliced", what=ask.what, path=notebook)
        return Sliced(
            notebook=notebook, makes=made.target.text,
            cells=sum(cell["cell_type"] == "code" for cell in made.book["cells"]),
            files=[one.name for one in made.slice.files], unseeded=list(made.slice.unseeded),
        )  # fmt: skip


def _named(what: str) -> str:
    return short(what) if is_digest(what) else what
