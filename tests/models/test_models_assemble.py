"""Models of constants that are in no file: built again, without memory for parameters that a file replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from metaprune_cli.models import Architecture, registry
from metaprune_cli.models.assemble import assemble


class Causal(nn.Module):
    """A mask and a table that are not in the state dict, and one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Parameter(torch.randn(4, 4))
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.first.weight = shared
        self.third = nn.Linear(4, 4, bias=False)
        self.third.weight = shared
        self.register_buffer("mask", torch.tril(torch.ones(4, 4)), persistent=False)
        self.table = torch.zeros(4) + torch.arange(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x) @ self.mask)) + self.table


class Reading(Causal):
    """A constructor that wants to know the values of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = float(self.second.weight.detach().abs().max())


class Derived(Causal):
    """A constant made of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.second.weight.detach().sign().abs().sum(0)


@pytest.mark.parametrize(("kind", "is_light"), [(Causal, True), (Reading, False), (Derived, False)])
def test_constants_are_real(kind: type[nn.Module], is_light: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = kind().eval()
    initialised: list[bool] = []

    def initialise(tensor: Tensor, *_: object, **__: object) -> Tensor:
        initialised.append(not tensor.is_meta)
        return tensor.detach().fill_(0.5)

    monkeypatch.setattr(nn.init, "kaiming_uniform_", initialise)
    architecture = Architecture(f"{__name__}:{kind.__name__}")
    again = assemble(architecture, model.state_dict(), Path("m.pt"))
    x = torch.randn(3, 4)
    assert_close(again(x), model(x))
    assert again.first.weight is again.third.weight
    assert again.mask.is_cpu
    assert any(initialised) != is_light
    assert not nn.Linear(2, 2).weight.is_meta  # what builds afterwards is built as ever
    assert registry.shell(architecture).mask.is_cpu
