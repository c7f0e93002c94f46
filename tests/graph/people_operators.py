"""Models in which one operator, or one way of calling, is what matters."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from people import Catalogue, Net, conv_block, head, image, sequence, signal
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ENTRIES = Catalogue()


def around(middle: Any, width: int = 8, **parts: Any) -> nn.Module:
    """Two linear layers of eight neurons, ``middle`` between them, then a head."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.fc(middle(m, m.a(x)))

    return Net(forward, a=nn.Linear(8, 8), fc=nn.Linear(width, 2), **parts)


@ENTRIES.add(image, 0.6)
def unfold_and_fold() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.fold(F.unfold(m.a(x), 3, padding=1), (8, 8), 3, padding=1)
        return m.fc(F.unfold(m.b(x), 2, stride=2).transpose(1, 2))

    return Net(forward, a=conv_block(3, 6), b=conv_block(6, 4), fc=nn.Linear(16, 3))


@ENTRIES.add(sequence, 0.9)
def distances_to_prototypes() -> nn.Module:
    return Net(
        lambda m, x: torch.cdist(m.a(x), m.prototypes[None]),
        a=nn.Linear(8, 6),
        prototypes=nn.Parameter(torch.randn(3, 6)),
    )


@ENTRIES.add(sequence, 0.9, comparable=False)
def cosine_classifier() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return F.normalize(m.b(F.relu(m.a(x))), dim=-1) @ m.weight

    return Net(forward, a=nn.Linear(8, 6), b=nn.Linear(6, 6), weight=nn.Parameter(torch.randn(6, 3)))


@ENTRIES.add(sequence, 0.0, expected="cumsum")
def cumulative_over_neurons() -> nn.Module:
    return around(lambda m, x: x.cumsum(-1))


@ENTRIES.add(sequence, 0.9)
def cumulative_over_positions() -> nn.Module:
    return around(lambda m, x: x.cumsum(1).cummax(1).values)


@ENTRIES.add(sequence, 0.0, expected="sort")
def sorted_neurons() -> nn.Module:
    return around(lambda m, x: x.sort(-1).values)


@ENTRIES.add(sequence, 0.9)
def sorted_positions() -> nn.Module:
    return around(lambda m, x: x.sort(1).values.topk(3, dim=1).values)


@ENTRIES.add(sequence, 0.9)
def second_smallest_of_positions() -> nn.Module:
    return around(lambda m, x: x + x.kthvalue(2, 1).values.unsqueeze(1) + x.mode(1, keepdim=True).values)


@ENTRIES.add(sequence, 0.0, expected="kthvalue over the neurons")
def second_smallest_neuron() -> nn.Module:
    return around(lambda m, x: x + x.kthvalue(2, -1).values.unsqueeze(-1))


@ENTRIES.add(sequence, 0.0, expected="topk")
def top_neurons() -> nn.Module:
    return around(lambda m, x: x.topk(4, dim=-1).values, 4)


@ENTRIES.add(sequence, 0.0, expected="sort over the neurons")
def gathered_neurons() -> nn.Module:
    return around(lambda m, x: x.gather(-1, x.argsort(-1)[..., :4]), 4)


@ENTRIES.add(sequence, 0.9)
def gathered_positions() -> nn.Module:
    def pick(m: Any, x: Tensor) -> Tensor:
        best = m.score(x).squeeze(-1).topk(3, dim=1).indices
        return x.gather(1, best.unsqueeze(-1).expand(-1, -1, x.size(-1)))

    return around(pick, score=nn.Linear(8, 1))


@ENTRIES.add(lambda: (sequence(), torch.tensor([2, 0, 1])), 0.0, expected="depends on data")
def neurons_by_an_input_index() -> nn.Module:
    return Net(lambda m, x, i: m.fc(m.a(x)[..., i]), a=nn.Linear(8, 8), fc=nn.Linear(3, 2))


@ENTRIES.add(sequence, 0.9)
def permuted_by_a_buffer() -> nn.Module:
    return around(lambda m, x: F.relu(x[:, m.order]), order=torch.tensor([5, 3, 1, 0, 2, 4]))


@ENTRIES.add(sequence, 0.0, expected="chosen by constants")
def neurons_permuted_by_a_buffer() -> nn.Module:
    return around(lambda m, x: F.relu(x[..., m.order]), order=torch.randperm(8))


@ENTRIES.add(sequence, 0.9)
def scattered_positions() -> nn.Module:
    def pool(m: Any, x: Tensor) -> Tensor:
        return x.new_zeros(x.size(0), 3, x.size(2)).index_add(1, torch.tensor([0, 0, 1, 1, 2, 2], device=x.device), x)

    return around(pool)


