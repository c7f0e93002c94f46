"""Images that are made better: larger ones of small ones, and clean ones of noisy ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.config import AS_USUAL, Criterion, DataSettings, PixelKind, RestorationSettings
from metaprune_cli.config.restoration import SCALE, SIGMA
from metaprune_cli.data.batch import Split
from metaprune_cli.data.patches import Degradation
from metaprune_cli.data.restoring import (
    Restored,
    check_dataset,
    has_training,
    load_restoration,
    load_restoration_tests,
    load_without_training,
)
from metaprune_cli.data.splits import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.metrics.calling import call
from metaprune_cli.metrics.image_quality import BEST_DB, luma, psnr, ssim
from metaprune_cli.tasks.base import Exhibit, Metric, SumMeter, Task, image_arguments
from metaprune_cli.tasks.running import fitting, in_tiles

PSNR = Metric("psnr", "PSNR", "dB")
SSIM = Metric("ssim", "SSIM", digits=4)
SCREEN = (1280, 720)
"""Width and height of the output for which MACs are published."""
MULTIPLE = "multiple"
"""The attribute by which a network says that the sides of its inputs are to be multiples of a number."""
EXHIBITS = 3
Own = TypeVar("Own", bound="Restoration")


@dataclass(frozen=True)
class Restoration(Task):
    """A task whose networks map images to images, both float32 (n, c, h, w).

    Targets are in [0, 1]; inputs and outputs are normalised by ``mean`` and ``std``.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (PSNR, SSIM)  # type: ignore[misc]
    mixable: ClassVar[bool] = False  # type: ignore[misc]
    # mostly without normalisation: the size of their weights says little of what units carry (docs/restoration.md)
    criterion: ClassVar[Criterion] = "obd-c"  # type: ignore[misc]
    usual_pixels: ClassVar[PixelKind]
    settings: RestorationSettings = AS_USUAL
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def scale(self) -> int:
        """How many times larger images become."""
        return 1

    @property
    def sigma(self) -> float:
        """Of the noise, for pixels from 0 to 255."""
        return 0.0

    @property
    def pixels(self) -> PixelKind:
        """What images are read as."""
        return self.settings.pixels or self.usual_pixels

    def configured(self: Own, data: DataSettings) -> Own:
        """The same with the settings' scale, noise and preprocessing."""
        said = data.preprocessing.for_channels(1 if (data.restoration.pixels or self.usual_pixels) == "gray" else 3)
        return replace(self, settings=data.restoration, mean=said.mean or (0.0,), std=said.std or (1.0,))

    def splits(self, data: DataSettings) -> Splits:
        """Patches of photographs, and the middles of whole ones."""
        check_dataset(data, self.name)
        return load_restoration(data, self._restored)

    def test(self, data: DataSettings) -> Mapping[str, Split]:
        """Every test set that is there, of whole images."""
        check_dataset(data, self.name)
        return load_restoration_tests(data, self._restored)

    def beside_test(self, data: DataSettings) -> Splits:
        """The same as for training; of a folder with test sets alone, the shape."""
        check_dataset(data, self.name)
        return (
            load_restoration(data, self._restored)
            if has_training(data)
            else load_without_training(data, self._restored)
        )

    def run(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The outputs for whole images: padded, or in tiles, where that is asked for or the model takes one size."""
        multiple = self._multiple(model)
        run = partial(fitting, partial(call, model), scale=self.scale, multiple=multiple)
        tile = self.settings.tile or (model.examples[0][0][-1] if isinstance(model, Program) else None)
        if tile is None or (tile, tile) == tuple(inputs.shape[-2:]):
            return run(inputs)
        return in_tiles(run, inputs, -(-tile // multiple) * multiple)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean absolute or squared error, for pixels in [0, 1]."""
        distance = F.mse_loss if self.settings.loss == "mse" else F.l1_loss
        return distance(self._in_unit_range(output), targets)

    def meter(self) -> SumMeter:
        """PSNR and SSIM, the means over images."""
        return SumMeter(self._figures, _means, 3)

    def quick_meter(self) -> SumMeter:
        """PSNR, the mean over images."""
        return SumMeter(self._noise_ratios, _mean, 2)

    def check(self, output: Any, splits: Splits) -> None:
        """Make sure that there comes an image out, of the size that is wanted."""
        shape = splits.item_shape
        assert shape is not None
        wanted = (shape[0], *(size * self.scale for size in shape[1:]))
        if isinstance(output, Tensor) and tuple(output.shape[1:]) == wanted:
            return
        if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[1] != shape[0]:
            got = f"{tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                "The model returns no image like the one it is given.",
                expected=f"a tensor {(1, *wanted)}",
                got=got,
                next_step="check --task, and --pixels",
            )
        found = output.shape[-1] / shape[-1]
        small = "The model leaves images as small as they are."
        raise InputError(
            small if found == 1 else f"The model makes images {found:g} times larger.",
            expected=f"{self.scale} times" + ("" if self.scale > 1 else ": noise goes, the size stays"),
            got=f"{shape[1]}x{shape[2]} pixels become {output.shape[2]}x{output.shape[3]}",
            next_step=f"--task super-resolution --scale {found:g}" if found > 1 else "choose another model",
        )

    def advice(self, expected: tuple[int, ...], given: tuple[int, ...]) -> str:
        """Colours are chosen by an option of their own."""
        if len(expected) != 3 or expected[0] == given[0]:
            return "say --image-size, the side of the patches that the model was made for"
        kind = {1: "gray", 3: "rgb"}.get(expected[0])
        return "choose another model" if kind is None else f"--pixels {kind} reads images as the model takes them"

    def counted(self, model: nn.Module, splits: Splits) -> Mapping[str, tuple[int, ...]]:
        """The input for an output that fills a screen; none for a program, which takes images of one size."""
        if isinstance(model, Program):
            return {}
        multiple = self._multiple(model)
        width, height = (-(-(size // self.scale) // multiple) * multiple for size in SCREEN)
        assert splits.item_shape is not None
        return {"x".join(map(str, SCREEN)): (1, splits.item_shape[0], height, width)}

    def arguments(self, splits: Splits) -> Mapping[str, Any]:
        """The colours and the scale."""
        return {"in_channels": image_arguments(splits)["in_channels"], "scale": self.scale}

    def exhibits(self, tests: Mapping[str, Split]) -> Sequence[Exhibit]:
        """The first image of each test set, up to three."""
        first = [(name, next(iter(test.batches(1)))) for name, test in tests.items() if len(test)]
        names = {name: getattr(test, "names", [""])[0] for name, test in tests.items() if len(test)}
        return [Exhibit(f"{name}: {names[name]}", batch) for name, batch in first[:EXHIBITS]]

    def picture(self, output: Tensor) -> Tensor:
        """An image as pixels of 8 bits."""
        return (self._in_unit_range(output)[0] * 255).round().clamp(0, 255).to(torch.uint8)

    def given(self, exhibit: Exhibit) -> Tensor:
        """The noisy image, or the small one made larger, bicubic."""
        inputs: Tensor = exhibit.batch.inputs
        if self.scale == 1:
            return inputs
        return F.interpolate(inputs, scale_factor=float(self.scale), mode="bicubic", align_corners=False)

    @property
    def remembered(self) -> Mapping[str, Any]:
        """What models are made for."""
        own = {"scale": self.scale} if self.scale > 1 else {"sigma": self.sigma}
        return {**own, "pixels": self.pixels}

    @property
    def _restored(self) -> Restored:
        return Restored(self.pixels, self.scale, Degradation(self.sigma, self.mean, self.std))

    def _multiple(self, model: nn.Module) -> int:
        """What the sides of inputs have to be multiples of."""
        return math.lcm(self.settings.multiple or 1, int(getattr(model, MULTIPLE, 1)))

    def _in_unit_range(self, output: Any) -> Tensor:
        """Outputs as pixels in [0, 1], but for what is beyond."""
        if self.mean == (0.0,) and self.std == (1.0,):
            return output.float()  # type: ignore[no-any-return]
        mean, std = (torch.tensor(figures, device=output.device).view(-1, 1, 1) for figures in (self.mean, self.std))
        return output.float() * std + mean  # type: ignore[no-any-return]

    def _compared(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What is compared, from 0 to 255."""
        return self._in_unit_range(output).clamp(0, 1) * 255, targets * 255

    def _figures(self, output: Any, targets: Tensor) -> Tensor:
        pair = self._compared(output, targets)
        return torch.stack([_sum(psnr(*pair, 255)), _sum(ssim(*pair, 255)), torch.tensor(float(len(targets)))])

    def _noise_ratios(self, output: Any, targets: Tensor) -> Tensor:
        return torch.stack([_sum(psnr(*self._compared(output, targets), 255)), torch.tensor(float(len(targets)))])


@dataclass(frozen=True)
class SuperResolution(Restoration):
    """Small images made larger; compared by their Y, without a border, as files of 8 bits."""

    name: ClassVar[str] = "super-resolution"  # type: ignore[misc]
    usual_pixels: ClassVar[PixelKind] = "rgb"

    @property
    def scale(self) -> int:
        """How many times larger images become."""
        return self.settings.scale or SCALE

    def in_words(self) -> Mapping[str, str]:
        """How small images are made, and how large ones are compared."""
        what = "Y = 16 + (65.738 R + 129.057 G + 25.064 B) / 256" if self.pixels == "rgb" else "gray"
        return {
            "Small images": f"{self.scale} times smaller, as in files, or bicubic, antialiased, rounded to 8 bits",
            "PSNR and SSIM": f"on {what}; outputs clipped and rounded to 8 bits; a border of {self.scale} pixels "
            f"left out; {_windows()}; means over images",
        }

    def _compared(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        inside = slice(self.scale, -self.scale)
        images, wanted = super()._compared(output, targets)
        return luma(images.round())[..., inside, inside], luma(wanted.round())[..., inside, inside]


@dataclass(frozen=True)
class Denoising(Restoration):
    """Images without their noise; compared whole, in all channels."""

    name: ClassVar[str] = "denoising"  # type: ignore[misc]
    usual_pixels: ClassVar[PixelKind] = "gray"

    @property
    def sigma(self) -> float:
        """Of the noise, for pixels from 0 to 255."""
        return self.settings.sigma or SIGMA

    def in_words(self) -> Mapping[str, str]:
        """Which noise there is, and how images are compared."""
        return {
            "Noise": f"Gaussian, sigma {self.sigma:g} of 255, not clipped, the same for every model",
            "PSNR and SSIM": f"on all channels of whole images; outputs clipped, not rounded; {_windows()}; "
            "means over images",
        }


def _windows() -> str:
    return f"SSIM with Gaussian windows of 11x11, sigma 1.5; PSNR at most {BEST_DB:g} dB"


def _sum(values: Tensor) -> Tensor:
    return values.sum().cpu()


def _means(sums: Tensor) -> dict[str, Tensor]:
    return {PSNR.key: sums[0] / sums[2], SSIM.key: sums[1] / sums[2]}


def _mean(sums: Tensor) -> dict[str, Tensor]:
    return {PSNR.key: sums[0] / sums[1]}
