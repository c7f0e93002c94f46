"""How operators that mix neurons are computed over those that are left, as if the others had never been there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from metaprune_cli.graph.trace.rules.reductions import reduced_dims

Indices = Mapping[int, Tensor]
"""For each dimension that loses something, the indices that survive."""


@runtime_checkable
class Survivors(Protocol):
    """Knows what is left of every activation."""

    def survivors(self, tensor: Tensor, dims: Iterable[int]) -> Indices:
        """The indices that survive along those of ``dims`` that lose something."""
        ...


SurvivorRule = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""An operator's outputs, of what knows the survivors (:class:`Survivors`), the operator and what it is given."""


class NoReferenceError(Exception):
    """The masked original cannot be computed over survivors only; the message says why."""


def take(tensor: Tensor, kept: Indices) -> Tensor:
    """The survivors of a tensor."""
    for d, index in kept.items():
        tensor = tensor.index_select(d, index)
    return tensor


def put(tensor: Tensor, kept: Indices, shape: Sequence[int]) -> Tensor:
    """The inverse: the survivors in their places in a tensor of the given shape, zeros elsewhere."""
    for d, index in kept.items():
        whole = tensor.new_zeros(*tensor.shape[:d], shape[d], *tensor.shape[d + 1 :])
        tensor = whole.index_copy(d, index, tensor)
    return tensor


def reduces(trace: Survivors, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A reduction: over the survivors of the dimensions it reduces."""
    source, *rest = args
    kept = trace.survivors(source, reduced_dims(func, source.dim(), args, kwargs))
    return func(take(source, kept), *rest, **kwargs)


def along(trace: Survivors, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator along one dimension, which stays: softmax, a cumulative sum."""
    source, dim, *rest = args
    kept = trace.survivors(source, [dim % source.dim()])
    return put(func(take(source, kept), dim, *rest, **kwargs), kept, source.shape)


def layer_norm(trace: Survivors, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """LayerNorm and RMSNorm: the statistics of the survivors."""
    source, shape, *rest = args
    first = source.dim() - len(shape)
    kept = trace.survivors(source, range(first, source.dim()))
    small, own = take(source, kept), {d - first: index for d, index in kept.items()}
    rest = [take(operand, own) if isinstance(operand, Tensor) else operand for operand in rest]
    out, *statistics = func(small, list(small.shape[first:]), *rest, **kwargs)
    return (put(out, kept, source.shape), *statistics)


def batch_norm(trace: Survivors, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A batch norm of a weight: the statistics of what is left of each row; of activations, nothing is mixed."""
    source, *rest = args
    kept = trace.survivors(source, [d for d in range(source.dim()) if d != 1])
    if not kept:
        return func(*args, **kwargs)
    out, *statistics = func(take(source, kept).contiguous(), *rest, **kwargs)
    return (put(out, kept, source.shape), *statistics)


def group_norm(trace: Survivors, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """GroupNorm: the statistics of the survivors of each group; of every group as many must survive."""
    source, weight, bias, samples, channels, positions, groups, *rest = args
    kept = trace.survivors(source, [1])
    if kept:
        counts = (kept[1] // (channels // groups)).bincount(minlength=groups)
        if not bool((counts == counts[0]).all()):
            raise NoReferenceError("GroupNorm loses more channels in one group than in another")
    own = {0: kept[1]} if kept else {}
    affine = [take(operand, own) if operand is not None else None for operand in (weight, bias)]
    small = take(source, kept).contiguous()
    out, *statistics = func(small, *affine, samples, small.size(1), positions, groups, *rest, **kwargs)
    return (put(out, kept, source.shape), *statistics)


def zeros_serve(_trace: Survivors, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A sum or a norm over values of which the removed ones are kept at zero."""
    return func(*args, **kwargs)
