"""A neuron graph as a picture: one SVG text that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from metaprune_cli.console.figures import count
from metaprune_cli.console.text import line, markup
from metaprune_cli.graph.drawing.outline import Outline, Reading, Row, lanes, outline
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.units import Family

MARK = "<!-- drawn by metaprune inspect -->"
"""The second line of every drawing, by which a drawing of ours is known."""

# Okabe and Ito's colours, told apart by colour-blind readers; yellow is left out, it cannot be seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#7A5195")
ALONE = "#8A99A8"
LOCKED = "#5B6168"
LINE, BAR = "#66707A", "#52606D"
BOX_HEIGHT, ROW_GAP, GROUP_HEADER, GROUP_FOOT = 26, 14, 24, 12
LANE, BUS = 9, 13  # distance of two lanes on the left, of two couplings on the right
LETTER = 6.7  # width of a monospaced letter of 11 px, rounded up
MARGIN, TOP, SECOND_COLUMN = 24, 184, 372
PORT = 5  # how far reads enter above, and leave below, the middle of a box
LONGEST = 48  # letters of a name
STYLE = f"""
text {{ font: 11px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1F2933; }}
.title {{ font-size: 17px; font-weight: bold; }} .group {{ font-size: 10.5px; fill: #52606D; }}
.figures {{ fill: #52606D; }} .band {{ fill: #F3F5F7; stroke: #D5DBE1; }}
.read {{ fill: none; stroke: {LINE}; stroke-width: 1.2; }} .tap {{ fill: {LINE}; }}
.hit {{ fill: none; stroke: transparent; stroke-width: 9; pointer-events: stroke; }}
.bus {{ fill: none; stroke-width: 3; stroke-linecap: round; }} .stub {{ fill: none; stroke-width: 1.6; }}
.leader {{ stroke-width: 1; stroke-dasharray: 1 3; }}
g:hover > .read {{ stroke: #000; stroke-width: 2.4; }} g:hover > .bus {{ stroke-width: 5; }}
"""
DEFINITIONS = f"""<defs>
<marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" \
orient="auto"><path d="M0 0.5 8 4 0 7.5z" fill="{LINE}"/></marker>
<pattern id="locked" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<rect width="7" height="7" fill="#F1F1F1"/><rect width="2" height="7" fill="#D3D5D8"/></pattern>
</defs>"""


@dataclass(frozen=True)
class Place:
    """Where everything lies, in pixels.

    Attributes:
        left: left edge of the boxes.
        box_width: their width.
        tops: upper edge of every row's box.
        read_lane: for every row of ``Outline.reads`` its lane on the left.
        bus_lane: for every family of ``Outline.couplings`` its lane on the right.
        names: where the names of the couplings begin.
        width: of the whole picture.
        height: of the whole picture.
    """

    left: float
    box_width: float
    tops: tuple[float, ...]
    read_lane: dict[int, int]
    bus_lane: dict[int, int]
    names: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Right edge of the boxes."""
        return self.left + self.box_width

    @property
    def spine(self) -> float:
        """Where a layer's arrow goes down to the next: right of the groups' names."""
        return self.left + 0.8 * self.box_width

    def middle(self, row: int) -> float:
        """Half the height of a row's box."""
        return self.tops[row] + BOX_HEIGHT / 2

    def lane_x(self, source: int) -> float:
        """The lane on the left on which ``source`` is led to those that read it."""
        return self.left - 22 - LANE * self.read_lane[source]

    def bus_x(self, family: int) -> float:
        """The line on the right that couples the layers of ``family``."""
        return self.right + 24 + BUS * self.bus_lane[family]


def draw(graph: NeuronGraph, title: str = "neuron graph") -> str:
    """The graph as an SVG: layers from top to bottom in order of execution, what reads what, and what is coupled.

    Every layer is a box with its kernel and width. Coupled layers, which lose their units together, have one colour and
    hang on one line on the right; what is locked is hatched. Weights are arrows, their figures are in the tooltips.

    Args:
        graph: what to draw.
        title: the heading.
    """
    seen, families = outline(graph), graph.units.families
    place = _place(seen, families)
    colours = _colours(seen, families)
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        MARK,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {place.width:g} {place.height:g}" '
        f'width="{place.width:g}" height="{place.height:g}" role="img">',
        f"<title>{_text(title)}</title>",
        f"<style>{STYLE}</style>",
        DEFINITIONS,
        '<rect width="100%" height="100%" fill="#FFFFFF"/>',
        *_heading(graph, title),
        *_bands(seen, place),
        *_couplings(seen, families, colours, place),
        *_reads(seen, place),
        *_boxes(seen, families, colours, place),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(seen: Outline, families: Sequence[Family]) -> Place:
    rows = seen.rows
    reads = lanes([(min(source, *readers), max(source, *readers)) for source, readers in seen.reads.items()])
    buses = lanes([(members[0], members[-1]) for members in seen.couplings.values()])
    letters = max(len(_short(row.label)) + len(_width(row)) + 3 for row in rows)
    headers = max(len(_short(row.group)) for row in rows)
    box_width = max(letters * LETTER + 20, headers * LETTER / 0.75, 180)
    left = MARGIN + 30 + LANE * (max(reads, default=-1) + 1)
    names = left + box_width + 40 + BUS * (max(buses, default=-1) + 1)
    longest = max((len(_coupling_name(families[f], len(m))) for f, m in seen.couplings.items()), default=0)
    tops, y = [], float(TOP)
    for number, row in enumerate(rows):
        before = rows[number - 1].group if number else ""
        if row.group != before:
            y += (GROUP_FOOT if before else 0) + (GROUP_HEADER if row.group else 0)
        tops.append(y)
        y += BOX_HEIGHT + ROW_GAP
    return Place(
        left,
        box_width,
        tuple(tops),
        dict(zip(seen.reads, reads, strict=True)),
        dict(zip(seen.couplings, buses, strict=True)),
        names,
        max(names + longest * LETTER + MARGIN, 2 * MARGIN + SECOND_COLUMN + 364),
        y + MARGIN,
    )


def _colours(seen: Outline, families: Sequence[Family]) -> dict[int, str]:
    """A colour for every family: one of its own where it couples several layers, grey where it is locked."""
    colours = {number: ALONE if family.locked is None else LOCKED for number, family in enumerate(families)}
    free = [number for number in seen.couplings if families[number].locked is None]
    colours.update((number, COLOURS[turn % len(COLOURS)]) for turn, number in enumerate(free))
    return colours


def _heading(graph: NeuronGraph, title: str) -> Iterable[str]:
    units = graph.units
    params = sum(graph.tensors[name].numel() for name in graph.trainable)
    yield f'<text class="title" x="{MARGIN}" y="38">{_text(_short(title))}</text>'
    yield (
        f'<text class="figures" x="{MARGIN}" y="58">{count(params)} parameters, {count(graph.macs)} MACs, '
        f"{len(units.families)} families, {int(units.prunable.sum())} of {units.num_units} units not locked</text>"
    )
    yield from _legend(MARGIN, 76)


def _legend(left: float, top: float) -> Iterable[str]:
    """Two columns of samples with their meaning."""
    x, middle = left + SECOND_COLUMN, left + SECOND_COLUMN + 17
    arrow = 'marker-end="url(#arrow)"'
    tap = f'<circle class="tap" cx="{middle:g}" cy="{top + 30:g}" r="2.6"/>'
    samples = (
        (_fill(left, top, 34, 16, COLOURS[0]), "layers of one colour lose their units together"),
        (_fill(left, top + 22, 34, 16, ALONE), "its units can go alone"),
        (_fill(left, top + 44, 34, 16, None), "locked (the tooltip says why)"),
        (f'<rect x="{left:g}" y="{top + 73:g}" width="34" height="2" fill="{BAR}"/>', "MACs of what makes the layer"),
        (f'<path class="read" d="M{x:g} {top + 8:g}h34" {arrow}/>', "weights (figures in the tooltip)"),
        (
            f'<path class="read" d="M{middle:g} {top + 22:g}v16M{middle:g} {top + 30:g}h17" {arrow}/>{tap}',
            "read further down",
        ),
        (_dot(middle, top + 52, COLOURS[0], full=True), "added to, or multiplied with, an earlier layer"),
        (_dot(middle, top + 74, COLOURS[0], full=False), "the first, or coupled otherwise"),
    )
    for number, (sample, words) in enumerate(samples):
        column, row = divmod(number, 4)
        text_x, text_y = left + SECOND_COLUMN * column + 44, top + 12 + 22 * row
        yield f'{sample}<text class="figures" x="{text_x:g}" y="{text_y:g}">{words}</text>'


def _bands(seen: Outline, place: Place) -> Iterable[str]:
    """A background behind the layers of one part of the network, and its name."""
    first = 0
    for number, row in enumerate(seen.rows):
        last = number + 1 == len(seen.rows)
        if not last and seen.rows[number + 1].group == row.group:
            continue
        if row.group:
            top, bottom = place.tops[first] - GROUP_HEADER + 2, place.tops[number] + BOX_HEIGHT + 8
            yield (
                f'<rect class="band" x="{place.left - 10:g}" y="{top:g}" width="{place.box_width + 20:g}" '
                f'height="{bottom - top:g}" rx="6"/>'
            )
            yield f'<text class="group" x="{place.left:g}" y="{top + 14:g}">{_text(_short(row.group))}</text>'
        first = number + 1


def _couplings(seen: Outline, families: Sequence[Family], colours: dict[int, str], place: Place) -> Iterable[str]:
    """One vertical line for each family that lies in several layers, with its name beside the first of them."""
    free_y = 0.0
    for number in sorted(seen.couplings, key=lambda f: (seen.couplings[f][0], _port(seen, seen.couplings[f][0], f))):
        members, x, colour = seen.couplings[number], place.bus_x(number), colours[number]
        ports = [place.middle(row) + _port(seen, row, number) for row in members]
        first, last = ports[0], ports[-1]
        stubs = "".join(f"M{place.right:g} {y:g}H{x:g}" for y in ports)
        added = [families[number].kind == "channels" and seen.rows[row].joined for row in members]
        dots = "".join(_dot(x, y, colour, full=full) for y, full in zip(ports, added, strict=True))
        y = free_y = max(first, free_y + 14)
        yield f'<g stroke="{colour}"><title>{_text(_family_words(families[number]))}</title>'
        yield f'<path class="leader" fill="none" d="M{x:g} {first:g}H{place.names - 12:g}L{place.names - 4:g} {y:g}"/>'
        yield f'<path class="bus" d="M{x:g} {first:g}V{last:g}"/><path class="stub" d="{stubs}"/>'
        name = _text(_coupling_name(families[number], len(members)))
        yield f'{dots}<text x="{place.names:g}" y="{y + 4:g}" stroke="none">{name}</text></g>'


def _port(seen: Outline, row: int, family: int) -> float:
    """How far below the middle of a row's box a family's line begins: side by side where there are several."""
    here = [number for number, members in seen.couplings.items() if row in members]
    return (here.index(family) - (len(here) - 1) / 2) * min(8, (BOX_HEIGHT - 8) / len(here))


def _reads(seen: Outline, place: Place) -> Iterable[str]:
    """Arrows down to the next layer; lanes on the left to those further away."""
    for source, readers in seen.reads.items():
        x, start = place.lane_x(source), place.middle(source) + PORT
        ends = [start, *(place.middle(row) - PORT for row in readers)]
        path = f"M{place.left:g} {start:g}H{x:g}M{x:g} {min(ends):g}V{max(ends):g}"
        words = f"{seen.rows[source].name}, read by {', '.join(seen.rows[row].name for row in readers)}"
        yield _hoverable("", path, words)
    for number, row in enumerate(seen.rows):
        sources = {source for reading in row.readings for source in reading.sources}
        words = "\n".join(_reading_words(reading) for reading in row.readings)
        far = sorted(place.lane_x(source) for source in sources if source != number - 1)
        if far:
            y = place.middle(number) - PORT
            taps = "".join(f'<circle class="tap" cx="{x:g}" cy="{y:g}" r="2.6"/>' for x in far)
            yield _hoverable("arrow", f"M{far[0]:g} {y:g}H{place.left:g}", words, taps)
        if number - 1 in sources:
            path = f"M{place.spine:g} {place.tops[number - 1] + BOX_HEIGHT:g}V{place.tops[number]:g}"
            yield _hoverable("arrow", path, words)


def _boxes(seen: Outline, families: Sequence[Family], colours: dict[int, str], place: Place) -> Iterable[str]:
    most = max((row.macs for row in seen.rows), default=0) or 1
    for number, row in enumerate(seen.rows):
        x, y = place.left, place.tops[number]
        yield f"<g><title>{_text(_row_words(row, families))}</title>"
        for family, neurons in row.families:
            width = place.box_width * neurons / row.size
            yield _fill(x, y, width, BOX_HEIGHT, None if families[family].locked else colours[family])
            x += width
        bar = (place.box_width - 8) * row.macs / most
        if bar >= 1:
            bar_y = y + BOX_HEIGHT - 3.5
            yield f'<rect x="{place.left + 4:g}" y="{bar_y:g}" width="{bar:.1f}" height="2" fill="{BAR}"/>'
        yield f'<text x="{place.left + 8:g}" y="{y + 16:g}">{_text(_short(row.label))}</text>'
        end = f'x="{place.right - 8:g}" y="{y + 16:g}" text-anchor="end"'
        yield f'<text class="figures" {end}>{_text(_width(row))}</text></g>'


def _fill(x: float, y: float, width: float, height: float, colour: str | None) -> str:
    """A box in a light tint of ``colour``, hatched where there is none."""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height}" rx="4"'
    if colour is None:
        return f'<rect {place} fill="url(#locked)" stroke="{LOCKED}"/>'
    return f'<rect {place} fill="#FFFFFF"/><rect {place} fill="{colour}" fill-opacity="0.2" stroke="{colour}"/>'


def _dot(x: float, y: float, colour: str, *, full: bool) -> str:
    inside = colour if full else "#FFFFFF"
    return f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{inside}" stroke="{colour}" stroke-width="1.6"/>'


def _hoverable(marker: str, path: str, words: str, more: str = "") -> str:
    """A line with a tooltip, and a wider invisible one over it, so that it can be pointed at."""
    end = f' marker-end="url(#{marker})"' if marker else ""
    return (
        f'<g><title>{_text(words)}</title><path class="hit" d="{path}"/><path class="read" d="{path}"{end}/>{more}</g>'
    )


def _width(row: Row) -> str:
    """Kernel and number of neurons, and how many units and heads that is."""
    kernels = {"×".join(map(str, r.kernel)) + (f"/{r.size[0]}" if r.size[0] > 1 else "") for r in row.readings}
    kernel = next(iter(kernels)) if len(kernels) == 1 else ""
    parts = [str(row.size)]
    if row.units != row.size:
        parts.append(_number(row.units, "unit"))
    if row.heads:
        parts.append(_number(row.heads, "head"))
    return " · ".join([kernel, ", ".join(parts)] if kernel else [", ".join(parts)])


def _row_words(row: Row, families: Sequence[Family]) -> str:
    lines = [f"{row.name}: {row.size} neurons", *(_family_words(families[number]) for number, _ in row.families)]
    lines += [_family_words(families[number]) for number in row.head_families]
    lines += [_reading_words(reading) for reading in row.readings]
    if row.product_macs:
        lines.append(f"products of activations: {count(row.product_macs)} MACs")
    return "\n".join(lines)


def _family_words(family: Family) -> str:
    fate = "can go" if family.locked is None else f"locked: {family.locked}"
    return f"family {family.name}: {_size(family)}, {fate}"


def _reading_words(reading: Reading) -> str:
    groups, out, into, taps = reading.size
    kernel = f"kernel {'×'.join(map(str, reading.kernel))}, " if taps > 1 else ""
    grouped = f"{groups} groups of " if groups > 1 else ""
    size = f"{count(groups * out * into * taps)} parameters, {count(reading.macs)} MACs"
    return f"{reading.param}: {kernel}{grouped}{into} → {out}, {size}"


def _coupling_name(family: Family, layers: int) -> str:
    locked = "" if family.locked is None else ", locked"
    return f"{_short(family.name)}: {_size(family)} in {layers} layers{locked}"


def _size(family: Family) -> str:
    return _number(family.units.numel(), "unit" if family.kind == "channels" else "head")


def _number(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _short(name: str) -> str:
    """The name, its middle left out where it is very long."""
    name = line(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2 - 1]}…{name[-LONGEST // 2 :]}"


def _text(words: str) -> str:
    """Fit for XML."""
    return escape(markup(words))
