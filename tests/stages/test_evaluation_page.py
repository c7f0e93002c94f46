"""The HTML report: well-formed, self-contained, escaped, and with every figure of the other renderings."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import row, three_arms
from PIL import Image
from torch import nn

from metaprune_cli.models import Architecture
from metaprune_cli.reports.gallery import Shown, Wall
from metaprune_cli.reports.page import PAGE, Contents, html
from metaprune_cli.reports.picture import METHODS_COLOURS, MORE_COLOURS, STYLES
from metaprune_cli.reports.plots import DARK, ticks
from metaprune_cli.reports.png import png_of
from metaprune_cli.reports.report import models_table
from metaprune_cli.reports.rows import Row
from metaprune_cli.reports.summary import summarise
from metaprune_cli.reports.verdicts import page_tables, verdicts
from metaprune_cli.reports.widths import Family, Widths, widths_of
from metaprune_cli.workflows.loading import Opened

VOID = {"meta", "br", "img", "link", "input", "hr"}
EVIL = "<script>alert('1')</script> & \"quoted\""


class Checker(HTMLParser):
    """Collects what is wrong with a page, and what is in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.cells: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [name for name, _ in attrs if name in ("src", "href", "xlink:href", "action", "srcset", "data")]
        assert not any(name.startswith("on") for name, _ in attrs), tag
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "td" in self.open:
            self.cells[-1] += data


def contents(rows: Sequence[Row], widths: Sequence[Widths] = (), **further: str) -> Contents:
    lineage = ({"command": "zoo", "input": None, "seed": 3}, {"command": "prune", "input": "a.pt", "requested": 2.0})
    return Contents(
        rows,
        summarise(rows),
        {"Images": "the 539 test images of digits", **further},
        {row.name: lineage for row in rows},
        widths,
        "metaprune eval a b --report x.html",
        {"metaprune": "0.1.0"},
    )


def some_widths(arm: str = "metanet", after: int = 3) -> Widths:
    families = (Family("stem", 8, after, None), Family("head", 10, 10, "it is an output of the model"))
    return Widths("cifar:resnet8", "net-0", arm, 2.0, families)


@pytest.fixture(scope="module")
def page() -> str:
    rows = three_arms()
    return html(contents(rows, [some_widths("plain", 8), some_widths()]))


def test_tags_balance_and_nothing_comes_from_outside(page: str) -> None:
    found = Checker(page)
    assert found.open == []
    assert found.links == []
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(found.tags)
    assert not re.search(r"url\(|@import|https?:", page)
    assert found.tags.count("main") == found.tags.count("h1") == 1
    assert page.startswith("<!DOCTYPE html>\n<html")


def test_every_cell_of_the_tables_is_there(page: str) -> None:
    rows = three_arms()
    cells = Checker(page).cells
    tables = [*page_tables(summarise(rows)), models_table(rows)]
    assert cells == [column.cell(record) for table in tables for record in table.rows for column in table.columns]


def test_the_page_opens_with_the_verdict() -> None:
    figures = {"plain": (90.0, 88.0), "metanet": (91.0, 89.0)}
    rows = [row("whole", "plain", "unpruned", None, 92.0)]
    for arm, (after, before) in figures.items():
        rows += [row(f"{arm}-pruned", arm, "pruned", 2.0, before), row(f"{arm}-tuned", arm, "finetuned", 2.0, after)]
    text = html(contents(rows))
    verdict = text.index("fewer multiply-adds")
    assert text.index("<h1>") < verdict < text.index("<h2>")
    assert "top-1 92.0 → 91.0 %; best of 2 arms: metanet</p>" in text
    assert text.index("How it was measured") > text.index("All models")


def test_what_was_not_finetuned_is_beside_what_was() -> None:
    rows = [row("a", "plain", "pruned", 2.0, 80.0), row("b", "plain", "finetuned", 2.0, 90.0)]
    table = page_tables(summarise(rows))[0]
    cells = {column.title: column.cell(table.rows[0]) for column in table.columns}
    assert (cells["as pruned"], cells["finetuned"]) == ("80.00", "90.00")


def test_heads_and_channels_of_one_layer_are_named_apart() -> None:
    families = (Family("attn", 32, 30, None), Family("attn", 4, 3, None, "heads"))
    text = html(contents(three_arms(), [replace(some_widths(), families=families)]))
    assert "attn, metanet: 30 of 32 are left" in text
    assert "attn (heads), metanet: 3 of 4 are left" in text


def test_density_is_a_column_where_something_is_sparse() -> None:
    rows = [replace(row("a"), density=0.999), replace(row("b"), density=1.0)]
    titles = [column.title for column in models_table(rows).columns]
    assert "Density" not in titles
    assert "Density" in [column.title for column in models_table([replace(rows[0], density=0.5)]).columns]


def test_every_mean_is_a_point_with_a_tooltip(page: str) -> None:
    summary = summarise(three_arms())
    for group in summary.groups:
        if group.step != "unpruned":
            assert f"{group.arm}: {group.headline.mean:.2f} ± " in page
    assert page.count('class="dot ') == sum(group.step != "unpruned" for group in summary.groups)
    assert page.count('class="chart"') == len(summary.steps)


