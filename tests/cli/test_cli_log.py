"""``--log``: the figures of every epoch under the same names wherever they go; the services are stood in for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cli_calling import call, run

from metaprune_cli.artifacts import read_document


class Heard:
    """All services at once, as far as they are called."""

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
def test_every_service_gets_the_same_figures_of_every_epoch(
    service: str, heard: Heard, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    run("finetune", model, "--epochs", "2", "-o", out, "-q", "--log", service)
    history = read_document(out)["history"]
    assert heard.epochs == {record.pop("epoch"): record for record in history}
    assert heard.names == ["resnet8-3"]
    assert heard.closed == 1


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
    assert "Figures are sent from one process." in ran.err
