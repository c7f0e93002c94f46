"""The reference: what mixes neurons is computed over the survivors, so that every removal can be checked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.operators.on_survivors import NoReferenceError, put, take
from metaprune_cli.graph.operators.registry import NOTHING
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.pruning import Plan, apply_plan, check, make_plan, masked_copy, reference
from metaprune_cli.pruning.copies import copy_in, random_tensors, silent_entries
from metaprune_cli.pruning.reference import Survivors, reference_outputs


class Mixed(nn.Module):
    """Two convolutions and, between them, whatever mixes the channels of the first."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.mix, self.last = nn.Conv2d(3, 12, 3), mix, nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mix(self.first(x)))


class Tokens(nn.Module):
    """A class token, positions, pre-norm MLP blocks on the residual stream: all of its width can go."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 10)
        self.token = nn.Parameter(torch.randn(1, 1, 10))
        self.positions = nn.Parameter(torch.randn(1, 6, 10))
        self.norm, self.up, self.down = nn.LayerNorm(10), nn.Linear(10, 16), nn.Linear(16, 10)
        self.drop = nn.Dropout(0.5)
        self.out_norm, self.head = nn.LayerNorm(10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.positions
        x = x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))
        return self.head(self.out_norm(x)[:, 0])


def plan_for(graph: NeuronGraph, target: float = 1.4, seed: int = 0) -> Plan:
    scores = torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(seed))
    return make_plan(graph, scores, target)


def pruned(
    model: nn.Module, *shape: int, target: float = 1.4
) -> tuple[nn.Module, nn.Module, NeuronGraph, Plan, Tensor]:
    inputs = torch.randn(shape)
    graph = encode(model.eval(), inputs)
    plan = plan_for(graph, target)
    return model, apply_plan(model, graph, plan, inputs), graph, plan, inputs


NORMS = {
    "layer norm": (nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.ReLU(), nn.Linear(9, 3)), (1, 5)),
    "layer norm without parameters": (
        Mixed(lambda x: F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)),
        (1, 3, 5, 5),
    ),
    "layer norm over positions too": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 3, 3]), nn.Conv2d(8, 2, 3)),
        (1, 3, 5, 5),
    ),
    "rms norm": (nn.Sequential(nn.Linear(5, 9), nn.RMSNorm(9), nn.Linear(9, 3)), (1, 5)),
    "one group": (nn.Sequential(nn.Conv2d(3, 9, 3), nn.GroupNorm(1, 9), nn.Conv2d(9, 2, 1)), (1, 3, 5, 5)),
    "three groups": (nn.Sequential(nn.Conv2d(3, 9, 3), nn.GroupNorm(3, 9), nn.Conv2d(9, 2, 1)), (1, 3, 5, 5)),
}

MIXES = {
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(1),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "mean over everything": lambda x: x * x.mean(),
    "variance": lambda x: x / x.var(1, keepdim=True),
    "standard deviation": lambda x: x / x.std(1, keepdim=True),
    "norm": lambda x: F.normalize(x, dim=1),
    "maximum": lambda x: x + x.amax(1, keepdim=True),
    "maximum with its index": lambda x: x + x.sigmoid().max(1, keepdim=True).values,
    "minimum": lambda x: x * x.exp().amin(1, keepdim=True),
    "median": lambda x: x * x.median(1, keepdim=True).values,
    "logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
    "product": lambda x: x * x.prod(1, keepdim=True),
    "sum of sigmoids": lambda x: x * x.sigmoid().sum(1, keepdim=True),
}


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", [*NORMS, *MIXES])
def test_what_mixes_neurons_is_computed_over_survivors(name: str, training: bool) -> None:
    torch.manual_seed(0)
    model, shape = NORMS[name] if name in NORMS else (Mixed(MIXES[name]), (1, 3, 5, 5))
    *case, inputs = pruned(model, *shape)
    found = check(*case, inputs, training=training)
    assert found.comparable
    assert found.error is not None
    assert found.error < 1e-12
    assert found.how == ("masked" if name == "norm" and not case[2].spans else "survivors")


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_token_that_is_traced_twice_shares_its_fate(training: bool) -> None:
    torch.manual_seed(0)
    model, small, graph, plan, inputs = pruned(Tokens(), 1, 5, 3)
    assert small.token.size(-1) < 10
    found = check(model, small, graph, plan, inputs, training=training)
    assert found.error is not None
    assert found.error < 1e-12
    assert found.how == "survivors"


def small_convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], stochastic_depth_prob=0.3, num_classes=5)


def named(name: str, **sizes: int) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, num_classes=5, **sizes)


NETWORKS = [
    pytest.param(small_convnext, id="small convnext"),
    pytest.param(named("convnext_tiny"), id="convnext_tiny", marks=pytest.mark.slow),
    pytest.param(named("vit_b_16", image_size=32), id="vit_b_16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("build", NETWORKS)
def test_networks_of_layer_norms(build: Callable[[], nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    *case, inputs = pruned(build(), 1, 3, 32, 32, target=1.2)
    found = check(*case, inputs, training=training)
    assert found.error is not None
    assert found.error < 1e-12
    assert found.weights == "random"  # as they are made, their scales are all alike


def swap_kept_channels(small: nn.Module) -> None:
    order = torch.tensor([1, 0, *range(2, len(small[0].weight))])
    small[0].weight.data, small[0].bias.data = small[0].weight.data[order], small[0].bias.data[order]


def drop_another_unit(model: nn.Module, small: nn.Module, kept: list[int]) -> None:
    other = next(i for i in range(9) if i not in kept)
    small[0].weight.data[0], small[0].bias.data[0] = model[0].weight.data[other], model[0].bias.data[other]


@pytest.mark.parametrize("mutation", ["swapped", "another unit", "epsilon"])
def test_a_wrong_small_model_under_a_norm_is_caught(mutation: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.ReLU(), nn.Linear(9, 3))
    model, small, graph, plan, inputs = pruned(model, 1, 5)
    kept = [i for i, row in enumerate(model[0].weight) if bool((small[0].weight == row).all(1).any())]
    assert 1 < len(kept) == len(small[0].weight) < 9
    if mutation == "swapped":
        swap_kept_channels(small)
    elif mutation == "another unit":
        drop_another_unit(model, small, kept)
    else:
        small[1].eps = 0.1
    with pytest.raises(NumericsError, match="does not compute what the masked original computes"):
        check(model, small, graph, plan, inputs)


def test_zeros_are_not_absence_to_a_norm() -> None:
    torch.manual_seed(0)
    model, small, graph, plan, inputs = pruned(nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.Linear(9, 3)), 1, 5)
    assert not torch.allclose(masked_copy(model, graph, plan.kept)(inputs), small(inputs), rtol=0.01)
    assert check(model, small, graph, plan, inputs).how == "survivors"


class Branch(nn.Module):
    """A branch behind a scale, beside a direct path; what the scale hides shows with random weights only."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.act, self.last, self.direct = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.full((3,), scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.direct(x) + self.last(self.act(self.first(x))) * self.scale


