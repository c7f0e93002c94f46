"""How a pruned and repaired network is best trained: a public CIFAR-10 ResNet, recipes beside each other.

    python benchmarks/recipes.py run --data-root DIR --checkpoints DIR [--networks resnet20] [--speedups 3]
        [--recipes usual teacher …] [--epochs 10] [--seeds 0 …] [--minutes 9] [--precision bfloat16]
    python benchmarks/recipes.py table

All start from the same network: what sensitivities leave of the public one, repaired by least squares. Recipes differ
from ``usual`` in what their names say; ``teacher`` is the network before it was pruned. Like ``published.py``, ``run``
leaves what is half done in the work folder, and measures nothing twice. The validation images are kept out of the
training here, but the public network has learnt them; the test images are read at its end, and decide nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from published_arms import chosen
from published_bench import Bench, Protocol, add_options
from slices import Rows, Slice, Work

from metaprune_cli.config import OptimSettings
from metaprune_cli.metrics.macs import count_macs

RESULTS = Path("docs/results/published/recipes.jsonl")
ARM = "sensitivity"
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "usual": {},
    **{f"lr {lr:g}": {"lr": lr} for lr in (0.005, 0.01, 0.05, 0.1)},
    "multistep": {"schedule": "multistep"},
    "warm-up": {"warmup_epochs": 1},
    "decay 1e-4": {"weight_decay": 1e-4},
    "smoothing 0.1": {"label_smoothing": 0.1},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1": {"cutmix": 1.0},
    "ema 0.999": {"ema": 0.999},
    "teacher": {"distill_weight": 0.5},
    "teacher 0.9": {"distill_weight": 0.9},
    "teacher, lr 0.05": {"distill_weight": 0.5, "lr": 0.05},
    "teacher 0.9, mixup 0.2": {"distill_weight": 0.9, "mixup": 0.2},
    "teacher 0.9, cutmix 1": {"distill_weight": 0.9, "cutmix": 1.0},
    "teacher 0.9, temperature 2": {"distill_weight": 0.9, "distill_temperature": 2.0},
    **{f"teacher 0.9, lr {lr:g}": {"distill_weight": 0.9, "lr": lr} for lr in (0.005, 0.01, 0.05, 0.1)},
    "teacher 0.9, lr 0.05, decay 1e-4": {"distill_weight": 0.9, "lr": 0.05, "weight_decay": 1e-4},
    "teacher 0.9, lr 0.05, mixup 0.2": {"distill_weight": 0.9, "lr": 0.05, "mixup": 0.2},
}


@dataclass(frozen=True)
class Line:
    """One training to be measured."""

    network: str
    speedup: float
    recipe: str
    epochs: int
    seed: int


def measured(line: Line, bench: Bench) -> dict[str, Any]:
    """Its figures.

    Raises:
        PausedError: the slice is over before they are there.
    """
    choice = chosen(bench, ARM, line.speedup)
    name = f"{line.network}-{ARM}-{line.speedup:g}x"
    small = bench.left(choice["kept"], choice["state"], "least-squares")
    changes = dict(RECIPES[line.recipe])
    if changes.get("schedule") == "multistep":
        changes["milestones"] = tuple(int(line.epochs * share) for share in (0.6, 0.85))
    settings = replace(OptimSettings(epochs=line.epochs, lr=bench.protocol.lr), **changes)
    more = {"teacher": bench.model} if "distill_weight" in changes else {}
    at = f"{name}-{line.recipe.replace(', ', '-').replace(' ', '-')}-{line.epochs}-{line.seed}"
    trained = bench.train(small, settings, at, line.seed, **more)
    start = bench.work.remembered(f"{name}-start", lambda: _scores(bench, small))
    macs = count_macs(bench.model, bench.example) / count_macs(trained.cpu(), bench.example)
    return {**_scores(bench, trained), "before": start, "achieved": macs, "settings": asdict(settings)}


def _scores(bench: Bench, model: torch.nn.Module) -> dict[str, float]:
    splits = {"val": bench.splits.val, "test": bench.read_test()}
    scores = {name: bench.score(model, split) for name, split in splits.items()}
    return {f"{name}_{what}": value for name, found in scores.items() for what, value in found.items()}


def run(given: argparse.Namespace) -> None:
    """All lines that are not there, until the time is over."""
    slice_, benches = Slice(given.minutes * 60), dict[str, Bench]()
    protocol = replace(Protocol(), precision=given.precision)
    rest: dict[str, Any] = {"work": Work(given.work), "protocol": protocol, "slice": slice_}
    rest["train_limit"] = given.train_limit

    def figures(line: Line) -> dict[str, Any]:
        if line.network not in benches:
            device = torch.device(given.device)
            benches[line.network] = Bench.of(line.network, given.checkpoints, given.data_root, device, **rest)
        found = measured(line, benches[line.network])
        return {**found, "device": given.device, "protocol": asdict(protocol)}

    asked = itertools.product(given.networks, given.speedups, given.epochs, given.seeds, given.recipes)
    lines = [Line(network, speedup, recipe, epochs, seed) for network, speedup, epochs, seed, recipe in asked]
    Rows(given.results, Line).measure(lines, figures, slice_)


def table(given: argparse.Namespace) -> None:
    """Rows of recipes, each with the mean over its seeds, best first on validation images."""
    groups: dict[tuple[str, float, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in map(json.loads, given.results.read_text().splitlines()):
        groups[row["network"], row["speedup"], row["epochs"]][row["recipe"]].append(row)
    for (network, speedup, epochs), recipes in sorted(groups.items()):
        before = next(iter(recipes.values()))[0]["before"]
        print(f"\n{network}, {speedup:g}x, {epochs} epochs; not trained: test top-1 {before['test_top1']:.2f}\n")
        print("| recipe | seeds | validation top-1 | loss | test top-1 | loss |\n|---|--:|--:|--:|--:|--:|")
        names = ("val_top1", "val_loss", "test_top1", "test_loss")
        means = {recipe: [mean(row[name] for row in rows) for name in names] for recipe, rows in recipes.items()}
        for recipe in sorted(means, key=lambda one: -means[one][0]):
            top, loss, test, test_loss = means[recipe]
            print(f"| {recipe} | {len(recipes[recipe])} | {top:.2f} | {loss:.3f} | {test:.2f} | {test_loss:.3f} |")


def main() -> None:
    """Parse and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.set_defaults(call=run)
    add_options(runs)
    runs.add_argument("--networks", nargs="+", default=["resnet20"])
    runs.add_argument("--speedups", nargs="+", type=float, default=[3.0])
    runs.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    runs.add_argument("--epochs", nargs="+", type=int, default=[10])
    runs.add_argument("--seeds", nargs="+", type=int, default=[0])
    runs.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    tables = commands.add_parser("table")
    tables.set_defaults(call=table)
    for sub in (runs, tables):
        sub.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.call(given)


if __name__ == "__main__":
    main()
