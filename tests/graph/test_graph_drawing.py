"""The drawing: a picture that is whole, in which nothing overlaps, and which says what the graph says."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.drawing.outline import lanes, outline
from metaprune_cli.graph.drawing.svg import LETTER, MARK, draw

SVG = "{http://www.w3.org/2000/svg}"


class Part(nn.Module):
    """A residual part of two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(width, 5, 3, padding=1), nn.Conv2d(5, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.leave(self.enter(x).relu())


class Residual(nn.Module):
    """Two residual parts, then a head that reads the stem too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.part1, self.part2 = nn.Conv2d(1, 4, 1), Part(4), Part(4)
        self.wide, self.head = nn.Conv2d(4, 7, 1), nn.Linear(11, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x)
        wide = self.wide(self.part2(self.part1(first)).relu())
        return self.head(torch.cat([first, wide], dim=1).mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3 + 2 * n, 2) for n in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x).relu()], dim=1)
        return x


class Heads(nn.Module):
    """Attention over two heads of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.q, self.k, self.v, self.out = (nn.Linear(n, 6) for n in (5, 6, 6, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (layer(x).view(*x.shape[:2], 2, 3).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(2, 3)).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def graph_of(name: str) -> NeuronGraph:
    model, inputs = {
        "residual": (Residual(), torch.randn(1, 1, 4, 4)),
        "dense": (Dense(), torch.randn(1, 3)),
        "shared": (nn.Sequential(*[nn.Linear(3, 3)] * 3, nn.Linear(3, 2)), torch.randn(1, 3)),
        "heads": (Heads(), torch.randn(1, 4, 5)),
        "nothing": (nn.Identity(), torch.randn(1, 3)),
    }[name]
    return encode(model.eval(), inputs)


NAMES = ("residual", "dense", "shared", "heads", "nothing")


def picture(graph: NeuronGraph) -> ElementTree.Element:
    return ElementTree.fromstring(draw(graph, "a title"))


def boxes(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """The group of every layer's box, by the name that its tooltip begins with."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        words = group.findtext(f"{SVG}title") or ""
        if match := re.match(r"(\S+): \d+ neurons", words):
            found[match[1]] = group
    return found


def extents(root: ElementTree.Element) -> list[tuple[float, float, float, float, str]]:
    """Left, top, right, bottom of every text, from the width of its letters."""
    found = []
    for text in root.iter(f"{SVG}text"):
        words = text.text or ""
        width = LETTER * len(words) * (17 / 11 if text.get("class") == "title" else 1)
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        left = x - width if text.get("text-anchor") == "end" else x
        found.append((left, y - 9, left + width, y + 3, words))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_one_box(name: str) -> None:
    graph = graph_of(name)
    scores = [layer for layer in graph.layers if layer.start in graph.heads]  # a neuron a head: not drawn
    assert list(boxes(picture(graph))) == [layer.name for layer in graph.layers[1:] if layer not in scores]
    assert bool(scores) == (name == "heads")


@pytest.mark.parametrize("name", NAMES)
def test_no_text_meets_another_and_all_are_in_the_picture(name: str) -> None:
    root = picture(graph_of(name))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    texts = extents(root)
    for left, top, right, bottom, words in texts:
        assert left >= 0, words
        assert top >= 0, words
        assert right <= width, words
        assert bottom <= height, words
    for a, b in combinations(texts, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a[4], b[4])


@pytest.mark.parametrize("name", NAMES)
def test_boxes_go_down_in_order_of_execution(name: str) -> None:
    places = [group.find(f"{SVG}rect") for group in boxes(picture(graph_of(name))).values()]
    tops = [(float(rect.attrib["y"]), float(rect.attrib["height"])) for rect in places if rect is not None]
    assert all(upper + height < lower for (upper, height), (lower, _) in pairwise(tops))


def test_coupled_layers_have_one_colour_and_one_line() -> None:
    root = picture(graph_of("residual"))
    family = ("stem", "part1.leave", "part2.leave")
    colours = {name: {rect.get("stroke") for rect in group.iter(f"{SVG}rect")} for name, group in boxes(root).items()}
    assert len({frozenset(colours[name]) for name in family}) == 1
    assert colours["part1.enter"] == colours["wide"] != colours["stem"]
    line = next(group for group in root.iter(f"{SVG}g") if (group.get("stroke") in colours["stem"]))
    dots = line.findall(f"{SVG}circle")
    assert [dot.get("fill") == line.get("stroke") for dot in dots] == [False, True, True]
    assert line.findtext(f"{SVG}text") == "stem: 4 units in 3 layers"


def test_heads_hang_on_a_line_of_their_own() -> None:
    root = picture(graph_of("heads"))
    lines = {group.findtext(f"{SVG}text"): group for group in root.iter(f"{SVG}g") if group.get("stroke")}
    assert {"q: 3 units in 2 layers", "q: 2 heads in 3 layers"} <= set(lines)
    dots = lines["q: 2 heads in 3 layers"].findall(f"{SVG}circle")
    assert len(dots) == 3
    others = lines["q: 3 units in 2 layers"].findall(f"{SVG}circle")
    assert not {dot.get("cy") for dot in dots} & {dot.get("cy") for dot in others}
    assert "6, 3 units, 2 heads" in [words for *_, words in extents(root)]


def test_what_is_locked_is_hatched() -> None:
    graph = graph_of("residual")
    locked = {family.name for family in graph.units.families if family.locked}
    found = boxes(picture(graph))
    hatched = {n for n, group in found.items() if any("url" in r.get("fill", "") for r in group.iter(f"{SVG}rect"))}
    assert hatched == locked & set(found) == {"input", "head"}
    assert "locked: it is an output of the model" in (found["head"].findtext(f"{SVG}title") or "")


def test_tooltips_say_what_a_block_is() -> None:
    words = [title.text or "" for title in picture(graph_of("residual")).iter(f"{SVG}title")]
    assert "part1.enter.weight: kernel 3×3, 4 → 5, 180 parameters, 2.88 k MACs" in words
    assert "stem, read by head" in words


@pytest.mark.parametrize("name", NAMES)
def test_every_read_further_down_is_tapped(name: str) -> None:
    graph = graph_of(name)
    seen = outline(graph)
    taps = [circle for circle in picture(graph).iter(f"{SVG}circle") if circle.get("class") == "tap"]
    far = {
        (source, number)
        for number, row in enumerate(seen.rows)
        for reading in row.readings
        for source in reading.sources
        if source != number - 1
    }
    assert {(source, reader) for source, readers in seen.reads.items() for reader in readers} == far
    assert len(taps) == len(far) + 1  # one is in the legend
    assert name != "dense" or len(far) > 10


def test_parts_that_are_numbered_get_a_background() -> None:
    seen = outline(graph_of("residual"))
    assert [row.group for row in seen.rows] == ["", "", "part1", "part1", "part2", "part2", "", ""]
    assert [row.label for row in seen.rows[2:4]] == ["enter", "leave"]
    bands = [rect for rect in picture(graph_of("residual")).iter(f"{SVG}rect") if rect.get("class") == "band"]
    assert len(bands) == 2


def test_names_cannot_break_the_picture() -> None:
    model = nn.Sequential()
    model.add_module("<a & 'b'>\x01" + "x" * 200, nn.Linear(3, 3))
    graph = encode(model, torch.randn(1, 3))
    text = draw(graph, "</title>\x00")
    assert ElementTree.fromstring(text).findtext(f"{SVG}title") == r"</title>\x00"
    assert max(len(words) for *_, words in extents(ElementTree.fromstring(text))) < 120


def test_the_picture_stands_alone_and_is_marked() -> None:
    text = draw(graph_of("residual"))
    assert text.splitlines()[1] == MARK
    assert not re.search(r"(?<!xmlns=\")https?://|<image|<script|@import", text)
    assert text == draw(graph_of("residual"))


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda s: (s[0], s[0] + s[1])), max_size=20)


@given(SPANS)
def test_spans_in_one_lane_do_not_meet(spans: list[tuple[int, int]]) -> None:
    found = lanes(spans)
    assert len(found) == len(spans)
    for (a, b), (lane, other) in zip(combinations(spans, 2), combinations(found, 2), strict=True):
        assert lane != other or a[1] < b[0] or b[1] < a[0]


def test_what_starts_last_lies_innermost() -> None:
    assert lanes([(0, 9), (2, 9), (4, 9), (10, 12)]) == [2, 1, 0, 0]
