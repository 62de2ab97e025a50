"""How a block of statements may be gone round, left early, or cut short without the cell's end."""

from __future__ import annotations

import ast
from typing import Final

_SWALLOWING: Final = frozenset({
    "suppress", "raises", "assertRaises", "assertRaisesRegex", "ExitStack", "AsyncExitStack",
})  # fmt: skip


def goes_through(node: ast.expr) -> bool:
    """Whether a loop over this surely goes through something."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(not isinstance(one, ast.Starred) for one in node.elts)
    if isinstance(node, ast.Dict):
        return any(one is not None for one in node.keys)
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args or node.keywords:
        return False
    if node.func.id == "range":
        found = [one.value for one in node.args if isinstance(one, ast.Constant) and type(one.value) is int]
        return len(found) == len(node.args) <= 3 and found[-1:] != [0] and len(range(*found)) > 0
    return node.func.id in ("enumerate", "reversed", "sorted", "list", "zip") and all(map(goes_through, node.args))


def breaks_off(node: ast.AST) -> bool:
    """Whether a statement may leave the loop, or the round, that it stands in."""
    if isinstance(node, ast.Break | ast.Continue):
        return True
    if isinstance(node, ast.For | ast.AsyncFor | ast.While):
        return any(map(breaks_off, node.orelse))  # those of its own body are its own
    if isinstance(node, ast.expr | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(map(breaks_off, ast.iter_child_nodes(node)))


def swallows_errors(node: ast.expr) -> bool:
    """Whether a context manager is one of those that end a block at an exception and let the cell go on."""
    if not isinstance(node, ast.Call):
        return False
    named = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return named in _SWALLOWING
