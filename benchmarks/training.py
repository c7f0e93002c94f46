"""One step of training in float32 and in bfloat16, in turns in the same process.

    python benchmarks/training.py [--arch cifar:resnet20] [--batch-size 128] [--steps 20]

As ``metaprune finetune`` takes it: SGD, the layout of images that suits the machine, forward and backward in the
precision, weights in float32. Random images. Printed: milliseconds an image, medians, and the ratio.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from metaprune_cli.config import Precision
from metaprune_cli.metrics.calling import in_format, memory_format_for
from metaprune_cli.models import Architecture, build
from metaprune_cli.training.precision import in_precision

PRECISIONS: Sequence[Precision] = ("float32", "bfloat16")


def main() -> None:
    """Parse, time both in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="cifar:resnet20")
    parser.add_argument("--input-shape", type=int, nargs=3, default=[3, 32, 32])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.manual_seed(0)
    model = build(Architecture(given.arch, {}, None)).train()
    images, labels = torch.randn(given.batch_size, *given.input_shape), torch.randint(10, (given.batch_size,))
    layout = memory_format_for(model, images[:1])
    images = in_format(images, layout)
    models = {precision: copy.deepcopy(model).to(memory_format=layout) for precision in PRECISIONS}
    optimizers = {name: torch.optim.SGD(one.parameters(), lr=1e-3, momentum=0.9) for name, one in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for _ in range(given.steps):
        for name in PRECISIONS:
            start = time.perf_counter()
            with in_precision(name, images.device):
                loss = F.cross_entropy(models[name](images), labels)
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            seconds[name].append(time.perf_counter() - start)
    times = {name: 1000 * statistics.median(own[2:]) / given.batch_size for name, own in seconds.items()}
    for name, each in times.items():
        print(f"{name:9} {each:8.3f} ms an image")
    print(f"ratio     {times['float32'] / times['bfloat16']:8.2f}")


if __name__ == "__main__":
    main()
