"""How near an image is to another: PSNR and SSIM, image by image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, WINDOW_SIGMA = 11, 1.5
"""Of SSIM, as in its paper (doi 10.1109/TIP.2003.819861)."""
BEST_DB = 100.0
"""The PSNR of two equal images, which is infinite, stands as this in a mean."""
LUMA = (65.738, 129.057, 25.064)
"""Of red, green and blue, over 256: the Y of ITU-R 601, for colours from 0 to 255; 16 is black."""


def luma(images: Tensor) -> Tensor:
    """Y (n, 1, h, w) of colours (n, 3, h, w), both from 0 to 255; gray images are their own."""
    if images.shape[1] != 3:
        return images
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1) / 256
    return 16 + (images * weights).sum(1, keepdim=True)


def psnr(images: Tensor, targets: Tensor, peak: float) -> Tensor:
    """10 · log10(peak² / mean squared error) of every image (n, c, h, w), in dB; float64 (n,)."""
    error = (images.double() - targets.double()).square().flatten(1).mean(1)
    return (10 * torch.log10(peak**2 / error)).clamp(max=BEST_DB)


def ssim(images: Tensor, targets: Tensor, peak: float) -> Tensor:
    """Mean structural similarity of every image (n, c, h, w): Gaussian windows inside it, the mean over channels.

    float64 (n,).
    """
    one, other = images.double(), targets.double()
    a, b = _blurred(one), _blurred(other)
    variance_a, variance_b = _blurred(one * one) - a * a, _blurred(other * other) - b * b
    covariance = _blurred(one * other) - a * b
    small, smaller = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * a * b + small) * (2 * covariance + smaller)
    bottom = (a * a + b * b + small) * (variance_a + variance_b + smaller)
    return (top / bottom).flatten(1).mean(1)


def _blurred(images: Tensor) -> Tensor:
    """The Gaussian mean around every pixel that is far enough from the edges."""
    channels = images.shape[1]
    places = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * WINDOW_SIGMA**2))
    weights = (weights / weights.sum()).repeat(channels, 1, 1, 1)
    down = F.conv2d(images, weights.movedim(-1, -2), groups=channels)
    return F.conv2d(down, weights, groups=channels)
