"""Pruned models as examples: how much each layer of a zoo's models is to lose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.metanet.learning.shares import Example, examples_of

Signature = tuple[tuple[str, int], ...]
"""Name and size of every family of a model."""
SHOWING = ("prune", "search")
"""The commands that say how much of every family they left."""


def examples_for(
    graphs: Sequence[NeuronGraph],
    files: Sequence[Path],
    pruned: Sequence[Path],
    settings: MetaTrainSettings,
    *,
    trained_on: int,
) -> list[tuple[Example, ...]]:
    """What pruned models show of each graph's families; all that are pruned from the same structure count alike.

    What a search finds for a single model is chance to a good part; what its examples have in common is not.

    Args:
        graphs: what is trained on, and then what chooses the epoch.
        files: where each of them is from.
        pruned: files of models as ``prune`` and ``search`` write them.
        settings: of the meta-training that is to learn from them.
        trained_on: how many of the graphs are trained on; each of these must have an example.

    Raises:
        InputError: there are examples and nothing can learn from them, or the reverse; a structure that is trained on
            has none; a file is no example. Names all files.
    """
    if not pruned:
        if settings.objective == "shares":
            raise InputError(
                "The objective shares has nothing to learn from.",
                where="meta-train.objective",
                next_step="metaprune search the zoo's models --together, and give the folder as --shares",
            )
        return [()] * len(graphs)
    if settings.criterion != "metanet" or settings.normaliser != "rank":
        raise InputError(
            "Only a score head over ranks learns how much each layer is to lose.",
            expected="criterion metanet and normaliser rank",
            got=f"{settings.criterion} and {settings.normaliser}",
            where="meta-train.criterion, meta-train.normaliser",
            next_step="set them, or leave --shares out",
        )
    left = _left(pruned)
    taught = zip(files[:trained_on], graphs[:trained_on], strict=True)
    orphans = [str(path) for path, graph in taught if graph.units.signature not in left]
    if orphans:
        raise InputError(
            "Nothing of the same structure was pruned for some graphs.",
            expected="an example for each structure that is trained on",
            got="\n".join(orphans),
            where="--shares",
            next_step="metaprune search or prune models of each architecture and width, and give all results",
        )
    return [examples_of(graph.units, left.get(graph.units.signature, ())) for graph in graphs]


def _left(files: Sequence[Path]) -> dict[Signature, list[tuple[float, tuple[int, ...]]]]:
    """For every structure the speed-ups, and how many units of each family were left."""
    found = defaultdict(list)
    strangers = []
    for path in files:
        document = read_artifact(path, "model").document
        last = (document.get("lineage") or [{}])[-1].get("command")
        plan = document.get("pruning") or {}
        if last not in SHOWING or not plan.get("families"):
            strangers.append(str(path))
            continue
        signature = tuple((family["name"], int(family["before"])) for family in plan["families"])
        found[signature].append(
            (float(plan.get("speedup", 1)), tuple(int(family["after"]) for family in plan["families"]))
        )
    if strangers:
        raise InputError(
            "Some files show nothing about shares.",
            expected="models as metaprune prune or search writes them",
            got="\n".join(strangers),
            where="--shares",
            next_step="give those from before finetuning",
        )
    return found
