"""Latents that shrink: the MACs only fall, every target is met to the unit, and what is left is what was trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dhp_networks import EXAMPLES, batch, graph_of, network
from torch import nn

from metaprune_cli.config import DhpSettings, PruneSettings, PruningRule
from metaprune_cli.data import ImageSplit
from metaprune_cli.data.image_split import MemoryImages, Preparation
from metaprune_cli.errors import NumericsError, TargetError
from metaprune_cli.graph import decode
from metaprune_cli.methods.dhp.generated import Generated
from metaprune_cli.methods.dhp.shrinking import Shrinker
from metaprune_cli.pruning.plan import make_plan
from metaprune_cli.pruning.ranking import Limits, plain_limits
from metaprune_cli.pruning.rules import limits_of
from metaprune_cli.pruning.targets import Target
from metaprune_cli.tasks import Classification
from metaprune_cli.training.loop import FitResult, fit
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.planning import planned_by
from metaprune_cli.workflows.pruning import PruningRun

STEPS = 40


def begun(
    name: str,
    *speedups: float,
    settings: DhpSettings | None = None,
    limits: Limits | None = None,
    steps: int = STEPS,
) -> tuple[Generated, Shrinker]:
    settings, graph = settings or DhpSettings(), graph_of(name)
    limits = limits or plain_limits(graph.units, 0.8)
    model = Generated(network(name), graph, EXAMPLES[name], settings, trained=True)
    return model, Shrinker(graph, limits, speedups or (2.0,), settings, steps)


def trained(name: str, model: Generated, shrinker: Shrinker, steps: int = STEPS) -> list[int]:
    """Train towards targets of chance; the MACs after every step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    inputs = batch(name, 12)
    wanted = torch.randn(model(inputs).shape, generator=torch.Generator().manual_seed(2))
    macs = []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (model(inputs) - wanted).square().mean().backward()
        optimizer.step()
        shrinker(model, 0.02)
        macs.append(shrinker.cost.macs(model.kept))
    return macs


def converted(name: str, model: Generated, shrinker: Shrinker, speedup: float) -> nn.Module:
    graph, settings = graph_of(name), PruneSettings(speedup=(speedup,))
    whole = decode(graph.with_tensors(model.state()), network(name))
    graph = graph.with_tensors(whole.state_dict())
    run = PruningRun(whole, EXAMPLES[name], graph, settings, Calibration.none(settings), limits_given=shrinker.limits)
    planned = planned_by(run, model.scores(), Target("macs", factor=speedup), fill=False)
    assert torch.equal(planned.plan.kept, model.kept)
    return planned.carried_out().model


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_schedule_only_falls_meets_its_target_and_conversion_changes_nothing(name: str) -> None:
    model, shrinker = begun(name, 2.0)
    macs = trained(name, model, shrinker)
    assert macs == sorted(macs, reverse=True)
    assert shrinker.is_met(model)
    limit = graph_of(name).macs / 2
    assert macs[-1] <= limit
    plan = make_plan(shrinker.graph, model.scores(), 2.0, limits=shrinker.limits, fill=False)
    assert plan.macs_after == macs[-1]
    last = model.kept.clone()
    last[model.order.argmax()] = True
    assert shrinker.cost.macs(last) > limit  # not one unit more than it takes
    model.eval()
    small = converted(name, model, shrinker, 2.0)
    with torch.no_grad():
        expected = model(batch(name))
        difference = (small(batch(name)) - expected).norm() / expected.norm()
    assert float(difference) < 1e-6


def test_targets_are_met_one_after_the_other_each_to_the_unit() -> None:
    model, shrinker = begun("resnet", 1.5, 2.0, 3.0)
    met: dict[float, tuple[int, int]] = {}
    whole = shrinker.cost.macs(torch.ones_like(model.kept))
    for _ in range(STEPS):
        before = int(model.reached)
        (macs,) = trained("resnet", model, shrinker, 1)
        if int(model.reached) > before:
            more = model.kept
            more[model.order.argmax()] = True
            met[shrinker.speedups[before]] = macs, shrinker.cost.macs(more)
    assert list(met) == [1.5, 2.0, 3.0]
    for speedup, (macs, one_more) in met.items():
        assert macs <= whole / speedup < one_more


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param((PruningRule("*", round_to=2),), id="rounded"),
        pytest.param((PruningRule("*", min_units=3),), id="at least 3"),
        pytest.param((PruningRule("*", max_ratio=0.7), PruningRule("stem", ignore=True)), id="one stays"),
    ],
)
def test_limits_hold_all_along(rules: tuple[PruningRule, ...]) -> None:
    graph = graph_of("dense")
    limits = limits_of(graph, rules, 0.8, model=network("dense"))
    model, shrinker = begun("dense", 1.2, limits=limits)
    for _ in range(STEPS):
        trained("dense", model, shrinker, 1)
        for number, family in enumerate(graph.units.families):
            left, size = int(model.kept[family.units].sum()), len(family.units)
            assert size - left <= int(limits.most[number])
            assert left == size or left % int(limits.multiple[number]) == 0
    assert shrinker.is_met(model)


