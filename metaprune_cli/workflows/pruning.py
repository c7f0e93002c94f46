"""Score, plan, remove, check: pruning in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.config import Normaliser, Normalising, PruningRule, Reduction, Repair, Scope
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.data.batch import AnyBatch
from metaprune_cli.errors import InputError
from metaprune_cli.graph.encode import decode, encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.methods.metanet import MetaNetwork, opened, rewritten
from metaprune_cli.pruning.check import check
from metaprune_cli.pruning.criteria import USUAL, by_unit, importance_at
from metaprune_cli.pruning.measures import measure_for
from metaprune_cli.pruning.plan import Plan, make_plan
from metaprune_cli.pruning.repair import repaired
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.scoring import score_units
from metaprune_cli.pruning.surgery import apply_plan, route_of
from metaprune_cli.pruning.targets import Target, read_target
from metaprune_cli.tasks.base import Task


@dataclass(frozen=True, eq=False)
class Pruned:
    """A smaller model, the plan that made it, and the report: how it was chosen, what was gained, the check's error."""

    model: nn.Module
    plan: Plan
    report: dict[str, Any]


def prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    speedup: float = 2.0,
    target: str | Target | None = None,
    metanetwork: MetaNetwork | str | Path | None = None,
    criterion: str = "auto",
    scope: Scope = "global",
    max_ratio: float = 0.8,
    rules: Sequence[PruningRule] = (),
    round_to: int = 1,
    reduction: Reduction = "mean",
    normaliser: Normalising = "auto",
    task: Task | None = None,
    batches: Iterable[AnyBatch] = (),
    gradients: Mapping[str, Tensor] | None = None,
    importance: Float[Tensor, "units ..."] | None = None,
    repair: Repair = "none",
    repair_inputs: ExampleInputs | None = None,
    seed: int = 0,
    graph: NeuronGraph | None = None,
) -> Pruned:
    """Remove the least important units of ``model`` until it needs ``speedup`` times fewer MACs.

    Args:
        model: the network; not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        speedup: MACs before / MACs after, reached or exceeded by less than one unit.
        target: less of something else, instead: ``params=2x``, ``size=10MB``, ``latency=3ms`` (see ``read_target``).
        metanetwork: what the model passes through first: one, its file, or the name of one that comes with the package
            (``builtin``). Where there are ``repair_inputs``, BatchNorm is then measured anew on them.
        criterion: how units are scored (see ``score_units``); ``auto``: ``metanet`` where the metanetwork has a score
            head or an importance is given, else ``group-l2``.
        scope: rank the units of all families together, or take the same fraction of each.
        max_ratio: the largest fraction of a family that may go.
        rules: what may happen to single layers (see ``limits_of``).
        round_to: where units of a family go, what stays is a multiple of this.
        reduction: of a unit's slices to one magnitude.
        normaliser: of a family's scores; ``auto``: for ``metanet`` that of the metanetwork, else ``max``.
        task: what the model is for, which says what the loss is; None: classification.
        batches: inputs and targets, for criteria that need data.
        gradients: of the loss, by state-dict entry, for the criterion ``taylor``.
        importance: what a metanetwork says of every unit, for the criterion ``metanet`` (see ``by_unit``).
        repair: what is done about the loss without training (see ``repair``).
        repair_inputs: a few hundred inputs at once for that.
        seed: of the criterion ``random``.
        graph: the model's graph if it is known already; its structure is used, the weights are the model's.

    Raises:
        TargetError: the speed-up is out of reach, or nothing can be removed.
        InputError: an unknown criterion or scope, the model cannot be traced or resized, a rule matches nothing, or
            gradients, data or inputs are missing.
        NumericsError: a score is not finite, or the smaller model does not compute what the masked original does.
    """
    check_choices(
        scope=(scope, Scope),
        repair=(repair, Repair),
        reduction=(reduction, Reduction),
        normaliser=(normaliser, Normalising),
    )
    graph = graph or encode(model, example_inputs)
    goal = read_target(target) if isinstance(target, str) else target or Target("macs", factor=speedup)
    learnt: Normaliser = "max"
    if metanetwork is not None:
        network = opened(metanetwork)
        model, said = _through(network, model, graph, repair_inputs)
        learnt, importance = network.config.normaliser, said if importance is None else importance
    if importance is not None:
        importance = importance_at(importance, goal.factor or USUAL)
    if criterion == "auto":
        criterion = "group-l2" if importance is None else "metanet"
    if normaliser == "auto":
        normaliser = learnt if criterion == "metanet" else "max"
    scores = score_units(
        model,
        graph,
        criterion,
        task=task,
        batches=batches,
        gradients=gradients,
        importance=importance,
        reduction=reduction,
        normaliser=normaliser,
        seed=seed,
    )
    limits = limits_of(graph, rules, max_ratio, round_to=round_to, model=model)
    plan = make_plan(
        graph, scores, goal, scope=scope, limits=limits, measure=measure_for(goal, model, graph, example_inputs)
    )
    small = apply_plan(model, graph, plan, example_inputs)
    checked = check(model, small, graph, plan, example_inputs)
    small, layers = repaired(small, model, graph, plan.kept, repair_inputs, repair)
    report = {
        "criterion": criterion,
        "scope": scope,
        "max_ratio": max_ratio,
        "seed": seed,
        **plan.to_document(),
        "route": route_of(small),
        "check": dataclasses.asdict(checked),
        "repair": {"how": repair, "layers": [dataclasses.asdict(layer) for layer in layers]},
    }
    return Pruned(small, plan, report)


def _through(
    network: MetaNetwork, model: nn.Module, graph: NeuronGraph, inputs: ExampleInputs | None
) -> tuple[nn.Module, Float[Tensor, "units ..."] | None]:
    """The model after the metanetwork, and what its score head says of every unit."""
    written = rewritten(graph.with_tensors(model.state_dict()), network)
    model = decode(graph.with_tensors(written.tensors), model)
    if inputs is not None:
        model, _ = repaired(model, model, graph, torch.ones(len(graph.units.prunable), dtype=torch.bool), inputs, "bn")
    return model, None if written.importance is None else by_unit(graph.units, written.importance)


def check_choices(**given: tuple[str, Any]) -> None:
    """Refuse values that are not among their literals: from Python, nothing has checked them yet."""
    wrong = {name: (value, get_args(choices)) for name, (value, choices) in given.items()}
    wrong = {name: (value, known) for name, (value, known) in wrong.items() if value not in known}
    if wrong:
        raise InputError(
            f"Unknown {' and '.join(wrong)}.",
            expected="\n".join(f"{name}: {', '.join(known)}" for name, (_, known) in wrong.items()),
            got="\n".join(f"{value!r}{did_you_mean(value, known)}" for value, known in wrong.values()),
        )
