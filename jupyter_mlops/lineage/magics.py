"""Magics as they are typed, written as the calls that IPython makes of them; and those that touch no name."""

from __future__ import annotations

import ast
import functools
import re
from typing import Final

SHELL_CALLS: Final = frozenset({"run_line_magic", "run_cell_magic", "system", "getoutput"})
HARMLESS_CALLS: Final = frozenset({"set_next_input", "register_magic_function", "show_usage"})
HARMLESS_MAGICS: Final = frozenset({
    "alias", "alias_magic", "autoawait", "autocall", "automagic", "autoreload", "bookmark", "cat", "cd", "clear",
    "colors", "conda", "config", "connect_info", "cp", "dhist", "dirs", "doctest_mode", "env", "history", "hist",
    "killbgscripts", "ldir", "less", "lf", "lk", "ll", "load_ext", "loadpy", "ls", "lsmagic", "lx", "magic",
    "mamba", "man", "matplotlib", "mkdir", "mlops", "more", "mv", "notebook", "page", "pastebin", "pdb", "pdef",
    "pdoc", "pfile", "pinfo", "pinfo2", "pip", "popd", "pprint", "precision", "psearch", "psource", "pushd", "pwd",
    "pycat", "qtconsole", "quickref", "recall", "rehashx", "reload_ext", "rm", "rmdir", "save", "sc", "set_env",
    "subshell", "sx", "system", "tb", "unalias", "unload_ext", "uv", "who", "who_ls", "whos", "xmode",
})  # fmt: skip
HARMLESS_CELLS: Final = frozenset({
    "!", "HTML", "SVG", "bash", "html", "javascript", "js", "latex", "markdown", "perl", "pypy", "python", "python2",
    "python3", "ruby", "script", "sh", "svg", "sx", "system", "writefile", "file",
})  # fmt: skip


@functools.lru_cache(maxsize=4096)
def as_python(source: str) -> str:
    r"""Write a cell as a person typed it as the Python that IPython would make of it, as far as names are concerned.

    >>> as_python("%%time\nx = 1")
    "get_ipython().run_cell_magic('time', '', 'x = 1')"
    """
    if "%" not in source and "!" not in source and "?" not in source:
        return source
    lines = source.lstrip("\n")
    if lines.startswith("%%") and len(lines) > 2 and (lines[2].isalpha() or lines[2] in "_!"):
        head, _, body = lines.partition("\n")
        name, _, line = head[2:].partition(" ")
        return f"get_ipython().run_cell_magic({name!r}, {line.strip()!r}, {body!r})"
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return without_magics(source)
    return source


def without_options(line: str) -> str:
    """The line of a magic such as ``%timeit`` without the options it begins with."""
    return re.sub(r"^\s*(?:-(?:[nrt]\s*\d+|[a-z]\b|-[\w-]+)\s*)*", "", line, count=1) if "-" in line else line


def without_magics(text: str) -> str:
    """Write the magics of nested source as the calls that IPython would make of them."""
    lines = []
    for line in text.splitlines():
        match = re.match(r"^(\s*)((?:[\w., ]+=\s*)?)([%!]{1,2})(\w*)(.*)$", line)
        if match is None:
            lines.append(line.rstrip().rstrip("?") if line.rstrip().endswith("?") else line)
        elif match[3][0] == "%":
            lines.append(f"{match[1]}{match[2]}get_ipython().run_line_magic({match[4]!r}, {match[5].strip()!r})")
        else:
            lines.append(f"{match[1]}{match[2]}get_ipython().system({(match[4] + match[5])!r})")
    return "\n".join(lines)
