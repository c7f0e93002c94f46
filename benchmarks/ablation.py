"""What each part of the metanetwork is worth: it is meta-trained without it, with several seeds, and used.

    metaprune zoo -o zoo && metaprune encode zoo/train zoo/validation -o graphs
    python benchmarks/ablation.py zoo graphs [--variants base …] [--seeds 0 1 2] [--jobs 2] -o ablation.csv

Everything but the variant is as in ``params.yaml``. Every held-out model of the zoo is pruned at every speed-up, once
through the variant's metanetwork and once without, the BatchNorms are measured anew, and it is finetuned; the same for
both. Accuracies are those of the validation images: the test images are for ``eval`` alone. Rows in the output are not
made again. Printed per variant: the mean over models and seeds of what the metanetwork adds, in points, before and
after finetuning, and the standard deviation over seeds.

Variants: ``base``; any settings of the sections metanet, meta-train and prune, ``layers=1``, ``codec=per-kernel`` or
``criterion=group-l2,fixed_cost=false`` (a name of several sections is set in all of them); ``no-mean``,
``no-deviation``, ``no-extremes``, ``only-mean``: what of the aggregated messages the neurons are not told;
``members=8``: so many models of the zoo, and as many steps; ``rescaled``: every filter of the zoo's models times a
random number, which the BatchNorm after it divides out, ``heldout-rescaled``: of the models that it is used on;
``canonical``: every filter of all models so that the BatchNorm after it divides by one; without a metanetwork
``without,scope=family`` and the like.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from joblib import Parallel, delayed
from torch import Tensor, nn

import metaprune_cli as metaprune
from metaprune_cli.config import (
    DataSettings,
    MetanetSettings,
    MetaTrainSettings,
    OptimSettings,
    PruneSettings,
)
from metaprune_cli.config_loader import load_section
from metaprune_cli.data import Splits, load_splits
from metaprune_cli.errors import TargetError
from metaprune_cli.methods.metanet import MetaNetwork, rewritten
from metaprune_cli.methods.metanet.layers import MessageLayer
from metaprune_cli.methods.metanet.learning.meta import meta_train
from metaprune_cli.methods.metanet.learning.zoo import ZooEntry
from metaprune_cli.pruning import by_unit
from metaprune_cli.stages.meta_train import config_of
from metaprune_cli.tasks import Classification, measure
from metaprune_cli.training.loop import RECALIBRATION_BATCHES, fit, recalibrate_
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.seeds import seed_everything
from metaprune_cli.workflows.loading import ModelSource, open_graph, open_model

CPU = torch.device("cpu")
VARIANTS = (
    *("base", "codec=per-kernel", "scale_blocks=false", "layers=1", "layers=2", "layers=5", "hidden=8", "hidden=32"),
    *("no-mean", "no-deviation", "no-extremes", "only-mean"),
    *("without,scope=family", "criterion=group-l2,fixed_cost=false", "fixed_cost=false", "ratio=0.001"),
)
RESCALED = 0.5
HEARD = {  # of mean, deviation, maximum, minimum
    "no-mean": (0, 1, 1, 1),
    "no-deviation": (1, 0, 1, 1),
    "no-extremes": (1, 1, 0, 0),
    "only-mean": (1, 0, 0, 0),
}


class HardOfHearing(MessageLayer):
    """A layer whose neurons are told only some of what is aggregated."""

    heard_parts: Tensor

    def update(self, h: Tensor, heard: Tensor) -> Tensor:
        """As ever, with zeros for the rest."""
        return super().update(h, heard * self.heard_parts)


@dataclass(frozen=True)
class Settings:
    """The sections of params.yaml."""

    data: DataSettings
    metanet: MetanetSettings
    meta_train: MetaTrainSettings
    prune: PruneSettings
    finetune: OptimSettings

    @classmethod
    def read(cls, path: Path, variant: str) -> Settings:
        """From a file, with what the variant says on top."""
        given = {name: yaml.safe_load(value) for name, is_, value in (w.partition("=") for w in words(variant)) if is_}
        parts = []
        for field in fields(cls):
            name, kind = field.name.replace("_", "-"), SECTIONS[field.name]
            own = {f.name for f in fields(kind)}
            mine = given if field.name in VARIED else {}
            parts.append(load_section(path, name, kind, {key: value for key, value in mine.items() if key in own}))
        return cls(*parts)


SECTIONS = {
    "data": DataSettings,
    "metanet": MetanetSettings,
    "meta_train": MetaTrainSettings,
    "prune": PruneSettings,
    "finetune": OptimSettings,
}
VARIED = ("metanet", "meta_train", "prune")


def words(variant: str) -> list[str]:
    """What a variant is made of: between commas, but those of a list."""
    return re.split(r",(?![^\[]*\])", variant)


def network_of(variant: str, settings: Settings, entries: Sequence[ZooEntry]) -> MetaNetwork:
    """An untrained metanetwork."""
    network = MetaNetwork(config_of(settings.metanet, entries, settings.meta_train))
    for word in words(variant):
        if word in HEARD:
            for layer in network.layers:
                layer.__class__ = HardOfHearing
                parts = torch.tensor(HEARD[word], dtype=torch.float32).repeat_interleave(settings.metanet.hidden)
                layer.register_buffer("heard_parts", parts, persistent=False)
    return network


def entries_of(folder: Path, variant: str) -> list[ZooEntry]:
    """The graphs in a folder, and their models, scaled as the variant says."""
    entries = []
    for number, path in enumerate(sorted(folder.glob("*.safetensors"))):
        opened = open_graph(path, ModelSource())
        graph = opened.neuron_graph()
        scale_(opened.model, variant, "rescaled", number)
        state = opened.model.state_dict()
        graph = graph.with_tensors({name: state[name] for name in graph.tensors})
        entries.append(ZooEntry(path.name, opened.model, graph))
    return entries


@torch.no_grad()
def scale_(model: nn.Module, variant: str, rescaled: str, seed: int) -> None:
    """Filters before a BatchNorm times a factor, and its statistics likewise, which leaves the function as it is.

    Where the variant says ``rescaled`` the factor is e^(0.5 n), n normal; then, if it says so, the canonical one.
    """
    generator = torch.Generator().manual_seed(seed)
    for pair in (module for module in model.modules() if isinstance(module, nn.Sequential)):
        for conv, norm in itertools.pairwise(pair):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                if rescaled in words(variant):
                    times_(conv, norm, (RESCALED * torch.randn(conv.out_channels, generator=generator)).exp())
                if "canonical" in words(variant):
                    times_(conv, norm, (norm.running_var + norm.eps).rsqrt())


def times_(conv: nn.Conv2d, norm: nn.BatchNorm2d, factor: Tensor) -> None:
    """Every filter, and its statistics."""
    conv.weight *= factor.view(-1, 1, 1, 1)
    norm.running_mean *= factor
    norm.running_var.add_(norm.eps).mul_(factor.square()).sub_(norm.eps).clamp_(min=0)


def fewer(
    entries: list[ZooEntry], variant: str, settings: MetaTrainSettings
) -> tuple[list[ZooEntry], MetaTrainSettings]:
    """As many models as the variant says, and settings by which they make as many steps as all of them."""
    for word in words(variant):
        name, _, value = word.partition("=")
        if name == "members":
            longer = len(entries) // int(value)
            every = settings.validate_every * longer
            return entries[: int(value)], replace(settings, epochs=settings.epochs * longer, validate_every=every)
    return entries, settings


def measured(model: nn.Module, splits: Splits, settings: Settings, seed: int) -> tuple[float, float]:
    """Validation accuracy of a pruned model with its BatchNorms measured anew, and finetuned."""
    size = settings.data.batch_size
    recalibrate_(model, splits.train, RECALIBRATION_BATCHES, batch_size=size)
    before = measure(model, splits.val.batches(size), CPU, Classification()).headline
    tuned = fit(
        model,
        splits.train,
        settings.finetune,
        task=Classification(),
        batch_size=size,
        augment=settings.data.augment != "none",
        seed=seed,
        device=CPU,
        progress=Silence(),
    )
    return before, measure(tuned.model, splits.val.batches(size), CPU, Classification()).headline


def run(variant: str, seed: int, zoo: Path, graphs: Path, params: Path) -> list[dict[str, Any]]:
    """Meta-train a variant with one seed and use it; ``without`` needs no metanetwork."""
    torch.set_num_threads(1)
    settings = Settings.read(params, variant)
    splits = load_splits(settings.data)
    network = None
    if "without" not in words(variant):
        entries = entries_of(graphs / "train", variant)
        entries, meta = fewer(entries, variant, settings.meta_train)
        seed_everything(seed)
        network = network_of(variant, settings, entries)
        result = meta_train(
            network,
            entries,
            entries_of(graphs / "validation", variant),
            splits.train,
            splits.val,
            replace(meta, seed=seed),
            task=Classification(),
            device=CPU,
            progress=Silence(),
        )
        network.load_state_dict(result.metanet_state)
    found = sorted((zoo / "heldout").glob("*.safetensors"))
    named = {"variant": variant, "seed": seed}
    return [named | row for path in found for row in used(path, network, splits, settings, seed, variant)]


def used(
    path: Path, network: MetaNetwork | None, splits: Splits, settings: Settings, seed: int, variant: str
) -> Iterator[dict[str, Any]]:
    """One model pruned at every speed-up, through a metanetwork or without; no figures where it cannot be met."""
    opened, prune = open_model(path, ModelSource()), settings.prune
    importance, normaliser = None, prune.normaliser
    model, example = opened.model, opened.example()
    scale_(model, variant, "heldout-rescaled", seed)
    graph = metaprune.encode(model, example)
    if network is not None:
        written = rewritten(graph, network)
        graph = graph.with_tensors(written.tensors)
        model = metaprune.decode(graph, model)
        if written.importance is not None:
            importance = by_unit(graph.units, written.importance)
            if normaliser == "auto" and prune.criterion in ("auto", "metanet"):
                normaliser = network.config.normaliser
    for speedup in prune.speedup:
        row = {"model": path.name, "speedup": speedup}
        try:
            small = metaprune.prune(
                model,
                example,
                speedup=speedup,
                criterion=prune.criterion,
                scope=prune.scope,
                max_ratio=prune.max_ratio,
                importance=importance,
                normaliser=normaliser,
                graph=graph,
            ).model
        except TargetError:
            yield row | {"before": "", "after": ""}
            continue
        before, after = measured(small, splits, settings, seed)
        yield row | {"before": before, "after": after}


def main() -> None:
    """Parse, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("graphs", type=Path)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", "-o", type=Path, default=Path("ablation.csv"))
    given = parser.parse_args()
    rows = read(given.output)
    done = {(row["variant"], int(row["seed"])) for row in rows}
    missing = [(v, s) for s in given.seeds for v in ("without", *given.variants) if (v, s) not in done]
    runs = Parallel(given.jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=given.jobs)(
        delayed(run)(variant, seed, given.zoo, given.graphs, given.params) for variant, seed in missing
    )
    for made in runs:
        rows += [{name: str(value) for name, value in row.items()} for row in made]
        write(given.output, rows)
        print(f"{made[0]['variant']}, seed {made[0]['seed']}: done", flush=True)
    for line in table(rows, given.variants, given.seeds):
        print(line)


