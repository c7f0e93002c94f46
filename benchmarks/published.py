"""The public CIFAR-10 ResNets, pruned by every arm: before training and after, with one file of results.

    python benchmarks/published.py run --data-root DIR --checkpoints DIR [--minutes 9] [--networks resnet20 …]
        [--arms plain uniform …] [--speedups 2.5 …] [--stages bn ls 3 …] [--seeds 0 …] [--device cuda] [--jobs 8]
    python benchmarks/published.py table -o docs/results/published

A *cell* is a network, an arm, a speed-up, a stage and a seed; what is in the file of results is not measured again.
``run`` works through the cells that are asked for until its minutes are over and leaves what is half done (an epoch, a
round of a search) in the work folder, so that the next call goes on. ``--jobs`` shares the cells out among processes,
for a GPU, on which images stay and batches are cut.

Stages: ``bn`` (BatchNorm measured anew on training images), ``ls`` (repaired by least squares, which measures
BatchNorm too), a number (so many epochs after that; arms that train to choose have spent theirs on it). A tenth of the
training images is kept for validation and is never trained on here; the public networks have seen them. The test
images are read once for each cell, at its end, and decide nothing. The channels of the residual stages stay, for every
arm.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from published_arms import ARMS, REPAIRED, TRAINED, chosen
from published_bench import Bench, Protocol, add_options
from published_table import write_tables
from slices import Rows, Slice, Work
from torch import nn

from metaprune_cli.config import OptimSettings, Repair
from metaprune_cli.metrics.macs import count_macs, count_params

NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56")
RESULTS = Path("docs/results/published/results.jsonl")
WHOLE = "whole"
OTHERS = ("tp-group-norm", "tp-taylor")
"""Arms of a tool that repairs nothing: they go into training as they are."""


SHIPPED, TAUGHT = ("builtin", "builtin-images"), ("resnet20", "resnet32", "resnet44")
"""The metanetworks of the package, and the networks that they have learnt from: there they are not measured."""


@dataclass(frozen=True)
class Cell:
    """One figure to be measured; ``stage`` is ``bn``, ``ls`` or a number of epochs."""

    network: str
    arm: str
    speedup: float
    stage: str
    seed: int

    @property
    def epochs(self) -> int:
        """Of training."""
        return int(self.stage) if self.stage.isdigit() else 0

    @property
    def exists(self) -> bool:
        """Whether it means anything; what is not drawn has one seed."""
        if self.arm in SHIPPED and self.network in TAUGHT:
            return False
        if self.epochs:
            return True
        apart = self.arm in REPAIRED if self.stage == "bn" else self.arm in OTHERS
        return self.seed == 0 and self.arm not in TRAINED and not apart

    @property
    def group(self) -> tuple[str, str, float]:
        """Cells of one process: what they share is made once."""
        return self.network, self.arm, 0.0 if self.arm in ("pruningnet", "sparse") else self.speedup


def cells(given: argparse.Namespace) -> list[Cell]:
    """All that are asked for, those that are compared with each other together."""
    wholes = [Cell(name, WHOLE, 1.0, WHOLE, 0) for name in given.networks]
    asked = itertools.product(given.stages, given.networks, given.speedups, given.seeds, given.arms)
    rest = (Cell(network, arm, speedup, stage, seed) for stage, network, speedup, seed, arm in asked)
    return wholes + [cell for cell in rest if cell.exists]


def measured(cell: Cell, bench: Bench) -> dict[str, Any]:
    """The figures of a cell.

    Raises:
        PausedError: the slice is over before they are there.
    """
    begun = time.monotonic()
    small, note = _small(cell, bench)
    seconds = time.monotonic() - begun
    small = small.to(bench.device).eval()
    val = bench.score(small, bench.splits.val) if cell.epochs else {}  # the others have nothing to be decided
    test = bench.score(small, bench.read_test())
    small = small.cpu()
    macs = count_macs(small, bench.example)
    return {
        **{f"val_{name}": value for name, value in val.items()},
        **{f"test_{name}": value for name, value in test.items()},
        "macs": macs,
        "params": count_params(small),
        "achieved": count_macs(bench.model, bench.example) / macs,
        "widths": {name: len(m.weight) for name, m in small.named_modules() if isinstance(m, nn.Conv2d)},
        "seconds_of_last_slice": round(seconds, 1),
        **note,
    }


def _small(cell: Cell, bench: Bench) -> tuple[nn.Module, dict[str, Any]]:
    """What is left of the network, trained as long as the cell says."""
    if cell.arm == WHOLE:
        return bench.model, {}
    left = cell.epochs
    if cell.arm in TRAINED:
        choice = TRAINED[cell.arm](bench, cell.speedup, cell.epochs, cell.seed)
        left = cell.epochs - cell.epochs // 2
    else:
        choice = chosen(bench, cell.arm, cell.speedup)
    if "model" in choice:
        return choice["model"], choice.get("note", {})
    how: Repair = "least-squares"
    if cell.stage == "bn" or cell.arm in OTHERS:
        how = "none" if cell.epochs else "bn"
    small = bench.left(choice["kept"], choice["state"], how)
    if left:
        settings = OptimSettings(epochs=left, lr=bench.protocol.lr)
        name = f"{cell.network}-{cell.arm}-{cell.speedup:g}x-{cell.stage}-{cell.seed}"
        small = bench.train(small, settings, name, cell.seed)
    return small, choice.get("note", {})


def work_through(given: argparse.Namespace) -> None:
    """The cells of this process, until they are done or the time is over."""
    slice_, benches = Slice(given.minutes * 60), dict[str, Bench]()

    def figures(cell: Cell) -> dict[str, Any]:
        if cell.network not in benches:
            benches[cell.network] = _bench(cell.network, given, slice_)
        bench = benches[cell.network]
        return {**measured(cell, bench), "device": given.device, "protocol": asdict(bench.protocol)}

    mine = list(_share(cells(given), *map(int, given.part.split("/"))))
    Rows(given.results, Cell).measure(mine, figures, slice_)


def _share(all_cells: Sequence[Cell], number: int, of: int) -> Iterator[Cell]:
    groups = {group: place for place, group in enumerate(dict.fromkeys(cell.group for cell in all_cells))}
    return (cell for cell in all_cells if groups[cell.group] % of == number)


def _bench(network: str, given: argparse.Namespace, slice_: Slice) -> Bench:
    """A network and its images."""
    protocol = Protocol()
    changed = {name: getattr(given, name) for name in asdict(protocol) if getattr(given, name) is not None}
    device = torch.device(given.device)
    rest: dict[str, Any] = {"work": Work(given.work), "protocol": replace(protocol, **changed), "slice": slice_}
    return Bench.of(network, given.checkpoints, given.data_root, device, train_limit=given.train_limit, **rest)


def run(given: argparse.Namespace) -> None:
    """In this process, or shared out among several."""
    if given.jobs == 1:
        work_through(given)
        return
    line = [sys.executable, *sys.argv, "--jobs", "1"]
    parts = [subprocess.Popen([*line, "--part", f"{number}/{given.jobs}"]) for number in range(given.jobs)]
    codes = [part.wait() for part in parts]
    if any(codes):
        sys.exit("a process failed; what it had measured is kept")


def main() -> None:
    """Parse and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    add_options(runs)
    runs.add_argument("--results", type=Path, default=RESULTS)
    runs.add_argument("--networks", nargs="+", default=list(NETWORKS))
    runs.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    runs.add_argument("--speedups", nargs="+", type=float, default=[2.0, 2.5, 3.0, 4.0])
    runs.add_argument("--stages", nargs="+", default=["bn", "ls", "3", "20"])
    runs.add_argument("--seeds", nargs="+", type=int, default=[0])
    runs.add_argument("--jobs", type=int, default=1)
    runs.add_argument("--part", default="0/1", help="K/N: the cells of process K of N")
    for name, value in asdict(Protocol()).items():
        runs.add_argument(f"--{name.replace('_', '-')}", type=type(value), help=f"{value} unless said otherwise")
    tables = commands.add_parser("table")
    tables.add_argument("--results", type=Path, default=RESULTS)
    tables.add_argument("--output", "-o", type=Path, default=RESULTS.parent)
    given = parser.parse_args()
    if given.command == "run":
        run(given)
    else:
        everything = cells(parser.parse_args(["run", "--data-root", ".", "--checkpoints", "."]))
        planned = Counter((cell.network, cell.stage) for cell in everything if cell.arm != WHOLE)
        write_tables(given.results, given.output, planned)


if __name__ == "__main__":
    main()
