"""Weights that hide nothing: what initialisation makes zero or one would make comparisons vacuous."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaprune_cli.graph.trace.tracer import ExampleInputs, call

_AROUND_ONE = (0.5, 1.5)
_SHIFT = 0.1


def randomise_(model: nn.Module, seed: int) -> None:
    """Replace, in place, every zero and one in floating-point parameters and buffers.

    Ones (scales, variances) become uniform in [0.5, 1.5], zeros (shifts, means, heads made silent) normal with a
    standard deviation of 0.1. Everything else is random already.
    """
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            if tensor.is_floating_point() and id(tensor) not in seen:
                seen.add(id(tensor))
                _randomise_(tensor, generator)


def settle_(model: nn.Module, inputs: ExampleInputs) -> None:
    """Set, in place, the running statistics of BatchNorms to those of ``inputs``, so that activations keep their scale.

    Where they explode, everything saturates: boxes leave their images, and there is nothing to compare.
    """
    norms = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    modes = {module: module.training for module in model.modules()}
    for norm in norms:
        norm.momentum = 1.0
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(model.train(), inputs)
    except Exception:  # noqa: BLE001 - not every model runs in train mode; then the statistics stay random
        pass
    finally:
        for norm, momentum in norms.items():
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


def _randomise_(tensor: Tensor, generator: torch.Generator) -> None:
    ones, zeros = tensor == 1, tensor == 0
    low, high = _AROUND_ONE
    if ones.any():
        count = int(ones.sum())
        tensor[ones] = (low + (high - low) * torch.rand(count, generator=generator)).to(tensor.dtype)
    if zeros.any():
        tensor[zeros] = (_SHIFT * torch.randn(int(zeros.sum()), generator=generator)).to(tensor.dtype)
