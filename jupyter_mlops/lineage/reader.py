"""One walk over a cell's syntax tree, in the order in which Python would run it: which names it looks up and binds."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from jupyter_mlops.lineage.flow import breaks_off, goes_through, swallows_errors
from jupyter_mlops.lineage.magics import (
    HARMLESS_CALLS,
    HARMLESS_CELLS,
    HARMLESS_MAGICS,
    SHELL_CALLS,
    without_magics,
    without_options,
)
from jupyter_mlops.lineage.seeds import SEEDS, is_none, may_seed

BLIND: Final = frozenset({"exec", "eval", "execfile", "globals", "locals", "__import__"})
"""Builtins whose effect on names cannot be read in a text."""
_TYPE_ALIAS: Final = getattr(ast, "TypeAlias", None)
_TRY_STAR: Final = getattr(ast, "TryStar", None)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class _Body:
    """What a function's body will look up and bind in the notebook once it runs."""

    __slots__ = ("loads", "stores")

    def __init__(self) -> None:
        self.loads: set[str] = set()
        self.stores: set[str] = set()


class Reader:
    """One walk over a cell, in the order in which it runs."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.sure: set[str] = set()  # writes that happen on every way through the cell
        self.likely: set[str] = set()  # … unless a loop goes through nothing, or something is cut short
        self.deletes: set[str] = set()
        self.opaque: dict[str, None] = {}
        self.seeds = False
        self.seeded: set[str] = set()
        self.seeding: dict[str, frozenset[str]] = {}
        self.bound: set[str] = set()  # surely bound by the cell, where the walk stands
        self.branch = 0
        self.loose = 0
        self.later: dict[str, list[_Body]] = {}  # functions defined here, by name, until somebody mentions them

    # names

    def load(self, name: str) -> None:
        if name not in self.bound:
            self.reads.add(name)
        if name in BLIND:
            self.opaque[name] = None
        if name in self.seeding:
            self.seeded |= self.seeding[name]
        bodies = self.later.pop(name, None)
        if bodies:
            for body in bodies:
                self.run(body)

    def store(self, name: str) -> None:
        self.later.pop(name, None)
        self.writes.add(name)
        self.bound.add(name)
        if not self.branch:
            (self.likely if self.loose else self.sure).add(name)

    def run(self, body: _Body) -> None:
        """Count what a function does to the notebook: somebody mentioned it, so it may be called."""
        for name in body.loads:
            self.load(name)
        for name in body.stores:
            self.writes.add(name)

    # statements

    def block(self, statements: Sequence[ast.stmt | ast.expr]) -> None:
        for statement in statements:
            handler = _STATEMENTS.get(type(statement))
            if handler is None:
                self.children(statement)
            else:
                handler(self, statement)

    def branches(self, *blocks: Sequence[ast.stmt], certain: bool = True) -> None:
        """Walk alternatives; what all of them bind is bound after them. Not `certain`: perhaps none of them runs."""
        before, after = self.bound, None
        self.branch += 1
        for block in blocks:
            self.bound = set(before)
            self.block(block)
            after = self.bound if after is None else after & self.bound
        self.branch -= 1
        self.bound = after if certain and after is not None else before

    def if_(self, node: ast.If) -> None:
        self.expression(node.test)
        self.branches(node.body, node.orelse)

    def for_(self, node: ast.For | ast.AsyncFor) -> None:
        self.expression(node.iter)
        before = set(self.bound)
        with self.loosely(not goes_through(node.iter)):
            self.target(node.target)
            self.until_broken(node.body)
        self.bound = set(before)
        self.otherwise(node)

    @contextlib.contextmanager
    def loosely(self, loose: bool = True) -> Iterator[None]:
        """Within it, what is bound is bound unless something is gone round or cut short."""
        self.loose += loose
        yield
        self.loose -= loose

    def until_broken(self, body: Sequence[ast.stmt]) -> None:
        """Walk a loop's body; from the first statement on that may leave it, nothing is sure to be done."""
        sure = next((place for place, one in enumerate(body) if breaks_off(one)), len(body))
        self.block(body[:sure])
        bound = set(self.bound)
        with self.loosely(sure < len(body)):
            self.block(body[sure:])
        if sure < len(body):
            self.bound &= bound

    def otherwise(self, node: ast.For | ast.AsyncFor | ast.While) -> None:
        """Walk what comes after a loop that was not broken off."""
        before, breaks = set(self.bound), any(map(breaks_off, node.body))
        with self.loosely(breaks):
            self.block(node.orelse)
        if breaks:
            self.bound &= before

    def while_(self, node: ast.While) -> None:
        self.expression(node.test)
        if isinstance(node.test, ast.Constant) and node.test.value:
            self.until_broken(node.body)
        else:
            self.branches(node.body, certain=False)
        self.otherwise(node)

    def try_(self, node: ast.Try) -> None:
        before = set(self.bound)
        with self.loosely(bool(node.handlers)):
            self.block(node.body)
            self.block(node.orelse)
        after = self.bound
        self.branch += 1
        for handler in node.handlers:
            self.bound = set(before)
            if handler.type is not None:
                self.expression(handler.type)
            if handler.name:
                # bound for the length of the handler, and gone after it
                self.bound.add(handler.name)
                self.writes.add(handler.name)
                self.deletes.add(handler.name)
            self.block(handler.body)
            if handler.name:
                self.bound.discard(handler.name)
            after = after & self.bound
        self.branch -= 1
        self.bound = set(after)
        self.block(node.finalbody)

    def with_(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self.expression(item.context_expr)
            if item.optional_vars is not None:
                self.target(item.optional_vars)
        before = set(self.bound)
        swallows = any(swallows_errors(item.context_expr) for item in node.items)
        with self.loosely(swallows):
            self.block(node.body)
        if swallows:
            self.bound &= before

    def match_(self, node: ast.Match) -> None:
        self.expression(node.subject)
        before = self.bound
        self.branch += 1
        for case in node.cases:
            self.bound = set(before)
            for part in ast.walk(case.pattern):
                if isinstance(part, ast.MatchValue):
                    self.expression(part.value)
                elif isinstance(part, ast.MatchClass):
                    self.expression(part.cls)
                elif isinstance(part, ast.MatchMapping):
                    for key in part.keys:
                        self.expression(key)
                    if part.rest:
                        self.store(part.rest)
                elif isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                    self.store(part.name)
            if case.guard is not None:
                self.expression(case.guard)
            self.block(case.body)
        self.branch -= 1
        self.bound = before

    def assign(self, node: ast.Assign) -> None:
        value = node.value
        if isinstance(value, ast.Lambda) and all(isinstance(target, ast.Name) for target in node.targets):
            body = self.function(value)
            for target in node.targets:
                self.target(target)
                self.later[target.id] = [body]  # type: ignore[attr-defined]
            return
        self.expression(value)
        for target in node.targets:
            self.target(target)

    def annotated(self, node: ast.AnnAssign) -> None:
        self.expression(node.annotation)
        if node.value is not None:
            self.expression(node.value)
            self.target(node.target)
        elif not isinstance(node.target, ast.Name):
            self.target(node.target)

    def augmented(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.load(node.target.id)
        self.expression(node.value)
        self.target(node.target)

    def delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            for part in _flat(target):
                if isinstance(part, ast.Name):
                    self.deletes.add(part.id)
                    self.bound.discard(part.id)
                    self.later.pop(part.id, None)
                else:
                    self.expression(part)

    def import_(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":  # what a star brings is new to the namespace, which sees it
                self.store(alias.asname or alias.name.partition(".")[0])

    def type_alias(self, node: Any) -> None:
        self.store(node.name.id)  # its value is looked up lazily, by whoever asks

    @contextlib.contextmanager
    def parameters(self, node: ast.AST) -> Iterator[None]:
        """``def f[T](x: T)``: names of types that only the definition sees (Python 3.12)."""
        own = {parameter.name for parameter in getattr(node, "type_params", ())} - self.bound
        self.bound |= own
        yield
        self.bound -= own

    def define(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.expression(decorator)
        seeded, self.seeded = self.seeded, set()
        with self.parameters(node):
            body = self.function(node)
        if self.seeded:
            self.seeding[node.name] = frozenset(self.seeded)
        self.seeded = seeded
        if node.decorator_list:
            self.run(body)  # a decorator may call what it is given
        self.store(node.name)
        if not node.decorator_list:
            self.later[node.name] = [body]

    def class_(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.expression(decorator)
        inner = Reader()
        with self.parameters(node):
            for part in (*node.bases, *(keyword.value for keyword in node.keywords)):
                self.expression(part)
            inner.bound = set(self.bound)
        bodies: list[_Body] = []
        # the body runs at once and binds its own names; its functions run when the class is used
        inner.block([part for part in node.body if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)])
        for method in node.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in method.decorator_list:
                    inner.expression(decorator)
                bodies.append(inner.function(method))
        for name in inner.reads - {"__name__", "__module__", "__qualname__"}:
            self.load(name)
        for waiting in inner.later.values():
            bodies.extend(waiting)
        self.opaque.update(inner.opaque)
        self.seeds = self.seeds or inner.seeds
        self.seeded |= inner.seeded
        self.store(node.name)
        if node.decorator_list or node.bases or node.keywords:
            for body in bodies:  # a decorator or a base may use the class at once
                self.run(body)
        else:
            self.later[node.name] = bodies

    # expressions

    def target(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.store(node.id)
        elif isinstance(node, ast.Tuple | ast.List):
            for part in node.elts:
                self.target(part)
        elif isinstance(node, ast.Starred):
            self.target(node.value)
        else:
            self.expression(node)  # a.b = …, a[0] = …: a is looked up

    def expression(self, node: ast.AST) -> None:
        kind = type(node)
        if kind is ast.Name:
            if isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
                self.load(node.id)  # type: ignore[attr-defined]
            else:
                self.store(node.id)  # type: ignore[attr-defined]
        elif kind is not ast.Constant:
            handler = _EXPRESSIONS.get(kind)
            if handler is None:
                self.children(node)
            else:
                handler(self, node)

    def children(self, node: ast.AST) -> None:
        for child in _parts_of(node):
            if isinstance(child, ast.stmt):
                self.block([child])
            else:
                self.expression(child)

    def lambda_(self, node: ast.Lambda) -> None:
        self.run(self.function(node))

    def choice(self, node: ast.IfExp) -> None:
        self.expression(node.test)
        bound = self.bound
        self.branch += 1
        for part in (node.body, node.orelse):
            self.bound = set(bound)
            self.expression(part)
        self.branch -= 1
        self.bound = bound

    def either(self, node: ast.BoolOp) -> None:
        self.expression(node.values[0])
        bound = self.bound
        self.branch += 1
        for part in node.values[1:]:
            self.bound = set(self.bound)
            self.expression(part)
        self.branch -= 1
        self.bound = bound

    def walrus(self, node: ast.NamedExpr) -> None:
        self.expression(node.value)
        self.target(node.target)

    def comprehension(self, node: Any) -> None:
        self.expression(node.generators[0].iter)
        own: set[str] = set()
        hidden = self.bound
        self.bound = set(self.bound)
        for index, loop in enumerate(node.generators):
            if index:
                self.expression(loop.iter)
            names = {part.id for part in ast.walk(loop.target) if isinstance(part, ast.Name)} if loop.target else set()
            for part in ast.walk(loop.target):
                if isinstance(part, ast.Attribute | ast.Subscript):
                    self.expression(part.value)
            own |= names
            self.bound |= names
            for test in loop.ifs:
                self.expression(test)
        self.branch += 1
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.expression(part)
        self.branch -= 1
        self.bound = hidden

    def call(self, node: ast.Call) -> None:
        func = node.func
        name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
        if name in SEEDS or any(
            keyword.arg in ("random_state", "seed") and not is_none(keyword.value) for keyword in node.keywords
        ):
            self.seeds = True
        self.seeded.update(may_seed(node, name))
        if isinstance(func, ast.Attribute) and _is_shell(func.value):
            self.magic(name, node)
            return
        if isinstance(func, ast.Name) and name in ("exec", "eval") and name not in self.bound and self.constant(node):
            return
        if isinstance(func, ast.Name) and name in ("vars", "dir") and not node.args and name == "vars":
            self.opaque["vars"] = None
        self.children(node)

    def constant(self, node: ast.Call) -> bool:
        """Read ``exec("x = 1")`` like the text it runs."""
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Constant):
            return False
        text = node.args[0].value
        return isinstance(text, str) and self.text(text)

    def text(self, text: str) -> bool:
        """Walk nested source as if it stood here; False where it is no Python."""
        for attempt in (text, without_magics(text)):
            try:
                body = ast.parse(attempt).body
            except (SyntaxError, ValueError):
                continue  # a magic in it, or no Python at all: tried next, or told to the caller
            self.block(body)
            return True
        return False

    def subscript(self, node: ast.Subscript) -> None:
        base = node.value
        if isinstance(base, ast.Name) and base.id in ("Out", "_oh") and isinstance(node.slice, ast.Constant):
            self.load(f"_{node.slice.value!r}")  # Out[3] is _3
        self.expression(base)
        self.expression(node.slice)

    # functions and magics

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> _Body:
        """Walk what is evaluated where the function is defined; return what its body will do once it runs."""
        arguments = node.args
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.expression(default)
        if not isinstance(node, ast.Lambda):
            for argument in _arguments(arguments):
                if argument.annotation is not None:
                    self.expression(argument.annotation)
            if node.returns is not None:
                self.expression(node.returns)
        return _body_of(node, self)

    def magic(self, method: str, node: ast.Call) -> None:
        """Read what IPython made of a line that begins with ``%`` or ``!``."""
        words = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if len(words) != len(node.args) or method not in SHELL_CALLS:
            if method not in HARMLESS_CALLS:
                self.opaque[f"get_ipython().{method}"] = None
            self.children(node)
            return
        if method in ("system", "getoutput"):
            self.expanded(" ".join(words))
            return
        name, line = words[0] if words else "", words[1] if len(words) > 1 else ""
        if method == "run_line_magic":
            self.line_magic(name, line)
        else:
            self.cell_magic(name, line, words[2] if len(words) > 2 else "")

    def line_magic(self, name: str, line: str) -> None:
        if name in ("time", "prun"):
            if not self.text(without_options(line)):
                self.opaque[f"%{name}"] = None
        elif name == "timeit":
            self.timed(without_options(line))
        elif name not in HARMLESS_MAGICS:
            self.opaque[f"%{name}"] = None
            self.expanded(line)
        else:
            if name == "mlops":
                self.registered(line.split())
            self.expanded(line)

    def registered(self, words: Sequence[str]) -> None:
        """``%mlops register MODEL NAME --data X,y`` reads the variables it names; other verbs read the record."""
        if words[:1] != ["register"]:
            return
        given = list(words[1:2])
        for place, word in enumerate(words):
            option, _, value = word.partition("=")
            if option in ("--data", "--evaluation"):
                given.append(value or " ".join(words[place + 1 : place + 2]))
        for name in ",".join(given).split(","):
            if name.isidentifier():
                self.load(name)

    def cell_magic(self, name: str, line: str, body: str) -> None:
        if name in ("time", "prun", "capture", "mlops", "debug"):
            if not self.text(body):
                self.opaque[f"%%{name}"] = None
            if name == "capture":
                for word in line.split():
                    if word.isidentifier():
                        self.store(word)
            elif name == "prun" and line:
                self.text(without_options(line))
        elif name == "timeit":
            self.timed(without_options(line) + "\n" + body)
        elif name in HARMLESS_CELLS:
            self.expanded(line)
            for option in re.findall(r"--(?:out|err|proc|bg-out)[ =](\w+)", line):
                self.store(option)
        else:
            self.opaque[f"%%{name}"] = None
            self.expanded(line)

    def timed(self, text: str) -> None:
        """``%timeit`` runs in a function of its own: what it binds stays there, what it looks up is the notebook's."""
        inner = Reader()
        inner.bound = set(self.bound)
        inner.later = self.later
        if not inner.text(text):
            self.opaque["%timeit"] = None
        self.reads |= inner.reads
        self.opaque.update(inner.opaque)
        self.seeds = self.seeds or inner.seeds
        self.seeded |= inner.seeded

    def expanded(self, line: str) -> None:
        """IPython puts ``{x}`` and ``$x`` of a magic's line in before it runs."""
        for name in re.findall(r"(?:\{|\$)([A-Za-z_]\w*)", line):
            self.load(name)


_STATEMENTS: Final[dict[type, Callable[[Reader, Any], None]]] = {
    ast.If: Reader.if_, ast.For: Reader.for_, ast.AsyncFor: Reader.for_, ast.While: Reader.while_,
    ast.Try: Reader.try_, ast.With: Reader.with_, ast.AsyncWith: Reader.with_, ast.Match: Reader.match_,
    ast.Assign: Reader.assign, ast.AnnAssign: Reader.annotated, ast.AugAssign: Reader.augmented,
    ast.Delete: Reader.delete, ast.Import: Reader.import_, ast.ImportFrom: Reader.import_,
    ast.FunctionDef: Reader.define, ast.AsyncFunctionDef: Reader.define, ast.ClassDef: Reader.class_,
}  # fmt: skip
if _TYPE_ALIAS is not None:
    _STATEMENTS[_TYPE_ALIAS] = Reader.type_alias
if _TRY_STAR is not None:
    _STATEMENTS[_TRY_STAR] = Reader.try_
_EXPRESSIONS: Final[dict[type, Callable[[Reader, Any], None]]] = {
    ast.Lambda: Reader.lambda_, ast.IfExp: Reader.choice, ast.BoolOp: Reader.either, ast.NamedExpr: Reader.walrus,
    ast.Call: Reader.call, ast.Subscript: Reader.subscript,
    **dict.fromkeys(_COMPREHENSIONS, Reader.comprehension),
}  # fmt: skip


def _is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def _flat(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Tuple | ast.List):
        for part in node.elts:
            yield from _flat(part)
    else:
        yield node


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    yield from arguments.posonlyargs
    yield from arguments.args
    yield from arguments.kwonlyargs
    if arguments.vararg is not None:
        yield arguments.vararg
    if arguments.kwarg is not None:
        yield arguments.kwarg


def _parts_of(node: ast.AST) -> list[ast.AST]:
    """The nodes right below a node, without those that say nothing of themselves, such as ``ast.Load()``."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, ast.AST):
            if value._fields:
                found.append(value)
        elif isinstance(value, list):
            found += [one for one in value if isinstance(one, ast.AST) and one._fields]
    return found


_BINDERS: Final = frozenset({
    ast.Global, ast.Nonlocal, ast.Name, ast.Import, ast.ImportFrom, ast.ExceptHandler, ast.MatchAs, ast.MatchStar,
    ast.MatchMapping,
})  # fmt: skip
"""What binds a name in a function, or says where it is bound."""


def _body_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, reader: Reader) -> _Body:
    """What a function's body, and the functions in it, look up and bind outside themselves."""
    body = _Body()
    local = {argument.arg for argument in _arguments(node.args)}
    local |= {parameter.name for parameter in getattr(node, "type_params", ())}
    outside: set[str] = set()
    parts: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
    while parts:
        part = parts.pop()
        kind = type(part)
        if kind is ast.Constant:
            continue
        if kind in _BINDERS:
            match part:
                case ast.Global():
                    outside.update(part.names)
                    body.stores.update(part.names)
                case ast.Nonlocal():
                    outside.update(part.names)
                case ast.Name(ctx=ast.Store() | ast.Del()):
                    local.add(part.id)
                case ast.Import() | ast.ImportFrom():
                    local.update((alias.asname or alias.name).partition(".")[0] for alias in part.names)
                case ast.ExceptHandler() if part.name:
                    local.add(part.name)
                case ast.MatchAs() | ast.MatchStar() if part.name:
                    local.add(part.name)
                case ast.MatchMapping() if part.rest:
                    local.add(part.rest)
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            if not isinstance(part, ast.Lambda):
                local.add(part.name)
            nested = Reader()
            nested.block([part] if isinstance(part, ast.stmt) else [ast.Expr(part)])
            for waiting in nested.later.values():
                for one in waiting:
                    body.loads |= one.loads
                    body.stores |= one.stores
            body.loads |= nested.reads
            body.stores |= nested.writes - local
            reader.opaque.update(nested.opaque)
        elif isinstance(part, _COMPREHENSIONS):
            nested = Reader()
            nested.expression(part)
            local |= nested.writes  # a walrus in it binds in the function
            body.loads |= nested.reads
            reader.opaque.update(nested.opaque)
        else:
            if isinstance(part, ast.Name):
                body.loads.add(part.id)
            elif isinstance(part, ast.Call):
                _look_at_call(part, reader)
            parts.extend(_parts_of(part))
    local -= outside
    body.loads -= local
    body.stores -= local
    return body


def _look_at_call(node: ast.Call, reader: Reader) -> None:
    func = node.func
    name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
    if name in SEEDS:
        reader.seeds = True
        reader.seeded.update(may_seed(node, name))
    if isinstance(func, ast.Name) and name in BLIND:
        reader.opaque[name] = None
