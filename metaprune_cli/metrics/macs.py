"""Multiply–accumulates of one forward pass, and parameters."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from metaprune_cli.errors import InputError
from metaprune_cli.metrics.calling import call, check_module, evaluating, what_to_call_with


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """Multiply–accumulates of ``model`` in eval mode: half of what ``torch.utils.flop_counter`` counts.

    Convolutions, matrix products and both products of attention count. Nothing is computed, unless control flow depends
    on data (detection), and the model is not touched.

    Args:
        example_inputs: a tensor, or a tuple or mapping of arguments; the count is for the whole batch.

    Raises:
        InputError: this is no model, or it does not run on these inputs.
    """
    check_module(model)
    try:
        inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), example_inputs)
        with _StrayOnMeta():  # type: ignore[no-untyped-call]
            return _count(_on_meta(model), inputs)
    except Exception:  # noqa: BLE001 - perhaps it needs values; a real mistake fails again below
        pass
    try:
        return _count(model, example_inputs)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} does not run on these inputs.",
            expected="a forward pass",
            got=f"{type(error).__name__}: {error}",
            next_step=what_to_call_with(example_inputs),
        ) from error


def _count(model: nn.Module, inputs: Any) -> int:
    mapping = _flops()
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    try:
        with evaluating(model), _plain_attention(), counter:
            call(model, inputs)
    except AttributeError:  # the counter follows parameters that are inputs of modules, which inference mode forbids
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        with evaluating(model), torch.inference_mode(mode=False), torch.no_grad(), _plain_attention(), counter:
            call(model, inputs)
    return counter.get_total_flops() // 2


def _grouped_flops(rows: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Every row meets the matrix of one expert."""
    return 2 * int(math.prod(rows)) * int(weight[-1])


def _vector_flops(matrix: Any, *_: Any, **__: Any) -> int:
    return 2 * int(math.prod(matrix))


def _sum_flops(_: Any, matrix: Any, *__: Any, **___: Any) -> int:
    return _vector_flops(matrix)


def _deformed_flops(_: Any, weight: Any, *__: Any, out_shape: Any, **___: Any) -> int:
    return 2 * int(math.prod(out_shape)) * int(math.prod(weight[1:]))


def _flops() -> dict[Any, Any]:
    """Products that torch does not count; torchvision's where it is loaded."""
    found = {
        torch.ops.aten._grouped_mm: _grouped_flops,
        torch.ops.aten.mv: _vector_flops,
        torch.ops.aten.addmv: _sum_flops,
    }
    if "torchvision" in sys.modules:
        found[torch.ops.torchvision.deform_conv2d] = _deformed_flops
    return found


def count_params(model: nn.Module) -> int:
    """Elements of all parameters; shared ones count once."""
    check_module(model)
    return sum(parameter.numel() for parameter in model.parameters())


def _on_meta(model: nn.Module) -> nn.Module:
    """A deep copy without values or gradients: copying finds every tensor already done, as its twin on ``meta``."""
    twins: dict[int, Any] = {}
    for module in model.modules():
        plain = [value for value in vars(module).values() if isinstance(value, Tensor)]
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False), *plain]:
            twin = torch.empty_like(tensor, device="meta")
            twins[id(tensor)] = nn.Parameter(twin, requires_grad=False) if isinstance(tensor, nn.Parameter) else twin
    return copy.deepcopy(model, twins)


class _StrayOnMeta(TorchDispatchMode):
    """Constants that a model makes on the CPU go to meta where they meet what is there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if len({tensor.is_meta for tensor in tensors}) > 1:
            args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        return func(*args, **(kwargs or {}))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products, which the counter sees: no fused kernels, no fast path of multi-head attention."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
