"""Who decides what goes, an arm each, for ``benchmarks/published.py``; the same images and limits for all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from published_bench import Bench
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.api.dhp import DHP
from metaprune_cli.api.prune import prune
from metaprune_cli.config import (
    OptimSettings,
    PruneSettings,
    PruningNetSettings,
    PruningRule,
    SearchSettings,
    TransformSettings,
)
from metaprune_cli.methods.base import Scores, WidthWeights
from metaprune_cli.methods.metanet import opened, rewritten
from metaprune_cli.methods.pruning_net.training import untrained
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.pruning.criteria import by_unit
from metaprune_cli.pruning.targets import Target
from metaprune_cli.training.loop import recalibrate_
from metaprune_cli.training.progress import Silence
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.judging import Judged
from metaprune_cli.workflows.observing import USUAL, Observer
from metaprune_cli.workflows.planning import prune_to
from metaprune_cli.workflows.searching import Memory, search
from metaprune_cli.workflows.width_spaces import widths_and_crops

Choice = dict[str, Any]
"""``kept``: the units that stay; ``state``: the weights they are taken of, where these are not the network's."""
POPULATION, TORCH_PRUNING_STEPS, ROUNDS = 20, 400, 20


def ranked(bench: Bench, speedup: float, state: dict[str, Tensor] | None = None, **settings: Any) -> Choice:
    """By the units' scores alone."""
    run = bench.run(bench.pruning(**settings), state)
    return {"kept": prune_to(run, Target("macs", factor=speedup)).plan.kept, "state": state}


def in_rounds(bench: Bench, speedup: float) -> Choice:
    """Globally ranked, a little at a time, and scored anew after every round; nothing is trained in between."""
    model, example = bench.model, bench.example
    whole, names = count_macs(model, example), {family.name for family in bench.graph.units.families}
    most = PruneSettings.max_ratio
    sizes = {family.name: len(family.units) for family in bench.graph.units.families}
    floors = tuple(PruningRule(name, min_units=size - int(size * most)) for name, size in sizes.items() if size > 1)
    for number in range(1, ROUNDS + 1):
        factor = count_macs(model, example) / (whole / speedup ** (number / ROUNDS))
        if factor > 1:
            found = prune(model, example, speedup=factor, rules=(*floors, *bench.rules), normaliser="mean")
            model = found.model
    return {"kept": _kept_by(bench, model, names), "state": None}


def by_sensitivity(bench: Bench, speedup: float) -> Choice:
    """As much of every layer as it can lose, which is measured once for all speed-ups, on the images of the repair."""
    run = bench.measured
    return {"kept": prune_to(run, Target("macs", factor=speedup)).plan.kept, "state": None}


def by_metanet(bench: Bench, speedup: float, name: str | None = None) -> Choice:
    """Rewritten and scored in one forward pass of a metanetwork, which is shown images if it can read them."""
    network = opened(name or bench.protocol.metanet.format(network=bench.name))
    graph = bench.graph.with_tensors(bench.model.state_dict())
    if network.config.evidence:
        graph = Observer(bench.samples, USUAL, bench.device).shown(bench.model, graph)
    written = rewritten(graph, network)
    model = bench.run(bench.pruning(), written.tensors).model.to(bench.device)
    size = bench.protocol.batch_size
    recalibrate_(model, bench.splits.train, TransformSettings.batches, batch_size=size, augment=True)  # as the command
    assert written.importance is not None
    scores = Scores(by_unit(bench.graph.units, written.importance), network.config.normaliser)
    state = dict(model.cpu().state_dict())
    run = bench.run(bench.pruning(), state, importance=Importance.proposed(scores))
    return {"kept": prune_to(run, Target("macs", factor=speedup)).plan.kept, "state": state}


