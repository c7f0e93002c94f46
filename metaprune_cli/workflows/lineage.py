"""What a model's own document, not its folder, says it is: arm, step, requested speed-up, origin, and so its base."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprune_cli.methods.registry import method_of_step
from metaprune_cli.workflows.arms import FINETUNED, Arm, arm_of, is_removal, is_zeroing, method_words, zeros_word
from metaprune_cli.workflows.loading import Lineage, Opened
from metaprune_cli.workflows.paths import stem

Step = str
STEPS: tuple[Step, ...] = ("unpruned", "pruned", "recalibrated", "finetuned")
"""Where models were finetuned for different numbers of epochs, these are steps of their own: ``finetuned-10``."""


@dataclass(frozen=True)
class Descent:
    """How a model came to be.

    Attributes:
        origin: stem of the file the first command in its lineage read; its own where no command read one.
        arm: how it came to be (see ``arms``).
        step: the last thing done since it was pruned; "unpruned" where it was not.
        requested: the speed-up asked of all prunings that removed units together; 1 where weights were zeroed only.
        known: whether the file has a lineage at all.
        epochs: of finetuning and of methods that train the model, all told.
        settings: what else has to be equal where arms are compared, in words by name; what was not done is not there.
    """

    origin: str
    arm: Arm
    step: Step
    requested: float | None
    known: bool
    epochs: int
    settings: Mapping[str, str] = field(default_factory=dict)


def descent(lineage: Lineage, path: Path) -> Descent:
    """Read a model's lineage."""
    origin = next((stem(Path(entry["input"])) for entry in lineage if entry.get("input")), stem(path))
    epochs = sum(entry.get("epochs", 0) for entry in lineage if entry["command"] == "finetune" or method_of_step(entry))
    rewritten = max((place for place, step in enumerate(lineage) if _rewrites(step)), default=-1)
    zeroings = [place for place, step in enumerate(lineage) if is_zeroing(step) and place > rewritten]  # others: undone
    removals = [place for place, step in enumerate(lineage) if is_removal(step) or _removes(step)]
    if not zeroings + removals:
        arm = " ".join(method_words(lineage)) or "plain"
        return Descent(origin, arm, "unpruned", None, bool(lineage), epochs)
    place = (removals or zeroings)[-1]
    removal: Mapping[str, Any] = lineage[place] if removals else {}
    since = lineage[max(zeroings + removals) + 1 :]
    training = [removal, *since] if removal and _removes(removal) else since  # which a method's own may be, too
    zeros = zeros_word(lineage[zeroings[-1]]) if zeroings else None
    arm = arm_of(
        lineage[: (removals or zeroings)[0] + 1],
        removal.get("criterion", "group-l2" if removal.get("command", "prune") in ("prune", "search") else None),
        removal.get("scope", "global"),
        repair=removal.get("repair", "none"),
        zeros=zeros,
        after=training,
        rounds=len(removals),
        searched=removal.get("command") == "search" or removal.get("search", 0) > 0,
        rescored=removal.get("rescore", 1) > 1,
        scratch=removal.get("weights") == "scratch",
        usual=removal.get("usual", "group-l2"),
    )
    settings = dict(_settings(removal, training, zeros, len(removals)))
    requested = _requested([lineage[place] for place in removals])
    return Descent(origin, arm, _step(since), requested, True, epochs, settings)


def trained_while_removing(lineage: Lineage) -> int:
    """Epochs for which methods have trained the model while they removed its units."""
    return sum(int(step.get("epochs", 0)) for step in lineage if _removes(step))


def _rewrites(step: Mapping[str, Any]) -> bool:
    method = method_of_step(step)
    return method is not None and step["command"] == method.command and "weights" in method.proposes


def _removes(step: Mapping[str, Any]) -> bool:
    method = method_of_step(step)
    return method is not None and method.removes


def _settings(
    removal: Mapping[str, Any], since: Sequence[Mapping[str, Any]], zeros: str | None, rounds: int
) -> Iterator[tuple[str, str]]:
    """What is neither the choice of units nor a number of epochs."""
    for name in ("repair", "quantity"):
        if removal.get(name, "none") != "none":
            yield name, str(removal[name])
    if rounds > 1:
        yield "rounds", str(rounds)
    if zeros:
        yield "zeros", zeros
    for name in (*FINETUNED, "patience"):
        values = [step[name] for step in since if step.get(name) and step.get("epochs", 1)]
        if values:
            yield name, ", ".join(str(value) for value in dict.fromkeys(values))


def base_of(model: Opened, candidates: Sequence[Opened]) -> Opened:
    """The candidate to measure a model against: its own, or the first."""
    return own_base(model, candidates) or candidates[0]


def own_base(model: Opened, candidates: Sequence[Opened]) -> Opened | None:
    """The candidate that a model comes from: its origin, or one whose name its own begins with."""
    origin, name = descent(model.lineage, model.path).origin, stem(model.path)
    by_lineage = [base for base in candidates if model.lineage and stem(base.path) == origin]
    by_name = [base for base in candidates if _begins_with(name, stem(base.path))]
    return next(iter(by_lineage + sorted(by_name, key=lambda base: -len(stem(base.path)))), None)


def base_candidates(models: Sequence[Opened], bases: Sequence[Opened]) -> Sequence[Opened]:
    """The named bases; without any, the first model and every other that is known not to be pruned."""
    if bases:
        return bases
    unpruned = [model for model in models[1:] if _is_unpruned(model)]
    return [models[0], *unpruned]


def _is_unpruned(model: Opened) -> bool:
    found = descent(model.lineage, model.path)
    return found.known and found.step == "unpruned"


def _step(since_pruning: Sequence[Any]) -> Step:
    finetunings = [entry for entry in since_pruning if entry["command"] == "finetune"]
    if not finetunings:
        return "pruned"
    return "finetuned" if any(entry.get("epochs", 1) for entry in finetunings) else "recalibrated"


def _requested(removals: Sequence[Mapping[str, Any]]) -> float | None:
    """What the rounds of one call were to come to; of several calls, the product of what each was asked for."""
    if removals and "total" in removals[-1]:
        return float(removals[-1]["total"])
    asked = [removal["requested"] for removal in removals if "requested" in removal]
    return round(math.prod(asked, start=1.0), 4) if len(asked) == len(removals) else None


def _begins_with(name: str, start: str) -> bool:
    """Whether ``name`` is ``start``, or goes on with something that is no letter or digit: not net-1 in net-10."""
    return name.startswith(start) and not name[len(start) : len(start) + 1].isalnum()
