"""How much memory opening, describing, encoding and pruning a model takes, in multiples of its file, and how long.

    python benchmarks/memory.py [--widths 2 4] [--repeats 1] [--without prune]

Every run is a process of its own on one core, with a VGG-19 of random weights: 0.3 GB at width 2, 1.3 GB at width 4.
Before it is measured, a process does the same to a tiny model, so that all that is imported and compiled is there.
Printed are the growth of its peak resident memory (VmHWM) over what it held then (VmRSS), mapped pages included, over
the size of the input file; and its seconds over those of the first row, what PyTorch itself does: ``torch.load`` of the
state dict, and a module built and filled with it. Files are warm in the page cache; outputs are written to disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measuring

ROWS = {
    "torch.load, build, fill": ("plain", "model.pt"),
    "encode a state dict": ("encode", "model.pt"),
    "encode a safetensors file": ("encode", "model.plain.safetensors"),
    "encode an artifact": ("encode", "model.safetensors"),
    "inspect a model": ("inspect", "model.safetensors"),
    "inspect a graph": ("inspect", "graph.safetensors"),
    "decode a graph": ("decode", "graph.safetensors"),
    "prune to 2×": ("prune", "model.safetensors"),
}


def make(folder: Path, width: float) -> None:
    """One model as every kind of file."""
    import safetensors.torch
    import torch

    import metaprune_cli as metaprune
    from metaprune_cli.models import Architecture, build

    architecture = Architecture("cifar:vgg19_bn", {"width": width}, (3, 32, 32))
    model = build(architecture).eval()
    torch.save(model.state_dict(), folder / "model.pt")
    safetensors.torch.save_file(model.state_dict(), folder / "model.plain.safetensors")
    metaprune.save_model(model, folder / "model.safetensors", arch=architecture)
    _encode(folder / "model.safetensors", folder / "graph.safetensors")


def _plain(source: Path, _: Path) -> None:
    import torch

    from metaprune_cli.models import Architecture, build

    state = torch.load(source, weights_only=True)
    width = next(iter(state.values())).size(0) / 64  # of the first of the VGG's convolutions
    build(Architecture("cifar:vgg19_bn", {"width": width})).load_state_dict(state)


def _encode(source: Path, target: Path) -> None:
    import torch

    from metaprune_cli.config import EncodeSettings
    from metaprune_cli.stages.encode import encode
    from metaprune_cli.training.progress import Silence
    from metaprune_cli.workflows.loading import ModelSource

    device, settings = torch.device("cpu"), EncodeSettings()
    encode([source], target, settings, source=ModelSource(), data=None, device=device, progress=Silence())


def _inspect(source: Path, _: Path) -> None:
    from metaprune_cli.stages.inspect import inspect

    inspect(source)


def _decode(source: Path, target: Path) -> None:
    from metaprune_cli.stages.decode import decode
    from metaprune_cli.training.progress import Silence
    from metaprune_cli.workflows.loading import ModelSource

    decode([source], target, source=ModelSource(), progress=Silence())


def _prune(source: Path, target: Path) -> None:
    import torch

    from metaprune_cli.config import PruneSettings
    from metaprune_cli.stages.prune import prune
    from metaprune_cli.training.progress import Silence
    from metaprune_cli.workflows.loading import ModelSource

    device, settings = torch.device("cpu"), PruneSettings(criterion="group-l2")
    prune([source], target, settings, source=ModelSource(), data=None, device=device, progress=Silence())


WORK: dict[str, Callable[[Path, Path], None]] = {
    "plain": _plain,
    "encode": _encode,
    "inspect": _inspect,
    "decode": _decode,
    "prune": _prune,
}


def measure(work: str, tiny: str, source: str, target: str) -> dict[str, float]:
    """Do one thing to one file, in this process, once it was done to a tiny file of the same kind."""
    import torch

    torch.set_num_threads(1)
    WORK[work](Path(tiny), Path(tiny).with_name(f"{work}.safetensors"))
    before = measuring.resident()
    measuring.reset_peak()
    start = time.perf_counter()
    WORK[work](Path(source), Path(target))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": (measuring.peak() - before) / Path(source).stat().st_size}


def report(folder: Path, tiny: Path, width: float, rows: dict[str, tuple[str, str]], repeats: int) -> None:
    """Print a line for each row, of one size of model."""
    make(folder, width)
    print(f"{(folder / 'model.pt').stat().st_size / 1e9:.2f} GB{'peak / file':>38}{'time / torch.load':>20}")
    first = 0.0
    for name, (work, file) in rows.items():
        arguments = (work, str(tiny / file), str(folder / file), str(folder / "result.safetensors"))
        runs = []
        for _ in range(repeats):
            runs.append(measuring.in_process(__file__, *arguments, OMP_NUM_THREADS="1"))
            (folder / "result.safetensors").unlink(missing_ok=True)
        run = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        first = first or run["seconds"]
        print(f"  {name:<30}{run['peak']:>12.2f} ×{run['seconds'] / first:>18.2f} ×", flush=True)


def main() -> None:
    """Parse; or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", type=float, default=[2, 4])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], choices=sorted({work for work, _ in ROWS.values()}))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    rows = {name: row for name, row in ROWS.items() if row[0] not in given.without}
    for width in given.widths:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as tiny:
            make(Path(tiny), 1 / 16)
            report(Path(folder), Path(tiny), width, rows, given.repeats)


if __name__ == "__main__":
    main()
