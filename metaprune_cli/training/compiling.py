"""``torch.compile`` for the steps of a training run, where it can be had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import Precision
from metaprune_cli.metrics.calling import logits_of
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.training.precision import in_precision
from metaprune_cli.training.seeds import seeded
from metaprune_cli.training.state import snapshot

log = logging.getLogger(__name__)


def compiled(model: nn.Module, images: Tensor, precision: Precision) -> Callable[[Tensor], Any]:
    """``model`` in training mode, compiled if that works: a trial on ``images`` tells, and leaves nothing behind.

    The parameters, and so the names in the state dict, stay the model's own. Every shape is compiled by itself: what a
    step computes then does not depend on the steps before it, which a resumed run has not seen.
    """
    fast: Callable[[Tensor], Any] = torch.compile(model.train(), dynamic=False)
    before = snapshot(model)
    guard_convolutions()
    try:
        with seeded(0, images.device):
            with in_precision(precision, images.device):
                logits = logits_of(fast(images))
            logits.float().square().mean().backward()
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and the model runs without it
        reason = str(error).strip().partition("\n")[0]
        log.warning("Trained without --compile, which fails here: %s: %s", type(error).__name__, reason)
        return model
    finally:
        model.load_state_dict(before)
        model.zero_grad()
    return fast
