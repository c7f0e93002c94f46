"""Small networks of every kind of coupling, and their graphs."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.models import Architecture, build


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(6 + 4 * n), nn.ReLU(), nn.Conv2d(6 + 4 * n, 4, 3, padding=1)) for n in range(3)
        )
        self.head = nn.Linear(18, 3)

    def forward(self, images: Tensor) -> Tensor:
        found = self.stem(images)
        for layer in self.layers:
            found = torch.cat([found, layer(found)], 1)
        logits: Tensor = self.head(found.mean((2, 3)))
        return logits


class Shuffled(nn.Module):
    """Depthwise, grouped and transposed convolutions, and channels that become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.PReLU(8),
            nn.ConvTranspose2d(8, 6, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 1),
            nn.PixelShuffle(2),
            nn.Conv2d(4, 2, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images)
        return found


class Attention(nn.Module):
    """Heads, and packed projections, without a norm that would mix removed neurons with others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 12)
        self.heads = nn.MultiheadAttention(12, 3, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.stem(tokens).relu()
        found = found + self.heads(found, found, found, need_weights=False)[0]
        logits: Tensor = self.out(found.mean(1))
        return logits


class Normed(nn.Module):
    """A recurrent layer, and a weight that is computed from others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 8, batch_first=True)
        self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.out(self.inner(self.layer(tokens)[0]).relu().mean(1))
        return logits


IMAGE, TOKENS = torch.zeros(1, 1, 8, 8), torch.zeros(1, 4, 5)
EXAMPLES = {"resnet": IMAGE, "mobilenet": IMAGE, "dense": IMAGE, "shuffled": IMAGE, "heads": TOKENS, "lstm": TOKENS}


def network(name: str) -> nn.Module:
    """One of ``EXAMPLES``, with statistics of its own."""
    torch.manual_seed(0)
    known = {"dense": Dense, "shuffled": Shuffled, "heads": Attention, "lstm": Normed}
    if name in known:
        return known[name]().eval()
    args = {"width": 0.25, "in_channels": 1, "image_size": 8, "num_classes": 10}
    arch = {"resnet": "cifar:resnet8", "mobilenet": "cifar:mobilenet_v2"}[name]
    model = build(Architecture(arch, args, (1, 8, 8))).train()
    model(torch.randn(16, 1, 8, 8))
    return model.eval()


@cache
def graph_of(name: str) -> NeuronGraph:
    return encode(network(name), EXAMPLES[name])


def batch(name: str, size: int = 6) -> Tensor:
    return torch.randn(size, *EXAMPLES[name].shape[1:], generator=torch.Generator().manual_seed(1))
