"""Rectangles, arrows, lines and words of SVG: all that the pictures of these pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

INK, GREY, PALE = "#1f2933", "#7b8794", "#d9e2ec"
TEAL, ORANGE, VIOLET, SAND = "#00796b", "#d9730d", "#6a4fb3", "#f5f7fa"
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'font-family="Helvetica, Arial, sans-serif" font-size="14" role="img" aria-label="{title}">'
)
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    f'<path d="M0 0 L8 4 L0 8 z" fill="{GREY}"/></marker></defs>'
)


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A whole file, on white, so that it can be read on a dark page too."""
    head = HEAD.format(width=width, height=height, title=escape(title, quote=True))
    ground = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
    return "\n".join([head, TIP, ground, *parts, "</svg>", ""])


def words(x: float, y: float, text: str, *, color: str = INK, size: int = 14, anchor: str = "middle") -> str:
    """One line of text; ``y`` is its base line."""
    return f'<text x="{x:g}" y="{y:g}" fill="{color}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def box(x: float, y: float, width: float, height: float, text: str, *, fill: str = SAND, edge: str = GREY) -> str:
    """A rectangle with lines of text in its middle, the first one larger."""
    lines = text.split("\n")
    first = y + height / 2 - 9 * (len(lines) - 1) + 5
    inside = [words(x + width / 2, first, lines[0])]
    inside += [words(x + width / 2, first + 18 * n, line, color=GREY, size=12) for n, line in enumerate(lines[1:], 1)]
    frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="{edge}"/>'
    return "\n".join([frame, *inside])


def arrow(*points: tuple[float, float], text: str = "") -> str:
    """A line through the points with a tip at the last; the text stands above the middle of the first stretch."""
    way = " ".join(f"{x:g},{y:g}" for x, y in points)
    line = f'<polyline points="{way}" fill="none" stroke="{GREY}" stroke-width="1.5" marker-end="url(#tip)"/>'
    (x1, y1), (x2, y2) = points[:2]
    return line + (words((x1 + x2) / 2, (y1 + y2) / 2 - 8, text, color=GREY, size=12) if text else "")


def curve(points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False) -> str:
    """A line with a dot at every point."""
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    line = f'<polyline points="{way}" fill="none" stroke="{color}" stroke-width="2.5"{dash}/>'
    return "\n".join([line, *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in points)])


def rule(x1: float, y1: float, x2: float, y2: float, color: str = PALE) -> str:
    """A thin line."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}"/>'


def cells(x: float, y: float, colors: Sequence[str], size: float = 14, gap: float = 3) -> str:
    """A column of small squares, one for each colour."""
    return "\n".join(
        f'<rect x="{x:g}" y="{y + n * (size + gap):g}" width="{size:g}" height="{size:g}" rx="2" fill="{color}"/>'
        for n, color in enumerate(colors)
    )
