"""PSNR, SSIM and luma are those of scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaprune_cli.metrics.image_quality import BEST_DB, luma, psnr, ssim

metrics = pytest.importorskip("skimage.metrics")


def pair(channels: int, height: int, width: int, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    clean = draw.integers(0, 256, (1, channels, height, width)).astype(np.float64)
    noisy = np.clip(clean + noise * draw.standard_normal(clean.shape), 0, 255)
    return torch.from_numpy(noisy), torch.from_numpy(clean)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from((1, 3)), st.integers(11, 40), st.integers(11, 40), st.floats(0.5, 80), st.integers(0, 99))
def test_figures_are_those_of_scikit_image(channels: int, height: int, width: int, noise: float, seed: int) -> None:
    images, targets = pair(channels, height, width, noise, seed)
    one, other = (each[0].movedim(0, -1).numpy() for each in (images, targets))
    expected = metrics.structural_similarity(
        one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    assert float(ssim(images, targets, 255)) == pytest.approx(expected, abs=1e-9)
    expected = metrics.peak_signal_noise_ratio(other, one, data_range=255)
    assert float(psnr(images, targets, 255)) == pytest.approx(expected, abs=1e-9)


def test_every_image_of_a_batch_has_its_own_figure() -> None:
    pairs = [pair(1, 20, 20, noise, 0) for noise in (5, 50)]
    images, targets = (torch.cat(each) for each in zip(*pairs, strict=True))
    for figure in (psnr, ssim):
        expected = torch.cat([figure(*each, 255) for each in pairs])
        torch.testing.assert_close(figure(images, targets, 255), expected)


def test_equal_images_have_the_best_figure_there_is() -> None:
    _, image = pair(3, 16, 16, 1, 0)
    assert float(psnr(image, image, 255)) == BEST_DB
    assert float(ssim(image, image, 255)) == pytest.approx(1)


def test_luma_is_that_of_itu_601() -> None:
    from skimage.color import rgb2ycbcr

    images, _ = pair(3, 9, 7, 3, 1)
    expected = rgb2ycbcr(images[0].movedim(0, -1).numpy() / 255)[..., 0]
    np.testing.assert_allclose(luma(images)[0, 0].numpy(), expected, atol=0.01)
    gray = images[:, :1]
    assert luma(gray) is gray
