"""The usual public MobileNets for CIFAR: their names are read, and what is made of them computes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.models import open_model


class Depthwise(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Inverted(nn.Module):
    def __init__(self, width: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.stride, hidden = stride, expansion * width
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2, self.conv3 = nn.BatchNorm2d(hidden), nn.Conv2d(hidden, out, 1, bias=False)
        self.bn3, self.shortcut = nn.BatchNorm2d(out), nn.Sequential()
        if stride == 1 and width != out:
            self.shortcut = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.stride == 1 else out


class PublicV1(nn.Module):
    plan = (64, (128, 2), 128, (256, 2), 256, (512, 2), 512, 512, 512, 512, 512, (1024, 2), 1024)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, width = nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), 32
        blocks = []
        for out, stride in ((p, 1) if isinstance(p, int) else p for p in self.plan):
            blocks.append(Depthwise(width, out, stride))
            width = out
        self.layers, self.linear = nn.Sequential(*blocks), nn.Linear(1024, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


class PublicV2(nn.Module):
    plan = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, width = nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), 32
        blocks = []
        for expansion, out, count, first in self.plan:
            for stride in (first, *[1] * (count - 1)):
                blocks.append(Inverted(width, out, expansion, stride))
                width = out
        self.layers = nn.Sequential(*blocks)
        self.conv2, self.bn2, self.linear = (
            nn.Conv2d(320, 1280, 1, bias=False),
            nn.BatchNorm2d(1280),
            nn.Linear(1280, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn2(self.conv2(self.layers(F.relu(self.bn1(self.conv1(x)))))))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


@pytest.mark.parametrize(
    ("public", "arch", "args"),
    [(PublicV1, "cifar:mobilenet_v1", {}), (PublicV2, "cifar:mobilenet_v2", {"projected": True})],
)
def test_public_mobilenets_load_with_nothing_else_given(
    public: type[nn.Module], arch: str, args: dict[str, object], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = public().train()
    x = torch.randn(2, 3, 32, 32)
    model(x)  # statistics that are not those of a new network
    torch.save({"net": {f"module.{name}": t for name, t in model.state_dict().items()}}, tmp_path / "ckpt.pth")
    loaded = open_model(tmp_path / "ckpt.pth")
    assert loaded.architecture.name == arch
    assert args.items() <= loaded.architecture.args.items()
    torch.testing.assert_close(loaded.model.eval()(x), model.eval()(x))
