"""The neuron graph: structure plus tensors; edges stay implicit in the weights' own layout."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from metaprune_cli.graph.units import Units


IS_INPUT, IS_OUTPUT = "it is an input of the model", "it is an output of the model"
"""The reasons of the locks at a model's ends."""


@dataclass(frozen=True)
class Layer:
    """A contiguous run of neurons that came to be in one operation: ids ``start`` to ``start + size``."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class EdgeBlock:
    """A complete bipartite graph between two index lists: one region of one parameter that contracts activations.

    The region is the strided view ``(groups, out, in, taps)`` of the flat parameter, so a convolution, a transposed
    convolution, a linear layer, a slice of a packed projection and a flattened classifier are all the same thing.
    Within group ``g`` the element ``[g, o, i, t]`` is tap ``t`` of the edge ``sources[g, i] -> destinations[g, o]``.

    Attributes:
        param: name of the state-dict entry.
        size: (groups, out per group, in per group, taps).
        stride: the same four axes' strides in the flat parameter, in elements.
        offset: first element of the region in the flat parameter.
        destinations: int64, shape (groups, out), neuron ids.
        sources: int64, shape (groups, in), neuron ids.
        kernel: shape of the grid of taps, row-major along the tap axis; () for one tap.
        positions: output positions at which the block is applied; MACs = elements * positions.
    """

    param: str
    size: tuple[int, int, int, int]
    stride: tuple[int, int, int, int]
    offset: int
    destinations: Tensor
    sources: Tensor
    kernel: tuple[int, ...]
    positions: int

    @property
    def num_edges(self) -> int:
        """Edges between neurons; all taps of one pair are one edge."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole block for one sample."""
        return math.prod(self.size) * self.positions

    def weights(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The region as a view of shape (groups, out, in, taps); gradients flow through it.

        The parameter is made contiguous first where it is not (channels-last, say).
        """
        tensor = tensors[self.param].contiguous()
        return tensor.as_strided(self.size, self.stride, tensor.storage_offset() + self.offset)

    def scatter(self, flat: Tensor, values: Tensor) -> Tensor:
        """A new flat parameter of shape (numel,) in which the region holds ``values`` (groups, out, in, taps)."""
        return torch.as_strided_scatter(flat, values, self.size, self.stride, self.offset)


@dataclass(frozen=True, eq=False)
class Feature:
    """State-dict elements that belong to single neurons.

    Attributes:
        name: name of the state-dict entry (a parameter, or a buffer such as a running mean).
        kind: "bias", "scale", "shift", "mean", "variance", "position" or "constant".
        elements: int64, shape (n,), positions in the flat tensor.
        neurons: int64, shape (n,), the neuron each of them meets.
    """

    name: str
    kind: str
    elements: Tensor
    neurons: Tensor


@dataclass(frozen=True, eq=False)
class Product:
    """Activations contracted with activations (q·k, attention·v): ``macs_per_neuron`` for every neuron of the list."""

    neurons: Tensor
    macs_per_neuron: int


Plane = Literal["both", "column", "row"]
"""Which of a neuron's two units: its column (a channel, a per-head dimension), its row (a head)."""


@dataclass(frozen=True, eq=False)
class Lock:
    """Neurons of which the units in ``plane`` cannot be removed, and why. ``neurons`` is int64, shape (n,)."""

    neurons: Tensor
    reason: str
    plane: Plane = "both"


@dataclass(frozen=True, eq=False)
class Span:
    """Neurons that are mixed by an operator without parameters per pair (a LayerNorm, a mean over channels).

    Removing some of them changes what the others carry: zeros are not absence there.
    """

    neurons: Tensor
    operator: str


def owners_of(
    blocks: Iterable[EdgeBlock], features: Iterable[Feature]
) -> dict[str, tuple[list[EdgeBlock], list[Feature]]]:
    """The blocks and features of every entry that has any."""
    owners: dict[str, tuple[list[EdgeBlock], list[Feature]]] = {}
    for block in blocks:
        owners.setdefault(block.param, ([], []))[0].append(block)
    for feature in features:
        owners.setdefault(feature.name, ([], []))[1].append(feature)
    return owners


@dataclass(frozen=True, eq=False)
class NeuronGraph:
    """A model as a graph of its neurons: every state-dict element is an edge, a feature, or kept verbatim, once.

    Attributes:
        layers: the neurons, in contiguous runs, in order of execution.
        blocks: the edges, implicit.
        features: what single neurons own.
        identity: int64, shape (2, p): residual additions and gates, earlier neuron -> later neuron.
        ties: int64, shape (2, q): neurons that must go together for a reason other than an addition.
        columns: int64, shape (2, r): neurons of several heads that are the same per-head dimension.
        rows: int64, shape (2, s): neurons that are in the same head.
        heads: int64, shape (t,): neurons that stand for a whole head (an attention score's); their column is their row.
        products: activation-by-activation contractions, for MACs.
        locks: neurons that cannot be removed, with reasons.
        spans: neurons whose removal is not the same as masking.
        verbatim: state-dict entries (whole, or the elements left over) that are kept as they are, with the reason.
        aliases: second names of shared tensors, name -> first name.
        trainable: the floating-point parameters among the tensors (buffers are not).
        tensors: the state dict itself, every entry in its own layout.
    """

    layers: tuple[Layer, ...]
    blocks: tuple[EdgeBlock, ...]
    features: tuple[Feature, ...]
    identity: Tensor
    ties: Tensor
    columns: Tensor
    rows: Tensor
    heads: Tensor
    products: tuple[Product, ...]
    locks: tuple[Lock, ...]
    spans: tuple[Span, ...]
    verbatim: Mapping[str, str]
    aliases: Mapping[str, str]
    trainable: frozenset[str]
    tensors: Mapping[str, Tensor] = field(repr=False)

    @cached_property
    def units(self) -> Units:
        """Units and families: what can be removed, and together with what."""
        from metaprune_cli.graph.units import find_units  # units are a view of the graph, built on it

        return find_units(self)

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and one JSON-ready document that together hold everything."""
        from metaprune_cli.graph.parts import to_parts  # written over this class

        return to_parts(self)

    @staticmethod
    def from_parts(
        tensors: Mapping[str, Tensor], document: Mapping[str, Any], where: str | PathLike[str] | None = None
    ) -> NeuronGraph:
        """The graph that :meth:`to_parts` took apart; ``where`` is its file, for messages.

        Raises:
            CorruptFileError: the parts do not fit each other.
        """
        from metaprune_cli.graph.parts import from_parts

        return from_parts(tensors, document, where)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the graph as an artifact of kind "graph"."""
        from metaprune_cli.artifacts import write_artifact

        tensors, structure = self.to_parts()
        write_artifact(path, "graph", tensors, {"structure": structure})

    @staticmethod
    def load(path: str | PathLike[str]) -> NeuronGraph:
        """Read an artifact of kind "graph".

        Raises:
            CorruptFileError: the file is damaged, or another kind of artifact.
        """
        from metaprune_cli.artifacts import read_artifact

        artifact = read_artifact(path, "graph")
        return NeuronGraph.from_parts(artifact.tensors, artifact.document["structure"], artifact.path)

    def to_pyg(self) -> HeteroData:
        """The graph as PyTorch Geometric data, edges written out."""
        from metaprune_cli.graph.pyg import to_pyg

        return to_pyg(self)

    @staticmethod
    def from_pyg(data: HeteroData) -> NeuronGraph:
        """The graph that :meth:`to_pyg` wrote out, bit for bit."""
        from metaprune_cli.graph.pyg import from_pyg

        return from_pyg(data)

    def summary(self) -> dict[str, Any]:
        """Sizes, families and what is kept verbatim, ready for JSON.

        A family's ``macs_saved`` and ``params_saved`` are what the model would save if this family alone shrank as far
        as it can (a locked one: if it could), and the shares are of the whole model; see ``graph/savings.py``.
        """
        from metaprune_cli.graph.savings import find_savings  # built on this class

        units, saved, macs = self.units, find_savings(self), self.macs
        params = sum(self.tensors[name].numel() for name in self.trainable)
        figures = zip(units.families, saved.removable.tolist(), saved.params.tolist(), saved.macs.tolist(), strict=True)
        return {
            "neurons": self.num_neurons,
            "edges": self.num_edges,
            "macs": macs,
            "parameters": params,
            "units": units.num_units,
            "prunable_units": int(units.prunable.sum()),
            "families": [
                {
                    "name": family.name,
                    "kind": family.kind,
                    "units": family.units.numel(),
                    "removable": removable,
                    "parameters": [f"{name} ({side})" for name, side in family.parameters],
                    "params_saved": params_saved,
                    "params_share": params_saved / max(params, 1),
                    "macs_saved": macs_saved,
                    "macs_share": macs_saved / max(macs, 1),
                    "locked": family.locked,
                }
                for family, removable, params_saved, macs_saved in figures
            ],
            "verbatim": dict(self.verbatim),
        }

    def __repr__(self) -> str:
        params = sum(tensor.numel() for name, tensor in self.tensors.items() if name in self.trainable)
        figures = {"layers": len(self.layers), "neurons": self.num_neurons, "parameters": params, "MACs": self.macs}
        return f"NeuronGraph({', '.join(f'{count:,} {name}' for name, count in figures.items())})"

    @property
    def num_neurons(self) -> int:
        """How many neurons there are, inputs and the constant one included."""
        return self.layers[-1].start + self.layers[-1].size if self.layers else 0

    @property
    def num_edges(self) -> int:
        """How many edges there are, all blocks together."""
        return sum(block.num_edges for block in self.blocks)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample, attention products included."""
        return sum(block.macs for block in self.blocks) + sum(
            product.neurons.numel() * product.macs_per_neuron for product in self.products
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The state dict this graph stands for, bit for bit (the tensors are not copied)."""
        return dict(self.tensors)

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> NeuronGraph:
        """The same structure over other tensors of the same names and shapes."""
        same = dataclasses.replace(self, tensors=dict(tensors))
        if "units" in self.__dict__:
            same.__dict__["units"] = self.units  # derived from structure alone
        return same
