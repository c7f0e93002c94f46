"""What an engine computes: the work over all edges of one layer, forward and backward.

There are two, ``kernel`` (compiled, on a CPU) and ``tiles`` (PyTorch, anywhere): modules of functions with these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from metaprune_cli.methods.metanet.layout import Layout


@dataclass(frozen=True, eq=False)
class EdgeInputs:
    """What the states of the edges are computed from.

    Attributes:
        layout: of the edges.
        weights: flat, shape (size,); constant for the compiled engine.
        table: first state of an edge per tap, and of identity edges, shape (taps, h).
        gates: the a of every layer so far, then the b of each, shapes (n, h).
    """

    layout: Layout
    weights: Float[Tensor, " size"]
    table: Float[Tensor, "taps h"]
    gates: Sequence[Float[Tensor, "n h"]]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them in a row: weights, table, gates."""
        return self.weights, self.table, *self.gates


@dataclass(frozen=True, eq=False)
class Carry:
    """What a backward pass hands from layer to layer.

    Attributes:
        of_weights: whether the weights want gradients.
        above: gradients of the edges' states from the layer above; None for none.
        below: where those for the layer below are left; None where they are not carried.
    """

    of_weights: bool
    above: Tensor | None
    below: Tensor | None


Ends = tuple[Float[Tensor, "n h"], Float[Tensor, "n h"]]
"""What neurons send along their edges, and along the reversed ones."""


@runtime_checkable
class Engine(Protocol):
    """The work over edges, for n neurons and h hidden dimensions."""

    def carried(self, layout: Layout, table: Tensor) -> int:
        """How many numbers a backward pass carries from one layer to the one below: the gradients of edges' states."""
        ...

    def summaries(self, edges: EdgeInputs, sent: Ends, ties: bool) -> tuple[Tensor, bool]:
        """Mean, variance, maximum and minimum of what is heard both ways, shape (2, 4, n, h).

        And, where ``ties``, whether an extreme may be shared by several messages.
        """
        ...

    def extremes(self, edges: EdgeInputs, sent: Ends, heard: Tensor) -> Tensor:
        """How many messages are the maximum that was ``heard``, how many the minimum, shape (2, 2, n, h)."""
        ...

    def summaries_backward(
        self, edges: EdgeInputs, sent: Ends, heard: Tensor, slopes: Tensor, carry: Carry
    ) -> tuple[Tensor | None, Tensor, Sequence[Tensor | None], Tensor, Tensor]:
        """Gradients of the weights, the table, the gates and what is sent both ways.

        ``slopes``, shape (2, 4, n, h), says what a message m of a neuron gets: the first plus the second times m, the
        third where m is the maximum that was ``heard``, the fourth where it is the minimum.
        """
        ...

    def receive(self, gate: Tensor, heard: Tensor, roots: Tensor) -> Tensor:
        """What arrives through the gate, shape (n, 4h).

        ``roots``, shape (2, n, h): of the variance of what arrives, plus EPSILON.
        """
        ...

    def receive_backward(
        self, gate: Tensor, heard: Tensor, roots: Tensor, messages: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradient of the gate, and the slopes for :meth:`summaries_backward`.

        ``messages``, shape (2, n), says how many of them each neuron got, ``gradient`` is that of :meth:`receive`.
        """
        ...

    def decode(self, edges: EdgeInputs, out_table: Tensor) -> Tensor:
        """The change of every weight, shape (size,); zero for the identity edges."""
        ...

    def decode_backward(
        self, edges: EdgeInputs, out_table: Tensor, gradient: Tensor, carry: Carry
    ) -> tuple[Tensor | None, Tensor, Sequence[Tensor | None], Tensor]:
        """Gradients of the weights, the table, the gates and the table of the way out."""
        ...
