"""By what units are ranked where nothing is said: as a method, the task, or anybody has it, in that order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metaprune_cli.config import Criterion, PruneSettings
from metaprune_cli.tasks import find_task
from metaprune_cli.workflows.arms import arm_of
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.pruning import criterion_for, scope_for
from metaprune_cli.workflows.samples import Samples

SCORED = Importance((0.0,), "max")


@pytest.mark.parametrize(
    ("settings", "importance", "preferred", "criterion", "scope"),
    [
        (PruneSettings(), None, None, "group-l2", "global"),
        (PruneSettings(), None, "obd-c", "obd-c", "family"),
        (PruneSettings(), SCORED, "obd-c", "metanet", "global"),
        (PruneSettings(criterion="group-l2"), None, "obd-c", "group-l2", "global"),
        (PruneSettings(scope="global"), None, "obd-c", "obd-c", "global"),
        (PruneSettings(scope="family"), SCORED, "obd-c", "metanet", "family"),
        (PruneSettings(search=5), None, "obd-c", "obd-c", "global"),
    ],
    ids=["nothing", "task", "method", "criterion said", "scope said", "scope of a method", "search"],
)
def test_what_auto_is(
    settings: PruneSettings, importance: Importance | None, preferred: Criterion | None, criterion: str, scope: str
) -> None:
    assert criterion_for(settings, importance, preferred) == criterion
    assert scope_for(settings, importance, preferred) == scope


@pytest.mark.parametrize(
    ("task", "criterion"), [(None, None), ("denoising", "obd-c"), ("super-resolution", "obd-c")], ids=str
)
def test_a_task_is_asked_where_there_are_images(task: str | None, criterion: str | None) -> None:
    found, settings = find_task(task), PruneSettings()
    without = Calibration(Samples(found), settings, torch.device("cpu"))
    with_images = replace(without, given_batches=())
    assert (without.preferred, without.needed) == (None, False)
    assert (with_images.preferred, with_images.needed) == (criterion, criterion is not None)


def test_what_the_task_prefers_goes_without_saying() -> None:
    assert arm_of((), "obd-c", "family", usual="obd-c") == "uniform"
    assert arm_of((), "obd-c", usual="obd-c") == "plain"
    assert arm_of((), "group-l2", usual="obd-c") == "group-l2"
    assert arm_of((), "obd-c") == "obd-c"
