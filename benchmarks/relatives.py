"""A zoo of the public CIFAR-10 ResNets and their relatives, and metanetworks that learn from its sensitivities.

    python benchmarks/relatives.py make --data-root DIR --checkpoints DIR --work DIR      # about an hour on one core
        [--members 'resnet*' …] [--varied] [--unruled] [--precision bfloat16]
    python benchmarks/relatives.py learn --data-root DIR --checkpoints DIR --work DIR
        [-o loo/without-{network}.safetensors] [--alone] [--blind] [--epochs 150] [--seed 0]
    python benchmarks/published.py run … --arms metanet --metanet 'loo/without-{network}.safetensors'

``make`` trains the relatives (blocks left out; pruned to random widths and repaired; another seed and weight decay) for
an epoch or two and measures what each layer of every member can lose. ``learn`` trains one metanetwork for each public
network, without it and what was made of it; ResNet-56 is never learnt from. ``--alone`` leaves the relatives out,
``--blind`` what images show of units (``encode --observe``).

``--varied`` adds the small networks of ``varied.py``, ``--unruled`` lets the channels go that residual additions join,
and ``learn --networks none`` leaves nothing out. The metanetworks that come with the package were made so, in about an
hour and a half on two cores:

    … make --varied --unruled --precision bfloat16 --members 'resnet??' '*-9??' …
    … learn --varied --unruled --alone --blind --networks none -o builtin.safetensors …
    … learn --varied --unruled --alone --seed 1 --networks none -o builtin-images.safetensors …
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import varied
from published_bench import STAGES, Bench, Protocol, cifar
from slices import Slice, Work
from torch import nn
from varied import VARIED

from metaprune_cli.artifacts import provenance
from metaprune_cli.config import MetaTrainSettings, OptimSettings
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning.meta import ZooEntry, meta_train
from metaprune_cli.methods.metanet.learning.shares import examples_of, movable_families
from metaprune_cli.pruning.observing import EVIDENCE
from metaprune_cli.pruning.targets import Target
from metaprune_cli.tasks import Classification
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.seeds import seed_everything
from metaprune_cli.workflows.observing import USUAL, Observer
from metaprune_cli.workflows.planning import prune_to
from metaprune_cli.workflows.sensitivities import measured

SPEEDUPS = (1.5, 2.0, 2.5, 3.0, 4.0)
TAUGHT = ("resnet20", "resnet32", "resnet44")
NETWORKS = (*TAUGHT, "resnet56")
REPAIR_IMAGES, RANKED_AT = 512, 3.0


@dataclass(frozen=True)
class Relative:
    """What is made of a public network: ``shallower`` by so many blocks a stage, ``narrower``, or trained ``on``."""

    of: str
    kind: str
    epochs: int
    seed: int
    blocks: int = 0

    @property
    def training(self) -> OptimSettings:
        """How."""
        on = self.kind == "on"
        return OptimSettings(epochs=self.epochs, lr=0.05 if on else 0.02, weight_decay=1e-3 if on else 5e-4)


RELATIVES = {
    "resnet14-a": Relative("resnet20", "shallower", 2, 1, blocks=1),
    "resnet20-a": Relative("resnet20", "narrower", 1, 1),
    "resnet20-b": Relative("resnet20", "on", 1, 3),
    "resnet26-a": Relative("resnet32", "shallower", 2, 1, blocks=1),
    "resnet32-a": Relative("resnet32", "narrower", 1, 2),
    "resnet32-b": Relative("resnet44", "shallower", 2, 4, blocks=2),
    "resnet44-a": Relative("resnet44", "narrower", 1, 5),
}


def shallower(model: nn.Module, blocks: int, seed: int) -> nn.Module:
    """The network without some blocks of every stage, the same of each and never the first."""
    model = copy.deepcopy(model)
    for name in ("layer1", "layer2", "layer3"):
        own, generator = list(model.get_submodule(name).children()), torch.Generator().manual_seed(seed)
        gone = set((1 + torch.randperm(len(own) - 1, generator=generator)[:blocks]).tolist())
        setattr(model, name, nn.Sequential(*(block for place, block in enumerate(own) if place not in gone)))
    return model


def narrower(bench: Bench, seed: int) -> nn.Module:
    """The network with half to all of every layer's best channels, repaired."""
    generator = torch.Generator().manual_seed(seed)
    units = bench.graph.units
    scores, movable = bench.run(bench.pruning()).scores(RANKED_AT), movable_families(units)
    kept = torch.ones(units.num_units, dtype=torch.bool)
    for family, can in zip(units.families, movable, strict=True):
        if can and not any(fnmatch(family.name, rule.match) for rule in STAGES):
            left = int(len(family.units) * (1 - 0.5 * torch.rand((), generator=generator).item()))
            kept[family.units[scores[family.units].argsort(descending=True)][left:]] = False
    return bench.left(kept, None, "least-squares").cpu()


def made(name: str, given: argparse.Namespace) -> Bench:
    """A public network, or a relative with its weights from the work folder, where it is trained if it is not there."""
    if name not in RELATIVES:
        return opened(name, given)
    relative = RELATIVES[name]
    seed_everything(relative.seed)
    bench = opened(relative.of, given)
    if relative.kind == "shallower":
        bench = anew(bench, name, shallower(bench.model, relative.blocks, relative.seed))
    elif relative.kind == "narrower":
        bench = anew(bench, name, narrower(bench, relative.seed))

    def weights() -> dict[str, Any]:
        return dict(bench.train(bench.model, relative.training, name, relative.seed).cpu().state_dict())

    bench.model.load_state_dict(bench.work.remembered(f"{name}-weights", weights))
    return anew(bench, name, bench.model.eval())


