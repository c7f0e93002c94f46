"""Small networks of the kinds that people have, by name."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from people import Net
from torch import Tensor, nn


class Kind(NamedTuple):
    """A network and what it takes; ``units``: how many units can go at least; ``route``: how 1.5× is reached."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    units: int
    route: str = "class"


KINDS: dict[str, Kind] = {}


def kind(inputs: Callable[[], Any], units: int, route: str = "class") -> Callable[[Any], Any]:
    def add(make: Any) -> Any:
        KINDS[make.__name__] = Kind(make, inputs, units, route)
        return make

    return add


def rows() -> Tensor:
    return torch.randn(1, 6)


def sequence() -> Tensor:
    return torch.randn(1, 5, 6)


def words() -> Tensor:
    return torch.randint(0, 20, (1, 7))


def image() -> Tensor:
    return torch.randn(1, 3, 8, 8)


@dataclass
class Answer(OrderedDict):  # type: ignore[type-arg]
    """A dataclass that is an ordered dict as well."""

    logits: Tensor | None = None
    cache: Any = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                super().__setitem__(field.name, getattr(self, field.name))


class Cache:
    """Not a container that anybody knows."""

    def __init__(self, *seen: Tensor) -> None:
        self.seen = list(seen)


def perceptron(returns: Callable[[Tensor, Tensor], Any]) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        hidden = m.a(x).relu()
        return returns(m.b(hidden), hidden)

    return Net(forward, a=nn.Linear(6, 12), b=nn.Linear(12, 3))


@kind(rows, 12)
def dataclass_over_dict_with_a_cache() -> nn.Module:
    return perceptron(lambda y, h: Answer(y, Cache(h)))


@kind(rows, 12)
def namespace() -> nn.Module:
    return perceptron(lambda y, h: SimpleNamespace(y=y, note="made by hand", cache=Cache(h)))


@kind(rows, 12)
def object_of_a_class() -> nn.Module:
    return perceptron(lambda y, _: Cache(y))


@kind(rows, 12)
def defaultdict_output() -> nn.Module:
    def returns(y: Tensor, _: Tensor) -> Any:
        found = defaultdict(list)
        found["y"].append(y)
        return found

    return perceptron(returns)


def attention(before: Callable[[Any, Tensor], Tensor] = lambda m, x: x, **more: Any) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = before(m, x)
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        return m.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    return Net(forward, q=nn.Linear(6, 16), k=nn.Linear(6, 16), v=nn.Linear(6, 16), o=nn.Linear(16, 3), **more)


@kind(sequence, 4)
def flow_on_data_and_attention() -> nn.Module:
    return attention(lambda m, x: x.clamp(-9, 9) if bool(x.isinf().any()) else x)


@kind(sequence, 12)
def constant_read_at_every_batch_size() -> nn.Module:
    def before(m: Any, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1]).expand(x.shape[0], -1)
        return x if places[:, 0].any() else 2 * x

    return attention(before)


@kind(sequence, 12)
def constants_listed() -> nn.Module:
    return attention(lambda m, x: torch.stack([x[:, i] for i in torch.arange(5).flip(0).tolist()], 1))


@kind(sequence, 4)
def number_drawn_in_training() -> nn.Module:
    return attention(lambda m, x: 2 * x if m.training and torch.rand([]) < 0.5 else x)


@kind(words, 24)
def tied_embedding() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.words(x)
        return m.out(x + m.down(m.up(x).relu()))

    net = Net(forward, words=nn.Embedding(20, 8), up=nn.Linear(8, 16), down=nn.Linear(16, 8), out=nn.Linear(8, 20))
    net.out.weight = net.words.weight
    return net


@kind(rows, 18)
def tied_autoencoder() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        code = F.linear(m.first(x).relu(), m.weight, m.bias).relu()
        return m.last(F.linear(code, m.weight.t()))

    weight, bias = nn.Parameter(torch.randn(6, 12)), nn.Parameter(torch.randn(6))
    return Net(forward, weight=weight, bias=bias, first=nn.Linear(6, 12), last=nn.Linear(12, 6))


def asked(ask: Callable[[Any, Tensor], Tensor], **more: Any) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.enter(x).relu()
        return m.o(m.attend(ask(m, x), x, x, need_weights=False)[0])

    more |= {"attend": nn.MultiheadAttention(12, 2, batch_first=True), "o": nn.Linear(12, 3)}
    return Net(forward, enter=nn.Linear(6, 12), **more)


