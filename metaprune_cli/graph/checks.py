"""Whether a graph from a file fits the tensors beside it: every index is compared with its extent before it is used.

The engines that walk over a graph, one of them in C++, take its indices as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.artifacts.schemas import refuse, shortened
from metaprune_cli.graph.structure import EdgeBlock, Feature, Structure, owners_of

Packed = Mapping[str, Any]
Path = str | PathLike[str] | None

MACS = 1 << 60
FREE = 1 << 20
"""Neurons that a graph may have beside one for each value in its tensors."""
INDICES = 1 << 24
SHARES = 64
"""Indices that its ranges may stand for: so many, and so many times its neurons and values."""
_REALS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_extents(state: Mapping[str, Tensor], index: Mapping[str, Tensor], document: Packed, where: Path) -> None:
    """Check all sizes, before anything is allocated: what is named exists, and no range is longer than it may be.

    Args:
        state: the tensors of the state dict, by name, aliases left out.
        index: the index lists that are stored as tensors.
        document: the structure; it has passed its schema.
        where: the file.

    Raises:
        CorruptFileError: all that does not fit is listed.
    """
    problems = [*_names(state, document), *_layers(state, document)]
    if not problems:
        neurons, values = _neurons(document), sum(tensor.numel() for tensor in state.values())
        problems = list(_lists(state, index, document))
        spent = sum(math.prod(packed["shape"]) for _, packed, _, _ in _indices(state, document))
        if spent > INDICES + SHARES * (neurons + values):
            problems.append(f"structure: expected indices for {neurons} neurons and {values} values, got {spent}")
    refuse(problems, "graph", where)


def check_indices(structure: Structure, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Check all indices of a structure whose sizes have passed :func:`check_extents`.

    Raises:
        CorruptFileError: an index points outside what it is an index of, or an element of an entry is an edge or a
            feature more than once, or neither and not kept verbatim.
    """
    refuse([*_ids(structure), *_elements(structure, tensors), *_costs(structure)], "graph", where)


def _names(state: Mapping[str, Tensor], document: Packed) -> Iterator[str]:
    """Entries, aliases, and what is said of entries."""
    entries: list[str] = document["entries"]
    aliases: dict[str, str] = document["aliases"]
    known = set(entries)
    if doubled := [shortened(name) for name, count in Counter(entries).items() if count > 1]:
        yield f"structure.entries: expected each entry once, got more of {', '.join(doubled[:10])}"
    yield from (
        f"structure.entries: expected a tensor of the file, got {shortened(name)}"
        for name in known
        if aliases.get(name, name) not in state
    )
    yield from (
        f"structure.aliases.{name}: expected a second name of a tensor, got that of {shortened(first)}"
        for name, first in aliases.items()
        if name in state or first not in state or not {name, first} <= known
    )
    own = known - aliases.keys()
    named: list[tuple[str, set[str], Iterable[str]]] = [
        ("verbatim", known, document["verbatim"]),
        ("trainable", known, document["trainable"]),
    ]
    named += [(f"blocks.{i}.param", own, [block["param"]]) for i, block in enumerate(document["blocks"])]
    named += [(f"features.{i}.name", own, [feature["name"]]) for i, feature in enumerate(document["features"])]
    yield from (
        f"structure.{field}: expected an entry, got {shortened(name)}"
        for field, allowed, names in named
        for name in names
        if name not in allowed
    )
    yield from (
        f"structure.trainable: expected floating-point entries, got {shortened(name)} of {state[first].dtype}"
        for name in document["trainable"]
        if (first := aliases.get(name, name)) in state and state[first].dtype not in _REALS
    )


def _layers(state: Mapping[str, Tensor], document: Packed) -> Iterator[str]:
    """Layers are one after the other, and have no more neurons than there can be."""
    at = 0
    for i, (_, start, size) in enumerate(document["layers"]):
        if start != at:
            yield f"structure.layers.{i}: expected a start of {at}, got {start}"
        at += size
    most = FREE + sum(tensor.numel() for tensor in state.values())
    if not 0 < at <= most:
        yield f"structure.layers: expected 1 to {most} neurons, got {at}"


def _neurons(document: Packed) -> int:
    return sum(size for _, _, size in document["layers"])


def _indices(state: Mapping[str, Tensor], document: Packed) -> Iterator[tuple[str, Packed, Sequence[int | None], int]]:
    """Every index list: its field, what stands for it, the shape it must have (None: any size), and its extent."""
    neurons = _neurons(document)
    for i, block in enumerate(document["blocks"]):
        groups, out, into, _ = block["size"]
        yield f"blocks.{i}.destinations", block["destinations"], (groups, out), neurons
        yield f"blocks.{i}.sources", block["sources"], (groups, into), neurons
    for i, feature in enumerate(document["features"]):
        shape = feature["neurons"]["shape"][:1]
        yield f"features.{i}.neurons", feature["neurons"], (None,), neurons
        yield f"features.{i}.elements", feature["elements"], shape, state[feature["name"]].numel()
    for field in ("identity", "ties", "columns", "rows"):
        if document.get(field) is not None:
            yield field, document[field], (2, None), neurons
    if document.get("heads") is not None:
        yield "heads", document["heads"], (None,), neurons
    for field in ("products", "locks", "spans"):
        for i, part in enumerate(document[field]):
            yield f"{field}.{i}.neurons", part["neurons"], (None,), neurons


