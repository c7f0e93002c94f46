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
            return self._indexed(func, *args)
        return func(*args, **kwargs)

    def _made(self, make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        made: Tensor = make(*args, **{**kwargs, "device": "cpu"})
        return self._stand_in(made)

    def _indexed(self, func: Any, tensor: Tensor, index: Any, *value: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if _leaves_out(tensor, parts):
            sliced = _sliced(tensor, parts)
            return func(sliced, ..., *value) if value else sliced
        return func(tensor, self._index(index), *value)

    def _index(self, index: Any) -> Any:
        """An index with tensors in place of lists of numbers."""
        if isinstance(index, tuple):
            return tuple(self._index(part) for part in index)
        if isinstance(index, list) and index and all(isinstance(part, int) for part in index):
            return self._stand_in(torch.tensor(index, device="cpu"))
        return index


def _leaves_out(tensor: Tensor, index: tuple[Any, ...]) -> bool:
    """Whether Python leaves something out of an index of numbers and slices: bounds that happen to take everything.

    ``x[:, :, :height]`` cuts off what was padded, and nothing where nothing was: the program is to be the same.
    """
    if not all(part is None or part is ... or type(part) in (int, slice) for part in index):
        return False
    dim = 0
    for at, part in enumerate(index):
        if part is ...:
            dim = tensor.dim() - sum(other is not None for other in index[at + 1 :])
        elif part is not None:
            size = tensor.size(dim)
            if isinstance(part, slice) and _is_bounded(part) and part.indices(size) == (0, size, 1):
                return True
            dim += 1
    return False


def _sliced(tensor: Tensor, index: tuple[Any, ...]) -> Tensor:
    """A tensor indexed by numbers and slices, one dimension after the other, nothing left out."""
    dim = 0
    for at, part in enumerate(index):
        if part is ...:
            dim = tensor.dim() - sum(other is not None for other in index[at + 1 :])
        elif isinstance(part, int):
            tensor = tensor.select(dim, part)
        else:
            if part is None:
                tensor = tensor.unsqueeze(dim)
            elif _is_bounded(part):
                bounds = (part.start or 0, sys.maxsize if part.stop is None else part.stop)
                tensor = torch.ops.aten.slice.Tensor(tensor, dim, *bounds, *([] if part.step is None else [part.step]))
            dim += 1
    return tensor


def _is_bounded(part: slice) -> bool:
    return (part.start, part.stop) != (None, None) and all(
        type(bound) in (int, type(None)) for bound in (part.start, part.stop, part.step)
    )


def _read(tensor: Tensor) -> Any:
    """The numbers in a tensor, each read by itself, so that one that is not known says so."""
    return [_read(part) for part in tensor.unbind()] if tensor.dim() else tensor.item()
