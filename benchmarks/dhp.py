"""What generated weights cost: training steps of a network, plain and with each form of the generator.

    python benchmarks/dhp.py [--arch cifar:resnet20] [--image 32] [--batch 64] [--rounds 7]

The steps of all forms take turns, so that whatever else runs on the machine meets all of them; the medians, in seconds
of one core, are compared. A step is forward, backward, SGD with momentum, and for generated weights what the latents'
schedule does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from metaprune_cli.config import DhpSettings
from metaprune_cli.graph import encode
from metaprune_cli.methods.dhp.generated import Generated
from metaprune_cli.methods.dhp.shrinking import Shrinker
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.ranking import plain_limits

STEPS = 5
"""In a row: the schedule does something in one of five."""


def main() -> None:
    """Time all forms and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="cifar:resnet20")
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    guard_convolutions()
    shape = (3, given.image, given.image)
    model = build(Architecture(given.arch, {"image_size": given.image}, shape)).train()
    graph, example = encode(model, torch.zeros(1, *shape)), torch.zeros(1, *shape)
    batch = torch.randn(given.batch, *shape)
    forms: dict[str, Callable[[], None]] = {"plain": step_of(model, batch, None)}
    for size in (0, 8):
        settings = DhpSettings(embedding=size)
        total = STEPS * (given.rounds + 1)
        shrinker = Shrinker(graph, plain_limits(graph.units, 0.8), (2.0,), settings, total)
        forms[f"embedding {size}"] = step_of(Generated(model, graph, example, settings, trained=True), batch, shrinker)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(given.rounds + 1):
        for name, step in forms.items():
            start = time.process_time()
            for _ in range(STEPS):
                step()
            if number:  # the first round warms up
                times[name].append((time.process_time() - start) / STEPS)
    plain = statistics.median(times["plain"])
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"{name:12}  {1e3 * middle:8.1f} ms  {middle / plain:5.2f}x")


def step_of(model: nn.Module, batch: torch.Tensor, shrinker: Shrinker | None) -> Callable[[], None]:
    """One step of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        if shrinker is not None:
            shrinker(model, 0.01)

    return step


if __name__ == "__main__":
    main()
