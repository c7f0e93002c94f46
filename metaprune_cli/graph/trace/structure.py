"""The structure under construction: what the trace has learnt so far, turned into a NeuronGraph at the end."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from itertools import count, takewhile

import torch
from torch import Tensor

from metaprune_cli.graph.components import components, planes, unique_pairs
from metaprune_cli.graph.neuron_graph import (
    EdgeBlock,
    Feature,
    Layer,
    Lock,
    NeuronGraph,
    Plane,
    Product,
    Span,
    owners_of,
)
from metaprune_cli.graph.trace.heads import CONSTANT, Heads, couple
from metaprune_cli.graph.trace.labels import Elements, Ids, affine, compact, squeeze_constant
from metaprune_cli.graph.trace.rectangles import neighbours, owners_of_all
from metaprune_cli.graph.trace.regular import regular_parts, run_length

__all__ = ["CONSTANT", "INPUT", "Structure"]

INPUT = "input"
"""The name of the layers of the model's inputs."""

_Region = tuple[str, tuple[int, tuple[int, ...]], tuple[int, ...]]
"""A region of an entry: its name, the offset and strides of its grid, its shape."""


class Structure:
    """Collects layers, blocks, features, couplings, locks and reasons while a model is traced."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.blocks: dict[tuple[_Region, int], EdgeBlock] = {}
        self.features: dict[tuple[str, str], Feature] = {}
        self.identity: list[Tensor] = []
        self.ties: list[Tensor] = []
        self.products: list[Product] = []
        self.locks: list[Lock] = []
        self.spans: list[Span] = []
        self.notes: dict[str, str] = {}
        self.counting = True
        self.heads = Heads(self)
        self._kinds: dict[str, list[str]] = {}
        self._together = (torch.empty(0, dtype=torch.int64), 0, 0)
        self.lock(self.new_neurons("constant", 1), "no neuron: a constant")

    def new_neurons(self, name: str, count: int) -> Tensor:
        """Ids of ``count`` new neurons, in a layer of their own."""
        start = self.num_neurons
        self.layers.append(Layer(name, start, count))
        return torch.arange(start, start + count)

    @property
    def num_neurons(self) -> int:
        """How many neurons there are so far."""
        return self.layers[-1].start + self.layers[-1].size if self.layers else 0

    def lock(self, ids: Ids, reason: str, plane: Plane = "both") -> None:
        """Lock every neuron that appears in ``ids``."""
        neurons = squeeze_constant(ids).unique()
        self.locks.append(Lock(neurons, reason, plane))

    def span(self, ids: Ids, operator: str) -> None:
        """Remember that ``operator`` mixes these neurons."""
        self.spans.append(Span(squeeze_constant(ids).unique(), operator))

    def note(self, entry: str, reason: str) -> None:
        """Remember why (part of) an entry has no place in the graph; the first reason stays."""
        self.notes.setdefault(entry, reason)

    def tie(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) that must go together."""
        couple(self.ties, first, second)

    def join(self, first: Ids, second: Ids) -> None:
        """Neurons of the two (equal shapes) whose activations are added or multiplied: identity edges."""
        couple(self.identity, torch.minimum(first, second), torch.maximum(first, second))

    def tie_along(self, ids: Ids, dims: list[int]) -> Ids:
        """Tie the ids along ``dims`` to the first of them and return these, ``dims`` kept with size 1."""
        small = squeeze_constant(ids)
        if small.numel() == 0:  # nothing was detected, say: no neuron is seen here
            return torch.zeros([1 if d in dims else size for d, size in enumerate(small.shape)], dtype=torch.int64)
        head = _first_along(small, dims)
        if head.numel() != small.numel():
            self.tie(head.expand_as(small), small)
        return head

    def same(self, ids: Ids, dim: int) -> bool:
        """Whether the ids along ``dim`` belong together already, by what is coupled so far; constants to anybody."""
        small = squeeze_constant(ids)
        if small.size(dim) == 1:
            return True
        head, nobody = _first_along(small, [dim]), small == CONSTANT
        if bool(((small == head) | nobody).all()):
            return True
        label = self._components()
        return bool(((label[small] == label[head]) | nobody).all())

    def _components(self) -> Tensor:
        """The component of every neuron by what is coupled so far; goes on from what it was the last time."""
        known, identity, ties = self._together
        label = torch.cat([known, torch.arange(known.numel(), self.num_neurons)])
        new = _joined(*self.identity[identity:], *self.ties[ties:])
        if new.numel():
            label = components(label.numel(), label[new])[label]
        self._together = label, len(self.identity), len(self.ties)
        return label

    def planes(self) -> tuple[Tensor, Tensor]:
        """Column and row of every neuron by what is coupled so far (see :func:`components.planes`)."""
        both, columns, rows = (
            _joined(*pairs) for pairs in (self.identity + self.ties, self.heads.columns, self.heads.rows)
        )
        return planes(self.num_neurons, both, columns, rows, _whole(self.heads.whole))

    def multiply(self, ids: Ids, macs_per_neuron: int) -> None:
        """An activation-by-activation contraction costs ``macs_per_neuron`` for each of ``ids``."""
        if self.counting:
            self.products.append(Product(ids.reshape(-1).clone(), macs_per_neuron))

    def feature(self, elements: Elements, neurons: Ids, kind: str) -> None:
        """State-dict elements owned by single neurons; a second use, of whatever kind, ties both uses' neurons."""
        index, neurons = elements.real().reshape(-1), neurons.reshape(-1)
        kinds = self._kinds.setdefault(elements.entry, [])
        for known in [self.features[elements.entry, known] for known in kinds]:
            owner = torch.full((int(torch.cat([known.elements, index]).max()) + 1,), -1)
            owner[known.elements] = known.neurons
            seen = owner[index] >= 0
            self.tie(owner[index[seen]], neurons[seen])
            index, neurons = index[~seen], neurons[~seen]
            if not index.numel():
                return
        first = self.features.get((elements.entry, kind))
        if first is None:
            kinds.append(kind)
        else:
            index, neurons = torch.cat([first.elements, index]), torch.cat([first.neurons, neurons])
        self.features[elements.entry, kind] = Feature(elements.entry, kind, index.clone(), neurons.clone())

    def constants(self, entry: str, elements: Tensor) -> Ids | None:
        """The neurons that own these elements as activations, shape (n,); None where one of them has none."""
        known = self.features.get((entry, "constant"))
        if known is None or not bool(torch.isin(elements, known.elements).all()):
            return None
        order = known.elements.argsort()
        return known.neurons[order][torch.searchsorted(known.elements[order], elements)]

    def contract(self, weight: Elements, sources: Ids, kernel: tuple[int, ...], positions: int) -> Ids | None:
        """Edges from ``sources`` (groups, in) through ``weight``, viewed as (groups, out, in, taps).

        Returns:
            The ids of the destinations, shape (groups, out): new neurons, or those of the first use of this region.
            None where the elements do not lie on a strided grid.
        """
        grid = affine(weight)
        if grid is None:
            taps = run_length(sources)
            if taps == 1 or weight.index.size(3) > 1:
                return None
            folded = weight.view(lambda index: index.squeeze(3).unflatten(2, (-1, taps)))
            return self.contract(folded, sources[:, ::taps], (taps,), positions)
        key = (weight.entry, grid, tuple(weight.index.shape))
        positions = positions if self.counting else 0
        parts = self._parts(key)
        if parts and bool((sources == CONSTANT).all()):
            for part in parts:  # a constant, such as a first hidden state, is whatever the neurons need it to be
                self._repeat(part, positions)
        elif parts and all(bool((self.blocks[part].sources == CONSTANT).all()) for part in parts):
            first, *_ = [self.blocks.pop(part) for part in parts]
            self._tie_groups(sources, first.destinations)
            self._connect(key, kernel, (sources, first.destinations), positions + first.positions)
        elif parts:
            self._connect(key, kernel, (sources, self.blocks[parts[0]].destinations), positions)
        else:
            name = weight.entry.rpartition(".")[0] or weight.entry
            groups, out = weight.index.shape[:2]
            destinations = self.new_neurons(name, groups * out).view(groups, out)
            self._tie_groups(sources, destinations)
            self._connect(key, kernel, (sources, destinations), positions)
        destinations = self.blocks[self._parts(key)[0]].destinations
        if weight.mixes is not None:
            self.span(destinations, weight.mixes)
            self.span(sources, weight.mixes)
        for companion in weight.companions:
            self._accompany(companion, (sources, destinations), kernel)
        return destinations

    def _parts(self, key: _Region) -> list[tuple[_Region, int]]:
        """Where the blocks of a region are, if it is known."""
        return list(takewhile(lambda part: part in self.blocks, ((key, i) for i in count())))

    def _repeat(self, part: tuple[_Region, int], positions: int) -> None:
        known = self.blocks[part]
        self.blocks[part] = dataclasses.replace(known, positions=known.positions + positions)

    def _connect(self, key: _Region, kernel: tuple[int, ...], ends: tuple[Ids, Ids], positions: int) -> None:
        """Add the edges of a region between the two ends (sources, destinations)."""
        entry, (offset, stride), shape = key
        sources, destinations = ends
        for i, (size, strides, start, taps, ids) in enumerate(regular_parts(shape, stride, offset, kernel, sources)):
            self._add_block((key, i), EdgeBlock(entry, size, strides, start, destinations, ids, taps, positions))

    def _accompany(self, companion: Elements, ends: tuple[Ids, Ids], kernel: tuple[int, ...]) -> None:
        """What a weight was computed from: edges where it is as large, else features of the neurons it meets alone."""
        sources, destinations = ends
        index = companion.real()
        if index.stride(3) == 0 or index.size(3) == 1:
            index, kernel = index[..., :1], ()
        if index.unique().numel() == index.numel():
            grid = affine(Elements(companion.entry, index))
            if grid is not None:
                self._connect((companion.entry, grid, tuple(index.shape)), kernel, ends, 0)
            else:
                self._opaque(companion.entry, ends)
            return
        for neurons in (destinations[:, :, None, None], sources[:, None, :, None]):
            small, owners = compact([index, neurons.expand(index.shape)])
            pairs = unique_pairs(torch.stack([small.reshape(-1), owners.reshape(-1)]))
            if pairs[0].unique().numel() == pairs.size(1):
                pairs = pairs[:, pairs[1] > CONSTANT]
                self.feature(Elements(companion.entry, pairs[0]), pairs[1], "scale")
                return
        self.note(companion.entry, "one value for many neurons")

    def _opaque(self, entry: str, ends: tuple[Ids, Ids]) -> None:
        self.note(entry, "its elements lie on no grid")
        for ids in ends:
            self.lock(ids, f"meets {entry}, whose elements lie on no grid")

    def _add_block(self, key: tuple[_Region, int], block: EdgeBlock) -> None:
        known = self.blocks.get(key)
        if known is None:
            self.blocks[key] = block
            return
        if known.sources.shape == block.sources.shape:
            self.tie(known.sources, block.sources)
        else:
            for sources in (known.sources, block.sources):
                self.lock(sources, f"{block.param} is used on differently shaped inputs")
        self.blocks[key] = dataclasses.replace(known, positions=known.positions + block.positions)

    def _tie_groups(self, sources: Ids, destinations: Ids) -> None:
        """Keep a grouped weight rectangular: the same rows and columns in every group, or whole depthwise channels."""
        if sources.size(0) == 1:
            return
        if sources.size(1) == 1:
            self.tie(sources.expand_as(destinations), destinations)
        else:
            self.tie_along(sources, [0])
            self.tie_along(destinations, [0])

    def build(
        self, tensors: Mapping[str, Tensor], trainable: frozenset[str], aliases: Mapping[str, str]
    ) -> NeuronGraph:
        """The finished graph; entries that are not covered exactly once are kept verbatim, their neurons locked."""
        self._keep_rectangular(tensors)
        self._fill_tables(tensors)
        self.heads.resolve()
        blocks, features = list(self.blocks.values()), list(self.features.values())
        verbatim: dict[str, str] = {}
        owners = owners_of(blocks, features)
        for entry, tensor in tensors.items():
            if entry in aliases:
                continue
            times = _coverage(tensor.numel(), *owners.get(entry, ([], [])))
            if times is None or bool((times == 1).all()):
                continue
            if bool((times > 1).any()):
                self._drop(entry, blocks, features)
                verbatim[entry] = self.notes.get(entry, "its elements take part in several contractions")
            else:
                reason = (
                    "not reached by the forward pass" if tensor.is_floating_point() else "not a floating-point tensor"
                )
                verbatim[entry] = self.notes.get(entry, reason)
        return NeuronGraph(
            layers=tuple(self.layers),
            blocks=tuple(blocks),
            features=tuple(features),
            identity=unique_pairs(_joined(*self.identity)),
            ties=unique_pairs(_joined(*self.ties)),
            columns=unique_pairs(_joined(*self.heads.columns)),
            rows=unique_pairs(_joined(*self.heads.rows)),
            heads=_whole(self.heads.whole),
            products=tuple(self.products),
            locks=tuple(self.locks),
            spans=tuple(self.spans),
            verbatim=verbatim,
            aliases=dict(aliases),
            trainable=trainable,
            tensors=dict(tensors),
        )

    def _keep_rectangular(self, tensors: Mapping[str, Tensor]) -> None:
        """Couple the neurons of different blocks of one entry that own the same row or column of it."""
        regions: dict[str, list[EdgeBlock]] = {}
        for block in self.blocks.values():
            regions.setdefault(block.param, []).append(block)
        for entry, blocks in regions.items():
            for first, second in neighbours(tensors[entry].shape, blocks):
                self.tie(first, second)

    def _fill_tables(self, tensors: Mapping[str, Tensor]) -> None:
        """Elements of a table that the example did not reach (later positions) belong to the neurons of the others."""
        taken = Counter([block.param for block in self.blocks.values()] + [entry for entry, _ in self.features])
        parts = {
            key: feature
            for key, feature in self.features.items()
            if taken[feature.name] == 1 and feature.elements.numel() < tensors[feature.name].numel()
        }
        groups = self._components() if parts else torch.empty(0)
        for key, part in parts.items():
            owners = owners_of_all(tensors[part.name].shape, part.elements, part.neurons, groups)
            if owners is not None:
                missing = torch.ones(owners.numel(), dtype=torch.bool).index_fill_(0, part.elements, 0)
                rest = missing.nonzero().flatten()
                elements, neurons = torch.cat([part.elements, rest]), torch.cat([part.neurons, owners[rest]])
                self.features[key] = Feature(*key, elements, neurons)

    def _drop(self, entry: str, blocks: list[EdgeBlock], features: list[Feature]) -> None:
        """Take ``entry`` out of the graph and lock every neuron it met."""
        reason = f"meets {entry}, whose elements take part in several contractions"
        for block in [b for b in blocks if b.param == entry]:
            self.lock(block.destinations, reason)
            self.lock(block.sources, reason)
            self.multiply(torch.zeros(1, dtype=torch.int64), block.macs)
            blocks.remove(block)
        for feature in [f for f in features if f.name == entry]:
            self.lock(feature.neurons, reason)
            features.remove(feature)


