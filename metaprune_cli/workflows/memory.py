"""The verdicts of a search beside its output, while it lasts: an interrupted run goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.training.distributed import Ranks
from metaprune_cli.workflows.judging import UNFIT, Judged
from metaprune_cli.workflows.made import Checkpoint

STATE = {"epoch": 0, "history": []}
"""A search has no epochs: with the verdicts that are there, it goes the way that it went."""


@dataclass(frozen=True, eq=False)
class Memory:
    """Verdicts on candidates: all searches of a call ask it first, and an interrupted run leaves it to the next.

    Attributes:
        known: by the units that stay, a byte for each.
        save: is given all of them after every iteration; None: nobody keeps them.
    """

    known: dict[bytes, Judged] = field(default_factory=dict)
    save: Callable[[Mapping[bytes, Judged]], None] | None = None

    def keep(self) -> None:
        """Leave them to the next run."""
        if self.save is not None:
            self.save(self.known)


def memory_of(checkpoint: Checkpoint, *, resume: bool, ranks: Ranks) -> Memory:
    """Verdicts that an interrupted run has left, if it is to be gone on with; new ones are kept by the first rank."""
    known = ranks.from_first(lambda: checkpoint.read(from_tensors) or {}) if resume else {}

    def save(verdicts: Mapping[bytes, Judged]) -> None:
        checkpoint.write(to_tensors(verdicts), STATE)

    return Memory(known, save if ranks.first else None)


def to_tensors(known: Mapping[bytes, Judged]) -> dict[str, Tensor]:
    """The verdicts as tensors: the units that stay, uint8 (n, units), the parts, (n, parts), and headlines, (n,)."""
    length = max((len(one.parts) for one in known.values()), default=0)
    parts = [[*one.parts, *[math.inf] * (length - len(one.parts))] for one in known.values()]
    return {
        "search/kept": torch.tensor([list(kept) for kept in known], dtype=torch.uint8),
        "search/parts": torch.tensor(parts, dtype=torch.float64),
        "search/headlines": torch.tensor([_finite(one.headline) for one in known.values()], dtype=torch.float64),
    }


def from_tensors(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> dict[bytes, Judged]:  # noqa: ARG001 - as it is called
    """The verdicts.

    Raises:
        CorruptFileError: they are none.
    """
    nothing = torch.empty(0)
    kept, parts, headlines = (tensors.get(f"search/{name}", nothing) for name in ("kept", "parts", "headlines"))
    if [one.dim() for one in (kept, parts, headlines)] != [2, 2, 1] or not _as_many(kept, parts, headlines):
        raise CorruptFileError("This does not describe the state of a search.", next_step="start without --resume")
    rows = zip(kept.to(torch.uint8), parts.tolist(), headlines.tolist(), strict=True)
    return {
        bytes(units.tolist()): Judged(tuple(row), headline) if math.isfinite(sum(row)) else UNFIT
        for units, row, headline in rows
    }


def _as_many(kept: Tensor, parts: Tensor, headlines: Tensor) -> bool:
    return len(kept) == len(parts) == len(headlines) and parts.size(1) > 0 and parts.is_floating_point()


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0  # of widths that nobody could judge
