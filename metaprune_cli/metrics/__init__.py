"""What a model is worth and what it costs: accuracy, multiply–accumulates, parameters, latency."""

from metaprune_cli.metrics.accuracy import Accuracy, evaluate
from metaprune_cli.metrics.latency import Latency, measure_interleaved, measure_latency
from metaprune_cli.metrics.macs import count_macs, count_params

__all__ = [
    "Accuracy",
    "Latency",
    "count_macs",
    "count_params",
    "evaluate",
    "measure_interleaved",
    "measure_latency",
]
