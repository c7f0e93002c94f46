"""A program is the model it was recorded from: outputs, gradients, buffers, modes, types, copies and exports."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.module import Program

Pair = namedtuple("Pair", "scores hidden")


@dataclasses.dataclass
class Result:
    scores: Tensor
    hidden: Tensor


class Tokens(nn.Module):
    """Norms with and without running statistics, dropout, an attention, a rotary table, a mask, tied weights."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.qkv, self.layer_norm = nn.Linear(8, 24), nn.LayerNorm(8)
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu_().transpose(1, 2)
        b, n, c = x.shape
        q, k, v = self.qkv(self.layer_norm(x)).reshape(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4)
        angles = torch.outer(torch.arange(n, device=x.device).float(), torch.ones(2, device=x.device))
        q = torch.cat([q[..., :2] * angles.cos(), q[..., 2:] * angles.sin()], -1)
        mask = torch.zeros(n, n, device=x.device).masked_fill(torch.ones(n, n, device=x.device).triu(1) > 0, -1e9)
        scores = (q @ k.transpose(-2, -1) + mask.to(x.dtype)).softmax(-1)
        x = x + (scores @ v).transpose(1, 2).reshape(b, n, c)
        x = self.second(F.gelu(self.first(x))) * self.frozen
        with torch.no_grad():
            shift = x.mean()
        return self.head(self.drop(x - shift).mean(1))


def program_of(model: nn.Module, inputs: Any, ratio: float = 0.0) -> Program:
    graph = encode(model, inputs)
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in graph.units.families:
        free = family.units[graph.units.prunable[family.units]]
        kept[free[: int(ratio * len(free))]] = False
    return Captured.of(model, graph, inputs).without(graph, kept)


@pytest.fixture
def pair() -> tuple[nn.Module, Program]:
    torch.manual_seed(0)
    model = Tokens().eval()
    return model, program_of(model, torch.randn(1, 3, 5))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_size(pair: tuple[nn.Module, Program], batch: int) -> None:
    model, program = pair
    x = torch.randn(batch, 3, 5)
    assert all([size.step for size in script.varies] == [None, 1] for script in program.scripts.values())
    torch.testing.assert_close(program(x), model(x))


def test_three_steps_of_training_are_the_models(pair: tuple[nn.Module, Program]) -> None:
    for network in pair:
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            network(torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            optimizer.step()
    model, program = pair
    torch.testing.assert_close(dict(program.state_dict()), dict(model.state_dict()), rtol=1e-6, atol=1e-6)
    gradients = [{n: p.grad for n, p in network.named_parameters() if p.grad is not None} for network in pair]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    assert int(program.get_buffer("norm.num_batches_tracked")) == 3


def test_gradients_stay_off_where_the_caller_switched_them_off(pair: tuple[nn.Module, Program]) -> None:
    with torch.no_grad():
        assert not pair[1](torch.randn(2, 3, 5)).requires_grad
        assert not torch.is_grad_enabled()


def test_values_are_let_go_once(pair: tuple[nn.Module, Program]) -> None:
    for script in pair[1].scripts.values():
        steps = [step for _, steps in script.interpreter.regions for step in steps]
        made = {place for step in steps for place in (step.made if isinstance(step.made, tuple) else [step.made])}
        let_go = [place for step in steps for place in step.last]
        assert len(set(let_go)) == len(let_go)
        assert len(made - {-1} - set(let_go)) == 1  # the output


def test_names_order_ties_and_requires_grad_are_the_models(pair: tuple[nn.Module, Program]) -> None:
    model, program = pair
    assert list(program.state_dict()) == list(model.state_dict())
    assert program.get_parameter("first.weight") is program.get_parameter("second.weight")
    wanted = {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)}
    assert {n: p.requires_grad for n, p in program.named_parameters(remove_duplicate=False)} == wanted


