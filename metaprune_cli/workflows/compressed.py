"""What ``compress`` says of what it made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaprune_cli.workflows.estimate import Estimate
from metaprune_cli.workflows.verdict import Verdict


@dataclass(frozen=True)
class Smaller:
    """One smaller model.

    ``removed``, ``trained`` and ``whole`` are the task's metric on the validation images: after the removal and repair,
    after the training, and of the whole model. ``output`` is the better of the first two.
    """

    requested: float
    verdict: Verdict
    measured_on: str | None
    macs: tuple[int, int]
    params: tuple[int, int]
    route: str
    whole: float | None
    removed: float | None
    trained: float | None
    pruned_file: Path
    output: Path
    exports: tuple[Path, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Plain values."""
        verdict = self.verdict
        return {
            "verdict": verdict.in_words(),
            "requested": self.requested,
            "speedup": verdict.speedup,
            "latency_speedup": verdict.faster,
            "batch": verdict.batch,
            "metric": None if verdict.metric is None else verdict.metric.key,
            "measured_on": self.measured_on,
            "before": verdict.before,
            "after": verdict.after,
            "validation": {"whole": self.whole, "pruned": self.removed, "finetuned": self.trained},
            "macs_before": self.macs[0],
            "macs_after": self.macs[1],
            "params_before": self.params[0],
            "params_after": self.params[1],
            "route": self.route,
            "seconds": verdict.seconds,
            "output": str(self.output),
            "exports": [str(path) for path in self.exports],
        }


@dataclass(frozen=True)
class Compressed:
    """What came of it: the smaller models, the report, what there is to say, and, of a dry run, the plan alone."""

    folder: Path
    models: tuple[Smaller, ...]
    report: Path | None
    notes: tuple[str, ...]
    plan: tuple[Estimate, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folder": str(self.folder),
            "models": [model.to_document() for model in self.models],
            "report": None if self.report is None else str(self.report),
            "notes": list(self.notes),
            **({"plan": [part.to_document() for part in self.plan]} if self.plan else {}),
        }
