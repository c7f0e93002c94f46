"""``torch.compile`` for the steps of a training run, where it can be had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import Precision
from metaprune_cli.metrics.calling import call, device_of, logits_of
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.training.precision import in_precision
from metaprune_cli.training.seeds import seeded
from metaprune_cli.training.state import snapshot

log = logging.getLogger(__name__)


def compiled(model: nn.Module, inputs: Any, precision: Precision) -> Callable[..., Any]:
    """``model`` in training mode, compiled if that works: a trial on ``inputs`` tells, and leaves nothing behind.

    The parameters, and so the names in the state dict, stay the model's own. Every shape is compiled by itself: what a
    step computes then does not depend on the steps before it, which a resumed run has not seen.
    """
    fast: Callable[..., Any] = torch.compile(model.train(), dynamic=False)
    before = snapshot(model)
    guard_convolutions()
    try:
        device = device_of(inputs)
        with seeded(0, device):
            with in_precision(precision, device):
                output = logits_of(call(fast, inputs))
            output.float().square().mean().backward()
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and the model runs without it
        reason = str(error).strip().partition("\n")[0]
        log.warning("Trained without --compile, which fails here: %s: %s", type(error).__name__, reason)
        return model
    finally:
        model.load_state_dict(before)
        model.zero_grad()
    return fast
