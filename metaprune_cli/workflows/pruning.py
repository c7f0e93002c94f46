"""Score, limit, remove, check, repair: what the command and the call do to one model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.config import WITH_DATA, Criterion, Normaliser, PruneSettings, PruningRule, Route, Scope
from metaprune_cli.data.batch import AnyBatch
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.trials import Trials
from metaprune_cli.metrics.calling import device_of
from metaprune_cli.pruning.check import Check, check
from metaprune_cli.pruning.criteria import USUAL
from metaprune_cli.pruning.masking import masked_copy
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.ranking import Limits
from metaprune_cli.pruning.repair import Original, RepairedLayer, repaired
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.scoring import score_units
from metaprune_cli.pruning.surgery import Taken, UnfitError, apply_plan, route_of, without
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.device import SMALL_PASS, threads_for
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.loading import Opened


@dataclass(frozen=True, eq=False)
class Pruned:
    """A smaller model, and how it came to be.

    Attributes:
        model: the smaller model.
        plan: which units stay, and what that gains.
        checked: how far the smaller model is from the masked original, before any repair.
        layers: what the repair did.
        settings: how units were chosen and what is left was repaired; ``auto`` is resolved.
    """

    model: nn.Module
    plan: Plan
    checked: Check
    layers: tuple[RepairedLayer, ...]
    settings: PruneSettings

    @property
    def route(self) -> Taken:
        """What the model is: its own class, or a program."""
        return route_of(self.model)

    @cached_property
    def report(self) -> dict[str, Any]:
        """All of it but the model as plain values, for JSON."""
        settings = self.settings
        return {
            "criterion": settings.criterion,
            "normaliser": settings.normaliser,
            "scope": settings.scope,
            "max_ratio": settings.max_ratio,
            "seed": settings.seed,
            **({"search": settings.search} if settings.search else {}),
            **({"rescore": settings.rescore} if settings.rescore > 1 else {}),
            **self.plan.to_document(),
            "route": self.route,
            "check": asdict(self.checked),
            "repair": {"how": settings.repair, "layers": [asdict(layer) for layer in self.layers]},
        }

    def __repr__(self) -> str:
        found = self.checked
        error = f"not comparable ({found.reason})" if found.error is None else f"relative error {found.error:.1e}"
        how = f"{self.settings.criterion}, {self.settings.scope}, {type(self.model).__name__} by {self.route}"
        repair = "" if self.settings.repair == "none" else f", repaired by {self.settings.repair}"
        return f"Pruned: {how}{repair}\n{self.plan.table()}\ncheck: {error}"


@dataclass(frozen=True, eq=False)
class PruningRun:
    """One model to be pruned, to any number of plans; what is the same for all of them is computed once.

    Attributes:
        model: the model; not changed.
        example: one input, batch size 1.
        graph: the model's graph.
        settings: how units are ranked and what is left is repaired; targets and searches are ``planning``'s.
        images: what criteria, repairs and searches look at, and the device where they do.
        importance: what a method says of the units, if one has scored them.
        gradients: of the loss, by entry, for the criterion ``taylor``; None: from the images.
        limits_given: what may go of each family, instead of what the settings say.
        harms: what each family can lose, where that was measured (see ``workflows.sensitivities``).
        sparse: whether the model has zeros that are meant to stay.
        name: of the model, for messages.
    """

    model: nn.Module
    example: ExampleInputs
    graph: NeuronGraph
    settings: PruneSettings
    images: Calibration
    importance: Importance | None = None
    gradients: Mapping[str, Tensor] | None = None
    limits_given: Limits | None = None
    harms: dict[int, Mapping[int, float]] = field(default_factory=dict)
    sparse: bool = False
    name: Path | None = None
    _scores: dict[float, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        opened: Opened,
        graph: NeuronGraph,
        settings: PruneSettings,
        images: Calibration,
        limits: Limits | None = None,
    ) -> PruningRun:
        """That of a model from a file."""
        return cls(
            opened.model,
            opened.example(),
            graph,
            settings,
            images,
            importance=opened.importance,
            limits_given=limits,
            sparse=opened.zeros is not None,
            name=opened.path,
        )

    @property
    def resolved(self) -> PruneSettings:
        """The settings with what ``auto`` is for this model."""
        return replace(self.settings, criterion=self.criterion, scope=self.scope, normaliser=self.normaliser)

    @property
    def criterion(self) -> str:
        """Where the settings say ``auto``: of the method that has scored the units, or the task's, or ``group-l2``."""
        return criterion_for(self.settings, self.importance, self.images.preferred)

    @property
    def scope(self) -> Scope:
        """Where the settings say ``auto``: each family by itself where the task says by what units are ranked."""
        return scope_for(self.settings, self.importance, self.images.preferred)

    @property
    def normaliser(self) -> Normaliser:
        """``auto``: of a method's scores theirs, else ranks where a search starts, mean if scored anew, or max."""
        if self.settings.normaliser != "auto":
            return self.settings.normaliser
        if self.importance is not None and self.criterion == self.importance.criterion:
            return self.importance.normaliser
        return "rank" if self.settings.search else "mean" if self.settings.rescore > 1 else "max"

    @cached_property
    def limits(self) -> Limits:
        """What may go of each family."""
        return self.limits_given or limits_for(self.model, self.graph, self.settings)

    @property
    def device(self) -> torch.device:
        """Where what is left is repaired and measured."""
        return self.images.device

    def scores(self, speedup: float = USUAL) -> Float[Tensor, " units"]:
        """The units' scores; only a score head that follows the speed-up has others for another one."""
        follows = self.importance is not None and self.importance.slope is not None
        at = speedup if follows else USUAL
        if at not in self._scores:
            self._scores[at] = self._scored(at)
        return self._scores[at]

    def ranked_in(self, steps: int) -> PruningRun:
        """The same, whose units are scored in so many steps and not searched for."""
        return replace(self, settings=replace(self.settings, rescore=steps, search=0, together=False))

    def scores_left(self, kept: Bool[Tensor, " units"], speedup: float = USUAL) -> Float[Tensor, " units"]:
        """The scores of the units that are left when the others are gone; those come below all of them."""
        scores = self.scores(speedup) if bool(kept.all()) else self._scored(speedup, kept)
        return torch.where(kept, scores, scores.min() - 1)

    @property
    def reads_images(self) -> bool:
        """Whether units are scored by images, at the cost of passes over them; by a user's own criterion, maybe."""
        looks = self.criterion in WITH_DATA or ":" in self.criterion
        return self.gradients is None and looks and bool(self.images.batches)

    def _scored(self, speedup: float, kept: Tensor | None = None) -> Tensor:
        model, batches = self.model, tuple[AnyBatch, ...]()
        if kept is not None:
            model = masked_copy(model, self.graph, kept)
        if self.reads_images:
            model, batches = copy.deepcopy(model).to(self.device).eval(), self.images.batches
        seen = sum(_number(inputs) for inputs, _ in batches)
        with threads_for(self.graph.macs * seen, SMALL_PASS) if seen else nullcontext():
            return score_units(
                model,
                self.graph,
                self.criterion,
                task=self.images.task,
                batches=batches,
                gradients=self.gradients,
                importance=None if self.importance is None else self.importance.tensor(speedup),
                reduction=self.settings.reduction,
                normaliser=self.normaliser,
                seed=self.settings.seed,
                kept=kept,
            )

    def remove(self, plan: Plan) -> Pruned:
        """What is left by a plan, checked and then repaired.

        Raises:
            NumericsError: it does not compute what the masked original does.
            InputError: the repair lacks images, or would fill the zeros of a sparse model.
        """
        small = apply_plan(self.model, self.graph, plan, self.example, route=self.settings.route, trials=self.trials)
        with threads_for(self.graph.macs):
            checked = check(self.model, small, self.graph, plan, self.example)
        small, layers = self.repaired(small, plan.kept)
        return Pruned(small, plan, checked, layers, self.resolved)

    def left(self, kept: Bool[Tensor, " units"]) -> nn.Module:
        """What is left with certain units alone, repaired; nothing is checked.

        Raises:
            UnfitError: the model cannot do without the others.
        """
        small = without(self.model, self.graph, kept, self.example, route=self.settings.route, trials=self.trials)
        return self.repaired(small, kept)[0]

    @cached_property
    def trials(self) -> Trials:
        """Of removals, on meta."""
        return Trials(self.model, self.graph, self.example)

    def failure_by(self, route: Route) -> Callable[[Tensor], str | None]:
        """What tells on meta why the model cannot do with certain units alone; None if it can."""
        trials = self.trials
        return {"auto": trials.failure, "class": trials.by_class, "program": trials.by_program}[route]

    def difference(self, kept: Bool[Tensor, " units"]) -> str | None:
        """Why what is left by certain units alone is not what it should be, told by computing it; None if it is."""
        try:
            small = without(self.model, self.graph, kept, self.example, route=self.settings.route, trials=self.trials)
            check(self.model, small, self.graph, kept, self.example)
        except UnfitError as error:
            return error.reason
        except NumericsError as error:
            return f"{error.what} {error.details['got']}"
        return None

    def repaired(self, small: nn.Module, kept: Bool[Tensor, " units"]) -> tuple[nn.Module, tuple[RepairedLayer, ...]]:
        """What is left, on the device where the images are, and back.

        Raises:
            InputError: the model is sparse, and the repair would fill its zeros.
        """
        how = self.settings.repair
        if self.sparse and how == "least-squares":
            raise InputError(
                "Least squares would fill the zeros of a sparse model.",
                where=self.name,
                next_step="prune it with --repair bias, or repair first and zero weights then",
            )
        if how == "none":
            return small, ()
        inputs = self.images.inputs
        small = small.to(self.device) if self._travels else small
        with threads_for(self.repair_macs, SMALL_PASS):
            original = self._original if inputs is not None and how in ("bias", "least-squares") else None
            small, layers = repaired(
                small, self.whole, self.graph, kept, inputs, how, seed=self.settings.seed, original=original
            )
        return small.to(self._home) if self._travels else small, layers

    @property
    def repair_macs(self) -> int:
        """Multiply-adds of one pass over the repair's inputs."""
        inputs = self.images.inputs
        return 0 if inputs is None else self.graph.macs * _number(inputs)

    @property
    def _home(self) -> torch.device:
        return device_of(self.model.state_dict())

    @property
    def _travels(self) -> bool:
        return self.device != self._home

    @cached_property
    def whole(self) -> nn.Module:
        """The model where the images are."""
        return copy.deepcopy(self.model).to(self.device) if self._travels else self.model

    @cached_property
    def _original(self) -> Original:
        return Original.of(self.whole, self.images.inputs, self.settings.seed)


