from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exporting_models import SOURCE, Attention, Depthwise, Pair, pruned, saved
from PIL import Image

from metaprune_cli.config import BenchSettings
from metaprune_cli.console.progress import Quiet
from metaprune_cli.errors import InputError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.metrics.latency import Gain, gain
from metaprune_cli.metrics.layers import LayerTime, Profile, time_layers
from metaprune_cli.models import load_model
from metaprune_cli.stages.bench import Benchmark, bench
from metaprune_cli.workflows.bench import rig
from metaprune_cli.workflows.bench.blame import causes, layers_to_blame
from metaprune_cli.workflows.bench.verdict import due, judge

SETTINGS = BenchSettings(runs=7, warmup=1, layer_runs=1)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """What the clock is going to show, by model; to be filled."""
    shown: dict[str, list[float]] = {}
    monkeypatch.setattr(rig, "times_interleaved", lambda *_: shown)
    return shown


def run(*models: Path, base: Path | None = None, **settings: object) -> Benchmark:
    chosen = BenchSettings(**{"runs": 7, "warmup": 1, "layer_runs": 1, **settings})  # type: ignore[arg-type]
    cpu = torch.device("cpu")
    return bench(models, chosen, base=base, source=SOURCE, data=None, device=cpu, threads=1, progress=Quiet())


def test_the_gain_is_the_median_of_neighbours_with_its_interval() -> None:
    drifting = [1.0 + turn for turn in range(30)]
    found = gain([2 * ms for ms in drifting], drifting)
    assert (found.low, found.median, found.high) == (2, 2, 2)
    noisy = gain([10.0] * 100, [float(5 + turn % 10) for turn in range(100)])
    assert noisy.low < noisy.median < noisy.high
    assert noisy.low > 10 / 14
    assert noisy.high < 10 / 5


@pytest.mark.parametrize(
    ("found", "macs_gain", "verdict"),
    [
        (Gain(1.0, 0.9, 1.1), 2.0, "lags"),
        (Gain(1.2, 1.15, 1.25), 2.0, "lags"),
        (Gain(1.2, 0.9, 1.5), 2.0, "unclear"),
        (Gain(1.6, 1.4, 1.8), 2.0, "as promised"),
        (Gain(0.5, 0.4, 0.6), 1.05, "no claim"),
    ],
)
def test_the_verdict_takes_the_spread_into_account(found: Gain, macs_gain: float, verdict: str) -> None:
    assert judge(found, macs_gain, SETTINGS) == verdict


def test_half_of_what_was_saved() -> None:
    assert due(2.0, 0.5) == pytest.approx(4 / 3)
    assert due(4.0, 1.0) == pytest.approx(4.0)


def layer(ms: float, macs: int = 0, calls: int = 1) -> LayerTime:
    return LayerTime(ms, macs, calls, owned=macs > 0)


def test_blame_is_time_above_what_the_macs_promise() -> None:
    base = Profile({"a": layer(10, 100), "b": layer(10, 100), "relu": layer(4)}, {"conv": 20, "relu": 4})
    own = Profile({"a": layer(5, 50), "b": layer(9, 25), "relu": layer(4)}, {"bmm": 14, "relu": 4})
    found = layers_to_blame(base, own, {"b": "8→16 before, 7→5 now"})
    assert [(one.name, one.excess_ms) for one in found] == [("b", 6.5), ("relu", 4 - 4 * 75 / 200)]
    assert (found[0].ms_before, found[0].ms_after, found[0].channels) == (10, 9, "8→16 before, 7→5 now")
    assert sum(one.share for one in found) == pytest.approx(13 / 18)
    texts = causes(base, own, {"a": ((16, 3, 3, 3), (8, 3, 3, 3)), "b": ((16, 8, 1, 1), (5, 7, 1, 1))})
    assert len(texts) == 2
    assert "78 % of its time is in operators that the base does not run (bmm), in the place of conv" in texts[0]
    assert "1 of 2 pruned layers have channels that are not a multiple of 8 (b)" in texts[1]


