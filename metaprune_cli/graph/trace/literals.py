"""Tensors made of Python's numbers keep their values while a model runs on meta, where torch would forget them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MAKERS = (torch.tensor, torch.as_tensor)


class Literals(TorchFunctionMode):
    """Makes them on the CPU, and passes on what stands for them on meta.

    What is written out (``torch.tensor([0, 2])``, ``x.new_tensor(boxes)``, ``x[:, [0, 2]]``) is known wherever the
    model runs; made on meta at once, it would have no values, and no operator would be seen that says so.
    """

    def __init__(self, stand_in: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._stand_in = stand_in

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass everything on, with values where there are some."""
        kwargs = dict(kwargs or {})
        if func in _MAKERS and not isinstance(args[0] if args else kwargs.get("data"), Tensor):
            return self._made(func, args, kwargs)
        if func is Tensor.new_tensor and not isinstance(args[1] if len(args) > 1 else kwargs.get("data"), Tensor):
            kwargs.setdefault("dtype", args[0].dtype)
            return self._made(torch.tensor, args[1:], kwargs)
        if func is Tensor.tolist:
            return _read(args[0])
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            sliced = _with_whole_slices(args[0], args[1])
            if func is Tensor.__getitem__ and sliced is not args[0] and _takes_all(args[1], sliced):
                return sliced
            args = (sliced, self._index(args[1]), *args[2:])
        return func(*args, **kwargs)

    def _made(self, make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        made: Tensor = make(*args, **{**kwargs, "device": "cpu"})
        return self._stand_in(made)

    def _index(self, index: Any) -> Any:
        """An index with tensors in place of lists of numbers."""
        if isinstance(index, tuple):
            return tuple(self._index(part) for part in index)
        if isinstance(index, list) and index and all(isinstance(part, int) for part in index):
            return self._stand_in(torch.tensor(index, device="cpu"))
        return index


def _with_whole_slices(tensor: Tensor, index: Any) -> Tensor:
    """The tensor after the slices of an index that happen to take everything, which Python leaves out.

    ``x[:, :, :height]`` cuts off what was padded, and nothing where nothing was: the program is the same for both.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, bool) or (isinstance(part, Tensor) and part.dtype == torch.bool) for part in parts):
        return tensor
    after = parts[next((at for at, part in enumerate(parts) if part is ...), len(parts)) + 1 :]
    dim = 0
    for part in parts:
        if part is ...:
            dim = tensor.dim() - sum(other is not None for other in after)
        elif part is not None:
            if isinstance(part, slice) and dim < tensor.dim() and _is_whole(part, tensor.size(dim)):
                stop = sys.maxsize if part.stop is None else part.stop
                tensor = torch.ops.aten.slice.Tensor(tensor, dim, part.start or 0, stop)
            dim += 1
    return tensor


def _takes_all(index: Any, tensor: Tensor) -> bool:
    """Whether an index of slices and ``...`` takes everything, for which Python makes a view of its own kind."""
    parts = index if isinstance(index, tuple) else (index,)
    lead = parts[: next((at for at, part in enumerate(parts) if part is ...), len(parts))]
    dims = [*range(len(lead)), *(range(-(len(parts) - len(lead) - 1), 0) if len(lead) < len(parts) else ())]
    slices = [part for part in parts if part is not ...]
    return all(
        isinstance(part, slice) and (part == slice(None) or _is_whole(part, tensor.size(dim)))
        for part, dim in zip(slices, dims, strict=True)
    )


def _is_whole(part: slice, size: int) -> bool:
    """Whether a slice with a bound takes everything."""
    bounds = [bound for bound in (part.start, part.stop) if bound is not None]
    if not bounds or not all(type(bound) is int for bound in bounds) or part.step not in (None, 1):
        return False
    return part.indices(size) == (0, size, 1)


def _read(tensor: Tensor) -> Any:
    """The numbers in a tensor, each read by itself, so that one that is not known says so."""
    return [_read(part) for part in tensor.unbind()] if tensor.dim() else tensor.item()
