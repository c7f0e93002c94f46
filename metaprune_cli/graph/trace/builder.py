"""The structure under construction: what the trace has learnt so far, turned into a NeuronGraph at the end."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count, takewhile

import torch
from torch import Tensor

from metaprune_cli.graph.components import unique_pairs
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock, Feature, Product, Structure, owners_of
from metaprune_cli.graph.trace.heads import Heads
from metaprune_cli.graph.trace.labels import Elements, Ids, affine
from metaprune_cli.graph.trace.neurons import CONSTANT, Neurons, distinct, joined
from metaprune_cli.graph.trace.owners import coverage, one_end, one_owner_each
from metaprune_cli.graph.trace.rectangles import merged, neighbours, owners_of_all
from metaprune_cli.graph.trace.regular import (
    NOWHERE,
    in_order,
    meets_its_own,
    regular_parts,
    run_length,
    side_by_side,
    stacked,
    taps_of_pairs,
)

_Region = tuple[str, tuple[int, tuple[int, ...]], tuple[int, ...]]
"""A region of an entry: its name, the offset and strides of its grid, its shape."""


class StructureBuilder:
    """Collects neurons, blocks, features and reasons while a model is traced.

    Attributes:
        neurons: the neurons, their couplings, locks and spans.
        heads: which of them lie on a grid of heads.
        counting: whether what is met adds to the MACs.
    """

    def __init__(self) -> None:
        self.neurons = Neurons()
        self.heads = Heads(self.neurons)
        self.blocks: dict[tuple[_Region, int], EdgeBlock] = {}
        self.features: dict[tuple[str, str], Feature] = {}
        self.products: list[Product] = []
        self.notes: dict[str, str] = {}
        self.counting = True
        self._kinds: dict[str, list[str]] = {}
        self._escorts: dict[str, list[tuple[Tensor, Elements, int]]] = {}

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is met adds nothing to the MACs."""
        before, self.counting = self.counting, False
        try:
            yield
        finally:
            self.counting = before

    def note(self, entry: str, reason: str) -> None:
        """Remember why (part of) an entry has no place in the graph; the first reason stays."""
        self.notes.setdefault(entry, reason)

    def multiply(self, ids: Ids, macs_per_neuron: int) -> None:
        """An activation-by-activation contraction costs ``macs_per_neuron`` for each of ``ids``."""
        if self.counting:
            self.products.append(Product(ids.reshape(-1).clone(), macs_per_neuron))

    def spend(self, elements: Elements) -> None:
        """What it took to compute elements that become no edges."""
        if elements.work:
            self.multiply(torch.zeros(1, dtype=torch.int64), elements.work * elements.index.numel())

    def feature(self, elements: Elements, neurons: Ids, kind: str) -> None:
        """State-dict elements owned by single neurons; a second use, of whatever kind, ties both uses' neurons."""
        index, neurons = elements.real().reshape(-1), neurons.reshape(-1)
        if not index.numel():
            return
        kinds = self._kinds.setdefault(elements.entry, [])
        for known in [self.features[elements.entry, known] for known in kinds]:
            owner = torch.full((int(torch.cat([known.elements, index]).max()) + 1,), -1)
            owner[known.elements] = known.neurons
            seen = owner[index] >= 0
            self.neurons.tie(owner[index[seen]], neurons[seen])
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

    def escort(self, weight: Elements, vector: Elements, work: int = 0) -> None:
        """A vector by whose elements those of a weight (equal shapes) were multiplied: it goes with their neurons.

        Each element of the weight took so much ``work``.
        """
        elements, place = weight.real().reshape(-1), vector.real().reshape(-1)
        of = torch.full((int(elements.max()) + 1,), NOWHERE)
        of[elements[elements != NOWHERE]] = place[elements != NOWHERE]
        self._escorts.setdefault(weight.entry, []).append((of, vector, work))

    def contract(self, weight: Elements, sources: Ids, kernel: tuple[int, ...], positions: int) -> Ids | None:
        """Edges from ``sources`` (groups, in) through ``weight``, viewed as (groups, out, in, taps).

        Returns:
            The ids of the destinations, shape (groups, out): new neurons, or those of the first use of this region.
            None where the elements do not lie on a strided grid.
        """
        if weight.companions and (several := side_by_side(weight)) is not None:
            return self._assembled(*several, sources, kernel, positions)
        grid = affine(weight)
        if grid is not None and any(
            step == 0 < size - 1 for step, size in zip(grid[1], weight.index.shape, strict=True)
        ):
            return self._product(weight, sources, positions)  # one element for several edges
        if grid is None:
            return self._off_grid(weight, sources, kernel, positions)
        key = (weight.entry, grid, tuple(weight.index.shape))
        escorts = self._escorts.get(weight.entry, [])
        positions = positions + weight.work + sum(work for *_, work in escorts) if self.counting else 0
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
            destinations = self.neurons.new(name, groups * out).view(groups, out)
            self._tie_groups(sources, destinations)
            self._connect(key, kernel, (sources, destinations), positions)
        destinations = self.blocks[self._parts(key)[0]].destinations
        if weight.mixes is not None:
            self.neurons.span(destinations, weight.mixes)
            self.neurons.span(sources, weight.mixes)
        for companion in weight.companions:
            same_pairs = meets_its_own(companion, weight)
            if same_pairs is None:
                self._accompany(companion, (sources, destinations), kernel)
            for ids in (destinations, sources) if same_pairs is False else ():
                self.neurons.span(ids, "a weight that is a function of others of its parameter")
        for of, vector, _ in escorts:
            own = weight.real()
            beside = torch.where(own < of.numel(), of[own.clamp(max=of.numel() - 1)], NOWHERE)
            self._accompany(Elements(vector.entry, beside), (sources, destinations), kernel)
        return destinations

    def _assembled(
        self, axis: int, parts: list[Elements], sources: Ids, kernel: tuple[int, ...], positions: int
    ) -> Ids | None:
        """``contract`` with several parameters beside each other: their rows (axis 1), or their columns (axis 2)."""
        columns = sources.split([part.index.size(2) for part in parts], 1) if axis == 2 else [sources] * len(parts)
        found = []
        for part, own in zip(parts, columns, strict=True):
            if (ends := self.contract(part, own, kernel, positions)) is None:
                return None
            found.append(ends)
        for ends in found[1:] if axis == 2 else ():
            self.neurons.join(found[0], ends)
        return torch.cat(found, 1) if axis == 1 else found[-1]

    def _off_grid(self, weight: Elements, sources: Ids, kernel: tuple[int, ...], positions: int) -> Ids | None:
        """``contract`` where the elements lie on a grid only once they are seen otherwise."""
        if (each := stacked(weight.index)) is not None:  # one matrix an expert: groups with the same sources
            parted = weight.view(lambda index: index[0].unflatten(0, (-1, each)))
            several = self.contract(parted, sources.expand(parted.index.size(0), -1), kernel, positions)
            if several is not None:
                return several.reshape(1, -1)
        taps = run_length(sources)
        if taps > 1 and weight.index.size(3) == 1:
            folded = weight.view(lambda index: index.squeeze(3).unflatten(2, (-1, taps)))
            return self.contract(folded, sources[:, ::taps], (taps,), positions)
        if (found := in_order(weight)) is None:
            return None
        ordered, rows, columns = found
        if (fewer := weight.index.size(3) // ordered.index.size(3)) > 1:
            kernel, positions = (ordered.index.size(3),), positions * fewer
        ends = self.contract(ordered, sources[:, columns], kernel, positions)
        return None if ends is None else ends[:, rows.argsort()]

    def _product(self, weight: Elements, sources: Ids, positions: int) -> Ids | None:
        """Through a product of parameters: the factors' elements are features of the neurons at either end.

        Its multiply-accumulates are counted by destination, so its sources cannot go. None where an element meets more
        than one neuron at both ends.
        """
        groups, out, into, taps = weight.index.shape
        factors = [one_end(part) for part in weight.alone()]
        if groups > 1 or None in factors:
            return None
        destinations = self.neurons.new(weight.entry.rpartition(".")[0] or weight.entry, out).view(1, out)
        self.neurons.lock(sources, f"meets {weight.entry}, a factor of a product of parameters")
        self.multiply(destinations, into * taps * (positions + weight.work))
        for axis, elements in filter(None, factors):
            self.feature(elements, (destinations, sources)[axis][0], "scale")
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
        if index.stride(3) == 0:
            index = index[..., :1]
        meets_many = any(index.stride(d) == 0 and index.size(d) > 1 for d in (0, 1, 2))
        taps = None if meets_many else taps_of_pairs(index)
        if taps is not None and taps.unique().numel() == taps.numel():
            grid = affine(Elements(companion.entry, taps))
            if grid is not None:
                kernel = kernel if taps.size(3) == math.prod(kernel) else (taps.size(3),) if taps.size(3) > 1 else ()
                self._connect((companion.entry, grid, tuple(taps.shape)), kernel, ends, 0)
            else:
                self._opaque(companion.entry, ends)
            return
        if sources.size(1) > 1 and torch.equal(index, index[:1].expand_as(index)):
            index, sources, destinations = index[:1], sources[:1], destinations[:1]  # the groups are cut alike
        owned = [
            pairs
            for neurons in (destinations[:, :, None, None], sources[:, None, :, None])
            if (pairs := one_owner_each(index, neurons)) is not None
        ]
        if not owned:
            self.note(companion.entry, "one value for many neurons")
            return
        pairs = max(owned, key=lambda pairs: pairs[1].unique().numel())
        self.feature(Elements(companion.entry, pairs[0]), pairs[1], "scale")

    def _opaque(self, entry: str, ends: tuple[Ids, Ids]) -> None:
        self.note(entry, "its elements lie on no grid")
        for ids in ends:
            self.neurons.lock(ids, f"meets {entry}, whose elements lie on no grid")

    def _add_block(self, key: tuple[_Region, int], block: EdgeBlock) -> None:
        known = self.blocks.get(key)
        if known is None:
            self.blocks[key] = block
            return
        if known.sources.shape == block.sources.shape:
            self.neurons.tie(known.sources, block.sources)
        else:
            for sources in (known.sources, block.sources):
                self.neurons.lock(sources, f"{block.param} is used on differently shaped inputs")
        self.blocks[key] = dataclasses.replace(known, positions=known.positions + block.positions)

    def _tie_groups(self, sources: Ids, destinations: Ids) -> None:
        """Keep a grouped weight rectangular: the same rows and columns in every group, or whole depthwise channels."""
        if sources.size(0) == 1:
            return
        if sources.size(1) == 1:
            self.neurons.tie(sources.expand_as(destinations), destinations)
        else:
            self.neurons.tie_along(sources, [0])
            self.neurons.tie_along(destinations, [0])

    def build(
        self, tensors: Mapping[str, Tensor], trainable: frozenset[str], aliases: Mapping[str, str]
    ) -> NeuronGraph:
        """The finished graph; entries that are not covered exactly once are kept verbatim, their neurons locked."""
        self._keep_rectangular(tensors)
        self._merge_uses(tensors)
        self._fill_tables(tensors)
        self.heads.resolve()
        blocks, features = list(self.blocks.values()), list(self.features.values())
        verbatim: dict[str, str] = {}
        owners = owners_of(blocks, features)
        for entry, tensor in tensors.items():
            if entry in aliases:
                continue
            times = coverage(tensor.numel(), *owners.get(entry, ([], [])))
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
        structure = Structure(
            layers=tuple(self.neurons.layers),
            blocks=tuple(blocks),
            features=tuple(features),
            identity=unique_pairs(joined(*self.neurons.identity)),
            ties=unique_pairs(joined(*self.neurons.ties)),
            columns=unique_pairs(joined(*self.neurons.columns)),
            rows=unique_pairs(joined(*self.neurons.rows)),
            heads=distinct(self.neurons.whole),
            products=tuple(self.products),
            locks=tuple(self.neurons.locks),
            spans=tuple(self.neurons.spans),
            verbatim=verbatim,
            aliases=dict(aliases),
            trainable=trainable,
        )
        return NeuronGraph(structure, dict(tensors))

    def _keep_rectangular(self, tensors: Mapping[str, Tensor]) -> None:
        """Couple the neurons of different blocks of one entry that own the same row or column of it."""
        regions: dict[str, list[EdgeBlock]] = {}
        for block in self.blocks.values():
            regions.setdefault(block.param, []).append(block)
        for entry, blocks in regions.items():
            for first, second in neighbours(tensors[entry].shape, blocks):
                self.neurons.tie(first, second)

    def _merge_uses(self, tensors: Mapping[str, Tensor]) -> None:
        """Parameters that are used as a whole in several ways have one block for all of them."""
        uses: dict[str, list[tuple[_Region, int]]] = {}
        for key, block in self.blocks.items():
            uses.setdefault(block.param, []).append(key)
        owned = {entry for entry, _ in self.features}
        for entry, keys in uses.items():
            found = merged(tensors[entry].shape, [self.blocks[key] for key in keys]) if len(keys) > 1 else None
            if found is None or entry in owned:
                continue
            block, fixed = found
            for ids in fixed:
                self.neurons.lock(ids, f"another use of {entry} has no neurons in their place")
            for key in keys:
                del self.blocks[key]
            self.blocks[keys[0]] = block

    def _fill_tables(self, tensors: Mapping[str, Tensor]) -> None:
        """Elements of a table that the example did not reach (later positions) belong to the neurons of the others."""
        taken = Counter([block.param for block in self.blocks.values()] + [entry for entry, _ in self.features])
        parts = {
            key: feature
            for key, feature in self.features.items()
            if taken[feature.name] == 1 and feature.elements.numel() < tensors[feature.name].numel()
        }
        groups = self.neurons.together() if parts else torch.empty(0)
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
            self.neurons.lock(block.destinations, reason)
            self.neurons.lock(block.sources, reason)
            self.multiply(torch.zeros(1, dtype=torch.int64), block.macs)
            blocks.remove(block)
        for feature in [f for f in features if f.name == entry]:
            self.neurons.lock(feature.neurons, reason)
            features.remove(feature)