def _number(inputs: ExampleInputs) -> int:
    """Of samples; 1 where nothing tells."""
    return next((len(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()), 1)


def criterion_for(settings: PruneSettings, importance: Importance | None, preferred: Criterion | None) -> str:
    """What ``auto`` is where a method has said this, or nothing, of a model's units, and the task prefers that."""
    if settings.criterion != "auto":
        return settings.criterion
    return (importance and importance.criterion) or preferred or "group-l2"


def scope_for(settings: PruneSettings, importance: Importance | None, preferred: Criterion | None) -> Scope:
    """The same of the scope: what the task prefers goes for each family by itself."""
    if settings.scope != "auto":
        return settings.scope
    by_task = settings.criterion == "auto" and importance is None and preferred is not None
    return "family" if by_task and not settings.search else "global"


def limits_for(model: nn.Module, graph: NeuronGraph, settings: PruneSettings) -> Limits:
    """What the settings say may go of each family.

    Raises:
        InputError: a rule matches nothing, or asks for what cannot be.
    """
    heads = any(family.kind == "heads" for family in graph.units.families)
    rules = settings.rules + ((PruningRule("kind:heads", ignore=True),) if settings.keep_heads and heads else ())
    return limits_of(graph, rules, settings.max_ratio, round_to=settings.round_to, model=model)
