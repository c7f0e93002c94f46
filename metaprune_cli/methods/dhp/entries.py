"""One entry of a state dict, generated: all of its blocks of edges, each from the latents at its ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.graph.units import Units
from metaprune_cli.methods.dhp.kernels import Compact, Embedded

Form = Callable[[Tensor], Compact | Embedded]
"""What makes a block's kernels, of the P that it begins with."""


class GeneratedBlock(nn.Module):
    """The kernels of one block: Z = ζ_destination · ζ_source, and what its form makes of them.

    Where every edge joins a unit with itself (a depthwise convolution), the product would be a square; as published,
    one number for the whole block, ``own``, takes the place of the source's latents.
    """

    def __init__(
        self, block: EdgeBlock, units: Units, weights: Tensor, latents: Tensor, form: Form, *, trained: bool
    ) -> None:
        """Begin with the weights, shape (groups, out, in, taps), at these latents of neurons; or with them as P."""
        super().__init__()
        self.register_buffer("destinations", block.destinations, persistent=False)
        self.register_buffer("sources", block.sources, persistent=False)
        unit = units.unit_of
        meets_itself = bool((unit[block.destinations][:, :, None] == unit[block.sources][:, None, :]).all())
        self.own = nn.Parameter(latents.new_ones(())) if meets_itself else None
        self.form = form(weights / self.products(latents)[..., None] if trained else weights)

    def products(self, latents: Float[Tensor, " neurons"]) -> Float[Tensor, "groups out in"]:
        """Z of every edge."""
        ends = [_at(latents, self.get_buffer("destinations"))]
        ends.append(_at(latents, self.get_buffer("sources")) if self.own is None else self.own.expand(1, 1))
        return ends[0][:, :, None] * ends[1][:, None, :]

    def forward(self, latents: Float[Tensor, " neurons"]) -> Float[Tensor, "groups out in taps"]:
        """The kernels."""
        kernels: Tensor = self.form(self.products(latents))
        return kernels

    def lost(self, alive: Bool[Tensor, " neurons"]) -> Tensor | None:
        """Which edges have an end that is gone, shape (groups, out, in, 1); None where none has."""
        ends = alive[self.get_buffer("destinations")], alive[self.get_buffer("sources")]
        if bool(ends[0].all()) and bool(ends[1].all()):
            return None
        return ~(ends[0][:, :, None] & ends[1][:, None, :])[..., None]


class GeneratedEntry(nn.Module):
    """All blocks of one entry.

    Attributes:
        names: of the entry; several where tensors are shared.
        shape: of its tensor.
    """

    def __init__(
        self,
        names: Sequence[str],
        blocks: Sequence[EdgeBlock],
        units: Units,
        tensor: Tensor,
        latents: Tensor,
        form: Form,
        *,
        trained: bool,
    ) -> None:
        """Begin with ``tensor`` (see :class:`GeneratedBlock`)."""
        super().__init__()
        self.names, self.shape, self._regions = tuple(names), tuple(tensor.shape), tuple(blocks)
        weights = [block.weights({block.param: tensor}) for block in blocks]
        self.blocks = nn.ModuleList(
            GeneratedBlock(block, units, values, latents, form, trained=trained)
            for block, values in zip(blocks, weights, strict=True)
        )

    def forward(self, latents: Float[Tensor, " neurons"], lost: Sequence[Tensor | None]) -> Tensor:
        """The entry's tensor, with zeros where an edge is lost."""
        kernels = [block(latents) for block in self.blocks]
        kernels = [
            values if gone is None else values.masked_fill(gone, 0) for values, gone in zip(kernels, lost, strict=True)
        ]
        first: Tensor = kernels[0]
        if self._in_order:
            return first.reshape(self.shape)
        flat: Tensor = first.new_zeros(math.prod(self.shape))
        for region, values in zip(self._regions, kernels, strict=True):
            flat = region.scatter(flat, values)
        return flat.view(self.shape)

    def lost(self, alive: Bool[Tensor, " neurons"]) -> list[Tensor | None]:
        """Block by block, which edges are lost."""
        return [block.lost(alive) for block in self.blocks if isinstance(block, GeneratedBlock)]

    @property
    def _in_order(self) -> bool:
        """Whether the one block's elements lie in the tensor one after the other."""
        first = self._regions[0]
        steps = [math.prod(first.size[place + 1 :]) for place in range(len(first.size))]
        in_order = zip(first.size, first.stride, steps, strict=True)
        return len(self._regions) == 1 and all(size == 1 or stride == step for size, stride, step in in_order)


def _at(latents: Tensor, neurons: Tensor) -> Tensor:
    """The latents of (groups, n) neurons; by ``index_select``, whose gradient is the faster one."""
    return latents.index_select(0, neurons.reshape(-1)).view(neurons.shape)
