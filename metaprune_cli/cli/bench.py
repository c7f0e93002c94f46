"""``metaprune bench``: latency and memory beside MACs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import BenchSettings
from metaprune_cli.config.flags import MEASURING
from metaprune_cli.console.figures import count, millis, share, times
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.errors import InputError

if TYPE_CHECKING:
    from metaprune_cli.stages.bench import Benchmark
    from metaprune_cli.workflows.bench.rig import Row

SETTING = (label("name", ""), label("text", ""))
COLUMNS = (
    label("name", "Model"),
    Column("batch", "Batch"),
    Column("macs", "MACs", count, minor=True),
    Column("params", "Params", count, minor=True),
    Column("latency_ms", "Latency ms", millis),
    label("spread", "p10–p90", minor=True),
    Column("items_per_s", "Items/s", minor=True),
    Column("memory_bytes", "Memory B", count, minor=True),
    Column("macs_speedup", "MACs", times),
    Column("latency_speedup", "Faster", times),
    label("interval", "95 %", minor=True),
    label("verdict", "Latency"),
)
LAYERS = (
    label("name", "Layer"),
    Column("share", "of time", share),
    Column("ms_before", "ms before", millis),
    Column("ms_after", "after", millis),
    Column("macs_before", "MACs before", count),
    Column("macs_after", "after", count),
    Column("excess_ms", "ms too many", millis),
    label("channels", "Channels"),
)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            "The batch sizes cannot be read.", expected="whole numbers, such as 1,8,64", got=text, where="--batch"
        ) from None


@guarded
@unfolded
def bench(
    models: options.Models,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="PATH",
            help="What speed-ups are relative to: a file, or a folder that contains each model's own "
            "base. Default: the model it was made from, if that is given too; otherwise the first "
            "model.",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    *,
    settings: Annotated[BenchSettings, Section("bench", read={"batch": _sizes})],
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            rich_help_panel=MEASURING,
            min=1,
            max=options.MOST_PROCESSES,
            help="Number of CPU threads. Default: PyTorch's.",
        ),
    ] = None,
    draw: options.Draw = None,
    model_file: options.ModelFile,
    data: options.Shape,
    params: options.Params = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare latency, throughput and memory of models; warn if MACs fell but latency did not."""
    source = model_file.source()
    from metaprune_cli.stages import bench as stage
    from metaprune_cli.workflows.device import pick_device

    with listening(quiet) as progress:
        found = stage.bench(
            models,
            settings,
            base=base,
            source=source,
            data=data,
            device=pick_device(device),
            threads=threads,
            progress=progress,
            drawing=draw,
        )
    show(found.to_document(), *_tables(found), as_json=as_json)


def _tables(found: Benchmark) -> Iterator[Table]:
    """How it was measured, what came out, and one table for each warning."""
    yield Table("", SETTING, [{"name": name, "text": text} for name, text in found.setting.items()])
    yield Table("", COLUMNS, [_shown(row) for row in found.rows])
    for warned in found.warnings:
        lines = [f"Warning: {warned.text}.", *(f"- {cause}." for cause in warned.causes)]
        yield Table("\n".join(lines), LAYERS, [asdict(layer) for layer in warned.layers])


def _shown(row: Row) -> Mapping[str, Any]:
    spread = f"{millis(row.latency_p10_ms)}–{millis(row.latency_p90_ms)}"
    interval = f"{row.latency_speedup_low:.2f}–{row.latency_speedup_high:.2f}"
    return asdict(row) | {"spread": spread, "interval": interval}