@pytest.mark.parametrize("scale", [0.0, 1e-7])
def test_what_a_scale_hides_is_seen_with_random_weights(scale: float) -> None:
    torch.manual_seed(0)
    model, small, graph, plan, inputs = pruned(Branch(scale), 1, 4, target=1.2)
    found = check(model, small, graph, plan, inputs)
    assert found.weights == "random"
    assert found.error is not None
    assert found.error < 1e-12
    small.act = nn.Sigmoid()
    with pytest.raises(NumericsError, match="does not compute"):
        check(model, small, graph, plan, inputs)


@pytest.mark.parametrize("classifier", ["zero", "constant"])
def test_a_constant_output_proves_nothing(classifier: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU())
    with torch.no_grad():
        (model[2].weight if classifier == "zero" else model[2].bias).copy_(
            torch.zeros(()) if classifier == "zero" else torch.full((3,), -100.0)
        )
    model, small, graph, plan, inputs = pruned(model, 1, 4)
    assert check(model, small, graph, plan, inputs).weights == "random"


def test_weights_that_say_enough_are_the_models_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 3))
    case = pruned(model, 1, 5)
    assert check(*case).weights == "own"
    assert check(*case, weights="random").weights == "random"
    assert check(*case).how == "masked"


def test_random_tensors_leave_nothing_silent_and_keep_shapes_and_ties() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.PReLU(), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1))
    nn.init.zeros_(model[3].weight)
    model[1].bias = model[0].bias
    tensors = model.state_dict()
    graph = encode(model, torch.randn(1, 3, 5, 5))
    assert silent_entries(graph, tensors) == ["1.weight", "3.weight"]
    drawn = random_tensors(graph, tensors)
    assert {name: t.shape for name, t in drawn.items()} == {name: t.shape for name, t in tensors.items()}
    assert drawn["1.bias"] is drawn["0.bias"]
    assert bool((drawn["1.running_var"] >= 0.5).all())
    assert drawn["1.num_batches_tracked"] is tensors["1.num_batches_tracked"]
    assert [name for name in silent_entries(graph, drawn) if drawn[name].numel() > 1] == []


