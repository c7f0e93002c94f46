"""Processes that work together, on one machine or on several: who does what, and how they put it together.

Numbers and Python objects travel over gloo, between CPUs; tensors over what their device has (NCCL on CUDA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from metaprune_cli.errors import LostProcessError
from metaprune_cli.training.seeds import derive

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """All processes of a run, seen from one of them; every method but ``share`` and ``own_seed`` is called by all.

    Raises, in every method that talks to the others:
        LostProcessError: one of them is gone, or does not answer.

    Attributes:
        rank: the number of this process.
        world: how many there are.
        days: the group of processes over which they may wait for each other for days; None where there is one.
    """

    rank: int = 0
    world: int = 1
    days: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """The part of every batch that is this process's: its number, and of how many."""
        return self.rank, self.world

    def own_seed(self, seed: int) -> int:
        """For draws that are to differ between the processes; the first one's is ``seed`` itself."""
        return derive(seed, "rank", self.rank) if self.rank else seed

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of the items that are this process's work: they are dealt out in turn."""
        return items[self.rank :: self.world]

    def collect(self, results: Sequence[Result], *, patient: bool = False) -> list[Result]:
        """The results of all processes' shares, in the order of what was shared out; all get them.

        With ``patient``, what the others do may take days longer.
        """
        shares = self.gather(list(results), patient=patient)
        total = sum(map(len, shares))
        return [shares[place % self.world][place // self.world] for place in range(total)]

    def gather(self, mine: Result, *, patient: bool = False) -> list[Result]:
        """What every process has, by rank."""
        if self.world == 1:
            return [mine]
        theirs: list[Any] = [None] * self.world
        with answered():
            dist.all_gather_object(theirs, mine, group=self.days if patient else None)
        return theirs

    def from_first(self, make: Callable[[], Result]) -> Result:
        """What the first process makes; only there ``make`` is called."""
        return self.gather(make() if self.first else None)[0]  # type: ignore[return-value]

    def sum(self, figures: Sequence[float]) -> list[float]:
        """Each figure added up over the processes."""
        if self.world == 1:
            return list(figures)
        total = torch.tensor(figures, dtype=torch.float64)
        with answered():
            dist.all_reduce(total)
        return total.tolist()

    def sum_gradients_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients up over the processes, in place; what has none in any of them has none afterwards.

        A process that had nothing to do in this step takes part with zeros.
        """
        if self.world == 1:
            return
        known = list(parameters)
        holders = self.sum([float(parameter.grad is not None) for parameter in known])
        held = [parameter for parameter, number in zip(known, holders, strict=True) if number]
        for parameter in held:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum_([parameter.grad for parameter in held if parameter.grad is not None])

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Average tensors of any shapes over the processes, in place."""
        if self.world > 1:
            self._sum_(tensors, over=self.world)

    def _sum_(self, tensors: Sequence[Tensor], over: int = 1) -> None:
        """All of them as one message: what it costs to begin one is paid once."""
        if not tensors:
            return
        message = torch.cat([tensor.flatten() for tensor in tensors])
        with answered():
            dist.all_reduce(message)
        pieces = (message / over).split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view(tensor.shape))


ALONE = Ranks()
"""The one process there is without ``torchrun``."""


@contextmanager
def answered() -> Iterator[None]:
    """What gloo and NCCL raise where a process is gone or silent, as an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            "Another process of this run has ended, or does not answer.",
            got=str(error).partition("\n")[0].partition(". ")[0],  # gloo goes on with advice to programmers
            next_step="look for its own message; then run it again with --resume, it goes on where it was",
        ) from error
