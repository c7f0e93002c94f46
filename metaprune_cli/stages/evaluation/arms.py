"""The arms of a comparison: how a pruned model came to be, in a word or two that its own lineage gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaprune_cli.config import Criterion, Scope

Arm = str

METANET = "metanet"
ARMS: tuple[Arm, ...] = ("plain", "uniform", METANET)
"""The arms of the pipeline, in their order; any other has its name from :func:`arm_of`."""

EXPLAINED: dict[Arm, str] = {
    "plain": "no metanetwork, units of all layers ranked together",
    "uniform": "no metanetwork, the same share of every layer",
    METANET: "rewritten by the metanetwork, ranked as it says",
}
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
    "taught": "finetuned with a teacher",
    "mixup": "finetuned on mixed images",
    "cutmix": "finetuned on images pasted together",
    "ema": "finetuned, the weights averaged",
}

FINETUNED = {"teacher": "taught", "mixup": "mixup", "cutmix": "cutmix", "ema": "ema"}
"""What a finetuning step of a lineage may have had → the word for it."""


def arm_of(
    before: Sequence[Mapping[str, Any]],
    criterion: Criterion = "group-l2",
    scope: Scope = "global",
    after: Sequence[Mapping[str, Any]] = (),
) -> Arm:
    """The arm of a model.

    Args:
        before: the lineage up to its last pruning.
        criterion: of that pruning; what ``auto`` is goes without saying.
        scope: of that pruning; global goes without saying, as ``family`` does after a metanetwork.
        after: the lineage from then on.
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
        *((word, any(step.get(key) and step.get("epochs", 1) for step in after)) for key, word in FINETUNED.items()),
    )
    return " ".join(word for word, holds in words if holds) or "plain"


def is_metanet(arm: Arm) -> bool:
    """Whether a metanetwork had a part in it."""
    return METANET in arm.split()


def place(arm: Arm) -> tuple[bool, int, Arm]:
    """The key that arms are sorted by: baselines first, those of the pipeline before others."""
    return is_metanet(arm), ARMS.index(arm) if arm in ARMS else len(ARMS), arm


def explained(arm: Arm) -> str:
    """An arm in a sentence."""
    return EXPLAINED.get(arm) or ", ".join(WORDS[word] for word in arm.split())
