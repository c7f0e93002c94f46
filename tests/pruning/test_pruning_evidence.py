from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from metaprune_cli.config import WITH_DATA
from metaprune_cli.errors import InputError
from metaprune_cli.pruning.criteria import unit_scores
from metaprune_cli.pruning.evidence import MEASURED, MICRO_BATCH, measured_scores
from metaprune_cli.pruning.scoring import UnitTable, score_units


def batches(case, number=3, size=16):
    generator = torch.Generator().manual_seed(0)
    shape = case.inputs.shape[1:]
    return [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(number)
    ]


def hidden(graph, scores):
    start = next(layer.start for layer in graph.layers if layer.name == "0")
    return scores[graph.units.unit_of[start : start + 6]]


def owned(values: dict[str, Tensor]) -> Tensor:
    """The sum over what the mlp's hidden units own."""
    weights = values["0.weight"].sum(1) + values["3.weight"].sum(0)
    return weights + values["0.bias"] + values["1.weight"] + values["1.bias"]


def gradients(model, x, y):
    model = copy.deepcopy(model)
    F.cross_entropy(model(x), y).backward()
    return {name: p.grad * p.detach() for name, p in model.named_parameters()}


def test_the_table_is_what_the_settings_say():
    assert set(MEASURED) == set(WITH_DATA)


@pytest.mark.parametrize("name", ["mlp", "residual", "vit"])
@pytest.mark.parametrize("criterion", WITH_DATA)
def test_every_kind_of_model_can_be_measured_and_stays_as_it_was(traced, name, criterion):
    case = traced(name)
    before = copy.deepcopy(case.model.state_dict())
    raw = measured_scores(case.model, case.graph, criterion, batches(case, 1, 4))
    assert raw.shape == (case.graph.units.num_units,)
    assert raw.isfinite().all()
    assert raw[case.graph.units.prunable].abs().sum() > 0
    assert all(torch.equal(before[n], t) for n, t in case.model.state_dict().items())


def test_taylor_is_the_first_order_change(traced):
    case = traced("mlp")
    data = batches(case)
    total = sum(owned(gradients(case.model, x, y)) for x, y in data)
    assert_close(hidden(case.graph, measured_scores(case.model, case.graph, "taylor", data)), total.abs())


@pytest.mark.parametrize("criterion", sorted(MEASURED))
def test_gradients_may_be_switched_off_around_it(traced, criterion):
    case = traced("mlp")
    data = batches(case)
    with torch.no_grad():
        found = measured_scores(case.model, case.graph, criterion, data)
    assert_close(found, measured_scores(case.model, case.graph, criterion, data))
    assert not found.requires_grad


def test_obd_c_squares_every_small_batch_by_itself(traced):
    case = traced("mlp")
    data = batches(case)
    parts = [(x[i : i + MICRO_BATCH], y[i : i + MICRO_BATCH]) for x, y in data for i in range(0, 16, MICRO_BATCH)]
    expected = torch.stack([owned(gradients(case.model, x, y)).square() for x, y in parts]).mean(0)
    assert_close(hidden(case.graph, measured_scores(case.model, case.graph, "obd-c", data)), expected)


def test_the_hessian_of_a_quadratic_is_found_exactly():
    """Of a diagonal Hessian, Hutchinson's estimate has no variance: one probe tells it."""
    from metaprune_cli.graph import encode

    model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 2, bias=False))
    graph = encode(model, torch.randn(1, 1))
    data = [(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))]
    assert not measured_scores(model, graph, "hessian", data).any(), "zero inputs: a flat loss"
    raw = measured_scores(model, graph, "hessian", [(torch.randn(64, 1), torch.randint(0, 2, (64,)))])
    assert raw.isfinite().all()
    assert raw.any()


def test_activation_is_what_the_readers_get(traced):
    case = traced("mlp")
    data = batches(case)
    with torch.no_grad():
        sent = torch.cat([case.model[2](case.model[1](case.model[0](x))) for x, _ in data]).abs().mean(0)
    assert_close(hidden(case.graph, measured_scores(case.model, case.graph, "activation", data)), sent)


def own_criterion(table: UnitTable) -> Tensor:
    return table.total({name: tensor.abs() for name, tensor in table.tensors.items()})


def wrong_criterion(table: UnitTable) -> Tensor:
    return torch.ones(3)


def test_a_users_own_criterion_is_one_line(traced):
    case = traced("mlp")
    tensors = case.model.state_dict()
    weights = tensors["0.weight"].abs().sum(1) + tensors["3.weight"].abs().sum(0) + tensors["1.weight"].abs()
    scores = score_units(case.model, case.graph, f"{__name__}:own_criterion")
    assert_close(hidden(case.graph, scores), weights / weights.max())
    raw = score_units(case.model, case.graph, f"{__name__}:own_criterion", normaliser="none")
    assert_close(hidden(case.graph, raw), weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{__name__}:wrong_criterion", r"did not return one number for every unit(.|\n)*\(3,\)"),
        (f"{__name__}:no_such", "could not be imported"),
        (f"{__name__}:WITH_DATA", "not callable"),
        ("group-l3", r"Unknown criterion(.|\n)*did you mean 'group-l[12]'"),
    ],
)
def test_a_criterion_that_cannot_be_used_is_refused(traced, name, message):
    with pytest.raises(InputError, match=message):
        score_units(traced("mlp").model, traced("mlp").graph, name)


def test_built_in_ones_are_scored_as_ever(traced):
    case = traced("mlp")
    scores = score_units(case.model, case.graph, "group-l2")
    assert_close(scores, unit_scores(case.graph, case.model.state_dict(), "group-l2"))
    data = batches(case)
    taylor = score_units(case.model, case.graph, "taylor", batches=data)
    assert_close(hidden(case.graph, taylor).max(), torch.tensor(1.0))
