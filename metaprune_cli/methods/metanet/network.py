"""The metanetwork: a neuron graph in, the state dict of an easier-to-prune model out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metaprune_cli.artifacts.schemas import refuse, shortened
from metaprune_cli.config import EdgePrecision, Normaliser
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet.blocks import run_blocks
from metaprune_cli.methods.metanet.codec import Codec, CodecName, Kernel
from metaprune_cli.methods.metanet.layers import MessageLayer
from metaprune_cli.methods.metanet.shipped import metanetwork_file
from metaprune_cli.methods.metanet.values import (
    Rewrite,
    Rewriting,
    Values,
    keep_rms,
    read_values,
    rms_scales,
    unit_scales,
    write_values,
)
from metaprune_cli.pruning.observing import EVIDENCE

REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BackendName = Literal["blocks", "edges"]


@dataclass(frozen=True)
class MetaNetworkConfig:
    """What a metanetwork is made of; the same for every architecture it is given.

    Attributes:
        layers: message-passing layers (paper: 8 for ResNet-56).
        hidden: size of node and edge states (paper: 64 for ResNet-56).
        codec: ``coordinate`` for any kernel, or ``per-kernel`` for those listed in ``kernels``.
        scale_blocks: divide each block by its RMS before and multiply after, so that ``ratio`` is relative, and give
            the rewritten block the RMS that it had, so that nothing is gained by scale alone.
        ratio: output = input + ratio · decoded change.
        kernels: for the ``per-kernel`` codec, every kernel it shall know; () is a single tap.
        score_head: also say of every neuron how much it matters (the criterion ``metanet``).
        normaliser: of the scores that the score head adjusts.
        by_speedup: the score head also says how importance changes with the speed-up that is asked for.
        edge_precision: of the edges' states while they are computed; sums over edges, and all that belongs to neurons,
            keep that of the weights. ``bfloat16`` is for GPUs: no compiled engine has it, and the backend ``edges``
            knows nothing of it.
        evidence: what it reads of images where a graph has it, by the names in ``pruning.observing.EVIDENCE``.
    """

    layers: int = 8
    hidden: int = 64
    codec: CodecName = "coordinate"
    scale_blocks: bool = True
    ratio: float = 0.01
    kernels: tuple[Kernel, ...] = ()
    score_head: bool = False
    normaliser: Normaliser = "max"
    by_speedup: bool = False
    edge_precision: EdgePrecision = "float32"
    evidence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check all fields at once.

        Raises:
            InputError: a field is out of range.
        """
        demands = [
            ("layers ≥ 1", self.layers >= 1),
            ("hidden ≥ 2", self.hidden >= 2),
            (f"codec one of {', '.join(get_args(CodecName))}", self.codec in get_args(CodecName)),
            ("ratio > 0", self.ratio > 0),
            (f"normaliser one of {', '.join(get_args(Normaliser))}", self.normaliser in get_args(Normaliser)),
            (
                f"edge_precision one of {', '.join(get_args(EdgePrecision))}",
                self.edge_precision in get_args(EdgePrecision),
            ),
            (f"evidence of {', '.join(EVIDENCE)}", set(self.evidence) <= set(EVIDENCE)),
            ("kernels with codec per-kernel, and only then", bool(self.kernels) == (self.codec == "per-kernel")),
        ]
        if broken := [demand for demand, met in demands if not met]:
            raise InputError("A metanetwork cannot be made like this", expected="; ".join(broken), got=self)


@dataclass(frozen=True, eq=False)
class Written:
    """What a metanetwork makes of a model.

    Attributes:
        tensors: the state dict: trainable entries rewritten, all others (buffers, verbatim ones) the same objects.
        importance: by neuron, what the score head adds to the logarithm of a score; None without such a head. By
            speed-up there are two terms of it (see ``pruning.importance_at``).
    """

    tensors: dict[str, Tensor]
    importance: Float[Tensor, "neurons ..."] | None


