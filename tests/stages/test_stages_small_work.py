"""Scoring and repairing a small network: on one core, and no more often than is worth it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metaprune_cli.config import PruneSettings
from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build
from metaprune_cli.tasks import find_task
from metaprune_cli.workflows import pruning
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.pruning import PruningRun
from metaprune_cli.workflows.samples import Samples
from metaprune_cli.workflows.searching import baselines_of


def run_of(criterion: str) -> PruningRun:
    model = build(Architecture("restore:dncnn", {"depth": 4, "width": 6, "in_channels": 1})).eval()
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    settings = PruneSettings(criterion=criterion, repair="least-squares")  # type: ignore[arg-type]
    given: dict[str, Any] = {"given_batches": ((images, images),), "given_inputs": images}
    calibration = Calibration(Samples(find_task("denoising")), settings, torch.device("cpu"), **given)
    return PruningRun(model, images[:1], encode(model, images[:1]), settings, calibration)


@pytest.mark.parametrize(("much", "threads"), [(None, 1), (1, 2)])
def test_small_work_is_for_one_core(monkeypatch: pytest.MonkeyPatch, much: int | None, threads: int) -> None:
    found: dict[str, int] = {}
    for name in ("score_units", "repaired"):
        function = getattr(pruning, name)

        def noted(*args: Any, _name: str = name, _function: Any = function, **kwargs: Any) -> Any:
            found[_name] = torch.get_num_threads()
            return _function(*args, **kwargs)

        monkeypatch.setattr(pruning, name, noted)
    if much is not None:
        monkeypatch.setattr(pruning, "SMALL_PASS", much)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run = run_of("obd-c")
        kept = run.scores() > run.scores().median()
        run.left(kept | ~run.graph.units.prunable)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found == {"score_units": threads, "repaired": threads}


@pytest.mark.parametrize(
    ("criterion", "hows"),
    [
        ("obd-c", ["plain", "uniform", "sensitivity"]),
        ("group-l2", ["plain", "uniform", "rescored", "sensitivity"]),
    ],
)
def test_scores_are_read_off_images_once_before_a_search(criterion: str, hows: list[str]) -> None:
    assert list(baselines_of(run_of(criterion))) == hows
