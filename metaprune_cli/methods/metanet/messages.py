"""What neurons hear from each other, and what becomes of the edges: differentiable, and no edge's state is stored.

Both edge updates multiply (see :mod:`.layers`), so an edge's state after l layers is a function of
its weights and the neurons' gates,

    e_l = e_0 ⊙ Π_{k<l} (1 + a_k[source] ⊙ b_k[destination] + a_k[destination] ⊙ b_k[source])

and it is computed again wherever it is needed, forward and backward: memory grows with the neurons. Two engines do
this: ``kernel``, compiled C++ on a CPU, and ``tiles``, PyTorch on any device and in any precision.

The gradient of e_l is the sum of what layer l says itself and of the gradient of e_{l+1} through one gate. In deep
metanetworks a backward pass carries it from layer to layer, for as many edges as there is room for
(:data:`.layout.CARRIED`); for all others every layer goes back through all gates. To autograd the
states are a tensor that takes no memory; what it hands on as its gradient is an array that each layer overwrites.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaprune_cli.methods.metanet import kernel, tiles
from metaprune_cli.methods.metanet.engine import Carry, EdgeInputs, Ends, Engine
from metaprune_cli.methods.metanet.layers import EPSILON
from metaprune_cli.methods.metanet.layout import Layout

CARRY_FROM = 4
"""Layers from which on gradients are carried: with fewer, there is next to no walk to save."""


def engine_for(layout: Layout, weights: Tensor, layers: int) -> Engine:
    """The compiled engine where there is a compiler, but where the weights want gradients, or edges less precision."""
    plain = layout.precision is None and not weights.requires_grad
    return kernel if plain and kernel.available(weights, layers) else tiles


def first_states(engine: Engine, layout: Layout, table: Tensor, layers: int) -> Tensor:
    """What the first layer takes for the states of the edges: as many numbers as have gradients that are carried."""
    return table.new_empty(1).expand(engine.carried(layout, table) if layers >= CARRY_FROM else 0)


def listen(
    engine: Engine, edges: EdgeInputs, receive: Float[Tensor, "n h"], sent: Ends, states: Tensor
) -> tuple[Float[Tensor, "n h4"], Tensor]:
    """Mean, deviation, maximum and minimum of the messages r[i] ⊙ s[j] ⊙ e along the edges plus along the reversed.

    The receiving gate r is common to a neuron's messages, so it is applied to their summary instead of to each of them.

    Args:
        engine: what does the work.
        edges: what their states are computed from.
        receive: r, where the edge ends.
        sent: s, where the edge starts, and s ⊙ σ, for reversed edges.
        states: of the edges, as the layer before this one returned them.

    Returns:
        What the neurons receive; the states.
    """
    inputs = _whole(edges.table, receive, *sent, *edges.gates)
    received, states = Listen.apply(engine, edges.layout, edges.weights, states, *inputs)
    return received, states


def decode(
    engine: Engine, edges: EdgeInputs, out_table: Float[Tensor, "taps h"], states: Tensor
) -> Float[Tensor, " size"]:
    """The change of every weight: ⟨out_table[tap], e_L⟩; flat. The identity edges' is zero."""
    inputs = _whole(edges.table, out_table, *edges.gates)
    change: Tensor = Decode.apply(engine, edges.layout, edges.weights, states, *inputs)
    return change


def _whole(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


class Listen(torch.autograd.Function):
    """See :func:`listen`. Where several messages are the maximum, they share its gradient equally."""

    @staticmethod
    def forward(
        ctx: Any,
        engine: Engine,
        layout: Layout,
        weights: Tensor,
        states: Tensor,
        table: Tensor,
        receive: Tensor,
        send: Tensor,
        send_back: Tensor,
        *gates: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What the neurons receive, and the states."""
        edges = EdgeInputs(layout, weights, table, gates)
        heard, ctx.tied = engine.summaries(edges, (send, send_back), any(ctx.needs_input_grad))
        roots = (receive.square() * heard[:, 1]).add_(EPSILON).sqrt_()
        received: Tensor = engine.receive(receive, heard, roots)
        ctx.engine, ctx.layout, ctx.carried = engine, layout, states.numel()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(heard, roots, weights, table, receive, send, send_back, *gates)
        return received, states.view_as(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, above: Tensor | None) -> tuple[Any, ...]:
        """Gradients from those of what is received, and of the states."""
        heard, roots, weights, table, receive, send, send_back, *gates = ctx.saved_tensors
        gradient = receive.new_zeros(len(receive), 4 * receive.shape[1]) if gradient is None else gradient
        below = None
        if ctx.carried:
            below = table.new_empty(ctx.carried) if above is None else above
        of_receive, slopes = ctx.engine.receive_backward(receive, heard, roots, ctx.layout.heard, gradient)
        messages = EdgeInputs(ctx.layout, weights, table, gates), (send, send_back), heard
        if ctx.tied:
            slopes[:, 2:].div_(ctx.engine.extremes(*messages).clamp_(min=1))
        gradients = ctx.engine.summaries_backward(*messages, slopes, Carry(ctx.needs_input_grad[2], above, below))
        of_weights, of_table, of_gates, *of_sent = gradients
        return None, None, of_weights, below, of_table, of_receive, *of_sent, *of_gates


class Decode(torch.autograd.Function):
    """See :func:`decode`."""

    @staticmethod
    def forward(
        ctx: Any,
        engine: Engine,
        layout: Layout,
        weights: Tensor,
        states: Tensor,
        table: Tensor,
        out_table: Tensor,
        *gates: Tensor,
    ) -> Tensor:
        """The change of the weights."""
        ctx.engine, ctx.layout, ctx.carried = engine, layout, states.numel()
        ctx.save_for_backward(weights, table, out_table, *gates)
        change: Tensor = engine.decode(EdgeInputs(layout, weights, table, gates), out_table)
        return change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients from that of the change."""
        weights, table, out_table, *gates = ctx.saved_tensors
        below = table.new_zeros(ctx.carried) if ctx.carried else None  # of identity edges nothing is decoded
        of_weights, of_table, of_gates, of_out_table = ctx.engine.decode_backward(
            EdgeInputs(ctx.layout, weights, table, gates),
            out_table,
            gradient.contiguous(),
            Carry(ctx.needs_input_grad[2], None, below),
        )
        return None, None, of_weights, below, of_table, of_out_table, *of_gates
