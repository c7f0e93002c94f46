"""What the cells of ``benchmarks/published.py`` share: a network, its images, its training, the end of a slice."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from slices import Slice, Work, train_in_slices
from torch import Tensor, nn

from metaprune_cli.config import (
    DataSettings,
    OptimSettings,
    Precision,
    Preprocessing,
    PruneSettings,
    PruningRule,
    Repair,
)
from metaprune_cli.data import ImageSplit, Splits, load_splits, load_test
from metaprune_cli.data.image_split import MemoryImages
from metaprune_cli.graph import NeuronGraph, decode, encode
from metaprune_cli.models import load_model
from metaprune_cli.tasks import Classification, measure
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.sensitivities import measured

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What the public networks were trained with."""
STAGES = (PruningRule("conv1", ignore=True), PruningRule("layer*.0.conv2", ignore=True))
"""The channels that residual additions join stay, for every arm: with padded shortcuts other tools can take none."""
PASS = {"cpu": 128, "cuda": 1000}
"""Images of a pass without training: what fits a cache, or fills a GPU."""


@dataclass(frozen=True)
class Protocol:
    """What is the same for all cells.

    Attributes:
        repair_images: training images for repairs, and for criteria that need data.
        trials: candidates of a search.
        judging: training images that judge them.
        net_epochs: of a PruningNet.
        lr: of finetuning, at its highest; it falls by a cosine.
        sparsity: of sparse learning.
        batch_size: of finetuning.
        precision: of its steps.
        metanet: the metanetwork's file; ``{network}`` stands for the network that it meets.
    """

    repair_images: int = 1024
    trials: int = 60
    judging: int = 1024
    net_epochs: int = 2
    lr: float = 0.02
    sparsity: float = 5e-4
    batch_size: int = 128
    precision: Precision = "float32"
    metanet: str = "builtin"


@dataclass(frozen=True, eq=False)
class Bench:
    """A network, where it is measured, and where half-done work lies.

    Attributes:
        name: of the network.
        model: the network, on the CPU.
        splits: training and validation images, where the device is.
        read_test: the test images.
        work: the folder of half-done work.
        device: where everything is computed.
        protocol: the settings.
        slice: is asked after every epoch and every round of a search.
        rules: what stays, for every arm.
        input_shape: of one image, with a batch of one.
    """

    name: str
    model: nn.Module
    splits: Splits
    read_test: Callable[[], ImageSplit]
    work: Work
    device: torch.device
    protocol: Protocol
    slice: Slice
    rules: tuple[PruningRule, ...] = STAGES
    input_shape: tuple[int, ...] = (1, 3, 32, 32)

    @classmethod
    def of(cls, name: str, checkpoints: Path, data_root: Path, device: torch.device, **rest: Any) -> Bench:
        """That of a public file; ``train_limit`` images of the training split at most."""
        (file,) = sorted(checkpoints.glob(f"*{name}*"))
        splits, read_test = cifar(data_root, device, rest.pop("train_limit", None))
        return cls(name, load_model(file), splits, read_test, device=device, **rest)

    @cached_property
    def graph(self) -> NeuronGraph:
        """The network's graph."""
        return encode(self.model, self.example)

    @cached_property
    def measured(self) -> PruningRun:
        """What remembers how much each layer can lose."""
        run = self.run(self.pruning(scope="sensitivity", repair="least-squares"))
        return replace(run, harms=self.work.remembered(f"{self.name}-harms", lambda: dict(measured(run))))

    @property
    def example(self) -> Tensor:
        """One input."""
        return torch.zeros(self.input_shape)

    def pruning(self, **given: Any) -> PruneSettings:
        """The settings of pruning, with what differs."""
        usual = {"rules": self.rules, "repair_images": self.protocol.repair_images, "repair": "none"}
        batches = max(self.protocol.repair_images // self.protocol.batch_size, 1)
        return PruneSettings(**usual | {"batches": batches} | given)

    def run(self, settings: PruneSettings, state: dict[str, Tensor] | None = None, **more: Any) -> PruningRun:
        """The network, or one with other weights, to be pruned."""
        graph = self.graph if state is None else self.graph.with_tensors(state)
        model = self.model if state is None else decode(graph, self.model).eval()
        return PruningRun(
            model, self.example, graph, settings, Calibration(self.samples, settings, self.device), **more
        )

    @property
    def samples(self) -> Samples:
        """The images, in the batches of training."""
        return Samples(Classification(), lambda: self.splits, self.protocol.batch_size)

    def left(self, kept: Tensor, state: dict[str, Tensor] | None, repair: Repair) -> nn.Module:
        """What is left of the network, repaired."""
        return self.run(self.pruning(repair=repair), state).left(kept)

    def score(self, model: nn.Module, split: ImageSplit) -> dict[str, float]:
        """Top-1 and loss."""
        batches = split.batches(PASS[self.device.type], device=self.device)
        found = measure(model.to(self.device), batches, self.device, Classification())
        return {"top1": found.headline, "loss": found.loss}

    def train(self, model: nn.Module, settings: OptimSettings, name: str, seed: int, **more: Any) -> nn.Module:
        """A trained copy; after every epoch its state is left in the work folder, from which the next slice goes on.

        Raises:
            PausedError: the slice is over.
        """
        given: dict[str, Any] = {"task": Classification(), "batch_size": self.protocol.batch_size, "seed": seed}
        given |= {"work": self.work, "name": name, "slice_": self.slice, "device": self.device} | more
        settings = replace(settings, precision=self.protocol.precision)
        return train_in_slices(model, self.splits.train, settings, **given)


def add_options(parser: ArgumentParser) -> None:
    """Where images and networks are, where half-done work goes, and for how long."""
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("scratch/published"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--device", default="cpu")


def cifar(
    data_root: Path, device: torch.device, train_limit: int | None = None, image_size: int | None = None
) -> tuple[Splits, Callable[[], ImageSplit]]:
    """CIFAR-10 where the device is: training and validation images, and what reads the test images.

    Args:
        data_root: the folder of its binary files.
        device: where images stay.
        train_limit: training images at most.
        image_size: pixels a side; None: 32.
    """
    data = DataSettings(
        dataset="cifar10",
        data_root=str(data_root),
        augment="crop-flip",
        val_fraction=0.1,
        train_limit=train_limit,
        preprocessing=replace(IMAGENET, image_size=image_size),
    )
    splits = load_splits(data)
    train, val = (on_device(split, device) for split in (splits.train, splits.val))
    return replace(splits, train=train, val=val), lambda: on_device(load_test(data), device)


def on_device(split: Any, device: torch.device) -> ImageSplit:
    """A split whose images stay on the device, so that batches are cut there."""
    assert isinstance(split, ImageSplit)
    assert isinstance(split.images, MemoryImages)
    if device.type == "cpu":
        return split
    return replace(split, images=MemoryImages(split.images.pixels.to(device)), labels=split.labels.to(device))
