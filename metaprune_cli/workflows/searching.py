"""A search for widths: from models and targets to plans, with all that was tried on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from metaprune_cli.config import Scope, SearchSettings
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.methods.base import WidthWeights
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.measures import measure_for, remembered
from metaprune_cli.pruning.plan import plan_of
from metaprune_cli.pruning.targets import Measure, Target
from metaprune_cli.pruning.width_search import Budget, Candidate, Evolution, History, How, evolve
from metaprune_cli.pruning.width_space import Genes, WidthSpace
from metaprune_cli.training.distributed import ALONE, Ranks
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.allowed import Allowed
from metaprune_cli.workflows.judging import Images, Judge, Judged
from metaprune_cli.workflows.memory import Memory
from metaprune_cli.workflows.planned import Planned
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.ranking import ranked
from metaprune_cli.workflows.sensitivities import is_worth_measuring
from metaprune_cli.workflows.workers import Kept, Panel

BASELINES: Mapping[How, tuple[Scope, int | None]] = {
    "plain": ("global", None),
    "uniform": ("family", None),
    "rescored": ("global", 20),
    "sensitivity": ("sensitivity", 1),
}
"""What needs no search: as it is called, the scope of the ranking that gives it, and in how many steps (None: as the
settings say). What each layer can lose, measured, is worth more than many trials, and scores taken anew on the way are
worth some (docs/results/published)."""
PROBES = 3
"""Random widths that the model has to be able to do with before any are judged, beside the smallest."""
SURE = 2.0
"""Standard errors by which what was found has to be better, on images that had no say, than what needs no search."""


def baselines_of(run: PruningRun) -> Mapping[How, tuple[Scope, int | None]]:
    """Those for a model: sensitivities where measuring takes minutes, no steps whose scores need images.

    Those cost passes at each step, and were worth none of them (docs/results/restoration).
    """
    out = {"rescored": run.reads_images, "sensitivity": not is_worth_measuring(run)}
    return {how: by for how, by in BASELINES.items() if not out.get(how)}


@dataclass(frozen=True, eq=False)
class Leader:
    """A candidate that was judged again.

    Attributes:
        how: where it comes from.
        kept: the units that stay, of each model.
        candidate: as it was judged first; None of what needs no search and is on no grid.
        verified: on the images that had no say, after the whole repair.
    """

    how: How
    kept: Kept
    candidate: Candidate | None
    verified: Judged


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search found for one target.

    Attributes:
        goal: the target.
        history: everything that was tried.
        leaders: those that were judged again, the baselines first.
        chosen: the one that is taken.
        gain: how much lower the chosen one's fitness is than the better baseline's, and the standard error of that.
        planned: the plan for each model.
        place: what was searched.
        asked_macs: multiply-adds of asking candidates and leaders on images, for each model and target.
    """

    goal: Target
    history: History
    leaders: tuple[Leader, ...]
    chosen: Leader
    gain: tuple[float, float]
    planned: tuple[Planned, ...]
    place: Field
    asked_macs: int = 0

    @property
    def found(self) -> bool:
        """Whether it is better than what needs no search."""
        return self.chosen.how not in BASELINES

    def planned_for(self, run: PruningRun) -> Planned:
        """The plan that gives another model of the same structure the widths that were found, with units of its own.

        Where nothing better was found than what needs no search, that is planned for the model itself.
        """
        place, how = self.place, self.chosen.how
        if how in BASELINES:
            return ranked(run, self.goal, place.measure, *BASELINES[how])
        space = place.spaces[0]
        kept = space.ordered_by(run.scores(self.goal.factor or USUAL)).kept(space.genes_of(self.chosen.kept[0]))
        return place.keeping(run, kept)

    def widths(self, kept: Tensor) -> dict[str, int]:
        """How many units stay of each family that may lose any, by name."""
        families = self.place.allowed.graph.units.families
        free = (number for members in self.place.spaces[0].families for number in members)
        return {families[number].name: int(kept[families[number].units].sum()) for number in sorted(free)}


