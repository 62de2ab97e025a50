"""What a cell reads and writes, read off its text.

`names_in` walks a cell's syntax tree in the order in which Python would run it. A name counts as read only where it may
be looked up before the cell itself has surely bound it; what a function reads counts once the function is mentioned,
not where it is defined. Text cannot say what ``xs.append(1)`` changes: `namespace` adds that by looking at the objects.
Where text cannot say anything (``exec``, a foreign magic), the answer says so in `CellNames.opaque`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from typing import Final

import msgspec

from jupyter_mlops.lineage.reader import Reader


class CellNames(msgspec.Struct, frozen=True):
    """What a cell's text says about the names of the notebook.

    Attributes
    ----------
    reads
        Names that may be looked up before the cell has bound them itself. ``a += 1``, ``a[0] = 1`` and ``a.b = 1`` read
        ``a``. Builtins are among them: only a namespace can tell.
    writes
        Names the cell binds.
    maybe
        Those of `writes` that are bound in a branch only, so that a run may well not have bound them.
    likely
        Those of `writes` that are bound unless a loop goes through nothing, or breaks off, or an exception that is
        caught comes first.
    deletes
        Names the cell unbinds.
    opaque
        What was met whose effect on names cannot be read: ``exec``, ``%run``.
    calls_seed
        Whether something is called that seeds a random generator.
    seeds
        The global generators that may be seeded by it: ``random``, ``numpy.random``, ``torch``.
    seeding
        Those that functions it defines seed once they are called, by the function's name.
    syntax_error
        The text is no Python: all else is empty.
    """

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    maybe: frozenset[str] = frozenset()
    likely: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    opaque: tuple[str, ...] = ()
    calls_seed: bool = False
    seeds: frozenset[str] = frozenset()
    seeding: dict[str, frozenset[str]] = {}
    syntax_error: bool = False


NOTHING: Final = CellNames()
_LARGEST_SOURCE: Final = 1_000_000


@functools.lru_cache(maxsize=1024)
def names_in(source: str) -> CellNames:
    r"""Read the names a cell reads, writes and deletes.

    Parameters
    ----------
    source
        The cell as IPython transformed it: magics are calls of ``get_ipython()``. Plain Python is fine as well.

    Returns
    -------
    CellNames
        Empty, with `syntax_error`, where the text is no Python.

    Examples
    --------
    >>> names = names_in("total = sum(xs)\ndf['mean'] = total / n")
    >>> sorted(names.reads), sorted(names.writes)
    (['df', 'n', 'sum', 'xs'], ['total'])
    """
    if len(source) > _LARGEST_SOURCE:
        return CellNames(opaque=(f"a cell of {len(source):,} characters",))
    try:
        tree = ast.parse(source)
        reader = Reader()
        reader.block(tree.body)
    except (SyntaxError, ValueError):
        # ValueError: a NUL byte
        return CellNames(syntax_error=True)
    except (RecursionError, MemoryError):
        # Python's own parser may accept what this walk cannot follow
        return CellNames(opaque=("an expression nested too deeply",))
    return _found(reader)


@functools.lru_cache(maxsize=64)
def names_until(source: str, line: int) -> CellNames | None:
    """What a cell that failed within the statement at a line may have bound; None where that cannot be told.

    What stands behind that statement was not reached. The statement itself bound nothing where all it does is to give a
    value a name; else it may have. What it reads is of no interest.
    """
    whole = names_in(source)
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    failing = next((one for one in statements if one.lineno <= line <= (one.end_lineno or 0)), None)
    if failing is None:
        return None
    before = names_of(statements[: statements.index(failing)])
    own = names_of([_first_of(failing)]).writes
    surely = before.writes - before.maybe - before.likely
    return CellNames(
        reads=whole.reads, writes=before.writes | own, maybe=(before.maybe | own) - before.likely - surely,
        likely=before.likely, deletes=whole.deletes, opaque=whole.opaque,
    )  # fmt: skip


def _first_of(node: ast.stmt) -> ast.stmt | ast.expr:
    """What of a statement may bind names although it fails: of one that only names a value, what makes the value."""
    if isinstance(node, ast.Assign) and all(isinstance(one, ast.Name) for one in node.targets):
        return node.value
    if isinstance(node, ast.AnnAssign | ast.AugAssign) and isinstance(node.target, ast.Name):
        return node.value or node
    return node


def names_of(statements: Sequence[ast.stmt | ast.expr]) -> CellNames:
    """What some statements of a cell read and write, as `names_in` has it for the whole."""
    reader = Reader()
    reader.block(statements)
    return _found(reader)


def _found(reader: Reader) -> CellNames:
    return CellNames(
        reads=frozenset(reader.reads), writes=frozenset(reader.writes),
        maybe=frozenset(reader.writes - reader.sure - reader.likely), likely=frozenset(reader.likely - reader.sure),
        deletes=frozenset(reader.deletes), opaque=tuple(reader.opaque), calls_seed=reader.seeds,
        seeds=frozenset(reader.seeded), seeding=reader.seeding,
    )  # fmt: skip
