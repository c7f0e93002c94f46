"""A model whose weights follow its widths: trained once, it says what any narrower network is worth."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.config import EncodingName, Repair, Start
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.pruning_net.generator import Form, Generator
from metaprune_cli.methods.pruning_net.sampling import Sampler
from metaprune_cli.metrics.calling import in_float32
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.width_space import Genes, WidthSpace
from metaprune_cli.tasks.base import Task
from metaprune_cli.training.norms import use_batch_statistics_

JUDGED = 8
"""Widths by which epochs are compared: the whole network, and random ones that are the same every time."""
SANDWICHED = 2
"""Random widths in a step beside the largest and the smallest (Yu and Huang, arXiv 1903.05134: n = 4 in all)."""


@dataclass(frozen=True)
class PruningNetConfig:
    """What a PruningNet is, beside the model it is of.

    Attributes:
        generator: the form of what the widths add to the weights (see :class:`Generator`).
        encoding: what each block of weights is told of the widths (see :class:`Encoding`).
        hidden: the number of directions.
        sandwich: a step trains the whole network, and the smallest and random ones on what the whole one returns.
    """

    generator: Form = "full"
    encoding: EncodingName = "own"
    hidden: int = 32
    sandwich: bool = False


@dataclass(frozen=True, eq=False)
class GeneratedWeights:
    """A PruningNet's weights for widths (:class:`methods.base.WidthWeights`); it can be sent to other processes."""

    generator: Generator
    entries: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    space: WidthSpace

    @property
    def repair(self) -> Repair:
        """Nothing knows the statistics of such widths yet."""
        return "bn"

    @torch.no_grad()
    def tensors_for(self, kept: Bool[Tensor, " units"]) -> dict[str, Tensor]:
        """As :meth:`PruningNet.generate`, constants."""
        made: dict[str, Tensor] = self.generator(kept, self.entries)
        made = {name: tensor.detach() for name, tensor in made.items()}
        return made | {alias: made[name] for alias, name in self.aliases.items()}


class PruningNet(nn.Module):
    """Weights W(e) = b + Σ_k relu(C e + d)_k A_k of a model for all widths e of its layers.

    In training mode a call draws widths, makes the weights, crops them and runs the small network, whose BatchNorms
    use the statistics of the batch. In evaluation mode one call after the other takes the same series of widths.
    The source is MetaPruning, arXiv 1903.10258.
    """

    def __init__(self, model: nn.Module, graph: NeuronGraph, crops: Crops, sampler: Sampler, config: PruningNetConfig):
        """Weights are the model's for all widths; ``reset_`` draws what is learnt.

        Args:
            model: the network; it is copied.
            graph: its structure.
            crops: of the model, which follows all widths of the sampler's space.
            sampler: draws the widths of every step.
            config: what the generator is.
        """
        super().__init__()
        self.config, self.crops, self.sampler = config, crops, sampler
        self.base = copy.deepcopy(model)
        self.generator = Generator(graph, config.generator, config.encoding, config.hidden)
        self._trainable, self._aliases = graph.trainable, dict(graph.aliases)
        fixed = torch.Generator().manual_seed(0)
        self._judged: tuple[Genes, ...] = (self.space.whole(), *(sampler.draw(fixed) for _ in range(JUDGED - 1)))
        self._calls = 0
        self._sandwich: tuple[Callable[[nn.Module], Any], Any] | None = None

    @property
    def space(self) -> WidthSpace:
        """The widths it knows."""
        return self.sampler.space

    def reset_(self, start: Start) -> None:
        """Draw the generator's parameters, from torch's global generator."""
        self.generator.reset_(self._entries(), start)

    def generate(self, kept: Bool[Tensor, " units"]) -> dict[str, Tensor]:
        """The whole model's state dict, its weights as they are to be where these units stay; not yet cropped."""
        made: dict[str, Tensor] = self.generator(kept, self._entries())
        return made | {alias: made[name] for alias, name in self._aliases.items()}

    def at(self, kept: Bool[Tensor, " units"]) -> nn.Module:
        """The network that these units leave, through which gradients flow to the parameters; BatchNorms use batches.

        It is to be called at once: the next call of this method makes another network of it.
        """
        cropped = self.crops.tensors(kept, self.generate(kept))
        own = {name: t if name in self._trainable else t.clone() for name, t in cropped.items()}
        small = self.crops.borrowed(kept, own | {alias: own[name] for alias, name in self._aliases.items()})
        small.train(self.training)
        use_batch_statistics_(small)
        return small

    @torch.no_grad()
    def network(self, genes: Genes) -> nn.Module:
        """The network of these widths by itself, in eval mode; its BatchNorms are to be measured anew.

        Args:
            genes: of :attr:`space`.
        """
        kept = self.space.kept(genes)
        return self.crops.run(kept, self.generate(kept)).eval()

    @property
    def weights(self) -> GeneratedWeights:
        """What a search takes: the weights for any widths, without what crops and runs them."""
        return GeneratedWeights(self.generator, self.base.state_dict(), self._aliases, self.space)

    def train(self, mode: bool = True) -> PruningNet:
        """In evaluation mode the series of widths begins anew."""
        self._calls = 0
        super().train(mode)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network of the widths whose turn it is returns; the largest's where training goes by sandwiches."""
        if not self.training:
            genes = self._judged[self._calls % JUDGED]
            self._calls += 1
            return self.at(self.space.kept(genes))(*args, **kwargs)
        if not self.config.sandwich:
            return self.at(self.space.kept(self._drawn()))(*args, **kwargs)
        output = self.at(self.space.kept(self.space.whole()))(*args, **kwargs)
        self._sandwich = (lambda small: small(*args, **kwargs)), output
        return output

    def rest_of_sandwich(self, task: Task) -> Tensor:
        """How far the smallest network, and random ones, are from the largest on the batch of the last call."""
        assert self._sandwich is not None
        (run, output), self._sandwich = self._sandwich, None
        taught = pytree.tree_map_only(Tensor, Tensor.detach, in_float32(output))
        genes: Sequence[Genes] = (self.space.smallest(), *(self._drawn() for _ in range(SANDWICHED)))
        found = [task.match(in_float32(run(self.at(self.space.kept(one)))), taught) for one in genes]
        return torch.stack(found).sum()

    def _drawn(self) -> Genes:
        """Random widths, by torch's global generator: they follow from the seed of the epoch."""
        return self.sampler.draw(torch.Generator().manual_seed(int(torch.randint(2**62, ()))))

    def _entries(self) -> Mapping[str, Tensor]:
        return self.base.state_dict(keep_vars=True)
