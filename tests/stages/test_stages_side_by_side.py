"""Several models at a time: the same results in the same order, and errors that arrive as what they are."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from metaprune_cli.config import DataSettings, OptimSettings, ZooMember, ZooSettings
from metaprune_cli.errors import InputError, MetapruneError, NumericsError
from metaprune_cli.stages.zoo import zoo
from metaprune_cli.tasks import Classification, Metric
from metaprune_cli.training.progress import Progress, Silence
from metaprune_cli.workflows.side_by_side import side_by_side

TOP1 = Classification.metrics[0]


@dataclass(frozen=True)
class Done:
    task: int
    metric: Metric
    headline: float
    process: int


class Listener(Silence):
    def __init__(self) -> None:
        self.steps = 0

    def step(self, **figures: float) -> None:
        self.steps += 1


def work(task: int, progress: Progress) -> Done:
    return Done(task, TOP1, 10.0 * task, os.getpid())


def fails(task: int, progress: Progress) -> Done:
    raise NumericsError("The loss is nan.", where="a.weight", next_step="a smaller learning rate")


def is_killed(task: int, progress: Progress) -> Done:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_results_come_in_the_order_of_the_tasks_from_other_processes() -> None:
    listener = Listener()
    done = side_by_side(work, list(range(5)), jobs=2, label="test", progress=listener)
    assert [result.task for result in done] == list(range(5))
    assert listener.steps == 5
    assert os.getpid() not in {result.process for result in done}


def test_one_job_stays_in_this_process() -> None:
    done = side_by_side(work, [3, 4], jobs=1, label="test", progress=Silence())
    assert {result.process for result in done} == {os.getpid()}


def test_an_error_keeps_its_class_and_its_details() -> None:
    with pytest.raises(NumericsError) as raised:
        side_by_side(fails, [0, 1], jobs=2, label="test", progress=Silence())
    assert ("next step", "a smaller learning rate") in raised.value.lines()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_process_ends_the_run_with_what_to_do() -> None:
    with pytest.raises(MetapruneError, match="killed from outside") as raised:
        side_by_side(is_killed, [0, 1], jobs=2, label="test", progress=Silence())
    assert "--resume" in dict(raised.value.lines())["next step"]


def test_fewer_than_no_jobs_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be run"):
        side_by_side(work, [0], jobs=-1, label="test", progress=Silence())


def test_a_zoo_is_the_same_to_the_byte_however_many_train_at_a_time(tmp_path: Path) -> None:
    settings = ZooSettings(
        members=(ZooMember(arch_args={"width": 0.25}, count=2, heldout=1),), train=OptimSettings(epochs=1)
    )
    data = DataSettings(train_limit=80, batch_size=40)
    for folder, jobs in (("one", 1), ("two", 2)):
        zoo(tmp_path / folder, settings, data=data, device=torch.device("cpu"), progress=Silence(), jobs=jobs)
    one = sorted((tmp_path / "one").rglob("*.safetensors"))
    assert len(one) == 3
    for path in one:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
