"""Which positions of every tensor of a recorded program are left once units are gone."""

from __future__ import annotations

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.labels import Elements, Label, squeeze_constant
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import alive_neurons, masks
from metaprune_cli.graph.structure import CONSTANT

Survivors = tuple[Tensor | None, ...]
"""Per dimension a bool mask of the positions that stay; None where all of them do."""


class SurvivorMap:
    """Survivors by what a tensor carries: its neurons, or the state-dict elements it consists of."""

    def __init__(self, graph: NeuronGraph, kept: Tensor) -> None:
        self._neurons = alive_neurons(graph, kept)
        self._entries = {name: mask.reshape(-1) for name, mask in masks(graph, kept).items()}
        self._known: dict[int, tuple[Label, Survivors]] = {}

    def of(self, label: Label, dims: int) -> Survivors:
        """The survivors of a tensor with ``dims`` dimensions.

        Raises:
            NumericsError: what stays is not rectangular.
        """
        if label is None:
            return (None,) * dims
        found = self._known.get(id(label))
        if found is None:
            found = self._known[id(label)] = (label, self._find(label))
        return found[1]

    def _find(self, label: Tensor | Elements) -> Survivors:
        mask = self._entry_mask(label) if isinstance(label, Elements) else self._neurons[squeeze_constant(label)]
        shape = label.index.shape if isinstance(label, Elements) else label.shape
        if mask is None or bool(mask.all()):
            return (None,) * len(shape)
        somebody = squeeze_constant(label) != CONSTANT if isinstance(label, Tensor) else torch.ones_like(mask)
        found: list[Tensor | None] = []
        rectangle = torch.ones((), dtype=torch.bool)
        for d, size in enumerate(mask.shape):
            others = [o for o in range(mask.dim()) if o != d]
            stays, is_known = mask & somebody, somebody
            if others:
                stays, is_known = stays.any(dim=others), is_known.any(dim=others)
            along = stays | ~is_known  # where there is nobody (padding), nobody goes
            found.append(None if size < shape[d] or bool(along.all()) else along)
            rectangle = rectangle & along.view([-1 if o == d else 1 for o in range(mask.dim())])
        if not torch.equal(rectangle & somebody, mask & somebody):
            raise NumericsError(
                "The removal would leave an activation with holes",
                expected="survivors that form an outer product of kept positions per dimension",
                got=f"{int((mask & somebody).count_nonzero())} of {mask.numel()} elements",
            )
        return tuple(found)

    def _entry_mask(self, elements: Elements) -> Tensor | None:
        mask = self._entries.get(elements.entry)
        if mask is None:
            return None
        index = elements.index
        if not index.is_meta:
            return mask[index]
        return mask.as_strided(index.size(), index.stride(), index.storage_offset())
