"""Learning from another model's outputs beside the labels (Hinton et al., arXiv 1503.02531, section 2).

    loss = (1 − w) · loss on the labels + w · T² · KL(softmax(teacher / T) ‖ softmax(student / T))

T² keeps the second term's gradients at the size of the first's. The teacher sees just what the student does, augmented
and mixed.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.config import OptimSettings
from metaprune_cli.metrics.calling import logits_of, memory_format_for
from metaprune_cli.training.precision import in_precision


class Teacher:
    """A copy of a model, in eval mode, that never learns.

    Args:
        model: any classifier of the student's images and classes.
        settings: weight, temperature and precision.
        device: where the student is.
        image: one image (1, c, h, w), which tells how the model wants its images laid out.
    """

    def __init__(self, model: nn.Module, settings: OptimSettings, device: torch.device, image: Tensor) -> None:
        self.settings = settings
        self.model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        self._layout = memory_format_for(self.model, image)

    def blended(
        self,
        loss: Float[Tensor, ""],
        logits: Float[Tensor, "n classes"],
        images: Float[Tensor, "n channels height width"],
    ) -> Float[Tensor, ""]:
        """The loss on the labels and that of differing from the teacher, by their weights."""
        weight, temperature = self.settings.distill_weight, self.settings.distill_temperature
        own, taught = (F.log_softmax(scores / temperature, 1) for scores in (logits, self._logits(images)))
        distance = F.kl_div(own, taught, log_target=True, reduction="batchmean")
        return (1 - weight) * loss + weight * temperature**2 * distance

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        with in_precision(self.settings.precision, images.device):
            return logits_of(self.model(images.contiguous(memory_format=self._layout))).float()
