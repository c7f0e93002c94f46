"""Torch-Pruning as an oracle: what it would prune together with a channel is what a unit touches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torchvision
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.slicing import masks
from metaprune_cli.models import Architecture, build

tp = pytest.importorskip("torch_pruning")

Touch = tuple[str, int, int]
"""A state-dict entry, a dimension of it, and an index along that dimension."""


class Joined(nn.Module):
    """Two branches side by side, and what comes after them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.norm, self.last = nn.BatchNorm2d(10), nn.Conv2d(10, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(self.last(self.norm(x).relu()).mean((2, 3)))


class Parted(nn.Module):
    """A split into two halves that go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(4, 5, 1), nn.Conv2d(4, 6, 1)
        self.head = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.first(x).relu().chunk(2, 1)
        return self.head(torch.cat([self.left(left), self.right(right)], 1).mean((2, 3)))


class Flattened(nn.Module):
    """A channel is as many columns of the classifier as it has positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


class Grouped(nn.Module):
    """A convolution in two groups between two that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=2)
        self.last, self.head = nn.Conv2d(12, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.middle(self.first(x).relu()).relu()).mean((2, 3)))


def cifar(name: str) -> nn.Module:
    return build(Architecture(f"cifar:{name}", {"num_classes": 4, "width": 0.25}, None))


def narrow_vgg() -> nn.Module:
    model = torchvision.models.vgg11_bn(num_classes=4)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 16), nn.ReLU(), nn.Linear(16, 4))  # a flattened 7×7 map
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "joined": Joined,
    "flattened": Flattened,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=4),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.25),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 3, 2), 8, bn_size=2, num_classes=4),
    "vgg11_bn": narrow_vgg,
    "cifar resnet14": lambda: cifar("resnet14"),
    "cifar mobilenet_v1": lambda: cifar("mobilenet_v1"),
    "cifar mobilenet_v2": lambda: cifar("mobilenet_v2"),
    "cifar vgg11_bn": lambda: cifar("vgg11_bn"),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A model as both see it."""

    model: nn.Module
    graph: NeuronGraph
    dependencies: tp.DependencyGraph

    @classmethod
    def of(cls, model: nn.Module, size: int) -> Case:
        inputs = torch.randn(1, 3, size, size)
        model.eval()
        return cls(model, encode(model, inputs), tp.DependencyGraph().build_dependency(model, inputs))

    def ours(self, unit: int) -> set[Touch]:
        """What goes with a unit: the rows and columns of entries of which nothing is left."""
        kept = torch.ones(self.graph.units.num_units, dtype=torch.bool)
        kept[unit] = False
        return {
            (entry, d, int(i))
            for entry, mask in masks(self.graph, kept).items()
            for d in range(min(mask.dim(), 2))
            for i in (~mask.movedim(d, 0).reshape(mask.size(d), -1).any(1)).nonzero().flatten()
        }

    def theirs(self, module: nn.Module, index: int) -> set[Touch]:
        """What Torch-Pruning would prune with one output channel of ``module``."""
        pruner = self.dependencies.get_pruner_of_module(module)
        group = self.dependencies.get_pruning_group(module, pruner.prune_out_channels, idxs=[index])
        names = {id(m): name for name, m in self.model.named_modules()}
        touched: set[Touch] = set()
        for dependency, indices in group:
            target = dependency.target.module
            if id(target) in names:
                into = dependency.handler.__name__ == "prune_in_channels"
                touched |= _entries(names[id(target)], target, into and not _per_channel(target), set(indices))
        return touched


def _per_channel(module: nn.Module) -> bool:
    """Normalisations and depthwise convolutions have one index for what comes in and what goes out."""
    if isinstance(module, nn.Conv2d):
        return 1 < module.groups == module.in_channels
    return not isinstance(module, nn.Linear)


def _entries(name: str, module: nn.Module, into: bool, indices: set[int]) -> set[Touch]:
    """The slices of a module's entries at some of its channels; all groups of a convolution share their columns."""
    state = {entry: tensor for entry, tensor in module.state_dict().items() if tensor.dim()}
    if into:
        return {(f"{name}.weight", 1, i % state["weight"].size(1)) for i in indices}
    return {(f"{name}.{entry}", 0, i) for entry in state for i in indices}


def roots(case: Case) -> list[tuple[str, nn.Module, int, int]]:
    """One layer of every family that can be removed: its name, itself, a channel of it, and that channel's unit."""
    units, modules, found = case.graph.units, dict(case.model.named_modules()), {}
    for block in case.graph.blocks:
        rows = units.unit_of[block.destinations.flatten()]
        for channel in (0, rows.numel() - 1):
            unit = int(rows[channel])
            if bool(units.prunable[unit]):
                name = block.param.rpartition(".")[0]
                found.setdefault((int(units.family_of[unit]), channel), (name, modules[name], channel, unit))
    return list(found.values())


@cache
def traced(name: str) -> Case:
    return Case.of(MODELS[name](), 8 if name in ("joined", "flattened") else 32)


@pytest.mark.parametrize("name", MODELS)
def test_couplings_are_those_of_the_oracle(name: str) -> None:
    case = traced(name)
    checked = roots(case)
    assert checked
    for layer, module, channel, unit in checked:
        ours, theirs = case.ours(unit), case.theirs(module, channel)
        assert ours == theirs, (
            f"{layer}[{channel}]: only ours {sorted(ours - theirs)[:8]}, only theirs {sorted(theirs - ours)[:8]}"
        )


def test_the_oracle_notices_a_missing_coupling() -> None:
    case = traced("cifar resnet14")
    structure = dataclasses.replace(case.graph.structure, identity=torch.empty(2, 0, dtype=torch.int64))
    case = dataclasses.replace(case, graph=NeuronGraph(structure, case.graph.tensors))
    assert any(case.ours(unit) != case.theirs(module, channel) for _, module, channel, unit in roots(case))


def test_equal_parts_of_a_split_go_together_here_and_alone_there() -> None:
    """Torch-Pruning leaves parts of unequal widths, where ``chunk`` would cut elsewhere; ours lose the same."""
    model = Parted()
    case = Case.of(model, 8)
    unit = int(case.graph.units.unit_of[case.graph.blocks[0].destinations[0, 1]])
    assert case.ours(unit) == case.theirs(model.first, 1) | case.theirs(model.first, 5)


def test_groups_lose_the_same_channels_here_and_each_its_own_there() -> None:
    """Torch-Pruning leaves it to its pruners to take a channel of every group; here, they are one unit."""
    model = Grouped()
    case = Case.of(model, 8)
    blocks = {block.param: block for block in case.graph.blocks}
    units = case.graph.units.unit_of
    middle = case.ours(int(units[blocks["middle.weight"].destinations[0, 1]]))
    assert middle == case.theirs(model.middle, 1) | case.theirs(model.middle, 7)
    first = case.ours(int(units[blocks["first.weight"].destinations[0, 1]]))
    assert first == case.theirs(model.first, 1) | case.theirs(model.first, 5)
