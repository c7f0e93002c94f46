"""Tensors made of Python's numbers keep their values while a model runs on meta, where torch would forget them."""

from __future__ import annotations

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
            args = (args[0], self._index(args[1]), *args[2:])
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


def _read(tensor: Tensor) -> Any:
    """The numbers in a tensor, each read by itself, so that one that is not known says so."""
    return [_read(part) for part in tensor.unbind()] if tensor.dim() else tensor.item()
