"""Scripted parts of a model: what holds no tensors is followed, modules that do are named as what they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import metaprune_cli as mp
from metaprune_cli.errors import InputError


def test_a_scripted_module_with_weights_is_refused() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 6)), nn.Linear(6, 2))
    with pytest.raises(InputError, match="Part of the model is TorchScript") as caught:
        mp.encode(model, torch.zeros(1, 4))
    assert ("got", "0 is a RecursiveScriptModule") in caught.value.lines()


def test_a_scripted_activation_is_followed() -> None:
    model = nn.Sequential(nn.Linear(4, 6), torch.jit.script(nn.SiLU()), nn.Linear(6, 2))
    pruned = mp.prune(model, torch.zeros(1, 4), speedup=2)
    assert pruned.plan.speedup >= 2