def read(path: Path) -> list[dict[str, str]]:
    """The rows that are there."""
    return list(csv.DictReader(path.open())) if path.exists() else []


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """All rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[dict[str, str]], variants: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """What each variant adds, per speed-up, as Markdown: points before and after finetuning ± deviation over seeds."""
    found = {(r["variant"], int(r["seed"]), r["model"], float(r["speedup"])): r for r in rows}
    speedups = sorted({speedup for *_, speedup in found})
    models = sorted({model for _, _, model, _ in found})
    head = [f"{moment}, {speedup:g}×" for moment in ("before", "after") for speedup in speedups]
    lines = [f"| variant | {' | '.join(head)} |", "|---|" + "--:|" * len(head)]
    for variant in variants:
        cells = []
        for moment in ("before", "after"):
            for speedup in speedups:
                gains = []
                for seed in seeds:
                    pairs = [(found[v, seed, m, speedup] for v in (variant, "without")) for m in models]
                    values = [tuple(row[moment] for row in pair) for pair in pairs]
                    gains += [statistics.mean(float(a) - float(b) for a, b in values if a and b)]
                spread = f" ± {statistics.stdev(gains):.2f}" if len(gains) > 1 else ""
                cells.append(f"{statistics.mean(gains):+.2f}{spread}")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
