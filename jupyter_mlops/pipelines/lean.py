"""Has `nbformat` imported without the second that its validator needs where JupyterLab is installed.

JupyterLab brings `rfc3987_syntax` along, which `jsonschema` imports to check internationalized addresses, and which
compiles a grammar as it is imported: 1.1 s, as long as a kernel takes to start and pandas to be imported. A notebook
holds no such address. So `jsonschema` is given the check in a form that imports the grammar when it is first asked.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any, Final

_GRAMMAR: Final = "rfc3987_syntax"


def _is_valid_syntax(term: str, value: str) -> Any:
    return importlib.import_module(_GRAMMAR).is_valid_syntax(term, value)


def _import() -> None:
    if "jsonschema" in sys.modules or _GRAMMAR in sys.modules or importlib.util.find_spec(_GRAMMAR) is None:
        return
    late: Any = types.ModuleType(_GRAMMAR)
    late.is_valid_syntax = _is_valid_syntax
    sys.modules[_GRAMMAR] = late
    try:
        importlib.import_module("jsonschema")
    finally:
        del sys.modules[_GRAMMAR]  # whoever else imports it gets it as it is


_import()
