"""What entries of a state dict are called elsewhere: by wrappers, by public files of our architectures, by old files of
ours. Names alone change, never a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import TypeVar

Value = TypeVar("Value")
Dialect = Callable[[Iterable[str]], dict[str, str]]
"""From the names of a file to ours."""

_RESNET = (
    (r"^linear\.", "fc."),
    (r"\.downsample\.", ".shortcut."),
    # ours until they took the usual names
    (r"^head\.2\.", "fc."),
    (r"^stem\.0\.0\.", "conv1."),
    (r"^stem\.0\.1\.", "bn1."),
    (r"^stages\.0\.", "layer1."),
    (r"^stages\.1\.", "layer2."),
    (r"^stages\.2\.", "layer3."),
    (r"\.first\.0\.", ".conv1."),
    (r"\.first\.1\.", ".bn1."),
    (r"\.second\.0\.", ".conv2."),
    (r"\.second\.1\.", ".bn2."),
)
_VGG_LAYER = re.compile(r"^features?\.(\d+)\.(\w+)$")
_MOBILENET_LAYER = re.compile(r"^layers\.(\d+)\.(conv|bn|shortcut)\.?(\d)\.(\w+)$")
_MOBILENET_STEM = re.compile(r"^(conv|bn)([12])\.(\w+)$")
_VGG_HEAD = re.compile(r"^(classifier|fc|linear)\.(?=weight$|bias$)")


def _resnet(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        ours = name
        for pattern, instead in _RESNET:
            ours = re.sub(pattern, instead, ours)
        found[name] = ours
    return found


def _vgg(names: Iterable[str]) -> dict[str, str]:
    """``features`` in one row: convolution, BatchNorm, ReLU, each with a number; here the first two share theirs."""
    names = list(names)
    norms = {int(m[1]) for name in names if (m := _VGG_LAYER.match(name)) and m[2] == "running_mean"}
    place = {norm - 1: (norm - 1 - before, 0) for before, norm in enumerate(sorted(norms))}
    place |= {norm: (norm - 1 - before, 1) for before, norm in enumerate(sorted(norms))}
    found = {}
    for name in names:
        layer = _VGG_LAYER.match(name)
        if layer and int(layer[1]) in place:
            number, part = place[int(layer[1])]
            found[name] = f"features.{number}.{part}.{layer[2]}"
        else:
            found[name] = _VGG_HEAD.sub("head.2.", name)
    return found


def _mobilenet(parts: int, first: int, step: int) -> Dialect:
    """``conv1``, ``bn1``, ``layers.N.conv1`` …; here a convolution and its BatchNorm are one of a row of features.

    Args:
        parts: how many convolutions a block has.
        first: the feature that the first block is, or begins with.
        step: how many features a block is; where it is one, its parts are those of its ``body``.
    """

    def to_ours(names: Iterable[str]) -> dict[str, str]:
        known = list(names)
        blocks = {int(m[1]) for name in known if (m := _MOBILENET_LAYER.match(name))}
        last = first + step * len(blocks)

        def place(block: int, kind: str, number: int) -> str:
            part = 0 if kind == "conv" else 1
            at = first + step * block
            if step == 1:
                return f"features.{at}.body.{2 * (number - 1)}.{part}."
            return f"features.{at + 2 * (number - 1)}.{part}."

        def renamed(name: str) -> str:
            layer, stem = _MOBILENET_LAYER.match(name), _MOBILENET_STEM.match(name)
            if layer and layer[2] == "shortcut":
                return f"features.{first + int(layer[1])}.shortcut.{layer[3]}.{layer[4]}"
            if layer and 1 <= int(layer[3]) <= parts:
                return place(int(layer[1]), layer[2], int(layer[3])) + layer[4]
            if stem:
                return f"features.{0 if stem[2] == '1' else last}.{0 if stem[1] == 'conv' else 1}.{stem[3]}"
            return _VGG_HEAD.sub("head.2.", name)

        return {name: renamed(name) for name in known}

    return to_ours


_DIALECTS: Mapping[str, Dialect] = {
    "cifar:resnet": _resnet,
    "cifar:vgg": _vgg,
    "cifar:mobilenet_v1": _mobilenet(parts=2, first=2, step=4),
    "cifar:mobilenet_v2": _mobilenet(parts=3, first=2, step=1),
}
"""By the beginning of an architecture's name."""


def own_names(architecture: str, names: Iterable[str]) -> dict[str, str]:
    """What an architecture's entries are called here, by what a file calls them; names that are ours stay."""
    known = list(names)
    dialect = next((found for start, found in _DIALECTS.items() if architecture.startswith(start)), None)
    ours = {} if dialect is None else dialect(known)
    if len(set(ours.values())) != len(known):  # two of one name: it is something else
        return {name: name for name in known}
    return ours


def renamed(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """The same values under other names, in their order; what has no other keeps its own."""
    return {names.get(name, name): value for name, value in values.items()}


def readings(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """All ways to read the names of a file whose architecture nobody says: as they are, and by each dialect."""
    known = list(names)
    yield {name: name for name in known}
    for start in _DIALECTS:
        yield own_names(start, known)


def prefixes(names: Iterable[str]) -> list[str]:
    """What all names begin with, from nothing on, whole components: nothing, ``module.``, ``module.model.``."""
    split = [name.split(".")[:-1] for name in names]
    agreeing: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) != 1:
            break
        agreeing.append(parts[0])
    return ["".join(f"{part}." for part in agreeing[:count]) for count in range(len(agreeing) + 1)]


def branches(names: Iterable[str]) -> list[str]:
    """The first components of names, as prefixes: ``student.``, ``teacher.``; those with most entries first."""
    first = sorted(name.partition(".")[0] for name in names if "." in name)
    sizes = {f"{branch}.": len(list(entries)) for branch, entries in groupby(first)}
    return sorted(sizes, key=lambda branch: -sizes[branch])
