"""Public networks for denoising and super-resolution, pruned: repaired alone, and trained shortly.

    python benchmarks/restoration.py run MODEL --name dncnn --task denoising --data-root DIR [--minutes 9]
        [--arch package.module:factory] [--sigma 25] [--scale 4] [--std 0.00392157] [--test-set Set12 BSD68]
        [--speedups 1.5 2 3] [--epochs 0 4] [--arms uniform dhp]
    python benchmarks/restoration.py table -o docs/results/restoration/real-weights.md

``uniform``: channels are ranked by ``obd-c`` on training patches, every family loses the same share, what is left is
repaired by least squares, and then trained; ``weights``: the same, ranked by ``group-l2``. ``dhp``: all epochs with
generated weights, from the trained start. ``run`` goes on where the last call ended: after an epoch, or after a test
image. Figures are by the conventions of docs/restoration.md; the test images are read once, for a row of the results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from published_table import put_tables
from slices import PausedError, Slice, Work, train_in_slices
from torch import nn

from metaprune_cli.api.dhp import DHP
from metaprune_cli.api.prune import prune
from metaprune_cli.config import DataSettings, OptimSettings, Preprocessing, RestorationSettings
from metaprune_cli.data import Splits
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.models.load import open_model
from metaprune_cli.tasks import Task, measure
from metaprune_cli.workflows.task import task_of

RESULTS = Path("docs/results/restoration/real-weights.jsonl")
CPU = torch.device("cpu")
KNOWN = ("name", "arm", "speedup", "epochs", "test_set")
WHOLE, CRITERIA = "whole", {"uniform": "obd-c", "weights": "group-l2"}
LR = 1e-4


@dataclass(frozen=True, eq=False)
class Network:
    """A public network, its images, and where half-done work lies."""

    given: argparse.Namespace
    model: nn.Module
    task: Task
    data: DataSettings
    work: Work
    slice: Slice

    def small(self, arm: str, speedup: float, epochs: int) -> nn.Module:
        """What an arm leaves of it."""
        if arm == WHOLE:
            return self.model
        return self._by_dhp(speedup, epochs) if arm == "dhp" else self._uniform(arm, speedup, epochs)

    def _uniform(self, arm: str, speedup: float, epochs: int) -> nn.Module:
        """Pruned, repaired, trained."""
        found = prune(
            self.model,
            self.example,
            speedup=speedup,
            criterion=CRITERIA[arm],
            scope="family",
            data=self.data,
            task=self.task,
            repair="least-squares",
            repair_images=self.given.patches,
            batches=self.given.patches // self.data.batch_size,
        )
        return self._trained(found.model, arm, speedup, epochs) if epochs else found.model

    def _by_dhp(self, speedup: float, epochs: int) -> nn.Module:
        """Trained while channels go."""
        steps = len(self.splits.train) // self.data.batch_size * epochs
        made = DHP(self.model, self.example, speedup=speedup, steps=steps)

        def pull(model: nn.Module, lr: float) -> None:
            assert isinstance(model, DHP)
            model.shrink_(lr)

        trained = self._trained(made, "dhp", speedup, epochs, after_step=pull).cpu()
        assert isinstance(trained, DHP)
        return trained.finish()

    def _trained(self, model: nn.Module, arm: str, speedup: float, epochs: int, **more: Any) -> nn.Module:
        settings = OptimSettings(epochs=epochs, optimizer="adamw", lr=LR, weight_decay=0.0)
        rest: dict[str, Any] = {"batch_size": self.data.batch_size, "seed": 0, "device": CPU, "slice_": self.slice}
        name = f"{self.given.name}-{arm}-{speedup:g}x-{epochs}"
        rest |= {"task": self.task, "work": self.work, "name": name}
        return train_in_slices(model, self.splits.train, settings, **rest, **more)

    @cached_property
    def splits(self) -> Splits:
        """The patches."""
        return self.task.splits(self.data)

    @property
    def example(self) -> torch.Tensor:
        """One patch."""
        images: torch.Tensor = next(iter(self.splits.train.batches(1)))[0]
        return images

    def quality(self, model: nn.Module, name: str, test_set: str) -> dict[str, float]:
        """PSNR and SSIM, means over the images of a test set; an image is measured at a time.

        Raises:
            PausedError: the slice is over.
        """
        name = f"{name}-{test_set}"
        done: list[dict[str, float]] = self.work.found(name) or []
        for place, batch in enumerate(self.task.test(self.data)[test_set].batches(1)):
            if place < len(done):
                continue
            self.slice.check()
            done.append(dict(measure(model, [batch], CPU, self.task).values))
            self.work.keep(name, done)
        return {key: statistics.mean(one[key] for one in done) for key in done[0]} | {"images": len(done)}


def run(given: argparse.Namespace) -> None:
    """What is asked for and not there yet."""
    folder = Path(given.data_root)
    data = DataSettings(
        dataset="images",
        data_root=str(folder),
        image_size=given.patch,
        augment="crop-flip",
        batch_size=16,
        task=given.task,
        preprocessing=Preprocessing(mean=(0.0,), std=(given.std,)) if given.std else Preprocessing(),
        restoration=RestorationSettings(scale=given.scale, sigma=given.sigma, tests=tuple(given.test_set)),
    )
    model = open_model(given.model, arch=given.arch, arch_args=None).model
    network = Network(given, model, task_of(data), data, Work(given.work), Slice(given.minutes * 60))
    lines = given.results.read_text().splitlines() if given.results.exists() else []
    done = {tuple(row[key] for key in KNOWN) for row in map(json.loads, lines)}
    asked = itertools.product(given.epochs, given.speedups, given.arms)
    todo = [(arm, speedup, epochs) for epochs, speedup, arm in asked if epochs or arm != "dhp"]
    try:
        for arm, speedup, epochs in [(WHOLE, 1.0, 0), *todo]:
            left = [one for one in given.test_set if (given.name, arm, speedup, epochs, one) not in done]
            if left:
                network.slice.check()
                _measure(network, arm, speedup, epochs, left)
    except PausedError:
        print("the time is over; call again to go on")


def _measure(network: Network, arm: str, speedup: float, epochs: int, test_sets: list[str]) -> None:
    given, small = network.given, network.small(arm, speedup, epochs).eval()
    macs = count_macs(network.model, network.example) / count_macs(small, network.example)
    for test_set in test_sets:
        figures = network.quality(small, f"{given.name}-{arm}-{speedup:g}x-{epochs}", test_set)
        row = dict(zip(KNOWN, (given.name, arm, speedup, epochs, test_set), strict=True)) | figures | {"achieved": macs}
        given.results.parent.mkdir(parents=True, exist_ok=True)
        with given.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{given.name} {arm} {speedup:g}x, {epochs} epochs, {test_set}: {figures['psnr']:.2f} dB", flush=True)


def write_table(results: Path, output: Path) -> None:
    """A table for each test set into a page, between its marks."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    parts = []
    for test_set in sorted({row["test_set"] for row in rows}):
        here = [row for row in rows if row["test_set"] == test_set]
        whole = {row["name"]: row["psnr"] for row in here if row["arm"] == WHOLE}
        small: dict[tuple[str, int, str], dict[float, float]] = defaultdict(dict)
        for row in here:
            if row["arm"] != WHOLE:
                small[row["name"], row["epochs"], row["arm"]][row["speedup"]] = row["psnr"]
        speedups = sorted({speedup for at in small.values() for speedup in at})
        lines = [f"| {test_set}, dB | whole | " + " | ".join(f"{speedup:g}×" for speedup in speedups) + " |"]
        lines.append("|---|" + "--:|" * (len(speedups) + 1))
        for (name, epochs, arm), at in sorted(small.items(), key=lambda item: (item[0][:2], item[0][2] == "dhp")):
            how = f"{arm}, {epochs} epochs" if epochs else f"{arm}, repaired only"
            cells = [f"{at[speedup]:.2f}" if speedup in at else "—" for speedup in speedups]
            lines.append(f"| {name}, {how} | {whole[name]:.2f} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    put_tables("\n\n".join(parts), output)


def main() -> None:
    """Parse and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("model", type=Path)
    runs.add_argument("--name", required=True)
    runs.add_argument("--arch")
    runs.add_argument("--task", choices=("denoising", "super-resolution"), required=True)
    runs.add_argument("--data-root", required=True)
    runs.add_argument("--test-set", nargs="+", required=True)
    runs.add_argument("--sigma", type=float)
    runs.add_argument("--scale", type=int)
    runs.add_argument("--std", type=float, help="0.00392157 for networks that take pixels from 0 to 255")
    runs.add_argument("--patch", type=int, default=48, help="side of the patches that repair and train")
    runs.add_argument("--patches", type=int, default=64, help="that repair and rank")
    runs.add_argument("--speedups", nargs="+", type=float, default=[1.5, 2.0, 3.0])
    runs.add_argument("--arms", nargs="+", choices=(*CRITERIA, "dhp"), default=["uniform"])
    runs.add_argument("--epochs", nargs="+", type=int, default=[0], help="of 1024 patches each; 0: repaired only")
    runs.add_argument("--results", type=Path, default=RESULTS)
    runs.add_argument("--work", type=Path, default=Path("scratch/restoration"))
    runs.add_argument("--minutes", type=float, default=9)
    tables = commands.add_parser("table")
    tables.add_argument("--results", type=Path, default=RESULTS)
    tables.add_argument("--output", "-o", type=Path, default=RESULTS.with_suffix(".md"))
    given = parser.parse_args()
    if given.command == "run":
        run(given)
    else:
        write_table(given.results, given.output)


if __name__ == "__main__":
    main()
