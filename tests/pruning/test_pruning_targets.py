from __future__ import annotations

import pytest
import torch

from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.metrics.memory import peak_activations
from metaprune_cli.pruning.measures import MOST_TURNS, TURNS, measure_for
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.surgery import without
from metaprune_cli.pruning.targets import Target, counted, read_target

READ = {
    "params=2x": Target("params", factor=2.0),
    "macs=50%": Target("macs", factor=2.0),
    "macs=1.5G": Target("macs", limit=1.5e9),
    "params=300k": Target("params", limit=3e5),
    "size=10MB": Target("size", limit=1e7),
    "size=4 MiB": Target("size", limit=4 * 2.0**20),
    "memory=512kib": Target("memory", limit=512 * 2.0**10),
    "latency=3ms": Target("latency", limit=3e-3),
    "latency=.5s": Target("latency", limit=0.5),
    "drop=0.5": Target("drop", limit=0.5),
}


@pytest.mark.parametrize("text", READ)
def test_targets_are_read(text):
    found, expected = read_target(text), READ[text]
    assert found.quantity == expected.quantity
    assert found.factor == expected.factor
    assert found.limit == (None if expected.limit is None else pytest.approx(expected.limit))


@pytest.mark.parametrize(
    "text",
    [
        "params",
        "size=10",
        "latency=3",
        "latency=3MB",
        "macs=3s",
        "params=-2x",
        "size=zMB",
        "=2x",
        "drop=50%",
        "drop=2x",
    ],
)
def test_what_is_no_target_is_refused(text):
    with pytest.raises(InputError, match=r"(?s)target cannot be read.*params=2x"):
        read_target(text)


def test_a_slip_of_the_pen_is_seen():
    with pytest.raises(InputError, match="did you mean 'latency'"):
        read_target("latancy=3ms")


@pytest.mark.parametrize("text", ["params=1x", "macs=100%", "size=120%"])
def test_a_target_must_remove_something(text):
    with pytest.raises(InputError, match="Nothing would be removed"):
        read_target(text)


