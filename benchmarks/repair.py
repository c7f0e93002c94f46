"""What repairing without training is worth: each repair, before finetuning and after, with a metanetwork and without.

    metaprune zoo -o zoo      # or any folder of unpruned models
    python benchmarks/repair.py zoo/heldout [--arm NAME=FOLDER …] [--speedup 2 3 4 6] [--epochs 0 5] -o repair.csv

Every model is pruned to every speed-up by two arms, ``plain`` (global) and ``uniform`` (the same share of every layer),
and by one more for each ``--arm``: a folder of the same models after ``metaprune transform``. What is left is repaired
(``bn`` is BatchNorm measured anew, which anyone would do) on the training images of params.yaml, finetuned as it says,
and measured on the validation images: the test images are not read. Printed: mean top-1 over the models and its
standard error, and the mean gain over ``plain`` with the same repair, paired by model.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from metaprune_cli.config import DataSettings, OptimSettings, PruneSettings, Repair
from metaprune_cli.config_loader import load_section
from metaprune_cli.data import Splits
from metaprune_cli.pruning import apply_plan, make_plan
from metaprune_cli.pruning.repair import repaired
from metaprune_cli.tasks import Classification, measure
from metaprune_cli.training.loop import fit
from metaprune_cli.training.progress import Silence
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.loading import ModelSource, open_model
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.samples import Samples

CPU = torch.device("cpu")
REPAIRS: tuple[Repair, ...] = ("bn", "bias", "least-squares")
Row = dict[str, str | float]


def measured(model: nn.Module, splits: Splits, data: DataSettings, settings: OptimSettings, epochs: int) -> float:
    """Top-1 on the validation images after so many epochs."""
    if epochs:
        settings = replace(settings, epochs=epochs)
        trained = fit(
            model,
            splits.train,
            settings,
            task=Classification(),
            batch_size=data.batch_size,
            augment=data.augment != "none",
            seed=0,
            device=CPU,
            progress=Silence(),
        )
        model = trained.model
    return measure(model, splits.val.batches(data.batch_size), CPU, Classification()).headline


def used(path: Path, arm: str, given: argparse.Namespace) -> Iterator[Row]:
    """One model by one arm: every speed-up, repair and number of epochs."""
    data = load_section(given.params, "data", DataSettings)
    finetune = load_section(given.params, "finetune", OptimSettings)
    pruning = replace(load_section(given.params, "prune", PruneSettings), repair="least-squares")
    calibration = Calibration(Samples.of(data), pruning, CPU)
    splits = calibration.splits
    opened = open_model(path, ModelSource()).of_shape(splits.input_shape[1:])
    graph, example = opened.neuron_graph(), opened.example()
    run = PruningRun.of(opened, graph, pruning, calibration)
    for speedup in given.speedup:
        scope = "family" if arm == "uniform" else "global"
        plan = make_plan(graph, run.scores(speedup), speedup, scope=scope, max_ratio=pruning.max_ratio)
        small = apply_plan(opened.model, graph, plan, example)
        for how in given.repairs:
            better, _ = repaired(small, opened.model, graph, plan.kept, calibration.inputs, how)
            for epochs in given.epochs:
                top1 = measured(better, splits, data, finetune, epochs)
                yield {
                    "arm": arm,
                    "model": path.name.partition(".")[0],
                    "speedup": speedup,
                    "achieved": plan.speedup,
                    "repair": how,
                    "epochs": epochs,
                    "top1": top1,
                }


def table(rows: Sequence[Row], given: argparse.Namespace, arms: Sequence[str]) -> Iterator[str]:
    """Markdown: one line for each repair, number of epochs and speed-up."""
    found = {(r["arm"], r["model"], r["speedup"], r["repair"], r["epochs"]): float(r["top1"]) for r in rows}
    models = sorted({str(row["model"]) for row in rows})
    yield "| epochs | speed-up | repair | " + " | ".join(arms) + " |"
    yield "|--:|--:|---|" + "--:|" * len(arms)
    for epochs, speedup, how in itertools.product(given.epochs, given.speedup, given.repairs):
        cells = []
        for arm in arms:
            values = [found[arm, model, speedup, how, epochs] for model in models]
            gains = [value - found["plain", m, speedup, how, epochs] for value, m in zip(values, models, strict=True)]
            over = "" if arm == "plain" else f" ({statistics.fmean(gains):+.2f} ± {error(gains):.2f})"
            cells.append(f"{statistics.fmean(values):.2f} ± {error(values):.2f}{over}")
        yield f"| {epochs} | {speedup:g}× | {how} | " + " | ".join(cells) + " |"


def error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def main() -> None:
    """Parse, run, write every figure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--arm", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--speedup", nargs="+", type=float, default=[2.0, 3.0, 4.0, 6.0])
    parser.add_argument("--epochs", nargs="+", type=int, default=[0, 5])
    parser.add_argument("--repairs", nargs="+", choices=REPAIRS, default=list(REPAIRS))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", "-o", type=Path, default=Path("repair.csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    folders = {"plain": given.models, "uniform": given.models}
    folders |= {name: Path(folder) for name, _, folder in (text.partition("=") for text in given.arm)}
    rows: list[Row] = []
    for arm, folder in folders.items():
        for path in sorted(folder.glob("*.safetensors")):
            rows += used(path, arm, given)
            print(f"{arm} {path.name}: done", flush=True)
            with given.output.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    for line in table(rows, given, list(folders)):
        print(line)


if __name__ == "__main__":
    main()
