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
        progress.step(loss=0.5)
    assert capfd.readouterr().err == "zoo: 0/2 loss 0.5\n"


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
        assert [(task.description, task.completed) for task in view.tasks] == [("zoo", 0), ("  train", 1)]
        bars.end()
        bars.step()
        assert [(task.description, task.completed) for task in view.tasks] == [("zoo", 1)]
        bars.end()
        assert not view.tasks