def test_dropout_is_active_in_training_only() -> None:
    model = Tokens(dropout=0.5).eval()
    x = torch.randn(4, 3, 5)
    program = program_of(model, x[:1])
    assert torch.equal(program(x), program(x))
    program.train()
    assert not torch.equal(program(x), program(x))
    for network in (model.train(), program):
        torch.manual_seed(1)
        network.seen = network(x)  # type: ignore[assignment]
    torch.testing.assert_close(program.seen, model.seen)


def test_stochastic_depth_is_drawn_anew() -> None:
    from torchvision.ops import StochasticDepth

    model = nn.Sequential(nn.Linear(4, 4), StochasticDepth(0.5, "row"), nn.Linear(4, 2)).eval()
    program = program_of(model, torch.randn(1, 4)).train()
    rows = program(torch.ones(64, 4)).unique(dim=0)
    assert len(rows) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(pair: tuple[nn.Module, Program], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 5)
    expected, program = pair[0](x), copy.deepcopy(pair[1]).to(dtype)
    assert program(x.to(dtype)).dtype == dtype
    torch.testing.assert_close(program(x.to(dtype)).float(), expected, rtol=3e-2, atol=3e-2)


def test_a_cell_without_a_state_follows_the_models_type() -> None:
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.fc = nn.RNNCell(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.cell(x))

    model = Cells().eval()
    program = program_of(model, torch.randn(1, 4), 0.5).double().train()
    program(torch.randn(3, 4, dtype=torch.float64)).sum().backward()
    assert program.get_parameter("cell.weight_ih").shape == (3, 4)


def test_on_meta(pair: tuple[nn.Module, Program]) -> None:
    program = pair[1].to("meta")
    assert program(torch.empty(7, 3, 5, device="meta")).shape == (7, 3)


def saved(program: Program) -> Program:
    stream = io.BytesIO()
    torch.save(program, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)  # type: ignore[no-any-return]


