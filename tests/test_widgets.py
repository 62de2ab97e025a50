"""What people are shown: safe, aligned, the same in a shell and a notebook."""

from __future__ import annotations

import html.parser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_mlops.widgets import Facts, Mark, Table, Text, Tree, View, clean, fit, width

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</pre><svg onload=alert(1)>",
    "\x1b]0;owned\x07\x1b[2J",
    "a\r\nb",
    "\u202egnp.exe",
    "\ud800",
    "&lt;b&gt;",
]


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))


def everywhere(text: str) -> View:
    return View(
        title=text,
        blocks=[
            Text(text),
            Table((text,), [(text,), (Mark(text, "bad"),)]),
            Facts([(text, text)]),
            Tree([(text, text)]),
        ],
        hint=text,
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_recorded_text_is_never_markup_or_a_terminal_command(text: str) -> None:
    view = everywhere(text)
    tags = Tags()
    tags.feed(view.html())
    assert {tag for tag, _ in tags.seen} <= {
        "div",
        "strong",
        "pre",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
    }
    assert all(name in {"style", "scope"} for _, attributes in tags.seen for name, _ in attributes)
    plain = view.text(columns=80)
    assert not any(one in plain for one in "\x1b\x07\r\u202e")
    view.html().encode()
    plain.encode()


@given(st.text())
def test_cleaned_text_can_be_printed_anywhere(text: str) -> None:
    shown = clean(text)
    shown.encode()
    assert "\n" not in shown
    assert all(one.isprintable() or one.isspace() or ord(one) > 0xA0 for one in shown)


@given(st.text(max_size=30), st.integers(1, 40))
def test_a_fitted_text_fits(text: str, columns: int) -> None:
    assert width(fit(text, columns)) <= columns


def test_columns_of_a_table_stand_under_their_headings() -> None:
    table = Table(("name", "size"), [("飞行", "1"), ("flights", "20")], right=frozenset({1}))
    assert View(blocks=[table]).text(columns=80).splitlines() == ["name     size", "飞行        1", "flights    20"]


def test_a_wide_table_gives_way_in_its_widest_column() -> None:
    lines = View(blocks=[Table(("a", "b"), [("x" * 300, "short")])]).text(columns=60).splitlines()
    assert max(map(width, lines)) <= 60
    assert lines[1].endswith("…  short")


def test_an_answer_of_no_is_false() -> None:
    assert not View(ok=False)
    assert View()


def test_of_a_tree_the_code_gives_way_and_never_what_names_a_cell_run() -> None:
    tree = Tree([("4a9f3c " + "│  " * 30, "x = 1"), ("4a9f3c", "y" * 200), ("4a9f3c  as above", "")])
    lines = View(blocks=[tree]).text(columns=80).splitlines()
    assert lines == ["4a9f3c " + "│  " * 30, "4a9f3c  " + "y" * 71 + "…", "4a9f3c  as above"]
    assert "y" * 200 in View(blocks=[tree]).html()
