"""Vision models as people write them: U-Nets, gates, splits, branches, odd convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from people import Catalogue, Net, conv_block, head, image, signal, volume
from torch import Tensor, nn

ENTRIES = Catalogue()


class UNet(nn.Module):
    def __init__(self, up: str, join: str) -> None:
        super().__init__()
        self.join, self.resize = join, up
        self.enc1 = self.block(3, 8)
        self.enc2 = self.block(8, 8 if join == "add" else 12)
        width = 8 if join == "add" else 12
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2) if up == "transposed" else nn.Identity()
        self.dec = self.block(8 if join == "add" else 20, 8)
        self.out = nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(into: int, outof: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(into, outof, 3, padding=1), nn.GroupNorm(4, outof), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enc1(x)
        low = self.enc2(F.max_pool2d(skip, 2))
        if self.resize == "transposed":
            high = self.up(low)
            dy, dx = skip.size(2) - high.size(2), skip.size(3) - high.size(3)
            high = F.pad(high, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        elif self.resize == "crop":
            high = F.interpolate(low, scale_factor=3)[:, :, : skip.size(2), : skip.size(3)]
        else:
            high = F.interpolate(low, size=skip.shape[2:], mode=self.resize)
        both = skip + high if self.join == "add" else torch.cat([skip, high], dim=1)
        return self.out(self.dec(both))


def odd_image() -> Tensor:
    return torch.randn(1, 3, 9, 7)


@ENTRIES.add(odd_image, 0.9, comparable=False)
def unet_transposed_concat() -> nn.Module:
    return UNet("transposed", "concat")


@ENTRIES.add(odd_image, 0.9, comparable=False)
def unet_bilinear_add() -> nn.Module:
    return UNet("bilinear", "add")


@ENTRIES.add(odd_image, 0.9, comparable=False)
def unet_nearest_concat() -> nn.Module:
    return UNet("nearest", "concat")


@ENTRIES.add(odd_image, 0.9, comparable=False)
def unet_crop_add() -> nn.Module:
    return UNet("crop", "add")


@ENTRIES.add(signal, 0.9)
def one_dimensional() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 3, padding=1, dilation=1),
        nn.BatchNorm1d(8),
        nn.GELU(),
        nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8),
        nn.Conv1d(8, 12, 1),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(72, 3),
    )


@ENTRIES.add(volume, 0.9)
def three_dimensional() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool3d(2),
        nn.ConvTranspose3d(6, 4, 2, stride=2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


@ENTRIES.add(image, 0.9)
def grouped_and_depthwise() -> nn.Module:
    return nn.Sequential(
        conv_block(3, 8),
        conv_block(8, 16, groups=4),
        conv_block(16, 32, groups=16),
        nn.ConvTranspose2d(32, 32, 2, stride=2, groups=32),
        nn.ConvTranspose2d(32, 16, 3, groups=4),
        nn.Conv2d(16, 12, 3, dilation=2, padding_mode="reflect", padding=2),
        nn.Conv2d(12, 12, 3, padding_mode="circular", padding=1),
        head(12),
    )


@ENTRIES.add(image, 0.5)
def depthwise_on_the_input() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 9, 3, groups=3), nn.ReLU(), nn.Conv2d(9, 8, 1), nn.ReLU(), head(8))


@ENTRIES.add(image, 0.9)
def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        nn.PixelUnshuffle(2), conv_block(12, 8), conv_block(8, 24), nn.PixelShuffle(2), conv_block(6, 8), head(8)
    )


@ENTRIES.add(image, 0.9)
def squeeze_and_excitation() -> nn.Module:
    gate = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        b, c, _, _ = x.shape
        return m.head(m.b(x * m.gate(x.mean((2, 3)).view(b, c)).view(b, c, 1, 1)))

    return Net(forward, a=conv_block(3, 8), gate=gate, b=conv_block(8, 8), head=head(8))


@ENTRIES.add(image, 0.7, comparable=False)
def convolutional_block_attention() -> nn.Module:
    mlp = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        x = x * torch.sigmoid(m.mlp(F.adaptive_avg_pool2d(x, 1)) + m.mlp(F.adaptive_max_pool2d(x, 1)))
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return m.head(x * torch.sigmoid(m.spatial(both)))

    return Net(forward, a=conv_block(3, 8), mlp=mlp, spatial=nn.Conv2d(2, 1, 7, padding=3), head=head(8))


@ENTRIES.add(image, 0.6, expected="only one unit")
def efficient_channel_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        y = F.adaptive_avg_pool2d(x, 1)
        y = m.mix(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return m.head(m.b(x * y.sigmoid()))

    mix = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    return Net(forward, a=conv_block(3, 8), mix=mix, b=conv_block(8, 8), head=head(8))


class Res2Net(nn.Module):
    def __init__(self, width: int = 4, scale: int = 3) -> None:
        super().__init__()
        self.stem, self.width, self.scale = conv_block(3, 8), width, scale
        self.inner = conv_block(8, width * scale, 1)
        self.convs = nn.ModuleList(conv_block(width, width) for _ in range(scale - 1))
        self.outer = nn.Conv2d(width * scale, 8, 1)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts = torch.chunk(self.inner(x), self.scale, 1)
        outs = [parts[0]]
        for conv, part in zip(self.convs, parts[1:], strict=True):
            outs.append(conv(part if len(outs) == 1 else part + outs[-1]))
        return self.head(F.relu(x + self.outer(torch.cat(outs, 1))))


@ENTRIES.add(image, 0.9)
def res2net() -> nn.Module:
    return Res2Net()


@ENTRIES.add(image, 0.5)
def shuffle_unit() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        left, right = m.stem(x).chunk(2, dim=1)
        x = torch.cat([left, m.branch(right)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        return m.head(x)

    branch = nn.Sequential(conv_block(4, 4, 1), conv_block(4, 4, groups=4), conv_block(4, 4, 1))
    return Net(forward, stem=conv_block(3, 8), branch=branch, head=head(8))


@ENTRIES.add(image, 0.9)
def cross_stage_partial() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        first, second = m.stem(x).chunk(2, 1)
        return m.head(m.merge(torch.cat([first, second, m.deep(second)], 1)))

    return Net(forward, stem=conv_block(3, 12), deep=conv_block(6, 6), merge=conv_block(18, 8), head=head(8))


@ENTRIES.add(image, 0.9)
def dual_path_uneven_split() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        residual, dense = torch.split(m.stem(x), [8, 4], dim=1)
        new_residual, new_dense = torch.split(m.block(torch.cat([residual, dense], 1)), [8, 2], dim=1)
        return m.head(torch.cat([residual + new_residual, dense, new_dense], 1))

    block = nn.Sequential(conv_block(12, 10, 1), nn.Conv2d(10, 10, 3, padding=1))
    return Net(forward, stem=conv_block(3, 12), block=block, head=head(14))


@ENTRIES.add(image, 0.9)
def ghost_slicing() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.primary(m.stem(x))
        return m.head(torch.cat([x, m.cheap(x)], 1)[:, :14])

    cheap = conv_block(8, 8, groups=8)
    return Net(forward, stem=conv_block(3, 6), primary=conv_block(6, 8, 1), cheap=cheap, head=head(14))


@ENTRIES.add(image, 0.9)
def rep_vgg() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(m.bn3(m.conv3(x)) + m.bn1(m.conv1(x)) + m.bn0(x)))

    convs = {"conv3": nn.Conv2d(8, 8, 3, padding=1, bias=False), "conv1": nn.Conv2d(8, 8, 1, bias=False)}
    norms = {f"bn{i}": nn.BatchNorm2d(8) for i in (0, 1, 3)}
    return Net(forward, stem=conv_block(3, 8), **convs, **norms, head=head(8))


@ENTRIES.add(image, 0.9)
def atrous_pyramid() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        pooled = F.interpolate(m.pool(F.adaptive_avg_pool2d(x, 1)), size=x.shape[-2:], mode="bilinear")
        outs = [F.relu(branch(x)) for branch in m.branches]
        return F.interpolate(m.out(m.merge(torch.cat([*outs, pooled], 1))), scale_factor=2, mode="bicubic")

    branches = nn.ModuleList(nn.Conv2d(8, 6, 3, padding=d, dilation=d) for d in (1, 2, 3))
    merge, out = conv_block(24, 8, 1), nn.Conv2d(8, 2, 1)
    return Net(forward, stem=conv_block(3, 8), branches=branches, pool=nn.Conv2d(8, 6, 1), merge=merge, out=out)


@ENTRIES.add(image, 0.9)
def feature_pyramid() -> nn.Module:
    def forward(m: Any, x: Tensor) -> dict[str, Tensor]:
        fine = m.one(x)
        coarse = m.two(F.avg_pool2d(fine, 2))
        top = m.lateral2(coarse)
        down = m.lateral1(fine) + F.interpolate(top, size=fine.shape[-2:], mode="nearest")
        return {"coarse": m.shared(m.smooth(top)), "fine": m.shared(m.smooth(down))}

    parts = {"lateral1": nn.Conv2d(8, 6, 1), "lateral2": nn.Conv2d(10, 6, 1), "smooth": nn.Conv2d(6, 6, 3, padding=1)}
    return Net(forward, one=conv_block(3, 8), two=conv_block(8, 10), **parts, shared=nn.Conv2d(6, 2, 1))


@ENTRIES.add(image, 0.9)
def same_convolution_twice() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(m.conv(F.relu(m.conv(x)))))

    return Net(forward, stem=conv_block(3, 8), conv=nn.Conv2d(8, 8, 3, padding=1), head=head(8))


@ENTRIES.add(lambda: (image(), image()), 0.9)
def siamese() -> nn.Module:
    def forward(m: Any, left: Tensor, right: Tensor) -> Tensor:
        a, b = m.trunk(left).flatten(1), m.trunk(right).flatten(1)
        return m.fc(torch.cat([(a - b).abs(), a * b], 1))

    trunk = nn.Sequential(conv_block(3, 8), conv_block(8, 6), nn.AdaptiveAvgPool2d(1))
    return Net(forward, trunk=trunk, fc=nn.Linear(12, 2))


@ENTRIES.add(image, 0.9)
def norms_without_parameters() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.InstanceNorm2d(6),
        nn.PReLU(6),
        head(6),
    )


@ENTRIES.add(lambda: torch.randn(2, 3, 8, 8), 0.9)
def batch_norm_without_statistics() -> nn.Module:
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), norm, nn.ReLU6(), nn.Dropout2d(0.0), head(8))


@ENTRIES.add(image, 0.8, comparable=False)
def norms_over_channels() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.LocalResponseNorm(3),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.LayerNorm((6, 8, 8)),
        nn.Hardswish(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.GroupNorm(1, 6),
        nn.Conv2d(6, 6, 3),
        nn.GroupNorm(6, 6),
        head(6),
    )


@ENTRIES.add(image, 0.9)
def max_unpool() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x, where = F.max_pool2d(m.a(x), 2, return_indices=True)
        return m.c(F.max_unpool2d(m.b(x), where, 2))

    return Net(forward, a=conv_block(3, 8), b=conv_block(8, 8), c=nn.Conv2d(8, 2, 1))


@ENTRIES.add(image, 0.5)
def spatial_transformer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        theta = m.locate(x).view(-1, 2, 3)
        grid = F.affine_grid(theta, [x.size(0), 8, 6, 6], align_corners=False)
        return m.head(m.b(F.grid_sample(m.a(x), grid, align_corners=False)))

    locate = nn.Sequential(conv_block(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    return Net(forward, locate=locate, a=conv_block(3, 8), b=conv_block(8, 8), head=head(8))


@ENTRIES.add(image, 0.9)
def regions_of_interest() -> nn.Module:
    from torchvision.ops import roi_align

    def forward(m: Any, x: Tensor) -> Tensor:
        boxes = x.new_tensor([[0, 1, 1, 6, 6], [0, 0, 2, 5, 7]])
        return m.fc(roi_align(m.b(m.a(x)), boxes, 2).flatten(1))

    return Net(forward, a=conv_block(3, 8), b=conv_block(8, 6), fc=nn.Linear(24, 3))


@ENTRIES.add(image, 0.5, same_macs=False)
def deformable() -> nn.Module:
    from torchvision.ops import DeformConv2d

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.head(F.relu(m.conv(x, m.offset(x), m.mask(x).sigmoid())))

    offset, mask = nn.Conv2d(8, 18, 3, padding=1), nn.Conv2d(8, 9, 3, padding=1)
    conv = DeformConv2d(8, 10, 3, padding=1)
    return Net(forward, a=conv_block(3, 8), offset=offset, mask=mask, conv=conv, head=head(10))


@ENTRIES.add(image, 0.4)
def quantization_stubs() -> nn.Module:
    from torch.ao.quantization import DeQuantStub, QuantStub

    return nn.Sequential(QuantStub(), conv_block(3, 8), conv_block(8, 8), head(8), DeQuantStub())


@ENTRIES.add(image, 0.9)
def dense_and_auxiliary() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        x = m.stem(x)
        for layer in m.layers:
            x = torch.cat([x, layer(x)], 1)
        return (m.head(x), m.aux(x)) if m.training else m.head(x)

    layers = nn.ModuleList(conv_block(6 + 4 * i, 4) for i in range(3))
    return Net(forward, stem=conv_block(3, 6), layers=layers, head=head(18), aux=head(18))


def padded_block(into: int, outof: int, **options: Any) -> nn.Sequential:
    """As models that were ported from TensorFlow have it: the padding is a layer of its own."""
    conv = nn.Conv2d(into, outof, 3, stride=2, bias=False, **options)
    return nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), conv, nn.BatchNorm2d(outof), nn.ReLU6())


@ENTRIES.add(image, 0.9)
def padding_layers() -> nn.Module:
    stem, narrow = padded_block(3, 8), conv_block(8, 12, 1)
    return nn.Sequential(stem, padded_block(8, 8, groups=8), narrow, nn.ZeroPad2d(1), nn.MaxPool2d(2), head(12))


@ENTRIES.add(image, 0.0, expected="only one unit")  # columns of zeros lie between those of the channels
def flattened_padding() -> nn.Module:
    return nn.Sequential(conv_block(3, 6), nn.MaxPool2d(2), nn.ZeroPad2d((0, 1, 0, 1)), nn.Flatten(), nn.Linear(150, 3))
