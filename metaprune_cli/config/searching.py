"""How widths are searched for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from metaprune_cli.config.choices import Count, Natural, Repair
from metaprune_cli.config.flags import MEASURING, OUTPUT, REPAIR, SEARCH, Flag
from metaprune_cli.config_loader import Range

Share = Annotated[float, Range(at_least=0, at_most=1)]
Fitness = Literal["loss", "metric"]
FinalWeights = Literal["inherited", "model", "scratch"]


@dataclass(frozen=True)
class SearchSettings:
    """Section ``search``: how many widths are tried, how they come to be, and what judges them.

    As published (MetaPruning, arXiv 1903.10258): population 50, 20 iterations, 10 parents, 25 mutations and 25
    crossovers, each gene mutated with probability 0.1, final weights from scratch.
    """

    population: Annotated[Count, Flag("Candidates of an iteration.", SEARCH, "N")] = 20
    iterations: Annotated[Count, Flag("How many.", SEARCH, "N")] = 10
    parents: Annotated[Count, Flag("The best so far, from which children come.", SEARCH, "N")] = 10
    mutations: Annotated[Share, Flag("Of a population that comes by mutation.", SEARCH, "R")] = 0.5
    crossovers: Annotated[Share, Flag("Of a population that comes by crossover; the rest is random.", SEARCH, "R")] = (
        0.5
    )
    mutate: Annotated[Share, Flag("Probability that a gene is mutated.", SEARCH, "R")] = 0.1
    band: Annotated[Share, Flag("Of the budget that a candidate has to use.", SEARCH, "R")] = 0.97
    front: Annotated[bool, Flag("One search for all targets: what is best for what it costs.", SEARCH)] = False
    fitness: Annotated[Fitness, Flag("What judges: the loss, or the task's first metric.", MEASURING)] = "loss"
    images: Annotated[Count, Flag("Training images that judge candidates.", MEASURING, "N")] = 1024
    views: Annotated[Count, Flag("Of each image, augmented where there are several.", MEASURING, "N")] = 1
    verify: Annotated[Count, Flag("Other training images, by which the leaders are judged again.", MEASURING, "N")] = (
        2048
    )
    leaders: Annotated[Count, Flag("How many are.", MEASURING, "N")] = 10
    repair: Annotated[Repair, Flag("What is done about the loss without training.", REPAIR)] = "least-squares"
    repair_images: Annotated[Count, Flag("Training images for it.", REPAIR, "N")] = 512
    weights: Annotated[
        FinalWeights,
        Flag(
            "Of what is found: as it was judged, the model's own units, or none (to be trained from scratch).", OUTPUT
        ),
    ] = "model"
    together: Annotated[bool, Flag("One search for all models of the same structure.", SEARCH)] = False
    rank_check: Annotated[
        Natural, Flag("Train N random candidates of the budget: does the fitness tell which end best?", MEASURING, "N")
    ] = 0
    rank_epochs: Annotated[Count, Flag("Epochs of each of them.", MEASURING, "N")] = 2
