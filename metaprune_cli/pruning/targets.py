"""What a removal is to reach: less of some quantity, and how much there is of it when certain units are left."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

from jaxtyping import Bool
from torch import Tensor

from metaprune_cli.config import Quantity
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.errors import InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import alive_neurons, params_of
from metaprune_cli.pruning.cost import Cost

Measure = Callable[[Bool[Tensor, " units"]], float]
"""How much of a quantity there is when only these units are left."""

PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30}
UNITS = {"macs": "", "params": "", "size": "b", "memory": "b", "latency": "s", "drop": " points"}


@dataclass(frozen=True)
class Target:
    """At most ``limit`` of a quantity, or 1 / ``factor`` of what there was; one of the two is None.

    MACs and latency are of one input, bytes of the tensors in the file (``size``) or of the activations that live at
    the same time in a pass over one input (``memory``), latency in seconds. ``drop`` is the other way round: as far as
    the task's headline metric of what is left, repaired, is not worse by more than that: of accuracy, so many points.
    """

    quantity: Quantity
    factor: float | None = None
    limit: float | None = None

    def limit_for(self, before: float) -> float:
        """The most there may be."""
        return self.limit if self.limit is not None else before / (self.factor or 1.0)

    def steps(self, number: int, before: float) -> tuple[Target, ...]:
        """So many targets on the way to this one, the last; each takes the same share of what the one before leaves.

        Args:
            number: of them.
            before: how much of the quantity there is.
        """
        share = self.limit_for(before) / before
        return (*(replace(self, factor=share ** (-k / number), limit=None) for k in range(1, number)), self)

    @property
    def tag(self) -> str:
        """The target in a file's name: ``2x`` for MACs, else as in ``latency-2x``, ``size-10000000``."""
        amount = f"{self.factor:g}x" if self.factor is not None else f"{self.limit:g}"
        return amount if self.quantity == "macs" and self.factor is not None else f"{self.quantity}-{amount}"


def read_target(text: str) -> Target:
    """``QUANTITY=AMOUNT``: ``params=2x``, ``macs=50%``, ``size=10MB``, ``memory=4MiB``, ``latency=3ms``, ``drop=0.5``.

    Raises:
        InputError: it cannot be read, or it asks for nothing to be removed.
    """
    name, equals, amount = (part.strip() for part in text.partition("="))
    quantities = get_args(Quantity)
    if not equals or name not in quantities:
        raise _unreadable(text, did_you_mean(name, quantities))
    number = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([A-Za-z%]*)", amount)
    if number is None or not float(number[1]) > 0:
        raise _unreadable(text)
    quantity: Quantity = quantities[quantities.index(name)]
    value, unit = float(number[1]), number[2]
    if quantity == "drop" and not unit:
        return Target(quantity, limit=value)
    if unit in ("x", "%") and quantity != "drop":
        factor = value if unit == "x" else 100 / value
        if factor <= 1:
            raise InputError("Nothing would be removed.", expected="above 1x, or below 100%", got=text)
        return Target(quantity, factor=factor)
    return Target(quantity, limit=value * _scale(quantity, unit, text))


def _scale(quantity: Quantity, unit: str, text: str) -> float:
    """What one of the unit is in the quantity's own; ``m`` is milli for seconds, else mega."""
    own = UNITS[quantity]
    prefix = unit.lower().removesuffix(own)
    if not unit.lower().endswith(own):
        raise _unreadable(text)
    if own == "s" and prefix in ("", "m"):
        return 1e-3 if prefix else 1.0
    if own == "s" or prefix not in PREFIXES:
        raise _unreadable(text)
    return PREFIXES[prefix]


def _unreadable(text: str, hint: str = "") -> InputError:
    return InputError(
        "A target cannot be read.",
        expected="a quantity and how much: params=2x, macs=50%, size=10MB, memory=4MiB, latency=3ms, drop=0.5",
        got=f"{text}{hint}",
        where="--target",
    )


def counted(graph: NeuronGraph, quantity: Quantity) -> Measure | None:
    """The quantity in closed form, from the graph alone; None for those that must be measured."""
    if quantity == "macs":
        return Cost.of(graph).macs
    if quantity == "params":
        return lambda kept: params_of(graph, kept)
    if quantity == "size":
        return lambda kept: _bytes(graph, kept)
    return None


def _bytes(graph: NeuronGraph, kept: Tensor) -> int:
    """Of all tensors, as a file stores them."""
    alive = alive_neurons(graph, kept)
    total = sum(tensor.numel() * tensor.element_size() for tensor in graph.tensors.values())
    for block in graph.blocks:
        left = int((alive[block.destinations].sum(1) * alive[block.sources].sum(1)).sum()) * block.size[3]
        total -= (block.num_edges * block.size[3] - left) * graph.tensors[block.param].element_size()
    for feature in graph.features:
        total -= int((~alive[feature.neurons]).sum()) * graph.tensors[feature.name].element_size()
    return total
