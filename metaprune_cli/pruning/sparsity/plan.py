"""Which weights go and which stay: pure data, made before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError, TargetError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.pruning.sparsity.layers import WeightLayer, find_layers
from metaprune_cli.pruning.sparsity.request import Zeroing
from metaprune_cli.pruning.sparsity.selection import count_of, largest_of_groups, norms_of_tiles, smallest, spread
from metaprune_cli.pruning.sparsity.skipping import kernel_problem, reason_to_skip


@dataclass(frozen=True)
class LayerZeros:
    """What happens to one layer.

    Attributes:
        name: the state-dict entry.
        shape: its shape.
        weights: how many of its elements contract activations.
        kept: how many of them stay.
        skipped: why none of them goes; None where some could.
        kernel: whether PyTorch's 2:4 kernels would take it: "yes", or why not; None for other patterns.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    skipped: str | None
    kernel: str | None = None


@dataclass(frozen=True, eq=False)
class ZeroPlan:
    """Which weights of a graph stay.

    Attributes:
        asked: what was asked for.
        masks: bool, in the shape of its entry, for every entry that is not skipped: True where a weight stays.
        layers: the same decision, layer by layer, skipped ones included.
    """

    asked: Zeroing
    masks: Mapping[str, Tensor] = field(repr=False)
    layers: tuple[LayerZeros, ...]

    def __repr__(self) -> str:
        return f"ZeroPlan({self.asked.kind}, {self.kept:,} of {self.weights:,} weights stay, {len(self.layers)} layers)"

    @property
    def weights(self) -> int:
        """Weights of the layers that are not skipped."""
        return sum(layer.weights for layer in self.layers if layer.skipped is None)

    @property
    def kept(self) -> int:
        """Those of them that stay."""
        return sum(layer.kept for layer in self.layers if layer.skipped is None)

    @property
    def sparsity(self) -> float:
        """The fraction of them that goes."""
        return 1 - self.kept / self.weights

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON; the masks are the zeros of the weights themselves."""
        return {
            "kind": self.asked.kind,
            "pattern": self.asked.shape,
            "requested": self.asked.fraction,
            "sparsity": self.sparsity,
            "weights": self.weights,
            "kept": self.kept,
            "layers": [
                {
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "weights": layer.weights,
                    "kept": layer.kept,
                    "skipped": layer.skipped,
                    "kernel": layer.kernel,
                }
                for layer in self.layers
            ],
        }


def make_zero_plan(graph: NeuronGraph, tensors: Mapping[str, Tensor], asked: Zeroing) -> ZeroPlan:
    """Decide which weights go: those of smallest magnitude.

    Args:
        graph: the structure; its tensors do not matter.
        tensors: the state dict.
        asked: how many, in what pattern, of which layers.

    Raises:
        TargetError: every layer is skipped (the reasons are listed), or what would go is zero already.
        NumericsError: a weight is not finite; names the entry.
    """
    layers = find_layers(graph)
    chosen, skipped = divided(layers, asked)
    masks = choose(chosen, tensors, asked)
    if not any(bool(tensors[name][~mask].any()) for name, mask in masks.items()):
        raise TargetError(
            "All weights that would be set to zero are zero already.",
            expected="weights to zero",
            got=f"a sparsity of {asked.fraction:g} asked for",
            next_step="ask for a higher sparsity",
        )
    rows = [_described(layer, skipped.get(layer.name), masks.get(layer.name), asked) for layer in layers]
    return ZeroPlan(asked, masks, tuple(rows))


def divided(layers: Sequence[WeightLayer], asked: Zeroing) -> tuple[list[WeightLayer], dict[str, str]]:
    """The layers that are zeroed, and why the others are left alone, by entry.

    Raises:
        TargetError: all of them are.
    """
    reasons = {layer.name: reason_to_skip(layer, asked) for layer in layers}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    chosen = [layer for layer in layers if layer.name not in skipped]
    if not chosen:
        raise TargetError(
            "There is nothing to zero.",
            expected="a layer that fits" + (f" {asked.shape}" if asked.shape else ""),
            got="\n".join(f"{name}: {reason}" for name, reason in skipped.items()) or "no weights at all",
            next_step="--include-classifier, or another pattern, block or kind",
        )
    return chosen, skipped


@torch.no_grad()
def choose(layers: Sequence[WeightLayer], tensors: Mapping[str, Tensor], asked: Zeroing) -> dict[str, Tensor]:
    """The mask of every layer, True where a weight stays; on the weights' device.

    Args:
        layers: those to be zeroed, none of which there is a reason to skip.
        tensors: their weights, by entry.
        asked: how many, in what pattern.

    Raises:
        NumericsError: a weight is not finite; names the entry.
    """
    magnitudes = [_magnitudes(layer, tensors) for layer in layers]
    if asked.kind == "n:m":
        stays = [[largest_of_groups(rows, *asked.pattern) for rows in parts] for parts in magnitudes]
    else:
        scores = [[norms_of_tiles(rows, *asked.granule) for rows in parts] for parts in magnitudes]
        together = [scores] if asked.scope == "global" else [[parts] for parts in scores]
        tiles = [mine for several in together for mine in _largest(several, asked.sparsity)]
        stays = [[spread(tile, *asked.granule) for tile in parts] for parts in tiles]
    return {
        layer.name: _mask(layer, parts, tensors[layer.name].device) for layer, parts in zip(layers, stays, strict=True)
    }


def _magnitudes(layer: WeightLayer, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Of each block, as the matrix that is multiplied with."""
    if not bool(tensors[layer.name].isfinite().all()):
        raise NumericsError("A weight is not finite.", where=layer.name, next_step="the model itself is broken")
    return [layer.rows(block, block.weights(tensors)).abs() for block in layer.blocks]


def _largest(scores: Sequence[Sequence[Tensor]], sparsity: float) -> list[list[Tensor]]:
    """All scores ranked together: True for those that stay, in the same shapes."""
    flat = torch.cat([part.reshape(-1) for parts in scores for part in parts])
    stays = iter((~smallest(flat, count_of(sparsity, len(flat)))).split([p.numel() for parts in scores for p in parts]))
    return [[next(stays).view(part.shape) for part in parts] for parts in scores]


def _mask(layer: WeightLayer, stays: Sequence[Tensor], device: torch.device) -> Tensor:
    mask = torch.ones(layer.shape, dtype=torch.bool, device=device)
    for block, rows in zip(layer.blocks, stays, strict=True):
        mask.as_strided(block.size, block.stride, block.offset).copy_(layer.from_rows(block, rows))
    return mask


def _described(layer: WeightLayer, skipped: str | None, mask: Tensor | None, asked: Zeroing) -> LayerZeros:
    gone = 0 if mask is None else mask.numel() - int(mask.count_nonzero())
    kernel = None
    if layer.weights and asked.kind == "n:m" and asked.pattern == (2, 4):
        kernel = kernel_problem(layer) or "yes"
    return LayerZeros(layer.name, layer.shape, layer.weights, layer.weights - gone, skipped, kernel)
