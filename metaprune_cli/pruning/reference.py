"""The masked original, computed so that what is removed takes no part in anything: the reference of the check.

Zeros and absence mean the same to a convolution, but not to a normalisation: a LayerNorm over six channels of which two
are zero divides by other statistics than one over four. Here the masked original runs on real values while neuron ids
travel beside them, as they do in the trace; where an operator mixes neurons of which some are gone, it runs on the
survivors alone, and what comes out is put back in its place among zeros.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from metaprune_cli.graph.components import components
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.operators.on_survivors import Indices, NoReferenceError, take
from metaprune_cli.graph.operators.registry import operator_of, rule_of
from metaprune_cli.graph.slicing import alive_neurons, masks
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.labels import Elements, Ids, Label, squeeze_constant
from metaprune_cli.graph.trace.neurons import CONSTANT
from metaprune_cli.graph.trace.passes import attach_labels
from metaprune_cli.graph.trace.regular import NOWHERE
from metaprune_cli.graph.trace.rules.writes import sized
from metaprune_cli.graph.trace.tracer import ExampleInputs, Tracer, call, plain_operators


def reference_outputs(
    masked: nn.Module,
    graph: NeuronGraph,
    kept: Bool[Tensor, " units"],
    passes: Sequence[tuple[bool, ExampleInputs]],
) -> Any:
    """What the original computes when the removed neurons take part in nothing.

    Args:
        masked: the original, zeros where units are gone; its buffers may change in training mode.
        graph: its structure.
        kept: which units stay.
        passes: (training mode, inputs), in the order in which ``graph`` was traced.

    Returns:
        The outputs of the last pass.

    Raises:
        NoReferenceError: an operator mixes removed neurons with others in a way that is not known here.
    """
    builder = StructureBuilder()
    alive, entries = alive_neurons(graph, kept), masks(graph, kept)
    outputs = None
    for training, inputs in passes:
        tracer = Survivors(builder, alive, entries)
        attach_labels(tracer, masked, inputs, graph.aliases)
        masked.train(training)
        with warnings.catch_warnings(), plain_operators(masked), torch.no_grad(), tracer:
            warnings.simplefilter("ignore")
            outputs = call(masked, inputs)
        traced, known = builder.neurons.layers, list(graph.layers)
        if traced[: len(known)] != known[: len(traced)] or (len(traced) > len(known) and not training):
            raise NoReferenceError("on real values the model runs other operators than when it was traced")
    return outputs


class Survivors(Tracer):
    """A tracer on real values that keeps what is removed at zero, and out of every operator that mixes neurons.

    Labels are forgotten with their tensors, so that a trace holds no more activations than the model does.
    """

    def __init__(
        self, builder: StructureBuilder, alive: Bool[Tensor, " neurons"], entries: Mapping[str, Tensor]
    ) -> None:
        super().__init__(builder, rule_of, real=True)
        self._stays = alive
        self._entries = {name: mask.reshape(-1) for name, mask in entries.items()}
        self._labels_of: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def label(self, tensor: object) -> Label:
        """The label of a tensor, or None."""
        return self._labels_of.get(tensor) if isinstance(tensor, Tensor) else None

    def value(self, tensor: object) -> Tensor | None:
        """Every tensor has a value here: its own, where the ids are."""
        return tensor.cpu() if isinstance(tensor, Tensor) else None

    def attach(self, tensor: Tensor, label: Label, value: Tensor | None = None) -> None:  # noqa: ARG002
        """Say what ``tensor`` carries."""
        if label is not None:
            self._labels_of[tensor] = label
        else:
            self._labels_of.pop(tensor, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator for real, on the survivors where it mixes neurons, then move the labels past it."""
        given: dict[str, Any] = dict(kwargs or {})
        row = operator_of(func).on_survivors
        mixes = row is not None and self.label(args[0]) is not None
        out = row(self, func, args, given) if row is not None and mixes else func(*args, **given)
        if all(self.label(leaf) is None for leaf in tree_leaves((args, given))):
            return out
        seen = len(self.neurons.spans)
        labels = self._rules(func)(self, func, args, given, out)
        leaves = tuple(out) if isinstance(out, tuple | list) else (out,)
        labels = labels if isinstance(labels, tuple) else (labels,)
        nobody = (
            all(label is None for label in labels) and operator_of(func).labels is not sized
        )  # which writes, and reads nothing
        if not mixes and nobody and self._lose(tree_leaves((args, given))):
            raise NoReferenceError(f"removed elements of parameters take part in {func.overloadpacket.__name__}")
        for leaf, label in zip(leaves, labels, strict=False):
            if isinstance(label, Elements) and (mixes or torch.Tag.pointwise in func.tags):
                label = replace(label, mixes=None)  # computed of what stays, zero elsewhere
            if isinstance(leaf, Tensor):
                self.attach(leaf, label)
                if leaf.is_floating_point() and label is not None and not func.is_view:
                    self._clear_(leaf, label)
        for span in self.neurons.spans[seen:]:
            if not mixes and not bool(self.alive(span.neurons).all()):
                raise NoReferenceError(f"removed neurons take part in {span.operator}")
        return out

    def _lose(self, tensors: Iterable[Any]) -> bool:
        """Whether one of these is of a parameter that loses elements."""
        found = [part for t in tensors if (label := self.elements(t)) is not None for part in label.alone()]
        return any(part.entry in self._entries for part in found)

    def _clear_(self, tensor: Tensor, label: Tensor | Elements) -> None:
        """Zeros where nothing stays: what is computed from what is gone need not be zero, nor finite (0 / ‖0‖)."""
        stays = self.alive(label) if isinstance(label, Tensor) else self._left_of(label)
        if stays is not None:
            tensor.masked_fill_(~stays.to(tensor.device), 0)

    def _left_of(self, elements: Elements) -> Tensor | None:
        """Which elements stay, with all that they were computed from, bool; None where nothing is lost."""
        found = None
        for part in elements.alone():
            if (mask := self._entries.get(part.entry)) is not None:
                index = part.real().to(mask.device)
                stays = mask[index] | (index == NOWHERE)
                found = stays if found is None else found & stays
        return found

    def alive(self, ids: Ids) -> Tensor:
        """Which elements survive, bool; of size 1 along the dimensions along which ``ids`` is constant."""
        total = self.neurons.layers[-1].start + self.neurons.layers[-1].size
        known = self._stays.numel()
        if total > known:  # neurons of a pass that the graph has not seen share the fate of those they are tied to
            empty = torch.empty(2, 0, dtype=torch.int64)
            label = components(total, torch.cat([empty, *self.neurons.identity, *self.neurons.ties], dim=1))
            fate = torch.ones(total, dtype=torch.int64)
            fate = fate.scatter_reduce(0, label[:known], self._stays.long(), "amin")
            self._stays = torch.cat([self._stays, fate[label[known:]].bool()])
        return self._stays[squeeze_constant(ids)]

    def _staying(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Which elements of an activation or a parameter stay, and which belong to anybody."""
        label = self.label(tensor)
        if isinstance(label, Elements):
            everybody = torch.ones(label.index.shape, dtype=torch.bool)
            stays = self._left_of(label)
            return everybody if stays is None else stays.cpu(), everybody
        assert label is not None
        return self.alive(label), squeeze_constant(label) != CONSTANT

    def survivors(self, tensor: Tensor, dims: Iterable[int]) -> Indices:
        """The indices that survive along those of ``dims`` that lose something.

        Raises:
            NoReferenceError: other indices survive along one dimension for one index of another than for the next.
        """
        alive, somebody = self._staying(tensor)
        dims = list(dims)
        kept: dict[int, Tensor] = {}
        for d in dims:  # what is nobody's (padding) goes with the others
            stays, known = ((t.movedim(d, 0).unsqueeze(-1).flatten(1).any(1)) for t in (alive & somebody, somebody))
            along = stays | ~known
            if bool(along.any()) and not bool(along.all()):
                kept[d] = along.nonzero().flatten()
        block, nobody = take(alive, kept), ~take(somebody, kept)
        for d in dims:
            if not bool(((block | nobody).all(d) | (~block | nobody).all(d)).all()):
                raise NoReferenceError("what survives of an activation is not an outer product of indices")
        return {d: index.to(tensor.device) for d, index in kept.items()}
