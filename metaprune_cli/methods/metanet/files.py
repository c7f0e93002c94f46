"""The metanetwork as a method: its files, and what it proposes for a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaprune_cli.artifacts import Artifact
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.base import Proposal, Scores
from metaprune_cli.methods.metanet import shipped
from metaprune_cli.methods.metanet.network import MetaNetwork
from metaprune_cli.methods.metanet.transform import rewritten
from metaprune_cli.pruning.criteria import USUAL, by_unit, importance_at
from metaprune_cli.pruning.targets import Target


@dataclass(frozen=True, eq=False)
class Rewriter:
    """A trained metanetwork: it proposes weights, and scores where it has a head for them."""

    network: MetaNetwork

    @property
    def reads_images(self) -> bool:
        """Whether it has learnt to read what images show."""
        return bool(self.network.config.evidence)

    def propose(self, graph: NeuronGraph, target: Target | None = None) -> Proposal:
        """The weights are the same for every target.

        Raises:
            NumericsError: the metanetwork produced NaN or infinity; every such entry is named.
        """
        written = rewritten(graph, self.network)
        if written.importance is None:
            return Proposal(written.tensors)
        values = by_unit(graph.units, written.importance)
        values = values if target is None else importance_at(values, target.factor or USUAL)
        return Proposal(written.tensors, Scores(values, self.network.config.normaliser))


class Metanetworks:
    """Files of kind ``metanetwork``."""

    def shipped(self) -> list[str]:
        """The names of those that come with the package."""
        return shipped.shipped()

    def find(self, given: str | Path) -> Path:
        """The file that is meant (see ``metanetwork_file``)."""
        return shipped.metanetwork_file(given)

    def open(self, artifact: Artifact) -> Rewriter:
        """The metanetwork of a file."""
        return Rewriter(MetaNetwork.from_parts(artifact.tensors, artifact.document, artifact.path).eval())

    def facts(self, artifact: Artifact) -> dict[str, Any]:
        """Its size, and whether it has a score head (the criterion ``metanet``)."""
        config = artifact.document["config"]
        return {
            "layers": config["layers"],
            "hidden": config["hidden"],
            "score_head": config.get("score_head", False),
        }
