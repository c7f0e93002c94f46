"""Numbers in a model's Python that are widths (``nf``, ``num_heads``, ``head_dim``): found by value, not by name.

A module keeps the width of a parameter, the number of its heads or the size of each as an attribute, or in an object of
settings (``self.config.hidden``, ``self.sizes[1]``). Which attribute is such a number is not known by its name: it has
the old value, and with the new one the class follows.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import survivors

Widths = Mapping[str, Mapping[str, int]]
"""New values of attributes, by the module's path and the attribute's name."""
Source = tuple[str, str]
"""Where a width comes from: a parameter, by its name within the module, and its dimension, or its heads or columns."""
Recipe = tuple[str, str, Source]
"""An attribute of a class that follows a source: the class's name, the attribute's, and the source."""
_DEEP = 2
"""A module's attribute may be a width of a parameter so many modules below it."""


def integers_of(module: nn.Module, least: int = 2) -> dict[str, int]:
    """A module's numbers that can be widths: its own attributes, and those of settings it holds (``config.hidden``)."""
    found = dict(_integers(vars(module).items(), least))
    for name, settings in _settings_of(module):
        found |= {f"{name}.{key}": value for key, value in _integers(_parts(settings), least)}
    return found


def _integers(pairs: Iterable[tuple[Any, Any]], least: int) -> Iterator[tuple[str, int]]:
    for name, value in pairs:
        if type(value) is int and value >= least and not str(name).startswith("_") and "." not in str(name):
            yield str(name), value


def _settings_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes that hold settings. What PyTorch's own modules hold is brought in line by their type."""
    if type(module).__module__.startswith("torch.nn."):
        return
    for name, value in vars(module).items():
        if not name.startswith("_") and "." not in name and _is_settings(value):
            yield name, value


def _is_settings(value: Any) -> bool:
    if type(value) in (dict, list, tuple, types.SimpleNamespace):
        return True
    plain = hasattr(value, "__dict__") and not callable(value)
    return plain and not isinstance(value, nn.Module | Tensor | types.ModuleType)


def _parts(settings: Any) -> Iterable[tuple[Any, Any]]:
    """What settings hold, by name or place."""
    if isinstance(settings, list | tuple):
        return enumerate(settings)
    return settings.items() if isinstance(settings, dict) else vars(settings).items()


def _set(module: nn.Module, name: str, value: int) -> None:
    """Give a number of a module, or of settings that it holds, a new value."""
    attribute, _, key = name.partition(".")
    settings = getattr(module, attribute)
    if not key:
        setattr(module, attribute, value)
    elif isinstance(settings, tuple):
        setattr(module, attribute, (*settings[: int(key)], value, *settings[int(key) + 1 :]))
    elif isinstance(settings, list):
        settings[int(key)] = value
    elif isinstance(settings, dict):
        settings[key] = value
    else:
        object.__setattr__(settings, key, value)  # a frozen dataclass's too


def _numbered(model: nn.Module, least: int = 2) -> Iterator[tuple[str, nn.Module, dict[str, int]]]:
    """Every module with its numbers; settings that many share, and that change for all of them, are the first one's."""
    met: set[int] = set()
    for path, module in model.named_modules():
        settings = {name: id(held) for name, held in _settings_of(module) if not isinstance(held, tuple)}
        shared = {name for name, held in settings.items() if held in met}
        met.update(settings.values())
        numbers = integers_of(module, least)
        yield path, module, {name: n for name, n in numbers.items() if name.partition(".")[0] not in shared}


def set_widths_(model: nn.Module, widths: Widths) -> None:
    """Give attributes new values, in place.

    Raises:
        InputError: a module or an attribute that the model does not have, or a value that no removal leads to.
    """
    modules = dict(model.named_modules())
    wrong = [
        f"{path}.{name} = {value}"
        for path, named in widths.items()
        for name, value in named.items()
        if path not in modules or not 0 < value <= integers_of(modules[path]).get(name, 0)
    ]
    if wrong:
        raise InputError(
            "Widths do not fit the model's attributes.",
            expected="numbers that its modules have, not above the values they have",
            got=", ".join(wrong[:10]),
        )
    for path, named in widths.items():
        for name, value in named.items():
            _set(modules[path], name, value)