@ENTRIES.add(sequence, 0.9)
def masked_and_selected() -> nn.Module:
    def select(m: Any, x: Tensor) -> Tensor:
        y = torch.where(x > 0, x, torch.zeros_like(x))
        return y.masked_fill(y > 2, 2.0).clamp(min=-1) + x.clone().masked_fill_(x < 0, 0.0)

    return around(select)


@ENTRIES.add(image, 0.9)
def buffer_filled_by_slices() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = m.a(x), m.b(x)
        both = a.new_zeros(a.size(0), a.size(1) + b.size(1), *a.shape[2:])
        both[:, : a.size(1)] = a
        both[:, a.size(1) :] = b
        return m.head(both)

    return Net(forward, a=conv_block(3, 6), b=conv_block(3, 4), head=head(10))


@ENTRIES.add(image, 0.5)
def slices_changed_in_place() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x).clone()
        x[:, :, :2] = 0
        x[:, :, 2:4] += x[:, :, 4:6]
        x[..., 0].mul_(2)
        half = x.size(1) // 2
        x[:, :half] = m.b(x[:, half:].clone())
        return m.head(x.relu())

    return Net(forward, a=conv_block(3, 8), b=conv_block(4, 4), head=head(8))


@ENTRIES.add(sequence, 0.9)
def positions_put_by_index() -> nn.Module:
    def put(m: Any, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, torch.tensor([0, 2])] = x[:, 1:3]
        y[:, [4]] = x[:, [5]]
        return y + x

    return around(put)


@ENTRIES.add(image, 0.9)
def temporal_shift() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        fold, out = x.size(1) // 4, torch.zeros_like(x)
        out[:, :fold, :-1] = x[:, :fold, 1:]
        out[:, fold : 2 * fold, 1:] = x[:, fold : 2 * fold, :-1]
        out[:, 2 * fold :] = x[:, 2 * fold :]
        return m.head(m.b(out))

    return Net(forward, a=conv_block(3, 8), b=conv_block(8, 6), head=head(6))


@ENTRIES.add(image, 0.9)
def rolled() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(m.b(torch.roll(m.a(x), (1, 2), (2, 3)).flip(3).rot90(1, (2, 3))))

    return Net(forward, a=conv_block(3, 8), b=conv_block(8, 6), head=head(6))


@ENTRIES.add(lambda: {"x": sequence(), "scale": 2, "mask": None, "flag": True}, 0.9)
def keywords_and_plain_values() -> nn.Module:
    def forward(m: Any, x: Tensor, *, scale: int, mask: Tensor | None = None, flag: bool = False) -> Tensor:
        x = m.a(x) * scale
        return m.b(x if mask is None and flag else x * mask)

    return Net(forward, a=nn.Linear(8, 6), b=nn.Linear(6, 2))


@ENTRIES.add(lambda: (sequence(), {"extra": [torch.randn(1, 6, 3)], "skip": None}), 0.9)
def nested_inputs() -> nn.Module:
    def forward(m: Any, x: Tensor, more: dict[str, Any]) -> Tensor:
        return m.fc(torch.cat([m.a(x), m.b(more["extra"][0])], -1))

    return Net(forward, a=nn.Linear(8, 6), b=nn.Linear(3, 4), fc=nn.Linear(10, 2))


Scores = namedtuple("Scores", "logits boxes")


@dataclass
class Output:
    logits: Tensor
    features: list[Tensor]


@ENTRIES.add(sequence, 0.3)
def dataclass_output() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Output:
        h = F.relu(m.a(x))
        return Output(m.b(h), [h])

    return Net(forward, a=nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), b=nn.Linear(4, 2))


@ENTRIES.add(sequence, 0.9)
def namedtuple_output() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Scores:
        h = F.relu(m.a(x))
        return Scores(m.b(h), m.c(h))

    return Net(forward, a=nn.Linear(8, 10), b=nn.Linear(10, 2), c=nn.Linear(10, 4))


@ENTRIES.add(signal, 0.9)
def control_flow_on_shapes() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        while x.size(-1) > 4:
            x = F.max_pool1d(m.b(x), 2) if x.size(-1) % 2 == 0 else x[..., 1:]
        return m.fc(x.mean(-1) if x.dim() == 3 else x)

    return Net(forward, a=nn.Conv1d(3, 6, 3), b=nn.Conv1d(6, 6, 3, padding=1), fc=nn.Linear(6, 2))


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)
        self.register_buffer("mean", torch.randn(1, 3, 1, 1))
        self.register_buffer("window", torch.randn(8, 8), persistent=False)
        self.register_buffer("kernel", torch.ones(1, 1, 3, 3) / 9, persistent=False)
        self.plain = torch.randn(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x - self.mean)) * self.window + self.plain
        return self.b(F.conv2d(x, self.kernel.expand(x.size(1), 1, 3, 3), groups=x.size(1), padding=1))


