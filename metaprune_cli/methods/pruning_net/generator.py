"""Weights as a function of the widths: for every block of edges a base and learnt directions, by the widths' shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from metaprune_cli.config import EncodingName, Start
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.methods.pruning_net.encoding import Encoding

Form = Literal["full", "factored", "shared"]
MEMORY = 256 * 2**20
"""Bytes that directions of the form ``full`` may take with their gradients and momentum, for it to be chosen."""
COPIES = 3
"""Of every parameter while it is trained: itself, its gradient, its momentum."""


class Generator(nn.Module):
    """W(e) = b + Σ_k h_k(e) · A_k for every block of edges, with h(e) = relu(C e + d), k = 1 … hidden.

    Source: arXiv 1903.10258, section 3.1: two linear layers from widths to weights, which is this with one b and A for
    each block. Convolutions of any kind, linear layers, heads and slices of packed projections are all blocks. Forms
    of A_k, of shape (groups, out, in, taps) as the block: ``full``, a number for each weight; ``factored``,
    u_k v_kᵀ t_k, a rank of one in each group; ``shared``, none: the weights are b whatever the widths (slimmable
    networks). The b are parameters of whoever holds the generator.
    """

    def __init__(
        self, graph: NeuronGraph, form: Form, encoding: EncodingName, hidden: int, device: torch.device | None = None
    ) -> None:
        """Directions of no length, on a device: the weights are b."""
        super().__init__()
        self.form: Form = form
        self.blocks = tuple(block for block in graph.blocks if block.param in graph.trainable)
        self.encoding = Encoding(graph.units, self.blocks, encoding)
        self._plain = [_is_whole(block, graph.tensors[block.param]) for block in self.blocks]
        if form == "shared":
            return
        count, length = len(self.blocks), self.encoding.length
        self.slope = nn.Parameter(torch.empty(count, hidden, length, device=device))  # C
        self.offset = nn.Parameter(torch.empty(count, hidden, device=device))  # d
        shapes = [_shapes(block, form, hidden) for block in self.blocks]
        flat = [shape for one in shapes for shape in one]
        self.directions = nn.ParameterList(nn.Parameter(torch.zeros(shape, device=device)) for shape in flat)

    def reset_(self, tensors: Mapping[str, Tensor], start: Start) -> None:
        """Draw what is learnt anew, in place, from torch's generator.

        ``trained``: every A_k is 0, and learns. ``scratch``: all of them together have the scale of b.
        """
        if self.form == "shared":
            return
        bound = self.slope.size(2) ** -0.5
        nn.init.uniform_(self.slope, -bound, bound)
        nn.init.uniform_(self.offset, -bound, bound)
        for number, block in enumerate(self.blocks):
            first, *others = self._of(number)
            scale = float(block.weights(tensors).detach().square().mean().sqrt()) * self.slope.size(1) ** -0.5
            for factor in others:  # of length one, so that they do not multiply the learning rate of the first
                nn.init.normal_(factor, std=factor.size(-1) ** -0.5)
                scale *= factor.size(-1) ** 0.5
            if start == "scratch":
                nn.init.normal_(first, std=scale)
            else:  # the first factor alone is 0, so that it has a gradient
                nn.init.zeros_(first)

    def forward(self, kept: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole state dict for the widths that ``kept`` (units,) leaves; entries without edges are as they are.

        Args:
            kept: which units stay, bool, on the CPU.
            tensors: the b of every entry, by name; gradients flow to them.
        """
        made = dict(tensors)
        if self.form == "shared":
            return made
        encoded = self.encoding.of(kept).to(self.slope.device)
        shares = (torch.einsum("bhe,be->bh", self.slope, encoded) + self.offset).relu()
        for number, block in enumerate(self.blocks):
            tensor, change = made[block.param], self._change(number, block, shares[number])
            if self._plain[number]:
                made[block.param] = tensor + change.reshape(tensor.shape)
            else:
                flat = tensor.contiguous().view(-1)
                region = flat.as_strided(block.size, block.stride, block.offset)
                made[block.param] = block.scatter(flat, region + change).view(tensor.shape)
        return made

    def _of(self, number: int) -> list[nn.Parameter]:
        each = len(self.directions) // max(len(self.blocks), 1)
        return [self.directions[number * each + place] for place in range(each)]

    def _change(self, number: int, block: EdgeBlock, shares: Tensor) -> Tensor:
        """Σ_k h_k A_k, of shape (groups, out, in, taps)."""
        first, *others = self._of(number)
        if not others:
            return (shares @ first).view(block.size)
        into, taps = others
        right = (into.unsqueeze(3) * taps[None, :, None, :]).flatten(2)  # (groups, hidden, in * taps)
        return ((first * shares) @ right).view(block.size)


def memory_of(graph: NeuronGraph, form: Form, hidden: int) -> int:
    """Bytes that the directions of a form take while they are trained."""
    blocks = [block for block in graph.blocks if block.param in graph.trainable]
    return COPIES * 4 * sum(math.prod(shape) for block in blocks for shape in _shapes(block, form, hidden))


def form_for(graph: NeuronGraph, hidden: int) -> Form:
    """What ``auto`` is: ``full`` as long as it takes at most ``MEMORY``, else ``factored``."""
    return "full" if memory_of(graph, "full", hidden) <= MEMORY else "factored"


def _shapes(block: EdgeBlock, form: Form, hidden: int) -> list[tuple[int, ...]]:
    groups, out, into, taps = block.size
    if form == "full":
        return [(hidden, groups * out * into * taps)]
    return [(groups, out, hidden), (groups, hidden, into), (hidden, taps)] if form == "factored" else []


def _is_whole(block: EdgeBlock, tensor: Tensor) -> bool:
    """Whether a block is its whole entry, in the entry's own order."""
    _, out, into, taps = block.size
    dense = (out * into * taps, into * taps, taps, 1)
    steps = zip(block.size, block.stride, dense, strict=True)
    in_order = all(size == 1 or stride == wanted for size, stride, wanted in steps)
    return block.offset == 0 and math.prod(block.size) == tensor.numel() and in_order
