"""What happens to the latents after every step: they are pulled to zero, and the smallest units go.

Published (``threshold``): the proximal step of an L1 penalty,

    z ← sign(z) · max(|z| − λ · learning rate, 0),

and once all units with |z| below a threshold would save enough MACs, they go. ``scheduled``: the MACs fall
geometrically, MACs(t) = MACs(0) / s^(t / T), and every few steps the smallest latents' units go for good that the
schedule no longer affords; there is no λ to find, and what is left at the end is what was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.config import DhpSettings
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.dhp.generated import Generated
from metaprune_cli.pruning.cost import Cost, speedup
from metaprune_cli.pruning.plan import select
from metaprune_cli.pruning.ranking import Limits, removal_order


@dataclass(frozen=True, eq=False)
class Shrinker:
    """Called after every step of the training; all that it remembers is in the module's own state.

    Attributes:
        graph: of the network.
        limits: what may go of each family.
        speedups: the targets, MACs before / MACs after, ascending; they are met one after the other.
        settings: how.
        steps: of the whole training.
    """

    graph: NeuronGraph
    limits: Limits
    speedups: tuple[float, ...]
    settings: DhpSettings
    steps: int

    def __post_init__(self) -> None:
        if not self.speedups or list(self.speedups) != sorted(set(self.speedups)) or not self.speedups[0] > 1:
            raise InputError("No target speed-ups were given.", expected="above 1, ascending", got=self.speedups)

    @cached_property
    def cost(self) -> Cost:
        """The MACs of any units."""
        return Cost.of(self.graph)

    @cached_property
    def pulled(self) -> Bool[Tensor, " units"]:
        """The units that may go: the latents of all others learn, and are never pulled."""
        units = self.graph.units
        return units.prunable & (self.limits.most > 0)[units.family_of]

    def __call__(self, model: nn.Module, lr: float) -> None:
        """What comes after a step that was taken with this learning rate; in place."""
        assert isinstance(model, Generated)
        model.steps += 1
        model.silence_()
        if self.settings.strength:
            model.shrink_(self.settings.strength * lr, self.pulled)
        step = int(model.steps)
        if self.settings.shrink == "threshold":
            if step % self.settings.check_every == 0 or step >= self.steps:
                self._count_met_(model)
        elif step % self.settings.remove_every == 0 or step >= self._length:
            self._remove_(model, step)

    def met(self, model: nn.Module) -> int:
        """How many targets are, of whatever a checkpoint says."""
        assert isinstance(model, Generated)
        return min(max(int(model.reached), 0), len(self.speedups))

    def is_met(self, model: nn.Module) -> bool:
        """Whether the last target is."""
        return self.met(model) == len(self.speedups)

    def check_met(self, model: Generated) -> None:
        """Make sure that all targets were met.

        Raises:
            TargetError: one was not; says how far it came.
        """
        if self.is_met(model):
            return
        wanted = self.speedups[self.met(model)]
        scheduled = self.settings.shrink == "scheduled"
        raise TargetError(
            f"A speed-up of {wanted:g}× was not reached within {int(model.steps)} steps.",
            expected=f"{wanted:g}×",
            got=f"{self.speedup_of(model):.3g}×",
            next_step="more --epochs" + ("" if scheduled else ", a larger --strength, or --shrink scheduled"),
        )

    def speedup_of(self, model: Generated) -> float:
        """How far it came: by what is removed, or of ``threshold`` by all latents below it."""
        everything = torch.ones_like(model.kept)
        kept = self._above(model) if self.settings.shrink == "threshold" else model.kept
        return speedup(self.cost.macs(everything), self.cost.macs(kept))

    @property
    def _length(self) -> int:
        """T of the schedule, in steps."""
        return max(round(self.settings.share * self.steps), 1)

    def _remove_(self, model: Generated, step: int) -> None:
        """What the schedule no longer affords; it stops at every target, which is met to the unit."""
        if self.is_met(model):
            return
        asked, following = self.speedups[-1] ** min(step / self._length, 1), self.speedups[self.met(model)]
        at_target = asked >= following * (1 - 1e-9)
        factor = following if at_target else asked
        kept = select(self.graph, model.scores(), factor, limits=self.limits, cost=self.cost, fill=at_target)
        model.remove_(kept)
        model.reached += int(at_target)

    def _count_met_(self, model: Generated) -> None:
        """How many targets the units above the threshold meet."""
        achieved = self.speedup_of(model)
        model.reached.fill_(max(self.met(model), sum(achieved >= wanted for wanted in self.speedups)))

    def _above(self, model: Generated) -> Bool[Tensor, " units"]:
        """What is left without all units below the threshold, as far as the limits let them go."""
        scores = model.scores()
        order = removal_order(self.graph.units, scores, "global", self.limits)
        kept = torch.ones(len(scores), dtype=torch.bool)
        small = order.units[scores[order.units] < self.settings.threshold]
        kept[small] = False
        return kept