def _first_along(ids: Ids, dims: list[int]) -> Ids:
    """The ids at index 0 of ``dims``, kept with size 1; where that is padding, another along them that is none."""
    head = ids
    for d in dims:
        head = head.narrow(d, 0, 1)
    if dims and bool((head == CONSTANT).any()):
        return torch.where(head == CONSTANT, ids.amax(dims, keepdim=True), head)
    return head


def _joined(*pairs: Tensor) -> Tensor:
    return torch.cat([torch.empty(2, 0, dtype=torch.int64), *pairs], dim=1)


def _whole(neurons: list[Tensor]) -> Tensor:
    distinct: Tensor = torch.cat([torch.empty(0, dtype=torch.int64), *neurons]).unique()
    return distinct


def _coverage(numel: int, blocks: list[EdgeBlock], features: list[Feature]) -> Tensor | None:
    """How often each element of an entry is in the graph; None where one whole block or feature is all there is."""
    sizes = [math.prod(b.size) for b in blocks] + [f.elements.numel() for f in features]
    if sizes == [numel] and (blocks or features[0].elements.unique().numel() == numel):
        return None
    count = torch.zeros(numel, dtype=torch.uint8)
    for block in blocks:
        region = count.as_strided(block.size, block.stride, block.offset)
        region += 1
    for feature in features:
        count.index_add_(0, feature.elements, torch.ones(feature.elements.numel(), dtype=torch.uint8))
    return count
