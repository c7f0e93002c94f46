"""Inputs and targets: datasets, their splits, batches and augmentation."""

from metaprune_cli.data.batch import Batch, Split, TensorSplit
from metaprune_cli.data.image_split import ImageSplit
from metaprune_cli.data.splits import Splits, load_splits, load_test

__all__ = ["Batch", "ImageSplit", "Split", "Splits", "TensorSplit", "load_splits", "load_test"]