def searched(bench: Bench, speedup: float, weights: WidthWeights | None = None, name: str = "searched") -> Choice:
    """What ``metaprune search`` returns; its verdicts are kept, so that the next slice goes on."""
    protocol = bench.protocol
    settings = SearchSettings(
        population=POPULATION,
        iterations=math.ceil(protocol.trials / POPULATION),
        images=protocol.judging,
        verify=2 * protocol.judging,
        repair_images=protocol.repair_images,
    )
    run = bench.run(bench.pruning(repair=settings.repair))
    memory = _memory(bench, f"{bench.name}-{name}-{speedup:g}x")
    goal = Target("macs", factor=speedup)
    (found,) = search(
        [run], [goal], settings, seed=0, progress=Silence(), weights=weights, trials=protocol.trials, memory=memory
    )
    leaders = {leader.how: round(leader.verified.headline, 2) for leader in reversed(found.leaders)}
    note = {"chosen": found.chosen.how, "verified": leaders, "gain": found.gain}
    return {"kept": found.planned[0].plan.kept, "state": None, "note": note}


def _memory(bench: Bench, name: str) -> Memory:
    file = f"{name}.verdicts"
    found = bench.work.remembered(file, lambda: {"known": {}})["known"]
    known = {key: Judged(tuple(parts), headline) for key, (parts, headline) in found.items()}

    def save(verdicts: Mapping[bytes, Judged]) -> None:
        plain = {key: (list(one.parts), one.headline) for key, one in verdicts.items()}
        bench.work.keep(file, {"known": plain})
        bench.slice.check()

    return Memory(known, save)


def by_pruning_net(bench: Bench, speedup: float) -> Choice:
    """A search by the verdicts of a PruningNet, which is trained once; the units are the network's own."""
    settings = PruningNetSettings(epochs=bench.protocol.net_epochs, precision=bench.protocol.precision)
    run = bench.run(bench.pruning())
    space, crops = widths_and_crops(run)
    net = untrained(run.model, run.graph, space, crops, settings)
    name = f"{bench.name}-pruningnet"

    def trained() -> dict[str, Any]:
        return dict(bench.train(net, settings.training, f"{name}-net", 0).cpu().state_dict())

    net.load_state_dict(bench.work.remembered(f"{name}-weights", trained))
    return searched(bench, speedup, net.eval().weights, "pruningnet")


