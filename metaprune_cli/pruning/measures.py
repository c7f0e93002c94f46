"""How a quantity of a smaller model is told that no formula gives: the model is made, and runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.metrics.latency import gain, measure_latency, times_interleaved
from metaprune_cli.metrics.memory import peak_activations
from metaprune_cli.pruning.surgery import without
from metaprune_cli.pruning.targets import Measure, Target, counted

TURNS, MOST_TURNS = 15, 120
"""Of the two models, at a time and at most; about ten smaller models are tried."""
PRECISION = 0.01
"""Half the 95 % confidence interval of a gain in latency, relative to it."""
SURE = 3.0
"""Standard deviations for the side of the target: one wrong answer sends the whole bisection astray."""


def measure_for(
    target: Target,
    model: nn.Module,
    graph: NeuronGraph,
    example_inputs: ExampleInputs,
    device: torch.device | str = "cpu",
) -> Measure:
    """How the target's quantity is told: in closed form, or by the smaller model itself, which is made and runs.

    No table of layers' latencies is summed up: what a small model needs beside its layers would be missing. A smaller
    model's latency is that of the whole model, measured once, over the gain of the one over the other, which take turns
    so that what slows the machine down for a while slows both. They do until it is clear on which side of the target
    the smaller model is, or the gain is known to ``PRECISION``.

    Args:
        target: what it is.
        model: the network.
        graph: its structure.
        example_inputs: of one input.
        device: where latency is measured.
    """
    found = counted(graph, target.quantity)
    if found is not None:
        return found
    if target.quantity == "memory":
        return remembered(
            lambda kept: peak_activations(without(model, graph, kept, example_inputs).eval(), example_inputs)
        )
    whole = measure_latency(model, example_inputs, 2 * TURNS, device=device).median_ms / 1e3
    due = whole / target.limit_for(whole)

    def latency(kept: Tensor) -> float:
        both = {"whole": model, "small": without(model, graph, kept, example_inputs)}
        times_ms: dict[str, list[float]] = {name: [] for name in both}
        while True:
            for name, more in times_interleaved(both, example_inputs, TURNS, warmup=3, device=device).items():
                times_ms[name] += more
            found = gain(times_ms["whole"], times_ms["small"])
            known = found.high - found.low < 2 * PRECISION * found.median
            sure = gain(times_ms["whole"], times_ms["small"], SURE)
            if known or not sure.low < due < sure.high or len(times_ms["small"]) >= MOST_TURNS:
                return whole / found.median

    return remembered(latency)


def remembered(measure: Measure) -> Measure:
    """The same measure, asked once for every choice of units."""
    tried: dict[bytes, float] = {}

    def remembering(kept: Tensor) -> float:
        key = kept.numpy().tobytes()
        if key not in tried:
            tried[key] = measure(kept)
        return tried[key]

    return remembering