@dataclass(frozen=True, eq=False)
class Field:
    """What is searched: models of one structure, what may go of them, and what needs no search.

    Attributes:
        runs: the models.
        goal: the target.
        measure: how much of its quantity there is.
        baselines: plans that need no search, for each model.
        allowed: what may go.
        weights: where candidates' weights come from; None: the models' own units.
    """

    runs: tuple[PruningRun, ...]
    goal: Target
    measure: Measure
    baselines: Mapping[How, tuple[Planned, ...]]
    allowed: Allowed
    weights: WidthWeights | None = None

    @classmethod
    def of(cls, runs: Sequence[PruningRun], goal: Target, weights: WidthWeights | None = None) -> Field:
        """With baselines that passed their trials, and limits under which the smallest and random widths do too.

        Raises:
            TargetError: the target cannot be met, or nothing would be removed.
            InputError: it is none that can be searched for.
        """
        first = runs[0]
        check_searchable([goal])
        device = first.images.demanded_by("A search").device
        measure = remembered(measure_for(goal, first.model, first.graph, first.example, device))
        baselines = {
            how: tuple(ranked(run, goal, measure, *by) for run in runs) for how, by in baselines_of(first).items()
        }
        plain = baselines["plain"][0]
        knows = weights is not None and weights.space is not None
        allowed = plain.allowed if knows else _settled(plain, goal, measure)
        return cls(tuple(runs), goal, measure, baselines, allowed, weights)

    @cached_property
    def spaces(self) -> tuple[WidthSpace, ...]:
        """The widths of each model: the same numbers, of units in its own order."""
        if self.weights is not None and self.weights.space is not None:
            return (self.weights.space,) * len(self.runs)
        return tuple(
            WidthSpace.of(self.allowed.graph, self.allowed.limits, run.scores(self.goal.factor or USUAL))
            for run in self.runs
        )

    @property
    def asked(self) -> Planned:
        """The plan whose route is taken."""
        return self.baselines["plain"][0]

    @cached_property
    def macs(self) -> Callable[[Tensor], float]:
        """Multiply-adds of what is left of one model."""
        return Cost.of(self.allowed.graph).macs

    @cached_property
    def probes(self) -> tuple[Tensor, ...]:
        """Choices that were found to be possible."""
        return tuple(_probes(self.spaces[0], self.measure, self.budget(0.0)))

    def budget(self, band: float) -> Budget:
        """From ``band`` of the target, or less where what needs no search uses less, to the target."""
        most = self.goal.limit_for(self.measure(torch.ones_like(self.asked.plan.kept)))
        lowest = min(self.measure(planned.plan.kept) for some in self.baselines.values() for planned in some)
        return Budget(min(band * most, lowest), most)

    def kept(self, genes: Genes) -> Kept:
        """The units that stay of each model."""
        return tuple(space.kept(genes) for space in self.spaces)

    def starts(self) -> list[tuple[How, Genes]]:
        """The widths of what needs no search; a ``start`` where the space gives them to other units."""
        found: list[tuple[How, Genes]] = []
        for how, some in self.baselines.items():
            for planned, space in zip(some, self.spaces, strict=True):
                genes = space.genes_of(planned.plan.kept)
                found.append((how if torch.equal(space.kept(genes), planned.plan.kept) else "start", genes))
        return found

    def planned(self, leader: Leader) -> tuple[Planned, ...]:
        """Plans that keep what was chosen."""
        if leader.how in self.baselines:
            return self.baselines[leader.how]
        return tuple(self.keeping(run, kept) for run, kept in zip(self.runs, leader.kept, strict=True))

    def keeping(self, run: PruningRun, kept: Tensor) -> Planned:
        """The plan that keeps these units of a model."""
        before = self.measure(torch.ones_like(kept))
        plan = plan_of(self.allowed.graph, kept, self.goal, before, self.measure(kept))
        return replace(self.asked, run=run, plan=replace(plan, held=self.allowed.held), allowed=self.allowed)


@dataclass(frozen=True, eq=False)
class Search:
    """A search at work.

    Attributes:
        settings: how it goes.
        panel: judges candidates.
        seed: of all draws.
        progress: is told about each candidate.
        memory: of the verdicts on candidates.
        trials: so many candidates at most.
    """

    settings: SearchSettings
    panel: Panel
    seed: int
    progress: Progress
    memory: Memory
    trials: int | None = None

    def run(self, fields: Sequence[Field]) -> tuple[Searched, ...]:
        """One target, or several that share a search.

        Raises:
            TargetError: no widths are small enough.
        """
        first, settings = fields[0], self.settings
        budgets = [place.budget(settings.band) for place in fields]
        total = settings.population * settings.iterations
        self.progress.begin("search", min(total, self.trials or total))
        history = evolve(
            first.spaces[0],
            first.measure,
            lambda some: self._fitness(first, some),
            Evolution(
                settings.population,
                settings.iterations,
                settings.parents,
                settings.mutations,
                settings.crossovers,
                settings.mutate,
                self.trials,
            ),
            budgets=budgets,
            starts=[start for place in fields for start in place.starts()],
            seed=self.seed,
        )
        self.progress.end()
        spent = sum(self._spent(first, "judging", first.kept(one.genes)) for one in history.candidates)
        share = spent // len(fields)
        return tuple(self._chosen(place, budget, history, share) for place, budget in zip(fields, budgets, strict=True))

    def _spent(self, place: Field, images: Images, kept: Kept) -> int:
        """Multiply-adds of asking a candidate of one model."""
        return int(place.macs(kept[0])) * self.panel.judges[0].number_of(images)

    def _fitness(self, place: Field, some: Sequence[Genes]) -> list[float]:
        known, kept = self.memory.known, [place.kept(genes) for genes in some]
        keys = [b"".join(own.numpy().tobytes() for own in choice) for choice in kept]
        new = {key: choice for key, choice in zip(keys, kept, strict=True) if key not in known}
        for _ in range(len(keys) - len(new)):
            self.progress.step()
        verdicts = self.panel.judged("judging", list(new.values()), lambda one: self.progress.step(fitness=one.fitness))
        known.update(zip(new, verdicts, strict=True))
        self.memory.keep()
        return [known[key].fitness for key in keys]

    def _chosen(self, place: Field, budget: Budget, history: History, spent: int) -> Searched:
        """The leaders judged again, on images that had no say and in full."""
        candidates = [one for one in history.within(budget) if math.isfinite(one.fitness)]
        best = [one for one in candidates if one.how not in BASELINES][: self.settings.leaders]
        tried = {candidate.how: candidate for candidate in reversed(candidates)}
        todo: list[tuple[How, Kept, Candidate | None]] = [
            (how, tuple(planned.plan.kept for planned in some), tried.get(how)) for how, some in place.baselines.items()
        ]
        todo += [(one.how, place.kept(one.genes), one) for one in best]
        verdicts = self.panel.judged("verifying", [kept for _, kept, _ in todo])
        leaders = tuple(Leader(*one, verdict) for one, verdict in zip(todo, verdicts, strict=True))
        chosen, gain = choose(leaders)
        spent += sum(self._spent(place, "verifying", leader.kept) for leader in leaders)
        return Searched(place.goal, history, leaders, chosen, gain, place.planned(chosen), place, spent)


