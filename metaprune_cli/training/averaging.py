"""An exponential moving average of the weights, which is evaluated and kept in the place of the last ones.

    θ̄ ← d θ̄ + (1 − d) θ,   d = min(decay, (1 + t) / (10 + t)) after t steps

The lower decay of the first steps forgets where training began (as in TensorFlow's ExponentialMovingAverage).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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
        self.decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend_).eval()

    @property
    def model(self) -> nn.Module:
        """The averaged weights."""
        return self._averaged.module

    def update_(self, model: nn.Module, step: int) -> None:
        """Take in the weights of ``model`` after ``step`` steps, counted from 0 at the start of the run."""
        self._averaged.n_averaged.fill_(1 + step)  # never 0, at which the latest weights would replace the first ones
        self._averaged.update_parameters(model)

    def _blend_(self, average: Any, latest: Any, number: Any) -> None:
        step = int(number) - 1
        get_ema_multi_avg_fn(min(self.decay, (1 + step) / (OUTSET + step)))(average, latest, number)
