"""How long encoding takes, and how much memory, beside one forward pass of the same model in the same process.

    python benchmarks/encode.py [--models resnet18 vit_h_14 …] [--repeats 3]

Every run is a process of its own on one core, model in memory (random weights), torch warmed up on a tiny network of
convolution, normalisations and attention. Printed per model: medians of the CPU seconds of ``encode`` and of a forward
pass (1 × 3 × 224 × 224), their ratio, seconds per million parameters, and the growth of the process's peak memory over
what it held before, in multiples of the model. CPU seconds, so that a busy machine changes the figures little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import measuring

MODELS = (
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b7",
    "swin_t",
    "vgg16",
    "vit_b_16",
    "vit_l_16",
    "vit_h_14",
)


def measure(name: str) -> dict[str, float]:
    """Encode one model, in this process."""
    import torch
    import torchvision
    from torch import nn

    import metaprune_cli as metaprune

    torch.set_num_threads(1)
    warm = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(2), nn.LayerNorm(36), nn.Linear(36, 8)
    )
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    metaprune.encode(nn.Sequential(*warm, layer).eval(), torch.randn(1, 3, 8, 8))
    model = torchvision.models.get_model(name, weights=None).eval()
    example = torch.randn(1, 3, 224, 224)
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    before = measuring.resident()
    measuring.reset_peak()
    start = time.process_time()
    metaprune.encode(model, example)
    seconds = time.process_time() - start
    extra = measuring.peak() - before
    with torch.no_grad():
        model(example)
        start = time.process_time()
        model(example)
    forward = time.process_time() - start
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "seconds": seconds, "forward": forward, "extra": max(extra, 0) / size}


def main() -> None:
    """Parse, run each model in processes of its own, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    print(
        f"{'model':<18}{'params M':>9}{'encode s':>10}{'s per M':>9}{'forward s':>11}{'ratio':>7}{'extra memory':>14}"
    )
    for name in given.models:
        runs = [
            measuring.in_process(__file__, name, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1") for _ in range(given.repeats)
        ]
        run = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        millions = run["parameters"] / 1e6
        print(
            f"{name:<18}{millions:>9.1f}{run['seconds']:>10.2f}{run['seconds'] / millions:>9.4f}{run['forward']:>11.2f}"
            f"{run['seconds'] / run['forward']:>7.1f}{run['extra']:>12.2f} ×",
            flush=True,
        )


if __name__ == "__main__":
    main()
