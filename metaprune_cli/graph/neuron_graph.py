"""The neuron graph: structure plus tensors; edges stay implicit in the weights' own layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import Tensor

from metaprune_cli.artifacts import read_artifact, write_artifact
from metaprune_cli.graph.parts import EVIDENCE, evidence_of, from_parts, to_parts
from metaprune_cli.graph.pyg import from_pyg, to_pyg
from metaprune_cli.graph.savings import find_savings
from metaprune_cli.graph.structure import EdgeBlock, Feature, Layer, Lock, Product, Span, Structure
from metaprune_cli.graph.units import Units, find_units

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


@dataclass(frozen=True, eq=False)
class NeuronGraph:
    """A model as a graph of its neurons: every state-dict element is an edge, a feature, or kept verbatim, once.

    Attributes:
        structure: the neurons and how they hang together; graphs of one model share it.
        tensors: the state dict itself, every entry in its own layout.
        evidence: what images have shown of every unit, each of shape (units,), by name (``pruning/observing.py``);
            empty where nobody has looked, and for other tensors.
    """

    structure: Structure
    tensors: Mapping[str, Tensor] = field(repr=False)
    evidence: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The neurons, in contiguous runs, in order of execution."""
        return self.structure.layers

    @property
    def blocks(self) -> tuple[EdgeBlock, ...]:
        """The edges, implicit."""
        return self.structure.blocks

    @property
    def features(self) -> tuple[Feature, ...]:
        """What single neurons own."""
        return self.structure.features

    @property
    def identity(self) -> Tensor:
        """Residual additions and gates: int64, shape (2, p)."""
        return self.structure.identity

    @property
    def ties(self) -> Tensor:
        """Neurons that must go together for another reason: int64, shape (2, q)."""
        return self.structure.ties

    @property
    def columns(self) -> Tensor:
        """Neurons that are the same per-head dimension: int64, shape (2, r)."""
        return self.structure.columns

    @property
    def rows(self) -> Tensor:
        """Neurons that are in the same head: int64, shape (2, s)."""
        return self.structure.rows

    @property
    def heads(self) -> Tensor:
        """Neurons that stand for a whole head: int64, shape (t,)."""
        return self.structure.heads

    @property
    def products(self) -> tuple[Product, ...]:
        """Activation-by-activation contractions."""
        return self.structure.products

    @property
    def locks(self) -> tuple[Lock, ...]:
        """Neurons that cannot be removed, with reasons."""
        return self.structure.locks

    @property
    def spans(self) -> tuple[Span, ...]:
        """Neurons whose removal is not the same as masking."""
        return self.structure.spans

    @property
    def verbatim(self) -> Mapping[str, str]:
        """Entries that are kept as they are, with the reason."""
        return self.structure.verbatim

    @property
    def aliases(self) -> Mapping[str, str]:
        """Second names of shared tensors, name -> first name."""
        return self.structure.aliases

    @property
    def trainable(self) -> frozenset[str]:
        """The floating-point parameters among the tensors."""
        return self.structure.trainable

    @property
    def num_neurons(self) -> int:
        """How many neurons there are, inputs and the constant one included."""
        return self.structure.num_neurons

    @property
    def num_edges(self) -> int:
        """How many edges there are, all blocks together."""
        return self.structure.num_edges

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample, attention products included."""
        return self.structure.macs

    @property
    def units(self) -> Units:
        """Units and families: what can be removed, and together with what."""
        return self.structure.derive(find_units)

    def state_dict(self) -> dict[str, Tensor]:
        """The state dict this graph stands for, bit for bit (the tensors are not copied)."""
        return dict(self.tensors)

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> NeuronGraph:
        """The same structure over other tensors of the same names and shapes."""
        return NeuronGraph(self.structure, dict(tensors))

    def with_evidence(self, evidence: Mapping[str, Tensor]) -> NeuronGraph:
        """The same graph with what images have shown of its units."""
        return replace(self, evidence=dict(evidence))

    def with_locks(self, locks: Iterable[Lock]) -> NeuronGraph:
        """The same graph with these locks instead of its own."""
        return NeuronGraph(replace(self.structure, locks=tuple(locks)), self.tensors)

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and one JSON-ready document that together hold everything."""
        tensors, document = to_parts(self.structure, self.tensors)
        return tensors | {EVIDENCE + name: values for name, values in self.evidence.items()}, document

    @staticmethod
    def from_parts(
        tensors: Mapping[str, Tensor], document: Mapping[str, Any], where: str | PathLike[str] | None = None
    ) -> NeuronGraph:
        """The graph that :meth:`to_parts` took apart; ``where`` is its file, for messages.

        Raises:
            CorruptFileError: the parts do not fit each other.
        """
        graph = NeuronGraph(*from_parts(tensors, document, where))
        return graph.with_evidence(evidence_of(tensors, graph.units.num_units, where))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the graph as an artifact of kind "graph"."""
        tensors, structure = self.to_parts()
        write_artifact(path, "graph", tensors, {"structure": structure})

    @staticmethod
    def load(path: str | PathLike[str]) -> NeuronGraph:
        """Read an artifact of kind "graph".

        Raises:
            CorruptFileError: the file is damaged, or another kind of artifact.
        """
        artifact = read_artifact(path, "graph")
        return NeuronGraph.from_parts(artifact.tensors, artifact.document["structure"], artifact.path)

    def to_pyg(self) -> HeteroData:
        """The graph as PyTorch Geometric data, edges written out."""
        return to_pyg(self.structure, self.tensors)

    @staticmethod
    def from_pyg(data: HeteroData, structure: Structure | None = None) -> NeuronGraph:
        """The graph that :meth:`to_pyg` wrote out, bit for bit; of the structure that ``data`` carries, by default."""
        return NeuronGraph(*from_pyg(data, structure))

    def summary(self) -> dict[str, Any]:
        """Sizes, families and what is kept verbatim, ready for JSON.

        A family's ``macs_saved`` and ``params_saved`` are what the model would save if this family alone shrank as far
        as it can (a locked one: if it could), and the shares are of the whole model; see ``graph/savings.py``.
        """
        units, saved, macs = self.units, find_savings(self.structure), self.macs
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
