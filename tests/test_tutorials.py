"""Every guide is run, in an empty folder, and what its page shows has to come out.

A page has text and three kinds of fenced blocks. One with a file's name as its title is written to that file. ``bash``
blocks run one after the other in one shell, which ends at the first command that fails. What a ``text`` block shows is
what the ``bash`` block before it prints: each line, in this order, perhaps with others between; ``…`` stands for
anything, and under the title "for example" any number for any other. Nothing else may be fenced.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_python import WarmPython

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "start.md", *sorted((DOCS / "tutorials").glob("*.md"))]
IMAGENET = {
    "IMAGENET": "images",
    "MODEL": "mobilenet_v3_small",
    "WEIGHTS": "",
    "SIZE": "32",
    "EPOCHS": "1",
    "WORKERS": "0",
}
MINIATURE = {"imagenet": {**IMAGENET, "GPUS": "2", "BATCH": "8", "LR": "0.01"}}
"""What the first lines of a page read from the environment: small values here."""

FENCED = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
EXAMPLE = "for example"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?: [kMG]\b)?")
BETWEEN = "=== the next block ==="


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str
    text: str


def blocks_of(page: str) -> list[Block]:
    return [Block(*found) for found in FENCED.findall(page)]


def script_of(blocks: list[Block]) -> str:
    """All of a page's commands, with a line between the outputs of two blocks."""
    commands = (block.text for block in blocks if block.language == "bash")
    return "set -euo pipefail\n" + f"\necho '{BETWEEN}'\n".join(commands)


def shown_by(blocks: list[Block]) -> Iterator[tuple[int, Block]]:
    """What a page shows, each with the number of the ``bash`` block that prints it."""
    number = -1
    for block in blocks:
        number += block.language == "bash"
        if block.language == "text":
            yield number, block


def missing(shown: Block, output: str) -> str | None:
    """The first line that is shown and does not come out; None if all do."""
    masked = shown.title == EXAMPLE
    lines = iter([plain(line, masked) for line in output.splitlines()])
    for line in filter(str.strip, shown.text.splitlines()):
        pattern = re.escape(plain(line, masked)).replace("…", ".*")
        if not any(re.fullmatch(pattern, came) for came in lines):
            return line
    return None


def plain(line: str, masked: bool) -> str:
    """A line without what depends on the widths of columns, perhaps without its numbers."""
    line = NUMBER.sub("#", line) if masked else line
    return re.sub(r"─+", "─", " ".join(line.split()))


def images(folder: Path) -> None:
    """Forty pictures of two classes, one darker than the other."""
    generator = np.random.default_rng(0)
    for number in range(40):
        label, part = divmod(number, 20)
        place = folder / ("train" if part < 16 else "test") / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(90 * label, 90 * label + 160, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{part}.jpg")


@pytest.mark.parametrize(
    ("shown", "output", "lacking"),
    [
        ("a   1.5\n──\nb …", "before\n a 1.5\n─────\nbetween\nb 7 c", None),
        ("a 1.5", "a 1.6", "a 1.5"),
        ("b\na", "a\nb", "a"),
        ("a", "a b", "a"),
    ],
)
def test_lines_that_do_not_come_out_are_found(shown: str, output: str, lacking: str | None) -> None:
    assert missing(Block("text", "", shown), output) == lacking


def test_examples_have_other_numbers_but_the_same_words() -> None:
    example = Block("text", EXAMPLE, "Top-1 97.5 %  1.2 k  2e-16  0.8–1.1")
    assert missing(example, "Top-1 9 % 88 M 0.0e+00 1–2") is None
    assert missing(example, "Top-1 9 % 88 M 0.0e+00") is not None


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmPython]:
    with WarmPython() as python:
        yield python


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_guide_does_what_it_shows(page: Path, warm: WarmPython, tmp_path: Path) -> None:
    blocks = blocks_of(page.read_text())
    files = {block.title: block.text for block in blocks if block.title != EXAMPLE and block.title}
    assert {block.language for block in blocks if block.title not in files} == {"bash", "text"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    if page.stem in MINIATURE:
        images(tmp_path / "images")
    environment = {**warm.environment, **MINIATURE.get(page.stem, {})}
    command = ("bash", "-c", script_of(blocks))
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    outputs = ran.stdout.split(BETWEEN)
    for number, shown in shown_by(blocks):
        assert missing(shown, outputs[number]) is None, outputs[number]
