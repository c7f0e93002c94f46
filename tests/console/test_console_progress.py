from __future__ import annotations

import pytest
from rich.console import Console  # noqa: TID251 - the bars are rich's
from rich.progress import Progress  # noqa: TID251

from metaprune_cli.console import progress as module
from metaprune_cli.console.progress import Bars, listening


def test_progress_goes_to_stderr_and_only_there(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as progress:
        progress.begin("zoo", 2)
        progress.step(loss=0.5)
        progress.begin("train", 3)
        progress.step(loss=0.25)
        progress.end()
        progress.step()
        progress.end()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "zoo: 2/2 loss 0.25\n"


def test_long_work_shows_signs_of_life(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    with listening() as progress:
        progress.begin("zoo", 2)
        progress.begin("train", 9)
        progress.step()
    assert capfd.readouterr().err == "zoo: 0/2 · train: 1/9\n"


def test_where_there_is_no_terminal_every_epoch_is_a_line_with_its_figures(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIGURES_EVERY_S", 0.0)
    with listening() as progress:
        progress.begin("finetune", 1)
        progress.begin("train small.safetensors", 2)
        for loss in (0.5, 0.25):
            progress.begin("epoch", 1)
            progress.step()
            progress.end()
            progress.step(loss=loss)
    assert capfd.readouterr().err.splitlines() == [
        "finetune: 0/1 · train small.safetensors: 1/2 loss 0.5",
        "finetune: 0/1 · train small.safetensors: 2/2 loss 0.25",
    ]


def test_quiet_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with listening(quiet=True) as progress:
        progress.begin("zoo", 1)
        progress.step(loss=0.5)
        progress.end()
    assert capfd.readouterr() == ("", "")


def test_bars_nest() -> None:
    with Progress(console=Console(quiet=True)) as view:
        bars = Bars(view)
        bars.begin("zoo", 2)
        bars.begin("train", 3)
        bars.step(loss=0.5)
        assert [(task.description, task.completed) for task in view.tasks] == [
            ("zoo", pytest.approx(1 / 3)),  # a third of the first step: the time left is known of all tasks
            ("  train", 1),
        ]
        bars.end()
        bars.step()
        assert [(task.description, task.completed) for task in view.tasks] == [("zoo", 1)]
        bars.end()
        assert not view.tasks
