from __future__ import annotations

import io
import json
import re

import pytest

from metaprune_cli.console.figures import count, percent, plain, scientific, share, times
from metaprune_cli.console.table import WIDE, Column, Table, label

TABLE = Table(
    "Models",
    (label("name", "Name"), Column("macs", "MACs", count), Column("speedup", "Speed-up", times)),
    (
        {"name": "a|b", "macs": 12_540_000, "speedup": 2.0, "hidden": (1, 2)},
        {"name": "long" * 40, "macs": 999_999, "speedup": None},
    ),
)


def test_a_pipe_gets_every_cell_whole() -> None:
    stream = io.StringIO()
    TABLE.print(stream)
    assert "long" * 40 in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_every_rendering_shows_the_same_rows() -> None:
    stream = io.StringIO()
    TABLE.print(stream)
    for row in TABLE.rows:
        cells = [column.cell(row) for column in TABLE.columns]
        assert all(cell in stream.getvalue() for cell in cells)
        assert all(cell.replace("|", "\\|") in TABLE.markdown() for cell in cells)


def test_markdown_has_a_line_per_row_and_escapes_bars() -> None:
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "**Models**"
    assert lines[2:5] == ["| Name | MACs | Speed-up |", "| :-- | --: | --: |", "| a\\|b | 12.5 M | 2.00x |"]
    assert len(lines) == 6


def test_markup_in_a_cell_is_text() -> None:
    stream = io.StringIO()
    Table("[title]", (label("name", "[head]"),), ({"name": "[red]x[/red]"},)).print(stream)
    assert "[red]x[/red]" in stream.getvalue()
    assert "[title]" in stream.getvalue()
    assert "[head]" in stream.getvalue()


class Terminal(io.StringIO):
    """A terminal of 40 columns, as far as a table asks."""

    def isatty(self) -> bool:
        return True


NARROW = Table(
    "",
    (
        label("name", "Name"),
        Column("a", "Aaaaaa", minor=True),
        Column("b", "Bbbbbb"),
        Column("c", "Cccccc", minor=True),
    ),
    ({"name": "a-very-long-name-of-a-model.pruned-2x.safetensors", "a": 1, "b": 2, "c": 3},),
)


def test_a_narrow_terminal_gets_fewer_columns_and_names_without_their_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    NARROW.print(stream)
    shown = stream.getvalue()
    assert "a-very-long…safetensors" in shown
    assert "Bbbbbb" in shown
    assert "Aaaaaa" not in shown
    assert "2 more columns: --wide" in shown
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", shown).splitlines())) <= 40


def test_sentences_go_on_in_the_next_line_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    said = "mean of the squares of all weights that a unit owns, in and out, over its family's largest"
    Table(
        "",
        (label("name", "Criterion"), label("says", "Says"), Column("n", "N")),
        [{"name": "l2", "says": said, "n": 3}],
    ).print(stream)
    lines = re.sub(r"\x1b\[\d*m", "", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= 60
    assert "…" not in stream.getvalue()
    assert set(said.split()) <= set(stream.getvalue().split())


def test_names_are_not_shortened_until_they_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    names = [f"encoder.layers.encoder_layer_{place}.self_attention" for place in range(3)]
    Table("", NARROW.columns, [{"name": name, "a": 1, "b": 2, "c": 3} for name in names]).print(stream)
    shown = [row.split()[0] for row in stream.getvalue().splitlines() if "…" in row]
    assert len(set(shown)) == 3


def test_who_wants_it_wide_gets_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    token = WIDE.set(True)
    NARROW.print(stream)
    WIDE.reset(token)
    assert all(text in stream.getvalue() for text in ("Aaaaaa", "Cccccc", str(NARROW.rows[0]["name"])))
    assert "--wide" not in stream.getvalue()


def test_records_are_json() -> None:
    assert json.loads(json.dumps(TABLE.records()))[0]["macs"] == 12_540_000


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (count(0), "0"),
        (count(999), "999"),
        (count(1_000), "1 k"),
        (count(12_540_000), "12.5 M"),
        (count(999_999), "1 M"),
        (count(4.1e9), "4.1 G"),
        (times(2), "2.00x"),
        (percent(93.217), "93.22"),
        (share(0.421), "42.1 %"),
        (scientific(1.23e-7), "1.2e-07"),
        (plain(True), "yes"),
        (plain(0.123456), "0.1235"),
        (plain(7), "7"),
    ],
)
def test_figures(written: str, text: str) -> None:
    assert written == text
