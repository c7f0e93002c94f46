"""Zeros, put where a plan says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metaprune_cli.graph.resize import fill_, hollow_copy, own_copies


def zero_tensors(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor], slope: float = 0.0) -> dict[str, Tensor]:
    """The tensors with zeros where a mask is False; entries without a mask are passed on as they are.

    A weight that is gone still learns, if ``slope`` is above 0, what it would be worth: its value is 0, its gradient
    ``slope`` times that of a weight that is there (straight-through; SR-STE, arXiv 2102.04010, does so for N:M).

    Args:
        tensors: a state dict, or the part of it that is wanted, by entry.
        masks: bool, in the shapes of their entries.
        slope: how strongly what is gone feels the loss.
    """

    def zeroed(tensor: Tensor, mask: Tensor) -> Tensor:
        gone = slope * (tensor - tensor.detach()) if slope else torch.zeros_like(tensor)
        return torch.where(mask.to(tensor.device), tensor, gone)

    return {name: zeroed(tensor, masks[name]) if name in masks else tensor for name, tensor in tensors.items()}


@torch.no_grad()
def zeroed_copy(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` with zeros where a mask is False; the argument is not changed."""
    own = model.state_dict()
    zeroed = hollow_copy(model)
    fill_(zeroed, own_copies(zero_tensors(own, masks), own))
    return zeroed
