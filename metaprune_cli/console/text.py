"""Text from elsewhere on its way out: a function for each kind of output, which shows it and lets it do nothing else.

Names, reasons and paths come from files, from the command line and from other people's code. In a terminal a control
character can clear the screen or set a title, in Markdown a ``|`` ends a cell, in a spreadsheet a ``=`` begins a
formula. Whatever writes for people passes its text through here, at the last moment: everywhere else it stays as it is.
Ordinary text, in any script, comes out as it went in.
"""

from __future__ import annotations

import re
from unicodedata import category

LONGEST_LINE = 2_000
LONGEST_TEXT = 50_000
LONGEST_LABEL = 100
"""Characters; of what is longer, the middle is left out."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories without a glyph: controls, formats (directions, zero width), lone surrogates, line separators."""
_JOINERS = "\u200c\u200d"  # zero width non-joiner and joiner: Persian, Indic scripts and emoji are written with them
_MARKDOWN = re.compile(r"[\\`*$\[\]|]|^[#>]")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[=+\-@＝＋－＠])")
_NO_FILE_NAME = re.compile(r"[/\\\0]|^\.+")


def line(text: str, longest: int = LONGEST_LINE) -> str:
    r"""One line for a terminal: what has no glyph is written as an escape, such as ``\x1b``, ``\u202e`` or ``\n``."""
    short = _shortened(text, longest)
    return short if short.isprintable() else _escaped(short)


def lines(text: str) -> str:
    """Several lines for a terminal: as :func:`line`, but line breaks and tabs stay."""
    return _escaped(_shortened(text.replace("\r\n", "\n"), LONGEST_TEXT), keep="\n\t")


def markdown(text: str) -> str:
    """Text inside a line of Markdown: neither HTML, nor a link, nor the end of a table's cell."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", line(text))
    return _ENTITY.sub("&amp;", escaped).replace("<", "&lt;")


def markdown_code(text: str) -> str:
    """A code span of Markdown, in which nothing can be escaped: its fence is longer than any in the text."""
    shown = line(text)
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markup(text: str) -> str:
    """Text of an element or attribute before it is quoted: XML forbids most controls, even as references."""
    return lines(text)


def plotted(text: str) -> str:
    """A label in a picture, in which there is no room for more than a few words."""
    return line(text, LONGEST_LABEL)


def cell(value: object) -> object:
    """A value as a cell of a CSV file: text cannot begin a formula, numbers are numbers.

    Spreadsheets compute a cell that begins with one of ``= + - @``, a tab or a return, and can be made to start
    programs by it (OWASP, "CSV Injection"); a ``'`` before it makes it text. Where lists are separated by ``;``, as in
    half of Europe, a cell can begin in the middle of one of ours.
    """
    return _FORMULA.sub("'", line(value)) if isinstance(value, str) else value


def quoted(text: str) -> str:
    """A double-quoted scalar of YAML, whole: JSON's would write letters beyond the first plane as two surrogates."""
    backslashed = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{_escaped(backslashed)}"'


def file_name(text: str) -> str:
    """Part of a file's name, which stays in its folder."""
    return _NO_FILE_NAME.sub("_", line(text, LONGEST_LABEL))


def _shortened(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def _escaped(text: str, keep: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(
        letter if letter in keep or not _is_hidden(letter) or _joins(text, place) else _escape(letter)
        for place, letter in enumerate(text)
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _is_hidden(letter: str) -> bool:
    code = ord(letter)
    is_no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return is_no_character or category(letter) in _HIDDEN


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands where one is written: between two letters, marks or symbols that are not ASCII."""
    if text[place] not in _JOINERS or not 0 < place < len(text) - 1:
        return False
    return all(not near.isascii() and not _is_hidden(near) for near in (text[place - 1], text[place + 1]))
