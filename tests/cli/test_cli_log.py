"""``--log``: every epoch's figures, under the same names in every tracker; the trackers are replaced by stand-ins."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cli_calling import call, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.made import Checkpoint


class Heard:
    """A stand-in for all trackers at once."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}
        self.names: list[str] = []
        self.closed = 0
        self.step = 0

    def started(self, name: str) -> Heard:
        self.names.append(name)
        return self

    def add_scalar(self, key: str, value: float, epoch: int) -> None:
        self.epochs.setdefault(epoch, {})[key] = value

    def log_metric(self, key: str, value: float) -> None:
        self.add_scalar(key, value, self.step)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.epochs[step] = figures

    def make_summary(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    found = Heard()
    found.end = found.finish = found.close  # type: ignore[attr-defined]
    packages: dict[str, dict[str, Any]] = {
        "torch.utils.tensorboard": {"SummaryWriter": lambda folder: found.started(Path(folder).name)},
        "mlflow": {
            "start_run": lambda run_name: found.started(run_name),
            "log_metrics": found.log,
            "end_run": found.close,
        },
        "wandb": {"init": lambda project, name: found.started(name)},
        "dvclive": {"Live": lambda folder: found.started(Path(folder).name)},
    }
    for name, content in packages.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.mark.parametrize("service", ["tensorboard", "mlflow", "wandb", "dvclive"])
def test_every_tracker_gets_the_same_figures_of_every_epoch(
    service: str, heard: Heard, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    run("finetune", model, "--epochs", "2", "-o", out, "-q", "--log", service)
    history = read_document(out)["history"]
    assert heard.epochs == {record.pop("epoch"): record for record in history}
    assert heard.names == ["resnet8-3"]
    assert heard.closed == 1


@pytest.mark.parametrize(
    "command", [("dhp", "-s", "1.3", "--epochs", "3"), ("pruning-net", "--epochs", "2")], ids=lambda words: words[0]
)
def test_everything_that_trains_on_images_is_logged(
    command: tuple[str, ...], heard: Heard, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    name, *options = command
    run(name, model, *options, "-o", out, "-q", "--log", "wandb")
    history = read_document(out)["history"]
    assert heard.epochs == {record.pop("epoch"): record for record in history}
    assert {"lr", "train_loss", "train_top1", "val_loss", "val_top1"} <= set(heard.epochs[1])
    assert (heard.names, heard.closed) == (["resnet8-3"], 1)


def test_meta_training_is_logged_as_its_history_has_it(heard: Heard, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    run("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", out, "-q", "--log", "mlflow")
    with (tmp_path / "new.history.csv").open() as file:
        _, *rows = csv.DictReader(file)  # the first is of the untrained metanetwork
    assert heard.epochs == {int(row.pop("epoch")): {key: float(value) for key, value in row.items()} for row in rows}
    assert {"lr", "train_loss", "val_loss", "val_top1"} <= set(heard.epochs[1])
    assert (heard.names, heard.closed) == (["new"], 1)


def test_a_resumed_run_goes_on_counting(
    heard: Heard, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Checkpoint.save

    def save_and_stop(self: Checkpoint, state: TrainState) -> None:
        real(self, state)
        raise KeyboardInterrupt

    call_it = ("finetune", model, "--epochs", "2", "-o", tmp_path / "out.safetensors", "--log", "wandb")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        assert call(*call_it).code == 130
    heard.epochs.clear()
    run(*call_it, "--resume")
    assert set(heard.epochs) == {2}


def test_a_run_that_breaks_off_is_closed(heard: Heard, model: Path, tmp_path: Path) -> None:
    ran = call("finetune", model, "--epochs", "2", "--lr", "1e9", "-o", tmp_path / "out.safetensors", "--log", "wandb")
    assert ran.code != 0
    assert heard.closed == 1


def test_a_package_that_is_missing_is_said_before_any_work(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    ran = call("finetune", model, "--epochs", "1", "--log", "mlflow")
    assert ran.code == 2
    assert "The package mlflow is not installed." in ran.err
    assert "pip install 'metaprune[mlflow]'" in ran.err


def test_several_jobs_cannot_be_heard(heard: Heard, model: Path) -> None:
    ran = call("finetune", model, "--epochs", "1", "--log", "wandb", "--jobs", "2")
    assert ran.code == 2
    assert "--log works with one job at a time." in ran.err
