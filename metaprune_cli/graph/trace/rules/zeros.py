"""Where removing is not the same as zeroing: which activations are not zero when all parameters of their neuron are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.trace.labels import Elements
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten

_PRODUCTS = """
mul div true_divide bmm mm mv dot masked_fill native_dropout convolution addmm baddbmm linear
"""
_ANY = frozenset(_PRODUCTS.split())
"""Zero as soon as one operand is (for a quotient: the first)."""

_ODD_AND_LINEAR = """
add sub rsub maximum minimum where lerp addcmul cat stack copy zeros_like zero clone contiguous _to_copy detach alias
relu relu6 hardtanh hardswish silu gelu tanh mish elu celu selu leaky_relu prelu _prelu_kernel threshold glu dropout
clamp clamp_min clamp_max neg abs sqrt sin tan sinh asin atan erf sign square expm1 log1p round floor ceil trunc pow
softshrink hardshrink softsign nan_to_num real imag conj lift_fresh
sum mean amax amin max min linalg_vector_norm norm prod std var cumsum cummax cummin sort topk
index index_select gather scatter scatter_add index_add index_put roll flip rot90 repeat repeat_interleave tril triu
constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im roi_align
_fft_r2c _fft_c2c _fft_c2r grid_sampler_2d grid_sampler_3d max_unpool2d max_unpool3d
"""
_ALL = frozenset(_ODD_AND_LINEAR.split())
"""Zero where all operands are, and the plain numbers among them leave it so."""

_NORMS = "native_batch_norm _native_batch_norm_legit_no_training native_layer_norm native_group_norm _fused_rms_norm"
_ALWAYS = frozenset(_NORMS.split())
"""Zero where their own scale and shift are."""

_SUMMANDS = "add sub rsub clamp clamp_min clamp_max masked_fill threshold where constant_pad_nd"
_SUMMED = frozenset(_SUMMANDS.split())
"""Operators whose plain numbers may move zeros away from zero."""


def follow(trace: Tracer, func: Any, out: Any, *, zero: bool) -> None:
    """Remember whether ``out`` vanishes where its neurons' parameters do; a write in place tells all views of it."""
    for leaf in out if isinstance(out, tuple | list) else (out,):
        if isinstance(leaf, Tensor):
            if zero:
                trace.lively.discard(id(leaf))
            else:
                written = trace.sharing(leaf) if func._schema.is_mutable else []
                trace.lively.update(id(t) for t in (leaf, *written))


def vanishes(trace: Tracer, tensor: object) -> bool:
    """Whether a tensor is zero where the parameters of its neurons are."""
    label = trace.label(tensor)
    if isinstance(label, Elements):
        return label.mixes is None
    return label is not None and id(tensor) not in trace.lively


def keeps_zero(trace: Tracer, func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the operator's result is zero wherever the parameters behind its operands are."""
    name = func.overloadpacket.__name__.rstrip("_")
    tensors = tensors_in(args)
    if name in _ANY:
        if name in ("addmm", "baddbmm", "linear", "convolution"):
            return all(vanishes(trace, t) for t in tensors if trace.elements(t) is not None)
        operands = tensors[:1] if name in ("div", "true_divide", "masked_fill", "native_dropout") else tensors
        return any(vanishes(trace, t) for t in operands) and _plain_zero(name, args)
    if name in _ALWAYS:
        return args[1] is not None or all(vanishes(trace, t) for t in tensors[:1])
    if name in _ALL or func.is_view or "pool" in name or "upsample" in name:
        floating = [t for t in tensors if t.is_floating_point() or t.is_complex()]
        return all(vanishes(trace, t) or _is_zero(trace, t) for t in floating) and _plain_zero(name, args)
    return False


def _plain_zero(name: str, args: tuple[Any, ...]) -> bool:
    """Sums with plain numbers other than zero, and clamping that leaves zero out, do not keep zeros."""
    if name not in _SUMMED:
        return True
    if name == "constant_pad_nd":
        return len(args) < 3 or args[2] == 0
    numbers = [a if isinstance(a, int | float) else 0 for a in (*args[1:3], 0, 0)[:2]]
    if name == "clamp_max":
        return numbers[0] >= 0
    if name.startswith("clamp"):
        return numbers[0] <= 0 <= numbers[1] or (numbers[0] <= 0 and len(args) < 3)
    return name == "threshold" or numbers[0] == 0


def _is_zero(trace: Tracer, tensor: Tensor) -> bool:
    value = trace.value(tensor)
    return value is not None and not bool(value.any())
