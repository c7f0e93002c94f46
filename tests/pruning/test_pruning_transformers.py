"""Transformers for real: the residual width, heads, per-head dimensions and the MLP all lose units, with no help."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from metaprune_cli.api.prune import prune
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.units import Family
from metaprune_cli.pruning import check
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.surgery import apply_plan, route_of

Inputs = Tensor | tuple[Tensor, ...]


class Block(nn.Module):
    """Attention with one packed projection, as in timm."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * self.scale @ k.transpose(-2, -1)).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Distilled(nn.Module):
    """A class token and a distillation token, each with a head of its own."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls, self.dist = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 18, width))
        self.blocks, self.norm = nn.Sequential(Block(width), Block(width)), nn.LayerNorm(width)
        self.head, self.head_dist = nn.Linear(width, 5), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.patch(x).flatten(2).transpose(1, 2)
        tokens = [t.expand(x.shape[0], -1, -1) for t in (self.cls, self.dist)]
        x = self.norm(self.blocks(torch.cat([*tokens, x], 1) + self.positions))
        first, second = self.head(x[:, 0]), self.head_dist(x[:, 1])
        return (first, second) if self.training else (first + second) / 2


class Sequences(nn.Module):
    """One of torch.nn's transformers between projections, with a causal mask on its first argument if wanted."""

    def __init__(self, inner: nn.Module, *, causal: bool = False, batch_first: bool = True) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 16), nn.Linear(5, 16), nn.Linear(16, 3)
        self.inner, self.causal, self.batch_first = inner, causal, batch_first

    def forward(self, x: Tensor, y: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
        length = x.shape[1 if self.batch_first else 0]
        mask = nn.Transformer.generate_square_subsequent_mask(length) if self.causal else None
        h = self.first(x)
        if isinstance(self.inner, nn.TransformerEncoder):
            return self.head(self.inner(h, mask=mask, src_key_padding_mask=padding))
        other = self.second(y)
        if isinstance(self.inner, nn.Transformer):
            return self.head(self.inner(other, h, tgt_mask=mask))
        return self.head(self.inner(h, other, tgt_mask=mask))


class Crossed(nn.Module):
    """nn.MultiheadAttention over another sequence, whose weights may be asked for."""

    def __init__(self, *, ask: bool = False, **options: object) -> None:
        super().__init__()
        keys, values = (int(options.get(name) or 16) for name in ("kdim", "vdim"))  # type: ignore[call-overload]
        self.first, self.keys, self.values = nn.Linear(6, 16), nn.Linear(5, keys), nn.Linear(5, values)
        self.inner = nn.MultiheadAttention(16, 4, batch_first=True, **options)  # type: ignore[arg-type]
        self.head, self.ask = nn.Linear(16, 3), ask

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        h = self.first(x)
        out, weights = self.inner(h, self.keys(y), self.values(y), attn_mask=mask, need_weights=self.ask)
        return (self.head(h + out), weights) if self.ask else self.head(h + out)


def swin(block: Callable[..., nn.Module], merging: Callable[..., nn.Module]) -> nn.Module:
    sizes = {"patch_size": [2, 2], "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return SwinTransformer(**sizes, num_classes=5, block=block, downsample_layer=merging)


def vit() -> nn.Module:
    return VisionTransformer(16, 4, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=24, num_classes=5)


def encoder(*, batch_first: bool = True, causal: bool = False) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first)
    inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Sequences(inner, causal=causal, batch_first=batch_first)


def decoder(*, batch_first: bool = True) -> nn.Module:
    layer = nn.TransformerDecoderLayer(16, 4, 24, batch_first=batch_first)
    return Sequences(nn.TransformerDecoder(layer, 1), causal=True, batch_first=batch_first)


def both(*, batch_first: bool = True) -> nn.Module:
    inner = nn.Transformer(16, 4, 1, 1, 24, batch_first=batch_first)
    return Sequences(inner, causal=True, batch_first=batch_first)


def images(size: int = 16) -> Inputs:
    return torch.randn(1, 3, size, size)


def pairs(*, batch_first: bool = True) -> tuple[Tensor, ...]:
    two = torch.randn(1, 4, 6), torch.randn(1, 7, 5)
    return two if batch_first else tuple(t.transpose(0, 1) for t in two)


PADDING = torch.tensor([[False, False, False, True]])
V1 = partial(swin, SwinTransformerBlock, PatchMerging)
V2 = partial(swin, SwinTransformerBlockV2, PatchMergingV2)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs], int]] = {
    "vit": (vit, images, 2),
    "distilled": (Distilled, images, 2),
    "swin-v1": (V1, images, 4),
    "swin-v2": (V2, images, 4),
    "encoder": (encoder, lambda: (pairs()[0],), 2),
    "encoder-sequence-first-causal": (
        partial(encoder, batch_first=False, causal=True),
        lambda: (pairs(batch_first=False)[0],),
        2,
    ),
    "encoder-padding": (encoder, lambda: {"x": pairs()[0], "padding": PADDING}, 2),
    "encoder-sequence-first-padding": (
        partial(encoder, batch_first=False),
        lambda: {"x": pairs(batch_first=False)[0], "padding": PADDING},
        2,
    ),
    "decoder": (decoder, pairs, 2),
    "decoder-sequence-first": (partial(decoder, batch_first=False), partial(pairs, batch_first=False), 2),
    "transformer": (both, pairs, 3),
    "transformer-sequence-first": (partial(both, batch_first=False), partial(pairs, batch_first=False), 3),
    "cross": (Crossed, pairs, 1),
    "cross-other-widths": (partial(Crossed, kdim=12, vdim=10), pairs, 1),
    "cross-key-bias": (partial(Crossed, add_bias_kv=True), pairs, 1),
    "cross-weights-asked": (partial(Crossed, ask=True), pairs, 1),
    "cross-mask": (Crossed, lambda: (*pairs(), torch.randn(4, 7)), 1),
}
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")
every = pytest.mark.parametrize("name", CASES)