def test_locked_latents_learn_and_are_never_pulled() -> None:
    model, shrinker = begun("resnet", 1.5, settings=DhpSettings(strength=1e3))
    locked = ~graph_of("resnet").units.prunable
    before = model.latents.detach().clone()
    trained("resnet", model, shrinker, 1)
    assert not bool(model.latents[~locked].any())
    changed = (model.latents != before)[locked]
    assert bool(changed.any())
    assert float(model.latents[locked].detach().abs().min()) > 0.5


def test_the_threshold_is_met_once_small_latents_save_enough() -> None:
    settings = DhpSettings(shrink="threshold", strength=4.0, check_every=4)
    model, shrinker = begun("resnet", 1.5, 2.5, settings=settings)
    seen = []
    for _ in range(STEPS):
        trained("resnet", model, shrinker, 1)
        seen.append((int(model.reached), shrinker.speedup_of(model)))
        assert bool(model.kept.all())
    counts = [reached for reached, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == 2
    for speedup, needed in ((1.5, 1), (2.5, 2)):
        first = next(number for number, (reached, _) in enumerate(seen) if reached >= needed)
        assert seen[first][1] >= speedup
        assert (first + 1) % 4 == 0


def test_a_target_that_is_not_reached_says_how_far_it_came() -> None:
    settings = DhpSettings(shrink="threshold", strength=1e-6)
    model, shrinker = begun("resnet", 2.0, settings=settings)
    trained("resnet", model, shrinker, 3)
    with pytest.raises(TargetError, match=r"2× was not reached within 3 steps") as refused:
        shrinker.check_met(model)
    assert "got: 1×" in str(refused.value)
    assert "larger --strength" in str(refused.value)


def test_a_latent_that_is_no_number_stops_it() -> None:
    model, shrinker = begun("resnet", 2.0, settings=DhpSettings(remove_every=1))
    with torch.no_grad():
        model.latents[0] = float("nan")
    with pytest.raises(NumericsError, match="score is not finite"):
        shrinker(model, 0.1)


def images() -> ImageSplit:
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (96, 1, 8, 8), generator=drawn, dtype=torch.uint8)
    labels = torch.randint(0, 10, (96,), generator=drawn)
    return ImageSplit(MemoryImages(pixels), labels, torch.arange(96), Preparation((0.2,), (0.2,), "none"))


def fitted(model: Generated, shrinker: Shrinker | None, **more: object) -> tuple[FitResult, list[TrainState]]:
    from metaprune_cli.config import OptimSettings

    states: list[TrainState] = []
    settings = OptimSettings(epochs=4, lr=0.05, ema=more.pop("ema", 0.0))  # type: ignore[arg-type]
    result = fit(
        model,
        images(),
        settings,
        task=Classification(),
        batch_size=32,
        augment=False,
        seed=0,
        device=torch.device("cpu"),
        progress=Silence(),
        on_epoch=states.append,
        after_step=shrinker,
        **more,  # type: ignore[arg-type]
    )
    return result, states


def assert_same(first: nn.Module, second: nn.Module) -> None:
    counters = ("steps", "reached")
    mine, theirs = (
        {name: tensor for name, tensor in model.state_dict().items() if name not in counters}
        for model in (first, second)
    )
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def test_without_pull_and_schedule_it_is_the_plain_training() -> None:
    settings = DhpSettings(shrink="threshold", strength=0.0, threshold=1e-30, check_every=2)
    model, shrinker = begun("resnet", 2.0, settings=settings, steps=12)
    plain, _ = fitted(model, None)
    shrunk, _ = fitted(model, shrinker)
    assert_same(shrunk.model, plain.model)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("after", [1, 3])
def test_resumed_equals_uninterrupted(after: int, ema: float) -> None:
    model, shrinker = begun("resnet", 1.5, 2.0, steps=12, settings=DhpSettings(remove_every=2))
    whole, states = fitted(model, shrinker, ema=ema)
    tensors, document = states[after - 1].to_parts()
    resumed, _ = fitted(model, shrinker, ema=ema, state=TrainState.from_parts(tensors, document))
    assert_same(resumed.model, whole.model)
    assert shrinker.is_met(whole.model)
    assert int(whole.model.steps) == 12


def test_it_ends_inside_an_epoch_and_a_resumed_run_knows() -> None:
    settings = DhpSettings(shrink="threshold", strength=5.0, check_every=1)
    model, shrinker = begun("resnet", 1.5, steps=12, settings=settings)
    result, states = fitted(model, shrinker, until=shrinker.is_met)
    steps = int(result.model.steps)
    assert shrinker.is_met(result.model)
    assert steps < 12
    assert steps % 3  # of an epoch
    assert len(result.history) == len(states) == steps // 3 + 1
    again, further = fitted(model, shrinker, until=shrinker.is_met, state=states[-1])
    assert further == []
    assert_same(again.model, result.model)


def test_a_shrinker_wants_targets_that_ascend() -> None:
    _, shrinker = begun("resnet", 2.0)
    for wrong in ((), (3.0, 2.0), (1.0,)):
        with pytest.raises(Exception, match="No target speed-ups"):
            replace(shrinker, speedups=wrong)


@pytest.mark.parametrize("reached", [-5, 7])
def test_a_count_of_targets_from_a_damaged_state_is_taken_within_its_bounds(reached: int) -> None:
    model, shrinker = begun("resnet", 1.5, 2.0)
    model.reached.fill_(reached)
    assert shrinker.met(model) == (0 if reached < 0 else 2)
    trained("resnet", model, shrinker, 5)
