"""Calling the engine in C++ (``kernel.cpp``): on a CPU, float32 or float64; weights are constants."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.methods.metanet import compiled
from metaprune_cli.methods.metanet.engine import Carry, EdgeInputs, Ends
from metaprune_cli.methods.metanet.layers import LEAST_ROOT
from metaprune_cli.methods.metanet.layout import Layout

REALS = {torch.float32: "float", torch.float64: "double"}
MAX_LAYERS = 64
VECTOR = 64  # bytes

T = TypeVar("T")


class _Block(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("weights", "groups", "outs", "ins", "taps", "table", "destinations", "sources", "carried")
    ]


class _Graph(ctypes.Structure):
    _fields_ = [
        ("blocks", ctypes.POINTER(_Block)),
        ("nodes", ctypes.c_void_p),
        ("num_blocks", ctypes.c_int64),
        ("num_nodes", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("layers", ctypes.c_int64),
        ("weights", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("above", ctypes.c_void_p),
        ("below", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
    ]


def available(weights: Tensor, layers: int) -> bool:
    """Whether there is a compiled engine for arrays like this one; compiles it where there is not yet."""
    fits = weights.device.type == "cpu" and weights.dtype in REALS and layers <= MAX_LAYERS
    return fits and compiled.library(REALS[weights.dtype]) is not None


def carried(layout: Layout, table: Tensor) -> int:
    """How many numbers a backward pass carries from one layer to the one below: the gradients of edges' states."""
    width = _padded(table)
    return layout.carried(width * table.element_size())[1] * width


def summaries(edges: EdgeInputs, sent: Ends, ties: bool) -> tuple[Tensor, bool]:
    """Shape (2, 4, n, h), see :class:`.engine.Engine`.

    Lanes of padding always tie: then the answer is yes where there are any.
    """
    call = _Call(edges)
    out, tied = call.new(2, 4, edges.layout.num_neurons), edges.weights.new_zeros(1)
    call.run("summaries_and_ties" if ties else "summaries", *sent, out, *([tied] if ties else []))
    return call.cut(out), bool(tied)


def extremes(edges: EdgeInputs, sent: Ends, heard: Tensor) -> Tensor:
    """How many messages of a neuron are the maximum that was ``heard``, how many the minimum; shape (2, 2, n, h)."""
    call = _Call(edges)
    counts = call.new(2, 2, edges.layout.num_neurons)
    call.run("extremes", *sent, heard, counts)
    return call.cut(counts)


def summaries_backward(
    edges: EdgeInputs, sent: Ends, heard: Tensor, slopes: Tensor, carry: Carry
) -> tuple[None, Tensor, list[Tensor | None], Tensor, Tensor]:
    """Gradients of the weights (none here), the table, the gates and what is sent both ways."""
    assert not carry.of_weights
    call = _Call(edges, carry=carry)
    of_table, of_gates = call.new(len(edges.table)), call.new_gates()
    of_sent = call.new(2, edges.layout.num_neurons)
    call.run("summaries_backward", *sent, heard, slopes, of_table, *call.split(of_gates), *of_sent)
    gates_ = [gate if gate is None else call.cut(gate) for gate in of_gates]
    return None, call.cut(of_table), gates_, call.cut(of_sent[0]), call.cut(of_sent[1])


def receive(gate: Tensor, heard: Tensor, roots: Tensor) -> Tensor:
    """Shape (n, 4h)."""
    n, hidden = gate.shape
    out = gate.new_empty(n, 4 * hidden)
    _run_per_neuron("receive", gate, heard, roots, gate.new_tensor(LEAST_ROOT), out)
    return out


