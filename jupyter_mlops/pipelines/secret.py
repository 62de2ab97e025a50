"""Secret parameters: values that a notebook gets and that nothing keeps.

A parameter is secret that has a secret's name, that the notebook declares one (``key: "Secret" = ""``, or a comment
that begins with ``secret:``), whose value the redactor knows for a secret, or that is passed as a `Secret`, as words of
the form ``@env:NAME`` are.

Papermill writes values into a cell, and a cell is kept. So the injected cell asks for a secret as it would a person,
``key = getpass("key")``, and the engine answers on the kernel's own channel for input: the value stands in no code,
message of the record, command line or environment, no extension has to be loaded, and whoever runs the output notebook
again by hand is asked. What a cell then prints of it is masked before it gets into the output notebook.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from jupyter_mlops.pipelines.parameters import (
    INJECTED_TAG,
    PARAMETERS_TAG,
    Parameter,
    Secret,
    revealed,
    secret_names,
    tags_of,
)

if TYPE_CHECKING:
    from jupyter_mlops.redact import Redactor

TEACH: Final = "jupyter_mlops"
"""What the extension is asked with for all that it must mask."""

_TEXTS: Final = ("text", "data", "evalue", "traceback", "ename")
_TAIL: Final = 1 << 13


def split(
    parameters: Mapping[str, Any], known: Iterable[Parameter] | None, redactor: Redactor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the parameters that may be seen from those that are secret, whose values the redactor learns.

    Returns
    -------
    tuple
        Two mappings of names to plain values; the second holds the secrets.
    """
    names = secret_names(known)
    seen: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    for name, value in parameters.items():
        plain = revealed(value)
        empty = plain is None or plain is True or plain is False or plain == ""
        secret = isinstance(value, Secret) or name in names or redactor.secret_name(name)
        # An empty default of a secret tells nothing, and is how a notebook is run without one.
        if (secret and not empty) or redactor.value({name: plain})[1]:
            hidden[name] = plain
        else:
            seen[name] = plain
    for name, value in hidden.items():
        redactor.learn_name(name)
        for text in texts(value):
            redactor.learn(text)
    return seen, hidden


def placeholders(hidden: Mapping[str, Any], redactor: Redactor) -> dict[str, str]:
    """What stands on record for secret values."""
    return {name: redactor.placeholder(_spelled(value)) for name, value in hidden.items()}


def texts(value: Any) -> Iterator[str]:
    """The texts in a value that give it away where they are seen."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def conceal(nb: Any, seen: Mapping[str, Any], hidden: Mapping[str, Any], marks: Mapping[str, str], kernel: str) -> None:
    """Have a notebook's injected cell ask for the secrets, and its metadata name them only.

    Parameters
    ----------
    nb
        The notebook as papermill has prepared it.
    seen, hidden
        Parameters as `split` tells them apart.
    marks
        What stands for the secrets in the notebook's metadata.
    kernel
        The kernel's name, for papermill's translation of what may be seen.
    """
    from nbformat.v4 import new_code_cell
    from papermill.translators import translate_parameters

    lines = translate_parameters(kernel, "python", dict(seen), "Parameters").rstrip("\n").split("\n")
    lines += [_asking(name, value) for name, value in hidden.items()]
    source = "\n".join(lines) + "\n"
    cells = nb.cells
    place = next((at for at, cell in enumerate(cells) if INJECTED_TAG in tags_of(cell)), None)
    if place is None:
        place = 1 + next((at for at, cell in enumerate(cells) if PARAMETERS_TAG in tags_of(cell)), -1)
        cell = new_code_cell(metadata={"tags": [INJECTED_TAG]})
        cell["id"] = INJECTED_TAG
        cells.insert(place, cell)
    cells[place]["source"] = source
    nb.metadata.setdefault("papermill", type(nb.metadata)())["parameters"] = {**seen, **marks}


def _asking(name: str, value: Any) -> str:
    ask = f'__import__("getpass").getpass("{name}")'
    return f"{name} = {ask}" if isinstance(value, str) else f'{name} = __import__("json").loads({ask})'


async def answer(client: Any, hidden: Mapping[str, Any]) -> None:
    """Answer a kernel's questions for secrets, by the name it asks with, until cancelled."""
    while True:
        try:
            message = await client.get_stdin_msg(timeout=1)
        except queue.Empty:
            continue
        asked = message["content"].get("prompt", "")
        if asked == TEACH:
            client.input(json.dumps({name: list(texts(value)) for name, value in hidden.items()}))
        elif asked in hidden:
            client.input(_spelled(hidden[asked]))
        else:
            client.input("\x04")  # nobody is there to answer: an end of file


class Masking:
    """Masks known secrets in what a kernel sends, before anything keeps it.

    Parameters
    ----------
    mask
        Masks a text, and counts what it masked.
    """

    def __init__(self, mask: Callable[[str], tuple[str, int]]) -> None:
        self.mask = mask

    def text(self, text: str) -> str:
        """A text without the secrets."""
        return self.mask(text)[0]

    def message(self, content: dict[str, Any]) -> None:
        """Mask the texts of an output's message."""
        for part in _TEXTS:
            if part in content:
                content[part] = self._all(content[part])

    def _all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.mask(value)[0]
        if isinstance(value, dict):
            return {self._all(key): self._all(item) for key, item in value.items()}
        return [self._all(item) for item in value] if isinstance(value, list) else value

    def seam(self, outputs: list[Any]) -> None:
        """Mask what has come in two pieces: joins a short piece to the one before it, and looks across a long one."""
        if len(outputs) < 2:
            return
        before, last = outputs[-2:]
        if not (before["output_type"] == last["output_type"] == "stream" and before["name"] == last["name"]):
            return
        if len(before["text"]) < _TAIL:
            before["text"] = self.text(before["text"] + last["text"])
            del outputs[-1]
            return
        head, tail = before["text"][:-_TAIL], before["text"][-_TAIL:]
        masked, count = self.mask(tail + last["text"])
        if count:
            before["text"], last["text"] = head + masked, ""
