"""What neurons hear from each other, and what becomes of the edges: differentiable, and no edge's state is stored.

Both edge updates multiply (see :mod:`metaprune_cli.metanet.layers`), so an edge's state after l layers is a function of
its weights and the neurons' gates,

    e_l = e_0 ⊙ Π_{k<l} (1 + a_k[source] ⊙ b_k[destination] + a_k[destination] ⊙ b_k[source])

and it is computed again wherever it is needed, forward and backward: memory grows with the neurons. Two engines do
this: ``kernel``, compiled C++ on a CPU, and ``tiles``, PyTorch on any device and in any precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from metaprune_cli.metanet import kernel, tiles
from metaprune_cli.metanet.layers import EPSILON
from metaprune_cli.metanet.layout import Layout


def listen(
    layout: Layout,
    weights: Float[Tensor, " size"],
    table: Float[Tensor, "taps h"],
    gates: Sequence[Float[Tensor, "n h"]],
    receive: Float[Tensor, "n h"],
    send: Float[Tensor, "n h"],
    send_back: Float[Tensor, "n h"],
    states: Tensor | None,
) -> tuple[Float[Tensor, "n h4"], Tensor]:
    """Mean, deviation, maximum and minimum of the messages r[i] ⊙ s[j] ⊙ e along the edges plus along the reversed.

    The receiving gate r is common to a neuron's messages, so it is applied to their summary instead of to each of them.

    Args:
        layout: of the edges.
        weights: flat; constant for the compiled engine.
        table: first state of an edge per tap, and of identity edges.
        gates: the a of every layer before this one, then the b of each.
        receive: r, where the edge ends.
        send: s, where the edge starts.
        send_back: s ⊙ σ, for reversed edges.
    """
    inputs = _whole(table, receive, send, send_back, *gates)
    received, states = Listen.apply(layout, _engine(weights, gates), weights, states, *inputs)
    return received, states


def decode(
    layout: Layout,
    weights: Float[Tensor, " size"],
    table: Float[Tensor, "taps h"],
    gates: Sequence[Float[Tensor, "n h"]],
    out_table: Float[Tensor, "taps h"],
    states: Tensor | None,
) -> Float[Tensor, " size"]:
    """The change of every weight: ⟨out_table[tap], e_L⟩; flat. The identity edges' is zero."""
    change: Tensor = Decode.apply(layout, _engine(weights, gates), weights, states, *_whole(table, out_table, *gates))
    return change


def _engine(weights: Tensor, gates: Sequence[Tensor]) -> ModuleType:
    """The compiled one where there is a compiler, but where the weights want gradients themselves."""
    return tiles if weights.requires_grad or not kernel.available(weights, len(gates) // 2) else kernel


def _whole(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


class Listen(torch.autograd.Function):
    """See :func:`listen`. Where several messages are the maximum, they share its gradient equally."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        engine: ModuleType,
        weights: Tensor,
        states: Tensor | None,
        table: Tensor,
        receive: Tensor,
        send: Tensor,
        send_back: Tensor,
        *gates: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What the neurons receive."""
        ties = any(ctx.needs_input_grad)
        heard, ctx.tied = engine.summaries(layout, weights, table, gates, send, send_back, ties)
        roots = (receive.square() * heard[:, 1]).add_(EPSILON).sqrt_()
        received: Tensor = engine.receive(receive, heard, roots)
        ctx.layout, ctx.engine, ctx.carries = layout, engine, states is not None and states.numel()
        ctx.set_materialize_grads(False)
        size = engine.carried(layout, table) if states is not None or not gates else 0
        ctx.save_for_backward(heard, roots, weights, table, receive, send, send_back, *gates)
        return received, weights.new_empty(1).expand(size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, above: Tensor | None) -> tuple[Any, ...]:
        """Gradients from those of what is received."""
        heard, roots, weights, table, receive, send, send_back, *gates = ctx.saved_tensors
        below = above if ctx.carries else None
        if gradient is None:
            gradient = receive.new_zeros(len(receive), 4 * receive.shape[1])
        if ctx.carries and below is None:
            below = table.new_empty(ctx.engine.carried(ctx.layout, table))
        of_receive, slopes = ctx.engine.receive_backward(receive, heard, roots, ctx.layout.heard, gradient)
        messages = (ctx.layout, weights, table, gates, send, send_back, heard)
        if ctx.tied:
            slopes[:, 2:].div_(ctx.engine.extremes(*messages).clamp_(min=1))
        gradients = ctx.engine.summaries_backward(*messages, slopes, ctx.needs_input_grad[2], above, below)
        of_weights, of_table, of_gates, *of_sent = gradients
        return None, None, of_weights, below, of_table, of_receive, *of_sent, *of_gates


class Decode(torch.autograd.Function):
    """See :func:`decode`."""

    @staticmethod
    def forward(
        ctx: Any,
        layout: Layout,
        engine: ModuleType,
        weights: Tensor,
        states: Tensor | None,
        table: Tensor,
        out_table: Tensor,
        *gates: Tensor,
    ) -> Tensor:
        """The change of the weights."""
        ctx.layout, ctx.engine, ctx.carries = layout, engine, states is not None and states.numel()
        ctx.save_for_backward(weights, table, out_table, *gates)
        change: Tensor = engine.decode(layout, weights, table, gates, out_table)
        return change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients from that of the change."""
        weights, table, out_table, *gates = ctx.saved_tensors
        below = table.new_empty(ctx.engine.carried(ctx.layout, table)) if ctx.carries else None
        of_weights, of_table, of_gates, of_out_table = ctx.engine.decode_backward(
            ctx.layout, weights, table, gates, out_table, gradient.contiguous(), ctx.needs_input_grad[2], below
        )
        return None, None, of_weights, below, of_table, of_out_table, *of_gates
