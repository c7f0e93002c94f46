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

    population: Annotated[Count, Flag("Number of candidates per iteration.", SEARCH, "N")] = 20
    iterations: Annotated[Count, Flag("Number of iterations.", SEARCH, "N")] = 10
    parents: Annotated[Count, Flag("How many of the best candidates so far produce new ones.", SEARCH, "N")] = 10
    mutations: Annotated[Share, Flag("Share of each iteration's candidates made by mutation.", SEARCH, "R")] = 0.5
    crossovers: Annotated[Share, Flag("Share made by crossover; the rest are random.", SEARCH, "R")] = 0.5
    mutate: Annotated[Share, Flag("Probability that a width is mutated.", SEARCH, "R")] = 0.1
    band: Annotated[Share, Flag("Share of the budget that a candidate must use.", SEARCH, "R")] = 0.97
    front: Annotated[bool, Flag("Search for all targets at once (the Pareto front).", SEARCH)] = False
    fitness: Annotated[
        Fitness, Flag("How candidates are evaluated: by the loss, or by the task's first metric.", MEASURING)
    ] = "loss"
    images: Annotated[Count, Flag("Number of training images used to evaluate candidates.", MEASURING, "N")] = 1024
    views: Annotated[Count, Flag("Number of views of each image; augmented if more than one.", MEASURING, "N")] = 1
    verify: Annotated[
        Count,
        Flag("Number of other training images, on which the best candidates are evaluated again.", MEASURING, "N"),
    ] = 2048
    leaders: Annotated[Count, Flag("How many of the best candidates are evaluated again.", MEASURING, "N")] = 10
    repair: Annotated[Repair, Flag("How candidates are repaired.", REPAIR)] = "least-squares"
    repair_images: Annotated[Count, Flag("Number of training images used for the repair.", REPAIR, "N")] = 512
    weights: Annotated[
        FinalWeights,
        Flag(
            "Weights of the result: those it was evaluated with (inherited), the model's own "
            "(model), or random ones, to train from scratch (scratch).",
            OUTPUT,
        ),
    ] = "model"
    together: Annotated[bool, Flag("Run one search for all models of the same structure.", SEARCH)] = False
    rank_check: Annotated[
        Natural,
        Flag("Train N random candidates to check whether the fitness predicts which ones end up best.", MEASURING, "N"),
    ] = 0
    rank_epochs: Annotated[Count, Flag("Training epochs for each of these candidates.", MEASURING, "N")] = 2
