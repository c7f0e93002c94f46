"""The engine in PyTorch: any device, any precision, gradients to the weights too; one tile of edges at a time.

The functions are those of :class:`.engine.Engine`, where they are described. What is as large as
a tile has the precision that the layout says; what is summed up over edges has that of the arguments.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.methods.metanet.engine import Carry, EdgeInputs, Ends
from metaprune_cli.methods.metanet.layers import LEAST_ROOT
from metaprune_cli.methods.metanet.layout import Bundle, Layout

LIVE = 6
"""Arrays of a tile's size that exist at the same time, without the states kept for a backward pass."""

CPU_TILE = 8 * 2**20
"""Bytes of all of a tile's arrays together: about what a processor's caches hold."""

TILE_MIB = "METAPRUNE_TILE_MIB"
"""The environment variable that says something else, in MiB, for all devices."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Some groups and some destinations of a bundle.

    Attributes:
        bundle: which one.
        part: the groups and destinations.
        destinations: neuron ids, shape (groups, out).
        sources: neuron ids, shape (groups, in).
    """

    bundle: Bundle
    part: tuple[slice, slice]
    destinations: Int[Tensor, "g o"]
    sources: Int[Tensor, "g i"]

    def weights(self, flat: Tensor) -> Float[Tensor, "g o i t"]:
        """Its weights."""
        return self.bundle.view(flat)[self.part]

    def taps(self, table: Float[Tensor, "taps h"]) -> Float[Tensor, "t h"]:
        """Its part of a table."""
        return table[self.bundle.table : self.bundle.table + self.bundle.taps]

    def ends(self, numbers: Float[Tensor, "n h"]) -> tuple[Float[Tensor, "g o 1 h"], Float[Tensor, "g 1 i h"]]:
        """What the destinations and what the sources bring to their edges."""
        return numbers[self.destinations][:, :, None], numbers[self.sources][:, None]


def carried(layout: Layout, table: Tensor) -> int:
    """How many numbers a backward pass carries from one layer to the one below: the gradients of edges' states."""
    width = table.shape[1]
    return layout.carried(width * table.element_size())[1] * width


def summaries(edges: EdgeInputs, sent: Ends, ties: bool) -> tuple[Tensor, bool]:
    """Shape (2, 4, n, h), and where ``ties`` whether an extreme is shared by several messages.

    Variances are merged by the parallel formula (Chan et al., 1979).
    """
    layout, send = edges.layout, sent[0]
    n, hidden = send.shape
    weights, table, *gates = _rounded(layout, *edges.tensors)
    count, rounded = send.new_zeros(2, n, 1), _rounded(layout, *sent)
    mean, squares = send.new_zeros(2, n, hidden), send.new_zeros(2, n, hidden)
    found, shared = send.new_full((2, 2, n, hidden), -torch.inf), send.new_zeros(2, 2, n, hidden)
    found[:, 1] = torch.inf
    for tile in _tiles(layout.bundles, hidden, weights):
        states = _kept_states(tile, weights, table, gates, keep=False)[-1]
        for direction, (who, axis, sender) in enumerate(_ways(tile, *rounded)):
            messages, sets = states * sender, who.flatten()
            index = sets[:, None].expand(-1, hidden)
            for extreme, sharing, name in zip(found[direction], shared[direction], ("amax", "amin"), strict=True):
                before = extreme.clone()
                extreme.scatter_reduce_(0, index, getattr(messages, name)(axis).flatten(0, 1).to(extreme), name)
                if ties:
                    reached = (messages == extreme[who].unsqueeze(axis)).sum(axis).flatten(0, 1)
                    sharing.mul_(extreme == before).index_add_(0, sets, reached.to(sharing))
            own = messages.mean(axis, keepdim=True, dtype=mean.dtype)
            spread = messages.sub_(own).square_().sum(axis, dtype=mean.dtype).flatten(0, 1)
            # several sets of one tile may be of the same neuron: all of them are merged with what it has at once
            size = messages.shape[axis]
            total = count[direction].index_add(0, sets, count.new_full((len(sets), 1), size))
            shift = own.flatten(0, 2) - mean[direction][sets]
            step = torch.zeros_like(send).index_add_(0, sets, shift * size) / total.clamp(min=1)
            within = torch.zeros_like(send).index_add_(0, sets, spread + shift.square() * size)
            squares[direction] += within - total * step.square()
            mean[direction] += step
            count[direction] = total
    silent = count == 0
    variance = squares.clamp(min=0) / count.clamp(min=1)
    heard = torch.stack([mean, variance, *found.masked_fill_(silent[:, None], 0).unbind(1)], dim=1)
    return heard, ties and bool((shared > 1).any())


