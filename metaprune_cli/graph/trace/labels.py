"""What a traced tensor carries: the neurons its elements belong to, or the state-dict elements they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

Ids = Int[Tensor, "..."]
"""Neuron id of every element, same shape as the activation; 0 stands for "no neuron"."""


@dataclass(frozen=True, eq=False)
class Elements:
    """A state-dict entry, a view of it, or an elementwise function of it: which flat element each element is.

    ``index`` starts as a view on the meta device: its offset and strides say which elements, and nothing is stored.
    Only where an operator does more than view does it become a real int64 tensor.

    ``companions``: what else each element was computed from, elementwise (the gain of a weight norm, a mask, low-rank
    factors); their indices have the same shape, broadcast. ``mixes``: why the result is not zero where the elements
    are, or depends on more than them. ``work``: the multiply-accumulates that each element took to compute.
    """

    entry: str
    index: Tensor
    companions: tuple[Elements, ...] = ()
    mixes: str | None = None
    work: int = 0

    def apply(self, function: Callable[[Tensor], Any]) -> Elements | tuple[Elements, ...]:
        """The elements after a movement, which is a function of one tensor to one or several."""
        moved = function(self.index)
        parts = moved if isinstance(moved, tuple | list) else (moved,)
        storage = self.index.untyped_storage()._cdata
        if self.index.is_meta and any(part.untyped_storage()._cdata != storage for part in parts):
            return dataclasses.replace(self, index=self.real()).apply(function)
        beside = [companion.apply(function) for companion in self.companions]
        whole = tuple(
            dataclasses.replace(self, index=part, companions=tuple(b[i] if isinstance(b, tuple) else b for b in beside))
            for i, part in enumerate(parts)
        )
        return whole if isinstance(moved, tuple | list) else whole[0]

    def view(self, function: Callable[[Tensor], Tensor]) -> Elements:
        """``apply`` for a function to one tensor."""
        moved = self.apply(function)
        assert isinstance(moved, Elements)
        return moved

    def spread(self, shape: Sequence[int]) -> Elements:
        """The elements broadcast to ``shape``."""
        return Elements(self.entry, self.real().expand(tuple(shape)))

    def beside(self, companions: Iterable[Elements], mixes: str | None = None, work: int = 0) -> Elements:
        """The same, computed from ``companions`` too, which have the same shape, with so much more work."""
        together = (*self.companions, *companions)
        return Elements(self.entry, self.index, together, self.mixes or mixes, self.work + work)

    def alone(self) -> tuple[Elements, ...]:
        """This entry's elements without companions, and each companion, in this one's shape."""
        return (Elements(self.entry, self.index), *self.companions)

    def real(self) -> Ids:
        """The flat element numbers, as an int64 tensor."""
        if not self.index.is_meta:
            return self.index
        storage = self.index.untyped_storage().nbytes() // self.index.element_size()
        return torch.arange(storage).as_strided(self.index.size(), self.index.stride(), self.index.storage_offset())


Label = Tensor | Elements | None


def compact(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Narrow to size 1 every dimension along which no tensor varies by construction (stride 0 or size 1).

    The tensors have the same number of dimensions; what is computed on the result broadcasts back by ``expand``.
    """
    flat = [all(t.stride(d) == 0 or t.size(d) == 1 for t in tensors) for d in range(tensors[0].dim())]
    return [_narrow(t, [d for d, constant in enumerate(flat) if constant]) for t in tensors]


def squeeze_constant(ids: Ids) -> Ids:
    """``ids`` with its stride-0 dimensions narrowed to size 1."""
    return _narrow(ids, [d for d in range(ids.dim()) if ids.stride(d) == 0])


def condensed(ids: Ids) -> Ids:
    """The same ids, stride 0 along every dimension along which they do not differ, whatever storage they came in."""
    small = squeeze_constant(ids)
    for d in range(small.dim()):
        size = small.size(d)
        if size > 1 and torch.equal(small.select(d, 0), small.select(d, size - 1)):
            first = small.narrow(d, 0, 1)
            if bool((small == first).all()):
                small = first.clone()  # so that the whole is not kept
    return small.expand(ids.shape) if small.shape != ids.shape else ids


def _narrow(tensor: Tensor, dims: Iterable[int]) -> Tensor:
    for d in dims:
        if tensor.size(d) > 1:
            tensor = tensor.narrow(d, 0, 1)
    return tensor


def varying(ids: Ids) -> list[int]:
    """The dimensions along which the ids really differ."""
    small = squeeze_constant(ids)
    return [d for d in range(small.dim()) if small.size(d) > 1 and bool((small != small.narrow(d, 0, 1)).any())]


def spread(ids: Ids, shape: Sequence[int]) -> Ids:
    """Broadcast ids to ``shape`` without storing anything new."""
    return ids.expand(tuple(shape))


def reshape(ids: Ids, shape: Sequence[int]) -> Ids:
    """``ids`` in another shape; what they are constant along stays unstored where it comes through whole."""
    size = list(torch.empty(ids.shape, device="meta").reshape(list(shape)).shape)
    limit = min(ids.dim(), len(size))
    lead = next((d for d in range(limit) if ids.size(d) != size[d]), limit)
    tail = next((d for d in range(limit - lead) if ids.size(-1 - d) != size[-1 - d]), limit - lead)
    whole = [*range(lead), *range(-tail, 0)]
    small = _narrow(ids, [d for d in whole if ids.stride(d) == 0])
    small_size = list(size)
    for d in whole:
        small_size[d] = small.size(d)
    return small.reshape(small_size).expand(size)


def concatenated(ids: Sequence[Ids], dim: int = 0) -> Ids:
    """cat; along the other dimensions, what no part varies along by construction stays unstored."""
    parts = [part for part in ids if part.dim() == max(p.dim() for p in ids)]  # cat takes (0,) beside any shape
    dim %= parts[0].dim()
    whole = [sum(p.size(d) for p in parts) if d == dim else size for d, size in enumerate(parts[0].shape)]
    flat = [d for d in range(len(whole)) if d != dim and all(p.stride(d) == 0 for p in parts)]
    return torch.cat([_narrow(part, flat) for part in parts], dim).expand(whole)


def affine(elements: Elements) -> tuple[int, tuple[int, ...]] | None:
    """Offset and strides (none negative) in the flat entry, or None where the elements do not lie on such a grid."""
    index = elements.index
    if index.numel() == 0:
        return None
    if index.is_meta:
        offset, stride = int(index.storage_offset()), tuple(index.stride())
    else:
        offset = int(index[(0,) * index.dim()])
        if offset < 0:  # padded
            return None
        stride = tuple(_step(index, d) - offset for d in range(index.dim()))
        grid = torch.full((1,) * index.dim(), offset)
        for d, step in enumerate(stride):
            grid = grid + (torch.arange(index.size(d)) * step).view([-1 if o == d else 1 for o in range(index.dim())])
        if min(stride, default=0) < 0 or not torch.equal(grid, index):
            return None
    return offset, tuple(step if size > 1 else 0 for step, size in zip(stride, index.shape, strict=True))


def _step(index: Tensor, dim: int) -> int:
    """The element one step along ``dim`` from the first one (the first itself where there is no step)."""
    return int(index[tuple(int(d == dim and index.size(d) > 1) for d in range(index.dim()))])
