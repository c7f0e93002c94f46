"""What adds up adds up however it is divided, and what is no task is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own import Denoising, Net, vectors
from torch import nn

from metaprune_cli.data import Batch, TensorSplit
from metaprune_cli.data.batch import chunks, size_of
from metaprune_cli.errors import InputError
from metaprune_cli.tasks import Classification, Metric, Score, Tally, Task, find_task, measure
from metaprune_cli.tasks.measuring import tallied

CPU = torch.device("cpu")
ERROR, SCORE = Metric("mae", "MAE", higher_is_better=False), Metric("psnr", "PSNR", "dB")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 99))
def test_parts_merged_are_the_whole(count: int, sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    task, whole = Classification(), Batch(torch.randn(count, 7), torch.randint(0, 7, (count,)))
    expected = measure(nn.Identity(), [whole], CPU, task)
    merged = Tally(task)
    for size in sizes[:1]:
        for part in chunks(whole, size):
            merged.merge(tallied(nn.Identity(), [part], CPU, task).sums())
    found = merged.score()
    assert (found.values, found.samples) == (expected.values, expected.samples)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_meters_of_nests_merge_too() -> None:
    task, split, model = Denoising(), vectors(30, 0), Net().eval()
    whole = measure(model, split.batches(30), CPU, task)
    merged = Tally(task)
    for part in range(3):
        merged.merge(tallied(model, split.batches(12, part=(part, 3)), CPU, task).sums())
    assert merged.score().values["mae"] == pytest.approx(whole.values["mae"], rel=1e-5)
    assert merged.score().samples == whole.samples == 30


@pytest.mark.parametrize("seed", [None, 3])
def test_a_split_of_tensors_is_every_sample_once(seed: int | None) -> None:
    split = TensorSplit((torch.arange(11), torch.arange(11)), {"it": torch.arange(11)})
    parts = [list(split.batches(4, shuffle_seed=seed, part=(number, 2))) for number in range(2)]
    seen = torch.cat([batch.targets["it"] for part in parts for batch in part])
    assert sorted(seen.tolist()) == list(range(11))
    assert all(torch.equal(batch.inputs[1], batch.targets["it"]) for batch in parts[0])
    assert size_of(next(split.batches(4, shuffle_seed=seed)).targets) == 4
    assert len(list(split.batches(4, drop_last=True))) == 2
    assert len(split.subset(5, seed=0)) == 5


def test_directions_and_words() -> None:
    assert (ERROR.loss(1.0, 1.5), SCORE.loss(30.0, 29.0)) == (0.5, 1.0)
    assert (ERROR.gain(1.0, 1.5), SCORE.gain(30.0, 29.0)) == (-0.5, -1.0)
    assert (SCORE.title, SCORE.name, SCORE.difference_unit) == ("PSNR dB", "PSNR", "dB")
    top1 = Classification.metrics[0]
    assert (top1.title, top1.in_title, top1.difference_unit, top1.written(93)) == (
        "Top-1 %",
        "top-1 %",
        "points",
        "93.00 %",
    )


def test_a_second_test_set_stands_beside_the_first() -> None:
    first, second = (Score((ERROR,), {"mae": value}, 0.1, 5) for value in (1.0, 2.0))
    both = first.beside("Set14", second)
    assert both.values == {"mae": 1.0, "mae_Set14": 2.0}
    assert (both.headline, both.metrics[1].label) == (1.0, "MAE Set14")


def test_classification_is_the_default() -> None:
    assert find_task(None) == find_task("classification") == Classification()


def test_a_task_is_a_class_an_object_or_a_function_that_makes_one() -> None:
    assert find_task("own:Denoising").name == "denoising"
    assert isinstance(find_task("own:Denoising"), Task)
    assert find_task("own.py:Denoising").name == "denoising"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clasification", r"no task 'clasification', did you mean 'classification'\?"),
        ("own:Absent", "The task could not be imported"),
        ("own:Half", r"something is missing(.|\n)*without splits, test, meter"),
        ("own:vectors", "The task could not be made"),
        ("own:NOISY", r"something is missing(.|\n)*without name, metrics"),
    ],
)
def test_what_is_no_task_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_task(name)


def test_a_task_without_labels_smooths_none() -> None:
    with pytest.raises(InputError, match="has no labels to smooth"):
        Denoising().smoothed(0.1)
    assert Classification().smoothed(0.1).smoothing == 0.1


def test_images_are_compared_with_a_teachers_pixel_by_pixel() -> None:
    class Images(Denoising):
        match = Task.match

    assert float(Images().match(torch.ones(2, 3), torch.zeros(2, 3))) == 1
    with pytest.raises(InputError, match="does not say how far outputs are from a teacher's"):
        Images().match({"clean": torch.ones(2)}, {"clean": torch.ones(2)})