def test_double_copies_share_nothing_and_keep_ties() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).double().train()
    model[1].weight = model[0].weight
    copied = copy_in(torch.float64, model, model.state_dict())
    assert copied[1].weight is copied[0].weight
    assert copied[0].weight.data_ptr() != model[0].weight.data_ptr()
    assert_close(copied.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(NumericsError, match=r"(?s)other shapes than the plan leaves.*1\.bias"):
        copy_in(torch.float64, model, {"1.bias": torch.zeros(2)})


def test_losses_and_dropout_in_training_mode() -> None:
    class Lossy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.ReLU())
            self.head = nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
            y = self.head(self.body(x))
            return {"loss": y.square().mean(), "noise": torch.rand(3) + y.mean(0)} if self.training else y

    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    case = pruned(Lossy(), 1, 6)
    torch.random.set_rng_state(state)
    found = check(*case, training=True)
    assert found.error is not None
    assert found.error < 1e-12
    assert torch.equal(torch.random.get_rng_state(), state)
    case[1].body[1].eps = 1.0
    with pytest.raises(NumericsError, match="does not compute"):
        check(*case, training=True)


def test_the_check_changes_nothing() -> None:
    model, small, graph, plan, inputs = pruned(Tokens(), 1, 5, 3)
    before = [{name: t.clone() for name, t in m.state_dict().items()} for m in (model, small)]
    small.train()
    check(model, small, graph, plan, inputs, training=True)
    assert small.training
    assert not model.training
    assert_close([m.state_dict() for m in (model, small)], before, rtol=0, atol=0)


def test_an_operator_that_mixes_without_a_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "operator_of", lambda _: NOTHING)
    *case, inputs = pruned(nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.Linear(9, 3)), 1, 5)
    found = check(*case, inputs)
    assert not found.comparable
    assert found.error is None
    assert found.how is None
    assert found.reason == "removed neurons take part in LayerNorm"


def test_another_trace_is_no_reference() -> None:
    model = nn.Sequential(nn.Linear(5, 9), nn.LayerNorm(9), nn.Linear(9, 3))
    *case, inputs = pruned(model, 1, 5)
    model.insert(1, nn.Linear(9, 9))  # another network than the graph's
    case[0] = model
    with pytest.raises(NoReferenceError, match="on real values the model runs other operators than when it was traced"):
        reference_outputs(copy_in(torch.float64, model, {}), case[2], case[3].kept, [(False, inputs.double())])


def test_survivors_that_are_no_outer_product_are_refused() -> None:
    builder = StructureBuilder()
    ids = builder.neurons.new("x", 4).view(2, 2)
    tracer = Survivors(builder, torch.tensor([True, True, True, True, False]), {})
    activation = torch.randn(2, 2)
    tracer.attach(activation, ids)
    with pytest.raises(NoReferenceError, match="not an outer product"):
        tracer.survivors(activation, [0, 1])


def test_taken_and_put_back() -> None:
    tensor, kept = torch.randn(2, 5, 4), {1: torch.tensor([0, 3]), 2: torch.tensor([1])}
    small = take(tensor, kept)
    assert small.shape == (2, 2, 1)
    whole = put(small, kept, tensor.shape)
    assert_close(take(whole, kept), small, rtol=0, atol=0)
    assert int(whole.count_nonzero()) == small.numel()


def test_random_weights_that_give_no_numbers_prove_nothing() -> None:
    class Root(Branch):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (self.direct.bias * (0.5 - self.direct.bias)).sqrt()

    torch.manual_seed(0)
    model = Root(0.5)
    nn.init.constant_(model.direct.bias, 0.5)
    found = check(*pruned(model, 1, 4, target=1.2))
    assert found.weights == "own"
    assert found.error is not None
    assert found.error < 1e-12
