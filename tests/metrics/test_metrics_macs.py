from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.metrics import count_macs, count_params


class Attention(nn.Module):
    """Scaled dot-product attention with its own projections and one plain tensor attribute."""

    def __init__(self):
        super().__init__()
        self.packed = nn.Linear(8, 24)
        self.offset = torch.ones(8)

    def forward(self, tokens):
        q, k, v = (
            part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.packed(tokens + self.offset).chunk(3, -1)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, tokens):
        return self.layer(tokens)


def vit():
    return torchvision.models.VisionTransformer(
        32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )


MODELS = {
    "convnet": (lambda: torchvision.models.mobilenet_v3_small(), (1, 3, 64, 64)),
    "grouped": (lambda: nn.Conv2d(8, 16, 3, stride=2, groups=4), (1, 8, 9, 9)),
    "conv1d": (lambda: nn.Conv1d(8, 16, 3), (1, 8, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(8, 4, 3, stride=2), (1, 8, 5, 5)),
    "multihead-attention": (vit, (1, 3, 32, 32)),
    "encoder-layer": (Encoder, (1, 5, 16)),
    "sdpa": (Attention, (1, 5, 8)),
    "swin": (lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4]), (1, 3, 32, 32)),
}


def counted(model, inputs) -> int:
    """torch's own count, of a real pass in train mode, where nothing takes a fast path.

    Attention as its two products: the counter does not know the fused kernel of a CPU, which some processors choose.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).train()(inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", MODELS)
def test_macs_are_half_of_the_flop_counter(name):
    factory, shape = MODELS[name]
    model = factory().eval()
    inputs = torch.rand(2, *shape[1:])  # two: BatchNorm of one value cannot train
    expected = counted(model, inputs)
    assert count_macs(model, inputs) == expected > 0
    assert count_macs(model, torch.rand(shape)) == expected // 2
    with torch.no_grad():
        assert count_macs(model, inputs) == expected


def test_products_of_attention_count():
    tokens, width = 5, 8
    assert count_macs(Attention(), torch.rand(1, tokens, width)) == tokens * width * 24 + 2 * tokens * tokens * width


def test_the_model_and_the_switches_of_torch_stay_as_they_were():
    model = vit().train()
    model.encoder.layers[0].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    count_macs(model, torch.rand(1, 3, 32, 32))
    assert [module.training for module in model.modules()] == modes
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_inputs_may_be_a_tuple_or_a_mapping():
    class Product(nn.Module):
        def forward(self, left, right):
            return left @ right

    left, right = torch.rand(3, 4), torch.rand(4, 5)
    assert count_macs(Product(), (left, right)) == count_macs(Product(), {"left": left, "right": right}) == 3 * 4 * 5


def test_inputs_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match="Linear does not run on these inputs"):
        count_macs(nn.Linear(3, 4), torch.rand(1, 5))


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3, bias=False)
    assert count_params(nn.Sequential(layer, layer, nn.BatchNorm1d(3))) == 9 + 6


def test_a_matrix_times_a_vector_counts() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.v = nn.Linear(4, 6), nn.Parameter(torch.randn(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) @ self.v

    model, x = Scored(), torch.randn(1, 5, 4)
    assert count_macs(model, x) == encode(model, x).macs == 5 * (4 * 6 + 6)


def test_deformable_convolutions_count() -> None:
    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where, self.conv = nn.Conv2d(3, 18, 3, padding=1), torchvision.ops.DeformConv2d(3, 8, 3, padding=1)

        def forward(self, x):
            return self.conv(x, self.where(x))

    x = torch.randn(1, 3, 6, 6)
    assert count_macs(Deformed(), x) == encode(Deformed().eval(), x).summary()["macs"] == 36 * 27 * (18 + 8)
