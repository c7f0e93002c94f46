"""Numbers in a model's Python that are widths (``nf``, ``num_heads``, ``head_dim``): found by value, not by name.

A module keeps the width of a parameter, the number of its heads or the size of each as an attribute. Which attribute is
such a number is not known by its name: it has the old value, and with the new one the class follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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


def integers_of(module: nn.Module) -> dict[str, int]:
    """A module's own attributes that can be widths."""
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) is int and value > 1 and not name.startswith("_")
    }


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
            setattr(modules[path], name, value)


def widths_lost(model: nn.Module, whole: nn.Module) -> dict[str, dict[str, int]]:
    """Attributes of a smaller model that are smaller than those of one just built and resized like it.

    What is left may be one: one head, one group.
    """
    others = dict(whole.named_modules())
    found = {}
    for path, module in model.named_modules():
        other = others.get(path)
        if other is None or type(other) is not type(module):
            continue
        now = {name: value for name, value in vars(module).items() if type(value) is int and value > 0}
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
    for path, module in model.named_modules():
        numbers = integers_of(module)
        if not numbers:
            continue
        prefix = f"{path}." if path else ""
        for name, sources in changed.items():
            inner = name.removeprefix(prefix)
            if not name.startswith(prefix) or inner.count(".") > _DEEP:
                continue
            for kind, (before, after) in sources.items():
                for attribute, value in numbers.items():
                    if value == before:
                        recipe = type(module).__qualname__, attribute, (inner, kind)
                        found.setdefault(recipe, {})[path] = after
    return found


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
