"""The arms of a comparison: how a pruned model came to be, in a word or two that its own lineage gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from metaprune_cli.config import Scope
from metaprune_cli.methods.base import Method
from metaprune_cli.methods.registry import method_of_step, methods, methods_in, scoring_method

Arm = str

BASELINES: Mapping[Arm, str] = MappingProxyType(
    {"plain": "channels of all layers ranked together", "uniform": "the same share of every layer removed"}
)
"""The arms of the pipeline in which no method has a part, and what is done in them."""

REPAIRED = "repaired"
ZEROED = re.compile(r"\d+:\d+|(unstructured|\d+x\d+)-[\d.e-]+%(-by-layer)?")
"""A word that says what was zeroed (see :func:`zeros_word`)."""
ROUNDS = re.compile(r"(\d+)-rounds")
"""A word that says in how many rounds units were removed."""
WORDS = {
    "images": "which also read what training images show",
    "sparse": "sparse training before pruning",
    "finetuned": "finetuned before pruning",
    "group-l2": "ranked by group-l2 only",
    "group-l1": "ranked by group-l1",
    "bn-scale": "ranked by BatchNorm scales",
    "taylor": "ranked by the estimated change of the loss",
    "random": "ranked at random",
    "uniform": "the same share of every layer removed",
    "sensitivity": "as much of every layer removed as it can lose, measured",
    "fpgm": "ranked by distance to the other units",
    "lamp": "ranked by LAMP scores",
    "obd-c": "ranked by the estimated change of the loss, second order",
    "hessian": "ranked by the diagonal of the Hessian",
    "activation": "ranked by activations",
    "searched": "layer widths found by search",
    "rescored": "in steps, scored again after each",
    "from-scratch": "trained from scratch",
    REPAIRED: "repaired without training",
    "taught": "finetuned with a teacher",
    "mixup": "finetuned with mixup",
    "cutmix": "finetuned with CutMix",
    "ema": "finetuned with averaged weights",
}

FINETUNED = {"teacher": "taught", "mixup": "mixup", "cutmix": "cutmix", "ema": "ema"}
"""What a finetuning step of a lineage may have had → the word for it."""


REMOVAL = "structured"
"""The kind of a step that removes units, where it is said."""


def is_zeroing(step: Mapping[str, Any]) -> bool:
    """Whether a step of a lineage zeroed weights; until ``sparsify`` was a command, ``prune`` did with a kind."""
    command, kind = str(step["command"]), str(step.get("kind", REMOVAL))
    return command == "sparsify" or (command == "prune" and kind != REMOVAL)


def is_removal(step: Mapping[str, Any]) -> bool:
    """Whether a step of a lineage removed units."""
    return str(step["command"]) in ("prune", "search") and not is_zeroing(step)


def zeros_word(step: Mapping[str, Any]) -> str:
    """A zeroing in a word: ``2:4``, ``unstructured-80%``, ``4x1-50%``, and ``-by-layer`` where each has its share."""
    if step["kind"] == "n:m":
        return str(step["pattern"])
    by_layer = "-by-layer" if step.get("scope") == "family" else ""
    return f"{step['pattern'] or step['kind']}-{100 * step['sparsity']:g}%{by_layer}"


def ranking_of(arm: Arm) -> tuple[str, ...]:
    """The words of an arm that say how units were chosen, without what was zeroed, repaired and finetuned how."""
    others = {"plain", REPAIRED, *FINETUNED.values()}
    words = arm.split()
    return tuple(w for w in words if w not in others and not ZEROED.fullmatch(w) and not ROUNDS.fullmatch(w))


def method_words(lineage: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The methods that had a part, and whether images were looked at."""
    shown = ("images",) if any(step.get("observed") for step in lineage) else ()
    return (*(method.name for method in methods_in(lineage)), *shown)