def _lists(state: Mapping[str, Tensor], index: Mapping[str, Tensor], document: Packed) -> Iterator[str]:
    for field, packed, wanted, extent in _indices(state, document):
        shape = packed["shape"]
        if len(shape) != len(wanted) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True)):
            yield f"structure.{field}.shape: expected {_in_words(wanted)}, got {shape}"
        elif packed.get("tensor") is None:
            if packed["start"] + math.prod(shape) > extent:
                yield f"structure.{field}: expected a range within {extent}, got {shape} from {packed['start']} on"
        elif (stored := index.get(packed["tensor"])) is None or stored.dtype not in (torch.int32, torch.int64):
            yield f"structure.{field}.tensor: expected an index list, got {shortened(packed['tensor'])}"
        elif stored.numel() != math.prod(shape):
            yield f"structure.{field}.shape: expected {stored.numel()} indices, got {shape}"
    for i, block in enumerate(document["blocks"]):
        reach = block["offset"] + sum((s - 1) * t for s, t in zip(block["size"], block["stride"], strict=True))
        values = state[block["param"]].numel()
        if reach >= values or math.prod(block["size"]) > values:
            yield f"structure.blocks.{i}: expected a region within {values} values, got one that ends at {reach}"
        if math.prod(block["kernel"]) != block["size"][3]:
            yield f"structure.blocks.{i}.kernel: expected {block['size'][3]} taps, got {block['kernel']}"


def _in_words(shape: Sequence[int | None]) -> str:
    return str(["any" if size is None else size for size in shape]).replace("'", "")


def _ids(structure: Structure) -> Iterator[str]:
    """Every list of neurons within the neurons."""
    lists = [(name, getattr(structure, name)) for name in ("identity", "ties", "columns", "rows", "heads")]
    for i, block in enumerate(structure.blocks):
        lists += [(f"blocks.{i}.destinations", block.destinations), (f"blocks.{i}.sources", block.sources)]
    lists += [(f"features.{i}.neurons", feature.neurons) for i, feature in enumerate(structure.features)]
    lists += [(f"products.{i}.neurons", product.neurons) for i, product in enumerate(structure.products)]
    lists += [(f"locks.{i}.neurons", lock.neurons) for i, lock in enumerate(structure.locks)]
    lists += [(f"spans.{i}.neurons", span.neurons) for i, span in enumerate(structure.spans)]
    for field, ids in lists:
        yield from _within(f"structure.{field}", ids, structure.num_neurons)


def _within(field: str, index: Tensor, extent: int) -> Iterator[str]:
    if index.numel():
        low, high = (int(end) for end in index.aminmax())
        if low < 0 or high >= extent:
            yield f"{field}: expected indices in 0 to {extent - 1}, got {low} to {high}"


def _elements(structure: Structure, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Every element of every entry is an edge, a feature or verbatim, once."""
    owners = owners_of(structure.blocks, structure.features)
    for name, tensor in tensors.items():
        if name in structure.aliases:
            continue
        blocks, features = owners.get(name, ([], []))
        outside = [
            problem
            for feature in features
            for problem in _within(f"structure.features of {name}", feature.elements, tensor.numel())
        ]
        yield from outside
        claimed = sum(math.prod(b.size) for b in blocks) + sum(f.elements.numel() for f in features)
        if claimed < tensor.numel() and name not in structure.verbatim:
            yield f"structure.verbatim: expected {name}, of whose {tensor.numel()} values {claimed} are in the graph"
        if claimed > tensor.numel() or not (outside or _are_distinct(tensor.numel(), blocks, features)):
            yield f"structure: expected each value of {name} at most once, got some more often"


def _are_distinct(numel: int, blocks: Sequence[EdgeBlock], features: Sequence[Feature]) -> bool:
    """Whether no two edges or features are the same element; all are within the entry."""
    runs = [*map(_run_of, blocks), *(_run(feature.elements) for feature in features)]
    known = sorted(run for run in runs if run is not None)
    if len(known) == len(runs):  # the usual case, told from sizes alone
        return all(first[1] <= second[0] for first, second in pairwise(known))
    if any(size > 1 and stride == 0 for block in blocks for size, stride in zip(block.size, block.stride, strict=True)):
        return False
    met = torch.zeros(numel, dtype=torch.bool)
    for block in blocks:
        met.as_strided(block.size, block.stride, block.offset).fill_(True)
    for feature in features:
        met[feature.elements] = True
    claimed = sum(math.prod(b.size) for b in blocks) + sum(f.elements.numel() for f in features)
    return int(met.count_nonzero()) == claimed


def _run_of(block: EdgeBlock) -> tuple[int, int] | None:
    """The first and past the last element of a region without gaps, its axes in any order; None for any other."""
    size = 1
    for stride, length in sorted((t, s) for s, t in zip(block.size, block.stride, strict=True) if s > 1):
        if stride != size:
            return None
        size *= length
    return block.offset, block.offset + size


def _run(index: Tensor) -> tuple[int, int] | None:
    """The same of a list of elements."""
    if index.numel() == 0:
        return 0, 0
    first = int(index[0])
    return (first, first + index.numel()) if bool((index.diff() == 1).all()) else None


def _costs(structure: Structure) -> Iterator[str]:
    if structure.macs >= MACS:
        yield f"structure: expected fewer than {MACS} multiply-accumulates, got {structure.macs}"