@ENTRIES.add(image, 0.9)
def buffers_as_constants() -> nn.Module:
    return Constants()


@ENTRIES.add(image, 0.9)
def blur_kernel_buffer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        return m.b(F.conv2d(x, m.blur, groups=x.size(1), stride=2, padding=1))

    return Net(forward, a=nn.Conv2d(3, 6, 3, padding=1), blur=torch.ones(6, 1, 3, 3) / 9, b=nn.Conv2d(6, 2, 1))


@ENTRIES.add(image, 0.5)
def spectral_filter() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        z = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(m.filter)
        return m.head(m.b(torch.fft.irfft2(z, s=x.shape[-2:], norm="ortho")))

    return Net(
        forward, a=conv_block(3, 8), filter=nn.Parameter(torch.randn(8, 8, 5, 2)), b=conv_block(8, 6), head=head(6)
    )


@ENTRIES.add(sequence, 0.9)
def half_precision_part() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.c(m.b(m.a(x).to(m.b.weight.dtype)).to(m.c.weight.dtype))

    return Net(forward, a=nn.Linear(8, 6), b=nn.Linear(6, 6).to(torch.bfloat16), c=nn.Linear(6, 2))


@ENTRIES.add(lambda: torch.rand(1, 2), 0.9)
def fourier_features() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        z = x @ m.frequencies
        return m.net(torch.cat([z.sin(), z.cos()], -1))

    net = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    return Net(forward, frequencies=torch.randn(2, 6), net=net)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@ENTRIES.add(sequence, 0.9)
def custom_function_and_checkpoint() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.c(StraightThrough.apply(checkpoint(m.b, m.a(x), use_reentrant=False)))

    return Net(forward, a=nn.Linear(8, 6), b=nn.Sequential(nn.Linear(6, 6), nn.Tanh()), c=nn.Linear(6, 2))


@ENTRIES.add(sequence, 0.9, comparable=False)
def maximum_over_neurons() -> nn.Module:
    return Net(lambda m, x: m.a(x).max(-1).values, a=nn.Linear(8, 6))


@ENTRIES.add(sequence, 0.9, comparable=False)
def softmax_over_neurons() -> nn.Module:
    return around(lambda m, x: x.softmax(-1) + x.log_softmax(-1))


@ENTRIES.add(sequence, 0.9, comparable=False)
def sum_of_what_does_not_vanish() -> nn.Module:
    return around(lambda m, x: x * (x.sigmoid().sum(-1, keepdim=True) + (x + 1).sum(-1, keepdim=True)))


@ENTRIES.add(sequence, 0.9, comparable=False)
def standardised_over_neurons() -> nn.Module:
    return around(lambda m, x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt())


@ENTRIES.add(lambda: torch.randn(1, 8, 4, 4), 0.5)
def position_as_batch() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = m.norm(m.a(x.permute(0, 2, 3, 1).reshape(-1, c)))
        return m.b(x.view(b, h, w, -1).permute(0, 3, 1, 2))

    return Net(forward, a=nn.Linear(8, 6), norm=nn.BatchNorm1d(6), b=nn.Conv2d(6, 2, 1))


@ENTRIES.add(sequence, 0.0, expected="largest or smallest")
def index_of_the_maximum() -> nn.Module:
    return around(lambda m, x: x * x.argmax(-1, keepdim=True))


@ENTRIES.add(image, 0.9)
def constant_bounds_on_channels() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.head(torch.cat([x[:, :4] * 2, x[:, 4:]], 1))

    return Net(forward, a=conv_block(3, 8), head=head(8))


@ENTRIES.add(lambda: (torch.randn(1, 5, 8), torch.rand(1, 5, 5)), 0.9)
def edges_as_a_matrix() -> nn.Module:
    def forward(m: Any, x: Tensor, edges: Tensor) -> Tensor:
        edges = edges / edges.sum(-1, keepdim=True)
        x = torch.matmul(edges, m.a(x)).relu()
        x = x + torch.bmm(edges.transpose(1, 2), m.b(x)).relu()
        return m.fc(torch.einsum("bij,bjc->bic", edges, x).mean(1))

    return Net(forward, a=nn.Linear(8, 6), b=nn.Linear(6, 6), fc=nn.Linear(6, 2))
