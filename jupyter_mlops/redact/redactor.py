"""The search of one text, and the placeholders that stand for what it found."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

from blake3 import blake3

from jupyter_mlops.redact.formats import MOST, Span, by_first_letter, issued_tokens
from jupyter_mlops.redact.names import MASKED, PLAIN, UNREADABLE, secret_name
from jupyter_mlops.redact.structure import assignments, lowered, structures


class Redactor:
    """Masks secrets in texts, and remembers which placeholder stands for which value.

    Parameters
    ----------
    known
        Values that are secret wherever they stand; shorter than six characters they are not looked for.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._key = secrets.token_bytes(32)
        self._numbers: dict[bytes, int] = {}
        self._next = itertools.count(1)
        self._known: set[str] = set()
        self._names: set[str] = set()
        self._told = False
        self._pattern: re.Pattern[str] | None = None
        for value in known:
            self._remember(value)
        self._compile()

    def learn(self, value: str) -> None:
        """Mask this exact value from now on: a secret that somebody has given to this process."""
        if self._remember(value):
            self._told = True
            self._compile()

    def learn_name(self, name: str) -> None:
        """Take this very name for a secret's from now on: what somebody declared to be one."""
        self._names.add(name)

    def placeholder(self, value: str) -> str:
        """What stands for a value that is secret as a whole; the same for the same value."""
        return f"<redacted:assigned:{self._number(value)}>"

    def known(self, text: str) -> tuple[str, int]:
        """Mask the known values of a text, and nothing that only looks like a secret; as `text` does it."""
        try:
            spans = list(itertools.islice(self._values_in(text), MOST + 1))
            return (UNREADABLE, 1) if len(spans) > MOST else self._mask(text, spans) if spans else (text, 0)
        except Exception:  # noqa: BLE001
            # As in `text`.
            return UNREADABLE, 1

    def text(self, text: str) -> tuple[str, int]:
        """Mask the secrets of a text.

        Returns
        -------
        tuple
            The masked text, and how many secrets were masked. Where the search itself fails, the whole text is
            replaced by `UNREADABLE`, and the count is 1.
        """
        try:
            spans = self._spans(text)
            return self._mask(text, spans) if spans else (text, 0)
        except Exception:  # noqa: BLE001
            # Whatever went wrong, the text was not fully searched: withholding it is the only safe answer.
            return UNREADABLE, 1

    def value(self, value: Any) -> tuple[Any, int]:
        """Mask the secrets in nested builtin containers; what stands under a secret name is masked whole.

        Values of other types are passed on untouched.
        """
        return self._value(value, 0)

    def secret_name(self, name: str) -> bool:
        """Whether a variable of this name holds a secret; see `secret_name`."""
        return name in self._names or secret_name(name)

    def secret(self, name: str, value: object) -> bool:
        """Whether a variable must get no digest: its name says so, or it is a text that holds a secret."""
        if self.secret_name(name):
            return True
        if type(value) is str:
            return len(value) <= 65536 and self.text(value)[1] > 0
        if self._told and type(value) in _CONTAINERS:
            return self._holds(value)
        return type(value) is bytes and len(value) <= 4096 and self.text(value.decode("latin-1"))[1] > 0

    def _holds(self, value: Any) -> bool:
        """Whether a builtin container holds a known value within its first few hundred items."""
        left, waiting = _LOOKED_AT, [value]
        try:
            while waiting and left > 0:
                one = waiting.pop()
                if type(one) is str:
                    if self.known(one[:_LONG])[1]:
                        return True
                elif type(one) in _CONTAINERS:
                    items = [*one, *one.values()] if type(one) is dict else one
                    waiting += itertools.islice(items, left)
                left -= 1
        except RuntimeError:  # another thread changes it meanwhile: nobody knows then
            return True
        return False

    # -- inside ------------------------------------------------------------------------------------------------------

    def _remember(self, value: str) -> bool:
        if type(value) is not str or len(value.strip()) < 6 or value.strip().lower() in PLAIN:
            return False
        before = len(self._known)
        self._known.update(_spellings(value))
        return len(self._known) > before

    def _compile(self) -> None:
        self._pattern = _pattern_of(self._known)

    def _spans(self, text: str) -> list[Span]:
        spans: list[Span] = []
        low = lowered(text)
        # What is withheld for its many candidates is so before anything else is looked for.
        for rule in (assignments(text, low), structures(text, low), issued_tokens(text), self._values_in(text)):
            for span in rule:
                spans.append(span)
                if len(spans) > MOST:
                    raise OverflowError("too many secrets")
        return spans

    def _values_in(self, text: str) -> Iterator[Span]:
        """Known values, wherever they stand."""
        pattern = self._pattern
        if pattern is not None and len(text) > _LONG:
            # in a long text, to look for each value first is faster than to look for all at once
            pattern = _pattern_of([value for value in self._known if value in text])
        match = pattern.search(text) if pattern is not None else None
        while match is not None and pattern is not None:
            yield *match.span(), "known"
            # one character on, not to the end: two known values may overlap
            match = pattern.search(text, match.start() + 1)

    def _mask(self, text: str, spans: list[Span]) -> tuple[str, int]:
        spans.sort(key=lambda span: (span[0], -span[1]))
        merged: list[list[Any]] = []
        for start, end, kind in spans:
            if merged and start < merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end, kind])
        parts: list[str] = []
        at = count = 0
        for start, end, kind in merged:
            if MASKED.fullmatch(text, start, end):
                continue
            parts += (text[at:start], f"<redacted:{kind}:{self._number(text[start:end])}>")
            at, count = end, count + 1
        parts.append(text[at:])
        return "".join(parts), count

    def _number(self, value: str) -> int:
        name = blake3(value.encode("utf-8", "surrogatepass"), key=self._key).digest()
        number = self._numbers.get(name)
        # no lock, which a forked child could find taken for ever: setdefault is one step
        return self._numbers.setdefault(name, next(self._next)) if number is None else number

    def _value(self, value: Any, depth: int) -> tuple[Any, int]:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if depth > 32:
            return UNREADABLE, 1
        if kind is dict:
            masked: dict[Any, Any] = {}
            total = 0
            for key, item in value.items():
                if type(key) is str and self.secret_name(key) and type(item) in (str, int, float, bytes):
                    if item in ("", b"") or (type(item) is str and MASKED.fullmatch(item)):
                        masked[key] = item
                        continue
                    masked[key] = f"<redacted:assigned:{self._number(str(item))}>"
                    total += 1
                    continue
                clean, count = self._value(key, depth + 1) if type(key) in (str, tuple) else (key, 0)
                masked[clean], more = self._value(item, depth + 1)
                total += count + more
            return masked, total
        if kind in (list, tuple, set, frozenset):
            pairs = [self._value(item, depth + 1) for item in value]
            return kind(item for item, _ in pairs), sum(count for _, count in pairs)
        return value, 0