@cache
def traced(name: str) -> tuple[nn.Module, NeuronGraph, Inputs]:
    torch.manual_seed(0)
    make, example, _ = CASES[name]
    model, inputs = make().eval(), example()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model, encode(model, inputs), inputs


def random_plan(graph: NeuronGraph, seed: int, share: float = 0.4) -> Plan:
    """Every family that can loses ``share`` of its units, at least one."""
    coins = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in free(graph):
        units = family.units[graph.units.prunable[family.units]]
        kept[units[coins[units].argsort()[: max(1, int(share * len(units)))]]] = False
    return plan_of(graph, kept)


def plan_of(graph: NeuronGraph, kept: Tensor) -> Plan:
    cost = Cost.of(graph)
    return Plan(kept, cost.macs(torch.ones_like(kept)), cost.macs(kept), 0, 0, 1.0, ())


def free(graph: NeuronGraph) -> list[Family]:
    return [family for family in graph.units.families if family.locked is None]


@every
def test_heads_and_everything_else_can_go(name: str) -> None:
    _, graph, _ = traced(name)
    heads = [family for family in graph.units.families if family.kind == "heads"]
    assert [family.locked for family in heads] == [None] * CASES[name][2]
    reasons = {family.locked for family in graph.units.families} - {None}
    assert reasons == {"no neuron: a constant", "it is an input of the model", "it is an output of the model"}


@every
def test_what_is_left_is_the_original_without_some_of_every_family(name: str) -> None:
    model, graph, inputs = traced(name)
    plan = random_plan(graph, 0)
    small = apply_plan(model, graph, plan, inputs)
    assert route_of(small) == "program"
    for training in (False, True):
        found = check(model, small, graph, plan, inputs, training=training, weights="random")
        assert found.comparable, found.reason


@pytest.mark.parametrize("name", [name for name in CASES if name != "swin-v2"])
def test_twice_as_fast(name: str) -> None:
    """Of a Swin v2 this small, the network of its position bias is most, and 80 % of that may go: 1.47 times."""
    model, graph, inputs = traced(name)
    pruned = prune(model, inputs, speedup=2.0, graph=graph)
    assert pruned.plan.speedup >= 2
    assert pruned.report["check"]["comparable"]


def test_whole_heads_leave_the_parameters() -> None:
    model, graph, inputs = traced("swin-v1")
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    outputs = []
    for family in (f for f in free(graph) if f.kind == "heads"):
        kept[family.units[0]] = False
    small = apply_plan(model, graph, plan_of(graph, kept), inputs)
    before, after = model.state_dict(), small.state_dict()
    for name in (n for n in before if n.endswith("relative_position_bias_table")):
        heads = before[name].size(1)
        assert after[name].size(1) == heads - 1, name
        qkv = name.replace("relative_position_bias_table", "qkv.weight")
        assert after[qkv].size(0) * heads == before[qkv].size(0) * (heads - 1), qkv
    for network in (model, small, apply_plan(model, graph, random_plan(graph, 1), inputs)):
        with torch.no_grad():
            outputs.append(network(inputs))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[first] - outputs[second]).norm() > 1e-3 * outputs[first].norm()


def test_the_class_follows_where_only_the_mlp_goes() -> None:
    model, graph, inputs = traced("vit")
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in (f for f in free(graph) if len(f.units) == 24):
        kept[family.units[:7]] = False
    small = apply_plan(model, graph, plan_of(graph, kept), inputs)
    assert route_of(small) == "class"
    assert small.state_dict()["encoder.layers.encoder_layer_0.mlp.0.weight"].shape == (17, 16)
    assert check(model, small, graph, plan_of(graph, kept), inputs, training=True, weights="random").comparable


@pytest.mark.parametrize("name", ["encoder-sequence-first-padding", "transformer-sequence-first"])
def test_a_program_takes_any_batch_where_the_sequence_comes_first(name: str) -> None:
    model, graph, inputs = traced(name)
    small = apply_plan(model, graph, random_plan(graph, 0), inputs)
    x = inputs["x"] if isinstance(inputs, dict) else inputs[0]
    rest = {"padding": PADDING.repeat(3, 1)} if isinstance(inputs, dict) else {"y": inputs[1].repeat(1, 3, 1)}
    with torch.no_grad():
        several = small(x.repeat(1, 3, 1), **rest)
        one = small(**inputs) if isinstance(inputs, dict) else small(*inputs)
    torch.testing.assert_close(several, one.repeat(1, 3, 1))


def test_heads_that_an_input_is_for_stay() -> None:
    model, inputs = Crossed().eval(), (*pairs(), torch.randn(4, 4, 7))
    heads = [family for family in encode(model, inputs).units.families if family.kind == "heads"]
    assert [family.locked for family in heads] == ["it is an input of the model"]
