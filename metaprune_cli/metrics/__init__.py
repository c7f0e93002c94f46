"""What a model costs: multiply–accumulates, parameters, latency."""

from metaprune_cli.metrics.latency import Latency, measure_interleaved, measure_latency
from metaprune_cli.metrics.macs import count_macs, count_params

__all__ = [
    "Latency",
    "count_macs",
    "count_params",
    "measure_interleaved",
    "measure_latency",
]
