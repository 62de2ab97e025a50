"""How answers look: as plain text in a shell, as plain HTML in a notebook.

A command answers with a `View`: a few blocks (a paragraph, a table, a tree) over the records they show. A view draws
itself as text and as HTML from the same blocks. Everything in it is untrusted: text is stripped of control characters,
HTML is escaped, and neither holds script, style sheet or address to follow, so that a notebook from a stranger can be
shown without being trusted. The one image there may be is drawn here and stands in the page itself.
"""

from __future__ import annotations

import binascii
import datetime as dt
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from jupyter_mlops.errors import ExtraMissing

# C0 and C1 controls drive terminals; bidirectional marks reorder what a reader sees.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ANSI: Final = {"good": "\x1b[32m", "bad": "\x1b[31m", "dim": "\x1b[2m", "bold": "\x1b[1m"}
ANSWER: Final = '<div style="--jupyter-mlops:answer">'
"""What an answer begins with as HTML."""
_RESET: Final = "\x1b[0m"
_COLOUR: Final = {"good": "#1a7f37", "bad": "#c62828", "dim": "#767676"}


def clean(text: object, *, newlines: bool = False) -> str:
    r"""Make a recorded text safe to print: control characters become visible escapes.

    >>> clean("a\x1b[31mb\nc")
    'a\\x1b[31mb\\nc'
    """

    def escape(found: re.Match[str]) -> str:
        if newlines and found[0] in "\n\t":
            return found[0]
        return found[0].encode("unicode_escape").decode("ascii")

    return _CONTROL.sub(escape, str(text))


def width(text: str) -> int:
    """Columns a text takes in a terminal: East Asian wide characters take two, combining ones none.

    >>> width("résumé"), width("飞行")
    (6, 4)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def fit(text: str, columns: int) -> str:
    """Cut a text to a number of columns, with an ellipsis where it is cut."""
    if width(text) <= columns:
        return text
    kept = ""
    for one in text:
        if width(kept + one) > columns - 1:
            break
        kept += one
    return kept + "…"


def size(count: int | None) -> str:
    """Bytes as people read them.

    >>> size(8258905)
    '7.9 MiB'
    """
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{int(value)} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> duration(0.00034), duration(4.25), duration(3725)
    ('0.3 ms', '4.2 s', '1 h 2 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def when(time: str) -> str:
    """A record's time (UTC) in the reader's own zone, to the second."""
    try:
        moment = dt.datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC).astimezone()
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return clean(time)


def number(value: Any) -> str:
    """A metric as people read it: six significant digits.

    >>> number(0.8912345678), number(3), number("~nan")
    ('0.891235', '3', '~nan')
    """
    return f"{value:.6g}" if isinstance(value, float) else clean(value)


class Mark(msgspec.Struct, frozen=True):
    """A word with a meaning a colour supports, never replaces: ``good``, ``bad``, ``dim``, ``bold``."""

    text: str
    tone: str = "dim"

    def __str__(self) -> str:
        return self.text


class Text(msgspec.Struct, frozen=True):
    """Lines of text, kept as they are; `tone` as in `Mark`."""

    text: str
    tone: str = ""


class Table(msgspec.Struct, frozen=True):
    """Rows under headings. A row's cells are texts or marks; `right` are the columns set to the right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: frozenset[int] = frozenset()


class Facts(msgspec.Struct, frozen=True):
    """Names and what they are, one a line."""

    rows: Sequence[tuple[str, object]]


class Tree(msgspec.Struct, frozen=True):
    """Lines of two parts: one that is shown whole, and one that gives way where the line is full."""

    lines: Sequence[tuple[str, str]]


Block = Text | Table | Facts | Tree


class View(msgspec.Struct, frozen=True):
    """What a command answers: blocks to look at, and the records behind them.

    Attributes
    ----------
    title
        One line; empty for none.
    blocks
        What is shown.
    data
        The records or values shown, for use in code and for ``--json``.
    ok
        Whether the answer is yes, or the thing was done.
    code
        What a shell ends with where it is not.
    hint
        What to type next.
    png
        Draws a picture of it, for a notebook; called when the answer is shown.
    controls
        Makes a widget that is shown in its place where a kernel runs; called when the answer is shown.
    """

    title: str = ""
    blocks: Sequence[Block] = ()
    data: Any = None
    ok: bool = True
    code: int = 1
    hint: str = ""
    png: Callable[[], bytes] | None = None
    controls: Callable[[], Any] | None = None

    def text(self, *, colour: bool = False, columns: int | None = None) -> str:
        """Draw as plain text, `columns` wide at most (the terminal's width unless given)."""
        plain = all(isinstance(block, Text) for block in self.blocks)  # which is as wide as it is
        wide = columns or (0 if plain else max(60, _terminal()))
        parts = [_paint(clean(self.title), "bold", colour=colour)] if self.title else []
        parts += [_block_text(block, colour=colour, columns=wide) for block in self.blocks]
        if self.hint:
            parts.append(_paint(clean(self.hint, newlines=True), "dim", colour=colour))
        return "\n".join(part for part in parts if part)

    def html(self) -> str:
        """Draw as plain HTML."""
        parts = [f"<strong>{_html(self.title)}</strong>"] if self.title else []
        parts += [_block_html(block) for block in self.blocks]
        if self.hint:
            parts.append(f'<div style="color:{_COLOUR["dim"]}">{_html(self.hint)}</div>')
        return f"{ANSWER}{''.join(parts)}</div>"

    def json(self) -> str:
        """The records behind, as JSON in the spelling of the store."""
        from jupyter_mlops.records import encode  # what answers without records is not to load them

        return encode(self.data).decode()

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text(columns=120)

    def __bool__(self) -> bool:
        return self.ok

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": self.text(columns=120), "text/html": self.html()}
        if self.png is not None:
            try:
                picture = binascii.b2a_base64(self.png(), newline=False).decode()
            except ExtraMissing as error:
                bundle["text/html"] += _html(error)
            else:
                bundle["image/png"] = picture
                shown = f'<img alt="{_html(clean(self.title))}" src="data:image/png;base64,{picture}">'
                bundle["text/html"] = f"{shown}{bundle['text/html']}"
        if self.controls is not None:
            # What is made for the widget stays beside it: a viewer without a kernel shows the rest of the bundle.
            bundle = {**self.controls()._repr_mimebundle_(), **bundle}
        return bundle


