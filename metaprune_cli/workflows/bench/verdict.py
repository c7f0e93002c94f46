"""Whether a model is as much faster as its MACs promise, the spread of the measurements taken into account."""

from __future__ import annotations

from typing import Literal

from metaprune_cli.config import BenchSettings
from metaprune_cli.metrics.latency import Gain

Verdict = Literal["no claim", "as promised", "lags", "unclear"]


def due(macs_gain: float, share: float) -> float:
    """The gain in latency with which ``share`` of the MACs saved is time saved."""
    return 1 / (1 - share * (1 - 1 / macs_gain))


def judge(found: Gain, macs_gain: float, settings: BenchSettings) -> Verdict:
    """What to say of a model.

    ``no claim``: its MACs did not fall (by ``settings.claim`` at least). ``lags``: even at the upper end of the
    interval, less than the share ``settings.arrives`` of the MACs saved is time saved. ``unclear``: the interval
    reaches from no gain at all to what is due.
    """
    if macs_gain < settings.claim:
        return "no claim"
    if found.high < due(macs_gain, settings.arrives):
        return "lags"
    return "unclear" if found.low <= 1 else "as promised"
