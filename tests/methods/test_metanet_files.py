"""A metanetwork from a file: nothing is allocated that is not in the file, and no number is believed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metaprune_cli.errors import CorruptFileError
from metaprune_cli.methods.metanet.network import MetaNetwork, MetaNetworkConfig

SMALL = MetaNetwork(MetaNetworkConfig(layers=2, hidden=4)).to_parts()


def read(config: dict[str, Any] | None = None, **tensors: Tensor | None) -> MetaNetwork:
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    parts = {name: tensor for name, tensor in (SMALL[0] | named).items() if tensor is not None}
    return MetaNetwork.from_parts(parts, {"config": {**SMALL[1]["config"], **(config or {})}}, "file")


def test_what_was_written_is_read() -> None:
    assert read().state_dict().keys() == SMALL[0].keys()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layers": 2**63}, "fewer layers and kernels than there are tensors"),
        ({"layers": 10**9}, "fewer layers and kernels than there are tensors"),
        ({"layers": 3}, "layers.2.gate.weight: missing"),
        ({"layers": 1}, "'layers.1.gate.weight': not a parameter"),
        ({"hidden": 10**9}, r"codec.neuron: expected a tensor of shape \[1000000000\], got \[4\]"),
        ({"score_head": True}, "codec.importance: missing"),
        ({"codec": "per-kernel", "kernels": [[2**40] * 16]}, "This is not a valid description of a metanetwork"),
        ({"codec": "per-kernel", "kernels": [[1]] * 10**5}, "fewer layers and kernels"),
    ],
)
def test_sizes_that_its_tensors_do_not_have_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(CorruptFileError, match=said):
        read(config)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (None, "codec.identity: missing"),
        (torch.zeros(5), r"codec.identity: expected finite real numbers of shape \[4\], got torch.float32 \[5\]"),
        (torch.zeros(4, dtype=torch.int64), "got torch.int64"),
        (torch.tensor([1.0, float("nan"), 0.0, 0.0]), "codec.identity: expected finite real numbers"),
    ],
)
def test_parameters_that_are_not_its_own_are_refused(tensor: Tensor | None, said: str) -> None:
    with pytest.raises(CorruptFileError, match=said) as refused:
        read(codec__identity=tensor)
    assert "where: file" in str(refused.value)


def test_reading_draws_the_random_numbers_it_always_drew() -> None:
    torch.manual_seed(0)
    MetaNetwork(MetaNetworkConfig(layers=2, hidden=4))
    expected = torch.rand(1)
    torch.manual_seed(0)
    read()
    torch.testing.assert_close(torch.rand(1), expected, rtol=0, atol=0)
