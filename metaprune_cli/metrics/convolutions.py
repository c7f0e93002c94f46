"""Gradients of convolutions on a CPU that stay within their memory: oneDNN's, but for those where it writes elsewhere.

oneDNN's AVX2 kernel for the gradient of the weights of a 1×1 convolution with strides writes outside its buffers where
activations of two to seven channels lie channels-last (docs/decisions.md). Pruning makes such layers. Who chose the
layout, the class, its program, the user or a ``permute`` inside of the model, shows in the operator alone, so that is
where it is mended: these gradients are taken of contiguous copies. All other convolutions run as they did.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

FEW = 16
"""Channels below which a 1×1 convolution with strides is not trusted: seen with up to 7, one vector of eight less one."""


@cache
def guard_convolutions() -> torch.library.Library:
    """Take over the gradients of convolutions on the CPU in this process, once; before any backward pass.

    Returns:
        What holds them; PyTorch's own come back when it is destroyed.
    """
    library = torch.library.Library("aten", "IMPL")
    library.impl("convolution_backward", _backward, "CPU")
    return library


def is_unsafe(weight: Tensor, stride: Sequence[int]) -> bool:
    """Whether oneDNN is not trusted with the gradient of this convolution, or transposed one, in channels-last memory.

    Args:
        weight: shape (out, in per group, *kernel), or (in, out per group, *kernel) where it is transposed: the second
            are in both cases the channels of what the kernel reads in steps.
        stride: of every dimension.
    """
    return weight.size(1) < FEW and all(size == 1 for size in weight.shape[2:]) and any(step > 1 for step in stride)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, biases: Any, stride: Sequence[int], *rest: Any) -> Any:
    if is_unsafe(weight, stride):
        gradient, x, weight = _laid_flat(gradient), _laid_flat(x), _laid_flat(weight)
    return _of_pytorch(gradient, x, weight, biases, stride, *rest)


def _of_pytorch(*arguments: Any) -> Any:
    """PyTorch's own operator, below the entry in the dispatcher's table that is ours."""
    operator = torch.ops.aten.convolution_backward.default
    return operator._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *arguments)  # type: ignore[attr-defined]


def _laid_flat(tensor: Tensor) -> Tensor:
    """The same numbers with a contiguous tensor's strides.

    ``contiguous`` is not enough: a 1×1 weight may have the strides of either layout, and it is the strides that count.
    """
    flat, steps = [], 1
    for size in reversed(tensor.shape):
        flat.append(steps)
        steps *= size
    return tensor if list(tensor.stride()) == flat[::-1] else tensor.clone(memory_format=torch.contiguous_format)
