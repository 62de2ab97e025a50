"""What compiled code names outside of the notebook's variables: attributes of modules that it uses, sets or replaces.

Read off the code Python would run, so that functions and methods are read as cells are, and a name means what the
import in that code says. A chain is a name with attributes, as ``np.random.seed``.
"""

from __future__ import annotations

import dis
import functools
import re
import types
from collections.abc import Iterator
from typing import Final, NamedTuple

_LOADS: Final = frozenset({
    "LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_AND_CLEAR", "LOAD_DEREF", "LOAD_CLASSDEREF",
    "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_FROM_DICT_OR_DEREF", "LOAD_FAST_BORROW",
})  # fmt: skip
_STORES: Final = frozenset({"STORE_NAME", "STORE_GLOBAL", "STORE_FAST", "STORE_DEREF"})
SETTERS: Final = re.compile(
    r"set|set_\w+|set[A-Z]\w*|seterr\w*|setbufsize|set(?:locale|trace|profile|recursionlimit|switchinterval|itimer)|"
    r"use|use_\w+|(?:un|de)?register\w*|enable\w*|disable\w*|configure\w*|basicConfig|init|initialize|init_\w+|setup|"
    r"install\w*|uninstall\w*|patch\w*|reset\w*|filterwarnings|simplefilter|reload|f?chdir|umask|putenv|unsetenv|tzset|"
    r"addaudithook|captureWarnings|switch_backend|rc|rcdefaults|_?exit|abort|system|popen|spawn\w*|exec[vlpe]+|fork\w*|"
    r"kill|killpg|signal|alarm|p?thread_kill|displayhook|excepthook|pandas"
)
"""How functions are called that change something of the whole process."""
_FILLERS: Final = frozenset("append add update insert extend pop popitem remove discard clear setdefault".split())
_INSIDE: Final = frozenset("__globals__ f_globals f_locals f_back _getframe currentframe get_objects".split())
BLIND: Final = frozenset({
    "exec", "eval", "globals", "locals", "vars", "setattr", "delattr", "__import__", "get_ipython", "input",
    "breakpoint", "__builtins__", "__warningregistry__",
})  # fmt: skip
"""Builtins through which code gets at anything."""
_HISTORY: Final = re.compile(r"_|__|___|_i|_ii|_iii|_i\d+|_\d+|_ih|_oh|_dh|In|Out")
_OWNERS: Final = frozenset("resize flags owndata getsizeof base ctypes getrefcount get_referrers memory_usage".split())


class Chain(NamedTuple):
    """A name with attributes, and what is done with the last of them.

    Attributes
    ----------
    root
        The name; the dotted name of what it imports, where this code imports it.
    imported
        Whether that is so.
    rest
        The attributes.
    stored
        Whether the last one, or an item of it, is set or deleted.
    """

    root: str
    imported: bool
    rest: tuple[str, ...]
    stored: bool


class Named(NamedTuple):
    """What a piece of code names, with all code inside it."""

    chains: frozenset[Chain]
    names: frozenset[str]
    """All names and attributes."""
    attributes: frozenset[str]
    """Attributes of whatever value."""

    @property
    def reads_history(self) -> bool:
        """Whether it looks up what IPython remembers of earlier cells."""
        return any(not chain.imported and _HISTORY.fullmatch(chain.root) for chain in self.chains)

    @property
    def asks_for_owners(self) -> bool:
        """Whether it may tell an array that owns its memory from one that does not, or count references."""
        return not _OWNERS.isdisjoint(self.attributes)


@functools.lru_cache(maxsize=4096)
def named_in(code: types.CodeType) -> Named:
    r"""What a piece of code names.

    Examples
    --------
    >>> code = compile("import numpy as np\nnp.seterr(all='raise')\nnp.x.y = 1", "cell", "exec")
    >>> sorted(chain.root + "." + ".".join(chain.rest) for chain in named_in(code).chains)
    ['numpy.seterr', 'numpy.x.y']
    """
    chains: set[Chain] = set()
    names: set[str] = {*code.co_names, *code.co_varnames, *code.co_freevars}
    steps = list(dis.get_instructions(code))
    attributes = {str(step.argval) for step in steps if step.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    bound = dict(_imports(steps))
    starts: dict[tuple[int | None, int | None], tuple[str, bool, tuple[str, ...]]] = {}
    now: tuple[str, bool, tuple[str, ...]] | None = None
    for step in steps:
        name = step.opname
        if name in _LOADS:
            if now is not None:
                chains.add(Chain(*now, stored=False))
            now = (bound.get(step.argval, step.argval), step.argval in bound, ())
        elif name in ("LOAD_ATTR", "LOAD_METHOD") and now is not None:
            now = (now[0], now[1], (*now[2], step.argval))
        elif name in ("STORE_ATTR", "DELETE_ATTR") and now is not None:
            chains.add(Chain(now[0], now[1], (*now[2], step.argval), stored=True))
            now = None
        else:
            if name in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE") and step.positions is not None:
                held = starts.get((step.positions.lineno, step.positions.col_offset))
                if held is not None:
                    chains.add(Chain(*held, stored=True))
            if now is not None and name not in ("CACHE", "PRECALL", "EXTENDED_ARG", "RESUME", "NOP"):
                chains.add(Chain(*now, stored=False))
                now = None
        if now is not None and step.positions is not None:
            starts[step.positions.lineno, step.positions.col_offset] = now
    if now is not None:
        chains.add(Chain(*now, stored=False))
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            inner = named_in(constant)
            chains |= {
                Chain(bound.get(one.root, one.root), one.imported or one.root in bound, one.rest, one.stored)
                for one in inner.chains
            }
            names |= inner.names
            attributes |= inner.attributes
    return Named(frozenset(chains), frozenset(names), frozenset(attributes))


def _imports(steps: list[dis.Instruction]) -> Iterator[tuple[str, str]]:
    """The names that imports in some code bind, each with the dotted name of what they stand for."""
    module = pending = ""
    for step in steps:
        if step.opname == "IMPORT_NAME":
            module = str(step.argval)
            pending = module.partition(".")[0]
        elif step.opname == "IMPORT_FROM":
            pending = f"{module}.{step.argval}"
        elif step.opname in _STORES:
            if pending:
                yield str(step.argval), pending
            pending = ""
        elif step.opname == "POP_TOP":
            pending = ""


def change_of(chain: Chain, dotted: str) -> str:
    """What a chain of a library's may change outside of the notebook, in words; empty where nothing.

    Parameters
    ----------
    chain
        As it stands in the code.
    dotted
        The name of the module, function or class that its root is.
    """
    whole = ".".join((dotted, *chain.rest))
    if chain.stored:
        return f"it sets {whole}"
    last = chain.rest[-1] if chain.rest else dotted.rpartition(".")[2]
    if SETTERS.fullmatch(last) and "." in whole:
        return f"{whole} may change what the whole process shares"
    if last in _FILLERS and len(chain.rest) > 1:
        return f"{whole} may change {'.'.join((dotted, *chain.rest[:-1]))}"
    if not _INSIDE.isdisjoint(chain.rest) or whole.startswith("sys.modules"):
        return f"{whole} gets at anything"
    return ""
