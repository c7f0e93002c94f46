"""An exponential moving average of the weights, which is evaluated and kept in the place of the last ones.

    θ̄ ← d θ̄ + (1 − d) θ,   d = min(decay, (1 + t) / (10 + t)) after t steps

The lower decay of the first steps forgets where training began (as in TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

OUTSET = 10  # TensorFlow's constant


class Average:
    """The average of a model's weights, as a model in eval mode.

    Buffers are the latest. The statistics of a BatchNorm are no function of the weights that could be averaged with
    them: those of the averaged weights have to be measured.

    Args:
        model: where training begins.
        decay: in (0, 1), by the step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.decay = decay

    @torch.no_grad()
    def update_(self, model: nn.Module, step: int) -> None:
        """Take in the weights of ``model`` after ``step`` steps, counted from 0 at the start of the run."""
        decay = min(self.decay, (1 + step) / (OUTSET + step))
        for mine, latest in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(latest, 1 - decay)
        for buffer, latest_buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(latest_buffer)