def anew(bench: Bench, name: str, model: nn.Module) -> Bench:
    """The same conditions for another network."""
    return replace(bench, name=name, model=model)


def opened(name: str, given: argparse.Namespace) -> Bench:
    """A public network."""
    protocol = replace(Protocol(), precision=given.precision)
    rest: dict[str, Any] = {"work": Work(given.work), "protocol": protocol, "slice": Slice(float("inf"))}
    rest["train_limit"] = given.train_limit
    return Bench.of(name, given.checkpoints, given.data_root, torch.device("cpu"), **rest)


def plans(bench: Bench) -> list[tuple[float, list[int]]]:
    """How many units of every family sensitivities leave."""
    run = bench.run(bench.pruning(scope="sensitivity", repair_images=REPAIR_IMAGES))
    at = f"{bench.name}-harms-{REPAIR_IMAGES}{_free(bench)}"
    run = replace(run, harms=bench.work.remembered(at, lambda: dict(measured(run))))
    kept = [(speedup, prune_to(run, Target("macs", factor=speedup)).plan.kept) for speedup in SPEEDUPS]
    return [(speedup, [int(own[f.units].sum()) for f in bench.graph.units.families]) for speedup, own in kept]


def member(name: str, given: argparse.Namespace) -> ZooEntry:
    """A network of the zoo, with what images show of it and its plans as examples."""
    bench = varied.opened(name, given) if name in VARIED else made(name, given)
    bench = replace(bench, rules=()) if given.unruled else bench
    graph = bench.graph
    observer = Observer(bench.samples, USUAL, torch.device("cpu"))
    evidence = bench.work.remembered(f"{name}-evidence", lambda: dict(observer.shown(bench.model, graph).evidence))
    shown = bench.work.remembered(f"{name}-plans{_free(bench)}", lambda: plans(bench))
    return ZooEntry(name, bench.model, graph.with_evidence(evidence), examples_of(graph.units, shown))


def _free(bench: Bench) -> str:
    return "" if bench.rules else "-unruled"


def make(given: argparse.Namespace) -> None:
    """All members that are asked for."""
    for name in _asked((*TAUGHT, *RELATIVES, *(VARIED if given.varied else ())), given):
        member(name, given)
        print(name, flush=True)


def _asked(names: Iterable[str], given: argparse.Namespace) -> list[str]:
    return [name for name in names if any(fnmatch(name, pattern) for pattern in given.members)]


def learn(given: argparse.Namespace) -> None:
    """A metanetwork for each network, without it."""
    for left_out in given.networks:
        names = [name for name in TAUGHT if name != left_out]
        names += [name for name, relative in RELATIVES.items() if relative.of != left_out and not given.alone]
        names += VARIED if given.varied else ()
        zoo = [member(name, given) for name in _asked(names, given)]
        settings = MetaTrainSettings(
            objective="shares",
            criterion="metanet",
            normaliser="rank",
            by_speedup=True,
            speedup_max=max(SPEEDUPS),
            epochs=given.epochs,
            weight_noise=1.0,
            warmup_epochs=5,
            validate_every=15,
            seed=given.seed,
        )
        seed_everything(given.seed)
        config = MetaNetworkConfig(
            layers=3,
            hidden=16,
            ratio=0.001,
            score_head=True,
            normaliser="rank",
            by_speedup=True,
            evidence=() if given.blind else EVIDENCE,
        )
        network, (splits, _) = MetaNetwork(config), cifar(given.data_root, torch.device("cpu"), given.train_limit)
        common: dict[str, Any] = {"task": Classification(), "device": torch.device("cpu"), "progress": Silence()}
        found = meta_train(network, zoo, zoo, splits.train, splits.val, settings, **common)
        network.load_state_dict(found.metanet_state)
        target = Path(given.output.format(network=left_out))
        target.parent.mkdir(parents=True, exist_ok=True)
        given_of = {"meta-train": asdict(settings), "members": [one.name for one in zoo], "unruled": given.unruled}
        made_by = provenance("benchmarks/relatives.py learn", given_of, given.seed)
        network.save(target, {"made_by": made_by, "metrics": {"best_epoch": found.best_epoch}})
        print(f"{target}: {len(zoo)} networks, epoch {found.best_epoch} of {given.epochs}", flush=True)


def main() -> None:
    """Parse and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (make, learn):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(call=command)
        sub.add_argument("--data-root", type=Path, required=True)
        sub.add_argument("--checkpoints", type=Path, required=True)
        sub.add_argument("--work", type=Path, default=Path("scratch/relatives"))
        sub.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the training")
        sub.add_argument("--train-limit", type=int)
        sub.add_argument("--members", nargs="+", default=["*"], help="patterns of their names")
        sub.add_argument("--varied", action="store_true", help="with small networks of other families")
        sub.add_argument("--unruled", action="store_true", help="all channels may go")
    sub = commands.choices["learn"]
    sub.add_argument("--output", "-o", default="scratch/relatives/without-{network}.safetensors")
    sub.add_argument("--networks", nargs="+", choices=(*NETWORKS, "none"), default=list(NETWORKS))
    sub.add_argument("--epochs", type=int, default=150)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--alone", action="store_true", help="without the relatives")
    sub.add_argument("--blind", action="store_true", help="without what images show")
    given = parser.parse_args()
    given.call(given)


if __name__ == "__main__":
    main()
