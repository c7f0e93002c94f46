"""How much memory the activations of one pass need."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from metaprune_cli.metrics.calling import call, evaluating


def peak_activations(model: nn.Module, example_inputs: Any) -> int:
    """Bytes of the activations that live at the same time, at most, while ``model`` runs once in eval mode.

    Counted are the storages that operators make, from when they are made until nobody holds them; not the parameters,
    the inputs, nor what a kernel needs while it works.

    Args:
        model: on any device.
        example_inputs: a tensor, or a tuple or mapping of arguments; on the model's device.
    """
    living = _Living(model, example_inputs)
    with evaluating(model), living:
        call(model, example_inputs)
    return living.peak


class _Living(TorchDispatchMode):
    """Counts the bytes of storages that are alive."""

    def __init__(self, model: nn.Module, example_inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        given = [*model.parameters(), *model.buffers(), *pytree.tree_leaves(example_inputs)]
        self._given = {_address(tensor) for tensor in given if isinstance(tensor, Tensor)}
        self._holders: dict[int, int] = {}
        self._now, self.peak = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and count what it made."""
        out = function(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, Tensor) and _address(tensor) not in self._given:
                self._hold(tensor)
        return out

    def _hold(self, tensor: Tensor) -> None:
        address, size = _address(tensor), tensor.untyped_storage().nbytes()
        if not self._holders.get(address):
            self._now += size
            self.peak = max(self.peak, self._now)
        self._holders[address] = self._holders.get(address, 0) + 1
        weakref.finalize(tensor, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self._holders[address] -= 1
        if not self._holders[address]:
            self._now -= size


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