@kind(sequence, 12, "program")
def learned_query() -> nn.Module:
    return asked(lambda m, x: m.query.expand(len(x), -1, -1), query=nn.Parameter(torch.randn(1, 2, 12)))


@kind(sequence, 12, "program")
def learned_query_repeated() -> nn.Module:
    return asked(lambda m, x: m.query.weight.unsqueeze(0).repeat(len(x), 1, 1), query=nn.Embedding(2, 12))


@kind(sequence, 12, "program")
def learned_query_normalised() -> nn.Module:
    query, norm = nn.Parameter(torch.randn(1, 2, 12)), nn.LayerNorm(12)
    return asked(lambda m, x: m.norm(m.query).expand(len(x), -1, -1), query=query, norm=norm)


@kind(sequence, 12, "program")
def query_is_a_mean_beside_a_token() -> nn.Module:
    def ask(m: Any, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1, keepdim=True), m.token.expand(len(x), -1, -1)], 1)

    return asked(ask, token=nn.Parameter(torch.randn(1, 1, 12)))


@kind(lambda: torch.randn(1, 5, 6), 8)
def learned_first_state() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.r(x, m.h.expand(-1, len(x), -1).contiguous())[0][:, -1])

    gru = nn.GRU(6, 8, batch_first=True)
    return Net(forward, r=gru, h=nn.Parameter(torch.randn(1, 1, 8)), o=nn.Linear(8, 3))


@kind(image, 8)
def learned_picture() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o((m.a(x) + m.b(m.start)).relu()).mean((2, 3))

    start = nn.Parameter(torch.randn(1, 4, 8, 8))
    convs = {"a": nn.Conv2d(3, 8, 3, padding=1), "b": nn.Conv2d(4, 8, 3, padding=1), "o": nn.Conv2d(8, 3, 1)}
    return Net(forward, start=start, **convs)


@kind(rows, 12)
def row_means_scale_the_weights() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        for weight in (m.a, m.b):
            x = F.linear(x, weight.sign() * weight.abs().mean(1, keepdim=True)).sinh()
        return x

    return Net(forward, a=nn.Parameter(torch.randn(12, 6)), b=nn.Parameter(torch.randn(3, 12)))


@kind(image, 16)
def weights_made_by_a_norm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        for conv, gain in ((m.a, m.ga), (m.b, m.gb)):
            rows = F.batch_norm(conv.weight.flatten(1)[None], None, None, weight=gain, training=True)
            x = F.conv2d(x, rows.view_as(conv.weight), conv.bias).relu()
        return m.o(x.mean((2, 3)))

    a, b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    return Net(forward, a=a, b=b, ga=nn.Parameter(torch.rand(8)), gb=nn.Parameter(torch.rand(8)), o=nn.Linear(8, 3))


@kind(sequence, 12)
def masked_places_in_training() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        if m.training:
            x = x.clone()
            x[torch.arange(5).eq(2).expand(len(x), -1)] = m.mask
        return m.b(x.relu())

    return Net(forward, a=nn.Linear(6, 12), b=nn.Linear(12, 3), mask=nn.Parameter(torch.randn(12)))


@kind(lambda: (words(), torch.tensor([5])), 20)
def packed_sequence() -> nn.Module:
    def forward(m: Any, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(m.e(x), lengths, batch_first=True, enforce_sorted=False)
        read, (last, _) = m.r(packed)
        return m.o(last[-1]) + m.o(nn.utils.rnn.pad_packed_sequence(read, batch_first=True)[0].mean(1))

    return Net(forward, e=nn.Embedding(20, 8), r=nn.LSTM(8, 12, batch_first=True), o=nn.Linear(12, 3))


@kind(rows, 12)
def flow_on_data_and_a_layer_nobody_names() -> nn.Module:
    class WithSpare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.spare = nn.Linear(6, 12), nn.Linear(12, 3), nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            assert not x.isnan().any()
            return self.b(self.a(x).relu())  # type: ignore[no-any-return]

    return WithSpare()


@kind(rows, 12)
def inference_mode() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return m.b(m.a(x).relu())

    return Net(forward, a=nn.Linear(6, 12), b=nn.Linear(12, 3))


def made(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return KINDS[name].make().eval(), KINDS[name].inputs()
