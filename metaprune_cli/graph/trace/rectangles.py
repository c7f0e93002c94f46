"""What is left of a parameter is rectangular only if all that owns it agrees along its dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.graph.trace.labels import Ids


def neighbours(shape: Sequence[int], blocks: Sequence[EdgeBlock]) -> Iterator[tuple[Ids, Ids]]:
    """Pairs of neurons (equal shapes) that own the same index along a dimension of a parameter of several blocks.

    The packed projection of a cross-attention, say: its rows for queries read one stream, its rows for keys and values
    another, and column ``j`` can go only from both.

    Args:
        shape: of the parameter.
        blocks: its regions.
    """
    owner: dict[int, Tensor] = {}
    for block in blocks if len(blocks) > 1 else ():
        for axis, neurons in ((1, block.destinations), (2, block.sources)):
            places = _places(shape, block, axis)
            if places is None:
                continue
            dim, index = places
            known = owner.setdefault(dim, torch.full((shape[dim],), -1))
            index, ids = index.reshape(-1), neurons.reshape(-1)
            met = known[index] >= 0
            yield known[index[met]], ids[met]
            known[index[~met]] = ids[~met]


def merged(shape: Sequence[int], blocks: Sequence[EdgeBlock]) -> tuple[EdgeBlock, list[Ids]] | None:
    """One block for several uses of a whole parameter (a tied embedding, an autoencoder's transposed decoder).

    What the uses' neurons own of the parameter is tied by :func:`neighbours`; along a dimension where one use has none
    (an embedding's words), those of the others cannot go.

    Args:
        shape: of the parameter.
        blocks: its uses.

    Returns:
        The use that says most of the parameter, which stands for all of them, and the neurons that cannot go. None
        where one of the uses is of a part only.
    """
    if any(math.prod(block.size) != math.prod(shape) for block in blocks):
        return None
    owned = [
        {places[0]: ids for axis, ids in ((1, b.destinations), (2, b.sources)) if (places := _places(shape, b, axis))}
        for b in blocks
    ]
    everywhere = set.intersection(*map(set, owned))
    fixed = [ids for dims in owned for d, ids in dims.items() if d not in everywhere]
    main = max(range(len(blocks)), key=lambda i: len(owned[i]))
    return replace(blocks[main], positions=sum(block.positions for block in blocks)), fixed


def owners_of_all(shape: Sequence[int], elements: Tensor, neurons: Tensor, groups: Tensor) -> Tensor | None:
    """The neuron of every element of an entry of which some are known, by the index along one dimension.

    Args:
        shape: of the entry.
        elements: flat positions, shape (n,).
        neurons: their neurons, shape (n,).
        groups: of every neuron, the number of those that go together.

    Returns:
        Flat, shape (elements of the entry,); None where no dimension tells.
    """
    for d, digit in enumerate(torch.unravel_index(elements, list(shape))):
        owner = torch.full((shape[d],), groups.numel()).scatter_reduce_(0, digit, neurons, "amin")
        if bool((owner < groups.numel()).all()) and torch.equal(groups[owner[digit]], groups[neurons]):
            return owner.view([-1 if o == d else 1 for o in range(len(shape))]).expand(*shape).reshape(-1)
    return None


def _places(shape: Sequence[int], block: EdgeBlock, axis: int) -> tuple[int, Tensor] | None:
    """The dimension along which an axis of a block lies, and the index of each of its neurons; None for several."""
    groups, count = torch.arange(block.size[0]), torch.arange(block.size[axis])
    flat = block.offset + groups[:, None] * block.stride[0] + count * block.stride[axis]
    digits = torch.unravel_index(flat, list(shape))
    moving = [d for d, digit in enumerate(digits) if bool((digit != digit[:, :1]).any())]
    return (moving[0], digits[moving[0]]) if len(moving) == 1 else None
