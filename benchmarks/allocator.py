"""What it saves to use freed memory again (``environment.keep_freed_memory``, which the command line calls).

    python benchmarks/allocator.py [--repeats 5] [--images 1024]

Every run is a process of its own on one core: a CIFAR-10 ResNet-20 of random weights is pruned to 2.5×, then repaired
by least squares three times on random images; the first time does not count. Runs with glibc as it comes and with
freed memory kept alternate. Printed are medians of CPU seconds of one repair, in user and in system mode, page faults
and the peak of resident memory, and the ratio of the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys


def child(keep: bool, images: int) -> None:
    """One run."""
    from metaprune_cli.environment import keep_freed_memory

    if keep:
        assert keep_freed_memory(), "not glibc, or an allocator was chosen in the environment"
    import torch

    import metaprune_cli as metaprune
    from metaprune_cli.models import Architecture, build
    from metaprune_cli.pruning.repair import Original, repaired

    torch.manual_seed(0)
    model = build(Architecture("cifar:resnet20", {}, (3, 32, 32))).eval()
    inputs, example = torch.randn(images, 3, 32, 32), torch.randn(1, 3, 32, 32)
    pruned = metaprune.prune(model, example, speedup=2.5)
    graph, kept = metaprune.encode(model, example), pruned.plan.kept
    original = Original.of(model, inputs)
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF)
        repaired(pruned.model, model, graph, kept, inputs, "least-squares", original=original)
        after = resource.getrusage(resource.RUSAGE_SELF)
    names = {"user": "ru_utime", "system": "ru_stime", "faults": "ru_minflt"}
    figures = {name: getattr(after, field) - getattr(before, field) for name, field in names.items()}
    print(json.dumps(figures | {"peak MiB": after.ru_maxrss / 1024}))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--child", choices=["kept", "returned"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child == "kept", given.images)
        return
    runs: dict[str, list[dict[str, float]]] = {"returned": [], "kept": []}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(given.repeats):
        for how, found in runs.items():
            line = [sys.executable, __file__, "--child", how, "--images", str(given.images)]
            ran = subprocess.run(line, env=environment, check=True, capture_output=True, text=True)
            found.append(json.loads(ran.stdout.splitlines()[-1]))
    seconds = {}
    for how, found in runs.items():
        medians = {name: statistics.median(run[name] for run in found) for name in found[0]}
        seconds[how] = medians["user"] + medians["system"]
        print(how, {name: round(value, 2) for name, value in medians.items()})
    print(f"returned / kept: {seconds['returned'] / seconds['kept']:.2f}")


if __name__ == "__main__":
    main()