def _terminal() -> int:
    import shutil  # it brings what unpacks archives

    return shutil.get_terminal_size((120, 24)).columns


def _paint(text: str, tone: str, *, colour: bool) -> str:
    return f"{_ANSI[tone]}{text}{_RESET}" if colour and tone in _ANSI and text else text


def _block_text(block: Block, *, colour: bool, columns: int) -> str:
    if isinstance(block, Text):
        return "\n".join(_paint(clean(line), block.tone, colour=colour) for line in block.text.rstrip("\n").split("\n"))
    if isinstance(block, Tree):
        return "\n".join(_line_text(clean(head), clean(tail), columns, colour=colour) for head, tail in block.lines)
    if isinstance(block, Facts):
        left = max((width(clean(name)) for name, _ in block.rows), default=0)
        return "\n".join(
            (
                f"{_paint(_pad(clean(name), left), 'dim', colour=colour)}  "
                + _cell(value, columns - left - 2, colour=colour)
            ).rstrip()
            for name, value in block.rows
        )
    return _table_text(block, colour=colour, columns=columns)


def _line_text(head: str, tail: str, columns: int, *, colour: bool) -> str:
    room = columns - width(head) - 2
    return f"{head}  {_paint(fit(tail, room), 'dim', colour=colour)}" if tail and room > _LEAST else head


_LEAST: Final = 8
"""Columns of code that are worth showing."""


def _table_text(table: Table, *, colour: bool, columns: int) -> str:
    headings = [clean(heading) for heading in table.headings]
    cells = [[clean(cell) for cell in row] for row in table.rows]
    widths = [max([width(heading), *(width(row[place]) for row in cells)]) for place, heading in enumerate(headings)]
    # The widest column gives way until the line fits: usually the free text.
    while sum(widths) + 2 * (len(widths) - 1) > columns and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    lines = [
        "  ".join(
            _paint(_pad(fit(heading, widths[place]), widths[place], right=place in table.right), "dim", colour=colour)
            for place, heading in enumerate(headings)
        ).rstrip()
    ]
    for row in table.rows:
        lines.append(
            "  ".join(
                _cell(cell, widths[place], pad=widths[place], right=place in table.right, colour=colour)
                for place, cell in enumerate(row)
            ).rstrip()
        )
    return "\n".join(lines)


def _cell(value: object, columns: int, *, pad: int = 0, right: bool = False, colour: bool) -> str:
    shown = fit(clean(value), max(columns, 1))
    shown = _pad(shown, pad, right=right) if pad else shown
    return _paint(shown, value.tone, colour=colour) if isinstance(value, Mark) else shown


def _pad(text: str, columns: int, *, right: bool = False) -> str:
    space = " " * max(0, columns - width(text))
    return space + text if right else text + space


def _html(value: object) -> str:
    import html  # a shell's answer needs no table of its entities

    shown = html.escape(clean(value, newlines=True))
    if isinstance(value, Mark) and value.tone in _COLOUR:
        return f'<span style="color:{_COLOUR[value.tone]}">{shown}</span>'
    return f"<strong>{shown}</strong>" if isinstance(value, Mark) and value.tone == "bold" else shown


def _block_html(block: Block) -> str:
    if isinstance(block, Text):
        style = f' style="color:{_COLOUR[block.tone]}"' if block.tone in _COLOUR else ""
        return f"<pre{style}>{_html(block.text)}</pre>"
    if isinstance(block, Tree):
        lines = (f"{_html(head)}  {_html(tail)}".rstrip() for head, tail in block.lines)
        return "<pre>" + "\n".join(lines) + "</pre>"
    if isinstance(block, Facts):
        rows: Iterable[Sequence[object]] = block.rows
        body = "".join(
            f'<tr><th scope="row" style="text-align:left">{_html(name)}</th>'
            f'<td style="text-align:left">{_html(value)}</td></tr>'
            for name, value in rows
        )
        return f"<table><tbody>{body}</tbody></table>"
    align = ["right" if place in block.right else "left" for place in range(len(block.headings))]
    head = "".join(
        f'<th scope="col" style="text-align:{align[place]}">{_html(heading)}</th>' if heading else "<td></td>"
        for place, heading in enumerate(block.headings)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:{align[place]}">{_html(cell)}</td>' for place, cell in enumerate(row))
        + "</tr>"
        for row in block.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
