"""How much memory one forward pass needs."""

from __future__ import annotations

import weakref
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metaprune_cli.metrics.calling import call


def peak_memory(model: nn.Module, example_inputs: Any, device: torch.device | str = "cpu") -> int:
    """Bytes of all tensors that are alive at once, at the worst moment of a forward pass in the model's mode.

    Weights and inputs count, and every activation from its making until nothing refers to it. On CUDA it is what the
    allocator hands out at the most, which is rounded up and includes an operator's own workspace. On a CPU it is
    counted tensor by tensor, so it does not depend on what else the process holds, but it leaves out what an operator
    allocates and frees within itself.

    Args:
        model: on ``device``.
        example_inputs: a tensor, or a tuple or mapping of arguments; they are moved there.
        device: where it runs.
    """
    inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), example_inputs)
    return sum(_held(model, inputs).values()) + peak_activations(model, inputs, device)


@torch.no_grad()
def peak_activations(model: nn.Module, inputs: Any, device: torch.device | str = "cpu") -> int:
    """The activations' part of :func:`peak_memory`; ``inputs`` are on the device."""
    if torch.device(device).type == "cuda":
        return _grown_on_cuda(model, inputs, torch.device(device))
    with _Alive(set(_held(model, inputs))) as alive:
        call(model, inputs)
    return int(alive.peak)


def _held(model: nn.Module, inputs: Any) -> dict[int, int]:
    """Bytes of what is there before the pass, by storage."""
    given = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return {_key(tensor): _bytes(tensor) for tensor in chain(model.parameters(), model.buffers(), given)}


def _grown_on_cuda(model: nn.Module, inputs: Any, device: torch.device) -> int:
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call(model, inputs)
    return int(torch.cuda.max_memory_allocated(device) - before)


class _Alive(TorchDispatchMode):
    """Sums the bytes of storages from the operator that makes them until they are freed.

    Attributes:
        peak: the most there were at once, without those known before.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._sizes = dict.fromkeys(known, 0)
        self._now = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(made):
            if isinstance(tensor, Tensor) and _key(tensor) not in self._sizes:
                self._sizes[_key(tensor)] = _bytes(tensor)
                self._now += _bytes(tensor)
                weakref.finalize(tensor.untyped_storage(), self._freed, _key(tensor))
        self.peak = max(self.peak, self._now)
        return made

    def _freed(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
