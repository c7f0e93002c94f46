"""HTML and the SVG inside it, built as a tree: tags balance and text is escaped because nothing is ever pasted."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from metaprune_cli.console.text import markup

LINES = frozenset({"tr", "section", "table", "g", "article", "details", "h1", "h2", "h3", "p", "li", "svg", "style"})
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


def page(root: ET.Element) -> str:
    """A whole HTML document."""
    for node in root.iter():
        if node.tag in LINES:
            node.tail = f"{node.tail or ''}\n"
    return f"<!DOCTYPE html>\n{ET.tostring(root, encoding='unicode', method='html')}\n"


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
