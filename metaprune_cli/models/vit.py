"""A small vision transformer (https://arxiv.org/abs/2010.11929): torchvision's, in CIFAR's size."""

from __future__ import annotations

from torch import nn

from metaprune_cli.models.layers import scaled

PATCHES_PER_SIDE = 8
HEAD_SIZE = 32


def vit(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    layers: int = 6,
    heads: int = 4,
    patch_size: int | None = None,
) -> nn.Module:
    """Build torchvision's ``VisionTransformer``.

    Args:
        num_classes: size of the output.
        in_channels: channels of the images.
        image_size: side of the images in pixels; the position embedding fixes it.
        width: factor of the head size (32), and so of everything that is ``heads`` head sizes wide.
        layers: encoder blocks.
        heads: attention heads.
        patch_size: side of a patch in pixels; by default, eight patches a side.
    """
    from torchvision.models import VisionTransformer

    patch = patch_size or max(1, image_size // PATCHES_PER_SIDE)
    hidden = heads * scaled(HEAD_SIZE, width)
    model = VisionTransformer(image_size, patch, layers, heads, hidden, 4 * hidden, num_classes=num_classes)
    if in_channels != 3:
        model.conv_proj = nn.Conv2d(in_channels, hidden, patch, patch)
        nn.init.trunc_normal_(model.conv_proj.weight, std=(in_channels * patch * patch) ** -0.5)  # as torchvision's
        nn.init.zeros_(model.conv_proj.bias)
    assert isinstance(model, nn.Module)  # torchvision has no type hints for mypy here
    return model
