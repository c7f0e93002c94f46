"""Neuron graphs written by hand, so that these tests depend on no tracing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock, Feature, Layer, Structure


class Builder:
    """Collects layers, blocks and features under running neuron ids."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.layers: list[Layer] = []
        self.blocks: list[EdgeBlock] = []
        self.features: list[Feature] = []
        self.identity: list[Tensor] = []
        self.tensors: dict[str, Tensor] = {}
        self.verbatim: dict[str, str] = {}

    def layer(self, name: str, size: int) -> Tensor:
        start = self.layers[-1].start + self.layers[-1].size if self.layers else 0
        self.layers.append(Layer(name, start, size))
        return torch.arange(start, start + size)

    def block(self, name: str, sources: Tensor, destinations: Tensor, kernel: tuple[int, ...] = ()) -> None:
        """``sources`` and ``destinations`` of shape (groups, n)."""
        (groups, inner), (_, outer), taps = sources.shape, destinations.shape, math.prod(kernel)
        self.tensors[name] = torch.randn(groups * outer, inner, *kernel, generator=self.generator) / inner
        stride = (outer * inner * taps, inner * taps, taps, 1)
        size = (groups, outer, inner, taps)
        self.blocks.append(EdgeBlock(name, size, stride, 0, destinations, sources, kernel, positions=1))

    def feature(self, name: str, kind: str, neurons: Tensor, value: float = 1.0) -> None:
        noise = torch.rand(neurons.shape, generator=self.generator)
        self.tensors[name] = value * (0.5 + noise)
        self.features.append(Feature(name, kind, torch.arange(len(neurons)), neurons))

    def norm(self, name: str, neurons: Tensor) -> None:
        for entry, kind in (
            ("weight", "scale"),
            ("bias", "shift"),
            ("running_mean", "mean"),
            ("running_var", "variance"),
        ):
            self.feature(f"{name}.{entry}", kind, neurons)
        self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)
        self.verbatim[f"{name}.num_batches_tracked"] = "not floating point"

    def graph(self) -> NeuronGraph:
        empty = torch.zeros(2, 0, dtype=torch.int64)
        buffers = ("running_mean", "running_var", "num_batches_tracked")
        structure = Structure(
            layers=tuple(self.layers),
            blocks=tuple(self.blocks),
            features=tuple(self.features),
            identity=torch.cat([empty, *self.identity], dim=1),
            ties=empty,
            columns=empty,
            rows=empty,
            heads=empty[0],
            products=(),
            locks=(),
            spans=(),
            verbatim=self.verbatim,
            aliases={},
            trainable=frozenset(name for name in self.tensors if not name.endswith(buffers)),
        )
        return NeuronGraph(structure, self.tensors)


def mlp(seed: int = 0, sizes: tuple[int, ...] = (5, 7, 6, 3)) -> NeuronGraph:
    """Linear layers with biases, the last of them zero."""
    build = Builder(seed)
    inputs = build.layer("input", sizes[0])
    for index, size in enumerate(sizes[1:]):
        outputs = build.layer(str(index), size)
        build.block(f"{index}.weight", inputs[None], outputs[None])
        build.feature(f"{index}.bias", "bias", outputs, value=float(index < len(sizes) - 2))
        inputs = outputs
    return build.graph()


def residual_net(seed: int = 0, width: int = 6) -> NeuronGraph:
    """Two 3x3 convolutions with norms and a residual addition, a depthwise one, and a classifier flattened from 2x2."""
    build = Builder(seed)
    image = build.layer("input", 3)
    first, second, depth = (build.layer(name, width) for name in ("first", "second", "depth"))
    logits = build.layer("head", 4)
    build.block("first.weight", image[None], first[None], (3, 3))
    build.norm("first_norm", first)
    build.block("second.weight", first[None], second[None], (3, 3))
    build.norm("second_norm", second)
    build.identity.append(torch.stack([first, second]))
    build.block("depth.weight", second[:, None], depth[:, None], (3, 3))
    build.norm("depth_norm", depth)
    build.block("head.weight", depth[None], logits[None], (2, 2))
    build.feature("head.bias", "bias", logits)
    return build.graph()


def dense_net(seed: int = 0, stages: int = 6, growth: int = 4) -> NeuronGraph:
    """Every layer reads the concatenation of all before it, each part through a block of its own."""
    build = Builder(seed)
    seen = [build.layer("input", 3)]
    for stage in range(stages):
        outputs = build.layer(f"stage{stage}", growth)
        for index, inputs in enumerate(seen):
            build.block(f"stage{stage}.{index}", inputs[None], outputs[None], (1, 1))
        build.norm(f"norm{stage}", outputs)
        seen.append(outputs)
    return build.graph()
