"""Time and memory of the metanetwork, forward and backward, for each backend, beside the arithmetic floor.

    python benchmarks/metanet.py [--cases resnet56:8:64 resnet50:6:16 vit_b_16:4:32] [--engines blocks tiles edges]

A case is a model, the layers and the hidden size of the metanetwork. Engines: ``edges``, the list of edges on PyTorch
Geometric; ``tiles``, the ``blocks`` backend without a compiler; ``blocks``, as it comes. Every engine runs in a process
of its own. ``edges`` is left out where its states would not fit into memory (forward and backward hold them per layer).

Printed per line: seconds of a forward pass without gradients and of forward and backward (medians), memory above what
the process held before (the model, its graph), how many times faster and smaller than ``edges``, and how many times the
arithmetic floor. The floor is what the same function needs if every state were stored: per edge and hidden dimension
15 operations a layer forward, 26 backward, 2 and 4 a tap (a fused multiply-add is one), at the rate of this machine's
own matrix product.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time

import measuring

CASES = ("resnet56:8:64", "resnet50:6:16", "vit_b_16:4:32")
ENGINES = ("edges", "tiles", "blocks")
GIB = 2**30


def measure(case: str, engine: str, repeats: int) -> dict[str, float]:
    """One case on one engine, in this process."""
    import torch

    import metaprune_cli as metaprune
    from metaprune_cli.metanet import MetaNetwork, MetaNetworkConfig

    name, layers, hidden = case.split(":")
    graph = metaprune.encode(*_model(name))
    torch.manual_seed(0)
    network = MetaNetwork(MetaNetworkConfig(layers=int(layers), hidden=int(hidden)))
    edges, taps = graph.num_edges, sum(block.num_edges * block.size[3] for block in graph.blocks)
    backend = "edges" if engine == "edges" else "blocks"
    figures = {"edges": edges, "first": 0.0, "floor": 0.0}
    if engine != "edges":
        start = time.perf_counter()
        _ready(engine)
        figures["first"] = time.perf_counter() - start
    stored = 4 * edges * int(hidden) * int(layers)
    available = measuring.available()

    def forward() -> None:
        with torch.no_grad():
            network(graph, backend=backend)

    def both() -> None:
        network.zero_grad()
        written = network(graph, backend=backend)
        sum(written[key].square().sum() for key in sorted(graph.trainable)).backward()  # type: ignore[union-attr]

    rate = _rate()
    floors = edges * int(hidden) * int(layers) * 15 + 2 * taps * int(hidden), 0
    floors = floors[0], floors[0] + edges * int(hidden) * int(layers) * 26 + 4 * taps * int(hidden)
    for what, run, needed, floor in (
        ("forward", forward, 10 * stored // int(layers), floors[0]),
        ("both", both, 8 * stored, floors[1]),
    ):
        if engine == "edges" and needed > available:
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
        figures |= {what: statistics.median(seconds), f"{what}_memory": max(memory), f"{what}_floor": floor / rate}
    return figures


def _model(name: str) -> tuple[object, object]:
    """A model of random weights in eval mode, and an example input."""
    import torch
    import torchvision

    from metaprune_cli.models import Architecture, build

    torch.manual_seed(0)
    if name in torchvision.models.list_models():
        return torchvision.models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)
    return build(Architecture(f"cifar:{name}", {}, None)).eval(), torch.zeros(1, 3, 32, 32)


def _ready(engine: str) -> None:
    """Take the engine's first call, on a tiny model: compilation, if it is not in the cache."""
    import torch

    import metaprune_cli as metaprune
    from metaprune_cli.metanet import MetaNetwork, MetaNetworkConfig, kernel

    if engine == "tiles":
        kernel.available = lambda *_: False
    MetaNetwork(MetaNetworkConfig(layers=1, hidden=2))(metaprune.encode(torch.nn.Linear(2, 2), torch.zeros(1, 2)))


def _rate() -> float:
    """Fused multiply-adds per second of a matrix product."""
    import torch

    a, b, times = torch.randn(2048, 2048), torch.randn(2048, 2048), []
    for _ in range(7):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2048**3 / statistics.median(times)


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
        print(f"{'engine':<8}{'forward s':>11}{'+ backward s':>14}{'GiB':>7}{'+ GiB':>8}{'faster':>16}{'smaller':>16}{'× floor':>14}")
        baseline: dict[str, float] = {}
        for engine in given.engines:
            run = measuring.in_process(__file__, case, engine, "--repeats", str(given.repeats if engine != "edges" else 1))
            baseline = baseline or (run if engine == "edges" else {})
            print(_line(engine, run, baseline), flush=True)


def _line(engine: str, run: dict[str, float], baseline: dict[str, float]) -> str:
    def pair(of: object) -> str:
        return " / ".join("–" if (figure := of(what)) is None else f"{figure:.1f}" for what in ("forward", "both"))  # type: ignore[operator]

    def against(field: str) -> str:
        return pair(lambda what: baseline[what + field] / run[what + field] if what + field in baseline and what in run else None)

    def shown(key: str, unit: float = 1.0) -> str:
        return f"{run[key] / unit:.2f}" if key in run else "–"

    floor = pair(lambda what: run[what] / run[f"{what}_floor"] if what in run else None)
    return (
        f"{engine:<8}{shown('forward'):>11}{shown('both'):>14}{shown('forward_memory', GIB):>7}{shown('both_memory', GIB):>8}"
        f"{against(''):>16}{against('_memory'):>16}{floor:>14}"
    )


if __name__ == "__main__":
    main()
