"""What a model is for: its data, its loss, what is measured of it, and how far it is from a teacher."""

from metaprune_cli.tasks.base import Meter, Metric, SumMeter, Task
from metaprune_cli.tasks.classification import Classification
from metaprune_cli.tasks.measuring import Score, Tally, measure
from metaprune_cli.tasks.registry import DEFAULT, find_task

__all__ = ["DEFAULT", "Classification", "Meter", "Metric", "Score", "SumMeter", "Tally", "Task", "find_task", "measure"]
