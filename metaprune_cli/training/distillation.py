"""Learning from another model's outputs beside the targets (Hinton et al., arXiv 1503.02531, section 2).

    loss = (1 − w) · loss on the targets + w · the task's distance from the teacher's outputs

The teacher sees just what the student does, augmented and mixed.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.metrics.calling import call, device_of, in_float32, in_format, memory_format_for
from metaprune_cli.tasks.base import Task
from metaprune_cli.training.precision import in_precision


class Teacher:
    """A copy of a model, in eval mode, that never learns.

    Args:
        model: any model for the same task and data.
        task: says how far outputs are from its.
        settings: weight, temperature and precision.
        device: where the student is.
        example: one input, which tells how the model wants images laid out.
    """

    def __init__(
        self, model: nn.Module, task: Task, settings: OptimSettings, device: torch.device, example: Any
    ) -> None:
        self.task, self.settings = task, settings
        self.model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        self._layout = memory_format_for(self.model, example)

    def blended(self, loss: Tensor, output: Any, inputs: Any) -> Tensor:
        """The loss on the targets and that of differing from the teacher, by their weights."""
        weight = self.settings.distill_weight
        distance = self.task.match(output, self._output(inputs), self.settings.distill_temperature)
        return (1 - weight) * loss + weight * distance

    @torch.no_grad()
    def _output(self, inputs: Any) -> Any:
        with in_precision(self.settings.precision, device_of(inputs)):
            return in_float32(call(self.model, in_format(inputs, self._layout)))