def scores_of(graph):
    return torch.rand(graph.units.num_units, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("quantity", ["macs", "params", "size"])
@pytest.mark.parametrize("name", ["residual", "resnet18", "mobilenet_v2"])
def test_counted_targets_are_met(traced, name, quantity):
    case = traced(name)
    plan = make_plan(case.graph, scores_of(case.graph), Target(quantity, factor=1.5))
    measure = counted(case.graph, quantity)
    assert measure(plan.kept) <= measure(torch.ones_like(plan.kept)) / 1.5
    assert plan.achieved >= 1.5
    if name != "residual":  # so narrow that a unit is much
        assert plan.achieved < 1.5 * 1.02


def test_bytes_are_those_of_the_tensors(traced):
    case = traced("resnet18")
    plan = make_plan(case.graph, scores_of(case.graph), Target("size", factor=2.0))
    sliced = slice_tensors(case.graph, plan.kept)
    assert plan.measured[1] == sum(t.numel() * t.element_size() for t in sliced.values())


def test_an_absolute_limit_is_met(traced):
    case = traced("resnet18")
    plan = make_plan(case.graph, scores_of(case.graph), read_target("params=6M"))
    assert 0.98 * 6e6 < plan.params_after <= 6e6
    assert plan.requested == pytest.approx(plan.params_before / 6e6)


def test_memory_is_what_the_smaller_model_needs(traced):
    case = traced("residual")
    target = read_target("memory=75%")
    measure = measure_for(target, case.model, case.graph, case.inputs)
    plan = make_plan(case.graph, scores_of(case.graph), target, measure=measure)
    small = without(case.model, case.graph, plan.kept, case.inputs)
    before, after = peak_activations(case.model, case.inputs), peak_activations(small, case.inputs)
    assert plan.measured == (before, after)
    assert after <= 0.75 * before


def test_peak_memory_is_the_largest_that_lives_at_once():
    model = torch.nn.Sequential(torch.nn.Linear(10, 1000), torch.nn.Tanh(), torch.nn.Linear(1000, 10), torch.nn.Tanh())
    assert peak_activations(model, torch.zeros(1, 10)) == 2 * 1000 * 4
    assert peak_activations(model, torch.zeros(3, 10)) == 3 * 2 * 1000 * 4


def timed_ms(case, spread: float):
    """In the place of the clock: a millisecond a parameter, every second turn of a small model slower by ``spread``."""
    whole = sum(p.numel() for p in case.model.parameters())

    def times_interleaved(models, inputs, runs, *_, **__):
        sizes = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
        return {
            name: [size * (1 + spread * (turn % 2) * (size < whole)) for turn in range(runs)]
            for name, size in sizes.items()
        }

    return times_interleaved


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_latency_is_measured_on_the_smaller_model(traced, monkeypatch, spread):
    case = traced("residual")
    monkeypatch.setattr("metaprune_cli.metrics.latency.times_interleaved", timed_ms(case, spread))
    monkeypatch.setattr("metaprune_cli.pruning.measures.times_interleaved", timed_ms(case, spread))
    target = read_target("latency=60%")
    plan = make_plan(
        case.graph,
        scores_of(case.graph),
        target,
        measure=measure_for(target, case.model, case.graph, case.inputs),
    )
    assert plan.params_after * (1 + spread / 2) <= 0.601 * plan.params_before
    assert plan.quantity == "latency"


def test_latency_is_measured_until_it_is_clear(traced, monkeypatch):
    case = traced("residual")
    kept = torch.ones(case.graph.units.num_units, dtype=torch.bool)
    asked: dict[float, int] = {}
    for percent in (50, 99):
        rounds: list[int] = []
        monkeypatch.setattr("metaprune_cli.metrics.latency.times_interleaved", timed_ms(case, 0.0))
        monkeypatch.setattr("metaprune_cli.pruning.measures.times_interleaved", noisy(rounds))
        measure_for(read_target(f"latency={percent}%"), case.model, case.graph, case.inputs)(kept)
        asked[percent] = sum(rounds)
    assert asked == {50: TURNS, 99: MOST_TURNS}


def noisy(rounds: list[int]):
    """Two models of which now the one, now the other takes half as long again."""

    def times_interleaved(models, inputs, runs, *_, **__):
        rounds.append(runs)
        return {name: [1.5 if (turn + n) % 2 else 1.0 for turn in range(runs)] for n, name in enumerate(models)}

    return times_interleaved


def test_a_drop_goes_as_far_as_it_may(traced):
    case = traced("resnet18")
    scores = scores_of(case.graph)
    gone = lambda kept: float((~kept).sum()) / 100  # noqa: E731 - a hundredth of a point a unit
    plan = make_plan(case.graph, scores, read_target("drop=0.5"), measure=gone)
    assert int((~plan.kept).sum()) == 50
    assert plan.measured == (0.0, 0.5)
    assert plan.requested == plan.achieved == plan.speedup > 1
    with pytest.raises(
        TargetError, match=r"Nothing can be removed at a loss of 0.001 points(.|\n)*loss of 0.01 points"
    ):
        make_plan(case.graph, scores, read_target("drop=0.001"), measure=gone)


def test_what_must_be_measured_is_not_guessed(traced):
    case = traced("residual")
    with pytest.raises(InputError, match="latency of a smaller model must be measured"):
        make_plan(case.graph, scores_of(case.graph), read_target("latency=2x"))


def test_a_target_out_of_reach_names_what_can_be_had(traced):
    case = traced("residual")
    with pytest.raises(TargetError, match=r"100 times less parameters cannot be met(.|\n)*nearest feasible"):
        make_plan(case.graph, scores_of(case.graph), read_target("params=100x"))
    with pytest.raises(TargetError, match="Nothing would be removed"):
        make_plan(case.graph, scores_of(case.graph), read_target("params=100M"))
