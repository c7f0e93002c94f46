"""Pruning in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.api.given import Data, Rules, documents, samples_of
from metaprune_cli.config import (
    AskedScope,
    Normalising,
    PruneSettings,
    Reduction,
    Repair,
    Route,
    TransformSettings,
)
from metaprune_cli.config_loader import parse
from metaprune_cli.data.batch import AnyBatch
from metaprune_cli.graph.encode import decode, encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.methods.base import Scores
from metaprune_cli.methods.metanet import MetaNetwork, opened, rewritten
from metaprune_cli.metrics.calling import device_of, takes_model
from metaprune_cli.pruning.criteria import by_unit
from metaprune_cli.pruning.repair import repaired
from metaprune_cli.pruning.targets import Target, read_target
from metaprune_cli.tasks.base import Task
from metaprune_cli.training.loop import recalibrate_
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.observing import USUAL, Observer
from metaprune_cli.workflows.planning import prune_to
from metaprune_cli.workflows.pruning import Pruned, PruningRun


@takes_model
def prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    speedup: float = 2.0,
    target: str | Target | None = None,
    data: Data | None = None,
    task: Task | str | None = None,
    metanetwork: MetaNetwork | str | Path | None = None,
    criterion: str = "auto",
    scope: AskedScope = "auto",
    max_ratio: float = 0.8,
    rules: Rules = (),
    keep_heads: bool = False,
    round_to: int = 1,
    route: Route = "auto",
    reduction: Reduction = "mean",
    normaliser: Normalising = "auto",
    rescore: int = 1,
    batches: Iterable[AnyBatch] | int = PruneSettings.batches,
    gradients: Mapping[str, Tensor] | None = None,
    importance: Float[Tensor, "units ..."] | None = None,
    repair: Repair = "none",
    repair_images: int = PruneSettings.repair_images,
    repair_inputs: ExampleInputs | None = None,
    search: int = 0,
    search_images: int = PruneSettings.search_images,
    seed: int = 0,
    graph: NeuronGraph | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Remove the least important units of ``model`` until it needs ``speedup`` times fewer MACs.

    With the settings of ``metaprune prune`` it computes what that computes, to the bit.

    Args:
        model: the network; not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        speedup: MACs before / MACs after, reached or exceeded by less than one unit.
        target: less of something else, instead: ``params=2x``, ``size=10MB``, ``latency=3ms``, ``drop=0.5`` (see
            ``read_target``).
        data: images, for whatever needs them: criteria such as ``taylor``, repairs, searches, and a target of ``drop``,
            which looks at the validation split.
        task: what the model is for, or its name; None: what the data's settings say, or classification.
        metanetwork: what the model passes through first: one, its file, or the name of one that comes with the package
            (``builtin``). BatchNorm is then measured anew as by ``metaprune transform``: on ``data``, augmented as its
            settings say; where there is none, on the inputs for repairs.
        criterion: how units are scored (see ``score_units``); ``auto``: ``metanet`` where the metanetwork has a score
            head or an importance is given, else ``group-l2``.
        scope: rank the units of all families together, take the same fraction of each, or (``sensitivity``) of each
            what it can lose, measured on ``repair_inputs`` or ``data``; ``auto``: together, or as the task has it that
            says by what units are ranked.
        max_ratio: the largest fraction of a family that may go.
        rules: what may happen to single layers (see ``limits_of``).
        keep_heads: whether attention keeps all of its heads.
        round_to: where units of a family go, what stays is a multiple of this.
        route: ``class``: only what the model's class can follow goes; ``program``: the smaller model is a program of
            its operators, for inputs of the sizes it was recorded for; ``auto``: the class where that costs
            little, or where it has ``generate`` or ``save_pretrained``.
        reduction: of a unit's slices to one magnitude.
        normaliser: of a family's scores; ``auto``: for ``metanet`` that of the metanetwork, else ``max``, ``mean``
            where units are scored anew, and ``rank`` where a search starts.
        rescore: in how many steps units are chosen, each scored on what the one before has left.
        batches: for criteria that need data: how many of ``data``'s, or inputs and targets themselves.
        gradients: of the loss, by state-dict entry, for the criterion ``taylor``.
        importance: what a metanetwork says of every unit, for the criterion ``metanet`` (see ``by_unit``).
        repair: what is done about the loss without training (see ``repair``).
        repair_images: how many of ``data`` for that.
        repair_inputs: a few hundred inputs at once, in place of those.
        search: trials of other shares for the families, judged by what is left.
        search_images: how many of ``data`` judge.
        seed: of the criterion ``random``, of repairs and of the search.
        graph: the model's graph if it is known already; its structure is used, the weights are the model's.
        progress: is told about a search.

    Raises:
        TargetError: the speed-up is out of reach, or nothing can be removed.
        InputError: a setting cannot be used, the model cannot be traced or resized, a rule matches nothing, or
            gradients, data or inputs are missing.
        NumericsError: a score is not finite, or the smaller model does not compute what the masked original does.
    """
    goal = goal_of(speedup, target)
    run = run_of(
        model,
        example_inputs,
        data=data,
        task=task,
        metanetwork=metanetwork,
        criterion=criterion,
        scope=scope,
        max_ratio=max_ratio,
        rules=rules,
        keep_heads=keep_heads,
        round_to=round_to,
        route=route,
        reduction=reduction,
        normaliser=normaliser,
        rescore=rescore,
        batches=batches,
        gradients=gradients,
        importance=importance,
        repair=repair,
        repair_images=repair_images,
        repair_inputs=repair_inputs,
        search=search,
        search_images=search_images,
        seed=seed,
        graph=graph,
    )
    return prune_to(run, goal, progress)