def choose(leaders: Sequence[Leader]) -> tuple[Leader, tuple[float, float]]:
    """The best on images that had no say; a baseline, unless what was found is better by more than chance.

    Returns:
        It, and how much lower the best one's fitness is than that of the better baseline, with the standard error.

    Raises:
        NumericsError: nothing can be judged.
    """
    baseline = min((one for one in leaders if one.how in BASELINES), key=lambda one: one.verified.fitness)
    best = min(leaders, key=lambda one: one.verified.fitness)
    if not math.isfinite(best.verified.fitness):
        raise NumericsError(
            "No widths can be judged: the outputs of whatever is left are not finite.",
            next_step="look for NaN or infinity in the model's weights, or try another --repair",
        )
    if not math.isfinite(baseline.verified.fitness):
        return best, (math.inf, 0.0)
    if best.how in BASELINES:
        return baseline, (0.0, 0.0)
    gain, error = best.verified.over(baseline.verified)
    return (best, (gain, error)) if gain > SURE * error else (baseline, (gain, error))


def search(
    runs: Sequence[PruningRun],
    goals: Sequence[Target],
    settings: SearchSettings,
    *,
    seed: int,
    progress: Progress,
    weights: WidthWeights | None = None,
    trials: int | None = None,
    jobs: int = 1,
    ranks: Ranks = ALONE,
    memory: Memory | None = None,
) -> tuple[Searched, ...]:
    """Search the widths of models of one structure, for each target or (``front``) for all of them at once.

    Args:
        runs: the models; their settings say how units are ranked and what is left is repaired.
        goals: the targets.
        settings: how the search goes.
        seed: of all draws.
        progress: is told about each candidate.
        weights: where candidates' weights come from, of one model; None: the models' own units.
        trials: so many candidates for each search, at most.
        jobs: processes that judge candidates (see :class:`Panel`).
        ranks: share candidates out among themselves.
        memory: of the verdicts, for a run that may be interrupted.

    Raises:
        TargetError: a target cannot be met, or nothing would be removed.
        InputError: there are no images, or a target cannot be searched for.
    """
    fields = [Field.of(runs, goal, weights) for goal in goals]
    asked, probes = fields[0].asked.asked, fields[0].probes
    judges = [Judge.of(run, settings, weights=weights, route=asked, probes=probes) for run in runs]
    memory = memory or Memory()
    found: list[Searched] = []
    with Panel.at_work(judges, jobs, ranks) as panel:
        work = Search(settings, panel, seed, progress, memory, trials)
        for some in [fields] if settings.front else [[place] for place in fields]:
            found += work.run(some)
    return tuple(found)


def check_searchable(goals: Sequence[Target]) -> None:
    """Refuse what a search cannot be made for.

    Raises:
        InputError: a target that does not say how much is to be left.
    """
    if any(goal.quantity == "drop" for goal in goals):
        raise InputError(
            "Widths cannot be searched for with a target of drop.",
            expected="a target that says how much is left: a speed-up, params, size, memory, latency",
            got="drop",
            next_step="leave one of the two out",
        )


def _settled(plain: Planned, goal: Target, measure: Measure) -> Allowed:
    """What may go, narrowed until the smallest and some random widths pass their trials."""
    run, failure = plain.run, plain.run.failure_by(plain.asked)
    most = goal.limit_for(measure(torch.ones_like(plain.plan.kept)))
    while True:
        space = WidthSpace.of(plain.allowed.graph, plain.allowed.limits, run.scores(goal.factor or USUAL))
        wrong = next((kept for kept in _probes(space, measure, Budget(0.0, most)) if failure(kept) is not None), None)
        if wrong is None:
            return plain.allowed
        plain = plain.narrowed(wrong)


def _probes(space: WidthSpace, measure: Measure, budget: Budget) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    some = [space.within(generator, measure, budget.least, budget.most) for _ in range(PROBES)]
    return [space.kept(genes) for genes in (space.smallest(), *some)]
