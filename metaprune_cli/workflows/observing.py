"""What training images show of a model's units, attached to its graph."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from metaprune_cli.graph import NeuronGraph
from metaprune_cli.pruning.observing import observe
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.loading import Opened
from metaprune_cli.workflows.samples import Samples

USUAL = 512
"""So many images where a metanetwork can read what they show, and nobody has said how many."""


@dataclass(frozen=True, eq=False)
class Observer:
    """Looks at models.

    Attributes:
        samples: the images; those of the training split are taken, not augmented.
        images: how many.
        device: where they pass.
    """

    samples: Samples
    images: int
    device: torch.device

    def look(self, opened: Opened, graph: NeuronGraph) -> NeuronGraph:
        """The graph with what the images show of a model's units.

        Raises:
            InputError: the images do not fit the model.
        """
        check_fits(opened, self.samples.splits, self.samples.task)
        return self.shown(opened.model, graph)

    def shown(self, model: nn.Module, graph: NeuronGraph) -> NeuronGraph:
        """The same for a model that is known to take them."""
        there = copy.deepcopy(model).to(self.device).eval()
        size = min(self.samples.batch_size, self.images)
        batches = self.samples.splits.train.batches(size, shuffle_seed=0, device=self.device)
        some = list(islice(batches, math.ceil(self.images / size)))
        return graph.with_evidence(observe(there, graph, some, self.samples.task))
