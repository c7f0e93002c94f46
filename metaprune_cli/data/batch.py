"""What a split of any data set is to those who use it, and batches of any nest of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaprune_cli.data.digest import digest_of

Batch = NamedTuple("Batch", [("inputs", Any), ("targets", Any)])  # noqa: UP014 - classes' annotations are text here
"""What models are given, and what they should return: nests of tensors whose first dimension is the batch's."""
AnyBatch = tuple[Any, Any]
"""A batch, or a plain pair, as people write it in Python."""


@runtime_checkable
class Split(Protocol):
    """Some of the samples of a data set."""

    @property
    def digest(self) -> str:
        """What tells these samples from others, wherever they lie: a resumed run asks whether they are the same."""

    def __len__(self) -> int:
        """How many there are."""

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: bool = False,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches in an order, and with all other draws, that follow from ``shuffle_seed`` and ``batch_size`` alone.

        Without a seed the samples are in order. With ``part`` (number, of how many), only that part of every batch.
        """

    def subset(self, n: int, seed: int) -> Split:
        """``n`` samples drawn by ``seed``; all of them where there are no more."""

    def at(self, positions: Tensor) -> Split:
        """The samples at ``positions`` of this split, int64 (n,)."""


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """A split of samples that are in memory: nests of tensors whose first dimension is the samples'."""

    inputs: Any
    targets: Any

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all tensors, in order."""
        leaves = pytree.tree_leaves((self.inputs, self.targets))
        return digest_of(*(leaf.cpu() if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves))

    def __len__(self) -> int:
        return size_of(self.targets)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: bool = False,  # noqa: ARG002 - there is nothing to augment by
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches in the order of the samples, or in one that ``shuffle_seed`` draws."""
        number, parts = part
        for positions in shares(batch_order(len(self), shuffle_seed), batch_size, drop_last, number, parts):
            yield on(device, Batch(take(self.inputs, positions), take(self.targets, positions)))

    def subset(self, n: int, seed: int) -> TensorSplit:
        """``n`` samples drawn by ``seed``, in order; all of them where there are no more than ``n``."""
        return self.at(drawn(len(self), n, seed))

    def at(self, positions: Tensor) -> TensorSplit:
        """The samples at ``positions``, int64 (n,)."""
        return replace(self, inputs=take(self.inputs, positions), targets=take(self.targets, positions))


def size_of(nest: Any) -> int:
    """How many samples there are in a nest: the first dimension of its first tensor."""
    return len(next(leaf for leaf in pytree.tree_leaves(nest) if isinstance(leaf, Tensor)))


def take(nest: Any, positions: Tensor | slice) -> Any:
    """The samples at ``positions``, of every tensor of a nest."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[positions], nest)


def on(device: torch.device | str, batch: Batch) -> Batch:
    """The same batch on a device."""
    return Batch(*(pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), part) for part in batch))


def chunks(batch: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of at most ``size`` samples."""
    inputs, targets = batch
    for start in range(0, size_of(targets), size):
        some = slice(start, start + size)
        yield Batch(take(inputs, some), take(targets, some))


def batch_order(n: int, shuffle_seed: int | None) -> Tensor:
    """The order of ``n`` samples."""
    if shuffle_seed is None:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(shuffle_seed))


def shares(order: Tensor, batch_size: int, drop_last: bool, number: int, parts: int) -> list[Tensor]:
    """Of every batch that ``order`` is divided into, part ``number`` of ``parts``; those of nothing are left out."""
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    found = [torch.tensor_split(batch, parts)[number] for batch in torch.split(order, batch_size)]
    return [share for share in found if len(share)]


def drawn(count: int, n: int, seed: int) -> Tensor:
    """``n`` of ``count`` positions, in order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:n].sort().values
