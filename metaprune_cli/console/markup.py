"""Tables of HTML, and SVG, as trees: tags balance and text is escaped because nothing is ever pasted."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from xml.etree import ElementTree as ET

from metaprune_cli.console.text import markup

LINES = frozenset({"tr", "section", "table", "g", "h3", "svg"})
"""What ends with a line break, so that a difference of two pages can be read."""


def element(tag: str, *children: object, **attributes: object) -> ET.Element:
    """An element.

    Args:
        tag: its name.
        *children: elements and text in their order; None is nothing, and an iterable stands for what is in it.
        **attributes: by name; a final ``_`` is dropped (``class_``), any other becomes ``-``. None is left out.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    made = ET.Element(tag, {key: _written(value) for key, value in named.items() if value is not None})
    for child in _flat(children):
        if isinstance(child, ET.Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def html_of(root: ET.Element) -> str:
    """An element as HTML."""
    for node in root.iter():
        if node.tag in LINES:
            node.tail = f"{node.tail or ''}\n"
    return ET.tostring(root, encoding="unicode", method="html")


def markup_text(text: str) -> str:
    """Text as it stands in HTML, between tags or between quotation marks."""
    return escape(markup(text), quote=True)


def _flat(children: Iterable[object]) -> Iterable[ET.Element | str]:
    for child in children:
        if isinstance(child, ET.Element):
            yield child
        elif isinstance(child, str | int | float):
            yield markup(str(child))
        elif isinstance(child, Iterable):
            yield from _flat(child)
        elif child is not None:
            raise TypeError(f"neither an element nor text: {child!r}")


def _written(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else markup(str(value))
