"""What operators make on meta, remembered: torch would work out the same layouts again for every repeated block."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """All that an operator sees of a tensor on meta."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """The layout of a tensor."""
        return cls(tensor.dtype, tuple(tensor.size()), tensor.stride(), int(tensor.storage_offset()))

    def empty(self) -> Tensor:
        """A tensor of this layout, on meta, in a storage of its own."""
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True)) + 1
        flat = torch.empty(0 if 0 in self.size else reach, dtype=self.dtype, device="meta")
        return flat.as_strided(self.size, self.stride, self.offset)


def run_on_meta(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``func(*args, **kwargs)`` for tensors on meta.

    An operator whose outputs are new tensors, or its own inputs changed in place, is run once for each combination of
    layouts and other arguments, and its outputs are made from what it gave then.
    """
    func = _WITHOUT_LAYOUT.get(func, func)
    tensors: list[Tensor] = []
    try:
        key = (frozen(args, tensors), frozen(tuple(kwargs.items()), tensors))
        remembered = None if _is_special(func) or _share(tensors) else _outputs(func, *key)
    except _UNKNOWN:
        remembered = None  # an argument without a hash, or an error that the real call raises with its own arguments
    if remembered is None:
        return func(*args, **kwargs)
    single, made = remembered
    outputs = tuple(tensors[part] if isinstance(part, int) else part and part.empty() for part in made)
    return outputs[0] if single else outputs


_UNKNOWN = (TypeError, RuntimeError, ValueError, IndexError, NotImplementedError, AssertionError)


def _grouped_product(rows: Tensor, weight: Tensor, *_: Any, **__: Any) -> Tensor:
    if rows.size(1) != weight.size(1) or any(max(t.stride()[-2:]) * t.element_size() % 16 for t in (rows, weight)):
        raise RuntimeError(f"no grouped product of {tuple(rows.shape)} and {tuple(weight.shape)}")
    return rows.new_empty(rows.size(0), weight.size(-1))


_WITHOUT_LAYOUT = {torch.ops.aten._grouped_mm.default: _grouped_product}
"""What torch computes in single precision, but works out on meta for half precision only."""


def _is_special(func: Any) -> bool:
    """Views share storage, and some operators change the layout of their input."""
    if not isinstance(func, torch._ops.OpOverload):
        return False
    return func.is_view or torch.Tag.inplace_view in func.tags


def _share(tensors: list[Tensor]) -> bool:
    """Whether one tensor is given twice: which of the two comes back would not be known."""
    return len({id(tensor) for tensor in tensors}) < len(tensors)


def frozen(tree: Any, tensors: list[Tensor]) -> Hashable:
    """The arguments with layouts for tensors, as something that can be hashed; the tensors are listed."""
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return Layout.of(tree)
    if isinstance(tree, list | tuple):
        return (type(tree) is list, *(frozen(part, tensors) for part in tree))
    return type(tree), tree  # 1, 1.0 and True are equal, but not to an operator


def _thawed(tree: Any, make: Callable[[Layout], Tensor]) -> Any:
    if isinstance(tree, Layout):
        return make(tree)
    if isinstance(tree[0], bool):
        parts = [_thawed(part, make) for part in tree[1:]]
        return parts if tree[0] else tuple(parts)
    return tree[1]


@lru_cache(maxsize=20_000)
def _outputs(func: Any, args: Any, kwargs: Any) -> tuple[bool, tuple[Layout | int | None, ...]] | None:
    """Whether there is one output, and for each its layout or which input it is; None where one is a view."""
    inputs: list[Tensor] = []

    def make(layout: Layout) -> Tensor:
        inputs.append(layout.empty())
        return inputs[-1]

    given, named = _thawed(args, make), dict(_thawed(kwargs, make))
    before = [Layout.of(tensor) for tensor in inputs]
    out = func(*given, **named)
    if [Layout.of(tensor) for tensor in inputs] != before:
        return None
    single = not isinstance(out, tuple | list)
    places = {id(tensor): place for place, tensor in enumerate(inputs)}
    storages = {tensor.untyped_storage()._cdata for tensor in inputs}
    made: list[Layout | int | None] = []
    for part in (out,) if single else out:
        if isinstance(part, Tensor) and id(part) in places:
            made.append(places[id(part)])
            continue
        if part is not None and (not isinstance(part, Tensor) or part.untyped_storage()._cdata in storages):
            return None
        storages |= set() if part is None else {part.untyped_storage()._cdata}
        made.append(None if part is None else Layout.of(part))
    if not single and not isinstance(out, tuple):
        return None
    return single, tuple(made)
