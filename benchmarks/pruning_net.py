"""What the generator of a PruningNet is worth: every form, begun from trained weights and from scratch.

    python benchmarks/pruning_net.py MODEL [--epochs 20] [--seeds 1] [--candidates 12] [--dataset digits]

MODEL is a trained model of ours, such as `metaprune zoo` writes. For each form, start and seed a PruningNet is trained;
random widths at 2x and 4x then get its weights, BatchNorm statistics are measured anew, and nothing is trained further:
the table has their mean loss and the mean and the best of the task's metric on the validation images, by seed. `shared`
is the control: one set of weights, cropped. Last, the time of a training step at widths of 4x over one of all widths.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import torch

import metaprune_cli as mp
from metaprune_cli.config import DataSettings, PruningNetSettings
from metaprune_cli.methods.pruning_net.network import PruningNet
from metaprune_cli.tasks import Score, Task, measure
from metaprune_cli.training.loop import recalibrate_
from metaprune_cli.workflows.anew import with_new_weights
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.task import task_of

FORMS, STARTS, SPEEDUPS = ("full", "factored", "shared"), ("trained", "scratch"), (2.0, 4.0)
BATCHES, ROUNDS = 8, 9


def main() -> None:
    """Train all of them and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--dataset", default="digits")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = DataSettings(dataset=given.dataset)
    opened, task = open_model(given.model, ModelSource()), task_of(data)
    titles = [f"{speedup:g}x loss | mean | best" for speedup in SPEEDUPS]
    print("| generator | start | seed |", " | ".join(titles), "| step at 4x / whole |")
    print("|---|---|--:|", "--:|" * (3 * len(SPEEDUPS) + 1), sep="")
    for form, start, seed in itertools.product(FORMS, STARTS, range(given.seeds)):
        settings = PruningNetSettings(start=start, generator=form, epochs=given.epochs, seed=seed)  # type: ignore[arg-type]
        model = opened.model if start == "trained" else with_new_weights(opened, seed).model
        net = mp.train_pruning_net(model, data, settings=settings)
        found = [judged(net, speedup, given.candidates, data, task) for speedup in SPEEDUPS]
        cells = [cell for scores in found for cell in cells_of(scores)]
        print(
            "|",
            form,
            "|",
            start,
            "|",
            seed,
            "|",
            " | ".join(cells),
            f"| {step_ratio(net, opened, data):.2f} |",
            flush=True,
        )


def cells_of(scores: list[Score]) -> list[str]:
    """Mean loss, mean headline, best headline."""
    headlines = [score.headline for score in scores]
    losses = statistics.fmean(score.loss for score in scores)
    return [f"{losses:.3f}", f"{statistics.fmean(headlines):.1f}", f"{max(headlines):.1f}"]


def judged(net: PruningNet, speedup: float, candidates: int, data: DataSettings, task: Task) -> list[Score]:
    """Random widths of one speed-up, the same for all forms."""
    splits, cost, space = task.splits(data), net.sampler.cost.macs, net.space
    generator, most = torch.Generator().manual_seed(0), cost(space.kept(space.whole())) / speedup
    scores = []
    for _ in range(candidates):
        small = net.network(space.within(generator, cost, 0.97 * most, most))
        recalibrate_(small, splits.train, BATCHES, batch_size=data.batch_size, augment=False)
        scores.append(measure(small, splits.val.batches(data.batch_size), torch.device("cpu"), task))
    return scores


def step_ratio(net: PruningNet, opened: Opened, data: DataSettings) -> float:
    """The median time of forward and backward at one choice of widths of 4x, over that at all; they take turns."""
    cost, space, generator = net.sampler.cost.macs, net.space, torch.Generator().manual_seed(0)
    most = cost(space.kept(space.whole())) / 4
    choices = {"small": space.within(generator, cost, 0.9 * most, most), "whole": space.whole()}
    batch = torch.randn(data.batch_size, *(opened.architecture.input_shape or ()))
    times: dict[str, list[float]] = {name: [] for name in choices}
    net.train()
    for _, (name, genes) in itertools.product(range(ROUNDS), choices.items()):
        start = time.process_time()
        net.at(space.kept(genes))(batch).square().mean().backward()
        times[name].append(time.process_time() - start)
        net.zero_grad()
    net.eval()
    return statistics.median(times["small"]) / statistics.median(times["whole"])


if __name__ == "__main__":
    main()
