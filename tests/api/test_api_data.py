"""What may be handed over as data, and what is said of all else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from api_calling import EXAMPLE
from test_api_prune import assert_same_bits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import metaprune as mp
from metaprune_cli.api.given import split_of
from metaprune_cli.errors import InputError


@pytest.fixture
def tensors(images: mp.Splits) -> tuple[torch.Tensor, torch.Tensor]:
    (inputs, targets), *_ = images.train.batches(50)
    return inputs, targets


def loader(tensors: tuple[torch.Tensor, torch.Tensor], **options: Any) -> DataLoader:
    return DataLoader(TensorDataset(*tensors), **{"batch_size": 16, **options})


def test_all_forms_of_the_same_data_measure_the_same(model: nn.Module, tensors: tuple) -> None:
    forms = {
        "tensors": tensors,
        "split": mp.TensorSplit(*tensors),
        "splits": mp.Splits(mp.TensorSplit(*tensors), mp.TensorSplit(*tensors), None, "mine"),
        "loader": loader(tensors),
        "list": list(loader(tensors)),
        "generator": (batch for batch in loader(tensors)),
    }
    found = {name: mp.evaluate(model, data, batch_size=20) for name, data in forms.items()}
    assert found["tensors"]["samples"] == 50
    assert all(figures == found["tensors"] for figures in found.values())


def test_a_loader_is_read_anew_and_cut_to_size(tensors: tuple) -> None:
    split = split_of(loader(tensors))
    assert len(split) == 50
    assert [len(batch.targets) for batch in split.batches(20)] == [20, 20, 10]
    assert [len(batch.targets) for batch in split.batches(20, drop_last=True)] == [20, 20]
    assert [len(batch.targets) for batch in split.batches(64)] == [50]
    assert torch.equal(torch.cat([inputs for inputs, _ in split.batches(7)]), tensors[0])
    halves = [list(split.batches(20, part=(number, 2))) for number in (0, 1)]
    assert [len(batch.targets) for half in halves for batch in half] == [10, 10, 5] * 2
    assert torch.equal(split.at(torch.tensor([3, 1])).targets, tensors[1][[3, 1]])


@pytest.mark.parametrize(
    ("options", "length"), [({"drop_last": True}, 48), ({"sampler": range(20)}, 20), ({"shuffle": True}, 50)]
)
def test_a_loader_says_how_many_there_are(options: dict, length: int, tensors: tuple) -> None:
    assert len(split_of(loader(tensors, **options))) == length


def test_training_on_a_shuffling_loader_is_reproducible(model: nn.Module, tensors: tuple) -> None:
    found = [mp.finetune(model, loader(tensors, shuffle=True), epochs=2, lr=0.01, val=tensors) for _ in range(2)]
    assert_same_bits(found[0].model, found[1].model)
    assert "val_top1" in found[0].history[0]
    plain = mp.finetune(model, loader(tensors), epochs=2, lr=0.01)
    assert "val_top1" not in plain.history[0]


def test_pruning_looks_at_a_loader(model: nn.Module, tensors: tuple) -> None:
    found = mp.prune(model, EXAMPLE, data=loader(tensors), criterion="taylor", repair="bias", search=1)
    assert found.plan.speedup >= 2


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (torch.zeros(3, 1, 8, 8), "(?s)cannot be used as data.*repair_inputs"),
        ("digits", "(?s)cannot be used as data.*got: str"),
        (3, "cannot be used as data"),
        ([], "There is no data"),
        ((torch.zeros(3, 1, 8, 8), torch.zeros(2)), "3 inputs and 2 targets"),
        ((torch.zeros(3, 1, 8, 8), [1, 2, 3]), "no tensors among the targets"),
        ([torch.zeros(3, 1, 8, 8)], "(?s)A batch is not a pair.*got: Tensor"),
        ([(torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(2))], "(?s)A batch is not a pair.*3 values"),
        ((torch.zeros(3, 3, 8, 8), torch.zeros(3).long()), "ResNet.* and this data do not go together"),
        ((torch.zeros(3, 1, 8, 8), torch.tensor([1, 2, 30])), "(?s)do(es)? not (fit|go).*"),
    ],
)
def test_what_is_no_data_is_refused(data: Any, text: str, model: nn.Module) -> None:
    with pytest.raises(InputError, match=text):
        mp.evaluate(model, data)
