"""What is said of parameters in words: on a command line, in YAML and JSON, in the environment.

A word is read as the notebook declares its parameter's type. No value of a secret and no line of a file is shown in an
error.
"""

from __future__ import annotations

import ast
import base64
import binascii
import contextlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from jupyter_mlops.pipelines.parameters import (
    Parameter,
    ParametersInvalid,
    Secret,
    as_float,
    convert,
    fits,
    inspect_parameters,
    listing,
    name_problem,
    secret_names,
    shown,
)
from jupyter_mlops.redact import Redactor, secret_name

_FILE_LIMIT: Final = 1 << 20
_TEXT_LIMIT: Final = 1 << 16
_FROM_ENVIRONMENT: Final = "@env:"
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse_parameter(name: str, text: str, known: Iterable[Parameter] | None = None) -> Any:
    """Read a parameter's value from a word of the shell, as the notebook declares its type.

    Without a declared type: numbers, ``True``, ``False`` and ``None`` are read as such, all else is text.

    >>> parse_parameter("alpha", "0.5", [Parameter(name="alpha", type="float")])
    0.5
    >>> parse_parameter("tag", "05", [Parameter(name="tag", type="str")])
    '05'

    Raises
    ------
    ParametersInvalid
        The text can not be read as the declared type.
    """
    problem = name_problem(name)
    if problem:
        raise ParametersInvalid(problem)
    table = {one.name: one for one in known or ()}
    wanted = table[name].type if name in table else ""
    for candidate in _readings(text):
        if fits(candidate, wanted):
            return as_float(candidate) if wanted == "float" and type(candidate) is int else candidate
    secret = secret_name(name) or (name in table and table[name].secret)
    said = "the value given" if secret else shown(repr(text[:60]))
    raise ParametersInvalid(f"{name} is to be {wanted}, and {said} can not be read as that", next=listing(table))


def _readings(text: str) -> Iterable[Any]:
    """What a word may mean, the most special first; a text is always the last."""
    stripped = text.strip()
    word = stripped.lower()
    if word in ("true", "false"):
        yield word == "true"
    elif word in ("none", "null"):
        yield None
    elif word in ("nan", "inf", "+inf", "-inf"):
        yield float(word)
    elif re.fullmatch(r"[+-]?\d{1,4000}", stripped):
        yield int(stripped)
    elif _NUMBER.fullmatch(stripped):
        yield float(stripped)
    elif stripped[:1] in ("[", "{", "(") and len(stripped) <= _TEXT_LIMIT:
        for read in (json.loads, ast.literal_eval):
            try:
                yield read(stripped)
                break
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue  # not in that notation
    yield text