def test_short_operators_and_ones_without_macs_are_causes() -> None:
    own = Profile({"a": layer(0.03, 5), "relu": layer(0.07, calls=4)}, {"conv": 0.03, "relu": 0.07})
    texts = causes(own, own, {})
    assert "its 5 operators take 20 µs each on average" in texts[0]
    assert "70 % of its time is in operators without MACs (relu)" in texts[1]


def test_a_model_that_is_not_faster_is_warned_of(tmp_path: Path, times: dict[str, list[float]]) -> None:
    path = saved(Depthwise, tmp_path / "net.safetensors")
    times |= {"net": [10.0, 20.0, 10.0, 10.0, 12.0], "net.small": [10.0, 21.0, 10.5, 10.0, 12.0]}
    found = run(path, pruned(path))
    base, own = found.rows
    assert (base.name, own.name, own.base) == ("net", "net.small", "net")
    assert (base.verdict, own.verdict) == ("no claim", "lags")
    assert own.macs_speedup >= 1.6
    assert (own.latency_ms, own.latency_speedup, own.items_per_s) == (10.5, 1.0, pytest.approx(1000 / 10.5))
    assert own.latency_p10_ms <= own.latency_ms <= own.latency_p90_ms
    assert own.memory_bytes < base.memory_bytes
    (warned,) = found.warnings
    figures = f"MACs {own.macs_speedup:.2f}x, latency 1.00x (0.95 to 1.00) against net"
    assert warned.text == f"net.small is not faster (batch 1): {figures}"
    assert any("not a multiple of 8 (first" in cause for cause in warned.causes)
    assert {layer.name for layer in warned.layers} & {"first", "depth", "point", "last", "norm"}


def test_a_model_that_is_faster_is_not(tmp_path: Path, times: dict[str, list[float]]) -> None:
    path = saved(Depthwise, tmp_path / "net.safetensors")
    times |= {"net": [10.0] * 5, "net.small": [6.0] * 5}
    found = run(pruned(path), base=path)
    assert [row.name for row in found.rows] == ["net", "net.small"]
    assert found.rows[1].verdict == "as promised"
    assert found.warnings == ()


def test_programs_and_several_batches(tmp_path: Path) -> None:
    path = saved(Attention, tmp_path / "net.safetensors")
    small = pruned(path)
    found = run(small, base=path, batch=(1, 6))
    assert [row.batch for row in found.rows] == [1, 1, 6, 6]
    assert [row.items_per_s for row in found.rows] == [1000 * row.batch / row.latency_ms for row in found.rows]
    assert found.rows[3].memory_bytes > found.rows[1].memory_bytes
    models = {file.name: load_model(file, allow_import=True) for file in (path, small)}
    assert isinstance(models[small.name], Program)
    example = torch.zeros(1, 1, 8, 8)
    first, second = time_layers(models, example, runs=1).values()
    for profile, row in zip((first, second), found.rows, strict=False):
        assert {"patch", "head"} <= {name for name, one in profile.layers.items() if one.owned}
        assert sum(one.macs for one in profile.layers.values()) == row.macs
    assert "_transformer_encoder_layer_fwd" in first.operators
    assert "encoder.linear1" in second.layers


def test_models_of_other_inputs_cannot_take_turns(tmp_path: Path) -> None:
    paths = [saved(kind, tmp_path / f"{kind.__name__}.safetensors") for kind in (Depthwise, Pair)]
    with pytest.raises(InputError, match="do not take the same inputs"):
        run(*paths)


def test_the_times_are_drawn_and_nothing_else_is_written_over(tmp_path: Path) -> None:
    whole = saved(Depthwise, tmp_path / "whole.safetensors")
    drawing = tmp_path / "pictures" / "times.png"
    cpu = torch.device("cpu")
    given = {"base": None, "source": SOURCE, "data": None, "device": cpu, "threads": 1, "progress": Quiet()}
    for _ in range(2):  # a picture may be replaced
        bench([whole], replace(SETTINGS, batch=(1, 2)), **given, drawing=drawing)
    with Image.open(drawing) as found:
        assert found.width > 800
    for bad in (tmp_path / "times.svg", whole.rename(tmp_path / "model.png")):
        with pytest.raises(InputError, match=r"PNG file|already exists|picture"):
            bench([bad], SETTINGS, **given, drawing=bad)
