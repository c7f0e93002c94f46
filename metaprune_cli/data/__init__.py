"""Images and labels: datasets, their splits, batches and augmentation."""

from metaprune_cli.data.image_split import ImageSplit
from metaprune_cli.data.splits import Splits, load_splits, load_test

__all__ = ["ImageSplit", "Splits", "load_splits", "load_test"]
