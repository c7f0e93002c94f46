"""Weights that are zero stay zero while a model is trained."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import nn


@torch.no_grad()
def zeros_kept(model: nn.Module, entries: Collection[str], device: torch.device) -> Callable[[nn.Module, float], None]:
    """What puts the zeros of ``model`` back, in place, into a model of the same architecture.

    It is called after every step, and on whatever is averaged from steps: momentum and weight decay then have nothing
    to revive. The masks are not stored anywhere: they are the exact zeros themselves.

    Args:
        model: the sparse model before training; not changed.
        entries: the state-dict entries whose zeros are meant to stay.
        device: where the training runs.
    """
    gone = {name: (tensor == 0).to(device) for name, tensor in model.named_parameters() if name in entries}

    @torch.no_grad()
    def put_back_(trained: nn.Module, _lr: float) -> None:
        own = dict(trained.named_parameters())
        for name, mask in gone.items():
            own[name].masked_fill_(mask, 0)

    return put_back_
