"""Models whose weights are functions of other parameters, or parameters used in their own ways."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from people import Catalogue, Net, conv_block, head, image, sequence
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

ENTRIES = Catalogue()


def three_layers(wrap: Any, **options: Any) -> nn.Module:
    convs = [wrap(nn.Conv2d(i, o, 3, padding=1), **options) for i, o in ((3, 8), (8, 10), (10, 8))]
    return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2], nn.ReLU(), head(8))


@ENTRIES.add(image, 0.9)
def weight_norm_parametrization() -> nn.Module:
    return three_layers(parametrizations.weight_norm)


@ENTRIES.add(image, 0.9)
def weight_norm_over_inputs() -> nn.Module:
    return three_layers(parametrizations.weight_norm, dim=1)


@ENTRIES.add(image, 0.9)
def weight_norm_hook() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return three_layers(weight_norm)


@ENTRIES.add(image, 0.9, comparable=False)
def spectral_norm_parametrization() -> nn.Module:
    return three_layers(parametrizations.spectral_norm)


@ENTRIES.add(lambda: torch.randn(1, 4), 0.9, comparable=False)
def spectral_norm_of_two_by_one() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2), nn.ReLU(), parametrizations.spectral_norm(nn.Linear(2, 1)))


@ENTRIES.add(image, 0.9, comparable=False)
def spectral_norm_on_every_kind_of_layer() -> nn.Module:
    spectral = parametrizations.spectral_norm
    return nn.Sequential(
        spectral(nn.Conv2d(3, 8, 3, padding=1)),
        nn.ReLU(),
        spectral(nn.Conv2d(8, 12, 3, padding=1, groups=2)),
        nn.ReLU(),
        spectral(nn.Conv2d(12, 12, 3, padding=1, groups=12)),
        spectral(nn.ConvTranspose2d(12, 8, 2, stride=2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        spectral(nn.Linear(8, 1)),
    )


@ENTRIES.add(image, 0.9, comparable=False)
def spectral_norm_hook() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return three_layers(spectral_norm)


class LowRank(nn.Module):
    def __init__(self, rows: int, columns: int, rank: int = 2) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(rows, rank)), nn.Parameter(torch.randn(rank, columns))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class Elementwise(nn.Module):
    def __init__(self, function: Any, **buffers: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, weight: Tensor) -> Tensor:
        return self.function(self, weight)


def parametrized(make: Any) -> nn.Module:
    layers = [nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 2)]
    for layer in layers[:3:2]:
        parametrize.register_parametrization(layer, "weight", make(layer), unsafe=True)
    return nn.Sequential(*layers)


@ENTRIES.add(sequence, 0.9, same_macs=False)
def low_rank_parametrization() -> nn.Module:
    return parametrized(lambda layer: LowRank(*layer.weight.shape))


@ENTRIES.add(sequence, 0.9)
def masked_parametrization() -> nn.Module:
    def make(layer: nn.Linear) -> nn.Module:
        return Elementwise(lambda m, w: w * m.mask, mask=(torch.rand(layer.weight.shape) > 0.5).float())

    return parametrized(make)


@ENTRIES.add(sequence, 0.9, comparable=False)
def softplus_parametrization() -> nn.Module:
    return parametrized(lambda layer: Elementwise(lambda m, w: F.softplus(w) - 0.5))


@ENTRIES.add(sequence, 0.0, expected="computed from")
def symmetric_parametrization() -> nn.Module:
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    for layer in layers[:3:2]:
        symmetric = Elementwise(lambda m, w: w.triu() + w.triu(1).transpose(-1, -2))
        parametrize.register_parametrization(layer, "weight", symmetric)
    return nn.Sequential(*layers)


@ENTRIES.add(sequence, 0.0, expected="linalg_matrix", same_macs=False)
def orthogonal_parametrization() -> nn.Module:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.9, comparable=False)
def standardised_weights() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        weight = m.b.weight - m.b.weight.mean(1, keepdim=True)
        return m.c(F.relu(F.linear(x, weight / (weight.std(1, keepdim=True) + 1e-5), m.b.bias)))

    return Net(forward, a=nn.Linear(8, 16), b=nn.Linear(16, 10), c=nn.Linear(10, 2))  # 16: one has no std


@ENTRIES.add(lambda: (image(), torch.randn(1, 4)), 0.0, expected="computed from")
def hypernetwork() -> nn.Module:
    def forward(m: Any, x: Tensor, condition: Tensor) -> Tensor:
        weight = m.generate(condition).view(6, 8, 1, 1)
        return m.head(F.relu(F.conv2d(m.a(x), weight)))

    return Net(forward, a=conv_block(3, 8), generate=nn.Linear(4, 48), head=head(6))


@ENTRIES.add(sequence, 0.9)
def parameter_list_and_dict() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        for weight in m.weights:
            x = F.relu(x @ weight)
        return F.linear(x * m.named["scale"] + m.named["shift"], m.named["out"])

    weights = nn.ParameterList([nn.Parameter(torch.randn(8, 10)), nn.Parameter(torch.randn(10, 6))])
    named = nn.ParameterDict(
        {"scale": nn.Parameter(torch.randn(6)), "shift": nn.Parameter(torch.randn(6)), "out": torch.randn(2, 6)}
    )
    return Net(forward, weights=weights, named=named)


@ENTRIES.add(sequence, 0.7)
def one_parameter_two_views() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.fc(F.relu(x @ m.weight) @ m.weight.t() + m.weight.sum(1))

    return Net(forward, weight=nn.Parameter(torch.randn(8, 6)), fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.5)
def packed_parameter() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a = F.linear(x, m.packed[:6], m.bias[:6])
        b = F.linear(x, m.packed[6:], m.bias[6:])
        return m.fc(F.relu(a) * b.sigmoid())

    return Net(forward, packed=nn.Parameter(torch.randn(12, 8)), bias=nn.Parameter(torch.randn(12)), fc=nn.Linear(6, 2))


@ENTRIES.add(sequence, 0.9)
def layer_scale_and_gates() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        x = x + m.gamma.exp() * m.b(x)
        return m.c(torch.where(x > m.threshold, x, m.slope * x) * torch.sigmoid(m.alpha))

    learned = {n: nn.Parameter(torch.randn(10)) for n in ("gamma", "threshold", "slope")}
    return Net(
        forward,
        a=nn.Linear(8, 10),
        b=nn.Linear(10, 10),
        c=nn.Linear(10, 2),
        **learned,
        alpha=nn.Parameter(torch.ones(1)),
    )


@ENTRIES.add(lambda: (torch.randn(1, 4), torch.randn(1, 5)), 0.8, same_macs=False, expected="bilinear")
def bilinear() -> nn.Module:
    def forward(m: Any, x: Tensor, y: Tensor) -> Tensor:
        return m.fc(F.relu(m.join(m.a(x), m.b(y))))

    return Net(forward, a=nn.Linear(4, 6), b=nn.Linear(5, 6), join=nn.Bilinear(6, 6, 8), fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.9, expected="mixed by a product")
def einsum_experts() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        hidden = F.gelu(torch.einsum("bnd,edh->benh", x, m.up))
        return m.fc(
            torch.einsum("be,bend->bnd", m.gate(x.mean(1)).softmax(-1), torch.einsum("benh,ehd->bend", hidden, m.down))
        )

    learned = {"up": nn.Parameter(torch.randn(3, 8, 6)), "down": nn.Parameter(torch.randn(3, 6, 8))}
    return Net(forward, **learned, gate=nn.Linear(8, 3), fc=nn.Linear(8, 2))


@ENTRIES.add(sequence, 0.9, expected="mixed by a product")
def experts_with_biases() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        tokens = x.flatten(0, 1)
        hidden = torch.einsum("td,edf->etf", tokens, m.up) + m.bias
        mixed = torch.einsum("etd,te->td", torch.bmm(hidden.relu(), m.down), m.gate(tokens).softmax(-1))
        return m.fc(x + mixed.view_as(x))

    learned = {"up": torch.randn(3, 10, 6), "bias": torch.randn(3, 1, 6), "down": torch.randn(3, 6, 10)}
    parameters = {name: nn.Parameter(tensor) for name, tensor in learned.items()}
    return Net(forward, **parameters, embed=nn.Linear(8, 10), gate=nn.Linear(10, 3), fc=nn.Linear(10, 2))


@ENTRIES.add(sequence, 0.5)
def mixture_of_experts() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        gates = m.router(x).softmax(-1)
        x = sum(gates[..., i : i + 1] * expert(x) for i, expert in enumerate(m.experts))
        return m.fc(x)

    experts = nn.ModuleList(nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 10)) for _ in range(3))
    return Net(forward, embed=nn.Linear(8, 10), router=nn.Linear(10, 3), experts=experts, fc=nn.Linear(10, 2))


@ENTRIES.add(sequence, 0.3, comparable=False)
def capsules() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        u = torch.einsum("bni,iod->bnod", m.a(x), m.weight)
        logits = u.new_zeros(u.shape[:3])
        for _ in range(2):
            s = (logits.softmax(2).unsqueeze(-1) * u).sum(1)
            v = s * (s.norm(dim=-1, keepdim=True) / (1 + s.pow(2).sum(-1, keepdim=True)))
            logits = logits + (u * v.unsqueeze(1)).sum(-1)
        return v.norm(dim=-1)

    return Net(forward, a=nn.Linear(8, 6), weight=nn.Parameter(torch.randn(6, 3, 4)))


@ENTRIES.add(lambda: torch.randn(1, 4), 0.4)
def splines_per_edge() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        for weight in (m.one, m.two):
            basis = torch.exp(-((x.unsqueeze(-1) - m.grid) ** 2))
            x = torch.einsum("bik,iok->bo", basis, weight)
        return x

    learned = {"one": nn.Parameter(torch.randn(4, 6, 5)), "two": nn.Parameter(torch.randn(6, 2, 5))}
    return Net(forward, **learned, grid=torch.linspace(-2, 2, 5))
