"""Weights rewritten as arXiv 2506.12041 does it, and choosing alone, at equal epochs: a public CIFAR-10 ResNet.

    python benchmarks/schedule.py run --data-root DIR --checkpoints DIR [--network resnet20] [--speedup 3] [--epochs 10]
        [--regs 0.1 0.5 …] [--removals plain sensitivity …] [--seeds 0 …] [--minutes 9] [--precision bfloat16]
    python benchmarks/schedule.py table

The paper's order: a metanetwork is trained on networks of the same kind by its objective ``sparsity`` (one step for
each network and epoch, over ``BATCHES`` batches); it rewrites the network, which is trained for half of the epochs,
pruned, and trained for the other half. Its zoo is made from the public network itself: pruned to 1.32x by ``KINDS``,
repaired, trained for an epoch each. Beside it the same without a metanetwork. Both are pruned as the paper does
(``plain``: all units ranked by their norms, nothing repaired), the same repaired by least squares, and by
sensitivities, repaired. ``at once`` prunes the public network by sensitivities and has all epochs afterwards.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from published_arms import by_sensitivity, ranked
from published_bench import Bench, Protocol, add_options
from slices import Rows, Slice, Work
from torch import Tensor, nn

from metaprune_cli.config import MetaTrainSettings, OptimSettings, Repair, TransformSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, rewritten
from metaprune_cli.methods.metanet.learning.meta import ZooEntry, meta_train
from metaprune_cli.tasks import Classification
from metaprune_cli.training.loop import recalibrate_
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.seeds import seed_everything

RESULTS = Path("docs/results/published/schedule.jsonl")
KINDS = ({"scope": "global"}, {"scope": "family"}, {"criterion": "random"})
MEMBER_SPEEDUP, BATCHES, JUDGING = 1.32, 16, 1024
REMOVALS: Mapping[str, Repair] = {"plain": "bn", "plain+ls": "least-squares", "sensitivity": "least-squares"}
NONE, AT_ONCE = "none", "at once"


@dataclass(frozen=True)
class Line:
    """One training; ``rewritten`` says by what: a weight of the paper's penalty, ``none`` or ``at once``."""

    network: str
    speedup: float
    rewritten: str
    removal: str
    epochs: int
    seed: int


def member(bench: Bench, number: int, seed: int) -> ZooEntry:
    """A network of the zoo."""
    name = f"{bench.name}-member-{number}-{seed}"

    def weights() -> dict[str, Any]:
        choice = ranked(bench, MEMBER_SPEEDUP, **KINDS[number])
        small = bench.left(choice["kept"], None, "least-squares").cpu()
        small = bench.train(small, OptimSettings(epochs=1, lr=0.01), f"{name}-learning", seed)
        return {"kept": choice["kept"], "state": dict(small.cpu().state_dict())}

    found = bench.work.remembered(name, weights)
    small = bench.left(found["kept"], None, "none").cpu()
    small.load_state_dict(found["state"])
    return ZooEntry(name, small.eval(), replace(bench, name=name, model=small.eval()).graph)


