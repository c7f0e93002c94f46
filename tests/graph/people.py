"""What an entry of the catalogue is, and the parts that many of its models share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Factory = Callable[[], nn.Module]
Inputs = Callable[[], Any]


@dataclass(frozen=True)
class Entry:
    """A model as somebody writes it.

    Attributes:
        make: the model.
        inputs: example inputs, batch size 1.
        prunable: at least this share of its parameters touches a unit that can be removed.
        expected: a part of the reason why the rest is locked, where something people would want to remove is.
        comparable: whether removal can be compared with masking at all (no normalisation over what goes).
        same_macs: whether the counter knows every operator.
    """

    make: Factory
    inputs: Inputs
    prunable: float
    expected: str | None = None
    comparable: bool = True
    same_macs: bool = True


class Net(nn.Module):
    """Parts, and a forward pass over them."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._run = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self, *args, **kwargs)


class Catalogue(dict[str, Entry]):
    """Entries by name; a decorator adds one."""

    def add(self, inputs: Inputs, prunable: float, **expected: Any) -> Callable[[Factory], Factory]:
        def register(make: Factory) -> Factory:
            self[make.__name__] = Entry(make, inputs, prunable, **expected)
            return make

        return register


def image() -> Tensor:
    return torch.randn(1, 3, 8, 8)


def signal() -> Tensor:
    return torch.randn(1, 3, 12)


def volume() -> Tensor:
    return torch.randn(1, 2, 4, 6, 6)


def tokens() -> Tensor:
    return torch.arange(6)[None] % 5


def sequence() -> Tensor:
    return torch.randn(1, 6, 8)


def conv_block(into: int, outof: int, kernel: int = 3, norm: bool = True, **options: Any) -> nn.Sequential:
    layers = [nn.Conv2d(into, outof, kernel, padding=kernel // 2, **options), nn.BatchNorm2d(outof), nn.ReLU()]
    return nn.Sequential(*(layers if norm else [layers[0], layers[2]]))


def head(width: int, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
