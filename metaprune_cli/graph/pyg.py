"""A neuron graph as PyTorch Geometric's HeteroData, and back, bit for bit.

There is one node type, ``neuron``, and one edge type per kernel shape (``("neuron", "3x3", "neuron")``), whose
``edge_attr`` holds one column per tap; residual additions and gates are edges of type ``identity``, without
attributes. Node features are columns of ``x``, one per kind, and as many more as a neuron has of that kind
(``position.7``); ``mask`` says which of them a neuron has. What no edge and no feature carries travels in
``structure``, so a HeteroData stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metaprune_cli.graph.structure import EdgeBlock, Structure

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

IDENTITY = ("neuron", "identity", "neuron")


def edge_type(kernel: tuple[int, ...]) -> tuple[str, str, str]:
    """The edge type of a kernel shape."""
    return ("neuron", "x".join(map(str, kernel)) or "1", "neuron")


def blocks_by_type(structure: Structure) -> dict[tuple[str, str, str], list[EdgeBlock]]:
    """The blocks behind each edge type, in the order of its edges."""
    types: dict[tuple[str, str, str], list[EdgeBlock]] = {}
    for block in structure.blocks:
        types.setdefault(edge_type(block.kernel), []).append(block)
    return types


def edge_index(block: EdgeBlock) -> Tensor:
    """Source and destination of every edge of a block, group by group, destinations first: int64, shape (2, edges)."""
    groups, outer, inner, _ = block.size
    shape = (groups, outer, inner)
    sources, destinations = block.sources[:, None, :].expand(shape), block.destinations[:, :, None].expand(shape)
    return torch.stack([sources.flatten(), destinations.flatten()])


def to_pyg(structure: Structure, tensors: Mapping[str, Tensor]) -> HeteroData:
    """The structure with every edge written out; gradients flow through ``edge_attr`` and ``x``.

    Attributes of the result, for n neurons: ``data["neuron"].x`` and ``.mask`` of shape (n, columns), ``data.columns``
    their names; per edge type ``edge_index`` (2, edges) and ``edge_attr`` (edges, taps); ``data.structure``, and
    ``data.rest``, the state dict without what edges and features carry.
    """
    from torch_geometric.data import HeteroData

    data = HeteroData()
    names, columns = _columns(structure)
    values = [tensors[f.name].reshape(-1)[_on(f.elements, tensors[f.name])] for f in structure.features]
    rows = torch.cat([feature.neurons for feature in structure.features]) if structure.features else columns
    x = torch.zeros(structure.num_neurons, len(names), dtype=_common_dtype(values), device=_device(tensors))
    mask = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    place = (_on(rows, x), _on(columns, x))
    mask[place] = True
    data["neuron"].x = x.index_put(place, torch.cat([v.to(x) for v in values])) if values else x
    data["neuron"].mask = mask
    data.columns = names
    for relation, blocks in blocks_by_type(structure).items():
        weights = [block.weights(tensors).reshape(-1, block.size[3]) for block in blocks]
        dtype = _common_dtype(weights)
        data[relation].edge_attr = torch.cat([weight.to(dtype) for weight in weights])
        data[relation].edge_index = _on(torch.cat([edge_index(block) for block in blocks], dim=1), x)
    data[IDENTITY].edge_index = _on(structure.identity, x)
    data.structure, data.rest = structure, _hollow(structure, tensors)
    return data


def from_pyg(data: HeteroData, structure: Structure | None = None) -> tuple[Structure, dict[str, Tensor]]:
    """The structure, and the state dict with the values that ``data`` holds now; gradients flow through.

    Args:
        data: what :func:`to_pyg` made, its ``x`` and ``edge_attr`` perhaps changed.
        structure: the structure; default: the one ``data`` carries.
    """
    structure = structure or data.structure
    rest: Mapping[str, Tensor] = data.rest
    device = data["neuron"].x.device
    flat: dict[str, Tensor] = {}
    for relation, blocks in blocks_by_type(structure).items():
        counts = [block.num_edges for block in blocks]
        for block, weights in zip(blocks, data[relation].edge_attr.split_with_sizes(counts), strict=True):
            base = _flat(flat, rest, block.param, device)
            flat[block.param] = block.scatter(base, weights.reshape(block.size).to(base))
    _, columns = _columns(structure)
    sizes = [feature.elements.numel() for feature in structure.features]
    for feature, column in zip(structure.features, columns.split_with_sizes(sizes), strict=True):
        base = _flat(flat, rest, feature.name, device)
        values = data["neuron"].x[_on(feature.neurons, base), _on(column, base)].to(base)
        flat[feature.name] = base.index_copy(0, _on(feature.elements, base), values)
    tensors = {name: _in_layout(flat[name], old) if name in flat else old for name, old in rest.items()}
    tensors.update({alias: tensors[first] for alias, first in structure.aliases.items()})
    return structure, tensors


def _columns(structure: Structure) -> tuple[list[str], Tensor]:
    """Names of the columns of ``x``, and the column of every feature value in the order of ``structure.features``."""
    names: list[str] = []
    columns = [torch.zeros(f.neurons.numel(), dtype=torch.int64) for f in structure.features]
    for kind in dict.fromkeys(feature.kind for feature in structure.features):
        members = [i for i, feature in enumerate(structure.features) if feature.kind == kind]
        rank = _occurrence(torch.cat([structure.features[i].neurons for i in members]))
        sizes = [len(columns[i]) for i in members]
        for i, ranks in zip(members, rank.split_with_sizes(sizes), strict=True):
            columns[i] = ranks + len(names)
        names += [kind if r == 0 else f"{kind}.{r}" for r in range(int(rank.max()) + 1)] if len(rank) else []
    return names, torch.cat(columns) if columns else torch.zeros(0, dtype=torch.int64)


def _occurrence(ids: Tensor) -> Tensor:
    """How many equal ids come before each id."""
    ordered, order = ids.sort(stable=True)
    counts = ordered.bincount()
    first = counts.cumsum(0) - counts
    return torch.empty_like(ids).index_copy(0, order, torch.arange(len(ids), device=ids.device) - first[ordered])


def _hollow(structure: Structure, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with shapes in place of the tensors that edges and features carry entirely."""
    carried = dict.fromkeys(tensors, 0)
    for block in structure.blocks:
        carried[block.param] += block.num_edges * block.size[3]
    for feature in structure.features:
        carried[feature.name] += feature.elements.numel()
    return {
        name: tensor.to("meta") if name in structure.aliases or 0 < tensor.numel() == carried[name] else tensor
        for name, tensor in tensors.items()
    }


def _flat(flat: Mapping[str, Tensor], tensors: Mapping[str, Tensor], name: str, device: torch.device) -> Tensor:
    if name in flat:
        return flat[name]
    old = tensors[name]
    return torch.empty(old.numel(), dtype=old.dtype, device=device) if old.is_meta else old.reshape(-1)


def _in_layout(flat: Tensor, old: Tensor) -> Tensor:
    """``flat`` in the shape and memory layout (channels-last, say) of the tensor it replaces."""
    tensor = flat.view(old.shape)
    return tensor if old.is_contiguous() else torch.empty_like(old, device=flat.device).copy_(tensor)


def _common_dtype(values: list[Tensor]) -> torch.dtype:
    return reduce(torch.promote_types, (value.dtype for value in values), torch.float32)


def _device(tensors: Mapping[str, Tensor]) -> torch.device:
    return next((tensor.device for tensor in tensors.values()), torch.device("cpu"))


def _on(index: Tensor, like: Tensor) -> Tensor:
    return index.to(like.device)
