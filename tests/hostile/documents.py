"""Hostile documents: what a good document becomes when somebody who can sign it changes one thing, anywhere in it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Document = dict[str, Any]
Key = str | int
Path_ = tuple[Key, ...]

_OWN = {"kind", "format_version", "digest"}
"""What every reader checks before it looks at the rest."""
_SEVERAL = 3
"""Items of a list that are changed: the first, the last, and one between them."""
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 64, 65, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64, 10**12, 10**30),
    *(0.5, -1.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "0",
        "\x00",
        "\ud800",
        "../../x",
        "/",
        "..",
        "=1+1",
        "\x1b]0;x\x07",
        "<script>",
        "a" * 100_000,
        "weight",
    ),
    *([], [0], [-1], [2**62], [[]], ["x"], [None], [0] * 10_000, {}, {"x": 1}, {"": None}, {"\x1b[2J": {}}),
)
_SAID: Mapping[str, tuple[tuple[Path_, tuple[Any, ...]], ...]] = {
    "model": (
        (
            ("architecture", "name"),
            ("os:system", "cifar:", "torchvision:resnet50", ":", ".x:y", "cifar:vit", "json:loads"),
        ),
        (
            ("architecture", "args"),
            (
                {"weights": "DEFAULT"},
                {"pretrained": True},
                {"depth": 10**9},
                {"width": 1e9},
                {"num_classes": 2**40},
                {"block": "os"},
                {"image_size": 10**9},
            ),
        ),
        (
            ("architecture", "input_shape"),
            ([10**12], [3, 10**6, 10**6], [1] * 50, ["3"], [0, 8, 8], [-1, 8, 8], [1, 8]),
        ),
        (("aliases",), ({"a": "b", "b": "a"}, {"x": "nothing"}, {"head.2.weight": "head.2.bias"}, {"x": "x"})),
        (("zeros",), ({"kind": "n:m", "pattern": "9:4", "entries": ["x"]}, {"kind": "?", "pattern": 1, "entries": 2})),
        (("lineage",), ([{"command": "prune", "requested": 1e9}] * 1000, [{"command": "prune"}] * 100_000, [{}], [7])),
        (("importance",), ([0.0], [1e30] * 1000, ["x"])),
        (("pruning",), ({}, {"families": []}, {"families": [{"name": "a", "before": 0, "after": 0, "locked": None}]})),
    ),
    "graph": (
        (("structure", "layers"), ([], [["a", 0, 10**12]], [["a", 0, 2**62], ["b", 2**62, 2**62]], [["a", 5, 5]])),
        (("structure", "locks"), ([{"neurons": {"start": 0, "shape": [20]}, "reason": "x"}] * 50_000,)),
        (("structure", "trainable"), (["nothing"], [])),
        (("structure", "aliases"), ({"a": "b", "b": "a"}, {"head.2.weight": "head.2.bias"})),
        (("structure", "entries"), ([], ["nothing"])),
    ),
    "metanetwork": (
        (("config", "layers"), (2**63, 10**9, 4096, 65, 0)),
        (("config", "hidden"), (10**9, 2**20, 1, 3)),
        (("config", "kernels"), ([[2**40] * 16], [[3, 3]] * 10_000, [[0]])),
        (("config", "codec"), ("per-kernel", "coordinate")),
    ),
    "hypernetwork": (
        (("config", "hidden"), (2**63, 10**9, 4096, 5, 0)),
        (("config", "generator"), ("full", "factored", "shared", "auto")),
        (("genes",), ([], [{"families": [0], "grid": [1]}] * 10_000, [{"families": [10**9], "grid": [2**40]}])),
        (("sampling", "speedup_max"), (0.0, 1.0, 1e30, -1.0)),
        (("signature",), ([], [{"name": "x", "units": 2**62}], [{}])),
    ),
    "checkpoint": (
        (("state", "epoch"), (-1, 10**9, 2**63, 0)),
        (("state", "history"), ([], [{}] * 100_000, [{"epoch": "x"}])),
        (("state", "best"), (None, {"epoch": 10**6, "score": 0.0}, {"epoch": 0, "score": 0.0})),
    ),
}
"""What each kind is known to have been attacked with."""


def hostile_documents(kind: str, document: Document, seed: int) -> Iterator[tuple[str, Document]]:
    """Changed copies of a good document, in an order that the seed draws, each with a label that says what was done.

    First what the kind is known to have been attacked with; then, at every path in turn, once and again: a value of
    another type or size in its place, no value, the same twice, the same within itself, or far more of it. There is no
    end to them: take as many as are wanted (``itertools.islice``). The argument is not changed.

    Args:
        kind: of the artifact.
        document: as ``read_artifact`` gives it.
        seed: of all choices.
    """
    generator = random.Random(f"{kind} {seed}")
    known = [(path, value) for path, values in _SAID[kind] for value in values]
    generator.shuffle(known)
    for path, value in known:
        yield f"{_said(path)}={_short(value)}", _with(document, path, lambda _, value=value: value)
    paths = list(_paths(document, generator))
    while True:
        generator.shuffle(paths)
        for path in paths:
            name, change = generator.choice(_CHANGES)
            value = generator.choice(_VALUES)
            label = f"{name} {_said(path)}" + (f"={_short(value)}" if name in ("replace", "add") else "")
            yield label, _with(document, path, lambda old, change=change, value=value: change(old, value))


def _replace(old: Any, value: Any) -> Any:
    if isinstance(old, int) and not isinstance(old, bool) and isinstance(value, int | None):
        return old + (value or 1)  # near misses, and far ones
    return value


def _enlarge(old: Any, _: Any) -> Any:
    if isinstance(old, list):
        return old * 1000 if old else [0] * 100_000
    if isinstance(old, str):
        return old * 10_000
    if isinstance(old, int | float):
        return old * 10**6
    return {f"{key}{number}": item for number in range(1000) for key, item in (old or {"x": 0}).items()}


def _nest(old: Any, _: Any) -> Any:
    for _ in range(200):
        old = [old]
    return old


class _Gone:
    """In the place of a value that is to be deleted."""


_CHANGES: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    *(("replace", _replace),) * 6,
    ("delete", lambda old, value: _Gone),
    ("wrap", lambda old, value: [old]),
    ("nest", _nest),
    ("enlarge", _enlarge),
    ("double", lambda old, value: [*old, *old] if isinstance(old, list) else {"x": old, "y": old}),
    ("add", lambda old, value: {**old, "added": value} if isinstance(old, dict) else value),
)


def _paths(value: Any, generator: random.Random, here: Path_ = ()) -> Iterator[Path_]:
    """Every path in a document; of long lists a few items."""
    if here:
        yield here
    if isinstance(value, dict):
        for key, item in value.items():
            if here or key not in _OWN:
                yield from _paths(item, generator, (*here, key))
    elif isinstance(value, list):
        places = (
            {0, len(value) - 1, *generator.sample(range(len(value)), min(_SEVERAL - 2, len(value)))} if value else ()
        )
        for place in sorted(places):
            yield from _paths(value[place], generator, (*here, place))


def _with(document: Document, path: Path_, change: Callable[[Any], Any]) -> Document:
    """A copy in which the value at one path is changed; missing objects on the way are made."""
    changed = copy.deepcopy(document)
    owner: Any = changed
    for key in path[:-1]:
        if isinstance(owner, dict) and owner.get(key) is None:
            owner[key] = {}
        owner = owner[key]
    last = path[-1]
    new = change(owner.get(last) if isinstance(owner, dict) else owner[last])
    if new is _Gone:
        del owner[last]
    else:
        owner[last] = new
    return changed


def _said(path: Path_) -> str:
    return ".".join(map(str, path))


def _short(value: Any) -> str:
    text = repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:60]}… ({len(text)})"