def metanetwork(bench: Bench, reg: float, epochs: int, seed: int) -> MetaNetwork:
    """What has learnt on the zoo by the paper's objective; its best epoch by the validation images."""
    network = MetaNetwork(MetaNetworkConfig(layers=8, hidden=64, ratio=0.01))
    assert isinstance(bench.splits.val, ImageSplit)

    def learnt() -> dict[str, Any]:
        zoo = [member(bench, number, seed) for number in range(len(KINDS))]
        seed_everything(seed)
        settings = MetaTrainSettings(
            objective="sparsity",
            criterion="group-l2",
            reg=reg,
            epochs=epochs,
            lr=1e-3,
            schedule="multistep",
            milestones=(3,),
            batches=BATCHES,
            speedup_max=4.0,
            validate_every=10,
            precision=bench.protocol.precision,
            seed=seed,
        )
        val = replace(bench.splits.val, index=bench.splits.val.index[:JUDGING])
        common: dict[str, Any] = {"task": Classification(), "device": bench.device, "progress": Silence()}
        found = meta_train(network, zoo, zoo, bench.splits.train, val, settings, augment=True, **common)
        print(f"reg {reg:g}: epoch {found.best_epoch}", *found.history[:: max(epochs // 6, 1)], sep="\n", flush=True)
        return found.metanet_state

    network.load_state_dict(bench.work.remembered(f"{bench.name}-metanet-{reg:g}-{epochs}-{seed}", learnt))
    return network.eval()


def ready(line: Line, bench: Bench, given: argparse.Namespace) -> dict[str, Tensor]:
    """The weights that are pruned: rewritten or not, and trained for half of the epochs."""
    name = f"{line.network}-ready-{line.rewritten}-{line.epochs}-{line.seed}"

    def trained() -> dict[str, Tensor]:
        model = bench.model
        if line.rewritten != NONE:
            graph = bench.graph.with_tensors(bench.model.state_dict())
            network = metanetwork(bench, float(line.rewritten), given.meta_epochs, line.seed)
            model = bench.run(bench.pruning(), rewritten(graph, network).tensors).model
            recalibrate_(
                model,
                bench.splits.train,
                TransformSettings.batches,
                batch_size=bench.protocol.batch_size,
                augment=True,
            )
            print(f"{name}: {bench.score(model, bench.splits.val)}", flush=True)
        settings = OptimSettings(epochs=line.epochs // 2, lr=bench.protocol.lr)
        return dict(bench.train(model, settings, f"{name}-learning", line.seed).cpu().state_dict())

    return bench.work.remembered(name, trained)


def measured(line: Line, bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a line.

    Raises:
        PausedError: the slice is over before they are there.
    """
    state = None if line.rewritten == AT_ONCE else ready(line, bench, given)
    start = bench if state is None else replace(bench, model=_with(bench.model, state))
    if state is not None:
        start = replace(start, name=f"{line.network}-{line.rewritten}-{line.epochs}-{line.seed}")
    removal = line.removal
    choice = by_sensitivity(start, line.speedup) if removal == "sensitivity" else ranked(start, line.speedup)
    small = start.left(choice["kept"], None, REMOVALS[removal])
    before = bench.score(small, bench.splits.val)
    epochs = line.epochs if state is None else line.epochs - line.epochs // 2
    at = f"{start.name}-{removal}-{line.speedup:g}x-end"
    small = bench.train(small.cpu(), OptimSettings(epochs=epochs, lr=bench.protocol.lr), at, line.seed)
    val, test = bench.score(small, bench.splits.val), bench.score(small, bench.read_test())
    return {"before_val_top1": before["top1"], "val_top1": val["top1"], "test_top1": test["top1"]}


def _with(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    return model.eval()


def run(given: argparse.Namespace) -> None:
    """All lines that are not there, until the time is over."""
    slice_, protocol = Slice(given.minutes * 60), replace(Protocol(), precision=given.precision)
    rest: dict[str, Any] = {"work": Work(given.work), "protocol": protocol, "slice": slice_}
    device, limit = torch.device(given.device), given.train_limit
    bench = Bench.of(given.network, given.checkpoints, given.data_root, device, train_limit=limit, **rest)
    lines = [
        Line(given.network, given.speedup, how, removal, given.epochs, seed)
        for seed in given.seeds
        for how in (*map(str, given.regs), NONE, AT_ONCE)
        for removal in (given.removals if how != AT_ONCE else ("sensitivity",))
    ]

    def figures(line: Line) -> dict[str, Any]:
        return {**measured(line, bench, given), "device": given.device, "protocol": asdict(protocol)}

    Rows(given.results, Line).measure(lines, figures, slice_)


def table(given: argparse.Namespace) -> None:
    """A row for each line."""
    rows = [json.loads(row) for row in given.results.read_text().splitlines()]
    print("| rewritten by | removal | not trained further, validation | in the end, validation | test |")
    print("|---|---|--:|--:|--:|")
    for row in sorted(rows, key=lambda one: -one["val_top1"]):
        figures = " | ".join(f"{row[name]:.2f}" for name in ("before_val_top1", "val_top1", "test_top1"))
        print(f"| {row['rewritten']} | {row['removal']} | {figures} |")


def main() -> None:
    """Parse and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.set_defaults(call=run)
    add_options(runs)
    runs.add_argument("--network", default="resnet20")
    runs.add_argument("--speedup", type=float, default=3.0)
    runs.add_argument("--epochs", type=int, default=10)
    runs.add_argument("--meta-epochs", type=int, default=60)
    runs.add_argument("--regs", nargs="+", type=float, default=[0.5])
    runs.add_argument("--removals", nargs="+", choices=list(REMOVALS), default=list(REMOVALS))
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
