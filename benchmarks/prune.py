"""From a model to one of half the MACs: metaprune beside Torch-Pruning, in alternating runs.

    pip install -e .[bench]
    python benchmarks/prune.py [--models resnet50 …] [--repeats 3] [--steps 200]

Torch-Pruning runs the loop of its own benchmark script: build the dependency graph (the constructor of
``GroupNormPruner``, global ranking by group magnitude p = 2, the classifier ignored, heads of attention given), then
steps of 1/``steps`` of the channels, counting MACs after each (``count_ops_and_params``), until they have halved.
metaprune runs encode, scores (group-l2), plan and surgery; once more with the proof that ``metaprune.prune`` adds (the
masked original in double precision). Every run is a process of its own on one core; CPU seconds; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

MODELS = ("resnet50", "vit_b_16", "densenet121")
TOOLS = ("metaprune", "metaprune with proof", "torch-pruning")


def metaprune_run(model: Any, example: Any, *, proof: bool) -> dict[str, float]:
    """Encode, score, plan, remove; with ``proof`` also compare with the masked original."""
    import torch

    import metaprune_cli as metaprune
    from metaprune_cli.pruning import apply_plan, make_plan, unit_scores

    metaprune.encode(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU()), example)  # imports
    start = time.process_time()
    graph = metaprune.encode(model, example)
    encoded = time.process_time() - start
    if proof:
        plan = metaprune.prune(model, example, speedup=2, graph=graph).plan
    else:
        plan = make_plan(graph, unit_scores(graph, model.state_dict(), "group-l2"), 2.0)
        apply_plan(model, graph, plan, example)
    seconds = time.process_time() - start
    return {"seconds": seconds, "build": encoded, "before": plan.macs_before, "after": plan.macs_after}


def torch_pruning_run(model: Any, example: Any, steps: int) -> dict[str, float]:
    """Its dependency build and its loop."""
    import torch_pruning
    from torch import nn

    modules = list(model.modules())
    start = time.process_time()
    pruner = torch_pruning.pruner.GroupNormPruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        iterative_steps=steps,
        pruning_ratio=1.0,
        ignored_layers=[m for m in modules if isinstance(m, nn.Linear) and m.out_features == 1000],
        num_heads={m: m.num_heads for m in modules if isinstance(m, nn.MultiheadAttention)},
    )
    built = time.process_time() - start
    before, _ = torch_pruning.utils.count_ops_and_params(model, example)
    after = before
    while 2 * after > before and pruner.current_step < steps:
        pruner.step()
        after, _ = torch_pruning.utils.count_ops_and_params(model, example)
    return {"seconds": time.process_time() - start, "build": built, "before": before, "after": after}


def run_one(name: str, tool: str, steps: int) -> dict[str, float]:
    """One run, in this process."""
    import torch
    import torchvision

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, example = torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)
    if tool == "torch-pruning":
        return torch_pruning_run(model, example, steps)
    return metaprune_run(model, example, proof=tool != "metaprune")


def main() -> None:
    """Parse, run the tools in turn, print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="steps in which Torch-Pruning would remove everything")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_one(*given.one, given.steps)))
        return
    for name in given.models:
        runs: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
        for _ in range(given.repeats):
            for tool in TOOLS:
                runs[tool].append(_in_process(name, tool, given.steps))
        print(_line(name, runs), flush=True)


def _line(name: str, runs: dict[str, list[dict[str, float]]]) -> str:
    seconds = {tool: statistics.median(run["seconds"] for run in done) for tool, done in runs.items()}
    gained = {
        tool: f"{done[0]['before'] / 1e9:.2f} → {done[0]['after'] / 1e9:.2f} GMACs" for tool, done in runs.items()
    }
    theirs = seconds["torch-pruning"]
    parts = [f"{tool} {seconds[tool]:.2f} s ({theirs / seconds[tool]:.1f}×; {gained[tool]})" for tool in TOOLS]
    build = statistics.median(run["build"] for run in runs["metaprune"])
    return f"{name}: {'; '.join(parts)}; of metaprune's time encode is {build:.2f} s; n = {len(runs['metaprune'])}"


def _in_process(name: str, tool: str, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", name, tool, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
