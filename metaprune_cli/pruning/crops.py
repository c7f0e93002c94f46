"""Any of a model's widths, for many choices of units one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.config import Route
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.trials import Trials
from metaprune_cli.pruning.surgery import without


@dataclass(frozen=True, eq=False)
class Crops:
    """What is left of a model; see :meth:`run`."""

    model: nn.Module
    graph: NeuronGraph
    inputs: ExampleInputs
    route: Route
    trials: Trials

    @classmethod
    def of(
        cls,
        model: nn.Module,
        graph: NeuronGraph,
        inputs: ExampleInputs,
        route: Route = "auto",
        *,
        probes: Sequence[Tensor] = (),  # noqa: ARG003 - each choice is tried
        trials: Trials | None = None,
    ) -> Crops:
        """Prepare crops of a model; it is not changed."""
        return cls(model, graph, inputs, route, trials or Trials(model, graph, inputs))

    def run(self, kept: Bool[Tensor, " units"], tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The small network, a module by itself."""
        model = self.model
        if tensors is not None:
            model = copied(model)
            model.load_state_dict(tensors)
        return without(model, self.graph, kept, self.inputs, route=self.route, trials=self.trials)