_LONG: Final = 4096
_LOOKED_AT: Final = 512
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)


def _pattern_of(values: Iterable[str]) -> re.Pattern[str] | None:
    """What finds any of some values; of two that begin at one place, the longer."""
    ordered = sorted(values, key=lambda value: (-len(value), value))
    return re.compile(by_first_letter((value, _edge(value)) for value in ordered)) if ordered else None


def _edge(value: str) -> str:
    """A short word is looked for as a word, so that a password ``summer`` does not mask ``summertime``."""
    return r"(?![A-Za-z0-9_])" if _wordlike(value) else ""


def _wordlike(value: str) -> bool:
    return len(value) < 12 and value.isascii() and value.isalpha() and value in (value.lower(), value.title())


def _spellings(value: str) -> Iterator[str]:
    """A value as it stands, and as it is written in a URL, in a literal, in JSON, in HTML, or in base64."""
    yield value
    stripped = value.strip()
    if stripped != value:
        yield stripped
    if "\n" in stripped:  # a key over several lines: each of them gives it away
        yield from (line.strip() for line in stripped.splitlines() if len(line.strip()) >= 16 and "-----" not in line)
        yield stripped.replace("\n", "\\n")
    raw = stripped.encode("utf-8", "surrogateescape")
    for other in (
        quote(raw, safe=""), quote_plus(raw), repr(stripped)[1:-1], base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="), raw.hex(), html.escape(stripped),
        json.dumps(stripped)[1:-1],
    ):  # fmt: skip
        if other != stripped and len(other) >= 6:
            yield other
