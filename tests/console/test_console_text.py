"""Text on its way out: ordinary text as it is, everything else visible and harmless."""

from __future__ import annotations

import csv
import io
import re
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metaprune_cli.console.progress import Bars, Lines
from metaprune_cli.console.sheet import csv_text
from metaprune_cli.console.table import Table, label
from metaprune_cli.console.text import (
    LONGEST_LINE,
    cell,
    file_name,
    line,
    lines,
    markdown,
    markdown_code,
    markup,
    plotted,
    quoted,
)

ORDINARY = (
    "layer1.0.conv1.weight",
    "Größe · naïve — «été»",
    "网络 モデル 모델",
    "שלום مرحبا",
    "🙂 👩‍👩‍👧 ☕️",
    "می‌خواهم क्‍ष",  # with a zero width non-joiner and a joiner
    "12.5 M, 93.2 ± 0.4 % (2.50x → 4x)",
    "a b\u3000c\u00a0d",
    "resnet8_3.pruned-2x",
)
ONE_LINE = (line, markup, plotted, cell, file_name)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert {show(text) for show in (*ONE_LINE, lines, markdown)} == {text}
    assert markdown_code(text) == f"`{text}`"
    assert quoted(text) == f'"{text}"'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("gnp.\u202egnp", r"gnp.\u202egnp"),
        ("\u2066\u2069\u200b\u2028\u2029\ufeff", r"\u2066\u2069\u200b\u2028\u2029\ufeff"),
        ("a\u200db", r"a\u200db"),  # a joiner where nothing is joined
        ("é\u200d\u200d\u200dé", "é\\u200d\\u200d\\u200dé"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("\U000e0041\ufffe", r"\U000e0041\ufffe"),
    ],
)
def test_what_has_no_glyph_is_an_escape(text: str, shown: str) -> None:
    assert line(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_a_line_is_one_line_that_can_be_encoded_and_shown_again(text: str) -> None:
    shown = line(text)
    hidden = {letter for letter in shown if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}}
    assert not hidden
    shown.encode()
    assert line(shown) == shown


def test_lines_keep_their_breaks() -> None:
    assert lines("a\r\nb\n\tc\x1b") == "a\nb\n\tc\\x1b"


@pytest.mark.parametrize("show", [*ONE_LINE, lines, markdown, markdown_code])
def test_ten_megabytes_are_shortened_in_the_middle(show: object) -> None:
    assert callable(show)
    shown = show("a" * 5_000_000 + "b" * 5_000_000)
    assert len(shown) < 60_000
    assert re.fullmatch("`?a+…b+`?", shown)
    assert len(line("\x1b" * 10_000_000)) < 5 * LONGEST_LINE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("`code` *bold*", r"\`code\` \*bold\*"),
        ("![x](http://a)", r"!\[x\](http://a)"),
        ("a & b &lt; &#60;", "a & b &amp;lt; &amp;#60;"),
        ("# heading", r"\# heading"),
        ("> quote", r"\> quote"),
        ("a\n# heading", r"a\\n# heading"),
    ],
)
def test_markdown_is_text(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_a_code_span_ends_where_it_should() -> None:
    assert markdown_code("a`b") == "``a`b``"
    assert markdown_code("``a") == "``` ``a ```"
    assert markdown_code("a\n\n# b") == r"`a\n\n# b`"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", " =", "\t=", "\r-"])
def test_a_cell_begins_no_formula(start: str) -> None:
    text = csv_text([{"name": f"{start}cmd|' /C calc'!A0", "gain": -0.5, "top1": None}], ("name", "gain", "top1"))
    (name, gain, top1), *none = list(csv.reader(io.StringIO(text)))[1:]
    assert not none
    assert name.startswith(("'", "\\"))
    assert (gain, top1) == ("-0.5", "")


def test_a_heading_and_what_follows_a_semicolon_begin_no_formula() -> None:
    assert csv_text([{"=a": 1}], ("=a",)) == "'=a\n1\n"
    assert cell("x;=1+1") == "x;'=1+1"


@given(st.text(st.characters(exclude_categories=())))
def test_yaml_reads_back_what_was_quoted(text: str) -> None:
    assert yaml.safe_load(f"[{quoted(text)}]") == [text]


def test_a_file_stays_in_its_folder() -> None:
    assert file_name("../../etc/passwd") == "__.._etc_passwd"
    assert file_name("a\\b\n") == r"a_b_n"


def test_markup_of_rich_in_a_label_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console  # noqa: TID251 - the bars are rich's
    from rich.progress import Progress  # noqa: TID251

    with Progress(console=Console(quiet=True)) as view:
        Bars(view).begin("[red]\x1b[31m", 2)
        assert [task.description for task in view.tasks] == [r"[red]\x1b[31m"]
    plain = Lines()
    plain.begin("[red]\x1b[31m", 1)
    plain.step()
    plain.end()
    assert capsys.readouterr().err == "[red]\\x1b[31m: 1/1\n"


def test_a_table_is_text_in_every_rendering() -> None:
    table = Table("\x1b[31m[bold]", (label("a", "<b>|\x1b"),), ({"a": "=x|\u202e<script>\n"},))
    stream = io.StringIO()
    table.print(stream)
    assert r"\x1b[31m[bold]" in stream.getvalue()
    assert r"=x|\u202e<script>\n" in stream.getvalue()
    assert table.markdown() == (
        "**\\\\x1b\\[31m\\[bold\\]**\n\n| &lt;b>\\|\\\\x1b |\n| :-- |\n| =x\\|\\\\u202e&lt;script>\\\\n |\n"
    )
