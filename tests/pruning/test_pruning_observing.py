"""What images show of units."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph import encode
from metaprune_cli.pruning import observing
from metaprune_cli.pruning.evidence import measured_scores
from metaprune_cli.pruning.observing import EVIDENCE, observe
from metaprune_cli.tasks import Classification

TASK = Classification()


def batches(shape: tuple[int, ...], size: int = 64) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(2)
    ]


def net() -> nn.Sequential:
    """Hidden units: two free ones, the sum of both, one that never sends anything, one that always does the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        weight, bias = model[0].weight, model[0].bias
        bias.zero_()
        weight[2] = weight[0] + weight[1]
        weight[3:] = 0
        bias[4] = -2
    return model


def test_every_figure_of_a_small_network() -> None:
    model, inputs = net(), batches((4,))
    graph = encode(model, torch.zeros(1, 4))
    seen = observe(model, graph, inputs, TASK)
    start = next(layer.start for layer in graph.layers if layer.name == "0")
    hidden = graph.units.unit_of[start : start + 5]
    sent = model[0](torch.cat([x for x, _ in inputs])).detach()
    torch.testing.assert_close(seen["activation"][hidden], sent.abs().mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(seen["deviation"][hidden], sent.std(0, correction=0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(seen["off"][hidden], (sent <= 0).float().mean(0))
    assert seen["unexplained"][hidden].max() < 1e-3  # each of the first three is a sum of the others
    for name in ("taylor", "obd-c"):
        torch.testing.assert_close(seen[name], measured_scores(model, graph, name, inputs, TASK))


def test_what_others_leave_unexplained_is_what_a_regression_leaves() -> None:
    model, inputs = net(), batches((4,))
    with torch.no_grad():
        model[0].weight.normal_(generator=torch.Generator().manual_seed(1))
        model[0].weight[4] = 0
    graph = encode(model, torch.zeros(1, 4))
    seen = observe(model, graph, inputs, TASK)["unexplained"]
    start = next(layer.start for layer in graph.layers if layer.name == "0")
    sent = model[0](torch.cat([x for x, _ in inputs])).detach().double()[:, :4]
    sent = sent - sent.mean(0)
    wanted = []
    for unit in range(4):
        others = sent[:, [k for k in range(4) if k != unit]]
        rest = sent[:, unit] - others @ torch.linalg.lstsq(others, sent[:, unit, None]).solution[:, 0]
        wanted.append(rest.square().sum() / sent[:, unit].square().sum())
    found = seen[graph.units.unit_of[start : start + 5]]
    torch.testing.assert_close(found[:4].double(), torch.stack(wanted), rtol=1e-3, atol=1e-4)
    assert found[4] == 0  # never changes


@pytest.mark.parametrize("name", ["mlp", "residual", "vit"])
def test_every_kind_of_model_can_be_looked_at_and_stays_as_it_was(traced, name) -> None:
    case = traced(name)
    before = copy.deepcopy(case.model.state_dict())
    with torch.no_grad():  # a caller's
        seen = observe(case.model, case.graph, batches(case.inputs.shape[1:], 4), TASK)
    assert tuple(seen) == EVIDENCE
    for values in seen.values():
        assert values.shape == (case.graph.units.num_units,)
        assert values.dtype == torch.float32
        assert values.isfinite().all()
    assert seen["unexplained"].max() <= 1
    assert all(torch.equal(before[n], t) for n, t in case.model.state_dict().items())


def test_a_reader_of_too_many_inputs_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "WIDEST", 3)
    model = net()
    seen = observe(model, encode(model, torch.zeros(1, 4)), batches((4,)), TASK)
    assert not seen["unexplained"].any()
    assert seen["activation"].any()


def test_what_is_not_finite_is_said() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    with pytest.raises(NumericsError, match="not finite"):
        observe(model, encode(model, torch.zeros(1, 4)), batches((4,)), TASK)