def arm_of(
    before: Sequence[Mapping[str, Any]],
    criterion: str | None = "group-l2",
    scope: Scope = "global",
    *,
    repair: str = "none",
    zeros: str | None = None,
    after: Sequence[Mapping[str, Any]] = (),
    rounds: int = 1,
    searched: bool = False,
    rescored: bool = False,
    scratch: bool = False,
    usual: str = "group-l2",
) -> Arm:
    """The arm of a model.

    Args:
        before: the lineage up to its first pruning, and that one where a method removed the units itself.
        criterion: of its last pruning; what ``auto`` is goes without saying. None: the method's own way of choosing.
        scope: of that one; global goes without saying, as ``family`` does after a method.
        repair: of that pruning; statistics measured anew are no repair to speak of.
        zeros: what was zeroed, in a word.
        after: the lineage from then on.
        rounds: how often units were removed.
        searched: whether widths were searched for in the last pruning; of a method that needs a search it goes without
            saying.
        rescored: whether units were scored anew on the way.
        scratch: whether nothing of the model but its widths was kept then.
        usual: the criterion that goes without saying where no method has scored the units: the task's own.
    """
    finetunings = [step for step in before if step["command"] == "finetune"]
    sparse = any(step.get("sparsity") for step in finetunings)
    first = next((place for place, step in enumerate(before) if method_of_step(step)), len(before))
    since, having = before[first:], methods_in(before)
    scored = scoring_method(before).criterion if any(step.get("scored") for step in before) else None
    words = (
        ("sparse", sparse),
        *((word, True) for word in method_words(before)),
        ("finetuned", any(step["command"] == "finetune" and step.get("epochs", 1) for step in since) and not sparse),
        (str(criterion), criterion not in (None, scored or usual)),
        ("uniform", scope == "family" and not having),
        ("sensitivity", scope == "sensitivity"),
        ("searched", searched and not any("widths" in method.proposes for method in having)),
        ("rescored", rescored),
        ("from-scratch", scratch),
        (f"{rounds}-rounds", rounds > 1),
        *((word, any(step.get(key) and step.get("epochs", 1) for step in after)) for key, word in FINETUNED.items()),
    )
    words_said = [word for word, holds in words if holds] + ([zeros] if zeros else [])
    return " ".join([*(words_said or ["plain"]), *([REPAIRED] if repair in ("bias", "least-squares") else [])])


def pipeline_arms() -> tuple[Arm, ...]:
    """The arms of the pipeline, in their order; any other has its name from :func:`arm_of`."""
    return (*BASELINES, *(method.name for method in methods()))


def methods_of(arm: Arm) -> tuple[Method, ...]:
    """The methods that had a part in it; none in a baseline."""
    words = arm.split()
    return tuple(method for method in methods() if method.name in words)


def place(arm: Arm) -> tuple[bool, int, Arm]:
    """The key that arms are sorted by: baselines first, those of the pipeline before others."""
    name, known = arm.removesuffix(f" {REPAIRED}"), pipeline_arms()
    return bool(methods_of(arm)), known.index(name) if name in known else len(known), arm


def explained(arm: Arm) -> str:
    """An arm in a sentence."""
    name = arm.removesuffix(f" {REPAIRED}")
    words = _as_a_whole().get(name) or ", ".join(map(_in_words, name.split()))
    return words if name == arm else f"{words}, {WORDS[REPAIRED]}"


def nouns(some: Sequence[Method]) -> str:
    """What methods work with, in a sentence: ``metanetwork``, ``metanetwork, PruningNet or hypernetwork``."""
    names = list(dict.fromkeys(method.noun for method in some))
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _as_a_whole() -> dict[Arm, str]:
    own = {method.name: ", ".join(filter(None, (method.done, method.chosen))) for method in methods()}
    return {**BASELINES, **own}


def _in_words(word: str) -> str:
    done = {method.name: method.done for method in methods()} | WORDS
    if word in done:
        return done[word]
    if rounds := ROUNDS.fullmatch(word):
        return f"removed in {rounds[1]} rounds, with training in between"
    return f"zeroed {word}" if ZEROED.fullmatch(word) else f"ranked by {word}"
