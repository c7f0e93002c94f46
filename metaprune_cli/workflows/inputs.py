"""What a model is run on where no data set is needed: random inputs, as many at a time as are asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.config import DataSettings
from metaprune_cli.graph.nest import map_tensors
from metaprune_cli.graph.trace.passes import batch_axis
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.workflows.loading import Opened
from metaprune_cli.workflows.task import task_of


def shaped(opened: Opened, data: DataSettings | None) -> Opened:
    """The same model with the images' shape, where nothing else says what it takes."""
    if opened.says_its_inputs or data is None:
        return opened
    return opened.of_shape(task_of(data).splits(data).item_shape)


def random_inputs(example: ExampleInputs, batch: int, seed: int) -> ExampleInputs:
    """Inputs like the example's, ``batch`` items of them.

    Floating-point tensors are standard normal. Whole numbers (token ids, masks) are the example's, repeated; but for
    the first seed, those of a sequence are in another order, so that other inputs are other inputs. A list is a batch
    of its own, whose items are repeated; mappings in it are annotations, whose values mean something, and stay.

    Args:
        example: one item.
        batch: how many.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            is_sequence = seed > 0 and tensor.dim() > 1  # one dimension alone: lengths, offsets, which have an order
            return tensor[..., torch.randperm(tensor.size(-1), generator=generator)] if is_sequence else tensor
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype)

    def repeated(tensor: Tensor) -> Tensor:
        axis = batch_axis(tensor, example)
        return drawn(tensor if axis is None else torch.cat([tensor] * batch, axis))

    def argument(value: Any) -> Any:
        if isinstance(value, list):
            return [part if isinstance(part, dict) else map_tensors(part, drawn) for part in value * batch]
        return map_tensors(value, repeated)

    if isinstance(example, dict):
        return {name: argument(value) for name, value in example.items()}
    if isinstance(example, tuple):
        return tuple(argument(value) for value in example)
    return repeated(example)
