"""A model of which every name is an attack: on terminals, Markdown, spreadsheets, web pages, pictures."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor, nn

from metaprune_cli import save_model
from metaprune_cli.models.architecture import Architecture

PAYLOAD = (
    "=cmd|' /C calc'!A0\x1b]0;owned\x07\x9b31m\u202e\u200b\u2028\x7f\x00<script>alert(1)</script>`b`[x](//evil)"
    "$\\frac{$[red]:smile:&#61;\r\n# heading\n| a |"
)
"""As a module's name, so without a dot."""
HALF = "\ud800"
"""No character: half a surrogate pair, which UTF-8 cannot encode."""
FILE = os.fsdecode(b"=cmd|'\x1b[31m\n# heading\xe2\x80\xae`<script>`[x]($\xff")
"""As a file's name: with a byte that is not UTF-8, without a slash."""
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What reaches no output as it is."""
SPAN = re.compile(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)")
"""Code in a line of Markdown, where nothing means anything."""
ARCH = "hostile_names:hostile_net"


class Net(nn.Module):
    """Two convolutions of 4 and 6 channels, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1))
        self.body = nn.Sequential()
        for place, layer in enumerate((*layers, nn.Flatten(), nn.Linear(6, 10))):
            self.body.add_module(f"{PAYLOAD}{place}", layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


Net.__name__ = PAYLOAD.replace("\x00", "")


def hostile_net(**args: object) -> nn.Module:
    torch.manual_seed(0)
    return Net()


def failing_net() -> nn.Module:
    raise ValueError(PAYLOAD + HALF)


def hostile_model(folder: Path) -> Path:
    """A sound artifact whose document says nothing but attacks."""
    said = PAYLOAD + HALF
    lineage = [
        {"command": "zoo", "arch": said},
        {"command": "finetune", "input": f"{said}.safetensors", "epochs": 1, said: said},
        {"command": "prune", "criterion": said, "scope": "global", "requested": 2.0},
    ]
    families = [{"name": said, "before": 4, "after": 2, "locked": None}]
    families += [{"name": said, "before": 4, "after": 4, "locked": said}]
    path = folder / f"{FILE}.safetensors"
    save_model(
        hostile_net(),
        path,
        arch=Architecture(ARCH, {"note": said}, (1, 8, 8)),
        made_by={"command": said, "parameters": {said: said}, "seed": 0, "versions": {said: said}},
        inputs={said: said},
        metrics={said: 1.0},
        extra={"lineage": lineage, "pruning": {"families": families}},
    )
    return path


def check_raw(text: str, where: object) -> None:
    found = RAW.search(text)
    assert found is None, f"{where}: {text[max(found.start() - 60, 0) : found.end() + 20]!r}"


def check_file(path: Path) -> None:
    """Every kind of file for people is what it was meant to be, whatever the names."""
    if path.suffix not in (".md", ".csv", ".json", ".yaml", ".svg", ".html"):
        return
    text = path.read_bytes().decode("utf-8")
    check_raw(text, path.suffix)
    if path.suffix == ".md":
        text = SPAN.sub("", text)
        assert not re.search(r"<script|(?<!\\)\]\(//|^# heading|^\| a \|", text, re.MULTILINE)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert all(not re.search(r"(?<!\\)`", row) for row in rows)
    elif path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1
        assert not [cell for row in rows for cell in row if re.match(r"[=+@\t\r]|-(?![\d.])", cell)]
    elif path.suffix == ".html":
        assert "<script" not in text
    elif path.suffix == ".svg":
        ElementTree.fromstring(text)
