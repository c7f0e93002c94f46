"""One table, by operator: what happens to the ids. Adding an operator is one row here and one test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from metaprune_cli.graph.trace.labels import Label
from metaprune_cli.graph.trace.rules.boundary import unknown
from metaprune_cli.graph.trace.rules.contractions import convolution, embedding, linear, matrix_product
from metaprune_cli.graph.trace.rules.elementwise import pointwise
from metaprune_cli.graph.trace.rules.indexing import gather, index, index_put, index_select, scatter
from metaprune_cli.graph.trace.rules.lesser_contractions import deformable_convolution, embedding_bag, trilinear
from metaprune_cli.graph.trace.rules.moves import channel_shuffle, forgets, moves, passes, restrided, split, view
from metaprune_cli.graph.trace.rules.norms import batch_norm, group_norm, layer_norm, softmax
from metaprune_cli.graph.trace.rules.order import along, halves, joins, stacks, transforms
from metaprune_cli.graph.trace.rules.parameters import weight_norm
from metaprune_cli.graph.trace.rules.reductions import POOLED_DIMS, pools, reduces
from metaprune_cli.graph.trace.rules.resampling import LOOK_UPS, complex_pairs, complex_parts, folds, looks_up, unfolds
from metaprune_cli.graph.trace.rules.writes import copies, sized
from metaprune_cli.graph.trace.rules.zeros import follow, keeps_zero
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten
Rule = Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any], Any], Label | tuple[Label, ...]]


def rule_of(func: Any) -> Rule:
    """The rule for an operator; beside its labels, it is remembered whether its output vanishes with its neurons."""
    rule = _row_of(func)

    def followed(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        zero = keeps_zero(trace, func, args)
        labels = rule(trace, func, args, kwargs, out)
        follow(trace, func, out, zero=zero)
        return labels

    return followed


def has_rule(func: Any) -> bool:
    """Whether an operator is known: it has a row, or is a public view or elementwise operator."""
    if _row_in_table(func) is not None:
        return True
    return not func.overloadpacket.__name__.startswith("_") and _row_of(func) is not unknown


def _row_of(func: Any) -> Rule:
    """The operator's row in the table, or what its nature says, or the honest boundary."""
    row = _row_in_table(func)
    if row is not None:
        return row
    if func.is_view:
        return moves
    if torch.Tag.pointwise in func.tags:
        return pointwise
    return unknown


def _row_in_table(func: Any) -> Rule | None:
    packet = func.overloadpacket
    return _TABLE.get(packet) or _ELSEWHERE.get(f"{func.namespace}::{packet.__name__}")


def _rows(rule: Rule, *names: str) -> dict[Any, Rule]:
    """Rows of the table for the operators that this torch has."""
    return {getattr(aten, name): rule for name in names if hasattr(aten, name)}


_TABLE: dict[Any, Rule] = {
    **_rows(view, "view", "_unsafe_view", "reshape", "unflatten"),
    **_rows(moves, "transpose_", "swapaxes_", "t_", "squeeze_", "unsqueeze_"),
    **_rows(split, "split", "split_with_sizes", "chunk", "split_copy", "split_with_sizes_copy", "unsafe_split"),
    **_rows(
        passes, "clone", "contiguous", "_to_copy", "detach", "alias", "lift_fresh", "lift_fresh_copy", "native_dropout"
    ),
    **_rows(passes, "bernoulli", "dropout", "_to_dense"),
    **_rows(restrided, "as_strided_"),
    **_rows(copies, "copy_"),
    **_rows(along, "sort", "argsort", "topk", "kthvalue", "mode", "cumsum", "cumprod", "cummax", "cummin"),
    **_rows(along, "logcumsumexp", "cumsum_", "cumprod_", "renorm", "unique_dim"),
    **_rows(transforms, "_fft_r2c", "_fft_c2r", "_fft_c2c"),
    **_rows(halves, "glu"),
    **_rows(stacks, "stack"),
    **_rows(joins, "cat"),
    **_rows(index, "index", "_unsafe_index"),
    **_rows(index_select, "index_select"),
    **_rows(gather, "gather"),
    **_rows(scatter, "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_"),
    **_rows(scatter, "index_add", "index_add_", "index_copy", "index_copy_", "index_reduce", "index_reduce_"),
    **_rows(index_put, "index_put", "index_put_", "_unsafe_index_put"),
    **_rows(looks_up, "grid_sampler_2d", "grid_sampler_3d", "max_unpool2d", "max_unpool3d"),
    **_rows(unfolds, "im2col"),
    **_rows(folds, "col2im"),
    **_rows(complex_pairs, "view_as_complex"),
    **_rows(complex_parts, "view_as_real"),
    **_rows(channel_shuffle, "channel_shuffle", "native_channel_shuffle"),
    **_rows(weight_norm, "_weight_norm_interface", "_weight_norm"),
    **_rows(
        moves,
        *(
            "roll",
            "flip",
            "rot90",
            "repeat",
            "expand_copy",
            "permute_copy",
        ),
        *("constant_pad_nd", "pixel_shuffle", "pixel_unshuffle"),
        *("repeat_interleave", "tril", "triu", "movedim", "unfold_copy", "slice_copy", "select_copy", "_reshape_copy"),
    ),
    **_rows(
        pointwise,
        *(
            "hardswish_",
            "hardswish",
            "hardsigmoid_",
            "hardtanh_",
            "relu_",
            "relu6",
            "elu_",
            "silu_",
            "mish_",
            "leaky_relu_",
        ),
        *(
            "threshold_",
            "clamp_",
            "add_",
            "sub_",
            "mul_",
            "div_",
            "sigmoid_",
            "tanh_",
            "masked_fill",
            "masked_fill_",
            "celu_",
        ),
        *("prelu", "_prelu_kernel", "rrelu_with_noise", "glu_", "where", "lerp", "addcmul", "addcdiv", "pow", "gelu_"),
    ),
    **_rows(
        reduces, "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "prod", "logsumexp", "median"
    ),
    **_rows(reduces, "linalg_vector_norm", "norm", "argmax", "argmin", "any", "all"),
    **_rows(softmax, "_softmax", "_log_softmax", "_safe_softmax"),
    **_rows(batch_norm, "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"),
    **_rows(batch_norm, "_native_batch_norm_legit_functional", "_batch_norm_no_update", "_batch_norm_with_update"),
    **_rows(batch_norm, "cudnn_batch_norm", "miopen_batch_norm"),
    **_rows(layer_norm, "native_layer_norm", "_fused_rms_norm"),
    **_rows(group_norm, "native_group_norm"),
    **_rows(convolution, "convolution", "_convolution"),
    **_rows(linear, "linear"),
    **_rows(matrix_product, "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"),
    **_rows(embedding, "embedding"),
    **_rows(sized, "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    **_rows(sized, "zero_", "fill_", "bernoulli_", "uniform_", "normal_", "fill"),
    **_rows(forgets, "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided", "_local_scalar_dense"),
    **_rows(embedding_bag, "_embedding_bag", "_embedding_bag_forward_only"),
    **_rows(trilinear, "_trilinear"),
    **dict.fromkeys(POOLED_DIMS, pools),
}

_ELSEWHERE: dict[str, Rule] = {
    **{f"torchvision::{name}": looks_up for name in LOOK_UPS},
    "torchvision::deform_conv2d": deformable_convolution,
}
"""Rows for operators that are not ATen's, by name."""
