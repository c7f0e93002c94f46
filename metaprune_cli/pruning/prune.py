"""Score, plan, remove, check: pruning in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.config import Criterion, Scope
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.errors import InputError
from metaprune_cli.graph.encode import encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.trace import ExampleInputs
from metaprune_cli.pruning.check import check
from metaprune_cli.pruning.criteria import unit_scores
from metaprune_cli.pruning.plan import Plan, make_plan
from metaprune_cli.pruning.surgery import apply_plan, route_of


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
    criterion: Criterion = "group-l2",
    scope: Scope = "global",
    max_ratio: float = 0.8,
    gradients: Mapping[str, Tensor] | None = None,
    importance: Float[Tensor, " units"] | None = None,
    seed: int = 0,
    graph: NeuronGraph | None = None,
) -> Pruned:
    """Remove the least important units of ``model`` until it needs ``speedup`` times fewer MACs.

    Args:
        model: the network; not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        speedup: MACs before / MACs after, reached or exceeded by less than one unit.
        criterion: how units are scored (see ``unit_scores``).
        scope: rank the units of all families together, or take the same fraction of each.
        max_ratio: the largest fraction of a family that may go.
        gradients: of the loss, by state-dict entry, for the criterion ``taylor``.
        importance: what a metanetwork says of every unit, for the criterion ``metanet``.
        seed: of the criterion ``random``.
        graph: the model's graph if it is known already; its structure is used, the weights are the model's.

    Raises:
        TargetError: the speed-up is out of reach, or nothing can be removed.
        InputError: an unknown criterion or scope, the model cannot be traced or resized, or gradients are missing.
        NumericsError: a score is not finite, or the smaller model does not compute what the masked original does.
    """
    check_choices(criterion=(criterion, Criterion), scope=(scope, Scope))
    graph = graph or encode(model, example_inputs)
    scores = unit_scores(
        graph,
        model.state_dict(),
        criterion,
        gradients=gradients,
        importance=importance,
        generator=torch.Generator().manual_seed(seed),
    )
    plan = make_plan(graph, scores, speedup, scope=scope, max_ratio=max_ratio)
    small = apply_plan(model, graph, plan, example_inputs)
    report = {
        "criterion": criterion,
        "scope": scope,
        "max_ratio": max_ratio,
        "seed": seed,
        **plan.to_document(),
        "route": route_of(small),
        "check": dataclasses.asdict(check(model, small, graph, plan, example_inputs)),
    }
    return Pruned(small, plan, report)


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
