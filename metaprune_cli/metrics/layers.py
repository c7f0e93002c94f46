"""Which layer the time of a forward pass goes to, operator by operator, for any module."""

from __future__ import annotations

import bisect
import copy
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from metaprune_cli.metrics.calling import call
from metaprune_cli.metrics.latency import finish

_FUSED_ATTENTION = (torch.ops.aten._native_multi_head_attention, torch.ops.aten._transformer_encoder_layer_fwd)
"""What the fast path of ``nn.MultiheadAttention`` and its layer runs; PyTorch counts no operations of these."""


@dataclass(frozen=True)
class LayerTime:
    """One layer in one forward pass.

    Attributes:
        ms: what its operators took, the median over several passes.
        macs: multiply-accumulates.
        calls: operators run.
        owned: whether it is a layer with parameters; else it is an operator without, in all its calls.
    """

    ms: float
    macs: int
    calls: int
    owned: bool


@dataclass(frozen=True)
class Profile:
    """Where the time of a forward pass goes: by layer, and by operator (milliseconds)."""

    layers: Mapping[str, LayerTime]
    operators: Mapping[str, float]

    @property
    def ms(self) -> float:
        """All of it."""
        return sum(self.operators.values())


def time_layers(
    models: Mapping[str, nn.Module],
    example_inputs: Any,
    runs: int = 5,
    warmup: int = 1,
    device: torch.device | str = "cpu",
) -> dict[str, Profile]:
    """For each model, what its layers take, the models taking turns.

    An operator belongs to the layer whose parameter it reads, by the parameter's name in the state dict: this holds for
    an author's class and for a program alike. What reads none (activations, additions) is summed up by operator.
    Watching every operator costs time between them, which is not counted, so these are shares rather than a latency.

    Args:
        models: by name; copies are measured, in eval mode.
        example_inputs: a tensor, or a tuple or mapping of arguments.
        runs: passes of each model.
        warmup: passes before these, which do not count.
        device: where they run.
    """
    copies = {name: copy.deepcopy(model).to(device).eval() for name, model in models.items()}
    inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), example_inputs)
    passes: dict[str, list[_Clock]] = {name: [] for name in copies}
    owners = {name: _Owners.of(model) for name, model in copies.items()}
    for turn in range(warmup + runs):
        for name, model in copies.items():
            with torch.no_grad(), _Clock(owners[name], torch.device(device)) as clock:
                call(model, inputs)
            if turn >= warmup:
                passes[name].append(clock)
    return {name: _summary(clocks) for name, clocks in passes.items()}


@dataclass(frozen=True)
class _Owners:
    """Whose memory is whose: where each entry of the state dict starts and ends, in order, and its layer's name."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> _Owners:
        entries = sorted(
            (tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size(), name)
            for name, tensor in model.state_dict().items()
            if tensor.numel()
        )
        layers = [name.rpartition(".")[0] or name for _, _, name in entries]
        return cls(tuple(e[0] for e in entries), tuple(e[1] for e in entries), tuple(layers))

    def find(self, arguments: Any) -> str | None:
        """The layer of the first argument that is one of its entries, or a view of one."""
        return next((name for tensor in _tensors(arguments) if (name := self._owner(tensor)) is not None), None)

    def _owner(self, tensor: Tensor) -> str | None:
        place = tensor.data_ptr()
        index = bisect.bisect_right(self.starts, place) - 1
        return self.names[index] if index >= 0 and place < self.ends[index] else None


@dataclass
class _Sum:
    ms: float = 0.0
    macs: int = 0
    calls: int = 0
    owned: bool = False


class _Clock(TorchDispatchMode):
    """Times every operator and adds it to its layer."""

    def __init__(self, owners: _Owners, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: dict[str, _Sum] = defaultdict(_Sum)
        self.operators: dict[str, float] = defaultdict(float)
        self._owners, self._device = owners, device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        owner = self._owners.find((args, kwargs))
        finish(self._device)
        start = time.perf_counter()
        made = func(*args, **kwargs)
        finish(self._device)
        elapsed_ms = (time.perf_counter() - start) * 1000
        operator = func.overloadpacket
        self.operators[operator.__name__] += elapsed_ms
        entry = self.layers[owner or operator.__name__]
        entry.ms += elapsed_ms
        entry.macs += _macs(operator, args, kwargs, made)
        entry.calls += 1
        entry.owned = owner is not None
        return made


_COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention
}
"""Operators that PyTorch's counter does not know, and others with the same products."""


def _macs(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> int:
    operator = _COUNTED_AS.get(operator, operator)
    if operator in flop_registry:
        return int(flop_registry[operator](*args, **kwargs, out_val=made)) // 2
    return _of_fused_attention(args) if operator in _FUSED_ATTENTION else 0


def _of_fused_attention(args: tuple[Any, ...]) -> int:
    """All matrices in it are applied to every token, and every token of an item meets every other one twice."""
    batch, tokens, width = args[0].shape
    matrices = sum(t.numel() for t in args if isinstance(t, Tensor) and t.dim() == 2)
    return int(batch * tokens * (matrices + 2 * tokens * width))


def _summary(clocks: list[_Clock]) -> Profile:
    layers = {
        name: LayerTime(median(clock.layers[name].ms for clock in clocks), one.macs, one.calls, one.owned)
        for name, one in list(clocks[0].layers.items())
    }
    operators = {name: median(clock.operators[name] for clock in clocks) for name in list(clocks[0].operators)}
    return Profile(layers, operators)


def _tensors(arguments: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor))
