"""Whether a configuration says the widths of a pruned model: one number each, as its author's code wants them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

from metaprune_cli.errors import InputError
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.huggingface.classes import PREFIX, config_of
from metaprune_cli.models.recognise import shapes_of
from metaprune_cli.models.registry import skeleton

Shapes = Mapping[str, tuple[int, ...]]
Key = tuple[str, ...]
"""Where a number stands in a configuration: its name, after those of the parts that it is in."""
MOST = 8
"""Numbers that are tried together, in all their combinations."""


def fitted_config(
    name: str, config: Mapping[str, Any], shapes: Shapes, holds: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Any] | None:
    """The configuration with which the class itself has these shapes; None where no numbers do.

    Each whole number is doubled to see which sizes go with it; where all of them say the same new value, it is a
    candidate. Of several (heads, or the width of a head) that give the shapes, the first that ``holds`` is taken.

    Args:
        name: of the class.
        config: of the model before it was pruned.
        shapes: of the pruned model's entries.
        holds: whether a model of a configuration computes what it has to.
    """
    before = _shapes(name, config)
    if before is None or before.keys() != shapes.keys():
        return None
    candidates = _candidates(name, config, before, shapes)
    chosen = list(candidates)[:MOST]
    for count in range(len(chosen), -1, -1):
        for keys in combinations(chosen, count):
            found = _with(config, {key: candidates[key] for key in keys})
            if _shapes(name, found) == shapes and holds(found):
                return found
    return None


def _candidates(name: str, config: Mapping[str, Any], before: Shapes, shapes: Shapes) -> dict[Key, int]:
    """Numbers that may be others now, and which."""
    found = {}
    for key, value in _numbers(config_of(name, config).to_dict()):
        doubled = _shapes(name, _with(config, {key: 2 * value}))
        if doubled is None or doubled.keys() != before.keys():
            continue
        moved = [
            (old, shapes[entry][dim])
            for entry, sizes in before.items()
            for dim, old in enumerate(sizes)
            if len(doubled[entry]) == len(sizes) == len(shapes[entry]) and doubled[entry][dim] == 2 * old
        ]
        wanted = {new * value / old for old, new in moved}
        if len(wanted) == 1 and (only := wanted.pop()) != value and only == int(only):
            found[key] = int(only)
    return found


def _numbers(config: Mapping[Any, Any], path: Key = ()) -> Iterator[tuple[Key, int]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, (*path, str(name)))
        elif isinstance(name, str) and type(value) is int and value > 1 and not name.endswith("_token_id"):
            yield (*path, name), value


def _with(config: Mapping[str, Any], values: Mapping[Key, int]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    for (*path, name), value in values.items():
        inner = changed
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return changed


def _shapes(name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """What the class has with this configuration; None where it cannot be built."""
    try:
        return shapes_of(skeleton(Architecture(f"{PREFIX}:{name}", config)).state_dict())
    except InputError:
        return None
