"""The other calls: what the stages do to files, done to modules."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from api_calling import DIGITS, EXAMPLE
from test_api_prune import assert_same_bits
from torch import nn
from torch.testing import assert_close

import metaprune as mp
from metaprune_cli.config import EvalSettings
from metaprune_cli.errors import InputError
from metaprune_cli.stages.eval import evaluate as eval_stage
from metaprune_cli.stages.finetune import finetune as finetune_stage
from metaprune_cli.training.progress import Silence
from metaprune_cli.workflows.loading import ModelSource

CPU = torch.device("cpu")
TRAINING = mp.OptimSettings(epochs=2, lr=0.02, patience=1, ema=0.5)


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_finetune_is_the_commands(model_file: Path, model: nn.Module, tmp_path: Path) -> None:
    output, before = tmp_path / "tuned.safetensors", copy.deepcopy(model.state_dict())
    files = {"source": ModelSource(), "data": DIGITS, "seed": 1, "device": CPU, "progress": Silence()}
    (row,) = finetune_stage([model_file], output, TRAINING, **files)
    found = mp.finetune(model, DIGITS, settings=TRAINING, seed=1)
    assert_same_bits(found.model, mp.load_model(output))
    assert unchanged(model, before)
    assert found.history[found.epoch - 1]["val_top1"] == row.headline
    assert f"after {found.epoch} epochs" in repr(found)
    assert len(repr(found)) < 200


def test_a_teacher_is_learnt_from(model: nn.Module) -> None:
    alone = mp.finetune(model, DIGITS, epochs=1, lr=0.01)
    taught = mp.finetune(model, DIGITS, epochs=1, lr=0.01, teacher=alone.model)
    assert len(taught.history) == 1
    assert not torch.equal(*(next(iter(found.model.parameters())) for found in (alone, taught)))


def test_evaluate_is_the_commands(model_file: Path, model: nn.Module) -> None:
    settings = {"base": None, "pruning": None, "source": ModelSource(), "data": DIGITS, "device": CPU}
    rows = eval_stage([model_file], None, EvalSettings(latency_runs=5), progress=Silence(), **settings).rows
    found = mp.evaluate(model, DIGITS)
    assert found["top1"] == rows[0].score.headline
    assert found["loss"] == rows[0].score.loss
    assert (found["macs"], found["params"]) == (rows[0].macs, rows[0].params)
    json.dumps(found)


def test_sparsify_finetune_and_the_zeros_stay(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    sparse = mp.sparsify(model, EXAMPLE, kind="n:m", pattern="1:4")
    assert unchanged(model, before)
    assert sparse.report["sparsity"] == pytest.approx(0.75)
    tuned = mp.finetune(sparse.model, DIGITS, epochs=1, lr=0.05, zeros=sparse.zeros).model
    for name in sparse.zeros:
        gone = sparse.model.state_dict()[name] == 0
        assert bool(gone.any())
        assert not bool(tuned.state_dict()[name][gone].any())
    assert "n:m 1:4" in repr(sparse)
    assert len(repr(sparse)) < 1200


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "blocks"}, "(?s)Unknown kind.*did you mean 'block'"),
        ({"sparsity": 1.0}, "not a valid sparsity"),
        ({"kind": "n:m", "pattern": "4:2"}, "not a pattern of weights"),
        ({"kind": "block", "block": "4"}, "not a block size"),
        ({"kind": "n:m", "pattern": "1:4", "kernel_only": True}, "only has kernels for 2:4"),
    ],
)
def test_what_cannot_be_zeroed_is_said(options: dict, text: str, model: nn.Module) -> None:
    with pytest.raises(InputError, match=text):
        mp.sparsify(model, EXAMPLE, **options)


def test_export_what_is_left(model: nn.Module, tmp_path: Path) -> None:
    small, path = mp.prune(model, EXAMPLE).model, tmp_path / "small.pt2"
    found = mp.export(small, path, example_inputs=EXAMPLE)
    assert (found.format, found.route, found.bytes) == ("torch-export", "class", path.stat().st_size)
    images = torch.randn(3, 1, 8, 8)
    assert_close(torch.export.load(path).module()(images), small(images))
    mp.export(small, path, example_inputs=EXAMPLE)  # one of ours is replaced


def test_plain_weights_need_an_architecture(model: nn.Module, tmp_path: Path) -> None:
    path, arch = tmp_path / "small.weights.safetensors", "cifar:resnet8"
    small = mp.prune(model, EXAMPLE).model
    with pytest.raises(InputError, match=r"(?s)Plain weights need .*an architecture"):
        mp.export(small, path, example_inputs=EXAMPLE)
    assert not list(tmp_path.iterdir())
    assert mp.export(small, path, example_inputs=EXAMPLE, arch=arch).format == "safetensors"


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("small.bin", {}, "(?s)does not tell the export format.*torch-export"),
        ("small.pt2", {"format": "onxx"}, "did you mean 'onnx'"),
        ("taken.pt2", {}, "exists and is not an export of ours"),
        ("missing/\0.pt2", {}, "Nothing was written"),
    ],
)
def test_where_no_export_can_go(name: str, options: dict, text: str, model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "taken.pt2").write_text("mine")
    with pytest.raises(InputError, match=text):
        mp.export(model, tmp_path / name, example_inputs=EXAMPLE, **options)
    assert (tmp_path / "taken.pt2").read_text() == "mine"


def test_nothing_to_train_is_an_error(model: nn.Module) -> None:
    with pytest.raises(InputError, match="no epochs and no recalibration"):
        mp.finetune(model, DIGITS, epochs=0)
    with pytest.raises(InputError, match=r"(?s)section 'finetune'.*lr: expected a number above 0"):
        mp.finetune(model, DIGITS, lr=-1.0)
