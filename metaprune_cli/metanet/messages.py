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
from metaprune_cli.metanet.layout import Layout

Heard = Float[Tensor, "2 4 n h"]
"""Along the edges and along the reversed edges: mean, variance, maximum and minimum of the messages; zeros for none."""


def listen(
    layout: Layout,
    weights: Float[Tensor, " size"],
    table: Float[Tensor, "taps h"],
    gates: Sequence[Float[Tensor, "n h"]],
    send: Float[Tensor, "n h"],
    send_back: Float[Tensor, "n h"],
) -> Heard:
    """Summaries of the messages s[j] ⊙ e, before the receiving neuron's own gate.

    Args:
        layout: of the edges.
        weights: flat; constant for the compiled engine.
        table: first state of an edge per tap, and of identity edges.
        gates: the a of every layer before this one, then the b of each.
        send: s, where the edge starts.
        send_back: s ⊙ σ, for reversed edges.
    """
    heard: Tensor = Listen.apply(layout, _engine(weights, gates), weights, *_whole(table, send, send_back, *gates))
    return heard


def decode(
    layout: Layout,
    weights: Float[Tensor, " size"],
    table: Float[Tensor, "taps h"],
    gates: Sequence[Float[Tensor, "n h"]],
    out_table: Float[Tensor, "taps h"],
) -> Float[Tensor, " size"]:
    """The change of every weight: ⟨out_table[tap], e_L⟩; flat. The identity edges' is zero."""
    change: Tensor = Decode.apply(layout, _engine(weights, gates), weights, *_whole(table, out_table, *gates))
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
        table: Tensor,
        send: Tensor,
        send_back: Tensor,
        *gates: Tensor,
    ) -> Tensor:
        """The summaries."""
        heard: Tensor = engine.summaries(layout, weights, table, gates, send, send_back)
        ctx.layout, ctx.engine = layout, engine
        ctx.save_for_backward(heard, weights, table, send, send_back, *gates)
        return heard

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients from those of the summaries."""
        heard, weights, table, send, send_back, *gates = ctx.saved_tensors
        messages = ctx.layout.heard.to(heard)[:, None, :, None]
        # a message m gets: constant + factor · m, and its share of an extreme's gradient where it is that extreme
        slopes = torch.cat([gradient[:, :2] / messages, heard[:, 2:], gradient[:, 2:]], 1)
        constant, factor, shares = slopes[:, 0], slopes[:, 1].mul_(2), slopes[:, 4:]
        constant.addcmul_(factor, heard[:, 0], value=-1)
        edges = (ctx.layout, weights, table, gates, send, send_back, slopes, ctx.needs_input_grad[2])
        counts, *gradients = ctx.engine.summaries_backward(*edges)
        if bool((counts > 1).any()):  # some extremes are shared: once more, now that it is known by how many
            shares.div_(counts.clamp(min=1))
            _, *gradients = ctx.engine.summaries_backward(*edges)
        of_weights, of_table, of_gates, *of_sent = gradients
        return None, None, of_weights, of_table, *of_sent, *of_gates


class Decode(torch.autograd.Function):
    """See :func:`decode`."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, engine: ModuleType, weights: Tensor, table: Tensor, out_table: Tensor, *gates: Tensor
    ) -> Tensor:
        """The change of the weights."""
        ctx.layout, ctx.engine = layout, engine
        ctx.save_for_backward(weights, table, out_table, *gates)
        change: Tensor = engine.decode(layout, weights, table, gates, out_table)
        return change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Gradients from that of the change."""
        weights, table, out_table, *gates = ctx.saved_tensors
        of_weights, of_table, of_gates, of_out_table = ctx.engine.decode_backward(
            ctx.layout, weights, table, gates, out_table, gradient.contiguous(), ctx.needs_input_grad[2]
        )
        return None, None, of_weights, of_table, of_out_table, *of_gates
