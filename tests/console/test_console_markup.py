"""Markup: balanced tags and escaped text, whatever the text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaprune_cli.console.markup import element, html_of, markup_text
from metaprune_cli.console.table import Column, Table, label


class Reader(HTMLParser):
    """The text and the attributes of a page, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.attributes: list[str | None] = []

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [value for _, value in attrs]


WORDS = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cn", "Cs", "Zl", "Zp")), max_size=30)


@given(WORDS, WORDS, WORDS)
def test_text_comes_back_as_it_was(first: str, second: str, attribute: str) -> None:
    reader = Reader()
    reader.feed(html_of(element("p", first, element("b", second), first, title=attribute)))
    reader.close()
    assert reader.text.strip("\n") == f"{first}{second}{first}".strip("\n")
    assert reader.attributes == [attribute]


def test_children_may_be_nested_numbers_or_nothing() -> None:
    made = element("p", [None, "a", (1, element("b", 2.5))], "z", class_="x", aria_hidden=None, stroke_width=1.25)
    assert html_of(made) == '<p class="x" stroke-width="1.25">a1<b>2.5</b>z</p>'


@given(WORDS)
def test_text_in_a_template_comes_back_as_it_was(text: str) -> None:
    reader = Reader()
    reader.feed(f'<p title="{markup_text(text)}">{markup_text(text)}</p>')
    reader.close()
    assert (reader.text, reader.attributes) == (text, [text])


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(TypeError, match="neither an element nor text"):
        element("p", object())


def test_a_table_has_the_cells_of_every_other_rendering() -> None:
    columns = (label("name", "Name"), Column("size", "<Size>", lambda value: f"{value} m"))
    text = html_of(Table("A & B", columns, [{"name": "<i>", "size": 2}, {"name": "b", "size": None}]).html())
    assert "<h3>A &amp; B</h3>" in text
    assert '<th scope="col" class="figure">&lt;Size&gt;</th>' in text
    assert '<tr><td>&lt;i&gt;</td><td class="figure">2 m</td></tr>' in text
    assert '<tr><td>b</td><td class="figure"></td></tr>' in text
