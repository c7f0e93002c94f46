"""What a model whose control flow depends on data might still use, where one example did not."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator

from torch import nn

from metaprune_cli.graph.structure import Layer

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList, nn.ParameterDict)


def reachable(model: nn.Module, entries: Iterable[str]) -> list[str]:
    """The entries whose modules some method of their owner names, the constructor apart: another input may use them.

    A layer that is only ever made (``self.unused = nn.Linear(…)``) is out of any flow's reach.

    Args:
        model: the network.
        entries: names of parameters and buffers.
    """
    return [entry for entry in sorted(entries) if all(_is_named(*link) for link in _links(model, entry))]


def might_meet(layers: Iterable[Layer], shapes: Iterable[Iterable[int]]) -> list[Layer]:
    """The layers whose neurons could lie along a dimension of one of these shapes, each as often as the next."""
    sizes = {size for shape in shapes for size in shape}
    return [layer for layer in layers if any(size % layer.size == 0 for size in sizes)]


def _links(model: nn.Module, entry: str) -> Iterator[tuple[nn.Module, str]]:
    """Each module on the way to an entry, and the name of the next."""
    owner = model
    for name in entry.split("."):
        yield owner, name
        owner = owner._modules.get(name) or owner


def _is_named(owner: nn.Module, name: str) -> bool:
    if isinstance(owner, _CONTAINERS):
        return True
    own = [kind for kind in type(owner).__mro__ if not kind.__module__.startswith("torch.nn.modules.module")]
    methods = (value for kind in own for key, value in vars(kind).items() if key != "__init__")
    codes = [code for method in methods if (code := getattr(method, "__code__", None)) is not None]
    return not codes or any(name in words for code in codes for words in _words(code))


def _words(code: types.CodeType) -> Iterator[tuple[object, ...]]:
    """All names and literals in a function, and in those within it."""
    yield code.co_names
    yield code.co_consts
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _words(inner)
