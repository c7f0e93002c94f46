"""From weights and features to hidden states and back: one linear map per tap and per kind of feature.

A weight enters its edge's state, and the state's change leaves it, through a table of one vector per tap:

    e₀ = Σ_t w_t · φ(t) / √taps            Δw_t = ⟨ψ(t), e_L⟩ / √hidden

The ``coordinate`` codec computes φ and ψ from the tap's position and the kernel's shape, so that a 1×1, a 7×7 and a
flattened 7×7×C classifier are all the same thing; the ``per-kernel`` codec (arXiv 2506.12041) learns one table per
kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet.evidence import COLUMNS, columns_of

CodecName = Literal["coordinate", "per-kernel"]
Kernel = tuple[int, ...]

KINDS = ("bias", "scale", "shift", "mean", "variance", "position", "constant")
"""Every kind of feature a neuron can have, in the order of the node encoder's rows."""

SMALL = 1e-2
"""Size of a fresh decoder's output: an untrained metanetwork all but returns its input, yet gradients flow."""

AXES = 3  # taps of a three-dimensional convolution; further leading axes are counted through as one
OCTAVES = 4  # sines up to 4π tell sixteen neighbouring taps apart


def kernel_name(kernel: Kernel) -> str:
    """A kernel's shape in words: ``3x3``; ``1`` for a single tap."""
    return "x".join(map(str, kernel)) or "1"


def tap_coordinates(kernel: Kernel) -> Float[Tensor, "taps c"]:
    """Where each tap is, and in how large a kernel: sines of the position in [-1, 1] per axis, and log sizes."""
    sizes = (math.prod(kernel[: -AXES + 1]), *kernel[-AXES + 1 :]) if len(kernel) > AXES else kernel
    sizes = (1,) * (AXES - len(sizes)) + sizes
    lines = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in sizes]
    position = torch.stack([axis.flatten() for axis in torch.meshgrid(*lines, indexing="ij")], dim=1)
    angle = position[:, :, None] * (math.pi / 2) * 2.0 ** torch.arange(OCTAVES)
    log_sizes = torch.tensor(sizes).log().expand(len(position), AXES)
    return torch.cat([angle.sin().flatten(1), angle.cos().flatten(1), log_sizes], dim=1)


class CoordinateTable(nn.Module):
    """One vector per tap, computed from the tap's coordinates by a small MLP."""

    def __init__(self, hidden: int, scale: float) -> None:
        super().__init__()
        width = 2 * hidden
        self.inner = nn.Linear(AXES * (2 * OCTAVES + 1), width)
        self.outer = nn.Linear(width, hidden)
        nn.init.normal_(self.inner.weight, std=self.inner.in_features**-0.5)
        # SiLU of a unit normal has a root mean square of 0.6: two over √width brings the table to ``scale``.
        nn.init.normal_(self.outer.weight, std=2 * scale * width**-0.5)
        nn.init.zeros_(self.outer.bias)

    def forward(self, kernel: Kernel) -> Float[Tensor, "taps h"]:
        """The table of one kernel."""
        coordinates = tap_coordinates(kernel).to(self.inner.weight)
        table: Tensor = self.outer(nn.functional.silu(self.inner(coordinates)))
        return table


class KernelTable(nn.Module):
    """One learned vector per tap of each of the kernels named beforehand."""

    def __init__(self, hidden: int, scale: float, kernels: Iterable[Kernel]) -> None:
        super().__init__()
        self.tables = nn.ParameterDict(
            {kernel_name(kernel): nn.Parameter(scale * torch.randn(math.prod(kernel), hidden)) for kernel in kernels}
        )

    def forward(self, kernel: Kernel) -> Float[Tensor, "taps h"]:
        """The table of one kernel.

        Raises:
            InputError: the kernel was not among those named beforehand.
        """
        name = kernel_name(kernel)
        if name not in self.tables:
            raise InputError(
                "This metanetwork has no codec for a kernel of the model",
                expected=", ".join(self.tables) or "no kernel at all",
                got=name,
                next_step="use the coordinate codec, which takes any kernel, or name this one in the configuration",
            )
        table: Tensor = self.tables[name]
        return table


class Codec(nn.Module):
    """Encoders and decoders of edges and nodes."""

    importance: nn.Parameter | None
    evidence: nn.Parameter | None

    def __init__(
        self,
        hidden: int,
        codec: CodecName,
        kernels: tuple[Kernel, ...],
        *,
        importance: int = 0,
        evidence: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.taps_in, self.taps_out = (
            CoordinateTable(hidden, scale) if codec == "coordinate" else KernelTable(hidden, scale, kernels)
            for scale in (1.0, SMALL)
        )
        self.identity = nn.Parameter(torch.randn(hidden))
        self.kinds_in = nn.Parameter(torch.randn(len(KINDS), hidden))
        self.kinds_out = nn.Parameter(SMALL * torch.randn(len(KINDS), hidden))
        self.neuron = nn.Parameter(torch.randn(hidden))
        # zero: an untrained head leaves every ranking as it is
        head = {0: None, 1: torch.zeros(hidden), 2: torch.zeros(hidden, 2)}[importance]
        self.register_parameter("importance", None if head is None else nn.Parameter(head))
        # zero too: what images show says nothing before it is learnt
        table = nn.Parameter(torch.zeros(COLUMNS * len(evidence), hidden)) if evidence else None
        self.register_parameter("evidence", table)
        self.evidence_names = evidence

    def edge_table(self, kernel: Kernel) -> Float[Tensor, "taps h"]:
        """The first state of an edge is the sum over its taps: weight times row."""
        table: Tensor = self.taps_in(kernel)
        return table / math.sqrt(len(table))

    def change_table(self, kernel: Kernel) -> Float[Tensor, "taps h"]:
        """The change of a tap's weight is its row times the edge's last state, summed."""
        table: Tensor = self.taps_out(kernel)
        return table / math.sqrt(self.hidden)

    def encode_nodes(
        self, graph: NeuronGraph, sums: Float[Tensor, "n kinds"], counts: Int[Tensor, "n kinds"]
    ) -> Float[Tensor, "n h"]:
        """First state of a graph's neurons, from the sum and the number of each one's features of each kind.

        Many features of one kind (a position embedding has one per token) weigh no more than one does. What images
        have shown of a neuron's unit is added where it is known (see :mod:`.evidence`).
        """
        nodes = self.neuron + (sums * counts.clamp(min=1).rsqrt()) @ self.kinds_in
        if self.evidence is None or not set(self.evidence_names) <= graph.evidence.keys():
            return nodes
        return nodes + columns_of(graph, self.evidence_names).to(nodes) @ self.evidence

    def decode_nodes(self, nodes: Float[Tensor, "n h"]) -> Float[Tensor, "n kinds"]:
        """Change of the features of each kind of each neuron."""
        return nodes @ (self.kinds_out.T / math.sqrt(self.hidden))

    def decode_importance(self, nodes: Float[Tensor, "n h"]) -> Float[Tensor, "n ..."] | None:
        """What the score head says of each neuron; None without such a head.

        With two terms, the second is how that changes with the speed-up (``pruning.criteria.importance_at``).
        """
        return None if self.importance is None else nodes @ (self.importance / math.sqrt(self.hidden))
