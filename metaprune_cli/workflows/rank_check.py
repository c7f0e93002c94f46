"""Whether what a search goes by tells which widths end best: random candidates are judged, trained, and compared.

Kendall's τ of fitness f and result r is the mean of sign(fᵢ − fⱼ) · sign(rᵢ − rⱼ) over all pairs of candidates: 1 where
both order them alike, 0 where the one says nothing of the other. Its interval is that of a bootstrap over candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from metaprune_cli.config import OptimSettings, Repair, SearchSettings
from metaprune_cli.methods.base import WidthWeights
from metaprune_cli.pruning.targets import Target
from metaprune_cli.tasks import measure
from metaprune_cli.training.loop import fit
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.training.seeds import derive
from metaprune_cli.workflows.judging import Judge
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.searching import Field

RESAMPLES = 1000
OWN: Mapping[str, Repair] = MappingProxyType({"shared": "none", "recalibrated": "bn", "repaired": "least-squares"})
"""What is done with the model's own, cropped weights before they are judged, by the fitness's name."""


@dataclass(frozen=True)
class RankCheck:
    """Random candidates of one budget, and what each fitness said of them.

    Attributes:
        goal: the budget's target.
        fitness: by name, a number for each candidate, the lower the better.
        trained: by how much each was off the best possible headline after training, on validation images; the lower
            the better.
        headlines: the same as the metric itself.
        taus: Kendall's τ of each fitness with that, and the ends of its 95 % interval.
    """

    goal: Target
    fitness: Mapping[str, tuple[float, ...]]
    trained: tuple[float, ...]
    headlines: tuple[float, ...]
    taus: Mapping[str, tuple[float, float, float]]


def rank_check(
    run: PruningRun,
    goal: Target,
    settings: SearchSettings,
    training: OptimSettings,
    *,
    seed: int,
    progress: Progress,
    augment: bool = False,
    weights: WidthWeights | None = None,
) -> RankCheck:
    """Judge ``settings.rank_check`` random candidates by every fitness there is, train each, and compare.

    Args:
        run: the model.
        goal: the budget.
        settings: how many candidates, and how many epochs each is trained.
        training: how, besides.
        seed: of the candidates and of the training, the same for each.
        progress: is told about each.
        augment: whether images are augmented in training.
        weights: of a network that gives weights for widths; a fitness more.

    Raises:
        TargetError: the target cannot be met.
        InputError: there are no images.
    """
    place = Field.of([run], goal, weights)
    budget = place.budget(settings.band)
    generator = torch.Generator().manual_seed(derive(seed, "rank-check"))
    genes = [
        place.spaces[0].within(generator, place.measure, budget.least, budget.most) for _ in range(settings.rank_check)
    ]
    asked, probes = place.asked.asked, place.probes
    judge = Judge.of(run, settings, weights=weights, route=asked, probes=probes, repairs=True)
    own = {name: judge.repairing_by(how) for name, how in OWN.items()}
    found: dict[str, list[float]] = {name: [] for name in ([*OWN] if weights is None else [*OWN, "generated"])}
    off: list[float] = []
    headlines: list[float] = []
    progress.begin("rank check", len(genes))
    for kept in (place.kept(one)[0] for one in genes):
        for name in OWN:
            found[name].append(own[name].quickly(kept).fitness)
        if weights is not None:
            found["generated"].append(judge.quickly(kept).fitness)
        headline = _trained(run, kept, replace(training, epochs=settings.rank_epochs), seed, augment=augment)
        headlines.append(headline)
        off.append(run.images.task.metrics[0].loss(0.0, headline))
        progress.step(**{run.images.task.metrics[0].key: headline})
    progress.end()
    taus = {name: tau_with_interval(values, off, seed) for name, values in found.items()}
    return RankCheck(goal, {n: tuple(v) for n, v in found.items()}, tuple(off), tuple(headlines), taus)


def _trained(run: PruningRun, kept: Tensor, settings: OptimSettings, seed: int, *, augment: bool) -> float:
    """The headline on the validation images after a short training of what is left."""
    images, small = run.images, run.left(kept)
    result = fit(
        small,
        images.splits.train,
        settings,
        task=images.task,
        batch_size=images.batch_size,
        augment=augment,
        seed=seed,
        device=images.device,
        progress=Silence(),
    )
    batches = images.splits.val.batches(images.batch_size, device=images.device)
    return measure(result.model.to(images.device), batches, images.device, images.task).headline


def tau_with_interval(fitness: Sequence[float], results: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Kendall's τ, and the ends of its 95 % interval by bootstrap."""
    one, other = (torch.tensor(values, dtype=torch.float64) for values in (fitness, results))
    agree = (one[:, None] - one).sign() * (other[:, None] - other).sign()
    agree = agree.nan_to_num()  # of two that cannot be judged nobody says which is better
    generator = torch.Generator().manual_seed(derive(seed, "bootstrap"))
    drawn = [
        _mean_over_pairs(agree[sample][:, sample])
        for sample in torch.randint(len(one), (RESAMPLES, len(one)), generator=generator)
    ]
    low, high = torch.tensor(drawn, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return _mean_over_pairs(agree), float(low), float(high)


def _mean_over_pairs(agree: Tensor) -> float:
    count = len(agree)
    return float(agree.sum() / max(count * (count - 1), 1))
