"""Gradients of convolutions that oneDNN is not trusted with are taken of contiguous memory, whoever chose another."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from metaprune_cli.metrics import convolutions

ROOT = Path(__file__).parents[2]
LAST = torch.channels_last


class Seen:
    """What PyTorch's own operator was given: the strides of gradient, input and weight."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.strides: list[list[tuple[int, ...]]] = []
        self._real = convolutions._of_pytorch
        monkeypatch.setattr(convolutions, "_of_pytorch", self)

    def __call__(self, *arguments: Any) -> Any:
        tensors = arguments[:3]
        self.strides.append([tensor.stride() for tensor in tensors])
        self.flat = [tensor.stride() == torch.empty(tensor.shape, device="meta").stride() for tensor in tensors]
        if not all(self.flat) and convolutions.is_unsafe(arguments[2], arguments[4]):
            pytest.fail("this may end the process")
        return self._real(*arguments)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    convolutions.guard_convolutions()
    return Seen(monkeypatch)


class Strided(nn.Module):
    """A 1×1 convolution with strides where people put it."""

    def __init__(self, how: str, ins: int = 3) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(ins, 4, 1, stride=2), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "permutes inside":
            x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        if self.how == "functional":
            return F.conv2d(x, self.conv.weight, self.conv.bias, stride=2)
        return self.conv(x)


def _of_layout(how: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, x = Strided(how), torch.randn(2, 3, 8, 8)
    if how == "model and images":
        model = model.to(memory_format=LAST)
    return model, x if how == "permutes inside" else x.contiguous(memory_format=LAST)


def _gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()]))


WAYS = ("images", "model and images", "permutes inside", "functional")


@pytest.mark.parametrize("how", WAYS)
def test_whoever_chose_the_layout_the_gradient_is_taken_of_contiguous_memory(how: str, seen: Seen) -> None:
    model, x = _of_layout(how)
    found = _gradients(model, x)
    assert seen.flat == [True] * 3
    exact = model.double()
    for one, other in zip(found, _gradients(exact, x.double()), strict=True):
        assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_a_gradient_keeps_the_layout_of_its_input(seen: Seen) -> None:
    """``torch.compile`` has fixed it before."""
    [of_x, *_] = _gradients(*_of_layout("images"))
    assert of_x.is_contiguous(memory_format=LAST)


def test_a_program_is_no_exception(seen: Seen) -> None:
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=LAST)
    weight = nn.Parameter(torch.randn(4, 3, 1, 1))
    out = torch.ops.aten.convolution(x, weight, None, [2, 2], [0, 0], [1, 1], False, [0, 0], 1)
    out.sum().backward()
    assert seen.flat == [True] * 3


@pytest.mark.parametrize(
    "conv",
    [
        lambda: nn.Conv2d(3, 4, 3, stride=2),
        lambda: nn.Conv2d(3, 4, 1),
        lambda: nn.Conv2d(convolutions.FEW, 4, 1, stride=2),
    ],
)
def test_all_others_run_as_they_did(conv: Callable[[], nn.Conv2d], seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    model = conv()
    x = torch.randn(2, model.in_channels, 8, 8).contiguous(memory_format=LAST)
    found = _gradients(model, x)
    assert seen.flat[:2] == [False, False]
    monkeypatch.setattr(convolutions, "is_unsafe", lambda *_: False)
    assert all(torch.equal(one, other) for one, other in zip(found, _gradients(model, x), strict=True))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 3])
def test_sequences_and_volumes_are_looked_after_as_well(dims: int, transposed: bool, seen: Seen) -> None:
    kind = getattr(nn, f"Conv{'Transpose' * transposed}{dims}d")
    model, shape = kind(3, 4, 1, stride=2), (2, *[4] * dims, 3)
    x = torch.randn(shape).movedim(-1, 1)
    found = _gradients(model, x)
    assert seen.flat == [True] * 3
    for one, other in zip(found, _gradients(model.double(), x.double()), strict=True):
        assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_a_layout_that_strides_alone_betray_is_put_right() -> None:
    """A 1×1 weight of a channels-last model calls itself contiguous, and oneDNN goes by its strides."""
    weight = torch.randn(4, 3, 1, 1).to(memory_format=LAST)
    weight = weight.as_strided(weight.shape, (3, 1, 3, 3))
    assert weight.is_contiguous()
    assert convolutions._laid_flat(weight).stride() == (3, 1, 1, 1)


def test_whatever_takes_gradients_guards_them() -> None:
    takes = re.compile(r"\.backward\(|autograd\.grad\(|func\.grad|\bvjp\(")
    folder = ROOT / "metaprune_cli"
    files = [path for path in folder.rglob("*.py") if takes.search(path.read_text("utf-8"))]
    assert len(files) >= 6
    without = [path.name for path in files if "    guard_convolutions()\n" not in path.read_text("utf-8")]
    assert not without


@pytest.mark.slow
def test_random_convolutions_and_their_gradients_are_right_and_nothing_dies_of_them() -> None:
    """Unguarded as well: what dies there has to be among what the guard takes over."""
    for how in ("guarded", "as-is"):
        command = (sys.executable, str(Path(__file__).with_name("fuzz_convolutions.py")), "1", "700", how)
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        first, *failed = [json.loads(line) for line in done.stdout.splitlines()]
        assert first["cases"] == 700
        assert [case for case in failed if how == "guarded" or not case["unsafe"]] == []