def widths_lost(model: nn.Module, whole: nn.Module) -> dict[str, dict[str, int]]:
    """Attributes of a smaller model that are smaller than those of one just built and resized like it.

    What is left may be one: one head, one group.
    """
    others = dict(whole.named_modules())
    found = {}
    for path, module, now in _numbered(model, least=1):
        other = others.get(path)
        if other is None or type(other) is not type(module):
            continue
        less = {name: now[name] for name, built in integers_of(other).items() if now.get(name, built) < built}
        if less:
            found[path] = less
    return found


def recipes_for(model: nn.Module, graph: NeuronGraph, kept: Tensor) -> dict[Recipe, dict[str, int]]:
    """Every attribute whose value is a width that changes, with the new value for each module of that class.

    Args:
        model: resized already, so that what the registry brings in line has its new value.
        graph: the whole model's.
        kept: which units stay.
    """
    changed = _changed(graph, kept)
    found: dict[Recipe, dict[str, int]] = {}
    for path, module, numbers in _numbered(model):
        if not numbers:
            continue
        prefix = f"{path}." if path else ""
        for name, sources in changed.items():
            inner = name.removeprefix(prefix)
            if not name.startswith(prefix):
                continue
            deep = inner.count(".") > _DEEP
            for kind, (before, after) in sources.items():
                for attribute, value in numbers.items():
                    if value == before and ("." in attribute or not deep):  # settings are for all that is below
                        recipe = type(module).__qualname__, attribute, (inner, kind)
                        found.setdefault(recipe, {})[path] = after
    return found


def is_of_settings(recipe: Recipe) -> bool:
    """Whether the number is one of an object of settings, rather than a module's own attribute."""
    return "." in recipe[1]


def choices(recipes: Mapping[Recipe, Mapping[str, int]]) -> Iterator[list[Recipe]]:
    """Sets of recipes to try: for every attribute one, then all but for one attribute each."""
    by_attribute: dict[tuple[str, str], list[Recipe]] = {}
    seen: set[tuple[str, str, frozenset[tuple[str, int]]]] = set()
    for recipe, values in recipes.items():
        key = (*recipe[:2], frozenset(values.items()))
        if key not in seen:  # two sources that say the same are one
            seen.add(key)
            by_attribute.setdefault(recipe[:2], []).append(recipe)
    first = {attribute: alternatives[0] for attribute, alternatives in by_attribute.items()}
    if first:
        yield list(first.values())
    for attribute, alternatives in by_attribute.items():
        others = [recipe for key, recipe in first.items() if key != attribute]
        for other in (*alternatives[1:], None):
            if others or other is not None:
                yield [*others, *([] if other is None else [other])]


def widths_by(recipes: Mapping[Recipe, Mapping[str, int]], chosen: Sequence[Recipe]) -> dict[str, dict[str, int]]:
    """The values that some recipes lead to, by module."""
    widths: dict[str, dict[str, int]] = {}
    for recipe in chosen:
        for path, value in recipes.get(recipe, {}).items():
            widths.setdefault(path, {})[recipe[1]] = value
    return widths


def _changed(graph: NeuronGraph, kept: Tensor) -> dict[str, dict[str, tuple[int, int]]]:
    """For every parameter that loses elements its sizes, and its heads and their columns, before and after."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name, indices in survivors(graph, kept).items():
        shape = graph.tensors[name].shape
        found[name] = {
            f"dimension {d}": (shape[d], index.numel()) for d, index in enumerate(indices) if index.numel() < shape[d]
        }
    for family in graph.units.families:
        before, after = len(family.units), int(kept[family.units].sum())
        kind = "heads" if family.kind == "heads" else "columns"
        for name, _ in family.parameters if after < before else ():
            if name in found and (before, after) not in found[name].values():
                found[name].setdefault(kind, (before, after))
    return found
