"""How much of a model is not zero."""

from __future__ import annotations

from torch import nn


def density(model: nn.Module) -> float:
    """Non-zero weights / weights, over all parameters of two dimensions or more; 1 where there are none.

    Biases and norms are not counted: they are never zeroed, and zero in many a model that is not sparse.
    """
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    total = sum(weight.numel() for weight in weights)
    return sum(int(weight.count_nonzero()) for weight in weights) / total if total else 1.0