class MetaNetwork(nn.Module):
    """A graph neural network on neuron graphs that rewrites the trainable weights of a model.

    One set of weights for every architecture and both backends. The source of the layers is arXiv 2506.12041,
    section 3; see :mod:`.layers` and :mod:`.codec` for the equations.
    """

    def __init__(self, config: MetaNetworkConfig) -> None:
        super().__init__()
        self.config = config
        terms = (2 if config.by_speedup else 1) if config.score_head else 0
        self.codec = Codec(config.hidden, config.codec, config.kernels, importance=terms, evidence=config.evidence)
        self.layers = nn.ModuleList(MessageLayer(config.hidden) for _ in range(config.layers))

    def forward(
        self, graph: NeuronGraph, tensors: Mapping[str, Tensor] | None = None, backend: BackendName = "blocks"
    ) -> dict[str, Tensor]:
        """The whole state dict of the rewritten model: ``rewrite(…).tensors``."""
        return self.rewrite(graph, tensors, backend).tensors

    def rewrite(
        self, graph: NeuronGraph, tensors: Mapping[str, Tensor] | None = None, backend: BackendName = "blocks"
    ) -> Written:
        """Rewrite a model.

        Args:
            graph: the model.
            tensors: a state dict to use in place of the graph's own; gradients flow to it, and to the parameters.
            backend: ``blocks``, or ``edges``, the slow oracle on PyG's message passing.

        Raises:
            InputError: the ``per-kernel`` codec does not know a kernel of the model.
        """
        tensors = graph.tensors if tensors is None else tensors
        values = read_values(graph, tensors, self.codec.neuron)
        keep = self.config.scale_blocks
        scales = rms_scales(graph, values) if keep else unit_scales(values)
        change, nodes = self._change(graph, values / scales if keep else values, backend)
        importance = self.codec.decode_importance(nodes)
        step = scales.scaled(self.config.ratio)
        if values.features.requires_grad or any(weight.requires_grad for weight in values.weights):
            change = change * step
            return Written(write_values(graph, tensors, keep_rms(values, change) if keep else change), importance)
        rewriting = Rewriting(graph, tensors, values, step, keep)
        written = dict(zip(rewriting.names, Rewrite.apply(rewriting, change.features, *change.weights), strict=True))
        written = {name: written.get(name, tensor) for name, tensor in tensors.items()}
        written |= {alias: written[first] for alias, first in graph.aliases.items()}
        return Written(written, importance)

    def _change(self, graph: NeuronGraph, values: Values, backend: BackendName) -> tuple[Values, Tensor]:
        layers = [layer for layer in self.layers if isinstance(layer, MessageLayer)]
        if backend == "blocks":
            precision = torch.bfloat16 if self.config.edge_precision == "bfloat16" else None
            return run_blocks(self.codec, layers, graph, values, precision)
        from metaprune_cli.methods.metanet.edges import run_edges  # PyG takes seconds to import

        return run_edges(self.codec, layers, graph, values)

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Parameters and configuration, ready to be written."""
        return dict(self.state_dict()), {"config": dataclasses.asdict(self.config)}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], document: Mapping[str, Any], where: str | Path | None = None
    ) -> MetaNetwork:
        """The metanetwork that :meth:`to_parts` took apart; ``where`` is its file, for messages.

        Raises:
            CorruptFileError: the parameters or the configuration are not those of a metanetwork.
        """
        try:
            fields = dict(document["config"])
            fields["kernels"] = tuple(tuple(kernel) for kernel in fields["kernels"])
            fields["evidence"] = tuple(fields.get("evidence", ()))
            config = MetaNetworkConfig(**fields)
            refuse(_unlike(config, tensors), "metanetwork", where)
            network = cls(config)
            network.load_state_dict(dict(tensors))
        except (KeyError, TypeError, RuntimeError, OverflowError, InputError) as error:
            raise CorruptFileError(
                "This is not a valid description of a metanetwork",
                got=error,
                where=where,
                next_step="write it again with metaprune meta-train",
            ) from error
        return network

    def save(
        self, path: str | Path, document: Mapping[str, Any] | None = None, inputs: Mapping[str, str] | None = None
    ) -> str:
        """Write an artifact of kind ``metanetwork``; returns its digest.

        Args:
            path: where to.
            document: further entries of its document (``made_by``, ``metrics``).
            inputs: name and sha256 of what it was made from.
        """
        from metaprune_cli.artifacts import write_artifact

        tensors, own = self.to_parts()
        return write_artifact(path, "metanetwork", tensors, {**(document or {}), **own}, inputs or {})

    @classmethod
    def load(cls, path: str | Path) -> MetaNetwork:
        """Read an artifact of kind ``metanetwork``, or one that comes with the package, by name: ``digits``.

        Raises:
            InputError: there is none.
            CorruptFileError: the file is damaged or of another kind.
        """
        from metaprune_cli.artifacts import read_artifact

        artifact = read_artifact(metanetwork_file(path), "metanetwork")
        return cls.from_parts(artifact.tensors, artifact.document, artifact.path)


def _unlike(config: MetaNetworkConfig, tensors: Mapping[str, Tensor]) -> list[str]:
    """How parameters differ from those of a metanetwork; none of its sizes is allocated before it is in the file."""
    neuron = tensors.get("codec.neuron")
    if neuron is None or tuple(neuron.shape) != (config.hidden,):
        found = "none" if neuron is None else list(neuron.shape)
        return [f"codec.neuron: expected a tensor of shape [{config.hidden}], got {found}"]
    if max(config.layers, len(config.kernels)) > len(tensors):
        return [f"config: expected fewer layers and kernels than there are tensors, {len(tensors)}"]
    with torch.device("meta"):
        wanted = MetaNetwork(config).state_dict()
    return [
        *(f"{name}: missing" for name in wanted if name not in tensors),
        *(f"{shortened(name)}: not a parameter of this metanetwork" for name in tensors if name not in wanted),
        *(
            f"{name}: expected finite real numbers of shape {list(like.shape)}, got {own.dtype} {list(own.shape)}"
            for name, like in wanted.items()
            if (own := tensors.get(name)) is not None
            and (own.shape != like.shape or own.dtype not in REALS or not own.isfinite().all())
        ),
    ]
