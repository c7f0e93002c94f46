"""Members of the zoo as meta-training sees them: an architecture that can be called with any weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.metanet.learning.shares import Example
from metaprune_cli.metrics.calling import call, in_format, memory_format_for
from metaprune_cli.training.norms import use_batch_statistics_

Weights = Mapping[str, Tensor]
"""The rewritten entries of a state dict, by name."""


@dataclass(frozen=True, eq=False)
class ZooEntry:
    """A trained model and its graph; neither is changed.

    Attributes:
        name: for messages.
        model: the model.
        graph: its graph.
        examples: how far each family is to be lifted in the ranking, where pruned models show it.
    """

    name: str
    model: nn.Module
    graph: NeuronGraph
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, eq=False)
class Member:
    """A zoo entry made ready: on its device, and without a state of its own.

    BatchNorm uses the statistics of the batch and keeps none (rewritten weights have no running statistics yet, and
    whoever prunes measures them anew); everything else is in eval mode.
    """

    name: str
    model: nn.Module
    graph: NeuronGraph
    memory_format: torch.memory_format = torch.contiguous_format
    examples: tuple[Example, ...] = ()

    @classmethod
    def of(cls, entry: ZooEntry, device: torch.device, inputs: Any = None) -> Member:
        """Prepare copies; the entry is not changed. With ``inputs``, they tell in which memory format it is fastest."""
        model = copy.deepcopy(entry.model).to(device).eval().requires_grad_(False)
        use_batch_statistics_(model)
        tensors = {name: tensor.to(device) for name, tensor in entry.graph.tensors.items()}
        layout = torch.contiguous_format if inputs is None else memory_format_for(model, inputs)
        graph = replace(entry.graph, tensors=tensors)
        return cls(entry.name, model, graph, layout, entry.examples)

    def output(self, weights: Weights, inputs: Any) -> Any:
        """What the architecture returns with ``weights`` in place of its own."""

        def model(*args: Any, **kwargs: Any) -> Any:
            return functional_call(self.model, dict(weights), args, kwargs)

        return call(model, in_format(inputs, self.memory_format))

    @torch.no_grad()
    def own_output(self, inputs: Any) -> Any:
        """What the original model returns."""
        return call(self.model, in_format(inputs, self.memory_format))

    def rewritten(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a metanetwork's output the entries that it wrote; the others are the model's own."""
        own = self.graph.tensors
        return {name: tensors[name] for name in sorted(self.graph.trainable) if tensors[name] is not own[name]}