COPIES: dict[str, Callable[[Program], Program]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda p: pickle.loads(pickle.dumps(p)),
    "torch.save": saved,
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_programs_of_their_own(pair: tuple[nn.Module, Program], name: str) -> None:
    program = pair[1]
    x = torch.randn(3, 3, 5)
    expected = program(x)
    other = COPIES[name](program)
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        other.get_parameter("head.bias").add_(1)
    assert torch.equal(program(x), expected)
    assert other.get_parameter("first.weight") is other.get_parameter("second.weight")


def test_a_functional_call(pair: tuple[nn.Module, Program]) -> None:
    model, program = pair
    x = torch.randn(2, 3, 5)
    other = {name: tensor + 0.1 for name, tensor in model.named_parameters()}
    torch.testing.assert_close(functional_call(program, other, (x,)), functional_call(model, other, (x,)))


def test_it_can_be_compiled(pair: tuple[nn.Module, Program], tmp_path: Path) -> None:
    """In a fresh process, where no annotations are checked (which the compiler does not understand)."""
    x = torch.randn(3, 3, 5)
    torch.save((pair[1], x, pair[0](x)), tmp_path / "program.pt")
    script = f"""
import torch
program, x, expected = torch.load({str(tmp_path / "program.pt")!r}, weights_only=False)
torch.testing.assert_close(torch.compile(program, backend="eager", fullgraph=True)(x), expected)
torch.testing.assert_close(torch.compile(program.train(), backend="eager")(x).shape, expected.shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_it_can_be_exported_for_any_batch(pair: tuple[nn.Module, Program]) -> None:
    model, program = pair
    shapes = (({0: torch.export.Dim("batch")},),)
    exported = torch.export.export(program, (torch.randn(2, 3, 5),), dynamic_shapes=shapes, strict=False)
    x = torch.randn(6, 3, 5)
    torch.testing.assert_close(exported.module()(x), model(x))


class Attends(nn.Module):
    """PyTorch's own attention, whose slow path writes its projection as a product for every position."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


def test_attention_runs_as_one_operator_and_a_layer_as_one_product() -> None:
    attention = F.scaled_dot_product_attention
    torch.manual_seed(0)
    model = Attends().eval()
    program = program_of(model, torch.randn(1, 5, 8))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(program(x), model(x))
    assert F.scaled_dot_product_attention is attention
    aten = torch.ops.aten
    for script in program.scripts.values():
        calls = [step.call for _, steps in script.interpreter.regions for step in steps]
        operators = [step.operator for step in script.recording.steps]
        assert operators.count(aten.scaled_dot_product_attention.default) == 1
        assert aten.bmm.default not in calls
    program.train()(x).sum().backward()
    model.train()(x).sum().backward()
    assert program.get_parameter("attention.in_proj_weight").grad is not None
    assert not program(x).equal(program(x))  # dropout of the attention's weights
    shapes = (({0: torch.export.Dim("batch")},),)
    exported = torch.export.export(program.eval(), (x,), dynamic_shapes=shapes, strict=False)
    torch.testing.assert_close(exported.module()(x[:2]), model.eval()(x[:2]))


class Mixed(nn.Module):
    """Several inputs, a keyword, a number, None; what comes back is up to ``wrap``."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Linear(4, 6), nn.Linear(6, 2), wrap

    def forward(self, x: Tensor, scale: int = 1, mask: Tensor | None = None, *, shift: Tensor | None = None) -> Any:
        hidden = self.a(x).relu() * scale
        hidden = hidden if mask is None else hidden * mask
        scores = self.b(hidden)
        return self.wrap(scores if shift is None else scores + shift, hidden.sum(1, keepdim=True))


WRAPS = {
    "tuple": lambda a, b: (a, b),
    "dict": lambda a, b: {"scores": a, "hidden": [b]},
    "named tuple": Pair,
    "dataclass": Result,
}


@pytest.mark.parametrize("name", WRAPS)
def test_outputs_come_back_as_they_are(name: str) -> None:
    model = Mixed(WRAPS[name]).eval()
    program = program_of(model, torch.randn(1, 4), 0.0)
    found, expected = program(torch.ones(3, 4)), model(torch.ones(3, 4))
    assert type(found) is type(expected)
    plain = vars if name == "dataclass" else lambda nest: nest
    torch.testing.assert_close(plain(found), plain(expected))


def test_keywords_numbers_and_none() -> None:
    model = Mixed(lambda a, b: (a, b)).eval()
    inputs = {"x": torch.randn(1, 4), "scale": 3, "mask": None, "shift": torch.randn(1, 2)}
    program = program_of(model, inputs)
    given = {"x": torch.randn(5, 4), "shift": torch.randn(5, 2)}
    torch.testing.assert_close(program(**given, scale=3), model(**given, scale=3))
    with pytest.raises(InputError, match="another value of scale"):
        program(**given, scale=2)
    with pytest.raises(InputError, match="does not take these arguments"):
        program(**given, other=2)
    with pytest.raises(InputError, match="another number of tensors"):
        program(x=given["x"])


def test_an_example_that_cannot_be_repeated_makes_a_program_of_its_sizes() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).view(1, 6))

    model, x = One().eval(), torch.randn(1, 4)
    program = program_of(model, x)
    assert program.scripts["eval"].varies == ()
    torch.testing.assert_close(program(x), model(x))


def test_a_model_without_a_training_mode() -> None:
    class Evaluating(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            return super().forward(x)

    program = program_of(nn.Sequential(Evaluating(3, 2)).eval(), torch.randn(1, 3))
    with pytest.raises(InputError, match="no training mode"):
        program.train()(torch.randn(1, 3))


def test_constants_changed_after_use_are_what_each_use_saw() -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            weights = torch.arange(6.0)
            x = self.a(x) * weights
            weights.add_(10)
            return self.b(x + weights)

    model = Changing().eval()
    x = torch.randn(4, 3)
    torch.testing.assert_close(program_of(model, x[:1])(x), model(x))


def test_what_is_drawn_at_random_is_no_constant() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.randn(2)

    program = program_of(nn.Sequential(Noisy(3, 2)).eval(), torch.randn(1, 3))
    x = torch.randn(1, 3)
    assert not torch.equal(program(x), program(x))
