"""The arms of a comparison: how a pruned model came to be, in a word or two that its own lineage gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metaprune_cli.config import Scope

Arm = str

METANET = "metanet"
ARMS: tuple[Arm, ...] = ("plain", "uniform", METANET)
"""The arms of the pipeline, in their order; any other has its name from :func:`arm_of`."""

EXPLAINED: dict[Arm, str] = {
    "plain": "no metanetwork, units of all layers ranked together",
    "uniform": "no metanetwork, the same share of every layer",
    METANET: "rewritten by the metanetwork, ranked as it says",
}
REPAIRED = "repaired"
ZEROED = re.compile(r"\d+:\d+|(unstructured|\d+x\d+)-[\d.e-]+%(-by-layer)?")
"""A word that says what was zeroed (see :func:`zeros_word`)."""
ROUNDS = re.compile(r"(\d+)-rounds")
"""A word that says in how many rounds units were removed."""
WORDS = {
    "sparse": "group sparsity before pruning",
    METANET: "rewritten by the metanetwork",
    "finetuned": "finetuned before pruning",
    "group-l2": "ranked by group-l2 alone",
    "group-l1": "ranked by group-l1",
    "bn-scale": "ranked by the norms' scales",
    "taylor": "ranked by what the loss would change",
    "random": "units drawn at random",
    "uniform": "the same share of every layer",
    "fpgm": "ranked by distance to others",
    "lamp": "ranked by group-l2 over what is no smaller",
    "obd-c": "ranked by what the loss would change, second order",
    "hessian": "ranked by the Hessian's diagonal",
    "activation": "ranked by what the units send",
    "searched": "the layers' shares searched for",
    REPAIRED: "what is left repaired without training",
    "taught": "finetuned with a teacher",
    "mixup": "finetuned on mixed images",
    "cutmix": "finetuned on images pasted together",
    "ema": "finetuned, the weights averaged",
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
    return str(step["command"]) == "prune" and not is_zeroing(step)


def zeros_word(step: Mapping[str, Any]) -> str:
    """A zeroing in a word: ``2:4``, ``unstructured-80%``, ``4x1-50%``, and ``-by-layer`` where each has its share."""
    if step["kind"] == "n:m":
        return str(step["pattern"])
    by_layer = "-by-layer" if step.get("scope") == "family" else ""
    return f"{step['pattern'] or step['kind']}-{100 * step['sparsity']:g}%{by_layer}"


def apart_from_ranking(arm: Arm) -> tuple[str, ...]:
    """The words of an arm that say what was zeroed, in how many rounds, repaired and finetuned how.

    Arms are compared where these agree.
    """
    others = {REPAIRED, *FINETUNED.values()}
    return tuple(word for word in arm.split() if word in others or ZEROED.fullmatch(word) or ROUNDS.fullmatch(word))


def arm_of(
    before: Sequence[Mapping[str, Any]],
    criterion: str = "group-l2",
    scope: Scope = "global",
    *,
    repair: str = "none",
    zeros: str | None = None,
    after: Sequence[Mapping[str, Any]] = (),
    rounds: int = 1,
    search: int = 0,
) -> Arm:
    """The arm of a model.

    Args:
        before: the lineage up to its first pruning.
        criterion: of its last pruning; what ``auto`` is goes without saying.
        scope: of that one; global goes without saying, as ``family`` does after a metanetwork.
        repair: of that pruning; statistics measured anew are no repair to speak of.
        zeros: what was zeroed, in a word.
        after: the lineage from then on.
        rounds: how often units were removed.
        search: how many shares were tried for the layers in the last pruning.
    """
    commands = [step["command"] for step in before]
    rewritten, finetunings = "transform" in commands, [step for step in before if step["command"] == "finetune"]
    sparse = any(step.get("sparsity") for step in finetunings)
    since = before[commands.index("transform") :] if rewritten else ()
    usual = "metanet" if any(step.get("scored") for step in before) else "group-l2"
    words = (
        ("sparse", sparse),
        (METANET, rewritten),
        ("finetuned", any(step["command"] == "finetune" and step.get("epochs", 1) for step in since) and not sparse),
        (criterion, criterion != usual),
        ("uniform", scope == "family" and not rewritten),
        ("searched", search > 0),
        (f"{rounds}-rounds", rounds > 1),
        *((word, any(step.get(key) and step.get("epochs", 1) for step in after)) for key, word in FINETUNED.items()),
    )
    words_said = [word for word, holds in words if holds] + ([zeros] if zeros else [])
    return " ".join([*(words_said or ["plain"]), *([REPAIRED] if repair in ("bias", "least-squares") else [])])


def is_metanet(arm: Arm) -> bool:
    """Whether a metanetwork had a part in it."""
    return METANET in arm.split()


def place(arm: Arm) -> tuple[bool, int, Arm]:
    """The key that arms are sorted by: baselines first, those of the pipeline before others."""
    name = arm.removesuffix(f" {REPAIRED}")
    return is_metanet(arm), ARMS.index(name) if name in ARMS else len(ARMS), arm


def explained(arm: Arm) -> str:
    """An arm in a sentence."""
    name = arm.removesuffix(f" {REPAIRED}")
    words = EXPLAINED.get(name) or ", ".join(map(_in_words, name.split()))
    return words if name == arm else f"{words}, {WORDS[REPAIRED]}"


def _in_words(word: str) -> str:
    if word in WORDS:
        return WORDS[word]
    if rounds := ROUNDS.fullmatch(word):
        return f"removed in {rounds[1]} rounds, with training in between"
    return f"zeroed {word}" if ZEROED.fullmatch(word) else f"ranked by {word}"
