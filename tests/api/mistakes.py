"""Calls with arguments of the wrong type and their answers, as JSON: a process in which nothing else checks types."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import metaprune_cli as mp

INPUT = torch.zeros(1, 3, 8, 8)
IMAGES = (torch.randn(64, 3, 8, 8), torch.arange(64) % 3)


class Net(nn.Sequential):
    """A small convolutional network."""

    def __init__(self) -> None:
        layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1))
        super().__init__(*layers, nn.Flatten(), nn.Linear(8, 3))


def net() -> nn.Module:
    """One that is always the same."""
    torch.manual_seed(0)
    return Net().eval()


TAKE_MODELS: dict[str, Callable[[Any], object]] = {
    "encode": lambda model: mp.encode(model, INPUT),
    "decode": lambda model: mp.decode(mp.encode(net(), INPUT), model),
    "prune": lambda model: mp.prune(model, INPUT),
    "search": lambda model: mp.search(model, INPUT, data=IMAGES),
    "sparsify": lambda model: mp.sparsify(model, INPUT),
    "transform": lambda model: mp.transform(model=model, example_inputs=INPUT),
    "finetune": lambda model: mp.finetune(model, IMAGES),
    "teacher": lambda model: mp.finetune(net(), IMAGES, teacher=model),
    "evaluate": lambda model: mp.evaluate(model, IMAGES),
    "export": lambda model: mp.export(model, "model.pt2", example_inputs=INPUT),
    "compress": lambda model: mp.compress(model, IMAGES),
    "train_pruning_net": lambda model: mp.train_pruning_net(model, IMAGES),
    "DHP": lambda model: mp.DHP(model, INPUT),
    "save_model": lambda model: mp.save_model(model, "model.safetensors", arch="torchvision:resnet18"),
    "count_macs": lambda model: mp.count_macs(model, INPUT),
    "count_params": mp.count_params,
}
NO_MODELS: dict[str, Callable[[], object]] = {
    "weights": lambda: net().state_dict(),
    "path": lambda: Path("net.pt"),
    "class": lambda: Net,
    "result": lambda: mp.sparsify(net(), INPUT),
    "list": lambda: [1],
}
OTHERS: dict[str, Callable[[], object]] = {
    "inputs: none": lambda: mp.prune(net(), None),
    "inputs counted: none": lambda: mp.count_macs(net(), None),
    "speedup: prune": lambda: mp.prune(net(), INPUT, speedup="2x"),
    "speedup: compress": lambda: mp.compress(net(), IMAGES, speedup="2x"),
    "speedup: search": lambda: mp.search(net(), INPUT, speedup="2x", data=IMAGES),
    "speedup: DHP": lambda: mp.DHP(net(), INPUT, speedup="2x"),
    "epochs": lambda: mp.compress(net(), IMAGES, epochs=1.5),
    "settings": lambda: mp.compress(net(), IMAGES, settings={"epochs": 2}),
    "test": lambda: mp.compress(net(), IMAGES, test=3),
    "task": lambda: mp.compress(net(), IMAGES, task=3),
    "rules": lambda: mp.prune(net(), INPUT, rules=["a"]),
}


def answer(call: Callable[[], object]) -> str:
    """The error, with its kind in front."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - which one is what the tests look at
        return f"{type(error).__name__}: {error}"
    return "none"


def main() -> None:
    """Make them all."""
    found = {name: answer(call) for name, call in OTHERS.items()}
    for (name, call), (kind, given) in itertools.product(TAKE_MODELS.items(), NO_MODELS.items()):
        found[f"{name} of {kind}"] = answer(lambda call=call, given=given: call(given()))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