def goal_of(speedup: float, target: str | Target | None) -> Target:
    """The target that is meant.

    Raises:
        InputError: it cannot be read, or the speed-up is no number above 1.
    """
    if target is not None:
        return read_target(target) if isinstance(target, str) else target
    (factor,) = parse(PruneSettings, {"speedup": speedup}, section="prune", where="speedup").speedup
    return Target("macs", factor=factor)


def run_of(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    data: Data | None,
    task: Task | str | None = None,
    metanetwork: MetaNetwork | str | Path | None = None,
    rules: Rules = (),
    batches: Iterable[AnyBatch] | int = PruneSettings.batches,
    gradients: Mapping[str, Tensor] | None = None,
    importance: Float[Tensor, "units ..."] | None = None,
    repair_inputs: ExampleInputs | None = None,
    graph: NeuronGraph | None = None,
    **settings: Any,
) -> PruningRun:
    """What :func:`prune` prunes, to any number of targets; arguments and errors are its own."""
    whole = {"rules": documents(rules), **settings}
    asked = _settings(**whole, **({"batches": batches} if isinstance(batches, int) else {}))
    given = None if isinstance(batches, int) else tuple(batches)
    samples, device = samples_of(data, task), device_of(model.state_dict())
    images = Calibration(samples, asked, device, given or None, repair_inputs)
    graph = graph or encode(model, example_inputs)
    said = None if importance is None else Importance.proposed(Scores(importance))
    if metanetwork is not None:
        network = opened(metanetwork)
        model, by_network = _through(network, model, graph, images)
        said = by_network if importance is None else Importance.proposed(Scores(importance, network.config.normaliser))
    return PruningRun(model, example_inputs, graph, asked, images, importance=said, gradients=gradients)


def _settings(**given: Any) -> PruneSettings:
    """As for the command, with all that is wrong said at once."""
    return parse(PruneSettings, given, section="prune", where="mp.prune")


def _through(
    network: MetaNetwork, model: nn.Module, graph: NeuronGraph, images: Calibration
) -> tuple[nn.Module, Importance | None]:
    """The model after the metanetwork, and what its score head says of every unit."""
    graph = graph.with_tensors(model.state_dict())
    if network.config.evidence and images.there:
        graph = Observer(images.samples, USUAL, images.device).shown(model, graph)
    written = rewritten(graph, network)
    model = decode(graph.with_tensors(written.tensors), model)
    if images.there:  # as ``metaprune transform``: augmented, as in training
        settings = images.samples.settings
        augment, batches = settings is not None and settings.augment != "none", TransformSettings.batches
        recalibrate_(model, images.splits.train, batches, batch_size=images.batch_size, augment=augment)
    elif images.inputs is not None:
        everything = torch.ones(len(graph.units.prunable), dtype=torch.bool)
        model, _ = repaired(model, model, graph, everything, images.inputs, "bn")
    if written.importance is None:
        return model, None
    scores = Scores(by_unit(graph.units, written.importance), network.config.normaliser)
    return model, Importance.proposed(scores)
