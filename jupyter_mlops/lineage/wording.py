"""How reasons are worded: names that are gathered later, in the singular and the plural, and few of many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

TOLD: Final = 4
"""Names that are told before the rest is counted."""

# What a reason says of names that are not gathered yet, in the singular and the plural.
N: Final = "\x01"
WAS, HAS, IS, IT, ITIS, COME = (
    f"\x02{one}\x03{many}\x04"
    for one, many in (
        ("was", "were"), ("has", "have"), ("is", "are"), ("it", "them"), ("it is", "they are"), ("comes", "come"),
    )
)  # fmt: skip
_NUMBER: Final = re.compile("\x02(.*?)\x03(.*?)\x04")


def worded(reason: str, names: Sequence[str]) -> str:
    """Put the names into a reason, and its words into their number."""
    return _NUMBER.sub(r"\2" if len(names) > 1 else r"\1", reason).replace(N, few(names))


def comes(names: Sequence[str]) -> str:
    """`come` or `comes`."""
    return "come" if len(names) > 1 else "comes"


def few(names: Sequence[str], quote: str = "`") -> str:
    """The first names, and how many more there are."""
    shown = [f"{quote}{name}{quote}" for name in names[:TOLD]]
    if len(names) > TOLD:
        return ", ".join(shown) + f" and {len(names) - TOLD} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def brief(source: str) -> str:
    """The first line of a text that says something, cut short."""
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0] if lines else ""
    short = first if len(first) <= 40 else first[:39] + "…"
    return f"`{short}`" + (" …" if len(lines) > 1 and not short.endswith("…") else "")
