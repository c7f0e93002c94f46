"""Models that turn, add up, mix or put together parameters before they use them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from people import Catalogue, Net, conv_block, head, image, sequence
from torch import Tensor, nn

ENTRIES = Catalogue()


@ENTRIES.add(image, 0.9)
def positions_from_rows_and_columns() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(F.relu(m.b(m.a(x) + (m.offset + m.rows + m.columns))))

    shapes = {"offset": (12, 1, 1), "rows": (12, 8, 1), "columns": (1, 12, 1, 8)}
    learned = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    return Net(forward, **learned, a=conv_block(3, 12), b=nn.Conv2d(12, 10, 1), head=head(10))


@ENTRIES.add(image, 0.9)
def positions_times_one_learned_number() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x) + m.gain * m.positions
        return m.head(F.relu(m.b(x + m.strength * (m.rows * m.columns))))

    shapes = {
        "gain": (1,),
        "strength": (1, 1, 1),
        "positions": (1, 12, 8, 8),
        "rows": (12, 8, 1),
        "columns": (12, 1, 8),
    }
    learned = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    return Net(forward, **learned, a=conv_block(3, 12), b=nn.Conv2d(12, 10, 1), head=head(10))


def convolved(kernel: Any, **shapes: tuple[int, ...]) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = kernel(m)
        return m.head(F.relu(F.conv2d(m.a(x), weight, padding=weight.size(-1) // 2)))

    learned = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    return Net(forward, **learned, a=conv_block(3, 12), head=head(10))


@ENTRIES.add(image, 0.9)
def mirrored_kernel() -> nn.Module:
    return convolved(lambda m: m.weight.flip(2, 3), weight=(10, 12, 3, 3))


@ENTRIES.add(image, 0.9)
def turned_kernel() -> nn.Module:
    return convolved(lambda m: torch.rot90(m.weight, 1, (2, 3)), weight=(10, 12, 3, 3))


@ENTRIES.add(image, 0.9)
def kernel_with_rows_and_columns_swapped() -> nn.Module:
    return convolved(lambda m: m.weight.transpose(2, 3), weight=(10, 12, 3, 5))


@ENTRIES.add(image, 0.9)
def symmetric_kernel() -> nn.Module:
    return convolved(lambda m: m.weight + m.weight.flip(2) + m.weight.flip(2, 3), weight=(10, 12, 3, 3))


@ENTRIES.add(image, 0.9)
def branches_added_to_a_kernel() -> nn.Module:
    shapes = {"weight": (10, 12, 3, 3), "point": (10, 12, 1, 1), "line": (10, 12, 1, 3)}
    return convolved(lambda m: m.weight + F.pad(m.point, (1, 1, 1, 1)) + F.pad(m.line, (0, 0, 1, 1)), **shapes)


@ENTRIES.add(image, 0.9)
def kernel_less_its_centre_difference() -> nn.Module:
    def kernel(m: Any) -> Tensor:
        return m.weight - 0.7 * F.pad(m.weight.sum((2, 3), keepdim=True), (1, 1, 1, 1))

    return convolved(kernel, weight=(10, 12, 3, 3))


@ENTRIES.add(image, 0.9)
def kernels_added_up() -> nn.Module:
    return convolved(
        lambda m: m.kernels.mean(0) + m.more.sum((0, 1)), kernels=(3, 10, 12, 3, 3), more=(2, 2, 10, 12, 3, 3)
    )


@ENTRIES.add(image, 0.9, same_macs=False)
def kernels_mixed_by_learned_weights() -> nn.Module:
    def kernel(m: Any) -> Tensor:
        return (m.mixture.softmax(0).view(3, 1, 1, 1, 1) * m.kernels).sum(0)

    return convolved(kernel, mixture=(3,), kernels=(3, 10, 12, 3, 3))


@ENTRIES.add(image, 0.3)
def kernel_with_shuffled_outputs() -> nn.Module:
    return convolved(lambda m: m.weight[[3, 1, 0, 2, 9, 8, 7, 6, 5, 4]], weight=(10, 12, 3, 3))


@ENTRIES.add(image, 0.0, expected="computed from")
def kernel_padded_in_space() -> nn.Module:
    return convolved(lambda m: F.pad(m.weight, (1, 1, 1, 1)), weight=(10, 12, 3, 3))


@ENTRIES.add(sequence, 0.9)
def projections_beside_each_other() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        weight, bias = torch.cat([m.q.weight, m.k.weight, m.v.weight]), torch.cat([m.q.bias, m.k.bias, m.v.bias])
        q, k, v = F.linear(x, weight, bias).chunk(3, -1)
        return m.fc((q @ k.mT).softmax(-1) @ v)

    layers = {name: nn.Linear(10, 8) for name in "qkv"}
    return Net(forward, **layers, a=nn.Linear(8, 10), fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.9)
def inputs_beside_each_other() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        both = torch.cat([m.a(x).relu(), m.b(x).tanh()], -1)
        return m.fc(F.relu(both @ torch.cat([m.of_a, m.of_b])))

    learned = {"of_a": nn.Parameter(torch.randn(10, 8)), "of_b": nn.Parameter(torch.randn(6, 8))}
    return Net(forward, **learned, a=nn.Linear(8, 10), b=nn.Linear(8, 6), fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.9, comparable=False)
def a_function_of_weights_beside_each_other() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.linear(m.a(x).tanh(), torch.cat([m.first, m.second]).exp())
        return m.fc(F.relu(x))

    learned = {"first": nn.Parameter(torch.randn(6, 10)), "second": nn.Parameter(torch.randn(4, 10))}
    return Net(forward, **learned, a=nn.Linear(8, 10), fc=nn.Linear(10, 2))


@ENTRIES.add(sequence, 0.9)
def learned_tokens_beside_each_other() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        tokens = torch.cat([m.first, m.others]).expand(x.size(0), -1, -1)
        return m.fc(F.relu(m.b(torch.cat([tokens, x], 1))).mean(1))

    learned = {"first": nn.Parameter(torch.randn(1, 10)), "others": nn.Parameter(torch.randn(3, 10))}
    return Net(forward, **learned, a=nn.Linear(8, 10), b=nn.Linear(10, 6), fc=nn.Linear(6, 2))


@ENTRIES.add(lambda: torch.randn(1, 1, 40), 0.9)
def filters_with_one_number_each() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        times = torch.arange(-4, 5) / 4
        filters = torch.sinc(m.frequency.abs() * times) * m.window
        return m.fc(F.relu(m.b(F.conv1d(x, filters[:, None], padding=4).abs())).mean(-1))

    frequency = nn.Parameter(torch.rand(10, 1) + 0.5)
    parts = {"b": nn.Conv1d(10, 8, 3), "fc": nn.Linear(8, 2), "window": torch.hamming_window(9)}
    return Net(forward, frequency=frequency, **parts)


@ENTRIES.add(sequence, 0.3, expected="without elements")
def layers_without_width() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x) + m.extra(x[..., :0])
        return m.fc(F.relu(m.b(torch.cat([x, m.none(x)], -1))))

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what it cannot initialise
        empty = {"extra": nn.Linear(0, 10), "none": nn.Linear(10, 0)}
    return Net(forward, **empty, a=nn.Linear(8, 10), b=nn.Linear(10, 6), fc=nn.Linear(6, 2))
