"""Batches that somebody else makes, as a split: those of a DataLoader, or of any iterable of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaprune_cli.data.batch import Batch, TensorSplit, on, size_of, take
from metaprune_cli.errors import InputError


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """A split that is read anew in every pass; order and augmentation are the source's.

    Attributes:
        source: pairs of inputs and targets, batch by batch; it can be iterated over more than once.
    """

    source: Iterable[Any]

    @classmethod
    def of(cls, source: Iterable[Any]) -> StreamSplit:
        """That of any iterable; one that can be read only once is read now, and kept."""
        return cls(tuple(source) if iter(source) is source else source)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that one pass gives."""
        return self._held.digest

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        """A DataLoader knows; everything else is counted in a pass."""
        source = self.source
        if isinstance(source, torch.utils.data.DataLoader) and source.batch_size and isinstance(source.dataset, Sized):
            if source.drop_last:
                return len(source) * source.batch_size
            return len(source.sampler) if isinstance(source.sampler, Sized) else len(source.dataset)
        return sum(size_of(batch.targets) for batch in self._pairs())

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,  # noqa: ARG002 - the order is the source's
        augment: bool = False,  # noqa: ARG002 - so is the augmentation
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches of this size, put together or cut from the source's where those have another."""
        number, parts = part
        for batch in self._of_size(batch_size, drop_last):
            mine = torch.arange(size_of(batch.targets)).tensor_split(parts)[number]
            whole = parts == 1
            if whole or len(mine):
                yield on(device, batch if whole else _taken(batch, mine))

    def subset(self, n: int, seed: int) -> TensorSplit:
        """``n`` samples drawn by ``seed``, held in memory; all of them where there are no more than ``n``."""
        return self._held.subset(n, seed)

    def at(self, positions: Tensor) -> TensorSplit:
        """The samples at ``positions``, int64 (n,), held in memory."""
        return self._held.at(positions)

    @property
    def _held(self) -> TensorSplit:
        return TensorSplit(*_joined(list(self._pairs())))

    def _of_size(self, batch_size: int, drop_last: bool) -> Iterator[Batch]:
        waiting: list[Batch] = []
        count = 0
        for batch in self._pairs():
            waiting.append(batch)
            count += size_of(batch.targets)
            while count >= batch_size:
                joined = _joined(waiting)
                yield joined if count == batch_size else _taken(joined, slice(batch_size))
                count -= batch_size
                waiting = [_taken(joined, slice(batch_size, None))] if count else []
        if count and not drop_last:
            yield _joined(waiting)

    def _pairs(self) -> Iterator[Batch]:
        for number, pair in enumerate(self.source):
            if not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise InputError(
                    "A batch is not a pair.",
                    expected="(inputs, targets), as a DataLoader of a data set of pairs gives them",
                    got=f"{len(pair)} values" if isinstance(pair, tuple | list) else type(pair).__name__,
                    where=f"batch {number}",
                    next_step="wrap the iterable: ((batch['image'], batch['label']) for batch in loader)",
                )
            check_sizes(*pair, where=f"batch {number}")
            yield Batch(*pair)


def check_sizes(inputs: Any, targets: Any, *, where: str) -> None:
    """Make sure that inputs and targets are nests of tensors of equally many samples.

    Raises:
        InputError: they are not.
    """
    sizes = [
        sorted({leaf.shape[0] if leaf.dim() else 0 for leaf in pytree.tree_leaves(part) if isinstance(leaf, Tensor)})
        for part in (inputs, targets)
    ]
    if not all(sizes):
        missing = "inputs" if not sizes[0] else "targets"
        raise InputError(
            f"There are no tensors among the {missing}.",
            expected="tensors, or tuples or mappings of them, whose first dimension is the samples'",
            got=type(inputs if missing == "inputs" else targets).__name__,
            where=where,
        )
    if len(set(sizes[0] + sizes[1])) > 1:
        raise InputError(
            "Inputs and targets have different numbers of samples.",
            expected="tensors of equally many samples",
            got=f"{sizes[0][0]} inputs and {sizes[1][0]} targets" if sizes[0] != sizes[1] else f"{sizes[0]}",
            where=where,
        )


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    if not batches:
        raise InputError("There are no batches.", expected="pairs of inputs and targets", got="an empty iterable")
    leaves = [pytree.tree_flatten(tuple(batch)) for batch in batches]
    parts = zip(*(flat for flat, _ in leaves), strict=True)
    whole = [torch.cat(part) if isinstance(part[0], Tensor) else part[0] for part in parts]
    return Batch(*pytree.tree_unflatten(whole, leaves[0][1]))


def _taken(batch: Batch, positions: Tensor | slice) -> Batch:
    return Batch(*(take(part, positions) for part in batch))
