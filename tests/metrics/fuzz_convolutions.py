"""Random convolutions and their gradients against float64's, each in a process of its own; one JSON line a failure.

    python fuzz_convolutions.py SEED CASES guarded|as-is

The first line says how many there were. Damaged memory is seen if it ends the process, or if numbers are
wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.metrics.convolutions import guard_convolutions, is_unsafe

SECONDS = 20  # a process whose memory is damaged may also go round in circles
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class Case:
    """One convolution; ``near``: of the kind that is known to fail."""

    seed: int
    batch: int
    ins: int
    outs: int
    groups: int
    kernel: list[int]
    stride: list[int]
    dilation: int
    padding: list[int]
    size: list[int]
    transposed: bool
    half: bool
    weight_last: bool
    last: bool

    @classmethod
    def drawn(cls, draw: random.Random, seed: int) -> Case:
        dims, near, transposed = draw.choice((1, 2, 2, 2, 3)), draw.random() < 0.6, draw.random() < 0.2
        kernel = [1 if near else draw.choice((1, 2, 3)) for _ in range(dims)]
        stride = [draw.choice((1, 2, 2, 3, 4)) for _ in range(dims)]
        dilation = draw.choice((1, 1, 2))
        steps = [1 if transposed else step for step in stride]
        size = [
            max((k - 1) * dilation + 1, draw.choice((1, 2, 4, 7, 8)) * s + draw.choice((0, 0, 0, 1)))
            for k, s in zip(kernel, steps, strict=True)
        ]
        groups = draw.choice((1, 1, 1, 2, 3))
        ins, outs = (groups * draw.choice((*range(1, 20), 24, 32)) for _ in range(2))
        padding = [draw.choice((0, (k - 1) * dilation // 2)) for k in kernel]
        half, weight_last, last = draw.random() < 0.3, draw.random() < 0.3, draw.random() < 0.8
        batch = draw.choice((1, 2, 3, 8, 16))
        geometry = (kernel, stride, dilation, padding, size)
        return cls(seed, batch, ins, outs, groups, *geometry, transposed, half, weight_last, last)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        first, second = (self.ins, self.outs) if self.transposed else (self.outs, self.ins)
        return first, second // self.groups, *self.kernel

    @property
    def unsafe(self) -> bool:
        return is_unsafe(torch.empty(self.weight_shape, device="meta"), self.stride)


def channels_last(tensor: Tensor) -> Tensor:
    """The same numbers with channels innermost, in any number of dimensions."""
    inner = tensor.permute(0, *range(2, tensor.dim()), 1).contiguous()
    return inner.permute(0, tensor.dim() - 1, *range(1, tensor.dim() - 1))


def problem(case: Case) -> str | None:
    """What is wrong with outputs or gradients."""
    torch.manual_seed(case.seed)
    dtype = torch.bfloat16 if case.half else torch.float32
    operator = getattr(F, f"conv{'_transpose' * case.transposed}{len(case.kernel)}d")

    def drawn(*shape: int, last: bool) -> Tensor:
        tensor = torch.randn(*shape).to(dtype)
        return channels_last(tensor) if last else tensor

    x = drawn(case.batch, case.ins, *case.size, last=case.last)
    weight = drawn(*case.weight_shape, last=case.weight_last)

    def results(*tensors: Tensor, gradient: Tensor | None = None) -> tuple[Tensor, ...]:
        leaves = [tensor.requires_grad_() for tensor in tensors]
        geometry: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
        out = operator(*leaves, **geometry, groups=case.groups)
        if gradient is None:
            gradient = drawn(*out.shape, last=case.last)
        return out, gradient, *torch.autograd.grad(out, leaves, gradient.to(out))

    out, gradient, *found = (tensor.detach() for tensor in results(x, weight))
    exact = (tensor.detach().double().contiguous().clone() for tensor in (x, weight))
    expected_out, _, *expected = (part.detach() for part in results(*exact, gradient=gradient.double().contiguous()))
    for one, other in zip((out, *found), (expected_out, *expected), strict=True):
        error, scale = float((one.double() - other).abs().max()), float(other.abs().max())
        if not error <= TOLERANCE[dtype] * max(scale, 1):
            return f"wrong by {error:.2g} of {scale:.2g}"
    return None


def fate(case: Case) -> str | None:
    """The same, from a process that may die of it."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        signal.alarm(SECONDS)
        try:
            said = problem(case) or ""
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return said or None


def main(seed: str, cases: str, how: str) -> None:
    """See above."""
    torch.set_num_threads(1)
    if how == "guarded":
        guard_convolutions()
    problem(
        Case(0, 2, 16, 16, 1, [3, 3], [1, 1], 1, [1, 1], [8, 8], False, False, False, True)
    )  # makes what is made once
    draw = random.Random(int(seed))
    print(json.dumps({"cases": int(cases)}))  # noqa: T201 - how the test hears of it
    for number in range(int(cases)):
        case = Case.drawn(draw, number)
        said = fate(case)
        if said is not None:
            print(json.dumps({"said": said, "unsafe": case.unsafe, **asdict(case)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
