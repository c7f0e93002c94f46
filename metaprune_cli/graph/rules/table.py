"""One table, by operator: what happens to the ids. Adding an operator is one row here and one test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from metaprune_cli.graph.labels import Label
from metaprune_cli.graph.rules.boundary import unknown
from metaprune_cli.graph.rules.contractions import convolution, embedding, linear, matrix_product
from metaprune_cli.graph.rules.elementwise import pointwise
from metaprune_cli.graph.rules.moves import forgets, moves, passes, split, view, writes
from metaprune_cli.graph.rules.norms import batch_norm, group_norm, layer_norm, softmax
from metaprune_cli.graph.rules.reductions import POOLED_DIMS, pools, reduces
from metaprune_cli.graph.trace import Tracer

aten = torch.ops.aten
Rule = Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any], Any], Label | tuple[Label, ...]]


def rule_of(func: Any) -> Rule:
    """The rule for an operator: its row in the table, or what its nature says, or the honest boundary."""
    packet = func.overloadpacket
    row = _TABLE.get(packet)
    if row is not None:
        return row
    if func.is_view:
        return moves
    if torch.Tag.pointwise in func.tags:
        return pointwise
    return unknown


def _rows(rule: Rule, *names: str) -> dict[Any, Rule]:
    """Rows of the table for the operators that this torch has."""
    return {getattr(aten, name): rule for name in names if hasattr(aten, name)}


_TABLE: dict[Any, Rule] = {
    **_rows(view, "view", "_unsafe_view", "reshape", "unflatten"),
    **_rows(split, "split", "split_with_sizes", "chunk", "split_copy", "split_with_sizes_copy", "unsafe_split"),
    **_rows(
        passes, "clone", "contiguous", "_to_copy", "detach", "alias", "lift_fresh", "lift_fresh_copy", "native_dropout"
    ),
    **_rows(passes, "bernoulli", "dropout", "cumsum", "_to_dense"),
    **_rows(writes, "copy_"),
    **_rows(
        moves,
        *(
            "cat",
            "stack",
            "index_select",
            "index",
            "gather",
            "roll",
            "flip",
            "rot90",
            "repeat",
            "expand_copy",
            "permute_copy",
        ),
        *("constant_pad_nd", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "take"),
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
    **_rows(
        forgets,
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "new_zeros",
        "new_ones",
    ),
    **_rows(
        forgets, "new_empty", "new_full", "zero_", "fill_", "new_empty_strided", "bernoulli_", "_local_scalar_dense"
    ),
    **dict.fromkeys(POOLED_DIMS, pools),
}
