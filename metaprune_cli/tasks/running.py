"""Images of any size through a network that takes some sizes only: padded, or in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from metaprune_cli.errors import InputError

MARGIN = 16
"""Pixels of a tile beside what is kept of its output, so that its edges are not seen; at most a quarter of its side."""
MULTIPLES = (2, 4, 8, 16, 32, 64)
"""Of sides, that are tried where a network fails."""
Run = Callable[[Tensor], Tensor]


def padded(run: Run, images: Tensor, multiple: int) -> Tensor:
    """``run`` on images (n, c, h, w), whose sides are made multiples first; the outputs are cut accordingly."""
    height, width = images.shape[-2:]
    grown = _grown(images, -height % multiple, -width % multiple)
    return _cut(run(grown), grown, height, width)


def fitting(run: Run, images: Tensor, *, scale: int, multiple: int) -> Tensor:
    """``padded``; a network that can only take sides that are multiples of something is refused by that number.

    Raises:
        InputError: it fails, or returns images that are not ``scale`` times larger, and larger multiples mend that.
    """
    try:
        output = padded(run, images, multiple)
    except RuntimeError as error:
        if (needed := _multiple_for(run, images, scale, multiple)) is None:
            raise
        raise _odd_sides(images, needed, str(error)) from error
    if _is_larger(output, images, scale) or (needed := _multiple_for(run, images, scale, multiple)) is None:
        return output
    raise _odd_sides(images, needed, "outputs of other sides")


def _multiple_for(run: Run, images: Tensor, scale: int, multiple: int) -> int | None:
    """By which multiples the network could take such images; None if by none that is tried."""
    for each in (times * multiple for times in MULTIPLES):
        sides = [each * (-(-size // each) | 1) for size in images.shape[-2:]]  # odd times: multiples of no larger one
        blank = images.new_zeros(*images.shape[:-2], *sides)
        try:
            if _is_larger(run(blank), blank, scale):
                return each
        except RuntimeError:
            continue
    return None


def _is_larger(output: Tensor, images: Tensor, scale: int) -> bool:
    return output.shape[-2:] == (scale * images.shape[-2], scale * images.shape[-1])


def _odd_sides(images: Tensor, multiple: int, got: str) -> InputError:
    return InputError(
        f"The network cannot take images of {images.shape[-1]}x{images.shape[-2]} pixels.",
        expected=f"sides that are multiples of {multiple}",
        got=got,
        next_step=f"--multiple {multiple} pads images to such sides and cuts the outputs",
    )


def in_tiles(run: Run, images: Tensor, side: int) -> Tensor:
    """``run`` on squares of the images (n, c, h, w), all of one size, put together again.

    Args:
        run: returns images that are some whole number of times larger than the tile.
        images: smaller ones than a tile are made as large first.
        side: of a tile.
    """
    height, width = images.shape[-2:]
    grown = _grown(images, max(0, side - height), max(0, side - width))
    margin = min(MARGIN, side // 4)
    starts = [_starts(size, side, margin) for size in grown.shape[-2:]]
    rows = [torch.cat([_tile(run, grown, top, left, side) for left in starts[1]], -1) for top in starts[0]]
    return _cut(torch.cat(rows, -2), grown, height, width)


Span = tuple[int, int, int]
"""Where a tile begins, and from where to where it is kept."""


def _starts(size: int, side: int, margin: int) -> list[Span]:
    """The tiles along one dimension: what is kept of them lies side by side."""
    spans: list[Span] = []
    kept = 0
    while kept < size:
        start = min(max(0, kept - margin), size - side)
        end = size if start + side == size else start + side - margin
        spans.append((start, kept, end))
        kept = end
    return spans


def _tile(run: Run, images: Tensor, row: Span, column: Span, side: int) -> Tensor:
    (top, first_row, last_row), (left, first_column, last_column) = row, column
    output = run(images[..., top : top + side, left : left + side])
    scale = output.shape[-1] // side
    rows = slice((first_row - top) * scale, (last_row - top) * scale)
    columns = slice((first_column - left) * scale, (last_column - left) * scale)
    return output[..., rows, columns]


def _grown(images: Tensor, down: int, right: int) -> Tensor:
    """With rows and columns repeated at the end."""
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images


def _cut(output: Tensor, grown: Tensor, height: int, width: int) -> Tensor:
    """The part of an output that is of the images before they were grown; the scale shows in its size."""
    scale = output.shape[-1] // grown.shape[-1]
    return output[..., : height * scale, : width * scale]
