"""Why a layer is left as it is: every reason in words, so that nothing is skipped in silence."""

from __future__ import annotations

from collections.abc import Iterator

from metaprune_cli.pruning.sparsity.layers import IN, OUT, TAP, WeightLayer
from metaprune_cli.pruning.sparsity.request import Zeroing

KERNEL_ROWS, KERNEL_COLUMNS = 32, 64
"""What torch.sparse's CUTLASS kernels want a half-precision 2:4 matrix to be a multiple of (torch 2.5 to 2.15)."""


def reason_to_skip(layer: WeightLayer, asked: Zeroing) -> str | None:
    """The first reason not to zero anything in a layer; None where there is none."""
    return next(_reasons(layer, asked), None)


def kernel_problem(layer: WeightLayer) -> str | None:
    """Why ``torch.sparse.to_sparse_semi_structured`` would not take this weight in half precision, 2:4 given."""
    if not layer.is_matrix:
        return "no matrix: PyTorch has no 2:4 convolution"
    rows, columns = layer.shape
    if rows % KERNEL_ROWS or columns % KERNEL_COLUMNS:
        return f"{rows}x{columns} is not a multiple of {KERNEL_ROWS}x{KERNEL_COLUMNS}"
    if any(block.stride[OUT] < max(block.stride[IN], block.stride[TAP]) for block in layer.blocks):
        return "its inputs do not lie along its rows"
    return None


def _reasons(layer: WeightLayer, asked: Zeroing) -> Iterator[str]:
    if layer.untouched is not None:
        yield layer.untouched
    if layer.classifier and not asked.classifier:
        yield "it is the classifier: its outputs are the model's"
    if layer.first and not asked.first:
        yield "it is a first layer: its inputs are the model's"
    yield from _misfits(layer, asked)
    if asked.kernel_only and (problem := kernel_problem(layer)):
        yield f"no kernel takes it: {problem}"


def _misfits(layer: WeightLayer, asked: Zeroing) -> Iterator[str]:
    """Sizes that are no multiple of what goes together."""
    height, width = (1, asked.pattern[1]) if asked.kind == "n:m" else asked.granule
    for block in layer.blocks:
        groups, outputs, inputs, _ = block.size
        if width > 1 and inputs == 1 and groups > 1:
            yield "depthwise: each output has one input"
        if layer.run(block) % width:
            yield f"inputs of each output: {layer.run(block)}, not a multiple of {width}"
        if outputs % height:
            yield f"outputs{' of each group' if groups > 1 else ''}: {outputs}, not a multiple of {height}"
        if layer.start(block, IN) % width or layer.start(block, OUT) % height:
            yield "a part of it begins in the middle of a group"
