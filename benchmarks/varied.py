"""Small networks of every family that can be built here, trained on all of CIFAR-10 at 16 pixels.

``relatives.py --varied`` teaches by them beside the public ResNets, so that what is learnt holds for other structures.
A quarter of the pixels is a quarter of the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from published_bench import Bench, Protocol, cifar
from slices import Slice, Work

from metaprune_cli.config import OptimSettings
from metaprune_cli.tasks import Classification
from metaprune_cli.workflows.anew import architecture_of, built

SIZE = 16
SGD = OptimSettings(epochs=4, lr=0.1)
LONGER = OptimSettings(epochs=6, lr=0.1)
ADAMW = OptimSettings(epochs=6, lr=2e-3, optimizer="adamw", weight_decay=0.05, warmup_epochs=1)


@dataclass(frozen=True)
class Varied:
    """An architecture, how it is trained, and the seed of its weights."""

    arch: str
    args: Mapping[str, Any]
    seed: int
    training: OptimSettings = field(default=SGD)


def _family(arch: str, *sizes: Mapping[str, Any], training: OptimSettings = SGD) -> list[Varied]:
    return [Varied(f"cifar:{arch}", size, 900 + place, training) for place, size in enumerate(sizes)]


_ALL = [
    *_family("resnet8", {"width": 1.0}, {"width": 0.5}),
    *_family("resnet14", {"width": 1.0}),
    *_family("resnet20", {"width": 0.5}, {"width": 0.75}),
    *_family("resnet32", {"width": 0.5}),
    *_family("vgg11_bn", {"width": 0.125}, {"width": 0.25}, {"width": 0.5}),
    *_family("vgg16_bn", {"width": 0.125}, {"width": 0.25}),
    *_family("mobilenet_v1", {"width": 0.25}, {"width": 0.5}, training=LONGER),
    *_family(
        "mobilenet_v2",
        {"width": 0.2},
        {"width": 0.25},
        {"width": 0.35},
        {"width": 0.25, "projected": True},
        {"width": 0.4, "projected": True},
        training=LONGER,
    ),
    *_family(
        "vit",
        *({"width": width, "layers": layers, "patch_size": 4} for width, layers in ((0.5, 2), (0.5, 4), (0.25, 3))),
        training=ADAMW,
    ),
]
VARIED = {f"{one.arch.partition(':')[2]}-{one.seed}": one for one in _ALL}


def opened(name: str, given: argparse.Namespace) -> Bench:
    """One of them with its weights from the work folder, where it is trained if it is not there."""
    varied, work = VARIED[name], Work(given.work)
    splits, read_test = cifar(given.data_root, torch.device("cpu"), given.train_limit, image_size=SIZE)
    model = built(architecture_of(varied.arch, varied.args, splits, Classification()), varied.seed)
    bench = Bench(
        name,
        model,
        splits,
        read_test,
        work,
        torch.device("cpu"),
        Protocol(),
        Slice(float("inf")),
        rules=(),
        input_shape=(1, 3, SIZE, SIZE),
    )

    def weights() -> dict[str, Any]:
        trained = bench.train(model, varied.training, name, varied.seed)
        print(name, bench.score(trained, splits.val), flush=True)
        return dict(trained.cpu().state_dict())

    model.load_state_dict(work.remembered(f"{name}-weights", weights))
    model.eval()
    return bench
