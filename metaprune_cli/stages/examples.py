"""Pruned models as examples: how much each layer of a zoo's models is to lose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from metaprune_cli.artifacts import read_document
from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.stages.paths import find_sources
from metaprune_cli.training.shares import wanted_lifts

Plans = dict[str, list[tuple[int, ...]]]
"""For every model (the sha256 of its file) or structure, how many units of each family are left by each example."""


def lifts_for(
    graphs: Sequence[tuple[Path, NeuronGraph]], pruned: Sequence[Path], settings: MetaTrainSettings
) -> list[Tensor | None]:
    """What the examples say of each graph's families (``training/shares.py``); None for all where there are none.

    Models of the same families share their examples: what a search finds for a single one is chance to a good part.

    Args:
        graphs: graph files and what is in them.
        pruned: models as ``prune`` writes them, or folders of such.
        settings: of the meta-training that is to learn from them.

    Raises:
        InputError: there are examples and nothing can learn from them, or the reverse; a graph's model has none; a file
            is no example. Names all files.
    """
    if not pruned:
        if settings.objective == "shares":
            raise InputError(
                "The objective shares has nothing to learn from.",
                where="meta-train.objective",
                next_step="prune the zoo's models with --search N, and give the folder as --shares",
            )
        return [None] * len(graphs)
    if settings.criterion != "metanet" or settings.normaliser != "rank":
        raise InputError(
            "Only a score head over ranks learns how much each layer is to lose.",
            expected="criterion metanet and normaliser rank",
            got=f"{settings.criterion} and {settings.normaliser}",
            where="meta-train.criterion, meta-train.normaliser",
            next_step="set them, or leave --shares out",
        )
    plans = _plans([file.path for file in find_sources(pruned, ("model",)).files])
    models = [str(read_document(path)["inputs"].get("model")) for path, _ in graphs]
    orphans = [str(path) for (path, _), model in zip(graphs, models, strict=True) if model not in plans]
    if orphans:
        raise InputError(
            "Some graphs' models are not among those that were pruned.",
            expected="an example for each graph that is trained on",
            got="\n".join(orphans),
            where="--shares",
            next_step="metaprune prune the very files that were encoded, and give the results",
        )
    alike: Plans = defaultdict(list)
    for (_, graph), model in zip(graphs, models, strict=True):
        alike[_structure(graph)] += plans[model]
    return [wanted_lifts(graph.units, alike[_structure(graph)]) for _, graph in graphs]


def _structure(graph: NeuronGraph) -> str:
    """The same for models whose families are the same."""
    return " ".join(f"{family.name}:{len(family.units)}" for family in graph.units.families)


def _plans(files: Sequence[Path]) -> Plans:
    found: Plans = defaultdict(list)
    strangers = []
    for path in files:
        document = read_document(path)
        last = document.get("lineage", [{}])[-1].get("command")
        if last != "prune" or "families" not in document.get("pruning", {}):
            strangers.append(str(path))
            continue
        after = tuple(int(family["after"]) for family in document["pruning"]["families"])
        found[document["inputs"]["model"]].append(after)
    if strangers:
        raise InputError(
            "Some files show nothing about shares.",
            expected="models as metaprune prune writes them",
            got="\n".join(strangers),
            where="--shares",
            next_step="give those from before finetuning",
        )
    return found
