"""What came of making a model smaller, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from metaprune_cli.tasks import Metric

SAME = 1.05
"""Times faster, below which a clock tells nothing."""


@dataclass(frozen=True)
class Verdict:
    """A smaller model beside the whole one.

    Attributes:
        speedup: MACs before / MACs after.
        faster: time of a pass before / after, as measured here; None where it was not.
        batch: items in such a pass; None: it is said elsewhere.
        metric: what was measured of both; None where there were no images.
        before: its value for the whole model.
        after: its value for the smaller one.
        seconds: what all of it took; None: it is not said.
    """

    speedup: float
    faster: float | None
    batch: int | None
    metric: Metric | None
    before: float | None
    after: float | None
    seconds: float | None

    @property
    def drop(self) -> float | None:
        """How much worse the metric is; negative where it is better."""
        if self.metric is None or self.before is None or self.after is None:
            return None
        return self.metric.loss(self.before, self.after)

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self) -> str:
        """The sentence: ``4.0x fewer multiply-adds, 2.6x faster here at batch 8; top-1 62.6 → 61.9 %; 3 min``."""
        speed = f"{self.speedup:.1f}x fewer multiply-adds"
        if self.faster is not None:
            said = f"{self.faster:.1f}x faster" if self.faster >= SAME else "not faster"
            speed += f", {said} here" + ("" if self.batch is None else f" at batch {self.batch}")
        return "; ".join([speed, self._quality(), *([] if self.seconds is None else [duration(self.seconds)])])

    def _quality(self) -> str:
        if self.metric is None or self.after is None:
            return "accuracy not measured: no images"
        digits = max(self.metric.digits - 1, 0)
        before = "" if self.before is None else f"{self.before:.{digits}f} → "
        figures = f"{before}{self.after:.{digits}f} {self.metric.unit}".rstrip()
        return f"{self.metric.name} {figures}"


def duration(seconds: float) -> str:
    """A time for people: ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
