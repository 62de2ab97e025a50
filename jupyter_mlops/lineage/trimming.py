"""A cell run that is needed, and as much of its text as is needed: the whole, or statements that stand on their own."""

from __future__ import annotations

import ast
import builtins
import io
import tokenize
from collections.abc import Sequence
from typing import Final

from jupyter_mlops.lineage.names import names_of
from jupyter_mlops.lineage.statements import DEFINITION, IMPORT, LITERAL, Cell, Statement, cell_of
from jupyter_mlops.records import Artifact, CellRun, Gap, short


class Part:
    """A cell run that is needed: what for, and what of its text that takes.

    Attributes
    ----------
    names
        What is needed of what it made.
    statements
        Statements that are needed by their place, whatever they bind.
    asked
        Whether it is needed as a whole.
    places
        The statements that are kept; None for all.
    source
        The text that is kept.
    note
        What was altered in it, in words.
    """

    __slots__ = ("asked", "cell", "declared", "due", "inputs", "names", "note", "places", "run", "source", "statements")

    def __init__(self, run: CellRun) -> None:
        self.run = run
        self.cell: Cell = cell_of(run.source)
        self.declared: frozenset[str] = frozenset()  # names that functions of the session bind as globals
        self.names: set[str] = set()
        self.statements: set[int] = set()  # asked for by their place, whatever they bind
        self.asked = False  # as a whole
        self.due = False  # it was asked for more, and that has not been followed yet
        self.places: frozenset[int] | None = None  # what is kept; None: all
        self.inputs: dict[str, Artifact] = {one.name: one for one in run.inputs}
        self.source = run.source
        self.note = ""

    @property
    def whole(self) -> bool:
        return self.places is None

    def kept(self) -> tuple[Statement, ...]:
        if self.places is None:
            return self.cell.body
        return tuple(self.cell.statements[place] for place in sorted(self.places))

    def plan(self) -> list[str]:
        """Decide what of the text is needed; returns the names it reads from before the cell, where it is trimmed."""
        reads = None if self.asked else self._trimmed()
        if reads is None:
            self.places = None
            self.source = self.run.source
            return list(self.inputs)
        assert self.places is not None
        self.source = self.cell.text(self.places)
        return reads

    def _trimmed(self) -> list[str] | None:
        """Take only what is needed, where that is proved to be the same; None where it is not."""
        statements = self.cell.statements
        if len(statements) == 1 and (self.names or self.statements):
            return None  # it is all there is
        if not statements or not self.cell.separable or not _REBINDS.isdisjoint(self.cell.names.opaque):
            return None
        last = self.failed_at()
        kept = set(self.statements)
        reads: dict[str, None] = {}
        due = [(name, len(statements)) for name in self.names]
        for place in self.statements:
            due += [(name, place) for name in statements[place].names.reads]
        while due:
            name, before = due.pop()
            binders = [place for place, one in enumerate(statements) if binds(one, name)]
            if not binders or (before < len(statements) and min(binders) >= before):
                stars = [place for place, one in enumerate(statements[:before]) if one.star]
                if name in self.inputs and before < len(statements):
                    reads[name] = None
                elif stars:
                    kept.update(stars)
                elif before == len(statements) or not hasattr(builtins, name):
                    return None
                continue
            place = binders[0]
            one = statements[place]
            if len(binders) > 1 or place >= last or not self._stands_alone(place, name):
                return None
            if place not in kept:
                kept.add(place)
                if one.kind == IMPORT:  # some are imported for what they do to others
                    imports = [at for at, other in enumerate(statements) if other.kind == IMPORT and at < last]
                    kept.update(imports)
                due += [(read, place) for read in one.names.reads]
        self.places = frozenset(kept)
        return None if len(kept) == len(statements) else list(reads)

    def _stands_alone(self, place: int, name: str) -> bool:
        """Whether the statement that binds a name stands on its own as far as that name goes."""
        one = self.cell.statements[place]
        if name in self.declared and any(_calls(other.node) for other in self.cell.statements):
            return False  # a function may bind it anew
        if one.kind == IMPORT or (one.kind == LITERAL and one.constant):
            return True
        others = [other.node for at, other in enumerate(self.cell.statements) if at != place]
        if one.kind == DEFINITION and isinstance(one.node, ast.FunctionDef) and not one.node.decorator_list:
            return not any(_sets_attribute(other, name) for other in (*others, one.node))
        if one.kind in (LITERAL, DEFINITION):
            return not any(
                _mentions(other, name) or self._may_run_the_notebook(other)
                for other in others
                if not _kind_of_definition(other)
            )
        return False

    def _may_run_the_notebook(self, node: ast.stmt) -> bool:
        """Whether a statement may run a function of the notebook, which may change what the notebook's names hold."""
        own = {name for one in self.cell.statements if one.kind == DEFINITION for name in one.names.writes}
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                known = self.inputs.get(part.id)
                if part.id in own or (known is not None and _of_the_notebook(known.type)):
                    return True
            elif isinstance(part, ast.Call):
                root: ast.AST = part.func
                while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
                    root = root.func if isinstance(root, ast.Call) else root.value
                known = self.inputs.get(root.id) if isinstance(root, ast.Name) else None
                if known is not None and known.type.rpartition(".")[2] in ("list", "dict", "tuple"):
                    return True  # it may hold functions
        return False

    def failed_at(self) -> int:
        """The place of the statement that failed; beyond the last where none did."""
        run = self.run
        if run.status == "done":
            return len(self.cell.statements)
        line = run.ended.failed_line if run.ended is not None else 0
        for place, one in enumerate(self.cell.statements):
            if one.last >= line:
                return place
        return 0

    def cut(self) -> Gap | None:
        """Have the text of a cell run that failed end where it did; a gap where that cannot be done."""
        run, statements = self.run, self.cell.statements
        if run.status == "done" or not self.whole:
            return None
        subject = f"cell run {short(run.id)}"
        if (
            run.status != "error"
            or run.ended is None
            or not run.ended.failed_line
            or not statements
            or not self.cell.separable
        ):
            return Gap(subject=subject, reason=f"it did not come to its end ({run.status})", blocks=True)
        place = self.failed_at()
        before, failing = statements[:place], statements[place]
        made = {one.name for one in run.outputs}
        done = names_of([one.node for one in before])
        touched = {node.id for node in ast.walk(failing.node) if isinstance(node, ast.Name)}
        error = run.ended.error.partition(":")[0]
        text = self.cell.text(frozenset(range(place)))
        ran = bool(made) and self._may_run_the_notebook(failing.node)  # which may have changed any of it
        if made - done.writes or made & touched or ran or run.files_written:
            lines = self.cell.source.splitlines()[failing.first - 1 : failing.last]
            if _has_long_texts(lines):
                return Gap(
                    subject=subject, reason="it failed within a statement that can not be taken apart", blocks=True
                )
            tried = "\n".join(f"    {line}" for line in lines)
            text = f"{text}\ntry:\n{tried}\nexcept Exception:\n    pass  # it failed here when it ran: {error}".lstrip(
                "\n"
            )
            self.note = f"it failed with {error} in its line {failing.first}: so it does here"
        else:
            self.note = f"it failed with {error} in its line {failing.first}: it ends before that"
        self.source = text
        return None


_REBINDS: Final = frozenset({"exec", "eval", "execfile", "globals", "locals", "vars", "__import__", "%run"})


def _of_the_notebook(type_: str) -> bool:
    """Whether a value of that type is, or may call, a function that was written in the notebook."""
    return type_.endswith(("function", "method", "partial")) or type_.startswith("__main__.") or type_ in _CLASSES


_CLASSES: Final = ("type", "builtins.type", "abc.ABCMeta", "ABCMeta")


def _calls(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def binds(one: Statement, name: str) -> bool:
    """Whether a statement binds or unbinds a name."""
    return name in one.names.writes or name in one.names.deletes


def _kind_of_definition(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))


def _sets_attribute(node: ast.AST, name: str) -> bool:
    return any(
        isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and _mentions(part.value, name)
        for part in ast.walk(node)
    )


def _has_long_texts(lines: Sequence[str]) -> bool:
    """Whether a text goes over several lines: moving them to the right would change it."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return True
    return any(one.type != tokenize.NEWLINE and one.start[0] != one.end[0] for one in tokens if one.string.strip())