def receive_backward(
    gate: Tensor, heard: Tensor, roots: Tensor, messages: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of the gate, and the slopes for :func:`summaries_backward`."""
    of_gate, slopes = torch.empty_like(gate), gate.new_empty(heard.shape)
    _run_per_neuron("receive_backward", gate, heard, roots, messages.to(heard), gradient, of_gate, slopes)
    return of_gate, slopes


def decode(edges: EdgeInputs, out_table: Tensor) -> Tensor:
    """Shape (size,)."""
    out = torch.zeros_like(edges.weights)
    _Call(edges, identity=False).run("decode", out_table, out)
    return out


def decode_backward(
    edges: EdgeInputs, out_table: Tensor, gradient: Tensor, carry: Carry
) -> tuple[None, Tensor, list[Tensor | None], Tensor]:
    """Gradients of the weights (none here), the table, the gates and the table of the way out."""
    assert not carry.of_weights
    call = _Call(edges, identity=False, carry=carry)
    of_table, of_out_table = call.new(len(edges.table)), call.new(len(edges.table))
    of_gates = call.new_gates()
    call.run("decode_backward", out_table, gradient, of_table, *call.split(of_gates), of_out_table)
    gates_ = [gate if gate is None else call.cut(gate) for gate in of_gates]
    return None, call.cut(of_table), gates_, call.cut(of_out_table)


class _Call:
    """One call: the arguments that all functions of the library begin with, and the padding of all others.

    The library reads whole vectors, so the last axis of all arrays but the weights' is padded to a multiple of one.
    """

    def __init__(self, edges: EdgeInputs, *, identity: bool = True, carry: Carry | None = None) -> None:
        layout, weights, table, gates = edges.layout, edges.weights, edges.table, edges.gates
        states = (None, None) if carry is None else (carry.above, carry.below)
        if weights.numel() != layout.size:  # the library trusts what it is told
            raise InputError("The weights are not those of the graph.", expected=layout.size, got=weights.numel())
        self.like, self.hidden, self.layers = weights, table.shape[1], len(gates) // 2
        self.padded, self.neurons = _padded(table), layout.num_neurons
        self.kept: list[object] = [*states]
        carries = any(part is not None and part.numel() for part in states)
        first = layout.carried(self.padded * weights.element_size())[0]
        blocks, nodes = _described(layout, first if carries else (-1,) * len(first))
        self.all_carried = carries and all(block.carried >= 0 for block in blocks)
        a, b = (self._addresses(part) for part in self.split(gates))
        self.graph = _Graph(
            blocks,
            nodes.data_ptr(),
            len(layout.bundles if identity else layout.blocks),
            layout.num_neurons,
            self.padded,
            self.layers,
            weights.data_ptr(),
            self._address(table),
            ctypes.addressof(a),
            ctypes.addressof(b),
            *(None if part is None else part.data_ptr() for part in states),
            torch.get_num_threads(),
        )
        self.kept += [blocks, nodes, weights, a, b]

    def split(self, gates: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
        """The a of all layers, and the b."""
        return gates[: self.layers], gates[self.layers :]

    def new(self, *shape: int) -> Tensor:
        """Zeros, padded."""
        return self.like.new_zeros(*shape, self.padded)

    def new_gates(self) -> list[Tensor | None]:
        """Zeros for the gradients of the gates; of the last alone, if those of all edges are carried on from there."""
        wanted = [k == self.layers - 1 or not self.all_carried for k in range(self.layers)]
        return [self.new(self.neurons) if want else None for want in 2 * wanted]

    def cut(self, numbers: Tensor) -> Tensor:
        """Without the padding."""
        return numbers[..., : self.hidden]

    def run(self, name: str, *arguments: Tensor | Sequence[Tensor | None]) -> None:
        """Call one function."""
        library = compiled.library(REALS[self.like.dtype])
        assert library is not None
        rest = [self._address(x) if isinstance(x, Tensor) else self._addresses(x) for x in arguments]
        getattr(library, name)(
            ctypes.byref(self.graph), *(ctypes.c_void_p(x) if isinstance(x, int) else x for x in rest)
        )

    def _address(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        if tensor.dim() > 1 and tensor.shape[-1] != self.padded:
            tensor = nn.functional.pad(tensor, (0, self.padded - self.hidden))
        tensor = tensor.contiguous()
        self.kept.append(tensor)
        return tensor.data_ptr()

    def _addresses(self, tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
        return (ctypes.c_void_p * max(len(tensors), 1))(*(self._address(tensor) for tensor in tensors))


def _run_per_neuron(name: str, gate: Tensor, *arguments: Tensor) -> None:
    """Call one of the functions that need no graph, and no padding. What is written to has to be contiguous."""
    library = compiled.library(REALS[gate.dtype])
    assert library is not None
    whole = [tensor.contiguous() for tensor in (gate, *arguments)]
    sizes = [ctypes.c_int64(size) for size in gate.shape]
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in whole]
    getattr(library, name)(*sizes, ctypes.c_int32(torch.get_num_threads()), *addresses)


def _padded(table: Tensor) -> int:
    lanes = VECTOR // table.element_size()
    return -(-table.shape[1] // lanes) * lanes


_DESCRIBED: WeakKeyDictionary[Layout, dict[Sequence[int], tuple[ctypes.Array[_Block], Tensor]]] = WeakKeyDictionary()


def _described(layout: Layout, carried: tuple[int, ...]) -> tuple[ctypes.Array[_Block], Tensor]:
    """The blocks as the library reads them, and the list of neurons they point into; made once for each layout.

    Raises:
        InputError: some of these neurons do not exist.
    """
    known = _DESCRIBED.setdefault(layout, {})
    if carried not in known:
        known[carried] = _description(layout, carried)
    return known[carried]


def _description(layout: Layout, carried: Sequence[int]) -> tuple[ctypes.Array[_Block], Tensor]:
    nodes = torch.cat([ids.flatten() for bundle in layout.bundles for ids in (bundle.destinations, bundle.sources)])
    low, high = (int(end) for end in nodes.aminmax()) if len(nodes) else (0, -1)
    if low < 0 or high >= layout.num_neurons:
        raise InputError(
            "The graph has edges to neurons that do not exist.",
            expected=f"neurons 0 to {layout.num_neurons - 1}",
            got=f"{low} to {high}",
        )
    blocks, at = [], 0
    for bundle, first in zip(layout.bundles, carried, strict=True):
        (groups, outs), ins = bundle.destinations.shape, bundle.sources.shape[1]
        here = at, at + groups * outs
        blocks.append(_Block(bundle.offset, groups, outs, ins, bundle.taps, bundle.table, *here, first))
        at += groups * (outs + ins)
    return (_Block * len(blocks))(*blocks), nodes
