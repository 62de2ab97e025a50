"""Literal assignments moved into one cell tagged ``parameters``, where that does not change what a notebook does.

A name is moved when the notebook binds it once, at the top of a cell, to a value written out in builtin types that a
parameter can have, and nothing mentions it before.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Final

import msgspec

from jupyter_mlops.lineage.magics import as_python
from jupyter_mlops.lineage.statements import LITERAL, Cell, Statement, cell_of

_WIDEST: Final = 20  # lines a value may take: what is longer is data


class Moved(msgspec.Struct, frozen=True):
    """What was taken out, and what is left.

    Attributes
    ----------
    lines
        The assignments, typed, in their order.
    names
        What they bind.
    sources
        The cells without them; empty where nothing is left to run.
    """

    lines: tuple[str, ...]
    names: tuple[str, ...]
    sources: tuple[str, ...]


def move(sources: Sequence[str]) -> Moved:
    r"""Take the literal assignments out of a notebook's cells, given in their order.

    Examples
    --------
    >>> moved = move(["alpha = 0.1\nn = 3  # rounds\nxs = f(alpha)", "ys = g(xs, n)"])
    >>> moved.lines
    ('alpha: float = 0.1', 'n: int = 3  # rounds')
    >>> moved.sources
    ('xs = f(alpha)', 'ys = g(xs, n)')
    """
    cells = [cell_of(source) for source in sources]
    mentions = _mentions(cells)
    lines: list[str] = []
    names: list[str] = []
    left: list[str] = []
    for number, (source, cell) in enumerate(zip(sources, cells, strict=True)):
        gone: set[int] = set()
        for place, one in enumerate(cell.statements):
            line = _parameter(cell, one) if cell.separable and one.kind == LITERAL else ""
            name = _name(one)
            if not line or mentions[name][0] != (number, place) or mentions[name][1] != 1 or mentions[name][2] < 2:
                continue
            lines.append(line)
            names.append(name)
            gone.update(range(one.first - 1, one.last))
        if not gone:
            left.append(source)
            continue
        rest = "\n".join(line for at, line in enumerate(source.splitlines()) if at not in gone).strip("\n")
        left.append(rest if any(line.strip() and line.strip()[0] != "#" for line in rest.splitlines()) else "")
    return Moved(tuple(lines), tuple(names), tuple(left))


def _mentions(cells: Sequence[Cell]) -> dict[str, tuple[tuple[int, int], int, int]]:
    """Each name with the statement that mentions it first, and how many bind it and mention it."""
    found: dict[str, tuple[tuple[int, int], int, int]] = {}
    for number, cell in enumerate(cells):
        for place, one in enumerate(cell.body):
            bound: dict[str, int] = {}
            said: set[str] = set()
            for part in ast.walk(one.node):
                if isinstance(part, ast.Name):
                    said.add(part.id)
                    if not isinstance(part.ctx, ast.Load):
                        bound[part.id] = bound.get(part.id, 0) + 1
                elif isinstance(part, ast.Global | ast.Nonlocal):
                    bound.update((name, 2) for name in part.names)
                elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                    said.update(_words(part.value))  # a magic's line, a query with {name}
            for name in (*one.names.writes, *one.names.deletes):
                bound.setdefault(name, 1)
            for name in said | bound.keys():
                first, times, statements = found.get(name, ((number, place), 0, 0))
                found[name] = (first, times + bound.get(name, 0), statements + 1)
        for name in cell.names.writes | cell.names.reads:
            found.setdefault(name, ((number, -1), 2, 0))
        if not cell.body and not cell.names.syntax_error:
            for name in (*cell.names.writes, *cell.names.deletes):
                first, times, statements = found[name]
                found[name] = (first, times + 1, statements)
    return found


def _words(text: str) -> list[str]:
    return [word for word in text.replace("{", " ").replace("}", " ").replace("$", " ").split() if word.isidentifier()]


def _name(one: Statement) -> str:
    node = one.node
    target = (
        node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
    )
    return target.id if isinstance(target, ast.Name) else ""


def _parameter(cell: Cell, one: Statement) -> str:
    """The assignment as a typed parameter; empty where it can not be one."""
    node = one.node
    name = _name(one)
    if not name or name.startswith("_") or one.last - one.first >= _WIDEST:
        return ""
    if isinstance(node, ast.Assign) and len(node.targets) != 1:
        return ""
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    assert node.value is not None
    value = ast.literal_eval(node.value)
    type_ = _type(value)
    if type_ is None:
        return ""
    if isinstance(node, ast.AnnAssign):
        type_ = ast.unparse(node.annotation)
        if not set(_words(type_.replace("[", " ").replace("]", " ").replace("|", " ").replace(",", " "))) <= _BUILTIN:
            return ""
    lines = cell.source.splitlines()
    after = lines[one.last - 1][_column(lines[one.last - 1], node.end_col_offset or 0) :].strip()
    if after and not after.startswith("#"):
        return ""
    text = ast.get_source_segment(as_python(cell.source), node.value)
    return f"{name}{f': {type_}' if type_ else ''} = {text}{f'  {after}' if after else ''}"


_BUILTIN: Final = frozenset({"int", "float", "str", "bool", "list", "dict", "None"})


def _column(line: str, offset: int) -> int:
    """Where a byte offset, as Python's parser counts, stands in a line."""
    return len(line.encode()[:offset].decode("utf-8", "ignore"))


def _type(value: object) -> str | None:
    """The annotation that says what a value is: empty for None, and None for what no parameter can be."""
    kind = type(value)
    if value is None:
        return ""
    if kind in (bool, int, float, str):
        return kind.__name__
    if isinstance(value, list):
        inner = {_type(item) for item in value}
        if None in inner:
            return None
        return f"list[{inner.pop()}]" if len(inner) == 1 and "" not in inner else "list"
    if isinstance(value, dict) and all(type(key) is str for key in value):
        inner = {_type(item) for item in value.values()}
        if None in inner:
            return None
        return f"dict[str, {inner.pop()}]" if len(inner) == 1 and "" not in inner else "dict"
    return None