def test_widths_are_the_plans(page: str) -> None:
    assert "stem, plain: 8 of 8 are left (100 %)" in page
    assert "stem, metanet: 3 of 8 are left (37.5 %)" in page
    lengths = [float(length) for length in re.findall(r'width="([0-9.]+)" height="\d+" class="left"', page)]
    assert lengths[1] == pytest.approx(lengths[0] * 3 / 8, abs=0.1)
    assert "head: it is an output of the model" in page
    assert "head, metanet" not in page


def test_widths_are_means_over_the_models_of_one_network() -> None:
    other = replace(some_widths(after=6), origin="net-1")
    larger = replace(some_widths(), families=(Family("stem", 16, 4, None),))
    text = html(contents(three_arms(), [some_widths(after=3), other, larger]))
    assert "stem, metanet: 4.5 of 8 are left" in text
    assert "stem, metanet: 4 of 16 are left" in text
    assert "cifar:resnet8, 2 models" in text
    assert "cifar:resnet8, 1 model<" in text


def test_whatever_a_name_holds_is_text() -> None:
    rows = [replace(row("a", arm="plain"), name=EVIL), replace(row("b", arm="metanet"), name="b")]
    widths = replace(some_widths(), architecture=EVIL, families=(Family(EVIL, 4, 2, None), Family("x", 4, 4, EVIL)))
    text = html(replace(contents(rows, [widths], Note=EVIL), command=EVIL))
    found = Checker(text)
    assert (found.open, "script" in found.tags) == ([], False)
    assert "".join(found.text).count(EVIL) >= 6


def test_lineages_leave_out_what_was_not_done() -> None:
    lineage = ({"command": "finetune", "input": "x.pt", "recalibrated": False, "digest": "f" * 64, "scored": True},)
    text = html(replace(contents([row("a")]), lineages={"a": lineage, "b": ()}))
    assert "<b>finetune</b> x.pt, digest ffffffffffff…, scored</li>" in text
    assert "not recorded in its file" in text


def test_without_pruned_models_every_model_is_a_point() -> None:
    rows = [row("a", step="unpruned", requested=None), row("b", arm="metanet", step="unpruned", requested=None)]
    text = html(contents(rows))
    assert Checker(text).open == []
    assert text.count('class="dot ') == 2
    assert "Arms compared" not in text


def test_a_mean_below_the_axis_is_named_at_its_edge() -> None:
    rows = [row("a", arm, "pruned", 2.0, top1) for arm, top1 in (("plain", 90.0), ("uniform", 92.0), ("random", 10.0))]
    assert "10\N{DOWNWARDS ARROW}" in html(contents(rows))


@pytest.mark.parametrize("values", [(0.0, 100.0), (97.2, 98.4), (1.9, 6.6), (-3.0, 0.02), (40.0, 41.0)])
def test_ticks_are_few_round_and_inside(values: tuple[float, float]) -> None:
    found = ticks(*values)
    assert 3 <= len(found) <= 7
    assert values[0] <= found[0] <= found[-1] <= values[1]
    assert all(len(f"{value:g}") <= 5 for value in found)


def test_every_dark_colour_stands_for_one_of_the_pictures() -> None:
    assert set(DARK) <= {*(colour for colour, _ in STYLES.values()), *METHODS_COLOURS, *MORE_COLOURS}


def test_a_model_without_a_plan_has_no_widths(tmp_path: Path) -> None:
    opened = Opened(nn.Identity(), Architecture("cifar:resnet8"), (), tmp_path / "a.safetensors")
    assert widths_of(opened, "plain") is None
    families = [{"name": "stem", "before": 8, "after": 3, "kept": [0, 1, 2], "locked": None}]
    pruned = replace(opened, lineage=({"command": "prune", "requested": 2.0},), pruning={"families": families})
    found = widths_of(pruned, "plain")
    assert found is not None
    assert (found.arm, found.requested, found.families) == ("plain", 2.0, (Family("stem", 8, 3, None),))


def test_a_page_is_known_by_its_mark(tmp_path: Path) -> None:
    text = html(contents([row("a")]))
    PAGE.write(tmp_path / "x.html", text)
    PAGE.check(tmp_path / "x.html", "--report")
    assert PAGE.mark in text[:300]


def test_pictures_are_in_the_page_whole_and_bit_for_bit() -> None:
    """Text is shortened where it is endless; a picture is no text."""
    pixels = torch.randint(0, 256, (3, 160, 160), dtype=torch.uint8)
    shown = Shown(EVIL, EVIL, png_of(pixels))
    page = html(replace(contents(three_arms()), gallery=[Wall(EVIL, ((shown, shown),))]))
    checked = Checker(page)
    assert not checked.open
    assert checked.tags.count("img") == 2
    assert "script" not in checked.tags
    sources = re.findall(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)" alt="&lt;script', page)
    for source in sources:
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(source, validate=True))))
        assert np.array_equal(found, pixels.permute(1, 2, 0).numpy())
    assert "img-src data:" in page
    assert "img-src" not in html(contents(three_arms()))


def test_a_verdict_names_no_gain_in_time_where_the_machine_was_busy() -> None:
    steady = [replace(one, latency_ms=2.0, latency_p90_ms=2.5, latency_speedup=1.7) for one in three_arms()]
    assert all("faster here" in verdict for verdict in verdicts(summarise(steady)))
    busy = [replace(one, latency_p90_ms=25.0) if one.step == "unpruned" else one for one in steady]
    assert verdicts(summarise(busy))
    assert not any("faster" in verdict for verdict in verdicts(summarise(busy)))