def extremes(edges: EdgeInputs, sent: Ends, heard: Tensor) -> Tensor:
    """How many messages of a neuron are the maximum, and how many the minimum; shape (2, 2, n, h)."""
    counts = sent[0].new_zeros(2, 2, *sent[0].shape)
    send, send_back, weights, table, *gates = _rounded(edges.layout, *sent, *edges.tensors)
    for tile in _tiles(edges.layout.bundles, send.shape[1], weights):
        states = _kept_states(tile, weights, table, gates, keep=False)[-1]
        for direction, (who, axis, sender) in enumerate(_ways(tile, send, send_back)):
            for count, extreme in zip(counts[direction], heard[direction, 2:], strict=True):
                reached = (states * sender == extreme[who].unsqueeze(axis)).sum(axis).flatten(0, 1)
                count.index_add_(0, who.flatten(), reached.to(count))
    return counts


def summaries_backward(
    edges: EdgeInputs, sent: Ends, heard: Tensor, slopes: Tensor, carry: Carry
) -> tuple[Tensor | None, Tensor, list[Tensor], Tensor, Tensor]:
    """Gradients of the weights, the table, the gates and what is sent both ways."""
    gradients = _Gradients(edges, carry)
    of_sent = torch.zeros_like(sent[0]), torch.zeros_like(sent[1])
    weights, table, *gates = gradients.inputs
    send, send_back = _rounded(edges.layout, *sent)
    for tile in _tiles(edges.layout.bundles, send.shape[1], weights, len(gates) // 2):
        kept = _kept_states(tile, weights, table, gates)
        states = kept[-1]
        of_states = torch.zeros_like(states)
        for direction, (who, axis, sender) in enumerate(_ways(tile, send, send_back)):
            messages = states * sender
            constant, factor, at_high, at_low, high, low = (
                numbers[who].unsqueeze(axis) for numbers in (*slopes[direction], *heard[direction, 2:])
            )
            # the two all but cancel where messages are nearly equal: only their sum is rounded
            of_messages = torch.addcmul(constant, factor, messages, out=torch.empty_like(messages))
            for extreme, share in ((high, at_high), (low, at_low)):
                of_messages.addcmul_((messages == extreme).to(messages), share)
            of_states.addcmul_(of_messages, sender)
            senders = (tile.sources, tile.destinations)[direction]
            total = (of_messages * states).sum(3 - axis, dtype=heard.dtype)
            of_sent[direction].index_add_(0, senders.flatten(), total.flatten(0, 1))
        gradients.add_(tile, kept, of_states)
    return *gradients.parts, *of_sent


def receive(gate: Tensor, heard: Tensor, roots: Tensor) -> Tensor:
    """Shape (n, 4h)."""
    mean, _, *extremes = heard.unbind(1)
    turned = _turned(gate, [part.sum(0) for part in extremes])
    return torch.cat([gate * mean.sum(0), (roots - LEAST_ROOT).sum(0), *(gate * extreme for extreme in turned)], 1)


def receive_backward(
    gate: Tensor, heard: Tensor, roots: Tensor, messages: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of the gate, and the slopes for :func:`summaries_backward`."""
    of_mean, of_deviation, *of_extremes = gradient.unflatten(1, (4, -1)).unbind(1)
    mean, variance, *extremes = heard.unbind(1)
    count = messages.to(heard)[:, :, None]
    slope = of_deviation * gate / roots
    factor = 2 * (slope * (0.5 * gate) / count)
    constant = of_mean * gate / count - factor * mean
    shares = [(share * gate).expand_as(factor) for share in _turned(gate, of_extremes)]
    of_gate = of_mean * mean.sum(0) + (slope * variance).sum(0)
    for of_extreme, extreme in zip(of_extremes, _turned(gate, [part.sum(0) for part in extremes]), strict=True):
        of_gate = of_gate + of_extreme * extreme
    return of_gate, torch.stack([constant, factor, *shares], 1)


def _turned(gate: Tensor, extremes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maximum and minimum; a negative gate swaps them."""
    high, low = extremes
    positive = gate > 0
    return torch.where(positive, high, low), torch.where(positive, low, high)


def decode(edges: EdgeInputs, out_table: Tensor) -> Tensor:
    """Shape (size,)."""
    out = torch.zeros_like(edges.weights)
    out_table, weights, table, *gates = _rounded(edges.layout, out_table, *edges.tensors)
    for tile in _tiles(edges.layout.blocks, table.shape[1], weights):
        states = _kept_states(tile, weights, table, gates, keep=False)[-1]
        tile.weights(out).copy_(states @ tile.taps(out_table).T)
    return out


def decode_backward(
    edges: EdgeInputs, out_table: Tensor, gradient: Tensor, carry: Carry
) -> tuple[Tensor | None, Tensor, list[Tensor], Tensor]:
    """Gradients of the weights, the table, the gates and the table of the way out."""
    gradients = _Gradients(edges, carry)
    of_out_table = torch.zeros_like(out_table)
    weights, table, *gates = gradients.inputs
    out_table, gradient = _rounded(edges.layout, out_table, gradient)
    for tile in _tiles(edges.layout.blocks, table.shape[1], weights, len(gates) // 2):
        kept = _kept_states(tile, weights, table, gates)
        incoming = tile.weights(gradient)
        tile.taps(of_out_table).add_(_product(incoming, kept[-1]))
        gradients.add_(tile, kept, incoming @ tile.taps(out_table))
    return *gradients.parts, of_out_table


class _Gradients:
    """Of what the states are made of.

    Those of the states themselves are carried, where there is room for them: added are those from the layer ``above``,
    and those of the states before the last gate are left for the layer ``below``.
    """

    def __init__(self, edges: EdgeInputs, carry: Carry) -> None:
        layout, weights, table = edges.layout, edges.weights, edges.table
        self.inputs, self.above, self.below = _rounded(layout, *edges.tensors), carry.above, carry.below
        starts, _ = layout.carried(table.shape[1] * table.element_size())
        carries = carry.above is not None or carry.below is not None
        self.starts = {b: start for b, start in zip(layout.bundles, starts, strict=True) if carries and start >= 0}
        self.of_weights = torch.zeros_like(weights) if carry.of_weights else None
        self.of_table = torch.zeros_like(table)
        self.of_gates = [torch.zeros_like(gate) for gate in edges.gates]

    @property
    def parts(self) -> tuple[Tensor | None, Tensor, list[Tensor]]:
        return self.of_weights, self.of_table, self.of_gates

    def add_(self, tile: Tile, kept: Sequence[Tensor], of_states: Tensor) -> None:
        """Add a tile's, given those of its last states; ``kept`` are its states after 0, 1, … gates."""
        weights, table, *gates = self.inputs
        layers, carried = len(gates) // 2, tile.bundle in self.starts
        if carried and self.above is not None:
            of_states = of_states + self._carried(tile, self.above).to(of_states)
        for k in reversed(range(max(layers - 1, 0) if carried else 0, layers)):
            of_gate = of_states * kept[k]
            of_states = of_states * _gate(tile, gates[k], gates[layers + k])
            for mine, other in ((k, layers + k), (layers + k, k)):
                at_destinations, at_sources = tile.ends(gates[other])
                self._add_ends(tile, mine, of_gate, at_destinations, at_sources)
        if carried and layers and self.below is not None:
            self._carried(tile, self.below).copy_(of_states)
            return
        tile.taps(self.of_table).add_(_product(tile.weights(weights), of_states))
        if self.of_weights is not None:
            tile.weights(self.of_weights).add_(of_states @ tile.taps(table).T)

    def _carried(self, tile: Tile, flat: Tensor) -> Float[Tensor, "g o i h"]:
        shape = *tile.bundle.destinations.shape, tile.bundle.sources.shape[1], self.of_table.shape[1]
        start = self.starts[tile.bundle] * shape[-1]
        return flat[start : start + math.prod(shape)].view(shape)[tile.part]

    def _add_ends(self, tile: Tile, gate: int, of_gate: Tensor, at_destinations: Tensor, at_sources: Tensor) -> None:
        total = self.of_gates[gate]
        for ends, axis, opposite in ((tile.destinations, 2, at_sources), (tile.sources, 1, at_destinations)):
            edges = (of_gate * opposite).sum(axis, dtype=total.dtype)
            total.index_add_(0, ends.flatten(), edges.flatten(0, 1))


def _rounded(layout: Layout, *tensors: Tensor) -> list[Tensor]:
    """In the precision of the edges' states."""
    return [tensor if layout.precision is None else tensor.to(layout.precision) for tensor in tensors]


def _ways(tile: Tile, send: Tensor, send_back: Tensor) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Along the edges, and along the reversed ones: who hears, the messages' axis, and what states are sent with."""
    yield tile.destinations, 2, tile.ends(send)[1]
    yield tile.sources, 1, tile.ends(send_back)[0]


def _kept_states(
    tile: Tile, weights: Tensor, table: Tensor, gates: Sequence[Tensor], keep: bool = True
) -> list[Float[Tensor, "g o i h"]]:
    """The states after 0, 1, … all gates, or the last alone; the same steps in the forward and the backward pass."""
    kept = [tile.weights(weights) @ tile.taps(table)]
    layers = len(gates) // 2
    for a, b in zip(gates[:layers], gates[layers:], strict=True):
        gate = _gate(tile, a, b)
        kept.append(torch.mul(kept[-1], gate, out=gate))
        if not keep:
            del kept[0]
    return kept


def _gate(tile: Tile, a: Tensor, b: Tensor) -> Float[Tensor, "g o i h"]:
    (a_out, a_in), (b_out, b_in) = tile.ends(a), tile.ends(b)
    return (b_out * a_in).addcmul_(a_out, b_in).add_(1)


def _product(weights: Float[Tensor, "g o i t"], states: Float[Tensor, "g o i h"]) -> Float[Tensor, "t h"]:
    return weights.flatten(0, 2).T @ states.flatten(0, 2)


def _tiles(bundles: Sequence[Bundle], hidden: int, like: Tensor, kept: int = 0) -> Iterator[Tile]:
    """Tiles of which all arrays together, with ``kept`` states more, fit the budget; one destination at least."""
    edges = max(_budget(like.device) // (like.element_size() * hidden * (LIVE + kept)), 1)
    for bundle in bundles:
        (groups, outs), ins = bundle.destinations.shape, bundle.sources.shape[1]
        many = max(min(edges // max(ins, 1), outs), 1)
        together = max(edges // max(outs * ins, 1), 1)
        for group in range(0, groups, together):
            for out in range(0, outs, many):
                part = slice(group, group + together), slice(out, out + many)
                yield Tile(bundle, part, bundle.destinations[part], bundle.sources[part[0]])


def _budget(device: torch.device) -> int:
    """Bytes for a tile: what the user says, else what a processor's caches hold; on a GPU large ones keep it busy.

    Raises:
        InputError: the environment variable is no whole number of MiB.
    """
    if wanted := os.environ.get(TILE_MIB):
        if not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
            raise InputError(
                "The memory for a tile of the metanetwork is not a size",
                expected="a whole number of MiB, at least 1",
                got=wanted,
                where=f"environment variable {TILE_MIB}",
                next_step="correct it, or unset it for the default",
            )
        return int(wanted) * 2**20
    if device.type == "cuda":
        return min(torch.cuda.mem_get_info(device)[0] // 4, 2**31)
    return CPU_TILE
