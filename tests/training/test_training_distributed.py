"""Two processes that train together end where one does; they run on gloo, each on its own core or half of one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import training_together as together
from ranks_calling import joined
from torch import nn

from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import InputError, LostProcessError
from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.methods.metanet.learning.meta import ZooEntry, meta_train
from metaprune_cli.tasks import Classification
from metaprune_cli.training.distributed import ALONE, Ranks, answered
from metaprune_cli.training.norms import synchronised
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.replicas import check_parts

CPU = torch.device("cpu")
TOLERANCE = 1e-5


def assert_close(actual: together.Arrays, expected: together.Arrays, tolerance: float = TOLERANCE) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=tolerance, err_msg=name)


def assert_same(first: together.Arrays, second: together.Arrays) -> None:
    assert_close(first, second, tolerance=0)


@pytest.mark.parametrize("members_per_step", [2, 3])
def test_two_processes_train_the_metanetwork_that_one_does(members_per_step: int) -> None:
    """Three models: in steps of two, the second process has nothing to do in the last one; in steps of three, less."""
    [first, history], [second, _] = joined(together.meta_trained, members_per_step)
    alone, history_alone = together.meta_trained(ALONE, members_per_step)
    assert_same(first, second)
    assert_close(first, alone)
    assert [sorted(record) for record in history] == [sorted(record) for record in history_alone]
    for record, record_alone in zip(history, history_alone, strict=True):
        assert record == pytest.approx(record_alone, rel=TOLERANCE)


@pytest.mark.parametrize("model", ["attention", "program"])
def test_two_processes_train_a_model_as_one_does(model: str) -> None:
    """A batch of 41 has parts of 21 and 20; neither model has a BatchNorm, whose statistics are those of a part."""
    [first, history], [second, _] = joined(together.fitted, model, 41)
    alone, history_alone = together.fitted(ALONE, model, 41)
    assert_same(first, second)
    assert_close(first, alone)
    for record, record_alone in zip(history, history_alone, strict=True):
        assert record == pytest.approx(record_alone, rel=TOLERANCE)


def test_two_processes_learn_from_a_teacher_and_average_as_one_does() -> None:
    """Clipping is of the whole gradient, and all agree on the best epoch."""
    settings = {"ema": 0.5, "clip": 0.05, "patience": 1, "distill_weight": 0.8}
    [first, history], [second, _] = joined(together.taught, settings)
    alone, history_alone = together.taught(ALONE, settings)
    assert_same(first, second)
    assert_close(first, alone)
    for record, record_alone in zip(history, history_alone, strict=True):
        assert record == pytest.approx(record_alone, rel=TOLERANCE)


def test_with_mixtures_too_all_processes_end_with_one_model() -> None:
    [first, _], [second, _] = joined(together.taught, {"ema": 0.5, "mixup": 1.0, "cutmix": 1.0}, "batchnorm")
    assert_same(first, second)


def test_with_batchnorm_all_processes_end_with_one_model() -> None:
    """Not quite that of one process: a part of a batch has statistics of its own, off by their standard errors."""
    [first, history], [second, _] = joined(together.fitted, "batchnorm", 40)
    alone, history_alone = together.fitted(ALONE, "batchnorm", 40)
    assert_same(first, second)
    assert max(np.abs(first[name] - array).max() for name, array in alone.items() if "running_mean" in name) > TOLERANCE
    assert history[-1]["train_loss"] == pytest.approx(history_alone[-1]["train_loss"], rel=0.1)
    assert history[-1]["val_loss"] == pytest.approx(history_alone[-1]["val_loss"], rel=0.1)


def test_work_is_dealt_out_in_turn_and_comes_back_in_order() -> None:
    expected = ([0, 10, 20, 30, 40], [[0, 2, 4], [1, 3]], "made by 0")
    assert joined(together.shared) == [expected, expected]


def test_gradients_add_up_and_none_stays_none() -> None:
    expected = [[[3.0] * 3] * 2, [[2.0] * 3] * 2, None]
    assert joined(together.gradients) == [expected, expected]


def test_alone_everything_is_ones_own() -> None:
    assert ALONE.share([1, 2]) == [1, 2]
    assert ALONE.collect([1, 2]) == [1, 2]
    assert ALONE.sum([0.5]) == [0.5]
    assert ALONE.own_seed(7) == 7 != Ranks(1, 2).own_seed(7)


def test_more_processes_than_members_in_a_step_are_refused(
    metanet: MetaNetwork, zoo: list[ZooEntry], train: ImageSplit, val: ImageSplit
) -> None:
    settings, task = MetaTrainSettings(criterion="group-l2"), Classification()
    with pytest.raises(InputError, match=r"more processes than members(.|\n)*--members-per-step 2"):
        meta_train(metanet, zoo, [], train, val, settings, task=task, device=CPU, progress=Silence(), ranks=Ranks(0, 2))


def test_a_batch_must_have_two_images_for_each_process() -> None:
    check_parts(Ranks(0, 2), 4)
    with pytest.raises(InputError, match=r"too few images for so many processes(.|\n)*at least 4(.|\n)*got: 3"):
        check_parts(Ranks(0, 2), 3)


def test_batchnorm_is_not_synchronised_between_cpus() -> None:
    with pytest.raises(InputError, match=r"between CUDA devices only(.|\n)*sync_batchnorm"):
        synchronised(nn.BatchNorm2d(2), CPU)


def test_what_a_backend_raises_says_what_to_do() -> None:
    with pytest.raises(LostProcessError, match=r"Connection closed by peer\n.*--resume"), answered():
        raise RuntimeError("[pair.cc:538] Connection closed by peer\nlibrary.so: frames")
