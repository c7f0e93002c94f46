"""Neuron graphs of many models, each architecture traced once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.program.module import Program
from metaprune_cli.models.recognise import shapes_of
from metaprune_cli.workflows.loading import ModelSource, Opened


@dataclass(frozen=True, eq=False)
class Structures:
    """What one call of a stage has traced so far.

    Models of one architecture and equal shapes have one structure, as they are built by the same code. Pickled modules
    are not built but found, with attributes of their own, and so are programs: every one of them is traced.
    """

    source: ModelSource
    known: dict[str, NeuronGraph] = field(default_factory=dict)

    def graph_of(self, opened: Opened) -> NeuronGraph:
        """The model's graph, over its own tensors."""
        if opened.graph is not None or self.source.trust_pickle or isinstance(opened.model, Program):
            return opened.neuron_graph()
        tensors = opened.model.state_dict()
        key = json.dumps([opened.architecture.to_document(), shapes_of(tensors)], sort_keys=True)
        if key not in self.known:
            self.known[key] = opened.neuron_graph().with_tensors({})  # else the first model would stay in memory
        return self.known[key].with_tensors(tensors)
