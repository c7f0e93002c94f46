"""Which epoch of a run is the best on the validation images, and when to look for no better one."""

from __future__ import annotations

from torch import nn

from metaprune_cli.config import OptimSettings
from metaprune_cli.data import Split
from metaprune_cli.errors import InputError
from metaprune_cli.tasks.base import Metric
from metaprune_cli.training.state import Best, Record, snapshot


def check_judged(settings: OptimSettings, val: Split | None) -> None:
    """Make sure that epochs can be compared where they are to be.

    Raises:
        InputError: there are no validation images.
    """
    if settings.patience and val is None:
        raise InputError(
            "Without validation images no epoch is better than another.", where="patience", got=settings.patience
        )


def better_of(
    best: Best | None, model: nn.Module, record: Record, settings: OptimSettings, metric: Metric
) -> Best | None:
    """The best weights so far, those of ``model`` among them; of equals the earlier ones; None without patience.

    Args:
        best: before this epoch.
        model: after it.
        record: its figures: ``epoch``, and ``val_loss`` or the headline's.
        settings: ``patience`` and ``stop_on``.
        metric: the headline.
    """
    if not settings.patience:
        return None
    score = record["val_loss"]
    if settings.stop_on != "loss":
        score = metric.loss(100 if metric.unit == "%" else 0, record[f"val_{metric.key}"])
    return Best(int(record["epoch"]), score, snapshot(model)) if best is None or score < best.score else best


def is_over(best: Best | None, epochs: int, patience: int) -> bool:
    """Whether after so many epochs the best has been the best for too long."""
    return best is not None and epochs - best.epoch >= patience
