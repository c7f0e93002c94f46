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

    population: Annotated[Count, Flag("Candidates in each iteration.", SEARCH, "N")] = 20
    iterations: Annotated[Count, Flag("Number of iterations.", SEARCH, "N")] = 10
    parents: Annotated[Count, Flag("How many of the best so far have children.", SEARCH, "N")] = 10
    mutations: Annotated[Share, Flag("Share of a population that comes from mutation.", SEARCH, "R")] = 0.5
    crossovers: Annotated[Share, Flag("Share that comes from crossover; the rest is random.", SEARCH, "R")] = 0.5
    mutate: Annotated[Share, Flag("Probability that a width is mutated.", SEARCH, "R")] = 0.1
    band: Annotated[Share, Flag("Share of the budget that a candidate must use.", SEARCH, "R")] = 0.97
    front: Annotated[bool, Flag("Search for all targets at once (the Pareto front).", SEARCH)] = False
    fitness: Annotated[
        Fitness, Flag("What candidates are judged by: the loss, or the task's first metric.", MEASURING)
    ] = "loss"
    images: Annotated[Count, Flag("Training images that judge candidates.", MEASURING, "N")] = 1024
    views: Annotated[Count, Flag("Views of each image; augmented if more than one.", MEASURING, "N")] = 1
    verify: Annotated[Count, Flag("Other training images, on which the leaders are judged again.", MEASURING, "N")] = (
        2048
    )
    leaders: Annotated[Count, Flag("How many leaders are judged again.", MEASURING, "N")] = 10
    repair: Annotated[Repair, Flag("How candidates are repaired, without training.", REPAIR)] = "least-squares"
    repair_images: Annotated[Count, Flag("Training images for the repair.", REPAIR, "N")] = 512
    weights: Annotated[
        FinalWeights,
        Flag(
            "Weights of the result: those it was judged with, the model's own, or new ones (to train from scratch).",
            OUTPUT,
        ),
    ] = "model"
    together: Annotated[bool, Flag("One search for all models of the same structure.", SEARCH)] = False
    rank_check: Annotated[
        Natural, Flag("Train N random candidates of the budget: does the fitness tell which end best?", MEASURING, "N")
    ] = 0
    rank_epochs: Annotated[Count, Flag("Epochs of each of these trainings.", MEASURING, "N")] = 2