def sparse(bench: Bench, speedup: float, epochs: int, seed: int) -> Choice:
    """DepGraph's sparse learning for half of the epochs, then globally ranked."""
    settings = OptimSettings(epochs=epochs // 2, lr=bench.protocol.lr, sparsity=bench.protocol.sparsity)
    name = f"{bench.name}-sparse-{epochs}-{seed}"

    def trained() -> dict[str, Any]:
        return dict(bench.train(bench.model, settings, f"{name}-learning", seed, graph=bench.graph).cpu().state_dict())

    return ranked(bench, speedup, bench.work.remembered(f"{name}-weights", trained), scope="global")


def by_dhp(bench: Bench, speedup: float, epochs: int, seed: int) -> Choice:
    """Trained with generated weights for all of the epochs; what is left at the end is finished."""
    steps = len(bench.splits.train) // bench.protocol.batch_size * epochs
    made = DHP(
        bench.model, bench.example, speedup=speedup, steps=steps, rules=bench.rules, seed=seed, graph=bench.graph
    )
    name = f"{bench.name}-dhp-{speedup:g}x-{epochs}-{seed}"
    settings = OptimSettings(epochs=epochs, lr=bench.protocol.lr)

    def pull(model: nn.Module, lr: float) -> None:
        assert isinstance(model, DHP)
        model.shrink_(lr)

    trained = bench.train(made, settings, name, seed, after_step=pull).cpu()
    assert isinstance(trained, DHP)
    return {"model": trained.finish()}


def by_torch_pruning(bench: Bench, speedup: float, criterion: str) -> Choice:
    """Torch-Pruning's own pruner, as its CIFAR script calls it, to the first of its steps that meets the target."""
    import torch_pruning as tp

    model, example = copy.deepcopy(bench.model).to(bench.device).eval(), bench.example.to(bench.device)
    if criterion == "taylor":
        for images, labels in bench.run(bench.pruning(criterion="taylor")).images.batches:
            F.cross_entropy(model(images), labels).backward()
        pruner, importance = tp.pruner.MetaPruner, tp.importance.GroupTaylorImportance()
    else:
        pruner, importance = tp.pruner.GroupNormPruner, tp.importance.GroupMagnitudeImportance(p=2)
    inner = {family.name for family in bench.graph.units.families}
    stays = [m for n, m in model.named_modules() if n == "fc" or n == "conv1" or n.endswith(".conv2")]
    work = pruner(
        model,
        example,
        importance=importance,
        global_pruning=True,
        pruning_ratio=1.0,
        max_pruning_ratio=PruneSettings.max_ratio,
        iterative_steps=TORCH_PRUNING_STEPS,
        ignored_layers=stays,
    )
    whole, _ = tp.utils.count_ops_and_params(model, example)
    for _ in range(TORCH_PRUNING_STEPS):
        if whole / tp.utils.count_ops_and_params(model, example)[0] >= speedup:
            break
        work.step()
    return {"kept": _kept_by(bench, model.cpu(), inner), "state": None}


def _kept_by(bench: Bench, small: nn.Module, names: set[str]) -> Tensor:
    """Which units another tool has left: a channel's running variance tells it from all others of its layer."""
    kept, wanted = torch.ones(len(bench.graph.units.prunable), dtype=torch.bool), small.state_dict()
    before = bench.model.state_dict()
    for family in bench.graph.units.families:
        norm = family.name.replace("conv", "bn") + ".running_var"
        if family.name in names and norm in wanted:
            assert len(before[norm].unique()) == len(before[norm]), f"{norm}: channels that cannot be told apart"
            if len(family.units) == len(before[norm]):
                kept[family.units] = torch.isin(before[norm], wanted[norm])
    same = bench.left(kept, None, "none").cpu().eval()
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(same(inputs), small.eval()(inputs), rtol=1e-3, atol=1e-3)
    return kept


Chooser = Callable[[Bench, float], Choice]
UNTRAINED: Mapping[str, Chooser] = {
    "plain": lambda bench, speedup: ranked(bench, speedup, scope="global"),
    "uniform": lambda bench, speedup: ranked(bench, speedup, scope="family"),
    "taylor": lambda bench, speedup: ranked(bench, speedup, criterion="taylor"),
    "rounds": in_rounds,
    "sensitivity": by_sensitivity,
    "metanet": by_metanet,
    "metanet+images": by_metanet,
    "builtin": lambda bench, speedup: by_metanet(bench, speedup, "builtin"),
    "builtin-images": lambda bench, speedup: by_metanet(bench, speedup, "builtin-images"),
    "searched": searched,
    "pruningnet": by_pruning_net,
    "tp-group-norm": lambda bench, speedup: by_torch_pruning(bench, speedup, "group-norm"),
    "tp-taylor": lambda bench, speedup: by_torch_pruning(bench, speedup, "taylor"),
}
"""Arms that choose without training what is left."""
TRAINED: Mapping[str, Callable[[Bench, float, int, int], Choice]] = {"sparse": sparse, "dhp": by_dhp}
"""Arms that train before they choose, or while: their epochs are part of those that a cell has."""
REPAIRED = {f"{name}+ls": name for name in ("tp-group-norm", "tp-taylor")}
"""What another tool chose, repaired by ours."""
ARMS = (*UNTRAINED, *REPAIRED, *TRAINED)


def chosen(bench: Bench, arm: str, speedup: float) -> Choice:
    """The choice of an arm that does not train, made once."""
    arm = REPAIRED.get(arm, arm)
    return bench.work.remembered(f"{bench.name}-{arm}-{speedup:g}x", lambda: UNTRAINED[arm](bench, speedup))