def read_parameters(
    notebook: Path | str,
    pairs: Iterable[tuple[str, str]] = (),
    files: Path | str | Iterable[Path | str] | None = (),
    *,
    yaml: Iterable[str] = (),
    coded: Iterable[str] = (),
    raw: Iterable[tuple[str, str]] = (),
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Put together what a shell says. In papermill's order, the later going over the earlier.

    Parameters
    ----------
    notebook
        The notebook whose declared types say how a word is read.
    coded
        YAML texts in base64.
    files
        YAML or JSON files; see `read_parameters_file`.
    yaml
        YAML texts.
    pairs
        Names and words.
    raw
        Names and words that are texts, whatever they look like.
    environ
        Where ``@env:NAME`` is looked up, as a word of `pairs` or a text of a mapping's own level; such a value is a
        `Secret`. Unless given, these are texts as others.

    Raises
    ------
    NotebookUnreadable
        There is no such notebook.
    ParametersInvalid
        Something can not be read, does not fit its parameter's type, or is not in the environment.
    """
    known = inspect_parameters(notebook)
    found: dict[str, Any] = {}
    for text in coded:
        found.update(parse_yaml(_decoded(text), where="the text after -b"))
    for file in [files] if isinstance(files, str | Path) else files or ():
        found.update(read_parameters_file(file))
    for text in yaml:
        found.update(parse_yaml(text, where="the text after -y"))
    for name, value in found.items():
        if type(value) is str and from_environment(value) and environ is not None:
            found[name] = _looked_up(name, value, known, environ)
    for name, word in pairs:
        if from_environment(word) and environ is not None:
            found[name] = _looked_up(name, word, known, environ)
        else:
            found[name] = parse_parameter(name, word, known)
    found.update(raw)
    return convert(found, known)


def from_environment(word: str) -> bool:
    """Whether a word names a variable of the environment, and the value is there."""
    return word.startswith(_FROM_ENVIRONMENT)


def secrets_among(notebook: Path | str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The secret parameters whose values stand in words as they are."""
    declared_ = secret_names(inspect_parameters(notebook))
    return [
        name for name, word in pairs if word and not from_environment(word) and (name in declared_ or secret_name(name))
    ]


def told_apart(words: Mapping[str, str], notebook: Path | str) -> tuple[dict[str, str], dict[str, Any]]:
    """Tell words that may stand on a command line from those that may not, whose values are read.

    Returns
    -------
    tuple
        Words by name; values by name, of what is secret or looks like it.
    """
    known = inspect_parameters(notebook)
    hidden = secret_names(known)
    seen: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, word in words.items():
        secret = name in hidden or secret_name(name) or Redactor().text(word)[1] > 0
        if word.startswith(_FROM_ENVIRONMENT) or not secret:
            seen[name] = word
        else:
            values[name] = parse_parameter(name, word, [*known, *_as_text(name, known)])
    return seen, values


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode(), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ParametersInvalid("the text after -b can not be read as base64", cause=str(error)) from error


def _looked_up(name: str, word: str, known: Iterable[Parameter], environ: Mapping[str, str]) -> Secret:
    variable = word.removeprefix(_FROM_ENVIRONMENT)
    if variable not in environ:
        raise ParametersInvalid(
            f"{name} is to come from the environment, and there is no variable {variable[:60]!r}",
            next=f"export {variable[:60]}=…",
        )
    try:
        return Secret(parse_parameter(name, environ[variable], [*known, *_as_text(name, known)]))
    except ParametersInvalid as error:
        raise ParametersInvalid(
            f"{name} can not be read from the variable {variable[:60]!r}: its value is not of the declared type",
            next=error.next,
        ) from None  # the first message shows the value


def _as_text(name: str, known: Iterable[Parameter]) -> list[Parameter]:
    """A text is what a variable of the environment is, unless the notebook declares another type."""
    return [] if any(one.name == name and one.type for one in known) else [Parameter(name=name, type="str")]


def read_parameters_file(path: Path | str) -> dict[str, Any]:
    """Read parameters from a YAML (or JSON) file: plain values only, no aliases, dates stay texts.

    Parameters
    ----------
    path
        The file, of at most 1 MiB; ``-`` is standard input.

    Raises
    ------
    ParametersInvalid
        The file can not be read, is too large, uses aliases or tags, names a key twice, or is no mapping.
    """
    path = Path(path)
    where = "standard input" if str(path) == "-" else str(path)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (OSError, AttributeError) as error:  # a kernel's standard input has no bytes
        raise ParametersInvalid(f"{where} can not be read", cause=str(error)) from error
    if len(raw) > _FILE_LIMIT:
        raise ParametersInvalid(f"{where} is too large for parameters", cause="more than 1 MiB")
    return parse_yaml(raw, where=where)


def parse_yaml(raw: bytes | str, *, where: str = "the YAML text") -> dict[str, Any]:
    """Read parameters from YAML text, with the limits of `read_parameters_file`."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain values only: an alias can make kilobytes into gigabytes, a date has no literal form."""

        yaml_implicit_resolvers = {  # noqa: RUF012 (yaml reads it from the class)
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not allowed here")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = next((key for place, key in enumerate(keys) if isinstance(key, str) and key in keys[:place]), None)
            if twice is not None:
                raise yaml.YAMLError(f"{twice!r} is there twice")
            return dict(super().construct_mapping(node, deep=deep))

    try:
        found = yaml.load(raw, Loader=Loader)  # noqa: S506 (the loader is a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParametersInvalid(f"{where} can not be read as YAML", cause=_yaml_problem(error)) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ParametersInvalid(f"{where} is no mapping of names to values")
    return found


def _yaml_problem(error: Exception) -> str:
    """What is wrong and where; the line itself, which YAML would quote, may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return shown(str(error))
    return f"{getattr(error, 'problem', '')}, in line {mark.line + 1}, column {mark.column + 1}"
