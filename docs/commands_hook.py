"""The reference of all commands: Typer writes it from the command line itself when the site is built."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

MARK = "<!-- every command -->"
TYPER = (sys.executable, "-m", "typer", "metaprune_cli.cli", "utils", "docs", "--name", "metaprune")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference where a page has the mark."""
    return markdown.replace(MARK, commands()) if MARK in markdown else markdown


def commands() -> str:
    """A heading for every command and what it takes, without Python's types."""
    written = subprocess.run(TYPER, check=True, capture_output=True, text=True).stdout
    return re.sub(r" <(list\[Path\]|path|str)>`", "`", written[written.index("\n## ") :])
