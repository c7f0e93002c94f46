from __future__ import annotations

import pytest

from metaprune_cli.config import MetaTrainSettings, OptimSettings
from metaprune_cli.training.schedules import learning_rate

STEPS = 10


def rates(settings: OptimSettings) -> list[float]:
    return [learning_rate(settings, step, STEPS) for step in range(settings.epochs * STEPS)]


def test_constant_is_constant() -> None:
    assert set(rates(OptimSettings(epochs=3, lr=0.2, schedule="constant"))) == {0.2}


def test_cosine_falls_from_the_full_rate_through_half_of_it_to_almost_nothing() -> None:
    cosine = rates(OptimSettings(epochs=4, lr=0.2, schedule="cosine"))
    assert cosine[0] == 0.2
    assert cosine[2 * STEPS] == pytest.approx(0.1)
    assert 0 < cosine[-1] < 0.001
    assert cosine == sorted(cosine, reverse=True)


def test_multistep_drops_at_the_start_of_every_milestone() -> None:
    stairs = rates(OptimSettings(epochs=4, lr=1.0, schedule="multistep", milestones=(1, 3), gamma=0.1))
    assert stairs[: STEPS + 1] == [1.0] * STEPS + [0.1]
    assert stairs[3 * STEPS - 1 : 3 * STEPS + 1] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "multistep"])
def test_warm_up_rises_to_the_full_rate_and_is_part_of_the_epochs(schedule: str) -> None:
    settings = OptimSettings(epochs=4, lr=0.2, schedule=schedule, milestones=(3,), warmup_epochs=2)
    warming = rates(settings)[: 2 * STEPS]
    assert 0 < warming[0] < 0.011
    assert warming == sorted(warming)
    assert warming[-1] == pytest.approx(0.2)
    assert rates(settings)[2 * STEPS] == pytest.approx(0.2)


def test_meta_training_has_the_same_schedules() -> None:
    settings = MetaTrainSettings(epochs=4, lr=1.0, schedule="multistep", milestones=(3,))
    assert [learning_rate(settings, step, 1) for step in range(4)] == pytest.approx([1, 1, 1, 0.1])
