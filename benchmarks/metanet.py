"""Time and memory of the metanetwork, forward and backward, for each backend, beside the arithmetic floor.

    python benchmarks/metanet.py [--cases resnet56:8:64 resnet50:6:16 vit_b_16:4:32] [--engines blocks tiles edges]

A case is a model, the layers and the hidden size of the metanetwork. Engines: ``edges``, the list of edges on PyTorch
Geometric; ``tiles``, the ``blocks`` backend without a compiler; ``bfloat16``, the same with ``edge_precision``;
``blocks``, as it comes. Every engine runs in a process of its own. ``edges`` is left out where its states would not fit
into memory (forward and backward hold them per layer).

Printed per line: seconds of a forward pass without gradients and of forward and backward (medians), memory above what
the process held before (the model, its graph), how many times faster and smaller than ``edges``, and how many times the
arithmetic floor. The floor is what the same function needs if every state were stored: per edge and hidden dimension
15 operations a layer forward, 26 backward, 2 and 4 a tap (a fused multiply-add is one), at the rate of this machine's
own matrix product. Below ``bfloat16``: by how much the decoded changes, and the gradient of the metanetwork's
parameters, differ from those in float32, relative to their norms.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from typing import Any

import measuring

CASES = ("resnet56:8:64", "resnet50:6:16", "vit_b_16:4:32")
ENGINES = ("edges", "tiles", "bfloat16", "blocks")
GIB = 2**30
COLUMNS = (
    ("engine", 10),
    ("forward s", 11),
    ("GiB", 7),
    ("faster", 8),
    ("smaller", 9),
    ("× floor", 9),
    ("+ backward s", 14),
    ("GiB", 7),
    ("faster", 8),
    ("smaller", 9),
    ("× floor", 9),
)


def measure(case: str, engine: str, repeats: int) -> dict[str, float]:
    """One case on one engine, in this process."""
    import torch

    import metaprune_cli as metaprune
    from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, kernel

    name, layers, hidden = case.split(":")
    graph = metaprune.encode(*_model(name))
    torch.manual_seed(0)
    precision = "bfloat16" if engine == "bfloat16" else "float32"
    network = MetaNetwork(MetaNetworkConfig(layers=int(layers), hidden=int(hidden), edge_precision=precision))
    edges, taps = graph.num_edges, sum(block.num_edges * block.size[3] for block in graph.blocks)
    backend = "edges" if engine == "edges" else "blocks"
    if engine in ("tiles", "bfloat16"):
        kernel.available = lambda *_: False
    network(metaprune.encode(torch.nn.Linear(2, 2), torch.zeros(1, 2)), backend=backend)  # what comes once: compilation
    states = edges * int(hidden)
    operations = states * int(layers) * 15 + 2 * taps * int(hidden), states * int(layers) * 41 + 6 * taps * int(hidden)
    needed = 4 * states * 10, 4 * states * 8 * int(layers)  # bytes of the list of edges, roughly
    rate, free = measuring.rate(), measuring.available()

    def forward() -> None:
        with torch.no_grad():
            network(graph, backend=backend)

    def both() -> None:
        network.zero_grad()
        written = network(graph, backend=backend)
        torch.stack([written[key].square().sum() for key in sorted(graph.trainable)]).sum().backward()

    figures: dict[str, float] = {}
    for what, run, place in (("forward", forward, 0), ("both", both, 1)):
        if engine == "edges" and needed[place] > free:
            continue
        seconds, memory = [], []
        for _ in range(repeats):
            gc.collect()
            before = measuring.resident()
            measuring.reset_peak()
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            memory.append(measuring.peak() - before)
        figures |= {what: statistics.median(seconds), f"{what}_memory": max(memory)}
        figures[f"{what}_floor"] = operations[place] / rate
    if engine == "bfloat16":
        figures |= _differences(network, graph)
    return figures


def _differences(network: Any, graph: Any) -> dict[str, float]:
    """Relative differences, from the same metanetwork in float32, of the decoded changes and of its gradient."""
    import dataclasses

    import torch

    found = []
    for precision in ("float32", "bfloat16"):
        network.config = dataclasses.replace(network.config, edge_precision=precision)
        network.zero_grad()
        written = network(graph)
        change = torch.cat([(written[key] - graph.tensors[key]).flatten() for key in sorted(graph.trainable)])
        (change * torch.linspace(-1, 1, len(change))).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        found.append((change.detach(), gradient))
    exact, near = found
    names = "of changes", "of the gradient"
    return {name: float((b - a).norm() / a.norm()) for name, a, b in zip(names, exact, near, strict=True)}


def _model(name: str) -> tuple[Any, Any]:
    """A model of random weights in eval mode, and an example input."""
    import torch
    import torchvision

    from metaprune_cli.models import Architecture, build

    torch.manual_seed(0)
    if name in torchvision.models.list_models():
        return torchvision.models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)
    return build(Architecture(f"cifar:{name}", {}, None)).eval(), torch.zeros(1, 3, 32, 32)


def main() -> None:
    """Parse, run each case on each engine, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one, given.repeats)))
        return
    for case in given.cases:
        name, layers, hidden = case.split(":")
        print(f"\n{name}, L = {layers}, H = {hidden}")
        print("".join(f"{title:>{width}}" for title, width in COLUMNS))
        baseline: dict[str, float] = {}
        for engine in given.engines:
            repeats = 1 if engine == "edges" else given.repeats
            run = measuring.in_process(__file__, case, engine, "--repeats", str(repeats))
            baseline = baseline or (run if engine == "edges" else {})
            cells = [engine, *_cells(run, baseline)]
            print("".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)), flush=True)
            if "of changes" in run:
                print(f"  differs by {run['of changes']:.1e} (changes), {run['of the gradient']:.1e} (gradient)")


def _cells(run: dict[str, float], baseline: dict[str, float]) -> list[str]:
    """The figures of a line; a dash where there is none."""

    def shown(value: float | None, digits: int = 2) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    def ratio(top: dict[str, float], bottom: dict[str, float], above: str, below: str) -> str:
        return shown(top[above] / bottom[below] if above in top and below in bottom else None, 1)

    cells = []
    for what in ("forward", "both"):
        memory = run.get(f"{what}_memory")
        cells += [
            shown(run.get(what)),
            shown(None if memory is None else memory / GIB),
            ratio(baseline, run, what, what),
            ratio(baseline, run, f"{what}_memory", f"{what}_memory"),
            ratio(run, run, what, f"{what}_floor"),
        ]
    return cells


if __name__ == "__main__":
    main()
