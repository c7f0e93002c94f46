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
"""Channels below which a 1×1 convolution with strides is not trusted: two to seven do damage, a vector is eight."""


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
    if not is_unsafe(weight, stride):
        return _of_pytorch(gradient, x, weight, biases, stride, *rest)
    layout = _layout(x, weight, biases, stride, *rest[:5])
    flat = (_laid_flat(tensor) for tensor in (gradient, x, weight))
    of_x, of_weight, of_bias = _of_pytorch(*flat, biases, stride, *rest)
    laid_out = (part if part is None else part.contiguous(memory_format=layout) for part in (of_x, of_weight))
    return *laid_out, of_bias


def _layout(
    x: Tensor,
    weight: Tensor,
    biases: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> torch.memory_format:
    """How PyTorch would lay out the gradients: ``torch.compile`` counts on it, and asks the same way."""
    if weight.dim() == 3:
        return torch.contiguous_format
    backend = torch._C._select_conv_backend(
        x,
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        transposed=transposed,
        output_padding=output_padding,
        groups=groups,
        bias=None,
        bias_sizes=biases,
    )
    return torch._C._conv_determine_backend_memory_format(x, weight, backend)


def _of_pytorch(*arguments: Any) -> Any:
    """PyTorch's own operator, below the entry in the dispatcher's table that is ours."""
    operator = torch.ops.aten.convolution_backward.default
    return operator._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *arguments)


def _laid_flat(tensor: Tensor) -> Tensor:
    """The same numbers with a contiguous tensor's strides.

    ``contiguous`` is not enough: a 1×1 weight may have the strides of either layout, and it is the strides that count.
    """
    flat, steps = [], 1
    for size in reversed(tensor.shape):
        flat.append(steps)
        steps *= size
    return tensor if list(tensor.stride()) == flat[::-1] else tensor.clone(memory_format=torch.contiguous_format)
