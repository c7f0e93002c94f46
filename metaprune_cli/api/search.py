"""``mp.search``: a module → a smaller module whose widths were searched for."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.api.given import Data, Rules, documents, samples_of
from metaprune_cli.api.prune import goal_of
from metaprune_cli.config import PruneSettings, Route, SearchSettings
from metaprune_cli.config_loader import parse, revised
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.methods.base import Scores, WidthWeights
from metaprune_cli.metrics.calling import device_of, takes_model
from metaprune_cli.pruning.targets import Target
from metaprune_cli.pruning.width_search import History
from metaprune_cli.tasks import Task
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.pruning import Pruned, PruningRun
from metaprune_cli.workflows.searching import Leader
from metaprune_cli.workflows.searching import search as search_widths


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Attributes:
        pruned: the smaller model, as ``mp.prune`` returns it.
        history: everything that was tried.
        leaders: what was judged again, on images that had no say; ``plain``, ``uniform`` and ``rescored`` first.
        chosen: the one of them that was taken.
        gain: by how much the best that was found has a lower fitness than the better of the two, and the standard error
            of that; where it is less than two of those, the better of the two is what was taken.
    """

    pruned: Pruned
    history: History
    leaders: tuple[Leader, ...]
    chosen: Leader
    gain: tuple[float, float]

    @property
    def model(self) -> nn.Module:
        """The smaller model."""
        return self.pruned.model


@takes_model
def search(
    model: nn.Module,
    example_inputs: ExampleInputs,
    speedup: float = 2.0,
    *,
    data: Data,
    target: str | Target | None = None,
    settings: SearchSettings | None = None,
    task: Task | str | None = None,
    criterion: str = "auto",
    importance: Float[Tensor, "units ..."] | None = None,
    weights: WidthWeights | None = None,
    max_ratio: float = 0.8,
    rules: Rules = (),
    keep_heads: bool = False,
    round_to: int = 1,
    route: Route = "auto",
    seed: int = 0,
    jobs: int = 1,
    graph: NeuronGraph | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search how many units each family of ``model`` keeps, so that what is left does best within a budget.

    A candidate is a vector g of numbers of units, one for each family; the first g_f of family f stay, in descending
    order of the criterion. Evolution (MetaPruning, arXiv 1903.10258, algorithm 1) minimises the fitness

        F(g) = mean over images of loss(repair(crop(model, g))),  band · budget ≤ cost(g) ≤ budget

    without any training. What needs no search (``plain``: all units ranked together; ``uniform``: the same share of
    every family; ``rescored``: together, in 20 steps, scored anew after each, where scores need no images) is among the
    candidates, and is returned unless the best is better on other images by more than two standard errors of the
    paired difference.

    With the settings of ``metaprune search`` it computes what that computes, to the bit.

    Args:
        model: the network; not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        speedup: MACs before / MACs after.
        data: images; the training split repairs and judges.
        target: less of something else, instead (see ``mp.prune``); not ``drop``.
        settings: how the search goes; its ``front``, ``together``, ``weights`` and rank check are the command's alone.
        task: what the model is for, or its name.
        criterion: which units of a family stay (see ``mp.prune``).
        importance: what a metanetwork says of every unit, shape (units,) or (units, 2), for the criterion ``metanet``.
        weights: where candidates' weights come from, such as a PruningNet; None: the model's own units.
        max_ratio: the largest fraction of a family that may go.
        rules: what may happen to single layers.
        keep_heads: whether attention keeps all of its heads.
        round_to: where units of a family go, what stays is a multiple of this.
        route: ``class``, ``program`` or ``auto`` (see ``mp.prune``).
        seed: of everything random.
        jobs: how many processes judge candidates, 0: one for every core; the result is the same.
        graph: the model's graph if it is known already.
        progress: is told about each candidate.

    Raises:
        TargetError: the target is out of reach, or no family may lose any units.
        InputError: a setting cannot be used, the model cannot be traced, a rule matches nothing, or there are too few
            images.
        NumericsError: nothing that is left gives finite outputs.
    """
    one_target = {"front": False, "together": False}
    settings = revised(SearchSettings, settings, one_target, section="search", where="mp.search")
    goal = goal_of(speedup, target)
    given = {
        "criterion": criterion,
        "max_ratio": max_ratio,
        "rules": documents(rules),
        "keep_heads": keep_heads,
        "round_to": round_to,
        "route": route,
        "repair": settings.repair,
        "repair_images": settings.repair_images,
        "seed": seed,
    }
    pruning = parse(PruneSettings, given, section="prune", where="mp.search")
    graph = graph or encode(model, example_inputs)
    if weights is not None and not isinstance(weights, WidthWeights):
        raise InputError(
            "This object does not provide weights for widths.",
            expected="an object with tensors_for(kept), space and repair",
            got=type(weights).__name__,
            where="weights",
        )
    images = Calibration(samples_of(data, task), pruning, device_of(model.state_dict()))
    said = None if importance is None else Importance.proposed(Scores(importance))
    run = PruningRun(model, example_inputs, graph, pruning, images, importance=said)
    (found,) = search_widths(
        [run], [goal], settings, seed=seed, progress=progress or Silence(), weights=weights, jobs=jobs
    )
    return SearchResult(found.planned[0].carried_out(), found.history, found.leaders, found.chosen, found.gain)
